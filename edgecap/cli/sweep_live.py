"""Progress of a sweep: running cells, failures and time left on a terminal; else one line per cell.

Redrawn only on events, so that this process sleeps while its children are measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from edgecap.sweep.estimates import TimeEstimate
    from edgecap.sweep.plan import PlannedCell
    from edgecap.sweep.runner import SweepEvent

_EVERY_S = 0.5
_MOST_LINES = 12  # running cells that are listed
_BAR = 12  # characters


class _Running(NamedTuple):
    """Running cell: its name, its stage, its start in monotonic seconds and as a time of day."""

    name: str
    stage: str
    since: float
    clock: str


class SweepLive:
    """Display of a sweep: a context manager, called with each event."""

    def __init__(self, expect: Callable[[Sequence[PlannedCell]], Sequence[TimeEstimate]]) -> None:
        """Use `expect` to estimate the times of the remaining cells."""
        from edgecap.sweep.estimates import RemainingTime

        self._expect, self._left = expect, RemainingTime((), ())
        self._total = self._done = self._wrong = 0
        self._running: dict[str, _Running] = {}
        self._drawn = 0.0
        self._live = _live() if sys.stderr.isatty() else None
        self._last_line = ""

    def __enter__(self) -> SweepLive:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.update("", refresh=True)
            self._live.stop()

    def __call__(self, event: SweepEvent) -> None:
        """Record an event, and draw or print it."""
        if event.kind == "planned":
            self._begin(event)
        elif event.row is not None:
            self._finished(event)
        elif event.kind in ("waits", "again"):
            self._print(
                f"{event.cell}{_on(event.device)}: {event.words}" if event.cell else event.words
            )
        elif event.kind == "begun" and not self._live:
            words = f", {event.words}" if event.words else ""
            self._print(f"started: {event.cell}{words}{_on(event.device)}")
        if self._live:
            self._draw(at_once=self._note(event))

    def _begin(self, event: SweepEvent) -> None:
        from edgecap.sweep.estimates import RemainingTime

        self._total, self._done = len(event.cells), len(event.cells) - len(event.left)
        self._left = RemainingTime(event.left, self._expect(event.left))
        if self._done and event.left:
            self._print(f"{self._done} of {self._total} cells were finished before")
        elif self._done:
            self._print("all cells were finished before")

    def _finished(self, event: SweepEvent) -> None:
        from edgecap.sweep.summary import duration, failure_line

        row = event.row
        assert row is not None
        self._done += 1
        self._wrong += row.wrong
        self._left.finished(row)
        place = f"[{self._done}/{self._total}]"
        if row.failure:
            self._print(f"{place} {'failed' if row.wrong else 'left out'}: {failure_line(row)}")
        elif not self._live:
            self._print(f"{place} {row.label}{_on(row.device)}, {duration(row.seconds)}")

    def _print(self, words: str) -> None:
        """Print a line that stays, unless it repeats the last one."""
        from edgecap.names import printable

        line = printable(words)
        if line == self._last_line:
            return
        self._last_line = line
        if self._live:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            print(f"edgecap: {line}", file=sys.stderr, flush=True)  # noqa: T201

    # --- on a terminal ------------------------------------------------------------------------

    def _note(self, event: SweepEvent) -> bool:
        """Update the running cells; return True if the display changes."""
        if event.cell is None:
            return True
        previous = self._running.get(event.cell.key)
        if event.kind in ("finished", "again"):
            self._running.pop(event.cell.key, None)
            return True
        since, clock = (
            (previous.since, previous.clock)
            if previous and event.kind != "begun"
            else (time.monotonic(), _clock(0))
        )
        name = f"{event.device}: {event.cell}" if event.device else str(event.cell)
        stage = "waiting for disk space" if event.kind == "waits" else event.words
        self._running[event.cell.key] = _Running(name, stage, since, clock)
        return previous is None or previous.stage != stage

    def _draw(self, at_once: bool) -> None:
        now = time.monotonic()
        if self._live and (at_once or now - self._drawn > _EVERY_S):
            self._drawn = now
            self._live.update(self._picture(now), refresh=True)

    def _picture(self, now: float) -> Any:
        from rich.text import Text

        from edgecap.names import printable

        running = list(self._running.values())
        shown = running[:_MOST_LINES]
        stages = max([len(one.stage) for one in shown], default=0)
        lines = [
            self._head(now),
            *(f"  since {one.clock}  {one.stage:<{stages}}  {one.name}" for one in shown),
        ]
        if len(running) > _MOST_LINES:
            lines.append(f"  and {len(running) - _MOST_LINES} more")
        return Text("\n".join(map(printable, lines)), no_wrap=True, overflow="ellipsis")

    def _head(self, now: float) -> str:
        from edgecap.sweep.summary import duration

        filled = round(_BAR * self._done / max(self._total, 1))
        left = self._left.seconds({key: now - one.since for key, one in self._running.items()})
        words = [f"{self._done} of {self._total} finished"]
        words += [f"{self._wrong} failed"] if self._wrong else []
        words += [f"{len(self._running)} running"] if len(self._running) > 1 else []
        if left:
            words.append(f"about {duration(left)} left, until {_clock(left)}")
        elif self._done < self._total:
            words.append("time left unknown" if left is None else "nearly done")
        return f"{'━' * filled}{'─' * (_BAR - filled)} {', '.join(words)}"


def _clock(seconds: float) -> str:
    """Return the time of day in `seconds` from now; unlike elapsed time it needs no redrawing."""
    then = time.time() + seconds
    return time.strftime("%H:%M" if seconds < 43_200 else "%a %H:%M", time.localtime(then))


def _on(device: str) -> str:
    return f" on {device}" if device else ""


def _live() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), auto_refresh=False, transient=True)
