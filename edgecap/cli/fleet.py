"""`edgecap fleet`: make certificates for a fleet of devices, and run its scheduler."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli.output import print_json, print_text

if TYPE_CHECKING:
    from edgecap.sweep.fleet.certificates import CertificateBundle


EXAMPLES = """\b
Once (init), then for each session:
  edgecap fleet init home-fleet home board nano      make one folder per machine
  edgecap fleet start --host 0.0.0.0 --tls home-fleet/home
  edgecap worker ADDRESS --tls board                 on each device
  edgecap sweep plan.toml --scheduler ADDRESS --tls home-fleet/home
"""


@click.group(epilog=EXAMPLES)
def fleet() -> None:
    """Measure on a fleet of devices: make certificates, start the scheduler."""


@fleet.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the bundles as JSON on standard output."
)
def init(folder: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Make a certificate authority in FOLDER, and a certificate bundle for each machine.

    Name each device, the machine of the scheduler and the machine that runs sweeps. Run it again
    with more names to add devices; existing bundles are kept. Copy each folder to its machine, and
    nothing else: ca-key.pem admits devices.

    A bundle allows its holder to run code on every machine of the fleet.

    Example: edgecap fleet init home-fleet home board nano
    """
    from edgecap.sweep.fleet import certificates

    new = certificates.init(folder, names)
    bundles = [certificates.check(folder / name) for name in dict.fromkeys(names)]
    key = folder / certificates.CA_KEY
    if as_json:
        print_json({"ca_key": str(key), "bundles": [_as_value(bundle, new) for bundle in bundles]})
    else:
        print_text(
            "\n".join(
                [
                    *(_as_line(bundle, new) for bundle in bundles),
                    f"stays  {key}: it admits devices; keep it here",
                ]
            )
        )


def _as_value(bundle: CertificateBundle, new: list[Path]) -> dict[str, Any]:
    folder = bundle.cert.parent
    return {
        "name": bundle.name,
        "folder": str(folder),
        "made": folder in new,
        "valid_until": bundle.not_after,
    }


def _as_line(bundle: CertificateBundle, new: list[Path]) -> str:
    folder = bundle.cert.parent
    until = f"valid until {bundle.not_after:%Y-%m-%d}"
    return (
        f"made   {folder}: copy it to {bundle.name}; {until}"
        if folder in new
        else f"kept   {folder}; {until}"
    )


@fleet.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for every address.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8786,
    show_default=True,
    help="Port to listen on; 0 for a free port.",
)
@click.option(
    "--tls",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Certificate bundle of this machine, from `edgecap fleet init`.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine without TLS: anyone who connects can run code.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(20, 86_400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Drop a device after this long without a heartbeat.",
)
def start(host: str, port: int, tls: Path | None, insecure: bool, ttl_s: int) -> None:
    """Run the scheduler that devices and sweeps connect to, until Ctrl-C.

    Requires --tls to listen beyond this machine. An existing Dask scheduler works too: run
    `dask scheduler` with --protocol tls, and --tls-ca-file, --tls-cert and --tls-key of a bundle.

    Example: edgecap fleet start --host 0.0.0.0 --tls home-fleet/home
    """

    def announce(address: str) -> None:
        bundle = f" --tls {shlex.quote(str(tls))}" if tls else ""
        device = " --tls FOLDER" if tls else ""
        trust = " --insecure" if insecure else ""
        click.echo(f"fleet: {address} (Ctrl-C to stop)", err=True)
        click.echo(f"on each device:  edgecap worker {address}{device}{trust}", err=True)
        click.echo(
            f"to measure:      edgecap sweep plan.toml --scheduler {address}{bundle}{trust}",
            err=True,
        )

    import asyncio

    from edgecap.sweep.fleet.scheduler import serve

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(until_stopped(serve(host, port, tls, insecure, ttl_s, announce)))
        click.echo("fleet: a member of the fleet stopped it", err=True)


async def until_stopped(work: Awaitable[None]) -> None:
    """Await work, and cancel it on SIGTERM as asyncio does on Ctrl-C."""
    import asyncio

    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError):  # Windows has no SIGTERM handlers
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, task.cancel if task else lambda: None
        )
    await work
