"""How good a ranking is: discounted gain, precision, recall, what chance gives, and how sure a mean is.

Relevance is a number per object, 0 for irrelevant. A measure that has no value, such as the gain of a query
that nothing answers, is None. Two gains are in use under one name, so both are here and named: `ndcg_exp`
weighs by 2^relevance - 1 (Burges et al. 2005, ICML), `ndcg_lin` by relevance (Järvelin and Kekäläinen 2002,
ACM TOIS 20, 422). Both discount rank i by log2(i + 1).
"""

from __future__ import annotations

import hashlib
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
    return _single(Ranked(scores, relevance).ndcg_exp(k))


def tied_ndcg_lin(scores: Sequence[float], relevance: Sequence[float], k: int) -> float | None:
    """Return the expectation of `ndcg_lin` over the orders that equal scores allow; as `tied_ndcg_exp`."""
    return _single(Ranked(scores, relevance).ndcg_lin(k))


def tied_precision_at(scores: Sequence[float], relevance: Sequence[float], k: int) -> float | None:
    """Return the expectation of `precision_at` over the orders that equal scores allow."""
    return _single(Ranked(scores, relevance).precision(k))


def tied_recall_at(scores: Sequence[float], relevance: Sequence[float], k: int) -> float | None:
    """Return the expected part of all relevant objects that is in the first k ranks; at most `recall_ceiling`."""
    return _single(Ranked(scores, relevance).recall(k))


def recall_ceiling(relevant: int, k: int) -> float | None:
    """Return the largest recall that k ranks can hold: min(k, relevant) / relevant; None where nothing is relevant."""
    _check_k(k)
    return min(k, relevant) / relevant if relevant else None


def auroc(scores: Sequence[float], relevance: Sequence[float]) -> float | None:
    """Return the probability that a relevant object scores above an irrelevant one, equal scores counting half.

    The area under the ROC curve as the Mann-Whitney statistic (Hanley and McNeil 1982, Radiology 143, 29). None
    where one of both kinds is missing.
    """
    return _single(Ranked(scores, relevance).auroc())


class Ranked:
    """Objects by falling score, measured for many draws of them at once, in expectation over the orders of ties.

    An object of a tie takes each of the tie's ranks equally often. So what is Σ discount(rank) gain(rank) over the
    first k ranks expects Σ over ties (mean gain of the tie) (D(last rank) - D(rank before the first)), where D(r) is
    the sum of the first min(r, k) discounts (McSherry and Najork 2008, ECIR). Precision and recall are the same with
    all discounts 1. `draws (b, n)` say how often each object was drawn, as in a bootstrap; copies of an object are a
    tie. Without draws, every object is there once. Each measure is `(b,) float64`, NaN where it has no value.
    """

    def __init__(self, scores: Sequence[float] | np.ndarray, relevance: Sequence[float] | np.ndarray) -> None:
        result, self.relevance = np.asarray(scores, dtype=float), _gain_lin(relevance)
        if result.shape != self.relevance.shape:
            raise QueryError(
                f"{len(result)} scores for {len(self.relevance)} relevances; every object needs one of each"
            )
        if np.isnan(result).any():
            raise QueryError("a score is NaN, which has no place in a ranking; leave the object out")
        self.scores, self.order = result, np.argsort(-result, kind="stable")
        ranked = result[self.order]
        self.starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]][: len(ranked)])
        self._every = np.ones((1, len(result)), np.int64)

    def ndcg_exp(self, k: int, draws: np.ndarray | None = None) -> np.ndarray:
        """Return nDCG@k with gain 2^relevance - 1 over the best order of what was drawn."""
        return self._ndcg(np.exp2(self.relevance) - 1, k, draws)

    def ndcg_lin(self, k: int, draws: np.ndarray | None = None) -> np.ndarray:
        """Return nDCG@k with gain equal to relevance over the best order of what was drawn."""
        return self._ndcg(self.relevance, k, draws)

    def precision(self, k: int, draws: np.ndarray | None = None) -> np.ndarray:
        """Return the part of the first k ranks that is relevant; ranks not filled count as misses."""
        return self._sum((self.relevance > 0).astype(float), np.arange(_check_k(k) + 1.0), draws) / k

    def recall(self, k: int, draws: np.ndarray | None = None) -> np.ndarray:
        """Return the part of the relevant objects drawn that is in the first k ranks."""
        hits = self._sum((self.relevance > 0).astype(float), np.arange(_check_k(k) + 1.0), draws)
        return _over(hits, self._drawn(draws)[:, self.relevance > 0].sum(axis=1))

    def auroc(self, draws: np.ndarray | None = None) -> np.ndarray:
        """Return the probability that a relevant object scores above an irrelevant one, ties counting half."""
        drawn, relevant = self._drawn(draws)[:, self.order], (self.relevance > 0)[self.order]
        if not len(relevant):
            return np.full(len(drawn), np.nan)
        good = np.add.reduceat(drawn * relevant, self.starts, axis=1)
        bad = np.add.reduceat(drawn * ~relevant, self.starts, axis=1)
        below = bad.sum(axis=1, keepdims=True) - bad.cumsum(axis=1)
        return _over((good * (below + bad / 2)).sum(axis=1), good.sum(axis=1) * bad.sum(axis=1))

    def _drawn(self, draws: np.ndarray | None) -> np.ndarray:
        return self._every if draws is None else draws

    def _ndcg(self, gains: np.ndarray, k: int, draws: np.ndarray | None) -> np.ndarray:
        table = np.r_[0.0, np.cumsum(_discounts(_check_k(k)))]
        return _over(self._sum(gains, table, draws), self._ideal(gains, table, draws))

    def _ideal(self, gains: np.ndarray, table: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Return the sum for the best order: one tie for each gain, highest first."""
        levels = np.unique(gains[gains > 0])[::-1]
        counts = [self._drawn(draws)[:, gains == level].sum(axis=1) for level in levels]
        upto = np.cumsum([np.zeros(len(self._drawn(draws)), np.int64), *counts], axis=0)
        return levels @ np.diff(table[np.minimum(upto, len(table) - 1)], axis=0)

    def _sum(self, gains: np.ndarray, table: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Return the expected Σ discount gain; `table` holds D(0), D(1) … D(k)."""
        drawn, k = self._drawn(draws), len(table) - 1
        reach = len(self.starts) if len(drawn) == 1 else min(4 * k, len(self.starts))  # ties that fill k ranks
        while len(self.starts):
            end = self.starts[reach] if reach < len(self.starts) else len(self.order)
            top, starts = self.order[:end], self.starts[:reach]
            taken = drawn[:, top]
            counts = np.add.reduceat(taken, starts, axis=1)
            upto = counts.cumsum(axis=1)
            if reach == len(self.starts) or upto[:, -1].min() >= k:
                steps = np.diff(table[np.minimum(upto, k)], axis=1, prepend=0.0)
                sums = np.add.reduceat(taken * gains[top], starts, axis=1)
                return (steps * _over(sums, np.maximum(counts, 1))).sum(axis=1)
            reach = min(4 * reach, len(self.starts))
        return np.zeros(len(drawn))


def precision_at(relevance: Sequence[float], k: int) -> float:
    """Return the part of the first k ranks that is relevant (above 0); ranks not filled count as misses."""
    _check_k(k)
    return float((np.asarray(relevance, dtype=float)[:k] > 0).sum() / k)


def recall_at_k(retrieved: Sequence[str], true: Sequence[str], k: int | None = None) -> float | None:
    """Return the part of the first k true ids that is among the first k retrieved; all of both where k is None.

    Order within the k does not matter and an id counts once. None where there is nothing to find.
    """
    if k is not None:
        _check_k(k)
    wanted = set(list(true)[:k])
    return len(wanted & set(list(retrieved)[:k])) / len(wanted) if wanted else None


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


def _gain_lin(relevance: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(relevance, dtype=float)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise QueryError("a relevance is negative or not a number; it must be 0 or more, and judged for every object")
    return values


def _over(values: np.ndarray, divisors: np.ndarray) -> np.ndarray:
    """Return the quotients, NaN where the divisor is 0."""
    return np.divide(values, divisors, out=np.full(np.shape(values), np.nan), where=np.asarray(divisors) > 0)


def _single(values: np.ndarray) -> float | None:
    return None if np.isnan(values[0]) else float(values[0])


def _check_k(k: int) -> int:
    if k < 1:
        raise QueryError(f"k is {k}, and a ranking is judged at 1 or more; give k >= 1")
    return k


def digests(ids: Sequence[str], seed: int) -> np.ndarray:
    """Return a number of 64 bits for each id, `(n,) uint64`: of its SHA-256 with the seed, whatever else is there."""
    sums = (hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8] for name in ids)
    return np.array([int.from_bytes(digest, "big") for digest in sums], np.uint64)


def fold_of(ids: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """Return the fold of each id, `(n,) int64` from 0, by its digest."""
    return (digests(ids, seed) % np.uint64(folds)).astype(np.int64)
