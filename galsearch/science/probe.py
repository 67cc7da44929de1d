"""A linear probe: classes of vectors by multinomial logistic regression, with probabilities that mean what they say."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from galsearch.errors import QueryError

PENALTY = 1.0  # 1/C of logistic regression on vectors of unit variance a direction
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # that cross-validation chooses from
PARTS = 5  # of cross-validation
LEAST_OF_A_CLASS = 2  # rows of it, so that one can be held out while the other is fitted
MOST_STEPS = 500
TEMPERATURES = (0.05, 20.0)  # between which the logits are divided


def checked(reference: np.ndarray, *, least: int = 2) -> np.ndarray:
    """Return reference vectors as float64. Raises QueryError unless they are `least` rows of finite numbers."""
    result = np.asarray(reference, np.float64)
    if result.ndim != 2 or result.shape[1] < 1:
        raise QueryError(f"reference vectors have the shape {result.shape}, expected rows of numbers, (n, d)")
    bad = int((~np.isfinite(result)).any(axis=1).sum())
    if bad:
        raise QueryError(f"{bad} of {len(result)} reference vectors have NaN or infinite numbers; leave those out")
    if len(result) < least:
        raise QueryError(f"{len(result)} reference vectors are too few, at least {least} are needed; give more normals")
    return result


def checked_labels(labels: np.ndarray | None, *, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes `(c,)` and the class number of each reference vector. Raises QueryError for fewer than two."""
    if labels is None:
        raise QueryError("this detector compares classes, and no labels were given; give labels, or another detector")
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    if len(codes) != rows:
        raise QueryError(f"{len(codes)} labels for {rows} reference vectors; give one for each")
    if len(classes) < 2:
        raise QueryError(
            f"every reference label is {str(classes[0])!r:.40}, and this detector compares classes; give two"
        )
    return classes, codes


@dataclass(frozen=True)
class Probe:
    """Multinomial logistic regression on vectors `(n, d)`: `vectors @ weights (d, c) + intercept (c,)` are its logits.

    The logits of `calibrated` are over their temperature, so that their softmax are probabilities (Guo et al. 2017,
    ICML). `classes` are in order.
    """

    weights: np.ndarray
    intercept: np.ndarray
    classes: tuple = ()

    @classmethod
    def fit(cls, reference: np.ndarray, labels: np.ndarray | None, *, penalty: float = PENALTY) -> Probe:
        """Minimize log loss + penalty / 2 · |weights|² on vectors scaled to unit variance a direction on average."""
        reference = checked(reference)
        classes, codes = checked_labels(labels, rows=len(reference))
        mean = reference.mean(axis=0)
        scale = float(np.sqrt(((reference - mean) ** 2).mean())) or 1.0
        table = _fitted((reference - mean) / scale, codes, len(classes), penalty)
        weights = table[:-1] / scale
        return cls(weights, table[-1] - mean @ weights, tuple(classes.tolist()))

    @classmethod
    def calibrated(cls, reference: np.ndarray, labels: np.ndarray, *, seed: int) -> Probe:
        """Fit with the penalty of `PENALTIES` and the temperature that have the least log loss on rows left out.

        The rows are left out by fifths, drawn within each class with the seed. Raises QueryError for a class of
        one row.
        """
        reference = checked(reference)
        classes, codes = checked_labels(labels, rows=len(reference))
        counts = np.bincount(codes)
        if counts.min() < LEAST_OF_A_CLASS:
            raise QueryError(
                f"class {str(classes[counts.argmin()])!r:.40} has a single row to train on, and one that is held out "
                "needs another; label more of it, or leave it out"
            )
        parts = _stratified(codes, seed=seed)
        tried = [(cls._left_out(reference, codes, parts, penalty), penalty) for penalty in PENALTIES]
        _, temperature, penalty = min((*_cooled(logits, codes), penalty) for logits, penalty in tried)
        whole = cls.fit(reference, labels, penalty=penalty)
        return replace(whole, weights=whole.weights / temperature, intercept=whole.intercept / temperature)

    @classmethod
    def _left_out(cls, reference: np.ndarray, codes: np.ndarray, parts: np.ndarray, penalty: float) -> np.ndarray:
        """Return the logits `(n, c)` that each row gets from a fit of the other parts."""
        result = np.empty((len(codes), codes.max() + 1))
        for part in range(parts.max() + 1):
            inside = parts == part
            result[inside] = cls.fit(reference[~inside], codes[~inside], penalty=penalty).logits(reference[inside])
        return result

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """Return the logits `(m, c)` of vectors `(m, d)`."""
        return np.asarray(vectors, np.float64) @ self.weights + self.intercept

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Return the probability of each class, `(m, c)`, NaN for a vector of NaN."""
        from scipy.special import softmax

        return softmax(self.logits(vectors), axis=1)


def _fitted(inputs: np.ndarray, codes: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """Return weights `(d + 1, c)`, the last row being the intercept, by L-BFGS."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    goal, d = np.eye(classes)[codes], inputs.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        table = flat.reshape(d + 1, -1)
        logits = inputs @ table[:d] + table[d]
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        error = np.exp(logs) - goal
        gradient = np.concatenate([inputs.T @ error + penalty * table[:d], error.sum(axis=0)[None]])
        return float(-(logs * goal).sum() + penalty / 2 * (table[:d] ** 2).sum()), gradient.ravel()

    best = minimize(loss, np.zeros((d + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": MOST_STEPS})
    return best.x.reshape(d + 1, -1)


def _stratified(codes: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the part of each row, `(n,)` from 0 to PARTS - 1: the rows of a class are spread evenly over the parts."""
    order = np.random.default_rng(seed).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    result = np.empty(len(codes), np.int64)
    result[order] = (np.arange(len(codes)) - starts[codes[order]]) % PARTS
    return result


def _cooled(logits: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Return the least log loss over the temperatures, and the temperature."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_temperature: float) -> float:
        logs = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-logs[np.arange(len(codes)), codes].mean())

    best = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(best.fun), float(np.exp(best.x))
