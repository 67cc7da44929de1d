"""Classifier probes of a knowledge base: trained on its members, judged on members that never train, kept, rolled back.

A fifth of the members, by a digest of the object_id, is the frozen test: it stays the test of every version of the
base. A probe comes into use only where it is right more often there than what classified before it, with a confidence
interval that says so; what is in use can be changed by hand.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from galsearch import schema
from galsearch.errors import FormatError, ModelMismatchError, QueryError
from galsearch.knowledge.bases import list_bases, must_be_folder, no_base
from galsearch.knowledge.classify import VOTES, Probed, Way, classify
from galsearch.knowledge.heldout import Electorate
from galsearch.knowledge.members import CLASS, PROBES, KnowledgeBase, Members, find_base, read_members
from galsearch.progress import Progress, silent
from galsearch.science.metrics import bootstrap_interval, digests
from galsearch.science.probe import LEAST_OF_A_CLASS, Probe
from galsearch.science.votes import check_seed
from galsearch.store import Rows, Store, open_store, put_rows

TRAINED, PROMOTED = "kb train", "kb promote"  # what provenance calls them
TEST_PARTS = 5  # of which one is the frozen test
TEST_SEED = 0  # of the digests that choose it, the same for ever
MOST_TRAINED, MOST_TESTED = 20_000, 5_000  # members; more of either change less than the digits that are printed
LEAST_TESTED = 30  # with fewer, no interval on them says which of two is better
METHODS = (VOTES, "probe")


@dataclass(frozen=True)
class TrainedProbe:
    """A probe of a knowledge base as it is kept: what it is, and what it gave on members that never train.

    `probe` numbers those of a base, `version` is that of the base. `accuracy` and `gain`, its accuracy less that of
    what classified before (`against`), have bootstrap intervals of 95 % over the `tested` members; `log_loss` is in
    nats. `confusion[i][j]` counts those of class i that it gives class j. `promoted` is None for one that was never
    in use, and highest for the one that is.
    """

    base: str
    probe: int
    version: int
    embedding: str
    model_sha256: str
    classes: tuple[str, ...]
    weights: np.ndarray
    intercept: np.ndarray
    trained: int
    tested: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_loss: float
    confusion: tuple[tuple[int, ...], ...]
    against: str
    gain: float
    gain_low: float
    gain_high: float
    promoted: int | None
    seed: int
    software: str
    created: str

    def probability(self, vectors: np.ndarray) -> np.ndarray:
        """Return the probability of each of its classes for unit vectors `(n, d)`, `(n, c)`; NaN for one of NaN."""
        return Probe(self.weights, self.intercept, self.classes).probabilities(vectors)

    def probability_of(self, classes: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Return the probability of each of `classes` for unit vectors `(n, d)`, `(n, c)`; 0 for those it has not seen.

        Raises QueryError where it knows a class that is none of them.
        """
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise QueryError(
                f"probe {self.probe} of base '{self.base}' knows the class {unknown[0]!r:.40}, which the members have "
                "not (any more); train again with `galsearch kb train`"
            )
        result = np.zeros((len(vectors), len(classes)))
        result[:, [list(classes).index(name) for name in self.classes]] = self.probability(vectors)
        return result

    def to_row(self) -> dict[str, Any]:
        """Return it as a row of the table `probes`."""
        row = {column.name: getattr(self, column.name) for column in schema.TABLES[PROBES]}
        flat = {name: np.ravel(row[name]).tolist() for name in ("weights", "intercept", "confusion")}
        return {**row, **flat, "classes": list(self.classes)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, path: str) -> TrainedProbe:
        """Return the probe that a row of `probes` is; FormatError, naming `path`, where it is none."""
        classes, c = tuple(row["classes"] or ()), len(row["classes"] or ())
        weights, intercept = (np.array(row[name] or (), np.float64) for name in ("weights", "intercept"))
        confusion = np.array(row["confusion"] or (), np.int64)
        needed = {name: value for name, value in row.items() if name != "promoted"}
        fits = c > 1 and len(intercept) == c and len(confusion) == c * c and len(weights) % c == 0 and len(weights) > 0
        finite = fits and np.isfinite(weights).all() and np.isfinite(intercept).all()
        if None in needed.values() or None in classes or not finite:
            raise FormatError(
                f"{path}: table {PROBES} has a row that describes no probe ({row['base']!r:.40}); train it again"
            )
        counts = tuple(tuple(line) for line in confusion.reshape(c, c).tolist())
        read = {"classes": classes, "weights": weights.reshape(-1, c), "intercept": intercept, "confusion": counts}
        return cls(**{**row, **read})


def list_probes(store: Store, base: str) -> list[TrainedProbe]:
    """Return every probe of a base that an atlas holds, by number. Raises QueryError for a base that there is not."""
    if base not in {one.name for one in list_bases(store)}:
        raise QueryError(no_base(store, base))
    table = store.table(PROBES)
    rows = [] if table is None else [row for row in table.to_pylist() if row["base"] == base]
    return sorted((TrainedProbe.from_row(row, path=f"{store.path}") for row in rows), key=lambda one: one.probe)


def probe_in_use(store: Store, base: KnowledgeBase) -> TrainedProbe | None:
    """Return the probe that classifies by a base; None where votes do.

    Raises ModelMismatchError for one that was trained on vectors of another model or another embedding.
    """
    promoted = [one for one in list_probes(store, base.name) if one.promoted is not None]
    if not promoted:
        return None
    result = max(promoted, key=lambda one: (one.promoted or 0, one.probe))
    _check_vectors(store, base, result)
    return result


def _check_vectors(store: Store, base: KnowledgeBase, result: TrainedProbe) -> None:
    """Raise ModelMismatchError for a probe of other vectors than those of the base, FormatError for a damaged one."""
    made_by, dim = store.manifest.embeddings[base.embedding].get("sha256"), _dim(store, base)
    if (result.embedding, result.model_sha256) != (base.embedding, made_by):
        raise ModelMismatchError(
            f"probe {result.probe} of base '{base.name}' was trained on '{result.embedding}' vectors of model "
            f"{result.model_sha256[:12]}, and these are '{base.embedding}' vectors of {str(made_by)[:12]}; train again "
            "with `galsearch kb train`"
        )
    if len(result.weights) != dim:
        raise FormatError(
            f"{store.path}: probe {result.probe} of base '{base.name}' has weights for vectors of "
            f"{len(result.weights)} numbers, and those of '{base.embedding}' have {dim}: its row in the table {PROBES} "
            "was changed; train again with `galsearch kb train`"
        )


def probed(electorate: Electorate, vectors: np.ndarray, method: str) -> Probed | None:
    """Return what the probe in use says of unit vectors `(n, d)`; None for the method of votes.

    Raises QueryError for a method that there is not, and where no probe is in use.
    """
    if method not in METHODS:
        raise QueryError(f"method is {method!r:.40}, expected one of {', '.join(METHODS)}")
    if method == VOTES:
        return None
    base = electorate.base
    result = probe_in_use(electorate.store, base)
    if result is None:
        raise QueryError(
            f"no probe of base '{base.name}' is in use; train one with `galsearch kb train`, choose one of "
            f"`galsearch kb probes`, or take method {VOTES!r}"
        )
    return Probed(f"probe {result.probe}", result.probability_of(electorate.members.classes, vectors))


def train_probe(
    path: str | Path, base: str, *, version: int | None = None, seed: int = 0, progress: Progress = silent
) -> TrainedProbe:
    """Train a probe on the members of the knowledge base `base` in the atlas folder `path`; return it as it is kept.

    It is a multinomial logistic regression on the stored vectors whose penalty and temperature are chosen on training
    members that are left out, with `seed`. A fifth of the members, the same for every probe and version, never trains
    and judges it. It comes into use if the interval of its gain in accuracy over what classified before (the probe in
    use, else votes of the three nearest training members) lies above 0. Interrupted or failed, it changes nothing.

    Raises QueryError for a base that there is not, one of numbers, and one with too few members to train or to judge;
    GalsearchError for a bundle or an atlas that another is writing.
    """
    path, started = Path(path), time.perf_counter()
    check_seed(seed)
    store = open_store(path)
    try:
        must_be_folder(store, path, "train the probe in the folder")
        known = find_base(store, base, version=version)
        if known is None:
            raise QueryError(no_base(store, base))
        result = _trained(store, known, seed=int(seed), progress=progress)
    finally:
        store.close()
    parameters = {name: getattr(result, name) for name in ("base", "version", "probe", "seed", "promoted")}
    record = schema.provenance(TRAINED, parameters=parameters, seconds=time.perf_counter() - started)
    put_rows(path, {PROBES: Rows(probes_table([result]), ("base", "probe"), new=True)}, record)
    return result


def promote_probe(path: str | Path, base: str, probe: int | None) -> None:
    """Bring a probe of a base of the atlas folder `path` into use, whatever it gained; None brings votes back.

    Raises QueryError for a base or probe that there is not, and for a probe with a class that the members of the last
    version of the base do not have; ModelMismatchError for one of other vectors, GalsearchError for a bundle.
    """
    path = Path(path)
    store = open_store(path)
    try:
        must_be_folder(store, path, "choose the probe in the folder")
        every = list_probes(store, base)
        numbers = [one.probe for one in every]
        if probe is not None and probe not in numbers:
            there = ", ".join(map(str, numbers)) or "none; train one with `galsearch kb train`"
            raise QueryError(f"base '{base}' has no probe {probe!r:.20}, it has {there}")
        for one in every:
            if one.probe == probe:
                _check_usable(store, base, one)
    finally:
        store.close()
    chosen = [replace(one, promoted=_next(every)) for one in every if one.probe == probe]
    changed = chosen if probe is not None else [replace(one, promoted=None) for one in every]
    record = schema.provenance(PROMOTED, parameters={"base": base, "probe": probe})
    put_rows(path, {PROBES: Rows(probes_table(changed), ("base", "probe"))}, record)


def _check_usable(store: Store, base: str, probe: TrainedProbe) -> None:
    """Raise unless a probe can classify by the last version of its base."""
    known = find_base(store, base, version=None)
    assert known is not None
    _check_vectors(store, known, probe)
    classes = read_members(store, known).classes
    if unknown := [name for name in probe.classes if name not in classes]:
        raise QueryError(
            f"probe {probe.probe} of base '{base}' knows the class {unknown[0]!r:.40}, which version {known.version} "
            "of the base does not have; train one on that with `galsearch kb train`, or create the base with that class"
        )


def probes_table(probes: Sequence[TrainedProbe]) -> pa.Table:
    """Return probes as the rows of the table `probes`."""
    return pa.Table.from_pylist([one.to_row() for one in probes], schema=schema.arrow_schema(PROBES))


def _dim(store: Store, base: KnowledgeBase) -> int:
    return int(store.manifest.embeddings[base.embedding]["dim"])


def _next(probes: Sequence[TrainedProbe]) -> int:
    """Return the number by which a probe comes into use: higher than that of all before."""
    return max((one.promoted or 0 for one in probes), default=0) + 1


def _trained(store: Store, base: KnowledgeBase, *, seed: int, progress: Progress) -> TrainedProbe:
    """Return a new probe of a base, judged on the frozen test beside what is in use."""
    if base.kind != CLASS:
        raise QueryError(f"base '{base.name}' has numbers as labels, and a probe tells classes apart; use its votes")
    members = read_members(store, base)
    training, test = frozen_parts(store, base, members)
    progress(0, 2, "training")
    vectors = store.vectors_of(base.embedding, members.rows[training])
    probe = Probe.calibrated(vectors, members.codes[training], seed=seed)
    progress(1, 2, "judging")
    vectors, truth = store.vectors_of(base.embedding, members.rows[test]), members.codes[test]
    every = list_probes(store, base.name)
    against, earlier = _before(store, base, members, training, vectors)
    judged = _judged(probe.probabilities(vectors), truth, earlier, seed=seed)
    progress(2, 2, "judging")
    return TrainedProbe(
        base=base.name,
        probe=max((one.probe for one in every), default=0) + 1,
        version=base.version,
        embedding=base.embedding,
        model_sha256=str(store.manifest.embeddings[base.embedding].get("sha256")),
        classes=members.classes,
        weights=probe.weights,
        intercept=probe.intercept,
        trained=len(training),
        against=against,
        promoted=_next(every) if judged["gain_low"] > 0 else None,
        seed=seed,
        software=schema.software(),
        created=schema.now(),
        **judged,
    )


def frozen_parts(store: Store, base: KnowledgeBase, members: Members) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the members that train and of those of the frozen test, ascending.

    Where there are more than are used it is those with the least digests, so that the test stays what it was. Raises
    QueryError for too few.
    """
    digest = digests(store.ids(members.rows), TEST_SEED)
    order, tests = np.argsort(digest, kind="stable"), digest % TEST_PARTS == 0
    training, test = np.sort(order[~tests[order]][:MOST_TRAINED]), np.sort(order[tests[order]][:MOST_TESTED])
    if len(test) < LEAST_TESTED:
        raise QueryError(
            f"a fifth of the {len(members.rows)} members of base '{base.name}', {len(test)}, would judge the probe, "
            f"and at least {LEAST_TESTED} are needed; label more objects"
        )
    counts = np.bincount(members.codes[training], minlength=len(members.classes))
    if counts.min() < LEAST_OF_A_CLASS:
        raise QueryError(
            f"class {members.classes[counts.argmin()]!r:.40} has {counts.min()} members to train on, and each class "
            f"needs {LEAST_OF_A_CLASS}; label more of it, or leave it out of the base"
        )
    return training, test


def _before(
    store: Store, base: KnowledgeBase, members: Members, training: np.ndarray, vectors: np.ndarray
) -> tuple[str, np.ndarray]:
    """Return what classified before, and the class number that it gives each test vector, -1 for a class of no member.

    That is the probe in use, else the likeliest class by votes of the training members.
    """
    used = probe_in_use(store, base)
    if used is not None:
        own = used.probability(vectors).argmax(axis=1)
        number = {name: code for code, name in enumerate(members.classes)}
        return f"probe {used.probe}", np.array([number.get(used.classes[code], -1) for code in own.tolist()])
    voters = Electorate(store, replace(base, version=0, calibration=None), members.at(training))
    names = [""] * len(vectors)
    table = classify(voters, [None] * len(vectors), vectors, Way(), names=names).table
    code = {name: code for code, name in enumerate(members.classes)}
    return VOTES, np.array([code.get(best, -1) for best in table["best"].to_pylist()])


def _judged(probabilities: np.ndarray, truth: np.ndarray, earlier: np.ndarray, *, seed: int) -> dict[str, Any]:
    """Return what the frozen test says of probabilities `(n, c)`, beside the classes that were given earlier."""
    given, c = probabilities.argmax(axis=1), probabilities.shape[1]
    right = (given == truth).astype(float)
    gain = right - (earlier == truth)
    chance = np.maximum(probabilities[np.arange(len(truth)), truth], np.finfo(float).tiny)
    counts = np.bincount(truth * c + given, minlength=c * c).reshape(c, c)
    result: dict[str, Any] = {"tested": len(truth), "log_loss": float(-np.log(chance).mean())}
    for name, values in {"accuracy": right, "gain": gain}.items():
        low, high = bootstrap_interval(values, seed=seed) or (0.0, 0.0)
        result |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return {**result, "confusion": tuple(tuple(line) for line in counts.tolist())}
