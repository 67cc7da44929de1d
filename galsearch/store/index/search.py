"""How the best rows are found: which of them to compare, and how to keep the best without losing a tie.

Rows are numbers, vectors come from `vectors.Vectors`; where they lie and what SQL said is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from galsearch.query import Plan
from galsearch.science.ranking import Scorer
from galsearch.store.index import kernel
from galsearch.store.index.cells import FAR, LIKE, WORDS, Cells
from galsearch.store.index.vectors import BLOCK_ROWS, Vectors, rows_of_spans

SCORE_ERROR = 1e-5  # of single precision: rows that score no worse than the last one wanted, by this much, are kept
DENSE = 0.25  # a scan of a larger share of the rows hands back the memory of what it has read
FOLLOWS = 0.95  # a cut that leaves a smaller share of the cells with a match is taken to follow the vectors


@dataclass(frozen=True)
class Tuning:
    """Sizes from which on reading goes another way. They change how long it takes, not what an exact search finds."""

    exact_matches: int = 4_096  # so few rows that pass a cut are compared as quickly as cells are chosen
    spare: int = 65_536  # candidates kept beyond those wanted before the worst of them are dropped
    scan_bytes: int = 32 << 20  # vectors that are compared at a time
    held_rows: int = 20_000  # an atlas of up to so many rows keeps its columns in memory after the first search
    held_ids: int = 2_000_000  # up to so many object_ids are kept in memory, about 20 bytes each
    few_ids: int = 50  # up to so many are quicker taken one by one
    known_rows: int = 100_000  # so many ids are remembered with their rows, about 20 MB

    def scan_rows(self, dim: int) -> int:
        """Return how many vectors are compared at a time."""
        return max(BLOCK_ROWS, self.scan_bytes // (4 * dim))


@dataclass(frozen=True)
class Request:
    """One question: the `wanted` best rows, of those in `matching` (sorted row numbers) or of all of them (None).

    `probes` fixes how many cells are probed, `exact` all; else `recall` is what the probed cells should reach for
    queries of the kind `query_kind` (cells.LIKE, cells.WORDS, None: not known).
    """

    scorer: Scorer
    wanted: int
    matching: np.ndarray | None = None
    exact: bool = False
    probes: int | None = None
    recall: float = 0.98
    query_kind: str | None = None
    tuning: Tuning = Tuning()


def best_rows(vectors: Vectors, cells: Cells | None, request: Request) -> tuple[np.ndarray, np.ndarray, Plan]:
    """Return the best rows, their scores `(n,) float32` and how they were found; best first, then by row number.

    They are at least the `wanted` ones, and with them every row that scores the same as the last of them.
    """
    matches = vectors.rows if request.matching is None else len(request.matching)
    with kernel.crew(matches * vectors.dim):
        return _best_rows(vectors, cells, request)


def _best_rows(vectors: Vectors, cells: Cells | None, request: Request) -> tuple[np.ndarray, np.ndarray, Plan]:
    matches = vectors.rows if request.matching is None else len(request.matching)
    pool = _Pool(min(request.wanted, matches), request.tuning.spare)
    probing = None if request.exact or cells is None else _probing(cells, request, matches)
    if probing is None or cells is None:
        plan = Plan("exact", matches, _compare_all(vectors, request, pool), exact=True)
    else:
        scanned, probed = _compare_cells(vectors, cells, request, probing, pool)
        plan = Plan("ivf", matches, scanned, scanned >= matches, cells_probed=probed, cells=len(cells))
    rows, _ = pool.best()
    scores = np.concatenate(
        [np.empty(0), *(request.scorer.exact(vectors.take(part)) for part in _parts(rows, BLOCK_ROWS))]
    ).astype(np.float32)
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order], plan


class _Pool:
    """The best candidates so far, and those that tie with the last of them."""

    def __init__(self, wanted: int, spare: int) -> None:
        self._wanted, self._most = wanted, wanted + spare
        self._rows: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._held, self._least = 0, -np.inf

    def add(self, rows: np.ndarray, scores: np.ndarray) -> None:
        if self._least > -np.inf:
            good = scores >= self._least
            rows, scores = rows[good], scores[good]
        self._rows.append(rows)
        self._scores.append(scores)
        self._held += len(rows)
        if self._held > self._most:
            rows, scores = self.best()
            self._rows, self._scores, self._held = [rows], [scores], len(rows)

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that may be among the wanted ones, and their scores."""
        rows = np.concatenate([np.empty(0, np.int64), *self._rows])
        scores = np.concatenate([np.empty(0, np.float32), *self._scores])
        if len(rows) > self._wanted > 0:
            self._least = np.partition(scores, len(scores) - self._wanted)[-self._wanted] - SCORE_ERROR
            good = scores >= self._least
            rows, scores = rows[good], scores[good]
        return (rows, scores) if self._wanted else (rows[:0], scores[:0])


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _compare_all(vectors: Vectors, request: Request, pool: _Pool) -> int:
    """Compare every row that matches; return how many were compared."""
    matches = vectors.rows if request.matching is None else len(request.matching)
    for start in range(0, matches, step := request.tuning.scan_rows(vectors.dim)):
        stop = min(start + step, matches)
        if request.matching is None:
            _compare_whole(vectors, request, np.array([start]), np.array([stop]), pool)
            first, last = start, stop - 1
        else:
            rows = request.matching[start:stop]
            pool.add(rows, vectors.scores(request.scorer, rows))
            first, last = int(rows[0]), int(rows[-1])
        if matches >= DENSE * vectors.rows:
            vectors.done(first, last + 1)
    return matches


@dataclass(frozen=True)
class _Probing:
    """The cells that hold a match, closest first, and how many of them to probe at first.

    `more` says that the number is a guess: where a cut may follow the vectors, visiting goes on until the later two
    thirds of the cells gave none of the best rows.
    """

    order: np.ndarray
    first: int
    more: bool


def _probing(cells: Cells, request: Request, matches: int) -> _Probing | None:
    """Return which cells to probe; None when comparing all that matches is as quick.

    Cells without a match are passed over: where the cut follows the vectors, the closest cells may all be empty.
    """
    if not request.wanted or (request.probes is None and matches <= request.tuning.exact_matches):
        return None
    scores = cells.scores(request.scorer)
    held = cells.held if request.matching is None else np.diff(np.searchsorted(request.matching, cells.starts))
    there = np.flatnonzero(held)
    probes = request.probes or _probes(cells, request, matches, there)
    more = request.matching is not None and request.probes is None
    order = _closest(scores, there, len(there) if more else probes)
    reached = np.cumsum(held[order])
    if not len(order) or reached[-1] < request.wanted:
        order = _closest(scores, there, len(there))
        reached = np.cumsum(held[order])
    enough = int(np.searchsorted(reached, request.wanted)) + 1  # never fewer rows than were wanted
    first = min(len(order), max(probes, enough))
    few_left = request.probes is None and (not first or reached[first - 1] > matches / 2)
    return None if few_left else _Probing(order, first, more)


def _closest(scores: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` of `cells` with the largest scores, the largest first."""
    if count < len(cells):
        cells = cells[np.argpartition(-scores[cells], count)[:count]]
    return cells[np.argsort(-scores[cells])]


def _probes(cells: Cells, request: Request, matches: int, there: np.ndarray) -> int:
    """Return how many of the cells `there` reach the recall.

    The best of a share s of the rows lie as deep as 1 / s as many of all.
    """
    kinds = [request.query_kind] if request.query_kind else [LIKE, WORDS]
    depth = float(request.wanted)
    if request.matching is not None:
        depth *= max(1.0, float(cells.held[there].sum()) / matches)
        kinds = [LIKE, WORDS, FAR] if len(there) < FOLLOWS * len(cells) else kinds
    return cells.curves.probes(recall=request.recall, depth=depth, kinds=kinds, cells=len(cells))


def _compare_cells(vectors: Vectors, cells: Cells, request: Request, probing: _Probing, pool: _Pool) -> tuple[int, int]:
    """Visit cells and compare the rows in no cell; return how many rows were compared and how many cells probed."""
    indexed, start, stop, scanned = int(cells.starts[-1]), 0, probing.first, 0
    if indexed < vectors.rows:
        scanned = _compare_spans(vectors, request, np.array([indexed]), np.array([vectors.rows]), pool)
    while start < stop:
        probe = probing.order[start:stop]
        scanned += _compare_spans(vectors, request, cells.starts[probe], cells.starts[probe + 1], pool)
        start = stop
        if probing.more and _is_late(pool.best()[0], cells, probing.order[stop // 3 : stop]):
            stop = min(2 * stop, len(probing.order))
    return scanned, stop


def _is_late(rows: np.ndarray, cells: Cells, late: np.ndarray) -> bool:
    """Say whether any of the best rows lies in one of the cells `late`."""
    return bool(np.isin(np.searchsorted(cells.starts, rows, side="right") - 1, late).any())


def _compare_spans(vectors: Vectors, request: Request, starts: np.ndarray, stops: np.ndarray, pool: _Pool) -> int:
    """Compare the rows that match in several spans of rows; return how many."""
    size = request.tuning.scan_rows(vectors.dim)
    if request.matching is None:
        return sum(_compare_whole(vectors, request, *part, pool) for part in _portions(starts, stops, size))
    rows = request.matching[
        rows_of_spans(np.searchsorted(request.matching, starts), np.searchsorted(request.matching, stops))
    ]
    for part in _parts(rows, size):
        pool.add(part, vectors.scores(request.scorer, part))
    return len(rows)


def _compare_whole(vectors: Vectors, request: Request, starts: np.ndarray, stops: np.ndarray, pool: _Pool) -> int:
    """Compare all rows of some spans; return how many. Of those that cannot be among the best no number is made."""
    scores = vectors.span_scores(request.scorer, starts, stops)
    good = kernel.select(scores, request.wanted, error=SCORE_ERROR)
    after = np.cumsum(stops - starts)
    span = np.searchsorted(after, good, side="right")  # an empty span ends where the one before does
    pool.add(stops[span] + good - after[span], scores[good])
    return len(scores)


def _portions(starts: np.ndarray, stops: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield spans together that have about so many rows; longer ones are divided."""
    if int((stops - starts).sum()) <= size:
        yield starts, stops
        return
    pieces = [
        (start, min(start + size, stop))
        for whole, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        for start in range(whole, stop, size)
    ]
    first, last = np.array(pieces, np.int64).T
    group = (np.cumsum(last - first) - 1) // size
    for each in np.split(np.arange(len(first)), np.flatnonzero(np.diff(group)) + 1):
        yield first[each], last[each]
