"""What was asked, as plain data: terms with weights, cuts, and how hard to look.

A `Query` knows nothing of engines. It travels as JSON, which is what a permalink, a log line or a test case holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from galsearch.errors import QueryError
from galsearch.science.sky import check_position

KINDS = ("text", "object", "image", "embedding")
COMBINE = ("mean", "max")
FUSE = ("rank", "sum")
MAX_K = 100_000  # more rows than this are a table, not an answer: that is what sql() is for


@dataclass(frozen=True)
class Term:
    """One thing to look like: `kind` says how `value` is read, `weight` how much it counts (negative: unlike it).

    `text` holds words, `object` an object_id, `image` the path of a picture, `embedding` a tuple of d floats.
    """

    kind: str
    value: str | tuple[float, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise QueryError(f"term kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not isinstance(self.value, tuple if self.kind == "embedding" else str):
            raise QueryError(f"{self.kind} term is {self.value!r:.80}, expected text, or numbers for an embedding")
        if not _is_number(self.weight) or not math.isfinite(self.weight) or self.weight == 0:
            raise QueryError(f"weight of {self.label} is {self.weight!r}, expected a finite number other than 0")
        object.__setattr__(self, "weight", float(self.weight))
        if self.kind == "text" and not self.value.strip():
            raise QueryError("the text is empty; say what to look for, or leave the words out to list by SQL alone")

    @property
    def label(self) -> str:
        """The term as a person would name it."""
        return "embedding" if self.kind == "embedding" else f"{self.kind} {self.value!r}"


@dataclass(frozen=True)
class Query:
    """A whole question. No terms means: list what passes the cuts, ordered by object_id.

    `near` is (ra, dec) in degrees ICRS and needs `radius_arcsec`, which is inclusive. `probes` is how many cells of
    the index to visit (None: chosen by the planner for the wished `recall`), `exact` visits all of them. `combine`
    says how several terms add up: "mean" of their vectors by weight, or "max", like the closest of them. `distinct`
    leaves out duplicates of objects found before. `hybrid` lets words match captions and names too: "rank" fuses the
    two rankings, "sum" adds calibrated scores.
    """

    terms: tuple[Term, ...] = ()
    where: str | None = None
    near: tuple[float, float] | None = None
    radius_arcsec: float | None = None
    k: int = 12
    exact: bool = False
    probes: int | None = None
    recall: float | None = None
    combine: str = "mean"
    distinct: bool = False
    hybrid: str | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.k) or not 1 <= self.k <= MAX_K:
            raise QueryError(f"k is {self.k!r}, expected a whole number from 1 to {MAX_K}")
        object.__setattr__(self, "k", int(self.k))
        self._check_probes()
        if self.where is not None and not (isinstance(self.where, str) and self.where.strip()):
            raise QueryError(f'where is {self.where!r}, expected a SQL condition such as "z < 0.1", or nothing')
        self._check_cone()

    def _check_probes(self) -> None:
        if self.combine not in COMBINE:
            raise QueryError(f"combine is {self.combine!r}, expected one of {', '.join(COMBINE)}")
        if self.hybrid is not None and self.hybrid not in FUSE:
            raise QueryError(f"hybrid is {self.hybrid!r}, expected nothing or one of {', '.join(FUSE)}")
        if self.recall is not None and not (_is_number(self.recall) and 0 < self.recall <= 1):
            raise QueryError(f"recall is {self.recall!r}, expected a share above 0, up to 1, such as 0.99")
        if self.probes is None:
            return
        if not _is_whole(self.probes) or self.probes < 1:
            raise QueryError(
                f"probes is {self.probes!r}, expected a whole number from 1, or nothing to let the planner choose"
            )
        object.__setattr__(self, "probes", int(self.probes))

    def _check_cone(self) -> None:
        if (self.near is None) != (self.radius_arcsec is None):
            given, absent = ("near", "radius_arcsec") if self.near is not None else ("radius_arcsec", "near")
            raise QueryError(f"{given} needs {absent}: a cone on the sky has a center in degrees and a radius")
        if self.near is None:
            return
        near = tuple(self.near) if isinstance(self.near, (tuple, list, np.ndarray)) else ()
        if len(near) != 2 or not all(_is_number(part) for part in near):
            raise QueryError(f"near is {self.near!r}, expected (ra, dec): two numbers, degrees ICRS")
        ra, dec = check_position(*near)
        object.__setattr__(self, "near", (float(ra), float(dec)))
        if not (_is_number(self.radius_arcsec) and 0 <= self.radius_arcsec <= 180 * 3600):  # false for NaN too
            raise QueryError(f"radius_arcsec is {self.radius_arcsec!r}, expected 0 to 648000 (180 degrees)")
        object.__setattr__(self, "radius_arcsec", float(self.radius_arcsec))

    def to_json(self) -> str:
        """Return the query as JSON; `Query.from_json` gives back an equal one."""
        return json.dumps({**asdict(self), "terms": [asdict(term) for term in self.terms]})

    @classmethod
    def from_json(cls, text: str) -> Query:
        """Rebuild a query; QueryError when the text is not one."""
        try:
            values = json.loads(text)
            terms = tuple(Term(t["kind"], _value(t["value"]), t["weight"]) for t in values.pop("terms"))
            return cls(terms=terms, **values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise QueryError(f"this is not a saved query ({error}); write it with Query.to_json()") from None

    def formula(self) -> str:
        """Return the terms as a sum, such as `text 'spiral' - 0.5 text 'bar'`."""
        parts = []
        for term in self.terms:
            size = abs(term.weight)
            sign = "-" if term.weight < 0 else "+"
            parts.append(f"{sign} {'' if size == 1 else f'{size:g} '}{term.label}")
        joined = " ".join(parts).removeprefix("+ ")
        return f"the closest of {joined}" if self.combine == "max" and len(parts) > 1 else joined


def _value(value: str | list[float]) -> str | tuple[float, ...]:
    return value if isinstance(value, str) else tuple(float(part) for part in value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


@dataclass
class Plan:
    """How a search was answered.

    `path` is "exact", "ivf" or "list" (no terms); `matches` counts the objects that pass the cuts; `rows_scanned`
    the vectors compared; `exact` is True when no better row can exist.
    """

    path: str
    matches: int
    rows_scanned: int
    exact: bool
    cells_probed: int | None = None
    cells: int | None = None
    provider: str | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        cells = f", {self.cells_probed} of {self.cells} cells" if self.path == "ivf" else ""
        stages = ", ".join(f"{name} {value:.1f} ms" for name, value in self.milliseconds.items())
        kind = "exact" if self.exact else "approximate"
        return f"{self.path}: {self.matches} matches{cells}, {self.rows_scanned} rows scanned, {kind}; {stages}"


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


def combine(terms: Sequence[Term], embed: Callable[[Term], np.ndarray]) -> np.ndarray:
    """Return the weighted sum of the terms' unit vectors, brought to unit length, `(d,) float32`.

    Raises QueryError when the terms cancel out or are of different lengths.
    """
    parts = [term.weight * embed(term).astype(np.float64) for term in terms]
    if len({part.shape for part in parts}) > 1:
        said = ", ".join(f"{term.label:.40} has {len(part)}" for term, part in zip(terms, parts, strict=True))
        raise QueryError(f"the terms have different lengths ({said}); only vectors of one model can be added")
    return unit(np.sum(parts, axis=0))


def unit(vector: np.ndarray) -> np.ndarray:
    """Return `vector` at unit length as `(d,) float32`; QueryError when it is zero or not finite."""
    length = float(np.linalg.norm(np.asarray(vector, dtype=np.float64)))
    if not math.isfinite(length) or length < 1e-9:
        raise QueryError(
            f"the query vector has length {length:g}: its terms cancel out or hold NaN; change a term or a weight"
        )
    return (np.asarray(vector, dtype=np.float64) / length).astype(np.float32)


RANK_OFFSET = 60  # Cormack, Clarke & Büttcher 2009 (SIGIR, 758): large, so that two good ranks beat one best
NEGLIGIBLE = 0.25  # share of what is attainable
SMALLEST = 1e-12  # what is smaller is no spread of scores and no sum of weights
FULL_MATCH = 6.0  # in standard deviations; the best of a million random scores lies 5 above their mean


def fuse(
    vector: np.ndarray,
    word: np.ndarray,
    *,
    method: str,
    background: np.ndarray | None = None,
    attainable: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (order, scores) of candidates by two lists of scores, `(n,)` each, NaN where one is not in that list.

    `scores (n,) float64` is the sum of the two parts that `fusion_parts` explains, and `order (n,) int64` names the
    candidates best first; equal ones by vector, then by word, then as given. One that is at least as good in both
    lists is never behind.
    """
    by_vector, by_word = fusion_parts(vector, word, method=method, background=background, attainable=attainable)
    scores = by_vector + by_word
    return np.lexsort((-np.asarray(word), -np.asarray(vector), -scores)), scores  # NaN comes last


def fusion_parts(
    vector: np.ndarray,
    word: np.ndarray,
    *,
    method: str,
    background: np.ndarray | None = None,
    attainable: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the vector and the words add to the score of each candidate, `(n,) float64` each, never NaN.

    "rank": half of 61 / (60 + rank), rank 1 being the best and shared by equals; 0 without a rank. This is reciprocal
    rank fusion, scaled so that the first of both lists has 1. A word score under NEGLIGIBLE of what is `attainable`
    has no rank: a whole catalog shares the PGC of "PGC 212", and the Whale Galaxy one word of "edge-on galaxy".
    "sum": how many standard deviations the vector score lies above the mean of `background`, scores of the query with
    a sample of the atlas, plus FULL_MATCH times the square of the share that the word score has of `attainable`: half
    of what was asked is worth a quarter. Without a word that share is 0; without a vector score the part is 0, that of
    an ordinary object, or the least of the others if that is lower.
    """
    vector, word = np.asarray(vector, np.float64), np.asarray(word, np.float64)
    if method == "rank":
        return _by_rank(vector), _by_rank(np.where(word < NEGLIGIBLE * attainable, np.nan, word))
    if method == "sum":
        return _above(vector, background), FULL_MATCH * _share(word, attainable) ** 2
    raise QueryError(f"the method of fusion is {method!r}, expected one of {', '.join(FUSE)}")


def _by_rank(scores: np.ndarray) -> np.ndarray:
    there = np.sort(scores[~np.isnan(scores)])
    rank = 1 + len(there) - np.searchsorted(there, scores, side="right")
    return np.where(np.isnan(scores), 0.0, 0.5 * (RANK_OFFSET + 1) / (RANK_OFFSET + rank))


def _above(scores: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """Return the scores in standard deviations of the background above its mean; as they are without one."""
    sample = np.asarray(() if background is None else background, np.float64)
    mean, spread = (sample.mean(), sample.std()) if len(sample) else (0.0, 1.0)
    sigmas = (scores - mean) / (spread if spread > SMALLEST else 1.0)
    least = np.min(sigmas, where=~np.isnan(sigmas), initial=0.0)
    return np.where(np.isnan(sigmas), least, sigmas)


def _share(scores: np.ndarray, attainable: float) -> np.ndarray:
    """Return the scores relative to what is attainable, or to the largest where that is not known; 0 for NaN."""
    whole = attainable or np.max(scores, where=~np.isnan(scores), initial=0.0)
    return np.where(np.isnan(scores), 0.0, scores / (whole if whole > SMALLEST else 1.0))
