"""Novelty detection: how strange vectors are beside others, as conformal p-values with a false discovery rate.

A detector is fitted on reference vectors `(n, d)` and scores others `(m, d)`; larger is stranger. What a score means is
learned from held-out normals, which no detector was fitted on: split-conformal p-values are then valid whatever the
detector, as long as the normals that are judged are exchangeable with those held out. All of it is numpy and scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.random import Generator

from galsearch.errors import QueryError
from galsearch.science.probe import Probe, checked, checked_labels

BLOCK_NUMBERS = 1 << 22  # numbers of an intermediate array, 32 MB in double precision; larger input goes part by part
NEIGHBORS = 10  # of kNN distance: a copy or two of an odd object do not make it ordinary
TREES, SAMPLE = 100, 256  # of an isolation forest, as in its paper; more of either changes little there
EXPLAINED = 0.9  # part of the variance of the reference that the principal components keep
SCALED_SHARE = 1 / 3  # of the held-out normals: they say what a score is worth; the rest gives the p-values
TAIL = 0.1  # share of the normals that the exponential tail of a score is fitted to
LEAST_HELD_OUT = 12  # normals: 4 give a scale and 8 the p-values, the least of which is then 1/9
SIGMAS_90 = 1.6449  # of a normal distribution, from its median to its 95th percentile
EULER = 0.5772156649015329
SPARE = 4  # neighbors beyond k that are compared in double precision
DRAWS = 12  # of a column in which the rows of a node differ; of vectors nearly every one does

Scores = np.ndarray


class Detector(Protocol):
    """What is fitted on reference vectors and says how strange others are."""

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> Detector:
        """Learn from reference vectors `(n, d)`, of the classes `labels (n,)` where it needs them; return itself."""

    def score(self, vectors: np.ndarray) -> Scores:
        """Return how strange each of `(m, d)` is, `(m,) float64`, larger is stranger; NaN for a vector with NaN."""


# ---- what detectors share


def check_fitted(size: int) -> None:
    """Raise QueryError where a detector holds nothing: before it has seen a reference no score means anything."""
    if not size:
        raise QueryError("this detector was not fitted, so it can score nothing; call fit with reference vectors first")


def in_blocks(vectors: np.ndarray, width: int, of_block: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return what `of_block` gives for the rows of `(m, d)`, NaN for rows that are not finite.

    `width` is how many numbers an intermediate array has for a row; rows go through in parts that fit in 32 MB.
    """
    vectors = np.asarray(vectors)
    result = np.full(len(vectors), np.nan)
    step = max(1, BLOCK_NUMBERS // max(width, vectors.shape[1], 1))
    for start in range(0, len(vectors), step):
        part = np.asarray(vectors[start : start + step], np.float64)
        there = np.isfinite(part).all(axis=1)
        if there.any():
            result[start : start + step][there] = of_block(part[there])
    return result


# ---- detectors


@dataclass
class NeighborDistance:
    """kNN distance: the Euclidean distance of the k-th nearest reference vector (Ramaswamy et al. 2000, SIGMOD)."""

    k: int = NEIGHBORS
    reference: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> NeighborDistance:
        """Keep the reference vectors. Raises QueryError where they are fewer than k."""
        if isinstance(self.k, bool) or not isinstance(self.k, (int, np.integer)) or self.k < 1:
            raise QueryError(f"k is {self.k!r:.40}, expected a whole number from 1, such as {NEIGHBORS}")
        self.reference = checked(reference)
        if self.k > len(self.reference):
            raise QueryError(
                f"k is {self.k}, and there are {len(self.reference)} reference vectors; choose a smaller k"
            )
        return self

    def score(self, vectors: np.ndarray) -> Scores:
        """Return the distance of the k-th nearest reference vector."""
        check_fitted(self.reference.size)
        return in_blocks(vectors, len(self.reference), lambda part: self.nearest(part, k=self.k)[1][:, -1])

    def nearest(self, vectors: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the row numbers and distances of the k nearest reference vectors, `(m, k)` each, nearest first."""
        single, count = self.reference.astype(np.float32), len(self.reference)
        gap = (single**2).sum(axis=1) - 2 * (vectors.astype(np.float32) @ single.T)  # and |v|^2, equal in a row
        some = min(k + SPARE, count)  # single precision chooses them, double precision orders them
        rows = np.sort(np.argpartition(gap, some - 1, axis=1)[:, :some], axis=1)
        distance = np.stack([np.linalg.norm(vectors - self.reference[near], axis=1) for near in rows.T], axis=1)
        order = np.argsort(distance, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distance, order, axis=1)


def shrunk_covariance(centered: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the covariance of centered rows `(n, d)`, shrunk toward a multiple of the identity, and by how much (0-1).

    Ledoit & Wolf 2004, Journal of Multivariate Analysis 88, 365, equations 14 and lemmas 3.2-3.5. Raises QueryError
    where the rows do not vary.
    """
    n, d = centered.shape
    sample = centered.T @ centered / n
    mean = np.trace(sample) / d
    if not mean > 0:
        raise QueryError("all reference vectors are the same, and nothing can be odd beside them; give others")
    squared = float((sample**2).sum())
    spread = squared / d - mean**2  # squared distance to the target, in their norm: a sum over d
    noise = (float(((centered**2).sum(axis=1) ** 2).sum()) / n - squared) / (n * d)
    shrinkage = 0.0 if spread <= 0 else min(noise, spread) / spread
    return (1 - shrinkage) * sample + shrinkage * mean * np.eye(d), shrinkage


def _whitening(centered: np.ndarray) -> np.ndarray:
    """Return the matrix `(d, d)` by which centered rows get unit covariance."""
    from scipy.linalg import solve_triangular

    covariance, _ = shrunk_covariance(centered)
    root = np.linalg.cholesky(covariance + 1e-12 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    return solve_triangular(root, np.eye(len(root)), lower=True).T


@dataclass
class Mahalanobis:
    """Mahalanobis distance with a Ledoit-Wolf covariance.

    `of` is "all" (to the mean of the reference), "classes" (to the closest class mean, the covariance within classes
    pooled: Lee et al. 2018, NeurIPS) or "relative" (its square less that to the mean of all: Ren et al. 2021,
    arXiv:2106.09022), where directions in which everything varies count less.
    """

    of: str = "all"
    means: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    whitening: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    overall: Mahalanobis | None = field(default=None, repr=False)

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> Mahalanobis:
        """Learn means and covariance. Raises QueryError for fewer than two classes where it compares classes."""
        if self.of not in ("all", "classes", "relative"):
            raise QueryError(f"of is {self.of!r:.40}, expected all, classes or relative")
        reference = checked(reference)
        codes = np.zeros(len(reference), np.int64)
        if self.of != "all":
            _, codes = checked_labels(labels, rows=len(reference))
        counts = np.bincount(codes)
        sums = np.zeros((len(counts), reference.shape[1]))
        np.add.at(sums, codes, reference)
        self.means = sums / counts[:, None]
        self.whitening = _whitening(reference - self.means[codes])
        self.overall = Mahalanobis().fit(reference) if self.of == "relative" else None
        return self

    def score(self, vectors: np.ndarray) -> Scores:
        """Return the distance, or for "relative" the difference of squares, which may be below 0."""
        check_fitted(self.means.size)
        closest = in_blocks(vectors, len(self.means) * self.means.shape[1], self._closest)
        return closest if self.overall is None else closest**2 - self.overall.score(vectors) ** 2

    def _closest(self, part: np.ndarray) -> np.ndarray:
        white, centers = part @ self.whitening, self.means @ self.whitening
        return np.sqrt(((white[:, None] - centers) ** 2).sum(axis=2).min(axis=1))


@dataclass
class Reconstruction:
    """Reconstruction error of principal components: the length of what they leave of a vector.

    As many components are kept as explain the share `explained` of the variance of the reference, fewer than all.
    """

    explained: float = EXPLAINED
    mean: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    components: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> Reconstruction:
        """Learn mean and components `(c, d)`. Raises QueryError where the reference does not vary."""
        if not isinstance(self.explained, (int, float)) or not 0 < self.explained < 1:
            raise QueryError(f"explained is {self.explained!r:.40}, expected a share of the variance, such as 0.9")
        reference = checked(reference)
        self.mean = reference.mean(axis=0)
        share, directions = _principal(reference - self.mean)
        if not share.sum() > 0:
            raise QueryError("all reference vectors are the same, and nothing can be odd beside them; give others")
        count = int(np.searchsorted(np.cumsum(share) / share.sum(), self.explained)) + 1
        self.components = directions[: min(count, max(len(directions) - 1, 1))]
        return self

    def score(self, vectors: np.ndarray) -> Scores:
        """Return the length of the residual."""
        check_fitted(self.components.size)
        return in_blocks(vectors, 0, lambda part: np.linalg.norm(self.residual(part), axis=1))

    def residual(self, vectors: np.ndarray) -> np.ndarray:
        """Return what the components leave of vectors, `(m, d)`."""
        centered = vectors - self.mean
        return centered - (centered @ self.components.T) @ self.components


def _principal(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return variances (times n) and directions `(c, d)` of principal components, the largest first."""
    n, d = centered.shape
    if n < d:
        _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
        return sizes**2, directions
    values, directions = np.linalg.eigh(centered.T @ centered)  # 40 times as quick where n is many times d
    return np.clip(values[::-1], 0, None), directions.T[::-1]


@dataclass
class IsolationForest:
    """Isolation forest: how few random cuts separate a vector from a sample (Liu, Ting & Zhou 2008, ICDM)."""

    trees: int = TREES
    sample: int = SAMPLE
    seed: int = 0
    size: int = 0  # rows of a sample that there were
    feature: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int64), repr=False)
    threshold: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    path: np.ndarray = field(default_factory=lambda: np.empty((0, 0)), repr=False)  # length to a leaf; NaN elsewhere

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> IsolationForest:
        """Grow the trees, each on its own sample of the reference; a tree is a heap, `(trees, nodes)`."""
        reference, rng = checked(reference), np.random.default_rng(self.seed)
        self.size = min(self.sample, len(reference))
        depth = int(np.ceil(np.log2(self.size)))
        shape = (self.trees, 2 ** (depth + 1) - 1)
        self.feature, self.threshold = np.zeros(shape, np.int64), np.zeros(shape)
        self.path = np.full(shape, np.nan)
        rows = np.stack([rng.choice(len(reference), self.size, replace=False) for _ in range(self.trees)])
        node = np.zeros(rows.shape, np.int64)  # where each row of each sample is
        for level in range(depth + 1):
            node = self._grow(reference, rows, node, level, cuts=level < depth, rng=rng)
        return self

    def _grow(
        self, reference: np.ndarray, rows: np.ndarray, node: np.ndarray, level: int, *, cuts: bool, rng: Generator
    ) -> np.ndarray:
        """Cut the nodes of a level of all trees at once, or end them, and return where the rows of samples go."""
        start, width = 2**level - 1, 2**level
        tree = np.arange(self.trees)[:, None]
        inside = (node >= start) & (node < start + width)
        flat = (tree * width + node - start)[inside]
        count = np.bincount(flat, minlength=self.trees * width).reshape(self.trees, width)
        axis, low, high = _cuts(reference, rows[inside], flat, count.size, rng) if cuts else _no_cuts(count.size)
        cut = rng.uniform(low, high)
        ends = (high <= low) & (count.ravel() > 0)
        here = slice(start, start + width)
        self.feature[:, here], self.threshold[:, here] = axis.reshape(count.shape), cut.reshape(count.shape)
        self.path[:, here] = np.where(ends.reshape(count.shape), level + _mean_paths(count), np.nan)
        right = reference[rows[inside], axis[flat]] > cut[flat]
        result = node.copy()
        result[inside] = np.where(ends[flat], node[inside], 2 * node[inside] + 1 + right)
        return result

    def score(self, vectors: np.ndarray) -> Scores:
        """Return 2^(-mean path / mean path of a search tree of the sample), 0 to 1; 0.5 is ordinary."""
        check_fitted(self.size)
        return in_blocks(vectors, 4 * self.trees, self._isolated)

    def _isolated(self, part: np.ndarray) -> np.ndarray:
        tree, row = np.arange(self.trees), np.arange(len(part))[:, None]
        node = np.zeros((len(part), self.trees), np.int64)
        for _ in range(int(np.ceil(np.log2(self.size)))):
            right = part[row, self.feature[tree, node]] > self.threshold[tree, node]
            node = np.where(np.isnan(self.path[tree, node]), 2 * node + 1 + right, node)
        return np.exp2(-self.path[tree, node].mean(axis=1) / max(_mean_path(self.size), 1.0))


def _cuts(
    reference: np.ndarray, rows: np.ndarray, node: np.ndarray, nodes: int, rng: Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a random column for each node, and the least and largest value of its rows in it.

    Where they are equal another column is drawn, up to `DRAWS` times: then the rows are taken to be all the same.
    """
    varying = np.flatnonzero(np.ptp(reference, axis=0) > 0)
    if not len(varying):
        return _no_cuts(nodes)
    axis = rng.choice(varying, nodes)
    for _ in range(DRAWS):
        values = reference[rows, axis[node]]
        low, high = np.full(nodes, np.inf), np.full(nodes, -np.inf)
        np.minimum.at(low, node, values)
        np.maximum.at(high, node, values)
        there = np.isfinite(low)
        low, high = np.where(there, low, 0), np.where(there, high, 0)
        again = there & (low == high)
        if not again.any():
            break
        drawn = np.where(again, rng.choice(varying, nodes), axis)
        axis, last = drawn, axis
    else:
        axis = last  # that low and high are of
    return axis, low, high


def _no_cuts(nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(nodes, np.int64), np.zeros(nodes), np.zeros(nodes)


def _mean_paths(sizes: np.ndarray) -> np.ndarray:
    """Return the mean length of an unsuccessful search in a binary search tree of so many rows, for each size."""
    sizes = np.asarray(sizes, np.float64)
    several = np.maximum(sizes, 3)
    long = 2 * (np.log(several - 1) + EULER) - 2 * (several - 1) / several
    return np.where(sizes > 2, long, (sizes == 2).astype(np.float64))


def _mean_path(size: int) -> float:
    return float(_mean_paths(np.array(size)))


@dataclass
class Softmax:
    """Maximum softmax probability: 1 less the probability of the likeliest class (Hendrycks & Gimpel 2017, ICLR)."""

    probe: Probe | None = field(default=None, repr=False)

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> Softmax:
        """Fit a linear probe on the labels. Raises QueryError for fewer than two classes."""
        self.probe = Probe.fit(reference, labels)
        return self

    def score(self, vectors: np.ndarray) -> Scores:
        """Return 1 - max p; summed over the other classes, so that near 0 it keeps its digits."""
        check_fitted(int(self.probe is not None))
        return in_blocks(vectors, 0, self._doubt)

    def _doubt(self, part: np.ndarray) -> np.ndarray:
        assert self.probe is not None
        logits = self.probe.logits(part)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        others = np.sort(odds, axis=1)[:, :-1].sum(axis=1)
        return others / (1 + others)


@dataclass
class Energy:
    """Energy of a classifier: minus the log of the sum of its exponential logits (Liu et al. 2020, NeurIPS)."""

    probe: Probe | None = field(default=None, repr=False)

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> Energy:
        """Fit a linear probe on the labels. Raises QueryError for fewer than two classes."""
        self.probe = Probe.fit(reference, labels)
        return self

    def score(self, vectors: np.ndarray) -> Scores:
        """Return -log sum exp(logits)."""
        from scipy.special import logsumexp

        check_fitted(int(self.probe is not None))
        assert self.probe is not None
        probe = self.probe
        return in_blocks(vectors, 0, lambda part: -logsumexp(probe.logits(part), axis=1))


@dataclass
class MeasureDistance:
    """Mahalanobis distance of measured columns `(n, c)`, which may be missing (NaN) and have any distribution.

    Each column is first turned into normal scores by its ranks in the reference, which go on beyond it; a missing value
    has the score 0, the median, and a column that says which are missing is added where that varies.
    """

    sorted_columns: list[np.ndarray] = field(default_factory=list, repr=False)
    gaps: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    distance: Mahalanobis = field(default_factory=Mahalanobis, repr=False)

    def fit(self, reference: np.ndarray, labels: np.ndarray | None = None) -> MeasureDistance:
        """Learn the ranks and the covariance. Raises QueryError where no column has two values."""
        table = np.asarray(reference, np.float64)
        self.sorted_columns = [np.sort(column[np.isfinite(column)]) for column in table.T]
        missing = (~np.isfinite(table)).mean(axis=0)
        self.gaps = np.flatnonzero((missing > 0) & (missing < 1))
        if not any(len(np.unique(column)) > 1 for column in self.sorted_columns):
            raise QueryError("no measured column varies among the normals; name others, or leave the columns out")
        self.distance = Mahalanobis().fit(self._normal_scores(table))
        return self

    def score(self, vectors: np.ndarray) -> Scores:
        """Return the distance; NaN for a row without any value."""
        check_fitted(len(self.sorted_columns))
        table = np.asarray(vectors, np.float64)
        return np.where(np.isfinite(table).any(axis=1), self.distance.score(self._normal_scores(table)), np.nan)

    def _normal_scores(self, table: np.ndarray) -> np.ndarray:
        columns = [_normal_score(values, own) for values, own in zip(table.T, self.sorted_columns, strict=True)]
        columns += [np.isnan(table[:, gap]).astype(np.float64) for gap in self.gaps]
        return np.stack(columns, axis=1)


def _normal_score(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Return the normal scores of values by their ranks in a reference; beyond its ends they go on at its own scale."""
    from scipy.special import ndtri

    if not len(ordered):
        return np.zeros(len(values))
    rank = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    low, middle, high = np.quantile(ordered, [0.05, 0.5, 0.95])
    up, down = ((abs(end - middle) / SIGMAS_90) or np.inf for end in (high, low))
    beyond = np.clip(values - ordered[-1], 0, None) / up - np.clip(ordered[0] - values, 0, None) / down
    return np.where(np.isfinite(values), ndtri((rank + 0.5) / (len(ordered) + 1)) + beyond, 0.0)


OF_VECTORS = ("knn", "mahalanobis", "isolation_forest", "reconstruction")  # need nothing but vectors
OF_CLASSES = ("mahalanobis_classes", "mahalanobis_relative", "softmax", "energy")  # need labels of the reference
OF_COLUMNS = ("columns",)  # measured columns in place of vectors
OF_PICTURES = ("pixels",)  # the image quality of pictures (`science/quality`) in place of vectors
NAMES = (*OF_VECTORS, *OF_CLASSES, *OF_COLUMNS, *OF_PICTURES)


def detector(name: str, *, k: int = NEIGHBORS, seed: int = 0) -> Detector:
    """Return a detector by its name, one of `NAMES`, not fitted yet. Raises QueryError for another."""
    made: dict[str, Callable[[], Detector]] = {
        "knn": lambda: NeighborDistance(k),
        "mahalanobis": Mahalanobis,
        "isolation_forest": lambda: IsolationForest(seed=seed),
        "reconstruction": Reconstruction,
        "mahalanobis_classes": lambda: Mahalanobis("classes"),
        "mahalanobis_relative": lambda: Mahalanobis("relative"),
        "softmax": Softmax,
        "energy": Energy,
        "columns": MeasureDistance,
        "pixels": MeasureDistance,
    }
    if name not in made:
        raise QueryError(f"there is no detector {name!r:.40}, there are {', '.join(NAMES)}")
    return made[name]()


# ---- p-values


def p_values(held_out: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the conformal p-value of each score `(m,)`: (1 + held-out normals with at least that score) / (n + 1).

    Equal scores count as at least that, so that ties make p larger, never too small. Under the null, a new normal that
    is exchangeable with the n held out has P(p <= t) <= t (Vovk, Gammerman & Shafer 2005). A NaN has the p-value NaN.

    >>> p_values(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])).tolist()
    [1.0, 0.75, 0.25]
    """
    held_out, scores = np.asarray(held_out, np.float64), np.asarray(scores, np.float64)
    ordered = np.sort(held_out[np.isfinite(held_out) | np.isinf(held_out)])
    if not len(ordered):
        raise QueryError("none of the held-out normals has a score, so nothing can be compared with them; give normals")
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return np.where(np.isnan(scores), np.nan, (1 + above) / (len(ordered) + 1))


def split(count: int, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two parts of `range(count)`, drawn with a seed, each ascending: the first has about that share."""
    order = np.random.default_rng(seed).permutation(count)
    first = round(count * share)
    return np.sort(order[:first]), np.sort(order[first:])


def twice_the_mean(p: np.ndarray) -> np.ndarray:
    """Return one p-value for each row of several `(m, j)`, whatever their dependence: twice their mean, at most 1.

    Vovk & Wang 2020, Biometrika 107, 791. It is for p-values that come from elsewhere, as it never is below the mean:
    `Calibration` loses nothing where the scores of held-out normals are at hand. A row with a NaN is NaN.

    >>> twice_the_mean(np.array([[0.01, 0.03], [0.9, 0.9]])).tolist()
    [0.04, 1.0]
    """
    return np.minimum(2 * np.asarray(p, np.float64).mean(axis=1), 1.0)


@dataclass(frozen=True)
class Scale:
    """What a score is worth in nats: -log of the share of normals that reach it, with an exponential tail.

    Beyond `start`, which the share `TAIL` of the normals reaches, there are too few to count, and the mean excess over
    it, `excess`, says how the share goes on (peaks over a threshold with shape 0). It only orders and weighs: p-values
    come from `p_values`, whatever the tail.
    """

    ordered: np.ndarray = field(repr=False)
    start: float
    excess: float

    @classmethod
    def fit(cls, scores: np.ndarray) -> Scale:
        """Learn from scores of normals `(n,)`, NaN among them left out."""
        ordered = np.sort(scores[np.isfinite(scores)])
        if not len(ordered):
            raise QueryError("none of the held-out normals has a finite score; give normals that have vectors")
        start = float(np.quantile(ordered, 1 - TAIL))
        over = ordered[ordered > start] - start
        typical = float(np.ptp(ordered)) or 1.0
        return cls(ordered, start, float(over.mean()) if len(over) else typical)

    def nats(self, scores: np.ndarray) -> np.ndarray:
        """Return how surprising scores are, `(m,)`, 0 or more and never less for a larger score; NaN stays NaN."""
        share = (1 + len(self.ordered) - np.searchsorted(self.ordered, scores, "left")) / (len(self.ordered) + 1)
        tail = -np.log(TAIL) + np.clip(scores - self.start, 0, None) / self.excess
        inside = np.clip(-np.log(share), 0, -np.log(TAIL))
        return np.where(np.isnan(scores), np.nan, np.where(scores > self.start, tail, inside))


@dataclass(frozen=True)
class Judged:
    """What a calibration says of m objects: `surprise (m, j)` in nats by detector, `score (m,)` of all, p-values.

    `p_value (m,)` is that of the score, `p_values (m, j)` are those of each detector alone. `normals` is how many
    held-out normals gave them. An object that a detector has no score for (NaN) is judged by the others.
    """

    surprise: np.ndarray
    score: np.ndarray
    p_value: np.ndarray
    p_values: np.ndarray
    normals: int


@dataclass(frozen=True)
class Calibration:
    """How scores of several detectors become one p-value, learned from held-out normals.

    A third of them gives each detector its scale; what the detectors come to together (`combined`) is one more score,
    and the rest of the normals calibrates it as any other. So its p-value is valid whatever the dependence between the
    detectors, and it is not conservative as rules are that merge p-values.
    """

    scales: tuple[Scale, ...] = field(repr=False)
    scores: np.ndarray = field(repr=False)  # of the normals that calibrate, (n, j)
    together: np.ndarray = field(repr=False)  # what those come to, (n,)

    @classmethod
    def fit(cls, held_out: np.ndarray, *, seed: int = 0) -> Calibration:
        """Learn from the scores of held-out normals by several detectors, `(n, j)`. Raises QueryError for too few."""
        held_out = np.asarray(held_out, np.float64)
        if len(held_out) < LEAST_HELD_OUT:
            raise QueryError(
                f"{len(held_out)} held-out normals are too few for a p-value, at least {LEAST_HELD_OUT} are needed; "
                "give more normals"
            )
        to_scale, to_count = split(len(held_out), share=SCALED_SHARE, seed=seed)
        scales = tuple(Scale.fit(column) for column in held_out[to_scale].T)
        return cls(scales, held_out[to_count], combined(_surprises(scales, held_out[to_count])))

    def judge(self, scores: np.ndarray) -> Judged:
        """Return what scores by the same detectors `(m, j)` come to."""
        surprise = _surprises(self.scales, np.asarray(scores, np.float64))
        score = combined(surprise)
        each = [p_values(held, ours) for held, ours in zip(self.scores.T, np.asarray(scores).T, strict=True)]
        normals = int(np.isfinite(self.together).sum())
        return Judged(surprise, score, p_values(self.together, score), np.stack(each, axis=1), normals)


def _surprises(scales: tuple[Scale, ...], scores: np.ndarray) -> np.ndarray:
    return np.stack([scale.nats(column) for scale, column in zip(scales, scores.T, strict=True)], axis=1)


def combined(surprise: np.ndarray) -> np.ndarray:
    """Return what several detectors come to together, `(m,)` nats, of the surprise of each `(m, j)`.

    It is -log of the harmonic mean of their p-values (Wilson 2019, PNAS 116, 1195), over those that are there: one
    detector that is sure outweighs others that see nothing, and those that agree add to each other. A row without any
    is NaN. It orders; that it is no p-value by itself does not matter, as normals calibrate it.
    """
    from scipy.special import logsumexp

    there = np.isfinite(surprise)
    some = there.any(axis=1)
    result = np.full(len(surprise), np.nan)
    exponents = np.where(there, surprise, -np.inf)[some]
    result[some] = logsumexp(exponents, axis=1) - np.log(there[some].sum(axis=1))
    return result


# ---- lists


def q_values(p: np.ndarray, *, rule: str = "bh") -> np.ndarray:
    """Return q-values `(m,)`: the false discovery rate of the list that ends with each object, ordered by p-value.

    "bh" (Benjamini & Hochberg 1995, JRSS B 57, 289) holds for conformal p-values that share their normals, which are
    positively dependent (PRDS: Bates et al. 2023, Annals of Statistics 51, 149); "by" (Benjamini & Yekutieli 2001,
    Annals of Statistics 29, 1165) whatever the dependence, at a price of 1 + 1/2 + … + 1/m. NaN is no test, and stays.
    Raises QueryError for another rule, and for a number that is no probability.
    """
    p = np.asarray(p, np.float64)
    there = np.flatnonzero(~np.isnan(p))
    if rule not in ("bh", "by"):
        raise QueryError(f"rule is {rule!r:.40}, expected bh or by")
    if len(there) and not (p[there].min() >= 0 and p[there].max() <= 1):
        raise QueryError("p-values are probabilities, 0 to 1; give those of `p_values`")
    result = np.full(len(p), np.nan)
    count = len(there)
    order = there[np.argsort(p[there], kind="stable")]
    price = float((1 / np.arange(1, count + 1)).sum()) if rule == "by" else 1.0
    raw = p[order] * count * price / np.arange(1, count + 1)
    result[order] = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    return result


CANDIDATE, NEAR_MISS, NORMAL = "candidate", "near-miss", "normal"
TIERS = (CANDIDATE, NEAR_MISS, NORMAL)
HALF = 0.5  # a list down to this q-value is expected to be right as often as wrong: what is beyond is not worth a look


def tiers(q: np.ndarray, *, fdr: float) -> np.ndarray:
    """Return the tier of each q-value: candidate up to `fdr`, near-miss up to 0.5 (or fdr, if larger), else normal.

    A list of all candidates has the false discovery rate `fdr`; one that goes on through the near-misses is expected to
    be right at least half the time. Where there is no p-value (NaN) there is no tier: None.
    """
    q = np.asarray(q, np.float64)
    named = np.full(len(q), None, object)
    named[~np.isnan(q)] = NORMAL
    named[q <= max(HALF, fdr)] = NEAR_MISS
    named[q <= fdr] = CANDIDATE
    return named


def folds(count: int, *, parts: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (inside, outside) row numbers of each of `parts` equal folds of `range(count)`, drawn with a seed."""
    number = np.random.default_rng(seed).permutation(count) % parts
    for part in range(parts):
        yield np.flatnonzero(number == part), np.flatnonzero(number != part)
