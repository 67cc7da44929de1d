"""Hashes of pictures and aligned comparison: free of turns, mirroring and stretches, and apart for other galaxies."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_galaxies import galaxy
from scipy.ndimage import gaussian_filter

from galsearch.science import fingerprints
from galsearch.science.fingerprints import SIDE, Judge, Views, Whitening


def batch(*pictures: np.ndarray) -> np.ndarray:
    return np.stack(pictures)


COPIES = {
    "quarter turn": lambda seed: np.rot90(galaxy(seed)),
    "mirrored": lambda seed: galaxy(seed)[:, ::-1],
    "any angle": lambda seed: galaxy(seed, turn=0.7),
    "any angle, mirrored": lambda seed: galaxy(seed, turn=2.0, flip=True),
    "shifted": lambda seed: galaxy(seed, shift=(2.5, -1.5)),
    "stretched": lambda seed: np.rint(255 * (galaxy(seed) / 255.0) ** 0.7).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_has_the_nearest_hash_and_is_judged_one(kind):
    seeds = range(12)
    hashes, copies = (fingerprints.hashes(batch(*map(make, seeds))) for make in (galaxy, COPIES[kind]))
    apart = np.array([fingerprints.hash_distance(hashes, np.broadcast_to(one, hashes.shape)) for one in copies])
    assert apart.argmin(axis=1).tolist() == list(seeds)
    views, turned = (Views.of(batch(*map(make, seeds))) for make in (galaxy, COPIES[kind]))
    assert (Judge().confidence(fingerprints.align(views, turned)) >= Judge().least).all()
    others = fingerprints.align(views, turned.take(np.roll(np.arange(12), 1)))
    assert (Judge().confidence(others) < Judge().least).all()


def test_the_angle_the_mirror_and_the_offset_are_those_that_were_applied():
    angle = 0.7
    still, turned = Views.of(batch(galaxy(3))), Views.of(batch(galaxy(3, turn=angle)))
    result = fingerprints.align(still, turned)
    assert min(result.angle[0] % (2 * np.pi), -result.angle[0] % (2 * np.pi)) == pytest.approx(angle, abs=0.02)
    assert not result.mirrored[0] and result.offset[0] < 0.01
    flipped = fingerprints.align(still, Views.of(batch(galaxy(3, turn=angle, flip=True))))
    assert flipped.mirrored[0]
    shifted = fingerprints.align(still, Views.of(batch(galaxy(3, shift=(3, 4)))))
    assert shifted.offset[0] == pytest.approx(5 / SIDE, abs=0.01)
    both = fingerprints.align(Views.of(batch(galaxy(3, shift=(3, 4)))), Views.of(batch(galaxy(3, turn=1.0))))
    assert both.offset[0] == pytest.approx(5 / SIDE, abs=0.012)


def test_a_neighbor_whose_cutout_overlaps_is_not_the_same():
    """Two cutouts of one field around two sources: the same light, but the middles lie apart."""
    rng = np.random.default_rng(1)
    field = np.zeros((160, 160))
    for _ in range(60):
        y, x = rng.integers(0, 160, 2)
        field[y, x] += rng.uniform(200, 3_000)
    field[80, 80], field[80, 92] = 30_000, 28_000
    field = np.clip(gaussian_filter(field, 2) * 8 + 10, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    first, second = (field[80 - 32 : 80 + 32, at - 32 : at + 32] for at in (80, 92))
    result = fingerprints.align(Views.of(batch(first)), Views.of(batch(second)))
    assert Judge().confidence(result)[0] < Judge().least


def test_a_flat_picture_is_like_nothing():
    flat = np.full((2, SIDE, SIDE, 3), 90, np.uint8)
    assert np.isfinite(fingerprints.hashes(flat)).all()
    result = fingerprints.align(Views.of(flat), Views.of(flat))
    assert np.abs(result.correlations).max() < 1e-3
    assert (Judge().confidence(result) < Judge().least).all()


def test_each_band_counts_and_so_does_the_limit_of_the_offset():
    views = Views.of(batch(galaxy(1)))
    good = fingerprints.align(views, views)
    assert good.correlations[0] == pytest.approx(np.ones(5), abs=0.02)
    assert Judge().confidence(good)[0] > 0.99
    far = fingerprints.Alignment(good.correlations, good.angle, good.mirrored, good.offset + 0.11)
    assert Judge().confidence(far)[0] == 0
    fine = good.correlations.copy()
    fine[:, 1:3] = 0
    coarse = fingerprints.Alignment(fine, good.angle, good.mirrored, good.offset)
    assert Judge().confidence(coarse)[0] < 0.5


def test_a_hash_does_not_depend_on_others_and_pictures_of_another_shape_are_refused():
    pictures = batch(*map(galaxy, range(5)))
    together = fingerprints.hashes(pictures)
    assert together.dtype == np.int8 and together.shape == (5, fingerprints.HASH_BYTES)
    alone = np.concatenate([fingerprints.hashes(pictures[[n]]) for n in range(5)])
    assert np.array_equal(alone, together)
    with pytest.raises(ValueError, match="expected \\(n, 64, 64, 3\\)"):
        fingerprints.hashes(np.zeros((2, 32, 32, 3), np.uint8))


def test_hash_distance_is_the_root_mean_square():
    first, second = np.zeros((1, 72), np.int8), np.full((1, 72), -128, np.int8)
    assert fingerprints.hash_distance(first, second)[0] == 128
    second[0, 1:] = 0
    assert fingerprints.hash_distance(first, second)[0] == pytest.approx(128 / np.sqrt(72))


@pytest.mark.parametrize("count", [1, 3, 500])
def test_whitening_gives_unit_vectors_of_any_sample(count):
    rng = np.random.default_rng(0)
    sample = np.rint(rng.normal(size=(count, 3)) @ rng.normal(size=(3, 72)) * 9).clip(-128, 127).astype(np.int8)
    result = Whitening.fit(sample).of(rng.integers(-50, 50, (7, 72)).astype(np.int8))
    assert result.shape == (7, Whitening.DIM)
    assert np.linalg.norm(result, axis=1) == pytest.approx(np.ones(7), abs=1e-5)
