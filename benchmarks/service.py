"""What clients of the service wait for, many at once: `python -m benchmarks.service --rows 1000000`.

The service is a process of its own, as `galsearch serve` starts it; the clients are threads that keep their connection,
draw a request, wait for the whole answer, read it for a while, and draw the next. Cones are drawn around objects of the
atlas, words from a list (objects as examples where the atlas knows no words), and TAP queries are cones in ADQL. Every
answer must be 200 and hold rows; what is not counts as an error. Afterwards each kind is asked by one client, and the
processor time that the service and its workers took for it is divided by the requests.

With --rows an atlas of drawn vectors and positions is made first, kept in --cache, and asked in words as if the shipped
models had made it: what comes back means nothing, and takes as long. An ATLAS of one's own is asked as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import galsearch
from benchmarks.app import DETAILS, SUBJECTS
from benchmarks.build import family
from benchmarks.vectors import Spec, object_ids, vector_blocks
from galsearch.encode import read_card, shipped
from galsearch.schema import MANIFEST_TABLE

READING_SECONDS = (0.5, 3.5)  # between an answer and the next request of a client
RADIUS_DEG = 0.2
START_SECONDS = 120.0


def main() -> None:
    """Measure and print; with --out, also keep what docs/service.md shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("atlas", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, help="make an atlas of so many objects instead")
    parser.add_argument("--cache", type=Path, default=Path("build/service"), help="where that is kept")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--public", action="store_true", help="with the limits for strangers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if (args.atlas is None) == (args.rows is None):
        parser.error("give either an ATLAS or --rows")
    args.atlas = args.atlas or drawn_atlas(args.rows, args.cache, seed=args.seed)
    with galsearch.open(args.atlas) as atlas:
        draws, rows = make_draws(atlas, seed=args.seed), len(atlas)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(args.atlas, port, public=args.public)
    try:
        found = {name: getattr(args, name) for name in ("clients", "seconds", "public")}
        found |= {
            "rows": rows,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "load_before": os.getloadavg()[0],
        }
        found["asks"] = load(port, draws, args)
        for kind, milliseconds in cpu(server.pid, port, draws).items():
            found["asks"].setdefault(kind, {})["cpu_ms"] = milliseconds
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def drawn_atlas(rows: int, cache: Path, *, seed: int) -> Path:
    """Return an atlas of drawn vectors and positions that takes words; made at the first call."""
    card = read_card(shipped("image"))
    path = cache / f"service-{rows}-{seed}.duckdb"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    folder, table = path.with_suffix(".atlas"), path.with_suffix(".parquet")
    write_table(table, Spec(rows, card["dim"], seed))
    galsearch.build(folder, table=table, vectors="embedding", model=card["id"], title="Drawn", overwrite=True)
    with duckdb.connect(str(folder / "galaxies.duckdb")) as engine:
        text = engine.execute(f"SELECT value FROM {MANIFEST_TABLE} WHERE key = 'embeddings'").fetchall()[0][0]
        spaces = json.loads(text)
        spaces["image"] |= {"sha256": card["sha256"], "space": card["space"]}
        engine.execute(f"UPDATE {MANIFEST_TABLE} SET value = $1 WHERE key = 'embeddings'", [json.dumps(spaces)])
    galsearch.bundle(folder, path)
    table.unlink()
    shutil.rmtree(folder)
    return path


def write_table(path: Path, spec: Spec) -> None:
    """Write vectors and positions over the whole sky, block by block."""
    random_numbers, first = spec.generator(1_000), 0
    kind = pa.list_(pa.float32(), spec.dim)
    fields = [("object_id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64()), ("embedding", kind)]
    with pq.ParquetWriter(path, pa.schema(fields)) as writer:
        for block in vector_blocks(spec):
            count = len(block)
            ra = random_numbers.uniform(0, 360, count)
            dec = np.degrees(np.arcsin(random_numbers.uniform(-1, 1, count)))
            vectors = pa.FixedSizeListArray.from_arrays(block.ravel(), spec.dim)
            columns = [object_ids(range(first, first + count)), ra, dec, vectors]
            writer.write_table(pa.table(columns, schema=pa.schema(fields)))
            first += count


def cpu(process: int, port: int, draws: dict[str, list[str]], *, requests: int = 100) -> dict[str, float]:
    """Return the processor milliseconds of a request of each kind, in the service and its workers together."""
    connection, result = http.client.HTTPConnection("127.0.0.1", port, timeout=60), {}
    for kind, paths in draws.items():
        before = _seconds(process)
        for number in range(requests):
            ask(connection, paths[number % len(paths)])
        result[kind] = round(1e3 * (_seconds(process) - before) / requests, 1)
    connection.close()
    return result


def _seconds(process: int) -> float:
    """Return the processor time of a process and of all that it has started, in seconds."""
    ticks = 0
    for each in family(process):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def start(atlas: Path, port: int, *, public: bool) -> subprocess.Popen:
    """Start the service and wait until it answers."""
    options = ["--public", "--host", "127.0.0.1"] if public else []
    command = [sys.executable, "-m", "galsearch.cli", "serve", str(atlas), "--port", str(port), *options]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            ask(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/health")
            return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    raise SystemExit(f"the service did not answer within {START_SECONDS:g} s")


def make_draws(atlas: galsearch.Atlas, *, seed: int) -> dict[str, list[str]]:
    """Return paths to ask, by what they ask for."""
    rng = random.Random(seed)
    some = atlas.sql("SELECT object_id, ra, dec FROM galaxies WHERE ra IS NOT NULL USING SAMPLE 500 ROWS").to_pylist()
    cones = [(one["ra"], one["dec"]) for one in some]
    draws = {
        "cone": ["/scs?" + urlencode({"RA": ra, "DEC": dec, "SR": RADIUS_DEG}) for ra, dec in cones],
        "cone in ADQL": ["/tap/sync?" + urlencode({"LANG": "ADQL", "QUERY": adql(ra, dec)}) for ra, dec in cones],
        "object": [f"/object/{quote(one['object_id'], safe='')}" for one in some],
    }
    if _knows_words(atlas):
        texts = [detail + subject for subject in SUBJECTS for detail in DETAILS]
        draws["words"] = ["/search?" + urlencode({"text": text, "k": 24}) for text in texts]
        tops = [
            f"SELECT TOP 24 object_id, gs_similarity('{text}') AS s FROM galaxies ORDER BY s DESC" for text in texts
        ]
        draws["words in ADQL"] = ["/tap/sync?" + urlencode({"LANG": "ADQL", "QUERY": text}) for text in tops]
    else:
        draws["example"] = ["/search?" + urlencode({"like": one["object_id"], "k": 24}) for one in some]
        tops = [
            f"SELECT TOP 24 object_id, gs_like('{one['object_id']}') AS s FROM galaxies ORDER BY s DESC" for one in some
        ]
        draws["example in ADQL"] = ["/tap/sync?" + urlencode({"LANG": "ADQL", "QUERY": text}) for text in tops]
    for paths in draws.values():
        rng.shuffle(paths)
    return draws


def _knows_words(atlas: galsearch.Atlas) -> bool:
    try:
        atlas.embed("galaxy")
    except galsearch.GalsearchError:
        return False
    return True


def adql(ra: float, dec: float) -> str:
    """Return a cone in ADQL."""
    circle = f"CIRCLE({ra!r}, {dec!r}, {RADIUS_DEG})"
    return f"SELECT TOP 100 object_id, ra, dec FROM galaxies WHERE 1 = CONTAINS(POINT(ra, dec), {circle})"


def load(port: int, draws: dict[str, list[str]], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return times and errors by what was asked for."""
    times: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, int] = defaultdict(int)
    for paths in draws.values():  # what is loaded at first use is no client's wait
        ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), paths[0])
    lock, end = threading.Lock(), time.monotonic() + args.seconds

    def note(kind: str, seconds: float | None) -> None:
        with lock:
            if seconds is None:
                errors[kind] += 1
            else:
                times[kind].append(1e3 * seconds)

    clients = [
        threading.Thread(target=visit, args=(port, draws, random.Random(args.seed + number), end, note))
        for number in range(args.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return {
        kind: {
            "answers": len(every),
            "errors": errors[kind],
            "median_ms": round(float(np.median(every)), 1),
            "p95_ms": round(float(np.quantile(every, 0.95)), 1),
            "most_ms": round(max(every), 1),
        }
        for kind, every in sorted(times.items())
    } | {kind: {"answers": 0, "errors": count} for kind, count in errors.items() if kind not in times}


def visit(port: int, draws: dict, rng: random.Random, end: float, note: Callable[[str, float | None], None]) -> None:
    """Ask until the end, as one client."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    time.sleep(rng.uniform(0, READING_SECONDS[1]))
    while time.monotonic() < end:
        kind = rng.choice(sorted(draws))
        start_of = time.monotonic()
        try:
            ask(connection, rng.choice(draws[kind]))
            note(kind, time.monotonic() - start_of)
        except (OSError, http.client.HTTPException, AssertionError):
            note(kind, None)
            connection.close()
        time.sleep(rng.uniform(*READING_SECONDS))
    connection.close()


def ask(connection: http.client.HTTPConnection, path: str) -> None:
    """Ask and read the whole answer. Raises AssertionError for one that is not 200, or is empty."""
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200 and content and b'"ERROR"' not in content and b'name="Error"' not in content


if __name__ == "__main__":
    main()
