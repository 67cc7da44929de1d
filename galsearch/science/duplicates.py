"""Finding pairs that may be one object by an index: positions, equal vectors, nearest hashes; groups of them.

Pairs are `(first, second)`, row numbers `(m,) int64` with first < second, ascending and each once. scipy is imported
when it is first needed: a search reads the constants of this file alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from galsearch.errors import QueryError
from galsearch.science.sky import ARCSEC, separation_arcsec, unit_vectors

SAME_ARCSEC = 2.0  # objects closer on the sky than this are one, where nothing says better
SAME_COSINE = 0.9999  # and so are those without positions whose vectors are this close
MOST_PAIRS = 20_000_000  # 16 bytes each, and some 100 while they are looked at
FIELD_IN_RADII = 10.0  # of the disk in which the density around a pair is counted
CELL_ROWS, PROBES = 400, 3  # vectors of a cell, and cells that each vector is compared with
TILE_ROWS = 1_024  # compared at once: their scores stay in the cache
FEW_ROWS = 4_000  # all of these are compared with each other
SPLIT_AXES = 4  # directions in which equal vectors are looked for: a projection never takes two further apart
SAMPLE_ROWS = 20_000


class Pairs(NamedTuple):
    """Pairs of row numbers with a value each: a separation, or a cosine."""

    first: np.ndarray
    second: np.ndarray
    value: np.ndarray


# ---- positions


def close_pairs(sky: np.ndarray, radius_arcsec: float) -> Pairs:
    """Return the pairs of positions `(n, 2)` in degrees within a radius, inclusive, with separations in arcseconds.

    A position of NaN is in none. Raises QueryError where they are more than MOST_PAIRS.
    """
    from scipy.spatial import cKDTree

    there = np.flatnonzero(np.isfinite(sky).all(axis=1))
    tree = cKDTree(unit_vectors(*sky[there].T))
    chord = 2 * np.sin(min(radius_arcsec / ARCSEC, np.pi) / 2) * (1 + 1e-9) + 4e-15
    if len(there) > 1 and (tree.count_neighbors(tree, chord) - len(there)) // 2 > MOST_PAIRS:
        raise QueryError(
            f"more than {MOST_PAIRS:,} pairs lie within {radius_arcsec:g} arcsec: that is the density of the catalog, "
            "not duplicates; choose a smaller radius_arcsec, or fewer objects with where"
        )
    pairs = there[tree.query_pairs(chord, output_type="ndarray")] if len(there) > 1 else np.empty((0, 2), np.int64)
    first, second = pairs.min(axis=1, initial=len(sky)), pairs.max(axis=1, initial=-1)
    apart = separation_arcsec(*sky[first].T, *sky[second].T)
    return _sorted(first[apart <= radius_arcsec], second[apart <= radius_arcsec], apart[apart <= radius_arcsec])


def chance_alignment(sky: np.ndarray, pairs: Pairs, radius_arcsec: float) -> np.ndarray:
    """Return for each pair the chance that some other object lies as close, `(m,) float64`, as 1 - exp(-pi s^2 d).

    The density d is that of objects between `radius_arcsec` and 10 times it around the first of the pair.
    """
    from scipy.spatial import cKDTree

    there = np.flatnonzero(np.isfinite(sky).all(axis=1))
    tree, points = cKDTree(unit_vectors(*sky[there].T)), unit_vectors(*sky[pairs.first].T)
    within = [
        tree.query_ball_point(points, 2 * np.sin(min(radius / ARCSEC, np.pi) / 2), return_length=True)
        for radius in (radius_arcsec, FIELD_IN_RADII * radius_arcsec)
    ]
    area = np.pi * radius_arcsec**2 * (FIELD_IN_RADII**2 - 1)
    density = (within[1] - within[0]) / area if area else np.zeros(len(points))
    return -np.expm1(-np.pi * pairs.value**2 * density)


# ---- vectors


def equal_pairs(vectors: np.ndarray, distance: float) -> Pairs:
    """Return pairs of rows of `(n, d)` that may be within a distance, with that of a few directions; it misses none.

    Equal rows are paired with the first of them only. Raises QueryError where they are more than MOST_PAIRS.
    """
    from scipy.spatial import cKDTree

    first, second, left = _equal_rows(vectors)
    tree = cKDTree(vectors[left])
    if len(left) > 1 and (tree.count_neighbors(tree, distance) - len(left)) // 2 > MOST_PAIRS:
        raise QueryError(
            f"more than {MOST_PAIRS:,} pairs of vectors are nearly equal: this embedding does not tell these objects "
            "apart; choose other grounds with by, or fewer objects with where"
        )
    pairs = left[tree.query_pairs(distance, output_type="ndarray")] if len(left) > 1 else np.empty((0, 2), np.int64)
    first, second = np.concatenate([first, pairs[:, 0]]), np.concatenate([second, pairs[:, 1]])
    apart = np.linalg.norm(vectors[first].astype(np.float64) - vectors[second], axis=1)
    return _sorted(np.minimum(first, second), np.maximum(first, second), apart)


def directions(sample: np.ndarray) -> np.ndarray:
    """Return the orthonormal directions `(d, SPLIT_AXES)` in which a sample of vectors differs most."""
    values = sample.astype(np.float64) - (sample.mean(axis=0) if len(sample) else 0)
    return np.linalg.eigh(values.T @ values)[1][:, -SPLIT_AXES:].astype(np.float32)


def nearest_pairs(vectors: np.ndarray, *, k: int, least: float, seed: int) -> Pairs:
    """Return pairs of rows of unit vectors `(n, d) float32` of which one is among the `k` nearest of the other.

    Only those of a cosine of `least` or more; equal rows are paired with the first of them. Up to FEW_ROWS are
    compared with each other, of more each with those in PROBES cells around rows that are drawn.
    """
    same, other, left = _equal_rows(vectors)
    ours = vectors[left]
    near, cosine = _among_all(ours, k) if len(left) <= FEW_ROWS else _in_cells(ours, k, seed)
    rows, columns = np.nonzero((cosine >= least) & (near >= 0))
    first, second = left[rows], left[near[rows, columns]]
    first, second = np.concatenate([same, first]), np.concatenate([other, second])
    value = np.concatenate([np.ones(len(same), np.float32), cosine[rows, columns]])
    return _sorted(np.minimum(first, second), np.maximum(first, second), value)


def _equal_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first of each kind of row beside each other one like it, and the first ones, ascending."""
    plain = np.ascontiguousarray(vectors)
    keys = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).reshape(-1)
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    stands_for = first[kind.reshape(-1)]
    others = np.flatnonzero(stands_for != np.arange(len(vectors)))
    return stands_for[others], others, np.sort(first)


def _among_all(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest other rows of each, `(n, k)`, -1 for none, and their cosines."""
    near = np.full((len(vectors), k), -1, np.int64)
    cosine = np.full((len(vectors), k), -np.inf, np.float32)
    for start in range(0, len(vectors), TILE_ROWS):
        tile = np.arange(start, min(start + TILE_ROWS, len(vectors)))
        scores = vectors[tile] @ vectors.T
        scores[np.arange(len(tile)), tile] = -np.inf
        at, value = _best(scores, k)
        near[tile, : at.shape[1]], cosine[tile, : at.shape[1]] = at, value
    return np.where(np.isfinite(cosine), near, -1), cosine


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and values of the k largest of each row, the largest first; `scores` are used up.

    For few, the largest is looked for k times, which is quicker than a partition.
    """
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape), scores
    rows = np.arange(len(scores))
    at, value = np.empty((len(scores), k), np.int64), np.empty((len(scores), k), scores.dtype)
    for turn in range(k):
        at[:, turn] = scores.argmax(axis=1)
        value[:, turn] = scores[rows, at[:, turn]]
        scores[rows, at[:, turn]] = -np.inf
    return at, value


def _in_cells(vectors: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of each row among those of the nearest cells; 12 · k · PROBES bytes a row."""
    probed = _cells(vectors, seed)
    order = np.argsort(probed[:, 0], kind="stable")
    starts = np.searchsorted(probed[order, 0], np.arange(probed.max() + 2))
    near = np.full((len(vectors), PROBES, k), -1, np.int32)
    cosine = np.full((len(vectors), PROBES, k), -np.inf, np.float32)
    for probe in range(PROBES):
        by_cell = np.argsort(probed[:, probe], kind="stable")
        ends = np.searchsorted(probed[by_cell, probe], np.arange(probed.max() + 2))
        for cell in range(len(starts) - 1):
            members, theirs = order[starts[cell] : starts[cell + 1]], by_cell[ends[cell] : ends[cell + 1]]
            for first in range(0, len(theirs) if len(members) else 0, TILE_ROWS):
                rows = theirs[first : first + TILE_ROWS]
                scores = vectors[rows] @ vectors[members].T
                if not probe:
                    scores[np.arange(len(rows)), np.searchsorted(members, rows)] = -np.inf  # itself
                at, value = _best(scores, k)
                near[rows, probe, : at.shape[1]], cosine[rows, probe, : at.shape[1]] = members[at], value
    at, value = _best(cosine.reshape(len(vectors), -1), k)
    near = np.take_along_axis(near.reshape(len(vectors), -1), at, axis=1)
    return np.where(np.isfinite(value), near, -1).astype(np.int64), value


def _cells(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return the PROBES nearest of drawn rows for each row, the nearest first, `(n, PROBES) int32`.

    Rows that are drawn lie densely where vectors do, so that cells have much the same number of rows.
    """
    count = max(len(vectors) // CELL_ROWS, PROBES)
    centers = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))]
    probed = np.empty((len(vectors), PROBES), np.int32)
    for start in range(0, len(vectors), TILE_ROWS):
        scores = vectors[start : start + TILE_ROWS] @ centers.T
        probed[start : start + TILE_ROWS] = _best(scores, PROBES)[0]
    return probed


def _sorted(first: np.ndarray, second: np.ndarray, value: np.ndarray) -> Pairs:
    """Return pairs in order, each once."""
    if not len(first):
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    order = np.lexsort((second, first))
    first, second, value = first[order], second[order], value[order]
    new = np.r_[True, (np.diff(first) != 0) | (np.diff(second) != 0)]
    return Pairs(first[new].astype(np.int64), second[new].astype(np.int64), value[new])


# ---- groups


def group(links: Pairs, sky: np.ndarray, radius_arcsec: float) -> np.ndarray:
    """Return the group of each row, `(n,) int64`, -1 for those that are alone; values of links are their confidence.

    Rows that are linked are in one group, unless that would put two positions `sky` `(n, 2)` in degrees further apart
    than the radius into one: then the links that are surest are kept, those of equal confidence in their order.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    (first, second, confidence), count = links, len(sky)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1].astype(np.int64)
    sizes = np.bincount(labels, minlength=1)
    labels = np.where(sizes[labels] > 1, labels, -1)
    for name in _too_wide(labels, sizes, sky, radius_arcsec):
        inside = np.flatnonzero(labels[first] == name)
        inside = inside[np.argsort(-confidence[inside], kind="stable")]
        rows = np.flatnonzero(labels == name)
        parts = _joined(rows, first[inside], second[inside], sky, radius_arcsec)
        labels[rows] = -1
        for part in parts:
            labels[part] = labels.max() + 1
    return labels


def _too_wide(labels: np.ndarray, sizes: np.ndarray, sky: np.ndarray, radius_arcsec: float) -> list[int]:
    """Return the groups of three or more in which two positions are further apart than the radius."""
    members = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.r_[np.count_nonzero(labels < 0), sizes * (sizes > 1)])
    wide = []
    for name in np.flatnonzero(sizes > 2).tolist():
        at = sky[members[ends[name] : ends[name + 1]]]
        at = at[np.isfinite(at).all(axis=1)]
        if len(at) > 1 and _spread(at) > radius_arcsec:
            wide.append(name)
    return wide


def _spread(at: np.ndarray) -> float:
    """Return the largest separation of positions `(n, 2)` in arcseconds, a thousand rows at a time."""
    return max(
        float(separation_arcsec(at[start : start + 1000, None, 0], at[start : start + 1000, None, 1], *at.T).max())
        for start in range(0, len(at), 1000)
    )


def _joined(
    rows: np.ndarray, first: np.ndarray, second: np.ndarray, sky: np.ndarray, radius_arcsec: float
) -> list[list[int]]:
    """Return groups of two or more, joined link by link where no two positions come to lie too far apart."""
    home = {row: [row] for row in rows.tolist()}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        ours, theirs = home[one], home[other]
        if ours is theirs:
            continue
        a, b = (part[np.isfinite(part).all(axis=1)] for part in (sky[ours], sky[theirs]))
        if len(a) and len(b) and separation_arcsec(a[:, None, 0], a[:, None, 1], *b.T).max() > radius_arcsec:
            continue
        if len(ours) < len(theirs):
            ours, theirs = theirs, ours
        ours += theirs
        home |= dict.fromkeys(theirs, ours)
    return [part for part in {id(part): part for part in home.values()}.values() if len(part) > 1]


def tree(links: Pairs, count: int, roots: np.ndarray) -> np.ndarray:
    """Return the number of the link by which each of `count` rows leads to a root, by the surest ones; -1 for none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

    first, second, confidence = links
    weight = 2.0 - confidence  # never 0, which would be no link
    graph = coo_array((weight, (first, second)), shape=(count, count)).tocsr()
    surest = minimum_spanning_tree(graph).tocoo()
    stem = np.full(len(roots), count)
    both = coo_array(
        (
            np.ones(len(surest.row) + len(roots)),
            (np.r_[surest.row, stem], np.r_[surest.col, roots]),
        ),
        shape=(count + 1, count + 1),
    ).tocsr()
    _, before = breadth_first_order(both, count, directed=False)
    rows = np.flatnonzero((before[:count] >= 0) & (before[:count] < count))
    low, high = np.minimum(rows, before[rows]), np.maximum(rows, before[rows])
    keys = first * count + second
    order = np.argsort(keys, kind="stable")
    result = np.full(count, -1, np.int64)
    result[rows] = order[np.searchsorted(keys[order], low * count + high)]
    return result
