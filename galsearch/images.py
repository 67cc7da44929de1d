"""Pictures of galaxies: reading files, rendering, cutting out, thumbnails, contact sheets, model input.

The module hides file formats (JPEG, PNG, WebP, TIFF and FITS, told apart by content, not by suffix), band
order and stretches. Pixels are numpy arrays with rows first and the row 0 of the file first; NaN means "no
data" and stays NaN until something is rendered. No function modifies its input. PIL and astropy are imported
when first needed.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from galsearch.errors import SchemaError

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from PIL import Image

RGB = ("R", "G", "B")
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
NOT_LIGHT = re.compile(
    r"^(err|error|dq|mask|wht|weight|var|variance|ivar|invvar|rms|nexp|psf|ctx|wcscorr|d2im|samp)", re.I
)
MOST_BANDS = 16
# wavelengths in nm, for ordering bands only
WAVELENGTHS = {
    "u": 355,
    "g": 475,
    "r": 622,
    "i": 763,
    "z": 905,
    "y": 1000,
    "j": 1250,
    "h": 1650,
    "k": 2200,
    "ks": 2200,
}
WAVELENGTHS |= {
    "nuv": 230,
    "fuv": 150,
    "b": 440,
    "v": 550,
    "vis": 715,
    "w1": 3400,
    "w2": 4600,
    "w3": 12000,
    "w4": 22000,
}
PRESETS = ("auto", "grey", "legacy", "sdss")
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Picture:
    """What a file shows: `flux` (h, w, b) float32 with NaN for no data, and the name of each band.

    `stretched` is True for pictures that were made for the eye (8-bit JPEG, PNG, WebP): their flux is 0 to 1
    and `render` gives their bytes back. Bands are in the order of the file; `red_first` sorts them.
    """

    flux: np.ndarray
    bands: tuple[str, ...]
    name: str = "picture"
    stretched: bool = False
    header: Any = field(default=None, repr=False)

    def celestial_wcs(self) -> WCS | None:
        """Return the astropy WCS of the two sky axes, None where the file has none.

        Raises SchemaError, with the key at fault where it is known, for a header that has one which does not
        work.
        """
        return None if self.header is None else _celestial_wcs(self.header, self.name)

    @property
    def wcs(self) -> WCS | None:
        """The same as `celestial_wcs()`."""
        return self.celestial_wcs()

    @property
    def pixel_arcsec(self) -> float | None:
        """Side of a pixel on the sky, None without a working WCS: `celestial_wcs` says why."""
        try:
            wcs = self.celestial_wcs()
        except SchemaError:
            return None
        return None if wcs is None else float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)

    def sky_position(self, x_px: float, y_px: float) -> tuple[float, float] | None:
        """Return (ra, dec) in degrees ICRS of a pixel position counted from 0, None without a WCS."""
        wcs = self.celestial_wcs()
        if wcs is None:
            return None
        place = wcs.pixel_to_world(x_px, y_px).icrs
        return float(place.ra.deg), float(place.dec.deg)


# ---- reading


def read_picture(source: str | Path | bytes, *, name: str | None = None) -> Picture:
    """Return the picture in a JPEG, PNG, WebP, TIFF or FITS file (plain, gzipped or tile-compressed).

    RGB pictures give bands R, G, B of 0 to 1, turned as their EXIF tag says; transparent pixels are laid over
    black; grayscale gives one band. FITS gives one band for a 2-D image, b for a (b, h, w) stack, three for
    (h, w, 3), or one for each 2-D image extension; extensions of errors, weights and masks are left out.
    Raises SchemaError with the file's name, the reason and a remedy for a file that is empty, truncated, no
    picture, without any finite pixel, of one value throughout, or of other dimensions.
    """
    name = name or (Path(source).name if isinstance(source, (str, Path)) else "picture")
    content = _content(source, name)
    if content[:2] == b"\x1f\x8b":
        content = _gunzip(content, name)
    picture = _read_fits(content, name) if content[:6] == b"SIMPLE" else _read_raster(content, name)
    if not np.isfinite(picture.flux).any():
        raise _bad(name, "every pixel is NaN", "leave the file out; the object lies off the survey's footprint")
    if np.nanmin(picture.flux) == np.nanmax(picture.flux):
        value = float(np.nanmax(picture.flux))
        raise _bad(name, f"every pixel has the value {value:g}", "leave the file out; it shows nothing")
    return picture


def _bad(name: str, reason: str, remedy: str) -> SchemaError:
    return SchemaError(f"{name}: {reason}; {remedy}")


def _content(source: str | Path | bytes, name: str) -> bytes:
    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise _bad(name, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    if not content:
        raise _bad(name, "the file is empty (0 bytes)", "fetch it again")
    return content


def _gunzip(content: bytes, name: str) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise _bad(
            name, f"gzip cannot unpack it ({error})", "the file is cut short or damaged; fetch it again"
        ) from error


def _read_raster(content: bytes, name: str) -> Picture:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as opened:
                image = ImageOps.exif_transpose(opened)
                return _from_image(image, name)
    except UnidentifiedImageError:
        raise _bad(name, _guess(content), "give JPEG, PNG, WebP, TIFF or FITS") from None
    except Image.DecompressionBombError as error:
        raise _bad(name, str(error), "cut the picture into tiles or save it as FITS") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
    ) as error:  # what PIL's decoders raise for damaged data
        raise _bad(name, f"the picture is truncated or damaged ({error})", "fetch it again") from error


def _guess(content: bytes) -> str:
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "it is a web page, not a picture (a server's answer saved under a picture's name)"
    if head[:1] in (b"{", b"["):
        return "it is JSON text, not a picture (a server's answer saved under a picture's name)"
    return f"it is not a picture that can be read (it begins with {content[:8]!r})"


def _from_image(image: Image.Image, name: str) -> Picture:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit or float: data, not a rendering
        flux = np.asarray(image).astype(np.float32)
        return Picture(_finite(flux)[:, :, None], ("grey",), name)
    if image.mode in ("1", "L"):
        return Picture(_eight_bit(image.convert("L"))[:, :, None], ("grey",), name, stretched=True)
    return Picture(_eight_bit(_flat(image)), RGB, name, stretched=True)


def _eight_bit(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _flat(image: Image.Image) -> Image.Image:
    """Return an RGB image, what is transparent laid over black."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _read_fits(content: bytes, name: str) -> Picture:
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # truncation is looked for below, by size
        try:
            with fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=False) as units:
                _check_complete(units, len(content), name)
                planes = [(unit.header.copy(), _plane(unit, name)) for unit in _light_units(units, name)]
        except _fits_errors() as error:
            raise _bad(
                name, f"the FITS file is damaged ({error})", "fetch it again or check it with fitsverify"
            ) from error
    return _stack(planes, name)


def _fits_errors() -> tuple[type[Exception], ...]:
    """Return what astropy raises for damaged files; the error of its decompressor has no public name."""
    from astropy.io import fits

    known = (OSError, TypeError, ValueError, KeyError, IndexError, AttributeError, fits.VerifyError)
    try:
        from astropy.io.fits.hdu.compressed._compression import CfitsioException
    except ImportError:
        return known
    return (*known, CfitsioException)


def _check_complete(units, size: int, name: str) -> None:
    needed = max(_end(unit) for unit in units)
    if needed > size:
        raise _bad(name, f"the FITS file is truncated ({size:,} of {needed:,} bytes)", "fetch it again")


def _end(unit) -> int:
    where = unit.fileinfo()
    return where["datLoc"] + where["datSpan"]


def _light_units(units, name: str) -> list:
    """Return the HDUs whose images are light: not tables, not errors, weights or masks."""
    images = [unit for unit in units if unit.is_image and unit.header.get("NAXIS", 0) >= 2]
    light = [unit for unit in images if not NOT_LIGHT.match(str(unit.header.get("EXTNAME", "")))] or images
    if not light:
        kinds = ", ".join(type(unit).__name__.removesuffix("HDU") for unit in units)
        raise _bad(
            name,
            f"the FITS file has no image (it has {kinds})",
            "give the table as the catalog, not as a picture",
        )
    return light


def _plane(unit, name: str) -> np.ndarray:
    """Return an HDU's data as (b, h, w) float32."""
    data = np.asarray(unit.data)
    while data.ndim > 2 and data.shape[0] == 1:  # degenerate axes of radio images
        data = data[0]
    data = _finite(data)
    if data.ndim == 2:
        return data[None]
    if data.ndim == 3 and data.shape[0] <= MOST_BANDS:
        return data
    if data.ndim == 3 and data.shape[2] in (3, 4):
        return np.moveaxis(data[:, :, :3], 2, 0)
    raise _bad(
        name,
        f"the FITS image has shape {data.shape}",
        f"give 2-D images or (bands, height, width) of at most {MOST_BANDS} bands; collapse spectral cubes",
    )


def _finite(data: np.ndarray) -> np.ndarray:
    """Return a float32 copy with NaN for what is infinite or too large for float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        flux = np.array(data, dtype=np.float32)
    flux[~np.isfinite(flux)] = np.nan
    return flux


def _stack(planes: list, name: str) -> Picture:
    sizes = {data.shape[1:] for _, data in planes}
    if len(sizes) > 1:
        listed = ", ".join(str(size) for size in sorted(sizes))
        raise _bad(name, f"its images have different sizes {listed}", "resample them to one grid or keep one a file")
    header = planes[0][0]
    flux = np.ascontiguousarray(np.moveaxis(np.concatenate([data for _, data in planes]), 0, 2))
    bands = [band for head, data in planes for band in _band_names(head, len(data), single=len(planes) == 1)]
    bands = [band or f"band{number}" for number, band in enumerate(bands, start=1)]
    if len(set(bands)) < len(bands):
        bands = [f"band{number}" for number in range(1, len(bands) + 1)]
    return Picture(flux, tuple(bands), name, header=header)


def _band_names(header, count: int, *, single: bool) -> list[str | None]:
    """Return the band of each plane by header: BANDS 'grz', BAND0.., FILTER1.., FILTER, BAND, EXTNAME."""
    together = str(header.get("BANDS", "")).replace(",", " ").strip()
    words = together.split() if " " in together else list(together)
    if len(words) == count:
        return words
    for key, first in (("BAND", 0), ("BAND", 1), ("FILTER", 0), ("FILTER", 1)):
        named = [str(header.get(f"{key}{first + step}", "")).strip() for step in range(count)]
        if count > 1 and all(named):
            return named
    keys = ("FILTER", "BAND", *(() if single else ("EXTNAME",)))
    found = next((str(header[key]).strip() for key in keys if str(header.get(key, "")).strip()), None)
    return [found] if count == 1 else [None] * count


# ---- where the pixels lie


def _celestial_wcs(header, name: str) -> WCS | None:
    from astropy.utils.exceptions import AstropyWarning
    from astropy.wcs import WCS

    if not any(str(header.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2)):
        return None
    _check_numbers(header, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(header)
            celestial = wcs.celestial if wcs.has_celestial else None
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        MemoryError,
    ) as error:  # WcsError is a ValueError
        raise _bad(name, f"its WCS does not work ({' '.join(str(error).split())})", _WCS_REMEDY) from error
    if celestial is not None and not _invertible(celestial):
        raise _bad(name, "its WCS has no scale (CD or CDELT make a singular matrix)", _WCS_REMEDY)
    return celestial


_WCS_REMEDY = "mend CTYPE, CRVAL, CRPIX and CD in the header, or give ra and dec in the table"


def _check_numbers(header, name: str) -> None:
    keys = [f"{stem}{axis}" for stem in ("CRVAL", "CRPIX", "CDELT") for axis in (1, 2)]
    keys += [f"{stem}{row}_{column}" for stem in ("CD", "PC") for row in (1, 2) for column in (1, 2)]
    for key in keys:
        value = header.get(key, 0.0)
        if isinstance(value, (str, bool)) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise _bad(name, f"its WCS key {key} is {value!r}, which is no number", _WCS_REMEDY)


def _invertible(wcs: WCS) -> bool:
    size = np.linalg.det(wcs.pixel_scale_matrix)
    return bool(np.isfinite(size) and size != 0)


def band_wavelength(band: str) -> float | None:
    """Return a band's rough wavelength in nm, for ordering; None where the name is not known."""
    short = band.strip().lower().split()[-1] if band.strip() else ""
    hubble = re.search(r"f(\d{3})(?:w|m|n|lp|x)", short)
    if hubble:
        number = float(hubble.group(1))
        return number * 10 if number < 200 else number  # F160W is 1.6 micrometers, F606W is 606 nm
    short = re.split(r"[._\-/]", short)[0 if short[:2] not in ("sd", "de", "ps", "hs") else -1]
    return WAVELENGTHS.get(short)


def red_first(picture: Picture) -> np.ndarray:
    """Return flux (h, w, b) with the bands by falling wavelength, as `morphology` wants them.

    R, G, B stay. Where a band's name is not known the file is taken to run from blue to red, as survey stacks
    do.
    """
    return picture.flux[:, :, _red_order(picture.bands)]


def _red_order(bands: tuple[str, ...]) -> list[int]:
    if bands == RGB:
        return [0, 1, 2]
    waves = [band_wavelength(band) for band in bands]
    if any(wave is None for wave in waves):
        return list(range(len(bands)))[::-1]
    return sorted(range(len(bands)), key=lambda index: -waves[index])


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


def _pass_through(flux: np.ndarray, preset: str) -> np.ndarray:
    pixels = _bytes(flux)
    if preset == "grey" and pixels.shape[2] == 3:
        pixels = _bytes((flux @ np.array(LUMA, dtype=np.float32))[:, :, None])
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.round(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * 255).astype(np.uint8)


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
    places = {band.lower(): index for index, band in enumerate(picture.bands)} if picture.bands != RGB else {}
    missing = [band for band in needed if band not in places]
    if missing:
        raise SchemaError(
            f"{picture.name}: preset {preset!r} needs bands {', '.join(needed)}, and the picture has "
            f"{', '.join(picture.bands)}; use preset 'auto'"
        )
    scaled = np.nan_to_num(picture.flux[:, :, [places[band] for band in needed]], nan=0.0) * np.array(scales)
    lifted = np.maximum(scaled + lift, 0)
    mean = lifted.mean(axis=2, keepdims=True)
    gain = np.arcsinh(20 * mean) / np.sqrt(20) / np.where(mean > 0, mean, 1)
    rgb = lifted * gain
    return _keep_hue(rgb) if preset == "sdss" else _bytes(rgb)


# ---- cutting


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
    for place, rgb in zip(batch, rgb_list, strict=True):
        place[...] = _resized(square(_checked(rgb)), size_px, "BICUBIC")
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


def decode_thumbnail(content: bytes) -> np.ndarray:
    """Return (h, w, 3) uint8 of a stored thumbnail; SchemaError where it is damaged."""
    return _pass_through(_read_raster(content, "thumbnail").flux, "auto")


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
