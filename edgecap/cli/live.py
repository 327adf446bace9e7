"""Progress of a run: one bar with the time left on a terminal, plain lines elsewhere.

Elsewhere a line tells each new stage, and each half minute how much is done. Between events the bar
is redrawn each 5 s, so that this process sleeps while its children are measured.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgecap.pipeline.run_context import ProgressEvent, WorkPart
    from edgecap.spec import CellSpec

# What a stage does, in words.
WORDS = {
    "export": "exporting to ONNX",
    "compare with transformers": "comparing the export with transformers",
    "optimize": "fusing operators",
    "gzip, xz and zstd": "compressing the text with gzip, xz and zstd",
    "placement": "checking where operators run",
    "divergence": "comparing predictions with fp32",
    "compression": "scoring the text",
    "energy": "measuring energy",
    "memory": "measuring memory",
    "warm-up": "warming up for timing",
    "latency": "timing prefill and decode",
    "contexts": "timing other contexts",
    "throughput": "timing batches and streams",
}
# Typical shares of measuring a cell: what is done before a stage begins, and the stage itself.
STAGES = {
    "placement": (0.0, 0.05),
    "divergence": (0.05, 0.15),
    "compression": (0.2, 0.6),
    "energy": (0.8, 0.1),
    "memory": (0.9, 0.1),
}
# Stages of timing, by the part of the work that they belong to. Rounds count the warm-up.
TIMED = {"warm-up": "rounds", "latency": "rounds", "contexts": "sweeps", "throughput": "sweeps"}
# Stages that are a whole run.
WHOLE = {"compress", "decompress", "exact bytes"}
EVERY_S, REDRAW_S = 30.0, 5.0  # between two lines, and between two drawings of the bar
PACE_S = 20.0  # of work, until which the pace of a usual machine is believed
MOST = 0.9  # of a part that tells no progress, as far as time alone brings it


class TimeLeft:
    """Tell how much of a run is done, and how long the rest takes, from its events.

    The share never goes back while the announced work lasts.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begin((), 0.0)

    def _begin(self, work: tuple[WorkPart, ...], total_s: float) -> None:
        self._work, self._total_s, self._began = work, total_s, self._now()
        self._done_s = 0.0  # of `_total_s`
        self._silent: tuple[float, float, float] | None = None  # work before, own work, its begin
        self._timed_alone: list[CellSpec] = []
        self._timed_together_s = 0.0

    def add(self, event: ProgressEvent) -> None:
        """Record an event."""
        share = min(1.0, event.done / max(event.total, 1))
        if event.work:
            self._begin(event.work, sum(part.seconds for part in event.work))
        elif event.stage in WHOLE:
            self._total_s = 1.0
            self._reach(share)
        elif event.stage in TIMED:
            self._reach(self._timed(event, share))
        elif event.cell and event.stage in STAGES:
            before, own = STAGES[event.stage]
            self._reach(self._at(event.cell, "measure", before + own * share))
        elif (event.cell, "build" if event.cell else "set up") in self._places():
            kind = "build" if event.cell else "set up"
            before, after = (self._at(event.cell, kind, x) for x in (0.0, 1.0))
            if self._silent is None or self._silent[0] != before:
                self._silent = before, after - before, self._now()

    def share(self) -> float | None:
        """Return the share that is done, below 1; None if nothing tells."""
        if self._silent:
            before, own, since = self._silent
            passed_s = min(MOST * own, self._now() - since)
            self._done_s = max(self._done_s, before + passed_s)
        return min(0.99, self._done_s / self._total_s) if self._total_s else None

    def text(self) -> str:
        """Return the share and the time left in words; empty if nothing tells."""
        share, elapsed_s = self.share(), self._now() - self._began
        if share is None or (not self._work and (share < 0.02 or elapsed_s < 3)):
            return ""
        believed_s = PACE_S if self._work else 0.0
        pace = (elapsed_s + believed_s) / (self._done_s + believed_s)
        return f"{share:.0%} done, {left_text((self._total_s - self._done_s) * pace)}"

    def _reach(self, done_s: float) -> None:
        self._silent = None
        self._done_s = min(self._total_s, max(self._done_s, done_s))

    def _places(self) -> dict[tuple[CellSpec | None, str], int]:
        return {(part.cell, part.kind): n for n, part in enumerate(self._work)}

    def _at(self, cell: CellSpec | None, kind: str, share: float) -> float:
        """Return the seconds of work up to a share of a part; 0 if the part was not announced."""
        place = self._places().get((cell, kind))
        if place is None:
            return 0.0
        before = sum(part.seconds for part in self._work[:place])
        return before + share * self._work[place].seconds

    def _timed(self, event: ProgressEvent, share: float) -> float:
        """Return the seconds of work up to an event of timing.

        All cells are timed together, or one by one: from the start, or after that failed.
        """
        own = {
            kind: sum(p.seconds for p in self._work if p.kind == kind) for kind in TIMED.values()
        }
        whole = own["rounds"] + own["sweeps"]
        rounds = TIMED[event.stage] == "rounds"
        done = share * own["rounds"] if rounds else own["rounds"] + share * own["sweeps"]
        if event.cell is None:
            self._timed_together_s = max(self._timed_together_s, done)
        else:
            if event.cell not in self._timed_alone:
                self._timed_alone.append(event.cell)
            place = self._timed_alone.index(event.cell)
            cells = max(sum(p.kind == "measure" for p in self._work), len(self._timed_alone))
            rest = (whole - self._timed_together_s) / cells
            done = self._timed_together_s + rest * (place + done / (whole or 1.0))
        return self._total_s - whole + done


class Live:
    """Show the progress events of a run; a context manager to call with each event."""

    def __init__(self) -> None:
        self._left, self._ended = TimeLeft(), threading.Event()
        self._last_text, self._drawn_at = "preparing", 0.0
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task("preparing", total=1.0, left="") if self._bar else None

    def __enter__(self) -> Live:
        if self._bar:
            self._bar.start()
        else:
            _print(self._last_text)
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
        self._left.add(event)
        stage = WORDS.get(event.stage, event.stage)
        text = f"{event.cell}: {stage}" if event.cell else stage
        is_new, self._last_text = text != self._last_text, text
        if self._bar is None:
            if is_new:
                _print(text)
        elif is_new or time.monotonic() - self._drawn_at > 0.5:
            self._draw()

    def _tell_left(self) -> None:
        while not self._ended.wait(REDRAW_S if self._bar else EVERY_S):
            if self._bar:
                self._draw()
            else:
                left = self._left.text()
                _print(f"{self._last_text}{left and f' ({left})'}")

    def _draw(self) -> None:
        assert self._bar is not None and self._task is not None
        self._drawn_at = time.monotonic()
        share = self._left.share() or 0.0
        left = self._left.text()
        self._bar.update(
            self._task, description=self._last_text, completed=share, left=left, refresh=True
        )


def left_text(left_s: float) -> str:
    """Return in words about how long a run still takes: never nothing."""
    if left_s < 90:
        return f"about {max(10, 10 * round(left_s / 10))} s left"
    return f"about {round(left_s / 60)} min left"


def _print(words: str) -> None:
    print(f"edgecap: {words}", file=sys.stderr, flush=True)  # noqa: T201


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
