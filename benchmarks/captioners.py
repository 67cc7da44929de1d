"""How much of what people said of galaxies our captions say, without a person: `python -m benchmarks.captioners`.

Captions by measurements of EFIGI and Galaxy Zoo 1 pictures are read by `galsearch.language.decision_tree`, as captions
of vision models are, and compared with the labels of experts and volunteers, put into the same tree. Thresholds were
set with one half of the galaxies, drawn by the SHA-256 of their file names; figures of the other half count, with
bootstrap 95 % intervals over galaxies.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from galsearch.captions import labels, measurements
from galsearch.language import decision_tree, templates
from galsearch.science import detection, images

SETS = ("efigi", "gz1")
RESAMPLES = 2000
ANSWERS = {  # what a label says -> question and answer; of merging EFIGI says nothing
    **{("kind", kind): ("smooth-or-featured", "smooth") for kind in ("elliptical", "dwarf")},
    **{
        ("kind", kind): ("smooth-or-featured", "featured-or-disk")
        for kind in ("lenticular", "early spiral", "spiral", "irregular", "disk", "merger")
    },
    ("roundness", "round"): ("how-rounded", "round"),
    ("roundness", "oval"): ("how-rounded", "in-between"),
    ("roundness", "cigar"): ("how-rounded", "cigar-shaped"),
    ("view", "edge-on"): ("disk-edge-on", "yes"),
    ("view", "inclined"): ("disk-edge-on", "no"),
    ("view", "face-on"): ("disk-edge-on", "no"),
    **{("edge_bulge", answer): ("edge-on-bulge", answer) for answer in ("rounded", "boxy", "none")},
    ("arms", "none"): ("has-spiral-arms", "no"),
    **{("arms", answer): ("has-spiral-arms", "yes") for answer in ("weak", "present", "strong")},
    **{("winding", answer): ("spiral-winding", answer) for answer in ("tight", "medium", "loose")},
    **{("arm_count", answer): ("spiral-arm-count", answer) for answer in "1234"},
    **{("bar", answer): ("bar", answer) for answer in ("strong", "weak")},
    ("bar", "none"): ("bar", "no"),
    **{("bulge", answer): ("bulge-size", answer) for answer in ("dominant", "large", "moderate", "small", "none")},
    ("disturbance", "merger"): ("merging", "merger"),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GALSEARCH_DATA"), help="folder with galaxies/")
    parser.add_argument("--limit", type=int, default=1500, help="pictures of each set, chosen by hash")
    parser.add_argument("--half", choices=("held-out", "tuning"), default="held-out")
    args = parser.parse_args()
    if not args.data:
        parser.error("no folder: give --data, or set GALSEARCH_DATA to the folder that has galaxies/")
    rules, _ = labels.read_rules(None)
    for name in SETS:
        rows = measured(Path(args.data) / "galaxies", name, args.limit)
        shares = measurements.Shares(
            {column: np.array([_number(row.get(column)) for row in rows]) for column in measurements.COLUMNS}
        )
        chosen = [row for row in rows if _is_tuning(row["file"]) == (args.half == "tuning")]
        print("\n".join(report(name, args.half, judged(chosen, shares, rules))))


def measured(folder: Path, name: str, limit: int) -> list[dict]:
    """Return the rows of a set with what its pictures measure."""
    with (folder / f"{name}.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: _digest(row["file"]))[:limit]
    for row in rows:
        row |= {key: value or None for key, value in row.items()}
        row |= detection.measure(images.render(images.read_picture(folder / name / row["file"])))
    return rows


def judged(rows: Iterable[dict], shares: measurements.Shares, rules: list[labels.Rule]) -> list[tuple[dict, dict]]:
    """Return what the labels and what the caption answer, for galaxies whose labels answer anything."""
    found = []
    for row in rows:
        truth = decision_tree.path(answers(labels.say(row, rules)))
        if truth:
            caption = templates.write(measurements.say(row, shares), object_id=row["file"], seed=0)
            found.append((truth, decision_tree.path(decision_tree.read(caption.text)) if caption else {}))
    return found


def answers(said: dict[str, str]) -> dict[str, str]:
    """Return the answers of the tree that labels give."""
    return dict(ANSWERS[pair] for pair in said.items() if pair in ANSWERS)


def report(name: str, half: str, found: list[tuple[dict, dict]]) -> list[str]:
    """Return the lines of one set: the whole path, then each question."""
    overlap = np.array([len(truth.items() & mine.items()) / len(truth) for truth, mine in found])
    draws = np.random.default_rng(0).integers(0, len(overlap), (RESAMPLES, len(overlap)))
    low, high = np.quantile(overlap[draws].mean(axis=1), [0.025, 0.975])
    lines = [f"{name}, {half} half, n = {len(found)}: path overlap {overlap.mean():.3f} [{low:.3f}, {high:.3f}]"]
    for question in decision_tree.TREE:
        asked = [(truth[question], mine.get(question)) for truth, mine in found if question in truth]
        said = [right == answer for right, answer in asked if answer is not None]
        if asked:
            share = f"{np.mean(said):.2f}" if said else "–"
            lines.append(
                f"  {question:20} n {len(asked):5}  answered {len(said) / len(asked):.2f}  right of those {share}"
            )
    return lines


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _is_tuning(name: str) -> bool:
    return int(_digest(f"split{name}"), 16) % 2 == 1


def _number(value: object) -> float:
    return np.nan if value is None or isinstance(value, str) else float(value)


if __name__ == "__main__":
    main()
