"""Append-only log: one JSON row a line with a checksum, written under a lock and on the disk before it is acknowledged.

Nothing in it is ever rewritten. A writer that is killed leaves at most one unfinished line, its last: the next one
closes it with a mark and goes on, and readers pass over it.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from galsearch.errors import FormatError, GalsearchError
from galsearch.schema import now, read_json

VERSION = 1
CRC = "crc"
UNFINISHED = b"~"  # ends a line that a killed writer began and another closed; no row ends so
MOST_BYTES = 256 << 20
MOST_LINE_BYTES = 64 << 10
LOCK_SECONDS = 20.0
RETRY_SECONDS = 0.01

Row = dict[str, Any]


class Journal:
    """The rows of a file, or with `path` None of this object alone.

    `kind` is what the file says it is, `about` what a new one says of itself beside that. Several processes may append
    at once; `rows` sees what all of them have appended. Raises FormatError for another kind of file, a newer version or
    a damaged line.
    """

    def __init__(self, path: str | Path | None, *, kind: str, about: Row | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._kind = kind
        self.head: Row = {"format": kind, "version": VERSION, "created": now(), **(about or {})}
        self.unfinished = 0  # lines that a killed writer left
        self._rows: list[Row] = []
        self._read_bytes = self._lines = 0
        self._file: tuple[int, int] | None = None
        self._thread_lock = threading.RLock()

    @property
    def name(self) -> str:
        """What messages call it."""
        return "this session" if self.path is None else str(self.path)

    def rows(self) -> list[Row]:
        """Return all rows in the order of the file; do not change them. A file that is not there has none."""
        with self._thread_lock:
            if self.path is not None and self.path.exists():
                with self._opened(os.O_RDONLY) as descriptor:
                    self._catch_up(descriptor)
            return self._rows

    def append(self, make: Callable[[list[Row]], Iterable[Row]]) -> list[Row]:
        """Append the rows that `make` gives, which gets those that are there; return them once they are on the disk.

        The file stays locked meanwhile, so that what `make` saw is what they are appended to. Raises GalsearchError
        where the file cannot be written; then nothing was appended.
        """
        with self._thread_lock:
            if self.path is None:
                rows = list(make(self._rows))
                self._rows = self._rows + rows
                return rows
            with self._opened(os.O_RDWR | os.O_CREAT) as descriptor, _locked(descriptor, self.path):
                self._catch_up(descriptor)
                rows = list(make(self._rows))
                lines = b"".join(map(line_of, rows))
                if lines:
                    self._write(descriptor, lines)
                    self._catch_up(descriptor)
                return rows

    @contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        assert self.path is not None
        try:
            descriptor = os.open(self.path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise GalsearchError(
                f"{self.path} cannot be opened ({error.strerror}); name a file in a folder that may be written"
            ) from None
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
                raise FormatError(
                    f"{self.path} is no file of {self._kind}: it is a device or a pipe, or has more than "
                    f"{MOST_BYTES >> 20} MB; name another file"
                )
            if self._file != (about.st_dev, about.st_ino) or about.st_size < self._read_bytes:
                self._file, self._rows = (about.st_dev, about.st_ino), []  # another file of the same name
                self._read_bytes = self._lines = self.unfinished = 0
            yield descriptor
        finally:
            os.close(descriptor)

    def _catch_up(self, descriptor: int) -> None:
        """Read what was appended since; a last line without its end is not there yet, or never will be."""
        size = os.fstat(descriptor).st_size - self._read_bytes
        content = b"" if size <= 0 else _read(descriptor, self._read_bytes, size)
        whole = content[: content.rfind(b"\n") + 1]
        self._check_start(whole or content)
        rows, unfinished = [], 0
        for number, line in enumerate(whole.split(b"\n")[:-1], start=self._lines + 1):
            if line.endswith(UNFINISHED):
                unfinished += 1
            elif "format" not in (row := self._parsed(line, number)):
                rows.append(row)
            else:
                self.head = self._checked(row)
        self._rows = self._rows + rows if rows else self._rows
        self.unfinished += unfinished
        self._lines += whole.count(b"\n")
        self._read_bytes += len(whole)

    def _check_start(self, content: bytes) -> None:
        start = b'{"format": "' + self._kind.encode() + b'"'
        if self._read_bytes == 0 and not content.startswith(start[: len(content)]):
            raise FormatError(
                f"{self.path} is no file of {self._kind}: it begins with {content[:40]!r}; name another file, which is "
                "made where there is none"
            )

    def _parsed(self, line: bytes, number: int) -> Row:
        try:
            if len(line) > MOST_LINE_BYTES:
                raise ValueError("too long")
            row = read_json(line)
            if not isinstance(row, dict) or row.pop(CRC, None) != _checksum(row):
                raise ValueError("its checksum is of other text")
        except ValueError as error:
            raise FormatError(
                f"{self.path}, line {number}: damaged ({error!s:.80}); restore the file from a copy, or remove this "
                "line from it with an editor to do without it"
            ) from None
        return row

    def _checked(self, head: Row) -> Row:
        version = head.get("version")
        if head.get("format") != self._kind or not isinstance(version, int) or version > VERSION:
            raise FormatError(
                f"{self.path} says it is {head.get('format')!r:.40} {version!r:.20}, expected {self._kind} {VERSION}; "
                "name another file, or update galsearch"
            )
        return head

    def _write(self, descriptor: int, lines: bytes) -> None:
        """Append whole lines, a first one and the end of an unfinished one where they are needed; flush to the disk."""
        before = os.fstat(descriptor).st_size
        start = UNFINISHED + b"\n" if before > self._read_bytes else b""
        if self._read_bytes == 0:
            start += line_of(self.head)
            if before:  # a first line that was never finished: nothing was ever acknowledged
                os.ftruncate(descriptor, 0)
                before, start = 0, line_of(self.head)
        content = memoryview(start + lines)
        try:
            os.lseek(descriptor, 0, os.SEEK_END)
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
            if not before:
                _sync_folder(self.path)
        except OSError as error:
            os.ftruncate(descriptor, before)  # nobody was told of what it has beyond that
            raise GalsearchError(
                f"{self.path} could not be written ({error.strerror}), and is as it was; make room, then do it again"
            ) from None


def line_of(row: Row) -> bytes:
    """Return a row as its line. Raises GalsearchError for one that is too long, or has a number that is not finite."""
    try:
        text = json.dumps(row | {CRC: _checksum(row)}, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise GalsearchError(
            "a row holds a number that is not finite, and is not kept; leave that number out"
        ) from None
    line = text.encode(errors="replace") + b"\n"
    if len(line) > MOST_LINE_BYTES:
        raise GalsearchError(f"a row of {len(line)} bytes is too long, at most {MOST_LINE_BYTES} are kept; shorten it")
    return line


def _checksum(row: Row) -> str:
    return f"{zlib.crc32(json.dumps(row, sort_keys=True).encode()):08x}"


def _read(descriptor: int, start: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, start)):
        parts.append(part)
        start, size = start + len(part), size - len(part)
    return b"".join(parts)


@contextmanager
def _locked(descriptor: int, path: Path) -> Iterator[None]:
    """Hold the file, waiting for who holds it; a lock goes with its process."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise GalsearchError(
                    f"{path}: another program has held it for {LOCK_SECONDS:.0f} s; end that one, then do this again"
                ) from None
            time.sleep(RETRY_SECONDS)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _sync_folder(path: Path | None) -> None:
    """Put the name of a new file on the disk."""
    assert path is not None
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
