"""ADQL against DuckDB by hand, geometry against vectors, and what is no query at all."""

# ruff: noqa: E501  queries are read best in one line

from __future__ import annotations

import math
import random

import numpy as np
import pyarrow as pa
import pytest
from adql_examples import EXAMPLES

import galsearch
from galsearch.adql import geometry
from galsearch.adql.translate import Known, translate
from galsearch.service.vo import tap_schema
from galsearch.workers import Limits

pytest.importorskip("sqlglot")
MINE = pa.table({"name": ["a", "b", "c"], "ra": [0.0, 1.0, 200.0], "dec": [10.0, 10.5, -45.0]})
LIMITS = Limits(text_characters=300_000, processes=1, spare=1)


@pytest.fixture(scope="module")
def plain(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def beside(plain):
    return {"mine": MINE, **tap_schema.tables(plain.tables())}


def test_there_are_a_hundred_examples():
    assert len(EXAMPLES) >= 100
    assert len({text for text, _ in EXAMPLES}) == len(EXAMPLES)


def same(one: pa.Table, other: pa.Table, *, ordered: bool) -> None:
    assert one.column_names == other.column_names
    left, right = ([tuple(row.values()) for row in table.to_pylist()] for table in (one, other))
    if not ordered:
        left, right = sorted(left, key=repr), sorted(right, key=repr)
    assert len(left) == len(right)
    for mine, theirs in zip(left, right, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a == b or a == pytest.approx(b, rel=1e-9, abs=1e-9, nan_ok=True), (mine, theirs)


@pytest.mark.parametrize(("text", "by_hand"), EXAMPLES, ids=[text[:70] for text, _ in EXAMPLES])
def test_an_example_answers_as_duckdb_does_by_hand(plain, beside, text, by_hand):
    result, more = plain.adql(text, tables=beside)
    same(result, plain.sql(by_hand), ordered="ORDER BY" in text)
    assert not more


def test_a_visitor_gets_what_the_owner_gets(plain, beside, tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu", visitors=LIMITS) as guarded:
        for text, _ in EXAMPLES[::7]:
            same(guarded.adql(text, tables=beside)[0], plain.adql(text, tables=beside)[0], ordered=False)
        text = "SELECT TOP 4 object_id, gs_similarity('red edge') AS s FROM galaxies ORDER BY s DESC"
        same(guarded.adql(text)[0], plain.adql(text)[0], ordered=True)


# ---- similarity


@pytest.mark.parametrize("where", [None, "z < 0.1", "survey = 'north' OR mag_r > 16"])
def test_a_top_query_by_similarity_is_a_search(plain, where):
    cut = f"WHERE {where} " if where else ""
    text = f"SELECT TOP 9 g.object_id, gs_similarity('blue ring') AS s FROM galaxies AS g {cut}ORDER BY s DESC"
    hits = plain.search("blue ring", where=where, k=9)
    result, _ = plain.adql(text)
    assert result["object_id"].to_pylist() == hits.ids
    assert result["s"].to_pylist() == pytest.approx(hits.scores.tolist(), abs=1e-6)


def test_the_index_is_asked_only_where_it_gives_the_same():
    known = Known({"galaxies": ["object_id", "z", "ra"]}, {}, {}, {"image": "embed"}, "image")

    def searches(text: str) -> int:
        return len(translate(text, known, most=100).searches)

    by = "gs_similarity('x')"
    assert searches(f"SELECT TOP 5 object_id FROM galaxies ORDER BY {by} DESC") == 1
    assert searches(f"SELECT TOP 5 object_id, {by} AS s FROM galaxies WHERE z < 1 ORDER BY s DESC OFFSET 2") == 1
    assert (
        searches(
            f"SELECT * FROM (SELECT TOP 5 object_id FROM galaxies ORDER BY {by} DESC) AS q JOIN galaxies USING (object_id)"
        )
        == 1
    )
    for text in (
        f"SELECT object_id FROM galaxies ORDER BY {by} DESC",
        f"SELECT TOP 5 object_id FROM galaxies ORDER BY {by}",
        f"SELECT TOP 5 object_id FROM galaxies ORDER BY z, {by} DESC",
        f"SELECT TOP 5 object_id FROM galaxies WHERE {by} > 0 ORDER BY {by} DESC",
        f"SELECT TOP 5 object_id FROM galaxies WHERE z IN (SELECT z FROM galaxies) ORDER BY {by} DESC",
        f"SELECT TOP 5 a.object_id FROM galaxies AS a JOIN galaxies AS b USING (object_id) ORDER BY {by} DESC",
        f"SELECT DISTINCT TOP 5 object_id, {by} AS s FROM galaxies ORDER BY s DESC",
        f"SELECT TOP 5 z, MAX({by}) AS s FROM galaxies GROUP BY z ORDER BY s DESC",
    ):
        assert searches(text) == 0, text


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("WHERE 1 = CONTAINS(POINT(g.ra, g.dec), CIRCLE(0, 10, 1))", "separation_arcsec(ra, dec, 0, 10) <= 3600"),
        ("WHERE CONTAINS(POINT(ra, dec), CIRCLE(0, 10, 1)) = 0", "NOT separation_arcsec(ra, dec, 0, 10) <= 3600"),
        ("WHERE g.z < 0.1 AND LOG10(mag_r) > 1.2", "z < 0.1 AND log10(mag_r) > 1.2"),
    ],
)
def test_the_filter_of_a_search_is_the_condition_of_the_query(plain, text, where):
    result, _ = plain.adql(f"SELECT TOP 5 * FROM galaxies AS g {text} ORDER BY gs_similarity('red') DESC")
    assert result["object_id"].to_pylist() == plain.search("red", where=where, k=5).ids
    assert result.column_names == plain.columns()["column"].to_pylist()


def test_names_of_a_query_do_not_mix_with_those_inside(plain):
    first = plain.search("red", k=1)
    for text in (
        "SELECT v.object_id, gs_similarity('red') AS s FROM galaxies AS v WHERE gs_similarity('red') > {0}",
        "WITH galaxies AS (SELECT object_id FROM galsearch.galaxies) SELECT TOP 1 object_id, "
        "gs_similarity('red') AS s FROM galaxies ORDER BY s DESC",
        "SELECT TOP 1 object_id, (SELECT MAX(gs_similarity('red')) FROM galaxies AS g2) AS s FROM galaxies "
        "ORDER BY gs_similarity('red') DESC",
    ):
        rows = plain.adql(text.format(float(first.scores[0]) - 1e-6))[0].to_pylist()
        assert [row["object_id"] for row in rows] == first.ids
        assert rows[0]["s"] == pytest.approx(float(first.scores[0]), abs=1e-5)


def test_a_similarity_is_a_value_anywhere_else(plain):
    hits = plain.search("red", k=300, exact=True)
    scores = dict(zip(hits.ids, hits.scores.tolist(), strict=True))
    result, _ = plain.adql("SELECT object_id, gs_similarity('red') AS s FROM galaxies WHERE gs_similarity('red') > 0.1")
    got = dict(zip(result["object_id"].to_pylist(), result["s"].to_pylist(), strict=True))
    assert set(got) == {name for name, score in scores.items() if score > 0.1}
    assert all(got[name] == pytest.approx(scores[name], abs=1e-5) for name in got)


# ---- what is known of columns


def test_columns_keep_their_units_where_they_come_unchanged(plain, beside):
    result, _ = plain.adql("SELECT ra, g.dec AS d, z + 1 AS z, mag_r AS ra_also FROM galaxies AS g")
    units = [(field.metadata or {}).get(b"unit") for field in result.schema]
    assert units == [b"deg", b"deg", None, b"mag"]


def test_more_rows_than_wanted_are_told(plain):
    assert plain.adql("SELECT object_id FROM galaxies", most=10)[1] is True
    assert plain.adql("SELECT TOP 10 object_id FROM galaxies", most=10)[1] is False
    table, more = plain.adql("SELECT object_id FROM galaxies UNION ALL SELECT object_id FROM galaxies", most=400)
    assert (table.num_rows, more) == (400, True)


# ---- geometry by vectors


def unit(ra, dec):
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


@pytest.fixture(scope="module")
def sky(plain):
    """Positions all over the sky, as a table beside the atlas."""
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, 3000), np.degrees(np.arcsin(rng.uniform(-1, 1, 3000)))
    return pa.table({"n": np.arange(3000), "ra": ra, "dec": dec})


def chosen(plain, sky, condition: str) -> set[int]:
    text = f"SELECT n FROM TAP_UPLOAD.sky WHERE {condition}"
    return set(plain.adql(text, tables={"sky": sky})[0]["n"].to_pylist())


@pytest.mark.parametrize("box", [(0, 0, 40, 20), (120, 60, 50, 30), (359, -80, 30, 25), (200, 90, 60, 40)])
def test_a_box_is_what_its_four_great_circles_bound(plain, sky, box):
    """Each side is a plane through the center of the sphere, turned from the arms by half the width or the height."""
    ra, dec, width, height = box
    center = unit(ra, dec)
    east = np.array([-math.sin(math.radians(ra)), math.cos(math.radians(ra)), 0])
    north = np.cross(center, east)
    points = unit(sky["ra"].to_numpy(), sky["dec"].to_numpy())
    inside = points @ center > 0
    for arm, size in ((east, width), (north, height)):
        half = math.radians(size / 2)
        for sign in (1, -1):
            normal = math.sin(half) * center + sign * math.cos(half) * arm * -1
            inside &= points @ normal >= 0
    expected = set(np.flatnonzero(inside).tolist())
    assert chosen(plain, sky, f"CONTAINS(POINT(ra, dec), BOX({ra}, {dec}, {width}, {height})) = 1") == expected
    assert expected
    corners = geometry.Box(geometry.Point(str(ra), str(dec)), str(width), str(height)).corners().corners
    listed = ", ".join(f"{float(c.ra.strip('()'))}, {float(c.dec.strip('()'))}" for c in corners)
    assert chosen(plain, sky, f"CONTAINS(POINT(ra, dec), POLYGON({listed})) = 1") == expected


@pytest.mark.parametrize(
    "corners",
    [
        [(10, 10), (40, 5), (50, 40), (20, 45)],
        [(350, -10), (20, -10), (10, 20)],
        [(0, 60), (90, 60), (180, 60), (270, 60)],
        [(20, 45), (50, 40), (40, 5), (10, 10)],
    ],
)
def test_a_convex_polygon_is_on_one_side_of_all_its_sides(plain, sky, corners):
    points, ends = unit(sky["ra"].to_numpy(), sky["dec"].to_numpy()), unit(*np.array(corners, float).T)
    sides = np.cross(ends, np.roll(ends, -1, axis=0)) @ points.T
    inside = ((sides >= 0).all(axis=0) | (sides <= 0).all(axis=0)) & (points @ ends.mean(axis=0) > 0)
    listed = ", ".join(f"{ra}, {dec}" for ra, dec in corners)
    expected = set(np.flatnonzero(inside).tolist())
    assert chosen(plain, sky, f"1 = CONTAINS(POINT('ICRS', ra, dec), POLYGON('ICRS', {listed}))") == expected
    pairs = ", ".join(f"POINT({ra}, {dec})" for ra, dec in corners)
    assert chosen(plain, sky, f"1 = INTERSECTS(POLYGON({pairs}), POINT(ra, dec))") == expected


def test_a_polygon_that_is_not_convex_leaves_out_its_bay(plain):
    sky = pa.table({"n": [0, 1, 2], "ra": [1.0, 5.0, 5.0], "dec": [5.0, 8.0, 1.0]})
    assert chosen(plain, sky, "1 = CONTAINS(POINT(ra, dec), POLYGON(0, 0, 10, 0, 10, 10, 5, 3, 0, 10))") == {0, 2}


@pytest.mark.parametrize("shape", ["POLYGON(10, 10, 40, 5, 50, 40, 20, 45)", "BOX(30, 30, 30, 20)"])
@pytest.mark.slow
def test_circles_meet_and_lie_in_shapes_as_points_of_them_do(plain, sky, shape):
    """A circle meets a shape where a point of its border or its center is inside, or a corner is in the circle."""
    near = sky.filter(pa.array(np.hypot((sky["ra"].to_numpy() - 30) / 1.2, sky["dec"].to_numpy() - 28) < 45))
    turn = np.linspace(0, 360, 72, endpoint=False)
    rows = []
    for n, ra, dec in zip(*(near[name].to_pylist() for name in ("n", "ra", "dec")), strict=True):
        for angle in (*turn, None):
            away = 0.0 if angle is None else math.radians(8)
            point = unit(ra, dec) * math.cos(away)
            east = np.array([-math.sin(math.radians(ra)), math.cos(math.radians(ra)), 0])
            north = np.cross(unit(ra, dec), east)
            if angle is not None:
                point = point + math.sin(away) * (
                    math.cos(math.radians(angle)) * north + math.sin(math.radians(angle)) * east
                )
            rows.append((n, math.degrees(math.atan2(point[1], point[0])) % 360, math.degrees(math.asin(point[2]))))
    border = pa.table(dict(zip(("n", "ra", "dec"), map(list, zip(*rows, strict=True)), strict=True)))
    inside = plain.adql(
        f"SELECT n, COUNT(*) AS hits FROM TAP_UPLOAD.border WHERE CONTAINS(POINT(ra, dec), {shape}) = 1 GROUP BY n",
        tables={"border": border},
    )[0]
    counts = dict(zip(inside["n"].to_pylist(), inside["hits"].to_pylist(), strict=True))
    meets = chosen(plain, near, f"INTERSECTS(CIRCLE(ra, dec, 8), {shape}) = 1")
    within = chosen(plain, near, f"CONTAINS(CIRCLE(ra, dec, 8), {shape}) = 1")
    assert {n for n, count in counts.items() if count} <= meets
    assert len(meets - set(counts)) <= 0.05 * len(meets)  # those that a side touches between two points of the border
    assert within <= {n for n, count in counts.items() if count == 73}
    assert len({n for n, count in counts.items() if count == 73} - within) <= 2


def test_shapes_that_cross_without_a_corner_in_each_other_meet(plain):
    def meet(one: str, other: str) -> int:
        return plain.adql(f"SELECT INTERSECTS({one}, {other}) AS i FROM galaxies")[0]["i"][0].as_py()

    assert meet("BOX(10, 0, 20, 2)", "BOX(10, 0, 2, 20)") == 1
    assert meet("BOX(10, 0, 2, 2)", "BOX(15, 0, 2, 2)") == 0
    assert meet("BOX(10, 0, 20, 20)", "POLYGON(9, -1, 11, -1, 10, 1)") == 1
    assert meet("CIRCLE(0, 0, 1)", "CIRCLE(2.5, 0, 1)") == 0
    assert meet("CIRCLE(0, 0, 1)", "CIRCLE(1.5, 0, 1)") == 1


def test_areas_and_values_of_shapes(plain):
    text = "SELECT TOP 1 AREA(CIRCLE(0, 0, 1)) AS c, AREA(BOX(0, 0, 2, 2)) AS b, POINT(1, 2) AS p FROM galaxies"
    row = plain.adql(text)[0].to_pylist()[0]
    assert row["c"] == pytest.approx(math.pi, rel=1e-3)
    assert row["b"] == pytest.approx(4, rel=1e-3)
    assert row["p"] == [1.0, 2.0]


# ---- what is no query


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing"),
        ("SELECT", "no columns"),
        ("SELECT * FROM", "no ADQL"),
        ("DROP TABLE galaxies", "expected one SELECT"),
        ("SELECT 1; SELECT 2", "expected one SELECT"),
        ("SELECT * FROM nothing", "there are: galaxies"),
        ("SELECT * FROM other.galaxies", "no table"),
        ("SELECT * FROM nearest(1)", "no functions that give tables"),
        ("SELECT * FROM 'file.csv'", "no table|no ADQL"),
        ("SELECT * FROM \"/etc/passwd\"", "no table"),
        ("SELECT x FROM galaxies", "x"),
        ("SELECT TOP z object_id FROM galaxies", "no ADQL|whole number"),
        ("SELECT CIRCLE(1, 2) FROM galaxies", "CIRCLE takes"),
        ("SELECT POLYGON(1, 2, 3, 4) FROM galaxies", "three corners"),
        ("SELECT * FROM galaxies WHERE CONTAINS(POINT('FK4', ra, dec), CIRCLE(1, 2, 3)) = 1", "ICRS"),
        ("SELECT * FROM galaxies WHERE CONTAINS(CIRCLE(1, 2, 3), POINT(ra, dec)) = 1", "exchange"),
        ("SELECT gs_similarity(survey) FROM galaxies", "written out"),
        ("SELECT gs_similarity('red', 'nothing') FROM galaxies", "embedding"),
        ("SELECT gs_similarity('') FROM galaxies", "empty"),
        ("SELECT gs_similarity('red') FROM TAP_UPLOAD.mine", "FROM names galaxies"),
        ("SELECT " + "(" * 200 + "1" + ")" * 200, "brackets"),
        ("SELECT " + "1 + " * 30_000 + "1", "characters"),
        ("SELECT \ud800 FROM galaxies", "Unicode"),
    ],
)  # fmt: skip
def test_what_is_no_query_is_told(plain, text, message):
    with pytest.raises(galsearch.QueryError, match=message):
        plain.adql(text, tables={"mine": MINE})


WORDS = (  # noqa: SIM905
    "SELECT FROM WHERE AND OR NOT TOP DISTINCT * , ( ) = < > 1 0 -1 1e9 'a' \"b\" ra dec z galaxies object_id CONTAINS POINT "
    "CIRCLE BOX POLYGON INTERSECTS DISTANCE gs_similarity gs_like JOIN ON USING AS UNION GROUP BY ORDER HAVING COUNT "
    "TAP_SCHEMA.tables TAP_UPLOAD.mine -- ; || LIKE IS NULL BETWEEN IN EXISTS CASE WHEN END OFFSET CAST \\ $$ ? @ # {"
).split(" ")


def test_three_hundred_fuzzed_queries_end_in_an_answer_or_an_error(tiny_bundle):
    rng = random.Random(20)
    texts = [text for text, _ in EXAMPLES]
    with galsearch.open(tiny_bundle, device="cpu", visitors=LIMITS) as guarded:
        ended = {"answer": 0, "error": 0}
        for _ in range(300):
            parts = rng.choice(texts).split(" ")
            for _ in range(rng.randint(1, 4)):
                at = rng.randrange(len(parts))
                parts[at : at + rng.randint(0, 2)] = [rng.choice(WORDS) for _ in range(rng.randint(0, 2))]
                parts = parts or ["SELECT"]
            try:
                guarded.adql(" ".join(parts), tables={"mine": MINE}, most=50)
                ended["answer"] += 1
            except galsearch.GalsearchError as error:
                assert str(error)
                ended["error"] += 1
        assert min(ended.values()) > 20, ended
