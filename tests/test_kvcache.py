"""A cache that is written in place answers as one that grows, and says when it was written over."""

import numpy as np
import pytest
from conftest import REFERENCE
from exports import stepped

from edgecap.runtime.engine import OrtEngine
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
