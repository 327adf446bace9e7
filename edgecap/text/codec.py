"""Compress a file: text is coded under a model, bytes that it cannot restore are stored.

`codec_format` has the layout of the file, `token_coder` codes the tokens of a text.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from edgecap.text.codec_format import (
    END,
    LZMA,
    RAW,
    TEXT,
    TEXT_LESS_SPACE,
    TEXT_MORE_SPACE,
    CodecError,
    Header,
    SegmentWriter,
    read_byte,
    read_number,
)
from edgecap.text.token_coder import CodecProgress, StepEngine, decode_tokens, encode_tokens

PIECE_BYTES = 1 << 20  # of the input that are held and tokenized at once
MIN_PIECE_BYTES = 512  # halve a text that the tokenizer cannot restore down to this, then store it


class CodecTokenizer(Protocol):
    """A tokenizer as the codec needs it."""

    start: int | None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""


class CodecSizes(NamedTuple):
    """Bytes before and after coding, tokens, and their summed -log2 p in bits.

    `nll_bits` is None when decompressed; `stored_bytes` are bytes that were stored as they are.
    """

    plain_bytes: int
    coded_bytes: int
    tokens: int
    nll_bits: float | None
    stored_bytes: int


# --- compress ---------------------------------------------------------------------------------


def compress(
    source: BinaryIO,
    target: BinaryIO,
    header: Header,
    engine: StepEngine,
    tokenizer: CodecTokenizer,
    progress: CodecProgress,
) -> CodecSizes:
    """Compress `source` into `target`; `progress` takes the bytes done, and all bytes."""
    total = os.fstat(source.fileno()).st_size
    out = SegmentWriter(target)
    out.write(header.pack())
    digest, size, tokens, bits, stored = hashlib.blake2b(digest_size=8), 0, 0, 0.0, 0
    for piece in _pieces(source):
        digest.update(piece)
        for kind, part in _segments(piece, tokenizer):
            if kind in (RAW, LZMA):
                _write_stored(out, part)
                stored += len(part)
            else:
                ids = tokenizer.encode(part.decode())
                share = _within(progress, size, len(part), total)
                payload, paid = encode_tokens(ids, header.context, engine, tokenizer.start, share)
                out.segment(kind, len(ids), payload)
                tokens, bits = tokens + len(ids), bits + paid
            size += len(part)
            progress(size, total)
    out.end(digest.digest())
    return CodecSizes(size, out.size, tokens, bits, stored)


def _within(progress: CodecProgress, begin: int, size: int, total: int) -> CodecProgress:
    """Return the progress of a part: `size` of `total` bytes, from `begin` on."""
    return lambda done, of: progress(begin + done * size // max(of, 1), total)


def _write_stored(out: SegmentWriter, part: bytes) -> None:
    packed = _lzma(part)
    kind, payload = (LZMA, packed) if len(packed) < len(part) else (RAW, part)
    out.segment(kind, len(part), payload)


def _lzma(part: bytes) -> bytes:
    return lzma.compress(part, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)


_LZMA_FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": PIECE_BYTES}
]


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    """Yield the input in parts of about `PIECE_BYTES`, each of whole characters."""
    held = b""
    while block := source.read(PIECE_BYTES + 1 - len(held)):
        held += block
        if len(held) > PIECE_BYTES:
            cut = _cut(held[:PIECE_BYTES])
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _cut(block: bytes) -> int:
    """Return the end of a part: behind its last line, else last space, else last character."""
    for sign in (b"\n", b" "):
        at = block.rfind(sign, len(block) // 2)
        if at > 0:
            return at + 1
    at = len(block)
    while at > len(block) - 4 and at > 1 and block[at - 1] & 0xC0 == 0x80:
        at -= 1
    return at - 1 if at > 1 and block[at - 1] >= 0xC0 else len(block)


def _segments(piece: bytes, tokenizer: CodecTokenizer) -> Iterator[tuple[int, bytes]]:
    """Yield texts that the tokenizer can restore, and bytes to store, joined where they touch."""
    stored = b""
    for kind, part in _halves(piece, tokenizer):
        if kind == RAW:
            stored += part
            continue
        if stored:
            yield RAW, stored
            stored = b""
        yield kind, part
    if stored:
        yield RAW, stored


def _halves(part: bytes, tokenizer: CodecTokenizer) -> Iterator[tuple[int, bytes]]:
    kind = _kind(part, tokenizer)
    if kind != RAW or len(part) <= MIN_PIECE_BYTES:
        yield kind, part
        return
    middle = _cut(part[: len(part) // 2])
    yield from _halves(part[:middle], tokenizer)
    yield from _halves(part[middle:], tokenizer)


def _kind(part: bytes, tokenizer: CodecTokenizer) -> int:
    """Return how the tokenizer restores a text: exactly, with a space less or more, or not."""
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError:
        return RAW
    back = tokenizer.decode(tokenizer.encode(text))
    if back == text:
        return TEXT
    if back == " " + text:
        return TEXT_LESS_SPACE
    return TEXT_MORE_SPACE if " " + back == text else RAW


# --- decompress -------------------------------------------------------------------------------


def decompress(
    source: BinaryIO,
    target: BinaryIO,
    header: Header,
    engine: StepEngine,
    tokenizer: CodecTokenizer,
    progress: CodecProgress,
) -> CodecSizes:
    """Restore into `target` what was compressed. `source` stands behind its header.

    Raises CodecError if the content is not what was compressed; the target is then worthless.
    `codec_format.check_checksum` finds damage before.
    """
    total = os.fstat(source.fileno()).st_size
    digest, size, tokens, stored = hashlib.blake2b(digest_size=8), 0, 0, 0
    while (kind := read_byte(source)) != END:
        length, payload = read_number(source), source.read(read_number(source))
        share = _within(progress, source.tell() - len(payload), len(payload), total)
        if length > 2 * PIECE_BYTES or kind > TEXT_MORE_SPACE:
            raise CodecError("the file is damaged")
        with _damage_as_error():
            part = _restore(kind, payload, length, header.context, engine, tokenizer, share)
        tokens += length if kind >= TEXT else 0
        stored += len(part) if kind < TEXT else 0
        digest.update(part)
        target.write(part)
        size += len(part)
    if source.read(8) != digest.digest():
        raise CodecError(
            "the text that came out is not the one that went in: its checksum does not match"
        )
    return CodecSizes(size, total, tokens, None, stored)


@contextlib.contextmanager
def _damage_as_error() -> Iterator[None]:
    """Raise CodecError for the errors of decoders on damaged data."""
    try:
        yield
    except (ValueError, AssertionError, lzma.LZMAError) as error:
        raise CodecError("the file is damaged, or its model is another one") from error


def _restore(
    kind: int,
    payload: bytes,
    length: int,
    context: int,
    engine: StepEngine,
    tokenizer: CodecTokenizer,
    share: CodecProgress,
) -> bytes:
    """Return the bytes of one segment."""
    if kind == RAW:
        return payload
    if kind == LZMA:
        return lzma.decompress(payload, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)
    ids = decode_tokens(payload, length, context, engine, tokenizer.start, share)
    return _spaced(tokenizer.decode(ids), kind).encode()


def _spaced(text: str, kind: int) -> str:
    if kind == TEXT_LESS_SPACE:
        return text.removeprefix(" ")
    return " " + text if kind == TEXT_MORE_SPACE else text
