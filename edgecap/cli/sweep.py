"""`edgecap sweep`: measure many cells, on this machine or on a fleet."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import types
from edgecap.cli.options import how_joined, option_names
from edgecap.cli.output import print_json, print_text, width
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.storage.files import Paths
    from edgecap.sweep.plan import PlannedCell
    from edgecap.sweep.runner import Backend, SweepEvent, SweepOptions
    from edgecap.sweep.state import StateRow

EXAMPLES = """\b
Examples:
  edgecap sweep night.toml --dry-run                 list cells, disk space and time
  edgecap sweep night.toml                           write records to sweeps/night
  edgecap sweep night.toml --resume                  continue an interrupted sweep
  edgecap sweep --model ./a,./b --precision fp32,int8 -o sweeps/ab
  edgecap sweep night.toml --scheduler tls://10.0.0.2:8786 --tls fleet/home
  edgecap board sweeps/night                         show all records on one page

\b
A plan:
  models = ["edgecap-ref-xs", "./my-model"]
  precisions = ["fp32", "int8"]
  contexts = [256, 1024]
  [options]
  documents = 40
"""
AXES = {
    "models": ("model", "NAME|FOLDER,...", "Models to measure."),
    "precisions": (
        "precision",
        "LIST",
        "Variants. Default: fp32, fp16, int8, int4, or all variants of an ONNX folder.",
    ),
    "providers": ("provider", "LIST", "Execution providers. Default: cpu."),
    "corpora": ("corpus", "NAME|FILE,...", "Corpora. Default: the bundled corpus."),
    "contexts": ("context", "LIST", "Positions per window. Default: 1024 or the model's maximum."),
    "batches": ("batch", "LIST", "Batch sizes. Default: 1."),
    "device": ("device", "NAME,...|every", "Devices of the fleet. Default: any suitable device."),
}

AXIS_TYPES: dict[str, types.ParsedType] = {
    "models": types.LIST,
    "precisions": types.NAMES,
    "providers": types.PROVIDERS,
    "corpora": types.LIST,
    "contexts": types.INTEGERS,
    "batches": types.INTEGERS,
    "device": types.LIST,
}


def _axes(command: Any) -> Any:
    for name, (option, metavar, words) in reversed(AXES.items()):
        command = click.option(
            f"--{option}", name, type=AXIS_TYPES[name], metavar=metavar, help=words
        )(command)
    return command


@click.command(epilog=EXAMPLES)
@click.argument("plan", required=False, type=click.Path(path_type=Path), metavar="[PLAN.toml]")
@_axes
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the records. Default: sweeps/ and the name of the plan.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="List the cells, with estimates of disk space and time; measure nothing.",
)
@click.option("--resume", is_flag=True, help="Continue in a folder that holds a part of the plan.")
@click.option("--retry-failed", is_flag=True, help="Measure failed cells again.")
@click.option("--keep-exports", is_flag=True, help="Keep the graphs of this sweep in the cache.")
@click.option(
    "--wait-for-disk",
    "disk_patience_s",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait this long for space on a full disk.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Measure on the fleet of this scheduler: tcp://HOST:PORT or tls://HOST:PORT.",
)
@how_joined
@click.option(
    "--attempts",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Attempts per cell, on different devices if possible.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait this long for a suitable device, or for a lost scheduler.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Cache for graphs. Default: EDGECAP_CACHE or the user's cache.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."
)
def sweep(
    plan: Path | None,
    output: Path | None,
    dry_run: bool,
    resume: bool,
    retry_failed: bool,
    disk_patience_s: float,
    cache: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Measure models x precisions x providers x corpora x contexts x batches.

    Writes one record per cell as soon as the cell is finished. A failed cell is reported with its
    reason, and the sweep continues. Running the same plan again measures no cell twice.
    """
    from edgecap.storage.files import resolve_paths

    paths = resolve_paths(cache)
    axes = {name: given.pop(name) for name in AXES}
    cells = _cells(plan, axes, paths.cache)
    folder = output or Path("sweeps") / _folder_name(plan, cells)
    if dry_run:
        _show(cells, folder, paths, given["keep_exports"], as_json)
        return
    from edgecap.sweep.runner import SweepOptions

    rows = _run(cells, folder, paths, SweepOptions(resume, retry_failed, disk_patience_s), given)
    _print_outcome(rows, folder, as_json)
    if any(row.wrong for row in rows):
        sys.exit(1)


def _cells(
    plan: Path | None, axes: dict[str, tuple[Any, ...] | None], cache: Path
) -> tuple[PlannedCell, ...]:
    """Return the cells of the plan or of the options. Raise UsageError if both are given."""
    from edgecap.sweep.plan import read_plan, unfold

    given = {name: values for name, values in axes.items() if values is not None}
    if plan and given:
        raise click.UsageError(
            f"--{AXES[next(iter(given))][0]} belongs in the plan {plan}; or leave the plan out"
        )
    if plan:
        return read_plan(plan, cache)
    if not given:
        raise click.UsageError("give a plan, or --model and other axes; see edgecap sweep --help")
    with option_names():
        return unfold(given, Path(), cache)


def _folder_name(plan: Path | None, cells: tuple[PlannedCell, ...]) -> str:
    """Return the name of the plan, or of the models, as a folder name."""
    from edgecap.names import safe_filename

    return safe_filename(
        plan.stem if plan else "-".join(dict.fromkeys(Path(cell.spec.model).name for cell in cells))
    )


def _show(
    cells: tuple[PlannedCell, ...], folder: Path, paths: Paths, keep_exports: bool, as_json: bool
) -> None:
    from edgecap.names import printable
    from edgecap.storage.files import free_bytes
    from edgecap.sweep.estimates import History, estimate_disk, estimate_times
    from edgecap.sweep.state import read_rows
    from edgecap.sweep.summary import PlanSummary, plan_text, plan_values

    rows = read_rows(folder)
    before = [*History(paths.cache).rows, *rows.values()]
    left = [cell for cell in cells if cell.key not in rows]
    disk, free = estimate_disk(left, before), free_bytes(paths.cache)
    times = estimate_times(cells, before)
    summary = PlanSummary(cells, rows, times, disk, free, keep_exports)
    if as_json:
        print_json({"folder": str(folder), **plan_values(summary)})
    else:
        print_text(f"{plan_text(summary, width())}\nrecords: {printable(str(folder))}")


def _run(
    cells: tuple[PlannedCell, ...],
    folder: Path,
    paths: Paths,
    options: SweepOptions,
    given: dict[str, Any],
) -> list[StateRow]:
    """Measure the cells, show progress, and store their times for later estimates."""
    from edgecap.cli.sweep_live import SweepLive
    from edgecap.storage.files import check_writable
    from edgecap.sweep.estimates import History, estimate_times
    from edgecap.sweep.runner import sweep as measure

    for place in filter(None, (paths.cache, given["shared"])):
        check_writable(place)
    history = History(paths.cache)
    with contextlib.ExitStack() as opened:
        backend = _backend(paths, given, options.disk_patience_s, opened)
        live = opened.enter_context(SweepLive(lambda left: estimate_times(left, history.rows)))

        def watch(event: SweepEvent) -> None:
            live(event)
            if event.row:
                history.add(event.row)

        return measure(cells, folder, backend, options, watch)


def _backend(
    paths: Paths, given: dict[str, Any], disk_patience_s: float, opened: contextlib.ExitStack
) -> Backend:
    """Return what measures the cells; `opened` closes it."""
    from edgecap.sweep.runner import LocalBackend

    if given["scheduler"] is None:
        misplaced = next((name for name in ("tls", "shared", "insecure") if given[name]), None)
        if misplaced:
            raise UsageError(f"--{misplaced} belongs to a fleet: give its --scheduler")
        return LocalBackend(
            paths, keep_exports=given["keep_exports"], disk_patience_s=disk_patience_s
        )
    return _fleet(paths, given, disk_patience_s, opened)


def _fleet(
    paths: Paths, given: dict[str, Any], disk_patience_s: float, opened: contextlib.ExitStack
) -> Backend:
    from edgecap.sweep.fleet import network

    address = network.check_address(given["scheduler"], given["tls"], given["insecure"])
    network.configure()

    from edgecap.sweep.fleet.bundles import Bundles
    from edgecap.sweep.fleet.connection import connect
    from edgecap.sweep.fleet.dispatch import FleetBackend, FleetLimits

    connection = connect(address, network.security(given["tls"]))
    opened.push(connection)
    bundles = opened.enter_context(contextlib.closing(Bundles(paths, given["shared"])))
    limits = FleetLimits(given["attempts"], given["wait_s"], disk_patience_s)
    return FleetBackend(connection, bundles, limits, given["keep_exports"])


def _print_outcome(rows: list[StateRow], folder: Path, as_json: bool) -> None:
    from edgecap.names import printable
    from edgecap.sweep.summary import outcome_text, outcome_values

    if as_json:
        print_json(outcome_values(rows, folder))
        return
    print_text(outcome_text(rows))
    if any(row.wrong for row in rows):
        print_text("measure the failed cells again with --retry-failed")
    place = printable(str(folder))
    print_text(f"records: {place}    show them on one page: edgecap board {place}")
