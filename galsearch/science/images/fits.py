"""FITS pictures: which images of a file are light, and their pixels.

The module hides the layout of a FITS file and the habits of its writers. Headers are read here, card by card, and every
size is checked before anything is allocated; astropy is asked for tile-compressed images alone, with a header of the
keys that count and after every tile was looked at. Light is chosen by an allow-list: what is called a weight, a mask,
an uncertainty, a model or the like is never taken for a band unless somebody names it.
"""

from __future__ import annotations

import io
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science.images.picture import Picture, bad, band_wavelength, quiet

BLOCK = 2880
MOST_UNITS = 1000
MOST_HEADER_BYTES = 4 << 20
MOST_AXES = 12
MOST_BANDS = 16
MOST_TILES = 65_536
LIGHT = ("sci", "science", "image", "img", "data", "flux", "primary", "coadd", "signal", "compressed_image")
NOT_LIGHT = re.compile(
    r"errors?|err|stat|std|stdev|stddev|sigma|sig|unc|uncert(ainty)?|var|variance|ivar|invvar|inverse|rms|noise"
    r"|dq|mask|msk|maskbits|flags?|quality|qual|bad|badpix|bpm|pixmask"
    r"|wht|wgt|wt|weights?|wtmap|exp|expmap|exptime|exposure|nexp|time|samp|num|nobs|ncombine"
    r"|con|context|ctx|cov|coverage|footprint|area|psf|psfdepth|galdepth|depth|kernel"
    r"|wcscorr|wcsdvarr|d2imarr|hdrtab|asdf"
    r"|seg|segm|segmentation|segmap|models?|mod|blobmodel|resid|residuals?|res|chi2?|bkg|background|back|sky|skymodel"
)
ROLE_KEYS = ("EXTNAME", "DES_EXT", "IMTYPE", "HDUCLAS2")
PIXELS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# HCOMPRESS is left out because its decoder reads past damaged tiles, PLIO because it holds masks
TILE_COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "NOCOMPRESS")
TILE_KEYS = re.compile(
    r"XTENSION|BITPIX|NAXIS[12]?|PCOUNT|GCOUNT|TFIELDS|THEAP|(TTYPE|TFORM|TSCAL|TZERO|TNULL)\d|BSCALE|BZERO|BLANK"
    r"|ZIMAGE|ZCMPTYPE|ZBITPIX|ZNAXIS\d?|(ZTILE|ZNAME|ZVAL)\d|ZSCALE|ZZERO|ZBLANK|ZQUANTIZ|ZDITHER0"
)
CELL_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "P": 8, "Q": 16}
_REMEDY = "fetch it again or check it with fitsverify"
_CHOICE = "name one with ext (--ext), or several with bands (--bands)"


@dataclass(frozen=True)
class Unit:
    """One header and data unit: its number from 0, values by key, and where its header and data lie in the file.

    `shape` is that of its image in the order of numpy, () where it has none; `size` is in bytes without padding.
    """

    number: int
    header: dict[str, Any]
    cards: list[bytes]
    data: int
    size: int
    shape: tuple[int, ...]

    @property
    def label(self) -> str:
        """What a person calls it."""
        name = str(self.header.get("EXTNAME", "")).strip()
        return name or ("the primary image" if self.number == 0 else f"extension {self.number}")

    @property
    def is_compressed(self) -> bool:
        return self.header.get("ZIMAGE") is True

    def words(self, key: str) -> list[str]:
        """Return the words of a text value, in lower case."""
        return [word for word in re.split(r"[^a-z0-9]+", str(self.header.get(key, "")).lower()) if word]

    def is_not_light(self) -> bool:
        """Tell whether a name says that this is a weight, a mask, a model or the like."""
        words = [word for key in ROLE_KEYS for word in self.words(key)]
        return any(NOT_LIGHT.fullmatch(word) or NOT_LIGHT.fullmatch(word.rstrip("0123456789")) for word in words)

    def light_rank(self) -> int | None:
        """Return the place of its name in LIGHT, None where it does not say that it is light."""
        names = [words[0].rstrip("0123456789") for key in ROLE_KEYS if (words := self.words(key))]
        ranks = [LIGHT.index(name) for name in names if name in LIGHT]
        return None if self.is_not_light() or not ranks else min(ranks)

    def band(self) -> str | None:
        """Return the band that its own name or header says, None where none is known."""
        for key in ("FILTER", "BAND"):
            stated = str(self.header.get(key, "")).strip()
            if stated and band_wavelength(stated) is not None:
                return stated
        name = str(self.header.get("EXTNAME", "")).strip()
        parts = [name, *re.split(r"[^A-Za-z0-9]+", name)]
        return next((part for part in parts if part and band_wavelength(part) is not None), None)


def read_fits(content: bytes, name: str, *, ext: str | int | None, bands: Sequence[str] | None, values: int) -> Picture:
    """Return the light of a FITS file, at most `values` numbers of it; `ext` and `bands` say which.

    Raises SchemaError for a damaged file and where no image is light.
    """
    units = scan(content, name)
    chosen, names, notes = _choose(units, ext, bands, name)
    sizes = {unit.shape[-2:] for unit in chosen}
    if len(sizes) > 1:
        listed = ", ".join(str(size) for size in sorted(sizes))
        raise bad(name, f"its images have different sizes {listed}", "resample them to one grid or keep one a file")
    needed = sum(math.prod(unit.shape) for unit in chosen)
    if needed > values:
        raise bad(name, f"its pixels are {needed:,} values, and at most {values:,} are read", "cut it into tiles")
    planes = [_planes(content, unit, name, values) for unit in chosen]
    return replace(_stacked(units[0], chosen, planes, names, name), notes=tuple(notes))


# ---- headers


def scan(content: bytes, name: str) -> list[Unit]:
    """Return the units of a FITS file; what follows the last one is passed over.

    Raises SchemaError for headers that make no sense and for a file that ends within a unit.
    """
    units: list[Unit] = []
    offset = 0
    while offset < len(content) and (not units or content[offset : offset + 8] == b"XTENSION"):
        if len(units) == MOST_UNITS:
            raise bad(name, f"the FITS file has more than {MOST_UNITS:,} units", "split it")
        unit = _unit(content, offset, len(units), name)
        if unit.data + unit.size > len(content):
            reason = f"the FITS file is truncated ({len(content):,} of {unit.data + unit.size:,} bytes)"
            raise bad(name, reason, "fetch it again")
        units.append(unit)
        offset = unit.data + -(-unit.size // BLOCK) * BLOCK
    return units


def _unit(content: bytes, offset: int, number: int, name: str) -> Unit:
    cards, data = _cards(content, offset, name)
    header: dict[str, Any] = {}
    for card in cards:
        key = card[:8].rstrip().decode("ascii", "replace")
        if card[8:10] == b"= " and key not in header:
            header[key] = _value(card[10:].decode("ascii", "replace"))
    axes = _axes(header, "NAXIS", name)
    bits = header.get("BITPIX")
    if bits not in PIXELS:
        raise _damaged(name, f"BITPIX is {bits!r}")
    groups = axes[1:] if header.get("GROUPS") is True and axes[:1] == [0] else axes
    parameters, count = (_whole(header, key, default, name) for key, default in (("PCOUNT", 0), ("GCOUNT", 1)))
    size = abs(bits) // 8 * count * (parameters + math.prod(groups)) if axes else 0
    return Unit(number, header, cards, data, size, _image_shape(header, axes, name))


def _cards(content: bytes, offset: int, name: str) -> tuple[list[bytes], int]:
    """Return the cards of a header before its END, and where the data begin."""
    cards: list[bytes] = []
    for at in range(offset, min(len(content), offset + MOST_HEADER_BYTES), 80):
        card = content[at : at + 80]
        if card[:8] == b"END     ":
            return cards, offset + -(-(at + 80 - offset) // BLOCK) * BLOCK
        cards.append(card)
    raise _damaged(name, "a header does not end")


def _value(text: str) -> Any:
    """Return the value of a card: str, bool, int or float; None for what is none of these.

    >>> _value(" 'O''Neill  '  / observer"), _value(" 1.5D3"), _value(" T / yes"), _value(" 12")
    ("O'Neill", 1500.0, True, 12)
    """
    text = text.strip()
    if result := re.match(r"'((?:[^']|'')*)'?", text):
        return result.group(1).replace("''", "'").rstrip()
    text = text.partition("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    if re.fullmatch(r"[+-]?\d{1,40}", text):
        return int(text)
    try:
        return float(text.upper().replace("D", "E")) if text and "_" not in text else None
    except ValueError:
        return None


def _axes(header: dict[str, Any], stem: str, name: str) -> list[int]:
    """Return the lengths of the axes, the fastest first."""
    count = header.get(stem)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_AXES:
        raise _damaged(name, f"{stem} is {count!r}, expected 0 to {MOST_AXES}")
    return [_whole(header, f"{stem}{axis}", None, name) for axis in range(1, count + 1)]


def _whole(header: dict[str, Any], key: str, default: int | None, name: str) -> int:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _damaged(name, f"{key} is {value!r}, expected a whole number")
    return value


def _damaged(name: str, reason: str) -> SchemaError:
    return bad(name, f"the FITS file is damaged ({reason})", _REMEDY)


def _image_shape(header: dict[str, Any], axes: list[int], name: str) -> tuple[int, ...]:
    if header.get("ZIMAGE") is True and header.get("XTENSION") == "BINTABLE":
        axes = _axes(header, "ZNAXIS", name)
    elif header.get("XTENSION", "IMAGE") != "IMAGE":
        return ()
    return tuple(axes[::-1]) if len(axes) >= 2 and all(axes) else ()


# ---- which image is light


def _choose(
    units: list[Unit], ext: str | int | None, bands: Sequence[str] | None, name: str
) -> tuple[list[Unit], list[str] | None, list[str]]:
    """Return the units to read, the names of their bands where somebody said them, and notes."""
    images = [unit for unit in units if unit.shape]
    if not images:
        kinds = ", ".join(str(unit.header.get("XTENSION", "primary header")) for unit in units)
        remedy = "give the table as the catalog, not as a picture"
        raise bad(name, f"the FITS file has no image (it has {kinds})", remedy)
    if ext is not None:
        return [_named_unit(units, ext, name)], _names(bands), []
    if bands is not None:
        named = [_unit_of_band(images, band) for band in bands]
        there = [unit for unit in named if unit is not None]
        if len(there) == len(named):
            return there, list(bands), []
        has_others = any(unit.band() and not unit.is_not_light() and len(unit.shape) == 2 for unit in images)
        if len(images) > 1 and (there or has_others):
            missing = [band for band, unit in zip(bands, named, strict=True) if unit is None]
            listed = ", ".join(unit.label if unit.is_not_light() else unit.band() or unit.label for unit in images)
            raise bad(name, f"it has no band {', '.join(missing)} (it has {listed})", "name those it has")
    banded, names = _banded(images)
    if banded and bands is None:
        return banded, names, []
    unit, notes = _first_light(images, name)
    return [unit], _names(bands), notes


def _names(bands: Sequence[str] | None) -> list[str] | None:
    return None if bands is None else list(bands)


def _listed(images: list[Unit]) -> str:
    return ", ".join(unit.label for unit in images)


def _named_unit(units: list[Unit], ext: str | int, name: str) -> Unit:
    """Return the unit that is called `ext`: a number from 0, a name, or a name with its version (SCI,2)."""
    stated, _, version = str(ext).strip().partition(",")
    if stated.isdecimal() and not version:
        result = units[int(stated)] if int(stated) < len(units) else None
    else:
        called = [unit for unit in units if str(unit.header.get("EXTNAME", "")).strip().casefold() == stated.casefold()]
        wanted = int(version) if version.strip().isdecimal() else 1
        result = next((unit for unit in called if unit.header.get("EXTVER", 1) == wanted), None)
        result = result or (called[0] if called and not version else None)
    if result is None or not result.shape:
        there = _listed([unit for unit in units if unit.shape])
        raise bad(name, f"it has no image {ext} (it has {there})", "name one of these with ext (--ext)")
    return result


def _unit_of_band(images: list[Unit], band: str) -> Unit | None:
    stated = band.strip().casefold()
    for unit in images:
        names = {str(unit.header.get(key, "")).strip().casefold() for key in ("EXTNAME", "FILTER", "BAND")}
        if (
            stated in names
            or (unit.band() or "").casefold() == stated
            or (stated.isdecimal() and int(stated) == unit.number)
        ):
            return unit
    return None


def _banded(images: list[Unit]) -> tuple[list[Unit], list[str]]:
    """Return the units that are one band each and the bands, none where the file does not name two of one size."""
    light = [unit for unit in images if not unit.is_not_light()]
    named = [(unit, band) for unit in light if len(unit.shape) == 2 and (band := unit.band()) is not None]
    result, bands = [unit for unit, _ in named], [band for _, band in named]
    others = [unit for unit in light if unit not in result and unit.light_rank() is not None]
    differ = len({band.casefold() for band in bands}) == len(bands)
    several = len(result) >= 2 and differ and len({unit.shape for unit in result}) == 1
    return (result, bands) if several and not others else ([], [])


def _first_light(images: list[Unit], name: str) -> tuple[Unit, list[str]]:
    """Return SCI or what else is called light, else the primary or the first image, and what was left out."""
    light = [unit for unit in images if not unit.is_not_light()]
    if not light:
        raise bad(name, f"none of its images is light ({_listed(images)})", "take one all the same with ext (--ext)")
    ranked = sorted((u for u in light if u.light_rank() is not None), key=lambda u: (u.light_rank(), u.number))
    unit = (ranked or light)[0]
    others = [other for other in light if other is not unit]
    if not others:
        return unit, []
    return unit, [f"took {unit.label} (number {unit.number}) and left out {_listed(others)}; {_CHOICE}"]


# ---- pixels


def _planes(content: bytes, unit: Unit, name: str, values: int) -> np.ndarray:
    """Return an image as (b, h, w) float32."""
    if unit.is_compressed:
        raw, scale, zero, blank = _decompressed(content, unit, name, values), 1.0, 0.0, None
    else:
        kind = PIXELS[unit.header["BITPIX"]]
        raw = np.frombuffer(content, kind, math.prod(unit.shape), unit.data).reshape(unit.shape)
        scale, zero = (_number(unit.header, key, default, name) for key, default in (("BSCALE", 1.0), ("BZERO", 0.0)))
        blank = unit.header.get("BLANK") if raw.dtype.kind in "iu" else None
    while raw.ndim > 2 and raw.shape[0] == 1:  # degenerate axes of radio images
        raw = raw[0]
    if raw.ndim == 2:
        raw = raw[None]
    elif raw.ndim == 3 and raw.shape[0] > MOST_BANDS and raw.shape[2] in (3, 4):
        raw = np.moveaxis(raw[:, :, :3], 2, 0)
    if raw.ndim != 3 or raw.shape[0] > MOST_BANDS:
        remedy = f"give 2-D images or (bands, height, width) of at most {MOST_BANDS} bands; collapse spectral cubes"
        raise bad(name, f"the FITS image has shape {raw.shape}", remedy)
    flux = np.empty(raw.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for plane, source in zip(flux, raw, strict=True):
            plane[...] = source if (scale, zero) == (1.0, 0.0) else source.astype(np.float64) * scale + zero
            if isinstance(blank, (int, float)):
                plane[source == blank] = np.nan
            plane[~np.isfinite(plane)] = np.nan
    return flux


def _number(header: dict[str, Any], key: str, default: float, name: str) -> float:
    value = header.get(key, default)
    if isinstance(value, (str, bool)) or value is None or not math.isfinite(value):
        raise _damaged(name, f"{key} is {value!r}")
    return float(value)


def _stacked(
    primary: Unit, chosen: list[Unit], planes: list[np.ndarray], names: list[str] | None, name: str
) -> Picture:
    count = sum(map(len, planes))
    header = chosen[0].header
    if not any(key.startswith("CTYPE") for key in header) and not primary.shape:
        header = {**primary.header, **header}  # some writers leave the place on the sky in an empty primary header
    flux = np.ascontiguousarray(np.moveaxis(planes[0] if len(planes) == 1 else np.concatenate(planes), 0, 2))
    own: Sequence[str | None] = _band_names(chosen[0].header, count) if len(chosen) == 1 else [None] * count
    if own == [None]:
        own = _band_names(primary.header, 1)
    flux, bands = _with_names(flux, own, names, name)
    return Picture(flux, tuple(bands), name, header=header)


def _with_names(
    flux: np.ndarray, own: Sequence[str | None], names: list[str] | None, name: str
) -> tuple[np.ndarray, list[str]]:
    """Return the planes that are wanted by name; names that somebody gives to nameless planes are theirs in order."""
    bands = [band or f"band{number}" for number, band in enumerate(own, start=1)]
    if len(set(bands)) < len(bands):
        bands = [f"band{number}" for number in range(1, len(bands) + 1)]
    if names is None:
        return flux, bands
    requested = [
        next((i for i, band in enumerate(own) if (band or "").casefold() == n.casefold()), None) for n in names
    ]
    indices = [index for index in requested if index is not None]
    if len(indices) == len(names):
        return np.ascontiguousarray(flux[:, :, indices]), names
    if len(names) == len(bands) and not any(own):
        return flux, names
    raise bad(name, f"its bands are {', '.join(bands)}, and {', '.join(names)} are wanted", "name those it has")


def _band_names(header: dict[str, Any], count: int) -> Sequence[str | None]:
    """Return the band of each plane by header: BANDS 'grz', BAND0.., FILTER1.., FILTER, BAND."""
    together = str(header.get("BANDS", "")).replace(",", " ").strip()
    words = together.split() if " " in together else list(together)
    if len(words) == count:
        return words
    for key, first in (("BAND", 0), ("BAND", 1), ("FILTER", 0), ("FILTER", 1)):
        named = [str(header.get(f"{key}{first + step}", "")).strip() for step in range(count)]
        if count > 1 and all(named):
            return named
    result = next((str(header[key]).strip() for key in ("FILTER", "BAND") if str(header.get(key, "")).strip()), None)
    return [result] if count == 1 else [None] * count


# ---- tile compression


def _decompressed(content: bytes, unit: Unit, name: str, values: int) -> np.ndarray:
    from astropy.io import fits

    _check_tiles(content, unit, name, values)
    cards = b"".join(card for card in unit.cards if TILE_KEYS.fullmatch(card[:8].decode("ascii", "replace").strip()))
    empty = b"".join(card.ljust(80) for card in (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 0", b"END"))
    whole = b"".join(
        part.ljust(-(-len(part) // BLOCK) * BLOCK, fill)
        for part, fill in ((empty, b" "), (cards + b"END".ljust(80), b" "), (_data(content, unit), b"\0"))
    )
    try:
        with quiet(), fits.open(io.BytesIO(whole), memmap=False) as units:
            data = np.asarray(units[1].data)
    except _astropy_errors() as error:
        raise _damaged(name, " ".join(str(error).split()) or type(error).__name__) from error
    if data.shape != unit.shape or data.dtype.kind not in "iuf":
        raise _damaged(name, f"its tiles give {data.dtype} of shape {data.shape}, expected shape {unit.shape}")
    return data


def _data(content: bytes, unit: Unit) -> bytes:
    return content[unit.data : unit.data + unit.size]


def _astropy_errors() -> tuple[type[Exception], ...]:
    """Return what astropy raises for damaged tiles; the error of its decompressor has no public name."""
    from astropy.io import fits

    known = (
        ArithmeticError,
        AttributeError,
        AssertionError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        fits.VerifyError,
        zlib.error,
    )
    try:
        from astropy.io.fits.hdu.compressed._compression import CfitsioException
    except ImportError:
        return known
    return (*known, CfitsioException)


def _check_tiles(content: bytes, unit: Unit, name: str, values: int) -> None:
    """Raise SchemaError unless the tiles of a compressed image are as many and as large as its header says."""
    header = unit.header
    kind = header.get("ZCMPTYPE")
    if kind not in TILE_COMPRESSIONS:
        remedy = f"unpack it with funpack, or compress it with one of {', '.join(TILE_COMPRESSIONS)}"
        raise bad(name, f"its tiles are compressed with {kind}, which is not read", remedy)
    axes = unit.shape[::-1]
    tile = [_whole(header, f"ZTILE{n}", axes[0] if n == 1 else 1, name) for n in range(1, len(axes) + 1)]
    if min(tile) < 1 or math.prod(tile) > values:
        raise _damaged(name, f"its tiles have {' x '.join(map(str, tile))} pixels")
    tiles = math.prod(-(-axis // side) for axis, side in zip(axes, tile, strict=True))
    if header["NAXIS"] != 2 or header["BITPIX"] != 8 or header["NAXIS2"] != tiles or tiles > MOST_TILES:
        there = header.get("NAXIS2")
        raise _damaged(name, f"it has {there} tiles, expected {tiles:,}, and at most {MOST_TILES:,} are read")
    if header.get("ZBITPIX") not in PIXELS:
        raise _damaged(name, f"ZBITPIX is {header.get('ZBITPIX')!r}")
    _check_options(header, name)
    most = 8 * math.prod(tile)
    for column, counts, starts, heap in _descriptors(content, unit, name):
        if (counts < 0).any() or (starts < 0).any() or (starts + counts > len(heap)).any():
            raise _damaged(name, "a tile lies outside of its table")
        if column == "GZIP_COMPRESSED_DATA" or (column == "COMPRESSED_DATA" and kind.startswith("GZIP")):
            for count, start in zip(counts.tolist(), starts.tolist(), strict=True):
                _check_gzip(heap[start : start + count], most, name)


def _check_options(header: dict[str, Any], name: str) -> None:
    """Raise SchemaError for options of RICE with which its decoder would run for ever."""
    allowed = {"BLOCKSIZE": (16, 32), "BYTEPIX": (1, 2, 4, 8)}
    for number in range(1, 10):
        key, value = header.get(f"ZNAME{number}"), header.get(f"ZVAL{number}")
        if key in allowed and value not in allowed[key]:
            raise _damaged(name, f"{key} is {value!r}, expected one of {allowed[key]}")


def _descriptors(content: bytes, unit: Unit, name: str) -> Iterator[tuple[str, np.ndarray, np.ndarray, bytes]]:
    """Yield each column of tiles: its name, bytes and starts of its tiles in the heap (n,) int64, and the heap."""
    header = unit.header
    width, rows, offset = header["NAXIS1"], header["NAXIS2"], 0
    heap_at = _whole(header, "THEAP", width * rows, name)
    if heap_at < width * rows:
        raise _damaged(name, f"THEAP is {heap_at}")
    heap = _data(content, unit)[heap_at:]
    table = np.frombuffer(content, np.uint8, width * rows, unit.data).reshape(rows, width)
    for number in range(1, _whole(header, "TFIELDS", None, name) + 1):
        result = re.match(r"(\d{0,6})([A-Z])([A-Z]?)", str(header.get(f"TFORM{number}", "")))
        if number > 9 or not result or result.group(2) not in CELL_BYTES:
            raise _damaged(name, f"TFORM{number} is {header.get(f'TFORM{number}')!r}")
        kind, repeat = result.group(2), int(result.group(1) or 1)
        size = repeat * CELL_BYTES[kind]
        if offset + size > width or (kind in "PQ" and repeat > 1):
            raise _damaged(name, f"column {number} does not fit into rows of {width} bytes")
        if kind in "PQ" and repeat == 1:
            pairs = np.ascontiguousarray(table[:, offset : offset + size]).view(">i4" if kind == "P" else ">i8")
            pairs = np.clip(pairs.reshape(rows, 2).astype(np.int64), -1, 1 << 40)
            label = str(header.get(f"TTYPE{number}", "")).upper()
            yield label, pairs[:, 0] * CELL_BYTES.get(result.group(3), 8), pairs[:, 1], heap
        offset += size


def _check_gzip(tile: bytes, most: int, name: str) -> None:
    """Raise SchemaError unless a tile inflates to at most `most` bytes and nothing follows it."""
    if not tile:
        return
    inflater = zlib.decompressobj(31)
    try:
        size = len(inflater.decompress(tile, most + 1))
    except zlib.error as error:
        raise _damaged(name, str(error)) from error
    if size > most or not inflater.eof or inflater.unused_data.strip(b"\0"):
        raise _damaged(name, f"a tile inflates to other than {most:,} bytes at most")
