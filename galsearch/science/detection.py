"""Finds the sources of a picture and measures their light: place, size, shape, brightness, color.

The module hides one recipe and its thresholds. `detect` runs it over a mosaic, `measure` over a cutout for
the object in its center; they differ in how the background is found and in which sources are kept. Every
quantity is the column of the same name in `schema.GALAXIES`.

Pictures are (h, w) or (h, w, b), 8-bit or float, with the bands in order of falling wavelength: R, G, B of a
JPEG, or z, r, g of a survey (`images.red_first` puts them so). NaN means "no data" and is masked. Inputs are
never modified. Positions count from (0, 0), the center of the first pixel. 8-bit values are divided by 255. A
JPEG's values are stretched for the eye, so its brightness, concentration and colors rank sources of one
picture; they are not photometry. The form of a cutout's galaxy, once it is found, is measured by `morphology`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science import morphology, pixels

CUTOUT_RADII = 8.0  # side of a cutout in half-light radii: the eye sees a galaxy out to 1.5 to 2 of them
SMALLEST_CUTOUT = 24
LARGEST_MEASURED = 160  # pixels a side; of a larger cutout an average is measured, or the part around the galaxy
SURROUNDINGS = 3.2  # of a galaxy's outline that are looked at, in its radii: Petrosian apertures, and sky around them
SMALLEST_MEASURED = 12  # pixels; below, the frame of sky and the galaxy are one
ROUND = 0.95  # above this axis ratio a position angle is noise
POINT_RATIO = 0.9  # stars are at least this round
FRAME = 0.08  # width of a cutout's frame of sky, as part of its side
STAR_SNR = 60.0  # fainter sources cannot be told point-like from small
SPIKES = 0.12  # four-fold part of a halo's light, over any other symmetry, above which it is diffraction
SHARPEST = 1.15  # a star's half-light radius is below this many times that of the sharpest bright sources
BLANK = 0.25  # part of the frame without data from which on the flag says so
NO_DATA = 0.1  # part of the frame that exact zeros in one block must fill to be taken for no data
NO_NOISE = 1e-6  # of a band's range: noise below is rounding
ENOUGH_SOURCES = 50  # fewer bright sources than this do not show how sharp a star is
IN_PIXELS = ("radius_px", "isophotal_radius_px", "petrosian_radius_px")
COLUMNS = (
    "x_px",
    "y_px",
    "radius_px",
    "axis_ratio",
    "position_angle",
    "concentration",
    "brightness",
    "color_gr",
    "color_br",
    "snr",
    "is_star",
    "is_artifact",
    "is_edge",
)


@dataclass(frozen=True)
class _Sky:
    """A picture without background: light (b, h, w), noise (b,) a pixel, signal in sigmas and mask (h, w).

    Light and noise are in `unit`, a power of two of the picture's own, so that no measure depends on the flux unit.
    """

    light: np.ndarray
    noise: np.ndarray
    signal: np.ndarray
    mask: np.ndarray
    unit: float = 1.0


def detect(
    picture: np.ndarray,
    *,
    threshold: float = 4.0,
    min_area_px: int = 10,
    contrast: float = 0.002,
    background_px: int = 64,
) -> dict[str, np.ndarray]:
    """Return every source of a mosaic as equal-length arrays, one a column of `COLUMNS`, brightest first.

    `threshold` is in sigmas of the noise-weighted sum of the bands, `min_area_px` the pixels that must pass
    it, `contrast` the part of a blend's light that a piece needs to count as a source of its own,
    `background_px` the mesh of the background; keep it above twice the largest galaxy's radius. Measures are
    float64 with NaN where a source has none; flags are bool. Equal brightness is ordered by y, then x.
    """
    bands, mask, unit = _planes(picture)
    sky = replace(_subtract_mesh(bands, mask, background_px), unit=unit)
    sources, segments = _extract(sky, threshold, min_area_px, contrast)
    result = _measure(sky, sources, segments, np.arange(len(sources)))
    spiked = np.array([_has_spikes(sky, segments, result, row, row + 1) for row in range(len(sources))], dtype=bool)
    psf_px = _sharpest_radius(result)
    result["is_edge"] = _touches_edge(sources, result, mask.shape)
    result["is_star"] = spiked | _is_point(result, psf_px)
    result["is_artifact"] = _is_artifact(result, spiked, psf_px)
    order = np.lexsort((result["x_px"], result["y_px"], -result["brightness"]))
    return {name: result[name][order] for name in COLUMNS}


def measure(
    picture: np.ndarray, *, threshold: float = 3.0, contrast: float = 0.02, form: bool = True
) -> dict[str, float | str | None]:
    """Return the measures of the source in the center of a cutout: `COLUMNS`, `morphology`'s, and `measure_flag`.

    The sky is the cutout's frame, a constant. The source is the one that covers the central pixel, or the
    nearest within 15 % of the side. What cannot be measured is None, and `measure_flag` says why in words
    (None: all is well); without a central source everything is None, but `morphology_flag`, a number that says
    the same for the form (`morphology.FLAGS`). One cutout does not show how sharp a star is: `is_star` is True only
    for diffraction spikes, and `is_artifact` is False. Without `form` the columns of `morphology` are left out, which
    take most of the time.
    """
    bands, mask, unit = _planes(picture)
    blank = morphology.FLAGS["blank"] * bool(mask.mean() >= BLANK)
    result = _nothing("no source in the center", blank)
    if min(mask.shape) < SMALLEST_MEASURED:
        result["measure_flag"] = f"smaller than {SMALLEST_MEASURED} px"
    elif mask.mean() > 0.5:
        result["measure_flag"] = "more than half of the pixels have no data"
    elif np.ptp(bands) == 0:
        result["measure_flag"] = "every pixel has one value"
    else:
        eight_bit = np.asarray(picture).dtype == np.uint8
        view = _central_view(bands, mask, eight_bit=eight_bit, threshold=threshold, contrast=contrast)
        if view is not None:
            result = _one(view, unit, blank, form=form)
    return result if form else {name: result[name] for name in (*COLUMNS, "measure_flag")}


@dataclass(frozen=True)
class _View:
    """The source of a cutout, number `row` of `sources`, in a view of it: pixels averaged in squares of `step`.

    `segments` (h, w) are numbered from 1; `first` is the pixel (x, y) of the cutout at which the view begins.
    """

    sky: _Sky
    sources: np.ndarray
    segments: np.ndarray
    row: int | None
    step: int
    first: tuple[int, int]

    def radius(self) -> float:
        """Return how far the source's outline reaches from its center, in pixels of the cutout."""
        box = self.sources[self.row]
        sides = (box["xmax"] - box["xmin"] + 1, box["ymax"] - box["ymin"] + 1)
        return self.step * float(max(sides)) / 2

    def center(self) -> tuple[float, float]:
        """Return where the source is in the cutout."""
        source = self.sources[self.row]
        x, y = (self.step * (float(source[axis]) + 0.5) - 0.5 for axis in ("x", "y"))
        return x + self.first[0], y + self.first[1]


def _central_view(
    bands: np.ndarray, mask: np.ndarray, *, threshold: float, contrast: float, eight_bit: bool
) -> _View | None:
    """Find the central source, on a view of at most LARGEST_MEASURED pixels a side.

    A source that is small in a large cutout is found on an average, and looked at again with the best resolution that
    its surroundings have room for.
    """
    step = -(-max(mask.shape) // LARGEST_MEASURED)
    view = _view_of(bands, mask, step, None, threshold=threshold, contrast=contrast, eight_bit=eight_bit)
    if step > 1:
        height, width = mask.shape
        known = view.row is not None
        x, y = view.center() if known else ((width - 1) / 2, (height - 1) / 2)
        half = max(SURROUNDINGS * view.radius() if known else 0.0, SMALLEST_CUTOUT)
        finer = max(1, math.ceil(2 * half / LARGEST_MEASURED))
        if finer < step or not known:
            half = max(half, 0.5 * finer * LARGEST_MEASURED)
            box = (slice(max(0, int(y - half)), int(y + half) + 1), slice(max(0, int(x - half)), int(x + half) + 1))
            view = _view_of(bands, mask, finer, box, threshold=threshold, contrast=contrast, eight_bit=eight_bit)
    return None if view.row is None else view


def _view_of(
    bands: np.ndarray,
    mask: np.ndarray,
    step: int,
    box: tuple[slice, slice] | None,
    *,
    threshold: float,
    contrast: float,
    eight_bit: bool,
) -> _View:
    """Return what is found in a part of a cutout (rows, columns), averaged in squares of `step` pixels."""
    bands, mask = _averaged(bands, mask, step)
    rows, columns = (slice(0, None), slice(0, None)) if box is None else (_divided(part, step) for part in box)
    sky = _subtract_frame(bands, mask, (rows, columns), eight_bit=eight_bit)
    sources, segments = _extract(sky, threshold, 10, contrast)
    height, width = mask.shape
    middle = (width - 1) / 2 - columns.start, (height - 1) / 2 - rows.start
    row = _central(sources, segments, middle, min(height, width))
    return _View(sky, sources, segments, row, step, (columns.start * step, rows.start * step))


def _divided(part: slice, step: int) -> slice:
    return slice(part.start // step, -(-part.stop // step))


def _averaged(bands: np.ndarray, mask: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of squares of pixels with data; those with data in less than half of theirs are masked."""
    if step == 1:
        return bands, mask
    height, width = (side // step for side in mask.shape)
    good = ~mask[: height * step, : width * step]
    light = bands[:, : height * step, : width * step]
    if good.all():
        return _square_means(light, step), np.zeros((height, width), dtype=bool)
    share = _square_means(good.astype(np.float32), step)
    return _square_means(light * good, step) / np.maximum(share, 1e-3), share < 0.5


def _square_means(planes: np.ndarray, step: int) -> np.ndarray:
    """Return the means (..., h, w) of squares of `step` pixels, of planes float32 whose sides they fill."""
    lines = planes[..., ::step].copy()
    for first in range(1, step):
        lines += planes[..., first::step]
    squares = lines[..., ::step, :].copy()
    for first in range(1, step):
        squares += lines[..., first::step, :]
    return squares / np.float32(step * step)


def _one(view: _View, unit: float, flag: int, *, form: bool) -> dict[str, float | str | None]:
    """Return the measures of the source, in pixels and light of the cutout; without `form` not those of its form."""
    sky, segments, row, step = view.sky, view.segments, view.row, view.step
    assert row is not None
    result = _measure(sky, view.sources, segments, np.array([row]))
    values: dict[str, float | str | None] = {
        name: float(value[0]) if np.isfinite(value[0]) else None for name, value in result.items()
    }
    values["is_star"] = _has_spikes(sky, segments, result, 0, row + 1)
    values["is_artifact"] = False
    box, (height, width) = view.sources[row], sky.mask.shape
    edge = box["xmin"] <= 0 or box["ymin"] <= 0 or box["xmax"] >= width - 1 or box["ymax"] >= height - 1
    values["is_edge"] = bool(edge)
    reason = "the source reaches the border, so its size is a lower limit" if edge else None
    if values["radius_px"] is None:
        reason = "no light is left after the sky is taken away"
    form_of = {} if not form else morphology.measure(
        sky.signal, segments, segment=row + 1, center=(float(result["x_px"][0]), float(result["y_px"][0])),
        bands=sky.light, noise=sky.noise, mask=sky.mask, flag=flag,
    )  # fmt: skip
    values = {**{name: values[name] for name in COLUMNS}, **form_of, "measure_flag": reason}
    values["x_px"], values["y_px"] = view.center()
    grown = dict.fromkeys(IN_PIXELS, step) | {"brightness": unit * step**2}
    return {
        name: value * grown[name] if name in grown and isinstance(value, float) else value
        for name, value in values.items()
    }


def _nothing(reason: str, flag: int) -> dict[str, float | str | None]:
    return {**dict.fromkeys(COLUMNS), **morphology.nothing(flag), "measure_flag": reason}


def _central(sources: np.ndarray, segments: np.ndarray, middle: tuple[float, float], side: int) -> int | None:
    """Return the source that covers the cutout's middle (x, y), or the nearest within 15 % of its shorter side."""
    column, row = (int(value + 0.5) for value in middle)
    if 0 <= row < segments.shape[0] and 0 <= column < segments.shape[1] and segments[row, column]:
        return int(segments[row, column]) - 1
    if len(sources) == 0:
        return None
    distance = np.hypot(sources["x"] - middle[0], sources["y"] - middle[1])
    nearest = int(distance.argmin())
    return nearest if distance[nearest] < 0.15 * side else None


def _subtract_frame(bands: np.ndarray, mask: np.ndarray, part: tuple[slice, slice], *, eight_bit: bool) -> _Sky:
    """Return a part of a cutout without its sky: the median of its frame, and the noise below that median.

    Light only adds, so the lower half of the frame's values is the noise even where neighbors or spiral arms
    reach into it; where most of the sky is one value, as in counts of few photons, the upper half is. 8-bit pictures
    get at least one step of noise: their true noise may be rounded away.
    """
    values = _frame(bands, mask).astype(np.float64)
    low, middle, high = pixels.percentiles(values, (15.87, 50, 84.13))
    noise = np.where(middle > low, middle - low, 0 if eight_bit else high - middle)
    noise = np.maximum(noise, 1 / 255 if eight_bit else 0)
    middle = middle.astype(np.float32)[:, None]
    noise, weights = _weights(noise, _span(bands, mask, middle))
    around = weights @ (values - middle)
    low, half = pixels.percentiles(around, (15.87, 50))
    weights /= max(half - low, 0.5)  # bands share noise; half a sigma where rounding hides it
    light = bands[:, *part] - middle[:, :, None]
    inside = mask[part]
    if inside.any():
        light[:, inside] = 0
    signal = np.tensordot(weights, light, axes=1)
    return _Sky(light, noise, np.ascontiguousarray(signal, dtype=np.float32), np.ascontiguousarray(inside))


def _frame(bands: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the pixels (b, n) with data of a cutout's frame, of all of it where those are under 30."""
    width = max(2, round(FRAME * min(mask.shape)))
    if not mask.any():
        inner = slice(width, -width)
        sides = (bands[:, :width], bands[:, -width:], bands[:, inner, :width], bands[:, inner, -width:])
        return np.concatenate([side.reshape(len(bands), -1) for side in sides], axis=1)
    frame = np.ones(mask.shape, dtype=bool)
    frame[width:-width, width:-width] = False
    frame &= ~mask
    return bands[:, frame if np.count_nonzero(frame) >= 30 else ~mask]


def _planes(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (b, h, w) float32 with zeros for missing values, the mask of pixels missing in any band, and the unit.

    Flux is divided by a power of two near its range, the unit: it may be in counts or in W/m2/Hz. 8-bit values are
    parts of 255, their unit is 1. Bands that are all equal become one.
    """
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or min(array.shape) < 1:
        raise SchemaError(f"a picture of shape {np.shape(picture)} cannot be measured; give (h, w) or (h, w, bands)")
    array = np.moveaxis(array, 2, 0)
    if array.dtype == np.uint8:
        array, unit = np.ascontiguousarray(array), 1.0
        mask = _zeros_without_data(array, np.zeros(array.shape[1:], dtype=bool))
        bands = np.multiply(array, np.float32(1 / 255), dtype=np.float32)
    else:
        missing = ~np.isfinite(array)
        mask = np.ascontiguousarray(missing.any(axis=0))
        mask |= _zeros_without_data(array, mask)
        unit = _unit(array, ~missing)
        bands = np.empty(array.shape, np.float32)
        for band, values in zip(bands, array, strict=True):
            band[...] = values * np.float64(1 / unit)
        bands[missing] = 0
    if all((band[0] == bands[0, 0]).all() and (band == bands[0]).all() for band in bands[1:]):
        bands = bands[:1]  # gray saved as RGB: to call its colors 0 would be a lie
    return bands, mask, unit


def _unit(array: np.ndarray, known: np.ndarray) -> float:
    """Return the power of two below the range of the finite values; 1 where they have none."""
    low = float(np.min(array, initial=np.inf, where=known))
    high = float(np.max(array, initial=-np.inf, where=known))
    return float(2.0 ** np.floor(np.log2(high - low))) if high > low else 1.0


def _zeros_without_data(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the pixels (h, w) that are exactly 0 in all bands because a survey or a chip ends there.

    They fill blocks an eighth of a side wide and a tenth of the frame at least, and the rest of the frame has a sky
    that is not 0: noise on both sides of it, a level, or pixels at the block that are not its faintest. Models without
    noise and the black sky of a JPEG have none, they fade into their zeros.
    """
    zero = (array == 0).all(axis=0) & ~mask
    if np.count_nonzero(zero) < NO_DATA * zero.size:
        return np.zeros_like(zero)
    from scipy.ndimage import maximum_filter, minimum_filter

    side = max(3, min(zero.shape) // 8)
    solid = minimum_filter(zero.view(np.uint8), side, mode="nearest")
    solid = maximum_filter(solid, side, mode="nearest").astype(bool) & zero
    known = ~zero & ~mask
    if np.count_nonzero(solid) < NO_DATA * solid.size or not known.any():
        return np.zeros_like(zero)
    beside = maximum_filter(solid.view(np.uint8), 5, mode="nearest").astype(bool) & known
    total = array.sum(axis=0, dtype=np.float64)
    low, faint, middle = np.percentile(total[known], (1, 25, 50))
    is_level = low > 0.5 * middle or (beside.any() and np.median(total[beside]) > faint)
    border = np.concatenate([solid[0], solid[-1], solid[:, 0], solid[:, -1]])
    has_sky = low < 0 or (is_level and border.mean() < 0.9)  # an even source on a black sky has a black border
    return solid if has_sky else np.zeros_like(zero)


def _subtract_mesh(bands: np.ndarray, mask: np.ndarray, mesh: int) -> _Sky:
    import sep

    backgrounds = [sep.Background(band, mask=mask, bw=mesh, bh=mesh) for band in bands]
    light = np.stack([band - b.back() for band, b in zip(bands, backgrounds, strict=True)])
    noise = np.array([b.globalrms for b in backgrounds])
    sky = _weigh(light, noise, mask)
    sky.signal[:] /= max(sep.Background(sky.signal, mask=mask, bw=mesh, bh=mesh).globalrms, 1e-6)
    return sky


def _span(bands: np.ndarray, mask: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Return the range (b,) of every band where there are data, the sky's `middle` (b, 1) included."""
    good = ~mask
    values = bands.reshape(len(bands), -1) if good.all() else bands[:, good]
    low, high = (np.minimum(values.min(axis=1), middle[:, 0]), np.maximum(values.max(axis=1), middle[:, 0]))
    return (high - low).astype(np.float64)


def _weights(noise: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise of each band, and with what it counts in the sum of the best signal-to-noise ratio.

    A band without noise (synthetic, or black after 8-bit rounding) is given a thousandth of its range, and a band
    of one value throughout counts for nothing.
    """
    noise = np.where(noise > NO_NOISE * span, noise, 1e-3 * span)
    noise = np.where(span > 0, noise, 1.0)
    weights = np.where(span > 0, noise**-2, 0.0)
    return noise, weights / (np.sqrt(weights.sum()) or 1.0)


def _weigh(light: np.ndarray, noise: np.ndarray, mask: np.ndarray) -> _Sky:
    """Return the sky whose signal is the weighted sum over bands, in sigmas."""
    light[:, mask] = 0
    noise, weights = _weights(noise, np.ptp(light.reshape(len(light), -1), axis=1).astype(np.float64))
    signal = np.tensordot(weights, light, axes=1)
    return _Sky(light, noise, np.ascontiguousarray(signal, dtype=np.float32), mask)


def _extract(sky: _Sky, threshold: float, area: int, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    import sep

    sep.set_sub_object_limit(8192)
    sep.set_extract_pixstack(sky.signal.size + 1024)  # no more can be above the threshold, and all of it is cleared
    return sep.extract(
        sky.signal,
        threshold,
        err=1.0,
        mask=sky.mask,
        minarea=area,
        deblend_cont=contrast,
        segmentation_map=True,
    )


def _measure(sky: _Sky, sources: np.ndarray, segments: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of `sources[rows]` as float64 arrays, NaN where one cannot be had."""
    picked = sources[rows]
    ids = (rows + 1).astype(np.int32)
    x, y = picked["x"].astype(float), picked["y"].astype(float)
    major, minor = np.maximum(picked["a"], 0.3).astype(float), np.maximum(picked["b"], 0.3).astype(float)
    angle = np.clip(picked["theta"].astype(float), -np.pi / 2, np.pi / 2)  # the nearest float32 of pi/2 is beyond it
    light = sky.light.sum(axis=0)
    own = _sums(segments, ids, (None, sky.signal, light, *sky.light))
    total, brightness, reach = _wings(sky, segments, ids, (x, y, major, minor, angle), light)
    total, brightness = own[:, 1] + total, own[:, 2] + brightness
    radius, concentration = _light_radii(sky, segments, ids, (x, y), (total, reach))
    ratio = np.clip(minor / major, 0, 1)
    area, signal, sums = own[:, 0], own[:, 1], own[:, 3:]
    red, middle, blue = _three(_keep_significant(sums, sky.noise * np.sqrt(area)[:, None]))
    return {
        "x_px": x,
        "y_px": y,
        "radius_px": radius,
        "axis_ratio": ratio,
        "position_angle": np.where(ratio < ROUND, np.degrees(picked["theta"]), np.nan),
        "concentration": concentration,
        "brightness": brightness * sky.unit,
        "color_gr": _color(middle, red),
        "color_br": _color(blue, red),
        "snr": signal / np.sqrt(np.maximum(area, 1)),
    }


def _wings(sky: _Sky, segments: np.ndarray, ids: np.ndarray, ellipse: tuple, light: np.ndarray) -> tuple:
    """Return signal and light around a source, and how far its ellipse of 2.5 Kron radii (Kron 1980) reaches.

    Both sums are over the sky pixels in the ellipse, where its faint wings are. Pixels of neighbors count for nothing;
    to fill them with the mean, as masked apertures do, would double crowded sources. `light` is that of all bands.
    """
    import sep

    x, y, a, b, theta = ellipse
    kron, _ = sep.kron_radius(sky.signal, x, y, a, b, theta, 6.0, mask=sky.mask, seg_id=ids, segmap=segments)
    reach = np.clip(2.5 * np.nan_to_num(kron, nan=1.4), 3.5, 7)  # past 7 it is a neighbor's light
    around = segments == 0
    sums = [
        sep.sum_ellipse(np.where(around, plane, 0), x, y, a, b, theta, reach, subpix=3)[0]
        for plane in (sky.signal, light)
    ]
    return *sums, reach * a


def _light_radii(sky: _Sky, segments: np.ndarray, ids: np.ndarray, center: tuple, light: tuple) -> tuple:
    """Return half-light radius and 5 log10(r80 / r20) in circular apertures (Conselice 2003, ApJS 147, 1)."""
    if len(ids) == 0:
        return np.zeros(0), np.zeros(0)
    total, reach = light[0], np.maximum(light[1], 3.0)
    positive, parts = np.where(total > 0, total, 1.0), np.array([0.2, 0.5, 0.8])
    if pixels.LIBRARY is None:
        import sep

        radii, _ = sep.flux_radius(
            sky.signal, *center, reach, parts, normflux=positive, mask=sky.mask, seg_id=ids, segmap=segments
        )
    else:
        radii = pixels.light_radii(
            sky.signal, sky.mask, segments, ids, center=center, reach=reach, parts=np.outer(positive, parts)
        )
    r20, r50, r80 = np.where((total > 0)[:, None] & (radii > 0), radii, np.nan).T
    resolved = r20 > 0.5  # within half a pixel there is no profile
    return r50, np.where(resolved, 5 * np.log10(r80 / np.where(resolved, r20, 1)), np.nan)


def _sums(segments: np.ndarray, ids: np.ndarray, planes: tuple[np.ndarray | None, ...]) -> np.ndarray:
    """Return the sums (ids, planes) over the pixels of segments; for None their numbers."""
    if len(ids) == 1:
        own = np.flatnonzero(segments.ravel() == ids[0])
        return np.array([[len(own) if one is None else one.ravel()[own].sum(dtype=np.float64) for one in planes]])
    flat, most = segments.ravel().astype(np.intp), int(ids.max(initial=0)) + 1
    weights = (None if one is None else one.ravel() for one in planes)
    return np.stack([np.bincount(flat, one, most)[ids] for one in weights], axis=1).astype(np.float64)


def _keep_significant(sums: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return the sums with NaN where they are not above one sigma: the logarithm of noise is no color."""
    return np.where(sums > sigma, sums, np.nan)


def _three(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the reddest, middle and bluest band of (n, b); one band has no colors, two have no middle."""
    none = np.full(len(sums), np.nan)
    count = sums.shape[1]
    if count == 1:
        return none, none, none
    middle = none if count == 2 else sums[:, count // 2]
    return sums[:, 0], middle, sums[:, -1]


def _color(bluer: np.ndarray, redder: np.ndarray) -> np.ndarray:
    return -2.5 * np.log10(bluer / redder)


def _has_spikes(sky: _Sky, segments: np.ndarray, result: dict, row: int, segment: int) -> bool:
    """Tell whether the halo of a round, bright source has the four-fold symmetry of diffraction spikes.

    The halo is what lies between 1.4 and 4 half-light radii. Bands are judged one by one, for two cameras of
    one mosaic may be rotated against each other, and an eight-fold sum would hide both crosses.
    """
    radius, ratio = result["radius_px"][row], result["axis_ratio"][row]
    if not (radius >= 2 and ratio > 0.85 and result["snr"][row] > STAR_SNR):
        return False
    x, y, reach = result["x_px"][row], result["y_px"][row], int(4 * radius) + 1
    rows = slice(max(0, round(y) - reach), round(y) + reach + 1)
    columns = slice(max(0, round(x) - reach), round(x) + reach + 1)
    near = segments[rows, columns]
    dy, dx = np.ogrid[: near.shape[0], : near.shape[1]]
    dy, dx = dy + rows.start - y, dx + columns.start - x
    distance = np.sqrt(dx * dx + dy * dy)
    halo = (distance > 1.4 * radius) & (distance < 4 * radius) & ((near == 0) | (near == segment))
    light = np.maximum(sky.light[:, rows, columns][:, halo], 0)
    waves = ((dx + 1j * dy)[halo] / distance[halo])[:, None] ** (1, 2, 3, 4)
    strength = np.abs(light @ waves) / np.maximum(light.sum(axis=1, keepdims=True), 1e-12)
    return bool((strength[:, 3] - strength[:, :3].max(axis=1)).max() > SPIKES)


def _sharpest_radius(result: dict) -> float:
    """Return the half-light radius of the sharpest bright round sources, NaN where too few show it."""
    round_ones = (result["snr"] > STAR_SNR) & (result["axis_ratio"] > POINT_RATIO) & np.isfinite(result["radius_px"])
    if round_ones.sum() < ENOUGH_SOURCES:
        return float("nan")
    return float(np.percentile(result["radius_px"][round_ones], 2))


def _is_point(result: dict, psf_px: float) -> np.ndarray:
    bright_and_round = (result["snr"] > STAR_SNR) & (result["axis_ratio"] > POINT_RATIO)
    return bright_and_round & (result["radius_px"] < SHARPEST * psf_px)


def _is_artifact(result: dict, spiked: np.ndarray, psf_px: float) -> np.ndarray:
    """Tell what no galaxy makes: sharper than a star, a point in one band alone, or part of a spike."""
    sharper = result["radius_px"] < 0.6 * psf_px
    middle_only = (result["color_gr"] < -0.9) & (result["color_gr"] - result["color_br"] < -0.9)
    return sharper | (middle_only & (result["radius_px"] < 1.5 * psf_px)) | _is_spike(result, spiked)


def _is_spike(result: dict, spiked: np.ndarray) -> np.ndarray:
    """Tell faint thin sources within twelve half-light radii of a spiked star whose major axis points at it."""
    spike = np.zeros(len(spiked), dtype=bool)
    for star in np.flatnonzero(spiked):
        dx, dy = result["x_px"] - result["x_px"][star], result["y_px"] - result["y_px"][star]
        turn = np.radians(result["position_angle"]) - np.arctan2(dy, dx)
        spike |= (
            (np.hypot(dx, dy) < 12 * result["radius_px"][star])
            & (result["brightness"] < 0.05 * result["brightness"][star])
            & (result["axis_ratio"] < 0.4)
            & (np.abs(np.sin(turn)) < 0.1)
        )
    return spike


def _touches_edge(sources: np.ndarray, result: dict, shape: tuple[int, int]) -> np.ndarray:
    """Tell sources with a pixel on the border, or whose cutout (`cutout_size`) would reach over it."""
    height, width = shape
    touch = (sources["xmin"] <= 0) | (sources["ymin"] <= 0)
    touch |= (sources["xmax"] >= width - 1) | (sources["ymax"] >= height - 1)
    sides = [cutout_size(r, q) for r, q in zip(result["radius_px"], result["axis_ratio"], strict=True)]
    half = np.array(sides, dtype=float) / 2
    x, y = result["x_px"], result["y_px"]
    return touch | (np.minimum(x, width - 1 - x) < half - 0.5) | (np.minimum(y, height - 1 - y) < half - 0.5)


def cutout_size(radius_px: float, axis_ratio: float = 1.0) -> int:
    """Return the even side, in pixels, of a cutout in which a galaxy fills a third to a half of the frame.

    `radius_px` is the half-light radius in circular apertures. A thin galaxy reaches farther along its major
    axis than that radius tells, so it gets a larger frame; a source without a radius (NaN) gets the smallest,
    24 px.
    """
    if not np.isfinite(radius_px):
        return SMALLEST_CUTOUT
    thin = 1.4 - 0.4 * (axis_ratio if np.isfinite(axis_ratio) else 1.0)
    side = CUTOUT_RADII * radius_px * thin
    return max(SMALLEST_CUTOUT, 2 * int(np.ceil(side / 2)))
