"""Suggestions if nothing fits, for the limits that were missed and the cells that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecap.analysis import advisor
from edgecap.analysis.metrics import BY_NAME
from edgecap.analysis.recommend.candidates import Considered
from edgecap.analysis.recommend.limits import Limit
from edgecap.provider_options import DEVICES, base_name
from edgecap.record import Memory, SweepPoint
from edgecap.spec import DEFAULT_PRECISIONS, PRECISIONS
from edgecap.stats import median
from edgecap.units import si, size

_COST_UNITS = ("s", "J", "B")  # a limit in another unit is one on quality
_CACHE_SHARE = 0.05  # of the peak memory, from which a shorter context is worth trying
_NAMED = 3  # variants


def next_steps(cells: Sequence[Considered], limits: Sequence[Limit]) -> tuple[str, ...]:
    """Return suggestions, the most direct first."""
    missed = {h.metric for c in cells for h in c.candidate.held if h.state == "missed"}
    near = min((c for c in cells if c.measured), key=lambda c: c.over)
    smaller = any(BY_NAME[metric].unit in _COST_UNITS for metric in missed)
    closer = any(BY_NAME[metric].unit not in _COST_UNITS for metric in missed)
    steps = [*_variants(cells, near, smaller, closer)]
    if "prefill_s" in missed:
        steps += _shorter_prompt(cells, limits)
    if "peak_bytes" in missed:
        steps += _shorter_context(near)
    if missed & {"decode_s", "prefill_s", "decode_j"}:
        steps += _providers(cells)
    return (*steps, *_models(smaller, closer), *_unmeasured(cells))


def _variants(
    cells: Sequence[Considered], near: Considered, smaller: bool, closer: bool
) -> Iterator[str]:
    """Name variants that the record lacks: `smaller` ones, or ones `closer` to fp32."""
    record = near.view.record
    present = {c.candidate.precision for c in cells if c.measured and c.view.record is record}
    families = [
        *(("int4", "int8") if smaller else ()),
        *(("fp32", "fp16", "int8w") if closer else ()),
    ]
    names = [
        precision
        for precision in PRECISIONS
        if precision not in present
        and _is_worth_trying(near, precision)
        and any(precision.startswith(family) for family in families)
    ]
    names.sort(key=lambda p: (p not in DEFAULT_PRECISIONS, PRECISIONS.index(p)))
    if names:
        yield (
            "measure variants that are not in the record: "
            f"edgecap profile --precision {','.join(names[:_NAMED])}"
        )


def _is_worth_trying(near: Considered, precision: str) -> bool:
    record = near.view.record
    parameters = record.source.parameters if isinstance(record.source.parameters, int) else None
    return advisor.advise(record.machine, precision, near.candidate.provider, parameters) is None


def _shorter_prompt(cells: Sequence[Considered], limits: Sequence[Limit]) -> Iterator[str]:
    """Name the longest measured prompt that is read within the limit."""
    most = next(limit.most for limit in limits if limit.metric == "prefill_s")
    reads = [
        (point.context, cell.candidate.name, median(point.prefill_s))
        for cell in cells
        for point in _shorter_prompts(cell)
    ]
    within = max((read for read in reads if read[2] <= most), default=None)
    if within:
        tokens, name, seconds = within
        yield f"shorten the prompt: {name} reads {tokens} tokens in {si(seconds, 's')}"
    elif any(c.candidate.prompt for c in cells):
        longest = max(c.candidate.prompt or 0 for c in cells)
        yield (
            f"shorten the prompt: {longest} tokens were read; "
            "--context-sweep measures other lengths"
        )


def _shorter_prompts(cell: Considered) -> Iterator[SweepPoint]:
    latency = cell.view.latency
    for point in latency.sweep if latency else ():
        if latency and point.prefill_s and point.context < latency.prefill.tokens:
            yield point


def _shorter_context(near: Considered) -> Iterator[str]:
    """Suggest a shorter context if the KV cache is a good part of the peak."""
    memory = near.view.measured.memory if near.view.measured else None
    if isinstance(memory, Memory) and near.candidate.prompt:
        cache = memory.kv_bytes_per_token * near.candidate.prompt
        if cache > _CACHE_SHARE * memory.peak_bytes:
            token = size(memory.kv_bytes_per_token)
            yield f"keep a shorter context: each token of it holds {token} of cache"


def _providers(cells: Sequence[Considered]) -> Iterator[str]:
    """Name providers of the runtime that were not tried; of GPUs only where there is one."""
    tried = {base_name(cell.candidate.provider) for cell in cells}
    available = {
        name
        for machine in (cell.view.record.machine for cell in cells)
        for name in machine.providers
        if machine.gpus or DEVICES.get(name, "cpu") == "cpu"
    }
    untried = ",".join(sorted(available - tried))
    if untried:
        yield f"try another provider of this runtime: --provider {untried}"


def _models(smaller: bool, closer: bool) -> Iterator[str]:
    if smaller and closer:
        yield (
            "no single variant may be enough: "
            "a small and a large model can share the work (--route)"
        )
    elif smaller:
        yield "take a smaller model"
    elif closer:
        yield "take a larger model"


def _unmeasured(cells: Sequence[Considered]) -> Iterator[str]:
    lacking = {h.metric for c in cells for h in c.candidate.held if h.state == "not measured"}
    if "decode_j" in lacking:
        yield "joules need a counter: edgecap doctor says what would bring one here"
    if "decode_s" in lacking and any(c.view.record.source.task == "encoder" for c in cells):
        yield "an encoder decodes nothing: limit it with --max-ttft-ms"
