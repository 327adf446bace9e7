"""A fitted bias as text: the answer, what remains of the spread, and how the ranks move."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgecap.analysis.fitting import Fit, FittedModel
from edgecap.names import printable
from edgecap.record import Estimate
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.candidates import in_lines
from edgecap.units import si


def fitted(found: Sequence[Fit], width: int = 100) -> str:
    """One part a corpus."""
    return "\n\n".join(_of_corpus(one, width) for one in found)


def _of_corpus(found: Fit, width: int) -> str:
    text = f"bias of {printable(found.corpus)}: {bounded(found.bias_bits, 2)} bit a token"
    title = click.style(text, bold=True)
    parts = [title, _how(found, width), "", _spreads(found, width), "", _models(found, width)]
    cautions = [wrapped(f"caution: {printable(c)}", width, "yellow") for c in found.cautions]
    return "\n".join([*parts, *(["", *cautions] if cautions else [])])


def bounded(value: Estimate, places: int) -> str:
    """A number with its interval, or that it has none."""
    if value.low is None or value.high is None:
        return f"{value.value:.{places}f} (no interval)"
    return f"{value.value:.{places}f} ({value.low:.{places}f}..{value.high:.{places}f})"


def _how(found: Fit, width: int) -> str:
    stride = f", stride {found.stride}" if found.stride else ""
    text = (
        f"{len(found.models)} models, {found.documents} documents, {found.precision}, protocol {found.protocol}, "
        f"window {found.context}{stride}. The bias makes (G + b) / log2 N most constant; the interval resamples documents."
    )
    return wrapped(text, width, None)


def _spreads(found: Fit, width: int) -> str:
    """What the capacities scatter by, with each bias."""
    rows = [["without bias", "0", _percent(found.spread_with_zero)]]
    if found.recorded_bias_bits and found.spread_recorded is not None:
        rows.append(
            ["of the records", f"{found.recorded_bias_bits:g}", _percent(found.spread_recorded)]
        )
    rows.append(["fitted", f"{found.bias_bits.value:.2f}", _percent(found.spread_fitted)])
    rows.append(["endless", "", _percent(found.spread_endless)])
    return table(["bias", "bit", "spread of the capacities"], rows, width)


def _percent(share: float) -> str:
    return f"{100 * share:.3f} %"


def _models(found: Fit, width: int) -> str:
    """Ranks say how much the bias moves an order, within a series that it is to make equal."""
    recorded = bool(found.recorded_bias_bits)
    header = ["model", "FLOP a token", "gain, bit", "capacity", "rank b = 0"]
    header += [f"b = {found.recorded_bias_bits:g}"] if recorded else []
    header += ["fitted", "b without it"]
    text = table(header, [_row(m, recorded) for m in found.models], width)
    order = (
        "no order is left"
        if found.agreement is None
        else f"Kendall's tau of the old and the new order: {found.agreement:.2f}"
    )
    return f"{text}\n{order}"


def _row(model: FittedModel, recorded: bool) -> list[str]:
    places = [model.rank_with_zero, *([model.rank_recorded] if recorded else []), model.rank_fitted]
    without = "" if model.bias_without is None else f"{model.bias_without:.2f}"
    return [
        in_lines(model.name),
        si(model.flops_per_token),
        f"{model.gain_bits_per_token:.3f}",
        f"{model.information_capacity:.4f}",
        *map(str, places),
        without,
    ]
