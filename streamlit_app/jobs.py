"""Long work beside the pages: it waits in line, runs in a thread, tells how far it is, and stops when asked.

Jobs are kept in this process under a name that nobody guesses, which stands in the URL of the session that started
them: a reload, which is a new session for Streamlit, finds them again. They are dropped KEPT_SECONDS after they are
over. What a job works with, a key among it, is kept nowhere else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import limits
import streamlit as st
import widgets
from state import current

import galsearch

Progress = Callable[[int, int, str], None]
LOOK_SECONDS = 1.0  # between looks at a job that runs
WAIT_STEP_SECONDS = 0.2  # between looks whether it is this job's turn
KEPT_SECONDS = 3600.0  # that a job's result is kept after its end
MOST_KEPT = 200  # jobs of all sessions
AT_ONCE = 1  # jobs that run in all sessions; the others wait in line
NAMES = ("anomalies", "build", "captions", "evaluate", "identify", "rerank")


class Stopped(BaseException):
    """Somebody pressed stop; raised out of the job by its own progress, once, so that it can put things away."""


class Job:
    """Work in a thread, in its turn: `work(progress)` returns the result.

    `state` is "running", "done", "failed" or "stopped"; `error` is the message of what went wrong on purpose. `line`
    is what jobs wait in: one with free places is entered at once.
    """

    def __init__(self, title: str, work: Callable[[Progress], Any], *, line: threading.Semaphore | None = None) -> None:
        self.title, self._work = title, work
        self._line = line or threading.Semaphore()
        self.done, self.total, self.what = 0, 0, "waiting for other work to end"
        self.state, self.result, self.error = "running", None, ""
        self.started = time.monotonic()
        self.ended: float | None = None
        self._stop = threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"galsearch {title}")
        self._thread.start()

    def stop(self) -> None:
        """Ask it to stop at its next step."""
        self._stop.set()
        self.what = "stopping"

    def wait(self, seconds: float) -> None:
        """Wait until it is over, at most so long."""
        self._thread.join(seconds)

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop and has not yet."""
        return self.state == "running" and self._stop.is_set()

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def _progress(self, done: int, total: int, what: str) -> None:
        self.done, self.total, self.what = done, total, what
        if self._stop.is_set() and not self._told:
            self._told = True  # once: putting things away tells its progress too
            raise Stopped

    def _enter(self) -> None:
        """Wait for this job's turn, and stop while waiting when asked to."""
        while not self._line.acquire(timeout=WAIT_STEP_SECONDS):
            if self._stop.is_set():
                raise Stopped
        self.what = "starting"

    def _run(self) -> None:
        try:
            self._enter()
            try:
                self.result = self._work(self._progress)
            finally:
                self._line.release()
            self.state = "done"
        except Stopped:
            self.state = "stopped"
        except (galsearch.GalsearchError, OSError) as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:  # noqa: BLE001  a thread has nobody above it who would say so
            self.error, self.state = f"this is a mistake in galsearch, please report it: {error!r}", "failed"
        finally:
            self._work = None  # and with it whatever it was given
            self.ended = time.monotonic()


class Kept:
    """The jobs of all sessions of this process, by the session's name and their own, and the line they wait in."""

    def __init__(self) -> None:
        self.line = threading.Semaphore(AT_ONCE)
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def get(self, session: str | None, name: str) -> Job | None:
        """Return a job, None where there is none."""
        return None if session is None else self._jobs.get((session, name))

    def start(self, session: str, name: str, title: str, work: Callable[[Progress], Any]) -> Job:
        """Start a job; one that runs there goes on, and is returned instead."""
        with self._lock:
            self._drop_old()
            there = self._jobs.get((session, name))
            if there is None or there.state != "running":
                if len(self._jobs) >= MOST_KEPT:
                    raise limits.Busy(f"{MOST_KEPT} jobs wait or run here; try again in some minutes")
                self._jobs[session, name] = there = Job(title, work, line=self.line)
            return there

    def forget(self, session: str | None, name: str) -> None:
        """Drop a job that is over."""
        with self._lock:
            self._jobs.pop((session, name), None)

    def _drop_old(self) -> None:
        now = time.monotonic()
        over = [key for key, job in self._jobs.items() if job.ended is not None and now - job.ended > KEPT_SECONDS]
        for key in over:
            del self._jobs[key]


@st.cache_resource(show_spinner=False)
def kept() -> Kept:
    """Return the jobs of this process."""
    return Kept()


def start(name: str, title: str, work: Callable[[Progress], Any]) -> None:
    """Start a job of this session under a name; one that runs there goes on. A place that is too busy says so."""
    state = current()
    state.acted()
    state.jobs = state.jobs or secrets.token_urlsafe(16)
    try:
        kept().start(state.jobs, name, title, work)
    except limits.Busy as error:
        state.problem = str(error)


def of(name: str) -> Job | None:
    """Return the job of this session by that name."""
    return kept().get(current().jobs, name)


def forget(name: str) -> None:
    """Drop a job that is over."""
    kept().forget(current().jobs, name)


def watch(name: str) -> None:
    """Draw how far a running job is, with a button to stop it; the page is drawn anew when it is over."""
    st.fragment(_watch, run_every=LOOK_SECONDS)(name)


def _watch(name: str) -> None:
    job = of(name)
    if job is None or job.state != "running":
        st.rerun()
        return
    seconds = time.monotonic() - job.started
    count = f" · {job.done:,} of {job.total:,}" if job.total else ""
    st.progress(job.share, text=f"{job.title}: {widgets.plain(job.what)}{count} · {seconds:.0f} s")
    st.button("Stop", icon=":material/stop:", key=f"stop_{name}", on_click=job.stop, disabled=job.stopping)
