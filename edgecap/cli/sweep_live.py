"""How far a sweep is: what runs where, what failed, the time left on a terminal; a line a cell elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecap.estimates import Estimated
    from edgecap.plan import Planned
    from edgecap.sweep import News

_EVERY_S = 0.5
_MOST_LINES = 12  # of running cells


class SweepLive:
    """Shows the news of a sweep; a context manager, to be called with each piece of news."""

    def __init__(self, left: Sequence[Planned], times: Sequence[Estimated], total: int) -> None:
        known = [t.seconds for t in times if t.seconds is not None]
        usual = sum(known) / len(known) if known else None
        self._left = {cell.key: time.seconds or usual for cell, time in zip(left, times, strict=True)}
        self._left_at_first = len(left)
        self._total, self._done, self._wrong = total, total - len(left), 0
        self._running: dict[str, tuple[str, str, float]] = {}  # key -> where and what, stage, since
        self._began, self._drawn = time.monotonic(), 0.0
        self._live = _live() if sys.stderr.isatty() else None
        self._said = ""

    def __enter__(self) -> SweepLive:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update("", refresh=True)
            self._live.stop()

    def __call__(self, news: News) -> None:
        """Takes note, and draws or prints if it is time."""
        if news.cell is not None and news.kind in ("begun", "stage", "waits"):
            where = f"{news.device}: {news.cell}" if news.device else str(news.cell)
            had = self._running.get(news.cell.key)
            self._running[news.cell.key] = (
                where,
                news.words,
                had[2] if had and news.kind != "begun" else time.monotonic(),
            )
        elif news.cell is not None:
            self._running.pop(news.cell.key, None)
        if news.row is not None:
            self._finished(news)
        elif news.kind in ("waits", "again") or (news.kind == "begun" and not self._live):
            self._say(_words(news))
        self._draw()

    def _finished(self, news: News) -> None:
        row = news.row
        assert row is not None
        self._done += 1
        self._wrong += row.wrong
        self._left.pop(row.key, None)
        from edgecap.report.planned import duration, failure_line

        place = f"[{self._done}/{self._total}]"
        if row.failure:
            self._say(f"{place} {'failed' if row.wrong else 'left out'}: {failure_line(row)}")
        elif not self._live:
            where = f" on {row.device}" if row.device else ""
            self._say(f"{place} {row.label}{where}, {duration(row.seconds)}")

    def _say(self, words: str) -> None:
        from edgecap.report.columns import printable

        if words == self._said:
            return
        self._said = words
        if self._live:
            self._live.console.print(printable(words), markup=False, highlight=False)
        else:
            print(f"edgecap: {printable(words)}", file=sys.stderr, flush=True)  # noqa: T201

    # --- on a terminal ------------------------------------------------------------------------

    def _draw(self) -> None:
        now = time.monotonic()
        if self._live and now - self._drawn > _EVERY_S:
            self._drawn = now
            self._live.update(self._picture(now), refresh=True)

    def _picture(self, now: float) -> Any:
        from rich.text import Text

        from edgecap.report.columns import printable
        from edgecap.report.planned import duration

        lines = [self._head(now)]
        for where, stage, since in list(self._running.values())[:_MOST_LINES]:
            lines.append(
                f"  {where}: {stage}  {duration(now - since)}" if stage else f"  {where}  {duration(now - since)}"
            )
        if len(self._running) > _MOST_LINES:
            lines.append(f"  and {len(self._running) - _MOST_LINES} more")
        return Text("\n".join(map(printable, lines)))

    def _head(self, now: float) -> str:
        from edgecap.report.planned import duration

        filled = round(24 * self._done / max(self._total, 1))
        words = [f"{self._done} of {self._total} finished", f"{len(self._running)} running"]
        words += [f"{self._wrong} failed"] if self._wrong else []
        words.append(duration(now - self._began))
        left = self._seconds_left()
        return (
            f"{'━' * filled}{'─' * (24 - filled)} {', '.join(words)}{f', about {duration(left)} left' if left else ''}"
        )

    def _seconds_left(self) -> float | None:
        """As long as cells take that were measured before or in this run, shared by those that run now."""
        told = [s for s in self._left.values() if s is not None]
        if told:
            return sum(told) * len(self._left) / len(told) / max(1, len(self._running))
        done_now = self._left_at_first - len(self._left)
        elapsed = time.monotonic() - self._began
        return elapsed / done_now * len(self._left) if done_now else None


def _words(news: News) -> str:
    where = f" on {news.device}" if news.device else ""
    if news.kind == "begun":
        return f"begins: {news.cell}{where}"
    return f"{news.cell}{where}: {news.words}" if news.cell is not None else news.words


def _live() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), auto_refresh=False, transient=True)
