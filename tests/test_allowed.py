"""What a visitor's SQL may call, on the trees that DuckDB makes of it; the worker that asks is a process of its own."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import tiny

import galsearch
from galsearch.errors import QueryError
from galsearch.store.sql import allowed, visitors

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


# ---- a worker's tasks, in this process


@pytest.fixture
def worker(tiny_bundle, monkeypatch):
    """Let this process be the worker of one atlas; it has no model."""
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        monkeypatch.setattr(visitors, "_stores", [atlas._store])
        yield {"number": 0, "most": 1 << 20}


def test_a_condition_is_one_expression_of_what_is_listed(worker):
    assert visitors.check_condition(b"", where="mag_r < 17 AND abs(dec) > 1", **worker) == ({}, b"")
    for where, said in (
        ("embed('ring') IS NOT NULL", "embed.. is for sql"),
        ("getenv('HOME') = ''", "getenv"),
    ):
        with pytest.raises(QueryError, match=said):
            visitors.check_condition(b"", where=where, **worker)


def test_a_select_first_names_the_texts_it_needs_and_then_takes_their_vectors(worker, tiny_bundle):
    text = (
        "SELECT object_id, list_dot_product(embed('ring')::FLOAT[], embedding::FLOAT[]) AS s FROM embedding_image "
        "WHERE list_sum(embed('bar')) <> list_sum(embed('ring')) ORDER BY s DESC LIMIT 5"
    )
    facts, content = visitors.run_select(b"", text=text, tables=[], **worker)
    assert (sorted(facts["embed"]), content) == ([("image", "bar"), ("image", "ring")], b"")
    rng = np.random.default_rng(1)
    vectors = [("image", words, rng.normal(size=16).tolist()) for words in ("ring", "bar")]
    found = visitors._table(*visitors.run_select(b"", text=text, tables=[], vectors=vectors, **worker))
    with duckdb.connect(tiny_bundle, read_only=True) as connection:
        stored = connection.execute("SELECT object_id, embedding FROM embedding_image").fetchall()
    scores = {name: float(np.dot(np.float32(vectors[0][2]), vector)) for name, vector in stored}
    best = sorted(scores, key=scores.get, reverse=True)[:5]
    assert found["object_id"].to_pylist() == best
    np.testing.assert_allclose(found["s"].to_numpy(), [scores[name] for name in best], rtol=1e-5)


def test_words_for_an_embedding_that_the_atlas_has_not_are_refused_and_too_many_texts(worker):
    with pytest.raises(QueryError, match="embed_other"):
        visitors.run_select(b"", text="SELECT embed_other('a')", tables=[], **worker)
    many = ", ".join(f"embed('{number}')" for number in range(visitors.MOST_EMBEDS + 1))
    with pytest.raises(QueryError, match=f"asked of {visitors.MOST_EMBEDS + 1} texts"):
        visitors.run_select(b"", text=f"SELECT {many}", tables=[], **worker)
    most = ", ".join(f"embed('{number}')" for number in range(visitors.MOST_EMBEDS))
    facts, _ = visitors.run_select(b"", text=f"SELECT {most}, embed('0')", tables=[], **worker)
    assert len(facts["embed"]) == visitors.MOST_EMBEDS


def test_tables_travel_to_a_worker_and_its_rows_back(worker):
    tables = {"one": pa.table({"a": [1, 2, 3]}), "two": pa.table({"b": ["x"]})}
    sizes, payload = visitors._packed(tables)
    assert {name: table.to_pydict() for name, table in visitors._unpacked(sizes, payload).items()} == {
        name: table.to_pydict() for name, table in tables.items()
    }
    text = "SELECT sum(a) AS n, any_value(b) AS b FROM one, two"
    found = visitors._table(*visitors.run_select(payload, text=text, tables=sizes, **worker))
    assert found.to_pylist() == [{"n": 6, "b": "x"}]


@pytest.mark.parametrize("share", [1, 2, 97])
def test_the_numbers_of_rows_come_back_as_they_are_few_or_many(worker, tiny_bundle, share):
    statement = f"SELECT rowid AS row FROM galaxies WHERE rowid % {share} = 0 ORDER BY rowid"
    facts, content = visitors.run_statement(b"", statement=statement, parameters=[], **worker)
    expected = [row for row in range(tiny.ROWS) if row % share == 0]
    assert visitors._table(facts, content)["row"].to_pylist() == expected
    assert len(content) <= 8 * len(expected) + 512
