"""Long work beside the pages: it runs in a thread, tells how far it is, and stops when asked.

A job belongs to one session and dies with it. What a job works with, a key among it, is kept nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import streamlit as st

import galsearch

Progress = Callable[[int, int, str], None]
LOOK_SECONDS = 1.0  # between looks at a job that runs


class Stopped(BaseException):
    """Somebody pressed stop; raised out of the job by its own progress, once, so that it can put things away."""


class Job:
    """Work in a thread: `work(progress)` returns the result.

    `state` is "running", "done", "failed" or "stopped"; `error` is the message of what went wrong on purpose.
    """

    def __init__(self, title: str, work: Callable[[Progress], Any]) -> None:
        self.title, self._work = title, work
        self.done, self.total, self.what = 0, 0, "starting"
        self.state, self.result, self.error = "running", None, ""
        self.started = time.monotonic()
        self._stop = threading.Event()
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

    _told = False

    def _run(self) -> None:
        try:
            self.result = self._work(self._progress)
            self.state = "done"
        except Stopped:
            self.state = "stopped"
        except (galsearch.GalsearchError, OSError) as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:  # noqa: BLE001  a thread has nobody above it who would say so
            self.error, self.state = f"this is a mistake in galsearch, please report it: {error!r}", "failed"
        finally:
            self._work = None  # and with it whatever it was given


def start(name: str, title: str, work: Callable[[Progress], Any]) -> Job:
    """Start a job of this session under a name; one that runs there goes on, and is returned instead."""
    there = of(name)
    if there is None or there.state != "running":
        st.session_state[f"job_{name}"] = Job(title, work)
    return st.session_state[f"job_{name}"]


def of(name: str) -> Job | None:
    """Return the job of this session by that name."""
    return st.session_state.get(f"job_{name}")


def forget(name: str) -> None:
    """Drop a job that is over."""
    st.session_state.pop(f"job_{name}", None)


def watch(name: str, *, stoppable: bool = True) -> None:
    """Draw how far a running job is, with a button to stop it; the page is drawn anew when it is over."""
    st.fragment(_watch, run_every=LOOK_SECONDS)(name, stoppable=stoppable)


def _watch(name: str, *, stoppable: bool) -> None:
    job = of(name)
    if job is None or job.state != "running":
        st.rerun()
        return
    seconds = time.monotonic() - job.started
    count = f" · {job.done:,} of {job.total:,}" if job.total else ""
    st.progress(job.share, text=f"{job.title}: {job.what}{count} · {seconds:.0f} s")
    if stoppable:
        st.button("Stop", icon=":material/stop:", key=f"stop_{name}", on_click=job.stop, disabled=job.stopping)
