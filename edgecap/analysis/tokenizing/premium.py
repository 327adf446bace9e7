"""The token premium of languages: tokens of a text over those of the same text in English, and what they cost.

    premium = tokens of the language / tokens of English        Petrov et al. 2023, arXiv 2305.15425

The tokens are those of the pieces of the text, each encoded by itself. A language with more or fewer pieces than English
has another text, and no premium. Pieces are resampled in pairs for the 95 % interval. Costs are tokens times what a token costs in a record: FLOPs as
counted, seconds and joules as measured there, whatever the position of the token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from edgecap import stats
from edgecap.analysis.tokenizing import text_counts
from edgecap.analysis.tokenizing.loading import LoadedTokenizer
from edgecap.analysis.tokenizing.parallel import LanguageText, ParallelText
from edgecap.analysis.tokenizing.usage import share_of
from edgecap.errors import UsageError
from edgecap.record import Estimate


class Premium(msgspec.Struct, frozen=True, kw_only=True):
    """A language under a tokenizer; `script` are the scripts of at least a tenth of its letters, joined by `+`.

    Bytes are UTF-8, characters code points. `lossless` says that every piece decodes to what it was.
    """

    language: str
    name: str
    script: str
    pieces: int
    bytes: int
    characters: int
    tokens: int
    premium: Estimate
    bytes_per_token: float
    tokens_per_character: float
    byte_fallback_share: float
    unknown_share: float
    lossless: bool


class ScriptGroup(msgspec.Struct, frozen=True):
    """Languages of one script: how many, and their median, least and largest premium."""

    script: str
    languages: int
    median: float
    least: float
    largest: float


class _Read(NamedTuple):
    """One language under one tokenizer: tokens of each piece, and how often each token."""

    sizes: list[int]
    ids: Counter[int]
    lossless: bool


def measure_premiums(opened: LoadedTokenizer, text: ParallelText) -> list[Premium]:
    """The premium of each language with as many pieces as English, in the order of the file; English has 1.

    Raises UsageError where the tokenizer makes no token of the English text.
    """
    english = _read(opened, text.english)
    if not sum(english.sizes):
        raise UsageError(f"the tokenizer of {opened.name} makes no token of the English text")
    return [_premium(opened, version, _read(opened, version), english) for version in text.alike]


def _read(opened: LoadedTokenizer, version: LanguageText) -> _Read:
    found = [opened.tokenizer.encode(piece) for piece in version.pieces]
    lossless = all(
        opened.tokenizer.is_lossless(p, ids) for p, ids in zip(version.pieces, found, strict=True)
    )
    return _Read([len(ids) for ids in found], Counter(i for ids in found for i in ids), lossless)


def _premium(
    opened: LoadedTokenizer, version: LanguageText, found: _Read, english: _Read
) -> Premium:
    written = text_counts.count_text("\n".join(version.pieces))
    size, characters = sum(len(p.encode()) for p in version.pieces), sum(map(len, version.pieces))
    tokens = sum(found.sizes)
    unknown = frozenset() if opened.pieces.unknown is None else frozenset({opened.pieces.unknown})
    return Premium(
        language=version.language,
        name=version.name,
        script="+".join(written.scripts) or "none",
        pieces=len(version.pieces),
        bytes=size,
        characters=characters,
        tokens=tokens,
        premium=_ratio(found.sizes, english.sizes),
        bytes_per_token=size / max(1, tokens),
        tokens_per_character=tokens / max(1, characters),
        byte_fallback_share=share_of(found.ids, opened.pieces.parts),
        unknown_share=share_of(found.ids, unknown),
        lossless=found.lossless,
    )


def _ratio(sizes: Sequence[int], english: Sequence[int]) -> Estimate:
    import numpy as np

    draws = None
    if len(english) > 1:
        sums = stats.draws_of_sums(np.array([sizes, english], np.float64).T)
        draws = sums[:, 0] / sums[:, 1].clip(1)
    found = stats.interval(sum(sizes) / sum(english), draws)
    return Estimate(value=found.value, low=found.low, high=found.high)


def group_by_script(found: Sequence[Premium]) -> list[ScriptGroup]:
    """The languages by script, the cheapest script first."""
    groups: dict[str, list[float]] = {}
    for one in found:
        groups.setdefault(one.script, []).append(one.premium.value)
    made = [ScriptGroup(s, len(v), stats.median(v), min(v), max(v)) for s, v in groups.items()]
    return sorted(made, key=lambda group: group.median)
