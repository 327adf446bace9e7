"""A board for a browser on this machine: 127.0.0.1 only, reads only, and only records that lie on the shelf.

    /                 the page
    /version          changes when a record comes, goes or changes
    /data.json        what the page shows, as of now
    /records/<name>   the file of a record, as it is

A request under another host's name is refused, so that no page of another site can read here by giving its own
name this address.
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

from edgecap.errors import EdgecapError, UsageError
from edgecap.report.board.board import BoardFiles, board_page, board_values
from edgecap.report.board.entries import BoardEntry
from edgecap.storage.collection import Collection

ADDRESS, PORT = "127.0.0.1", 8765
_HOSTS = {"127.0.0.1", "localhost"}
_PATIENCE_S = 10  # that a request may take to arrive
_ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Response(NamedTuple):
    """What goes back: a status, a type, and bytes."""

    status: int
    kind: str
    body: bytes


class Desk:
    """Answers requests from a shelf, which is read again when it has changed."""

    def __init__(self, shelf: Collection[tuple[BoardEntry, ...]]) -> None:
        self._shelf = shelf
        self._lock = Lock()
        self._values: dict[str, Any] = {"version": None}
        self._files: dict[str, Path] = {}

    def answer(self, path: str) -> Response:
        """What a path gives; 404 where it gives nothing, 500 where the folder can no longer be read."""
        try:
            if path == "/":
                return Response(
                    200, "text/html; charset=utf-8", board_page(self._now(), live=True).encode()
                )
            if path == "/version":
                return _json({"version": self._shelf.version()})
            if path == "/data.json":
                return _json(self._now())
            if path == "/favicon.ico":  # browsers ask for one by themselves
                return Response(204, "image/x-icon", b"")
            return self._record(path)
        except (EdgecapError, OSError) as error:
            return _text(500, str(error))

    def _now(self) -> dict[str, Any]:
        """What the page shows. A change while it is read is seen at the next question."""
        with self._lock:
            version = self._shelf.version()
            if self._values["version"] != version:
                found = self._shelf.read()
                self._files = _by_name(found)
                names = {path: name for name, path in self._files.items()}
                self._values = board_values(
                    found, lambda path: f"records/{quote(os.fsencode(names[path]))}", version
                )
            return self._values

    def _record(self, path: str) -> Response:
        """A file by a name that was given out, so that no path leads elsewhere."""
        folder, _, name = path.lstrip("/").partition("/")
        file = self._files.get(os.fsdecode(unquote_to_bytes(name))) if folder == "records" else None
        if file is None:
            return _text(404, "nothing is here")
        return Response(200, "application/json", file.read_bytes())


def _by_name(found: BoardFiles) -> dict[str, Path]:
    """Records by the name of their file, numbered where two folders hold the same."""
    files: dict[str, Path] = {}
    for path in dict.fromkeys(one.path for one in found):
        name, number = path.name, 2
        while name in files:
            name, number = f"{number}-{path.name}", number + 1
        files[name] = path
    return files


def _json(value: Any) -> Response:
    return Response(
        200, "application/json", json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    )


def _text(status: int, words: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", words.encode("utf-8", "replace"))


# --- the server -------------------------------------------------------------------------------


def open_server(desk: Desk, port: int | None = None) -> ThreadingHTTPServer:
    """A server on 127.0.0.1; `port` 0 is any free one, None is 8765 or else any.

    The caller serves and closes it. Raises UsageError where the port is taken.
    """
    for wanted in (PORT, 0) if port is None else (port,):
        try:
            return _Server((ADDRESS, wanted), _handler(desk))
        except (OSError, OverflowError) as error:
            reason = error
    raise UsageError(f"cannot serve on {ADDRESS}:{port}: {reason}; --port 0 takes a free one")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port


def _handler(desk: Desk) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S
        server_version, sys_version = "edgecap", ""

        def do_GET(self) -> None:  # noqa: N802
            self._give(with_body=True)

        def do_HEAD(self) -> None:  # noqa: N802
            self._give(with_body=False)

        def _give(self, with_body: bool) -> None:
            allowed = is_own(self.headers.get("Host", ""))
            found = (
                desk.answer(urlsplit(self.path).path)
                if allowed
                else _text(403, "this board answers to 127.0.0.1")
            )
            self.send_response(found.status)
            for name, value in (
                {"Content-Type": found.kind, "Content-Length": str(len(found.body))} | _ALWAYS
            ).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(found.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a board that is looked at is no news."""

    return Handler


def is_own(host: str) -> bool:
    """Whether a Host header names this machine."""
    name, _, port = host.partition(":")
    return name.lower() in _HOSTS and (port == "" or port.isdigit())
