"""What the first questions to an atlas cost a fresh process: `python -m benchmarks.first ATLAS QUERY.npy STEP…`.

A process of its own is the only honest place for this: nothing is loaded, cached or allocated by an earlier question.
Prints one JSON object. Steps are `unfiltered`, `exact`, or a SQL condition; imports are not part of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import time
from pathlib import Path

import numpy as np

import galsearch
from benchmarks.measure import memory_mib, peak_anonymous, read_bytes


def main() -> None:
    """Open, ask, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("query", type=Path, help="a .npy file of one vector")
    parser.add_argument("steps", nargs="+")
    parser.add_argument("--memory", action="store_true", help="watch the memory, which makes the times worthless")
    args = parser.parse_args()
    _import(args.atlas)
    with peak_anonymous() if args.memory else contextlib.nullcontext({}) as seen:
        found = ask(args.atlas, np.load(args.query), args.steps)
    print(json.dumps({**found, **memory_mib(), **seen}))


def _import(atlas: Path) -> None:
    for name in ("duckdb", *(["lance"] if atlas.is_dir() else [])):
        importlib.import_module(name)
    _ = galsearch.open  # found at first use, with everything that it imports


def ask(path: Path, query: np.ndarray, steps: list[str]) -> dict:
    """Open the atlas and take the steps; return milliseconds of opening and of each, and the bytes read from disk."""
    before, started = read_bytes(), time.perf_counter()
    atlas = galsearch.open(path)
    spent = {"open_ms": (time.perf_counter() - started) * 1e3}
    for number, step in enumerate(steps):
        began = time.perf_counter()
        options = {"unfiltered": {}, "exact": {"exact": True}}.get(step, {"where": step})
        _ = atlas.search(query, k=10, **options).ids
        spent[f"search_{number + 1}_ms"] = (time.perf_counter() - began) * 1e3
    total = (time.perf_counter() - started) * 1e3
    atlas.close()
    return {**spent, "total_ms": total, "read_mib": (read_bytes() - before) / 2**20}


if __name__ == "__main__":
    main()
