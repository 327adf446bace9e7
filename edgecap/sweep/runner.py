"""Measures the cells of a plan, one record each, and loses none: what is finished is kept, what failed is a row.

`sweep` is the table of contents. Who measures is a crew: this machine (`LocalBackend`), or the devices of a
fleet (`fleet.dispatch`). A crew yields what it finished; while the disk takes no record it is not asked for more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from edgecap.errors import DiskFull, EdgecapError, Interrupted, UsageError
from edgecap.pipeline.profile import profile
from edgecap.pipeline.run_context import KnownScores, ProgressCallback, StepRunner
from edgecap.pipeline.worker import in_child
from edgecap.record import Failure, Profile
from edgecap.spec import Spec
from edgecap.storage.files import Paths, free_bytes
from edgecap.sweep.cleanup import SweepCleanup
from edgecap.sweep.plan import EVERY, PlannedCell
from edgecap.sweep.state import Finished, StateRow, SweepState, open_state

FLEET = "fleet"  # the stage of a failure that is the fleet's: nothing was found out about the cell
DISK_PATIENCE_S, DISK_PAUSE_S = 600.0, 5.0
FULL_BELOW_BYTES = (
    100_000_000  # bytes; a disk with more than that free was too small for one cell, not full
)


class SweepEvent(NamedTuple):
    """What happened; `words` are for people.

    `planned` (of the `cells`, those that are `left`), and then of a cell: `begun`, `stage`, `again` (it is tried once
    more), `waits`, `finished` with its `row`.
    """

    kind: str
    cell: PlannedCell | None
    words: str = ""
    device: str = ""
    row: StateRow | None = None
    cells: Sequence[PlannedCell] = ()
    left: Sequence[PlannedCell] = ()


SweepCallback = Callable[[SweepEvent], None]


class Backend(Protocol):
    """Who measures."""

    def devices(self, cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
        """The cells with "every" device unfolded, as the crew stands now."""

    def work(
        self, cells: Sequence[PlannedCell], ledger: SweepState, watch: SweepCallback
    ) -> Generator[Finished, None, None]:
        """Each cell, as it is finished, in any order."""


class SweepOptions(NamedTuple):
    """What of the plan is to be done: `resume` goes on in a folder that holds a part, `retry` does failed cells again."""

    resume: bool = False
    retry: bool = False
    disk_patience_s: float = DISK_PATIENCE_S


DEFAULT_OPTIONS = SweepOptions()


def sweep(
    cells: Sequence[PlannedCell],
    folder: Path,
    crew: Backend,
    asked: SweepOptions = DEFAULT_OPTIONS,
    watch: SweepCallback = lambda news: None,
) -> list[StateRow]:
    """Does what is missing and returns the rows of the plan's cells, in its order.

    Raises UsageError where the folder holds a part of the plan and `resume` was not asked for, or is in use;
    DiskFull where it takes no record for `disk_patience_s`; Interrupted on Ctrl-C. Each leaves what is finished.
    """
    wanted = list({cell.key: cell for cell in crew.devices(cells)}.values())
    with open_state(folder) as ledger:
        ledger.adopt(wanted)
        left = cells_to_do(wanted, ledger.rows, asked.retry)
        _check_part(wanted, left, asked, folder)
        watch(SweepEvent("planned", None, cells=wanted, left=left))
        try:
            with contextlib.closing(crew.work(left, ledger, watch)) as work:
                for finished in work:
                    row = _kept(ledger, finished, asked.disk_patience_s, watch)
                    watch(SweepEvent("finished", finished.cell, device=finished.device, row=row))
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"interrupted: {_what_is_kept(wanted, ledger)}; --resume goes on"
            ) from None
        except DiskFull as error:
            raise DiskFull(
                f"{error}: {_what_is_kept(wanted, ledger)}; make room, and --resume goes on"
            ) from error
        rows = [ledger.rows[cell.key] for cell in wanted if cell.key in ledger.rows]
        if len(rows) == len(wanted):
            ledger.done()
        return rows


def cells_to_do(
    cells: Sequence[PlannedCell], rows: dict[str, StateRow], retry: bool = False
) -> list[PlannedCell]:
    """The cells without a row, and those that no device ran; with `retry`, those that went wrong too."""
    return [
        c
        for c in cells
        if c.key not in rows or not_run(rows[c.key]) or (retry and rows[c.key].wrong)
    ]


def not_run(row: StateRow) -> bool:
    """Whether nothing was found out about a cell: the fleet failed, not the cell."""
    return row.failure is not None and row.failure.stage == FLEET


def _check_part(
    wanted: Sequence[PlannedCell], left: list[PlannedCell], asked: SweepOptions, folder: Path
) -> None:
    if left and len(left) < len(wanted) and not (asked.resume or asked.retry):
        raise UsageError(
            f"{folder} holds {len(wanted) - len(left)} of the {len(wanted)} cells; "
            "--resume does the others, another -o FOLDER begins anew"
        )


def _what_is_kept(wanted: Sequence[PlannedCell], ledger: SweepState) -> str:
    return f"{sum(cell.key in ledger.rows for cell in wanted)} of {len(wanted)} cells are in {ledger.folder}"


def _kept(
    ledger: SweepState, finished: Finished, patience_s: float, watch: SweepCallback
) -> StateRow:
    """Writes it, once there is room: what was measured is worth more than time."""
    return _patiently(lambda: ledger.keep(finished), finished.cell, patience_s, watch)


Outcome = TypeVar("Outcome")


def _patiently(
    do: Callable[[], Outcome], cell: PlannedCell, patience_s: float, watch: SweepCallback
) -> Outcome:
    """Does it, again and again while the disk is full. Raises DiskFull where that lasts for longer than `patience_s`."""
    full_since: float | None = None
    while True:
        try:
            return do()
        except DiskFull as error:
            full_since = time.monotonic() if full_since is None else full_since
            if time.monotonic() - full_since >= patience_s:
                raise
            watch(SweepEvent("waits", cell, f"{error}; waiting for room, nothing is lost"))
            time.sleep(min(DISK_PAUSE_S, patience_s / 4))


# --- on this machine --------------------------------------------------------------------------


class LocalBackend:
    """The machine that it runs on, one cell after another."""

    def __init__(
        self,
        home: Paths,
        run: StepRunner = in_child,
        keep_exports: bool = True,
        disk_patience_s: float = DISK_PATIENCE_S,
    ) -> None:
        self._home, self._run = home, run
        self._keep_exports, self._disk_patience_s = keep_exports, disk_patience_s

    def devices(self, cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
        """Raises UsageError where a cell belongs to a device of a fleet."""
        pinned = next((cell.device for cell in cells if cell.device not in ("", EVERY)), None)
        if pinned is not None:
            raise UsageError(f"the plan names the device '{pinned}': give the fleet's --scheduler")
        return cells

    def work(
        self, cells: Sequence[PlannedCell], ledger: SweepState, watch: SweepCallback
    ) -> Generator[Finished, None, None]:
        """Each cell in turn. Raises DiskFull where the cache's disk stays full."""
        leavings = SweepCleanup(self._home.cache, ledger.private)
        last = {cell.spec.model: cell for cell in cells}
        for cell in cells:
            watch(SweepEvent("begun", cell))
            began = time.monotonic()
            outcome = self._outcome(cell, ledger, leavings, watch)
            yield Finished(cell=cell, outcome=outcome, seconds=time.monotonic() - began)
            if last[cell.spec.model] is cell and not self._keep_exports:
                leavings.remove(cell.spec.model)
        if not self._keep_exports:
            leavings.remove()  # of models that were done with when an earlier process was ended
        leavings.end()

    def _outcome(
        self, cell: PlannedCell, ledger: SweepState, leavings: SweepCleanup, watch: SweepCallback
    ) -> Profile | Failure:
        """What came of a cell; a full disk is waited for, one that is too small for this cell is its failure."""
        home = Paths(cache=self._home.cache, profiles=ledger.scratch)
        run = leavings.noting(self._run, cell.spec.model)

        def tried() -> Profile | Failure:
            try:
                return outcome_of(
                    cell.spec,
                    home,
                    lambda event: watch(SweepEvent("stage", cell, event.stage)),
                    run,
                    KnownScores(folder=ledger.scores),
                )
            except DiskFull as error:
                if min(free_bytes(home.cache), free_bytes(ledger.folder)) > FULL_BELOW_BYTES:
                    return failure_of("disk", error)
                raise

        return _patiently(tried, cell, self._disk_patience_s, watch)


def outcome_of(
    spec: Spec, home: Paths, notice: ProgressCallback, run: StepRunner, scores: KnownScores
) -> Profile | Failure:
    """The record of a run, or why there is none. Raises DiskFull, and Interrupted on Ctrl-C."""
    try:
        return profile(spec, home, notice, run, scores)
    except (DiskFull, Interrupted):
        raise
    except EdgecapError as error:
        return failure_of("refused", error)
    except Exception as error:  # a mistake of ours, or of a library, costs a cell, not the night
        return failure_of("edgecap", error)


def failure_of(stage: str, error: Exception) -> Failure:
    """A failure in the words of an error."""
    return Failure(
        stage=stage,
        error=type(error).__name__,
        message=" ".join(str(error).split())[:500] or "no message",
    )
