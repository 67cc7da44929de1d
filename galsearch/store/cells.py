"""How vectors are grouped into cells: spherical k-means on a sample, in bounded memory.

A cell is the set of unit vectors whose closest centroid, by inner product, is the same. Searching visits the cells
whose centroids are closest to the query.
"""

from __future__ import annotations

import math

import numpy as np

CELLS_PER_ROOT_ROW = 4  # about 4 sqrt(N) cells: the visited share and the cost of comparing centroids stay in balance
SAMPLE_ROWS_PER_CELL = 64
ITERATIONS = 10
BLOCK_ROWS = 16_384  # rows compared with all centroids at a time


def cell_count(rows: int) -> int:
    """Return how many cells `rows` vectors are divided into: about 4 sqrt(rows), at least 1."""
    return max(1, min(round(CELLS_PER_ROOT_ROW * math.sqrt(rows)), rows // 8))


def sample_rows(rows: int, *, seed: int) -> np.ndarray:
    """Return the sorted row numbers on which centroids are fitted."""
    size = min(rows, cell_count(rows) * SAMPLE_ROWS_PER_CELL)
    return np.sort(np.random.default_rng(seed).choice(rows, size=size, replace=False))


def fit_centroids(sample: np.ndarray, cells: int, *, seed: int) -> np.ndarray:
    """Return `(cells, d) float32` unit centroids of the unit vectors `sample`, `(n, d) float32`.

    Lloyd's iterations on the sphere (Dhillon & Modha 2001); a cell that runs empty restarts at a random vector.
    """
    generator = np.random.default_rng(seed)
    centroids = sample[generator.choice(len(sample), size=cells, replace=False)].copy()
    for _ in range(ITERATIONS):
        sums, counts = _sums(sample, assign(sample, centroids), cells)
        empty = counts == 0
        sums[empty] = sample[generator.choice(len(sample), size=int(empty.sum()))]
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.divide(sums, lengths, out=centroids, where=lengths > 1e-12)
    return centroids


def _sums(sample: np.ndarray, cell: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(cell, kind="stable")
    present, starts, counts = np.unique(cell[order], return_index=True, return_counts=True)
    sums = np.zeros((cells, sample.shape[1]), dtype=np.float32)
    sums[present] = np.add.reduceat(sample[order], starts, axis=0)
    every = np.zeros(cells, dtype=np.int64)
    every[present] = counts
    return sums, every


def assign(embeddings: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the cell of each row of `embeddings`, `(n,) int32`."""
    cell = np.empty(len(embeddings), dtype=np.int32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS]
        cell[start : start + len(block)] = np.argmax(block @ centroids.T, axis=1)
    return cell
