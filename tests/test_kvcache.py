"""A cache that is written in place answers as one that grows, and says when it was written over."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REFERENCE
from exports import stepped

from edgecap.provider_options import RECORDING
from edgecap.runtime import replay
from edgecap.runtime.engine import OrtEngine
from edgecap.runtime.replay import ReplayingEngine
from edgecap.runtime.state import HEADROOM, CacheBuffer, StaleCache

IDS = np.random.default_rng(7).integers(0, 8192, (2, 200))


class Growing(OrtEngine):
    in_place = False


@pytest.fixture(scope="module")
def graphs(cache):
    pytest.importorskip("torch")
    return {
        finish: stepped(REFERENCE, cache, finish)[0] / "model.onnx" for finish in ("fused", "plain")
    }


@pytest.fixture(scope="module")
def engines(graphs):
    return OrtEngine(graphs["fused"], "cpu", 2), Growing(graphs["fused"], "cpu", 2)


def logits_of(engine, cache, ids):
    """Logits of each of the tokens, shape (rows, n), read one by one."""
    found = []
    for tokens in ids.T:
        logits, cache = engine.step(cache, tokens)
        found.append(logits)
    return np.array(found)


@pytest.mark.export
def test_a_fused_graph_writes_in_place_and_a_plain_one_does_not(graphs, engines):
    assert engines[0].in_place
    assert not OrtEngine(graphs["plain"], "cpu", 2).in_place


@pytest.mark.export
@pytest.mark.parametrize("rows", [1, 2])
def test_both_ways_answer_bit_by_bit_alike(engines, rows):
    """Behind a prompt, and over the end of the buffer that was made for it."""
    ids = IDS[:rows]
    found, expected = (
        logits_of(e, e.prefill(ids[:, :20]), ids[:, 20 : 40 + 2 * HEADROOM]) for e in engines
    )
    assert np.array_equal(found, expected)


@pytest.mark.export
def test_from_nothing(engines):
    found, expected = (logits_of(e, None, IDS[:1, :100]) for e in engines)
    assert np.array_equal(found, expected)


def test_a_loop_may_begin_again_at_the_same_cache(engines):
    engine, growing = engines
    base = engine.prefill(IDS[0, :30])
    first = logits_of(engine, base, IDS[:1, 30:50])
    other = logits_of(engine, base, IDS[1:, 30:50])
    assert np.array_equal(first, logits_of(growing, growing.prefill(IDS[0, :30]), IDS[:1, 30:50]))
    assert np.array_equal(other, logits_of(growing, growing.prefill(IDS[0, :30]), IDS[1:, 30:50]))
    assert np.array_equal(first, logits_of(engine, base, IDS[:1, 30:50]))


def test_two_continuations_in_turns_are_refused(engines):
    engine, _ = engines
    base = engine.prefill(IDS[0, :10])
    one, two = engine.decode(base, 1), engine.decode(base, 2)
    engine.decode(two, 3)
    with pytest.raises(StaleCache, match="overwritten"):
        engine.decode(one, 3)


def test_free_positions_are_not_counted(engines):
    engine, growing = engines
    sizes = {e.cache_bytes(e.decode(e.prefill(IDS[0, :10]), 1)) for e in (engine, growing)}
    assert len(sizes) == 1


def test_a_buffer_detects_overwritten_caches():
    buffer = CacheBuffer({}, 8)
    a = buffer.advance(buffer.empty_cache(), 3)
    b = buffer.advance(a, 1)
    c = buffer.advance(b, 2)
    buffer.check_current(b)
    d = buffer.advance(b, 1)
    buffer.check_current(d)
    for stale in (c, a._replace(serial=99), c._replace(length=40)):
        with pytest.raises(StaleCache):
            buffer.check_current(stale)
    grown = buffer.grow(d, 10, lambda capacity: {"capacity": capacity})
    assert (grown.length, grown.buffer.capacity >= 15) == (5, True)
    grown.buffer.check_current(grown)


@pytest.fixture
def recording(monkeypatch):
    """Let the CPU provider count as one that records launches: it runs the same fixed shapes."""
    monkeypatch.setitem(RECORDING, "cpu", "enable_cuda_graph")


def replaying(graph, **options):
    return ReplayingEngine(graph, options.pop("provider", "cpu"), 2, **options)


@pytest.mark.export
@pytest.mark.parametrize("rows", [1, 2])
def test_replays_answer_bit_by_bit_alike(recording, graphs, engines, rows):
    """Behind a prompt, from nothing, and over the end of the buffer."""
    engine, ids = replaying(graphs["fused"]), IDS[:rows]
    assert engine.launches == "replayed"
    for begin in (20, 0):
        expected, found = (
            logits_of(e, e.prefill(ids[:, :begin]) if begin else None, ids[:, begin : begin + 150])
            for e in (engines[0], engine)
        )
        assert np.array_equal(found, expected)
    assert engine.launches == "replayed"


@pytest.mark.export
def test_prompts_use_their_memory_again_once_it_is_free(recording, graphs, engines):
    engine = replaying(graphs["fused"])
    first = engine.prefill(IDS[0, :20])
    values = next(iter(first.values.values()))
    second = engine.prefill(IDS[1, :20])  # the first one still lives
    expected = logits_of(engines[0], engines[0].prefill(IDS[0, :20]), IDS[:1, 20:40])
    assert np.array_equal(logits_of(engine, first, IDS[:1, 20:40]), expected)
    assert next(iter(second.values.values())) is not values
    del first
    third = engine.prefill(IDS[0, :20])
    assert next(iter(third.values.values())) is values
    assert np.array_equal(logits_of(engine, third, IDS[:1, 20:40]), expected)
    assert engine.relocated(third) is third


@pytest.mark.export
def test_few_memories_of_caches_are_kept(recording, graphs):
    engine = replaying(graphs["fused"])
    living = engine.prefill(IDS[0, :9])
    for length in range(10, 20):
        engine.prefill(IDS[0, :length])
    assert len(engine._slots) == replay.MOST_SLOTS
    assert any(slot.owner() is living.buffer for slot in engine._slots)
    engine.stop_replaying("it ends")
    assert not engine._slots


@pytest.mark.export
def test_reasons_not_to_replay(recording, graphs, engines, monkeypatch):
    expected = logits_of(engines[0], engines[0].prefill(IDS[0, :20]), IDS[:1, 20:40])

    def answers(engine):
        return logits_of(engine, engine.prefill(IDS[0, :20]), IDS[:1, 20:40])

    plain = replaying(graphs["plain"])
    assert plain.launches == "one by one: the graph does not write its cache in place"
    assert answers(plain) == pytest.approx(expected, abs=1e-3)
    stopped = replaying(graphs["fused"])
    stopped.stop_replaying("streams share a session")
    assert np.array_equal(answers(stopped), expected)
    assert stopped.launches == "one by one: streams share a session"

    class Refusing(ReplayingEngine):
        def _record(self, *_):
            raise RuntimeError("a node\ncannot be recorded")

    refusing = Refusing(graphs["fused"], "cpu", 2)
    assert np.array_equal(answers(refusing), expected)
    assert refusing.launches == "one by one: a node cannot be recorded"
    monkeypatch.setattr(replay, "fixed_logits_graph", lambda *_: 1 / 0)
    unopened = replaying(graphs["fused"])
    assert unopened.launches == "one by one: division by zero"
    assert np.array_equal(answers(unopened), expected)


@pytest.mark.export
def test_an_option_of_the_provider_turns_it_off(recording, graphs):
    asked = SimpleNamespace(name="cpu", options={"enable_cuda_graph": "0"})
    engine = ReplayingEngine.__new__(ReplayingEngine)
    engine._provider, engine._options = asked, None
    with pytest.raises(AttributeError):  # no arguments: it goes on to open a plain session
        engine._open(graphs["fused"])
    assert engine.launches == "one by one: enable_cuda_graph=0 was given"
