"""The report of classifiers: the same frozen test for all, figures as scikit-learn has them, words beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sklearn
from test_knowledge import NUMBERS, SHAPE

import galsearch
from galsearch.errors import QueryError
from galsearch.evaluation.classes import calibration_error, judged

EVERY = f"SELECT object_id, {SHAPE} AS shape FROM galaxies"


@pytest.fixture(scope="module")
def path(tiny_folder, tmp_path_factory):
    path = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("classes") / "c.atlas"))
    galsearch.create_base(path, "shapes", EVERY)
    galsearch.create_base(path, "numbers", NUMBERS)
    return path


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 500)
    probabilities = rng.dirichlet([0.4] * 4, 500)
    probabilities[np.arange(500), truth] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    given, classes = probabilities.argmax(axis=1), ("a", "b", "c", "d")
    found = judged("x", probabilities, truth, classes, seed=0)
    assert found.confusion == tuple(map(tuple, sklearn.confusion_matrix(truth, given).tolist()))
    assert found.figures["accuracy"] == pytest.approx(sklearn.accuracy_score(truth, given))
    assert found.figures["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(truth, given))
    assert found.figures["macro_f1"] == pytest.approx(sklearn.f1_score(truth, given, average="macro"))
    assert found.figures["log_loss"] == pytest.approx(sklearn.log_loss(truth, probabilities))
    assert found.figures["accuracy_low"] < found.figures["accuracy"] < found.figures["accuracy_high"]
    precision, recall, f1, members = sklearn.precision_recall_fscore_support(truth, given)
    rows = zip(*([row[key] for row in found.classes] for key in ("precision", "recall", "f1", "members")), strict=True)
    assert np.allclose(list(rows), np.stack([precision, recall, f1, members], axis=1))


def test_calibrated_claims_have_a_small_error_and_overconfident_ones_theirs():
    rng = np.random.default_rng(5)
    claimed = rng.uniform(0, 1, 20_000)
    assert calibration_error(claimed, (rng.random(20_000) < claimed).astype(float)) < 0.02
    assert calibration_error(np.full(100, 0.95), np.r_[np.ones(60), np.zeros(40)]) == pytest.approx(0.35)
    assert calibration_error(np.array([]), np.array([])) is None


@pytest.mark.slow
def test_all_classifiers_are_judged_on_members_that_none_has_seen(path, tmp_path):
    labels = tmp_path / "labels.yaml"
    labels.write_text("edge: [red edge]\nring: [blue ring]\nround: [white round]\nface: [green face]\n")
    report = galsearch.classification_report(path, "shapes", labels=labels, device="cpu")
    probe = galsearch.train_probe(path, "shapes")
    rows = {row["system"]: row for row in report.table().to_pylist()}
    assert list(rows) == ["votes", "probe", "words"] and report.trained == probe.trained
    assert {row["tested"] for row in rows.values()} == {probe.tested}
    assert rows["probe"]["accuracy"] == pytest.approx(probe.accuracy)
    assert rows["probe"]["log_loss"] == pytest.approx(probe.log_loss)
    assert next(one.confusion for one in report.systems if one.system == "probe") == probe.confusion
    assert rows["votes"]["accuracy"] - rows["probe"]["accuracy"] == pytest.approx(-probe.gain)
    assert rows["words"]["accuracy"] > 0.5 and rows["words"]["log_loss"] is None
    matrix = report.confusion("words")
    assert matrix["true"].to_pylist() == list(report.classes)
    assert sum(sum(matrix[name].to_pylist()) for name in matrix.column_names[1:]) == probe.tested
    assert json.loads(report.to_json())["systems"][2]["figures"]["answered"] == rows["words"]["answered"]
    assert len(report.by_class()) == 3 * len(report.classes)


def test_what_cannot_be_judged_is_one_clear_error(path, tmp_path):
    labels = tmp_path / "labels.yaml"
    labels.write_text("disk: [red edge]\nring: [blue ring]\n")
    with pytest.raises(QueryError, match="'disk' is no class"):
        galsearch.classification_report(path, "shapes", labels=labels, device="cpu")
    with pytest.raises(QueryError, match="numbers as labels"):
        galsearch.classification_report(path, "numbers")
    with pytest.raises(QueryError, match="neither a knowledge base"):
        galsearch.classification_report(path, "nothing")


@pytest.mark.slow
def test_the_command_prints_figures_classes_and_confusion(run, path):
    code, out, error = run("kb", "report", path, "shapes", "-k", 5)
    assert code == 0 and "balanced_accuracy" in out and "given edge" in out and "confusion of votes" in error
    code, out, _ = run("kb", "report", path, "shapes", "--format", "csv")
    assert code == 0 and len(out.strip().splitlines()) == 3
    code, out, _ = run("kb", "report", path, "shapes", "--format", "json")
    assert code == 0 and json.loads(out)["base"] == "shapes"
