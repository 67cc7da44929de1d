"""A polite HTTP client for pictures: few requests a second to a host, deadlines, size caps, retries with pauses.

TLS certificates are verified, always. A redirect to another host is not followed: the user named this one.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from galsearch import schema
from galsearch.errors import GalsearchError, RemoteError

if TYPE_CHECKING:
    import httpx2

PER_SECOND = 5.0  # requests to one host, unless the plan says that it may be more
MOST_BYTES = 32 << 20
MOST_REDIRECTS = 3
LONGEST_PAUSE_SECONDS = 120.0
DOWN_AFTER = 8  # failures in a row, after which a host is left alone
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
AGENT = schema.software().replace(" ", "/") + " (cut-outs of survey images)"


@dataclass(frozen=True)
class Body:
    """An answer: status, media type, content, and how many requests it took."""

    status: int
    media_type: str
    content: bytes
    requests: int


class FailedError(RemoteError):
    """A request that was not answered, after all retries; `requests` were sent."""

    def __init__(self, message: str, requests: int) -> None:
        super().__init__(message)
        self.requests = requests


class HostDownError(FailedError):
    """A host that failed so often in a row that it is left alone until the next run."""


@dataclass
class Health:
    """What became of the requests to one host: counts by outcome, the last success and the last error."""

    counts: Counter[str] = field(default_factory=Counter)
    last_success: float | None = None
    last_error: str | None = None
    in_a_row: int = 0
    seconds: float = 0.0


class Client:
    """Requests to any number of hosts, from any number of threads.

    `per_second` holds for each host but those in `faster` (host to requests a second) and those on this machine.
    `retries` are those of one request, after growing pauses or as long as the host says (Retry-After). After
    `down_after` failures in a row a host is left alone: `HostDownError`. `stop` ends all waiting.
    """

    def __init__(
        self,
        *,
        per_second: float = PER_SECOND,
        faster: Mapping[str, float] | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        pause_seconds: float = 1.0,
        most_bytes: int = MOST_BYTES,
        down_after: int = DOWN_AFTER,
        stop: threading.Event | None = None,
    ) -> None:
        self.per_second, self.faster = min(per_second, PER_SECOND), dict(faster or {})
        self.timeout_seconds, self.retries, self.pause_seconds = timeout_seconds, retries, pause_seconds
        self.most_bytes, self.down_after = most_bytes, down_after
        self.stop = stop or threading.Event()
        self.health: dict[str, Health] = {}
        self._free_at: dict[str, float] = {}
        self._lock = threading.Lock()
        self._clients: dict[bool, httpx2.Client] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    def rate(self, host: str) -> float:
        """Return how many requests a second a host gets; infinity for one on this machine."""
        return self.faster.get(host, float("inf") if is_loopback(host) else self.per_second)

    def get(self, url: str, parameters: Mapping[str, Any]) -> Body:
        """Return the answer to GET; any status but those of passing trouble is an answer.

        Raises FailedError after the retries, HostDownError where the host was left alone before.
        """
        host, sent, pause = host_of(url), 0, self.pause_seconds
        health = self._health(host)
        while True:
            self._may_go_on(health, host, sent)
            self._take_turn(host)
            began, sent = time.monotonic(), sent + 1
            try:
                status, media_type, content, retry_after = self._once(url, parameters)
                trouble = f"{host} answers {status}" if status in RETRIED else None
            except RemoteError as error:
                raise FailedError(self._failed(health, str(error), began), sent) from None
            except _errors() as error:
                trouble, retry_after = f"{host}: {type(error).__name__}: {_short(error)}", None
            if trouble is None:
                self._answered(health, status, began)
                return Body(status, media_type, content, sent)
            self._failed(health, trouble, began)
            if sent > self.retries:
                raise FailedError(f"{trouble}, {sent} times", sent)
            self.stop.wait(min(max(pause, retry_after or 0.0), LONGEST_PAUSE_SECONDS))
            pause *= 2

    def is_down(self, host: str) -> bool:
        """Say whether a host failed so often in a row that it is left alone."""
        with self._lock:
            return host in self.health and self.health[host].in_a_row >= self.down_after

    def wrong(self, url: str, reason: str) -> None:
        """Take note that an answer of a host, whose status was fine, was none: it counts as a failure in a row."""
        self._failed(self._health(host_of(url)), reason, time.monotonic(), answered=True)

    def fine(self, url: str) -> None:
        """Take note that an answer of a host was one."""
        with self._lock:
            self._health_of(host_of(url)).in_a_row = 0

    def post_json(self, url: str, value: object) -> int:
        """Send JSON once and return the status. Raises RemoteError where it was not taken."""
        host = host_of(url)
        try:
            answer = self._client(host).post(url, json=value, timeout=self.timeout_seconds)
        except _errors() as error:
            raise RemoteError(f"{host}: {type(error).__name__}: {_short(error)}") from None
        if not 200 <= answer.status_code < 300:
            raise RemoteError(f"{host} answers {answer.status_code}")
        return answer.status_code

    # ---- one request

    def _once(self, url: str, parameters: Mapping[str, Any]) -> tuple[int, str, bytes, float | None]:
        """Return status, media type, content and seconds to wait; redirects within the host are followed."""
        host, end = host_of(url), time.monotonic() + self.timeout_seconds
        given: Mapping[str, Any] | None = parameters
        for _ in range(MOST_REDIRECTS + 1):
            with self._client(host).stream("GET", url, params=given) as answer:
                target = answer.headers.get("location") if 300 <= answer.status_code < 400 else None
                if target is None:
                    content = self._read(answer, end, host)
                    kind = answer.headers.get("content-type", "").partition(";")[0].strip()
                    return answer.status_code, kind, content, _seconds(answer.headers.get("retry-after"))
                url, given = _followed(str(answer.url), target), None
        raise RemoteError(f"{host} redirects more than {MOST_REDIRECTS} times; give the last address as base_url")

    def _read(self, answer: httpx2.Response, end: float, host: str) -> bytes:
        import httpx2

        parts, size = [], 0
        for part in answer.iter_raw():
            size += len(part)
            if size > self.most_bytes:
                raise RemoteError(
                    f"{host} sends more than {self.most_bytes} bytes for one picture; ask for fewer pixels"
                )
            if time.monotonic() > end:
                raise httpx2.ReadTimeout(f"the answer was not complete after {self.timeout_seconds:g} s")
            parts.append(part)
        return b"".join(parts)

    def _client(self, host: str) -> httpx2.Client:
        """Return the client for a host; what lies on this machine is asked without a proxy."""
        here = is_loopback(host)
        with self._lock:
            if here not in self._clients:
                self._clients[here] = _library().Client(
                    timeout=self.timeout_seconds,
                    follow_redirects=False,
                    trust_env=not here,
                    headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
                )
            return self._clients[here]

    # ---- politeness and health

    def _take_turn(self, host: str) -> None:
        """Wait until the host may be asked again."""
        rate = self.rate(host)
        if rate == float("inf"):
            return
        with self._lock:
            now = time.monotonic()
            mine = max(now, self._free_at.get(host, 0.0))
            self._free_at[host] = mine + 1 / rate
        self.stop.wait(mine - now)

    def _may_go_on(self, health: Health, host: str, sent: int) -> None:
        if self.stop.is_set():
            raise FailedError("stopped", sent)
        if health.in_a_row >= self.down_after and not sent:
            raise HostDownError(
                f"{host} failed {health.in_a_row} times in a row and is left alone until the next run, last with: "
                f"{health.last_error}",
                sent,
            )

    def _health_of(self, host: str) -> Health:
        return self.health.setdefault(host, Health())

    def _health(self, host: str) -> Health:
        with self._lock:
            return self._health_of(host)

    def _answered(self, health: Health, status: int, began: float) -> None:
        with self._lock:
            health.counts[str(status)] += 1
            health.last_success, health.seconds = time.time(), health.seconds + time.monotonic() - began
            if status != 200:
                health.in_a_row = 0

    def _failed(self, health: Health, trouble: str, began: float, *, answered: bool = False) -> str:
        with self._lock:
            health.counts["no picture" if answered else "failed"] += 1
            health.in_a_row, health.last_error = health.in_a_row + 1, trouble[:300]
            health.seconds += time.monotonic() - began
        return trouble


def host_of(url: str) -> str:
    """Return the host of an address, with its port where it names one."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def check_address(url: str) -> None:
    """Raise GalsearchError for an address that is not https, unless it is on this machine."""
    try:
        parts = urlsplit(url)
        host = host_of(url)
    except ValueError as error:
        raise GalsearchError(f"{url!r:.80} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise GalsearchError(f"{url!r:.80} is no address, expected one that begins with https://")
    if parts.scheme == "http" and not is_loopback(host):
        raise GalsearchError(
            f"{url!r:.80} is http, over which anyone on the way can exchange pictures; write https://{host}"
        )


def _followed(url: str, target: str) -> str:
    """Return where a redirect leads; RemoteError unless it stays with the host and its encryption."""
    result = urljoin(url, target)
    before, after = urlsplit(url), urlsplit(result)
    if after.hostname != before.hostname or (before.scheme == "https" and after.scheme != "https"):
        raise RemoteError(
            f"{before.hostname} points to {after.scheme}://{after.hostname}, which is not followed; if you trust it, "
            "give it as base_url"
        )
    return result


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After; None for a date or none."""
    return float(text) if text and text.strip().isdecimal() else None


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _errors() -> tuple[type[Exception], ...]:
    library = _library()
    return (library.HTTPError, library.InvalidURL)


def _library() -> Any:
    try:
        import httpx2
    except ImportError:
        raise GalsearchError("requests to services need the package httpx2: pip install 'galsearch[watch]'") from None
    return httpx2
