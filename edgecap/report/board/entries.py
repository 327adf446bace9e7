"""Cells of many records as flat entries of a leaderboard: who, where, on which text, and every figure.

Figures come without draws: values, and the intervals that the record's scores were stored with.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from edgecap.analysis import metrics
from edgecap.analysis.metrics import METRICS, Metric
from edgecap.analysis.outcomes import compression_of, energy_of, failure_of, latency_of, status
from edgecap.analysis.published import is_comparable
from edgecap.names import printable
from edgecap.record import Absent, Cell, Estimate, Flops, Profile
from edgecap.spec import Spec

LONGEST = 160  # characters of a name that are shown
COST = Metric("flops_per_token", "FLOP", "FLOPs, a token", True, 0.0)
FIGURES = (*METRICS, COST)  # of an entry, in this order


class BoardText(NamedTuple):
    """What capacities depend on beside the model: numbers of two texts do not compare."""

    corpus: str
    sha256: str
    documents: int
    protocol: str
    context: int | None
    stride: int | None
    bias_bits: float


class BoardEntry(NamedTuple):
    """One cell. `figures` go with FIGURES; `failure` is empty of a measured cell; `joules` tells how they were had."""

    model: str
    device: str
    processor: str
    provider: str
    precision: str
    text: BoardText
    created_utc: str
    complete: bool
    figures: tuple[Estimate | Absent, ...]
    outcome: str
    failure: str
    joules: str
    context: float | None
    as_published: bool
    cautions: int


def entries(record: Profile) -> tuple[BoardEntry, ...]:
    """An entry a cell, failures included."""
    window = next((c.context for c in map(compression_of, record.cells) if c), record.spec.context)
    return tuple(_entry(record, cell, window) for cell in record.cells)


def _entry(record: Profile, cell: Cell, window: int | None) -> BoardEntry:
    return BoardEntry(
        model=shown(record.source.name),
        device=shown(record.machine.name),
        processor=shown(
            " + ".join([record.machine.cpu, *(gpu.name for gpu in record.machine.gpus)])
        ),
        provider=shown(", ".join([cell.provider, *_setup(record.spec)])),
        precision=shown(cell.precision),
        text=_text(record, cell, window),
        created_utc=shown(record.created_utc),
        complete=record.complete,
        figures=_figures(record, cell),
        outcome=status(cell),
        failure=shown(failure_of(cell), 300),
        joules=_joules(cell),
        context=_context(cell),
        as_published=is_comparable(record, cell),
        cautions=len(cell.cautions),
    )


_SETUP = {"batches": "batch", "streams": "streams", "threads": "threads", "affinity": "processors"}
_USUAL = Spec()


def _setup(spec: Spec) -> list[str]:
    """How it was run where that was not as usual: such cells are no older ones of each other."""
    unusual = [
        (name, word)
        for name, word in _SETUP.items()
        if getattr(spec, name) != getattr(_USUAL, name)
    ]
    numbers = {name: getattr(spec, name) for name, _ in unusual}
    told = [
        f"{word} {'+'.join(map(str, n if isinstance(n := numbers[name], tuple) else (n,)))}"
        for name, word in unusual
    ]
    told += [f"graph level {spec.graph_level}"] if spec.graph_level != _USUAL.graph_level else []
    told += ["no arena"] if not spec.arena else []
    return told + (["plain"] if not spec.optimize else [])


def shown(text: str, longest: int = LONGEST) -> str:
    """A string from outside in one line, without characters that command.

    Longer ones are cut, and end in a number by which they stay apart.
    """
    line = printable(" ".join(text.split()))
    if len(line) <= longest:
        return line
    return f"{line[: longest - 9]}…{zlib.crc32(text.encode('utf-8', 'replace')):08x}"


def _text(record: Profile, cell: Cell, window: int | None) -> BoardText:
    found, corpus = compression_of(cell), record.corpus
    protocol = found.protocol if found else record.spec.protocol
    return BoardText(
        shown(corpus.name),
        corpus.sha256[:64],
        corpus.documents,
        shown(protocol),
        found.context if found else window,
        found.stride if found else record.spec.stride,
        corpus.bias_bits,
    )


def _figures(record: Profile, cell: Cell) -> tuple[Estimate | Absent, ...]:
    found = metrics.estimates(record, cell, None)
    found[COST.name] = (
        Estimate(value=record.flops.per_token, low=None, high=None)
        if isinstance(record.flops, Flops)
        else record.flops
    )
    return tuple(_sound(found[metric.name]) for metric in FIGURES)


def _sound(found: Estimate | Absent) -> Estimate | Absent:
    """A number that can be drawn, or why there is none."""
    if isinstance(found, Absent):
        return Absent(reason=shown(found.reason, 300))
    if not math.isfinite(found.value):
        return Absent(reason="not a finite number")
    ends = (found.low, found.high)
    return (
        found
        if all(x is None or math.isfinite(x) for x in ends)
        else Estimate(value=found.value, low=None, high=None)
    )


def _joules(cell: Cell) -> str:
    energy = energy_of(cell)
    return shown(f"{energy.provenance}: {energy.counter}") if energy else ""


def _context(cell: Cell) -> float | None:
    """Positions that a token was decoded behind."""
    latency = latency_of(cell)
    return None if latency is None or isinstance(latency.decode, Absent) else latency.decode.context


def latest(found: Iterable[BoardEntry]) -> set[int]:
    """The places of those that no newer one of the same model, device, provider, precision and text follows."""
    newest: dict[tuple[object, ...], tuple[str, int]] = {}
    for place, e in enumerate(found):
        key = (e.model, e.device, e.processor, e.provider, e.precision, e.text)
        newest[key] = max(newest.get(key, ("", -1)), (e.created_utc, place))
    return {place for _, place in newest.values()}
