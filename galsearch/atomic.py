"""Atomic file replacement: lock, clean up after a crash, fsync, rename."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galsearch.errors import GalsearchError

PARTIAL, SPILL = ".partial", ".spill"  # put after the name of what is being written, and of what it needs meanwhile


class WriterLock:
    """The right to write `path`, held while the context lasts; a second writer is a GalsearchError.

    The lock file lies beside what is written, and is gone afterwards. A writer that is killed leaves a file that locks
    nobody out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.with_name(path.name + f"{PARTIAL}.lock")

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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a file to write beside `path`, and put it in its place when the block ends well.

    It reaches the disk before it is renamed, so that there is the old file or the whole new one, at any time. What a
    killed writer left is removed first, and nothing is left of one that failed. Where several may write the same, hold
    a WriterLock around it.
    """
    partial = path.with_name(path.name + PARTIAL)
    remove_partial(partial)
    try:
        yield partial
        _synced(partial)
        partial.replace(path)
    finally:
        remove_partial(partial)


def remove_partial(partial: Path) -> None:
    """Remove an unfinished file, and of a DuckDB file its log, which would be replayed into the next of that name."""
    if partial.parent.is_dir():
        for end in ("", ".wal"):
            partial.with_name(partial.name + end).unlink(missing_ok=True)
        shutil.rmtree(spill_of(partial), ignore_errors=True)


def spill_of(partial: Path) -> Path:
    """Return the folder for what does not fit into memory while a file is written."""
    return partial.with_name(partial.name + SPILL)


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
