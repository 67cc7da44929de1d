"""What a visitor's SQL may call, on the trees that DuckDB makes of it; the worker that asks is a process of its own."""

from __future__ import annotations

import json

import duckdb
import pytest

from galsearch.errors import QueryError
from galsearch.store.sql import allowed

HERE = allowed.macros(["image", "spectrum"])
TABLES = frozenset({"duckdb_settings", "duckdb_tables", "duckdb_secrets", "pg_class"})


def check(statement: str) -> list[tuple[str, str]]:
    """Return the words that a statement wants embedded."""
    with duckdb.connect() as connection:
        text = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [statement]).fetchall()[0][0]
    return allowed.check(json.loads(text)["statements"], macros=HERE, system_tables=TABLES, title="sql")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "SELECT object_id, ra + 1 FROM galaxies WHERE abs(dec) < 5 ORDER BY sqrt(ra) LIMIT 3",
        "SELECT count(*) FILTER (ra > 1), median(ra) OVER (PARTITION BY round(dec)) FROM atlas.main.galaxies",
        "WITH a AS (SELECT list_transform([1, 2], lambda x: x + 1) AS l) SELECT unnest(l) FROM a",
        "SELECT * FROM nearest_spectrum(like_object_spectrum('a'), k := 3)",
        "SELECT * FROM duckdb_tables",
        "SELECT vote_image('a')",
    ],
)
def test_what_is_listed_may_be_called_at_any_depth(statement):
    assert check(statement) == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("SELECT getenv('HOME')", "getenv"),
        ("SELECT abs(round(current_setting('threads')::INT))", "current_setting"),
        ("SELECT 1 FROM galaxies WHERE ra IN (SELECT length(read_text) FROM read_text('x'))", "read_text"),
        ("WITH a AS (SELECT 1 AS n UNION ALL SELECT sleep_ms(3)) FROM a", "sleep_ms"),
        ("SELECT [x FOR x IN [version()]]", "version"),
        ("SELECT max(ra) OVER (ORDER BY query('SELECT 1')) FROM galaxies", "query"),
        ("SELECT * FROM nearest_other('a')", "nearest_other"),
        ("SELECT * FROM DUCKDB_SETTINGS", "duckdb_settings"),
        ("SELECT * FROM galaxies, pg_class", "pg_class"),
        ("SELECT * FROM other.galaxies", "galaxies"),
        ("SELECT * FROM information_schema.tables", "tables"),
        ("SHOW DATABASES", "one database"),
    ],
)
def test_what_is_not_listed_is_refused_by_name_at_any_depth(statement, named):
    with pytest.raises(QueryError, match=named):
        check(statement)


def test_the_words_to_embed_are_found_wherever_they_stand():
    found = check(
        "SELECT * FROM nearest(embed('ring galaxy')) WHERE list_sum(EMBED_spectrum('it''s')) > 1 "
        "AND object_id IN (SELECT object_id FROM nearest_exact(embed('bar')))"
    )
    assert sorted(found) == [("embed", "bar"), ("embed", "ring galaxy"), ("embed_spectrum", "it's")]


@pytest.mark.parametrize("words", ["name", "'a' || 'b'", "1", "", "'a', 'b'", "NULL"])
def test_only_text_that_is_written_out_is_embedded(words):
    with pytest.raises(QueryError, match="one text that is written out"):
        check(f"SELECT embed({words}) FROM galaxies")
