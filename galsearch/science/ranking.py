"""Scores of rows: sums of unit vectors, inner products with them, and the fusion of several rankings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from galsearch.errors import QueryError

FUSE = ("rank", "sum")
RANK_OFFSET = 60  # Cormack, Clarke & Büttcher 2009 (SIGIR, 758): large, so that two good ranks beat one best
NEGLIGIBLE = 0.25  # share of what is attainable
SMALLEST = 1e-12  # what is smaller is no spread of scores and no sum of weights
FULL_MATCH = 6.0  # in standard deviations; the best of a million random scores lies 5 above their mean


class Scorer:
    """How a row is compared with what was asked: the inner product with a unit vector, or a fold of several.

    `vector` is `(d,) float32`. With `either`, `(m, d) float32`, the score is the largest of the inner products with its
    rows, plus the inner product with `vector`.
    """

    def __init__(self, vector: np.ndarray, *, either: np.ndarray | None = None) -> None:
        self.vector = np.ascontiguousarray(vector, np.float32)
        self.either = None if either is None else np.ascontiguousarray(either, np.float32)
        self.dim = len(self.vector)

    def of(self, block: np.ndarray) -> np.ndarray:
        """Return the scores `(n,) float32` of the rows of `block`, `(n, d) float32`."""
        return self.through(lambda vector: np.vecdot(block, vector))  # one thread: waking others takes longer

    def through(self, products: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the scores of rows, given what returns their inner products `(n,) float32` with a vector."""
        if self.either is None:
            return products(self.vector)
        return products(self.vector) + np.max([products(one) for one in self.either], axis=0)

    def exact(self, block: np.ndarray) -> np.ndarray:
        """Return the scores `(n,) float64`, each independent of the other rows.

        A matrix product is not: equal vectors would get scores that differ in the last bit.
        """
        wide = block.astype(np.float64)
        scores = (wide * self.vector.astype(np.float64)).sum(axis=1)
        if self.either is not None:
            scores += np.max([(wide * one).sum(axis=1) for one in self.either.astype(np.float64)], axis=0)
        return scores


def combine(vectors: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Return the sum of unit vectors `(d,)` by weight, brought to unit length, `(d,) float32`.

    Raises QueryError when they cancel out.
    """
    parts = [weight * vector.astype(np.float64) for vector, weight in zip(vectors, weights, strict=True)]
    return unit(np.sum(parts, axis=0))


def unit(vector: np.ndarray) -> np.ndarray:
    """Return `vector` at unit length as `(d,) float32`; QueryError when it is zero or not finite."""
    length = float(np.linalg.norm(np.asarray(vector, dtype=np.float64)))
    if not math.isfinite(length) or length < 1e-9:
        raise QueryError(
            f"the query vector has length {length:g}: its terms cancel out or hold NaN; change a term or a weight"
        )
    return (np.asarray(vector, dtype=np.float64) / length).astype(np.float32)


@dataclass(frozen=True)
class Similarities:
    """What one embedding says of candidates: cosines `(n,)`, NaN without a vector.

    `reference` are the scores of the same query with a sample of the atlas, by which "sum" calibrates them.
    """

    values: np.ndarray
    reference: np.ndarray | None = None

    def part(self, method: str) -> np.ndarray:
        """Return what they add to the fused score of each candidate, `(n,) float64`, never NaN; see `fuse`."""
        values = np.asarray(self.values, np.float64)
        return _by_rank(values) if method == "rank" else _above(values, self.reference)


@dataclass(frozen=True)
class WordScores:
    """What full text says of candidates: BM25 `(n,)`, NaN for those without a word of the query.

    `attainable` is the score of an object that would hold every word as well as any does; 0 where it is not known.
    """

    values: np.ndarray
    attainable: float = 0.0

    def part(self, method: str) -> np.ndarray:
        """Return what they add to the fused score of each candidate, `(n,) float64`, never NaN; see `fuse`."""
        values = np.asarray(self.values, np.float64)
        if method == "rank":
            return _by_rank(np.where(values < NEGLIGIBLE * self.attainable, np.nan, values))
        return FULL_MATCH * _share(values, self.attainable) ** 2


def fuse(rankings: Sequence[Similarities | WordScores], *, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (order, scores) of candidates by several rankings of them.

    `scores (n,) float64` is the sum of the parts that `fusion_parts` returns, and `order (n,) int64` names the
    candidates best first; equal ones by the first ranking, then by the next, then as given. One that is at least as
    good in all rankings is never behind.
    """
    scores = np.sum(fusion_parts(rankings, method=method), axis=0)
    ties = [-np.asarray(one.values) for one in reversed(rankings)]
    return np.lexsort((*ties, -scores)), scores  # NaN comes last


def fusion_parts(rankings: Sequence[Similarities | WordScores], *, method: str) -> list[np.ndarray]:
    """Return what each of n rankings adds to the score of each candidate, `(n,) float64` each, never NaN.

    "rank": 1 / n of 61 / (60 + rank), rank 1 being the best and shared by equals; 0 without a rank. This is reciprocal
    rank fusion, scaled so that the first of all lists has 1. A word score under NEGLIGIBLE of what is `attainable`
    has no rank: a whole catalog shares the PGC of "PGC 212", and the Whale Galaxy one word of "edge-on galaxy".
    "sum": how many standard deviations a cosine lies above the mean of `reference`, scores of the query with a sample
    of the atlas; for words FULL_MATCH times the square of the share that the word score has of `attainable`: half of
    what was asked is worth a quarter. Without a word that share is 0; without a vector the part is 0, that of an
    ordinary object, or the least of the others if that is lower.
    """
    if method not in FUSE:
        raise QueryError(f"the method of fusion is {method!r}, expected one of {', '.join(FUSE)}")
    weight = 1 / len(rankings) if method == "rank" else 1.0
    return [weight * one.part(method) for one in rankings]


def _by_rank(scores: np.ndarray) -> np.ndarray:
    there = np.sort(scores[~np.isnan(scores)])
    rank = 1 + len(there) - np.searchsorted(there, scores, side="right")
    return np.where(np.isnan(scores), 0.0, (RANK_OFFSET + 1) / (RANK_OFFSET + rank))


def _above(scores: np.ndarray, reference: np.ndarray | None) -> np.ndarray:
    """Return the scores in standard deviations of the reference above its mean; as they are without one."""
    sample = np.asarray(() if reference is None else reference, np.float64)
    mean, spread = (sample.mean(), sample.std()) if len(sample) else (0.0, 1.0)
    sigmas = (scores - mean) / (spread if spread > SMALLEST else 1.0)
    least = np.min(sigmas, where=~np.isnan(sigmas), initial=0.0)
    return np.where(np.isnan(sigmas), least, sigmas)


def _share(scores: np.ndarray, attainable: float) -> np.ndarray:
    """Return the scores relative to what is attainable, or to the largest where that is not known; 0 for NaN."""
    whole = attainable or np.max(scores, where=~np.isnan(scores), initial=0.0)
    return np.where(np.isnan(scores), 0.0, scores / (whole if whole > SMALLEST else 1.0))
