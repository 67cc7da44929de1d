"""The questions that an atlas answers in plain SQL, stored in the bundle so that any DuckDB can ask them.

Written for DuckDB 1.2 and later. What each form is for:
- parameters have names that no column has, because a macro refuses a parameter that hides a column;
- `coalesce(…, error(…))` turns an unknown phrase or id into an error, where a NULL vector would rank by NULL; it
  works on FLOAT[] and not on FLOAT[n] before DuckDB 2, hence the casts;
- `cell IN (FROM …)` is a semi join that skips row groups, which a list literal is not.
"""

from __future__ import annotations

import re
from collections.abc import Set

from galsearch import schema
from galsearch.store.index.fulltext import word_macros

EXACT_ROWS = 20_000  # up to this many matches, comparing all of them is the quicker way and misses nothing
EVERY_CELL = 1_000_000_000
CUT_PROBES = 4  # times as many cells are visited under a cut: what is left of the best lies in more of them
OURS = "OR REPLACE TEMP"  # made anew for a connection, hiding what a file from a stranger may have by the name
_NAMES = re.compile(
    r"separation_arcsec|cone|concept|terms_of|matching_words|like_object|nearest|vote|embedding_", re.IGNORECASE
)
ROW_ALIGNED = "row_aligned"  # manifest: row i of embedding_<name> is the object of row i of galaxies

_SEPARATION = """3600 * degrees(atan2(
    sqrt(pow(cos(radians({dec2})) * sin(radians({ra2} - {ra1})), 2)
       + pow(cos(radians({dec1})) * sin(radians({dec2}))
           - sin(radians({dec1})) * cos(radians({dec2})) * cos(radians({ra2} - {ra1})), 2)),
    sin(radians({dec1})) * sin(radians({dec2}))
  + cos(radians({dec1})) * cos(radians({dec2})) * cos(radians({ra2} - {ra1}))))"""


def separation_sql(ra1: str, dec1: str, ra2: str, dec2: str) -> str:
    """Return the SQL expression of the angle between two positions in degrees, in arcseconds (Vincenty 1975)."""
    return _SEPARATION.format(ra1=ra1, dec1=dec1, ra2=ra2, dec2=dec2)


SEPARATION = """
CREATE {temp} MACRO separation_arcsec(ra1, dec1, ra2, dec2) AS """ + separation_sql("ra1", "dec1", "ra2", "dec2")

CONE = """
CREATE {temp} MACRO cone(center_ra, center_dec, radius) AS TABLE
SELECT object_id, separation_arcsec(ra, dec, center_ra, center_dec) AS separation_arcsec
FROM galaxies
WHERE dec BETWEEN center_dec - radius / 3600.0 - 1e-9 AND center_dec + radius / 3600.0 + 1e-9
  AND separation_arcsec(ra, dec, center_ra, center_dec) <= radius
ORDER BY separation_arcsec, object_id"""

CONCEPT = """
CREATE {temp} MACRO concept{suffix}(words) AS coalesce(
    (SELECT CAST(embedding AS FLOAT[]) FROM {phrases} WHERE phrase = words),
    error('no concept ''' || words || ''' in this atlas; list them with: FROM {phrases}'))"""

LIKE_OBJECT = """
CREATE {temp} MACRO like_object{suffix}(id) AS coalesce(
    (SELECT CAST(embedding AS FLOAT[]) FROM embedding_{name} WHERE object_id = id),
    error('no object ''' || id || ''' with an embedding of kind {name} in this atlas'))"""

NEAREST_EXACT = """
CREATE {temp} MACRO {macro}(q, k := 10, cut := true) AS TABLE
WITH asked AS MATERIALIZED (
    SELECT CAST(coalesce(CAST(q AS FLOAT[]), error('{macro}: the query vector is NULL')) AS FLOAT[{dim}]) AS vector
){lean}
{scored} {table}.{key} IN (SELECT {key} FROM galaxies WHERE cut){end}
ORDER BY score DESC, object_id
LIMIT k"""

# DuckDB forgets that a common table is MATERIALIZED when it stores a macro, and works it out again wherever it is
# named, so what costs anything is named once. `refused` is what makes a search without a cut quick: for the cut `true`
# DuckDB finds out while it plans that nothing can be in there, and leaves out whatever is joined with it, which would
# else join all rows with themselves. Where a cut follows the vectors, the closest cells may be `short` of k: then all
# cells are visited.
NEAREST = """
CREATE {temp} MACRO {macro}(q, k := 10, probes := 32, cut := true) AS TABLE
WITH asked AS (
    SELECT CAST(coalesce(CAST(q AS FLOAT[]), error('{macro}: the query vector is NULL')) AS FLOAT[{dim}]) AS vector
){lean},
refused AS (SELECT true AS is_refused FROM galaxies WHERE NOT coalesce(cut, false) LIMIT 1),
wholly AS (
    SELECT cell FROM cells_{name}, asked WHERE rows > 0
    ORDER BY array_inner_product(centroid, vector) DESC
    LIMIT (SELECT CASE WHEN EXISTS (FROM refused) THEN 0 ELSE greatest(k, probes) END)),
kept AS (SELECT galaxies.{key} AS kept_key FROM galaxies, refused WHERE cut),
partly AS (
    SELECT cell FROM cells_{name}, asked, refused
    ORDER BY array_inner_product(centroid, vector) DESC
    LIMIT (SELECT CASE WHEN count(*) <= {exact_rows} THEN {every_cell} ELSE {cut_probes} * probes END
           FROM galaxies WHERE cut)),
short AS (
    SELECT cell FROM cells_{name}, refused
    WHERE (SELECT count(*) FROM {table} WHERE cell IN (FROM partly) AND {table}.{key} IN (FROM kept))
        < (SELECT least(k, count(*)) FROM galaxies WHERE cut))
SELECT object_id, score FROM (
    {scored} cell IN (FROM wholly){end}
    UNION ALL
    {scored} cell IN (FROM partly UNION ALL FROM short) AND {table}.{key} IN (FROM kept){end})
ORDER BY score DESC, object_id
LIMIT k"""

# `q` is an id or a vector, which only its text can say: no branch of a CASE takes both types. Numbers of single
# precision are written so that they are read again as they were.
VOTE = """
CREATE {temp} MACRO {macro}(q, named, k := 3) AS TABLE
WITH given AS (
    SELECT coalesce(
        TRY_CAST(CAST(q AS VARCHAR) AS FLOAT[]),
        (SELECT CAST(embedding AS FLOAT[]) FROM embedding_{name} WHERE object_id = CAST(q AS VARCHAR)),
        error('{macro}: ''' || coalesce(CAST(q AS VARCHAR), 'NULL')
            || ''' is neither a vector nor an object with an embedding of kind {name}')) AS numbers
),
measured AS (
    SELECT numbers, coalesce(nullif(sqrt(list_sum([m * m FOR m IN numbers])), 0),
        error('{macro}: the query vector has length 0')) AS length
    FROM given
),
asked AS MATERIALIZED (SELECT CAST([n / length FOR n IN numbers] AS FLOAT[{dim}]) AS vector FROM measured){lean},
electorate AS (
    SELECT coalesce(
        (SELECT max(version) FROM knowledge_bases WHERE base = named AND kind = 'class' AND embedding = '{name}'),
        error('{macro}: no knowledge base ''' || coalesce(CAST(named AS VARCHAR), 'NULL')
            || ''' of classes that compares {name}; list them with: FROM knowledge_bases')) AS newest
),
members AS (
    SELECT object_id, label FROM knowledge_labels, electorate
    WHERE base = coalesce(CAST(named AS VARCHAR), 'NULL') AND version = newest
      AND object_id IS DISTINCT FROM CAST(q AS VARCHAR)),
voters AS (
    SELECT object_id, label, sqrt(greatest(2 - 2 * CAST(score AS DOUBLE), 0)) AS distance FROM (
        {scored} {table}.object_id IN (SELECT object_id FROM members){end})
    JOIN members USING (object_id)
    ORDER BY score DESC, object_id
    LIMIT k)
SELECT label, sum(exp(-distance)) AS weight,
    sum(exp(-distance)) / (SELECT sum(exp(-distance)) FROM voters) AS probability,
    list({{'object_id': object_id, 'distance': distance}} ORDER BY distance, object_id) AS neighbors
FROM voters
GROUP BY label
ORDER BY weight DESC, label"""

# How rows are scored where vectors are stored as floats, and where they are coded: `lean` is the score of the centroid,
# and it is joined to what is left of the row then, because a join copies everything that it passes on.
OF_FLOATS = {
    "lean": "",
    "scored": "SELECT object_id, array_inner_product(embedding, vector) AS score FROM embedding_{name}, asked WHERE",
    "end": "",
}
OF_CODES = {
    "lean": """,
leaning AS MATERIALIZED (SELECT cell, array_inner_product(centroid, vector) AS lean FROM cells_{name}, asked)""",
    "scored": """SELECT object_id, share * lean + rest AS score FROM leaning JOIN (
    SELECT object_id, cell, weights[1] AS share,
        weights[2] * array_inner_product(CAST(code AS FLOAT[{dim}]), vector) AS rest
    FROM codes_{name}, asked WHERE""",
    "end": ") USING (cell)",
}

DECODED = """
CREATE {temp} VIEW embedding_{name} AS SELECT object_id, cell, CAST(
    [pair[1] * weights[1] + pair[2] * weights[2]
     FOR pair IN list_zip(CAST(centroid AS FLOAT[]), CAST(code AS FLOAT[]))] AS FLOAT[{dim}]) AS embedding
FROM codes_{name} JOIN cells_{name} USING (cell)"""

# The folder's vectors live in Lance, which compares them all: `probes` is taken and has no effect.
NEAREST_WITHOUT_CELLS = NEAREST_EXACT.replace("k := 10, cut", "k := 10, probes := 32, cut")


def site_macros() -> list[str]:
    """Return the macros of a static site's files of facts: positions; words and vectors are the page's own business."""
    return [statement.format(temp="") for statement in (SEPARATION, CONE)]


def facts_macros(*, temp: str = "") -> list[str]:
    """Return the statements that store the macros which need no vectors; both forms have them in their file."""
    concept = CONCEPT.format(temp=temp, suffix="", phrases=schema.PHRASES)
    return [SEPARATION.format(temp=temp), CONE.format(temp=temp), concept, *word_macros(temp=temp)]


def bundle_macros(embeddings: dict[str, dict], *, temp: str = "") -> list[str]:
    """Return the statements that store the vector macros; `embeddings` is the manifest's description of each.

    Where the vectors are coded, a view by the name of the table of floats comes first.
    """
    coded = {name: space for name, space in embeddings.items() if space.get(schema.CODES)}
    views = [DECODED.format(name=name, dim=space["dim"], temp=temp) for name, space in coded.items()]
    return views + _vector_macros(embeddings, NEAREST, temp=temp)


def vote_macros(embeddings: dict[str, dict], tables: Set[str], *, temp: str = "") -> list[str]:
    """Return the statements that store the macros of votes; none for a database without tables of knowledge bases."""
    statements: list[str] = []
    if not {"knowledge_bases", "knowledge_labels"} <= tables:
        return statements
    for name, space in embeddings.items():
        values = _values(name, space, temp=temp)
        for suffix in suffixes(name, schema.main_embedding(embeddings)):
            statements.append(VOTE.format(macro=f"vote{suffix}", **values))
    return statements


def is_named_in(text: str) -> bool:
    """Say whether a macro or view of ours may be called by a SQL text."""
    return _NAMES.search(text) is not None


def folder_macros(embeddings: dict[str, dict]) -> list[str]:
    """Return the same macros as temporary ones, for a connection where the vectors are registered tables."""
    unaligned = {name: {**space, ROW_ALIGNED: False} for name, space in embeddings.items()}  # Lance has no rowid
    return facts_macros(temp=OURS) + _vector_macros(unaligned, NEAREST_WITHOUT_CELLS, temp=OURS)


def row_key(space: dict) -> str:
    """Return what joins vectors to galaxies: the row number where both tables have one order, ten times quicker."""
    return "rowid" if space.get(ROW_ALIGNED) else "object_id"


def vector_table(name: str, space: dict) -> str:
    """Return the table of a bundle that holds the vectors of an embedding."""
    return f"codes_{name}" if space.get(schema.CODES) else f"embedding_{name}"


def _vector_macros(embeddings: dict[str, dict], nearest: str, *, temp: str) -> list[str]:
    statements = []
    main = schema.main_embedding(embeddings)
    for name, space in embeddings.items():
        values = _values(name, space, temp=temp)
        values |= {"exact_rows": EXACT_ROWS, "every_cell": EVERY_CELL, "cut_probes": CUT_PROBES}
        if space.get(schema.WORDS_MODEL) and name != schema.MAIN:
            phrases = schema.phrases_table(name, main)
            statements.append(CONCEPT.format(temp=temp, suffix=f"_{name}", phrases=phrases))
        for suffix in suffixes(name, main):
            statements.append(LIKE_OBJECT.format(suffix=suffix, **values))
            statements.append(nearest.format(macro=f"nearest{suffix}", **values))
            statements.append(NEAREST_EXACT.format(macro=f"nearest_exact{suffix}", **values))
    return statements


def _values(name: str, space: dict, *, temp: str) -> dict[str, str | int]:
    """Return what the texts of the macros of an embedding name."""
    values = {"temp": temp, "name": name, "dim": space["dim"], "key": row_key(space)}
    values["table"] = vector_table(name, space)
    parts = OF_CODES if space.get(schema.CODES) else OF_FLOATS
    return values | {part: text.format(**values) for part, text in parts.items()}


def suffixes(name: str, main: str | None) -> list[str]:
    """Return what the macros of an embedding end in: its name, and nothing where it is the main one."""
    return [*([""] if name == main else []), *([] if name == schema.MAIN else [f"_{name}"])]
