"""Cautions on a recommendation: how the runs differ, and the cautions of the best cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgecap.analysis.cell_labels import record_devices
from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.preference import Different
from edgecap.record import Absent, Memory
from edgecap.units import size

_MOST = 4  # names, or cautions of the winner


def notes(ranked: Sequence[Considered], different: Different) -> tuple[str, ...]:
    """Return sentences, the gravest first; `ranked` has the best cell in front."""
    measured = [c for c in ranked if c.measured]
    return tuple([*_of_runs(measured, different), *_of_device(measured[0]), *_of_cell(measured[0])])


def _of_runs(measured: Sequence[Considered], different: Different) -> Iterator[str]:
    """Describe the differences between runs that a recommendation tolerates."""
    if "machine" in different or "processor" in different:
        machines = record_devices(c.view.record for c in measured)
        yield (
            f"measured on several machines ({_first_few(machines)}): "
            "each figure holds on its own one only"
        )
    if "tokenizer" in different:
        lengths = {c.candidate.model: _bytes_per_token(c) for c in measured}
        words = _first_few(f"{model} {length:.2f}" for model, length in lengths.items() if length)
        yield (
            "tokens differ: figures a token are of different amounts of text "
            f"(bytes a token: {words or 'unknown'})"
        )
    if "decode context" in different:
        yield (
            "decoding was timed at different contexts "
            f"({_first_few(map(str, different['decode context']))} positions)"
        )
    if "prompt length" in different:
        yield (
            "prompts of different lengths were read "
            f"({_first_few(map(str, different['prompt length']))} tokens)"
        )
    if "way of counting joules" in different:
        yield "joules were counted in different ways: edgecap show --details tells which"
    for name in ("threads", "power source"):
        if name in different:
            yield f"the records differ in {name}: {_first_few(map(str, different[name]))}"


def _first_few(words: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(words))
    more = f" and {len(distinct) - _MOST} others" if len(distinct) > _MOST else ""
    return ", ".join(distinct[:_MOST]) + more


def _bytes_per_token(cell: Considered) -> float | None:
    text = cell.view.compression
    return text.bytes / text.tokens if text and text.tokens else None


def _of_device(best: Considered) -> Iterator[str]:
    """Name the device memory of the best cell: its peak RAM is the host's only."""
    memory = best.view.measured.memory if best.view.measured else None
    if isinstance(memory, Memory) and not isinstance(memory.device_peak_bytes, Absent):
        taken = size(memory.device_peak_bytes)
        yield f"peak RAM is the host's; {best.candidate.name} also takes {taken} on the device"


def _of_cell(best: Considered) -> Iterator[str]:
    name, cautions = best.candidate.name, best.view.cell.cautions
    for caution in cautions[:_MOST]:
        yield f"{name}: {caution.message}; {caution.advice}"
    if len(cautions) > _MOST:
        yield f"{name}: {len(cautions) - _MOST} more cautions in edgecap show --details"
