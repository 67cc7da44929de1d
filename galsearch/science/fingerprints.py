"""Perceptual hashes of galaxy pictures, free of turns and mirroring, and the comparison of two pictures aligned.

A picture is `(64, 64, 3) uint8` (`images.model_input`). Its center is that of the light near the middle, its values are
those above the sky on a square-root scale, so that small shifts and other stretches change little. The hash is what
remains of it in rings around the center when the angle is taken away: the mean of each ring, and the amplitudes of its
first Fourier components. Two pictures are compared by turning, mirroring and shifting one onto the other and
correlating them on several scales, with coefficients that `python -m benchmarks.duplicates` fits on other pictures than
it reports on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special

SIDE = 64  # pixels that a picture is brought to
RINGS, ORDERS = 8, 8  # of the hash: means of rings, and amplitudes of orders 1 to 8 in each
HASH_BYTES = RINGS * (1 + ORDERS)
METHOD = "rings-1"  # changes with anything that changes a hash
STEPS = 100.0  # of a hash in one: values are -1.28 to 1.27
REACH = 26  # radius in pixels of the disk that is compared; that of a quarter turn and of any other is the same
RADII, ANGLES = 24, 128  # samples of the polar picture
DRIFT = 8.0  # pixels that the center of light may lie from the middle, in each direction
SHIFT = 4  # pixels that are tried around the centers of light
MOST_OFFSET = 0.10  # of the side between the middles of two pictures of one object: further off it is a neighbor
TURNS = 3  # best angles that are tried
ALIGNING = (0.8, 3.0)  # standard deviations of the Gaussians whose difference pictures are aligned by
BANDS = ((0.0, 0.8), (0.8, 1.5), (1.5, 3.0), (3.0, 6.0))  # and of those on which they are correlated
MIDDLE = (SIDE - 1) / 2
SMALLEST = 1e-9

_grid = np.arange(SIDE, dtype=np.float32)
_radii = np.linspace(1, REACH, RADII, dtype=np.float32)
_angles = (2 * np.pi * np.arange(ANGLES) / ANGLES).astype(np.float32)
_offsets = np.arange(-REACH, REACH + 1, dtype=np.float32)
_disk = np.hypot(_offsets[:, None], _offsets) <= REACH


@dataclass(frozen=True)
class Views:
    """Pictures as they are compared: `planes` `(n, 64, 64)`, centers `(n, 2)` as y, x, polar spectra for the angle."""

    planes: np.ndarray
    centers: np.ndarray
    aligning: np.ndarray
    spectra: np.ndarray

    @classmethod
    def of(cls, pictures: np.ndarray) -> Views:
        """Return the views of pictures `(n, 64, 64, 3) uint8`; 50 kB each."""
        gray = _gray(pictures)
        centers, planes = _centers(gray), _stretched(gray)
        aligning = _band(planes, ALIGNING)
        whole, fine = (_around(_polar(each, centers)) for each in (planes, aligning))
        spectra = np.fft.rfft(_unit(whole + 2 * fine), axis=2).astype(np.complex64)
        return cls(planes, centers, aligning, spectra)

    def __len__(self) -> int:
        return len(self.planes)

    @classmethod
    def joined(cls, parts: Sequence[Views]) -> Views:
        """Return several as one."""
        names = ("planes", "centers", "aligning", "spectra")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, at: np.ndarray) -> Views:
        """Return some of them."""
        return Views(self.planes[at], self.centers[at], self.aligning[at], self.spectra[at])


@dataclass(frozen=True)
class Alignment:
    """How pairs of pictures fit when the second is turned by `angle` (radians), mirrored or not, and shifted.

    `correlations` `(n, 5)` are those of the whole disk and of each of BANDS, `offset` `(n,)` the distance between the
    middles of the two as a share of the side.
    """

    correlations: np.ndarray
    angle: np.ndarray
    mirrored: np.ndarray
    offset: np.ndarray


# ---- what all of it looks at


def _gray(pictures: np.ndarray) -> np.ndarray:
    if pictures.ndim != 4 or pictures.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(f"pictures have the shape {pictures.shape}, expected (n, {SIDE}, {SIDE}, 3)")
    return pictures.astype(np.float32).mean(axis=3)


def _centers(gray: np.ndarray) -> np.ndarray:
    """Return the center of light near the middle of each, `(n, 2)` as y, x, in pixels from 0."""
    smooth = ndimage.gaussian_filter(gray, (0, 1.5, 1.5))
    apart = np.hypot(_grid[:, None] - MIDDLE, _grid - MIDDLE)
    sky = np.median(smooth[:, (apart > 24) & (apart < SIDE / 2)], axis=1)
    light = np.clip(smooth - sky[:, None, None], 0, None)
    centers = np.full((len(gray), 2), MIDDLE, np.float32)
    for width in (10, 10, 10, 6, 6, 6, 6, 6):  # a wide window first, so that a shift of some pixels is followed
        near = [np.exp(-((_grid - centers[:, [axis]]) ** 2) / (2 * width**2)) for axis in (0, 1)]
        rows = np.einsum("nyx,nx->ny", light, near[1]) * near[0]
        columns = np.einsum("nyx,ny->nx", light, near[0]) * near[1]
        total = rows.sum(axis=1) + SMALLEST
        moved = np.stack([rows @ _grid, columns @ _grid], axis=1) / total[:, None]
        centers = np.where(total[:, None] > 1e-3, moved, MIDDLE).astype(np.float32)
    return np.clip(centers, MIDDLE - DRIFT, MIDDLE + DRIFT).astype(np.float32)


def _stretched(gray: np.ndarray) -> np.ndarray:
    """Return values above the sky on a square-root scale, 1 for the brightest pixels; nearly free of the stretch."""
    smooth = ndimage.gaussian_filter(gray, (0, 0.7, 0.7))
    sky = np.median(smooth, axis=(1, 2), keepdims=True)
    top = np.quantile(smooth, 0.995, axis=(1, 2), keepdims=True)
    above = np.clip((smooth - sky) / np.maximum(top - sky, 1), -0.2, 1.2)
    return (np.sign(above) * np.sqrt(np.abs(above))).astype(np.float32)


def _band(planes: np.ndarray, widths: tuple[float, float]) -> np.ndarray:
    """Return the difference of two Gaussian filters."""
    fine, coarse = (planes if not s else ndimage.gaussian_filter(planes, (0, s, s)) for s in widths)
    return fine - coarse


def _sampled(planes: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return values at positions `(n, …)` by bilinear interpolation; beyond the edge that of the edge."""
    y, x = (np.clip(each, 0, SIDE - 1.001) for each in (y, x))
    row, column = y.astype(np.intp), x.astype(np.intp)
    down, right = (y - row).astype(np.float32), (x - column).astype(np.float32)
    first = (np.arange(len(planes)) * SIDE * SIDE).reshape(-1, *[1] * (y.ndim - 1)) + row * SIDE + column
    flat = planes.reshape(-1)
    upper = flat[first] + right * (flat[first + 1] - flat[first])
    lower = flat[first + SIDE] + right * (flat[first + SIDE + 1] - flat[first + SIDE])
    return upper + down * (lower - upper)


def _polar(planes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return `(n, radii, angles)` around the centers."""
    y = centers[:, 0, None, None] + _radii[:, None] * np.sin(_angles)
    x = centers[:, 1, None, None] + _radii[:, None] * np.cos(_angles)
    return _sampled(planes, y, x)


def _around(polar: np.ndarray) -> np.ndarray:
    """Return what varies with the angle, weighed by the area of each ring, at unit length."""
    return _unit((polar - polar.mean(axis=2, keepdims=True)) * np.sqrt(_radii)[:, None])


def _unit(values: np.ndarray) -> np.ndarray:
    return values / (np.sqrt((values**2).sum(axis=(1, 2), keepdims=True)) + SMALLEST)


# ---- the hash


def hashes(pictures: np.ndarray) -> np.ndarray:
    """Return the hash of each of `(n, 64, 64, 3) uint8` pictures, `(n, 72) int8`: 8 ring means, 8 × 8 amplitudes.

    A ring mean is less the mean of the means; an amplitude is the square root of that of the ring's Fourier component.
    Turning and mirroring leave both as they are.
    """
    gray = _gray(pictures)
    planes = ndimage.gaussian_filter(_stretched(gray), (0, 1, 1))
    waves = np.fft.rfft(_polar(planes, _centers(gray)), axis=2)[:, :, : ORDERS + 1] / ANGLES
    weight = _radii.reshape(RINGS, -1)
    rings = (waves.reshape(len(gray), RINGS, -1, ORDERS + 1) * weight[:, :, None]).sum(axis=2)
    rings /= weight.sum(axis=1)[:, None]
    means = rings[:, :, 0].real
    means = means - means.mean(axis=1, keepdims=True)
    values = np.concatenate([means, np.sqrt(np.abs(rings[:, :, 1:])).reshape(len(gray), -1)], axis=1)
    return np.rint(np.clip(values * STEPS, -128, 127)).astype(np.int8)


def hash_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the root mean square difference of hashes `(n, 72)`, in steps of a hash, `(n,) float64`."""
    return np.sqrt(((first.astype(np.float64) - second.astype(np.float64)) ** 2).mean(axis=1))


@dataclass(frozen=True)
class Whitening:
    """Brings hashes to unit vectors in which chance likeness is low: principal components by the root of their spread.

    Fitted on hashes of the atlas at hand, with the mean of all variances as a prior worth PRIOR of them.
    """

    mean: np.ndarray
    components: np.ndarray

    PRIOR = 100
    DIM = 48

    @classmethod
    def fit(cls, sample: np.ndarray) -> Whitening:
        """Learn from hashes `(n, 72)`, one or more."""
        values = sample.astype(np.float64)
        mean = values.mean(axis=0)
        scatter = (values - mean).T @ (values - mean)
        prior = max(np.trace(scatter) / max(len(values), 1) / HASH_BYTES, 1.0)
        spread, axes = np.linalg.eigh((scatter + cls.PRIOR * prior * np.eye(HASH_BYTES)) / (len(values) + cls.PRIOR))
        kept = slice(-1, -cls.DIM - 1, -1)
        return cls(mean.astype(np.float32), (axes[:, kept] / spread[kept] ** 0.25).astype(np.float32))

    def of(self, values: np.ndarray) -> np.ndarray:
        """Return unit vectors `(n, 48) float32` of hashes."""
        out = (values.astype(np.float32) - self.mean) @ self.components
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), SMALLEST)


# ---- comparing two


def align(first: Views, second: Views) -> Alignment:
    """Return how well pairs fit, the second turned, mirrored and shifted onto the first; about 3 ms a pair."""
    angles, mirrored = _turns(first.spectra, second.spectra)
    still = np.zeros(len(first), np.float32)
    steady = _turned(first.aligning, first.centers, still, still > 0, np.zeros((len(first), 2), np.float32))
    best = np.full(len(first), -np.inf)
    kept = [np.zeros(len(first), np.float32), np.zeros(len(first), bool), np.zeros((len(first), 2), np.float32)]
    for turn in range(angles.shape[1]):
        angle, mirror = angles[:, turn], mirrored[:, turn]
        shift = _shift(steady, _turned(second.aligning, second.centers, angle, mirror, np.zeros_like(kept[2])))
        score = _correlation(steady, _turned(second.aligning, second.centers, angle, mirror, shift))
        better = score > best
        best[better] = score[better]
        for held, new in zip(kept, (angle, mirror, shift), strict=True):
            held[better] = new[better]
    return Alignment(_correlations(first, second, *kept), kept[0], kept[1], _offset(first, second, *kept))


def _turns(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the TURNS angles `(n, t)` at which rings fit best, and whether mirrored."""
    both = np.stack([(first.conj() * second).sum(axis=1), (first * second).sum(axis=1)], axis=1)
    fit = np.fft.irfft(both, n=ANGLES, axis=2)
    before, after = np.roll(fit, 1, axis=2), np.roll(fit, -1, axis=2)
    peak = np.where((fit >= before) & (fit > after), fit, -np.inf).reshape(len(fit), -1)
    top = np.argsort(-peak, axis=1, kind="stable")[:, :TURNS]
    low, here, high = (np.take_along_axis(each.reshape(len(fit), -1), top, axis=1) for each in (before, fit, after))
    return (2 * np.pi * (top % ANGLES + _vertex(low, here, high)) / ANGLES).astype(np.float32), top >= ANGLES


def _vertex(low: np.ndarray, here: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return where between -0.5 and 0.5 a parabola through three values has its top."""
    bend = low - 2 * here + high
    return np.where(bend < 0, np.clip(0.5 * (low - high) / np.where(bend < 0, bend, 1), -0.5, 0.5), 0)


def _turned(
    planes: np.ndarray, centers: np.ndarray, angle: np.ndarray, mirror: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Return the disk around each center `(n, 53, 53)`, turned, mirrored and shifted."""
    y = np.where(mirror, -1, 1)[:, None, None] * (_offsets[:, None] + shift[:, 0, None, None])
    x = _offsets + shift[:, 1, None, None]
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return _sampled(
        planes, centers[:, 0, None, None] + x * sine + y * cosine, centers[:, 1, None, None] + x * cosine - y * sine
    )


def _centered(disks: np.ndarray) -> np.ndarray:
    """Return the values in the disk less their mean, 0 outside."""
    return np.where(_disk, disks - disks[:, _disk].mean(axis=1)[:, None, None], 0)


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation of pairs of disks, `(n,)`; 0 where one of them is flat."""
    first, second = _centered(first), _centered(second)
    size = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return (first * second).sum(axis=(1, 2)) / (size + SMALLEST)


def _shift(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return by how many pixels `(n, 2)` the second is sampled further on to fit the first best."""
    size = 2 * REACH + 1 + SHIFT + 3
    one, other = (np.fft.rfft2(_centered(each), (size, size)) for each in (first, second))
    fit = np.fft.irfft2(one.conj() * other, (size, size))
    wanted = np.arange(-SHIFT - 1, SHIFT + 2)
    window = fit[:, wanted[:, None], wanted]
    inner = window[:, 1:-1, 1:-1].reshape(len(fit), -1)
    row, column = np.unravel_index(inner.argmax(axis=1), (2 * SHIFT + 1, 2 * SHIFT + 1))
    n, row, column = np.arange(len(fit)), row + 1, column + 1
    here = window[n, row, column]
    along = _vertex(window[n, row - 1, column], here, window[n, row + 1, column])
    across = _vertex(window[n, row, column - 1], here, window[n, row, column + 1])
    return np.stack([wanted[row] + along, wanted[column] + across], axis=1).astype(np.float32)


def _correlations(first: Views, second: Views, angle: np.ndarray, mirror: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the correlations of the aligned pairs, of the whole and by band, `(n, 5)`."""
    nothing = np.zeros(len(first), np.float32)
    one = _turned(first.planes, first.centers, nothing, nothing > 0, np.zeros_like(shift))
    other = _turned(second.planes, second.centers, angle, mirror, shift)
    bands = (_correlation(_band(one, widths), _band(other, widths)) for widths in BANDS)
    return np.stack([_correlation(one, other), *bands], axis=1)


def _offset(first: Views, second: Views, angle: np.ndarray, mirror: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return how far the middle of the second lies from that of the first, as a share of the side."""
    apart = MIDDLE - second.centers  # from its center of light to its middle, then turned back into the first
    cosine, sine = np.cos(angle), np.sin(angle)
    y = np.where(mirror, -1, 1) * (cosine * apart[:, 0] - sine * apart[:, 1]) - shift[:, 0]
    x = sine * apart[:, 0] + cosine * apart[:, 1] - shift[:, 1]
    middle = np.stack([y, x], axis=1) - (MIDDLE - first.centers)
    return np.hypot(*middle.T) / SIDE


@dataclass(frozen=True)
class Judge:
    """Says how likely an alignment is one of two pictures of one object: logistic regression on Fisher's z.

    `weights` are those of the whole disk and of each of BANDS; both are fitted by `python -m benchmarks.duplicates` to
    pairs of which about a sixth are one object and the others each other's nearest, so that the probability is that
    among such. `least` is the probability from which on two are taken for one.
    """

    weights: tuple[float, ...] = (-8.890, 13.101, 8.732, -1.968, 11.691)
    intercept: float = -13.624
    least: float = 0.7

    def confidence(self, alignment: Alignment) -> np.ndarray:
        """Return the probability of each pair, `(n,) float64`; 0 where the middles lie too far apart."""
        z = np.arctanh(np.clip(alignment.correlations, -0.5, 0.995))
        chance = special.expit(z @ np.array(self.weights) + self.intercept)
        return np.where(alignment.offset <= MOST_OFFSET, chance, 0.0)
