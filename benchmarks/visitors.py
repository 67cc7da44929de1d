"""What a query of a visitor costs beyond the same query of the owner: paired, one after the other, on one atlas.

    python -m benchmarks.visitors demo/xdf.duckdb

Prints, for each query, the medians in milliseconds, the median of the differences of pairs, and the lower quartiles,
which say more on a machine that is busy. A visitor's query goes to a worker process, the owner's does not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

import galsearch

PAIRS = 200
WHERE = "axis_ratio < 0.5"


def main() -> None:
    """Measure and print."""
    path = sys.argv[1] if len(sys.argv) > 1 else "demo/xdf.duckdb"
    with galsearch.open(path) as mine, galsearch.open(path, visitors=galsearch.Limits()) as theirs:
        found = {name: _pairs(ask, mine, theirs) for name, ask in _queries().items()}
    for name, row in found.items():
        print(json.dumps({"query": name, **row}))


def _queries() -> dict[str, Callable[[galsearch.Atlas], object]]:
    statement = "SELECT count(*) AS n, avg(axis_ratio) FROM galaxies WHERE axis_ratio < 0.5"
    return {
        "search, no condition": lambda atlas: atlas.search("spiral galaxy", k=12).ids,
        "search, condition": lambda atlas: atlas.search("spiral galaxy", where=WHERE, k=12).ids,
        "list, condition": lambda atlas: atlas.search(where=WHERE, k=12).ids,
        "count": lambda atlas: atlas.count(WHERE),
        "sql": lambda atlas: atlas.sql(statement).num_rows,
    }


def _pairs(ask: Callable, mine: galsearch.Atlas, theirs: galsearch.Atlas) -> dict[str, float]:
    """Return milliseconds of the owner and the visitor, in turn which goes first."""
    for atlas in (mine, theirs):
        ask(atlas)
    times = np.array([_pair(ask, (mine, theirs), number) for number in range(PAIRS)]) * 1e3
    middle, quartile = np.median(times, axis=0), np.quantile(times, 0.25, axis=0)
    return {
        "owner_ms": round(float(middle[0]), 2),
        "visitor_ms": round(float(middle[1]), 2),
        "more_ms": round(float(np.median(times[:, 1] - times[:, 0])), 2),
        "owner_quartile_ms": round(float(quartile[0]), 2),
        "visitor_quartile_ms": round(float(quartile[1]), 2),
    }


def _pair(ask: Callable, atlases: tuple, number: int) -> list[float]:
    taken = [0.0, 0.0]
    for place in (number % 2, 1 - number % 2):
        start = time.perf_counter()
        ask(atlases[place])
        taken[place] = time.perf_counter() - start
    return taken


if __name__ == "__main__":
    main()
