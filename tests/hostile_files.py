"""Atlases as an attacker would make them: whole but for one lie, with every digest made right again.

`BUNDLES` and `FOLDERS` map a name to what is done to a copy. A bundle keeps its map valid: DuckDB counts its changes,
and the manifest says the count, as the writer of the file would.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np

from galsearch.store.index.vectors import file_state

Change = Callable[[Path], None]


def facts(path: Path) -> Path:
    """Return the DuckDB file of an atlas."""
    return path / "galaxies.duckdb" if path.is_dir() else path


_numbers = itertools.count()


@contextlib.contextmanager
def changing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Have the DuckDB file of an atlas for changes, attached to one engine that stays: each new one costs 40 ms."""
    name = f"changed_{next(_numbers)}"
    cursor = duckdb.connect(":memory:hostile_files").cursor()
    cursor.execute(f"ATTACH '{facts(path)}' AS {name}")
    try:
        cursor.execute(f"USE {name}")
        yield cursor
    finally:
        cursor.execute("USE memory")
        cursor.execute(f"DETACH {name}")
        cursor.close()


def run(path: Path, statements: Iterable[str]) -> None:
    """Run statements on an atlas and keep the map of a bundle in use."""
    with duckdb.connect(str(facts(path))) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("CHECKPOINT")
    keep_map(path)


def keep_map(path: Path) -> None:
    """Let the manifest of a bundle say how often the file was changed, so that its map is used."""
    if path.is_dir():
        return
    with contextlib.suppress(duckdb.Error), changing(path) as connection:
        for _ in range(4):
            state = file_state(path) + 1
            connection.execute("UPDATE galsearch_manifest SET value = $1 WHERE key = 'map_state'", [str(state)])
            connection.execute("CHECKPOINT")
            if file_state(path) == state:
                return


def sql(*statements: str) -> Change:
    """Return the change that runs SQL."""
    return lambda path: run(path, statements)


def manifest(key: str, change: Callable | str) -> Change:
    """Return the change of an entry of the manifest: a function of its value, or the raw text that takes its place."""

    def apply(path: Path) -> None:
        with changing(path) as connection:
            found = connection.execute("SELECT value FROM galsearch_manifest WHERE key = $1", [key]).fetchall()
            text = change if isinstance(change, str) else json.dumps(change(json.loads(found[0][0]) if found else None))
            connection.execute("DELETE FROM galsearch_manifest WHERE key = $1", [key])
            connection.execute("INSERT INTO galsearch_manifest VALUES ($1, $2)", [key, text])
            connection.execute("CHECKPOINT")
        keep_map(path)

    return apply


def space(**values) -> Change:
    """Return the change of what the manifest says of the image embedding."""
    return manifest("embeddings", lambda found: {**found, "image": {**found["image"], **values}})


ONE_RUN = "WHERE rowid = (SELECT min(rowid) FROM vector_map WHERE name = 'embedding_image')"
BIG = (0, -1, -(2**63), 2**31, 2**32, 2**40, 2**62, 2**63 - 9, 2**63 - 8, 2**63 - 4, 2**63 - 1)


def _maps() -> dict[str, Change]:
    changes: dict[str, Change] = {}
    for column in ("byte_offset", "run_values", "first_value"):
        for value in (*BIG, 1, 3, 12_288, 262_144):
            changes[f"map {column} {value}"] = sql(f"UPDATE vector_map SET {column} = {value} {ONE_RUN}")
        changes[f"map {column} null"] = sql(f"UPDATE vector_map SET {column} = NULL {ONE_RUN}")
        changes[f"map {column} text"] = sql(f"ALTER TABLE vector_map ALTER {column} TYPE VARCHAR")
        changes[f"map {column} hugeint"] = sql(f"ALTER TABLE vector_map ALTER {column} TYPE HUGEINT")
        changes[f"map {column} small"] = sql(
            f"UPDATE vector_map SET {column} = 1", f"ALTER TABLE vector_map ALTER {column} TYPE TINYINT"
        )
        changes[f"map {column} all {2**62}"] = sql(f"UPDATE vector_map SET {column} = {2**62}")
    changes["map head null"] = sql("UPDATE vector_map SET head = NULL")
    changes["map crc null"] = sql("UPDATE vector_map SET crc32 = NULL")
    changes["map all null"] = sql("UPDATE vector_map SET first_value = NULL, run_values = NULL, byte_offset = NULL")
    changes["map doubled"] = sql("INSERT INTO vector_map FROM vector_map")
    changes["map empty"] = sql("DELETE FROM vector_map")
    changes["map unaligned"] = sql(f"UPDATE vector_map SET byte_offset = byte_offset + 1 {ONE_RUN}")
    changes["map overlapping"] = sql("UPDATE vector_map SET byte_offset = (SELECT max(byte_offset) FROM vector_map)")
    changes["map many runs"] = sql(
        "INSERT INTO vector_map SELECT 'embedding_image', NULL, range, 1, 12288, 0, 0 FROM range(200000)"
    )
    changes["map a file"] = sql("UPDATE vector_map SET file = '/etc/passwd'")
    return changes


def _manifests() -> dict[str, Change]:
    deep = "[" * 100_000 + "]" * 100_000
    changes = {f"dim {value}": space(dim=value) for value in (0, 1, 3, 15, 17, 2**16, 2**31, 2**63, 10**30, -1, 1.5)}
    changes |= {f"vectors said {value}": space(rows=value) for value in (0, 1, 299, 301, 2**31, 2**40, 2**63, 10**30)}
    changes |= {
        f"rows said {value}": manifest("rows", lambda _, value=value: value)
        for value in (0, 1, 299, 301, 2**31, 2**40, 2**50, 2**63, 10**30)
    }
    for key in ("sources", "provenance", "title", "x_unknown", "embeddings", "rows", "version", "map_state"):
        changes[f"{key} deep"] = manifest(key, deep)
        changes[f"{key} digits"] = manifest(key, "9" * 5_000)
        changes[f"{key} NaN"] = manifest(key, "NaN")
        changes[f"{key} null"] = manifest(key, "null")
        changes[f"{key} list"] = manifest(key, "[1, null, [2]]")
        changes[f"{key} surrogate"] = manifest(key, '"\\ud800 \\u0000"')
    changes["a long entry"] = manifest("x_long", "[" + "1," * 2_000_000 + "1]")
    changes["many entries"] = sql("INSERT INTO galsearch_manifest SELECT 'x' || range, '1' FROM range(100000)")
    changes["no key"] = sql("UPDATE galsearch_manifest SET key = NULL")
    changes["keys twice"] = sql("INSERT INTO galsearch_manifest FROM galsearch_manifest")
    changes["sources of text"] = manifest("sources", '["x"]')
    changes["sources nested"] = manifest("sources", '[{"title": {"a": 1}, "bibtex": ["x"], "acknowledgement": 5}]')
    changes["no embeddings"] = manifest("embeddings", "{}")
    changes["an embedding that is not there"] = manifest(
        "embeddings", lambda found: {**found, "spectrum": found["image"]}
    )
    changes["a long name"] = manifest("embeddings", lambda found: {**found, "a" * 31: found["image"]})
    for name, value in {"sha256": 5, "codes": ["x"], "codes ": {}, "words": ["a"], "space": 3, "plane": 4}.items():
        changes[f"space {name}"] = space(**{name.strip(): value})
    changes["codes said"] = space(codes="int8-residual")
    changes["aligned and is not"] = sql("CREATE OR REPLACE TABLE galaxies AS FROM galaxies ORDER BY object_id DESC")
    return changes


def _view(table: str, body: str) -> Change:
    return sql(
        f"ALTER TABLE {table} RENAME TO old_{table}",
        "CREATE SCHEMA other",
        f"CREATE TABLE other.{table} AS FROM old_{table}",
        f"CREATE VIEW {table} AS {body.format(old=f'old_{table}')}",
    )


BUILTINS = (
    *("hash", "bit_xor", "count", "count_star", "max", "coalesce", "error", "unnest", "json_serialize_sql", "lower"),
    *("array_inner_product", "octet_length", "strlen", "regexp_replace", "list_value", "struct_extract", "embed"),
    *("duckdb_tables", "duckdb_functions", "duckdb_views", "duckdb_columns", "range", "+", "=", "<=", "~~"),
)


def _objects() -> dict[str, Change]:
    forever = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r"
    tables = ("galaxies", "galsearch_manifest", "galsearch_columns", "cells_image", "thumbnails", "word_postings")
    changes = {f"view {name}": _view(name, "FROM {old}") for name in (*tables, "models", "concepts", "vector_map")}
    changes |= {f"view {name} endless": _view(name, f"SELECT {{old}}.* FROM {{old}}, ({forever})") for name in tables}
    changes |= {f"macro {name}": sql(f'CREATE MACRO "{name}"(a) AS 0') for name in BUILTINS}
    changes |= {f"macro {name} of two": sql(f'CREATE MACRO "{name}"(a, b) AS 0') for name in ("+", "=", "<=", "pow")}
    changes |= {
        f"macro {name} of ours": sql(f"CREATE OR REPLACE MACRO {name}(a, b := 1) AS 0")
        for name in ("separation_arcsec", "concept", "like_object", "terms_of")
    }
    changes |= {
        f"macro {name} of tables": sql(
            f"DROP MACRO TABLE {name}",
            f"CREATE MACRO {name}(a, k := 1, b := 2, c := 3) AS TABLE "
            f"SELECT 'x' AS object_id, 1.0 AS score FROM ({forever})",
        )
        for name in ("nearest", "nearest_exact", "matching_words", "cone")
    }
    changes["macro that reads a file"] = sql("CREATE MACRO peek() AS TABLE SELECT * FROM read_text('/etc/passwd')")
    changes["a column that is computed"] = sql(
        "CREATE TABLE g (object_id VARCHAR, ra DOUBLE, dec DOUBLE, e INTEGER AS (length(repeat(object_id, 9))))",
        "INSERT INTO g SELECT object_id, ra, dec FROM galaxies",
        "DROP TABLE galaxies",
        "ALTER TABLE g RENAME TO galaxies",
    )
    changes["a default that is computed"] = sql("ALTER TABLE galaxies ADD COLUMN e DOUBLE DEFAULT random()")
    changes["a check"] = sql(
        "CREATE TABLE g (object_id VARCHAR, ra DOUBLE, dec DOUBLE, CHECK (length(object_id) > 0))",
        "INSERT INTO g SELECT object_id, ra, dec FROM galaxies",
        "DROP TABLE galaxies",
        "ALTER TABLE g RENAME TO galaxies",
    )
    changes["another schema"] = sql("CREATE SCHEMA atlas", "CREATE TABLE atlas.galaxies AS SELECT 'x' AS object_id")
    changes["tables in another schema alone"] = sql(
        "CREATE SCHEMA other", "CREATE TABLE other.galaxies AS FROM galaxies", "DROP TABLE galaxies"
    )
    changes["a sequence and a type"] = sql("CREATE SEQUENCE galaxies_id", "CREATE TYPE kind AS ENUM ('a')")
    changes["a type by the name of another"] = sql("CREATE TYPE json AS VARCHAR")
    changes["an index"] = sql("CREATE INDEX by_id ON galaxies (object_id)")
    changes["a constraint"] = sql("CREATE UNIQUE INDEX by_id ON galaxies (object_id)")
    return changes


def _columns() -> dict[str, Change]:
    names = ("rowid", "ROWID", "RowId")
    changes = {
        f"column {name}": sql(f'ALTER TABLE galaxies ADD COLUMN "{name}" BIGINT', f'UPDATE galaxies SET "{name}" = 3')
        for name in names
    }
    changes["vectors with rowid"] = sql("ALTER TABLE embedding_image ADD COLUMN rowid BIGINT")
    for name in ("row", "place", "cut", "q", "k", "cell", "score", "every_0", "galaxies", "h", "g", "v", "t", "part"):
        changes[f"column {name}"] = sql(f'ALTER TABLE galaxies ADD COLUMN "{name}" BIGINT DEFAULT 7')
    changes["column of fields"] = sql(
        "ALTER TABLE galaxies ADD COLUMN galaxies STRUCT(object_id VARCHAR, rowid BIGINT)",
        "UPDATE galaxies SET galaxies = {object_id: 'x', rowid: 0}",
    )
    changes["ids are numbers"] = sql("ALTER TABLE galaxies ALTER object_id TYPE HUGEINT")
    changes["ids are lists"] = sql("ALTER TABLE galaxies ALTER object_id TYPE VARCHAR[] USING [object_id]")
    changes["ids are missing"] = sql("UPDATE galaxies SET object_id = NULL")
    changes["ids are one"] = sql("UPDATE galaxies SET object_id = 'x'")
    changes["positions are text"] = sql("ALTER TABLE galaxies ALTER ra TYPE VARCHAR")
    changes["positions are not numbers"] = sql("UPDATE galaxies SET ra = 'nan', dec = 'inf'")
    changes["no objects"] = sql("DELETE FROM galaxies")
    changes["every other object"] = sql("DELETE FROM galaxies WHERE rowid % 2 = 0")
    changes["objects twice"] = sql("INSERT INTO galaxies FROM galaxies")
    changes["ten million objects"] = sql(
        "CREATE TABLE g AS SELECT 'x' AS object_id, 1.0::DOUBLE AS ra, 2.0::DOUBLE AS dec FROM range(10000000)",
        "DROP TABLE galaxies",
        "ALTER TABLE g RENAME TO galaxies",
    )
    changes["descriptions by the million"] = sql(
        "INSERT INTO galsearch_columns SELECT 'galaxies', 'ra', '', '', '' FROM range(2000000)"
    )
    changes["descriptions missing"] = sql("UPDATE galsearch_columns SET unit = NULL, ucd = NULL, description = NULL")
    return changes


def _indexes() -> dict[str, Change]:
    changes = {f"cell rows {value}": sql(f"UPDATE cells_image SET rows = {value} WHERE cell = 0") for value in BIG}
    changes |= {f"all cell rows {value}": sql(f"UPDATE cells_image SET rows = {value}") for value in (0, -1, 2**62)}
    changes |= {
        "cell rows null": sql("UPDATE cells_image SET rows = NULL"),
        "cells numbered oddly": sql("UPDATE cells_image SET cell = -cell"),
        "cells twice": sql("INSERT INTO cells_image FROM cells_image"),
        "no cells": sql("DELETE FROM cells_image"),
        "cells of text": sql("ALTER TABLE cells_image ALTER rows TYPE VARCHAR"),
        "centroids null": sql("UPDATE cells_image SET centroid = NULL"),
        "centroids not finite": sql(
            "UPDATE cells_image SET centroid = list_transform(range(16), lambda x: 'nan'::FLOAT)"
        ),
        "vectors in no cell": sql("UPDATE embedding_image SET cell = -5"),
        "vectors in a cell that is not there": sql("UPDATE embedding_image SET cell = 2147483647"),
        "vectors null": sql("UPDATE embedding_image SET embedding = NULL"),
        "vectors not finite": sql(
            "UPDATE embedding_image SET embedding = list_transform(range(16), lambda x: 'nan'::FLOAT) WHERE rowid = 3"
        ),
        "vectors of no object": sql("UPDATE embedding_image SET object_id = NULL"),
        "vectors of one object": sql("UPDATE embedding_image SET object_id = (SELECT min(object_id) FROM galaxies)"),
        "vectors taken out": sql("DELETE FROM embedding_image WHERE rowid % 3 = 0"),
        "vectors twice": sql("INSERT INTO embedding_image FROM embedding_image"),
        "vectors of another length": sql(
            "CREATE OR REPLACE TABLE embedding_image AS SELECT object_id, cell, [1.0]::FLOAT[1] AS embedding "
            "FROM embedding_image"
        ),
        "vectors of lists": sql("ALTER TABLE embedding_image ALTER embedding TYPE FLOAT[]"),
        "postings far": sql("UPDATE word_postings SET row = 1000000000"),
        "postings negative": sql("UPDATE word_postings SET row = -5"),
        "postings null": sql("UPDATE word_postings SET row = NULL, weight = NULL"),
        "postings not a number": sql("UPDATE word_postings SET weight = 'nan'"),
        "postings infinite": sql("UPDATE word_postings SET weight = 'inf'"),
        "postings of text": sql("ALTER TABLE word_postings ALTER row TYPE VARCHAR"),
        "curves": sql(
            "INSERT INTO recall_image VALUES ('far', 0, 0, 2), (NULL, -1, -1, 'nan'), ('like', 10, 1, 'inf')"
        ),
        "curves of one kind": sql("INSERT INTO recall_image VALUES ('far', 10, 1, 0.5)"),
        "lines not a number": sql("UPDATE line_image SET score = 'nan'"),
        "lines null": sql("UPDATE line_image SET score = NULL"),
        "places not numbers": sql("UPDATE map_image SET x = 'nan', y = 'inf'"),
        "places null": sql("UPDATE map_image SET x = NULL, object_id = NULL"),
        "phrases null": sql("UPDATE concepts SET phrase = NULL"),
        "phrases without vectors": sql("UPDATE concepts SET embedding = NULL"),
        "phrases not finite": sql("UPDATE concepts SET embedding = list_transform(range(16), lambda x: 'nan'::FLOAT)"),
    }
    return changes


def _blobs() -> dict[str, Change]:
    deep = "'" + "[" * 50_000 + "]" * 50_000 + "'"
    cards = {"null": "NULL", "deep": deep, "list": "'[]'", "number": "'3'", "NaN": "'{\"dim\": NaN}'", "empty": "'{}'"}
    changes = {f"card {name}": sql(f"UPDATE models SET card = {value}") for name, value in cards.items()}
    blobs = {"null": "NULL", "empty": "''::BLOB", "garbage": "'\\xFF\\x00'::BLOB", "text": "'<svg/>'::BLOB"}
    for column in ("onnx", "tokenizer"):
        changes |= {f"{column} {name}": sql(f"UPDATE models SET {column} = {value}") for name, value in blobs.items()}
    changes |= {f"pictures {name}": sql(f"UPDATE thumbnails SET image = {value}") for name, value in blobs.items()}
    for name in ("../../text", "/etc", "", "a/b", "TEXT", "x" * 200):
        changes[f"model called {name[:9]!r}"] = sql(f"UPDATE models SET name = '{name}' WHERE name = 'text'")
    changes["model without a name"] = sql("UPDATE models SET name = NULL")
    changes["models by the thousand"] = sql("INSERT INTO models SELECT 'm' || range, '{}', '', NULL FROM range(5000)")
    changes["a picture of 20 MB"] = sql(
        "UPDATE thumbnails SET image = repeat('x', 20000000)::BLOB WHERE rowid = 0",
    )
    changes["pictures of lists"] = sql("ALTER TABLE thumbnails ALTER image TYPE BLOB[] USING [image]")
    return changes


def _log(path: Path) -> None:
    facts(path).with_name(facts(path).name + ".wal").write_bytes(os.urandom(5_000))


def _no_text(path: Path) -> None:
    """Put a byte that is no UTF-8 into ids, with the checksums of their blocks made right."""
    data = bytearray(facts(path).read_bytes())
    places = [found.start() + 13 for found in re.finditer(rb"1237650\d{11}", data)]
    assert places
    for place in places[::7]:
        data[place] = 0xFF
    for at in {3 * HEADER_BYTES + (place - 3 * HEADER_BYTES) // BLOCK_BYTES * BLOCK_BYTES for place in places}:
        data[at : at + 8] = checksum(bytes(data[at + 8 : at + BLOCK_BYTES])).to_bytes(8, "little")
    facts(path).write_bytes(data)


BUNDLES: dict[str, Change] = {
    **_maps(),
    **_manifests(),
    **_objects(),
    **_columns(),
    **_indexes(),
    **_blobs(),
    "a log": _log,
    "ids that are no text": _no_text,
}


def _file(name: str, put: Callable[[Path], None]) -> Change:
    """Return the change that lets the map of a folder name a file, and puts it there."""

    def apply(path: Path) -> None:
        put(path)
        run(path, [f"UPDATE vector_map SET file = {name}"])

    return apply


def _nothing(path: Path) -> None:
    pass


def _link(part: str) -> Change:
    """Return the change that puts a part of a folder outside, with a link where it was."""

    def apply(path: Path) -> None:
        outside = path.parent / f"outside-{path.name}-{part.replace('/', '-')}"
        shutil.move(path / part, outside)
        (path / part).symlink_to(outside)

    return apply


def _instead(part: str, put: Callable[[Path], None]) -> Change:
    """Return the change that puts something else in the place of a file."""

    def apply(path: Path) -> None:
        (path / part).unlink()
        put(path / part)

    return apply


def _data_link(path: Path) -> None:
    file = next((path / "vectors.lance" / "image.lance" / "data").iterdir())
    _link(str(file.relative_to(path)))(path)


def _table_elsewhere(path: Path) -> None:
    name = "../../elsewhere"
    run(path, [f'CREATE TABLE "rows_{name}" (object_id VARCHAR, row BIGINT)'])
    manifest("lance_versions", lambda found: {**found, name: 1})(path)


def _zero_in_an_error(path: Path) -> None:
    """Let Lance say something with a zero byte in it of a file of vectors, whose digest is made right."""
    file = next((path / "vectors.lance" / "image.lance" / "data").iterdir())
    data = file.read_bytes()
    changed = data.replace(b"/lance.encodings.ColumnEncoding", b"/lance.encod\0ngs.ColumnEncoding")
    assert changed != data
    file.write_bytes(changed)
    name, digest = str(file.relative_to(path)), zlib.crc32(changed)
    manifest("files", lambda found: {**found, name: digest} if name in found else found)(path)


FOLDERS: dict[str, Change] = {
    "a zero byte in an error": _zero_in_an_error,
    "ids that are no text": _no_text,
    "a pipe in the map": _file("'pipe'", lambda path: os.mkfifo(path / "pipe")),
    "an empty file in the map": _file("'empty'", lambda path: (path / "empty").touch()),
    **{
        f"map of {name[:14]}": _file(name, _nothing)
        for name in (
            *("'/dev/zero'", "'/etc/passwd'", "'../../../../etc/passwd'", "'vectors.lance'", "'a' || chr(0) || 'b'"),
            *("repeat('x', 5000)", "''", "'.'", "NULL", "'galaxies.duckdb'", "'./galaxies.duckdb'"),
        )
    },
    **{f"link {part}": _link(part) for part in ("galaxies.duckdb", "vectors.lance", "vectors.lance/image.lance")},
    "link models": _link("models"),
    "link tokenizer": _instead("models/text/tokenizer.json", lambda path: path.symlink_to("/etc/passwd")),
    "link to a device": _instead("models/text/model.onnx", lambda path: path.symlink_to("/dev/zero")),
    "pipe for a graph": _instead("models/text/model.onnx", os.mkfifo),
    "pipe for a card": _instead("models/text/card.json", os.mkfifo),
    "link data": _data_link,
    "a table elsewhere": _table_elsewhere,
    "a log": _log,
    **{
        f"versions {value!r:.20}": manifest("lance_versions", lambda found, value=value: dict.fromkeys(found, value))
        for value in ("1", 2**70, -1, 0, True, None, [1], 1.0, 2**62)
    },
    "files a list": manifest("files", "[1]"),
    "files of text": manifest("files", '{"vectors.lance/a": "x"}'),
    "files elsewhere": manifest("files", lambda found: {**found, "vectors.lance/../../../etc/passwd": 1}),
    **{
        f"rows {value}": sql(f"UPDATE rows_image SET row = {value}", "DELETE FROM vector_map")
        for value in (2**40, -1, 0, 2**63 - 1)
    },
    "rows null": sql("UPDATE rows_image SET row = NULL"),
    "rows by the million": sql("INSERT INTO rows_image SELECT 'x' || range, range FROM range(1000000)"),
    "rows permuted": sql("UPDATE rows_image SET row = 299 - row"),
    "picture rows far": sql("UPDATE rows_thumbnails SET row = 1000000"),
    "picture rows negative": sql("UPDATE rows_thumbnails SET row = -7"),
    "offset": sql(f"UPDATE vector_map SET byte_offset = {2**63 - 8} {ONE_RUN}"),
    "objects permuted": sql("CREATE OR REPLACE TABLE galaxies AS FROM galaxies ORDER BY object_id DESC"),
    "column rowid": sql("ALTER TABLE galaxies ADD COLUMN rowid BIGINT"),
    "view galaxies": _view("galaxies", "FROM {old}"),
    "macro hash": sql("CREATE MACRO hash(a) AS 0"),
    "type json": sql("CREATE TYPE json AS VARCHAR"),
}


# ---- mutations: one seeded lie each, with every digest made right again

BLOCK_BYTES, HEADER_BYTES = 262_144, 4_096
COLUMNS = (
    "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND database_name = current_database()"
)
NUMBERS = (*BIG, 1, 2, 7, 127, 255, 256, 65_535, -7, 2**53)
LITERALS = (
    *map(str, NUMBERS),
    "NULL",
    "'nan'",
    "'inf'",
    "''",
    "repeat('x', 100000)",
    "'\\x00'",
    "'../x'",
    "[1, 2]",
    "true",
)
JSON_VALUES = (
    *NUMBERS,
    None,
    True,
    "",
    "x" * 10_000,
    [],
    {},
    [[[]]],
    {"a": None},
    1e308,
    "../../x",
    ["x"],
    [None],
    [{}],
)


def checksum(content: bytes) -> int:
    """Return the checksum of a block as DuckDB computes it."""
    words = np.frombuffer(content, "<u8")
    with np.errstate(over="ignore"):
        return int(np.uint64(5381) ^ np.bitwise_xor.reduce(words * np.uint64(0xBF58476D1CE4E5B9)))


def _flip_block(path: Path, rng: random.Random) -> bool:
    """Change bytes of a block or a header of the DuckDB file, with its checksum; say whether content may differ."""
    data = bytearray(facts(path).read_bytes())
    blocks = [(at, HEADER_BYTES) for at in (0, HEADER_BYTES, 2 * HEADER_BYTES)]
    blocks += [(at, BLOCK_BYTES) for at in range(3 * HEADER_BYTES, len(data) - BLOCK_BYTES + 1, BLOCK_BYTES)]
    at, size = rng.choice(blocks)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = at + 8 + rng.randrange(rng.choice((size - 8, 64, 1_024)))
        data[place] = rng.choice((0, 1, 127, 128, 255, data[place] ^ (1 << rng.randrange(8))))
    data[at : at + 8] = checksum(bytes(data[at + 8 : at + size])).to_bytes(8, "little")
    facts(path).write_bytes(data)
    return True


def _change_value(path: Path, rng: random.Random) -> bool:
    """Change a value, or all values, of a column of any table."""
    with changing(path) as connection:
        columns = connection.execute(COLUMNS).fetchall()
        table, column = rng.choice(sorted(columns))
        rows = rng.choice(("", f"WHERE rowid = {rng.randrange(300)}", f"WHERE rowid % 3 = {rng.randrange(3)}"))
        with contextlib.suppress(duckdb.Error):  # what the column cannot hold stays as it was
            connection.execute(f'UPDATE "{table}" SET "{column}" = {rng.choice(LITERALS)} {rows}')
        connection.execute("CHECKPOINT")
    keep_map(path)
    return True


def _change_table(path: Path, rng: random.Random) -> bool:
    """Take out, double, permute or retype a table or a column."""
    with changing(path) as connection:
        columns = connection.execute(COLUMNS).fetchall()
        table, column = rng.choice(sorted(columns))
        statement = rng.choice(
            (
                f'DELETE FROM "{table}" WHERE rowid % {rng.randrange(1, 9)} = 0',
                f'INSERT INTO "{table}" FROM "{table}"',
                f'CREATE OR REPLACE TABLE "{table}" AS FROM "{table}" ORDER BY "{column}" DESC',
                f'CREATE OR REPLACE TABLE "{table}" AS FROM "{table}" ORDER BY hash("{column}")',
                f'ALTER TABLE "{table}" ALTER "{column}" TYPE '
                + rng.choice(("VARCHAR", "BLOB", "DOUBLE", "TINYINT", "BIGINT")),
                f'ALTER TABLE "{table}" DROP "{column}"',
                f'ALTER TABLE "{table}" RENAME "{column}" TO "rowid"',
                f'DROP TABLE "{table}"',
            )
        )
        with contextlib.suppress(duckdb.Error):
            connection.execute(statement)
        connection.execute("CHECKPOINT")
    keep_map(path)
    return True


def _change_manifest(path: Path, rng: random.Random) -> bool:
    """Change a value anywhere in the manifest."""
    key = rng.choice(("rows", "embeddings", "sources", "provenance", "title", "version", "files", "lance_versions"))

    def change(found: object) -> object:
        if isinstance(found, (dict, list)) and found and rng.random() < 0.9:
            place = rng.choice(sorted(found) if isinstance(found, dict) else range(len(found)))
            found[place] = change(found[place])
            return found
        return rng.choice(JSON_VALUES)

    manifest(key, change)(path)
    return key == "title"


def _flip_file(path: Path, rng: random.Random) -> bool:
    """Change bytes of a file of Lance or of a model, and say their digest in the manifest; cut it sometimes."""
    file = rng.choice(sorted(item for item in path.rglob("*") if item.is_file() and item.suffix != ".duckdb"))
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 2, 8))):
        if data:
            place = rng.choice((rng.randrange(len(data)), max(0, len(data) - 1 - rng.randrange(200))))
            data[place] = rng.choice((0, 1, 127, 255, data[place] ^ (1 << rng.randrange(8))))
    file.write_bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)
    name, digest = str(file.relative_to(path)), zlib.crc32(file.read_bytes())
    manifest("files", lambda found: {**found, name: digest} if name in found else found)(path)
    return True


def mutate(path: Path, seed: int) -> bool:
    """Change a copy of an atlas in one seeded way; say whether what was changed may be content, which is believed."""
    rng = random.Random(seed)
    changes = [_change_value, _change_value, _change_table, _change_manifest, _flip_block]
    return rng.choice([*changes, _flip_file, _flip_file] if path.is_dir() else changes)(path, rng)
