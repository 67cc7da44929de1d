"""What galsearch sees for itself: crops, measures, and what marked examples teach; and which of it to believe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from galsearch.errors import QueryError
from galsearch.query import Query
from galsearch.rerank import attributes, probe, validated
from galsearch.rerank.attributes import Attribute
from galsearch.rerank.observe import Objects, Observer
from galsearch.rerank.order import LEAST_MARKS, Marks, Pool, Reranked
from galsearch.retrieval import Result
from galsearch.store import Store
from galsearch.zeroshot import read

CROPS, MEASURED, PROBED = "score_crops", "score_measured", "score_probe"
LEARNED = ("whole", "close", "core")  # scales that a probe learns from


def by_sight(
    pool: Pool,
    observer: Observer,
    query: Query,
    marks: Marks,
    *,
    k: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Result, Reranked]:
    """Return the first k hits in a better order, by what galsearch can see for itself, and what was done.

    `progress(done, total, what)` is called between the steps. Raises QueryError where the atlas has no pictures to look
    at and too little is marked.
    """
    started = time.perf_counter()
    tell = progress or (lambda done, total, what: None)
    tell(0, 3, "comparing with a sample of the atlas")
    if not marks.enough and not observer.has_pictures:
        raise QueryError(
            f"{pool.store.path} has no pictures, and without them nothing can be looked at again; build it from "
            f"pictures, or mark {LEAST_MARKS} or more examples of what you want and of what you do not want"
        )
    tell(1, 3, "choosing how to rank")
    way = choose(Sight(pool.store, observer, query, pool.result), observer, marks)
    result = pool.result[:k]
    if not way.kept:
        tell(2, 3, f"looking at {len(pool.result.rows):,} images again")
        stated = way.parts(observer.rows(pool.result.rows[pool.movable]))
        parts = {name: _spread(values, pool) for name, values in stated.items()}
        result = pool.ordered(pool.base + sum(parts.values()), parts, k)
    report = Reranked(
        "local",
        way.kept,
        len(pool.base),
        way.weights,
        way.right_before,
        way.right_after,
        tuple(way.statements),
        seconds=time.perf_counter() - started,
    )
    return result, report


def _spread(values: np.ndarray, pool: Pool) -> np.ndarray:
    out = np.full(len(pool.base), np.nan)
    out[pool.movable] = values
    return out


class Sight:
    """What was asked, as something that objects can be compared with: scorer, attributes, weights."""

    def __init__(self, store: Store, observer: Observer, query: Query, result: Result) -> None:
        assert result.scorer is not None  # a pool has no other answers
        self.scorer, self.sample, self.has_pictures = result.scorer, observer.sample, observer.has_pictures
        self.usual = store.reference_scores(observer.embedding, result.scorer)
        texts = [term.text for term in query.terms if term.kind == "text" and term.weight > 0]
        named = {each.name for text in texts for each in attributes.requested(read(store, text))}
        self.attributes: tuple[Attribute, ...] = tuple(each for each in attributes.ATTRIBUTES if each.name in named)
        model = store.manifest.embeddings[observer.embedding].get("sha256")
        self.weights = validated.weights([each.name for each in self.attributes], model=model)

    def base(self, objects: Objects) -> np.ndarray:
        """Return the scores of the search in standard deviations, `(n,)`."""
        return probe.standard(self.scorer.exact(objects.vectors), self.usual)

    def parts(self, objects: Objects) -> dict[str, np.ndarray]:
        """Return what crops and measures add to the scores, `(n,)` each; a part without weight is not there."""
        result: dict[str, np.ndarray] = {}
        if self.has_pictures and any(self.weights.looks.values()):
            looks = (
                weight * probe.standard(self.scorer.exact(objects.look(scale)), self.usual)
                for scale, weight in self.weights.looks.items()
                if weight
            )
            result[CROPS] = sum(looks, np.zeros(len(objects)))
        answers = [
            stated
            for each in self.attributes
            if self.weights.measures.get(each.name) and (stated := self._match(each, objects)) is not None
        ]
        if answers:
            result[MEASURED] = np.sum(answers, axis=0)
        return result

    def _match(self, attribute: Attribute, objects: Objects) -> np.ndarray | None:
        stated = attributes.match(attribute, objects.measures, self.sample.measures)
        return None if stated is None else self.weights.measures[attribute.name] * stated


# ---- choosing a way


@dataclass
class Way:
    """A way of ranking: what it adds, its weights, and how it did on the marks."""

    parts: Callable[[Objects], dict[str, np.ndarray]]
    weights: dict[str, float]
    statements: list[str]
    kept: bool = False
    right_before: float | None = None
    right_after: float | None = None


def choose(sight: Sight, observer: Observer, marks: Marks) -> Way:
    """Return the way that marks prefer; without enough of them, the one that was validated."""
    plain = Way(sight.parts, sight.weights.shown, sight.weights.statements)
    plain.kept = not plain.weights
    if not marks.enough:
        if marks.terms:
            plain.statements.append(
                f"{len(marks.positives)} positive and {len(marks.negatives)} negative marks are too few to learn from: "
                f"mark {LEAST_MARKS} or more of each"
            )
        return plain
    return _judged(sight, observer.terms(marks.terms), marks.good, plain)


def _judged(sight: Sight, marked: Objects, good: np.ndarray, plain: Way) -> Way:
    """Return the way that orders the most pairs of marks rightly, each judged without its own pair; the search's own
    order where none is better."""
    features = _features(marked)
    learned = probe.Probe(features, good, _features(sight.sample), _toward(sight))
    before = sight.base(marked)
    fixed = before + sum(sight.parts(marked).values())
    weight = validated.probe_weight(len(good))

    def unseen(*pair: int) -> np.ndarray:
        both = list(pair)
        return fixed[both] + weight * learned.scores(features[both], without=both)

    shares = {
        "before": probe.right(good, lambda *pair: before[list(pair)]),
        "plain": probe.right(good, lambda *pair: fixed[list(pair)]),
        "probe": probe.right(good, unseen),
    }
    best = max(("before", "plain", "probe"), key=lambda name: round(shares[name], 9))  # of equal ones the first
    way = plain if best == "plain" else _probed(sight, learned, weight, plain)
    pairs = len(list(probe.pairs(good)))
    told = (
        f"{pairs} pairs of marks, each judged without itself: {shares['before']:.0%} in the right order before, "
        f"{shares['plain']:.0%} by crops and measures, {shares['probe']:.0%} with a probe of the marks"
    )
    end = "so the order is that of the search" if best == "before" else f"so {NAMED[best]} decide"
    stated = [] if best == "before" else way.statements
    weights = {} if best == "before" else way.weights
    return Way(way.parts, weights, [*stated, f"{told}, {end}"], best == "before", shares["before"], shares[best])


NAMED = {"plain": "crops and measures", "probe": "crops, measures and the probe"}


def _probed(sight: Sight, learned: probe.Probe, weight: float, plain: Way) -> Way:
    def parts(objects: Objects) -> dict[str, np.ndarray]:
        return {**sight.parts(objects), PROBED: weight * learned.scores(_features(objects))}

    return Way(parts, {**plain.weights, "probe": weight}, plain.statements)


def _features(objects: Objects) -> np.ndarray:
    """Return the looks of objects side by side, `(n, scales * d) float64` of unit length."""
    return np.concatenate([objects.look(scale) for scale in LEARNED], axis=1).astype(np.float64) / np.sqrt(len(LEARNED))


def _toward(sight: Sight) -> np.ndarray:
    return np.tile(sight.scorer.vector.astype(np.float64), len(LEARNED))
