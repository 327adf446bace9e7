"""Token premiums of languages and scripts, and their cost on measured machines."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.analysis.tokenizing.cost import Charge
from edgecap.analysis.tokenizing.premium import Premium
from edgecap.analysis.tokenizing.study import LanguageLeftOut, LanguageStudy, TextCost
from edgecap.names import printable, shortened
from edgecap.record import Absent, Estimate
from edgecap.report.format import table, wrapped
from edgecap.report.terminal.tokenizers import NAME, interval_text, percent, title_of
from edgecap.units import counted, si

EACH_END = 8  # languages shown at either end, where there are many


def languages_text(study: LanguageStudy, width: int) -> str:
    """Return premiums of the cheapest and dearest languages and by script, and their cost."""
    first = study.tokenizers[0]
    shown, left = ends(first.languages)
    some = f"; {left} in the middle are left out (--json, -o FILE.html or --only)" if left else ""
    head = (
        f"text {printable(study.text)}: {counted(len(first.languages), 'language')}, tokens over "
        f"those of {study.english}{some}"
    )
    by_script = "By script, the median premium" if len(study.tokenizers) > 1 else "By script"
    parts = [
        wrapped(head, width, None),
        "\n".join(
            [
                *map(title_of, study.tokenizers),
                "",
                _languages(study, shown, width),
                *[wrapped(text, width, "yellow") for text in doubts_of_languages(study)],
            ]
        ),
        f"{by_script}\n{_scripts(study, width)}",
    ]
    parts += [
        _cost(one, {p.language: p for p in first.languages}, [p.language for p in shown], width)
        for one in study.costs
    ]
    return "\n\n".join(parts)


def ends(languages: Sequence[Premium]) -> tuple[list[Premium], int]:
    """Return the first and the last languages, and the number of those between."""
    left = len(languages) - 2 * EACH_END
    return (
        (list(languages), 0)
        if left < 5
        else ([*languages[:EACH_END], *languages[-EACH_END:]], left)
    )


def _languages(study: LanguageStudy, shown: Sequence[Premium], width: int) -> str:
    several = len(study.tokenizers) > 1
    header = ["language", "script"]
    for one in study.tokenizers:
        tag = f"{shortened(one.name, NAME)}\n" if several else ""
        header += [f"{tag}tokens", f"{tag}premium", f"{tag}byte fallback"]
    by_language = [{p.language: p for p in one.languages} for one in study.tokenizers]
    rows = []
    for language in shown:
        row = [
            f"{shortened(language.language, 12)} {shortened(language.name, NAME)}",
            shortened(language.script, NAME),
        ]
        for premiums in by_language:
            premium = premiums[language.language]
            row += [
                f"{premium.tokens:,}",
                interval_text(premium.premium, 2),
                percent(premium.byte_fallback_share),
            ]
        rows.append(row)
    return table(*_level(header, rows), width)


def _level(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Split a header of two lines into a header and a first row."""
    if not any("\n" in name for name in header):
        return header, rows
    halves = [name.rpartition("\n") for name in header]
    return [above for above, _, _ in halves], [[below for _, _, below in halves], *rows]


def doubts_of_languages(study: LanguageStudy) -> list[str]:
    """Return cautions on texts unlike the English one and on tokenizers that alter text."""
    return [*_unlike(study.left_out), *_altered(study)]


def _unlike(left_out: Sequence[LanguageLeftOut]) -> list[str]:
    if not left_out:
        return []
    some = ", ".join(f"{shortened(one.language, 12)} ({one.pieces})" for one in left_out[:8])
    return [
        f"caution: no premium of {some}{' and others' if left_out[8:] else ''}: English has "
        f"{counted(left_out[0].english_pieces, 'piece')}, so that this is not the same text"
    ]


def _altered(study: LanguageStudy) -> list[str]:
    cautions = []
    for one in study.tokenizers:
        lossy = [p.language for p in one.languages if not p.lossless]
        some = ", ".join(shortened(name, 12) for name in lossy[:8]) + (
            " and others" if lossy[8:] else ""
        )
        if lossy:
            cautions.append(
                f"caution: {shortened(one.name)} alters the text of "
                f"{counted(len(lossy), 'language')} ({some}), so that fewer tokens "
                "may hold less"
            )
    return cautions


def _scripts(study: LanguageStudy, width: int) -> str:
    several = len(study.tokenizers) > 1
    header = ["script", "languages"]
    header += [shortened(o.name, NAME) if several else "median premium" for o in study.tokenizers]
    header += [] if several else ["least", "largest"]
    others = [{g.script: g for g in one.scripts} for one in study.tokenizers]
    rows = []
    for group in study.tokenizers[0].scripts:
        medians = [f"{by_script[group.script].median:.2f}" for by_script in others]
        span = [] if several else [f"{group.least:.2f}", f"{group.largest:.2f}"]
        rows.append([shortened(group.script, NAME), str(group.languages), *medians, *span])
    return table(header, rows, width)


def _cost(cost: TextCost, names: dict[str, Premium], shown: Sequence[str], width: int) -> str:
    bill = cost.bill
    by_language: dict[str, list[Charge]] = {}
    for charge in cost.charges:
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
        f"Cost of writing the text with {printable(bill.model)} on {printable(bill.machine)}, "
        "at that of a decoded token",
        table(header, rows, width),
    ]
    lines += [wrapped(text, width, None) for text in no_joules(cost)]
    lines += [wrapped(text, width, "yellow") for text in doubts_of_costs(cost)]
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


def _amount(value: Estimate | Absent, unit: str) -> str:
    return "-" if isinstance(value, Absent) else si(value.value, unit)


def doubts_of_costs(cost: TextCost) -> list[str]:
    """Return the codes of the cautions on the seconds and joules of each cell."""
    model = shortened(cost.bill.model, 40)
    return [
        f"{p.cell} ({model}): {', '.join(map(printable, p.cautions))}"
        for p in cost.bill.prices
        if p.cautions
    ]


def no_joules(cost: TextCost) -> list[str]:
    """Return each reason for missing joules once, with its cells."""
    reasons: dict[str, list[str]] = {}
    for price in cost.bill.prices:
        if isinstance(price.decode_j, Absent):
            reasons.setdefault(shortened(price.decode_j.reason, 200), []).append(price.cell)
    return [f"no joules of {', '.join(cells)}: {reason}" for reason, cells in reasons.items()]
