"""From a query to ranked rows: terms become vectors, each embedding and full text rank, several rankings are fused.

Works on row indices; what the rows look like is nobody's concern here.
"""

from __future__ import annotations

import bisect
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from galsearch.errors import QueryError
from galsearch.query import Plan, Query, Term
from galsearch.schema import BY
from galsearch.science.duplicates import SAME_ARCSEC, SAME_COSINE
from galsearch.science.ranking import Scorer, Similarities, WordScores, combine, fuse, unit
from galsearch.science.sky import unit_vectors
from galsearch.store import Store
from galsearch.store.interface import Condition, Matches

ACROSS_EMBEDDINGS = "rank"  # how rankings by several embeddings are fused, unless a query says
POOL = 200  # rows from each ranking that are fused, at least; ten times the rows wanted if that is more

Distances = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of points `(n, d)` from one point, `(n,)`
Embed = Callable[[Term], tuple[str, np.ndarray]]  # the embedding that a term is compared in, and its unit vector


@dataclass
class Result:
    """Rows in order with their final scores (None when only listed), the part scores by name, and how they were found.

    `embedding` and `scorer` are what ranked them, the first of several; `copies` says how many objects each row stands
    for, where duplicates were left out.
    """

    rows: np.ndarray
    scores: np.ndarray | None
    plan: Plan
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    copies: np.ndarray | None = None
    embedding: str | None = None
    scorer: Scorer | None = None
    query_kind: str | None = None

    def __getitem__(self, index: slice | np.ndarray) -> Result:
        scores = None if self.scores is None else self.scores[index]
        copies = None if self.copies is None else self.copies[index]
        parts = {name: values[index] for name, values in self.parts.items()}
        return replace(self, rows=self.rows[index], scores=scores, parts=parts, copies=copies)

    def extra(self) -> dict[str, np.ndarray]:
        """Return the columns that hits have beside the score."""
        return {**self.parts, **({} if self.copies is None else {"copies": self.copies})}


def retrieve(store: Store, query: Query, embed: Embed) -> Result:
    """Result a query from an open atlas; `embed` gives a term's embedding and its unit vector."""
    condition = store.condition(query.where, query.near, query.radius_arcsec)
    if not query.terms:
        rows, matches = store.listed(condition, k=query.k)
        return Result(rows, None, Plan("list", matches, 0, exact=True))
    started = time.perf_counter()
    scorers = scorers_of(query, embed)
    embedded = time.perf_counter()
    rankers: list[Ranker] = [
        VectorRanker(store, query, condition, embedding, scorer, column="score_vector" if not n else BY + embedding)
        for n, (embedding, scorer) in enumerate(scorers.items())
    ]
    if query.hybrid:
        rankers.append(TextRanker(store, query, condition))
    first, scorer = next(iter(scorers.items()))
    result = _distinct(store, query, first, rankers) if query.distinct else _ranked(query, rankers, query.k)
    result.embedding, result.scorer, result.query_kind = first, scorer, resembles(query)
    result.plan.milliseconds = {"embed": (embedded - started) * 1e3, **result.plan.milliseconds}
    return result


def scorers_of(query: Query, embed: Embed) -> dict[str, Scorer]:
    """Return how rows are scored in each embedding that the terms name, in their order."""
    spaces: dict[str, list[tuple[Term, np.ndarray]]] = {}
    for term in query.terms:
        embedding, vector = embed(term)
        spaces.setdefault(embedding, []).append((term, vector))
    return {name: scorer_of(query.combine, *zip(*parts, strict=True)) for name, parts in spaces.items()}


def scorer_of(how: str, terms: Sequence[Term], vectors: Sequence[np.ndarray]) -> Scorer:
    """Return how rows are scored: the cosine with the weighted sum of the terms, or with the closest of several.

    With "max" the score is the largest weighted cosine with a term to be like, plus the weighted cosines, which are
    negative, with the terms to be unlike. Raises QueryError when the terms cancel out or are of different lengths.
    """
    if len({len(vector) for vector in vectors}) > 1:
        stated = ", ".join(f"{term.label:.40} has {len(vector)}" for term, vector in zip(terms, vectors, strict=True))
        raise QueryError(f"the terms have different lengths ({stated}); only vectors of one model can be added")
    if how == "mean":
        return Scorer(combine(vectors, [term.weight for term in terms]))
    scaled = [np.float32(term.weight) * unit(vector) for term, vector in zip(terms, vectors, strict=True)]
    wanted = [vector for term, vector in zip(terms, scaled, strict=True) if term.weight > 0]
    unlike = [vector for term, vector in zip(terms, scaled, strict=True) if term.weight < 0]
    if not wanted:
        raise QueryError("combine='max' needs a term to be like: one with a weight above 0")
    return Scorer(np.sum(unlike, axis=0) if unlike else np.zeros(len(wanted[0]), np.float32), either=np.stack(wanted))


def resembles(query: Query) -> str | None:
    """Return what the query vector is like: stored vectors, words, or not known."""
    kinds = {term.kind for term in query.terms}
    if len(query.terms) != 1 or kinds == {"embedding"}:
        return None
    return "words" if kinds == {"text"} else "like"


# ---- rankers


class Ranker(Protocol):
    """One way of ranking the objects that pass a filter: an embedding, or full text."""

    column: str  # of the hits, for its own scores where several rankings are fused

    def best(self, k: int) -> tuple[np.ndarray, np.ndarray, Plan | None]:
        """Return the k best rows and their scores, best first, and how they were found where there is a plan."""

    def scored(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of rows, `(n,) float32`, NaN for those that it says nothing of."""

    def ranking(self, values: np.ndarray) -> Similarities | WordScores:
        """Return scores with what calibrates them."""


class VectorRanker:
    """Ranks by likeness in one embedding."""

    def __init__(
        self, store: Store, query: Query, condition: Condition, embedding: str, scorer: Scorer, *, column: str
    ) -> None:
        self._store, self._query, self._condition = store, query, condition
        self._embedding, self._scorer = embedding, scorer
        self.column = column

    def best(self, k: int) -> tuple[np.ndarray, np.ndarray, Plan]:
        """Return the k best rows and their scores, best first, and how they were found."""
        return self._store.nearest(
            self._scorer,
            k=k,
            embedding=self._embedding,
            condition=self._condition,
            exclude=_objects(self._query),
            exact=self._query.exact,
            probes=self._query.probes,
            recall=self._query.recall,
            query_kind=resembles(self._query),
        )

    def scored(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of rows, `(n,) float32`, NaN without a vector."""
        return self._store.scores(self._embedding, self._scorer, rows)

    def ranking(self, values: np.ndarray) -> Similarities:
        """Return scores with those of the reference sample."""
        return Similarities(values, self._store.reference_scores(self._embedding, self._scorer))


class TextRanker:
    """Ranks by the words of the query in captions and names (BM25)."""

    column = "score_words"

    def __init__(self, store: Store, query: Query, condition: Condition) -> None:
        self._text = " . ".join(term.text for term in query.terms if term.kind == "text" and term.weight > 0)
        if not self._text:
            raise QueryError("hybrid search matches words, and the query has none; add words, or leave hybrid out")
        self._store, self._query, self._condition = store, query, condition

    @functools.cached_property
    def _matches(self) -> Matches:
        return self._store.words(self._text, self._condition)

    @functools.cached_property
    def _known(self) -> dict[int, float]:
        return dict(zip(self._matches.rows.tolist(), self._matches.scores.tolist(), strict=True))

    def best(self, k: int) -> tuple[np.ndarray, np.ndarray, None]:
        """Return the k best rows and their scores, best first."""
        left_out = self._store.rows_of(_objects(self._query))
        kept = np.flatnonzero(~np.isin(self._matches.rows[: k + len(left_out)], left_out))[:k]
        return self._matches.rows[kept], self._matches.scores[kept], None

    def scored(self, rows: np.ndarray) -> np.ndarray:
        """Return the scores of rows, `(n,) float32`, NaN without a word of the query."""
        return np.array([self._known.get(row, np.nan) for row in rows.tolist()], np.float32)

    def ranking(self, values: np.ndarray) -> WordScores:
        """Return scores with the one that is attainable."""
        return WordScores(values, self._matches.attainable)


def _objects(query: Query) -> list[str]:
    """Return the object_ids that a query is about, which are no answer to it."""
    return [term.text for term in query.terms if term.kind == "object"]


def _ranked(query: Query, rankers: Sequence[Ranker], k: int) -> Result:
    """Return the k best rows by one ranker, or by several together."""
    if len(rankers) > 1:
        return _fused(query.hybrid or ACROSS_EMBEDDINGS, rankers, k)
    (ranker,) = rankers
    rows, scores, plan = ranker.best(k)
    return Result(rows, scores, plan or Plan("list", len(rows), 0, exact=True))


def _fused(method: str, rankers: Sequence[Ranker], k: int) -> Result:
    """Return the k best of what any ranker finds among its best; each scores what another has found too."""
    started = time.perf_counter()
    result = [ranker.best(max(POOL, 10 * k)) for ranker in rankers]
    rows = result[0][0]
    for more, _, _ in result[1:]:
        rows = np.concatenate([rows, np.setdiff1d(more, rows)])
    every = [_scores(ranker, best, scores, rows) for ranker, (best, scores, _) in zip(rankers, result, strict=True)]
    rankings = [ranker.ranking(values) for ranker, values in zip(rankers, every, strict=True)]
    order, final = fuse(rankings, method=method)
    order = order[:k]
    plan = _joint([plan for _, _, plan in result if plan is not None])
    plan.milliseconds["fuse"] = (time.perf_counter() - started) * 1e3 - sum(plan.milliseconds.values())
    parts = {ranker.column: values[order] for ranker, values in zip(rankers, every, strict=True)}
    return Result(rows[order], final[order].astype(np.float32), plan, parts)


def _scores(ranker: Ranker, best: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return a ranker's scores of rows, `(n,) float32`, of which it has scored its `best` already."""
    known = dict(zip(best.tolist(), scores.tolist(), strict=True))
    out = np.array([known.get(row, np.nan) for row in rows.tolist()], np.float32)
    rest = np.flatnonzero(~np.isin(rows, best))
    out[rest] = ranker.scored(rows[rest])
    return out


def _joint(plans: Sequence[Plan]) -> Plan:
    """Return how several embeddings were searched together."""
    first = plans[0]
    return replace(
        first,
        matches=max(plan.matches for plan in plans),
        rows_scanned=sum(plan.rows_scanned for plan in plans),
        exact=all(plan.exact for plan in plans),
        milliseconds={name: sum(plan.milliseconds[name] for plan in plans) for name in first.milliseconds},
    )


# ---- duplicates


def _distinct(store: Store, query: Query, embedding: str, rankers: Sequence[Ranker]) -> Result:
    """Find more than wanted until, duplicates left out, there are enough or no more."""
    size, groups = query.k, store.duplicate_groups()
    while True:
        size *= 2
        result = _ranked(query, rankers, size)
        first = _firsts(store, embedding, result.rows)
        if groups is not None:
            first = _collapsed(first, groups[result.rows])
        kept = np.flatnonzero(first == np.arange(len(first)))[: query.k]
        if len(kept) >= query.k or len(result.rows) < size:
            copies = np.bincount(first, minlength=len(first))[kept]
            return replace(result[kept], copies=copies)


def _collapsed(first: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the same with those of one saved group, -1 for none, taken for the first of it too."""
    result = first.copy()
    seen: dict[int, int] = {}
    for index, group in enumerate(groups.tolist()):
        same = int(result[first[index]])
        result[index] = min(same, seen.get(group, same)) if group >= 0 else same
        if group >= 0:
            seen.setdefault(group, int(result[index]))
    return result


def _firsts(store: Store, embedding: str, rows: np.ndarray) -> np.ndarray:
    """Return for each row the index of the first that is the same object: itself, or one before it."""
    positions = store.positions(rows)
    placed = np.isfinite(positions).all(axis=1)
    sky = unit_vectors(*np.where(placed[:, None], positions, 0).T)
    if placed.all():
        return first_alike(sky, placed, np.zeros((len(rows), 1), np.float32))
    there = store.has_vector(embedding, rows)
    vectors = np.zeros((len(rows), store.manifest.embeddings[embedding]["dim"]), np.float32)
    vectors[there] = store.vectors_of(embedding, rows[there])  # without a vector nothing is alike
    return first_alike(sky, placed, vectors)


def first_alike(sky: np.ndarray, placed: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return for each object the place of the first that is the same: itself, or that of the first before it like it.

    `sky` `(n, 3)` are unit vectors of positions, known where `placed` `(n,) bool`; two that have one are the same
    within SAME_ARCSEC, any others from SAME_COSINE of `vectors` `(n, d)` on. The time grows with the objects times
    those that are different, so that many copies of a few cost little.
    """
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near = _Seen(sky, 2 * np.sin(np.radians(SAME_ARCSEC / 3600) / 2), _apart)
    angle = np.sqrt(2 - 2 * SAME_COSINE)
    with_position, without = (_Seen(vectors, angle, _apart_by_cosine) for _ in range(2))
    mixed, first = not placed.all(), np.arange(len(sky))
    for index in range(len(sky)):
        same = near.first(index) if placed[index] else with_position.first(index)
        same = min(same, without.first(index)) if mixed else same
        first[index] = first[same] if same < index else index
        if placed[index]:
            near.add(index)
        if mixed:
            (with_position if placed[index] else without).add(index)
    return first


def _apart(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - point, axis=1)


def _apart_by_cosine(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(2 - 2 * (points @ point), 0))


class _Seen:
    """Points seen so far, in groups so small that any two of one group are within `radius` of one another.

    `apart(points, point)` gives the distances. Only the first of a group that is wholly within reach counts.
    """

    NONE = np.iinfo(np.int64).max

    def __init__(
        self, points: np.ndarray, radius: float, apart: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> None:
        self._points, self._radius, self._apart = points, radius, apart
        self._half = 0.499 * radius  # less than a half, for rounding
        self._centers = np.empty((16, points.shape[1]), points.dtype)
        self._members: list[list[int]] = []

    def _distances(self, index: int) -> np.ndarray:
        return self._apart(self._centers[: len(self._members)], self._points[index])

    def first(self, index: int) -> int:
        """Return the first point seen within the radius of this one; NONE where there is none."""
        result, distances = self.NONE, self._distances(index)
        for group in np.flatnonzero(distances <= 1.5 * self._radius).tolist():
            if distances[group] <= self._half:
                result = min(result, self._members[group][0])
            else:
                before = self._members[group][: bisect.bisect_left(self._members[group], result)]
                reached = self._apart(self._points[before], self._points[index]) <= self._radius
                result = before[int(np.argmax(reached))] if reached.any() else result
        return result

    def add(self, index: int) -> None:
        """Have seen a point."""
        distances = self._distances(index)
        if len(distances) and distances.min() <= self._half:
            self._members[int(np.argmin(distances))].append(index)
            return
        if len(distances) == len(self._centers):
            self._centers = np.concatenate([self._centers, np.empty_like(self._centers)])
        self._centers[len(distances)] = self._points[index]
        self._members.append([index])
