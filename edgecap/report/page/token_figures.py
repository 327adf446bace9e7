"""Figures of tokens: bytes a token by domain, and the premium of languages."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.cell_view import CellView
from edgecap.analysis.outcomes import compression_of
from edgecap.analysis.tokenizing.study import CorpusStudy, LanguageStudy
from edgecap.record import Estimate
from edgecap.report.cells import shortened
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

_TITLE = "Bytes a token by domain"


def of_records(lines: Sequence[CellView]) -> Figure | None:
    """What a token holds of each domain's text, for each tokenizer of the records; None where no text was scored."""
    found: dict[str, tuple[str, dict[str, Estimate]]] = {}
    for line in lines:
        text = compression_of(line.cell)
        if text and line.record.source.tokenizer_sha256 not in found:
            held = {
                d: Estimate(value=b.bytes / b.tokens, low=None, high=None)
                for d, b in text.by_domain.items()
                if b.tokens
            }
            found[line.record.source.tokenizer_sha256] = (
                shortened(line.record.source.name, 40),
                held,
            )
    return _by_domain(list(found.values())) if any(held for _, held in found.values()) else None


def of_corpus(study: CorpusStudy) -> Figure | None:
    """The same of tokenizers on a corpus, with intervals over documents."""
    found = [
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
    return _by_domain(found)


def _by_domain(found: Sequence[tuple[str, dict[str, Estimate]]]) -> Figure:
    known = list(dict.fromkeys(domain for _, held in found for domain in held))
    data = []
    for n, ((name, held), offset) in enumerate(zip(found, offsets(len(found)), strict=True)):
        had = [(known.index(d), d, e) for d, e in held.items()]
        points = [
            (
                e.value,
                y + offset,
                f"{shortened(name, 60)}, {shortened(d, 60)}: {e.value:.3f} bytes a token",
            )
            for y, d, e in had
        ]
        data.append(
            dots(
                plain(shortened(name, 40)), n, points, error_x=bars_of_error([e for _, _, e in had])
            )
        )
    text = "More is better: fewer tokens for the same text. " + " ".join(
        _range(name, held) for name, held in found if held
    )
    rows = layout(
        len(known),
        axis("bytes a token", rangemode="tozero"),
        _rows(known),
        22 + 10 * len(found),
        len(data),
    )
    return Figure("tokens", _TITLE, text, {"data": data, "layout": rows}, wide=True)


def _range(name: str, held: dict[str, Estimate]) -> str:
    ordered = sorted(held, key=lambda d: held[d].value)
    low, high = (f"{held[d].value:.2f} ({shortened(d, 40)})" for d in (ordered[0], ordered[-1]))
    return (
        f"{shortened(name, 40)}: {low} to {high}."
        if len(held) > 1
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
    """The premium of each language as bars, a series a tokenizer, from the cheapest language of the first to the dearest."""
    known = [one.language for one in study.tokenizers[0].languages]
    data = []
    for n, one in enumerate(study.tokenizers):
        had = {p.language: p for p in one.languages}
        shown = [had[language] for language in known]
        said = [
            f"{shortened(p.name, 40)} ({shortened(p.language, 12)}), {p.script}: {p.premium.value:.2f}"
            for p in shown
        ]
        bars = {
            "type": "bar",
            "orientation": "h",
            "name": plain(shortened(one.name, 40)),
            "marker": {"color": colour(n)},
        }
        values = {"x": [p.premium.value for p in shown], "y": list(range(len(known)))}
        hover = {"hovertext": [plain(text) for text in said], "hoverinfo": "text"}
        data.append(bars | values | hover | {"error_x": bars_of_error([p.premium for p in shown])})
    first = study.tokenizers[0].languages
    least, most = (
        f"{shortened(p.name, 40)} ({p.premium.value:.2f})" for p in (first[0], first[-1])
    )
    text = (
        f"Tokens of the same text over those of {shortened(study.english, 12)}. Less is better. With "
        f"{shortened(study.tokenizers[0].name, 40)} the least is {least}, the largest {most}. The lines are 95 % intervals "
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
    return Figure(
        "premiums", "Token premium by language", text, {"data": data, "layout": plot}, wide=True
    )
