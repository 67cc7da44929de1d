"""Learning from verdicts: predicted interest of all objects, and whom to judge next and why.

A probe is fitted anew from the verdicts at every call: 50 of them take some 20 ms, and 100,000 vectors less than a
second. What does not depend on verdicts, a sample of the atlas and its whitening, is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from galsearch import formats, schema
from galsearch.discovery.anomalies import saved_anomalies
from galsearch.discovery.results import placeless, with_catalog
from galsearch.discovery.verdicts import LABEL, NO, UNSURE, YES, Verdict
from galsearch.errors import QueryError
from galsearch.science.interest import Choice, Interest, Whitening, choose, information, probability, value
from galsearch.store import Store

REFERENCE = 5_000  # objects that whitening is learned from; more of them change it little
ORDINARY = 300  # of them, that stand in for negatives nobody judged; 1,000 are no better, benchmarks/learning.py
BLOCK_ROWS = 16_384  # vectors read at a time
CANDIDATES = 2_000  # of the most valuable, among whom a queue is chosen
LIKELY = 0.5
SIGMAS_95 = 1.96  # of a logit, for its interval of 95 %; the mean probability may lie outside of a narrower one
MOST_K = 10_000
WANTED = {YES: 1.0, NO: 0.0, UNSURE: 0.5}


@dataclass(frozen=True)
class Sample:
    """A sample of the vectors of an atlas in one embedding, and the axes in which they do not correlate."""

    embedding: str
    vectors: np.ndarray
    whitening: Whitening

    @classmethod
    def draw(cls, store: Store, embedding: str, *, seed: int = 0) -> Sample:
        """Draw it. Raises QueryError where too few objects have a vector."""
        rows, _ = store.listed(store.condition(None, None, None), k=max(store.manifest.rows, 1))  # by object_id
        rows = rows[store.has_vector(embedding, rows)]
        if len(rows) < 2:
            raise QueryError(f"{len(rows)} objects of {store.path} have a vector in '{embedding}'; two are needed")
        chosen = np.random.default_rng(seed).permutation(rows)[:REFERENCE]
        vectors = store.vectors_of(embedding, chosen).astype(np.float64)
        vectors = vectors[np.isfinite(vectors).all(axis=1)]
        return cls(embedding, vectors, Whitening.fit(vectors))


@dataclass(frozen=True)
class Task:
    """What is ranked: verdicts of one kind, the direction to start from, a saved list of anomalies, filters."""

    verdicts: Sequence[Verdict]
    kind: str
    label: str | None = None
    start: np.ndarray | None = None
    novelty: str | bool | None = None
    where: str | None = None
    near: tuple[float, float] | None = None
    radius_arcsec: float | None = None
    k: int = 50

    def check(self) -> Task:
        """Return it. Raises QueryError for what cannot be ranked."""
        whole = isinstance(self.k, (int, np.integer)) and not isinstance(self.k, bool)
        if not whole or not 1 <= self.k <= MOST_K:
            raise QueryError(f"k is {self.k!r:.40}, expected how many to list, 1 to {MOST_K}")
        return self


@dataclass(frozen=True)
class Judged:
    """Objects of the atlas that were judged and have a vector: row indices, what was wanted, who judged.

    `seen` are the row indices of all that were judged, also in words of one's own, which say neither yes nor no.
    """

    rows: np.ndarray
    wanted: np.ndarray
    people: tuple[frozenset[str], ...]
    seen: np.ndarray


def judged(store: Store, embedding: str, verdicts: Iterable[Verdict], *, label: str | None = None) -> Judged:
    """Return the mean verdict of each object: yes 1, no 0, unsure 0.5; where a label is meant, whether it is that."""
    opinions: dict[str, list[tuple[str, float | None]]] = {}
    for one in verdicts:
        opinions.setdefault(one.object_id, []).append((one.by, wanted_of(one, label)))
    seen = store.rows_of(sorted(opinions)) if opinions else np.empty(0, np.int64)
    ids = store.ids(seen)
    with_vector = store.has_vector(embedding, seen) if len(seen) else np.empty(0, bool)
    values = [[value for _, value in opinions[name] if value is not None] for name in ids]
    usable = with_vector & np.array([bool(one) for one in values], bool)
    people = tuple(
        frozenset(by for by, _ in opinions[name]) for name, use in zip(ids, usable.tolist(), strict=True) if use
    )
    means = np.array([np.mean(one) if one else np.nan for one in values], np.float64)
    return Judged(seen[usable], means[usable], people, seen)


def wanted_of(one: Verdict, label: str | None) -> float | None:
    """Return what a verdict says of the wanted: 1 yes, 0 no, 0.5 unsure; None where it says nothing of it.

    Without a `label` in mind, a verdict in words of one's own says nothing, and a label beside a yes nothing more.
    """
    if label is None:
        return WANTED.get(one.verdict)
    if one.verdict == UNSURE and one.label:
        return WANTED[UNSURE]
    if one.verdict == LABEL or one.label:
        return float((one.label or "").casefold() == label.casefold())
    return 0.0 if one.verdict == NO else None


@dataclass(frozen=True)
class _Scored:
    """What a probe says of the rows that pass."""

    rows: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    novelty: np.ndarray | None  # 1 - p-value of a saved list; NaN for who is not in it
    probe: Interest
    known: Judged


def _scored(store: Store, sample: Sample, task: Task) -> _Scored:
    known = judged(store, sample.embedding, task.verdicts, label=task.label)
    if task.start is None and task.novelty in (None, False) and not (known.wanted > 0.5).any():
        raise QueryError(
            f"no verdict of {task.kind!r:.60} says yes yet, so there is nothing to rank by; give a query text to start "
            "from, or saved anomalies as novelty"
        )
    vectors = store.vectors_of(sample.embedding, known.rows).astype(np.float64) if len(known.rows) else None
    marks = np.empty((0, sample.vectors.shape[1])) if vectors is None else vectors
    probe = Interest(sample.whitening, marks, known.wanted, sample.vectors[:ORDINARY], start=task.start)
    condition = store.condition(task.where, task.near, task.radius_arcsec)
    rows, _ = store.listed(condition, k=max(store.manifest.rows, 1))
    rows = rows[store.has_vector(sample.embedding, rows)] if len(rows) else rows
    if not len(rows):
        raise QueryError(
            f"no object with a vector in '{sample.embedding}' passes{placeless(store, task.near)}; loosen "
            "where, near or radius_arcsec"
        )
    mean, variance = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    for first in range(0, len(rows), BLOCK_ROWS):
        part = slice(first, first + BLOCK_ROWS)
        mean[part], variance[part] = probe.judge(store.vectors_of(sample.embedding, rows[part]))
    there = np.isfinite(mean)
    rows, mean, variance = rows[there], mean[there], variance[there]
    odd = None if task.novelty in (None, False) else _oddness(store, task.novelty, rows)
    return _Scored(rows, mean, variance, odd, probe, known)


def _oddness(store: Store, run: object, rows: np.ndarray) -> np.ndarray:
    """Return 1 less the p-value of rows in a saved list, NaN for those that were not judged in it."""
    table = saved_anomalies(store, run=None if run is True else str(run))
    p_values = dict(zip(table["object_id"].to_pylist(), table["p_value"].to_pylist(), strict=True))
    return np.array([1 - p_values.get(name, np.nan) for name in store.ids(rows)], np.float64)


def rank(store: Store, sample: Sample, task: Task, *, include_judged: bool) -> pa.Table:
    """Return the `k` objects of the highest predicted interest, or interest times oddness; ties by object_id."""
    scored = _scored(store, sample, task.check())
    interest = probability(scored.mean, scored.variance)
    logit = scored.mean / np.sqrt(1 + np.pi / 8 * scored.variance)  # orders where probabilities are all but equal
    score = interest if scored.novelty is None else interest * np.nan_to_num(scored.novelty)
    order = np.lexsort((np.arange(len(score)), -logit, -score))
    if not include_judged:
        order = order[~np.isin(scored.rows[order], scored.known.seen)]
    at = order[: task.k]
    spread = SIGMAS_95 * np.sqrt(scored.variance[at])
    columns: dict[str, np.ndarray | list] = {
        "score": score[at],
        "interest": interest[at],
        "interest_low": _curve(scored.mean[at] - spread),
        "interest_high": _curve(scored.mean[at] + spread),
    }
    if scored.novelty is not None:
        columns["novelty"] = scored.novelty[at]
    return _table(store, scored.rows[at], columns)


def _curve(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logit, -60, 60)))


COLUMNS = {  # of results, beside object_id and those of the catalog: UCD, meaning
    "score": ("stat.value", "Predicted interest, times novelty where anomalies are given"),
    "interest": ("stat.probability", "Probability of a yes, as the verdicts so far predict it"),
    "interest_low": ("stat.probability;stat.min", "Lower end of its interval of 95 %"),
    "interest_high": ("stat.probability;stat.max", "Upper end of its interval of 95 %"),
    "novelty": ("stat.probability", "1 less the p-value in the saved list of anomalies; NULL for none"),
    "value": ("stat.value", "What orders the queue: interest and information, times novelty where it is given"),
    "information": ("stat.value", "Bits that a verdict is expected to tell of what is wanted"),
    "likeness": (
        "stat.value",
        "Cosine with the most similar object that was judged or stands before it; NULL for none",
    ),
    "like": ("meta.id", "The most similar object that was judged or stands before it"),
    "reason": ("meta.note", "Why it is to be judged"),
}


def _table(store: Store, rows: np.ndarray, columns: dict[str, np.ndarray | list]) -> pa.Table:
    """Return object_id, these columns and those of the catalog of rows, in that order."""
    arrays: list[pa.Array] = [pa.array(store.ids(rows), pa.string())]
    fields = [schema.arrow_field("object_id")]
    for name, values in columns.items():
        ucd, meaning = COLUMNS[name]
        is_text = isinstance(values, list)
        arrays.append(pa.array(values, pa.string()) if is_text else pa.array(values, from_pandas=True))
        fields.append(formats.describe(pa.field(name, arrays[-1].type), ucd=ucd, description=meaning))
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    return with_catalog(table, store, rows)


# ---- whom to judge next


def queue(
    store: Store, sample: Sample, task: Task, *, reviewer: str | None = None, second_opinions: float = 0.0
) -> pa.Table:
    """Return the next `k` objects to judge, the most valuable first, each with the reason.

    Who was judged by anybody is left out; with `reviewer` and a share of `second_opinions` so many of the queue are
    those that others judged and this one did not.
    """
    if not 0 <= second_opinions <= 1:
        raise QueryError(f"second_opinions is {second_opinions!r:.40}, expected a share from 0 to 1, such as 0.1")
    scored = _scored(store, sample, task.check())
    seen = np.isin(scored.rows, scored.known.seen)
    fresh = _Chooser(store, sample, task, scored).choose(~seen)
    if reviewer is None or not second_opinions:
        return fresh.slice(0, task.k)
    again = _second(store, task, scored, reviewer, count=round(second_opinions * task.k))
    return _interleaved(fresh, again).slice(0, task.k)


class _Chooser:
    """Chooses a queue, one after the other; each makes those like it less valuable, since less is unknown of them."""

    def __init__(self, store: Store, sample: Sample, task: Task, scored: _Scored) -> None:
        self._store, self._embedding, self._task, self._scored = store, sample.embedding, task, scored

    def choose(self, free: np.ndarray) -> pa.Table:
        """Return the queue among the rows that are `free`, as a table."""
        scored = self._scored
        odd = scored.novelty
        unknown = scored.variance if odd is None else np.nan_to_num(odd)
        wanted = ((value(scored.mean, scored.variance, odd), CANDIDATES), (unknown, self._task.k))
        best = [np.argsort(-np.where(free, by, -np.inf), kind="stable")[:count] for by, count in wanted]
        at = np.unique(np.concatenate(best))
        at = at[free[at]]
        vectors = self._store.vectors_of(self._embedding, scored.rows[at])
        chosen = choose(
            scored.mean[at],
            scored.probe.features(vectors),
            k=self._task.k,
            known=len(scored.known.rows),
            odd=None if odd is None else odd[at],
        )
        rows = [one.row for one in chosen]
        return self._told(at[rows], vectors[rows], chosen)

    def _told(self, at: np.ndarray, vectors: np.ndarray, told: list[Choice]) -> pa.Table:
        scored, store = self._scored, self._store
        known = scored.known.rows
        before = store.vectors_of(self._embedding, known) if len(known) else vectors[:0]
        mean, spread = scored.mean[at], SIGMAS_95 * np.sqrt(scored.variance[at])
        likeness, like = _likeness(vectors, before, store.ids(scored.rows[at]), store.ids(known))
        columns: dict[str, np.ndarray | list] = {
            "value": np.array([one.value for one in told], np.float64),
            "interest": probability(mean, scored.variance[at]),
            "information": information(mean, scored.variance[at]),
            "likeness": likeness,
            "like": like,
        }
        if scored.novelty is not None:
            columns["novelty"] = scored.novelty[at]
        spans = zip(_curve(mean - spread).tolist(), _curve(mean + spread).tolist(), strict=True)
        facts = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        each = zip(facts, spans, told, strict=True)
        reasons = [_reason(fact, span, explores=one.explores) for fact, span, one in each]
        return _table(store, scored.rows[at], {"reason": reasons, **columns})


def _likeness(
    vectors: np.ndarray, before: np.ndarray, ids: list[str], known: list[str]
) -> tuple[np.ndarray, list[str | None]]:
    """Return the highest cosine of each with one judged or standing before it, and whom that is."""
    cosines = np.hstack([vectors @ before.T, np.where(np.tri(len(vectors), k=-1) > 0, vectors @ vectors.T, -np.inf)])
    names = [*known, *ids]
    best = cosines.argmax(axis=1) if cosines.shape[1] else np.zeros(len(vectors), int)
    highest = cosines[np.arange(len(vectors)), best] if cosines.shape[1] else np.full(len(vectors), np.nan)
    there = np.isfinite(highest)
    return np.where(there, highest, np.nan), [
        names[at] if has else None for at, has in zip(best.tolist(), there.tolist(), strict=True)
    ]


def _reason(fact: dict[str, Any], span: tuple[float, float], *, explores: bool) -> str:
    """Return in words and numbers why an object is to be judged."""
    interest, bits, like, odd = fact["interest"], fact["information"], fact["like"], fact.get("novelty")
    span_text = f"interest {interest:.2f} ({span[0]:.2f} to {span[1]:.2f})"
    strange = "" if odd is None or not np.isfinite(odd) else f"; p-value {1 - odd:.2g} among anomalies"
    near = "" if like is None else f"; most like {like}, cosine {fact['likeness']:.2f}"
    if explores and odd is not None:
        return f"novel: odd beside others{strange}; {span_text}{near}"
    if explores:
        return f"novel: least is known of what is like it; {span_text}{near}"
    if interest >= LIKELY and span[0] >= LIKELY:
        return f"likely: {span_text}{strange}{near}"
    if bits >= interest or interest >= LIKELY:
        return f"unsure: {span_text}, a verdict tells {bits:.2f} bits{strange}{near}"
    return f"best so far: {span_text}{strange}{near}"


def _second(store: Store, task: Task, scored: _Scored, reviewer: str, *, count: int) -> pa.Table:
    """Return objects that others judged and this reviewer did not, by object_id."""
    open_ones = [at for at, people in enumerate(scored.known.people) if reviewer not in people]
    where = {row: at for at, row in enumerate(scored.rows.tolist())}
    at = [where[row] for row in scored.known.rows[open_ones].tolist() if row in where][:count]
    mean, variance = scored.mean[at], scored.variance[at]
    empty = np.full(len(at), np.nan)
    columns: dict[str, np.ndarray | list] = {
        "reason": ["second opinion: another has judged it"] * len(at),
        "value": empty,
        "interest": probability(mean, variance),
        "information": information(mean, variance),
        "likeness": empty,
        "like": [None] * len(at),
    }
    if scored.novelty is not None:
        columns["novelty"] = scored.novelty[at]
    return _table(store, scored.rows[at], columns)


def _interleaved(fresh: pa.Table, again: pa.Table) -> pa.Table:
    """Return both in one order, the second ones spread evenly, the first of them at the head."""
    if not len(again):
        return fresh
    shares = np.r_[(np.arange(len(fresh)) + 0.5) / max(len(fresh), 1), np.arange(len(again)) / len(again)]
    both = pa.concat_tables([fresh, again.cast(fresh.schema)])
    return both.take(pa.array(np.argsort(shares, kind="stable")))
