"""How good a ranking is: discounted gain, precision, recall, what chance gives, and how sure a mean is.

Relevance is a number per object, 0 for irrelevant. A measure that has no value, such as the gain of a query
that nothing answers, is None. Two gains are in use under one name, so both are here and named: `ndcg_exp`
weighs by 2^relevance - 1 (Burges et al. 2005, ICML), `ndcg_lin` by relevance (Järvelin and Kekäläinen 2002,
ACM TOIS 20, 422). Both discount rank i by log2(i + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from galsearch.errors import QueryError


def ndcg_exp(relevance: Sequence[float], all_relevances: Sequence[float], k: int) -> float | None:
    """Return nDCG@k with gain 2^relevance - 1: `relevance` in rank order over the best possible order.

    `all_relevances` are those of every object that could have been found, so that an answer which leaves the
    good ones out is not called ideal. None where nothing is relevant.

    >>> ndcg_exp([1, 0], [1, 1, 0], k=2)
    0.6131471927654584
    """
    return _ndcg(_gain_exp(relevance), _gain_exp(all_relevances), k)


def ndcg_lin(relevance: Sequence[float], all_relevances: Sequence[float], k: int) -> float | None:
    """Return nDCG@k with gain equal to relevance; otherwise as `ndcg_exp`."""
    return _ndcg(_gain_lin(relevance), _gain_lin(all_relevances), k)


def random_ndcg_exp(all_relevances: Sequence[float], k: int) -> float | None:
    """Return the expectation of `ndcg_exp` over all orders: the mean gain at every rank over the ideal."""
    gains = _gain_exp(all_relevances)
    ideal = _dcg(np.sort(gains)[::-1], k)
    return float(gains.mean() * _discounts(min(k, len(gains))).sum() / ideal) if ideal > 0 else None


def tied_ndcg_exp(scores: Sequence[float], relevance: Sequence[float], k: int) -> float | None:
    """Return the expectation of `ndcg_exp` over the orders that equal scores allow, highest score first.

    Every object of a tie gets the mean gain of the tie (McSherry and Najork 2008, ECIR). `relevance` belongs
    to `scores` one by one and is all there is to find.
    """
    scores, gains = np.asarray(scores, dtype=float), _gain_exp(relevance)
    if scores.shape != gains.shape:
        raise QueryError(f"{len(scores)} scores for {len(gains)} relevances; every object needs one of each")
    if np.isnan(scores).any():
        raise QueryError("a score is NaN, which has no place in a ranking; leave the object out")
    _, tie = np.unique(-scores, return_inverse=True)
    means = np.bincount(tie, weights=gains) / np.bincount(tie) if len(tie) else gains
    return _ndcg(means[np.sort(tie)], gains, k)


def precision_at(relevance: Sequence[float], k: int) -> float:
    """Return the part of the first k ranks that is relevant (above 0); ranks not filled count as misses."""
    _check_k(k)
    return float((np.asarray(relevance, dtype=float)[:k] > 0).sum() / k)


def recall_at_k(found: Sequence[str], true: Sequence[str], k: int | None = None) -> float | None:
    """Return the part of the first k true ids that is among the first k found; all of both where k is None.

    Order within the k does not matter and an id counts once. None where there is nothing to find.
    """
    if k is not None:
        _check_k(k)
    wanted = set(list(true)[:k])
    return len(wanted & set(list(found)[:k])) / len(wanted) if wanted else None


def bootstrap_interval(
    values: Sequence[float],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 10_000,
    statistic: Callable[..., np.ndarray] = np.mean,
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of a statistic (Efron 1979, Ann. Statist. 7, 1).

    `statistic` takes an array and `axis`. The values must be independent: one a query or object, not one a
    rank. None for fewer than two values. Raises QueryError for NaN and for a level outside 0 to 1.
    """
    sample = np.asarray(values, dtype=float)
    if not 0 < level < 1:
        raise QueryError(f"level {level} is not between 0 and 1; 0.95 is usual")
    if np.isnan(sample).any():
        raise QueryError("a value is NaN; leave missing values out, and say how many they were")
    if len(sample) < 2:
        return None
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // len(sample))  # resampled in blocks of 16 MB
    drawn = [
        statistic(sample[generator.integers(0, len(sample), (min(rows, resamples - start), len(sample)))], axis=1)
        for start in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ndcg(gains: np.ndarray, all_gains: np.ndarray, k: int) -> float | None:
    _check_k(k)
    ideal = _dcg(np.sort(all_gains)[::-1], k)
    return float(_dcg(gains, k) / ideal) if ideal > 0 else None


def _dcg(gains: np.ndarray, k: int) -> float:
    _check_k(k)
    return float((gains[:k] * _discounts(len(gains[:k]))).sum())


def _discounts(count: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, count + 2))


def _gain_exp(relevance: Sequence[float]) -> np.ndarray:
    return np.exp2(_gain_lin(relevance)) - 1


def _gain_lin(relevance: Sequence[float]) -> np.ndarray:
    values = np.asarray(relevance, dtype=float)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise QueryError("a relevance is negative or not a number; it must be 0 or more, and judged for every object")
    return values


def _check_k(k: int) -> None:
    if k < 1:
        raise QueryError(f"k is {k}, and a ranking is judged at 1 or more; give k >= 1")
