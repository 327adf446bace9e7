"""Cleanup of the cache: remove the graphs that a sweep built once no cell needs them.

Each graph is logged in the sweep's folder before it is built, so that a resumed sweep still knows
its own graphs. Other graphs stay.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from edgecap.errors import EdgecapError
from edgecap.pipeline.run_context import StepRunner
from edgecap.pipeline.worker import Answer, Export, Optimize, Quantize, Step, StepCallback
from edgecap.storage import cache_prune
from edgecap.storage.cache import SCRATCH, survey
from edgecap.storage.jsonl_log import JsonlLog

LOG_NAME = "made.jsonl"


class CachedGraph(msgspec.Struct, frozen=True):
    """Graph that a sweep built: its model, and its path in the cache."""

    model: str
    path: str


class SweepCleanup:
    """Log of the graphs that one sweep builds in a cache; the log is in the `private` folder."""

    def __init__(self, cache: Path, private: Path) -> None:
        self._cache, self._note = cache, private / LOG_NAME
        self._made = JsonlLog(self._note, CachedGraph)

    def recording(self, run: StepRunner, model: str) -> StepRunner:
        """Wrap `run` so that the graphs it builds are logged."""

        def run_and_record(step: Step, watch: StepCallback, timeout_s: float) -> Answer:
            if isinstance(step, Export | Quantize | Optimize):
                self._made.add(CachedGraph(model, _place(Path(step.out))))
            return run(step, watch, timeout_s)

        return run_and_record

    def remove(self, model: str | None = None) -> None:
        """Remove the graphs of one model, or of all; graphs in use by other processes stay."""
        places = {made.path for made in self._made.readable if model in (None, made.model)}
        if places:
            with contextlib.suppress(EdgecapError):
                cache_prune.remove(
                    self._cache,
                    [thing for thing in survey(self._cache).things if thing.path in places],
                )

    def end(self) -> None:
        """Remove the log: the sweep is finished."""
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)


def _place(scratch: Path) -> str:
    """Return the final path in the cache of a graph that is built in a scratch folder."""
    match = SCRATCH.fullmatch(scratch.name)
    return f"{scratch.parent.name}/{match['name'] if match else scratch.name}"
