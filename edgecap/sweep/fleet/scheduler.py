r"""Scheduler of a fleet: a Dask scheduler with TLS, or on this machine only.

Dask's own command does the same, with additional HTTP ports:

    dask scheduler --host 0.0.0.0 --protocol tls --no-dashboard --dashboard-address 127.0.0.1:0 \
        --tls-ca-file BUNDLE/ca.pem --tls-cert BUNDLE/cert.pem --tls-key BUNDLE/key.pem
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError
from edgecap.sweep.fleet import network


async def serve(
    host: str,
    port: int,
    tls: Path | None,
    insecure: bool,
    ttl_s: float,
    started: Callable[[str], None],
) -> None:
    """Run a scheduler until it is cancelled or stopped; call `started` with its address.

    Port 0 is any free port. A device that is silent for `ttl_s` seconds is dropped. Raise
    UsageError if the host or the port cannot be used.
    """
    host = network.check_host(host, tls, insecure)
    network.configure(ttl_s)
    scheduler = await _open(host, port, network.security(tls))
    try:
        started(scheduler.address)
        await scheduler.finished()
    finally:
        await scheduler.close(reason="edgecap fleet ends")


async def _open(host: str, port: int, security: Any) -> Any:
    """Return a listening scheduler. Raise UsageError if host or port cannot be used."""
    from distributed import Scheduler

    scheduler = Scheduler(
        host=host,
        port=port,
        protocol="tls" if security else "tcp",
        security=security,
        dashboard=False,
        dashboard_address=network.HTTP,
    )
    network.slow_timers(scheduler)
    try:
        return await scheduler
    except RuntimeError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise UsageError(_reason(host, port, error.__cause__)) from error


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host or 'this machine'} is in use: "
            "give another --port, or 0 for a free one"
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine: give one that is, or 0.0.0.0 for all"
    if error.errno == errno.EACCES:
        return f"port {port} requires administrator rights: give one from 1024"
    return f"cannot listen on {host or 'this machine'}, port {port}: {error.strerror or error}"
