"""SQL of visitors: parsed, checked and run in worker processes that have the same file open, never in this one.

`Visits` is this process's half: what a Sandbox asks in place of its own connection. The tasks below it are the other
half, and run in a worker. A statement travels as text, its rows come back as Arrow, row numbers as bits.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from galsearch.errors import FormatError, LimitError, QueryError
from galsearch.store.files import state_of
from galsearch.store.sql import allowed, sandbox
from galsearch.workers import Limits, Pool, ShownByName

if TYPE_CHECKING:
    from galsearch.store.read.base import BaseStore

MOST_PASSED = 1_000  # conditions that are remembered as checked
MOST_EMBEDS = 16  # texts of one statement
ROW = "row"  # the column that holds row numbers
OPEN = f"{__name__}:open_atlases"
STREAM_ROWS = 10_000


class Visits:
    """How the SQL of visitors of one atlas, among those that a pool has open, reaches its workers."""

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool, self._number = pool, number
        self._passed: dict[str, None] = {}  # conditions that passed; the file does not change

    def select(self, statement: str, parameters: list | None, *, title: str) -> pa.Table:
        """Return the rows of a statement of ours that holds a condition which `check_condition` has passed."""
        facts, content = self._run("run_statement", title=title, statement=statement, parameters=parameters or [])
        return _table(facts, content)

    def check_condition(self, where: str) -> None:
        """Raise QueryError unless `where` is one condition of allowed functions."""
        self._check_length("where", where)
        if where not in self._passed:
            self._run("check_condition", title="where", where=where)
            if len(self._passed) >= MOST_PASSED:
                self._passed.clear()
            self._passed[where] = None

    def sql(self, text: str, embed: Callable[[str, str], np.ndarray], tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return the rows of one SELECT; the vectors of its `embed('…')` are made here and sent along.

        `embed` takes an embedding and words, `tables` are those that the statement may name beside the atlas's.
        """
        self._check_length("sql", text)
        sizes, payload = _packed(tables)
        run = functools.partial(self._run, "run_select", payload, title="sql", text=text, tables=sizes)
        facts, content = run()
        if "embed" in facts:
            vectors = [
                [name, words, np.asarray(embed(name, words), np.float64).tolist()] for name, words in facts["embed"]
            ]
            facts, content = run(vectors=vectors)
        return _table(facts, content)

    def _run(self, task: str, payload: bytes = b"", *, title: str, **arguments: Any) -> tuple[dict, bytes]:
        named = {"number": self._number, "most": self._pool.limits.result_bytes, **arguments}
        return self._pool.run(f"{__name__}:{task}", payload, title=title, **named)

    def _check_length(self, title: str, text: str) -> None:
        most = self._pool.limits.text_characters
        if len(text) > most:
            raise LimitError(f"{title} has {len(text)} characters, at most {most} are taken here; write a shorter one")


def guard(stores: Sequence[BaseStore], limits: Limits) -> Pool:
    """Let the SQL of visitors of open stores run in worker processes from now on; return their pool, to be closed."""
    files = [[str(store.path.absolute()), _identity(store.sandbox.path)] for store in stores]
    pool = Pool(
        limits, prepare=(OPEN, {"files": files, "memory_bytes": limits.memory_bytes, "seconds": limits.seconds})
    )
    for number, store in enumerate(stores):
        store.sandbox.visits = Visits(pool, number)
    return pool


def _packed(tables: Mapping[str, pa.Table]) -> tuple[list[list], bytes]:
    """Return (name, bytes) of each table, and their Arrow streams one after another."""
    streams = []
    for table in tables.values():
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        streams.append(sink.getvalue())
    return [[name, len(stream)] for name, stream in zip(tables, streams, strict=True)], b"".join(streams)


def _unpacked(sizes: list[list], payload: bytes) -> dict[str, pa.Table]:
    tables, start = {}, 0
    for name, size in sizes:
        tables[name] = pa.ipc.open_stream(payload[start : start + size]).read_all()
        start += size
    return tables


def _identity(file: Path) -> list[int]:
    """Return what tells a file from another that has its name: one that replaced it has other row numbers."""
    about = file.stat()
    return [about.st_dev, about.st_ino, *state_of(about)]


def _table(facts: dict, content: bytes) -> pa.Table:
    """Return the rows that a worker sent; what it sent is not believed."""
    if "bits" in facts:
        packed = np.frombuffer(content, np.uint8)
        return _rows_table(np.flatnonzero(np.unpackbits(packed, bitorder="little")))
    if "numbers" in facts:
        return _rows_table(np.frombuffer(content, "<i8"))
    try:
        table = pa.ipc.open_stream(content).read_all()
        table.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise QueryError(f"sql: the answer cannot be read ({sandbox.short(error)}); ask it in another way") from None
    return table


def _rows_table(numbers: np.ndarray) -> pa.Table:
    kept = np.ascontiguousarray(numbers, np.int64)
    return pa.table({ROW: pa.Array.from_buffers(pa.int64(), len(kept), [None, pa.py_buffer(kept)])})


# ---- in a worker

_stores: list[BaseStore] = []
_vectors: dict[tuple[str, str], list[float]] = {}


def open_atlases(payload: bytes, *, files: list, memory_bytes: int, seconds: float) -> tuple[dict, bytes]:
    """Open the atlases of this worker, whose engine then uses one thread and a part of the memory."""
    from galsearch.store import open_store

    sandbox.use({"threads": "1", "memory_limit": f"'{memory_bytes // 2**20 * 3 // 5}MiB'"}, seconds=seconds)
    for path, identity in files:
        store = open_store(ShownByName(path))
        if _identity(store.sandbox.path) != identity:
            raise FormatError(f"{store.path}: was replaced or changed while it was open; open it again")
        pa.allocate_buffer(1 << 16)  # now, before memory is bounded: Arrow reserves addresses for what comes later
        store.sandbox.arrow("SELECT count(*) FROM galaxies")
        _stores.append(store)
    return {}, b""


def check_condition(payload: bytes, *, number: int, most: int, where: str) -> tuple[dict, bytes]:
    """Check a condition: one expression, of allowed functions."""
    store = _stores[number]
    tree = store.sandbox.condition_tree(where)
    if _check(store, tree, title="where"):
        raise QueryError("where: embed() is for sql(); in a condition, take the vector of a phrase with concept('…')")
    store.sandbox.check_condition(where)
    return {}, b""


def run_statement(payload: bytes, *, number: int, most: int, statement: str, parameters: list) -> tuple[dict, bytes]:
    """Run a statement of ours, whose condition has been checked."""
    return _streamed(_stores[number], statement, parameters, title="where", most=most)


def run_select(
    payload: bytes,
    *,
    number: int,
    most: int,
    text: str,
    tables: list[list],
    vectors: list[tuple[str, str, list[float]]] | None = None,
) -> tuple[dict, bytes]:
    """Run one SELECT, or return the texts whose vectors it needs first; the payload holds the `tables` beside."""
    store = _stores[number]
    with store.sandbox.beside(_unpacked(tables, payload)):
        return _run_select(store, text, vectors, most)


def _run_select(
    store: BaseStore, text: str, vectors: list[tuple[str, str, list[float]]] | None, most: int
) -> tuple[dict, bytes]:
    store.sandbox.check_select(text)
    texts = _embedded(store, _check(store, store.sandbox.select_tree(text), title="sql"))
    if texts and vectors is None:
        return {"embed": _bounded(texts)}, b""
    _vectors.clear()
    _vectors.update({(name, words): vector for name, words, vector in vectors or []})
    store._register(_vector_of)
    return _streamed(store, text, [], title="sql", most=most)


def _vector_of(embedding: str, words: str) -> np.ndarray:
    return np.asarray(_vectors[embedding, words])


def _embedded(store: BaseStore, calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (embedding, words) for (function, words)."""
    functions = store.embed_functions()
    unknown = next((name for name, _ in calls if name not in functions), None)
    if unknown is not None:
        raise QueryError(f"sql: {unknown}() needs a model of words for that embedding, and the atlas names none")
    return [(functions[name], words) for name, words in calls]


def _bounded(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    texts = list(dict.fromkeys(texts))
    if len(texts) > MOST_EMBEDS:
        raise LimitError(f"sql: embed() is asked of {len(texts)} texts, at most {MOST_EMBEDS} in one statement")
    return texts


def _check(store: BaseStore, tree: list[dict], *, title: str) -> list[tuple[str, str]]:
    macros, tables = _known(store)
    return allowed.check(tree, macros=macros, system_tables=tables, title=title)


@functools.cache
def _known(store: BaseStore) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the macros that we have put into the atlas, and of DuckDB's own views."""
    views = store.sandbox.rows("SELECT view_name FROM duckdb_views() WHERE internal")
    return allowed.macros(store.manifest.embeddings), frozenset(name.lower() for (name,) in views)


def _streamed(store: BaseStore, statement: str, parameters: list, *, title: str, most: int) -> tuple[dict, bytes]:
    """Return the rows of a statement as an Arrow stream of bounded size."""
    sink = io.BytesIO()
    store.prepare(statement)
    with store.sandbox.running(title) as cursor:
        reader = cursor.sql(statement, params=parameters).to_arrow_reader(STREAM_ROWS)
        if reader.schema.names == [ROW] and title == "where":
            return _row_numbers(reader.read_all(), store.objects)
        with pa.ipc.new_stream(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
                if sink.tell() > most:
                    raise LimitError(
                        f"{title}: the answer has more than {most >> 20} MB; name fewer columns, or add a LIMIT"
                    )
    return {}, sink.getvalue()


def _row_numbers(result: pa.Table, rows: int) -> tuple[dict, bytes]:
    """Return row numbers as one bit a row where they ascend, else as they are."""
    numbers = result[ROW].to_numpy()
    if len(numbers) < rows // 64 or not (numbers[1:] > numbers[:-1]).all():
        return {"numbers": True}, np.ascontiguousarray(numbers, "<i8").tobytes()
    passing = np.zeros(rows, bool)
    passing[numbers] = True
    return {"bits": True}, np.packbits(passing, bitorder="little").tobytes()
