"""List the entries of the cache with their sizes and last uses. `cache_prune` removes them.

    CACHE/exports, variants, fused    a folder for each graph, with `graph.json` and `made.json`
    CACHE/tunings                     roundings of a model, for `edgecap tune`
    CACHE/peaks, journals, baselines  a file each
    CACHE/corpora                     a folder each
    CACHE/blobs, bundles, texts       sent by a fleet: files by hash, models and texts made of them
    CACHE/locks                       see `locks`

An entry is edgecap's only with such a place and a name that edgecap gives. Links are not followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from edgecap.errors import UsageError
from edgecap.record import Baseline, Graph, Peaks
from edgecap.storage import locks
from edgecap.storage.files import home_folder, nearest_existing

ORIGIN_FILE = "made.json"
LEFT_OVER, OTHER = "left over", "other"
SCRATCH = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}")


class Origin(msgspec.Struct, frozen=True):
    """Origin of a graph: the model that it was first made for, and when."""

    model: str
    made_utc: str


class CacheEntry(msgspec.Struct, frozen=True):
    """One entry of the cache. `path` is relative to it; a graph has model, precision and recipe.

    Only entries that are `ours` are ever removed.
    """

    kind: str
    path: str
    what: str
    model: str | None
    precision: str | None
    recipe: str | None
    bytes: int
    last_used_s: float  # since the epoch
    ours: bool


class Survey(msgspec.Struct, frozen=True):
    """Entries of a cache, largest first, and the free bytes of its disk."""

    cache: str
    things: tuple[CacheEntry, ...]
    free_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of all entries."""
        return sum(thing.bytes for thing in self.things)


# --- kinds of entries -------------------------------------------------------------------------


class _Summary(NamedTuple):
    """Description of an entry, from its own files."""

    what: str
    model: str | None = None
    precision: str | None = None
    recipe: str | None = None


_DAMAGED = _Summary("damaged")
Payload = TypeVar("Payload")


def _read(path: Path, kind: type[Payload]) -> Payload | None:
    """Read a file; return None if it is damaged, or no plain file."""
    status = _status(path)
    if status and stat.S_ISREG(status.st_mode):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return msgspec.json.decode(path.read_bytes(), type=kind)
    return None


def _graph(path: Path) -> _Summary:
    graph, origin = _read(path / "graph.json", Graph), _read(path / ORIGIN_FILE, Origin)
    if graph is None:
        return _DAMAGED
    model = origin.model if origin else None
    return _Summary(
        f"{model or 'unknown model'} {graph.precision}", model, graph.precision, graph.recipe
    )


def _tuning(path: Path) -> _Summary:
    origin = _read(path / ORIGIN_FILE, Origin)
    return _Summary(f"roundings of {origin.model}", origin.model) if origin else _DAMAGED


def _peaks(path: Path) -> _Summary:
    peaks = _read(path, Peaks)
    return (
        _Summary(f"{peaks.provider} with {peaks.threads} threads, {peaks.measured_utc}")
        if peaks
        else _DAMAGED
    )


def _baselines(path: Path) -> _Summary:
    baselines = _read(path, dict[str, Baseline])
    if not baselines:
        return _DAMAGED
    return _Summary(f"{', '.join(baselines)} of corpus {path.name[:12]}")


def _corpus(path: Path) -> _Summary:
    names = sorted(p.name for p in path.glob("*/*") if not p.name.startswith("."))
    return _Summary(", ".join(dict.fromkeys(names)) or "empty")


def _named_below(path: Path) -> _Summary:
    names = sorted(p.name for p in path.glob("*") if not p.name.startswith("."))
    return _Summary(", ".join(names) or "empty", model=names[0] if names else None)


class _Kind(NamedTuple):
    """A kind of entry: its folder, the pattern of its names, and how to summarize one."""

    folder: str
    name: str
    pattern: str
    summarize: Callable[[Path], _Summary]


_KINDS = (
    _Kind("exports", "export", r"[0-9a-f]{24}", _graph),
    _Kind("variants", "variant", r"\w+-[0-9a-f]{24}", _graph),
    _Kind("tunings", "tuning", r"[0-9a-f]{24}", _tuning),
    _Kind("fused", "fused", r"[0-9a-f]{24}", _graph),
    _Kind("peaks", "peaks", r".+-[0-9a-f]{16}\.json", _peaks),
    _Kind(
        "journals",
        "journal",
        r"[0-9a-f]{32}\.jsonl",
        lambda path: _Summary("documents of an unfinished cell"),
    ),
    _Kind("corpora", "corpora", r"[0-9a-f]{16}", _corpus),
    _Kind("baselines", "baselines", r"[0-9a-f]{64}-[0-9a-f]{16}\.json", _baselines),
    _Kind("blobs", "blob", r"[0-9a-f]{64}(\.part)?", lambda path: _Summary(path.name[:12])),
    _Kind("bundles", "bundle", r"[0-9a-f]{32}", _named_below),
    _Kind("texts", "text", r"[0-9a-f]{64}", _named_below),
)
_BY_FOLDER = {kind.folder: kind for kind in _KINDS}
KIND_NAMES = (*(kind.name for kind in _KINDS), LEFT_OVER)


def survey(cache: Path) -> Survey:
    """List everything in a cache folder, which may be missing.

    Raises UsageError if the folder is the root of a disk or a home, or cannot be read.
    """
    with translate_read_errors(cache):
        place = _place(cache)
        things = tuple(_things(place)) if is_cache(place) else ()
        existing = nearest_existing(place)
    ordered = sorted(things, key=lambda thing: (-thing.bytes, thing.path))
    return Survey(str(place), tuple(ordered), shutil.disk_usage(existing).free)


@contextlib.contextmanager
def translate_read_errors(cache: Path) -> Iterator[None]:
    """Translate errors of reading a disk. Raises UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read the cache {cache}: {error.strerror or error}") from error


def is_cache(place: Path) -> bool:
    """Return True if a folder holds one that edgecap makes in a cache."""
    return any((place / name).is_dir() for name in (*_BY_FOLDER, locks.FOLDER))


def _place(cache: Path) -> Path:
    place, home = cache.resolve(), home_folder()
    above_home = home is not None and home.resolve().is_relative_to(place)
    if above_home or place.parent == place:
        raise UsageError(
            f"{cache} is no cache folder; "
            "give edgecap a folder of its own: --cache or EDGECAP_CACHE"
        )
    if os.path.exists(place) and not place.is_dir():
        raise UsageError(
            f"the cache {cache} is not a folder; give another: --cache or EDGECAP_CACHE"
        )
    return place


def _things(cache: Path) -> Iterator[CacheEntry]:
    for entry in sorted(os.scandir(cache), key=lambda entry: entry.name):
        kind = _BY_FOLDER.get(entry.name)
        if not entry.is_dir(follow_symlinks=False):
            yield _thing(
                cache, Path(entry), OTHER, _Summary("a link" if entry.is_symlink() else "a file")
            )
        elif kind:
            yield from (_entry_of(cache, Path(path), kind) for path in os.scandir(entry))
        elif entry.name != locks.FOLDER:
            yield _thing(cache, Path(entry), entry.name, _Summary("unknown to this edgecap"))


def _entry_of(cache: Path, path: Path, kind: _Kind) -> CacheEntry:
    if path.is_symlink():
        return _thing(cache, path, kind.name, _Summary("a link"))
    if SCRATCH.fullmatch(path.name):
        return _thing(
            cache, path, LEFT_OVER, _Summary("half built by a run that was ended"), ours=True
        )
    if re.fullmatch(kind.pattern, path.name):
        return _thing(cache, path, kind.name, kind.summarize(path), ours=True)
    return _thing(cache, path, kind.name, _Summary("not named by edgecap"))


def _thing(cache: Path, path: Path, kind: str, summary: _Summary, ours: bool = False) -> CacheEntry:
    where = path.relative_to(cache).as_posix()
    return CacheEntry(
        kind, where, *summary, bytes=_bytes(path), last_used_s=last_used(path), ours=ours
    )


def _bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder.

    Bytes that several names share (hard links) are divided among them.
    """
    files = [path]
    for folder, _, names in os.walk(path) if not path.is_symlink() else ():
        files += [Path(folder, name) for name in names]
    states = [_status(file) for file in files]
    return sum(s.st_size // max(1, s.st_nlink) for s in states if s and not stat.S_ISDIR(s.st_mode))


def last_used(path: Path) -> float:
    """Return the last use in seconds since the epoch; each use of a graph touches its file."""
    state = _status(path / "graph.json") or _status(path)
    return state.st_mtime if state else 0.0


def _status(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return path.lstat()
    return None
