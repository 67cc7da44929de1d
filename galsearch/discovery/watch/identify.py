"""Is what was listed known? Each object is looked up in the catalogs and services that the plan names.

Four states: known (where, as what), not found, and not checked (with the reason); a source that cannot be read or does
not answer, and an object without a position, are never "not found", and are looked up again at the next run.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from galsearch.discovery.catalogs import Against as Catalog
from galsearch.discovery.identify import ABSENT, Identification, request_of
from galsearch.discovery.identify import NOT_CHECKED as UNKNOWN
from galsearch.discovery.identify import identify as look_up
from galsearch.discovery.watch.jobs import Jobs
from galsearch.discovery.watch.plan import Against, Plan
from galsearch.errors import GalsearchError
from galsearch.remote.catalogs.ask import Options
from galsearch.store import Store, open_store

KNOWN, NO_MATCH, NOT_CHECKED = "known", "not found", "not checked"
ANSWERS = "answers.sqlite"  # of services, in the workspace
MOST_REASON = 300
Row = tuple[str, str, str, str | None, float | None, str | None]  # object_id, against, state, label, separation, reason


def identify(plan: Plan, jobs: Jobs) -> None:
    """Look up what was listed and has not been checked yet; what could not be checked before is tried again."""
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
                _keep(jobs, against, matched(store, against, ids, answers=plan.workspace / ANSWERS))


def matched(store: Store, against: Against, ids: list[str], *, answers: Path) -> list[Row]:
    """Return what a catalog or a service says of objects: its best match within the radius.

    `answers` is the file that keeps those of services.
    """
    there = set(store.ids(store.rows_of(ids)))
    result: list[Row] = [
        (name, against.name, NOT_CHECKED, None, None, "it is not in the atlas") for name in ids if name not in there
    ]
    requested = [name for name in ids if name in there]
    if not requested:
        return result
    catalogs = [] if against.table is None else [_catalog(against, against.table)]
    try:
        request = request_of(
            requested,
            catalogs,
            radius_arcsec=against.radius_arcsec,
            services=() if against.service is None else (against.service,),
            service_urls=against.urls,
            options=None if against.service is None else Options(answers),
        )
        return result + [_row(one, against) for one in look_up(store, request)]
    except (GalsearchError, OSError) as error:
        why = str(error)[:MOST_REASON]
        return result + [(name, against.name, NOT_CHECKED, None, None, why) for name in requested]


def _catalog(against: Against, path: Path) -> Catalog:
    return Catalog(path, type_column=against.label, name=against.name, ra=against.ra, dec=against.dec)


def _row(one: Identification, against: Against) -> Row:
    if one.state == UNKNOWN:
        why = "; ".join(one.failed) or "it has no position"
        return one.object_id, against.name, NOT_CHECKED, None, None, why[:MOST_REASON]
    if one.state == ABSENT:
        return one.object_id, against.name, NO_MATCH, None, None, None
    named = one.type if against.table is not None else " ".join(filter(None, (one.name, one.type and f"({one.type})")))
    return one.object_id, against.name, KNOWN, named or None, one.separation_arcsec, None


def _keep(jobs: Jobs, against: Against, rows: list[Row]) -> None:
    with jobs.changing() as connection:
        for row in rows:
            connection.execute(
                "DELETE FROM identifications WHERE object_id = ? AND against = ?", [row[0], against.name]
            )
            connection.execute("INSERT INTO identifications VALUES (?, ?, ?, ?, ?, ?, ?)", [*row, time.time()])
