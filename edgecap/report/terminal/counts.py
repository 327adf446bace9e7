"""Counted FLOPs, bytes and parameters of a config, and of a graph by operator."""

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


def counted(counts: ConfigCounts, width: int = 100) -> str:
    """Return the counts of a model config."""
    of = f" of {counts.batch} sequences" if counts.batch > 1 else ""
    lines = [
        f"{click.style(printable(counts.name), bold=True)}  {printable(counts.model_type)}, "
        f"{units.count(counts.parameters)} parameters{_active(counts)}",
        "",
        _parts(counts, width),
        "",
        f"KV cache{of}: {_sizes(counts.kv_bytes_per_token)} a "
        f"token{_windows(counts)}{_state(counts)}",
        f"weights: {_sizes(counts.weight_bytes)}",
        "N after arXiv 2511.08066 (which leaves the own position out): "
        f"{si(counts.published_flops, 'FLOP')}",
        _overtakes(counts),
    ]
    lines += _latent(counts)
    if counts.sweep:
        lines += ["", _sweep(counts, width)]
    if counts.assumed:
        text = (
            "caution: edgecap does not know this model type; it was read by standard field names, "
            "so check the counts"
        )
        lines += ["", wrapped(text, width, "yellow")]
    return "\n".join(lines)


def _active(counts: ConfigCounts) -> str:
    return (
        f", {units.count(counts.active_parameters)} active"
        if counts.active_parameters != counts.parameters
        else ""
    )


def _parts(counts: ConfigCounts, width: int) -> str:
    """Return the FLOPs of each part of the architecture with its share."""
    header = [
        "",
        f"decoded token, mean over {counts.context} steps",
        "",
        f"prefill of {counts.prompt}",
        "",
    ]
    rows = [
        [
            words,
            *_part(counts.token, name, counts.token_flops),
            *_part(counts.prefill, name, counts.prefill_flops),
        ]
        for name, words in _PARTS.items()
        if getattr(counts.token, name)
    ]
    rows.append(["total", si(counts.token_flops, "FLOP"), "", si(counts.prefill_flops, "FLOP"), ""])
    return table(header, rows, width)


def _part(parts: FlopParts, name: str, of: float) -> list[str]:
    value = getattr(parts, name)
    return [si(value, "FLOP"), f"{significant(100 * value / of, 2)} %"]


def _sizes(sizes: dict[str, int] | dict[str, float]) -> str:
    return ", ".join(f"{size(value)} {name}" for name, value in sizes.items())


def _windows(counts: ConfigCounts) -> str:
    return " while no window is full" if counts.windowed else ""


def _state(counts: ConfigCounts) -> str:
    return (
        f", and {size(counts.state_bytes)} of recurrent state at any context (fp32)"
        if counts.state_bytes
        else ""
    )


def _overtakes(counts: ConfigCounts) -> str:
    if counts.overtakes is None:
        return "attention never costs more than the weights, at any context"
    return f"from {counts.overtakes:,} positions on, attention costs more than the weights"


def _latent(counts: ConfigCounts) -> list[str]:
    if not counts.latent:
        return []
    one = counts.latent
    return [
        f"latent attention, counted {one.executed} (as transformers and its exports execute it):",
        f"  expanded  {si(one.expanded_flops, 'FLOP')} a token, {one.expanded_kv_numbers:,.0f} "
        "numbers of cache",
        f"  absorbed  {si(one.absorbed_flops, 'FLOP')} a token, {one.absorbed_kv_numbers:,.0f} "
        "numbers of cache",
    ]


def _sweep(counts: ConfigCounts, width: int) -> str:
    header = ["context", "token there", "attention", "prompt that long", "KV cache fp16"]
    rows = [
        [
            f"{g.context:,}",
            si(g.token_flops, "FLOP"),
            f"{significant(100 * g.attention_share, 2)} %",
            si(g.prefill_flops, "FLOP"),
            size(g.kv_bytes),
        ]
        for g in counts.sweep
    ]
    return table(header, rows, width)


# --- graphs -----------------------------------------------------------------------------------


def graph_costs(name: str, costs: GraphCosts, width: int = 100) -> str:
    """Return the work of a graph by operator, the most expensive first, and unknown operators."""
    moved = costs.weight_bytes + costs.cache_bytes + costs.activation_bytes
    lines = [
        f"{click.style(printable(name), bold=True)}  batch {costs.batch}, {costs.sequence} new "
        f"positions after {costs.past}",
        f"{si(costs.matrix_flops, 'FLOP')} of matrix products, {si(costs.other_flops, 'FLOP')} "
        "of other operators",
        f"{size(costs.weight_bytes)} of weights, {size(costs.cache_bytes)} of keys and values, "
        f"{size(costs.activation_bytes)} of activations: {size(moved)}",
        "",
        _operators(costs, width),
    ]
    if costs.unknown:
        names = ", ".join(f"{n} {printable(op)}" for op, n in costs.unknown.items())
        lines += [
            "",
            wrapped(
                f"caution: not counted, because edgecap does not know them: {names}",
                width,
                "yellow",
            ),
        ]
    return "\n".join(lines)


def _operators(costs: GraphCosts, width: int) -> str:
    header = ["operator", "nodes", "matrix FLOP", "other FLOP", "bytes"]
    rows = [
        [
            o.op.removeprefix("com.microsoft:"),
            f"{o.nodes:,}",
            si(o.matrix_flops),
            si(o.other_flops),
            size(o.bytes),
        ]
        for o in costs.operators
    ]
    if rows[_ROWS:]:
        rest = costs.operators[_ROWS:]
        sums = [
            sum(getattr(o, n) for o in rest)
            for n in ("nodes", "matrix_flops", "other_flops", "bytes")
        ]
        rows = [
            *rows[:_ROWS],
            [f"{len(rest)} others", f"{sums[0]:,}", si(sums[1]), si(sums[2]), size(sums[3])],
        ]
    return table(header, rows, width)
