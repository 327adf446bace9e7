"""Read the bytes of each token from the definition of a tokenizer.

Three spellings are known. Byte-level BPE writes each byte as a character (GPT-2's table).
SentencePiece writes a space as U+2581, and a byte that no piece covers as `<0xE4>`. WordPiece marks
continuations of a word with `##` and drops spaces and often case, so its tokens have no bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from edgecap.errors import UsageError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"


class TokenBytes(NamedTuple):
    """Bytes of each token by id; None for special and unknown tokens, which stand for no text.

    `kind` names the model for messages. `parts` are ids that are no whole characters: byte pieces
    of SentencePiece, and byte-level tokens that are not valid UTF-8. `reversible` is false if
    tokens drop spaces.
    """

    kind: str
    by_id: tuple[bytes | None, ...]
    parts: frozenset[int]
    unknown: int | None
    reversible: bool

    @property
    def single_bytes(self) -> frozenset[int]:
        """Ids of tokens of one byte."""
        return frozenset(
            i for i, piece in enumerate(self.by_id) if piece is not None and len(piece) == 1
        )

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of tokens, joined."""
        return b"".join(self.by_id[i] or b"" for i in ids)


def parse_token_bytes(definition: dict[str, Any]) -> TokenBytes:
    """Read the bytes of each token from a definition."""
    model = definition["model"]
    words, special = words_by_id(definition), special_tokens(definition)
    added = {int(t["id"]) for t in definition.get("added_tokens") or []}
    unknown = unknown_id(definition)
    byte_level = any(step.get("type") == "ByteLevel" for step in _steps(definition))
    falls_back = bool(model.get("byte_fallback")) or any(
        s.get("type") == "ByteFallback" for s in _steps(definition)
    )
    by_id: list[bytes | None] = [None] * (max(words, default=-1) + 1)
    for i, word in words.items():
        if word in special or i == unknown:
            continue
        by_id[i] = word.encode() if i in added else _spelled(word, model, byte_level, falls_back)
    parts = (i for i, piece in enumerate(by_id) if piece and _is_part(piece, words[i], byte_level))
    return TokenBytes(
        _kind(model, byte_level),
        tuple(by_id),
        frozenset(parts),
        unknown,
        _kind(model, byte_level) != "WordPiece",
    )


def special_tokens(definition: dict[str, Any]) -> set[str]:
    """Return the special tokens of a definition, without those of a single character."""
    added = definition.get("added_tokens") or []
    return {t["content"] for t in added if t.get("special") and len(t["content"]) > 1}


def words_by_id(definition: dict[str, Any]) -> dict[int, str]:
    """Return the tokens of a definition by id, added ones included."""
    vocabulary = definition["model"].get("vocab")
    if isinstance(vocabulary, dict):
        words = {int(i): str(word) for word, i in vocabulary.items()}
    else:
        words = {i: str(entry[0]) for i, entry in enumerate(vocabulary or [])}
    return words | {int(t["id"]): str(t["content"]) for t in definition.get("added_tokens") or []}


def unknown_id(definition: dict[str, Any]) -> int | None:
    """Return the id of the token for what the vocabulary does not cover, or None."""
    model = definition["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    words = words_by_id(definition).items()
    return next((i for i, word in words if word == model.get("unk_token")), None)


def require_exact_bytes(pieces: TokenBytes, ids: Sequence[int], text: str, name: str) -> bytes:
    """Return the bytes of a text's tokens: those of the text, perhaps with a leading space.

    Raises UsageError if they differ: the tokenizer changes text, or drops spaces.
    """
    spelled, own = pieces.bytes_of(ids), text.encode()
    if not pieces.reversible or spelled not in (own, b" " + own):
        raise UsageError(
            f"the tokens of document '{name}' do not spell its text: "
            f"this tokenizer ({pieces.kind}) alters it"
        )
    return spelled


def _steps(definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the pre-tokenizer and the decoder, and the members of sequences."""
    for role in ("pre_tokenizer", "decoder"):
        one = definition.get(role) or {}
        yield from [one, *(one.get("pretokenizers") or []), *(one.get("decoders") or [])]


def _spelled(word: str, model: dict[str, Any], byte_level: bool, falls_back: bool) -> bytes:
    if byte_level and all(c in _BYTE_OF for c in word):
        return bytes(_BYTE_OF[c] for c in word)
    byte = _BYTE.fullmatch(word) if falls_back else None
    if byte:
        return bytes([int(byte[1], 16)])
    begin, end = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    word = word.removeprefix(begin) if begin else word
    return (
        (f"{word.removesuffix(end)} " if end and word.endswith(end) else word)
        .replace(_SPACE, " ")
        .encode()
    )


def _is_part(piece: bytes, word: str, byte_level: bool) -> bool:
    if not byte_level:
        return len(piece) == 1 and _BYTE.fullmatch(word) is not None
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _kind(model: dict[str, Any], byte_level: bool) -> str:
    kind = str(model.get("type") or "a model without a type")
    return f"{kind} of bytes" if byte_level else kind


def _table() -> dict[str, int]:
    """Return GPT-2's characters for bytes.

    Printable Latin-1 characters stand for themselves, other bytes are U+0100 and up.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in own]
    return {chr(b): b for b in own} | {chr(0x100 + n): b for n, b in enumerate(others)}


_BYTE_OF = _table()
