"""Tokenizers side by side: on a corpus, or on one text in many languages with what it costs on measured machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgecap.analysis.tokenizing.cost import Bill, Charge, bill, charges
from edgecap.analysis.tokenizing.loading import Opened
from edgecap.analysis.tokenizing.parallel import Parallel
from edgecap.analysis.tokenizing.premium import Group, Premium, by_script, premiums
from edgecap.analysis.tokenizing.speed import Speed, measure_speed
from edgecap.analysis.tokenizing.usage import Usage, usage
from edgecap.record import Absent, Profile
from edgecap.text.corpus import Corpus


class OnCorpus(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer on a corpus: `vocabulary` tokens of a `kind`, their use in all and by domain, and its speed."""

    name: str
    sha256: str
    kind: str
    vocabulary: int
    all: Usage
    by_domain: dict[str, Usage]
    speed: Speed | Absent


class CorpusStudy(msgspec.Struct, frozen=True, kw_only=True):
    """Tokenizers on the same corpus."""

    corpus: str
    corpus_sha256: str
    documents: int
    bytes: int
    tokenizers: tuple[OnCorpus, ...]


class OnLanguages(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer on a parallel text: each language from the cheapest to the dearest, and by script."""

    name: str
    sha256: str
    kind: str
    vocabulary: int
    languages: tuple[Premium, ...]
    scripts: tuple[Group, ...]


class TextCost(msgspec.Struct, frozen=True):
    """What the text costs under the prices of one record, in each language and cell."""

    bill: Bill
    charges: tuple[Charge, ...]


class Unlike(msgspec.Struct, frozen=True):
    """A language that has no premium, since the text has another number of pieces in it than in English."""

    language: str
    name: str
    pieces: int
    english_pieces: int


class LanguageStudy(msgspec.Struct, frozen=True, kw_only=True):
    """Tokenizers on the same parallel text, compared with its `english` language; `left_out` have not the same text."""

    text: str
    english: str
    left_out: tuple[Unlike, ...]
    tokenizers: tuple[OnLanguages, ...]
    costs: tuple[TextCost, ...]


def on_corpus(tokenizers: Sequence[Opened], corpus: Corpus) -> CorpusStudy:
    """What each tokenizer makes of a corpus, and how fast."""
    speeds = measure_speed(tokenizers, corpus.documents)
    found = []
    for opened, speed in zip(tokenizers, speeds, strict=True):
        whole, by_domain = usage(opened, corpus.documents)
        found.append(OnCorpus(**_about(opened), all=whole, by_domain=by_domain, speed=speed))
    return CorpusStudy(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        documents=corpus.count,
        bytes=corpus.bytes,
        tokenizers=tuple(found),
    )


def on_languages(
    tokenizers: Sequence[Opened], text: Parallel, records: Sequence[Profile] = ()
) -> LanguageStudy:
    """What each tokenizer makes of a text in each language, and what that costs in each record.

    Raises UsageError where a record is of none of the tokenizers.
    """
    bills = [bill(record, tokenizers) for record in records]
    found = []
    for opened in tokenizers:
        languages = sorted(premiums(opened, text), key=lambda one: one.premium.value)
        found.append(
            OnLanguages(
                **_about(opened), languages=tuple(languages), scripts=tuple(by_script(languages))
            )
        )
    by_name = {one.name: one.languages for one in found}
    return LanguageStudy(
        text=text.path.name,
        english=text.english.language,
        left_out=tuple(
            Unlike(v.language, v.name, len(v.pieces), len(text.english.pieces)) for v in text.unlike
        ),
        tokenizers=tuple(found),
        costs=tuple(TextCost(one, tuple(charges(one, by_name[one.tokenizer]))) for one in bills),
    )


def _about(opened: Opened) -> dict[str, Any]:
    """The fields that both have."""
    return {
        "name": opened.name,
        "sha256": opened.sha256,
        "kind": opened.pieces.kind,
        "vocabulary": opened.tokenizer.size,
    }
