"""Adaptation of text vectors to marked examples: a low-rank correction that leaves other texts where they are.

For each text that has examples, a direction is fitted that tells its positives from its negatives and stays as close to
the vector of the text as a penalty asks (logistic regression whose prior is centered on that vector). The correction
then turns every text vector by what these texts gained, in the measure of how like them it is: q' = unit(q + G q D).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from galsearch.science.metrics import auroc
from galsearch.science.ranking import unit

STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # penalties that cross-validation chooses among, weakest first
FOLDS = 4
LEAST_MARKS = 8  # of each side, to be fitted or judged
GUARD = 0.1  # ridge, in units of the mean squared length of the guards along an axis
SPREAD = 1.5  # logits that one standard deviation of the scores of a text stands for before anything is learned
RESAMPLES = 2_000


@dataclass(frozen=True)
class Marks:
    """Examples of a text: unit vectors `(n, d)` and whether each is one of what the text asks for, `(n,) bool`."""

    text: np.ndarray
    vectors: np.ndarray
    wanted: np.ndarray

    def part(self, chosen: np.ndarray) -> Marks:
        """Return some of them."""
        return Marks(self.text, self.vectors[chosen], self.wanted[chosen])

    @property
    def fewest(self) -> int:
        """How many there are on the smaller side."""
        return int(min(self.wanted.sum(), (~self.wanted).sum()))


@dataclass(frozen=True)
class Correction:
    """A correction of unit vectors: `gates` `(k, d)` say how much of each of k `shifts` `(k, d)` is added."""

    gates: np.ndarray
    shifts: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Return corrected unit vectors `(n, d) float32`."""
        vectors = np.asarray(vectors, np.float64)
        moved = vectors + vectors @ self.gates.T @ self.shifts
        return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)

    @property
    def sha256(self) -> str:
        """Digest of its numbers."""
        rows = [np.ascontiguousarray(part, "<f8").tobytes() for part in (self.gates, self.shifts)]
        return hashlib.sha256(b"".join(rows)).hexdigest()


@dataclass(frozen=True)
class Gain:
    """Mean AUROC over texts before and after, and their difference with its bootstrap interval of 95 % over marks."""

    before: float
    after: float
    gain: float
    low: float
    high: float


def fit(marks: Sequence[Marks], guards: np.ndarray, *, strength: float) -> Correction:
    """Return the correction that brings each marked text to its fitted direction and moves others least.

    `guards` `(g, d)` are vectors of other texts, which the least-squares solution keeps in place as far as it can.
    """
    texts = np.stack([one.text for one in marks]).astype(np.float64)
    shifts = np.stack([_direction(one, strength) for one in marks]) - texts
    guards = np.asarray(guards, np.float64).reshape(-1, texts.shape[1])
    ridge = GUARD * max(len(guards), 1) / texts.shape[1]
    toward = np.linalg.solve(guards.T @ guards + ridge * np.eye(texts.shape[1]), texts.T)  # (d, k)
    return Correction(np.linalg.lstsq(texts @ toward, toward.T, rcond=None)[0], shifts)


def chosen_strength(marks: Sequence[Marks], *, seed: int) -> float | None:
    """Return the penalty of the best mean AUROC over folds of the marks; None where no correction is better."""
    rng = np.random.default_rng(seed)
    folds = [_folds(one.wanted, rng) for one in marks]
    plain, scores = [], {strength: [] for strength in STRENGTHS}  # type: ignore[var-annotated]
    for one, fold in zip(marks, folds, strict=True):
        for number in range(FOLDS):
            left_out = one.part(fold == number)
            plain.append(_auroc(left_out.vectors @ one.text, left_out.wanted))
            for strength in STRENGTHS:
                direction = _direction(one.part(fold != number), strength)
                scores[strength].append(_auroc(left_out.vectors @ direction, left_out.wanted))
    best = max(STRENGTHS, key=lambda strength: (np.mean(scores[strength]), strength))
    return best if np.mean(scores[best]) > np.mean(plain) else None


def judge(marks: Sequence[Marks], before: Sequence[np.ndarray], after: Sequence[np.ndarray], *, seed: int) -> Gain:
    """Return what marks that were not learned from say of the vectors of their texts before and after.

    Positives and negatives of each text are drawn anew, each among themselves, for the interval.
    """
    rng = np.random.default_rng(seed)
    then, now, drawn = [], [], np.zeros(RESAMPLES)
    for one, old, new in zip(marks, before, after, strict=True):
        wins = [_wins(one.vectors @ vector, one.wanted) for vector in (old, new)]
        then.append(wins[0].mean())
        now.append(wins[1].mean())
        positives, negatives = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in wins[0].shape)
        drawn += np.einsum("rp,pn,rn->r", positives, wins[1] - wins[0], negatives, optimize=True) / len(marks)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Gain(float(np.mean(then)), float(np.mean(now)), float(np.mean(now) - np.mean(then)), float(low), float(high))


def _direction(marks: Marks, strength: float) -> np.ndarray:
    """Return the unit vector of a logistic regression, both sides weighing the same, drawn to the text's vector."""
    from scipy.optimize import minimize

    vectors, sign = marks.vectors.astype(np.float64), np.where(marks.wanted, 1.0, -1.0)
    scores = vectors @ marks.text
    prior = SPREAD / max(float(scores.std()), 1e-6) * marks.text.astype(np.float64)
    share = np.where(marks.wanted, 0.5 / marks.wanted.sum(), 0.5 / (~marks.wanted).sum())

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offset = parameters[:-1], parameters[-1]
        margin = sign * (vectors @ weights + offset)
        slope = -sign * share / (1 + np.exp(np.clip(margin, -60, 60)))
        away = weights - prior
        gradient = np.append(vectors.T @ slope + 2 * strength * away, slope.sum())
        return float((share * np.logaddexp(0, -margin)).sum() + strength * away @ away), gradient

    start = np.append(prior, -prior @ vectors.mean(axis=0))
    return unit(minimize(loss, start, jac=True, method="L-BFGS-B").x[:-1])


def _folds(wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the fold of each mark, each side dealt out evenly."""
    result = np.empty(len(wanted), np.int64)
    for side in (True, False):
        at = rng.permutation(np.flatnonzero(wanted == side))
        result[at] = np.arange(len(at)) % FOLDS
    return result


def _auroc(scores: np.ndarray, wanted: np.ndarray) -> float:
    return auroc(scores.tolist(), wanted.tolist()) or 0.0


def _wins(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return whether each positive scores above each negative, `(p, n)`, a tie counting half."""
    over = scores[wanted][:, None] - scores[~wanted][None, :]
    return (over > 0) + 0.5 * (over == 0)
