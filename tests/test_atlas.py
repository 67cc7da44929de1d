"""The contract of asking an atlas, the same for a folder and a bundle.

Truths come from outside: vectors read by LanceDB, rows by pyarrow from the table that was taken in, cosines by numpy in
extended precision, separations by astropy, files by astropy and Pillow.
"""

from __future__ import annotations

import io
import json
import re
import threading
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tiny
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import galsearch
from galsearch.encode import Encoder
from galsearch.errors import ModelMismatchError, QueryError, SchemaError
from galsearch.query import Query, Term
from galsearch.store.index import cells
from galsearch.store.sql import macros

FIRST, SECOND = tiny.object_id(0), tiny.object_id(1)


@dataclass(frozen=True)
class Truth:
    """What the tiny atlas holds, read without galsearch: ids, vectors `(n, d)`, and the table they were built from."""

    ids: np.ndarray
    vectors: np.ndarray
    table: pa.Table

    def best(self, query: np.ndarray, k: int, kept: np.ndarray | None = None) -> list[str]:
        """Return the ids of the k largest cosines, equal ones by id."""
        cosine = (self.vectors.astype(np.longdouble) * query.astype(np.longdouble)).sum(axis=1).astype(np.float32)
        order = [row for row in np.lexsort((self.ids, -cosine)) if kept is None or kept[row]]
        return self.ids[order[:k]].tolist()

    def mask(self, condition: pa.ChunkedArray) -> np.ndarray:
        """Return where a condition on the table is true; NULL is not."""
        return pc.fill_null(condition, False).to_numpy()

    def near(self, ra: float, dec: float, radius_arcsec: float) -> np.ndarray:
        """Return which galaxies lie in a cone, by astropy; those without a position do not."""
        return self.places.separation(SkyCoord(ra, dec, unit="deg")).arcsec <= radius_arcsec

    @cached_property
    def places(self) -> SkyCoord:
        """Where the galaxies are; NaN where they have no position."""
        return SkyCoord(*(self.table[name].to_numpy() for name in ("ra", "dec")), unit="deg")


@pytest.fixture(scope="session")
def truth(tiny_folder: Path, tiny_source) -> Truth:
    import lancedb  # which takes seconds

    vectors = lancedb.connect(tiny_folder / "vectors.lance").open_table("image").to_arrow().sort_by("object_id")
    table = pq.read_table(tiny_source[1]).sort_by("object_id")
    assert vectors["object_id"].to_pylist() == table["object_id"].to_pylist()
    found = np.stack(vectors["embedding"].to_numpy())
    return Truth(np.array(table["object_id"].to_pylist(), dtype=object), found, table)


@pytest.fixture(scope="session")
def both(tiny_folder: Path, tiny_bundle: Path):
    with galsearch.open(tiny_folder, device="cpu") as folder, galsearch.open(tiny_bundle, device="cpu") as bundle:
        yield folder, bundle


def clusters(ids: list[str]) -> list[int]:
    return [tiny.cluster_of(int(object_id[8:])) for object_id in ids]


# ---- what to look like


@pytest.mark.parametrize("cluster", range(4))
def test_words_find_the_cluster_that_they_name(atlas, truth, cluster):
    words = " ".join(tiny.CLUSTERS[cluster])
    hits = atlas.search(words, k=75)
    assert set(clusters(hits.ids)) == {cluster}
    assert hits.ids == truth.best(atlas.embed(words), 75)


def test_scores_are_cosines_best_first(atlas, truth):
    hits = atlas.search("ring galaxy", k=300)
    scores = np.array([hit.score for hit in hits])
    rows = [truth.ids.tolist().index(object_id) for object_id in hits.ids]
    np.testing.assert_allclose(scores, truth.vectors[rows] @ atlas.embed("ring galaxy"), atol=1e-6)
    assert np.all(np.diff(scores) <= 0)
    assert len(set(hits.ids)) == 300


def test_an_example_finds_its_like_and_is_left_out(atlas, truth):
    hits = atlas.search(atlas[FIRST], k=20)
    expected = truth.best(truth.vectors[0], 21)
    assert FIRST not in hits.ids
    assert hits.ids == [object_id for object_id in expected if object_id != FIRST]
    assert hits.plan.matches == 299


def test_a_hit_is_an_example_too(atlas):
    first = atlas.search("blue ring", k=1)[0]
    assert atlas.search(first, k=5).ids == atlas.search(atlas[first.object_id], k=5).ids


def test_an_example_outside_the_cut_takes_no_place_in_the_answer(atlas):
    hits = atlas.search(atlas[FIRST], where=f"object_id > '{FIRST}'", k=300)
    assert len(hits) == hits.plan.matches == 299


def test_equal_scores_are_ordered_by_object_id(atlas):
    copies = [tiny.object_id(row) for row in range(tiny.ROWS) if tiny.is_copy(row) and tiny.cluster_of(row) == 2]
    hits = atlas.search(atlas.embed(atlas[copies[0]]), k=tiny.COPIES)
    assert hits.ids == copies
    assert len({hit.score for hit in hits}) == 1
    for k in range(1, tiny.COPIES):
        assert atlas.search(atlas.embed(atlas[copies[0]]), k=k).ids == copies[:k]


def test_an_image_file_finds_the_galaxy_that_it_shows(atlas, tiny_source):
    hits = atlas.search(tiny_source[0] / f"{tiny.object_id(42)}.png", k=3)
    assert hits.ids[0] == tiny.object_id(42)
    assert hits[0].score == pytest.approx(1, abs=1e-5)


def test_an_array_of_any_length_and_type_is_an_embedding(atlas, truth):
    vector = truth.vectors[10]
    expected = truth.best(vector, 8)
    for array in (vector, 7.5 * vector.astype(np.float64), vector.astype(np.float64) * 1e-3):
        assert atlas.search(array, k=8).ids == expected


def test_embeddings_add_and_subtract(atlas, truth):
    vector = atlas.embed("red edge") - 0.5 * atlas.embed("edge")
    query = Query((Term("text", "red edge"), Term("text", "edge", -0.5)), k=30)
    assert atlas.search(query).ids == atlas.search(vector, k=30).ids == truth.best(vector, 30)


def test_a_minus_term_pushes_away(atlas):
    plain = atlas.search("red", k=75)
    minus = atlas.search(Query((Term("text", "white"), Term("text", "red", -1.0)), k=75))
    assert set(clusters(plain.ids)) == {0}
    assert 0 not in clusters(minus.ids)


def test_terms_of_all_kinds_are_summed(atlas, truth, tiny_source):
    file = tiny_source[0] / f"{tiny.object_id(5)}.png"
    terms = (
        Term("text", "ring", 1.5),
        Term("object", FIRST, -0.25),
        Term("image", str(file), 0.5),
        Term("embedding", tuple(truth.vectors[7].tolist())),
    )
    vector = (
        1.5 * atlas.embed("ring")
        - 0.25 * atlas.embed(atlas[FIRST])
        + 0.5 * atlas.embed(file)
        + atlas.embed(truth.vectors[7])
    )
    expected = [object_id for object_id in truth.best(vector, 21) if object_id != FIRST][:20]
    assert atlas.search(Query(terms, k=20)).ids == expected


def test_without_words_what_passes_is_listed_by_id(atlas, truth):
    hits = atlas.search(where="mag_r < 17", k=10)
    expected = truth.ids[truth.mask(pc.less(truth.table["mag_r"], 17))]
    assert hits.ids == expected[:10].tolist()
    assert hits.plan.path == "list"
    assert hits.plan.matches == len(expected)
    assert [hit.score for hit in hits] == [None] * 10


def test_text_that_only_differs_by_case_or_space_is_still_text(atlas):
    assert atlas.search("Red EDGE galaxy", k=5).ids == atlas.search("red edge galaxy", k=5).ids


# ---- cuts


CUTS = {
    "z < 0.1": lambda t: pc.less(t["z"], 0.1),
    "NOT (z < 0.1)": lambda t: pc.greater_equal(t["z"], 0.1),
    "z IS NULL": lambda t: pc.is_null(t["z"]),
    "z < 0.1 OR ra IS NULL": lambda t: pc.or_kleene(pc.less(t["z"], 0.1), pc.is_null(t["ra"])),
    "survey = 'd''Or'": lambda t: pc.equal(t["survey"], "d'Or"),
    "survey <> 'north'": lambda t: pc.not_equal(t["survey"], "north"),
    "survey IS DISTINCT FROM 'north'": lambda t: pc.fill_null(pc.not_equal(t["survey"], "north"), True),
    "mag_r BETWEEN 15 AND 16 -- a remark": lambda t: pc.and_(
        pc.greater_equal(t["mag_r"], 15), pc.less_equal(t["mag_r"], 16)
    ),
    "galaxies.mass > 1e11": lambda t: pc.greater(t["mass"], 1e11),
    "z = (SELECT max(z) FROM galaxies)": lambda t: pc.equal(t["z"], pc.max(t["z"])),
    "z = NULL": lambda t: pc.equal(t["z"], pa.scalar(None, pa.float64())),
    "false": lambda t: pc.less(t["mag_r"], 0),
    "/* all */ true": lambda t: pc.greater(t["mag_r"], 0),
}


@pytest.mark.parametrize("where", CUTS)
def test_where_keeps_the_best_of_what_passes_and_null_never_passes(atlas, truth, where):
    kept = truth.mask(CUTS[where](truth.table))
    hits = atlas.search("white round", where=where, k=25)
    assert hits.ids == truth.best(atlas.embed("white round"), 25, kept)
    assert hits.plan.matches == atlas.count(where) == kept.sum()
    assert atlas.search(where=where, k=300).ids == truth.ids[kept].tolist()


cuts = st.one_of(
    st.floats(0, 0.22).map(lambda z: (f"z < {z!r}", lambda t: pc.less(t["z"], z))),
    st.floats(12, 22).map(lambda m: (f"mag_r > {m!r}", lambda t: pc.greater(t["mag_r"], m))),
    st.sampled_from(["north", "south", "d'Or"]).map(
        lambda s: (f"survey = '{s.replace(chr(39), chr(39) * 2)}'", lambda t: pc.equal(t["survey"], s))
    ),
)


@given(cuts=st.tuples(cuts, cuts), k=st.integers(1, 320), words=st.sampled_from(["red edge", "ring", "dark face"]))
def test_a_filtered_search_returns_the_smaller_of_k_and_matches_always(atlas, truth, cuts, k, words):
    kept = truth.mask(pc.and_kleene(*(passes(truth.table) for _, passes in cuts)))
    hits = atlas.search(words, where=" AND ".join(text for text, _ in cuts), k=k)
    assert len(hits) == min(k, kept.sum())
    assert hits.ids == truth.best(atlas.embed(words), k, kept)


CONES = [
    (0.0, 10.0, 600.0),
    (359.95, 10.05, 400.0),
    (360.0, 10.0, 900.0),
    (0.03, 9.9, 300.0),
    (0.0, 90.0, 500.0),
    (123.0, 89.9, 700.0),
    (300.0, -90.0, 800.0),
    (45.0, -89.95, 600.0),
    (200.0, 20.0, 180 * 3600.0),
    (10.0, -45.0, 60 * 3600.0),
    (10.0, 45.0, 0.0),
]


@pytest.mark.parametrize("cone", CONES)
def test_near_is_right_at_the_poles_and_across_right_ascension_0(atlas, truth, cone):
    ra, dec, radius = cone
    kept = truth.near(ra, dec, radius)
    hits = atlas.search("red", near=(ra, dec), radius_arcsec=radius, k=300)
    assert set(hits.ids) == set(truth.ids[kept])
    assert hits.ids == truth.best(atlas.embed("red"), 300, kept)
    found = atlas.sql(f"FROM cone({ra}, {dec}, {radius})")
    assert sorted(found["object_id"].to_pylist()) == truth.ids[kept].tolist()
    assert found["separation_arcsec"].to_pylist() == sorted(found["separation_arcsec"].to_pylist())


def test_the_cones_of_the_test_above_are_not_all_empty(truth):
    sizes = [truth.near(*cone).sum() for cone in CONES]
    assert sizes[8] == 270  # the whole sky holds every galaxy that has a position
    assert sum(1 < size < 100 for size in sizes) >= 8
    assert sizes[-1] == 0


def test_the_radius_is_inclusive(atlas):
    center = atlas[FIRST]
    place = {"near": (center.ra, center.dec), "where": f"object_id IN ('{FIRST}', '{tiny.object_id(4)}')"}
    assert atlas.search(**place, radius_arcsec=0.0).ids == [FIRST]
    rows = atlas.sql(f"FROM cone({center.ra!r}, {center.dec!r}, 7200) WHERE object_id = '{tiny.object_id(4)}'")
    apart = rows["separation_arcsec"][0].as_py()
    assert atlas.search(**place, radius_arcsec=apart).ids == [FIRST, tiny.object_id(4)]
    assert atlas.search(**place, radius_arcsec=np.nextafter(apart, 0)).ids == [FIRST]


def test_cone_and_where_both_cut(atlas, truth):
    kept = truth.near(0, 90, 800) & truth.mask(pc.less(truth.table["z"], 0.1))
    hits = atlas.search("blue", where="z < 0.1", near=(0, 90), radius_arcsec=800, k=300)
    assert hits.ids == truth.best(atlas.embed("blue"), 300, kept)


def test_separation_agrees_with_astropy(atlas):
    rng = np.random.default_rng(2)
    ra = np.concatenate([rng.uniform(0, 360, 40), [0, 0, 10, 10, 359.9999999]])
    dec = np.concatenate([rng.uniform(-90, 90, 40), [90, -90, 20, 20, 0]])
    ra2 = np.concatenate([rng.uniform(0, 360, 40), [180, 77, 190, 10, 0.0000001]])
    dec2 = np.concatenate([rng.uniform(-90, 90, 40), [90, 90, -20, 20, 0]])
    rows = ",".join(f"({a!r},{b!r},{c!r},{d!r})" for a, b, c, d in np.stack([ra, dec, ra2, dec2], 1).tolist())
    found = atlas.sql(f"SELECT separation_arcsec(a, b, c, d) AS s FROM (VALUES {rows}) v(a, b, c, d)")
    expected = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(ra2, dec2, unit="deg")).arcsec
    np.testing.assert_allclose(found["s"].to_numpy(), expected, rtol=1e-12, atol=1e-6)


# ---- both forms


@pytest.mark.parametrize(
    "query",
    [
        Query((Term("text", "edge-on galaxy"),), k=50),
        Query((Term("text", "dark ring with a disk"),), k=300),
        Query((Term("text", "green face"), Term("text", "ring", -0.3)), where="z < 0.15 AND mag_r > 15", k=20),
        Query((Term("object", tiny.object_id(7)),), k=299),
        Query((Term("text", "blue"),), near=(0.0, 90.0), radius_arcsec=900.0, k=300),
        Query((Term("text", "blue"),), k=17, exact=True),
        Query((Term("text", "blue"),), k=17, probes=10_000),
        Query(where="survey IS NULL", k=40),
    ],
    ids=lambda query: query.formula()[:30] or "list",
)
def test_folder_and_bundle_give_the_same_ids_and_scores_to_the_last_bit(both, query):
    folder, bundle = (atlas.search(query) for atlas in both)
    assert folder.ids == bundle.ids
    assert len(folder) > 0
    assert folder.table["score"].equals(bundle.table["score"])
    assert folder.table.drop_columns(["score"]).equals(bundle.table.drop_columns(["score"]), check_metadata=True)
    assert folder.plan.matches == bundle.plan.matches


def test_folder_and_bundle_describe_the_same_columns(both):
    folder, bundle = both
    assert folder.columns().equals(bundle.columns())
    assert folder.models() == bundle.models()
    spaces = {name: {**space, "row_aligned": True} for name, space in folder.manifest.embeddings.items()}
    assert bundle.manifest.embeddings == spaces


# ---- plan, cache


def test_the_plan_says_how_the_answer_was_found(atlas):
    plan = atlas.search("red", where="z < 0.1", k=5).plan
    assert (plan.path, plan.exact, plan.provider) == ("exact", True, "CPUExecutionProvider")
    assert plan.matches == plan.rows_scanned == atlas.count("z < 0.1")
    assert set(plan.milliseconds) == {"embed", "filter", "search"}
    assert all(value >= 0 for value in plan.milliseconds.values())


def test_words_are_embedded_once(tiny_path, monkeypatch):
    asked = []
    real = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, items: asked.append(list(items)) or real(self, asked[-1]))
    with galsearch.open(tiny_path, device="cpu") as atlas:
        for _ in range(3):
            atlas.search("red ring", k=1)
        atlas.search("blue ring", k=1)
    assert asked == [["red ring"], ["blue ring"]]


def test_changing_an_embedding_does_not_change_the_next_answer(atlas):
    before = atlas.search("green ring", k=5).ids
    vector = atlas.embed("green ring")
    vector *= -1
    assert atlas.search("green ring", k=5).ids == before
    np.testing.assert_array_equal(atlas.embed("green ring"), -vector)


# ---- hits


def test_hits_behave_like_a_sequence(atlas):
    hits = atlas.search("red", k=10)
    assert len(hits) == len(list(hits)) == 10
    assert [hit.object_id for hit in hits[2:5]] == hits.ids[2:5]
    assert hits[-1].object_id == hits.ids[-1]
    assert hits[::-1].ids == hits.ids[::-1]
    assert len(hits[10:]) == 0
    with pytest.raises(IndexError):
        hits[10]


def test_columns_are_attributes_and_null_is_none(atlas, truth):
    row = {name: truth.table[name][9].as_py() for name in truth.table.column_names}
    galaxy = atlas[row["object_id"]]
    assert {name: getattr(galaxy, name) for name in row} == row
    assert galaxy.ra is None
    with pytest.raises(AttributeError, match="no column 'magnitude'; there are: object_id, ra"):
        _ = galaxy.magnitude


def saved(atlas, path: Path):
    hits = atlas.search("red", where="ra IS NULL OR z IS NULL OR survey = 'd''Or'", k=300)
    assert hits.save(path) == path
    return hits


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".vot", ".parquet", ".csv", ".json"])
def test_a_saved_file_reads_back_the_same(atlas, tmp_path, suffix):
    hits = saved(atlas, tmp_path / f"hits{suffix}")
    if suffix == ".json":
        rows = json.loads((tmp_path / "hits.json").read_text())
        rows = rows if isinstance(rows, list) else rows["rows"]
        assert [row["object_id"] for row in rows] == hits.ids
        assert [row["z"] for row in rows] == hits.table["z"].to_pylist()
        return
    kinds = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable", ".parquet": None}
    if suffix == ".parquet":
        found = pq.read_table(tmp_path / "hits.parquet")
        assert found.select(["object_id", "z", "survey"]).equals(hits.table.select(["object_id", "z", "survey"]))
        return
    options = {"converters": {"object_id": [str]}} if suffix == ".csv" else {}
    found = Table.read(tmp_path / f"hits{suffix}", format=kinds[suffix], **options)
    assert [str(object_id) for object_id in found["object_id"]] == hits.ids
    np.testing.assert_allclose(np.asarray(found["score"]), hits.table["score"].to_numpy(), rtol=1e-6)
    z = np.ma.filled(np.ma.asarray(found["z"]).astype(float), np.nan)
    np.testing.assert_allclose(z, hits.table["z"].to_numpy(), equal_nan=True)
    if suffix != ".csv":
        assert found["ra"].unit == u.deg
        assert found["mag_r"].unit in (u.mag, u.ABmag)


def test_a_region_file_has_a_line_for_each_hit_with_a_position(atlas, tmp_path):
    hits = saved(atlas, tmp_path / "hits.reg")
    lines = (tmp_path / "hits.reg").read_text().splitlines()
    placed = sum(ra is not None for ra in hits.table["ra"].to_pylist())
    assert 0 < placed < len(hits)
    assert sum("circle" in line or "point" in line for line in lines) == placed


def test_a_coverage_map_holds_every_hit_with_a_position(atlas, tmp_path):
    from astropy import units
    from mocpy import MOC

    hits = saved(atlas, tmp_path / "hits.moc")
    covered = MOC.from_string((tmp_path / "hits.moc").read_text(), "json")
    ra, dec = (hits.table[name].drop_null().to_numpy() for name in ("ra", "dec"))
    assert covered.max_order == 10 and covered.contains_lonlat(ra * units.deg, dec * units.deg).all()
    assert hits.to_bytes(".moc") == (tmp_path / "hits.moc").read_bytes()
    assert len(MOC.from_string(hits.coverage(order=29), "json").flatten()) == len({*zip(ra, dec, strict=True)})
    with pytest.raises(galsearch.QueryError, match="none of the"):
        atlas.search(where="ra IS NULL", k=3).coverage()


def test_an_unknown_suffix_is_refused_and_nothing_is_written(atlas, tmp_path):
    with pytest.raises(SchemaError, match="xlsx"):
        atlas.search("red", k=1).save(tmp_path / "hits.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_to_astropy_keeps_units_and_masks_nulls(atlas):
    hits = atlas.search(where="z IS NULL", k=5)
    table = hits.to_astropy()
    assert table["ra"].unit == u.deg
    assert np.all(np.ma.getmaskarray(np.ma.asarray(table["z"])))


def test_thumbnails_are_small_pictures_of_the_hits(atlas):
    hits = atlas.search("blue ring", k=4)
    pictures = hits.thumbnails()
    assert sorted(pictures) == sorted(hits.ids)
    for webp in pictures.values():
        picture = Image.open(io.BytesIO(webp))
        assert picture.format == "WEBP"
        red, _, blue = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(axis=0)
        assert blue > red


def test_contact_sheet_is_a_png_with_a_tile_for_each_hit(atlas, tmp_path):
    few = atlas.search("red", k=2).contact_sheet(tmp_path / "few.png")
    many = atlas.search("red", k=24).contact_sheet(tmp_path / "many.png", title="red ones")
    with Image.open(few) as small, Image.open(many) as large:
        assert small.format == large.format == "PNG"
        assert large.width * large.height > 2 * small.width * small.height


def test_contact_sheet_of_nothing_is_still_a_picture(atlas, tmp_path):
    with Image.open(atlas.search("red", where="false").contact_sheet(tmp_path / "none.png")) as picture:
        assert picture.format == "PNG"


# ---- rows, columns, counts


def test_rows_come_in_the_order_asked_for(atlas, truth):
    asked = [truth.ids[row] for row in (250, 3, 77, 3)]
    assert atlas.rows(asked)["object_id"].to_pylist() == asked
    assert atlas.rows([]).num_rows == 0


def test_columns_have_type_unit_and_meaning(atlas):
    columns = {row["column"]: row for row in atlas.columns().to_pylist()}
    assert list(columns)[:3] == ["object_id", "ra", "dec"]
    assert (columns["ra"]["unit"], columns["ra"]["ucd"]) == ("deg", "pos.eq.ra;meta.main")
    assert (columns["mass"]["unit"], columns["mass"]["description"]) == ("solMass", "Stellar mass")
    assert (columns["survey"]["type"], columns["survey"]["unit"]) == ("VARCHAR", "")


def test_the_atlas_says_what_it_is(atlas, form):
    assert len(atlas) == atlas.count() == 300
    assert FIRST in atlas
    assert "no such id" not in atlas
    assert atlas.kind == (form if form in ("folder", "bundle") else "bundle")
    assert atlas.manifest.title == "Tiny"
    assert atlas.manifest.sources[0]["license"] == "MIT"
    assert set(atlas.models()) == {"text", "image"}
    assert repr(atlas).startswith(f"<Atlas 'Tiny': 300 galaxies, {atlas.kind}")


# ---- SQL


def test_sql_joins_nearest_with_the_galaxies(atlas):
    found = atlas.sql(
        "SELECT object_id, score, z FROM nearest(embed('ring galaxy'), k := 7, cut := z < 0.1) "
        "JOIN galaxies USING (object_id) ORDER BY score DESC, object_id"
    )
    hits = atlas.search("ring galaxy", where="z < 0.1", k=7)
    assert found["object_id"].to_pylist() == hits.ids
    np.testing.assert_allclose(found["score"].to_numpy(), hits.table["score"].to_numpy(), atol=1e-6)
    assert found["z"].to_pylist() == hits.table["z"].to_pylist()


@pytest.mark.parametrize("macro", ["nearest", "nearest_exact"])
def test_sql_asks_by_concept_and_by_object(atlas, macro):
    phrase = "edge-on galaxy"
    by_concept = atlas.sql(f"FROM {macro}(concept('{phrase}'), k := 5, cut := axis_ratio < 0.4)")
    assert by_concept["object_id"].to_pylist() == atlas.search(phrase, where="axis_ratio < 0.4", k=5).ids
    by_object = atlas.sql(f"FROM {macro}(like_object('{FIRST}'), k := 4)")["object_id"].to_pylist()
    assert by_object == atlas.search(atlas.embed(atlas[FIRST]), k=4).ids
    assert FIRST in by_object


def test_sql_results_carry_units(atlas):
    found = atlas.sql("SELECT object_id, ra, mag_r, mass, 1 AS one FROM galaxies LIMIT 1")
    units = {item.name: (item.metadata or {}).get(b"unit") for item in found.schema}
    assert units == {"object_id": b"", "ra": b"deg", "mag_r": b"mag", "mass": b"solMass", "one": None}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 AS a",
        "FROM galaxies LIMIT 1",
        "WITH t AS (SELECT 1 AS a) FROM t",
        "VALUES (1, 2)",
        "DESCRIBE galaxies",
        "EXPLAIN SELECT 1",
        "SELECT 1 AS a;",
        "-- a remark\nSELECT g.object_id, h.object_id FROM galaxies g, galaxies h LIMIT 2",
    ],
)
def test_sql_takes_whatever_selects(atlas, text):
    assert atlas.sql(text).num_rows >= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "got nothing"),
        (";", "got nothing"),
        ("-- only a remark", "got nothing"),
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM galaxies", "nope"),
        ("SELECT 1; SELECT 2", "SELECT and SELECT"),
        ("DROP TABLE galaxies", "got DROP"),
        ("DELETE FROM galaxies", "got DELETE"),
        ("INSERT INTO galaxies(object_id) VALUES ('x')", "got INSERT"),
        ("CREATE TABLE memory.x AS SELECT 1", "got CREATE"),
        ("CREATE TEMP MACRO m() AS 1", "got CREATE"),
        ("COPY galaxies TO 'out.csv'", "got COPY"),
        ("EXPORT DATABASE 'out'", "got EXPORT"),
        ("ATTACH 'other.duckdb' AS other", "got ATTACH"),
        ("DETACH atlas", "got DETACH"),
        ("SET threads = 1", "got SET"),
        ("RESET lock_configuration", "got"),
        ("PRAGMA database_list", "got"),
        ("INSTALL httpfs", "got"),
        ("LOAD httpfs", "got LOAD"),
        ("CHECKPOINT", "got"),
        ("CALL pragma_version()", "got CALL"),
        ("USE memory", "got"),
        ("PREPARE p AS SELECT 1", "got PREPARE"),
        ("SELECT $1", "parameter"),
        ("SELECT getenv('HOME')", "getenv"),
        ("FROM read_csv('/etc/passwd')", "disabled"),
        ("FROM read_text('/etc/passwd')", "disabled"),
        ("FROM glob('/etc/*')", "disabled"),
        ("FROM 'https://example.org/x.parquet'", "does not exist|disabled"),
        ("FROM nearest(concept('no such phrase'))", "no concept 'no such phrase'"),
        ("FROM nearest(concept(NULL))", "NULL"),
        ("FROM nearest(NULL)", "query vector is NULL"),
        ("FROM nearest_exact(NULL)", "query vector is NULL"),
        ("FROM nearest(like_object('nobody'))", "no object 'nobody'"),
        ("FROM nearest([1.0, 2.0])", "Cannot cast list with length 2"),
        ("SELECT embed('')", "text is empty"),
        ("SELECT error('boom')", "boom"),
    ],
)
def test_sql_refuses_whatever_does_not(atlas, tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError, match=said):
        atlas.sql(text)
    assert list(tmp_path.iterdir()) == []
    assert len(atlas.search("red", k=3)) == 3  # and the next question is answered


def test_explain_analyze_of_a_copy_writes_nothing(atlas, tmp_path):
    with pytest.raises(QueryError):
        atlas.sql(f"EXPLAIN ANALYZE COPY galaxies TO '{tmp_path}/out.csv'")
    assert list(tmp_path.iterdir()) == []


# ---- questions that cannot be asked


BAD_WHERES = [
    "z < 0.1; DROP TABLE galaxies",
    "z < 0.1); DROP TABLE galaxies; --",
    "true; COPY galaxies TO 'out.csv'",
    "(COPY galaxies TO 'out.csv')",
    "EXISTS (COPY galaxies TO 'out.csv')",
    "true) UNION (SELECT true",
    "true) UNION ALL SELECT (true",
    "true) EXCEPT (SELECT true",
    "true), (true",
    "true) FROM (SELECT 1",
    "true) WHERE (true",
    "true) GROUP BY (1",
    "true) GROUP BY ALL HAVING (true",
    "true) HAVING (true",
    "true) QUALIFY (true",
    "true) ORDER BY (1",
    "true) LIMIT (1",
    "true) USING SAMPLE (1",
    "true) WINDOW w AS (ORDER BY z",
    "z < 0.1 /* open",
    "z < 0.1) --",
    "z < 0.1) OR (true",
    "true THEN false WHEN z < 0.1",
    "'open",
    '"open',
    "true AS x",
    "*",
    "COLUMNS(*)",
    "magnitude < 3",
    "z <",
    "z < 'abc'",
    "(z, 1)",
    "count(*) > 1",
    "row_number() OVER () > 1",
    "z < $1",
    "z < ?",
    "ATTACH 'x.duckdb' AS x",
    "SET threads = 1",
    "PRAGMA database_list",
    "getenv('HOME') = 'x'",
    "EXISTS (FROM read_csv('{secret}'))",
    "EXISTS (FROM read_text('{secret}'))",
    "EXISTS (FROM '{secret}')",
    "(SELECT count(*) FROM glob('{folder}/*')) > 0",
    "error('boom')",
    "\0",
    "z < 0.1\0",
    "(" * 3000 + "true" + ")" * 3000,
    "z < 0.1 OR " * 20_000 + "false",
]


@pytest.mark.parametrize("where", BAD_WHERES, ids=lambda where: where[:40])
def test_where_that_is_more_or_less_than_one_condition_is_refused(atlas, tmp_path, monkeypatch, where):
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nsesame\n")
    monkeypatch.chdir(tmp_path)
    where = where.replace("{secret}", str(secret)).replace("{folder}", str(tmp_path))
    for ask in (lambda: atlas.search("red", where=where), lambda: atlas.search(where=where), atlas.count):
        with pytest.raises(QueryError) as caught:
            ask(*([where] if ask == atlas.count else []))
        assert "sesame" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert list(tmp_path.iterdir()) == [secret]
    assert atlas.count() == 300


@pytest.mark.parametrize("where", ["", "   "])
def test_an_empty_where_is_refused(atlas, where):
    with pytest.raises(QueryError, match="where is"):
        atlas.search("red", where=where)


@pytest.mark.parametrize("ask", [lambda a: a["nobody"], lambda a: a.rows([FIRST, "nobody"])])
def test_an_unknown_id_is_refused_by_name(atlas, ask):
    with pytest.raises(QueryError, match="no object 'nobody'"):
        ask(atlas)


def test_an_unknown_example_is_refused_by_name(atlas):
    with pytest.raises(QueryError, match="no object 'nobody'"):
        atlas.search(Query((Term("object", "nobody"),)))


@pytest.mark.parametrize("what", ["", "  ", 3, b"red", ["red"], np.zeros((2, 16)), np.array(["a"]), np.array([1j])])
def test_what_is_nothing_to_search_for_is_a_query_error(atlas, what):
    with pytest.raises(QueryError):
        atlas.search(what)


@pytest.mark.parametrize("vector", [np.zeros(16), np.full(16, np.nan), np.full(16, np.inf)])
def test_a_vector_without_direction_is_refused(atlas, vector):
    with pytest.raises(QueryError, match="length"):
        atlas.search(vector)


def test_terms_that_cancel_out_are_refused(atlas):
    with pytest.raises(QueryError, match="cancel out"):
        atlas.search(Query((Term("text", "red"), Term("text", "red", -1.0))))


def test_a_vector_of_another_length_is_a_model_mismatch(atlas):
    with pytest.raises(ModelMismatchError, match=r"256 dimensions.*16"):
        atlas.search(np.ones(256))


@pytest.mark.parametrize("name", ["missing.png", "empty.jpg", "noise.png"])
def test_an_image_that_cannot_be_read_is_refused_by_name(atlas, tmp_path, name):
    if name != "missing.png":
        (tmp_path / name).write_bytes(b"" if name == "empty.jpg" else b"no picture")
    with pytest.raises(SchemaError, match=name):
        atlas.search(tmp_path / name)


# ---- threads


def test_eight_threads_get_the_same_answers(tiny_path):
    queries = [
        lambda a: a.search("red edge", k=9).ids,
        lambda a: a.search("ring", where="z < 0.1", k=30).ids,
        lambda a: a.search(a[FIRST], k=5).ids,
        lambda a: a.sql("FROM nearest(embed('blue ring'), k := 6, cut := mag_r < 19)")["object_id"].to_pylist(),
        lambda a: sorted(a.thumbnails([FIRST, SECOND])),
        lambda a: a.count("z IS NULL"),
    ]
    with galsearch.open(tiny_path, device="cpu") as alone:
        expected = [ask(alone) for ask in queries]
    wrong: list[object] = []

    def work(turn: int) -> None:
        try:
            for step in range(len(queries)):
                place = (turn + step) % len(queries)
                if (found := queries[place](shared)) != expected[place]:
                    wrong.append(found)
        except Exception as error:  # noqa: BLE001  whatever it is, it is reported below
            wrong.append(error)

    with galsearch.open(tiny_path, device="cpu") as shared:
        threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_two_openings_of_one_atlas_do_not_disturb_each_other(tiny_path):
    first, second = galsearch.open(tiny_path, device="cpu"), galsearch.open(tiny_path, device="cpu")
    text = "FROM nearest(embed('red'), k := 3)"
    assert first.sql(text).equals(second.sql(text))
    first.close()
    assert second.sql(text).num_rows == 3
    second.close()


def test_a_column_of_sql_has_no_unit_of_a_column_of_another_type(atlas):
    assert (atlas.sql("SELECT count(*) AS ra FROM galaxies").schema.field("ra").metadata or {}).get(b"unit") != b"deg"
    assert atlas.sql("SELECT max(ra) AS ra FROM galaxies").schema.field("ra").metadata[b"unit"] == b"deg"


# ---- cuts together


TOGETHER = {  # SQL, and the same with pyarrow: of the source's columns, with NULLs, with a quote, following the vectors
    "z < 0.1": lambda table: pc.less(table["z"], 0.1),
    "z IS NULL OR survey = 'd''Or'": lambda table: pc.or_kleene(
        pc.is_null(table["z"]), pc.equal(table["survey"], "d'Or")
    ),
    "mag_r BETWEEN 15 AND 19 -- bright": lambda table: pc.and_(
        pc.greater_equal(table["mag_r"], 15), pc.less_equal(table["mag_r"], 19)
    ),
    "NOT survey = 'north'": lambda table: pc.invert(pc.equal(table["survey"], "north")),
}


@pytest.mark.parametrize("where", TOGETHER)
@pytest.mark.parametrize("cone", CONES[:8], ids=str)
def test_a_cone_a_condition_and_words_together_equal_brute_force(atlas, truth, cone, where):
    kept = truth.near(*cone) & truth.mask(TOGETHER[where](truth.table))
    words = atlas.embed("red ring")
    for k in (3, 300):
        hits = atlas.search("red ring", where=where, near=cone[:2], radius_arcsec=cone[2], k=k)
        assert hits.ids == truth.best(words, k, kept)
        assert hits.plan.matches == kept.sum()
    listed = atlas.search(where=where, near=cone[:2], radius_arcsec=cone[2], k=300)
    assert listed.ids == truth.ids[kept].tolist()


def test_the_cuts_of_the_test_above_are_neither_empty_nor_everything(truth):
    sizes = [
        (truth.near(*cone) & truth.mask(cut(truth.table))).sum() for cone in CONES[:8] for cut in TOGETHER.values()
    ]
    assert sum(size > 1 for size in sizes) > 24
    assert max(sizes) < 75


POLAR_ROWS, FEW = 3_000, 50


@pytest.fixture(scope="module")
def polar(tmp_path_factory):
    """Vectors with positions around a pole and across RA 0, in cells: (paths by form, table, vectors)."""
    rng = np.random.default_rng(8)
    vectors = tiny.random_units(POLAR_ROWS, 16, seed=8, groups=20)
    pole = np.arange(POLAR_ROWS) % 2 == 0
    table = pa.table(
        {
            "id": [f"p{row:05d}" for row in range(POLAR_ROWS)],
            "ra": np.where(pole, rng.uniform(0, 360, POLAR_ROWS), np.mod(rng.uniform(-0.5, 0.5, POLAR_ROWS), 360)),
            "dec": np.where(pole, 90 - rng.uniform(0, 0.5, POLAR_ROWS), rng.uniform(-0.5, 0.5, POLAR_ROWS)),
            "along": vectors[:, 0].astype(np.float64),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 16),
        }
    )
    home = tmp_path_factory.mktemp("polar")
    pq.write_table(table, home / "polar.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(macros, "EXACT_ROWS", FEW)
        patch.setattr(cells, "LEAST_ROWS", FEW)
        galsearch.build(home / "polar.atlas", table=home / "polar.parquet", vectors="vector", model="theirs")
        galsearch.bundle(home / "polar.atlas", home / "polar.duckdb")
    return {"folder": home / "polar.atlas", "bundle": home / "polar.duckdb"}, table, vectors


@pytest.mark.parametrize("cone", [(0.0, 90.0, 1200.0), (200.0, 89.8, 900.0), (0.0, 0.0, 1500.0), (359.9, 0.1, 700.0)])
def test_a_cone_and_a_condition_in_cells_equal_brute_force(polar, form, cone):
    paths, table, vectors = polar
    query = tiny.random_units(1, 16, seed=9)[0]
    found = Truth(np.array(table["id"].to_pylist(), dtype=object), vectors, table)
    kept = found.near(*cone) & (vectors[:, 0] > 0)
    cuts = {"where": "along > 0", "near": cone[:2], "radius_arcsec": cone[2], "k": 40}
    with tiny.tuned(paths[form], exact_matches=FEW) as atlas:
        every, exact = atlas.search(query, **cuts, probes=100_000), atlas.search(query, **cuts, exact=True)
        assert (every.plan.path, exact.plan.path) == ("ivf", "exact")
        assert every.ids == exact.ids == found.best(query, 40, kept)
        assert every.plan.matches == exact.plan.matches == kept.sum() > FEW
        assert len(atlas.search(query, **cuts)) == 40


# ---- cross-match


@cache
def beside_atlas(seed=21, rows=80):
    """A table of positions, most of them near galaxies of the tiny atlas, in the order of a name."""
    rng = np.random.default_rng(seed)
    source = tiny.table()
    there = source.filter(source["ra"].is_valid()).take(rng.integers(0, 270, rows))
    ra, dec = there["ra"].to_numpy(), there["dec"].to_numpy()
    away = np.where(np.arange(rows) % 5 == 0, 5.0, 30 / 3600)
    dec = np.clip(dec + rng.normal(size=rows) * away, -90, 90)
    ra = np.mod(ra + rng.normal(size=rows) * away / np.maximum(np.cos(np.radians(dec)), 1e-3), 360)
    return pa.table({"name": [f"n{row}" for row in range(rows)], "ra": ra, "dec": dec, "Z": rng.random(rows)})


def matched(table, truth, radius, *, mode, kept=None):
    """Return (row, object_id, separation) by astropy."""
    galaxies = truth.places
    here = SkyCoord(*(table[name].to_numpy() for name in ("ra", "dec")), unit="deg")
    found = []
    for row, place in enumerate(here):
        apart = place.separation(galaxies).arcsec
        within = np.flatnonzero((apart <= radius) & (True if kept is None else kept))
        order = within[np.lexsort((truth.ids[within], apart[within]))]
        found += [(row, truth.ids[other], apart[other]) for other in (order[:1] if mode == "best" else order)]
    return found


@pytest.mark.parametrize("mode", ["best", "all"])
@pytest.mark.parametrize("radius", [40.0, 120.0, 1000.0])
def test_a_table_is_matched_as_astropy_does(atlas, truth, mode, radius):
    table = beside_atlas()
    expected = matched(table, truth, radius, mode=mode)
    found = atlas.crossmatch(table, radius_arcsec=radius, mode=mode)
    assert 20 < len(expected) == found.num_rows
    assert found["name"].to_pylist() == [f"n{row}" for row, _, _ in expected]
    assert found["object_id"].to_pylist() == [object_id for _, object_id, _ in expected]
    apart = [separation for _, _, separation in expected]
    np.testing.assert_allclose(found["separation_arcsec"].to_numpy(), apart, rtol=1e-7, atol=1e-6)


def test_each_match_stands_beside_its_row_with_every_column_of_the_galaxy(atlas):
    table = beside_atlas()
    found = atlas.crossmatch(table, radius_arcsec=200, mode="all")
    names = ["name", "ra_in_table", "dec_in_table", "Z_in_table", "object_id", "separation_arcsec"]
    galaxies = atlas.rows(found["object_id"].to_pylist())
    assert found.column_names == [*names, *galaxies.column_names[1:]]
    assert found.select(galaxies.column_names).equals(galaxies)
    rows = pa.array([int(name[1:]) for name in found["name"].to_pylist()])
    assert found.select(names[:4]).rename_columns(table.column_names).equals(table.take(rows))
    for name, unit, ucd in (("separation_arcsec", b"arcsec", b"pos.angDistance"), ("mass", b"solMass", b"phys.mass")):
        assert found.schema.field(name).metadata[b"unit"] == unit
        assert found.schema.field(name).metadata[b"ucd"] == ucd


def test_both_forms_and_several_atlases_match_alike(both, tmp_path):
    folder, bundle = (one.crossmatch(beside_atlas(), radius_arcsec=500, mode="all") for one in both)
    assert folder.equals(bundle, check_metadata=True)
    with galsearch.open([both[0].path, both[1].path], device="cpu") as twice:
        found = twice.crossmatch(beside_atlas(), radius_arcsec=500, mode="all")
        assert found["object_id"].to_pylist() == np.repeat(folder["object_id"].to_pylist(), 2).tolist()
        assert found["atlas"].to_pylist() == ["tiny.atlas", "tiny.duckdb"] * folder.num_rows
        best = twice.crossmatch(beside_atlas(), radius_arcsec=500, where="z < 0.1")
        one = both[0].crossmatch(beside_atlas(), radius_arcsec=500, where="z < 0.1")
        assert best["object_id"].equals(one["object_id"])


def test_only_objects_that_pass_a_condition_are_matched(atlas, truth):
    table, kept = beside_atlas(), truth.mask(pc.less(truth.table["z"], 0.1))
    expected = matched(table, truth, 1000, mode="best", kept=kept)
    found = atlas.crossmatch(table, radius_arcsec=1000, where="z < 0.1 -- near")
    assert found["object_id"].to_pylist() == [object_id for _, object_id, _ in expected]
    assert 0 < found.num_rows < atlas.crossmatch(table, radius_arcsec=1000).num_rows
    with pytest.raises(QueryError, match="where"):
        atlas.crossmatch(table, radius_arcsec=1, where="z <")


def test_rows_without_a_match_or_a_position_are_kept_where_asked(atlas):
    table = beside_atlas()
    absent = pa.array([row == 3 for row in range(table.num_rows)])
    table = table.set_column(1, "ra", pc.if_else(absent, pa.scalar(None, pa.float64()), table["ra"]))
    found = atlas.crossmatch(table, radius_arcsec=60, keep_unmatched=True)
    assert found["name"].equals(table["name"])
    assert found["object_id"][3].as_py() is found["mass"][3].as_py() is found["separation_arcsec"][3].as_py() is None
    matches = atlas.crossmatch(table.filter(pc.invert(absent)), radius_arcsec=60)
    assert found.filter(found["object_id"].is_valid()).equals(matches)
    assert 0 < matches.num_rows < table.num_rows - 1
    with pytest.raises(SchemaError, match="1 of 80 rows have no position, the first is row 4;"):
        atlas.crossmatch(table, radius_arcsec=60)


def test_a_radius_for_each_row_is_taken(atlas):
    table = beside_atlas()
    radius = np.where(np.arange(table.num_rows) % 2, 100.0, 0.0)
    found = atlas.crossmatch(table, radius_arcsec=radius, mode="all")
    wide = atlas.crossmatch(table, radius_arcsec=100, mode="all")
    odd = pa.array([int(name[1:]) % 2 == 1 for name in wide["name"].to_pylist()])
    assert found.equals(wide.filter(odd))


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".vot", ".parquet"])
def test_a_file_is_matched_as_its_table(atlas, tmp_path, suffix):
    table = beside_atlas()
    expected = atlas.crossmatch(table, radius_arcsec=100)
    galsearch.write_table(table, tmp_path / f"positions{suffix}")
    for path in (tmp_path / f"positions{suffix}", str(tmp_path / f"positions{suffix}")):
        found = atlas.crossmatch(path, radius_arcsec=100)
        assert found["name"].to_pylist() == expected["name"].to_pylist()
        assert found["object_id"].to_pylist() == expected["object_id"].to_pylist()


def with_ucd(table: pa.Table, **ucds: str) -> pa.Table:
    fields = [item.with_metadata({"ucd": ucds[item.name]} if item.name in ucds else {}) for item in table.schema]
    return table.cast(pa.schema(fields))


def test_the_position_is_found_by_name_by_ucd_or_by_a_usual_name_and_can_be_named(atlas):
    table = beside_atlas()
    expected = atlas.crossmatch(table, radius_arcsec=100)["object_id"]
    upper = table.rename_columns(["name", "RA", "Dec", "Z"])
    assert atlas.crossmatch(upper, radius_arcsec=100)["object_id"].equals(expected)
    vizier = table.rename_columns(["name", "_RAJ2000", "_DEJ2000", "Z"])
    assert atlas.crossmatch(vizier, radius_arcsec=100)["object_id"].equals(expected)
    wrong = pa.array(np.zeros(table.num_rows))
    odd = table.rename_columns(["name", "a", "d", "Z"]).append_column("raj2000", wrong).append_column("dej2000", wrong)
    said = with_ucd(odd, a="pos.eq.ra;meta.main", d="pos.eq.dec;meta.main")
    found = atlas.crossmatch(said, radius_arcsec=100)
    assert found["object_id"].equals(expected)
    assert found.schema.field("a").metadata == {b"ucd": b"pos.eq.ra"}  # the main position is that of the atlas
    assert atlas.crossmatch(odd, radius_arcsec=100, ra="a", dec="d")["object_id"].equals(expected)


def test_columns_that_the_result_has_already_get_names_of_their_own(atlas):
    table = beside_atlas().rename_columns(["object_id", "ra", "dec", "RA"])
    table = table.append_column("ra_in_table", pa.array(["kept"] * table.num_rows))
    found = atlas.crossmatch(table, radius_arcsec=100)
    names = ["object_id_in_table", "ra_in_table2", "dec_in_table", "RA_in_table3", "ra_in_table"]
    assert found.column_names[: len(names)] == names
    assert len({name.casefold() for name in found.column_names}) == found.num_columns
    assert set(found["ra_in_table"].to_pylist()) == {"kept"}


def test_an_empty_table_or_a_cut_that_nothing_passes_gives_no_rows_but_all_columns(atlas):
    table = beside_atlas()
    columns = atlas.crossmatch(table, radius_arcsec=100).schema
    for found in (
        atlas.crossmatch(table.slice(0, 0), radius_arcsec=100),
        atlas.crossmatch(table, radius_arcsec=100, where="z > 9"),
        atlas.crossmatch(table, radius_arcsec=0, mode="all"),
    ):
        assert (found.num_rows, found.schema) == (0, columns)


def changed(name: str, values) -> pa.Table:
    table = beside_atlas(rows=3)
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (changed("ra", ["here"] * 3), {}, "columns ra, dec hold text that is no position"),
        (changed("ra", ["00h42m44s", "here", "1d"]), {}, "row 2: position 'here, "),
        (changed("dec", [1.0, 90.5, 2.0]), {}, "row 2 has ra"),
        (changed("ra", [1.0, 2.0, -180.5]), {}, "row 3 has ra -180.5"),
        (changed("ra", [1.0, None, 2.0]), {}, "1 of 3 rows have no position, the first is row 2"),
        (changed("dec", [None] * 3), {}, "3 of 3 rows have no position"),
        (changed("ra", [True, False, True]), {}, "column ra is bool, expected numbers or text"),
        (
            beside_atlas().drop_columns(["dec"]),
            {},
            "no positions found; expected right ascension and declination, ICRS, by name, UCD or unit",
        ),
        (beside_atlas(), {"ra": "alpha"}, "no column 'alpha' for ra; there are: name, ra, dec, Z"),
        (beside_atlas().rename_columns(["name", "ra", "dec", "ra"]), {}, "column ra occurs twice"),
        ([1.0, 2.0], {}, "table is a list, expected a pyarrow.Table or the path"),
        ("nowhere.csv", {}, "nowhere.csv: there is no such file"),
    ],
)
def test_a_table_without_readable_positions_is_refused_with_a_remedy(atlas, table, options, message):
    with pytest.raises(SchemaError, match=re.escape(message)):
        atlas.crossmatch(table, radius_arcsec=1, **options)


def test_positions_in_hours_below_zero_or_sexagesimal_match_as_in_degrees(atlas):
    table = beside_atlas()
    degrees = table["ra"].to_numpy()
    expected = atlas.crossmatch(table, radius_arcsec=100)["object_id"]
    place = table.column_names.index("ra")
    below = table.set_column(place, "ra", pa.array(np.where(degrees > 180, degrees - 360, degrees)))
    hours = table.set_column(place, pa.field("ra", pa.float64(), metadata={"unit": "h"}), pa.array(degrees / 15))
    for other, note in ((below, "360 is added"), (hours, "from h to degrees")):
        found = atlas.crossmatch(other, radius_arcsec=100)
        assert found["object_id"].equals(expected)
        assert any(note in each for each in galsearch.notes_of(found))


@pytest.mark.parametrize("options", [{"radius_arcsec": -1.0}, {"radius_arcsec": 1.0, "mode": "nearest"}])
def test_a_bad_radius_or_mode_is_refused(atlas, options):
    with pytest.raises(QueryError, match="expected"):
        atlas.crossmatch(beside_atlas(), **options)


def test_an_encoder_that_is_prepared_is_loaded_once_and_its_absence_is_told_by_the_search(tiny_bundle, monkeypatch):
    loads, load = [], galsearch.Atlas._load_encoder
    monkeypatch.setattr(galsearch.Atlas, "_load_encoder", lambda self, kind: loads.append(kind) or load(self, kind))
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        atlas.prepare()
        assert len(atlas.search("red", k=3)) == 3
        assert loads == ["text"]

    def broken(*_):
        raise galsearch.ModelMismatchError("no such model")

    monkeypatch.setattr(galsearch.Atlas, "_load_encoder", broken)
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        atlas.prepare()
        with pytest.raises(galsearch.ModelMismatchError, match="no such model"):
            atlas.search("red")


def test_an_atlas_that_is_closed_while_its_encoder_is_loaded_closes(tiny_bundle):
    for _ in range(6):
        opened = galsearch.open(tiny_bundle, device="cpu")
        opened.prepare()
        opened.close()
