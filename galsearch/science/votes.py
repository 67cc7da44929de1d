"""Votes of nearest neighbors: weights by distance, class probabilities, their calibration, regression with errors.

Distances are Euclidean on the unit sphere, sqrt(2 - 2 cosine), from 0 to 2. `n` is the number of queries, `k` of their
neighbors, nearest first, `c` of classes. A neighbor that is missing has the distance NaN, and no vote.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from galsearch.errors import QueryError

WEIGHTS = ("uniform", "inverse", "exp", "gaussian", "rank")
LEAST_PSEUDO, MOST_PSEUDO = 1e-3, 10.0  # one contrary vote in a thousand is the least doubt that a base can show
LEAST_POWER, MOST_POWER = 0.05, 20.0
MOST_SEED = 2**63 - 1  # the largest BIGINT
ONE_SIGMA = 0.6827  # share of a normal distribution within a standard deviation
LEAST_TAU, MOST_TAU = 1e-6, 1e6  # below the precision of a distance; where all votes are equal. Squares stay finite
TINY = 1e-300  # of a sum of weights: below it they have underflowed


def distances(cosines: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances between unit vectors of these cosines, float64.

    >>> distances(np.array([1.0, 0.0, -1.0])).round(3).tolist()
    [0.0, 1.414, 2.0]
    """
    return np.sqrt(np.clip(2 - 2 * np.asarray(cosines, np.float64), 0, 4))


def weights(distance: np.ndarray, *, weight: str = "exp", tau: float = 1.0) -> np.ndarray:
    """Return how much each neighbor counts, `(n, k) float64`, for distances `(n, k)`, nearest first.

    "uniform" 1; "inverse" 1/d, and where a neighbor lies at 0 those that do count alone; "exp" e^(-d/tau); "gaussian"
    e^(-d^2 / 2 tau^2); "rank" 1 over the rank. Raises QueryError for another name or tau: see `check_weight`.
    """
    check_weight(weight, tau)
    d = np.asarray(distance, np.float64)
    if weight == "inverse":
        same = d == 0
        with np.errstate(divide="ignore"):
            result = np.where(same.any(axis=1, keepdims=True), same.astype(float), 1 / d)
    elif weight == "rank":
        result = np.broadcast_to(1 / np.arange(1.0, d.shape[1] + 1), d.shape)
    elif weight == "uniform":
        result = np.ones_like(d)
    else:
        exponent = d / tau if weight == "exp" else d**2 / (2 * tau**2)
        result = np.exp(-exponent)
        lost = np.nansum(result, axis=1) < TINY
        if lost.any():  # relative to the nearest they are numbers again, and only ratios decide
            result[lost] = np.exp(exponent[lost, :1] - exponent[lost])
    return np.where(np.isnan(d), 0.0, result)


def check_weight(weight: str, tau: float) -> None:
    """Raise QueryError unless there is such a weight, and tau is a distance from 1e-6 to 1e6."""
    if weight not in WEIGHTS:
        raise QueryError(f"weight is {weight!r:.40}, expected one of {', '.join(WEIGHTS)}")
    if isinstance(tau, bool) or not isinstance(tau, (int, float)) or not LEAST_TAU <= tau <= MOST_TAU:
        raise QueryError(f"tau is {tau!r:.40}, expected a distance from {LEAST_TAU:g} to {MOST_TAU:g}, such as 0.5")


def check_share(share: float, *, name: str = "share") -> None:
    """Raise QueryError, which calls it `name`, unless a share is a number between 0 and 1, neither of them."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise QueryError(f"{name} is {share!r:.40}, expected a number between 0 and 1, such as 0.3")


def check_seed(seed: int) -> None:
    """Raise QueryError unless a seed is a whole number that a column of an atlas holds: 0 to 2^63 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= MOST_SEED:
        raise QueryError(f"seed is {seed!r:.40}, expected a whole number from 0 to {MOST_SEED}, such as 1")


def class_votes(weight: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """Return the sum of weights for each class, `(n, c) float64`; `codes (n, k)` are the neighbors' class numbers."""
    result = np.zeros((len(codes), classes))
    row = np.broadcast_to(np.arange(len(codes))[:, None], codes.shape)
    np.add.at(result, (row, codes), weight)
    return result


def shares(votes: np.ndarray) -> np.ndarray:
    """Return votes as shares of each row's sum, `(n, c)`; NaN in a row without a vote."""
    total = votes.sum(axis=1, keepdims=True)
    return np.divide(votes, total, out=np.full_like(votes, np.nan, dtype=np.float64), where=total > 0)


def at_prevalence(probabilities: np.ndarray, priors: np.ndarray, prevalence: np.ndarray) -> np.ndarray:
    """Return the probabilities where classes are as frequent as `prevalence (c,)`, not as in the base, `priors (c,)`.

    Bayes' theorem for a shift of the priors alone (Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21,
    equation 2.4). A row whose classes all have prevalence 0 is NaN.
    """
    return shares(probabilities * (np.asarray(prevalence, np.float64) / priors))


@dataclass(frozen=True)
class Calibration:
    """How shares of votes become probabilities: p ∝ ((share + pseudo prior) / (1 + pseudo))^power.

    The prior stands for votes that were not seen, as k neighbors cannot say how rare a contrary one is; the power is an
    inverse temperature (Guo et al. 2017, ICML). Both are fitted on held-out objects.
    """

    pseudo: float
    power: float

    def probabilities(self, votes: np.ndarray, priors: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities `(n, c)` of votes `(n, c)`, where classes have the shares `priors (c,)`."""
        smoothed = (shares(votes) + self.pseudo * priors) / (1 + self.pseudo)
        return shares(smoothed**self.power)


def fit_calibration(votes: np.ndarray, truth: np.ndarray, priors: np.ndarray) -> Calibration:
    """Return the calibration with the least log loss for held-out votes `(n, c)` whose true classes are `truth (n,)`.

    Every class must have a prior above 0. One object in n + 2 is taken to be of any class, by the priors, so that votes
    which were right n times of n are not certain (after Platt 1999, Advances in Large Margin Classifiers, 61).
    """
    from scipy.optimize import minimize

    held, goal = shares(votes), smoothed_truth(truth, priors)

    def loss(parameters: np.ndarray) -> float:
        pseudo, power = np.exp(parameters)
        logs = power * np.log((held + pseudo * priors) / (1 + pseudo))
        best = logs.max(axis=1)
        sums = best + np.log(np.exp(logs - best[:, None]).sum(axis=1))
        return float(np.mean(sums - (goal * logs).sum(axis=1)))

    bounds = np.log([(LEAST_PSEUDO, MOST_PSEUDO), (LEAST_POWER, MOST_POWER)])
    precise = {"xatol": 1e-3, "fatol": 1e-8}  # not by gradients: L-BFGS wakes the threads of BLAS for two numbers
    best = minimize(loss, np.log([0.3, 1.5]), bounds=bounds, method="Nelder-Mead", options=precise)
    pseudo, power = np.exp(best.x).tolist()
    return Calibration(pseudo, power)


def smoothed_truth(truth: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes `(n, c)` that a calibration is fitted to."""
    doubt = 1 / (len(truth) + 2)
    result = np.broadcast_to(doubt * priors, (len(truth), len(priors))).copy()
    result[np.arange(len(truth)), truth] += 1 - doubt
    return result


def winners(probabilities: np.ndarray, *, least: float) -> np.ndarray:
    """Return the number of the class that wins, `(n,)`: -1 where none is as probable as `least`, or two are equal."""
    best = probabilities.argmax(axis=1)
    top = probabilities.max(axis=1)
    tied = np.isclose(probabilities, top[:, None], rtol=0, atol=1e-12).sum(axis=1) > 1
    return np.where((top >= least) & ~tied, best, -1)


def mean_and_spread(weight: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean of the neighbors' values and their weighted standard deviation, `(n,)` each.

    The deviation is freed from bias by the effective number of votes, (Σw)² / Σw²; NaN where that is 1.
    """
    total = weight.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (weight * values).sum(axis=1) / total
        effective = total**2 / (weight**2).sum(axis=1)
        variance = (weight * (values - mean[:, None]) ** 2).sum(axis=1) / total
        spread = np.sqrt(variance * effective / (effective - 1))
    return mean, np.where(effective > 1 + 1e-9, spread, np.nan)


@dataclass(frozen=True)
class Spread:
    """How the spread of neighbors becomes the error of their mean: quantile · (spread + floor).

    Normalized conformal prediction (Papadopoulos, Gammerman & Vovk 2008, Artificial Intelligence and Applications, 64):
    held-out values lie within it of the mean with a probability of 68.27 %.
    """

    floor: float
    quantile: float

    def uncertainty(self, spread: np.ndarray) -> np.ndarray:
        """Return the error `(n,)`; a spread of NaN counts as 0."""
        return self.quantile * (np.nan_to_num(spread) + self.floor)


def fit_spread(mean: np.ndarray, spread: np.ndarray, truth: np.ndarray) -> Spread:
    """Return what makes the spreads of held-out objects `(n,)` errors of their means, given their true values."""
    residual = np.abs(truth - mean)
    floor = float(np.median(residual)) or float(residual.mean()) or 1.0
    ratio = np.sort(residual / (np.nan_to_num(spread) + floor))
    index = min(int(np.ceil(ONE_SIGMA * (len(ratio) + 1))), len(ratio)) - 1
    return Spread(floor, float(ratio[index]))


def drawn_to_share(is_target: np.ndarray, share: float, *, seed: int) -> np.ndarray:
    """Return the row indices, ascending, of the largest draw `(m,)` of which the stated share are targets.

    The side in excess is sub-sampled. Raises QueryError for a share or seed that is none, and where a side would be
    left without an object.
    """
    check_share(share)
    check_seed(seed)
    sides = np.flatnonzero(is_target), np.flatnonzero(~is_target)
    targets, others = map(len, sides)
    wanted = round(others * share / (1 - share)), round(targets * (1 - share) / share)
    keep = (targets, wanted[1]) if wanted[1] <= others else (wanted[0], others)
    if min(keep) < 1:
        raise QueryError(
            f"a share of {share:g} cannot be drawn from {targets} targets and {others} others without an empty side; "
            "choose a share nearer to theirs"
        )
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(side)[:n] for side, n in zip(sides, keep, strict=True)]))
