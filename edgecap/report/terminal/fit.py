"""A fitted bias: its value, the spread that remains, and how the ranks move."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgecap.analysis.fitting import Fit, FittedModel
from edgecap.names import printable
from edgecap.record import Estimate
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.candidates import in_lines
from edgecap.units import si


def fitted(fits: Sequence[Fit], width: int = 100) -> str:
    """Return one part a corpus."""
    return "\n\n".join(_corpus_part(one, width) for one in fits)


def _corpus_part(fit: Fit, width: int) -> str:
    text = f"bias of {printable(fit.corpus)}: {bounded(fit.bias_bits, 2)} bit a token"
    title = click.style(text, bold=True)
    parts = [title, _method(fit, width), "", _spreads(fit, width), "", _models(fit, width)]
    cautions = [wrapped(f"caution: {printable(c)}", width, "yellow") for c in fit.cautions]
    return "\n".join([*parts, *(["", *cautions] if cautions else [])])


def bounded(value: Estimate, places: int) -> str:
    """Format a number with its interval, or say that it has none."""
    if value.low is None or value.high is None:
        return f"{value.value:.{places}f} (no interval)"
    return f"{value.value:.{places}f} ({value.low:.{places}f}..{value.high:.{places}f})"


def _method(fit: Fit, width: int) -> str:
    stride = f", stride {fit.stride}" if fit.stride else ""
    text = (
        f"{len(fit.models)} models, {fit.documents} documents, {fit.precision}, protocol "
        f"{fit.protocol}, "
        f"window {fit.context}{stride}. The bias makes (G + b) / log2 N most constant; the "
        "interval resamples documents."
    )
    return wrapped(text, width, None)


def _spreads(fit: Fit, width: int) -> str:
    """Return the spread of the capacities with each bias."""
    rows = [["without bias", "0", _percent(fit.spread_with_zero)]]
    if fit.recorded_bias_bits and fit.spread_recorded is not None:
        rows.append(
            ["of the records", f"{fit.recorded_bias_bits:g}", _percent(fit.spread_recorded)]
        )
    rows.append(["fitted", f"{fit.bias_bits.value:.2f}", _percent(fit.spread_fitted)])
    rows.append(["endless", "", _percent(fit.spread_endless)])
    return table(["bias", "bit", "spread of the capacities"], rows, width)


def _percent(share: float) -> str:
    return f"{100 * share:.3f} %"


def _models(fit: Fit, width: int) -> str:
    """Return one row a model, with its rank under each bias."""
    recorded = bool(fit.recorded_bias_bits)
    header = ["model", "FLOP a token", "gain, bit", "capacity", "rank b = 0"]
    header += [f"b = {fit.recorded_bias_bits:g}"] if recorded else []
    header += ["fitted", "b without it"]
    text = table(header, [_row(m, recorded) for m in fit.models], width)
    order = (
        "with the fitted bias all ranks are equal"
        if fit.agreement is None
        else f"Kendall's tau of the old and the new order: {fit.agreement:.2f}"
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
