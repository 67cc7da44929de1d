"""The compiled sums over pixels against their numpy forms, and both against other libraries and direct definitions."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galsearch.science import pixels

NEEDS_LIBRARY = pytest.mark.skipif(
    pixels.LIBRARY is None and not os.environ.get("GALSEARCH_CI"), reason="galsearch was installed without a C compiler"
)
SIDES = st.tuples(st.integers(2, 90), st.integers(2, 90))
SEEDS = st.integers(0, 2**32 - 1)
SAME = {"rtol": 1e-9, "atol": 1e-12}


def picture(seed, shape, *, holes=0.1):
    """Return light float32, 0 in its holes, and the pixels that are usable."""
    generator = np.random.default_rng(seed)
    good = generator.random(shape) >= holes
    y, x = np.indices(shape)
    light = 60 * np.exp(-np.hypot(x - shape[1] / 2.1, y - shape[0] / 1.9) / 9) + generator.normal(size=shape)
    return np.where(good, light, 0).astype(np.float32), good


@NEEDS_LIBRARY
def test_the_library_was_compiled():
    assert pixels.LIBRARY is not None


def test_a_library_of_another_version_or_none_at_all_is_not_used(tmp_path, monkeypatch):
    assert pixels._load(tmp_path / pixels.NAME) is None
    monkeypatch.setattr(pixels, "VERSION", -1)
    assert pixels._load(pixels.Path(pixels.__file__).with_name(pixels.NAME)) is None


@NEEDS_LIBRARY
@given(SEEDS, SIDES, st.sampled_from([0, 0.3, 1]))
def test_rings_are_those_of_numpy(seed, shape, holes):
    light, good = picture(seed, shape, holes=holes)
    radius = np.random.default_rng(seed).uniform(0, 70, shape)
    np.testing.assert_allclose(pixels.rings(radius, light, good), pixels._rings_numpy(radius, light, good), **SAME)


def turned(seed, reach, margin, holes):
    half = reach + 2 * margin + 2
    light, good = picture(seed, (2 * half + 1,) * 2, holes=holes)
    at = np.random.default_rng(seed).uniform(-0.5, 0.5, 2)
    aperture = (np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach).astype(np.float32)
    return pixels.Turned(light, good.astype(np.float32), aperture, (float(at[0]), float(at[1])), margin, 0.3)


@NEEDS_LIBRARY
@given(SEEDS, st.integers(0, 40), st.integers(1, 12), st.sampled_from([0, 0.2, 1]))
def test_the_least_asymmetry_and_its_center_are_those_of_numpy(seed, reach, margin, holes):
    one = turned(seed, reach, margin, holes)
    value, shift = pixels.least_asymmetry(one)
    expected, center = pixels._least_asymmetry_numpy(one)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert shift == center


def test_asymmetry_about_a_pixel_is_that_of_the_flipped_square():
    one = turned(3, 10, 4, 0.0)
    one = pixels.Turned(one.light, one.good, one.aperture, (0.0, 0.0), 4, 0.0)
    square = one.light[10:-10, 10:-10].astype(float)
    inside = one.aperture > 0
    difference = np.abs(square - square[::-1, ::-1])[inside].sum()
    assert one.asymmetry((0.0, 0.0)) == pytest.approx(difference / np.abs(square[inside]).sum(), rel=1e-6)


@NEEDS_LIBRARY
@given(SEEDS, SIDES, st.floats(0.05, 25))
def test_a_blur_is_that_of_scipy(seed, shape, sigma):
    light, _ = picture(seed, shape)
    expected = pixels._blurred_numpy(light, sigma)
    np.testing.assert_allclose(pixels.blurred(light, sigma), expected, rtol=1e-5, atol=1e-6)  # float32 between passes


@NEEDS_LIBRARY
@given(SEEDS, SIDES, st.integers(1, 40))
def test_means_of_boxes_are_those_of_scipy(seed, shape, size):
    light, _ = picture(seed, shape)
    np.testing.assert_allclose(pixels.boxed(light, size), pixels._boxed_numpy(light, size), rtol=1e-5, atol=1e-5)


@NEEDS_LIBRARY
@given(SEEDS, SIDES, st.integers(0, 50))
def test_light_between_pixels_is_that_of_numpy(seed, shape, points):
    light, good = picture(seed, shape, holes=0.3)
    generator = np.random.default_rng(seed)
    x, y = generator.uniform(-9, 99, (2, points))
    for mine, theirs in zip(pixels.sampled(light, good, x, y), pixels._sampled_numpy(light, good, x, y), strict=True):
        np.testing.assert_allclose(mine, theirs, **SAME)


@NEEDS_LIBRARY
@given(SEEDS, st.integers(1, 60), st.floats(0.4, 8), st.floats(0.5, 3))
def test_misfits_of_sersic_profiles_are_those_of_numpy(seed, rings, index, spread):
    generator = np.random.default_rng(seed)
    log_r = np.log(np.arange(rings) + 1.5)
    light = 100 * np.exp(-(np.exp(log_r / index)) / spread) + generator.normal(size=rings)
    weight = generator.uniform(0.5, 2, rings)
    grids = index * np.exp(np.linspace(-0.5, 0.5, 7)), np.log(spread * 3) + np.linspace(-1, 1, 5)
    mine, theirs = (
        misfit(log_r, light, weight, *grids) for misfit in (pixels.sersic_misfit, pixels._sersic_misfit_numpy)
    )
    close = np.isclose(mine, theirs, rtol=1e-6, atol=1e-9) | (np.isinf(mine) & np.isinf(theirs))
    assert close.all() or rings < 4  # of few rings the best amplitude is a matter of rounding


@NEEDS_LIBRARY
@given(SEEDS, st.tuples(st.integers(12, 70), st.integers(12, 70)), st.floats(3, 60), st.sampled_from([0, 0.2]))
def test_radii_of_parts_of_the_light_are_those_of_sep(seed, shape, reach, holes):
    import sep

    generator = np.random.default_rng(seed)
    light, good = picture(seed, shape, holes=holes)
    segments = np.zeros(shape, np.int32)
    segments[: shape[0] // 2, : shape[1] // 3] = 2
    segments[shape[0] // 3 :, shape[1] // 3 :] = 1
    ids = np.array([1, 2], np.int32)
    center = generator.uniform(0, shape[1], 2), generator.uniform(0, shape[0], 2)
    total, parts, reach = generator.uniform(1, 3000, 2), np.array([0.2, 0.5, 0.8]), np.full(2, reach)
    expected, _ = sep.flux_radius(light, *center, reach, parts, normflux=total, mask=~good, seg_id=ids, segmap=segments)
    mine = pixels.light_radii(light, ~good, segments, ids, center=center, reach=reach, parts=np.outer(total, parts))
    np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-6)


@given(SEEDS, st.integers(1, 40), st.lists(st.floats(0, 100), min_size=1, max_size=4))
def test_percentiles_are_those_of_numpy(seed, count, parts):
    values = np.random.default_rng(seed).normal(size=(3, count))
    mine = pixels.percentiles(values, tuple(parts))
    np.testing.assert_allclose(mine, np.percentile(values, parts, axis=-1), rtol=1e-12, atol=1e-12)


@NEEDS_LIBRARY
def test_sizes_that_do_not_fit_are_an_error_and_nothing_is_read():
    light, good = picture(0, (9, 7))
    outside = np.full((9, 7), 3.0)
    outside[4, 4] = np.nan
    with pytest.raises(ValueError, match="rings"):
        pixels.rings(np.where(np.isnan(outside), -1.0, outside), light, np.ones_like(good))
    with pytest.raises(ValueError, match="differ in shape"):
        pixels.rings(outside[:-1], light, good)
    with pytest.raises(ValueError, match="differ in shape"):
        pixels.sampled(light, good[:, :-1], outside, outside)
    with pytest.raises(ValueError, match="too few"):
        pixels.Turned(
            np.zeros((9, 9), np.float32), np.ones((9, 9), np.float32), np.ones((5, 5), np.float32), (0, 0), 1, 0
        )
    with pytest.raises(ValueError, match="light_radii"):
        pixels.light_radii(
            light, ~good, good.astype(np.int32), np.array([1]),
            center=(np.array([3.0]), np.array([np.nan])), reach=np.array([4.0]), parts=np.array([[1.0]]),
        )  # fmt: skip
    assert np.isfinite(pixels.sampled(light, good, np.array([np.nan, np.inf, -np.inf]), np.zeros(3))[0]).all()


@NEEDS_LIBRARY
def test_a_galaxy_has_the_same_measures_without_the_library(monkeypatch):
    from galsearch.science.detection import measure

    for seed, shape in ((1, (70, 90)), (2, (120, 64)), (3, (150, 160))):
        light, good = picture(seed, shape, holes=0.02)
        galaxy = np.where(good, light, np.nan)
        with monkeypatch.context() as patch:
            patch.setattr(pixels, "LIBRARY", None)
            expected = measure(galaxy)
        for name, value in measure(galaxy).items():
            other = expected[name]
            assert value == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other), name
