"""Where the stored vectors lie as raw numbers, and how they are read without asking an engine.

An uncompressed column of a DuckDB file, and a page of a Lance file, is a run of little-endian floats. The writer notes
where each run starts (`vector_map`, docs/format.md); a reader maps the file into memory and compares the rows in place.
A run whose first eight bytes are not those noted was moved by someone who rewrote the file: then the map is given up
and the engine is asked (`Fetched`).
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import mmap
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from galsearch.errors import FormatError
from galsearch.science.ranking import Scorer
from galsearch.store.files import Content, OpenFile
from galsearch.store.index import kernel

BLOCK_ROWS = 8_192  # rows read at a time
BLOCK_NUMBERS = 1 << 18  # codes turned into floats at a time: what stays in the cache of a core
LARGEST_CODE = 127
LEAST_REST = 1e-6  # a vector that differs less than this from its centroid is its centroid
HEAD_BYTES = 8
DIGEST_BYTES = 1 << 24  # read at a time


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

    def span_scores(self, scorer: Scorer, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """Return the scores of the rows of several spans `(s,)`, one span after another."""

    def done(self, start: int, stop: int) -> None:
        """Say that a scan of everything will not come back to these rows."""


class Held:
    """Vectors in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = np.ascontiguousarray(array, np.float32)
        self.rows, self.dim = array.shape
        self._pieces: kernel.Pieces | None = None
        if kernel.LIBRARY is not None and array.size:
            content = self._array.reshape(-1).view(np.uint8)
            self._pieces = kernel.Pieces(
                content, np.float32, self.dim, first=np.array([0, array.size]), at=np.zeros(1, np.int64)
            )

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._array[rows]

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        pieces = self._pieces
        if pieces is None:
            return _taken_scores(self, scorer, rows)
        return scorer.through(lambda vector: _noted(pieces.products(vector, rows)))

    def span_scores(self, scorer: Scorer, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        pieces = self._pieces
        if pieces is None:
            return self.scores(scorer, rows_of_spans(starts, stops))
        return scorer.through(lambda vector: _noted(pieces.span_products(vector, starts, stops)))

    def done(self, start: int, stop: int) -> None:
        """Nothing to hand back."""


class _ByRows:
    """Vectors whose spans are compared as the rows that they have."""

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def span_scores(self, scorer: Scorer, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        return self.scores(scorer, rows_of_spans(starts, stops))


class Fetched(_ByRows):
    """Vectors that only their engine can read: `fetch(rows)` returns those at the sorted row numbers `rows`."""

    def __init__(self, rows: int, dim: int, fetch: Callable[[np.ndarray], np.ndarray]) -> None:
        self.rows, self.dim, self._fetch = rows, dim, fetch

    def take(self, rows: np.ndarray) -> np.ndarray:
        wanted, index = np.unique(rows, return_inverse=True)
        parts = [self._fetch(wanted[at : at + BLOCK_ROWS]) for at in range(0, len(wanted), BLOCK_ROWS)]
        return np.concatenate([np.empty((0, self.dim), np.float32), *parts])[index]

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        return _taken_scores(self, scorer, rows, block=BLOCK_ROWS)

    def done(self, start: int, stop: int) -> None:
        """Nothing to hand back."""


def rows_of_spans(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return the numbers of several spans, one span after another."""
    counts = stops - starts
    return np.arange(int(counts.sum())) + np.repeat(starts - np.cumsum(counts) + counts, counts)


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

    def _answer(self, question: Callable[[Vectors], np.ndarray]) -> np.ndarray:
        try:
            return question(self.now)
        except MapError:
            self.now = self._otherwise()
            return question(self.now)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._answer(lambda vectors: vectors.take(rows))

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        return self._answer(lambda vectors: vectors.scores(scorer, rows))

    def span_scores(self, scorer: Scorer, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        return self._answer(lambda vectors: vectors.span_scores(scorer, starts, stops))

    def done(self, start: int, stop: int) -> None:
        self.now.done(start, stop)


class Reordered(_ByRows):
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


class Chain(_ByRows):
    """Vectors that lie in several places one after another."""

    def __init__(self, parts: Sequence[Mapped], dim: int) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        self.rows, self.dim = int(self._starts[-1]), dim

    def take(self, rows: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), self.dim), np.float32)
        for part, indices in self._by_part(rows):
            result[indices] = self._parts[part].take(rows[indices] - self._starts[part])
        return result

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        result = np.empty(len(rows), np.float32)
        for part, indices in self._by_part(rows):
            result[indices] = self._parts[part].scores(scorer, rows[indices] - self._starts[part])
        return result

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
    """Vectors read in place from one file.

    `runs` is its part of `vector_map`, ordered by `first_value`; `dtype` is what the file holds. A vector may lie
    across the end of one run and the beginning of the next. Raises MapError when a run is not inside the file or does
    not begin as noted; the latter is looked at when a run is first read. Raises FormatError when the file is changed
    while it is open: what was read then may be of neither state.

    The compiled functions read the file where the system maps it, and stand it when it is cut meanwhile. Without them
    it is read into memory of our own, for nothing else would. So is a file that lies elsewhere: what a question needs
    of it is fetched at once, and the beginnings of its runs are not looked at, each of which would be a request more.
    """

    def __init__(self, runs: pa.Table, dim: int, file: Path | Content, *, dtype: type = np.float32) -> None:
        self.file: Content = OpenFile(file) if isinstance(file, Path) else file
        self.dim, self._dtype = dim, np.dtype(dtype)
        first, self._values = _map_column(runs, "first_value"), _map_column(runs, "run_values")
        self._at = _map_column(runs, "byte_offset")
        self._heads, self._digests = _map_column(runs, "head"), _map_column(runs, "crc32")
        self._check_runs()
        total = int(self._values.sum())  # each is at most the length of the file
        self._first = np.cumsum(self._values) - self._values
        if first[0] < 0 or not np.array_equal(first - first[0], self._first) or dim < 1 or total % dim:
            raise MapError("the runs do not follow one another")
        self.rows = total // dim
        self._starts = self._first.tolist()
        self._seen = np.zeros(len(self._at), bool)
        self._pieces: kernel.Pieces | None = None
        if not isinstance(self.file, OpenFile):
            self._seen[:] = True
        elif kernel.LIBRARY is not None:
            self._map_pieces(self.file, total)

    def _check_runs(self) -> None:
        item, size = self._dtype.itemsize, self.file.size
        if not len(self._at) or len(self._at) > size:
            raise MapError("the map has no runs, or more than the file has bytes")
        inside = (self._at >= 0) & (self._at <= size - HEAD_BYTES) & (self._values > 0)
        if not inside.all() or (self._values > (size - self._at) // item).any() or (self._at % item).any():
            raise MapError("a run does not lie inside the file")

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled functions compare the rows where they are."""
        return self._pieces is not None

    def _map_pieces(self, file: OpenFile, total: int) -> None:
        self._map = mmap.mmap(file.fileno(), file.size, access=mmap.ACCESS_READ)
        ends, content = np.append(self._first, total), np.frombuffer(self._map, np.uint8)
        try:
            options = {"first": ends, "at": self._at, "head": self._heads}
            self._pieces = kernel.Pieces(content, self._dtype, self.dim, **options)
        except ValueError as error:
            raise MapError(str(error)) from None
        if hasattr(mmap, "MADV_RANDOM"):  # what is needed is asked for; reading ahead of it would be in vain
            self._map.madvise(mmap.MADV_RANDOM)

    def take(self, rows: np.ndarray) -> np.ndarray:
        with self._unchanged():
            return self._read_rows(rows) if self._pieces is None else _noted(self._pieces.take(rows))

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Raise FormatError when the file was changed before the end of the block."""
        try:
            yield
        except kernel.VanishedError:
            raise self.file.changed() from None
        except MapError:
            self.file.check()
            raise
        self.file.check()

    def _read_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return rows that are read into memory, neighbors in one go."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
            raise IndexError(f"a row is not among the {self.rows} that there are")
        result = np.empty((len(rows), self.dim), self._dtype)
        self.file.fetch(self.spans(rows))
        for start, stop in _neighbors(rows):
            self._read_numbers(int(rows[start]) * self.dim, result[start:stop].reshape(-1))
        return result

    def spans(self, rows: np.ndarray) -> list[tuple[int, int]]:
        """Return where rows lie in the file, as spans of bytes (start, stop)."""
        result, item = [], self._dtype.itemsize
        for first, last in _neighbors(rows):
            start, stop = int(rows[first]) * self.dim, (int(rows[last - 1]) + 1) * self.dim
            run = bisect.bisect_right(self._starts, start) - 1
            while start < stop:
                end = min(stop, self._starts[run] + int(self._values[run]))
                at = int(self._at[run]) + (start - self._starts[run]) * item
                result.append((at, at + (end - start) * item))
                start, run = end, run + 1
        return result

    def _read_numbers(self, start: int, out: np.ndarray) -> None:
        """Read the numbers from number `start` on into `out`."""
        run, done, item = bisect.bisect_right(self._starts, start) - 1, 0, self._dtype.itemsize
        while done < len(out):
            if not self._seen[run]:
                self._look_at(run)
            skip = start + done - self._starts[run]
            count = min(len(out) - done, int(self._values[run]) - skip)
            content = self.file.read(int(self._at[run]) + skip * item, count * item)
            out[done : done + count] = np.frombuffer(content, self._dtype)
            done, run = done + count, run + 1

    def _look_at(self, run: int) -> None:
        """Compare the beginning of a run with what was noted."""
        if self.file.read(int(self._at[run]), HEAD_BYTES) != self._heads[run].tobytes():
            raise MapError("a run does not begin as noted")
        self._seen[run] = True

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        if self._pieces is None:
            self.file.fetch(self.spans(rows))
            return _taken_scores(self, scorer, rows)
        return scorer.through(functools.partial(self.products, rows=rows))

    def products(self, vector: np.ndarray, *, rows: np.ndarray) -> np.ndarray:
        """Return the inner products `(n,) float32` of rows with a vector."""
        with self._unchanged():
            return _noted(None if self._pieces is None else self._pieces.products(vector, rows))

    def span_scores(self, scorer: Scorer, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        if self._pieces is None:
            return self.scores(scorer, rows_of_spans(starts, stops))
        return scorer.through(functools.partial(self._span_products, starts=starts, stops=stops))

    def _span_products(self, vector: np.ndarray, *, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        with self._unchanged():
            return _noted(None if self._pieces is None else self._pieces.span_products(vector, starts, stops))

    def done(self, start: int, stop: int) -> None:
        if self._pieces is None:
            return
        low = max(0, bisect.bisect_right(self._starts, start * self.dim) - 1)
        high = bisect.bisect_left(self._starts, stop * self.dim)
        if low < high:
            item, page = self._dtype.itemsize, mmap.PAGESIZE
            begin = -(-int(self._at[low:high].min()) // page) * page
            end = int((self._at[low:high] + self._values[low:high] * item).max()) // page * page
            if hasattr(self._map, "madvise") and end > begin:
                self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)
                self._pieces.seen[low:high] = 0  # to be asked for again

    def damaged_runs(self) -> int:
        """Return how many runs have not the CRC-32 that was noted."""
        lengths = self._values * self._dtype.itemsize
        with self._unchanged():
            result = [self._digest(at, length) for at, length in zip(self._at.tolist(), lengths.tolist(), strict=True)]
        return int(np.count_nonzero(np.array(result, np.int64) != self._digests))

    def _digest(self, at: int, length: int) -> int:
        digest = 0
        for start in range(0, length, DIGEST_BYTES):
            digest = zlib.crc32(self.file.read(at + start, min(DIGEST_BYTES, length - start)), digest)
        return digest


def _neighbors(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield which parts of some rows follow one another, as (start, stop) among them."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for start, stop in itertools.pairwise([0, *breaks.tolist(), len(rows)]):
        if start < stop:
            yield start, stop


def _noted(result: np.ndarray | None) -> np.ndarray:
    """Return what was found. Raises MapError for nothing: then a run does not begin as noted."""
    if result is None:
        raise MapError("a run does not begin as noted")
    return result


def _map_column(runs: pa.Table, name: str) -> np.ndarray:
    try:
        return numbers(runs, name)
    except FormatError as error:
        raise MapError(str(error)) from None


class Coded(_ByRows):
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
        self._fetch(rows)
        return decoded(self._codes.take(rows), self._weights.take(rows), self._centroids[self._cell(rows)])

    def _fetch(self, rows: np.ndarray) -> None:
        """Have what is needed of rows at hand, codes and weights at once, where the file lies elsewhere."""
        if not self._codes.is_compiled:
            self._codes.file.fetch([*self._codes.spans(rows), *self._weights.spans(rows)])

    def scores(self, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        if not self._codes.is_compiled or not len(rows):
            self._fetch(rows)
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
    """Return a column of 64-bit integers. Raises FormatError where it has another type, or a NULL.

    It is read through its buffers, because Array.to_numpy imports pandas.
    """
    result = table[column]
    if result.type != pa.int64() or result.null_count:
        held = f"{result.null_count} NULLs" if result.null_count else str(result.type)
        raise FormatError(f"column '{column}' holds {held}, expected 64-bit integers; copy the atlas again")
    chunks = [chunk for chunk in result.chunks if len(chunk)]
    parts = [np.frombuffer(chunk.buffers()[1], np.int64, len(chunk), 8 * chunk.offset) for chunk in chunks]
    return np.concatenate([np.empty(0, np.int64), *parts])


def mapped(
    runs: pa.Table, dim: int, locate: Callable[[str | None], Path | Content], *, dtype: type = np.float32
) -> Mapped | Chain:
    """Return the vectors that `runs` describe; `locate` gives a file named there, or its path. Raises MapError."""
    try:
        parts = [Mapped(part, dim, locate(file), dtype=dtype) for file, part in by_file(runs)]
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise MapError(str(error)) from None
    return parts[0] if len(parts) == 1 else Chain(parts, dim)


def by_file(runs: pa.Table) -> Iterator[tuple[str | None, pa.Table]]:
    """Yield each file of a map and its runs, in order."""
    start = 0
    for file, rows in itertools.groupby(runs["file"].to_pylist()):
        count = len(list(rows))
        yield file, runs.slice(start, count)
        start += count


def file_state(file: Path | Content) -> int:
    """Return how often DuckDB has changed a file: the larger count of its two headers."""
    opened: Content = OpenFile(file) if isinstance(file, Path) else file
    if opened.size < 3 * 4096:
        raise MapError("the file is cut")
    start = opened.read(0, 3 * 4096)
    return max(int.from_bytes(start[at + 8 : at + 16], "little") for at in (4096, 8192))


def runs_table(
    file: str | None, path: Path, offsets: np.ndarray, values: np.ndarray, first: int, *, dtype: type = np.float32
) -> pa.Table:
    """Return the part of `vector_map` for the runs of one file.

    `offsets` are byte offsets, `values` how many numbers lie there, `first` the number of the first one in the column.
    """
    size = np.dtype(dtype).itemsize
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        spans = zip(offsets.tolist(), (offsets + size * values).tolist(), strict=True)
        result = [(content[start : start + HEAD_BYTES], zlib.crc32(content[start:end])) for start, end in spans]
    return pa.table(
        {
            "file": pa.array([file] * len(offsets), pa.string()),
            "first_value": first + np.cumsum(values) - values,
            "run_values": values,
            "byte_offset": offsets,
            "head": np.array([int.from_bytes(head, "little") for head, _ in result], np.uint64).view(np.int64),
            "crc32": np.array([digest for _, digest in result], np.int64),
        }
    )
