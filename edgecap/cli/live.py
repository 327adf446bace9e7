"""How far a run is: one bar with an estimate on a terminal, plain lines elsewhere.

Drawn only when something is heard, twice a second at most, so that this process sleeps while its
children are measured.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgecap.pipeline.run_context import ProgressEvent
    from edgecap.spec import CellSpec

# Usual shares of time: what is done in front of a stage, and the stage's own share; of a cell, ...
STAGES = {
    "export": (0.0, 0.0),
    "optimize": (0.0, 0.0),
    "placement": (0.02, 0.03),
    "divergence": (0.05, 0.10),
    "compression": (0.15, 0.73),
    "energy": (0.88, 0.06),
    "memory": (0.94, 0.06),
}
# ... of the timing of all cells, which comes behind the rest and takes a share of the whole run, ...
TIMED = {
    "warm-up": (0.0, 0.05),
    "latency": (0.05, 0.75),
    "contexts": (0.80, 0.10),
    "throughput": (0.90, 0.10),
}
TIMING = 0.4
# ... and of work that is one stage.
WHOLE = {"compress", "decompress", "exact bytes"}


class Live:
    """Shows the events of a run; a context manager, to be called with each event."""

    def __init__(self) -> None:
        self._cells, self._seen, self._drawn = 1, list["CellSpec"](), 0.0
        self._said = ""
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task("", total=1.0) if self._bar else None

    def __enter__(self) -> Live:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Takes note of an event, and draws or prints if it is time."""
        if event.cell is None and event.stage not in TIMED and event.stage not in WHOLE:
            self._cells = max(event.total, 1)
        elif event.cell and event.cell not in self._seen:
            self._seen.append(event.cell)
        words = f"{event.cell}: {event.stage}" if event.cell else event.stage
        if self._bar is None:
            self._print(words)
        elif words != self._said or time.monotonic() - self._drawn > 0.5:
            self._drawn = time.monotonic()
            assert self._task is not None
            self._bar.update(
                self._task, description=words, completed=self._share(event), refresh=True
            )
        self._said = words

    def _print(self, words: str) -> None:
        if words != self._said:
            print(f"edgecap: {words}", file=sys.stderr, flush=True)  # noqa: T201

    def _share(self, event: ProgressEvent) -> float:
        """The share of the whole run that lies behind this event."""
        done = min(1.0, event.done / max(event.total, 1))
        if event.stage in WHOLE:
            return done
        timed = event.stage in TIMED
        before, own = (TIMED if timed else STAGES).get(event.stage, (0.0, 0.02))
        place, of = (self._seen.index(event.cell), self._cells) if event.cell else (0, 1)
        share = (place + before + own * done) / of
        return 1 - TIMING + TIMING * share if timed else (1 - TIMING) * share


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
