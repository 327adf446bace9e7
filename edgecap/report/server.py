"""Serve the board to browsers on this machine: on 127.0.0.1, read-only.

    /                 the page
    /version          changes when a record comes, goes or changes
    /data.json        the current content of the page
    /records/<name>   the file of a record of the collection, unchanged

A request under another host name is refused: otherwise a page of another site could read records by
giving its own name this address (DNS rebinding).
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
from edgecap.storage.collection import Collection, LoadedRecord

ADDRESS, PORT = "127.0.0.1", 8765
_HOSTS = {"127.0.0.1", "localhost"}
_REQUEST_TIMEOUT_S = 10  # for a request to arrive
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Response(NamedTuple):
    """An HTTP response: status, content type and body."""

    status: int
    content_type: str
    body: bytes

    def headers(self) -> dict[str, str]:
        """Return the headers that describe the body."""
        return {"Content-Type": self.content_type, "Content-Length": str(len(self.body))}


class BoardApp:
    """Answers requests from a collection of records, which is read again when it has changed."""

    def __init__(self, collection: Collection[tuple[BoardEntry, ...]]) -> None:
        self._collection = collection
        self._lock = Lock()
        self._values: dict[str, Any] = {"version": None}
        self._files: dict[str, Path] = {}

    def answer(self, path: str) -> Response:
        """Return the response to a path: 404 if unknown, 500 if the folder cannot be read."""
        try:
            if path == "/":
                return Response(
                    200, "text/html; charset=utf-8", board_page(self._current(), live=True).encode()
                )
            if path == "/version":
                return _json({"version": self._collection.version()})
            if path == "/data.json":
                return _json(self._current())
            if path == "/favicon.ico":  # browsers ask for one by themselves
                return Response(204, "image/x-icon", b"")
            return self._record(path)
        except (EdgecapError, OSError) as error:
            return _text(500, str(error))

    def _current(self) -> dict[str, Any]:
        """Return the content of the page; read the collection again if it has changed."""
        with self._lock:
            version = self._collection.version()
            if self._values["version"] != version:
                files = self._collection.read()
                self._files = _by_name(files)
                names = {path: name for name, path in self._files.items()}
                self._values = board_values(
                    files, lambda path: f"records/{quote(os.fsencode(names[path]))}", version
                )
            return self._values

    def _record(self, path: str) -> Response:
        """Return a file by a name from the page, so that no path leads outside the collection."""
        folder, _, name = path.lstrip("/").partition("/")
        file = self._files.get(os.fsdecode(unquote_to_bytes(name))) if folder == "records" else None
        if file is None:
            return _text(404, "nothing is here")
        return Response(200, "application/json", file.read_bytes())


def _by_name(files: BoardFiles) -> dict[str, Path]:
    """Return the paths of records by file name, numbered if two folders hold the same name."""
    paths: dict[str, Path] = {}
    for path in (file.path for file in files if isinstance(file, LoadedRecord)):
        name, number = path.name, 2
        while name in paths:
            name, number = f"{number}-{path.name}", number + 1
        paths[name] = path
    return paths


def _json(value: Any) -> Response:
    return Response(
        200, "application/json", json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    )


def _text(status: int, words: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", words.encode("utf-8", "replace"))


# --- the server -------------------------------------------------------------------------------


def open_server(app: BoardApp, port: int | None = None) -> ThreadingHTTPServer:
    """Open a server on 127.0.0.1; the caller serves and closes it.

    `port` 0 takes any free port; None takes 8765, or any if that is in use. Raise UsageError if the
    port is in use.
    """
    for candidate in (PORT, 0) if port is None else (port,):
        try:
            return _Server((ADDRESS, candidate), _handler(app))
        except (OSError, OverflowError) as error:
            reason = error
    raise UsageError(f"cannot serve on {ADDRESS}:{port}: {reason}; --port 0 takes a free one")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on Windows, two servers could share a port


def _handler(app: BoardApp) -> type[BaseHTTPRequestHandler]:
    class BoardHandler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_S
        server_version, sys_version = "edgecap", ""

        def do_GET(self) -> None:  # noqa: N802
            self._respond(with_body=True)

        def do_HEAD(self) -> None:  # noqa: N802
            self._respond(with_body=False)

        def _respond(self, with_body: bool) -> None:
            if is_own(self.headers.get("Host", "")):
                response = app.answer(urlsplit(self.path).path)
            else:
                response = _text(403, "this board answers to 127.0.0.1")
            self.send_response(response.status)
            for name, value in (response.headers() | _HEADERS).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(response.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: requests are not worth a line on the terminal."""

    return BoardHandler


def is_own(host: str) -> bool:
    """Return True if a Host header names this machine."""
    name, _, port = host.partition(":")
    return name.lower() in _HOSTS and (port == "" or port.isdigit())
