"""Read a table file: which reader its name asks for, bounds on what a file may take, the rules of every format."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.compute as pc

from galsearch.errors import SchemaError
from galsearch.formats import delimited, standards
from galsearch.formats.fields import ASTROPY_KEY, VOPARQUET_KEY, describe, facts_of, free_names, plain_types, with_notes
from galsearch.formats.hats import ADDED, all_files, hats_root, properties_of
from galsearch.formats.request import Request, check_count

PARQUET = (".parquet", ".pq")
PARQUET_MAGIC = b"PAR1"
COMPRESSED = (".gz", ".bz2")
INFLATORS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open))
MANY = 256 * 2**20  # bytes that a small file may become without being suspected
INFLATION = 200  # times its size, what a larger file may become: text of tables is packed 3 to 30 times
EXACT = 2**53  # from here on not every integer is a double
MANY_MISSING = 2  # rows of one number that stands for no value in other catalogs
STAND_INS = (99.0, -99.0, 99.9, -99.9, 99.99, -99.99, 999.0, -999.0, 9999.0, -9999.0)
READING_ERRORS = (  # what pyarrow, astropy and the decompressors raise on a bad file
    OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, ArithmeticError, AssertionError,
    NotImplementedError, RecursionError, MemoryError, SyntaxError, csv.Error, pa.ArrowException, zlib.error,
    ElementTree.ParseError,
)  # fmt: skip
_LINE = re.compile(r"^\S*?:(\d+):\d+: [EW]\d+: ")  # how astropy begins what it says of a VOTable
_MAGNITUDE_NAME = re.compile(r"\w*mag(nitude)?s?(?![a-z])\w*|[ugrizyjhk]", re.IGNORECASE)


def read_table(
    path: str | Path,
    *,
    text: Iterable[str] = (),
    verbatim: Iterable[str] = (),
    without: Collection[str] = (),
    table_name: str | int | None = None,
    missing: Iterable[float] = (),
    parts: Iterable[Path] | None = None,
) -> pa.Table:
    """Read a table file; SUFFIXES has the suffixes, all but Parquet also with .gz or .bz2 after them.

    A folder is read where it is a HATS catalog (or a collection with one): its partitions one after another, without
    the columns that only say in which of them a row is; the columns of positions are those that it names. `parts` are
    the files of it to be read, all of them unless given.

    The suffix says what it is, or its first bytes where they say that it is FITS, VOTable or ECSV after all.

    Units become VOUnit strings, and UCDs and descriptions are kept where the format has them. A column that
    is named like an identifier (`object_id`, `id`, `name`, `source_id`, `…objid`) and the columns in `text`
    are strings, digit for digit: leading zeros and 19-digit numbers survive. Those in `verbatim` are strings as they
    stand there, of which a spreadsheet's "12.0" is not taken for the identifier 12. A vector column is a
    `fixed_size_list`. The columns `without` are left out. `table_name` says which table of a file with several:
    in FITS the EXTNAME or the number of the HDU (0 is the primary one), in VOTable the name, ID or number (from 1)
    of the TABLE. `missing` are numbers that stand for no value, such as 99 and -99: they become null.
    The position columns of astropy's SkyCoord become `ra` and `dec` in degrees ICRS. Separators, decimal commas,
    encodings, comments and rows of units of text tables are found out (`formats.delimited`).

    What a reader should know and is no error is in `notes_of(table)`, one sentence each: that a service cut its
    answer short, which of several tables was read, which columns were left out or renamed, what a cell was read as.

    Raises SchemaError, naming the file, for another suffix or a file that cannot be read as its suffix says, for one
    that inflates beyond all measure, for identifiers that were rounded to doubles, and with what the service said
    where a VOTable holds an error in place of an answer.
    """
    path = Path(path)
    request = Request(path.suffix, frozenset(text), frozenset(verbatim), table_name, tuple(missing))
    root = hats_root(path)
    suffix = kind_of(path) if root is None else ""
    with named(path):
        if root is not None:
            request.must_be_the_only_table()
            table = _read_partitions(root, all_files(root) if parts is None else parts, without, request)
        elif suffix in PARQUET:
            request.must_be_the_only_table()
            table = _read_parquet(path, path.stat().st_size, without, request)
        else:
            content = _content(path)
            table = READERS[_true_suffix(content, suffix, request)](content, request)
        _check_names(table.column_names)
        kept = [name for name in table.column_names if name not in without]
        return with_notes(_tidy(table.select(kept), request), dict.fromkeys(request.notes))


def read_table_content(content: bytes, name: str, *, suffix: str = ".txt", complete: bool = False) -> pa.Table:
    """Read a table that is in memory already, inflated; `name` is what errors call it, the rest as in `read_table`.

    Its first bytes say what it is (Parquet, FITS, VOTable, ECSV); where they do not, `suffix` says how text is read.
    `complete` raises SchemaError where `notes_of` would tell that a service cut it short (CUT_SHORT), that it has fewer
    rows than it promises, cells that are not of their column's type, or rows in several tables.
    """
    request = Request(suffix, complete=complete)
    with named(Path(name)):
        if content.startswith(PARQUET_MAGIC):
            table = _read_parquet(pa.BufferReader(content), len(content), (), request)
        else:
            table = READERS[_true_suffix(content, suffix, request)](content, request)
        _check_names(table.column_names)
        return with_notes(_tidy(table, request), dict.fromkeys(request.notes))


def read_table_file(content: bytes, name: str) -> pa.Table:
    """Read the bytes of a table file by its name, whose suffix says what it is, compressed or not."""
    suffix = kind_of(Path(name))
    with named(Path(name)):
        content = _inflated(content)
    return read_table_content(content, name, suffix=suffix)


def table_of(payload: bytes, *, name: str) -> tuple[dict, bytes]:
    """Read a table file, as a task of a worker process; the rows travel as an Arrow stream."""
    table, sink = read_table_file(payload, name), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {}, sink.getvalue()


def kind_of(path: Path) -> str:
    """Return the suffix of a table file without that of its compression; SchemaError for one that is not known."""
    if path.is_dir():
        raise SchemaError(f"{path}: is a folder without hats.properties, so no HATS catalog; give the file of a table")
    name = path.name.lower()
    packed = name.endswith(tuple(COMPRESSED))
    suffix = Path(name).with_suffix("").suffix if packed else Path(name).suffix
    if suffix not in SUFFIXES or (packed and suffix in PARQUET):
        raise SchemaError(
            f"{path}: cannot read a table from {''.join(path.suffixes[-2:]) or 'a file without a suffix'}; "
            f"known are {' '.join(SUFFIXES)}, and all but Parquet with {' or '.join(COMPRESSED)}"
        )
    return suffix


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what the readers raise on a bad file into one SchemaError with the name of the file."""
    try:
        yield
    except SchemaError as error:
        raise SchemaError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    except FileNotFoundError:
        raise SchemaError(f"{path}: there is no such file; check the path") from None
    except READING_ERRORS as error:
        reason = " ".join(
            (_LINE.sub(r"line \1: ", str(error)).strip().splitlines() or [type(error).__name__])[0].split()
        )[:200]
        raise SchemaError(
            f"{path}: not readable as {path.suffix} ({reason}); copy the file again or give it its true suffix"
        ) from error


def bound(size: int) -> int:
    """Return how many bytes the content of a file of this size may take."""
    return max(MANY, INFLATION * size)


def _content(path: Path) -> bytes:
    """Return the bytes of a file, inflated under a cap where they are compressed, whatever it is called."""
    return _inflated(path.read_bytes())


def _inflated(packed: bytes) -> bytes:
    """Return bytes inflated under a cap where they are compressed."""
    inflator = next((opened for magic, opened in INFLATORS if packed.startswith(magic)), None)
    if inflator is None:
        return packed
    most = bound(len(packed))
    with inflator(io.BytesIO(packed)) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise SchemaError(
            f"inflates to more than {most:,} bytes, over {INFLATION} times its size; "
            "if you trust it, inflate it yourself and give that file"
        )
    if content[257:262] == b"ustar":
        raise SchemaError("is a tar archive; unpack it and give the table in it")
    return content


def _true_suffix(content: bytes, suffix: str, request: Request) -> str:
    """Return the suffix that the first bytes ask for where they are plain, else that of the file's name."""
    start = content[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"SIMPLE  ="):
        result = ".fits"
    elif start.startswith(b"# %ECSV"):
        result = ".ecsv"
    elif re.match(
        rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<\?[^>]*>\s*|<!DOCTYPE\s+VOTABLE[^>]*>\s*)*<(\w+:)?VOTABLE\b",
        start,
        re.DOTALL,
    ):
        result = ".vot"
    elif re.match(rb"<!doctype html|<html", start, re.IGNORECASE):
        raise SchemaError("is a web page (HTML), perhaps what a service says of an error; open it in a browser")
    elif re.match(rb"[{\[]\s*[\"{\[]", start):
        raise SchemaError("is JSON, not a table; write it as CSV, ECSV or Parquet first")
    else:
        return suffix
    if READERS[result] is not READERS[suffix] and result != ".ecsv":
        request.notes.append(f"it is a {result} file by its first bytes, whatever its name says")
    return result


# ---- the rules of every format


def _check_names(names: list[str]) -> None:
    """Refuse more columns than a table may have, and two of one name."""
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise SchemaError(f"column {', '.join(twice[:5])} occurs twice; names must be unique, rename one")
    check_count(len(names))


def _tidy(table: pa.Table, request: Request) -> pa.Table:
    """Apply the rules of every format: identifiers are text, missing is null, no unusual arrow types, unlike names."""
    names = _unlike(table.column_names, request)
    arrays, fields = [], []
    ids = [name for name in table.column_names if request.wants_text(name)]
    for name, field, values in zip(names, table.schema, table.columns, strict=True):
        values = plain_types(values)
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        values = _without(values, request.missing)
        if field.name in ids:
            values = _as_ids(values, field.name, ids, request)
            if values is None:
                continue
        _hint_at_stand_ins(values, field, request)
        arrays.append(values)
        fields.append(field.with_name(name).with_type(values.type))
    return pa.table(arrays, schema=pa.schema(fields)) if arrays else table.select([]).replace_schema_metadata(None)


def _unlike(names: list[str], request: Request) -> list[str]:
    """Return the names, where two differ only in case the second changed: SQL ignores case."""
    unlike = free_names(names, suffix="_also")
    for old, new in zip(names, unlike, strict=True):
        if old != new:
            request.notes.append(f"column '{old}' is called '{new}', another differs only in case and SQL ignores it")
    return unlike


def _without(values: pa.ChunkedArray, missing: tuple[float, ...]) -> pa.ChunkedArray:
    """Return a column of numbers in which the numbers `missing` are null."""
    if not missing or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        return values
    return pc.if_else(_are_one_of(values, missing), pa.scalar(None, values.type), values)


def _are_one_of(values: pa.ChunkedArray, numbers: Collection[float]) -> pa.ChunkedArray:
    """Return which values are one of the numbers, as the column's type has them: 99.99 in float32 is not that of 64."""
    exact = pa.types.is_floating(values.type)
    wanted = pa.array([float(number) for number in numbers], pa.float64())
    return pc.is_in(values if exact else values.cast(pa.float64(), safe=False), value_set=wanted.cast(
        values.type if exact else pa.float64(), safe=False
    ))  # fmt: skip


def _as_ids(values: pa.ChunkedArray, name: str, ids: list[str], request: Request) -> pa.ChunkedArray | None:
    """Return identifiers as text, digit for digit; None for a column that was rounded, where there are other ids.

    An integer below 2**53 that arrives as a double is exact; a larger one has lost digits, and is refused.
    """
    if pa.types.is_string(values.type) and name not in request.verbatim:
        values = _unrounded(values)
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    if not pa.types.is_floating(values.type):
        return values
    numbers = values.cast(pa.float64())
    if not pc.all(pc.equal(numbers, pc.floor(numbers))).as_py():
        return values
    rounded = numbers.filter(pc.greater_equal(pc.abs(numbers), float(EXACT)))
    if not len(rounded):
        return numbers.cast(pa.int64()).cast(pa.string())
    cause = (
        f"column {name} holds 64-bit identifiers as floating-point numbers, such as {rounded[0].as_py()!r}: above "
        "2**53 (9,007,199,254,740,992) these have lost their last digits"
    )
    if name in request.text or name in request.verbatim or ids == [name]:
        raise SchemaError(f"{cause}; export the table again with them as integers or as text")
    request.notes.append(f"{cause}; it was left out")
    return None


def _unrounded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text of numbers such as "12.0" or "1.2E+18", which a spreadsheet made of integers, as those numbers."""
    told = values.drop_null()
    written = pc.match_substring_regex(told, r"^[+-]?\d+(\.\d+[eE]\+?\d+|[eE]\+\d+|\.0+)$")
    return values.cast(pa.float64()) if len(told) and pc.all(written).as_py() else values


def _hint_at_stand_ins(values: pa.ChunkedArray, field: pa.Field, request: Request) -> None:
    """Note the numbers in a column of magnitudes that stand for no value in other catalogs, where several rows do."""
    facts = facts_of(field)
    brightness = facts["unit"] == "mag" or facts["ucd"].startswith("phot.mag") or _MAGNITUDE_NAME.fullmatch(field.name)
    if not (brightness and (pa.types.is_floating(values.type) or pa.types.is_integer(values.type))):
        return
    counts = pc.value_counts(values.filter(_are_one_of(values, STAND_INS)))
    for count in counts.to_pylist():
        if count["counts"] >= MANY_MISSING:
            number = f"{count['values']:.6g}"
            request.notes.append(
                f"column {field.name} is {number} in {count['counts']:,} of {len(values):,} rows, perhaps for none: "
                f"if so, say missing=[{number}] (--missing {number})"
            )


# ---- Parquet


def _read_parquet(source: Path | pa.BufferReader, size: int, without: Collection[str], request: Request) -> pa.Table:
    """Read Parquet; what a field does not say of itself a header does, that of VOParquet or else of astropy."""
    from pyarrow import parquet

    with parquet.ParquetFile(source, memory_map=True) as file:
        _check_parquet(file, size)
        keys = file.schema_arrow.metadata or {}
        by_astropy = ASTROPY_KEY in keys and VOPARQUET_KEY not in keys
        header = standards.astropy_header(keys[ASTROPY_KEY]) if by_astropy else {"parts": ()}
        names = [name for name in file.schema_arrow.names if name in header["parts"] or name not in without]
        _check_names(names)
        table = file.read(columns=names if without else None)
    if table.column_names != names:  # a name with a dot means a part of a column there
        table = parquet.read_table(source, memory_map=True).select(names)
    if by_astropy:
        return standards.with_astropy_header(table, header, request)
    stated = keys.get(VOPARQUET_KEY, b"<VOTABLE/>")
    stated = {node.get("name"): node for node in ElementTree.fromstring(stated).iterfind(".//{*}FIELD")}
    fields = []
    for field in table.schema:
        node = stated.get(field.name, ElementTree.Element("FIELD"))
        result = dict(node.items()) | {"description": node.findtext("{*}DESCRIPTION", "").strip()}
        fields.append(describe(field, **{key: fact or result.get(key) for key, fact in facts_of(field).items()}))
    return pa.table(table.columns, schema=pa.schema(fields))


def _read_partitions(root: Path, files: Iterable[Path], without: Collection[str], request: Request) -> pa.Table:
    """Return files of a HATS catalog as one table; a column that one of them has not is null there."""
    parts = [_read_parquet(file, file.stat().st_size, without, request) for file in files]
    try:
        table = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise SchemaError(f"its partitions do not fit together ({error}); copy the catalog again") from None
    table = table.drop_columns([name for name in ADDED if name in table.column_names])
    stated = properties_of(root)
    for axis in ("ra", "dec"):
        name = stated.get(f"hats_col_{axis}")
        if name in table.column_names:
            index = table.column_names.index(name)
            facts = facts_of(table.field(index))
            here = {
                "unit": facts["unit"] or "deg",
                "ucd": f"pos.eq.{axis};meta.main",
                "description": facts["description"],
            }
            table = table.set_column(index, describe(table.field(index), **here), table.column(index))
    return table


def _check_parquet(file, size: int) -> None:
    """Refuse a footer that promises more than the file can hold: columns of one value take nearly nothing there."""
    told = file.metadata
    promised = max(told.num_rows, 0) * max(told.num_columns, 1)
    if told.num_rows < 0 or promised > bound(size):
        raise SchemaError(
            f"promises {told.num_rows:,} rows of {told.num_columns} columns in {size:,} bytes; "
            "if you trust it, write it again without dictionaries"
        )


READERS: dict[str, Callable[[bytes, Request], pa.Table]] = {
    **dict.fromkeys((".csv", ".txt", ".dat", ".tbl", ".mrt", ".cat"), delimited.read),
    ".tsv": partial(delimited.read, separator="\t"),
    ".ecsv": standards.read_ecsv,
    **dict.fromkeys((".fits", ".fit", ".fts"), standards.read_fits),
    **dict.fromkeys((".vot", ".votable", ".xml"), standards.read_votable),
}
SUFFIXES = (*READERS, *PARQUET)
