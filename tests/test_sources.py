"""What is taken from tables, folders, mosaics and vector columns, and what is refused: no encoder runs here."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import parquet, write
from tiny_models import picture

from galsearch.errors import SchemaError
from galsearch.science import images
from galsearch.sources import open_source
from galsearch.sources.files import PICTURES
from galsearch.sources.known_embeddings import AION
from galsearch.sources.mosaic import _outside
from galsearch.sources.vectors import position_name

IDS = ["a-red", "b-blue", "c-green", "d-white"]
LONG_ID = "1237648720693755918"  # a float64 rounds its last digits


@pytest.fixture
def cutouts(tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for name in IDS:
        Image.fromarray(picture(color=name[2:], shape="round", size_px=32)).save(folder / f"{name}.png")
    return folder


def taken(source=None, table=None, *, vectors=None, id_column=None):
    return open_source(source, table, vectors=vectors, id_column=id_column)


# ---- tables joined to cutouts


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".parquet", ".fits", ".vot"])
def test_every_table_format_is_joined_by_id_with_units_and_missing_values(cutouts, tmp_path, suffix):
    table = Table({"objid": IDS, "z": [0.1, -9999.0, np.nan, 0.4], "count": [1, 2, -9999, 4]})
    table["flux"] = MaskedColumn([1.0, 2.0, 3.0, 4.0], mask=[False, True, False, False], unit="mJy")
    path = tmp_path / f"catalog{suffix}"
    if suffix == ".parquet":
        meta = {"unit": "mJy"}
        columns = {name: pa.array(table[name].tolist()) for name in table.colnames}
        rows = pa.table(columns)
        place = rows.column_names.index("flux")
        pq.write_table(rows.set_column(place, rows.field(place).with_metadata(meta), rows["flux"]), path)
    else:
        known = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable"}
        table.write(path, format=known[suffix])
    rows = taken(cutouts, path).table
    assert rows["object_id"].to_pylist() == IDS
    assert rows["z"].to_pylist() == [0.1, None, None, 0.4]
    assert rows["count"].to_pylist() == [1, 2, None, 4]
    assert rows["flux"].to_pylist() == [1.0, None, 3.0, 4.0]
    if suffix != ".csv":  # which has no place for units
        assert rows.field("flux").metadata[b"unit"] == b"mJy"


def test_long_ids_and_leading_zeros_stay_digit_for_digit(tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for name in (LONG_ID, "000123"):
        Image.fromarray(picture(shape="round", size_px=32)).save(folder / f"{name}.png")
    table = write(tmp_path / "t.csv", f"objid,z\n{LONG_ID},0.1\n000123,0.2\n")
    assert taken(folder, table).table["object_id"].to_pylist() == [LONG_ID, "000123"]
    numbers = parquet(tmp_path / "t.parquet", objid=pa.array([int(LONG_ID)], pa.int64()))
    found = taken(folder, numbers)
    assert found.table["object_id"].to_pylist() == [LONG_ID]
    assert [item["file"] for item in found.rejected] == ["000123.png"]


def test_an_id_column_named_by_the_user_keeps_leading_zeros_too(tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    Image.fromarray(picture(shape="round", size_px=32)).save(folder / "007.png")
    table = write(tmp_path / "t.csv", "brick,z\n007,0.1\n")
    assert taken(folder, table, id_column="brick").table["object_id"].to_pylist() == ["007"]


def test_rows_are_joined_by_file_name_with_or_without_folder_and_suffix(cutouts, tmp_path):
    names = ["a-red.png", "somewhere/b-blue.png", "c-green", "d-white.png"]
    lines = [f"{row},{name}" for row, name in enumerate(names)]
    found = taken(cutouts, write(tmp_path / "t.csv", "id,filename\n" + "\n".join(lines)))
    assert found.table["object_id"].to_pylist() == ["0", "1", "2", "3"]
    assert found.table["file"].to_pylist() == [f"{name}.png" for name in IDS]
    assert not found.rejected


def test_a_table_of_file_names_alone_gives_ids_from_the_names(cutouts, tmp_path):
    lines = [f"{name}.png,{row}" for row, name in enumerate(IDS)]
    found = taken(cutouts, write(tmp_path / "t.csv", "file,z\n" + "\n".join(lines)))
    assert found.table["object_id"].to_pylist() == IDS


def test_without_a_table_the_file_names_are_the_ids(cutouts):
    assert taken(cutouts).table["object_id"].to_pylist() == IDS


def test_pictures_in_subfolders_and_of_capital_suffix_are_found(cutouts):
    (cutouts / "deep").mkdir()
    Image.fromarray(picture(shape="ring")).save(cutouts / "deep" / "e.JPG", format="JPEG")
    assert taken(cutouts).table["file"].to_pylist()[-1] == "deep/e.JPG"


def test_rows_without_pictures_and_pictures_without_rows_are_rejected_by_name(cutouts, tmp_path):
    found = taken(cutouts, write(tmp_path / "t.csv", "id\na-red\nnowhere\n"))
    assert found.table["object_id"].to_pylist() == ["a-red"]
    assert {(item["object_id"], item["file"]) for item in found.rejected} == {
        ("nowhere", None),
        (None, "b-blue.png"),
        (None, "c-green.png"),
        (None, "d-white.png"),
    }


def test_positions_off_the_sky_or_by_half_are_rejected_and_360_wraps(cutouts, tmp_path):
    lines = "id,RA,DEC\na-red,360,10\nb-blue,400,20\nc-green,10,\nd-white,-9999,-9999\n"
    found = taken(cutouts, write(tmp_path / "t.csv", lines))
    assert found.table.select(["object_id", "ra", "dec"]).to_pylist() == [
        {"object_id": "a-red", "ra": 0.0, "dec": 10.0},
        {"object_id": "d-white", "ra": None, "dec": None},
    ]
    reasons = {item["object_id"]: item["reason"] for item in found.rejected}
    assert "400" in reasons["b-blue"]
    assert "both or neither" in reasons["c-green"]


def test_positions_have_units_and_ucds_whatever_the_table_calls_them(cutouts, tmp_path):
    table = Table({"name": IDS, "RAJ2000": [1.0, 2, 3, 4], "DEJ2000": [1.0, 2, 3, 4]})
    table.write(tmp_path / "t.vot", format="votable")
    rows = taken(cutouts, tmp_path / "t.vot").table
    assert rows.field("ra").metadata[b"unit"] == b"deg"
    assert rows.field("dec").metadata[b"ucd"] == b"pos.eq.dec;meta.main"


@pytest.mark.parametrize(
    ("unit", "factor"), [("rad", 57.29577951308232), ("hourangle", 15.0), ("arcsec", 1 / 3600)], ids=str
)
def test_positions_in_another_unit_are_converted_and_it_is_said(cutouts, tmp_path, unit, factor):
    table = QTable({"id": IDS, "ra": [0.1, 0.2, 0.3, 0.4] * units.Unit(unit), "dec": [1.0, 2, 3, 4] * units.deg})
    table.write(tmp_path / "t.ecsv")
    found = taken(cutouts, tmp_path / "t.ecsv")
    assert found.table["ra"].to_pylist() == pytest.approx([each * factor for each in (0.1, 0.2, 0.3, 0.4)])
    assert found.table["dec"].to_pylist() == [1, 2, 3, 4]
    assert found.table["ra_in_table"].to_pylist() == [0.1, 0.2, 0.3, 0.4]  # in its own unit
    assert any("ra is converted" in note for note in found.summary.notes)


@pytest.mark.parametrize(
    ("text", "id_column", "message"),
    [
        ("id,z,z\na-red,1,2\n", None, "column z occurs twice"),
        ("id,x\na-red,1\nb,3\na-red,2\n", None, "'a-red' in rows 1, 3;.*unique"),
        ("id,x\na-red,1\n", "nope", "no column 'nope'.*there are: id, x"),
        ("alpha,x\na-red,1\n", None, "--id-column"),
        ("id,x\n", None, "no rows"),
        ("", None, "empty"),
    ],
    ids=["twice", "repeated", "unknown", "no id", "no rows", "empty"],
)
def test_a_table_that_is_doubtful_as_a_whole_is_refused(cutouts, tmp_path, text, id_column, message):
    with pytest.raises(SchemaError, match=message):
        taken(cutouts, write(tmp_path / "t.csv", text), id_column=id_column)


def test_a_row_without_an_id_is_left_out_by_its_number_and_not_the_table(cutouts, tmp_path):
    found = taken(cutouts, write(tmp_path / "t.csv", "id,x\na-red,1\n,2\nb-blue,3\n"))
    assert found.table.select(["object_id", "x"]).to_pydict() == {"object_id": ["a-red", "b-blue"], "x": [1, 3]}
    assert found.rejected[0] == {
        "object_id": None, "file": None, "reason": "row 2 has no id in column id; every object needs its own"
    }  # fmt: skip


def test_repeated_files_without_a_table_are_named(cutouts):
    (cutouts / "deep").mkdir()
    Image.fromarray(picture(shape="ring")).save(cutouts / "deep" / "a-red.jpg")
    with pytest.raises(SchemaError, match=r"'a-red' for a-red.png and deep/a-red.jpg.*--id-from path"):
        taken(cutouts)


def test_a_second_column_called_object_id_is_kept_under_another_name(cutouts, tmp_path):
    lines = [f"{name},{row}" for row, name in enumerate(IDS)]
    rows = taken(cutouts, write(tmp_path / "t.csv", "name,object_id\n" + "\n".join(lines)), id_column="name").table
    assert rows["object_id"].to_pylist() == IDS
    assert rows["object_id_in_table"].to_pylist() == ["0", "1", "2", "3"]


def test_the_file_names_may_be_the_ids(cutouts, tmp_path):
    lines = "\n".join(f"{name}.png" for name in IDS)
    rows = taken(cutouts, write(tmp_path / "t.csv", f"file\n{lines}\n"), id_column="file").table
    assert rows["object_id"].to_pylist() == [f"{name}.png" for name in IDS]
    assert rows["file"].to_pylist() == rows["object_id"].to_pylist()


def test_a_column_of_embedded_pictures_is_not_taken_for_file_names(cutouts, tmp_path):
    table = parquet(tmp_path / "t.parquet", id=IDS, image=[{"bytes": b"x", "path": None}] * 4)
    assert taken(cutouts, table).table["file"].to_pylist() == [f"{name}.png" for name in IDS]


@pytest.mark.parametrize(
    ("source", "table", "message"),
    [
        ("nowhere", None, "nowhere"),
        ("empty", None, "no pictures inside"),
        (None, None, "nothing to take in"),
        ("cutouts", "nowhere.csv", "no such file"),
        ("cutouts", "notes.xlsx", "cannot read a table from .xlsx"),
    ],
)
def test_missing_and_unknown_inputs_are_named(cutouts, tmp_path, source, table, message):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "notes.xlsx", "id\na\n")
    with pytest.raises(SchemaError, match=message):
        taken(source and tmp_path / source, table and tmp_path / table)


@pytest.mark.parametrize(
    ("name", "expected"), [("a.fits.gz", "a"), ("b.v2.PNG", "b.v2"), ("plain", "plain"), ("c.jpeg", "c")]
)
def test_stem_takes_off_the_picture_suffix_only(tmp_path, name, expected):
    assert PICTURES.stem(tmp_path / name) == expected


# ---- pictures that carry their place


def sky_header(*, ra=189.2, dec=62.2, pixel_arcsec=0.4, size_px=32):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, dec]
    wcs.wcs.crpix = [(size_px + 1) / 2] * 2
    wcs.wcs.cdelt = [-pixel_arcsec / 3600, pixel_arcsec / 3600]
    return wcs.to_header()


def galaxy(size_px=32, *, sigma=3.0, seed=0, places=None):
    y, x = np.mgrid[:size_px, :size_px].astype(float)
    light = np.random.default_rng(seed).normal(scale=0.02, size=(size_px, size_px))
    for x_px, y_px in places or [((size_px - 1) / 2,) * 2]:
        light += 5 * np.exp(-((x - x_px) ** 2 + (y - y_px) ** 2) / (2 * sigma**2))
    return light.astype(np.float32)


def test_a_fits_cutout_gives_position_and_radius_on_the_sky(tmp_path):
    light = galaxy()
    light[:3] = np.nan
    fits.writeto(tmp_path / "a.fits", light, sky_header())
    columns = taken(tmp_path).take(0).columns
    center = SkyCoord(columns["ra"], columns["dec"], unit="deg")
    assert center.separation(SkyCoord(189.2, 62.2, unit="deg")).arcsec < 1e-6
    assert columns["radius_arcsec"] == pytest.approx(columns["radius_px"] * 0.4)
    assert columns["radius_px"] == pytest.approx(3.0 * 1.1774, rel=0.1)  # of a Gaussian: sigma sqrt(2 ln 2)


@pytest.mark.parametrize(
    "cards", [{"CRVAL1": "here"}, {"CDELT1": 0.0}, {"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}], ids=str
)
def test_a_fits_cutout_whose_wcs_does_not_work_is_rejected_by_name(tmp_path, cards):
    header = sky_header()
    header.update(cards)
    fits.writeto(tmp_path / "wrong.fits", galaxy(), header)
    with pytest.raises(SchemaError, match=r"wrong.fits: .*WCS"):
        taken(tmp_path).take(0)


def test_a_wcs_that_points_off_the_projection_is_rejected(tmp_path):
    cards = {"CTYPE1": "RA---AIT", "CTYPE2": "DEC--AIT", "CRPIX1": 1e9, "CDELT1": 1.0, "CDELT2": 1.0}
    header = fits.Header({**cards, "CRVAL1": 0.0, "CRVAL2": 0.0, "CRPIX2": 1.0})
    fits.writeto(tmp_path / "far.fits", galaxy(), header)
    with pytest.raises(SchemaError, match=r"far.fits: .*nowhere on the sky"):
        taken(tmp_path).take(0)


# ---- mosaics

PLACES = [(40.0, 50.0), (120.0, 60.0), (80.0, 140.0)]


@pytest.fixture
def mosaic(tmp_path):
    path = tmp_path / "field.fits"
    fits.writeto(path, galaxy(200, places=PLACES), sky_header(ra=359.99, size_px=200))
    return path


def sky_of(path, places):
    return WCS(fits.getheader(path)).pixel_to_world(*np.array(places).T)


def test_a_mosaic_without_a_catalog_is_detected_with_the_positions_astropy_gives(mosaic):
    rows = taken(mosaic).table
    assert sorted(rows["object_id"].to_pylist()) == ["field-0001", "field-0002", "field-0003"]
    found = np.stack([rows["x_px"].to_numpy(), rows["y_px"].to_numpy()], axis=1)
    assert np.abs(found[np.argsort(found.sum(axis=1))] - np.array(sorted(PLACES, key=sum))).max() < 0.1
    truth = sky_of(mosaic, found)
    here = SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg")
    assert here.separation(truth).arcsec.max() < 1e-6
    np.testing.assert_allclose(rows["radius_arcsec"].to_numpy(), rows["radius_px"].to_numpy() * 0.4)
    assert rows.field("radius_arcsec").metadata[b"unit"] == b"arcsec"


def test_a_catalog_of_positions_is_cut_out_where_they_are_and_takes_the_measured_size(mosaic, tmp_path):
    sky = sky_of(mosaic, PLACES)
    Table({"id": ["a", "b", "c"], "ra": sky.ra.deg, "dec": sky.dec.deg}).write(tmp_path / "c.fits")
    found = taken(mosaic, tmp_path / "c.fits")
    assert found.table["object_id"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_allclose(found.table["x_px"].to_numpy(), [x for x, _ in PLACES], atol=1e-6)
    assert found.table["radius_px"].null_count == 0
    light = found.take(1).picture.sum(axis=2, dtype=float)
    center = [np.average(axis, weights=light) for axis in np.indices(light.shape)]
    np.testing.assert_allclose(center, (len(light) - 1) / 2, atol=1)


def test_a_catalog_of_pixels_gets_its_positions_from_the_wcs(mosaic, tmp_path):
    table = write(tmp_path / "c.csv", "id,x_px,y_px\na,40,50\nb,80,140\n")
    rows = taken(mosaic, table).table
    here = SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg")
    assert here.separation(sky_of(mosaic, [PLACES[0], PLACES[2]])).arcsec.max() < 1e-6


@pytest.mark.parametrize(("away", "is_its"), [(3.8, True), (4.2, False)])
def test_a_catalog_position_takes_the_size_of_the_source_within_four_pixels(mosaic, tmp_path, away, is_its):
    alone = taken(mosaic).table.to_pylist()
    one = min(alone, key=lambda row: np.hypot(row["x_px"] - PLACES[0][0], row["y_px"] - PLACES[0][1]))
    x, y = one["x_px"] + 0.8 * away, one["y_px"] - 0.6 * away
    (row,) = taken(mosaic, write(tmp_path / "c.csv", f"id,x_px,y_px\na,{x},{y}\n")).table.to_pylist()
    assert row["radius_px"] == (one["radius_px"] if is_its else None)


def test_catalog_rows_outside_the_mosaic_or_without_a_position_are_rejected(mosaic, tmp_path):
    lines = "id,ra,dec\nnear,359.99,62.2\nfar,10,-30\nbehind,180,-62\nnone,,\nwrong,10,95\n"
    found = taken(mosaic, write(tmp_path / "c.csv", lines))
    assert found.table["object_id"].to_pylist() == ["near"]
    assert [item["object_id"] for item in found.rejected] == ["far", "behind", "none", "wrong"]


def test_a_catalog_without_any_size_is_cut_at_the_default_size(tmp_path):
    """Nothing is detected in noise, so no size can be measured."""
    noise = np.random.default_rng(3).normal(size=(64, 64)).astype(np.float32)
    fits.writeto(tmp_path / "noise.fits", noise, sky_header(size_px=64))
    found = taken(tmp_path / "noise.fits", write(tmp_path / "c.csv", "id,x_px,y_px\na,30,30\n"))
    side = found.take(0).picture.shape[0]
    assert side == 64  # eight of 8 px, the default radius


def test_a_huge_size_in_a_catalog_does_not_make_a_huge_picture(mosaic, tmp_path):
    table = write(tmp_path / "c.csv", "id,x_px,y_px,radius_px\na,40,50,1e9\n")
    assert max(taken(mosaic, table).take(0).picture.shape) <= 200


def test_a_catalog_of_positions_needs_a_wcs(tmp_path):
    Image.fromarray(picture(shape="round", size_px=64)).save(tmp_path / "plain.png")
    with pytest.raises(SchemaError, match="no celestial WCS"):
        taken(tmp_path / "plain.png", write(tmp_path / "c.csv", "id,ra,dec\na,1,2\n"))


def test_pixel_columns_that_are_text_are_refused(mosaic, tmp_path):
    with pytest.raises(SchemaError, match=r"no pixel positions were found.*There are: id, x_px, y_px"):
        taken(mosaic, write(tmp_path / "c.csv", "id,x_px,y_px\na,left,50\n"))


# ---- vectors

VECTORS = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)


def lists(vectors=VECTORS):
    return pa.array([None if v is None else [float(x) for x in v] for v in vectors], pa.list_(pa.float32()))


@pytest.mark.parametrize("kind", ["list", "fixed", "float64"])
def test_vectors_are_brought_to_unit_length(tmp_path, kind):
    column = {
        "list": lists(),
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 8),
        "float64": pa.array(VECTORS.astype(float).tolist()),
    }[kind]
    found = taken(None, parquet(tmp_path / "t.parquet", id=IDS, v=column, z=[1.0] * 4), vectors="v")
    truth = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors, truth, atol=1e-6)
    assert found.table.column_names == ["object_id", "ra", "dec", "z"]


def test_a_fits_vector_column_is_taken(tmp_path):
    Table({"id": IDS, "v": VECTORS}).write(tmp_path / "t.fits")
    assert taken(None, tmp_path / "t.fits", vectors="v").vectors.shape == (4, 8)


@pytest.mark.parametrize("fixed", [False, True])
def test_rows_without_a_usable_vector_are_rejected(tmp_path, fixed):
    vectors = [VECTORS[0], None, np.zeros(8), [np.nan, *VECTORS[3][1:]]]
    column = lists(vectors).cast(pa.list_(pa.float32(), 8)) if fixed else lists(vectors)
    found = taken(None, parquet(tmp_path / "t.parquet", id=IDS, v=column), vectors="v")
    assert found.table["object_id"].to_pylist() == IDS[:1]
    assert [item["object_id"] for item in found.rejected] == IDS[1:]
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [1.0], [1.0], [1.0]], "lengths \\[1, 2\\], expected one length"),
        ([["a"], ["b"], ["c"], ["d"]], "expected a list of numbers"),
        (["a", "b", "c", "d"], "is string, expected a list"),
        ([[[1.0]]] * 4, "expected a list of numbers"),
    ],
    ids=["lengths", "texts", "text", "nested"],
)
def test_a_column_that_holds_no_vectors_is_refused(tmp_path, values, message):
    with pytest.raises(SchemaError, match=message):
        taken(None, parquet(tmp_path / "t.parquet", id=IDS, v=pa.array(values)), vectors="v")


def test_vectors_need_a_table_an_existing_column_and_no_pictures(cutouts, tmp_path):
    table = parquet(tmp_path / "t.parquet", id=IDS, v=lists())
    with pytest.raises(SchemaError, match=r"no column 'w'.*there are"):
        taken(None, table, vectors="w")
    with pytest.raises(SchemaError, match="give the table, and no pictures"):
        taken(cutouts, table, vectors="v")
    with pytest.raises(SchemaError, match="give the table"):
        taken(None, None, vectors="v")


# ---- what a change of the input changes


def test_inputs_have_digests_that_follow_their_content(cutouts, tmp_path):
    table = write(tmp_path / "t.csv", "id\na-red\n")
    before = taken(cutouts, table).inputs
    assert taken(cutouts, table).inputs == before
    Image.fromarray(picture(color="dark", shape="ring", size_px=40)).save(cutouts / "a-red.png")
    after = taken(cutouts, table).inputs
    assert after[str(table)] == before[str(table)]
    assert after[str(cutouts)] != before[str(cutouts)]


def test_a_stretched_mosaic_is_cut_as_it_is(tmp_path):
    rgb = np.zeros((96, 96, 3), np.uint8)
    rgb[40:56, 40:56] = (200, 100, 50)
    Image.fromarray(rgb).save(tmp_path / "m.png")
    found = taken(tmp_path / "m.png", write(tmp_path / "c.csv", "id,x_px,y_px,radius_px\na,47.5,47.5,4\n"))
    assert found.take(0).picture.max() == 200
    assert images.render(images.read_picture(tmp_path / "m.png")).shape == (96, 96, 3)


# ---- pictures in a table, vectors in many columns


@pytest.mark.parametrize("layout", ["struct", "bytes"])
def test_pictures_inside_parquet_are_cutouts_of_their_rows(cutouts, tmp_path, layout):
    content = [(cutouts / f"{name}.png").read_bytes() for name in IDS[:3]] + [None]
    image = [{"bytes": one, "path": None} for one in content] if layout == "struct" else content
    table = parquet(tmp_path / "t.parquet", id=IDS, ra=[1.0, 2.0, 3.0, 4.0], dec=[1.0] * 4, image=image)
    found = taken(None, table)
    assert found.table["object_id"].to_pylist() == IDS
    assert "image" not in found.table.column_names
    expected = taken(cutouts)
    for row in range(3):
        np.testing.assert_array_equal(found.take(row).picture, expected.take(row).picture)
    with pytest.raises(SchemaError, match="row 4 has no picture in column image"):
        found.take(3)


def test_pictures_of_a_table_without_ids_are_called_after_their_paths(cutouts, tmp_path):
    image = [{"bytes": (cutouts / f"{name}.png").read_bytes(), "path": f"train/{name}.png"} for name in IDS]
    found = taken(None, parquet(tmp_path / "t.parquet", image=image, z=[0.1, 0.2, 0.3, 0.4]))
    assert found.table["object_id"].to_pylist() == IDS


@pytest.mark.parametrize("column", ["feat_*", "feat", "feat_"])
def test_columns_of_numbers_are_one_vector_in_the_order_of_their_numbers(tmp_path, column):
    values = np.random.default_rng(3).normal(size=(4, 12)).astype(np.float32)
    wide = {f"feat_{place}": values[:, place] for place in sorted(range(12), key=str)}
    found = taken(None, parquet(tmp_path / "t.parquet", id=IDS, **wide, z=[0.1] * 4), vectors=column)
    np.testing.assert_allclose(found.vectors, values / np.linalg.norm(values, axis=1, keepdims=True), rtol=1e-5)
    assert not [name for name in found.table.column_names if name.startswith("feat")]


def test_a_path_of_the_table_is_kept_beside_the_file_of_the_picture(cutouts, tmp_path):
    lines = "\n".join(f"{name},/archive/{name}.png,x" for name in IDS)
    found = taken(cutouts, write(tmp_path / "t.csv", f"id,path,File\n{lines}\n"))
    assert found.table["file"].to_pylist() == [f"{name}.png" for name in IDS]
    assert found.table["path"].to_pylist() == [f"/archive/{name}.png" for name in IDS]
    assert found.table["File_in_table"].to_pylist() == ["x"] * 4


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (172.47450, -0.07430, "J112953.88-000427.4"),
        (202.469575, 47.1952583, "J132952.69+471142.9"),
        (359.9999999, -89.9999999, "J235959.99-895959.9"),
        (0.0, 0.0, "J000000.00+000000.0"),
    ],
)
def test_a_position_is_named_as_the_iau_has_it_cut_and_not_rounded(ra, dec, name):
    assert position_name(ra, dec) == name


@given(st.integers(0, 24 * 3600 * 100 - 1), st.integers(-90 * 36_000 + 1, 90 * 36_000 - 1), st.floats(0.05, 0.95))
def test_a_name_has_the_digits_of_its_position(time, angle, more):
    """`time` is in hundredths of a second, `angle` in tenths of an arcsecond, and a part of either is cut off."""
    dec = (angle + (more if angle >= 0 else -more)) / 36_000
    name = position_name((time + more) * 15 / 360_000, dec)
    hours, minutes, seconds = int(name[1:3]), int(name[3:5]), float(name[5:10])
    degrees, parts, arcsec = int(name[11:13]), int(name[13:15]), float(name[15:19])
    assert minutes < 60 and seconds < 60 and parts < 60 and arcsec < 60
    assert round((hours * 3600 + minutes * 60 + seconds) * 100) == time
    assert round((degrees * 3600 + parts * 60 + arcsec) * 10) == abs(angle)
    assert name[10] == ("-" if dec < 0 else "+") and len(name) == 19


def published(tmp_path, **columns):
    """Write a table as AION-Search has them, without a column of ids."""
    rows = len(next(iter(columns.values())))
    vectors = np.random.default_rng(1).normal(size=(rows, 768)).astype(np.float32)
    return parquet(tmp_path / "published.parquet", **columns, aion_mean_embedding=list(vectors))


def test_rows_of_a_published_table_without_ids_are_called_after_their_positions(tmp_path):
    path = published(tmp_path, ra=[172.4745, None, 0.0], dec=[-0.0743, 1.0, 0.0])
    found = open_source(None, path, vectors=None, publication=AION)
    assert found.table["object_id"].to_pylist() == ["J112953.88-000427.4", "J000000.00+000000.0"]
    assert [one["reason"] for one in found.rejected] == ["row 2 has neither an id nor a position"]


def test_a_published_table_with_neither_ids_nor_any_position_is_refused(tmp_path):
    path = published(tmp_path, ra=pa.nulls(2, pa.float64()), dec=pa.nulls(2, pa.float64()))
    with pytest.raises(SchemaError, match="no column of ids; name it"):
        open_source(None, path, vectors=None, publication=AION)


@pytest.mark.parametrize("number", [None, 3.0])
def test_a_vector_with_a_number_missing_is_left_out_and_the_others_stay(tmp_path, number):
    path = parquet(tmp_path / "t.parquet", object_id=["a", "b", "c"], v=[[3.0, 4.0], [1.0, number], [0.0, 2.0]])
    found = taken(table=path, vectors="v")
    assert found.table["object_id"].to_pylist() == (["a", "c"] if number is None else ["a", "b", "c"])
    np.testing.assert_allclose(found.vectors[[0, -1]], [[0.6, 0.8], [0, 1]])


def test_rows_outside_a_mosaic_are_left_out_with_the_reason():
    rows = pa.table({"x_px": [-0.5, 3.0, None, 9.6, 1.0, -0.6], "y_px": [4.4, 4.6, 1.0, 0.0, None, 0.0]})
    assert _outside(rows, (5, 10)) == {
        1: "row 2: x 3, y 5 is outside the mosaic",
        2: "row 3: no position",
        3: "row 4: x 10, y 0 is outside the mosaic",
        4: "row 5: no position",
        5: "row 6: x -1, y 0 is outside the mosaic",
    }
