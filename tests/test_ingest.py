"""Building, appending and bundling: what lands, what is left out and said, what is refused with nothing changed."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image
from tiny import parquet, write
from tiny_models import picture, reference_image, write_tiny_models

import galsearch
from galsearch import ingest
from galsearch.science import images
from galsearch.store.files import check_folder
from galsearch.store.index import cells
from galsearch.store.write import disk

LOOKS = {
    "a-red": ("red", "edge"),
    "b-blue": ("blue", "ring"),
    "c-green": ("green", "face"),
    "d-white": ("white", "round"),
}
LONG_ID = "1237648720693755918"


def draw(folder, looks=LOOKS):
    folder.mkdir(exist_ok=True)
    for name, (color, shape) in looks.items():
        Image.fromarray(picture(color=color, shape=shape, size_px=32)).save(folder / f"{name}.png")
    return folder


def digests(folder):
    """Return the sha256 of every file by its place."""
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    return {str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest() for item in files}


def committed(path):
    """Return what a reader sees of an atlas: its rows and its vectors."""
    with galsearch.open(path) as atlas:
        rows = atlas.search(k=1000).table
        return rows, np.stack([atlas.embed(atlas[i]) for i in rows["object_id"].to_pylist()])


@pytest.fixture
def cutouts(tmp_path):
    return draw(tmp_path / "cutouts")


@pytest.fixture(scope="module")
def four(tmp_path_factory, tiny_models):
    """An atlas of four galaxies with z and a flux in mJy; never change it, take `small` for that."""
    home = tmp_path_factory.mktemp("four")
    table = Table({"object_id": list(LOOKS), "z": [0.1, 0.2, 0.3, 0.4], "n": [1, 2, 3, 4]})
    table["flux"] = np.array([1.0, 2.0, 3.0, 4.0])
    table["flux"].unit = "mJy"
    table.write(home / "catalog.ecsv")
    path = home / "small.atlas"
    galsearch.build(path, images=draw(home / "cutouts"), table=home / "catalog.ecsv", models=tiny_models)
    return path


@pytest.fixture
def small(four, tmp_path):
    """A copy of the atlas of four galaxies."""
    return Path(shutil.copytree(four, tmp_path / "small.atlas"))


# ---- build


@pytest.mark.parametrize(
    "suffix",
    [".jpg", ".fits", "-stack.fits", *(pytest.param(other, marks=pytest.mark.slow) for other in (".png", ".webp"))],
)
def test_pictures_of_every_format_are_found_by_words_and_by_likeness(tmp_path, tiny_models, suffix):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for name, (color, shape) in LOOKS.items():
        pixels = picture(color=color, shape=shape, size_px=48)
        if suffix == ".fits":
            fits.writeto(folder / f"{name}.fits", pixels.sum(axis=2).astype(np.float32))
        elif suffix == "-stack.fits":
            planes = np.moveaxis(pixels, 2, 0)[::-1].astype(np.float32)  # surveys stack from blue to red
            fits.writeto(folder / f"{name}.fits", planes, fits.Header({"BANDS": "grz"}))
        else:
            Image.fromarray(pixels).save(folder / f"{name}{suffix}", quality=95)
    report = galsearch.build(tmp_path / "x.atlas", images=folder, models=tiny_models)
    assert (report.rows, report.added, report.rejected) == (4, 4, [])
    with galsearch.open(report.path) as atlas:
        assert len(atlas.search(atlas["b-blue"], k=10)) == 3
        thumbnails = atlas.thumbnails(list(LOOKS))
        if ".fits" not in suffix:
            assert atlas.search("red edge", k=1).ids == ["a-red"]
            assert atlas.search("blue ring", k=1).ids == ["b-blue"]
    assert set(thumbnails) == set(LOOKS)
    if suffix != ".fits":
        red, _, blue = images.decode_thumbnail(thumbnails["a-red"]).mean(axis=(0, 1))
        assert red > blue


def test_stored_vectors_are_those_the_model_gives_for_the_pictures(four):
    rows, vectors = committed(four)
    drawn = [picture(color=color, shape=shape, size_px=16) for color, shape in LOOKS.values()]
    assert rows["object_id"].to_pylist() == list(LOOKS)
    assert np.sum(vectors * reference_image(drawn), axis=1).min() > 0.98  # shrinking blurs the edges a little


def test_extra_columns_keep_units_and_ucds_to_the_astropy_table(cutouts, tmp_path, tiny_models):
    table = Table({"id": list(LOOKS), "flux": [1.0, -9999.0, np.nan, 4.0], "note": ["x", "", "y", "z"]})
    table["flux"].unit, table["flux"].meta["ucd"], table["flux"].description = "mJy", "phot.flux", "Total flux"
    table.write(tmp_path / "t.vot", format="votable")
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, table=tmp_path / "t.vot", models=tiny_models)
    with galsearch.open(report.path) as atlas:
        about = {row["column"]: row for row in atlas.columns().to_pylist()}
        assert (about["flux"]["unit"], about["flux"]["ucd"]) == ("mJy", "phot.flux")
        assert atlas.sql("SELECT count(*) AS n FROM galaxies WHERE flux IS NULL")["n"][0].as_py() == 2
        found = atlas.search(k=4).to_astropy()
    assert str(found["flux"].unit) == "mJy"
    assert found["flux"].mask.tolist() == [False, True, True, False]


def test_a_position_and_a_size_on_the_sky_come_from_the_wcs_of_a_cutout(tmp_path, tiny_models):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    y, x = np.mgrid[:33, :33]
    light = np.exp(-((x - 16) ** 2 + (y - 16) ** 2) / 18).astype(np.float32)
    light += np.random.default_rng(0).normal(scale=0.01, size=light.shape).astype(np.float32)
    light[0] = np.nan
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [10.0, -89.9], [17, 17]
    wcs.wcs.cdelt = [-0.5 / 3600, 0.5 / 3600]
    fits.writeto(folder / "pole.fits", light, wcs.to_header())
    report = galsearch.build(tmp_path / "x.atlas", images=folder, models=tiny_models)
    with galsearch.open(report.path) as atlas:
        found = atlas.search(near=(10.0, -89.9), radius_arcsec=0.1)
        assert found.ids == ["pole"]
        assert found[0].radius_arcsec == pytest.approx(found[0].radius_px * 0.5)
        units = {row["column"]: row["unit"] for row in atlas.columns().to_pylist()}
        assert (units["radius_arcsec"], units["ra"]) == ("arcsec", "deg")


def test_a_position_in_the_table_wins_over_the_wcs_of_the_cutout(tmp_path, tiny_models):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 8.0, "CRPIX2": 8.0}
    for name in ("known", "unknown"):
        light = picture(shape="round").sum(axis=2).astype(np.float32)
        fits.writeto(folder / f"{name}.fits", light, fits.Header({**cards, "CDELT1": -1e-4, "CDELT2": 1e-4}))
    table = write(tmp_path / "t.csv", "id,ra,dec\nknown,50,-5\nunknown,,\n")
    report = galsearch.build(tmp_path / "x.atlas", images=folder, table=table, models=tiny_models)
    with galsearch.open(report.path) as atlas:
        assert (atlas["known"].ra, atlas["known"].dec) == (50, -5)
        assert atlas["unknown"].ra == pytest.approx(10, abs=1e-3)


def test_long_ids_and_leading_zeros_are_found_as_they_were_written(tmp_path, tiny_models):
    folder = draw(tmp_path / "cutouts", {LONG_ID: ("red", "edge"), "007": ("blue", "ring")})
    table = write(tmp_path / "t.csv", f"objid,z\n{LONG_ID},0.1\n007,0.2\n")
    report = galsearch.build(tmp_path / "x.atlas", images=folder, table=table, models=tiny_models)
    bundle = galsearch.bundle(report.path, tmp_path / "x.duckdb")
    for path in (report.path, bundle):
        with galsearch.open(path) as atlas:
            assert (atlas[LONG_ID].z, atlas["007"].z) == (0.1, 0.2)


def test_awkward_column_names_survive_in_both_forms(cutouts, tmp_path, tiny_models):
    names = ["thumbnails", "embedding_image", 'with "quotes"', "select", "größe", "a b", "Radius_PX"]
    columns = {name: pa.array([float(row) for row in range(4)]) for name in names}
    table = parquet(tmp_path / "t.parquet", id=list(LOOKS), **columns)
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, table=table, models=tiny_models)
    for path in (report.path, galsearch.bundle(report.path, tmp_path / "x.duckdb")):
        with galsearch.open(path) as atlas:
            there = atlas.columns()["column"].to_pylist()
            assert set(names) <= set(there)
            hits = atlas.search("edge", where='"with ""quotes""" < 1 AND "embedding_image" < 1', k=4)
            assert hits.ids == ["a-red"]
            assert hits.table["Radius_PX"].to_pylist() == [0]  # the table's own value
            assert "radius_px_measured" in there  # and ours beside it
            assert atlas.manifest.measure_column("radius_px") == "radius_px_measured"


def test_measures_are_read_where_they_are_and_never_from_a_column_of_the_user(cutouts, tmp_path, tiny_models):
    table = parquet(tmp_path / "t.parquet", id=list(LOOKS), Axis_Ratio=[-7.0] * 4, snr=[-7.0] * 4)
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, table=table, models=tiny_models)
    with galsearch.open(report.path) as atlas:
        names = {name: atlas.manifest.measure_column(name) for name in ("axis_ratio", "snr", "gini")}
        assert names == {"axis_ratio": "axis_ratio_measured", "snr": "snr_measured", "gini": "gini"}
        rows = atlas.sql('SELECT "Axis_Ratio", axis_ratio_measured, snr_measured FROM galaxies')
        assert set(rows["Axis_Ratio"].to_pylist()) == {-7.0}
        found = pc.drop_null(rows["axis_ratio_measured"]).to_pylist() + pc.drop_null(rows["snr_measured"]).to_pylist()
        assert found and min(found) > 0
        shown = atlas.columns().filter(pc.equal(atlas.columns()["column"], "Axis_Ratio")).to_pylist()[0]
        assert shown["description"] == shown["ucd"] == ""


def test_a_column_called_z_is_in_added_rows_what_it_was_when_the_atlas_was_built(cutouts, tmp_path, tiny_models):
    names = list(LOOKS)
    mags = Table({"id": names[:2], "z": [18.0, 19.0]})
    mags["z"].unit = "mag"
    mags.write(tmp_path / "t.ecsv")
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, table=tmp_path / "t.ecsv", models=tiny_models)
    table = write(tmp_path / "more.csv", f"id,z\n{names[2]},0.5\n")  # which alone would be a redshift
    told = galsearch.add(report.path, images=cutouts, table=table, models=tiny_models)
    assert "column 'z' is called 'mag_z'" in "\n".join(told.lines())
    with galsearch.open(report.path) as atlas:
        assert [atlas[name].mag_z for name in names[:3]] == [18.0, 19.0, 0.5]
        assert "z" not in atlas.columns()["column"].to_pylist()


def test_a_velocity_is_no_redshift_even_where_that_is_said(cutouts, tmp_path, tiny_models):
    speeds = Table({"id": list(LOOKS), "vel": [1000.0, 2.0, 3.0, 4.0]})
    speeds["vel"].unit = "km/s"
    speeds.write(tmp_path / "t.ecsv")
    options = {"images": cutouts, "table": tmp_path / "t.ecsv", "models": tiny_models, "columns": {"z": "vel"}}
    with pytest.raises(galsearch.SchemaError, match=r"vel is in km.*and a redshift has no unit"):
        galsearch.build(tmp_path / "x.atlas", **options)
    assert not (tmp_path / "x.atlas").exists()


def test_what_was_found_is_reported_and_kept_in_the_provenance(cutouts, tmp_path, tiny_models):
    lines = "\n".join(f"{name},{row},1.5,2.5" for row, name in enumerate(LOOKS))
    table = write(tmp_path / "t.csv", f"objid,rowid,RAdeg,DEdeg\n{lines}\nnowhere,9,1,1\n,9,1,1\n")
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, table=table, models=tiny_models)
    told = "\n".join(report.lines())
    assert "ids: objid" in told
    assert "positions: in RAdeg, DEdeg" in told
    assert "'rowid' is called 'rowid_in_table'" in told
    assert "pictures: 4 of 4 objects" in told
    assert "left out: 1 (no picture named 'nowhere' in cutouts)" in told
    with galsearch.open(report.path) as atlas:
        found = atlas.manifest.provenance[0]["found"]
        assert found["positions"] == ["RAdeg", "DEdeg"]
        assert found["renamed"] == {"rowid": "rowid_in_table"}
        assert sum(found["left_out"].values()) == 2
        assert atlas.search(where="rowid_in_table = 2", k=4).ids == [list(LOOKS)[2]]
        assert len(atlas.search(near=(1.5, 2.5), radius_arcsec=1, k=9)) == 4


def test_a_mosaic_is_searched_by_position_and_by_size(tmp_path, tiny_models):
    y, x = np.mgrid[:160, :160]
    light = np.random.default_rng(0).normal(scale=0.02, size=x.shape)
    for x_px, y_px in ((40, 40), (110, 100)):
        light += 4 * np.exp(-((x - x_px) ** 2 + (y - y_px) ** 2) / 18)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [0.0, 5.0], [80, 80]
    wcs.wcs.cdelt = [-1 / 3600, 1 / 3600]
    fits.writeto(tmp_path / "m.fits", light.astype(np.float32), wcs.to_header())
    report = galsearch.build(tmp_path / "x.atlas", mosaic=tmp_path / "m.fits", models=tiny_models)
    assert report.rows == 2
    truth = wcs.pixel_to_world(40, 40)
    with galsearch.open(report.path) as atlas:
        found = atlas.search(near=(truth.ra.deg, truth.dec.deg), radius_arcsec=1, where="radius_arcsec > 2")
        assert len(found) == 1
        assert found[0].x_px == pytest.approx(40, abs=0.1)


def test_the_manifest_tells_inputs_parameters_and_sources(cutouts, tmp_path, tiny_models):
    table = write(tmp_path / "t.csv", "id\n" + "\n".join(LOOKS))
    credit = {"title": "Drawn", "license": "MIT", "acknowledgement": "nobody", "bibtex": ""}
    path = tmp_path / "x.atlas"
    galsearch.build(path, images=cutouts, table=table, models=tiny_models, title="Four", credits=[credit])
    with galsearch.open(path) as atlas:
        manifest = atlas.manifest
    assert (manifest.title, manifest.rows, manifest.sources) == ("Four", 4, [credit])
    record = manifest.provenance[-1]
    assert record["inputs"][str(table)] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert record["action"] == "build"
    assert record["environment"]["duckdb"] == duckdb.__version__


def test_progress_ends_at_the_number_of_objects(cutouts, tmp_path, tiny_models):
    seen = []
    galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models, progress=lambda *step: seen.append(step))
    assert seen[-1][:2] == (4, 4)


# ---- bad files

BAD = {
    "zero.jpg": "0 bytes",
    "short.jpg": "truncated",
    "page.jpg": "web page",
    "nan.fits": "NaN",
    "flat.png": "every pixel has the value",
    "wcs.fits": "WCS",
    "cut.fits": "truncated",
    "table.fits": "no image",
}


def write_bad_files(folder):
    (folder / "zero.jpg").write_bytes(b"")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(folder / "x.jpg")
    (folder / "short.jpg").write_bytes((folder / "x.jpg").read_bytes()[:700])
    (folder / "x.jpg").unlink()
    (folder / "page.jpg").write_text("<!DOCTYPE html><html>503</html>")
    fits.writeto(folder / "nan.fits", np.full((16, 16), np.nan, np.float32))
    Image.new("RGB", (16, 16), (7, 7, 7)).save(folder / "flat.png")
    light = picture(shape="round").sum(axis=2).astype(np.float32)
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": "west"}
    fits.writeto(folder / "wcs.fits", light, fits.Header(cards))
    fits.writeto(folder / "whole.fits", np.zeros((64, 64), np.float32))
    (folder / "cut.fits").write_bytes((folder / "whole.fits").read_bytes()[:4000])
    (folder / "whole.fits").unlink()
    Table({"a": [1]}).write(folder / "table.fits")


def test_bad_files_are_reported_by_name_counted_and_kept_in_a_table_and_the_rest_lands(cutouts, tmp_path, tiny_models):
    write_bad_files(cutouts)
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models)
    assert report.rows == 4
    assert {item["file"] for item in report.rejected} == set(BAD)
    for item in report.rejected:
        assert BAD[item["file"]] in item["reason"]
        assert not item["reason"].startswith(item["file"])
    for path in (report.path, galsearch.bundle(report.path, tmp_path / "x.duckdb")):
        with galsearch.open(path) as atlas:
            kept = atlas.sql("SELECT file, reason FROM rejected ORDER BY file").to_pylist()
            assert kept == sorted(({k: item[k] for k in ("file", "reason")} for item in report.rejected), key=str)
            assert all(finding.ok for finding in atlas.check())


def test_when_nothing_is_left_there_is_one_error_and_no_atlas(tmp_path, tiny_models):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    write_bad_files(folder)
    with pytest.raises(galsearch.SchemaError, match=rf"none of {len(BAD)} rows and files.*the first: \S+: "):
        galsearch.build(tmp_path / "x.atlas", images=folder, models=tiny_models)
    assert [item.name for item in tmp_path.iterdir()] == ["cutouts"]


def test_a_mosaic_without_any_source_says_so(tmp_path, tiny_models):
    noise = np.random.default_rng(3).normal(size=(64, 64)).astype(np.float32)
    fits.writeto(tmp_path / "noise.fits", noise)
    with pytest.raises(galsearch.SchemaError, match="no source was detected"):
        galsearch.build(tmp_path / "x.atlas", mosaic=tmp_path / "noise.fits", models=tiny_models)
    assert not (tmp_path / "x.atlas").exists()


# ---- vectors that come in a table


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A table of five vectors, the atlas that is built of it, which is never changed, and the vectors."""
    home = tmp_path_factory.mktemp("published")
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    ids = [f"p{row}" for row in range(5)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 8)
    table = parquet(home / "p.parquet", object_id=ids, ra=[1.0] * 5, dec=[2.0] * 5, emb=column)
    galsearch.build(home / "p.atlas", table=table, vectors="emb", model="somebody-1")
    return table, home / "p.atlas", vectors


def test_published_embeddings_are_searched_by_likeness_and_by_vector(tmp_path, published):
    _, path, vectors = published
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for place in (path, galsearch.bundle(path, tmp_path / "p.duckdb")):
        with galsearch.open(place) as atlas:
            hits = atlas.search(vectors[3], k=5)
            assert hits.ids == [f"p{row}" for row in np.argsort(-(unit @ unit[3]))]
            assert hits[0].score == pytest.approx(1, abs=1e-6)
            assert atlas.manifest.embeddings["image"]["model"] == "somebody-1"
            assert atlas.thumbnails(["p0"]) == {}
            assert all(finding.ok for finding in atlas.check())


def test_words_on_published_embeddings_say_what_can_be_done(published):
    with galsearch.open(published[1]) as atlas, pytest.raises(galsearch.ModelMismatchError, match="somebody-1"):
        atlas.search("edge-on galaxy")


def test_published_embeddings_need_the_name_of_their_model(tmp_path, published):
    with pytest.raises(galsearch.SchemaError, match="--model"):
        galsearch.build(tmp_path / "p.atlas", table=published[0], vectors="emb")
    assert not (tmp_path / "p.atlas").exists()


def test_published_embeddings_of_another_model_are_refused(tmp_path, published):
    path = Path(shutil.copytree(published[1], tmp_path / "p.atlas"))
    other = parquet(tmp_path / "q.parquet", object_id=["q0"], emb=[[1.0] * 8])
    with pytest.raises(galsearch.ModelMismatchError, match="two models cannot be compared"):
        galsearch.add(path, table=other, vectors="emb", model="two")
    assert galsearch.add(path, table=other, vectors="emb", model="somebody-1").rows == 6


# ---- add


def test_added_galaxies_are_found_at_once_by_words_likeness_and_cuts(small, tmp_path, tiny_models):
    looks = {"e-yellow": ("yellow", "edge"), "f-dark": ("red", "ring")}
    table = write(tmp_path / "more.csv", "object_id,z,n,mass\ne-yellow,0.5,5,10.5\nf-dark,0.6,6,\n")
    report = galsearch.add(small, images=draw(tmp_path / "more", looks), table=table, models=tiny_models)
    assert (report.rows, report.added) == (6, 2)
    for path in (small, galsearch.bundle(small, tmp_path / "x.duckdb")):
        with galsearch.open(path) as atlas:
            assert len(atlas) == atlas.manifest.rows == atlas.manifest.embeddings["image"]["rows"] == 6
            assert atlas.search("yellow edge", k=1).ids == ["e-yellow"]
            assert atlas.search(atlas["e-yellow"], k=10).ids[0] in LOOKS
            assert sorted(atlas.search(where="z >= 0.5").ids) == ["e-yellow", "f-dark"]
            assert atlas.search(where="mass IS NULL").ids == [*LOOKS, "f-dark"]
            assert atlas["e-yellow"].flux is None
            assert len(atlas.thumbnails([*LOOKS, *looks])) == 6
            assert all(finding.ok for finding in atlas.check())
            assert [record["action"] for record in atlas.manifest.provenance][:2] == ["build", "add"]


def test_adding_leaves_the_rows_that_were_there_as_they_were(small, tmp_path, tiny_models):
    rows, vectors = committed(small)
    galsearch.add(small, images=draw(tmp_path / "more", {"e": ("red", "ring")}), models=tiny_models)
    after, vectors_after = committed(small)
    assert after.slice(0, 4).select(rows.column_names).to_pylist() == rows.to_pylist()
    np.testing.assert_array_equal(vectors_after[:4], vectors)


@pytest.mark.slow
def test_repeated_small_adds_equal_one_build(tmp_path, tiny_models):
    one = galsearch.build(tmp_path / "one.atlas", images=draw(tmp_path / "all"), models=tiny_models)
    names = list(LOOKS)
    galsearch.build(
        tmp_path / "many.atlas", images=draw(tmp_path / "0", {names[0]: LOOKS[names[0]]}), models=tiny_models
    )
    for name in names[1:]:
        galsearch.add(tmp_path / "many.atlas", images=draw(tmp_path / name, {name: LOOKS[name]}), models=tiny_models)
    rows, vectors = committed(one.path)
    many_rows, many_vectors = committed(tmp_path / "many.atlas")
    assert many_rows.to_pylist() == rows.to_pylist()
    np.testing.assert_allclose(many_vectors, vectors, atol=1e-6)


def refused(path, error, message, **options):
    """Try to add, and make sure that not one byte of the atlas changed and that a reader sees the same."""
    before = digests(path)
    with pytest.raises(error, match=message):
        galsearch.add(path, **options)
    assert digests(path) == before


def test_an_id_that_is_there_is_refused_and_nothing_changes(small, tmp_path, tiny_models):
    looks = {"e": ("red", "ring"), "a-red": ("red", "edge")}
    options = {"images": draw(tmp_path / "more", looks), "models": tiny_models}
    refused(small, galsearch.SchemaError, "1 objects are in .*'a-red'", **options)


def test_pictures_of_another_model_are_refused_and_nothing_changes(small, tmp_path):
    write_tiny_models(tmp_path / "other", seed=5, names="other")
    options = {"images": draw(tmp_path / "more", {"e": ("red", "ring")}), "models": tmp_path / "other"}
    refused(small, galsearch.ModelMismatchError, "two models cannot be compared", **options)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"n": [1.5]}, "'n' is BIGINT in the atlas.*1.5"),
        ({"n": ["007"]}, "'n' is BIGINT in the atlas.*'007'"),
    ],
)
def test_values_that_a_column_cannot_hold_are_refused_and_nothing_changes(
    small, tmp_path, tiny_models, columns, message
):
    table = parquet(tmp_path / "more.parquet", object_id=["e"], **columns)
    options = {"images": draw(tmp_path / "more", {"e": ("red", "ring")}), "table": table, "models": tiny_models}
    refused(small, galsearch.SchemaError, message, **options)


def test_a_column_in_another_unit_is_refused_and_nothing_changes(small, tmp_path, tiny_models):
    table = Table({"object_id": ["e"], "flux": [1.0]})
    table["flux"].unit = "Jy"
    table.write(tmp_path / "more.ecsv")
    source = draw(tmp_path / "more", {"e": ("red", "ring")})
    options = {"images": source, "table": tmp_path / "more.ecsv", "models": tiny_models}
    refused(small, galsearch.SchemaError, "'flux' is in Jy here and in mJy", **options)


def test_columns_that_fit_are_added_whatever_their_case_or_width(small, tmp_path, tiny_models):
    table = parquet(
        tmp_path / "m.parquet", object_id=["e"], Z=pa.array([0.5], pa.float32()), N=pa.array([7], pa.int16())
    )
    galsearch.add(small, images=draw(tmp_path / "more", {"e": ("red", "ring")}), table=table, models=tiny_models)
    with galsearch.open(small) as atlas:
        assert (atlas["e"].z, atlas["e"].n) == (0.5, 7)


def test_an_addition_of_bad_files_only_changes_nothing(small, tmp_path, tiny_models):
    (tmp_path / "more").mkdir()
    write_bad_files(tmp_path / "more")
    before = digests(small)
    report = galsearch.add(small, images=tmp_path / "more", models=tiny_models)
    assert (report.added, report.rows, len(report.rejected)) == (0, 4, len(BAD))
    assert digests(small) == before


def test_bundles_and_things_that_are_no_atlas_are_not_added_to(small, tmp_path, tiny_models):
    bundle = galsearch.bundle(small, tmp_path / "x.duckdb")
    before = bundle.read_bytes()
    source = draw(tmp_path / "more", {"e": ("red", "ring")})
    with pytest.raises(galsearch.GalsearchError, match="add to the folder, then bundle it again"):
        galsearch.add(bundle, images=source, models=tiny_models)
    assert bundle.read_bytes() == before
    for place in (tmp_path / "nowhere.atlas", source):
        with pytest.raises(galsearch.FormatError):
            galsearch.add(place, images=source, models=tiny_models)


# ---- what is there is not replaced


def test_an_existing_atlas_is_replaced_only_when_asked(small, cutouts, tmp_path, tiny_models):
    before = digests(small)
    with pytest.raises(galsearch.GalsearchError, match="exists"):
        galsearch.build(small, images=cutouts, models=tiny_models)
    assert digests(small) == before
    more = draw(tmp_path / "more", {"e": ("red", "ring")})
    assert galsearch.build(small, images=more, models=tiny_models, overwrite=True).rows == 1
    assert not small.with_name("small.atlas.partial").exists()


def test_a_failed_replacement_leaves_the_atlas_that_was_there(small, tmp_path, tiny_models):
    (tmp_path / "bad").mkdir()
    write_bad_files(tmp_path / "bad")
    before = digests(small)
    with pytest.raises(galsearch.SchemaError):
        galsearch.build(small, images=tmp_path / "bad", models=tiny_models, overwrite=True)
    assert digests(small) == before


def test_a_folder_or_file_that_is_no_atlas_is_never_replaced(cutouts, tmp_path, tiny_models):
    (tmp_path / "thesis").mkdir()
    write(tmp_path / "thesis" / "chapter.tex", "years of work")
    write(tmp_path / "notes.duckdb", "years of notes")
    for place in ("thesis", "notes.duckdb"):
        with pytest.raises(galsearch.GalsearchError, match="is not an atlas"):
            galsearch.build(tmp_path / place, images=cutouts, models=tiny_models, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "notes.duckdb").read_text() == "years of notes"


# ---- bundle


def test_a_bundle_has_the_rows_columns_macros_and_models_of_the_folder(small, tmp_path):
    bundle = galsearch.bundle(small, tmp_path / "x.duckdb")
    with galsearch.open(small) as folder, galsearch.open(bundle) as file:
        assert file.columns().to_pylist() == folder.columns().to_pylist()
        assert file.search(k=10).table.to_pylist() == folder.search(k=10).table.to_pylist()
        assert file.models() == folder.models()
        assert set(file.models()) == {"image", "text"}
        assert file.thumbnails(list(LOOKS)) == folder.thumbnails(list(LOOKS))
        assert file.search("red edge", k=4).ids == folder.search("red edge", k=4).ids
    with duckdb.connect(bundle, read_only=True) as plain:
        macros = {
            name
            for (name,) in plain.execute("SELECT function_name FROM duckdb_functions() WHERE NOT internal").fetchall()
        }
        assert {"nearest", "nearest_exact", "like_object", "concept", "cone", "separation_arcsec"} <= macros
        assert len(plain.execute("FROM nearest(concept('edge-on galaxy'), k := 3, cut := z < 0.35)").fetchall()) == 3
        record = json.loads(
            plain.execute("SELECT value FROM galsearch_manifest WHERE key = 'provenance'").fetchone()[0]
        )
    assert [item["action"] for item in record] == ["build", "bundle"]


@pytest.mark.slow  # test_format.py and test_hits.py have such bundles too
def test_a_bundle_without_models_is_smaller_and_still_searched_by_likeness(small, tmp_path):
    bundle = galsearch.bundle(small, tmp_path / "x.duckdb", models=False)
    with galsearch.open(bundle) as atlas:
        assert atlas.models() == {}
        assert len(atlas.search(atlas["a-red"], k=4)) == 3


def test_a_bundle_is_replaced_whole_and_anything_else_never(small, tmp_path, tiny_models):
    bundle = galsearch.bundle(small, tmp_path / "x.duckdb")
    galsearch.add(small, images=draw(tmp_path / "more", {"e": ("red", "ring")}), models=tiny_models)
    galsearch.bundle(small, bundle)
    with galsearch.open(bundle) as atlas:
        assert len(atlas) == 5
    letter = write(tmp_path / "letter.txt", "dear reader")
    empty = write(tmp_path / "empty.duckdb", "")
    for out in (letter, empty, tmp_path / "more"):
        with pytest.raises(galsearch.GalsearchError):
            galsearch.bundle(small, out)
    assert letter.read_text() == "dear reader"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_a_bundle_of_another_version_of_the_format_is_replaced(small, tmp_path):
    out = galsearch.bundle(small, tmp_path / "b.duckdb")
    with duckdb.connect(out) as connection:
        connection.execute("UPDATE galsearch_manifest SET value = '\"0.9\"' WHERE key = 'version'")
    with pytest.raises(galsearch.VersionTooOldError):
        galsearch.open(out)
    galsearch.bundle(small, out)
    with galsearch.open(out) as atlas:
        assert atlas.manifest.version == "1.1"


def test_a_bundle_into_a_folder_that_is_not_there_says_so(small, tmp_path):
    with pytest.raises(galsearch.GalsearchError, match="no such folder"):
        galsearch.bundle(small, tmp_path / "nowhere" / "x.duckdb")
    assert not (tmp_path / "nowhere").exists()


def test_a_bundle_is_not_written_over_the_folder_it_comes_from(small):
    before = digests(small)
    with pytest.raises(galsearch.GalsearchError, match=r"small\.atlas"):
        galsearch.bundle(small, small)
    assert digests(small) == before


def test_concept_phrases_are_unique_words():
    phrases = ingest.concept_phrases()
    assert len(set(phrases)) == len(phrases) > 10
    assert all(phrase.strip() == phrase for phrase in phrases)


def test_the_documented_join_works_in_plain_duckdb_where_the_table_has_a_score(cutouts, tmp_path, tiny_models):
    """The score of `nearest` is asked for; the column of the user is kept under another name that says so."""
    table = parquet(tmp_path / "t.parquet", id=list(LOOKS), score=[-7.0] * 4)
    report = galsearch.build(tmp_path / "x.atlas", images=cutouts, table=table, models=tiny_models)
    bundle = galsearch.bundle(report.path, tmp_path / "x.duckdb")
    with duckdb.connect(bundle, read_only=True) as plain:
        found = plain.execute(
            "SELECT object_id, score, score_in_table FROM nearest(like_object('a-red'), k := 4) "
            "JOIN galaxies USING (object_id) ORDER BY score DESC, object_id"
        ).fetchall()
    assert len(found) == 4
    assert found[0][0] == "a-red"
    assert found[0][1] == pytest.approx(1, abs=1e-5)
    assert {row[2] for row in found} == {-7.0}


def test_ids_that_were_stored_as_doubles_are_found_where_exact_and_refused_where_not(tmp_path, tiny_models):
    exact, rounded = 2**53 - 1, 1237650000000000123
    folder = draw(tmp_path / "cutouts", {str(exact): ("red", "edge"), "12": ("blue", "ring")})
    table = parquet(tmp_path / "t.parquet", objid=[float(exact), 12.0], z=[0.1, 0.2])
    report = galsearch.build(tmp_path / "x.atlas", images=folder, table=table, models=tiny_models)
    with galsearch.open(report.path) as atlas:
        assert (atlas[str(exact)].z, atlas["12"].z) == (0.1, 0.2)
        assert set(atlas.search("edge", k=2).ids) == {str(exact), "12"}
    table = parquet(tmp_path / "t.parquet", objid=[float(rounded), 12.0], z=[0.1, 0.2])
    with pytest.raises(galsearch.SchemaError, match=r"2\*\*53"):
        galsearch.build(tmp_path / "y.atlas", images=folder, table=table, models=tiny_models)
    assert not (tmp_path / "y.atlas").exists()


@pytest.mark.parametrize("bands", [[], [""], ["g", " "]])
def test_bands_without_a_name_are_one_clear_error(cutouts, tmp_path, tiny_models, bands):
    with pytest.raises(galsearch.SchemaError, match="name images or planes"):
        galsearch.build(tmp_path / "x.atlas", images=cutouts, models=tiny_models, bands=bands)


def test_a_band_that_a_file_has_not_is_refused_and_no_other_is_taken_for_it(tmp_path, tiny_models):
    (tmp_path / "cutouts").mkdir()
    light = picture(color="red", shape="edge", size_px=32)[..., 0].astype(np.float32)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(light, name="F814W"), fits.ImageHDU(light.T * 3, name="F606W")]
    fits.HDUList(hdus).writeto(tmp_path / "cutouts" / "one.fits")
    with pytest.raises(galsearch.SchemaError, match=r"it has no band F435W \(it has F814W, F606W\)"):
        galsearch.build(tmp_path / "x.atlas", images=tmp_path / "cutouts", models=tiny_models, bands=["F435W"])
    report = galsearch.build(tmp_path / "x.atlas", images=tmp_path / "cutouts", models=tiny_models, bands=["F606W"])
    assert report.rows == 1


def test_the_phrases_of_every_atlas_are_words_and_each_is_there_once():
    phrases = ingest.concept_phrases()
    assert len(phrases) == len(set(phrases)) > 50
    assert all(phrase.strip() == phrase and phrase[0].isalnum() for phrase in phrases)


def test_pictures_are_images_or_a_mosaic_and_the_old_name_warns(tmp_path, tiny_models):
    cutouts = draw(tmp_path / "cutouts")
    with pytest.warns(FutureWarning, match="source is now called images") as warned:
        report = galsearch.build(tmp_path / "a.atlas", source=cutouts, models=tiny_models)
        galsearch.add(
            tmp_path / "a.atlas", source=draw(tmp_path / "more", {"e-more": ("red", "round")}), models=tiny_models
        )
    assert [one.filename for one in warned] == [__file__] * 2  # the line that is to be changed is named
    assert report.rows == len(LOOKS)
    with pytest.raises(galsearch.SchemaError, match="images and mosaic are given"):
        galsearch.build(tmp_path / "b.atlas", images=cutouts, mosaic=cutouts, models=tiny_models)
    with pytest.raises(galsearch.SchemaError, match="mosaic takes one picture, images a folder"):
        galsearch.build(tmp_path / "b.atlas", mosaic=cutouts, models=tiny_models)
    with pytest.raises(galsearch.SchemaError, match="images takes a folder or an archive"):
        galsearch.build(tmp_path / "b.atlas", images=next(cutouts.iterdir()), models=tiny_models)


# ---- the disk


@pytest.mark.parametrize("lacking", ["the library", "the function", "the file system"])
def test_an_atlas_is_replaced_where_two_folders_cannot_change_places(tmp_path, monkeypatch, lacking):
    """renameat2 is of Linux, and not every file system has it."""
    path = tmp_path / "a.atlas"
    for ids in (["a", "b"], ["c"]):
        table = parquet(tmp_path / "t.parquet", object_id=ids, v=[[1.0, 0.0]] * len(ids))
        galsearch.build(path, table=table, vectors="v", model="m", overwrite=path.exists())

        def library(*_: object, **__: object) -> object:
            if lacking == "the library":
                raise OSError("no such library")
            return SimpleNamespace(**({} if lacking == "the function" else {"renameat2": lambda *_: -1}))

        monkeypatch.setattr(disk.ctypes, "CDLL", library)
    with galsearch.open(path) as atlas:
        assert atlas.search(k=9).ids == ["c"]
    assert [item.name for item in tmp_path.iterdir() if "atlas" in item.name] == ["a.atlas"]


def test_a_build_leaves_no_files_of_the_order_that_its_index_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "LEAST_ROWS", 20)
    vectors = np.random.default_rng(1).normal(size=(60, 4))
    table = parquet(tmp_path / "t.parquet", object_id=[f"o{row}" for row in range(60)], v=vectors.tolist())
    galsearch.build(tmp_path / "a.atlas", table=table, vectors="v", model="m")
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        assert atlas.search(vectors[3], k=1).ids == ["o3"]
    kept = lance.dataset(str(tmp_path / "a.atlas" / "vectors.lance" / "image.lance"))
    assert len(kept.versions()) == 1
    data = tmp_path / "a.atlas" / "vectors.lance" / "image.lance" / "data"
    assert len(list(data.iterdir())) == len(kept.get_fragments())


def test_a_folder_holds_as_many_files_as_it_may_and_no_more(tmp_path):
    for name in ("a", "b", "c/d", "c/e/f"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    check_folder(tmp_path, most=6)  # four files and two folders
    with pytest.raises(galsearch.FormatError, match="holds more than 5 files"):
        check_folder(tmp_path, most=5)


def test_what_is_kept_of_a_table_in_the_provenance_is_what_there_was_to_say(tmp_path):
    table = parquet(tmp_path / "t.parquet", object_id=["a", "b"], v=[[1.0, 0.0], [0.0, 1.0]])
    galsearch.build(tmp_path / "a.atlas", table=table, vectors="v", model="m")
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        found = atlas.manifest.provenance[0]["found"]
    assert found == {"ids": "object_id", "added": 2, "left_out": {}}
