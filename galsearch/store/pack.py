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
from galsearch.store import cells, macros
from galsearch.store.bundle import BundleStore
from galsearch.store.facts import BATCH_ROWS, Store
from galsearch.store.sandbox import quoted

STORAGE_VERSION = "v1.2.0"  # read by DuckDB 1.2 and later, the command-line client and the browser build


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
            _fill(connection, store, record, with_models=with_models, seed=seed, progress=progress)
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


def _fill(connection, store: Store, record: dict, *, with_models: bool, seed: int, progress) -> None:
    started = time.perf_counter()
    spaces = store.manifest.embeddings
    total = 3 + len(spaces)
    for step, name in enumerate(spaces):
        progress(step, total, f"indexing {name} vectors")
        _write_vectors(connection, store, name, seed)
    progress(len(spaces), total, "writing facts")
    _write_facts(connection, store)
    progress(len(spaces) + 1, total, "writing pictures")
    _write_thumbnails(connection, store)
    progress(len(spaces) + 2, total, "writing models and macros")
    _write_models(connection, store, with_models=with_models)
    described = {name: {**space, macros.ROW_ALIGNED: _aligned(connection, name)} for name, space in spaces.items()}
    for statement in macros.facts_macros() + macros.bundle_macros(described):
        connection.execute(statement)
    extra = {key: value for key, value in store.manifest.extra.items() if key != schema.LANCE_VERSIONS}
    record = {**record, "seconds": round(time.perf_counter() - started, 3)}
    write_manifest(connection, store.manifest, record, extra=extra, embeddings=described)
    progress(total, total, "bundled")


def _write_vectors(connection, store: Store, name: str, seed: int) -> None:
    space = store.manifest.embeddings[name]
    rows, dim = space["rows"], space["dim"]
    centroids = cells.fit_centroids(
        store.sample(name, cells.sample_rows(rows, seed=seed)), cells.cell_count(rows), seed=seed
    )
    counts = np.zeros(len(centroids), dtype=np.int64)

    def batches() -> Iterator[pa.RecordBatch]:
        for ids, found in store.embedding_batches(name):
            cell = cells.assign(found, centroids)
            np.add.at(counts, cell, 1)
            columns = [pa.array(ids, pa.string()), pa.array(cell), fixed_size_list(found)]
            yield pa.RecordBatch.from_arrays(columns, schema=kind)

    kind = pa.schema([("object_id", pa.string()), ("cell", pa.int32()), ("embedding", pa.list_(pa.float32(), dim))])
    connection.register("incoming", pa.RecordBatchReader.from_batches(kind, batches()))
    # DuckDB's compression gains nothing on unit vectors and leaves a third of every block empty in the old layout
    connection.execute("SET force_compression = 'uncompressed'")
    connection.execute(
        f"CREATE TABLE embedding_{name} AS SELECT object_id, cell, embedding FROM incoming ORDER BY cell, object_id"
    )
    connection.execute("CHECKPOINT bundle")
    connection.execute("SET force_compression = 'auto'")
    connection.unregister("incoming")
    summary = pa.table(
        {
            "cell": pa.array(np.arange(len(centroids)), pa.int32()),
            "centroid": fixed_size_list(centroids),
            "rows": counts,
        }
    )
    create_table(connection, f"cells_{name}", summary)


def _write_facts(connection, store: Store) -> None:
    """Copy every table of facts; galaxies in the order of the image cells, so that neighbors lie together."""
    for name in sorted(store.fact_tables()):
        ordered = ""
        if name == "galaxies" and schema.IMAGE in store.manifest.embeddings:
            ordered = (
                f"SELECT g.* FROM incoming g LEFT JOIN embedding_{schema.IMAGE} e USING (object_id) "
                "ORDER BY e.cell NULLS LAST, g.object_id"
            )
        create_table(connection, name, store.sandbox.arrow(f'SELECT * FROM "{name}"'), select=ordered)


def _aligned(connection, name: str) -> bool:
    """Say whether galaxies and the vectors have the same objects in the same order."""
    differing = connection.execute(
        f"SELECT count(*) FROM galaxies g FULL JOIN embedding_{name} e ON g.rowid = e.rowid "
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


def write_manifest(connection, manifest: schema.Manifest, record: dict, **changes) -> None:
    """Replace the manifest table by `manifest` with `changes` and one more provenance record."""
    values = {**vars(manifest), **changes, "provenance": [*manifest.provenance, record]}
    rows = schema.Manifest(**values).to_rows()
    connection.execute(f"CREATE OR REPLACE TABLE {schema.MANIFEST_TABLE} (key VARCHAR, value VARCHAR)")
    connection.executemany(f"INSERT INTO {schema.MANIFEST_TABLE} VALUES ($1, $2)", rows)


def create_table(connection, name: str, table: pa.Table, *, select: str = "") -> None:
    """Create a table from Arrow rows, through `select` over `incoming` when given."""
    connection.register("incoming", table)
    connection.execute(f'CREATE TABLE "{name}" AS {select or "SELECT * FROM incoming"}')
    connection.unregister("incoming")


def fixed_size_list(array: np.ndarray) -> pa.FixedSizeListArray:
    """Return `(n, d) float32` as an Arrow column of d-lists."""
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
