"""HATS catalogs: what is written is what LSDB reads, and what a build and a cross-match take in."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy import units
from pyarrow import parquet

import galsearch
from galsearch import formats
from galsearch.errors import GalsearchError, QueryError, SchemaError
from galsearch.formats import hats
from galsearch.science import healpix

ROWS = 3_000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Positions all over the sky, with poles, borders, a cluster and rows without one; and vectors."""
    random = np.random.default_rng(0)
    ra, dec = random.uniform(0, 360, ROWS), np.degrees(np.arcsin(random.uniform(-1, 1, ROWS)))
    ra[:6], dec[:6] = [0, 0, 90, 123.4, 359.999999, 0], [90, -90, 0, 89.999999, 0, 41.8103149]
    ra[1000:1600], dec[1000:1600] = random.normal(150, 0.01, 600), random.normal(2, 0.01, 600)
    columns = {
        "id": [f"{number:07d}" for number in range(ROWS)],
        "ra": pa.array([None if number % 500 == 499 else value for number, value in enumerate(ra)], pa.float64()),
        "dec": pa.array([None if number % 500 == 499 else value for number, value in enumerate(dec)], pa.float64()),
        "mag_r": pa.array(
            [None if number % 7 == 0 else value for number, value in enumerate(random.uniform(14, 20, ROWS))]
        ),
        "v": pa.FixedSizeListArray.from_arrays(pa.array(random.normal(size=ROWS * 4).astype(np.float32)), 4),
    }
    return pa.table(columns)


@pytest.fixture(scope="module")
def catalog(table, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hats") / "sky"
    assert hats.write_hats(table, out, partition_rows=200) == ROWS - 6
    return out


@pytest.fixture
def copy(catalog, tmp_path) -> Path:
    return Path(shutil.copytree(catalog, tmp_path / "copy"))


# ---- pixels


@pytest.mark.parametrize("order", [0, 1, 5, 13, 29])
def test_positions_are_in_the_pixels_that_astropy_healpix_says(order):
    module = pytest.importorskip("astropy_healpix")
    random = np.random.default_rng(order)
    ra, dec = random.uniform(-360, 720, 20_000), np.degrees(np.arcsin(random.uniform(-1, 1, 20_000)))
    dec[:200] = np.copysign(90 - 10.0 ** random.uniform(-12, 0, 200), dec[:200])
    expected = module.HEALPix(1 << order, order="nested").lonlat_to_healpix(ra * units.deg, dec * units.deg)
    assert (healpix.pixels_of(order, ra, dec) == expected).mean() > 0.9999  # a border may be either's
    pixels = random.integers(0, 12 * 4**order, 5_000)
    assert np.array_equal(healpix.pixels_of(order, *healpix.pixel_centers(order, pixels)), pixels)


def test_a_pixel_holds_those_of_the_order_below_it():
    random = np.random.default_rng(3)
    ra, dec = random.uniform(0, 360, 10_000), random.uniform(-90, 90, 10_000)
    deepest = healpix.pixels_of(29, ra, dec)
    for order in (0, 4, 11, 20):
        assert np.array_equal(healpix.pixels_of(order, ra, dec), deepest >> (2 * (29 - order)))


@pytest.mark.parametrize(("order", "ra", "dec"), [(30, 0, 0), (-1, 0, 0), (3, np.nan, 0), (3, 0, 90.1), (3, 0, np.nan)])
def test_what_is_no_position_or_order_has_no_pixel(order, ra, dec):
    with pytest.raises(QueryError):
        healpix.pixels_of(order, np.array([ra]), np.array([dec]))


# ---- writing


def test_every_row_with_a_position_is_in_its_partition_once(catalog, table):
    seen = []
    for (order, number), files in hats.partitions(catalog).items():
        (file,) = files
        assert file == catalog / f"dataset/Norder={order}/Dir={number // 10_000 * 10_000}/Npix={number}.parquet"
        part = parquet.read_table(file, partitioning=None)
        assert part.column_names == ["_healpix_29", *table.column_names]
        pixels = part["_healpix_29"].to_numpy()
        assert part.schema.field("_healpix_29").type == pa.int64() and (np.diff(pixels) >= 0).all()
        assert (pixels >> (2 * (29 - order)) == number).all() and 0 < len(pixels) <= 200
        assert np.array_equal(pixels, healpix.pixels_of(29, part["ra"].to_numpy(), part["dec"].to_numpy()))
        seen += part["id"].to_pylist()
    assert sorted(seen) == [name for name in table["id"].to_pylist() if int(name) % 500 != 499]


def test_the_metadata_lists_every_partition(catalog, table):
    stated = hats.properties_of(catalog)
    assert (catalog / "properties").read_bytes() == (catalog / "hats.properties").read_bytes()
    assert stated["obs_collection"] == "sky" and int(stated["hats_nrows"]) == ROWS - 6
    footer = parquet.read_metadata(catalog / "dataset" / "_metadata")
    files = {footer.row_group(number).column(0).file_path for number in range(footer.num_row_groups)}
    assert files == {path.relative_to(catalog / "dataset").as_posix() for path in catalog.rglob("Npix=*.parquet")}
    assert footer.num_rows == ROWS - 6
    assert parquet.read_schema(catalog / "dataset" / "_common_metadata").names == ["_healpix_29", *table.column_names]
    with (catalog / "partition_info.csv").open() as file:
        assert {(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(file)} == set(hats.partitions(catalog))


def test_lsdb_opens_it(catalog, table):
    lsdb = pytest.importorskip("lsdb")
    from hats.io.validation import is_valid_catalog

    assert is_valid_catalog(catalog, strict=True)
    assert len(lsdb.open_catalog(catalog).compute()) == ROWS - 6


def test_an_atlas_is_written_with_units_and_credits(atlas, tmp_path):
    rows = atlas.save_hats(tmp_path / "out", where="mag_r < 18", partition_rows=5)
    there = formats.read_table(tmp_path / "out")
    expected = atlas.search(where="mag_r < 18 AND ra IS NOT NULL", k=1000).table
    assert rows == there.num_rows == expected.num_rows
    assert sorted(there["object_id"].to_pylist()) == expected["object_id"].to_pylist()
    assert formats.facts_of(there.schema.field("mag_r"))["unit"] == "mag"
    assert hats.properties_of(tmp_path / "out")["obs_title"] == "Tiny"


def test_a_folder_that_is_there_is_not_touched(atlas, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(GalsearchError, match="is there already"):
        atlas.save_hats(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_what_cannot_be_a_catalog_leaves_nothing(atlas, tmp_path, monkeypatch):
    with pytest.raises(SchemaError, match="name of a catalog"):
        atlas.save_hats(tmp_path / "a name\nwith a line")
    with pytest.raises(SchemaError, match="no row has a position"):
        atlas.save_hats(tmp_path / "none", where="false")
    with pytest.raises(GalsearchError, match="cannot be written"):
        atlas.save_hats(tmp_path / "no folder" / "out")
    monkeypatch.setattr(parquet, "write_metadata", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(GalsearchError, match="No space left"):
        atlas.save_hats(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_one(run, tiny_bundle, tmp_path):
    code, out, told = run("export", tiny_bundle, "--hats", tmp_path / "out")
    assert (code, out) == (0, "") and "galaxies" in told
    assert hats.hats_root(tmp_path / "out") is not None


# ---- reading


def test_a_catalog_is_read_as_the_table_it_was_made_of(catalog, table):
    there = formats.read_table(catalog)
    expected = {row["id"]: row for row in table.to_pylist() if row["ra"] is not None}
    assert there.column_names == table.column_names
    assert {row["id"]: row for row in there.to_pylist()} == expected


def test_a_build_takes_a_catalog_as_its_table(catalog, table, tmp_path):
    report = galsearch.build(tmp_path / "a.atlas", table=catalog, vectors="v", model="random")
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        assert len(atlas) == ROWS - 6 and report is not None
        row = table.slice(42, 1).to_pylist()[0]
        assert atlas.rows([row["id"]])["mag_r"].to_pylist() == [row["mag_r"]]
        assert atlas.search(np.array(row["v"], np.float32), k=1)[0].object_id == row["id"]


def test_positions_are_the_columns_that_the_properties_name(table, tmp_path):
    out = tmp_path / "named"
    hats.write_hats(table, out, facts={"hats_col_ra": "where_e", "hats_col_dec": "where_n"})
    for path in out.rglob("Npix=*.parquet"):
        part = parquet.read_table(path, partitioning=None)
        names = {"ra": "where_e", "dec": "where_n"}
        parquet.write_table(part.rename_columns([names.get(name, name) for name in part.column_names]), path)
    galsearch.build(tmp_path / "a.atlas", table=out, vectors="v", model="random")
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        assert atlas.rows(["0000042"])["ra"].to_pylist() == [table["ra"][42].as_py()]


@pytest.mark.parametrize("damage", ["missing", "cut", "other columns", "no dataset"])
def test_a_damaged_catalog_is_one_clear_error(copy, tmp_path, damage):
    path = sorted(copy.rglob("Npix=*.parquet"))[3]
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "other columns":
        parquet.write_table(pa.table({"id": [[1]], "ra": [1.0], "dec": [1.0]}), path)
    else:
        shutil.rmtree(copy / "dataset")
        (copy / "partition_info.csv").unlink()
    with pytest.raises(SchemaError, match="copy"):
        galsearch.build(tmp_path / "a.atlas", table=copy, vectors="v", model="random")
    assert not (tmp_path / "a.atlas").exists()


def test_a_folder_that_is_no_catalog_is_told_as_such(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(SchemaError, match="no HATS catalog"):
        formats.read_table(tmp_path / "folder")


# ---- cross-matching


def test_only_partitions_near_the_atlas_are_read_and_the_answer_is_that_of_all(catalog, table, tmp_path, monkeypatch):
    parquet.write_table(table.slice(1000, 600), tmp_path / "cluster.parquet")
    galsearch.build(tmp_path / "a.atlas", table=tmp_path / "cluster.parquet", vectors="v", model="random")
    everything = formats.read_table(catalog)
    read: list[Path] = []
    real = formats.reading._read_parquet
    monkeypatch.setattr(formats.reading, "_read_parquet", lambda file, *rest: (read.append(file), real(file, *rest))[1])
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        for radius, mode in ((1, "best"), (30, "all")):
            read.clear()
            result = atlas.crossmatch(catalog, radius_arcsec=radius, mode=mode)
            assert result.equals(atlas.crossmatch(everything, radius_arcsec=radius, mode=mode))
            assert 0 < len(read) < len(hats.all_files(catalog)) / 2 and result.num_rows >= 599
        assert atlas.crossmatch(catalog, radius_arcsec=1, where="mag_r < 0").num_rows == 0
        assert atlas.crossmatch(catalog, radius_arcsec=1, keep_unmatched=True).num_rows == ROWS - 6


def test_a_lost_partition_near_the_atlas_is_an_error_and_a_far_one_is_not(copy, table, tmp_path):
    parquet.write_table(table.slice(1000, 600), tmp_path / "cluster.parquet")
    galsearch.build(tmp_path / "a.atlas", table=tmp_path / "cluster.parquet", vectors="v", model="random")
    near = {
        file for _, files, _ in hats.partitions_near(copy, np.array([150.0]), np.array([2.0]), 60) for file in files
    }
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        expected = atlas.crossmatch(copy, radius_arcsec=1)
        for path in set(hats.all_files(copy)) - near:
            if abs(parquet.read_table(path, partitioning=None)["dec"][0].as_py()) > 45:
                path.unlink()
        assert atlas.crossmatch(copy, radius_arcsec=1).equals(expected)
        min(near).unlink()
        with pytest.raises(SchemaError, match="listed and not there"):
            atlas.crossmatch(copy, radius_arcsec=1)


@pytest.mark.parametrize(("order", "number"), [(0, 12), (3, 768), (1, 48)])
def test_a_partition_of_a_pixel_that_there_is_not_is_an_error(copy, tmp_path, order, number):
    """An order has 12 times 4 to the power of it."""
    path = copy / "dataset" / f"Norder={order}" / "Dir=0" / f"Npix={number}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(next(copy.rglob("Npix=*.parquet")), path)
    with pytest.raises(SchemaError, match=rf"^(?!.*copy: .*copy: ).*HEALPix order {order} has no such pixel"):
        galsearch.build(tmp_path / "a.atlas", table=copy, vectors="v", model="random")
