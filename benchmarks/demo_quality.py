"""Whether words find what they say on the demo, judged by measured columns: `python -m benchmarks.demo_quality`.

The Hubble eXtreme Deep Field was in no training set. Each line gives the median of a measured column over the ten best
hits with a bootstrap 95 % interval, and the median over all galaxies of the atlas as what chance would give.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import galsearch
from galsearch.science.metrics import bootstrap_interval

GALAXIES = "NOT is_star AND NOT is_artifact"
QUESTIONS = (
    ("edge-on galaxy", "axis_ratio"),
    ("face-on spiral galaxy", "axis_ratio"),
    ("red elliptical galaxy", "color_br"),
    ("blue irregular galaxy", "color_br"),
)


def main() -> None:
    """Print one line a question."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/xdf.duckdb")
    with galsearch.open(path) as atlas:
        everything = atlas.sql(f"SELECT axis_ratio, color_br FROM galaxies WHERE {GALAXIES}")
        print(f"{path}: {everything.num_rows} galaxies of {len(atlas)} sources; median of the 10 best hits")
        for text, column in QUESTIONS:
            for where in (None, GALAXIES):
                values = _values(atlas.search(text, where=where, k=10).table, column)
                low, high = bootstrap_interval(values, statistic=np.median, seed=0)
                chance = np.median(_values(everything, column))
                cut = "galaxies only" if where else "all sources"
                figures = f"{np.median(values):6.3f}  [{low:.3f}, {high:.3f}]  all: {chance:.3f}"
                print(f"{text:24} {column:11} {figures}  ({cut})")


def _values(table, column: str) -> np.ndarray:
    return np.array([value for value in table[column].to_pylist() if value is not None])


if __name__ == "__main__":
    main()
