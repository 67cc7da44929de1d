"""Pictures for the eye and for models: stretches, cutouts, thumbnails, contact sheets.

Pixels are numpy arrays with rows first and the row 0 of the file first; NaN means "no data" and stays NaN until
something is rendered. No function modifies its input. PIL is imported when first needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science.images.picture import RGB, Picture, red_order

PRESETS = ("auto", "grey", "legacy", "sdss")
LUMA = (0.299, 0.587, 0.114)


def red_first(picture: Picture) -> np.ndarray:
    """Return flux (h, w, b) with the bands by falling wavelength, as `morphology` wants them.

    R, G, B stay. Where a band's name is not known the file is taken to run from blue to red, as survey stacks
    do.
    """
    return picture.flux[:, :, red_order(picture.bands)]


# ---- rendering


def render(picture: Picture | np.ndarray, *, preset: str = "auto") -> np.ndarray:
    """Return (h, w, 3) uint8 for the eye; NaN becomes background.

    `picture` is a Picture, uint8 pixels (passed through), or flux (h, w) or (h, w, b), bands from red to
    blue. Presets: "auto" passes stretched pictures through and gives flux an arcsinh stretch from its own
    noise and percentiles; "grey" is the same from the sum of all bands; "legacy" is the Legacy Surveys
    viewer's g, r, z mapping and "sdss" that of g, r, i (both after Lupton et al. 2004, PASP 116, 133) of flux
    in nanomaggies a pixel, so that pictures of one survey compare. Raises SchemaError where the bands a
    preset needs are not there.
    """
    if preset not in PRESETS:
        raise SchemaError(f"preset {preset!r} is not known; give one of {', '.join(PRESETS)}")
    if isinstance(picture, np.ndarray):
        picture = _as_picture(picture)
    if preset in ("legacy", "sdss"):
        return _survey(picture, preset)
    if picture.stretched:
        return _pass_through(picture.flux, preset)
    flux = red_first(picture)
    return _arcsinh(_one_or_three(flux, preset))


def _as_picture(pixels: np.ndarray) -> Picture:
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] == 0:
        raise SchemaError(f"pixels of shape {pixels.shape} cannot be rendered; give (h, w) or (h, w, bands)")
    eight_bit = pixels.dtype == np.uint8
    bands = RGB if pixels.shape[2] == 3 else tuple(f"band{n}" for n in range(pixels.shape[2], 0, -1))
    flux = pixels.astype(np.float32) / np.float32(255) if eight_bit else _finite(pixels)
    if bands != RGB:
        flux = flux[:, :, ::-1]  # unknown names are read from blue to red
    return Picture(flux, bands, stretched=eight_bit)


def _finite(pixels: np.ndarray) -> np.ndarray:
    """Return a float32 copy with NaN for what is infinite or too large for float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        flux = np.array(pixels, dtype=np.float32)
    flux[~np.isfinite(flux)] = np.nan
    return flux


def _pass_through(flux: np.ndarray, preset: str) -> np.ndarray:
    pixels = _bytes(flux)
    if preset == "grey" and pixels.shape[2] == 3:
        pixels = _bytes((flux @ np.array(LUMA, dtype=np.float32))[:, :, None])
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _bytes(values: np.ndarray) -> np.ndarray:
    shown = np.empty(values.shape, np.uint8)
    for rows in range(0, len(values), 256):  # a large picture in float is several times its bytes
        part = np.clip(np.nan_to_num(values[rows : rows + 256], nan=0.0), 0, 1)
        shown[rows : rows + 256] = np.round(part * 255)
    return shown


def _one_or_three(flux: np.ndarray, preset: str) -> np.ndarray:
    """Return noise-scaled planes (h, w, 1 or 3), sky at 0: reddest, middle and bluest band, or all in one."""
    planes = [_over_noise(flux[:, :, band]) for band in range(flux.shape[2])]
    if preset == "grey" or len(planes) == 1:
        return np.mean(planes, axis=0)[:, :, None]
    if len(planes) == 2:
        return np.stack([planes[0], (planes[0] + planes[1]) / 2, planes[1]], axis=2)
    return np.stack([planes[0], planes[len(planes) // 2], planes[-1]], axis=2)


def _over_noise(plane: np.ndarray) -> np.ndarray:
    """Return a band in units of its noise, sky and missing pixels 0.

    The noise is the lower half-width of the values, which sources do not widen; without noise, a hundredth of
    the brightest per cent.
    """
    values = plane[np.isfinite(plane)].astype(np.float64)
    if len(values) == 0:
        return np.zeros(plane.shape)
    low, sky, high = np.percentile(values, (15.87, 50, 99))
    top = high - sky if high > sky else float(np.ptp(values))
    noise = sky - low if sky > low else top / 100
    return np.nan_to_num((plane.astype(np.float64) - sky) / (noise or 1.0), nan=0.0)


def _arcsinh(planes: np.ndarray) -> np.ndarray:
    """Return bytes of an arcsinh stretch of the mean that keeps the ratio of the bands (Lupton et al. 2004).

    Linear below three sigmas; white is the 99.7th percentile, but at least ten sigmas, so that noise stays
    dark.
    """
    mean = planes.mean(axis=2)
    soft, white = 3.0, max(10.0, float(np.percentile(mean, 99.7)))
    light = np.maximum(mean, 0)
    gain = np.arcsinh(light / soft) / np.arcsinh(white / soft) / np.where(light > 0, light, 1)
    rgb = 0.04 + np.maximum(planes * gain[:, :, None], -0.04)
    return _keep_hue(np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb)


def _keep_hue(rgb: np.ndarray) -> np.ndarray:
    """Return bytes; where a band is above 1 all are divided by it: bright centers keep their color."""
    peak = rgb.max(axis=2, keepdims=True)
    return _bytes(np.where(peak > 1, rgb / np.where(peak > 1, peak, 1), rgb))


def _survey(picture: Picture, preset: str) -> np.ndarray:
    needed, scales, lift = {
        "legacy": (("z", "r", "g"), (2.2, 3.4, 6.0), 0.03),
        "sdss": (("i", "r", "g"), (1.0, 1.5, 2.5), 0.02),
    }[preset]
    indices = {band.lower(): index for index, band in enumerate(picture.bands)} if picture.bands != RGB else {}
    missing = [band for band in needed if band not in indices]
    if missing:
        raise SchemaError(
            f"{picture.name}: preset {preset!r} needs bands {', '.join(needed)}, and the picture has "
            f"{', '.join(picture.bands)}; use preset 'auto'"
        )
    scaled = np.nan_to_num(picture.flux[:, :, [indices[band] for band in needed]], nan=0.0) * np.array(scales)
    lifted = np.maximum(scaled + lift, 0)
    mean = lifted.mean(axis=2, keepdims=True)
    gain = np.arcsinh(20 * mean) / np.sqrt(20) / np.where(mean > 0, mean, 1)
    rgb = lifted * gain
    return _keep_hue(rgb) if preset == "sdss" else _bytes(rgb)


# ---- cutting


def color_map(blue: np.ndarray, red: np.ndarray, *, sigmas: float = 3.0) -> np.ndarray:
    """Return the color of each pixel in magnitudes, -2.5 log10(blue / red), `(h, w) float64`; more is redder.

    Each band is averaged over 3 x 3 pixels; its sky is the median of the border, a tenth of each side wide, and its
    noise 1.4826 times the median deviation there. NaN where either band is not `sigmas` of its noise above its sky, or
    has no data. The zero point is that of the bands: of uncalibrated ones only differences within a picture mean much.
    """
    above = []
    for band in (blue, red):
        mean = _mean_of_nine(np.asarray(band, np.float64))
        edge = max(1, min(mean.shape) // 10)
        inner = np.zeros(mean.shape, bool)
        inner[edge:-edge, edge:-edge] = True
        border = mean[~inner & np.isfinite(mean)]
        sky = float(np.median(border)) if len(border) else 0.0
        noise = 1.4826 * float(np.median(np.abs(border - sky))) if len(border) else 0.0
        above.append(np.where(mean - sky > sigmas * noise, mean - sky, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        return -2.5 * np.log10(above[0] / above[1])


def _mean_of_nine(band: np.ndarray) -> np.ndarray:
    """Return each pixel's mean with its eight neighbors that have data; NaN where it has none itself."""
    padded = np.pad(band, 1, constant_values=np.nan)
    parts = [padded[y : y + band.shape[0], x : x + band.shape[1]] for y in range(3) for x in range(3)]
    counts = np.sum([np.isfinite(part) for part in parts], axis=0)
    sums = np.sum([np.where(np.isfinite(part), part, 0.0) for part in parts], axis=0)
    return np.where(np.isfinite(band), sums / np.maximum(counts, 1), np.nan)


def cutout(array: np.ndarray, x_px: float, y_px: float, size_px: int) -> np.ndarray:
    """Return the square of `size_px` pixels around a position, a copy (size, size[, b]) of the same dtype.

    The pixel nearest to the position comes to row and column size // 2. Beyond the border floats are NaN and
    integers the median of the picture. Raises SchemaError for a position whose square does not meet the
    picture.
    """
    height, width = array.shape[:2]
    if not (np.isfinite(x_px) and np.isfinite(y_px)):
        raise SchemaError(f"position ({x_px}, {y_px}) is not finite; leave the object out or give pixel positions")
    if size_px < 1:
        raise SchemaError(f"cutout size {size_px} px is below 1; give the side in pixels")
    left, top = int(np.floor(x_px + 0.5)) - size_px // 2, int(np.floor(y_px + 0.5)) - size_px // 2
    rows = slice(max(top, 0), min(top + size_px, height))
    columns = slice(max(left, 0), min(left + size_px, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise SchemaError(f"position ({x_px:g}, {y_px:g}) lies off the picture of {width} x {height} pixels")
    inside = array[rows, columns]
    if inside.shape[:2] == (size_px, size_px):
        return inside.copy()
    framed = np.empty((size_px, size_px, *array.shape[2:]), dtype=array.dtype)
    framed[...] = _padding(array)
    framed[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = inside
    return framed


def _padding(array: np.ndarray):
    if np.issubdtype(array.dtype, np.floating):
        return np.nan
    step = max(1, int(np.sqrt(array.shape[0] * array.shape[1] / 100_000)))  # a sample is as good, and fast
    return np.median(array[::step, ::step], axis=(0, 1)).astype(array.dtype)


def square(rgb: np.ndarray) -> np.ndarray:
    """Return the central square of a picture, a view; the odd pixel is left at the end."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return rgb[top : top + side, left : left + side]


def model_input(rgb_list: Sequence[np.ndarray], size_px: int) -> np.ndarray:
    """Return (n, size, size, 3) uint8: each picture's central square, resized bicubically with antialiasing.

    Pictures are (h, w, 3) uint8, as `render` gives them. The list may be empty.
    """
    batch = np.empty((len(rgb_list), size_px, size_px, 3), dtype=np.uint8)
    for target, rgb in zip(batch, rgb_list, strict=True):
        target[...] = _resized(square(_checked(rgb)), size_px, "BICUBIC")
    return batch


def _checked(rgb: np.ndarray) -> np.ndarray:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape) == 0:
        raise SchemaError(f"pixels are {rgb.dtype} of shape {rgb.shape}, expected uint8 (h, w, 3); call render() first")
    return rgb


def _resized(rgb: np.ndarray, side: int, method: str) -> np.ndarray:
    from PIL import Image

    if rgb.shape[:2] == (side, side):
        return rgb
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return np.asarray(image.resize((side, side), Image.Resampling[method]))


# ---- showing


def encode_thumbnail(rgb: np.ndarray, *, size_px: int = 96) -> bytes:
    """Return a WebP (quality 90) of the central square, shrunk to `size_px`; a smaller one keeps its size."""
    from PIL import Image

    pixels = square(_checked(rgb))
    if len(pixels) > size_px:
        pixels = _resized(pixels, size_px, "LANCZOS")
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "WEBP", quality=90, method=4)
    return stream.getvalue()


def contact_sheet(
    sections: Sequence[tuple[str, Sequence[tuple[np.ndarray, str]]]],
    *,
    columns: int = 6,
    tile_px: int = 128,
) -> bytes:
    """Return a PNG of titled rows of labeled pictures on a dark background.

    `sections` are (title, [(rgb uint8 (h, w, 3), label), ...]). A picture's central square is scaled to
    `tile_px`; a label may have two lines, and what does not fit ends in an ellipsis. A section without
    pictures says "nothing".
    """
    from PIL import Image, ImageDraw

    gap, title_px, label_px = 10, 34, 34
    counts = [max(1, -(-len(tiles) // columns)) for _, tiles in sections]
    wide = gap + columns * (tile_px + gap)
    tall = gap + sum(title_px + rows * (tile_px + label_px + gap) for rows in counts)
    sheet = Image.new("RGB", (wide, tall), (16, 18, 24))
    pen, top = ImageDraw.Draw(sheet), gap
    for (title, tiles), rows in zip(sections, counts, strict=True):
        pen.text((gap, top), _fitted(pen, title, wide - 2 * gap, 18), fill=(240, 240, 245), font=_font(18))
        top += title_px
        if not tiles:
            pen.text((gap, top), "nothing", fill=(150, 155, 165), font=_font(14))
        for number, (rgb, label) in enumerate(tiles):
            left = gap + number % columns * (tile_px + gap)
            upper = top + number // columns * (tile_px + label_px + gap)
            tile = _resized(square(_checked(rgb)), tile_px, "BICUBIC")
            sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, upper))
            lines = [_fitted(pen, line, tile_px, 12) for line in label.split("\n")[:2]]
            pen.multiline_text(
                (left, upper + tile_px + 3), "\n".join(lines), fill=(200, 205, 215), font=_font(12), spacing=2
            )
        top += rows * (tile_px + label_px + gap)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(pen, text: str, width: int, size: int) -> str:
    """Return the text, shortened with an ellipsis until it is at most `width` pixels wide."""
    font = _font(size)
    if pen.textlength(text, font=font) <= width:
        return text
    kept = len(text)
    while kept and pen.textlength(text[:kept] + "…", font=font) > width:
        kept -= 1
    return text[:kept] + "…"
