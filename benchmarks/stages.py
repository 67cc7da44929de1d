"""The stages of a search benchmark, each run in a process of its own by benchmarks.search.

Every line asks its queries once before it times them: what was read from disk, mapped into memory or put into an
engine's own buffers by then is the same for all; what the first question of a process costs is measured apart
(`first`). Under a cut the constant differs a little from query to query and from line to line, so that nobody is served
by a cache. Engines that take row numbers are charged `SELECT rowid FROM galaxies WHERE …` by DuckDB on the bundle,
fetched to numpy; bringing those to the row numbers of the peers, which have the order of the table, is not charged.
"""

from __future__ import annotations

import functools
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from benchmarks import measure
from benchmarks.measure import THREADS, Run, within
from benchmarks.peers import ENGINES, Effort, Engine, Place
from benchmarks.vectors import KINDS, cut_columns, queries, row_numbers, write

SHARES = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
COLUMNS = ("u", "c")
DEPTHS = (10, 100)  # k of the searches without a cut; those under one have the first
ENOUGH = 0.98  # recall@10 at which an engine need not try harder
WARM_UP = 3
WARM_UP_SECONDS = 20.0  # a first pass reads from disk, and what it does not reach would be timed doing so
WARM_UP_NUMBER = 10_000  # its cuts are those of queries that are never asked
LEAST = 10  # queries of every line, however slow the engine
FIRST_RUNS = 11

Cut = tuple[str, float]  # a column and the share of the rows that is to pass


@dataclass(frozen=True)
class Settings:
    """How much to ask: queries of a line, the seconds after which it has enough of them, the cuts."""

    queries: int = 200
    queries_under_cut: int = 100
    seconds: float = 10.0
    shares: tuple[float, ...] = SHARES

    def cuts(self) -> Iterator[Cut]:
        """Yield each column with each share."""
        yield from ((column, share) for column in COLUMNS for share in self.shares)


def run_stage(place: Place, settings: Settings, name: str) -> dict:
    """Return the result of the stage `what` or `what:engine`.

    With it come the seconds it took, its memory at the peak, and the machine's pace before and after.
    """
    what, _, engine = name.partition(":")
    known: dict[str, Callable[..., dict]] = {"data": make_data, "truth": make_truth, "build": build}
    known |= {"unfiltered": unfiltered, "filtered": filtered, "first": first}
    before = measure.pace() if what in ("unfiltered", "filtered") else None  # its array would count as a build's memory
    started = time.perf_counter()
    result = known[what](place, settings, *([ENGINES[engine](place)] if engine else []))
    result["seconds"] = round(time.perf_counter() - started, 2)
    result["peak_mib"] = round(measure.memory_mib()["peak_mib"], 1)
    result["pace_ms"] = [round(value, 4) for value in (before, measure.pace()) if value is not None]
    return result


# ---- data and truth


def make_data(place: Place, settings: Settings) -> dict:
    """Write the table and the vectors."""
    write(place.spec, place.table, place.array)
    return {"table_bytes": place.table.stat().st_size, "array_bytes": place.array.stat().st_size}


def make_truth(place: Place, settings: Settings) -> dict:
    """Find the true neighbors of every query that is reported, with and without cuts, and keep them."""
    vectors, columns = place.vectors(), cut_columns(place.spec)
    kept: dict[str, np.ndarray] = {}
    for kind in KINDS:
        asked = queries(place.spec, vectors, settings.queries, kind=kind, purpose="report")
        kept[f"queries-{kind}"] = asked
        kept[f"tune-{kind}"] = queries(place.spec, vectors, min(50, place.spec.rows), kind=kind, purpose="tune")
        kept[_truth(kind)] = measure.nearest(vectors, asked, k=max(DEPTHS))
        few = asked[: settings.queries_under_cut]
        for cut in settings.cuts():
            passing = functools.partial(_passing, columns[cut[0]], cut[1])
            kept[_truth(kind, cut)] = measure.nearest(vectors, few, k=DEPTHS[0], passing=passing)
    for cut in settings.cuts():
        limits = [constant(cut[1], number) for number in range(settings.queries_under_cut)]
        kept[_matches(cut)] = np.searchsorted(np.sort(columns[cut[0]]), limits)
    np.savez(place.root / "truth.npz", **kept)
    np.save(place.root / "first.npy", kept[f"queries-{KINDS[-1]}"][0])
    return {}


def _truth(kind: str, cut: Cut | None = None) -> str:
    return f"truth-{kind}" + (f"-{cut[0]}-{cut[1]:g}" if cut else "")


def _matches(cut: Cut) -> str:
    return f"matches-{cut[0]}-{cut[1]:g}"


def constant(share: float, number: int) -> float:
    """Return the limit of the cut of query `number`: a little above the share, another one for each query."""
    return share * (1 + 1e-6 * number)


def condition(cut: Cut, number: int, line: int) -> str:
    """Return the cut of query `number` as SQL; `line` changes its text, and by less than the columns resolve."""
    return f"{cut[0]} < {constant(cut[1], number) + 1e-13 * line!r}"


def _passing(values: np.ndarray, share: float, number: int, block: slice) -> np.ndarray:
    return values[block] < constant(share, number)


# ---- builds


def build(place: Place, settings: Settings, engine: Engine) -> dict:
    """Build one engine's index from nothing; `seconds` and `peak_mib` of the stage are those of the build."""
    if engine.path.is_dir():
        shutil.rmtree(engine.path)
    engine.path.parent.mkdir(parents=True, exist_ok=True)
    engine.build()
    return {"bytes": engine.bytes_on_disk()}


# ---- asking


def unfiltered(place: Place, settings: Settings, engine: Engine) -> dict:
    """Ask one engine without cuts, at every effort."""
    asking = Asking.of(engine, settings)
    lines = [
        {"kind": kind, "k": k} | asking.line(kind, k=k, effort=effort)
        for kind in KINDS
        for k in DEPTHS
        for effort in engine.ladder(under_cut=False)
    ]
    return {"lines": lines}


def filtered(place: Place, settings: Settings, engine: Engine) -> dict:
    """Ask one engine under every cut, trying harder until its recall is ENOUGH."""
    asking, lines = Asking.of(engine, settings), []
    for kind in KINDS:
        for cut in settings.cuts():
            for effort in engine.ladder(under_cut=True):
                line = asking.line(kind, k=DEPTHS[0], effort=effort, cut=cut, number=len(lines))
                lines.append({"kind": kind, "column": cut[0], "share": cut[1], **line})
                if line["recall"] is None or (isinstance(effort, int) and line["recall"] >= ENOUGH):
                    break
    return {"lines": lines}


class Cuts:
    """DuckDB evaluating cuts on the bundle, for engines that take the row numbers which pass."""

    def __init__(self, place: Place) -> None:
        self.connection = duckdb.connect(place.bundle, read_only=True, config={"threads": THREADS})
        ids = self.connection.execute("SELECT object_id FROM galaxies ORDER BY rowid").fetchnumpy()["object_id"]
        self.row_of = row_numbers(ids.tolist())

    def evaluate(self, where: str) -> np.ndarray:
        """Return the row numbers of the bundle that pass, got as galsearch gets them: execute() with fetchnumpy() takes
        a tenth less time where few pass and twice the time where most do."""
        return self.connection.sql(f"SELECT rowid FROM galaxies WHERE {where}").to_arrow_table()["rowid"].to_numpy()

    def rows(self, passing: np.ndarray) -> np.ndarray:
        """Return the same rows as the table numbers them, sorted."""
        return np.sort(self.row_of[passing])


@dataclass(frozen=True)
class Asking:
    """One engine, open and tuned, with the questions and the true answers."""

    engine: Engine
    known: dict[str, np.ndarray]
    settings: Settings
    cuts: Cuts | None

    @classmethod
    def of(cls, engine: Engine, settings: Settings) -> Asking:
        """Open and tune `engine`."""
        with np.load(engine.place.root / "truth.npz") as file:
            known = dict(file)
        engine.open()
        engine.tune(known["tune-like"])
        return cls(engine, known, settings, Cuts(engine.place) if engine.cuts == "rows" else None)

    def line(self, kind: str, *, k: int, effort: Effort, cut: Cut | None = None, number: int = 0) -> dict:
        """Ask the queries of one kind at one effort; return recall and times, and under a cut `short`.

        `short` counts the answers of fewer than min(k, matches) rows; `number` is that of the line, for its cuts.
        """
        run, paths = Run(), Counter()
        asked = self.known[f"queries-{kind}"]
        count = min(self.settings.queries_under_cut if cut else self.settings.queries, len(asked))
        for query in within(count, seconds=WARM_UP_SECONDS, least=WARM_UP):
            self._ask(Run(), asked[query], k, effort, cut and condition(cut, WARM_UP_NUMBER + query, number))
        for query in within(count, seconds=self.settings.seconds, least=LEAST):
            self._ask(run, asked[query], k, effort, cut and condition(cut, query, number))
            paths[self.engine.note] += 1
        truth = self.known[_truth(kind, cut)][: len(run.rows)]
        found = measure.recall(run.rows, truth, k=k)
        line = {"effort": effort, "recall": None if np.isnan(found) else round(found, 4), **run.summary()}
        said = ", ".join(f"{path} {times}" for path, times in paths.items() if path)
        line |= {"paths": said} if said else {}
        return line | ({"short": self._short(run, k, cut)} if cut else {})

    def _short(self, run: Run, k: int, cut: Cut) -> int:
        matches = self.known[_matches(cut)]
        return sum(len(rows) < min(k, int(matches[query])) for query, rows in enumerate(run.rows))

    def _ask(self, run: Run, query: np.ndarray, k: int, effort: Effort, where: str | None) -> None:
        cut, spent = where, 0.0
        if where is not None and self.cuts is not None:
            started = time.perf_counter()
            passing = self.cuts.evaluate(where)
            spent = (time.perf_counter() - started) * 1e3
            run.cut_milliseconds.append(spent)
            cut = self.cuts.rows(passing)
        started = time.perf_counter()
        found = self.engine.search(query, k=k, cut=cut, effort=effort)
        run.milliseconds.append((time.perf_counter() - started) * 1e3 + spent)
        run.rows.append(self.engine.numbers(found))


# ---- the first questions of a process


def first(place: Place, settings: Settings, engine: Engine) -> dict:
    """Open an atlas and ask once in fresh processes, its files in memory or not; then watch the memory of more."""
    measure.drop_from_memory(engine.path)  # writes out what a build may have left in memory
    cold, warm = [], []
    for _ in range(FIRST_RUNS):
        measure.drop_from_memory(engine.path)
        cold.append(_fresh(place, engine.path, "unfiltered"))
        warm.append(_fresh(place, engine.path, "unfiltered"))
    steps = ("unfiltered", condition(("c", 0.01), 0, 0), "exact")
    memory = {
        name: _fresh(place, engine.path, *taken, "--memory")
        for name, taken in (("unfiltered", steps[:1]), ("filtered", steps[1:2]), ("exact", steps[2:]), ("all", steps))
    }
    kept = ("peak_mib", "anonymous_mib")
    return {
        "cold": _medians(cold),
        "warm": _medians(warm),
        "memory": {name: {key: round(found[key], 1) for key in kept} for name, found in memory.items()},
    }


def _fresh(place: Place, path: Path, *steps: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.first", str(path), str(place.root / "first.npy"), *steps]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
