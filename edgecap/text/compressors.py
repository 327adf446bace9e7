"""Compress a corpus with gzip, xz and zstd, to compare with a model's bits per byte.

All texts go through each compressor in one stream, which favours it: a model reads each document
alone. Results are cached, since hundreds of runs may share a corpus. Owns zlib, lzma and zstandard.
"""

from __future__ import annotations

import contextlib
import lzma
import platform
import zlib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError
from edgecap.record import Baseline
from edgecap.storage.files import sha256_of, touch, write_atomically


def measure_baselines(
    texts: Iterable[str], total_bytes: int, progress: Callable[[int, int], None]
) -> dict[str, Baseline]:
    """Return sizes under gzip -9, xz -9e and zstd -19; the texts are read once.

    `total_bytes` are the UTF-8 bytes of all texts.
    """
    streams = {"gzip -9": _gzip(), "xz -9e": _xz(total_bytes), "zstd -19": _zstd(total_bytes)}
    sizes, done = dict.fromkeys(streams, 0), 0
    for text in texts:
        raw = text.encode()
        for name, stream in streams.items():
            sizes[name] += len(stream.compress(raw))
        done += len(raw)
        progress(done, total_bytes)
    versions = {
        "gzip -9": zlib.ZLIB_RUNTIME_VERSION,
        "xz -9e": "liblzma",
        "zstd -19": metadata.version("zstandard"),
    }
    baselines = {}
    for name, stream in streams.items():
        size = sizes[name] + len(stream.flush())
        baselines[name] = Baseline(
            bytes=size, bits_per_byte=8 * size / total_bytes, version=versions[name]
        )
    return baselines


def _gzip() -> Any:
    return zlib.compressobj(9, zlib.DEFLATED, wbits=31)


def _xz(total_bytes: int) -> Any:
    """Return -9e with a dictionary no larger than the text, which saves up to 674 MB of memory."""
    size = min(1 << 26, max(1 << 12, 1 << max(total_bytes - 1, 1).bit_length()))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}]
    return lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters)


def _zstd(total_bytes: int) -> Any:
    import zstandard

    return zstandard.ZstdCompressor(level=19).compressobj(size=total_bytes)


# --- the cache --------------------------------------------------------------------------------


def baselines_path(cache: Path, corpus_sha256: str, corpus_bytes: int) -> Path:
    """Return the cache file, named by the corpus and the versions of the compressors.

    Python comes with its own liblzma, so its version counts.
    """
    versions = (zlib.ZLIB_RUNTIME_VERSION, platform.python_version(), metadata.version("zstandard"))
    key = sha256_of(*(v.encode() for v in versions), str(corpus_bytes).encode())[:16]
    return cache / "baselines" / f"{corpus_sha256}-{key}.json"


def read_baselines(path: Path) -> dict[str, Baseline]:
    """Read the baselines of an earlier run; return {} if they are missing or damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        baselines = msgspec.json.decode(path.read_bytes(), type=dict[str, Baseline])
        touch(path)
        return baselines
    return {}


def write_baselines(path: Path, baselines: dict[str, Baseline]) -> None:
    """Cache the baselines; if that fails, the next run measures them again."""
    with contextlib.suppress(UsageError):
        write_atomically(path, msgspec.json.encode(baselines))
