"""Image quality of pictures: each fault moves the measure that is about it, and a galaxy moves none."""

from __future__ import annotations

import numpy as np
import pytest

from galsearch.science import quality

SIDE = 96


def galaxy(*, seed: int = 0, brightness: float = 120) -> np.ndarray:
    """Return a smooth galaxy on noisy sky, `(96, 96, 3) float64`."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    light = brightness * np.exp(-np.hypot(x, 1.5 * y) / 10)
    noise = np.random.default_rng(seed).normal(scale=3, size=(SIDE, SIDE, 3))
    return light[..., None] * np.array([1.0, 0.9, 0.7]) + 12 + noise


def measured(pixels: np.ndarray) -> dict[str, float]:
    picture = np.clip(pixels, 0, 255).astype(np.uint8)
    return dict(zip(quality.MEASURES, quality.measure(picture).tolist(), strict=True))


def with_dead_columns(pixels: np.ndarray) -> np.ndarray:
    pixels[:, 20:30] = 0
    return pixels


def with_the_edge_of_an_exposure(pixels: np.ndarray) -> np.ndarray:
    pixels[:, :40] = 0
    return pixels


def with_cosmic_rays(pixels: np.ndarray) -> np.ndarray:
    at = np.random.default_rng(3).integers(2, SIDE - 2, (40, 2))
    pixels[at[:, 0], at[:, 1]] = 255
    return pixels


def with_a_bad_row(pixels: np.ndarray) -> np.ndarray:
    pixels[70] += 60
    return pixels


def with_shifted_bands(pixels: np.ndarray) -> np.ndarray:
    pixels[..., 0] = np.roll(pixels[..., 0], 10, axis=0)
    return pixels


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (with_dead_columns, ["empty_share", "column_step"]),
        (with_the_edge_of_an_exposure, ["empty_share", "border_step"]),
        (with_cosmic_rays, ["spike", "many_spikes"]),
        (with_a_bad_row, ["row_step"]),
        (with_shifted_bands, ["band_mismatch"]),
    ],
)
def test_a_fault_moves_the_measures_that_are_about_it_beyond_those_of_thirty_galaxies(fault, names):
    ordinary = [measured(galaxy(seed=seed, brightness=60 + 5 * seed)) for seed in range(30)]
    odd = measured(fault(galaxy(seed=99)))
    for name in names:
        assert odd[name] > max(one[name] for one in ordinary), name


def test_a_picture_in_one_color_and_a_tiny_one_have_no_measure_of_bands_and_none_at_all():
    flat = quality.measure(np.zeros((SIDE, SIDE, 3), np.uint8))
    assert np.isnan(flat[-2:]).all() and np.isfinite(flat[:-2]).all() and flat[0] == 1
    assert np.isnan(quality.measure(np.zeros((7, 20, 3), np.uint8))).all()


def test_empty_share_and_band_mismatch_are_those_of_numpy():
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    result = dict(zip(quality.MEASURES, quality.measure(pixels).tolist(), strict=True))
    assert result["empty_share"] == np.mean((pixels <= 2).all(axis=2))
    bands = pixels.reshape(-1, 3).T.astype(float)
    least = min(np.corrcoef(bands[i], bands[j])[0, 1] for i, j in ((0, 1), (0, 2), (1, 2)))
    assert result["band_mismatch"] == pytest.approx(1 - least)
