"""Prefill and decode by llama.cpp, in the words of edgecap's engines. Owns llama_cpp.

Only `llama_decode` is called: one batch, logits of its last token, and the wait for them. No sampling, no
tokenizer, no Python class in between.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import llama_cpp
import numpy as np

TRIES = 2  # of each setting
UBATCHES = (512, 1024)
_TYPES = {"F16": llama_cpp.GGML_TYPE_F16, "F32": llama_cpp.GGML_TYPE_F32}
_QUIET = llama_cpp.llama_log_callback(lambda level, text, user: None)


class Settings(NamedTuple):
    """What a user may choose without another model: flash attention, tokens computed at once, type of the cache."""

    flash: bool
    ubatch: int
    cache: str

    def __str__(self) -> str:
        return f"flash attention {'on' if self.flash else 'off'}, ubatch {self.ubatch}, cache {self.cache}"


EXACT = Settings(
    False, UBATCHES[0], "F32"
)  # flash attention and the cache in fp16 round by 0.02 standard deviations
ALL = tuple(Settings(*s) for s in product((False, True), UBATCHES, _TYPES))


class Llama:
    """A context on a model; its cache is inside, so that only the last sequence can be continued."""

    def __init__(self, model, settings: Settings, threads: int, positions: int) -> None:
        asked = llama_cpp.llama_context_default_params()
        asked.n_ctx = asked.n_batch = positions
        asked.n_ubatch = settings.ubatch
        asked.n_threads = asked.n_threads_batch = threads
        asked.flash_attn_type = int(settings.flash)
        asked.type_k = asked.type_v = _TYPES[settings.cache]
        asked.no_perf = True
        self._context = llama_cpp.llama_init_from_model(model, asked)
        if not self._context:
            raise RuntimeError(f"llama.cpp has no context with {settings}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def prefill(self, ids: np.ndarray) -> None:
        """Reads a prompt of shape (n,) from an empty cache."""
        llama_cpp.llama_memory_clear(
            self._memory, False
        )  # forgets; zeroing the memory would be work of its own
        self._run(ids.astype(np.int32))

    def decode(self, cache: None, token: int) -> None:
        """Decodes one token after all that was read."""
        self._run(np.array([token], np.int32))

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """log2 p of the token after the last, shape (1, vocabulary)."""
        self.prefill(ids)
        found = llama_cpp.llama_get_logits_ith(self._context, -1)
        logits = np.ctypeslib.as_array(found, (self._vocabulary,)).astype(np.float64)
        logits -= logits.max()
        return (logits - np.log(np.exp(logits).sum()))[None] / np.log(2)

    def close(self) -> None:
        llama_cpp.llama_free(self._context)

    def _run(self, ids: np.ndarray) -> None:
        tokens = ids.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        status = llama_cpp.llama_decode(
            self._context, llama_cpp.llama_batch_get_one(tokens, len(ids))
        )
        if status:
            raise RuntimeError(f"llama_decode gave {status}")
        llama_cpp.llama_synchronize(self._context)


def open_model(path: Path):
    """A model as llama.cpp loads it for this processor, weights repacked where it can."""
    llama_cpp.llama_log_set(_QUIET, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise RuntimeError(f"llama.cpp does not load {path}")
    return model


def fastest(
    model, threads: int, positions: int, seconds: dict[str, Callable[[Llama], float]]
) -> dict[str, Settings]:
    """The settings with the shortest of `TRIES` for each task, as noise only adds; `seconds` times a task once."""
    found: dict[str, dict[Settings, float]] = {task: {} for task in seconds}
    for settings in ALL:
        engine = Llama(model, settings, threads, positions)
        time.sleep(0.1)
        for task, once in seconds.items():
            if (
                task == "prefill" or settings.ubatch == UBATCHES[0]
            ):  # a step of one token knows no other
                found[task][settings] = min(once(engine) for _ in range(TRIES))
        engine.close()
    return {task: min(times, key=times.__getitem__) for task, times in found.items()}
