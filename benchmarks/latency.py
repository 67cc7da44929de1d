"""How long a question takes, against doing the same by hand: `python -m benchmarks.latency demo/xdf.duckdb`.

The peer for a warm query is the same ONNX encoder followed by numpy over vectors held in memory, which has no SQL, no
columns and no file. The peer for a cold start is a bare Python process that imports DuckDB and ONNX Runtime. Figures
go to docs/latency.json, from which the README takes them.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import galsearch

PHRASES = ("edge-on galaxy", "face-on spiral galaxy", "red elliptical galaxy", "blue irregular galaxy", "ring")
WORDS = ("small", "large", "faint", "bright", "dusty", "smooth", "blue", "red", "compact", "disturbed")
COLD_RUNS = 7
OUT = Path(__file__).parents[1] / "docs" / "latency.json"


def main() -> None:
    """Measure, print and write."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/xdf.duckdb")
    with galsearch.open(path) as atlas:
        galaxies, rows = len(atlas), warm(atlas)
    rows.append(cold(path))
    machine = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}, {cores()} cores"
    OUT.write_text(json.dumps({"rows": rows, "galaxies": galaxies, "machine": machine}, indent=1) + "\n")
    print(f"{path}: {galaxies} galaxies; {machine}")
    for row in rows:
        print(
            "  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{value:28}" for key, value in row.items())
        )


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def warm(atlas: galsearch.Atlas) -> list[dict]:
    """Measure queries in one process after the first: new words, with a cut, by example."""
    texts = [f"{word} {phrase}" for word in WORDS for phrase in PHRASES]  # all new: nothing is answered from a cache
    atlas.search("galaxy")
    galaxies = [atlas[object_id] for object_id in atlas.search(where="axis_ratio < 0.9", k=50).ids]
    by_hand = _by_hand(atlas)
    peer = _milliseconds([f"the {text}" for text in texts], lambda text: by_hand(atlas.embed(text)))
    example_peer = _milliseconds(galaxies, lambda galaxy: by_hand(atlas.embed(galaxy)))
    return [
        _row("words", _milliseconds(texts, lambda text: atlas.search(text, k=12)), peer),
        _row("words with a cut", _milliseconds([f"a {text}" for text in texts], lambda text: _cut(atlas, text)), peer),
        _row("by example", _milliseconds(galaxies, lambda galaxy: atlas.search(galaxy, k=12)), example_peer),
    ]


def _cut(atlas: galsearch.Atlas, text: str) -> galsearch.Hits:
    return atlas.search(text, where="axis_ratio < 0.5", k=12)


def _row(question: str, ours: list[float], peer: list[float]) -> dict:
    median, peer_median = statistics.median(ours), statistics.median(peer)
    return {
        "question": question,
        "median_ms": median,
        "p95_ms": float(np.percentile(ours, 95)),
        "peer_median_ms": peer_median,
        "ratio": median / peer_median,
    }


def _by_hand(atlas: galsearch.Atlas) -> Callable[[np.ndarray], list[str]]:
    table = atlas.sql("SELECT object_id, embedding FROM embedding_image")
    ids = np.array(table["object_id"].to_pylist())
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    return lambda query: ids[np.argsort(-(vectors @ query))[:12]].tolist()


def _milliseconds(items: list, call: Callable) -> list[float]:
    times = []
    for item in items:
        started = time.perf_counter()
        call(item)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def cold(path: Path) -> dict:
    """Measure from starting the command to its end, against a bare process that imports the same engines."""
    search = [sys.executable, "-m", "galsearch.cli", "search", str(path), "edge-on galaxy", "-k", "5"]
    bare = [sys.executable, "-c", "import duckdb, onnxruntime"]
    return _row("command line, cold", *(_milliseconds([command] * COLD_RUNS, _run) for command in (search, bare)))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
