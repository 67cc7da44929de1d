"""Duplicates left out of a search: against a comparison of each with each, from outside."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

import galsearch

DIM = 8
SAME_ARCSEC = 2.0
SAME_COSINE = 0.9999


def written(path, vectors, ra, dec):
    """Build an atlas of unit vectors and positions (NaN: none); ids are in the order of the rows."""
    columns = {
        "object_id": [f"{row:05d}" for row in range(len(vectors))],
        "ra": pa.array(ra, mask=~np.isfinite(ra)),
        "dec": pa.array(dec, mask=~np.isfinite(dec)),
        "even": [row % 2 == 0 for row in range(len(vectors))],
        "v": vectors.tolist(),
    }
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))
    galsearch.build(path, table=path.with_suffix(".parquet"), vectors="v", model="m", overwrite=True)
    return path


def separation(ra, dec):
    """Return all separations in arcseconds by the haversine formula; NaN where one has no position."""
    a, d = np.radians(ra), np.radians(dec)
    half = np.sin((d[:, None] - d) / 2) ** 2 + np.cos(d)[:, None] * np.cos(d) * np.sin((a[:, None] - a) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600


def distinct(vectors, ra, dec, query, rows):
    """Return the rows left when each that is the same as a better one goes to it, and the copies of each.

    Two with positions are the same within 2 arcsec, whatever they look like; else the vectors decide.
    """
    scores = vectors.astype(float) @ query
    order = sorted(rows, key=lambda row: (-np.float32(scores[row]), row))
    apart, cosine = separation(ra, dec), vectors.astype(float) @ vectors.T.astype(float)
    same = np.where(np.isfinite(apart), apart <= SAME_ARCSEC, cosine >= SAME_COSINE)
    stands_for: dict[int, int] = {}
    for at, row in enumerate(order):
        earlier = next((other for other in order[:at] if same[row, other]), None)
        stands_for[row] = row if earlier is None else stands_for[earlier]
    kept = [row for row in order if stands_for[row] == row]
    return kept, [sum(first == row for first in stands_for.values()) for row in kept], apart, cosine


@st.composite
def crowds(draw):
    """Draw objects with copies: some at one place, some with one vector and no place, in every mixture."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    objects, rows = draw(st.integers(1, 12)), draw(st.integers(2, 60))
    group = rng.integers(0, objects, rows)
    vectors = rng.normal(size=(objects, DIM))[group]
    spread = draw(st.sampled_from([0.0, 1e-4, 0.5]))  # copies that look the same, nearly, or not at all
    vectors = vectors + rng.normal(size=vectors.shape) * spread
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pole = draw(st.booleans())
    ra = rng.uniform(0, 360, objects)[group] if pole else np.mod(rng.normal(0, 0.01, objects), 360)[group]
    dec = (89.9999 - rng.uniform(0, 0.01, objects) if pole else rng.uniform(-0.01, 0.01, objects))[group]
    dec = dec + rng.uniform(-1, 1, rows) * draw(st.sampled_from([0.0, 0.4, 1.2])) / 3600
    placed = rng.random(rows) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return vectors, np.where(placed, ra, np.nan), np.where(placed, dec, np.nan), rng.normal(size=DIM)


@settings(max_examples=3, phases=(Phase.explicit, Phase.generate))
@given(crowds(), st.integers(1, 8))
def test_what_is_left_is_what_comparing_each_with_each_leaves(tmp_path_factory, crowd, k):
    vectors, ra, dec, query = crowd
    query = query / np.linalg.norm(query)
    whole, copies, apart, cosine = distinct(vectors, ra, dec, query, range(len(vectors)))
    assume(not (np.abs(apart - SAME_ARCSEC) < 1e-3).any() and not (np.abs(cosine - SAME_COSINE) < 1e-6).any())
    scores = np.sort(vectors.astype(float) @ query)
    gaps = np.diff(scores)
    assume(not ((gaps > 0) & (gaps < 3e-7)).any())  # else single precision, and not the rule, makes the order
    home = tmp_path_factory.mktemp("crowd")
    with galsearch.open(written(home / "a.atlas", vectors, ra, dec)) as atlas:
        hits = atlas.search(query, k=len(vectors), distinct=True, exact=True)
        assert [int(name) for name in hits.ids] == whole
        assert hits.table["copies"].to_pylist() == copies
        assert [int(name) for name in atlas.search(query, k=k, distinct=True, exact=True).ids] == whole[:k]
        even, copies, *_ = distinct(vectors, ra, dec, query, range(0, len(vectors), 2))
        hits = atlas.search(query, k=len(vectors), distinct=True, exact=True, where="even")
        assert ([int(name) for name in hits.ids], hits.table["copies"].to_pylist()) == (even, copies)


@pytest.mark.parametrize("placed", [True, False])
def test_groups_of_many_copies_are_counted_whole(tmp_path, placed):
    """What is wanted is hidden behind hundreds of copies of the best: finding goes on until there is enough."""
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(4, DIM))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    group = np.repeat(np.arange(4), (400, 300, 7, 1))
    ra = np.where(placed, 10.0 + group, np.nan)
    vectors = centers[group].astype(np.float32)
    with galsearch.open(written(tmp_path / "a.atlas", vectors, ra, np.where(placed, 5.0, np.nan) + 0 * group)) as atlas:
        for wanted in (0, 1, 3):
            order = np.argsort(-(centers @ centers[wanted]))
            hits = atlas.search(centers[wanted], k=3, distinct=True)
            assert [group[int(name)] for name in hits.ids] == order[:3].tolist()
            assert hits.table["copies"].to_pylist()[:1] == [np.bincount(group)[wanted]]
        hits = atlas.search(centers[0], k=10, distinct=True)
        assert sorted(hits.table["copies"].to_pylist()) == [1, 7, 300, 400]


def test_the_distance_is_on_the_sky_and_the_bound_belongs_to_it(tmp_path):
    """1.9 arcsec is the same and 2.1 is not, along either axis, at high declination and across RA 0."""
    places = []
    for apart in (1.9, 2.1):
        step = apart / 3600
        places += [(50.0, 60.0), (50.0, 60.0 + step)]  # in declination
        places += [(80.0, 60.0), (80.0 + step / np.cos(np.radians(60)), 60.0)]  # in right ascension
        places += [(360 - step / 2, 0.0), (step / 2, 0.0)] if apart < 2 else [(360 - step / 2, 5.0), (step / 2, 5.0)]
    ra, dec = np.array(places).T
    dec[6:10] -= 20  # the second four, away from the first
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(1, DIM)), len(ra), axis=0) + 0.1 * rng.normal(size=(len(ra), DIM))
    ra[8:10] = 80.0, 80.0 + 2.1 / 3600 / np.cos(np.radians(40))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with galsearch.open(written(tmp_path / "a.atlas", vectors, ra, dec)) as atlas:
        hits = atlas.search(vectors[0], k=20, distinct=True)
        copies = dict(zip(hits.ids, hits.table["copies"].to_pylist(), strict=True))
    assert sorted(copies.values()) == [1] * 6 + [2] * 3
    assert all(copies[name] == 1 for name in copies if int(name) >= 6)
