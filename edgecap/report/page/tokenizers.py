"""Tokenizers as one HTML page: the values that templates/tokenizer.html renders."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap import __version__
from edgecap.analysis.tokenizing.cost import Charge
from edgecap.analysis.tokenizing.premium import Premium
from edgecap.analysis.tokenizing.study import (
    CorpusStudy,
    LanguageStudy,
    TextCost,
    TokenizerOnCorpus,
)
from edgecap.names import shortened
from edgecap.record import Absent, Estimate
from edgecap.report.page import token_figures
from edgecap.report.page.raw_tables import Table
from edgecap.report.page.template import page
from edgecap.report.terminal.premiums import doubts_of_costs, doubts_of_languages, no_joules
from edgecap.report.terminal.tokenizers import doubts, note
from edgecap.units import counted, size


def corpus_page(study: CorpusStudy) -> str:
    """Return the page of tokenizers on a corpus. Raise UsageError without the extra `report`."""
    figure = token_figures.of_corpus(study)
    documents = counted(study.documents, "document")
    return page(
        "tokenizer.html",
        title=_title([t.name for t in study.tokenizers]),
        subtitle=f"{shortened(study.corpus)}: {documents}, {size(study.bytes)}",
        cautions=[
            f"{shortened(one.name)}: {text}" for one in study.tokenizers for text in doubts(one.all)
        ],
        notes=list(dict.fromkeys(filter(None, (note(one.all) for one in study.tokenizers)))),
        figures=[figure] if figure else [],
        tables=_uses(study.tokenizers),
        version=__version__,
    )


def languages_page(study: LanguageStudy) -> str:
    """Return the page of tokenizers on many languages.

    Raise UsageError without the extra `report`.
    """
    languages = [
        Table(
            f"Languages: {shortened(t.name)}",
            _LANGUAGE,
            [_language(p) for p in t.languages],
            len(t.languages),
        )
        for t in study.tokenizers
    ]
    number = counted(len(study.tokenizers[0].languages), "language")
    return page(
        "tokenizer.html",
        title=_title([t.name for t in study.tokenizers]),
        subtitle=f"{shortened(study.text)}: {number}",
        cautions=[
            *doubts_of_languages(study),
            *(text for cost in study.costs for text in doubts_of_costs(cost)),
        ],
        notes=[
            f"{shortened(cost.bill.model)}: {text}"
            for cost in study.costs
            for text in no_joules(cost)
        ],
        figures=[token_figures.of_languages(study)],
        tables=[*languages, *map(_charges, study.costs)],
        version=__version__,
    )


def _title(names: Sequence[str]) -> str:
    return "Tokens of " + " and ".join(shortened(name, 40) for name in names)


_USE = [
    "domain",
    "documents",
    "bytes",
    "tokens",
    "bytes/token",
    "low",
    "high",
    "tokens/word",
    "tokens/character",
]
_USE += [
    "tokens used",
    "share of vocabulary",
    "byte fallback",
    "single bytes",
    "unknown",
    "altered documents",
]


def _uses(tokenizers: Sequence[TokenizerOnCorpus]) -> list[Table]:
    return [
        Table(
            f"{shortened(one.name)}: {one.kind}, {one.vocabulary:,} tokens",
            _USE,
            _use_rows(one),
            1 + len(one.by_domain),
        )
        for one in tokenizers
    ]


def _use_rows(tokenizer: TokenizerOnCorpus) -> list[list[str]]:
    return [
        [
            shortened(name, 40),
            str(u.documents),
            str(u.bytes),
            str(u.tokens),
            *_ends(u.bytes_per_token),
        ]
        + [_number(n) for n in (u.tokens_per_word, u.tokens_per_character)]
        + [str(u.vocabulary_used), _number(u.vocabulary_share), _number(u.byte_fallback_share)]
        + [_number(u.single_byte_share), _number(u.unknown_share), str(u.altered_documents)]
        for name, u in [*tokenizer.by_domain.items(), ("all", tokenizer.all)]
    ]


_LANGUAGE = [
    "language",
    "name",
    "script",
    "bytes",
    "characters",
    "tokens",
    "premium",
    "low",
    "high",
    "bytes/token",
]
_LANGUAGE += ["tokens/character", "byte fallback", "unknown", "comes back"]


def _language(one: Premium) -> list[str]:
    return [
        *[shortened(text, 40) for text in (one.language, one.name, one.script)],
        *[str(n) for n in (one.bytes, one.characters, one.tokens)],
        *_ends(one.premium),
        *[
            _number(n)
            for n in (
                one.bytes_per_token,
                one.tokens_per_character,
                one.byte_fallback_share,
                one.unknown_share,
            )
        ],
        "yes" if one.lossless else "no",
    ]


_CHARGE = ["language", "cell", "tokens", "flops", "write_s", "write_j", "read_s"]


def _charges(cost: TextCost) -> Table:
    title = (
        f"Cost of the text with {shortened(cost.bill.model)} on {shortened(cost.bill.machine)}, a "
        "token as in its record"
    )
    return Table(title, _CHARGE, [_charge(c) for c in cost.charges], len(cost.charges))


def _charge(one: Charge) -> list[str]:
    amounts = [
        a.value if isinstance(a, Estimate) else a for a in (one.write_s, one.write_j, one.read_s)
    ]
    return [
        shortened(one.language, 40),
        shortened(one.cell, 40),
        str(one.tokens),
        *map(_number, [one.flops, *amounts]),
    ]


def _ends(value: Estimate | Absent) -> list[str]:
    if isinstance(value, Absent):
        return ["-"] * 3
    return ["-" if end is None else f"{end:.4f}" for end in (value.value, value.low, value.high)]


def _number(value: float | Absent) -> str:
    return "-" if isinstance(value, Absent) else f"{value:.4g}"
