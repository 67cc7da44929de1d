"""How vectors are grouped into cells, and how many cells a question has to visit.

A cell is the set of unit vectors whose closest centroid, by inner product, is the same; rows are stored cell by cell.
Searching visits the cells whose centroids are closest to the query. How many are needed for a wished recall is
measured on the atlas's own vectors when it is written (`Curves`), for queries like stored vectors and for words apart.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from galsearch.science.ranking import Scorer
from galsearch.store.index import kernel
from galsearch.store.index.vectors import LARGEST_CODE, Held, Vectors

CELLS_PER_ROOT_ROW = 4  # about 4 sqrt(N) cells: the visited share and the cost of comparing centroids stay in balance
LEAST_ROWS = 20_000  # up to this many rows, comparing all of them is the quicker way and misses nothing
SAMPLE_ROWS_PER_CELL = 40
ITERATIONS = 8
BLOCK_ROWS = 16_384  # rows compared with all centroids at a time

LIKE, WORDS = "like", "words"  # what a query may resemble: stored vectors, or text
FAR = "far"  # any query, when the cells closest to it hold nothing that passes the cut
FAR_SHARE = 0.1  # of the cells that are left then, where the recall is measured
QUERIES = 128  # of each kind, on which the recall is measured
DEPTHS = (10, 100, 1_000, 10_000)
THRESHOLD_SHARE = 0.95  # of queries find something better than the line under which nothing is convincing
SAFETY = 1.25  # more cells than the mean over those queries asks for


@dataclass(frozen=True)
class Cells:
    """The index of an embedding: `centroids` (c, d) float32 of unit length, and the rows of cell i.

    They are those from `starts[i]` up to `starts[i + 1]`, `(c + 1,) int64`; rows from the last on lie in no cell.
    """

    centroids: np.ndarray
    starts: np.ndarray
    curves: Curves

    def __len__(self) -> int:
        return len(self.centroids)

    @functools.cached_property
    def held(self) -> np.ndarray:
        """How many rows each cell has, `(c,) int64`."""
        return np.diff(self.starts)

    def scores(self, scorer: Scorer) -> np.ndarray:
        """Return the scores `(c,) float32` of the centroids.

        With one query vector they are rounded, to 1/250 of the largest number of each: reading a quarter of the memory
        is quicker, and the order in which cells are visited hardly changes.
        """
        rows = np.arange(len(self))
        if scorer.either is not None or kernel.LIBRARY is None:
            return self._held.scores(scorer, rows)
        pieces, sizes = self._codes
        return sizes * pieces.products(scorer.vector, rows)

    @functools.cached_property
    def _held(self) -> Held:
        return Held(self.centroids)

    @functools.cached_property
    def _codes(self) -> tuple[kernel.Pieces, np.ndarray]:
        """Whole numbers up to LARGEST_CODE that are in proportion to those of the centroids, and the proportions."""
        sizes = np.abs(self.centroids).max(axis=1) / LARGEST_CODE
        codes = np.rint(self.centroids / np.maximum(sizes, 1e-30)[:, None]).astype(np.int8)
        first = np.array([0, codes.size])
        content = codes.reshape(-1).view(np.uint8)
        return kernel.Pieces(content, np.int8, codes.shape[1], first=first, at=np.zeros(1, np.int64)), sizes


class Curves:
    """Recall against cells visited: rows of (asked, depth, probes, recall), the mean over the queries of one kind.

    `depth` is how many of the best rows were wanted. A cut that leaves the share s of the rows asks for the best k of
    those, and they lie about as deep as the best k / s of all. Where a cut follows the vectors, whole cells are empty,
    and what is left may be far from the query: that is the kind `FAR`.
    """

    def __init__(self, rows: Iterable[tuple[str, int, int, float]]) -> None:
        self.rows = sorted(rows)
        self._measured: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
        self._known: dict[tuple, int] = {}
        for (kind, depth), part in itertools.groupby(self.rows, key=lambda row: row[:2]):
            probes, recall = np.array([row[2:] for row in part]).T
            self._measured.setdefault(kind, {})[depth] = np.log(probes), np.maximum.accumulate(recall)

    def probes(self, *, recall: float, depth: float, kinds: Iterable[str], cells: int) -> int:
        """Return how many of the cells to visit for the wished recall: the largest number of those for the kinds.

        Without measurements it is a share of the cells that grows with the depth.
        """
        if not self._measured:
            share = min(1.0, 1 / 32 * max(1.0, depth / 10) ** 0.3)
            return min(cells, max(32, math.ceil(cells * share)))
        requested = recall, depth, tuple(kinds), cells
        if requested not in self._known:
            needed = max(self._needed(kind, recall, depth) for kind in kinds if kind in self._measured)
            self._known = {
                requested: max(1, min(cells, math.ceil(SAFETY * needed)))
            }  # the same is asked again and again
        return self._known[requested]

    def _needed(self, kind: str, recall: float, depth: float) -> float:
        """Return the cells for a recall at a depth between or beyond those measured, in logarithms of both."""
        depths = np.log(list(self._measured[kind]))
        needed = [_crossing(*curve, recall) for curve in self._measured[kind].values()]
        at = math.log(max(depth, 1))
        if len(depths) > 1 and at > depths[-1]:
            slope = max(0.0, (needed[-1] - needed[-2]) / (depths[-1] - depths[-2]))
            return math.exp(needed[-1] + slope * (at - depths[-1]))
        return math.exp(np.interp(at, depths, needed))


def _crossing(probes: np.ndarray, reached: np.ndarray, recall: float) -> float:
    """Return the logarithm of probes at which the recall is reached; the last one where it is not."""
    last = int(np.searchsorted(reached, recall))
    if last in (0, len(reached)):
        return float(probes[min(last, len(probes) - 1)])
    step = (recall - reached[last - 1]) / (reached[last] - reached[last - 1])
    return float(probes[last - 1] + step * (probes[last] - probes[last - 1]))


def cell_count(rows: int) -> int:
    """Return how many cells `rows` vectors are divided into: about 4 sqrt(rows), at least 1."""
    return max(1, min(round(CELLS_PER_ROOT_ROW * math.sqrt(rows)), rows // 8))


def fit(vectors: Vectors, *, seed: int, progress: Callable[[int, int], None] = lambda done, total: None) -> np.ndarray:
    """Return the centroids `(cells, d) float32` of a sample of `vectors`, in bounded memory."""
    count = cell_count(vectors.rows)
    size = min(vectors.rows, count * SAMPLE_ROWS_PER_CELL)
    chosen = np.sort(np.random.default_rng(seed).choice(vectors.rows, size=size, replace=False))
    return fit_centroids(vectors.take(chosen), count, seed=seed, progress=progress)


def fit_centroids(
    sample: np.ndarray, cells: int, *, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray:
    """Return `(cells, d) float32` unit centroids of the unit vectors `sample`, `(n, d) float32`.

    Lloyd's iterations on the sphere (Dhillon & Modha 2001); a cell that runs empty restarts at a random vector.
    """
    generator = np.random.default_rng(seed)
    centroids = sample[generator.choice(len(sample), size=cells, replace=False)].copy()
    for done in range(ITERATIONS):
        progress(done, ITERATIONS)
        sums, counts = _sums(sample, assign(sample, centroids), cells)
        empty = counts == 0
        sums[empty] = sample[generator.choice(len(sample), size=int(empty.sum()))]
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.divide(sums, lengths, out=centroids, where=lengths > 1e-12)
    return centroids[_chain(centroids)]


def _chain(centroids: np.ndarray) -> np.ndarray:
    """Return an order in which each centroid is followed by the closest one that is left.

    Cells are stored in this order: those that a query visits then lie in fewer places of the file.
    """
    order = np.zeros(len(centroids), np.int64)
    left = np.zeros(len(centroids), np.float32)  # minus infinity where a centroid has its place
    for index in range(1, len(centroids)):
        left[order[index - 1]] = -np.inf
        order[index] = np.argmax(centroids @ centroids[order[index - 1]] + left)
    return order


def _sums(sample: np.ndarray, cell: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(cell, kind="stable")
    present, starts, counts = np.unique(cell[order], return_index=True, return_counts=True)
    sums = np.zeros((cells, sample.shape[1]), dtype=np.float32)
    sums[present] = np.add.reduceat(sample[order], starts, axis=0)
    every = np.zeros(cells, dtype=np.int64)
    every[present] = counts
    return sums, every


def assign(embeddings: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the cell of each row of `embeddings`, `(n,) int32`."""
    cell = np.empty(len(embeddings), dtype=np.int32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS]
        cell[start : start + len(block)] = np.argmax(block @ centroids.T, axis=1)
    return cell


def assign_all(
    vectors: Vectors, centroids: np.ndarray, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray:
    """Return the cell of every row of `vectors`, `(rows,) int32`, reading each once."""
    cell = np.empty(vectors.rows, dtype=np.int32)
    for start in range(0, vectors.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, vectors.rows)
        progress(start, vectors.rows)
        cell[start:stop] = assign(vectors.take(np.arange(start, stop)), centroids)
        vectors.done(start, stop)
    return cell


def measure(vectors: Vectors, cells: Cells, words: np.ndarray | None, *, seed: int) -> Curves:
    """Return the recall against cells visited, by exact comparison of sample queries with all of `vectors`.

    `words` are unit vectors `(n, d)` of phrases. Without any, queries in words are stood in for by the sums of three
    stored vectors: those too have their neighbors spread over many cells.
    """
    generator = np.random.default_rng(seed)
    rows = int(cells.starts[-1])
    like = vectors.take(np.sort(generator.choice(rows, size=min(QUERIES, rows), replace=False)))
    if words is None or not len(words):
        words = vectors.take(generator.integers(rows, size=3 * QUERIES)).reshape(QUERIES, 3, -1).sum(axis=1)
        words = words / np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-12)
    words = words[generator.permutation(len(words))[:QUERIES]]
    queries = np.concatenate([like, words]).astype(np.float32)
    near, far = _ranks_of_best(vectors, cells, queries, generator)
    ranks = {LIKE: near[: len(like), 1:], WORDS: near[len(like) :, :-1], FAR: far}  # a stored vector finds itself first
    grid = sorted({min(len(cells), round(2 ** (step / 2))) for step in range(2 * math.ceil(math.log2(len(cells))) + 1)})
    return Curves(
        (kind, depth, probes, float(np.mean(result[:, :depth] < probes)))
        for kind, result in ranks.items()
        for depth in DEPTHS
        if depth <= result.shape[1]
        for probes in grid
    )


def thresholds(vectors: Vectors, words: np.ndarray | None, *, seed: int) -> dict[str, float]:
    """Return the score, by kind of query, that the best answer reaches for THRESHOLD_SHARE of the queries of that kind.

    Queries are stored vectors, which do not find themselves, and the phrases `words`, `(n, d)` unit vectors, if any.
    """
    if vectors.rows < 2:
        return {}
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(vectors.rows, size=min(QUERIES, vectors.rows), replace=False))
    queries = {LIKE: vectors.take(chosen)} | ({} if words is None or not len(words) else {WORDS: words})
    best = {kind: np.full(len(result), -np.inf, np.float32) for kind, result in queries.items()}
    for start in range(0, vectors.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, vectors.rows)
        block = vectors.take(np.arange(start, stop))
        vectors.done(start, stop)
        for kind, result in queries.items():
            scores = result @ block.T
            if kind == LIKE:
                itself = np.flatnonzero((chosen >= start) & (chosen < stop))
                scores[itself, chosen[itself] - start] = -np.inf
            best[kind] = np.maximum(best[kind], scores.max(axis=1))
    return {kind: float(np.quantile(result, 1 - THRESHOLD_SHARE)) for kind, result in best.items()}


def _ranks_of_best(
    vectors: Vectors, cells: Cells, queries: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each query the places of the best rows' cells in the order in which it visits the cells.

    First over all cells, then over a random tenth of them without those that are closest to the query.
    """
    order = np.argsort(-(queries @ cells.centroids.T), axis=1, kind="stable")
    index = np.empty_like(order)
    np.put_along_axis(index, order, np.arange(len(cells))[None], axis=1)
    drawn = (generator.random(index.shape) < FAR_SHARE) & (index >= FAR_SHARE * len(cells))
    near, far = _Best(len(queries), int(cells.starts[-1])), _Best(len(queries), int(cells.starts[-1] * FAR_SHARE**2))
    for start in range(0, int(cells.starts[-1]), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, int(cells.starts[-1]))
        result = queries @ vectors.take(np.arange(start, stop)).T
        vectors.done(start, stop)
        cell = (np.searchsorted(cells.starts, np.arange(start, stop), side="right") - 1).astype(np.int32)
        near.add(result, cell)
        far.add(np.where(drawn[:, cell], result, -np.inf), cell)
    inside = np.cumsum(np.take_along_axis(drawn, order, axis=1), axis=1) - 1  # place among the cells drawn
    among = np.empty_like(index)
    np.put_along_axis(among, order, inside, axis=1)
    return near.homes_in(index), far.homes_in(among)


class _Best:
    """The cells of the best rows of each query."""

    def __init__(self, queries: int, rows: int) -> None:
        self._depth = max(1, min(DEPTHS[-1], rows // 2)) + 1
        self._scores = np.full((queries, self._depth), -np.inf, np.float32)
        self._homes = np.zeros((queries, self._depth), np.int32)

    def add(self, scores: np.ndarray, cell: np.ndarray) -> None:
        least = self._scores.min(axis=1)
        for query in range(len(scores)):
            better = np.flatnonzero(scores[query] > least[query])
            if len(better):
                every = np.concatenate([self._scores[query], scores[query, better]])
                kept = np.argpartition(-every, self._depth - 1)[: self._depth]
                self._scores[query] = every[kept]
                self._homes[query] = np.concatenate([self._homes[query], cell[better]])[kept]

    def homes_in(self, index: np.ndarray) -> np.ndarray:
        """Return the index of each best row's cell, best row first."""
        best = np.argsort(-self._scores, axis=1, kind="stable")
        return np.take_along_axis(index, np.take_along_axis(self._homes, best, axis=1), axis=1)
