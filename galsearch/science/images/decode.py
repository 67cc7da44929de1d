"""The one decoder of pictures: an allow-list of formats, bounds read from the header before anything is inflated.

A file is told by its first bytes, never by its name, and is handed to the one reader of that format: Pillow is never
asked to choose. What is not needed to show a picture (profiles, texts, further frames) is left out or not looked at.
The only error is SchemaError. Pillow and astropy are imported when first needed, so that a worker process may
import this module alone.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science.bounded import Limits, bad, content_of, inflated
from galsearch.science.images.picture import RGB, Picture

if TYPE_CHECKING:
    from PIL import Image


PICTURE = Limits(values=100_000_000, file_bytes=512 << 20)  # in color 33 megapixels; reading takes at most 1.5 GiB
MOSAIC = Limits(values=2_000_000_000, file_bytes=16 << 30)
THUMBNAIL = Limits(values=3 << 20, file_bytes=4 << 20, free_values=3 << 20)
TILES = "cut the picture into tiles"  # the remedy for what is too large
RASTERS = ("JPEG", "PNG", "WEBP", "TIFF")
FITS_SUFFIXES = tuple(stem + end for stem in (".fits", ".fit", ".fts") for end in ("", ".gz", ".bz2", ".fz"))
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".npy", ".fz", *FITS_SUFFIXES)  # of files to try
PICTURE_FORMATS = "JPEG, PNG, WebP, TIFF, FITS or .npy"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
PNG_EXIF_BYTES = 1 << 16
TIFF_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
MOST_BANDS = 16
NPY_HEADER_BYTES = 1 << 10
NPY_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[<>|=](?:[iu][1248]|f[248]))', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>\d{1,12}, ?\d{1,12}(?:, ?\d{1,12})?),?\),? ?\}\s*"
)


def check_bands(bands: Sequence[str] | None) -> None:
    """Raise SchemaError for bands of which one has no name, or of which there are none; None leaves them open."""
    if bands is not None and not (len(bands) and all(str(band).strip() for band in bands)):
        raise SchemaError(f"bands are {list(bands)}; name images or planes, such as g,r,z, or leave them out (--bands)")


def read_picture(
    source: str | Path | bytes,
    *,
    name: str | None = None,
    ext: str | int | None = None,
    bands: Sequence[str] | None = None,
    limits: Limits = PICTURE,
) -> Picture:
    """Return the picture in a JPEG, PNG, WebP, TIFF, FITS or .npy file; the latter two may be in gzip or bzip2.

    RGB pictures give bands R, G, B of 0 to 1, turned as their EXIF tag says; transparent pixels are laid over
    black; grayscale gives one band; of several pages the first is read. FITS gives one band for a 2-D image, b for a
    (b, h, w) stack, three for (h, w, 3). Of several images SCI is taken, else what else is called light (IMAGE, DATA),
    else the primary or the first that is not called a mask, a weight, an error, a model or the like; several only where
    each names a band of its own. `ext` names another (a name, NAME,VERSION or a number from 0), `bands` several in
    their order, or planes of a stack; both are for FITS, `bands` for stacks in .npy too. An array of bytes in .npy is
    a picture for the eye, of other numbers flux, (h, w), (b, h, w) or (h, w, 3).
    Raises SchemaError with the file's name, the reason and a remedy for a file that is empty, truncated, no
    picture, beyond `limits`, without any finite pixel, of one value throughout, or of other dimensions.
    """
    check_bands(bands)
    name = name or (Path(source).name if isinstance(source, (str, Path)) else "picture")
    content = _content(source, name, limits)
    kind = kind_of(content)
    values = limits.values_of(len(content))
    try:
        if kind == "FITS":
            from galsearch.science.images.fits import read_fits

            picture = read_fits(content, name, ext=ext, bands=bands, values=values)
        elif kind == "NPY":
            picture = _read_npy(content, name, bands, values)
        else:
            picture = _read_raster(content, kind, name, values)
    except MemoryError as error:
        raise bad(name, "there is not enough memory to read it", "cut the picture into tiles") from error
    _check_shows_something(picture)
    return picture


def kind_of(content: bytes) -> str | None:
    """Return the format by the first bytes: one of RASTERS, FITS, NPY, GZIP or BZIP2; None for anything else."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    starts = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"II*\x00": "TIFF",
        b"MM\x00*": "TIFF",
        b"SIMPLE  =": "FITS",
        b"\x93NUMPY": "NPY",
        b"\x1f\x8b\x08": "GZIP",
        b"BZh": "BZIP2",
    }
    return next((kind for start, kind in starts.items() if content.startswith(start)), None)


def decode_thumbnail(content: bytes) -> np.ndarray:
    """Return (h, w, 3) uint8 of a stored thumbnail, JPEG, PNG or WebP; SchemaError where it is none or damaged."""
    name = "thumbnail"
    if not isinstance(content, bytes) or not content:
        raise bad(name, "there is no picture", "build the atlas again")
    if len(content) > THUMBNAIL.file_bytes:
        raise bad(name, f"it has {len(content):,} bytes, expected at most {THUMBNAIL.file_bytes:,}", "build it again")
    kind = kind_of(content)
    flux = _read_raster(content, kind if kind != "TIFF" else None, name, THUMBNAIL.values).flux
    shown = np.rint(flux * 255).astype(np.uint8)
    return np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown


# ---- bytes


def _content(source: str | Path | bytes, name: str, limits: Limits) -> bytes:
    """Return the bytes of a picture, FITS and .npy without their gzip or bzip2 wrapping."""
    outer = content_of(source, name, limits, remedy=TILES)
    kind = kind_of(outer)
    if kind not in ("GZIP", "BZIP2"):
        return outer
    inner = inflated(outer, name, limits, remedy=TILES)
    if kind_of(inner) not in ("FITS", "NPY"):
        raise bad(name, f"what is in its {kind.lower()} is neither FITS nor .npy", f"give {PICTURE_FORMATS}")
    return inner


# ---- pictures for the eye


def _damage() -> tuple[type[Exception], ...]:
    """Return what Pillow's decoders raise for damaged data."""
    from PIL import Image

    return (
        ArithmeticError,
        AttributeError,
        AssertionError,
        EOFError,
        Image.DecompressionBombError,
        LookupError,
        NotImplementedError,
        OSError,
        RuntimeError,
        struct.error,
        SyntaxError,
        TypeError,
        ValueError,
        zlib.error,
    )


def _read_raster(content: bytes, kind: str | None, name: str, values: int) -> Picture:
    if kind not in RASTERS:
        raise bad(name, _guess(content), f"give {PICTURE_FORMATS}")
    from PIL import Image

    if kind == "WEBP":  # Pillow makes room for all of it before it tells the size
        _check_size(*_webp_size(content, name), name, values)
    if kind == "PNG":
        content = _needed_chunks(content, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=(kind,)) as image:
                _check_size(*image.size, name, values, bands=1 if len(image.getbands()) == 1 else 3)
                notes = _check_tiff(image, name, values) if kind == "TIFF" else ()
                turned = _turned(image)
                return _from_image(turned, name, notes)
    except _damage() as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise bad(name, f"the picture is truncated or damaged ({reason})", "fetch it again") from error


def _guess(content: bytes) -> str:
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "it is a web page or another text of marks, not a picture (perhaps a server's answer saved as one)"
    if head[:1] in (b"{", b"["):
        return "it is JSON text, not a picture (a server's answer saved under a picture's name)"
    return f"it is not a picture that can be read (it begins with {content[:8]!r})"


def _check_size(width: int, height: int, name: str, values: int, *, bands: int = 3) -> None:
    if min(width, height) < 1 or width * height * bands > values:
        reason = f"it has {width:,} x {height:,} pixels in {bands} bands, and at most {values:,} values are read"
        raise bad(name, reason, "cut the picture into tiles or shrink it")


def _webp_size(content: bytes, name: str) -> tuple[int, int]:
    """Return the larger of the sizes that the first chunks of a WebP give."""
    sizes: list[tuple[int, int]] = []
    offset = 12
    while offset + 8 <= min(len(content), 1 << 20) and len(sizes) < 3:
        kind, length = content[offset : offset + 4], int.from_bytes(content[offset + 4 : offset + 8], "little")
        data = content[offset + 8 : offset + 18]
        if kind == b"VP8X" and len(data) == 10:
            sizes.append((int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1))
        elif kind == b"VP8L" and data[:1] == b"\x2f":
            packed = int.from_bytes(data[1:5], "little")
            sizes.append(((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1))
        elif kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
            packed = int.from_bytes(data[6:10], "little")
            sizes.append((packed & 0x3FFF, packed >> 16 & 0x3FFF))
        offset += 8 + length + length % 2
    if not sizes:
        raise bad(name, "the picture is truncated or damaged (a WebP without a size)", "fetch it again")
    return max(sizes, key=math.prod)


def _needed_chunks(content: bytes, name: str) -> bytes:
    """Return a PNG without what is not needed to show it: texts, profiles and frames may inflate to anything."""
    kept, offset = [content[:8]], 8
    while offset + 8 <= len(content):
        length, kind = int.from_bytes(content[offset : offset + 4], "big"), content[offset + 4 : offset + 8]
        if kind in PNG_CHUNKS and not (kind == b"eXIf" and length > PNG_EXIF_BYTES):
            kept.append(content[offset : offset + 12 + length])
        if kind == b"IEND":
            break
        offset += 12 + length
    return b"".join(kept)


def _check_tiff(image: Image.Image, name: str, values: int) -> tuple[str, ...]:
    from PIL.TiffImagePlugin import TiffImageFile

    assert isinstance(image, TiffImageFile)  # it was opened as TIFF
    tags = image.tag_v2
    compression = tags.get(259, 1)
    if compression not in TIFF_COMPRESSIONS:
        listed = ", ".join(sorted(set(TIFF_COMPRESSIONS.values())))
        raise bad(name, f"its TIFF compression is number {compression}, which is not read", f"save it with {listed}")
    if int(tags.get(322, 1)) * int(tags.get(323, 1)) * 4 > max(values, 1 << 24):
        raise bad(name, f"its TIFF tiles have {tags.get(322)} x {tags.get(323)} pixels", "save it without tiles")
    return ("took the first page of several",) if tags.next else ()


def _turned(image: Image.Image) -> Image.Image:
    """Return the picture as its EXIF tag says it was seen; a tag that cannot be read says nothing."""
    from PIL import Image

    try:
        orientation = image.getexif().get(0x0112)
    except _damage():
        orientation = None
    how = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation) if isinstance(orientation, int) else None
    return image if how is None else image.transpose(Image.Transpose(how))


def _from_image(image: Image.Image, name: str, notes: tuple[str, ...]) -> Picture:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit or float: data, not a rendering
        flux = np.array(image).astype(np.float32, copy=False)
        flux[~np.isfinite(flux)] = np.nan
        return Picture(flux[:, :, None], ("grey",), name, notes=notes)
    if image.mode in ("1", "L"):
        return Picture(_eight_bit(image.convert("L"))[:, :, None], ("grey",), name, stretched=True, notes=notes)
    return Picture(_eight_bit(_flat(image)), RGB, name, stretched=True, notes=notes)


def _eight_bit(image: Image.Image) -> np.ndarray:
    flux = np.array(image, dtype=np.float32)
    flux /= np.float32(255)
    return flux


def _flat(image: Image.Image) -> Image.Image:
    """Return an RGB image, what is transparent laid over black."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    return image.convert("RGB")


# ---- arrays


def _read_npy(content: bytes, name: str, bands: Sequence[str] | None, values: int) -> Picture:
    array = _npy_array(content, name, values)
    if array.ndim == 3 and array.shape[0] > MOST_BANDS and array.shape[2] in (3, 4):
        array = array[:, :, :3]
    elif array.ndim == 3:
        array = np.moveaxis(array, 0, 2)
    else:
        array = array[:, :, None]
    if array.shape[2] > MOST_BANDS:
        remedy = f"give (h, w), (bands, h, w) of at most {MOST_BANDS} bands, or (h, w, 3)"
        raise bad(name, f"the array has {array.shape[2]} planes", remedy)
    eight_bit = array.dtype == np.uint8 and array.shape[2] in (1, 3)
    names = ("grey",) if array.shape[2] == 1 else RGB if eight_bit else _plane_names(array.shape[2], bands, name)
    with np.errstate(over="ignore", invalid="ignore"):
        flux = np.array(array, dtype=np.float32, order="C")
    if eight_bit:
        flux /= np.float32(255)
    flux[~np.isfinite(flux)] = np.nan
    return Picture(flux, names, name, stretched=eight_bit)


def _plane_names(count: int, bands: Sequence[str] | None, name: str) -> tuple[str, ...]:
    if bands is None:
        return tuple(f"band{number}" for number in range(1, count + 1))
    if len(bands) != count:
        raise bad(name, f"the array has {count} planes, and {len(bands)} bands are named", "name each plane")
    return tuple(bands)


def _npy_array(content: bytes, name: str, values: int) -> np.ndarray:
    """Return the numbers of a .npy file, a view of its bytes; its header is matched, not run as numpy does."""
    length, start = (struct.unpack("<H", content[8:10].ljust(2, b"\0"))[0], 10)
    if content[6:7] in (b"\x02", b"\x03"):
        length, start = (struct.unpack("<I", content[8:12].ljust(4, b"\0"))[0], 12)
    text = content[start : start + min(length, NPY_HEADER_BYTES)].decode("latin-1")
    result = NPY_HEADER.fullmatch(text)
    if result is None or content[6:7] not in (b"\x01", b"\x02", b"\x03"):
        reason = f"it is no array of numbers ({' '.join(text[:80].split())!r})"
        raise bad(name, reason, "save integers or floats of 2 or 3 axes with numpy.save")
    kind, shape = np.dtype(result["descr"]), tuple(int(side) for side in result["shape"].rstrip(", ").split(","))
    if min(shape) < 1:
        raise bad(name, f"the array has shape {shape}", "save one with pixels")
    count, start = math.prod(shape), start + length
    if count > values:
        raise bad(name, f"the array has {count:,} values, and at most {values:,} are read", "cut it into tiles")
    if len(content) - start < count * kind.itemsize:
        needed = start + count * kind.itemsize
        raise bad(name, f"the .npy file is truncated ({len(content):,} of {needed:,} bytes)", "fetch it again")
    order: Literal["F", "C"] = "F" if result["fortran"] == "True" else "C"
    return np.frombuffer(content, kind, count, start).reshape(shape, order=order)


def _check_shows_something(picture: Picture) -> None:
    low, high = (
        reduction.reduce(picture.flux, axis=None) for reduction in (np.fmin, np.fmax)
    )  # NaN counts for nothing
    if np.isnan(low) or (low == high and np.isinf(low)):
        remedy = "leave the file out; the object lies off the survey's footprint"
        raise bad(picture.name, "every pixel is NaN", remedy)
    if low == high:
        raise bad(picture.name, f"every pixel has the value {high:g}", "leave the file out; it shows nothing")
