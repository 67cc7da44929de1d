"""The map of the vectors: that it is the principal plane, in both forms, and what becomes of it afterwards."""

from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

import galsearch
from galsearch.store.index import cells, projection
from galsearch.store.index.vectors import Held

DIM = 24
PLACES = "SELECT object_id, x, y FROM map_image ORDER BY object_id"


def vector_table(path, vectors, *, first=0):
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    ids = [f"g{row + first:05d}" for row in range(len(vectors))]
    pq.write_table(pa.table({"id": ids, "vector": flat}), path)
    return path


def principal(vectors):
    """Return the places that scikit-learn gives, of each axis the largest component positive."""
    decomposition = pytest.importorskip("sklearn.decomposition", reason="the truth is scikit-learn's")
    fitted = decomposition.PCA(2, svd_solver="full").fit(vectors.astype(np.float64))
    signs = np.sign([axis[np.abs(axis).argmax()] for axis in fitted.components_])
    return fitted.transform(vectors.astype(np.float64)) * signs, fitted.explained_variance_ratio_


def places(atlas):
    found = atlas.sql(PLACES)
    return found["object_id"].to_pylist(), np.stack([found["x"].to_numpy(), found["y"].to_numpy()], axis=1)


@pytest.mark.parametrize("rows", [3, 200, 20_000])  # the last one is read in several blocks
def test_the_plane_is_that_of_the_first_two_principal_components(rows):
    vectors = tiny.random_units(rows, DIM, seed=1, groups=5)
    found, about = projection.flatten(Held(vectors))
    expected, shares = principal(vectors)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert about == {"method": "pca", "explained": pytest.approx(shares, abs=1e-4)}


@pytest.mark.parametrize(("rows", "dim"), [(1, 8), (0, 8), (5, 1), (2, 8)])
def test_too_few_numbers_for_a_plane_lie_on_a_line_or_a_point(rows, dim):
    found, about = projection.flatten(
        Held(tiny.random_units(rows, dim, seed=2) if rows else np.empty((0, dim), np.float32))
    )
    assert found.shape == (rows, 2) and np.isfinite(found).all()
    assert np.isfinite(about["explained"]).all()


def test_the_same_vectors_lie_in_the_same_places_in_any_order():
    vectors = tiny.random_units(500, DIM, seed=3, groups=4)
    order = np.random.default_rng(0).permutation(500)
    one, other = projection.flatten(Held(vectors))[0], projection.flatten(Held(vectors[order]))[0]
    np.testing.assert_allclose(one[order], other, atol=1e-6)


@pytest.mark.slow
def test_every_galaxy_has_its_place_in_either_form(tiny_path, tiny_folder):
    with galsearch.open(tiny_path) as atlas:
        ids, found = places(atlas)
        vectors = np.stack([atlas.embed(atlas[name]) for name in ids])
        expected, shares = principal(vectors)
        assert len(ids) == len(atlas)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert atlas.manifest.embeddings["image"]["map"]["explained"] == pytest.approx(shares, abs=1e-4)
    with galsearch.open(tiny_folder) as folder:
        assert (places(folder)[1] == found).all()


def test_a_part_of_the_plane_is_a_cut(tiny_path):
    with galsearch.open(tiny_path) as atlas:
        cut = "object_id IN (SELECT object_id FROM map_image WHERE x BETWEEN 0 AND 0.4 AND y > 0)"
        ids, found = places(atlas)
        inside = (found[:, 0] >= 0) & (found[:, 0] <= 0.4) & (found[:, 1] > 0)
        assert 0 < inside.sum() < len(ids)
        assert atlas.search(where=cut, k=300).ids == [name for name, keep in zip(ids, inside, strict=True) if keep]


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """A folder with an index, to which a few rows were added since; and all vectors."""
    monkeypatch.setattr(cells, "LEAST_ROWS", 200)
    vectors = tiny.random_units(430, DIM, seed=4, groups=6)
    first = vector_table(tmp_path / "a.parquet", vectors[:400])
    galsearch.build(tmp_path / "a.atlas", table=first, vectors="vector", model="theirs")
    galsearch.add(
        tmp_path / "a.atlas",
        table=vector_table(tmp_path / "b.parquet", vectors[400:], first=400),
        vectors="vector",
        model="theirs",
    )
    return tmp_path / "a.atlas", vectors


def finding(path):
    with galsearch.open(path) as atlas:
        return next(found for found in atlas.check() if found.name == "image plane")


@pytest.mark.slow
def test_rows_that_were_added_get_their_place_from_optimize_and_bundle(grown):
    path, vectors = grown
    with galsearch.open(path) as atlas:
        assert len(places(atlas)[0]) == 400
    assert finding(path).ok and "30 that were added" in finding(path).message
    bundle = galsearch.bundle(path, path.with_name("a.duckdb"))
    galsearch.optimize(path)
    for one in (path, bundle):
        with galsearch.open(one) as atlas:
            np.testing.assert_allclose(places(atlas)[1], principal(vectors)[0], atol=1e-5)
        assert finding(one).ok and "added" not in finding(one).message


def test_a_small_atlas_places_what_is_added_at_once(tmp_path):
    vectors = tiny.random_units(60, DIM, seed=5)
    table = vector_table(tmp_path / "a.parquet", vectors[:40])
    galsearch.build(tmp_path / "a.atlas", table=table, vectors="vector", model="theirs")
    more = vector_table(tmp_path / "b.parquet", vectors[40:], first=40)
    galsearch.add(tmp_path / "a.atlas", table=more, vectors="vector", model="theirs")
    with galsearch.open(tmp_path / "a.atlas") as atlas:
        np.testing.assert_allclose(places(atlas)[1], principal(vectors)[0], atol=1e-5)


@pytest.mark.slow
def test_an_atlas_without_a_map_opens_is_found_good_and_gets_one_when_bundled(bundle_path, tmp_path):
    with duckdb.connect(bundle_path) as connection:
        connection.execute("DROP TABLE map_image")
    with galsearch.open(bundle_path) as atlas:
        assert all(found.ok and found.name != "image plane" for found in atlas.check())
        assert len(atlas.search("red edge")) == 12
    with galsearch.open(galsearch.bundle(bundle_path, tmp_path / "again.duckdb")) as atlas:
        assert len(places(atlas)[0]) == len(atlas)


@pytest.mark.parametrize("change", ["x = 'nan'", "y = NULL", "object_id = 'nobody'"])
def test_check_sees_a_wrong_place(bundle_path, change):
    with duckdb.connect(bundle_path) as connection:
        connection.execute(f"UPDATE map_image SET {change} WHERE object_id = '{tiny.object_id(7)}'")
    assert not finding(bundle_path).ok


def test_columns_of_the_map_are_described(tiny_bundle):
    with duckdb.connect(tiny_bundle, read_only=True) as connection:
        rows = connection.execute(
            'SELECT "column", ucd FROM galsearch_columns WHERE "table" = \'map_image\' ORDER BY 1'
        ).fetchall()
    assert rows == [("object_id", "meta.id"), ("x", "pos.cartesian.x"), ("y", "pos.cartesian.y")]


def test_a_way_that_is_not_there_is_named_before_anything_is_written(tiny_bundle, tmp_path, monkeypatch):
    with pytest.raises(galsearch.GalsearchError, match="use one of pca, umap"):
        galsearch.bundle(tiny_bundle, tmp_path / "a.duckdb", map="tsne")
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(galsearch.GalsearchError, match=r"galsearch\[umap\]"):
        galsearch.bundle(tiny_bundle, tmp_path / "a.duckdb", map="umap")
    assert not (tmp_path / "a.duckdb").exists()


class Umap:
    """What is put among the others lies at its first two numbers, what was fitted at those times ten."""

    def __init__(self, **_):
        pass

    def fit(self, block):
        self.embedding_ = 10 * block[:, :2]
        return self

    def transform(self, block):
        return block[:, :2]


@pytest.mark.parametrize("fitted", [30, 100])
def test_what_umap_is_not_fitted_to_is_put_among_the_rest(monkeypatch, fitted):
    monkeypatch.setattr(projection, "FITTED_ROWS", fitted)
    monkeypatch.setattr(projection, "_umap", lambda: SimpleNamespace(UMAP=Umap, __version__="0"))
    vectors = tiny.random_units(100, 8, seed=3)
    found, about = projection.flatten(Held(vectors), method="umap", seed=0)
    times = np.linalg.norm(found, axis=1) / np.linalg.norm(vectors[:, :2], axis=1)
    assert sorted(np.round(times).tolist()) == [1.0] * (100 - fitted) + [10.0] * fitted
    assert about["fitted_rows"] == fitted


def test_a_bundle_keeps_the_map_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(projection, "_umap", lambda: SimpleNamespace(UMAP=Umap, __version__="0"))
    table = vector_table(tmp_path / "a.parquet", tiny.random_units(60, DIM, seed=6))
    galsearch.build(tmp_path / "a.atlas", table=table, vectors="vector", model="theirs")
    bundle = galsearch.bundle(tmp_path / "a.atlas", tmp_path / "a.duckdb", map="umap")
    copy, anew = (galsearch.bundle(bundle, tmp_path / f"{way}.duckdb", map=way) for way in (None, "pca"))
    seen = []
    for path in (bundle, copy, anew):
        with galsearch.open(path, device="cpu") as atlas:
            ids, found = places(atlas)
            seen.append((atlas.manifest.embeddings["image"]["map"]["method"], found[np.argsort(ids)]))
    assert [method for method, _ in seen] == ["umap", "umap", "pca"]
    assert (seen[0][1] == seen[1][1]).all()
    assert not np.allclose(seen[0][1], seen[2][1])


@pytest.mark.slow
def test_umap_keeps_neighbors_together_and_is_kept_by_a_copy(tmp_path, monkeypatch):
    pytest.importorskip("umap", reason="a map by UMAP needs umap-learn")
    monkeypatch.setattr(projection, "FITTED_ROWS", 300)  # the others are put among them
    vectors = tiny.random_units(400, DIM, seed=6, groups=4)
    table = vector_table(tmp_path / "a.parquet", vectors)
    galsearch.build(tmp_path / "a.atlas", table=table, vectors="vector", model="theirs")
    bundle = galsearch.bundle(tmp_path / "a.atlas", tmp_path / "a.duckdb", map="umap")
    copy = galsearch.bundle(bundle, tmp_path / "b.duckdb")
    with galsearch.open(bundle) as atlas, galsearch.open(copy) as other:
        ids, found = places(atlas)
        assert (places(other)[1] == found).all()
        assert other.manifest.embeddings["image"]["map"]["method"] == "umap"
        gaps = np.linalg.norm(found[:, None] - found[None], axis=2)
        rows = [int(name[1:]) for name in ids]
        alike = (vectors[rows] @ vectors[rows].T).argsort(axis=1)[:, -2]
        kept = np.mean([gaps[row, other] <= np.quantile(gaps[row], 0.25) for row, other in enumerate(alike)])
        assert kept > 0.9
