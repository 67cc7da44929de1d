"""DuckDB reading one file through Python: an fsspec filesystem that has this file, to be opened once, and nothing else.

DuckDB reads from several threads, by `seek` and then `read` on one handle, and lets others run in between; so every
thread has a position of its own. An exception of a read reaches us as text: it is kept under a number, which is in it.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections import OrderedDict
from typing import Any

import duckdb
from fsspec import AbstractFileSystem

from galsearch.store.files import Content

PROTOCOL = "galsearch"
ADDRESS = f"{PROTOCOL}://atlas/atlas.duckdb"  # what DuckDB calls the file
KEPT_CAUSES = 64
AHEAD_BYTES = 1 << 20  # fetched ahead at most, of what is read from front to back
LEAST_BLOCK_BYTES = 16 << 10  # of a DuckDB file
STREAMS = 16  # places at which somebody reads from front to back
_TICKET = re.compile(r"galsearch could not read \(([0-9]{1,15})\)")


class Served:
    """A file for one DuckDB connection, by the name ADDRESS."""

    def __init__(self, content: Content, connection: duckdb.DuckDBPyConnection) -> None:
        self._causes: OrderedDict[int, BaseException] = OrderedDict()
        self._numbers = itertools.count()
        connection.register_filesystem(_System(content, self))

    def failed(self, error: BaseException) -> Exception:
        """Keep what went wrong with a read, and return what may be told to DuckDB."""
        ticket = next(self._numbers)
        self._causes[ticket] = error
        while len(self._causes) > KEPT_CAUSES:
            self._causes.popitem(last=False)
        return OSError(f"galsearch could not read ({ticket})")

    def cause(self, error: BaseException) -> BaseException | None:
        """Return what went wrong below an error of DuckDB; None where that is its own."""
        match = _TICKET.search(str(error))
        return self._causes.get(int(match[1])) if match else None


class _System(AbstractFileSystem):
    """A filesystem that has one file."""

    protocol = PROTOCOL
    cachable = False  # else fsspec would keep it, and the file with it

    def __init__(self, content: Content, served: Served) -> None:
        super().__init__()
        self._content, self._served, self._opened = content, served, False

    def isfile(self, path: str) -> bool:
        """Say whether it is the file; there is no log of changes beside it."""
        return path == ADDRESS

    exists = isfile

    def open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> _Handle:
        """Open the file, once: later only a statement of somebody else could want to."""
        if path != ADDRESS or self._opened or mode != "rb":
            raise PermissionError("only the atlas itself is read here")
        self._opened = True
        return _Handle(self._content, self._served)

    def size(self, path: str) -> int:
        """Return the length of the file in bytes."""
        return self._content.size if path == ADDRESS else 0

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return nothing: no statement may look for files."""
        return []


class _Handle:
    """The open file, with a position for each thread."""

    def __init__(self, content: Content, served: Served) -> None:
        self._content, self._served = content, served
        self._streams: OrderedDict[int, int] = OrderedDict()  # where a read ended, and how many before it led there
        self._lock = threading.Lock()
        self._at: dict[int, int] = {}  # not threading.local: DuckDB's threads are known to Python only while they read

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset from the beginning, or relative as `io` has it."""
        base = (0, self.tell(), self._content.size)[whence]
        self._at[threading.get_ident()] = base + offset
        return base + offset

    def tell(self) -> int:
        """Return where this thread is."""
        return self._at.get(threading.get_ident(), 0)

    def read(self, count: int = -1) -> bytes:
        """Return up to `count` bytes."""
        start = self.tell()
        left = max(0, self._content.size - start)
        count = left if count < 0 else min(count, left)
        try:
            ahead = self._ahead(start, count)
            if ahead:
                self._content.fetch([(start, min(start + count + ahead, self._content.size))])
            result = self._content.read(start, count)
        except BaseException as error:  # noqa: BLE001  it is raised again above DuckDB
            raise self._served.failed(error) from None
        self._at[threading.get_ident()] = start + len(result)
        return result

    def _ahead(self, start: int, count: int) -> int:
        """Return how much to fetch beyond a part: from the third that follows on, more and more."""
        if count < LEAST_BLOCK_BYTES:
            return 0  # a header
        with self._lock:
            parts = self._streams.pop(start, -1) + 1
            self._streams[start + count] = parts
            if len(self._streams) > STREAMS:
                self._streams.popitem(last=False)
        return min(count << min(parts - 2, 16), AHEAD_BYTES) if parts > 1 else 0

    def close(self) -> None:
        """Nothing: the store closes the file."""
