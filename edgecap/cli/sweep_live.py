"""How far a sweep is: what runs where, what failed, the time left on a terminal; a line for each cell elsewhere.

Drawn only when something is heard, so that this process sleeps while its children are measured.
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
_MOST_LINES = 12  # of running cells
_BAR = 12  # characters


class _Running(NamedTuple):
    """A cell that is measured: where and what, its stage, and since when, by two clocks."""

    name: str
    stage: str
    since: float
    clock: str


class SweepLive:
    """Shows the news of a sweep; a context manager, to be called with each piece of news."""

    def __init__(self, expect: Callable[[Sequence[PlannedCell]], Sequence[TimeEstimate]]) -> None:
        """`expect` gives the times of the cells that are left, once they are known."""
        from edgecap.sweep.estimates import RemainingTime

        self._expect, self._left = expect, RemainingTime((), ())
        self._total = self._done = self._wrong = 0
        self._running: dict[str, _Running] = {}
        self._drawn = 0.0
        self._live = _live() if sys.stderr.isatty() else None
        self._said = ""

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

    def __call__(self, news: SweepEvent) -> None:
        """Takes note, and draws or prints if it is time."""
        if news.kind == "planned":
            self._begin(news)
        elif news.row is not None:
            self._finished(news)
        elif news.kind in ("waits", "again"):
            self._say(f"{news.cell}{_on(news.device)}: {news.words}" if news.cell else news.words)
        elif news.kind == "begun" and not self._live:
            self._say(
                f"begins: {news.cell}{f', {news.words}' if news.words else ''}{_on(news.device)}"
            )
        if self._live:
            self._draw(at_once=self._note(news))

    def _begin(self, news: SweepEvent) -> None:
        from edgecap.sweep.estimates import RemainingTime

        self._total, self._done = len(news.cells), len(news.cells) - len(news.left)
        self._left = RemainingTime(news.left, self._expect(news.left))
        if self._done and news.left:
            self._say(f"{self._done} of {self._total} cells are finished already")
        elif self._done:
            self._say("all cells are finished already")

    def _finished(self, news: SweepEvent) -> None:
        from edgecap.sweep.summary import duration, failure_line

        row = news.row
        assert row is not None
        self._done += 1
        self._wrong += row.wrong
        self._left.finished(row)
        place = f"[{self._done}/{self._total}]"
        if row.failure:
            self._say(f"{place} {'failed' if row.wrong else 'left out'}: {failure_line(row)}")
        elif not self._live:
            self._say(f"{place} {row.label}{_on(row.device)}, {duration(row.seconds)}")

    def _say(self, words: str) -> None:
        """A line that stays; not twice the same."""
        from edgecap.names import printable

        line = printable(words)
        if line == self._said:
            return
        self._said = line
        if self._live:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            print(f"edgecap: {line}", file=sys.stderr, flush=True)  # noqa: T201

    # --- on a terminal ------------------------------------------------------------------------

    def _note(self, news: SweepEvent) -> bool:
        """Keeps what runs; whether that is something else than before."""
        if news.cell is None:
            return True
        had = self._running.get(news.cell.key)
        if news.kind in ("finished", "again"):
            self._running.pop(news.cell.key, None)
            return True
        since, clock = (
            (had.since, had.clock)
            if had and news.kind != "begun"
            else (time.monotonic(), _clock(0))
        )
        name = f"{news.device}: {news.cell}" if news.device else str(news.cell)
        stage = "waits for room on the disk" if news.kind == "waits" else news.words
        self._running[news.cell.key] = _Running(name, stage, since, clock)
        return had is None or had.stage != stage

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
            words.append("time left not known yet" if left is None else "nearly done")
        return f"{'━' * filled}{'─' * (_BAR - filled)} {', '.join(words)}"


def _clock(seconds: float) -> str:
    """The time of day so far from now: unlike what went by, it stays right where nothing is drawn for long."""
    then = time.time() + seconds
    return time.strftime("%H:%M" if seconds < 43_200 else "%a %H:%M", time.localtime(then))


def _on(device: str) -> str:
    return f" on {device}" if device else ""


def _live() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), auto_refresh=False, transient=True)
