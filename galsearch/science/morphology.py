"""Measures the form of one galaxy: how its light is spread, how lopsided and clumpy it is, its bar, arms and ring.

The module hides the recipes of non-parametric morphology and of Fourier analysis in the plane of a disk.
`morphology` finds the source and takes the sky away; what comes here is light in sigmas of the noise, `signal`
(h, w) float32, and the map of all sources, `segments` (h, w), 0 for sky. Every quantity is the column of the same
name in `schema.GALAXIES`. What cannot be measured is None, and `morphology_flag`, a sum of the `FLAGS`, says why.

Positions count from (0, 0), the center of the first pixel; angles from +x to +y. Everything is measured on the
pixels as they are: blur, and in a JPEG the stretch, are not undone, so that numbers from different cameras rank
galaxies of one camera only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from galsearch.science import pixels

FLAGS = {
    "unmeasured": 1,  # no source in the center, or no picture to look for one in: every column is NULL
    "border": 2,  # the source reaches the border: sizes are lower limits, the rest is of what is seen
    "small": 4,  # too few pixels across: whatever needs structure is NULL
    "faint": 8,  # less than 2.5 sigma a pixel: what noise imitates is NULL
    "inclined": 16,  # too far from face-on to see a disk's plane: bar, arms and ring are NULL
    "crowded": 32,  # neighbors or missing pixels cover a tenth of the aperture or more
    "no_petrosian": 64,  # the profile never falls to a fifth of its mean: columns tied to that radius are NULL
    "no_sersic": 128,  # no Sérsic profile fits
    "blank": 256,  # a quarter of the frame or more has no data: masked, or exactly 0 where a survey or a chip ends
}
COLUMNS = (
    "isophotal_radius_px",
    "petrosian_radius_px",
    "asymmetry",
    "smoothness",
    "gini",
    "m20",
    "sersic_n",
    "color_gradient",
    "bar_strength",
    "arm_strength",
    "arm_pitch",
    "ring_contrast",
    "companions",
)
ETA = 0.2  # local over mean surface brightness at the Petrosian radius
CAS_EXTENT = 1.5  # Petrosian radii within which asymmetry and smoothness are measured (Conselice 2003)
SMOOTHED = 0.25  # Petrosian radii: side of the box that smooths, and radius of the core left out
GINI_BLUR = 0.2  # Petrosian radii: sigma of the blur that draws the outline for Gini and M20 (Lotz et al. 2004)
FAINTEST = 2.5  # sigmas a pixel (Lotz et al. 2006, ApJ 636, 592)
SMALLEST = 5.0  # pixels of Petrosian radius
THICKNESS = 0.2  # axis ratio of a disk seen from the side
FACE_ON = 0.4  # axis ratio below which the plane of a disk is not seen
RINGS, SPOKES = 40, 96  # samples of the disk's plane
TURN = np.arange(SPOKES) * (2 * np.pi / SPOKES)
PATTERN_RADIUS = 8.0  # pixels of semi-major axis below which no pattern is seen
BAR_REACH = 0.5  # of the outline's radius: longer bars are rare
BAR_WIDTH = 2.4  # outer over inner radius of the zone in which a bar's angle stays the same
BAR_TILT = 0.3  # part of the stretch farther out that is taken for misjudged tilt
ARM_FROM = 0.25  # of the outline's radius: arms are looked for from here outward
ARM_PITCH = (10.0, 30.0)  # degrees, of arms that count; what is more open is mostly misjudged tilt
PITCH = (7.0, 50.0)  # degrees, looked at for the pitch itself
PITCHES = np.radians(np.concatenate([-np.geomspace(*PITCH, 24)[::-1], np.geomspace(*PITCH, 24)]))
WEAK_ARMS = 0.15  # below, a pitch is noise
RING_ZONE = (0.05, 0.95)  # of the outline's radius
RING_PERCENTILE = 35
FAINT_RING = 2.0  # sigmas a pixel
LEAST_RINGS = 10
NOISE_ABOVE = 1 / math.sqrt(2 * math.pi)  # mean of what white noise of one sigma has above 0
COMPANION_LIGHT = 0.1  # of the galaxy's
COMPANION_REACH = 2.0  # Petrosian radii
COARSE, FINE = np.linspace(-1, 1, 21), np.linspace(-1, 1, 7)  # steps of the grids of Sérsic profiles


@dataclass(frozen=True)
class _Ellipse:
    """An outline: axis ratio, angle of its major axis in radians from +x to +y, semi-major axis in pixels."""

    ratio: float
    angle: float
    reach: float

    def radii(self, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Return the semi-major axis of the similar ellipse through each point."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return _length(dx * cos + dy * sin, dy * (cos / self.ratio) - dx * (sin / self.ratio))

    def area_within(self, radius: float, dx: np.ndarray, dy: np.ndarray) -> int:
        """Return how many points of a grid with so many columns `dx` and rows `dy` have `radii` below that."""
        cos, sin, shrink = math.cos(self.angle), math.sin(self.angle), self.ratio**-2
        xx, xy, yy = cos**2 + shrink * sin**2, (1 - shrink) * cos * sin, sin**2 + shrink * cos**2
        root = (xy * dy) ** 2 - xx * (
            yy * dy**2 - radius**2
        )  # the ellipse cuts a row where xx x^2 + 2 xy x y + ... = r^2
        middle, half = -xy * dy[root > 0] / xx, np.sqrt(root[root > 0]) / xx
        return int((np.searchsorted(dx, middle + half) - np.searchsorted(dx, middle - half, side="right")).sum())


@dataclass(frozen=True)
class _Window:
    """The part of a picture around the source: its light and usable pixels, both (h, w), and where it lies.

    `light` is 0 where nothing is usable, and so it is in the one pixel beyond the picture's border that a window has
    which reaches it. `corner` is the first pixel in the picture (x, y), `center` the source's in the window (x, y).
    Around that, apertures reach `half` pixels to each side, also where there is no picture.
    """

    light: np.ndarray
    good: np.ndarray
    corner: tuple[int, int]
    center: tuple[float, float]
    half: int = 0

    def offsets(self, center: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return x (1, w) and y (h, 1) of every pixel from a position in the window."""
        y, x = (np.arange(length, dtype=np.float32) for length in self.light.shape)
        x, y = x - np.float32(center[0]), y - np.float32(center[1])
        return x.astype(np.float64)[None, :], y.astype(np.float64)[:, None]


@dataclass(frozen=True)
class _Profile:
    """Mean light of rings one pixel wide: mean radius, light, its error, and the area of the whole ring, all (k,).

    Rings without a usable pixel are left out. `errors` are those of the noise and of what the ring's own pixels
    scatter.
    """

    radius: np.ndarray
    light: np.ndarray
    error: np.ndarray
    area: np.ndarray

    def radius_of(self, part: float, within: float) -> float:
        """Return the radius of an ellipse with a part of the light that lies within a radius."""
        kept = self.radius <= within
        grown = np.cumsum(self.light[kept] * self.area[kept])
        edges = np.floor(self.radius[kept]) + 1
        return float(np.interp(part * grown[-1], np.maximum.accumulate(grown), edges))


@dataclass(frozen=True)
class _Disk:
    """A galaxy's plane: radii (RINGS,) in pixels of the major axis, light (RINGS, SPOKES), the outline's radius."""

    radius: np.ndarray
    light: np.ndarray
    reach: float

    @property
    def step(self) -> float:
        """The logarithm of the factor between neighboring radii."""
        return math.log(self.radius[1] / self.radius[0])


def measure(
    signal: np.ndarray,
    segments: np.ndarray,
    *,
    segment: int,
    center: tuple[float, float],
    bands: np.ndarray,
    noise: np.ndarray,
    mask: np.ndarray,
    flag: int = 0,
) -> dict[str, float | int | None]:
    """Return `COLUMNS` and `morphology_flag` of the source numbered `segment`, whose light has its `center` (x, y).

    `bands` are (b, h, w), sky removed, by falling wavelength, with their `noise` (b,); `mask` is True where there
    is no data. What `flag` says of the picture already is said again.
    """
    own, sky = segments == segment, (segments == 0) & ~mask
    outline = _outline(own)
    window = _window(signal, (own | (segments == 0)) & ~mask, center, 2.2 * outline.reach + 6)
    result: dict[str, float | None] = dict.fromkeys(COLUMNS) | {"isophotal_radius_px": outline.reach}
    flag |= FLAGS["border"] * bool(own[[0, -1]].any() or own[:, [0, -1]].any())
    circle = _petrosian(_profile(window, _length(*window.offsets(window.center)), 1.0))
    if circle is None:
        return _sifted(result, flag | FLAGS["no_petrosian"])
    result["asymmetry"], middle = _asymmetry(window, circle, _sky_difference(signal, sky))
    radii = outline.radii(*window.offsets(middle))
    profile = _profile(window, radii, outline.ratio)
    radius = _petrosian(profile)
    if radius is None:
        return _sifted(result, flag | FLAGS["no_petrosian"])
    region = _gini_region(window, radii, radius)
    half = profile.radius_of(0.5, CAS_EXTENT * radius)
    result |= {
        "petrosian_radius_px": radius,
        "gini": gini(window.light[region]),
        "m20": m20(np.where(region, window.light, 0)),
        "smoothness": _smoothness(signal, sky, window, middle, circle),
        "sersic_n": sersic_index(profile.radius, profile.light, profile.error),
        "color_gradient": _color_gradient(bands, noise, window, radii / half),
        "companions": _companions(signal, segments, segment, radius),
        **patterns(_disk(window, middle, outline)),
    }
    return _sifted(result, flag | _problems(window, (outline, middle, radii), radius, region))


def nothing(flag: int = 0) -> dict[str, float | int | None]:
    """Return what `measure` says of a picture without a source in its center."""
    return dict.fromkeys(COLUMNS) | {"morphology_flag": FLAGS["unmeasured"] | flag}


def _problems(
    window: _Window,
    ellipses: tuple[_Ellipse, tuple[float, float], np.ndarray],
    radius: float,
    region: np.ndarray,
) -> int:
    """Return the flags of a galaxy of a Petrosian radius; `ellipses` are its outline, their center and all radii."""
    outline, middle, radii = ellipses
    usable = np.count_nonzero(window.good & (radii < CAS_EXTENT * radius))
    steps = np.arange(-window.half, window.half + 1, dtype=np.float32)
    dx, dy = (steps + np.float32(round(at) - to) for at, to in zip(window.center, middle, strict=True))
    whole = outline.area_within(CAS_EXTENT * radius, dx.astype(np.float64), dy.astype(np.float64))
    seen = (
        (FLAGS["small"], radius < SMALLEST),
        (FLAGS["faint"], not (region.any() and window.light[region].mean() >= FAINTEST)),
        (FLAGS["inclined"], outline.ratio < FACE_ON),
        (FLAGS["crowded"], whole - usable > 0.1 * whole),
    )
    return sum(bit for bit, is_so in seen if is_so)


def _sifted(result: dict[str, float | None], flag: int) -> dict[str, float | int | None]:
    """Return what is found without what the flag says is nonsense, NaN as None."""
    result = {name: value if value is not None and np.isfinite(value) else None for name, value in result.items()}
    if flag & (FLAGS["small"] | FLAGS["faint"]):
        result |= dict.fromkeys(("asymmetry", "smoothness", "gini", "m20", *PATTERNS))
    if flag & FLAGS["faint"]:
        result["color_gradient"] = None
    if flag & FLAGS["inclined"]:
        result |= dict.fromkeys(PATTERNS)
    if result["sersic_n"] is None:
        flag |= FLAGS["no_sersic"]
    return result | {"morphology_flag": flag}


# ---- where the source is


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the length of vectors; np.hypot, which cannot overflow, takes ten times as long."""
    return np.sqrt(x * x + y * y)


def _outline(own: np.ndarray) -> _Ellipse:
    """Return the ellipse with the second moments of a source's pixels, all counted alike, and with their area.

    The outline tells the tilt of a disk better than its light does: a bulge is round and a bar is not.
    """
    y, x = np.divmod(np.flatnonzero(own), own.shape[1])
    area = len(x)
    dx, dy = x - x.sum() / area, y - y.sum() / area
    xx, yy, xy = dx @ dx / area + 1 / 12, dy @ dy / area + 1 / 12, dx @ dy / area  # a pixel is a square
    half, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    ratio = math.sqrt(max(half - spread, 1e-6) / (half + spread))
    return _Ellipse(ratio, 0.5 * math.atan2(2 * xy, xx - yy), math.sqrt(area / (math.pi * ratio)))


def _window(signal: np.ndarray, usable: np.ndarray, center: tuple[float, float], half: float) -> _Window:
    """Return the square of `half` a side around a position, as far as the picture goes and one pixel farther."""
    height, width = signal.shape
    x, y, half = round(center[0]), round(center[1]), math.ceil(half)
    farthest = min(half, max(x, y, width - 1 - x, height - 1 - y))
    left, top = max(x - half, -1), max(y - half, -1)
    right, bottom = min(x + half, width), min(y + half, height)
    light = np.zeros((bottom - top + 1, right - left + 1), np.float32)
    good = np.zeros(light.shape, dtype=bool)
    rows, columns = slice(max(top, 0), bottom + 1), slice(max(left, 0), right + 1)
    inside = usable[rows, columns]
    down, across = rows.start - top, columns.start - left
    index = slice(down, down + inside.shape[0]), slice(across, across + inside.shape[1])
    good[index] = inside
    light[index] = np.where(inside, signal[rows, columns], 0)
    return _Window(light, good, (left, top), (center[0] - left, center[1] - top), farthest)


def _profile(window: _Window, radii: np.ndarray, ratio: float) -> _Profile:
    """Return the profile on ellipses of an axis ratio; `radii` (n, n) are the semi-major axes through the pixels."""
    sums = pixels.rings(radii, window.light, window.good)
    number = np.flatnonzero(sums[0])
    count, light, square, radius = sums[:, number]
    mean = light / count
    scatter = np.maximum(square / count - mean * mean, 1.0)
    area = np.pi * ratio * (2 * number + 1)
    return _Profile(radius / count, mean, np.sqrt(scatter / count), area)


def _petrosian(profile: _Profile) -> float | None:
    """Return the radius where a ring has a fifth of the mean light inside of it; None where none is as faint."""
    inside = np.cumsum(profile.light * profile.area) / np.cumsum(profile.area)
    ratio = profile.light / np.where(inside > 0, inside, np.inf)
    below = np.flatnonzero((ratio < ETA) & (profile.radius > 1))
    if len(below) == 0 or below[0] == 0:
        return None
    last = slice(below[0] - 1, below[0] + 1)
    return float(np.interp(-ETA, -ratio[last], profile.radius[last]))


# ---- asymmetry and smoothness


def _sky_difference(signal: np.ndarray, sky: np.ndarray) -> float:
    """Return the mean difference of two pixels of sky, as an asymmetry finds it where there is no galaxy.

    It is that of pixels four apart: far enough for blur and JPEG not to make them alike, and so near that a slope
    of faint light does not make them differ. Where there are under 50 such pairs, that of white noise of one sigma.
    """
    pairs = [
        (signal[4:][both] - signal[:-4][both])
        for signal, sky in ((signal, sky), (signal.T, sky.T))
        for both in [sky[4:] & sky[:-4]]
    ]
    differences = np.abs(np.concatenate(pairs))
    noise = 2 / math.sqrt(math.pi)
    return min(float(differences.mean()), noise) if len(differences) >= 50 else noise


def _asymmetry(window: _Window, petrosian: float, sky: float) -> tuple[float, tuple[float, float]]:
    """Return the least sum |I - I180| / sum |I| over centers, less that of the sky, and the center (x, y) that has it.

    Conselice, Bershady and Jangren 2000 (ApJ 529, 886). The center is followed downhill from that of the light, in
    steps from 1 down to 1/8 pixel; I180 is interpolated bilinearly, which also averages
    noise, and the part of the sky is made smaller accordingly.
    """
    reach = int(np.ceil(CAS_EXTENT * petrosian))
    margin = 2 + reach // 4
    x, y = (round(value) for value in window.center)
    at = window.center[0] - x, window.center[1] - y
    half = reach + 2 * margin + 2
    light, good = (_square(plane, (x, y), half) for plane in (window.light, window.good.astype(np.float32)))
    indices, middle = np.arange(-reach, reach + 1), slice(half - reach, half + reach + 1)
    inside = _length(*np.ix_(indices - at[1], indices - at[0])) <= CAS_EXTENT * petrosian
    counted = inside * good[middle, middle]
    least, shift = pixels.least_asymmetry(pixels.Turned(light, good, counted, at, margin, sky))
    return least, (window.center[0] + shift[0], window.center[1] + shift[1])


def _square(plane: np.ndarray, center: tuple[int, int], half: int) -> np.ndarray:
    """Return the square around a pixel (x, y), zero beyond the plane."""
    wide = np.zeros((2 * half + 1, 2 * half + 1), plane.dtype)
    x, y = center
    rows, columns = slice(max(0, y - half), y + half + 1), slice(max(0, x - half), x + half + 1)
    inside = plane[rows, columns]
    top, left = rows.start - y + half, columns.start - x + half
    wide[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return wide


def _smoothness(
    signal: np.ndarray, sky: np.ndarray, window: _Window, middle: tuple[float, float], petrosian: float
) -> float | None:
    """Return the light above a box-smoothed copy over all light, less that of the sky, outside of the core.

    Conselice 2003 (ApJS 147, 1) without his factor 10, as in Lotz, Primack and Madau 2004 (AJ 128, 163); negative
    differences count as 0. The box must have three pixels at least.
    """
    side = int(SMOOTHED * petrosian)
    if side < 3:
        return None
    distance = _length(*window.offsets(middle))
    within = window.good & (distance <= CAS_EXTENT * petrosian)
    ring = within & (distance >= SMOOTHED * petrosian)
    clumps = _above_smooth(window.light, window.good, side)[ring].sum()
    enough = np.count_nonzero(sky) >= 50
    usual = _above_smooth(np.where(sky, signal, 0), sky, side)[sky].mean() if enough else NOISE_ABOVE
    total = window.light[within].sum()
    return float((clumps - np.count_nonzero(ring) * min(usual, NOISE_ABOVE)) / total) if total > 0 else None


def _above_smooth(light: np.ndarray, good: np.ndarray, side: int) -> np.ndarray:
    smooth = pixels.boxed(light, side)
    if not good.all():  # the mean of the usable pixels
        smooth /= np.maximum(pixels.boxed(good.astype(np.float32), side), 1e-3)
    return np.maximum(light - smooth, 0)


# ---- Gini and M20


def gini(light: np.ndarray) -> float | None:
    """Return the Gini coefficient of absolute pixel values: 0 when all are alike, 1 when one has everything.

    Lotz, Primack and Madau 2004 (AJ 128, 163), eq. 6.

    >>> gini(np.array([0.0, 0.0, 5.0]))
    1.0
    """
    values = np.sort(np.abs(light.ravel()).astype(float))
    count, total = len(values), values.sum()
    if count < 2 or total == 0:
        return None
    return float(((2 * np.arange(1, count + 1) - count - 1) * values).sum() / (total * (count - 1)))


def m20(light: np.ndarray) -> float | None:
    """Return log10 of the second moment of the brightest pixels that hold 20 % of the flux over that of all.

    Lotz et al. 2004, eq. 8; `light` is (h, w), 0 outside of the galaxy. The center is that of the light, which
    makes the second moment least. The pixel that completes the 20 % counts too. None without light, or where the
    brightest pixels lie in the very center.
    """
    index = np.flatnonzero(light)
    y, x = np.divmod(index, light.shape[1])
    values = light.ravel()[index].astype(float)
    total = values.sum()
    if not total > 0:
        return None
    distance = (x - (x @ values) / total) ** 2 + (y - (y @ values) / total) ** 2
    falling = np.sort(values)[::-1]
    count = min(int(np.searchsorted(np.cumsum(falling), 0.2 * total)) + 1, len(values))
    last = falling[count - 1]
    brighter, alike = values > last, values == last
    alike = np.sort(distance[alike])[
        : count - np.count_nonzero(brighter)
    ]  # of pixels as bright as the last, the nearest
    part, whole = distance[brighter] @ values[brighter] + last * alike.sum(), distance @ values
    return float(np.log10(part / whole)) if part > 0 and whole > 0 else None


def _gini_region(window: _Window, radii: np.ndarray, petrosian: float) -> np.ndarray:
    """Return the pixels of the galaxy: brighter, when blurred, than the ellipse of the Petrosian radius is."""
    from scipy.ndimage import label

    blurred = pixels.blurred(window.light, GINI_BLUR * petrosian)
    if not window.good.all():
        share = pixels.blurred(window.good.astype(np.float32), GINI_BLUR * petrosian)
        blurred /= np.maximum(share, 1e-3)
    edge = window.good & (np.abs(radii - petrosian) < 1)
    pieces, _ = label((blurred >= blurred[edge].mean()) & window.good) if edge.any() else (edge.astype(int), 0)
    home = pieces[np.where(radii < max(2.0, 0.3 * petrosian), pieces > 0, False)]
    return pieces == np.bincount(home).argmax() if len(home) else np.zeros_like(window.good)


# ---- the radial profile


def sersic_index(radius: np.ndarray, light: np.ndarray, error: np.ndarray) -> float | None:
    """Return the index n of the Sérsic profile that fits rings of light best, 0.4 to 8; None where none does.

    Rings within 1.5 pixels, where a pixel is no point, and beyond the first that is fainter than two of its errors
    are left out. An error is at least 5 % of the light: arms are no noise. Amplitude and a constant sky are solved
    for; n and the half-light radius are found on a grid that is then made finer, so that no start value matters.
    None for fewer than 7 rings, at the limits, and where rings deviate by 25 % or more.
    """
    faint = np.flatnonzero((light < 2 * error) & (radius > 1.5))
    last = faint[0] if len(faint) else len(light)
    kept = slice(np.searchsorted(radius, 1.5), last)
    r, light, error = radius[kept], light[kept], np.hypot(error, 0.05 * light)[kept]
    if len(r) < 7:
        return None
    n, step_n = math.sqrt(0.4 * 8), math.log(8 / 0.4) / 2
    logarithm, weight = np.log(r), error**-2
    log_size, step_size = logarithm[-1] - math.log(3), math.log(12)
    for offsets, shrink in ((COARSE, 8), *[(FINE, 2.5)] * 6):
        indices, log_sizes = n * np.exp(step_n * offsets), log_size + step_size * offsets
        misfit = pixels.sersic_misfit(logarithm, light, weight, indices, log_sizes)
        row, column = divmod(int(misfit.argmin()), len(log_sizes))
        n, log_size = indices[row], log_sizes[column]
        step_n, step_size = step_n / shrink, step_size / shrink
    if not 0.42 < n < 7.6:
        return None
    amplitude, sky, shape = pixels.sersic_fit(logarithm, light, weight, n, log_size)
    deviation = (np.abs(light - amplitude * shape - sky) / np.maximum(light, error)).mean()
    return float(n) if deviation < 0.25 else None


def _color_gradient(bands: np.ndarray, noise: np.ndarray, window: _Window, radii: np.ndarray) -> float | None:
    """Return the color -2.5 log10(blue/red) from 1 to 2 half-light radii minus that within 1, on similar ellipses.

    `radii` (n, n) are those of the pixels, in half-light radii.

    None for one band, and where a band has less than ten sigmas in a zone.
    """
    if len(bands) < 2:
        return None
    inner, outer = (window.good & (radii < 1)), (window.good & (radii >= 1) & (radii < 2))
    outside, inside = (_zone_color(bands, noise, zone, window.corner) for zone in (outer, inner))
    return None if outside is None or inside is None else outside - inside


def _zone_color(bands: np.ndarray, noise: np.ndarray, zone: np.ndarray, corner: tuple[int, int]) -> float | None:
    y, x = np.divmod(np.flatnonzero(zone), zone.shape[1])
    index = (y + corner[1]) * bands.shape[2] + x + corner[0]
    red, blue = (float(bands[band].ravel()[index].sum()) for band in (0, -1))
    if min(red / noise[0], blue / noise[-1]) < 10 * math.sqrt(max(len(y), 1)):
        return None
    return -2.5 * math.log10(blue / red)


def _companions(signal: np.ndarray, segments: np.ndarray, segment: int, petrosian: float) -> int:
    """Return how many sources have a tenth of the galaxy's light and their center within two Petrosian radii of its."""
    index = np.flatnonzero(segments)
    numbers = segments.ravel()[index].astype(np.intp)
    y, x = np.divmod(index, segments.shape[1])
    area, light, *centers = (np.bincount(numbers, one) for one in (None, signal.ravel()[index], x, y))
    distance = _length(*(value / np.maximum(area, 1) - value[segment] / area[segment] for value in centers))
    near = (distance <= COMPANION_REACH * petrosian) & (light >= COMPANION_LIGHT * light[segment])
    near[[0, segment]] = False
    return int(np.count_nonzero(near))


# ---- bar, arms and ring


def _disk(window: _Window, middle: tuple[float, float], outline: _Ellipse) -> _Disk:
    """Return the light on circles in the galaxy's plane, at radii that grow by one factor.

    The inclination is that of a disk of finite thickness whose outline has the axis ratio measured (Hubble 1926).
    What is not usable is filled from the opposite side.
    """
    flat = math.sqrt(max(outline.ratio**2 - THICKNESS**2, 0.01) / (1 - THICKNESS**2))
    radius = 1.5 * (max(outline.reach, 3.0) / 1.5) ** (np.arange(RINGS) / (RINGS - 1))
    along, across = np.outer(radius, np.cos(TURN)), flat * np.outer(radius, np.sin(TURN))
    cos, sin = math.cos(outline.angle), math.sin(outline.angle)
    x, y = along * cos - across * sin, along * sin + across * cos
    light, share = _sampled(window, middle[0] + x, middle[1] + y)
    if share.min() >= 0.5:
        return _Disk(radius, light, float(radius[-1]))
    half = SPOKES // 2
    opposite = np.roll(light, half, axis=1), np.roll(share, half, axis=1)
    light = np.where(share >= 0.5, light, np.where(opposite[1] >= 0.5, opposite[0], np.nan))
    known = np.isfinite(light)
    mean = np.where(known, light, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return _Disk(radius, np.where(known, light, mean[:, None]), float(radius[-1]))


def _sampled(window: _Window, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bilinear light at positions in the window and the usable share of the pixels it came from."""
    return pixels.sampled(window.light, window.good, x, y)


PATTERNS = ("bar_strength", "arm_strength", "arm_pitch", "ring_contrast")


def patterns(disk: _Disk) -> dict[str, float | None]:
    """Return the columns of `PATTERNS` of a galaxy's plane; all None where it is too small."""
    if disk.reach < PATTERN_RADIUS:
        return dict.fromkeys(PATTERNS)
    waves = np.fft.rfft(disk.light, axis=1)[:, :7] / SPOKES
    mean = waves[:, 0].real
    contrast = np.where(mean[:, None] > 0.5, 2 * waves / np.maximum(mean, 0.5)[:, None], 0)
    contrast /= np.maximum(np.abs(contrast), 1)  # more than the whole ring there is not
    strength, pitch = _arms(disk, contrast)
    return {
        "bar_strength": _bar(disk, contrast[:, 2]),
        "arm_strength": strength,
        "arm_pitch": pitch,
        "ring_contrast": _ring(disk),
    }


def _bar(disk: _Disk, wave: np.ndarray) -> float | None:
    """Return the largest mean of the two-fold wave over a zone of radius within which its angle stays the same.

    A part of the mean farther out is taken away first: where the tilt was misjudged all radii look stretched.
    """
    wide = max(3, round(math.log(BAR_WIDTH) / disk.step))
    inner = disk.radius <= BAR_REACH * disk.reach
    if inner.sum() < wide:
        return None
    sums = np.concatenate([[0], np.cumsum(wave[inner])])
    return float(np.abs((sums[wide:] - sums[:-wide]) / wide - BAR_TILT * wave[~inner].mean()).max())


def _arms(disk: _Disk, contrast: np.ndarray) -> tuple[float, float | None]:
    """Return the strength of logarithmic spirals of 2, 3 and 4 arms, added, and the signed pitch of the strongest.

    The waves are analyzed over log radius (Considère and Athanassoula 1988, A&AS 76, 365): a spiral of m arms and
    pitch P peaks at p = m / tan P, a bar at 0. The pitch is positive where the angle from +x to +y grows outward.
    It is None for weak arms, and at the limits of what was looked for, where it belongs to something else.
    """
    kept = disk.radius >= ARM_FROM * disk.reach
    one = np.exp(1j * np.outer(1 / np.tan(PITCHES), np.log(disk.radius[kept])))
    two, wave = one * one, contrast[kept]
    result = np.abs([two @ wave[:, 2], (two * one) @ wave[:, 3], (two * two) @ wave[:, 4]]) / len(wave)
    usual = (np.abs(PITCHES) >= math.radians(ARM_PITCH[0])) & (np.abs(PITCHES) <= math.radians(ARM_PITCH[1]))
    strength = float(result[:, usual].max(axis=1).sum())
    power = result.max(axis=0)
    peaks = np.flatnonzero((power[1:-1] > power[:-2]) & (power[1:-1] > power[2:])) + 1
    peaks = peaks[np.abs(PITCHES[peaks]) < math.radians(PITCH[1] - 2)]
    if strength < WEAK_ARMS or len(peaks) == 0:
        return strength, None
    return strength, math.degrees(PITCHES[peaks[power[peaks].argmax()]])


def _ring(disk: _Disk) -> float | None:
    """Return the height of the highest bump in the profile, in log light, over the lower of the two dips beside it.

    The profile is what the fainter third of a circle does not exceed, so that arms, which cover less, count little.
    A fit a + b r + c r^(1/4) is taken away, which leaves nothing of an exponential disk or of a de Vaucouleurs
    profile. It ends where it is lost in the noise; None where little is left.
    """
    profile = pixels.percentiles(disk.light, (RING_PERCENTILE,))[0]
    zone = (disk.radius >= RING_ZONE[0] * disk.reach) & (disk.radius <= RING_ZONE[1] * disk.reach)
    kept = np.flatnonzero(zone & (np.minimum.accumulate(profile) > FAINT_RING))
    if len(kept) < LEAST_RINGS:
        return None
    r, profile = disk.radius[kept] / disk.reach, np.log(profile[kept])
    smooth = np.stack([np.ones_like(r), r, r**0.25], axis=1)
    rest = profile - smooth @ np.linalg.lstsq(smooth, profile, rcond=None)[0]
    rise = rest - np.minimum.accumulate(rest)
    fall = rest - np.minimum.accumulate(rest[::-1])[::-1]
    return float(np.minimum(rise, fall).max())
