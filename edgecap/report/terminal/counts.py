"""Counted FLOPs, bytes and parameters as text: of a config, and of a graph operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgecap import units
from edgecap.names import printable
from edgecap.record import FlopParts
from edgecap.report.format import table, wrapped
from edgecap.units import si, significant, size

if TYPE_CHECKING:
    from edgecap.graph.cost.count import GraphCosts
    from edgecap.model.config_counts import ConfigCounts

_PARTS = {
    "projections": "projections",
    "attention_core": "attention core",
    "mlp": "MLP",
    "router": "router",
    "experts": "experts",
    "lm_head": "LM head",
}
_ROWS = 25  # operators; the others are one row


def counted(found: ConfigCounts, width: int = 100) -> str:
    """The counts of a config."""
    of = f" of {found.batch} sequences" if found.batch > 1 else ""
    lines = [
        f"{click.style(printable(found.name), bold=True)}  {printable(found.model_type)}, "
        f"{units.count(found.parameters)} parameters{_active(found)}",
        "",
        _parts(found, width),
        "",
        f"KV cache{of}: {_sizes(found.kv_bytes_per_token)} a token{_windows(found)}{_state(found)}",
        f"weights: {_sizes(found.weight_bytes)}",
        f"N after arXiv 2511.08066 (which leaves the own position out): {si(found.published_flops, 'FLOP')}",
        _overtakes(found),
    ]
    lines += _latent(found)
    if found.sweep:
        lines += ["", _sweep(found, width)]
    if found.assumed:
        text = "caution: edgecap does not know this model type; it was read by standard field names, so check the counts"
        lines += ["", wrapped(text, width, "yellow")]
    return "\n".join(lines)


def _active(found: ConfigCounts) -> str:
    return (
        f", {units.count(found.active_parameters)} active"
        if found.active_parameters != found.parameters
        else ""
    )


def _parts(found: ConfigCounts, width: int) -> str:
    """Each part with its share, those that the architecture has."""
    header = [
        "",
        f"decoded token, mean over {found.context} steps",
        "",
        f"prefill of {found.prompt}",
        "",
    ]
    rows = [
        [
            words,
            *_part(found.token, name, found.token_flops),
            *_part(found.prefill, name, found.prefill_flops),
        ]
        for name, words in _PARTS.items()
        if getattr(found.token, name)
    ]
    rows.append(["total", si(found.token_flops, "FLOP"), "", si(found.prefill_flops, "FLOP"), ""])
    return table(header, rows, width)


def _part(parts: FlopParts, name: str, of: float) -> list[str]:
    value = getattr(parts, name)
    return [si(value, "FLOP"), f"{significant(100 * value / of, 2)} %"]


def _sizes(found: dict[str, int] | dict[str, float]) -> str:
    return ", ".join(f"{size(value)} {name}" for name, value in found.items())


def _windows(found: ConfigCounts) -> str:
    return " while no window is full" if found.windowed else ""


def _state(found: ConfigCounts) -> str:
    return (
        f", and {size(found.state_bytes)} of state whatever the context (fp32)"
        if found.state_bytes
        else ""
    )


def _overtakes(found: ConfigCounts) -> str:
    if found.overtakes is None:
        return "attention never costs more than the weights, however long the context"
    return f"from {found.overtakes:,} positions on, attention costs more than the weights"


def _latent(found: ConfigCounts) -> list[str]:
    if not found.latent:
        return []
    one = found.latent
    return [
        f"latent attention, counted {one.executed} (as transformers and its exports execute it):",
        f"  expanded  {si(one.expanded_flops, 'FLOP')} a token, {one.expanded_kv_numbers:,.0f} numbers of cache",
        f"  absorbed  {si(one.absorbed_flops, 'FLOP')} a token, {one.absorbed_kv_numbers:,.0f} numbers of cache",
    ]


def _sweep(found: ConfigCounts, width: int) -> str:
    header = ["context", "token there", "attention", "prompt that long", "KV cache fp16"]
    rows = [
        [
            f"{g.context:,}",
            si(g.token_flops, "FLOP"),
            f"{significant(100 * g.attention_share, 2)} %",
            si(g.prefill_flops, "FLOP"),
            size(g.kv_bytes),
        ]
        for g in found.sweep
    ]
    return table(header, rows, width)


# --- graphs -----------------------------------------------------------------------------------


def graph_costs(name: str, found: GraphCosts, width: int = 100) -> str:
    """The work of a graph by operator, the dearest first, and what of it edgecap does not know."""
    moved = found.weight_bytes + found.cache_bytes + found.activation_bytes
    lines = [
        f"{click.style(printable(name), bold=True)}  batch {found.batch}, {found.sequence} new positions behind {found.past}",
        f"{si(found.matrix_flops, 'FLOP')} of matrix products, {si(found.other_flops, 'FLOP')} beside them",
        f"{size(found.weight_bytes)} of weights, {size(found.cache_bytes)} of keys and values, "
        f"{size(found.activation_bytes)} of activations: {size(moved)}",
        "",
        _operators(found, width),
    ]
    if found.unknown:
        names = ", ".join(f"{n} {printable(op)}" for op, n in found.unknown.items())
        lines += [
            "",
            wrapped(
                f"caution: not counted, because edgecap does not know them: {names}",
                width,
                "yellow",
            ),
        ]
    return "\n".join(lines)


def _operators(found: GraphCosts, width: int) -> str:
    header = ["operator", "nodes", "matrix FLOP", "other FLOP", "bytes"]
    rows = [
        [
            o.op.removeprefix("com.microsoft:"),
            f"{o.nodes:,}",
            si(o.matrix_flops),
            si(o.other_flops),
            size(o.bytes),
        ]
        for o in found.operators
    ]
    if rows[_ROWS:]:
        rest = found.operators[_ROWS:]
        sums = [
            sum(getattr(o, n) for o in rest)
            for n in ("nodes", "matrix_flops", "other_flops", "bytes")
        ]
        rows = [
            *rows[:_ROWS],
            [f"{len(rest)} others", f"{sums[0]:,}", si(sums[1]), si(sums[2]), size(sums[3])],
        ]
    return table(header, rows, width)
