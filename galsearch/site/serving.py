"""A preview of a static site on this machine: files by HTTP, whole or by byte range, as good servers give them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from galsearch.errors import GalsearchError
from galsearch.site.folder import MANIFEST, PAGE, read_manifest

HOST = "127.0.0.1"
PORT = 8000
PIECE = 1 << 18
IDLE_SECONDS = 60
TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".json": "application/json", ".txt": "text/plain; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png",
    ".wasm": "application/wasm", ".woff2": "font/woff2", ".ico": "image/x-icon", ".webmanifest": "application/json",
}  # fmt: skip
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_OUR_NAMES = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


def serve_site(folder: str | Path, *, port: int = PORT, ready: Callable[[str], None] = lambda address: None) -> None:
    """Show the static site in `folder` to the browsers of this machine, until Ctrl-C.

    `ready` is called with the address once it can be opened; port 0 takes any that is free. Only this machine can
    reach it. Raises FormatError where `folder` is no site, GalsearchError where the port is taken.
    """
    with site_server(Path(folder), port=port) as server:
        ready(f"http://{HOST}:{server.server_address[1]}/")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def site_server(folder: Path, *, port: int) -> ThreadingHTTPServer:
    """Return a server of a site that listens already; `serve_forever` answers."""
    read_manifest(folder)
    if not 0 <= port < 65_536:
        raise GalsearchError(f"port is {port}, expected 0 (any that is free) to 65535")
    try:
        return _Server((HOST, port), partial(_Handler, folder.resolve()))
    except OSError as error:
        raise GalsearchError(
            f"port {port} of this machine cannot be used ({error.strerror}); choose another with --port, or 0 for any"
        ) from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with files of one folder."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def __init__(self, folder: Path, *arguments) -> None:
        self._folder = folder
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *arguments) -> None:
        """Say nothing of each request."""

    def _answer(self, *, with_body: bool) -> None:
        if not _OUR_NAMES.fullmatch(self.headers.get("Host") or HOST):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)  # a page elsewhere that had its own name lead here
            return
        path = self._file()
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with contextlib.suppress(ConnectionError, TimeoutError), path.open("rb") as file:
            self._send(file, path, with_body=with_body)

    def _file(self) -> Path | None:
        """Return the file that is asked for; None for what is not in the folder."""
        name = unquote(urlsplit(self.path).path, errors="replace").lstrip("/") or PAGE
        if "\0" in name:
            return None
        try:
            path = (self._folder / name).resolve()
            return path if path.is_file() and path.is_relative_to(self._folder) else None
        except OSError:  # a name that is too long
            return None

    def _send(self, file: BinaryIO, path: Path, *, with_body: bool) -> None:
        size = path.stat().st_size
        span = _span(self.headers.get("Range"), size)
        if span is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
            return
        start, stop, is_part = span
        self.send_response(HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self._headers(TYPES.get(path.suffix.lower(), "application/octet-stream"), stop - start)
        if with_body:
            file.seek(start)
            for at in range(start, stop, PIECE):
                self.wfile.write(file.read(min(PIECE, stop - at)))

    def _headers(self, kind: str, length: int) -> None:
        changes = urlsplit(self.path).path.lstrip("/") in ("", PAGE, MANIFEST)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache" if changes else "max-age=3600")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self._headers("text/plain; charset=utf-8", 0)


def _span(stated: str | None, size: int) -> tuple[int, int, bool] | None:
    """Return the first byte, the one after the last, and whether that is a part; None for a range beyond the file.

    What is no single range is answered with the whole, as a server may.
    """
    result = _RANGE.fullmatch(stated.strip()) if stated else None
    if result is None or not any(result.groups()):
        return 0, size, False
    first, last = result.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < int(first):
            return 0, size, False
    return (start, stop, True) if start < stop else None
