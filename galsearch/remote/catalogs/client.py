"""A bounded, rate-limited HTTP client for catalog services: what goes out, and how much may come back.

One session for all services, which pyvo uses too: at most 5 requests a second to a host, a deadline for each question
with its retries, a cap on the size of an answer, TLS verified, no redirect to another host. urllib3's own retries know
neither the deadline nor the rate, and repeat at once the first time.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from galsearch.errors import RemoteError
from galsearch.remote.catalogs.service import check_url

T = TypeVar("T")
PER_SECOND = 5  # requests to a host, whoever in this process sends them
MOST_BYTES = 64 << 20  # of an answer
MOST_REDIRECTS = 3  # on the same host, which a TAP service may ask for
TRIES = 3
PAUSE_SECONDS = 1.0  # before the second try, and twice as long before each further one
READ_BYTES = 1 << 16
AGAIN = (429, 500, 502, 503, 504)  # statuses after which the same question may get an answer
_ORIGIN = ("scheme", "hostname", "port")


class Pace:
    """Lets through so many requests a second, however many threads ask."""

    def __init__(self, per_second: float) -> None:
        self._step, self._next, self._lock = 1 / per_second, 0.0, threading.Lock()

    def wait(self) -> None:
        """Sleep until the next request may go out."""
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._step
        time.sleep(max(0.0, start - time.monotonic()))


_PACES: dict[str, Pace] = {}
_PACES_LOCK = threading.Lock()


def _pace(host: str) -> Pace:
    with _PACES_LOCK:
        return _PACES.setdefault(host, Pace(PER_SECOND))


def deadline(seconds: float, call: Callable[[], T], *, host: str) -> T:
    """Return what a call returns, or raise RemoteError after so many seconds, whatever the call is waiting for.

    A server that sends its headers a byte at a time keeps a socket busy for ever; the thread that waits is left behind.
    """
    result: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(1)

    def run() -> None:
        try:
            result.put((call(), None))
        except BaseException as error:  # noqa: BLE001  it is raised again where somebody waits
            result.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = result.get(timeout=seconds)
    except queue.Empty:
        raise RemoteError(f"{host} did not answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


@dataclass(frozen=True)
class _Sent:
    """One question as it goes out, and when its time is over."""

    method: str
    url: str
    data: Any
    files: dict[str, tuple[str, bytes]] | None
    end: float

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).netloc)


class Session(requests.Session):
    """A session of requests whose answers are bounded; `timeout_seconds` is for one question with its retries.

    Every answer is read whole before it is returned. Raises RemoteError, with one sentence, where there is none.
    """

    def __init__(self, *, timeout_seconds: float = 60.0, agent: str = "galsearch") -> None:
        super().__init__()
        self.timeout_seconds = timeout_seconds
        self.headers.update({"User-Agent": agent, "Accept-Encoding": "identity"})  # unpacked it could be any size

    def request(self, method: Any, url: Any, *args: Any, **given: Any) -> requests.Response:
        """Send one question: of the options of `requests` only data and files count, none may loosen the bounds."""
        check_url(url)
        files = {name: (name, part.read()) for name, part in (given.get("files") or {}).items()}  # to be sent again
        sent = _Sent(method, url, given.get("data"), files or None, time.monotonic() + self.timeout_seconds)
        return deadline(self.timeout_seconds, lambda: self._tried(sent), host=sent.host)

    def _tried(self, sent: _Sent) -> requests.Response:
        """Return the answer of the first try that gets one; RemoteError with the last reason."""
        for number in range(1, TRIES + 1):
            last = number == TRIES
            try:
                answer = self._followed(sent)
                if answer.status_code not in AGAIN or last:
                    return answer
            except requests.exceptions.SSLError as error:
                raise RemoteError(f"{sent.host} has no valid certificate ({_short(error)}); nothing was sent") from None
            except requests.RequestException as error:
                if last or time.monotonic() > sent.end:
                    raise RemoteError(f"{sent.host} cannot be reached ({_short(error)})") from None
            pause = PAUSE_SECONDS * 2 ** (number - 1)
            if time.monotonic() + pause > sent.end:
                break
            time.sleep(pause)
        raise RemoteError(f"{sent.host} did not answer within {self.timeout_seconds:g} s")

    def _followed(self, sent: _Sent) -> requests.Response:
        """Return the answer of one try, after redirects that stay on the host."""
        for _ in range(MOST_REDIRECTS + 1):
            _pace(sent.host).wait()
            answer = self._once(sent)
            target = self.get_redirect_target(answer)
            if target is None:
                return answer
            url = self._allowed(sent.url, urljoin(sent.url, target), sent.host)
            keeps = answer.status_code in (307, 308)
            sent = replace(sent, url=url) if keeps else _Sent("GET", url, None, None, sent.end)
        raise RemoteError(f"{sent.host} redirects more than {MOST_REDIRECTS} times")

    @staticmethod
    def _allowed(here: str, there: str, host: str) -> str:
        before, after = urlsplit(here), urlsplit(there)
        if any(getattr(before, part) != getattr(after, part) for part in _ORIGIN):
            raise RemoteError(f"{host} points to {after.scheme}://{after.netloc}, another host, which is not followed")
        return there

    def _once(self, sent: _Sent) -> requests.Response:
        left = max(0.1, sent.end - time.monotonic())
        answer = super().request(
            *(sent.method, sent.url),
            **{"data": sent.data, "files": sent.files, "stream": True, "allow_redirects": False},
            timeout=left,
            verify=True,
        )
        with answer:
            content = self._content(answer.raw, sent)
        answer._content, answer._content_consumed = content, True
        answer.raw = urllib3.HTTPResponse(io.BytesIO(content), headers=answer.headers, preload_content=False)
        return answer

    def _content(self, raw: urllib3.HTTPResponse, sent: _Sent) -> bytes:
        """Return the body of an answer, as it came; RemoteError beyond its size or its time, or where it is cut."""
        parts, size = [], 0
        try:
            while part := raw.read1(READ_BYTES):
                size += len(part)
                if size > MOST_BYTES:
                    raise RemoteError(f"{sent.host} answers with more than {MOST_BYTES >> 20} MiB, which is not read")
                if time.monotonic() > sent.end:
                    raise RemoteError(f"{sent.host} did not finish its answer within {self.timeout_seconds:g} s")
                parts.append(part)
        except urllib3.exceptions.HTTPError as error:
            raise requests.exceptions.ConnectionError(error) from None
        promised = raw.headers.get("Content-Length", "")
        if promised.isdigit() and int(promised) != size:
            raise requests.exceptions.ConnectionError(f"{size} of {promised} bytes came")
        return b"".join(parts)


def content_of(answer: requests.Response, host: str) -> bytes:
    """Return the body of an answer with status 200; RemoteError for another status."""
    if answer.status_code != 200:
        raise RemoteError(
            f"{host} answers with HTTP status {answer.status_code}{_reason(answer.headers, answer.content)}"
        )
    return answer.content


def _reason(headers: Mapping[str, str], content: bytes) -> str:
    """Return what a service gives as the reason of a refusal, where it is plain text or a VOTable."""
    text = content[:2000].decode("utf-8", "replace")
    if "<INFO" in text:
        text = text.partition("QUERY_STATUS")[2].partition(">")[2].partition("<")[0]
    elif not headers.get("Content-Type", "").startswith("text/plain"):
        return ""
    text = " ".join(text.split())[:200]
    return f" ({text})" if text else ""


def _short(error: BaseException) -> str:
    """Return what an error of a connection comes to, in few words."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    inner = getattr(inner, "reason", inner)
    return " ".join(str(inner).split())[-160:]
