"""Is it known?: catalogs on disk, HATS, services that misbehave; what fails is never "not found"."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
import ssl
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from fake_catalogs import BAD, CONTROLS, Server

import galsearch
from galsearch.discovery import catalogs
from galsearch.discovery.identify import ABSENT as NOT_FOUND
from galsearch.discovery.identify import ASTROMETRY_ARCSEC, KNOWN, NOT_CHECKED, OTHER, PIXELS
from galsearch.errors import FormatError, GalsearchError, QueryError, SchemaError, UnknownIdError
from galsearch.remote.catalogs import ask, client
from galsearch.remote.catalogs.simbad import Simbad
from galsearch.science import healpix, sky

ROWS = 12
SECOND = 1 / 3600
NEEDS = pytest.mark.skipif(
    find_spec("pyvo") is None or find_spec("astroquery") is None, reason="needs galsearch[catalogs]"
)


def sky_of(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Return positions along a meridian, a degree apart; the last one is missing."""
    ra, dec = np.full(rows, 150.0), np.arange(rows) * 1.0 - 5
    ra[-1] = dec[-1] = np.nan
    return ra, dec


@pytest.fixture(scope="module")
def folder_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("identify")
    ra, dec = sky_of()
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(ROWS, 4)).astype(np.float32)
    table = pa.table(
        {
            "object_id": [f"g{number:02d}" for number in range(ROWS)],
            "ra": pa.array(ra, from_pandas=True),
            "dec": pa.array(dec, from_pandas=True),
            "mag_r": np.linspace(14, 20, ROWS),
            "vec": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4),
        }
    )
    pq.write_table(table, out / "source.parquet")
    galsearch.build(out / "g.atlas", table=out / "source.parquet", vectors="vec", model="made up")
    return out / "g.atlas"


@pytest.fixture
def folder(folder_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder_once, tmp_path / "g.atlas"))


def listed(*rows: tuple) -> pa.Table:
    """Return a catalog of (object number, arcseconds to the north, name, type)."""
    ra, dec = sky_of()
    return pa.table(
        {
            "name": pa.array([row[2] for row in rows], pa.string()),
            "ra": pa.array([ra[row[0]] for row in rows], pa.float64()),
            "dec": pa.array([dec[row[0]] + row[1] * SECOND for row in rows], pa.float64()),
            "what": pa.array([row[3] for row in rows], pa.string()),
            "bibcode": [f"2020ApJ{number}" for number in range(len(rows))],
        }
    )


LENSES = listed((0, 1.0, "L0", "Lens"), (0, 0.5, "S0", "star"), (1, 0.2, "S1", "star"), (2, 1.9, "U2", None))


def states(result) -> dict[str, str]:
    return dict(zip(result.ids, result.table["state"].to_pylist(), strict=True))


# ---- catalogs on disk


def test_the_four_states(folder):
    with galsearch.open(folder) as atlas:
        result = atlas.identify(kind="lens", against=LENSES, type_column="what")
    state = states(result)
    assert [state[name] for name in ("g00", "g01", "g02", "g03", "g11")] == [
        KNOWN,
        OTHER,
        OTHER,
        NOT_FOUND,
        NOT_CHECKED,
    ]
    assert result.counts == {KNOWN: 1, OTHER: 2, NOT_FOUND: 8, NOT_CHECKED: 1}
    assert result[11].failed == ("the object has no position",) and result[11].checked == ()


def test_the_best_match_is_of_the_kind_and_all_are_told(folder):
    with galsearch.open(folder) as atlas:
        result = atlas.identify("g00", kind="lens", against=LENSES, type_column="what")
    one = result[0]
    assert (one.name, one.type, one.matches, one.reference) == ("L0", "Lens", 2, "2020ApJ0")
    assert one.separation_arcsec == pytest.approx(1.0, abs=1e-6) and one.radius_arcsec == ASTROMETRY_ARCSEC
    assert result.matches["name"].to_pylist() == ["L0", "S0"]
    assert result.matches["of_kind"].to_pylist() == [True, False]


def test_the_false_probability_is_that_of_the_formula(folder):
    rng = np.random.default_rng(3)
    ra, dec = 150 + rng.uniform(-0.5, 0.5, 400), rng.uniform(-0.5, 0.5, 400)
    dec[0], ra[0] = 0.0, 150 + SECOND
    with galsearch.open(folder) as atlas:
        one = atlas.identify("g05", against=pa.table({"ra": ra, "dec": dec}), radius_arcsec=3.0)[0]
    there = sky.separation_arcsec(150.0, 0.0, ra, dec)
    tenth = np.sort(there[there > 3.0])[9]
    density = 9 / (np.pi * (tenth**2 - 9.0))
    assert one.false_probability == pytest.approx(1 - np.exp(-density * np.pi * 1.0), rel=1e-4)
    assert one.chance_probability == pytest.approx(1 - np.exp(-density * np.pi * 9.0), rel=1e-4)


def test_a_wide_cone_says_itself_that_it_says_nothing(folder):
    """At 120 arcseconds in a catalog as dense as NED a match at a random position is all but certain (seed, E2)."""
    rng = np.random.default_rng(4)
    count = 9_700  # per square degree: 400 million on the sky
    ra, dec = 150 + rng.uniform(-0.5, 0.5, count), rng.uniform(-0.5, 0.5, count)
    crowd = pa.table({"ra": ra, "dec": dec})
    with galsearch.open(folder) as atlas:
        wide = atlas.identify("g05", against=crowd, radius_arcsec=120.0)
        usual = atlas.identify("g05", against=crowd)
    assert wide.expected_by_chance > 0.9999 and wide[0].matches > 10
    assert usual[0].radius_arcsec <= 3 and usual.expected_by_chance < 0.05


def test_chance_matches_at_random_positions_are_as_many_as_predicted():
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(100, 110, 40_000), np.degrees(np.arcsin(rng.uniform(0, 0.17, 40_000)))
    at_ra, at_dec = rng.uniform(102, 108, 20_000), np.degrees(np.arcsin(rng.uniform(0.03, 0.14, 20_000)))
    density = sky.surface_density(at_ra, at_dec, ra, dec, beyond_arcsec=20.0)
    predicted = sky.chance_probability(density, 20.0).sum()
    measured = len(sky.crossmatch(at_ra, at_dec, ra, dec, radius_arcsec=20.0).left)
    assert abs(measured - predicted) < 4 * np.sqrt(predicted)


def test_density_where_only_a_part_of_a_catalog_is_known():
    within = sky.surface_density([10.0], [0.0], [10.0, 10.0], [0.001, 0.01], beyond_arcsec=5.0, within_arcsec=60.0)
    assert within[0] == pytest.approx(2 / (np.pi * (3600 - 25)), rel=1e-6)
    assert sky.surface_density([10.0], [0.0], [], [], beyond_arcsec=5.0, within_arcsec=60.0)[0] > 0
    assert np.isnan(sky.surface_density([np.nan], [0.0], [1.0], [1.0], beyond_arcsec=5.0)[0])


def test_what_a_row_is_says_its_list_else_its_type(folder):
    with galsearch.open(folder) as atlas:
        every = atlas.identify("g01", kind="lens", against=LENSES)
        other = atlas.identify("g01", kind="lens", against=galsearch.Against(LENSES, kind="galaxy"))
        more = atlas.identify("g01", kind="lens", against=LENSES, type_column="what", kinds=["star"])
    assert states(every) == {"g01": KNOWN} and states(other) == {"g01": OTHER} and states(more) == {"g01": KNOWN}
    assert other[0].type == "galaxy"


def test_several_are_looked_up_at_once_in_the_order_that_they_are_named(folder):
    """The seed's route for several objects could not be reached (E8, C6.3)."""
    with galsearch.open(folder) as atlas:
        named = ["g03", "g00", "g02"]
        assert atlas.identify(named, against=LENSES).ids == named
        assert atlas.identify([atlas["g03"], "g00"], against=LENSES).ids == ["g03", "g00"]
        hits = atlas.search(where="mag_r < 15", k=5)
        assert atlas.identify(hits, against=LENSES).ids == hits.ids
        assert atlas.identify(atlas["g01"], against=LENSES)[0].matches == 1
        assert "1 known of this kind" in atlas.identify("g00", against=LENSES)._repr_html_()


def test_several_atlases_as_one_and_no_object_at_all(folder, tmp_path):
    vec = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(4, dtype=np.float32).ravel()), 4)
    more = pa.table({"object_id": list("abcd"), "ra": [150.0] * 4, "dec": [-5.0, 40.0, 41.0, 42.0], "vec": vec})
    pq.write_table(more, tmp_path / "more.parquet")
    galsearch.build(tmp_path / "h.atlas", table=tmp_path / "more.parquet", vectors="vec", model="made up")
    with galsearch.open([folder, tmp_path / "h.atlas"]) as both:
        result = both.identify(against=LENSES)
        assert len(result) == ROWS + 4 and states(result)["a"] == KNOWN and states(result)["b"] == NOT_FOUND
        with pytest.raises(GalsearchError, match="never changed"):
            galsearch.save_identifications(result)
    with galsearch.open(folder) as atlas:
        nobody = atlas.identify(where="mag_r > 99", against=LENSES)
    assert len(nobody) == 0 and nobody.expected_by_chance == 0 and nobody.matches.num_rows == 0


def test_a_catalog_may_be_a_file_or_an_atlas(folder, tmp_path):
    pq.write_table(LENSES, tmp_path / "lenses.parquet")
    with galsearch.open(folder) as atlas:
        table = atlas.identify(kind="lens", against=f"{tmp_path}/lenses.parquet=lens", where="mag_r < 15")
        itself = atlas.identify(against=folder, radius_arcsec=1)
    assert states(table) == {"g00": KNOWN, "g01": KNOWN} and table[0].catalog == "lenses.parquet"
    assert [one.name for one in itself][:11] == itself.ids[:11] and itself.counts[KNOWN] == 11


def test_rows_without_a_position_match_nothing_and_are_told(folder):
    table = pa.table({"name": ["a", "b"], "ra": [150.0, None], "dec": [-5.0, None]})
    with galsearch.open(folder) as atlas:
        result = atlas.identify("g00", against=table)
    assert states(result) == {"g00": KNOWN} and "1 of 2 rows have no position" in " ".join(result.notes)


def test_the_radius_follows_the_picture(tmp_path):
    ra, dec = sky_of(4)
    vec = pa.FixedSizeListArray.from_arrays(pa.array(np.eye(4, dtype=np.float32).ravel()), 4)
    sizes = {"radius_px": [10.0, 10.0, None, 10.0], "radius_arcsec": [4.0, 20.0, 4.0, 0.0]}
    pq.write_table(
        pa.table({"object_id": list("abcd"), "ra": ra, "dec": dec, "vec": vec, **sizes}), tmp_path / "s.parquet"
    )
    galsearch.build(tmp_path / "s.atlas", table=tmp_path / "s.parquet", vectors="vec", model="made up")
    with galsearch.open(tmp_path / "s.atlas") as atlas:
        radius = [one.radius_arcsec for one in atlas.identify(against=LENSES)]
    assert radius[:3] == pytest.approx([np.hypot(2, PIXELS * 0.4), np.hypot(2, PIXELS * 2.0), 2.0])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, QueryError, "nothing to look objects up in"),
        ({"against": LENSES, "radius_arcsec": 0}, QueryError, "radius_arcsec is 0"),
        ({"against": LENSES, "radius_arcsec": float("nan")}, QueryError, "radius_arcsec"),
        ({"against": [LENSES, LENSES]}, QueryError, "named twice"),
        ({"against": LENSES, "kind": " "}, QueryError, "kind"),
        ({"against": 7}, QueryError, "against is a int"),
        ({"against": LENSES, "type_column": "absent"}, SchemaError, "no column 'absent'"),
        ({"against": pa.table({"a": [1]})}, SchemaError, "no positions"),
        ({"against": Path("absent.parquet")}, SchemaError, "no such file"),
        ({"against": LENSES, "where": "1; DROP TABLE galaxies"}, QueryError, "condition"),
        ({"services": ["sinbad"]}, QueryError, "not known"),
        ({"services": ["vizier:a b"]}, QueryError, "no catalog of VizieR"),
        ({"services": ["simbad"], "service_urls": {"simbad": "http://example.org"}}, GalsearchError, "https"),
        ({"services": ["simbad"], "kind": "teapot"}, QueryError, "teapot"),
        ({"services": ["simbad"], "timeout_seconds": 0}, QueryError, "timeout_seconds"),
        ({"what": "absent", "against": LENSES}, UnknownIdError, "absent"),
        ({"what": ["g00"], "where": "1=1", "against": LENSES}, QueryError, "both"),
        ({"what": [3], "against": LENSES}, QueryError, "no object_id"),
    ],
)
def test_what_cannot_be_looked_up_is_refused(folder, options, error, match):
    with galsearch.open(folder) as atlas, pytest.raises(error, match=match):
        atlas.identify(options.pop("what", None), **options)


# ---- HATS


def pixels_of(ra: np.ndarray, dec: np.ndarray, order: int) -> np.ndarray:
    """Return the pixels of positions, as astropy_healpix says."""
    module = pytest.importorskip("astropy_healpix")
    return module.HEALPix(1 << order, order="nested").lonlat_to_healpix(ra * units.deg, dec * units.deg)


def hats(root: Path, ra: np.ndarray, dec: np.ndarray, *, order: int = 3, **columns) -> Path:
    """Write a HATS catalog; which row is in which pixel says astropy_healpix."""
    pixels = pixels_of(ra, dec, order)
    table = pa.table({"RAdeg": ra, "DEdeg": dec, **columns})
    for pixel in np.unique(pixels).tolist():
        path = root / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array(pixels == pixel)), path)
    stated = {"obs_collection": "made up", "dataproduct_type": "object", "hats_nrows": len(ra)}
    stated |= {"hats_col_ra": "RAdeg", "hats_col_dec": "DEdeg"}
    text = "".join(f"{name}={value}\n" for name, value in stated.items())
    root.joinpath("hats.properties").write_text(f"#HATS\n{text}")
    rows = "".join(f"{order},{pixel}\n" for pixel in np.unique(pixels).tolist())
    root.joinpath("partition_info.csv").write_text("Norder,Npix\n" + rows)
    return root


@pytest.mark.slow
def test_hats_says_what_the_whole_table_says(folder, tmp_path):
    rng = np.random.default_rng(2)
    ra, dec = sky_of()
    around = 60 * SECOND
    many_ra = np.concatenate([rng.uniform(0, 360, 3_000), np.repeat(ra[:-1], 20) + rng.uniform(-around, around, 220)])
    many_dec = np.concatenate(
        [rng.uniform(-90, 90, 3_000), np.repeat(dec[:-1], 20) + rng.uniform(-around, around, 220)]
    )
    names = [f"s{number}" for number in range(len(many_ra))]
    root = hats(tmp_path / "hats", many_ra, many_dec, name=names)
    with galsearch.open(folder) as atlas:
        parts = atlas.identify(against=root, radius_arcsec=15)
        whole = atlas.identify(against=pa.table({"ra": many_ra, "dec": many_dec, "name": names}), radius_arcsec=15)
    for name in ("state", "matches", "name", "separation_arcsec"):
        assert parts.table[name].to_pylist() == whole.table[name].to_pylist()
    assert parts.counts[KNOWN] > 5


def test_a_match_across_the_edge_of_a_partition_is_seen_without_a_margin(folder, tmp_path):
    module = pytest.importorskip("astropy_healpix")
    grid = module.HEALPix(8, order="nested")
    ra, dec = sky_of()
    own = pixels_of(ra[:1], dec[:1], 3)
    corner = grid.boundaries_lonlat(own, 1)
    at = [float(axis[0, 0].to_value("deg")) for axis in corner]
    source = np.array([[at[0] + x * SECOND, at[1] + y * SECOND] for x in (-1, 1) for y in (-1, 1)])
    root = hats(tmp_path / "hats", *source.T)
    assert len(list(root.rglob("*.parquet"))) > 1
    listing = catalogs.listing_of(
        catalogs.Against(root), catalogs.Objects(np.array(at[:1]), np.array(at[1:]), 60.0), catalogs.Kinds()
    )
    assert len(listing.ra) == 4


@pytest.mark.parametrize("harm", ["missing", "cut", "no column"])
def test_a_damaged_partition_leaves_what_is_near_it_unchecked(folder, tmp_path, harm):
    ra, dec = sky_of()
    root = hats(tmp_path / "hats", ra[:-1] + 10 * SECOND, dec[:-1])
    path = max(root.rglob("*.parquet"))
    if harm == "missing":
        path.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        pq.write_table(pa.table({"x": [1.0]}), path)
    with galsearch.open(folder) as atlas:
        result = atlas.identify(against=root)
    assert result.counts[NOT_CHECKED] > 1 and result.counts[NOT_FOUND] + result.counts[NOT_CHECKED] == ROWS
    assert result.sources["error"][0].as_py().startswith("partition Norder=3, Npix=")


def test_a_collection_is_its_primary_catalog(folder, tmp_path):
    ra, dec = sky_of()
    (tmp_path / "all").mkdir()
    hats(tmp_path / "all" / "first", ra[:-1], dec[:-1])
    (tmp_path / "all" / "collection.properties").write_text("obs_collection=c\nhats_primary_table_url=first\n")
    with galsearch.open(folder) as atlas:
        assert atlas.identify(against=tmp_path / "all").counts[KNOWN] == ROWS - 1
        (tmp_path / "all" / "collection.properties").write_text("hats_primary_table_url=../../etc\n")
        with pytest.raises(SchemaError, match="hats_primary_table_url"):
            atlas.identify(against=tmp_path / "all")


@pytest.mark.parametrize("order", [0, 1, 4, 13, 29])
def test_pixels_lie_where_astropy_healpix_says(order):
    module = pytest.importorskip("astropy_healpix")
    rng = np.random.default_rng(order)
    pixels = np.unique(rng.integers(0, 12 * 4**order, 500))
    grid = module.HEALPix(1 << order, order="nested")
    lon, lat = (axis.to_value("deg") for axis in grid.healpix_to_lonlat(pixels))
    ra, dec = healpix.pixel_centers(order, pixels)
    assert sky.separation_arcsec(ra, dec, lon, lat).max() < 1e-8
    corners = [axis.to_value("deg") for axis in grid.boundaries_lonlat(pixels, 1)]
    far = sky.separation_arcsec(ra[:, None], dec[:, None], *corners).max() / 3600
    assert far <= healpix.pixel_reach(order) * (1 + 1e-9)


def test_pixels_that_there_are_not_are_refused():
    with pytest.raises(QueryError, match="order 30"):
        healpix.pixel_centers(30, [0])
    with pytest.raises(QueryError, match="no such pixel"):
        healpix.pixel_centers(1, [48])


# ---- services


@pytest.fixture
def hasty(monkeypatch):
    """Let tries follow each other at once; what is bounded is tested by its own bound."""
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(client, "MOST_BYTES", 4 << 20)


RA, DEC = sky_of()
SOURCES = [
    *CONTROLS,
    (RA[0], DEC[0] + 1 * SECOND, "a lens", "gLe", 12),
    (RA[1], DEC[1], "a <star> & more", "*", 3),
    (RA[3], DEC[3] + 30 * SECOND, "far off", "G", 1),
]
SERVICES = ("simbad", "ned", "vizier:V/147/sdss12")


def asked(server: Server, tmp_path: Path, *services: str, **options) -> dict:
    return {
        "services": services or ("simbad",),
        "service_urls": server.urls,
        "cache": tmp_path / "answers.sqlite",
        "timeout_seconds": 1.0,
        **options,
    }


@NEEDS
def test_services_say_what_they_have(folder, tmp_path, hasty):
    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        result = atlas.identify(kind="lens", **asked(server, tmp_path, *SERVICES[:2], timeout_seconds=20))
    state = states(result)
    assert [state[name] for name in ("g00", "g01", "g02", "g03", "g11")] == [
        KNOWN,
        OTHER,
        NOT_FOUND,
        NOT_FOUND,
        NOT_CHECKED,
    ]
    assert result[0].reference.startswith("https://simbad") and result[0].reference_count == 12
    assert result[1].name == "a <star> & more" and result[0].checked == ("simbad", "ned") and result[0].answered
    assert result.sources["version"].to_pylist() == ["votable-version 1.99"] * 2
    assert server.agents == {f"galsearch/{galsearch.__version__}"}
    asked_about = [len(positions) for _, positions in server.questions]
    assert asked_about == [ROWS - 1 + 1] * 2  # all that have a position, and the control, in one question each


@NEEDS
def test_a_row_of_vizier_is_no_galaxy_unless_a_column_says_so(folder, tmp_path, hasty):
    """Every row of SDSS was called a galaxy by the seed (C6.2)."""
    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        options = asked(server, tmp_path, SERVICES[2], timeout_seconds=20)
        plain = atlas.identify(["g00", "g01"], kind="galaxy", **options)
        told = atlas.identify(["g00", "g01"], kind="galaxy", type_column="class", kinds=["gLe"], **options)
    assert [one.type for one in plain] == [None, None] and states(plain) == {"g00": OTHER, "g01": OTHER}
    assert [one.type for one in told] == ["gLe", "*"] and states(told) == {"g00": KNOWN, "g01": OTHER}


@NEEDS
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("behavior", BAD)
@pytest.mark.slow
def test_a_service_that_misbehaves_never_says_not_found(folder, tmp_path, hasty, service, behavior):
    """A failed call was no match for the seed, and so a discovery (E1, C6.2)."""
    with Server(SOURCES, behavior=behavior, slow_seconds=2.0) as server, galsearch.open(folder) as atlas:
        begun = time.monotonic()
        bad = atlas.identify(["g00", "g02"], **asked(server, tmp_path, service))
        took = time.monotonic() - begun
        assert set(states(bad).values()) == {NOT_CHECKED}, bad.table.to_pylist()
        (error,) = bad[1].failed
        assert error.startswith(f"{service}: ") and "\n" not in error and len(error) < 500
        assert bad.sources["unchecked"].to_pylist() == [2] and took < 8
        server.behavior = "good"  # nothing that failed was kept
        good = atlas.identify(["g00", "g02"], **asked(server, tmp_path, service, timeout_seconds=20))
    assert list(states(good).values()) == [KNOWN, NOT_FOUND] and good.sources["kept_answers"].to_pylist() == [0]


@NEEDS
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, to make a certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(folder, tmp_path, hasty):
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    files = {"-keyout": tmp_path / "key.pem", "-out": tmp_path / "certificate.pem"}
    options = [part for pair in files.items() for part in pair]
    subprocess.run([*made, *options, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["-out"], files["-keyout"])
    with Server(SOURCES, context=context) as server, galsearch.open(folder) as atlas:
        server.urls = {"simbad": server.urls["simbad"].replace("http://127.0.0.1", "https://localhost")}
        result = atlas.identify("g02", **asked(server, tmp_path, timeout_seconds=20))
    assert states(result) == {"g02": NOT_CHECKED} and "no valid certificate" in result[0].failed[0]
    assert not server.questions


@NEEDS
def test_a_redirect_on_the_same_host_is_followed(folder, tmp_path, hasty):
    with Server(SOURCES, behavior="same host") as server, galsearch.open(folder) as atlas:
        result = atlas.identify(["g00", "g02"], **asked(server, tmp_path, timeout_seconds=20))
    assert list(states(result).values()) == [KNOWN, NOT_FOUND]


@NEEDS
def test_a_service_that_is_not_there(folder, tmp_path, hasty):
    with galsearch.open(folder) as atlas, Server([]) as server:
        server.urls = dict.fromkeys(("simbad",), "http://127.0.0.1:9/tap")
        result = atlas.identify("g02", **asked(server, tmp_path))
    assert states(result) == {"g02": NOT_CHECKED} and "cannot be reached" in result[0].failed[0]
    assert result.expected_by_chance == 0


@NEEDS
def test_what_one_source_knows_stands_though_another_failed(folder, tmp_path, hasty):
    with Server(SOURCES, behavior="status 500") as server, galsearch.open(folder) as atlas:
        result = atlas.identify(
            ["g00", "g01", "g02"],
            kind="lens",
            against=LENSES.slice(0, 3),
            type_column="what",
            **asked(server, tmp_path),
        )
    assert list(states(result).values()) == [KNOWN, OTHER, NOT_CHECKED]
    assert all("simbad: 127.0.0.1" in one.failed[0] for one in result)
    assert all(one.checked == ("table",) for one in result)


@NEEDS
def test_an_answer_that_is_cut_short_is_asked_again_in_halves(folder, tmp_path, hasty):
    crowd = [(RA[5], DEC[5] + number * SECOND / 2, f"c{number}", "G", 1) for number in range(30)]
    with Server([*SOURCES, *crowd], slow_seconds=1) as server, galsearch.open(folder) as atlas:
        server.most_rows = 20
        result = atlas.identify(**asked(server, tmp_path, timeout_seconds=20))
        state = states(result)
        assert state["g05"] == NOT_CHECKED and "more than it tells" in result[5].failed[0]
        assert state["g00"] == KNOWN and state["g02"] == NOT_FOUND and len(server.questions) > 3


@NEEDS
def test_answers_are_used_again_with_their_day(folder, tmp_path, hasty):
    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        options = asked(server, tmp_path, timeout_seconds=20)
        first = atlas.identify(["g00", "g02"], **options)
        again = atlas.identify(["g02", "g00", "g03"], **options)
        assert [len(positions) for _, positions in server.questions] == [3, 2]
        assert again.sources["kept_answers"].to_pylist() == [2] and states(again)["g00"] == KNOWN
        assert again[1].answered == first[0].answered
        with sqlite3.connect(tmp_path / "answers.sqlite") as kept:
            kept.execute("UPDATE answers SET answered = '2001-01-01T00:00:00Z'")
        kept.close()
        old = atlas.identify("g00", **options, max_age_days=10_000)
        assert old[0].answered == "2001-01-01T00:00:00Z" and len(server.questions) == 2
        atlas.identify("g00", **options)
        atlas.identify("g00", **options, max_age_days=0)
    assert len(server.questions) == 4


@NEEDS
@pytest.mark.slow
def test_what_was_answered_before_an_interruption_is_kept(folder, tmp_path, hasty, monkeypatch):
    monkeypatch.setattr(Simbad, "__init__", _batches_of(Simbad, 2))

    def interrupt(done: int, total: int, what: str) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        options = asked(server, tmp_path, timeout_seconds=20)
        with pytest.raises(KeyboardInterrupt):
            atlas.identify(progress=interrupt, **options)
        time.sleep(1.0)  # what was under way ends
        before = len(server.questions)
        result = atlas.identify(**options)
    kept = result.sources["kept_answers"][0].as_py()
    assert 2 <= before < 6 and kept == 2 * before and len(server.questions) == 6
    assert result.counts[NOT_CHECKED] == 1


def _batches_of(kind: type, size: int):
    plain = kind.__init__

    def init(self, url: str) -> None:
        plain(self, url, batch=size)

    return init


@NEEDS
def test_a_service_that_fails_three_times_is_left_alone(folder, tmp_path, hasty, monkeypatch):
    monkeypatch.setattr(Simbad, "__init__", _batches_of(Simbad, 1))
    with Server(SOURCES, behavior="page") as server, galsearch.open(folder) as atlas:
        result = atlas.identify(**asked(server, tmp_path, timeout_seconds=20))
    assert len(server.questions) == 3 and "3 times in a row" in result[10].failed[0]


@NEEDS
@pytest.mark.slow
def test_a_host_gets_five_requests_a_second(tmp_path, hasty):
    ra, dec = np.full(9, 20.0), np.arange(9.0)
    with Server(SOURCES) as server:
        options = ask.Options(tmp_path / "answers.sqlite", timeout_seconds=20)
        services = [Simbad(server.urls["simbad"], batch=1), Simbad(server.urls["simbad"], name="mirror", batch=1)]
        began = time.monotonic()
        ask.ask_all(services, ra, dec, reach_arcsec=np.full(9, 60.0), read=catalogs.read_answer, options=options)
    assert len(server.arrivals) == 18
    assert max(server.arrivals) - began >= 17 / 5  # a slow machine only makes it more


@NEEDS
def test_time_for_all_questions_is_bounded(folder, tmp_path, hasty, monkeypatch):
    monkeypatch.setattr(Simbad, "__init__", _batches_of(Simbad, 1))
    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        result = atlas.identify(**asked(server, tmp_path, timeout_seconds=20, deadline_seconds=0.5))
    assert result.counts[NOT_CHECKED] > 5 and "that all questions may take" in result[10].failed[0]


@NEEDS
@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_cache_is_one_clear_error(folder, tmp_path, hasty, content):
    (tmp_path / "answers.sqlite").write_bytes(content)
    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        if content:
            with pytest.raises(GalsearchError, match="no readable cache"):
                atlas.identify("g00", **asked(server, tmp_path))
            assert (tmp_path / "answers.sqlite").read_bytes() == content and not server.questions
        else:
            assert states(atlas.identify("g00", **asked(server, tmp_path, timeout_seconds=20))) == {"g00": KNOWN}


@NEEDS
def test_answers_that_cannot_be_kept_are_used_all_the_same(folder, tmp_path, hasty):
    (tmp_path / "file").write_text("")
    with Server(SOURCES) as server, galsearch.open(folder) as atlas:
        result = atlas.identify(
            "g00", **asked(server, tmp_path, timeout_seconds=20, cache=tmp_path / "file" / "c.sqlite")
        )
    assert states(result) == {"g00": KNOWN} and "are not kept" in result.notes[0]


def test_without_the_packages_the_extra_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with galsearch.open(folder) as atlas, pytest.raises(GalsearchError, match=r"galsearch\[catalogs\]"):
        atlas.identify("g00", services=["simbad"], cache=tmp_path / "c.sqlite")


def test_nothing_is_sent_unless_a_service_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(client.Session, "request", lambda *_, **__: pytest.fail("something was sent"))
    with galsearch.open(folder) as atlas:
        atlas.identify(against=LENSES, cache=tmp_path / "c.sqlite")
    assert not (tmp_path / "c.sqlite").exists()


# ---- keeping them, the command


def test_runs_are_kept_beside_each_other_and_in_a_bundle(folder, tmp_path):
    with galsearch.open(folder) as atlas:
        first = galsearch.save_identifications(atlas.identify("g00", kind="lens", against=LENSES))
        result = atlas.identify(kind="lens", against=LENSES, type_column="what")
    second = galsearch.save_identifications(result)
    galsearch.bundle(folder, tmp_path / "g.duckdb")
    for path in (folder, tmp_path / "g.duckdb"):
        with galsearch.open(path) as atlas:
            assert atlas.saved_identifications(first).num_rows == 1
            kept = atlas.saved_identifications(second)
            assert kept.select(result.table.column_names).to_pylist() == result.table.to_pylist()
            assert atlas.saved_identifications(second, state=NOT_CHECKED)["object_id"].to_pylist() == ["g11"]
            with pytest.raises(QueryError, match="of run"):
                atlas.saved_identifications("absent")
            with pytest.raises(QueryError, match="state"):
                atlas.saved_identifications(state="unknown")
            named = atlas.sql("SELECT count(*) AS n FROM identifications WHERE state = 'not found'")
            assert named["n"].to_pylist() == [8]


def test_a_bundle_is_not_written_to_and_a_foreign_table_is_refused(folder, tmp_path):
    galsearch.bundle(folder, tmp_path / "g.duckdb")
    with galsearch.open(tmp_path / "g.duckdb") as atlas:
        with pytest.raises(GalsearchError, match="never changed"):
            galsearch.save_identifications(atlas.identify("g00", against=LENSES))
        with pytest.raises(QueryError, match="no saved identifications"):
            atlas.saved_identifications()
    with duckdb.connect(tmp_path / "g.duckdb") as connection:
        connection.execute("CREATE TABLE identifications AS SELECT 'x' AS run")
    with galsearch.open(tmp_path / "g.duckdb") as atlas, pytest.raises(FormatError, match="identifications"):
        atlas.saved_identifications()


def test_the_command(folder, tmp_path, run):
    pq.write_table(LENSES, tmp_path / "lenses.parquet")
    against = ("--against", tmp_path / "lenses.parquet", "--type-column", "what")
    code, out, err = run("identify", folder, *against, "--kind", "lens", "--format", "csv", "--save")
    rows = {row["object_id"]: row for row in csv.DictReader(io.StringIO(out))}
    assert code == 0 and (rows["g00"]["state"], rows["g00"]["name"], rows["g03"]["state"]) == (KNOWN, "L0", NOT_FOUND)
    assert "1 known of this kind, 2 known of another kind, 8 not found, 1 not checked" in err
    assert "by chance" in err and "proper motion is ignored" in err and "kept as run" in err


def test_the_command_says_what_was_wrong(folder, run):
    code, out, err = run("identify", folder, "--kind", "lens")
    assert code == 1 and not out and "nothing to look objects up in" in err
    assert run("identify", folder, "--service", "simbad", "--service-url", "simbad")[0] == 2


@NEEDS
def test_the_command_tells_which_service_failed(folder, tmp_path, run, hasty):
    with Server(SOURCES, behavior="overflow") as server:
        asks = ("--service", "simbad", "--service-url", f"simbad={server.urls['simbad']}", "--id", "g00", "--id", "g02")
        out = ("--cache", tmp_path / "c.sqlite", "--state", "not checked", "-o", tmp_path / "out.csv")
        code, _, err = run("identify", folder, *asks, *out)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert code == 0 and [row["state"] for row in rows] == [NOT_CHECKED] * 2
    assert "simbad did not answer for 2 objects" in err


@pytest.mark.parametrize("order", [0, 1, 6, 13, 29])
def test_a_position_lies_in_the_pixel_that_astropy_healpix_says(order):
    from astropy import units
    from astropy_healpix import lonlat_to_healpix

    rng = np.random.default_rng(order)
    ra = np.concatenate([rng.uniform(0, 360, 3000), [0.001, 90, 359.999999, 45, 0, 180]])
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 3000))), [0, 41.8103, -41.8103, 90, -90, 89.999999]])
    ours = healpix.pixels_of(order, ra, dec)
    theirs = lonlat_to_healpix(ra * units.deg, dec * units.deg, 2**order, order="nested")
    assert (ours != theirs).sum() <= (3 if order == 29 else 0)  # at an edge, where the last bits of an angle decide
    centers = rng.integers(0, 12 * 4**order, 2000)
    assert np.array_equal(healpix.pixels_of(order, *healpix.pixel_centers(order, centers)), centers)


def test_a_coverage_map_is_that_of_mocpy():
    from mocpy import MOC

    cells = np.unique(np.concatenate([np.arange(64, 144), [5, 7, 12 * 4**4 - 1]]))
    written = healpix.coverage(4, cells)
    assert json.loads(written) == json.loads(MOC.from_healpix_cells(cells, 4, 4).to_string("json"))
    assert (np.sort(MOC.from_string(written, "json").flatten()) == cells).all()
