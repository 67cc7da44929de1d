"""A query as Python, as a command and as SQL: each finds what the query finds, in the same order."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
import tiny
from typer.testing import CliRunner

import galsearch

RED = galsearch.Term("text", "red edge-on galaxy")
QUERIES = {
    "words": galsearch.Query((RED,), k=7),
    "hybrid by rank": galsearch.Query((RED,), k=7, hybrid="rank"),
    "hybrid by sum": galsearch.Query((RED,), k=7, hybrid="sum"),
    "probes": galsearch.Query((RED,), k=7, probes=3),
    "exact": galsearch.Query((galsearch.Term("text", "blue 53.16"),), k=7, exact=True),
    "a weight in the words": galsearch.Query((RED, galsearch.Term("text", "2:blue", -1.0)), k=7),
    "an id as words": galsearch.Query((galsearch.Term("text", tiny.object_id(3)),), k=7),
    "by its embedding": galsearch.Query((galsearch.Term("text", "red", by="image"),), k=7),
    "sum": galsearch.Query((galsearch.Term("text", "red"), galsearch.Term("text", "it's a ring", -0.5)), k=5),
    "object": galsearch.Query((galsearch.Term("object", tiny.object_id(4)),), k=6, exact=True),
    "cut and cone": galsearch.Query(
        (galsearch.Term("text", "blue"),), where="survey <> 'd''Or'", near=(0.0, 10.0), radius_arcsec=800.0, k=5
    ),
    "list": galsearch.Query(where="z < 0.1", k=4),
    "vector": galsearch.Query((galsearch.Term("embedding", tuple(range(1, 17))),), k=3),
}


@pytest.fixture(scope="module")
def atlas(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as opened:
        yield opened


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_the_python_to_copy_finds_the_same(tiny_bundle, atlas, query):
    names: dict = {}
    exec(galsearch.as_python(query, tiny_bundle), names)
    names["atlas"].close()
    assert names["hits"].ids == atlas.search(query).ids


@pytest.mark.parametrize("query", [q for name, q in QUERIES.items() if name != "vector"])
def test_the_command_to_copy_finds_the_same(tiny_bundle, atlas, query):
    from galsearch.cli import app

    words = shlex.split(galsearch.as_command(query, tiny_bundle))
    result = CliRunner().invoke(app, [*words[1:], "--format", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = found["rows"] if isinstance(found, dict) else found
    assert [row["object_id"] for row in rows] == atlas.search(query).ids


@pytest.mark.parametrize("query", [q for name, q in QUERIES.items() if name != "probes"])  # the macro counts its own
def test_the_sql_to_copy_finds_the_same(atlas, query):
    text = galsearch.as_sql(query, atlas)
    if query.hybrid:
        assert text.startswith("-- SQL does not let the words match")
        query = replace(query, hybrid=None)
    found = atlas.sql(text)
    assert found["object_id"].to_pylist() == atlas.search(query).ids


def test_what_cannot_be_a_command_says_so(tiny_bundle):
    assert galsearch.as_command(QUERIES["vector"], tiny_bundle).startswith("#")


def test_an_exact_query_is_exact_in_sql_and_probes_are_handed_on(atlas, monkeypatch):
    assert "nearest_exact(" in galsearch.as_sql(QUERIES["exact"], atlas)
    assert "nearest_exact(" in galsearch.as_sql(QUERIES["words"], atlas)  # so few rows are all compared
    assert "probes := 3" in galsearch.as_sql(QUERIES["probes"], atlas)
    monkeypatch.setattr("galsearch.query_code.EXACT_ROWS", 10)
    text = galsearch.as_sql(replace(QUERIES["words"], recall=0.9), atlas)
    assert text.startswith("-- SQL takes probes") and "nearest(" in text


def test_several_atlases_as_one_are_opened_by_python_and_refused_by_sql(tiny_bundle, tmp_path):
    other = tmp_path / "other.duckdb"
    other.write_bytes(tiny_bundle.read_bytes())
    with galsearch.open([tiny_bundle, other], device="cpu") as both:
        names: dict = {}
        exec(galsearch.as_python(QUERIES["words"], [tiny_bundle, other]), names)
        names["atlas"].close()
        assert names["hits"].ids == both.search(QUERIES["words"]).ids
        assert galsearch.as_sql(QUERIES["words"], both).startswith("-- SQL asks one atlas")
