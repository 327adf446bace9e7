"""Load a tokenizer by name: of a model folder, a reference model, or the Hub, without weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgecap.errors import UsageError
from edgecap.model.locate import find_tokenizer, name_of
from edgecap.model.weight_files import tokenizer_sha256
from edgecap.text.tokenizer import TextTokenizer, read_token_bytes, read_tokenizer
from edgecap.text.vocabulary import TokenBytes


class LoadedTokenizer(NamedTuple):
    """A tokenizer with its model's name, source folder, hash as in records, and vocabulary."""

    name: str
    folder: Path
    sha256: str
    tokenizer: TextTokenizer
    pieces: TokenBytes


def load_tokenizers(models: Sequence[str]) -> list[LoadedTokenizer]:
    """Load the tokenizers of models by name, each named so that they differ.

    Raises UsageError if one cannot be found or is given twice.
    """
    folders = [find_tokenizer(model) for model in models]
    twice = next((m for n, m in enumerate(models) if folders[n] in folders[:n]), None)
    if twice:
        raise UsageError(f"{twice} is given twice; give different models")
    names = [
        name_of(folder)[0] if Path(model).exists() else model
        for model, folder in zip(models, folders, strict=True)
    ]
    if len(set(names)) < len(names):
        names = list(models)
    return [
        LoadedTokenizer(
            name,
            folder,
            tokenizer_sha256(folder),
            read_tokenizer(folder),
            read_token_bytes(folder),
        )
        for name, folder in zip(names, folders, strict=True)
    ]
