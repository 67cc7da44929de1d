"""A run of a watch: fetch, dedupe, add to the atlas in batches, score, queue, identify, report.

Everything is recorded in `watch.duckdb` before and after it is done, and the atlas commits at once. So after a kill at
any moment the next run asks the atlas what is in it, lets the records follow, and goes on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from galsearch import formats, ingest
from galsearch.atlas import Atlas
from galsearch.atlas import open as open_atlas
from galsearch.atomic import WriterLock
from galsearch.discovery.anomalies import save_anomalies
from galsearch.discovery.watch import identify, report, shares
from galsearch.discovery.watch.intake import Intake, column_types, stem_of
from galsearch.discovery.watch.jobs import ADDED, FETCHED, FILE, REJECTED, SCORED, WAITING, Fetched, Item, Jobs
from galsearch.discovery.watch.plan import Plan, SourcePlan, read_plan
from galsearch.errors import GalsearchError, SchemaError
from galsearch.progress import Progress, silent
from galsearch.remote.cutouts import Client, Wanted, host_of
from galsearch.store import open_store

RECORDED_AT_ONCE = 256  # results in one transaction
ROUND = 256  # requests that are shared among sources at a time
AT_ONCE = 16  # of them to one source before the others have theirs
PICTURES, BATCHES = "pictures", "batches"
GB = 1 << 30
OURS = re.compile(r"watch_batch BETWEEN (\d+) AND (\d+)")  # the condition of a list that a watch has made
COLLECT_SECONDS = 0.3
STOPPED, DONE, FULL, LIMITED = "stopped", "nothing is left to do", "the disk is full", "most_per_run was reached"


@dataclass(frozen=True)
class Forecast:
    """What a run would request: by source the items that wait, requests, hosts, bytes and seconds at their pace."""

    plan: Path
    sources: tuple[dict[str, Any], ...]
    free_bytes: int
    missing: tuple[str, ...] = ()  # what the plan names and cannot be used, with the remedy
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The least time that politeness allows: sources of one host wait for each other."""
        by_host: dict[str, float] = {}
        for one in self.sources:
            by_host[one["host"]] = by_host.get(one["host"], 0.0) + one["seconds"]
        return max(by_host.values(), default=0.0)

    def lines(self) -> list[str]:
        """Return what to tell, a line each."""
        told = []
        for one in self.sources:
            where = one["host"] or "this machine"
            told.append(
                f"{one['source']}: {one['items']} items, {one['new']} of them new, {one['requests']} requests to "
                f"{where}, "
                f"about {one['bytes'] / 1e6:.1f} MB, at least {one['seconds']:.0f} s"
            )
        total = sum(one["requests"] for one in self.sources)
        told.append(
            f"in all {total} requests in at least {self.seconds:.0f} s; {self.free_bytes / 1e9:.1f} GB are free"
        )
        told += [*self.notes, *(f"cannot be used: {one}" for one in self.missing)]
        return [*told, "nothing was requested and nothing was changed"]


def watch(
    plan: str | Path | Plan,
    *,
    processes: int | None = None,
    progress: Progress = silent,
) -> report.WatchReport:
    """Carry out a plan until nothing is left to do, or its limit is reached, and return the report.

    A run that was stopped or killed goes on when called again: every picture gets into the atlas once. With
    `repeat_hours` in the plan it looks again after that time, until it is stopped. `processes` read and measure
    pictures, by default one for each core. Raises GalsearchError for a plan or a source that is wrong, and while
    another process watches with this workspace.
    """
    plan = plan if isinstance(plan, Plan) else read_plan(plan)
    with _written(plan):
        plan.workspace.mkdir(parents=True, exist_ok=True)
    with _written(plan), WriterLock(plan.workspace / "watch"):
        while True:
            result = _once(plan, processes, progress)
            if plan.repeat_hours is None:
                return result
            progress(1, 1, f"waiting {plan.repeat_hours:g} h")
            time.sleep(plan.repeat_hours * 3600)


@contextlib.contextmanager
def _written(plan: Plan) -> Iterator[None]:
    """Turn an error of the system about the workspace into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise GalsearchError(
            f"{error.filename or plan.workspace}: {error.strerror or error}; the workspace {plan.workspace} "
            "must be a folder that may be written, on a disk with room: make it so, or name another `workspace` in the "
            "plan, then run the same command again"
        ) from None


def watch_forecast(plan: str | Path | Plan) -> Forecast:
    """Return what `watch` would request; nothing is requested and nothing changes."""
    plan = plan if isinstance(plan, Plan) else read_plan(plan)
    known: dict[str, dict[str, str]] = {}
    if (plan.workspace / FILE).exists():
        jobs = Jobs(plan.workspace / FILE, read_only=True)
        try:
            for source, item, state in jobs.rows("SELECT source, item, state FROM items"):
                known.setdefault(source, {})[item] = state
        finally:
            jobs.close()
    client = Client(per_second=plan.requests_per_second, faster=plan.hosts)
    rows, unread = [], []
    for each in plan.sources:
        try:
            rows.append(_forecast_of(plan, each, known.get(each.name, {}), client))
        except (GalsearchError, OSError) as error:
            unread.append(f"source '{each.name}' cannot be read, and the others go on without it: {error}")
            if len(plan.sources) == 1:
                raise
    home = next(each for each in (plan.workspace, *plan.workspace.parents) if each.is_dir())
    missing, notes = _missing(plan)
    return Forecast(plan.path, tuple(rows), shutil.disk_usage(home).free, (*unread, *missing), notes)


def _missing(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the plan names and cannot be used, and what is not there yet and may come."""
    missing, notes = [], []
    if plan.models is not None and not plan.models.is_dir():
        missing.append(f"models: {plan.models}: no such folder; mend models")
    for one in plan.against:
        if one.table is not None and not one.table.exists():
            missing.append(
                f"identify '{one.name}': {one.table}: no such file or folder; mend table: nothing would be checked"
            )
    try:
        shares.read_verdicts(plan.verdicts)
    except (GalsearchError, OSError) as error:
        missing.append(f"verdicts: {error}")
    if plan.verdicts is not None and not plan.verdicts.exists():
        notes.append(f"verdicts: {plan.verdicts} is not there yet: no yield is known, and requests are shared evenly")
    if not plan.workspace.exists():
        above = next(each for each in plan.workspace.parents if each.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            missing.append(f"workspace: {plan.workspace}: {above} is no folder that may be written; mend workspace")
    elif not plan.workspace.is_dir() or not os.access(plan.workspace, os.W_OK):
        missing.append(f"workspace: {plan.workspace} is no folder that may be written; mend workspace")
    return tuple(missing), tuple(notes)


def watch_report(plan: str | Path | Plan) -> report.WatchReport:
    """Write the report of what is there, without requesting anything but the webhook that the plan names."""
    plan = plan if isinstance(plan, Plan) else read_plan(plan)
    if not (plan.workspace / FILE).exists():
        raise GalsearchError(f"{plan.workspace}: nothing was watched there yet; run it once without --report-only")
    with _written(plan), WriterLock(plan.workspace / "watch"):
        jobs = Jobs(plan.workspace / FILE, same_arcsec=plan.same_arcsec)
        try:
            return _reported(plan, jobs)
        finally:
            jobs.close()


def _forecast_of(plan: Plan, source: SourcePlan, known: Mapping[str, str], client: Client) -> dict[str, Any]:
    items = new = waiting = 0
    for name, *_ in Intake(source, seed=plan.seed).entries():
        items, state = items + 1, known.get(name)
        new += state is None
        waiting += state in (None, WAITING, "failed")
    result: dict[str, Any] = {"source": source.name, "items": items, "new": new}
    if source.service is None:
        return {**result, "host": "", "requests": 0, "bytes": 0, "seconds": 0.0}
    host, requests = host_of(source.service.base_url), waiting * source.service.requests_each
    size = source.service.bytes_each(Wanted(0.0, 0.0, source.pixels, source.arcsec_per_pixel))
    return {
        **result,
        "host": host,
        "requests": requests,
        "bytes": waiting * size,
        "seconds": requests / client.rate(host),
    }


def _once(plan: Plan, processes: int | None, progress: Progress) -> report.WatchReport:
    """Do one run, and report whatever became of it."""
    jobs = Jobs(plan.workspace / FILE, same_arcsec=plan.same_arcsec)
    try:
        jobs.begin()
        stop = threading.Event()
        with _client(plan, stop) as client:
            run = _Run(plan, jobs, client, processes, progress)
            try:
                how = run.go()
            except KeyboardInterrupt:
                stop.set()
                jobs.end(STOPPED)
                raise
            except (GalsearchError, OSError) as error:
                stop.set()
                with contextlib.suppress(GalsearchError, OSError):  # the one that ended the run is what counts
                    jobs.event("error", str(error))
                    jobs.end("ended by an error")
                    jobs.keep_health(client.health)
                    _reported(plan, jobs)
                raise
            jobs.keep_health(client.health)
        for text in run.unfinished():
            jobs.event(report.UNFINISHED, text)
        jobs.end(how)
        return _reported(plan, jobs)
    finally:
        jobs.close()


def _client(plan: Plan, stop: threading.Event) -> Client:
    return Client(
        per_second=plan.requests_per_second,
        faster=plan.hosts,
        timeout_seconds=plan.timeout_seconds,
        retries=plan.retries,
        stop=stop,
    )


def _reported(plan: Plan, jobs: Jobs) -> report.WatchReport:
    verdicts = shares.read_verdicts(plan.verdicts)
    if not plan.atlas.exists():
        return report.write(plan, jobs, None, verdicts)
    with open_atlas(plan.atlas) as atlas:
        return report.write(plan, jobs, atlas, verdicts)


@dataclass
class _Run:
    """One run: what is under way, and what is left."""

    plan: Plan
    jobs: Jobs
    client: Client
    processes: int | None
    progress: Progress
    intakes: dict[str, Intake] = field(default_factory=dict)
    under_way: set[Future[Fetched]] = field(default_factory=set)
    results: queue.SimpleQueue[Future[Fetched]] = field(default_factory=queue.SimpleQueue)
    after: dict[str, int] = field(default_factory=dict)  # the last number that was submitted, by source
    left: dict[str, int] = field(default_factory=dict)  # items that wait, by source
    shared: dict[str, int] = field(default_factory=dict)  # requests of this round, by source
    quota: dict[str, int] = field(default_factory=dict)  # what is left of them
    rounds: int = 0
    submitted: int = 0
    full: bool = False
    there: dict[int, Path] = field(default_factory=dict)  # pictures that were fetched and not recorded, by number
    troubles: list[str] = field(default_factory=list)  # why the run did less than the plan says
    scores: bool = True  # whether a cycle is scored; not where that failed, which the end of the run tries again

    def go(self) -> str:
        """Do everything; return why it ended."""
        self.types = column_types(self.plan.sources)
        self._enroll()
        self._recover()
        for batch in self.jobs.open_batches():
            self._add(batch)
        self._fetch_all()
        self._score()
        identify.identify(self.plan, self.jobs)
        if self.full:
            return FULL
        return LIMITED if self._limited() and any(self.left.values()) else DONE

    # ---- what there is

    def _enroll(self) -> None:
        """Make rows for what is new in the sources; one that cannot be read is told, and the others go on."""
        self.jobs.retry(attempts=self.plan.attempts)
        for source in self.plan.sources:
            intake = Intake(source, seed=self.plan.seed)
            try:
                self.jobs.enroll(source.name, intake.entries())
            except (GalsearchError, OSError) as error:
                self.jobs.event("error", f"source '{source.name}' cannot be read: {error}")
                self.troubles.append(f"source '{source.name}' cannot be read: {error}")
                if len(self.plan.sources) == 1:
                    raise
                continue
            self.intakes[source.name] = intake

    def _recover(self) -> None:
        """Let the records follow what is in the atlas and on the disk."""
        for name in (PICTURES, BATCHES):
            (self.plan.workspace / name).mkdir(exist_ok=True)
        for partial in (self.plan.workspace / PICTURES).glob("*.partial"):
            partial.unlink()
        self._follow_atlas()
        paths = {path.name.partition(".")[0]: path for path in (self.plan.workspace / PICTURES).iterdir()}
        if paths:
            waiting = self.jobs.rows("SELECT number, object_id FROM items WHERE state = 'waiting'")
            stems = ((number, stem_of(name)) for number, name in waiting)
            self.there = {number: paths[stem] for number, stem in stems if stem in paths}
        gone = [one["number"] for one in self._fetched() if not self._is_there(one)]
        if gone:
            self.jobs.event("recovered", f"{len(gone)} pictures are not on the disk any more and are fetched again")
            self.jobs.forget_pictures(gone)
        still = {f"{batch:06d}" for batch in self.jobs.open_batches()}
        for folder in (self.plan.workspace / BATCHES).iterdir():
            if folder.name not in still and not self.plan.keep_pictures:
                shutil.rmtree(folder)

    def _follow_atlas(self) -> None:
        ids, rejected = self._in_atlas()
        lost = [row[0] for row in self.jobs.rows("SELECT object_id FROM items WHERE state IN ('added', 'scored')")]
        lost = [name for name in lost if name not in ids]
        if lost and self._has_deletions():
            self.jobs.set_states(lost, REJECTED, only=(ADDED, SCORED), reason="was deleted from the atlas")
        elif lost:
            self.jobs.event("error", f"{len(lost)} objects are not in {self.plan.atlas} any more and are fetched again")
            numbers = self.jobs.rows(
                "SELECT number FROM items WHERE object_id IN (SELECT unnest(?::VARCHAR[]))", [lost]
            )
            self.jobs.forget_pictures([row[0] for row in numbers])
        late = self.jobs.adopt(ids)
        refused = 0
        for name, reason in rejected.items():
            refused += self.jobs.set_states([name], REJECTED, only=(FETCHED,), reason=reason)
        if late or refused:
            self.jobs.event("recovered", f"{late} objects were in the atlas and {refused} left out of it, unrecorded")
        self._follow_scorings()

    def _has_deletions(self) -> bool:
        """Say whether somebody deleted objects from the atlas, which then stay out of it."""
        if not self.plan.atlas.exists():
            return False
        with contextlib.closing(open_store(self.plan.atlas)) as store:
            return any(record.get("action") == "delete" for record in store.manifest.provenance)

    def _in_atlas(self) -> tuple[dict[str, int | None], dict[str, str]]:
        """Return the objects of the atlas with the batch that each came in, and why others were left out."""
        if not self.plan.atlas.exists():
            return {}, {}
        with contextlib.closing(open_store(self.plan.atlas)) as store:
            named = "watch_batch" in store.describe()["column"].to_pylist()
            rows = store.select(["watch_batch"] if named else [], store.condition(None, None, None))
            batches = rows["watch_batch"].to_pylist() if named else [None] * len(rows)
            table = store.table("rejected")
            waiting = {row[0] for row in self.jobs.rows("SELECT object_id FROM items WHERE state = 'fetched'")}
            reasons = (
                {}
                if table is None or not waiting
                else {row["object_id"]: row["reason"] for row in table.to_pylist() if row["object_id"] in waiting}
            )
            return dict(zip(rows["object_id"].to_pylist(), batches, strict=True)), reasons

    def _fetched(self) -> list[dict[str, Any]]:
        rows = self.jobs.rows("SELECT number, object_id, batch, suffix, bytes FROM items WHERE state = 'fetched'")
        return [dict(zip(("number", "object_id", "batch", "suffix", "bytes"), row, strict=True)) for row in rows]

    def _is_there(self, one: Mapping[str, Any]) -> bool:
        """Say whether the picture of an item is on the disk as it was written."""
        paths = [self._picture(one)]
        if one["batch"] is not None:
            paths.append(self._folder(one["batch"]) / PICTURES / paths[0].name)
        return any(path.is_file() and path.stat().st_size == one["bytes"] for path in paths)

    def _picture(self, one: Mapping[str, Any]) -> Path:
        return self.plan.workspace / PICTURES / f"{stem_of(one['object_id'])}{one['suffix']}"

    def _folder(self, batch: int) -> Path:
        return self.plan.workspace / BATCHES / f"{batch:06d}"

    # ---- fetching

    def _fetch_all(self) -> None:
        """Fetch what waits, add it in batches and score it in cycles, until nothing is left or a limit is reached."""
        self._check_room()
        self.left = {name: count for name, count in self.jobs.waiting().items() if name in self.intakes}
        with self._pool() as pool:
            while True:
                self._submit(pool)
                self._collect()
                enough = self.jobs.unbatched() >= self.plan.batch
                if (enough or not (self.under_way or self._may_submit())) and not self._add_new():
                    break
                if self.scores and self._is_cycle():
                    self._score()

    @contextlib.contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Have threads that fetch; on Ctrl-C or an error what is under way is left alone."""
        pool = ThreadPoolExecutor(self.plan.threads, thread_name_prefix="fetch")
        try:
            yield pool
        except BaseException:
            self.client.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        pool.shutdown(wait=True)

    def _limited(self) -> bool:
        return self.plan.most_per_run is not None and self.submitted >= self.plan.most_per_run

    def _open_sources(self) -> list[str]:
        """Return the sources of which something waits and whose host is not left alone."""
        return [name for name, count in sorted(self.left.items()) if count > 0 and not self._is_down(name)]

    def _is_down(self, name: str) -> bool:
        service = self.intakes[name].plan.service
        return service is not None and self.client.is_down(host_of(service.base_url))

    def _may_submit(self) -> bool:
        return not self.full and not self._limited() and bool(self._open_sources())

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        """Put as many items under way as may wait for the atlas at a time."""
        room = 2 * self.plan.batch + 2 * self.plan.threads - len(self.under_way) - self.jobs.unbatched()
        if self.plan.most_per_run is not None:
            room = min(room, self.plan.most_per_run - self.submitted)
        while room > 0 and self._may_submit():
            self._new_round()
            names = [each for each in self._open_sources() if self.quota.get(each)]
            if not names:
                continue  # none of them got a share of this round
            name = max(names, key=lambda each: self.quota[each] / self.shared[each])
            count = min(self.quota[name], room, AT_ONCE)
            items = self.jobs.next_items(name, count, after=self.after.get(name, 0))
            self.quota[name] -= count
            fresh = self._new_ones(items)
            if len(items) < count:
                self.left[name] = self.quota[name] = 0
            for one in fresh:
                folder, there = self.plan.workspace / PICTURES, self.there.pop(one.number, None)
                future = pool.submit(self.intakes[name].fetch, one, self.client, folder, there)
                self.under_way.add(future)
                future.add_done_callback(self.results.put)
                room, self.submitted = room - 1, self.submitted + 1

    def _new_round(self) -> None:
        """Share the next requests among the sources that have any, by their verified yields."""
        names = self._open_sources()
        if any(self.quota.get(name) for name in names):
            return
        counts = report.verified(self.jobs, shares.read_verdicts(self.plan.verdicts))
        yields = {name: (counts.get(name, {}).get("yes", 0), counts.get(name, {}).get("no", 0)) for name in names}
        self.rounds += 1
        seed = (self.plan.seed, self.jobs.run, self.rounds)
        self.shared = shares.allocate(yields, ROUND, least=self.plan.least_share, seed=seed)
        self.quota = dict(self.shared)
        if len(names) > 1 and self.rounds == 1:
            text = ", ".join(f"{name} {count} of {ROUND}" for name, count in self.quota.items())
            self.jobs.event("shares", f"requests of the first round: {text}")

    def _new_ones(self, items: list[Item]) -> list[Item]:
        """Return the items that are not at the position of one that was taken; the others are kept as duplicates."""
        if not items:
            return []
        self.after[items[0].source] = items[-1].number
        self.left[items[0].source] -= len(items)
        twins = self.jobs.twins(items, [None] * len(items))
        self.jobs.skip(twins)
        return [one for one in items if one.number not in twins]

    def _collect(self) -> None:
        """Record what has arrived; wait a moment where nothing has."""
        done: list[Fetched] = []
        wait = bool(self.under_way)
        while len(done) < RECORDED_AT_ONCE:
            try:
                future = self.results.get(timeout=COLLECT_SECONDS if wait else 0)
            except queue.Empty:
                break
            self.under_way.discard(future)
            done.append(future.result())
            wait = bool(self.under_way) and len(done) < 32
        if not done:
            return
        if unwritten := [one for one in done if one.unwritten]:
            self._fill(
                f"{len(unwritten)} pictures could not be kept: {unwritten[0].reason}; make room, then run it again"
            )
        twins = self.jobs.record(done)
        for one in done:
            if one.item.number in twins:
                (self.plan.workspace / PICTURES / f"{stem_of(one.item.object_id)}{one.suffix}").unlink()
        self.progress(self.submitted - len(self.under_way), self.submitted + sum(self.left.values()), "fetching")

    # ---- the atlas

    def _add_new(self) -> bool:
        """Make a batch of what has arrived and add it; say whether there was any."""
        batch = self.jobs.make_batch(self.plan.batch)
        if batch is None:
            return False
        self._add(batch)
        self._check_room()
        return True

    def _add(self, batch: int) -> None:
        """Put the pictures of a batch into the atlas, which takes all of them at once or none."""
        rows = self.jobs.of_batch(batch)
        if not rows:
            return
        folder = self._folder(batch)
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for one in rows:
            path = self._picture(one)
            if path.exists():
                path.replace(folder / PICTURES / path.name)
        formats.write_table(self._table(rows, batch), folder / "rows.parquet")
        rejected = self._into_atlas(folder)
        self.jobs.added(batch, rejected)
        if not self.plan.keep_pictures:
            shutil.rmtree(folder)

    def _into_atlas(self, folder: Path) -> dict[str, str]:
        """Add the pictures of a folder; return why some were left out, by object_id."""
        options: dict[str, Any] = {"images": folder / PICTURES, "table": folder / "rows.parquet"}
        options |= {"models": self.plan.models, "measure": self.plan.measure, "processes": self.processes}
        if self.plan.atlas.exists():
            made = ingest.add(self.plan.atlas, **options)
        else:
            try:
                made = ingest.build(self.plan.atlas, title=self.plan.title, **options)
            except SchemaError as error:  # none of the first pictures can be used, and an empty atlas is none
                self.jobs.event("error", f"of the first batch nothing could be taken: {error}")
                return dict.fromkeys(
                    formats.read_table(folder / "rows.parquet")["object_id"].to_pylist(), str(error)[:300]
                )
        return {item["object_id"]: item["reason"] for item in made.rejected if item["object_id"] is not None}

    def _table(self, rows: list[dict[str, Any]], batch: int) -> pa.Table:
        """Return the rows of a batch as the atlas takes them; every batch has the same columns of the same types."""
        text, number = pa.string(), pa.float64()
        columns = {
            "object_id": pa.array([one["object_id"] for one in rows], text),
            "ra": pa.array([one["ra"] for one in rows], number),
            "dec": pa.array([one["dec"] for one in rows], number),
            "file": pa.array([self._picture(one).name for one in rows], text),
            "watch_source": pa.array([one["source"] for one in rows], text),
            "watch_item": pa.array([one["item"] for one in rows], text),
            "watch_batch": pa.array([batch] * len(rows), pa.int64()),
        }
        facts = [report.facts_of(one["facts"]) for one in rows]
        for name, kind in self.types.items():
            columns[name] = pa.array([each.get(name) for each in facts], kind)
        return pa.table(columns)

    def _check_room(self) -> None:
        """Stop fetching where the disk, or what the plan allows of it, is used up."""
        free = shutil.disk_usage(self.plan.workspace).free
        used = report.size_of(self.plan.workspace)
        if free < self.plan.free_gb * GB or used > self.plan.disk_gb * GB:
            self._fill(
                f"{free / GB:.2f} GB are free and the workspace takes {used / GB:.2f} GB; "
                f"the plan wants free_gb = {self.plan.free_gb:g} and disk_gb = {self.plan.disk_gb:g}: nothing "
                "more is fetched until there is room"
            )

    def _fill(self, why: str) -> None:
        """Keep that the disk takes nothing more: fetching ends, and the run says so."""
        if not self.full:
            self.full = True
            self.jobs.event("error", why)
            self.troubles.append(why)

    def unfinished(self) -> list[str]:
        """Return why the run did less than the plan says, a sentence each; a limit of the plan is no such reason."""
        told = list(self.troubles)
        for name, count in sorted(self.jobs.waiting().items()):
            if name in self.intakes and self._is_down(name):
                host = host_of(self.intakes[name].plan.service.base_url)  # type: ignore[union-attr]  # it is down
                last = self.client.health[host].last_error
                told.append(
                    f"{count} item{'s' * (count != 1)} of '{name}' wait: {host} failed again and again and was left "
                    f"alone (last: {last}); run the same command when it answers"
                )
        return told

    # ---- scores

    def _unscored(self) -> int:
        return self.jobs.value("SELECT count(*) FROM items WHERE state = 'added'")

    def _is_cycle(self) -> bool:
        """Say whether enough came in to be scored: a list costs as much as all that it is compared with."""
        scored = self.jobs.value("SELECT count(*) FROM items WHERE state = 'scored'")
        return self._unscored() >= max(self.plan.cycle, scored)

    def _score(self) -> None:
        """Judge what came in beside all that is known, keep the p-values, and queue the oddest for people."""
        first, last = self.jobs.rows("SELECT min(batch), max(batch) FROM items WHERE state = 'added'")[0]
        if first is None:
            return
        condition = f"watch_batch BETWEEN {first} AND {last}"
        with self.jobs.changing() as connection:
            connection.execute("DELETE FROM scorings WHERE state <> 'done'")
            connection.execute(
                "INSERT INTO scorings VALUES (?, ?, ?, 'begun', NULL, ?, NULL, NULL, NULL)",
                [first, last, condition, time.time()],
            )
        try:
            with open_atlas(self.plan.atlas) as atlas:
                result = atlas.anomalies(
                    self.plan.budget,
                    where=condition,
                    normals=self.plan.normals,
                    detectors=self.plan.detectors,
                    seed=self.plan.seed,
                    progress=self.progress,
                )
                tested, candidates = result.tested, result.candidates
                run = save_anomalies(result)
        except GalsearchError as error:
            self.jobs.event("note", f"{self._unscored()} objects are not scored: {error}")
            self.scores = False
            return
        self._take_run(run, condition, tested=tested, candidates=candidates)

    def _follow_scorings(self) -> None:
        """Take up lists of ours that were saved in the atlas and are not recorded here."""
        if not self.plan.atlas.exists():
            return
        known = {row[0] for row in self.jobs.rows("SELECT run FROM scorings WHERE state = 'done'")}
        with open_atlas(self.plan.atlas) as atlas:
            records = [one["parameters"] for one in atlas.manifest.provenance if one.get("action") == "anomalies"]
        for one in records:
            condition, run = str(one.get("where")), one.get("run")
            if run not in known and OURS.fullmatch(condition):
                self.jobs.event("recovered", f"the list {run} was saved and not recorded")
                self._take_run(run, condition, tested=None, candidates=None)

    def _take_run(self, run: str, condition: str, *, tested: int | None, candidates: int | None) -> None:
        """Queue the objects of a saved list and keep that they were scored, all at once."""
        with open_atlas(self.plan.atlas) as atlas:
            table = _saved(atlas, run, self.plan.fdr)
        listed = [row for row in table.to_pylist() if row["nearest"] is not None]
        tested = len(table) if tested is None else tested
        if candidates is None:
            candidates = table["tier"].to_pylist().count("candidate")
        with self.jobs.changing() as connection:
            connection.execute("DELETE FROM queue WHERE run = ?", [run])
            now = time.time()
            for row in listed:
                reasons = "; ".join(row["odd_columns"] or ())
                values = [row[name] for name in ("object_id",)] + [run]
                values += [row[name] for name in ("p_value", "q_value", "score", "tier", "detector")] + [reasons, now]
                connection.execute("INSERT INTO queue VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            first, last = map(int, OURS.fullmatch(condition).groups())  # type: ignore[union-attr]  # it is ours
            connection.execute("DELETE FROM scorings WHERE condition = ? AND state = 'begun'", [condition])
            connection.execute(
                "INSERT INTO scorings VALUES (?, ?, ?, 'done', ?, ?, ?, ?, NULL)",
                [first, last, condition, run, now, tested, candidates],
            )
            connection.register("judged", table.select(["object_id"]))
            connection.execute(
                "UPDATE items SET state = ?, changed = ? FROM judged WHERE items.object_id = judged.object_id AND "
                "items.state = 'added'",
                [SCORED, now],
            )
            connection.unregister("judged")
            connection.execute(
                "UPDATE items SET state = ?, changed = ?, reason = 'not judged: it is one of the normals, or has "
                "no vector' "
                f"WHERE state = 'added' AND ({condition.replace('watch_batch', 'batch')})",
                [SCORED, now],
            )


def _saved(atlas: Atlas, run: str, fdr: float) -> pa.Table:
    return atlas.saved_anomalies(run, fdr=fdr)
