"""Promoted probes: what was learned from verdicts becomes live only where it is better on a frozen test part.

A fifth of all objects, by a digest of their ids, is the test part: no probe that is tried here has ever learned from
it. A trial compares with the live probe, or at first with the words that it began at; each is kept, promoted or not,
and the one before can be made live again. Nothing is rewritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.discovery.journal import Journal, Row
from galsearch.discovery.learning import ORDINARY, Sample, judged
from galsearch.discovery.verdicts import Verdict
from galsearch.errors import FormatError, QueryError
from galsearch.science.interest import Interest
from galsearch.science.metrics import Ranked
from galsearch.store import Store

FORMAT = "galsearch.probes"
TEST_PARTS = 5  # one of so many is the test part
LEAST_OF_EACH = 5  # yes and no in the test part
ROUNDS = 2_000
LEVEL = 0.95
TRIAL, ROLLBACK = "trial", "rollback"


@dataclass(frozen=True)
class Trial:
    """A probe that was tried: how much better it orders the test part, and whether it was promoted.

    `auroc` is its own, `before` that of the live one (or of the start), `gain` the difference with its paired bootstrap
    interval of 95 %, `low` to `high`; it was promoted where `low` is above 0. `weights` belong to vectors of the model
    `sha256` in `embedding`.
    """

    id: str
    kind: str
    time: str
    embedding: str
    sha256: str | None
    learned: int
    tested: int
    auroc: float
    before: float
    gain: float
    low: float
    high: float
    promoted: bool
    weights: tuple[float, ...]

    def __str__(self) -> str:
        result = "promoted" if self.promoted else "not promoted, the one before stays live"
        return (
            f"{self.kind}: learned from {self.learned} objects, tested on {self.tested} others; AUROC {self.auroc:.3f}"
            f", before {self.before:.3f}, gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]: {result}"
        )


def in_test_part(object_id: str) -> bool:
    """Say whether an object belongs to the test part, which is the same for ever and everybody."""
    return int(hashlib.sha256(object_id.encode(errors="replace")).hexdigest()[:8], 16) % TEST_PARTS == 0


class Probes:
    """The probes of a file, or with `path` None of this object alone; a file that is not there is made by a trial.

    Raises FormatError for a file that is none of probes, or damaged.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._journal = Journal(path, kind=FORMAT)
        self.trials()

    @property
    def path(self) -> Path | None:
        """Where they are kept; None for nowhere."""
        return self._journal.path

    def trials(self, kind: str | None = None) -> list[Trial]:
        """Return every trial of a kind, or of all, in the order of time."""
        rows = [row for row in self._journal.rows() if row.get("what") == TRIAL]
        return [one for one in map(self._of_row, rows) if kind in (None, one.kind)]

    def live(self, kind: str) -> Trial | None:
        """Return the probe of a kind that is live: the last promoted one that was not rolled back; None for none."""
        held = self._promoted(kind, self._journal.rows())
        return held[-1] if held else None

    def rollback(self, kind: str) -> Trial | None:
        """Make the probe before the live one live again, and return it; None where none is left.

        Raises QueryError where none is live.
        """

        def rows(there: list[Row]) -> list[Row]:
            held = self._promoted(kind, there)
            if not held:
                raise QueryError(f"no probe of {kind!r:.60} is live in {self._journal.name}; train one")
            return [{"what": ROLLBACK, "kind": kind, "id": held[-1].id, "time": schema.now()}]

        self._journal.append(rows)
        return self.live(kind)

    def keep(self, trial: Trial) -> Trial:
        """Keep a trial, and make it live where it was promoted."""
        self._journal.append(lambda _: [{"what": TRIAL, **asdict(trial), "weights": list(trial.weights)}])
        return trial

    def _promoted(self, kind: str, rows: Iterable[Row]) -> list[Trial]:
        held: dict[str, Trial] = {}
        for row in rows:
            if row.get("what") == ROLLBACK:
                held.pop(str(row.get("id")), None)
            elif (one := self._of_row(row)).kind == kind and one.promoted:
                held[one.id] = one
        return list(held.values())

    def _of_row(self, row: Row) -> Trial:
        try:
            known: dict[str, Any] = {name: row[name] for name in Trial.__dataclass_fields__}
            return replace(Trial(**known), weights=tuple(map(float, row["weights"])), promoted=row["promoted"] is True)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{self._journal.name} has a row that is no probe ({error!s:.60}); restore it from a copy, or remove "
                "that row with an editor"
            ) from None


def try_probe(
    store: Store,
    sample: Sample,
    verdicts: Iterable[Verdict],
    kind: str,
    *,
    start: np.ndarray | None,
    live: Trial | None,
) -> Trial:
    """Return the trial of a probe that learned from all verdicts but those on the test part.

    Raises QueryError where the test part has too few of each, and where the live probe is of another model.
    """
    several = list(verdicts)
    learned = judged(store, sample.embedding, [one for one in several if not in_test_part(one.object_id)])
    tested = judged(store, sample.embedding, [one for one in several if in_test_part(one.object_id)])
    told = tested.wanted != 0.5
    rows, good = tested.rows[told], tested.wanted[told] > 0.5
    if min(good.sum(), (~good).sum()) < LEAST_OF_EACH:
        raise QueryError(
            f"the test part, a fifth of all objects, has {good.sum()} yes and {(~good).sum()} no of {kind!r:.60}, and "
            f"{LEAST_OF_EACH} of each are needed to say what is better; judge more"
        )
    sha256 = store.manifest.embeddings[sample.embedding].get("sha256")
    if live is not None and (live.embedding, live.sha256) != (sample.embedding, sha256):
        raise QueryError(
            f"the live probe of {kind!r:.60} was learned in '{live.embedding}' of another model; keep probes of this "
            "atlas in another file, or roll that one back"
        )
    marks = store.vectors_of(sample.embedding, learned.rows).astype(np.float64) if len(learned.rows) else None
    marks = np.empty((0, sample.vectors.shape[1])) if marks is None else marks
    probe = Interest(sample.whitening, marks, learned.wanted, sample.vectors[:ORDINARY], start=start)
    vectors = store.vectors_of(sample.embedding, rows).astype(np.float64)
    before = np.zeros(len(rows))
    if live is not None:
        before = vectors @ np.array(live.weights)
    elif start is not None:
        before = vectors @ start
    ours = vectors @ probe.weights.astype(np.float64)
    own, others, low, high = (round(one, 6) for one in gain(ours, before, good))
    time, weights = schema.now(), tuple(float(one) for one in probe.weights)
    return Trial(
        id=hashlib.sha256(repr((kind, time, weights)).encode()).hexdigest()[:16],
        kind=kind,
        time=time,
        embedding=sample.embedding,
        sha256=sha256,
        learned=len(learned.rows),
        tested=len(rows),
        auroc=own,
        before=others,
        gain=round(own - others, 6),
        low=low,
        high=high,
        promoted=low > 0,
        weights=weights,
    )


def gain(ours: np.ndarray, before: np.ndarray, good: np.ndarray, *, seed: int = 0) -> tuple[float, float, float, float]:
    """Return AUROC of two orders and the bootstrap interval of their difference, objects drawn together, by class."""
    ranked = [Ranked(scores, good.astype(float)) for scores in (ours, before)]
    rng, counts = np.random.default_rng(seed), np.zeros((ROUNDS, len(good)), np.int64)
    for side in (np.flatnonzero(good), np.flatnonzero(~good)):
        drawn = side[rng.integers(0, len(side), (ROUNDS, len(side)))]
        np.add.at(counts, (np.arange(ROUNDS)[:, None], drawn), 1)
    own, others = (float(one.auroc()[0]) for one in ranked)
    difference = ranked[0].auroc(counts) - ranked[1].auroc(counts)
    low, high = np.quantile(difference, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return own, others, float(low), float(high)


def rank_by(store: Store, trial: Trial, *, where: str | None, k: int) -> pa.Table:
    """Return the `k` objects that a probe puts first: object_id, score, then the columns of the catalog."""
    rows, _ = store.listed(store.condition(where, None, None), k=max(store.manifest.rows, 1))
    rows = rows[store.has_vector(trial.embedding, rows)] if len(rows) else rows
    weights, scores = np.array(trial.weights, np.float32), np.empty(len(rows), np.float32)
    for first in range(0, len(rows), 16_384):
        part = slice(first, first + 16_384)
        scores[part] = store.vectors_of(trial.embedding, rows[part]) @ weights
    best = np.lexsort((np.arange(len(rows)), -scores))[:k]
    return store.hits(rows[best], scores[best])
