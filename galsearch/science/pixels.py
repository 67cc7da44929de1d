"""Sums over the pixels of a galaxy that measuring it repeats: in C, or with numpy where it was not compiled.

The C functions (pixels.c) are compiled when galsearch is installed and called without Python's lock. Each has its numpy
form beside it here, `_..._numpy`, with the same arithmetic: both agree within rounding, and tests compare them. Planes
are (h, w), light is float32, sums are float64.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from galsearch.compiled import SUFFIX, Int, Pointer, load

VERSION = 1  # of what pixels.c offers; a library that was compiled from another is not used
NAME = f"_pixels{SUFFIX}"
FINE = -1
NEIGHBORS = ((-1, 0), (1, 0), (0, -1), (0, 1))

_ARGUMENTS = {
    "rings": (Pointer, Pointer, Pointer, Int, Pointer, Int),
    "light_radii": (*[Pointer] * 3, Int, Int, *[Pointer] * 4, Int, Pointer, Int, Pointer),
    "asymmetry": (Pointer, Pointer, Int, Pointer, Int, Int, Pointer, ctypes.c_double, Pointer),
    "blur": (Pointer, Int, Int, Pointer, Int, Pointer, Pointer),
    "box": (Pointer, Int, Int, Int, Pointer, Pointer),
    "sampled": (Pointer, Pointer, Int, Int, Pointer, Pointer, Int, Pointer, Pointer),
    "sersic": (Pointer, Pointer, Pointer, Int, Pointer, Int, Pointer, Int, Pointer, Pointer),
}


def _load(path: Path) -> ctypes.CDLL | None:
    functions = {f"galsearch_{name}": arguments for name, arguments in _ARGUMENTS.items()}
    return load(path, VERSION, functions, version_function="galsearch_pixels_version")


LIBRARY = _load(Path(__file__).with_name(NAME))


def _do(name: str, *arguments: object) -> None:
    """Call a compiled function with numbers and contiguous arrays, which live until it returns."""
    plain = (one.ctypes.data if isinstance(one, np.ndarray) else one for one in arguments)
    if getattr(LIBRARY, f"galsearch_{name}")(*plain) != FINE:
        raise ValueError(
            f"{name}: sizes that do not fit one another: {[getattr(one, 'shape', one) for one in arguments]}"
        )


def _contiguous(array: np.ndarray, kind: type) -> np.ndarray:
    return np.ascontiguousarray(array, kind)


# ---- sums of rings


def rings(radius: np.ndarray, light: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Return the pixels, light, its square and the radii (4, k), each added up over rings one pixel wide.

    `radius` (h, w) is at least 0. Only pixels that are `good`, bool, count.
    """
    if LIBRARY is None:
        return _rings_numpy(radius, light, good)
    if not radius.shape == light.shape == good.shape:
        raise ValueError(f"radii {radius.shape}, light {light.shape} and pixels {good.shape} differ in shape")
    sums = np.zeros((4, int(radius.max(initial=0)) + 1))
    planes = _contiguous(radius, np.float64), _contiguous(light, np.float32), _contiguous(good, np.bool_)
    _do("rings", *planes, light.size, sums, sums.shape[1])
    return sums


def _rings_numpy(radius: np.ndarray, light: np.ndarray, good: np.ndarray) -> np.ndarray:
    count = int(radius.max(initial=0)) + 1
    radius, light = radius[good].astype(np.float64), light[good].astype(np.float64)
    ring = radius.astype(np.intp)
    return np.stack([np.bincount(ring, one, count) for one in (None, light, light * light, radius)]).astype(np.float64)


# ---- radii of parts of the light


def light_radii(
    light: np.ndarray,
    mask: np.ndarray,
    segments: np.ndarray,
    ids: np.ndarray,
    *,
    center: tuple[np.ndarray, np.ndarray],
    reach: np.ndarray,
    parts: np.ndarray,
) -> np.ndarray:
    """Return the radii (n, p) of circles that have so much light, `parts` (n, p), of the segments numbered `ids` (n,).

    Circles are looked at out to `reach` (n,), 0.01 pixels at least, around a `center` (x, y). A pixel is 5 x 5 points.
    Those of pixels that are masked, or of another segment, have the mean of the others in their ring, of which there
    are 64. This has no numpy form: where nothing was compiled `sep.flux_radius` gives the same.
    """
    if not light.shape == mask.shape == segments.shape:
        raise ValueError(f"light {light.shape}, mask {mask.shape} and segments {segments.shape} differ in shape")
    if parts.shape[:1] != ids.shape:
        raise ValueError(f"parts of the light {parts.shape} of {len(ids)} segments; give one row for each")
    x, y, reach = (_contiguous(np.broadcast_to(one, ids.shape), np.float64) for one in (*center, reach))
    planes = _contiguous(light, np.float32), _contiguous(mask, np.bool_), _contiguous(segments, np.int32)
    ids, parts = _contiguous(ids, np.int32), _contiguous(parts, np.float64)
    radii = np.empty((len(ids), parts.shape[1]))
    _do("light_radii", *planes, *light.shape, x, y, reach, ids, len(ids), parts, parts.shape[1], radii)
    return radii


# ---- asymmetry


@dataclass(frozen=True)
class Turned:
    """Light around a center, wide enough to be turned by 180 degrees about any center within `margin` pixels of it.

    `light` and `good`, 1 where usable, are squares of an odd side, and `aperture` is a smaller one that is 1 for pixels
    that count; all are float32, 0 else. `at` is the center (x, y) in pixels from the middle of `light`, at most half a
    pixel, and `sky` the mean difference of two pixels of sky.
    """

    light: np.ndarray
    good: np.ndarray
    aperture: np.ndarray
    at: tuple[float, float]
    margin: int
    sky: float

    def __post_init__(self) -> None:
        half, reach = len(self.light) // 2, len(self.aperture) // 2
        sides = [(self.light, half), (self.good, half), (self.aperture, reach)]
        if any(plane.shape != (2 * side + 1,) * 2 or plane.dtype != np.float32 for plane, side in sides):
            raise ValueError(
                f"light {self.light.shape} and aperture {self.aperture.shape} must be odd squares, float32"
            )
        if half - reach < 2 * self.margin + 2 or self.margin < 1 or max(map(abs, self.at)) > 0.5:
            raise ValueError(f"{half - reach} pixels beside the aperture are too few for centers {self.margin} away")

    def asymmetry(self, shift: tuple[float, float]) -> float:
        """Return the asymmetry about `at` + `shift` (x, y); infinite where no pair of pixels is usable."""
        half, reach = len(self.light) // 2, len(self.aperture) // 2
        here = slice(half - reach, half + reach + 1)
        opposite, weight, squares = np.zeros(self.aperture.shape, np.float32), self.aperture, 0.0
        for share, y, x in self._corners(shift):
            there = tuple(slice(half + at + reach, half + at - reach - 1, -1) for at in (y, x))
            opposite += self.light[there] * np.float32(share)
            weight = weight * self.good[there]
            squares += share * share
        light = self.light[here, here]
        total = (np.abs(light) * weight).sum(dtype=np.float64)
        if not total > 0:
            return float("inf")
        difference = (np.abs(light - opposite) * weight).sum(dtype=np.float64)
        noise = weight.sum(dtype=np.float64) * self.sky * math.sqrt((1 + squares) / 2)
        return float((difference - noise) / total)

    def _corners(self, shift: tuple[float, float]) -> Iterator[tuple[float, int, int]]:
        """Yield the weight and place (y, x) of the pixels that bilinear interpolation puts opposite the middle one."""
        x, y = (2 * (at + moved) for at, moved in zip(self.at, shift, strict=True))
        for row, part_y in ((math.floor(y), 1 - y % 1), (math.floor(y) + 1, y % 1)):
            for column, part_x in ((math.floor(x), 1 - x % 1), (math.floor(x) + 1, x % 1)):
                if part_x * part_y > 0:
                    yield part_x * part_y, row, column


def least_asymmetry(turned: Turned) -> tuple[float, tuple[float, float]]:
    """Return the least asymmetry that is met on the way downhill from the center, and the shift (x, y) that has it.

    Steps go from 1 down to 1/8 pixel, no farther than a pixel less than the margin.
    """
    if LIBRARY is None:
        return _least_asymmetry_numpy(turned)
    light, good, aperture = (_contiguous(one, np.float32) for one in (turned.light, turned.good, turned.aperture))
    at, out = np.array(turned.at), np.empty(3)
    half, reach = len(turned.light) // 2, len(turned.aperture) // 2
    _do("asymmetry", light, good, half, aperture, reach, turned.margin, at, turned.sky, out)
    return float(out[0]), (float(out[1]), float(out[2]))


def _least_asymmetry_numpy(turned: Turned) -> tuple[float, tuple[float, float]]:
    best = (0.0, 0.0)
    known = {best: turned.asymmetry(best)}
    for step in (1.0, 0.5, 0.25, 0.125):
        center = None
        while center != best and max(map(abs, best)) < turned.margin - 1:
            center = best
            for i, j in NEIGHBORS:
                point = (center[0] + step * i, center[1] + step * j)
                if point not in known:
                    known[point] = turned.asymmetry(point)
                best = min(best, point, key=known.__getitem__)
    return known[best], best


# ---- blur


def blurred(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Return a plane blurred by a Gaussian of so many pixels that ends at three of them; beyond the plane is 0."""
    if LIBRARY is None:
        return _blurred_numpy(plane, sigma)
    radius = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(radius + 1) ** 2)
    weights /= 2 * weights[1:].sum() + weights[0]
    plane = _contiguous(plane, np.float32)
    out, scratch = np.empty_like(plane), np.empty(2 * (plane.shape[1] + radius))
    _do("blur", plane, *plane.shape, weights, radius, scratch, out)
    return out


def _blurred_numpy(plane: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(plane.astype(np.float32, copy=False), sigma, mode="constant", truncate=3)


def boxed(plane: np.ndarray, size: int) -> np.ndarray:
    """Return the means of squares of `size` pixels around each pixel of a plane; beyond the plane is 0.

    A square of even size has one more pixel before its pixel than behind it.
    """
    if LIBRARY is None:
        return _boxed_numpy(plane, size)
    plane = _contiguous(plane, np.float32)
    out, scratch = np.empty_like(plane), np.empty(2 * plane.shape[1] + size)
    _do("box", plane, *plane.shape, size, scratch, out)
    return out


def _boxed_numpy(plane: np.ndarray, size: int) -> np.ndarray:
    from scipy.ndimage import uniform_filter

    return uniform_filter(plane.astype(np.float32, copy=False), size, mode="constant")


# ---- light between pixels


def sampled(light: np.ndarray, good: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bilinear light at positions of a plane, and the usable share of the pixels it came from.

    `good` is bool; what is not usable must be 0 in `light`. Positions beyond the pixels are moved in.
    """
    if LIBRARY is None or min(light.shape) < 2:
        return _sampled_numpy(light, good, x, y)
    if light.shape != good.shape or x.shape != y.shape:
        raise ValueError(f"light {light.shape} and pixels {good.shape}, or x {x.shape} and y {y.shape} differ in shape")
    planes = _contiguous(light, np.float32), _contiguous(good, np.bool_)
    x, y = _contiguous(x, np.float64), _contiguous(y, np.float64)
    out, share = np.empty(x.shape), np.empty(x.shape)
    _do("sampled", *planes, *light.shape, x, y, x.size, out, share)
    return out, share


def _sampled_numpy(light: np.ndarray, good: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = light.shape
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    column, row = x.astype(np.intp), y.astype(np.intp)
    fx, fy = x - column, y - row
    first = row * width + column
    value, share = np.zeros_like(fx), np.zeros_like(fx)
    for step, part in ((0, (1 - fx) * (1 - fy)), (1, fx * (1 - fy)), (width, (1 - fx) * fy), (width + 1, fx * fy)):
        value = value + part * light.ravel()[first + step]
        share = share + part * good.ravel()[first + step]
    return value / np.maximum(share, 1e-6), share


# ---- Sérsic profiles


def sersic_misfit(
    log_r: np.ndarray, light: np.ndarray, weight: np.ndarray, indices: np.ndarray, log_radii: np.ndarray
) -> np.ndarray:
    """Return chi squared (n, s) of Sérsic profiles with indices (n,) and the logarithms of half-light radii (s,).

    `light` of rings has its `weight`, one over its variance. Amplitude and a constant sky are the best for each,
    infinite chi squared where the amplitude is not positive.
    """
    if LIBRARY is None:
        return _sersic_misfit_numpy(log_r, light, weight, indices, log_radii)
    if not len(log_r) == len(light) == len(weight):
        raise ValueError(f"{len(log_r)} radii, {len(light)} values of light and {len(weight)} weights differ in number")
    log_r, light, weight, indices, log_radii = (
        _contiguous(one, np.float64) for one in (log_r, light, weight, indices, log_radii)
    )
    chi = np.empty((len(indices), len(log_radii)))
    scratch = np.empty(2 * len(log_r))
    _do("sersic", log_r, light, weight, len(log_r), indices, len(indices), log_radii, len(log_radii), scratch, chi)
    return chi


def _sersic_misfit_numpy(
    log_r: np.ndarray, light: np.ndarray, weight: np.ndarray, indices: np.ndarray, log_radii: np.ndarray
) -> np.ndarray:
    amplitude, sky, shape = sersic_fit(log_r, light, weight, indices[:, None], log_radii)
    rest = light - amplitude[..., None] * shape - sky[..., None]
    return np.where(amplitude > 0, (rest * rest) @ weight, np.inf)


def sersic_fit(
    log_r: np.ndarray, light: np.ndarray, weight: np.ndarray, index: npt.ArrayLike, log_radius: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the amplitudes and skies (…) that fit light best, and the shapes (…, r) of profiles that are 1 at their
    half-light radius. An amplitude that is not positive is 0.

    b(n) is that of Ciotti and Bertin 1999 (A&A 352, 447), eq. 18.
    """
    n, size = np.asarray(index)[..., None], np.asarray(log_radius)[..., None]
    b = 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n * n)
    shape = np.exp(b - b * np.exp(-size / n) * np.exp(log_r / n))
    s, sf, sff = weight.sum(), shape @ weight, (shape * shape) @ weight
    sy, sfy = (weight * light).sum(), shape @ (weight * light)
    det = sff * s - sf * sf
    det = np.where(det > 1e-9 * sff * s, det, np.inf)
    slope = sfy * s - sf * sy
    slope = np.where(
        slope > 1e-12 * np.abs(sfy) * s, slope, 0
    )  # even light is matched by the sky alone, but for rounding
    return slope / det, (sff * sy - sf * sfy) / det, shape


# ---- percentiles


def percentiles(values: np.ndarray, parts: tuple[float, ...]) -> np.ndarray:
    """Return percentiles (p, ...) of the last axis, as np.percentile has them, which takes longer."""
    values = np.sort(values, axis=-1)
    at = np.array(parts) / 100 * (values.shape[-1] - 1)
    before = at.astype(np.intp)
    low, high = values[..., before], values[..., np.minimum(before + 1, values.shape[-1] - 1)]
    return np.moveaxis(low + (high - low) * (at - before), -1, 0)
