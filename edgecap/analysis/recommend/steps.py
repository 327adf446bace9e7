"""Where nothing fits: what to try next. Only what applies to the limits that were missed, and to what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecap.analysis import advisor
from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.limits import Limit
from edgecap.provider_options import DEVICES, base_name
from edgecap.record import Measurement, Memory, SweepPoint
from edgecap.spec import DEFAULT_PRECISIONS, PRECISIONS
from edgecap.stats import median
from edgecap.units import si, size

_LEAN = ("decode_s", "prefill_s", "peak_bytes", "file_bytes", "decode_j")
_TRUE = ("bits_per_byte", "divergence_bits")
_CACHE = 0.05  # of the peak, from where a shorter context is worth a word
_NAMED = 3  # variants


def next_steps(everything: Sequence[Considered], limits: Sequence[Limit]) -> tuple[str, ...]:
    """Suggestions, the most direct first."""
    missed = _missed(everything)
    near = min((c for c in everything if c.measured), key=lambda c: c.over)
    lean, true = missed & set(_LEAN), missed & set(_TRUE)
    steps = [*_variants(everything, near, bool(lean), bool(true))]
    if "prefill_s" in missed:
        steps += _shorter_prompt(everything, limits)
    if "peak_bytes" in missed:
        steps += _shorter_context(near)
    if missed & {"decode_s", "prefill_s", "decode_j"}:
        steps += _providers(everything)
    steps += _models(bool(lean), bool(true))
    return tuple(steps + [*_unmeasured(everything)])


def _missed(everything: Sequence[Considered]) -> set[str]:
    """Metrics whose limit is missed by some cell."""
    return {h.metric for c in everything for h in c.candidate.held if h.state == "missed"}


def _variants(
    everything: Sequence[Considered], near: Considered, lean: bool, true: bool
) -> Iterator[str]:
    """Variants that the record lacks: smaller ones for speed and size, closer ones for quality."""
    record = near.view.record
    there = {c.candidate.precision for c in everything if c.measured and c.view.record is record}
    lacking = [p for p in PRECISIONS if p not in there and _pays(near, p)]
    families = [*(("int4", "int8") if lean else ()), *(("fp32", "fp16", "int8w") if true else ())]
    names = [p for p in lacking if any(p.startswith(family) for family in families)]
    names.sort(key=lambda p: (p not in DEFAULT_PRECISIONS, PRECISIONS.index(p)))
    if names:
        yield f"measure variants that are not in the record: edgecap profile --precision {','.join(names[:_NAMED])}"


def _pays(near: Considered, precision: str) -> bool:
    record = near.view.record
    parameters = record.source.parameters if isinstance(record.source.parameters, int) else None
    return advisor.advise(record.machine, precision, near.candidate.provider, parameters) is None


def _shorter_prompt(everything: Sequence[Considered], limits: Sequence[Limit]) -> Iterator[str]:
    """The longest measured prompt that is read within the limit."""
    most = next(limit.most for limit in limits if limit.metric == "prefill_s")
    read = [
        (p.context, c.candidate.name, median(p.prefill_s)) for c in everything for p in _sweep(c)
    ]
    within = max((r for r in read if r[2] <= most), default=None)
    if within:
        yield f"shorten the prompt: {within[1]} reads {within[0]} tokens in {si(within[2], 's')}"
    elif any(c.candidate.prompt for c in everything):
        longest = max(c.candidate.prompt or 0 for c in everything)
        yield f"shorten the prompt: {longest} tokens were read; --context-sweep measures other lengths"


def _sweep(found: Considered) -> tuple[SweepPoint, ...]:
    """What was read of shorter prompts."""
    latency = found.view.latency
    return (
        tuple(p for p in latency.sweep if p.prefill_s and p.context < latency.prefill.tokens)
        if latency
        else ()
    )


def _shorter_context(near: Considered) -> Iterator[str]:
    """Where the cache is a good part of the peak."""
    outcome = near.view.cell.outcome
    memory = outcome.memory if isinstance(outcome, Measurement) else None
    if isinstance(memory, Memory) and near.candidate.prompt:
        cache = memory.kv_bytes_per_token * near.candidate.prompt
        if cache > _CACHE * memory.peak_bytes:
            yield f"keep a shorter context: each token of it holds {size(memory.kv_bytes_per_token)} of cache"


def _providers(everything: Sequence[Considered]) -> Iterator[str]:
    """Providers of the runtime that were not tried, without those that need a board where none was seen."""
    tried = {base_name(c.candidate.provider) for c in everything}
    here = {
        name
        for machine in (c.view.record.machine for c in everything)
        for name in machine.providers
        if machine.gpus or DEVICES.get(name, "cpu") == "cpu"
    }
    if here - tried:
        yield f"try another provider of this runtime: --provider {','.join(sorted(here - tried))}"


def _models(lean: bool, true: bool) -> Iterator[str]:
    if lean and true:
        yield "no single variant may be enough: a small and a large model can share the work (--route)"
    elif lean:
        yield "take a smaller model"
    elif true:
        yield "take a larger model"


def _unmeasured(everything: Sequence[Considered]) -> Iterator[str]:
    lacking = {h.metric for c in everything for h in c.candidate.held if h.state == "not measured"}
    if "decode_j" in lacking:
        yield "joules need a counter: edgecap doctor says what would bring one here"
    if "decode_s" in lacking and any(c.view.record.source.task == "encoder" for c in everything):
        yield "an encoder decodes nothing: limit it with --max-ttft-ms"
