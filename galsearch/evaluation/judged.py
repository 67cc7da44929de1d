"""Who is a candidate for a target, and who of them is relevant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from galsearch.errors import GalsearchError, QueryError
from galsearch.evaluation.targets import Target
from galsearch.store import Store


class UnfitTargetError(GalsearchError):
    """A target that this atlas cannot be asked: the message says why."""


@dataclass
class Judged:
    """The candidates of a target by object_id: row numbers, ids, relevances `(n,)`, unit vectors `(n, d) float32`."""

    target: Target
    rows: np.ndarray
    ids: list[str]
    relevance: np.ndarray
    vectors: np.ndarray

    @property
    def relevant(self) -> np.ndarray:
        """Which candidates are relevant at all, `(n,) bool`."""
        return self.relevance > 0


def judge(store: Store, target: Target, where: str | None = None) -> Judged:
    """Return the candidates of a target; those without a vector are left out.

    Raises UnfitTargetError where a column is missing, nothing passes, nothing is relevant or everything is, and
    QueryError naming the target for anything but one SQL condition.
    """
    rows = _passing(store, target, target.candidates)
    if where is not None:
        rows = rows[np.isin(rows, _passing(store, target, where))]
    if not len(rows):
        cut = "" if where is None else f" and {where!r}"
        raise UnfitTargetError(f"no object passes its candidates, {target.candidates!r}{cut}; loosen the condition")
    relevance = np.zeros(len(rows))
    for grade, condition in target.grades:  # ascending, so that the highest that holds stays
        relevance[np.isin(rows, _passing(store, target, condition))] = grade
    embedding = store.manifest.main_embedding
    if embedding is None:
        raise UnfitTargetError("the atlas has no vectors, so nothing ranks its objects")
    there = store.has_vector(embedding, rows)
    rows, relevance = rows[there], relevance[there]
    for wanted, what in ((relevance > 0, "relevant"), (relevance == 0, "not relevant")):
        if not wanted.any():
            conditions = " or ".join(repr(condition) for _, condition in target.grades)
            raise UnfitTargetError(
                f"none of its {len(rows)} candidates is {what} by {conditions}; a ranking needs both kinds"
            )
    return Judged(target, rows, store.ids(rows), relevance, store.vectors_of(embedding, rows))


def _passing(store: Store, target: Target, condition: str) -> np.ndarray:
    """Return the row numbers of the objects that pass one condition, by object_id."""
    try:
        return store.listed(store.condition(condition, None, None), k=max(store.manifest.rows, 1))[0]
    except QueryError as error:
        missing = ", ".join(sorted(_missing(store, condition)))
        if missing:
            raise UnfitTargetError(f"the atlas has no column {missing}; `galsearch info` lists those it has") from None
        raise QueryError(f"target '{target.name}', condition {condition!r}: {error}") from None


def _missing(store: Store, condition: str) -> set[str]:
    """Return the columns that a condition names and the atlas has not; none where it cannot be parsed."""
    known = {name.casefold() for name in store.describe()["column"].to_pylist()}
    return {name for name in store.columns_of(condition) if name.casefold() not in known}
