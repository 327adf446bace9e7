"""Runs a graph on ONNX Runtime: scoring, prefill and decoding. Owns onnxruntime.

Logits stay inside: scoring gathers its answer in the graph, prefill and decode bind outputs to the
device and never fetch them. The KV cache stays where the provider put it (I/O binding).
"""

from __future__ import annotations

import bisect
import functools
import json
import math
import mmap
import random
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecap.errors import EdgecapError, UsageError
from edgecap.graph.scoring import NLL, TARGETS
from edgecap.machine.info import int8_may_saturate
from edgecap.protocols import Floats, Ids
from edgecap.provider_options import PROVIDERS, parse_provider
from edgecap.record import ProviderShare
from edgecap.runtime.providers import load_libraries
from edgecap.runtime.state import HEADROOM, CacheBuffer, KvCache

LOGITS_BUDGET = 160_000_000  # bytes of logits that a scoring step may hold
MAX_SCORED_POSITIONS = (
    256  # scored at once: later positions of a window need not be computed against earlier ones
)
# x86 without VNNI adds pairs of unsigned x signed products in 16 bits and saturates (0.72 bits a token of
# divergence on a 260 K model); with this the runtime makes the weights unsigned, which halves VNNI's speed.
EXACT_INT8 = ("session.x64quantprecision", "1")
_PAGE, _LINE = 4096, 64  # bytes
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class EngineError(EdgecapError):
    """The runtime does not do what it was asked to."""


class OrtEngine:
    """One session on one provider; see `seams.Engine`.

    `head_dim` is the width of cached keys and `vocabulary` that of the logits, where the graph does not
    show them; `scoring` takes the serialised scoring graph, `profile_to` the prefix of the runtime's profile.
    """

    def __init__(
        self,
        path: Path,
        provider: str,
        threads: int,
        head_dim: int | None = None,
        vocabulary: int = 0,
        scoring: bytes | None = None,
        profile_to: Path | None = None,
        level: str = "all",
        arena: bool = True,
    ) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel,
            "ORT_DISABLE_ALL" if level == "off" else f"ORT_ENABLE_{level.upper()}",
        )
        options.enable_cpu_mem_arena = arena
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if int8_may_saturate():
            options.add_session_config_entry(*EXACT_INT8)
        if profile_to:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_to)
        if scoring is not None:
            options.enable_mem_pattern = False  # one block for each length of run would be kept
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(path.parent)
            )
        self._provider = parse_provider(provider).with_threads(threads)
        load_libraries(self._provider)
        started = time.perf_counter()
        self._session = onnxruntime.InferenceSession(
            scoring if scoring is not None else str(path), options, **self._provider.arguments
        )
        self.load_s = time.perf_counter() - started
        if self._session.get_providers()[0] != self._provider.runtime_name:
            raise EngineError(
                f"the runtime put the graph on {self._session.get_providers()[0]}, not on '{provider}'"
            )
        self.threads = threads
        self._head_dim = head_dim
        self._inputs = {
            i.name: i for i in self._session.get_inputs()
        }  # those with a default are not among them
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._past = [name for name in self._inputs if name.startswith("past_key_values")]
        self.has_cache = bool(self._past) and any(o.startswith("present") for o in self._outputs)
        self.vocabulary = self._shown_vocabulary() or vocabulary
        self._refuse_unknown_inputs()

    def _shown_vocabulary(self) -> int:
        last = next((o.shape[-1] for o in self._session.get_outputs() if o.name == "logits"), 0)
        return last if isinstance(last, int) else 0

    def _refuse_unknown_inputs(self) -> None:
        known = {
            "input_ids",
            "attention_mask",
            "position_ids",
            "token_type_ids",
            TARGETS,
            *self._past,
        }
        strange = sorted(set(self._inputs) - known)
        if strange:
            raise UsageError(
                f"the graph asks for inputs that edgecap does not know: {', '.join(strange)}"
            )

    # --- scoring --------------------------------------------------------------------------

    def nll(self, inputs: Ids, targets: Ids) -> Floats:
        """-log2 p of each target in bits, shape (n,); see `seams.Engine`."""
        step = self._positions_at_once(len(inputs))
        cache = self._empty()
        parts = []
        for start in range(0, len(inputs), step):
            part = slice(start, start + step)
            last = start + step >= len(inputs)
            outputs = [NLL] if last else self._outputs
            found, cache = self._run(inputs[part], cache, outputs, targets=targets[part])
            parts.append(found[NLL].numpy().reshape(-1).astype(np.float64))
        return np.concatenate(parts) / math.log(2)

    def _positions_at_once(self, n: int) -> int:
        """All where the graph keeps no cache or the logits are small; else what the budget holds."""
        if not self.has_cache or not self.vocabulary:
            return max(n, 1)
        return max(16, min(max(n, 1), MAX_SCORED_POSITIONS, LOGITS_BUDGET // (4 * self.vocabulary)))

    def log_probabilities(self, inputs: Ids) -> Floats:
        """log2 p of the next token, shape (n, vocabulary); fetches logits, for small samples only."""
        found, _ = self._run(inputs, self._empty(), ["logits"])
        return _log2_softmax(found["logits"].numpy()[0].astype(np.float64))

    def next_log_probabilities(self, rows: Ids) -> Floats:
        """log2 p of the token behind each row of ids, shape (rows, vocabulary), from (rows, n); for short rows only."""
        step = max(1, LOGITS_BUDGET // (4 * max(self.vocabulary, 1) * rows.shape[1]))
        parts = [rows[begin : begin + step] for begin in range(0, len(rows), step)]
        found = [
            self._run(part, self._empty(len(part)), ["logits"])[0]["logits"].numpy()[:, -1]
            for part in parts
        ]
        return _log2_softmax(np.concatenate(found).astype(np.float64))

    def outputs(self, inputs: Ids) -> list[Floats]:
        """All outputs of numbers for one text, shape (n,), each flattened to (rows, width of its last axis)."""
        found, _ = self._run(inputs, self._empty(), self._outputs)
        arrays = (value.numpy() for value in found.values())
        return [
            a.reshape(-1, a.shape[-1]).astype(np.float64)
            for a in arrays
            if a.dtype.kind == "f" and a.ndim
        ]

    def log_probabilities_after(self, past: Ids, ids: Ids) -> list[Floats]:
        """As `log_probabilities`, of ids that are decoded one by one behind `past`; shapes (1, vocabulary)."""
        found, cache = [], self.prefill(past)
        for token in ids:
            logits, cache = self.step(cache, token[None])
            found.append(_log2_softmax(logits.astype(np.float64)))
        return found

    # --- prefill and decode ---------------------------------------------------------------

    def prefill(self, inputs: Ids) -> KvCache:
        """Reads a prompt, shape (n,), or one a row, shape (rows, n), from an empty cache."""
        rows = np.atleast_2d(inputs)
        _, cache = self._run(rows, self._begin(*rows.shape), self._outputs)
        return cache if self.has_cache else KvCache({}, rows.shape[1], rows)

    def decode(self, cache: KvCache, tokens: int | Ids) -> KvCache:
        """Decodes one token after `cache`, or one a row, shape (rows,)."""
        rows = np.reshape(np.asarray(tokens, np.int64), (-1, 1))
        if cache.ids is not None:
            return self.prefill(np.concatenate([cache.ids, rows], axis=1))
        _, longer = self._run(rows, cache, self._outputs)
        return longer

    def step(self, cache: KvCache | None, tokens: Ids) -> tuple[Floats, KvCache]:
        """Reads one token a row, shape (rows,), after `cache`; logits of the next, shape (rows, vocabulary)."""
        rows, cache = tokens[:, None], cache or self._begin(len(tokens), 1)
        if not self.has_cache:
            rows = rows if cache.ids is None else np.concatenate([cache.ids, rows], axis=1)
            cache = KvCache({}, 0)
        found, longer = self._run(rows, cache, self._outputs)
        logits: Floats = found["logits"].numpy()[:, -1]
        return logits, longer if self.has_cache else KvCache({}, rows.shape[1], rows)

    def cache_bytes(self, cache: KvCache) -> int:
        """Bytes of all keys and values, without those of positions kept free."""
        held = sum(
            math.prod(v.shape()) * np.dtype(_TYPES[self._inputs[name].type]).itemsize
            for name, v in cache.values.items()
        )
        return int(held if cache.buffer is None else held * cache.length // cache.buffer.capacity)

    def _empty(self, rows: int = 1) -> KvCache:
        return KvCache(self._values(rows, 0), 0)

    def _values(self, rows: int, positions: int) -> dict[str, Any]:
        return {name: self._value(self._zeros(name, rows, positions)) for name in self._past}

    def _zeros(self, name: str, rows: int, positions: int) -> np.ndarray:
        """A past of so many positions; a head dimension that the graph leaves open is the model's."""
        return np.zeros(self._shape(name, rows, positions), _TYPES[self._inputs[name].type])

    def _shape(self, name: str, rows: int, positions: int) -> list[int]:
        known = self._inputs[name].shape
        return [
            d if isinstance(d, int) else self._open_size(str(d), rows, positions) for d in known
        ]

    def _open_size(self, dimension: str, rows: int, positions: int) -> int:
        if "batch" in dimension:
            return rows
        if "sequence" in dimension or "past" in dimension or "length" in dimension:
            return positions
        if self._head_dim is None:
            raise UsageError(
                f"the graph leaves the cache's dimension '{dimension}' open and no config tells it"
            )
        return self._head_dim

    # --- in place -------------------------------------------------------------------------

    def _begin(self, rows: int, positions: int) -> KvCache:
        """An empty cache, with buffer for what follows where the graph writes in place."""
        if not self.in_place:
            return self._empty(rows)
        capacity = positions + HEADROOM
        return CacheBuffer(self._memory(rows, capacity), capacity).empty_cache()

    def _memory(self, rows: int, positions: int) -> dict[str, Any]:
        """Memory for so many positions, with pages of its own each time; see `relocated`."""
        import onnxruntime

        kinds = {
            name: (self._shape(name, rows, positions), _TYPES[self._inputs[name].type])
            for name in self._past
        }
        if self._provider.place[0] != "cpu":
            make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
            return {name: make(*kind, *self._provider.place) for name, kind in kinds.items()}
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(_pages(*kind))
            for name, kind in kinds.items()
        }

    def relocated(self, cache: KvCache) -> KvCache:
        """The same cache in other memory, where it is written in place.

        How pages happen to lie makes two sessions of one small graph differ by up to a tenth for as long as the memory
        is held; a meter asks for other memory in each round, so that this is noise and not a bias.
        """
        buffer = cache.buffer
        if buffer is None:
            return cache
        rows = next(iter(cache.values.values())).shape()[0]
        return buffer.move(
            cache, buffer.capacity, lambda capacity: self._copied(cache, rows, capacity)
        )

    @functools.cached_property
    def in_place(self) -> bool:
        """Whether the graph takes its past and gives its present in the same memory: tried, since graphs do not say."""
        if not self.has_cache:
            return False
        ids = np.arange(6)[None] % max(self.vocabulary, 2)
        try:
            _, cache = self._run(
                ids[:, :4], CacheBuffer(self._values(1, 8), 8).empty_cache(), self._outputs
            )
            found, _ = self._run(ids[:, 4:5], cache, ["logits"])
        except Exception:  # a graph that joins past and present refuses memory of one size for both
            return False
        _, cache = self._run(ids[:, :4], self._empty(), self._outputs)
        expected, _ = self._run(ids[:, 4:5], cache, ["logits"])
        return bool(np.array_equal(found["logits"].numpy(), expected["logits"].numpy()))

    def _roomy(self, cache: KvCache, rows: int, positions: int) -> KvCache:
        """The cache, in a larger buffer where its own has no place for so many more positions."""
        buffer = cache.buffer
        if buffer is None or cache.length + positions <= buffer.capacity:
            return cache
        return buffer.grow(cache, positions, lambda capacity: self._copied(cache, rows, capacity))

    def _copied(self, cache: KvCache, rows: int, capacity: int) -> dict[str, Any]:
        values = self._memory(rows, capacity)
        for name, value in cache.values.items():
            axis = self._inputs[name].shape.index(self._growing(name))
            part = (*[slice(None)] * axis, slice(0, cache.length))
            array = self._zeros(name, rows, capacity)
            array[part] = value.numpy()[part]
            values[name].update_inplace(array)
        return values

    def _growing(self, name: str) -> Any:
        """The name of the dimension that holds positions."""
        return next(d for d in self._inputs[name].shape if isinstance(d, str) and "batch" not in d)

    def _value(self, array: np.ndarray) -> Any:
        import onnxruntime

        return onnxruntime.OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(array), *self._provider.place
        )

    def _run(
        self, ids: Ids, cache: KvCache, outputs: list[str], targets: Ids | None = None
    ) -> tuple[dict[str, Any], KvCache]:
        """One synchronised run of ids, shape (n,) or (rows, n); returns the outputs by name and the cache after it."""
        ids = np.atleast_2d(ids)
        rows, n = ids.shape
        total, cache = cache.length + n, self._roomy(cache, rows, n)
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones((rows, total), np.int64),
            "position_ids": np.tile(np.arange(cache.length, total, dtype=np.int64), (rows, 1)),
            "token_type_ids": np.zeros((rows, n), np.int64),
            TARGETS: targets[None] if targets is not None else None,
        }
        binding, names = self._bound(cache, outputs)
        for name, array in feeds.items():
            if name in self._inputs and array is not None:
                binding.bind_cpu_input(name, array.astype(_TYPES[self._inputs[name].type]))
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        found = dict(zip(names, binding.get_outputs(), strict=True))
        if cache.buffer:
            return found, cache.buffer.advance(cache, n)
        past = {name: found[_present(name)] for name in self._past if _present(name) in found}
        return found, KvCache(past, total)

    def _bound(self, cache: KvCache, outputs: list[str]) -> tuple[Any, list[str]]:
        """A binding and the outputs in its order; in a buffer keys and values are bound once, and all outputs with them."""
        buffer = cache.buffer
        if buffer is None:
            return self._with_outputs(self._with_past(cache), outputs), outputs
        buffer.check_current(cache)
        presents = {_present(name): value for name, value in cache.values.items()}
        if buffer.bound is None:
            buffer.bound = self._with_past(cache)
            for name, value in presents.items():
                buffer.bound.bind_ortvalue_output(name, value)
        others = [name for name in self._outputs if name not in presents]
        return self._with_outputs(buffer.bound, others), [*presents, *others]

    def _with_past(self, cache: KvCache) -> Any:
        binding = self._session.io_binding()
        for name, value in cache.values.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _with_outputs(self, binding: Any, outputs: list[str]) -> Any:
        for name in outputs:
            binding.bind_output(name, *(("cpu", 0) if name == NLL else self._provider.place))
        return binding

    def end_profile(self) -> OperatorProfile:
        """Ends the runtime's profile of all runs since the session was opened."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text("utf-8"))
        path.unlink()
        return _profiled(events)


class OperatorProfile(NamedTuple):
    """Nodes and share of operator time by provider; operator -> microseconds for each run."""

    by_provider: dict[str, ProviderShare]
    runs: tuple[dict[str, float], ...]

    def shares(self, which: slice) -> dict[str, float]:
        """The share of time of each operator over some of the runs, the largest first."""
        sums: dict[str, float] = {}
        for run in self.runs[which]:
            for operator, spent in run.items():
                sums[operator] = sums.get(operator, 0.0) + spent
        total = sum(sums.values()) or 1.0
        return {o: s / total for o, s in sorted(sums.items(), key=lambda item: -item[1])}


def _profiled(events: list[dict[str, Any]]) -> OperatorProfile:
    nodes = [e for e in events if e.get("cat") == "Node" and "provider" in e.get("args", {})]
    total = sum(e["dur"] for e in nodes) or 1
    names = {provider: name for name, provider in PROVIDERS.items()}
    shares: dict[str, ProviderShare] = {}
    for provider in sorted({e["args"]["provider"] for e in nodes}):
        own = [e for e in nodes if e["args"]["provider"] == provider]
        shares[names.get(provider, provider)] = ProviderShare(
            nodes=len({e["name"] for e in own}), time_share=sum(e["dur"] for e in own) / total
        )
    return OperatorProfile(shares, _by_run(events, nodes))


def _by_run(
    events: list[dict[str, Any]], nodes: list[dict[str, Any]]
) -> tuple[dict[str, float], ...]:
    """Operator -> microseconds, for each run in the order of time."""
    spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e.get("name") == "model_run")
    runs: list[dict[str, float]] = [{} for _ in spans]
    for event in nodes:
        at = bisect.bisect_right(spans, (event["ts"], math.inf)) - 1
        if at >= 0:
            operator = event["args"].get("op_name", event["name"])
            runs[at][operator] = runs[at].get(operator, 0.0) + event["dur"]
    return tuple(runs)


def _pages(shape: list[int], kind: type) -> np.ndarray:
    """An array in fresh pages, that begins with a cache line, at another one each time."""
    size, offset = (
        math.prod(shape) * np.dtype(kind).itemsize,
        _LINE * random.randrange(_PAGE // _LINE),
    )
    return np.frombuffer(mmap.mmap(-1, size + _PAGE), kind, math.prod(shape), offset).reshape(shape)


def _log2_softmax(logits: Floats) -> Floats:
    logits = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))) / math.log(2)
    return found


def _present(past: str) -> str:
    return re.sub(r"^past_key_values", "present", past)
