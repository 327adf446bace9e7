"""Replay recorded launches: runs of a decoder with fixed shapes at fixed addresses.

A provider that records (CUDA graphs) keeps the launches of a run under its number, and issues all
of them at once in later runs of that number. So ids and positions are written in place, the mask
covers positions that are still free, with zeros there, and outputs stay on the device.
"""

from __future__ import annotations

import itertools
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecap.graph.last_logits import DEPLOYED
from edgecap.graph.scoring import fixed_logits_graph
from edgecap.graph.weight_locations import InMemoryGraph
from edgecap.names import one_line
from edgecap.protocols import Ids
from edgecap.provider_options import RECORDING
from edgecap.runtime.arrays import feeds
from edgecap.runtime.cache_memory import DTYPES, present_of
from edgecap.runtime.engine import OrtEngine
from edgecap.runtime.sessions import create_session
from edgecap.runtime.state import HEADROOM, CacheBuffer, KvCache

REPLAYED = "replayed"
MOST_SLOTS = 4  # memories of caches that are kept for further prompts of their size
_NOT_RECORDED = -1
_numbers = itertools.count(1)


class ReplayingEngine(OrtEngine):
    """An engine that replays prompts and decoded tokens, where provider and graph allow it.

    Runs of several threads at once, and pieces of a prompt, are not replayed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._replays = False
        self._slots: list[_Slot] = []
        super().__init__(*arguments, **options)
        if not self.launches and not self.in_place:
            self.stop_replaying("the graph does not write its cache in place")
        self._replays = not self.launches
        self.launches = self.launches or REPLAYED

    def stop_replaying(self, reason: str) -> None:
        """Issue launches one by one from now on."""
        self._replays, self.launches = False, f"one by one: {reason}"
        self._slots.clear()

    def _open(self, graph: Path | InMemoryGraph) -> Any:
        """Open a session that records; else one that does not, and say why in `launches`."""
        name, own = self._provider.name, self._provider.options
        option = RECORDING.get(name)
        if option is None or isinstance(graph, InMemoryGraph):
            self.stop_replaying(f"{name} does not record launches")
            return super()._open(graph)
        if own.get(option, "1") != "1":
            self.stop_replaying(f"{option}={own[option]} was given")
            return super()._open(graph)
        arguments = self._provider._replace(options={**own, option: "1"}).arguments
        try:
            fixed = fixed_logits_graph(graph, DEPLOYED)
            self._load_began = time.perf_counter()
            session = create_session(fixed, self._options, arguments)
        except Exception as error:  # of many kinds: a node on another provider, or its own
            self.stop_replaying(one_line(error, 200))
            self._load_began = time.perf_counter()
            return super()._open(graph)
        self._run_options = _run_options(_NOT_RECORDED)
        return session

    def relocated(self, cache: KvCache) -> KvCache:
        """Return the cache where it is: replays keep their addresses."""
        return cache if self._replays else super().relocated(cache)

    def _new_cache(self, rows: int, positions: int) -> KvCache:
        """Return an empty cache, in memory that earlier runs were recorded with if it is free."""
        if not self._replays:
            return super()._new_cache(rows, positions)
        free = [slot for slot in self._slots if slot.owner() is None]
        for slot in free:
            if slot.size == (rows, positions):
                buffer = CacheBuffer(slot.values, slot.capacity, slot.replays)
                self._slots.remove(slot)
                self._slots.append(slot._replace(owner=weakref.ref(buffer)))
                return buffer.empty_cache()
        for slot in free[: len(self._slots) + 1 - MOST_SLOTS]:
            self._slots.remove(slot)
        cache = super()._new_cache(rows, positions)
        if cache.buffer:
            own, size = cache.buffer, (rows, positions)
            self._slots.append(_Slot(size, own.values, own.capacity, own.replays, weakref.ref(own)))
        return cache

    def _run(
        self,
        ids: Ids,
        cache: KvCache,
        names: list[str],
        targets: Ids | None = None,
        logits: int = DEPLOYED,
    ) -> tuple[dict[str, Any], KvCache]:
        rows = np.atleast_2d(ids)
        usual = targets is None and logits == DEPLOYED and not self.overrides
        fixed = rows.shape[1] == 1 or cache.length == 0
        if self._replays and usual and fixed and cache.buffer:
            cache.buffer.check_current(cache)
            cache = self._with_capacity(cache, *rows.shape)
            try:
                return self._replay(rows, cache)
            except Exception as error:  # the provider may refuse to record what it runs
                self.stop_replaying(one_line(error, 200))
        return super()._run(ids, cache, names, targets, logits)

    def _replay(self, ids: Ids, cache: KvCache) -> tuple[dict[str, Any], KvCache]:
        buffer, tokens = cache.buffer, ids.shape[1]
        assert buffer is not None
        replay = buffer.replays.get(tokens)
        if replay is None or cache.length + tokens > replay.total:
            replay = self._record(buffer, ids, cache.length)
        replay.run(ids, cache.length)
        buffer.replays[tokens] = replay
        presents = {present_of(name): value for name, value in cache.values.items()}
        return {"logits": replay.logits, **presents}, buffer.advance(cache, tokens)

    def _record(self, buffer: CacheBuffer, ids: Ids, past: int) -> _Replay:
        import onnxruntime

        rows, tokens = ids.shape
        output = next(o for o in self._session.get_outputs() if o.name == "logits")
        positions = output.shape[1] if isinstance(output.shape[1], int) else tokens
        logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [rows, positions, self.vocabulary], DTYPES[output.type], *self._provider.place
        )
        total = min(buffer.capacity, past + tokens + HEADROOM) if tokens == 1 else tokens
        types: dict[str, Any] = {
            name: DTYPES[i.type] for name, i in self._inputs.items() if name not in self._past
        }
        replay = _Replay(self._session, types, total, logits)
        replay.bind(buffer.values, ids, self._provider.place)
        return replay


class _Slot(NamedTuple):
    """Memory of a cache, the replays recorded with it, and the buffer that uses it now.

    `size` are the rows and positions that it was made for.
    """

    size: tuple[int, int]
    values: dict[str, Any]
    capacity: int
    replays: dict[int, Any]
    owner: weakref.ref[CacheBuffer]


class _Replay:
    """A run of a number of new positions in one buffer: a whole prompt, or one decoded token.

    `types` are those of the inputs beside the cache, by name, `total` the length of the mask.
    """

    def __init__(self, session: Any, types: dict[str, Any], total: int, logits: Any) -> None:
        self._session, self._types, self.total, self.logits = session, types, total, logits
        self._options = _run_options(next(_numbers))
        self._inputs: dict[str, Any] = {}
        self._binding = session.io_binding()

    def bind(self, cache: dict[str, Any], ids: Ids, place: tuple[str, int]) -> None:
        """Bind the cache as past and present, and new tensors for the other inputs."""
        import onnxruntime

        make = onnxruntime.OrtValue.ortvalue_from_numpy
        self._inputs = {n: make(a, *place) for n, a in self._arrays(ids, 0).items()}
        for name, value in (self._inputs | cache).items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in cache.items():
            self._binding.bind_ortvalue_output(present_of(name), value)
        self._binding.bind_ortvalue_output("logits", self.logits)

    def run(self, ids: Ids, past: int) -> None:
        """Run ids of the bound shape behind `past` positions, synchronised."""
        for name, array in self._arrays(ids, past).items():
            self._inputs[name].update_inplace(array)
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()

    def _arrays(self, ids: Ids, past: int) -> dict[str, np.ndarray]:
        arrays = feeds(ids, past, self.total)
        return {n: a.astype(self._types[n]) for n, a in arrays.items() if n in self._types}


def _run_options(number: int) -> Any:
    """Return options of runs that are recorded under a number, or not at all."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options
