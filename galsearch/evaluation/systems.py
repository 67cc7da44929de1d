"""What is measured: the scores of queries in words, and of baselines on the same candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from galsearch.atlas import Atlas
from galsearch.evaluation.judged import Judged
from galsearch.science.metrics import Ranked
from galsearch.science.ranking import Scorer
from galsearch.store import Store
from galsearch.store.index.fulltext import K1, B

MOST_EXAMPLES = 100  # relevant objects that are queries by example
PENALTIES = 10.0 ** np.arange(-5, 3)  # of the linear probe, as shares of the mean eigenvalue
TEXT, FIRST, RANDOM, IMAGE, CENTROID, WORDS, PROBE = (
    *("text", "first query", "random", "image", "centroid", "captions BM25", "linear probe"),
)


@dataclass
class System:
    """What ranks the candidates: one or more rankings, by the words or object that each of them was asked with.

    `left_out` is the candidate that a ranking must not find, because it is the query.
    """

    name: str
    rankings: list[Ranked]
    queries: list[str]
    left_out: list[int] | None = None


def text_systems(atlas: Atlas, judged: Judged) -> list[System]:
    requested = list(judged.target.queries)
    rankings = [Ranked(Scorer(atlas.embed(words)).exact(judged.vectors), judged.relevance) for words in requested]
    return [System(TEXT, rankings, requested), System(FIRST, rankings[:1], requested[:1])]


def baselines(store: Store, judged: Judged, fold: np.ndarray, seed: int) -> Iterator[System]:
    """Yield the systems that words are compared with; one that cannot be made for these candidates is not there."""
    yield System(RANDOM, [Ranked(np.zeros(len(judged.rows)), judged.relevance)], [""])
    if judged.relevant.sum() > 1:
        yield _by_example(judged, seed)
    for name, scored in ((CENTROID, centroid_scores), (PROBE, probe_scores)):
        scores = scored(judged.vectors, judged.relevant, fold)
        if scores is not None:
            yield System(name, [Ranked(scores, judged.relevance)], [""])
    words = caption_scores(store, judged.rows, judged.target.queries)
    if words is not None:
        yield System(WORDS, [Ranked(scores, judged.relevance) for scores in words], list(judged.target.queries))


def _by_example(judged: Judged, seed: int) -> System:
    """Return the rankings by likeness to relevant objects, at most MOST_EXAMPLES, each leaving its query out."""
    relevant = np.flatnonzero(judged.relevant)
    chosen = np.random.default_rng(seed).permutation(relevant)[:MOST_EXAMPLES].tolist()
    rankings = [Ranked(Scorer(judged.vectors[one]).exact(judged.vectors), judged.relevance) for one in chosen]
    return System(IMAGE, rankings, [judged.ids[one] for one in chosen], chosen)


def centroid_scores(vectors: np.ndarray, relevant: np.ndarray, fold: np.ndarray) -> np.ndarray | None:
    """Return the cosine of each vector with the mean of the relevant ones of all other folds, `(n,) float64`.

    None where the folds but one leave nothing relevant.
    """
    scores = np.empty(len(vectors))
    for number in np.unique(fold):
        held = fold == number
        made_from = vectors[relevant & ~held].astype(float)
        if not len(made_from):
            return None
        mean = made_from.mean(axis=0)
        scores[held] = vectors[held] @ (mean / max(np.linalg.norm(mean), 1e-12))
    return scores


def probe_scores(vectors: np.ndarray, relevant: np.ndarray, fold: np.ndarray) -> np.ndarray | None:
    """Return what a linear probe fitted on all other folds says of each vector, `(n,) float64`.

    Ridge regression of ±1 on the centered vectors, both classes weighing the same. The penalty is the one of PENALTIES
    with the least generalized cross-validation error on those other folds (Golub, Heath and Wahba 1979, Technometrics
    21, 215), so that no object has a part in what scores it. None where they lack a class.
    """
    scores = np.empty(len(vectors))
    for number in np.unique(fold):
        held = fold == number
        labels = relevant[~held]
        if labels.all() or not labels.any():
            return None
        scores[held] = _fitted(vectors[~held].astype(float), labels)(vectors[held].astype(float))
    return scores


def _fitted(vectors: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    center = weights @ vectors
    root = np.sqrt(weights)[:, None]
    design, wanted = root * (vectors - center), root[:, 0] * np.where(labels, 1.0, -1.0)
    values, basis = np.linalg.eigh(design.T @ design)
    values = np.maximum(values, 0)
    projected = basis.T @ (design.T @ wanted)
    best, least = np.zeros(len(center)), np.inf
    for penalty in PENALTIES * values.mean():
        solved = projected / (values + penalty)
        residual = wanted - design @ (basis @ solved)
        freedom = 1 - (values / (values + penalty)).sum() / len(labels)
        error = residual @ residual / max(freedom, 1e-9) ** 2
        if error < least:
            best, least = basis @ solved, error
    return lambda rows: (rows - center) @ best


def caption_scores(store: Store, rows: np.ndarray, queries: Sequence[str]) -> list[np.ndarray] | None:
    """Return the BM25 of the captions of row numbers for each query, `(n,) float64`; None where nothing has a caption.

    Captions alone, not names or other columns, which may hold the very labels that relevance is read from; otherwise as
    `galsearch.store.index.fulltext`. Several captions of an object count as one text.
    """
    lengths, holders = _spread(store.caption_terms())
    if not lengths:
        return None
    mean, index = sum(lengths.values()) / len(lengths), {row: number for number, row in enumerate(rows.tolist())}
    result = []
    for query in queries:
        terms = store.terms_of(query)
        scores = np.zeros(len(rows))
        for term in sorted(terms & holders.keys()):
            worth = np.log(1 + (len(lengths) - len(holders[term]) + 0.5) / (len(holders[term]) + 0.5))
            for row, times in holders[term].items():
                if row in index:
                    long = K1 * (1 - B + B * lengths[row] / mean)
                    scores[index[row]] += worth * times * (K1 + 1) / (times + long)
        result.append(scores)
    return result


def _spread(counted: list[tuple[int, str, int]]) -> tuple[dict[int, int], dict[str, dict[int, int]]]:
    """Return how many terms each row has, and which rows have a term how often."""
    lengths: dict[int, int] = {}
    holders: dict[str, dict[int, int]] = {}
    for row, term, times in counted:
        lengths[row] = lengths.get(row, 0) + times
        holders.setdefault(term, {})[row] = times
    return lengths, holders


def names(systems: Sequence[System]) -> list[str]:
    """Return the names of systems."""
    return [system.name for system in systems]
