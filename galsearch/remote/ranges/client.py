"""HTTP range requests (RFC 9110, section 14) for parts of one file, whose answers are believed in nothing.

Every answer must be exactly the part that was asked for, of a file of the same length and validators as before. No
redirect leaves the host, a request has a deadline for all of it, TLS certificates are verified.
"""

from __future__ import annotations

import ipaddress
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from galsearch import schema
from galsearch.errors import FormatError, GalsearchError, RemoteError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
AGENT = schema.software().replace(" ", "/") + " (atlas by byte ranges)"
TIMEOUT_SECONDS = 60.0  # of one request with everything about it
TRIES = 3
PAUSE_SECONDS = 0.5  # before the second try, and twice as long before the third
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses after which the same request may get an answer
PARALLEL = 12  # requests at a time
MOST_REDIRECTS = 3  # on the same host
MOST_BYTES = 1 << 44  # of a file, 16 TB
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_ADDRESS = re.compile(r"(https?):/{1,2}(?=[^/])", re.IGNORECASE)
_ORIGIN = ("scheme", "hostname", "port")


def address_of(name: object) -> str | None:
    """Return the address that a text or path is, `http://` or `https://`; None for the name of a file.

    A path has lost one of the two slashes, which is put back.
    """
    text = str(name)
    match = _ADDRESS.match(text)
    return f"{match[1].lower()}://{text[match.end() :]}" if match else None


def checked_address(url: str) -> str:
    """Return an address that may be asked. Raises GalsearchError for one with a password, or none at all."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises where it is no number
    except ValueError as error:
        raise GalsearchError(f"{url!r:.100} is no address ({error}); expected https://host/name.duckdb") from None
    if not parts.hostname or parts.path in ("", "/") or any(sign <= " " for sign in url):
        raise GalsearchError(f"{url!r:.100} is no address of a file; expected https://host/name.duckdb")
    if parts.username is not None or parts.password is not None:
        raise GalsearchError(
            f"the address at {parts.hostname} has a user or password in it, which would be shown and kept; download "
            "the file and open that, or ask for a link that needs none"
        )
    return url.partition("#")[0]


def shown(url: str) -> str:
    """Return an address without what follows `?`: it may hold a key."""
    return url.partition("?")[0]


@dataclass(frozen=True)
class Version:
    """What tells one state of a file from another: its length, and the validators that the server states."""

    size: int
    etag: str | None
    modified: str | None

    @property
    def is_sure(self) -> bool:
        """Whether another state would have another validator."""
        return self.etag is not None or self.modified is not None


class Client:
    """Requests for parts of the file at one address, from any number of threads.

    `timeout_seconds` is for each request with its redirects, headers and content; a failure of the kind that passes is
    tried again twice within it.
    """

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.url, self.name = checked_address(url), shown(url)
        self.host = urlsplit(url).netloc
        self.timeout_seconds = timeout_seconds
        self.requests = self.received = 0  # for those who measure
        here = _is_loopback(urlsplit(url).hostname or "")
        library = _library()
        self._client: httpx2.Client = library.Client(
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=not here,  # what lies on this machine is asked without a proxy
            headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
            limits=library.Limits(
                max_connections=PARALLEL + 4, max_keepalive_connections=PARALLEL, keepalive_expiry=30
            ),
        )
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections; requests under way end with an error."""
        self._client.close()

    def first(self, count: int) -> tuple[bytes, Version]:
        """Return the first bytes of the file, up to `count`, and which state of it they are of."""
        return _within(self.timeout_seconds, lambda: self._tried(0, count, None), self.name)

    def parts(self, spans: Sequence[tuple[int, int]], version: Version, take: Callable[[int, bytes], None]) -> None:
        """Get spans of bytes (start, stop), several at a time, and give each to `take` with its start.

        Raises RemoteError for the first that fails; FormatError where the file is another one than `version` says.
        """
        if len(spans) == 1:
            start, stop = spans[0]
            take(start, _within(self.timeout_seconds, lambda: self._tried(start, stop, version), self.name)[0])
            return
        waiting: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        for span in spans:
            waiting.put(span)
        arrived: queue.SimpleQueue[tuple[int, bytes] | BaseException] = queue.SimpleQueue()
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                try:
                    start, stop = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    arrived.put((start, self._tried(start, stop, version)[0]))
                except BaseException as error:  # noqa: BLE001  it is raised again where somebody waits
                    arrived.put(error)
                    return

        for number in range(min(PARALLEL, len(spans))):
            threading.Thread(target=work, daemon=True, name=f"galsearch-range-{number}").start()
        try:
            for _ in spans:
                take(*self._next(arrived))
        finally:
            ended.set()

    def _next(self, arrived: queue.SimpleQueue[Any]) -> tuple[int, bytes]:
        try:
            result = arrived.get(timeout=self.timeout_seconds)
        except queue.Empty:
            raise _late(self.name, self.timeout_seconds) from None
        if isinstance(result, BaseException):
            raise result
        return result

    # ---- one request

    def _tried(self, start: int, stop: int, version: Version | None) -> tuple[bytes, Version]:
        """Return the bytes of the first try that gets any. Raises RemoteError with the last reason."""
        end, pause = time.monotonic() + self.timeout_seconds, PAUSE_SECONDS
        for number in range(1, TRIES + 1):
            try:
                return self._followed(start, stop, version, end)
            except _PassingError as error:
                reason = str(error)
            except _errors() as error:
                if _is_certificate(error):
                    raise RemoteError(
                        f"{self.host} has no valid certificate ({_short(error)}); nothing was read"
                    ) from None
                reason = f"{type(error).__name__}: {_short(error)}"
            if number == TRIES or time.monotonic() + pause > end:
                break
            time.sleep(pause)
            pause *= 2
        raise RemoteError(
            f"{self.name}: {self.host} did not give bytes {start} to {stop - 1} ({reason}); try again later"
        )

    def _followed(self, start: int, stop: int, version: Version | None, end: float) -> tuple[bytes, Version]:
        url = self.url
        for _ in range(MOST_REDIRECTS + 1):
            with self._client.stream("GET", url, headers={"Range": f"bytes={start}-{stop - 1}"}) as answer:
                with self._lock:
                    self.requests += 1
                target = answer.headers.get("location") if 300 <= answer.status_code < 400 else None
                if target is None:
                    return self._taken(answer, start, stop, version, end)
                url = self._allowed(url, urljoin(url, target))
        raise RemoteError(f"{self.name}: {self.host} redirects more than {MOST_REDIRECTS} times; give the last address")

    def _allowed(self, here: str, there: str) -> str:
        try:
            before, after = urlsplit(here), urlsplit(there)
            same = all(getattr(before, part) == getattr(after, part) for part in _ORIGIN)
        except ValueError:
            raise RemoteError(f"{self.name}: {self.host} points to {there!r:.100}, which is no address") from None
        if not same:
            raise RemoteError(
                f"{self.name}: {self.host} points to {after.scheme}://{after.netloc}, another host, which is not "
                "followed; if you trust it, open the address that it points to"
            )
        return there

    def _taken(
        self, answer: httpx2.Response, start: int, stop: int, version: Version | None, end: float
    ) -> tuple[bytes, Version]:
        """Return what an answer brings, once everything that it says of itself fits what was asked for."""
        if answer.status_code in AGAIN:
            raise _PassingError(f"it answers with HTTP status {answer.status_code}")
        if version is not None and answer.status_code in (404, 410, 412, 416):
            raise changed(self.name, f"it answers with HTTP status {answer.status_code} now")
        if answer.status_code == 200:
            raise RemoteError(
                f"{self.name}: {self.host} answers a request for a part with the whole file (HTTP status 200), so it "
                "serves no byte ranges; download the file and open that, or put it on a host that serves them, as "
                "nginx, Apache and object stores do"
            )
        if answer.status_code != 206:
            raise RemoteError(
                f"{self.name}: {self.host} answers with HTTP status {answer.status_code}, expected 206 (a part of the "
                "file); check the address"
            )
        first, last, size = self._stated(answer)
        stated = Version(size, answer.headers.get("etag") or None, answer.headers.get("last-modified") or None)
        if version is not None and stated != version:
            raise changed(self.name, _difference(version, stated))
        if first != start or last != min(stop, size) - 1:
            raise self._lie(f"bytes {first} to {last} where {start} to {min(stop, size) - 1} were asked for")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise self._lie(f"a part that is packed ({answer.headers['content-encoding']:.40})")
        return self._read(answer, last + 1 - first, end), stated

    def _stated(self, answer: httpx2.Response) -> tuple[int, int, int]:
        text = answer.headers.get("content-range", "")
        match = _RANGE.fullmatch(text)
        first, last, size = map(int, match.groups()) if match else (0, 0, 0)
        if not match or not first <= last < size <= MOST_BYTES:
            raise self._lie(f"Content-Range {text!r:.80}")
        return first, last, size

    def _read(self, answer: httpx2.Response, count: int, end: float) -> bytes:
        parts, size = [], 0
        for part in answer.iter_raw():
            size += len(part)
            if size > count:
                raise self._lie(f"more than the {count} bytes that it announced")
            if time.monotonic() > end:
                raise _late(self.name, self.timeout_seconds)
            parts.append(part)
        if size != count:
            raise _PassingError(f"{size} of {count} bytes came")
        with self._lock:
            self.received += size
        return b"".join(parts)

    def _lie(self, what: str) -> RemoteError:
        return RemoteError(
            f"{self.name}: {self.host} answers with {what}; its byte ranges cannot be relied on, so download the file "
            "and open that"
        )


class _PassingError(Exception):
    """A failure after which the same request may get an answer."""


def changed(name: str, how: str) -> FormatError:
    """Return the error of a file that is another one than when it was opened."""
    return FormatError(f"{name}: was changed while it was open ({how}); open the atlas again")


def _difference(before: Version, now: Version) -> str:
    if before.size != now.size:
        return f"it had {before.size} bytes and has {now.size}"
    if before.etag != now.etag:
        return f"its ETag was {before.etag!s:.60} and is {now.etag!s:.60}"
    return f"it was modified {before.modified!s:.60}, and now {now.modified!s:.60}"


def _late(name: str, seconds: float) -> RemoteError:
    return RemoteError(
        f"{name}: no complete answer within {seconds:g} s; try again, or download the file and open that"
    )


def _within(seconds: float, call: Callable[[], T], name: str) -> T:
    """Return what a call returns, or raise RemoteError after so many seconds, whatever the call is waiting for.

    A server that sends its headers a byte at a time keeps a socket busy for ever; the thread that waits is left behind.
    """
    result: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            result.put((call(), None))
        except BaseException as error:  # noqa: BLE001  it is raised again where somebody waits
            result.put((None, error))

    threading.Thread(target=run, daemon=True, name="galsearch-range").start()
    try:
        value, error = result.get(timeout=seconds)
    except queue.Empty:
        raise _late(name, seconds) from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _errors() -> tuple[type[Exception], ...]:
    library = _library()
    return (library.HTTPError, library.InvalidURL, library.StreamError, RuntimeError)  # the last: closed meanwhile


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _library() -> Any:
    try:
        import fsspec  # noqa: F401  DuckDB reads by it what we read
        import httpx2
    except ImportError as error:
        raise GalsearchError(
            f"an atlas behind an address needs the package {error.name}; `pip install 'galsearch[remote]'`"
        ) from None
    return httpx2
