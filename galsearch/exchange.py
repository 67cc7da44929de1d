"""Read and write tables as astronomers exchange them; only this module knows FITS tables, VOTable and DS9.

Inside galsearch a table is a `pyarrow.Table` whose fields carry `unit` (VOUnit), `ucd` (UCD1+) and
`description` as metadata. One rule for missing values on the way in: a masked cell, a NaN in a scalar column
and, in every format but Parquet, an empty string are null, since CSV, ECSV, FITS and VOTable cannot tell an
empty string from a missing one.

    >>> import pyarrow as pa
    >>> print(format_table(pa.table({"object_id": ["a", "b"], "z": [0.1, None]}), "csv"), end="")
    "object_id","z"
    "a",0.1
    "b",
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import cache
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch.errors import GalsearchError, SchemaError

FIELD_KEYS = ("unit", "ucd", "description")
VOPARQUET_KEY = b"IVOA.VOTable-Parquet.content"
REGION_RADIUS_ARCSEC = 5.0  # of a circle whose row has no radius_arcsec
_READING_ERRORS = (  # what pyarrow, astropy and the decompressors raise on a bad file
    OSError, ValueError, KeyError, IndexError, TypeError, EOFError, OverflowError,
    pa.ArrowException, zlib.error, ElementTree.ParseError,
)  # fmt: skip
_ID_NAME = re.compile(
    r"(id|name|designation|iau_?name|(\w*_)?(source|target|galaxy)_?id|\w*obj(ect)?_?id)", re.IGNORECASE
)
_CSV_NULLS = ["", "NaN", "nan", "NAN", "null", "NULL", "N/A", "n/a", "NA", "--", "masked"]


# --- reading ------------------------------------------------------------------------------------------------


def read_table(path: str | Path, *, text: Iterable[str] = ()) -> pa.Table:
    """Read a .csv .tsv .ecsv .parquet .fits or .vot file, by its suffix; all but Parquet also with .gz.

    Units become VOUnit strings, and UCDs and descriptions are kept where the format has them. A column that
    is named like an identifier (`object_id`, `id`, `name`, `source_id`, `…objid`) and the columns in `text`
    are strings, digit for digit: leading zeros and 19-digit numbers survive. A vector column is a
    `fixed_size_list`. Of a file with several tables the first is read.

    Raises SchemaError, naming the file, for another suffix or a file that cannot be read as its suffix says.
    """
    path = Path(path)
    reader = _reader(path)
    with _reading(path):
        table = reader(path, frozenset(text))
    if len(set(table.column_names)) < table.num_columns:
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        raise SchemaError(f"{path}: column {', '.join(twice)} occurs twice; names must be unique, rename one")
    return _tidy(table, frozenset(text))


def _reader(path: Path) -> Callable[[Path, frozenset[str]], pa.Table]:
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in _READERS or (name.endswith(".gz") and suffix in (".parquet", ".pq")):
        raise SchemaError(
            f"{path}: cannot read a table from {''.join(path.suffixes[-2:]) or 'a file without a suffix'}; "
            f"known are {' '.join(_READERS)}"
        )
    return _READERS[suffix]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the readers raise on a bad file into one SchemaError with the name of the file."""
    try:
        yield
    except FileNotFoundError:
        raise SchemaError(f"{path}: there is no such file; check the path") from None
    except _READING_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise SchemaError(
            f"{path}: not readable as {path.suffix} ({reason}); copy the file again or give it its true suffix"
        ) from error


def _read_csv(path: Path, text: frozenset[str]) -> pa.Table:
    from pyarrow import csv as arrow_csv

    content = _read_bytes(path)
    if content.lstrip(b"\xef\xbb\xbf").startswith(b"# %ECSV"):
        return _read_ecsv(path, text)
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    names, skipped = _csv_header(content, delimiter)
    kept = {name: pa.string() for name in names if name in text or _ID_NAME.fullmatch(name)}
    table = arrow_csv.read_csv(
        io.BytesIO(content),
        read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=skipped),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(column_types=kept, null_values=_CSV_NULLS),
    )
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(index, field, _empty_as_null(table.column(index)))
    return table


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
    if len(lines) > 1 and _is_header(lines[-2], lines[-1], delimiter):
        del lines[-1]
    names = next(csv.reader([line.lstrip("# ") for line in lines[-1:]], delimiter=delimiter), [])
    if not any(name.strip() for name in names):
        raise ValueError("it is empty, or its first line is")
    return [name.strip() for name in names], len(lines)


def _is_header(comment: str, row: str, delimiter: str) -> bool:
    cells = row.split(delimiter)
    return delimiter in comment and comment.count(delimiter) == row.count(delimiter) and any(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix.lower() == ".gz" else content


def _read_parquet(path: Path, text: frozenset[str]) -> pa.Table:
    from pyarrow import parquet

    table = parquet.read_table(path, partitioning=None)
    return _described(table, _voparquet_fields((table.schema.metadata or {}).get(VOPARQUET_KEY)))


def _voparquet_fields(content: bytes | None) -> dict[str, dict[str, str]]:
    """Return unit, UCD and description of each column in the VOTable header of a VOParquet file."""
    if content is None:
        return {}
    found = {}
    for node in ElementTree.fromstring(content).iter():
        if node.tag.rpartition("}")[2] == "FIELD":
            words = next((child.text for child in node if child.tag.rpartition("}")[2] == "DESCRIPTION"), None)
            found[node.get("name")] = {
                "unit": _vounit(node.get("unit")), "ucd": node.get("ucd"),
                "description": (words or "").strip(),
            }  # fmt: skip
    return found


def _read_ecsv(path: Path, text: frozenset[str]) -> pa.Table:
    from astropy.table import Table

    with _quiet():
        return _from_astropy(Table.read(_read_bytes(path).decode("utf-8-sig"), format="ascii.ecsv"), path)


def _read_votable(path: Path, text: frozenset[str]) -> pa.Table:
    from astropy.io import votable

    with _quiet(votable.exceptions.VOWarning):
        tables = list(votable.parse(io.BytesIO(_read_bytes(path)), verify="ignore").iter_tables())
        if not tables:
            raise ValueError("it has no TABLE")
        return _from_astropy(tables[0].to_table(use_names_over_ids=True), path)


def _read_fits(path: Path, text: frozenset[str]) -> pa.Table:
    from astropy.io import fits
    from astropy.table import Table

    content = _read_bytes(path)
    with _quiet(fits.VerifyError), fits.open(io.BytesIO(content)) as hdus:
        index = next((row for row, hdu in enumerate(hdus) if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))), None)
        if index is None or isinstance(hdus[index], fits.CompImageHDU):
            raise ValueError("it holds no table, perhaps a picture")
        hdu = hdus[index]
        if hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * hdu.header["NAXIS2"] > len(content):
            raise ValueError("it is cut short")
        nulls = _null_flags(hdu)
        table = Table.read(hdu, format="fits", unit_parse_strict="silent")
    for number, name in enumerate(table.colnames, start=1):
        column = table[name]
        column.meta["ucd"] = table.meta.get(f"TUCD{number}", "")
        column.description = column.description or table.meta.get(f"TCOMM{number}")
    return _from_astropy(table, path, nulls=nulls)


def _null_flags(hdu) -> dict[str, np.ndarray]:
    """Return where logical columns are null: FITS writes a zero byte there, which astropy reads as false."""
    raw = np.asarray(hdu.data).view(np.ndarray)
    logical = [column.name for column in hdu.columns if re.fullmatch(r"1?L", str(column.format))]
    return {name: raw[name].view(np.uint8) == 0 for name in logical}


@contextmanager
def _quiet(*foreign: type[Exception]) -> Iterator[None]:
    """Silence astropy's warnings on units and headers that are off standard but readable.

    Errors of the `foreign` types, astropy's own that derive from no ordinary one, become ValueErrors.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except foreign as error:
            raise ValueError(str(error)) from error


def _from_astropy(table, path: Path, *, nulls: dict[str, np.ndarray] | None = None) -> pa.Table:
    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        null = np.ma.getmaskarray(column) if hasattr(column, "mask") else None
        if nulls and name in nulls:
            null = nulls[name]
        arrays.append(_to_arrow(_plain_values(column), null, f"{path}: column {name}"))
        facts = {"unit": _vounit(getattr(column, "unit", None)), "description": column.info.description}
        facts["ucd"] = (column.info.meta or {}).get("ucd")
        fields.append(describe(pa.field(name, arrays[-1].type), **facts))
    return pa.table(arrays, schema=pa.schema(fields))


def _plain_values(column) -> np.ndarray:
    """Return the values of an astropy column, times as ISO text and coordinates as text."""
    if hasattr(column, "isot"):
        return np.asarray(column.isot)
    if hasattr(column, "to_string") and not hasattr(column, "dtype"):
        return np.asarray(column.to_string())
    return np.asarray(np.ma.getdata(column) if hasattr(column, "mask") else column)


def _to_arrow(values: np.ndarray, null: np.ndarray | None, where: str) -> pa.Array:
    """Return an arrow array in native byte order; an array a row becomes a `fixed_size_list`.

    A row whose elements are all masked or NaN is null.
    """
    if values.ndim > 1:
        flat = _to_arrow(values.reshape(-1), None if null is None else null.reshape(-1), where)
        absent = flat.is_null(nan_is_null=True).to_numpy(zero_copy_only=False).reshape(len(values), -1).all(axis=1)
        for size in values.shape[:1:-1]:
            flat = pa.FixedSizeListArray.from_arrays(flat, size)
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(absent))
    if values.dtype.kind == "S":
        values = np.array([cell.decode("utf-8", "replace").strip() for cell in values], dtype=object)
    elif values.dtype.kind == "O":
        values = np.array([_plain_cell(cell) for cell in values] + [None], dtype=object)[:-1]  # stays one-dimensional
    elif values.dtype.kind not in "biufUM":
        raise SchemaError(f"{where} has type {values.dtype.name}, which an atlas cannot hold; remove or convert it")
    if values.dtype.kind == "U":
        values = np.char.strip(values).astype(object)
    native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
    array = pa.array(native, mask=null)
    return _empty_as_null(array) if pa.types.is_string(array.type) else array


def _plain_cell(cell):
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace").strip()
    if isinstance(cell, np.ma.MaskedArray):
        return cell.tolist()  # masked elements become None
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    return None if cell is np.ma.masked else cell


def _tidy(table: pa.Table, text: frozenset[str]) -> pa.Table:
    """Apply the two rules of every format: identifiers are text, and missing is null."""
    for index, field in enumerate(table.schema):
        values = table.column(index)
        if (field.name in text or _ID_NAME.fullmatch(field.name)) and pa.types.is_integer(field.type):
            values = values.cast(pa.string())
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        values = values.cast(_common_type(values.type), safe=False)
        if pa.types.is_null(values.type):
            values = values.cast(pa.string())  # which every comparison in SQL takes
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        table = table.set_column(index, pa.field(field.name, values.type, metadata=field.metadata), values)
    return table.replace_schema_metadata(None)


def _empty_as_null(values: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)


_READERS = {
    ".csv": _read_csv, ".tsv": _read_csv, ".ecsv": _read_ecsv,
    ".parquet": _read_parquet, ".pq": _read_parquet, ".fits": _read_fits, ".fit": _read_fits,
    ".vot": _read_votable, ".votable": _read_votable, ".xml": _read_votable,
}  # fmt: skip


# --- units and field metadata -------------------------------------------------------------------------------


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


def _described(table: pa.Table, facts: dict[str, dict[str, str]]) -> pa.Table:
    fields = [
        describe(
            field,
            **{
                **facts_of(field),
                **{key: value for key, value in facts.get(field.name, {}).items() if value},
            },
        )
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata)) if facts else table


@cache
def _vounit_of(text: str) -> str:
    """Return a unit in VOUnit spelling, or as it was written where astropy does not know it."""
    from astropy import units

    with _quiet():
        unit = units.Unit(text, parse_strict="silent")
        if isinstance(unit, units.UnrecognizedUnit):
            return text
        try:
            return unit.to_string("vounit")
        except ValueError:
            return text


def _vounit(unit) -> str:
    return _vounit_of(str(unit)) if unit is not None and str(unit) else ""


@cache
def _astropy_unit(text: str):
    from astropy import units

    with _quiet():
        known = units.Unit(text, format="vounit", parse_strict="silent")
        return units.Unit(text, parse_strict="silent") if isinstance(known, units.UnrecognizedUnit) else known


@cache
def _fits_unit(text: str) -> str:
    try:
        return _astropy_unit(text).to_string("fits")
    except ValueError:
        return _ascii(text)


# --- writing ------------------------------------------------------------------------------------------------


def write_table(table: pa.Table, path: str | Path, *, meta: dict | None = None) -> int:
    """Write `table` to a .csv .ecsv .fits .vot .xml .parquet .json or .reg file; return the rows written.

    `meta` says where the rows come from: `title`, `query`, `atlas`, `software`, and `sources`, a list of
    {title, license, acknowledgement, bibtex}; it goes into every format but CSV, which has no place for it
    (see `credits`). Units and UCDs go where the format has them. Binary columns go to Parquet only. Lists of
    no fixed length and structs are JSON text outside Parquet and JSON. A .reg file holds a circle a row with
    `ra` and `dec`, so it may have fewer rows.

    The file appears whole or not at all. Raises SchemaError for another suffix, GalsearchError where it
    cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise SchemaError(
            f"{path}: cannot write a table to {path.suffix or 'no suffix'}; known are {' '.join(_WRITERS)}"
        )
    _replace(path, _WRITERS[path.suffix.lower()](table, meta or {}))
    return len(_circles(table)) if path.suffix.lower() == ".reg" else table.num_rows


def format_table(table: pa.Table, fmt: str, *, meta: dict | None = None) -> str:
    """Return `table` as text in one of "json", "csv", "ecsv" or "votable", the same as the files."""
    formats = {"json": _json, "csv": _csv, "ecsv": _ecsv, "votable": _votable}
    if fmt not in formats:
        raise SchemaError(f"format is {fmt!r}; known are {', '.join(formats)}")
    return formats[fmt](table, meta or {}).decode()


def credits(meta: dict) -> str:
    """Return what to cite for the sources in `meta`: a title, license, acknowledgement and BibTeX entry
    each."""
    parts = []
    for source in meta.get("sources") or []:
        head = source.get("title") or "unnamed source"
        head += f" ({source['license']})" if source.get("license") else ""
        parts.append("\n".join(filter(None, [head, source.get("acknowledgement"), source.get("bibtex")])))
    return "\n\n".join(parts)


def to_astropy(table: pa.Table, meta: dict | None = None):
    """Return an `astropy.table.Table` with units, descriptions and UCDs (`column.meta["ucd"]`); nulls are
    masked.

    A null float is masked over NaN. `meta` becomes the table's meta.
    """
    from astropy.table import Table

    out = Table(meta=dict(meta or {}))
    for field, values in _columns(_plain_table(table)):
        out[field.name] = _astropy_column(field, values)
    return out


def _astropy_column(field: pa.Field, values: pa.Array):
    from astropy.table import Column, MaskedColumn

    facts = facts_of(field)
    unit = _astropy_unit(facts["unit"]) if facts["unit"] else None
    extra = {
        "unit": unit,
        "description": facts["description"] or None,
        "meta": {"ucd": facts["ucd"]} if facts["ucd"] else {},
    }
    null = _nulls(values)
    data = _filled(values)
    if not null.any():
        return Column(data, **extra)
    shaped = np.broadcast_to(null.reshape(-1, *[1] * (data.ndim - 1)), data.shape)
    return MaskedColumn(data, mask=shaped, **extra)


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


def _columns(table: pa.Table) -> Iterator[tuple[pa.Field, pa.Array]]:
    for field, column in zip(table.schema, table.columns, strict=True):
        yield field, column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _exportable(table: pa.Table) -> pa.Table:
    """Return the table without binary columns, text and times in the arrow types that every writer takes."""
    table = table.select([field.name for field in table.schema if not _is_binary(field.type)])
    fields = [field.with_type(_common_type(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields), safe=False) if fields else table


def _is_binary(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _common_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)  # Python has no nanoseconds
    return kind


def _plain_table(table: pa.Table) -> pa.Table:
    """Return the table with numbers, booleans, text and fixed vectors of numbers only."""
    table = _exportable(table)
    for index, (field, values) in enumerate(_columns(table)):
        plain = _plain_array(values)
        table = table.set_column(index, pa.field(field.name, plain.type, metadata=field.metadata), plain)
    return table


def _plain_array(values: pa.Array) -> pa.Array:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _plain_array(values.cast(kind.value_type))
    if pa.types.is_fixed_size_list(kind) and _is_number_type(kind.value_type):
        holes = pa.types.is_integer(kind.value_type) and values.flatten().null_count
        return values.cast(pa.list_(pa.float64(), kind.list_size)) if holes else values
    if pa.types.is_uint64(kind) and (pc.max(values).as_py() or 0) >= 2**63:
        return values.cast(pa.string())
    plain = {pa.uint64(): pa.int64(), pa.null(): pa.string()}.get(kind, kind)
    if pa.types.is_decimal(kind):  # DuckDB's sums of integers are decimals without a fraction
        plain = pa.float64() if kind.scale else pa.string()
    if _is_number_type(plain) or pa.types.is_boolean(plain) or pa.types.is_string(plain):
        return values.cast(plain)
    return pa.array([_text_cell(cell) for cell in values.to_pylist()], pa.string())


def _is_number_type(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _text_cell(cell) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, (datetime, date, time)):
        return cell.isoformat()
    return json.dumps(_json_cell(cell), ensure_ascii=False) if isinstance(cell, (list, dict)) else str(cell)


def _nulls(values: pa.Array) -> np.ndarray:
    return values.is_null().to_numpy(zero_copy_only=False)


def _filled(values: pa.Array, *, integer: int = 0) -> np.ndarray:
    """Return a numpy array `(n,)` or `(n, d)`; under a null stand NaN, `integer`, False or ""."""
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        flat = pc.if_else(values.is_valid(), values, _zero_vector(kind)) if values.null_count else values
        return _filled(flat.flatten(), integer=integer).reshape(len(values), kind.list_size)
    if pa.types.is_floating(kind):
        return values.to_numpy(zero_copy_only=False).copy()
    fill = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else integer
    filled = values.fill_null(fill).to_numpy(zero_copy_only=False)
    return filled.astype(str) if pa.types.is_string(kind) else filled.copy()


def _zero_vector(kind: pa.DataType) -> pa.Scalar:
    """Return the vector that stands under a null one: NaN where the numbers are floats, zeros where not."""
    return pa.scalar([math.nan if pa.types.is_floating(kind.value_type) else 0] * kind.list_size, kind)


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _csv(table: pa.Table, meta: dict) -> bytes:
    from pyarrow import csv as arrow_csv

    plain = _exportable(table)
    for index, (field, values) in enumerate(_columns(plain)):
        if pa.types.is_nested(field.type):
            plain = plain.set_column(index, field.name, pa.array(map(_text_cell, values.to_pylist()), pa.string()))
    buffer = io.BytesIO()
    arrow_csv.write_csv(plain, buffer)
    return buffer.getvalue()


def _ecsv(table: pa.Table, meta: dict) -> bytes:
    buffer = io.StringIO()
    to_astropy(table, _json_cell(meta)).write(buffer, format="ascii.ecsv")
    return buffer.getvalue().encode()


def _json(table: pa.Table, meta: dict) -> bytes:
    """Write {"meta", "columns", "rows"}; NaN and infinities, which JSON has not, are null."""
    table = _exportable(table)
    columns = [{"name": field.name, "type": str(field.type), **facts_of(field)} for field in table.schema]
    for index, (field, values) in enumerate(_columns(table)):
        if pa.types.is_float32(field.type):  # as 0.1, not 0.10000000149011612
            table = table.set_column(index, field.with_type(pa.float64()), values.cast(pa.string()).cast(pa.float64()))
    rows = ",\n  ".join(json.dumps(_json_cell(row), ensure_ascii=False) for row in table.to_pylist())
    facts = json.dumps(_json_cell(meta), ensure_ascii=False), json.dumps(columns, ensure_ascii=False)
    head = f'{{"meta": {facts[0]},\n "columns": {facts[1]},\n'
    return (head + ' "rows": [' + (f"\n  {rows}\n" if rows else "") + "]}\n").encode()


def _json_cell(value):
    if isinstance(value, dict):
        return {str(key): _json_cell(cell) for key, cell in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_cell(cell) for cell in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else _text_cell(value)


def _parquet(table: pa.Table, meta: dict) -> bytes:
    """Write Parquet whose metadata holds a VOTable header (VOParquet) and `galsearch`, the meta as JSON."""
    from pyarrow import parquet

    header = _votable_header(_plain_table(table), meta) + "</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
    keys = {b"IVOA.VOTable-Parquet.version": b"1.0", VOPARQUET_KEY: header.encode()}
    keys[b"galsearch"] = json.dumps(_json_cell(meta), ensure_ascii=False).encode()
    buffer = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(keys), buffer, compression="zstd")
    return buffer.getvalue()


# --- DS9 regions --------------------------------------------------------------------------------------------


def _region(table: pa.Table, meta: dict) -> bytes:
    circles = _circles(table)
    left_out = table.num_rows - len(circles)
    notes = [f"# {line}" for line in _provenance_lines(meta)]
    notes += [f"# {left_out} of {table.num_rows} rows have no position and are left out"] if left_out else []
    return "\n".join(["# Region file format: DS9 version 4.1", *notes, "icrs", *circles, ""]).encode()


def _circles(table: pa.Table) -> list[str]:
    if not {"ra", "dec"} <= set(table.column_names):
        return []
    blank = [None] * table.num_rows
    radii = table["radius_arcsec"].to_pylist() if "radius_arcsec" in table.column_names else blank
    labels = table["object_id"].to_pylist() if "object_id" in table.column_names else blank
    rows = zip(table["ra"].to_pylist(), table["dec"].to_pylist(), radii, labels, strict=True)
    return [_circle(ra, dec, radius, label) for ra, dec, radius, label in rows if _is_finite(ra) and _is_finite(dec)]


def _circle(ra: float, dec: float, radius: float | None, label: str | None) -> str:
    size = radius if _is_finite(radius) and radius > 0 else REGION_RADIUS_ARCSEC
    text = re.sub(r"[{}\s]+", " ", str(label)) if label is not None else ""
    return f'circle({ra!r},{dec!r},{size:.6g}")' + (f" # text={{{text}}}" if text else "")


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


# --- provenance ---------------------------------------------------------------------------------------------


def _provenance(meta: dict) -> Iterator[tuple[str, str]]:
    """Yield (name, text) pairs; a source gives one pair for each thing it says of itself."""
    for key, value in meta.items():
        if key == "sources" or value is None:
            continue
        yield key, value if isinstance(value, str) else json.dumps(_json_cell(value), ensure_ascii=False)
    for source in meta.get("sources") or []:
        for key, value in source.items():
            if value:
                yield "source" if key == "title" else key, str(value)


def _provenance_lines(meta: dict) -> list[str]:
    return [f"{key}: {line}" for key, text in _provenance(meta) for line in text.splitlines()]


# --- VOTable ------------------------------------------------------------------------------------------------

_VO_TYPES = {
    "bool": "boolean", "uint8": "unsignedByte", "int8": "short", "int16": "short", "uint16": "int",
    "int32": "int", "uint32": "long", "int64": "long", "uint64": "long", "halffloat": "float",
    "float": "float", "double": "double",
}  # fmt: skip


def _votable(table: pa.Table, meta: dict) -> bytes:
    """Write VOTable 1.4 with TABLEDATA; a null is an empty TD, as the standard has it since 1.3."""
    plain = _plain_table(table)
    cells = [_td_cells(values) for _, values in _columns(plain)]
    rows = "\n".join(f"<TR>{''.join(row)}</TR>" for row in zip(*cells, strict=True))
    body = f"<DATA><TABLEDATA>\n{rows}\n</TABLEDATA></DATA>\n</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
    return (_votable_header(plain, meta) + body).encode()


def _votable_header(plain: pa.Table, meta: dict) -> str:
    """Return the document down to the last FIELD; the sky columns refer to an ICRS COOSYS."""
    columns = list(_columns(plain))
    sky = {"ra", "dec"} <= set(plain.column_names)
    names = ' xmlns="http://www.ivoa.net/xml/VOTable/v1.3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    infos = [f"<INFO name={_attribute(key)} value={_attribute(text)}/>" for key, text in _provenance(meta)]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<VOTABLE version="1.4"{names}>',
        '<RESOURCE type="results">',
    ]
    lines += ['<COOSYS ID="icrs" system="ICRS"/>'] if sky else []
    lines += [
        '<INFO name="QUERY_STATUS" value="OK"/>',
        *infos,
        f'<TABLE name="galaxies" nrows="{plain.num_rows}">',
    ]
    lines += [_vo_field(field, values, sky=sky) for field, values in columns]
    return "\n".join(lines) + "\n"


def _vo_field(field: pa.Field, values: pa.Array, *, sky: bool) -> str:
    facts = facts_of(field)
    attributes = {"name": field.name, "ID": _xml_id(field.name), **_vo_type(values)}
    attributes |= {key: facts[key] for key in ("unit", "ucd") if facts[key]}
    if sky and field.name in ("ra", "dec"):
        attributes["ref"] = "icrs"
    start = "<FIELD " + " ".join(f"{key}={_attribute(value)}" for key, value in attributes.items())
    words = f"<DESCRIPTION>{_xml_text(facts['description'])}</DESCRIPTION>" if facts["description"] else ""
    return f"{start}>{words}</FIELD>" if words else f"{start}/>"


def _vo_type(values: pa.Array) -> dict[str, str]:
    kind = values.type
    if pa.types.is_fixed_size_list(kind):
        return {"datatype": _VO_TYPES[str(kind.value_type)], "arraysize": str(kind.list_size)}
    if pa.types.is_string(kind):
        ascii_only = pc.all(pc.string_is_ascii(values), skip_nulls=True).as_py() is not False
        return {"datatype": "char" if ascii_only else "unicodeChar", "arraysize": "*"}
    return {"datatype": _VO_TYPES[str(kind)]}


def _td_cells(values: pa.Array) -> list[str]:
    kind = values.type
    if pa.types.is_string(kind):
        cells = [_xml_text(cell) if cell else None for cell in values.to_pylist()]
    elif pa.types.is_fixed_size_list(kind):
        cells = _vo_vectors(values)
    else:
        cells = _vo_numbers(values)
    return ["<TD/>" if cell is None else f"<TD>{cell}</TD>" for cell in cells]


def _vo_vectors(values: pa.Array) -> list[str | None]:
    size = values.type.list_size
    numbers = [number or "NaN" for number in _vo_numbers(pa.array(_filled(values).reshape(-1)))]
    rows = [" ".join(numbers[start : start + size]) for start in range(0, size * len(values), size)]
    return [None if null else row for row, null in zip(rows, _nulls(values), strict=True)]


def _vo_numbers(values: pa.Array) -> list[str | None]:
    """Return numbers as text, the shortest that reads back the same; a null is None."""
    spelled = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}
    return [spelled.get(text, text) for text in values.cast(pa.string()).to_pylist()]


def _xml_id(name: str) -> str:
    return "col_" + re.sub(r"[^A-Za-z0-9_.-]", lambda match: f"-{ord(match[0]):x}-", name)


def _xml_text(text: str) -> str:
    """Escape text for XML; control characters, which XML 1.0 cannot hold, become U+FFFD."""
    return escape(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text), {"\r": "&#13;"})


def _attribute(text: str) -> str:
    return quoteattr(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text))


# --- FITS ---------------------------------------------------------------------------------------------------

_FITS_TYPES = {
    "uint8": "B",
    "int16": "I",
    "int32": "J",
    "int64": "K",
    "float32": "E",
    "float64": "D",
    "bool": "L",
}
_FITS_WIDER = {"int8": np.int16, "uint16": np.int32, "uint32": np.int64, "float16": np.float32}


def _fits(table: pa.Table, meta: dict) -> bytes:
    """Write one binary table: null integers by TNULL, null floats NaN, null logicals a zero byte, null
    strings empty.

    Text is UTF-8. TUCDn and TCOMMn hold UCD and description as STIL writes them; the provenance is in COMMENT
    cards.
    """
    from astropy.io import fits

    plain = list(_columns(_plain_table(table)))
    hdu = fits.BinTableHDU.from_columns([_fits_column(field, values) for field, values in plain], nrows=table.num_rows)
    raw = hdu.data.view(np.ndarray)
    for number, (field, values) in enumerate(plain, start=1):
        if pa.types.is_boolean(values.type):
            raw[raw.dtype.names[number - 1]].view(np.uint8)[_nulls(values)] = 0
        facts = facts_of(field)
        for key in ("ucd", "description"):
            if facts[key]:
                hdu.header[f"{'TUCD' if key == 'ucd' else 'TCOMM'}{number}"] = _ascii(facts[key])
    for line in _provenance_lines(meta):
        hdu.header.add_comment(_ascii(line).replace("\t", " "))
    if {"ra", "dec"} <= set(table.column_names):
        hdu.header["RADESYS"] = "ICRS"
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def _fits_column(field: pa.Field, values: pa.Array):
    from astropy.io import fits

    unit = _fits_unit(facts_of(field)["unit"]) if facts_of(field)["unit"] else None
    name, null = _ascii(field.name), None
    if pa.types.is_string(values.type):
        data = np.array([cell.encode() for cell in values.fill_null("").to_pylist()], dtype="S")
        return fits.Column(name, f"{max(data.dtype.itemsize, 1)}A", unit=unit, array=data)
    data = _filled(values)
    data = data.astype(_FITS_WIDER.get(data.dtype.name, data.dtype), copy=False)
    if data.dtype.kind in "iu" and values.null_count:
        data, null = _with_null_value(data, _nulls(values))
    repeat = "" if data.ndim == 1 else str(data.shape[1])
    return fits.Column(name, repeat + _FITS_TYPES[data.dtype.name], unit=unit, null=null, array=data)


def _with_null_value(data: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the integers with a number under the nulls that no other row has, and that number.

    It is the highest of unsigned bytes and the lowest of the rest, where free; a full type is widened.
    """
    taken = set(np.unique(data[~null]).tolist())
    info = np.iinfo(data.dtype)
    if len(taken) > info.max - info.min:
        data, info = data.astype(np.int32), np.iinfo(np.int32)
    candidates = range(info.max, -1, -1) if info.min == 0 else range(info.min, info.max)
    value = next(value for value in candidates if value not in taken)
    data[null] = value
    return data, value


_WRITERS = {
    ".csv": _csv, ".ecsv": _ecsv, ".fits": _fits, ".vot": _votable, ".xml": _votable, ".parquet": _parquet,
    ".json": _json, ".reg": _region,
}  # fmt: skip
