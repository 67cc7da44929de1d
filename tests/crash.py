"""Processes that do one thing to an atlas and are stopped in the middle of it, and what is left afterwards.

A `Worker` imports galsearch, says that it is ready, does the one job that it is given, and counts moments on the way:
every file that Python opens for writing, makes, renames or removes, and every statement that is given to DuckDB or
Lance. It can kill or stop itself at the n-th moment, or be killed from outside at any time. Nothing is ever forked.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np

WAIT_SECONDS = 120
MODULES = (
    "galsearch.atlas",
    "galsearch.cli",
    "galsearch.encode",
    "galsearch.ingest",
    "galsearch.store.write.bundle",
    "galsearch.store.write.folder",
)
FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock"}
STATEMENTS = {"execute", "executemany"}
SMALL = (
    ("galsearch.ingest", "BATCH_ROWS", 3),
    ("galsearch.store.index.cells", "LEAST_ROWS", 5),
)
NO_READERS = (("galsearch.store.write.recluster", "KEEP", timedelta(0)),)
AGED = "aged"
COLORS = ("red", "blue", "green", "white")


# ---- the other process


class Worker:
    """A process that waits for one job: `verb` and `options` of a function of `JOBS`, or of another "module:function".

    `stop` is (moment, signal name): the worker sends itself that signal just before the moment, which is its number,
    from 1, or a text: the first one in whose description that is, such as "os.rename x.duckdb.partial". What a worker
    that is `aged` replaces it also removes, as if a day had gone by and no reader were left.
    """

    def __init__(self, *, aged: bool = False) -> None:
        quiet = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # a module that is compiled is no moment
        environment = {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        call = [sys.executable, __file__, *([AGED] if aged else [])]
        self._process = subprocess.Popen(
            call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        self._heard = b""

    def start(self, verb: str, options: dict, *, stop: tuple[int | str, str] | None = None) -> None:
        """Wait until galsearch is loaded there and the job has begun."""
        assert self.read(seconds=WAIT_SECONDS) == {"ready": True}
        job = {"verb": verb, "options": options, "stop": stop}
        self._process.stdin.write(json.dumps(job, default=str).encode() + b"\n")
        assert self.read(seconds=WAIT_SECONDS) == {"begun": True}

    def read(self, *, seconds: float) -> dict | None:
        """Return the next thing that the worker says; None when it says nothing in time, or is dead."""
        end = time.monotonic() + seconds
        while b"\n" not in self._heard:
            left = max(0, end - time.monotonic())
            heard = select.select([self._process.stdout], [], [], left)[0] and self._process.stdout.read(65_536)
            if not heard:
                return None
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def finish(self) -> dict:
        """Return what the worker says last: `error`, `moments`, `seconds`, `result`."""
        said = self.read(seconds=WAIT_SECONDS)
        assert said is not None, f"the worker died with {self.died()}"
        return said

    def result(self) -> dict:
        """Return what the job returns; it has to end without an error."""
        said = self.finish()
        assert said["error"] is None, said
        return said["result"]

    def killed_after(self, seconds: float) -> bool:
        """Kill the worker after that time, if it does not do so itself; say whether it was still at work."""
        said = self.read(seconds=seconds)
        self._process.kill()
        said = said or self.read(seconds=WAIT_SECONDS)  # it may have ended just before the kill
        self.kill()
        assert said is None or said["error"] is None, said
        return said is None

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def speaks(self, *, seconds: float) -> bool:
        """Say whether the worker says something in time, which is still to be read then."""
        return bool(self._heard or select.select([self._process.stdout], [], [], seconds)[0])

    def stops(self) -> bool:
        """Wait until the worker has stopped itself, and say that it did; or until it has done without."""
        wait_for(lambda: self._state() == "T" or self.speaks(seconds=0))
        return self._state() == "T"

    def _state(self) -> str:
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def died(self) -> int | None:
        """Return how a worker that says nothing more has ended: minus the number of a signal; None when it hangs."""
        self._process.poll()
        return self._process.returncode

    def kill(self) -> None:
        """Kill the worker, now, with SIGKILL."""
        self._process.kill()
        self._process.wait(WAIT_SECONDS)
        self._process.stdin.close()
        self._process.stdout.close()


class Crew:
    """Workers that are killed in the end, all of them `aged` or none; `spare` ones load galsearch while others work."""

    def __init__(self, *, spare: int = 0, aged: bool = False) -> None:
        self._aged = aged
        self._spare = [Worker(aged=aged) for _ in range(spare)]
        self._started: list[Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._spare + self._started:
            worker.kill()

    def start(self, verb: str, options: dict, *, stop: tuple[int | str, str] | None = None) -> Worker:
        """Return a worker that has begun to do the job."""
        self._spare.append(Worker(aged=self._aged))
        self._started.append(self._spare.pop(0))
        self._started[-1].start(verb, options, stop=stop)
        return self._started[-1]


def run(verb: str, options: dict) -> None:
    """Do a job in this process."""
    with small():
        _job(verb)(**options)


@contextlib.contextmanager
def small(*, aged: bool = False) -> Iterator[None]:
    """Let a handful of rows have batches and an index; with `aged` nothing is kept for readers."""
    with contextlib.ExitStack() as undone:
        for home, name, value in (*SMALL, *(NO_READERS if aged else ())):
            module = importlib.import_module(home)
            undone.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield


def _call(verb: str, path: str, **options: object) -> None:
    """Call galsearch.build, add, bundle or optimize."""
    import galsearch

    getattr(galsearch, verb)(path, **options)


def _several(jobs: list[tuple[str, dict]]) -> None:
    """Do one job after the other."""
    for verb, options in jobs:
        _job(verb)(**options)


def _read(path: str, until: str) -> None:
    """Say again and again what two readers see, one who stays and one who comes anew, until the file `until` is there.

    Each time {held, new}, as `digest`s, or the name of a GalsearchError where there was no answer.
    """
    import galsearch

    def new() -> dict:
        with galsearch.open(path, device="cpu") as atlas:
            return answers(atlas)

    def seen(look: Callable[[], dict]) -> str:
        try:
            return digest(look())
        except galsearch.GalsearchError as error:
            return type(error).__name__

    with galsearch.open(path, device="cpu") as held:
        last = False
        while not last:
            last = Path(until).exists()
            say({"held": seen(lambda: answers(held)), "new": seen(new)})


def _cli(arguments: list[str], limit_bytes: int | None = None) -> dict:
    """Run a command as typed; return its exit status and what it said. No file may become larger than the limit."""
    from galsearch.cli import main

    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    sys.argv, status = ["galsearch", *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    return {"status": status or 0, "out": out.getvalue(), "error": error.getvalue()}


JOBS: dict[str, Callable[..., object]] = {
    **{verb: functools.partial(_call, verb) for verb in ("build", "add", "measure", "bundle", "optimize")},
    "several": _several,
    "read": _read,
    "cli": _cli,
}


def _job(verb: str) -> Callable[..., object]:
    module, _, name = verb.partition(":")
    return getattr(importlib.import_module(module), name) if name else JOBS[verb]


def say(what: dict) -> None:
    """Tell the test that has started this process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Caught:
    """Whatever goes wrong in a `with` block, kept in `error` instead of raised; for what has to be told to a test."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self.error = error
        return error is not None

    @property
    def told(self) -> str | None:
        """The error's name and message; None when all went well."""
        return None if self.error is None else f"{type(self.error).__name__}: {self.error}"


class _Moments:
    """Count the moments of a job and send the signal at the wished one."""

    def __init__(self, stop: tuple[int | str, str] | None) -> None:
        self.count = 0
        self._at, self._signal = (stop[0], signal.Signals[stop[1]]) if stop else (None, None)

    def _come(self, what: str) -> None:
        self.count += 1
        if self.count == self._at or (isinstance(self._at, str) and self._at in what):
            self._at = None
            os.kill(os.getpid(), self._signal)

    def file(self, event: str, arguments: tuple) -> None:
        """Take note of what Python does to files, just before it does so."""
        named = event == "open" and not isinstance(arguments[0], int)  # a number is a pipe, to another process
        writes = named and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in FILE_EVENTS:
            name = "" if event == "fcntl.flock" else Path(os.fsdecode(arguments[0])).name
            self._come(f"{event} {name}")

    def tell(self, name: str, function: Callable) -> Callable:
        """Return the function with a moment before it."""

        def told(*arguments: object, **options: object) -> object:
            self._come(f"{name} {arguments[0] if arguments else ''}")
            return function(*arguments, **options)

        return told

    def listen(self) -> None:
        """Take note of files and of what the engines are told, from now on."""
        import duckdb
        import lance

        connect = duckdb.connect
        duckdb.connect = lambda *arguments, **options: _Told(connect(*arguments, **options), self)
        lance.write_dataset = self.tell("write_dataset", lance.write_dataset)
        for name in ("create_index", "restore"):
            setattr(lance.LanceDataset, name, self.tell(name, getattr(lance.LanceDataset, name)))
        sys.addaudithook(self.file)


class _Told:
    """A connection to DuckDB of which every statement is a moment."""

    def __init__(self, connection: object, moments: _Moments) -> None:
        self._connection, self._moments = connection, moments

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __getattr__(self, name: str) -> object:
        found = getattr(self._connection, name)
        return self._moments.tell(name, found) if name in STATEMENTS else found


def _serve() -> None:
    for name in MODULES:
        importlib.import_module(name)
    say({"ready": True})
    job = json.loads(sys.stdin.readline())
    moments, result = _Moments(job["stop"]), None
    moments.listen()
    say({"begun": True})
    began = time.perf_counter()
    with Caught() as caught, small(aged=AGED in sys.argv):
        result = _job(job["verb"])(**job["options"])
    seconds = time.perf_counter() - began
    say({"error": caught.told, "moments": moments.count, "seconds": seconds, "result": result})
    sys.stdin.readline()  # to be killed, not to end


# ---- what is there afterwards


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def draw(folder: Path, rows: range) -> Path:
    """Write a picture for each of the numbers; return the folder."""
    from PIL import Image
    from tiny_models import SIZE_PX, picture  # not for the workers: this loads onnx

    folder.mkdir(exist_ok=True)
    for row in rows:
        noise = np.random.default_rng(row).integers(0, 40, (SIZE_PX, SIZE_PX, 3))
        clean = picture(color=COLORS[row % 4], shape="edge")
        pixels = np.minimum(clean.astype(int) + noise, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"g{row:04d}.png")
    return folder


def files(place: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, or of the file, by its place."""
    found = sorted(item for item in place.rglob("*") if item.is_file()) if place.is_dir() else [place]
    return {str(item.relative_to(place)): hashlib.sha256(item.read_bytes()).hexdigest() for item in found}


def answers(atlas) -> dict:
    """Return all that a reader can get out of an atlas, in an order that does not depend on how it is stored."""
    facts = atlas.sql("SELECT * FROM galaxies ORDER BY object_id").to_pylist()
    vectors = atlas.sql("SELECT object_id, embedding FROM embedding_image ORDER BY object_id").to_pylist()
    ids = [row["object_id"] for row in facts]
    nearest = atlas.search(np.linspace(-1, 1, len(vectors[0]["embedding"])), k=len(ids))
    return {
        "facts": facts,
        "vectors": vectors,
        "nearest": [nearest.ids, np.round(nearest.table["score"].to_pylist(), 5).tolist()],
        "pictures": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(atlas.thumbnails(ids).items())},
        "models": {name: card["sha256"] for name, card in atlas.models().items()},
        "concepts": atlas.sql("SELECT count(*) AS n FROM concepts")["n"].to_pylist(),
        "written_by": [record["action"] for record in atlas.manifest.provenance],
    }


def digest(found: dict) -> str:
    """Return a short name for answers."""
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:16]


def state(path: Path) -> dict | None:
    """Return all that a reader gets, and make sure that `check` finds nothing wrong; None when nothing is there."""
    import galsearch

    if not path.exists():
        return None
    with small(), galsearch.open(path, device="cpu") as atlas:
        bad = [finding for finding in atlas.check() if not finding.ok]
        assert not bad, bad
        return answers(atlas)


@dataclass
class Tally:
    """How many processes were killed, and what was there afterwards."""

    verb: str
    kills: int = 0
    finished: int = 0  # before the kill came
    landed: dict[str, int] = field(default_factory=lambda: {"before": 0, "after": 0})
    moments: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        last = ", ".join(self.moments[-5:])
        return (
            f"{self.verb}: {self.kills} kills, {self.landed} the commit, {self.finished} ended before; last at {last}"
        )

    @contextlib.contextmanager
    def told(self) -> Iterator[Tally]:
        """Add the tally to whatever goes wrong."""
        try:
            yield self
        except BaseException as error:
            error.add_note(str(self))
            raise


if __name__ == "__main__":
    _serve()
