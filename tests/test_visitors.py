"""What strangers send to a public app or service: each text ends within its limit, and the process that serves lives.

The texts are in `hostile`; the ones that take their whole limit are marked, and run with `-m hostile`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import hostile
import numpy as np
import pytest

import galsearch
from galsearch.errors import BusyError, GalsearchError, LimitError, QueryError
from galsearch.workers import Limits, Pool

SECONDS = 2.0
LIMITS = Limits(
    seconds=SECONDS, cpu_seconds=SECONDS, memory_bytes=512 << 20, processes=2, spare=1, result_bytes=4 << 20
)
ENDLESS = hostile.HEAVY_TABLES["series, counted"]
SLACK_SECONDS = 1.0  # over the limit


@pytest.fixture(scope="module")
def guarded(tiny_path):
    """The tiny atlas in either form, open for visitors."""
    with galsearch.open(tiny_path, device="cpu", visitors=LIMITS) as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded_bundle(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu", visitors=LIMITS) as opened:
        opened.count("z < 1")  # the workers have started
        yield opened


def test_an_error_inside_duckdb_names_no_folder(guarded_bundle):
    with pytest.raises(GalsearchError) as told:
        guarded_bundle.sql("SELECT len([[[[1]]]]::INTEGER[1000][1000][1000][1000]) = 1")
    assert "site-packages" not in str(told.value) and "Stack Trace" not in str(told.value)
    assert guarded_bundle.sql("SELECT count(*) AS n FROM galaxies")["n"][0].as_py() == len(guarded_bundle)


# ---- what is answered is the same


@pytest.mark.parametrize(
    "where", ["z < 0.1", "survey = 'd''Or' OR mag_r > 15", "z IS NULL", "false", "true", "mag_r<17;"[:-1]]
)
def test_a_visitor_gets_what_the_owner_gets(atlas, guarded, where):
    assert guarded.count(where) == atlas.count(where)
    for query in ("red edge", None):
        mine, theirs = atlas.search(query, where=where, k=20), guarded.search(query, where=where, k=20)
        assert theirs.ids == mine.ids
        assert theirs.plan.matches == mine.plan.matches
        assert query is None or np.array_equal(theirs.scores, mine.scores)


def test_cones_words_and_examples_go_together_with_a_condition(atlas, guarded):
    asked = {"where": "z < 0.15", "near": (0.0, 10.0), "radius_arcsec": 3000, "k": 15, "distinct": True}
    first = atlas.search("red", k=1)[0]
    for what in ("red edge", first, atlas.embed("blue")):
        assert guarded.search(what, **asked).ids == atlas.search(what, **asked).ids


@pytest.mark.parametrize(
    "text",
    [
        "SELECT object_id, score FROM nearest(embed('red edge'), k := 5) ORDER BY score DESC, object_id",
        "SELECT survey, count(*) AS n, avg(z) FROM galaxies GROUP BY survey ORDER BY n, survey",
        "FROM galaxies ORDER BY object_id LIMIT 7",
        "SELECT [x + 1 FOR x IN range(3)], extract(year FROM DATE '2020-01-01'), 'a' ILIKE 'A', {'a': 1}.a",
        "WITH t AS (SELECT z, ra FROM galaxies) SELECT count(*) FROM t WHERE z BETWEEN 0.01 AND 0.1 AND ra IS NOT NULL",
        "SELECT object_id, row_number() OVER (ORDER BY mag_r, object_id) FROM galaxies LIMIT 5",
        "SELECT count(*) FROM cone(0.0, 10.0, 600)",
        "VALUES (1), (2)",
        "DESCRIBE galaxies",
        "SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1",
    ],
)
def test_a_statement_gives_the_same_rows(atlas, guarded, text):
    mine, theirs = atlas.sql(text), guarded.sql(text)
    assert theirs.column_names == mine.column_names
    assert theirs.to_pylist() == mine.to_pylist()


def test_units_stand_on_the_columns_of_a_visitors_answer_too(guarded):
    assert guarded.sql("SELECT mass FROM galaxies LIMIT 1").field("mass").metadata[b"unit"] == b"solMass"


@pytest.mark.slow
def test_several_atlases_as_one_have_one_pool(tiny_bundle, tiny_folder):
    paths = [tiny_bundle, tiny_folder]
    with galsearch.open(paths, device="cpu") as mine, galsearch.open(paths, device="cpu", visitors=LIMITS) as theirs:
        asked = {"where": "z < 0.05 AND mag_r < 18", "k": 30}
        assert theirs.count(asked["where"]) == mine.count(asked["where"])
        assert theirs.search("blue ring", **asked).ids == mine.search("blue ring", **asked).ids
        assert str(tiny_bundle.parent) not in f"{theirs.path}"


def test_a_picture_file_is_decoded_in_a_worker(atlas, guarded, tiny_source):
    picture = next(iter(sorted(tiny_source[0].glob("*.png"))))
    assert np.array_equal(guarded.embed(picture), atlas.embed(picture))
    with pytest.raises(GalsearchError) as failed:
        guarded.embed(tiny_source[1])
    assert str(tiny_source[1].parent) not in str(failed.value)


# ---- what is refused, quickly


def wait_for(condition) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def said(ask, text: str) -> str:
    """Return what comes of a text: an answer as text, or the one sentence of an error of ours."""
    try:
        found = ask(text)
    except GalsearchError as error:
        assert len(str(error)) < 1500 and "\n" not in str(error)
        return str(error)
    return str(found if isinstance(found, int) else found.to_pylist())


def private(atlas_path: Path) -> set[str]:
    """Return what no visitor may read."""
    values = {value for value in os.environ.values() if len(value) > 12}
    return {str(Path.home()), sys.prefix, str(atlas_path.parent), str(Path(__file__).parent), "root:x:0", *values}


@pytest.mark.parametrize("text", hostile.DISCLOSING)
def test_no_answer_tells_of_the_machine(guarded, tiny_path, text):
    before = time.monotonic()
    with pytest.raises(QueryError):
        guarded.sql(text)
    for ask, asked in ((guarded.sql, text), (guarded.count, f"EXISTS ({text})"), (guarded.count, text)):
        answer = said(ask, asked)
        assert [fact for fact in private(tiny_path) if fact in answer and fact not in asked] == []
    assert time.monotonic() - before < 3 * SECONDS


def test_a_function_that_nobody_listed_is_refused_by_its_name(guarded):
    with pytest.raises(QueryError, match="getenv is not among those"):
        guarded.count("getenv('HOME') = 'x'")
    with pytest.raises(QueryError, match="pragma_database_list is not one of the atlas"):
        guarded.sql("FROM pragma_database_list")


def test_every_allowed_function_is_one_of_duckdb_or_ours(atlas):
    from galsearch.store.sql import allowed

    known = {name.lower() for name in atlas.sql("SELECT function_name AS f FROM duckdb_functions()")["f"].to_pylist()}
    operators = {"!", "~", "!__postfix", "->", "is", "__between"}
    syntax = operators | {"coalesce", "nullif", "embed", "row", "width_bucket", "struct_update", "unnest", "if"}
    assert allowed.FUNCTIONS - known - syntax == set()


def test_a_text_is_bounded_before_it_is_sent_anywhere(guarded_bundle):
    for ask, text in (
        (guarded_bundle.count, hostile.SHAPES["far too long"]),
        (guarded_bundle.sql, "SELECT 1" * 10_000),
    ):
        before = time.monotonic()
        with pytest.raises(LimitError, match="characters, at most 20000"):
            ask(text)
        assert time.monotonic() - before < 0.2


def test_an_answer_is_bounded(guarded_bundle):
    with pytest.raises(LimitError, match="more than 4 MB"):
        guarded_bundle.sql("SELECT range AS x FROM range(5000000)")


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_the_visitor_gets_one_sentence(guarded_bundle):
    heard: list[str] = []
    visitor = threading.Thread(target=lambda: heard.append(said(guarded_bundle.sql, ENDLESS)))
    visitor.start()
    wait_for(lambda: guarded_bundle._workers._running)
    lost = guarded_bundle._workers._running[0].worker
    lost._process.kill()
    visitor.join(10)
    assert "it ended the process that worked on it, which may take 512 MB" in heard[0]
    assert guarded_bundle.count("z < 0.1") > 0
    wait_for(lambda: not guarded_bundle._workers._starting)
    wait_for(lambda: lost not in guarded_bundle._workers._all)
    assert len(guarded_bundle._workers._idle) == LIMITS.processes + LIMITS.spare


@pytest.mark.parametrize("shape", hostile.SHAPES)
def test_a_shape_that_breaks_parsers_is_answered_or_refused(guarded_bundle, shape):
    before = time.monotonic()
    said(guarded_bundle.count, hostile.SHAPES[shape])
    assert time.monotonic() - before < SECONDS + SLACK_SECONDS


@pytest.mark.slow
def test_a_file_that_was_replaced_is_not_asked_for_row_numbers_of_the_old_one(bundle_path):
    with galsearch.open(bundle_path, device="cpu", visitors=Limits(processes=1, spare=1)) as opened:
        assert opened.count("z < 0.1") > 0
        copy = bundle_path.with_name("copy.duckdb")
        copy.write_bytes(bundle_path.read_bytes())
        copy.replace(bundle_path)
        with pytest.raises(GalsearchError) as failed:
            for _ in range(4):  # those that have the old file still answer; each is lost in turn
                opened.count("z < 0.1")
                opened._workers._idle[-1].kill()
        assert "replaced or changed" in str(failed.value)


# ---- the pool


def test_limits_are_above_zero():
    with pytest.raises(GalsearchError, match="seconds is 0"):
        Limits(seconds=0)


def test_without_spare_ones_no_process_starts_before_it_is_needed(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu", visitors=Limits(processes=2, spare=0)) as opened:
        assert len(opened.search(k=3)) == 3
        assert not opened._workers._all
        assert opened.count("z < 1") > 0
        assert len(opened._workers._all) == 1


def test_a_worker_does_only_what_galsearch_has():
    pool = Pool(Limits(processes=1, spare=1))
    try:
        with pytest.raises(GalsearchError, match="not one of galsearch"):
            pool.run("os:getcwd", title="x")
        with pytest.raises(GalsearchError, match="it failed"):
            pool.run("galsearch.science.sky:separation_arcsec", title="x")
    finally:
        pool.close()


def test_a_worker_has_no_key_of_its_parent_and_writes_no_file(tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    pool = Pool(Limits(processes=1, spare=1))
    try:
        children = [
            int(child) for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        ]
        environments = [Path(f"/proc/{child}/environ").read_bytes() for child in children]
        served = [one for one in environments if b"MALLOC_ARENA_MAX=2" in one]
        assert served and all(b"sk-secret" not in one and b"HOME=" not in one for one in served)
    finally:
        pool.close()


def test_closing_ends_the_processes(tiny_bundle):
    opened = galsearch.open(tiny_bundle, visitors=Limits(processes=1, spare=1))
    opened.count("z < 1")
    processes = [worker._process for worker in opened._workers._all]
    opened.close()
    assert processes and all(process.poll() is not None for process in processes)
    with pytest.raises(GalsearchError):
        opened.count("z < 1")


@pytest.mark.slow
def test_who_waits_takes_over_from_who_has_had_enough(tiny_bundle):
    limits = Limits(seconds=20, cpu_seconds=20, contested_seconds=0.5)
    with galsearch.open(tiny_bundle, visitors=limits) as opened:
        opened.count("z < 1")
        stopped: list[str] = []
        threads = [threading.Thread(target=lambda: stopped.append(said(opened.sql, ENDLESS))) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(opened._workers._running) == 4 and opened._workers._idle)
        before = time.monotonic()
        assert opened.count("z < 0.1") > 0
        waited = time.monotonic() - before
        opened.close()
        for thread in threads:
            thread.join(10)
        assert waited < 2
        assert any("because others wait" in one for one in stopped)


@pytest.mark.slow
def test_who_waits_too_long_is_told_so(tiny_bundle):
    limits = Limits(seconds=10, cpu_seconds=10, contested_seconds=10, wait_seconds=0.3, processes=1)
    with galsearch.open(tiny_bundle, visitors=limits) as opened:
        opened.count("z < 1")
        thread = threading.Thread(target=said, args=(opened.sql, ENDLESS))
        thread.start()
        time.sleep(0.5)
        with pytest.raises(BusyError, match="try again"):
            opened.count("z < 0.1")
        opened.close()
        thread.join(10)


# ---- each of the texts that take all they can


@pytest.mark.hostile
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*hostile.HOSTILE_STATEMENTS, *(f"where: {name}" for name in hostile.HOSTILE_CONDITIONS)]
)
def test_a_hostile_text_ends_within_its_limit_while_others_are_served(guarded_bundle, name):
    is_condition = name.startswith("where: ")
    text = (
        hostile.HOSTILE_CONDITIONS[name.removeprefix("where: ")] if is_condition else hostile.HOSTILE_STATEMENTS[name]
    )
    ask = guarded_bundle.count if is_condition else guarded_bundle.sql
    took: list[float] = []
    wait_for(lambda: not guarded_bundle._workers._starting)  # what the one before has lost is replaced

    def attack() -> None:
        before = time.monotonic()
        said(ask, text)
        took.append(time.monotonic() - before)

    attacker = threading.Thread(target=attack)
    attacker.start()
    before = time.monotonic()
    assert guarded_bundle.search("red", where="z < 0.1", k=3).ids
    served = time.monotonic() - before
    attacker.join(SECONDS + 10)
    assert took and took[0] < SECONDS + SLACK_SECONDS, f"{name} took {took}"
    assert served < 2, f"another visitor waited {served:.1f} s beside {name}"


def test_the_texts_are_as_many_as_promised():
    assert len(hostile.HOSTILE_STATEMENTS) + len(hostile.HOSTILE_CONDITIONS) + len(hostile.DISCLOSING) >= 150
    assert len(hostile.LINKS) >= 30


@pytest.mark.slow
def test_a_text_that_is_too_long_is_not_read_and_too_much_memory_is_one_sentence(tiny_bundle):
    with galsearch.open(tiny_bundle, visitors=galsearch.Limits(processes=1, spare=1)) as opened:
        for read in (opened.understand, opened.lookup, opened.hints, opened.search):
            with pytest.raises(LimitError, match="characters, at most 20000"):
                read("z < " * 6_000)
        with pytest.raises(LimitError) as caught:
            opened.sql("SELECT list(range) FROM range(100000000)")
        assert "more memory" in str(caught.value)
        assert "\n" not in str(caught.value) and "SET" not in str(caught.value)


@pytest.mark.parametrize("trouble", [ValueError("no JSON"), OSError("no memory")])
def test_a_worker_that_does_not_start_is_told_and_the_next_one_serves(monkeypatch, trouble):
    from galsearch import workers

    ready = workers._Worker.ready
    raised = iter([trouble])

    def failing(self):
        for error in raised:
            raise error
        ready(self)

    monkeypatch.setattr(workers._Worker, "ready", failing)
    pool = Pool(Limits(processes=1, spare=0))
    try:
        with pytest.raises(GalsearchError, match="did not start"):
            pool.run("galsearch.workers:echo", b"", title="first")
        assert pool._starting == 0
        with pytest.raises(GalsearchError, match="not one of galsearch"):  # so says a process that has started
            pool.run("os:getcwd", title="second")
    finally:
        pool.close()
