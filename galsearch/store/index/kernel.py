"""Inner products of stored rows with a vector: in place, in several threads, without Python's lock.

The loop is a small C function (kernel.c), compiled when galsearch is installed. Where no compiler was there the same is
done with numpy by `vectors`, at about half the speed; `galsearch info` says which of the two is in use.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from galsearch.compiled import SUFFIX, Int, Pointer, load
from galsearch.workers import cores

VERSION = 3  # of what kernel.c offers; a library that was compiled from another is not used
MOST_THREADS = 4  # reading memory is what takes the time, and few cores can do that at full speed
WORTH = 1 << 18  # numbers from which on another thread saves more than it costs
SPARE = 4_096  # scores that tie with the last one wanted, until numpy looks for them
FINE, OUTSIDE, VANISHED, UNFIT = -1, -2, -3, -4
NAME = f"_kernel{SUFFIX}"

_here = threading.local()


class VanishedError(Exception):
    """The file that rows lie in was cut while they were read."""


class _Task(ctypes.Structure):
    _fields_ = [
        *((name, Pointer) for name in ("pieces", "vector", "rows", "starts", "before")),
        ("spans", Int),
        ("count", Int),
        *((name, Pointer) for name in ("out", "done")),
        ("next", Int),
        ("vanished", Int),
        ("after", Pointer),
    ]


class _CrewStruct(ctypes.Structure):
    _fields_ = [("first", _Task), ("over", Int), ("inside", Int)]


class _Pieces(ctypes.Structure):
    _fields_ = [
        ("bytes", Pointer),
        ("size", Int),
        ("item", Int),
        ("dim", Int),
        ("rows", Int),
        ("count", Int),
        *((name, Pointer) for name in ("first", "at", "head", "seen")),
        ("fit", Int),
    ]


_FUNCTIONS = {
    "galsearch_fit": (Pointer,),
    "galsearch_copy": (Pointer, Pointer, Int, Pointer),
    "galsearch_prepare": (Pointer, Pointer, Int),
    "galsearch_prepare_spans": (Pointer, Pointer, Pointer, Int),
    "galsearch_select": (Pointer, Int, Int, ctypes.c_float, Pointer, Pointer, Int),
    "galsearch_chunks": (Pointer,),
    "galsearch_do": (Pointer, Pointer),
    "galsearch_call": (Pointer, Int),
    "galsearch_dismiss": (Pointer,),
    "galsearch_inside": (Pointer,),
}
LIBRARY = load(
    Path(__file__).with_name(NAME),
    VERSION,
    _FUNCTIONS,
    version_function="galsearch_dots_version",
    returning_nothing=["galsearch_dismiss"],
)


def threads() -> int:
    """Return how many threads compare rows."""
    return min(MOST_THREADS, cores())


def description() -> str:
    """Return how rows are compared here, in words."""
    if LIBRARY is None:
        return "numpy, because no C compiler was there when galsearch was installed; install it again with one"
    return f"compiled, {threads()} thread{'s' if threads() > 1 else ''}"


class Pieces:
    """Rows of `dim` numbers that follow one another through pieces of `content`, `(bytes,) uint8`.

    `first` `(p + 1,)` are the numbers that the pieces begin with and how many there are, `at` `(p,)` the bytes where
    they lie, `head` `(p,)` their first eight bytes, compared when a piece is first read; None: not compared. All int64.
    `dtype` is float32 or int8. Raises ValueError when the pieces do not follow one another inside `content`, or hold
    no whole rows.
    """

    def __init__(
        self,
        content: np.ndarray,
        dtype: npt.DTypeLike,
        dim: int,
        *,
        first: np.ndarray,
        at: np.ndarray,
        head: np.ndarray | None = None,
    ) -> None:
        self._kept = [np.ascontiguousarray(one, np.int64) for one in (first, at, *([] if head is None else [head]))]
        if len(first) != len(at) + 1 or (head is not None and len(head) != len(at)):
            raise ValueError(f"{len(at)} pieces need as many heads and {len(at) + 1} first numbers")
        self.seen, self._content, self._dim = np.zeros(len(at), np.uint8), content, dim
        self._dtype = np.dtype(dtype)
        indices = [one.ctypes.data for one in self._kept] + ([None] if head is None else [])
        sizes = content.nbytes, self._dtype.itemsize, dim, int(first[-1]) // dim, len(at)
        self._struct = _Pieces(content.ctypes.data, *sizes, *indices, self.seen.ctypes.data)
        self._pointer = ctypes.addressof(self._struct)
        self._library = _library()
        if self._library.galsearch_fit(self._pointer) != FINE:
            raise ValueError(f"the pieces do not lie one after another inside {content.nbytes} bytes in rows of {dim}")

    def prepare(self, rows: np.ndarray) -> bool:
        """Ask for what was not read before, all at once, and say whether its pieces begin as noted.

        `rows` is contiguous int64. Raises IndexError when one of them is not there, VanishedError when the
        file was cut.
        """
        return self._prepared(self._library.galsearch_prepare(self._pointer, rows.ctypes.data, len(rows)))

    def _prepared(self, answer: int) -> bool:
        if answer == OUTSIDE:
            raise IndexError(f"a row is not among the {self._struct.rows} that there are")
        _check(answer)
        return answer == FINE

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        """Return copies of rows `(n, dim)`; None when a piece does not begin as noted."""
        rows = np.ascontiguousarray(rows, np.int64)
        if not self.prepare(rows):
            return None
        out = np.empty((len(rows), self._dim), self._dtype)
        _check(self._library.galsearch_copy(self._pointer, rows.ctypes.data, len(rows), out.ctypes.data))
        return out

    def products(self, vector: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """Return the inner products `(n,) float32` with `vector`; None when a piece does not begin as noted."""
        rows, vector = np.ascontiguousarray(rows, np.int64), self._fitting(vector)
        if not self.prepare(rows):
            return None
        return self._do([vector, rows], ("vector", "rows"), len(rows))

    def span_products(self, vector: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray | None:
        """Return the inner products with the rows of spans, one span after another; else as `products`."""
        starts, stops = (np.ascontiguousarray(each, np.int64) for each in (starts, stops))
        if (stops <= starts).any():
            starts, stops = starts[stops > starts], stops[stops > starts]
        vector = self._fitting(vector)
        before = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(stops - starts, out=before[1:])
        answer = self._library.galsearch_prepare_spans(
            self._pointer, starts.ctypes.data, stops.ctypes.data, len(starts)
        )
        if not self._prepared(answer):
            return None
        return self._do([vector, starts, before], ("vector", "starts", "before"), int(before[-1]))

    def _fitting(self, vector: np.ndarray) -> np.ndarray:
        vector = np.ascontiguousarray(vector, np.float32)
        if len(vector) != self._dim:
            raise ValueError(f"a vector of {len(vector)} numbers cannot be compared with rows of {self._dim}")
        return vector

    def _do(self, arrays: list[np.ndarray], names: tuple[str, ...], count: int) -> np.ndarray:
        """Return the products of so many rows that were prepared; the arrays say which, and with what."""
        out = np.empty(count, np.float32)
        known = {name: array.ctypes.data for name, array in zip(names, arrays, strict=True)}
        task = _Task(pieces=self._pointer, spans=len(arrays[1]), count=count, out=out.ctypes.data, **known)
        done = np.zeros(self._library.galsearch_chunks(ctypes.addressof(task)), np.uint8)
        task.done = done.ctypes.data
        crew = getattr(_here, "crew", None)
        if crew is None or out.size * self._dim < WORTH:
            _check(self._library.galsearch_do(ctypes.addressof(task), None))
        else:
            crew.do(task, [self, *arrays, out, done])
        return out


def select(scores: np.ndarray, wanted: int, *, error: float) -> np.ndarray:
    """Return which scores `(n,) float32` may be among the `wanted` largest, those within `error` of the last included.

    Their numbers ascend.
    """
    wanted = min(wanted, len(scores))
    if LIBRARY is not None and 0 < wanted < len(scores):
        scores = np.ascontiguousarray(scores, np.float32)
        heap, out = np.empty(wanted, np.float32), np.empty(wanted + SPARE, np.int64)
        indices = (array.ctypes.data for array in (heap, out))
        kept = LIBRARY.galsearch_select(scores.ctypes.data, len(scores), wanted, error, *indices, len(out))
        if kept <= len(out):
            return out[:kept]
    if not wanted:
        return np.empty(0, np.int64)
    return np.flatnonzero(scores >= np.partition(scores, len(scores) - wanted)[-wanted] - np.float32(error))


def _library() -> ctypes.CDLL:
    """Return the compiled library, for those that are only made where it is there."""
    if LIBRARY is None:
        raise RuntimeError("there is no compiled library; ask for LIBRARY first")
    return LIBRARY


def _check(answer: int) -> None:
    """Raise what the compiled functions say in numbers."""
    if answer == VANISHED:
        raise VanishedError
    if answer == UNFIT:
        raise ValueError("pieces that were not checked cannot be read")


class _Crew:
    """Threads that take part in what one thread does, task after task, without being woken for each."""

    _leaving: ClassVar[list[_Crew]] = []  # over, but a thread may still look at the last task

    def __init__(self) -> None:
        self._struct = _CrewStruct()
        self._kept: list[object] = []
        self._at = self._last = ctypes.addressof(self._struct)  # of its first task, which is a dummy
        self._library = _library()
        self._library.galsearch_call(self._at, threads() - 1)

    def do(self, task: _Task, arrays: list) -> None:
        """Do a task; it and its arrays are kept for threads that look at them later."""
        self._kept += [task, *arrays]
        last, self._last = self._last, ctypes.addressof(task)
        _check(self._library.galsearch_do(self._last, last))

    def dismiss(self) -> None:
        """Let the threads go, without waiting for one that is held up."""
        self._library.galsearch_dismiss(self._at)
        self._leaving.append(self)
        self._leaving[:] = [crew for crew in self._leaving if crew.inside()]

    def inside(self) -> int:
        """Return how many threads still look at the tasks."""
        return self._library.galsearch_inside(self._at)

    def __del__(self) -> None:  # whatever happened, also Ctrl-C anywhere: no thread looks at memory that is gone
        self._library.galsearch_dismiss(self._at)
        while self.inside():
            time.sleep(0)


@contextlib.contextmanager
def crew(numbers: int) -> Iterator[None]:
    """Have other threads at hand inside the block, where `numbers` to compare are enough to make them worth it."""
    if LIBRARY is None or numbers < WORTH or threads() < 2 or getattr(_here, "crew", None) is not None:
        yield
        return
    _here.crew = _Crew()
    try:
        yield
    finally:
        _here.crew.dismiss()
        _here.crew = None
