"""Where the stored vectors lie as raw numbers, and how they are read without asking an engine.

An uncompressed column of a DuckDB file, and a page of a Lance file, is a run of little-endian floats. The writer notes
where each run starts (`vector_map`, docs/format.md); a reader maps the file into memory and compares the rows in place.
A run whose first eight bytes are not those noted was moved by someone who rewrote the file: then the map is given up
and the engine is asked (`Fetched`).
"""

from __future__ import annotations

import bisect
import functools
import itertools
import mmap
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from galsearch.query import Scorer
from galsearch.store import dots

BLOCK_ROWS = 8_192  # rows read at a time
BLOCK_NUMBERS = 1 << 18  # codes turned into floats at a time: what stays in the cache of a core
LARGEST_CODE = 127
LEAST_REST = 1e-6  # a vector that differs less than this from its centroid is its centroid
HEAD_BYTES = 8


class MapError(Exception):
    """The map does not fit the file: it was rewritten, or is damaged."""


class Vectors(Protocol):
    """All vectors of an embedding by row number, unit length, `(rows, dim) float32`."""

    rows: int
    dim: int

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors at `rows`, in that order."""

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        """Return the scores `(n,) float32` of the rows at `rows`, in that order; quickest where rows are neighbors."""

    def done(self, start: int, stop: int) -> None:
        """Say that a scan of everything will not come back to these rows."""


class Held:
    """Vectors in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = np.ascontiguousarray(array, np.float32)
        self.rows, self.dim = array.shape
        self._pieces = None
        if dots.LIBRARY is not None and array.size:
            content = self._array.reshape(-1).view(np.uint8)
            self._pieces = dots.Pieces(
                content, np.float32, self.dim, first=np.array([0, array.size]), at=np.zeros(1, np.int64)
            )

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._array[rows]

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        if self._pieces is None:
            return _taken_scores(self, scorer, rows)
        return scorer.through(lambda vector: self._pieces.products(vector, rows))

    def done(self, start: int, stop: int) -> None:
        """Nothing to hand back."""


class Fetched:
    """Vectors that only their engine can read: `fetch(rows)` returns those at the sorted row numbers `rows`."""

    def __init__(self, rows: int, dim: int, fetch: Callable[[np.ndarray], np.ndarray]) -> None:
        self.rows, self.dim, self._fetch = rows, dim, fetch

    def take(self, rows: np.ndarray) -> np.ndarray:
        wanted, place = np.unique(rows, return_inverse=True)
        parts = [self._fetch(wanted[at : at + BLOCK_ROWS]) for at in range(0, len(wanted), BLOCK_ROWS)]
        return np.concatenate([np.empty((0, self.dim), np.float32), *parts])[place]

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        return _taken_scores(self, scorer, rows, block=BLOCK_ROWS)

    def done(self, start: int, stop: int) -> None:
        """Nothing to hand back."""


def _taken_scores(vectors: Vectors, scorer: Scorer, rows: np.ndarray, *, block: int = 0) -> np.ndarray:
    """Return the scores of rows that are copied to where numpy can compare them, a block at a time."""
    step = block or max(1, BLOCK_NUMBERS // vectors.dim)
    parts = [scorer.of(vectors.take(rows[at : at + step])) for at in range(0, len(rows), step)]
    return np.concatenate([np.empty(0, np.float32), *parts])


class Trusted:
    """Vectors by their map until it turns out not to fit the file, then by what `otherwise()` returns."""

    def __init__(self, vectors: Vectors, otherwise: Callable[[], Vectors]) -> None:
        self.now, self._otherwise = vectors, otherwise
        self.rows, self.dim = vectors.rows, vectors.dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        try:
            return self.now.take(rows)
        except MapError:
            self.now = self._otherwise()
            return self.now.take(rows)

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        try:
            return self.now.scores(scorer, rows)
        except MapError:
            self.now = self._otherwise()
            return self.now.scores(scorer, rows)

    def done(self, start: int, stop: int) -> None:
        self.now.done(start, stop)


class Reordered:
    """Other vectors in another order: row i is their row `order[i]`."""

    def __init__(self, vectors: Vectors, order: np.ndarray) -> None:
        self._vectors, self._order = vectors, order
        self.rows, self.dim = len(order), vectors.dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors.take(self._order[rows])

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        return self._vectors.scores(scorer, self._order[rows])

    def done(self, start: int, stop: int) -> None:
        """Nothing to hand back: the rows lie anywhere."""


class Chain:
    """Vectors that lie in several places one after another."""

    def __init__(self, parts: list[Vectors], dim: int) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        self.rows, self.dim = int(self._starts[-1]), dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.dim), np.float32)
        for part, places in self._by_part(rows):
            found[places] = self._parts[part].take(rows[places] - self._starts[part])
        return found

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        found = np.empty(len(rows), np.float32)
        for part, places in self._by_part(rows):
            found[places] = self._parts[part].scores(scorer, rows[places] - self._starts[part])
        return found

    def _by_part(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the parts that hold some of the rows, and the places of those in `rows`."""
        part = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(part, kind="stable")
        numbers, firsts = np.unique(part[order], return_index=True)
        yield from zip(numbers.tolist(), np.split(order, firsts[1:]), strict=False)

    def done(self, start: int, stop: int) -> None:
        for part, low, high in self._inside(start, stop):
            self._parts[part].done(low - self._starts[part], high - self._starts[part])

    def damaged_runs(self) -> int:
        """Return how many runs have not the CRC-32 that was noted."""
        return sum(part.damaged_runs() for part in self._parts)

    def _inside(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the parts that rows `start` up to `stop` lie in, and which of those rows."""
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._starts[part + 1]))
            yield part, start, end
            start, part = end, part + 1


class Mapped:
    """Vectors read in place from one mapped file.

    `runs` is its part of `vector_map`, ordered by `first_value`; `dtype` is what the file holds. A vector may lie
    across the end of one run and the beginning of the next. Raises MapError when a run is not inside the file or does
    not begin as noted; the latter is looked at when a run is first read.
    """

    def __init__(self, runs: pa.Table, dim: int, path: Path, *, dtype: type = np.float32) -> None:
        self.dim = dim
        first, self._values = numbers(runs, "first_value"), numbers(runs, "run_values")
        self._first = first - first[0]
        self._heads, self._digests = numbers(runs, "head").view(np.uint64), numbers(runs, "crc32")
        total = int(self._values.sum())
        if not np.array_equal(self._first, np.cumsum(self._values) - self._values) or total % dim:
            raise MapError("the runs do not follow one another")
        self.rows = total // dim
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        item = np.dtype(dtype).itemsize
        self._numbers = np.frombuffer(self._map, dtype, len(self._map) // item)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._at = numbers(runs, "byte_offset") // item
        self._check_places(numbers(runs, "byte_offset"), item)
        self._seen = np.zeros(len(self._at), bool)
        self._starts = self._first.tolist()
        self._pieces = None
        if dots.LIBRARY is not None:
            ends, heads = np.append(self._first, total), numbers(runs, "head")
            self._pieces = dots.Pieces(self._bytes, dtype, dim, first=ends, at=numbers(runs, "byte_offset"), head=heads)
            if hasattr(mmap, "MADV_RANDOM"):  # what is needed is asked for; reading ahead of it would be in vain
                self._map.madvise(mmap.MADV_RANDOM)

    def _check_places(self, offsets: np.ndarray, item: int) -> None:
        inside = (offsets >= 0) & (offsets + np.maximum(self._values * item, HEAD_BYTES) <= len(self._map))
        if not inside.all() or (offsets % item).any() or (self._values <= 0).any():
            raise MapError("a run does not lie inside the file")

    def take(self, rows: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(rows, np.int64)
        start = rows * self.dim
        run = np.searchsorted(self._first, start, side="right") - 1
        self._look(rows, run)
        inside = start + self.dim <= self._first[run] + self._values[run]
        at = np.where(inside, self._at[run] + start - self._first[run], 0)
        found = self._windows[at]
        for place in np.flatnonzero(~inside):
            found[place] = self._across(int(start[place]), int(run[place]))
        return found

    @functools.cached_property
    def _windows(self) -> np.ndarray:
        """Row i is what begins at number i of the file."""
        shape, item = (len(self._numbers) - self.dim + 1, self.dim), self._numbers.itemsize
        return np.lib.stride_tricks.as_strided(self._numbers, shape, (item, item), writeable=False)

    def _across(self, start: int, run: int) -> np.ndarray:
        """Return the vector that begins at value `start` in `run` and goes on in those after it."""
        parts, wanted = [], self.dim
        while wanted:
            if not self._seen[run]:
                self._look_at(run)
            skip = start - int(self._first[run])
            at, count = int(self._at[run]) + skip, min(wanted, int(self._values[run]) - skip)
            parts.append(self._numbers[at : at + count])
            start, wanted, run = start + count, wanted - count, run + 1
        return np.concatenate(parts)

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        if self._pieces is None:
            return _taken_scores(self, scorer, rows)
        return scorer.through(functools.partial(self.products, rows=rows))

    def products(self, vector: np.ndarray, *, rows: np.ndarray) -> np.ndarray:
        """Return the inner products `(n,) float32` of rows with a vector."""
        found = None if self._pieces is None else self._pieces.products(vector, rows)
        if found is None:
            raise MapError("a run does not begin as noted")
        return found

    def done(self, start: int, stop: int) -> None:
        low = max(0, bisect.bisect_right(self._starts, start * self.dim) - 1)
        high = bisect.bisect_left(self._starts, stop * self.dim)
        if low < high:
            item, page = self._numbers.itemsize, mmap.PAGESIZE
            begin = -(-int(self._at[low:high].min()) * item // page) * page
            end = int((self._at[low:high] + self._values[low:high]).max()) * item // page * page
            if hasattr(self._map, "madvise") and end > begin:
                self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)
                if self._pieces is not None:
                    self._pieces.seen[low:high] = 0  # to be asked for again

    def damaged_runs(self) -> int:
        """Return how many runs have not the CRC-32 that was noted."""
        item = self._numbers.itemsize
        starts, ends = (self._at * item).tolist(), ((self._at + self._values) * item).tolist()
        found = [zlib.crc32(self._bytes[start:end]) for start, end in zip(starts, ends, strict=True)]
        return int(np.count_nonzero(np.array(found, np.int64) != self._digests))

    def _look_at(self, run: int) -> None:
        """The same as `_look` for one run, without the cost of arrays."""
        at = int(self._at[run]) * self._numbers.itemsize
        if int.from_bytes(self._map[at : at + HEAD_BYTES], "little") != int(self._heads[run]):
            raise MapError("a run does not begin as noted")
        self._seen[run] = True

    def _look(self, rows: np.ndarray, runs: np.ndarray) -> None:
        """Compare the beginnings of the runs that `rows` begin in, if they were not read before, with the map."""
        if self._pieces is not None:
            if not self._pieces.prepare(rows):
                raise MapError("a run does not begin as noted")
            return
        for run in np.unique(runs[~self._seen[runs]]).tolist():
            self._look_at(run)


class Coded:
    """Vectors of 8-bit codes: row i is `weights[i, 0] * centroid of its cell + weights[i, 1] * codes[i]`.

    `codes` has `dim` numbers a row and `weights` two, both in the order of the cells; `centroids` is `(c, d) float32`,
    and the rows of cell i begin at `starts[i]`, `(c + 1,) int64`. Raises MapError when they are not of the same rows.
    """

    def __init__(self, codes: Mapped, weights: Mapped, centroids: np.ndarray, starts: np.ndarray) -> None:
        if not codes.rows == weights.rows == starts[-1]:
            raise MapError("codes, weights and cells are not of the same rows")
        self.rows, self.dim = codes.rows, codes.dim
        self._codes, self._weights, self._centroids, self._starts = codes, weights, centroids, starts

    def take(self, rows: np.ndarray) -> np.ndarray:
        return decoded(self._codes.take(rows), self._weights.take(rows), self._centroids[self._cell(rows)])

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        if dots.LIBRARY is None or not len(rows):
            return _taken_scores(self, scorer, rows)
        cell, weights = self._cell(rows), self._weights.take(rows)
        firsts = np.flatnonzero(np.diff(cell, prepend=-1))  # neighbors mostly lie in one cell
        centroids, counts = self._centroids[cell[firsts]], np.diff(firsts, append=len(cell))

        def products(vector: np.ndarray) -> np.ndarray:
            leaning = np.repeat(np.vecdot(centroids, vector), counts)
            return weights[:, 0] * leaning + weights[:, 1] * self._codes.products(vector, rows=rows)

        return scorer.through(products)

    def _cell(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, rows, side="right") - 1

    def done(self, start: int, stop: int) -> None:
        self._codes.done(start, stop)
        self._weights.done(start, stop)


def encoded(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes `(n, d) int8` and weights `(n, 2) float32` of unit vectors, given the centroid of each.

    What is orthogonal to the centroid is rounded to whole numbers, 127 for the largest of each vector. The weights are
    those that bring the sum closest to the vector, brought to unit length: a wrong length would matter most among the
    closest neighbors.
    """
    share = _products(vectors, centroids)
    rest = vectors - share[:, None] * centroids
    largest = np.abs(rest).max(axis=1, keepdims=True)
    whole = np.rint(rest * np.divide(LARGEST_CODE, largest, out=np.zeros_like(largest), where=largest > LEAST_REST))
    across, size = _products(centroids, whole), _products(whole, whole)
    scale = (_products(vectors, whole) - across * share) / np.maximum(size - across * across, 1)
    weights = np.stack([share - scale * across, scale], axis=1)
    codes = whole.astype(np.int8)
    return codes, weights / np.linalg.norm(decoded(codes, weights, centroids), axis=1, keepdims=True)


def decoded(codes: np.ndarray, weights: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the vectors `(n, d) float32` that codes stand for."""
    return weights[:, :1] * centroids + weights[:, 1:] * codes.astype(np.float32)


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the inner product of each row with the other's, the same for equal rows wherever they lie."""
    return (left * right).sum(axis=1)


def numbers(table: pa.Table, column: str) -> np.ndarray:
    """Return a column of 64-bit integers; read through its buffers, because Array.to_numpy imports pandas."""
    chunks = [chunk for chunk in table[column].chunks if len(chunk)]
    parts = [np.frombuffer(chunk.buffers()[1], np.int64, len(chunk), 8 * chunk.offset) for chunk in chunks]
    return np.concatenate([np.empty(0, np.int64), *parts])


def mapped(
    runs: pa.Table, dim: int, place: Callable[[str | None], Path], *, dtype: type = np.float32
) -> Mapped | Chain:
    """Return the vectors that `runs` describe; `place` gives the path of a file named there. Raises MapError."""
    try:
        parts = [Mapped(part, dim, place(file), dtype=dtype) for file, part in by_file(runs)]
    except OSError as error:
        raise MapError(str(error)) from None
    return parts[0] if len(parts) == 1 else Chain(parts, dim)


def by_file(runs: pa.Table) -> Iterator[tuple[str | None, pa.Table]]:
    """Yield each file of a map and its runs, in order."""
    start = 0
    for file, rows in itertools.groupby(runs["file"].to_pylist()):
        count = len(list(rows))
        yield file, runs.slice(start, count)
        start += count


def file_state(path: Path) -> int:
    """Return how often DuckDB has changed a file: the larger count of its two headers."""
    with path.open("rb") as file:
        start = file.read(3 * 4096)
    if len(start) < 3 * 4096:
        raise MapError("the file is cut")
    return max(int.from_bytes(start[at + 8 : at + 16], "little") for at in (4096, 8192))


def runs_table(
    file: str | None, path: Path, places: np.ndarray, values: np.ndarray, first: int, *, dtype: type = np.float32
) -> pa.Table:
    """Return the part of `vector_map` for the runs of one file.

    `places` are byte offsets, `values` how many numbers lie there, `first` the number of the first one in the column.
    """
    size = np.dtype(dtype).itemsize
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        spans = zip(places.tolist(), (places + size * values).tolist(), strict=True)
        found = [(content[start : start + HEAD_BYTES], zlib.crc32(content[start:end])) for start, end in spans]
    return pa.table(
        {
            "file": pa.array([file] * len(places), pa.string()),
            "first_value": first + np.cumsum(values) - values,
            "run_values": values,
            "byte_offset": places,
            "head": np.array([int.from_bytes(head, "little") for head, _ in found], np.uint64).view(np.int64),
            "crc32": np.array([digest for _, digest in found], np.int64),
        }
    )
