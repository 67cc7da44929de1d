"""Read and write tables as astronomers exchange them; only this module knows FITS tables, VOTable and DS9.

Inside galsearch a table is a `pyarrow.Table` whose fields carry `unit` (VOUnit), `ucd` (UCD1+) and
`description` as metadata. pyarrow reads and writes CSV and Parquet, astropy the rest; it is imported only then.
One rule for missing values on the way in: a masked cell, a NaN in a scalar column and, in every format but
Parquet, an empty string are null, since CSV, ECSV, FITS and VOTable cannot tell an empty string from a missing one.

    >>> import pyarrow as pa
    >>> print(format_table(pa.table({"object_id": ["a", "b"], "z": [0.1, None]}), "csv"), end="")
    "object_id","z"
    "a",0.1
    "b",
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import math
import re
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch.errors import GalsearchError, SchemaError

if TYPE_CHECKING:
    from astropy.table import Column, Table
    from astropy.units import UnitBase

FIELD_KEYS = ("unit", "ucd", "description")
NOTES_KEY = b"galsearch.notes"
VOPARQUET_KEY = b"IVOA.VOTable-Parquet.content"
PART_ROWS = 65_536  # of a column that is read a part at a time
_PARQUET = (".parquet", ".pq")
REGION_RADIUS_ARCSEC = 5.0  # of a circle whose row has no radius_arcsec
_READING_ERRORS = (  # what pyarrow, astropy and the decompressors raise on a bad file
    OSError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError,
    pa.ArrowException, zlib.error, ElementTree.ParseError,
)  # fmt: skip
_ID_NAME = re.compile(
    r"(id|name|designation|iau_?name|(\w*_)?(source|target|galaxy)_?id|\w*obj(ect)?_?id)", re.IGNORECASE
)
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)
_CSV_NULLS = ["", "NaN", "nan", "NAN", "null", "NULL", "N/A", "n/a", "NA", "--", "masked"]


# --- reading ------------------------------------------------------------------------------------------------


def read_table(
    path: str | Path,
    *,
    text: Iterable[str] = (),
    without: Collection[str] = (),
    table_name: str | int | None = None,
    missing: Iterable[float] = (),
) -> pa.Table:
    """Read a .csv .tsv .ecsv .parquet .fits or .vot file, by its suffix; all but Parquet also with .gz.

    Units become VOUnit strings, and UCDs and descriptions are kept where the format has them. A column that
    is named like an identifier (`object_id`, `id`, `name`, `source_id`, `…objid`) and the columns in `text`
    are strings, digit for digit: leading zeros and 19-digit numbers survive. A vector column is a
    `fixed_size_list`. The columns `without` are left out. `table_name` says which table of a file with several:
    in FITS the EXTNAME or the number of the HDU (0 is the primary one), in VOTable the name, ID or number (from 1)
    of the TABLE. `missing` are numbers that stand for no value, such as 99 and -99: they become null.

    What a reader should know and is no error is in `notes_of(table)`, one sentence each: that a service cut its
    answer short, which of several tables was read, which columns were left out or renamed, what a cell was read as.

    Raises SchemaError, naming the file, for another suffix or a file that cannot be read as its suffix says, and
    with what the service said where a VOTable holds an error in place of an answer.
    """
    path, asked = Path(path), _Asked(frozenset(text), table_name, tuple(missing))
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in _READERS or name.endswith((".parquet.gz", ".pq.gz")):
        raise SchemaError(
            f"{path}: cannot read a table from {''.join(path.suffixes[-2:]) or 'a file without a suffix'}; "
            f"known are {' '.join(_READERS)}"
        )
    with _reading(path):
        if suffix in _PARQUET:
            table = _read_parquet(path, without)
        else:
            content = path.read_bytes()
            table = _READERS[suffix](gzip.decompress(content) if name.endswith(".gz") else content, asked)
            table = table.drop_columns([column for column in table.column_names if column in without])
        if twice := sorted({name for name in table.column_names if table.column_names.count(name) > 1}):
            raise SchemaError(f"column {', '.join(twice)} occurs twice; names must be unique, rename one")
        return with_notes(_tidy(table, asked), asked.notes)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a caller of `read_table` asked for, and what the reader notes on the way."""

    text: frozenset[str] = frozenset()
    table_name: str | int | None = None
    missing: tuple[float, ...] = ()
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One table of a file that may hold several: its number as the format counts, its names, its columns and rows."""

    number: int
    names: tuple[str, ...]
    columns: list[str]
    rows: int
    content: object

    def __str__(self) -> str:
        return f"{self.number}{''.join(f' {name}' for name in self.names[:1])} ({self.rows} rows)"


def _chosen(parts: list[_Part], asked: _Asked) -> object:
    """Return the content of the part that was asked for by name or number, else of the one that looks like a catalog.

    That is LDAC_OBJECTS (SExtractor), else the first with rows and a column of ids, else the one with the most rows.
    """
    if asked.table_name is not None:
        wanted = str(asked.table_name).strip()
        named = [part for part in parts if wanted.casefold() in {name.casefold() for name in part.names}]
        found = named or [part for part in parts if wanted == str(part.number)]
        if not found:
            raise SchemaError(f"no table '{wanted}'; there are: {', '.join(map(str, parts))}")
        return found[0].content
    ldac = [part for part in parts if "LDAC_OBJECTS" in part.names]
    with_ids = [part for part in parts if part.rows and any(map(_ID_NAME.fullmatch, part.columns))]
    best = (ldac or with_ids or [max(parts, key=lambda part: part.rows)])[0]
    if len(parts) > 1:
        others = ", ".join(str(part) for part in parts if part is not best)
        asked.notes.append(f"table {best} was read and not {others}; choose with table_name (--table-name)")
    return best.content


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the readers raise on a bad file into one SchemaError with the name of the file."""
    try:
        yield
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise SchemaError(f"{path}: there is no such file; check the path") from None
    except _READING_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise SchemaError(
            f"{path}: not readable as {path.suffix} ({reason}); copy the file again or give it its true suffix"
        ) from error


def _tidy(table: pa.Table, asked: _Asked) -> pa.Table:
    """Apply the rules of every format: identifiers are text, missing is null, and no unusual arrow types."""
    ids = [name for name in table.column_names if name in asked.text or _ID_NAME.fullmatch(name)]
    for index, field in enumerate(table.schema):
        values = _common(table.column(index))
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        values = _without(values, asked.missing)
        if field.name in ids and pa.types.is_integer(values.type):
            values = values.cast(pa.string())
        table = table.set_column(index, field.with_type(values.type), values)
    return table.replace_schema_metadata(None)


def _without(values: pa.ChunkedArray, missing: tuple[float, ...]) -> pa.ChunkedArray:
    """Return a column of numbers in which the numbers `missing` are null."""
    if not missing or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return values
    standing_for_none = pc.is_in(values.cast(pa.float64(), safe=False), value_set=pa.array(missing, pa.float64()))
    return pc.if_else(standing_for_none, pa.scalar(None, values.type), values)


def _empty_as_null(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    is_text = pa.types.is_string(values.type)
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values) if is_text else values


def _read_csv(content: bytes, asked: _Asked, *, delimiter: str = ",") -> pa.Table:
    from pyarrow import csv as arrow_csv

    if content.lstrip(b"\xef\xbb\xbf").startswith(b"# %ECSV"):
        return _read_ecsv(content, asked)
    names, skipped = _csv_header(content, delimiter)
    kept = {name: pa.string() for name in names if name in asked.text or _ID_NAME.fullmatch(name)}
    table = arrow_csv.read_csv(
        io.BytesIO(content),
        read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=skipped),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(column_types=kept, null_values=_CSV_NULLS),
    )
    return pa.table([_empty_as_null(values) for values in table.columns], schema=table.schema)


def _csv_header(content: bytes, delimiter: str) -> tuple[list[str], int]:
    """Return the column names and the number of lines before the first row.

    Leading lines that start with "#" are comments (SkyServer writes `#Table1`), unless the last of them has as
    many cells as a first row of numbers: then it is the header (`#id,ra,dec`).
    """
    lines = []
    for line in io.TextIOWrapper(io.BytesIO(content), "utf-8-sig"):  # a byte-order mark is not part of a name
        lines.append(line.rstrip("\r\n"))
        if not line.startswith("#"):
            break
    if len(lines) > 1:
        comment, row = lines[-2].split(delimiter), lines[-1].split(delimiter)
        if len(comment) == len(row) > 1 and any(map(_NUMBER.fullmatch, row)):
            del lines[-1]
    names = next(csv.reader([line.lstrip("# ") for line in lines[-1:]], delimiter=delimiter), [])
    if not any(name.strip() for name in names):
        raise ValueError("it is empty, or its first line is")
    return [name.strip() for name in names], len(lines)


def column_names(path: Path, *, table_name: str | int | None = None) -> list[str]:
    """Return the names of a table's columns; of Parquet without reading more than its footer."""
    if path.suffix.lower() not in _PARQUET:
        return read_table(path, table_name=table_name).column_names
    from pyarrow import parquet

    with _reading(path):
        return parquet.read_schema(path, memory_map=True).names


def column_parts(path: Path, column: str, *, table_name: str | int | None = None) -> Iterator[pa.Array]:
    """Yield one column of a table a part at a time; of Parquet without ever having all of it in memory.

    Raises SchemaError when there is no such column, or when the file cannot be read.
    """
    if path.suffix.lower() not in _PARQUET:
        table = read_table(path, table_name=table_name)
        _must_have(column, table.column_names)
        yield from table[column].chunks
        return
    from pyarrow import parquet

    with _reading(path), parquet.ParquetFile(path, memory_map=True) as file:
        _must_have(column, file.schema_arrow.names)
        for batch in file.iter_batches(PART_ROWS, columns=[column]):
            yield batch.column(0)


def _must_have(column: str, names: list[str]) -> None:
    if column not in names:
        raise SchemaError(f"no column '{column}'; there are: {', '.join(names)}")


def _read_parquet(path: Path, without: Collection[str]) -> pa.Table:
    """Read Parquet; what a field does not say of itself a VOTable header does (VOParquet), where there is one."""
    from pyarrow import parquet

    with parquet.ParquetFile(path, memory_map=True) as file:
        names = [name for name in file.schema_arrow.names if name not in without]
        table = file.read(columns=names if without else None)
    if table.column_names != names:  # a name with a dot means a part of a column there
        table = parquet.read_table(path, memory_map=True).select(names)
    header = (table.schema.metadata or {}).get(VOPARQUET_KEY, b"<VOTABLE/>")
    said = {node.get("name"): node for node in ElementTree.fromstring(header).iterfind(".//{*}FIELD")}
    fields = []
    for field in table.schema:
        node = said.get(field.name, ElementTree.Element("FIELD"))
        found = dict(node.items()) | {"description": node.findtext("{*}DESCRIPTION", "").strip()}
        fields.append(describe(field, **{key: fact or found.get(key) for key, fact in facts_of(field).items()}))
    return pa.table(table.columns, schema=pa.schema(fields))


def _read_ecsv(content: bytes, asked: _Asked) -> pa.Table:
    from astropy.table import Table

    with _quiet():
        return _from_astropy(Table.read(content.decode("utf-8-sig"), format="ascii.ecsv"))


def _read_votable(content: bytes, asked: _Asked) -> pa.Table:
    from astropy.io import votable

    with _quiet(votable.exceptions.VOWarning):
        document = votable.parse(io.BytesIO(content), verify="ignore")
        _heed_status(content, asked)
        found = [table for table in document.iter_tables() if len(table.fields)]
        if not found:
            raise ValueError("it has no TABLE")
        parts = [
            _Part(number, (*filter(None, (one.name, one.ID)),), [f.name for f in one.fields], len(one.array), one)
            for number, one in enumerate(found, start=1)
        ]
        return _from_astropy(_chosen(parts, asked).to_table(use_names_over_ids=True))


def _heed_status(content: bytes, asked: _Asked) -> None:
    """Note that a service cut its answer short; raise SchemaError with its words where it answered with an error.

    QUERY_STATUS is of DALI (TAP, SCS 1.1), an INFO or PARAM named "Error" of the older SCS and SIA.
    """
    for _, node in ElementTree.iterparse(io.BytesIO(content), events=("end",)):
        kind, name, value = node.tag.rpartition("}")[2], node.get("name"), node.get("value", "").strip()
        said = " ".join((node.text or node.findtext("{*}DESCRIPTION") or "").split())
        if kind == "TR":
            node.clear()
        elif kind == "INFO" and (name, value.upper()) == ("QUERY_STATUS", "OVERFLOW"):
            why = f": {said[:200]}" if said else ""
            asked.notes.append(
                f"the service cut its answer short (QUERY_STATUS OVERFLOW{why}), rows are missing; "
                "ask it again with a higher MAXREC, or for smaller parts"
            )
        elif kind == "INFO" and (name, value.upper()) == ("QUERY_STATUS", "ERROR"):
            raise _refused_by_service(said)
        elif name == "Error" and (kind == "INFO" or (kind == "PARAM" and "char" in node.get("datatype", "").lower())):
            raise _refused_by_service(value or said)


def _refused_by_service(said: str) -> SchemaError:
    return SchemaError(f"the service answered with an error: {said[:500] or 'it gives no reason'}; ask it again")


def _read_fits(content: bytes, asked: _Asked) -> pa.Table:
    from astropy.io import fits
    from astropy.table import MaskedColumn, Table

    with _quiet(fits.VerifyError), fits.open(io.BytesIO(content)) as hdus:
        parts = [
            _Part(number, (hdu.name,) if hdu.name else (), hdu.columns.names, hdu.header["NAXIS2"], hdu)
            for number, hdu in enumerate(hdus)
            if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)) and not isinstance(hdu, fits.CompImageHDU)
        ]
        if not parts:
            raise ValueError("it holds no table, perhaps a picture")
        hdu = _chosen(parts, asked)
        if hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * hdu.header["NAXIS2"] > len(content):
            raise ValueError("it is cut short")
        raw = np.asarray(hdu.data).view(np.ndarray)
        logical = [column.name for column in hdu.columns if re.fullmatch(r"1?L", str(column.format))]
        nulls = {name: raw[name].view(np.uint8) == 0 for name in logical}  # which astropy reads as false
        table = Table.read(hdu, format="fits", unit_parse_strict="silent")
    for number, name in enumerate(table.colnames, start=1):
        if name in nulls:
            table[name] = MaskedColumn(table[name], mask=nulls[name])
        table[name].meta["ucd"] = table.meta.get(f"TUCD{number}", "")
        table[name].description = table[name].description or table.meta.get(f"TCOMM{number}")
    return _from_astropy(table)


_READERS = {
    ".csv": _read_csv, ".tsv": partial(_read_csv, delimiter="\t"), ".ecsv": _read_ecsv,
    **dict.fromkeys(_PARQUET, _read_parquet), ".fits": _read_fits, ".fit": _read_fits,
    ".vot": _read_votable, ".votable": _read_votable, ".xml": _read_votable,
}  # fmt: skip


@contextmanager
def _quiet(*foreign: type[Exception]) -> Iterator[None]:
    """Silence astropy's warnings on units and headers that are off standard but readable.

    Errors of the `foreign` types, astropy's own that derive from no ordinary one, become ValueErrors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except foreign as error:
            raise ValueError(str(error)) from error


def _from_astropy(table: Table) -> pa.Table:
    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        null = np.ma.getmaskarray(column) if hasattr(column, "mask") else None
        arrays.append(_to_arrow(_plain_values(column), null, name))
        unit = _spelled(str(getattr(column, "unit", None) or ""), "vounit")
        ucd = (column.info.meta or {}).get("ucd")
        field = pa.field(name, arrays[-1].type)
        fields.append(describe(field, unit=unit, ucd=ucd, description=column.info.description))
    return pa.table(arrays, schema=pa.schema(fields))


def _plain_values(column: Column) -> np.ndarray:
    """Return the values of an astropy column, times as ISO text and coordinates as text."""
    if hasattr(column, "isot"):
        return np.asarray(column.isot)
    if hasattr(column, "to_string") and not hasattr(column, "dtype"):
        return np.asarray(column.to_string())
    return np.asarray(np.ma.getdata(column))


def _to_arrow(values: np.ndarray, null: np.ndarray | None, name: str) -> pa.Array:
    """Return an arrow array in native byte order; an array a row becomes a `fixed_size_list`.

    A row whose elements are all masked or NaN is null.
    """
    if values.ndim > 1:
        flat = _to_arrow(values.reshape(-1), None if null is None else null.reshape(-1), name)
        absent = flat.is_null(nan_is_null=True).to_numpy(zero_copy_only=False).reshape(values.shape)
        for size in values.shape[:1:-1]:
            flat = pa.FixedSizeListArray.from_arrays(flat, size)
        return pa.FixedSizeListArray.from_arrays(
            flat, values.shape[1], mask=pa.array(absent.all(axis=tuple(range(1, values.ndim))))
        )
    if values.dtype.kind in "SUO":
        return _empty_as_null(pa.array([_plain_cell(cell) for cell in values], mask=null))
    if values.dtype.kind not in "biufM":
        raise SchemaError(
            f"column {name} has type {values.dtype.name}, which an atlas cannot hold; remove or convert it"
        )
    return pa.array(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), mask=null)


def _plain_cell(cell):
    if isinstance(cell, (bytes, str)):
        return (cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)).strip()
    if isinstance(cell, np.ndarray):
        return cell.tolist()  # in which masked elements are None
    return None if cell is np.ma.masked else cell


# --- units and field metadata -------------------------------------------------------------------------------


def notes_of(table: pa.Table) -> list[str]:
    """Return what `read_table` noted of a table, one sentence each; [] for any other table.

    They are metadata of the schema: `select`, `take`, `slice`, `set_column` and `append_column` keep them,
    `pa.table(columns)` does not.

        >>> notes_of(with_notes(pa.table({"z": [0.1]}), ["the second of 2 tables was read"]))
        ['the second of 2 tables was read']
    """
    return json.loads((table.schema.metadata or {}).get(NOTES_KEY, b"[]"))


def with_notes(table: pa.Table, notes: Iterable[str]) -> pa.Table:
    """Return the table with more notes after those it has."""
    metadata = dict(table.schema.metadata or {})
    if found := [*notes_of(table), *notes]:
        metadata[NOTES_KEY] = json.dumps(found).encode()
    return table.replace_schema_metadata(metadata or None)


def describe(
    field: pa.Field, *, unit: str | None = None, ucd: str | None = None, description: str | None = None
) -> pa.Field:
    """Return the field with these facts as its metadata; empty ones are left out."""
    given = {"unit": unit, "ucd": ucd, "description": description}
    facts = {key.encode(): value.encode() for key, value in given.items() if value}
    return field.with_metadata(facts or None)


def facts_of(field: pa.Field) -> dict[str, str]:
    """Return `unit`, `ucd` and `description` of a field, each "" where it has none."""
    metadata = field.metadata or {}
    return {key: metadata.get(key.encode(), b"").decode() for key in FIELD_KEYS}


@cache
def _unit(text: str) -> UnitBase | None:
    """Return the unit that VOUnit or, failing that, astropy's own notation names."""
    from astropy import units

    with _quiet():
        known = units.Unit(text, format="vounit", parse_strict="silent")
        found = units.Unit(text, parse_strict="silent") if isinstance(known, units.UnrecognizedUnit) else known
    return found if text else None


@cache
def _spelled(text: str, notation: str) -> str:
    """Return a unit in another notation ("vounit", "fits"), or as it is where that or astropy does not know it."""
    try:
        with _quiet():
            return _unit(text).to_string(notation) if text else ""
    except ValueError:
        return text


# --- writing ------------------------------------------------------------------------------------------------


def write_table(table: pa.Table, path: str | Path, *, meta: dict | None = None) -> int:
    """Write `table` to a .csv .ecsv .fits .vot .xml .parquet .json .reg or .ajs file; return the rows written.

    `meta` says where the rows come from: `title`, `query`, `atlas`, `software`, and `sources`, a list of
    {title, license, acknowledgement, bibtex}; it goes into every format but CSV, which has no place for it.
    `status` is "OK", or "OVERFLOW" where there are more rows than these; VOTable says it in QUERY_STATUS. Units
    and UCDs go where the format has them. Binary columns go to Parquet only. Lists of no fixed length, arrays of
    more than one dimension and structs are JSON text outside Parquet and JSON. A .reg (DS9) or .ajs (Aladin)
    file holds a circle for each row with `ra` and `dec`, so it may have fewer rows.

    The file appears whole or not at all. Raises SchemaError for another suffix, GalsearchError where it
    cannot be written.
    """
    path = Path(path)
    try:
        content = table_bytes(table, path.suffix, meta=meta)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None
    _replace(path, content)
    return len(_positions(table)) if path.suffix.lower() in _REGIONS else table.num_rows


def table_bytes(table: pa.Table, suffix: str, *, meta: dict | None = None) -> bytes:
    """Return what `write_table` would write to a file of that suffix; SchemaError for one that is not known."""
    if suffix.lower() not in _WRITERS:
        raise SchemaError(f"cannot write a table to {suffix or 'no suffix'}; known are {' '.join(_WRITERS)}")
    return _WRITERS[suffix.lower()](table, meta or {})


def format_table(table: pa.Table, fmt: str, *, meta: dict | None = None) -> str:
    """Return `table` as text in one of "json", "csv", "ecsv" or "votable", the same as the files."""
    formats = {"json": _json, "csv": _csv, "ecsv": _ecsv, "votable": _votable}
    if fmt not in formats:
        raise SchemaError(f"format is {fmt!r}; known are {', '.join(formats)}")
    return formats[fmt](table, meta or {}).decode()


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8; the file appears whole or not at all. Raises GalsearchError where it cannot be written."""
    _replace(path, text.encode())


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise GalsearchError(
            f"{path}: cannot be written ({error.strerror}); "
            "name an existing folder with free space that you may write to"
        ) from error
    finally:
        if path.parent.is_dir():
            aside.unlink(missing_ok=True)


def _provenance(meta: dict) -> Iterator[tuple[str, str]]:
    """Yield (name, text) pairs; a source gives one pair for each thing it says of itself."""
    for key, value in meta.items():
        if key not in ("sources", "status") and value is not None:
            yield key, value if isinstance(value, str) else json.dumps(_json_cell(value), ensure_ascii=False)
    for source in meta.get("sources") or []:
        for key, value in source.items():
            if value:
                yield "source" if key == "title" else key, str(value)


def _provenance_lines(meta: dict) -> list[str]:
    return [f"{key}: {line}" for key, text in _provenance(meta) for line in text.splitlines()]


# --- to astropy, and to what a format can hold ---------------------------------------------------------------


_NUMBERS = {  # and the types that they have in FITS and VOTable
    pa.uint8(): pa.uint8(), pa.int8(): pa.int16(), pa.int16(): pa.int16(), pa.uint16(): pa.int32(),
    pa.int32(): pa.int32(), pa.uint32(): pa.int64(), pa.int64(): pa.int64(), pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(), pa.float32(): pa.float32(), pa.float64(): pa.float64(),
}  # fmt: skip


def to_astropy(table: pa.Table, meta: dict | None = None) -> Table:
    """Return an `astropy.table.Table` with units, descriptions and UCDs (`column.meta["ucd"]`); nulls are masked.

    Every column has a type that FITS and VOTable have: int8 becomes int16, and what is neither number, boolean
    nor fixed vector of numbers becomes text. A null float is masked over NaN, a null integer over a number that
    no other row has: the fill value of its column. `meta` becomes the table's meta.
    """
    from astropy.table import Table

    plain = _exportable(table, _plain)
    columns = [_astropy_column(*column) for column in zip(plain.schema, plain.columns, strict=True)]
    return Table(columns, meta=dict(meta or {}), copy=False)


def _astropy_column(field: pa.Field, values: pa.ChunkedArray) -> Column:
    from astropy.table import Column, MaskedColumn

    facts = facts_of(field)
    said = {"name": field.name, "unit": _unit(facts["unit"]), "description": facts["description"] or None}
    said["meta"] = {"ucd": facts["ucd"]} if facts["ucd"] else {}
    null = values.is_null().to_numpy()
    data = _filled(values.combine_chunks())
    if not null.any():
        return Column(data, **said)
    if data.dtype.kind in "iu":
        data = _with_null_number(data, null)
    mask = np.broadcast_to(null if data.ndim == 1 else null[:, None], data.shape).copy()
    return MaskedColumn(data, mask=mask, fill_value=data[null].flat[0], **said)


def _filled(values: pa.Array) -> np.ndarray:
    """Return a numpy array `(n,)` or `(n, d)`; under a null stand NaN, 0, False or ""."""
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        blank = math.nan if pa.types.is_floating(kind.value_type) else 0
        rows = values.fill_null(pa.scalar([blank] * kind.list_size, kind)) if values.null_count else values
        return _filled(rows.flatten()).reshape(len(values), kind.list_size)
    if pa.types.is_string(kind):  # numpy text cannot end in NUL, nor FITS or XML hold it
        return pc.replace_substring(values.fill_null(""), "\0", "\ufffd").to_numpy(zero_copy_only=False).astype(str)
    blank = math.nan if pa.types.is_floating(kind) else False if pa.types.is_boolean(kind) else 0
    return values.fill_null(pa.scalar(blank, kind)).to_numpy(zero_copy_only=False).copy()


def _with_null_number(data: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return the integers with a number under the nulls that no other row has.

    It is the highest of unsigned bytes and the lowest of the rest, where free; a full type is widened.
    """
    taken, info = set(np.unique(data[~null]).tolist()), np.iinfo(data.dtype)
    if len(taken) > info.max - info.min:
        data, info = data.astype(np.int32), np.iinfo(np.int32)
    candidates = range(info.max, -1, -1) if info.min == 0 else range(info.min, info.max)
    data[null] = next(number for number in candidates if number not in taken)
    return data


def _exportable(table: pa.Table, change: Callable[[pa.ChunkedArray], pa.ChunkedArray] | None = None) -> pa.Table:
    """Return the table without binary columns, each other one in a common type, then changed; metadata kept."""
    binary = re.compile("(large_|fixed_size_)?binary")  # also binary_view
    table = table.select([field.name for field in table.schema if not binary.match(str(field.type))])
    for index, field in enumerate(table.schema):
        values = _common(table.column(index))
        values = change(values) if change else values
        table = table.set_column(index, field.with_type(values.type), values)
    return table


def _common(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text as `string`, a dictionary as its values, and times without the nanoseconds Python lacks."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _common(values.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        kind = pa.string()  # nulls only: text, which every comparison in SQL takes
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", kind.tz)
    return values.cast(kind, safe=False)


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers, booleans and fixed vectors of numbers in a type of FITS and VOTable, and the rest as text."""
    kind = values.type
    if pa.types.is_fixed_size_list(kind) and kind.value_type in _NUMBERS:
        holes = pa.types.is_integer(kind.value_type) and pc.list_flatten(values).null_count
        return values.cast(pa.list_(pa.float64() if holes else _NUMBERS[kind.value_type], kind.list_size))
    if pa.types.is_decimal(kind):  # DuckDB's sums of integers are decimals without a fraction
        return values.cast(pa.float64() if kind.scale else pa.string())
    if pa.types.is_uint64(kind) and (pc.max(values).as_py() or 0) >= 2**63:
        return values.cast(pa.string())
    return values.cast(_NUMBERS[kind]) if kind in _NUMBERS else _as_text(values)


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type) or pa.types.is_boolean(values.type):
        return values
    cells = [_json_cell(cell) for cell in values.to_pylist()]
    texts = [cell if isinstance(cell, str | None) else json.dumps(cell, ensure_ascii=False) for cell in cells]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _json_cell(cell):
    """Return what JSON can hold: NaN and infinities are null, times ISO text."""
    if isinstance(cell, dict):
        return {str(key): _json_cell(value) for key, value in cell.items()}
    if isinstance(cell, (list, tuple)):
        return [_json_cell(value) for value in cell]
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    if cell is None or isinstance(cell, (bool, int, str)):
        return cell
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


# --- the formats ---------------------------------------------------------------------------------------------


def _csv(table: pa.Table, meta: dict) -> bytes:
    from pyarrow import csv as arrow_csv

    buffer = io.BytesIO()
    flat = _exportable(table, lambda values: _as_text(values) if pa.types.is_nested(values.type) else values)
    arrow_csv.write_csv(flat, buffer)
    return buffer.getvalue()


def _json(table: pa.Table, meta: dict) -> bytes:
    """Write {"meta", "columns", "rows"}, a row a line."""
    columns = [{"name": field.name, "type": str(field.type), **facts_of(field)} for field in _exportable(table).schema]
    head, names, *rows = (
        json.dumps(_json_cell(part), ensure_ascii=False)
        for part in [meta, columns, *_exportable(table, _shortest).to_pylist()]
    )
    lines = "\n  " + ",\n  ".join(rows) + "\n" if rows else ""
    return f'{{"meta": {head},\n "columns": {names},\n "rows": [{lines}]}}\n'.encode()


def _shortest(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return float32 as the float64 of the same shortest text: 0.1, not 0.10000000149011612."""
    return values.cast(pa.string()).cast(pa.float64()) if pa.types.is_float32(values.type) else values


def _parquet(table: pa.Table, meta: dict) -> bytes:
    """Write Parquet whose metadata holds a VOTable header (VOParquet 1.0) and `galsearch`, the meta as JSON.

    For astropy the length of the longest text of each column stands there too: it cannot read a null otherwise.
    """
    from pyarrow import parquet

    keys = {b"IVOA.VOTable-Parquet.version": b"1.0", VOPARQUET_KEY: _votable_header(_exportable(table, _plain), meta)}
    keys[b"galsearch"] = json.dumps(_json_cell(meta), ensure_ascii=False).encode()
    for name, values in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(values.type):
            keys[f"table::len::{name}".encode()] = str(_longest(values)).encode()
    buffer = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(keys), buffer, compression="zstd")
    return buffer.getvalue()


_VO_TYPES = {
    pa.bool_(): "boolean", pa.uint8(): "unsignedByte", pa.int16(): "short", pa.int32(): "int", pa.int64(): "long",
    pa.float32(): "float", pa.float64(): "double", pa.string(): "unicodeChar",
}  # fmt: skip


def _votable(table: pa.Table, meta: dict) -> bytes:
    """Write VOTable 1.4 with TABLEDATA; a null is an empty TD, as the standard has it since 1.3, in a vector NaN.

    Not by astropy, which loads slowly, and whose infinities ("+InF") other readers take for nothing.
    """
    plain = _exportable(table, lambda values: _without_null_vectors(_plain(values)))
    cells = [_td(values) for values in plain.columns]
    rows = "".join(f"<TR>{''.join(row)}</TR>\n" for row in zip(*cells, strict=True))
    head, tail = _votable_header(plain, meta).decode().split("</TABLE>")  # which text cannot hold: its "<" is escaped
    return _xml(f"{head}<DATA><TABLEDATA>\n{rows}</TABLEDATA></DATA></TABLE>{tail}")


def _td(values: pa.ChunkedArray) -> list[str]:
    """Return the cells of a column as TD elements."""
    if pa.types.is_fixed_size_list(values.type):
        size = values.type.list_size
        whole = values.fill_null(pa.scalar([math.nan] * size, values.type)) if values.null_count else values
        rows = pa.FixedSizeListArray.from_arrays(_vo_numbers(pc.list_flatten(whole)).combine_chunks(), size)
        texts = pc.binary_join(rows.cast(pa.list_(pa.string())), " ")
    elif pa.types.is_string(values.type):
        texts = values
        for sign, name in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}.items():
            texts = pc.replace_substring(texts, sign, name)
    else:
        texts = _vo_numbers(values)
    return pc.binary_join_element_wise("<TD>", texts.fill_null(""), "</TD>", "").to_pylist()


def _vo_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers as text, the shortest that is the same number; what is not finite as VOTable spells it."""
    texts = values.cast(pa.string())
    if not pa.types.is_floating(values.type):
        return texts
    for number, name in {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.items():
        texts = pc.if_else(pc.equal(texts, number), name, texts)
    return texts


def _votable_header(plain: pa.Table, meta: dict) -> bytes:
    """Return a VOTable without data."""
    root = ElementTree.Element("VOTABLE", version="1.4", xmlns="http://www.ivoa.net/xml/VOTable/v1.3")
    resource = ElementTree.SubElement(root, "RESOURCE", type="results")
    sky = ("ra", "dec") if {"ra", "dec"} <= set(plain.column_names) else ()
    for name, text in [("QUERY_STATUS", meta.get("status", "OK")), *_provenance(meta)]:
        ElementTree.SubElement(resource, "INFO", name=name, value=text)
    if sky:
        ElementTree.SubElement(resource, "COOSYS", ID="icrs", system="ICRS")
    columns = ElementTree.SubElement(resource, "TABLE", name="galaxies", nrows=str(plain.num_rows))
    for field in plain.schema:
        said, words = facts_of(field), facts_of(field)["description"]
        said |= {"name": field.name, **_vo_type(plain[field.name])}
        said |= {"ref": "icrs" if field.name in sky else "", "description": ""}
        node = ElementTree.SubElement(columns, "FIELD", {key: fact for key, fact in said.items() if fact})
        if words:
            ElementTree.SubElement(node, "DESCRIPTION").text = words
    return _xml("<?xml version='1.0' encoding='UTF-8'?>\n" + _serialized(root))


def _serialized(root: ElementTree.Element) -> str:
    """Return the document as text, with a line for each element that has a name."""
    text = ElementTree.tostring(root, "unicode", short_empty_elements=False)
    return re.sub(r"<(?=RESOURCE|INFO|COOSYS|TABLE|FIELD)", "\n<", text) + "\n"


def _vo_type(values: pa.ChunkedArray) -> dict[str, str]:
    """Return `datatype` and `arraysize` of a column; text is `char` where ASCII is all that it has.

    The arraysize of text is that of the longest, and not just "*", which keeps astropy from reading VOParquet.
    """
    kind = values.type
    if pa.types.is_string(kind):
        ascii_only = pc.all(pc.string_is_ascii(values)).as_py() is not False
        return {"datatype": "char" if ascii_only else "unicodeChar", "arraysize": f"{_longest(values)}*"}
    if pa.types.is_fixed_size_list(kind):
        return {"datatype": _VO_TYPES[kind.value_type], "arraysize": str(kind.list_size)}
    return {"datatype": _VO_TYPES[kind]}


def _longest(values: pa.ChunkedArray) -> int:
    """Return the characters of the longest text; at least 1."""
    return max(1, pc.max(pc.utf8_length(values)).as_py() or 0)


def _without_null_vectors(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return vectors of integers of which some are missing as floats, where NaN can say so.

    FITS and VOTable have a number that stands for null, but readers apply it to single integers only. Vectors with
    an integer that a float cannot hold become JSON text.
    """
    kind = values.type
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_integer(kind.value_type) and values.null_count):
        return values
    try:
        return values.cast(pa.list_(pa.float64(), kind.list_size))
    except pa.ArrowInvalid:
        return _as_text(values)


def _xml(document: str) -> bytes:
    """Return the document with the control characters that XML 1.0 cannot hold as U+FFFD."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", document).encode()


def _ecsv(table: pa.Table, meta: dict) -> bytes:
    buffer = io.StringIO()
    to_astropy(table, _json_cell(meta)).write(buffer, format="ascii.ecsv")
    return buffer.getvalue().encode()


def _fits(table: pa.Table, meta: dict) -> bytes:
    """Write one binary table: null integers by TNULL, null floats NaN, null logicals a zero byte, null text empty.

    Text is UTF-8. TUCDn and TCOMMn hold UCD and description as STIL writes them; the provenance is in COMMENT
    cards. In vectors a null is NaN.
    """
    from astropy.io import fits

    table = _exportable(table, _without_null_vectors)
    names = [_ascii(name) or f"col{number}" for number, name in enumerate(table.column_names, start=1)]
    data = to_astropy(pa.table(table.columns, names=names))  # no units: astropy drops those FITS has not
    filled = data.filled()  # with the fill values of `to_astropy`
    filled.convert_unicode_to_bytestring()
    hdu = fits.table_to_hdu(filled)
    for number, (field, column) in enumerate(zip(table.schema, data.columns.values(), strict=True), start=1):
        facts = facts_of(field)
        card = hdu.columns[column.name]
        if facts["unit"]:
            card.unit = _ascii(_spelled(facts["unit"], "fits"))
        if column.dtype.kind in "iu" and hasattr(column, "mask"):
            card.null = int(column.fill_value)
        if column.dtype.kind == "b" and hasattr(column, "mask"):
            hdu.data.view(np.ndarray)[column.name].view(np.uint8)[column.mask] = 0
        hdu.header.update({f"TUCD{number}": _ascii(facts["ucd"])} if facts["ucd"] else {})
        hdu.header.update({f"TCOMM{number}": _ascii(facts["description"])} if facts["description"] else {})
    for line in _provenance_lines(meta):
        hdu.header.add_comment(_ascii(line).replace("\t", " "))
    hdu.header.update({"RADESYS": "ICRS"} if {"ra", "dec"} <= set(table.column_names) else {})
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _ds9(table: pa.Table, meta: dict) -> bytes:
    """Write a DS9 region file, which Aladin reads too, but without the labels."""
    head = ["# Region file format: DS9 version 4.1", *_region_notes(table, meta), "icrs"]
    return "\n".join([*head, *(_circle(**row) for row in _positions(table)), ""]).encode()


def _circle(ra: float, dec: float, radius_arcsec: float, label: str) -> str:
    text = re.sub(r"[{}\s]+", " ", label)
    return f'circle({ra!r},{dec!r},{radius_arcsec:.6g}")' + (f" # text={{{text}}}" if text else "")


def _aladin(table: pa.Table, meta: dict) -> bytes:
    """Write a script for Aladin Desktop: a drawing of its own, with a circle and a label for each position."""
    title = _script_text(str(meta.get("title") or "galaxies"))
    head = [*_region_notes(table, meta), "setconf frame=ICRS", "draw mode(RADEC)", f'draw newtool("{title}")']
    lines = [line for row in _positions(table) for line in _drawn(**row)]
    return "\n".join([*head, *lines, ""]).encode()


def _drawn(ra: float, dec: float, radius_arcsec: float, label: str) -> Iterator[str]:
    yield f"draw circle({ra!r},{dec!r},{radius_arcsec:.6g}arcsec)"
    if text := _script_text(label):
        yield f'draw string({ra!r},{dec!r},"{text}")'


def _script_text(text: str) -> str:
    """Return text without what would end it, or its command, in an Aladin script."""
    return re.sub(r"[\s\"'`;\\]+", " ", text).strip()


def _region_notes(table: pa.Table, meta: dict) -> list[str]:
    """Return the provenance as comments, and how many rows cannot be drawn."""
    left_out = table.num_rows - len(_positions(table))
    lost = [f"# {left_out} of {table.num_rows} rows have no position and are left out"] if left_out else []
    return [*(f"# {line}" for line in _provenance_lines(meta)), *lost]


def _positions(table: pa.Table) -> list[dict]:
    """Return ra, dec, radius_arcsec and label of the rows that have a position."""
    if not {"ra", "dec"} <= set(table.column_names):
        return []
    table = table.select([name for name in ("ra", "dec", "radius_arcsec", "object_id") if name in table.column_names])
    placed = pc.and_(pc.is_finite(table["ra"]), pc.is_finite(table["dec"]))  # a row where this is null is left out
    return [_position(**row) for row in table.filter(placed).to_pylist()]


def _position(ra: float, dec: float, radius_arcsec: float | None = None, object_id: str | None = None) -> dict:
    size = radius_arcsec if 0 < (radius_arcsec or 0) < math.inf else REGION_RADIUS_ARCSEC
    return {"ra": ra, "dec": dec, "radius_arcsec": size, "label": "" if object_id is None else str(object_id)}


_REGIONS = {".reg": _ds9, ".ajs": _aladin}
_WRITERS = {
    ".csv": _csv, ".ecsv": _ecsv, ".fits": _fits, ".fit": _fits, ".vot": _votable, ".votable": _votable,
    ".xml": _votable, ".parquet": _parquet, ".pq": _parquet, ".json": _json, **_REGIONS,
}  # fmt: skip
