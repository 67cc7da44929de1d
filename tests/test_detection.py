"""Measures of synthetic galaxies, against the profiles that they were drawn from."""

import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import picture as draw

from galsearch.errors import SchemaError
from galsearch.schema import GALAXIES
from galsearch.science import detection, morphology
from galsearch.science.detection import COLUMNS, cutout_size, detect, measure


def ellipse_radius(shape, x, y, *, axis_ratio=1.0, angle=0.0):
    """Return the elliptical radius of every pixel, in units of the major axis; `angle` in degrees from +x to +y."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    turn = np.radians(angle)
    along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    across = -(columns - x) * np.sin(turn) + (rows - y) * np.cos(turn)
    return np.hypot(along, across / axis_ratio)


def gaussian(shape, x, y, sigma, peak=100.0, **form):
    return peak * np.exp(-0.5 * (ellipse_radius(shape, x, y, **form) / sigma) ** 2)


def disk(shape, x, y, length, peak=100.0, **form):
    return peak * np.exp(-ellipse_radius(shape, x, y, **form) / length)


def noise(*shape, seed=3):
    return np.random.default_rng(seed).normal(size=shape)


def exponential_radius(part):
    """Return the radius, in scale lengths, that holds a part of an exponential disk's light, by bisection."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - (1 + middle) * np.exp(-middle) < part else (low, middle)
    return low


# ---- one cutout


def test_the_half_light_radius_of_a_gaussian_is_1_1774_sigma():
    found = measure(gaussian((96, 96), 47.3, 48.1, 8.0) + noise(96, 96))
    assert found["radius_px"] == pytest.approx(8 * np.sqrt(2 * np.log(2)), rel=0.03)
    assert (found["x_px"], found["y_px"]) == pytest.approx((47.3, 48.1), abs=0.2)
    assert found["axis_ratio"] > 0.95
    assert found["position_angle"] is None  # a round source has none
    assert found["measure_flag"] is None


def test_brightness_is_the_light_that_was_put_in():
    found = measure(gaussian((96, 96), 48, 48, 5.0) + 7 + 0.1 * noise(96, 96))
    assert found["brightness"] == pytest.approx(100 * 2 * np.pi * 25, rel=0.02)


@settings(max_examples=12, deadline=None)
@given(st.floats(0.25, 0.85), st.floats(-85, 85))
def test_axis_ratio_and_position_angle_of_a_disk(axis_ratio, angle):
    found = measure(disk((128, 128), 64, 64, 9.0, axis_ratio=axis_ratio, angle=angle) + 0.2 * noise(128, 128))
    assert found["axis_ratio"] == pytest.approx(axis_ratio, abs=0.05)
    turn = (found["position_angle"] - angle + 90) % 180 - 90
    assert turn == pytest.approx(0, abs=4)


def test_an_exponential_disk_has_its_analytic_radius_and_concentration():
    found = measure(disk((160, 160), 80, 80, 10.0, peak=200) + 0.05 * noise(160, 160))
    assert found["radius_px"] == pytest.approx(10 * exponential_radius(0.5), rel=0.06)
    expected = 5 * np.log10(exponential_radius(0.8) / exponential_radius(0.2))
    assert found["concentration"] == pytest.approx(expected, abs=0.12)


def test_a_gaussian_is_less_concentrated_than_a_disk_and_a_bulge_more():
    shape = (128, 128)
    bulge = 3000 * np.exp(-7.67 * (np.maximum(ellipse_radius(shape, 64, 64), 0.3) / 8) ** 0.25)
    values = [
        measure(light + 0.05 * noise(*shape))["concentration"]
        for light in (gaussian(shape, 64, 64, 8), disk(shape, 64, 64, 6), bulge)
    ]
    assert values == sorted(values)
    assert values[0] == pytest.approx(5 * np.log10(np.sqrt(np.log(0.2) / np.log(0.8))), abs=0.1)


def test_colors_are_ratios_of_the_bands_red_first():
    galaxy = gaussian((64, 64), 32, 32, 5)
    rgb = np.stack([galaxy * scale for scale in (2.0, 1.0, 0.5)], axis=2) + 0.1 * noise(64, 64, 3)
    found = measure(rgb)
    assert found["color_gr"] == pytest.approx(2.5 * np.log10(2), abs=0.02)
    assert found["color_br"] == pytest.approx(2.5 * np.log10(4), abs=0.02)


def test_a_band_without_light_has_no_color():
    galaxy = gaussian((64, 64), 32, 32, 5)
    dark = np.stack([galaxy, galaxy, -0.3 * galaxy], axis=2) + 0.1 * noise(64, 64, 3)
    assert measure(dark)["color_br"] is None
    assert measure(dark)["color_gr"] is not None


def test_gray_pictures_have_no_colors():
    galaxy = np.clip(gaussian((64, 64), 32, 32, 5) + 10 + noise(64, 64), 0, 255).astype(np.uint8)
    for picture in (galaxy, np.dstack([galaxy] * 3)):
        found = measure(picture)
        assert found["color_gr"] is None
        assert found["color_br"] is None
        assert found["radius_px"] > 0


def test_a_neighbor_does_not_count():
    shape = (96, 96)
    alone = gaussian(shape, 48, 48, 4) + 0.5 * noise(*shape)
    first, second = measure(alone), measure(alone + gaussian(shape, 76, 52, 4, peak=300))
    assert second["radius_px"] == pytest.approx(first["radius_px"], rel=0.1)
    assert second["brightness"] == pytest.approx(first["brightness"], rel=0.1)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (noise(64, 64), "no source"),
        (gaussian((96, 96), 12, 12, 3) + noise(96, 96), "no source"),
        (np.zeros((64, 64, 3), np.uint8), "one value"),
        (np.full((64, 64), np.nan), "no data"),
        (gaussian((8, 8), 4, 4, 1), "smaller than"),
    ],
)
def test_where_nothing_can_be_measured_everything_is_none_with_a_reason(picture, reason):
    found = measure(picture)
    assert reason in found.pop("measure_flag")
    blank = morphology.FLAGS["blank"] if reason == "no data" else 0
    assert found.pop("morphology_flag") == morphology.FLAGS["unmeasured"] | blank
    assert set(found.values()) == {None}


def test_a_source_that_reaches_the_border_says_so():
    found = measure(disk((64, 64), 32, 32, 14, axis_ratio=0.2) + noise(64, 64))
    assert found["is_edge"] is True
    assert "border" in found["measure_flag"]


def test_missing_pixels_are_masked():
    picture = gaussian((96, 96), 48, 48, 6) + noise(96, 96)
    picture[:, :20] = np.nan
    assert measure(picture)["radius_px"] == pytest.approx(6 * 1.1774, rel=0.05)


def test_inputs_are_never_modified():
    for picture in (gaussian((64, 64), 32, 32, 5) + noise(64, 64), np.full((64, 64, 3), 9, np.uint8)):
        picture[0, 0] = 3
        before = picture.copy()
        measure(picture)
        detect(picture)
        np.testing.assert_array_equal(picture, before)
    read_only = (gaussian((64, 64), 32, 32, 5) + noise(64, 64)).astype(np.float32)
    read_only.flags.writeable = False
    assert measure(read_only)["radius_px"] is not None


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([np.uint8, np.float32]), st.integers(12, 40))
def test_any_picture_gives_finite_numbers_or_none(seed, kind, side):
    generator = np.random.default_rng(seed)
    blobs = sum(gaussian((side, side), *generator.uniform(0, side, 2), 1.5, peak=80) for _ in range(3))
    picture = np.clip(blobs[:, :, None] + generator.normal(8, 4, (side, side, 3)), 0, 255).astype(kind)
    for name, value in measure(picture).items():
        assert value is None or isinstance(value, (bool, str)) or np.isfinite(value), name


def test_wrong_shapes_are_refused():
    with pytest.raises(SchemaError, match="shape"):
        measure(np.zeros((2, 3, 4, 5)))


def test_measures_are_the_columns_of_the_schema():
    found = measure(gaussian((64, 64), 32, 32, 5) + noise(64, 64))
    assert set(COLUMNS) <= set(GALAXIES)
    assert set(morphology.COLUMNS) <= set(GALAXIES)
    assert list(found) == [*COLUMNS, *morphology.COLUMNS, "morphology_flag", "measure_flag"]


def test_a_hundred_cutouts_a_second():
    picture = disk((96, 96), 48, 48, 8, axis_ratio=0.6)[:, :, None] + noise(96, 96, 3) * 2 + 20
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    measure(picture)
    times = []
    for _ in range(7):
        start = time.process_time()
        measure(picture)
        times.append(time.process_time() - start)
    assert min(times) < 0.04  # four times the goal: the other tests run beside it


# ---- a mosaic


def mosaic(seed=5, side=400):
    """Return red-first flux with 30 disks whose form is known, and their table."""
    generator = np.random.default_rng(seed)
    places = [(60 + 56 * column, 60 + 66 * row) for row in range(5) for column in range(6)]
    table = [
        (x, y, generator.uniform(0.3, 0.9), generator.uniform(-80, 80), generator.uniform(2.5, 4)) for x, y in places
    ]
    light = sum(
        disk((side, side), x, y, length, peak=60, axis_ratio=ratio, angle=angle) for x, y, ratio, angle, length in table
    )
    return light[:, :, None] * np.array([1.5, 1.0, 0.6]) + generator.normal(3, 0.5, (side, side, 3)), np.array(table)


def test_detect_finds_every_disk_where_and_as_it_is():
    picture, table = mosaic()
    found = detect(picture)
    assert len(found["x_px"]) == len(table)
    for x, y, ratio, _, length in table:
        row = np.hypot(found["x_px"] - x, found["y_px"] - y).argmin()
        assert (found["x_px"][row], found["y_px"][row]) == pytest.approx((x, y), abs=0.3)
        assert found["axis_ratio"][row] == pytest.approx(ratio, abs=0.08)
        circular = length * exponential_radius(0.5)
        assert circular * np.sqrt(ratio) * 0.8 < found["radius_px"][row] < circular * 1.1
    np.testing.assert_allclose(found["color_gr"], 2.5 * np.log10(1.5), atol=0.1)
    assert not found["is_star"].any()
    assert not found["is_artifact"].any()


def test_detect_and_measure_agree():
    picture, _ = mosaic()
    found = detect(picture)
    row = int(np.hypot(found["x_px"] - 200, found["y_px"] - 200).argmin())
    x, y = round(found["x_px"][row]), round(found["y_px"][row])
    one = measure(picture[y - 26 : y + 26, x - 26 : x + 26])
    assert one["axis_ratio"] == pytest.approx(found["axis_ratio"][row], abs=0.04)
    assert one["radius_px"] == pytest.approx(found["radius_px"][row], rel=0.1)
    assert one["color_br"] == pytest.approx(found["color_br"][row], abs=0.05)


def test_detect_orders_by_brightness_and_gives_one_kind_of_array_a_column():
    found = detect(mosaic()[0])
    assert list(found) == list(COLUMNS)
    assert (np.diff(found["brightness"]) <= 0).all()
    assert {value.dtype.kind for name, value in found.items() if name.startswith("is_")} == {"b"}
    assert {value.dtype for name, value in found.items() if not name.startswith("is_")} == {np.dtype(float)}


def test_an_empty_field_gives_empty_columns():
    found = detect(noise(120, 120, 3))
    assert {len(value) for value in found.values()} == {0}


def test_a_field_of_one_value_gives_empty_columns():
    assert len(detect(np.zeros((80, 80, 3), np.uint8))["x_px"]) == 0


def test_sources_at_the_border_are_flagged():
    shape = (200, 200)
    found = detect(gaussian(shape, 100, 100, 3) + gaussian(shape, 3, 100, 3, peak=90) + noise(*shape))
    assert found["is_edge"].tolist() == [x < 20 for x in found["x_px"]]
    assert len(found["is_edge"]) == 2


def star(shape, x, y, size=1.0):
    """Return a bright point with a halo and four spikes."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(float)
    dx, dy = np.abs(columns - x) / size, np.abs(rows - y) / size
    cross = np.exp(-((dx / 1.2) ** 2)) * np.exp(-dy / 6) + np.exp(-((dy / 1.2) ** 2)) * np.exp(-dx / 6)
    return gaussian(shape, x, y, 3 * size, peak=2000) + 600 * cross + 60 * np.exp(-np.hypot(dx, dy) / 8)


def test_a_star_with_diffraction_spikes_is_a_star_and_galaxies_are_not():
    shape = (300, 300)
    field = (
        star(shape, 150, 150) + disk(shape, 60, 60, 5, peak=400, axis_ratio=0.8) + gaussian(shape, 240, 70, 6, peak=400)
    )
    found = detect(field + noise(*shape))
    stars = found["is_star"]
    assert stars.sum() == 1
    assert (found["x_px"][stars][0], found["y_px"][stars][0]) == pytest.approx((150, 150), abs=1)
    assert measure(star((96, 96), 48, 48) + noise(96, 96))["is_star"] is True
    assert measure(disk((96, 96), 48, 48, 6) + noise(96, 96))["is_star"] is False


def test_a_piece_of_a_spike_is_an_artifact_and_a_thin_galaxy_across_it_is_not():
    shape = (400, 400)
    along = disk(shape, 285, 200, 5, peak=30, axis_ratio=0.2, angle=0)
    across = disk(shape, 200, 290, 5, peak=30, axis_ratio=0.2, angle=10)
    found = detect(star(shape, 200, 200, size=2) + along + across + noise(*shape), background_px=128)
    flagged = found["is_artifact"]
    assert len(flagged) == 3
    assert (found["x_px"][flagged][0], found["y_px"][flagged][0]) == pytest.approx((285, 200), abs=2)
    assert flagged.sum() == 1


def test_points_among_galaxies_are_stars():
    shape, generator = (700, 700), np.random.default_rng(2)
    places = [(40 + 62 * column, 40 + 62 * row) for row in range(11) for column in range(11)]
    points = set(places[::3])
    field = np.zeros(shape)
    for x, y in places:  # a window each: beyond 30 px none of them has light
        sigma, peak = 1.4 if (x, y) in points else generator.uniform(2.2, 4), generator.uniform(100, 300)
        field[y - 30 : y + 31, x - 30 : x + 31] += gaussian((61, 61), 30, 30, sigma, peak=peak)
    found = detect(field + noise(*shape))
    nearest = [
        min(places, key=lambda place: np.hypot(place[0] - x, place[1] - y))
        for x, y in zip(found["x_px"], found["y_px"], strict=True)
    ]
    truth = np.array([place in points for place in nearest])
    assert (found["is_star"] == truth).mean() > 0.97


# ---- cutouts


def test_a_cutout_frames_its_galaxy():
    assert cutout_size(1.0) == 24
    assert cutout_size(float("nan")) == 24
    assert cutout_size(10.0) == 80
    assert cutout_size(10.0, axis_ratio=0.2) > cutout_size(10.0, axis_ratio=0.9)
    assert all(cutout_size(radius) % 2 == 0 for radius in np.linspace(1, 40, 50))


def test_a_source_that_stands_upright_is_measured():
    """Its angle is the float32 nearest to pi/2, which lies beyond the pi/2 that sep accepts."""
    stream = io.BytesIO()
    Image.fromarray(draw(color="white", shape="round", size_px=48)).save(stream, "JPEG", quality=95)
    measured = measure(np.asarray(Image.open(stream)))
    assert measured["radius_px"] > 0
    assert measured["measure_flag"] is None


# ---- units, levels and what is no data


def three_bands(seed=5):
    """Return a tilted disk in three bands on frames that are not square, with a companion and noise."""
    shape = (90, 110)
    light = disk(shape, 54, 45, 7.0, peak=60, axis_ratio=0.6, angle=30) + gaussian(shape, 80, 70, 2.5, peak=30)
    return np.stack([light * share + noise(*shape, seed=seed + n) for n, share in enumerate((1.0, 0.7, 0.4))], axis=2)


NO_LENGTH = ("brightness", "measure_flag")


def assert_alike(found, expected, *, rel=1e-3):
    for name, value in expected.items():
        if name in NO_LENGTH:
            continue
        if value is None or isinstance(value, bool):
            assert found[name] is value, name
        else:
            assert found[name] == pytest.approx(value, rel=rel, abs=rel), name


@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1e-18, 1e-12, 0.3, 1e6, 1e20, 1e30])
def test_measures_do_not_depend_on_the_unit_of_flux(factor):
    expected = measure(three_bands())
    assert expected["snr"] > 20
    assert None not in (expected["asymmetry"], expected["sersic_n"], expected["color_gradient"])
    found = measure(three_bands() * factor)
    assert_alike(found, expected)
    assert found["brightness"] == pytest.approx(expected["brightness"] * factor, rel=1e-3)


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**40])
def test_measures_of_a_picture_times_a_power_of_two_are_the_very_same(factor):
    expected, found = measure(three_bands()), measure((three_bands() * factor).astype(np.float32))
    assert_alike(found, measure(three_bands().astype(np.float32)), rel=0)
    assert found["brightness"] == pytest.approx(expected["brightness"] * factor, rel=1e-4)


@pytest.mark.parametrize("level", [-50.0, 3.0, 1000.0])
def test_measures_do_not_depend_on_the_level_of_the_sky(level):
    found, expected = measure(three_bands() + level), measure(three_bands())
    assert_alike(found, expected, rel=0.01)
    assert found["brightness"] == pytest.approx(expected["brightness"], rel=0.01)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_sources_of_a_mosaic_do_not_depend_on_the_unit_of_flux(factor):
    field = sum(gaussian((120, 160), x, y, 3.0, peak=40) for x, y in ((30, 40), (120, 80), (70, 95)))
    field = field + noise(120, 160)
    expected, found = detect(field), detect(field * factor)
    for name in COLUMNS:
        scale = factor if name == "brightness" else 1
        np.testing.assert_allclose(found[name], expected[name] * scale, rtol=2e-3, err_msg=name)


def test_a_saturated_star_does_not_hide_the_noise_of_the_sky():
    """The noise of a band was a thousandth of its range at least, so that one hot pixel made everything faint."""
    picture = disk((96, 96), 48, 48, 6.0) + noise(96, 96)
    expected = measure(picture)["snr"]
    picture[8, 8] = 60_000.0
    assert measure(picture)["snr"] == pytest.approx(expected, rel=0.02)


def test_a_band_of_one_value_counts_for_nothing():
    picture = np.stack([disk((96, 96), 48, 48, 6.0) + noise(96, 96), np.full((96, 96), 7.0)], axis=2)
    alone = measure(picture[:, :, 0])
    assert measure(picture)["snr"] == pytest.approx(alone["snr"], rel=1e-3)
    assert measure(picture)["color_br"] is None


def half_missing(value, *, level=0.0):
    picture = disk((96, 96), 48, 48, 6.0) + noise(96, 96) + level
    picture[:, :44] = value
    return picture


@pytest.mark.parametrize("level", [0.0, 500.0])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_half_a_frame_without_data_is_told_by_the_flag_and_measured_on_the_rest(value, level):
    found = measure(half_missing(value, level=level))
    assert found["morphology_flag"] & morphology.FLAGS["blank"]
    truth = measure(half_missing(np.nan))
    assert found["snr"] == pytest.approx(truth["snr"], rel=0.02)
    assert found["radius_px"] == pytest.approx(truth["radius_px"], rel=0.02)


def test_a_frame_of_more_than_half_zeros_is_not_measured_and_says_why():
    picture = half_missing(0.0, level=10.0)
    picture[:60] = 0.0
    found = measure(picture)
    assert found["morphology_flag"] == morphology.FLAGS["unmeasured"] | morphology.FLAGS["blank"]
    assert "no data" in found["measure_flag"]


@pytest.mark.parametrize("kind", ["model without noise", "black sky of 8 bits", "even disk", "photons"])
def test_zeros_that_are_data_are_not_taken_for_none(kind):
    light = gaussian((96, 96), 48, 48, 5.0, peak=200.0)
    picture = {
        "model without noise": np.where(light > 1e-3, light, 0.0),
        "black sky of 8 bits": np.clip(light, 0, 255).astype(np.uint8),
        "even disk": (light > 100.0) * 255.0,
        "photons": np.random.default_rng(0).poisson(0.3 + light / 50).astype(float),
    }[kind]
    found = measure(picture)
    assert not found["morphology_flag"] & morphology.FLAGS["blank"]
    if "sky" in kind or "model" in kind:
        assert found["radius_px"] == pytest.approx(5 * np.sqrt(2 * np.log(2)), rel=0.15)


@pytest.mark.parametrize(("level", "sigma"), [(10, 1), (8, 2), (10, 3), (5, 2), (100, 5), (100, 20), (0, 1)])
def test_a_block_of_exact_zeros_is_told_whatever_the_level_of_the_sky(level, sigma):
    y, x = np.mgrid[-48:48, -48:48]
    sky = np.random.default_rng(1).normal(level, sigma, x.shape)
    whole = (100 * np.exp(-np.hypot(x, y) / 6) + sky).astype(np.float32)
    cut = np.where(y + 48 < 45, np.float32(0), whole)
    flags = [measure(image)["morphology_flag"] for image in (cut, whole)]
    assert [flag & 256 for flag in flags] == [256, 0]


def test_a_block_of_zeros_is_told_where_nan_pixels_lie_between_it_and_the_sky():
    y, x = np.mgrid[-48:48, -48:48]
    whole = 100 * np.exp(-np.hypot(x, y) / 6) + np.random.default_rng(1).normal(100, 5, x.shape)
    cut = np.where(y + 48 < 40, 0.0, np.where(y + 48 < 48, np.nan, whole)).astype(np.float32)
    assert measure(cut)["morphology_flag"] & 256


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_a_sky_that_reaches_one_side_alone_is_no_model_on_black(side):
    """Of a frame with zeros on three sides the fourth says that they are where the data end."""
    y, x = np.mgrid[-48:48, -48:48]
    whole = 300 * np.exp(-np.hypot(x, y) / 6) + np.random.default_rng(1).normal(100, 5, x.shape)
    cut = np.zeros_like(whole)
    there = {"top": np.s_[:-14, 14:-14], "bottom": np.s_[14:, 14:-14]}
    there |= {"left": np.s_[14:-14, :-14], "right": np.s_[14:-14, 14:]}
    cut[there[side]] = whole[there[side]]
    found = measure(cut.astype(np.float32))
    assert found["morphology_flag"] & morphology.FLAGS["blank"]
    closed = np.zeros_like(whole)
    closed[14:-14, 14:-14] = 100.0
    assert not measure(closed.astype(np.float32))["morphology_flag"] & morphology.FLAGS["blank"]


@pytest.mark.parametrize("shape", [(96, 96), (97, 97), (96, 97), (97, 120)])
@pytest.mark.parametrize(("down", "right"), [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_of_two_sources_beside_the_middle_the_nearer_one_is_measured(shape, down, right):
    """The middle of a picture is that of its pixels; a quarter of a pixel decides."""
    middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    near, far = ((middle[0] + right * step, middle[1] + down * step) for step in (8.0, -8.5))
    found = measure(gaussian(shape, *near, 1.8) + gaussian(shape, *far, 1.8, peak=160) + 0.5 * noise(*shape))
    assert (found["x_px"], found["y_px"]) == pytest.approx(near, abs=0.2)


@pytest.mark.parametrize(("seen", "is_the_frame"), [(29, False), (30, True)])
def test_the_sky_is_that_of_the_frame_where_it_has_thirty_pixels_else_of_all(seen, is_the_frame):
    bands = np.arange(2 * 40 * 50, dtype=np.float32).reshape(2, 40, 50)
    mask = np.ones((40, 50), dtype=bool)
    mask[15:25, 20:30] = False
    mask[0, :seen] = False
    found = detection._frame(bands, mask)
    assert found.shape == (2, seen if is_the_frame else seen + 100)
    assert set(found[0]) >= set(bands[0, 0, :seen])
