"""Whether reading captions by rules agrees with a judge that is a language model: `python -m benchmarks.captions`.

2,686 captions that 13 vision models wrote of 64 galaxies of Galaxy Zoo DECaLS come with a language model's reading of
each into the decision tree, and with the volunteers' path (AION-Search, MIT). `galsearch.language.decision_tree` reads
the same captions. The lexicon was written and weighed with the captions of half of the galaxies, those whose object_id
comes first in the order of SHA-256; figures for the other half and for all are printed and written to docs/captions.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import rankdata

from galsearch.language import decision_tree

FILE = "captions/vlm_captions_gz_decals.parquet"
DOCUMENT = Path(__file__).parents[1] / "docs" / "captions.md"
JUDGED = {  # what the stored judge calls the questions
    "smooth-or-featured": "overall_shape",
    "how-rounded": "roundness",
    "disk-edge-on": "edge_on",
    "edge-on-bulge": "edge_on_bulge",
    "has-spiral-arms": "has_spiral_arms",
    "spiral-winding": "spiral_winding",
    "spiral-arm-count": "spiral_arm_count",
    "bar": "bar",
    "bulge-size": "bulge_size",
    "merging": "merging",
}
SILENT, NOT_ASKED = "not-mentioned", "not asked"
BAR = 0.85
RESAMPLES = 2000
HALVES = {"held-out half": (False,), "half for tuning": (True,), "all": (False, True)}


def main() -> None:
    """Read the captions, print the tables and write them to the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("GALSEARCH_DATA"), help="folder that has captions/")
    parser.add_argument("--out", type=Path, default=DOCUMENT, help="document whose generated part is written")
    args = parser.parse_args()
    if not args.data:
        parser.error(f"no folder: give --data, or set GALSEARCH_DATA to the folder that has {FILE}")
    text = "\n".join(report(judged(Path(args.data))))
    print(text)
    args.out.write_text(filled(args.out.read_text(), text))


def judged(data: Path) -> list[dict]:
    """Return a row for every caption: model, galaxy, whether it was for tuning, both readings, their score and ours."""
    columns = ["model", "object_id", "caption", "galaxy_zoo_tree", "judge_tree", "tree_score"]
    rows = pq.read_table(data / FILE, columns=columns).to_pylist()
    tuned_on = for_tuning(row["object_id"] for row in rows)
    found = []
    for row in rows:
        said = decision_tree.read(row["caption"])
        truth = {step["question"]: step["answer"] for step in json.loads(row["galaxy_zoo_tree"])}
        found.append(
            {
                "model": row["model"],
                "galaxy": row["object_id"],
                "tuned_on": row["object_id"] in tuned_on,
                "ours": as_asked(said),
                "theirs": {
                    question: _judged(json.loads(row["judge_tree"]), question) for question in decision_tree.TREE
                },
                "overlap": decision_tree.overlap(said, truth),
                "their_score": row["tree_score"],
            }
        )
    return found


def for_tuning(object_ids: Iterable[str]) -> set[str]:
    """Return the half of the galaxies whose ids come first in the order of their SHA-256."""
    ids = sorted(set(object_ids), key=lambda each: hashlib.sha256(each.encode()).hexdigest())
    return set(ids[: len(ids) // 2])


def as_asked(said: dict[str, str | None]) -> dict[str, str]:
    """Return the answer to every question as the stored judge writes it: silence and questions not reached apart."""
    way = decision_tree.path(said)
    reached = {
        question
        for question, (_, after) in decision_tree.TREE.items()
        if not after or any(way.get(before) == answer for before, answer in after)
    }
    return {
        question: way.get(question, SILENT) if question in reached else NOT_ASKED for question in decision_tree.TREE
    }


def _judged(tree: dict[str, str | None], question: str) -> str:
    answer = tree[JUDGED[question]]
    if answer is None:
        return NOT_ASKED
    return answer.removeprefix("edge-on-").removeprefix("has-spiral-arms-")


# ---- figures


def agreement(rows: list[dict], question: str, *, asked_by_both: bool, seed: int = 0) -> dict:
    """Return how often both readings are equal, Cohen's kappa, n, and 95 % intervals from resampling galaxies."""
    pairs = [(row["galaxy"], row["theirs"][question], row["ours"][question]) for row in rows]
    if asked_by_both:
        pairs = [pair for pair in pairs if NOT_ASKED not in pair[1:]]
    answers = sorted({answer for pair in pairs for answer in pair[1:]})
    galaxies = sorted({pair[0] for pair in pairs})
    counts = np.zeros((len(galaxies), len(answers), len(answers)))
    for galaxy, theirs, ours in pairs:
        counts[galaxies.index(galaxy), answers.index(theirs), answers.index(ours)] += 1
    drawn = np.tensordot(_draws(len(galaxies), seed), counts, axes=1)
    equal, kappa = _equal_and_kappa(counts.sum(axis=0)[None])
    equals, kappas = _equal_and_kappa(drawn)
    return {
        "n": len(pairs),
        "galaxies": len(galaxies),
        "equal": (float(equal[0]), *_interval(equals)),
        "kappa": (float(kappa[0]), *_interval(kappas)),
    }


def ranking(rows: list[dict], *, seed: int = 0) -> dict:
    """Return the mean score of every model by both judges, and the correlation of the two orders with its interval."""
    models, galaxies = (sorted({row[name] for row in rows}) for name in ("model", "galaxy"))
    sums = np.zeros((3, len(galaxies), len(models)))  # ours, theirs, captions
    for row in rows:
        at = galaxies.index(row["galaxy"]), models.index(row["model"])
        sums[(slice(None), *at)] += row["overlap"].path_overlap, row["their_score"], 1
    ours, theirs, captions = sums.sum(axis=1)
    drawn = np.tensordot(_draws(len(galaxies), seed), sums, axes=(1, 1))  # (resamples, 3, models)
    orders = [spearman(each[0] / each[2], each[1] / each[2]) for each in drawn]
    means = drawn[:, 0] / drawn[:, 2]
    table = [
        {
            "model": model,
            "captions": int(captions[at]),
            "ours": (float(ours[at] / captions[at]), *_interval(means[:, at])),
            "theirs": float(theirs[at] / captions[at]),
            "precision": _mean(row["overlap"].precision for row in rows if row["model"] == model),
            "coverage": _mean(row["overlap"].coverage for row in rows if row["model"] == model),
        }
        for at, model in enumerate(models)
    ]
    return {
        "models": sorted(table, key=lambda row: (-row["theirs"], row["model"])),
        "spearman": (spearman(ours / captions, theirs / captions), *_interval(np.array(orders))),
    }


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation of two series, equal values sharing their mean rank."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def _equal_and_kappa(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share on the diagonal of `(m, a, a)` counts, and Cohen's kappa (1960, Educ. Psychol. Meas. 20, 37)."""
    shares = counts / counts.sum(axis=(1, 2), keepdims=True)
    equal = np.trace(shares, axis1=1, axis2=2)
    by_chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    return equal, (equal - by_chance) / np.maximum(1 - by_chance, 1e-12)


def _draws(galaxies: int, seed: int) -> np.ndarray:
    """Return how often each galaxy is in each of the resamples, `(RESAMPLES, galaxies)`."""
    return np.random.default_rng(seed).multinomial(galaxies, np.full(galaxies, 1 / galaxies), RESAMPLES).astype(float)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: Iterable[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


# ---- words


def report(rows: list[dict]) -> Iterable[str]:
    """Yield the lines of the generated part."""
    parts = {name: [row for row in rows if row["tuned_on"] in halves] for name, halves in HALVES.items()}
    rankings = {name: ranking(part) for name, part in parts.items()}
    yield "## Ranking of the models"
    yield ""
    head = ("captions", "models", "galaxies", "n", "Spearman", "asked", "")
    yield from table(head, (_order(name, parts[name], rankings[name]) for name in HALVES))
    for name in ("held-out half", "all"):
        yield from ("", f"Mean path overlap by model, {name}:", "")
        head = ("model", "n", "stored judge", "rules", "95 % interval", "precision", "coverage")
        yield from table(head, (_model(row) for row in rankings[name]["models"]))
    for name in ("held-out half", "all"):
        yield from ("", f"## Agreement by question, {name}", "")
        head = ("question", "n", "galaxies", "equal", "kappa", "over all captions: equal", "kappa")
        yield from table(head, (_question(parts[name], question) for question in decision_tree.TREE))


def _order(name: str, part: list[dict], found: dict) -> tuple[object, ...]:
    met = "met" if found["spearman"][0] >= BAR else "**missed**"
    galaxies = len({row["galaxy"] for row in part})
    return name, len(found["models"]), galaxies, f"{len(part):,}", _figure(found["spearman"]), f"at least {BAR}", met


def _model(row: dict) -> tuple[object, ...]:
    mean, low, high = row["ours"]
    shares = (f"{row[name]:.3f}" for name in ("precision", "coverage"))
    return row["model"], row["captions"], f"{row['theirs']:.3f}", f"{mean:.3f}", f"{low:.3f}–{high:.3f}", *shares


def _question(part: list[dict], question: str) -> tuple[object, ...]:
    both, everywhere = (agreement(part, question, asked_by_both=asked) for asked in (True, False))
    figures = (_figure(found[name]) for found in (both, everywhere) for name in ("equal", "kappa"))
    return question, f"{both['n']:,}", both["galaxies"], *figures


def _figure(values: tuple[float, float, float]) -> str:
    return "{:.2f} ({:.2f}–{:.2f})".format(*values)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterable[str]:
    """Yield the lines of a Markdown table."""
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join(["---"] * len(head)) + " |"
    yield from ("| " + " | ".join(map(str, row)) + " |" for row in rows)


def filled(page: str, part: str) -> str:
    """Return the page with what lies between its two marks replaced; ValueError where it has not both."""
    begin, end = "<!-- written by benchmarks.captions -->", "<!-- end of what is written by benchmarks.captions -->"
    whole = f"{begin}\n\n{part.strip()}\n\n{end}"
    page, times = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: whole, page, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"the page has {times} parts between {begin} and {end}; it must have one")
    return page


if __name__ == "__main__":
    main()
