"""What a sweep is asked for: axes that unfold into cells, from a TOML file or from options.

    models = ["edgecap-ref-xs", "./my-model"]      each list is an axis: a cell for every combination
    precisions = ["fp32", "int8"]
    device = "laptop-7"                            on a fleet: a name, a list, "every", or left out for any
    [options]                                      of every cell, named as in the record's spec
    documents = 40
    [[also]]                                       more cells: what it leaves out is as above
    models = "./large"
    providers = "cuda"

A plan holds data only: it can neither name code nor let any run. Which cells are measured already is
known to `ledger`.
"""

from __future__ import annotations

import contextlib
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import msgspec

from edgecap.errors import UsageError, did_you_mean
from edgecap.model.reference_models import SERIES, series_members
from edgecap.names import safe_filename
from edgecap.parsing import parse_name
from edgecap.provider_options import parse_providers
from edgecap.spec import DEFAULT_CORPUS, DEFAULT_MODEL, DEFAULT_PRECISIONS, Spec
from edgecap.storage.files import sha256_of
from edgecap.sweep.fingerprint import corpus_fingerprint, model_fingerprint, precisions_of

AXES = {  # as it is written, and what it may be written as too
    "models": "model",
    "precisions": "precision",
    "providers": "provider",
    "corpora": "corpus",
    "contexts": "context",
    "batches": "batch",
    "device": "devices",
}
AXES_BY_WORD = {**{other: name for name, other in AXES.items()}, **{name: name for name in AXES}}
EVERY = "every"  # device of the fleet
MOST_CELLS, MOST_SHARDS = 1_000_000, 4096
LONGEST = 80  # characters of a wrong word that an error repeats
_UNFOLDED = {"model", "precisions", "providers", "corpus", "context", "batches"}
_NOT_IN_A_PLAN = {
    "trust_remote_code": "a plan cannot let code of a model run; export that model first: edgecap export --trust-remote-code",
    "meter": "a wall meter belongs to one run beside it: edgecap profile --meter",
    "meter_offset_s": "a wall meter belongs to one run beside it: edgecap profile --meter",
    "revision": 'write it behind the model, as in "org/name@revision"',
}
OPTIONS = tuple(f for f in Spec.__struct_fields__ if f not in _UNFOLDED and f not in _NOT_IN_A_PLAN)


class PlannedCell(msgspec.Struct, frozen=True, dict=True):
    """A cell: `spec` has one precision, provider and batch size; `device` is a name, "every", or "" for any.

    `measured` names what is measured by its content, `key` that and the device: the same key is the same cell,
    wherever the plan lies. Compression is scored in `shards` parts on a fleet.
    """

    measured: str
    spec: Spec
    device: str = ""
    shards: int = 1

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits."""
        return (
            sha256_of(self.measured.encode(), self.device.encode())[:16]
            if self.device
            else self.measured
        )

    @property
    def like(self) -> str:
        """A word for the text and the options: cells that differ in it take other times."""
        usual = Spec()
        told = {
            name: getattr(self.spec, name)
            for name in OPTIONS
            if getattr(self.spec, name) != getattr(usual, name)
        }
        return sha256_of(msgspec.json.encode(told, order="sorted"), self.spec.corpus.encode())[:16]

    @property
    def file_name(self) -> str:
        """The file of its record: readable in front, unique behind; nothing in it comes from another machine."""
        words = (Path(self.spec.model).name, self.spec.precisions[0], self.spec.providers[0])
        return f"{'--'.join(safe_filename(word) for word in words)}--{self.key}.json"

    def __str__(self) -> str:
        spec = self.spec
        said = [Path(spec.model).name, f"{spec.precisions[0]} on {spec.providers[0]}"]
        said += [Path(spec.corpus).stem] if spec.corpus != DEFAULT_CORPUS else []
        said += [f"context {spec.context}"] if spec.context else []
        said += [f"batch {spec.batches[0]}"] if spec.batches != (1,) else []
        return ", ".join(said + ([self.device] if self.device else []))


def read_plan(path: Path, cache: Path) -> tuple[PlannedCell, ...]:
    """The cells of a TOML file, each once, models outermost; paths in it are relative to it.

    Raises UsageError where it cannot be read, asks for what there is not, or its models or corpora are not there.
    """
    try:
        asked = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the plan {path} is not TOML: {error}") from error
    try:
        return unfold(asked, path.parent, cache)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def unfold(asked: Mapping[str, Any], base: Path, cache: Path) -> tuple[PlannedCell, ...]:
    """The cells of a plan's table; the files of models and corpora are hashed once and remembered in `cache`.

    A table that names no axis has no cells of its own, only those of its [[also]] blocks.
    """
    contents = _Contents(base, cache)
    found: dict[str, PlannedCell] = {}
    for block in _blocks(asked):
        for cell in _cells(block, contents):
            found.setdefault(cell.key, cell)
            if len(found) > MOST_CELLS:
                raise UsageError(f"the plan has more than {MOST_CELLS} cells")
    return tuple(found.values())


# --- blocks -----------------------------------------------------------------------------------


def _blocks(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The table above, if it names an axis, and each block with what it leaves out from there; all by the axes' names."""
    more = asked.get("also", [])
    if not isinstance(more, list) or not all(isinstance(block, dict) for block in more):
        raise UsageError("'also' holds blocks: write [[also]]")
    top = _checked({word: value for word, value in asked.items() if word != "also"})
    if not more and not AXES.keys() & top.keys():
        raise UsageError(f'the plan names nothing to measure: write models = ["{DEFAULT_MODEL}"]')
    if AXES.keys() & top.keys():
        yield top
    for number, block in enumerate(more, 1):
        try:
            said = _checked(block)
        except UsageError as error:
            raise UsageError(f"block {number} of [[also]]: {error}") from error
        yield {**top, **said, "options": {**top.get("options", {}), **said.get("options", {})}}


def _checked(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block by the axes' own names. Raises UsageError at a word that is unknown, or there twice."""
    found: dict[str, Any] = {}
    for word, value in block.items():
        name = AXES_BY_WORD.get(word, word)
        if name not in (*AXES, "shards", "options"):
            raise UsageError(_unknown(word))
        if name in found:
            raise UsageError(f"'{name}' is there twice")
        found[name] = value
    if not isinstance(found.get("options", {}), dict):
        raise UsageError("'options' is a table: write [options]")
    return found


def _unknown(word: str) -> str:
    known = (*AXES, "shards", "options", "also")
    if word in _NOT_IN_A_PLAN:
        return f"'{word}' has no place in a plan: {_NOT_IN_A_PLAN[word]}"
    if word in OPTIONS:
        return f"'{word}' goes below [options]"
    if word in known:
        return f"'{word}' belongs at the top of the plan"
    return f"unknown '{word[:LONGEST]}' (known: {', '.join(known)}){did_you_mean(word, known)}"


def _cells(block: dict[str, Any], contents: _Contents) -> Iterator[PlannedCell]:
    """Every combination of a block's axes."""
    options = _options(block.get("options", {}))
    shards = _whole("shards", block.get("shards", 1), MOST_SHARDS)
    corpora = [contents.place(name) for name in _texts(block, "corpora", DEFAULT_CORPUS)]
    contexts: Sequence[int | None] = [
        _whole("contexts", x) for x in _list(block, "contexts", None) if x is not None
    ]
    batches = [_whole("batches", x) for x in _list(block, "batches", 1)]
    providers = [
        str(p) for text in _texts(block, "providers", "cpu") for p in parse_providers(text)
    ]
    devices = _texts(block, "device", "")
    models = [
        m
        for text in _texts(block, "models", DEFAULT_MODEL)
        for m in (series_members() if text == SERIES else (text,))
    ]
    for model in map(contents.place, dict.fromkeys(models)):
        precisions = (
            _texts(block, "precisions", ()) or contents.precisions(model) or DEFAULT_PRECISIONS
        )
        for precision, provider, corpus, context, batch in itertools.product(
            precisions, providers, corpora, contexts or [None], batches
        ):
            spec = Spec(
                model=model,
                precisions=(parse_name(precision),),
                providers=(provider,),
                corpus=corpus,
                context=context,
                batches=(batch,),
                **options,
            )
            measured = _key(spec, contents.model(model), contents.corpus(corpus))
            yield from (PlannedCell(measured, spec, device, shards) for device in devices)


def _key(spec: Spec, model: str, corpus: str) -> str:
    """What is measured, by content; options that are as they always were say nothing, so that new ones change no key."""
    usual = Spec(model=spec.model, corpus=spec.corpus)
    told = {
        name: value
        for name in Spec.__struct_fields__
        if (value := getattr(spec, name)) != getattr(usual, name) and name != "timeout_s"
    }
    return sha256_of(msgspec.json.encode(told, order="sorted"), model.encode(), corpus.encode())[
        :16
    ]


def _options(asked: dict[str, Any]) -> dict[str, Any]:
    """The options of every cell, as `Spec` has them."""
    for name in asked:
        if name in _NOT_IN_A_PLAN:
            raise UsageError(f"[options] {name}: {_NOT_IN_A_PLAN[name]}")
        if name in AXES_BY_WORD:
            raise UsageError(
                f"[options] {name}: that is an axis; write {AXES_BY_WORD[name]} above [options]"
            )
        if name not in OPTIONS:
            raise UsageError(
                f"[options] knows no '{name[:LONGEST]}' (known: {', '.join(OPTIONS)}){did_you_mean(name, OPTIONS)}"
            )
    try:
        read = msgspec.convert(asked, Spec)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise UsageError(f"[options] {where.strip('`')}: {what.replace('`', '')}") from error
    return {name: getattr(read, name) for name in asked}


# --- what names stand for ---------------------------------------------------------------------


class _Contents:
    """Models and corpora of a plan that lies in `base`: where each is, and what, found out once."""

    def __init__(self, base: Path, cache: Path) -> None:
        self._base = base
        self.place = lru_cache(None)(self._place)
        self.model = lru_cache(None)(lambda place: model_fingerprint(place, cache))
        self.corpus = lru_cache(None)(lambda place: corpus_fingerprint(place, cache))
        self.precisions = lru_cache(None)(precisions_of)

    def _place(self, name: str) -> str:
        """A folder or file of the plan's neighbourhood as an absolute path; other names as they are.

        Raises UsageError where no record could tell the name: one that is not UTF-8.
        """
        place = name
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            path = self._base / Path(name).expanduser()
            place = str(path.resolve()) if path.exists() else name
        try:
            place.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the name {place[:LONGEST]!r} is not UTF-8: rename it") from error
        return place


# --- values -----------------------------------------------------------------------------------


def _list(block: Mapping[str, Any], name: str, usual: Any) -> list[Any]:
    """The values of an axis; a single one needs no list."""
    value = block.get(name, usual)
    found = list(value) if isinstance(value, list | tuple) else [value]
    if name in block and not found:
        raise UsageError(f"'{name}' is empty: leave it out, or name something")
    return found


def _texts(block: Mapping[str, Any], name: str, usual: Any) -> list[str]:
    """Words, each once."""
    found = _list(block, name, usual)
    if not all(isinstance(text, str) and (text or name == "device") for text in found):
        raise UsageError(f"'{name}' holds names: a text or a list of texts, none of them empty")
    return list(dict.fromkeys(found))


def _whole(name: str, value: Any, most: int = 10**9) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UsageError(f"'{name}' holds whole numbers from 1 to {most}, not {_told(value)}")
    return value


def _told(value: Any) -> str:
    """A value of the wrong kind, as far as it fits into a line."""
    return (
        hex(value)[:LONGEST]
        if isinstance(value, int) and abs(value) > 10**18
        else repr(value)[:LONGEST]
    )
