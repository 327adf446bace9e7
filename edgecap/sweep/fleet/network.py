"""Which addresses are safe to talk to, who is let in, and what dask may do in our processes.

Dask sends pickles, so whoever reaches a port of a fleet can run code there: beyond this machine it is TLS with a
certificate of the fleet, or `--insecure`, said aloud.

This room owns dask's configuration and distributed's Security.
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
from edgecap.sweep.fleet import certificates

PORT = 8786  # dask's own
WRITE = "write HOST:PORT, such as 192.168.1.20:8786 or [fd00::20]:8786"
_ADDRESS = re.compile(
    r"(?:(?P<scheme>[^:/]*)://)?(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?"
)
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")

MISSING = "a fleet needs the library distributed: pip install 'edgecap[fleet]'"

# --- addresses --------------------------------------------------------------------------------


def check_address(address: str, tls: Path | None, insecure: bool = False) -> str:
    """The address of a scheduler as dask takes it: `tls://host:port`, or `tcp://host:port` without a bundle.

    Raises UsageError where it is no address, and where it leads beyond this machine without TLS.
    """
    found = _ADDRESS.fullmatch(address.strip())
    scheme, host = (found["scheme"], found["six"] or found["host"] or "") if found else (None, "")
    if not found or (scheme is not None and scheme.lower() not in {"tcp", "tls"}):
        raise UsageError(f"{address!r} is no address of a scheduler: {WRITE}")
    if (scheme or "").lower() == "tls" and tls is None:
        raise UsageError(f"{address!r} asks for TLS: give this machine's bundle with --tls FOLDER")
    _check_host(host, f"{address!r} is no address of a scheduler: {WRITE}")
    port = _port(found["port"], address)
    _check_safe(host, tls, insecure)
    return f"{'tls' if tls else 'tcp'}://{_bracketed(host)}:{port}"


def check_host(host: str, tls: Path | None, insecure: bool = False) -> str:
    """What a scheduler listens on: a name or number of this machine, or 0.0.0.0, :: or nothing for all of them.

    Raises UsageError where it is none, and where others can reach it without TLS.
    """
    bare = host.strip().removeprefix("[").removesuffix("]")
    if bare:
        _check_host(
            bare, f"{host!r} is no host to listen on: write a name or number alone, such as 0.0.0.0"
        )
    _check_safe(bare, tls, insecure)
    return _bracketed(bare)


def _bracketed(host: str) -> str:
    """A host as dask reads it: a number of version 6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _port(text: str | None, address: str) -> int:
    if not text:
        raise UsageError(
            f"{address!r} has no port: {WRITE}; a scheduler's port is {PORT} as a rule"
        )
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= 65535):
        raise UsageError(f"{address!r} has no port from 1 to 65535: {WRITE}")
    return int(text)


def _check_host(host: str, problem: str) -> None:
    """Raises UsageError where a host is neither a name nor a number of version 4 or 6."""
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
            f"{host or 'every address'} is not this machine alone, and whoever can reach a scheduler can run code:"
            " give --tls FOLDER (`edgecap fleet init` makes it), or --insecure in a network that only you can reach"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone; a name, where all its addresses are. Raises UsageError for unknown names."""
    return bool(host) and all(_is_own(number) for number in _numbers(host))


def _numbers(host: str) -> set[str]:
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
            f"no address is known for {host}: check the name, or write its number"
        ) from error


def _is_own(number: str) -> bool:
    address = ipaddress.ip_address(number)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


# --- who is let in ----------------------------------------------------------------------------


def security(tls: Path | None) -> Any | None:
    """The Security of a bundle, for all three roles that distributed knows; None without a bundle.

    TLS 1.3 where Python's OpenSSL has it: no member of a fleet is older. Raises UsageError.
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


# --- what dask may do in our processes --------------------------------------------------------

RARELY = "1h"
BEAT_S = 5  # a heartbeat through TLS takes 1.5 ms of a processor, and dask would have two a second
SLOWED_S = {
    "find-missing": 60,  # a worker looks for the results of others, which no measurement needs
    "shift_counters": 60,
    "idle-timeout": 10,  # a scheduler looks four times a second for limits that are not set
    "no-workers-timeout": 10,
}
HTTP = "127.0.0.1:0"  # distributed opens a port for HTTP whatever is asked; with no route it answers 404
# Each line says what it would cost. A worker waits while its child is measured: whatever wakes it is in the watts.
CONFIG: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,  # looks at every thread each 10 ms
    "distributed.admin.tick.interval": RARELY,  # wakes each 20 ms to see that it can
    "distributed.admin.tick.cycle": RARELY,  # wakes each second to count the ticks
    "distributed.admin.system-monitor.interval": RARELY,  # reads /proc twice a second
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.system-monitor.host-cpu": False,
    "distributed.admin.system-monitor.gil.enabled": False,  # a thread that wakes each millisecond
    "distributed.diagnostics.nvml": False,  # asks the GPU with each heartbeat, which wakes an idle one
    "distributed.diagnostics.cudf": False,
    "distributed.scheduler.active-memory-manager.start": False,  # each 2 s, and results are small
    "distributed.scheduler.work-stealing": False,  # a measurement belongs to the device it was planned for
    "distributed.scheduler.http.routes": [],  # HTTP asks for no certificate: it has nothing to show
    "distributed.worker.http.routes": [],
    "distributed.comm.compression": False,  # records are small, a board's processor is slow
}


def configure(ttl_s: float = 60.0, quiet: bool = True) -> None:
    """Sets up dask for this process: few wakes, no HTTP, errors only on standard error.

    A worker that is silent for `ttl_s` is given up by the scheduler. To be called before anything of distributed
    is used: some of it is read when distributed is loaded. Raises UsageError where distributed is missing.
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
    """Says how to install distributed where it is missing."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError(MISSING) from error


def _quiet() -> None:
    """Leaves errors, a line each: distributed's own handlers write them to standard error."""
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
    )  # `line` says what it learns, in our words
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"distributed\."
    )  # its own calls of its own past


class _OneLine(logging.Formatter):
    """A message with the error it is about, without its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        why = f" ({type(error).__name__}: {error})" if error else ""
        return " ".join(f"{record.name}: {record.getMessage()}{why}".split())


def slow_timers(server: Any) -> None:
    """Slows the timers of a Worker or Scheduler that no configuration reaches; to be called before it starts."""
    timers = server.periodic_callbacks
    for name, seconds in SLOWED_S.items():
        if name in timers:
            timers[name].callback_time = seconds * 1000
    if beat := timers.get("heartbeat"):
        timers["heartbeat"].callback = _rarely(beat, beat.callback)


def _rarely(beat: Any, ask: Any) -> Any:
    """A heartbeat each BEAT_S, though each answer of the scheduler asks for two a second."""

    async def beaten() -> None:
        await ask()
        beat.callback_time = BEAT_S * 1000

    return beaten


def open_worker(address: str, security: Any | None, **more: Any) -> Any:
    """A calm Worker of one thread, to be awaited; it listens only where it reaches the scheduler from.

    `address` comes from `check_address`, and `configure` was called. Further arguments go to the Worker.
    """
    from distributed import Worker
    from distributed.comm import get_local_address_for

    here = get_local_address_for(address).partition("://")[2].strip("[]")
    worker = Worker(
        address,
        nthreads=1,
        memory_limit=0,  # the weight is in the child; a limit would be looked at ten times a second
        security=security,
        host=_bracketed(here),
        dashboard=False,
        dashboard_address=HTTP,
        **more,
    )
    slow_timers(worker)
    return worker
