"""Figures of what a token costs in time and memory, beside what the machine's measured peaks allow."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.outcomes import latency_of
from edgecap.record import Absent, Bound, Roofline
from edgecap.report.cells import shortened
from edgecap.report.metric_text import range_text
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
from edgecap.units import si


def bounds(line: CellView) -> dict[str, Bound]:
    """The steps of a cell that stand beside the roofline."""
    found = line.cell.roofline
    if not isinstance(found, Roofline):
        return {}
    return (
        {"decode": found.decode, "prefill": found.prefill}
        if found.decode
        else {"prefill": found.prefill}
    )


# --- time -------------------------------------------------------------------------------------


def time(lines: Sequence[CellView]) -> Figure:
    """Seconds of a token as measured, and the shortest that the peaks allow, for decoding and prefill."""
    data = [
        trace for n, step in enumerate(("decode", "prefill")) for trace in _pairs(lines, step, n)
    ]
    title = "Time a token, measured and at best"
    if not data:
        return Figure("time", title, "No cell was timed.", None)
    decoded = range_text("decode_s", lines)
    told = f"Decoding a token takes {decoded}. " if decoded else ""
    used = sorted(
        (b.ratio.value, line.name)
        for line in lines
        for step, b in bounds(line).items()
        if step == "decode"
    )
    if used:
        low, high = (f"{100 * share:.2g} % ({name})" for share, name in (used[0], used[-1]))
        told += f"That is {low} to {high} of what the machine's own measured peaks allow (hollow marks)."
    elif not any(bounds(line) for line in lines):
        reason = next(
            (x.cell.roofline.reason for x in lines if isinstance(x.cell.roofline, Absent)), ""
        )
        told += f"There is no roofline: {shortened(reason, 300)}."
    y = names(lines)
    plot = {
        "data": data,
        "layout": layout(len(lines), log_axis("seconds a token", "s", data), y, 40, len(data)),
    }
    return Figure("time", title, told, plot)


def _pairs(lines: Sequence[CellView], step: str, place: int) -> list[Plot]:
    """The marks of a step as measured, those of its roofline, and the lines between them."""
    y = (-0.14, 0.14)[place]
    had = [
        (n + y, line, tokens, e)
        for n, line, e in estimated(lines, f"{step}_s")
        if (tokens := _tokens(line, step))
    ]
    if not had:
        return []
    said = {"decode": "decode", "prefill": "prefill, by prompt token"}[step]
    found = [
        (e.value / k, at, f"{line.label}: {said} {si(e.value / k, 's')}") for at, line, k, e in had
    ]
    best = [
        (b.attainable_s / k, at, line, b) for at, line, k, _ in had if (b := bounds(line).get(step))
    ]
    told = [
        (x, at, f"{line.label}: {step} at best {si(x, 's')}, {b.limit}-bound")
        for x, at, line, b in best
    ]
    hollow = {
        "color": colour(place),
        "symbol": f"{SYMBOLS[place]}-open",
        "size": 10,
        "line": {"width": 2},
    }
    reach = {at: x for x, at, _ in told}
    between = [(x, reach[at], at) for x, at, _ in found if at in reach]
    return [
        _between(between, place),
        dots(said, place, found),
        *([dots(f"{step}, at best", place, told, marker=hollow)] if told else []),
    ]


def _between(pairs: Sequence[tuple[float, float, float]], place: int) -> Plot:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for a, b, _ in pairs for x in (a, b, None)],
        "y": [y for _, _, at in pairs for y in (at, at, None)],
        "line": {"color": colour(place), "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _tokens(line: CellView, step: str) -> int:
    found = latency_of(line.cell)
    return 1 if step == "decode" else found.prefill.tokens if found else 0


# --- memory -----------------------------------------------------------------------------------


def memory(lines: Sequence[CellView]) -> Figure:
    """Peak RAM, the file, and what a decoded token must move."""
    shown = [m for m in ("peak_bytes", "device_peak_bytes", "file_bytes") if estimated(lines, m)]
    places = offsets(len(shown) + 1)
    data = [found for n, m in enumerate(shown) if (found := series(lines, m, n, places[n]))]
    moved = [
        (b.bytes, n + places[-1], _moved(line, b))
        for n, line in enumerate(lines)
        if (b := bounds(line).get("decode"))
    ]
    if moved:
        data.append(dots("moved for a decoded token", len(shown), moved))
    title = "Memory"
    if not data:
        return Figure("memory", title, "The memory of no cell was measured.", None)
    words = {
        "peak_bytes": "Peak RAM",
        "device_peak_bytes": "peak device memory",
        "file_bytes": "file",
    }
    told = "; ".join(f"{words[m]} {range_text(m, lines)}" for m in shown)
    rate = (
        ""
        if not moved
        else f". A decoded token moves {si(min(moved)[0], 'B')} to {si(max(moved)[0], 'B')} of weights and cache"
    )
    plot = {
        "data": data,
        "layout": layout(len(lines), log_axis("bytes", "B", data), names(lines), 40, len(data)),
    }
    return Figure("memory", title, f"{told}{rate}.", plot)


def _moved(line: CellView, found: Bound) -> str:
    return f"{line.label}: {si(found.bytes, 'B')} of weights and cache a decoded token, read at {si(found.peak_bytes_per_s, 'B/s')} at best"


# --- roofline ---------------------------------------------------------------------------------


def roofline(lines: Sequence[CellView]) -> Figure | None:
    """FLOP/s against FLOPs a byte, under the roofs of the peaks (Williams, Waterman and Patterson 2009)."""
    had = [(line, found) for line in lines if (found := bounds(line))]
    if not had:
        return None
    every = [b for _, found in had for b in found.values()]
    reach = (min(b.intensity for b in every) / 3, max(b.intensity for b in every) * 3)
    roofs = list(dict.fromkeys((b.peak_flops_per_s, b.peak_bytes_per_s) for b in every))
    data = [_roof(roof, reach, n == 0) for n, roof in enumerate(roofs)]
    data += _under_by_cell(had) if len(had) <= FEW else _under_by_step(had)
    limits = {
        step: sorted({found[step].limit for _, found in had if step in found})
        for step in ("prefill", "decode")
    }
    told = ", ".join(
        f"{step} is {' or '.join(found)}-bound" for step, found in limits.items() if found
    )
    text = f"Circles are decoding, squares prefill: what a step reaches. The lines are what this machine reached at most, as measured. {told.capitalize()}."
    x, y = log_axis("FLOPs a byte moved", "", data), log_axis("FLOP/s", "", data, "y")
    plot = {"data": data, "layout": layout(8, x, y) | {"height": 420}}
    return Figure("roofline", "Roofline", text, plot, wide=True)


def _roof(roof: tuple[float, float], reach: tuple[float, float], first: bool) -> Plot:
    flops, moved = roof
    corner = min(max(flops / moved, reach[0]), reach[1])
    x = [reach[0], corner, reach[1]]
    said = f"{si(flops, 'FLOP/s')}, {si(moved, 'B/s')}"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "measured peaks",
        "showlegend": first,
        "legendgroup": "roofs",
        "x": x,
        "y": [min(flops, moved * at) for at in x],
        "hovertext": [f"peaks {said}"] * 3,
        "hoverinfo": "text",
        "line": {"color": "--quiet", "width": 1.5},
    }


def _under(line: CellView, step: str, found: Bound) -> tuple[float, float, str]:
    reached = found.flops * found.ratio.value / found.attainable_s
    said = f"{line.label}, {step}: {si(reached, 'FLOP/s')}, {100 * found.ratio.value:.2g} % of the roofline"
    return found.intensity, reached, said


_BY_STEP = {"decode": "circle", "prefill": "square"}


def _under_by_cell(had: Sequence[tuple[CellView, dict[str, Bound]]]) -> list[Plot]:
    data = []
    for n, (line, found) in enumerate(had):
        points = [_under(line, step, b) for step, b in found.items()]
        marker = {"color": colour(n), "symbol": [_BY_STEP[step] for step in found], "size": 11}
        data.append(dots(plain(line.name), n, points, marker=marker))
    return data


def _under_by_step(had: Sequence[tuple[CellView, dict[str, Bound]]]) -> list[Plot]:
    return [
        dots(step, n, [_under(line, step, found[step]) for line, found in had if step in found])
        for n, step in enumerate(("decode", "prefill"))
    ]
