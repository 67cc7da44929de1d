"""Tables of labels from outside: rows joined to the objects of an atlas by id, or by position."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats
from galsearch.errors import QueryError
from galsearch.store import Store

ID, LABEL = "object_id", "label"
_KEPT = "label_of_the_table"  # while it is matched: no column of an atlas is called so


def read_labels(
    store: Store, table: pa.Table | str | Path, label: str | None, radius_arcsec: float | None
) -> tuple[str, pa.Table]:
    """Return what the base is recorded to come from, and rows of object_id and label.

    Without a radius rows are joined by object_id; with one, each to the closest object within it, inclusive, and of
    several rows of one object the closest counts. Rows without a label or an object are left out. Raises QueryError
    where there is no such column or nothing matches, SchemaError for a table that cannot be read.
    """
    name = "a table" if isinstance(table, pa.Table) else Path(table).name
    rows = table if isinstance(table, pa.Table) else formats.read_table(Path(table))
    column = _label_column(rows, label, name)
    rows = rows.rename_columns([_KEPT if one == column else one for one in rows.column_names])
    if radius_arcsec is None:
        matched, how = _by_id(store, rows, name), "by object_id"
    else:
        matched, how = _by_position(store, rows, radius_arcsec), f"within {radius_arcsec:g} arcsec"
    result = pa.table({ID: matched[ID], LABEL: matched[_KEPT]})
    result = result.filter(result[LABEL].is_valid())
    if not result.num_rows:
        raise QueryError(
            f"no row of {name} with a label is an object of {store.path} {how}; "
            + ("give radius_arcsec to match by position" if radius_arcsec is None else "try a larger radius_arcsec")
        )
    return f"-- {column} of {name}, {rows.num_rows} rows, matched {how}", result


def _label_column(rows: pa.Table, label: str | None, name: str) -> str:
    if label is None and LABEL in rows.column_names:
        return LABEL
    if label is None or label not in rows.column_names:
        wanted = (
            "say which column holds the labels with label" if label is None else f"there is no column {label!r:.60}"
        )
        raise QueryError(f"{name}: {wanted}; it has {', '.join(rows.column_names)[:400]}")
    return label


def _by_id(store: Store, rows: pa.Table, name: str) -> pa.Table:
    if ID not in rows.column_names:
        raise QueryError(f"{name} has no column object_id; name it so, or give radius_arcsec to match by position")
    ids = rows[ID].cast(pa.string())
    rows = rows.set_column(rows.column_names.index(ID), ID, ids).filter(ids.is_valid())
    known = store.ids(store.rows_of(rows[ID].to_pylist()))
    return rows.filter(pc.is_in(rows[ID], value_set=pa.array(known, pa.string())))


def _by_position(store: Store, rows: pa.Table, radius_arcsec: float) -> pa.Table:
    from galsearch.crossmatch import match

    for taken in (ID, "separation_arcsec"):
        if taken in rows.column_names:
            rows = rows.drop_columns([taken])
    matched = match(
        store, rows, radius_arcsec=radius_arcsec, mode="best", where=None, ra=None, dec=None, keep_unmatched=False
    )
    closest = matched.sort_by([("separation_arcsec", "ascending"), (ID, "ascending")])
    first = pc.index_in(pc.unique(closest[ID]), value_set=closest[ID].combine_chunks())
    return closest.take(first)
