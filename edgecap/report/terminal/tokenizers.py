"""Tokenizers on a corpus: tokens by domain, and a table of all tokenizers."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgecap.analysis.tokenizing.speed import Speed
from edgecap.analysis.tokenizing.study import CorpusStudy, TokenizerOnCorpus, TokenizerOnLanguages
from edgecap.analysis.tokenizing.usage import Usage
from edgecap.names import printable, shortened
from edgecap.record import Absent, Estimate
from edgecap.report.format import table, wrapped
from edgecap.units import counted, si, significant, size

NAME = 24  # characters of a name in a table


def corpus_text(study: CorpusStudy, width: int) -> str:
    """Return a table by domain of each tokenizer, then one of all."""
    parts = [
        f"text {printable(study.corpus)}: {counted(study.documents, 'document')}, "
        f"{size(study.bytes)}"
    ]
    parts += [_on_corpus(one, width) for one in study.tokenizers]
    if len(study.tokenizers) > 1:
        parts.append(f"Tokens for the same text\n{_all_tokenizers(study.tokenizers, width)}")
    return "\n\n".join(parts)


def _on_corpus(tokenizer: TokenizerOnCorpus, width: int) -> str:
    header = [
        "",
        "bytes/token",
        "tokens/word",
        "tokens/char",
        "vocabulary",
        "byte fallback",
        "one byte",
    ]
    rows = [_usage(name, one) for name, one in tokenizer.by_domain.items()]
    if len(tokenizer.by_domain) > 1:
        rows.append(_usage("all", tokenizer.all))
    lines = [title_of(tokenizer), table(header, rows, width), _speed(tokenizer.speed)]
    lines += [wrapped(note(tokenizer.all), width, None)] if note(tokenizer.all) else []
    lines += [wrapped(text, width, "yellow") for text in doubts(tokenizer.all)]
    return "\n".join(lines)


def title_of(tokenizer: TokenizerOnCorpus | TokenizerOnLanguages) -> str:
    """Return the tokenizer's name, kind and vocabulary in a line."""
    return (
        f"{click.style(printable(tokenizer.name), bold=True)}  {printable(tokenizer.kind)}, "
        f"{tokenizer.vocabulary:,} tokens"
    )


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


def interval_text(estimate: Estimate | Absent, places: int) -> str:
    """Return the value, below it the interval."""
    if isinstance(estimate, Absent):
        return "-"
    text = f"{estimate.value:.{places}f}"
    return (
        text
        if estimate.low is None or estimate.high is None
        else f"{text}\n{estimate.low:.{places}f}..{estimate.high:.{places}f}"
    )


def _number(value: float | Absent) -> str:
    return "-" if isinstance(value, Absent) else f"{value:.3f}"


def percent(share: float) -> str:
    """Format a share of 1 as percent."""
    return "0 %" if not share else "<0.1 %" if share < 0.001 else f"{significant(100 * share, 2)} %"


def _speed(speed: Speed | Absent) -> str:
    if isinstance(speed, Absent):
        return f"speed: {speed.reason}"
    rate = speed.bytes_per_s
    span = "" if rate.low is None or rate.high is None else f" ({si(rate.low)}..{si(rate.high)})"
    return (
        f"encodes {si(rate.value, 'B/s')}{span}: one thread, {size(speed.bytes)} of text, "
        f"{len(speed.rounds)} rounds"
    )


def doubts(usage: Usage) -> list[str]:
    """Return cautions on text that the tokenizer alters or loses."""
    cautions = []
    if usage.altered_documents:
        cautions.append(
            "caution: documents that do not come back from their tokens: "
            f"{usage.altered_documents} of {usage.documents}; "
            "this tokenizer alters text (case, spaces, characters), so that fewer tokens may hold "
            "less of it"
        )
    if usage.unknown_share:
        cautions.append(
            f"caution: {percent(usage.unknown_share)} of the tokens stand for text that is lost "
            "(unknown token)"
        )
    return cautions


def note(usage: Usage) -> str:
    """Return how many documents tokens/word leaves out, if any."""
    left = usage.documents - usage.worded_documents
    return (
        f"tokens/word leaves out {counted(left, 'document')} in scripts without spaces, or "
        "without words"
        if left
        else ""
    )


def _all_tokenizers(tokenizers: Sequence[TokenizerOnCorpus], width: int) -> str:
    first = tokenizers[0]
    header = [
        "",
        *[shortened(one.name, NAME) for one in tokenizers],
        *[f"{shortened(o.name, NAME)}, ratio" for o in tokenizers[1:]],
    ]
    named = [("all", [one.all for one in tokenizers])]
    if len(first.by_domain) > 1:
        named = [
            (name, [one.by_domain[name] for one in tokenizers]) for name in first.by_domain
        ] + named
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
