"""Figures of tokens: bytes a token by domain, and the premium of languages."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.tokenizing.study import CorpusStudy, LanguageStudy
from edgecap.names import shortened
from edgecap.record import Estimate
from edgecap.report.page.plots import (
    Figure,
    Plot,
    axis,
    bars_of_error,
    colour,
    dots,
    layout,
    offsets,
    plain,
)


def of_records(views: Sequence[CellView]) -> Figure | None:
    """Plot bytes a token of each domain for each tokenizer; None where no text was scored."""
    tokenizers: dict[str, tuple[str, dict[str, Estimate]]] = {}
    for view in views:
        text = view.compression
        if text and view.record.source.tokenizer_sha256 not in tokenizers:
            by_domain = {
                d: Estimate(value=b.bytes / b.tokens, low=None, high=None)
                for d, b in text.by_domain.items()
                if b.tokens
            }
            tokenizers[view.record.source.tokenizer_sha256] = (
                shortened(view.record.source.name, 40),
                by_domain,
            )
    return (
        _by_domain(list(tokenizers.values()))
        if any(by_domain for _, by_domain in tokenizers.values())
        else None
    )


def of_corpus(study: CorpusStudy) -> Figure | None:
    """Plot bytes a token of each domain for tokenizers on a corpus, with intervals."""
    tokenizers = [
        (
            one.name,
            {
                d: u.bytes_per_token
                for d, u in one.by_domain.items()
                if isinstance(u.bytes_per_token, Estimate)
            },
        )
        for one in study.tokenizers
    ]
    return _by_domain(tokenizers)


def _by_domain(tokenizers: Sequence[tuple[str, dict[str, Estimate]]]) -> Figure:
    known = list(dict.fromkeys(domain for _, by_domain in tokenizers for domain in by_domain))
    data = []
    for n, ((name, by_domain), offset) in enumerate(
        zip(tokenizers, offsets(len(tokenizers)), strict=True)
    ):
        marks = [(known.index(d), d, e) for d, e in by_domain.items()]
        points = [
            (
                e.value,
                y + offset,
                f"{shortened(name, 60)}, {shortened(d, 60)}: {e.value:.3f} bytes a token",
            )
            for y, d, e in marks
        ]
        data.append(
            dots(
                plain(shortened(name, 40)),
                n,
                points,
                error_x=bars_of_error([e for _, _, e in marks]),
            )
        )
    text = "More is better: fewer tokens for the same text. " + " ".join(
        _range(name, by_domain) for name, by_domain in tokenizers if by_domain
    )
    rows = layout(
        len(known),
        axis("bytes a token", rangemode="tozero"),
        _rows(known),
        22 + 10 * len(tokenizers),
        len(data),
    )
    title = _most_bytes([d for _, d in tokenizers if d])
    return Figure("tokens", title, text, {"data": data, "layout": rows}, wide=True)


def _most_bytes(tokenizers: Sequence[dict[str, Estimate]]) -> str:
    """Say in which domain of this text a token holds the most bytes, where tokenizers agree."""
    if all(len(by_domain) == 1 for by_domain in tokenizers):
        return "The text has one domain"
    if any(_alike(by_domain) for by_domain in tokenizers):
        return "A token holds about as many bytes in each domain"
    most = {max(by_domain, key=lambda d: by_domain[d].value) for by_domain in tokenizers}
    if len(most) != 1:
        return "The tokenizers differ in the domain where a token holds the most bytes"
    (domain,) = most
    values = [by_domain[domain].value for by_domain in tokenizers]
    span = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(values), max(values))))
    return f"A token holds the most bytes in {shortened(domain, 40)}: {span}"


def _alike(by_domain: dict[str, Estimate]) -> bool:
    """Return True if no domain is more than 1 % ahead of the next."""
    first, *rest = sorted((e.value for e in by_domain.values()), reverse=True)
    return bool(rest) and first <= 1.01 * rest[0]


def _range(name: str, by_domain: dict[str, Estimate]) -> str:
    ordered = sorted(by_domain, key=lambda d: by_domain[d].value)
    low, high = (
        f"{by_domain[d].value:.2f} ({shortened(d, 40)})" for d in (ordered[0], ordered[-1])
    )
    return (
        f"{shortened(name, 40)}: {low} to {high}."
        if len(by_domain) > 1
        else f"{shortened(name, 40)}: {high}."
    )


def _rows(names: Sequence[str]) -> Plot:
    ticks = {
        "tickvals": list(range(len(names))),
        "ticktext": [plain(shortened(name, 22)) for name in names],
    }
    return {
        "tickmode": "array",
        **ticks,
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def of_languages(study: LanguageStudy) -> Figure:
    """Plot the premium of each language, a series a tokenizer, the cheapest first."""
    known = [one.language for one in study.tokenizers[0].languages]
    data = []
    for n, one in enumerate(study.tokenizers):
        by_language = {p.language: p for p in one.languages}
        shown = [by_language[language] for language in known]
        hover_texts = [
            f"{shortened(p.name, 40)} ({shortened(p.language, 12)}), {p.script}: "
            f"{p.premium.value:.2f}"
            for p in shown
        ]
        bars = {
            "type": "bar",
            "orientation": "h",
            "name": plain(shortened(one.name, 40)),
            "marker": {"color": colour(n)},
        }
        values = {"x": [p.premium.value for p in shown], "y": list(range(len(known)))}
        hover = {"hovertext": [plain(text) for text in hover_texts], "hoverinfo": "text"}
        data.append(bars | values | hover | {"error_x": bars_of_error([p.premium for p in shown])})
    first = study.tokenizers[0].languages
    least, most = (
        f"{shortened(p.name, 40)} ({p.premium.value:.2f})" for p in (first[0], first[-1])
    )
    text = (
        f"Tokens of the same text over those of {shortened(study.english, 12)}. Less is better. "
        "With "
        f"{shortened(study.tokenizers[0].name, 40)} the least is {least}, the largest {most}. The "
        "lines are 95 % intervals "
        "over the pieces of the text, where they stand beside each other."
    )
    more = {"bargap": 0.25, "barmode": "group"}
    plot = layout(
        len(known),
        axis("premium", rangemode="tozero"),
        _rows(known),
        14 + 10 * len(data),
        len(data),
        **more,
    )
    dearest = (
        f"{shortened(first[-1].name, 40)} takes {first[-1].premium.value:.1f} times the tokens"
    )
    title = f"{dearest} of {shortened(study.english, 12)}, the most of {len(first)} languages"
    return Figure("premiums", title, text, {"data": data, "layout": plot}, wide=True)
