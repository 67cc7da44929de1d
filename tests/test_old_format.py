"""A bundle that galsearch wrote at format 1.0 opens and answers as it did then.

`data/atlas-1.0.duckdb.xz` holds the first 60 galaxies of tests/tiny.py with their tiny models, as written before format
1.1; `data/atlas-1.0.json` is what that galsearch answered. Neither is ever written anew.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import duckdb
import pytest
import tiny

import galsearch

DATA = Path(__file__).parent / "data"
ANSWERS = json.loads((DATA / "atlas-1.0.json").read_text())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("old") / "atlas-1.0.duckdb"
    path.write_bytes(lzma.decompress((DATA / "atlas-1.0.duckdb.xz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def atlas(bundle):
    with galsearch.open(bundle, device="cpu") as opened:
        yield opened


def test_the_file_is_of_format_1_0_and_small(bundle, atlas):
    assert atlas.manifest.version == "1.0"
    assert (DATA / "atlas-1.0.duckdb.xz").stat().st_size < 300_000
    assert not [finding for finding in atlas.check() if not finding.ok]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("words", {"what": "red edge", "k": 10}),
        ("filtered", {"what": "blue ring", "where": "z < 0.1 AND mag_r < 19", "k": 10}),
        ("cone", {"near": (0.0, 10.0), "radius_arcsec": 900.0, "k": 60}),
        ("hybrid", {"what": "red edge", "hybrid": "sum", "k": 10}),
    ],
)
def test_searches_give_the_hits_and_scores_of_then(atlas, name, options):
    found, expected = atlas.search(**options), ANSWERS[name]
    assert found.ids == expected["ids"]
    assert (found.scores is None) == (expected["scores"] is None)
    assert found.scores is None or found.scores.tolist() == pytest.approx(expected["scores"], abs=2e-6)


def test_examples_rows_and_columns_are_those_of_then(atlas):
    found = atlas.search(atlas[tiny.object_id(5)], k=10)
    assert found.ids == ANSWERS["example"]["ids"]
    assert atlas.rows([tiny.object_id(7)]).to_pylist()[0] == ANSWERS["row"]
    assert atlas.columns().to_pylist() == ANSWERS["columns"]


def test_sql_with_our_macros_and_with_those_in_the_file_answers_as_then(atlas, bundle):
    text = (
        "SELECT object_id, round(score, 5) AS score "
        "FROM nearest(concept('spiral galaxy'), k := 5, cut := z < 0.15) ORDER BY ALL"
    )
    expected = [(row["object_id"], pytest.approx(row["score"], abs=2e-5)) for row in ANSWERS["sql"]]
    assert [tuple(row.values()) for row in atlas.sql(text).to_pylist()] == expected
    with duckdb.connect(str(bundle), read_only=True) as plain:
        assert plain.sql(text).fetchall() == expected


def test_a_part_of_it_becomes_a_bundle_of_today(atlas, tmp_path):
    hits = atlas.search("red edge", k=10)
    with galsearch.open(hits.bundle(tmp_path / "part.duckdb"), device="cpu") as part:
        assert part.search("red edge", k=10).ids == hits.ids
