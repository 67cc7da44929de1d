"""What both writers write: the index of an embedding (which cell each vector goes to, in which order), the manifest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.store.index import cells
from galsearch.store.index.cells import Cells, Curves
from galsearch.store.index.fulltext import write_word_index
from galsearch.store.index.vectors import Vectors
from galsearch.store.read.base import vectors as as_array

STALE_SHARE = 0.25  # of rows that came after the cells were fitted, from which on they are fitted anew


@dataclass
class Index:
    """The cell of each vector, `(n,) int32`, and the centroids; `curves` where the recall is known already."""

    centroids: np.ndarray
    cell: np.ndarray
    curves: Curves | None = None

    @classmethod
    def of(cls, vectors: Vectors, known: Cells | None, *, seed: int) -> Index:
        """Return the index of `vectors`, keeping the cells that are known while they fit most of the rows."""
        indexed = 0 if known is None else int(known.starts[-1])
        if known is None or vectors.rows - indexed > STALE_SHARE * vectors.rows:
            centroids = cells.fit(vectors, seed=seed)
            return cls(centroids, cells.assign_all(vectors, centroids))
        there = np.repeat(np.arange(len(known), dtype=np.int32), np.diff(known.starts))
        late = cells.assign(vectors.take(np.arange(indexed, vectors.rows)), known.centroids)
        return cls(known.centroids, np.concatenate([there, late]), None if len(late) else known.curves)

    def order(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the rows by cell, then object_id."""
        table = pa.table({"cell": self.cell, "object_id": ids})
        indices = pc.sort_indices(table, sort_keys=[("cell", "ascending"), ("object_id", "ascending")])
        return np.frombuffer(indices.buffers()[1], np.uint64, len(indices)).astype(np.int64)

    def cells(self) -> Cells:
        """Return the index as it is searched, for vectors in the order of their cells."""
        held = np.bincount(self.cell, minlength=len(self.centroids))
        return Cells(self.centroids, np.concatenate([[0], np.cumsum(held)]), self.curves or Curves(()))


def write_cells(connection, name: str, index: Index) -> None:
    """Write `cells_<name>`."""
    table = {
        "cell": pa.array(np.arange(len(index.centroids)), pa.int32()),
        "centroid": fixed_size_list(index.centroids),
        "rows": np.diff(index.cells().starts),
    }
    create_table(connection, f"cells_{name}", pa.table(table))


def write_curves(connection, name: str, index: Index, vectors: Vectors, words: np.ndarray | None, *, seed: int) -> None:
    """Write `recall_<name>` and `line_<name>`, measured on `vectors`, which are in the order of the cells."""
    write_thresholds(connection, name, vectors, words, seed=seed)
    if index.curves is None and vectors.rows > cells.LEAST_ROWS:
        index.curves = cells.measure(vectors, index.cells(), words, seed=seed)
    rows = index.curves.rows if index.curves else []
    kinds = {"asked": pa.string(), "depth": pa.int32(), "probes": pa.int32(), "recall": pa.float64()}
    columns = zip(*rows, strict=True) if rows else [[]] * len(kinds)
    table = {key: pa.array(list(column), kind) for (key, kind), column in zip(kinds.items(), columns, strict=True)}
    create_table(connection, f"recall_{name}", pa.table(table))


def write_thresholds(connection, name: str, vectors: Vectors, words: np.ndarray | None, *, seed: int) -> None:
    """Write `line_<name>` anew: under which score nothing is convincing, by kind of query."""
    result = cells.thresholds(vectors, words, seed=seed)
    connection.execute(f"CREATE OR REPLACE TABLE line_{name} (asked VARCHAR, score DOUBLE)")
    for requested, score in sorted(result.items()):
        connection.execute(f"INSERT INTO line_{name} VALUES ($1, $2)", [requested, score])


def write_runs(connection, name: str, runs: pa.Table | None) -> None:
    """Replace the part of the map that is about one table; None leaves it without."""
    kinds = ", ".join(f"{column.name} {column.type}" for column in schema.TABLES[schema.MAP_TABLE])
    connection.execute(f"CREATE TABLE IF NOT EXISTS {schema.MAP_TABLE} ({kinds})")
    connection.execute(f"DELETE FROM {schema.MAP_TABLE} WHERE name = $1", [name])
    if runs is not None:
        connection.register("incoming", runs)
        connection.execute(f"INSERT INTO {schema.MAP_TABLE} SELECT $1, * FROM incoming", [name])
        connection.unregister("incoming")


def write_words(connection) -> None:
    """Write the index of the words in names and captions, of the database in use; its macros come with the others."""
    write_word_index(connection, tables_of(connection))


def tables_of(connection) -> list[str]:
    """Return the names of the tables of the database in use."""
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()")
    return [name for (name,) in tables.fetchall()]


def phrases(connection, manifest: schema.Manifest, name: str) -> np.ndarray | None:
    """Return the embedded phrases of the database in use, which stand for queries in words; None without any.

    None too for an embedding of another space than theirs.
    """
    table = manifest.phrases_of(name)
    if table is None or table not in tables_of(connection):
        return None
    result = as_array(connection.sql(f"SELECT embedding FROM {table}").to_arrow_table()["embedding"])
    return result if result.shape[1] == manifest.embeddings[name]["dim"] and len(result) else None


def write_manifest(connection, manifest: schema.Manifest, record: dict | None, **changes) -> None:
    """Replace the manifest table by `manifest` with `changes`, and one more provenance record if there is one."""
    values = {**vars(manifest), **changes, "provenance": [*manifest.provenance, *([record] if record else [])]}
    rows = schema.Manifest(**values).to_rows()
    connection.execute(f"CREATE OR REPLACE TABLE {schema.MANIFEST_TABLE} (key VARCHAR, value VARCHAR)")
    connection.executemany(f"INSERT INTO {schema.MANIFEST_TABLE} VALUES ($1, $2)", rows)


def create_table(connection, name: str, table: pa.Table) -> None:
    """Create a table from Arrow rows."""
    connection.register("incoming", table)
    connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM incoming')
    connection.unregister("incoming")


def fixed_size_list(array: np.ndarray, *, dtype: type = np.float32) -> pa.FixedSizeListArray:
    """Return `(n, d)` numbers as an Arrow column of d-lists."""
    flat = pa.array(np.ascontiguousarray(array, dtype=dtype).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
