"""Run a sweep: measure the cells of a plan and write one record per cell. Read `sweep` first.

A backend measures: this machine (`LocalBackend`) or the devices of a fleet (`fleet.dispatch`). It
yields each finished cell; a failed cell is a row with its reason. While the disk is full, no
further cell is requested.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from edgecap.errors import DiskFull, EdgecapError, Interrupted, UsageError
from edgecap.names import one_line
from edgecap.pipeline.profile import profile
from edgecap.pipeline.run_context import KnownScores, ProgressCallback, StepRunner
from edgecap.pipeline.worker import in_child
from edgecap.record import Failure, Profile
from edgecap.spec import Spec
from edgecap.storage.files import Paths, free_bytes
from edgecap.sweep.cleanup import SweepCleanup
from edgecap.sweep.plan import EVERY, PlannedCell
from edgecap.sweep.state import Finished, StateRow, SweepState, open_state

FLEET = "fleet"  # stage of a failure of the fleet, not of the cell
DISK_PATIENCE_S, DISK_PAUSE_S = 600.0, 5.0
# With more free space than this, the disk is not full but too small for the cell.
FULL_BELOW_BYTES = 100_000_000


class SweepEvent(NamedTuple):
    """Event of a sweep; `words` are for people.

    `kind` is "planned" (with all `cells` and those that are `left`), or for one cell: "begun",
    "stage", "again" (another attempt), "waits", or "finished" with its `row`.
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
    """Measures cells: this machine, or a fleet."""

    def devices(self, cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
        """Replace "every" by each device that is available now."""

    def work(
        self, cells: Sequence[PlannedCell], state: SweepState, watch: SweepCallback
    ) -> Generator[Finished, None, None]:
        """Yield each cell when it is finished, in any order."""


class SweepOptions(NamedTuple):
    """Options of a sweep: `resume` a partial folder, `retry` failed cells, wait for a full disk."""

    resume: bool = False
    retry: bool = False
    disk_patience_s: float = DISK_PATIENCE_S


DEFAULT_OPTIONS = SweepOptions()


def sweep(
    cells: Sequence[PlannedCell],
    folder: Path,
    backend: Backend,
    options: SweepOptions = DEFAULT_OPTIONS,
    watch: SweepCallback = lambda event: None,
) -> list[StateRow]:
    """Measure the unfinished cells and return the rows of all cells, in the order of the plan.

    Raise UsageError if the folder is in use, or holds a part of the plan without `resume`; DiskFull
    if the disk stays full for `disk_patience_s`; Interrupted on Ctrl-C. Finished cells are kept.
    """
    all_cells = list({cell.key: cell for cell in backend.devices(cells)}.values())
    with open_state(folder) as state:
        state.adopt(all_cells)
        left = cells_to_do(all_cells, state.rows, options.retry)
        _check_part(all_cells, left, options, folder)
        watch(SweepEvent("planned", None, cells=all_cells, left=left))
        try:
            with contextlib.closing(backend.work(left, state, watch)) as work:
                for finished in work:
                    row = _save(state, finished, options.disk_patience_s, watch)
                    watch(SweepEvent("finished", finished.cell, device=finished.device, row=row))
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted(
                f"interrupted: {_progress(all_cells, state)}; continue with --resume"
            ) from None
        except DiskFull as error:
            raise DiskFull(
                f"{error}: {_progress(all_cells, state)}; "
                "free disk space, then continue with --resume"
            ) from error
        rows = [state.rows[cell.key] for cell in all_cells if cell.key in state.rows]
        if len(rows) == len(all_cells):
            state.done()
        return rows


def cells_to_do(
    cells: Sequence[PlannedCell], rows: dict[str, StateRow], retry: bool = False
) -> list[PlannedCell]:
    """Return the cells without a row or that no device ran; with `retry`, failed cells too."""
    return [
        c
        for c in cells
        if c.key not in rows or not_run(rows[c.key]) or (retry and rows[c.key].wrong)
    ]


def not_run(row: StateRow) -> bool:
    """Return True if the fleet failed, not the cell: nothing is known about the cell."""
    return row.failure is not None and row.failure.stage == FLEET


def _check_part(
    all_cells: Sequence[PlannedCell], left: list[PlannedCell], options: SweepOptions, folder: Path
) -> None:
    if left and len(left) < len(all_cells) and not (options.resume or options.retry):
        raise UsageError(
            f"{folder} holds {len(all_cells) - len(left)} of the {len(all_cells)} cells; "
            "measure the others with --resume, or start anew with another -o FOLDER"
        )


def _progress(all_cells: Sequence[PlannedCell], state: SweepState) -> str:
    finished = sum(cell.key in state.rows for cell in all_cells)
    return f"{finished} of {len(all_cells)} cells are in {state.folder}"


def _save(
    state: SweepState, finished: Finished, patience_s: float, watch: SweepCallback
) -> StateRow:
    """Write a finished cell, and wait for disk space if necessary."""
    return _wait_for_space(lambda: state.keep(finished), finished.cell, patience_s, watch)


Outcome = TypeVar("Outcome")


def _wait_for_space(
    action: Callable[[], Outcome], cell: PlannedCell, patience_s: float, watch: SweepCallback
) -> Outcome:
    """Repeat an action while the disk is full. Raise DiskFull after `patience_s` seconds."""
    full_since: float | None = None
    while True:
        try:
            return action()
        except DiskFull as error:
            full_since = time.monotonic() if full_since is None else full_since
            if time.monotonic() - full_since >= patience_s:
                raise
            watch(SweepEvent("waits", cell, f"{error}; waiting for disk space"))
            time.sleep(min(DISK_PAUSE_S, patience_s / 4))


# --- on this machine --------------------------------------------------------------------------


class LocalBackend:
    """Backend of this machine: one cell after another."""

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
        """Raise UsageError if a cell names a device of a fleet."""
        pinned = next((cell.device for cell in cells if cell.device not in ("", EVERY)), None)
        if pinned is not None:
            raise UsageError(f"the plan names the device '{pinned}': give the fleet's --scheduler")
        return cells

    def work(
        self, cells: Sequence[PlannedCell], state: SweepState, watch: SweepCallback
    ) -> Generator[Finished, None, None]:
        """Measure each cell in turn. Raise DiskFull if the disk of the cache stays full."""
        cleanup = SweepCleanup(self._home.cache, state.private)
        last = {cell.spec.model: cell for cell in cells}
        for cell in cells:
            watch(SweepEvent("begun", cell))
            began = time.monotonic()
            outcome = self._outcome(cell, state, cleanup, watch)
            yield Finished(cell=cell, outcome=outcome, seconds=time.monotonic() - began)
            if last[cell.spec.model] is cell and not self._keep_exports:
                cleanup.remove(cell.spec.model)
        if not self._keep_exports:
            cleanup.remove()  # graphs left by an earlier process that was ended
        cleanup.end()

    def _outcome(
        self, cell: PlannedCell, state: SweepState, cleanup: SweepCleanup, watch: SweepCallback
    ) -> Profile | Failure:
        """Measure a cell; wait while the disk is full, fail the cell if the disk is too small."""
        home = Paths(cache=self._home.cache, profiles=state.scratch)
        run = cleanup.recording(self._run, cell.spec.model)

        def attempt() -> Profile | Failure:
            try:
                return outcome_of(
                    cell.spec,
                    home,
                    lambda event: watch(SweepEvent("stage", cell, event.stage)),
                    run,
                    KnownScores(folder=state.scores),
                )
            except DiskFull as error:
                if min(free_bytes(home.cache), free_bytes(state.folder)) > FULL_BELOW_BYTES:
                    return failure_of("disk", error)
                raise

        return _wait_for_space(attempt, cell, self._disk_patience_s, watch)


def outcome_of(
    spec: Spec, home: Paths, notice: ProgressCallback, run: StepRunner, scores: KnownScores
) -> Profile | Failure:
    """Return the record of a run, or its failure. Raise DiskFull, and Interrupted on Ctrl-C."""
    try:
        return profile(spec, home, notice, run, scores)
    except (DiskFull, Interrupted):
        raise
    except EdgecapError as error:
        return failure_of("refused", error)
    except Exception as error:  # a bug fails one cell, not the sweep
        return failure_of("edgecap", error)


def failure_of(stage: str, error: Exception) -> Failure:
    """Return the failure that describes an error."""
    return Failure(
        stage=stage,
        error=type(error).__name__,
        message=one_line(error, 500) or "no message",
    )
