"""SQL from a text box, made at random and on purpose: it reads the atlas or is refused, and does nothing else.

Doors are what DuckDB offers to read, write or load something outside; every way to nest one is tried with all of them.
Random text comes from hypothesis (a grammar, and texts cut up) and from sqlglot (trees with exchanged branches).
"""

import contextlib
import functools
import os
import random
import sys
from pathlib import Path

import crash
import pyarrow as pa
import pytest
import sqlglot
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

import galsearch
from galsearch.errors import QueryError
from galsearch.store.sql import sandbox

SECONDS = 0.2  # the time limit here
SECRET = "sesame"
MANY = 6_000  # random questions, in the slow test

TABLE_DOORS = (
    "read_csv('{file}')",
    "read_csv_auto('{file}')",
    "read_csv(['{file}'])",
    "sniff_csv('{file}')",
    "read_text('{file}')",
    "read_blob('{file}')",
    "read_text('{folder}/*')",
    "glob('{folder}/*')",
    "read_parquet('{file}')",
    "parquet_scan('{file}')",
    "parquet_metadata('{file}')",
    "parquet_file_metadata('{file}')",
    "parquet_kv_metadata('{file}')",
    "parquet_schema('{file}')",
    "parquet_bloom_probe('{file}', 'word', 'x')",
    "read_json('{file}')",
    "read_json_objects('{file}')",
    "read_ndjson_auto('{file}')",
    "read_duckdb('{atlas}')",
    "'{file}'",
    '"{file}"',
    "'{folder}/*.csv'",
    "query_table('{file}')",
    "query_table(['{file}'])",
    "'https://example.org/x.parquet'",
    "read_csv('http://127.0.0.1:9/x.csv')",
    "read_parquet('s3://bucket/x.parquet')",
    "read_text('hf://datasets/a/b')",
    "sqlite_scan('{file}', 't')",
    "postgres_scan('host=127.0.0.1', 'a', 'b')",
    "iceberg_scan('{folder}')",
    "delta_scan('{folder}')",
    "st_read('{file}')",
    "enable_logging()",
    "enable_profiling()",
    "json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{file}'')'))",
)
SCALAR_DOORS = (
    "getenv('HOME')",
    "read_text('{file}')",
    "(SELECT content FROM read_text('{file}'))",
    "(COPY galaxies TO '{folder}/out.csv')",
    "(INSERT INTO galaxies BY NAME SELECT 'x' AS object_id RETURNING 1)",
    "(DELETE FROM galaxies RETURNING 1)",
    "(UPDATE galaxies SET z = 0 RETURNING 1)",
    "nextval('numbers')",
    "load_extension('httpfs')",
)
STATEMENTS = (
    "COPY galaxies TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "COPY galaxies FROM '{file}'",
    "COPY FROM DATABASE atlas TO memory",
    "EXPORT DATABASE '{folder}/out'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/new.duckdb' AS new",
    "ATTACH '{atlas}' AS again (READ_WRITE)",
    "DETACH atlas",
    "USE memory",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "LOAD '{file}'",
    "PRAGMA database_list",
    "PRAGMA enable_profiling = 'json'",
    "SET threads = 1",
    "SET GLOBAL enable_external_access = true",
    "RESET lock_configuration",
    "SET VARIABLE x = (SELECT content FROM read_text('{file}'))",
    "CREATE TABLE memory.x AS SELECT 1",
    "CREATE TEMP TABLE x AS FROM read_text('{file}')",
    "CREATE MACRO m() AS 1",
    "CREATE OR REPLACE TEMP MACRO concept(x) AS NULL",
    "CREATE SECRET s (TYPE s3)",
    "CREATE SEQUENCE s",
    "CREATE VIEW v AS FROM galaxies",
    "DROP TABLE galaxies",
    "ALTER TABLE galaxies ADD COLUMN x INTEGER",
    "INSERT INTO galaxies (object_id) VALUES ('x')",
    "UPDATE galaxies SET z = 0",
    "DELETE FROM galaxies",
    "TRUNCATE galaxies",
    "MERGE INTO galaxies USING galaxies AS g ON true WHEN MATCHED THEN DELETE",
    "VACUUM",
    "ANALYZE",
    "CHECKPOINT",
    "BEGIN",
    "CALL force_checkpoint()",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "COMMENT ON TABLE galaxies IS 'x'",
    "EXPLAIN ANALYZE COPY galaxies TO '{folder}/out.csv'",
    "EXPLAIN ANALYZE INSERT INTO galaxies (object_id) VALUES ('x')",
    "WITH x AS (DELETE FROM galaxies RETURNING *) FROM x",
)
NESTS = (  # ways to bring a table into a SELECT
    "FROM {0}",
    "SELECT * FROM (SELECT * FROM {0}) t",
    "WITH c AS (FROM {0}) FROM c",
    "WITH c AS MATERIALIZED (FROM {0}), d AS (FROM c) SELECT count(*) FROM d",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r, {0} WHERE n < 3) FROM r",
    "FROM galaxies g, LATERAL (SELECT g.z, t.* FROM {0} t) LIMIT 1",
    "SELECT (SELECT count(*) FROM {0})",
    "SELECT ARRAY(FROM {0})",
    "FROM galaxies WHERE EXISTS (FROM {0})",
    "FROM galaxies WHERE object_id IN (SELECT min(t::VARCHAR) FROM {0} t)",
    "SELECT 1 UNION ALL BY NAME FROM {0}",
    "FROM galaxies POSITIONAL JOIN {0}",
    "FROM (SUMMARIZE FROM {0})",
    "FROM (SHOW TABLES), {0}",
    "FROM (PIVOT (FROM {0}) ON 1 USING count(*))",
    "EXPLAIN ANALYZE FROM {0}",
    "FROM nearest(concept('spiral galaxy'), cut := EXISTS (FROM {0}))",
    "FROM nearest((SELECT [0.0] FROM {0}))",
    "FROM cone(10.0, 10.0, (SELECT 1 FROM {0}))",
    "FROM query('FROM ' || $q${0}$q$)",
    "SELECT embed((SELECT 'red' FROM {0}))",
)
DISCLOSING = (  # no visitor may be told where on the machine something lies
    "FROM duckdb_databases()",
    "FROM pragma_database_list",
    "FROM duckdb_settings()",
    "FROM pg_catalog.pg_settings",
    "SELECT current_setting('allowed_paths')",
    "FROM query('FROM duckdb_' || 'databases()')",
    "SELECT current_setting('secret_directory')",
    "SELECT current_setting('allowed_directories')",
    "SELECT current_setting('temp_directory')",
    "SELECT current_setting('home_directory')",
    "FROM duckdb_extensions()",
    "FROM duckdb_extension_repositories()",
    "FROM duckdb_views() WHERE NOT internal",
    "FROM duckdb_logs()",
    "FROM duckdb_temporary_files()",
    "SELECT version(), current_user, pg_postmaster_start_time()",
)
SECRETS = ("FROM duckdb_secrets()", "FROM which_secret('s3://x', 's3')")
WRONG = pytest.mark.xfail(strict=True, reason="DuckDB reports it as it reports a file that cannot be read")
NOT_THE_FILE = (  # what fails for a reason that has nothing to do with the atlas
    "FROM force_checkpoint()",
    pytest.param("FROM destroy_external_resource('x', NULL)", marks=WRONG),
    "FROM checkpoint('nothing')",
    "FROM duckdb_extensions()",
    "SELECT error('boom')",
    "SELECT CAST('x' AS INTEGER)",
    "SELECT 'x'::BLOB::BIT::INTEGER[3]",
    "SELECT regexp_matches('x', '(')",
    "SELECT json('{{')",
    "SELECT repeat('x', 100_000_000_000)",
    "SELECT [1, 2][:: 0]",
    "SELECT map([1, 1], [2, 3])",
    "SELECT strptime('x', '%')",
    "SELECT DATE '9999999-01-01' + INTERVAL 1 MILLENNIUM",
    "SELECT 170141183460469231731687303715884105727 + 1",
)


# ---- what may come of a question


@pytest.fixture
def outside(atlas, tiny_path, tmp_path, monkeypatch):
    """A folder with a secret, where nothing may be written; the atlas may not change either."""
    secret = tmp_path / "secret.csv"
    secret.write_text(f"word\n{SECRET}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sandbox, "TIME_LIMIT_SECONDS", SECONDS)
    before, listed = crash.files(tiny_path), sorted(tiny_path.parent.iterdir())
    yield {"file": str(secret), "folder": str(tmp_path), "atlas": str(tiny_path)}
    assert [item.name for item in tmp_path.iterdir()] == ["secret.csv"]
    assert secret.read_text() == f"word\n{SECRET}\n"
    assert crash.files(tiny_path) == before
    assert sorted(tiny_path.parent.iterdir()) == listed
    assert atlas.count() == tiny.ROWS
    assert atlas.search("red", k=3).ids == atlas.search("red", k=3, exact=True).ids


def asked(ask, text: str) -> tuple[bool, str]:
    """Return whether there was an answer and what was said; only a table and a QueryError are allowed."""
    try:
        found = ask(text)
    except QueryError as error:
        return False, str(error)
    return True, str(found.to_pylist() if isinstance(found, pa.Table) else found)


def questions(atlas) -> dict:
    """Return the three doors to SQL."""
    return {
        "sql": atlas.sql,
        "where": lambda text: atlas.search("red", where=text, k=3).table,
        "count": atlas.count,
    }


def disclosed(said: str, text: str, places: dict[str, str]) -> list[str]:
    """Return what an answer says of the machine that was not in the question."""
    facts = {SECRET, str(Path.home()), sys.prefix, *places.values(), str(Path(places["atlas"]).parent)}
    return [fact for fact in facts if fact in said and fact not in text]


def refused(atlas, text: str, places: dict[str, str], *, door: str) -> None:
    answered, said = asked(questions(atlas)[door], text)
    assert not answered, f"{text}: {said[:300]}"
    assert SECRET not in said
    assert len(said) < 1500


# ---- on purpose


def test_every_door_in_every_nest_is_refused(atlas, outside):
    doors = [door.format(**outside) for door in TABLE_DOORS]
    for number, door in enumerate(doors):
        for nest in NESTS[:1] + tuple(NESTS[(number + step) % len(NESTS)] for step in (1, 8, 15)):
            refused(atlas, nest.replace("{0}", door), outside, door="sql")
        for where in (f"EXISTS (FROM {door})", f"z < (SELECT count(*) FROM {door})"):
            refused(atlas, where, outside, door="where")


@pytest.mark.slow
def test_every_door_in_each_and_every_nest_is_refused(atlas, outside):
    for door in TABLE_DOORS:
        for nest in NESTS:
            refused(atlas, nest.replace("{0}", door.format(**outside)), outside, door="sql")


def test_every_scalar_door_is_refused(atlas, outside):
    for door in (door.format(**outside) for door in SCALAR_DOORS):
        refused(atlas, f"SELECT {door}", outside, door="sql")
        refused(atlas, f"FROM galaxies WHERE z < 0.1 OR {door} = 'x'", outside, door="sql")
        refused(atlas, f"z < 0.1 OR {door} = 'x'", outside, door="count")


def test_every_statement_but_a_question_is_refused(atlas, outside):
    for statement in (statement.format(**outside) for statement in STATEMENTS):
        refused(atlas, statement, outside, door="sql")
        refused(atlas, f"SELECT 1; {statement}", outside, door="sql")
        refused(atlas, f"FROM query($q${statement}$q$)", outside, door="sql")
        for where in (statement, f"true; {statement}", f"true); {statement}; --", f"EXISTS ({statement})"):
            refused(atlas, where, outside, door="where")


@pytest.fixture(scope="module")
def guarded(tiny_path):
    """The tiny atlas in either form, open for visitors."""
    with galsearch.open(tiny_path, device="cpu", visitors=galsearch.Limits(processes=1, spare=1)) as opened:
        yield opened


@pytest.mark.parametrize("text", DISCLOSING)
def test_no_answer_to_a_visitor_says_where_on_the_machine_something_lies(guarded, outside, text):
    _, said = asked(guarded.sql, text)
    assert disclosed(said, text, outside) == []


@pytest.mark.parametrize("text", NOT_THE_FILE)
def test_what_fails_on_its_own_is_not_called_a_damaged_file(atlas, outside, text):
    asked(atlas.sql, text)


def test_secrets_are_none_of_an_atlas_and_asking_twice_for_them_is_no_damage(atlas, outside):
    for text in SECRETS * 2:
        _, said = asked(atlas.sql, text)
        assert disclosed(said, text, outside) == []


SORTED = "SELECT count(*) FROM (SELECT range, random()::VARCHAR AS x FROM range(2_000_000) ORDER BY x LIMIT 1_900_000)"


@pytest.mark.slow
def test_what_needs_more_memory_than_there_is_writes_no_file(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sandbox, "_SETTINGS", {"memory_limit": "'50MB'", **sandbox._SETTINGS})
    with galsearch.open(tiny_bundle) as atlas:
        asked(atlas.sql, SORTED)
        assert list(tmp_path.iterdir()) == []


HEAVY = (
    "SELECT sleep_ms(100_000)",
    "SELECT sum(sin(a.object_id::DOUBLE * b.z * c.z * d.z)) FROM galaxies a, galaxies b, galaxies c, galaxies d",
    "SELECT count(*) FROM range(10_000_000_000) WHERE hash(range) % 7 = 3",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "SELECT list_sum([x * y for x in range(100_000) for y in range(100_000)])",
)


@pytest.mark.slow
@pytest.mark.parametrize("text", HEAVY, ids=lambda text: text[:30])
def test_what_takes_too_long_is_stopped_or_refused(atlas, outside, text):
    refused(atlas, text, outside, door="sql")
    refused(atlas, f"z < ({text})", outside, door="where")
    refused(atlas, f"z < ({text})", outside, door="count")


def test_a_heavy_join_is_stopped(atlas, outside):
    galaxies = ", ".join(f"galaxies g{number}" for number in range(6))
    with pytest.raises(QueryError, match="stopped after"):
        atlas.sql(f"SELECT sum(g0.z * g5.z) FROM {galaxies} WHERE g0.z < g1.mag_r")


# ---- at random: a grammar

COLUMNS = ("object_id", "ra", "dec", "z", "mag_r", "mass", "survey", "galaxies.z", "rowid", '"z"', "nope", "*")
LITERALS = (
    "0",
    "1",
    "-1e308",
    "NULL",
    "true",
    "'x'",
    "''",
    "'a''b'",
    "DATE '2020-01-01'",
    "[1, 2]",
    "{'a': 1}",
    "$1",
    "?",
)
INFIX = (
    "AND",
    "OR",
    "=",
    "<",
    "<>",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "||",
    "LIKE",
    "IS DISTINCT FROM",
    "::",
    "->",
    "^",
    "IN",
)
TRICKS = (
    "(",
    ")",
    "((",
    "))",
    ";",
    "--",
    "/*",
    "*/",
    "\n",
    "\0",
    "'",
    '"',
    "$$",
    "$q$",
    "\\",
    ",",
    "UNION SELECT",
    "FROM",
    "WHERE",
    "HAVING",
    "QUALIFY",
    "LIMIT 1",
    "ORDER BY 1",
    "GROUP BY ALL",
    "SELECT",
    "EXISTS (",
    "COPY",
    "ATTACH",
    "SET",
    "AS x",
    "OVER ()",
    "FILTER (",
    "COLLATE NOCASE",
    "USING SAMPLE 1",
    "IS NULL",
    "NOT",
    "BETWEEN",
    "CASE WHEN",
    "END",
    "COLUMNS(*)",
    "UNPACK",
    "lambda x:",
    "\u00a0",
    "\ufeff",
    "ſelect",
    "é",
    "🌌",
)


def doors() -> st.SearchStrategy[str]:
    return st.sampled_from([*SCALAR_DOORS, *(f"(SELECT count(*) FROM {door})" for door in TABLE_DOORS)])


def functions() -> st.SearchStrategy[str]:
    names = (
        "abs",
        "hash",
        "upper",
        "list_value",
        "count",
        "sum",
        "row_number",
        "unnest",
        "struct_pack",
        "embed",
        "concept",
    )
    return st.sampled_from((*names, "separation_arcsec", "like_object", "nearest", "query", "current_setting", "error"))


def conditions() -> st.SearchStrategy[str]:
    leaf = st.one_of(st.sampled_from(COLUMNS), st.sampled_from(LITERALS), doors())
    return st.recursive(
        leaf,
        lambda part: st.one_of(
            st.tuples(part, st.sampled_from(INFIX), part).map(" ".join),
            part.map("({})".format),
            part.map("NOT ({})".format),
            part.map("EXISTS (SELECT {} FROM galaxies)".format),
            st.tuples(functions(), st.lists(part, max_size=3).map(", ".join)).map(
                lambda found: "{}({})".format(*found)
            ),
            st.tuples(part, part, part).map(lambda found: "CASE WHEN {} THEN {} ELSE {} END".format(*found)),
        ),
        max_leaves=8,
    )


def cut_up(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Cut texts in two and put something between."""
    return st.tuples(text, st.sampled_from(TRICKS), st.integers(0, 200), st.booleans()).map(
        lambda found: found[0][: found[2]] + " " + found[1] + " " + (found[0][found[2] :] if found[3] else "")
    )


@given(where=st.one_of(conditions(), cut_up(conditions()), st.text(max_size=30)))
@settings(max_examples=40)
def test_a_random_condition_is_answered_or_refused(atlas, outside, where):
    where = fill(where, outside)
    for door in ("where", "count"):
        answered, said = asked(questions(atlas)[door], where)
        assert SECRET not in said
        assert not answered or is_boolean(atlas, where)


@given(
    text=st.one_of(
        st.tuples(st.sampled_from(NESTS), st.sampled_from(TABLE_DOORS)).map(
            lambda found: found[0].replace("{0}", found[1])
        ),
        cut_up(
            st.tuples(st.sampled_from(NESTS), st.just("galaxies")).map(lambda found: found[0].replace("{0}", found[1]))
        ),
        conditions().map("SELECT {} FROM galaxies".format),
        cut_up(st.sampled_from(STATEMENTS)),
    )
)
@settings(max_examples=40)
def test_a_random_question_is_answered_or_refused(atlas, outside, text):
    _, said = asked(atlas.sql, fill(text, outside))
    assert SECRET not in said


def fill(text: str, places: dict[str, str]) -> str:
    """Put the paths in; not by format, because the texts are cut up."""
    for name, place in places.items():
        text = text.replace("{" + name + "}", place)
    return text


def is_boolean(atlas, where: str) -> bool:
    """Say whether a condition that was taken is one expression to an outside parser too, or one it cannot read."""
    with contextlib.suppress(sqlglot.errors.SqlglotError):
        return len(sqlglot.parse(f"SELECT ({where}\n)", read="duckdb")) == 1
    return True


# ---- at random: trees

SEEDS = (
    "SELECT object_id, score FROM nearest(embed('ring'), k := 5, cut := z < 0.1) "
    "JOIN galaxies USING (object_id) ORDER BY 2",
    "WITH t AS (SELECT survey, avg(z) AS m FROM galaxies WHERE mag_r < 19 GROUP BY survey) "
    "SELECT * FROM t WHERE m > 0.05",
    "SELECT g.object_id, h.object_id FROM galaxies g JOIN galaxies h ON g.z < h.z AND g.survey = h.survey LIMIT 5",
    "SELECT survey, count(*) FILTER (WHERE z IS NULL), max(mag_r) OVER (PARTITION BY survey) "
    "FROM galaxies GROUP BY ALL",
    "SELECT CASE WHEN z < 0.1 THEN 'near' ELSE upper(survey) END, list(ra) "
    "FROM galaxies GROUP BY 1 HAVING count(*) > 2",
    "SELECT * FROM galaxies WHERE object_id IN (SELECT object_id FROM cone(0.0, 10.0, 600)) OR EXISTS (SELECT 1)",
    "SELECT unnest([1, 2, 3]) AS n, struct_pack(a := z, b := ra).a FROM galaxies UNION ALL SELECT 1, 2 ORDER BY n",
    "SELECT separation_arcsec(ra, dec, 10, 20) FROM galaxies WHERE dec BETWEEN -1 AND 1 AND survey LIKE 'd%'",
)


@functools.cache
def trees() -> list[exp.Expression]:
    """Return the seeds, and the doors as SELECT, as trees."""
    texts = [*SEEDS, *(f"SELECT * FROM {door}" for door in TABLE_DOORS)]
    return [
        tree for text in texts for tree in sqlglot.parse(text, read="duckdb", error_level=sqlglot.ErrorLevel.IGNORE)
    ]


def grown(rng: random.Random) -> str:
    """Return a seed in which some branches are those of other trees."""
    tree = rng.choice(trees()[: len(SEEDS)]).copy()
    for _ in range(rng.randint(1, 4)):
        places = [node for node in tree.walk() if node.parent is not None]
        place = rng.choice(places)
        donors = [node for node in rng.choice(trees()).walk() if alike(node, place) or rng.random() < 0.02]
        if donors:
            place.replace(rng.choice(donors).copy())
    return tree.sql(dialect="duckdb")


def alike(one: exp.Expression, other: exp.Expression) -> bool:
    kinds = (exp.Condition, exp.Query, exp.Table, exp.Identifier)
    return any(isinstance(one, kind) and isinstance(other, kind) for kind in kinds)


@pytest.mark.parametrize("seed", range(40))
def test_a_tree_with_exchanged_branches_is_answered_or_refused(atlas, outside, seed):
    _, said = asked(atlas.sql, fill(grown(random.Random(seed)), outside))
    assert SECRET not in said


# ---- many, in another process


def ask_many(path: str, seed: int, count: int, folder: str) -> None:
    """Say each random question before it is asked, and at the end how many were answered."""
    os.chdir(folder)
    sandbox.TIME_LIMIT_SECONDS = SECONDS
    places = {"file": f"{folder}/secret.csv", "folder": folder, "atlas": path}
    rng, answers = random.Random(seed), 0
    with galsearch.open(path, device="cpu") as atlas:
        for _ in range(count):
            text = fill(mixed(rng), places)
            door = rng.choice(("sql", "sql", "where", "count"))
            crash.say({"text": f"{door}: {text}"})
            answered, said = asked(questions(atlas)[door], text)
            assert SECRET not in said, text
            answers += answered
        assert atlas.count() == tiny.ROWS
    crash.say({"answers": answers})


def mixed(rng: random.Random) -> str:
    """Return a question of any kind."""
    text = (
        grown(rng) if rng.random() < 0.6 else rng.choice(NESTS).replace("{0}", rng.choice((*TABLE_DOORS, "galaxies")))
    )
    if rng.random() < 0.4:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(TRICKS) + text[place + rng.randrange(4) :]
    return text


@pytest.mark.slow
def test_many_random_questions_neither_crash_nor_hang_nor_write(tiny_path, tmp_path):
    (tmp_path / "secret.csv").write_text(f"word\n{SECRET}\n")
    before = crash.files(tiny_path)
    job = {"path": tiny_path, "count": MANY // 2, "folder": tmp_path}
    with crash.Crew() as crew:
        workers = [crew.start("test_fuzz_sql:ask_many", {**job, "seed": seed}) for seed in (1, 2)]
        for worker in workers:
            said, text = worker.read(seconds=crash.WAIT_SECONDS), None
            while said is not None and "text" in said:
                text, said = said["text"], worker.read(seconds=crash.WAIT_SECONDS)
            assert said is not None, f"hung or died with {worker.died()} at {text}"
            assert said.get("error") is None, f"{said} at {text}"
            assert said["answers"] > 0
    assert [item.name for item in tmp_path.iterdir()] == ["secret.csv"]
    assert crash.files(tiny_path) == before
