"""What a watch knows of its items, in a DuckDB file: each item is a row, whose state says what is to be done next.

Every change is one transaction, and each step can be done again: after a kill the atlas, which commits at once, says
what is in it, and the rows follow (`watch.run`). One process writes at a time.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from galsearch.errors import GalsearchError
from galsearch.science.sky import separation_arcsec

FILE = "watch.duckdb"
VERSION = 1
WAITING, FETCHED, ADDED, SCORED = "waiting", "fetched", "added", "scored"  # on their way
OUTSIDE, EMPTY, FAILED, REJECTED, DUPLICATE = "out of footprint", "empty", "failed", "rejected", "duplicate"  # ends
TAKEN = (FETCHED, ADDED, SCORED)
STATES = (WAITING, *TAKEN, OUTSIDE, EMPTY, FAILED, REJECTED, DUPLICATE)
ENROLLED_AT_ONCE = 50_000
ZONE_ARCSEC = 5.0  # height of the zones that positions are looked up by
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    number BIGINT PRIMARY KEY, source VARCHAR NOT NULL, item VARCHAR NOT NULL, object_id VARCHAR NOT NULL,
    ra DOUBLE, "dec" DOUBLE, zone BIGINT, facts VARCHAR, state VARCHAR NOT NULL, reason VARCHAR,
    attempts INTEGER NOT NULL, requests INTEGER NOT NULL, suffix VARCHAR, digest VARCHAR, bytes BIGINT,
    same_as VARCHAR, batch INTEGER, run INTEGER, changed DOUBLE);
CREATE TABLE IF NOT EXISTS runs (number INTEGER, started DOUBLE, ended DOUBLE, how VARCHAR);
CREATE TABLE IF NOT EXISTS scorings (first INTEGER, last INTEGER, condition VARCHAR, state VARCHAR, run VARCHAR,
    created DOUBLE, tested BIGINT, candidates BIGINT, reason VARCHAR);
CREATE TABLE IF NOT EXISTS queue (object_id VARCHAR, run VARCHAR, p_value DOUBLE, q_value DOUBLE, score DOUBLE,
    tier VARCHAR, detector VARCHAR, reasons VARCHAR, listed DOUBLE);
CREATE TABLE IF NOT EXISTS identifications (object_id VARCHAR, against VARCHAR, state VARCHAR, label VARCHAR,
    separation_arcsec DOUBLE, reason VARCHAR, checked DOUBLE);
CREATE TABLE IF NOT EXISTS hosts (host VARCHAR, run INTEGER, counts VARCHAR, last_success DOUBLE, last_error VARCHAR);
CREATE TABLE IF NOT EXISTS events (happened DOUBLE, run INTEGER, kind VARCHAR, text VARCHAR);
CREATE TABLE IF NOT EXISTS reports (number INTEGER, created DOUBLE, numbers VARCHAR, hook VARCHAR, tries INTEGER,
    hook_error VARCHAR);
CREATE TABLE IF NOT EXISTS about (version INTEGER);
"""


@dataclass(frozen=True)
class Item:
    """Something to fetch: its number, source, name there, and position (None: not known)."""

    number: int
    source: str
    item: str
    object_id: str
    ra: float | None
    dec: float | None


@dataclass(frozen=True)
class Fetched:
    """What became of an item: its state, why, and for a picture its suffix, digest and size in bytes."""

    item: Item
    state: str
    reason: str | None = None
    requests: int = 0
    suffix: str | None = None
    digest: str | None = None
    bytes: int | None = None
    tried: bool = True  # False: nothing was tried, such as where a host is left alone
    unwritten: bool = False  # the picture came, and the disk did not take it


class Jobs:
    """The items of a watch and what was done with them."""

    def __init__(self, path: Path, *, same_arcsec: float = 1.0, read_only: bool = False) -> None:
        self.path, self.same_arcsec = path, same_arcsec
        self.run = 0
        try:
            self._connection = duckdb.connect(str(path), read_only=read_only)
            self._connection.execute("SET autoinstall_known_extensions = false")
            self._connection.execute("SET memory_limit = '1GB'; SET threads = 1")
            if not read_only:
                self._connection.execute(SCHEMA)
            version = self._connection.execute("SELECT version FROM about").fetchone()
        except duckdb.Error as error:
            raise GalsearchError(
                f"{path}: cannot be opened ({str(error).splitlines()[0][:200]}); if another watch uses it, wait until "
                "that ends; if it is damaged, move it away: what is in the atlas is not fetched again"
            ) from None
        if version is None and not read_only:
            self._connection.execute("INSERT INTO about VALUES (?)", [VERSION])
        elif version is not None and version[0] > VERSION:
            self.close()
            raise GalsearchError(f"{path} is of version {version[0]}, this galsearch knows {VERSION}; update galsearch")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextlib.contextmanager
    def changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Make several changes one transaction. Raises GalsearchError where the disk is full."""
        self._connection.execute("BEGIN")
        try:
            yield self._connection
            self._connection.execute("COMMIT")
        except duckdb.Error as error:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("ROLLBACK")
            raise GalsearchError(
                f"{self.path}: cannot be written ({str(error).splitlines()[0][:200]}); make room on the disk, then run "
                "the same command again"
            ) from None
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("ROLLBACK")
            raise

    def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        return self._connection.execute(statement, list(parameters)).fetchall()

    def value(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first value of a statement."""
        row = self._connection.execute(statement, list(parameters)).fetchone()
        return None if row is None else row[0]

    # ---- runs and events

    def begin(self) -> int:
        """Begin a run; return its number."""
        self.run = (self.value("SELECT max(number) FROM runs") or 0) + 1
        with self.changing() as connection:
            connection.execute("INSERT INTO runs VALUES (?, ?, NULL, NULL)", [self.run, time.time()])
        return self.run

    def end(self, how: str) -> None:
        """End the run."""
        with self.changing() as connection:
            connection.execute("UPDATE runs SET ended = ?, how = ? WHERE number = ?", [time.time(), how, self.run])

    def event(self, kind: str, text: str) -> None:
        """Keep a thing that happened: "error", "note", "shares", "recovered"."""
        with self.changing() as connection:
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", [time.time(), self.run, kind, text[:2000]])

    def keep_health(self, health: Mapping[str, Any]) -> None:
        """Keep what became of the requests of this run by host."""
        with self.changing() as connection:
            connection.execute("DELETE FROM hosts WHERE run = ?", [self.run])
            for host, one in sorted(health.items()):
                counts = json.dumps(dict(one.counts), sort_keys=True)
                row = [host, self.run, counts, one.last_success, one.last_error]
                connection.execute("INSERT INTO hosts VALUES (?, ?, ?, ?, ?)", row)

    # ---- items

    def enroll(self, source: str, items: Iterable[tuple[str, float | None, float | None, dict[str, Any]]]) -> int:
        """Make rows for items that have none: (item, ra, dec, facts); return how many were new."""
        new, part = 0, []
        for one in items:
            part.append(one)
            if len(part) == ENROLLED_AT_ONCE:
                new, part = new + self._enroll(source, part), []
        return new + (self._enroll(source, part) if part else 0)

    def _enroll(self, source: str, part: Sequence[tuple[str, float | None, float | None, dict[str, Any]]]) -> int:
        ra, dec = (pa.array([one[axis] for one in part], pa.float64()) for axis in (1, 2))
        given = pa.table(
            {
                "entry": pa.array(range(len(part)), pa.int64()),
                "item": pa.array([one[0] for one in part], pa.string()),
                "ra": ra,
                "dec": dec,
                "zone": pa.array([self._zone(one[2]) for one in part], pa.int64()),
                "facts": pa.array(
                    [json.dumps(one[3], sort_keys=True) if one[3] else None for one in part], pa.string()
                ),
            }
        )
        before = self.value("SELECT coalesce(max(number), 0) FROM items")
        with self.changing() as connection:
            connection.register("given", given)
            connection.execute(
                "INSERT INTO items SELECT $before + row_number() OVER (ORDER BY entry), $source, item, "
                "$source || ':' || item, ra, \"dec\", zone, facts, 'waiting', NULL, 0, 0, NULL, NULL, NULL, NULL, "
                "NULL, NULL, $now FROM (SELECT item, min(entry) AS entry, first(ra ORDER BY entry) AS ra, "
                'first("dec" ORDER BY entry) AS "dec", first(zone ORDER BY entry) AS zone, '
                "first(facts ORDER BY entry) AS facts FROM given GROUP BY item) AS g "
                "WHERE NOT EXISTS (SELECT 1 FROM items AS i WHERE i.source = $source AND i.item = g.item)",
                {"before": before, "source": source, "now": time.time()},
            )
            connection.unregister("given")
        return self.value("SELECT coalesce(max(number), 0) FROM items") - before

    def _zone(self, dec: float | None) -> int | None:
        """Return the zone of a declination; positions that are the same lie in one or in two that touch."""
        return None if dec is None else int(np.floor((dec + 90) * 3600 / ZONE_ARCSEC))

    def retry(self, *, attempts: int) -> int:
        """Let failed items that were tried less than so often wait again; return how many."""
        count = self.value("SELECT count(*) FROM items WHERE state = 'failed' AND attempts < ?", [attempts])
        with self.changing() as connection:
            connection.execute(
                "UPDATE items SET state = 'waiting', changed = ? WHERE state = 'failed' AND attempts < ?",
                [time.time(), attempts],
            )
        return count

    def waiting(self) -> dict[str, int]:
        """Return how many items of each source wait."""
        return dict(self.rows("SELECT source, count(*) FROM items WHERE state = 'waiting' GROUP BY ALL"))

    def next_items(self, source: str, count: int, *, after: int) -> list[Item]:
        """Return the next items of a source that wait, by number, beyond `after`."""
        rows = self.rows(
            "SELECT number, source, item, object_id, ra, \"dec\" FROM items WHERE state = 'waiting' AND source = ? "
            "AND number > ? ORDER BY number LIMIT ?",
            [source, after, count],
        )
        return [Item(*row) for row in rows]

    def twins(self, items: Sequence[Item], digests: Sequence[str | None]) -> dict[int, str]:
        """Return for items whose content or position was taken before by another the object_id of that, by number.

        Of items that are given together the first counts as taken.
        """
        result: dict[int, str] = {}
        digested = [digest for digest in digests if digest is not None]
        known = dict(
            self.rows(
                "SELECT digest, min(object_id) FROM items WHERE state IN ('fetched', 'added', 'scored') AND digest IN "
                "(SELECT unnest(?::VARCHAR[])) GROUP BY digest",
                [digested],
            )
            if digested
            else []
        )
        placed = self._placed(items)
        for item, digest in zip(items, digests, strict=True):
            twin = (known.get(digest) if digest is not None else None) or self._near(item, placed)
            if twin is not None and twin != item.object_id:
                result[item.number] = twin
                continue
            if digest is not None:
                known[digest] = item.object_id
                zone = self._zone(item.dec)
                if zone is not None:
                    placed.setdefault(zone, []).append((item.object_id, item.ra, item.dec))
        return result

    def _placed(self, items: Sequence[Item]) -> dict[int, list[tuple[str, float | None, float | None]]]:
        """Return the positions that were taken near those of items, by zone."""
        if not self.same_arcsec:
            return {}
        zones = {zone for zone in (self._zone(item.dec) for item in items) if zone is not None}
        around = sorted({near for zone in zones for near in (zone - 1, zone, zone + 1)})
        result: dict[int, list[tuple[str, float | None, float | None]]] = {}
        if around:
            for zone, name, ra, dec in self.rows(
                'SELECT zone, object_id, ra, "dec" FROM items WHERE zone IN (SELECT unnest(?::BIGINT[])) AND state IN '
                "('fetched', 'added', 'scored') ORDER BY number",
                [around],
            ):
                result.setdefault(zone, []).append((name, ra, dec))
        return result

    def _near(self, item: Item, placed: dict[int, list[tuple[str, float | None, float | None]]]) -> str | None:
        zone = self._zone(item.dec)
        if zone is None or not self.same_arcsec:
            return None
        near = [one for number in (zone - 1, zone, zone + 1) for one in placed.get(number, ())]
        if not near:
            return None
        apart = separation_arcsec(item.ra, item.dec, [one[1] for one in near], [one[2] for one in near])
        closest = int(apart.argmin())
        return near[closest][0] if apart[closest] <= self.same_arcsec else None

    def record(self, results: Sequence[Fetched]) -> dict[int, str]:
        """Keep what became of items; return those that are duplicates, by number, with what they are the same as."""
        results = sorted(results, key=lambda one: one.item.number)
        pictures = [one for one in results if one.state == FETCHED]
        twins = self.twins([one.item for one in pictures], [one.digest for one in pictures])
        rows = []
        for one in results:
            twin = twins.get(one.item.number)
            state = DUPLICATE if twin else one.state
            tried = 1 if one.tried else 0
            kept = (one.item.number, state, one.reason, tried, one.requests, one.suffix, one.digest, one.bytes, twin)
            rows.append(kept)
        self._update(rows)
        return twins

    def skip(self, twins: Mapping[int, str]) -> None:
        """Keep that items are the same as others, without having fetched them."""
        self._update([(number, DUPLICATE, None, 0, 0, None, None, None, twin) for number, twin in twins.items()])

    def _update(self, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        names = ("number", "state", "reason", "attempts", "requests", "suffix", "digest", "bytes", "same_as")
        kinds = (pa.int64(), *[pa.string()] * 2, *[pa.int64()] * 2, *[pa.string()] * 2, pa.int64(), pa.string())
        columns = {
            name: pa.array(values, kind)
            for name, kind, values in zip(names, kinds, zip(*rows, strict=True), strict=True)
        }
        with self.changing() as connection:
            connection.register("made", pa.table(columns))
            connection.execute(
                "UPDATE items SET state = made.state, reason = made.reason, attempts = items.attempts + made.attempts, "
                "requests = items.requests + made.requests, suffix = made.suffix, digest = made.digest, "
                "bytes = made.bytes, same_as = made.same_as, run = ?, changed = ? FROM made WHERE items.number = "
                "made.number",
                [self.run, time.time()],
            )
            connection.unregister("made")

    # ---- batches

    def unbatched(self) -> int:
        """Return how many pictures are there and in no batch yet."""
        return self.value("SELECT count(*) FROM items WHERE state = 'fetched' AND batch IS NULL")

    def make_batch(self, size: int) -> int | None:
        """Put up to `size` pictures into a new batch and return its number; None where there are none."""
        number = (self.value("SELECT max(batch) FROM items") or 0) + 1
        with self.changing() as connection:
            connection.execute(
                "UPDATE items SET batch = ? WHERE number IN (SELECT number FROM items WHERE state = 'fetched' "
                "AND batch IS "
                "NULL ORDER BY number LIMIT ?)",
                [number, size],
            )
        return number if self.value("SELECT count(*) FROM items WHERE batch = ?", [number]) else None

    def open_batches(self) -> list[int]:
        """Return the batches of which not all is in the atlas."""
        return [
            row[0]
            for row in self.rows(
                "SELECT DISTINCT batch FROM items WHERE state = 'fetched' AND batch IS NOT NULL ORDER BY 1"
            )
        ]

    def of_batch(self, batch: int) -> list[dict[str, Any]]:
        """Return the items of a batch that are not in the atlas yet, by number."""
        rows = self.rows(
            'SELECT number, source, item, object_id, ra, "dec", facts, suffix, digest FROM items WHERE batch = ? AND '
            "state = 'fetched' ORDER BY number",
            [batch],
        )
        names = ("number", "source", "item", "object_id", "ra", "dec", "facts", "suffix", "digest")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def added(self, batch: int, rejected: Mapping[str, str]) -> None:
        """Keep that a batch is in the atlas but for what was rejected, reasons by object_id."""
        with self.changing() as connection:
            given = pa.table(
                {
                    "object_id": pa.array(list(rejected), pa.string()),
                    "why": pa.array(list(rejected.values()), pa.string()),
                }
            )
            connection.register("refused", given)
            connection.execute(
                "UPDATE items SET state = 'rejected', reason = refused.why, changed = ? FROM refused WHERE "
                "items.object_id = "
                "refused.object_id AND items.batch = ? AND items.state = 'fetched'",
                [time.time(), batch],
            )
            connection.execute(
                "UPDATE items SET state = 'added', changed = ? WHERE batch = ? AND state = 'fetched'",
                [time.time(), batch],
            )
            connection.unregister("refused")

    def adopt(self, batches: Mapping[str, int | None]) -> int:
        """Keep that objects are in the atlas, with the batch that each came in, by object_id; return how many were not.

        Records that were lost are made so again.
        """
        given = pa.table(
            {
                "object_id": pa.array(list(batches), pa.string()),
                "batch": pa.array(list(batches.values()), pa.int64()),
            }
        )
        with self.changing() as connection:
            connection.register("given", given)
            rows = connection.execute(
                "UPDATE items SET state = 'added', batch = coalesce(given.batch, items.batch), changed = ? FROM given "
                "WHERE items.object_id = given.object_id AND items.state NOT IN ('added', 'scored') RETURNING number",
                [time.time()],
            ).fetchall()
            connection.unregister("given")
        return len(rows)

    def set_states(self, ids: Sequence[str], state: str, *, only: Sequence[str], reason: str | None = None) -> int:
        """Set the state of objects that are in one of the states `only`; return how many."""
        if not ids:
            return 0
        with self.changing() as connection:
            connection.register("these", pa.table({"object_id": pa.array(list(ids), pa.string())}))
            rows = connection.execute(
                "UPDATE items SET state = ?, reason = coalesce(?, reason), changed = ? FROM these WHERE "
                "items.object_id = "
                "these.object_id AND items.state IN (SELECT unnest(?::VARCHAR[])) RETURNING items.number",
                [state, reason, time.time(), list(only)],
            ).fetchall()
            connection.unregister("these")
        return len(rows)

    def forget_pictures(self, numbers: Sequence[int]) -> None:
        """Let items whose picture is gone wait again, in no batch."""
        with self.changing() as connection:
            connection.execute(
                "UPDATE items SET state = 'waiting', batch = NULL, suffix = NULL, digest = NULL, bytes = NULL, "
                "changed = ? "
                "WHERE number IN (SELECT unnest(?::BIGINT[]))",
                [time.time(), list(numbers)],
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many items of each source are in each state."""
        result: dict[str, dict[str, int]] = {}
        for source, state, count in self.rows("SELECT source, state, count(*) FROM items GROUP BY ALL ORDER BY ALL"):
            result.setdefault(source, dict.fromkeys(STATES, 0))[state] = count
        return result
