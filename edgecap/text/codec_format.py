"""The format of a compressed file: header, numbers, trailer, checksum.

    file      magic, version, header, segments, end, digest of the content, checksum
    header    precision, threads, window, and short hashes of model, tokenizer and runtime
    segment   kind, length, payload: bytes as they are, bytes under lzma, or a text's tokens

`codec` writes and reads segments, `token_coder` their tokens.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

from edgecap.errors import EdgecapError, UsageError
from edgecap.spec import PRECISIONS, RENAMED

# By their index in a file. Two names changed places when they got new recipes; old files still mean
# the old ones.
_SWAPPED = {**RENAMED, **{new: old for old, new in RENAMED.items()}}
_PRECISIONS = tuple(_SWAPPED.get(name, name) for name in PRECISIONS)
MAGIC = b"\xedCAP"
VERSION = 1
BLOCK_BYTES = 1 << 20  # of a file that are read at once
_HEADER = struct.Struct("<BBBH8s4s4s")
END, RAW, LZMA, TEXT, TEXT_LESS_SPACE, TEXT_MORE_SPACE = range(6)  # kinds of segments


class CodecError(EdgecapError):
    """A compressed file that is damaged, or that another model wrote."""


class Header(NamedTuple):
    """The facts that both ends must share.

    `model`, `tokenizer` and `runtime` are the first 8, 4 and 4 bytes of SHA-256 hashes.
    """

    precision: str
    threads: int
    context: int
    model: bytes
    tokenizer: bytes
    runtime: bytes

    def pack(self) -> bytes:
        """Return the bytes in front of the segments."""
        return MAGIC + _HEADER.pack(
            VERSION,
            _PRECISIONS.index(self.precision),
            min(self.threads, 255),
            self.context,
            self.model,
            self.tokenizer,
            self.runtime,
        )


def check_magic(file: BinaryIO) -> None:
    """Raise UsageError if the file is not a compressed one."""
    if file.read(len(MAGIC)) != MAGIC:
        raise UsageError("it was not made by edgecap compress")


def read_header(file: BinaryIO) -> Header:
    """Read the header at the beginning of a compressed file.

    Raises UsageError for another kind of file or another version, CodecError for a damaged one.
    """
    check_magic(file)
    packed = file.read(_HEADER.size)
    if len(packed) < _HEADER.size:
        raise CodecError("the file is cut short")
    version, precision, *rest = _HEADER.unpack(packed)
    if version != VERSION:
        raise UsageError(f"it has format {version}; this edgecap reads format {VERSION}")
    if precision >= len(_PRECISIONS):
        raise CodecError("the file is damaged")
    return Header(_PRECISIONS[precision], *rest)


def check_checksum(file: BinaryIO) -> None:
    """Raise CodecError if the file is not as it was written: one pass, before any decoding."""
    file.seek(0, os.SEEK_END)
    left = file.tell() - 4
    file.seek(0)
    checksum = 0
    while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    if left != 0 or file.read(4) != struct.pack("<I", checksum):
        raise CodecError("the file is cut short or was altered: its checksum does not match")
    file.seek(0)


class SegmentWriter:
    """Writes a compressed file, with a count of its bytes and a checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size, self.checksum = file, 0, 0

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._file.write(data)
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def segment(self, kind: int, length: int, payload: bytes) -> None:
        """Write a segment; `length` counts its bytes or tokens before coding."""
        self.write(bytes([kind]) + _pack_number(length) + _pack_number(len(payload)) + payload)

    def end(self, digest: bytes) -> None:
        """Write the end, the digest of the content, and the checksum."""
        self.write(bytes([END]) + digest)
        self.write(struct.pack("<I", self.checksum))


def _pack_number(value: int) -> bytes:
    """Pack a number as LEB128: 7 bits a byte."""
    packed = b""
    while value > 127:
        packed, value = packed + bytes([value & 127 | 128]), value >> 7
    return packed + bytes([value])


def read_number(file: BinaryIO) -> int:
    """Read a LEB128 number. Raises CodecError at the end of the file."""
    value = shift = 0
    while True:
        byte = read_byte(file)
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128 or shift > 35:
            return value


def read_byte(file: BinaryIO) -> int:
    """Read one byte. Raises CodecError at the end of the file."""
    byte = file.read(1)
    if not byte:
        raise CodecError("the file is cut short")
    return byte[0]
