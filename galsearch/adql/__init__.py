"""ADQL, the query language of the Virtual Observatory, over the tables of an atlas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, schema
from galsearch.errors import GalsearchError, QueryError
from galsearch.query import Query, Term

if TYPE_CHECKING:
    from galsearch.adql.translate import Known, Search, Translation
    from galsearch.atlas import Atlas
    from galsearch.workers import Pool

TASK = "galsearch.adql.translate:task"
UPLOADS = "tap_upload"
_kept: WeakKeyDictionary[Atlas, list[dict[str, str]]] = WeakKeyDictionary()
PUBLISHED = (  # tables beside `galaxies` that say something of objects
    "captions", "labels", "lines", "spectra", "knowledge_bases", "knowledge_labels", "anomalies", "duplicates",
    "identifications", "evaluations", "rejected", "map_{name}",
)  # fmt: skip


def answer(
    atlas: Atlas, workers: Pool | None, text: str, *, tables: Mapping[str, pa.Table], most: int
) -> tuple[pa.Table, bool]:
    """Return the rows of one ADQL query, at most `most`, and whether there are more."""
    if find_spec("sqlglot") is None:
        raise GalsearchError("ADQL needs sqlglot: pip install 'galsearch[serve]'")
    beside = {_full(name): table for name, table in tables.items()}
    inside = {name: name.replace(".", "_") for name in beside}
    columns = _columns(atlas)
    translation = _translated(workers, text, _known(atlas, columns, inside, beside), most)
    given = {inside[name]: table for name, table in beside.items() if inside[name] in translation.beside}
    results = {search.name: _searched(atlas, search) for search in translation.searches}
    fields = {f"{row['table']}.{row['column']}".lower(): _field(row) for row in columns}
    fields |= {f"{name}.{field.name}".lower(): field for name, table in given.items() for field in table.schema}
    table = atlas.sql(translation.sql, tables=given | results)
    origins = {name: fields.get(origin.lower()) for name, origin in translation.origins.items()}
    result = _tidy(table, origins)
    return result.slice(0, most), result.num_rows > most


def _columns(atlas: Atlas) -> list[dict[str, str]]:
    """Return the columns of the tables of an atlas, which does not change while it is open."""
    if atlas not in _kept:
        _kept[atlas] = published(atlas).to_pylist()
    return _kept[atlas]


def _field(row: Mapping[str, str]) -> pa.Field:
    return formats.describe(pa.field(row["column"], pa.null()), **{key: row[key] for key in formats.FIELD_KEYS})


def published(atlas: Atlas) -> pa.Table:
    """Return the columns of the tables that say something of objects, with units, UCDs and descriptions."""
    names = [one.format(name=name) for one in PUBLISHED for name in (*atlas.manifest.embeddings, "")]
    listed = ", ".join(f"'{name}'" for name in dict.fromkeys(["galaxies", *names]))
    text = (
        'SELECT c.table_name AS "table", c.column_name AS "column", c.data_type AS type, '
        "coalesce(g.unit, '') AS unit, coalesce(g.ucd, '') AS ucd, coalesce(g.description, '') AS description "
        f"FROM duckdb_columns() c LEFT JOIN {schema.COLUMNS_TABLE} g "
        'ON g."table" = c.table_name AND g."column" = c.column_name '
        f"WHERE NOT c.internal AND c.database_name = 'atlas' AND c.table_name IN ({listed}) "
        "ORDER BY c.table_name <> 'galaxies', c.table_name, c.column_index"
    )
    return atlas.sql(text)


def _full(name: str) -> str:
    """Return "schema.table" in lower case; a name alone is that of an upload."""
    full = name if "." in name else f"{UPLOADS}.{name}"
    if not re.fullmatch(r"[A-Za-z_]\w{0,60}\.[A-Za-z_]\w{0,60}", full, re.ASCII):
        raise QueryError(f"a table beside the atlas is called {name!r:.80}, expected letters, digits and _")
    return full.lower()


def _known(
    atlas: Atlas, columns: list[dict[str, str]], inside: dict[str, str], beside: Mapping[str, pa.Table]
) -> Known:
    from galsearch.adql.translate import Known

    tables: dict[str, list[str]] = {}
    for row in columns:
        tables.setdefault(row["table"], []).append(row["column"])
    manifest = atlas.manifest
    words = {
        name: ("embed" if name == manifest.main_embedding else f"embed_{name}") if manifest.knows_words(name) else ""
        for name in manifest.embeddings
    }
    others = {inside[name]: table.column_names for name, table in beside.items()}
    return Known(tables, inside, others, words, manifest.main_embedding)


def _translated(workers: Pool | None, text: str, known: Known, most: int) -> Translation:
    """Return the translation, made by a worker where there are any."""
    from galsearch.adql.translate import of_facts, translate

    if workers is None:
        return translate(text, known, most=most)
    facts, _ = workers.run(TASK, title="query", text=text, known=asdict(known), most=most)
    return of_facts(facts)


def _searched(atlas: Atlas, search: Search) -> pa.Table:
    """Return gs_id and gs_score of what the index finds."""
    if search.kind == "object":  # by its vector: as the value of a column it is most like itself
        vector = atlas.embed(atlas[search.value], by=search.by)
        term = Term("embedding", tuple(np.asarray(vector, float).tolist()), by=search.by)
    else:
        term = Term("text", search.value, by=search.by)
    hits = atlas.search(Query(terms=(term,), where=search.where, k=search.k))
    return pa.table({"gs_id": pa.array(hits.ids, pa.string()), "gs_score": pa.array(hits.scores, pa.float32())})


def _tidy(table: pa.Table, origins: Mapping[str, pa.Field | None]) -> pa.Table:
    """Return the rows with a name for each column, whole numbers as such, and what is known of where they come from."""
    names = formats.free_names(table.column_names, suffix="_also")
    fields, columns = [], []
    for name, field, values in zip(names, table.schema, table.columns, strict=True):
        if pa.types.is_decimal(values.type):
            values = _number(values)
        origin = origins.get(field.name)
        fields.append(pa.field(name, values.type, metadata=None if origin is None else origin.metadata))
        columns.append(values)
    return pa.table(columns, schema=pa.schema(fields))


def _number(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return decimals, which DuckDB makes of sums and of numbers with a point, as what other programs have."""
    if values.type.scale == 0:
        whole = pc.cast(values, pa.float64())
        if (pc.max(pc.abs(whole)).as_py() or 0) < 2**53:
            return values.cast(pa.int64())
    return values.cast(pa.float64())
