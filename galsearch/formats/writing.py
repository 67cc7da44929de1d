"""Write tables: CSV, ECSV, FITS, VOTable, Parquet, JSON, regions of DS9 and Aladin; and hand them to astropy."""

from __future__ import annotations

import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch.atomic import replacing
from galsearch.errors import GalsearchError, SchemaError
from galsearch.formats.fields import VOPARQUET_KEY, facts_of, free_names, plain_types, spelled, unit_of, vo_facts_of

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Column, Table

FITS_COLUMNS = 999
FORMULA = r"^[=+\-@\t\r]"  # how a cell begins that a spreadsheet computes instead of showing
REGION_RADIUS_ARCSEC = 5.0  # of a circle whose row has no radius_arcsec
LINKS = {  # of a row of a VOTable, where ${…} stands for its value of the column with that ID
    "Legacy Survey": "https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&layer=ls-dr10&zoom=15",
    "SIMBAD": "https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${ra}%20${dec}&Radius=10&Radius.unit=arcsec",
}


def write_table(table: pa.Table, path: str | Path, *, meta: dict | None = None, quote_formulas: bool = False) -> int:
    """Write `table` to a .csv .ecsv .fits .vot .xml .parquet .json .reg or .ajs file; return the rows written.

    `meta` says where the rows come from: `title`, `query`, `atlas`, `software`, and `sources`, a list of
    {title, license, acknowledgement, bibtex}; it goes into every format but CSV, which has no place for it.
    `status` is "OK", or "OVERFLOW" where there are more rows than these; VOTable says it in QUERY_STATUS. Units
    and UCDs go where the format has them. Binary columns go to Parquet only. Lists of no fixed length, arrays of
    more than one dimension and structs are JSON text outside Parquet and JSON. A .reg (DS9) or .ajs (Aladin)
    file holds a circle for each row with `ra` and `dec`, so it may have fewer rows.

    Spreadsheets compute a cell of CSV that begins with "=", "+", "-", "@", a tab or a carriage return, and what it
    says may come from a stranger: `quote_formulas` puts an apostrophe before such text, in names of columns too. It
    changes the text, so it is off unless asked for, and only CSV has it. Numbers stay numbers.

    The file appears whole or not at all. Raises SchemaError for another suffix, GalsearchError where it
    cannot be written.
    """
    path = Path(path)
    try:
        content = table_bytes(table, path.suffix, meta=meta, quote_formulas=quote_formulas)
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None
    _replace(path, content)
    return len(_positions(table)) if path.suffix.lower() in _REGIONS else table.num_rows


def table_bytes(table: pa.Table, suffix: str, *, meta: dict | None = None, quote_formulas: bool = False) -> bytes:
    """Return what `write_table` would write to a file of that suffix; SchemaError for one that is not known."""
    if quote_formulas and suffix.lower() == ".csv":
        table = _without_formulas(table)
    if suffix.lower() not in _WRITERS:
        raise SchemaError(f"cannot write a table to {suffix or 'no suffix'}; known are {' '.join(_WRITERS)}")
    return _WRITERS[suffix.lower()](table, meta or {})


def format_table(table: pa.Table, fmt: str, *, meta: dict | None = None) -> str:
    """Return `table` as text in one of "json", "csv", "ecsv" or "votable", the same as the files."""
    formats = {"json": _json, "csv": _csv, "ecsv": _ecsv, "votable": _votable}
    if fmt not in formats:
        raise SchemaError(f"format is {fmt!r}; known are {', '.join(formats)}")
    return formats[fmt](table, meta or {}).decode()


def _without_formulas(table: pa.Table) -> pa.Table:
    """Return the table with an apostrophe before every text that a spreadsheet would compute."""
    texts = [
        _as_text(values) if pa.types.is_nested(values.type) else values for values in map(plain_types, table.columns)
    ]
    quoted = [
        pc.replace_substring_regex(values, f"({FORMULA})", r"'\1") if pa.types.is_string(values.type) else values
        for values in texts
    ]
    return pa.table(quoted, names=[re.sub(FORMULA, r"'\g<0>", name) for name in table.column_names])


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8; the file appears whole or not at all. Raises GalsearchError where it cannot be written."""
    _replace(path, text.encode())


def _replace(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise GalsearchError(
            f"{path}: cannot be written ({error.strerror}); "
            "name an existing folder with free space that you may write to"
        ) from error


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
    lines = (f"{key}: {line}" for key, text in _provenance(meta) for line in text.splitlines())
    return [re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", line) for line in lines]


# --- to astropy, and to what a format can hold ---------------------------------------------------------------


_NUMBERS = {  # and the types that they have in FITS and VOTable
    pa.uint8(): pa.uint8(), pa.int8(): pa.int16(), pa.int16(): pa.int16(), pa.uint16(): pa.int32(),
    pa.int32(): pa.int32(), pa.uint32(): pa.int64(), pa.int64(): pa.int64(), pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(), pa.float32(): pa.float32(), pa.float64(): pa.float64(),
}  # fmt: skip


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a pandas DataFrame; `attrs["units"]` has the unit of each column that has one. Needs pandas."""
    try:
        frame = table.to_pandas()
    except ImportError:
        raise GalsearchError("a DataFrame needs pandas: pip install pandas") from None
    units = {field.name: facts_of(field)["unit"] for field in table.schema}
    frame.attrs["units"] = {name: unit for name, unit in units.items() if unit}
    return frame


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
    stated = {"name": field.name, "unit": unit_of(facts["unit"]), "description": facts["description"] or None}
    stated["meta"] = {"ucd": facts["ucd"]} if facts["ucd"] else {}
    null = values.is_null().to_numpy()
    data = _filled(values.combine_chunks())
    if not null.any():
        return Column(data, **stated)
    if data.dtype.kind in "iu":
        data = _with_null_number(data, null)
    mask = np.broadcast_to(null if data.ndim == 1 else null[:, None], data.shape).copy()
    return MaskedColumn(data, mask=mask, fill_value=data[null].flat[0], **stated)


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
    candidates = range(info.max, -1, -1) if info.min == 0 else range(info.min, info.max + 1)
    data[null] = next(number for number in candidates if number not in taken)
    return data


def _exportable(table: pa.Table, change: Callable[[pa.ChunkedArray], pa.ChunkedArray] | None = None) -> pa.Table:
    """Return the table without binary columns, each other one in a common type, then changed; metadata kept."""
    binary = re.compile("(large_|fixed_size_)?binary")  # also binary_view
    table = table.select([field.name for field in table.schema if not binary.match(str(field.type))])
    for index, field in enumerate(table.schema):
        values = plain_types(table.column(index))
        values = change(values) if change else values
        table = table.set_column(index, field.with_type(values.type), values)
    return table


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
        stated, words = facts_of(field), facts_of(field)["description"]
        stated |= {"name": field.name, **_vo_type(plain[field.name])}
        stated |= {"ref": "icrs" if field.name in sky else "", "description": ""} | vo_facts_of(field)
        stated |= {"ID": field.name} if field.name in sky else {}
        node = ElementTree.SubElement(columns, "FIELD", {key: fact for key, fact in stated.items() if fact})
        if words:
            ElementTree.SubElement(node, "DESCRIPTION").text = words
        if sky and field.name == "object_id":
            for title, address in LINKS.items():
                ElementTree.SubElement(node, "LINK", {"content-role": "doc", "title": title, "href": address})
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
    if table.num_columns > FITS_COLUMNS:
        raise SchemaError(
            f"the table has {table.num_columns:,} columns, FITS holds {FITS_COLUMNS}; leave some out, or write .vot, "
            ".ecsv or .parquet"
        )
    names = [_ascii(name).strip() or f"col{number}" for number, name in enumerate(table.column_names, start=1)]
    names = free_names(names, suffix="_also")  # FITS tells no upper from lower case, and has no accents
    data = to_astropy(pa.table(table.columns, names=names))  # no units: astropy drops those FITS has not
    filled = data.filled()  # with the fill values of `to_astropy`
    filled.convert_unicode_to_bytestring()
    hdu = fits.table_to_hdu(filled)
    for number, (field, column) in enumerate(zip(table.schema, data.columns.values(), strict=True), start=1):
        facts = facts_of(field)
        card = hdu.columns[column.name]
        if facts["unit"]:
            card.unit = _ascii(spelled(facts["unit"], "fits"))
        if column.dtype.kind in "iu" and hasattr(column, "mask"):
            card.null = int(column.fill_value)
        if column.dtype.kind == "b" and hasattr(column, "mask"):
            hdu.data.view(np.ndarray)[column.name].view(np.uint8)[column.mask] = 0
        hdu.header.update({f"TUCD{number}": _ascii(facts["ucd"])} if facts["ucd"] else {})
        hdu.header.update({f"TCOMM{number}": _ascii(facts["description"])} if facts["description"] else {})
    for line in _provenance_lines(meta):
        hdu.header.add_comment(_ascii(line))
    hdu.header.update({"RADESYS": "ICRS"} if {"ra", "dec"} <= set(table.column_names) else {})
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def _ascii(text: str) -> str:
    """Return what a FITS header can hold of a text: printable ASCII, a blank for a control character."""
    text = re.sub(r"[\x00-\x1f\x7f]", " ", text)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _ds9(table: pa.Table, meta: dict) -> bytes:
    """Write a DS9 region file, which Aladin reads too, but without the labels."""
    head = ["# Region file format: DS9 version 4.1", *_region_notes(table, meta), "icrs"]
    return "\n".join([*head, *(_circle(**row) for row in _positions(table)), ""]).encode()


def _circle(ra: float, dec: float, radius_arcsec: float, label: str) -> str:
    text = re.sub(r"[{}\s\x00-\x1f\x7f-\x9f]+", " ", label)
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
    return re.sub(r"[\s\"'`;\\\x00-\x1f\x7f-\x9f]+", " ", text).strip()


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
