"""Questions of several parts: the closest of several, duplicates left out, words in names, several atlases as one."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import galsearch
from galsearch.errors import ModelMismatchError, QueryError
from galsearch.query import Query, Term
from galsearch.retrieval import first_alike

DIM = 16
ROWS = 240


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two atlases of one model and one of another; in the first every third object is there twice."""
    home = tmp_path_factory.mktemp("asking")
    array = tiny.random_units(ROWS, DIM, seed=4, groups=12)
    array[1::3] = array[0::3]
    generator = np.random.default_rng(0)
    ra, dec = generator.uniform(10, 350, ROWS), generator.uniform(-60, 60, ROWS)
    ra[1::3], dec[1::3] = ra[0::3], dec[0::3] + 1 / 3600
    names = [f"NGC {row + 100}" for row in range(ROWS)]
    table = pa.table(
        {
            "id": [f"a{row:03d}" for row in range(ROWS)],
            "ra": ra,
            "dec": dec,
            "name": names,
            "z": generator.uniform(0, 1, ROWS),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), DIM),
        }
    )
    parts = {"whole": table, "left": table.slice(0, 100), "right": table.slice(100)}
    for part, rows in parts.items():
        pq.write_table(rows, home / f"{part}.parquet")
        galsearch.build(home / f"{part}.atlas", table=home / f"{part}.parquet", vectors="vector", model="theirs")
    galsearch.build(home / "other.atlas", table=home / "left.parquet", vectors="vector", model="another")
    galsearch.bundle(home / "right.atlas", home / "right.duckdb")
    return home, array, [f"a{row:03d}" for row in range(ROWS)]


def like(*vectors: np.ndarray, weights: tuple[float, ...] = ()) -> tuple[Term, ...]:
    weights = weights or (1.0,) * len(vectors)
    pairs = zip(vectors, weights, strict=True)
    return tuple(Term("embedding", tuple(map(float, vector)), weight) for vector, weight in pairs)


def ranked(ids: list[str], scores: np.ndarray, k: int) -> list[str]:
    return [ids[row] for row in np.lexsort((ids, -scores.astype(np.float32)))[:k]]


@pytest.mark.slow
def test_the_closest_of_several_is_the_largest_cosine(made):
    home, array, ids = made
    one, two, unlike = tiny.random_units(3, DIM, seed=11)
    wide = array.astype(np.float64)
    with galsearch.open(home / "whole.atlas") as atlas:
        hits = atlas.search(Query(like(one, two), combine="max", k=30))
        assert hits.ids == ranked(ids, np.maximum(wide @ one, wide @ two), 30)
        weighted = atlas.search(Query(like(one, two, unlike, weights=(1, 0.5, -0.7)), combine="max", k=30))
        expected = np.maximum(wide @ one, 0.5 * (wide @ two)) - 0.7 * (wide @ unlike)
        assert weighted.ids == ranked(ids, expected, 30)
        assert np.allclose(weighted.scores, np.sort(expected)[::-1][:30], atol=1e-6)


def test_the_closest_of_none_is_refused(made):
    home, _, _ = made
    with galsearch.open(home / "whole.atlas") as atlas, pytest.raises(QueryError, match="to be like"):
        atlas.search(Query(like(np.ones(DIM), weights=(-1.0,)), combine="max"))
    with pytest.raises(QueryError, match="combine"):
        Query(combine="median")


def test_a_saved_query_keeps_everything(made):
    query = Query(like(np.ones(DIM)), combine="max", distinct=True, hybrid="rank", recall=0.9, k=3)
    assert Query.from_json(query.to_json()) == query


def test_duplicates_are_left_out_and_counted(made):
    home, array, _ = made
    with galsearch.open(home / "whole.atlas") as atlas:
        hits = atlas.search(array[0], k=20, distinct=True)
        every = atlas.search(array[0], k=ROWS)
        assert len(hits) == 20
        first = {}  # every object twice in the input is there under its first id
        for name in every.ids:
            number = int(name[1:])
            first.setdefault(number - 1 if number % 3 == 1 else number, name)
        assert hits.ids == list(first.values())[:20]
        assert all(
            copies == (2 if int(name[1:]) % 3 < 2 else 1)
            for name, copies in zip(hits.ids, hits.table["copies"].to_pylist(), strict=True)
        )
        assert len(atlas.search(array[0], k=ROWS, distinct=True)) == len(first)


def test_a_name_is_found_by_its_words(made):
    home, array, _ids = made
    with galsearch.open(home / "whole.atlas") as atlas:
        for method in ("rank", "sum"):
            terms = (*like(array[0]), Term("text", "NGC 217"))
            with pytest.raises(ModelMismatchError):
                atlas.search(Query(terms, hybrid=method))
    with galsearch.open(home / "whole.atlas") as atlas, pytest.raises(QueryError, match="has none"):
        atlas.search(array[0], hybrid="rank")


def test_words_and_vectors_are_fused_and_both_parts_are_told(tiny_path):
    with galsearch.open(tiny_path, device="cpu") as atlas:
        name = atlas.search(k=40).ids[-1]
        for method in ("rank", "sum"):
            hits = atlas.search(name, k=5, hybrid=method)
            assert hits.ids[0] == name
            row = hits.table.to_pylist()[0]
            assert row["score_words"] > 0 and -1 <= row["score_vector"] <= 1
            assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)
        plain = atlas.search("red ring", k=5)
        assert atlas.search("red ring", k=5, hybrid="rank", where="false").ids == []
        assert set(atlas.search("red ring", k=300, hybrid="sum").ids) == set(atlas.search("red ring", k=300).ids)
        assert len(plain) == 5


def test_several_atlases_answer_as_one(made):
    home, _array, _ = made
    query = tiny.random_units(1, DIM, seed=20)[0]
    with (
        galsearch.open(home / "whole.atlas") as whole,
        galsearch.open([home / "left.atlas", home / "right.duckdb"]) as both,
    ):
        assert len(both) == len(whole) == ROWS
        for options in ({}, {"where": "z < 0.3"}, {"near": (180.0, 0.0), "radius_arcsec": 250_000}, {"exact": True}):
            one, two = whole.search(query, k=25, **options), both.search(query, k=25, **options)
            assert one.ids == two.ids
            assert np.array_equal(one.scores, two.scores)
            assert one.plan.matches == two.plan.matches
        assert both.search(k=7, where="z > 0.5").ids == whole.search(k=7, where="z > 0.5").ids
        assert both.count("z < 0.3") == whole.count("z < 0.3")
        assert set(two.table["atlas"].to_pylist()) <= {"left.atlas", "right.duckdb"}
        galaxy = both["a150"]
        assert both.search(galaxy, k=5).ids == whole.search(whole["a150"], k=5).ids
        assert both.search(query, k=9, distinct=True).ids == whole.search(query, k=9, distinct=True).ids
        assert "a150" in both and "b150" not in both
        with pytest.raises(QueryError, match="one atlas"):
            both.sql("SELECT 1")


def test_atlases_of_different_models_are_not_one(made):
    home, _, _ = made
    with pytest.raises(ModelMismatchError, match="another"):
        galsearch.open([home / "left.atlas", home / "other.atlas"])
    with pytest.raises(QueryError, match="no atlas"):
        galsearch.open([])


def test_percentiles_say_how_unusual_a_score_is(made):
    home, array, _ = made
    with galsearch.open(home / "whole.atlas") as atlas:
        hits = atlas.search(array[0], k=ROWS)
        truth = [100 * np.mean(hits.scores < score) for score in hits.scores]
        assert np.allclose(hits.percentiles, truth, atol=1.0)
        assert atlas.search(k=3).percentiles is None


def test_the_line_is_where_the_nearest_other_object_is_for_most_objects(made):
    home, array, _ = made
    with galsearch.open(home / "whole.atlas") as atlas:
        away = -array.mean(axis=0)
        near = atlas.search(atlas["a000"], k=5)
        assert near.convincing >= 1  # its copy
        line = atlas._store.threshold("image", "like")
        others = array @ array.T - 2 * np.eye(ROWS)
        assert np.mean(others.max(axis=1) >= line) == pytest.approx(0.95, abs=0.04)
        assert atlas.search(away / np.linalg.norm(away), k=3).convincing is None


# ---- duplicates


def first_by_definition(sky: np.ndarray, placed: np.ndarray, vectors: np.ndarray) -> list[int]:
    """Compare every pair: within 2 arcsec when both have a position, else a cosine of 0.9999 or more."""
    first = list(range(len(sky)))
    for place in range(len(sky)):
        for before in range(place):
            if placed[place] and placed[before]:
                same = np.linalg.norm(sky[place] - sky[before]) <= 2 * np.sin(np.radians(2 / 3600) / 2)
            else:
                same = vectors[place] @ vectors[before] >= 0.9999
            if same:
                first[place] = first[before]
                break
    return first


def on_the_sky(ra_arcsec: np.ndarray, dec_arcsec: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(ra_arcsec / 3600), np.radians(dec_arcsec / 3600)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


@given(
    rows=st.integers(0, 60),
    spread_arcsec=st.sampled_from([0.0, 0.7, 1.9, 3.1, 40.0]),
    noise=st.sampled_from([0.0, 0.001, 0.004, 0.02]),
    share_placed=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 1_000),
)
def test_duplicates_are_those_of_the_definition(rows, spread_arcsec, noise, share_placed, seed):
    rng = np.random.default_rng(seed)
    sky = on_the_sky(*(rng.normal(scale=spread_arcsec, size=(2, rows)) + 10 * rng.integers(0, 3, (2, rows))))
    placed = rng.random(rows) < share_placed
    kinds = tiny.random_units(4, DIM, seed=seed).astype(np.float64)
    vectors = kinds[rng.integers(0, 4, rows)] + noise * rng.normal(size=(rows, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert first_alike(sky, placed, vectors).tolist() == first_by_definition(sky, placed, vectors)


@pytest.mark.slow
@pytest.mark.parametrize("placed", [True, False])
def test_many_copies_of_a_few_cost_little(placed):
    rows, kinds = 30_000, 20
    rng = np.random.default_rng(0)
    kind = rng.integers(0, kinds, rows)
    vectors = tiny.random_units(kinds, 64, seed=1)[kind]
    sky = on_the_sky(60.0 * kind + rng.uniform(-0.4, 0.4, rows), rng.uniform(-0.4, 0.4, rows))
    started = time.process_time()
    first = first_alike(sky, np.full(rows, placed), vectors)
    assert time.process_time() - started < 10  # comparing every pair takes forty
    assert len(np.unique(first)) == kinds
    assert (kind[first] == kind).all()
