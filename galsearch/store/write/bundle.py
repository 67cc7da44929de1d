"""Writing the bundle: one file in one pass, made aside, opened again, then renamed, so that nobody sees half of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.atomic import WriterLock, replacing
from galsearch.errors import (
    FormatError,
    GalsearchError,
    QueryError,
    SchemaError,
    VersionTooNewError,
    VersionTooOldError,
)
from galsearch.store.check import NORM_TOLERANCE, worst_length
from galsearch.store.index.projection import PCA, check_method, put_map, write_map
from galsearch.store.index.vectors import MapError, Mapped, Reordered, encoded, file_state, runs_table
from galsearch.store.interface import Store
from galsearch.store.read.base import BATCH_ROWS, BaseStore
from galsearch.store.read.blocks import BLOCK_HEADER, FILE_HEADER
from galsearch.store.read.bundle import BundleStore
from galsearch.store.read.row_view import RowView
from galsearch.store.read.spectra import SPECTRA, SPECTRA_ROWS, no_spectra
from galsearch.store.sql import macros
from galsearch.store.sql.sandbox import quoted, short
from galsearch.store.write.disk import disk_errors, writing
from galsearch.store.write.index_tables import (
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

BLOCK_BYTES = 1 << 18  # of a DuckDB file, unless somebody wants smaller ones, which are read one by one over a network
BLOCKS = tuple(1 << power for power in range(14, 19))  # that DuckDB knows
STORAGE_VERSION = "v1.2.0"  # read by DuckDB 1.2 and later, the command-line client and the browser build
REMEDY = "free some space or choose another folder, then run the same command again"
OF_THE_FILE = (
    schema.LANCE_VERSIONS,
    schema.FILE_DIGESTS,
    schema.MAP_STATE,
    schema.DELETED,
)  # entries of a manifest that are not passed on
MAP_SAMPLE = 64  # rows compared before a map is trusted


def write_bundle(
    store: BaseStore | RowView,
    path: Path,
    *,
    record: dict,
    with_models: bool = True,
    compact: bool = False,
    storage_version: str = STORAGE_VERSION,
    block_bytes: int = BLOCK_BYTES,
    projection: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Write the atlas `store` as one file at `path`; what was there before is replaced only when all went well.

    `record` is appended to the provenance; `compact` stores 8-bit codes of the vectors; `projection` says how the
    vectors are projected (None: as in `store` where that has every vector, else by "pca"). Raises GalsearchError when
    the disk is full or the folder not writable, or when the vectors cannot be stored so, QueryError for blocks of
    another size than DuckDB knows.
    """
    check_method(projection or PCA)
    if block_bytes not in BLOCKS:
        raise QueryError(f"block_bytes is {block_bytes!r:.40}, expected one of {', '.join(map(str, BLOCKS))}")
    with disk_errors(path, REMEDY), WriterLock(path), replacing(path) as partial:
        connection = writing(partial)
        try:
            made = f"STORAGE_VERSION '{storage_version}', BLOCK_SIZE {block_bytes}"
            connection.execute(f"ATTACH {quoted(partial)} AS bundle ({made})")
            connection.execute("USE bundle")
            _fill(
                connection,
                store,
                partial,
                record,
                with_models=with_models,
                compact=compact,
                projection=projection,
                seed=seed,
                progress=progress,
            )
            connection.execute("CHECKPOINT bundle")
            connection.close()
            BundleStore(partial).close()  # what cannot be opened again is not given the name
        finally:
            connection.close()


def write_subset(
    store: Store, rows: np.ndarray, path: Path, *, title: str, record: dict, with_models: bool = True
) -> None:
    """Write the objects of the row numbers `rows` as a bundle of their own: rows, vectors, pictures, captions, models.

    Tables that are not about objects (evaluations, costs) stay behind. Vectors that are coded are written as the
    floats that they stand for, so that every score stays what it was. The order of the rows is that of their cells,
    as in every bundle. Raises QueryError for no rows or several atlases, GalsearchError where `path` cannot be written,
    is the atlas itself, or something other than a bundle; FormatError where rows have no object_id.
    """
    from galsearch.store import open_store

    whole = store.parts[0]
    if len(store.parts) > 1 or not isinstance(whole, BaseStore):
        raise QueryError(f"{store.path}: several atlases are open as one; ask one of them, then bundle its answer")
    if not len(rows):
        raise QueryError("nothing was found, and a bundle needs a row; loosen the cuts, then bundle the answer")
    if path.exists():
        if path.samefile(store.path):
            raise GalsearchError(f"{path} is the atlas that was asked; choose another name for the part of it")
        with contextlib.suppress(VersionTooOldError, VersionTooNewError):  # an atlas all the same
            open_store(path).close()  # refuses to replace anything else
    if not path.parent.is_dir():
        raise GalsearchError(f"{path.parent}: no such folder; make it first, or choose another place for the bundle")
    write_bundle(RowView(whole, rows, title), path, record=record, with_models=with_models)


def _fill(
    connection,
    store: BaseStore | RowView,
    partial: Path,
    record: dict,
    *,
    with_models: bool,
    compact: bool,
    projection,
    seed,
    progress,
) -> None:
    started = time.perf_counter()
    spaces = _described(store, compact=compact)
    total = 3 + len(spaces)
    first = None
    for step, (name, space) in enumerate(spaces.items()):
        progress(step, total, f"indexing {name} vectors")
        order = _write_vectors(connection, store, partial, (name, space), seed)
        first = order if name == store.manifest.main_embedding else first
    progress(len(spaces), total, "writing facts")
    _write_facts(connection, store, first)
    write_words(connection)
    for name in spaces:
        spaces[name] = {**spaces[name], schema.PROJECTION: _write_projection(connection, store, name, projection, seed)}
    progress(len(spaces) + 1, total, "writing pictures")
    _write_thumbnails(connection, store)
    _write_spectra(connection, store)
    progress(len(spaces) + 2, total, "writing models and macros")
    _write_models(connection, store, with_models=with_models)
    described = {
        name: {**space, macros.ROW_ALIGNED: _aligned(connection, name, space)} for name, space in spaces.items()
    }
    vector_macros = macros.bundle_macros(described) + macros.vote_macros(described, store.fact_tables())
    _write_macros(connection, store, macros.facts_macros() + vector_macros)
    extra = {key: value for key, value in store.manifest.extra.items() if key not in OF_THE_FILE}
    # DuckDB counts the times that it changed the file. Whoever changes it later moves on the count, and then the map is
    # not used: what it leads to may be blocks that are no longer part of the table
    connection.execute("CHECKPOINT bundle")
    extra[schema.MAP_STATE] = file_state(partial) + 1
    record = {**record, "seconds": round(time.perf_counter() - started, 3)}
    write_manifest(connection, store.manifest, record, extra=extra, embeddings=described)
    progress(total, total, "bundled")


def _write_macros(connection, store: BaseStore | RowView, statements: list[str]) -> None:
    try:
        for statement in statements:
            connection.execute(statement)
    except duckdb.BinderException as error:
        raise SchemaError(
            f"{store.path}: a column of galaxies has a name that the macros of a bundle use ({short(error)}); build "
            "the atlas again from its source, which renames such a column"
        ) from None


def _described(store: BaseStore | RowView, *, compact: bool) -> dict[str, dict]:
    """Return what the manifest will say of the embeddings. Raises GalsearchError where they cannot be stored so."""
    spaces = store.manifest.embeddings
    coded = [name for name, space in spaces.items() if space.get(schema.CODES)]
    if coded and not compact:
        raise GalsearchError(
            f"{store.path} is a compact bundle: its '{coded[0]}' vectors are 8-bit codes, which do not become floats "
            "again; make a compact bundle of it (--compact), or bundle the atlas that it was made from"
        )
    for name in spaces if compact else ():
        worst = worst_length(store.vectors(name))
        if not worst <= NORM_TOLERANCE:
            raise GalsearchError(
                f"{store.path}: the length of a vector of '{name}' differs from 1 by {worst:.3g}, and codes are made "
                "of unit vectors; run `galsearch check`, and rebuild the atlas"
            )
    codes = {schema.CODES: schema.RESIDUAL_CODES} if compact else {}
    return {name: {**space, **codes} for name, space in spaces.items()}


def _write_vectors(
    connection, store: BaseStore | RowView, partial: Path, embedding: tuple[str, dict], seed: int
) -> np.ndarray:
    """Write the vectors cell by cell with their index; return the object's row number in `store` of each."""
    name, space = embedding
    table = macros.vector_table(name, space)
    vectors, known = store.vectors(name), store.cells(name)
    index = Index.of(vectors, known, seed=seed)
    rows = store.object_rows(name, np.arange(len(index.cell)))
    order = index.order(store.id_column(rows))
    # codes are copied, because codes of codes would differ a little; where the cells are others they have to
    copied = schema.CODES in store.manifest.embeddings[name] and known is not None and (np.diff(order) > 0).all()
    kind = pa.schema([("object_id", pa.string()), ("cell", pa.int32()), *_number_columns(space)])

    def numbers(part: np.ndarray) -> list[pa.Array]:
        if not space.get(schema.CODES):
            return [fixed_size_list(vectors.take(part))]
        centroids = index.centroids[index.cell[part]]
        codes, weights = (
            store.codes(name, part)
            if copied and isinstance(store, BundleStore)
            else encoded(vectors.take(part), centroids)
        )
        return [fixed_size_list(weights), fixed_size_list(codes, dtype=np.int8)]

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(order), BATCH_ROWS):
            part = order[start : start + BATCH_ROWS]
            ids = store.id_column(rows[part]).cast(pa.string())
            ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
            yield pa.RecordBatch.from_arrays([ids, pa.array(index.cell[part]), *numbers(part)], schema=kind)

    # DuckDB's compression gains nothing on unit vectors and leaves a third of every block empty in the old layout; and
    # only what is not compressed can be read in place
    connection.execute("SET force_compression = 'uncompressed'")
    _write_table(connection, table, kind, batches())
    write_cells(connection, name, index)
    connection.execute("CHECKPOINT bundle")
    connection.execute("SET force_compression = 'auto'")
    for column in _mapped_vectors(name, space):
        _write_map(connection, partial, column)
    words = phrases(store.sandbox.cursor(), store.manifest, name)
    write_curves(connection, name, index, Reordered(vectors, order), words, seed=seed)
    return rows[order]


def _number_columns(space: dict) -> list[tuple[str, pa.DataType]]:
    """Return the columns in which vectors are stored."""
    if not space.get(schema.CODES):
        return [("embedding", pa.list_(pa.float32(), space["dim"]))]
    return [("weights", pa.list_(pa.float32(), 2)), ("code", pa.list_(pa.int8(), space["dim"]))]


class _Column(NamedTuple):
    """A column of numbers to be read in place: what the map calls it, and where it is."""

    part: str
    table: str
    name: str
    dtype: type = np.float32


def _mapped_vectors(name: str, space: dict) -> list[_Column]:
    """Return the columns of an embedding that the map is about."""
    table, cells = macros.vector_table(name, space), f"cells_{name}"
    if not space.get(schema.CODES):
        return [_Column(table, table, "embedding"), _Column(cells, cells, "centroid")]
    codes, weights = _Column(table, table, "code", np.int8), _Column(f"weights_{name}", table, "weights")
    return [codes, weights, _Column(cells, cells, "centroid")]


def _write_map(connection, partial: Path, column: _Column) -> None:
    """Note where DuckDB put the numbers of a column; nothing when they are not raw in the file after all."""
    result = connection.execute(
        "SELECT count AS run_values, block_id, block_offset, compression FROM pragma_storage_info($1) "
        "WHERE column_name = $2 AND segment_type IN ('FLOAT', 'TINYINT') ORDER BY row_group_id, segment_id",
        [column.table, column.name],
    ).fetchall()
    size = connection.execute("SELECT block_size FROM pragma_database_size() WHERE database_name = 'bundle'").fetchall()
    if not result or any(kind != "Uncompressed" or block < 0 for _, block, _, kind in result):
        return
    values = np.array([row[0] for row in result], np.int64)
    indices = np.array(
        [FILE_HEADER + block * size[0][0] + BLOCK_HEADER + offset for _, block, offset, _ in result], np.int64
    )
    runs = runs_table(None, partial, indices, values, 0, dtype=column.dtype)
    if _map_holds(connection, runs, partial, column):
        write_runs(connection, column.part, runs)


def _map_holds(connection, runs: pa.Table, partial: Path, column: _Column) -> bool:
    """Compare what the map finds with what DuckDB says, at the beginning, the end and between."""
    rows = connection.execute(f"SELECT count(*) FROM {column.table}").fetchall()[0][0]
    indices = np.unique(np.linspace(0, rows - 1, MAP_SAMPLE).astype(np.int64))
    requested = "WHERE rowid IN (SELECT unnest($1::BIGINT[])) ORDER BY rowid"
    result = connection.execute(f"SELECT {column.name} FROM {column.table} {requested}", [indices.tolist()]).fetchall()
    stated: np.ndarray = np.array([row[0] for row in result], column.dtype)
    try:
        return np.array_equal(Mapped(runs, stated.shape[1], partial, dtype=column.dtype).take(indices), stated)
    except MapError:
        return False


def _write_facts(connection, store: BaseStore | RowView, order: np.ndarray | None) -> None:
    """Copy every table of facts; galaxies in the order of the image vectors, so that neighbors lie together."""
    for name in sorted(store.fact_tables()):
        table = store.sandbox.arrow(f'SELECT * FROM "{name}"')
        if name == "galaxies" and order is not None:
            if order.max(initial=-1) >= table.num_rows:
                raise FormatError(
                    f"{store.path}: its vectors and the rows of galaxies do not belong together; `galsearch check` "
                    "says more: rebuild the atlas, or ask whoever sent it for a sound one"
                )
            rest = np.setdiff1d(np.arange(table.num_rows), order)
            table = table.take(pa.array(np.concatenate([order, rest])))
        create_table(connection, name, table)


def _write_projection(connection, store: BaseStore | RowView, name: str, method: str | None, seed: int) -> dict:
    """Write the map of the vectors, as `store` has it or anew; return what the manifest says of it."""
    space, table = store.manifest.embeddings[name], f"map_{name}"
    if method is None and schema.PROJECTION in space and table in store.tables:
        there = store.sandbox.arrow(f"SELECT object_id, x, y FROM {table}")
        if there.num_rows == space["rows"]:  # else some were added since it was made
            put_map(connection, name, there)
            return space[schema.PROJECTION]
    ids = store.id_column(store.object_rows(name, np.arange(space["rows"])))
    return write_map(connection, name, store.vectors(name), ids, method=method or PCA, seed=seed)


def _aligned(connection, name: str, space: dict) -> bool:
    """Say whether the i-th vector belongs to the i-th row of galaxies, for all vectors."""
    differing = connection.execute(
        f"SELECT count(*) FROM {macros.vector_table(name, space)} e LEFT JOIN galaxies g ON g.rowid = e.rowid "
        "WHERE g.object_id IS DISTINCT FROM e.object_id"
    )
    return differing.fetchall()[0][0] == 0


def _write_thumbnails(connection, store: BaseStore | RowView) -> None:
    """Write pictures in the order of the galaxies: those of similar objects are read together."""
    if not store.holds("thumbnails"):
        return
    ids = [row[0] for row in connection.execute("SELECT object_id FROM galaxies").fetchall()]
    kind = pa.schema([("object_id", pa.string()), ("image", pa.binary())])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(ids), BATCH_ROWS):
            result = store.thumbnails(ids[start : start + BATCH_ROWS])
            there = [name for name in ids[start : start + BATCH_ROWS] if name in result]
            yield pa.RecordBatch.from_pydict(
                {"object_id": there, "image": [result[name] for name in there]}, schema=kind
            )

    _write_table(connection, "thumbnails", kind, batches())


def _write_spectra(connection, store: BaseStore | RowView) -> None:
    """Write spectra in the order of the galaxies."""
    if not store.holds("spectra"):
        return
    ids = [row[0] for row in connection.execute("SELECT object_id FROM galaxies").fetchall()]

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(ids), SPECTRA_ROWS):
            yield from store.spectra(ids[start : start + SPECTRA_ROWS]).combine_chunks().to_batches()

    _write_table(connection, SPECTRA, no_spectra().schema, batches())


def _write_table(connection, table: str, kind: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write what `batches` yields; what it raises is raised here as it is, where DuckDB would make its own of it."""
    raised: list[BaseException] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            raised.append(error)
            raise

    connection.register("incoming", pa.RecordBatchReader.from_batches(kind, watched()))
    try:
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming")
    except (duckdb.Error, RuntimeError):
        if raised:
            raise raised[0] from None
        raise
    finally:
        connection.unregister("incoming")


def _write_models(connection, store: BaseStore | RowView, *, with_models: bool) -> None:
    connection.execute("CREATE TABLE models (name VARCHAR, card VARCHAR, onnx BLOB, tokenizer BLOB)")
    for name in store.models() if with_models else []:
        if (model := store.model(name)) is not None:
            card, onnx, tokenizer = model
            connection.execute("INSERT INTO models VALUES ($1, $2, $3, $4)", [name, json.dumps(card), onnx, tokenizer])
