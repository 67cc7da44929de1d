"""An astronomer's table beside the atlas: which of its columns are the position, and how matched rows are put together.

The matching itself is `sky.crossmatch`; here are tables, column names, units and what is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import exchange, sky
from galsearch.errors import SchemaError
from galsearch.store import Store

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SEPARATION = exchange.describe(
    pa.field("separation_arcsec", pa.float64()),
    unit="arcsec",
    ucd="pos.angDistance",
    description="Angle on the sky between the row of the table and the object of the atlas",
)
COLLIDING = "_in_table"  # what a column of the input is called besides, where the result has one of its name
MAIN = ";meta.main"
LIMITS = {"ra": (0.0, 360.0), "dec": (-90.0, 90.0)}
UCDS = {"ra": ("pos.eq.ra;meta.main", "pos_eq_ra_main"), "dec": ("pos.eq.dec;meta.main", "pos_eq_dec_main")}
NAMES = {  # after the UCDs: what catalogs call an ICRS or J2000 position
    "ra": ("raj2000", "ra_j2000", "ra_icrs", "_raj2000", "alpha_j2000", "ra_deg"),
    "dec": ("dej2000", "decj2000", "dec_j2000", "de_icrs", "dec_icrs", "_dej2000", "delta_j2000", "dec_deg"),
}
DEGREES = ("", "deg", "degree", "degrees")
BAND_SLACK = 1e-6  # degrees, beyond the radius: what is left out by declination cannot match


def match(
    store: Store,
    table: pa.Table | Path | str,
    *,
    radius_arcsec: ArrayLike,
    mode: str,
    where: str | None,
    ra: str | None,
    dec: str | None,
    keep_unmatched: bool,
) -> pa.Table:
    """Return what `Atlas.crossmatch` says."""
    table, name = _read(table)
    here = [_angles(table, _column(table, axis, given, name), axis, name) for axis, given in (("ra", ra), ("dec", dec))]
    if not keep_unmatched:
        _check_complete(*here, name)
    radius = sky.check_radii(radius_arcsec, rows=table.num_rows)
    rows, there = _placed(store, where, _band(here[1], radius))
    pairs = sky.crossmatch(*here, *there, radius_arcsec=radius, mode=mode)
    kept, number = np.unique(rows[pairs.right], return_inverse=True)
    found = _named(store.hits(kept, None)).take(pa.array(number))
    found = found.add_column(1, SEPARATION, pa.array(pairs.separation_arcsec))
    return _beside(table, found, pairs.left, keep_unmatched=keep_unmatched)


# ---- the input


def _read(table: pa.Table | Path | str) -> tuple[pa.Table, str]:
    if isinstance(table, (str, Path)):
        return exchange.read_table(table), str(table)
    if not isinstance(table, pa.Table):
        raise SchemaError(
            f"table is a {type(table).__name__}, expected a pyarrow.Table or the path of a CSV, ECSV, FITS, VOTable "
            "or Parquet file"
        )
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise SchemaError(f"table: column {', '.join(twice)} occurs twice; names must be unique, rename one")
    return table, "table"


def _column(table: pa.Table, axis: str, given: str | None, name: str) -> str:
    """Return the column of right ascension or declination: the one given, else by name, by UCD, by usual names."""
    if given is not None:
        if given not in table.column_names:
            raise SchemaError(f"{name}: no column '{given}' for {axis}; there are: {', '.join(table.column_names)}")
        return given
    by_name = {column.casefold(): column for column in reversed(table.column_names)}
    by_ucd = {exchange.facts_of(field)["ucd"].casefold(): field.name for field in reversed(list(table.schema))}
    tried = [by_name.get(axis), *map(by_ucd.get, UCDS[axis]), *map(by_name.get, NAMES[axis])]
    found = next((column for column in tried if column is not None), None)
    if found is None:
        raise SchemaError(
            f"{name}: no column '{axis}' and none with the UCD {UCDS[axis][0]}; say which one holds degrees ICRS with "
            f"{axis}= (--{axis}). There are: {', '.join(table.column_names)}"
        )
    return found


def _angles(table: pa.Table, column: str, axis: str, name: str) -> np.ndarray:
    """Return a column of degrees as `(n,) float64`, NaN where missing."""
    values, unit = table[column], exchange.facts_of(table.field(column))["unit"]
    if not (_is_number(values.type) or pa.types.is_null(values.type)):  # pyarrow reads 00:42:44 in CSV as a time
        first = next((value for value in values.to_pylist() if value is not None), None)
        raise SchemaError(
            f"{name}: column {column} is {values.type}, such as {str(first)!r}, expected decimal degrees (ICRS); "
            "convert it first, sexagesimal with astropy: SkyCoord(ra, dec, unit=('hourangle', 'deg')).ra.deg"
        )
    if unit not in DEGREES:
        raise SchemaError(f"{name}: column {column} is in {unit}, expected deg (ICRS); convert it first")
    angles = np.asarray(pc.fill_null(pc.cast(values, pa.float64()), np.nan).to_numpy())
    _check_range(angles, column, axis, name)
    return angles


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)


def _check_range(angles: np.ndarray, column: str, axis: str, name: str) -> None:
    low, high = LIMITS[axis]
    off = np.flatnonzero((angles < low) | (angles > high))
    if len(off):
        remedy = "add 360 to negative ones" if axis == "ra" else "right ascension comes first"
        raise SchemaError(
            f"{name}: column {column} is {angles[off[0]]} in row {off[0] + 1}, expected {low:g} to {high:g} degrees; "
            f"{remedy}, or remove the row ({len(off)} in all)"
        )


def _check_complete(ra: np.ndarray, dec: np.ndarray, name: str) -> None:
    absent = np.flatnonzero(np.isnan(ra) | np.isnan(dec))
    if len(absent):
        raise SchemaError(
            f"{name}: {len(absent)} of {len(ra)} rows have no position, the first is row {absent[0] + 1}; remove them, "
            "or keep them without a match with keep_unmatched=True (--keep-unmatched)"
        )


# ---- the atlas


def _band(dec: np.ndarray, radius: np.ndarray) -> tuple[float, float]:
    """Return the declinations between which all matches lie; from 90 to -90 when there are none."""
    if not len(dec) or np.isnan(dec).all():
        return 90.0, -90.0
    reach = radius / 3600 + BAND_SLACK
    return float(np.nanmin(dec - reach)), float(np.nanmax(dec + reach))


def _placed(store: Store, where: str | None, band: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers and the positions `(2, n)` of the objects in a band that pass `where`, by object_id."""
    stores, cuts = [store], [store.condition(where, None, None)]
    if store.kind == "set":
        stores, cuts = store.stores, cuts[0]
    parts, first = [], 0
    for one, cut in zip(stores, cuts, strict=True):
        statement = (
            f"SELECT rowid + {first} AS row, object_id, ra::DOUBLE AS ra, dec::DOUBLE AS dec FROM galaxies "
            f"WHERE ra IS NOT NULL AND dec BETWEEN {band[0]!r} AND {band[1]!r}"
            f"{f' AND ({cut})' if cut else ''} ORDER BY object_id"
        )
        parts.append(one.sandbox.ask(statement, said="where"))
        first += one.manifest.rows
    found = parts[0] if len(parts) == 1 else pa.concat_tables(parts).sort_by("object_id")
    return found["row"].to_numpy(), np.stack([found["ra"].to_numpy(), found["dec"].to_numpy()])


def _named(hits: pa.Table) -> pa.Table:
    """Return rows of the atlas without a score, for nothing was compared; a column of the source has its name back."""
    rows = hits.remove_column(hits.column_names.index("score"))
    renamed = {"score_in_table": "score", SEPARATION.name: f"{SEPARATION.name}_in_atlas"}
    return rows.rename_columns([renamed.get(name, name) for name in rows.column_names])


# ---- both


def _beside(table: pa.Table, found: pa.Table, left: np.ndarray, *, keep_unmatched: bool) -> pa.Table:
    """Return the rows `left` of the table with those `found` for them, and where asked the others with NULLs."""
    number = np.arange(len(left))
    if keep_unmatched:
        alone = np.setdiff1d(np.arange(table.num_rows), left)
        left, number = np.concatenate([left, alone]), np.concatenate([number, np.full(len(alone), -1)])
        order = np.argsort(left, kind="stable")
        left, number = left[order], number[order]
        found = found.take(pa.array(number, mask=number < 0))
    mine = table.take(pa.array(left))
    fields = [
        _of_the_input(field, name)
        for field, name in zip(table.schema, _free_names(table.column_names, found.column_names), strict=True)
    ]
    return pa.table([*mine.columns, *found.columns], schema=pa.schema([*fields, *found.schema]))


def _of_the_input(field: pa.Field, name: str) -> pa.Field:
    """Return a field by another name; the main position and identifier of the result are those of the atlas."""
    facts = exchange.facts_of(field)
    return exchange.describe(field.with_name(name), **{**facts, "ucd": facts["ucd"].removesuffix(MAIN)})


def _free_names(names: list[str], taken: list[str]) -> list[str]:
    """Return names for the columns of the input that the result does not have yet; upper and lower case are one."""
    theirs, free = {name.casefold() for name in taken}, []
    used = theirs | {name.casefold() for name in names}
    for name in names:
        new, count = name, 1
        while new.casefold() in (theirs if new == name else used):
            new = f"{name}{COLLIDING}{count if count > 1 else ''}"
            count += 1
        used.add(new.casefold())
        free.append(new)
    return free
