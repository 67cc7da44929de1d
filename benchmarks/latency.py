"""How long a question takes, against doing the same by hand: `python -m benchmarks.latency demo/xdf.duckdb`.

The peer for a warm query is the same ONNX encoder followed by numpy over vectors held in memory, which has no SQL, no
columns and no file. The peer for a cold start is a bare Python process that imports DuckDB and ONNX Runtime. Figures
go to docs/latency.json, from which the README takes them.
"""

from __future__ import annotations

import json
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
    """Measure and print."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "demo/xdf.duckdb")
    with galsearch.open(path) as atlas:
        figures = {"rows": len(atlas), **warm(atlas)}
    figures |= cold(path)
    figures["machine"] = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    OUT.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:40} {value:.3g}" if isinstance(value, float) else f"{name:40} {value}")


def warm(atlas: galsearch.Atlas) -> dict[str, float]:
    """Return milliseconds a query in one process after the first: new words, with a cut, by example; and the peer's."""
    texts = [f"{word} {phrase}" for word in WORDS for phrase in PHRASES]  # all new: nothing is answered from a cache
    atlas.search("galaxy")
    ids = atlas.search(where="axis_ratio < 0.9", k=50).ids
    galaxies = [atlas[object_id] for object_id in ids]
    words = _milliseconds(texts, lambda text: atlas.search(text, k=12))
    cut = _milliseconds([f"a {text}" for text in texts], lambda text: atlas.search(text, where="axis_ratio < 0.5"))
    example = _milliseconds(galaxies, lambda galaxy: atlas.search(galaxy, k=12))
    peer = _milliseconds([f"the {text}" for text in texts], _by_hand(atlas))
    return {
        "text_median_ms": statistics.median(words),
        "text_p95_ms": float(np.percentile(words, 95)),
        "text_with_cut_median_ms": statistics.median(cut),
        "example_median_ms": statistics.median(example),
        "numpy_text_median_ms": statistics.median(peer),
        "text_over_numpy": statistics.median(words) / statistics.median(peer),
    }


def _by_hand(atlas: galsearch.Atlas) -> Callable[[str], list[str]]:
    table = atlas.sql("SELECT object_id, embedding FROM embedding_image")
    ids = np.array(table["object_id"].to_pylist())
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    return lambda text: ids[np.argsort(-(vectors @ atlas.embed(text)))[:12]].tolist()


def _milliseconds(items: list, call: Callable) -> list[float]:
    times = []
    for item in items:
        started = time.perf_counter()
        call(item)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def cold(path: Path) -> dict[str, float]:
    """Return seconds from starting the command to its last line, and of a bare process with the same engines."""
    search = [sys.executable, "-m", "galsearch.cli", "search", str(path), "edge-on galaxy", "-k", "5"]
    bare = [sys.executable, "-c", "import duckdb, onnxruntime"]
    ours, peer = _seconds(search), _seconds(bare)
    return {"cli_cold_median_s": ours, "bare_imports_median_s": peer, "cli_over_bare": ours / peer}


def _seconds(command: list[str]) -> float:
    times = []
    for _ in range(COLD_RUNS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
