"""Tokenizers as text: how each spends its tokens on a corpus by domain, and all beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgecap.analysis.tokenizing.speed import Speed
from edgecap.analysis.tokenizing.study import CorpusStudy, TokenizerOnCorpus, TokenizerOnLanguages
from edgecap.analysis.tokenizing.usage import Usage
from edgecap.names import printable
from edgecap.record import Absent, Estimate
from edgecap.report.cells import shortened
from edgecap.report.format import table, wrapped
from edgecap.units import counted, si, significant, size

NAME = 24  # characters of a name in a table


def corpus_text(found: CorpusStudy, width: int) -> str:
    """Each tokenizer by domain, then all beside each other."""
    parts = [
        f"text {printable(found.corpus)}: {counted(found.documents, 'document')}, {size(found.bytes)}"
    ]
    parts += [_on_corpus(one, width) for one in found.tokenizers]
    if len(found.tokenizers) > 1:
        parts.append(f"Tokens for the same text\n{_beside(found.tokenizers, width)}")
    return "\n\n".join(parts)


def _on_corpus(found: TokenizerOnCorpus, width: int) -> str:
    header = [
        "",
        "bytes/token",
        "tokens/word",
        "tokens/char",
        "vocabulary",
        "byte fallback",
        "one byte",
    ]
    rows = [_usage(name, one) for name, one in found.by_domain.items()]
    if len(found.by_domain) > 1:
        rows.append(_usage("all", found.all))
    lines = [title_of(found), table(header, rows, width), _speed(found.speed)]
    lines += [wrapped(note(found.all), width, None)] if note(found.all) else []
    lines += [wrapped(text, width, "yellow") for text in doubts(found.all)]
    return "\n".join(lines)


def title_of(found: TokenizerOnCorpus | TokenizerOnLanguages) -> str:
    """A tokenizer in a line."""
    return f"{click.style(printable(found.name), bold=True)}  {printable(found.kind)}, {found.vocabulary:,} tokens"


def _usage(name: str, one: Usage) -> list[str]:
    return [
        shortened(name, NAME),
        interval_text(one.bytes_per_token, 3),
        _number(one.tokens_per_word),
        _number(one.tokens_per_character),
        f"{one.vocabulary_used:,} {percent(one.vocabulary_share):>6}",
        percent(one.byte_fallback_share),
        percent(one.single_byte_share),
    ]


def interval_text(found: Estimate | Absent, places: int) -> str:
    """The value, below it the interval."""
    if isinstance(found, Absent):
        return "-"
    value = f"{found.value:.{places}f}"
    return (
        value
        if found.low is None or found.high is None
        else f"{value}\n{found.low:.{places}f}..{found.high:.{places}f}"
    )


def _number(found: float | Absent) -> str:
    return "-" if isinstance(found, Absent) else f"{found:.3f}"


def percent(share: float) -> str:
    """A share of 1 as people read it."""
    return "0 %" if not share else "<0.1 %" if share < 0.001 else f"{significant(100 * share, 2)} %"


def _speed(found: Speed | Absent) -> str:
    if isinstance(found, Absent):
        return f"speed: {found.reason}"
    rate = found.bytes_per_s
    span = "" if rate.low is None or rate.high is None else f" ({si(rate.low)}..{si(rate.high)})"
    return f"encodes {si(rate.value, 'B/s')}{span}: one thread, {size(found.bytes)} of text, {len(found.rounds)} rounds"


def doubts(found: Usage) -> list[str]:
    """What a reader of the numbers should know."""
    said = []
    if found.altered_documents:
        said.append(
            f"caution: documents that do not come back from their tokens: {found.altered_documents} of {found.documents}; "
            "this tokenizer alters text (case, spaces, characters), so that fewer tokens may hold less of it"
        )
    if found.unknown_share:
        said.append(
            f"caution: {percent(found.unknown_share)} of the tokens stand for text that is lost (unknown token)"
        )
    return said


def note(found: Usage) -> str:
    """Which documents tokens a word leave out, where they leave out any."""
    left = found.documents - found.worded_documents
    return (
        f"tokens/word leaves out {counted(left, 'document')} in scripts without spaces, or without words"
        if left
        else ""
    )


def _beside(found: Sequence[TokenizerOnCorpus], width: int) -> str:
    first = found[0]
    header = [
        "",
        *[shortened(one.name, NAME) for one in found],
        *[f"{shortened(o.name, NAME)}, ratio" for o in found[1:]],
    ]
    named = [("all", [one.all for one in found])]
    if len(first.by_domain) > 1:
        named = [(name, [one.by_domain[name] for one in found]) for name in first.by_domain] + named
    rows = [
        [
            shortened(name, NAME),
            *[f"{u.tokens:,}" for u in uses],
            *[_ratio(u, uses[0]) for u in uses[1:]],
        ]
        for name, uses in named
    ]
    return table(header, rows, width)


def _ratio(one: Usage, first: Usage) -> str:
    return f"{one.tokens / first.tokens:.3f}" if first.tokens else "-"
