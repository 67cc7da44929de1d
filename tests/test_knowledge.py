"""Knowledge bases: members that do not change, votes against brute force, errors that write nothing, the macro."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path

import crash
import duckdb
import numpy as np
import pyarrow as pa
import pytest
import tiny
from tiny_spectra import write_models, write_spectra
from typer.testing import CliRunner

import galsearch
from galsearch import schema
from galsearch.cli.output import short
from galsearch.cli.program import app
from galsearch.errors import FormatError, GalsearchError, QueryError, UnknownIdError
from galsearch.evaluation import bases
from galsearch.knowledge import heldout
from galsearch.knowledge.members import members_of
from galsearch.knowledge.templates import TEMPLATES
from galsearch.science import votes
from galsearch.science.metrics import fold_of

SHAPE = "CASE right(object_id, 2)::INT % 4 WHEN 0 THEN 'edge' WHEN 1 THEN 'ring' WHEN 2 THEN 'round' ELSE 'face' END"
SELECT = f"SELECT object_id, {SHAPE} AS shape FROM galaxies WHERE right(object_id, 1)::INT < 7"
NUMBERS = "SELECT object_id, mag_r FROM galaxies WHERE mag_r < 20"
FEW = f" AND object_id < '{tiny.object_id(30)}'"  # too few to calibrate, which takes a second of a base
SMALL = SELECT + FEW
LABELS = ("edge", "ring", "round", "face")
QUERY = tiny.object_id(8)  # right(id, 1) is 8: no member of SELECT


def label_of(object_id: str) -> str:
    return LABELS[int(object_id[-2:]) % 4]


@pytest.fixture(scope="module")
def home(made_once, tiny_folder: Path) -> Path:
    """A folder of atlases with bases of shapes and numbers: folder, bundle, compact bundle."""

    def fill(folder: Path) -> None:
        path = Path(shutil.copytree(tiny_folder, folder / "kb.atlas"))
        galsearch.create_base(path, "shapes", SELECT, columns=["z", "mag_r"])
        galsearch.create_base(path, "numbers", NUMBERS)
        galsearch.bundle(path, folder / "kb.duckdb")
        galsearch.bundle(path, folder / "compact.duckdb", compact=True)

    return made_once("knowledge", fill)


@pytest.fixture(scope="module", params=["kb.atlas", "kb.duckdb", "compact.duckdb"])
def known(request: pytest.FixtureRequest, home: Path):
    """An atlas with bases in each form, open."""
    with galsearch.open(home / request.param, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def open_folder(home: Path):
    with galsearch.open(home / "kb.atlas", device="cpu") as opened:
        yield opened


def brute_force(atlas: galsearch.Atlas, object_id: str, ids: list[str], k: int) -> list[tuple[str, float]]:
    """Return the k nearest of `ids` and their distances, by comparing all, without the object itself."""
    vectors = {name: atlas.embed(atlas[name]).astype(np.float64) for name in ids}
    query = atlas.embed(atlas[object_id]).astype(np.float64)
    pairs = [(name, float(np.float32(vector @ query))) for name, vector in vectors.items() if name != object_id]
    best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]
    return [(name, math.sqrt(max(2 - 2 * cosine, 0))) for name, cosine in best]


def members(atlas: galsearch.Atlas) -> list[str]:
    table = atlas.sql("SELECT object_id FROM knowledge_labels WHERE base = 'shapes' AND version = 1")
    return table["object_id"].to_pylist()


# ---- votes


@pytest.mark.parametrize("row", [8, 5, 299])
def test_the_nearest_members_vote_and_an_object_never_on_itself(known, row):
    result = known.classify(tiny.object_id(row), "shapes", k=5)
    expected = brute_force(known, tiny.object_id(row), members(known), 5)
    assert [voter.object_id for voter in result] == [name for name, _ in expected]
    assert [voter.distance for voter in result] == pytest.approx([d for _, d in expected], abs=2e-3)
    assert [voter.weight for voter in result] == pytest.approx([math.exp(-v.distance) for v in result])
    assert [voter.label for voter in result] == [label_of(voter.object_id) for voter in result]
    sums = {label: sum(v.weight for v in result if v.label == label) for label in {v.label for v in result}}
    assert result.weights == pytest.approx(sums)


def test_copies_of_a_picture_are_told_by_their_ids(open_folder):
    result = open_folder.classify(tiny.object_id(0), "shapes", k=2)
    assert [voter.distance for voter in result] == [0.0, 0.0]
    assert [voter.object_id for voter in result] == sorted(voter.object_id for voter in result)


def test_a_cluster_is_labeled_as_its_members_and_says_who_voted(known):
    result = known.classify(QUERY, "shapes", k=5)
    assert (result.label, result.best, result.reason, result.support) == ("edge", "edge", None, 5)
    assert result.calibrated and 0.9 < result.probability < 1
    assert result.probabilities["edge"] == result.probability
    assert sum(result.probabilities.values()) == pytest.approx(1)
    assert result.neighbors.column_names == ["object_id", "distance", "weight", "label", "z", "mag_r"]
    rows = known.rows(result.neighbors["object_id"].to_pylist())
    assert result.neighbors["mag_r"].to_pylist() == rows["mag_r"].to_pylist()
    assert list(result.to_pandas()["object_id"]) == [voter.object_id for voter in result]
    assert "edge" in repr(result) and "<img" in result._repr_html_()


def test_what_is_asked_may_be_an_id_a_galaxy_a_hit_an_embedding_or_several(known):
    expected = known.classify(QUERY, "shapes")
    hits = known.search(where=f"object_id = '{QUERY}'")
    for what in (known[QUERY], hits[0]):
        assert known.classify(what, "shapes").neighbors.equals(expected.neighbors)
    vector = 3 * known.embed(known[QUERY])
    assert [v.object_id for v in known.classify(vector, "shapes")] == [v.object_id for v in expected]
    several = known.classify([QUERY, tiny.object_id(1)], "shapes")
    assert several[0].neighbors.equals(expected.neighbors) and len(several) == 2
    assert several.table["label"].to_pylist() == [expected.label, "ring"]
    assert several.voters()["of"].to_pylist() == [QUERY] * 3 + [tiny.object_id(1)] * 3
    assert known.classify(hits, "shapes").to_arrow().equals(known.classify([QUERY], "shapes").to_arrow())
    assert len(known.classify([], "shapes")) == 0


def test_a_picture_file_is_classified_as_the_object_that_it_shows(open_folder, tiny_source):
    result = open_folder.classify(tiny_source[0] / f"{QUERY}.png", "shapes")
    assert result.object_id is None and result.label == "edge"


def test_what_is_no_object_is_told_by_its_name(open_folder, tiny_source, tmp_path):
    first, second = (Path(shutil.copyfile(tiny_source[0] / f"{QUERY}.png", tmp_path / name)) for name in "ab")
    (tmp_path / "other").mkdir()
    namesake = Path(shutil.copyfile(first, tmp_path / "other" / "b"))
    vector = open_folder.embed(open_folder[QUERY])
    result = open_folder.classify([first, QUERY, vector, second, namesake], "shapes", k=1)
    names = ["a", QUERY, "vector 2", str(second), str(namesake)]
    assert result.table["of"].to_pylist() == result.voters()["of"].to_pylist() == [each.of for each in result] == names
    assert result.table["object_id"].to_pylist() == [None, QUERY, None, None, None]
    assert "'a': 'edge'" in repr(result[0])


def test_numbers_are_averaged_with_an_error(known):
    result = known.classify(QUERY, "numbers", k=4, weight="uniform")
    values = [voter.label for voter in result]
    assert values == [known[voter.object_id].mag_r for voter in result]
    assert result.value == pytest.approx(np.mean(values))
    assert result.uncertainty > 0 and result.calibrated and result.label is None
    assert result.neighbors.column_names == ["object_id", "distance", "weight", "value"]


def test_errors_of_numbers_hold_two_thirds_of_the_members(open_folder):
    ids = open_folder.sql("SELECT object_id FROM knowledge_labels WHERE base = 'numbers'")["object_id"].to_pylist()
    table = open_folder.classify(ids, "numbers", k=5, max_distance=math.inf).table
    truth = np.array([open_folder[name].mag_r for name in ids])
    inside = np.abs(truth - table["value"].to_numpy()) <= table["uncertainty"].to_numpy()
    assert inside.mean() == pytest.approx(votes.ONE_SIGMA, abs=0.02)


def test_a_column_is_a_base_of_all_objects_that_have_it(open_folder):
    base = open_folder.base("survey")
    column = open_folder.sql("SELECT survey, count(*) AS n FROM galaxies WHERE survey IS NOT NULL GROUP BY survey")
    assert base.counts == dict(zip(*column.to_pydict().values(), strict=True)) and base.version == 0
    result = open_folder.classify(QUERY, "survey", k=3)
    assert {voter.label for voter in result} <= set(base.counts)
    assert open_folder.classify(QUERY, "z").value == pytest.approx(0.1, abs=0.1)  # all z lie between 0 and 0.2


def test_blank_texts_of_a_column_are_no_labels_and_long_ones_no_classes(home, tmp_path):
    path = Path(shutil.copyfile(home / "kb.duckdb", tmp_path / "blank.duckdb"))
    with galsearch.open(path) as atlas:
        expected = atlas.base("survey").counts
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE galaxies SET survey = if(z < 0.1, '', ' ') WHERE survey IS NULL")
    with galsearch.open(path) as atlas:
        assert atlas.count("trim(survey) = ''") and atlas.base("survey").counts == expected
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE galaxies SET survey = repeat('x', 5000) WHERE trim(survey) = ''")
    with galsearch.open(path) as atlas, pytest.raises(QueryError, match=r"label of 5000 .*, at most 200") as caught:
        atlas.base("survey")
    assert len(str(caught.value)) < 300


def test_whole_numbers_beyond_the_precision_of_floats_are_numbers():
    numbers = members_of(np.arange(2), pa.array([2**60 + 1, 3]), "number")
    assert numbers.values.tolist() == [float(2**60 + 1), 3.0]


def test_nothing_is_said_where_voters_are_far(open_folder):
    far = open_folder.embed(open_folder[QUERY]) * -1
    result = open_folder.classify(far, "shapes")
    assert (result.label, result.reason) == (None, "far") and result.best in LABELS
    assert open_folder.classify(far, "shapes", max_distance=2.0, least=0.0).reason != "far"
    assert open_folder.classify(far, "numbers").value is None


def test_nothing_is_said_where_voters_are_split(open_folder):
    halves = open_folder.classify(QUERY, "shapes", k=2, least=1.0)
    assert (halves.label, halves.reason, halves.best) == (None, "split", "edge")


def test_prevalence_is_a_correction_by_bayes(home, folder_path):
    rare = f"SELECT object_id, if({SHAPE} = 'edge', 'edge', 'other') AS label FROM galaxies"
    base = galsearch.create_base(folder_path, "edges", rare, target="edge", share=0.5)
    assert base.counts["edge"] == base.counts["other"] == 75
    with galsearch.open(folder_path, device="cpu") as atlas:
        before = atlas.classify(QUERY, "edges").probabilities["edge"]
        odds = before / (1 - before) * (0.01 / 0.99)
        for prevalence in (0.01, {"edge": 0.01}, {"other": 0.99}):
            after = atlas.classify(QUERY, "edges", prevalence=prevalence).probabilities["edge"]
            assert after == pytest.approx(odds / (1 + odds))
        assert atlas.classify(QUERY, "edges", prevalence=0.5).probabilities["edge"] == pytest.approx(before)


def test_every_weight_counts_as_the_science_says(open_folder):
    for weight in votes.WEIGHTS:
        result = open_folder.classify(QUERY, "shapes", k=5, weight=weight, tau=0.2)
        distance = np.array([[voter.distance for voter in result]])
        assert [voter.weight for voter in result] == pytest.approx(
            votes.weights(distance, weight=weight, tau=0.2)[0].tolist()
        )


def test_probabilities_are_stored_for_common_ways_and_the_same_when_worked_out_again(open_folder, monkeypatch):
    stored = open_folder.classify(QUERY, "shapes", k=5)
    assert {(one["k"], one["weight"]) for one in open_folder.base("shapes").calibration["fits"]} == {
        (k, weight) for k in heldout.DEPTHS for weight in votes.WEIGHTS
    }
    assert open_folder.classify(QUERY, "shapes", k=4).calibrated  # not stored, fitted now
    electorate = open_folder._electorate("shapes", None, None)
    monkeypatch.setattr(electorate, "_stored", lambda *_: None)
    monkeypatch.setattr(electorate, "_fits", {})
    again = open_folder.classify(QUERY, "shapes", k=5)
    assert again.probabilities == pytest.approx(stored.probabilities, abs=1e-6)


def test_few_members_give_shares_of_votes_and_say_so(folder_path):
    galsearch.create_base(folder_path, "few", f"{SELECT} AND object_id < '{tiny.object_id(12)}'")
    with galsearch.open(folder_path, device="cpu") as atlas:
        result = atlas.classify(QUERY, "few", k=3, weight="uniform")
        assert not result.calibrated and result.reason != "far"
        assert result.probability == pytest.approx(result.support / 3)


@pytest.mark.slow
def test_cells_find_nearly_what_comparing_all_finds(tmp_path, tiny_models, monkeypatch):
    monkeypatch.setattr("galsearch.knowledge.heldout.LEAST_HELD_OUT", 10_000)  # no calibration
    vectors = tiny.random_units(3_000, 16, seed=9, groups=12)
    ids, labels = [f"o{row:04d}" for row in range(3_000)], [f"c{row % 3}" for row in range(3_000)]
    source = tiny.parquet(tmp_path / "v.parquet", object_id=ids, label=labels, v=vectors.tolist())
    galsearch.build(tmp_path / "v.atlas", table=source, vectors="v", model="random", models=tiny_models)
    galsearch.create_base(tmp_path / "v.atlas", "thirds", "SELECT object_id, label FROM galaxies")
    bundle = galsearch.bundle(tmp_path / "v.atlas", tmp_path / "v.duckdb")
    with tiny.tuned(bundle, exact_matches=64) as atlas:
        asked = [f"o{row:04d}" for row in range(0, 3_000, 30)]
        exact = atlas.classify(asked, "thirds", k=5, exact=True)
        cells = atlas.classify(asked, "thirds", k=5)
        assert exact.neighbors.exact and exact.neighbors.scanned == 3_000 * 100
        assert cells.neighbors.scanned < exact.neighbors.scanned
        same = [
            set(a) & set(b)
            for a, b in zip(exact.table["neighbors"].to_pylist(), cells.table["neighbors"].to_pylist(), strict=True)
        ]
        assert sum(map(len, same)) >= 0.95 * 500


@pytest.mark.slow
def test_voters_carry_their_line_ratios_where_lines_were_measured(run, tmp_path):
    kinds = {f"{kind}-{number}": (kind, 0.02 + 0.01 * number) for kind in ("young", "old") for number in range(3)}
    kinds = {name: ("passive" if kind == "old" else kind, z) for name, (kind, z) in kinds.items()}
    models, files = write_models(tmp_path / "models"), write_spectra(tmp_path / "spectra", kinds)
    table = tmp_path / "t.csv"  # has a column of the name of a measure, which is then another
    table.write_text("object_id,log_oiii_hbeta\n" + "".join(f"{name},9\n" for name in kinds))
    path = tmp_path / "s.atlas"
    galsearch.build(path, spectra=files, table=table, models=models)
    galsearch.create_base(path, "age", "SELECT object_id, split_part(object_id, '-', 1) AS age FROM galaxies")
    with galsearch.open(path) as atlas:
        votes = atlas.classify("young-0", "age", k=5)
        names = ["log_nii_halpha", "log_oiii_hbeta_measured"]
        assert votes.neighbors.column_names[4:] == names
        truth = atlas.rows([voter.object_id for voter in votes]).select(names).to_pydict()
        assert votes.neighbors.select(names).to_pydict() == truth
        by_id = dict(zip(votes.neighbors["object_id"].to_pylist(), truth["log_nii_halpha"], strict=True))
        assert by_id["young-1"] == pytest.approx(math.log10(1.5 / 4.5), abs=0.03) and by_id["old-1"] is None
        shown = atlas.classify("young-0", "age", columns=["z"]).neighbors
        assert shown.column_names[4:] == ["z"]
    _, printed, _ = run("classify", path, "age", "young-0", "--voters", "--format", "csv")
    assert next(csv.reader(io.StringIO(printed)))[-2:] == names


@pytest.mark.slow
def test_another_embedding_has_bases_of_its_own(tiny_folder, tmp_path):
    path = tiny.add_spectra(tiny_folder, tmp_path / "two.atlas")
    base = galsearch.create_base(path, "spectral", SMALL, by="spectrum")
    with_one = [row for row in range(30) if row % 10 < 7 and tiny.spectrum(row) is not None]
    assert (base.embedding, base.rows, base.left_out) == ("spectrum", len(with_one), 21 - len(with_one))
    bundle = galsearch.bundle(path, tmp_path / "two.duckdb")
    for form in (path, bundle):
        with galsearch.open(form, device="cpu") as atlas:
            result = atlas.classify(QUERY, "spectral", k=3)
            vectors = np.stack([tiny.spectrum(row) for row in with_one])
            best = np.argsort(-(vectors @ tiny.spectrum(8)), kind="stable")[:3]
            assert [v.object_id for v in result] == [tiny.object_id(with_one[row]) for row in best]
            table = atlas.sql(f"FROM vote_spectrum('{QUERY}', 'spectral')")
            assert dict(zip(table["label"].to_pylist(), table["weight"].to_pylist(), strict=True)) == pytest.approx(
                result.weights, abs=1e-3
            )
            with pytest.raises(QueryError, match="no knowledge base 'spectral' of classes that compares image"):
                atlas.sql(f"FROM vote('{QUERY}', 'spectral')")
            with pytest.raises(QueryError, match="compares 'spectrum', and by is 'image'"):
                atlas.classify(QUERY, "spectral", by="image")
            several = atlas.classify([QUERY, tiny.object_id(4)], "spectral")  # every fifth has no spectrum
            assert several.table["reason"].to_pylist() == [None, "without a vector"]
            assert several[1].best is None and len(several[1]) == 0
            assert several.table["probability"][1].as_py() is None and several.table["distance"][1].as_py() is None
            with pytest.raises(QueryError, match="has no vector"):
                atlas.classify(tiny.object_id(4), "spectral")
            assert atlas.classify(QUERY, "survey", by="spectrum").base.embedding == "spectrum"


# ---- the macro


def test_the_macro_counts_as_python_does(known):
    for row in (8, 5, 299, 0):
        result = known.classify(tiny.object_id(row), "shapes", k=5)
        table = known.sql(f"FROM vote('{tiny.object_id(row)}', 'shapes', k := 5)").to_pylist()
        assert [one["label"] for one in table] == list(result.weights)
        assert [one["weight"] for one in table] == pytest.approx(list(result.weights.values()), abs=2e-3)
        assert sum(one["probability"] for one in table) == pytest.approx(1)
        named = sorted((n["distance"], n["object_id"]) for one in table for n in one["neighbors"])
        assert sorted(name for _, name in named) == sorted(voter.object_id for voter in result)
        assert [distance for distance, _ in named] == pytest.approx([v.distance for v in result], abs=2e-3)


def test_the_macro_takes_a_vector_and_the_last_version(folder_path):
    galsearch.create_base(
        folder_path, "shapes", "SELECT object_id, survey FROM galaxies WHERE survey IS NOT NULL" + FEW
    )
    galsearch.create_base(folder_path, "shapes", SMALL)
    with galsearch.open(folder_path, device="cpu") as atlas:
        vector = (2 * atlas.embed(atlas[QUERY])).tolist()
        table = atlas.sql(f"FROM vote({vector}, 'shapes')").to_pylist()
        assert [one["label"] for one in table] == ["edge"] and len(table[0]["neighbors"]) == 3


@pytest.mark.parametrize("name", ["kb.duckdb", "compact.duckdb"])
def test_duckdb_alone_classifies(home, name):
    with duckdb.connect(home / name, read_only=True) as connection, galsearch.open(home / name) as atlas:
        rows = connection.execute(f"SELECT label, weight FROM vote('{QUERY}', 'shapes', k := 4)").fetchall()
        assert dict(rows) == pytest.approx(atlas.classify(QUERY, "shapes", k=4).weights, abs=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (f"vote('{QUERY}', 'nothing')", "no knowledge base 'nothing'"),
        (f"vote('{QUERY}', 'numbers')", "no knowledge base 'numbers' of classes"),
        (f"vote('{QUERY}', NULL)", "no knowledge base 'NULL'"),
        ("vote('nobody', 'shapes')", "'nobody' is neither a vector nor an object"),
        ("vote(NULL, 'shapes')", "neither a vector nor an object"),
        ("vote([0.0, 0.0], 'shapes')", "length 0"),
        ("vote([1.0, 2.0], 'shapes')", "length 2"),
    ],
)
def test_the_macro_says_what_is_wrong(known, call, message):
    with pytest.raises(QueryError, match=message):
        known.sql(f"FROM {call}")


def test_visitors_classify_and_vote(home):
    with galsearch.open(home / "kb.duckdb", visitors=galsearch.Limits()) as atlas:
        assert atlas.classify(QUERY, "shapes").label == "edge"
        assert atlas.classify(QUERY, "survey").neighbors.num_rows == 3
        assert atlas.sql(f"SELECT label FROM vote('{QUERY}', 'shapes')")["label"].to_pylist() == ["edge"]


# ---- versions


@pytest.mark.slow
def test_a_version_never_changes_and_is_kept_until_it_is_dropped(folder_path):
    first = galsearch.create_base(folder_path, "shapes", SMALL)
    second = galsearch.create_base(
        folder_path, "shapes", f"SELECT object_id, {SHAPE} AS shape FROM galaxies WHERE true{FEW}"
    )
    galsearch.create_base(folder_path, "other", SMALL)
    assert (first.version, second.version, first.rows, second.rows) == (1, 2, 21, 30)
    with galsearch.open(folder_path, device="cpu") as atlas:
        names = list(zip(*(atlas.bases()[key].to_pylist() for key in ("base", "version", "rows")), strict=True))
        assert names == [("other", 1, 21), ("shapes", 1, 21), ("shapes", 2, 30)]
        assert atlas.base("shapes") == second and atlas.base("shapes", version=1) == first
        assert first.counts == atlas.base("shapes", version=1).counts
        old = atlas.classify(QUERY, "shapes", version=1)
    assert galsearch.drop_base(folder_path, "shapes", version=2) == 1
    third = galsearch.create_base(folder_path, "shapes", NUMBERS + FEW)
    assert third.version == 3  # a number is never used for other members
    with galsearch.open(folder_path, device="cpu") as atlas:
        assert atlas.classify(QUERY, "shapes", version=1).neighbors.equals(old.neighbors)
        assert atlas.classify(QUERY, "shapes").value is not None
        with pytest.raises(QueryError, match="no version 2 of base 'shapes', it has 1, 3"):
            atlas.classify(QUERY, "shapes", version=2)
        assert [record["action"] for record in atlas.manifest.provenance] == [
            *("build", "kb create", "kb create", "kb create", "kb drop", "kb create")
        ]
        assert all(finding.ok for finding in atlas.check())
    assert galsearch.drop_base(folder_path, "shapes") == 2
    with galsearch.open(folder_path) as atlas:
        assert atlas.bases()["base"].to_pylist() == ["other"]
        assert set(atlas.sql("SELECT base FROM knowledge_labels")["base"].to_pylist()) == {"other"}


@pytest.mark.slow
def test_a_base_is_the_same_for_the_same_seed_and_of_the_stated_share(folder_path):
    bases = [
        galsearch.create_base(folder_path, name, SMALL, target="ring", share=0.5, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert all(base.counts["ring"] == base.rows - base.counts["ring"] for base in bases)
    with galsearch.open(folder_path) as atlas:
        drawn = [
            set(atlas.sql(f"SELECT object_id FROM knowledge_labels WHERE base = '{b.name}'")["object_id"].to_pylist())
            for b in bases
        ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_a_base_survives_adding_and_a_part_of_an_atlas_has_none(home, tmp_path):
    with galsearch.open(home / "kb.duckdb", device="cpu") as atlas:
        part = atlas.search(where="z < 0.05", k=100).bundle(tmp_path / "part.duckdb")
        everything = galsearch.bundle(home / "kb.duckdb", tmp_path / "again.duckdb")
        expected = atlas.classify(QUERY, "shapes").neighbors
    with galsearch.open(part, device="cpu") as atlas:
        assert atlas.bases().num_rows == 0
        with pytest.raises(QueryError, match="vote"):
            atlas.sql(f"FROM vote('{QUERY}', 'shapes')")
    with galsearch.open(everything, device="cpu") as atlas:
        assert atlas.classify(QUERY, "shapes").neighbors.equals(expected)


# ---- label noise


def test_members_that_disagree_with_all_neighbors_are_listed_the_surest_first(folder_path, monkeypatch):
    monkeypatch.setattr("galsearch.knowledge.heldout.LEAST_HELD_OUT", 10_000)  # no calibration
    wrong = [tiny.object_id(row) for row in (40, 81)]
    select = f"SELECT object_id, if(object_id IN {tuple(wrong)}, 'face', {SHAPE}) AS shape FROM galaxies"
    galsearch.create_base(folder_path, "noisy", select)
    with galsearch.open(folder_path, device="cpu") as atlas:
        table = atlas.audit("noisy")
        assert sorted(table["object_id"].to_pylist()) == wrong
        says = dict(zip(table["object_id"].to_pylist(), table["neighbors_say"].to_pylist(), strict=True))
        assert says == {name: label_of(name) for name in wrong}
        assert table["share"].to_pylist() == sorted(table["share"].to_pylist(), reverse=True)


def test_numbers_far_from_those_of_their_neighbors_are_listed(folder_path):
    odd = tiny.object_id(40)
    galsearch.create_base(
        folder_path, "noisy", f"SELECT object_id, CASE object_id WHEN '{odd}' THEN 90 ELSE mag_r END AS m FROM galaxies"
    )
    with galsearch.open(folder_path, device="cpu") as atlas:
        table = atlas.audit("noisy", k=20)
        assert table["object_id"][0].as_py() == odd and table["sigmas"][0].as_py() > 3


# ---- judging a base


def test_a_base_is_judged_on_members_that_do_not_vote(open_folder):
    table = galsearch.evaluate_base(open_folder, "shapes", target="ring", shares=[0.25], ks=[1, 5], weights=["uniform"])
    ids = members(open_folder)
    rows = {
        name: row for row, name in enumerate(open_folder.sql("SELECT object_id FROM galaxies")["object_id"].to_pylist())
    }
    ids = sorted(ids, key=rows.__getitem__)
    half, truth = fold_of(ids, 2, 0), np.array([label_of(name) == "ring" for name in ids])
    voters, tested = np.flatnonzero(half == 0), np.flatnonzero(half == 1)
    voters = voters[votes.drawn_to_share(truth[voters], 0.25, seed=0)]
    vectors = np.stack([open_folder.embed(open_folder[name]) for name in ids]).astype(np.float64)
    for row, k in zip(table.to_pylist(), (1, 5), strict=True):
        order, _ = nearest_of(vectors[voters], vectors[tested], k)
        called = truth[voters][order].mean(axis=1) > 0.5
        hits = (called & truth[tested]).sum()
        assert (row["members"], row["tested"], row["targets"]) == (len(voters), len(tested), truth[tested].sum())
        assert row["recall"] == pytest.approx(hits / truth[tested].sum())
        assert row["precision"] == pytest.approx(hits / called.sum())
        assert row["recall_low"] <= row["recall"] <= row["recall_high"]
        false = (called & ~truth[tested]).sum() / (~truth[tested]).sum()
        assert row["precision_there"] == pytest.approx(0.01 * row["recall"] / (0.01 * row["recall"] + 0.99 * false))
        assert row["precision_there_low"] < 1 and row["exact_ms"] > 0 and row["cells_ms"] > 0


def nearest_of(known: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    cosines = queries @ known.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


def test_precision_recall_and_f1_are_those_of_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    truth, called = rng.random(200) < 0.3, rng.random(200) < 0.4
    result = bases._figures(called, truth, bases._counts(200, 0), 0.05)
    theirs = precision_recall_fscore_support(truth, called, average="binary")[:3]
    assert [result[name] for name in ("precision", "recall", "f1")] == pytest.approx(theirs)
    assert result["f1_low"] < result["f1"] < result["f1_high"]


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ("numbers", {"target": "ring"}, "votes on numbers"),
        ("shapes", {}, "target is None, expected one of edge, face"),
        ("shapes", {"target": "bar"}, "target is 'bar'"),
        ("shapes", {"target": "ring", "prevalence": 2}, "prevalence is 2"),
        ("shapes", {"target": "ring", "weights": ["x"]}, "weight is 'x'"),
        ("shapes", {"target": "ring", "ks": [1000]}, "too few members"),
        ("shapes", {"target": "ring", "prevalence": "x"}, "prevalence is 'x'"),
        ("shapes", {"target": "ring", "shares": [0.1, 0]}, "share is 0, expected a number between 0 and 1"),
        ("shapes", {"target": "ring", "shares": [1]}, "share is 1, expected"),
        ("shapes", {"target": "ring", "shares": [math.nan]}, "share is nan"),
        ("shapes", {"target": "ring", "shares": []}, "shares is .*, expected a list of one or more"),
        ("shapes", {"target": "ring", "ks": [3, 0]}, "k is 0, expected a whole number from 1"),
        ("shapes", {"target": "ring", "ks": [-1]}, "k is -1"),
        ("shapes", {"target": "ring", "ks": [1.5]}, "k is 1.5"),
        ("shapes", {"target": "ring", "seed": -1}, "seed is -1"),
        ("shapes", {"target": "ring", "tau": 1e200}, "tau is 1e.200"),
    ],
)
def test_a_base_that_cannot_be_judged_is_one_clear_error(open_folder, base, options, message):
    with pytest.raises(QueryError, match=message):
        galsearch.evaluate_base(open_folder, base, **options)


# ---- what is refused, and writes nothing


@pytest.mark.parametrize(
    ("select", "options", "message"),
    [
        ("SELECT object_id, 'a' AS label FROM galaxies", {}, "every label is 'a'"),
        ("SELECT object_id, nothing FROM galaxies", {}, "nothing"),
        ("SELECT object_id, survey FROM galaxies WHERE z > 9", {}, "gives no row"),
        ("SELECT object_id, survey FROM galaxies", {}, "labels are NULL; add WHERE survey IS NOT NULL"),
        ("SELECT object_id, 'nan'::DOUBLE AS v FROM galaxies", {}, r"NULL, infinite or NaN; add WHERE isfinite\(v\)"),
        ("SELECT object_id, 'inf'::FLOAT AS v FROM galaxies", {"kind": "class"}, r"add WHERE isfinite\(v\)"),
        (
            f"SELECT object_id, if({SHAPE} = 'edge', ' \t', 'x') AS v FROM galaxies",
            {},
            r"75 of 300 labels are NULL or blank; add WHERE regexp_matches\(v, '\\S'\)",
        ),
        (
            "SELECT object_id, repeat('x', 200) || object_id AS v FROM galaxies",
            {},
            r"a label of 2\d\d characters, '[^ ]{,50}…, at most 200 .* left\(v, 200\)",
        ),
        (SELECT, {"seed": -5}, "seed is -5, expected a whole number from 0 to 9223372036854775807"),
        (SELECT, {"seed": 10**20}, "seed is 100000000000000000000, expected"),
        (SELECT, {"seed": 1.5}, "seed is 1.5, expected"),
        (SELECT, {"target": "edge", "share": math.nan}, "share is nan, expected"),
        (SELECT, {"target": "spiral"}, "target 'spiral' is not among the labels: edge, face, ring, round"),
        (SELECT, {"kind": "number"}, "is text, and text cannot be averaged"),
        (SELECT, {"target": "edge", "kind": "number"}, "base of numbers has no classes"),
        (SELECT, {"share": 0.3}, "share is 0.3 of no class"),
        (SELECT, {"target": "edge", "share": 30}, "share is 30, expected a number between 0 and 1"),
        (SELECT, {"target": "edge", "share": 0.0001}, "cannot be drawn"),
        (SELECT, {"columns": ["nothing"]}, "no column 'nothing' to show"),
        (SELECT, {"by": "radio"}, "no embedding 'radio', it has: image"),
        ("SELECT object_id, z, mag_r FROM galaxies", {}, "expected two columns"),
        ("SELECT survey, z FROM galaxies", {}, "expected two columns"),
        ("SELECT 'x' || object_id AS object_id, survey FROM galaxies WHERE survey IS NOT NULL", {}, "not in galaxies"),
        ("SELECT object_id, 1.5 AS v FROM galaxies UNION ALL SELECT object_id, 2 FROM galaxies", {}, "more than once"),
        ("SELECT 1 AS object_id, 2 AS v", {}, "object_id is int32"),
        ("SELECT object_id, object_id AS label FROM galaxies", {}, "has 300 classes"),
        ("SELECT object_id, [1] AS label FROM galaxies", {}, "labels are text or numbers"),
        ("SELECT object_id, embed(survey)[1] AS v FROM galaxies", {}, "embed.. has no encoder"),
        ("DROP TABLE galaxies", {}, "expected one SELECT"),
        ("SELECT object_id, survey FROM read_csv('x.csv')", {}, "sql:"),
    ],
)
def test_a_select_that_gives_no_base_is_one_clear_error_and_writes_nothing(
    folder_path, monkeypatch, select, options, message
):
    monkeypatch.setattr("galsearch.knowledge.members.MOST_CLASSES", 100)
    before = crash.files(folder_path)
    with pytest.raises(QueryError, match=message):
        galsearch.create_base(folder_path, "bad", select, **options)
    assert crash.files(folder_path) == before


@pytest.mark.parametrize("name", ["", "1a", "a b", "a'b", "é", "a" * 64, None])
def test_a_base_needs_a_plain_name(folder_path, name):
    with pytest.raises(QueryError, match="cannot be called"):
        galsearch.create_base(folder_path, name, SELECT)


def test_a_bundle_is_never_changed(home):
    for change in (
        lambda: galsearch.create_base(home / "kb.duckdb", "x", SELECT),
        lambda: galsearch.drop_base(home / "kb.duckdb", "shapes"),
    ):
        with pytest.raises(GalsearchError, match="folder, then bundle it again"):
            change()


def test_a_base_that_there_is_not_cannot_be_dropped(folder_path):
    before = crash.files(folder_path)
    with pytest.raises(QueryError, match="no knowledge base 'x', it has: none yet"):
        galsearch.drop_base(folder_path, "x")
    assert crash.files(folder_path) == before


def test_a_version_that_another_has_written_meanwhile_is_not_replaced(folder_path, monkeypatch):
    galsearch.create_base(folder_path, "shapes", SMALL)
    monkeypatch.setattr("galsearch.knowledge.bases._last_version", lambda *_: 0)
    with pytest.raises(GalsearchError, match="another has written"):
        galsearch.create_base(folder_path, "shapes", NUMBERS + FEW)
    with galsearch.open(folder_path) as atlas:
        assert atlas.base("shapes").kind == "class"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "nothing"}, "neither a knowledge base nor a column 'nothing'; its bases are"),
        ({"k": 0}, "k is 0"),
        ({"k": 211}, "only 210 members of base 'shapes' can vote"),
        ({"k": 2.5}, "k is 2.5"),
        ({"weight": "linear"}, "weight is 'linear', expected one of uniform"),
        ({"tau": 0}, "tau is 0"),
        ({"tau": 1e200, "weight": "gaussian"}, "tau is 1e.200, expected a distance from 1e-06 to 1e.06"),
        ({"tau": 1e-200}, "tau is 1e-200"),
        ({"base": 3}, "base is 3, expected the name"),
        ({"least": 1.5}, "least is 1.5"),
        ({"max_distance": -1}, "max_distance is -1"),
        ({"version": 7}, "no version 7"),
        ({"columns": ["nothing"]}, "no column 'nothing'"),
        ({"prevalence": 0.1}, "has no target"),
        ({"prevalence": {"spiral": 0.1}}, "prevalence names 'spiral'"),
        ({"prevalence": {"edge": 1.1}}, "is 1.1, expected a share"),
        ({"prevalence": dict.fromkeys(LABELS, 0.3)}, "add up to 1.2"),
        ({"base": "numbers", "prevalence": 0.1}, "votes on numbers"),
        ({"what": 3}, "cannot classify what is of the type int"),
        ({"what": [b"x"]}, "of the type bytes"),
    ],
)
def test_a_vote_that_cannot_be_counted_is_one_clear_error(open_folder, options, message):
    options = {"what": QUERY, "base": "shapes", **options}
    with pytest.raises(QueryError, match=message):
        open_folder.classify(options.pop("what"), options.pop("base"), **options)


def test_an_unknown_object_is_named(open_folder):
    with pytest.raises(UnknownIdError, match="nobody"):
        open_folder.classify(["nobody"], "shapes")


def test_a_member_has_one_voter_less(open_folder):
    member = members(open_folder)[0]
    assert len(open_folder.classify(QUERY, "shapes", k=210)) == 210
    with pytest.raises(QueryError, match="only 209 members"):
        open_folder.classify(member, "shapes", k=210)


def test_several_atlases_have_no_base_in_common(home):
    both = galsearch.open([home / "kb.duckdb", home / "kb.atlas"], device="cpu")
    with both as atlas, pytest.raises(QueryError, match=r"belongs to one atlas.* open one of them alone"):
        atlas.classify(QUERY, "shapes")


# ---- a stranger's file


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE knowledge_labels SET label = NULL",
        "INSERT INTO knowledge_labels SELECT * FROM knowledge_labels",
        "UPDATE knowledge_bases SET kind = 'x'",
        "UPDATE knowledge_bases SET calibration = '{'",
        pytest.param("UPDATE knowledge_bases SET calibration = '[]'", marks=pytest.mark.slow),
        pytest.param("""UPDATE knowledge_bases SET calibration = '{"far": "x"}'""", marks=pytest.mark.slow),
        """UPDATE knowledge_bases SET calibration = '{"far": 1, "fits": [{"k": 3, "weight": "exp", "tau": 1.0}]}'""",
        "ALTER TABLE knowledge_bases ALTER version TYPE VARCHAR",
        pytest.param("UPDATE knowledge_bases SET version = NULL", marks=pytest.mark.slow),
        "DROP TABLE knowledge_labels; CREATE VIEW knowledge_labels AS SELECT 1 AS a",
        "ALTER TABLE knowledge_labels DROP COLUMN label",
    ],
)
def test_a_base_that_a_stranger_has_bent_is_one_format_error(home, tmp_path, change):
    path = Path(shutil.copyfile(home / "kb.duckdb", tmp_path / "bent.duckdb"))
    with duckdb.connect(path) as connection:
        connection.execute(change)
    with pytest.raises(FormatError), galsearch.open(path, device="cpu") as atlas:
        atlas.classify(QUERY, "shapes")


@pytest.mark.parametrize(
    "change",
    [
        None,
        "DELETE FROM knowledge_labels WHERE label = 'ring'",
        "INSERT INTO knowledge_labels VALUES ('shapes', 1, 'nobody', 'lie', NULL)",
        "INSERT INTO knowledge_labels VALUES ('unknown', 1, 'nobody', 'lie', NULL)",
        pytest.param("UPDATE knowledge_labels SET value = 3", marks=pytest.mark.slow),
        pytest.param("UPDATE knowledge_bases SET kind = 'number'", marks=pytest.mark.slow),
        "DROP TABLE knowledge_labels",
    ],
)
def test_check_compares_members_with_their_base(home, tmp_path, change):
    path = Path(shutil.copyfile(home / "kb.duckdb", tmp_path / "bent.duckdb"))
    if change is not None:
        with duckdb.connect(path) as connection:
            connection.execute(change)
    with galsearch.open(path, device="cpu") as atlas:
        findings = [finding.name for finding in atlas.check() if not finding.ok]
    assert ("knowledge bases" in findings) == (change is not None)


def test_a_stranger_s_macro_by_the_name_is_not_called(home, tmp_path):
    path = Path(shutil.copyfile(home / "kb.duckdb", tmp_path / "bent.duckdb"))
    with duckdb.connect(path) as connection:
        connection.execute("CREATE OR REPLACE MACRO vote(q, named, k := 3) AS TABLE SELECT 'lie' AS label")
    with galsearch.open(path) as atlas:
        assert atlas.sql(f"SELECT label FROM vote('{QUERY}', 'shapes')")["label"].to_pylist() == ["edge"]


def test_labels_of_objects_that_there_are_not_have_no_vote(home, tmp_path):
    path = Path(shutil.copyfile(home / "kb.duckdb", tmp_path / "more.duckdb"))
    with duckdb.connect(path) as connection:
        connection.execute("INSERT INTO knowledge_labels VALUES ('shapes', 1, 'nobody', 'lie', NULL)")
    with galsearch.open(path, device="cpu") as atlas:
        assert "lie" not in atlas.base("shapes").counts


def test_an_atlas_without_bases_opens_and_says_that_there_is_none(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        assert atlas.bases().num_rows == 0
        with pytest.raises(QueryError, match="it has no base yet"):
            atlas.classify(QUERY, "shapes")


def test_the_tables_are_those_of_the_schema(home):
    with duckdb.connect(home / "kb.duckdb", read_only=True) as connection:
        for table in ("knowledge_bases", "knowledge_labels"):
            rows = connection.execute(f"DESCRIBE {table}").fetchall()
            assert [(name, kind) for name, kind, *_ in rows] == [(c.name, c.type) for c in schema.TABLES[table]]
            described = connection.execute(
                'SELECT "column" FROM galsearch_columns WHERE "table" = $1', [table]
            ).fetchall()
            assert {name for (name,) in described} == {c.name for c in schema.TABLES[table]}


# ---- kills


@pytest.mark.slow
def test_killed_at_any_moment_there_is_the_base_or_none(folder_path, tmp_path):
    trial = Path(shutil.copytree(folder_path, tmp_path / "trial.atlas"))
    words = ["kb", "create", "ATLAS", "shapes", "--from", SELECT]
    landed = []
    with crash.Crew(spare=1) as crew:
        last = crew.start("cli", {"arguments": [str(trial) if part == "ATLAS" else part for part in words]}).finish()
        assert last["result"]["status"] == 0
        job = {"arguments": [str(folder_path) if part == "ATLAS" else part for part in words]}
        for moment in [
            *range(1, last["moments"] + 1, max(1, last["moments"] // 6)),
            "os.rename galaxies.duckdb.partial",
        ]:
            crew.start("cli", job, stop=(moment, "SIGKILL")).killed_after(crash.WAIT_SECONDS)
            with galsearch.open(folder_path, device="cpu") as atlas:
                landed.append(atlas.bases().num_rows)
                assert all(finding.ok for finding in atlas.check())
                assert not landed[-1] or atlas.classify(QUERY, "shapes").label == "edge"
    assert landed[0] == 0
    assert landed == sorted(landed)


# ---- the command line


@pytest.mark.slow
def test_the_command_line_creates_lists_shows_and_drops(run, folder_path):
    code, out, error = run("kb", "create", folder_path, "edges", "--from", SMALL, "--target", "edge", "--share", "0.3")
    assert (code, out) == (0, "") and "base edges, version 1:" in error and "edge: " in error
    code, out, _ = run("kb", "list", folder_path, "--format", "json")
    (row,) = json.loads(out)["rows"]
    assert code == 0 and (row["base"], row["version"], row["target"], row["share"]) == ("edges", 1, "edge", 0.3)
    code, out, _ = run("kb", "show", folder_path, "edges")
    assert code == 0 and "sql            SELECT object_id" in out and "edge: " in out
    code, out, error = run("kb", "drop", folder_path, "edges")
    assert (code, out) == (0, "") and "dropped 1 version of base edges" in error
    code, _, error = run("kb", "drop", folder_path, "edges")
    assert code == 1 and error.startswith("galsearch: ") and "no knowledge base 'edges'" in error


def test_the_command_line_classifies_as_python_does(run, home, open_folder):
    code, out, error = run("classify", home / "kb.atlas", "shapes", QUERY, "--format", "csv", "-k", 5)
    (row,) = csv.DictReader(io.StringIO(out))
    expected = open_folder.classify(QUERY, "shapes", k=5)
    assert code == 0 and row["label"] == "edge" and float(row["probability"]) == expected.probability
    assert "edge: 1" in error
    code, out, _ = run("classify", home / "kb.atlas", "shapes", QUERY, "--voters", "--format", "csv")
    assert [row["object_id"] for row in csv.DictReader(io.StringIO(out))] == [
        voter.object_id for voter in open_folder.classify(QUERY, "shapes")
    ]
    code, out, _ = run("classify", home / "kb.atlas", "shapes", "--where", "mag_r < 14", "--format", "csv")
    where = open_folder.search(where="mag_r < 14", k=300)
    assert [row["object_id"] for row in csv.DictReader(io.StringIO(out))] == where.ids
    code, out, error = run("kb", "audit", home / "kb.atlas", "numbers", "--format", "csv")
    assert code == 0 and out.startswith('"object_id"')
    assert "differ by more than three sigma from the vote of their 10 nearest others" in error


def test_both_names_of_the_evaluation_of_a_base_print_its_rows(run, home):
    options = (
        "shapes",
        "--target",
        "ring",
        "--shares",
        "0.25,0.5",
        "--ks",
        "1,3",
        "--weights",
        "exp,rank",
        "--format",
        "csv",
    )
    code, out, _ = run("evaluate", "kb", home / "kb.atlas", *options)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [(row["k"], row["weight"]) for row in rows] == 2 * [
        ("1", "exp"),
        ("1", "rank"),
        ("3", "exp"),
        ("3", "rank"),
    ]
    again = list(csv.DictReader(io.StringIO(run("kb", "evaluate", home / "kb.atlas", *options)[1])))
    assert [row["f1"] for row in again] == [row["f1"] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "message", "expected"),
    [
        (("classify", "ATLAS", "shapes"), "name objects", 2),
        (("classify", "ATLAS", "labels.yaml", QUERY), "galsearch label", 2),
        (("classify", "ATLAS", "shapes", QUERY, "--prevalence", "often"), "expected a number", 2),
        (("classify", "ATLAS", "shapes", QUERY, "-k", "500"), "only 210 members", 1),
        (("classify", "ATLAS", "shapes", QUERY, "--z", "0.1"), "give --spectrum", 2),
        (("kb", "evaluate", "ATLAS", "shapes", "--ks", "2.7"), "is not whole numbers", 2),
        (("kb", "evaluate", "ATLAS", "shapes", "--ks", "nan"), "is not whole numbers", 2),
        (("kb", "evaluate", "ATLAS", "shapes", "--shares", "0"), "share is 0.0, expected", 1),
        (("kb", "create", "ATLAS", "x"), "nothing says who is labeled", 1),
        (("kb", "show", "ATLAS", "nothing"), "neither a knowledge base", 1),
    ],
)
def test_wrong_commands_are_one_line(run, home, arguments, message, expected):
    code, out, error = run(*(home / "kb.atlas" if part == "ATLAS" else part for part in arguments))
    assert (code, out) == (expected, "") and message in error and "Traceback" not in error


def test_long_texts_of_a_stranger_are_cut_on_a_screen():
    assert short("a" * 60) == "a" * 60
    assert short("a" * 5_000) == "a" * 59 + "…"
    assert short("\x1b[2J") == "\\x1b[2J"


# ---- templates and tables of labels


@pytest.fixture
def measured(tmp_path, tiny_folder) -> Path:
    """An atlas with the classes that lines and a survey give, as columns of its table."""
    path = Path(shutil.copytree(tiny_folder, tmp_path / "m.atlas"))
    classes = "(ARRAY['star-forming', 'composite', 'Seyfert', 'LINER', NULL])[1 + right(object_id, 2)::INT % 5]"
    gas = "CASE WHEN right(object_id, 2)::INT % 5 = 4 THEN 'retired' ELSE 'strong AGN' END"
    with duckdb.connect(str(path / "galaxies.duckdb")) as facts:
        for name, value in {"bpt_class": classes, "whan_class": gas, "spectype": "'GALAXY'"}.items():
            facts.execute(f"ALTER TABLE galaxies ADD COLUMN {name} VARCHAR")
            facts.execute(f"UPDATE galaxies SET {name} = {value}")
        facts.execute("UPDATE galaxies SET spectype = 'QSO' WHERE right(object_id, 1) = '3'")
        facts.execute("DELETE FROM galsearch_manifest WHERE key = 'measures'")  # then a name is trusted
    return path


@pytest.mark.slow
def test_templates_take_labels_from_lines_and_catalogs(measured):
    names = [tiny.object_id(row) for row in range(30)]
    number = {name: int(name[-2:]) % 5 for name in names}
    expected = {
        "activity": {0: "star-forming", 1: "composite", 2: "Seyfert", 3: "LINER"},
        "liner": {0: "other", 1: "other", 2: "other", 3: "LINER"},
        "gas": {0: "star-forming", 1: "composite", 2: "AGN", 3: "AGN", 4: "passive"},
        "whan": {**dict.fromkeys(range(4), "strong AGN"), 4: "retired"},
    }
    for template, labels in expected.items():
        base = galsearch.create_base(measured, template, template=template)
        assert base.target == ("LINER" if template == "liner" else None)
        with galsearch.open(measured, device="cpu") as atlas:
            rows = atlas.sql(f"SELECT object_id, label FROM knowledge_labels WHERE base = '{template}'").to_pylist()
        held = {row["object_id"]: row["label"] for row in rows}
        assert {name: held.get(name) for name in names if name in held} == {
            name: labels[number[name]] for name in names if name in held
        }
        assert set(held.values()) == set(labels.values())
    assert galsearch.create_base(measured, "type", template="type").counts.keys() == {"GALAXY", "QSO"}
    assert set(TEMPLATES) == {*expected, "type"}


def test_every_template_is_named_in_the_help():
    help_text = CliRunner().invoke(app, ["kb", "create", "--help"]).output
    assert all(name in help_text for name in TEMPLATES)


def test_labels_come_from_a_table_by_id_or_by_position(folder_path, tmp_path):
    with galsearch.open(folder_path, device="cpu") as atlas:
        near = atlas.sql("SELECT object_id, ra, dec FROM galaxies WHERE ra IS NOT NULL ORDER BY object_id LIMIT 8")
    rows = near.to_pylist()
    grades = ["lens" if number % 2 else "other" for number in range(len(rows))]
    by_id, by_position = tmp_path / "ids.csv", tmp_path / "positions.csv"
    lines = [f"{row['object_id']},{grade}" for row, grade in zip(rows, grades, strict=True)]
    by_id.write_text("\n".join(["object_id,grade", *lines, "nobody,lens"]) + "\n")
    shifted = [f"{row['ra']!r},{row['dec'] + 0.5 / 3600!r},{grade}" for row, grade in zip(rows, grades, strict=True)]
    by_position.write_text("\n".join(["ra,dec,grade", *shifted, "1.0,89.0,lens"]) + "\n")
    expected = {row["object_id"]: grade for row, grade in zip(rows, grades, strict=True)}
    for name, options in {"ids": {"table": by_id}, "spots": {"table": by_position, "radius_arcsec": 1.0}}.items():
        base = galsearch.create_base(folder_path, name, label="grade", **options)
        assert base.sql.startswith(f"-- grade of {options['table'].name}, 9 rows, matched")
        with galsearch.open(folder_path, device="cpu") as atlas:
            held = atlas.sql(f"SELECT object_id, label FROM knowledge_labels WHERE base = '{name}'").to_pylist()
        assert {row["object_id"]: row["label"] for row in held} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing says who is labeled"),
        ({"select": SELECT, "template": "liner"}, "give one of"),
        ({"select": SELECT, "label": "x"}, "is said of a table of labels"),
        ({"template": "lens"}, "there is no template 'lens', there are activity"),
        ({"template": "whan"}, "needs the measure whan_class"),
        ({"template": "type"}, "needs a column class or cls or spectype"),
        ({"table": pa.table({"object_id": ["x"], "label": ["a"]})}, "give radius_arcsec to match by position"),
        ({"table": pa.table({"object_id": ["x"], "kind": ["a"]})}, "say which column holds the labels"),
        ({"table": pa.table({"id": ["x"], "label": ["a"]})}, "has no column object_id"),
        (
            {"table": pa.table({"ra": [1.0], "dec": [89.0], "label": ["a"]}), "radius_arcsec": 1.0},
            "try a larger radius_arcsec",
        ),
    ],
)
def test_labels_that_cannot_be_had_are_one_clear_error(folder_path, options, message):
    with pytest.raises(QueryError, match=message):
        galsearch.create_base(folder_path, "x", **options)
    with galsearch.open(folder_path, device="cpu") as atlas:
        assert not atlas.bases().num_rows
