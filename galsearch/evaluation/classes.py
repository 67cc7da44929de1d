"""One report of classifiers on the frozen test of a knowledge base: votes of neighbors, a probe, and words alone."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from galsearch import formats
from galsearch.atlas import Atlas
from galsearch.atlas import open as open_atlas
from galsearch.errors import QueryError
from galsearch.knowledge.classify import Way, classify
from galsearch.knowledge.heldout import Electorate
from galsearch.knowledge.members import CLASS, Members
from galsearch.knowledge.probes import frozen_parts
from galsearch.progress import Progress, silent
from galsearch.science.metrics import bootstrap_interval
from galsearch.science.probe import Probe

VOTES, PROBE, WORDS = "votes", "probe", "words"
BINS = 10  # of equal width, in which claimed and true frequencies are compared
SYSTEMS = (
    ("system", "What classified: votes of neighbors, a linear probe, or words alone (zero-shot)"),
    ("tested", "Members of the frozen test"),
    ("answered", "Of them, those that got a class; the others count as wrong"),
    ("accuracy", "Part that is right"),
    ("accuracy_low", "Lower end of its bootstrap 95 % interval"),
    ("accuracy_high", "Upper end"),
    ("balanced_accuracy", "Mean of the recalls of the classes"),
    ("macro_f1", "Mean of the F1 of the classes"),
    (
        "log_loss",
        "Mean of −ln of the probability of the true class, in nats; NULL where only that of the best is known",
    ),
    ("calibration_error", "Mean distance of claimed from true frequency over ten bins of the claimed probability"),
)
CLASSES = (
    ("system", "What classified"),
    ("class", "Class of the base"),
    ("members", "Members of the frozen test that are of it"),
    ("precision", "Of what is called so, the part that is; NULL where nothing is"),
    ("recall", "Of what is so, the part that is called so; NULL where nothing is"),
    ("f1", "Harmonic mean of precision and recall"),
)


@dataclass(frozen=True)
class ClassifierFigures:
    """What one classifier gave on the frozen test.

    `confusion[i][j]` counts those of class i that it gives class j; those that it gives none are in no column.
    `classes` has precision, recall and F1 of each class, `figures` what holds for all of them.
    """

    system: str
    confusion: tuple[tuple[int, ...], ...]
    figures: dict[str, Any]
    classes: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ClassificationReport:
    """Classifiers of a knowledge base, judged on the same members, none of which any of them has seen."""

    base: str
    version: int
    classes: tuple[str, ...]
    trained: int
    systems: tuple[ClassifierFigures, ...]

    def table(self) -> pa.Table:
        """Return a row for each classifier: accuracy with its interval, balanced accuracy, F1, log-loss and others."""
        return _table([{"system": one.system, **one.figures} for one in self.systems], SYSTEMS)

    def by_class(self) -> pa.Table:
        """Return a row for each classifier and class: members, precision, recall, F1."""
        return _table([{"system": one.system, **row} for one in self.systems for row in one.classes], CLASSES)

    def confusion(self, system: str) -> pa.Table:
        """Return the confusion matrix of a classifier: a row for each true class, a column for each given one."""
        matrix = next(one.confusion for one in self.systems if one.system == system)
        given = {f"given {name}": pa.array([line[j] for line in matrix]) for j, name in enumerate(self.classes)}
        return pa.table({"true": pa.array(self.classes), **given, "no answer": self._unanswered(system, matrix)})

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def _unanswered(self, system: str, matrix: tuple[tuple[int, ...], ...]) -> list[int]:
        rows = next(one.classes for one in self.systems if one.system == system)
        return [row["members"] - sum(line) for row, line in zip(rows, matrix, strict=True)]


def classification_report(
    atlas: Atlas | str | Path,
    base: str,
    *,
    labels: str | Path | None = None,
    version: int | None = None,
    k: int = 3,
    weight: str = "exp",
    tau: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> ClassificationReport:
    """Return how well votes, a probe and words tell the classes of a knowledge base apart, on members that never train.

    A fifth of the members, by a digest of the object_id, is the frozen test, the one of `train_probe`; the others vote
    and train. Votes are those of the `k` nearest, weighted by `weight` and `tau`. `labels` is a YAML file as for
    `Atlas.label`, whose labels are called like classes of the base; without it words are not judged, and where a label
    is not convincing there is no answer, which counts as wrong. Nothing is written.

    Raises QueryError for a base that there is not or of numbers, too few members, or labels that are no class.
    """
    opened = nullcontext(atlas) if isinstance(atlas, Atlas) else open_atlas(atlas, device=device)
    with opened as there:
        electorate = there._electorate(base, version, None)
        if electorate.base.kind != CLASS:
            raise QueryError(f"base '{base}' has numbers as labels, and a report is of classes")
        store, known, members = there._store, electorate.base, electorate.members
        training, test = frozen_parts(store, known, members)
        vectors, truth = store.vectors_of(known.embedding, members.rows[test]), members.codes[test]
        steps = 2 + (labels is not None)
        progress(0, steps, "votes")
        voters = Electorate(store, replace(known, version=0, calibration=None), members.at(training))
        way = Way(k=k, weight=weight, tau=tau)
        voted = classify(voters, [None] * len(test), vectors, way, names=[""] * len(test))
        by_system = {VOTES: _in_order(voted.probabilities, voters.members, members)}
        progress(1, steps, "training a probe")
        trained = store.vectors_of(known.embedding, members.rows[training])
        by_system[PROBE] = Probe.calibrated(trained, members.codes[training], seed=seed).probabilities(vectors)
        systems = [judged(name, values, truth, members.classes, seed=seed) for name, values in by_system.items()]
        if labels is not None:
            progress(2, steps, "words")
            given = _by_words(there, labels, known.embedding, store.ids(members.rows[test]), members.classes)
            systems.append(_judged(WORDS, given, truth, members.classes, seed=seed))
        progress(steps, steps, "judged")
    return ClassificationReport(base, known.version, members.classes, len(training), tuple(systems))


def judged(
    system: str, probabilities: np.ndarray, truth: np.ndarray, classes: tuple[str, ...], *, seed: int
) -> ClassifierFigures:
    """Return the figures of probabilities `(n, c)` of classes whose true numbers are `truth (n,)`."""
    chance = np.maximum(probabilities[np.arange(len(truth)), truth], np.finfo(float).tiny)
    loss = float(-np.log(chance).mean())
    answers = _Given(probabilities.argmax(axis=1), probabilities.max(axis=1), loss)
    return _judged(system, answers, truth, classes, seed=seed)


class _Given(NamedTuple):
    """What a classifier says: class numbers `(n,)`, -1 for none, their claimed probability, its log-loss if known."""

    numbers: np.ndarray
    claimed: np.ndarray
    loss: float | None


def _judged(
    system: str, answers: _Given, truth: np.ndarray, classes: tuple[str, ...], *, seed: int
) -> ClassifierFigures:
    """Return the figures of the answers to objects whose true class numbers are `truth (n,)`."""
    given, claimed, loss = answers
    c, right, answered = len(classes), (given == truth).astype(float), given >= 0
    counts = np.bincount(truth[answered] * c + given[answered], minlength=c * c).reshape(c, c)
    rows = [_of_class(counts, truth, number, name) for number, name in enumerate(classes)]
    low, high = bootstrap_interval(right, seed=seed) or (None, None)
    there = [row for row in rows if row["members"]]
    figures = {
        "tested": len(truth),
        "answered": int(answered.sum()),
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(np.mean([row["recall"] for row in there])),
        "macro_f1": float(np.mean([row["f1"] for row in there])),
        "log_loss": loss,
        "calibration_error": calibration_error(claimed[answered], right[answered]),
    }
    return ClassifierFigures(system, tuple(tuple(line) for line in counts.tolist()), figures, tuple(rows))


def _of_class(counts: np.ndarray, truth: np.ndarray, number: int, name: str) -> dict[str, Any]:
    hits, called, members = int(counts[number, number]), int(counts[:, number].sum()), int((truth == number).sum())
    return {
        "class": name,
        "members": members,
        "precision": hits / called if called else None,
        "recall": hits / members if members else None,
        "f1": 2 * hits / (called + members) if called + members else None,
    }


def calibration_error(claimed: np.ndarray, right: np.ndarray) -> float | None:
    """Return how far claimed probabilities are from how often they are right, weighed by BINS bins of equal width.

    The expected calibration error of Naeini, Cooper and Hauskrecht (2015, AAAI). None without any.
    """
    if not len(claimed):
        return None
    number = np.minimum((claimed * BINS).astype(int), BINS - 1)
    sums = [np.bincount(number, values, minlength=BINS) for values in (claimed, right)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(claimed))


def _in_order(probabilities: np.ndarray, voters: Members, members: Members) -> np.ndarray:
    """Return probabilities of the classes of all members; a class that no voter has gets 0."""
    result = np.zeros((len(probabilities), len(members.classes)))
    result[:, [members.classes.index(name) for name in voters.classes]] = probabilities
    return result


def _by_words(atlas: Atlas, labels: str | Path, embedding: str, ids: list[str], classes: tuple[str, ...]) -> _Given:
    """Return the class that words give each object."""
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
    table = atlas.label(labels, by=embedding, where=f"object_id IN ({listed})")
    rows = {row["object_id"]: row for row in table.to_pylist()}
    unknown = {row["best"] for row in rows.values()} - set(classes) - {None}
    if unknown:
        raise QueryError(
            f"{labels}: the label {min(unknown)!r:.40} is no class of the base, whose classes are "
            f"{', '.join(classes)}; call the labels so"
        )
    number = {name: code for code, name in enumerate(classes)}
    given = np.array([number.get(rows[name]["label"], -1) for name in ids])
    return _Given(given, np.array([rows[name]["probability"] or 0.0 for name in ids]), None)


def _table(rows: list[dict[str, Any]], columns: tuple[tuple[str, str], ...]) -> pa.Table:
    kinds = {"system": pa.string(), "class": pa.string(), "tested": pa.int64(), "answered": pa.int64()}
    kinds["members"] = pa.int64()
    fields = [
        formats.describe(pa.field(name, kinds.get(name, pa.float64())), description=about) for name, about in columns
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
