"""What re-ranking is worth: nDCG@10 before and after, without marks and with a few, on held-out objects.

    python -m benchmarks.rerank FOLDER --choose   # on the validation part; writes galsearch/rerank/validated.json
    python -m benchmarks.rerank FOLDER            # figures, on the test part, read once

FOLDER is for the atlases, which are built there the first time from the sets in the folder that GALSEARCH_DATA names:
`export.heldout` (real galaxies) and `export.lenses` (semi-synthetic lenses), each for the validation and the test part.
What is measured is the code that users call, on looks at all pictures that are taken once; one answer of `hits.rerank`
is compared with it first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np

import galsearch
from export.heldout import chosen
from export.prepare import data_folder
from galsearch import schema
from galsearch.evaluation import resampling
from galsearch.evaluation.judged import Judged, judge
from galsearch.evaluation.targets import Target, read_targets
from galsearch.query import Plan, Query, Term
from galsearch.rerank import probe, validated
from galsearch.rerank.arcs import arc_contrast
from galsearch.rerank.attributes import BY_NAME, match
from galsearch.rerank.local import Sight, choose
from galsearch.rerank.observe import Objects, Observer
from galsearch.rerank.order import Marks
from galsearch.rerank.views import SCALES
from galsearch.retrieval import Result
from galsearch.science import images
from galsearch.science.metrics import Ranked, auroc
from galsearch.science.ranking import Scorer

K, DEPTHS = 10, (10, 30)  # a choice looks deeper than the first ten, which hang on single objects
LOOKED_AT = (200, 1000)
VALIDATED_AT = 200
ROUNDS, BOOTSTRAPS = 20, 200
MARKS, MARK_DRAWS, HARD = (5, 20), 12, 50  # negatives are marked among the first HARD wrong hits
LENS, FACE_ON = "semi-synthetic lens", "face-on (in the mix)"
PENALTY = 0.005  # on the figure that a choice goes by, for each unit of weight: of near equals the smallest is taken
QUESTIONS = {  # attribute -> the target that it is chosen on, and the prevalence (None: as it is)
    "spiral": ("spiral", 0.26),
    "elliptical": ("elliptical", 0.26),
    "edge-on": ("edge-on", 0.10),
    "face-on": (FACE_ON, None),
    "barred": ("barred (EFIGI)", None),
    "unbarred": ("unbarred spiral (EFIGI)", None),
    "ring": ("ring (EFIGI)", None),
    "irregular": ("irregular (EFIGI)", None),
    "dusty": ("dusty (EFIGI)", None),
    "flocculent": ("flocculent (EFIGI)", None),
    "merging": ("merging (Galaxy Zoo)", 0.02),
    "lens": (LENS, 0.01),
}
REPORTED = {target: (prevalence,) for target, prevalence in QUESTIONS.values() if target != LENS}
REPORTED |= {LENS: (0.01, 0.001), "lens candidate (Space Warps)": (None,)}
TAUGHT = {  # targets that are also asked for with marks
    "ring (EFIGI)": None,
    "barred (EFIGI)": None,
    "irregular (EFIGI)": None,
    "merging (Galaxy Zoo)": 0.02,
    LENS: 0.01,
}
PROBES = ((0.4, 4.0), (0.13, 4.0), (1.3, 4.0), (0.4, 2.0), (0.4, 8.0))  # pull and full weight
PROFILES = (  # which scales are looked at
    {},
    {"whole": 1.0},
    {"close": 1.0},
    {"core": 1.0},
    {"corners": 1.0},
    {"close": 0.5, "core": 0.5},
    {"whole": 0.5, "close": 0.5},
    {"whole": 0.4, "close": 0.3, "core": 0.3},
    {"whole": 0.25, "close": 0.25, "core": 0.25, "corners": 0.25},
    {"close": 0.5, "corners": 0.5},
)
STRENGTHS, MEASURED = (1.0, 2.0, 4.0), (0.0, 0.25, 0.5, 1.0, 2.0)


# ---- atlases


def atlases(folder: Path, split: str) -> tuple[Path, Path]:
    """Return the atlas of held-out galaxies and that of semi-synthetic lenses of a part, built where they are not."""
    held, lenses = folder / f"held-{split}", folder / f"lens-{split}"
    paths = held / f"{split}.atlas", lenses / "lenses.atlas"
    for path, module in zip(paths, ("export.heldout", "export.lenses"), strict=True):
        if not path.exists():
            make = [sys.executable, "-m", module, str(path.parent), "--split", split]
            subprocess.run(make, check=True)
            build = ["build", str(path), "--images", str(path.parent / "pictures")]
            build += ["--table", str(path.parent / "table.parquet")]
            subprocess.run([sys.executable, "-m", "galsearch.cli", *build], check=True)
    return paths


class Seen(Observer):
    """Looks at every object of an atlas once, and remembers them, and the pictures of marks."""

    def __init__(self, atlas: galsearch.Atlas) -> None:
        super().__init__(atlas._store, lambda: atlas._encoder("image"))
        every = super().rows(np.sort(atlas._store.listed(None, k=len(atlas))[0]))
        self.every = Objects(every.vectors, every.measures, lambda scale: self._kept(scale, every))
        self._terms: dict[Term, Objects] = {}

    def _kept(self, scale: str, every: Objects) -> np.ndarray:
        """Return the looks at a scale from the file beside the atlas; made the first time, as they take minutes."""
        made_with = self._store.manifest.embeddings[self.embedding]["sha256"][:12]
        file = self._store.path.with_name(f"looks-{scale}-{made_with}.npy")
        if not file.exists():
            np.save(file, every.look(scale))
        return np.load(file)

    def rows(self, rows: np.ndarray) -> Objects:
        return self.every.take(rows)

    def _term(self, term: Term) -> Objects:
        if term not in self._terms:
            self._terms[term] = super()._term(term)  # which looks at the picture once, and remembers that
        return self._terms[term]


@dataclass
class Part:
    """One atlas of one part of the split: open, looked at, with its targets."""

    atlas: galsearch.Atlas
    seen: Seen
    targets: dict[str, Target]
    pictures: Path

    @classmethod
    def of(cls, path: Path) -> Part:
        atlas, own = galsearch.open(path, device="cpu"), path.parent / "targets.toml"
        read = read_targets(own if own.exists() else None)
        targets = {each.name: each for each in read.targets}
        if "face-on (EFIGI)" in targets:
            targets[FACE_ON] = face_on_in_the_mix(targets["face-on (EFIGI)"])
        return cls(atlas, Seen(atlas), targets, path.parent / "pictures")


def face_on_in_the_mix(target: Target) -> Target:
    """Return the target with round ellipticals among those not to be found: the shipped one has disks only, and with
    these alone the axis ratio would seem to say everything."""
    candidates = f"({target.candidates}) OR T <= -4 OR T >= 10 OR gz1_class = 'elliptical'"
    return replace(target, name=FACE_ON, candidates=candidates)


@dataclass
class Asked:
    """The candidates of a target, and what every question in words gives: base scores and sights."""

    part: Part
    judged: Judged
    objects: Objects
    sights: list[Sight]
    base: np.ndarray  # (queries, n)

    @classmethod
    def of(cls, part: Part, name: str) -> Asked:
        judged = judge(part.atlas._store, part.targets[name])
        objects = part.seen.rows(judged.rows)
        sights = [sight_of(part, words) for words in judged.target.queries]
        return cls(part, judged, objects, sights, np.stack([sight.base(objects) for sight in sights]))


def sight_of(part: Part, words: str) -> Sight:
    """Return what a question in words is to the library."""
    scorer = Scorer(part.atlas.embed(words))
    found = Result(np.empty(0, np.int64), np.empty(0), Plan("exact", 0, 0, exact=True), scorer=scorer)
    return Sight(part.atlas._store, part.seen, Query((Term("text", words),)), found)


# ---- measuring


def sets(asked: Asked, prevalence: float | None, *, rounds: int, pick: resampling.Pick, seed: int) -> list[np.ndarray]:
    """Return candidate sets as places, each of the prevalence; with None, all candidates or draws of them."""
    relevant = asked.judged.relevant
    if prevalence is None and pick is resampling.shuffled:
        return [np.arange(len(relevant))]
    wanted = resampling.Sets(int(relevant.sum()), int((~relevant).sum()))
    if prevalence is not None:
        wanted = resampling.matched_sets(wanted.relevant, wanted.others, prevalence)
        if wanted is None:
            return []
    blocks = resampling.draws(relevant, wanted, rounds=rounds, pick=pick, seed=seed)
    counts = np.concatenate([block.reshape(-1, len(relevant)) for block in blocks])
    return [np.repeat(np.arange(len(relevant)), row) for row in counts]


def gains(
    base: np.ndarray, final: np.ndarray, relevance: np.ndarray, looked_at: int, depths: Sequence[int] = (K,)
) -> np.ndarray:
    """Return nDCG of a candidate set for every question, `(questions,)`: the mean over `depths`.

    `base` and `final` are `(questions, n)`; the first `looked_at` by `base` are put in the order of `final`.
    """
    if base.shape[1] > looked_at:
        least = -np.partition(-base, looked_at - 1, axis=1)[:, looked_at - 1 : looked_at]
        final = np.where(base >= least, final, base - 1e6)
    deepest = min(max(depths), base.shape[1])
    top = np.argpartition(-final, deepest - 1, axis=1)[:, :deepest]
    order = np.take_along_axis(top, np.argsort(-np.take_along_axis(final, top, axis=1), axis=1, kind="stable"), axis=1)
    worth, discounts = np.exp2(relevance) - 1, 1 / np.log2(np.arange(2, deepest + 2))
    best = np.sort(worth)[::-1][:deepest]
    found = [
        (worth[order[:, :depth]] * discounts[:depth]).sum(axis=1) / (best[:depth] * discounts[:depth]).sum()
        for depth in depths
    ]
    return np.mean(found, axis=0)


def mean_gain(
    asked: Asked, final: np.ndarray, drawn: Sequence[np.ndarray], looked_at: int, depths: Sequence[int] = (K,)
) -> np.ndarray:
    """Return the mean over questions of nDCG for each candidate set, `(sets,)`."""
    base, relevance = asked.base, asked.judged.relevance
    return np.array([gains(base[:, one], final[:, one], relevance[one], looked_at, depths).mean() for one in drawn])


def finals(asked: Asked) -> np.ndarray:
    """Return the final scores of all candidates without marks, `(queries, n)`."""
    return np.stack(
        [base + sum(sight.parts(asked.objects).values()) for base, sight in zip(asked.base, asked.sights, strict=True)]
    )


# ---- choosing


def looks_of(asked: Asked) -> np.ndarray:
    """Return the scores of every look, `(scales, queries, n)`."""
    return np.stack(
        [
            [probe.standard(sight.scorer.exact(asked.objects.look(scale)), sight.usual) for sight in asked.sights]
            for scale in SCALES
        ]
    )


def measures_of(asked: Asked, name: str) -> np.ndarray:
    """Return how candidates answer to an attribute, `(n,)`; it is asked for in all questions of the target."""
    return match(BY_NAME[name], asked.objects.measures, asked.part.seen.sample.measures)


def profiles() -> Iterator[dict[str, float]]:
    yield {}
    for profile, strength in product(PROFILES[1:], STRENGTHS):
        yield {name: strength * share for name, share in profile.items()}


def choose_weights(parts: Sequence[Part]) -> dict:
    """Return the weights for every attribute, and for questions of any other kind, with what they are worth."""
    chosen: dict[str, dict] = {}
    options = list(profiles())
    over_all = np.zeros(len(options))
    for name, (target, prevalence) in QUESTIONS.items():
        asked = Asked.of(next(part for part in parts if target in part.targets), target)
        drawn = sets(asked, prevalence, rounds=ROUNDS, pick=resampling.shuffled, seed=0)[:ROUNDS]
        looked, measured = looks_of(asked), measures_of(asked, name)
        grid = {}
        for number, (profile, weight) in enumerate(product(options, MEASURED)):
            final = asked.base + weight * measured
            final = final + sum(share * looked[list(SCALES).index(scale)] for scale, share in profile.items())
            grid[number] = mean_gain(asked, final, drawn, VALIDATED_AT, DEPTHS).mean()
            if weight == 0:
                over_all[number // len(MEASURED)] += grid[number] / len(QUESTIONS)
            grid[number] -= PENALTY * (weight + sum(profile.values()))
        best = max(grid, key=lambda number: (round(grid[number], 6), -number))
        profile, weight = options[best // len(MEASURED)], MEASURED[best % len(MEASURED)]
        final = asked.base + weight * measured
        final = final + sum(share * looked[list(SCALES).index(scale)] for scale, share in profile.items())
        before, after = (mean_gain(asked, one, drawn, VALIDATED_AT).mean() for one in (asked.base, final))
        relevant = int(asked.judged.relevant[drawn[0]].sum())
        chosen[name] = {
            "looks": profile if after >= before else {},
            "measures": weight if after >= before else 0.0,
            "target": target,
            "n": len(drawn[0]),
            "relevant": relevant,
            "before": round(float(before), 3),
            "after": round(float(max(after, before)), 3),
        }
        print(f"{name}: {chosen[name]}", flush=True)
    best = int(np.argmax(over_all - [PENALTY * sum(profile.values()) for profile in options]))
    chosen[validated.ANY] = {
        "looks": options[best],
        "measures": 0.0,
        "target": "the mean over all targets",
        "n": len(QUESTIONS),
        "relevant": len(QUESTIONS),
        "before": round(float(over_all[0]), 3),
        "after": round(float(over_all[best]), 3),
    }
    print(f"any: {chosen[validated.ANY]}", flush=True)
    return chosen


def choose_probe(parts: Sequence[Part]) -> None:
    """Print what pull and full weight of a probe are worth on validation objects; the best are in the code."""
    every = {target: Asked.of(next(part for part in parts if target in part.targets), target) for target in TAUGHT}
    for pull, full in PROBES:
        with patch.object(probe, "PULL", pull), patch.object(validated, "FULL", full):
            for count in MARKS:
                figures = {}
                for target, prevalence in TAUGHT.items():
                    ways = taught(every[target], every[target], count)
                    figures[target] = with_marks(every[target], ways, prevalence, VALIDATED_AT)["after"]
                said = ", ".join(f"{target} {value:.3f}" for target, value in figures.items())
                mean = np.mean(list(figures.values()))
                print(
                    f"pull {pull:g}, full weight {full:g}, {count}+{count} marks: mean {mean:.3f} ({said})", flush=True
                )


# ---- with marks


def marked(asked: Asked, count: int, random: np.random.Generator, question: int) -> tuple[Marks, np.ndarray]:
    """Return marks as a person would make them, and their places: relevant ones, and wrong hits among the first."""
    relevant = asked.judged.relevant
    wrong = np.flatnonzero(~relevant)
    wrong = wrong[np.argsort(-asked.base[question][wrong], kind="stable")][:HARD]
    positives = random.choice(np.flatnonzero(relevant), min(count, int(relevant.sum()) // 2), replace=False)
    negatives = random.choice(wrong, min(count, len(wrong)), replace=False)
    files = asked.part.atlas.rows(asked.judged.ids)["file"].to_pylist()

    def terms(places: np.ndarray) -> tuple[Term, ...]:
        return tuple(Term("image", str(asked.part.pictures / files[place])) for place in places.tolist())

    return Marks(terms(positives), terms(negatives)), np.concatenate([positives, negatives])


@dataclass
class Taught:
    """What one draw of marks led to: a question, its final scores, and the places of marks among the candidates."""

    question: int
    final: np.ndarray
    kept: bool
    marked: np.ndarray


def taught(asked: Asked, teacher: Asked, count: int) -> list[Taught]:
    """Return what MARK_DRAWS draws of marks from the teacher's candidates lead to, a question each in turn."""
    random, found = np.random.default_rng(0), []
    for draw in range(MARK_DRAWS):
        question = draw % len(asked.sights)
        marks, places = marked(teacher, count, random, question)
        way = choose(asked.sights[question], asked.part.seen, marks)
        base = asked.base[question]
        final = base if way.kept else base + sum(way.parts(asked.objects).values())
        found.append(Taught(question, final, way.kept, places if asked is teacher else np.empty(0, int)))
    return found


def with_marks(asked: Asked, ways: Sequence[Taught], prevalence: float | None, looked_at: int) -> dict[str, float]:
    """Return nDCG@10 before and after, the gain's bootstrap interval over draws, and how often the order stayed."""
    values = []
    for draw, way in enumerate(ways):
        drawn = sets(asked, prevalence, rounds=4, pick=resampling.resampled, seed=draw)[:20]
        drawn = [one[~np.isin(one, way.marked)] for one in drawn]
        base, relevance = asked.base[way.question], asked.judged.relevance
        pairs = [
            [gains(base[None, one], which[None, one], relevance[one], looked_at)[0] for which in (base, way.final)]
            for one in drawn
        ]
        values.append(np.mean(pairs, axis=0))
    before, after = np.transpose(values)
    resampled = np.random.default_rng(1).choice(after - before, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    kept = np.mean([way.kept for way in ways])
    named = {"before": before.mean(), "after": after.mean(), "gain_low": low, "gain_high": high, "kept": kept}
    return {name: float(value) for name, value in named.items()} | {"draws": len(ways)}


# ---- reporting


def report(parts: Sequence[Part], teachers: Sequence[Part]) -> dict:
    """Return every figure of the test part; marks come from the validation part."""
    rows = []
    for target, prevalences in REPORTED.items():
        asked, teacher = (
            Asked.of(next(part for part in some if target in part.targets), target) for some in (parts, teachers)
        )
        final, ways = finals(asked), {}
        if target in TAUGHT:
            ways = {count: taught(asked, teacher, count) for count in MARKS}
        for prevalence, looked_at in product(prevalences, LOOKED_AT):
            drawn = sets(asked, prevalence, rounds=ROUNDS, pick=resampling.shuffled, seed=0)[: 4 * ROUNDS]
            boots = sets(asked, prevalence, rounds=BOOTSTRAPS, pick=resampling.resampled, seed=1)[: 2 * BOOTSTRAPS]
            if not drawn or (looked_at > LOOKED_AT[0] and len(drawn[0]) <= LOOKED_AT[0]):
                continue
            row = {
                "target": target,
                "prevalence": prevalence,
                "n": len(drawn[0]),
                "relevant": int(asked.judged.relevant[drawn[0]].sum()),
                "questions": len(asked.sights),
                "looked_at": looked_at,
                "ceiling": ceiling(asked, drawn, looked_at),
            }
            row |= figures("before", [mean_gain(asked, asked.base, some, looked_at) for some in (drawn, boots)])
            row |= figures("local", [mean_gain(asked, final, some, looked_at) for some in (drawn, boots)])
            named = {"first_before": asked.base, "first_local": final}
            row |= {name: first_gain(asked, scores, drawn, looked_at) for name, scores in named.items()}
            gained = np.subtract(*(mean_gain(asked, one, boots, looked_at) for one in (final, asked.base)))
            row |= {"gain_low": float(np.quantile(gained, 0.025)), "gain_high": float(np.quantile(gained, 0.975))}
            row["marks"] = {str(count): with_marks(asked, some, prevalence, looked_at) for count, some in ways.items()}
            rows.append(row)
            print(line(row), flush=True)
    return {"rows": rows, "models": models(parts[0].atlas), "software": schema.software(), "created": schema.now()}


def first_gain(asked: Asked, final: np.ndarray, drawn: Sequence[np.ndarray], looked_at: int) -> float:
    """Return nDCG@10 of the first question alone."""
    relevance = asked.judged.relevance
    return float(np.mean([gains(asked.base[:1, one], final[:1, one], relevance[one], looked_at)[0] for one in drawn]))


def ceiling(asked: Asked, drawn: Sequence[np.ndarray], looked_at: int) -> float:
    """Return what re-ranking could reach: the mean nDCG@10 with the relevant ones of those looked at put first."""
    ideal = np.broadcast_to(asked.judged.relevance, asked.base.shape)
    return float(mean_gain(asked, ideal, drawn, looked_at).mean())


def figures(name: str, values: Sequence[np.ndarray]) -> dict[str, float]:
    """Return a mean over sets and its bootstrap interval."""
    low, high = np.quantile(values[1], [0.025, 0.975])
    return {name: float(values[0].mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def models(atlas: galsearch.Atlas) -> dict:
    """Return the models of an atlas: id and sha256 by kind."""
    return {kind: {key: atlas._encoder(kind).card[key] for key in ("id", "sha256")} for kind in ("image", "text")}


def line(row: dict) -> str:
    """Return a row as a line for a person."""
    made = "semi-synthetic, " if row["target"] == LENS else ""
    share = "as it is" if row["prevalence"] is None else f"{row['prevalence']:.1%}"
    said = [
        f"{row['target']} ({made}{share}, n {row['n']}, {row['relevant']} relevant, {row['looked_at']} looked at)",
        f"before {row['before']:.3f} [{row['before_low']:.3f}, {row['before_high']:.3f}]",
        f"local {row['local']:.3f} [{row['local_low']:.3f}, {row['local_high']:.3f}], "
        f"gain [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]",
    ]
    for count, one in row["marks"].items():
        said.append(
            f"{count}+{count} marks {one['before']:.3f} -> {one['after']:.3f}, gain "
            f"[{one['gain_low']:+.3f}, {one['gain_high']:+.3f}], order kept in {one['kept']:.0%} of {one['draws']}"
        )
    return "; ".join([*said, f"ceiling {row['ceiling']:.3f}"])


def check(part: Part, words: str = "ring galaxy") -> None:
    """Compare one answer of the public call with what is measured here."""
    hits = part.atlas.search(words, k=K)
    sight = sight_of(part, words)
    pool = part.atlas.search(words, k=VALIDATED_AT)
    objects = part.seen.rows(pool._result.rows)
    final = sight.base(objects) + sum(sight.parts(objects).values())
    ours = [pool.ids[place] for place in np.argsort(-final, kind="stable")[:K]]
    assert hits.rerank(n=VALIDATED_AT).ids == ours, "hits.rerank answers otherwise than what is measured"


def arcs_of_candidates() -> None:
    """Print how well the measure of arcs tells likely lenses from unlikely ones of Space Warps, test part left out."""
    rows = [
        row for split in ("train", "validation") for row in chosen(data_folder(), split) if row["set"] == "spacewarps"
    ]
    rows = [row for row in rows if float(row["grade_0_3"]) >= 2 or float(row["grade_0_3"]) <= 0.7]
    likely = np.array([float(row["grade_0_3"]) >= 2 for row in rows])
    found = [arc_contrast(images.render(images.read_picture(Path(row["path"])))) for row in rows]
    relevance = likely.astype(float)
    draws = np.concatenate(list(_stratified(likely)))
    low, high = np.nanquantile(Ranked(found, relevance).auroc(draws), [0.025, 0.975])
    said = f"{likely.sum()} of grade 2 and more, {(~likely).sum()} of 0.7 and less"
    print(f"Space Warps, train and validation, {said}: AUROC {auroc(found, relevance):.3f} [{low:.3f}, {high:.3f}]")


def _stratified(relevant: np.ndarray) -> Iterator[np.ndarray]:
    wanted = resampling.Sets(int(relevant.sum()), int((~relevant).sum()))
    for block in resampling.draws(relevant, wanted, rounds=1000, pick=resampling.resampled, seed=0):
        yield block[:, 0]


def main() -> None:
    """Choose weights on the validation part, or report on the test part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--choose", action="store_true", help="choose weights on the validation part")
    parser.add_argument("--probe", action="store_true", help="compare settings of the probe on the validation part")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--arcs", action="store_true", help="hold the measure of arcs against real lens candidates")
    arguments = parser.parse_args()
    if arguments.arcs:
        arcs_of_candidates()
        return
    teachers = [Part.of(path) for path in atlases(arguments.folder, "validation")]
    if arguments.choose:
        found = {"models": models(teachers[0].atlas), "looked_at": VALIDATED_AT, "questions": choose_weights(teachers)}
        found |= {"command": "python -m benchmarks.rerank FOLDER --choose", "created": schema.now()}
        target = Path(validated.__file__).with_name(validated.FILE)
        target.write_text(json.dumps(found, indent=1) + "\n")
    elif arguments.probe:
        choose_probe(teachers)
    else:
        parts = [Part.of(path) for path in atlases(arguments.folder, "test")]
        check(parts[0])
        found = report(parts, teachers)
        if arguments.output:
            arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
