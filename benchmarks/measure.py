"""What is measured and how: the true neighbors, recall, times, memory of a process, files dropped from memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

THREADS = 2
LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS")
BLOCK_ROWS = 65_536
PACE_ROWS, PACE_RUNS = 65_536, 15
MIB = 2**20


# ---- truth


def nearest(
    vectors: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    passing: Callable[[int, slice], np.ndarray] | None = None,
) -> np.ndarray:
    """Return the rows of the k largest inner products with each query, best first, `(q, k) int64`; -1 where none is.

    All are compared, a block at a time. `passing(i, block)` says which rows of a block query i may find. Equal products
    are ordered by row.
    """
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = slice(start, min(start + BLOCK_ROWS, len(vectors)))
        found = queries @ np.asarray(vectors[block]).T
        if passing is not None:
            for place, mine in enumerate(found):
                mine[~passing(place, block)] = -np.inf
        numbers = np.where(np.isfinite(found), np.arange(block.start, block.stop), -1)
        scores, rows = _best(np.hstack([scores, found]), np.hstack([rows, numbers]), k)
    return rows


def _best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    if scores.shape[1] > k:
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def recall(found: Sequence[np.ndarray], truth: np.ndarray, *, k: int) -> float:
    """Return the mean share of each query's k true rows that were found among its first k.

    Where fewer than k rows match (-1 in `truth`), the share is of those; a query without any match does not count.
    """
    shares = []
    for mine, best in zip(found, truth, strict=True):
        wanted = best[:k][best[:k] >= 0]
        if len(wanted):
            shares.append(np.isin(wanted, np.asarray(mine)[:k]).mean())
    return float(np.mean(shares)) if shares else float("nan")


# ---- times


@dataclass
class Run:
    """The answers to some queries: `rows` found, `milliseconds` of each, and of that, those of evaluating a cut."""

    rows: list[np.ndarray] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    cut_milliseconds: list[float] = field(default_factory=list)

    def summary(self) -> dict:
        """Return queries, median_ms and p95_ms, and cut_ms, the median spent on evaluating the cut beforehand."""
        cut = {"cut_ms": round(float(np.median(self.cut_milliseconds)), 4)} if self.cut_milliseconds else {}
        return {
            "queries": len(self.milliseconds),
            "median_ms": round(float(np.median(self.milliseconds)), 4),
            "p95_ms": round(float(np.percentile(self.milliseconds, 95)), 4),
            **cut,
        }


def within(count: int, *, seconds: float, least: int) -> Iterator[int]:
    """Yield 0 to count - 1, stopping early after `seconds`, but not before `least` were given."""
    started = time.perf_counter()
    for number in range(count):
        if number >= least and time.perf_counter() - started > seconds:
            return
        yield number


def time_at_recall(points: Sequence[dict], wanted: float) -> float | None:
    """Return the milliseconds at which a curve reaches a recall; None when it never does.

    `points` have recall and median_ms. Between two of them the logarithm of the time is linear in log(1 - recall). A
    curve that begins above the wanted recall gives its first time: less effort was not measured.
    """
    lower = None
    for upper in frontier(points):
        if upper["recall"] >= wanted:
            return upper["median_ms"] if lower is None else _between(lower, upper, wanted)
        lower = upper
    return None


def frontier(points: Sequence[dict]) -> list[dict]:
    """Return the points that no other beats in both recall and median_ms, in rising order."""
    kept: list[dict] = []
    for point in sorted(points, key=lambda p: (-p["recall"], p["median_ms"])):
        if not kept or point["median_ms"] < kept[-1]["median_ms"]:
            kept.append(point)
    return kept[::-1]


def _between(lower: dict, upper: dict, wanted: float) -> float:
    first, last = _deficit(lower["recall"]), _deficit(upper["recall"])
    share = (first - _deficit(wanted)) / (first - last)
    return float(np.exp((1 - share) * np.log(lower["median_ms"]) + share * np.log(upper["median_ms"])))


def _deficit(found: float) -> float:
    return float(np.log(max(1 - found, 1e-4)))


def pace() -> float:
    """Return the median milliseconds of one fixed piece of arithmetic, by which a slow hour is told from slow code."""
    vectors = np.random.default_rng(0).random((PACE_ROWS, 256), dtype=np.float32)
    spent = []
    for _ in range(PACE_RUNS):
        started = time.perf_counter()
        vectors @ vectors[0]
        spent.append((time.perf_counter() - started) * 1e3)
    return float(np.median(spent))


# ---- processes


def few_threads() -> dict[str, str]:
    """Return the environment in which every engine has THREADS threads, and Lance reports nothing but errors."""
    return {**os.environ, **dict.fromkeys(LIMITS, str(THREADS)), "LANCE_LOG": "error"}


def use_few_cores() -> None:
    """Keep this process, and what it starts, on THREADS cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])


def memory_mib() -> dict[str, float]:
    """Return this process's peak_mib (all resident memory, mapped files included), rss_mib and anonymous_mib now.

    The peak is VmHWM: ru_maxrss would also count what the parent held when it forked.
    """
    text = Path("/proc/self/status").read_text()
    values = dict(line.split(":", 1) for line in text.splitlines())
    fields = {"peak_mib": "VmHWM", "rss_mib": "VmRSS", "anonymous_mib": "RssAnon"}
    return {name: int(values[key].split()[0]) * 1024 / MIB for name, key in fields.items()}


@contextlib.contextmanager
def peak(look: Callable[[], float], every_seconds: float = 0.002) -> Iterator[list[float]]:
    """Give a list of one number: the largest that `look` has returned inside, called every `every_seconds`."""
    most, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(every_seconds):
            most[0] = max(most[0], look())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


@contextlib.contextmanager
def peak_anonymous(every_seconds: float = 0.002) -> Iterator[dict[str, float]]:
    """Give a dict that holds the largest `anonymous_mib` seen inside, read every `every_seconds`."""
    seen = {"anonymous_mib": 0.0}
    with peak(lambda: memory_mib()["anonymous_mib"], every_seconds) as most:
        try:
            yield seen
        finally:
            seen["anonymous_mib"] = max(most[0], memory_mib()["anonymous_mib"])


def files_of(path: Path) -> list[Path]:
    """Return the file, or every file under the folder."""
    return [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())


def size_of(path: Path) -> int:
    """Return the bytes of a file or of all files under a folder."""
    return sum(item.stat().st_size for item in files_of(path))


def drop_from_memory(path: Path) -> None:
    """Ask the system to forget what it keeps in memory of the files at `path`; they are written out first."""
    for item in files_of(path):
        descriptor = os.open(item, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_bytes() -> int:
    """Return the bytes that this process has made the disk read so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])
