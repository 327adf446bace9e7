"""`edgecap worker`: this machine measures for a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from pathlib import Path

import click

from edgecap.cli import types
from edgecap.cli.fleet import until_stopped
from edgecap.cli.options import how_joined


@click.command()
@click.argument("address")
@click.option(
    "--name",
    metavar="NAME",
    help="What plans and records call this device. Default: the bundle's name, or the machine's.",
)
@how_joined
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where models are kept.",
)
@click.option(
    "--cache-limit",
    type=types.SIZE,
    metavar="SIZE",
    help="Remove what was not used for longest beyond so much: 20GB.",
)
def worker(
    address: str,
    name: str | None,
    tls: Path | None,
    insecure: bool,
    shared: Path | None,
    cache: Path | None,
    cache_limit: float | None,
) -> None:
    """Measure for a fleet, one cell at a time, until Ctrl-C.

    Joins the scheduler at ADDRESS, and joins again when it was lost. One worker a machine: two would disturb each
    other, so that a second one on the same cache is refused.

    Example: edgecap worker tls://10.0.0.2:8786 --tls laptop-7
    """
    from edgecap.sweep.fleet import certificates, network

    where = network.check_address(address, tls, insecure)
    network.configure()
    secured = network.security(tls)

    from edgecap.names import safe_filename
    from edgecap.storage.files import resolve_paths
    from edgecap.sweep.fleet.dask_worker import (
        check_admission,
        exclusive_cache,
        join,
        read_device_info,
    )
    from edgecap.sweep.fleet.device import Device
    from edgecap.sweep.fleet.messages import check_name

    own = certificates.check(tls).name if tls else safe_filename(platform.node())[:63]
    called, kept = check_name(name or own), resolve_paths(cache).cache

    def say(words: str) -> None:
        click.echo(f"edgecap: {words}", err=True)

    with exclusive_cache(kept), contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        check_admission(where, secured)
        say("looking at this machine")
        about = read_device_info(called)
        say(
            f"providers {', '.join(about.providers)}; energy counters {', '.join(about.counters) or 'none'}"
        )
        device = Device(kept, shared, most_bytes=cache_limit)
        asyncio.run(until_stopped(join(where, secured, device, about, say)))
