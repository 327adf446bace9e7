"""Tokenize text, with special tokens read as plain text. Owns the tokenizers library.

The literal `<s>` or `<|endoftext|>` in a document is text. The library would turn it into the
special token, so special tokens are removed from the definition before the tokenizer is built, and
their vocabulary entries get a name that no text can match.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from edgecap.errors import UsageError
from edgecap.names import one_line
from edgecap.storage.files import json_text, require_regular_file
from edgecap.text.vocabulary import (
    TokenBytes,
    parse_token_bytes,
    special_tokens,
    unknown_id,
)

T = TypeVar("T")
CODED = 1_000_000  # characters of a corpus that are coded as a trial
_UNREACHABLE = "\ufdd0"  # a noncharacter: never in interchanged text
_RANDOM = ("dropout", "alpha", "nbest_size")  # of a BPE or Unigram model


class TextTokenizer:
    """A tokenizer of plain text; `start` is BOS, else EOS, else None.

    `highest` is the highest id that plain text can give, with its token.
    """

    def __init__(self, definition: dict[str, Any], start: int | None) -> None:
        from tokenizers import Tokenizer

        plain = without_specials(definition)
        self._tokenizer = Tokenizer.from_str(json.dumps(plain))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.start = start
        self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.highest = _highest(self._tokenizer, unknown_id(plain))
        _check_numbers(self._tokenizer, plain, start)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with no special tokens added or recognised.

        Raises UsageError if the tokenizer cannot code it, for lack of an unknown token.
        """
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # the library raises bare Exception
            raise UsageError(
                f"the tokenizer cannot code the text: {one_line(error, 200)}; "
                "give it an unknown token, or bytes"
            ) from error

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def is_lossless(self, text: str, ids: list[int]) -> bool:
        """Return True if ids decode to the text, up to a leading space that some tokenizers add."""
        decoded = self.decode(ids)
        return decoded == text or decoded.removeprefix(" ") == text.removeprefix(" ")


class PaperTokenizer:
    """A tokenizer as shipped, for the paper's protocol; `size` counts added tokens.

    A text that is too long loses its end, or with `keep_end` its beginning.
    """

    def __init__(self, definition: dict[str, Any], clean_up: bool, keep_end: bool = False) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(json.dumps(_deterministic(definition)))
        self._tokenizer.no_padding()
        self._clean_up, self._side = clean_up, "left" if keep_end else "right"
        self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def added(self) -> dict[str, int]:
        """Added tokens, special ones included, with their ids."""
        return {t.content: i for i, t in self._tokenizer.get_added_tokens_decoder().items()}

    def encode_with_specials(self, text: str, most: int) -> list[int]:
        """Return the ids of a text with its special tokens, truncated to `most`."""
        self._tokenizer.enable_truncation(most, direction=self._side)
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
    config = _json(folder / "tokenizer_config.json")
    clean_up = bool(config.get("clean_up_tokenization_spaces", False))
    keep_end = config.get("truncation_side") == "left"
    return _read(folder, lambda definition: PaperTokenizer(definition, clean_up, keep_end))


def read_token_bytes(folder: Path) -> TokenBytes:
    """Read the bytes of each token. Raises UsageError as `read_tokenizer` does."""
    return _read(folder, parse_token_bytes)


def _read(folder: Path, make: Callable[[dict[str, Any]], T]) -> T:
    path = folder / "tokenizer.json"
    require_regular_file(path)
    try:
        return make(json.loads(json_text(path)))
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}; edgecap needs a fast tokenizer's file"
        ) from error
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except Exception as error:  # the library raises bare Exception
        raise UsageError(
            f"{path} is not a tokenizer that the tokenizers library reads: {one_line(error, 300)}"
        ) from error


# --- ids --------------------------------------------------------------------------------------


def check_ids(folder: Path, vocabulary: int | None, texts: Iterable[str] = ()) -> None:
    """Raise UsageError if plain text, or the start token, has an id beyond a model's `vocabulary`.

    Special tokens beyond it are no fault: they are not recognised in a text. Without a vocabulary
    only the files of the tokenizer are checked. The beginning of `texts` is coded, as a trial.
    """
    tokenizer = read_tokenizer(folder)
    coded = 0
    for text in texts:
        tokenizer.encode(text[:CODED])
        coded += len(text)
        if coded > CODED:
            break
    highest, token = tokenizer.highest
    if vocabulary and (tokenizer.start or 0) >= vocabulary:
        raise _beyond(folder, f"the start token has id {tokenizer.start}", vocabulary)
    if vocabulary and highest >= vocabulary:
        raise _beyond(folder, f"token {token!r} has id {highest}", vocabulary)


def check_slow_ids(folder: Path, vocabulary: int | None) -> None:
    """Raise UsageError if a file of a slow tokenizer lists an id beyond a model's `vocabulary`.

    The vocabulary of SentencePiece is not read: of it only a start token in the configs is checked.
    """
    words = {**_json(folder / "vocab.json"), **_json(folder / "added_tokens.json")}
    start = start_token(folder, {"model": {"vocab": words}}, complete=bool(words))
    if vocabulary and (start or 0) >= vocabulary:
        raise _beyond(folder, f"the start token has id {start}", vocabulary)


def check_paper_ids(folder: Path, vocabulary: int, texts: Iterable[str]) -> None:
    """Raise UsageError if the tokenizer as shipped gives ids beyond a model's `vocabulary`.

    Checked are the tokens that it adds to every text, and special tokens that occur in `texts`.
    """
    tokenizer = read_paper_tokenizer(folder)
    added = max(tokenizer.encode_with_specials("", 16), default=0)
    if added >= vocabulary:
        raise _beyond(folder, f"a token that it adds to each text has id {added}", vocabulary)
    beyond = {t: i for t, i in tokenizer.added.items() if i >= vocabulary}
    found = next((t for text in texts for t in beyond if t in text) if beyond else iter(()), None)
    if found is not None:
        raise _beyond(folder, f"{found!r} in the text has id {beyond[found]}", vocabulary)


def _beyond(folder: Path, problem: str, vocabulary: int) -> UsageError:
    return UsageError(
        f"the tokenizer of {folder}: {problem}, and the model has {vocabulary} embeddings "
        f"(ids 0 to {vocabulary - 1}); give it the tokenizer that it was trained with"
    )


def _highest(tokenizer: Any, unknown: int | None) -> tuple[int, str]:
    """Return the highest id that plain text can give, and its token; (-1, "") for none."""
    words = tokenizer.get_vocab(with_added_tokens=True).items()
    return max(
        (
            (i, word.removeprefix(_UNREACHABLE))
            for word, i in words
            if not word.startswith(_UNREACHABLE) or i == unknown
        ),
        default=(-1, ""),
    )


def _check_numbers(tokenizer: Any, definition: dict[str, Any], start: int | None) -> None:
    """Raise UsageError if the library numbers an added token otherwise than the definition.

    It numbers those on that are not in the model's vocabulary, whatever their listed ids are.
    """
    for token in definition["added_tokens"]:
        word, listed = token["content"], token["id"]
        given = tokenizer.token_to_id(word)
        if given != listed and (listed == start or not word.startswith(_UNREACHABLE)):
            raise UsageError(
                f"it lists {word.removeprefix(_UNREACHABLE)!r} as id {listed}, and the tokenizers "
                f"library gives it {given}: one of them is wrong; save the tokenizer again"
            )


def _deterministic(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a definition without the dropout of BPE and the sampling of Unigram.

    Both are for training: they give other ids each time.
    """
    model = {key: value for key, value in definition["model"].items() if key not in _RANDOM}
    return {**definition, "model": model}


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
        "model": _renamed(_deterministic(definition)["model"], special),
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


# --- start ------------------------------------------------------------------------------------


def start_token(folder: Path, definition: dict[str, Any], complete: bool = True) -> int | None:
    """Return the id of BOS, else of EOS: from the tokenizer's files, else from the config.

    Of a definition that is not `complete`, a token that it lacks gives None. Raises UsageError if a
    file cannot be read, names a token that the tokenizer does not have, or gives what is no id.
    """
    ids = _ids(folder, definition)
    for role in ("bos", "eos"):
        named = _named(folder, f"{role}_token")
        known = next((token for token in named if token in ids), None)
        if known is not None:
            return ids[known]
        if named and not complete:
            return None
        if named:
            raise UsageError(
                f"the {role}_token {next(iter(named))!r} in {named[next(iter(named))]} is no token "
                f"of the tokenizer; set it to null or to one of its tokens"
            )
        if (folder / "tokenizer_config.json").exists():
            continue  # this file decides: without BOS there, the tokenizer has none
        for name in ("generation_config.json", "config.json", "genai_config.json"):
            token_id = _first_id(folder / name, f"{role}_token_id")
            if token_id is not None:
                return token_id
    return None


def _ids(folder: Path, definition: dict[str, Any]) -> dict[str, int]:
    """Return ids by token: of the definition, and of `added_tokens_decoder` beside it."""
    added = _json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    beside = {_content(token): int(i) for i, token in added.items()}
    vocabulary = definition["model"].get("vocab") or {}
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: i for i, entry in enumerate(vocabulary)}
    listed = {t["content"]: int(t["id"]) for t in definition.get("added_tokens") or []}
    return {**beside, **vocabulary, **listed}


def _named(folder: Path, key: str) -> dict[str, str]:
    """Return the tokens that the tokenizer's files give as `key`, with the name of the file."""
    files = ("special_tokens_map.json", "tokenizer_config.json")
    named = {_content(_json(folder / name).get(key)): name for name in reversed(files)}
    return {token: name for token, name in named.items() if token}


def _content(token: Any) -> str:
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str | None):
        raise UsageError(f"a special token is {token!r:.60}, which is no text")
    return content or ""


def _first_id(file: Path, key: str) -> int | None:
    config = _json(file)
    model = config.get("model")
    value = config.get(key, model.get(key) if isinstance(model, dict) else None)
    if isinstance(value, list):
        value = value[0] if value else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{key} in {file.name} is {value!r:.60}, which is no token id")
    return value


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a file, or an empty one if there is no file. Raises UsageError."""
    require_regular_file(path)
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path.name}: {one_line(error, 200)}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path.name} is not a JSON object")
    return value
