"""Evaluating an atlas: measures against shuffles and numpy, draws, folds, baselines, bad targets, what is stored."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import tiny
from PIL import Image
from pyarrow import parquet

import galsearch
from galsearch import cli
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.evaluation import evaluate, figures, resampling, sheets, systems
from galsearch.evaluation.resampling import Sets, draws, matched_sets
from galsearch.evaluation.systems import centroid_scores, probe_scores
from galsearch.evaluation.targets import read_targets
from galsearch.science.metrics import (
    Ranked,
    auroc,
    fold_of,
    ndcg_exp,
    ndcg_lin,
    precision_at,
    random_ndcg_exp,
    recall_ceiling,
    tied_ndcg_exp,
    tied_ndcg_lin,
    tied_precision_at,
    tied_recall_at,
)

RED = "object_id IN (SELECT object_id FROM galaxies WHERE object_id[-3:]::INT % 4 = 0)"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Take fewer draws than a real evaluation does."""
    for name, value in (("BOOTSTRAPS", 60), ("SET_BOOTSTRAPS", 40), ("SETS_ROUNDS", 10)):
        monkeypatch.setattr(figures, name, value)
    monkeypatch.setattr(systems, "MOST_EXAMPLES", 12)


def targets(path, *, queries=("red edge", "an edge that is red"), candidates="true", relevant=RED, name="red"):
    """Write a targets file of one target and return its path."""
    grades = relevant if isinstance(relevant, str) else None
    said = (
        json.dumps(grades) if grades else "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in relevant.items()) + " }"
    )
    lines = [
        'version = "1"\n[[target]]',
        f"name = {json.dumps(name)}",
        f"queries = {json.dumps(list(queries))}",
        f"candidates = {json.dumps(candidates)}",
        f"relevant = {said}",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def one(tmp_path):
    return targets(tmp_path / "targets.toml")


def rows(found, **wanted):
    """Return the result rows with these values."""
    return [row for row in found.table.to_pylist() if all(row[key] == value for key, value in wanted.items())]


def only(found, **wanted):
    (row,) = rows(found, **wanted)
    return row


# ---- measures


def test_expectations_under_ties_are_the_means_over_shuffles():
    rng = np.random.default_rng(3)
    scores, relevance = rng.integers(0, 4, 40), rng.integers(0, 4, 40) * (rng.random(40) < 0.5)
    shuffles = [np.lexsort((rng.random(40), -scores)) for _ in range(2000)]
    orders = [relevance[order] for order in shuffles]
    relevant = (relevance > 0).sum()
    measured = {
        tied_ndcg_exp: [ndcg_exp(order, relevance, 10) for order in orders],
        tied_ndcg_lin: [ndcg_lin(order, relevance, 10) for order in orders],
        tied_precision_at: [precision_at(order, 10) for order in orders],
        tied_recall_at: [(order[:10] > 0).sum() / relevant for order in orders],
    }
    for measure, values in measured.items():
        error = np.std(values) / np.sqrt(len(values))
        assert measure(scores, relevance, 10) == pytest.approx(np.mean(values), abs=4 * error), measure
        assert error > 0


def test_auroc_counts_pairs_and_ties_half():
    rng = np.random.default_rng(4)
    scores, relevance = rng.integers(0, 6, 50), rng.integers(0, 2, 50)
    good, bad = scores[relevance > 0], scores[relevance == 0]
    pairs = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
    assert auroc(scores, relevance) == pytest.approx(pairs)
    assert auroc([1, 2], [1, 1]) is None


def test_a_perfect_and_an_inverted_ranking():
    relevance = np.array([3, 2, 1, 0, 0, 0])
    falling = np.arange(6)[::-1]
    assert (
        tied_ndcg_exp(falling, relevance, 3) == tied_ndcg_lin(falling, relevance, 3) == auroc(falling, relevance) == 1
    )
    assert (
        tied_ndcg_exp(-falling, relevance, 3)
        == auroc(-falling, relevance)
        == tied_recall_at(-falling, relevance, 3)
        == 0
    )
    assert recall_ceiling(3, 2) == 2 / 3


@pytest.mark.parametrize("k", [1, 5, 30])
def test_draws_measure_what_copies_of_the_objects_would(k):
    rng = np.random.default_rng(5)
    scores, relevance = rng.integers(0, 15, 60) / 7, rng.integers(0, 3, 60)
    drawn = rng.integers(0, 4, (7, 60)) * (rng.random((7, 60)) < 0.6)
    ranking = Ranked(scores, relevance)
    for row, counts in enumerate(drawn):
        many, graded = np.repeat(scores, counts), np.repeat(relevance, counts)
        assert ranking.ndcg_exp(k, drawn)[row] == pytest.approx(tied_ndcg_exp(many, graded, k))
        assert ranking.ndcg_lin(k, drawn)[row] == pytest.approx(tied_ndcg_lin(many, graded, k))
        assert ranking.precision(k, drawn)[row] == pytest.approx(tied_precision_at(many, graded, k))
        assert ranking.recall(k, drawn)[row] == pytest.approx(tied_recall_at(many, graded, k))
        assert ranking.auroc(drawn)[row] == pytest.approx(auroc(many, graded))


def test_a_long_ranking_whose_head_was_not_drawn_is_read_on():
    scores, relevance = np.arange(2000.0)[::-1], (np.arange(2000) % 2 == 0).astype(int)
    drawn = np.ones((2, 2000), int)
    drawn[0, :1500] = 0
    assert Ranked(scores, relevance).precision(10, drawn).tolist() == [0.5, 0.5]


# ---- folds and draws


def test_folds_are_disjoint_cover_all_and_depend_on_id_and_seed_alone():
    ids = [tiny.object_id(row) for row in range(300)]
    fold = fold_of(ids, 10, seed=1)
    assert set(fold) == set(range(10))
    assert np.bincount(fold).min() > 10
    assert (fold_of(ids[::-1], 10, seed=1)[::-1] == fold).all()
    assert (fold_of(ids, 10, seed=2) != fold).any()


@pytest.mark.parametrize("prevalence", [0.26, 0.1, 0.02])
def test_sets_have_the_prevalence_and_a_shuffle_holds_nobody_twice(prevalence):
    relevant = np.arange(400) % 7 == 0
    sets = matched_sets(int(relevant.sum()), int((~relevant).sum()), prevalence)
    assert sets.relevant / (sets.relevant + sets.others) == pytest.approx(prevalence, rel=0.05)
    blocks = list(draws(relevant, sets, rounds=6, pick=resampling.shuffled, seed=0))
    drawn = np.concatenate(blocks).reshape(-1, 400)
    assert len(drawn) == 6 * sets.each
    assert (drawn[:, relevant].sum(axis=1) == sets.relevant).all()
    assert (drawn[:, ~relevant].sum(axis=1) == sets.others).all()
    assert drawn.max() == 1


def test_a_bootstrap_keeps_the_prevalence_and_draws_evenly(monkeypatch):
    monkeypatch.setattr(resampling, "DRAWN_VALUES", 500)  # several blocks
    relevant = np.arange(50) < 20
    drawn = np.concatenate(list(draws(relevant, Sets(20, 30), rounds=4000, pick=resampling.resampled, seed=0)))[:, 0]
    assert drawn.shape == (4000, 50)
    assert (drawn[:, relevant].sum(axis=1) == 20).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=0.08)
    assert drawn.var() == pytest.approx(1, abs=0.1)


def test_too_few_relevant_ones_give_no_sets():
    assert matched_sets(50, 500, 0.001) is None
    assert matched_sets(50, 5000, 0.001) == Sets(5, 5000, resampling.MOST_SETS)


# ---- baselines


@pytest.mark.parametrize("scored", [centroid_scores, probe_scores])
def test_what_is_fitted_never_sees_the_objects_that_it_scores(scored):
    vectors = tiny.random_units(80, 8, seed=1, groups=2)
    relevant = np.random.default_rng(2).random(80) < 0.4
    fold = np.arange(80) % 5
    before = scored(vectors, relevant, fold)
    held = fold == 3
    other = relevant.copy()
    other[held] = ~other[held]
    assert scored(vectors, other, fold)[held].tolist() == before[held].tolist()
    changed = vectors.copy()
    one = np.flatnonzero(held)[0]
    changed[np.flatnonzero(held)[1:]] = -1
    assert scored(changed, relevant, fold)[one] == pytest.approx(before[one], abs=1e-9)
    assert (scored(vectors, other, fold)[~held] != before[~held]).any()


def test_the_probe_finds_a_direction_that_the_centroid_does_not():
    rng = np.random.default_rng(6)
    relevant = rng.random(600) < 0.3
    vectors = rng.normal(size=(600, 12)) * np.r_[4.0, np.ones(11)]
    vectors[:, 5] += 2 * relevant
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    fold = np.arange(600) % 10
    probe, centroid = (auroc(f(vectors, relevant, fold), relevant) for f in (probe_scores, centroid_scores))
    assert probe > 0.8
    assert probe > centroid - 0.01


def test_a_fold_that_holds_all_that_is_relevant_has_no_baseline():
    vectors, fold = tiny.random_units(20, 4, seed=1), np.arange(20) % 2
    relevant = (np.arange(20) % 2 == 0) & (np.arange(20) < 10)
    assert centroid_scores(vectors, relevant, fold) is None
    assert probe_scores(vectors, relevant, fold) is None


# ---- a whole evaluation


def test_words_that_name_a_cluster_are_a_perfect_ranking_and_others_are_not(atlas, tmp_path):
    file = targets(tmp_path / "t.toml", queries=["red edge", "blue ring"])
    found = evaluate(atlas, targets=file)
    first = only(found, system="first query", asked_prevalence=None)
    assert (first["n"], first["relevant"], first["prevalence"]) == (300, 75, 0.25)
    for name in ("ndcg_exp_10", "ndcg_lin_10", "precision_10", "auroc", "ndcg_exp_10_low", "recall_100"):
        assert first[name] == pytest.approx(1), name
    text = only(found, system="text", asked_prevalence=None)
    assert (text["worst_query"], text["ndcg_exp_10_worst"]) == ("blue ring", 0)
    assert text["ndcg_exp_10"] == pytest.approx(0.5)
    assert first["lift_10"] == pytest.approx(4)
    assert [row["query"] for row in found.queries] == ["red edge", "blue ring"]


def test_figures_are_those_of_numpy(atlas, tmp_path):
    file = targets(tmp_path / "t.toml", queries=["ring galaxy"], relevant="z < 0.06", candidates="z IS NOT NULL")
    found = evaluate(atlas, targets=file)
    known = atlas.sql("SELECT object_id, z < 0.06 AS wanted FROM galaxies WHERE z IS NOT NULL ORDER BY object_id")
    relevance = np.array(known["wanted"].to_pylist(), float)
    vectors = atlas._store.embeddings("image", known["object_id"].to_pylist()).astype(float)
    scores = (vectors * atlas.embed("ring galaxy").astype(float)).sum(axis=1)
    first = only(found, system="first query", asked_prevalence=None)
    assert first["ndcg_exp_10"] == pytest.approx(tied_ndcg_exp(scores, relevance, 10))
    assert first["auroc"] == pytest.approx(auroc(scores, relevance))
    assert first["auroc_low"] < first["auroc"] < first["auroc_high"]
    random = only(found, system="random", asked_prevalence=None)
    assert random["ndcg_exp_10"] == pytest.approx(random_ndcg_exp(relevance, 10))
    assert random["recall_100"] == pytest.approx(100 / len(relevance))
    fold = fold_of(known["object_id"].to_pylist(), 10, 0)
    within = [tied_ndcg_exp(scores[fold == f], relevance[fold == f], 10) for f in range(10)]
    assert first["fold_mean"] == pytest.approx(np.mean(within))
    assert first["fold_std"] == pytest.approx(np.std(within, ddof=1))


def test_likeness_is_the_mean_over_examples_that_do_not_find_themselves(atlas, tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "MOST_EXAMPLES", 1000)
    file = targets(tmp_path / "t.toml", queries=["ring"], relevant="mag_r < 15", candidates="mag_r < 18")
    found = only(evaluate(atlas, targets=file), system="image", asked_prevalence=None)
    known = atlas.sql("SELECT object_id, mag_r < 15 AS wanted FROM galaxies WHERE mag_r < 18 ORDER BY object_id")
    relevance = np.array(known["wanted"].to_pylist(), float)
    vectors = atlas._store.embeddings("image", known["object_id"].to_pylist()).astype(float)
    values = []
    for one in np.flatnonzero(relevance):
        others = np.arange(len(relevance)) != one
        scores = (vectors[others] * vectors[one]).sum(axis=1)
        values.append(tied_ndcg_exp(scores, relevance[others], 10))
    assert found["queries"] == len(values)
    assert found["ndcg_exp_10"] == pytest.approx(np.mean(values), abs=1e-6)
    assert found["ndcg_exp_10_low"] < found["ndcg_exp_10"] < found["ndcg_exp_10_high"]


def test_relevance_may_be_graded(atlas, tmp_path):
    grades = {"1": "mag_r < 17", "3": "mag_r < 15"}
    found = evaluate(atlas, targets=targets(tmp_path / "t.toml", queries=["ring"], relevant=grades))
    known = atlas.sql("SELECT CASE WHEN mag_r < 15 THEN 3 WHEN mag_r < 17 THEN 1 ELSE 0 END AS grade FROM galaxies")
    row = only(found, system="random", asked_prevalence=None)
    assert row["relevant"] == sum(grade > 0 for grade in known["grade"].to_pylist())
    assert row["ndcg_exp_10"] == pytest.approx(random_ndcg_exp(known["grade"].to_pylist(), 10))
    assert row["ndcg_exp_10"] != pytest.approx(row["ndcg_lin_10"])


def test_a_prevalence_is_met_and_its_figures_lie_in_their_interval(atlas, tmp_path):
    file = targets(tmp_path / "t.toml", queries=["red"], relevant="mag_r < 16")
    found = evaluate(atlas, targets=file)
    assert {row["asked_prevalence"] for row in rows(found)} == {None, 0.26, 0.1, 0.02}
    for row in rows(found, system="first query"):
        if row["asked_prevalence"]:
            assert row["prevalence"] == pytest.approx(row["asked_prevalence"], rel=0.2)
        assert row["ndcg_exp_10_low"] <= row["ndcg_exp_10"] <= row["ndcg_exp_10_high"]


def test_the_same_seed_gives_the_same_figures_and_the_same_digest(atlas, one):
    first, second, other = (evaluate(atlas, targets=one, seed=seed) for seed in (5, 5, 6))
    made = ("run", "created")
    assert first.table.drop_columns(made) == second.table.drop_columns(made)
    assert first.config["config_sha256"] == second.config["config_sha256"] != other.config["config_sha256"]


def test_the_summary_has_a_line_for_each_target_and_prevalence(atlas, one, tmp_path):
    found = evaluate(atlas, targets=one)
    lines = found.save(tmp_path / "out.md").read_text().splitlines()
    assert len(lines) == 2 + len({row["asked_prevalence"] for row in rows(found)})
    assert len({line.count("|") for line in lines}) == 1
    assert "| 25 % as it is | 300 (75) | **1.000** [1.000, 1.000]" in lines[2]


def test_a_cut_leaves_only_its_candidates(atlas, one):
    row = rows(evaluate(atlas, targets=one, where="mag_r < 17"), asked_prevalence=None)[0]
    assert row["n"] == atlas.count("mag_r < 17")


def test_captions_count_and_columns_that_hold_the_label_do_not(folder_path, tmp_path):
    from galsearch.store import Rows, put_rows

    ids = [tiny.object_id(row) for row in range(0, 300, 2)]
    said = ["an edge, red" if row % 4 == 0 else "a thing without an edge" for row in range(0, 300, 2)]
    blank = {"negatives": [[]] * 150, "model": ["m"] * 150, "prompt_sha256": ["p"] * 150, "seed": [0] * 150}
    put_rows(
        folder_path, {"captions": Rows(pa.table({"object_id": ids, "caption": said, **blank}), ("object_id",))}, {}
    )
    file = targets(tmp_path / "t.toml", queries=["edges", "north"])
    found = evaluate(folder_path, targets=file)
    row = only(found, system="captions BM25", asked_prevalence=None)
    assert row["worst_query"] == "north"  # a survey, which a column says and no caption
    assert row["ndcg_exp_10_worst"] == pytest.approx(0.25)  # nothing matches, so all are tied
    assert row["ndcg_exp_10"] == pytest.approx((1 + 0.25) / 2)


def test_without_captions_there_is_no_row_for_them(atlas, one):
    assert not rows(evaluate(atlas, targets=one), system="captions BM25")


# ---- targets that do not fit


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"relevant": "no_such > 1"}, SchemaError, "no column no_such"),
        ({"candidates": "absent IS NULL AND gone = 2"}, SchemaError, "no column absent, gone"),
        ({"candidates": "mag_r < 0"}, SchemaError, "no object passes"),
        ({"relevant": "mag_r < 0"}, SchemaError, "is relevant by 'mag_r < 0'"),
        ({"relevant": "mag_r > 0"}, SchemaError, "is not relevant"),
        ({"candidates": "true; DROP TABLE galaxies"}, QueryError, "expected one SQL condition"),
        ({"candidates": "mag_r <"}, QueryError, "condition 'mag_r <'"),
        ({"relevant": "mag_r = 'north'"}, QueryError, "north"),
    ],
)
def test_a_target_that_cannot_be_judged_is_named_with_the_reason(atlas, tmp_path, changed, error, message):
    file = targets(tmp_path / "t.toml", name="the bad one", **changed)
    with pytest.raises(error, match="target 'the bad one'") as raised:
        evaluate(atlas, targets=file)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version =", "not TOML"),
        ("version = '1'", "no [[target]]"),
        ("[[target]]\nqueries = ['a']", "no name"),
        ("[[target]]\nname = 'x'\ncandidates = 'true'\nrelevant = 'z > 0'", "target 'x': queries"),
        (
            "[[target]]\nname = 'x'\nqueries = 'gone'\ncandidates = 'true'\nrelevant = 'z > 0'",
            "no list of queries 'gone'",
        ),
        ("[[target]]\nname = 'x'\nqueries = ['a']\nrelevant = 'z > 0'", "target 'x': None is no SQL condition"),
        ("[[target]]\nname = 'x'\nqueries = ['a', 'a']\ncandidates = 'true'\nrelevant = 'z > 0'", "twice"),
        ("[[target]]\nname = 'x'\nquery = ['a']", "unknown key 'query'"),
        ("[[target]]\nname = 'x'\nqueries = ['a']\ncandidates = 'true'\nrelevant = { low = 'z' }", "relevance 'low'"),
        ("[[target]]\nname = 'x'\nqueries = ['a']\nprevalences = [2.0]", "between 0 and 1"),
    ],
)
def test_a_file_that_is_no_targets_file_is_refused(tmp_path, text, message):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(SchemaError) as raised:
        read_targets(path)
    assert message in str(raised.value)


def test_a_missing_file_and_too_few_folds_are_refused(atlas, tmp_path, one):
    with pytest.raises(SchemaError, match="cannot be read"):
        evaluate(atlas, targets=tmp_path / "none.toml")
    with pytest.raises(QueryError, match="folds is 1"):
        evaluate(atlas, targets=one, folds=1)


def test_the_targets_that_ship_have_ten_wordings_or_more_and_cover_what_is_asked():
    shipped = read_targets()
    named = " ".join(target.name for target in shipped.targets)
    wanted = ("spiral", "elliptical", "edge-on", "barred", "unbarred spiral", "ring", "merging", "irregular", "dusty")
    assert all(word in named for word in (*wanted, "flocculent", "face-on", "lens candidate"))
    assert min(len(target.queries) for target in shipped.targets) >= 10
    assert shipped.version


@pytest.mark.slow
def test_targets_that_ship_and_do_not_fit_are_named_and_left_out(tiny_models, tiny_source, tmp_path):
    table = parquet.read_table(tiny_source[1])
    graded = table.append_column("grade_0_3", pa.array([2.5 if row % 4 == 0 else 0.5 for row in range(300)]))
    parquet.write_table(graded, tmp_path / "graded.parquet")
    path = tmp_path / "graded.atlas"
    galsearch.build(path, images=tiny_source[0], table=tmp_path / "graded.parquet", models=tiny_models)
    found = evaluate(path)
    assert {row["target"] for row in rows(found)} == {"lens candidate (Space Warps)"}
    assert "no column T, gz1_class" in found.left_out["spiral"]
    assert len(found.left_out) == len(read_targets().targets) - 1


def test_an_atlas_that_no_shipped_target_fits_says_so(atlas):
    with pytest.raises(SchemaError, match="none of the targets"):
        evaluate(atlas)


# ---- what is kept


@pytest.mark.slow
def test_figures_are_kept_in_a_folder_and_travel_in_its_bundle(folder_path, one, tmp_path):
    first = evaluate(folder_path, targets=one, store=True)
    evaluate(folder_path, targets=one, seed=1, store=True)
    galsearch.bundle(folder_path, tmp_path / "kept.duckdb")
    for path in (folder_path, tmp_path / "kept.duckdb"):
        with galsearch.open(path) as atlas:
            kept = atlas.sql("SELECT * FROM evaluations").to_pylist()
            assert len(kept) == 2 * first.table.num_rows
            assert len({row["run"] for row in kept}) == 2
            mine = [row for row in kept if row["run"] == first.table["run"][0].as_py()]
            key = ("target", "system", "asked_prevalence")
            assert {tuple(row[k] for k in key): row for row in mine} == {
                tuple(row[k] for k in key): row for row in first.table.to_pylist()
            }
            assert atlas.manifest.provenance[-2 if path == folder_path else -3]["action"] == "evaluate"
            assert atlas.search("red edge", k=3).ids
    with galsearch.open(folder_path) as atlas:
        assert atlas.models()["image"]["sha256"] in kept[0]["models"]


def test_a_bundle_is_not_written_to(tiny_bundle, one):
    with pytest.raises(GalsearchError, match="evaluate the folder"):
        evaluate(tiny_bundle, targets=one, store=True)


def test_nothing_is_written_unless_asked(folder_path, one):
    before = (folder_path / "galaxies.duckdb").read_bytes()
    evaluate(folder_path, targets=one)
    assert (folder_path / "galaxies.duckdb").read_bytes() == before


@pytest.mark.slow
def test_a_sheet_frames_what_is_relevant(atlas, tmp_path):
    file = targets(tmp_path / "t.toml", queries=["red edge", "blue ring"], name="red: a/b")
    evaluate(atlas, targets=file, sheet=tmp_path / "sheets")
    (path,) = (tmp_path / "sheets").iterdir()
    assert path.name == "red-a-b.png"
    picture = np.asarray(Image.open(path).convert("RGB"))
    framed = (np.abs(picture.astype(int) - sheets.MARK_RGB) < 25).all(axis=2)
    upper, lower = framed[: len(framed) // 2], framed[len(framed) // 2 :]
    assert upper.sum() > 1000  # ten hits of the first query
    assert lower.sum() == 0  # none of the worst


# ---- the command


@pytest.mark.slow
def test_the_command_prints_figures_and_writes_them(monkeypatch, capsys, tiny_path, one, tmp_path):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["galsearch", "evaluate", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    code, out, error = run(tiny_path, "--targets", one)
    assert code == 0
    assert "ndcg_exp_10" in out
    assert "linear probe" in out
    assert "config" in error
    code, out, _ = run(tiny_path, "--targets", one, "--format", "json", "--seed", "3")
    assert json.loads(out)["config"]["seed"] == 3
    code, out, error = run(tiny_path, "--targets", one, "-o", tmp_path / "out.json")
    assert (code, out) == (0, "")
    assert {row["system"] for row in json.loads((tmp_path / "out.json").read_text())["results"]} >= {"text", "random"}
    code, _, _ = run(tiny_path, "--targets", one, "-o", tmp_path / "out.csv")
    assert "ndcg_exp_10" in (tmp_path / "out.csv").read_text().splitlines()[0]
    code, out, error = run(tiny_path, "--targets", targets(tmp_path / "bad.toml", relevant="gone"))
    assert (code, out) == (1, "")
    assert "target 'red'" in error


@pytest.mark.slow
def test_several_atlases_are_judged_as_one(tiny_folder, one, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "other.atlas")
    with galsearch.open([tiny_folder, tmp_path / "other.atlas"], device="cpu") as both:
        row = only(evaluate(both, targets=one), system="first query", asked_prevalence=None)
    assert (row["n"], row["relevant"], row["ndcg_exp_10"]) == (600, 150, 1)


# ---- rankings and paired tests


def test_rankings_say_where_every_object_ranked(atlas, tmp_path):
    table = evaluate(atlas, targets=targets(tmp_path / "t.toml")).rankings()
    assert set(table["system"].to_pylist()) == {"text", "centroid", "linear probe"}
    rows = [row for row in table.to_pylist() if (row["system"], row["query"]) == ("text", "red edge")]
    hits = atlas.search("red edge", k=len(atlas), exact=True)
    assert [row["object_id"] for row in rows] == hits.ids
    assert np.allclose([row["score"] for row in rows], hits.scores, atol=1e-6)
    scores = np.array([row["score"] for row in rows])
    assert [row["rank"] for row in rows] == [1 + int((scores > score).sum()) for score in scores]
    assert {row["object_id"] for row in rows if row["relevance"]} == {
        name for name in hits.ids if int(name[-3:]) % 4 == 0
    }


def ranked_table(scores, relevance, *, system="text", query="q"):
    rows = [
        {
            "target": "t",
            "system": system,
            "query": query,
            "object_id": f"o{n}",
            "score": score,
            "relevance": float(good),
        }
        for n, (score, good) in enumerate(zip(scores, relevance, strict=True))
    ]
    return pa.Table.from_pylist(rows)


def test_a_paired_difference_is_sure_where_single_intervals_are_wide_and_none_is_none():
    rng = np.random.default_rng(2)
    relevance = rng.random(400) < 0.1
    noisy = relevance + rng.normal(scale=1.2, size=400)
    better = noisy + relevance  # the same noise, so that only the signal differs
    worse, best = ranked_table(noisy, relevance), ranked_table(better, relevance)
    (row,) = galsearch.compare_rankings(best, worse).to_pylist()
    assert row["difference"] == pytest.approx(row["ndcg_exp_10"] - row["ndcg_exp_10_against"]) and row["n"] == 400
    assert row["ndcg_exp_10"] == pytest.approx(Ranked(better, relevance.astype(float)).ndcg_exp(10)[0])
    assert row["low"] <= row["difference"] <= row["high"] and row["low"] > 0 and row["p_value"] < 0.05
    (turned,) = galsearch.compare_rankings(worse, best).to_pylist()
    assert (turned["difference"], turned["p_value"]) == (-row["difference"], row["p_value"])
    (same,) = galsearch.compare_rankings(best, best).to_pylist()
    assert (same["difference"], same["low"], same["high"], same["p_value"]) == (0, 0, 0, 1)


def test_p_values_of_no_difference_are_not_small_too_often():
    small = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        relevance = rng.random(200) < 0.2
        one, other = (ranked_table(relevance + rng.normal(size=200), relevance) for _ in range(2))
        small += galsearch.compare_rankings(one, other, seed=seed)["p_value"][0].as_py() < 0.05
    assert small <= 6  # 2 are expected, 7 or more one time in 200


def test_what_only_one_run_has_is_left_out_and_other_labels_are_refused(tmp_path):
    scores, relevance = np.arange(30.0), np.arange(30) % 3 == 0
    both = pa.concat_tables([ranked_table(scores, relevance), ranked_table(-scores, relevance, system="centroid")])
    (row,) = galsearch.compare_rankings(both).to_pylist()
    assert (row["system"], row["against"]) == ("centroid", "text")
    (row,) = galsearch.compare_rankings(both, ranked_table(scores[:20], relevance[:20])).to_pylist()
    assert (row["system"], row["n"], row["relevant"]) == ("text", 20, 7)
    with pytest.raises(SchemaError, match="another relevance"):
        galsearch.compare_rankings(both, ranked_table(scores, ~relevance))
    with pytest.raises(SchemaError, match="no column system"):
        galsearch.compare_rankings(both.drop_columns(["system"]))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SchemaError, match="holds no rankings"):
        galsearch.compare_rankings(tmp_path / "x.csv")


def test_the_command_writes_rankings_and_compares_with_those_of_another_run(run, tiny_folder, tmp_path):
    file, before = targets(tmp_path / "t.toml"), tmp_path / "before.parquet"
    code, _, error = run("evaluate", tiny_folder, "--targets", file, "--rankings", before)
    assert code == 0 and "before.parquet" in error
    other = targets(tmp_path / "u.toml", queries=("blue ring",))
    code, out, _ = run("evaluate", tiny_folder, "--targets", other, "--compare", before, "--format", "json")
    rows = {row["system"]: row for row in json.loads(out)["rows"]}
    assert code == 0 and rows["text"]["difference"] < -0.5 and rows["text"]["p_value"] < 0.05
    assert rows["centroid"]["difference"] == 0
    code, out, _ = run("evaluate", tiny_folder, "--targets", file, "--compare-systems", "--format", "json")
    assert code == 0 and {row["against"] for row in json.loads(out)["rows"]} == {"text"}
    code, _, _ = run("evaluate", tiny_folder, "--targets", file, "--compare-systems", "--compare", before)
    assert code == 2


def test_a_stored_run_says_which_revision_made_it(tmp_path, monkeypatch):
    from galsearch import schema

    (tmp_path / "galsearch").mkdir()
    monkeypatch.setattr(schema, "__file__", str(tmp_path / "galsearch" / "schema.py"))
    assert schema.revision() is None
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert schema.revision() is None
    (git / "packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/main\n")
    assert schema.revision() == "b" * 40
    (git / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
    assert schema.revision() == "a" * 40
    (git / "HEAD").write_text("c" * 40 + "\n")
    assert schema.revision() == "c" * 40
