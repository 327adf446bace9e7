"""throughput and overhead: driven by fakes that share a clock between threads,
and by graphs of a few nodes on the real runtime.
"""

import gc
import itertools
import threading
import weakref

import numpy as np
import onnx
import pytest
from fakes import FakeClock, FakeEngine
from onnx import TensorProto, helper

from edgecap.graph.empty_decoder import WIDTH, empty_decoder
from edgecap.meters.overhead import measure_overhead
from edgecap.meters.throughput import MAX_STEPS, MIN_STEPS, ROUNDS, measure_throughput
from edgecap.pipeline.worker.sessions import SystemClock
from edgecap.record import Failure, Throughput
from edgecap.runtime.engine import OrtEngine

pytestmark = pytest.mark.timeout(60)  # a gate that hangs fails soon


class Held:
    """A cache that can be watched: rows, positions, and the thread that it belongs to."""

    def __init__(self, rows, length):
        self.rows, self.length, self.thread = rows, length, threading.get_ident()


class Rows(FakeEngine):
    """Takes `speed_s` a position, whatever the rows, and one stream at a time;
    `meddle(kind, rows)` may raise.
    """

    def __init__(self, clock=None, speed_s=0.01, meddle=lambda kind, rows: None):
        super().__init__(clock or FakeClock(), speed_s=speed_s)
        self.meddle, self.lock = meddle, threading.Lock()
        self.caches, self.most = weakref.WeakSet(), 0
        self.lengths = []

    def _held(self, kind, rows, positions, length):
        with self.lock:
            self.meddle(kind, rows)
            self.clock.time += self.speed_s * positions
            held = Held(rows, length)
            self.caches.add(held)
            self.most = max(self.most, len(self.caches))
        return held

    def prefill(self, inputs):
        rows, n = inputs.shape
        self.prompts.append(inputs)
        return self._held("prefill", rows, n, n)

    def decode(self, cache, tokens):
        assert tokens.shape == (cache.rows,)
        assert cache.thread == threading.get_ident()
        self.decoded.append(tokens)
        self.lengths.append(cache.length + 1)
        return self._held("decode", cache.rows, 1, cache.length + 1)


def measure(engine, points, prefill_tokens=8, context=64, limit_s=1e9, **asked):
    """Measured, with no thread and no cache left behind, collector or not."""
    gc.disable()
    try:
        found = measure_throughput(
            engine,
            engine.clock,
            points,
            prefill_tokens,
            context,
            engine.vocabulary,
            limit_s,
            **asked,
        )
        assert not getattr(engine, "caches", ())
        return found
    finally:
        gc.enable()
        assert not [t for t in threading.enumerate() if t.name.startswith("edgecap-stream")]


# --- samples ----------------------------------------------------------------------------------


def test_rows_and_streams():
    points = [(1, 1), (4, 1), (1, 3), (16, 3)]
    found = measure(Rows(), points)
    assert [(t.batch, t.streams) for t in found] == points
    for t in found:
        assert t.prefill_s == pytest.approx([t.streams * 8 * 0.01] * ROUNDS)
        assert t.decode_s == pytest.approx([t.streams * t.steps * 0.01] * ROUNDS)
        assert t.context == pytest.approx(64.5 if t.steps % 2 == 0 else 64)
        assert len(t.step_s) == ROUNDS
        assert all(0.009 < s < t.streams * t.steps * 0.01 for s in t.step_s)
    assert found[0].steps == found[1].steps == 30
    assert found[0].step_s == pytest.approx([0.01] * ROUNDS)


def test_the_mean_context_is_that_of_the_cache():
    engine = Rows()
    (found,) = measure(engine, [(2, 1)])
    assert np.mean(engine.lengths[-found.steps :]) == pytest.approx(found.context)


def test_points_take_turns():
    engine = Rows()
    measure(engine, [(4, 1), (2, 2)])
    rows = [len(p) for p in engine.prompts]
    assert rows == [4, 4, 2, 2, 2, 2] * (1 + ROUNDS)
    lengths = [p.shape[1] for p in engine.prompts if len(p) == 4]
    assert lengths == [8, 62] + [8, 49] * ROUNDS


def test_ids_are_fresh_in_every_row_stream_and_round():
    engine = Rows()
    engine.vocabulary = 1_000_000
    measure(engine, [(4, 2), (4, 1)])
    rows = [tuple(row[:8]) for prompt in engine.prompts for row in prompt]
    assert len(set(rows)) == len(rows) == 2 * 4 * 3 * (1 + ROUNDS)
    assert len(set(np.concatenate(engine.decoded).tolist())) > 1000


@pytest.mark.parametrize(
    ("speed_s", "context", "steps"),
    [(1e-9, 64, MAX_STEPS), (1.0, 64, MIN_STEPS), (0.03, 64, 10), (1e-9, 5, 5), (1e-9, 1, 2)],
)
def test_a_loop_takes_about_as_long_as_asked(speed_s, context, steps):
    (found,) = measure(Rows(speed_s=speed_s), [(2, 1)], context=context)
    assert found.steps == steps


@pytest.mark.parametrize(("limit_s", "rounds"), [(0.0, 1), (3.0, 1), (4.5, 2), (1e9, ROUNDS)])
def test_no_round_begins_after_the_limit(limit_s, rounds):
    """A turn is 8 + 49 + 30 positions, 0.87 s; the warm-up 8 + 62 + 3, 0.73 s;
    there are two points.
    """
    found = measure(Rows(), [(1, 1), (2, 1)], limit_s=limit_s)
    assert [len(t.decode_s) for t in found] == [rounds] * 2


def test_progress_counts_turns():
    heard = []
    measure(Rows(), [(1, 1), (2, 1)], progress=lambda done, total: heard.append((done, total)))
    assert heard == [(n, 2 + 2 * ROUNDS) for n in range(2 + 2 * ROUNDS)]


def test_caches_live_no_longer_than_their_turn():
    """While a step is decoded there are the cache before it and the one after
    it, and nothing else.
    """
    engine = Rows()
    measure(engine, [(1, 1), (16, 1)])
    assert engine.most == 2
    engine = Rows()
    measure(engine, [(1, 3), (4, 2)])
    assert engine.most <= 2 * 3


def test_nothing_is_asked_for():
    assert measure(Rows(), []) == ()


# --- what goes wrong --------------------------------------------------------------------------


def test_a_refused_batch_takes_no_other_point_along():
    def refuse(kind, rows):
        if rows == 16:
            raise MemoryError("bad\nallocation")

    engine = Rows(meddle=refuse)
    one, refused, four = measure(engine, [(1, 2), (16, 2), (4, 2)])
    assert refused == Failure(
        stage="throughput", error="MemoryError", message="batch 16, streams 2: bad allocation"
    )
    assert len(one.decode_s) == len(four.decode_s) == ROUNDS
    assert sum(len(p) == 16 for p in engine.prompts) <= 2


def fails_at(kind, number, error=RuntimeError):
    """Meddles with the call of that number, counted over all streams from 0."""
    calls = itertools.count()

    def meddle(called, rows):
        if called == kind and rows == 4 and next(calls) == number:
            raise error("")

    return meddle


@pytest.mark.parametrize(
    ("kind", "number"),
    [("prefill", n) for n in (0, 1, 2, 3, 4, 5, 6, 9, 11)]
    + [("decode", n) for n in (0, 4, 8, 9, 40)],
)
def test_one_stream_that_fails_is_heard_and_none_waits_for_it(kind, number):
    """Three streams read 6 prompts and decode 9 tokens to warm up."""
    failed, after = measure(Rows(meddle=fails_at(kind, number)), [(4, 3), (1, 3)])
    assert (failed.error, failed.message) == ("RuntimeError", "batch 4, streams 3: no message")
    assert isinstance(after, Throughput)


def test_a_failure_is_final():
    engine = Rows(meddle=fails_at("prefill", 2 * (1 + ROUNDS) - 1))
    assert isinstance(measure(engine, [(4, 1)])[0], Failure)
    engine = Rows(meddle=fails_at("prefill", 0))
    assert isinstance(measure(engine, [(4, 1)])[0], Failure)
    assert len(engine.prompts) == 1


def test_all_streams_fail():
    def refuse(kind, rows):
        raise ValueError("no")

    assert {f.error for f in measure(Rows(meddle=refuse), [(1, 4), (4, 4)])} == {"ValueError"}


def test_a_clock_that_dies_at_the_gate():
    class Dying(FakeClock):
        def now(self):
            if threading.current_thread() is not threading.main_thread():
                raise OSError("the clock stopped")
            return super().now()

    (failed,) = measure(Rows(Dying()), [(1, 3)])
    assert (failed.error, failed.message) == ("OSError", "batch 1, streams 3: the clock stopped")


def test_no_room_for_another_thread(monkeypatch):
    start, started = threading.Thread.start, itertools.count()

    def refuse(thread):
        if thread.name.startswith("edgecap-stream") and next(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    failed, after = measure(Rows(), [(1, 4), (1, 2)])
    assert failed.message == "batch 1, streams 4: can't start new thread"
    assert isinstance(after, Throughput)


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_an_interrupt_is_no_failure(kind):
    with pytest.raises(KeyboardInterrupt):
        measure(Rows(meddle=fails_at(kind, 1, KeyboardInterrupt)), [(4, 3)])


# --- the real runtime -------------------------------------------------------------------------


def keeper(batch="batch_size"):
    """A decoder of one layer whose keys are the ids that it read."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [batch, "sequence_length"])
    past, present = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 1, length, 1])
        for name, length in (
            ("past_key_values.0.key", "past_sequence_length"),
            ("present.0.key", "total_sequence_length"),
        )
    )
    logits = helper.make_tensor_value_info(
        "logits", TensorProto.FLOAT, [batch, "sequence_length", 1]
    )
    axes = [
        helper.make_tensor(name, TensorProto.INT64, [len(at)], at)
        for name, at in (("two", [2]), ("ends", [1, 3]))
    ]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "two"], ["logits"]),
        helper.make_node("Unsqueeze", ["floats", "ends"], ["keys"]),
        helper.make_node("Concat", ["past_key_values.0.key", "keys"], ["present.0.key"], axis=2),
    ]
    graph = helper.make_graph(nodes, "keeper", [ids, past], [logits, present], axes)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    ).SerializeToString()


def opened(model, folder, kind=OrtEngine):
    path = folder / "model.onnx"
    path.write_bytes(model)
    engine = kind(path, "cpu", 1)
    engine.clock = SystemClock()
    return engine


class Checked(OrtEngine):
    """Compares the cache after each call with the ids that the stream was given."""

    checked = 0

    def prefill(self, inputs):
        return self._same(super().prefill(inputs), inputs)

    def decode(self, cache, tokens):
        before = cache.values["past_key_values.0.key"].numpy()[:, 0, :, 0]
        return self._same(
            super().decode(cache, tokens), np.concatenate([before, tokens[:, None]], axis=1)
        )

    def _same(self, cache, ids):
        assert cache.length == ids.shape[1]
        assert np.array_equal(cache.values["past_key_values.0.key"].numpy()[:, 0, :, 0], ids)
        self.checked += 1
        return cache


def test_streams_of_a_session_do_not_mix(tmp_path):
    engine = opened(keeper(), tmp_path, Checked)
    engine.vocabulary = 1000
    found = measure(engine, [(1, 1), (4, 1), (1, 4), (16, 4)], context=16)
    assert all(isinstance(t, Throughput) for t in found)
    assert all(s > 0 for t in found for s in (*t.prefill_s, *t.decode_s, *t.step_s))
    assert all(t.decode_s[n] >= t.step_s[n] for t in found for n in range(ROUNDS))
    assert engine.checked >= (1 + 1 + 4 + 4) * (1 + ROUNDS) * (2 + MIN_STEPS)


def test_a_graph_for_one_row_refuses_more(tmp_path):
    one, four, streams = measure(
        opened(keeper(batch=1), tmp_path), [(1, 1), (4, 2), (1, 2)], context=16
    )
    assert isinstance(one, Throughput)
    assert isinstance(streams, Throughput)
    assert four.stage == "throughput"
    assert four.message.startswith("batch 4, streams 2: ")


# --- overhead ---------------------------------------------------------------------------------


def test_overhead_is_the_median_step():
    clock = FakeClock()
    assert measure_overhead(FakeEngine(clock, speed_s=0.0002), clock, 32) == pytest.approx(0.0002)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_an_empty_decoder_is_a_decoder(layers, tmp_path):
    model = onnx.load_from_string(empty_decoder(layers))
    onnx.checker.check_model(model, full_check=True)
    assert [len(model.graph.input), len(model.graph.output)] == [3 + 2 * layers, 1 + 2 * layers]
    engine = opened(empty_decoder(layers), tmp_path)
    assert (engine.vocabulary, engine.has_cache) == (WIDTH, layers > 0)
    logits, cache = engine.step(None, np.array([3, 50_000]))
    assert logits.tolist() == np.eye(WIDTH)[[3, 3]].tolist()[:1] + [[0.0] * WIDTH]


def test_overhead_on_the_real_runtime(tmp_path):
    assert measure_overhead(opened(empty_decoder(2), tmp_path), SystemClock(), 32) > 0
