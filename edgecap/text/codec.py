"""A compressed file: text under a model, arithmetic-coded; bytes that the model cannot give back, stored.

    file      magic, version, header, segments, end, digest of the content, checksum of all before it
    header    precision, threads, window, and short hashes of model, tokenizer and runtime
    segment   kind, length, payload: bytes as they are, bytes under lzma, or a text's tokens

A text is cut into the windows of the exact protocol and `LANES` windows are coded together, token by
token, each step one run of the graph: both ends run the same steps, so that both see the same
probabilities to the last bit. The size is the sum of -log2 p within 0.1 % and 64 bytes.
Owns constriction (range coding; Bamler, arXiv 2201.01741).
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from edgecap.errors import EdgecapError, UsageError
from edgecap.protocols import Cache, Floats, Ids
from edgecap.spec import PRECISIONS

MAGIC = b"\xedCAP"
VERSION = 1
PIECE_BYTES = 1 << 20  # of the input that are held and tokenised at once
MIN_PIECE_BYTES = (
    512  # a text that does not come back is halved down to this before its bytes are stored
)
LANES = 16  # windows that are coded together
MAX_TOKEN_BITS = 48.0  # of a token: two symbols, each of at least 2^-24
_HEADER = struct.Struct("<BBBH8s4s4s")
_TRAILER = struct.Struct("<8sI")
_END, _RAW, _LZMA, _TEXT, _TEXT_LESS_SPACE, _TEXT_MORE_SPACE = range(6)


class CodecError(EdgecapError):
    """A compressed file that cannot be given back as what it was."""


class StepEngine(Protocol):
    """An engine as the codec needs it: rows of a batch, each with its own text."""

    vocabulary: int

    def step(self, cache: Cache | None, tokens: Ids) -> tuple[Floats, Cache]:
        """Reads one token a row, shape (rows,), after `cache`; logits of the next, shape (rows, vocabulary)."""


class CodecTokenizer(Protocol):
    """A tokenizer as the codec needs it."""

    start: int | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""


class Header(NamedTuple):
    """What both ends must share."""

    precision: str
    threads: int
    context: int
    model: bytes
    tokenizer: bytes
    runtime: bytes

    def pack(self) -> bytes:
        """The bytes in front of the segments."""
        precision = PRECISIONS.index(self.precision)
        return MAGIC + _HEADER.pack(
            VERSION,
            precision,
            min(self.threads, 255),
            self.context,
            self.model,
            self.tokenizer,
            self.runtime,
        )


class CodecSizes(NamedTuple):
    """Sizes of what went in and out, in bytes; tokens, and their summed -log2 p in bits (None when decompressed)."""

    plain_bytes: int
    coded_bytes: int
    tokens: int
    nll_bits: float | None
    stored_bytes: int


CodecProgress = Callable[[int, int], None]


def check_magic(file: BinaryIO) -> None:
    """Raises UsageError where the file is not a compressed one at all."""
    if file.read(len(MAGIC)) != MAGIC:
        raise UsageError("it was not made by edgecap compress")


def read_header(file: BinaryIO) -> Header:
    """The header of a compressed file, from its beginning. Raises as `check_magic` does, or CodecError."""
    check_magic(file)
    found = MAGIC + file.read(_HEADER.size)
    if len(found) < len(MAGIC) + _HEADER.size:
        raise CodecError("the file is cut short")
    version, precision, *rest = _HEADER.unpack(found[len(MAGIC) :])
    if version != VERSION:
        raise UsageError(f"it has format {version}; this edgecap reads format {VERSION}")
    if precision >= len(PRECISIONS):
        raise CodecError("the file is damaged")
    return Header(PRECISIONS[precision], *rest)


def check_checksum(file: BinaryIO) -> None:
    """Raises CodecError where the file is not as it was written: one pass, before any decoding."""
    file.seek(0, os.SEEK_END)
    left = file.tell() - 4
    file.seek(0)
    checksum = 0
    while left > 0 and (block := file.read(min(left, PIECE_BYTES))):
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    if left != 0 or file.read(4) != struct.pack("<I", checksum):
        raise CodecError("the file is cut short or was altered: its checksum does not match")
    file.seek(0)


# --- compress ---------------------------------------------------------------------------------


def compress(
    source: BinaryIO,
    target: BinaryIO,
    header: Header,
    engine: StepEngine,
    tokenizer: CodecTokenizer,
    progress: CodecProgress,
) -> CodecSizes:
    """Compresses all of `source` into `target`; `progress` hears the bytes that are done, of those known."""
    total = os.fstat(source.fileno()).st_size
    out = _CheckedOutput(target)
    out.write(header.pack())
    digest, size, tokens, bits, stored = hashlib.blake2b(digest_size=8), 0, 0, 0.0, 0
    for piece in _pieces(source):
        digest.update(piece)
        for kind, part in _segments(piece, tokenizer):
            if kind in (_RAW, _LZMA):
                _write_stored(out, part)
                stored += len(part)
            else:
                ids = tokenizer.encode(part.decode())
                share = _within(progress, size, len(part), total)
                payload, paid = _encode(ids, header.context, engine, tokenizer.start, share)
                out.segment(kind, len(ids), payload)
                tokens, bits = tokens + len(ids), bits + paid
            size += len(part)
            progress(size, total)
    out.write(bytes([_END]) + digest.digest())
    out.write(struct.pack("<I", out.checksum))
    return CodecSizes(size, out.size, tokens, bits, stored)


def _within(progress: CodecProgress, begin: int, size: int, total: int) -> CodecProgress:
    """Progress of a part: `size` of `total` bytes, from `begin` on."""
    return lambda done, of: progress(begin + done * size // max(of, 1), total)


class _CheckedOutput:
    """Counts and checks what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.checksum = file, 0, 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def segment(self, kind: int, length: int, payload: bytes) -> None:
        self.write(bytes([kind]) + _number(length) + _number(len(payload)) + payload)


def _write_stored(out: _CheckedOutput, part: bytes) -> None:
    packed = _lzma(part)
    kind, payload = (_LZMA, packed) if len(packed) < len(part) else (_RAW, part)
    out.segment(kind, len(part), payload)


def _lzma(part: bytes) -> bytes:
    return lzma.compress(part, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)


_LZMA_FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": PIECE_BYTES}
]


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    """The input in parts of about `PIECE_BYTES`, cut behind a line or a space, never inside a character."""
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
    """Where to end a part of a text: behind its last line, else its last space, else its last whole character."""
    for sign in (b"\n", b" "):
        at = block.rfind(sign, len(block) // 2)
        if at > 0:
            return at + 1
    at = len(block)
    while at > len(block) - 4 and at > 1 and block[at - 1] & 0xC0 == 0x80:
        at -= 1
    return at - 1 if at > 1 and block[at - 1] >= 0xC0 else len(block)


def _segments(piece: bytes, tokenizer: CodecTokenizer) -> Iterator[tuple[int, bytes]]:
    """Texts that the tokenizer gives back, and bytes to be stored; neighbours of the latter are one."""
    stored = b""
    for kind, part in _halves(piece, tokenizer):
        if kind == _RAW:
            stored += part
            continue
        if stored:
            yield _RAW, stored
            stored = b""
        yield kind, part
    if stored:
        yield _RAW, stored


def _halves(part: bytes, tokenizer: CodecTokenizer) -> Iterator[tuple[int, bytes]]:
    kind = _kind(part, tokenizer)
    if kind != _RAW or len(part) <= MIN_PIECE_BYTES:
        yield kind, part
        return
    middle = _cut(part[: len(part) // 2])
    yield from _halves(part[:middle], tokenizer)
    yield from _halves(part[middle:], tokenizer)


def _kind(part: bytes, tokenizer: CodecTokenizer) -> int:
    """How the tokenizer gives the text back: as it is, with one space less or more in front, or not at all."""
    try:
        text = part.decode("utf-8")
    except UnicodeDecodeError:
        return _RAW
    back = tokenizer.decode(tokenizer.encode(text))
    if back == text:
        return _TEXT
    if back == " " + text:
        return _TEXT_LESS_SPACE
    return _TEXT_MORE_SPACE if " " + back == text else _RAW


# --- decompress -------------------------------------------------------------------------------


def decompress(
    source: BinaryIO,
    target: BinaryIO,
    header: Header,
    engine: StepEngine,
    tokenizer: CodecTokenizer,
    progress: CodecProgress,
) -> CodecSizes:
    """Writes what was compressed. `source` stands behind its header; see `check_checksum`.

    Raises CodecError where the content is not what was compressed: the target is then worthless.
    """
    total = os.fstat(source.fileno()).st_size
    digest, size, tokens, stored = hashlib.blake2b(digest_size=8), 0, 0, 0
    while (kind := _byte(source)) != _END:
        length, payload = _read_number(source), source.read(_read_number(source))
        share = _within(progress, source.tell() - len(payload), len(payload), total)
        if length > 2 * PIECE_BYTES or kind > _TEXT_MORE_SPACE:
            raise CodecError("the file is damaged")
        with _damage_is_an_error():
            part = _restored(kind, payload, length, header.context, engine, tokenizer, share)
        tokens += length if kind >= _TEXT else 0
        stored += len(part) if kind < _TEXT else 0
        digest.update(part)
        target.write(part)
        size += len(part)
    if source.read(8) != digest.digest():
        raise CodecError(
            "the text that came out is not the one that went in: its checksum does not match"
        )
    return CodecSizes(size, total, tokens, None, stored)


@contextlib.contextmanager
def _damage_is_an_error() -> Iterator[None]:
    """What decoders say of a code that cannot be: they raise many kinds, and none of them is a bug here."""
    try:
        yield
    except (ValueError, AssertionError, lzma.LZMAError) as error:
        raise CodecError("the file is damaged, or its model is another one") from error


def _restored(
    kind: int,
    payload: bytes,
    length: int,
    context: int,
    engine: StepEngine,
    tokenizer: CodecTokenizer,
    share: CodecProgress,
) -> bytes:
    """The bytes of one segment."""
    if kind == _RAW:
        return payload
    if kind == _LZMA:
        return lzma.decompress(payload, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)
    return _spaced(
        tokenizer.decode(_decode(payload, length, context, engine, tokenizer.start, share)), kind
    ).encode()


def _spaced(text: str, kind: int) -> str:
    if kind == _TEXT_LESS_SPACE:
        return text.removeprefix(" ")
    return " " + text if kind == _TEXT_MORE_SPACE else text


def _number(value: int) -> bytes:
    """LEB128: 7 bits a byte."""
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def _read_number(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = _byte(file)
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128 or shift > 35:
            return value


def _byte(file: BinaryIO) -> int:
    found = file.read(1)
    if not found:
        raise CodecError("the file is cut short")
    return found[0]


# --- tokens -----------------------------------------------------------------------------------


def _encode(
    ids: list[int], context: int, engine: StepEngine, start: int | None, share: CodecProgress
) -> tuple[bytes, float]:
    """Range-coded tokens, and their summed -log2 p in bits."""
    import constriction

    coder, bits = constriction.stream.queue.RangeEncoder(), 0.0

    def put(lane: int, at: int, model: _Distribution | None) -> int:
        nonlocal bits
        token = ids[lane + at]
        bits += math.log2(size) if model is None else model.bits(token)
        for symbol, table in (
            _Distribution.uniform(size).path(token) if model is None else model.path(token)
        ):
            coder.encode(symbol, table)
        return token

    size = engine.vocabulary
    _walk(len(ids), context, engine, start, put, share)
    return coder.get_compressed().astype("<u4").tobytes(), bits


def _decode(
    payload: bytes,
    count: int,
    context: int,
    engine: StepEngine,
    start: int | None,
    share: CodecProgress,
) -> list[int]:
    """The tokens again."""
    import constriction

    decoder = constriction.stream.queue.RangeDecoder(
        np.frombuffer(payload, "<u4").astype(np.uint32)
    )
    ids = [0] * count
    size = engine.vocabulary

    def get(lane: int, at: int, model: _Distribution | None) -> int:
        ids[lane + at] = (model or _Distribution.uniform(size)).find(decoder.decode)
        return ids[lane + at]

    _walk(count, context, engine, start, get, share)
    return ids


def _walk(
    count: int,
    context: int,
    engine: StepEngine,
    start: int | None,
    code: Callable[[int, int, _Distribution | None], int],
    share: CodecProgress,
) -> None:
    """Goes through the windows of a text, `LANES` together, one token of each at a step.

    `code` is told where a lane's window begins, the place in it, and what to expect there; it answers
    with the token. Without a start token the first of each window is expected to be anything.
    """
    width = context - 1 if start is not None else context
    begins, done = list(range(0, count, width)), 0
    for first in range(0, len(begins), LANES):
        lanes = begins[first : first + LANES]
        lengths = [min(width, count - b) for b in lanes]
        cache, logits = None, None
        tokens = np.full(len(lanes), start if start is not None else 0, np.int64)
        for at in range(max(lengths)):
            if start is not None or at:
                logits, cache = engine.step(cache, tokens)
            for row, (begin, length) in enumerate(zip(lanes, lengths, strict=True)):
                if at < length:
                    tokens[row] = code(
                        begin, at, None if logits is None else _Distribution.of(logits[row])
                    )
                    done += 1
            share(done, count)


class _Distribution:
    """Probabilities of a token as two choices: of its group of neighbouring ids, and within the group.

    A range coder gives every symbol at least 2^-24. Over 150,000 ids at once that would cost 0.9 % of
    the probability; over 390 groups of 390 ids it costs nothing that can be measured.
    """

    def __init__(self, groups: np.ndarray) -> None:
        self._groups = groups  # (groups, width), float64, not normalised
        self._sums = groups.sum(axis=1)

    @classmethod
    def of(cls, logits: Any) -> _Distribution:
        """From logits of shape (vocabulary,). Raises CodecError on NaN or infinity."""
        row = np.asarray(logits, np.float64)
        top = row.max()
        if not np.isfinite(top):
            raise CodecError("the model gives NaN or infinity for a token's probability")
        return cls(_grouped(np.exp(row - top)))

    @classmethod
    def uniform(cls, size: int) -> _Distribution:
        """Every one of `size` tokens alike."""
        return cls(_grouped(np.ones(size)))

    def bits(self, token: int) -> float:
        """-log2 p as the coder has it."""
        p = self._groups[divmod(token, self._groups.shape[1])]
        return (
            min(MAX_TOKEN_BITS, float(np.log2(self._sums.sum()) - np.log2(p)))
            if p > 0
            else MAX_TOKEN_BITS
        )

    def path(self, token: int) -> list[tuple[int, Any]]:
        """Symbols with the tables to code them under."""
        group, place = divmod(token, self._groups.shape[1])
        return [(group, _table(self._sums)), (place, _table(self._groups[group]))]

    def find(self, decode: Callable[[Any], int]) -> int:
        """The token that a decoder finds."""
        group, width = int(decode(_table(self._sums))), int(self._groups.shape[1])
        return group * width + int(decode(_table(self._groups[group])))


def _grouped(p: np.ndarray) -> np.ndarray:
    width = max(2, math.isqrt(len(p)))
    rows = max(2, -(-len(p) // width))
    return np.pad(p, (0, rows * width - len(p))).reshape(rows, width)


def _table(weights: np.ndarray) -> Any:
    import constriction

    total = weights.sum()
    safe = weights if total > 0 else np.ones_like(weights)
    return constriction.stream.model.Categorical(safe / safe.sum(), perfect=False)
