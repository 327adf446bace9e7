"""What should be known of a recommendation: what differs between the runs, and the cautions of the cell that won."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecap.analysis.cell_labels import machine_names
from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.preference import Different
from edgecap.record import Absent, Measurement, Memory
from edgecap.units import size

_MOST = 4  # names, or cautions of the winner


def notes(ranked: Sequence[Considered], different: Different) -> tuple[str, ...]:
    """Sentences, the gravest first; `ranked` has the best cell in front."""
    measured = [c for c in ranked if c.measured]
    return tuple([*_between(measured, different), *_board(measured[0]), *_of(measured[0])])


def _between(measured: Sequence[Considered], different: Different) -> Iterator[str]:
    """What differs between runs, and is allowed to."""
    if "machine" in different or "processor" in different:
        machines = machine_names(c.view.record for c in measured)
        yield f"measured on several machines ({_names(iter(machines))}): each figure holds on its own one only"
    if "tokenizer" in different:
        spans = {c.candidate.model: _bytes_a_token(c) for c in measured}
        told = _names(f"{model} {span:.2f}" for model, span in spans.items() if span)
        yield f"tokens differ: figures a token are of different amounts of text (bytes a token: {told or 'unknown'})"
    if "decode context" in different:
        yield f"decoding was timed at different contexts ({_names(str(x) for x in different['decode context'])} positions)"
    if "prompt length" in different:
        yield f"prompts of different lengths were read ({_names(str(x) for x in different['prompt length'])} tokens)"
    if "way of counting joules" in different:
        yield "joules were counted in different ways: edgecap show --details tells which"
    for what in ("threads", "power source"):
        if what in different:
            yield f"the records differ in {what}: {_names(str(x) for x in different[what])}"


def _names(words: Iterator[str]) -> str:
    found = list(dict.fromkeys(words))
    more = f" and {len(found) - _MOST} others" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


def _bytes_a_token(found: Considered) -> float | None:
    text = found.view.compression
    return text.bytes / text.tokens if text and text.tokens else None


def _board(best: Considered) -> Iterator[str]:
    """Peak RAM is of the host."""
    outcome = best.view.cell.outcome
    memory = outcome.memory if isinstance(outcome, Measurement) else None
    if isinstance(memory, Memory) and not isinstance(memory.device_peak_bytes, Absent):
        yield f"peak RAM is the host's; {best.candidate.name} also takes {size(memory.device_peak_bytes)} on the device"


def _of(best: Considered) -> Iterator[str]:
    """The cautions of the cell itself."""
    found = best.view.cell.cautions
    for caution in found[:_MOST]:
        yield f"{best.candidate.name}: {caution.message}; {caution.advice}"
    if len(found) > _MOST:
        yield f"{best.candidate.name}: {len(found) - _MOST} more cautions in edgecap show --details"
