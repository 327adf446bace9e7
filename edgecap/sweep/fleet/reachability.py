"""Check that a scheduler answers and accepts us, before dask, which retries long without a reason.

A dask scheduler sends first, with and without TLS. One byte from it proves that both sides accepted
each other's certificates: with TLS 1.3, a refusal comes after the handshake.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from edgecap.errors import EdgecapError

PATIENCE_S = 5.0
_FRAMES = 8  # bytes of the number at the start of a dask message


class Unreachable(EdgecapError):
    """No scheduler accepts us at an address; `lasting` if waiting will not help."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


def check_reachable(address: str, security: Any | None, patience_s: float = PATIENCE_S) -> None:
    """Raise Unreachable unless a scheduler of this fleet answers at the address."""
    host, port = _host_and_port(address)
    try:
        with socket.create_connection((host, port), patience_s) as plain:
            if security is None:
                _check_first_bytes(plain, address)
            else:
                _check_tls(plain, security, address)
    except ConnectionRefusedError as error:
        raise Unreachable(f"no scheduler listens at {address}") from error
    except TimeoutError as error:
        raise Unreachable(
            f"{address} does not answer: it is off, unplugged, or behind a firewall"
        ) from error
    except OSError as error:
        raise Unreachable(f"cannot reach {address}: {error.strerror or error}") from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.partition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


def _check_first_bytes(stream: socket.socket, address: str) -> None:
    try:
        data = stream.recv(_FRAMES)
    except TimeoutError as error:
        raise Unreachable(
            f"{address} sends nothing, as a scheduler with TLS would: "
            "give this machine's bundle with --tls FOLDER",
            lasting=True,
        ) from error
    if not data:
        raise Unreachable(f"{address} closed the connection at once")
    if len(data) == _FRAMES and int.from_bytes(data, "little") > 1_000_000:
        raise Unreachable(f"{address} is not a dask scheduler: check host and port", lasting=True)


def _check_tls(plain: socket.socket, security: Any, address: str) -> None:
    context = security.get_connection_args("client")["ssl_context"]
    try:
        with context.wrap_socket(plain, server_hostname=_host_and_port(address)[0]) as stream:
            if not stream.recv(1):
                raise Unreachable(f"{address} closed the connection at once")
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            f"{address} has a certificate of another fleet ({error.verify_message}): "
            "use bundles of one `edgecap fleet init`",
            lasting=True,
        ) from error
    except (ssl.SSLEOFError, ConnectionResetError) as error:
        raise Unreachable(f"{address} closed the connection during the TLS handshake") from error
    except ssl.SSLError as error:
        raise Unreachable(_refused(error, address), lasting=True) from error


def _refused(error: ssl.SSLError, address: str) -> str:
    reason = error.reason or str(error)
    if "ALERT" in reason:
        words = reason.partition("ALERT_")[2].replace("_", " ").lower() or "refused"
        return (
            f"{address} refuses this bundle's certificate ({words}): "
            "it is of another fleet, or expired"
        )
    if reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "HTTP_REQUEST",
    ):
        return (
            f"{address} does not use TLS: start the scheduler with --tls, or leave --tls out here"
        )
    return f"no TLS with {address}: {reason.replace('_', ' ').lower()}"
