"""Units of a FITS file: headers read card by card, arrays and columns as far as their sizes are true.

The module hides the layout of FITS. Every size in a header is compared with the file before anything is allocated;
astropy is asked for tile-compressed images alone, with a header of the keys that count and after every tile was looked
at. What a unit means is somebody else's business.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science.bounded import bad

BLOCK = 2880
MOST_UNITS = 1000
MOST_HEADER_BYTES = 4 << 20
MOST_AXES = 12
PIXELS = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# HCOMPRESS is left out because its decoder reads past damaged tiles, PLIO because it holds masks
TILE_COMPRESSIONS = ("RICE_1", "RICE_ONE", "GZIP_1", "GZIP_2", "NOCOMPRESS")
TILE_KEYS = re.compile(
    r"XTENSION|BITPIX|NAXIS[12]?|PCOUNT|GCOUNT|TFIELDS|THEAP|(TTYPE|TFORM|TSCAL|TZERO|TNULL)\d|BSCALE|BZERO|BLANK"
    r"|ZIMAGE|ZCMPTYPE|ZBITPIX|ZNAXIS\d?|(ZTILE|ZNAME|ZVAL)\d|ZSCALE|ZZERO|ZBLANK|ZQUANTIZ|ZDITHER0"
)
MOST_TILES = 65_536
MOST_COLUMNS = 1_000
CELL_BYTES = {"L": 1, "B": 1, "A": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "P": 8, "Q": 16}
CELL_TYPES = {"L": "S1", "B": ">u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_REMEDY = "fetch it again or check it with fitsverify"


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep astropy from warning, and from printing its INFO lines, which go to stdout, inside the block."""
    log = logging.getLogger("astropy")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


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


# ---- images


def array_shape(unit: Unit) -> tuple[int, ...]:
    """Return the shape of an image of any number of axes, also one; () for a table or no data."""
    length = unit.header.get("NAXIS1")
    is_row = unit.header.get("NAXIS") == 1 and unit.header.get("XTENSION", "IMAGE") == "IMAGE"
    return (length,) if is_row and isinstance(length, int) and length > 0 else unit.shape


def image_values(content: bytes, unit: Unit, name: str, values: int) -> np.ndarray:
    """Return the array of an image as it is stored, of at most `values` numbers; it is not scaled (`scaling`)."""
    if unit.is_compressed:
        return _decompressed(content, unit, name, values)
    kind, shape = PIXELS[unit.header["BITPIX"]], array_shape(unit)
    return np.frombuffer(content, kind, math.prod(shape), unit.data).reshape(shape)


def scaling(unit: Unit, name: str) -> tuple[float, float, Any]:
    """Return BSCALE, BZERO and BLANK of what `image_values` gives; BLANK is None where no number stands for none."""
    if unit.is_compressed:
        return 1.0, 0.0, None
    scale, zero = (_number(unit.header, key, default, name) for key, default in (("BSCALE", 1.0), ("BZERO", 0.0)))
    return scale, zero, unit.header.get("BLANK") if unit.header["BITPIX"] > 0 else None


def _number(header: dict[str, Any], key: str, default: float, name: str) -> float:
    value = header.get(key, default)
    if isinstance(value, (str, bool)) or value is None or not math.isfinite(value):
        raise _damaged(name, f"{key} is {value!r}")
    return float(value)


# ---- tables


@dataclass(frozen=True)
class Column:
    """One column of a binary table: what its header says of it, and which bytes of a row are its own.

    `kind` is the letter of its type and `repeat` how many of them a row has; `heap_kind` is the type of a list whose
    length differs from row to row (P and Q), "" for any other column.
    """

    number: int
    name: str
    kind: str
    repeat: int
    heap_kind: str
    offset: int
    unit: str
    ucd: str
    utype: str

    @property
    def is_number(self) -> bool:
        return (self.heap_kind or self.kind) in "BIJKED"


def columns_of(unit: Unit, name: str) -> list[Column]:
    """Return the columns of a binary table, [] for any other unit.

    Raises SchemaError where they do not make up its rows; complex numbers and bits are left out.
    """
    header = unit.header
    if header.get("XTENSION") != "BINTABLE" or unit.is_compressed:
        return []
    result, offset = [], 0
    count = _whole(header, "TFIELDS", None, name)
    if count > MOST_COLUMNS:
        raise _damaged(name, f"it has {count:,} columns, and at most {MOST_COLUMNS:,} are read")
    for number in range(1, count + 1):
        form = re.match(r"(\d{0,9})([LXBIJKAEDCMPQ])([LXBIJKAEDCM]?)", str(header.get(f"TFORM{number}", "")).strip())
        if not form:
            raise _damaged(name, f"TFORM{number} is {header.get(f'TFORM{number}')!r}")
        kind, repeat = form.group(2), int(form.group(1) or 1)
        facts = (str(header.get(f"{key}{number}") or "").strip() for key in ("TTYPE", "TUNIT", "TUCD", "TUTYP"))
        called, measured_in, ucd, utype = facts
        if kind not in "XCM":
            heap_kind = form.group(3) if kind in "PQ" else ""
            result.append(Column(number, called, kind, repeat, heap_kind, offset, measured_in, ucd, utype))
        offset += -(-repeat // 8) if kind == "X" else repeat * {**CELL_BYTES, "C": 8, "M": 16, "Q": 16}[kind]
    if offset != _axes(header, "NAXIS", name)[0]:
        raise _damaged(name, f"its columns take {offset} bytes, and a row has {header.get('NAXIS1')}")
    return result


def row_count(unit: Unit) -> int:
    """Return how many rows a table has."""
    return int(unit.header["NAXIS2"])


def column_values(content: bytes, unit: Unit, column: Column, name: str) -> np.ndarray:
    """Return the values of a column (rows,) or (rows, repeat): numbers as float64 or integers, text as str.

    Scaled where its header says so; a number that stands for none (TNULL) is NaN then. Lists whose length differs are
    read one row at a time (`list_values`).
    """
    rows, width = row_count(unit), unit.header["NAXIS1"]
    table = np.frombuffer(content, np.uint8, rows * width, unit.data).reshape(rows, width)
    size = column.repeat * CELL_BYTES[column.kind]
    raw = np.ascontiguousarray(table[:, column.offset : column.offset + size])
    if column.kind == "A":
        return np.array([bytes(row).split(b"\0")[0].decode("latin-1").strip() for row in raw])
    values = raw.view(CELL_TYPES[column.kind]).reshape(rows, column.repeat)
    values = _scaled(values == b"T" if column.kind == "L" else values, unit, column, name)
    return values[:, 0] if column.repeat == 1 else values


def list_values(content: bytes, unit: Unit, column: Column, row: int, name: str) -> np.ndarray:
    """Return the numbers of one row of a column of lists (n,). Raises SchemaError for a list outside of its heap."""
    width, kind = unit.header["NAXIS1"], ">i4" if column.kind == "P" else ">i8"
    if column.repeat != 1 or column.heap_kind not in CELL_TYPES:
        raise _damaged(name, f"column {column.name} has lists of type {column.heap_kind or 'none'}")
    at = unit.data + row * width + column.offset
    count, start = (int(number) for number in np.frombuffer(content, kind, 2, at))
    start += _whole(unit.header, "THEAP", width * row_count(unit), name)
    if count < 0 or start < 0 or start + count * CELL_BYTES[column.heap_kind] > unit.size:
        raise _damaged(name, f"column {column.name} has a list that lies outside of its table")
    values = np.frombuffer(content, CELL_TYPES[column.heap_kind], count, unit.data + start)
    return _scaled(values, unit, column, name)


def _scaled(values: np.ndarray, unit: Unit, column: Column, name: str) -> np.ndarray:
    scale, zero = (
        _number(unit.header, f"{key}{column.number}", default, name)
        for key, default in (("TSCAL", 1.0), ("TZERO", 0.0))
    )
    null = unit.header.get(f"TNULL{column.number}") if values.dtype.kind in "iu" else None
    result = values.astype(values.dtype.newbyteorder("="))
    if scale == 1.0 and result.dtype.kind == "i" and zero == 2.0 ** (8 * result.itemsize - 1):
        result = result.astype(np.float64) + zero if result.itemsize == 8 else result.astype(np.int64) + int(zero)
    elif (scale, zero) != (1.0, 0.0):
        with np.errstate(all="ignore"):  # numbers of a damaged file may be any
            result = result.astype(np.float64) * scale + zero
    if isinstance(null, int) and (values == null).any():
        result = np.where(values == null, np.nan, result.astype(np.float64))
    with np.errstate(all="ignore"):
        return result.astype(np.float64) if result.dtype.kind == "f" else result


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
