"""How long looking objects up takes, and whether chance matches are as many as said: `python -m benchmarks.identify`.

100,000 objects, half of them within 0.3 arcsec of a real position and half nowhere in particular, against the 393,079
positions of `$GALSEARCH_DATA/catalogs/positions.parquet`. "identify" is `Atlas.identify` on an atlas of them, with
reading the Parquet file and the atlas, densities, probabilities and the table; "matches" is what of it works on arrays:
pairs, densities, probabilities. astropy's `search_around_sky` (pairs) and `match_coordinates_sky` (the closest, cut
afterwards) get the same arrays in the same run, in a process of their own each, in turn; SkyCoords are made beforehand.
All must match the same objects. Time is that of the processor, memory the peak beyond the input.

Chance: 100,000 random positions, over the whole sky and 10 to 60 arcminutes from real positions: how many have a match,
with a 95 % interval (Wilson), beside the sum of their probabilities. Figures go to docs/identify.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import memory_mib

ROWS, RADIUS_ARCSEC = 100_000, 3.0
RADII_ARCSEC = (2.0, 10.0, 30.0, 120.0)
METHODS = ("identify", "matches", "search_around_sky", "match_coordinates_sky")
PROCESSES = 3
OUT = Path(__file__).parents[1] / "docs" / "identify.json"


def main() -> None:
    """Measure, print and write; with arguments, be one process that measures one method."""
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        atlas = build(Path(folder))
        runs = [{method: in_its_process(method, atlas) for method in METHODS} for _ in range(PROCESSES)]
    matched = {run[method]["matched"] for run in runs for method in METHODS}
    if len(matched) != 1:
        raise SystemExit(f"the methods matched different objects: {runs}")
    result = {
        "objects": ROWS,
        "positions": len(catalog()[0]),
        "radius_arcsec": RADIUS_ARCSEC,
        "matched": matched.pop(),
        "machine": machine(),
        "methods": [summary(method, runs) for method in METHODS],
        "chance": [one for place in ("whole sky", "near positions") for one in chance(place)],
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def machine() -> str:
    """Return what it was measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "astropy"))
    return f"{platform.machine()} {platform.system()}, {len(os.sched_getaffinity(0))} cores, {packages}"


def catalog() -> np.ndarray:
    """Return ra, dec of the real positions, `(2, n)`."""
    table = pq.read_table(catalog_path(), columns=["ra", "dec"])
    return np.stack([table["ra"].to_numpy(), table["dec"].to_numpy()])


def catalog_path() -> Path:
    """Return the file of the real positions."""
    return Path(os.environ["GALSEARCH_DATA"]) / "catalogs" / "positions.parquet"


def objects(*, seed: int = 0) -> np.ndarray:
    """Return ra, dec of the objects, `(2, n)`."""
    rng, there = np.random.default_rng(seed), catalog()
    half = ROWS // 2
    near = there[:, rng.integers(0, there.shape[1], half)] + rng.normal(scale=0.1 / 3600, size=(2, half))
    near = np.stack([np.mod(near[0], 360), np.clip(near[1], -90, 90)])
    return np.concatenate([near, anywhere(rng, ROWS - half)], axis=1)


def anywhere(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return random positions over the whole sky."""
    return np.stack([rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))])


def build(folder: Path) -> Path:
    """Return an atlas of the objects, with vectors that mean nothing."""
    import galsearch

    ra, dec = objects()
    vectors = np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32)
    ids = [f"g{number:06d}" for number in range(ROWS)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4)
    pq.write_table(pa.table({"object_id": ids, "ra": ra, "dec": dec, "vec": column}), folder / "source.parquet")
    galsearch.build(folder / "g.atlas", table=folder / "source.parquet", vectors="vec", model="none")
    return folder / "g.atlas"


def in_its_process(method: str, atlas: Path) -> dict:
    """Return what one method took, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.identify", method, str(atlas)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def summary(method: str, runs: list[dict]) -> dict:
    """Return the medians of one method, and its time over that of `search_around_sky` in the same turn."""
    ours = [run[method] for run in runs]
    ratios = [run[method]["seconds"] / run["search_around_sky"]["seconds"] for run in runs]
    return {
        "method": method,
        "seconds": round(statistics.median(one["seconds"] for one in ours), 3),
        "wall_seconds": round(statistics.median(one["wall_seconds"] for one in ours), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(min(ratios), 2), round(max(ratios), 2)],
        "memory_mib": round(statistics.median(one["memory_mib"] for one in ours)),
    }


def measured(method: str, atlas: Path) -> dict:
    """Return the seconds and the memory of one method, and how many objects it matched."""
    run = {"identify": identify_run, "matches": matches_run}.get(method, astropy_run)
    call = run(method, atlas)
    before = memory_mib()["rss_mib"]
    started, wall = time.process_time(), time.perf_counter()
    matched = call()
    seconds, wall = time.process_time() - started, time.perf_counter() - wall
    return {
        "seconds": seconds,
        "wall_seconds": wall,
        "memory_mib": memory_mib()["peak_mib"] - before,
        "matched": int(matched),
    }


def identify_run(method: str, atlas: Path):
    """Return what `Atlas.identify` has to do."""
    import galsearch

    opened = galsearch.open(atlas)
    opened.identify("g000000", kind="lens", against=pa.table({"ra": [1.0], "dec": [1.0]}))  # whatever is imported late

    def call() -> int:
        result = opened.identify(kind="lens", against=f"{catalog_path()}=galaxy", radius_arcsec=RADIUS_ARCSEC)
        return result.counts["known of another kind"]

    return call


def matches_run(method: str, atlas: Path):
    """Return what matching on arrays has to do."""
    from galsearch.discovery.catalogs import ABOUT, Listing, Objects, matches_of

    here, there = objects(), catalog()
    radius = np.full(ROWS, RADIUS_ARCSEC)
    of_kind = np.zeros(there.shape[1], bool)
    listing = Listing("positions", *there, ABOUT.empty_table(), of_kind, [None] * ROWS)

    def call() -> int:
        matches, _ = matches_of([listing], Objects(*here, 60.0), radius)
        return len(np.unique(matches.object))

    few = Listing("few", *there[:, :10], ABOUT.empty_table(), of_kind[:10], [None] * 10)
    matches_of([few], Objects(*here[:, :10], 60.0), radius[:10])  # whatever is imported late
    return call


def astropy_run(method: str, atlas: Path):
    """Return what astropy has to do."""
    from astropy import units
    from astropy.coordinates import SkyCoord, match_coordinates_sky, search_around_sky

    left, right = (SkyCoord(*side, unit="deg") for side in (objects(), catalog()))
    radius = RADIUS_ARCSEC * units.arcsec
    match_coordinates_sky(left[:10], right[:10])  # whatever is imported late

    def call() -> int:
        if method == "search_around_sky":
            return len(np.unique(search_around_sky(left, right, radius)[0]))
        return int((match_coordinates_sky(left, right)[1] <= radius).sum())

    return call


def chance(place: str, *, seed: int = 2) -> list[dict]:
    """Return how many random positions have a match at several radii, and how many should by their probabilities."""
    from galsearch.science import sky

    rng, there = np.random.default_rng(seed), catalog()
    here = anywhere(rng, ROWS) if place == "whole sky" else beside(rng, there)
    rows = []
    for radius in RADII_ARCSEC:
        density = sky.surface_density(*here, *there, beyond_arcsec=radius)
        predicted = float(sky.chance_probability(density, radius).sum())
        measured = len(sky.crossmatch(*here, *there, radius_arcsec=radius).left)
        low, high = wilson(measured, ROWS)
        told = {"place": place, "radius_arcsec": radius, "positions": ROWS, "predicted": round(predicted, 1)}
        rows.append(told | {"measured": measured, "low": round(low * ROWS, 1), "high": round(high * ROWS, 1)})
    return rows


def beside(rng: np.random.Generator, there: np.ndarray) -> np.ndarray:
    """Return positions 10 to 60 arcminutes from real ones: where the catalog is, and not on its sources."""
    ra, dec = there[:, rng.integers(0, there.shape[1], ROWS)]
    angle, far = rng.uniform(0, 2 * np.pi, ROWS), rng.uniform(1 / 6, 1, ROWS)
    moved = np.clip(dec + far * np.sin(angle), -89.9, 89.9)
    return np.stack([np.mod(ra + far * np.cos(angle) / np.cos(np.radians(moved)), 360), moved])


def wilson(count: int, total: int, *, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share by Wilson (1927)."""
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return float(middle - half), float(middle + half)


if __name__ == "__main__":
    main()
