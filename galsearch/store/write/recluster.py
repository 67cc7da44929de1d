"""Putting the rows of a folder where searching wants them: cell by cell, galaxies and vectors in one order.

Lance gets a new version, DuckDB a new file that names it; renaming that file commits both.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.atomic import replacing
from galsearch.store.index.fulltext import POSTINGS
from galsearch.store.index.projection import write_map
from galsearch.store.index.vectors import Reordered
from galsearch.store.read.base import BATCH_ROWS, ENGINE_TABLES
from galsearch.store.read.folder import FACTS, FILES, LANCE, VERSIONS, FolderStore
from galsearch.store.sql import macros
from galsearch.store.sql.sandbox import quoted
from galsearch.store.write.disk import writing
from galsearch.store.write.index_tables import (
    Index,
    create_table,
    fixed_size_list,
    phrases,
    write_cells,
    write_curves,
    write_manifest,
    write_words,
)
from galsearch.store.write.lance_offsets import file_digests, write_pages

KEEP = timedelta(days=1)  # how long the files of an order that was replaced stay for readers that are still open


def recluster(folder: Path, record: dict | None, *, seed: int = 0) -> None:
    """Rewrite the atlas in `folder` in the order of cells that are fitted to all of its rows.

    `record` is appended to the provenance. The Lance files of the order before stay for those who read them now, and
    are removed by a settling that comes at least KEEP later; a folder that is being built (no record) has no readers.
    """
    store = FolderStore(folder)
    try:
        with replacing(folder / FACTS) as partial:
            connection = writing(partial)
            try:
                connection.execute(f"ATTACH {quoted(partial)} AS facts")
                connection.execute("USE facts")
                _fill(connection, store, folder, record, seed)
                connection.execute("CHECKPOINT facts")
            finally:
                connection.close()
        clean(folder, store.manifest.embeddings, timedelta(0) if record is None else KEEP)
    finally:
        store.close()


def rolled_back(uri: str, version: int | None) -> int:
    """Return the row count of the committed version, making it the latest if a killed writer left more.

    Where none is committed, there are no rows, and what a killed writer left is removed.
    """
    if version is None:
        shutil.rmtree(uri, ignore_errors=True)
        return 0
    dataset = lance.dataset(uri, version=version)
    if dataset.latest_version != version:
        dataset.restore()
    return dataset.count_rows()


def clean(folder: Path, names: Iterable[str], age: timedelta) -> None:
    """Remove the versions of the Lance tables that are older.

    Only after a commit: then the latest version, which always stays, is the one that is committed.
    """
    for name in names:
        lance.dataset(str(folder / LANCE / f"{name}.lance")).cleanup_old_versions(older_than=age)


def _fill(connection, store: FolderStore, folder: Path, record: dict | None, seed: int) -> None:
    versions, first = dict(store.manifest.extra[VERSIONS]), np.arange(store.manifest.rows)
    settled: dict[str, tuple[Reordered, pa.Array]] = {}
    for name, space in store.manifest.embeddings.items():
        index = Index.of(store.vectors(name), None, seed=seed)
        rows = store.object_rows(name, np.arange(len(index.cell)))
        order = index.order(store.id_column(rows))
        first = rows[order] if name == store.manifest.main_embedding else first
        versions[name] = _write_lance(store, folder, name, order, store.id_column(rows[order]))
        create_table(connection, f"rows_{name}", _numbered(store.id_column(rows[order])))
        write_cells(connection, name, index)
        write_pages(connection, folder, name, versions[name], space["dim"])
        words = phrases(store.sandbox.cursor(), store.manifest, name)
        placed = Reordered(store.vectors(name), order)
        write_curves(connection, name, index, placed, words, seed=seed)
        settled[name] = placed, store.id_column(rows[order])
    _copy_facts(connection, store, first)
    spaces = {
        name: {**space, **rows_of(connection, name), schema.PROJECTION: write_map(connection, name, *settled[name])}
        for name, space in store.manifest.embeddings.items()
    }
    files = file_digests(folder, versions, store.manifest.extra.get(FILES, {}))
    extra = {**store.manifest.extra, VERSIONS: versions, FILES: files}
    write_manifest(connection, store.manifest, record, embeddings=spaces, extra=extra)


def _write_lance(store: FolderStore, folder: Path, name: str, order: np.ndarray, ids: pa.Array) -> int:
    """Write the vectors in another order as a new version of their Lance table; return its number."""
    uri = str(folder / LANCE / f"{name}.lance")
    rolled_back(uri, store.manifest.extra[VERSIONS][name])
    dim = store.manifest.embeddings[name]["dim"]
    kind = pa.schema([("object_id", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(order), BATCH_ROWS):
            part = order[start : start + BATCH_ROWS]
            result = store.vectors(name).take(part)
            names = pa.array(ids.slice(start, len(part)).to_pylist(), pa.string())
            yield pa.RecordBatch.from_arrays([names, fixed_size_list(result)], schema=kind)

    reader = pa.RecordBatchReader.from_batches(kind, batches())
    dataset = lance.write_dataset(reader, uri, mode="overwrite", max_rows_per_group=BATCH_ROWS)
    return dataset.version


def _numbered(ids: pa.Array) -> pa.Table:
    return pa.table({"object_id": ids, "row": np.arange(len(ids))})


def _copy_facts(connection, store: FolderStore, first: np.ndarray) -> None:
    """Copy what is not made anew; galaxies begin with the rows `first`, in that order."""
    made = {f"{part}{name}" for name in store.manifest.embeddings for part in ENGINE_TABLES}
    for name in sorted(store.tables - made - {schema.MANIFEST_TABLE, schema.MAP_TABLE, POSTINGS}):
        table = store.sandbox.arrow(f'SELECT * FROM "{name}"')
        if name == "galaxies":
            rest = np.setdiff1d(np.arange(table.num_rows), first)
            table = table.take(pa.array(np.concatenate([first, rest])))
        create_table(connection, name, table)
    write_words(connection)
    for statement in macros.facts_macros():
        connection.execute(statement)


def rows_of(connection, name: str) -> dict:
    """Return how many vectors there are, and whether the i-th belongs to the i-th row of galaxies for all of them."""
    rows, differing = connection.execute(
        "SELECT count(*), count(*) FILTER (g.object_id IS DISTINCT FROM r.object_id) "
        f"FROM rows_{name} r LEFT JOIN galaxies g ON g.rowid = r.row"
    ).fetchall()[0]
    return {"rows": rows, macros.ROW_ALIGNED: differing == 0}
