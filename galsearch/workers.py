"""Disposable worker processes: work with what strangers sent, under limits, in a process that may be lost.

A parser, an SQL engine or a picture decoder that is written in C can be made to crash, to take all memory or never to
end, and a thread cannot be stopped. So such work is done in a process of its own, which starts before it is needed,
does one task at a time and is killed and replaced when it dies, grows or takes too long:

    pool = Pool(Limits(seconds=10))
    facts, content = pool.run("galsearch.science.images:task", upload, title="the picture")

A task is a public function of a module of galsearch, named as text: it takes the payload (bytes) and keyword arguments
that JSON can hold, and returns (facts, payload): what JSON can hold, and bytes. Nothing is pickled in either direction,
because what comes back comes from a process that a stranger may have taken over. The environment is not handed on, and
a worker can write no file.

Not multiprocessing or loky: both import the main module of the program again in every process, which for a script
without a guard runs it again, and both unpickle what comes back; a worker of loky that dies takes the tasks of all
others with it, and there is no time limit for one task. Pebble has one, but its license is not permissive.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import math
import os
import pkgutil
import resource
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PosixPath
from typing import Any

from galsearch import errors
from galsearch.errors import BusyError, GalsearchError, LimitError

START_SECONDS = 60.0  # for a worker to load what it needs
GRACE_SECONDS = 0.5  # after its time limit, for a worker to stop by itself, so that it need not be replaced
HEAD_BYTES, MOST_HEAD = 16, 4 << 20
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # of the environment
SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": "1"}
client: contextvars.ContextVar[str] = contextvars.ContextVar("client", default="")  # for whom this thread works


@dataclass(frozen=True)
class Limits:
    """What one question of a visitor may take of the machine.

    `seconds` is wall time and `cpu_seconds` processor time of one statement; while others wait for a process, a
    statement may take only `contested_seconds`. `memory_bytes` is what a process may take beyond what it has at its
    start, `text_characters` the length of a condition, a statement or the words of a query, `result_bytes` the size of
    an answer. At most `processes` work at once; who waits longer than `wait_seconds` for one gets a BusyError. As many
    are started before anybody asks, and `spare` more to take the place of lost ones; with no `spare`, each is started
    when it is first needed, which makes the first question wait a second and leaves an idle app alone.
    """

    seconds: float = 10.0
    cpu_seconds: float = 10.0
    contested_seconds: float = 1.5
    wait_seconds: float = 20.0
    memory_bytes: int = 1 << 30
    text_characters: int = 20_000
    result_bytes: int = 32 << 20
    processes: int = 4
    spare: int = 2

    def __post_init__(self) -> None:
        wrong = [name for name, value in asdict(self).items() if not (value > 0 or (name, value) == ("spare", 0))]
        if wrong:
            raise GalsearchError(f"Limits: {wrong[0]} is {getattr(self, wrong[0])}; every limit is above 0")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ShownByName(PosixPath):
    """A path that messages name without its folder, which is nobody's business but the server's."""

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)


class _DeadError(Exception):
    """The process has ended, or was killed."""


class _LateError(Exception):
    """The process did not answer in time."""


class _Worker:
    """One process and the two pipes to it."""

    def __init__(self, limits: Limits, prepare: tuple[str, dict] | None) -> None:
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        home = str(Path(__file__).resolve().parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from galsearch.workers import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, **SINGLE, "PYTHONPATH": home},
            cwd="/",
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the parent's
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # both are PIPE
        self._pipes = stdin, stdout
        self._in, self._out = stdin.fileno(), stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
        self._killed = False
        self.busy = False  # a thread is at its pipes, and closes them
        self._first = _framed({"limits": asdict(limits), "prepare": prepare}, b"")

    def ready(self) -> None:
        """Wait until it has loaded what it needs. Raises what went wrong there."""
        end = time.monotonic() + START_SECONDS
        self._write(self._first, end)
        self._read(end, most=MOST_HEAD)

    def call(self, task: str, payload: bytes, arguments: dict, *, seconds: float, most: int) -> tuple[dict, bytes]:
        """Return what a task returns. Raises _DeadError, _LateError, or the GalsearchError that it raised."""
        end = time.monotonic() + seconds
        self._write(_framed({"task": task, "arguments": arguments}, payload), end)
        return self._read(end, most=most)

    def alive(self) -> bool:
        """Say whether it can take a task."""
        return not self._killed and self._process.poll() is None

    def kill(self) -> None:
        """End it at once; whoever waits for it finds the pipe closed."""
        self._killed = True
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End it and release the pipes."""
        self.kill()
        for pipe in self._pipes:
            pipe.close()
        self._process.wait()

    def _write(self, content: bytes, end: float) -> None:
        left = memoryview(content)
        while left:
            _wait_for(self._in, select.POLLOUT, end)
            try:
                left = left[os.write(self._in, left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _DeadError from None

    def _read(self, end: float, *, most: int) -> tuple[dict, bytes]:
        head = self._exactly(HEAD_BYTES, end)
        sizes = int.from_bytes(head[:8]), int.from_bytes(head[8:])
        if sizes[0] > MOST_HEAD or sizes[1] > most:
            raise _DeadError  # no worker of ours sends so much
        stated = json.loads(self._exactly(sizes[0], end))
        content = self._exactly(sizes[1], end)
        if "error" in stated:
            raise _error(stated["error"], stated["message"])
        return stated["facts"], content

    def _exactly(self, size: int, end: float) -> bytes:
        parts, have = [], 0
        while have < size:
            _wait_for(self._out, select.POLLIN, end)
            try:
                part = os.read(self._out, min(size - have, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise _DeadError
            parts.append(part)
            have += len(part)
        return b"".join(parts)


def _wait_for(pipe: int, event: int, end: float) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
        raise _LateError


def _framed(stated: dict, payload: bytes) -> bytes:
    head = json.dumps(stated).encode()
    return len(head).to_bytes(8) + len(payload).to_bytes(8) + head + payload


def _error(kind: str, message: str) -> GalsearchError:
    """Return the error that a worker reports; of a kind that is not ours, a plain GalsearchError."""
    known = getattr(errors, kind, GalsearchError)
    ours = isinstance(known, type) and issubclass(known, GalsearchError)
    return (known if ours else GalsearchError)(str(message)[:2000])


@dataclass
class _Turn:
    """One who waits for a worker, or has one."""

    client: str
    since: float
    worker: _Worker | None = None
    removed: bool = False  # its worker was taken from it, because others wait


class Pool:
    """Worker processes that are ready, and the line in front of them.

    `prepare` is a task that each process does before it counts as ready, such as opening a file; where it fails, every
    `run` raises its error. Processes start in the background when the pool is made (with no `spare`, when somebody
    asks), and again when one is lost.
    """

    def __init__(self, limits: Limits, *, prepare: tuple[str, dict] | None = None) -> None:
        self.limits = limits
        self._prepare = prepare
        self._state = threading.Condition()
        self._idle: list[_Worker] = []
        self._running: list[_Turn] = []
        self._waiting: list[_Turn] = []
        self._starting = 0
        self._failure: GalsearchError | None = None
        self._all: set[_Worker] = set()
        self._closed = threading.Event()
        self._release = weakref.finalize(self, _end, self._all, self._closed)
        self._fill()

    def close(self) -> None:
        """End all processes."""
        self._release()
        with self._state:
            self._state.notify_all()

    def run(self, task: str, payload: bytes = b"", *, title: str, **arguments: Any) -> tuple[dict, bytes]:
        """Return what a task returns, done by a worker for the current `client`.

        Raises LimitError, in whose sentence `title` says what was done, when the task takes more than it may or ends
        its process; BusyError when no worker was free in time; and whatever GalsearchError the task raises.
        """
        with self._turn() as (turn, worker):
            limits = self.limits
            try:
                return worker.call(
                    task, payload, arguments, seconds=limits.seconds + GRACE_SECONDS, most=2 * limits.result_bytes
                )
            except _LateError:
                worker.kill()
                raise LimitError(_too_long(title, limits.seconds)) from None
            except _DeadError:
                worker.kill()
                raise LimitError(self._lost(turn, title)) from None
            except GalsearchError:
                raise
            except BaseException:  # Ctrl-C: nobody will read its answer
                worker.kill()
                raise

    def _lost(self, turn: _Turn, title: str) -> str:
        if turn.removed:
            seconds = time.monotonic() - turn.since
            return f"{title}: stopped after {seconds:.1f} s, because others wait; ask for less, or later"
        return (
            f"{title}: it ended the process that worked on it, which may take {self.limits.memory_bytes >> 20} MB and "
            f"{self.limits.cpu_seconds:g} s; ask for less, or on a machine of your own"
        )

    # ---- the line

    @contextlib.contextmanager
    def _turn(self) -> Iterator[tuple[_Turn, _Worker]]:
        """Wait in line for a worker and hold it inside the block."""
        turn = _Turn(client.get(), time.monotonic())
        self._failure = None  # whatever it was, it may be over
        with self._state:
            self._waiting.append(turn)
            self._fill()
            try:
                self._wait(turn)
            finally:
                self._waiting.remove(turn)
            worker, turn.since = self._idle.pop(), time.monotonic()
            worker.busy, turn.worker = True, worker
            self._running.append(turn)
            self._state.notify_all()
        try:
            yield turn, worker
        finally:
            with self._state:
                self._running.remove(turn)
                worker.busy, turn.worker = False, None
                kept = worker.alive() and not turn.removed and not self._closed.is_set()
                if kept:
                    self._idle.append(worker)
                self._state.notify_all()
            if not kept:  # not in this thread: much memory takes long to give back
                threading.Thread(target=self._drop, args=(worker,), daemon=True, name="end a worker").start()
            self._fill()

    def _wait(self, turn: _Turn) -> None:
        """Return when it is this one's turn; called with the lock held."""
        while not self._may_begin(turn):
            starting = not (self._idle or self._running)  # nobody is in front of it
            end = turn.since + (START_SECONDS if starting else self.limits.wait_seconds)
            if self._failure is not None:
                raise self._failure
            now = time.monotonic()
            if now >= end or self._closed.is_set():
                raise BusyError(
                    f"waited {now - turn.since:.0f} s behind others, {self.limits.processes} statements are worked on "
                    "at once; try again in a moment"
                )
            self._state.wait(min(end - now, self._make_room(now)))

    def _may_begin(self, turn: _Turn) -> bool:
        for worker in [one for one in self._idle if not one.alive()]:
            self._idle.remove(worker)
            self._drop(worker)
        if not self._idle or len(self._running) >= self.limits.processes:
            return False
        return turn is min(self._waiting, key=lambda one: (self._held(one.client), one.since))

    def _held(self, name: str) -> int:
        return sum(one.client == name for one in self._running)

    def _make_room(self, now: float) -> float:
        """Take its worker from who has most and has had it too long; return after how many seconds to look again."""
        if len(self._running) < self.limits.processes:
            return 1.0
        held = [one for one in self._running if not one.removed]
        if len(held) < self.limits.processes:  # one is on its way
            return 0.1
        victim = max(held, key=lambda one: (now - one.since >= self.limits.contested_seconds, -one.since))
        left = self.limits.contested_seconds - (now - victim.since)
        if left <= 0:
            assert victim.worker is not None  # as it is running
            victim.removed = True
            victim.worker.kill()
            return 0.1
        return left

    # ---- processes

    def _fill(self) -> None:
        """Start, in the background, as many processes as are wanted: some more than may work, or what is asked for."""
        with self._state:
            most, spare = self.limits.processes, self.limits.spare
            wanted = most + spare if spare else min(most, len(self._running) + len(self._waiting))
            lacking = wanted - len(self._idle) - len(self._running) - self._starting
            if lacking <= 0 or self._closed.is_set():
                return
            self._starting += lacking
        starter = threading.Thread(target=_start, args=(weakref.ref(self), lacking), daemon=True, name="start workers")
        starter.start()

    def _start_one(self) -> None:
        worker = None
        if self._closed.is_set():
            return
        try:
            worker = _Worker(self.limits, self._prepare)
            self._all.add(worker)
            worker.ready()
            failure = None
        except (_DeadError, _LateError, OSError, ValueError) as error:  # ValueError: what it wrote is no answer
            failure = GalsearchError(
                f"a worker process did not start ({str(error) or error.__doc__}); free some memory, or allow more "
                f"than {self.limits.memory_bytes >> 20} MB"
            )
        except GalsearchError as error:
            failure = error
        with self._state:
            self._failure, self._starting = failure, self._starting - 1
            if worker is not None and failure is None:
                self._idle.append(worker)
            self._state.notify_all()
        if worker is not None and (failure is not None or self._closed.is_set()):
            self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        worker.close()
        self._all.discard(worker)


def _start(pool: weakref.ref[Pool], count: int) -> None:
    """Start processes one after another, as long as there is somebody to use them."""
    for _ in range(count):
        there = pool()
        if there is None:
            return
        there._start_one()
        del there


def _end(workers: set[_Worker], closed: threading.Event) -> None:
    closed.set()
    for worker in list(workers):
        worker.kill()
        if not worker.busy:
            worker.close()
    workers.clear()


def _too_long(title: str, seconds: float) -> str:
    return f"{title}: stopped after {seconds:g} s; ask for less: a tighter condition, or a LIMIT"


# ---- the other process


def serve() -> None:
    """Do tasks until nobody sends any more; the main function of a worker."""
    source, sink = os.dup(0), os.dup(1)
    with Path(os.devnull).open("r+b") as nowhere:  # whatever prints does not print into an answer
        for stream in (0, 1):
            os.dup2(nowhere.fileno(), stream)
    first = _receive(source)
    if first is None:
        return
    limits = Limits(**first[0]["limits"])
    prepare = first[0]["prepare"]
    task, arguments = prepare or (None, {})
    answer = _done(task, b"", arguments) if task else _framed({"facts": {}}, b"")
    confine(limits)
    _send(sink, answer)
    while (requested := _receive(source)) is not None:
        stated, payload = requested
        _allow_time(limits)
        _send(sink, _done(stated["task"], payload, stated["arguments"]))


def confine(limits: Limits) -> None:
    """Take from this process what it does not need from now on: memory beyond the limit, files to write, cores."""
    with contextlib.suppress(OSError, ValueError):  # not every system knows all of them
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        most = _address_space() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _address_space() -> int:
    """Return how many bytes of addresses this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _allow_time(limits: Limits) -> None:
    """Let the system end this process after so much more processor time; for the case that nobody is there to do it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + limits.cpu_seconds)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def _done(task: str, payload: bytes, arguments: dict) -> bytes:
    """Do a task and return its answer, or its error, as it is sent."""
    try:
        if not task.startswith("galsearch."):
            raise GalsearchError(f"task {task!r:.80} is not one of galsearch")
        facts, content = pkgutil.resolve_name(task)(payload, **arguments)
        return _framed({"facts": facts}, content)
    except GalsearchError as error:
        return _framed({"error": type(error).__name__, "message": str(error)}, b"")
    except MemoryError:
        return _framed({"error": "LimitError", "message": "it takes more memory than it may; ask for less"}, b"")
    except Exception as error:  # noqa: BLE001  this is the edge of a process: what it says goes to a stranger
        return _framed({"error": "GalsearchError", "message": f"it failed ({type(error).__name__})"}, b"")


def _receive(source: int) -> tuple[dict, bytes] | None:
    head = _all_of(source, HEAD_BYTES)
    if head is None:
        return None
    stated, payload = _all_of(source, int.from_bytes(head[:8])), _all_of(source, int.from_bytes(head[8:]))
    return None if stated is None or payload is None else (json.loads(stated), payload)


def _all_of(source: int, size: int) -> bytes | None:
    parts, have = [], 0
    while have < size:
        part = os.read(source, min(size - have, 1 << 20))
        if not part:
            return None
        parts.append(part)
        have += len(part)
    return b"".join(parts)


def _send(sink: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(sink, left) :]
