"""`edgecap sweep`: many cells, overnight, on this machine or on a fleet."""

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
  edgecap sweep night.toml --dry-run                 cells, disk and time, without measuring
  edgecap sweep night.toml                           records in sweeps/night
  edgecap sweep night.toml --resume                  goes on where it was cut off
  edgecap sweep --model ./a,./b --precision fp32,int8 -o sweeps/ab
  edgecap sweep night.toml --scheduler tls://10.0.0.2:8786 --tls fleet/home
  edgecap board sweeps/night                         all of it in one page

\b
A plan:
  models = ["edgecap-ref-xs", "./my-model"]
  precisions = ["fp32", "int8"]
  contexts = [256, 1024]
  [options]
  documents = 40
"""
AXES = {
    "models": ("model", "NAME|FOLDER,...", "Models."),
    "precisions": (
        "precision",
        "LIST",
        "Variants. Default: fp32, fp16, int8, int4, or all that an ONNX folder holds.",
    ),
    "providers": ("provider", "LIST", "Execution providers. Default: cpu."),
    "corpora": ("corpus", "NAME|FILE,...", "Texts. Default: the bundled one."),
    "contexts": ("context", "LIST", "Positions of a window. Default: 1024 or the model's."),
    "batches": ("batch", "LIST", "Rows read and decoded at once. Default: 1."),
    "device": ("device", "NAME,...|every", "Devices of the fleet. Default: any that can."),
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
    help="Default: sweeps/ and the plan's name.",
)
@click.option(
    "--dry-run", is_flag=True, help="List the cells, with disk and time as far as they are known."
)
@click.option("--resume", is_flag=True, help="Go on in a folder that holds a part of the plan.")
@click.option("--retry-failed", is_flag=True, help="Do failed cells again too.")
@click.option(
    "--keep-exports", is_flag=True, help="Keep the graphs that this sweep makes, for other runs."
)
@click.option(
    "--wait-for-disk",
    "disk_patience_s",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long where the disk is full, before giving up.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Measure on the fleet behind tcp://HOST:PORT.")
@how_joined
@click.option(
    "--attempts",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Devices that may fail a cell.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for a device that can run a cell, or for a scheduler that went away.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where graphs are kept.",
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
    """Measure models x precisions x providers x corpora x contexts x batches, and lose nothing.

    Each cell gets a record of its own, written when it is done. A cell that fails is a row with its reason, and the
    sweep goes on. The same plan again measures nothing twice.
    """
    from edgecap.storage.files import resolve_paths

    where = resolve_paths(cache)
    axes = {name: given.pop(name) for name in AXES}
    cells = _cells(plan, axes, where.cache)
    folder = output or Path("sweeps") / _named(plan, cells)
    if dry_run:
        _show(cells, folder, where, given["keep_exports"], as_json)
        return
    from edgecap.sweep.runner import SweepOptions

    rows = _run(cells, folder, where, SweepOptions(resume, retry_failed, disk_patience_s), given)
    _tell(rows, folder, as_json)
    if any(row.wrong for row in rows):
        sys.exit(1)


def _cells(
    plan: Path | None, axes: dict[str, tuple[Any, ...] | None], cache: Path
) -> tuple[PlannedCell, ...]:
    """The cells of a plan, or of the options; not of both, so that it is clear what was asked."""
    from edgecap.sweep.plan import read_plan, unfold

    said = {name: values for name, values in axes.items() if values is not None}
    if plan and said:
        raise click.UsageError(
            f"--{AXES[next(iter(said))][0]} belongs into the plan {plan}, or leave the plan out"
        )
    if plan:
        return read_plan(plan, cache)
    if not said:
        raise click.UsageError(
            "name a plan, or give --model and other axes; see edgecap sweep --help"
        )
    with option_names():
        return unfold(said, Path(), cache)


def _named(plan: Path | None, cells: tuple[PlannedCell, ...]) -> str:
    """The plan's name, or that of the models."""
    from edgecap.names import safe_filename

    return safe_filename(
        plan.stem if plan else "-".join(dict.fromkeys(Path(cell.spec.model).name for cell in cells))
    )


def _show(
    cells: tuple[PlannedCell, ...], folder: Path, where: Paths, keeps: bool, as_json: bool
) -> None:
    from edgecap.names import printable
    from edgecap.storage.files import free_bytes
    from edgecap.sweep.estimates import History, estimate_disk, estimate_times
    from edgecap.sweep.state import read_rows
    from edgecap.sweep.summary import PlanSummary, plan_text, plan_values

    rows = read_rows(folder)
    before = [*History(where.cache).rows, *rows.values()]
    left = [cell for cell in cells if cell.key not in rows]
    need, free = estimate_disk(left, before), free_bytes(where.cache)
    outlook = PlanSummary(cells, rows, estimate_times(cells, before), need, free, keeps)
    if as_json:
        print_json({"folder": str(folder), **plan_values(outlook)})
    else:
        print_text(f"{plan_text(outlook, width())}\nrecords: {printable(str(folder))}")


def _run(
    cells: tuple[PlannedCell, ...],
    folder: Path,
    where: Paths,
    asked: SweepOptions,
    given: dict[str, Any],
) -> list[StateRow]:
    """Measures, tells how it goes, and remembers for the next estimate how long it took."""
    from edgecap.cli.sweep_live import SweepLive
    from edgecap.storage.files import check_writable
    from edgecap.sweep.estimates import History, estimate_times
    from edgecap.sweep.runner import sweep as measure

    for place in filter(None, (where.cache, given["shared"])):
        check_writable(place)
    history = History(where.cache)
    with contextlib.ExitStack() as opened:
        crew = _crew(where, given, asked.disk_patience_s, opened)
        live = opened.enter_context(SweepLive(lambda left: estimate_times(left, history.rows)))

        def heard(news: SweepEvent) -> None:
            live(news)
            if news.row:
                history.remember(news.row)

        return measure(cells, folder, crew, asked, heard)


def _crew(
    where: Paths, given: dict[str, Any], disk_patience_s: float, opened: contextlib.ExitStack
) -> Backend:
    """Who measures; what must be closed again goes into `opened`."""
    from edgecap.sweep.runner import LocalBackend

    if given["scheduler"] is None:
        stray = next((name for name in ("tls", "shared", "insecure") if given[name]), None)
        if stray:
            raise UsageError(f"--{stray} belongs to a fleet: give its --scheduler")
        return LocalBackend(
            where, keep_exports=given["keep_exports"], disk_patience_s=disk_patience_s
        )
    return _fleet(where, given, disk_patience_s, opened)


def _fleet(
    where: Paths, given: dict[str, Any], disk_patience_s: float, opened: contextlib.ExitStack
) -> Backend:
    from edgecap.sweep.fleet import network

    address = network.check_address(given["scheduler"], given["tls"], given["insecure"])
    network.configure()

    from edgecap.sweep.fleet.bundles import Bundles
    from edgecap.sweep.fleet.connection import connect
    from edgecap.sweep.fleet.dispatch import FleetBackend, FleetLimits

    line = connect(address, network.security(given["tls"]))
    opened.push(line)
    bundles = opened.enter_context(contextlib.closing(Bundles(where, given["shared"])))
    rules = FleetLimits(given["attempts"], given["wait_s"], disk_patience_s)
    return FleetBackend(line, bundles, rules, given["keep_exports"])


def _tell(rows: list[StateRow], folder: Path, as_json: bool) -> None:
    from edgecap.names import printable
    from edgecap.sweep.summary import outcome_text, outcome_values

    if as_json:
        print_json(outcome_values(rows, folder))
        return
    print_text(outcome_text(rows))
    if any(row.wrong for row in rows):
        print_text("--retry-failed does those again")
    place = printable(str(folder))
    print_text(f"records: {place}    all in one page: edgecap board {place}")
