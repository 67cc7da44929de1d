"""Detection and measures under random masks, on pictures that are not square: what is hidden changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import galsearch
from galsearch.science.detection import detect, measure

QUICK = {"phases": (Phase.explicit, Phase.generate)}


def blob(shape, x, y, sigma, *, peak=60.0, axis_ratio=1.0, angle=0.0):
    """Return a Gaussian whose major axis is at `angle` degrees from +x to +y."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    turn = np.radians(angle)
    along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    return peak * np.exp(-0.5 * ((along / sigma) ** 2 + (across / (sigma * axis_ratio)) ** 2))


def sky(shape, *, seed=0, level=0.0):
    return level + np.random.default_rng(seed).normal(size=shape)


def field(shape, places, **form):
    return sum(blob(shape, x, y, 2.5, **form) for x, y in places) + sky(shape, level=50.0)


def nearest(found, x, y):
    """Return the row of the source closest to a place, and how far it is, in pixels."""
    distance = np.hypot(found["x_px"] - x, found["y_px"] - y)
    return int(distance.argmin()), float(distance.min())


PLACES = [(30.0, 25.0), (90.0, 40.0), (160.0, 30.0), (50.0, 75.0), (120.0, 80.0), (175.0, 72.0)]
SHAPE = (100, 205)  # rows, columns


@settings(max_examples=12, **QUICK)
@given(st.integers(0, 5), st.integers(0, 2), st.integers(8, 14), st.integers(8, 20))
def test_nothing_is_found_where_there_are_no_data_and_all_else_stays(hidden, band, tall, wide):
    """A hole of NaN in one band alone is a hole."""
    picture = np.stack([field(SHAPE, PLACES) * scale for scale in (1.0, 0.8, 0.6)], axis=2)
    x, y = PLACES[hidden]
    rows, columns = slice(int(y) - tall, int(y) + tall + 1), slice(int(x) - wide, int(x) + wide + 1)
    holed = picture.copy()
    holed[rows, columns, band] = np.nan
    whole, found = detect(picture), detect(holed)
    inside = (np.abs(found["x_px"] - x) <= wide) & (np.abs(found["y_px"] - y) <= tall)
    assert not inside.any()
    for other, place in enumerate(PLACES):
        before, near = nearest(whole, *place)
        assert near < 0.5
        if other != hidden:
            after, near = nearest(found, *place)
            assert near < 0.5
            for name in ("radius_px", "brightness", "color_gr", "color_br"):
                assert found[name][after] == pytest.approx(whole[name][before], rel=0.03, abs=0.03), name
            assert not found["is_edge"][after]


@settings(max_examples=10, **QUICK)
@given(st.sampled_from(["left", "right", "top", "bottom"]), st.integers(3, 12), st.integers(0, 2))
def test_measures_do_not_change_when_a_far_strip_is_missing(side, width, band):
    shape = (84, 110)
    galaxy = blob(shape, 55, 42, 5.0, axis_ratio=0.5, angle=30, peak=80)
    picture = np.stack([galaxy * scale + sky(shape, seed=band_, level=20) for band_, scale in enumerate((3, 2, 1))], 2)
    strip = {
        "left": np.s_[:, :width],
        "right": np.s_[:, -width:],
        "top": np.s_[:width],
        "bottom": np.s_[-width:],
    }[side]
    holed = picture.copy()
    holed[(*np.atleast_1d(strip), band) if isinstance(strip, slice) else (*strip, band)] = np.nan
    before, after = measure(picture), measure(holed)
    for name in ("x_px", "y_px", "radius_px", "axis_ratio", "position_angle", "concentration", "color_gr", "color_br"):
        assert after[name] == pytest.approx(before[name], rel=0.05, abs=0.06), name
    assert after["brightness"] == pytest.approx(before["brightness"], rel=0.05)


@pytest.mark.parametrize("angle", [-80.0, -45.0, -10.0, 10.0, 45.0, 80.0])
@pytest.mark.parametrize("shape", [(64, 120), (120, 64)])
def test_x_is_the_column_y_the_row_and_the_angle_turns_from_x_to_y(shape, angle):
    x, y = shape[1] * 0.5 + 2, shape[0] * 0.5 - 1
    picture = blob(shape, x, y, 6.0, axis_ratio=0.4, angle=angle) + sky(shape) * 0.3
    for found in (measure(picture), {name: values[0] for name, values in detect(picture).items()}):
        assert (found["x_px"], found["y_px"]) == pytest.approx((x, y), abs=0.3)
        assert (found["position_angle"] - angle + 90) % 180 - 90 == pytest.approx(0, abs=4)
        assert -90 <= found["position_angle"] <= 90
        assert found["axis_ratio"] == pytest.approx(0.4, abs=0.05)


def test_a_source_at_any_border_is_an_edge_and_one_within_is_not():
    shape = (90, 150)
    places = [(3, 45), (146, 45), (75, 2), (75, 87), (75, 45)]
    found = detect(field(shape, places))
    flags = [bool(found["is_edge"][nearest(found, *place)[0]]) for place in places]
    assert flags == [True, True, True, True, False]


def test_sources_are_ordered_by_their_light():
    shape = (80, 160)
    lights = {(20, 20): 40.0, (70, 60): 90.0, (120, 20): 60.0, (140, 60): 25.0}
    picture = sum(blob(shape, x, y, 2.5, peak=peak) for (x, y), peak in lights.items()) + sky(shape)
    found = detect(picture)
    seen = list(zip(found["x_px"], found["y_px"], strict=True))
    order = [min(lights, key=lambda place: np.hypot(place[0] - x, place[1] - y)) for x, y in seen]
    assert order[:4] == sorted(lights, key=lights.get, reverse=True)
    assert (np.diff(found["brightness"]) <= 0).all()


def test_a_brighter_sky_and_another_unit_change_no_shape():
    shape = (70, 100)
    picture = blob(shape, 50, 35, 4.0, axis_ratio=0.6, angle=-30) + sky(shape)
    one = measure(picture)
    for scale, level in ((1e-9, 0.0), (1e6, 0.0), (1.0, 1000.0)):
        other = measure(picture * scale + level)
        for name in ("x_px", "y_px", "radius_px", "axis_ratio", "position_angle", "concentration", "snr"):
            assert other[name] == pytest.approx(one[name], rel=0.02, abs=0.02), (name, scale, level)
        assert other["brightness"] == pytest.approx(one["brightness"] * scale, rel=0.02)


@pytest.mark.parametrize("turn", [pytest.param(0.0, marks=pytest.mark.slow), 120.0])
def test_a_mosaic_that_is_not_square_gives_degrees_north_and_arcseconds(tmp_path, tiny_models, turn):
    """Positions come from the WCS by column and row, sizes by its scale; both hold when the picture is turned."""
    picture = field(SHAPE, PLACES, axis_ratio=0.6, angle=20.0).astype(np.float32)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [0.01, 40.0], [100.0, 50.0]
    scale, angle = 0.5 / 3600, np.radians(turn)
    wcs.wcs.cd = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    fits.PrimaryHDU(picture, wcs.to_header()).writeto(tmp_path / "mosaic.fits")
    galsearch.build(tmp_path / "m.atlas", mosaic=tmp_path / "mosaic.fits", models=tiny_models)
    with galsearch.open(tmp_path / "m.atlas", device="cpu") as atlas:
        table = atlas.search(k=100).table
    rows = {name: np.array(table[name].to_pylist(), float) for name in ("x_px", "y_px", "ra", "dec", "radius_arcsec")}
    radius = np.array(table["radius_px"].to_pylist(), float)
    assert len(table) >= len(PLACES)
    for place in PLACES:
        row, near = nearest(rows, *place)
        assert near < 0.5
        truth = wcs.pixel_to_world(rows["x_px"][row], rows["y_px"][row]).icrs
        assert rows["dec"][row] == pytest.approx(truth.dec.deg, abs=1e-6)
        assert 0 <= rows["ra"][row] < 360
        assert (rows["ra"][row] - truth.ra.deg + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
        assert rows["radius_arcsec"][row] == pytest.approx(0.5 * radius[row], rel=1e-3)
