"""The vectors of a static site: 8-bit codes with what they leave over, and cells that a browser fetches by range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch.progress import Progress
from galsearch.site.folder import Entry, Staging
from galsearch.store.index import cells
from galsearch.store.index.cells import Cells, Curves
from galsearch.store.index.vectors import Reordered, Vectors
from galsearch.store.read.base import BaseStore

LARGEST = 127
BATCH_ROWS = 8_192
CELLS_PER_ROOT_ROW = 2  # fewer than in an atlas: a visitor fetches all centroids first, and each cell is a request
RECALL = 0.98  # of the best ten, for which the cells that a query visits are counted
DEPTH = 10
EXAMPLES = (  # phrases that show what can be asked, where an atlas knows them
    "face-on spiral galaxy", "barred spiral galaxy", "edge-on galaxy", "edge-on disk with a dust lane",
    "elliptical galaxy", "ring galaxy", "merging galaxies", "irregular galaxy", "galaxy with tidal tails",
    "gravitational lens with blue arcs", "clumpy galaxy", "galaxy with a companion",
    # of spectra
    "broad-line quasar", "star-forming galaxy", "passive galaxy", "Seyfert galaxy", "post-starburst galaxy", "LINER",
    "strong [O III] emission", "strong H-alpha emission", "strong 4000 angstrom break", "double-peaked lines",
)  # fmt: skip


@dataclass(frozen=True)
class Arranged:
    """The vectors of an embedding in the order in which a site has them.

    `order (m,) int64` are their numbers in the store, `rows (m,) int64` the rows of `galaxies` in the store that they
    belong to; `cells` is None where all are compared.
    """

    name: str
    vectors: Vectors
    order: np.ndarray
    rows: np.ndarray
    cells: Cells | None


def arrange(store: BaseStore, name: str, *, cells_from: int, words: np.ndarray | None, seed: int) -> Arranged:
    """Put the vectors of an embedding in the order of cells fitted to them, then of object_id.

    Up to `cells_from` of them stay as they are. `words (p, d)` stand for queries in words when the recall is measured.
    """
    vectors = store.vectors(name)
    every = np.arange(vectors.rows)
    if vectors.rows <= cells_from:
        return Arranged(name, vectors, every, store.object_rows(name, every), None)
    count = max(2, round(CELLS_PER_ROOT_ROW * math.sqrt(vectors.rows)))
    size = min(vectors.rows, count * cells.SAMPLE_ROWS_PER_CELL)
    sample = np.sort(np.random.default_rng(seed).choice(vectors.rows, size=size, replace=False))
    centroids = cells.fit_centroids(vectors.take(sample), count, seed=seed)
    cell = cells.assign_all(vectors, centroids)
    order = _by_cell(cell, store.id_column(store.object_rows(name, every)))
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=count))])
    index = Cells(centroids, starts, Curves(()))
    measured = cells.measure(Reordered(vectors, order), index, words, seed=seed)
    return Arranged(name, vectors, order, store.object_rows(name, order), Cells(centroids, starts, measured))


def _by_cell(cell: np.ndarray, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    table = pa.table({"cell": cell, "object_id": ids})
    return pc.sort_indices(table, sort_keys=[("cell", "ascending"), ("object_id", "ascending")]).to_numpy()


def coded(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes `(n, d) int8` and scales `(n,) float32`: a vector is about its scale times its codes.

    The largest number of a vector has the code 127 or -127; a vector of zeros has scale 0.
    """
    scales = (np.abs(vectors).max(axis=1, initial=0) / LARGEST).astype(np.float32)
    codes = np.rint(vectors / np.maximum(scales, 1e-30)[:, None])
    return np.clip(codes, -LARGEST, LARGEST).astype(np.int8), scales


def write_vectors(staging: Staging, arranged: Arranged, site_row: np.ndarray, progress: Progress) -> dict[str, Any]:
    """Write codes, scales and residuals; return their entries. `site_row (n,)` is the row in the site of each row."""
    names = ("codes", "scales", "residuals", "residual_scales")
    files = {one: staging.file(f"{slug(arranged.name)}-{one}") for one in names}
    for part, vectors in _batches(arranged, progress):
        codes, scales = coded(vectors)
        rest, rest_scales = coded(vectors - scales[:, None] * codes)
        for one, values in zip(names, (codes, scales, rest, rest_scales), strict=True):
            files[one].write(np.ascontiguousarray(values).reshape(-1).view(np.uint8))
        arranged.vectors.done(int(part[0]), int(part[-1]) + 1)
    entries: dict[str, Any] = {one: file.entry() for one, file in files.items()}
    site_rows = site_row[arranged.rows]
    same = len(site_rows) == len(site_row) and np.array_equal(site_rows, np.arange(len(site_row)))
    entries["site_rows"] = None if same else staging.array(f"{slug(arranged.name)}-rows", site_rows, "<u4")
    entries["cells"] = _write_cells(staging, arranged)
    return entries


def _batches(arranged: Arranged, progress: Progress) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    total = len(arranged.order)
    for start in range(0, total, BATCH_ROWS):
        progress(start, total, f"coding {arranged.name} vectors")
        part = arranged.order[start : start + BATCH_ROWS]
        yield part, arranged.vectors.take(part)


def _write_cells(staging: Staging, arranged: Arranged) -> dict[str, Any] | None:
    index = arranged.cells
    if index is None:
        return None
    known, name = index.curves, slug(arranged.name)

    def probes(kind: str) -> int:
        return known.probes(recall=RECALL, depth=DEPTH, kinds=[kind], cells=len(index))

    return {
        "count": len(index),
        "centroids": staging.array(f"{name}-centroids", index.centroids, "<f4"),
        "starts": staging.array(f"{name}-starts", index.starts, "<u4"),
        "probes": probes(cells.LIKE),
        "probes_words": probes(cells.WORDS),
        "recall": [[kind, depth, cells_, round(recall, 4)] for kind, depth, cells_, recall in known.rows],
    }


def slug(name: str) -> str:
    """Return the name of an embedding as files are called: small letters, digits, underscores and hyphens."""
    return "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in name.lower())[:40]


def write_chips(staging: Staging, name: str, phrases: list[str], vectors: np.ndarray) -> dict[str, Any]:
    """Write the phrases that an atlas knows the vectors of; return what site.json says of them."""
    wanted = [phrases.index(one) for one in EXAMPLES if one in phrases]
    entry: Entry = staging.array(f"{slug(name)}-chips", vectors, "<f4")
    return {"phrases": phrases, "vectors": entry, "examples": wanted or list(range(min(12, len(phrases))))}
