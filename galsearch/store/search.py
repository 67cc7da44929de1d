"""How the best rows are found: which of them to compare, and how to keep the best without losing a tie.

Rows are numbers, vectors come from `vectors.Vectors`; where they lie and what SQL said is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from galsearch.query import Plan, Scorer
from galsearch.store.cells import FAR, LIKE, WORDS, Cells
from galsearch.store.vectors import BLOCK_ROWS, Vectors

EXACT_MATCHES = 4_096  # so few rows that pass a cut are compared as quickly as cells are chosen
SCORE_ERROR = 1e-5  # of single precision: rows that score no worse than the last one wanted, by this much, are kept
KEEP_SPARE = 65_536  # candidates kept beyond those wanted before the worst of them are dropped
SCAN_BYTES = 32 << 20  # vectors of a scan of everything that are in memory at a time
FOLLOWS = 0.95  # a cut that leaves a smaller share of the cells with a match is taken to follow the vectors
DENSE = 0.25  # a cell of which a larger share passes the cut is compared as a whole: reading in place is quicker


@dataclass(frozen=True)
class Ask:
    """One question: the `wanted` best rows, of those in `matching` (sorted row numbers) or of all of them (None).

    `probes` fixes how many cells are visited, `exact` all; else `recall` is what the visited cells should reach for
    queries of the kind `asked` (cells.LIKE, cells.WORDS, None: not known).
    """

    scorer: Scorer
    wanted: int
    matching: np.ndarray | None = None
    exact: bool = False
    probes: int | None = None
    recall: float = 0.99
    asked: str | None = None


def best_rows(vectors: Vectors, cells: Cells | None, ask: Ask) -> tuple[np.ndarray, np.ndarray, Plan]:
    """Return the best rows, their scores `(n,) float32` and how they were found; best first, then by row number.

    They are at least the `wanted` ones, and with them every row that scores the same as the last of them.
    """
    matches = vectors.rows if ask.matching is None else len(ask.matching)
    visit = None if ask.exact or cells is None else _cells_to_visit(vectors, cells, ask, matches)
    pool = _Pool(min(ask.wanted, matches))
    if visit is None:
        scanned = _compare_all(vectors, ask, pool)
        plan = Plan("exact", matches, scanned, exact=True)
    else:
        scanned = _compare_cells(vectors, cells, ask, visit, pool)
        complete = scanned >= matches
        plan = Plan("ivf", matches, scanned, complete, cells_probed=len(visit), cells=len(cells))
    rows, _ = pool.best()
    scores = np.concatenate(
        [np.empty(0), *(ask.scorer.exact(vectors.take(part)) for part in _parts(rows, BLOCK_ROWS))]
    ).astype(np.float32)
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order], plan


class _Pool:
    """The best candidates so far, and those that tie with the last of them."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
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
        if self._held > self._wanted + KEEP_SPARE:
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


def _compare_all(vectors: Vectors, ask: Ask, pool: _Pool) -> int:
    """Compare every row that matches; return how many were compared."""
    if ask.matching is not None and len(ask.matching) < DENSE * vectors.rows:
        return _compare_rows(vectors, ask.scorer, ask.matching, pool)
    step = max(BLOCK_ROWS, SCAN_BYTES // (4 * vectors.dim))
    for start in range(0, vectors.rows, step):
        stop = min(start + step, vectors.rows)
        _compare_range(vectors, ask, start, stop, pool)
        vectors.done(start, stop)
    return vectors.rows if ask.matching is None else len(ask.matching)


def _compare_rows(vectors: Vectors, scorer: Scorer, rows: np.ndarray, pool: _Pool) -> int:
    for part in _parts(rows, BLOCK_ROWS):
        pool.add(part, scorer.of(vectors.take(part)))
    return len(rows)


def _compare_range(vectors: Vectors, ask: Ask, start: int, stop: int, pool: _Pool) -> None:
    """Compare neighboring rows as a whole, and keep those that match."""
    scores = np.empty(stop - start, np.float32)
    vectors.score(ask.scorer, start, stop, scores)
    if ask.matching is None:
        pool.add(np.arange(start, stop), scores)
    else:
        rows = ask.matching[slice(*np.searchsorted(ask.matching, (start, stop)))]
        pool.add(rows, scores[rows - start])


def _cells_to_visit(vectors: Vectors, cells: Cells, ask: Ask, matches: int) -> np.ndarray | None:
    """Return the cells to visit, closest first; None when comparing all that matches is as quick.

    Cells without a match are passed over: where the cut follows the vectors, the closest cells may all be empty.
    """
    if not ask.wanted or (ask.probes is None and matches <= EXACT_MATCHES):
        return None
    scores = ask.scorer.of(cells.centroids)
    bounds = cells.starts if ask.matching is None else np.searchsorted(ask.matching, cells.starts)
    held = np.diff(bounds)
    there = np.flatnonzero(held)
    probes = ask.probes or _probes(cells, ask, matches, there)
    order = _closest(scores, there, probes)
    reached = np.cumsum(held[order])
    if not len(order) or reached[-1] < ask.wanted:
        order = _closest(scores, there, len(there))
        reached = np.cumsum(held[order])
    enough = int(np.searchsorted(reached, ask.wanted)) + 1  # never fewer rows than were wanted
    probes = min(len(order), max(probes, enough))
    few_left = ask.probes is None and (not probes or reached[probes - 1] > matches / 2)
    return None if few_left else order[:probes]


def _closest(scores: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` of `cells` with the largest scores, the largest first."""
    if count < len(cells):
        cells = cells[np.argpartition(-scores[cells], count)[:count]]
    return cells[np.argsort(-scores[cells], kind="stable")]


def _probes(cells: Cells, ask: Ask, matches: int, there: np.ndarray) -> int:
    """Return how many of the cells `there` reach the recall.

    The best of a share s of the rows lie as deep as 1 / s as many of all.
    """
    kinds = [ask.asked] if ask.asked else [LIKE, WORDS]
    depth = float(ask.wanted)
    if ask.matching is not None:
        depth *= max(1.0, float(np.diff(cells.starts)[there].sum()) / matches)
        kinds = [LIKE, WORDS, FAR] if len(there) < FOLLOWS * len(cells) else kinds
    return cells.curves.probes(recall=ask.recall, depth=depth, kinds=kinds, cells=len(cells))


def _compare_cells(vectors: Vectors, cells: Cells, ask: Ask, visit: np.ndarray, pool: _Pool) -> int:
    """Compare what the visited cells hold and the rows in no cell; return how many rows were compared."""
    indexed = int(cells.starts[-1])
    starts, stops = cells.starts[visit], cells.starts[visit + 1]
    if indexed < vectors.rows:
        starts, stops = np.append(starts, indexed), np.append(stops, vectors.rows)
    if ask.matching is None:
        return _compare_spans(vectors, ask.scorer, starts, stops, pool)
    low, high = np.searchsorted(ask.matching, starts), np.searchsorted(ask.matching, stops)
    dense = high - low >= DENSE * (stops - starts)
    sparse = [ask.matching[a:b] for a, b in zip(low[~dense].tolist(), high[~dense].tolist(), strict=True)]
    if sparse:
        _compare_rows(vectors, ask.scorer, np.sort(np.concatenate(sparse)), pool)
    for start, stop in zip(starts[dense].tolist(), stops[dense].tolist(), strict=True):
        _compare_range(vectors, ask, start, stop, pool)
    return int((high - low).sum())


def _compare_spans(vectors: Vectors, scorer: Scorer, starts: np.ndarray, stops: np.ndarray, pool: _Pool) -> int:
    """Compare the rows of several spans, all of them; one array for all scores, because a loop over cells is short."""
    ends = np.cumsum(stops - starts)
    scores = np.empty(int(ends[-1]), np.float32)
    begins = (ends - (stops - starts)).tolist()
    for start, stop, begin, end in zip(starts.tolist(), stops.tolist(), begins, ends.tolist(), strict=True):
        vectors.score(scorer, start, stop, scores[begin:end])
    rows = np.arange(len(scores)) + np.repeat(starts - begins, stops - starts)
    pool.add(rows, scores)
    return len(scores)
