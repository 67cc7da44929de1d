"""A block cache on disk for parts of remote files: sparse copies of bounded size, each block with its CRC-32.

A copy is two files of one state of one remote file, named by a digest of address and validators: the bytes where they
are in the original, and for each block 8 bytes that say whether it is there and what its CRC-32 is. What a block says
is compared with that at each reading, so that a kill, another process, a full disk or a flipped bit cost a block that
is asked for again, and nothing else. When all copies together are larger than the bound, those used least recently go;
a copy that is larger alone begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import zlib
from pathlib import Path

from galsearch.remote.ranges.client import Version

BLOCK_BYTES = 4096
MOST_BYTES = 1 << 30  # of all copies together, unless somebody says
CHECKED_EVERY = 16 << 20  # bytes written between looks at the size of all copies
_THERE = 1 << 32
_ENTRY = struct.Struct("<Q")


def default_folder() -> Path:
    """Return where copies are kept unless somebody says: in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "galsearch" / "remote"


class Cache:
    """The blocks of one state of a file that are kept on disk, for any number of threads and processes.

    Where the folder cannot be written, nothing is kept, and `trouble` says why.
    """

    def __init__(self, folder: Path, url: str, version: Version, *, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most = folder, most_bytes
        self.trouble: str | None = None
        self._lock = threading.Lock()
        self._data: int | None = None
        self._index: int | None = None
        self._unseen = CHECKED_EVERY  # bytes written since the sizes were looked at
        if not version.is_sure or most_bytes <= 0 or not hasattr(os, "pread"):
            self.trouble = "the server states neither an ETag nor a time of change" if not version.is_sure else "off"
            return
        key = hashlib.sha256(repr((url, version)).encode()).hexdigest()[:32]
        self._paths = folder / f"{key}.data", folder / f"{key}.index"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._data, self._index = (os.open(path, os.O_RDWR | os.O_CREAT | _CLOSED, 0o600) for path in self._paths)
            os.utime(self._paths[0])
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the files; a second time does nothing."""
        with self._lock:
            for descriptor in (self._data, self._index):
                if descriptor is not None:
                    os.close(descriptor)
            self._data = self._index = None

    def get(self, first: int, count: int) -> list[bytes | None]:
        """Return `count` blocks from number `first` on; None for one that is not there."""
        with self._lock:
            if self._data is None or self._index is None:
                return [None] * count
            try:
                noted = os.pread(self._index, count * _ENTRY.size, first * _ENTRY.size)
                noted = noted.ljust(count * _ENTRY.size, b"\0")
                if not any(noted):
                    return [None] * count
                content = os.pread(self._data, count * BLOCK_BYTES, first * BLOCK_BYTES)
            except OSError as error:
                self._give_up(error)
                return [None] * count
        blocks = (content[at : at + BLOCK_BYTES] for at in range(0, count * BLOCK_BYTES, BLOCK_BYTES))
        entries = (entry for (entry,) in _ENTRY.iter_unpack(noted))
        return [block if entry == _digest(block) else None for block, entry in zip(blocks, entries, strict=True)]

    def put(self, first: int, content: bytes) -> None:
        """Keep whole blocks from number `first` on; only the last of the file may be shorter."""
        starts = range(0, len(content), BLOCK_BYTES)
        entries = b"".join(_ENTRY.pack(_digest(content[at : at + BLOCK_BYTES])) for at in starts)
        with self._lock:
            if self._data is None or self._index is None:
                return
            try:
                self._unseen += len(content)
                if self._unseen >= CHECKED_EVERY:
                    self._make_room()
                    self._unseen = 0
                _write(self._data, content, first * BLOCK_BYTES)
                _write(self._index, entries, first * _ENTRY.size)
            except OSError as error:  # a full disk, mostly
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.trouble = f"{self._folder}: {error.strerror}"

    def _make_room(self) -> None:
        """Remove the copies that were used least recently; begin this one anew where it is too large alone."""
        assert self._data is not None and self._index is not None
        copies = []
        for path in self._folder.glob("*.data"):
            with contextlib.suppress(OSError):
                about = path.stat()
                copies.append((about.st_mtime, about.st_blocks * 512, path))
        room = self._most - CHECKED_EVERY - sum(size for _, size, path in copies if path == self._paths[0])
        if room < 0:
            os.ftruncate(self._index, 0)
            os.ftruncate(self._data, 0)
            room = self._most - CHECKED_EVERY
        for _, size, path in sorted(copies, reverse=True):
            if path != self._paths[0]:
                room -= size
                if room < 0:
                    path.with_suffix(".index").unlink(missing_ok=True)
                    path.unlink(missing_ok=True)


_CLOSED = getattr(os, "O_CLOEXEC", 0)


def _digest(block: bytes) -> int:
    return _THERE | zlib.crc32(block)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done
