"""What one visitor of a public place may ask of the machine, and how visitors wait for one another.

`GALSEARCH_PUBLIC=1`, which a Space sets, makes the bounds tight and everything read-only; on a laptop they are wide.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator

import streamlit as st

import galsearch

PUBLIC = os.environ.get("GALSEARCH_PUBLIC") == "1"
MOST_K = 200 if PUBLIC else 1000  # rows of one answer
SQL_ROWS = 1000 if PUBLIC else 10_000
UPLOAD_BYTES = (20 if PUBLIC else 50) * 1_000_000
PER_MINUTE = 60 if PUBLIC else 100_000  # questions of one session
AT_ONCE = 4  # questions that are worked on in all sessions; the others wait in line
WAIT_SECONDS = 20.0


class Busy(galsearch.GalsearchError):
    """The place has more to do than it can; nothing is wrong with the question."""


@st.cache_resource(show_spinner=False)
def _line() -> threading.BoundedSemaphore:
    """Return the one line in which all sessions of this process wait."""
    return threading.BoundedSemaphore(AT_ONCE)


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Wait for a turn and hold it inside the block; Busy after WAIT_SECONDS or for one session that asks too much."""
    _count()
    line = _line()
    if not line.acquire(timeout=WAIT_SECONDS):
        raise Busy(
            f"waited {WAIT_SECONDS:g} s in line behind other visitors, {AT_ONCE} questions are answered at once; "
            "try again in a moment"
        )
    try:
        yield
    finally:
        line.release()


def _count() -> None:
    asked: deque[float] = st.session_state.setdefault("asked_at", deque(maxlen=PER_MINUTE))
    now = time.monotonic()
    if len(asked) == PER_MINUTE and now - asked[0] < 60:
        raise Busy(
            f"this session asked {PER_MINUTE} questions within a minute, the most that is allowed here; "
            "go on in a minute, or open the atlas on your own machine"
        )
    asked.append(now)
