"""Where the stored vectors lie as raw numbers, and how they are read without asking an engine.

An uncompressed column of a DuckDB file, and a page of a Lance file, is a run of little-endian floats. The writer notes
where each run starts (`vector_map`, docs/format.md); a reader maps the file into memory and compares the rows in place.
A run whose first eight bytes are not those noted was moved by someone who rewrote the file: then the map is given up
and the engine is asked (`Fetched`).
"""

from __future__ import annotations

import bisect
import itertools
import mmap
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from galsearch.query import Scorer

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

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        """Write the scores of the rows from `start` up to `stop` into `out`."""

    def done(self, start: int, stop: int) -> None:
        """Say that a scan of everything will not come back to these rows."""


class Held:
    """Vectors in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.rows, self.dim = array.shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._array[rows]

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        scorer.into(self._array[start:stop], out)

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

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        for at in range(start, stop, BLOCK_ROWS):
            end = min(at + BLOCK_ROWS, stop)
            scorer.into(self._fetch(np.arange(at, end)), out[at - start : end - start])

    def done(self, start: int, stop: int) -> None:
        """Nothing to hand back."""


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

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        try:
            self.now.score(scorer, start, stop, out)
        except MapError:
            self.now = self._otherwise()
            self.now.score(scorer, start, stop, out)

    def done(self, start: int, stop: int) -> None:
        self.now.done(start, stop)


class Reordered:
    """Other vectors in another order: row i is their row `order[i]`."""

    def __init__(self, vectors: Vectors, order: np.ndarray) -> None:
        self._vectors, self._order = vectors, order
        self.rows, self.dim = len(order), vectors.dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._vectors.take(self._order[rows])

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        scorer.into(self.take(np.arange(start, stop)), out)

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
        if not len(rows):
            return found
        part = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(part, kind="stable")
        numbers, firsts = np.unique(part[order], return_index=True)
        for number, places in zip(numbers, np.split(order, firsts[1:]), strict=True):
            found[places] = self._parts[number].take(rows[places] - self._starts[number])
        return found

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        for part, low, high in self._inside(start, stop):
            begin = self._starts[part]
            self._parts[part].score(scorer, low - begin, high - begin, out[low - start : high - start])

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
        whole_from = -(-self._first // dim)
        whole_to = np.maximum((self._first + self._values) // dim, whole_from)
        # as Python numbers: the scan of a cell is a short loop over them
        self._from, self._to = whole_from.tolist(), whole_to.tolist()
        self._begin = (self._at + whole_from * dim - self._first).tolist()
        self._starts = self._first.tolist()
        self._bridges: dict[int, np.ndarray] = {}

    def _check_places(self, offsets: np.ndarray, item: int) -> None:
        inside = (offsets >= 0) & (offsets + np.maximum(self._values * item, HEAD_BYTES) <= len(self._map))
        if not inside.all() or (offsets % item).any() or (self._values <= 0).any():
            raise MapError("a run does not lie inside the file")

    def take(self, rows: np.ndarray) -> np.ndarray:
        start = np.asarray(rows, np.int64) * self.dim
        run = np.searchsorted(self._first, start, side="right") - 1
        self._look(np.unique(run))
        inside = start + self.dim <= self._first[run] + self._values[run]
        at = np.where(inside, self._at[run] + start - self._first[run], 0)
        item = self._numbers.itemsize
        windows = np.lib.stride_tricks.as_strided(  # row i is what begins at number i
            self._numbers, (len(self._numbers) - self.dim + 1, self.dim), (item, item), writeable=False
        )
        found = windows[at]
        for place in np.flatnonzero(~inside):
            found[place] = self._across(int(start[place]), int(run[place]))
        return found

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

    def _bridge(self, row: int) -> np.ndarray:
        """Return a vector that lies in several runs, `(1, d)`; kept, because there is one to every run at most."""
        if row not in self._bridges:
            begin = row * self.dim
            self._bridges[row] = self._across(begin, bisect.bisect_right(self._starts, begin) - 1)[None]
        return self._bridges[row]

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (row, vectors from that row on) until all rows from `start` up to `stop` were there."""
        run = bisect.bisect_right(self._to, start)
        while start < stop:
            if run == len(self._to) or self._from[run] > start:  # this one lies across the end of a run
                yield start, self._bridge(start)
                start += 1
                continue
            if not self._seen[run]:
                self._look_at(run)
            end, last = min(stop, self._to[run]), self._to[run]
            at = self._begin[run] + (start - self._from[run]) * self.dim
            if end > start:
                yield start, self._numbers[at : at + (end - start) * self.dim].reshape(-1, self.dim)
            start, run = end, run + (end == last)

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        for row, block in self.blocks(start, stop):
            scorer.into(block, out[row - start : row - start + len(block)])

    def done(self, start: int, stop: int) -> None:
        low = max(0, bisect.bisect_right(self._starts, start * self.dim) - 1)
        high = bisect.bisect_left(self._starts, stop * self.dim)
        if low < high:
            item, page = self._numbers.itemsize, mmap.PAGESIZE
            begin = -(-int(self._at[low:high].min()) * item // page) * page
            end = int((self._at[low:high] + self._values[low:high]).max()) * item // page * page
            if hasattr(self._map, "madvise") and end > begin:
                self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)

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

    def _look(self, runs: np.ndarray) -> None:
        """Compare the beginnings of runs that were not read before with what the map says."""
        new = runs[~self._seen[runs]]
        if len(new):
            at = self._at[new][:, None] * self._numbers.itemsize + np.arange(HEAD_BYTES)
            if not np.array_equal(self._bytes[at].view(np.uint64).ravel(), self._heads[new]):
                raise MapError("a run does not begin as noted")
            self._seen[new] = True


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
        self._first = starts.tolist()  # as Python numbers, because a cell is scored in a few microseconds
        self._asked: tuple[Scorer, np.ndarray] | None = None

    def take(self, rows: np.ndarray) -> np.ndarray:
        cell = np.searchsorted(self._starts, rows, side="right") - 1
        return decoded(self._codes.take(rows), self._weights.take(rows), self._centroids[cell])

    def score(self, scorer: Scorer, start: int, stop: int, out: np.ndarray) -> None:
        step = max(1, BLOCK_NUMBERS // self.dim)
        if scorer.either is not None:  # the largest of several products is no sum over parts
            for at in range(start, stop, step):
                rows = np.arange(at, min(at + step, stop))
                scorer.into(self.take(rows), out[at - start : at - start + len(rows)])
            return
        for row, block in self._codes.blocks(start, stop):
            for at in range(0, len(block), step):
                part = block[at : at + step].astype(np.float32)
                scorer.into(part, out[row + at - start : row + at - start + len(part)])
        for row, block in self._weights.blocks(start, stop):
            part = out[row - start : row - start + len(block)]
            part *= block[:, 1]
            part += block[:, 0] * self._of_centroids(scorer, row, row + len(block))

    def _of_centroids(self, scorer: Scorer, start: int, stop: int) -> np.ndarray:
        """Return the scores of the centroids of the rows from `start` up to `stop`; one number where it is one cell."""
        asked = self._asked
        if asked is None or asked[0] is not scorer:
            asked = self._asked = scorer, scorer.of(self._centroids)
        scores = asked[1]
        low, high = bisect.bisect_right(self._first, start) - 1, bisect.bisect_left(self._first, stop)
        if high == low + 1:
            return scores[low]
        return np.repeat(scores[low:high], np.diff(np.clip(self._starts[low : high + 1], start, stop)))

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
