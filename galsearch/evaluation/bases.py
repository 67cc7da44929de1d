"""How well a knowledge base finds its target: by share of the target, number of neighbors and weight of their votes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import formats
from galsearch.atlas import Atlas
from galsearch.atlas import open as open_atlas
from galsearch.errors import QueryError
from galsearch.evaluation.resampling import resampled
from galsearch.knowledge.heldout import Electorate, Neighbors, check_whole
from galsearch.knowledge.members import CLASS
from galsearch.progress import Progress
from galsearch.science import votes
from galsearch.science.metrics import fold_of

SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5)
KS = (1, 3, 5, 10, 20, 50)
MOST_TESTED = 1_000  # held-out objects that are classified, as many with the target as their share says
TIMED = 50  # of them are classified by cells as well, for the time that takes
BOOTSTRAPS = 1_000
COLUMNS = (
    ("share", "Target among the members that vote"),
    ("members", "Members that vote"),
    ("k", "Neighbors that vote"),
    ("weight", "How their votes are weighted"),
    ("tested", "Held-out objects"),
    ("targets", "Of them, those of the target"),
    ("precision", "Of the objects that are called the target, the part that is"),
    ("precision_low", "Lower end of its bootstrap 95 % interval"),
    ("precision_high", "Upper end"),
    ("recall", "Of the target, the part that is called so"),
    ("recall_low", "Lower end of its bootstrap 95 % interval"),
    ("recall_high", "Upper end"),
    ("f1", "Harmonic mean of precision and recall"),
    ("f1_low", "Lower end of its bootstrap 95 % interval"),
    ("f1_high", "Upper end"),
    ("prevalence", "Of the target where the base is to be used"),
    ("precision_there", "Precision at that prevalence"),
    ("precision_there_low", "Lower end of its bootstrap 95 % interval"),
    ("precision_there_high", "Upper end"),
    ("exact_ms", "Median time of finding the deepest neighbors of one object, comparing all members"),
    ("cells_ms", "The same by the likeliest cells"),
)


def evaluate_base(
    atlas: Atlas | str | Path,
    base: str,
    *,
    version: int | None = None,
    by: str | None = None,
    target: str | None = None,
    shares: Sequence[float] = SHARES,
    ks: Sequence[int] = KS,
    weights: Sequence[str] = votes.WEIGHTS,
    tau: float = 1.0,
    prevalence: float = 0.01,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = lambda done, total, what: None,
) -> pa.Table:
    """Return how well votes find a target, a row for each share of it in the base, number of neighbors and weight.

    Half of the members, by a digest of the object_id and the seed, vote; up to 1,000 of the others are classified. The
    voters are drawn to each of `shares` in turn, the side in excess being sub-sampled. An object is called the target
    where most of the votes say so. Precision, recall and F1 have bootstrap intervals over the classified objects;
    `precision_there` is what precision comes to where the target has the `prevalence` that is stated (Bayes); where no
    object was called so by mistake, its lower end is that of the largest rate that would mostly not show. Shares
    that cannot be drawn, and k beyond the voters, have no row. `target` is the base's own unless given.

    Raises QueryError for a share, k, weight, prevalence or seed that is none, a base of numbers, a target that is no
    class, and where no row is left.
    """
    ks = [int(k) if isinstance(k, np.integer) else k for k in ks]
    _check_sweep(shares=shares, ks=ks, weights=weights, tau=tau, prevalence=prevalence, seed=seed)
    opened = nullcontext(atlas) if isinstance(atlas, Atlas) else open_atlas(atlas, device=device)
    with opened as there:
        electorate = there._electorate(base, version, by)
        code = _target(electorate, target)
        known, tested = _halves(electorate, code, seed)
        sweep = _Sweep(code, ks, weights, tau, prevalence, seed)
        rows: list[dict] = []
        for number, share in enumerate(shares):
            progress(number, len(shares), f"target share {share:g}")
            rows += _rows(electorate, known, tested, sweep, share=share)
        progress(len(shares), len(shares), "judged")
    if not rows:
        raise QueryError(
            f"base '{base}' has too few members for any of these shares and k; give smaller k, other shares"
        )
    return _table(rows)


def _check_sweep(
    *, shares: Sequence[float], ks: Sequence[int], weights: Sequence[str], tau: float, prevalence: float, seed: int
) -> None:
    """Raise QueryError unless there is at least one way of voting, and each can be counted."""
    for name, values in (("shares", shares), ("ks", ks), ("weights", weights)):
        if isinstance(values, str) or not len(values):
            raise QueryError(f"{name} is {values!r:.40}, expected a list of one or more")
    votes.check_share(prevalence, name="prevalence")
    votes.check_seed(seed)
    for share in shares:
        votes.check_share(share)
    for k in ks:
        check_whole(k)
    for weight in weights:
        votes.check_weight(weight, tau)


def _target(electorate: Electorate, target: str | None) -> int:
    """Return the number of the class that is looked for."""
    base, classes = electorate.base, electorate.members.classes
    if base.kind != CLASS:
        raise QueryError(f"base '{base.name}' votes on numbers, and what is judged is the finding of a class")
    target = target or base.target
    if target not in classes:
        raise QueryError(f"target is {target!r:.40}, expected one of {', '.join(classes)[:200]}")
    return classes.index(target)


def _halves(electorate: Electorate, code: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the members that vote, and of those that are classified."""
    half = fold_of(electorate.store.ids(electorate.members.rows), 2, seed)
    tested = np.random.default_rng(seed).permutation(np.flatnonzero(half == 1))[:MOST_TESTED]
    is_target = electorate.members.codes[tested] == code
    if not is_target.any() or is_target.all():
        raise QueryError(f"of {len(tested)} held-out members {is_target.sum()} are the target; some of both are needed")
    return np.flatnonzero(half == 0), np.sort(tested)


@dataclass(frozen=True)
class _Sweep:
    """What is looked for, and in how many ways."""

    code: int
    ks: Sequence[int]
    weights: Sequence[str]
    tau: float
    prevalence: float
    seed: int


def _rows(
    electorate: Electorate, known: np.ndarray, tested: np.ndarray, sweep: _Sweep, *, share: float
) -> Iterator[dict]:
    """Yield the rows of one share."""
    members, code = electorate.members, sweep.code
    try:
        kept = known[votes.drawn_to_share(members.codes[known] == code, share, seed=sweep.seed)]
    except QueryError:
        return
    ks = [k for k in sweep.ks if k <= len(kept)]
    if not ks:
        return
    voters = Electorate(electorate.store, replace(electorate.base, calibration=None), members.at(kept))
    vectors = electorate.store.vectors_of(electorate.base.embedding, members.rows[tested])
    near, exact_ms = _timed(voters, vectors, k=max(ks), exact=True)
    _, cells_ms = _timed(voters, vectors[:TIMED], k=max(ks), exact=False)
    truth, codes = members.codes[tested] == code, members.codes[kept][near.members]
    drawn = _counts(len(tested), sweep.seed)
    for k in ks:
        for weight in sweep.weights:
            counts = votes.weights(near.distance[:, :k], weight=weight, tau=sweep.tau)
            target_share = (counts * (codes[:, :k] == code)).sum(axis=1) / counts.sum(axis=1)
            yield {
                **{
                    "share": float((members.codes[kept] == code).mean()),
                    "members": len(kept),
                    "k": k,
                    "weight": weight,
                },
                **{"tested": len(tested), "targets": int(truth.sum()), "prevalence": sweep.prevalence},
                **_figures(target_share > 0.5, truth, drawn, sweep.prevalence),
                **{"exact_ms": exact_ms, "cells_ms": cells_ms},
            }


def _timed(voters: Electorate, vectors: np.ndarray, *, k: int, exact: bool) -> tuple[Neighbors, float]:
    """Return the neighbors, and the median milliseconds of finding those of one vector."""
    times = [time.perf_counter()]
    near = voters.neighbors(
        vectors, [None] * len(vectors), k=k, exact=exact, progress=lambda *_: times.append(time.perf_counter())
    )
    return near, float(np.median(np.diff(times)) * 1e3)


def _counts(members: int, seed: int) -> np.ndarray:
    """Return how often each object is in all of them, and in each draw of a bootstrap, `(1 + rounds, n)`."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.bincount(one, minlength=members) for one in resampled(rng, members, BOOTSTRAPS)])
    return np.concatenate([np.ones((1, members)), drawn])


def _figures(called: np.ndarray, truth: np.ndarray, drawn: np.ndarray, prevalence: float) -> dict[str, float | None]:
    """Return the figures of one way of voting, with intervals; None where nothing is called the target."""
    hits, misses = drawn @ (called & truth), drawn @ (~called & truth)
    alarms, others = drawn @ (called & ~truth), drawn @ ~truth
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, false = hits / (hits + misses), alarms / others
        values = {
            "precision": hits / (hits + alarms),
            "recall": recall,
            "f1": 2 * hits / (2 * hits + alarms + misses),
            "precision_there": prevalence * recall / (prevalence * recall + (1 - prevalence) * false),
        }
    result: dict[str, float | None] = {}
    for name, (point, *rounds) in ((name, each.tolist()) for name, each in values.items()):
        there = [value for value in rounds if np.isfinite(value)]
        low, high = np.quantile(there, [0.025, 0.975]).tolist() if there else (None, None)
        result |= {name: point if np.isfinite(point) else None, f"{name}_low": low, f"{name}_high": high}
    if hits[0] and not alarms[0]:  # no draw has what was never seen: at 95 % it is rarer than this (the rule of three)
        rate = 1 - 0.05 ** (1 / others[0])
        result["precision_there_low"] = float(
            prevalence * recall[0] / (prevalence * recall[0] + (1 - prevalence) * rate)
        )
    return result


def _table(rows: list[dict]) -> pa.Table:
    """Return the rows with what the columns mean."""
    kinds = {"weight": pa.string(), **dict.fromkeys(("members", "k", "tested", "targets"), pa.int64())}
    fields = [
        formats.describe(pa.field(name, kinds.get(name, pa.float64())), description=text) for name, text in COLUMNS
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
