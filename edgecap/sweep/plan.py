"""Plan of a sweep: axes that unfold into cells, from a TOML file or from options.

    models = ["edgecap-ref-xs", "./my-model"]   each list is an axis: one cell per combination
    precisions = ["fp32", "int8"]
    device = "laptop-7"                         a device name, a list, "every"; default: any device
    [options]                                   fields of `Spec` for every cell
    documents = 40
    [[also]]                                    more cells; omitted keys are inherited from above
    models = "./large"
    providers = "cuda"

A plan holds data only: it cannot run code. `state` knows which cells are finished.
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
from edgecap.provider_options import STANDARD, parse_providers
from edgecap.spec import DEFAULT_CORPUS, DEFAULT_MODEL, RENAMED, Spec, usual_precisions
from edgecap.storage.files import require_regular_file, sha256_of
from edgecap.sweep.fingerprint import corpus_fingerprint, model_fingerprint, precisions_of

AXES = {  # name of each axis, and its alias
    "models": "model",
    "precisions": "precision",
    "providers": "provider",
    "corpora": "corpus",
    "contexts": "context",
    "batches": "batch",
    "device": "devices",
}
AXES_BY_KEY = {**{other: name for name, other in AXES.items()}, **{name: name for name in AXES}}
EVERY = "every"  # stands for each device of the fleet
MOST_CELLS, MOST_SHARDS = 1_000_000, 4096
LONGEST = 80  # characters of a wrong key that an error repeats
_UNFOLDED = {"model", "precisions", "providers", "corpus", "context", "batches"}
_NOT_IN_A_PLAN = {
    "trust_remote_code": (
        "a plan cannot let code of a model run; "
        "export that model first: edgecap export --trust-remote-code"
    ),
    "law": "a card belongs to one run, or to one comparison: edgecap compare --law",
    "meter": "a wall meter belongs to one run beside it: edgecap profile --meter",
    "meter_offset_s": "a wall meter belongs to one run beside it: edgecap profile --meter",
    "revision": 'write it behind the model, as in "org/name@revision"',
}
_NAMES_IN_KEYS = {new: old for old, new in RENAMED.items()} | {old: f"{old}, 2" for old in RENAMED}
OPTIONS = tuple(f for f in Spec.__struct_fields__ if f not in _UNFOLDED and f not in _NOT_IN_A_PLAN)


class PlannedCell(msgspec.Struct, frozen=True, dict=True):
    """Cell of a plan: `spec` has one precision, one provider and one batch size.

    `measured` hashes the contents to measure; `key` also covers the device, so that the same key is
    the same cell wherever the plan file is. `device` is a name, "every", or "" for any device. A
    fleet scores the corpus in `shards` parts.
    """

    measured: str
    spec: Spec
    device: str = ""
    shards: int = 1

    @cached_property
    def key(self) -> str:
        """Identify the cell by sixteen hexadecimal digits."""
        return (
            sha256_of(self.measured.encode(), self.device.encode())[:16]
            if self.device
            else self.measured
        )

    @property
    def like(self) -> str:
        """Hash corpus and options: only cells with the same hash take similar times."""
        defaults = Spec()
        changed = {
            name: getattr(self.spec, name)
            for name in OPTIONS
            if getattr(self.spec, name) != getattr(defaults, name)
        }
        return sha256_of(msgspec.json.encode(changed, order="sorted"), self.spec.corpus.encode())[
            :16
        ]

    @property
    def file_name(self) -> str:
        """Name the file of the record: readable words, then the unique key."""
        words = (Path(self.spec.model).name, self.spec.precisions[0], self.spec.providers[0])
        return f"{'--'.join(safe_filename(word) for word in words)}--{self.key}.json"

    def __str__(self) -> str:
        spec = self.spec
        words = [Path(spec.model).name, f"{spec.precisions[0]} on {spec.providers[0]}"]
        words += [Path(spec.corpus).stem] if spec.corpus != DEFAULT_CORPUS else []
        words += [f"context {spec.context}"] if spec.context else []
        words += [f"batch {spec.batches[0]}"] if spec.batches != (1,) else []
        return ", ".join(words + ([self.device] if self.device else []))


def read_plan(path: Path, cache: Path) -> tuple[PlannedCell, ...]:
    """Return the cells of a TOML file, without repeats, models outermost.

    Paths in the file are relative to it. Raise UsageError if the file cannot be read, has an
    unknown key or a wrong value, or if a model or corpus does not exist.
    """
    require_regular_file(path, "the plan")
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the plan {path} is not TOML: {error}") from error
    try:
        return unfold(table, path.parent, cache)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def unfold(table: Mapping[str, Any], base: Path, cache: Path) -> tuple[PlannedCell, ...]:
    """Return the cells of a plan's table; `cache` stores the hashes of models and corpora.

    A table without an axis has no cells of its own, only those of its [[also]] blocks.
    """
    contents = _Contents(base, cache)
    cells: dict[str, PlannedCell] = {}
    for block in _blocks(table):
        for cell in _cells(block, contents):
            cells.setdefault(cell.key, cell)
            if len(cells) > MOST_CELLS:
                raise UsageError(f"the plan has more than {MOST_CELLS} cells")
    return tuple(cells.values())


# --- blocks -----------------------------------------------------------------------------------


def _blocks(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the top of a plan if it names an axis, then each [[also]] block with inherited keys."""
    more = table.get("also", [])
    if not isinstance(more, list) or not all(isinstance(block, dict) for block in more):
        raise UsageError("'also' holds blocks: write [[also]]")
    top = _checked({key: value for key, value in table.items() if key != "also"})
    if not more and not AXES.keys() & top.keys():
        raise UsageError(f'the plan names nothing to measure: write models = ["{DEFAULT_MODEL}"]')
    if AXES.keys() & top.keys():
        yield top
    for number, block in enumerate(more, 1):
        try:
            own = _checked(block)
        except UsageError as error:
            raise UsageError(f"block {number} of [[also]]: {error}") from error
        yield {**top, **own, "options": {**top.get("options", {}), **own.get("options", {})}}


def _checked(block: Mapping[str, Any]) -> dict[str, Any]:
    """Replace aliases by the names of the axes. Raise UsageError for an unknown or repeated key."""
    checked: dict[str, Any] = {}
    for key, value in block.items():
        name = AXES_BY_KEY.get(key, key)
        if name not in (*AXES, "shards", "options"):
            raise UsageError(_unknown_key(key))
        if name in checked:
            raise UsageError(f"'{name}' is given twice")
        checked[name] = value
    if not isinstance(checked.get("options", {}), dict):
        raise UsageError("'options' is a table: write [options]")
    return checked


def _unknown_key(key: str) -> str:
    """Return the error message for an unknown key."""
    known = (*AXES, "shards", "options", "also")
    if key in _NOT_IN_A_PLAN:
        return f"'{key}' is not allowed in a plan: {_NOT_IN_A_PLAN[key]}"
    if key in OPTIONS:
        return f"'{key}' goes below [options]"
    if key in known:
        return f"'{key}' belongs at the top of the plan"
    return f"unknown '{key[:LONGEST]}' (known: {', '.join(known)}){did_you_mean(key, known)}"


def _cells(block: dict[str, Any], contents: _Contents) -> Iterator[PlannedCell]:
    """Yield every combination of a block's axes."""
    options = _options(block.get("options", {}))
    shards = _integer("shards", block.get("shards", 1), MOST_SHARDS)
    corpora = [contents.place(name) for name in _texts(block, "corpora", DEFAULT_CORPUS)]
    contexts: Sequence[int | None] = [
        _integer("contexts", x) for x in _list(block, "contexts", None) if x is not None
    ]
    batches = [_integer("batches", x) for x in _list(block, "batches", 1)]
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
        given = _texts(block, "precisions", ()) or contents.precisions(model)
        pairs = [(p, e) for e in providers for p in given or usual_precisions(e)]
        for (precision, provider), corpus, context, batch in itertools.product(
            pairs, corpora, contexts or [None], batches
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
    """Hash the measured contents and the changed options, so that new options change no key.

    Keys of older sweeps hold the names that precisions had when they were made.
    """
    defaults = Spec(model=spec.model, corpus=spec.corpus)
    changed = {
        name: value
        for name in Spec.__struct_fields__
        if (value := getattr(spec, name)) != getattr(defaults, name) and name != "timeout_s"
    }
    changed["precisions"] = [_name_in_key(name, spec.providers[0]) for name in spec.precisions]
    return sha256_of(msgspec.json.encode(changed, order="sorted"), model.encode(), corpus.encode())[
        :16
    ]


def _name_in_key(precision: str, provider: str) -> str:
    """Return a name that differs where the graphs of a precision did when keys were made."""
    from edgecap.graph.variants import FORMS, NAMES, form_of

    name = _NAMES_IN_KEYS.get(precision, precision)
    form = form_of(precision, provider) if precision in NAMES else None
    changed = form and precision not in FORMS and (form.arithmetic or form.operators == STANDARD)
    return f"{name}, {form.arithmetic or form.operators}" if form and changed else name


def _options(options: dict[str, Any]) -> dict[str, Any]:
    """Convert [options] to fields of `Spec`. Raise UsageError for an unknown name or wrong type."""
    for name in options:
        if name in _NOT_IN_A_PLAN:
            raise UsageError(f"[options] {name}: {_NOT_IN_A_PLAN[name]}")
        if name in AXES_BY_KEY:
            raise UsageError(
                f"[options] {name}: that is an axis; write {AXES_BY_KEY[name]} above [options]"
            )
        if name not in OPTIONS:
            raise UsageError(
                f"[options] has no '{name[:LONGEST]}' "
                f"(known: {', '.join(OPTIONS)}){did_you_mean(name, OPTIONS)}"
            )
    try:
        spec = msgspec.convert(options, Spec)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at `$.")
        raise UsageError(f"[options] {field.strip('`')}: {reason.replace('`', '')}") from error
    return {name: getattr(spec, name) for name in options}


# --- models and corpora -----------------------------------------------------------------------


class _Contents:
    """Paths and fingerprints of the models and corpora of a plan in `base`, each computed once."""

    def __init__(self, base: Path, cache: Path) -> None:
        self._base = base
        self.place = lru_cache(None)(self._place)
        self.model = lru_cache(None)(lambda place: model_fingerprint(place, cache))
        self.corpus = lru_cache(None)(lambda place: corpus_fingerprint(place, cache))
        self.precisions = lru_cache(None)(precisions_of)

    def _place(self, name: str) -> str:
        """Return an existing path relative to the plan as an absolute path, other names unchanged.

        Raise UsageError if the name is not UTF-8: no record could store it.
        """
        place = name
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            path = self._base / Path(name).expanduser()
            if path.exists():  # a file keeps its own name: a link may lead to a blob without one
                real = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
                place = str(real)
        try:
            place.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the name {place[:LONGEST]!r} is not UTF-8: rename it") from error
        return place


# --- values -----------------------------------------------------------------------------------


def _list(block: Mapping[str, Any], name: str, default: Any) -> list[Any]:
    """Return the values of an axis; a single value needs no list."""
    value = block.get(name, default)
    values = list(value) if isinstance(value, list | tuple) else [value]
    if name in block and not values:
        raise UsageError(f"'{name}' is empty: leave it out, or give a value")
    return values


def _texts(block: Mapping[str, Any], name: str, default: Any) -> list[str]:
    """Return the names of an axis without repeats. Raise UsageError unless all are strings."""
    values = _list(block, name, default)
    if not all(isinstance(text, str) and (text or name == "device") for text in values):
        raise UsageError(f"'{name}' holds names: a string or a list of strings, none of them empty")
    return list(dict.fromkeys(values))


def _integer(name: str, value: Any, most: int = 10**9) -> int:
    """Return a whole number from 1 to `most`. Raise UsageError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UsageError(f"'{name}' holds whole numbers from 1 to {most}, not {_shortened(value)}")
    return value


def _shortened(value: Any) -> str:
    """Return a wrong value as an error repeats it."""
    return (
        hex(value)[:LONGEST]
        if isinstance(value, int) and abs(value) > 10**18
        else repr(value)[:LONGEST]
    )
