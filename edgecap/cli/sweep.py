"""`edgecap sweep`: many cells, overnight, on this machine or on a fleet."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli.words import print_json, print_text, width
from edgecap.errors import UsageError

if TYPE_CHECKING:
    from edgecap.estimates import Estimated, Need
    from edgecap.ledger import Row
    from edgecap.plan import Planned
    from edgecap.store import Home
    from edgecap.sweep import Crew

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
    "precisions": ("precision", "LIST", "Variants. Default: fp32, fp16, int8, int4, or all that an ONNX folder holds."),
    "providers": ("provider", "LIST", "Execution providers. Default: cpu."),
    "corpora": ("corpus", "NAME|FILE,...", "Texts. Default: the bundled one."),
    "contexts": ("context", "LIST", "Positions of a window. Default: 1024 or the model's."),
    "batches": ("batch", "LIST", "Rows read and decoded at once. Default: 1."),
    "device": ("device", "NAME,...|every", "Devices of the fleet. Default: any that can."),
}


def _axes(command: Any) -> Any:
    for name, (option, metavar, words) in reversed(AXES.items()):
        command = click.option(f"--{option}", name, metavar=metavar, help=words)(command)
    return command


@click.command(epilog=EXAMPLES)
@click.argument("plan", required=False, type=click.Path(path_type=Path), metavar="[PLAN.toml]")
@_axes
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: sweeps/ and the plan's name."
)
@click.option("--dry-run", is_flag=True, help="List the cells, with disk and time as far as they are known.")
@click.option("--resume", is_flag=True, help="Go on in a folder that holds a part of the plan.")
@click.option("--retry-failed", is_flag=True, help="Do failed cells again too.")
@click.option("--keep-exports", is_flag=True, help="Keep the graphs that this sweep makes, for other runs.")
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
@click.option(
    "--tls", type=click.Path(path_type=Path), metavar="FOLDER", help="This machine's certificate of the fleet."
)
@click.option("--insecure", is_flag=True, help="Use a fleet beyond this machine without TLS.")
@click.option(
    "--shared",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Hand models over in this folder, which the devices see too.",
)
@click.option(
    "--attempts", type=click.IntRange(1, 100), default=3, show_default=True, help="Devices that may fail a cell."
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for a device that can run a cell.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where graphs are kept."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
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

    Each cell gets a record of its own, written when it is done. A cell that fails is a row with its reason. The same
    plan again does only what is missing.
    """
    from edgecap.store import home

    where = home(cache)
    axes = {name: given.pop(name) for name in AXES}
    cells = _cells(plan, axes, where.cache)
    folder = output or Path("sweeps") / _named(plan, cells)
    if dry_run:
        _show(cells, folder, where, as_json)
        return
    from edgecap.sweep import Asked

    asked = Asked(resume, retry_failed, disk_patience_s)
    rows, total = _run(cells, folder, where, asked, given)
    _tell(rows, total, folder, as_json)
    if any(row.wrong for row in rows):
        sys.exit(1)


def _cells(plan: Path | None, axes: dict[str, str | None], cache: Path) -> tuple[Planned, ...]:
    """The cells of a plan, or of the options; not of both, so that it is clear what was asked."""
    from edgecap.plan import read_plan, unfold

    said = {name: text for name, text in axes.items() if text is not None}
    if plan and said:
        raise click.UsageError(f"--{AXES[next(iter(said))][0]} belongs into the plan {plan}, or leave the plan out")
    if plan:
        return read_plan(plan, cache)
    if not said:
        raise click.UsageError("name a plan, or give --model and other axes; see edgecap sweep --help")
    return unfold({name: _parts(name, text) for name, text in said.items()}, Path(), cache)


def _parts(name: str, text: str) -> list[Any]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if name not in ("contexts", "batches"):
        return [text] if name == "providers" else parts
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--{AXES[name][0]} {text}: write whole numbers, as 128,512")
    return [int(part) for part in parts]


def _named(plan: Path | None, cells: tuple[Planned, ...]) -> str:
    """The plan's name, or that of the models."""
    from edgecap.store import slug

    return slug(plan.stem if plan else "-".join(dict.fromkeys(Path(cell.spec.model).name for cell in cells)))


def _foreseen(cells: tuple[Planned, ...], rows: dict[str, Row], where: Home) -> tuple[list[Estimated], Need]:
    from edgecap import estimates

    before = [*estimates.history(where.cache), *rows.values()]
    return estimates.seconds_of(cells, before), estimates.need_of(cells, before)


def _show(cells: tuple[Planned, ...], folder: Path, where: Home, as_json: bool) -> None:
    from edgecap.ledger import look_into
    from edgecap.report.planned import plan_text, plan_values
    from edgecap.store import free_bytes

    rows = look_into(folder)
    times, need = _foreseen(cells, rows, where)
    free = free_bytes(where.cache)
    if as_json:
        print_json({"folder": str(folder), **plan_values(cells, rows, times, need, free)})
    else:
        print_text(plan_text(cells, rows, times, need, free, width()))
        print_text(f"records: {folder}")


def _run(
    cells: tuple[Planned, ...], folder: Path, where: Home, asked: Any, given: dict[str, Any]
) -> tuple[list[Row], int]:
    from edgecap.cli.sweep_live import SweepLive
    from edgecap.estimates import remember
    from edgecap.ledger import look_into
    from edgecap.sweep import missing
    from edgecap.sweep import sweep as measure

    with contextlib.ExitStack() as opened:
        crew = _crew(where, given, asked.disk_patience_s, opened)
        wanted = tuple(crew.devices(cells))
        had = look_into(folder)
        left = missing(wanted, had, asked.retry)
        times, _ = _foreseen(tuple(left), had, where)
        with SweepLive(left, times, len(wanted)) as live:
            rows = measure(wanted, folder, crew, asked, live)
    remember([row for row in rows if row.key not in had], where.cache)
    return rows, len(wanted)


def _crew(where: Home, given: dict[str, Any], disk_patience_s: float, opened: contextlib.ExitStack) -> Crew:
    """Who measures; what must be closed again goes into `opened`."""
    from edgecap.sweep import Locally

    if given["scheduler"] is None:
        stray = next((name for name in ("tls", "shared", "insecure") if given[name]), None)
        if stray:
            raise UsageError(f"--{stray} belongs to a fleet: give its --scheduler")
        return Locally(where, keep_exports=given["keep_exports"], disk_patience_s=disk_patience_s)
    return _fleet(where, given, disk_patience_s, opened)


def _fleet(where: Home, given: dict[str, Any], disk_patience_s: float, opened: contextlib.ExitStack) -> Crew:
    from edgecap.fleet import network

    address = network.check_address(given["scheduler"], given["tls"], given["insecure"])
    network.configure()

    from edgecap.fleet.bundles import Bundles
    from edgecap.fleet.dispatch import OnFleet, Rules
    from edgecap.fleet.line import first_call

    line = first_call(address, network.security(given["tls"]))
    opened.push(line)
    bundles = opened.enter_context(contextlib.closing(Bundles(where, given["shared"])))
    return OnFleet(line, bundles, Rules(given["attempts"], given["wait_s"], disk_patience_s))


def _tell(rows: list[Row], total: int, folder: Path, as_json: bool) -> None:
    from edgecap.report.planned import outcome_text, outcome_values

    if as_json:
        print_json(outcome_values(rows, total, folder))
        return
    print_text(outcome_text(rows, total))
    print_text(f"records: {folder}    all in one page: edgecap board {folder}")
