"""Writing the bundle: one file in one pass, made aside, opened again, then renamed, so that nobody sees half of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import GalsearchError
from galsearch.store import macros
from galsearch.store.bundle import BundleStore
from galsearch.store.facts import BATCH_ROWS, Store
from galsearch.store.index import (
    Index,
    create_table,
    fixed_size_list,
    phrases,
    write_cells,
    write_curves,
    write_manifest,
    write_runs,
    write_words,
)
from galsearch.store.sandbox import quoted
from galsearch.store.vectors import MapError, Mapped, Reordered, file_state, runs_table

STORAGE_VERSION = "v1.2.0"  # read by DuckDB 1.2 and later, the command-line client and the browser build
FILE_HEADER, BLOCK_HEADER = 3 * 4096, 8  # bytes before the first block of a DuckDB file, and at its beginning
OF_THE_FILE = (schema.LANCE_VERSIONS, schema.MAP_STATE)  # entries of a manifest that are not passed on
MAP_SAMPLE = 64  # rows compared before a map is trusted


def write_bundle(
    store: Store,
    path: Path,
    *,
    record: dict,
    with_models: bool = True,
    storage_version: str = STORAGE_VERSION,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Write the atlas `store` as one file at `path`; what was there before is replaced only when all went well.

    `record` is appended to the provenance. Raises GalsearchError when the disk is full or the folder not writable.
    """
    partial = path.with_name(path.name + ".partial")
    with _discarding(partial, path):
        connection = duckdb.connect()
        try:
            connection.execute(f"ATTACH {quoted(partial)} AS bundle (STORAGE_VERSION '{storage_version}')")
            connection.execute("USE bundle")
            _fill(connection, store, partial, record, with_models=with_models, seed=seed, progress=progress)
            connection.execute("CHECKPOINT bundle")
        finally:
            connection.close()
        BundleStore(partial).close()  # what cannot be opened again is not given the name
        partial.replace(path)


@contextmanager
def _discarding(partial: Path, path: Path) -> Iterator[None]:
    """Remove the partial file whatever happens, and say a disk error in words."""
    partial.unlink(missing_ok=True)
    try:
        yield
    except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException, OSError) as error:
        raise GalsearchError(
            f"{path}: could not be written ({' '.join(str(error).split())[:200]}); free some space or choose another "
            "folder, then run the same command again. Nothing that was there has changed"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
        partial.with_name(partial.name + ".wal").unlink(missing_ok=True)


def _fill(connection, store: Store, partial: Path, record: dict, *, with_models: bool, seed: int, progress) -> None:
    started = time.perf_counter()
    spaces = store.manifest.embeddings
    total = 3 + len(spaces)
    first = None
    for step, name in enumerate(spaces):
        progress(step, total, f"indexing {name} vectors")
        order = _write_vectors(connection, store, partial, name, seed)
        first = order if name == schema.IMAGE else first
    progress(len(spaces), total, "writing facts")
    _write_facts(connection, store, first)
    write_words(connection)
    progress(len(spaces) + 1, total, "writing pictures")
    _write_thumbnails(connection, store)
    progress(len(spaces) + 2, total, "writing models and macros")
    _write_models(connection, store, with_models=with_models)
    described = {name: {**space, macros.ROW_ALIGNED: _aligned(connection, name)} for name, space in spaces.items()}
    for statement in macros.facts_macros() + macros.bundle_macros(described):
        connection.execute(statement)
    extra = {key: value for key, value in store.manifest.extra.items() if key not in OF_THE_FILE}
    # DuckDB counts the times that it changed the file. Whoever changes it later moves on the count, and then the map is
    # not used: what it leads to may be blocks that are no longer part of the table
    connection.execute("CHECKPOINT bundle")
    extra[schema.MAP_STATE] = file_state(partial) + 1
    record = {**record, "seconds": round(time.perf_counter() - started, 3)}
    write_manifest(connection, store.manifest, record, extra=extra, embeddings=described)
    progress(total, total, "bundled")


def _write_vectors(connection, store: Store, partial: Path, name: str, seed: int) -> np.ndarray:
    """Write the vectors cell by cell with their index; return the object's row number in `store` of each."""
    dim = store.manifest.embeddings[name]["dim"]
    index = Index.of(store.vectors(name), store.cells(name), seed=seed)
    rows = store.object_rows(name, np.arange(len(index.cell)))
    order = index.order(store.id_column(rows))
    kind = pa.schema([("object_id", pa.string()), ("cell", pa.int32()), ("embedding", pa.list_(pa.float32(), dim))])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(order), BATCH_ROWS):
            part = order[start : start + BATCH_ROWS]
            found = store.vectors(name).take(part)
            ids = store.id_column(rows[part]).cast(pa.string())
            ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
            columns = [ids, pa.array(index.cell[part]), fixed_size_list(found)]
            yield pa.RecordBatch.from_arrays(columns, schema=kind)

    connection.register("incoming", pa.RecordBatchReader.from_batches(kind, batches()))
    # DuckDB's compression gains nothing on unit vectors and leaves a third of every block empty in the old layout; and
    # only what is not compressed can be read in place
    connection.execute("SET force_compression = 'uncompressed'")
    connection.execute(f"CREATE TABLE embedding_{name} AS SELECT * FROM incoming")
    connection.unregister("incoming")
    write_cells(connection, name, index)
    connection.execute("CHECKPOINT bundle")
    connection.execute("SET force_compression = 'auto'")
    for table in (f"embedding_{name}", f"cells_{name}"):
        _write_map(connection, partial, table)
    words = phrases(store.sandbox.cursor(), dim)
    write_curves(connection, name, index, Reordered(store.vectors(name), order), words, seed=seed)
    return rows[order]


def _write_map(connection, partial: Path, table: str) -> None:
    """Note where DuckDB put the floats of a table; nothing when they are not raw numbers in the file after all."""
    found = connection.execute(
        "SELECT count AS run_values, block_id, block_offset, compression "
        f"FROM pragma_storage_info('{table}') WHERE segment_type = 'FLOAT' ORDER BY row_group_id, segment_id"
    ).fetchall()
    size = connection.execute("SELECT block_size FROM pragma_database_size() WHERE database_name = 'bundle'").fetchall()
    if not found or any(kind != "Uncompressed" or block < 0 for _, block, _, kind in found):
        return
    values = np.array([row[0] for row in found], np.int64)
    places = np.array(
        [FILE_HEADER + block * size[0][0] + BLOCK_HEADER + offset for _, block, offset, _ in found], np.int64
    )
    runs = runs_table(None, partial, places, values, 0)
    if _map_holds(connection, runs, partial, table):
        write_runs(connection, table, runs)


def _map_holds(connection, runs: pa.Table, partial: Path, table: str) -> bool:
    """Compare what the map finds with what DuckDB says, at the beginning, the end and between."""
    column = "centroid" if table.startswith("cells_") else "embedding"
    rows = connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    places = np.unique(np.linspace(0, rows - 1, MAP_SAMPLE).astype(np.int64))
    found = connection.execute(
        f"SELECT {column} FROM {table} WHERE rowid IN (SELECT unnest($1::BIGINT[])) ORDER BY rowid", [places.tolist()]
    ).fetchall()
    said = np.array([row[0] for row in found], np.float32)
    try:
        return np.array_equal(Mapped(runs, said.shape[1], partial).take(places), said)
    except MapError:
        return False


def _write_facts(connection, store: Store, order: np.ndarray | None) -> None:
    """Copy every table of facts; galaxies in the order of the image vectors, so that neighbors lie together."""
    for name in sorted(store.fact_tables()):
        table = store.sandbox.arrow(f'SELECT * FROM "{name}"')
        if name == "galaxies" and order is not None:
            rest = np.setdiff1d(np.arange(table.num_rows), order)
            table = table.take(pa.array(np.concatenate([order, rest])))
        create_table(connection, name, table)


def _aligned(connection, name: str) -> bool:
    """Say whether the i-th vector belongs to the i-th row of galaxies, for all vectors."""
    differing = connection.execute(
        f"SELECT count(*) FROM embedding_{name} e LEFT JOIN galaxies g ON g.rowid = e.rowid "
        "WHERE g.object_id IS DISTINCT FROM e.object_id"
    )
    return differing.fetchall()[0][0] == 0


def _write_thumbnails(connection, store: Store) -> None:
    """Write pictures in the order of the galaxies: those of similar objects are read together."""
    if not store.has_thumbnails():
        return
    ids = [row[0] for row in connection.execute("SELECT object_id FROM galaxies").fetchall()]
    kind = pa.schema([("object_id", pa.string()), ("image", pa.binary())])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(ids), BATCH_ROWS):
            found = store.thumbnails(ids[start : start + BATCH_ROWS])
            there = [name for name in ids[start : start + BATCH_ROWS] if name in found]
            yield pa.RecordBatch.from_pydict(
                {"object_id": there, "image": [found[name] for name in there]}, schema=kind
            )

    connection.register("incoming", pa.RecordBatchReader.from_batches(kind, batches()))
    connection.execute("CREATE TABLE thumbnails AS SELECT * FROM incoming")
    connection.unregister("incoming")


def _write_models(connection, store: Store, *, with_models: bool) -> None:
    connection.execute("CREATE TABLE models (name VARCHAR, card VARCHAR, onnx BLOB, tokenizer BLOB)")
    for name in store.models() if with_models else []:
        card, onnx, tokenizer = store.model(name)
        connection.execute("INSERT INTO models VALUES ($1, $2, $3, $4)", [name, json.dumps(card), onnx, tokenizer])
