"""An astronomer's table beside the atlas: which of its columns are the position, and how matched rows are put together.

The matching itself is `sky.crossmatch`; here are tables, column names, units and what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from galsearch import columns, formats
from galsearch.errors import SchemaError
from galsearch.science import sky
from galsearch.store import Store

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SEPARATION = formats.describe(
    pa.field("separation_arcsec", pa.float64()),
    unit="arcsec",
    ucd="pos.angDistance",
    description="Angle on the sky between the row of the table and the object of the atlas",
)
MAIN = ";meta.main"
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
    table_name: str | int | None = None,
    missing: Iterable[float] = (),
    keep_unmatched: bool,
) -> pa.Table:
    """Return what `Atlas.crossmatch` says."""
    parts = None if keep_unmatched else _parts_near(store, table, radius_arcsec, where)
    table, name = read_input(table, table_name, missing, parts)
    positions = input_positions(table, {"ra": ra, "dec": dec}, name)
    if not keep_unmatched:
        _check_complete(positions.ra, positions.dec, name)
    radius = sky.check_radii(radius_arcsec, rows=table.num_rows)
    rows, there = _placed(store, where, _band(positions.dec, radius))
    pairs = sky.crossmatch(positions.ra, positions.dec, *there, radius_arcsec=radius, mode=mode)
    kept, number = np.unique(rows[pairs.right], return_inverse=True)
    result = _named(store.hits(kept, None)).take(pa.array(number))
    result = result.add_column(1, SEPARATION, pa.array(pairs.separation_arcsec))
    matched = _beside(table, result, pairs.left, keep_unmatched=keep_unmatched)
    return formats.with_notes(matched, [*formats.notes_of(table), *positions.notes])


# ---- the input


def _parts_near(
    store: Store, table: pa.Table | Path | str, radius_arcsec: ArrayLike, where: str | None
) -> list[Path] | None:
    """Return the files of a HATS catalog whose partitions may have a match; None for anything else.

    So it is where one radius is given for each row, which then has to be known.
    """
    root = formats.hats_root(Path(table)) if isinstance(table, (str, Path)) else None
    if root is None or np.ndim(radius_arcsec):
        return None
    reach = float(sky.check_radii(radius_arcsec, rows=1)[0])
    _, (ra, dec) = _placed(store, where, (-90.0, 90.0))
    near = list(formats.partitions_near(root, ra, dec, reach))
    lost = next((pixel for pixel, files, _ in near if not files), None)
    if lost is not None:
        raise SchemaError(f"{root}: partition Norder={lost[0]}, Npix={lost[1]} is listed and not there; copy it again")
    return [file for _, files, _ in near for file in files] or formats.all_files(root)[:1]


def read_input(
    table: pa.Table | Path | str,
    table_name: str | int | None = None,
    missing: Iterable[float] = (),
    parts: Iterable[Path] | None = None,
) -> tuple[pa.Table, str]:
    """Return a table and what errors call it. Raises SchemaError for what is no table, or no file of one.

    `parts` are the files to be read of a HATS catalog.
    """
    if isinstance(table, (str, Path)):
        return formats.read_table(table, table_name=table_name, missing=missing, parts=parts), str(table)
    if not isinstance(table, pa.Table):
        raise SchemaError(
            f"table is a {type(table).__name__}, expected a pyarrow.Table or the path of a CSV, ECSV, FITS, VOTable "
            "or Parquet file, or of the folder of a HATS catalog"
        )
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise SchemaError(f"table: column {', '.join(twice)} occurs twice; names must be unique, rename one")
    return table, "table"


def input_positions(table: pa.Table, given: dict[str, str | None], name: str) -> columns.Positions:
    """Return the positions of the table; SchemaError where there are none, or one is not on the sky."""
    named = {axis: each for axis, each in given.items() if each is not None}
    result = columns.positions(table, named, name=name, required=True)
    if result.unreadable:
        row, why = next(iter(result.unreadable.items()))
        raise SchemaError(f"{name}: {why}; mend or remove the row ({len(result.unreadable)} in all)")
    off = ~((result.ra >= 0) & (result.ra <= 360) & (np.abs(result.dec) <= 90))
    off = np.flatnonzero(off & np.isfinite(result.ra) & np.isfinite(result.dec))
    if len(off):
        row = off[0]
        raise SchemaError(
            f"{name}: row {row + 1} has {result.columns[0]} {result.ra[row]} and {result.columns[1]} "
            f"{result.dec[row]}, expected -180 to 360 and -90 to 90 degrees; right ascension comes first, or remove it "
            f"({len(off)} in all)"
        )
    return result


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
    result = store.between(*band, store.condition(where, None, None))
    return result["row"].to_numpy(), np.stack([result["ra"].to_numpy(), result["dec"].to_numpy()])


def _named(hits: pa.Table) -> pa.Table:
    """Return rows of the atlas without a score, for nothing was compared; a column of the source has its name back."""
    rows = hits.remove_column(hits.column_names.index("score"))
    renamed = {"score_in_table": "score", SEPARATION.name: f"{SEPARATION.name}_in_atlas"}
    return rows.rename_columns([renamed.get(name, name) for name in rows.column_names])


# ---- both


def _beside(table: pa.Table, result: pa.Table, left: np.ndarray, *, keep_unmatched: bool) -> pa.Table:
    """Return the rows `left` of the table with those `found` for them, and where asked the others with NULLs."""
    number = np.arange(len(left))
    if keep_unmatched:
        alone = np.setdiff1d(np.arange(table.num_rows), left)
        left, number = np.concatenate([left, alone]), np.concatenate([number, np.full(len(alone), -1)])
        order = np.argsort(left, kind="stable")
        left, number = left[order], number[order]
        result = result.take(pa.array(number, mask=number < 0))
    mine = table.take(pa.array(left))
    fields = [
        _of_the_input(field, name)
        for field, name in zip(table.schema, columns.free_names(table.column_names, result.column_names), strict=True)
    ]
    return pa.table([*mine.columns, *result.columns], schema=pa.schema([*fields, *result.schema]))


def _of_the_input(field: pa.Field, name: str) -> pa.Field:
    """Return a field by another name; the main position and identifier of the result are those of the atlas."""
    facts = formats.facts_of(field)
    return formats.describe(field.with_name(name), **{**facts, "ucd": facts["ucd"].removesuffix(MAIN)})
