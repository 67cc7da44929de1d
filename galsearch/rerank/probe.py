"""A probe: what a few marked examples say beyond the query, and whether to believe it.

Logistic regression on vectors, pulled toward the query (`pull`) rather than toward nothing: what the query already
tells apart leaves no residual, and a probe of no examples is the query. A sample of ordinary objects stands in for the
negatives that nobody marked, all of them together weighing as much as the marks.

Whether a way of ranking is better is judged on pairs of a positive and a negative mark, neither of which the probe has
seen (leave-pair-out, Airola et al. 2011, Comput. Stat. Data Anal. 55, 1828): the share of them that it orders rightly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from galsearch.science.interest import logistic

SMALLEST = 1e-7
HELD_INTERCEPT = 1e-3
PULL = 0.4  # toward the query, for each dimension; chosen on validation objects, benchmarks/rerank.py
PRIOR = 1.0  # length of the query's direction, in units in which ordinary objects have deviation 1
MOST_PAIRS = 40
SEED = 0  # of the pairs that are drawn where there are more


class Probe:
    """A direction that tells marked vectors apart, and the same without some of the marks.

    `marks (m, d)` with `good (m,) bool`; `ordinary (b, d)` are vectors of ordinary objects, whose mean is taken for the
    origin and whose spread for the unit; `query (d,)` is the direction to start from, brought to a length with which
    ordinary objects have scores of deviation 1. All float64.
    """

    def __init__(self, marks: np.ndarray, good: np.ndarray, ordinary: np.ndarray, query: np.ndarray) -> None:
        self._center, self._dim = ordinary.mean(axis=0), ordinary.shape[1]
        self._spread = max(float(np.sqrt(((ordinary - self._center) ** 2).mean())), SMALLEST)
        rows = self._framed(np.concatenate([marks, ordinary]))
        prior = query / max(float((rows[len(marks) :] @ query).std()), SMALLEST)
        self._basis = np.linalg.svd(np.concatenate([rows, prior[None]]), full_matrices=False)[2]  # all that can matter
        self._prior = PRIOR * (self._basis @ prior)
        self._rows = rows @ self._basis.T
        self._good, self._marks = good, len(marks)
        self._whole = self._prior
        self._whole = self._fitted([])

    def scores(self, vectors: np.ndarray, *, without: Sequence[int] = ()) -> np.ndarray:
        """Return how far vectors `(n, d)` lie along the direction, `(n,)`, in standard deviations of ordinary objects.

        `without` names marks that the direction must not be made from.
        """
        direction = self._fitted(without) if len(without) else self._whole
        return standard(self._framed(vectors) @ self._basis.T @ direction, self._rows[self._marks :] @ direction)

    def _framed(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors - self._center) / self._spread

    def _fitted(self, without: Sequence[int]) -> np.ndarray:
        kept = np.setdiff1d(np.arange(self._marks), without)
        ordinary = self._rows[self._marks :]
        labels = np.concatenate([self._good[kept], np.zeros(len(ordinary))])
        weights = np.concatenate([np.ones(len(kept)), np.full(len(ordinary), len(kept) / len(ordinary))])
        rows = np.concatenate([self._rows[kept], ordinary])
        held = np.append(np.full(rows.shape[1], PULL * self._dim), HELD_INTERCEPT)
        prior, start = np.append(self._prior, 0.0), np.append(self._whole, 0.0)
        return logistic(rows, labels, weights, prior, start=start, held=held)[0][:-1]


def standard(values: np.ndarray, ordinary: np.ndarray) -> np.ndarray:
    """Return values in standard deviations of those of ordinary objects above their mean."""
    return (values - ordinary.mean()) / max(float(ordinary.std()), SMALLEST)


def pairs(good: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (positive, negative) places among marks `good (m,) bool`: all pairs, or MOST_PAIRS drawn evenly."""
    result = list(product(np.flatnonzero(good).tolist(), np.flatnonzero(~good).tolist()))
    if len(result) > MOST_PAIRS:
        chosen = np.random.default_rng(SEED).choice(len(result), MOST_PAIRS, replace=False)
        result = [result[index] for index in np.sort(chosen).tolist()]
    yield from result


def right(good: np.ndarray, scored: Callable[[int, int], np.ndarray]) -> float:
    """Return the share of pairs of marks that are ordered rightly, equal scores counting half.

    `scored(positive, negative)` gives the scores of these two, made without them.
    """
    above = [float(np.subtract(*scored(*pair))) for pair in pairs(good)]
    return float(np.mean([0.5 + 0.5 * np.sign(one) for one in above]))
