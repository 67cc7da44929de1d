"""A map of the vectors for people to look at: where each of them lies in a plane, and how that plane was found."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import GalsearchError
from galsearch.store.index.vectors import BLOCK_ROWS, Vectors

PCA, UMAP = METHODS = ("pca", "umap")
FITTED_ROWS = 50_000  # that UMAP looks at; the others are put among them
NEIGHBORS = 15


def write_map(
    connection, name: str, vectors: Vectors, ids: pa.Array | pa.ChunkedArray, *, method: str = PCA, seed: int = 0
) -> dict:
    """Write `map_<name>` anew: where the vectors, which are those of the objects `ids`, lie in a plane.

    Returns what the manifest says of it. The columns are described in `galsearch_columns`, which must be there.
    """
    indices, about = flatten(vectors, method=method, seed=seed)
    columns = {"object_id": ids.cast(pa.string()), "x": pa.array(indices[:, 0]), "y": pa.array(indices[:, 1])}
    put_map(connection, name, pa.table(columns))
    return about


def put_map(connection, name: str, table: pa.Table) -> None:
    """Write the rows (object_id, x, y) of `map_<name>`, and what its columns mean where nothing says so yet."""
    connection.register("incoming", table)
    connection.execute(f"CREATE OR REPLACE TABLE map_{name} AS SELECT * FROM incoming")
    connection.unregister("incoming")
    connection.executemany(
        f"INSERT INTO {schema.COLUMNS_TABLE} SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (FROM {schema.COLUMNS_TABLE} "
        'WHERE "table" = $1 AND "column" = $2)',
        [(f"map_{name}", c.name, c.unit, c.ucd, c.description) for c in schema.TABLES["map_{name}"]],
    )


def check_method(method: str) -> None:
    """Raise GalsearchError unless there is such a way to make a map, with what it needs installed."""
    if method not in METHODS:
        raise GalsearchError(f"map is {method!r}, which is no way to make one; use one of {', '.join(METHODS)}")
    if method == UMAP:
        _umap()


def flatten(vectors: Vectors, *, method: str = PCA, seed: int = 0) -> tuple[np.ndarray, dict]:
    """Return the place of each vector, `(n, 2) float32`, and what the manifest says of the map.

    "pca" is the plane in which the vectors differ most, seen along the first two principal components (Jolliffe 2002,
    Principal Component Analysis); it has no parameters, and of each axis the component that is largest is positive.
    "umap" keeps neighbors together (McInnes et al. 2018, arXiv:1802.03426); distances in it mean little. Both take
    bounded memory beside the places: UMAP is fitted to `FITTED_ROWS` rows chosen with `seed`.
    """
    check_method(method)
    return _umap_layout(vectors, seed) if method == UMAP else _principal_components(vectors)


def _blocks(vectors: Vectors) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, vectors.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, vectors.rows)
        yield slice(start, stop), vectors.take(np.arange(start, stop)).astype(np.float64)
        vectors.done(start, stop)


def _principal_components(vectors: Vectors) -> tuple[np.ndarray, dict]:
    total, products = np.zeros(vectors.dim), np.zeros((vectors.dim, vectors.dim))
    for _, block in _blocks(vectors):
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / max(vectors.rows, 1)
    strength, components = np.linalg.eigh(products / max(vectors.rows, 1) - np.outer(mean, mean))
    axes = components[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    indices = np.zeros((vectors.rows, 2), np.float32)
    for rows, block in _blocks(vectors):
        indices[rows, : axes.shape[1]] = (block - mean) @ axes
    shares = np.maximum(strength[::-1][:2], 0) / max(strength.clip(0).sum(), np.finfo(float).tiny)
    return indices, {"method": PCA, "explained": [round(float(share), 4) for share in shares]}


def _umap_layout(vectors: Vectors, seed: int) -> tuple[np.ndarray, dict]:
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(vectors.rows, size=min(FITTED_ROWS, vectors.rows), replace=False))
    package = _umap()
    options = {"n_neighbors": min(NEIGHBORS, max(2, len(chosen) - 1)), "metric": "cosine", "random_state": seed}
    fitted = package.UMAP(**options, n_jobs=1).fit(vectors.take(chosen))
    indices = np.empty((vectors.rows, 2), np.float32)
    if len(chosen) < vectors.rows:
        for rows, block in _blocks(vectors):
            indices[rows] = fitted.transform(block.astype(np.float32))
    indices[chosen] = fitted.embedding_
    about = {"method": UMAP, "seed": seed, "neighbors": options["n_neighbors"], "fitted_rows": len(chosen)}
    return indices, {**about, "software": f"umap-learn {package.__version__}"}


def _umap() -> ModuleType:
    try:
        import umap
    except ImportError:
        raise GalsearchError(
            "a map by UMAP needs the package umap-learn: pip install 'galsearch[umap]', or make it with pca"
        ) from None
    return umap
