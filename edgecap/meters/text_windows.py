"""Cut documents into windows, by protocol: the ids that the model reads, and those that count.

exact    no special tokens in the text; BOS (else EOS) before each window; every token scored
sliding  exact with overlapping windows: only the new tokens of each are scored (--stride)
paper    the published scripts of arXiv 2511.08066: special tokens, one truncated window a document

See docs/method.md, sections Exact protocol and Paper protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgecap.protocols import Ids


class WindowEncoder(Protocol):
    """A tokenizer for the exact protocol."""

    start: int | None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""

    def is_lossless(self, text: str, ids: list[int]) -> bool:
        """Check that the ids decode to the text."""


class PaperEncoder(Protocol):
    """A tokenizer for the paper protocol."""

    def encode_with_specials(self, text: str, most: int) -> list[int]:
        """Return the ids of a text with special tokens, truncated to `most`."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, special tokens included."""


class ScoredWindow(NamedTuple):
    """Inputs and targets of one run, shape (n,); the first `skip` targets are not scored.

    `charged_bits` are added for a first token that no prediction covers.
    """

    inputs: Ids
    targets: Ids
    skip: int = 0
    charged_bits: float = 0.0

    @property
    def tokens(self) -> int:
        """Return the number of tokens that this window scores."""
        return len(self.targets) - self.skip + (self.charged_bits > 0)


class CutDocument(NamedTuple):
    """A document cut by a protocol: bytes and tokens that count, and the windows."""

    bytes: int
    tokens: int
    windows: Iterator[ScoredWindow]
    lossless: bool


Cutter = Callable[[str], CutDocument]


def exact_cutter(
    tokenizer: WindowEncoder, context: int, vocabulary: int, stride: int | None = None
) -> Cutter:
    """Return a cutter for the exact protocol; windows overlap if `stride` (positions) is given."""

    def cut(text: str) -> CutDocument:
        ids = tokenizer.encode(text)
        parts = (
            split_windows(ids, tokenizer.start, context, vocabulary)
            if stride is None
            else sliding_windows(ids, tokenizer.start, context, stride, vocabulary)
        )
        return CutDocument(len(text.encode()), len(ids), parts, tokenizer.is_lossless(text, ids))

    return cut


def paper_cutter(tokenizer: PaperEncoder, context: int) -> Cutter:
    """Return a cutter that works as the published scripts do.

    Text is truncated to `context` ids, the first id is dropped from targets and bytes, and bytes
    are those of the decoded rest.
    """

    def cut(text: str) -> CutDocument:
        ids = tokenizer.encode_with_specials(text, context)
        row = np.array(ids, np.int64)
        window = ScoredWindow(row[:-1], row[1:])
        text_kept = tokenizer.decode(ids[1:])
        return CutDocument(
            len(text_kept.encode()),
            max(len(ids) - 1, 0),
            iter([window] if len(ids) > 1 else []),
            True,
        )

    return cut


def split_windows(
    ids: Sequence[int], start: int | None, context: int, vocabulary: int
) -> Iterator[ScoredWindow]:
    """Split the ids of a document into windows.

    Each id is scored, or charged log2 of the vocabulary, exactly once.
    """
    width = context - 1 if start is not None else context
    for begin in range(0, len(ids), width):
        part = list(ids[begin : begin + width])
        row = np.array([start, *part] if start is not None else part, np.int64)
        yield ScoredWindow(
            row[:-1], row[1:], 0, 0.0 if start is not None else math.log2(vocabulary)
        )


def sliding_windows(
    ids: Sequence[int], start: int | None, context: int, stride: int, vocabulary: int
) -> Iterator[ScoredWindow]:
    """Split ids into windows of `context` positions that begin every `stride` positions.

    Each window scores only the ids that the one before did not. The start token stands once, before
    the document. Without one the first token is charged.
    """
    row = np.array([*([] if start is None else [start]), *ids], np.int64)
    scored, begin = 1, 0
    while begin == 0 or scored < len(row):
        end = min(begin + context, len(row))
        charged = math.log2(vocabulary) if begin == 0 and start is None and len(ids) else 0.0
        if end > scored or charged:
            yield ScoredWindow(
                row[begin : end - 1], row[begin + 1 : end], scored - begin - 1, charged
            )
        scored, begin = max(end, scored), begin + stride
