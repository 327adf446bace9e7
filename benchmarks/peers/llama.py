"""Prefill, decode and scoring by llama.cpp, with the interface of edgecap's engines.

Owns llama_cpp. Each step calls only `llama_decode`: one batch, logits of its last token, and the
wait for them. No sampling, no tokenizer, no Python class between. Scoring asks for the logits of
all tokens.
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

from edgecap.runtime.engine import log2_softmax

TRIES = 2  # of each setting
UBATCHES = (512, 1024)
_TYPES = {"F16": llama_cpp.GGML_TYPE_F16, "F32": llama_cpp.GGML_TYPE_F32}
_QUIET = llama_cpp.llama_log_callback(lambda level, text, user: None)


class Settings(NamedTuple):
    """Settings of a context: flash attention, tokens computed at once, type of the cache."""

    flash: bool
    ubatch: int
    cache: str

    def __str__(self) -> str:
        flash = "on" if self.flash else "off"
        return f"flash attention {flash}, ubatch {self.ubatch}, cache {self.cache}"


# Flash attention and the cache in fp16 round by 0.02 standard deviations.
EXACT = Settings(False, UBATCHES[0], "F32")
USUAL = Settings(True, UBATCHES[0], "F16")  # llama.cpp's own on a processor
ALL = tuple(Settings(*s) for s in product((False, True), UBATCHES, _TYPES))


class Llama:
    """A context on a model. It contains the cache, so only the last sequence can be continued."""

    def __init__(self, model, settings: Settings, threads: int, positions: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_outputs_max = positions
        params.n_ubatch = settings.ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(settings.flash)
        params.type_k = params.type_v = _TYPES[settings.cache]
        params.no_perf = True
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot create a context with {settings}")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def prefill(self, ids: np.ndarray) -> None:
        """Read a prompt of shape (n,) with an empty cache."""
        # False: forget the tokens without zeroing the memory, which would take time.
        llama_cpp.llama_memory_clear(self._memory, False)
        self._run(ids.astype(np.int32))

    def decode(self, cache: None, token: int) -> None:
        """Decode one token after those in the cache."""
        self._run(np.array([token], np.int32))

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Return log2 p of each next token, shape (n, vocabulary)."""
        llama_cpp.llama_memory_clear(self._memory, False)
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        try:
            self._fill(batch, ids)
            self._decode(batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        pointer = llama_cpp.llama_get_logits(self._context)
        return log2_softmax(np.ctypeslib.as_array(pointer, (len(ids), self._vocabulary)))

    def close(self) -> None:
        llama_cpp.llama_free(self._context)

    def _run(self, ids: np.ndarray) -> None:
        tokens = ids.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token))
        self._decode(llama_cpp.llama_batch_get_one(tokens, len(ids)))

    @staticmethod
    def _fill(batch, ids: np.ndarray) -> None:
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids.tolist()):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0

    def _decode(self, batch) -> None:
        status = llama_cpp.llama_decode(self._context, batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status}")
        llama_cpp.llama_synchronize(self._context)


def open_model(path: Path):
    """Load a model with llama.cpp, which repacks weights for this processor if it can."""
    _begin()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {path}")
    return model


def quantize(source: Path, out: Path, kind: str) -> None:
    """Write a file of a type such as Q4_K_M, with llama.cpp's defaults for everything else."""
    _begin()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    status = llama_cpp.llama_model_quantize(
        str(source).encode(), str(out).encode(), ctypes.byref(params)
    )
    if status:
        raise RuntimeError(f"llama.cpp cannot quantize {source} to {kind}: status {status}")


def _begin() -> None:
    llama_cpp.llama_log_set(_QUIET, None)
    llama_cpp.llama_backend_init()


def fastest(
    model, threads: int, positions: int, seconds: dict[str, Callable[[Llama], float]]
) -> dict[str, Settings]:
    """Return the fastest settings for each task, by its shortest try, because noise only adds.

    `seconds` has a function for each task that runs it once and returns its seconds.
    """
    times: dict[str, dict[Settings, float]] = {task: {} for task in seconds}
    for settings in ALL:
        engine = Llama(model, settings, threads, positions)
        time.sleep(0.1)
        for task, once in seconds.items():
            # ubatch does not affect a step of one token
            if task == "prefill" or settings.ubatch == UBATCHES[0]:
                times[task][settings] = min(once(engine) for _ in range(TRIES))
        engine.close()
    return {task: min(by_settings, key=by_settings.get) for task, by_settings in times.items()}
