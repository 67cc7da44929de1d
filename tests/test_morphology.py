"""The form of synthetic galaxies, against the formulas that drew them and against direct definitions."""

import importlib.util
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galsearch.schema import GALAXIES
from galsearch.science import morphology
from galsearch.science.detection import measure

NEEDS_STATMORPH = pytest.mark.skipif(
    importlib.util.find_spec("statmorph") is None, reason="statmorph is not installed: pip install 'galsearch[astro]'"
)
FORM = (*morphology.COLUMNS, "morphology_flag")


def plane(side, *, axis_ratio=1.0, angle=0.0, at=None):
    """Return radius and azimuth of every pixel in the plane of a disk, on pixels divided into 25."""
    center = (side - 1) / 2 if at is None else at
    steps = ((np.arange(5 * side) - 2) / 5)[:, None]
    turn = np.radians(angle)
    y, x = steps - center, steps.T - center
    along, across = x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / axis_ratio
    return np.hypot(along, across), np.arctan2(across, along)


def pixels(fine):
    """Return the mean over each pixel's 25 parts."""
    side = len(fine) // 5
    return fine.reshape(side, 5, side, 5).mean(axis=(1, 3))


def sersic(side, n, radius, **form):
    """Return a Sérsic profile that is 100 at its half-light radius; b(n) solves the incomplete gamma function."""
    from scipy.special import gammaincinv

    r, _ = plane(side, **form)
    return pixels(100 * np.exp(-gammaincinv(2 * n, 0.5) * ((r / radius) ** (1 / n) - 1)))


def noise(side, sigma=1.0, seed=4):
    return np.random.default_rng(seed).normal(scale=sigma, size=(side, side))


def disk_with(pattern, side=160, length=12.0, **form):
    """Return an exponential disk times 1 + pattern(r, azimuth), with noise."""
    r, azimuth = plane(side, **form)
    return pixels(300 * np.exp(-r / length) * (1 + pattern(r, azimuth))) + noise(side)


def spiral(r, azimuth, *, pitch=20.0, arms=2):
    """A logarithmic spiral; for a positive pitch the azimuth of an arm grows outward."""
    wave = np.cos(arms * (azimuth - np.log(np.maximum(r, 1)) / np.tan(np.radians(pitch))))
    return 0.5 * wave * np.exp(-((6 / np.maximum(r, 1)) ** 4) - (r / 40) ** 4)


def bar(r, azimuth):
    """A bar 18 pixels long on each side, along the azimuth of 30 degrees."""
    along, across = r * np.cos(azimuth - np.pi / 6), r * np.sin(azimuth - np.pi / 6)
    return 2.5 * (np.abs(along) < 18) * np.exp(-0.5 * (across / 4) ** 2)


def ring(r, azimuth):
    return 0.6 * np.exp(-0.5 * ((r - 26) / 4) ** 2)


def smooth(r, azimuth):
    return 0 * r


# ---- profiles


@pytest.mark.parametrize("n", [0.5, 1, 2, 4])
@pytest.mark.parametrize("axis_ratio", [1.0, 0.6])
def test_the_sersic_index_of_a_sersic_profile_within_6_percent(n, axis_ratio):
    found = measure(sersic(160, n, 10, axis_ratio=axis_ratio, angle=30) + noise(160))
    assert found["sersic_n"] == pytest.approx(n, rel=0.06)
    assert found["morphology_flag"] == 0


@pytest.mark.parametrize(("n", "low", "high"), [(1, 2.6, 2.85), (4, 4.5, 5.3)])
def test_concentration_of_an_exponential_and_a_de_vaucouleurs_profile(n, low, high):
    """Of all light they are 2.8 and 5.3; within 2.5 Kron radii the second loses wings."""
    assert low < measure(sersic(160, n, 8) + noise(160, 0.1))["concentration"] < high


def test_noise_and_flat_profiles_have_no_sersic_index():
    r = np.arange(30) + 0.5
    assert morphology.sersic_index(r, np.full(30, 5.0), np.full(30, 1.0)) is None
    jumps = np.where(np.arange(30) % 2, 20.0, 100.0)
    assert morphology.sersic_index(r, jumps, np.full(30, 1.0)) is None
    assert morphology.sersic_index(r[:5], np.exp(-r[:5]), np.full(5, 1e-6)) is None


def test_the_petrosian_radius_of_an_exponential_disk():
    """Where exp(-x) = 0.2 * 2 (1 - (1 + x) exp(-x)) / x^2: by bisection of the formula."""
    x = np.linspace(1, 6, 200_001)
    crossing = x[np.argmax(np.exp(-x) < 0.4 * (1 - (1 + x) * np.exp(-x)) / x**2)]
    r, _ = plane(160, axis_ratio=0.6, angle=70)
    found = measure(pixels(300 * np.exp(-r / 8)) + noise(160, 0.3))
    assert found["petrosian_radius_px"] == pytest.approx(8 * crossing, rel=0.03)
    assert found["isophotal_radius_px"] > found["petrosian_radius_px"]


def test_the_radius_of_half_the_light_lies_at_the_outer_edge_of_its_ring():
    """Of a disk of even light, half lies within its radius over the square root of 2; rings are one pixel wide."""
    edge = np.arange(1, 61)
    rings = morphology._Profile(edge - 0.5, np.ones(60), np.full(60, 0.01), np.pi * (edge**2 - (edge - 1) ** 2))
    assert rings.radius_of(0.5, 60) == pytest.approx(60 / np.sqrt(2), abs=0.02)
    assert rings.radius_of(1.0, 30) == 30


def test_light_between_pixels_is_bilinear_up_to_the_last_of_them():
    y, x = np.mgrid[:9, :9].astype(np.float32)
    window = morphology._Window(3 * x + 7 * y, np.ones((9, 9)), (0, 0), (4.0, 4.0))
    at = np.array([0.25, 3.5, 6.9, 7.6, 7.9])
    light, share = morphology._sampled(window, at, at[::-1].copy())
    np.testing.assert_allclose(light, 3 * at + 7 * at[::-1], rtol=1e-5)
    np.testing.assert_allclose(share, 1, rtol=1e-6)


# ---- Gini and M20, against their definitions written out


def test_gini_is_half_the_relative_mean_difference_of_all_pairs():
    light = np.random.default_rng(1).exponential(size=60)
    pairs = np.abs(light[:, None] - light).sum() / (2 * 60 * 59 * light.mean())
    assert morphology.gini(light) == pytest.approx(pairs)
    assert morphology.gini(np.full(9, 3.0)) == pytest.approx(0)
    assert morphology.gini(np.array([0, 0, 0, 7.0])) == pytest.approx(1)
    assert morphology.gini(np.zeros(5)) is None


def test_m20_adds_the_brightest_pixels_until_they_hold_a_fifth():
    light = np.random.default_rng(2).exponential(size=(13, 17)) ** 3
    y, x = np.mgrid[:13, :17]
    values = sorted(zip(light.ravel(), x.ravel(), y.ravel(), strict=True), reverse=True)
    total = light.sum()
    center = ((light * x).sum() / total, (light * y).sum() / total)
    moments, held = [], 0.0
    for value, column, row in values:
        moments.append(value * ((column - center[0]) ** 2 + (row - center[1]) ** 2))
        held += value
        if held >= 0.2 * total:
            break
    whole = (light * ((x - center[0]) ** 2 + (y - center[1]) ** 2)).sum()
    assert morphology.m20(light) == pytest.approx(np.log10(sum(moments) / whole))


def test_m20_of_nothing_and_of_one_pixel_is_none():
    assert morphology.m20(np.zeros((5, 5))) is None
    single = np.zeros((5, 5))
    single[2, 3] = 4
    assert morphology.m20(single) is None


# ---- asymmetry and smoothness


def patch(at, light, sigma=5.0):
    """Return a round patch of so much light on a picture of 160 pixels."""
    y, x = np.mgrid[:160, :160]
    return light * np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / sigma**2) / (2 * np.pi * sigma**2)


def test_asymmetry_is_twice_the_light_that_has_no_opposite():
    disk = disk_with(smooth)
    total = 2 * np.pi * 300 * 12**2
    assert measure(disk)["asymmetry"] == pytest.approx(0, abs=0.02)
    lopsided = measure(disk + patch((105, 79.5), 0.1 * total))
    assert lopsided["companions"] == 0  # it is a part of the disk
    assert lopsided["asymmetry"] == pytest.approx(2 * 0.1 / 1.1, rel=0.15)


def test_a_center_between_pixels_makes_no_asymmetry():
    values = [measure(sersic(120, 1, 9, at=59.5 + shift) + noise(120))["asymmetry"] for shift in (0, 0.23, 0.5, 0.81)]
    np.testing.assert_allclose(values, 0, atol=0.025)


def test_knots_make_a_disk_clumpy():
    generator = np.random.default_rng(7)
    knotted = disk_with(smooth)
    y, x = np.mgrid[:160, :160]
    for at in generator.uniform(50, 110, (40, 2)):
        knotted += 60 * np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / 1.5**2)
    assert measure(knotted)["smoothness"] > measure(disk_with(smooth))["smoothness"] + 0.02


# ---- bar, arms and ring


@pytest.mark.parametrize(("axis_ratio", "angle"), [(1.0, 0), (0.6, 40)])
def test_a_bar_a_spiral_and_a_ring_are_told_apart(axis_ratio, angle):
    found = {
        pattern.__name__: measure(disk_with(pattern, axis_ratio=axis_ratio, angle=angle))
        for pattern in (smooth, bar, spiral, ring)
    }
    for column, name in (("bar_strength", "bar"), ("arm_strength", "spiral"), ("ring_contrast", "ring")):
        others = [found[other][column] for other in found if other != name]
        assert found[name][column] > 1.5 * max(others), column
        assert found[name][column] > found["smooth"][column] + 0.15, column


@pytest.mark.parametrize("pitch", [-25, -15, 15, 25])
def test_the_pitch_of_a_spiral_with_its_sense(pitch):
    found = measure(disk_with(lambda r, azimuth: spiral(r, azimuth, pitch=pitch)))
    assert found["arm_pitch"] == pytest.approx(pitch, rel=0.2)


def test_a_mirror_turns_the_pitch_and_nothing_else():
    picture = disk_with(lambda r, azimuth: spiral(r, azimuth, pitch=18), axis_ratio=0.7, angle=25)
    picture += patch((100, 90), 6000)
    first = measure(picture)
    for changed, sense in ((picture[:, ::-1], -1), (np.rot90(picture), 1), (picture.T, -1)):
        found = measure(changed)
        assert None not in (first["arm_pitch"], found["arm_pitch"])
        for name in (name for name in FORM if first[name] is not None or found[name] is not None):
            expected = first[name] * (sense if name == "arm_pitch" else 1)
            assert found[name] == pytest.approx(expected, rel=0.02, abs=0.005), name


def test_a_turned_galaxy_keeps_its_form():
    values = [measure(disk_with(bar, axis_ratio=0.7, angle=angle)) for angle in (0, 33, 71)]
    for name in ("petrosian_radius_px", "gini", "m20", "sersic_n", "bar_strength"):
        numbers = [found[name] for found in values]
        assert np.ptp(numbers) < 0.06 * abs(np.mean(numbers)), name


@pytest.mark.parametrize("index", [1, 4])
def test_a_smooth_profile_has_no_ring_at_all(index):
    radius = np.linspace(0.5, 60, 96)
    light = 1e4 * np.exp(-5 * (radius / 60) ** (1 / index))
    disk = morphology._Disk(radius, np.repeat(light[:, None], 8, axis=1), 60.0)
    assert morphology._ring(disk) == pytest.approx(0, abs=1e-9)
    light = light * (1 + 0.5 * np.exp(-(((radius - 30) / 4) ** 2)))
    bump = morphology._ring(morphology._Disk(radius, np.repeat(light[:, None], 8, axis=1), 60.0))
    assert 0.9 * np.log(1.5) < bump < np.log(1.5)


def test_an_inclined_disk_has_no_bar_arms_or_ring():
    found = measure(disk_with(spiral, axis_ratio=0.2))
    assert found["morphology_flag"] & morphology.FLAGS["inclined"]
    assert {found[name] for name in morphology.PATTERNS} == {None}
    assert found["gini"] is not None


# ---- colors, companions, flags


def test_a_blue_outskirt_has_a_negative_color_gradient():
    galaxy = disk_with(smooth)
    r = np.hypot(*(np.mgrid[:160, :160] - 79.5))
    blue = galaxy * np.where(r < 20, 0.5, 1.0)
    found = measure(np.stack([galaxy, galaxy, blue], axis=2))["color_gradient"]
    assert found == pytest.approx(-2.5 * np.log10(2), abs=0.1)
    assert measure(galaxy)["color_gradient"] is None


def test_companions_are_near_and_not_faint():
    y, x = np.mgrid[:160, :160]

    def blob(at, peak):
        return peak * np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / 3**2)

    galaxy = sersic(160, 1, 9) + noise(160)
    assert measure(galaxy)["companions"] == 0
    assert measure(galaxy + blob((115, 80), 900))["companions"] == 1
    assert measure(galaxy + blob((115, 80), 900) + blob((80, 48), 900))["companions"] == 2
    assert measure(galaxy + blob((115, 80), 60))["companions"] == 0
    assert measure(galaxy + blob((150, 150), 900))["companions"] == 0


@pytest.mark.parametrize(("down", "right"), [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_a_galaxy_that_reaches_one_side_of_the_picture_is_flagged(down, right):
    whole = sersic(161, 1, 7) + noise(161)
    assert not measure(whole)["morphology_flag"] & morphology.FLAGS["border"]
    sides = {-1: slice(80 - 15, 80 + 35), 0: slice(None), 1: slice(80 - 35, 80 + 15)}
    rows, columns = sides[down], sides[right]
    assert measure(whole[rows, columns])["morphology_flag"] & morphology.FLAGS["border"]


def test_flags_say_what_is_wrong():
    small, wide = sersic(64, 1, 1.6) * 5 + noise(64), sersic(64, 1, 12, axis_ratio=0.3) + noise(64)
    assert measure(small)["morphology_flag"] & morphology.FLAGS["small"]
    assert measure(small)["gini"] is None
    assert measure(wide)["morphology_flag"] & morphology.FLAGS["border"]
    faint = sersic(160, 0.5, 22) * 0.018 + noise(160)
    found = measure(faint)
    assert found["morphology_flag"] & (morphology.FLAGS["faint"] | morphology.FLAGS["unmeasured"])
    assert found["asymmetry"] is None


@pytest.mark.parametrize("picture", [noise(64), np.full((64, 64, 3), np.nan), np.zeros((64, 64), np.uint8)])
def test_noise_and_empty_pictures_have_null_columns_and_a_flag(picture):
    found = measure(picture)
    assert found["morphology_flag"] & ~morphology.FLAGS["blank"] == morphology.FLAGS["unmeasured"]
    assert bool(found["morphology_flag"] & morphology.FLAGS["blank"]) == (np.isnan(picture).mean() > 0.5)
    assert {found[name] for name in morphology.COLUMNS} == {None}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([np.uint8, np.float32]), st.integers(12, 60), st.floats(0.5, 12))
def test_any_blobs_give_finite_numbers_or_none(seed, kind, side, sigma):
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    places = np.vstack([[side / 2, side / 2, 1], generator.uniform(0, [side, side, 3], (3, 3))])
    light = sum(p * 80 * np.exp(-0.5 * ((x - a) ** 2 + (y - b) ** 2) / sigma**2) for a, b, p in places)
    picture = np.clip(light[:, :, None] + generator.normal(8, 4, (side, side, 3)), 0, 255).astype(kind)
    if kind is np.float32 and seed % 3 == 0:
        picture[generator.random((side, side)) < 0.2] = np.nan
    found = measure(picture)
    for name in FORM:
        assert found[name] is None or np.isfinite(found[name]), name


def test_columns_have_the_types_of_the_schema():
    found = measure(disk_with(spiral))
    for name in FORM:
        assert type(found[name]) is {"BIGINT": int, "DOUBLE": float}[GALAXIES[name].type] or found[name] is None, name


# ---- another program


@NEEDS_STATMORPH
@pytest.mark.slow
@pytest.mark.parametrize("pattern", [smooth, spiral, bar])
def test_statmorph_finds_the_same(pattern):
    import statmorph

    picture = disk_with(pattern, axis_ratio=0.8, angle=30)
    r, _ = plane(160, axis_ratio=0.8, angle=30)
    segments = (pixels(r) < 60).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = statmorph.source_morphology(picture, segments, weightmap=np.ones((160, 160)))[0]
        ours = measure(picture)
        assert ours["petrosian_radius_px"] == pytest.approx(theirs.rpetro_ellip, rel=0.05)
        assert ours["asymmetry"] == pytest.approx(theirs.asymmetry, abs=0.03)
        assert ours["smoothness"] == pytest.approx(theirs.smoothness, abs=0.02)
        assert ours["gini"] == pytest.approx(theirs.gini, abs=0.02)
        assert ours["m20"] == pytest.approx(theirs.m20, abs=0.08)
        assert ours["concentration"] == pytest.approx(theirs.concentration, abs=0.25)
        if pattern is not bar:  # theirs is a fit to the pixels, ours to rings, and a bar is no ring
            assert ours["sersic_n"] == pytest.approx(theirs.sersic_n, rel=0.15)


# ---- large cutouts


def enlarged(picture, step):
    """Return a picture in which every pixel is a square of so many."""
    return np.kron(picture, np.ones((step, step) + (1,) * (picture.ndim - 2), picture.dtype))


@pytest.mark.parametrize("pattern", [spiral, bar, smooth])
def test_a_galaxy_drawn_three_times_as_large_has_the_same_form(pattern):
    small = disk_with(pattern, 150, axis_ratio=0.8, angle=20).astype(np.float32)
    small[20:26, 90:110] = np.nan
    one, three = measure(small), measure(enlarged(small, 3))
    grown = dict.fromkeys(("radius_px", "isophotal_radius_px", "petrosian_radius_px"), 3) | {"brightness": 9}
    shifted = {name: 3 * one[name] + 1 for name in ("x_px", "y_px")}
    for name, value in one.items():
        expected = shifted.get(name, value if not isinstance(value, float) else value * grown.get(name, 1))
        assert three[name] == (pytest.approx(expected, rel=1e-3) if isinstance(expected, float) else expected), name


def test_a_small_galaxy_in_a_large_cutout_is_measured_with_all_its_pixels():
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(500, 640)).astype(np.float32)
    middle = pixels(300 * np.exp(-plane(160, axis_ratio=0.5, angle=30)[0] / 4)).astype(np.float32)
    wide[180:340, 262:422] += middle  # 22 and 10 pixels off the middle
    alone, found = measure(wide[180:340, 262:422]), measure(wide)
    assert found["x_px"] == pytest.approx(alone["x_px"] + 262, abs=0.02)
    assert found["y_px"] == pytest.approx(alone["y_px"] + 180, abs=0.02)
    for name in ("radius_px", "axis_ratio", "petrosian_radius_px", "sersic_n", "gini", "concentration", "brightness"):
        assert found[name] == pytest.approx(alone[name], rel=0.03), name
    assert found["is_edge"] is False


def test_a_point_that_an_average_loses_is_found_in_the_middle():
    wide = np.random.default_rng(2).normal(size=(640, 640)).astype(np.float32)
    y, x = np.mgrid[:640, :640]
    wide += 30 * np.exp(-((x - 322) ** 2 + (y - 317) ** 2) / (2 * 1.5**2))
    found = measure(wide)
    assert (found["x_px"], found["y_px"]) == (pytest.approx(322, abs=0.2), pytest.approx(317, abs=0.2))


def test_a_large_galaxy_at_one_side_reaches_the_border_and_not_that_of_its_part():
    wide = np.random.default_rng(3).normal(size=(480, 480)).astype(np.float32)
    y, x = np.mgrid[:480, :480]
    wide += 500 * np.exp(-np.hypot(x - 240, (y - 240) / 3) / 18)
    assert measure(wide)["is_edge"] is True
    wide = wide[:, 60:]
    assert measure(wide)["measure_flag"] == "the source reaches the border, so its size is a lower limit"


# ---- edges of what is measured


@pytest.mark.parametrize("seed", range(12))
def test_m20_counts_of_pixels_as_bright_as_the_last_the_nearest(seed):
    generator = np.random.default_rng(seed)
    light = np.floor(generator.exponential(1.5, (7, 11)))
    y, x = np.mgrid[:7, :11]
    total = light.sum()
    distance = (x - (light * x).sum() / total) ** 2 + (y - (light * y).sum() / total) ** 2
    held, moments = 0.0, 0.0
    for value, far in sorted(zip(light.ravel(), distance.ravel(), strict=True), key=lambda one: (-one[0], one[1])):
        held, moments = held + value, moments + value * far
        if held >= 0.2 * total:
            break
    assert morphology.m20(light) == pytest.approx(np.log10(moments / (light * distance).sum()))


@pytest.mark.parametrize("seed", range(8))
def test_a_window_is_the_picture_around_a_place_and_one_pixel_of_nothing_beyond_it(seed):
    generator = np.random.default_rng(seed)
    height, width = generator.integers((9, 30), (20, 60))[:: (-1) ** seed]
    signal = generator.normal(size=(height, width)).astype(np.float32)
    usable = generator.random((height, width)) < 0.8
    center, half = (generator.uniform(0, width - 1), generator.uniform(0, height - 1)), generator.uniform(2, 90)
    found = morphology._window(signal, usable, center, half)
    x, y, reach = round(center[0]), round(center[1]), int(np.ceil(half))
    left, top = max(x - reach, -1), max(y - reach, -1)
    right, bottom = min(x + reach, width), min(y + reach, height)
    light, good = np.pad(np.where(usable, signal, 0), 1), np.pad(usable, 1)
    part = np.s_[top + 1 : bottom + 2, left + 1 : right + 2]
    np.testing.assert_array_equal(found.light, light[part])
    np.testing.assert_array_equal(found.good, good[part])
    assert found.corner == (left, top)
    assert found.center == pytest.approx((center[0] - left, center[1] - top))
    far = [max(abs(column - x), abs(row - y)) for row in (0, height - 1) for column in (0, width - 1)]
    assert found.half == min(reach, max(far))


@pytest.mark.parametrize("band", [0, -1])
@pytest.mark.parametrize(("sigmas", "is_seen"), [(10.02, True), (9.98, False)])
def test_a_zone_has_a_color_from_ten_sigmas_in_either_band_on(band, sigmas, is_seen):
    zone = np.zeros((6, 7), dtype=bool)
    zone[2:4, 1:4] = True
    noise = np.array([0.7, 1.0, 1.9])
    bands = np.ones((3, 9, 12)) * np.array([40.0, 1.0, 50.0])[:, None, None]
    bands[band] = sigmas * noise[band] * np.sqrt(6) / 6  # in each of 6 pixels
    found = morphology._zone_color(bands, noise, zone, (3, 2))
    truth = -2.5 * np.log10(bands[-1, 0, 0] / bands[0, 0, 0])
    assert found == (pytest.approx(truth) if is_seen else None)


def test_what_differs_in_the_sky_is_measured_from_fifty_pairs_on():
    even = np.zeros((60, 30), np.float32)
    white = 2 / np.sqrt(np.pi)
    for pairs in (49, 50):
        sky = np.zeros(even.shape, dtype=bool)
        sky[0, :30] = sky[10, :24] = True  # 26 and 20 pairs
        sky[20, : pairs - 46 + 4] = True
        assert morphology._sky_difference(even, sky) == pytest.approx(0 if pairs >= 50 else white)
    rng = np.random.default_rng(1)
    loud = rng.normal(scale=3, size=(60, 60)).astype(np.float32)
    assert morphology._sky_difference(loud, np.ones((60, 60), bool)) == pytest.approx(white)  # no more than that


@pytest.mark.parametrize("pixels_of_sky", [49, 50])
def test_clumps_of_the_sky_are_taken_away_as_measured_from_fifty_pixels_on(pixels_of_sky):
    galaxy = np.where(np.hypot(*(np.mgrid[:41, :41] - 20)) < 12, 50, 0).astype(np.float32)
    window = morphology._Window(galaxy, np.ones((41, 41), bool), (0, 0), (20.0, 20.0))
    sky = np.zeros((41, 41), bool)
    sky[0].flat[:25], sky[40].flat[: pixels_of_sky - 25] = True, True
    found = morphology._smoothness(np.zeros_like(galaxy), sky, window, (20.0, 20.0), 12.0)
    lost = 0.0 if pixels_of_sky >= 50 else 1 / np.sqrt(2 * np.pi)  # an even sky has none
    smooth = morphology._above_smooth(galaxy, window.good, 3)
    radius = np.hypot(*(np.mgrid[:41, :41] - 20))
    ring, within = (radius <= 18) & (radius >= 3), radius <= 18
    assert found == pytest.approx((smooth[ring].sum() - ring.sum() * lost) / galaxy[within].sum())
