"""Token premiums as text: the cheapest and the dearest languages, scripts, and what they cost on measured machines."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.tokenizing.cost import Charge
from edgecap.analysis.tokenizing.premium import Premium
from edgecap.analysis.tokenizing.study import LanguageLeftOut, LanguageStudy, TextCost
from edgecap.names import printable
from edgecap.record import Absent, Estimate
from edgecap.report.cells import shortened
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.tokenizers import NAME, interval_text, percent, title_of
from edgecap.units import counted, si

EACH_END = 8  # languages shown at either end, where there are many


def languages_text(found: LanguageStudy, width: int) -> str:
    """Premiums of the cheapest and dearest languages and by script, and what they cost."""
    first = found.tokenizers[0]
    shown, left = ends(first.languages)
    some = f"; {left} in the middle are left out (--json, -o FILE.html or --only)" if left else ""
    head = f"text {printable(found.text)}: {counted(len(first.languages), 'language')}, tokens over those of {found.english}{some}"
    parts = [
        wrapped(head, width, None),
        "\n".join(
            [
                *map(title_of, found.tokenizers),
                "",
                _languages(found, shown, width),
                *[wrapped(text, width, "yellow") for text in doubts_of_languages(found)],
            ]
        ),
        f"By script{', the median premium' if len(found.tokenizers) > 1 else ''}\n{_scripts(found, width)}",
    ]
    parts += [
        _cost(one, {p.language: p for p in first.languages}, [p.language for p in shown], width)
        for one in found.costs
    ]
    return "\n\n".join(parts)


def ends(languages: Sequence[Premium]) -> tuple[list[Premium], int]:
    """The first and the last languages, and how many lie between."""
    left = len(languages) - 2 * EACH_END
    return (
        (list(languages), 0)
        if left < 5
        else ([*languages[:EACH_END], *languages[-EACH_END:]], left)
    )


def _languages(found: LanguageStudy, shown: Sequence[Premium], width: int) -> str:
    several = len(found.tokenizers) > 1
    header = ["language", "script"]
    for one in found.tokenizers:
        tag = f"{shortened(one.name, NAME)}\n" if several else ""
        header += [f"{tag}tokens", f"{tag}premium", f"{tag}byte fallback"]
    by_language = [{p.language: p for p in one.languages} for one in found.tokenizers]
    rows = []
    for language in shown:
        row = [
            f"{shortened(language.language, 12)} {shortened(language.name, NAME)}",
            shortened(language.script, NAME),
        ]
        for had in by_language:
            mine = had[language.language]
            row += [
                f"{mine.tokens:,}",
                interval_text(mine.premium, 2),
                percent(mine.byte_fallback_share),
            ]
        rows.append(row)
    return table(*_level(header, rows), width)


def _level(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """A header of two lines as one header and a first row."""
    if not any("\n" in name for name in header):
        return header, rows
    halves = [name.rpartition("\n") for name in header]
    return [above for above, _, _ in halves], [[below for _, _, below in halves], *rows]


def doubts_of_languages(found: LanguageStudy) -> list[str]:
    """What a reader should know: languages that have another text than English, and tokenizers that change text."""
    return [*_unlike(found.left_out), *_altered(found)]


def _unlike(left_out: Sequence[LanguageLeftOut]) -> list[str]:
    if not left_out:
        return []
    some = ", ".join(f"{shortened(one.language, 12)} ({one.pieces})" for one in left_out[:8])
    return [
        f"caution: no premium of {some}{' and others' if left_out[8:] else ''}: English has "
        f"{counted(left_out[0].english_pieces, 'piece')}, so that this is not the same text"
    ]


def _altered(found: LanguageStudy) -> list[str]:
    said = []
    for one in found.tokenizers:
        lossy = [p.language for p in one.languages if not p.lossless]
        some = ", ".join(shortened(name, 12) for name in lossy[:8]) + (
            " and others" if lossy[8:] else ""
        )
        if lossy:
            said.append(
                f"caution: {shortened(one.name)} alters the text of {counted(len(lossy), 'language')} ({some}), so that fewer tokens "
                "may hold less"
            )
    return said


def _scripts(found: LanguageStudy, width: int) -> str:
    several = len(found.tokenizers) > 1
    header = ["script", "languages"]
    header += [shortened(o.name, NAME) if several else "median premium" for o in found.tokenizers]
    header += [] if several else ["least", "largest"]
    others = [{g.script: g for g in one.scripts} for one in found.tokenizers]
    rows = []
    for group in found.tokenizers[0].scripts:
        medians = [f"{had[group.script].median:.2f}" for had in others]
        span = [] if several else [f"{group.least:.2f}", f"{group.largest:.2f}"]
        rows.append([shortened(group.script, NAME), str(group.languages), *medians, *span])
    return table(header, rows, width)


def _cost(found: TextCost, names: dict[str, Premium], shown: Sequence[str], width: int) -> str:
    bill = found.bill
    by_language: dict[str, list[Charge]] = {}
    for charge in found.charges:
        by_language.setdefault(charge.language, []).append(charge)
    joules = [p.cell for p in bill.prices if isinstance(p.decode_j, Estimate)]
    header = [
        "language",
        "tokens",
        "FLOP",
        *[f"{p.cell}, s" for p in bill.prices],
        *[f"{cell}, J" for cell in joules],
    ]
    rows = [_charged(names[language], by_language[language], joules) for language in shown]
    lines = [
        f"To write the text with {printable(bill.model)} on {printable(bill.machine)}, at the cost of a decoded token there",
        table(header, rows, width),
    ]
    lines += [wrapped(text, width, None) for text in no_joules(found)]
    lines += [wrapped(text, width, "yellow") for text in doubts_of_costs(found)]
    return "\n".join(lines)


def _charged(one: Premium, charges: Sequence[Charge], joules: Sequence[str]) -> list[str]:
    flops = charges[0].flops
    return [
        shortened(one.language, 12),
        f"{one.tokens:,}",
        "-" if isinstance(flops, Absent) else si(flops),
        *[_amount(c.write_s, "s") for c in charges],
        *[_amount(c.write_j, "J") for c in charges if c.cell in joules],
    ]


def _amount(found: Estimate | Absent, unit: str) -> str:
    return "-" if isinstance(found, Absent) else si(found.value, unit)


def doubts_of_costs(found: TextCost) -> list[str]:
    """What the record warns of in the seconds and joules of each cell, by the codes of its cautions."""
    model = shortened(found.bill.model, 40)
    return [
        f"{p.cell} ({model}): {', '.join(map(printable, p.cautions))}"
        for p in found.bill.prices
        if p.cautions
    ]


def no_joules(found: TextCost) -> list[str]:
    """Why cells have no joules, each reason once."""
    reasons: dict[str, list[str]] = {}
    for price in found.bill.prices:
        if isinstance(price.decode_j, Absent):
            reasons.setdefault(shortened(price.decode_j.reason, 200), []).append(price.cell)
    return [f"no joules of {', '.join(cells)}: {reason}" for reason, cells in reasons.items()]
