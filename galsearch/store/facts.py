"""What both forms of an atlas share: the facts in DuckDB, the planner, and the order of the answers.

A form adds only where its vectors and blobs lie: `_exact`, `_ivf`, `embeddings`, `thumbnails`, `model`.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import FormatError, ModelMismatchError, QueryError
from galsearch.query import Plan
from galsearch.store import macros
from galsearch.store.sandbox import NAME, Sandbox, shortened

# Shares of the cells to visit; a cut hides rows, so the k best of what is left lie in more cells (docs/format.md).
PROBE_SHARE, PROBE_LEAST = 1 / 32, 32
PROBE_SHARE_CUT, PROBE_LEAST_CUT = 1 / 8, 128

# Engines compare in single precision and break ties as they like: a few rows more than wanted are fetched, and more
# again while the last of them scores no worse, by this much, than the last one wanted.
TIES = 8
SCORE_ERROR = 1e-5

BATCH_ROWS = 8_192  # read or written at a time

Found = tuple[list[str], np.ndarray, int]  # ids, their embeddings (n, d), vectors compared


@dataclass(frozen=True)
class Ask:
    """One nearest-neighbor question to a form: the `wanted` best of the `matches` that pass `condition`."""

    embedding: str
    query: np.ndarray
    wanted: int
    condition: str | None
    matches: int


class Store:
    """An open atlas, read-only. Vectors go in and out as numpy arrays, rows as Arrow tables, ids as text."""

    kind: str

    def __init__(self, path: Path, facts: Path) -> None:
        self.path = path
        self.sandbox = Sandbox(facts)
        self._memory: dict[str, tuple[list[str], np.ndarray]] = {}
        self._checked: str | None = None  # the last `where` that was found to be one condition
        try:
            self.manifest = self._read_manifest()
        except BaseException:
            self.sandbox.close()
            raise

    def close(self) -> None:
        """Release the files."""
        self.sandbox.close()

    # ---- facts

    def _read_manifest(self) -> schema.Manifest:
        tables = {
            name
            for (name,) in self.sandbox.rows(f"SELECT table_name FROM duckdb_tables() WHERE database_name = '{NAME}'")
        }
        if schema.MANIFEST_TABLE not in tables:
            raise FormatError(
                f"{self.path}: this is a DuckDB file without a {schema.MANIFEST_TABLE} table, so not an atlas; "
                "make one with `galsearch build` and `galsearch bundle`"
            )
        self.tables = tables
        return schema.Manifest.from_rows(
            self.sandbox.rows(f"SELECT key, value FROM {schema.MANIFEST_TABLE}"), path=str(self.path)
        )

    def describe(self) -> pa.Table:
        """Return the public columns of `galaxies`: column, type, unit, ucd, description, in table order."""
        return self.sandbox.arrow(
            "SELECT d.column_name AS column, d.data_type AS type, coalesce(c.unit, '') AS unit, "
            "coalesce(c.ucd, '') AS ucd, coalesce(c.description, '') AS description "
            f'FROM duckdb_columns() d LEFT JOIN {schema.COLUMNS_TABLE} c ON c."table" = d.table_name '
            f"AND c.\"column\" = d.column_name WHERE d.database_name = '{NAME}' AND d.table_name = 'galaxies' "
            "ORDER BY d.column_index"
        )

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Return the rows of `galaxies` for `ids`, in that order; ids that are not there are left out."""
        found = self.sandbox.arrow(
            "SELECT galaxies.* FROM galaxies JOIN (SELECT unnest($1::VARCHAR[]) AS object_id, "
            "generate_subscripts($1::VARCHAR[], 1) AS place) w USING (object_id) ORDER BY w.place",
            [list(ids)],
        )
        return self._with_units(found)

    def hits(self, ids: Sequence[str], scores: np.ndarray) -> pa.Table:
        """Return object_id, score and every other column for `ids`, in that order.

        A small atlas keeps its rows in memory after the first search. Nothing here makes an Arrow column of Python
        objects: that imports pandas, a third of a second.
        """
        if self.manifest.rows <= macros.EXACT_ROWS:
            rows, row_of = self._held_rows
            there = [(row_of[name], score) for name, score in zip(ids, scores, strict=True) if name in row_of]
            found = rows.take(_column(pa.int64(), np.array([row for row, _ in there], np.int64)))
            column = _column(pa.float32(), np.array([score for _, score in there], np.float32))
            return found.set_column(found.column_names.index("score"), found.field("score"), column)
        place = "list_position($1::VARCHAR[], galaxies.object_id)"
        columns = self._hit_columns(f"($2::FLOAT[])[{place}]")
        among = "galaxies.object_id IN (SELECT unnest($1::VARCHAR[]))"
        statement = f"SELECT {columns} FROM galaxies WHERE {among} ORDER BY {place}"
        return self._with_units(self.sandbox.arrow(statement, [list(ids), scores.tolist()]))

    @functools.cached_property
    def _held_rows(self) -> tuple[pa.Table, dict[str, int]]:
        """All rows as hits without scores, and the row number of each id."""
        rows = self.sandbox.arrow(f"SELECT {self._hit_columns('NULL::FLOAT')} FROM galaxies")
        return self._with_units(rows), {name: row for row, name in enumerate(rows["object_id"].to_pylist())}

    def list(self, condition: str | None, *, k: int) -> tuple[pa.Table, int]:
        """Return the first k rows that pass `condition`, ordered by object_id, and how many pass in all.

        They have a `score` of NULL: nothing was compared.
        """
        columns, cut = self._hit_columns("NULL::FLOAT"), f" WHERE {condition}" if condition else ""
        statement = f"SELECT {columns} FROM galaxies{cut} ORDER BY galaxies.object_id LIMIT {k}"
        return self._with_units(self.sandbox.ask(statement, said="where")), self.count(condition)

    def _hit_columns(self, score: str) -> str:
        """Return the select list of hits; a column of the source called score keeps its values as score_in_table."""
        rename = " RENAME (score AS score_in_table)" if "score_in_table" in self._about else ""
        return f"galaxies.object_id, {score} AS score, galaxies.* EXCLUDE (object_id){rename}"

    def has(self, object_id: str) -> bool:
        """Say whether there is such an object."""
        return bool(self.sandbox.rows("SELECT 1 FROM galaxies WHERE object_id = $1", [object_id]))

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

    def _vectors_of(self, ids: Sequence[str], found: pa.Table) -> np.ndarray:
        """Return the vectors of `ids` in that order from rows of (object_id, embedding); each must be there."""
        place = {object_id: row for row, object_id in enumerate(found["object_id"].to_pylist())}
        absent = [object_id for object_id in ids if object_id not in place]
        if absent:
            raise QueryError(
                f"object '{absent[0]}' has no vector in {self.path}, so nothing can be compared with it; "
                "choose another, or ask in words"
            )
        return vectors(found["embedding"])[[place[object_id] for object_id in ids]]

    # ---- cuts

    def condition(self, where: str | None, near: tuple[float, float] | None, radius_arcsec: float | None) -> str | None:
        """Return one SQL condition on `galaxies` for the cuts of a query, checked, or None when there is no cut.

        The cone is inclusive and right at the poles and across RA 0. Objects without a position never match one.
        """
        parts = []
        if where is not None:
            self._check_where(where)
            parts.append(f"({where}\n)")
        if near is not None:
            parts.append(_cone(near, radius_arcsec))
        return " AND ".join(parts) or None

    def _check_where(self, where: str) -> None:
        """Raise QueryError for what is not one condition on the columns; the last that passed is not asked again."""
        if where != self._checked:
            self.sandbox.check_condition(where)
            statement = f"SELECT count(*) FROM galaxies WHERE ({where}\n) AND false"
            self.sandbox.ask(statement, said=f"where {shortened(where)}")
            self._checked = where

    def count(self, condition: str | None, *, embedding: str | None = None) -> int:
        """Return how many objects pass `condition` and, if asked, have that embedding."""
        holders = self.manifest.rows if embedding is None else self._space(embedding)["rows"]
        if condition is None:
            return holders
        has = "" if holders == self.manifest.rows else f" AND object_id IN ({self.holders(embedding)})"
        statement = f"SELECT count(*) AS n FROM galaxies WHERE {condition}{has}"
        return self.sandbox.ask(statement, said="where")["n"][0].as_py()

    def holders(self, embedding: str) -> str:
        """Return a SELECT of the ids that have this embedding."""
        raise NotImplementedError

    def _space(self, embedding: str) -> dict:
        try:
            return self.manifest.embeddings[embedding]
        except KeyError:
            there = ", ".join(self.manifest.embeddings) or "none"
            raise QueryError(f"{self.path} has no embedding '{embedding}', it has: {there}") from None

    # ---- search

    def nearest(
        self,
        query: np.ndarray,
        *,
        k: int,
        embedding: str = schema.IMAGE,
        condition: str | None = None,
        exclude: Sequence[str] = (),
        exact: bool = False,
        probes: int | None = None,
    ) -> tuple[list[str], np.ndarray, Plan]:
        """Return ids and cosine scores `(n,) float32` of the nearest objects that pass `condition`, best first.

        n is min(k, matches), always. Equal scores are ordered by object_id. `query` is a unit vector `(d,) float32`;
        another length is a ModelMismatchError. `exclude` is left out of the answer and of the matches.
        """
        space = self._space(embedding)
        if query.shape != (space["dim"],):
            raise ModelMismatchError(
                f"the query has {query.shape[-1]} dimensions and {self.path} holds '{embedding}' vectors of "
                f"{space['dim']} ({space['model']}); embed it with the atlas's own model: atlas.embed(…)"
            )
        clock = counted = time.perf_counter()
        wanted = k + len(exclude)
        if space["rows"] <= macros.EXACT_ROWS and probes is None:
            found = self._compare_held(embedding, query, wanted, condition)
            plan = Plan("exact", found[2], found[2], exact=True)
        else:
            matches = self.count(condition, embedding=embedding)
            counted = time.perf_counter()
            ask = Ask(embedding, query, min(wanted, matches), condition, matches)
            found, plan = self._plan(ask, exact=exact, probes=probes)
        ids, scores = _rank(found[0], found[1], query, k, set(exclude))
        plan.matches -= self._excluded(condition, embedding, exclude)
        plan.milliseconds = {
            "count": (counted - clock) * 1e3,
            "search": (time.perf_counter() - counted) * 1e3,
        }
        return ids, scores, plan

    def _plan(self, ask: Ask, *, exact: bool, probes: int | None) -> tuple[Found, Plan]:
        """Choose exact comparison for few matches, cells for many; an IVF answer that falls short is redone exactly."""
        cells = self._cells(ask.embedding)
        few = ask.matches <= macros.EXACT_ROWS and probes is None
        if ask.wanted and cells > 1 and self._cells_serve(ask) and not (exact or few):
            visits = min(cells, probes or _probes(cells, cut=ask.condition is not None))
            found = self._ivf(ask, visits)
            if len(found[0]) >= ask.wanted:
                return found, Plan("ivf", ask.matches, found[2], visits == cells, visits, cells)
        found = self._exact(ask) if ask.wanted else ([], np.empty((0, len(ask.query))), 0)
        return found, Plan("exact", ask.matches, found[2], exact=True)

    def _compare_held(self, embedding: str, query: np.ndarray, wanted: int, condition: str | None) -> Found:
        """Compare the vectors of a small atlas in memory, where they are kept after the first search."""
        ids, held = self._held(embedding)
        if condition is not None:
            passing = set(self._passing(condition))
            places = [place for place, object_id in enumerate(ids) if object_id in passing]
            ids, held = [ids[place] for place in places], held[places]
        scores = held @ query
        last = min(wanted, len(ids))
        best = np.flatnonzero(scores >= np.partition(scores, -last)[-last] - SCORE_ERROR) if last else []
        return [ids[place] for place in best], held[best], len(ids)

    def _held(self, embedding: str) -> tuple[list[str], np.ndarray]:
        if embedding not in self._memory:
            batches = list(self.embedding_batches(embedding))
            ids = [object_id for names, _ in batches for object_id in names]
            self._memory[embedding] = ids, np.concatenate([found for _, found in batches])
        return self._memory[embedding]

    def _passing(self, condition: str) -> list[str]:
        found = self.sandbox.ask(f"SELECT object_id FROM galaxies WHERE {condition}", said="where")
        return found["object_id"].to_pylist()

    def embedding_batches(self, embedding: str) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield (ids, vectors) of every row, in stored order."""
        raise NotImplementedError

    def _excluded(self, condition: str | None, embedding: str, exclude: Sequence[str]) -> int:
        """Return how many of the ids left out, which all have vectors, would have matched."""
        if condition is None or not exclude:
            return len(set(exclude))
        statement = (
            f"SELECT count(*) AS n FROM galaxies WHERE object_id IN (SELECT unnest($1::VARCHAR[])) "
            f"AND object_id IN ({self.holders(embedding)}) AND {condition}"
        )
        return self.sandbox.ask(statement, [list(exclude)], said="where")["n"][0].as_py()

    def _cells(self, embedding: str) -> int:
        """Return how many cells the index has; 0 when there is none."""
        raise NotImplementedError

    def _cells_serve(self, ask: Ask) -> bool:
        """Say whether visiting a part of the cells finds nearly all of the best matches."""
        return True

    def _exact(self, ask: Ask) -> Found:
        raise NotImplementedError

    def _ivf(self, ask: Ask, probes: int) -> Found:
        raise NotImplementedError

    def corrupt_tables(self) -> list[str]:
        """Read every value of every table and return the messages of those that cannot be read."""
        bad = []
        for name in sorted(self.tables):
            try:
                self.sandbox.rows(f'SELECT bit_xor(hash(t)) FROM "{name}" t')
            except FormatError as error:
                bad.append(f"table {name}: {error}")
        return bad

    # ---- SQL

    def sql(self, text: str, *, embed: Callable[[str], np.ndarray]) -> pa.Table:
        """Run one SELECT with every table and macro of the atlas, and `embed('words')`, in the sandbox."""
        self.sandbox.check_select(text)
        self._register(embed)
        return self._with_units(self.sandbox.ask(text, said="sql"))

    def _register(self, embed: Callable[[str], np.ndarray]) -> None:
        dim = self.manifest.embeddings.get(schema.IMAGE, {}).get("dim")
        if dim:
            self.sandbox.register_embed(lambda words: embed(words).tolist(), dim)


def _column(kind: pa.DataType, values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def read_card(text: str | bytes, name: str) -> dict:
    """Return the model card that `text` is; FormatError naming `name` when it is not a JSON object."""
    try:
        card = json.loads(text)
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise FormatError(f"{name}: its card is not a JSON object, so it is damaged; copy the atlas again")
    return card


def vectors(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a fixed-size list column as `(n, d) float32`, without copying where Arrow allows."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # a chunked array of no chunks
        return np.empty((0, column.type.list_size), dtype=np.float32)
    if column.null_count:
        raise FormatError("a stored vector is NULL, so the atlas is damaged; copy it again from its source")
    flat = column.flatten()  # read through its buffer: Array.to_numpy imports pandas, a third of a second
    values = np.frombuffer(flat.buffers()[1], dtype=np.float32, count=len(flat), offset=4 * flat.offset)
    return values.reshape(len(column), column.type.list_size)


def _cone(near: tuple[float, float], radius_arcsec: float) -> str:
    """Return the cone as a condition; the band in declination is there to be skipped quickly."""
    ra, dec = near
    band = radius_arcsec / 3600 + 1e-9
    return (
        f"(dec BETWEEN {dec - band!r} AND {dec + band!r} "
        f"AND separation_arcsec(ra, dec, {ra!r}, {dec!r}) <= {float(radius_arcsec)!r})"
    )


def _probes(cells: int, *, cut: bool) -> int:
    share, least = (PROBE_SHARE_CUT, PROBE_LEAST_CUT) if cut else (PROBE_SHARE, PROBE_LEAST)
    return max(least, math.ceil(cells * share))


def cosines(embeddings: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the inner products `(n,) float64` of the rows with `query`, each independent of the other rows.

    A matrix product is not: equal vectors would get scores that differ in the last bit.
    """
    return (embeddings.astype(np.float64) * query.astype(np.float64)).sum(axis=1)


def complete(fetch: Callable[[int], tuple[list[str], np.ndarray]], ask: Ask) -> tuple[list[str], np.ndarray]:
    """Return the first rows of `fetch(n)`, enough of them that the `wanted` best are there with all their ties."""
    size = ask.wanted + TIES
    while True:
        ids, found = fetch(size)
        if len(ids) < size or settled(cosines(found, ask.query), ask.wanted):
            return ids, found
        size *= 4


def settled(scores: np.ndarray, wanted: int) -> bool:
    """Say whether a row that an engine ranks after all of these could not be among the `wanted` best."""
    return np.partition(scores, -wanted)[-wanted] - scores.min() > SCORE_ERROR


def _rank(ids: list[str], embeddings: np.ndarray, query: np.ndarray, k: int, exclude: set[str]):
    """Return the k best ids and scores; computed here for both forms, so that they agree to the last bit."""
    kept = [place for place, object_id in enumerate(ids) if object_id not in exclude]
    names = np.array([ids[place] for place in kept], dtype=object)
    scores = cosines(embeddings[kept], query).astype(np.float32)
    order = np.lexsort((names, -scores))[:k]
    return names[order].tolist(), scores[order]
