"""DuckDB files and folders on their way into place: connections for writing, folders exchanged, errors of a disk."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from galsearch.atomic import spill_of
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


def writing(partial: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection for writing `partial`, which puts what does not fit into memory beside it."""
    check_path(partial)
    connection = duckdb.connect()
    connection.execute(f"SET temp_directory = {quoted(spill_of(partial))}")
    return connection


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
