"""How fast and how true the measured form is: `python -m benchmarks.morphology`, with GALSEARCH_DATA set.

Speed is that of `morphology.measure` on random pictures of EFIGI and Galaxy Zoo 1, beside statmorph on some of the
same. Truth is EFIGI's expert labels: every threshold was chosen on the half of the galaxies whose id has a sha256
with an even first byte, and only the other half is judged here, by AUROC with a bootstrap interval of 95 %. The
figures go to docs/morphology.json, from which docs/morphology.md is written.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from galsearch.science import detection, images

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "morphology.json"
SETS = ("efigi", "gz1")


def main() -> None:
    """Measure speed and truth, print both, and write them down unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GALSEARCH_DATA"), help="folder of the sets")
    parser.add_argument("--pictures", type=int, default=300, help="of each set, for the speed")
    parser.add_argument("--statmorph", type=int, default=5, help="of each set, given to statmorph as well")
    parser.add_argument("--only", choices=("speed", "truth"))
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("the pictures are needed: set GALSEARCH_DATA or give --data")
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.only != "truth":
        found["speed"] = [speed(args.data, name, args) for name in SETS]
        found["machine"] = {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
    if args.only != "speed":
        found["truth"] = truth(args.data / "galaxies", seed=args.seed)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


def table(data: Path, name: str) -> list[dict[str, str]]:
    """Return the manifest of a set."""
    with (data / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def picture(path: Path) -> np.ndarray:
    """Return the pixels of a file, (h, w, 3) uint8."""
    return images.render(images.read_picture(path))


def form(path: Path) -> dict:
    """Return everything that is measured on a file."""
    return detection.measure(picture(path))


def forms(paths: list[Path]) -> list[dict]:
    """Return what is measured on each file, by as many processes as there are cores."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return list(pool.map(form, paths, chunksize=64))


# ---- speed


def speed(data: Path, name: str, args: argparse.Namespace) -> dict:
    """Return galaxies a second for one core, for two at once, and for statmorph on a few of the same pictures."""
    rows = table(data / "galaxies", name)
    chosen = np.random.default_rng(args.seed).choice(len(rows), min(args.pictures, len(rows)), replace=False)
    pictures = [picture(data / "galaxies" / name / rows[row]["file"]) for row in chosen]
    detection.measure(pictures[0])
    alone, cpu = _rate(pictures)
    halves = [pictures[::2], pictures[1::2]]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_rate, [pictures[:2]] * 2))  # both have started and loaded everything
        began = time.perf_counter()
        list(pool.map(_rate, halves))
        both = len(pictures) / (time.perf_counter() - began)
    theirs = _statmorph_rate(pictures[: args.statmorph])
    result = {
        "set": name,
        "pixels": pictures[0].shape[0],
        "pictures": len(pictures),
        "one core, galaxies/s": alone,
        "one core, by processor time": cpu,
        "two cores, galaxies/s": both,
        "statmorph, galaxies/s": theirs,
        "times faster": None if theirs is None else cpu / theirs,
    }
    print(json.dumps(result))
    return result


def _rate(pictures: list[np.ndarray]) -> tuple[float, float]:
    """Return pictures a second by the clock, and by the time that the processor worked for this process."""
    began, worked = time.perf_counter(), time.process_time()
    for pixels in pictures:
        detection.measure(pixels)
    return len(pictures) / (time.perf_counter() - began), len(pictures) / (time.process_time() - worked)


def _statmorph_rate(pictures: list[np.ndarray]) -> float | None:
    """Return what statmorph does of the same in a second of processor time, given the segmentation; None without it."""
    if importlib.util.find_spec("statmorph") is None or not pictures:
        return None
    import sep
    import statmorph

    worked, done = 0.0, 0
    for pixels in pictures:
        gray = pixels.astype(np.float64).mean(axis=2)
        gray -= np.median(gray[:6])
        sigma = max(float(gray[:6].std()), 0.5)
        _, segments = sep.extract(gray, 3 * sigma, minarea=10, segmentation_map=True)
        middle = segments[segments.shape[0] // 2, segments.shape[1] // 2]
        if middle:
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = statmorph.source_morphology(
                    gray, (segments == middle).astype(int), weightmap=np.full(gray.shape, sigma)
                )[0]
                _ = found.asymmetry, found.smoothness, found.gini, found.m20, found.sersic_n
            worked, done = worked + time.process_time() - began, done + 1
    return done / worked if done else None


# ---- truth


def held_out(identifier: str) -> bool:
    """Tell whether a galaxy is in the half that no threshold was chosen on."""
    return hashlib.sha256(identifier.encode()).digest()[0] % 2 == 1


def truth(data: Path, *, seed: int) -> list[dict]:
    """Return one row a question: the column, what it should tell apart, how well it does, on how many galaxies."""
    rows = [row for row in table(data, "efigi") if held_out(row["PGC"])]
    measured = forms([data / "efigi" / row["file"] for row in rows])
    answers = [_answer(*question, measured, rows, seed=seed) for question in efigi_questions()]
    spirals = [row for row in table(data, "gz1") if row["gz1_class"] in ("spiral_cw", "spiral_acw")]
    turned = forms([data / "gz1" / row["file"] for row in spirals])
    sense = ("arm_pitch", "Galaxy Zoo 1: anticlockwise against clockwise spirals", _sense)
    answers.append(_answer(*sense, turned, spirals, seed=seed))
    for answer in answers:
        print(json.dumps(answer))
    return answers


Question = tuple[str, str, Callable[[dict], bool | None]]


def efigi_questions() -> Iterable[Question]:
    """Yield column, words, and whether the thing is there by the label: None for galaxies that are not asked about."""
    face_on = "disks of inclination up to 0.5"
    yield "bar_strength", f"Bar_Length 0.5 or more against 0, {face_on}", _bar
    yield "arm_strength", "T 3 to 6 against T -3 or less", _type
    yield "ring_contrast", f"an inner, outer or pseudo-ring of 0.5 or more against none, {face_on}", _ring
    yield "axis_ratio", "Inclination 0.25 or less against 0.75 or more, disks", _inclined
    yield "concentration", "T -3 or less against T 3 to 6", _early
    yield "sersic_n", "T -3 or less against T 3 to 6", _early
    yield "gini", "T -3 or less against T 3 to 6", _early
    yield "m20", "T 3 to 6 against T -3 or less", _type
    yield "asymmetry", "Perturbation 0.5 or more against 0", lambda row: _high(row, "Perturbation")
    yield "smoothness", "Flocculence 0.5 or more against 0", lambda row: _high(row, "Flocculence")
    yield "color_gradient", "T -3 or less against T 3 to 6", _early
    yield "companions", "Multiplicity 0.5 or more against 0", lambda row: _high(row, "Multiplicity")


def _label(row: dict, name: str) -> float:
    """Return an attribute, NaN where EFIGI does not define it."""
    text = row[name]
    return float("nan") if text == "" or (text == "-1" and name != "T") else float(text)


def _early(row: dict) -> bool | None:
    late = _type(row)
    return None if late is None else not late


def _high(row: dict, *names: str) -> bool | None:
    value = np.fmax.reduce([_label(row, name) for name in names])
    return True if value >= 0.5 else False if value == 0 else None


def _type(row: dict) -> bool | None:
    kind = _label(row, "T")
    return True if 3 <= kind <= 6 else False if kind <= -3 else None


def _face_on_disk(row: dict) -> bool:
    return _label(row, "T") >= -3 and _label(row, "Inclination") <= 0.5


def _bar(row: dict) -> bool | None:
    return _high(row, "Bar_Length") if _face_on_disk(row) else None


def _ring(row: dict) -> bool | None:
    return _high(row, "Inner_Ring", "Outer_Ring", "Pseudo_Ring") if _face_on_disk(row) else None


def _inclined(row: dict) -> bool | None:
    tilt = _label(row, "Inclination")
    if not _label(row, "T") >= -3:
        return None
    return True if tilt <= 0.25 else False if tilt >= 0.75 else None


def _sense(row: dict) -> bool:
    return row["gz1_class"] == "spiral_acw"


def _answer(
    column: str, words: str, label: Callable[[dict], bool | None], measured: list[dict], rows: list[dict], *, seed: int
) -> dict:
    there = [(label(row), found[column]) for row, found in zip(rows, measured, strict=True)]
    asked = [(answer, value) for answer, value in there if answer is not None]
    known = [(answer, float(value)) for answer, value in asked if value is not None]
    truth, values = (np.array(part) for part in zip(*known, strict=True))
    low, high = interval(values, truth, seed=seed)
    return {
        "column": column,
        "tells apart": words,
        "AUROC": auroc(values, truth),
        "low": low,
        "high": high,
        "positives": int(truth.sum()),
        "negatives": int((~truth).sum()),
        "NULL": len(asked) - len(known),
    }


def auroc(values: np.ndarray, truth: np.ndarray) -> float:
    """Return the chance that a galaxy that has the thing has the higher value; ties count half."""
    from scipy.stats import rankdata

    positives = truth.sum()
    return float((rankdata(values)[truth].sum() - positives * (positives + 1) / 2) / (positives * (~truth).sum()))


def interval(values: np.ndarray, truth: np.ndarray, *, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the AUROC, galaxies with and without drawn apart."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([generator.choice(group, len(group)) for group in groups])
        drawn.append(auroc(values[rows], truth[rows]))
    return tuple(float(value) for value in np.quantile(drawn, [0.025, 0.975]))


if __name__ == "__main__":
    main()
