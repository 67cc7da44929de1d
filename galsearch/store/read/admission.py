"""What a database file may hold before anything in it is used: names, kinds and sizes, as its catalog says them.

A file may come from anyone. Only base tables of the schema `main` are read. Names that would change what our own
statements mean are refused: a view in the place of a table, a column that hides the row number, a macro by the name of
a function, columns and defaults that are computed. What else is in there is never called by us.
"""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from galsearch import schema
from galsearch.errors import FormatError
from galsearch.store.sql.allowed import EMBED

HIDDEN_BY_A_COLUMN = ("rowid",)  # what DuckDB gives a meaning to until a column has the name
PER_EMBEDDING = ("rows_", "cells_", "embedding_", "codes_", "recall_", "line_", "map_", "concepts_")
_TRIGGERS = "duckdb_triggers"  # what lists them, in a DuckDB that has them
MOST_ENTRIES = {  # rows of tables that are read as a whole
    schema.MANIFEST_TABLE: 10_000,
    schema.COLUMNS_TABLE: 1_000_000,
    "models": 1_000,
    "knowledge_bases": 10_000,
    "probes": 1_000,
    "adaptations": 1_000,
    "concepts": 1_000_000,
}
_CONSTANT = re.compile(
    r"(CAST\()?(NULL|true|false|[-+]?[0-9.]+(e[-+]?[0-9]+)?|'([^']|'')*')( AS [\w ,()]+\))?", re.IGNORECASE
)
_POSITION = ("DOUBLE", "FLOAT")
_REMEDY = "ask whoever sent it for a file as galsearch writes it, or rebuild the atlas from its source"


class Catalog:
    """The base tables of an attached file: their columns with types, `{table: {column: type}}`, and row counts."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, name: str, path: Path, size: int) -> None:
        """Read the catalog of the database `name`, which `cursor` must not `USE`. FormatError for what is refused.

        `size` is the length of its file in bytes.
        """
        self._path, self._size = path, size
        here = f"WHERE database_name = '{name}'"
        main = f"{here} AND schema_name = 'main'"
        select = "SELECT table_name, estimated_size, check_constraint_count FROM duckdb_tables()"
        result = cursor.execute(f"{select} {main}").fetchall()
        self.rows = {table: int(rows) for table, rows, _ in result}
        self._refuse_views(cursor, here)
        if self._refuse_functions(cursor, name):
            self._refuse_triggers(cursor, here)
        self._refuse_types(cursor, name)
        for table, rows, checks in result:
            self._check_size(table, rows, checks)
        self.columns: dict[str, dict[str, str]] = {table: {} for table in self.rows}
        select = "SELECT table_name, column_name, data_type, column_default, is_generated FROM duckdb_columns()"
        for table, column, kind, default, generated in cursor.execute(f"{select} {main}").fetchall():
            if table in self.columns:  # a view has columns too
                self._check_column(table, column, default, generated=generated)
                self.columns[table][column] = kind

    def _refuse_views(self, cursor: duckdb.DuckDBPyConnection, here: str) -> None:
        views = cursor.execute(f"SELECT view_name FROM duckdb_views() {here} AND schema_name = 'main' AND NOT internal")
        for (view,) in views.fetchall():
            # the decoded vectors of a compact bundle are one; we never read it, and sql() makes it anew
            if _is_ours(view) and not (view.startswith("embedding_") and f"codes_{view[10:]}" in self.rows):
                raise self._refused(f"'{view}' is a view, and it must be a table")

    def _refuse_functions(self, cursor: duckdb.DuckDBPyConnection, name: str) -> bool:
        """Refuse macros that hide functions, and say whether this DuckDB has the function that lists triggers.

        Both are read in one list of all functions, which takes most of the time of an opening.
        """
        result = cursor.execute(
            f"SELECT lower(function_name) AS function, bool_or(database_name = '{name}') AS shadowed "
            f"FROM duckdb_functions() GROUP BY function HAVING function = '{_TRIGGERS}' OR "
            f"(shadowed AND (bool_or(database_name = 'system') OR function = '{EMBED}' "
            f"OR starts_with(function, '{EMBED}_'))) ORDER BY ALL"
        ).fetchall()
        for function, shadowed in result:
            if shadowed:
                raise self._refused(f"it has a macro '{function}', which is the name of a function")
        return bool(result)

    def _refuse_types(self, cursor: duckdb.DuckDBPyConnection, name: str) -> None:
        named = "SELECT lower(type_name) FROM duckdb_types() WHERE"
        theirs = f"{named} database_name = '{name}' AND NOT internal"
        shadowed = cursor.execute(f"{theirs} INTERSECT {named} internal ORDER BY ALL").fetchall()
        if shadowed:
            raise self._refused(f"it has a type '{shadowed[0][0]}', which is the name of another")

    def _refuse_triggers(self, cursor: duckdb.DuckDBPyConnection, here: str) -> None:
        triggers = cursor.execute(f"SELECT trigger_name FROM {_TRIGGERS}() {here}").fetchall()
        if triggers:
            raise self._refused(f"it has a trigger '{triggers[0][0]}', and would change what is written into it")

    def _check_size(self, table: str, rows: int, checks: int) -> None:
        known = schema.PHRASES if table.startswith(f"{schema.PHRASES}_") else table
        most = MOST_ENTRIES.get(known, self._size)
        if rows > most:
            raise self._refused(f"table {table} has {rows} rows, at most {most} are possible in such a file")
        if checks:
            raise self._refused(f"table {table} has a CHECK, and an atlas has none")

    def _check_column(self, table: str, column: str, default: str | None, *, generated: bool) -> None:
        if _is_ours(table) and column.casefold() in HIDDEN_BY_A_COLUMN:
            raise FormatError(
                f"{self._path}: table {table} has a column '{column}', which hides the numbers of the rows from "
                "DuckDB, so that answers would be other objects; make the atlas again from its source with `galsearch "
                "build`, which renames such a column"
            )
        if generated:
            raise self._refused(f"column '{column}' of {table} is computed, and must be stored")
        if default is not None and not _CONSTANT.fullmatch(default):
            raise self._refused(f"column '{column}' of {table} has a default that is computed ({default:.40})")

    def check_types(self, embeddings: dict[str, dict]) -> None:
        """Raise FormatError where a column that every atlas has is missing, or one that we read is of another type."""
        objects = self.columns.get("galaxies")
        missing = [] if objects is None else [name for name in ("object_id", "ra", "dec") if name not in objects]
        if missing:
            raise self._refused(f"table galaxies has no column '{missing[0]}'")
        for table, column, expected in _expected(embeddings):
            kind = self.columns.get(table, {}).get(column)
            if kind is not None and kind not in expected:
                raise self._refused(f"column '{column}' of {table} is {kind}, expected {expected[0]}")

    def _refused(self, what: str) -> FormatError:
        return FormatError(f"{self._path}: {what}; {_REMEDY}")


def _is_ours(table: str) -> bool:
    """Say whether a table of this name would be read as part of the atlas."""
    name = table.casefold()
    return name == "galaxies" or name in schema.TABLES or name.startswith(PER_EMBEDDING)


def _expected(embeddings: dict[str, dict]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (table, column, the types that it may have) of everything that we read."""
    result: list[tuple[str, str, tuple[str, ...]]] = [("galaxies", "object_id", ("VARCHAR",))]
    result += [("galaxies", name, _POSITION) for name in ("ra", "dec")]
    dims = {name: space["dim"] for name, space in embeddings.items()}
    main = schema.main_embedding(embeddings)
    for table, columns in schema.TABLES.items():
        for name in embeddings if "{name}" in table else [main]:
            dim = None if name is None else dims.get(name)
            if dim is not None or "{name}" not in table:
                result += [
                    (table.format(name=name), column.name, (column.type.format(dim=dim),))
                    for column in columns
                    if dim is not None or "{dim}" not in column.type
                ]
    return [*result, *((f"rows_{name}", "row", ("BIGINT",)) for name in (*embeddings, *schema.KEPT))]
