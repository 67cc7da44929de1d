"""What one visitor may ask of the machine; the rules are `galsearch.Quota` and `galsearch.Limits`, this says which.

`GALSEARCH_PUBLIC=1`, which a Space sets, makes bounds tight and everything read-only. On a laptop they are wide, and
a link still cannot crash the app: its conditions and statements go to worker processes in both. `GALSEARCH_PROXIES` is
how many proxies of one's own stand in front of the app and write X-Forwarded-For; unless set, that header is ignored.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

import streamlit as st

import galsearch

PUBLIC = os.environ.get("GALSEARCH_PUBLIC") == "1"
LOG = None if PUBLIC else os.environ.get("GALSEARCH_QUERY_LOG") or None  # of the person whose machine this is
MOST_K = 200 if PUBLIC else 1000  # rows of one answer
SQL_ROWS = 1000 if PUBLIC else 10_000
UPLOAD_BYTES = (20 if PUBLIC else 50) * 1_000_000
VISITORS = (
    galsearch.Limits()
    if PUBLIC
    else galsearch.Limits(
        seconds=60,
        cpu_seconds=120,
        contested_seconds=60,
        memory_bytes=4 << 30,
        text_characters=100_000,
        result_bytes=1 << 30,
        processes=2,
        spare=0,  # most sessions of one's own need none
    )
)
QUOTA = galsearch.Quota() if PUBLIC else galsearch.Quota(per_minute=100_000, address_per_minute=100_000)
PROXIES = int(os.environ.get("GALSEARCH_PROXIES", "0"))
Busy = galsearch.BusyError


@st.cache_resource(show_spinner=False)
def _turns() -> galsearch.Turns:
    """Return the lines in which all sessions of this process wait."""
    return galsearch.Turns(QUOTA)


@contextlib.contextmanager
def turn(line: str = "search") -> Iterator[None]:
    """Wait for a turn in "search" or "sql", hold it inside the block; Busy after a while, or for who asks too much."""
    with _turns().turn(client(), line=line):
        yield


def client() -> galsearch.Client:
    """Return who this session is."""
    if "client" not in st.session_state:
        st.session_state.client = secrets.token_hex(8)
    forwarded = st.context.headers.get("X-Forwarded-For") if PROXIES else None
    address = galsearch.address_of(st.context.ip_address, forwarded, proxies=PROXIES)
    return galsearch.Client(st.session_state.client, address)
