"""Ranking measures, against brute force over permutations."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galsearch.errors import QueryError
from galsearch.science.metrics import (
    bootstrap_interval,
    ndcg_exp,
    ndcg_lin,
    precision_at,
    random_ndcg_exp,
    recall_at_k,
    tied_ndcg_exp,
)

RELEVANCES = st.lists(st.integers(0, 3), min_size=1, max_size=6)


def brute_ndcg(relevance, all_relevances, k, gain):
    def dcg(values):
        return sum(gain(value) / np.log2(rank + 1) for rank, value in enumerate(values[:k], start=1))

    ideal = max(dcg(order) for order in permutations(all_relevances))
    return dcg(relevance) / ideal if ideal else None


@given(RELEVANCES, st.integers(1, 7), st.randoms())
@settings(deadline=None, max_examples=60)
def test_ndcg_is_the_gain_over_the_best_of_all_orders(relevances, k, random):
    shown = random.sample(relevances, len(relevances))
    expected = brute_ndcg(shown, relevances, k, lambda r: 2**r - 1)
    assert ndcg_exp(shown, relevances, k) == (None if expected is None else pytest.approx(expected))
    expected = brute_ndcg(shown, relevances, k, lambda r: r)
    assert ndcg_lin(shown, relevances, k) == (None if expected is None else pytest.approx(expected))


@given(RELEVANCES, st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_random_ndcg_is_the_mean_over_all_orders(relevances, k):
    expected = random_ndcg_exp(relevances, k)
    orders = [ndcg_exp(order, relevances, k) for order in permutations(relevances)]
    assert expected == (None if orders[0] is None else pytest.approx(np.mean(orders)))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=6), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_tied_ndcg_is_the_mean_over_the_orders_that_the_scores_allow(pairs, k):
    scores, relevance = zip(*pairs, strict=True)
    allowed = [order for order in permutations(pairs) if list(order) == sorted(order, key=lambda pair: -pair[0])]
    values = [ndcg_exp([r for _, r in order], relevance, k) for order in allowed]
    assert tied_ndcg_exp(scores, relevance, k) == (None if values[0] is None else pytest.approx(np.mean(values)))


def test_exponential_and_linear_gain_differ():
    assert ndcg_exp([1, 2], [2, 1], k=2) < ndcg_lin([1, 2], [2, 1], k=2) < 1


def test_leaving_out_the_relevant_ones_is_not_ideal():
    assert ndcg_exp([1, 0], [3, 1, 0, 0], k=2) < 0.2
    assert ndcg_exp([], [1], k=10) == 0


def test_nothing_relevant_has_no_ndcg():
    assert ndcg_exp([0, 0], [0, 0], k=2) is None
    assert random_ndcg_exp([], k=3) is None


def test_precision_counts_unfilled_ranks_as_misses():
    assert precision_at([1, 0, 2], k=2) == 0.5
    assert precision_at([1], k=10) == 0.1


def test_recall_compares_sets_and_counts_an_id_once():
    assert recall_at_k(["a", "a", "c"], ["a", "b"]) == 0.5
    assert recall_at_k(["x", "a"], ["a", "b"], k=1) == 0
    assert recall_at_k(["b", "a", "z"], ["a", "b", "c"], k=2) == 1
    assert recall_at_k(["a"], []) is None


@pytest.mark.parametrize("measure", [lambda k: ndcg_exp([1], [1], k), lambda k: precision_at([1], k)])
def test_k_below_one_is_refused(measure):
    with pytest.raises(QueryError, match="k is 0"):
        measure(0)


def test_relevance_must_be_judged():
    with pytest.raises(QueryError, match="relevance"):
        ndcg_exp([1, np.nan], [1, 0], k=2)


def test_bootstrap_interval_of_the_mean_is_that_of_the_normal_theory():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_interval(values, seed=2)
    error = values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error + 0.02)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error + 0.02)


def test_bootstrap_interval_is_the_same_for_the_same_seed():
    assert bootstrap_interval([1, 2, 3, 4], seed=3) == bootstrap_interval([1, 2, 3, 4], seed=3)
    low, high = bootstrap_interval([1, 2, 3, 4], seed=3, level=0.5)
    wide_low, wide_high = bootstrap_interval([1, 2, 3, 4], seed=3)
    assert wide_low < low < high < wide_high


def test_bootstrap_interval_of_too_little_is_none_and_of_nan_refused():
    assert bootstrap_interval([1.0], seed=1) is None
    with pytest.raises(QueryError, match="NaN"):
        bootstrap_interval([1.0, np.nan], seed=1)
