"""Tokenize text, with special tokens read as plain text. Owns the tokenizers library.

The literal `<s>` or `<|endoftext|>` in a document is text. The library would turn it into the
special token, so special tokens are removed from the definition before the tokenizer is built, and
their vocabulary entries get a name that no text can match.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edgecap.errors import UsageError
from edgecap.text.vocabulary import TokenBytes, parse_token_bytes, special_tokens

T = TypeVar("T")
_UNREACHABLE = "\ufdd0"  # a noncharacter: never in interchanged text


class TextTokenizer:
    """A tokenizer of plain text; `start` is BOS, else EOS, else None."""

    def __init__(self, definition: dict[str, Any], start: int | None) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(json.dumps(without_specials(definition)))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.start = start
        self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with no special tokens added or recognised."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def is_lossless(self, text: str, ids: list[int]) -> bool:
        """Return True if ids decode to the text, up to a leading space that some tokenizers add."""
        decoded = self.decode(ids)
        return decoded == text or decoded.removeprefix(" ") == text.removeprefix(" ")


class PaperTokenizer:
    """A tokenizer as shipped, for the paper's protocol; `size` counts added tokens."""

    def __init__(self, definition: dict[str, Any], clean_up: bool) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(json.dumps(definition))
        self._tokenizer.no_padding()
        self._clean_up = clean_up
        self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode_with_specials(self, text: str, most: int) -> list[int]:
        """Return the ids of a text with its special tokens, truncated to `most`."""
        self._tokenizer.enable_truncation(most)
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids with special tokens, cleaned up if the config says so."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=False))
        for before, after in _CLEAN_UP if self._clean_up else ():
            text = text.replace(before, after)
        return text


# What transformers does to decoded text under clean_up_tokenization_spaces.
_CLEAN_UP = [(" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")]
_CLEAN_UP += [(f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")]


def read_tokenizer(folder: Path) -> TextTokenizer:
    """Read the tokenizer of a folder with `tokenizer.json`; special tokens in a text are text.

    Raises UsageError if the file is missing or cannot be read.
    """
    return _read(
        folder, lambda definition: TextTokenizer(definition, start_token(folder, definition))
    )


def read_paper_tokenizer(folder: Path) -> PaperTokenizer:
    """Read the tokenizer with its special tokens. Raises UsageError as `read_tokenizer` does."""
    clean_up = bool(
        _json(folder / "tokenizer_config.json").get("clean_up_tokenization_spaces", False)
    )
    return _read(folder, lambda definition: PaperTokenizer(definition, clean_up))


def read_token_bytes(folder: Path) -> TokenBytes:
    """Read the bytes of each token. Raises UsageError as `read_tokenizer` does."""
    return _read(folder, parse_token_bytes)


def _read(folder: Path, make: Callable[[dict[str, Any]], T]) -> T:
    path = folder / "tokenizer.json"
    try:
        return make(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}; edgecap needs a fast tokenizer's file"
        ) from error
    except Exception as error:  # the library raises bare Exception
        raise UsageError(
            f"{path} is not a tokenizer that the tokenizers library reads: {error}"
        ) from error


def without_specials(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a definition whose special tokens match no text; every id stays as it is.

    A special token of one character is that character, too: it stays as an ordinary token.
    """
    added, special = definition.get("added_tokens") or [], special_tokens(definition)
    tokens = [
        {**t, "content": _hide(t["content"], special), "special": t["content"] in special}
        for t in added
    ]
    return {
        **definition,
        "added_tokens": tokens,
        "post_processor": None,
        "model": _renamed(definition["model"], special),
    }


def _renamed(model: dict[str, Any], special: set[str]) -> dict[str, Any]:
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        renamed: Any = {_hide(piece, special): i for piece, i in vocabulary.items()}
    elif isinstance(vocabulary, list):
        renamed = [[_hide(piece, special), score] for piece, score in vocabulary]
    else:
        return model
    unknown = model.get("unk_token")
    return {
        **model,
        "vocab": renamed,
        **({"unk_token": _hide(unknown, special)} if unknown else {}),
    }


def _hide(piece: str, special: set[str]) -> str:
    return _UNREACHABLE + piece if piece in special else piece


def start_token(folder: Path, definition: dict[str, Any]) -> int | None:
    """Return the id of BOS, else of EOS: from the tokenizer's files, else from the config."""
    ids = {t["content"]: int(t["id"]) for t in definition.get("added_tokens") or []}
    vocabulary = definition["model"].get("vocab")
    if isinstance(vocabulary, dict):
        ids = {**vocabulary, **ids}
    for role in ("bos", "eos"):
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            token = _content(_json(folder / name).get(f"{role}_token"))
            if token in ids:
                return int(ids[token])
        if (folder / "tokenizer_config.json").exists():
            continue  # this file decides: without BOS there, the tokenizer has none
        for name in ("generation_config.json", "config.json", "genai_config.json"):
            token_id = _first_id(_json(folder / name), f"{role}_token_id")
            if token_id is not None:
                return token_id
    return None


def _content(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _first_id(config: dict[str, Any], key: str) -> int | None:
    value = config.get(
        key, (config.get("model") or {}).get(key) if isinstance(config.get("model"), dict) else None
    )
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
