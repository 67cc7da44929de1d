"""Novelty: detectors against scikit-learn, brute force and analytic Gaussians; p-values and false discovery rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest as TheirForest

from galsearch.errors import QueryError
from galsearch.science import novelty
from galsearch.science.metrics import auroc
from galsearch.science.probe import Probe

D = 12


def gaussian(rows: int, *, seed: int, dim: int = D) -> np.ndarray:
    """Return correlated Gaussian rows, whose covariance is `mixing(dim)` squared."""
    return np.random.default_rng(seed).normal(size=(rows, dim)) @ mixing(dim) + 0.5


def mixing(dim: int = D) -> np.ndarray:
    return np.random.default_rng(99).normal(size=(dim, dim)) * np.linspace(0.2, 2, dim)


def classes(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of three separated classes and their labels."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, rows)
    centers = 4 * np.eye(D)[:3]
    return centers[codes] + rng.normal(size=(rows, D)), np.array(["a", "b", "c"])[codes]


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return gaussian(300, seed=1)


@pytest.fixture(scope="module")
def others() -> np.ndarray:
    return np.concatenate([gaussian(40, seed=2), gaussian(10, seed=3) * 3])


# ---- detectors


@pytest.mark.parametrize("k", [1, 10, 300])
def test_knn_distance_is_that_of_brute_force(reference, others, k):
    distance = np.linalg.norm(others[:, None] - reference, axis=2)
    assert novelty.NeighborDistance(k).fit(reference).score(others) == pytest.approx(
        np.sort(distance, axis=1)[:, k - 1]
    )
    rows, near = novelty.NeighborDistance(k).fit(reference).nearest(others, k=k)
    assert near == pytest.approx(np.take_along_axis(distance, rows, axis=1))
    assert (np.diff(near, axis=1) >= 0).all()


def test_a_copy_of_a_reference_vector_lies_at_0(reference):
    assert novelty.NeighborDistance(1).fit(reference).score(reference[:5]) == pytest.approx(np.zeros(5), abs=1e-6)


@pytest.mark.parametrize(("rows", "dim"), [(300, D), (20, 50), (2, 5)])
def test_the_covariance_is_shrunk_as_by_scikit_learn(rows, dim):
    data = gaussian(rows, seed=4, dim=dim)
    covariance, shrinkage = novelty.shrunk_covariance(data - data.mean(axis=0))
    theirs = LedoitWolf().fit(data)
    assert covariance == pytest.approx(theirs.covariance_)
    assert shrinkage == pytest.approx(theirs.shrinkage_)


def test_mahalanobis_distance_is_that_of_scikit_learn(reference, others):
    ours = novelty.Mahalanobis().fit(reference).score(others)
    assert ours**2 == pytest.approx(LedoitWolf().fit(reference).mahalanobis(others))


def test_squared_mahalanobis_distance_of_a_gaussian_is_chi_squared():
    rng, scales = np.random.default_rng(5), np.linspace(1, 3, D)  # round enough that shrinking it changes little
    fitted = novelty.Mahalanobis().fit(rng.normal(size=(20_000, D)) * scales)
    score = fitted.score(rng.normal(size=(4_000, D)) * scales) ** 2
    beyond = np.mean(score > stats.chi2(D).ppf(0.95))
    assert beyond == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 4_000))


def test_distance_to_classes_is_the_least_of_them(others):
    data, labels = classes(400, seed=7)
    means = np.stack([data[labels == name].mean(axis=0) for name in "abc"])
    within = LedoitWolf(assume_centered=True).fit(data - means["abc".index("a") + np.searchsorted(list("abc"), labels)])
    gap = others[:, None] - means
    squares = np.einsum("mcd,de,mce->mc", gap, np.linalg.inv(within.covariance_), gap)
    assert novelty.Mahalanobis("classes").fit(data, labels).score(others) ** 2 == pytest.approx(squares.min(axis=1))
    overall = LedoitWolf().fit(data).mahalanobis(others)
    relative = novelty.Mahalanobis("relative").fit(data, labels).score(others)
    assert relative == pytest.approx(squares.min(axis=1) - overall)


def test_reconstruction_error_is_that_of_scikit_learn(reference, others):
    ours = novelty.Reconstruction(0.8).fit(reference)
    theirs = PCA(0.8, svd_solver="full").fit(reference)
    expected = np.linalg.norm(others - theirs.inverse_transform(theirs.transform(others)), axis=1)
    assert ours.score(others) == pytest.approx(expected)
    assert len(ours.components) == theirs.n_components_


def test_an_isolation_forest_orders_as_that_of_scikit_learn(reference, others):
    ours = novelty.IsolationForest(trees=200, seed=1).fit(reference).score(others)
    theirs = -TheirForest(n_estimators=200, max_samples=256, random_state=1).fit(reference).score_samples(others)
    assert stats.spearmanr(ours, theirs).statistic > 0.95
    assert ours == pytest.approx(theirs, abs=0.05)


def test_a_forest_of_rows_that_are_all_the_same_finds_nothing_odd():
    fitted = novelty.IsolationForest(trees=10).fit(np.ones((20, 3)))
    assert len(np.unique(fitted.score(np.array([[1.0, 1, 1], [9, 9, 9]])))) == 1


def test_softmax_and_energy_are_those_of_the_probe():
    data, labels = classes(300, seed=8)
    new, _ = classes(50, seed=9)
    probe = Probe.fit(data, labels)
    assert novelty.Softmax(probe).score(new) == pytest.approx(1 - probe.probabilities(new).max(axis=1), abs=1e-9)
    energy = -np.log(np.exp(probe.logits(new)).sum(axis=1))
    assert novelty.Energy(probe).score(new) == pytest.approx(energy)


def test_every_detector_ranks_outliers_above_normals():
    data, labels = classes(600, seed=10)
    normals, _ = classes(200, seed=11)
    rng = np.random.default_rng(12)
    middle = np.where(np.arange(D) < 3, 4 / 3, 0)  # between the classes, and off where all of them lie
    odd = middle + 8 * np.eye(D)[5] + rng.normal(size=(50, D)) * np.where(np.arange(D) < 3, 0.5, 3)
    truth = np.repeat([0, 1], [200, 50])
    for name in novelty.NAMES:
        fitted = novelty.detector(name).fit(data, labels)
        of_classes = name in ("softmax", "mahalanobis_relative", "energy")  # which look at what divides classes alone
        assert auroc(fitted.score(np.concatenate([normals, odd])), truth) > (0.8 if of_classes else 0.9), name


@pytest.mark.parametrize("name", novelty.NAMES)
def test_scores_do_not_depend_on_what_else_is_scored(name, monkeypatch):
    data, labels = classes(100, seed=13)
    new, _ = classes(30, seed=14)
    whole = novelty.detector(name).fit(data, labels).score(new)
    monkeypatch.setattr(novelty, "BLOCK_NUMBERS", 1)
    alone = novelty.detector(name).fit(data.astype(np.float32).astype(np.float64), labels).score(new)
    assert alone == pytest.approx(whole, rel=1e-4)
    assert novelty.detector(name).fit(data, labels).score(new[::-1])[::-1] == pytest.approx(whole)


@pytest.mark.parametrize("name", [*novelty.OF_VECTORS, *novelty.OF_CLASSES])
def test_a_vector_with_nan_has_no_score(name):
    data, labels = classes(100, seed=15)
    new, _ = classes(3, seed=16)
    new[1, 2] = np.nan
    assert np.isnan(novelty.detector(name).fit(data, labels).score(new)).tolist() == [False, True, False]


def test_missing_columns_count_as_ordinary_and_rows_without_any_have_no_score():
    table = gaussian(500, seed=17, dim=4)
    table[::7, 1] = np.nan
    fitted = novelty.MeasureDistance().fit(table)
    ordinary, odd = np.median(table[1:7], axis=0), np.nanmax(table, axis=0) + 5
    score = fitted.score(np.stack([ordinary, odd, np.full(4, np.nan), [np.nan, *ordinary[1:]]]))
    assert score[1] > score[0] and np.isnan(score[2]) and np.isfinite(score[3])


@pytest.mark.parametrize(
    ("name", "reference", "labels", "message"),
    [
        ("knn", np.ones((3, 2)), None, "k is 10, and there are 3 reference vectors; choose a smaller k"),
        ("mahalanobis", np.full((30, 2), np.nan), None, "30 of 30 reference vectors have NaN"),
        ("mahalanobis", np.ones((30, 2)), None, "all reference vectors are the same"),
        ("reconstruction", np.ones((30, 2)), None, "all reference vectors are the same"),
        ("isolation_forest", np.ones((1, 2)), None, "1 reference vectors are too few"),
        ("knn", np.ones(30), None, "expected rows of numbers"),
        ("softmax", np.eye(30), None, "no labels were given"),
        ("energy", np.eye(30), ["a"] * 30, "every reference label is 'a'"),
        ("mahalanobis_classes", np.eye(30), ["a", "b"], "2 labels for 30"),
        ("columns", np.full((30, 2), np.nan), None, "no measured column varies"),
        ("lof", np.eye(30), None, "there is no detector 'lof', there are knn"),
    ],
)
def test_a_reference_that_says_nothing_is_refused(name, reference, labels, message):
    with pytest.raises(QueryError, match=message):
        novelty.detector(name).fit(np.asarray(reference), None if labels is None else np.array(labels))


@pytest.mark.parametrize("name", novelty.NAMES)
def test_a_detector_that_was_not_fitted_scores_nothing(name):
    """It does not say 0, which would look ordinary."""
    with pytest.raises(QueryError, match="was not fitted"):
        novelty.detector(name).score(np.eye(3))


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_k_must_be_a_whole_number(k):
    with pytest.raises(QueryError, match="k is"):
        novelty.NeighborDistance(k).fit(np.eye(30))


# ---- p-values


def test_a_p_value_is_the_rank_among_normals_and_ties_make_it_larger():
    held = np.array([1.0, 2, 2, 3])
    assert novelty.p_values(held, np.array([0, 2, 2.5, 3, 9, np.nan])) == pytest.approx(
        [1, 4 / 5, 2 / 5, 2 / 5, 1 / 5, np.nan], nan_ok=True
    )


def test_p_values_of_new_normals_are_uniform():
    rng = np.random.default_rng(0)
    p = np.concatenate([novelty.p_values(rng.normal(size=99), rng.normal(size=1)) for _ in range(4_000)])
    assert stats.kstest(p - rng.uniform(0, 0.01, len(p)), "uniform").pvalue > 0.01
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * np.sqrt(level / len(p)))


def test_p_values_of_tied_scores_are_never_too_small():
    rng = np.random.default_rng(1)
    p = np.concatenate([novelty.p_values(rng.integers(0, 3, 49), rng.integers(0, 3, 1)) for _ in range(2_000)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(p <= level) <= level + 3 * np.sqrt(level * (1 - level) / len(p))


def combined_p(rng: np.random.Generator, *, copies: int) -> float:
    """Return the p-value of a new normal by two detectors, the second one of which has copies of the first."""
    held, new = rng.normal(size=(60, 2)), rng.normal(size=(1, 2))
    scores = [np.concatenate([part] + [part[:, :1] ** 3] * copies, axis=1) for part in (held, new)]
    return float(novelty.Calibration.fit(scores[0], seed=int(rng.integers(1 << 30))).judge(scores[1]).p_value[0])


@pytest.mark.parametrize("copies", [0, 5])
def test_combined_p_values_are_uniform_however_detectors_depend_on_each_other(copies):
    rng = np.random.default_rng(2)
    p = np.array([combined_p(rng, copies=copies) for _ in range(300)])
    assert stats.kstest(p - rng.uniform(0, 1 / 41, len(p)), "uniform").pvalue > 0.01


def test_twice_the_mean_is_valid_under_the_worst_dependence():
    rng = np.random.default_rng(3)
    first = rng.uniform(size=100_000)
    for pair in (first, 1 - first, (first + 0.5) % 1, np.where(first < 0.1, 0.1 - first, first)):
        merged = novelty.twice_the_mean(np.stack([first, pair], axis=1))
        for level in (0.01, 0.05, 0.1):
            assert np.mean(merged <= level) <= level + 0.003


def test_surprise_is_minus_the_log_of_the_share_and_goes_on_beyond_the_largest_normal():
    rng = np.random.default_rng(4)
    scale = novelty.Scale.fit(rng.exponential(size=20_000))
    wanted = np.array([0.5, 1.0, 4.0, 8.0, 30.0])
    assert scale.nats(wanted) == pytest.approx(wanted, rel=0.06)  # of an exponential, -log P(X > x) = x
    many = scale.nats(np.linspace(-1, 40, 500))
    assert (np.diff(many) >= 0).all() and many[0] >= 0


def test_an_object_that_one_detector_cannot_score_is_judged_by_the_others():
    rng = np.random.default_rng(5)
    calibration = novelty.Calibration.fit(rng.normal(size=(300, 2)))
    result = calibration.judge(np.array([[9.0, np.nan], [np.nan, np.nan]]))
    assert result.p_value[0] < 0.01 and np.isnan(result.p_value[1]) and np.isnan(result.p_values[0, 1])
    assert result.score[0] == pytest.approx(result.surprise[0, 0])


def test_detectors_come_to_the_harmonic_mean_of_their_p_values():
    p = np.random.default_rng(8).uniform(size=(50, 3))
    assert novelty.combined(-np.log(p)) == pytest.approx(-np.log(stats.hmean(p, axis=1)))
    assert novelty.combined(np.array([[2_000.0, 0.0]])) == pytest.approx([2_000 - np.log(2)])


def test_too_few_normals_are_refused():
    with pytest.raises(QueryError, match="11 held-out normals are too few"):
        novelty.Calibration.fit(np.zeros((11, 2)))
    with pytest.raises(QueryError, match="none of the held-out normals has a score"):
        novelty.p_values(np.array([np.nan]), np.array([1.0]))
    with pytest.raises(QueryError, match="none of the held-out normals has a finite score"):
        novelty.Calibration.fit(np.full((30, 1), np.nan))


# ---- lists


@pytest.mark.parametrize("rule", ["bh", "by"])
@pytest.mark.parametrize("rows", [0, 1, 7, 500])
def test_q_values_are_those_of_scipy(rule, rows):
    p = np.round(np.random.default_rng(6).beta(0.3, 1, rows), 3)  # with ties
    expected = stats.false_discovery_control(p, method=rule) if rows else p
    assert novelty.q_values(p, rule=rule) == pytest.approx(expected)


def test_what_was_not_tested_has_no_q_value_and_no_tier():
    q = novelty.q_values(np.array([0.01, np.nan, 0.5]))
    assert q == pytest.approx([0.02, np.nan, 0.5], nan_ok=True)
    assert novelty.tiers(q, fdr=0.1).tolist() == ["candidate", None, "near-miss"]
    assert novelty.tiers(np.array([0.6]), fdr=0.7).tolist() == ["candidate"]
    assert novelty.tiers(np.array([0.51, 1.0]), fdr=0.1).tolist() == ["normal", "normal"]


@pytest.mark.parametrize(
    ("p", "rule", "message"), [([0.5], "storey", "rule is"), ([1.5], "bh", "probabilities"), ([-0.1], "bh", "prob")]
)
def test_what_is_no_p_value_has_no_q_value(p, rule, message):
    with pytest.raises(QueryError, match=message):
        novelty.q_values(np.array(p), rule=rule)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_the_false_discovery_rate_is_what_is_promised_on_planted_mixtures(share):
    """120 draws: normals share their calibration, so this is the case that PRDS is about."""
    rng, rates, hits = np.random.default_rng(7), [], []
    for draw in range(120):
        held = rng.normal(size=(1_500, 2))
        odd = rng.uniform(size=1_000) < share
        scores = rng.normal(size=(1_000, 2)) + 6.0 * odd[:, None]
        q = novelty.q_values(novelty.Calibration.fit(held, seed=draw).judge(scores).p_value)
        listed = q <= 0.1
        rates.append(np.mean(~odd[listed]) if listed.any() else 0.0)
        hits.append(listed[odd].mean() if odd.any() else 0.0)
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= 0.1 + 3 * error
    assert share < 0.05 or np.mean(hits) > 0.8  # and it is no empty promise


def test_folds_are_a_partition_that_the_seed_decides():
    parts = list(novelty.folds(23, parts=5, seed=1))
    assert sorted(np.concatenate([inside for inside, _ in parts]).tolist()) == list(range(23))
    assert all(
        len(np.intersect1d(inside, outside)) == 0 and len(inside) + len(outside) == 23 for inside, outside in parts
    )
    again = list(novelty.folds(23, parts=5, seed=1))
    assert all((a[0] == b[0]).all() for a, b in zip(parts, again, strict=True))
    assert any(
        (a[0] != b[0]).any()
        for a, b in zip(parts, novelty.folds(23, parts=5, seed=2), strict=True)
        if len(a[0]) == len(b[0])
    )
