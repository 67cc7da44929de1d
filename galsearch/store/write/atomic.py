"""Putting finished work in its place: one writer at a time, nothing left of those that were killed, no gap between."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from galsearch.errors import GalsearchError
from galsearch.escaping import check_path
from galsearch.store.sql.sandbox import quoted, short, stoppable

DISK_ERRORS = (  # what comes of a disk that is full, or cannot be written to
    OSError,
    duckdb.IOException,
    duckdb.TransactionException,  # a commit that could not be written
    duckdb.FatalException,  # a checkpoint
    duckdb.OutOfMemoryException,  # what did not fit into memory, and had no place beside it
)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


class WriterLock:
    """The right to write `path`, held while the context lasts; a second writer is a GalsearchError.

    The lock file lies beside what is written, and is gone afterwards. A writer that is killed leaves a file that locks
    nobody out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.with_name(path.name + ".partial.lock")

    def __enter__(self) -> WriterLock:
        while True:
            self._held = self._file.open("w")
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._held.close()
                raise GalsearchError(
                    f"{self._path}: another galsearch is writing it now; wait until it ends, then run this again"
                ) from None
            if self._is_current():
                return self
            self._held.close()  # whoever had it has removed it meanwhile, and another may hold a new one

    def _is_current(self) -> bool:
        try:
            return os.fstat(self._held.fileno()).st_ino == self._file.stat().st_ino
        except FileNotFoundError:
            return False

    def __exit__(self, *_: object) -> None:
        self._file.unlink(missing_ok=True)
        self._held.close()


def remove_partial(partial: Path) -> None:
    """Remove an unfinished DuckDB file and its log: DuckDB would replay the log into the next file of that name."""
    for end in ("", ".wal"):
        partial.with_name(partial.name + end).unlink(missing_ok=True)
    shutil.rmtree(_spill(partial), ignore_errors=True)


def writing(partial: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection for writing `partial`, which puts what does not fit into memory beside it."""
    check_path(partial)
    connection = duckdb.connect()
    connection.execute(f"SET temp_directory = {quoted(_spill(partial))}")
    return connection


def _spill(partial: Path) -> Path:
    return partial.with_name(partial.name + ".spill")


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places at once; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


@contextmanager
def disk_errors(path: Path, remedy: str) -> Iterator[None]:
    """Say in words that the disk is full or cannot be written, and what to do."""
    try:
        with stoppable():
            yield
    except DISK_ERRORS as error:
        raise GalsearchError(
            f"{path}: could not be written ({short(error)}); {remedy}. Nothing that was there has changed"
        ) from None
