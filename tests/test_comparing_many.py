"""Cells drawn at once have the intervals that each has alone, and those of a plain bootstrap."""

import random

import msgspec
import numpy as np
import pytest
from conftest import ROOT
from msgspec.structs import replace

from edgecap import stats
from edgecap.analysis.compare import compare
from edgecap.analysis.draws import BLOCK
from edgecap.record import Absent, Energy, Failure, Window
from edgecap.storage.records import load

RECORD = load(ROOT / "tests" / "data" / "record-8.json")
BASE = RECORD.cells[0]
CELLS = 2 * BLOCK + 5  # more than are drawn at once, and not a multiple
ABSENT = Absent(reason="left out")


def varied(n, rounds=None, in_turns=True):
    """The baseline with other bits in each document and other seconds in each round."""
    rng, outcome = random.Random(n), BASE.outcome
    documents = tuple(
        replace(d, nll_bits=d.nll_bits * rng.uniform(0.9, 1.1))
        for d in outcome.compression.per_document
    )
    bits, size = sum(d.nll_bits for d in documents), sum(d.bytes for d in documents)
    tokens = sum(d.tokens for d in documents)
    text = replace(
        outcome.compression,
        per_document=documents,
        bits_per_byte=bits / size,
        gain_bits_per_token=(8 * size - bits) / tokens,
    )
    latency = replace(
        outcome.latency,
        in_turns=in_turns,
        prefill=slower(outcome.latency.prefill, rng, rounds),
        decode=slower(outcome.latency.decode, rng, rounds),
    )
    return replace(
        BASE, precision=f"v{n}", outcome=replace(outcome, compression=text, latency=latency)
    )


def slower(part, rng, rounds):
    factors = {n: rng.uniform(0.8, 1.6) for n in dict.fromkeys(part.rounds)}
    kept = list(factors)[:rounds]
    pairs = [
        (s * factors[n], n) for s, n in zip(part.samples_s, part.rounds, strict=True) if n in kept
    ]
    samples, numbers = zip(*pairs, strict=True)
    return replace(part, samples_s=samples, rounds=numbers)


def energy(n, windows=5, **changes):
    def of(tokens):
        return tuple(
            Window(joules=20.0 + n + w * w, seconds=2.0, tokens=tokens) for w in range(windows)
        )

    plain = Energy(
        counter="rapl", domains=("package",), provenance="counter", tick_s=0.001,
        resolution_j=1e-4, idle_w=(5.0, 5.0), prefill=of(900), decode=of(300),
    )  # fmt: skip
    return replace(plain, **changes)


def with_part(cell, **parts):
    return replace(cell, outcome=replace(cell.outcome, **parts))


def strange(in_turns):
    """Cells that lack a part, or have fewer rounds, windows or documents than the others."""
    cells = [varied(1000 + n, in_turns=in_turns) for n in range(12)]
    text = cells[0].outcome.compression
    graph = replace(BASE.graph, prefilled_divergence_bits=0.1, decoded_divergence_bits=0.3)
    return [
        with_part(cells[0], compression=ABSENT),
        with_part(cells[1], latency=ABSENT),
        with_part(cells[2], memory=ABSENT),
        with_part(cells[3], compression=replace(text, per_document=text.per_document[:1])),
        with_part(cells[4], compression=replace(text, protocol="paper")),
        with_part(cells[5], latency=replace(cells[5].outcome.latency, decode=ABSENT)),
        replace(cells[6], score=ABSENT),
        replace(cells[7], outcome=Failure(stage="decode", error="MemoryError", message="none")),
        replace(cells[8], graph=graph),
        with_part(cells[9], energy=energy(1, provenance="assumed")),
        with_part(cells[10], energy=energy(2, windows=3, quantisation=0.05)),
        varied(1011, rounds=7, in_turns=in_turns),
        varied(1012, rounds=1, in_turns=in_turns),
    ]


def record_of(in_turns):
    base = with_part(varied(0, in_turns=in_turns), energy=energy(0))
    cells = [varied(n, in_turns=in_turns) for n in range(1, CELLS)]
    cells = [with_part(c, energy=energy(n)) if n % 3 else c for n, c in enumerate(cells)]
    return replace(RECORD, cells=(replace(base, precision="fp32"), *cells, *strange(in_turns)))


@pytest.mark.parametrize("in_turns", [True, False])
def test_many_at_once_are_compared_as_each_alone(in_turns):
    record = record_of(in_turns)
    baseline, *others = record.cells
    together = compare([record])
    alone = [compare([replace(record, cells=(baseline, cell))])[0] for cell in others]
    assert len(together) == CELLS - 1 + 13
    assert together == alone
    drawn = [d for c in together for d in c.differences if getattr(d.ratio, "low", None)]
    assert {"decode_j", "energy_capacity", "effective_flops_per_s"} <= {d.metric for d in drawn}


def test_many_baselines_are_compared_as_each_alone():
    """Two records pair each cell with its like, so that each pair has a baseline of its own."""
    before = [c for c in record_of(in_turns=True).cells if c.graph is BASE.graph]
    after = [replace(varied(5000 + n), precision=c.precision) for n, c in enumerate(before)]
    after[3] = with_part(after[3], compression=ABSENT)
    after[5] = replace(after[5], outcome=before[-4].outcome)
    later = replace(RECORD, created_utc="2026-11-30T00:00:00Z")
    alone = [
        compare([replace(RECORD, cells=(x,)), replace(later, cells=(y,))])[0]
        for x, y in zip(before, after, strict=True)
        if not isinstance(x.outcome, Failure)
    ]
    assert len(alone) > CELLS
    records = [replace(RECORD, cells=tuple(before)), replace(later, cells=tuple(after))]
    assert compare(records) == alone


def test_many_have_the_intervals_of_a_plain_bootstrap_of_rounds():
    record = record_of(in_turns=True)
    uniform = random.Random(stats.SEED).random
    n = len(dict.fromkeys(BASE.outcome.latency.decode.rounds))
    drawn = [[int(uniform() * n) for _ in range(n)] for _ in range(stats.DRAWS)]
    below = medians(record.cells[0])
    for cell, found in list(zip(record.cells[1:], compare([record]), strict=True))[: CELLS - 1]:
        ratios = np.sort(medians(cell) / below)
        check(found, "decode_s", np.median(ratios), np.median(ratios[drawn], axis=1))


def medians(cell):
    part = cell.outcome.latency.decode
    samples, rounds = np.array(part.samples_s), np.array(part.rounds)
    return np.array([np.median(samples[rounds == n]) for n in dict.fromkeys(part.rounds)])


def test_many_have_the_intervals_of_a_plain_bootstrap_of_documents():
    """Documents are drawn in pairs, within their domains; the draws of each domain have a seed."""
    record = record_of(in_turns=True)
    documents = BASE.outcome.compression.per_document
    domains = [d.domain for d in documents]
    drawn = np.zeros((stats.DRAWS, len(documents)))
    for k, name in enumerate(dict.fromkeys(domains)):
        rows = [row for row, domain in enumerate(domains) if domain == name]
        assert len(rows) > 1
        rng = np.random.default_rng(stats.SEED + k)
        drawn[:, rows] = rng.multinomial(len(rows), [1 / len(rows)] * len(rows), stats.DRAWS)
    below = bits(record.cells[0])
    for cell, found in list(zip(record.cells[1:], compare([record]), strict=True))[: CELLS - 1]:
        value = bits(cell).sum() / below.sum()
        check(found, "bits_per_byte", value, (drawn @ bits(cell)) / (drawn @ below))


def bits(cell):
    return np.array([d.nll_bits for d in cell.outcome.compression.per_document])


def check(comparison, metric, value, draws):
    (found,) = [d for d in comparison.differences if d.metric == metric]
    assert found.ratio.value == pytest.approx(value, rel=1e-12)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.ratio.low == pytest.approx(min(low, value), rel=1e-12)
    assert found.ratio.high == pytest.approx(max(high, value), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 40, 41, stats.DRAWS])
def test_intervals_are_those_of_sorted_draws(n):
    draws = np.random.default_rng(n).standard_normal((2, 5, n))
    low, high = np.quantile(draws, [0.025, 0.975], axis=-1)
    values = draws.mean(axis=(0, 2)).tolist()
    found = stats.intervals(values, draws)
    assert [e.low for e in found] == pytest.approx(np.minimum(low.min(0), values))
    assert [e.high for e in found] == pytest.approx(np.maximum(high.max(0), values))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_draw_that_is_not_finite_takes_only_its_own_interval(bad):
    draws = np.random.default_rng(4).standard_normal((3, stats.DRAWS))
    draws[1, 77] = bad
    found = stats.intervals([0.0] * 3, draws)
    assert [e.low is None for e in found] == [False, True, False]


def test_mixed_rounds_have_the_medians_of_sorted_ones():
    samples, rounds = (5.0, 1.0, 4.0, 2.0, 3.0), (2, 1, 2, 1, 1)
    assert stats.medians_by_round(samples, rounds) == {2: 4.5, 1: 2.0}
    assert stats.medians_by_round((5.0, 4.0, 1.0, 2.0, 3.0), (2, 2, 1, 1, 1)) == {2: 4.5, 1: 2.0}


def test_a_record_is_read_alike_with_and_without_upgrade(tmp_path):
    """A record of this schema is decoded in one step, any other with its parts as plain values."""
    path = tmp_path / "record.json"
    path.write_bytes(b"\n" + msgspec.json.encode(RECORD))
    late = {k: v for k, v in msgspec.to_builtins(RECORD).items() if k != "schema"} | {
        "schema": RECORD.schema
    }
    other = tmp_path / "other.json"
    other.write_bytes(msgspec.json.encode(late))
    assert load(path) == load(other) == RECORD
