"""The status of a watch, read from a copy of its records: a run that is under way is neither disturbed nor kept out."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from galsearch.discovery.verdicts import Verdict
from galsearch.discovery.watch import report, shares
from galsearch.discovery.watch.jobs import FILE, Jobs
from galsearch.discovery.watch.plan import Plan, read_plan
from galsearch.errors import GalsearchError

COPY_TRIES = 5
PAUSE_SECONDS = 0.2
MOST_PLANS = 50  # beside a workspace, that are looked into for its own


@dataclass(frozen=True)
class WatchStatus:
    """What a watch has come to; `numbers` are those of a report, as of now.

    `plan` is None where a workspace was given and no plan beside it names it: then sources have no kind, and yields
    none but those of the last report. `report` is the HTML of the last report, None before the first. `unended` says
    that the last run is under way, or was killed. `changed` is when the records changed, in seconds since 1970.
    """

    plan: Path | None
    workspace: Path
    atlas: Path
    report: Path | None
    unended: bool
    changed: float
    numbers: dict[str, Any]

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables of the report by title, all of texts: counts, shares, yields, reasons, hosts, runs, events."""
        return {
            title: pa.table({name: pa.array([row[at] for row in rows], pa.string()) for at, name in enumerate(head)})
            for title, head, rows in report.tables(self.numbers)
        }

    @property
    def queue(self) -> list[dict[str, Any]]:
        """What is listed and that people have not decided on, the least p-value first."""
        return list(self.numbers["queue"])


def watch_status(path: str | Path) -> WatchStatus:
    """Return what a watch has come to; `path` is its plan, or its workspace. Nothing is written, and nothing is locked.

    The records are copied and the copy is read, so that it may be called at any time, also while the watch runs.
    Raises GalsearchError for a plan that is wrong, a workspace that is none, and records that are damaged.
    """
    path = Path(path)
    plan, workspace, is_stated = _plan_of(path)
    if not (workspace / FILE).is_file():
        raise GalsearchError(
            f"{workspace}: nothing was watched there yet, since it has no {FILE}; give a plan or the workspace of a "
            "watch that has run"
        )
    verdicts = shares.read_verdicts(plan.verdicts)
    changed = (workspace / FILE).stat().st_mtime
    try:
        with _copied(workspace / FILE) as copy:
            numbers, unended = _read(plan, copy, verdicts)
    except OSError as error:
        raise GalsearchError(f"{workspace}: not readable ({_first_line(error)}); look again") from None
    numbers |= {"number": None, "changed": None}
    if not is_stated:
        for one in numbers["sources"].values():
            one["kind"] = None
    latest = workspace / report.FOLDER / "latest.html"
    shown = plan.path if is_stated else None
    return WatchStatus(shown, workspace, plan.atlas, latest if latest.is_file() else None, unended, changed, numbers)


def _read(plan: Plan, copy: Path, verdicts: list[Verdict]) -> tuple[dict[str, Any], bool]:
    """Return the numbers of a report, and whether the last run has not ended."""
    try:
        with contextlib.closing(Jobs(copy, same_arcsec=plan.same_arcsec, read_only=True)) as jobs:
            last = jobs.rows("SELECT ended FROM runs ORDER BY number DESC LIMIT 1")
            return report.numbers_of(plan, jobs, verdicts), bool(last) and last[0][0] is None
    except (GalsearchError, duckdb.Error, ValueError, KeyError, TypeError) as error:
        file = plan.workspace / FILE
        what = _first_line(error).replace(str(copy), file.name)
        raise GalsearchError(
            f"{file}: is damaged, or no file of a watch ({what}); move it away, and the next run makes it again from "
            "the atlas"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _plan_of(path: Path) -> tuple[Plan, Path, bool]:
    """Return the plan, the workspace, and whether the plan is a stated one: a workspace may have lost its own."""
    if not path.is_dir():
        plan = read_plan(path)
        return plan, plan.workspace, True
    for beside in sorted(path.absolute().parent.glob("*.toml"))[:MOST_PLANS]:
        try:
            plan = read_plan(beside)
        except GalsearchError:
            continue
        if plan.workspace.resolve() == path.resolve():
            return plan, plan.workspace, True
    return Plan(path / "plan.toml", path.stem, path, path / "sky.atlas", ()), path, False


@contextlib.contextmanager
def _copied(file: Path) -> Iterator[Path]:
    """Give a copy of a DuckDB file, with what it has not taken in yet, as both were at one moment."""
    parts = (file, file.with_name(file.name + ".wal"))
    with tempfile.TemporaryDirectory(prefix="galsearch-status-") as folder:
        for _ in range(COPY_TRIES):
            before = _states(parts)
            for part in parts:
                copy = Path(folder) / part.name
                copy.unlink(missing_ok=True)
                if part.exists():
                    shutil.copyfile(part, copy)
            if _states(parts) == before:
                yield Path(folder) / file.name
                return
            time.sleep(PAUSE_SECONDS)
    raise GalsearchError(f"{file} is written at this moment; look again")


def _states(parts: tuple[Path, ...]) -> list[tuple[int, int] | None]:
    """Return size and time of files, None for one that is not there."""
    result: list[tuple[int, int] | None] = []
    for part in parts:
        try:
            about = part.stat()
        except FileNotFoundError:
            result.append(None)
        else:
            result.append((about.st_size, about.st_mtime_ns))
    return result
