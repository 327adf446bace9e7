"""The figure of bits per byte by domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap import stats
from edgecap.analysis.cell_view import CellView
from edgecap.names import shortened
from edgecap.record import Compression, Profile
from edgecap.report.page.plots import FEW, Figure, Plot, axis, dots, layout, names, offsets, plain


def domains(views: Sequence[CellView]) -> Figure:
    """Plot bits per byte of each domain: marks of a few cells, a map of many."""
    cells = [(view, c.by_domain) for view in views if (c := view.compression)]
    known = list(dict.fromkeys(name for _, by_domain in cells for name in by_domain))
    if not cells or not known:
        return Figure("domains", "No text was scored", "There are no bits of any domain.", None)
    data, x, y, rows = _marks(cells, known) if len(cells) <= FEW else _map(cells, known)
    means = {
        d: stats.median([by_domain[d].bits_per_byte for _, by_domain in cells if d in by_domain])
        for d in known
    }
    ordered = sorted(means, key=lambda d: means[d])
    easy, hard = (f"{shortened(d, 40)} ({means[d]:.3f})" for d in (ordered[0], ordered[-1]))
    middle = "" if len(cells) == 1 else ", in the median of the cells"
    span = f"Easiest is {easy}, hardest {hard}" if known[1:] else f"There is one domain, {easy}"
    caption = f"Less is better. {span}{middle}.{_compressors(cells[0][0].record)}"
    plot = {
        "data": data,
        "layout": layout(rows, x, y, 30 if len(cells) > FEW else 22 + 10 * len(cells), len(data)),
    }
    return Figure("domains", _domains_title(cells), caption, plot, wide=True)


def _domains_title(cells: Sequence[tuple[CellView, Any]]) -> str:
    """Say which domain surely takes the most bits a byte, where the first cells agree."""
    texts = [c for view, _ in cells[:FEW] if (c := view.compression)]
    hardest = {_hardest(text) for text in texts}
    if len(hardest) > 1 or "" in hardest:
        several = any(len(by_domain) > 1 for _, by_domain in cells)
        return (
            "No domain surely takes the most bits a byte" if several else "The text has one domain"
        )
    (name,) = hardest
    values = [d[name].bits_per_byte for _, d in cells if name in d]
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values))))
    return f"{shortened(name, 40)} takes the most bits a byte: {span}"


def _hardest(text: Compression) -> str:
    """Return the domain of most bits a byte; empty if the documents allow no order.

    Documents are resampled within each domain, and the first domain compared with the second.
    """
    import numpy as np

    drawn = {}
    for place, domain in enumerate(text.by_domain):
        documents = [(d.nll_bits, d.bytes) for d in text.per_document if d.domain == domain]
        if len(documents) > 1:
            sums = stats.bootstrap_sums(np.array(documents, np.float64), seed=place)
            drawn[domain] = 8 * sums[:, 0] / sums[:, 1].clip(1)
    values = {domain: bits.bits_per_byte for domain, bits in text.by_domain.items()}
    first, second = (*sorted(values, key=lambda d: -values[d]), "", "")[:2]
    if first not in drawn or second not in drawn:
        return ""
    ratio = stats.interval(values[first] / values[second], drawn[first] / drawn[second])
    return first if ratio.low and ratio.low > 1 else ""


def _compressors(record: Profile) -> str:
    """Return bits per byte of general compressors on the whole corpus."""
    rates = ", ".join(
        f"{shortened(n, 20)} {b.bits_per_byte:.3f}" for n, b in record.corpus.baselines.items()
    )
    return f" The whole text in one piece: {rates} bits per byte." if rates else ""


def _marks(
    cells: Sequence[tuple[CellView, Any]], known: list[str]
) -> tuple[list[Plot], Plot, Plot, int]:
    data = []
    for n, ((view, by_domain), offset) in enumerate(zip(cells, offsets(len(cells)), strict=True)):
        at = [(d, known.index(d), by_domain[d].bits_per_byte) for d in known if d in by_domain]
        points = [
            (x, y + offset, f"{view.label}, {shortened(d, 60)}: {x:.4f} bits per byte")
            for d, y, x in at
        ]
        data.append(dots(plain(view.name), n, points))
    y = {
        "tickmode": "array",
        "tickvals": list(range(len(known))),
        "ticktext": [plain(shortened(d, 22)) for d in known],
    }
    grid = {"range": [len(known) - 0.5, -0.5], "showgrid": False, "zeroline": False}
    return data, axis("bits per byte", rangemode="tozero"), y | grid, len(known)


def _map(
    cells: Sequence[tuple[CellView, Any]], known: list[str]
) -> tuple[list[Plot], Plot, Plot, int]:
    values = [
        [by_domain[d].bits_per_byte if d in by_domain else None for d in known]
        for _, by_domain in cells
    ]
    hover = [
        [
            f"{plain(view.label)}, {plain(shortened(d, 60))}: {v:.4f}" if v is not None else ""
            for d, v in zip(known, row, strict=True)
        ]
        for (view, _), row in zip(cells, values, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "z": values,
        "hovertext": hover,
        "hoverinfo": "text",
        "colorscale": [[0, "--heat-low"], [1, "--heat-high"]],
        "colorbar": {
            "title": {"text": "bits/byte"},
            "thickness": 12,
            "len": 300,
            "lenmode": "pixels",
            "y": 1,
            "yanchor": "top",
        },
        "texttemplate": "%{z:.2f}",
    }
    x = {
        "tickmode": "array",
        "tickvals": list(range(len(known))),
        "ticktext": [plain(shortened(d, 22)) for d in known],
        "side": "top",
    }
    return [trace], x, names([view for view, _ in cells]), len(cells)
