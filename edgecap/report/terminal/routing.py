"""A split of documents between a small and a large model as text: one sentence, one table, which domains go where."""

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
    "time": "A token costs the seconds of a decoded one, which prices writing; only reading a text is cheaper.",
    "energy": "A token costs the joules of a decoded one, which prices writing; only reading a text is cheaper.",
}


def routed(found: Route, width: int = 100) -> str:
    """The whole answer."""
    parts = [_answer(found, width), "", _sides(found, width)]
    if found.splits:
        title = click.style("What sending documents on brings, and what it costs", bold=True)
        parts += ["", title, _splits(found, width), *_domains(found, width)]
    notes = [(text, None) for text in _explained(found)] + [
        (f"caution: {c}", "yellow") for c in found.cautions
    ]
    left = list(found.left_out.items())
    notes += [(f"left out: {short(name)}: {reason}", None) for name, reason in left[:_LEFT_OUT]]
    notes += (
        [(f"left out: {len(left) - _LEFT_OUT} more (--json)", None)]
        if len(left) > _LEFT_OUT
        else []
    )
    return "\n".join(
        [*parts, "", *[wrapped(printable(text)[:400], width, colour) for text, colour in notes]]
    )


def _answer(found: Route, width: int) -> str:
    head, rest = _said(found)
    text = textwrap.fill(f"{head} {rest}", width, break_on_hyphens=False)
    colour = {"split": "green", "out of reach": "red"}.get(found.verdict)
    lines = text.split("\n")
    return (
        text.replace(head, click.style(head, bold=True, fg=colour), 1)
        if lines[0].startswith(head)
        else text
    )


def _said(found: Route) -> tuple[str, str]:
    small, large = short(found.small.name), short(found.large.name)
    if found.best:
        return "Split:", _split_in_words(found, found.best)
    asked = "" if found.at_most is None else f" ({found.at_most:g} bits/byte)"
    return {
        "small alone": (
            f"No routing: {small} does it alone{_own_bits(found.small)},",
            f"{found.reason}.",
        ),
        "large alone": (
            f"No routing: {large} does it alone{_own_bits(found.large)},",
            f"{found.reason}.",
        ),
        "no gain": ("No routing:", f"{found.reason}. {_apart(found)}"),
        "out of reach": (f"Out of reach{asked}:", f"{found.reason}. {_apart(found)}"),
    }[found.verdict]


def _own_bits(side: Side) -> str:
    return f" ({side.bits_per_byte:.4f} bits/byte)"


def _split_in_words(found: Route, best: Split) -> str:
    small, large = short(found.small.name), short(found.large.name)
    saved = found.saved
    return (
        f"{small} takes every document, and {large} also those where {small} needs more than {best.threshold:.3f} "
        f"bits/byte ({_percent(best.share)} of the bytes, {best.documents} of {found.documents} documents): "
        f"{best.bits_per_byte:.4f} bits/byte{_interval(saved)} for {_cost(found, best.cost_per_kb)} a kB; {found.reason}."
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


def _apart(found: Route) -> str:
    """What each of the two does alone, beside the other."""
    small, large = found.small, found.large
    if small == large:
        return f"{short(small.name)} needs {small.bits_per_byte:.4f} bits/byte."
    return (
        f"{short(large.name)} alone costs {significant(large.cost_per_kb / small.cost_per_kb)} times as much as "
        f"{short(small.name)}, and needs {_percent(1 - large.bits_per_byte / small.bits_per_byte)} fewer bits."
    )


def _percent(share: float) -> str:
    return f"{significant(100 * share, 2)} %"


def _cost(found: Route, cost: float) -> str:
    return si(cost, found.unit)


def _sides(found: Route, width: int) -> str:
    header = ["alone", "bits/byte", f"{found.by} a kB"]
    sides = dict.fromkeys((found.small, found.large))
    return table(
        header,
        [_side(found, side, role) for side, role in zip(sides, ("small", "large"), strict=False)],
        width,
    )


def _side(found: Route, side: Side, role: str) -> list[str]:
    name = "\n".join(textwrap.wrap(f"{role}: {short(side.name)}", 30, break_on_hyphens=False))
    return [name, f"{side.bits_per_byte:.4f}", _cost(found, side.cost_per_kb)]


def _splits(found: Route, width: int) -> str:
    above = ["", "", "", "hardest first", "", "at random", "", ""]
    header = ["sent on", "documents", "above", *["bits/byte", f"{found.by} a kB"] * 2, ""]
    shown = list(found.splits)
    if found.best and found.best not in shown:
        shown = sorted([*shown, found.best], key=lambda s: s.share)
    return table(above, [header, *[_row(found, split) for split in shown]], width)


def _row(found: Route, split: Split) -> list[str]:
    above = {0: "-", found.documents: "all"}.get(split.documents, f"{split.threshold:.3f}")
    return [
        _percent(split.share),
        str(split.documents),
        above,
        f"{split.bits_per_byte:.4f}",
        _cost(found, split.cost_per_kb),
        f"{split.random_bits_per_byte:.4f}",
        _cost(found, split.random_cost_per_kb),
        click.style("best", fg="green") if split == found.best else "",
    ]


def _domains(found: Route, width: int) -> list[str]:
    if not found.domains:
        return []
    named = [
        f"{printable(d)[:40] or 'unnamed'} {_percent(share)}"
        for d, share in list(found.domains.items())[:_DOMAINS]
    ]
    more = (
        f", {len(found.domains) - _DOMAINS} more domains" if len(found.domains) > _DOMAINS else ""
    )
    text = f"Of the best split, sent on to {short(found.large.name)}: {', '.join(named)}{more}."
    return ["", textwrap.fill(text, width, break_on_hyphens=False)]


def _explained(found: Route) -> list[str]:
    if not found.splits:
        return [_PRICED[found.by]]
    twice = (
        f"{_PRICED[found.by]} What is sent on is paid twice, since the small model judges it first; what is drawn at "
        "random is judged by nobody."
    )
    if found.best is None:
        return [twice]
    return [
        twice,
        "The threshold was found on these documents: try it on others before relying on it.",
    ]
