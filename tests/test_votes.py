"""Votes of neighbors: weights, probabilities and errors against scikit-learn, brute force and what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from galsearch.errors import QueryError
from galsearch.science import votes
from galsearch.science.votes import Calibration

K = 7


def nearest(members: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and distances of the k nearest members, by comparing all."""
    cosines = queries.astype(np.float64) @ members.astype(np.float64).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, votes.distances(np.take_along_axis(cosines, order, axis=1))


@pytest.fixture(scope="module")
def data():
    members, queries = tiny.random_units(400, 12, seed=1, groups=4), tiny.random_units(60, 12, seed=2, groups=4)
    codes = np.random.default_rng(3).integers(0, 3, 400)
    order, distance = nearest(members, queries, K)
    return members, queries, codes, order, distance


def oracle_weight(name: str):
    return {
        "uniform": "uniform",
        "inverse": "distance",
        "exp": lambda d: np.exp(-d / 0.3),
        "gaussian": lambda d: np.exp(-(d**2) / (2 * 0.3**2)),
        "rank": lambda d: 1 / (np.argsort(np.argsort(d, axis=1), axis=1) + 1),
    }[name]


@pytest.mark.parametrize("weight", votes.WEIGHTS)
def test_shares_of_votes_are_those_of_scikit_learn(data, weight):
    members, queries, codes, order, distance = data
    theirs = KNeighborsClassifier(K, weights=oracle_weight(weight), algorithm="brute").fit(members, codes)
    cast = votes.class_votes(votes.weights(distance, weight=weight, tau=0.3), codes[order], 3)
    assert votes.shares(cast) == pytest.approx(theirs.predict_proba(queries), abs=1e-5)


@pytest.mark.parametrize("weight", votes.WEIGHTS)
def test_means_of_votes_are_those_of_scikit_learn(data, weight):
    members, queries, _, order, distance = data
    values = np.random.default_rng(4).normal(size=len(members))
    theirs = KNeighborsRegressor(K, weights=oracle_weight(weight), algorithm="brute").fit(members, values)
    mean, _ = votes.mean_and_spread(votes.weights(distance, weight=weight, tau=0.3), values[order])
    assert mean == pytest.approx(theirs.predict(queries), abs=1e-5)


def test_spread_with_equal_weights_is_the_sample_standard_deviation():
    values = np.random.default_rng(0).normal(size=(20, 6))
    mean, spread = votes.mean_and_spread(np.ones((20, 6)), values)
    assert mean == pytest.approx(values.mean(axis=1))
    assert spread == pytest.approx(values.std(axis=1, ddof=1))


def test_one_vote_has_no_spread():
    mean, spread = votes.mean_and_spread(np.array([[2.0]]), np.array([[5.0]]))
    assert mean.tolist() == [5.0] and np.isnan(spread).all()


def test_distances_are_those_between_unit_vectors():
    vectors = tiny.random_units(50, 9, seed=5).astype(np.float64)
    expected = np.linalg.norm(vectors[:25] - vectors[25:], axis=1)
    assert votes.distances((vectors[:25] * vectors[25:]).sum(axis=1)) == pytest.approx(expected, abs=1e-6)
    assert votes.distances(np.array([1 + 1e-7])).tolist() == [0.0]


def test_a_copy_alone_counts_by_inverse_distance():
    assert votes.weights(np.array([[0.0, 0.0, 0.5]]), weight="inverse").tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize("weight", ["exp", "gaussian"])
def test_weights_that_underflow_keep_their_ratios(weight):
    near, far = votes.weights(np.array([[1.0, 1.001], [1.9, 1.901]]), weight=weight, tau=1e-3)
    exponent = 1.0 if weight == "exp" else 1000.5
    assert near[1] / near[0] == pytest.approx(np.exp(-exponent), abs=1e-12)
    assert far[0] == 1.0


def test_a_missing_neighbor_has_no_vote():
    for weight in votes.WEIGHTS:
        assert votes.weights(np.array([[0.1, np.nan]]), weight=weight)[0, 1] == 0


def test_no_votes_are_no_shares():
    assert np.isnan(votes.shares(np.zeros((1, 2)))).all()


@pytest.mark.parametrize(
    ("weight", "tau"),
    [("cosine", 1.0), ("exp", 0.0), ("exp", np.nan), ("exp", "1"), ("gaussian", 1e200), ("exp", 1e-320)],
)
def test_a_weight_that_there_is_not_is_refused(weight, tau):
    with pytest.raises(QueryError, match=r"weight is|tau is"):
        votes.weights(np.ones((1, 1)), weight=weight, tau=tau)


def test_priors_are_corrected_as_bayes_says():
    likelihood = np.array([[0.2, 0.7]])  # of what was seen, for each class
    base, field = np.array([0.3, 0.7]), np.array([0.01, 0.99])
    posterior = votes.shares(likelihood * base)
    assert votes.at_prevalence(posterior, base, field) == pytest.approx(votes.shares(likelihood * field))
    assert votes.at_prevalence(posterior, base, base) == pytest.approx(posterior)


def planted(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return votes of 5 and true classes, of which a quarter has nothing to do with the votes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    voted = np.where(rng.random((n, 5)) < 0.8, truth[:, None], rng.integers(0, 3, (n, 5)))
    cast = np.stack([(voted == code).sum(axis=1) for code in range(3)], axis=1).astype(float)
    truth = np.where(rng.random(n) < 0.25, rng.integers(0, 3, n), truth)
    return cast, truth


def test_calibration_has_the_least_log_loss_of_a_grid():
    cast, truth = planted(1_500, seed=0)
    priors = np.full(3, 1 / 3)
    fit = votes.fit_calibration(cast, truth, priors)
    goal = np.full((1_500, 3), 1 / 1_502 / 3)  # one object in n + 2 may be of any class
    goal[np.arange(1_500), truth] += 1 - 1 / 1_502

    def loss(one: Calibration) -> float:
        return float(-(goal * np.log(one.probabilities(cast, priors))).sum(axis=1).mean())

    grid = [
        loss(Calibration(pseudo, power))
        for pseudo in np.geomspace(votes.LEAST_PSEUDO, votes.MOST_PSEUDO, 25)
        for power in np.geomspace(votes.LEAST_POWER, votes.MOST_POWER, 25)
    ]
    assert loss(fit) <= min(grid) + 1e-7


def test_votes_that_were_always_right_are_not_certain():
    truth = np.arange(100) % 2
    cast = np.eye(2)[truth] * 3
    fit = votes.fit_calibration(cast, truth, np.array([0.5, 0.5]))
    assert fit.probabilities(cast, np.array([0.5, 0.5])).max() == pytest.approx(1 - 0.5 / 102, abs=1e-4)


def test_calibrated_probabilities_are_frequencies_of_other_objects():
    priors = np.full(3, 1 / 3)
    fit = votes.fit_calibration(*planted(1_500, seed=0), priors)
    cast, truth = planted(20_000, seed=1)
    top = fit.probabilities(cast, priors).max(axis=1)
    right = fit.probabilities(cast, priors).argmax(axis=1) == truth
    sure = top > 0.75
    assert right[sure].mean() == pytest.approx(top[sure].mean(), abs=0.03)  # as shares they claim 0.91
    assert votes.shares(cast).max(axis=1)[sure].mean() > right[sure].mean() + 0.05


def test_calibration_without_doubt_leaves_shares_as_they_are():
    cast = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert Calibration(0.0, 1.0).probabilities(cast, np.array([0.5, 0.5])) == pytest.approx(votes.shares(cast))


def test_errors_of_votes_hold_two_thirds_of_other_values():
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = rng.choice([0.2, 2.0], n)
        values = rng.normal(size=(n, 6)) * width[:, None]
        return *votes.mean_and_spread(np.ones((n, 6)), values), rng.normal(size=n) * width

    fit = votes.fit_spread(*drawn(2_000))
    mean, spread, truth = drawn(20_000)
    assert (np.abs(truth - mean) <= fit.uncertainty(spread)).mean() == pytest.approx(votes.ONE_SIGMA, abs=0.03)


def test_errors_are_finite_where_votes_have_no_spread():
    fit = votes.fit_spread(np.zeros(3), np.full(3, np.nan), np.array([1.0, 2.0, 3.0]))
    assert np.isfinite(fit.uncertainty(np.array([np.nan]))).all()


def test_winners_are_likely_enough_and_alone():
    probabilities = np.array([[0.6, 0.4], [0.5, 0.5], [0.45, 0.55]])
    assert votes.winners(probabilities, least=0.5).tolist() == [0, -1, 1]
    assert votes.winners(probabilities, least=0.58).tolist() == [0, -1, -1]


@pytest.mark.parametrize(("targets", "others", "share"), [(100, 900, 0.3), (500, 500, 0.01), (30, 70, 0.3)])
def test_a_draw_has_the_stated_share_and_is_the_largest(targets, others, share):
    is_target = np.arange(targets + others) % (targets + others) < targets
    kept = votes.drawn_to_share(is_target, share, seed=0)
    count = is_target[kept].sum()
    assert count / len(kept) == pytest.approx(share, abs=0.5 / len(kept) + 1e-9)
    assert count == targets or len(kept) - count == others
    assert kept.tolist() == sorted(set(kept.tolist())) == votes.drawn_to_share(is_target, share, seed=0).tolist()
    if count < targets:
        assert kept.tolist() != votes.drawn_to_share(is_target, share, seed=1).tolist()


@pytest.mark.parametrize("share", [0, 1, -0.1, np.nan, np.inf, "0.3", True])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(QueryError, match=r"share is .*, expected a number between 0 and 1"):
        votes.drawn_to_share(np.array([True, False]), share, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "1", None, True])
def test_a_seed_is_a_whole_number_that_a_column_holds(seed):
    with pytest.raises(QueryError, match=r"seed is .*, expected a whole number from 0"):
        votes.drawn_to_share(np.array([True, False]), 0.5, seed=seed)


def test_a_share_that_leaves_no_object_is_refused():
    with pytest.raises(QueryError, match="empty side"):
        votes.drawn_to_share(np.array([True, False, False]), 0.999, seed=0)
