"""Predicted interest: what a few verdicts say of all other vectors, how sure that is, and whom to judge next.

Logistic regression on whitened vectors, pulled toward a direction to start from, such as that of a query text: what the
start tells apart already leaves no residual, and a probe of no verdicts is the start. A sample of ordinary objects
stands in for the negatives that nobody judged, all together weighing as much as the verdicts. The uncertainty is that
of a Laplace approximation: a normal distribution about the weights, with the curvature of the loss (MacKay 1992, Neural
Comput. 4, 720).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from galsearch.science.novelty import shrunk_covariance

STEPS = 50
SMALLEST = 1e-7
HALVINGS = 30
PULL = 0.1  # toward the start, for each dimension of unit variance; from 0.02 to 0.4 it changes little
PRIOR = 2.0  # standard deviation that the start gives the logits of ordinary objects
FLOOR = 0.03  # of the mean variance, added to that of each axis: those that hardly vary are mostly noise
RARE, HELD = -3.0, 0.1  # the intercept to start from, a probability of 5 %, and how firmly it is held there
BLOCK_NUMBERS = 1 << 22  # numbers of a block, 16 MB in single precision
PROBIT = np.pi / 8  # a logistic curve averaged over a normal one (MacKay 1992)
NOISE = 4.0  # variance of a verdict beside a logit near 0: the inverse of p (1 - p)
EXPLORED = 10  # each tenth that is judged is one that little is known of, so that a blind spot is looked into


def logistic(
    rows: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    prior: np.ndarray,
    *,
    held: np.ndarray,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights that minimize the log loss plus held/2 times their squared distance to `prior (d + 1,)`.

    The last one is an intercept. `labels` are 0 to 1, `weights` what each row counts, `held (d + 1,)` how firmly each
    weight is pulled. By Newton's method, from `start`, which the result does not depend on. The second array is the
    curvature there, `(d + 1, d + 1)`.
    """
    design = np.column_stack([rows, np.ones(len(rows))])
    result = (prior if start is None else start).astype(np.float64)
    loss = _loss(labels, weights, held, result - prior, design @ result)
    curve = np.diag(held)
    for _ in range(STEPS):
        sure = _logistic_curve(design @ result)
        slope = design.T @ (weights * (sure - labels)) + held * (result - prior)
        curve = (design * (weights * sure * (1 - sure))[:, None]).T @ design + np.diag(held)
        step = np.linalg.solve(curve, slope)
        for _ in range(HALVINGS):  # a whole step may go too far, where all curves are flat
            moved = result - step
            lower = _loss(labels, weights, held, moved - prior, design @ moved)
            if lower <= loss:
                break
            step /= 2
        else:
            break
        result, loss = moved, lower
        if np.abs(step).max() < SMALLEST:
            break
    return result, curve


def _logistic_curve(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))


def _loss(labels: np.ndarray, weights: np.ndarray, held: np.ndarray, off: np.ndarray, logits: np.ndarray) -> float:
    return float(weights @ (np.logaddexp(0, logits) - labels * logits) + 0.5 * held @ off**2)


@dataclass(frozen=True)
class Whitening:
    """The origin and the axes in which ordinary vectors `(n, d)` have unit variance and no correlation.

    The covariance is that of Ledoit and Wolf (2004).
    """

    center: np.ndarray
    matrix: np.ndarray  # (d, d), for rows from the left

    @classmethod
    def fit(cls, ordinary: np.ndarray) -> Whitening:
        """Learn them. Raises QueryError where ordinary vectors are all the same."""
        center = ordinary.mean(axis=0)
        values, axes = np.linalg.eigh(shrunk_covariance(ordinary - center)[0])
        return cls(center, axes / np.sqrt(values + FLOOR * values.mean()))

    def rows(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors `(n, d)` in these axes."""
        return (vectors - self.center) @ self.matrix

    def direction(self, vector: np.ndarray, ordinary: np.ndarray) -> np.ndarray:
        """Return the direction in these axes along which inner products with a vector grow, with deviation 1."""
        spread = float(((ordinary - self.center) @ vector).std())
        return np.linalg.solve(self.matrix, vector) / max(spread, SMALLEST)


class Interest:
    """A probe of judged vectors `(m, d)` with `wanted (m,)` from 0 (no) to 1 (yes).

    `ordinary (b, d)` are vectors of a sample of what is ranked; `start (d,)` is the direction to start from, None for
    none. The logit of a vector is normal with the mean and variance that `judge` gives.
    """

    def __init__(
        self,
        frame: Whitening,
        judged: np.ndarray,
        wanted: np.ndarray,
        ordinary: np.ndarray,
        *,
        start: np.ndarray | None = None,
    ) -> None:
        dim = ordinary.shape[1]
        prior = np.zeros(dim) if start is None else PRIOR * frame.direction(start, ordinary)
        rows = frame.rows(np.concatenate([judged, ordinary]))
        labels = np.concatenate([wanted, np.zeros(len(ordinary))])
        weights = np.concatenate([np.ones(len(judged)), np.full(len(ordinary), len(judged) / len(ordinary))])
        held = np.append(np.full(dim, PULL * dim), HELD)
        fitted, curve = logistic(rows, labels, weights, np.append(prior, RARE), held=held)
        root = np.linalg.cholesky(np.linalg.inv(curve))
        self.weights = (frame.matrix @ fitted[:-1]).astype(np.float32)
        self.intercept = float(fitted[-1] - frame.center @ frame.matrix @ fitted[:-1])
        self._spread = (frame.matrix @ root[:-1]).astype(np.float32)
        self._at = (root[-1] - frame.center @ frame.matrix @ root[:-1]).astype(np.float32)

    def judge(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of the logit of vectors `(n, d) float32`, `(n,)` each; NaN for those with NaN."""
        mean, variance = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.float32)
        step = max(1, BLOCK_NUMBERS // len(self.weights))
        for first in range(0, len(vectors), step):
            part = vectors[first : first + step]
            mean[first : first + step] = part @ self.weights + self.intercept
            features = self.features(part)
            variance[first : first + step] = np.einsum("ij,ij->i", features, features)
        return mean, variance

    def features(self, vectors: np.ndarray) -> np.ndarray:
        """Return rows whose inner products are the covariances of logits, `(n, d + 1)`."""
        return vectors @ self._spread + self._at


def probability(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the mean of the logistic function of normal logits, as MacKay (1992) approximates it."""
    return _logistic_curve(mean / np.sqrt(1 + PROBIT * variance))


def information(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return how much a verdict is expected to tell of the weights, in bits, 0 to 1.

    Bayesian active learning by disagreement (Houlsby et al. 2011, arXiv:1112.5745, section 3), for a logistic curve
    as the normal one of the same slope.
    """
    mean, variance = mean * np.sqrt(PROBIT), variance * PROBIT
    at = 1 / (1 + np.exp(-np.clip(mean / np.sqrt(PROBIT) / np.sqrt(1 + variance), -60, 60)))
    whole = -(at * np.log2(np.maximum(at, 1e-12)) + (1 - at) * np.log2(np.maximum(1 - at, 1e-12)))
    width = np.pi * np.log(2) / 2
    left = np.sqrt(width / (variance + width)) * np.exp(-(mean**2) / (2 * (variance + width)))
    return np.maximum(whole - left, 0.0)


def value(mean: np.ndarray, variance: np.ndarray, odd: np.ndarray | None = None) -> np.ndarray:
    """Return what judging is worth: predicted interest plus information in bits, times oddness where that is given."""
    result = probability(mean, variance) + information(mean, variance)
    return result if odd is None else result * np.nan_to_num(odd)


@dataclass(frozen=True)
class Choice:
    """One of a queue: its row, its value when it was chosen, and whether it explores what little is known of."""

    row: int
    value: float
    explores: bool


def choose(
    mean: np.ndarray, features: np.ndarray, *, k: int, known: int, odd: np.ndarray | None = None
) -> list[Choice]:
    """Return up to `k` rows to judge, one after the other; ties by row.

    Each that is chosen makes those like it less valuable: the variance of their logits falls as if it had been judged.
    `known` counts the verdicts so far: every tenth is one of which least is known, or, with `odd (n,)`, the oddest.
    """
    features, free, result = features.astype(np.float64), np.ones(len(mean), bool), []
    mean = mean.astype(np.float64)
    for number in range(min(k, len(mean))):
        variance = np.einsum("ij,ij->i", features, features)
        explores = (known + number) % EXPLORED == EXPLORED - 1
        worth = value(mean, variance, odd)
        by = (variance if odd is None else np.nan_to_num(odd)) if explores else worth
        best = int(np.argmax(np.where(free, by, -np.inf)))
        result.append(Choice(best, float(worth[best]), explores))
        free[best] = False
        features = observed(features, best)
    return result


def observed(features: np.ndarray, row: int) -> np.ndarray:
    """Return features whose products are the covariances once the logit of a row has been observed with NOISE.

    A rank-one update: it takes from each its part along what was observed.
    """
    chosen = features[row]
    length = float(chosen @ chosen)
    if length <= 0:
        return features
    shrunk = 1 - np.sqrt(NOISE / (NOISE + length))
    return features - np.outer(features @ chosen, chosen) * (shrunk / length)
