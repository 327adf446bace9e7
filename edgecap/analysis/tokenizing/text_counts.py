"""Count characters, words and scripts of a text, by the character database of the standard library.

A character is a Unicode code point. A word is a maximal run of letters, marks and digits (general
categories L, M and N); an apostrophe between two of them belongs to it, and format characters are
ignored. That is UAX #29 (Unicode Text Segmentation) for most text, without its rules for full stops
and underscores in words. Scripts written without spaces have words that only a dictionary finds
(UAX #29, section 4); they are not counted here. A letter's script is the first word of its name,
since Python lacks the property of UAX #24.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

UNSPACED = frozenset(
    {
        "Han",
        "Hiragana",
        "Katakana",
        "Thai",
        "Lao",
        "Khmer",
        "Myanmar",
        "Tibetan",
        "Javanese",
        "Balinese",
    }
)
MAX_UNSPACED = 0.05  # share of letters in such scripts up to which a text has words
_NAMED = {"Cjk": "Han", "Kangxi": "Han", "Canadian": "Canadian Aboriginal", "Ol": "Ol Chiki"}
_WIDTHS = {"Fullwidth", "Halfwidth"}
_NO_SCRIPT = {"", "Modifier", "Feminine", "Masculine", "Micro", "Ideographic", "Mathematical"}
_WORD = re.compile(r"[^\s'\u2019]+(?:['\u2019][^\s'\u2019]+)*")


class TextCounts(NamedTuple):
    """Code points, words, and letters by script."""

    characters: int
    words: int
    letters: Counter[str]

    @property
    def scripts(self) -> tuple[str, ...]:
        """Return the scripts that make up at least a tenth of the letters, most common first."""
        total = self.letters.total()
        return tuple(name for name, n in self.letters.most_common() if n >= 0.1 * total)

    @property
    def has_words(self) -> bool:
        """Check that spaces separate its words."""
        unspaced = sum(self.letters[name] for name in UNSPACED)
        return self.words > 0 and unspaced <= MAX_UNSPACED * self.letters.total()


def count_text(text: str) -> TextCounts:
    """Count the characters, words and letters by script of a text."""
    letters: Counter[str] = Counter()
    counts = Counter(text)
    for character, n in counts.items():
        if name := script(character):
            letters[name] += n
    table = {ord(c): replacement for c in counts if (replacement := _in_words(c)) != c}
    return TextCounts(len(text), len(_WORD.findall(text.translate(table))), letters)


@lru_cache(maxsize=1 << 16)
def script(character: str) -> str | None:
    """Return the script of a letter; None for other characters and letters of no script."""
    if unicodedata.category(character)[0] != "L":
        return None
    first, *rest = unicodedata.name(character, "").replace("-", " ").title().split(" ")
    name = rest[0] if first in _WIDTHS and rest else first
    return None if name in _NO_SCRIPT else _NAMED.get(name, name)


@lru_cache(maxsize=1 << 16)
def _in_words(character: str) -> str | None:
    """Return the character if it is part of words, a space if it ends them, None if ignored."""
    category = unicodedata.category(character)
    if category == "Cf":
        return None
    return character if category[0] in "LMN" or character in "'\u2019" else " "
