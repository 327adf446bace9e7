"""Run a graph on ONNX Runtime: scoring, prefill and decode. Owns onnxruntime.

Logits stay inside: scoring computes its result in the graph; prefill and decode bind the outputs to
the device and never copy them to the host. The KV cache stays on the provider's device (I/O
binding).
"""

from __future__ import annotations

import functools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgecap.errors import EdgecapError, UsageError
from edgecap.graph.last_logits import DEPLOYED, KEEP
from edgecap.graph.onnx_file import unknown_inputs
from edgecap.graph.scoring import NLL, TARGETS, fixed_logits_graph
from edgecap.graph.weight_locations import InMemoryGraph
from edgecap.protocols import Floats, Ids
from edgecap.provider_options import parse_provider
from edgecap.runtime.arrays import feeds, log2_softmax
from edgecap.runtime.cache_memory import DTYPES, CacheMemory, present_of
from edgecap.runtime.operator_profile import OperatorProfile, parse_operator_profile
from edgecap.runtime.providers import load_libraries
from edgecap.runtime.sessions import create_session, session_options
from edgecap.runtime.state import HEADROOM, CacheBuffer, KvCache

LOGITS_BUDGET = 160_000_000  # bytes of logits that a scoring step may hold
NEAR_LOGITS = 0.02  # share of the largest logit by which kernels of a device may differ
# Positions scored at once. Small, so that few positions of a window are computed against earlier
# ones that they do not see.
MAX_SCORED_POSITIONS = 256


class EngineError(EdgecapError):
    """The runtime does not do what it was asked to do."""


class OrtEngine:
    """One session on one provider; implements `protocols.Engine`.

    `head_dim` is the width of cached keys and `vocabulary` that of the logits, where the graph does
    not show them. `scoring` is the scoring graph of `path`, `profile_to` the path prefix of the
    runtime's profile, `level` the graph optimisation. Raises EngineError if the runtime falls back
    to another provider, UsageError if the graph has unknown inputs.
    """

    def __init__(
        self,
        path: Path,
        provider: str,
        threads: int,
        head_dim: int | None = None,
        vocabulary: int = 0,
        scoring: InMemoryGraph | None = None,
        profile_to: Path | None = None,
        level: str = "all",
        arena: bool = True,
    ) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = session_options(threads, level, arena)
        if profile_to:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_to)
        if scoring is not None:
            options.enable_mem_pattern = False  # would keep one block for each length of input
        self._provider = parse_provider(provider).with_threads(threads)
        self.launches = ""  # of a provider that records them: replayed, or why not
        load_libraries(self._provider)
        self._load_began = time.perf_counter()
        self._path, self._options = path, options
        self._run_options: Any = None
        self._session = self._open(scoring or path)
        self.load_s = time.perf_counter() - self._load_began
        actual = self._session.get_providers()[0]
        if actual != self._provider.runtime_name:
            raise EngineError(f"the runtime put the graph on {actual}, not on '{provider}'")
        self.threads = threads
        self.overrides: dict[str, np.ndarray] = {}  # in place of stored tensors, by name
        inputs = [*self._session.get_inputs(), *self._kept_logits_with_default()]
        self._inputs = {i.name: i for i in inputs}
        self._numbers_of_logits: dict[int, Any] = {}
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._past = [name for name in self._inputs if name.startswith("past_key_values")]
        past = {name: self._inputs[name] for name in self._past}
        self._memory = CacheMemory(past, self._provider.place, head_dim)
        self.has_cache = bool(self._past) and any(o.startswith("present") for o in self._outputs)
        self.vocabulary = self._logits_width() or vocabulary
        self._check_inputs()

    def _open(self, graph: Path | InMemoryGraph) -> Any:
        return create_session(graph, self._options, self._provider.arguments)

    def _kept_logits_with_default(self) -> list[Any]:
        optional = self._session.get_overridable_initializers()
        return [i for i in optional if i.name in KEEP]

    def _logits_width(self) -> int:
        last = next((o.shape[-1] for o in self._session.get_outputs() if o.name == "logits"), 0)
        return last if isinstance(last, int) else 0

    def _check_inputs(self) -> None:
        unknown = unknown_inputs(self._inputs.keys() - {TARGETS})
        if unknown:
            raise UsageError(
                f"the graph has inputs that edgecap does not know: {', '.join(unknown)}; "
                "export the model with `edgecap export`"
            )

    # --- scoring --------------------------------------------------------------------------

    def nll(self, inputs: Ids, targets: Ids) -> Floats:
        """Return -log2 p of each target in bits, shape (n,)."""
        step = self._positions_per_run(len(inputs))
        cache = self._empty_cache()
        parts = []
        for start in range(0, len(inputs), step):
            part = slice(start, start + step)
            last = start + step >= len(inputs)
            names = [NLL] if last else self._outputs
            outputs, cache = self._run(inputs[part], cache, names, targets=targets[part])
            parts.append(outputs[NLL].numpy().reshape(-1).astype(np.float64))
        return np.concatenate(parts) / math.log(2)

    def _positions_per_run(self, n: int) -> int:
        """Return n if the graph has no cache or its logits fit; else what the budget allows."""
        if not self.has_cache or not self.vocabulary:
            return max(n, 1)
        return max(16, min(max(n, 1), MAX_SCORED_POSITIONS, LOGITS_BUDGET // (4 * self.vocabulary)))

    def log_probabilities(self, inputs: Ids, last: int | None = None) -> Floats:
        """Return log2 p of each next token, shape (n, vocabulary), or after the `last` inputs.

        Copies the logits to the host: for small samples only.
        """
        wanted = last or len(inputs)
        rows = self._last_logits(inputs, last or 0)
        if len(rows) < wanted and self._numbers_of_logits:
            self._give_all_logits()
            rows = self._last_logits(inputs, 0)[-wanted:]
        if len(rows) < wanted:
            raise EngineError(f"the graph gives logits of {len(rows)} of {wanted} positions")
        return log2_softmax(rows)

    def _last_logits(self, inputs: Ids, last: int) -> Floats:
        outputs, _ = self._run(inputs, self._empty_cache(), ["logits"], logits=last)
        rows: Floats = outputs["logits"].numpy()[0, -last:]
        return rows

    def _give_all_logits(self) -> None:
        """Open the graph again with the logits of all positions.

        A provider that compiles a graph may take the default number of positions for a constant.
        """
        graph = fixed_logits_graph(self._path, 0)
        self._session = self._open(graph)
        self._inputs = {n: i for n, i in self._inputs.items() if n not in KEEP}
        self._numbers_of_logits = {}

    def next_log_probabilities(self, rows: Ids) -> Floats:
        """Return log2 p of the token after each row of ids.

        `rows` has shape (rows, n), the result (rows, vocabulary). For short rows only.
        """
        step = max(1, LOGITS_BUDGET // (4 * max(self.vocabulary, 1) * rows.shape[1]))
        parts = [rows[begin : begin + step] for begin in range(0, len(rows), step)]
        logits = [
            self._run(part, self._empty_cache(len(part)), ["logits"])[0]["logits"].numpy()[:, -1]
            for part in parts
        ]
        return log2_softmax(np.concatenate(logits))

    def tensors(self, inputs: Ids, names: list[str]) -> list[np.ndarray]:
        """Return named outputs for one text, shape (n,), each of shape (1, n, width)."""
        outputs, _ = self._run(inputs, self._empty_cache(), names, logits=0)
        return [outputs[name].numpy() for name in names]

    def outputs(self, inputs: Ids) -> list[Floats]:
        """Return all floating-point outputs for one text, each of shape (rows, last axis)."""
        return [
            a.reshape(-1, a.shape[-1]).astype(np.float64)
            for a in self.tensors(inputs, self._outputs)
            if a.dtype.kind == "f" and a.ndim
        ]

    def log_probabilities_after(self, past: Ids, ids: Ids) -> list[Floats]:
        """Return log2 p after each of `ids`, decoded one by one after `past`.

        Each result has shape (1, vocabulary).
        """
        results, cache = [], self.prefill(past)
        for token in ids:
            logits, cache = self.step(cache, token[None])
            results.append(log2_softmax(logits))
        return results

    # --- prefill and decode ---------------------------------------------------------------

    def prefill(self, inputs: Ids) -> KvCache:
        """Read a prompt, shape (n,), or one per row, shape (rows, n), into a new cache."""
        rows = np.atleast_2d(inputs)
        _, cache = self._run(rows, self._new_cache(*rows.shape), self._outputs)
        return cache if self.has_cache else KvCache({}, rows.shape[1], rows)

    def decode(self, cache: KvCache, tokens: int | Ids) -> KvCache:
        """Decode one token after `cache`, or one per row, shape (rows,)."""
        rows = np.reshape(np.asarray(tokens, np.int64), (-1, 1))
        if cache.ids is not None:
            return self.prefill(np.concatenate([cache.ids, rows], axis=1))
        _, longer = self._run(rows, cache, self._outputs)
        return longer

    def step(self, cache: KvCache | None, tokens: Ids) -> tuple[Floats, KvCache]:
        """Read one token per row, shape (rows,), after `cache`.

        Returns the logits of the next token, shape (rows, vocabulary), and the cache after it.
        """
        rows, cache = tokens[:, None], cache or self._new_cache(len(tokens), 1)
        if not self.has_cache:
            rows = rows if cache.ids is None else np.concatenate([cache.ids, rows], axis=1)
            cache = KvCache({}, 0)
        outputs, longer = self._run(rows, cache, self._outputs)
        logits: Floats = outputs["logits"].numpy()[:, -1].copy()  # a replay writes over it
        return logits, longer if self.has_cache else KvCache({}, rows.shape[1], rows)

    def stop_replaying(self, reason: str) -> None:
        """Issue launches one by one from now on: this engine always does."""

    # --- caches ---------------------------------------------------------------------------

    def cache_bytes(self, cache: KvCache) -> int:
        """Return the bytes of all keys and values, without those of free positions."""
        return self._memory.bytes(cache)

    def _empty_cache(self, rows: int = 1) -> KvCache:
        return KvCache(self._memory.values(rows, 0), 0)

    def _new_cache(self, rows: int, positions: int) -> KvCache:
        """Return an empty cache, in a buffer if the graph writes in place."""
        from_nothing = positions == 1  # many steps follow: the buffer would have to grow
        if not self.in_place or (from_nothing and not self._memory.can_move):
            return self._empty_cache(rows)
        capacity = positions + HEADROOM
        return CacheBuffer(self._memory.allocate(rows, capacity), capacity).empty_cache()

    def relocated(self, cache: KvCache) -> KvCache:
        """Return the same cache in other memory, if steps write it in place; else itself.

        The placement of pages makes two sessions of one small graph differ by up to a tenth for as
        long as the memory lives. A meter relocates the cache in each round, which turns this bias
        into noise.
        """
        buffer = cache.buffer
        if buffer is None or not self._memory.can_move:
            return cache
        rows = next(iter(cache.values.values())).shape()[0]
        return buffer.move(
            cache, buffer.capacity, lambda capacity: self._memory.copy(cache, rows, capacity)
        )

    @functools.cached_property
    def in_place(self) -> bool:
        """Test whether the graph can take its past and return its present in the same memory.

        Graphs do not declare it, so this runs one and compares the logits with those of a plain
        cache.
        """
        if not self.has_cache:
            return False
        ids = np.arange(6)[None] % max(self.vocabulary, 2)
        try:
            empty = CacheBuffer(self._memory.values(1, 8), 8).empty_cache()
            _, cache = self._run(ids[:, :4], empty, self._outputs)
            actual, _ = self._run(ids[:, 4:5], cache, ["logits"])
        except Exception:  # a graph that concatenates past and present refuses equal sizes
            return False
        _, cache = self._run(ids[:, :4], self._empty_cache(), self._outputs)
        expected, _ = self._run(ids[:, 4:5], cache, ["logits"])
        found, wanted = (run["logits"].numpy().astype(np.float64) for run in (actual, expected))
        near = 0.0 if self._provider.place[0] == "cpu" else NEAR_LOGITS * np.abs(wanted).max()
        return bool(np.abs(found - wanted).max() <= near)

    def _with_capacity(self, cache: KvCache, rows: int, positions: int) -> KvCache:
        """Return the cache, in a larger buffer if `positions` more do not fit."""
        buffer = cache.buffer
        if buffer is None or cache.length + positions <= buffer.capacity:
            return cache
        return buffer.grow(
            cache, positions, lambda capacity: self._memory.copy(cache, rows, capacity)
        )

    # --- runs -----------------------------------------------------------------------------

    def _run(
        self,
        ids: Ids,
        cache: KvCache,
        names: list[str],
        targets: Ids | None = None,
        logits: int = DEPLOYED,
    ) -> tuple[dict[str, Any], KvCache]:
        """Run ids, shape (n,) or (rows, n), once, synchronised.

        A graph that can be asked for them computes `logits` of the last positions, 0 for all.
        Returns the outputs `names` and the cache after the run.
        """
        ids = np.atleast_2d(ids)
        rows, n = ids.shape
        total, cache = cache.length + n, self._with_capacity(cache, rows, n)
        arrays = feeds(ids, cache.length, total)
        if targets is not None:
            arrays[TARGETS] = targets[None]
        binding, bound = self._bind(cache, names)
        for name, array in arrays.items():
            if name in self._inputs:
                binding.bind_cpu_input(name, array.astype(DTYPES[self._inputs[name].type]))
        for name in self._inputs.keys() & set(KEEP):
            binding.bind_ortvalue_input(name, self._number_of_logits(name, logits))
        replaced = {name: _on_host(array) for name, array in self.overrides.items()}
        for name, value in replaced.items():  # kept until the run ends: a binding keeps nothing
            binding.bind_ortvalue_input(name, value)
        self._session.run_with_iobinding(binding, self._run_options)
        binding.synchronize_outputs()
        outputs = dict(zip(bound, binding.get_outputs(), strict=True))
        if cache.buffer:
            return outputs, cache.buffer.advance(cache, n)
        past = {
            name: outputs[present_of(name)] for name in self._past if present_of(name) in outputs
        }
        return outputs, KvCache(past, total)

    def _number_of_logits(self, name: str, logits: int) -> Any:
        """Return a number of positions as runtime value, in the shape that the input declares.

        It is kept: a binding does not keep its values.
        """
        shape = [d if isinstance(d, int) else 1 for d in self._inputs[name].shape]
        number = _on_host(np.full(shape, logits, np.int64))
        return self._numbers_of_logits.setdefault(logits, number)

    def _bind(self, cache: KvCache, names: list[str]) -> tuple[Any, list[str]]:
        """Return a binding of cache and outputs, and the names of the outputs in its order.

        In a buffer, keys and values are bound once for the whole chain, and all outputs with them.
        """
        buffer = cache.buffer
        if buffer is None:
            return self._bind_outputs(self._bind_past(cache), names), names
        buffer.check_current(cache)
        presents = {present_of(name): value for name, value in cache.values.items()}
        if buffer.bound is None:
            buffer.bound = self._bind_past(cache)
            for name, value in presents.items():
                buffer.bound.bind_ortvalue_output(name, value)
        others = [name for name in self._outputs if name not in presents]
        return self._bind_outputs(buffer.bound, others), [*presents, *others]

    def _bind_past(self, cache: KvCache) -> Any:
        binding = self._session.io_binding()
        for name, value in cache.values.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _bind_outputs(self, binding: Any, names: list[str]) -> Any:
        for name in names:
            binding.bind_output(name, *(("cpu", 0) if name == NLL else self._provider.place))
        return binding

    def end_profile(self) -> OperatorProfile:
        """End the runtime's profile, and parse it: all runs since the session was created."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text("utf-8"))
        path.unlink()
        return parse_operator_profile(events)


def _on_host(array: np.ndarray) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
