"""A bundle behind an address: `python -m benchmarks.remote` measures first and next answers over a slow line.

A server on this machine, a process of its own, waits before each answer and sends no faster than the line allows. Each
form of the bundle is asked in a process of its own with an empty cache; modules are imported before the clock starts.
Answers are those of a user: ids, scores and all columns of the 12 best. "array" is asked by vectors of which nothing is
known, "hit" by hits of the answer before ("more like this").
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.search import CACHE, as_json, machine, place_of, stage_result
from benchmarks.stages import Settings
from benchmarks.vectors import Spec, queries

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "remote.json"
SERVER = ROOT / "tests" / "range_server.py"
K = 12
BARS = {"first_seconds": 3.0, "first_mb": 8.0, "next_seconds": 0.7}
FORMS = {  # of the bundle: options of galsearch.bundle
    "floats": {},
    "compact": {"compact": True},
    "compact, small blocks": {"compact": True, "block_bytes": 16_384},
}
WAYS = {"array": 0.98, "array, recall 0.9": 0.9, "hit": 0.98, "hit, recall 0.9": 0.9}


def main() -> None:
    """Measure, print and write; or do the one part that a parent process asks for."""
    args = _arguments()
    if args.ask:
        print(json.dumps(ask(args.ask, args.address, args.way, Spec(args.rows, args.dim), args.next)))
        return
    result = {"spec": {"rows": args.rows, "dim": args.dim}, "line": {"delay_ms": args.delay_ms, "mbits": args.mbits}}
    result |= {"bars": BARS, "machine": machine(), "forms": {}}
    place = place_of(Spec(args.rows, args.dim), args.cache)
    for stage in ("data", "build:galsearch-folder"):
        stage_result(place, Settings(), stage)
    for number, (form, options) in enumerate(FORMS.items()):
        path = place.root / f"remote-{number}.duckdb"
        bundled(place.atlas, path, options)
        ways = {way: measured(args, path, way) for way in WAYS}
        result["forms"][form] = {"mb": round(path.stat().st_size / 1e6, 1), **ways}
        for way, line in ways.items():
            print(f"{form}; {way}: {line}")
    args.out.write_text(as_json(result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--delay-ms", type=float, default=50.0)
    parser.add_argument("--mbits", type=float, default=20.0)
    parser.add_argument("--next", type=int, default=10, help="answers after the first")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for data and bundles")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser.parse_args()


def bundled(atlas: Path, path: Path, options: dict) -> None:
    """Write the bundle where it is not there yet."""
    import galsearch

    if not path.exists():
        galsearch.bundle(atlas, path, **options)


def measured(args: argparse.Namespace, path: Path, way: str) -> dict:
    """Return what a process of its own finds, with an empty cache."""
    options = ["--rows", args.rows, "--dim", args.dim, "--next", args.next, "--way", way]
    with served(path, args) as address, tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "benchmarks.remote", "--ask", path, "--address", address, *options]
        environment = {**os.environ, "XDG_CACHE_HOME": home}
        done = subprocess.run(
            [*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
    return json.loads(done.stdout)


@contextlib.contextmanager
def served(path: Path, args: argparse.Namespace) -> Iterator[str]:
    """Give the address of a file behind a slow line."""
    command = [sys.executable, SERVER, path, "--delay-ms", args.delay_ms, "--mbits", args.mbits]
    process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


def ask(path: Path, address: str, way: str, spec: Spec, count: int) -> dict:
    """Open, ask once, and `count` times more; the same is asked of the file itself, which also warms up."""
    import fsspec  # noqa: F401  before the clock starts, as everything else
    import httpx2  # noqa: F401

    import galsearch

    stored = np.load(path.parent / "vectors.npy", mmap_mode="r")
    vectors = queries(spec, stored, count + 1, kind="like", purpose="report")
    recall = WAYS[way]
    with galsearch.open(path) as here:
        _ = here.search(vectors[0], k=K).table
        start = time.perf_counter()
        with galsearch.open(address) as there:
            file = there._store._file
            hits = there.search(vectors[0], k=K, recall=recall)
            table = hits.table
            first = time.perf_counter() - start, file.received / 1e6, file.requests
            same = [table.equals(here.search(vectors[0], k=K, recall=recall).table)]
            after, shares = [], []
            for vector in vectors[1:]:
                what = hits[-1] if way.startswith("hit") else vector
                before, start = (file.received, file.requests), time.perf_counter()
                hits = there.search(what, k=K, recall=recall)
                table = hits.table
                took = time.perf_counter() - start
                after.append((took, (file.received - before[0]) / 1e6, file.requests - before[1]))
                same.append(table.equals(here.search(what, k=K, recall=recall).table))
                best = here.search(what, k=K, exact=True).table["object_id"].to_pylist()
                shares.append(len(set(best) & set(table["object_id"].to_pylist())) / len(best))
    seconds, megabytes, requests = (round(median(values), 3) for values in zip(*after, strict=True))
    return {
        "first_seconds": round(first[0], 3),
        "first_mb": round(first[1], 2),
        "first_requests": first[2],
        "next_seconds": seconds,
        "next_mb": megabytes,
        "next_requests": requests,
        "slowest_seconds": round(max(took for took, _, _ in after), 3),
        "recall": round(float(np.mean(shares)), 3),
        "same_as_local": all(same),
    }


if __name__ == "__main__":
    main()
