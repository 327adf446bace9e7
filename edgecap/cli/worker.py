"""`edgecap worker`: measure for a fleet on this machine."""

from __future__ import annotations

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
    help="Name of this device in plans and records. Default: from the bundle, or the host name.",
)
@how_joined
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Cache for models. Default: EDGECAP_CACHE or the user's cache.",
)
@click.option(
    "--cache-limit",
    type=types.SIZE,
    metavar="SIZE",
    help="Remove the least recently used models above this size: 20GB.",
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

    Joins the scheduler at ADDRESS, and joins again after a lost connection. Run one worker per
    machine: two would disturb each other, so a second one on the same cache is refused.

    Example: edgecap worker tls://10.0.0.2:8786 --tls laptop-7
    """
    from edgecap.sweep.fleet import certificates, network

    scheduler = network.check_address(address, tls, insecure)
    network.configure()
    security = network.security(tls)

    import asyncio

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
    device_name, folder = check_name(name or own), resolve_paths(cache).cache

    def say(words: str) -> None:
        click.echo(f"edgecap: {words}", err=True)

    with exclusive_cache(folder), contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        check_admission(scheduler, security)
        say("examining this machine")
        info = read_device_info(device_name)
        say(
            f"providers {', '.join(info.providers)}; "
            f"energy counters {', '.join(info.counters) or 'none'}"
        )
        device = Device(folder, shared, most_bytes=cache_limit)
        asyncio.run(until_stopped(join(scheduler, security, device, info, say)))
