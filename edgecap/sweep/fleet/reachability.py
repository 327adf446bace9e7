"""Whether a scheduler is where it should be and lets us in, asked before dask does, which would try for long and not say why.

A scheduler of dask speaks first, on TLS as without: one byte of it is the proof that both sides took each other's
certificates (with TLS 1.3 a refusal comes after the handshake).
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from edgecap.errors import EdgecapError

PATIENCE_S = 5.0
_FRAMES = 8  # bytes of the number that dask's messages begin with


class Unreachable(EdgecapError):
    """No scheduler there that lets us in; `lasting` where it will not change by itself."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


def check_reachable(address: str, security: Any | None, patience_s: float = PATIENCE_S) -> None:
    """Raises Unreachable where nobody answers, or who answers is no scheduler of this fleet."""
    host, port = _parted(address)
    try:
        with socket.create_connection((host, port), patience_s) as plain:
            if security is None:
                _check_begin(plain, address)
            else:
                _check_tls(plain, security, address)
    except ConnectionRefusedError as error:
        raise Unreachable(f"no scheduler listens at {address}") from error
    except TimeoutError as error:
        raise Unreachable(
            f"{address} does not answer: asleep, unplugged, or behind a firewall"
        ) from error
    except OSError as error:
        raise Unreachable(f"cannot reach {address}: {error.strerror or error}") from error


def _parted(address: str) -> tuple[str, int]:
    host, _, port = address.partition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


def _check_begin(stream: socket.socket, address: str) -> None:
    try:
        data = stream.recv(_FRAMES)
    except TimeoutError as error:
        raise Unreachable(
            f"{address} says nothing, as a scheduler with TLS would: give this machine's bundle with --tls FOLDER",
            lasting=True,
        ) from error
    if not data:
        raise Unreachable(f"{address} hung up at once")
    if len(data) == _FRAMES and int.from_bytes(data, "little") > 1_000_000:
        raise Unreachable(
            f"what answers at {address} is no scheduler of dask: check host and port", lasting=True
        )


def _check_tls(plain: socket.socket, security: Any, address: str) -> None:
    context = security.get_connection_args("client")["ssl_context"]
    try:
        with context.wrap_socket(plain, server_hostname=_parted(address)[0]) as stream:
            if not stream.recv(1):
                raise Unreachable(f"{address} hung up at once")
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"{address} has a certificate that this bundle's fleet did not give ({error.verify_message}):"
            " bundles of one `edgecap fleet init` belong together",
            lasting=True,
        ) from error
    except (ssl.SSLEOFError, ConnectionResetError) as error:
        raise Unreachable(f"{address} hung up while certificates were shown") from error
    except ssl.SSLError as error:
        raise Unreachable(_refused(error, address), lasting=True) from error


def _refused(error: ssl.SSLError, address: str) -> str:
    reason = error.reason or str(error)
    if "ALERT" in reason:
        words = reason.partition("ALERT_")[2].replace("_", " ").lower() or "refused"
        return f"{address} does not take this bundle's certificate ({words}): it is of another fleet, or its time is over"
    if reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "HTTP_REQUEST",
    ):
        return f"{address} does not speak TLS: start the scheduler with --tls, or leave it out here"
    return f"no TLS with {address}: {reason.replace('_', ' ').lower()}"
