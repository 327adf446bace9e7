"""The token premium of languages: tokens of a text over those of the same text in English.

    premium = tokens of the language / tokens of English        Petrov et al. 2023, arXiv 2305.15425

Each piece of the text is encoded by itself. A language with more or fewer pieces than English has
another text, and no premium. Pieces are resampled in pairs for the 95 % interval.
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
    """A language under a tokenizer.

    `script` joins the scripts of at least a tenth of its letters by `+`. Bytes are UTF-8,
    characters code points. `lossless` means that every piece decodes to the original.
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
    """Languages of one script: their number, and their median, least and largest premium."""

    script: str
    languages: int
    median: float
    least: float
    largest: float


class _Encoded(NamedTuple):
    """One language under one tokenizer: tokens of each piece, count of each token."""

    sizes: list[int]
    ids: Counter[int]
    lossless: bool


def measure_premiums(opened: LoadedTokenizer, text: ParallelText) -> list[Premium]:
    """Return the premium of each language with as many pieces as English; English has 1.

    The order is that of the file. Raises UsageError if the tokenizer makes no token of the English
    text.
    """
    english = _encode(opened, text.english)
    if not sum(english.sizes):
        raise UsageError(f"the tokenizer of {opened.name} makes no token of the English text")
    return [_premium(opened, version, _encode(opened, version), english) for version in text.alike]


def _encode(opened: LoadedTokenizer, version: LanguageText) -> _Encoded:
    ids_of_pieces = [opened.tokenizer.encode(piece) for piece in version.pieces]
    lossless = all(
        opened.tokenizer.is_lossless(p, ids)
        for p, ids in zip(version.pieces, ids_of_pieces, strict=True)
    )
    return _Encoded(
        [len(ids) for ids in ids_of_pieces],
        Counter(i for ids in ids_of_pieces for i in ids),
        lossless,
    )


def _premium(
    opened: LoadedTokenizer, version: LanguageText, encoded: _Encoded, english: _Encoded
) -> Premium:
    counts = text_counts.count_text("\n".join(version.pieces))
    size, characters = sum(len(p.encode()) for p in version.pieces), sum(map(len, version.pieces))
    tokens = sum(encoded.sizes)
    unknown = frozenset() if opened.pieces.unknown is None else frozenset({opened.pieces.unknown})
    return Premium(
        language=version.language,
        name=version.name,
        script="+".join(counts.scripts) or "none",
        pieces=len(version.pieces),
        bytes=size,
        characters=characters,
        tokens=tokens,
        premium=_ratio(encoded.sizes, english.sizes),
        bytes_per_token=size / max(1, tokens),
        tokens_per_character=tokens / max(1, characters),
        byte_fallback_share=share_of(encoded.ids, opened.pieces.parts),
        unknown_share=share_of(encoded.ids, unknown),
        lossless=encoded.lossless,
    )


def _ratio(sizes: Sequence[int], english: Sequence[int]) -> Estimate:
    import numpy as np

    draws = None
    if len(english) > 1:
        sums = stats.bootstrap_sums(np.array([sizes, english], np.float64).T)
        draws = sums[:, 0] / sums[:, 1].clip(1)
    return stats.interval(sum(sizes) / sum(english), draws)


def group_by_script(premiums: Sequence[Premium]) -> list[ScriptGroup]:
    """Group the languages by script, cheapest script first."""
    groups: dict[str, list[float]] = {}
    for premium in premiums:
        groups.setdefault(premium.script, []).append(premium.premium.value)
    summaries = [ScriptGroup(s, len(v), stats.median(v), min(v), max(v)) for s, v in groups.items()]
    return sorted(summaries, key=lambda group: group.median)
