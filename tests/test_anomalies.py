"""Anomalies of an atlas: planted ones come first, within filters too; what is stored gives the same tiers again."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score
from tiny_spectra import write_models, write_spectra

import galsearch
from benchmarks import anomalies as benchmark
from galsearch.discovery import anomalies as discovery
from galsearch.errors import FormatError, GalsearchError, QueryError
from galsearch.science import novelty

ROWS, DIM, ODD = 600, 16, 12
NORMALS = "object_id < 'g0550'"
KINDS = ("barred", "edge-on", "round")
FEW = ("knn", "mahalanobis")  # where it is not detectors that are tested
ODD_IDS = [f"odd{number:02d}" for number in range(ODD)]


def planted() -> pa.Table:
    """Return three classes of vectors and, last, twelve odd ones, each of which lies where nothing else does."""
    rng = np.random.default_rng(5)
    code = rng.integers(0, 3, ROWS)
    vectors = 3 * np.eye(DIM)[code] + rng.normal(scale=0.5, size=(ROWS, DIM))
    vectors[-ODD:] = 3 * np.eye(DIM)[4 : 4 + ODD] + rng.normal(scale=0.5, size=(ODD, DIM))
    vectors[0] = 3 * np.eye(DIM)[1] + 0.3 * vectors[0] / 3  # an edge-on one that is labeled barred
    code[0] = 0
    asymmetry = rng.normal(0.1, 0.02, ROWS)
    asymmetry[-1] = 0.9
    asymmetry[::5] = np.nan
    ids = [f"g{number:04d}" for number in range(ROWS - ODD)] + ODD_IDS
    return pa.table(
        {
            "object_id": ids,
            "ra": np.where(np.arange(ROWS) % 2, 10.0, 200.0),
            "dec": rng.uniform(-0.1, 0.1, ROWS),
            "asymmetry": pa.array(asymmetry, from_pandas=True),
            "mag_r": rng.uniform(14, 20, ROWS),
            "kind": [None if number % 50 == 3 else KINDS[c] for number, c in enumerate(code)],
            "only": ["one"] * ROWS,
            "blank": [" "] * ROWS,
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), DIM),
        }
    )


@pytest.fixture(scope="module")
def home(made_once) -> Path:
    def fill(folder: Path) -> None:
        pq.write_table(planted(), folder / "planted.parquet")
        options = {"table": folder / "planted.parquet", "vectors": "vec", "model": "planted"}
        galsearch.build(folder / "planted.atlas", **options)
        galsearch.bundle(folder / "planted.atlas", folder / "planted.duckdb")

    return made_once("anomalies", fill)


@pytest.fixture(scope="module", params=["planted.atlas", "planted.duckdb"])
def atlas(request: pytest.FixtureRequest, home: Path):
    with galsearch.open(home / request.param, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(home: Path):
    with galsearch.open(home / "planted.atlas", device="cpu") as opened:
        yield opened


# ---- what is found


def test_planted_objects_come_first_and_beside_known_normals_they_are_candidates(atlas):
    result = atlas.anomalies(40, normals=NORMALS)
    assert set(result.ids[:ODD]) == set(ODD_IDS)
    assert result.tested == ROWS - 550 and len(result) == 40 and result.candidates >= ODD
    assert result.table["tier"].to_pylist()[:ODD] == ["candidate"] * ODD
    assert all(name > "g0549" for name in result.ids)
    p, q = (np.array(result.table[name].to_pylist()) for name in ("p_value", "q_value"))
    assert (np.diff(p) >= 0).all() and (np.diff(q) >= 0).all() and result.false_discovery_rate == q[-1]


def test_without_known_normals_most_of_them_come_first_too(atlas):
    result = atlas.anomalies(ODD)
    assert len(set(result.ids) & set(ODD_IDS)) >= 8  # a fiftieth is odd, among those that they are compared with too
    assert result.tested == ROWS


def test_with_nothing_planted_p_values_are_uniform_and_there_are_no_candidates(folder):
    result = folder.anomalies(1, detectors=FEW, where="object_id LIKE 'g%'", among="object_id LIKE 'g%'", seed=3)
    p = result.p_values
    assert len(p) == ROWS - ODD
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert result.candidates <= 2


def test_q_values_are_those_of_scipy_over_all_that_were_judged(folder):
    result = folder.anomalies(ROWS, detectors=FEW)
    expected = stats.false_discovery_control(np.array(result.table["p_value"].to_pylist()))
    assert result.table["q_value"].to_pylist() == pytest.approx(expected)


@pytest.mark.slow
def test_filters_and_cones_choose_who_is_listed_and_among_with_whom_they_are_compared(atlas):
    cone = atlas.anomalies(ROWS, detectors=FEW, near=(10.0, 0.0), radius_arcsec=1_000)
    assert set(cone.table["ra"].to_pylist()) == {10.0} and cone.tested == atlas.count("ra = 10")
    alone = atlas.anomalies(ROWS, detectors=FEW, where="mag_r < 16 AND ra = 10")
    assert set(alone.table["object_id"].to_pylist()) == set(
        atlas.sql("SELECT object_id FROM galaxies WHERE mag_r < 16 AND ra = 10")["object_id"].to_pylist()
    )
    among = atlas.anomalies(5, detectors=FEW, among="kind = 'barred'")
    assert set(among.table["kind"].to_pylist()) == {"barred"}
    assert among.ids[0] == "g0000" or "g0000" in among.ids  # edge-on by its vector: odd among barred ones alone
    everywhere = atlas.anomalies(5, detectors=FEW, where="kind = 'barred' AND object_id LIKE 'g%'")
    assert "g0000" not in everywhere.ids[:1]


def test_an_answer_does_not_depend_on_who_else_is_listed(folder):
    everyone = folder.anomalies(ROWS, detectors=FEW)
    few = folder.anomalies(ROWS, detectors=FEW, where="ra = 10")
    p = dict(zip(everyone.ids, everyone.table["p_value"].to_pylist(), strict=True))
    assert [p[name] for name in few.ids] == few.table["p_value"].to_pylist()


def test_a_false_discovery_rate_lists_candidates_only(atlas):
    result = atlas.anomalies(100, normals=NORMALS, fdr=0.2)
    assert ODD <= len(result) == result.candidates
    assert max(result.table["q_value"].to_pylist()) <= 0.2
    assert len(atlas.anomalies(100, detectors=FEW, where="object_id LIKE 'g%'", normals=NORMALS, fdr=0.001)) == 0


def test_labels_add_detectors_of_what_fits_no_class(folder):
    result = folder.anomalies(ODD, labels="kind", normals=NORMALS)
    assert result.detectors == novelty.OF_VECTORS + novelty.OF_CLASSES
    assert set(result.ids) >= set(ODD_IDS[:6])


def test_measured_columns_are_one_more_detector(folder):
    result = folder.anomalies(3, columns=["asymmetry"], detectors=["columns"])
    assert result.ids[0] == ODD_IDS[-1] and result.detectors == ("columns",)


@pytest.mark.slow
def test_a_picture_with_a_fault_is_odd_by_its_pixels(tiny_source, tiny_models, tmp_path):
    pictures = Path(shutil.copytree(tiny_source[0], tmp_path / "pictures"))
    names = sorted(pictures.iterdir())
    for spare in names[80:]:
        spare.unlink()
    pixels = np.array(Image.open(names[40]))
    pixels[:, 20:24] = 0
    pixels[::5, ::7] = 255
    Image.fromarray(pixels).save(names[40])
    galsearch.build(tmp_path / "faulty.atlas", images=pictures, models=tiny_models, measure="none")
    with galsearch.open(tmp_path / "faulty.atlas", device="cpu") as opened:
        assert opened.anomalies(1, detectors=["pixels"]).ids == [names[40].stem]
        assert opened.anomalies(1, k=5).detectors == (*novelty.OF_VECTORS, "pixels")


def test_forms_of_an_atlas_and_runs_agree_and_the_seed_matters(home, folder):
    with galsearch.open(home / "planted.duckdb", device="cpu") as bundle:
        first, second = folder.anomalies(20, detectors=FEW), bundle.anomalies(20, detectors=FEW)
    assert first.table.equals(second.table)
    assert not first.table.equals(folder.anomalies(20, detectors=FEW, seed=1).table)


# ---- why


def test_reasons_name_normals_the_detector_and_the_measures_that_are_off(atlas):
    result = atlas.anomalies(ODD, normals=NORMALS, columns=["asymmetry"])
    one = next(each for each in result if each.object_id == ODD_IDS[-1])
    assert one.columns[0].startswith("asymmetry 0.9 (+") and one.detector == next(iter(one.surprise))
    assert len(one.nearest) == 3 and all(name in atlas and name.startswith("g") for name in one.nearest)
    assert one.residual is not None and one.residual > 0.3
    shares = np.exp(-np.array(list(one.surprise.values())))
    assert one.score == pytest.approx(-np.log(stats.hmean(shares)), rel=1e-5)
    assert result[-1] == list(result)[-1] and result[:2] == [result[0], result[1]]


def test_nearest_normals_are_those_of_brute_force(folder):
    result = folder.anomalies(3, detectors=FEW, normals="object_id LIKE 'g%'")
    names = folder._store.ids(result._judged.sides[0].reference)
    table = np.stack([folder.embed(folder[name]) for name in names]).astype(np.float64)
    for one in result:
        distance = np.linalg.norm(table - folder.embed(folder[one.object_id]), axis=1)
        assert list(one.nearest) == [names[index] for index in np.argsort(distance)[:3]]


def test_parameters_say_who_the_normals_were_and_how_many(folder):
    result = folder.anomalies(3, detectors=FEW, normals="object_id LIKE 'g%'")
    assert result.parameters()["normals"] == "object_id LIKE 'g%'"
    assert result.parameters()["normal_count"] == result.normals


def test_the_list_is_exported_as_others_are(folder, tmp_path):
    result = folder.anomalies(5, detectors=FEW)
    for suffix in (".csv", ".vot", ".parquet", ".json"):
        assert result.save(tmp_path / f"odd{suffix}").stat().st_size > 100
    assert pq.read_table(tmp_path / "odd.parquet")["object_id"].to_pylist() == result.ids
    assert list(result.to_pandas()["object_id"]) == result.ids
    assert list(result.to_astropy()["object_id"]) == result.ids
    assert result.ids[0] in result._repr_html_() and "candidates" in repr(result)


# ---- keeping it


@pytest.mark.slow
def test_tiers_are_worked_out_anew_from_stored_p_values(home, tmp_path):
    path = Path(shutil.copytree(home / "planted.atlas", tmp_path / "kept.atlas"))
    with galsearch.open(path, device="cpu") as opened:
        result = opened.anomalies(10, normals=NORMALS)
        run = galsearch.save_anomalies(result)
        second = galsearch.save_anomalies(opened.anomalies(10, detectors=FEW, seed=1))
    galsearch.bundle(path, tmp_path / "kept.duckdb")
    for form in (path, tmp_path / "kept.duckdb"):
        with galsearch.open(form, device="cpu") as opened:
            table = opened.saved_anomalies(run)
            assert table["object_id"].to_pylist()[:10] == result.ids and len(table) == result.tested
            q = np.array(table["q_value"].to_pylist())
            assert q[:10] == pytest.approx(result.table["q_value"].to_pylist())
            assert table["tier"].to_pylist().count("candidate") == result.candidates
            strict = opened.saved_anomalies(run, fdr=0.01, budget=30)
            assert len(strict) == 30 and strict["tier"].to_pylist().count("candidate") < result.candidates
            assert set(opened.saved_anomalies()["run"].to_pylist()) <= {run, second}
            with pytest.raises(QueryError, match="no saved anomalies of run 'x', it has"):
                opened.saved_anomalies("x")
            part = opened.search(where="mag_r < 16", k=5).bundle(tmp_path / f"part-{form.suffix[1:]}.duckdb")
            with galsearch.open(part) as few, pytest.raises(QueryError, match="it has none yet"):
                few.saved_anomalies()  # a part of the p-values would have other q-values
    assert all(finding.ok for finding in galsearch.open(path, device="cpu").check())


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("ALTER TABLE anomalies DROP COLUMN detector", "table anomalies has no column 'detector'"),
        ("UPDATE anomalies SET created = NULL WHERE object_id = 'odd00'", "rows without a run, an object, a time"),
    ],
)
def test_a_damaged_table_of_lists_is_told(home, tmp_path, statement, message):
    path = Path(shutil.copytree(home / "planted.atlas", tmp_path / "kept.atlas"))
    with galsearch.open(path, device="cpu") as opened:
        galsearch.save_anomalies(opened.anomalies(5, detectors=["mahalanobis"]))
    with duckdb.connect(str(path / "galaxies.duckdb")) as connection:
        connection.execute(statement)
    with galsearch.open(path, device="cpu") as opened, pytest.raises(FormatError, match=message):
        opened.saved_anomalies()


def test_a_bundle_and_several_atlases_are_never_written_to(home):
    for paths in (home / "planted.duckdb", [home / "planted.duckdb", home / "planted.atlas"]):
        with galsearch.open(paths, device="cpu") as opened:
            result = opened.anomalies(5, detectors=FEW)
            assert len(result) == 5
            with pytest.raises(GalsearchError, match="save the list of the folder"):
                galsearch.save_anomalies(result)


# ---- spectra


@pytest.mark.slow
def test_an_odd_spectrum_is_listed_by_the_embedding_of_spectra(tmp_path):
    objects = {f"s{number:02d}": ("passive", 0.02 + number / 1_000) for number in range(59)}
    spectra = write_spectra(tmp_path / "spectra", objects | {"strange": ("broad", 0.1)})
    models = write_models(tmp_path / "models")
    galsearch.build(tmp_path / "spectra.atlas", spectra=spectra, models=models, measure="none")
    with galsearch.open(tmp_path / "spectra.atlas", device="cpu") as opened:
        result = opened.anomalies(3, by="spectrum")
    assert any("strange" in name for name in result.ids[:1])


# ---- what cannot be answered


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "budget is 0, expected how many to list"),
        ({"budget": -3}, "budget is -3"),
        ({"budget": 2.5}, "budget is 2.5"),
        ({"by": "radio"}, "has no embedding 'radio', it has: "),
        ({"k": 0}, "k is 0, expected a whole number"),
        ({"k": 500}, "k is 500, and there are 240 reference vectors; choose a smaller k"),
        ({"fdr": 0}, "fdr is 0, expected a number between 0 and 1"),
        ({"fdr": 1.5}, "fdr is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"among": "mag_r < 14.2"}, "have a vector in 'image', and at least 40 are needed"),
        ({"normals": "mag_r < 14.2"}, "known normals have a vector in 'image', and at least 40 are needed"),
        ({"where": "mag_r < 0"}, "no object with a vector in 'image' is left to judge"),
        ({"normals": "true"}, "no object with a vector in 'image' is left to judge"),
        ({"where": "mag_r <"}, "where"),
        ({"among": "; DROP TABLE galaxies"}, "where"),
        ({"among": " "}, "among is ' ', expected a SQL condition"),
        ({"near": (10.0, 0.0)}, "near needs radius_arcsec"),
        ({"labels": "only"}, "every reference label is 'one', and this detector compares classes"),
        ({"labels": "blank"}, "none of the 240 reference objects has a 'blank'; name other labels"),
        ({"labels": "shape"}, "has no column 'shape'"),
        ({"columns": ["kind"]}, "'kind' is string, and a detector compares numbers"),
        ({"columns": ["size"]}, "has no column 'size'"),
        ({"detectors": ["lof"]}, "there is no detector 'lof', there are knn"),
        ({"detectors": []}, "no detector was named"),
        ({"detectors": ["energy"]}, "detector energy compares classes; name the column"),
        ({"detectors": ["pixels"]}, "detector pixels compares pictures, and there are none"),
        ({"detectors": ["columns"]}, "detector columns compares measured columns; name them"),
    ],
)
def test_what_cannot_be_answered_is_one_clear_error(folder, options, message):
    with pytest.raises(QueryError, match=message):
        folder.anomalies(**{"budget": 5, **options})


def test_saved_lists_want_a_rate_that_is_one(folder):
    with pytest.raises(QueryError, match="fdr is 2"):
        folder.saved_anomalies(fdr=2)
    with pytest.raises(QueryError, match="it has none yet; save one with"):
        folder.saved_anomalies()


def test_progress_is_told_and_blocks_do_not_change_the_answer(folder, monkeypatch):
    told = []
    whole = folder.anomalies(20, detectors=FEW, progress=lambda done, total, what: told.append((done, total, what)))
    assert told[-1] == (ROWS, ROWS, "judging") and told[0] == (1, discovery.FOLDS, "fitting detectors")
    monkeypatch.setattr(discovery, "BLOCK_ROWS", 7)
    assert folder.anomalies(20, detectors=FEW).ids == whole.ids


# ---- the command


def test_the_command_gives_what_python_gives(run, home, folder, tmp_path):
    path = home / "planted.atlas"
    result = folder.anomalies(5, normals=NORMALS, detectors=FEW, columns=["asymmetry"])
    options = ["--budget", 5, "--normals", NORMALS, "--columns", "asymmetry", "--detectors", "knn"]
    code, out, error = run("anomalies", path, *options, "--detectors", "mahalanobis", "--format", "csv", "--why")
    assert code == 0, error
    assert [row[0] for row in csv.reader(io.StringIO(out))][1:] == result.ids
    assert f"{result.tested} objects judged beside {result.normals} normals by knn, mahalanobis, columns" in error
    reason = next(line for line in error.splitlines() if line.startswith(f"{result.ids[0]}: "))
    assert result[0].nearest[0] in reason and "asymmetry" in reason
    code, out, error = run("anomalies", path, *options, "-o", tmp_path / "odd.vot")
    assert (code, out) == (0, "") and (tmp_path / "odd.vot").read_text().count("<TR>") == 5
    code, out, _ = run(
        "anomalies", path, "--budget", 3, "--detectors", "knn", "--near", "10", "0", "--radius-arcsec", 900
    )
    assert code == 0 and "tier" in out


def test_the_command_says_when_no_list_can_be_good_enough_and_keeps_what_it_is_told_to(run, home, tmp_path):
    path = Path(shutil.copytree(home / "planted.atlas", tmp_path / "kept.atlas"))
    code, _, error = run("anomalies", path, "--budget", 3, "--detectors", "knn", "--save")
    assert code == 0 and "no list of 3 can have a rate below" in error and "kept as run " in error
    with galsearch.open(path, device="cpu") as opened:
        assert len(opened.saved_anomalies()) == ROWS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", 0], "budget is 0"),
        (["--by", "radio"], "no embedding 'radio'"),
        (["-k", 9999], "k is 9999"),
        (["--among", "mag_r < 14.1"], "at least 40 are needed"),
        (["--labels", "only"], "every reference label is 'one'"),
    ],
)
def test_what_the_command_cannot_do_is_one_line(run, home, options, message):
    code, out, error = run("anomalies", home / "planted.duckdb", *options)
    assert (code, out) == (1, "") and message in error and "Traceback" not in error


def test_a_bundle_is_listed_and_not_written_to(run, home):
    code, _, error = run("anomalies", home / "planted.duckdb", "--detectors", "knn", "--save")
    assert code == 1 and "is never changed" in error


# ---- how it is measured


def test_the_area_that_is_reported_is_that_of_scikit_learn_and_lies_in_its_interval():
    rng = np.random.default_rng(1)
    normal, odd = np.round(rng.normal(size=200), 1), np.round(rng.normal(1, 1, size=30), 1)
    result = benchmark._interval(normal, odd, rng)
    expected = roc_auc_score(np.repeat([0, 1], [200, 30]), np.concatenate([normal, odd]))
    assert result["auroc"] == pytest.approx(expected)
    assert result["low"] < expected < result["high"] < result["low"] + 0.25


def test_rates_that_are_reported_keep_to_the_level_of_what_is_known():
    rng = np.random.default_rng(2)
    normal, odd = rng.normal(size=800), rng.normal(8, 1, size=60)
    rate = benchmark._false_positives({"score": (normal, odd)}, rng)["score"]
    assert rate["mean"] == pytest.approx(0.05, abs=0.01)
    mixed = benchmark._discoveries((normal, odd), 0.05, rng)
    assert mixed["fdr"]["mean"] <= 0.1 + 3 * mixed["fdr"]["error"] and mixed["recall"] > 0.9
    assert benchmark._discoveries((normal, normal[:60]), 0.05, rng)["recall"] < 0.1


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("artifact", [benchmark.with_artifact, benchmark.with_other])
def test_each_artifact_changes_a_part_of_the_picture(artifact, number):
    picture = np.random.default_rng(3).integers(20, 60, (64, 64, 3)).astype(np.uint8)
    changed = artifact(picture, number, np.random.default_rng(4))
    assert changed.shape == picture.shape and changed.dtype == np.uint8
    assert (changed != picture).any(axis=2).mean() > 0.001
