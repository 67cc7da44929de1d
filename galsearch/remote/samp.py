"""SAMP: hand a table to TOPCAT, Aladin or another program of the same desktop; the standard profile of SAMP 1.3.

A hub, which TOPCAT and Aladin bring along, tells in a file of the user where it listens; everything else are calls of
XML-RPC. The table is a file of the user for as long as it takes the others to read it. Not by pyvo.samp, which would
wait without end for a hub that does not answer.
"""

from __future__ import annotations

import os
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.parsers.expat import ExpatError

from galsearch.errors import RemoteError

LOCKFILE = ".samp"  # in the home folder
HUB_VARIABLE, LOCK_PREFIX = "SAMP_HUB", "std-lockurl:"
LOAD_TABLE = "table.load.votable"
EVERYONE = "all"
WAIT_SECONDS = 30
SPARE_SECONDS = 5  # for the hub to say that a program did not answer in time
REMEDY = "start TOPCAT or Aladin, which bring a hub, then send again"
MOST_ANSWER_BYTES = 4 << 20
_FAILURES = (OSError, HTTPException, xmlrpc.client.Error, ExpatError, ValueError)
_ODD = (KeyError, TypeError, AttributeError, IndexError, RecursionError)  # an answer of another shape


def send_votable(
    content: bytes, *, name: str, software: str, to: str = EVERYONE, wait_seconds: int = WAIT_SECONDS
) -> list[str]:
    """Send a VOTable to the programs that take tables; return the names of those that have loaded it, in order.

    `name` is what they show it as; `to` is part of the name of the programs that are meant, in upper or lower case,
    or "all". Waits until all have answered, `wait_seconds` for each. Raises RemoteError where there is no hub, no such
    program, or where one of them could not load the table.
    """
    with _registered(software, wait_seconds) as (hub, key):
        takers = _takers(hub, key, to)
        with tempfile.TemporaryDirectory(prefix="galsearch-") as folder:
            path = Path(folder) / "table.vot"
            path.write_bytes(content)
            parameters = {"url": path.as_uri(), "name": name, "table-id": path.parent.name}
            message = {"samp.mtype": LOAD_TABLE, "samp.params": parameters}
            for taker, program in takers.items():
                with _speaking(program, "look what it says, then send again"):
                    _check(program, hub.callAndWait(key, taker, message, str(wait_seconds)))
    return sorted(takers.values())


class _Transport(xmlrpc.client.Transport):
    """XML-RPC that gives up on a hub that does not answer, or whose answer does not end."""

    accept_gzip_encoding = False  # what is unpacked here could become any size

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def make_connection(self, host: tuple[str, dict[str, str]] | str) -> HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = self._seconds
        return connection

    def parse_response(self, response: HTTPResponse) -> Any:
        """Return what an answer says, read as it came and no further than it may be long."""
        end, content = time.monotonic() + self._seconds, bytearray()
        while part := response.read1(65_536):
            content += part
            if len(content) > MOST_ANSWER_BYTES:
                raise ValueError(f"its answer has more than {MOST_ANSWER_BYTES >> 20} MB")
            if time.monotonic() > end:
                raise TimeoutError(f"its answer was not complete after {self._seconds:g} s")
        parser, unmarshaller = self.getparser()
        parser.feed(bytes(content))
        parser.close()
        return unmarshaller.close()


@contextmanager
def _registered(software: str, wait_seconds: int) -> Iterator[tuple[Any, str]]:
    """Give the hub and our key to it."""
    lock = _lockfile()
    facts = _read_lock(lock)
    with _speaking(f"the hub that {lock} names ({facts['samp.hub.xmlrpc.url']})", REMEDY):
        transport = _Transport(wait_seconds + SPARE_SECONDS)
        # Any: a hub may answer with any shape, and `_speaking` tells where it is none of SAMP
        hub: Any = xmlrpc.client.ServerProxy(facts["samp.hub.xmlrpc.url"], transport=transport).samp.hub
        key = hub.register(facts["samp.secret"])["samp.private-key"]
        hub.declareMetadata(key, {"samp.name": "galsearch", "samp.description.text": software})
    try:
        yield hub, key
    finally:
        with suppress(*_FAILURES, *_ODD):  # a hub that has gone has forgotten us too
            hub.unregister(key)


def _lockfile() -> Path:
    """Return the file in which a hub says where it is."""
    named = os.environ.get(HUB_VARIABLE, "")
    if named and not named.startswith(LOCK_PREFIX + "file:"):
        raise RemoteError(
            f"{HUB_VARIABLE} is {named!r:.200}; only {LOCK_PREFIX}file:… is known here, set it so or leave it out"
        )
    return Path(unquote(urlsplit(named.removeprefix(LOCK_PREFIX)).path)) if named else Path.home() / LOCKFILE


def _read_lock(lock: Path) -> dict[str, str]:
    try:
        lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        raise RemoteError(f"no SAMP hub is running (there is no {lock}); {REMEDY}") from None
    facts = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    missing = [key for key in ("samp.secret", "samp.hub.xmlrpc.url") if key not in facts]
    if missing:
        raise RemoteError(f"{lock} does not say {missing[0]}, so it is not of a SAMP hub; remove it, and {REMEDY}")
    return facts


def _takers(hub: Any, key: str, to: str) -> dict[str, str]:
    """Return the programs that take tables and are meant: id -> name."""
    with _speaking("the hub", REMEDY):
        there = sorted(hub.getSubscribedClients(key, LOAD_TABLE))
        names = {taker: str(hub.getMetadata(key, taker).get("samp.name", taker)) for taker in there}
    result = {taker: name for taker, name in names.items() if to == EVERYONE or to.lower() in name.lower()}
    if not result:
        known = ", ".join(sorted(names.values())) or "none"
        meant = "a program" if to == EVERYONE else f"a program named like {to!r}"
        raise RemoteError(
            f"{meant} that takes tables is not at the SAMP hub (there: {known}); start it, then send again"
        )
    return result


def _check(program: str, answer: dict) -> None:
    """Raise RemoteError when a program says that it could not load the table."""
    if answer.get("samp.status") == "samp.error":
        reason = (answer.get("samp.error") or {}).get("samp.errortxt", "it gave no reason")
        raise RemoteError(f"{program} could not load the table ({reason}); save it as VOTable and open it there")


@contextmanager
def _speaking(whom: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as error:
        raise RemoteError(f"{whom} refused ({str(error.faultString)[:200]}); {remedy}") from None
    except _ODD as error:
        raise RemoteError(f"{whom} gave an answer that is none of SAMP ({str(error)[:200]}); {remedy}") from None
    except _FAILURES as error:
        raise RemoteError(f"{whom} did not answer ({str(error)[:200] or type(error).__name__}); {remedy}") from None
