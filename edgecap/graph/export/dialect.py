"""Translate configs that transformers 5 saved, for an installed transformers 4.

transformers 5 stores the rotary embedding in `rope_parameters`, for all layers or for each type of
attention, and renames other fields. transformers 4 ignores what it does not know, and would compute
another model without a word. A field that has no counterpart is refused.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError

ROPE = "rope_parameters"
FULL, SLIDING = "full_attention", "sliding_attention"
# Model types with a rotary base for each type of attention: its names in transformers 4.
_BASES = {
    **dict.fromkeys(("gemma3_text", "gemma3n_text"), ("rope_theta", "rope_local_base_freq")),
    **dict.fromkeys(
        ("modernbert", "modernbert-decoder"), ("global_rope_theta", "local_rope_theta")
    ),
}
# Other fields that a model type has another name for in transformers 4.
_RENAMED = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "qwen3_moe": {"num_local_experts": "num_experts"},
}
# Model types whose config takes these fields of a rotary scaling only, and its old name.
_OLD_SCALING = {
    "phi3": ("short_factor", "long_factor"),
    "phimoe": (
        *("short_factor", "long_factor", "short_mscale", "long_mscale"),
        "original_max_position_embeddings",
    ),
}
# New fields that transformers 4 does not read, and the values at which both compute the same.
_SAME_AT: dict[str, tuple[Any, ...]] = {
    "use_bidirectional_attention": (None, False),
    "swiglu_alpha": (None, 1.702),
    "swiglu_limit": (None, 7.0),
}


@contextlib.contextmanager
def readable_folder(folder: Path) -> Iterator[Path]:
    """Give the folder to a `with` block, or links to its files with translated configs.

    Raise UsageError if the installed transformers does not read something that its config says.
    """
    changed = _translated_files(folder) if installed_major() < 5 else {}
    if not changed:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgecap-config-") as scratch:
        view = Path(scratch) / folder.resolve().name
        view.mkdir()
        for file in folder.iterdir():
            if file.name not in changed:
                _link(file.absolute(), view / file.name)
        for name, value in changed.items():
            (view / name).write_text(json.dumps(value), "utf-8")
        try:
            yield view
        except UsageError as error:
            raise UsageError(str(error).replace(str(view), str(folder))) from error


def installed_major() -> int:
    """Return the major version of transformers."""
    import transformers

    return int(transformers.__version__.partition(".")[0])


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # Windows without the right to make links
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _translated_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the configs that had to change, by file name."""
    translations = {"config.json": translate_config, "tokenizer_config.json": _translate_tokenizer}
    changed = {}
    for name, translate in translations.items():
        file = folder / name
        before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        after = translate(before)
        if after != before:
            changed[name] = after
    return changed


def _translate_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    after = dict(config)
    if config.get("tokenizer_class") == "TokenizersBackend":
        after["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        after["additional_special_tokens"] = after.pop("extra_special_tokens")
    return after


# --- the model's config -----------------------------------------------------------------------


def translate_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a parsed `config.json` as transformers 4 would have saved it.

    Raise UsageError if it says something that transformers 4 does not read.
    """
    after = dict(config)
    if isinstance(config.get("text_config"), Mapping):
        after["text_config"] = translate_config(dict(config["text_config"]))
    model_type = str(config.get("model_type") or "")
    if not _is_known(model_type):  # the folder's own code reads its own fields
        return after
    names = _RENAMED.get(model_type, {})
    _check_new_fields(after, model_type)
    if after.get(ROPE):
        _check_one_rope(after, model_type)
        after = _with_rope(after, model_type)
    after.pop(ROPE, None)
    if model_type.startswith("modernbert") and after.get("layer_types"):
        after["global_attn_every_n_layers"] = _interval(after["layer_types"], model_type)
    renamed = {names[field]: after[field] for field in names if field in after}
    return after | renamed


def _check_new_fields(config: Mapping[str, Any], model_type: str) -> None:
    for field, same in _SAME_AT.items():
        if field in config and config[field] not in same:
            raise _unread(model_type, field, config[field])
    if config.get("layer_types") and not _reads(model_type, "layer_types"):
        others = set(config["layer_types"]) - {FULL}
        if others and not model_type.startswith("modernbert"):
            raise _unread(model_type, "layer_types", ", ".join(sorted(map(str, others))))


def _check_one_rope(config: Mapping[str, Any], model_type: str) -> None:
    """Raise UsageError if the old fields of a rotary embedding stand beside the new and differ."""
    rope = config[ROPE]
    if not isinstance(rope, Mapping):
        raise _unread(model_type, ROPE, rope)
    for field in ("rope_theta", "rope_scaling"):
        old = config.get(field)
        inside = rope.get(field) if field == "rope_theta" else rope
        if old is not None and old != inside:
            raise UsageError(
                f"config.json has {field} {str(old)[:80]} beside other values in {ROPE}; "
                "take out one of them"
            )


def _unread(model_type: str, field: str, value: object) -> UsageError:
    import transformers

    return UsageError(
        f"config.json has {field} {str(value)[:80]}: transformers {transformers.__version__} does "
        f"not read that for model type '{model_type}', and would compute another model; it was "
        "saved by transformers 5"
    )


def _with_rope(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Replace `rope_parameters` by the fields of transformers 4."""
    rope = config[ROPE]
    nested = {kind: p for kind, p in rope.items() if isinstance(p, Mapping)}
    values = [p for p in nested.values() if p]
    if nested and model_type in _BASES:
        fields = _rope_by_type(nested, model_type)
    elif nested and any(p != values[0] for p in values):
        raise _unread(model_type, ROPE, f"for {' and '.join(sorted(nested))}")
    else:
        fields = _rope_fields(values[0] if nested else rope, model_type)
    names = _RENAMED.get(model_type, {})
    for field in fields:
        if not _reads(model_type, names.get(field, field)):
            raise _unread(model_type, f"{ROPE}.{field}", fields[field])
    return {**config, **fields}


def _rope_by_type(nested: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Return the fields of a model with one rotary base for full and one for sliding attention."""
    full, sliding = nested.get(FULL) or {}, nested.get(SLIDING) or {}
    if set(nested) - {FULL, SLIDING} or sliding.get("rope_type", "default") != "default":
        raise _unread(model_type, ROPE, dict(nested))
    base, local = _BASES[model_type]
    fields = _rope_fields(full, model_type)
    if model_type.startswith("modernbert") and fields.pop("rope_scaling") is not None:
        raise _unread(model_type, ROPE, full)
    fields = {base if name == "rope_theta" else name: value for name, value in fields.items()}
    return fields | ({local: sliding["rope_theta"]} if "rope_theta" in sliding else {})


def _rope_fields(rope: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Return rotary base, share of rotated numbers and scaling, as transformers 4 names them."""
    names = ("rope_theta", "partial_rotary_factor")
    fields: dict[str, Any] = {name: rope[name] for name in names if name in rope}
    theta = fields.get("rope_theta")
    if not isinstance(theta, int | float) or theta <= 0:
        raise _unread(model_type, f"{ROPE}.rope_theta", theta)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" and kind not in _known_scalings():
        raise _unread(model_type, f"{ROPE}.rope_type", kind)
    if kind == "default":
        return fields | {"rope_scaling": None}
    scaling = {k: v for k, v in rope.items() if k not in (*names, "rope_type", "type")}
    if kind == "longrope" and "original_max_position_embeddings" in scaling:
        fields["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
    if model_type in _OLD_SCALING:
        scaling = {k: scaling[k] for k in _OLD_SCALING[model_type] if k in scaling}
        return fields | {"rope_scaling": {"type": kind, **scaling}}
    return fields | {"rope_scaling": {"rope_type": kind, **scaling}}


def _known_scalings() -> set[str]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return set(ROPE_INIT_FUNCTIONS)


def _interval(kinds: list[Any], model_type: str) -> int:
    """Return n if every n-th layer from the first attends to all positions, the others do not."""
    for n in range(1, len(kinds) + 1):
        if kinds == [SLIDING if i % n else FULL for i in range(len(kinds))]:
            return n
    raise _unread(model_type, "layer_types", kinds)


def _is_known(model_type: str) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _reads(model_type: str, field: str) -> bool:
    """Return True if transformers 4 reads a field of a model type.

    Scaling, share and original length of a rotary embedding are read wherever they are set.
    """
    from transformers import CONFIG_MAPPING, PretrainedConfig

    if field in ("rope_scaling", "partial_rotary_factor", "original_max_position_embeddings"):
        return True
    kind = CONFIG_MAPPING[model_type]
    names = set(inspect.signature(kind.__init__).parameters) | set(kind.attribute_map)
    return field in names or hasattr(PretrainedConfig(), field)
