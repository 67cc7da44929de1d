"""Probes of knowledge bases: what never trains, promotion by what it gains, rollback, errors that write nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
from test_knowledge import LABELS, NUMBERS, QUERY, SHAPE, SMALL, label_of
from typer.testing import CliRunner

import galsearch
from galsearch.cli.program import app
from galsearch.errors import FormatError, GalsearchError, ModelMismatchError, QueryError
from galsearch.knowledge import probes
from galsearch.knowledge.members import find_base
from galsearch.science.metrics import digests
from galsearch.store import Rows, open_store, put_rows

EVERY = f"SELECT object_id, {SHAPE} AS shape FROM galaxies"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(tiny_folder, tmp_path / "probe.atlas"))
    galsearch.create_base(path, "shapes", EVERY)
    return path


def used(path: Path) -> list[int]:
    with galsearch.open(path) as atlas:
        return [one.probe for one in atlas.probes("shapes") if one.promoted]


def test_a_fifth_of_the_members_judges_and_never_trains(folder):
    store = open_store(folder)
    members = probes.read_members(store, find_base(store, "shapes", version=None))
    training, test = probes.frozen_parts(store, find_base(store, "shapes", version=None), members)
    ids = np.array(store.ids(members.rows))
    store.close()
    assert not set(training) & set(test) and len(training) + len(test) == 300
    assert (digests(ids[test].tolist(), 0) % 5 == 0).all()
    smaller = {name for name in ids[test] if name < tiny.object_id(200)}
    galsearch.create_base(folder, "shapes", EVERY + f" WHERE object_id < '{tiny.object_id(200)}'")
    store = open_store(folder)
    base = find_base(store, "shapes", version=2)
    few = probes.read_members(store, base)
    again = set(np.array(store.ids(few.rows))[probes.frozen_parts(store, base, few)[1]])
    store.close()
    assert again == smaller


def test_what_is_kept_of_a_probe_is_what_its_confusion_says(folder):
    made = galsearch.train_probe(folder, "shapes")
    counts = np.array(made.confusion)
    assert made.classes == tuple(sorted(LABELS))
    assert counts.sum() == made.tested and made.tested + made.trained == 300
    assert made.accuracy == pytest.approx(np.trace(counts) / counts.sum())
    assert made.accuracy_low <= made.accuracy <= made.accuracy_high
    assert made.against == "votes"
    with galsearch.open(folder) as atlas:
        (kept,) = atlas.probes("shapes")
        assert kept.to_row() == made.to_row()
        vectors = np.array([atlas.embed(atlas[name]) for name in (QUERY, tiny.object_id(3))])
        logits = vectors.astype(float) @ made.weights + made.intercept
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert made.probability(vectors) == pytest.approx(expected)


@pytest.mark.slow
def test_no_gain_is_no_promotion_and_a_gain_over_what_is_in_use_is_one(folder, monkeypatch):
    first = galsearch.train_probe(folder, "shapes")  # votes are right for all but a few of these clusters
    assert (first.promoted is None) == (first.gain_low <= 0)
    galsearch.promote_probe(folder, "shapes", 1)
    again = galsearch.train_probe(folder, "shapes")
    assert (again.against, again.gain, again.promoted) == ("probe 1", 0.0, None)
    assert used(folder) == [1]
    _spoil(folder, first)  # what is in use is wrong about everything: the next is promoted
    better = galsearch.train_probe(folder, "shapes")
    assert better.gain_low > 0.3 and better.probe == 3
    assert used(folder) == [1, 3]
    with galsearch.open(folder) as atlas:
        assert atlas.classify(QUERY, "shapes", method="probe").method == "probe 3"


def _spoil(folder: Path, probe: galsearch.TrainedProbe) -> None:
    """Turn the probe that is in use into one that gives another class."""
    row = {**probe.to_row(), "promoted": 1, "classes": [*probe.classes[1:], probe.classes[0]]}
    table = pa.Table.from_pylist([row], schema=probes.probes_table([probe]).schema)
    put_rows(folder, {"probes": Rows(table, ("base", "probe"))}, {"action": "test"})


@pytest.mark.slow
def test_a_probe_classifies_and_names_what_it_is_like(folder, tmp_path):
    galsearch.train_probe(folder, "shapes")
    galsearch.promote_probe(folder, "shapes", 1)
    galsearch.bundle(folder, tmp_path / "probe.duckdb")
    for path in (folder, tmp_path / "probe.duckdb"):
        with galsearch.open(path, device="cpu") as atlas:
            one = atlas.classify(QUERY, "shapes", method="probe", k=5)
            assert one.label == label_of(QUERY) and one.calibrated and one.method == "probe 1"
            assert sum(one.probabilities.values()) == pytest.approx(1)
            vector = np.asarray(atlas.embed(atlas[QUERY]))
            (made,) = atlas.probes("shapes")
            expected = dict(zip(made.classes, made.probability(vector[None])[0], strict=True))
            assert one.probabilities == pytest.approx(expected)
            assert [voter.object_id for voter in one] == [v.object_id for v in atlas.classify(QUERY, "shapes", k=5)]
            several = atlas.classify([QUERY, tiny.object_id(3)], "shapes", method="probe").to_arrow()
            assert several["label"].to_pylist() == [label_of(QUERY), label_of(tiny.object_id(3))]
            assert atlas.classify(QUERY, "shapes").method == "votes"


@pytest.mark.slow
def test_rollback_brings_the_earlier_back_and_votes(folder):
    for _ in range(2):
        galsearch.train_probe(folder, "shapes")
    for number in (2, 1):
        galsearch.promote_probe(folder, "shapes", number)
        with galsearch.open(folder) as atlas:
            assert atlas.classify(QUERY, "shapes", method="probe").method == f"probe {number}"
    galsearch.promote_probe(folder, "shapes", None)
    with galsearch.open(folder) as atlas, pytest.raises(QueryError, match=r"no probe .* is in use.*kb train"):
        atlas.classify(QUERY, "shapes", method="probe")


def test_a_probe_of_other_vectors_is_refused(folder):
    made = galsearch.train_probe(folder, "shapes")
    row = {**made.to_row(), "promoted": 1, "model_sha256": "0" * 64}
    table = pa.Table.from_pylist([row], schema=probes.probes_table([made]).schema)
    put_rows(folder, {"probes": Rows(table, ("base", "probe"))}, {"action": "test"})
    with galsearch.open(folder) as atlas, pytest.raises(ModelMismatchError, match=r"probe 1 .*000000000000.*kb train"):
        atlas.classify(QUERY, "shapes", method="probe")


@pytest.mark.parametrize(
    "lie",
    [
        {"weights": [1.0]},
        {"weights": []},
        {"intercept": [float("nan")] * 4},
        {"classes": ["a", None, "b", "c"]},
        {"classes": []},
        {"confusion": [1, 2]},
        {"accuracy": None},
    ],
)
@pytest.mark.slow
def test_a_row_that_is_no_probe_is_a_format_error(folder, lie):
    made = galsearch.train_probe(folder, "shapes")
    table = pa.Table.from_pylist([{**made.to_row(), **lie}], schema=probes.probes_table([made]).schema)
    put_rows(folder, {"probes": Rows(table, ("base", "probe"))}, {"action": "test"})
    with galsearch.open(folder) as atlas, pytest.raises(FormatError, match="train it again"):
        atlas.probes("shapes")


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (SMALL, r"a fifth of the .* at least 30 are needed"),
        (NUMBERS, "has numbers as labels"),
        (EVERY.replace("AS shape", "|| CASE object_id WHEN 'ONE' THEN '!' ELSE '' END AS shape"), "1 members"),
    ],
)
@pytest.mark.slow
def test_a_base_that_cannot_train_is_one_error_and_nothing_is_written(folder, select, message):
    galsearch.create_base(folder, "other", select.replace("ONE", _trains()))
    with pytest.raises(QueryError, match=message):
        galsearch.train_probe(folder, "other")
    with galsearch.open(folder) as atlas:
        assert atlas.probes("other") == []


def test_a_probe_of_a_wrong_length_is_called_that(folder):
    made = galsearch.train_probe(folder, "shapes")
    row = {**made.to_row(), "promoted": 1, "weights": made.to_row()["weights"][:-4]}
    table = pa.Table.from_pylist([row], schema=probes.probes_table([made]).schema)
    put_rows(folder, {"probes": Rows(table, ("base", "probe"))}, {"action": "test"})
    dim = len(made.weights)
    with (
        galsearch.open(folder) as atlas,
        pytest.raises(FormatError, match=f"vectors of {dim - 1} numbers, .*have {dim}"),
    ):
        atlas.classify(QUERY, "shapes", method="probe")
    with pytest.raises(FormatError, match=f"vectors of {dim - 1} numbers"):
        galsearch.promote_probe(folder, "shapes", 1)


@pytest.mark.slow
def test_a_probe_with_a_class_that_the_last_version_lacks_is_not_promoted(folder):
    galsearch.train_probe(folder, "shapes")
    galsearch.create_base(folder, "shapes", f"SELECT * FROM ({EVERY}) WHERE shape <> 'ring'")
    with pytest.raises(QueryError, match="knows the class 'ring', which version 2 of the base does not have"):
        galsearch.promote_probe(folder, "shapes", 1)
    assert used(folder) == [] or used(folder) == [1]  # as training left it
    galsearch.promote_probe(folder, "shapes", None)
    assert used(folder) == []


@pytest.mark.slow
def test_an_unknown_base_has_no_probes_to_train_and_one_made_again_has_none_in_use(folder):
    galsearch.train_probe(folder, "shapes")
    galsearch.promote_probe(folder, "shapes", 1)
    for call in (lambda atlas: atlas.probes("shape"), lambda atlas: galsearch.promote_probe(folder, "shape", None)):
        with (
            galsearch.open(folder) as atlas,
            pytest.raises(QueryError, match="no knowledge base 'shape', it has: shapes"),
        ):
            call(atlas)
    galsearch.drop_base(folder, "shapes", version=1)
    galsearch.create_base(folder, "shapes", EVERY)
    assert used(folder) == []


def _trains() -> str:
    """Return the id of an object that is in no frozen test."""
    return next(name for name in map(tiny.object_id, range(300)) if digests([name], 0)[0] % 5)


def test_bundles_unknown_bases_probes_and_methods_are_refused(folder, tiny_bundle):
    with pytest.raises(GalsearchError, match="in the folder"):
        galsearch.train_probe(tiny_bundle, "shapes")
    with pytest.raises(QueryError, match="no knowledge base 'shape'"):
        galsearch.train_probe(folder, "shape")
    with pytest.raises(QueryError, match="has no probe 3, it has none; train"):
        galsearch.promote_probe(folder, "shapes", 3)
    with galsearch.open(folder) as atlas, pytest.raises(QueryError, match=r"method is 'probes'.*votes, probe"):
        atlas.classify(QUERY, "shapes", method="probes")


def test_a_part_of_an_atlas_has_no_probe(folder, tmp_path):
    galsearch.train_probe(folder, "shapes")
    with galsearch.open(folder) as atlas:
        atlas.search(k=50).bundle(tmp_path / "part.duckdb")
    with galsearch.open(tmp_path / "part.duckdb") as part:
        assert part.bases().num_rows == 0
        with pytest.raises(galsearch.QueryError, match="no knowledge base 'shapes'"):
            part.probes("shapes")


@pytest.mark.slow
def test_train_list_promote_and_classify_from_the_command_line(folder):
    run = CliRunner().invoke
    trained = run(app, ["kb", "train", str(folder), "shapes"])
    assert trained.exit_code == 0 and "given edge" in trained.stdout and "against votes" in trained.stderr
    promoted = run(app, ["kb", "promote", str(folder), "shapes", "--probe", "1"])
    assert promoted.exit_code == 0 and promoted.stderr == "in use for shapes: probe 1\n"
    listed = json.loads(run(app, ["kb", "probes", str(folder), "shapes", "--format", "json"]).stdout)["rows"]
    assert [(one["probe"], one["in_use"], one["against"]) for one in listed] == [(1, True, "votes")]
    found = run(app, ["classify", str(folder), "shapes", QUERY, "--method", "probe", "--format", "json"])
    assert json.loads(found.stdout)["rows"][0]["label"] == label_of(QUERY)
    assert run(app, ["kb", "promote", str(folder), "shapes"]).stderr == "in use for shapes: votes\n"
    refused = run(app, ["classify", str(folder), "shapes", QUERY, "--method", "probe"])
    assert refused.exit_code == 1 and "kb train" in str(refused.exception)
