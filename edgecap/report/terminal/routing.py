"""A split of documents between a small and a large model: the answer, its table, its domains."""

from __future__ import annotations

import textwrap

import click

from edgecap.analysis.routing import Route, Side, Split
from edgecap.names import printable
from edgecap.record import Estimate
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.candidates import short
from edgecap.units import si, significant

_DOMAINS, _LEFT_OUT = 8, 3  # that are named
_PRICED = {
    by: f"A token is priced at the {unit} of a decoded one; only reading a text is cheaper."
    for by, unit in (("time", "seconds"), ("energy", "joules"))
}


def routed(route: Route, width: int = 100) -> str:
    """Return the answer, both models alone, the splits, and what to know about them."""
    parts = [_answer(route, width), "", _sides(route, width)]
    if route.splits:
        title = click.style("Benefit and cost of sending documents on", bold=True)
        parts += ["", title, _splits(route, width), *_domains(route, width)]
    notes = [(text, None) for text in _explanations(route)] + [
        (f"caution: {c}", "yellow") for c in route.cautions
    ]
    left = list(route.left_out.items())
    notes += [(f"left out: {short(name)}: {reason}", None) for name, reason in left[:_LEFT_OUT]]
    notes += (
        [(f"left out: {len(left) - _LEFT_OUT} more (--json)", None)]
        if len(left) > _LEFT_OUT
        else []
    )
    return "\n".join(
        [*parts, "", *[wrapped(printable(text)[:400], width, colour) for text, colour in notes]]
    )


def _answer(route: Route, width: int) -> str:
    head, rest = _answer_in_words(route)
    text = textwrap.fill(f"{head} {rest}", width, break_on_hyphens=False)
    colour = {"split": "green", "out of reach": "red"}.get(route.verdict)
    lines = text.split("\n")
    return (
        text.replace(head, click.style(head, bold=True, fg=colour), 1)
        if lines[0].startswith(head)
        else text
    )


def _answer_in_words(route: Route) -> tuple[str, str]:
    small, large = short(route.small.name), short(route.large.name)
    if route.best:
        return "Split:", _split_in_words(route, route.best)
    goal = "" if route.at_most is None else f" ({route.at_most:g} bits/byte)"
    return {
        "small alone": (
            f"No routing: {small} does it alone{_own_bits(route.small)},",
            f"{route.reason}.",
        ),
        "large alone": (
            f"No routing: {large} does it alone{_own_bits(route.large)},",
            f"{route.reason}.",
        ),
        "no gain": ("No routing:", f"{route.reason}. {_each_alone(route)}"),
        "out of reach": (f"Out of reach{goal}:", f"{route.reason}. {_each_alone(route)}"),
    }[route.verdict]


def _own_bits(side: Side) -> str:
    return f" ({side.bits_per_byte:.4f} bits/byte)"


def _split_in_words(route: Route, best: Split) -> str:
    small, large = short(route.small.name), short(route.large.name)
    saved = route.saved
    return (
        f"{small} takes every document, and {large} also those where {small} needs more than "
        f"{best.threshold:.3f} "
        f"bits/byte ({_percent(best.share)} of the bytes, {best.documents} of {route.documents} "
        "documents): "
        f"{best.bits_per_byte:.4f} bits/byte{_interval(saved)} for "
        f"{_cost(route, best.cost_per_kb)} a kB; {route.reason}."
    )


def _interval(saved: Estimate | None) -> str:
    if saved is None:
        return ""
    span = (
        ""
        if saved.low is None or saved.high is None
        else f", 95 % interval {saved.low:.4f}..{saved.high:.4f}"
    )
    return f" ({saved.value:.4f} saved{span})"


def _each_alone(route: Route) -> str:
    """Return what each of the two costs alone."""
    small, large = route.small, route.large
    if small == large:
        return f"{short(small.name)} needs {small.bits_per_byte:.4f} bits/byte."
    return (
        f"{short(large.name)} alone costs {significant(large.cost_per_kb / small.cost_per_kb)} "
        "times as much as "
        f"{short(small.name)}, and needs "
        f"{_percent(1 - large.bits_per_byte / small.bits_per_byte)} fewer bits."
    )


def _percent(share: float) -> str:
    return f"{significant(100 * share, 2)} %"


def _cost(route: Route, cost: float) -> str:
    return si(cost, route.unit)


def _sides(route: Route, width: int) -> str:
    header = ["alone", "bits/byte", f"{route.by} a kB"]
    sides = dict.fromkeys((route.small, route.large))
    return table(
        header,
        [_side(route, side, role) for side, role in zip(sides, ("small", "large"), strict=False)],
        width,
    )


def _side(route: Route, side: Side, role: str) -> list[str]:
    name = "\n".join(textwrap.wrap(f"{role}: {short(side.name)}", 30, break_on_hyphens=False))
    return [name, f"{side.bits_per_byte:.4f}", _cost(route, side.cost_per_kb)]


def _splits(route: Route, width: int) -> str:
    above = ["", "", "", "hardest first", "", "at random", "", ""]
    header = ["sent on", "documents", "above", *["bits/byte", f"{route.by} a kB"] * 2, ""]
    shown = list(route.splits)
    if route.best and route.best not in shown:
        shown = sorted([*shown, route.best], key=lambda s: s.share)
    return table(above, [header, *[_row(route, split) for split in shown]], width)


def _row(route: Route, split: Split) -> list[str]:
    above = {0: "-", route.documents: "all"}.get(split.documents, f"{split.threshold:.3f}")
    return [
        _percent(split.share),
        str(split.documents),
        above,
        f"{split.bits_per_byte:.4f}",
        _cost(route, split.cost_per_kb),
        f"{split.random_bits_per_byte:.4f}",
        _cost(route, split.random_cost_per_kb),
        click.style("best", fg="green") if split == route.best else "",
    ]


def _domains(route: Route, width: int) -> list[str]:
    if not route.domains:
        return []
    named = [
        f"{printable(d)[:40] or 'unnamed'} {_percent(share)}"
        for d, share in list(route.domains.items())[:_DOMAINS]
    ]
    more = (
        f", {len(route.domains) - _DOMAINS} more domains" if len(route.domains) > _DOMAINS else ""
    )
    text = f"Of the best split, sent on to {short(route.large.name)}: {', '.join(named)}{more}."
    return ["", textwrap.fill(text, width, break_on_hyphens=False)]


def _explanations(route: Route) -> list[str]:
    if not route.splits:
        return [_PRICED[route.by]]
    twice = (
        f"{_PRICED[route.by]} A document that is sent on is paid twice, since the small model "
        "scores it first; a random choice needs no scoring."
    )
    if route.best is None:
        return [twice]
    return [
        twice,
        "The threshold was found on these documents: try it on others before relying on it.",
    ]
