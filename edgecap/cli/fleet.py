"""`edgecap fleet`: certificates for a fleet of devices, and the scheduler where they meet."""

from __future__ import annotations

import asyncio
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
Once, then for each evening of measuring:
  edgecap fleet init home-fleet home board nano      a folder for each machine
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
    "--json", "as_json", is_flag=True, help="Print what was made as JSON on standard output."
)
def init(folder: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Make a certificate authority in FOLDER, and a bundle for each machine.

    Give a name for each device, and for the machines of the scheduler and of whoever asks. Given again, bundles
    that are there are kept, so devices are added by one more name. Carry each folder to its machine, and nothing
    else: ca-key.pem admits devices.

    Whoever holds a bundle can run code on every machine of the fleet.

    Example: edgecap fleet init home-fleet home board nano
    """
    from edgecap.sweep.fleet import certificates

    made = certificates.init(folder, names)
    bundles = [certificates.check(folder / name) for name in dict.fromkeys(names)]
    key = folder / certificates.CA_KEY
    if as_json:
        print_json({"ca_key": str(key), "bundles": [_as_value(bundle, made) for bundle in bundles]})
    else:
        print_text(
            "\n".join(
                [
                    *(_as_line(bundle, made) for bundle in bundles),
                    f"stays  {key}: it admits devices",
                ]
            )
        )


def _as_value(bundle: CertificateBundle, made: list[Path]) -> dict[str, Any]:
    where = bundle.cert.parent
    return {
        "name": bundle.name,
        "folder": str(where),
        "made": where in made,
        "valid_until": bundle.not_after,
    }


def _as_line(bundle: CertificateBundle, made: list[Path]) -> str:
    where = bundle.cert.parent
    until = f"valid until {bundle.not_after:%Y-%m-%d}"
    return (
        f"made   {where}: carry it to {bundle.name}; {until}"
        if where in made
        else f"kept   {where}; {until}"
    )


@fleet.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="What to listen on; 0.0.0.0 is every address.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8786,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--tls",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="This machine's bundle, of `edgecap fleet init`.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine without TLS: whoever comes can run code.",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(20, 86_400),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Give up a device that is silent for so long.",
)
def start(host: str, port: int, tls: Path | None, insecure: bool, ttl_s: int) -> None:
    """Start the scheduler where devices and sweeps meet, until Ctrl-C.

    Beyond this machine it needs --tls. A Dask scheduler that is there already does as well: `dask scheduler` with
    --protocol tls, --tls-ca-file, --tls-cert and --tls-key of a bundle.

    Example: edgecap fleet start --host 0.0.0.0 --tls home-fleet/home
    """

    def started(address: str) -> None:
        bundle = f" --tls {shlex.quote(str(tls))}" if tls else ""
        device = " --tls FOLDER" if tls else ""
        trust = " --insecure" if insecure else ""
        click.echo(f"fleet: {address} (Ctrl-C ends it)", err=True)
        click.echo(f"on each device:  edgecap worker {address}{device}{trust}", err=True)
        click.echo(
            f"to measure:      edgecap sweep plan.toml --scheduler {address}{bundle}{trust}",
            err=True,
        )

    from edgecap.sweep.fleet.scheduler import serve

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(until_stopped(serve(host, port, tls, insecure, ttl_s, started)))
        click.echo("fleet: a member of the fleet ended it", err=True)


async def until_stopped(work: Awaitable[None]) -> None:
    """Cancels the work on SIGTERM, as asyncio does on Ctrl-C, so that it ends where it waits and not anywhere."""
    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError):  # Windows, which has no SIGTERM to speak of
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, task.cancel if task else lambda: None
        )
    await work
