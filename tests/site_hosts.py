"""Hosts of static sites as they are: without ranges, compressing on the fly, redirecting; all on this machine."""

from __future__ import annotations

import contextlib
import functools
import gzip
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
MOVED = "/moved"
MODES = ("ranges", "no ranges", "gzip on the fly", "gzip on HEAD", "200 to a range", "redirects")


class Host:
    """A running host: where it is, and what was asked of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.sent = 0  # bytes of bodies


@contextlib.contextmanager
def hosting(folder: Path, mode: str = "ranges") -> Iterator[Host]:
    """Serve a folder at a free port as one kind of host does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    host = Host(f"http://127.0.0.1:{server.server_address[1]}/")
    server.RequestHandlerClass = partial(_Handler, folder, mode, host)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@functools.lru_cache(maxsize=64)
def _content(file: Path, changed: int) -> bytes:
    return file.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, mode: str, host: Host, *arguments: object) -> None:
        self.folder, self.mode, self.host = folder, mode, host
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        self.host.asked.append((self.command, path, self.headers.get("Range")))
        if self.mode == "redirects" and path.startswith("/data/"):
            self._send(302, b"", {"Location": MOVED + path})
            return
        file = self.folder / (path.removeprefix(MOVED).lstrip("/") or "index.html")
        if not file.is_file():
            self._send(404, b"none", {})
            return
        body = _content(file, file.stat().st_mtime_ns)
        headers = {"Content-Type": TYPES.get(file.suffix, "application/octet-stream"), "Cache-Control": "no-cache"}
        packs = self.mode == "gzip on the fly" or (self.mode == "gzip on HEAD" and self.command == "HEAD")
        if packs and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if self.mode != "no ranges":
            headers["Accept-Ranges"] = "bytes"
        if asked and self.mode not in {"no ranges", "200 to a range"}:
            first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
            if first >= len(body):
                self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            self._send(206, body[first : last + 1], headers)
            return
        self._send(200, body, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        with contextlib.suppress(ConnectionError):  # a browser may break off what it does not need
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
                self.host.sent += len(body)
