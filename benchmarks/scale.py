"""How an atlas grows: `python -m benchmarks.scale --rows 100000 1000000 5000000`, with exponents and what follows.

Builds a folder and a bundle of each size, asks them, and fits a power of the number of rows to each figure. Results are
added to docs/scale.json, where those of the same size are replaced; stages are kept in the cache as those of
benchmarks.search are, and are the same ones. `--slim` removes the files of a size once its figures are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers import Place
from benchmarks.search import CACHE, ROOT, as_json, forget, machine, place_of, stage_result
from benchmarks.stages import Settings
from benchmarks.vectors import KINDS, Spec

OUT = ROOT / "docs" / "scale.json"
FORMS = ("folder", "bundle")
TARGET = {"rows": 140_000_000, "dim": 256}
CUTS = (("u", 0.1), ("u", 0.01), ("c", 0.01))
SETTINGS = Settings(queries=60, queries_under_cut=40, seconds=10.0, shares=(0.1, 0.01))


def main() -> None:
    """Measure every size, fit, print and write."""
    args = _arguments()
    points = earlier(args.out)
    for rows in args.rows:
        place = place_of(Spec(rows, args.dim, args.seed), args.cache)
        forget(place, args.again)
        found = point(place, {name: stage_result(place, SETTINGS, name) for name in stages()})
        points = [p for p in points if (p["rows"], p["dim"]) != (rows, args.dim)] + [found]
        points.sort(key=lambda p: (p["dim"], p["rows"]))
        found = {"machine": machine(), "target": TARGET, "points": points, "fits": list(fits(points))}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(as_json(found))
        if args.slim:
            slim(place)
    print("\n".join(report(found)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, default=CACHE / "scale", help="for data, atlases and results of stages")
    parser.add_argument("--again", nargs="*", metavar="TEXT", help="stages to repeat, as for benchmarks.search")
    parser.add_argument("--slim", action="store_true", help="remove the files of a size when it is measured")
    return parser.parse_args()


def earlier(path: Path) -> list[dict]:
    """Return the points that were measured before on this very machine with these versions."""
    known = json.loads(path.read_text()) if path.exists() else {"machine": None}
    return known["points"] if known["machine"] == machine() else []


def stages() -> list[str]:
    """Return the stages of a size: those of benchmarks.search, for the two forms alone."""
    names = [f"galsearch-{form}" for form in FORMS]
    return [
        "data",
        "truth",
        *(f"{what}:{name}" for what in ("build", "unfiltered", "filtered", "first") for name in names),
    ]


def slim(place: Place) -> None:
    """Remove what the data and the atlases of a size take on disk; the results of its stages stay."""
    for path in (place.table, place.array, place.bundle):
        path.unlink(missing_ok=True)
    shutil.rmtree(place.atlas, ignore_errors=True)


# ---- figures


def point(place: Place, results: dict[str, dict]) -> dict:
    """Return the figures of one size."""
    found = {"rows": place.spec.rows, "dim": place.spec.dim}
    for form in FORMS:
        built = results[f"build:galsearch-{form}"]
        found[f"{form}_build_s"] = built["seconds"]
        found[f"{form}_build_peak_mib"] = built["peak_mib"]
        found[f"{form}_bytes"] = built["bytes"]
        found |= _asked(form, results)
        first = results[f"first:galsearch-{form}"]
        found[f"{form}_cold_ms"] = first["cold"]["total_ms"]
        found[f"{form}_search_peak_mib"] = first["memory"]["all"]["peak_mib"]
    return found


def _asked(form: str, results: dict[str, dict]) -> Iterator[tuple[str, float]]:
    plain = [line for line in _default(results[f"unfiltered:galsearch-{form}"]) if line["k"] == 10]
    for kind in KINDS:
        line = next(line for line in plain if line["kind"] == kind)
        yield f"{form}_{kind}_ms", line["median_ms"]
        yield f"{form}_{kind}_recall", line["recall"]
    cut = _default(results[f"filtered:galsearch-{form}"])
    for column, share in CUTS:
        mine = [line for line in cut if (line["column"], line["share"]) == (column, share)]
        yield f"{form}_{column}{share:g}_ms", float(np.mean([line["median_ms"] for line in mine]))
        yield f"{form}_{column}{share:g}_recall", min(line["recall"] for line in mine)


def _default(stage: dict) -> list[dict]:
    return [line for line in stage["lines"] if line["effort"] is None]


# ---- what follows


def fits(points: Sequence[dict]) -> Iterator[dict]:
    """Yield for each figure its power of the rows, over all sizes and over the two largest, and its value at TARGET.

    Only sizes of the target's dimension count. `value` continues the two largest sizes: what grows last, wins.
    `value_all` continues the straight line through all.
    """
    mine = [p for p in points if p["dim"] == TARGET["dim"]]
    for figure in mine[0] if len(mine) > 1 else ():
        if figure in ("rows", "dim") or figure.endswith("_recall"):
            continue
        rows = np.array([p["rows"] for p in mine], dtype=float)
        values = np.array([max(p[figure], 1e-9) for p in mine])
        overall, last = _line(rows, values), _line(rows[-2:], values[-2:])
        at = np.log(TARGET["rows"])
        yield {
            "figure": figure,
            "exponent_all": round(overall[0], 3),
            "exponent": round(last[0], 3),
            "value_all": float(np.exp(np.polyval(overall, at))),
            "value": float(np.exp(np.polyval(last, at))),
        }


def _line(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.polyfit(np.log(rows), np.log(values), 1)


def report(found: dict) -> Iterator[str]:
    """Yield the figures as lines of text."""
    for size in found["points"]:
        yield f"{size['rows']:,} x {size['dim']}"
        yield from (f"  {name:26} {value:.4g}" for name, value in size.items() if name not in ("rows", "dim"))
    yield f"grows as rows to the power of (all sizes, the last two); at {TARGET['rows']:,} x {TARGET['dim']}"
    for fit in found["fits"]:
        powers = f"{fit['exponent_all']:6.2f} {fit['exponent']:6.2f}"
        yield f"  {fit['figure']:26} {powers}   {fit['value_all']:.3g} to {fit['value']:.3g}"


if __name__ == "__main__":
    main()
