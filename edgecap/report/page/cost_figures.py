"""Figures of a token's time and memory, compared with the measured peaks."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.verdict import Decision
from edgecap.names import shortened
from edgecap.record import Absent, Bound, Roofline
from edgecap.report.metric_text import range_text
from edgecap.report.page.findings import cost_title, of_least
from edgecap.report.page.plots import (
    FEW,
    SYMBOLS,
    Figure,
    Plot,
    colour,
    dots,
    estimated,
    layout,
    log_axis,
    names,
    offsets,
    plain,
    series,
)
from edgecap.units import si, significant


def bounds(view: CellView) -> dict[str, Bound]:
    """Return the steps of a cell that have a roofline, by name."""
    roofline = view.cell.roofline
    if not isinstance(roofline, Roofline):
        return {}
    return (
        {"decode": roofline.decode, "prefill": roofline.prefill}
        if roofline.decode
        else {"prefill": roofline.prefill}
    )


# --- time -------------------------------------------------------------------------------------


def time(views: Sequence[CellView], decisions: Sequence[Decision]) -> Figure:
    """Plot seconds of a token, measured and the shortest possible, for decode and prefill."""
    data = [
        trace for n, step in enumerate(("decode", "prefill")) for trace in _pairs(views, step, n)
    ]
    if not data:
        return Figure("time", "No cell was timed", "There are no seconds of a token.", None)
    decoded, title = range_text("decode_s", views), _time_title(views, decisions)
    text = f"Decoding a token takes {decoded}. " if decoded and decoded not in title else ""
    used = sorted(
        (b.ratio.value, view.name)
        for view in views
        for step, b in bounds(view).items()
        if step == "decode"
    )
    if used:
        low, high = (
            f"{significant(100 * share, 2)} % ({name})" for share, name in (used[0], used[-1])
        )
        text += (
            f"That is {low} to {high} of the speed that the measured peaks allow (hollow marks)."
        )
    elif not any(bounds(view) for view in views):
        reason = next(
            (x.cell.roofline.reason for x in views if isinstance(x.cell.roofline, Absent)), ""
        )
        text += f"There is no roofline: {shortened(reason, 300)}."
    y = names(views)
    plot = {
        "data": data,
        "layout": layout(len(views), log_axis("seconds a token", "s", data), y, 40, len(data)),
    }
    return Figure("time", title, text, plot)


def _time_title(views: Sequence[CellView], decisions: Sequence[Decision]) -> str:
    """Say which variant is surely faster than the baseline, in decoding or else in prefill."""
    return (
        cost_title(
            decisions,
            "decode_s",
            "{name} decodes a token in {share} of {base}'s time{interval}",
            "No variant surely decodes faster than {base}",
        )
        or cost_title(
            decisions,
            "prefill_s",
            "{name} reads the prompt in {share} of {base}'s time{interval}",
            "No variant surely reads the prompt faster than {base}",
        )
        or _range_title("A token is decoded in", "decode_s", views)
        or _range_title("A prompt is read in", "prefill_s", views)
    )


def _range_title(words: str, metric: str, views: Sequence[CellView]) -> str:
    values = range_text(metric, views)
    return f"{words} {values}" if values else ""


def _pairs(views: Sequence[CellView], step: str, place: int) -> list[Plot]:
    """Return the measured marks of a step, those of its roofline, and the lines between."""
    y = (-0.14, 0.14)[place]
    cells = [
        (n + y, view, tokens, e)
        for n, view, e in estimated(views, f"{step}_s")
        if (tokens := _tokens(view, step))
    ]
    if not cells:
        return []
    name = {"decode": "decode", "prefill": "prefill, by prompt token"}[step]
    measured = [
        (e.value / k, at, f"{view.label}: {name} {si(e.value / k, 's')}")
        for at, view, k, e in cells
    ]
    best = [
        (b.attainable_s / k, at, view, b)
        for at, view, k, _ in cells
        if (b := bounds(view).get(step))
    ]
    ideal = [
        (x, at, f"{view.label}: {step} at best {si(x, 's')}, {b.limit}-bound")
        for x, at, view, b in best
    ]
    hollow = {
        "color": colour(place),
        "symbol": f"{SYMBOLS[place]}-open",
        "size": 10,
        "line": {"width": 2},
    }
    reach = {at: x for x, at, _ in ideal}
    between = [(x, reach[at], at) for x, at, _ in measured if at in reach]
    return [
        _connecting_lines(between, place),
        dots(name, place, measured),
        *([dots(f"{step}, at best", place, ideal, marker=hollow)] if ideal else []),
    ]


def _connecting_lines(pairs: Sequence[tuple[float, float, float]], place: int) -> Plot:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for a, b, _ in pairs for x in (a, b, None)],
        "y": [y for _, _, at in pairs for y in (at, at, None)],
        "line": {"color": colour(place), "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _tokens(view: CellView, step: str) -> int:
    latency = view.latency
    return 1 if step == "decode" else latency.prefill.tokens if latency else 0


# --- memory -----------------------------------------------------------------------------------


def memory(views: Sequence[CellView], decisions: Sequence[Decision]) -> Figure:
    """Plot peak RAM, file size, and the bytes that a decoded token must move."""
    shown = [m for m in ("peak_bytes", "device_peak_bytes", "file_bytes") if estimated(views, m)]
    places = offsets(len(shown) + 1)
    data = [trace for n, m in enumerate(shown) if (trace := series(views, m, n, places[n]))]
    moved = [
        (b.bytes, n + places[-1], _moved(view, b))
        for n, view in enumerate(views)
        if (b := bounds(view).get("decode"))
    ]
    if moved:
        data.append(dots("moved for a decoded token", len(shown), moved))
    if not data:
        return Figure("memory", "The memory of no cell was measured", "There are no bytes.", None)
    words = {
        "peak_bytes": "Peak RAM",
        "device_peak_bytes": "peak device memory",
        "file_bytes": "file",
    }
    peaks = "; ".join(f"{words[m]} {range_text(m, views)}" for m in shown)
    rate = ""
    if moved:
        least, most = si(min(moved)[0], "B"), si(max(moved)[0], "B")
        rate = f". A decoded token moves {least} to {most} of weights and cache"
    plot = {
        "data": data,
        "layout": layout(len(views), log_axis("bytes", "B", data), names(views), 40, len(data)),
    }
    return Figure("memory", _memory_title(views, decisions), f"{peaks}{rate}.", plot)


def _memory_title(views: Sequence[CellView], decisions: Sequence[Decision]) -> str:
    """Say which variant surely needs less RAM, and which has the smallest file."""
    peak = cost_title(
        decisions,
        "peak_bytes",
        "{name} needs {share} of {base}'s RAM",
        "No variant surely needs less RAM than {base}",
    )
    least = of_least(decisions, "file_bytes")
    file = f"{least.name}'s file is {least.share} of {least.baseline}'s" if least else ""
    together = "; ".join(part for part in (peak, file) if part)
    return (
        together
        or _range_title("RAM peaks at", "peak_bytes", views)
        or _range_title("The file has", "file_bytes", views)
        or "No memory of the host was measured"
    )


def _moved(view: CellView, bound: Bound) -> str:
    return (
        f"{view.label}: {si(bound.bytes, 'B')} of weights and cache a decoded token, read at "
        f"{si(bound.peak_bytes_per_s, 'B/s')} at best"
    )


# --- roofline ---------------------------------------------------------------------------------


def roofline(views: Sequence[CellView]) -> Figure | None:
    """Plot FLOP/s against FLOPs a byte under the measured peaks.

    See Williams, Waterman and Patterson 2009.
    """
    cells = [(view, steps) for view in views if (steps := bounds(view))]
    if not cells:
        return None
    every = [b for _, steps in cells for b in steps.values()]
    reach = (min(b.intensity for b in every) / 3, max(b.intensity for b in every) * 3)
    roofs = list(dict.fromkeys((b.peak_flops_per_s, b.peak_bytes_per_s) for b in every))
    data = [_peak_line(roof, reach, n == 0) for n, roof in enumerate(roofs)]
    data += _reached_by_cell(cells) if len(cells) <= FEW else _reached_by_step(cells)
    limits = {
        step: sorted({steps[step].limit for _, steps in cells if step in steps})
        for step in ("prefill", "decode")
    }
    title = "; ".join(_limited(step, steps, cells) for step, steps in limits.items() if steps)
    text = "Circles are decode, squares prefill. The lines are the measured peaks of this machine."
    x, y = log_axis("FLOPs a byte moved", "", data), log_axis("FLOP/s", "", data, "y")
    plot = {"data": data, "layout": layout(8, x, y) | {"height": 420}}
    return Figure("roofline", f"{title[0].upper()}{title[1:]}", text, plot, wide=True)


def _limited(
    step: str, limits: Sequence[str], cells: Sequence[tuple[CellView, dict[str, Bound]]]
) -> str:
    """Say what limits a step, and the shares of that roofline that the cells reach."""
    shares = [100 * steps[step].ratio.value for _, steps in cells if step in steps]
    ends = (min(shares), max(shares))
    span = " to ".join(dict.fromkeys(significant(share, 2) for share in ends))
    return f"{step} is {' or '.join(limits)}-bound, at {span} % of its roofline"


def _peak_line(roof: tuple[float, float], reach: tuple[float, float], first: bool) -> Plot:
    flops, moved = roof
    corner = min(max(flops / moved, reach[0]), reach[1])
    x = [reach[0], corner, reach[1]]
    peaks = f"{si(flops, 'FLOP/s')}, {si(moved, 'B/s')}"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "measured peaks",
        "showlegend": first,
        "legendgroup": "roofs",
        "x": x,
        "y": [min(flops, moved * at) for at in x],
        "hovertext": [f"peaks {peaks}"] * 3,
        "hoverinfo": "text",
        "line": {"color": "--quiet", "width": 1.5},
    }


def _reached(view: CellView, step: str, bound: Bound) -> tuple[float, float, str]:
    reached = bound.flops * bound.ratio.value / bound.attainable_s
    text = (
        f"{view.label}, {step}: {si(reached, 'FLOP/s')}, {100 * bound.ratio.value:.2g} % of the "
        "roofline"
    )
    return bound.intensity, reached, text


_BY_STEP = {"decode": "circle", "prefill": "square"}


def _reached_by_cell(cells: Sequence[tuple[CellView, dict[str, Bound]]]) -> list[Plot]:
    data = []
    for n, (view, steps) in enumerate(cells):
        points = [_reached(view, step, b) for step, b in steps.items()]
        marker = {"color": colour(n), "symbol": [_BY_STEP[step] for step in steps], "size": 11}
        data.append(dots(plain(view.name), n, points, marker=marker))
    return data


def _reached_by_step(cells: Sequence[tuple[CellView, dict[str, Bound]]]) -> list[Plot]:
    return [
        dots(step, n, [_reached(view, step, steps[step]) for view, steps in cells if step in steps])
        for n, step in enumerate(("decode", "prefill"))
    ]
