"""Objects made ready for an atlas by worker processes: in order, a bounded number under way, none costing another.

A `Job` is one object that is not read yet, a `Craft` what is done with it: for pictures in `sources.pictures`, for
spectra in `sources.spectra.source`. What ends the process that reads it is left out as anything else that is bad.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from galsearch.errors import GalsearchError, LimitError, SchemaError
from galsearch.workers import Limits, Pool, cores

LEVELS = ("none", "basic", "full")  # how much is measured: nothing, all but the form of a picture, all


@dataclass(frozen=True)
class Workshop:
    """How objects are prepared: how much is measured, and by how many processes.

    `processes` is all cores unless said; 0 is this process alone, which also does fewer than `least_rows` objects: to
    start others takes as long as those. `group_rows` objects go to a process at once, and the results of `ahead_rows`
    wait at most. `limits` are those of one group; an object that goes beyond them alone is left out.
    """

    measure: str = "full"
    processes: int | None = None
    least_rows: int = 64
    group_rows: int = 8
    ahead_rows: int = 768
    limits: Limits = field(
        default_factory=lambda: Limits(
            seconds=600, cpu_seconds=600, contested_seconds=600, wait_seconds=600, memory_bytes=6 << 30, spare=0
        )
    )

    def __post_init__(self) -> None:
        check_level(self.measure)
        if self.processes is not None and self.processes < 0:
            raise GalsearchError(f"processes is {self.processes}; give 0 for none beside this one, or how many")

    def processes_for(self, rows: int) -> int:
        """Return how many processes prepare so many objects; 0 for this one alone."""
        if self.processes is not None:
            return self.processes
        return 0 if rows < self.least_rows else cores()


def check_level(measure: str) -> None:
    """Raise SchemaError unless it says how much is measured."""
    if measure not in LEVELS:
        raise SchemaError(f"measure {measure!r} is not known; give one of {', '.join(LEVELS)}")


@dataclass(frozen=True)
class Job:
    """One object to prepare: what is known of it as `facts` that JSON can hold, and bytes."""

    content: bytes
    facts: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """What an atlas keeps of an object: what an encoder takes, columns, notes, and what else is stored by table.

    `problem` says why there is nothing.
    """

    content: np.ndarray | None
    columns: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Craft:
    """What is done with jobs: `work` in a worker process that `ready` prepared, and how its answer is taken apart.

    Both are public functions of a module, as `workers.Pool` takes them; `work` gets the jobs' contents joined, `jobs`
    (the facts of each and the length of its content) and the `options`. `unpacked` yields a `Prepared` for each job.
    """

    work: Callable[..., tuple[dict, bytes]]
    ready: Callable[[bytes], tuple[dict, bytes]]
    options: dict[str, Any]
    unpacked: Callable[[dict, bytes], Iterator[Prepared]]


def contents(payload: bytes, jobs: list[dict[str, Any]]) -> Iterator[Job]:
    """Yield the jobs again whose contents were joined."""
    start = 0
    for each in jobs:
        yield Job(payload[start : start + each["bytes"]], each["facts"])
        start += each["bytes"]


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return columns as JSON can hold them."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def prepare_all(
    jobs: Iterable[Callable[[], Job]], craft: Craft, workshop: Workshop, *, rows: int
) -> Generator[Prepared, None, None]:
    """Yield what becomes of each of `rows` jobs, in order; a job that raises SchemaError, or whose object does, has a
    `problem`.

    The jobs are made one after another, by whatever thread needs the next ones.
    """
    processes = workshop.processes_for(rows)
    source = iter(jobs)
    groups = iter(lambda: list(itertools.islice(source, workshop.group_rows)), [])
    if not processes:
        for group in groups:
            yield from _prepare_group([_made(each) for each in group], craft, None)
        return
    with ExitStack() as stack:
        pool = Pool(replace(workshop.limits, processes=processes), prepare=(_task(craft.ready), {}))
        made = ([_made(each) for each in group] for group in groups)
        ahead = max(2 * processes, workshop.ahead_rows // workshop.group_rows)
        results = in_order(made, lambda group: _prepare_group(group, craft, pool), threads=processes, ahead=ahead)
        stack.callback(results.close)
        stack.callback(pool.close)  # first: whoever waits for a process stops waiting
        for result in results:
            yield from result


def _task(function: Callable[..., tuple[dict, bytes]]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _made(job: Callable[[], Job]) -> Job | SchemaError:
    try:
        return job()
    except SchemaError as error:
        return error


def _prepare_group(group: list[Job | SchemaError], craft: Craft, pool: Pool | None) -> list[Prepared]:
    """Prepare a few objects; where their process dies, one after another, so that one of them costs no other."""
    jobs = [each for each in group if isinstance(each, Job)]
    done = iter(_prepare(jobs, craft, pool)) if jobs else iter(())
    return [next(done) if isinstance(each, Job) else Prepared(None, {}, problem=str(each)) for each in group]


def _prepare(jobs: list[Job], craft: Craft, pool: Pool | None) -> list[Prepared]:
    options = {**craft.options, "jobs": [{"facts": job.facts, "bytes": len(job.content)} for job in jobs]}
    payload = b"".join(job.content for job in jobs)
    if pool is None:
        return list(craft.unpacked(*craft.work(payload, **options)))
    try:
        return list(craft.unpacked(*pool.run(_task(craft.work), payload, title="reading it", **options)))
    except LimitError as error:
        if len(jobs) == 1:
            return [Prepared(None, {}, problem=str(error))]
    except GalsearchError as error:  # a mistake of ours; alone it can be named
        if len(jobs) == 1:
            raise GalsearchError(f"{jobs[0].facts.get('name', 'a cutout')}: {error}; please report it") from None
    return [each for job in jobs for each in _prepare([job], craft, pool)]


def in_order(
    groups: Iterator[Any], work: Callable[[Any], Any], *, threads: int, ahead: int
) -> Generator[Any, None, None]:
    """Yield work(group) for each group, in order, done by `threads` threads; at most `ahead` results wait to be taken.

    The threads take the groups one after another, each when it is free, so that reading ahead costs little memory.
    """
    lock, numbers = threading.Lock(), itertools.count()
    results: defaultdict[int, Future] = defaultdict(Future)

    def step() -> None:
        with lock:
            number = next(numbers)
            result = results[number]
            try:
                group = next(groups, None)
            except BaseException as error:  # noqa: BLE001  it is raised where the result is taken
                result.set_exception(error)
                return
        try:
            result.set_result(None if group is None else (work(group),))
        except BaseException as error:  # noqa: BLE001
            result.set_exception(error)

    executor = ThreadPoolExecutor(threads, thread_name_prefix="prepare objects")
    try:
        for _ in range(ahead):
            executor.submit(step)
        for number in itertools.count():
            with lock:
                result = results[number]
            done = result.result()
            if done is None:
                return
            executor.submit(step)
            del results[number]
            yield done[0]
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
