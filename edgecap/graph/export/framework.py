"""Load the model of a folder with transformers, check its weights, and compute with it.

What is loaded is the model that is exported, and the reference that its graph is compared with. A
weight that the files lack would be filled with random numbers, so it is refused.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecap.errors import UsageError
from edgecap.names import is_buffer, one_line
from edgecap.protocols import Floats, Ids

# Classes of transformers by Optimum's task.
_CLASSES = {
    "text-generation-with-past": "AutoModelForCausalLM",
    "text-generation": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "feature-extraction": "AutoModel",
}
_CAUSAL = "AutoModelForCausalLM"
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_PADDING_POSITIONS = 2  # at the begin of the table of positions of RoBERTa and its like
_SHOWN = 100  # characters of a weight's name


class Loading(NamedTuple):
    """Differences between the weights of a model and those of its files, by name."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


def check_config(folder: Path, trust_remote_code: bool) -> None:
    """Raise UsageError if transformers cannot read the folder's config."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # of many kinds: validation of single fields, too
        reason = one_line(error, 200)
        raise UsageError(f"transformers does not know the model in {folder}: {reason}") from error


def load_model(folder: Path, task: str, trust_remote_code: bool, weights: bool = True) -> Any:
    """Load a model in fp32 from the safetensors files of a folder; nothing is downloaded.

    Without `weights` only their names and shapes are read, and the model has no numbers. Raise
    UsageError if transformers does not know the model, or the files hold other weights than it has.
    """
    import transformers

    transformers.logging.set_verbosity_error()  # what it says about weights is refused below
    check_config(folder, trust_remote_code)
    model = _load(folder, task, trust_remote_code, {"device_map": "meta"})  # takes no memory
    if weights:
        model = _load(folder, task, trust_remote_code, {})
        _check_numbers(model, folder)
    _check_tied(model, folder)
    return model


def _load(folder: Path, task: str, trust_remote_code: bool, options: dict[str, Any]) -> Any:
    import torch
    import transformers

    kind = _CLASSES[task]
    try:
        model, info = getattr(transformers, kind).from_pretrained(
            folder,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            trust_remote_code=trust_remote_code,
            **{_dtype_option(): torch.float32},
            **options,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UsageError(
            f"transformers cannot load the model in {folder}: "
            f"{type(error).__name__}: {one_line(error, 300)}"
        ) from error
    check_loading(_loading(info, _tied_names(model)), folder, decodes=kind == _CAUSAL)
    return model.eval()


def _dtype_option() -> str:
    """Return the name of the option that sets the type of numbers; 4.56 renamed it."""
    import transformers

    major, minor = map(int, transformers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def _tied_names(model: Any) -> frozenset[str]:
    """Return the weights that repeat others of a model, which no file needs to hold."""
    tied = model.config.get_text_config().tie_word_embeddings
    return frozenset(getattr(model, "_tied_weights_keys", None) or () if tied else ())


def _check_numbers(model: Any, folder: Path) -> None:
    """Raise UsageError if transformers left a weight without numbers."""
    empty = [name for name, weight in model.named_parameters() if weight.is_meta]
    if empty:
        raise UsageError(
            f"{folder} lacks {_number(empty, 'weight')} of the model that config.json describes, "
            f"first {empty[0][:_SHOWN]}{_shared(empty)}; save the model again"
        )


def _check_tied(model: Any, folder: Path) -> None:
    """Raise UsageError if the files hold a head that differs from the embedding it is tied to."""
    stored = _stored_tensors(folder, _tied_names(model))
    embedding = model.get_input_embeddings().weight
    for name, tensor in stored.items():
        same = tensor.shape == embedding.shape
        if same and not embedding.is_meta:
            same = bool((tensor.to(embedding.dtype) == embedding).all())
        if not same:
            raise UsageError(
                f"{folder} holds {name}, and tie_word_embeddings in config.json says that it is "
                "the embedding, from which it differs; set that to false, or take the weight out"
            )


def _stored_tensors(folder: Path, names: frozenset[str]) -> dict[str, Any]:
    """Return those of some heads that the files hold, by name."""
    from safetensors import safe_open

    stored = dict[str, Any]()
    for path in folder.glob("model*.safetensors") if names else ():
        with safe_open(path, "pt") as file:
            found = names & set(file.keys())
            stored |= {name: file.get_tensor(name) for name in found if "head" in name}
    return stored


# --- weights ----------------------------------------------------------------------------------


def _loading(info: dict[str, Any], tied: frozenset[str]) -> Loading:
    def names(key: str) -> tuple[str, ...]:
        values = info.get(key) or ()
        return tuple(sorted(v if isinstance(v, str) else str(v[0]) for v in values))

    return Loading(
        tuple(name for name in names("missing_keys") if name not in tied),
        names("unexpected_keys"),
        names("mismatched_keys"),
        tuple(map(str, info.get("error_msgs") or ())),
    )


def check_loading(loading: Loading, folder: Path, decodes: bool = True) -> None:
    """Raise UsageError if a model was not loaded from its own weights alone.

    An encoder may lack a pooler, which no output uses, and hold the head of another task.
    """
    missing = [n for n in loading.missing if decodes or ".pooler." not in f".{n}"]
    unexpected = [n for n in loading.unexpected if not is_buffer(n) and (decodes or _is_inside(n))]
    if missing:
        raise UsageError(_describe_missing(missing, loading.unexpected, folder))
    if loading.mismatched:
        raise UsageError(
            f"{_number(loading.mismatched, 'weight')} in {folder} {_have(loading.mismatched)} "
            f"another shape than config.json says, first {loading.mismatched[0][:_SHOWN]}"
        )
    if unexpected:
        raise UsageError(
            f"{_number(unexpected, 'weight')} in {folder} {_have(unexpected)} no place in the "
            f"model that config.json describes, first {unexpected[0][:_SHOWN]}"
            f"{_shared(unexpected)}; give the folder of a language model without other parts"
        )
    if loading.errors:
        raise UsageError(
            f"transformers cannot load the weights in {folder}: {one_line(loading.errors[0], 300)}"
        )


def _describe_missing(missing: Sequence[str], unexpected: Sequence[str], folder: Path) -> str:
    text = (
        f"{folder} lacks {_number(missing, 'weight')} of the model that config.json describes, "
        f"first {missing[0][:_SHOWN]}"
    )
    if not unexpected:
        return f"{text}{_shared(missing)}; give the folder of the whole model"
    prefix = _added_prefix(missing, unexpected)
    others = f"{_number(unexpected, 'weight')} that it does not have"
    if prefix:
        return f"{text}; the files hold {others}, with the prefix '{prefix}': rename them"
    return (
        f"{text}; the files hold {others}, first {unexpected[0][:_SHOWN]}{_shared(unexpected)}: "
        "give the folder of a causal language model, or rename them"
    )


def _added_prefix(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """Return the prefix that stands before the names of all missing weights in the files."""
    prefix = os.path.commonprefix(list(unexpected))
    candidates = (prefix[: i + 1] for i, char in enumerate(prefix) if char in "._-/")
    names = set(unexpected)
    return next((p for p in candidates if all(p + name in names for name in missing)), "")[:_SHOWN]


def _number(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' * (len(names) > 1)}"


def _have(names: Sequence[str]) -> str:
    return "have" if len(names) > 1 else "has"


def _shared(names: Sequence[str]) -> str:
    """Return the prefix that several names share, up to a dot, as a part of a sentence."""
    prefix = os.path.commonprefix(list(names)) if len(names) > 1 else ""
    prefix = prefix[: prefix.rfind(".") + 1]
    return f" (all begin with '{prefix[:_SHOWN]}')" if prefix else ""


def _is_inside(name: str) -> bool:
    """Return True for a weight of an encoder's body: of a layer or of the embeddings."""
    return any(part in f".{name}" for part in (".layer.", ".layers.", ".embeddings.", ".h."))


# --- computing --------------------------------------------------------------------------------


class LengthLimits(NamedTuple):
    """Lengths at which a model begins to compute in another way, in positions.

    `windows` are those of sliding or chunked attention, `original` is the length of pretraining,
    beyond which a rotary embedding may be scaled; None if there is none.
    """

    windows: tuple[int, ...] = ()
    original: int | None = None
    positions: int | None = None


class FrameworkModel:
    """A loaded model as transformers computes it, with eager attention.

    Other implementations of attention leave out parts of some models, such as soft caps.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.config = model.config.get_text_config()
        self.vocabulary = int(self.config.vocab_size)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def limits(self) -> LengthLimits:
        """The lengths at which the model begins to compute in another way."""
        config = self.config.to_dict()
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        name = "original_max_position_embeddings"
        windows = [config.get(n) for n in ("sliding_window", "attention_chunk_size", "window_size")]
        if config.get("use_sliding_window") is False:
            windows[0] = None
        positions = next((config[n] for n in _POSITIONS if isinstance(config.get(n), int)), None)
        if positions and type(self._model).__name__.endswith("ForMaskedLM"):
            positions -= _PADDING_POSITIONS
        return LengthLimits(
            tuple(w for w in (*windows, config.get("local_attention")) if isinstance(w, int)),
            scaling.get(name) or config.get(name),
            positions,
        )

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return int(getattr(self.config, "num_attention_heads", None) or 32)

    def __enter__(self) -> FrameworkModel:
        self._before = getattr(self._model.config, "_attn_implementation", None)
        if self._before not in (None, "eager"):
            self._model.set_attn_implementation("eager")
        return self

    def __exit__(self, *_: object) -> None:
        if self._before not in (None, "eager"):
            self._model.set_attn_implementation(self._before)

    def logits(self, ids: Ids, last: int | None = None) -> Floats:
        """Return the logits after each id, shape (n, vocabulary), or after the `last` ids."""
        rows, _ = self._forward(ids, None, last)
        return rows if last is None else rows[-last:]

    def logits_after(self, past: Ids, ids: Ids) -> list[Floats]:
        """Return the logits after each of `ids`, decoded one by one after `past`.

        Each result has shape (1, vocabulary).
        """
        _, cache = self._forward(past, None, 1, use_cache=True)
        results = []
        for token in ids:
            rows, cache = self._forward(token[None], cache, 1, use_cache=True)
            results.append(rows[-1:])
        return results

    def _forward(
        self, ids: Ids, cache: Any, last: int | None, use_cache: bool = False
    ) -> tuple[Floats, Any]:
        import torch

        options: dict[str, Any] = {"past_key_values": cache, "use_cache": True} if use_cache else {}
        if last is not None and self._keeps:
            options["logits_to_keep"] = last
        with torch.inference_mode():
            answer = self._model(input_ids=torch.from_numpy(ids[None]), **options)
        rows = answer.logits[0].float().numpy()
        return np.array(rows), getattr(answer, "past_key_values", None)
