"""What both forms of an atlas share: the facts in DuckDB, the way from a question to row numbers, the answers' order.

A row is known by its number in `galaxies`; object_ids are looked up at the end. A form adds only where its vectors and
blobs lie: `_fetch`, `_map_file`, `thumbnails`, `model`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.errors import FormatError, ModelMismatchError, QueryError
from galsearch.query import Plan
from galsearch.science.ranking import Scorer
from galsearch.store.files import Content, OpenFile
from galsearch.store.index.cells import Cells, Curves
from galsearch.store.index.fulltext import POSTINGS, Matches, holders_of, likely_holders, matches, terms_sql
from galsearch.store.index.search import Request, Tuning, best_rows
from galsearch.store.index.vectors import Chain, Fetched, Held, MapError, Mapped, Trusted, Vectors, mapped, numbers
from galsearch.store.read.admission import Catalog
from galsearch.store.read.blocks import Blocks
from galsearch.store.sql import macros
from galsearch.store.sql.allowed import EMBED
from galsearch.store.sql.macros import ROW_ALIGNED
from galsearch.store.sql.sandbox import NAME, NO_TEXT, Sandbox, damaged, identifier

OPENED_AGAIN = 20  # times, while others rename files into the place of one that is being opened
BATCH_ROWS = 8_192  # read or written at a time
MOST_KINDS = 100  # of queries with a threshold; there are two
HELD_NUMBERS = 1 << 28  # and so many numbers of vectors that only their engine can read, 1 GB
FEW_LOOKED_UP = 4  # up to so many are quicker sought in memory one by one
MOST_MEASURED = 100_000  # rows of measured recall
REFERENCE_ROWS = 4_096  # vectors that a score is compared with to say how unusual it is
MOST_PICTURE_BYTES = 16 << 20  # of a thumbnail; a larger one is none
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")  # of a table beside those of the atlas
_MODEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
RECALL = 0.98  # wished for, unless a search says otherwise; what is reached is a little more
ENGINE_TABLES = (
    "rows_",
    "cells_",
    "embedding_",
    "codes_",
    "recall_",
    "line_",
    "map_",
)  # per embedding, made anew by whoever writes
OWN_TABLES = {schema.MANIFEST_TABLE, schema.MAP_TABLE, *schema.KEPT, "models", POSTINGS}


class OwnCondition(str):
    """A condition made of numbers alone, such as a cone: no text of a visitor is in it."""

    __slots__ = ()


class Stored(NamedTuple):
    """Vectors as they are stored: their object_ids, `(n, d) float32`, and their cells `(n,)` where they are noted."""

    ids: pa.Array
    vectors: np.ndarray
    cell: np.ndarray | None = None


class BaseStore:
    """An open atlas, read-only. Vectors go in and out as numpy arrays, rows as Arrow tables, ids as text."""

    kind: str
    grows = False  # whether rows can be added
    tuning = Tuning()  # `open_store` takes another
    objects: int  # rows of `galaxies`; what the manifest says of them is only compared with it, by `check`

    def __init__(self, path: Path, facts: Path | Content) -> None:
        self.path = path
        self._file: Content
        self._file, self.sandbox = _opened_by_both(facts) if isinstance(facts, Path) else _served(facts)
        self.sandbox.watch = self._file.check
        self._vectors: dict[str, Vectors] = {}
        self._index: dict[str, Cells | None] = {}
        self._sample: dict[str, np.ndarray] = {}
        self._thresholds: dict[str, dict[str, float | None]] = {}
        self._among: tuple[np.ndarray, str, np.ndarray] | None = None
        self._known_rows: dict[str, int] = {}
        self._pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        try:
            self._catalog = self._read_catalog()
            self.tables = set(self._catalog.columns)
            self.manifest = self._read_manifest()
            self._catalog.check_types(self.manifest.embeddings)
            self.objects, self._span = self._count_objects()
        except BaseException:
            self.close()
            raise

    @property
    def parts(self) -> Sequence[BaseStore]:
        """The atlases that are query_kind: this one."""
        return [self]

    def close(self) -> None:
        """Release the files; questions that other threads ask at the time end with an error."""
        self.sandbox.close()
        self._file.close()

    # ---- facts

    def _read_manifest(self) -> schema.Manifest:
        if schema.MANIFEST_TABLE not in self.tables:
            raise FormatError(
                f"{self.path}: this is a DuckDB file without a {schema.MANIFEST_TABLE} table, so not an atlas; "
                "make one with `galsearch build` and `galsearch bundle`"
            )
        sizes = f"SELECT coalesce(sum(strlen(key) + strlen(value)), 0)::BIGINT FROM {schema.MANIFEST_TABLE}"
        if self.sandbox.rows(sizes)[0][0] > schema.MOST_JSON_BYTES:
            raise FormatError(
                f"{self.path}: the manifest is longer than {schema.MOST_JSON_BYTES >> 20} MB, so this is no atlas of "
                "galsearch; rebuild it from its source"
            )
        result = self.sandbox.rows(f"SELECT key, value FROM {schema.MANIFEST_TABLE}")
        return schema.Manifest.from_rows(result, path=str(self.path))

    def _read_catalog(self) -> Catalog:
        cursor = self.sandbox.catalog()
        try:
            return Catalog(cursor, NAME, self._file.path, self._file.size)
        except (duckdb.Error, *NO_TEXT) as error:
            raise damaged(self._file.path, error) from None
        finally:
            cursor.close()

    def describe(self) -> pa.Table:
        """Return the public columns of `galaxies`: column, type, unit, ucd, description, in table order."""
        return self.sandbox.arrow(
            "SELECT d.column_name AS column, d.data_type AS type, coalesce(c.unit, '') AS unit, "
            "coalesce(c.ucd, '') AS ucd, coalesce(c.description, '') AS description "
            f'FROM duckdb_columns() d LEFT JOIN {schema.COLUMNS_TABLE} c ON c."table" = d.table_name '
            f"AND c.\"column\" = d.column_name WHERE d.database_name = '{NAME}' AND d.table_name = 'galaxies' "
            "ORDER BY d.column_index"
        )

    def columns_of(self, condition: str) -> set[str]:
        """Return the names of columns that stand in a condition; none where it cannot be parsed."""
        tree = self.sandbox.rows("SELECT json_serialize_sql($1::VARCHAR)", [f"SELECT ({condition}\n)"])[0][0]
        return set(_column_names(json.loads(tree)))

    def table(self, name: str) -> pa.Table | None:
        """Return all rows of a table beside `galaxies`, such as "captions"; None where there is no such table."""
        return self.sandbox.arrow(f"SELECT * FROM {identifier(name)}") if name in self.tables else None

    def fact_tables(self) -> set[str]:
        """Return the tables that hold facts, not vectors, pictures, models or the store's own bookkeeping."""
        return {name for name in self.tables - OWN_TABLES if not name.startswith(ENGINE_TABLES)}

    def rows_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the row numbers of `ids` that there are, in that order.

        Rows once found are remembered, as are those of answers: what a user asks about next was mostly just shown.
        """
        ids = [str(name) for name in ids]  # survey ids are numbers to some
        known = {name: row for name in ids if (row := self._known_rows.get(name)) is not None}
        unknown = [name for name in dict.fromkeys(ids) if name not in known]
        if unknown:
            result = self._look_up(unknown)
            self._remember(result)
            known |= result
        return np.array([known[name] for name in ids if name in known], np.int64)

    def _look_up(self, ids: list[str]) -> dict[str, int]:
        """Return the row numbers of those of `ids` that there are: the file has no index of them, so all are read."""
        if "_held_ids" in self.__dict__ and len(ids) <= FEW_LOOKED_UP:
            rows = ((name, pc.index(self._held_ids, name).as_py()) for name in ids)
            return {name: row for name, row in rows if row >= 0}
        self._check_numbers()
        wanted = "SELECT object_id, rowid FROM galaxies WHERE object_id IN (SELECT unnest($1::VARCHAR[]))"
        return dict(self.sandbox.rows(wanted, [ids]))

    def _remember(self, rows: dict[str, int]) -> None:
        if len(self._known_rows) + len(rows) > self.tuning.known_rows:
            self._known_rows = {}
        self._known_rows.update(rows)

    def ids(self, rows: np.ndarray) -> list[str]:
        """Return the object_ids of row numbers, in that order."""
        indices = rows.tolist()
        if self.objects <= self.tuning.held_ids and len(indices) <= self.tuning.few_ids:
            result = [self._held_ids[row].as_py() for row in indices]
        else:
            result = self.id_column(rows).to_pylist()
        if len(indices) <= self.tuning.known_rows // 10:  # not what a whole atlas is walked through by
            self._remember(dict(zip(result, indices, strict=True)))
        return result

    def id_column(self, rows: np.ndarray) -> pa.Array | pa.ChunkedArray:
        """Return the object_ids of row numbers, in that order, as Arrow text."""
        if self.objects <= self.tuning.held_ids:
            return self._held_ids.take(_column(pa.int64(), rows))
        self._check_numbers()
        self._fetch_rows(rows, ["object_id"])
        statement = "SELECT rowid AS row, object_id FROM galaxies WHERE rowid IN (SELECT unnest($1::BIGINT[]))"
        result = self.sandbox.arrow(statement, [rows.tolist()])
        return result["object_id"].take(_column(pa.int64(), _find(numbers(result, "row"), rows)))

    @functools.cached_property
    def _held_ids(self) -> pa.Array:
        self._check_numbers()
        return self.sandbox.arrow("SELECT object_id FROM galaxies")["object_id"].combine_chunks()

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `galaxies` for `ids`, in that order; ids that are not there are left out."""
        result = self.hits(self.rows_of(ids), None)
        table = result.remove_column(result.column_names.index("score"))
        renamed = ["score" if name == "score_in_table" else name for name in table.column_names]
        return table.rename_columns(renamed)

    def hits(self, rows: np.ndarray, scores: np.ndarray | None) -> pa.Table:
        """Return object_id, score and every other column of row numbers, in that order.

        A small atlas keeps its rows in memory after the first search. Nothing here makes an Arrow column of Python
        objects: that imports pandas, a third of a second.
        """
        if self.in_memory:
            result = self._held_rows.take(_column(pa.int64(), rows))
        else:
            self._check_numbers()
            self._fetch_rows(rows)
            columns = self._hit_columns("NULL::FLOAT")
            statement = (
                f"SELECT galaxies.rowid AS row, {columns} FROM galaxies WHERE rowid IN (SELECT unnest($1::BIGINT[]))"
            )
            result = self.sandbox.arrow(statement, [rows.tolist()])
            result = result.take(_column(pa.int64(), _find(numbers(result, "row"), rows))).remove_column(0)
            result = self._with_units(result)
        if scores is None:
            return result
        column = _column(pa.float32(), np.asarray(scores, np.float32))
        return result.set_column(result.column_names.index("score"), result.field("score"), column)

    @property
    def elsewhere(self) -> bool:
        """Say whether it is read over a network, where each byte counts."""
        return not isinstance(self._file, OpenFile)

    @functools.cached_property
    def _blocks(self) -> Blocks | None:
        """Where rows lie in a file that is elsewhere; None for one on this machine, which needs no such care."""
        return Blocks(self.sandbox, self._file.size) if self.elsewhere else None

    def _fetch_rows(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> None:
        """Have what a file elsewhere holds of rows of `galaxies` at hand, all at once."""
        if self._blocks is not None:
            self._file.fetch(self._blocks.of_rows("galaxies", rows, columns))

    def _fetch_index(self, embedding: str) -> None:
        """Have the map and the index of an embedding in a file elsewhere at hand, all at once."""
        if self._blocks is not None:
            index = (schema.MAP_TABLE, f"cells_{embedding}", f"recall_{embedding}", f"line_{embedding}")
            self._file.fetch(self._blocks.of_tables([name for name in index if name in self.tables]))

    @property
    def in_memory(self) -> bool:
        """Say whether the columns of all objects are kept in memory."""
        return self.objects <= self.tuning.held_rows

    def _check_numbers(self) -> None:
        """Raise FormatError unless the rows of `galaxies` are numbered from 0 on without a gap."""
        if self._span != self.objects:
            raise FormatError(
                f"{self.path}: rows of galaxies were taken out one by one ({self.objects} are numbered up to "
                f"{self._span}), so that rows and vectors no longer belong together; make the atlas again from its "
                "source, or bundle the objects that are wanted"
            )

    def _count_objects(self) -> tuple[int, int]:
        """Return how many objects there are, and one more than the largest row number."""
        if "galaxies" not in self.tables:
            return 0, 0  # which is said to be missing where every table is looked for
        return self.sandbox.rows("SELECT count(*), coalesce(max(rowid) + 1, 0) FROM galaxies")[0]

    @functools.cached_property
    def _held_rows(self) -> pa.Table:
        """All rows as hits without scores."""
        self._check_numbers()
        return self._with_units(self.sandbox.arrow(f"SELECT {self._hit_columns('NULL::FLOAT')} FROM galaxies"))

    def listed(self, condition: str | None, *, k: int) -> tuple[np.ndarray, int]:
        """Return the numbers of the first k rows that pass `condition`, by object_id, and how many pass in all."""
        self._check_numbers()
        cut = f" WHERE {condition}" if condition else ""
        rows = numbers(
            self._cut(f"SELECT rowid AS row FROM galaxies{cut} ORDER BY object_id LIMIT {k}", condition), "row"
        )
        return rows, self.count(condition) if len(rows) == k else len(rows)

    def _cut(self, statement: str, condition: str | None) -> pa.Table:
        """Run a statement with a condition; with nobody's text in it, no visitor's process is needed."""
        if condition is None:
            return self.sandbox.arrow(statement)
        if isinstance(condition, OwnCondition):
            return self.sandbox.select_here(statement, title="near")
        return self.sandbox.select(statement, title="where")

    def select(self, columns: Sequence[str], condition: str | None) -> pa.Table:
        """Return object_id and `columns` of the objects that pass `condition`, by object_id."""
        names = ", ".join(identifier(name) for name in dict.fromkeys(["object_id", *columns]))
        cut = f" WHERE {condition}" if condition else ""
        return self.sandbox.select(f"SELECT {names} FROM galaxies{cut} ORDER BY object_id", title="where")

    def by_row(self, column: str) -> pa.Array:
        """Return the values of one column of `galaxies`, by row number; QueryError where there is no such column."""
        known = self.describe()["column"].to_pylist()
        if column not in known:
            raise QueryError(f"{self.path} has no column '{column}', it has {', '.join(known[:40])}")
        self._check_numbers()
        result = self.sandbox.arrow(f"SELECT {identifier(column)} FROM galaxies ORDER BY rowid")
        return result.column(0).combine_chunks()

    def labeled_rows(self, base: str, version: int) -> pa.Table:
        """Return row, label and value of the members of a knowledge base that the atlas has, by row number.

        Raises FormatError where an object is in it twice.
        """
        if "knowledge_labels" not in self.tables:
            return pa.table({"row": pa.array([], pa.int64()), "label": pa.array([], pa.string()), "value": []})
        self._check_numbers()
        result = self.sandbox.arrow(
            "SELECT g.rowid AS row, l.label, l.value FROM knowledge_labels l JOIN galaxies g USING (object_id) "
            "WHERE l.base = $1 AND l.version = $2 ORDER BY row",
            [base, version],
        )
        rows = numbers(result, "row")
        if (rows[1:] == rows[:-1]).any():
            raise FormatError(f"{self.path}: knowledge base '{base}' has an object twice; create it again")
        return result

    def rows_with(self, table: str, columns: Sequence[str]) -> pa.Table:
        """Return row and `columns` of the rows of a table about objects that the atlas has, by row number.

        Without the table there are none, and only `row` is a column. Raises FormatError where a column is missing.
        """
        if table not in self.tables:
            return pa.table({"row": pa.array([], pa.int64())})
        self._check_numbers()
        there = self.sandbox.arrow(f"SELECT * FROM {identifier(table)} LIMIT 0").column_names
        missing = [name for name in ("object_id", *columns) if name not in there]
        if missing:
            raise FormatError(f"{self.path}: table {table} has no column '{missing[0]}'; write it again")
        wanted = ", ".join(f"t.{identifier(name)}" for name in columns)
        return self.sandbox.arrow(
            f"SELECT g.rowid AS row, {wanted} FROM {identifier(table)} t JOIN galaxies g USING (object_id) ORDER BY ALL"
        )

    def duplicate_groups(self) -> np.ndarray | None:
        """Return the group of each row by the run saved last, `(n,) int64`, -1 for none; None without such a run."""
        return self._duplicate_groups

    @functools.cached_property
    def _duplicate_groups(self) -> np.ndarray | None:
        runs = self.manifest.runs("duplicates")
        table = self.rows_with("duplicates", ("run", "group_id"))
        if not runs or not table.num_rows:
            return None
        if table["group_id"].null_count:
            raise FormatError(
                f"{self.path}: table duplicates has rows without a group; save the groups again with "
                "`galsearch duplicates --save`"
            )
        table = table.filter(pc.equal(table["run"], runs[-1]))
        groups = np.full(self.manifest.rows, -1, np.int64)
        groups[numbers(table, "row")] = numbers(table, "group_id")
        return groups

    def _hit_columns(self, score: str) -> str:
        """Return the select list of hits; a column of the source called score keeps its values as score_in_table."""
        rename = " RENAME (score AS score_in_table)" if "score_in_table" in self._about else ""
        return f"galaxies.object_id, {score} AS score, galaxies.* EXCLUDE (object_id){rename}"

    def has(self, object_id: str) -> bool:
        """Say whether there is such an object."""
        return len(self.rows_of([object_id])) > 0

    def similar_ids(self, object_id: str, *, n: int) -> list[str]:
        """Return up to `n` ids that differ from one in few letters, the most alike first; equal ones by id."""
        most = max(1, len(object_id) // 5)
        return [
            name
            for (name,) in self.sandbox.rows(
                "SELECT object_id FROM galaxies WHERE abs(length(object_id) - length($1::VARCHAR)) <= $2 "
                "AND damerau_levenshtein(lower(object_id), lower($1::VARCHAR)) <= $2 "
                "ORDER BY damerau_levenshtein(object_id, $1::VARCHAR), object_id LIMIT $3",
                [object_id, most, n],
            )
        ]

    def _with_units(self, table: pa.Table) -> pa.Table:
        """Give the columns that are known by name and type their unit, UCD and description."""
        known = {item.name: item for item in self._fields}
        fields = [
            known[item.name] if item.name in known and known[item.name].type == item.type else item
            for item in table.schema
        ]
        return table.cast(pa.schema(fields))

    @functools.cached_property
    def _fields(self) -> list[pa.Field]:
        """The columns of hits as Arrow fields with their metadata."""
        columns = self.sandbox.arrow(f"SELECT {self._hit_columns('NULL::FLOAT')} FROM galaxies LIMIT 0").schema
        return [item.with_metadata(self._about.get(item.name)) for item in columns]

    @functools.cached_property
    def _about(self) -> dict[str, dict[str, str]]:
        """What is said of each column of `galaxies`, as Arrow field metadata."""
        keys = ("unit", "ucd", "description")
        about = {row["column"]: {key: row[key] for key in keys} for row in self.describe().to_pylist()}
        score = schema.SCORE
        hit = {"unit": score.unit, "ucd": score.ucd, "description": score.description}
        return (
            {"score_in_table": about["score"], **about, "score": hit} if "score" in about else {**about, "score": hit}
        )

    # ---- cuts

    def condition(self, where: str | None, near: tuple[float, float] | None, radius_arcsec: float | None) -> str | None:
        """Return one SQL condition on `galaxies` for the cuts of a query, checked, or None when there is no cut.

        The cone is inclusive and right at the poles and across RA 0. Objects without a position never match one.
        """
        parts = []
        if where is not None:
            self.prepare(where)
            self.sandbox.check_condition(where)
            parts.append(f"({where}\n)")
        if near is not None and radius_arcsec is not None:
            parts.append(_cone(near, radius_arcsec))
        joined = " AND ".join(parts)
        return (OwnCondition(joined) if where is None else joined) or None

    def count(self, condition: str | None) -> int:
        """Return how many objects pass `condition`."""
        if condition is None:
            return self.objects
        return self._cut(f"SELECT count(*) AS n FROM galaxies WHERE {condition}", condition)["n"][0].as_py()

    def _passing(self, condition: str) -> np.ndarray:
        """Return the row numbers of the objects that pass, ascending."""
        self._check_numbers()
        result = numbers(self._cut(f"SELECT rowid AS row FROM galaxies WHERE {condition}", condition), "row")
        return result if (result[1:] > result[:-1]).all() else np.sort(result)

    def holds(self, table: str) -> bool:
        """Say whether there are rows for objects in `table`, "thumbnails" or "spectra"."""
        raise NotImplementedError

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the pictures (WebP) of `ids`; ids without one are absent."""
        raise NotImplementedError

    def spectra(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of the table `spectra` for `ids`, in that order; ids without one are absent."""
        raise NotImplementedError

    def models(self) -> list[str]:
        """Return the names of the models that travel along."""
        raise NotImplementedError

    def card(self, name: str) -> dict | None:
        """Return the card of a model; None where there is none."""
        kept = self.model(name)
        return None if kept is None else kept[0]

    def model(self, name: str) -> tuple[dict, bytes, bytes | None] | None:
        """Return (card, ONNX bytes, tokenizer bytes) of a model; None where there is none."""
        raise NotImplementedError

    def holders(self, embedding: str) -> str:
        """Return a SELECT of `object_id` and `place`, the row number of its vector, for the objects that have one."""
        raise NotImplementedError

    def ids_with(self, table: str) -> set[str]:
        """Return the object_ids that have a row in `table`, "thumbnails" or "spectra"."""
        if not self.holds(table):
            return set()
        return {name for (name,) in self.sandbox.rows(f"SELECT object_id FROM ({self.holders(table)})")}

    def _space(self, embedding: str) -> dict:
        self.sandbox.check_open()
        try:
            return self.manifest.embeddings[embedding]
        except KeyError:
            there = ", ".join(self.manifest.embeddings) or "none"
            raise QueryError(f"{self.path} has no embedding '{embedding}', it has: {there}") from None

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return ra, dec of row numbers in degrees ICRS, `(n, 2) float64`, NaN where unknown."""
        table = self.hits(rows, None)
        result = [np.array(table[name].to_pylist(), np.float64) for name in ("ra", "dec")]
        return np.stack(result, axis=1).reshape(-1, 2)

    def between(self, low: float, high: float, condition: str | None) -> pa.Table:
        """Return row, object_id, ra and dec of the objects in a band of declinations that pass, by object_id."""
        cut = f" AND ({condition})" if condition else ""
        return self.sandbox.select(
            "SELECT rowid AS row, object_id, ra::DOUBLE AS ra, dec::DOUBLE AS dec FROM galaxies "
            f"WHERE ra IS NOT NULL AND dec BETWEEN {low!r} AND {high!r}{cut} ORDER BY object_id",
            title="where",
        )

    # ---- words

    def terms_of(self, text: str) -> set[str]:
        """Return the terms of a text, as the full-text index counts them."""
        return set(self.sandbox.rows(f"SELECT {terms_sql('$1::VARCHAR')}", [text])[0][0])

    def caption_terms(self) -> list[tuple[int, str, int]]:
        """Return (row, term, how often) of all captions; several captions of an object count as one text."""
        if "captions" not in self.tables:
            return []
        terms = f"SELECT object_id, unnest({terms_sql('caption')}) AS term FROM captions WHERE caption IS NOT NULL"
        return self.sandbox.rows(
            f"SELECT g.rowid, term, count(*)::BIGINT FROM ({terms}) JOIN galaxies g USING (object_id) GROUP BY ALL"
        )

    def words(self, text: str, condition: str | None) -> Matches:
        """Return the rows that have a word of `text` in their names or captions, and their BM25 scores, best first."""
        passing = None if condition is None else self._passing(condition)
        result = matches(self.sandbox, text, passing) if POSTINGS in self.tables else None
        if result is None:
            raise QueryError(
                f"{self.path} has no index of words, so they cannot be matched; build or bundle it again, or leave "
                "hybrid out"
            )
        return result

    def rows_named(self, text: str, *, most: int) -> np.ndarray:
        """Return up to `most` row numbers of objects that `text` may name: they hold all its words, in any column."""
        if POSTINGS in self.tables:
            result = holders_of(self.sandbox, text, most=most)
        else:
            known = self.describe().to_pylist()
            columns = [row["column"] for row in known if row["type"] == "VARCHAR" and row["column"] != "file"]
            result = likely_holders(self.sandbox, text, columns, most=most)
        return np.array([row for row in result if 0 <= row < self.manifest.rows], np.int64)

    # ---- vectors

    def has_vector(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Say which row numbers have a vector, `(n,) bool`."""
        self._space(embedding)
        return self.vector_rows(embedding, rows) >= 0

    def scores(self, embedding: str, scorer: Scorer, rows: np.ndarray) -> np.ndarray:
        """Return the scores of row numbers, `(n,) float32`; NaN for objects without a vector."""
        indices = self.vector_rows(embedding, rows)
        out = np.full(len(rows), np.nan, np.float32)
        out[indices >= 0] = scorer.exact(self.vectors(embedding).take(indices[indices >= 0]))
        return out

    def vectors_of(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of row numbers that all have one, `(n, d) float32`."""
        return self.vectors(embedding).take(self.vector_rows(embedding, rows))

    def reference_scores(self, embedding: str, scorer: Scorer) -> np.ndarray:
        """Return the scores of a sample of the atlas, the same one every time, ascending."""
        if embedding not in self._sample:
            rows = self.vectors(embedding).rows
            chosen = np.random.default_rng(0).choice(rows, size=min(REFERENCE_ROWS, rows), replace=False)
            self._sample[embedding] = self.vectors(embedding).take(np.sort(chosen))
        return np.sort(scorer.of(self._sample[embedding]))

    def threshold(self, embedding: str, query_kind: str | None) -> float | None:
        """Return the score under which nothing is convincing; None where it was not measured for such queries."""
        if query_kind is None or f"line_{embedding}" not in self.tables:
            return None
        if embedding not in self._thresholds:
            rows = self.sandbox.rows(f"SELECT asked, score FROM line_{embedding} LIMIT {MOST_KINDS}")
            self._thresholds[embedding] = dict(reversed(rows))
        return self._thresholds[embedding].get(query_kind)

    def embeddings(self, embedding: str, ids: Sequence[str]) -> np.ndarray:
        """Return the stored unit vectors of `ids`, `(n, d) float32`, in that order; all ids must have one."""
        self._space(embedding)
        rows = self.rows_of(ids)
        indices = self.vector_rows(embedding, rows)
        if len(rows) < len(ids) or (indices < 0).any():
            lost = set(ids) - set(self.ids(rows[indices >= 0]))
            raise QueryError(
                f"object '{next(i for i in ids if i in lost)}' has no vector in {self.path}, so nothing can be "
                "compared with it; choose another, or ask in words"
            )
        return self.vectors(embedding).take(indices)

    def vectors(self, embedding: str) -> Vectors:
        """Return all vectors of an embedding by their own row numbers: in place, or where that fails by the engine."""
        if embedding not in self._vectors:
            self._fetch_index(embedding)
            rows, engine = self.vector_count(embedding), functools.partial(self._unmapped, embedding)
            try:
                result = Trusted(self._mapped_vectors(embedding), engine)
                self._vectors[embedding] = result if result.rows == rows else engine()
            except MapError:
                self._vectors[embedding] = engine()
        return self._vectors[embedding]

    def map_faults(self, embedding: str) -> tuple[int, list[str]]:
        """Return how many runs of the map do not have the digest noted, and why parts of it cannot be used."""
        bad, unused = 0, []
        for part, (width, dtype) in self._parts(embedding).items():
            try:
                bad += self._mapped(part, width, dtype=dtype).damaged_runs()
            except MapError as error:
                unused.append(f"{part}: {error}")
        return bad, unused

    def _parts(self, embedding: str) -> dict[str, tuple[int, type]]:
        """Return what the map may have of an embedding, by name: how many numbers a row, and of which type."""
        return {f"embedding_{embedding}": (self._space(embedding)["dim"], np.float32)}

    def _mapped_vectors(self, embedding: str) -> Vectors:
        """Return the vectors of an embedding as the mapped file holds them. Raises MapError."""
        return self._mapped(f"embedding_{embedding}", self._space(embedding)["dim"])

    def _mapped(self, name: str, width: int, *, dtype: type = np.float32) -> Mapped | Chain:
        if schema.MAP_TABLE not in self.tables:
            raise MapError("there is no map")
        runs = self.sandbox.arrow(
            "SELECT file, first_value, run_values, byte_offset, head, crc32 "
            f"FROM {schema.MAP_TABLE} WHERE name = $1 ORDER BY first_value",
            [name],
        )
        if not runs.num_rows:
            raise MapError("the map is empty")
        return mapped(runs, width, self._map_file, dtype=dtype)

    def _unmapped(self, embedding: str) -> Vectors:
        dim = self._space(embedding)["dim"]
        result = Fetched(self.vector_count(embedding), dim, functools.partial(self._fetch, embedding))
        small = result.rows <= self.tuning.held_rows and result.rows * dim <= HELD_NUMBERS
        return Held(result.take(np.arange(result.rows))) if small else result

    def vector_count(self, embedding: str) -> int:
        """Return how many vectors there are; what the manifest says of it is only compared with it, by `check`."""
        raise NotImplementedError

    def _map_file(self, file: str | None) -> Path | Content:
        """Return a file that the map names, or its path; None is the file of the facts."""
        raise NotImplementedError

    def _fetch(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Return the vectors at sorted row numbers from their engine."""
        raise NotImplementedError

    def cells(self, embedding: str) -> Cells | None:
        """Return the index of an embedding; None when there is none."""
        if embedding not in self._index:
            self._index[embedding] = self._read_cells(embedding) if f"cells_{embedding}" in self.tables else None
        return self._index[embedding]

    def unindexed(self, embedding: str) -> int:
        """Return how many vectors lie in no cell; every question compares them all."""
        known = self.cells(embedding)
        return self.vector_count(embedding) - (int(known.starts[-1]) if known else 0)

    def _read_centroids(self, embedding: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the centroids of the cells, `(c, d) float32`, and where their rows begin, `(c + 1,) int64`."""
        table = self.sandbox.arrow(f"SELECT cell::BIGINT AS cell, rows FROM cells_{embedding} ORDER BY cell")
        cell, held = numbers(table, "cell"), numbers(table, "rows")
        every = self.vector_count(embedding)
        each = ((held >= 0) & (held <= every)).all()  # then their sum is a number
        if not (np.array_equal(cell, np.arange(len(cell))) and each and held.sum() <= every):
            raise self._damaged_index(embedding, f"the cells do not share out its {every} vectors")
        starts = np.concatenate([[0], np.cumsum(held)]).astype(np.int64)
        try:
            result = self._mapped(f"cells_{embedding}", self._space(embedding)["dim"])
            centroids = result.take(np.arange(result.rows)) if result.rows == len(held) else None
        except MapError:
            centroids = None
        if centroids is None:
            column = self.sandbox.arrow(f"SELECT centroid FROM cells_{embedding} ORDER BY cell")["centroid"]
            centroids = vectors(column)
        if not np.isfinite(centroids).all():
            raise self._damaged_index(embedding, "a centroid is not finite")
        return centroids, starts

    def _damaged_index(self, embedding: str, what: str) -> FormatError:
        return FormatError(
            f"{self.path}: the index of '{embedding}' is damaged ({what}); copy the atlas again, or rebuild it"
        )

    def _read_cells(self, embedding: str) -> Cells | None:
        centroids, starts = self._read_centroids(embedding)
        if len(centroids) < 2:
            return None
        return Cells(centroids, starts, Curves(self._read_curves(embedding, len(centroids))))

    def _read_curves(self, embedding: str, cells: int) -> list[tuple[str, int, int, float]]:
        """Return what was measured of the recall, without what no measurement can be."""
        table = f"recall_{embedding}"
        if table not in self.tables or self._catalog.rows[table] > MOST_MEASURED:
            return []
        return self.sandbox.rows(
            f"SELECT asked, depth, probes, recall FROM {table} WHERE asked IS NOT NULL AND depth > 0 "
            f"AND probes BETWEEN 1 AND {cells} AND recall BETWEEN 0 AND 1"
        )

    def vector_rows(self, embedding: str, rows: np.ndarray) -> np.ndarray:
        """Return the places of objects among the vectors; -1 for one that has none."""
        if self._is_aligned(embedding):
            return np.where(rows < self.vector_count(embedding), rows, -1)
        return self._joined(embedding)[0][rows]

    def object_rows(self, embedding: str, vector_rows: np.ndarray) -> np.ndarray:
        """Return the row numbers in `galaxies` of vector_rows among the vectors."""
        return vector_rows if self._is_aligned(embedding) else self._joined(embedding)[1][vector_rows]

    def _is_aligned(self, embedding: str) -> bool:
        """Say whether row i of the vectors is the object of row i of `galaxies`, for every vector."""
        return bool(self._space(embedding).get(ROW_ALIGNED)) and self.vector_count(embedding) <= self.objects

    def _joined(self, embedding: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the place among the vectors of each row of `galaxies` (-1: none), and the reverse."""
        if embedding not in self._pairs:
            self._check_numbers()
            joined = f"JOIN ({self.holders(embedding)}) h ON h.object_id = g.object_id"
            result = self.sandbox.arrow(f"SELECT g.rowid AS row, h.place FROM galaxies g {joined}")
            rows, indices, count = numbers(result, "row"), numbers(result, "place"), self.vector_count(embedding)
            if len(indices) != count or not np.array_equal(np.sort(indices), np.arange(count)):
                raise self._damaged_index(embedding, "not every vector has one object")
            there, back = np.full(self.objects, -1, np.int64), np.zeros(count, np.int64)
            there[rows], back[indices] = indices, rows
            self._pairs[embedding] = there, back
        return self._pairs[embedding]

    # ---- search

    def nearest(
        self,
        scorer: Scorer,
        *,
        k: int,
        embedding: str,
        condition: str | None = None,
        among: np.ndarray | None = None,
        exclude: Sequence[str] = (),
        exact: bool = False,
        probes: int | None = None,
        recall: float | None = None,
        query_kind: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray, Plan]:
        """Return the row numbers and scores `(n,) float32` of the best objects that pass `condition`, best first.

        n is min(k, matches), always. Equal scores are ordered by object_id. `among` are row numbers to look at,
        ascending, in the place of a condition; they must not be changed afterwards. `scorer` is of the embedding's
        length; another is a ModelMismatchError. `exclude` is left out of the answer and of the matches. `query_kind`
        says what the query is like (cells.LIKE or cells.WORDS), which decides how many cells reach `recall`.
        """
        space = self._space(embedding)
        if scorer.dim != space["dim"]:
            raise ModelMismatchError(
                f"the query has {scorer.dim} dimensions and {self.path} holds '{embedding}' vectors of "
                f"{space['dim']} ({space['model']}); embed it with the atlas's own model: atlas.embed(…)"
            )
        clock = time.perf_counter()
        matching = None if condition is None else self._vector_rows_of(self._passing(condition), embedding)
        if among is not None:
            matching = self._vector_rows_among(among, embedding)
        filtered = time.perf_counter()
        left_out = self.vector_rows(embedding, self.rows_of(exclude)) if exclude else np.empty(0, np.int64)
        hit = len(left_out) if matching is None else sum(_has(matching, index) for index in left_out.tolist())
        request = Request(scorer, k + hit, matching, exact, probes, recall or RECALL, query_kind, self.tuning)
        indices, scores, plan = best_rows(self.vectors(embedding), self.cells(embedding), request)
        if hit:
            kept = ~np.isin(indices, left_out)
            indices, scores = indices[kept], scores[kept]
        rows, scores = self._ordered(self.object_rows(embedding, indices), scores, k)
        plan.matches -= hit
        plan.milliseconds = {
            "filter": (filtered - clock) * 1e3,
            "search": (time.perf_counter() - filtered) * 1e3,
        }
        return rows, scores, plan

    def _vector_rows_among(self, among: np.ndarray, embedding: str) -> np.ndarray:
        """Return `_vector_rows_of` some rows, kept for those asked for last: many questions are asked of one base."""
        kept = self._among
        if kept is None or kept[0] is not among or kept[1] != embedding:
            kept = self._among = (among, embedding, self._vector_rows_of(among, embedding))
        return kept[2]

    def _vector_rows_of(self, rows: np.ndarray, embedding: str) -> np.ndarray:
        """Return the places among the vectors of ascending row numbers, ascending, without those that have none."""
        if self._is_aligned(embedding):
            return rows[: np.searchsorted(rows, self.vector_count(embedding))]
        indices = self.vector_rows(embedding, rows)
        return np.sort(indices[indices >= 0])

    def _ordered(self, rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best; object_ids are looked up only for scores that are equal."""
        k = min(k, len(rows))
        tied = scores >= scores[k - 1] if k else scores < 0
        rows, scores = rows[tied], scores[tied]
        if (scores[1:] == scores[:-1]).any():  # they are in order
            order = np.lexsort((np.array([name or "" for name in self.ids(rows)], dtype=object), -scores))
            rows, scores = rows[order], scores[order]
        return rows[:k], scores[:k]

    def corrupt_tables(self) -> list[str]:
        """Read every value of every table and return the messages of those that cannot be read."""
        bad = []
        for name in sorted(self.tables):
            try:
                self.sandbox.rows(
                    f"SELECT bit_xor(hash({(row := self._no_column(name))})) FROM {identifier(name)} {row}"
                )
            except FormatError as error:
                bad.append(f"table {name}: {error}")
        return bad

    def _no_column(self, table: str) -> str:
        """Return a name that no column of a table has, for the table as a whole."""
        known = {column.casefold() for column in self._catalog.columns[table]}
        return next(name for name in (f"every_{number}" for number in range(len(known) + 1)) if name not in known)

    def stored(self, embedding: str) -> Iterator[Stored]:
        """Yield the vectors with their object_ids as their engine has them, in the order in which they are stored.

        Nothing here goes by row numbers or by the map, so that `check` can compare both with it.
        """
        raise NotImplementedError

    # ---- SQL

    def sql(
        self, text: str, *, embed: Callable[[str, str], np.ndarray], tables: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """Run one SELECT with every table and macro of the atlas, and `embed('words')`, in the sandbox.

        `embed` takes an embedding and words: `embed_spectrum('words')` is of the embedding of that name. `tables` are
        those that the statement may name beside the atlas's own.
        """
        beside = dict(tables or {})
        self._check_beside(beside)
        if self.sandbox.visits is not None:
            return self._with_units(self.sandbox.visits.sql(text, embed, beside))
        self.sandbox.check_select(text)
        self._register(embed)
        self.prepare(text)
        with self.sandbox.beside(beside):
            return self._with_units(self.sandbox.select(text, title="sql"))

    def _check_beside(self, tables: Mapping[str, pa.Table]) -> None:
        """Raise QueryError for a table beside the atlas's own that would hide one, or has no plain name."""
        held = {name.casefold() for name in self.tables}
        for name in tables:
            if not _NAME.fullmatch(name) or name.casefold() in held:
                raise QueryError(
                    f"a table beside the atlas is called {name!r:.80}, expected a name of letters, digits and _ that "
                    "no table of the atlas has; call it otherwise"
                )

    def prepare(self, text: str) -> None:
        """Have our own macros at hand for this thread where a SQL text may call them, whatever the file has instead."""
        if self.sandbox.visits is None and macros.is_named_in(text):
            self.sandbox.define(self._definitions())

    def _definitions(self) -> list[str]:
        """Return the statements that make our macros anew for a thread, whatever the file has by their names."""
        return macros.facts_macros(temp=macros.OURS)

    def embed_functions(self) -> dict[str, str]:
        """Return the functions that embed words in SQL, each with its embedding."""
        main, functions = self.manifest.main_embedding, dict[str, str]()
        for name in self.manifest.embeddings:
            if name == main or self.manifest.knows_words(name):
                functions |= {f"{EMBED}{suffix}": name for suffix in macros.suffixes(name, main)}
        return functions

    def _register(self, embed: Callable[[str, str], np.ndarray]) -> None:
        def numbers(name: str) -> Callable[[str], list[float]]:
            return lambda words: embed(name, words).tolist()

        for function, name in self.embed_functions().items():
            self.sandbox.register_embed(function, numbers(name), self.manifest.embeddings[name]["dim"])


def _opened_by_both(facts: Path) -> tuple[OpenFile, Sandbox]:
    """Return one file, opened by us and by DuckDB; where another was renamed into its place meanwhile, that one."""
    for _ in range(OPENED_AGAIN):
        with contextlib.ExitStack() as undone:
            file = _opened(facts)
            undone.callback(file.close)
            sandbox = Sandbox(facts)
            undone.callback(sandbox.close)
            if file.is_at(facts):
                undone.pop_all()
                return file, sandbox
    raise file.changed()


def _served(content: Content) -> tuple[Content, Sandbox]:
    """Return a file that is read through Python, and its sandbox; it is closed where DuckDB cannot open it."""
    try:
        return content, Sandbox(content.path, content)
    except BaseException:
        content.close()
        raise


def _opened(facts: Path) -> OpenFile:
    log = facts.with_name(facts.name + ".wal")
    if log.exists() and log.stat().st_size:
        raise FormatError(
            f"{log}: changes to {facts.name} that were never finished; open it once with DuckDB, which finishes them, "
            "or remove this file, and open the atlas again"
        )
    try:
        return OpenFile(facts)
    except OSError as error:
        raise FormatError(f"{facts}: cannot be read ({error.strerror}); copy the atlas again from its source") from None


def _column(kind: pa.DataType, values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def check_model_name(name: object, path: Path) -> str:
    """Return the name of a model. Raises FormatError for one that is not of small letters, digits and underscores."""
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
        raise FormatError(f"{path}: {name!r:.40} is no name of a model; copy the atlas again from its source")
    return name


def read_card(text: str | bytes, name: str) -> dict:
    """Return the model card that `text` is; FormatError naming `name` when it is not a JSON object."""
    try:
        card = schema.read_json(text)
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise FormatError(f"{name}: its card is not a JSON object, so it is damaged; copy the atlas again")
    return card


def vectors(column: pa.ChunkedArray | pa.Array, *, dtype: type = np.float32) -> np.ndarray:
    """Return a fixed-size list column of that type as `(n, d)` numbers, without copying where Arrow allows."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # a chunked array of no chunks
        return np.empty((0, column.type.list_size), dtype)
    if column.null_count:
        raise FormatError("a stored vector is NULL, so the atlas is damaged; copy it again from its source")
    flat = column.flatten()  # read through its buffer: Array.to_numpy imports pandas, a third of a second
    values: np.ndarray = np.frombuffer(flat.buffers()[1], dtype, len(flat), np.dtype(dtype).itemsize * flat.offset)
    return values.reshape(len(column), column.type.list_size)


def _column_names(tree: Any) -> Iterator[str]:
    """Yield the columns that a parsed statement names."""
    if isinstance(tree, list):
        for part in tree:
            yield from _column_names(part)
    elif isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF":
            yield tree["column_names"][-1]
        yield from _column_names(list(tree.values()))


def _cone(near: tuple[float, float], radius_arcsec: float) -> str:
    """Return the cone as a condition; the band in declination is there to be skipped quickly."""
    ra, dec = near
    band = radius_arcsec / 3600 + 1e-9
    return (
        f"(dec BETWEEN {dec - band!r} AND {dec + band!r} "
        f"AND {macros.separation_sql('ra', 'dec', repr(float(ra)), repr(float(dec)))} <= {float(radius_arcsec)!r})"
    )


def _has(ascending: np.ndarray, value: int) -> bool:
    index = int(np.searchsorted(ascending, value))
    return index < len(ascending) and bool(ascending[index] == value)


def _find(result: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where each of the wanted numbers is among those found, which are all there in any order."""
    order = np.argsort(result, kind="stable")
    return order[np.searchsorted(result, wanted, sorter=order)]
