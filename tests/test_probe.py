"""The linear probe beside scikit-learn, and its probabilities beside the truth they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from galsearch.errors import QueryError
from galsearch.science.probe import PENALTY, Probe

NAMES = np.array(["edge", "ring", "round"])


def drawn(rows: int, *, seed: int, strength: float = 1.0, dim: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors, labels drawn by probabilities that are linear in the vectors, and those probabilities."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)) + 3
    weights = np.random.default_rng(1).normal(size=(dim, 3)) * strength
    truth = softmax((vectors - 3) @ weights, axis=1)
    codes = (np.random.default_rng(seed + 1).random(rows)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    return vectors, NAMES[np.minimum(codes, 2)], truth


def test_the_probe_is_the_logistic_regression_of_scikit_learn():
    data, labels, _ = drawn(300, seed=8)
    new, _, _ = drawn(50, seed=9)
    center, scale = data.mean(axis=0), np.sqrt(((data - data.mean(axis=0)) ** 2).mean())
    theirs = LogisticRegression(C=1 / PENALTY, max_iter=2000, tol=1e-8).fit((data - center) / scale, labels)
    probe = Probe.fit(data, labels)
    assert probe.classes == tuple(theirs.classes_)
    assert probe.probabilities(new) == pytest.approx(theirs.predict_proba((new - center) / scale), abs=1e-3)


@pytest.mark.parametrize("rows", [80, 2000])
def test_probabilities_of_a_calibrated_probe_are_no_surer_than_they_are_right(rows):
    data, labels, _ = drawn(rows, seed=3, dim=40, strength=0.3)
    new, theirs, truth = drawn(4000, seed=5, dim=40, strength=0.3)
    probe = Probe.calibrated(data, labels, seed=0)
    probabilities = probe.probabilities(new)
    right = np.array(probe.classes)[probabilities.argmax(axis=1)] == theirs
    hasty = Probe.fit(data, labels, penalty=1e-3).probabilities(new)
    assert probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.06)
    assert np.abs(probabilities - truth).mean() < np.abs(hasty - truth).mean()
    if rows == 80:
        assert hasty.max(axis=1).mean() > right.mean() + 0.2


def test_a_probe_is_the_same_for_the_same_seed_and_has_nan_for_nan():
    data, labels, _ = drawn(90, seed=2)
    first, second = (Probe.calibrated(data, labels, seed=7) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)
    assert np.isnan(first.probabilities(np.full((1, 6), np.nan))).all()


def test_a_class_of_two_rows_can_be_left_out_and_one_of_a_single_row_is_refused():
    data, labels, _ = drawn(40, seed=2)
    labels = np.where(np.arange(40) < 2, "rare", labels)
    assert Probe.calibrated(data, labels, seed=0).classes == ("edge", "rare", "ring", "round")
    with pytest.raises(QueryError, match="'rare' has a single row"):
        Probe.calibrated(data[1:], labels[1:], seed=0)
