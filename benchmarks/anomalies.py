"""How well odd galaxies stand out, and whether p-values and false discovery rates are what they claim to be.

`python -m benchmarks.anomalies FOLDER` lays out some 3,000 pictures of the sets that GALSEARCH_DATA names, builds
FOLDER/odd.atlas from them with the shipped encoder, and writes docs/anomalies.json; again, it reads the atlas that is
there. Detectors are fitted on normals of the project's training part, everything is chosen on its validation part, and
the figures are those of the test part (`export/split.py`), which no training of the encoder has seen; pictures of sets
that came later (gz2_mergers, mergers, lens_guide) go to validation or test by a digest of their names. Artifacts are
injected into pictures of the test part: those figures are semi-synthetic.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import gaussian_filter

import galsearch
from benchmarks import measure
from export.prepare import data_folder, labeled_rows
from export.split import assign
from galsearch.discovery.anomalies import MEASURES
from galsearch.science import novelty, quality
from galsearch.science.images import decode_thumbnail
from galsearch.science.metrics import auroc

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "anomalies.json"
NORMALS_GZ1 = {"train": 450, "validation": 250, "test": 850}
NORMALS_EFIGI = {"train": 300, "validation": 150, "test": 300}
ARTIFACTS = {"validation": 70, "test": 150}
OTHERS = {"test": 120}  # of kinds that were added when everything had been chosen, and are in no other part
ROUNDS, DRAWS = 2_000, 400
MOST_LISTED = 10_000
CALIBRATING = 0.75  # of the normals, where a list is made; the more there are, the lower a q-value can be
LEVEL, FDR, SHARES = 0.05, 0.1, (0.001, 0.01, 0.05)
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ENSEMBLE = "ensemble"
SETS = {  # what may make up the ensemble, with one of the rules below
    "vectors": novelty.OF_VECTORS,
    "vectors without forest": ("knn", "mahalanobis", "reconstruction"),
    "vectors and classes": (*novelty.OF_VECTORS, *novelty.OF_CLASSES),
    "vectors and relative": (*novelty.OF_VECTORS, "mahalanobis_relative"),
    "vectors and columns": (*novelty.OF_VECTORS, "columns"),
    "vectors and pixels": (*novelty.OF_VECTORS, "pixels"),
    "vectors without forest, pixels": ("knn", "mahalanobis", "reconstruction", "pixels"),
    "vectors, columns and pixels": (*novelty.OF_VECTORS, "columns", "pixels"),
    "all": novelty.NAMES,
}
RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # how surprise in nats adds up; then calibrated, any is valid
    "harmonic mean p": novelty.combined,
    "geometric mean p": lambda nats: np.nanmean(nats, axis=1),
    "least p": lambda nats: np.nanmax(nats, axis=1),
}
CHOICES = {f"{name}; {rule}": (names, rule) for name, names in SETS.items() for rule in RULES}
Choice = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Task:
    """What is looked for among what: SQL of the normals (their `label` is a class), and of the odd ones."""

    name: str
    normal: str
    odd: str
    bar: float | None
    note: str = ""


TASKS = (
    Task("mergers among Galaxy Zoo 1", "kind = 'gz1'", "kind = 'merger'", 0.90, "three sets, see below"),
    Task("mergers of Galaxy Zoo 1 alone", "kind = 'gz1'", "kind = 'merger' AND source = 'gz1'", None, "same pictures"),
    Task("rings among EFIGI", "kind = 'efigi'", "kind = 'ring'", 0.85, "inner, outer or pseudo-ring of 0.75 or more"),
    Task("irregulars among EFIGI", "kind = 'efigi'", "kind = 'irregular'", 0.85, "T = 10"),
    Task("lens candidates among Galaxy Zoo 1", "kind = 'gz1'", "kind = 'candidate'", 0.85, "another survey"),
    Task("good among poor lens candidates", "kind = 'poor candidate'", "kind = 'candidate'", None, "one survey"),
    Task("injected artifacts", "kind = 'gz1'", "kind = 'artifact'", 0.97, "semi-synthetic"),
    Task("injected artifacts of other kinds", "kind = 'gz1'", "kind = 'other artifact'", None, "semi-synthetic"),
)


def main() -> None:
    """Build the atlas where it is not there, measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where the pictures and their atlas are, or come")
    parser.add_argument("--rows", type=int, help="of random vectors, whose list is timed")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    parser.add_argument("--list", type=Path, help="an atlas, whose list is timed; what --rows runs")
    args = parser.parse_args()
    if args.list is not None:
        print(json.dumps(timed_list(args.list)))
        return
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.folder is not None:
        path = args.folder / "odd.atlas"
        if not path.exists():
            table = lay_out(args.folder, seed=args.seed)
            galsearch.build(path, images=args.folder / "pictures", table=table, processes=1, device="cpu")
        with galsearch.open(path, device="cpu") as atlas:
            found |= measured(Pictures(atlas), seed=args.seed)
    if args.rows is not None:
        others = [row for row in found.get("speed", []) if (row["rows"], row["dim"]) != (args.rows, args.dim)]
        found["speed"] = [*others, speed(args.rows, args.dim, seed=args.seed)]
    args.out.write_text(json.dumps(found, indent=1) + "\n")


def speed(rows: int, dim: int, *, seed: int) -> dict:
    """Return how long a list of random vectors takes, and by how much it raises the memory of this process."""
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "random.parquet", Path(folder) / "random.atlas"
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
        pq.write_table(pa.table({"object_id": [f"r{row:08d}" for row in range(rows)], "vector": column}), source)
        del vectors, column
        galsearch.build(path, table=source, vectors="vector", model="random")
        call = [sys.executable, "-m", "benchmarks.anomalies", "--list", str(path)]
        one = json.loads(subprocess.run(call, capture_output=True, check=True, text=True).stdout)
    result = {
        "rows": rows,
        "dim": dim,
        **one,
        "pace_ms": round(measure.pace(), 1),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))
    return result


def timed_list(path: Path) -> dict:
    """Return seconds and memory of one list; in a process of its own, whose memory nothing else has raised."""
    with galsearch.open(path, device="cpu") as atlas:
        atlas.search(where="true", k=1)
        before = measure.memory_mib()["anonymous_mib"]
        with measure.peak_anonymous() as most:
            started = time.perf_counter()
            atlas.anomalies(50)
            seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "memory_mb": round(most["anonymous_mib"] - before)}


# ---- pictures


@dataclass
class Row:
    """A picture to lay out: where it is, or its pixels; which part it belongs to; what it shows."""

    name: str
    part: str
    source: str
    kind: str
    label: str | None = None
    path: Path | None = None
    pixels: np.ndarray | None = field(default=None, repr=False)


def lay_out(folder: Path, *, seed: int) -> Path:
    """Write the pictures and table.parquet into a folder; return the path of the table."""
    rows = list(_rows(data_folder(), seed=seed))
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for row in rows:
        pixels = np.asarray(Image.open(row.path).convert("RGB")) if row.pixels is None else row.pixels
        Image.fromarray(pixels).save(folder / "pictures" / f"{row.name}.png", compress_level=1)
    columns = {name: [getattr(row, name) for row in rows] for name in ("part", "source", "kind", "label")}
    table = {"object_id": [row.name for row in rows], "file": [f"{row.name}.png" for row in rows], **columns}
    pq.write_table(pa.table(table), folder / "table.parquet")
    print(f"{len(rows)} pictures", file=sys.stderr)
    return folder / "table.parquet"


def _rows(data: Path, *, seed: int) -> Iterator[Row]:
    labeled = list(labeled_rows(data))
    _, parts = assign(labeled)
    pairs = list(zip(labeled, parts, strict=True))
    rng = np.random.default_rng(seed)
    ordinary = [row for row in map(_of_gz1, pairs) if row is not None]
    normals = list(_drawn(ordinary, "gz1", NORMALS_GZ1, rng))
    yield from normals
    yield from (row for row in ordinary if row.kind == "merger" and row.part != TRAIN)
    shaped = [row for row in map(_of_efigi, pairs) if row is not None]
    yield from _drawn(shaped, "efigi", NORMALS_EFIGI, rng)
    yield from (row for row in shaped if row.kind != "efigi" and row.part != TRAIN)
    yield from (row for row in map(_of_spacewarps, pairs) if row is not None)
    yield from _later_sets(data / "galaxies")
    for kind, wanted, artifact in (("artifact", ARTIFACTS, with_artifact), ("other artifact", OTHERS, with_other)):
        for part, count in wanted.items():
            hosts = [row for row in ordinary if row.kind == "gz1" and row.part == part and row not in normals]
            spare = hosts if len(hosts) >= count else [row for row in normals if row.part == part]
            for number, host in enumerate(spare[:count]):
                pixels = artifact(np.asarray(Image.open(host.path).convert("RGB")), number, rng)
                name = f"{kind.replace(' ', '-')}-{part}-{number}"
                yield Row(name, part, host.source, kind, host.label, pixels=pixels)


def _drawn(rows: list[Row], kind: str, wanted: dict[str, int], rng: np.random.Generator) -> Iterator[Row]:
    for part, count in wanted.items():
        there = [row for row in rows if row.kind == kind and row.part == part]
        for index in np.sort(rng.permutation(len(there))[:count]):
            yield there[index]


def _of_gz1(pair: tuple[dict, str]) -> Row | None:
    row, part = pair
    label = {"spiral_cw": "spiral", "spiral_acw": "spiral"}.get(row.get("gz1_class"), row.get("gz1_class"))
    if row["set"] != "gz1" or label in (None, "dont_know"):
        return None
    kind, label = ("merger", None) if label == "merger" else ("gz1", label)
    return Row(f"gz1-{row['key']}", part, "gz1", kind, label, Path(row["path"]))


def _of_efigi(pair: tuple[dict, str]) -> Row | None:
    row, part = pair
    if row["set"] != "efigi" or row["T"] is None:
        return None
    hubble = float(row["T"])
    rings = [float(row[name] or -1) for name in ("Inner_Ring", "Outer_Ring", "Pseudo_Ring")]
    label = "elliptical" if hubble < -3 else "lenticular" if hubble < 0.5 else "spiral"
    kind = "irregular" if hubble == 10 else "ring" if max(rings) >= 0.75 else None
    if kind is None and hubble < 9 and max(rings) <= 0:
        kind = "efigi"
    return None if kind is None else Row(f"efigi-{row['key']}", part, "efigi", kind, label, Path(row["path"]))


def _of_spacewarps(pair: tuple[dict, str]) -> Row | None:
    row, part = pair
    if row["set"] != "spacewarps":
        return None
    grade = float(row["grade_0_3"])
    kind = "candidate" if grade >= 2 else "poor candidate" if grade <= 1 else None
    if kind is None or (kind == "candidate" and part == TRAIN):
        return None
    return Row(f"spacewarps-{row['key']}", part, "spacewarps", kind, None, Path(row["path"]))


def _later_sets(folder: Path) -> Iterator[Row]:
    """Yield mergers of sets that no training has seen, without those that an unlabeled training set shows too."""
    for name in ("gz2_mergers", "mergers"):
        with (folder / f"{name}.csv").open(newline="") as handle:
            for row in csv.DictReader(handle):
                if row.get("twin_in_shared") or (row.get("image_kind") or "").endswith("_masked"):
                    continue
                stem = Path(row["file"]).stem
                digest = int(hashlib.sha256(stem.encode()).hexdigest()[:8], 16) / 2**32
                part = VALIDATION if digest < 1 / 3 else TEST
                yield Row(f"{name}-{stem}", part, name, "merger", None, folder / name / row["file"])


def with_artifact(pixels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return a picture `(h, w, 3) uint8` with one of six artifacts of detectors, by its number."""
    result, side = pixels.astype(np.float64), pixels.shape[0]
    y, x = np.mgrid[:side, :side]
    at = rng.uniform(0.2, 0.8, 2) * side
    kind = number % 6
    if kind == 0:  # a satellite
        angle = rng.uniform(0, np.pi)
        distance = np.abs((x - at[0]) * np.sin(angle) - (y - at[1]) * np.cos(angle))
        result += 200 * np.exp(-0.5 * (distance / (side / 100)) ** 2)[..., None]
    elif kind == 1:  # a saturated star with a bleed trail
        star = 400 * np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / (side / 25) ** 2)
        result += (star + 255 * (np.abs(x - at[0]) < side / 80))[..., None]
    elif kind == 2:  # dead columns
        first = int(at[0])
        result[:, first : first + side // 10] = 0
    elif kind == 3:  # the edge of an exposure
        result[:, : int(0.45 * side)] = 0
    elif kind == 4:  # cosmic rays
        hits = rng.integers(0, side, (side, 2))
        result[hits[:, 0], hits[:, 1]] = 255
    else:  # bands that are not registered
        result[..., 0] = np.roll(result[..., 0], side // 10, axis=0)
        result[..., 2] = np.roll(result[..., 2], -side // 10, axis=1)
    return np.clip(result, 0, 255).astype(np.uint8)


def with_other(pixels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return a picture `(h, w, 3) uint8` with one of four more artifacts, which no measure was made for."""
    result, side = pixels.astype(np.float64), pixels.shape[0]
    y, x = np.mgrid[:side, :side]
    at = rng.uniform(0.2, 0.8, 2) * side
    radius = np.hypot(x - at[0], y - at[1])
    kind = number % 4
    if kind == 0:  # the ghost of a bright star
        result += 35 * ((radius > side / 8) & (radius < side / 4))[..., None]
    elif kind == 1:  # sky that was not subtracted
        result += (60 * x / side)[..., None]
    elif kind == 2:  # an asteroid: one dot a band
        for band in range(3):
            distance = np.hypot(x - at[0] - 0.06 * side * (band - 1), y - at[1])
            result[..., band] += 220 * np.exp(-0.5 * (distance / (side / 60)) ** 2)
    else:  # out of focus
        result = gaussian_filter(result, (side / 25, side / 25, 0))
    return np.clip(result, 0, 255).astype(np.uint8)


# ---- figures


class Pictures:
    """The atlas as arrays: vectors, measures, and who is what."""

    def __init__(self, atlas: galsearch.Atlas) -> None:
        self.atlas, self.model = atlas, atlas.manifest.embeddings["image"]["model"]
        table = atlas.sql("SELECT object_id, part, source, kind, label FROM galaxies ORDER BY object_id")
        self.ids = table["object_id"].to_pylist()
        self.part, self.source, self.label = (
            np.array(table[n].to_pylist(), object) for n in ("part", "source", "label")
        )
        rows = atlas._store.rows_of(self.ids)
        self.vectors = atlas._store.vectors_of("image", rows)
        known = set(atlas.columns()["column"].to_pylist())
        names = ", ".join(name for name in MEASURES["image"] if name in known)
        measures = atlas.sql(f"SELECT {names} FROM galaxies ORDER BY object_id")
        self.measures = np.stack([np.array(column.to_pylist(), np.float64) for column in measures.columns], axis=1)

        pictures = atlas.thumbnails(self.ids)
        self.quality = np.stack([quality.measure(decode_thumbnail(pictures[name])) for name in self.ids])

    def where(self, condition: str, part: str) -> np.ndarray:
        """Return the numbers of pictures of a part that pass."""
        names = self.atlas.sql(f"SELECT object_id FROM galaxies WHERE ({condition}) AND part = '{part}'")
        return np.flatnonzero(np.isin(self.ids, names["object_id"].to_pylist()))

    def scores(self, fitted: dict[str, novelty.Detector], rows: np.ndarray) -> np.ndarray:
        """Return the scores of pictures by each detector, `(n, j)`."""
        return np.stack([one.score(self._input(name)[rows]) for name, one in fitted.items()], axis=1)

    def _input(self, name: str) -> np.ndarray:
        others = dict.fromkeys(novelty.OF_COLUMNS, self.measures) | dict.fromkeys(novelty.OF_PICTURES, self.quality)
        return others.get(name, self.vectors)

    def fit(self, rows: np.ndarray, *, seed: int) -> dict[str, novelty.Detector]:
        """Return every detector that has what it needs, fitted on pictures."""
        labels = self.label[rows]
        classed = all(label is not None for label in labels)
        fitted = {}
        for name in novelty.NAMES:
            if name in novelty.OF_CLASSES and not classed:
                continue
            made = novelty.detector(name, seed=seed)
            fitted[name] = made.fit(self._input(name)[rows], labels.astype(str) if classed else None)
        return fitted


@dataclass
class Measured:
    """Scores of a task: of validation normals and odd ones, and of those of the test part, `(n, j)` each."""

    task: Task
    names: tuple[str, ...]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    sources: np.ndarray

    def nats(self, scores: np.ndarray) -> np.ndarray:
        """Return surprise in nats, on the scale of the validation normals."""
        scales = [novelty.Scale.fit(column) for column in self.validation[0].T]
        return np.stack([scale.nats(column) for scale, column in zip(scales, scores.T, strict=True)], axis=1)

    def ensemble(self, scores: np.ndarray, choice: Choice) -> np.ndarray:
        """Return what some detectors come to together, of those that the task has."""
        names, rule = choice
        at = [self.names.index(name) for name in names if name in self.names]
        return RULES[rule](self.nats(scores)[:, at])


def measured(pictures: Pictures, *, seed: int) -> dict:
    """Return all figures."""
    tasks = [_scored(pictures, task, seed=seed) for task in TASKS]
    chosen_by = [one for one in tasks if len(one.validation[1])]
    means = {
        name: float(np.mean([_validation_auroc(one, choice) for one in chosen_by])) for name, choice in CHOICES.items()
    }
    best = max(means, key=lambda name: means[name])
    print(f"validation: {json.dumps(means)}\nchosen: {best}")
    started = time.perf_counter()
    listed = pictures.atlas.anomalies(50)
    return {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "model": pictures.model,
        "pictures": len(pictures.ids),
        "list_of_pictures": {"seconds": round(time.perf_counter() - started, 1), "tested": listed.tested},
        "folds": _of_folds(pictures.atlas),
        "chosen": {
            "name": best,
            "detectors": list(CHOICES[best][0]),
            "rule": CHOICES[best][1],
            "validation_auroc": means,
        },
        "tasks": [_figures(one, CHOICES[best], seed=seed) for one in tasks],
    }


def _of_folds(atlas: galsearch.Atlas) -> dict:
    """Return how often `Atlas.anomalies` gives ordinary galaxies p <= 5 %, where no normals are named."""
    result = atlas.anomalies(MOST_LISTED, among="kind = 'gz1' AND part = 'test'")
    p = np.array(result.table["p_value"].to_pylist())
    assert len(p) == result.tested
    rate = float((p <= LEVEL).mean())
    error = float(np.sqrt(rate * (1 - rate) / len(p)))
    return {"normals": len(p), "false_positive_rate": rate, "error": error, "candidates": result.candidates}


def _scored(pictures: Pictures, task: Task, *, seed: int) -> Measured:
    fitted = pictures.fit(pictures.where(task.normal, TRAIN), seed=seed)
    parts = {}
    for part in (VALIDATION, TEST):
        rows = pictures.where(task.normal, part), pictures.where(task.odd, part)
        parts[part] = tuple(pictures.scores(fitted, one) for one in rows)
    sources = pictures.source[pictures.where(task.odd, TEST)]
    return Measured(task, tuple(fitted), parts[VALIDATION], parts[TEST], sources)


def _validation_auroc(one: Measured, choice: Choice) -> float:
    normal, odd = (one.ensemble(scores, choice) for scores in one.validation)
    return _auroc(normal, odd)


def _auroc(normal: np.ndarray, odd: np.ndarray) -> float:
    normal, odd = normal[np.isfinite(normal)], odd[np.isfinite(odd)]
    truth = np.repeat([0.0, 1.0], [len(normal), len(odd)])
    return float(auroc(np.concatenate([normal, odd]), truth) or np.nan)


def _figures(one: Measured, choice: Choice, *, seed: int) -> dict:
    """Return AUROC of each detector and of the ensemble, with intervals, and how p-values and rates keep their word."""
    rng = np.random.default_rng(seed)
    (normal, odd), names = one.test, one.names
    columns = {name: (normal[:, at], odd[:, at]) for at, name in enumerate(names)}
    columns[ENSEMBLE] = one.ensemble(normal, choice), one.ensemble(odd, choice)
    areas = {name: _interval(*pair, rng) for name, pair in columns.items()}
    single = max((name for name in areas if name != ENSEMBLE), key=lambda name: areas[name]["auroc"])
    result = {
        "task": one.task.name,
        "note": one.task.note,
        "bar": one.task.bar,
        "normals": len(normal),
        "odd": len(odd),
        "odd_by_source": {str(name): int((one.sources == name).sum()) for name in np.unique(one.sources.astype(str))},
        "prevalence": len(odd) / (len(normal) + len(odd)),
        "auroc": areas,
        "best_single": single,
        "ensemble_minus_best": areas[ENSEMBLE]["auroc"] - areas[single]["auroc"],
        "false_positive_rate": _false_positives(columns, rng),
        "discoveries": [_discoveries(columns[ENSEMBLE], share, rng) for share in SHARES],
    }
    print(json.dumps(result))
    return result


def _interval(normal: np.ndarray, odd: np.ndarray, rng: np.random.Generator) -> dict:
    """Return the AUROC with its bootstrap 95 % interval, normals and odd ones drawn anew each."""
    normal, odd = normal[np.isfinite(normal)], odd[np.isfinite(odd)]  # an object without a measure has no score by it
    above = (odd[:, None] > normal) + 0.5 * (odd[:, None] == normal)
    draws = []
    for _ in range(ROUNDS):
        of_odd = np.bincount(rng.integers(0, len(odd), len(odd)), minlength=len(odd))
        of_normal = np.bincount(rng.integers(0, len(normal), len(normal)), minlength=len(normal))
        draws.append(of_odd @ above @ of_normal / (len(odd) * len(normal)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"auroc": _auroc(normal, odd), "low": float(low), "high": float(high)}


def _false_positives(columns: dict[str, tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> dict:
    """Return the share of held-out normals with p <= 5 %: half calibrate, half are judged, drawn DRAWS times."""
    rates: dict[str, list[float]] = {name: [] for name in columns}
    count = len(next(iter(columns.values()))[0])
    for _ in range(DRAWS):
        order = rng.permutation(count)
        held, new = order[: count // 2], order[count // 2 :]
        for name, (normal, _) in columns.items():
            rates[name].append(float(np.nanmean(novelty.p_values(normal[held], normal[new]) <= LEVEL)))
    return {name: _mean_and_range(values) for name, values in rates.items()}


def _mean_and_range(values: list[float]) -> dict:
    low, high = np.quantile(values, [0.025, 0.975])
    error = float(np.std(values) / np.sqrt(len(values)))
    return {"mean": float(np.mean(values)), "error": error, "low": float(low), "high": float(high)}


def _discoveries(pair: tuple[np.ndarray, np.ndarray], share: float, rng: np.random.Generator) -> dict:
    """Return the false discovery rate and the share of odd ones listed at FDR, of mixtures drawn DRAWS times.

    Three quarters of the normals calibrate; the others are mixed with as many odd ones as the share wants, drawn from a
    binomial and without replacement.
    """
    normal, odd = pair
    rates, listed_odd, planted = [], [], 0
    for _ in range(DRAWS):
        order = rng.permutation(len(normal))
        first = round(CALIBRATING * len(normal))
        held, new = normal[order[:first]], normal[order[first:]]
        count = min(rng.binomial(round(len(new) / (1 - share)), share), len(odd))
        mixed = np.concatenate([new, rng.choice(odd, count, replace=False)])
        listed = novelty.q_values(novelty.p_values(held, mixed)) <= FDR
        rates.append(float(listed[: len(new)].sum() / max(listed.sum(), 1)))
        planted += count
        listed_odd.append(int(listed[len(new) :].sum()))
    return {"share": share, "fdr": _mean_and_range(rates), "recall": sum(listed_odd) / max(planted, 1)}


if __name__ == "__main__":
    main()
