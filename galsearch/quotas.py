"""Quotas and waiting lines: how much one client may ask, and who is next when many ask at once.

Below the faces, so that a page and a service keep the same rules. A client is a session, and the address that it comes
from where that is known; many sessions of one address count together, so that opening links is no way around a quota.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from galsearch.errors import BusyError, GalsearchError
from galsearch.workers import client as worker_client

MINUTE = 60.0
MOST_CLIENTS = 10_000  # whose last minute is remembered
LINES = {"search": 8, "sql": 8}  # how many are worked on at once


@dataclass(frozen=True)
class Client:
    """Who asks: a session, and the address it comes from, None where it is not known or is that of a proxy."""

    session: str
    address: str | None = None


@dataclass(frozen=True)
class Quota:
    """What one client may ask, and how many are served at once.

    An action is what a person does once: queries that follow one another within `action_seconds` are one, such as the
    steps of a slider or the several counts of a page, up to `action_queries` of them and `longest_action_seconds`.
    `per_minute` bounds the actions of a session, `address_per_minute` those of all sessions of one address. `lines`
    says how many queries of each line are worked on at once; who waits longer than `wait_seconds` gets a BusyError.
    """

    per_minute: int = 60
    address_per_minute: int = 300
    action_seconds: float = 1.0
    longest_action_seconds: float = 5.0
    action_queries: int = 40
    wait_seconds: float = 20.0
    lines: Mapping[str, int] = field(default_factory=lambda: dict(LINES))


@dataclass
class _Recent:
    """The actions of one client within the last minute."""

    actions: deque[float] = field(default_factory=deque)
    last: float = float("-inf")
    queries: int = 0

    def count(self, now: float, quota: Quota, most: int) -> bool:
        """Count a query; False when it is one action too many."""
        while self.actions and now - self.actions[0] >= MINUTE:
            self.actions.popleft()
        goes_on = (
            bool(self.actions)
            and now - self.last <= quota.action_seconds
            and now - self.actions[-1] <= quota.longest_action_seconds
            and self.queries < quota.action_queries
        )
        if not goes_on and len(self.actions) >= most:
            return False
        if not goes_on:
            self.actions.append(now)
        self.last, self.queries = now, self.queries + 1 if goes_on else 1
        return True


class Turns:
    """The queries of all clients of one process: counted by client, and served in lines."""

    def __init__(self, quota: Quota | None = None) -> None:
        self.quota = quota or Quota()
        self._state = threading.Condition()
        self._recent: dict[tuple[str, str], _Recent] = {}
        self._held: dict[str, list[Client]] = {name: [] for name in self.quota.lines}
        self._waiting: dict[str, list[tuple[Client, float]]] = {name: [] for name in self.quota.lines}
        self._mine = threading.local()

    @contextlib.contextmanager
    def turn(self, client: Client, *, line: str = "search") -> Iterator[None]:
        """Wait for a turn in a line and hold it inside the block; in another turn of this thread nobody waits.

        Of those who wait, the one goes first whose address, then whose session, holds the fewest. Raises BusyError
        for a client that asks too often, and after `wait_seconds`.
        """
        if line not in self._held:
            raise GalsearchError(f"there is no line '{line}', there are: {', '.join(self._held)}")
        if getattr(self._mine, "held", False):
            yield
            return
        self._count(client)
        self._wait(client, line)
        self._mine.held = True
        token = worker_client.set(client.address or client.session)
        try:
            yield
        finally:
            worker_client.reset(token)
            self._mine.held = False
            with self._state:
                self._held[line].remove(client)
                self._state.notify_all()

    def _count(self, client: Client) -> None:
        quota, now = self.quota, time.monotonic()
        with self._state:
            if len(self._recent) > MOST_CLIENTS:
                self._recent = {key: one for key, one in self._recent.items() if now - one.last < MINUTE}
            parts = [("session", client.session, quota.per_minute)]
            if client.address:
                parts.append(("address", client.address, quota.address_per_minute))
            for kind, name, most in parts:
                if not self._recent.setdefault((kind, name), _Recent()).count(now, quota, most):
                    raise BusyError(
                        f"this {kind} asked {most} times within a minute, the most that is allowed here; go on in a "
                        "minute, or open the atlas on your own machine"
                    )

    def _wait(self, client: Client, line: str) -> None:
        ticket, held = (client, time.monotonic()), self._held[line]
        with self._state:
            self._waiting[line].append(ticket)
            try:
                if not self._state.wait_for(lambda: self._is_next(ticket, line), self.quota.wait_seconds):
                    raise BusyError(
                        f"waited {self.quota.wait_seconds:g} s in line behind others, {self.quota.lines[line]} queries "
                        "are worked on at once; try again in a moment"
                    )
                held.append(client)
            finally:
                self._waiting[line].remove(ticket)
                self._state.notify_all()

    def _is_next(self, ticket: tuple[Client, float], line: str) -> bool:
        held = self._held[line]

        def order(one: tuple[Client, float]) -> tuple:
            waiting, since = one
            of_address = sum(waiting.address is not None and other.address == waiting.address for other in held)
            return of_address, sum(other.session == waiting.session for other in held), since

        return len(held) < self.quota.lines[line] and ticket is min(self._waiting[line], key=order)


def address_of(remote: str | None, forwarded: str | None = None, *, proxies: int = 0) -> str | None:
    """Return the address that tells clients apart, or None where none does.

    `remote` is the address of the connection. X-Forwarded-For (`forwarded`) can be written by anybody; only the last
    `proxies` entries come from proxies of our own, and the first of those is the client. A private or loopback address
    is that of a proxy or of one's own machine, and tells nobody from another. IPv6 addresses count by their /64.
    """
    entries = [part.strip() for part in (forwarded or "").split(",") if part.strip()]
    stated = entries[-proxies] if proxies and len(entries) >= proxies else remote
    try:
        address = ipaddress.ip_address((stated or "").strip())
    except ValueError:
        return None
    if not address.is_global:
        return None
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
