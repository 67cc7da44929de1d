"""Changing tables of facts beside `galaxies` in a folder: rows by their key, all tables in one commit.

A copy of `galaxies.duckdb` is changed and then takes its place, so that readers see the atlas before or after, and an
interruption changes nothing. Vectors and pictures are not touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from galsearch import schema
from galsearch.atomic import WriterLock, replacing
from galsearch.errors import GalsearchError, SchemaError
from galsearch.store.read.folder import FACTS, FolderStore
from galsearch.store.sql.sandbox import short
from galsearch.store.write.disk import disk_errors
from galsearch.store.write.index_tables import tables_of, write_manifest, write_words

REMEDY = "free some space, then run the same command again"
WORDED = "captions"  # the table whose words are searched


@dataclass(frozen=True)
class Rows:
    """Rows for a table of `schema.TABLES`, and the columns that say which rows of it they take the place of.

    Where they are `new`, there must be no such row: what somebody else has written meanwhile is not replaced.
    """

    table: pa.Table
    key: tuple[str, ...]
    new: bool = False


def put_rows(path: Path, tables: Mapping[str, Rows], record: dict) -> None:
    """Put rows into tables of the folder `path`, all at once; rows with the same key are replaced, others stay.

    A table that is not there is made. Rows of an object that is not in `galaxies` are left out. Tables are stored in
    the order of their key. `record` is appended to the provenance, and the words of captions are found from then on.
    Raises GalsearchError when another is writing the atlas or the disk is full, SchemaError for rows that do not fit.
    """
    for name in tables:
        if name not in schema.TABLES:
            raise SchemaError(f"table '{name}' is not in the schema; write one of {', '.join(schema.TABLES)}")
    with _changed_atlas(path, record) as connection:
        for name, rows in tables.items():
            _put(connection, name, rows)
        if WORDED in tables:
            write_words(connection)


def drop_rows(path: Path, tables: Sequence[str], key: Mapping[str, str | int], record: dict) -> None:
    """Take the rows with these values out of tables of the folder `path`, all at once.

    Tables that are not there are passed over, `record` is appended to the provenance. Raises GalsearchError when
    another is writing the atlas.
    """
    same = " AND ".join(f"{column} = ${number}" for number, column in enumerate(key, start=1))
    with _changed_atlas(path, record) as connection:
        for name in set(tables_of(connection)).intersection(tables):
            kept = f"SELECT * FROM {name} WHERE NOT ({same})"  # written anew: deleted rows leave numbers without a row
            connection.execute(f"CREATE TEMP TABLE kept AS {kept}", list(key.values()))
            connection.execute(f"DROP TABLE {name}")
            connection.execute(_created(name))
            connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM kept")
            connection.execute("DROP TABLE kept")


@contextmanager
def _changed_atlas(path: Path, record: dict) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a copy of the facts of the folder `path` to change, for its one writer; `record` joins the provenance."""
    with disk_errors(path, REMEDY), WriterLock(path):
        store = FolderStore(path)
        manifest = store.manifest
        store.close()
        with changed_facts(path) as connection:
            yield connection
            write_manifest(connection, manifest, record)


@contextmanager
def changed_facts(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a copy of the facts of the folder `path` to change, which takes their place when the block ends well."""
    with replacing(path / FACTS) as partial:
        shutil.copyfile(path / FACTS, partial)
        connection = duckdb.connect(partial)
        try:
            yield connection
            connection.execute("CHECKPOINT")
        finally:
            connection.close()


def _put(connection: duckdb.DuckDBPyConnection, name: str, rows: Rows) -> None:
    connection.execute(_created(name).replace("TABLE", "TABLE IF NOT EXISTS", 1))
    _describe(connection, name)
    connection.register("incoming", rows.table)
    there = "WHERE object_id IN (SELECT object_id FROM galaxies)" if "object_id" in rows.table.column_names else ""
    same = " AND ".join(f"old.{key} IS NOT DISTINCT FROM new.{key}" for key in rows.key)
    order = ", ".join(f"{key} NULLS FIRST" for key in _order(name, rows.key))
    if rows.new and connection.execute(f"SELECT 1 FROM {name} old SEMI JOIN incoming new ON {same} LIMIT 1").fetchall():
        raise GalsearchError(f"another has written the same rows of '{name}' meanwhile; run the same command again")
    try:
        connection.execute(
            f"CREATE TEMP TABLE amended AS SELECT * FROM (SELECT * FROM {name} AS old "
            f"WHERE NOT EXISTS (SELECT 1 FROM incoming AS new WHERE {same}) "
            f"UNION ALL BY NAME SELECT * FROM incoming {there}) ORDER BY {order}"
        )
        connection.execute(f"DROP TABLE {name}")
        connection.execute(_created(name))
        connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM amended")
        connection.execute("DROP TABLE amended")
    except (duckdb.BinderException, duckdb.ConversionException, duckdb.CatalogException) as error:
        raise SchemaError(f"rows do not fit table '{name}': {short(error)}; give the columns of its schema") from None
    finally:
        connection.unregister("incoming")


def _created(name: str) -> str:
    """Return the statement that makes a table of the schema."""
    return f"CREATE TABLE {name} ({', '.join(f'{column.name} {column.type}' for column in schema.TABLES[name])})"


def _order(name: str, key: tuple[str, ...]) -> list[str]:
    """Return the columns to order by: the key first, then every other, so that the order is total."""
    return [*key, *(column.name for column in schema.TABLES[name] if column.name not in key)]


def _describe(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Record the columns of a table that an older galsearch did not know."""
    connection.executemany(
        f"INSERT INTO {schema.COLUMNS_TABLE} SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (FROM {schema.COLUMNS_TABLE} "
        'WHERE "table" = $1 AND "column" = $2)',
        [(name, c.name, c.unit, c.ucd, c.description) for c in schema.TABLES[name]],
    )
