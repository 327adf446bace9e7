"""Network of a fleet: safe addresses, TLS, and the configuration of dask in our processes.

Dask sends pickles: anyone who can connect to a port of a fleet can run code there. Beyond this
machine, TLS with a certificate of the fleet is required, or an explicit `--insecure`.

This module owns dask's configuration and distributed's Security.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

from edgecap.errors import UsageError
from edgecap.names import one_line
from edgecap.sweep.fleet import certificates

PORT = 8786  # default of dask
WRITE = "write HOST:PORT, such as 192.168.1.20:8786 or [fd00::20]:8786"
_ADDRESS = re.compile(
    r"(?:(?P<scheme>[^:/]*)://)?(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?"
)
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")

MISSING = "a fleet needs the library distributed: pip install 'edgecap[fleet]'"

# --- addresses --------------------------------------------------------------------------------


def check_address(address: str, tls: Path | None, insecure: bool = False) -> str:
    """Return the address of a scheduler for dask: `tls://host:port`, or `tcp://` without a bundle.

    Raise UsageError for an invalid address, or one beyond this machine without TLS.
    """
    match = _ADDRESS.fullmatch(address.strip())
    scheme, host = (match["scheme"], match["six"] or match["host"] or "") if match else (None, "")
    if not match or (scheme is not None and scheme.lower() not in {"tcp", "tls"}):
        raise UsageError(f"{address!r} is not the address of a scheduler: {WRITE}")
    if (scheme or "").lower() == "tls" and tls is None:
        raise UsageError(f"{address!r} requires TLS: give this machine's bundle with --tls FOLDER")
    _check_host(host, f"{address!r} is not the address of a scheduler: {WRITE}")
    port = _port(match["port"], address)
    _check_safe(host, tls, insecure)
    return f"{'tls' if tls else 'tcp'}://{_bracketed(host)}:{port}"


def check_host(host: str, tls: Path | None, insecure: bool = False) -> str:
    """Return the host that a scheduler listens on: a name or IP address, or 0.0.0.0 or :: for all.

    Raise UsageError for an invalid host, or one that others can reach without TLS.
    """
    bare = host.strip().removeprefix("[").removesuffix("]")
    if bare:
        _check_host(
            bare,
            f"{host!r} is not a host to listen on: write a name or IP address, such as 0.0.0.0",
        )
    _check_safe(bare, tls, insecure)
    return _bracketed(bare)


def _bracketed(host: str) -> str:
    """Return a host as dask reads it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _port(text: str | None, address: str) -> int:
    if not text:
        raise UsageError(
            f"{address!r} has no port: {WRITE}; the default port of a scheduler is {PORT}"
        )
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= 65535):
        raise UsageError(f"{address!r} has no port from 1 to 65535: {WRITE}")
    return int(text)


def _check_host(host: str, problem: str) -> None:
    """Raise UsageError unless a host is a name, an IPv4 or an IPv6 address."""
    if not (_is_six(host) if ":" in host else _HOST.fullmatch(host)):
        raise UsageError(problem)


def _is_six(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_safe(host: str, tls: Path | None, insecure: bool) -> None:
    if tls is not None and insecure:
        raise UsageError("--insecure and --tls exclude each other: leave --insecure out")
    if tls is None and not insecure and not is_loopback(host):
        raise UsageError(
            f"{host or 'every address'} is reachable from other machines, and anyone who can reach "
            "a scheduler can run code: give --tls FOLDER (`edgecap fleet init` makes it), "
            "or --insecure in a network that only you can reach"
        )


def is_loopback(host: str) -> bool:
    """Return True if all addresses of a host are loopback. Raise UsageError for unknown names."""
    return bool(host) and all(_is_loopback_address(number) for number in _addresses(host))


def _addresses(host: str) -> set[str]:
    try:
        return {str(ipaddress.ip_address(host))}
    except ValueError:
        pass
    try:
        return {
            str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        }
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"cannot resolve {host}: check the name, or write its IP address"
        ) from error


def _is_loopback_address(number: str) -> bool:
    address = ipaddress.ip_address(number)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


# --- TLS --------------------------------------------------------------------------------------


def security(tls: Path | None) -> Any | None:
    """Return distributed's Security of a bundle for client, scheduler and worker; None without one.

    Require TLS 1.3 if Python's OpenSSL supports it. Raise UsageError for an invalid bundle.
    """
    if tls is None:
        return None
    bundle = certificates.check(tls)
    need_distributed()
    from distributed import Security

    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=str(bundle.ca.absolute()),
        tls_min_version=ssl.TLSVersion.TLSv1_3 if ssl.HAS_TLSv1_3 else ssl.TLSVersion.TLSv1_2,
        **{f"tls_{role}_cert": str(bundle.cert.absolute()) for role in roles},
        **{f"tls_{role}_key": str(bundle.key.absolute()) for role in roles},
    )


# --- configuration of dask --------------------------------------------------------------------

RARELY = "1h"
BEAT_S = 5  # a heartbeat through TLS costs 1.5 ms of CPU; dask would send two per second
SLOWED_S = {
    "find-missing": 60,  # search for results of other workers, which no measurement needs
    "shift_counters": 60,
    "idle-timeout": 10,  # the scheduler would check unset limits four times a second
    "no-workers-timeout": 10,
}
HTTP = "127.0.0.1:0"  # distributed always opens an HTTP port; without routes it answers 404
# Comments give the cost of each default: while a child is measured, every wake-up of the worker
# adds to the energy.
CONFIG: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,  # samples every thread each 10 ms
    "distributed.admin.tick.interval": RARELY,  # wakes each 20 ms to check the event loop
    "distributed.admin.tick.cycle": RARELY,  # wakes each second to count ticks
    "distributed.admin.system-monitor.interval": RARELY,  # reads /proc twice a second
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.host-cpu": False,
    "distributed.admin.system-monitor.gil.enabled": False,  # a thread that wakes each millisecond
    "distributed.diagnostics.nvml": False,  # queries the GPU with each heartbeat, which wakes it
    "distributed.diagnostics.cudf": False,
    "distributed.scheduler.active-memory-manager.start": False,  # runs each 2 s; results are small
    "distributed.scheduler.work-stealing": False,  # a measurement belongs to its device
    "distributed.scheduler.http.routes": [],  # HTTP needs no certificate, so it serves nothing
    "distributed.worker.http.routes": [],
    "distributed.comm.compression": False,  # records are small, boards are slow
}


def configure(ttl_s: float = 60.0, quiet: bool = True) -> None:
    """Configure dask for this process: few wake-ups, no HTTP, only errors on standard error.

    The scheduler drops a worker that is silent for `ttl_s` seconds. Call this before distributed is
    imported, which reads some settings then. Raise UsageError if distributed is missing.
    """
    try:
        import dask.config
    except ImportError as error:
        raise UsageError(MISSING) from error
    dask.config.set({**CONFIG, "distributed.scheduler.worker-ttl": f"{ttl_s}s"})
    need_distributed()
    if quiet and not os.environ.get("EDGECAP_DEBUG"):
        _quiet()


def need_distributed() -> None:
    """Raise UsageError with the install command if distributed is missing."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError(MISSING) from error


def _quiet() -> None:
    """Log only errors, one line each, through distributed's handlers to standard error."""
    known = [
        name
        for name in logging.root.manager.loggerDict
        if name.startswith(("distributed.", "tornado."))
    ]
    for logger in map(logging.getLogger, ("distributed", *known)):
        logger.setLevel(max(logger.level, logging.ERROR))
        for handler in logger.handlers:
            handler.setFormatter(_OneLine())
    logging.getLogger("distributed.client").setLevel(
        logging.CRITICAL
    )  # `connection` reports its errors
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"distributed\."
    )  # its own deprecated calls


class _OneLine(logging.Formatter):
    """Log format: a message and its error in one line, without traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        why = f" ({type(error).__name__}: {error})" if error else ""
        return one_line(f"{record.name}: {record.getMessage()}{why}")


def slow_timers(server: Any) -> None:
    """Slow down timers that no setting reaches, of a Worker or Scheduler that is not started."""
    timers = server.periodic_callbacks
    for name, seconds in SLOWED_S.items():
        if name in timers:
            timers[name].callback_time = seconds * 1000
    if beat := timers.get("heartbeat"):
        timers["heartbeat"].callback = _rarely(beat, beat.callback)


def _rarely(beat: Any, ask: Any) -> Any:
    """Send a heartbeat each BEAT_S, although the scheduler's answers request two per second."""

    async def beaten() -> None:
        await ask()
        beat.callback_time = BEAT_S * 1000

    return beaten


def open_worker(address: str, security: Any | None, **more: Any) -> Any:
    """Return a Worker with one thread and slow timers, to be awaited.

    It listens only on the interface that reaches the scheduler. `address` comes from
    `check_address`; `configure` must have been called. Other arguments go to the Worker.
    """
    from distributed import Worker
    from distributed.comm import get_local_address_for

    here = get_local_address_for(address).partition("://")[2].strip("[]")
    worker = Worker(
        address,
        nthreads=1,
        memory_limit=0,  # memory is used in the child; a limit would be checked ten times a second
        security=security,
        host=_bracketed(here),
        dashboard=False,
        dashboard_address=HTTP,
        **more,
    )
    slow_timers(worker)
    return worker
