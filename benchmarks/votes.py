"""Classification by votes: `python -m benchmarks.votes ATLAS` for accuracy, `--rows 1000000` for its speed.

Accuracy is that of votes of 3 neighbors and of a probe beside scikit-learn's logistic regression on the same vectors,
out of fold in five folds by a digest of the object_id, on an atlas of objects that no training has seen (`python -m
export.heldout FOLDER --split test`, then `galsearch build`). Intervals of 95 % are of a bootstrap over objects,
differences are paired. Speed is that of one vote against a base of so many random unit vectors, which is the worst case
for an index: their neighbors are in every cell. With `--like ATLAS` the vectors lie about those of the atlas instead,
between neighbors and beside them by half of their distance, as those of more such objects would (semi-synthetic); a
tenth of the atlas is kept apart and votes are for those. All are written to docs/votes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

import galsearch
from benchmarks import measure
from galsearch.science.metrics import fold_of
from galsearch.science.probe import Probe

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "votes.json"
CACHE = DOCUMENT.parent.parent / "demo" / "bench" / "votes"
FOLDS, K, ROUNDS = 5, 3, 2_000
GZ1 = "Galaxy Zoo 1: elliptical, spiral, edge-on"
TASKS = {  # name -> SQL of the label, NULL for objects that are not asked
    GZ1: "CASE gz1_class WHEN 'elliptical' THEN 'elliptical' "
    "WHEN 'spiral_cw' THEN 'spiral' WHEN 'spiral_acw' THEN 'spiral' WHEN 'edge_on' THEN 'edge-on' END",
    "EFIGI: elliptical, lenticular, spiral, irregular": "CASE WHEN T < -3 THEN 'elliptical' WHEN T < 0 THEN "
    "'lenticular' WHEN T < 9 THEN 'spiral' ELSE 'irregular' END",
}
DECALS = {  # classes of Galaxy10 DECaLS that Galaxy Zoo 1 has too
    "round_smooth": "elliptical",
    "in_between_round_smooth": "elliptical",
    "edge_on_with_bulge": "edge-on",
    "edge_on_without_bulge": "edge-on",
    "barred_spiral": "spiral",
    "unbarred_tight_spiral": "spiral",
    "unbarred_loose_spiral": "spiral",
}
QUERIES = 50
NEAR = 5  # neighbors of a vector between which and it more are drawn


def main() -> None:
    """Measure what is asked for, print it and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path, nargs="?", help="folder of held-out objects")
    parser.add_argument("--rows", type=int, help="of the base whose speed is measured")
    parser.add_argument("--dims", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--like", type=Path, help="atlas whose main vectors the base lies about; --dims is not heeded")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where atlases of random vectors are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.atlas is not None:
        found["accuracy"] = list(accuracy(args.atlas, seed=args.seed))
        found["sweep"] = {"target": "edge-on", **sweep(args.atlas, seed=args.seed)}
    if args.rows is not None:
        found["machine"] = {"processor": platform.machine(), "cores": os.cpu_count()}
        bases = [_random_base(dim) for dim in args.dims] if args.like is None else [_base_like(args.like, args.seed)]
        measured = [speed(args.rows, base, cache=args.cache, seed=args.seed) for base in bases]
        keys = {(row["rows"], row["dim"], row["vectors"]) for row in measured}
        kept = [row for row in found.get("speed", []) if (row["rows"], row["dim"], row.get("vectors")) not in keys]
        found["speed"] = [*kept, *measured]
    args.out.write_text(json.dumps(found, indent=1) + "\n")


# ---- accuracy


def accuracy(path: Path, *, seed: int) -> Iterator[dict]:
    """Yield how often votes and logistic regression are right, for each task that the atlas has labels for."""
    with galsearch.open(path, device="cpu") as atlas:
        for task, label in TASKS.items():
            table = atlas.sql(
                f"SELECT object_id, ({label}) AS label FROM galaxies WHERE {_asked(task)} ORDER BY object_id"
            )
            table = table.filter(table["label"].is_valid())
            yield judged(atlas, task, table, seed=seed)


def _asked(task: str) -> str:
    return "gz1_class IS NOT NULL" if task == GZ1 else "\"set\" = 'efigi' AND T IS NOT NULL"


def judged(atlas: galsearch.Atlas, task: str, table: pa.Table, *, seed: int) -> dict:
    """Return the figures of a task, whose rows are object_id and label."""
    ids, truth = table["object_id"].to_pylist(), np.array(table["label"].to_pylist())
    fold = fold_of(ids, FOLDS, seed)
    vectors = np.stack([atlas.embed(atlas[name]) for name in ids])
    voted, given_label, probability = by_votes(atlas.path, ids, truth, fold)
    probed, sure = by_probe(vectors, truth, fold, seed=seed)
    guesses = {
        "votes of 3": voted,
        "probe": probed,
        "logistic regression": by_regression(vectors, truth, fold, seed=seed),
    }
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(ids), (ROUNDS, len(ids)))
    result = {"task": task, "objects": len(ids), "classes": {str(c): int((truth == c).sum()) for c in np.unique(truth)}}
    for name, guess in guesses.items():
        result[name] = {"accuracy": _interval((guess == truth)[draws].mean(axis=1), (guess == truth).mean())}
        result[name]["balanced"] = _balanced(guess, truth, draws)
    right = {name: (guess == truth).astype(float) for name, guess in guesses.items()}
    for name in ("votes of 3", "logistic regression"):
        difference = right["probe"] - right[name]
        result[f"probe minus {name}"] = _interval(difference[draws].mean(axis=1), difference.mean())
    result["mean probability of probe"] = float(sure.mean())
    if task == GZ1 and os.environ.get("GALSEARCH_DATA"):
        result["across surveys"] = across(atlas, Probe.calibrated(vectors, truth, seed=seed), rng)
    given = np.array([label is not None for label in given_label])
    result["answered"] = float(given.mean())
    result["accuracy where answered"] = _interval_of(right["votes of 3"][given], rng)
    result["mean probability where answered"] = float(probability[given].mean())
    print(json.dumps(result))
    return result


def by_votes(
    path: Path, ids: list[str], truth: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the most probable label of each object, the label that is given (None for none) and its probability.

    Who votes are the objects of the other folds, in a base of their own.
    """
    best, label, probability = (np.empty(len(ids), object) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(path, Path(folder) / "copy.atlas"))
        for held_out in range(FOLDS):
            known, asked = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
            rows = ", ".join(f"('{ids[row]}', '{truth[row]}')" for row in known)
            galsearch.create_base(copy, "fold", f"SELECT * FROM (VALUES {rows}) AS known(object_id, label)")
            with galsearch.open(copy, device="cpu") as atlas:
                table = atlas.classify([ids[row] for row in asked], "fold", k=K).to_arrow()
            for column, values in (("best", best), ("label", label), ("probability", probability)):
                values[asked] = table[column].to_pylist()
    return best, label, probability.astype(float)


def by_probe(vectors: np.ndarray, truth: np.ndarray, fold: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the label of each object by a probe trained on the other folds, and its probability."""
    guess, sure = np.empty(len(truth), truth.dtype), np.empty(len(truth))
    for held_out in range(FOLDS):
        asked = fold == held_out
        probe = Probe.calibrated(vectors[~asked], truth[~asked], seed=seed)
        found = probe.probabilities(vectors[asked])
        guess[asked], sure[asked] = np.array(probe.classes)[found.argmax(axis=1)], found.max(axis=1)
    return guess, sure


def across(atlas: galsearch.Atlas, probe: Probe, rng: np.random.Generator) -> dict:
    """Return how often a probe of SDSS pictures is right about the Galaxy10 DECaLS samples of the same classes."""
    folder = Path(os.environ["GALSEARCH_DATA"]) / "galaxies"
    rows = csv.read_csv(folder / "galaxy10_decals_samples.csv").to_pylist()
    rows = [row for row in rows if row["label"] in DECALS]
    vectors = np.stack([atlas.embed(folder / "galaxy10_decals_samples" / row["file"]) for row in rows])
    truth = np.array([DECALS[row["label"]] for row in rows])
    found = probe.probabilities(vectors)
    right = np.array(probe.classes)[found.argmax(axis=1)] == truth
    return {
        "objects": len(rows),
        "accuracy": _interval_of(right.astype(float), rng),
        "mean probability": float(found.max(axis=1).mean()),
        "of each class": {
            name: [int(right[truth == name].sum()), int((truth == name).sum())] for name in probe.classes
        },
    }


def by_regression(vectors: np.ndarray, truth: np.ndarray, fold: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the label of each object by multinomial logistic regression on the other folds.

    The penalty is chosen on a fifth of those, which the vectors of the fold itself have no part in.
    """
    from sklearn.linear_model import LogisticRegressionCV

    guess = np.empty(len(truth), truth.dtype)
    for held_out in range(FOLDS):
        known = fold != held_out
        model = LogisticRegressionCV(
            Cs=[0.1, 1, 10, 100, 1000],
            cv=5,
            max_iter=2_000,
            scoring="accuracy",
            random_state=seed,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        guess[~known] = model.fit(vectors[known], truth[known]).predict(vectors[~known])
    return guess


def _balanced(guess: np.ndarray, truth: np.ndarray, draws: np.ndarray) -> list[float]:
    """Return the mean over classes of the part of each that is right, with its interval."""
    right, classes = guess == truth, np.unique(truth)

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([right[rows][truth[rows] == one].mean() for one in classes if (truth[rows] == one).any()]))

    return _interval(np.array([mean(rows) for rows in draws[:500]]), mean(np.arange(len(truth))))


def _interval_of(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    return _interval(values[rng.integers(0, len(values), (ROUNDS, len(values)))].mean(axis=1), values.mean())


def _interval(drawn: np.ndarray, value: float) -> list[float]:
    """Return a value and the ends of its interval of 95 %."""
    return [round(float(one), 4) for one in (value, *np.quantile(drawn, [0.025, 0.975]))]


def sweep(path: Path, *, seed: int) -> dict:
    """Return how votes find edge-on galaxies of Galaxy Zoo 1, by share in the base, number of neighbors and weight."""
    label, where = TASKS[GZ1], _asked(GZ1)
    inner = f"SELECT object_id, {label} AS label FROM galaxies WHERE {where}"
    select = f"SELECT object_id, label FROM ({inner}) WHERE label IS NOT NULL"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(path, Path(folder) / "copy.atlas"))
        galsearch.create_base(copy, "edge-on", select, target="edge-on")
        rows = galsearch.evaluate_base(copy, "edge-on", seed=seed, device="cpu").to_pylist()
    for row in rows:
        print(json.dumps(row))
    return {
        "rows": [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows
        ]
    }


# ---- speed


Draw = Callable[[int, np.random.Generator], np.ndarray]  # of so many vectors `(n, d)`


@dataclass(frozen=True)
class Base:
    """What the vectors of a base are like, how they are drawn, and who is voted on."""

    name: str
    dim: int
    members: Draw
    queries: Draw


def _random_base(dim: int) -> Base:
    def draw(count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=(count, dim))

    return Base("random", dim, draw, draw)


def _base_like(path: Path, seed: int) -> Base:
    """Return a base about the main vectors of an atlas, without a tenth of them that is voted on."""
    with galsearch.open(path, device="cpu") as atlas:
        every = np.stack([atlas.embed(galaxy) for galaxy in atlas.search(k=len(atlas))])
    order = np.random.default_rng(seed).permutation(len(every))
    apart, kept = every[order[: len(every) // 10]], every[order[len(every) // 10 :]]
    distance = np.sqrt(np.maximum(2 - 2 * kept @ kept.T, 0))
    near = np.argsort(distance, axis=1, kind="stable")[:, 1 : NEAR + 1]

    def members(count: int, rng: np.random.Generator) -> np.ndarray:
        one = rng.integers(0, len(kept), count)
        other = near[one, rng.integers(0, NEAR, count)]
        between = kept[one] + rng.random((count, 1)) * (kept[other] - kept[one])
        beside = rng.normal(size=between.shape) / np.sqrt(between.shape[1])
        return between + 0.5 * distance[one, near[one, 0]][:, None] * beside

    def queries(count: int, rng: np.random.Generator) -> np.ndarray:
        return apart[rng.integers(0, len(apart), count)]

    return Base(f"about {len(kept)} of {path.stem}", every.shape[1], members, queries)


def speed(rows: int, base: Base, *, cache: Path, seed: int) -> dict:
    """Return how long one vote takes against a base, comparing all and by cells.

    Milliseconds are the least, the median and the 95th percentile; `first_seconds` is the first vote, which reads the
    members and leaves 300 of them out in turn. `pace_ms` is a fixed piece of arithmetic and `load` that of the machine,
    which say how busy it was.
    """
    path = cache / f"{rows}x{base.dim}{'' if base.name == 'random' else '-' + base.name.replace(' ', '-')}.atlas"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            table = _written(Path(folder) / "base.parquet", rows, base, np.random.default_rng(seed))
            galsearch.build(path, table=table, vectors="vector", model="random")
    result: dict = {"rows": rows, "dim": base.dim, "vectors": base.name}
    with galsearch.open(path, device="cpu") as atlas:
        asked = base.queries(QUERIES, np.random.default_rng(seed + 1)).astype(np.float32)
        begun = time.perf_counter()
        atlas.classify(asked[0], "label")
        result["first_seconds"] = round(time.perf_counter() - begun, 1)
        near = {}
        for how, exact in (("exact", True), ("cells", False)):
            timings, near[how] = _timed(atlas, asked, exact=exact)
            result[f"{how}_ms"] = [round(float(q), 1) for q in np.quantile(timings, [0, 0.5, 0.95])]
    result |= {"pace_ms": round(measure.pace(), 1), "load": round(os.getloadavg()[0], 1)}
    same = [len(set(a) & set(b)) for a, b in zip(near["exact"], near["cells"], strict=True)]
    result["recall_of_cells"] = round(sum(same) / (K * QUERIES), 3)
    print(json.dumps(result))
    return result


def _timed(atlas: galsearch.Atlas, asked: np.ndarray, *, exact: bool) -> tuple[np.ndarray, list[list[str]]]:
    """Return milliseconds a vote, and who voted."""
    timings, voters = [], []
    for vector in asked:
        begun = time.perf_counter()
        votes = atlas.classify(vector, "label", k=K, exact=exact)
        timings.append(1e3 * (time.perf_counter() - begun))
        voters.append([voter.object_id for voter in votes])
    return np.array(timings), voters


def _written(path: Path, rows: int, base: Base, rng: np.random.Generator) -> Path:
    """Write a table of unit vectors with two labels; return its path."""
    kind = pa.schema([("object_id", pa.string()), ("label", pa.string()), ("vector", pa.list_(pa.float32(), base.dim))])
    with pq.ParquetWriter(path, kind) as writer:
        for start in range(0, rows, 50_000):
            count = min(50_000, rows - start)
            vectors = base.members(count, rng).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            columns = [
                pa.array([f"r{row:08d}" for row in range(start, start + count)]),
                pa.array(np.where(rng.random(count) < 0.5, "one", "other")),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), base.dim),
            ]
            writer.write_table(pa.table(columns, schema=kind))
    return path


if __name__ == "__main__":
    main()
