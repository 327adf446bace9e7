"""A real record, and cells of it with other numbers."""

import msgspec
from conftest import ROOT

from edgecap.record import Energy, Window
from edgecap.storage.records import load

RECORD = load(ROOT / "tests" / "data" / "record-1.json")


ENERGY = Energy(
    counter="rapl",
    domains=("package-0",),
    provenance="counter",
    tick_s=0.001,
    resolution_j=6e-5,
    idle_w=(5.0, 5.0),
    prefill=(Window(joules=20.0, seconds=2.0, tokens=1000),) * 3,
    decode=(Window(joules=20.0, seconds=2.0, tokens=500),) * 3,
)


def with_outcome(cell, **changes):
    return msgspec.structs.replace(cell, outcome=msgspec.structs.replace(cell.outcome, **changes))


def drifting(ratio, in_turns, rounds=12):
    """Two cells whose rounds drift by 40 % together; the second takes `ratio` times as long."""
    cells = []
    for factor, precision in ((1.0, "fp32"), (ratio, "int8")):
        samples = tuple(
            0.004 * factor * (1 + 0.4 * n / rounds) for n in range(rounds) for _ in range(3)
        )
        numbers = tuple(n for n in range(rounds) for _ in range(3))
        base = RECORD.cells[0].outcome.latency
        decode = msgspec.structs.replace(base.decode, samples_s=samples, rounds=numbers)
        latency = msgspec.structs.replace(base, decode=decode, in_turns=in_turns)
        cells.append(
            msgspec.structs.replace(
                with_outcome(RECORD.cells[0], latency=latency), precision=precision
            )
        )
    return msgspec.structs.replace(RECORD, cells=tuple(cells))


def latency_with(**changes):
    latency = msgspec.structs.replace(RECORD.cells[0].outcome.latency, **changes)
    return with_outcome(RECORD.cells[0], latency=latency)
