"""Nearest members of a base, and what leaving each member out says: how votes become probabilities, how far is far."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from galsearch.errors import FormatError, QueryError
from galsearch.knowledge.members import CLASS, KnowledgeBase, Members
from galsearch.progress import Progress, silent
from galsearch.science import votes
from galsearch.science.ranking import Scorer
from galsearch.science.votes import Calibration, Spread
from galsearch.store import Store

HELD_OUT = 1_000  # members that are left out in turn; their log loss is then known within about 3 %
HELD_OUT_NOW = 300  # of a base that is not stored, while somebody waits
LEAST_HELD_OUT = 30  # with fewer, two fitted numbers say more of the draw than of the base
DEPTHS = (1, 3, 5, 10, 20, 50)  # values of k whose calibration is stored; others are fitted when they are asked for
LIKE = "like"  # what the store calls queries that are stored vectors
FAR = 0.99  # share of the members whose nearest other member is closer than what is called far


@dataclass(frozen=True)
class Neighbors:
    """The nearest members of n vectors, nearest first: their numbers and distances, `(n, k)` each.

    Where there are fewer than k the number is 0 and the distance NaN. `scanned` counts the vectors compared, `exact`
    says that no nearer one can exist.
    """

    members: np.ndarray
    distance: np.ndarray
    scanned: int = 0
    exact: bool = True


class Electorate:
    """The members of a base in an open atlas, asked for the nearest to a vector."""

    def __init__(self, store: Store, base: KnowledgeBase, members: Members) -> None:
        self.store, self.base, self.members = store, base, members
        whole = len(members.rows) == store.manifest.rows
        self._among = None if whole else members.rows
        self._fits: dict[tuple[int, str, float], Calibration | Spread | None] = {}

    def neighbors(
        self,
        vectors: np.ndarray,
        own: Sequence[str | None],
        *,
        k: int,
        exact: bool = False,
        progress: Progress = silent,
        what: str = "comparing",
    ) -> Neighbors:
        """Return the k nearest members of unit vectors `(n, d)`; the object `own[i]` is left out for vector i.

        A vector of NaN has none.
        """
        numbers = np.zeros((len(vectors), k), np.int64)
        distance = np.full((len(vectors), k), np.nan)
        scanned, whole = 0, True
        for index, (vector, name) in enumerate(zip(vectors, own, strict=True)):
            if np.isnan(vector[0]):
                continue
            rows, scores, plan = self.store.nearest(
                Scorer(vector),
                k=k,
                embedding=self.base.embedding,
                among=self._among,
                exclude=() if name is None else (name,),
                exact=exact,
                query_kind=None if name is None else LIKE,  # what recall was measured for
            )
            numbers[index, : len(rows)] = np.searchsorted(self.members.rows, rows)
            distance[index, : len(rows)] = votes.distances(scores)
            scanned, whole = scanned + plan.rows_scanned, whole and plan.exact
            progress(index + 1, len(vectors), what)
        return Neighbors(numbers, distance, scanned, whole)

    def leave_one_out(
        self, chosen: np.ndarray, *, k: int, exact: bool = False, progress: Progress = silent, what: str = "comparing"
    ) -> Neighbors:
        """Return the k nearest other members of some members, by their numbers."""
        rows = self.members.rows[chosen]
        vectors = self.store.vectors_of(self.base.embedding, rows)
        return self.neighbors(vectors, self.store.ids(rows), k=k, exact=exact, progress=progress, what=what)

    @functools.cached_property
    def held_out(self) -> np.ndarray:
        """The numbers of the members that are left out in turn, ascending; none where there are too few."""
        count = len(self.members.rows)
        if count < LEAST_HELD_OUT:
            return np.empty(0, np.int64)
        rng = np.random.default_rng(self.base.seed)
        most = HELD_OUT if self.base.version else HELD_OUT_NOW
        return np.sort(rng.choice(count, min(most, count), replace=False))

    @functools.cached_property
    def _theirs(self) -> Neighbors:
        return self.leave_one_out(self.held_out, k=min(DEPTHS[-1], len(self.members.rows) - 1))

    def _their_neighbors(self, k: int) -> Neighbors:
        if k > self._theirs.distance.shape[1]:
            return self.leave_one_out(self.held_out, k=k)
        return Neighbors(self._theirs.members[:, :k], self._theirs.distance[:, :k])

    def far(self) -> float | None:
        """Return the distance from which on a nearest neighbor is far: FAR of the members have one that is closer."""
        if self.base.calibration is not None:
            return _number(self.base, self.base.calibration, "far")
        return float(np.quantile(self._theirs.distance[:, 0], FAR)) if len(self.held_out) else None

    def fit(self, *, k: int, weight: str, tau: float) -> Calibration | Spread | None:
        """Return how such votes become probabilities, or spreads errors; None where too few could be left out.

        It is what the base has stored, or what its held-out members give now.
        """
        key = (k, weight, float(tau))
        if key not in self._fits:
            self._fits[key] = self._stored(*key) or self._fitted(*key)
        return self._fits[key]

    def _stored(self, k: int, weight: str, tau: float) -> Calibration | Spread | None:
        fits = (self.base.calibration or {}).get("fits")
        for one in fits if isinstance(fits, list) else []:
            if isinstance(one, dict) and (one.get("k"), one.get("weight"), one.get("tau")) == (k, weight, tau):
                kind = Calibration if self.base.kind == CLASS else Spread
                return kind(**{name: _number(self.base, one, name) for name in kind.__dataclass_fields__})
        return None

    def _fitted(self, k: int, weight: str, tau: float) -> Calibration | Spread | None:
        if not len(self.held_out) or k >= len(self.members.rows):
            return None
        theirs = self._their_neighbors(k)
        counts = votes.weights(theirs.distance, weight=weight, tau=tau)
        if self.base.kind == CLASS:
            cast = votes.class_votes(counts, self.members.codes[theirs.members], len(self.members.classes))
            return votes.fit_calibration(cast, self.members.codes[self.held_out], self.members.priors)
        mean, spread = votes.mean_and_spread(counts, self.members.values[theirs.members])
        return votes.fit_spread(mean, spread, self.members.values[self.held_out])

    def calibrate(self, progress: Progress = silent) -> dict | None:
        """Return what is stored of the held-out members: their number, how far is far, and a fit a way of voting."""
        if not len(self.held_out):
            return None
        depths = [k for k in DEPTHS if k < len(self.members.rows)]
        deepest = self.leave_one_out(self.held_out, k=depths[-1], progress=progress, what="calibrating")
        self.__dict__["_theirs"] = deepest
        alone = self._fitted(1, "uniform", 1.0)  # one voter has all the votes, whatever they weigh
        ways = [(k, weight) for k in depths for weight in votes.WEIGHTS]
        fits = [
            {"k": k, "weight": weight, "tau": 1.0, **asdict(fit)}
            for k, weight in ways
            if (fit := alone if k == 1 else self._fitted(k, weight, 1.0)) is not None
        ]
        return {"held_out": len(self.held_out), "far": float(np.quantile(deepest.distance[:, 0], FAR)), "fits": fits}


def _number(base: KnowledgeBase, values: Mapping, name: str) -> float:
    """Return a number of a stored calibration. Raises FormatError for what is none, or below 0."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise FormatError(f"the calibration of base '{base.name}' says {name} is {value!r:.40}; create it again")
    return float(value)


def check_whole(k: int) -> None:
    """Raise QueryError unless k is a whole number from 1."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise QueryError(f"k is {k!r:.40}, expected a whole number from 1, such as 3")


def check_k(k: int, *, voters: int, base: KnowledgeBase) -> None:
    """Raise QueryError unless k is a whole number from 1 to the number of voters."""
    check_whole(k)
    if k > voters:
        raise QueryError(f"k is {k}, and only {voters} members of base '{base.name}' can vote; choose a smaller k")
