r"""The meeting point of a fleet: a Dask scheduler with TLS, or on this machine alone.

Dask's own command does the same, with ports for HTTP more:

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
    """Runs a scheduler until it is cancelled or a member of the fleet ends it; `started` is told its address.

    Port 0 is any free one. A device that is silent for `ttl_s` is given up. Raises UsageError.
    """
    host = network.check_host(host, tls, insecure)
    network.configure(ttl_s)
    scheduler = await _opened(host, port, network.security(tls))
    try:
        started(scheduler.address)
        await scheduler.finished()
    finally:
        await scheduler.close(reason="edgecap fleet ends")


async def _opened(host: str, port: int, security: Any) -> Any:
    """A scheduler that listens. Raises UsageError where the host or the port cannot be had."""
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
        raise UsageError(_why(host, port, error.__cause__)) from error


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host or 'this machine'} is taken: give another with --port, or 0 for any free one"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is no address of this machine: give one that is, or 0.0.0.0 for all of them"
    if error.errno == errno.EACCES:
        return f"port {port} is for administrators: give one from 1024"
    return f"cannot listen on {host or 'this machine'}, port {port}: {error.strerror or error}"
