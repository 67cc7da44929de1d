"""Is what was listed known? Each object is matched with the tables that the plan names, within their radius.

Four states: known (by which table, as what), not found, and not checked (with the reason); a table that cannot be read,
or an object without a position, is never "not found".
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from galsearch import crossmatch, formats, schema
from galsearch.discovery.watch.jobs import Jobs
from galsearch.discovery.watch.plan import Against, Plan
from galsearch.errors import GalsearchError
from galsearch.store import Store, open_store

KNOWN, NO_MATCH, NOT_CHECKED = "known", "not found", "not checked"
AT_ONCE = 500
Row = tuple[str, str, str, str | None, float | None, str | None]  # object_id, against, state, label, separation, reason


def identify(plan: Plan, jobs: Jobs) -> None:
    """Match what was listed and has not been checked yet; what could not be checked before is tried again."""
    if not plan.atlas.exists():
        return
    with contextlib.closing(open_store(plan.atlas)) as store:
        for against in plan.against:
            rows = jobs.rows(
                "SELECT DISTINCT object_id FROM queue WHERE object_id NOT IN (SELECT object_id FROM identifications "
                "WHERE against = ? AND state <> ?) ORDER BY object_id",
                [against.name, NOT_CHECKED],
            )
            ids = [row[0] for row in rows]
            if ids:
                _keep(jobs, against, matched(store, against, ids))


def matched(store: Store, against: Against, ids: list[str]) -> list[Row]:
    """Return what a table says of objects: the closest of its rows within the radius."""
    try:
        table = formats.read_table(against.table)
        if against.label is not None and against.label not in table.column_names:
            raise GalsearchError(f"no column '{against.label}' in {against.table}; mend label in the plan")
        parts = [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]
        return [row for part in parts for row in _of_part(store, table, against, part)]
    except (GalsearchError, OSError) as error:
        return [(name, against.name, NOT_CHECKED, None, None, str(error)[:300]) for name in ids]


def _of_part(store: Store, table: pa.Table, against: Against, ids: list[str]) -> list[Row]:
    where = f"object_id IN ({', '.join(_quoted(name) for name in ids)})"
    positions = store.select(["ra", "dec"], store.condition(where, None, None)).to_pylist()
    rows = {row["object_id"]: row for row in positions}
    options: dict[str, Any] = {"radius_arcsec": against.radius_arcsec, "ra": against.ra, "dec": against.dec}
    pairs = crossmatch.match(store, table, mode="all", where=where, keep_unmatched=True, **options)
    pairs = pairs.filter(pc.is_valid(pairs["object_id"])).to_pylist()
    closest: dict[str, dict[str, Any]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair["separation_arcsec"], pair["object_id"])):
        closest.setdefault(pair["object_id"], pair)
    return [_row(name, against, rows.get(name), closest.get(name)) for name in ids]


def _row(name: str, against: Against, row: dict[str, Any] | None, match: dict[str, Any] | None) -> Row:
    if match is not None:
        label = match.get(f"{against.label}{schema.IN_TABLE}", match.get(str(against.label)))
        return name, against.name, KNOWN, None if label is None else str(label), match["separation_arcsec"], None
    if row is None or row["ra"] is None:
        why = "it is not in the atlas" if row is None else "it has no position"
        return name, against.name, NOT_CHECKED, None, None, why
    return name, against.name, NO_MATCH, None, None, None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _keep(jobs: Jobs, against: Against, rows: list[Row]) -> None:
    with jobs.changing() as connection:
        for row in rows:
            connection.execute(
                "DELETE FROM identifications WHERE object_id = ? AND against = ?", [row[0], against.name]
            )
            connection.execute("INSERT INTO identifications VALUES (?, ?, ?, ?, ?, ?, ?)", [*row, time.time()])
