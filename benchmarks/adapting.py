"""What fitting words to verdicts gains, and what fitting them to pictures alone does. `python -m benchmarks.adapting`.

Real galaxies of the sets that GALSEARCH_DATA names, none of whose labels the models were trained on: of EFIGI those
outside of the project's training part, and Galaxy Zoo 2 mergers among its others. A simulated reviewer
judges the first LISTED hits of a query text and as many drawn at random, and errs at NOISE. Half of the verdicts teach,
half judge, as `galsearch adapt` does it. Then everything that was not judged says what it is worth: AUROC and
precision@50 of the text before and after, AUROC of a paraphrase, and the least cosine of 24 other texts with themselves
corrected. Means over REVIEWERS, with bootstrap intervals of 95 % over them.

Beside it the other way, without any label: scores by the inverse covariance of the set, shrunk by a factor of its mean
variance. Writes docs/adapting.json.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from export.prepare import data_folder, labeled_rows
from export.split import assign
from galsearch.encode import Encoder, shipped
from galsearch.science.adaptation import LEAST_MARKS, Correction, Marks, chosen_strength, fit, judge
from galsearch.science.metrics import auroc, bootstrap_interval

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "adapting.json"
CONCEPTS = Path(__file__).resolve().parent.parent / "galsearch" / "concepts.txt"
REVIEWERS, LISTED, NOISE, FIRST = 20, 100, 0.02, 50
ZOO = ("merging galaxies", "two galaxies colliding")
ATTRIBUTES = (  # of EFIGI, from 0 to 1 in quarters: a text and a paraphrase of it
    ("Visible_Dust", "dust lane", "dusty galaxy"),
    ("Hot_Spots", "spiral with star-forming knots", "clumps of star formation"),
    ("Bar_Length", "barred spiral", "galaxy with a bar"),
)
STRONG, WEAK = 0.5, ("0", "0.25")
SHRUNK_BY = (30.0, 10.0, 3.0, 1.0)


@dataclass(frozen=True)
class Subject:
    """A text to search in a set, a paraphrase of it, and who is meant."""

    name: str
    text: str
    paraphrase: str
    vectors: np.ndarray
    wanted: np.ndarray


def subjects(encoder: Encoder) -> list[Subject]:
    """Return what is tried, with the vectors of the pictures."""
    data = data_folder()
    labeled = list(labeled_rows(data))
    _, parts = assign(labeled)
    held_out = [row for row, part in zip(labeled, parts, strict=True) if part != "train"]
    efigi = [row for row in held_out if row["set"] == "efigi"]
    zoo = [
        {**row, "path": data / "galaxies" / name / row["file"]}
        for name in ("gz2", "gz2_mergers")
        for row in csv.DictReader((data / "galaxies" / f"{name}.csv").open(newline=""))
        if row["label"] != "odd_spiral"  # which holds overlooked interactions
    ]
    result = [_subject(encoder, ("Galaxy Zoo 2", *ZOO), zoo, lambda row: row["label"] == "merger")]
    for column, *texts in ATTRIBUTES:
        rows = [row for row in efigi if row[column] and (float(row[column]) >= STRONG or row[column] in WEAK)]
        result.append(_subject(encoder, ("EFIGI", *texts), rows, lambda row, at=column: float(row[at]) >= STRONG))
    return result


def _subject(encoder: Encoder, names: tuple, rows: list[dict], is_wanted: Callable[[dict], bool]) -> Subject:
    pictures = (np.asarray(Image.open(row["path"]).convert("RGB")) for row in rows)
    return Subject(*names, encoder.encode(pictures), np.array([is_wanted(row) for row in rows]))


@dataclass(frozen=True)
class Outcome:
    """What one reviewer's verdicts came to, on who was not judged."""

    is_used: bool
    auroc: tuple[float, float]
    precision: tuple[float, float]
    paraphrase: tuple[float, float]
    kept: float


def review(one: Subject, words: Encoder, guards: np.ndarray, *, seed: int) -> Outcome | None:
    """Let a reviewer judge, adapt, and measure on the rest; None where there are too few verdicts."""
    rng = np.random.default_rng(seed)
    text, paraphrase = words.encode([one.text, one.paraphrase])
    order = np.argsort(-(one.vectors @ text), kind="stable")
    chosen = np.concatenate([order[:LISTED], rng.choice(order[LISTED:], LISTED, replace=False)])
    said = one.wanted[chosen] ^ (rng.random(len(chosen)) < NOISE)
    half = rng.permutation(len(chosen)) % 2 == 0
    training, judging = (Marks(text, one.vectors[chosen[part]], said[part]) for part in (half, ~half))
    if min(training.fewest, judging.fewest) < LEAST_MARKS:
        return None
    strength = chosen_strength([training], seed=seed)
    corrected = Correction(np.zeros((1, len(text))), np.zeros((1, len(text))))
    if strength is not None:
        learned = fit([training], guards, strength=strength)
        is_better = judge([judging], [text], [learned(text[None])[0]], seed=seed).low > 0
        corrected = learned if is_better else corrected
    rest = np.setdiff1d(np.arange(len(one.wanted)), chosen)
    others = guards[guards @ text < 0.5]
    return Outcome(
        is_used=bool(corrected.gates.any()),
        auroc=tuple(_auroc(one, rest, vector) for vector in (text, corrected(text[None])[0])),
        precision=tuple(_precision(one, rest, vector) for vector in (text, corrected(text[None])[0])),
        paraphrase=tuple(_auroc(one, rest, vector) for vector in (paraphrase, corrected(paraphrase[None])[0])),
        kept=float((others * corrected(others)).sum(axis=1).min()),
    )


def _auroc(one: Subject, rows: np.ndarray, vector: np.ndarray) -> float:
    return auroc((one.vectors[rows] @ vector).tolist(), one.wanted[rows].tolist()) or 0.0


def _precision(one: Subject, rows: np.ndarray, vector: np.ndarray) -> float:
    best = rows[np.argsort(-(one.vectors[rows] @ vector), kind="stable")[:FIRST]]
    return float(one.wanted[best].mean())


def summary(one: Subject, outcomes: list[Outcome]) -> dict:
    """Return the means over reviewers, with intervals of the differences."""
    facts: dict = {"set": one.name, "text": one.text, "objects": len(one.wanted), "wanted": int(one.wanted.sum())}
    facts |= {"reviewers": len(outcomes), "in use": sum(outcome.is_used for outcome in outcomes)}
    for name in ("auroc", "precision", "paraphrase"):
        pairs = np.array([getattr(outcome, name) for outcome in outcomes])
        gains = pairs[:, 1] - pairs[:, 0]
        facts[name] = [
            *pairs.mean(axis=0).round(3).tolist(),
            *np.round(bootstrap_interval(gains, seed=0) or (), 3).tolist(),
        ]
    return facts | {"kept": round(min(outcome.kept for outcome in outcomes), 4)}


def without_labels(one: Subject, text: np.ndarray) -> list[float]:
    """Return the AUROC of the text as it is, then by the inverse covariance of the set, less and less shrunk."""
    covariance = np.cov(one.vectors.T)
    mean, every = np.trace(covariance) / len(covariance), np.eye(len(covariance))
    turned = [np.linalg.solve(covariance + factor * mean * every, text) for factor in SHRUNK_BY]
    rows = np.arange(len(one.wanted))
    return [round(_auroc(one, rows, vector), 3) for vector in (text, *turned)]


def main() -> None:
    """Measure, print and write."""
    words = Encoder.from_folder(shipped("text"))
    guards = words.encode(
        [line.strip() for line in CONCEPTS.read_text().splitlines() if line.strip()[:1] not in ("", "#")]
    )
    every = subjects(Encoder.from_folder(shipped("image")))
    learned = []
    for one in every:
        outcomes = [review(one, words, guards, seed=seed) for seed in range(REVIEWERS)]
        there = [outcome for outcome in outcomes if outcome is not None]
        learned.append(summary(one, there) if there else {"set": one.name, "text": one.text, "reviewers": 0})
        print(learned[-1], flush=True)
    plain = {f"{one.name}: {one.text}": without_labels(one, words.encode([one.text])[0]) for one in every}
    print(json.dumps(plain, indent=1))
    facts = {"model": words.model_id, "listed": LISTED, "noise": NOISE, "shrunk_by": SHRUNK_BY}
    DOCUMENT.write_text(json.dumps(facts | {"learned": learned, "without_labels": plain}, indent=1) + "\n")


if __name__ == "__main__":
    main()
