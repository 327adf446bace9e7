"""What a sweep leaves in the cache: graphs that it made go when none of its cells needs them, others stay.

Each is written down in the sweep's folder before it is made, so that a sweep that is cut off and goes on still
knows which are its own.
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
    """A graph: the model that it was made for, and its place in the cache."""

    model: str
    path: str


class SweepCleanup:
    """The graphs of one sweep in one cache, written down in the sweep's `private` folder."""

    def __init__(self, cache: Path, private: Path) -> None:
        self._cache, self._note = cache, private / LOG_NAME
        self._made = JsonlLog(self._note, CachedGraph)

    def noting(self, run: StepRunner, model: str) -> StepRunner:
        """Does steps as `run` does, and takes note of the graphs that they make."""

        def noted(step: Step, watch: StepCallback, timeout_s: float) -> Answer:
            if isinstance(step, Export | Quantize | Optimize):
                self._made.add(CachedGraph(model, _place(Path(step.out))))
            return run(step, watch, timeout_s)

        return noted

    def remove(self, model: str | None = None) -> None:
        """Removes the graphs of one model, or of all; what others use meanwhile stays."""
        places = {made.path for made in self._made.readable if model in (None, made.model)}
        if places:
            with contextlib.suppress(EdgecapError):
                cache_prune.remove(
                    self._cache,
                    [thing for thing in survey(self._cache).things if thing.path in places],
                )

    def end(self) -> None:
        """The sweep is done."""
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)


def _place(scratch: Path) -> str:
    """Where in the cache a graph will lie that is made in a scratch folder beside its place."""
    found = SCRATCH.fullmatch(scratch.name)
    return f"{scratch.parent.name}/{found['name'] if found else scratch.name}"
