"""From a question to a ranked answer: terms become a score, words may count too, duplicates may be left out.

Works on row numbers; what the rows look like is nobody's concern here.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from galsearch import schema
from galsearch.errors import QueryError
from galsearch.query import Plan, Query, Scorer, Term, combine, fuse, unit
from galsearch.science.sky import unit_vectors
from galsearch.store import Store

SAME_ARCSEC = 2.0  # objects closer on the sky than this are one
SAME_COSINE = 0.9999  # and so are those without positions whose vectors are this close
POOL = 200  # rows from each of vectors and words that are fused, at least; ten times the rows wanted if that is more


@dataclass
class Answer:
    """Rows in order with their final scores (None when only listed), the part scores by name, and how they were found.

    `copies` says how many objects each row stands for, where duplicates were left out.
    """

    rows: np.ndarray
    scores: np.ndarray | None
    plan: Plan
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    copies: np.ndarray | None = None
    scorer: Scorer | None = None
    asked: str | None = None

    def __getitem__(self, index: slice) -> Answer:
        def cut(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[index]

        parts = {name: cut(values) for name, values in self.parts.items()}
        return replace(self, rows=cut(self.rows), scores=cut(self.scores), parts=parts, copies=cut(self.copies))

    def extra(self) -> dict[str, np.ndarray]:
        """Return the columns that hits have beside the score."""
        return {**self.parts, **({} if self.copies is None else {"copies": self.copies})}


def answer(store: Store, query: Query, embed: Callable[[Term], np.ndarray]) -> Answer:
    """Answer a query from an open atlas; `embed` gives the unit vector of a term."""
    condition = store.condition(query.where, query.near, query.radius_arcsec)
    if not query.terms:
        rows, matches = store.list(condition, k=query.k)
        return Answer(rows, None, Plan("list", matches, 0, exact=True))
    started = time.perf_counter()
    scorer = scorer_of(query, embed)
    embedded = time.perf_counter()
    find = _fused if query.hybrid else _nearest
    found = (
        _distinct(store, query, scorer, condition, find)
        if query.distinct
        else find(store, query, scorer, condition, query.k)
    )
    found.scorer, found.asked = scorer, resembles(query)
    found.plan.milliseconds = {"embed": (embedded - started) * 1e3, **found.plan.milliseconds}
    return found


def scorer_of(query: Query, embed: Callable[[Term], np.ndarray]) -> Scorer:
    """Return how rows are scored: the cosine with the weighted sum of the terms, or with the closest of several.

    With `combine="max"` the score is the largest weighted cosine with a term to be like, plus the weighted cosines,
    which are negative, with the terms to be unlike.
    """
    if query.combine == "mean":
        return Scorer(combine(query.terms, embed))
    wanted = [term for term in query.terms if term.weight > 0]
    if not wanted:
        raise QueryError("combine='max' needs a term to be like: one with a weight above 0")
    vectors = [np.float32(term.weight) * unit(embed(term)) for term in wanted]
    unlike = [np.float32(term.weight) * unit(embed(term)) for term in query.terms if term.weight < 0]
    if len({len(vector) for vector in [*vectors, *unlike]}) > 1:
        raise QueryError("the terms have different lengths; only vectors of one model can be compared")
    return Scorer(np.sum(unlike, axis=0) if unlike else np.zeros(len(vectors[0]), np.float32), either=np.stack(vectors))


def resembles(query: Query) -> str | None:
    """Return what the query vector is like: stored vectors, words, or not known."""
    kinds = {term.kind for term in query.terms}
    if kinds <= {"object", "image"} and len(query.terms) == 1:
        return "like"
    return "words" if kinds == {"text"} and len(query.terms) == 1 else None


def _nearest(store: Store, query: Query, scorer: Scorer, condition: object, k: int) -> Answer:
    rows, scores, plan = store.nearest(
        scorer,
        k=k,
        condition=condition,
        exclude=[term.value for term in query.terms if term.kind == "object"],
        exact=query.exact,
        probes=query.probes,
        recall=query.recall,
        asked=resembles(query),
    )
    return Answer(rows, scores, plan)


def _fused(store: Store, query: Query, scorer: Scorer, condition: object, k: int) -> Answer:
    """Rank by vectors and by the words of captions and names together."""
    text = " . ".join(term.value for term in query.terms if term.kind == "text" and term.weight > 0)
    if not text:
        raise QueryError("hybrid search matches words, and the query has none; add words, or leave hybrid out")
    pool = max(POOL, 10 * k)
    found = _nearest(store, query, scorer, condition, pool)
    started = time.perf_counter()
    matched = store.words(text, condition)
    left_out = store.rows_of([term.value for term in query.terms if term.kind == "object"])
    named = matched.rows[: pool + len(left_out)]
    named = named[~np.isin(named, left_out)][:pool]
    every = np.concatenate([found.rows, np.setdiff1d(named, found.rows)])
    vector = np.concatenate([found.scores, store.scores(schema.IMAGE, scorer, every[len(found.rows) :])])
    known = dict(zip(matched.rows.tolist(), matched.scores.tolist(), strict=True))
    word = np.array([known.get(row, np.nan) for row in every.tolist()], np.float32)
    background = store.background(schema.IMAGE, scorer)
    order, final = fuse(vector, word, method=query.hybrid, background=background, attainable=matched.attainable)
    order = order[:k]
    found.plan.milliseconds["words"] = (time.perf_counter() - started) * 1e3
    parts = {"score_vector": vector[order], "score_words": word[order]}
    return Answer(every[order], final[order].astype(np.float32), found.plan, parts)


def _distinct(store: Store, query: Query, scorer: Scorer, condition: object, find: Callable) -> Answer:
    """Find more than wanted until, duplicates left out, there are enough or no more."""
    size = query.k
    while True:
        size *= 2
        found = find(store, query, scorer, condition, size)
        first = _firsts(store, found.rows)
        kept = np.flatnonzero(first == np.arange(len(first)))[: query.k]
        if len(kept) >= query.k or len(found.rows) < size:
            copies = np.bincount(first, minlength=len(first))[kept]
            parts = {name: values[kept] for name, values in found.parts.items()}
            return Answer(found.rows[kept], found.scores[kept], found.plan, parts, copies)


def _firsts(store: Store, rows: np.ndarray) -> np.ndarray:
    """Return for each row the place of the first that is the same object: itself, or one before it."""
    positions = store.positions(rows)
    placed = np.isfinite(positions).all(axis=1)
    sky = unit_vectors(*np.where(placed[:, None], positions, 0).T)
    vectors = np.zeros((len(rows), 1), np.float32) if placed.all() else store.vectors_of(schema.IMAGE, rows)
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
    for place in range(len(sky)):
        same = near.first(place) if placed[place] else with_position.first(place)
        same = min(same, without.first(place)) if mixed else same
        first[place] = first[same] if same < place else place
        if placed[place]:
            near.add(place)
        if mixed:
            (with_position if placed[place] else without).add(place)
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

    def __init__(self, points: np.ndarray, radius: float, apart: Callable) -> None:
        self._points, self._radius, self._apart = points, radius, apart
        self._half = 0.499 * radius  # less than a half, for rounding
        self._centers = np.empty((16, points.shape[1]), points.dtype)
        self._members: list[list[int]] = []

    def _distances(self, place: int) -> np.ndarray:
        return self._apart(self._centers[: len(self._members)], self._points[place])

    def first(self, place: int) -> int:
        """Return the first point seen within the radius of this one; NONE where there is none."""
        found, distances = self.NONE, self._distances(place)
        for group in np.flatnonzero(distances <= 1.5 * self._radius).tolist():
            if distances[group] <= self._half:
                found = min(found, self._members[group][0])
            else:
                before = self._members[group][: bisect.bisect_left(self._members[group], found)]
                reached = self._apart(self._points[before], self._points[place]) <= self._radius
                found = before[int(np.argmax(reached))] if reached.any() else found
        return found

    def add(self, place: int) -> None:
        """Have seen a point."""
        distances = self._distances(place)
        if len(distances) and distances.min() <= self._half:
            self._members[int(np.argmin(distances))].append(place)
            return
        if len(distances) == len(self._centers):
            self._centers = np.concatenate([self._centers, np.empty_like(self._centers)])
        self._centers[len(distances)] = self._points[place]
        self._members.append([place])
