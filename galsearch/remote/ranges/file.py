"""A file behind an address as the store reads it: blocks from memory, else from disk, else from the server, together.

It is one state of the file: an answer of another length or with other validators is an error, now and from then on.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path, PosixPath

from galsearch.errors import FormatError, GalsearchError, RemoteError
from galsearch.remote.ranges import cache, client
from galsearch.remote.ranges.cache import BLOCK_BYTES

MEMORY_BYTES = 128 << 20  # of blocks that are held; a search asks for up to 32 MB at once
REQUEST_BYTES = 1 << 20  # of one request at most: larger spans are divided, and come together
JOINED_BLOCKS = 2  # that are not asked for, between two that are: cheaper than another request
FIRST_BYTES = 16 << 10  # read when it is opened
LAST_BYTES = 256 << 10  # and with it, since DuckDB keeps there what it needs to open a file
DATABASE = b"DUCK"  # what a bundle has after its first 8 bytes


class Address(PosixPath):
    """The address of a file where the path of one is expected: what messages show, without what follows `?`.

    Paths made from it are ordinary ones, which lead nowhere and say so when they are opened.
    """

    def __new__(cls, url: str) -> Address:
        return super().__new__(cls, client.shown(url))

    def __init__(self, url: str) -> None:
        if hasattr(PosixPath, "with_segments"):  # from Python 3.12 on paths are made here
            super().__init__(client.shown(url))  # type: ignore[call-arg]
        self._url = client.shown(url)

    def __str__(self) -> str:
        return getattr(self, "_url", "") or super().__str__()

    def with_segments(self, *parts: str) -> PosixPath:
        """Return a path made from this one."""
        return PosixPath(*parts)


class RemoteFile:
    """One state of a file behind an address, read by ranges from any number of threads.

    `folder` is where blocks are kept, `most_bytes` how much of all files. Raises RemoteError where the server cannot be
    reached or serves no ranges, FormatError where what lies there is no DuckDB file.
    """

    def __init__(
        self,
        url: str,
        *,
        folder: Path | None = None,
        most_bytes: int = cache.MOST_BYTES,
        timeout_seconds: float = client.TIMEOUT_SECONDS,
    ) -> None:
        self.path: Path = Address(url)
        self._client = client.Client(url, timeout_seconds=timeout_seconds)
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._pending: set[int] = set()
        self._arrived = threading.Condition()
        self._different: FormatError | None = None
        self._closed = False
        try:
            content, self.version = self._client.first(FIRST_BYTES)
            self.size = self.version.size
            if content[8:12] != DATABASE:
                raise FormatError(
                    f"{self.path}: what lies there is no DuckDB file, so no bundle; check the address, which must be "
                    "that of the file itself and not of a page about it"
                )
        except BaseException:
            self._client.close()
            raise
        self._cache = cache.Cache(folder or cache.default_folder(), url, self.version, most_bytes=most_bytes)
        self._put(0, content)
        try:
            self.fetch([(max(0, self.size - LAST_BYTES), self.size)])
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        if hasattr(self, "_cache"):
            self.close()

    def close(self) -> None:
        """Close the connections; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._client.close()
            self._cache.close()

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._client.requests

    @property
    def received(self) -> int:
        """How many bytes of the file came."""
        return self._client.received

    @property
    def trouble(self) -> str | None:
        """Why nothing is kept on disk; None where it is."""
        return self._cache.trouble

    def check(self) -> None:
        """Raise FormatError when the file turned out to be another one than when it was opened."""
        if self._different is not None:
            raise self._different

    def changed(self) -> FormatError:
        """Return the error of a file that was changed while it was open."""
        return self._different or client.changed(str(self.path), "it ends before what it should hold")

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on. FormatError where the file ends before; RemoteError as in `fetch`."""
        if not 0 <= offset <= offset + count <= self.size:
            raise self.changed()
        if not count:
            return b""
        blocks = range(offset // BLOCK_BYTES, -(-(offset + count) // BLOCK_BYTES))
        content = b"".join(self._blocks(blocks))
        start = offset - blocks[0] * BLOCK_BYTES
        return content[start : start + count]

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        """Have spans of bytes at hand, asking for those that are not there several at a time.

        Raises RemoteError where they do not come, FormatError where the file was changed.
        """
        ranges = (range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)) for start, stop in spans if start < stop)
        self._blocks(sorted(set(itertools.chain.from_iterable(ranges))))

    def _blocks(self, numbers: Sequence[int]) -> list[bytes]:
        """Return blocks; several threads that want the same one ask for it once."""
        result: dict[int, bytes] = {}
        while True:
            with self._arrived:
                self._check_open()
                for number in numbers:
                    if number not in result and number in self._held:
                        self._held.move_to_end(number)
                        result[number] = self._held[number]
                missing = [number for number in numbers if number not in result]
                if not missing:
                    return [result[number] for number in numbers]
                mine = [number for number in missing if number not in self._pending]
                if not mine:
                    self._arrived.wait(1.0)  # for those that others asked for; looked at again in any case
                    continue
                self._pending.update(mine)
            try:
                result.update(self._loaded(mine))
            finally:
                with self._arrived:
                    self._pending.difference_update(mine)
                    self._arrived.notify_all()

    def _check_open(self) -> None:
        self.check()
        if self._closed:
            raise GalsearchError(f"{self.path} was closed; open the atlas again")

    def _loaded(self, numbers: list[int]) -> dict[int, bytes]:
        """Return blocks, ascending numbers, from disk or from the server."""
        result: dict[int, bytes] = {}
        for first, last in _runs(numbers):
            for number, block in enumerate(self._cache.get(first, last - first), first):
                if block is not None and len(block) == self._length(number):
                    result[number] = block
        self._hold(result)
        missing = [number for number in numbers if number not in result]
        if missing:
            self._ask(missing, result)
        return result

    def _ask(self, numbers: list[int], result: dict[int, bytes]) -> None:
        def take(start: int, content: bytes) -> None:
            result.update(self._put(start // BLOCK_BYTES, content))

        try:
            self._client.parts(self._spans(numbers), self.version, take)
        except FormatError as error:
            self._different = error
            raise
        except RemoteError:
            self._check_open()
            raise

    def _spans(self, numbers: list[int]) -> list[tuple[int, int]]:
        most = REQUEST_BYTES // BLOCK_BYTES
        return [
            (start * BLOCK_BYTES, min(min(start + most, last) * BLOCK_BYTES, self.size))
            for first, last in _runs(numbers, gap=JOINED_BLOCKS)
            for start in range(first, last, most)
        ]

    def _put(self, first: int, content: bytes) -> dict[int, bytes]:
        """Hold what came, in memory and on disk, without a part of a block at its end."""
        if first * BLOCK_BYTES + len(content) < self.size:
            content = content[: len(content) // BLOCK_BYTES * BLOCK_BYTES]
        starts = range(0, len(content), BLOCK_BYTES)
        blocks = {first + at // BLOCK_BYTES: content[at : at + BLOCK_BYTES] for at in starts}
        self._cache.put(first, content)
        self._hold(blocks)
        return blocks

    def _hold(self, blocks: dict[int, bytes]) -> None:
        with self._arrived:
            self._held.update(blocks)
            while len(self._held) > MEMORY_BYTES // BLOCK_BYTES:
                self._held.popitem(last=False)

    def _length(self, number: int) -> int:
        return min(BLOCK_BYTES, self.size - number * BLOCK_BYTES)


def _runs(numbers: Iterable[int], *, gap: int = 0) -> list[tuple[int, int]]:
    """Return ascending numbers as runs (first, after the last), over gaps of so many."""
    result: list[tuple[int, int]] = []
    for number in numbers:
        if result and number <= result[-1][1] + gap:
            result[-1] = (result[-1][0], number + 1)
        else:
            result.append((number, number + 1))
    return result
