"""Pictures made ready for an atlas: decoded, rendered, measured and shrunk, on all cores.

A `Job` is one picture that is not read yet: a file, or pixels that were cut out of a mosaic. `prepared` turns jobs into
what an atlas keeps of them, and `prepare_all` has that done by worker processes, in order, with a bounded number of
pictures under way. A picture that ends the process which reads it is left out as any other bad picture is.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from galsearch.errors import GalsearchError, LimitError, SchemaError
from galsearch.science import detection, images, morphology
from galsearch.workers import Limits, Pool, cores

FORM = (*morphology.COLUMNS, "morphology_flag")  # of what lies in the center of a cutout; a detection has none
MEASURED = (
    *(name for name in detection.COLUMNS if not name.startswith("is_") and name not in ("x_px", "y_px")),
    *FORM,
)
LEVELS = ("none", "basic", "full")  # how much of a picture is measured: nothing, all but the form, all
TASK, READY = f"{__name__}:prepared", f"{__name__}:ready"


@dataclass(frozen=True)
class Workshop:
    """How pictures are prepared: how much is measured, the side of what an encoder takes, and by how many processes.

    `processes` is all cores unless said; 0 is this process alone, which also does fewer than `least_rows` pictures: to
    start others takes as long as those. `group_rows` pictures go to a process at once, and the results of `ahead_rows`
    wait at most. `limits` are those of one group; a picture that goes beyond them alone is left out.
    """

    measure: str = "full"
    size_px: int = 64
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
        """Return how many processes prepare so many pictures; 0 for this one alone."""
        if self.processes is not None:
            return self.processes
        return 0 if rows < self.least_rows else cores()


def check_level(measure: str) -> None:
    """Raise SchemaError unless it says how much is measured."""
    if measure not in LEVELS:
        raise SchemaError(f"measure {measure!r} is not known; give one of {', '.join(LEVELS)}")


@dataclass(frozen=True)
class Job:
    """One picture to prepare: the bytes of a file, the path of one, or the pixels of a cutout; `facts` say which."""

    content: bytes
    facts: dict[str, Any]

    @classmethod
    def of_file(cls, source: Path | bytes, *, name: str, ext: str | int | None, bands: tuple[str, ...] | None) -> Job:
        """Return the job of a picture file; `ext` and `bands` as `images.read_picture` has them."""
        facts = {"name": name, "ext": ext, "bands": None if bands is None else list(bands)}
        if isinstance(source, Path):
            return cls(b"", {**facts, "path": str(source.absolute())})
        return cls(bytes(source), facts)

    @classmethod
    def of_pixels(cls, rgb: np.ndarray, light: np.ndarray) -> Job:
        """Return the job of a cutout: how it looks `(h, w, 3) uint8`, and what is measured `(h, w[, b])`."""
        light = np.ascontiguousarray(light)
        facts = {"rgb": list(rgb.shape), "light": list(light.shape), "dtype": light.dtype.str}
        return cls(np.ascontiguousarray(rgb).tobytes() + light.tobytes(), facts)


@dataclass(frozen=True)
class Taken:
    """One accepted object: its picture `(h, w, 3) uint8`, the columns measured on it, and what is to be told of it."""

    picture: np.ndarray
    columns: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Prepared:
    """What an atlas keeps of a picture: what an encoder takes `(s, s, 3) uint8`, a thumbnail, columns and notes.

    `problem` says why there is none.
    """

    content: np.ndarray | None
    thumbnail: bytes | None
    columns: dict[str, Any]
    notes: list[str]
    problem: str | None = None


def take(job: Job, *, measure: str = "full") -> Taken:
    """Read, render and measure the picture of a job. SchemaError when it cannot be used."""
    return _take_pixels(job, measure) if "rgb" in job.facts else _take_file(job, measure)


def _take_file(job: Job, measure: str) -> Taken:
    facts, bands = job.facts, job.facts["bands"]
    source = Path(facts["path"]) if "path" in facts else job.content
    picture = images.read_picture(
        source, name=facts["name"], ext=facts["ext"], bands=None if bands is None else tuple(bands)
    )
    rgb = images.render(picture)
    measured: dict[str, Any] = {}
    if measure != "none":
        light = rgb if picture.stretched else images.red_first(picture)
        values = detection.measure(light, form=measure == "full")
        measured = {name: values[name] for name in MEASURED if name in values}
    radius = measured.get("radius_px")
    on_the_sky = _on_the_sky(picture, radius if isinstance(radius, float) else None)
    problem = picture.position_problem
    return Taken(rgb, {**measured, **on_the_sky}, [*picture.notes, *([f"no position: {problem}"] if problem else [])])


def _on_the_sky(picture: images.Picture, radius_px: float | None) -> dict[str, float]:
    """Return the position of the picture's center and the radius in arcsec, where the picture has a WCS."""
    height, width = picture.flux.shape[:2]
    position = picture.sky_position((width - 1) / 2, (height - 1) / 2)
    known = {}
    if position is not None:
        if not np.isfinite(position).all():
            raise SchemaError(
                f"{picture.name}: its WCS puts its center nowhere on the sky; mend it or remove its CTYPE"
            )
        known = {"ra": position[0], "dec": position[1]}
    scale = picture.pixel_arcsec
    return known if radius_px is None or scale is None else {**known, "radius_arcsec": radius_px * scale}


def _take_pixels(job: Job, measure: str) -> Taken:
    shape, split = tuple(job.facts["rgb"]), int(np.prod(job.facts["rgb"]))
    rgb = np.frombuffer(job.content, np.uint8, split).reshape(shape)
    light = np.frombuffer(job.content, job.facts["dtype"], offset=split).reshape(job.facts["light"])
    if measure != "full":  # all but the form is known from the mosaic
        return Taken(rgb, {})
    measured = detection.measure(light)
    return Taken(rgb, {name: measured[name] for name in FORM})


# ---- in worker processes


def ready(payload: bytes) -> tuple[dict, bytes]:
    """Load what is needed to prepare a picture, before the limits of a process hold."""
    noise = np.random.default_rng(0).integers(0, 20, (40, 40, 3)).astype(np.uint8)
    noise[15:25, 15:25] = 200
    detection.measure(images.render(images.read_picture(images.encode_thumbnail(noise))))
    return {}, b""


def prepared(payload: bytes, *, jobs: list[dict[str, Any]], size_px: int, measure: str) -> tuple[dict, bytes]:
    """Prepare the pictures whose contents are joined in `payload`, as a task of a worker process.

    Each of `jobs` has the facts of one and the length of its content. Returns what `_unpacked` takes apart.
    """
    facts: list[dict[str, Any]] = []
    parts, start = [], 0
    for each in jobs:
        content, start = payload[start : start + each["bytes"]], start + each["bytes"]
        try:
            taken = take(Job(content, each["facts"]), measure=measure)
            shrunk = images.model_input([taken.picture], size_px).tobytes()
            thumbnail = images.encode_thumbnail(taken.picture)
        except SchemaError as error:
            facts.append({"problem": str(error)})
            continue
        parts += [shrunk, thumbnail]
        columns = {name: _plain(value) for name, value in taken.columns.items()}
        facts.append({"columns": columns, "notes": taken.notes, "thumbnail": len(thumbnail)})
    return {"pictures": facts}, b"".join(parts)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _unpacked(stated: dict, content: bytes, size_px: int) -> Iterator[Prepared]:
    start, shape = 0, (size_px, size_px, 3)
    for facts in stated["pictures"]:
        if "problem" in facts:
            yield Prepared(None, None, {}, [], facts["problem"])
            continue
        split, end = start + int(np.prod(shape)), start + int(np.prod(shape)) + facts["thumbnail"]
        shrunk = np.frombuffer(content[start:split], np.uint8).reshape(shape)
        yield Prepared(shrunk, content[split:end], facts["columns"], facts["notes"])
        start = end


def prepare_all(jobs: Iterable[Callable[[], Job]], workshop: Workshop, *, rows: int) -> Generator[Prepared, None, None]:
    """Yield what becomes of each of `rows` jobs, in order; a job that raises SchemaError, or whose picture does, has a
    `problem`.

    The jobs are made one after another, by whatever thread needs the next ones.
    """
    processes = workshop.processes_for(rows)
    source = iter(jobs)
    groups = iter(lambda: list(itertools.islice(source, workshop.group_rows)), [])
    if not processes:
        for group in groups:
            yield from _prepare_group([_made(each) for each in group], workshop, None)
        return
    with ExitStack() as stack:
        pool = Pool(replace(workshop.limits, processes=processes), prepare=(READY, {}))
        made = ([_made(each) for each in group] for group in groups)
        ahead = max(2 * processes, workshop.ahead_rows // workshop.group_rows)
        results = in_order(made, lambda group: _prepare_group(group, workshop, pool), threads=processes, ahead=ahead)
        stack.callback(results.close)
        stack.callback(pool.close)  # first: whoever waits for a process stops waiting
        for result in results:
            yield from result


def _made(job: Callable[[], Job]) -> Job | SchemaError:
    try:
        return job()
    except SchemaError as error:
        return error


def _prepare_group(group: list[Job | SchemaError], workshop: Workshop, pool: Pool | None) -> list[Prepared]:
    """Prepare a few pictures; where their process dies, one after another, so that one of them costs no other."""
    jobs = [each for each in group if isinstance(each, Job)]
    done = iter(_prepare(jobs, workshop, pool)) if jobs else iter(())
    return [next(done) if isinstance(each, Job) else Prepared(None, None, {}, [], str(each)) for each in group]


def _prepare(jobs: list[Job], workshop: Workshop, pool: Pool | None) -> list[Prepared]:
    options: dict[str, Any] = {"size_px": workshop.size_px, "measure": workshop.measure}
    options["jobs"] = [{"facts": job.facts, "bytes": len(job.content)} for job in jobs]
    payload = b"".join(job.content for job in jobs)
    if pool is None:
        return list(_unpacked(*prepared(payload, **options), workshop.size_px))
    try:
        return list(_unpacked(*pool.run(TASK, payload, title="reading it", **options), workshop.size_px))
    except LimitError as error:
        if len(jobs) == 1:
            return [Prepared(None, None, {}, [], str(error))]
    except GalsearchError as error:  # a mistake of ours; alone it can be named
        if len(jobs) == 1:
            raise GalsearchError(f"{jobs[0].facts.get('name', 'a cutout')}: {error}; please report it") from None
    return [each for job in jobs for each in _prepare([job], workshop, pool)]


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

    executor = ThreadPoolExecutor(threads, thread_name_prefix="prepare pictures")
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
