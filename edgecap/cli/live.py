"""Progress of a run: one bar with the time left on a terminal, plain lines elsewhere.

The bar is redrawn only on events, at most twice a second, so that this process sleeps while its
children are measured. Elsewhere a line tells each new stage, and each half minute what is left.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgecap.pipeline.run_context import ProgressEvent
    from edgecap.spec import CellSpec

# Typical shares of time of a cell: what is done before a stage begins, and the stage itself.
STAGES = {
    "export": (0.0, 0.0),
    "optimize": (0.0, 0.0),
    "placement": (0.02, 0.03),
    "divergence": (0.05, 0.10),
    "compression": (0.15, 0.73),
    "energy": (0.88, 0.06),
    "memory": (0.94, 0.06),
}
# The same of the timing of all cells, which comes last and takes the share TIMING of the run.
TIMED = {
    "warm-up": (0.0, 0.25),
    "latency": (0.25, 0.75),
    "contexts": (0.80, 0.10),
    "throughput": (0.90, 0.10),
}
TIMING = 0.3
# Stages that are a whole run.
WHOLE = {"compress", "decompress", "exact bytes"}
EVERY_S = 30.0  # between two lines that tell what is left


class Live:
    """Show the progress events of a run; a context manager to call with each event."""

    def __init__(self) -> None:
        self._cells, self._cells_begun, self._drawn_at = 1, list["CellSpec"](), 0.0
        self._began, self._share = time.monotonic(), 0.0
        self._last_text, self._ended = "", threading.Event()
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task("", total=1.0, left="") if self._bar else None

    def __enter__(self) -> Live:
        if self._bar:
            self._bar.start()
        else:
            threading.Thread(target=self._tell_left, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Record an event, and redraw or print if it is time."""
        if event.cell is None and event.stage not in TIMED and event.stage not in WHOLE:
            self._cells = max(event.total, 1)
            self._cells_begun.clear()
            self._began = time.monotonic()
        elif event.cell and event.cell not in self._cells_begun:
            self._cells_begun.append(event.cell)
        self._share = self._share_at(event)
        text = f"{event.cell}: {event.stage}" if event.cell else event.stage
        if self._bar is None:
            if text != self._last_text:
                _print(text)
        elif text != self._last_text or time.monotonic() - self._drawn_at > 0.5:
            self._drawn_at = time.monotonic()
            assert self._task is not None
            self._bar.update(
                self._task,
                description=text,
                completed=self._share,
                left=left_text(self._share, self._drawn_at - self._began),
                refresh=True,
            )
        self._last_text = text

    def _tell_left(self) -> None:
        while not self._ended.wait(EVERY_S):
            left = left_text(self._share, time.monotonic() - self._began)
            _print(f"{self._last_text}, {self._share:.0%} done{left and ', '}{left}")

    def _share_at(self, event: ProgressEvent) -> float:
        """Return the share of the whole run that is done at this event."""
        done = min(1.0, event.done / max(event.total, 1))
        if event.stage in WHOLE:
            return done
        timed = event.stage in TIMED
        before, own = (TIMED if timed else STAGES).get(event.stage, (0.0, 0.02))
        place, of = (self._cells_begun.index(event.cell), self._cells) if event.cell else (0, 1)
        share = (place + before + own * done) / of
        return 1 - TIMING + TIMING * share if timed else (1 - TIMING) * share


def left_text(share: float, elapsed_s: float) -> str:
    """Return about how long a run still takes, after a share of it; empty where nothing tells."""
    if share < 0.02 or elapsed_s < 3:
        return ""
    left_s = elapsed_s * (1 - share) / share
    if left_s < 90:
        return f"about {max(10, 10 * round(left_s / 10))} s left"
    return f"about {round(left_s / 60)} min left"


def _print(words: str) -> None:
    print(f"edgecap: {words}", file=sys.stderr, flush=True)  # noqa: T201


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
