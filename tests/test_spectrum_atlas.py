"""Atlases of spectra: built, added to, bundled, searched by a file, by an object and beside pictures."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from astropy.table import Table
from PIL import Image
from spectrum_files import sdss
from tiny_models import picture
from tiny_spectra import (
    OBJECTS,
    PIXELS,
    SIGMA,
    START,
    STEP,
    WAVELENGTH,
    flux_of,
    reference,
    write_models,
    write_spectra,
    write_tiny_spectrum_model,
)
from typer.testing import CliRunner

import galsearch
from galsearch import GalsearchError, QueryError, SchemaError
from galsearch.cli.program import app
from galsearch.schema import LINE_MEASURES
from galsearch.science.spectra import LogGrid, Spectrum, model_input, to_rest_frame, to_stored

PAIRS = {"lines-near": "lines-far", "old-near": "old-far"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def spectra(tmp_path_factory) -> Path:
    return write_spectra(tmp_path_factory.mktemp("spectra"), OBJECTS)


@pytest.fixture(scope="module")
def built(tmp_path_factory, models, spectra) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "s.atlas"
    galsearch.build(path, spectra=spectra, models=models)
    galsearch.bundle(path, path.with_name("s.duckdb"))
    return path


@pytest.fixture(params=["folder", "bundle"])
def atlas(request, built):
    with galsearch.open(built if request.param == "folder" else built.with_name("s.duckdb")) as opened:
        yield opened


def cutouts(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        Image.fromarray(picture(color="red")).resize((24, 24)).save(folder / f"{name}.png")
    return folder


# ---- searching


def test_the_most_like_spectrum_is_one_of_its_kind_at_another_redshift(atlas):
    for name, other in PAIRS.items():
        assert atlas.search(atlas[name], k=1).ids == [other]


def test_a_file_finds_itself_and_its_content_says_that_it_is_a_spectrum(atlas, spectra):
    hits = atlas.search(spectra / "quasar.fits", k=1)
    assert hits.ids == ["quasar"]
    assert hits.scores[0] == pytest.approx(1, abs=1e-5)
    assert hits.query.terms[0].kind == "spectrum"


def test_a_spectrum_that_was_read_is_searched_at_the_redshift_it_was_given(atlas, spectra):
    spectrum = galsearch.read_spectrum(spectra / "lines-far.fits")
    assert atlas.search(spectrum, k=1).scores[0] == pytest.approx(1, abs=1e-5)
    wrong = galsearch.read_spectrum(spectra / "lines-far.fits", z=0.2)
    assert atlas.search(wrong, k=1).scores[0] < 0.95


def test_vectors_are_those_of_the_model_on_the_rest_frame_grid(atlas, spectra):
    expected = []
    for name in OBJECTS:
        spectrum = to_rest_frame(galsearch.read_spectrum(spectra / f"{name}.fits"))
        expected.append(model_input(spectrum, LogGrid(START, STEP, PIXELS), frame="rest"))
    vectors = np.stack([atlas.embed(atlas[name]) for name in OBJECTS])
    np.testing.assert_allclose(vectors, reference(np.stack(expected)), atol=1e-5)


def test_what_is_stored_is_the_spectrum_on_the_grid_of_sdss(atlas):
    stored = atlas["lines-near"].spectrum()
    assert stored.z == pytest.approx(0.02)
    assert (stored.frame, stored.is_calibrated) == ("observed", True)
    steps = np.diff(np.log10(stored.wavelength_angstrom))
    np.testing.assert_allclose(steps, 1e-4, rtol=1e-6)
    inside = slice(20, -20)  # files begin and end in the midst of a pixel
    expected = np.interp(stored.wavelength_angstrom, WAVELENGTH, flux_of("emission", 0.02, seed=0))
    np.testing.assert_allclose(stored.flux[inside], expected[inside], rtol=1e-5)
    assert atlas.spectra(["lines-near", "nobody", "quasar"]).keys() == {"lines-near", "quasar"}


def test_sql_reads_spectra_and_searches_by_them(atlas):
    rows = atlas.sql("SELECT object_id, len(flux) AS pixels, z FROM spectra ORDER BY object_id").to_pylist()
    assert [row["object_id"] for row in rows] == sorted(OBJECTS)
    known = [OBJECTS[row["object_id"]][1] for row in rows]
    np.testing.assert_allclose([row["z"] for row in rows], known, rtol=1e-6)
    nearest = atlas.sql("SELECT object_id FROM nearest_spectrum(like_object_spectrum('old-near'), k := 2)")
    assert nearest["object_id"].to_pylist() == ["old-near", "old-far"]


def test_words_are_refused_where_there_are_only_spectra(atlas):
    with pytest.raises(QueryError, match="words cannot be compared in 'spectrum'"):
        atlas.search("spiral galaxy")


def test_check_is_content(atlas):
    findings = list(atlas.check())
    assert all(finding.ok for finding in findings), [str(finding) for finding in findings if not finding.ok]
    assert any(finding.name == "model spectrum" for finding in findings)
    assert any(finding.name == "spectra" for finding in findings)


def test_a_part_of_an_atlas_keeps_its_spectra(atlas, tmp_path):
    path = atlas.search(where="z < 0.05").save(tmp_path / "part.duckdb")
    with galsearch.open(path) as part:
        assert part.spectra(list(OBJECTS)).keys() == {"lines-near", "old-near"}
        np.testing.assert_array_equal(part["old-near"].spectrum().flux, atlas["old-near"].spectrum().flux)


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".parquet"])
def test_saved_hits_keep_their_spectra(atlas, tmp_path, suffix):
    hits = atlas.search(atlas["quasar"], k=3)
    saved = Table.read(hits.save(tmp_path / f"x{suffix}", spectra=True))
    for row, hit in zip(saved, hits, strict=True):
        known = hit.spectrum()
        flux, ivar = (np.asarray(row[f"spectrum_{name}"])[: len(known)] for name in ("flux", "ivar"))
        np.testing.assert_array_equal(flux, known.flux.astype("f4"))
        np.testing.assert_array_equal(ivar, known.ivar.astype("f4"))
        start, step = row["spectrum_log_wavelength_start"], row["spectrum_log_wavelength_step"]
        np.testing.assert_allclose(10 ** (start + step * np.arange(len(known))), known.wavelength_angstrom)


def test_saving_spectra_of_what_has_none_is_refused(tiny_bundle, tmp_path):
    with galsearch.open(tiny_bundle) as pictures, pytest.raises(QueryError, match="none of the 3 hits has a spectrum"):
        pictures.search(k=3).save(tmp_path / "x.fits", spectra=True)
    assert list(tmp_path.iterdir()) == []


SPOILS = {
    "no flux": "UPDATE spectra SET flux = NULL WHERE object_id = 'quasar'",
    "a hole": "UPDATE spectra SET flux = list_transform(flux, lambda x: NULL) WHERE object_id = 'quasar'",
    "other length": "UPDATE spectra SET ivar = ivar[1:9] WHERE object_id = 'quasar'",
    "one pixel": "UPDATE spectra SET flux = flux[1:1], ivar = ivar[1:1] WHERE object_id = 'quasar'",
    "no step": "UPDATE spectra SET log_wavelength_step = 0 WHERE object_id = 'quasar'",
    "no start": "UPDATE spectra SET log_wavelength_start = NULL WHERE object_id = 'quasar'",
    "far start": "UPDATE spectra SET log_wavelength_start = 1e300 WHERE object_id = 'quasar'",
    "not a number": "UPDATE spectra SET flux = list_transform(flux, lambda x: 'nan'::FLOAT) WHERE object_id = 'quasar'",
    "negative ivar": "UPDATE spectra SET ivar = list_transform(ivar, lambda x: -1) WHERE object_id = 'quasar'",
    "another column": "ALTER TABLE spectra DROP COLUMN kind",
}


@pytest.mark.parametrize("spoil", SPOILS)
@pytest.mark.slow
def test_a_spoiled_table_of_spectra_is_told_and_the_rest_is_searched(built, tmp_path, spoil):
    path = shutil.copy(built.with_name("s.duckdb"), tmp_path / "x.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(SPOILS[spoil])
    with galsearch.open(path) as spoiled:
        assert spoiled.search(spoiled["old-near"], k=1).ids == ["old-far"]
        with pytest.raises((galsearch.FormatError, SchemaError)):
            spoiled["quasar"].spectrum()
        found = {finding.name: finding.ok for finding in spoiled.check()}
        assert found["spectra"] is False


# ---- building


def test_what_a_file_does_not_say_is_said_once_for_all(models, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    pa.csv.write_csv(pa.table({"lam": WAVELENGTH / 10, "f": flux_of("passive", 0.0)}), folder / "a.csv")
    table = tmp_path / "t.csv"
    table.write_text("object_id,z\na,0.0\n")
    stated = {"wavelength": "lam", "flux": "f", "wavelength_unit": "nm", "flux_unit": "relative", "medium": "vacuum"}
    with pytest.raises(SchemaError, match="no column of flux"):
        galsearch.build(tmp_path / "x.atlas", spectra=folder, table=table, models=models)
    report = galsearch.build(tmp_path / "x.atlas", spectra=folder, table=table, models=models, **stated)
    assert (report.rows, report.spectra) == (1, 1)
    with galsearch.open(tmp_path / "x.atlas") as opened:
        assert not opened["a"].spectrum().is_calibrated


def test_a_spectrum_without_a_redshift_is_left_out_by_name_or_compared_as_observed(models, tmp_path):
    folder = write_spectra(tmp_path / "s", {"known": ("passive", 0.1)})
    write_without_redshift(folder / "unknown.fits")
    report = galsearch.build(tmp_path / "rest.atlas", spectra=folder, models=models)
    assert report.rows == 1
    assert report.rejected == [
        {
            "object_id": "unknown",
            "file": "unknown.fits",
            "reason": report.rejected[0]["reason"],
        }
    ]
    assert report.rejected[0]["reason"].startswith("no redshift is known")
    report = galsearch.build(tmp_path / "seen.atlas", spectra=folder, models=models, observed_frame=True)
    assert report.rows == 2
    with galsearch.open(tmp_path / "seen.atlas") as opened:
        assert opened.manifest.embeddings["spectrum"]["frame"] == "observed"
        assert opened.search(folder / "unknown.fits", k=1).scores[0] == pytest.approx(1, abs=1e-5)


def write_without_redshift(path: Path) -> None:
    flux = flux_of("passive", 0.1)
    table = Table({"wavelength": WAVELENGTH, "flux": flux, "error": np.full(len(flux), 0.02)})
    table["wavelength"].unit, table["flux"].unit = "Angstrom", "1e-17 erg / (s cm2 Angstrom)"
    table.meta["AIRORVAC"] = "vac"
    table.write(path)


def test_the_redshift_of_the_table_comes_before_that_of_the_file(models, spectra, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("object_id,z,mag_r\nquasar,0.2,17.5\nold-far,,16.5\n")
    report = galsearch.build(tmp_path / "x.atlas", spectra=spectra, table=table, models=models)
    assert report.rows == 2
    with galsearch.open(tmp_path / "x.atlas") as opened:
        assert opened["quasar"].z == opened["quasar"].spectrum().z == 0.2
        assert opened["old-far"].z == 0.25
        assert opened["quasar"].mag_r == 17.5
    assert {item["reason"] for item in report.rejected} == {"no row in the table"}


def test_sdss_files_are_joined_by_plate_mjd_and_fiber(models, tmp_path):
    folder = write_spectra(tmp_path / "s", {"spec-0266-51630-0003": ("passive", 0.1)})
    table = tmp_path / "t.csv"
    table.write_text("object_id,plate,mjd,fiberid\nJ0945,266,51630,3\n")
    galsearch.build(tmp_path / "x.atlas", spectra=folder, table=table, models=models)
    with galsearch.open(tmp_path / "x.atlas") as opened:
        assert opened["J0945"].spectrum_file == "spec-0266-51630-0003.fits"


def test_one_file_of_many_spectra_gives_as_many_objects(models, tmp_path):
    fluxes = [flux_of(kind, z, seed=n) for n, (kind, z) in enumerate(OBJECTS.values())]
    rows = pa.table(
        {
            "object_id": list(OBJECTS),
            "wavelength": pa.array([WAVELENGTH] * len(OBJECTS)),
            "flux": pa.array(fluxes),
            "z": [z for _, z in OBJECTS.values()],
        }
    )
    path = tmp_path / "many.parquet"
    pa.parquet.write_table(rows, path)
    stated = {"wavelength_unit": "Angstrom", "flux_unit": "relative", "medium": "vacuum"}
    report = galsearch.build(tmp_path / "x.atlas", spectra=path, models=models, **stated)
    assert report.rows == len(OBJECTS)
    with galsearch.open(tmp_path / "x.atlas") as opened:
        assert opened.search(opened["old-near"], k=1).ids == ["old-far"]


def test_processes_give_what_one_gives(models, spectra, tmp_path, built):
    galsearch.build(tmp_path / "x.atlas", spectra=spectra, models=models, processes=2)
    with galsearch.open(tmp_path / "x.atlas") as many, galsearch.open(built) as one:
        for name in OBJECTS:
            np.testing.assert_array_equal(many.embed(many[name]), one.embed(one[name]))
            np.testing.assert_array_equal(many[name].spectrum().flux, one[name].spectrum().flux)


def test_a_damaged_file_is_left_out_and_the_others_are_taken(models, spectra, tmp_path):
    folder = shutil.copytree(spectra, tmp_path / "s")
    content = (folder / "quasar.fits").read_bytes()
    (folder / "quasar.fits").write_bytes(content[: len(content) // 2])
    (folder / "empty.fits").write_bytes(b"")
    (folder / "note.doc").write_bytes(b"no spectrum")
    report = galsearch.build(tmp_path / "x.atlas", spectra=folder, models=models)
    assert report.rows == len(OBJECTS) - 1
    assert {item["file"] for item in report.rejected} == {"quasar.fits", "empty.fits", "note.doc"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spectra": "nowhere"}, "no such file or folder"),
        ({"wavelength": "lam"}, "is said of spectra, and none are given"),
        ({"observed_frame": True}, "is said of spectra, and none are given"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, arguments, message):
    with pytest.raises(GalsearchError, match=message):
        galsearch.build(tmp_path / "x.atlas", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_keyword_is_a_type_error(spectra, tmp_path):
    with pytest.raises(TypeError, match="wavelenght"):
        galsearch.build(tmp_path / "x.atlas", spectra=spectra, wavelenght="lam")


# ---- lines


def test_lines_are_columns_and_a_table(atlas):
    near, quasar, old = (atlas[name] for name in ("lines-near", "quasar", "old-near"))
    drawn = 4 * 6564.6 * SIGMA["emission"] * np.sqrt(2 * np.pi)  # in flux, at rest
    assert near.ew_halpha == pytest.approx(drawn / 0.8, rel=0.03)
    assert near.ew_oiii == pytest.approx(drawn * 5008.2 / 6564.6 / 0.8, rel=0.03)
    assert old.snr_halpha < 3
    assert quasar.balmer_fwhm_kms > 5000 > near.balmer_fwhm_kms
    rows = atlas.sql("SELECT line, flux, flux_error FROM lines WHERE object_id = 'lines-near'").to_pylist()
    halpha = next(row for row in rows if row["line"] == "H alpha")
    assert halpha["flux"] == pytest.approx(drawn * 1.02, rel=0.03)
    assert halpha["flux"] / halpha["flux_error"] > 100
    assert set(atlas.search(where="ew_halpha > 20 AND balmer_fwhm_kms < 2500").ids) == {"lines-near", "lines-far"}


def test_lines_that_were_not_measured_are_measured_later_and_are_the_same(models, spectra, built, tmp_path):
    galsearch.build(tmp_path / "x.atlas", spectra=spectra, models=models, measure="none")
    with galsearch.open(tmp_path / "x.atlas") as without:
        assert "ew_halpha" not in without.columns()["column"].to_pylist()
    report = galsearch.measure(tmp_path / "x.atlas")
    assert (report.added, report.rows) == (len(OBJECTS), len(OBJECTS))
    with galsearch.open(tmp_path / "x.atlas") as later, galsearch.open(built) as full:
        lines = "SELECT object_id, line, flux FROM lines WHERE flux > 5 * flux_error ORDER BY ALL"
        columns = f"SELECT object_id, {', '.join(LINE_MEASURES)} FROM galaxies ORDER BY object_id"
        for query in (lines, columns):
            for now, then in zip(later.sql(query).to_pylist(), full.sql(query).to_pylist(), strict=True):
                for name, value in now.items():
                    known = pytest.approx(then[name], 1e-3, 1e-3) if isinstance(value, float) else then[name]
                    assert value == known, (now["object_id"], name)
    assert galsearch.measure(tmp_path / "x.atlas").added == 0


def test_a_users_column_called_like_a_line_stays_and_ours_stands_beside_it(models, spectra, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("object_id,d4000\nold-near,1.8\n")
    galsearch.build(tmp_path / "x.atlas", spectra=spectra, table=table, models=models)
    with galsearch.open(tmp_path / "x.atlas") as opened:
        assert opened["old-near"].d4000 == 1.8
        assert opened["old-near"].d4000_measured < 1.5


def test_lines_come_with_spectra_that_are_added(models, spectra, built, tmp_path):
    path = shutil.copytree(built, tmp_path / "x.atlas")
    galsearch.add(path, spectra=write_spectra(tmp_path / "more", {"new": ("emission", 0.1)}), models=models)
    with galsearch.open(path) as opened:
        assert opened["new"].ew_halpha > 20
        counts = opened.sql("SELECT object_id, count(*) AS n FROM lines GROUP BY ALL").to_pylist()
        assert {row["object_id"] for row in counts} == {*OBJECTS, "new"}


# ---- knowledge bases


@pytest.mark.slow
def test_spectra_are_classified_by_votes_of_what_is_known(models, tmp_path):
    known = {f"{kind}-{n}": (kind, 0.02 * n) for kind in ("emission", "passive") for n in range(1, 8)}
    path = tmp_path / "k.atlas"
    galsearch.build(path, spectra=write_spectra(tmp_path / "known", known), models=models)
    sql = "SELECT object_id, CASE WHEN ew_halpha > 5 THEN 'emission' ELSE 'passive' END AS label FROM galaxies"
    galsearch.create_base(path, "activity", sql, by="spectrum")
    unknown = write_spectra(tmp_path / "new", {"a": ("emission", 0.21), "b": ("passive", 0.17)}, scale=30)
    with galsearch.open(path) as opened:
        votes = [opened.classify(unknown / f"{name}.fits", "activity") for name in ("a", "b")]
        assert [each.label for each in votes] == ["emission", "passive"]
        assert set(votes[0].neighbors["label"].to_pylist()) == {"emission"}
        spectrum = galsearch.read_spectrum(unknown / "b.fits")
        assert opened.classify(spectrum, "activity").label == "passive"
        assert opened.classify("passive-3", "activity").label == "passive"
        rows = opened.sql("FROM vote_spectrum(like_object_spectrum('emission-2'), 'activity', k := 3)").to_pylist()
        assert rows[0]["label"] == "emission"

    def classify(*arguments: str | Path):
        return CliRunner().invoke(app, ["classify", str(path), "activity", *map(str, arguments)])

    result = classify("--spectrum", unknown / "a.fits", "--spectrum", unknown / "b.fits", "--format", "csv")
    rows = [row[:3] for row in csv.reader(result.stdout.splitlines())]
    assert rows == [["object_id", "of", "label"], ["", "a.fits", "emission"], ["", "b.fits", "passive"]], result.output
    without = tmp_path / "no-z.fits"
    flux = flux_of("emission", 0.21, scale=30, seed=0)
    without.write_bytes(sdss(loglam=np.log10(WAVELENGTH), flux=flux, ivar=np.full(len(flux), 0.6**-2), z=np.nan))
    assert "redshift" in str(classify("--spectrum", without).exception)
    result = classify("--spectrum", without, "--z", "0.21", "--voters", "--format", "csv")
    assert {row[0] for row in csv.reader(result.stdout.splitlines()[1:])} == {"no-z.fits"}, result.output
    assert "emission: 1" in result.stderr
    picture_file = cutouts(tmp_path / "pictures", "p") / "p.png"
    assert "it is a picture" in str(classify("--spectrum", picture_file).exception)
    assert "'spectrum' of " in str(classify("--image", picture_file).exception)


# ---- beside pictures


def test_an_object_with_both_is_found_by_either_and_by_a_blend(models, spectra, tmp_path):
    images = cutouts(tmp_path / "images", "quasar", "old-near", "picture-only")
    report = galsearch.build(tmp_path / "x.atlas", images=images, spectra=spectra, models=models)
    assert (report.rows, report.pictures, report.spectra) == (6, 3, 5)
    assert report.rejected == []
    galsearch.bundle(tmp_path / "x.atlas", tmp_path / "x.duckdb")
    for form in ("x.atlas", "x.duckdb"):
        with galsearch.open(tmp_path / form) as both:
            assert set(both.search("red galaxy", k=9).ids) == {"quasar", "old-near", "picture-only"}
            assert both.search(both["old-near"], by="spectrum", k=1).ids == ["old-far"]
            assert both.search(spectra / "quasar.fits", k=1).ids == ["quasar"]
            terms = (galsearch.Term("text", "red"), galsearch.Term("object", "old-far", by="spectrum"))
            assert "old-near" in both.search(galsearch.Query(terms=terms, k=2)).ids
            assert both["quasar"].z == pytest.approx(0.1)
            assert both["quasar"].file == "quasar.png"
            assert both["picture-only"].spectrum() is None
            assert all(finding.ok for finding in both.check())


def test_a_table_joins_pictures_and_spectra_and_what_has_neither_is_told(models, spectra, tmp_path):
    images = cutouts(tmp_path / "images", "quasar")
    table = tmp_path / "t.csv"
    table.write_text("object_id,file,mag_r\nquasar,quasar.png,17\nold-far,,18\nnobody,,19\n")
    report = galsearch.build(tmp_path / "x.atlas", images=images, spectra=spectra, table=table, models=models)
    assert report.rows == 2
    assert {item["object_id"] for item in report.rejected if item["object_id"]} == {"nobody"}
    with galsearch.open(tmp_path / "x.atlas") as both:
        assert [both[name].mag_r for name in ("quasar", "old-far")] == [17, 18]


def test_spectra_are_added_to_objects_that_are_there(models, spectra, tmp_path):
    images = cutouts(tmp_path / "images", "quasar", "old-near")
    galsearch.build(tmp_path / "x.atlas", images=images, models=models)
    report = galsearch.add(tmp_path / "x.atlas", spectra=spectra, models=models)
    assert (report.rows, report.added, report.spectra) == (5, 3, 5)
    with galsearch.open(tmp_path / "x.atlas") as both:
        assert both["quasar"].file == "quasar.png"
        assert both["quasar"].z == pytest.approx(0.1)
        assert both.search(both["old-near"], by="spectrum", k=1).ids == ["old-far"]
        assert set(both.search("red galaxy").ids) == {"quasar", "old-near"}
        assert all(finding.ok for finding in both.check())
    with pytest.raises(SchemaError, match="objects with a spectrum are in"):
        galsearch.add(tmp_path / "x.atlas", spectra=spectra, models=models)


def test_vectors_of_another_spectrum_model_are_not_added(models, built, tmp_path):
    other = tmp_path / "models"
    write_tiny_spectrum_model(other, seed=1)
    path = shutil.copytree(built, tmp_path / "x.atlas")
    more = write_spectra(tmp_path / "more", {"new": ("passive", 0.1)})
    with pytest.raises(galsearch.ModelMismatchError, match="cannot be compared"):
        galsearch.add(path, spectra=more, models=other)
    with galsearch.open(path) as opened:
        assert len(opened) == len(OBJECTS)


def test_pictures_are_not_added_to_an_atlas_of_spectra(models, built, tmp_path):
    path = shutil.copytree(built, tmp_path / "x.atlas")
    with pytest.raises(SchemaError, match="has spectrum vectors and none of pictures"):
        galsearch.add(path, images=cutouts(tmp_path / "images", "quasar"), models=models)


def test_the_frame_of_an_atlas_holds_for_what_is_added(models, built, tmp_path):
    more = write_spectra(tmp_path / "more", {"new": ("passive", 0.1)})
    path = shutil.copytree(built, tmp_path / "x.atlas")
    with pytest.raises(SchemaError, match="compares spectra in the rest frame"):
        galsearch.add(path, spectra=more, models=models, observed_frame=True)
    seen = tmp_path / "seen.atlas"
    images = cutouts(tmp_path / "images", "quasar")
    galsearch.build(seen, images=images, spectra=built_from(tmp_path), models=models, observed_frame=True)
    galsearch.add(seen, spectra=more, models=models)
    galsearch.add(seen, images=cutouts(tmp_path / "others", "other"), models=models)
    with galsearch.open(seen) as opened:
        assert len(opened) == 4
        assert opened.manifest.embeddings["spectrum"]["frame"] == "observed"


def built_from(folder: Path) -> Path:
    return write_spectra(folder / "first", {"first": ("emission", 0.1)})


def test_pictures_and_spectra_that_were_not_measured_are_both_measured_later(models, spectra, tmp_path):
    images = cutouts(tmp_path / "images", "quasar", "old-near", "picture-only")
    galsearch.build(tmp_path / "x.atlas", images=images, spectra=spectra, models=models, measure="none")
    galsearch.build(tmp_path / "full.atlas", images=images, spectra=spectra, models=models)
    report = galsearch.measure(tmp_path / "x.atlas")
    assert (report.added, report.rows) == (6, 6)
    with galsearch.open(tmp_path / "x.atlas") as later, galsearch.open(tmp_path / "full.atlas") as full:
        for name in ("axis_ratio", "snr_spectrum", "ew_halpha"):
            query = f"SELECT object_id, {name} IS NULL AS nothing FROM galaxies ORDER BY object_id"
            assert later.sql(query).equals(full.sql(query)), name


def test_measures_of_what_is_added_without_a_table_go_where_the_atlas_has_its_own(models, spectra, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("object_id,ew_halpha\nold-near,7.5\n")
    path = tmp_path / "x.atlas"
    galsearch.build(path, spectra=spectra, table=table, models=models)
    galsearch.add(path, spectra=write_spectra(tmp_path / "more", {"new": ("emission", 0.1)}), models=models)
    with galsearch.open(path) as opened:
        assert (opened["old-near"].ew_halpha, opened["new"].ew_halpha) == (7.5, None)
        assert opened["new"].ew_halpha_measured > 20


def test_an_export_with_spectra_is_a_table_to_build_with_again(models, spectra, tmp_path, built):
    with galsearch.open(built) as opened:
        saved = opened.search(k=5).save(tmp_path / "x.parquet", spectra=True)
    galsearch.build(tmp_path / "x.atlas", spectra=spectra, table=saved, models=models)
    with galsearch.open(tmp_path / "x.atlas") as again:
        assert again["quasar"].spectrum_file == "quasar.fits"
        table = Table.read(again.search(k=5).save(tmp_path / "y.fits", spectra=True))
        assert {"spectrum_flux", "spectrum_flux_in_table"} <= set(table.colnames)


def test_words_beside_an_example_by_spectrum_are_compared_in_an_embedding_of_their_own(models, spectra, tmp_path):
    images = cutouts(tmp_path / "images", "quasar", "old-near")
    path = tmp_path / "x.atlas"
    galsearch.build(path, images=images, spectra=spectra, models=models)
    arguments = [
        "search",
        str(path),
        "red galaxy",
        "--like",
        "old-far",
        "--by",
        "spectrum",
        "--words-by",
        "image",
        "--format",
        "csv",
        "-k",
        "2",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "old-near" in result.stdout


# ---- faces


def test_the_command_line_builds_and_searches_spectra(models, spectra, tmp_path):
    run = CliRunner().invoke
    path = tmp_path / "x.atlas"
    result = run(app, ["build", str(path), "--spectra", str(spectra), "--models", str(models)])
    assert result.exit_code == 0, result.output
    assert "spectra: 5 of 5 objects" in result.stderr
    result = run(app, ["search", str(path), "--spectrum", str(spectra / "old-far.fits"), "-k", "1", "--format", "csv"])
    assert result.exit_code == 0, result.output
    assert "old-far" in result.stdout
    result = run(app, ["search", str(path), "--like", "old-far", "--z", "0.1"])
    assert result.exit_code == 2
    text = tmp_path / "t.csv"
    pa.csv.write_csv(pa.table({"lam": WAVELENGTH / 10, "f": flux_of("passive", 0.25)}), text)
    stated = ["--wavelength", "lam", "--flux", "f", "--wavelength-unit", "nm", "--flux-unit", "relative"]
    result = run(app, ["search", str(path), "--spectrum", str(text), *stated, "--z", "0.25", "--medium", "vacuum"])
    assert "old-far" in result.stdout, result.output
    result = run(app, ["search", str(path), "--spectrum", str(text), *stated, "--z", "0.25"])
    assert result.exit_code == 1
    assert "--medium" in str(result.exception)


def test_a_visitor_has_a_spectrum_read_in_a_worker(built, spectra):
    with galsearch.open(built.with_name("s.duckdb"), visitors=galsearch.Limits(processes=1)) as opened:
        query = galsearch.Query(terms=(galsearch.Term("spectrum", str(spectra / "quasar.fits")),), k=1)
        assert opened.search(query).ids == ["quasar"]


# ---- what an encoder sees


def test_an_encoder_sees_no_data_where_there_is_none():
    wavelength = np.linspace(4000.0, 8000.0, 2000)
    ivar = np.where(np.abs(wavelength - 6000) < 300, 0.0, 4.0)
    spectrum = Spectrum(wavelength, np.where(ivar > 0, 3.0, 0.0), ivar, z=0.0)
    grid = LogGrid(3.5, 0.01, 60)
    flux, seen = model_input(spectrum, grid, frame="rest")
    inside = (grid.wavelength_angstrom > 4100) & (grid.wavelength_angstrom < 7800)
    gap = np.abs(grid.wavelength_angstrom - 6000) < 200
    assert (seen[gap] == 0).all()
    np.testing.assert_allclose(flux[inside & (seen > 0)], 1.0, rtol=1e-5)
    assert (seen[grid.wavelength_angstrom < 3900] == 0).all()


def test_too_little_data_or_the_wrong_frame_is_refused():
    wavelength = np.linspace(4000.0, 4100.0, 50)
    spectrum = Spectrum(wavelength, np.ones(50), np.ones(50), z=0.0, frame="rest", name="few")
    with pytest.raises(SchemaError, match="few: it has data in"):
        model_input(spectrum, LogGrid(3.5, 0.001, 500), frame="rest")
    with pytest.raises(SchemaError, match="few: it is in the rest frame"):
        model_input(spectrum, LogGrid(3.5, 0.001, 500), frame="observed")


def test_pixels_that_are_wider_than_those_of_sdss_are_stored_as_wide_as_they_are():
    wavelength = np.arange(4000.0, 8000.0, 4.0)
    kept = to_stored(Spectrum(wavelength, np.ones(1000), np.ones(1000), z=0.1))
    assert kept["log_wavelength_step"] == pytest.approx(np.median(np.diff(np.log10(wavelength))), rel=0.01)
    assert len(kept["flux"]) == pytest.approx(1000, rel=0.05)
    fine = to_stored(Spectrum(np.arange(4000.0, 8000.0, 0.5), np.ones(8000), np.ones(8000), z=0.1))
    assert fine["log_wavelength_step"] == 1e-4
