"""The engines that are measured, in one form: how each is built, asked, and given a cut.

Every engine gets the same vectors under the same row numbers, THREADS threads, and as many cells as galsearch makes.
Efforts rise: cells visited, or the breadth of a walk through a graph; a float is the recall that is asked for, None is
what the engine does by itself. A cut reaches an engine as the row numbers that pass it ("rows"; evaluated beforehand by
DuckDB, and charged) or as the SQL condition itself ("sql").
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from benchmarks.measure import THREADS, size_of
from benchmarks.vectors import Spec, cut_columns, row_numbers

Effort = int | float | None
Cut = np.ndarray | str | None
CELLS = (8, 16, 32, 64, 128, 256, 512)
CELLS_UNDER_CUT = (32, 128, 512, 2048)
ROWS_AT_A_TIME = 50_000


@dataclass(frozen=True)
class Place:
    """Where one set of data and everything built from it lies."""

    spec: Spec
    root: Path

    @property
    def table(self) -> Path:
        """The Parquet file of all columns."""
        return self.root / "rows.parquet"

    @property
    def array(self) -> Path:
        """The .npy file of the vectors."""
        return self.root / "vectors.npy"

    @property
    def atlas(self) -> Path:
        """The atlas folder."""
        return self.root / "galaxies.atlas"

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.root / "galaxies.duckdb"

    def vectors(self) -> np.ndarray:
        """Return the stored vectors `(n, d) float32`, mapped and not read."""
        return np.load(self.array, mmap_mode="r")


class Engine:
    """One engine over the data at `place`: `build` once, then `open` and `search` in as many processes as wanted."""

    name: ClassVar[str]
    needs: ClassVar[str]  # the package without which it cannot run
    cuts: ClassVar[str] = "rows"
    efforts: ClassVar[tuple[Effort, ...]] = CELLS
    efforts_under_cut: ClassVar[tuple[Effort, ...]] = CELLS_UNDER_CUT
    in_cells: ClassVar[bool] = True  # whole efforts are cells, of which there are so many and no more
    note: str | None = None  # how the last answer was found, where the engine says so

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rows, self.dim = place.spec.rows, place.spec.dim

    @classmethod
    def is_there(cls) -> bool:
        """Say whether its package is installed."""
        return importlib.util.find_spec(cls.needs) is not None

    def ladder(self, *, under_cut: bool) -> list[Effort]:
        """Return the efforts to try, in rising order; the last whole one is every cell where that is reached."""
        asked = self.efforts_under_cut if under_cut else self.efforts
        if not self.in_cells:
            return list(asked)
        most = cells(self.rows)
        capped = [min(effort, most) if isinstance(effort, int) else effort for effort in asked]
        return list(dict.fromkeys(capped))

    @property
    def path(self) -> Path:
        """What it wrote: a file or a folder."""
        return self.place.root / "peers" / self.name

    def build(self) -> None:
        """Write the index to `path`."""
        raise NotImplementedError

    def open(self) -> None:
        """Make ready to search."""
        raise NotImplementedError

    def tune(self, queries: np.ndarray) -> None:
        """Choose what can be chosen freely, on queries that are never reported."""

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> Any:
        """Return what was found, as `numbers` understands it: fewer than k where no more match or are reached."""
        raise NotImplementedError

    def numbers(self, found: Any) -> np.ndarray:
        """Return the row numbers of an answer, best first; not part of the time."""
        found = np.asarray(found, dtype=np.int64)
        return found[found >= 0]

    def bytes_on_disk(self) -> int:
        """Return what it keeps on disk."""
        return size_of(self.path)


def cells(rows: int) -> int:
    """Return how many cells every IVF has: 4 sqrt(rows), as galsearch's own."""
    return max(1, min(round(4 * math.sqrt(rows)), rows // 8))


# ---- numpy


class Numpy(Engine):
    """All vectors compared; under a cut those that pass, gathered, or all of them where that is quicker."""

    name, needs = "numpy", "numpy"
    efforts = efforts_under_cut = (None,)
    gathered_share = 0.2  # of the rows: above it comparing everything beats gathering; `tune` measures it
    block_rows = 2_048  # gathered at a time, to stay in the cache

    def build(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        np.save(self.path.with_suffix(".npy"), self.place.vectors())

    @property
    def path(self) -> Path:
        return super().path.with_suffix(".npy")

    def open(self) -> None:
        self.vectors = np.load(self.path)

    def tune(self, queries: np.ndarray) -> None:
        tenth = np.arange(0, self.rows, 10)
        whole = _median_seconds(lambda query: self.search(query, k=10), queries)
        part = _median_seconds(lambda query: self.search(query, k=10, cut=tenth), queries)
        self.gathered_share = min(1.0, 0.1 * whole / part)

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> np.ndarray:
        if cut is None:
            return _largest(self.vectors @ query, k)
        if len(cut) > self.gathered_share * self.rows:
            return cut[_largest((self.vectors @ query)[cut], k)]
        scores = np.empty(len(cut), dtype=np.float32)
        for start in range(0, len(cut), self.block_rows):
            rows = cut[start : start + self.block_rows]
            np.dot(self.vectors[rows], query, out=scores[start : start + len(rows)])
        return cut[_largest(scores, k)]


def _largest(scores: np.ndarray, k: int) -> np.ndarray:
    if len(scores) > k:
        kept = np.argpartition(scores, len(scores) - k)[-k:]
        return kept[np.argsort(-scores[kept], kind="stable")]
    return np.argsort(-scores, kind="stable")


# ---- faiss


class Faiss(Engine):
    """What its indexes have in common: one file, read into memory; cuts as a bitmap of rows."""

    needs = "faiss"

    def build(self) -> None:
        faiss, vectors = _faiss(), self.place.vectors()
        index = self.empty(faiss)
        sample = np.random.default_rng(0).choice(self.rows, min(self.rows, 64 * cells(self.rows)), replace=False)
        index.train(vectors[np.sort(sample)])
        for start in range(0, self.rows, ROWS_AT_A_TIME):
            index.add(np.ascontiguousarray(vectors[start : start + ROWS_AT_A_TIME]))
        self.path.parent.mkdir(exist_ok=True)
        faiss.write_index(index, str(self.path))

    def empty(self, faiss: Any) -> Any:
        """Return the index before it has any rows."""
        raise NotImplementedError

    def options(self, effort: int, selector: Any) -> Any:
        """Return the parameters of one search."""
        raise NotImplementedError

    def open(self) -> None:
        self.faiss = _faiss()
        self.index = self.faiss.read_index(str(self.path))

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> np.ndarray:
        selector = None if cut is None else self._selector(cut)
        return self.index.search(query[None], k, params=self.options(int(effort), selector))[1][0]

    def _selector(self, cut: np.ndarray) -> Any:
        passing = np.zeros(self.rows, dtype=bool)
        passing[cut] = True
        return self.faiss.IDSelectorBitmap(np.packbits(passing, bitorder="little"))


class FaissIvf(Faiss):
    """IVF_FLAT, the measure that others are held against; one search uses both threads where that is quicker."""

    name = "faiss-ivf-flat"

    def empty(self, faiss: Any) -> Any:
        index = faiss.index_factory(self.dim, f"IVF{cells(self.rows)},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical, index.cp.niter = True, 10
        return index

    def options(self, effort: int, selector: Any) -> Any:
        return self.faiss.SearchParametersIVF(nprobe=effort, sel=selector)

    def tune(self, queries: np.ndarray) -> None:
        spent = {mode: _median_seconds(functools.partial(self._in_mode, mode), queries) for mode in (0, 1)}
        self.index.parallel_mode = min(spent, key=spent.get)

    def _in_mode(self, mode: int, query: np.ndarray) -> None:
        self.index.parallel_mode = mode  # 0: a thread a query, 1: the cells of one query among the threads
        self.search(query, k=10, effort=64)


class FaissFastScan(Faiss):
    """IVFPQ of 4-bit codes scanned in registers, its best candidates compared again with the full vectors."""

    name = "faiss-ivfpq-fastscan"
    refined = 20  # candidates compared again for each row wanted

    def empty(self, faiss: Any) -> Any:
        kind = f"IVF{cells(self.rows)},PQ{self.dim}x4fs,RFlat"  # half the codes stall at a recall of .9
        return faiss.index_factory(self.dim, kind, faiss.METRIC_INNER_PRODUCT)

    def options(self, effort: int, selector: Any) -> Any:
        visited = self.faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        return self.faiss.IndexRefineSearchParameters(k_factor=self.refined, base_index_params=visited)


class FaissHnsw(Faiss):
    """A graph of 16 links a vector."""

    name = "faiss-hnsw"
    in_cells = False
    efforts = (16, 32, 64, 128, 256)
    efforts_under_cut = (32, 128, 512, 2048)

    def empty(self, faiss: Any) -> Any:
        index = faiss.IndexHNSWFlat(self.dim, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
        return index

    def options(self, effort: int, selector: Any) -> Any:
        return self.faiss.SearchParametersHNSW(efSearch=effort, sel=selector)


def _faiss() -> Any:
    import faiss

    faiss.omp_set_num_threads(THREADS)
    return faiss


def _median_seconds(call: Callable[[np.ndarray], Any], queries: np.ndarray) -> float:
    """Return the median time of a query; the first is asked once beforehand, unmeasured."""
    call(queries[0])
    spent = []
    for query in queries:
        started = time.perf_counter()
        call(query)
        spent.append(time.perf_counter() - started)
    return float(np.median(spent))


# ---- other stores


class LanceDb(Engine):
    """LanceDB called directly: IVF_FLAT, a BTREE on each column that cuts name, the condition passed as it is."""

    name, needs, cuts = "lancedb", "lancedb", "sql"
    efforts_under_cut = (32, 128, 512, 2048)

    def build(self) -> None:
        import lancedb
        from lancedb.index import BTree, IvfFlat

        table = lancedb.connect(self.path).create_table("galaxies", data=self._batches(), mode="overwrite")
        table.create_index("v", config=IvfFlat(distance_type="dot", num_partitions=cells(self.rows)))
        for column in ("u", "c"):
            table.create_index(column, config=BTree())
        # not optimize(): it joins cells until they hold 16,384 rows each, and every search compares nearly everything

    def _batches(self) -> pa.RecordBatchReader:
        vectors, columns = self.place.vectors(), cut_columns(self.place.spec)
        numbers = {"row": pa.int64(), "u": pa.float64(), "c": pa.float64()}
        kind = pa.schema([*numbers.items(), ("v", pa.list_(pa.float32(), self.dim))])

        def batches() -> Any:
            for start in range(0, self.rows, ROWS_AT_A_TIME):
                part = slice(start, min(start + ROWS_AT_A_TIME, self.rows))
                flat = pa.array(np.ascontiguousarray(vectors[part]).ravel())
                values = [np.arange(part.start, part.stop), columns["u"][part], columns["c"][part]]
                held = pa.FixedSizeListArray.from_arrays(flat, self.dim)
                yield pa.RecordBatch.from_arrays([*map(pa.array, values), held], schema=kind)

        return pa.RecordBatchReader.from_batches(kind, batches())

    def open(self) -> None:
        import lancedb

        self.table = lancedb.connect(self.path).open_table("galaxies")

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> pa.Table:
        asked = (
            self.table.search(query, vector_column_name="v").distance_type("dot").limit(k).select(["row", "_distance"])
        )
        asked = asked.nprobes(int(effort))
        return (asked if cut is None else asked.where(cut, prefilter=True)).to_arrow()

    def numbers(self, found: pa.Table) -> np.ndarray:
        return np.asarray(found["row"].to_numpy(), dtype=np.int64)


class Usearch(Engine):
    """A graph of 16 links a vector; its Python form has no predicate, so cuts are compared exactly on the subset."""

    name, needs = "usearch", "usearch"
    in_cells = False
    efforts = (16, 32, 64, 128, 256)
    efforts_under_cut = (None,)

    def build(self) -> None:
        index, vectors = self._empty(), self.place.vectors()
        for start in range(0, self.rows, ROWS_AT_A_TIME):
            part = np.ascontiguousarray(vectors[start : start + ROWS_AT_A_TIME])
            index.add(np.arange(start, start + len(part)), part, threads=THREADS)
        self.path.parent.mkdir(exist_ok=True)
        index.save(str(self.path))

    def _empty(self) -> Any:
        from usearch.index import Index

        return Index(ndim=self.dim, metric="ip", dtype="f32", connectivity=16, expansion_add=128)

    def open(self) -> None:
        from usearch import index as usearch

        self.usearch, self.index = usearch, self._empty()
        self.index.load(str(self.path))
        self.vectors = np.load(self.place.array)

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> np.ndarray:
        if cut is None:
            self.index.expansion_search = int(effort)
            return self.index.search(query, k, threads=1).keys
        metric = self.usearch.MetricKind.IP
        found = self.usearch.search(self.vectors[cut], query, min(k, len(cut)), metric, exact=True, threads=THREADS)
        return cut[found.keys.astype(np.int64)]


class SqliteVec(Engine):
    """sqlite-vec: every vector compared, cuts on its metadata columns."""

    name, needs, cuts = "sqlite-vec", "sqlite_vec", "sql"
    efforts = efforts_under_cut = (None,)

    def build(self) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.unlink(missing_ok=True)
        columns, vectors = cut_columns(self.place.spec), self.place.vectors()
        with _sqlite(self.path) as database:
            database.execute(f"CREATE VIRTUAL TABLE galaxies USING vec0(v FLOAT[{self.dim}], u FLOAT, c FLOAT)")
            database.executemany(
                "INSERT INTO galaxies (rowid, v, u, c) VALUES (?, ?, ?, ?)",
                (
                    (row, vectors[row].tobytes(), float(columns["u"][row]), float(columns["c"][row]))
                    for row in range(self.rows)
                ),
            )

    def open(self) -> None:
        self.database = _sqlite(self.path)

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> list[tuple[int]]:
        condition = f" AND {cut}" if cut else ""
        text = f"SELECT rowid FROM galaxies WHERE v MATCH ? AND k = ?{condition} ORDER BY distance"
        return self.database.execute(text, (query.tobytes(), k)).fetchall()

    def numbers(self, found: list[tuple[int]]) -> np.ndarray:
        return np.array([row for (row,) in found], dtype=np.int64)


def _sqlite(path: Path) -> Any:
    """Return a connection that has sqlite-vec, also where Python's sqlite3 was built without loadable extensions."""
    import _sqlite3
    import ctypes
    import sqlite3

    import sqlite_vec

    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        entry = ctypes.CDLL(str(sqlite_vec.loadable_path()) + ".so").sqlite3_vec_init
        ctypes.CDLL(_sqlite3.__file__).sqlite3_auto_extension(ctypes.cast(entry, ctypes.c_void_p))
        return sqlite3.connect(path)
    connection = sqlite3.connect(path)
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    return connection


# ---- galsearch


class Galsearch(Engine):
    """An atlas through Python: the planner's own choice, a recall asked for where it can be, and cells told."""

    needs, cuts = "galsearch", "sql"

    def __init__(self, place: Place) -> None:
        import galsearch

        super().__init__(place)
        takes_recall = "recall" in inspect.signature(galsearch.Atlas.search).parameters
        self.efforts = (None, *((0.95, 0.98, 0.99, 0.995) if takes_recall else ()), *CELLS)
        self.efforts_under_cut = (None, *((0.98,) if takes_recall else ()))

    def open(self) -> None:
        import galsearch

        self.atlas = galsearch.open(self.path)

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> list[str]:
        options = {} if effort is None else {"recall": effort} if isinstance(effort, float) else {"probes": effort}
        hits = self.atlas.search(query, k=k, where=cut, **options)
        self.note = hits.plan.path
        return hits.ids

    def numbers(self, found: list[str]) -> np.ndarray:
        return row_numbers(found)


class Folder(Galsearch):
    """The atlas folder."""

    name = "galsearch-folder"

    @property
    def path(self) -> Path:
        return self.place.atlas

    def build(self) -> None:
        import galsearch

        options = {"vectors": "v", "model": "synthetic", "id_column": "id", "title": "Synthetic", "overwrite": True}
        galsearch.build(self.path, table=self.place.table, **options)


class Bundle(Galsearch):
    """The single file, through Python."""

    name = "galsearch-bundle"

    @property
    def path(self) -> Path:
        return self.place.bundle

    def build(self) -> None:
        import galsearch

        galsearch.bundle(self.place.atlas, self.path)


class Compact(Galsearch):
    """The single file with 8-bit codes."""

    name = "galsearch-compact"

    @property
    def path(self) -> Path:
        return self.place.root / "compact.duckdb"

    def build(self) -> None:
        import galsearch

        galsearch.bundle(self.place.atlas, self.path, compact=True)


class Macro(Engine):
    """The single file in plain SQL, through DuckDB alone."""

    name, needs, cuts = "galsearch-macro", "duckdb", "sql"
    efforts_under_cut = (32, 128, 512)

    @property
    def path(self) -> Path:
        return self.place.bundle

    def build(self) -> None:
        """Nothing: the bundle has it."""

    def open(self) -> None:
        import duckdb

        self.connection = duckdb.connect(self.path, read_only=True, config={"threads": THREADS})

    def search(self, query: np.ndarray, *, k: int, cut: Cut = None, effort: Effort = None) -> list[tuple]:
        cut = f", cut := {cut}" if cut else ""
        text = f"SELECT object_id, score FROM nearest($q::FLOAT[], k := {k}, probes := {int(effort)}{cut})"
        return self.connection.execute(text, {"q": query.tolist()}).fetchall()

    def numbers(self, found: list[tuple]) -> np.ndarray:
        return row_numbers([object_id for object_id, _ in found])


OURS = (Folder, Bundle, Compact, Macro)
PEERS = (Numpy, FaissIvf, FaissFastScan, FaissHnsw, LanceDb, Usearch, SqliteVec)
ENGINES = {engine.name: engine for engine in (*OURS, *PEERS)}
