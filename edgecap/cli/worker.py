"""`edgecap worker`: this machine measures for a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from pathlib import Path

import click


@click.command()
@click.argument("address")
@click.option("--name", metavar="NAME", help="What plans and records call this device. Default: the machine's name.")
@click.option(
    "--tls", type=click.Path(path_type=Path), metavar="FOLDER", help="This device's certificate of the fleet."
)
@click.option("--insecure", is_flag=True, help="Join a scheduler beyond this machine without TLS.")
@click.option(
    "--shared",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where models are handed over, if the client writes there too.",
)
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where models are kept."
)
@click.option("--cache-limit", metavar="SIZE", help="Remove what was not used for longest beyond so much: 20GB.")
def worker(
    address: str,
    name: str | None,
    tls: Path | None,
    insecure: bool,
    shared: Path | None,
    cache: Path | None,
    cache_limit: str | None,
) -> None:
    """Measure for a fleet, one cell at a time, until Ctrl-C.

    Joins the scheduler at ADDRESS, and joins again when it was lost. One worker a machine: two would disturb each
    other, so that a second one on the same cache is refused.

    Example: edgecap worker tls://10.0.0.2:8786 --tls laptop-7
    """
    from edgecap.fleet import network
    from edgecap.fleet.device import Device, alone, join, look
    from edgecap.recommend.limits import BYTES, Option, parse_amount
    from edgecap.store import home

    most = None if cache_limit is None else parse_amount(Option("--cache-limit", "size", BYTES, "20GB"), cache_limit)
    where = network.check_address(address, tls, insecure)
    network.configure()
    secured = network.security(tls)
    kept = home(cache).cache
    with alone(kept):
        click.echo("edgecap: looking at this machine", err=True)
        about = look(name or platform.node())
        counters = ", ".join(about.counters) or "none"
        click.echo(f"edgecap: providers {', '.join(about.providers)}; energy counters {counters}", err=True)
        device = Device(kept, shared, most_bytes=most)
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(join(where, secured, device, about, lambda words: click.echo(f"edgecap: {words}", err=True)))
