"""Tables of objects as they come in: names, ids, positions, what is missing; rows left out with their reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import exchange, morphology, schema, shapes
from galsearch.errors import SchemaError

ID_NAMES = ("object_id", "objid", "objectid", "source_id", "targetid", "id", "name")
FILE_NAMES = ("file", "filename", "file_name", "path", "image")
RA_NAMES = ("ra", "raj2000", "ra_j2000", "ra_icrs", "alpha_j2000", "_raj2000", "ra_deg")
DEC_NAMES = (
    "dec",
    "dej2000",
    "decj2000",
    "dec_j2000",
    "de_icrs",
    "dec_icrs",
    "delta_j2000",
    "_dej2000",
    "dec_deg",
)
RESERVED = "cut"  # a parameter of the bundle's macros, which DuckDB does not let hide a column
MISSING = -9999.0  # the marker that survey tables write for "no value"; here missing is NULL
FORM = (*shapes.COLUMNS, "morphology_flag")  # of what lies in the center of a cutout; a detection has none
MEASURED = (
    *(name for name in morphology.COLUMNS if not name.startswith("is_") and name not in ("x_px", "y_px")),
    *FORM,
)


@dataclass(frozen=True)
class Taken:
    """One accepted object: its picture `(h, w, 3) uint8` and the columns measured on it."""

    picture: np.ndarray
    columns: dict[str, Any]


@dataclass
class Source:
    """Objects to take in: `table` has object_id, ra, dec and any other columns; `rejected` what is left out already."""

    table: pa.Table
    inputs: dict[str, str]
    rejected: list[dict] = field(default_factory=list)

    def take(self, row: int) -> Taken:
        """Return the picture of a row; SchemaError when it cannot be used."""
        raise NotImplementedError


def read_rows(table: Path, id_column: str | None, *, without: Sequence[str] = ()) -> pa.Table:
    """Read a table, all but the columns `without`; ids and file names stay digit for digit, whatever their names."""
    text = (*ID_NAMES, *FILE_NAMES, *([] if id_column is None else [id_column]))
    rows = normalize(exchange.read_table(table, text=text, without=without), id_column=id_column, name=str(table))
    if rows.num_rows == 0:
        raise SchemaError(f"{table}: the table has no rows; give one with at least one object")
    return rows


def digest(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def normalize(table: pa.Table, *, id_column: str | None, name: str) -> pa.Table:
    """Return `table` with object_id as text first, then ra and dec in degrees or NULL, then everything else.

    Raises SchemaError for a table without usable ids, with repeated ids or with columns that differ only in case.
    """
    folded = Counter(column.casefold() for column in table.column_names)
    twice = [column for column in table.column_names if folded[column.casefold()] > 1]
    if twice:
        raise SchemaError(f"{name}: columns that differ only in case: {', '.join(twice)}; rename one, SQL ignores case")
    if RESERVED in folded:
        raise SchemaError(
            f"{name}: a column may not be called '{RESERVED}', the macros of the bundle use it; rename it"
        )
    table = _renamed(table, id_column, name)
    if "object_id" in table.column_names:
        check_ids(table["object_id"].to_pylist(), name)
    for position in ("ra", "dec"):
        table = as_double(table, position, name)
    return _missing_to_null(_ordered(table))


def _renamed(table: pa.Table, id_column: str | None, name: str) -> pa.Table:
    """Give the columns that galsearch works with their names; a second object_id becomes object_id_in_table."""
    if id_column is not None and id_column not in table.column_names:
        raise SchemaError(f"{name}: no column '{id_column}' for the ids; there are: {', '.join(table.column_names)}")
    ids = id_column or _first_of(table, ID_NAMES)
    found = {_first_of(table, [measured]): measured for measured in (*MEASURED, "x_px", "y_px", "radius_arcsec")}
    found[_first_of(table, ("object_id",))] = "object_id_in_table"
    for known, names in (("ra", RA_NAMES), ("dec", DEC_NAMES)):
        found[_first_of(table, names)] = known
    found[_first_of(table.select([item.name for item in table.schema if _is_name(item.type)]), FILE_NAMES)] = "file"
    found[ids] = "object_id"
    names = [found.get(column, column) for column in table.column_names]
    table = table.rename_columns(names)
    for known in {"object_id", "file"} & set(names):
        item = table.field(known).with_type(pa.string())
        table = table.set_column(names.index(known), item, pc.cast(table[known], pa.string()))
    return table


def _is_name(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _first_of(table: pa.Table, names: Sequence[str]) -> str | None:
    by_name = {column.casefold(): column for column in table.column_names}
    return next((by_name[name] for name in names if name in by_name), None)


def check_ids(ids: list[str | None], name: str) -> None:
    """Raise SchemaError when an id is missing, empty or repeated."""
    if any(i is None or not i.strip() for i in ids):
        row = next(row for row, i in enumerate(ids) if i is None or not i.strip())
        raise SchemaError(f"{name}: object_id is missing in row {row + 1}; every object needs its own id")
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice:
        raise SchemaError(
            f"{name}: {len(twice)} ids stand more than once, such as '{twice[0]}'; an object_id is unique: remove the "
            "repeated rows, or name another column with --id-column"
        )


def as_double(table: pa.Table, column: str, name: str) -> pa.Table:
    """Return the table with ra, dec, x_px or y_px as float64 in the unit that the schema gives it."""
    kind = schema.arrow_field(column)
    if column not in table.column_names:
        return table.append_column(kind, pa.nulls(table.num_rows, pa.float64()))
    unit = (table.field(column).metadata or {}).get(b"unit", b"").decode()
    expected = schema.GALAXIES[column].unit
    if unit.removesuffix("s") not in ("", expected, "pix"):
        raise SchemaError(f"{name}: column {column} is in {unit}, expected {expected}; convert it first")
    try:
        values = pc.cast(table[column], pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        meant = "decimal degrees (ICRS)" if expected == "deg" else "numbers"
        raise SchemaError(f"{name}: column {column} is {table[column].type}, expected {meant}; convert it") from None
    return table.set_column(table.column_names.index(column), kind, values)


def _ordered(table: pa.Table) -> pa.Table:
    first = [name for name in ("object_id", "ra", "dec") if name in table.column_names]
    return table.select(first + [name for name in table.column_names if name not in first])


def _missing_to_null(table: pa.Table) -> pa.Table:
    for place, item in enumerate(table.schema):
        column = table[item.name]
        if pa.types.is_float16(item.type):  # which neither Arrow nor DuckDB compares
            item, column = item.with_type(pa.float32()), pc.cast(column, pa.float32())
        if pa.types.is_floating(item.type):
            absent = pc.or_(pc.invert(pc.is_finite(column)), pc.equal(column, MISSING))
        elif pa.types.is_signed_integer(item.type):
            absent = pc.equal(pc.cast(column, pa.int64()), int(MISSING))
        else:
            continue
        table = table.set_column(place, item, pc.if_else(absent, pa.scalar(None, item.type), column))
    return table


def off_the_sky(table: pa.Table) -> dict[int, str]:
    """Return the rows whose position is no position, with the reason."""
    bad = {}
    for row, (ra, dec) in enumerate(zip(table["ra"].to_pylist(), table["dec"].to_pylist(), strict=True)):
        if (ra is None) != (dec is None):
            bad[row] = f"ra is {ra} and dec is {dec}; give both or neither"
        elif ra is not None and not (0 <= ra <= 360 and -90 <= dec <= 90):
            bad[row] = f"ra {ra} dec {dec} is not on the sky (degrees ICRS, 0 <= ra < 360, -90 <= dec <= 90)"
    return bad


def without(table: pa.Table, bad: dict[int, str]) -> tuple[pa.Table, list[dict], list[int]]:
    """Return the rows that are not `bad`, the rejections, and the row numbers kept."""
    ids = table["object_id"].to_pylist()
    files = table["file"].to_pylist() if "file" in table.column_names else [None] * len(ids)
    rejected = [{"object_id": ids[row], "file": files[row], "reason": reason} for row, reason in sorted(bad.items())]
    kept = [row for row in range(len(ids)) if row not in bad]
    table = table.take(pa.array(kept, pa.int64()))
    wrapped = pc.if_else(pc.equal(table["ra"], 360.0), 0.0, table["ra"])
    return table.set_column(table.column_names.index("ra"), table.field("ra"), wrapped), rejected, kept


def must_have_ids(rows: pa.Table) -> None:
    if "object_id" not in rows.column_names:
        raise SchemaError(f"the table has no id column ({', '.join(ID_NAMES)}); name it with --id-column")
