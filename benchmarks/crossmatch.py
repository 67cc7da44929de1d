"""How long a cross-match takes, against astropy on the same arrays in the same run: `python -m benchmarks.crossmatch`.

Positions are scattered over the whole sky, or over one square degree where each has neighbors within the radius; half
of the left side lies within 0.2 arcsec of a position of the right side. "best" is compared with `match_to_catalog_sky`,
cut at the radius afterwards, and "all" with `search_around_sky`. For astropy the SkyCoords are made beforehand and anew
for each run, since they keep their tree; for galsearch everything counts. Every method has processes of its own, in
turn, so that the peak memory is that of one method. Neither starts a thread, so the time is that of the processor,
which other work on the machine does not lengthen. Both must find the same pairs. Figures go to docs/crossmatch.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.measure import memory_mib

SIDES = ((1_000_000, 100_000), (100_000, 1_000_000))
PLACES = ("sky", "field")
MODES = ("best", "all")
METHODS = ("galsearch", "astropy")
RADIUS_ARCSEC = 1.0
PROCESSES, RUNS = 2, 3  # runs in each process
OUT = Path(__file__).parents[1] / "docs" / "crossmatch.json"


def main() -> None:
    """Measure, print and write; with arguments, be one process that measures one method."""
    if len(sys.argv) > 1:
        print(json.dumps(measured(*sys.argv[1:4], *map(int, sys.argv[4:]))))
        return
    rows = [compared(*case) for case in product(PLACES, MODES, SIDES)]
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "astropy"))
    machine = f"{platform.machine()} {platform.system()}, {len(os.sched_getaffinity(0))} cores, {packages}"
    OUT.write_text(json.dumps({"radius_arcsec": RADIUS_ARCSEC, "machine": machine, "rows": rows}, indent=1) + "\n")
    print(f"within {RADIUS_ARCSEC:g} arcsec; {machine}\n")
    print("\n".join(table(rows)))


def compared(place: str, mode: str, sides: tuple[int, int]) -> dict:
    """Return the medians of both methods, the ratio of their times, and the memory that each took beyond its input."""
    found = {method: [] for method in METHODS}
    for _ in range(PROCESSES):
        for method in METHODS:
            command = [sys.executable, "-m", "benchmarks.crossmatch", method, place, mode, *map(str, sides)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[method].append(json.loads(answer.stdout))
    digests = {tuple(one["digest"]) for runs in found.values() for one in runs}
    if len(digests) != 1:
        raise SystemExit(f"{place}, {mode}, {sides}: the methods found different pairs: {digests}")
    row = {"place": place, "mode": mode, "left": sides[0], "right": sides[1], "pairs": digests.pop()[0]}
    for method, runs in found.items():
        row[f"{method}_s"] = statistics.median(second for one in runs for second in one["seconds"])
        row[f"{method}_mib"] = statistics.median(one["peak_mib"] for one in runs)
    return {**row, "ratio": row["galsearch_s"] / row["astropy_s"]}


def table(rows: list[dict]) -> list[str]:
    """Return the figures as a Markdown table."""
    head = "| where | mode | rows | pairs | galsearch | astropy | ratio | peak memory, galsearch | astropy |"
    lines = [head, "| " + " | ".join(["---"] * 9) + " |"]
    for row in rows:
        cells = (
            {"sky": "whole sky", "field": "1 deg²"}[row["place"]],
            row["mode"],
            f"{row['left']:,} × {row['right']:,}",
            f"{row['pairs']:,}",
            *(f"{row[f'{method}_s']:.2f} s" for method in METHODS),
            f"{row['ratio']:.2f}",
            *(f"{row[f'{method}_mib']:.0f} MiB" for method in METHODS),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


# ---- one process


def measured(method: str, place: str, mode: str, left: int, right: int) -> dict:
    """Return the seconds of each run, the peak memory beyond the input in MiB, and (pairs, sums) of what was found."""
    here, there = positions(place, left, right)
    run = {"galsearch": galsearch_runs, "astropy": astropy_runs}[method]
    run(here[:, :10], there[:, :10], mode)  # whatever is imported late
    before = memory_mib()["rss_mib"]
    seconds = []
    for _ in range(RUNS):
        spent, pairs = run(here, there, mode)
        seconds.append(spent)
    digest = [len(pairs[0]), int(pairs[0].sum()), int(pairs[1].sum())]
    return {"seconds": seconds, "peak_mib": memory_mib()["peak_mib"] - before, "digest": digest}


def galsearch_runs(here: np.ndarray, there: np.ndarray, mode: str) -> tuple[float, tuple]:
    """Return the seconds and the pairs of galsearch."""
    from galsearch.science.sky import crossmatch

    started = time.process_time()
    pairs = crossmatch(*here, *there, radius_arcsec=RADIUS_ARCSEC, mode=mode)
    return time.process_time() - started, pairs[:2]


def astropy_runs(here: np.ndarray, there: np.ndarray, mode: str) -> tuple[float, tuple]:
    """Return the seconds and the pairs of astropy."""
    from astropy import units
    from astropy.coordinates import SkyCoord, search_around_sky

    left, right = (SkyCoord(*side, unit="deg") for side in (here, there))
    radius = RADIUS_ARCSEC * units.arcsec
    started = time.process_time()
    if mode == "all":
        pairs = search_around_sky(left, right, radius)[:2]
    else:
        nearest, apart, _ = left.match_to_catalog_sky(right)
        within = np.flatnonzero(apart <= radius)
        pairs = within, nearest[within]
    return time.process_time() - started, pairs


def positions(place: str, left: int, right: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return ra, dec in degrees of both sides, `(2, left)` and `(2, right)`."""
    rng = np.random.default_rng(seed)
    here, there = (_scattered(rng, place, rows) for rows in (left, right))
    close = there[:, rng.integers(0, right, left // 2)] + rng.normal(scale=0.2 / 3600, size=(2, left // 2))
    here[:, : left // 2] = np.mod(close[0], 360), np.clip(close[1], -90, 90)
    return here[:, rng.permutation(left)], there


def _scattered(rng: np.random.Generator, place: str, rows: int) -> np.ndarray:
    if place == "sky":
        return np.stack([rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))])
    return np.stack([150 + rng.uniform(-0.5, 0.5, rows), 2 + rng.uniform(-0.5, 0.5, rows)])


if __name__ == "__main__":
    main()
