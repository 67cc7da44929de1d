"""Asks catalog services what lies near many positions: in batches, in the background, with answers kept.

A failure is an error beside a position, never an empty answer. Each question also holds a control, a position at which
the service has a source: an answer without it is not believed. One that is cut short is asked again in halves.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from galsearch import schema
from galsearch.errors import GalsearchError, QueryError, RemoteError
from galsearch.progress import Progress, silent
from galsearch.remote.catalogs import ned, simbad, vizier
from galsearch.remote.catalogs.cache import MAX_AGE_DAYS, Answer, Cache
from galsearch.remote.catalogs.ned import Ned
from galsearch.remote.catalogs.service import (
    CONTROL_REACH_ARCSEC,
    SLACK_ARCSEC,
    Reader,
    Service,
    Source,
    TooManyError,
    check_url,
)
from galsearch.remote.catalogs.simbad import Simbad
from galsearch.remote.catalogs.vizier import Vizier
from galsearch.science import sky

FAILURES = 3  # in a row, after which a service is not asked any more
KNOWN = "simbad, ned, vizier:CATALOG such as vizier:V/147/sdss12"
LOOK_SECONDS = 0.1  # between two looks at how far the services are
_INFO = re.compile(rb"<INFO\b([^>]*)>")
_ATTRIBUTE = re.compile(rb"\b(name|value)\s*=\s*\"([^\"]{0,100})\"")
_VERSION = re.compile(r"[\w-]*(version|release)|provider|server_software", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """How services are asked: where answers are kept and how old they may be, and how long a question may take.

    `timeout_seconds` is for one question with its retries, `deadline_seconds` for all questions to a service (None:
    no limit).
    """

    cache: Path
    max_age_days: float = MAX_AGE_DAYS
    timeout_seconds: float = 60.0
    deadline_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("timeout_seconds", "deadline_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise QueryError(f"{name} is {value}, expected seconds above 0")
        if not self.max_age_days >= 0:
            raise QueryError(f"max_age_days is {self.max_age_days}, expected days, 0 to ask again whatever is kept")


@dataclass
class Answers:
    """What one service says of each position: its answer, or the error why there is none, one of the two."""

    service: str
    answers: list[Answer | None]
    errors: list[str | None]
    kept: int = 0  # answers that came from the cache
    trouble: str | None = None  # why answers could not be kept


def service_of(text: str, *, urls: dict[str, str] | None = None, type_column: str | None = None) -> Service:
    """Return the service of a name. Raises QueryError for one that is not known, and for an address that is none."""
    name, _, catalog = text.strip().partition(":")
    address = {"url": check_url(url)} if (url := (urls or {}).get(name)) is not None else {}
    if name == "vizier" and catalog:
        return Vizier(catalog, address.get("url", vizier.URL), type_column)
    if name == "simbad" and not catalog:
        return Simbad(address.get("url", simbad.URL))
    if name == "ned" and not catalog:
        return Ned(address.get("url", ned.URL))
    raise QueryError(f"service {text!r:.60} is not known; there are {KNOWN}")


def ask_all(
    services: Sequence[Service],
    ra: np.ndarray,
    dec: np.ndarray,
    *,
    reach_arcsec: np.ndarray,
    read: Reader,
    options: Options,
    progress: Progress = silent,
) -> list[Answers]:
    """Return what each service has within a reach of each position, degrees ICRS; each is asked in a thread of its own.

    Ctrl-C ends it; what was answered by then is kept, and the next call goes on from there.
    """
    told: queue.Queue[int] = queue.Queue()
    stop = threading.Event()
    wanted = _Wanted(ra, dec, reach_arcsec)
    tasks = [_Task(one, wanted, read, options, told, stop) for one in services]
    total, done = len(ra) * len(services), 0
    for task in tasks:
        task.thread.start()
    try:
        while any(task.thread.is_alive() for task in tasks) or not told.empty():
            with contextlib.suppress(queue.Empty):
                done += told.get(timeout=LOOK_SECONDS)
            progress(done, total, "asking services")  # also while nothing comes, since progress may stop it
    finally:
        stop.set()
    for task in tasks:
        if task.error is not None:
            raise task.error
    return [task.result for task in tasks]


@dataclass(frozen=True)
class _Wanted:
    """Positions in degrees and how far around each to look, `(n,) float64`."""

    ra: np.ndarray
    dec: np.ndarray
    reach_arcsec: np.ndarray


@dataclass
class _Task:
    """One service that is asked in the background."""

    service: Service
    wanted: _Wanted
    read: Reader
    options: Options
    told: queue.Queue[int]
    stop: threading.Event
    error: BaseException | None = None
    failures: int = 0  # in a row
    last: str = ""
    result: Answers = field(init=False)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.wanted.ra)
        self.result = Answers(self.service.name, [None] * count, [None] * count)
        from galsearch.remote.catalogs.client import Session

        self.session = Session(timeout_seconds=self.options.timeout_seconds, agent=schema.software().replace(" ", "/"))
        self.cache = Cache(self.options.cache, max_age_days=self.options.max_age_days)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            with self.session:
                self._ask(self._from_cache())
            self.result.trouble = self.cache.trouble
        except BaseException as error:  # noqa: BLE001  it is raised again by the thread that waits
            self.error = error

    def _from_cache(self) -> list[int]:
        """Take what is kept; return the positions that are left to ask for."""
        self.keys = [
            self._key(*row) for row in zip(self.wanted.ra, self.wanted.dec, self.wanted.reach_arcsec, strict=True)
        ]
        kept = self.cache.get(self.keys)
        left = []
        for index, key in enumerate(self.keys):
            self.result.answers[index] = kept.get(key)
            if key not in kept:
                left.append(index)
        self.result.kept = len(self.keys) - len(left)
        self.told.put(self.result.kept)
        return left

    def _key(self, ra: float, dec: float, reach: float) -> str:
        about = (self.service.name, self.service.url, getattr(self.service, "type_column", None))
        return hashlib.sha256(repr((*about, round(ra, 7), round(dec, 7), round(reach, 3))).encode()).hexdigest()

    def _ask(self, left: list[int]) -> None:
        if not left:
            return
        self.end = time.monotonic() + (self.options.deadline_seconds or 1e9)
        try:
            self.controls = self.service.controls(self.session, self.read)
        except RemoteError as error:
            self._fail(left, str(error))
            return
        for start in range(0, len(left), self.service.batch):
            self._ask_part(left[start : start + self.service.batch])

    def _ask_part(self, part: list[int]) -> None:
        """Ask for some positions; where the answer is cut short, for each half of them."""
        if self.stop.is_set():
            return
        try:
            self._check_worth()
            sources, version = self._answer(part)
        except TooManyError as error:
            if len(part) == 1:
                self._fail(part, f"it has more than it tells around one position: {error}")
                return
            self._ask_part(part[: len(part) // 2])
            self._ask_part(part[len(part) // 2 :])
            return
        except RemoteError as error:
            self._fail(part, str(error))
            return
        now = schema.now()
        answers = {index: Answer(tuple(rows), now, version) for index, rows in self._split(part, sources).items()}
        self.cache.put({self.keys[index]: answer for index, answer in answers.items()})
        for index, answer in answers.items():
            self.result.answers[index] = answer
        self.told.put(len(part))

    def _check_worth(self) -> None:
        """Raise RemoteError where a further question is not sent: it failed too often, or its time is over."""
        if self.failures >= FAILURES:
            raise RemoteError(f"not asked, since it failed {FAILURES} times in a row: {self.last}")
        if time.monotonic() > self.end:
            raise RemoteError(f"not asked within the {self.options.deadline_seconds:g} s that all questions may take")

    def _answer(self, part: list[int]) -> tuple[list[Source], str | None]:
        """Return the sources near some positions; RemoteError for an answer that is not whole."""
        digest = hashlib.sha256("".join(self.keys[index] for index in part).encode()).digest()
        control = self.controls[int.from_bytes(digest[:8]) % len(self.controls)]  # another one for another question
        values = zip((self.wanted.ra, self.wanted.dec), control, strict=True)
        ra, dec = (np.append(theirs[part], own) for theirs, own in values)
        reach = np.append(self.wanted.reach_arcsec[part], CONTROL_REACH_ARCSEC)
        try:
            content = self.service.near(self.session, ra, dec, reach)
            sources = self._whole(content, ra, dec, reach)
        except TooManyError:
            raise
        except RemoteError as error:
            self.failures, self.last = self.failures + 1, str(error)
            raise
        self.failures = 0
        return sources, _version(content)

    def _whole(self, content: bytes, ra: np.ndarray, dec: np.ndarray, reach: np.ndarray) -> list[Source]:
        """Return the sources of an answer about positions, of which the last is the control.

        Raises RemoteError where it is cut short, malformed, lacks the control or answers another question.
        """
        sources = list(dict.fromkeys(self.service.sources(self.read(content, True))))
        if len(sources) >= self.service.most_rows:
            raise TooManyError(f"{len(sources)} sources, as many as were asked for at most")
        where = np.array([row[:2] for row in sources], np.float64).reshape(-1, 2).T
        if not len(sky.crossmatch(ra[-1:], dec[-1:], *where, radius_arcsec=CONTROL_REACH_ARCSEC).left):
            at = f"{ra[-1]:.4f} {dec[-1]:+.4f}"
            raise RemoteError(f"the answer lacks the source at {at}, which it has, so that others may be lacking too")
        widest = reach.max() if self.service.one_reach else reach
        near: set[int] = set()
        for pairs in sky.crossmatch_blocks(ra, dec, *where, radius_arcsec=widest + SLACK_ARCSEC, mode="all"):
            near.update(pairs.right.tolist())
        if outside := [source for index, source in enumerate(sources) if index not in near]:
            at = f"{outside[0][0]:.4f} {outside[0][1]:+.4f}"
            raise RemoteError(
                f"the answer has a source at {at}, where nothing was asked for: it answers something else"
            )
        return sources

    def _split(self, part: list[int], sources: list[Source]) -> dict[int, list[Source]]:
        """Return the sources within reach of each position, the closest first, whatever the service says of them."""
        where = np.array([row[:2] for row in sources], np.float64).reshape(-1, 2)
        ra, dec, reach = (values[part] for values in (self.wanted.ra, self.wanted.dec, self.wanted.reach_arcsec))
        result: dict[int, list[Source]] = {index: [] for index in part}
        for pairs in sky.crossmatch_blocks(ra, dec, *where.T, radius_arcsec=reach, mode="all"):
            for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
                result[part[left]].append(sources[right])
        return result

    def _fail(self, part: list[int], why: str) -> None:
        for index in part:
            self.result.errors[index] = why
        self.told.put(len(part))


def _version(content: bytes) -> str | None:
    """Return what an answer says of the version of the service, where it says anything."""
    stated = []
    for inside in _INFO.findall(content[: 1 << 16]):
        facts = {name.decode(): value.decode("utf-8", "replace") for name, value in _ATTRIBUTE.findall(inside)}
        if _VERSION.fullmatch(facts.get("name", "")) and facts.get("value"):
            stated.append(f"{facts['name']} {facts['value']}")
    return "; ".join(stated[:3]) or None


def check_installed() -> None:
    """Raise GalsearchError where the packages that speak to services are missing."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("pyvo", "astroquery")):
        from galsearch.remote.catalogs.tap import missing_package

        raise missing_package()


__all__ = ["Answers", "GalsearchError", "Options", "ask_all", "check_installed", "service_of"]
