"""Read the formats of astronomy, FITS tables, VOTable and ECSV, with astropy; what a file claims is checked before."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.parsers import expat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch.errors import SchemaError
from galsearch.formats.fields import describe, free_names, quiet, spelled, with_vo_facts
from galsearch.formats.request import Part, Request, check_count, chosen

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU
    from astropy.table import Column, Table

CUT_SHORT = "the service cut its answer short (QUERY_STATUS OVERFLOW"  # how that note or error begins
DEPTH = 50  # of elements in a VOTable, of brackets in the header of an ECSV file
HEADER_BYTES = 2**21
HEADER_NODES = 1_000_000  # of the YAML header of an ECSV file, or of Parquet by astropy
MANY = 2**28  # bytes in memory that a VOTable may declare whatever its size
ROW_BYTES = 2**16  # of a row that a VOTable declares, which is never suspected
TEXT_KEPT = 500  # characters of what a service says
_COLUMN_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, AssertionError, pa.ArrowException,
)  # fmt: skip


# ---- ECSV


def read_ecsv(content: bytes, request: Request) -> pa.Table:
    """Read ECSV; its header is YAML, of which astropy makes nothing but columns."""
    from astropy.table import Table
    from yaml import YAMLError

    request.must_be_the_only_table()
    text = content.decode("utf-8-sig")
    lines = result[0].splitlines() if (result := re.match(r"(#[^\n]*\n?)+", text)) else []
    _check_header("\n".join(line[2:] for line in lines if not line.startswith("# %ECSV")))
    with quiet(YAMLError):
        return from_astropy(Table.read(text, format="ascii.ecsv"), request)


def _check_header(head: str) -> None:
    """Refuse a YAML header that stands for far more than its bytes, by aliases of aliases."""
    import yaml

    depth = np.cumsum([1 if sign in "[{" else -1 for sign in re.findall(r"[\[\]{}]", head)])
    if len(head) > HEADER_BYTES or (len(depth) and depth.max() > DEPTH):
        raise ValueError(f"its header is longer than {HEADER_BYTES:,} characters, or nested more than {DEPTH} deep")
    try:
        root = yaml.compose(head, Loader=yaml.SafeLoader)  # the nodes alone: nothing is made of them
    except yaml.YAMLError as error:
        raise ValueError(f"its header is not YAML: {error}") from error
    if root is not None and (size := _expanded(root, {})) > HEADER_NODES:
        raise ValueError(f"its header stands for {size:.3g} values, {HEADER_NODES:,} are the most")


def _expanded(node, known: dict[int, float]) -> float:
    """Return how many values a node of YAML stands for when every alias is what it names."""
    if id(node) not in known:
        known[id(node)] = math.inf  # of a node that holds itself
        parts = [node.value] if isinstance(node.value, str) else node.value
        flat = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in flat if not isinstance(part, str))
    return known[id(node)]


# ---- Parquet by astropy


def astropy_header(head: bytes) -> dict:
    """Return what astropy's YAML in a Parquet file (ASTROPY_KEY) says: its columns, and which are parts of which."""
    from astropy.table.meta import YamlParseError, get_header_from_yaml

    text = head.decode()
    _check_header(text)
    with quiet(YamlParseError):
        header = get_header_from_yaml(text.split("\n"))
    try:
        columns = {column["name"]: column for column in header["datatype"]}
        mixins = dict((header.get("meta") or {}).get("__serialized_columns__", {}))
        parts = {part for mixin in mixins.values() for part in _parts_of(mixin)}
        return {"columns": columns, "mixins": mixins, "parts": parts}
    except _COLUMN_ERRORS as error:
        raise ValueError("its header (table_meta_yaml) does not list its columns") from error


def _parts_of(mixin: dict) -> Iterator[str]:
    """Yield the names of the columns that make up one of astropy, such as `t.jd1` and `t.jd2` of a time."""
    for key, value in mixin.items():
        if isinstance(value, dict):
            yield from _parts_of(value)
        elif key == "name":
            yield value


def with_astropy_header(table: pa.Table, header: dict, request: Request) -> pa.Table:
    """Return the columns of a Parquet file by astropy with their units, and as one those that are parts of one.

    Columns that are no part go through as they are; astropy sees nothing but their names and what is said of them.
    """
    from astropy.table import Column, Table
    from astropy.table.serialize import _construct_mixins_from_columns

    parts = header["parts"]
    result = Table(meta={"__serialized_columns__": header["mixins"]})
    with quiet():
        for name, values in zip(table.column_names, table.columns, strict=True):
            data = _as_numpy(values) if name in parts else np.broadcast_to(np.False_, len(values))
            stated = header["columns"].get(name, {})
            facts = {key: stated.get(key) for key in ("unit", "description", "meta")}
            result.add_column(Column(data, name=name, **facts, copy=False), copy=False)
        result = from_astropy(_construct_mixins_from_columns(result), request)
    plain = {*table.column_names} - parts
    arrays = [table[name] if name in plain else result[name] for name in result.column_names]
    fields = [field.with_type(values.type) for field, values in zip(result.schema, arrays, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


def _as_numpy(values: pa.ChunkedArray) -> np.ndarray:
    """Return a column as numpy has it, vectors with a second axis; integers with nulls keep all their digits."""
    if pa.types.is_fixed_size_list(values.type) and not values.null_count:
        return _as_numpy(pc.list_flatten(values)).reshape(len(values), values.type.list_size)
    if pa.types.is_integer(values.type) and values.null_count:
        return np.array(values.to_pylist(), dtype=object)
    return values.to_numpy()


# ---- VOTable


def read_votable(content: bytes, request: Request) -> pa.Table:
    """Read the table of a VOTable that was asked for; what its service says of the answer is heeded first."""
    from astropy.io import votable

    scan = _Scan(content, request)
    scan.run()
    with quiet(votable.exceptions.VOWarning):
        try:
            document = votable.parse(io.BytesIO(content), verify="ignore")
        except ValueError as error:  # a cell that is not of its column's type
            document = votable.parse(io.BytesIO(content), verify="ignore", invalid="mask")
            request.lacks(f"cells that are not of their column's type were taken as missing, such as: {error}")
        result = [table for table in document.iter_tables() if len(table.fields)]
        if not result:
            raise ValueError("it has no TABLE")
        parts = [
            Part(number, (*filter(None, (one.name, one.ID)),), [f.name for f in one.fields], len(one.array), one)
            for number, one in enumerate(result, start=1)
        ]
        table = chosen(parts, request)
        promised = dict(zip(map(id, result), scan.promises, strict=False))[id(table)]
        if promised > len(table.array):
            request.lacks(f"it promises {promised:,} rows and has {len(table.array):,}; it may be cut short")
        return from_astropy(table.to_table(use_names_over_ids=True), request)


class _Scan:
    """One pass over a VOTable before astropy reads it: what the service says, and what no file may ask for.

    Entities of its own, streams elsewhere, deep nesting, and rows wider than the whole file are refused. QUERY_STATUS
    is of DALI (TAP, SCS 1.1), an INFO or PARAM named "Error" of the older SCS and SIA.
    """

    def __init__(self, content: bytes, request: Request) -> None:
        self.content, self.request = content, request
        self.open: list[tuple[str, dict, list[str]]] = []  # elements, with the text of those that say something
        self.width = self.rows = self.promised = self.fields = 0
        self.promises: list[int] = []  # of rows, by the tables that have a FIELD
        self.message = ""

    def run(self) -> None:
        """Read the document; ValueError where it is not one or asks for what it may not, SchemaError for an error."""
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler, parser.EntityDeclHandler = self._text, self._entity
        try:
            parser.Parse(self.content, True)
        except expat.ExpatError as error:
            raise ValueError(str(error)) from error

    def _start(self, tag: str, facts: dict[str, str]) -> None:
        kind = tag.rpartition(":")[2]
        self.open.append((kind, facts, []))
        if len(self.open) > DEPTH:
            raise ValueError(f"its elements are nested more than {DEPTH} deep")
        if "href" in facts and kind in ("STREAM", "FITS", "PARQUET"):
            raise ValueError(
                f"its data lies elsewhere ({facts['href'][:100]}), which is not followed; fetch it yourself"
            )
        if kind == "TABLE":
            told = facts.get("nrows", "").strip()
            self.width, self.rows, self.fields = 0, 0, 0
            self.promised = int(told[:20]) if told.isdigit() else 0
        elif kind == "DATA":
            self._check_width()
        elif kind == "FIELD":
            self.width += _declared_bytes(facts)
            self.fields += 1
            check_count(self.fields)
            if self.fields == 1:
                self.promises.append(self.promised)
            self._check_width()
        elif kind == "TR":
            self.rows += 1
            if not self.rows % 256:
                self._check_width()

    def _check_width(self) -> None:
        rows = max(self.rows, self.promised, 1)
        if self.width > max(ROW_BYTES, 4 * len(self.content)) or self.width * rows > max(MANY, 16 * len(self.content)):
            raise ValueError(
                f"it declares {rows:,} rows of {self.width:,} bytes, more than its own {len(self.content):,}"
            )

    def _text(self, text: str) -> None:
        if self.open and self.open[-1][0] in ("INFO", "DESCRIPTION") and sum(map(len, self.open[-1][2])) < TEXT_KEPT:
            self.open[-1][2].append(text)

    def _entity(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares an entity ({name[:50]}), which a VOTable does not need")

    def _end(self, tag: str) -> None:
        kind, facts, texts = self.open.pop()
        stated = " ".join("".join(texts).split())[:TEXT_KEPT]
        if kind == "DESCRIPTION":
            self.message = stated
        elif kind in ("INFO", "PARAM"):
            self._heed(kind, facts, stated or (self.message if kind == "PARAM" else ""))
            self.message = ""

    def _heed(self, kind: str, facts: dict[str, str], stated: str) -> None:
        """Note that a service cut its answer short; raise SchemaError with its words where it has an error."""
        name, value = facts.get("name"), facts.get("value", "").strip()[:TEXT_KEPT]
        if kind == "INFO" and (name, value.upper()) == ("QUERY_STATUS", "OVERFLOW"):
            why = f": {stated[:200]}" if stated else ""
            self.request.lacks(
                f"{CUT_SHORT}{why}), rows are missing; ask it again with a higher MAXREC, or for smaller parts"
            )
        elif kind == "INFO" and (name, value.upper()) == ("QUERY_STATUS", "ERROR"):
            raise _refused_by_service(stated)
        elif (name or "").upper() == "ERROR" and (kind == "INFO" or "char" in facts.get("datatype", "char").lower()):
            raise _refused_by_service(value or stated)


def _declared_bytes(facts: dict[str, str]) -> int:
    """Return the bytes of memory that a FIELD's fixed arraysize takes in every row."""
    sizes = [int(size) for size in facts.get("arraysize", "").split("x") if size.strip().isdigit()]
    return int(np.prod([float(size) for size in sizes] or [1.0]).clip(0, 2.0**62)) * (4 if sizes else 8)


def _refused_by_service(stated: str) -> SchemaError:
    return SchemaError(f"the service answered with an error: {stated or 'it gives no reason'}; ask it again")


# ---- FITS


def read_fits(content: bytes, request: Request) -> pa.Table:
    """Read the table of a FITS file that was asked for; a column that cannot be read is left out and noted."""
    from astropy.io import fits

    with quiet(fits.VerifyError), fits.open(io.BytesIO(content)) as hdus:
        parts = [
            Part(number, (hdu.name,) if hdu.name else (), hdu.columns.names, hdu.header["NAXIS2"], hdu)
            for number, hdu in enumerate(hdus)
            if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(hdu, fits.CompImageHDU)
        ]
        if not parts:
            raise ValueError("it holds no table, perhaps a picture")
        hdu = chosen(parts, request)
        _check_size(hdu, len(content))
        return from_astropy(_fits_table(hdu, request), request)


def _check_size(hdu: BinTableHDU, size: int) -> None:
    header = hdu.header
    if header.get("ZTABLE"):
        raise ValueError("its table is compressed with fpack; inflate it first with funpack")
    if not (header["NAXIS1"] > 0 or header["NAXIS2"] == 0):
        raise ValueError(f"it promises {header['NAXIS2']} rows of {header['NAXIS1']} bytes")
    if hdu.fileinfo()["datLoc"] + header["NAXIS1"] * header["NAXIS2"] > size:
        raise ValueError("it is cut short")


def _fits_table(hdu: BinTableHDU, request: Request) -> Table:
    """Return the table as astropy has it, with its null logicals, UCDs and comments; column by column where it must."""
    from astropy.io.fits import VerifyError
    from astropy.table import MaskedColumn, Table

    names = hdu.columns.names
    raw = np.asarray(hdu.data).view(np.ndarray)
    logical = [column.name for column in hdu.columns if re.fullmatch(r"1?L", str(column.format))]
    nulls = {name: raw[name].view(np.uint8) == 0 for name in logical if name in raw.dtype.names}  # astropy: false
    endless = {column.name for column in hdu.columns if _is_endless(raw, column, hdu)}
    try:
        if endless or len({name.casefold() for name in names}) < len(names):  # by name astropy finds the first only
            raise ValueError("it has columns that cannot be read together")
        table = Table.read(hdu, format="fits", unit_parse_strict="silent")
        pairs = [column.name for column in hdu.columns if column.coord_type and str(column.format) == "2D"]
        if pairs:  # astropy's Time, as two Julian dates that add up; other times stay the numbers that they are
            native = Table.read(hdu, format="fits", unit_parse_strict="silent", astropy_native=True)
            for name in pairs:
                table[name] = native[name]
    except (*_COLUMN_ERRORS, VerifyError):
        table = _by_columns(hdu, endless, request)
    for number, name in enumerate(names, start=1):
        if name not in table.colnames:
            continue
        if name in nulls:
            table[name] = MaskedColumn(table[name], mask=nulls[name])
        info = table[name].info
        info.meta = {**(info.meta or {}), "ucd": str(hdu.header.get(f"TUCD{number}", ""))}
        info.description = info.description or str(hdu.header.get(f"TCOMM{number}", "")) or None
    return table


def _is_endless(raw: np.ndarray, column, hdu: BinTableHDU) -> bool:
    """Return whether the arrays of a column of lists overlap so much that they are more than their heap holds."""
    if not re.match(r"\d*[PQ]", str(column.format)) or column.name not in (raw.dtype.names or ()):
        return False
    counts = raw[column.name].reshape(len(raw), -1)[:, 0].astype(np.int64)
    heap = int(hdu.header.get("PCOUNT", 0))
    return bool((counts < 0).any() or float(counts.sum(dtype=np.float64)) > max(8 * heap, 0))


def _by_columns(hdu: BinTableHDU, endless: set[str], request: Request) -> Table:
    """Return the table of those columns that can be read alone."""
    from astropy.io import fits
    from astropy.table import Table

    columns, unread = {}, {}
    for number, column in enumerate(hdu.columns):
        try:
            if column.name in endless:
                raise ValueError("its lists reach beyond the file")
            alone = fits.BinTableHDU.from_columns(
                [fits.Column(**{**_facts(column), "array": hdu.data.field(number)})], nrows=len(hdu.data)
            )
            result = Table.read(alone, format="fits", unit_parse_strict="silent")
            columns[column.name] = result.columns[0]
        except (*_COLUMN_ERRORS, fits.VerifyError) as error:
            unread[column.name] = str(error)
    _tell_unread(unread, request, any_left=bool(columns))
    return Table(list(columns.values()), names=list(columns), copy=False)


def _facts(column) -> dict:
    return {key: getattr(column, key) for key in ("name", "format", "unit", "null", "dim", "disp")}


def _tell_unread(unread: dict[str, str], request: Request, *, any_left: bool) -> None:
    """Note the columns that were left out with their reasons; SchemaError where no other is left."""
    for name, reason in unread.items():
        told = f"column {name} {reason}" if reason.startswith("has ") else f"column {name} cannot be read ({reason})"
        if not any_left:
            raise SchemaError(f"{told}; remove or convert it")
        request.notes.append(f"{told[:300]}; it was left out")


# ---- from astropy


def from_astropy(table: Table, request: Request) -> pa.Table:
    """Return an astropy table as an arrow table; a column that arrow cannot hold is left out and noted.

    The first SkyCoord of the table becomes `ra` and `dec` in degrees ICRS, another two columns named after it; the
    coordinates that the file has stay as text under their own name.
    """
    fields: list[pa.Field] = []
    arrays, unread = [], {}
    for name in table.colnames:
        try:
            for field, values in _fields_of(table[name], name, {*table.colnames, *(field.name for field in fields)}):
                fields.append(field)
                arrays.append(values)
        except (*_COLUMN_ERRORS, SchemaError) as error:
            unread[name] = str(error) or type(error).__name__
    _tell_unread(unread, request, any_left=bool(fields))
    return pa.table(arrays, schema=pa.schema(fields))


def _fields_of(column: Column, name: str, taken: set[str]) -> Iterator[tuple[pa.Field, pa.Array]]:
    """Yield the columns that one column of astropy becomes, each as a field and its values."""
    from astropy.coordinates import SkyCoord
    from astropy.time import TimeDelta

    if isinstance(column, SkyCoord):
        yield from _positions(column, name, taken)
        return
    null, info, unit = _null(column), column.info, getattr(column, "unit", None)
    if isinstance(column, TimeDelta):
        column, unit = column.to_value("s"), "s"
    values = _to_arrow(_plain_values(column), null)
    ucd = (info.meta or {}).get("ucd")
    unit = spelled(str(unit or ""), "vounit")
    field = describe(pa.field(name, values.type), unit=unit, ucd=str(ucd or ""), description=info.description)
    yield with_vo_facts(field, xtype=str((info.meta or {}).get("xtype") or "")), values


def _positions(column, name: str, taken: set[str]) -> Iterator[tuple[pa.Field, pa.Array]]:
    """Yield ra and dec in degrees ICRS, and as text what the file has."""
    if column.ndim != 1:
        raise SchemaError(f"has {column.shape[1:]} positions a row, one is expected")
    null, frame = _null(column), column.frame.name
    try:
        icrs = column.icrs
    except (ValueError, TypeError) as error:  # ConvertError: altitude and azimuth without a place on Earth
        raise SchemaError(f"has positions in the frame {frame}, which cannot be made ICRS") from error
    names = ["ra", "dec"]
    if {"ra", "dec"} & {used.casefold() for used in taken}:
        names = free_names([f"{name}_ra", f"{name}_dec"], taken, suffix="_also")
    for axis, result, angle in zip(("ra", "dec"), names, (icrs.ra.deg, icrs.dec.deg), strict=True):
        values = _to_arrow(np.asarray(np.ma.getdata(angle), dtype=float), null)
        main = ";meta.main" if result == axis else ""
        told = f"{'Right ascension' if axis == 'ra' else 'Declination'} ICRS of '{name}'"
        yield describe(pa.field(result, values.type), unit="deg", ucd=f"pos.eq.{axis}{main}", description=told), values
    text = _to_arrow(np.asarray(column.to_string("decimal", precision=9)), null)
    yield describe(pa.field(name, text.type), description=f"Position as the file has it: degrees, {frame}"), text


def _null(column: Column) -> np.ndarray | None:
    mask = getattr(column, "mask", None)
    return None if mask is None or not np.any(mask) else np.asarray(np.ma.getmaskarray(column)) if isinstance(
        column, np.ma.MaskedArray
    ) else np.broadcast_to(np.asarray(mask), column.shape)  # fmt: skip


def _plain_values(column: Column) -> np.ndarray:
    """Return the values of an astropy column, times as ISO text and what is no array as text."""
    if hasattr(column, "isot"):
        return np.asarray(np.ma.getdata(column.isot))
    if not hasattr(column, "dtype"):
        if not hasattr(column, "to_string"):
            raise SchemaError(f"has type {type(column).__name__}, which an atlas cannot hold")
        return np.asarray(column.to_string())
    column = getattr(column, "unmasked", column)
    return np.asarray(np.ma.getdata(column))


def _to_arrow(values: np.ndarray, null: np.ndarray | None) -> pa.Array:
    """Return an arrow array in native byte order; an array a row becomes a `fixed_size_list`.

    A row whose elements are all masked or NaN is null. SchemaError for a type that arrow does not have.
    """
    if values.ndim > 1:
        flat = _to_arrow(values.reshape(-1), None if null is None else null.reshape(-1))
        absent = flat.is_null(nan_is_null=True).to_numpy(zero_copy_only=False).reshape(values.shape)
        for size in values.shape[:1:-1]:
            flat = pa.FixedSizeListArray.from_arrays(flat, size)
        return pa.FixedSizeListArray.from_arrays(
            flat, values.shape[1], mask=pa.array(absent.all(axis=tuple(range(1, values.ndim))))
        )
    if values.dtype.kind in "SUO":
        texts = pa.array([_plain_cell(cell) for cell in values], mask=null)
        return pc.if_else(pc.equal(texts, ""), None, texts) if pa.types.is_string(texts.type) else texts
    if values.dtype.kind not in "biufM":
        raise SchemaError(f"has type {values.dtype.name}, which an atlas cannot hold")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return pa.array(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), mask=null)


def _plain_cell(cell):
    if isinstance(cell, (bytes, str)):
        text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
        return text.partition("\0")[0].strip()  # where a string of FITS or VOTable ends
    if isinstance(cell, np.ndarray):
        return cell.tolist()  # in which masked elements are None
    return None if cell is np.ma.masked else cell
