"""Learning from verdicts: planted objects are found, the queue says why, and only what is better becomes live."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize

import galsearch
from galsearch.discovery import learning
from galsearch.errors import ModelMismatchError, QueryError
from galsearch.science import interest

ROWS, DIM, WANTED = 1_500, 16, 60
KIND = "wanted"


def planted() -> pa.Table:
    """Return vectors of three classes, and a rare fourth that lies between two of them and its own axis."""
    rng = np.random.default_rng(7)
    vectors = 3 * np.eye(DIM)[rng.integers(0, 3, ROWS)] + rng.normal(scale=0.7, size=(ROWS, DIM))
    vectors[:WANTED] = 3 * np.eye(DIM)[1] + 2.5 * np.eye(DIM)[5] + rng.normal(scale=0.7, size=(WANTED, DIM))
    order = rng.permutation(ROWS)
    return pa.table(
        {
            "object_id": [f"g{number:04d}" for number in range(ROWS)],
            "wanted": (order < WANTED).tolist(),
            "mag_r": rng.uniform(14, 20, ROWS),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors[order].ravel(), pa.float32()), DIM),
        }
    )


@pytest.fixture(scope="module")
def home(made_once) -> Path:
    def fill(folder: Path) -> None:
        pq.write_table(planted(), folder / "p.parquet")
        galsearch.build(folder / "p.atlas", table=folder / "p.parquet", vectors="vec", model="planted")
        galsearch.bundle(folder / "p.atlas", folder / "p.duckdb")

    return made_once("learning", fill)


@pytest.fixture(scope="module", params=["p.atlas", "p.duckdb"])
def atlas(request: pytest.FixtureRequest, home: Path):
    with galsearch.open(home / request.param, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(home: Path):
    with galsearch.open(home / "p.atlas", device="cpu") as opened:
        yield opened


def truth(atlas: galsearch.Atlas) -> dict[str, bool]:
    table = atlas.sql("SELECT object_id, wanted FROM galaxies")
    return dict(zip(table["object_id"].to_pylist(), table["wanted"].to_pylist(), strict=True))


def begun(atlas: galsearch.Atlas, *, count: int = 3) -> galsearch.Verdicts:
    """Return verdicts on a few of each."""
    verdicts, wanted = galsearch.Verdicts(atlas=atlas), truth(atlas)
    for answer in (True, False):
        for name in [one for one in sorted(wanted) if wanted[one] is answer][:count]:
            verdicts.add(name, "yes" if answer else "no", kind=KIND, by="ann")
    return verdicts


def judged_by_queue(atlas: galsearch.Atlas, verdicts: galsearch.Verdicts, count: int) -> None:
    wanted = truth(atlas)
    while len(verdicts) < count:
        for name in atlas.review_queue(verdicts, kind=KIND, k=5)["object_id"].to_pylist():
            verdicts.add(name, "yes" if wanted[name] else "no", kind=KIND, by="ann")


# ---- the probe


def test_the_logistic_weights_are_those_of_scipy():
    rng = np.random.default_rng(0)
    rows, labels, weights = rng.normal(size=(60, 4)), rng.uniform(size=60), rng.uniform(0.1, 2, 60)
    prior, held = rng.normal(size=5), rng.uniform(0.1, 3, 5)

    def loss(at: np.ndarray) -> float:
        logits = rows @ at[:-1] + at[-1]
        return float(weights @ (np.logaddexp(0, logits) - labels * logits) + 0.5 * held @ (at - prior) ** 2)

    ours, curve = interest.logistic(rows, labels, weights, prior, held=held)
    assert ours == pytest.approx(minimize(loss, prior, method="BFGS", options={"gtol": 1e-9}).x, abs=1e-5)
    step = 1e-4 * np.eye(5)
    second = [[(loss(ours + a + b) - loss(ours + a) - loss(ours + b) + loss(ours)) / 1e-8 for a in step] for b in step]
    assert curve == pytest.approx(np.array(second), abs=1e-2)


def test_separable_verdicts_and_a_far_start_converge():
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(30, 1, (20, 6)), rng.normal(-30, 1, (400, 6))])
    labels, held = np.repeat([1.0, 0.0], [20, 400]), np.full(7, 1e-3)
    fitted, _ = interest.logistic(rows, labels, np.ones(420), np.full(7, 50.0), held=held)
    assert np.isfinite(fitted).all() and ((rows @ fitted[:-1] + fitted[-1] > 0) == (labels > 0)).all()


def test_probabilities_are_those_of_the_logistic_curve_averaged_over_normal_logits():
    rng = np.random.default_rng(2)
    for mean, variance in [(0.0, 4.0), (2.0, 1.0), (-3.0, 6.0)]:
        drawn = rng.normal(mean, np.sqrt(variance), 200_000)
        chances = 1 / (1 + np.exp(-drawn))
        entropy = -(chances * np.log2(chances) + (1 - chances) * np.log2(1 - chances))
        at = chances.mean()
        told = -(at * np.log2(at) + (1 - at) * np.log2(1 - at)) - entropy.mean()
        pair = np.array([mean]), np.array([variance])
        assert interest.probability(*pair)[0] == pytest.approx(at, abs=0.02)
        assert interest.information(*pair)[0] == pytest.approx(told, abs=0.05)
    assert interest.information(np.array([0.0]), np.array([0.0]))[0] == pytest.approx(0, abs=1e-9)


def test_what_is_chosen_makes_the_same_less_valuable():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(40, 8))
    features[1] = features[0]
    once = interest.observed(features, 0)
    covariance = features @ features.T
    expected = covariance - np.outer(covariance[0], covariance[0]) / (covariance[0, 0] + interest.NOISE)
    assert once @ once.T == pytest.approx(expected)
    features[0] *= 3
    features[1] = features[0]
    chosen = [one.row for one in interest.choose(np.zeros(40), features, k=6, known=0)]
    assert chosen[0] == 0 and 1 not in chosen[:3] and len(set(chosen)) == 6


def test_mean_and_variance_of_logits_are_those_of_the_normal_about_the_weights():
    rng = np.random.default_rng(4)
    ordinary, judged = rng.normal(size=(400, 6)) * np.linspace(1, 2, 6) + 3, rng.normal(size=(12, 6)) + 3
    wanted, start = (rng.uniform(size=12) > 0.5).astype(float), rng.normal(size=6)
    frame = interest.Whitening.fit(ordinary)
    assert np.cov(frame.rows(ordinary).T) == pytest.approx(np.eye(6), abs=0.5)
    probe = interest.Interest(frame, judged, wanted, ordinary, start=start)
    others = rng.normal(size=(9, 6)) + 3
    mean, variance = probe.judge(others.astype(np.float32))

    rows = (np.concatenate([judged, ordinary]) - frame.center) @ frame.matrix
    prior = np.append(interest.PRIOR * frame.direction(start, ordinary), interest.RARE)
    held = np.append(np.full(6, interest.PULL * 6), interest.HELD)
    weights, labels = np.r_[np.ones(12), np.full(400, 12 / 400)], np.r_[wanted, np.zeros(400)]
    fitted, curve = interest.logistic(rows, labels, weights, prior, held=held)
    design = np.column_stack([(others - frame.center) @ frame.matrix, np.ones(9)])
    assert mean == pytest.approx(design @ fitted, abs=1e-3)
    assert variance == pytest.approx(np.diag(design @ np.linalg.inv(curve) @ design.T), rel=1e-3)
    features = probe.features(others.astype(np.float32))
    assert features @ features.T == pytest.approx(design @ np.linalg.inv(curve) @ design.T, rel=1e-2, abs=1e-3)


def test_with_no_verdict_the_order_is_that_of_the_start():
    rng = np.random.default_rng(6)
    ordinary, start = rng.normal(size=(500, 8)), rng.normal(size=8)
    probe = interest.Interest(
        interest.Whitening.fit(ordinary), np.empty((0, 8)), np.empty(0), ordinary[:300], start=start
    )
    mean, _ = probe.judge(ordinary.astype(np.float32))
    assert np.corrcoef(mean, ordinary @ start)[0, 1] > 0.9999 and mean.std() == pytest.approx(interest.PRIOR, rel=0.1)


# ---- the ranking


def test_a_few_verdicts_bring_the_wanted_to_the_top_and_more_do_it_better(atlas):
    wanted, verdicts = truth(atlas), begun(atlas)
    first = [wanted[name] for name in atlas.rank_by_verdicts(verdicts, k=40)["object_id"].to_pylist()]
    judged_by_queue(atlas, verdicts, 40)
    table = atlas.rank_by_verdicts(verdicts, k=20)
    later = [wanted[name] for name in table["object_id"].to_pylist()]
    assert np.mean(first) > 5 * WANTED / ROWS and np.mean(later) > 0.7
    assert sum(one.verdict == "yes" for one in verdicts.current()) > 15  # at 4 % a random order has 1.6
    score = table["score"].to_pylist()
    assert score == sorted(score, reverse=True) and table["interest"].to_pylist() == score
    low, high = (np.array(table[name].to_pylist()) for name in ("interest_low", "interest_high"))
    interest = np.array(table["interest"].to_pylist())
    assert (low < interest).all() and (interest < high).all() and table.column_names[:2] == ["object_id", "score"]


def test_folder_and_bundle_rank_alike_and_the_same_again(home):
    tables = []
    for name in ("p.atlas", "p.duckdb", "p.duckdb"):
        with galsearch.open(home / name, device="cpu") as atlas:
            tables.append(atlas.rank_by_verdicts(begun(atlas), k=100)["object_id"].to_pylist()[:20])
    assert tables[0] == tables[1] == tables[2]


def test_filters_hold_and_what_was_judged_is_left_out_unless_wanted(atlas):
    verdicts = begun(atlas)
    judged = {one.object_id for one in verdicts.current()}
    table = atlas.rank_by_verdicts(verdicts, where="mag_r < 15", k=10_000)
    assert max(table["mag_r"].to_pylist()) < 15 and not judged & set(table["object_id"].to_pylist())
    everyone = atlas.rank_by_verdicts(verdicts, k=10_000, include_judged=True)["object_id"].to_pylist()
    assert len(everyone) == ROWS and judged <= set(everyone)


def test_without_any_yes_start_or_novelty_the_error_says_what_is_missing(folder):
    verdicts = galsearch.Verdicts(atlas=folder)
    with pytest.raises(QueryError, match="no verdict of 'wanted' says yes yet"):
        folder.rank_by_verdicts(verdicts, kind=KIND)
    with pytest.raises(QueryError, match="which kind"):
        folder.review_queue(verdicts)
    with pytest.raises(QueryError, match="k is 0"):
        folder.review_queue(begun(folder), k=0)
    with pytest.raises(QueryError, match="no embedding 'colors'"):
        folder.review_queue(begun(folder), by="colors")
    with pytest.raises(ModelMismatchError, match="vectors came with their table"):
        folder.rank_by_verdicts(verdicts, kind=KIND, query="ring galaxy")


def test_an_undone_verdict_counts_no_more(folder):
    verdicts = begun(folder)
    before = folder.rank_by_verdicts(verdicts)
    name = before["object_id"][5].as_py()
    verdicts.add(name, "no", kind=KIND, by="ann")
    assert not folder.rank_by_verdicts(verdicts).equals(before)
    verdicts.undo(by="ann")
    assert folder.rank_by_verdicts(verdicts).equals(before)


def test_labels_of_ones_own_can_be_what_is_wanted(folder):
    verdicts, wanted = galsearch.Verdicts(atlas=folder), truth(folder)
    for answer, label in ((True, "Shell"), (False, "bar")):
        for name in [one for one in sorted(wanted) if wanted[one] is answer][:5]:
            verdicts.add(name, "label", label=label, kind="free", by="ann")
    found = folder.rank_by_verdicts(verdicts, label="shell", k=20)["object_id"].to_pylist()
    assert np.mean([wanted[name] for name in found]) > 0.5
    with pytest.raises(QueryError, match="says yes yet"):
        folder.rank_by_verdicts(verdicts, k=20)  # a label says neither yes nor no


def test_several_people_count_by_their_mean_and_what_is_not_in_the_atlas_is_left_out(folder):
    verdicts = galsearch.Verdicts()
    for by, verdict in (("ann", "yes"), ("bob", "no"), ("eve", "unsure")):
        verdicts.add("g0001", verdict, kind=KIND, by=by)
    verdicts.add("gone", "yes", kind=KIND, by="ann")
    result = learning.judged(folder._store, "image", verdicts.current(KIND))
    assert (
        result.wanted.tolist() == [0.5]
        and len(result.seen) == 1
        and result.people == (frozenset(("ann", "bob", "eve")),)
    )


def test_novelty_multiplies_interest(home, tmp_path):
    path = shutil.copytree(home / "p.atlas", tmp_path / "p.atlas")
    with galsearch.open(path) as atlas:
        run = galsearch.save_anomalies(atlas.anomalies(10, detectors=("knn",)))
    with galsearch.open(path) as atlas:
        p_value = {row["object_id"]: row["p_value"] for row in atlas.saved_anomalies(run).to_pylist()}
        table = atlas.rank_by_verdicts(begun(atlas), novelty=run)
        for row in table.to_pylist():
            assert row["novelty"] == pytest.approx(1 - p_value[row["object_id"]])
            assert row["score"] == pytest.approx(row["interest"] * row["novelty"])
        first = atlas.review_queue(galsearch.Verdicts(), kind=KIND, novelty=True, k=5)  # before any verdict: the oddest
        assert min(first["novelty"].to_pylist()) > 0.9 and "among anomalies" in first["reason"][0].as_py()
        with pytest.raises(QueryError, match="no saved anomalies of run 'none such'"):
            atlas.review_queue(begun(atlas), novelty="none such")


# ---- the queue


def test_the_queue_gives_its_reason_in_words_and_numbers(atlas):
    verdicts = begun(atlas, count=5)
    rows = atlas.review_queue(verdicts, k=20).to_pylist()
    assert len({row["object_id"] for row in rows}) == 20
    assert not {row["object_id"] for row in rows} & {one.object_id for one in verdicts.current()}
    kinds = {row["reason"].split(":")[0] for row in rows}
    assert {"novel"} < kinds <= {"likely", "unsure", "best so far", "novel"}
    for row in rows:
        assert f"interest {row['interest']:.2f}" in row["reason"] and row["like"] in row["reason"]
        ours, other = (atlas.embed(atlas[name]) for name in (row["object_id"], row["like"]))
        assert row["likeness"] == pytest.approx(float(ours @ other), abs=1e-4)


def test_an_object_is_flagged_by_what_a_verdict_tells_not_by_a_window_of_confidence(folder):
    """A window such as 0.4 to 0.6 of some score flags nothing among the rare: here the queue is never empty."""
    rows = folder.review_queue(begun(folder, count=1), k=50).to_pylist()
    assert len(rows) == 50 and all(row["information"] >= 0 for row in rows)
    assert all(row["value"] > 0 for row in rows)


def test_copies_of_one_object_do_not_fill_the_queue(tmp_path):
    table = planted()
    vectors = np.array(table["vec"].to_pylist(), np.float32)
    good = np.flatnonzero(table["wanted"].to_pylist())
    vectors[good[10:40]] = vectors[good[9]]  # thirty copies
    table = table.set_column(3, "vec", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM))
    pq.write_table(table, tmp_path / "c.parquet")
    galsearch.build(tmp_path / "c.atlas", table=tmp_path / "c.parquet", vectors="vec", model="planted")
    with galsearch.open(tmp_path / "c.atlas") as atlas:
        names = atlas.review_queue(begun(atlas), k=10)["object_id"].to_pylist()
    copies = {f"g{number:04d}" for number in good[9:40].tolist()}
    assert len(copies & set(names)) <= 4  # by interest alone all ten would be


def test_second_opinions_are_what_others_judged_and_this_one_did_not(folder):
    verdicts = begun(folder, count=10)
    table = folder.review_queue(verdicts, k=20, reviewer="bob", second_opinions=0.2)
    again = [row["object_id"] for row in table.to_pylist() if row["reason"].startswith("second opinion")]
    assert len(again) == 4 and set(again) <= {one.object_id for one in verdicts.current()} and table.num_rows == 20
    none = folder.review_queue(verdicts, k=20, reviewer="ann", second_opinions=0.2)["reason"].to_pylist()
    assert not any(one.startswith("second") for one in none)


# ---- what becomes of it


def test_ranking_and_queue_change_neither_the_atlas_nor_the_verdicts(home, tmp_path):
    """The newest model is not what is in use from now on: nothing is, that a ranking leaves behind."""
    path = shutil.copy(home / "p.duckdb", tmp_path / "p.duckdb")
    before = path.read_bytes()
    with galsearch.open(path) as atlas:
        verdicts = galsearch.Verdicts(tmp_path / "v", atlas=atlas)
        verdicts.merge(begun(atlas))
        kept = (tmp_path / "v").read_bytes()
        atlas.rank_by_verdicts(verdicts)
        atlas.review_queue(verdicts)
    assert path.read_bytes() == before and (tmp_path / "v").read_bytes() == kept
    assert sorted(one.name for one in tmp_path.iterdir()) == ["p.duckdb", "v"]


def test_the_consensus_of_verdicts_becomes_a_knowledge_base(home, tmp_path):
    path = shutil.copytree(home / "p.atlas", tmp_path / "p.atlas")
    with galsearch.open(path) as atlas:
        verdicts = begun(atlas, count=30)
        yes = verdicts.current()[0].object_id
        verdicts.add(yes, "no", kind=KIND, by="bob")  # as many say yes as no
        pq.write_table(verdicts.consensus(), tmp_path / "c.parquet")
    table = verdicts.consensus()
    assert table.num_rows == 60 and table["label"].to_pylist().count(None) == 1
    base = galsearch.create_base(path, "wanted", table=tmp_path / "c.parquet", label="label")
    assert dict(base.counts) == {"yes": 29, "no": 30}


def test_what_was_judged_in_words_alone_does_not_come_again(folder):
    verdicts = begun(folder)
    first = folder.review_queue(verdicts, k=5)["object_id"].to_pylist()
    for name in first:
        verdicts.add(name, "label", label="shell", kind=KIND, by="ann")
    assert not set(first) & set(folder.review_queue(verdicts, k=50)["object_id"].to_pylist())
    with pytest.raises(QueryError, match="second_opinions is 2"):
        folder.review_queue(verdicts, second_opinions=2)


def test_the_benchmark_reports_what_it_measured():
    found = json.loads((Path(__file__).parent.parent / "docs" / "learning.json").read_text())
    assert found["reviewers"] == 20 and {"random", "uncertainty", "queue"} <= set(found["orders"])
