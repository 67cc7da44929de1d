"""The facts of an atlas as DuckDB files for a browser: tables without vectors, in a given order of rows, under a limit.

What the browser's DuckDB would need an extension for is stored as plain text or time, since none is loaded there.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.atomic import spill_of
from galsearch.errors import GalsearchError
from galsearch.store.read.base import BaseStore
from galsearch.store.sql import macros
from galsearch.store.sql.sandbox import identifier, quoted
from galsearch.store.write.bundle import STORAGE_VERSION
from galsearch.store.write.disk import writing
from galsearch.store.write.index_tables import create_table

SITE_ROW = "site_row"
OF_OBJECTS = ("captions", "lines", "anomalies", "duplicates", "identifications")  # each row about one object
OF_ALL = (schema.COLUMNS_TABLE, "knowledge_bases")
SMALL_ROWS = 20_000  # up to which a file is fetched whole, so that it should be short: blocks of DuckDB are not shared
SMALL_BLOCK, BLOCK = 16_384, 262_144  # bytes
FILLED = 0.85  # of the limit, for which rows are shared out: files do not grow in proportion


class FactsFile(NamedTuple):
    """A DuckDB file: where it lies, the first of its rows and how many, and the tables that it has."""

    path: Path
    first_row: int
    rows: int
    tables: list[str]


def write_facts(store: BaseStore, folder: Path, rows: np.ndarray, *, most: int) -> list[FactsFile]:
    """Write the rows of `galaxies` in the order `rows (n,)`, and tables about them, as files of at most `most` bytes.

    `galaxies` has `site_row` first, from 0 on. A file holds the rows of other tables that are about its objects; tables
    about the whole are in the first. Raises GalsearchError where one object does not fit into a file.
    """
    tables = {name: _plain(store.sandbox.arrow(f"SELECT * FROM {identifier(name)}")) for name in _tables(store)}
    galaxies = tables.pop("galaxies").take(pa.array(rows))
    renamed = [f"{name}_in_table" if name.lower() == SITE_ROW else name for name in galaxies.column_names]
    galaxies = galaxies.rename_columns(renamed)
    galaxies = galaxies.add_column(0, SITE_ROW, pa.array(np.arange(len(rows)), pa.int32()))
    return list(_files(galaxies, tables, folder, (0, len(rows)), most))


def _files(
    galaxies: pa.Table, tables: dict[str, pa.Table], folder: Path, span: tuple[int, int], most: int
) -> Iterator[FactsFile]:
    """Yield the files of a span of rows: one, or when that is too large those of its parts."""
    start, stop = span
    path = folder / f"facts.{start}.duckdb"
    names = _write(path, galaxies.slice(start, stop - start), tables, whole=start == 0)
    size = path.stat().st_size
    if size <= most:
        yield FactsFile(path, start, stop - start, names)
        return
    path.unlink()
    if stop - start < 2:
        raise GalsearchError(
            f"the facts of one object take {size:,} bytes, and a file of the site may have {most:,}; allow larger "
            "files with --max-file-mb, or leave that column out of the atlas"
        )
    parts = min(stop - start, -(-size // int(FILLED * most)))  # two at least, since it is too large
    edges = np.linspace(start, stop, parts + 1).astype(int).tolist()
    for low, high in itertools.pairwise(edges):
        yield from _files(galaxies, tables, folder, (low, high), most)


def _tables(store: BaseStore) -> list[str]:
    return [name for name in ("galaxies", *OF_OBJECTS, *OF_ALL) if name in store.tables]


def _write(path: Path, galaxies: pa.Table, tables: dict[str, pa.Table], *, whole: bool) -> list[str]:
    """Write one file; return the names of its tables."""
    ids = galaxies["object_id"].combine_chunks()
    kept = {"galaxies": galaxies}
    for name, table in tables.items():
        if name in OF_OBJECTS and "object_id" in table.column_names:
            part = table.filter(pc.is_in(table["object_id"], value_set=ids))
            kept |= {name: part} if part.num_rows or whole else {}
        elif whole:
            kept[name] = table
    connection: duckdb.DuckDBPyConnection = writing(path)
    try:
        size = SMALL_BLOCK if galaxies.num_rows <= SMALL_ROWS else BLOCK
        connection.execute(f"ATTACH {quoted(path)} AS facts (STORAGE_VERSION '{STORAGE_VERSION}', BLOCK_SIZE {size})")
        connection.execute("USE facts")
        for name, table in kept.items():
            create_table(connection, name, table)
        for statement in macros.site_macros():
            connection.execute(statement)
        connection.execute("CHECKPOINT facts")
    finally:
        connection.close()
        shutil.rmtree(spill_of(path), ignore_errors=True)
    return list(kept)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table in types that every DuckDB knows by itself."""
    for index, field in enumerate(table.schema):
        kind, column = field.type, table.column(index)
        if isinstance(kind, pa.BaseExtensionType):  # JSON, UUID
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
            kind = column.type
        if pa.types.is_dictionary(kind):
            column = column.cast(pa.string())
        if pa.types.is_timestamp(kind) and kind.tz:
            column = column.cast(pa.timestamp(kind.unit))  # in UTC: the name of a zone needs an extension
        table = table.set_column(index, field.name, column)
    return table.replace_schema_metadata(None)
