"""A server of files by byte ranges on this machine: as slow as a line is said to be, and as wrong as a test wants."""

from __future__ import annotations

import argparse
import contextlib
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Line:
    """A line that all connections share: a delay before each answer, and so many bits a second."""

    def __init__(self, delay_seconds: float = 0.0, bits_per_second: float = 0.0) -> None:
        self.delay_seconds, self._rate = delay_seconds, bits_per_second / 8
        self._free, self._lock = 0.0, threading.Lock()

    def pass_through(self, count: int) -> None:
        """Sleep as long as so many bytes take, after those before them."""
        if self._rate:
            with self._lock:
                self._free = max(self._free, time.monotonic()) + count / self._rate
                until = self._free
            time.sleep(max(0.0, until - time.monotonic()))


@dataclass
class Served:
    """Files by name, what was asked for, and what is done wrong: `wrong(handler, content, start, stop)`.

    `wrong` answers itself and returns True, or returns False for the right answer.
    """

    files: dict[str, Path]
    line: Line = field(default_factory=Line)
    etag: Callable[[bytes], str | None] = lambda content: f'"{len(content)}"'
    modified: str | None = None
    wrong: Callable[[BaseHTTPRequestHandler, int, int, int], bool] | None = None
    requests: list[tuple[int, int]] = field(default_factory=list)
    sent: int = 0
    address: str = ""

    def forget(self) -> None:
        """Count anew."""
        self.requests.clear()
        self.sent = 0


@contextlib.contextmanager
def serving(served: Served, *, certificate: ssl.SSLContext | None = None) -> Iterator[Served]:
    """Serve until the end of the block, at `served.address`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            path = served.files.get(self.path.partition("?")[0].strip("/"))
            if path is None or not path.exists():
                self.send_error(404)
                return
            size = path.stat().st_size
            start, stop = _asked(self.headers.get("Range", ""), size)
            served.requests.append((start, stop))
            time.sleep(served.line.delay_seconds)
            if served.wrong is not None and served.wrong(self, size, start, stop):
                return
            answer(self, served, path, start, stop)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """Say nothing of those who went away."""

    server = Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        server.socket = certificate.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    served.address = f"{scheme}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def _asked(text: str, size: int) -> tuple[int, int]:
    """Return what a Range header asks for, (start, stop); the whole file where there is none."""
    first, sign, last = text.removeprefix("bytes=").partition("-")
    return (int(first), min(int(last) + 1, size)) if sign else (0, size)


def answer(
    handler: BaseHTTPRequestHandler,
    served: Served,
    path: Path,
    start: int,
    stop: int,
    *,
    status: int = 206,
    content_range: str | None = None,
) -> None:
    """Send a part of a file, slowly where the line is slow."""
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(start)
        content = file.read(stop - start)
    handler.send_response(status)
    size = path.stat().st_size
    handler.send_header("Content-Range", content_range or f"bytes {start}-{stop - 1}/{size}")
    handler.send_header("Content-Length", str(len(content)))
    etag = served.etag(head + size.to_bytes(8, "little"))
    for name, value in (("ETag", etag), ("Last-Modified", served.modified)):
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.flush()
    for at in range(0, len(content), 1 << 14):
        part = content[at : at + (1 << 14)]
        served.line.pass_through(len(part))
        handler.wfile.write(part)
        handler.wfile.flush()
        served.sent += len(part)


def main() -> None:
    """Serve one file until standard input ends, and print its address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before each answer")
    parser.add_argument("--mbits", type=float, default=0.0, help="a second, for all connections together; 0: no bound")
    args = parser.parse_args()
    line = Line(args.delay_ms / 1e3, args.mbits * 1e6)
    with serving(Served({args.file.name: args.file}, line)) as served:
        sys.stdout.write(f"{served.address}/{args.file.name}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
