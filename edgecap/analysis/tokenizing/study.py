"""Compare tokenizers on a corpus, or on one text in many languages with its cost on machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgecap.analysis.tokenizing.cost import Charge, PriceList, list_charges, list_prices
from edgecap.analysis.tokenizing.loading import LoadedTokenizer
from edgecap.analysis.tokenizing.parallel import ParallelText
from edgecap.analysis.tokenizing.premium import (
    Premium,
    ScriptGroup,
    group_by_script,
    measure_premiums,
)
from edgecap.analysis.tokenizing.speed import Speed, measure_speed
from edgecap.analysis.tokenizing.usage import Usage, measure_usage
from edgecap.record import Absent, Profile
from edgecap.text.corpus import Corpus


class TokenizerOnCorpus(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer on a corpus: its use in all and by domain, and its speed."""

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
    tokenizers: tuple[TokenizerOnCorpus, ...]


class TokenizerOnLanguages(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer on a parallel text: languages from cheapest to dearest, and by script."""

    name: str
    sha256: str
    kind: str
    vocabulary: int
    languages: tuple[Premium, ...]
    scripts: tuple[ScriptGroup, ...]


class TextCost(msgspec.Struct, frozen=True):
    """Cost of the text under the prices of one record, in each language and cell."""

    bill: PriceList
    charges: tuple[Charge, ...]


class LanguageLeftOut(msgspec.Struct, frozen=True):
    """A language without premium: its text has another number of pieces than in English."""

    language: str
    name: str
    pieces: int
    english_pieces: int


class LanguageStudy(msgspec.Struct, frozen=True, kw_only=True):
    """Tokenizers on the same parallel text, compared with its `english` language.

    `left_out` have another text.
    """

    text: str
    english: str
    left_out: tuple[LanguageLeftOut, ...]
    tokenizers: tuple[TokenizerOnLanguages, ...]
    costs: tuple[TextCost, ...]


def study_corpus(tokenizers: Sequence[LoadedTokenizer], corpus: Corpus) -> CorpusStudy:
    """Measure each tokenizer's use of a corpus, and its speed."""
    speeds = measure_speed(tokenizers, corpus.documents)
    studies = []
    for opened, speed in zip(tokenizers, speeds, strict=True):
        whole, by_domain = measure_usage(opened, corpus.documents)
        studies.append(
            TokenizerOnCorpus(**_shared_fields(opened), all=whole, by_domain=by_domain, speed=speed)
        )
    return CorpusStudy(
        corpus=corpus.name,
        corpus_sha256=corpus.sha256,
        documents=corpus.count,
        bytes=corpus.bytes,
        tokenizers=tuple(studies),
    )


def study_languages(
    tokenizers: Sequence[LoadedTokenizer], text: ParallelText, records: Sequence[Profile] = ()
) -> LanguageStudy:
    """Measure each tokenizer on a text in each language, and the cost in each record.

    Raises UsageError if a record is of none of the tokenizers.
    """
    bills = [list_prices(record, tokenizers) for record in records]
    studies = []
    for opened in tokenizers:
        languages = sorted(
            measure_premiums(opened, text), key=lambda premium: premium.premium.value
        )
        studies.append(
            TokenizerOnLanguages(
                **_shared_fields(opened),
                languages=tuple(languages),
                scripts=tuple(group_by_script(languages)),
            )
        )
    by_name = {study.name: study.languages for study in studies}
    return LanguageStudy(
        text=text.path.name,
        english=text.english.language,
        left_out=tuple(
            LanguageLeftOut(v.language, v.name, len(v.pieces), len(text.english.pieces))
            for v in text.unlike
        ),
        tokenizers=tuple(studies),
        costs=tuple(
            TextCost(prices, tuple(list_charges(prices, by_name[prices.tokenizer])))
            for prices in bills
        ),
    )


def _shared_fields(opened: LoadedTokenizer) -> dict[str, Any]:
    """Return the fields that both kinds of result share."""
    return {
        "name": opened.name,
        "sha256": opened.sha256,
        "kind": opened.pieces.kind,
        "vocabulary": opened.tokenizer.size,
    }
