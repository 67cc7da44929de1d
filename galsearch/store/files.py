"""Files that are read while others may change them: opened once, known by what they are, read at a place.

Everything that replaces an atlas renames a new file into place, and whoever reads the old one goes on with it. A file
that is written over or cut is another matter: what was read of it may be of either. So its size and time of change are
compared at each question, which costs a microsecond, and one that was changed is an error.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from galsearch.errors import FormatError

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
DELETED_FILE = re.compile(r"deleted-\d{1,9}\.duckdb")  # what was deleted, until it is removed for good


class Content(Protocol):
    """The one file that an atlas is, open for reading: on this machine (`OpenFile`), or read from elsewhere by parts.

    `path` is what messages call it. Any thread may ask.
    """

    path: Path
    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on. Raises FormatError where the file ends before."""

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Have spans of bytes (start, stop) at hand, all at once, before they are read one by one."""

    def check(self) -> None:
        """Raise FormatError when the file is known to have changed since it was opened."""

    def changed(self) -> FormatError:
        """Return the error of a file that was changed while it was open."""

    def close(self) -> None:
        """Close it; a second time does nothing."""


class OpenFile:
    """A regular file, open for reading.

    Raises FormatError for what is no regular file (a folder, a pipe, a device), and OSError as `os.open` does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = os.open(path, _FLAGS)  # without waiting for who writes into a pipe
        try:
            result = os.fstat(self._descriptor)
            if not stat.S_ISREG(result.st_mode):
                raise FormatError(f"{path}: not a regular file, so it is no part of an atlas; copy the atlas again")
        except BaseException:
            self.close()
            raise
        self.size, self._state, self._identity = result.st_size, state_of(result), (result.st_dev, result.st_ino)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close it; a second time does nothing."""
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)

    def fileno(self) -> int:
        """Return the descriptor. Raises FormatError when it was closed."""
        if self._descriptor is None:
            raise FormatError(f"{self.path} was closed; open the atlas again")
        return self._descriptor

    def is_at(self, path: Path) -> bool:
        """Say whether `path` still leads to this file."""
        try:
            result = path.stat()
        except FileNotFoundError:
            return False
        return (result.st_dev, result.st_ino) == self._identity

    def check(self) -> None:
        """Raise FormatError when the file was changed since it was opened."""
        if state_of(os.fstat(self.fileno())) != self._state:
            raise self.changed()

    def changed(self) -> FormatError:
        """Return the error of a file that was changed while it was open."""
        return FormatError(
            f"{self.path}: was changed while it was open; open the atlas again, and replace a file by renaming a new "
            "one into its place, as galsearch does, instead of writing into it"
        )

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on. Raises FormatError where the file ends before."""
        parts = []
        while count > 0:
            part = _pread(self.fileno(), min(count, 1 << 24), offset)
            if not part:
                raise self.changed()
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Nothing: the system reads ahead."""


def state_of(about: os.stat_result) -> tuple[int, int]:
    """Return size and time of change: what tells that a file was written to."""
    return about.st_size, about.st_mtime_ns


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


def inside(folder: Path, name: str) -> Path:
    """Return the path of `name`, relative to `folder` and with nothing but ordinary folders and a file on the way.

    Raises FormatError for a name that leads elsewhere (absolute, `..`, through a link) or is no name of a file.
    """
    parts = name.split("/") if isinstance(name, str) and len(name) <= 1_000 else [""]
    if any(part in ("", ".", "..") or "\0" in part or os.sep in part or ":" in part for part in parts):
        raise FormatError(f"{folder}: {name!r:.60} is no file inside the atlas; copy the folder again from its source")
    path = folder
    for part in parts:
        path = path / part
        check_own(path)
    return path


def check_own(path: Path) -> None:
    """Raise FormatError for a link, a pipe, a socket or a device; files, folders and what is not there may be."""
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise FormatError(f"{path}: cannot be read ({error.strerror}); copy the atlas again from its source") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
        raise FormatError(
            f"{path}: is {kind}, and an atlas holds only files and folders of its own; put what it leads to in its "
            "place (cp -L), or copy the atlas again from its source"
        )


def check_folder(folder: Path, *, most: int = 1_000_000) -> None:
    """Raise FormatError when anything under `folder` is no file or folder of its own, or there are too many of them."""
    waiting, seen = [folder], 0
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > most:
                    raise FormatError(f"{folder}: holds more than {most} files; an atlas has fewer")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    check_own(Path(entry.path))


def checked_aside(path: Path, entry: object) -> Path:
    """Return the file of a deletion. Raises FormatError where it is not there, or not as it was written."""
    stated = entry if isinstance(entry, dict) else {}
    name = stated.get("file")
    if not isinstance(name, str) or not DELETED_FILE.fullmatch(name):
        raise FormatError(f"{path}: {name!r:.40} is no file of deleted objects; copy the folder again")
    file = inside(path, name)
    if not file.is_file() or file_digest(file) != stated.get("crc32"):
        raise FormatError(f"{file}: is missing or damaged, so what it held cannot come back; copy the folder again")
    return file


def file_digest(path: Path) -> int:
    """Return the CRC-32 of a file."""
    digest = 0
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest = zlib.crc32(part, digest)
    return digest
