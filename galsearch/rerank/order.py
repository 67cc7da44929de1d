"""The order of hits: what it was, how a new one is made of scores, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from galsearch.errors import QueryError
from galsearch.query import Query, Term
from galsearch.rerank import probe
from galsearch.retrieval import Result
from galsearch.store import Store

BEFORE = "score_before"
LEAST_MARKS = 2  # of either kind, to learn from and to judge by


@dataclass(frozen=True)
class Reranked:
    """What re-ranking did. `str()` of it says so in sentences for a person.

    `by` is "local" or "vlm"; `kept` is True where the order of the search stayed. `hits` counts those looked at.
    `weights` says how much each part counts. `right_before` and `right_after` are the shares of pairs of a positive and
    a negative mark in the right order, None without marks. `said` are the sentences, `cost` the ledger of a service.
    """

    by: str
    kept: bool
    hits: int
    weights: dict[str, float] = field(default_factory=dict)
    right_before: float | None = None
    right_after: float | None = None
    said: tuple[str, ...] = ()
    cost: dict[str, Any] | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        weights = ", ".join(f"{name} {value:.2g}" for name, value in self.weights.items() if value)
        first = f"looked at {self.hits} hits again ({self.by}, {self.seconds:.1f} s)"
        return "\n".join([first, *([f"weights: {weights}"] if weights else []), *self.said])


@dataclass
class Pool:
    """The hits to be put in order: the answer they are, their cosines, and their scores in standard deviations.

    `movable` are the places of those that have a vector; the others keep theirs.
    """

    store: Store
    result: Result
    cosines: np.ndarray
    base: np.ndarray
    movable: np.ndarray

    @classmethod
    def of(cls, store: Store, query: Query, result: Result) -> Pool:
        """Return the pool that an answer is; QueryError where nothing was asked for."""
        if result.scorer is None or result.embedding is None or result.scores is None:
            raise QueryError("these rows are only listed, so there is no order to improve; search for something first")
        cosines = np.asarray(result.parts.get("score_vector", result.scores), np.float64)
        movable = np.flatnonzero(np.isfinite(cosines))
        usual = store.reference_scores(result.embedding, result.scorer)
        base = probe.standard(cosines, usual)
        if query.hybrid == "sum":
            base = np.asarray(result.scores, np.float64)  # which is in standard deviations already
        elif query.hybrid == "rank":
            base = probe.standard(np.asarray(result.scores, np.float64), result.scores)
        return cls(store, result, cosines, base, movable)

    def ordered(self, final: np.ndarray, parts: dict[str, np.ndarray], k: int) -> Result:
        """Return the first k by falling `final (n,)`, equal ones by cosine and object_id; NaN keeps its place.

        `parts` become columns of the hits.
        """
        ids = np.array(self.store.ids(self.result.rows))
        indices = np.arange(len(final))
        known = np.flatnonzero(np.isfinite(final))
        indices[known] = known[np.lexsort((ids[known], -self.cosines[known], -final[known]))]
        top = indices[:k]
        columns = {"score_vector": self.cosines, **self.result.parts, BEFORE: self.base, **parts}
        taken = {name: values[top] for name, values in columns.items()}
        taken["rank_before"] = top + 1
        scores = np.where(np.isfinite(final), final, self.base)[top].astype(np.float32)
        copies = None if self.result.copies is None else self.result.copies[top]
        return replace(self.result, rows=self.result.rows[top], scores=scores, parts=taken, copies=copies)


@dataclass(frozen=True)
class Marks:
    """Examples that somebody marked: terms for what is wanted and what is not."""

    positives: tuple[Term, ...] = ()
    negatives: tuple[Term, ...] = ()

    @property
    def enough(self) -> bool:
        """Whether there are enough to learn from, and to judge by."""
        return min(len(self.positives), len(self.negatives)) >= LEAST_MARKS

    @property
    def good(self) -> np.ndarray:
        """Which of all marks are positive, positives first, `(m,) bool`."""
        return np.arange(len(self.positives) + len(self.negatives)) < len(self.positives)

    @property
    def terms(self) -> tuple[Term, ...]:
        """All marks, positives first."""
        return self.positives + self.negatives

    def right(self, pool: Pool, scores: np.ndarray) -> float | None:
        """Return the share of pairs of marks among the hits that `scores (n,)` put right; None without such a pair.

        For scores that nothing was learned for from the marks.
        """
        index = {name: number for number, name in enumerate(pool.store.ids(pool.result.rows))}
        marked = zip((term.value for term in self.terms), self.good.tolist(), strict=True)
        result = [(index[name], good) for name, good in marked if name in index]
        good = np.array([mark for _, mark in result], bool)
        if not good.any() or good.all():
            return None
        values = scores[[number for number, _ in result]]
        return probe.right(good, lambda *pair: values[list(pair)])
