"""How much verdicts help: simulated reviewers judge real galaxies, and the list afterwards is compared with labels.

`python -m benchmarks.learning FOLDER` lays out ordinary galaxies and mergers of the sets that GALSEARCH_DATA names,
builds FOLDER/review.atlas from them with the shipped encoder, lets simulated reviewers judge 50 of them in several
orders, and writes docs/learning.json; again, it reads the atlas that is there. Mergers are cut to the field of the
ordinary galaxies, and everything is centered on the galaxy that Galaxy Zoo asked about, so that neither scale nor
centering tells them apart; the encoder sees 64 pixels a side, coarser than what cutting changes.

Objects are split in two. Reviewers judge only in the first part: ordinary galaxies of Galaxy Zoo 1 in the training part
of the project's split (whose pictures the encoder has seen), half of those of Galaxy Zoo 2, and mergers drawn so that
2 % are. The list is judged on the second part: the validation and test parts, the other half and other mergers, again
2 %; and on what was not judged in the first. No training has seen a picture of Galaxy Zoo 2 under its label.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import galsearch
from benchmarks import measure
from export.prepare import data_folder, labeled_rows
from export.split import assign
from galsearch.discovery.learning import ORDINARY, Sample
from galsearch.science.interest import Interest, Whitening, choose, probability
from galsearch.science.metrics import auroc, bootstrap_interval

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "learning.json"
SIDE = 160  # pixels of every picture, whatever set it is from
FIELD = 256  # pixels of Galaxy Zoo 2 that a picture shows, as those of gz1 and gz2 do


@dataclass
class Row:
    """A picture to lay out: its name and set, whether it shows a merger, which part of the field it is.

    `part` is that of the project's split, "later" for sets that came after it and no training has seen.
    """

    name: str
    source: str
    part: str
    is_merger: bool
    kind: str
    path: Path
    crop: float = 1.0  # the central part of each side


def lay_out(folder: Path) -> Path:
    """Write the pictures, all of one scale, and table.parquet into a folder; return the path of the table."""
    rows = list(_rows(data_folder()))
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for row in rows:
        _cut(row).save(folder / "pictures" / f"{row.name}.png", compress_level=1)
    columns = {name: [getattr(row, name) for row in rows] for name in ("source", "part", "kind", "is_merger")}
    table = {"object_id": [row.name for row in rows], "file": [f"{row.name}.png" for row in rows], **columns}
    pq.write_table(pa.table(table), folder / "table.parquet")
    print(f"{len(rows)} pictures", file=sys.stderr)
    return folder / "table.parquet"


def _cut(row: Row) -> Image.Image:
    picture = Image.open(row.path).convert("RGB")
    margin = (1 - row.crop) / 2
    box = (margin * picture.width, margin * picture.height)
    box = (*box, picture.width - box[0], picture.height - box[1])
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)


def _rows(data: Path) -> Iterator[Row]:
    labeled = list(labeled_rows(data))
    _, parts = assign(labeled)
    for row, part in zip(labeled, parts, strict=True):
        kind = row.get("gz1_class")
        if row["set"] == "gz1" and kind not in (None, "merger", "dont_know"):
            yield Row(f"gz1-{row['key']}", "gz1", part, is_merger=False, kind=kind, path=Path(row["path"]))
    for name in ("gz2", "gz2_mergers"):
        with (data / "galaxies" / f"{name}.csv").open(newline="") as handle:
            for row in csv.DictReader(handle):
                kind = row.get("appearance") or row["label"]
                if kind != "odd_spiral":  # which holds overlooked interactions, so it is neither
                    path, crop = data / "galaxies" / name / row["file"], FIELD / float(row["field_pixels"])
                    yield Row(f"{name}-{path.stem}", name, "later", row["label"] == "merger", kind, path, crop)


def built(folder: Path) -> Path:
    """Return the atlas of a folder, built where it is not there."""
    path = folder / "review.atlas"
    if not path.exists():
        table = lay_out(folder)
        galsearch.build(path, images=folder / "pictures", table=table, measure="none", processes=1, device="cpu")
    return path


# ---- simulated reviewers


@dataclass(frozen=True)
class Pictures:
    """Vectors and labels of all objects, by row, and what a search in words and a list of anomalies say of them."""

    vectors: np.ndarray
    ids: list[str]
    is_merger: np.ndarray
    part: np.ndarray
    words: np.ndarray  # of the query text
    surprise: np.ndarray  # of the list of anomalies, in nats


KIND = "merging galaxies"
PREVALENCE, VERDICTS, BATCH, NOISE, LISTED = 0.02, 50, 5, 0.02, 50
ORDERS = ("random", "uncertainty", "most likely", "queue")
AFTER = (0, 10, 25, 50)


def read(atlas: galsearch.Atlas) -> Pictures:
    """Return what the simulation needs of an atlas."""
    ids = sorted(one.object_id for one in atlas)
    table = atlas.rows(ids)
    vectors = np.stack([atlas.embed(atlas[name]) for name in ids])
    odd = atlas.anomalies(len(ids), detectors=("knn", "mahalanobis", "isolation_forest", "reconstruction"))
    by_id = dict(zip(odd.table["object_id"].to_pylist(), odd.table["score"].to_pylist(), strict=True))
    return Pictures(
        vectors,
        ids,
        np.array(table["is_merger"].to_pylist()),
        np.array(table["part"].to_pylist()),
        atlas.embed(KIND).astype(np.float64),
        np.array([by_id[name] for name in ids]),
    )


def divided(pictures: Pictures, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that may be judged and those that the list is measured on, mergers at PREVALENCE in both."""
    rng, ordinary = np.random.default_rng(seed), ~pictures.is_merger
    later = rng.permutation(np.flatnonzero(ordinary & (pictures.part == "later")))
    half = len(later) // 2
    first = np.r_[np.flatnonzero(ordinary & (pictures.part == "train")), later[:half]]
    second = np.r_[np.flatnonzero(ordinary & np.isin(pictures.part, ["validation", "test"])), later[half:]]
    mergers = rng.permutation(np.flatnonzero(pictures.is_merger))
    counts = [round(len(rows) * PREVALENCE / (1 - PREVALENCE)) for rows in (first, second)]
    return (
        np.sort(np.r_[first, mergers[: counts[0]]]),
        np.sort(np.r_[second, mergers[counts[0] : sum(counts)]]),
    )


def precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Return the share of relevant ones in the first LISTED."""
    return float(relevant[np.argsort(-scores, kind="stable")[:LISTED]].mean())


def reviewed(pictures: Pictures, order: str, *, seed: int) -> list[dict]:
    """Return what is measured after some verdicts of one simulated reviewer, who takes objects in an order."""
    first, second = divided(pictures, seed=seed)
    rng = np.random.default_rng(10_000 + seed)
    vectors = pictures.vectors
    sample = _sample(vectors[first], seed=seed)
    judged: list[int] = []
    wanted: list[float] = []
    result = []
    while True:
        probe = Interest(
            sample.whitening,
            vectors[judged].astype(np.float64),
            np.array(wanted),
            sample.vectors[:ORDINARY],
            start=pictures.words,
        )
        if len(judged) in AFTER:
            result.append(_measured(pictures, probe, first, second, judged))
        if len(judged) >= VERDICTS:
            return result
        free = np.setdiff1d(first, judged)
        for row in _next(order, probe, vectors, free, rng, known=len(judged)):
            judged.append(int(row))
            wanted.append(float(bool(pictures.is_merger[row]) != (rng.random() < NOISE)))


def with_all_labels(pictures: Pictures, *, seed: int) -> float:
    """Return the precision of a probe that learned from every label of the first part: what verdicts can come to."""
    first, second = divided(pictures, seed=seed)
    sample = _sample(pictures.vectors[first], seed=seed)
    marks, wanted = pictures.vectors[first].astype(np.float64), pictures.is_merger[first].astype(float)
    probe = Interest(sample.whitening, marks, wanted, sample.vectors[:ORDINARY], start=pictures.words)
    return precision(_logit(*probe.judge(pictures.vectors[second])), pictures.is_merger[second])


def _sample(vectors: np.ndarray, *, seed: int) -> Sample:
    chosen = vectors[np.random.default_rng(seed).permutation(len(vectors))].astype(np.float64)
    return Sample("image", chosen, Whitening.fit(chosen))


def _next(
    order: str, probe: Interest, vectors: np.ndarray, free: np.ndarray, rng: np.random.Generator, *, known: int
) -> np.ndarray:
    if order == "random":
        return rng.choice(free, BATCH, replace=False)
    mean, _ = probe.judge(vectors[free])
    if order == "uncertainty":
        return free[np.argsort(np.abs(mean), kind="stable")[:BATCH]]
    if order == "most likely":
        return free[np.argsort(-mean, kind="stable")[:BATCH]]
    return free[[one.row for one in choose(mean, probe.features(vectors[free]), k=BATCH, known=known)]]


def _measured(
    pictures: Pictures, probe: Interest, first: np.ndarray, second: np.ndarray, judged: list[int]
) -> dict[str, float]:
    logit = _logit(*probe.judge(pictures.vectors[second]))
    chance = probability(*probe.judge(pictures.vectors[second]))
    rest = np.setdiff1d(first, judged)
    truth = pictures.is_merger
    return {
        "verdicts": len(judged),
        "held_out": precision(logit, truth[second]),
        "not_judged": precision(_logit(*probe.judge(pictures.vectors[rest])), truth[rest]),
        "auroc": float(auroc(logit, truth[second].astype(float)) or np.nan),
        "mergers_judged": float(truth[judged].sum()) if judged else 0.0,
        "expected_over_true": float(chance.sum() / truth[second].sum()),
    }


def _logit(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return mean / np.sqrt(1 + np.pi / 8 * variance)


def measured(atlas: galsearch.Atlas, *, reviewers: int) -> dict:
    """Return what is measured of all orders over simulated reviewers, with bootstrap intervals of their medians."""
    pictures = read(atlas)
    first, second = divided(pictures, seed=0)
    found = {
        "pictures": len(pictures.ids),
        "parts": [
            [int((~pictures.is_merger[rows]).sum()), int(pictures.is_merger[rows].sum())] for rows in (first, second)
        ],
        "reviewers": reviewers,
        "noise": NOISE,
        "model": atlas.manifest.embeddings["image"]["model"],
        "machine": platform.processor() or platform.machine(),
    }
    halves = [divided(pictures, seed=seed)[1] for seed in range(reviewers)]
    words = pictures.vectors @ pictures.words
    plain = {"query text": words, "anomalies": pictures.surprise}
    found["no_feedback"] = {
        name: _summary([precision(scores[rows], pictures.is_merger[rows]) for rows in halves])
        for name, scores in plain.items()
    } | {"random": _summary([float(pictures.is_merger[rows].mean()) for rows in halves])}
    found["all_labels"] = _summary([with_all_labels(pictures, seed=seed) for seed in range(reviewers)])
    found["most_possible"] = round(min(1.0, found["parts"][1][1] / LISTED), 4)
    found["orders"] = {}
    for order in ORDERS:
        runs = [reviewed(pictures, order, seed=seed) for seed in range(reviewers)]
        found["orders"][order] = [
            {name: step[0][name] if name == "verdicts" else _summary([one[name] for one in step]) for name in step[0]}
            for step in zip(*runs, strict=True)
        ]
        print(order, json.dumps(found["orders"][order][-1]))
    return found


def _summary(values: list[float]) -> list[float]:
    """Return the median and its bootstrap interval."""
    interval = bootstrap_interval(values, seed=0, statistic=np.median) or (values[0], values[0])
    return [round(float(np.median(values)), 4), *(round(one, 4) for one in interval)]


# ---- time


def speed(rows: int, dim: int, *, seed: int) -> dict:
    """Return how long 50 verdicts take to order so many random vectors, and to make a queue of them, once and again."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "random.parquet", Path(folder) / "random.atlas"
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
        pq.write_table(pa.table({"object_id": [f"r{row:08d}" for row in range(rows)], "vector": column}), source)
        galsearch.build(path, table=source, vectors="vector", model="random")
        with galsearch.open(path) as atlas:
            verdicts = galsearch.Verdicts(Path(folder) / "v.verdicts", atlas=atlas)
            rng = np.random.default_rng(seed)
            for number, row in enumerate(rng.choice(rows, VERDICTS, replace=False).tolist()):
                verdicts.add(f"r{row:08d}", "yes" if number % 3 == 0 else "no", kind="odd", by="simulated")
            first_rank = _seconds(lambda: atlas.rank_by_verdicts(verdicts))
            result = {
                "rows": rows,
                "dim": dim,
                "first_rank_s": first_rank,
                "rank_s": min(_seconds(lambda: atlas.rank_by_verdicts(verdicts)) for _ in range(5)),
                "queue_s": min(_seconds(lambda: atlas.review_queue(verdicts)) for _ in range(5)),
                "add_ms": 1000
                * min(_seconds(lambda: verdicts.add("r00000001", "no", kind="odd", by="b")) for _ in range(5)),
            }
    result = {name: round(value, 3) for name, value in result.items()}
    return result | {"pace_ms": round(measure.pace(), 1), "load": round(os.getloadavg()[0], 1)}


def _seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def main() -> None:
    """Build the atlas where it is not there, measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where the pictures and their atlas are, or come")
    parser.add_argument("--reviewers", type=int, default=20)
    parser.add_argument("--rows", type=int, help="of random vectors, which verdicts order in a measured time")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.folder is not None:
        with galsearch.open(built(args.folder), device="cpu") as atlas:
            found |= measured(atlas, reviewers=args.reviewers)
    if args.rows is not None:
        found["speed"] = speed(args.rows, args.dim, seed=0)
        print(json.dumps(found["speed"]))
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
