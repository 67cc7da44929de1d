"""Positions, against astropy's."""

import itertools
import json
import tracemalloc
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, search_around_sky
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.crossmatch import METHODS, measured, table
from benchmarks.crossmatch import PLACES as PLACES_MEASURED
from galsearch.errors import QueryError
from galsearch.science import sky
from galsearch.science.sky import (
    check_position,
    crossmatch,
    crossmatch_blocks,
    parse_position,
    separation_arcsec,
    unit_vectors,
)

RA = st.floats(0, 360)
DEC = st.floats(-90, 90)


def astropy_arcsec(ra1, dec1, ra2, dec2):
    return SkyCoord(ra1 * u.deg, dec1 * u.deg).separation(SkyCoord(ra2 * u.deg, dec2 * u.deg)).arcsec


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0.0, 0.0), (180.0, 0.0)),
        ((10.0, 30.0), (190.0, -30.0)),
        ((359.9999, 10.0), (0.0001, 10.0)),
        ((0.0, 90.0), (123.0, 90.0)),
        ((0.0, -90.0), (0.0, 90.0)),
        ((77.0, 89.9999), (257.0, 89.9999)),
        ((150.1, 2.2), (150.1, 2.2 + 1e-9)),
    ],
)
def test_separation_agrees_with_astropy_at_the_hard_places(first, second):
    assert separation_arcsec(*first, *second) == pytest.approx(astropy_arcsec(*first, *second), rel=1e-6, abs=1e-9)


@given(RA, DEC, RA, DEC)
def test_separation_agrees_with_the_angle_between_unit_vectors(ra1, dec1, ra2, dec2):
    a, b = unit_vectors(ra1, dec1)[0], unit_vectors(ra2, dec2)[0]
    angle = 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))  # Kahan's form
    assert separation_arcsec(ra1, dec1, ra2, dec2) == pytest.approx(np.degrees(angle) * 3600, abs=1e-8)


@given(RA, DEC, RA, DEC)
def test_separation_is_symmetric_and_bounded(ra1, dec1, ra2, dec2):
    there, back = separation_arcsec(ra1, dec1, ra2, dec2), separation_arcsec(ra2, dec2, ra1, dec1)
    assert there == pytest.approx(back, abs=1e-9)
    assert 0 <= there <= 648_000.0001
    assert separation_arcsec(ra1, dec1, ra1, dec1) == 0


def test_a_step_of_a_microarcsecond_is_seen():
    step = 1e-6 / 3600
    assert separation_arcsec(10.0, 45.0, 10.0, 45.0 + step) == pytest.approx(1e-6, rel=1e-3)


def test_separation_broadcasts_and_keeps_nan():
    found = separation_arcsec(np.array([0.0, 1.0, np.nan]), 0.0, 0.0, 0.0)
    np.testing.assert_allclose(found, [0, 3600, np.nan])


def test_unit_vectors_point_along_the_axes():
    found = unit_vectors([0, 90, 12], [0, 0, 90])
    np.testing.assert_allclose(found, np.eye(3), atol=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "00h42m44.3s +41d16m09s",
        "00:42:44.3 +41:16:09",
        "00 42 44.3 +41 16 09",
        "00h42m44.3s+41d16m09s",
        "0:42:44.3, 41:16:09",
        "23h59m59.9s -00d00m30s",
    ],
)
def test_sexagesimal_positions_agree_with_astropy(text):
    expected = SkyCoord(text.replace(",", ""), unit=(u.hourangle, u.deg))
    assert parse_position(text) == pytest.approx((expected.ra.deg, expected.dec.deg), abs=1e-9)


@pytest.mark.parametrize("text", ["10.68 41.27", "10.68,+41.27", " 10.68d 41.27d ", "10.68+41.27", "1.068e1 41.27"])
def test_decimal_degrees_are_read(text):
    assert parse_position(text) == pytest.approx((10.68, 41.27))


def test_a_right_ascension_marked_with_degrees_is_not_in_hours():
    assert parse_position("10d30m -00d30m") == pytest.approx((10.5, -0.5))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M31",
        "10",
        "10 20 30",
        "nan nan",
        "10h 20h",
        "1 2 3 4 5",
        "00:61:00 +10:00:00",
        "1.5:30 +10:00",
        "a b",
    ],
)
def test_unreadable_positions_are_refused_with_the_text_in_the_message(text):
    with pytest.raises(QueryError, match="position"):
        parse_position(text)


def test_a_right_ascension_below_zero_has_360_added():
    assert check_position(-0.5, 1) == (359.5, 1.0)
    assert check_position(-180, 1) == (180.0, 1.0)
    assert parse_position("-0.5 1") == (359.5, 1.0)


@pytest.mark.parametrize(
    "position", [(-180.1, 0), (360.1, 0), (0, 90.1), (0, -91), (float("nan"), 0), (0, float("nan"))]
)
def test_positions_off_the_sphere_are_refused(position):
    with pytest.raises(QueryError, match="degrees"):
        check_position(*position)


def test_right_ascension_360_is_0():
    assert check_position(360, -90) == (0.0, -90.0)
    assert check_position(-10, 5) == (350.0, 5.0)
    assert check_position(-1e-20, 0) == (0.0, 0.0)  # 360 - 1e-20 is 360
    assert parse_position("-10.5 +5") == (349.5, 5.0)


# ---- cross-match

MODES = ("best", "all")
PLACES = {  # where cells, wraps and trigonometry go wrong
    "sky": (RA, DEC),
    "north": (RA, st.floats(89.99, 90)),
    "south": (RA, st.floats(-90, -89.99)),
    "zero": (st.one_of(st.floats(0, 0.005), st.floats(359.995, 360)), st.floats(-0.005, 0.005)),
    "points": (st.sampled_from([0.0, 90.0, 180.0, 360.0]), st.sampled_from([-90.0, -45.0, 0.0, 45.0, 90.0])),
}
RADII = st.one_of(
    st.sampled_from([0.0, 1.0, 36.0, 3600.0, 36_000.0, 324_000.0, 648_000.0]), st.floats(0, 60), st.floats(0, 648_000)
)


def positions(most: int):
    """Positions of one kind of place, a few of them NaN, as (ra, dec)."""

    def of(place):
        one = st.tuples(*place)
        return st.lists(st.one_of(one, one, one, one, st.just((np.nan, 1.0))), max_size=most)

    return st.sampled_from(list(PLACES.values())).flatmap(of).map(lambda rows: np.array(rows).reshape(-1, 2).T)


def brute(left, right, radius, mode):
    """Compare each with each, and order what is within the radius."""
    with np.errstate(invalid="ignore"):
        apart = separation_arcsec(left[0][:, None] % 360, left[1][:, None], right[0] % 360, right[1])
        row, other = np.nonzero(apart <= np.broadcast_to(radius, len(left[0]))[:, None])
    found = sorted(zip(row, apart[row, other], other, strict=True))
    if mode == "best":
        found = list({line[0]: line for line in reversed(found)}.values())[::-1]
    return [(line[0], line[2]) for line in found], [line[1] for line in found]


def agree(left, right, radius):
    for mode in MODES:
        pairs, apart = brute(left, right, radius, mode)
        found = crossmatch(*left, *right, radius_arcsec=radius, mode=mode)
        assert list(zip(found.left, found.right, strict=True)) == pairs
        np.testing.assert_array_equal(found.separation_arcsec, apart)


def one_or_many(rows):
    """One radius, or one for each row."""
    return st.one_of(RADII, st.lists(RADII, min_size=rows, max_size=rows).map(np.array))


@settings(max_examples=80)
@given(positions(12), positions(12), st.data())
def test_pairs_equal_those_of_comparing_each_with_each(left, right, data):
    agree(left, right, data.draw(one_or_many(left.shape[1])))


@settings(max_examples=60)
@given(positions(12), positions(12), st.data())
def test_pairs_do_not_depend_on_how_they_are_found(left, right, data):
    """Small blocks, and the tree for every row."""
    radius = data.draw(one_or_many(left.shape[1]))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BLOCK_ROWS": 3, "BLOCK_PAIRS": 4, "CROWDED": 0}.items():
            patch.setattr(sky, name, value)
        agree(left, right, radius)


@settings(max_examples=50)
@given(positions(10), positions(10), st.data())
def test_the_radius_is_inclusive(left, right, data):
    apart = separation_arcsec(left[0][:, None] % 360, left[1][:, None], right[0] % 360, right[1]).ravel()
    apart = apart[np.isfinite(apart)]
    if len(apart):
        agree(left, right, data.draw(st.sampled_from(apart.tolist())))


def scattered(rng, rows, place):
    """Return many positions of a place as (ra, dec)."""
    if place == "sky":
        return np.stack([rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))])
    if place == "north":
        return np.stack([rng.uniform(0, 360, rows), 90 - rng.uniform(0, 0.3, rows)])
    return np.stack([rng.uniform(-0.2, 0.2, rows) % 360, rng.uniform(-0.2, 0.2, rows)])


@pytest.mark.parametrize("radius", [20.0, 400.0, 7200.0])
@pytest.mark.parametrize("place", ["sky", "north", "zero"])
def test_all_pairs_are_those_of_astropy(place, radius):
    rng = np.random.default_rng(3)
    left, right = scattered(rng, 350, place), scattered(rng, 450, place)
    right[:, :150] = left[:, :150] + rng.normal(scale=5 / 3600, size=(2, 150))
    right[1] = np.clip(right[1], -90, 90)
    here, there = (SkyCoord(*side, unit="deg") for side in (left, right))
    row, other, apart, _ = search_around_sky(here, there, radius * u.arcsec)
    found = crossmatch(*left, *right, radius_arcsec=radius, mode="all")
    order = np.lexsort((found.right, found.left))
    expected = np.lexsort((other, row))
    np.testing.assert_array_equal(found.left[order], row[expected])
    np.testing.assert_array_equal(found.right[order], other[expected])
    np.testing.assert_allclose(found.separation_arcsec[order], apart.arcsec[expected], rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("radius", [5.0, 300.0, 648_000.0])
@pytest.mark.parametrize("place", ["sky", "north", "zero"])
def test_the_best_are_those_of_astropy(place, radius):
    rng = np.random.default_rng(4)
    left, right = scattered(rng, 900, place), scattered(rng, 2000, place)
    here, there = (SkyCoord(*side, unit="deg") for side in (left, right))
    nearest, apart, _ = here.match_to_catalog_sky(there)
    within = np.flatnonzero(apart.arcsec <= radius)
    found = crossmatch(*left, *right, radius_arcsec=radius)
    np.testing.assert_array_equal(found.left, within)
    np.testing.assert_array_equal(found.right, nearest[within])
    np.testing.assert_allclose(found.separation_arcsec, apart.arcsec[within], rtol=1e-9, atol=1e-8)


def test_no_radius_loses_a_neighbor_at_the_edge_of_its_cone():
    """Points on the rim of cones: all around, near and over a pole, across 0, up to half the sphere and more."""
    angles = np.radians(np.arange(0, 360, 5.0))
    for ra, dec in ((0.0, 0.0), (359.9999, 60.0), (10.0, 89.99), (200.0, -89.0), (77.0, -90.0)):
        for radius in (1e-3, 1.0, 3600.0, 90 * 3600 - 1e-6, 100 * 3600.0):
            center = SkyCoord(ra, dec, unit="deg")
            rim = center.directional_offset_by(angles * u.rad, radius * u.arcsec)
            apart = separation_arcsec(ra, dec, rim.ra.deg, rim.dec.deg)
            found = crossmatch([ra], [dec], rim.ra.deg, rim.dec.deg, radius_arcsec=apart.max(), mode="all")
            assert len(found.left) == len(angles)


@pytest.mark.parametrize("crowded", [0, sky.CROWDED])  # 0: the tree is asked for every row
def test_equally_close_ones_go_to_the_lowest_row_and_coinciding_ones_all_match(monkeypatch, crowded):
    monkeypatch.setattr(sky, "CROWDED", crowded)
    ra, dec = [10.0, 11.0, 10.0, 9.0], [0.0, 0.0, 0.0, 0.0]
    assert crossmatch([10.0], [0.0], ra, dec, radius_arcsec=0, mode="all").right.tolist() == [0, 2]
    assert crossmatch([10.0], [0.0], ra, dec, radius_arcsec=1e4, mode="all").right.tolist() == [0, 2, 1, 3]
    assert crossmatch([10.0], [0.0], ra, dec, radius_arcsec=1e4).right.tolist() == [0]
    for turned in (1, -1):
        assert crossmatch([10.0], [0.0], ra[1::2][::turned], [0, 0], radius_arcsec=648_000).right.tolist() == [0]


def test_thousands_of_placeholders_at_one_position_are_one_match_each():
    zero = np.zeros(20_000)
    found = crossmatch(zero, zero, zero, zero, radius_arcsec=1)
    assert found.left.tolist() == list(range(20_000))
    assert not found.right.any() and not found.separation_arcsec.any()


def test_antipodes_are_within_half_a_turn_and_not_within_less():
    ra, dec = np.array([10.0, 0.0, 359.0]), np.array([30.0, 90.0, -89.9])
    for radius, matched in ((648_000, 3), (647_999.99, 0)):
        found = crossmatch(ra, dec, (ra + 180) % 360, -dec, radius_arcsec=np.full(3, radius), mode="all")
        assert np.count_nonzero(found.left == found.right) == matched


def test_masked_positions_match_nothing_and_right_ascensions_are_cyclic():
    ra = np.ma.array([10.0, 10.0], mask=[True, False])
    assert crossmatch(ra, [0.0, 0.0], [370.0, -350.0], [0.0, 0.0], radius_arcsec=1, mode="all").left.tolist() == [1, 1]


@pytest.mark.parametrize("mode", MODES)
def test_empty_sides_give_no_pairs(mode):
    for left, right in (([], [1.0]), ([1.0], []), ([], []), ([np.nan], [1.0])):
        found = crossmatch(left, left, right, right, radius_arcsec=10, mode=mode)
        assert [values.tolist() for values in found] == [[], [], []]
        assert found.left.dtype == found.right.dtype == np.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius_arcsec": -1}, "radius_arcsec is -1.0, expected 0 to 648000"),
        ({"radius_arcsec": np.nan}, "radius_arcsec is nan"),
        ({"radius_arcsec": [1.0, 648_001.0]}, "radius_arcsec is 648001.0"),
        ({"radius_arcsec": [1.0, 2.0, 3.0]}, r"shape \(3,\), expected one number or 2"),
        ({"radius_arcsec": "wide"}, "radius_arcsec is not made of numbers"),
        ({"mode": "closest"}, "mode is 'closest', expected 'best'"),
        ({"dec": [1.0, 90.5]}, "dec of the left side is 90.5 in row 1, expected -90 to 90"),
        ({"other_dec": [-91.0]}, "dec of the right side is -91.0 in row 0"),
        ({"ra": ["00h42m44s", "1"]}, "ra of the left side is not made of numbers"),
        ({"ra": [1.0]}, "the left side has 1 ra and 2 dec"),
        ({"other_ra": [[1.0]], "other_dec": [[1.0]]}, "expected one dimension"),
    ],
)
def test_what_cannot_be_matched_is_refused_at_once(change, message):
    asked = {"ra": [1.0, 2.0], "dec": [1.0, 2.0], "other_ra": [1.0], "other_dec": [1.0], "radius_arcsec": 1.0} | change
    with pytest.raises(QueryError, match=message):
        crossmatch_blocks(**asked)


def test_too_many_pairs_are_refused_and_come_piece_by_piece():
    ra, dec = np.linspace(0, 1, 1000), np.zeros(1000)
    with pytest.raises(QueryError, match="more than 900000 pairs"):
        crossmatch(ra, dec, ra, dec, radius_arcsec=3601, mode="all", max_pairs=900_000)
    pieces = list(crossmatch_blocks(ra, dec, ra, dec, radius_arcsec=3601, mode="all"))
    assert sum(len(piece.left) for piece in pieces) == 1_000_000
    assert max(len(piece.left) for piece in pieces) <= sky.BLOCK_PAIRS + 1000
    edges = [(piece.left[0], piece.left[-1]) for piece in pieces]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(edges))
    assert len(crossmatch(ra, dec, ra, dec, radius_arcsec=3601, max_pairs=10).left) == 1000  # one a row is few


@pytest.mark.parametrize("radius", [72_000.0, 648_000.0])
def test_memory_does_not_grow_with_the_pairs(radius):
    """1.6e9 pairs of the whole sky would take 38 GB; what is held at a time stays below 100 MB."""
    rng = np.random.default_rng(5)
    left, right = scattered(rng, 40_000, "sky"), scattered(rng, 40_000, "sky")
    pieces = crossmatch_blocks(*left, *right, radius_arcsec=radius, mode="all")
    tracemalloc.start()
    for _ in range(3):
        next(pieces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


# ---- the document


def test_the_figures_of_the_document_are_those_that_were_measured():
    docs = Path(__file__).resolve().parent.parent / "docs"
    found = json.loads((docs / "crossmatch.json").read_text())
    assert "\n".join(table(found["rows"])) in (docs / "sky.md").read_text()
    assert max(row["ratio"] for row in found["rows"]) <= 1.5


def test_the_benchmark_measures_both_methods_on_the_same_pairs():
    for place, mode in itertools.product(PLACES_MEASURED, MODES):
        ours, theirs = (measured(method, place, mode, 600, 300) for method in METHODS)
        assert ours["digest"] == theirs["digest"]
        assert ours["digest"][0] >= 300
