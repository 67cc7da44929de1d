"""A service on loopback, as tests and benchmarks start it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import uvicorn

from galsearch.service.app import service_app
from galsearch.service.settings import Settings


@contextlib.contextmanager
def running(*paths, settings: Settings | None = None) -> Iterator[str]:
    """Serve atlases inside the block; give the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(
        service_app(paths, settings), host="127.0.0.1", port=port, log_level="error", access_log=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)


class Answer:
    """What came back: status, headers, content."""

    def __init__(self, status: int, headers: Any, content: bytes, url: str) -> None:
        self.status, self.headers, self.content, self.url = status, headers, content, url

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def request(
    url: str, *, data: bytes | None = None, method: str | None = None, timeout: float = 60, **headers: str
) -> Answer:
    """Return an answer of any status; redirects are not followed."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = urllib.request.Request(url, data=data, headers=named, method=method)
    try:
        with _OPENER.open(sent, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read(), url)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read(), url)


def get(base: str, path: str, /, **params: Any) -> Answer:
    """Ask with parameters; a list is one several times."""
    query = urllib.parse.urlencode(params, doseq=True)
    return request(f"{base}{path}" + (f"?{query}" if query else ""))


def post(base: str, path: str, /, **params: Any) -> Answer:
    """Send a form."""
    return request(f"{base}{path}", data=urllib.parse.urlencode(params, doseq=True).encode())


def post_json(base: str, path: str, value: Any, **headers: str) -> Answer:
    """Send JSON."""
    return request(f"{base}{path}", data=json.dumps(value).encode(), content_type="application/json", **headers)


def post_parts(base: str, path: str, files: dict[str, tuple[str, bytes]], **params: str) -> Answer:
    """Send a form of parts, with files."""
    mark = "x7c1d0f3b"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in params.items()
    ]
    for name, (file, content) in files.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n")
    body = b"".join(parts) + f"--{mark}--\r\n".encode()
    return request(f"{base}{path}", data=body, content_type=f"multipart/form-data; boundary={mark}")
