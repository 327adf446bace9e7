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

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from edgecap import store
from edgecap.errors import UsageError, did_you_mean
from edgecap.identity import corpus_identity, model_identity, precisions_of
from edgecap.provider_options import parse_providers
from edgecap.spec import DEFAULT_CORPUS, DEFAULT_MODEL, DEFAULT_PRECISIONS, Spec

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
_UNFOLDED = {"model", "precisions", "providers", "corpus", "context", "batches"}
_NOT_IN_A_PLAN = {
    "trust_remote_code": "a plan cannot let code of a model run; export that model first: edgecap export --trust-remote-code",
    "meter": "a wall meter belongs to one run beside it: edgecap profile --meter",
    "meter_offset_s": "a wall meter belongs to one run beside it: edgecap profile --meter",
    "revision": 'write it behind the model, as in "org/name@revision"',
}
OPTIONS = tuple(f for f in Spec.__struct_fields__ if f not in _UNFOLDED and f not in _NOT_IN_A_PLAN)


class Planned(msgspec.Struct, frozen=True, dict=True):
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
        return store.sha256_of(self.measured.encode(), self.device.encode())[:16] if self.device else self.measured

    @property
    def file_name(self) -> str:
        """The file of its record: readable in front, unique behind; nothing in it comes from another machine."""
        words = (Path(self.spec.model).name, self.spec.precisions[0], self.spec.providers[0])
        return f"{'--'.join(store.slug(word) for word in words)}--{self.key}.json"

    def __str__(self) -> str:
        spec = self.spec
        said = [Path(spec.model).name, f"{spec.precisions[0]} on {spec.providers[0]}", Path(spec.corpus).stem]
        said += [f"context {spec.context}"] if spec.context else []
        said += [f"batch {spec.batches[0]}"] if spec.batches != (1,) else []
        return ", ".join(said + ([self.device] if self.device else []))


def read_plan(path: Path, cache: Path) -> tuple[Planned, ...]:
    """The cells of a TOML file, each once, models outermost; paths in it are relative to it.

    Raises UsageError where it cannot be read, asks for what there is not, or its models or corpora are not there.
    """
    try:
        asked = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the plan {path} is not TOML: {error}") from error
    try:
        return unfold(asked, path.parent, cache)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def unfold(asked: Mapping[str, Any], base: Path, cache: Path) -> tuple[Planned, ...]:
    """The cells of a plan's table; the files of models and corpora are hashed once and remembered in `cache`."""
    more = asked.get("also", [])
    if not isinstance(more, list) or not all(isinstance(block, dict) for block in more):
        raise UsageError("'also' holds blocks: write [[also]]")
    top = {key: value for key, value in asked.items() if key != "also"}
    blocks = [top, *(_over(top, block) for block in more)]
    found: dict[str, Planned] = {}
    for cell in itertools.chain.from_iterable(_block(_checked(block), base, cache) for block in blocks):
        found.setdefault(cell.key, cell)
        if len(found) > MOST_CELLS:
            raise UsageError(f"the plan has more than {MOST_CELLS} cells")
    if not found:
        raise UsageError("the plan has no cell: one of its axes is empty")
    return tuple(found.values())


# --- one block --------------------------------------------------------------------------------


def _over(top: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """A block, with what it leaves out from the table above it."""
    said = {AXES_BY_WORD.get(word, word) for word in block}
    kept = {word: value for word, value in top.items() if AXES_BY_WORD.get(word, word) not in said}
    both = isinstance(top.get("options"), dict) and isinstance(block.get("options"), dict)
    return {**kept, **block, **({"options": {**top["options"], **block["options"]}} if both else {})}


def _checked(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block by the axes' own names. Raises UsageError at an unknown word."""
    known = [*AXES, "shards", "options"]
    found: dict[str, Any] = {}
    for word, value in block.items():
        name = AXES_BY_WORD.get(word, word)
        if name not in known:
            raise UsageError(
                f"unknown '{word}' (known: {', '.join(known)}, also){did_you_mean(word, known)}"
                f"{'; it goes below [options]' if word in OPTIONS else ''}"
            )
        if name in found:
            raise UsageError(f"'{name}' is there twice")
        found[name] = value
    return found


def _block(block: dict[str, Any], base: Path, cache: Path) -> Iterator[Planned]:
    options = _options(block.get("options", {}))
    shards = _whole("shards", block.get("shards", 1), MOST_SHARDS)
    corpora = [_place(name, base) for name in _texts("corpora", block.get("corpora", DEFAULT_CORPUS))]
    texts = {name: corpus_identity(name, cache) for name in corpora}
    contexts: Sequence[int | None] = [_whole("contexts", x) for x in _list(block.get("contexts", []))] or [None]
    batches = [_whole("batches", x) for x in _list(block.get("batches", 1))]
    providers = [str(p) for text in _texts("providers", block.get("providers", "cpu")) for p in parse_providers(text)]
    devices = _texts("device", block.get("device", "")) or [""]
    for model in _texts("models", block.get("models", DEFAULT_MODEL)):
        place = _place(model, base)
        identity = model_identity(place, cache)
        precisions = _texts("precisions", block.get("precisions", [])) or precisions_of(place) or DEFAULT_PRECISIONS
        for precision, provider, corpus, context, batch in itertools.product(
            precisions, providers, corpora, contexts, batches
        ):
            spec = Spec(
                model=place,
                precisions=(precision.strip().lower(),),
                providers=(provider,),
                corpus=corpus,
                context=context,
                batches=(batch,),
                **options,
            )
            measured = _key(spec, identity, texts[corpus])
            yield from (Planned(measured, spec, device, shards) for device in devices)


def _key(spec: Spec, model: str, corpus: str) -> str:
    """What is measured, by content; options that are as they always were say nothing, so that new ones change no key."""
    usual = Spec(model=spec.model, corpus=spec.corpus)
    told = {
        name: value
        for name in Spec.__struct_fields__
        if (value := getattr(spec, name)) != getattr(usual, name) and name != "timeout_s"
    }
    return store.sha256_of(msgspec.json.encode(told, order="sorted"), model.encode(), corpus.encode())[:16]


def _options(asked: Any) -> dict[str, Any]:
    """The options of every cell, as `Spec` has them."""
    if not isinstance(asked, dict):
        raise UsageError("'options' is a table: write [options]")
    for name in asked:
        if name in _NOT_IN_A_PLAN:
            raise UsageError(f"[options] {name}: {_NOT_IN_A_PLAN[name]}")
        if name not in OPTIONS:
            raise UsageError(f"[options] knows no '{name}' (known: {', '.join(OPTIONS)}){did_you_mean(name, OPTIONS)}")
    try:
        read = msgspec.convert(asked, Spec)
    except msgspec.ValidationError as error:
        raise UsageError(f"[options] {error}") from error
    return {name: getattr(read, name) for name in asked}


def _place(name: str, base: Path) -> str:
    """A folder or file of the plan's neighbourhood as an absolute path; other names as they are."""
    try:
        path = base / Path(name).expanduser()
        return str(path.resolve()) if path.exists() else name
    except (OSError, ValueError, RuntimeError):
        return name


# --- values -----------------------------------------------------------------------------------


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _texts(name: str, value: Any) -> Sequence[str]:
    """Words, each once; a single one needs no list."""
    found = _list(value)
    if not all(isinstance(text, str) for text in found):
        raise UsageError(f"'{name}' holds names: a text or a list of texts")
    return list(dict.fromkeys(text for text in found if text))


def _whole(name: str, value: Any, most: int = 10**9) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise UsageError(f"'{name}' holds whole numbers from 1 to {most}, not {value!r}")
    return value
