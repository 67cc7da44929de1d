"""Does a watch that is killed again and again take in every picture exactly once, and how many a second?

`python -m benchmarks.watch --images 10000 --kills 20` serves the pictures of Galaxy10 SDSS (69 px, GALSEARCH_DATA;
drawn ones with --drawn) on loopback as the Legacy Survey's viewer does, lets `galsearch watch` take them in, kills it
with SIGKILL at random moments, adds verdicts of people meanwhile, and then compares what is in the atlas with what was
served. Seconds are those from the first start to the last end, restarts included. It writes docs/watch.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import duckdb
import pyarrow.parquet as pq

import galsearch

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "watch.json"
STEP = 0.01  # degrees between objects, so that none is taken for another


def position(number: int) -> tuple[float, float]:
    """Return the position of a picture: a grid around the equator."""
    return (number % 20_000) * STEP, -20 + STEP * (number // 20_000)


def served(count: int, *, drawn: bool) -> list[bytes]:
    """Return so many pictures as JPEG, no two alike."""
    if drawn:
        sys.path.insert(0, str(ROOT / "tests"))
        from sky_services import jpeg, picture

        return [jpeg(picture(*position(number), 69)) for number in range(count)]
    path = Path(os.environ["GALSEARCH_DATA"]) / "galaxies" / "galaxy10_sdss.parquet"
    distinct: dict[str, bytes] = {}
    for batch in pq.ParquetFile(path).iter_batches(columns=["image"], batch_size=2000):
        for content in batch["image"].to_pylist():
            content = content["bytes"] if isinstance(content, dict) else content
            distinct.setdefault(sha256(content).hexdigest(), content)
        if len(distinct) >= count:
            break
    return list(distinct.values())[:count]


def serve(count: int, *, drawn: bool) -> None:
    """Answer requests for pictures until the process is ended; the first line printed is the port."""
    pictures = served(count, drawn=drawn)

    class Handler(BaseHTTPRequestHandler):
        protocol_version, wbufsize = "HTTP/1.1", -1

        def do_GET(self) -> None:
            query = dict(parse_qsl(urlsplit(self.path).query))
            row, column = round((float(query["dec"]) + 20) / STEP), round(float(query["ra"]) / STEP)
            content = pictures[row * 20_000 + column]
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


def write_plan(home: Path, port: int, count: int, options: argparse.Namespace) -> Path:
    """Write the plan and the list of objects; return the plan."""
    with (home / "objects.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["object_id", "ra", "dec"])
        writer.writerows([f"g{number:05d}", *position(number)] for number in range(count))
    plan = home / "plan.toml"
    plan.write_text(
        f'title = "Benchmark"\nverdicts = "mine.verdicts"\nbatch = {options.batch}\ncycle = {options.cycle}\n'
        f'measure = "{options.measure}"\nfree_gb = 0.5\n[[source]]\n'
        'name = "list"\nkind = "cutouts"\nservice = "legacy"\n'
        f'base_url = "http://127.0.0.1:{port}/viewer"\ntable = "objects.csv"\npixels = 69\narcsec_per_pixel = 0.396\n'
        '[[identify]]\nname = "objects"\ntable = "objects.csv"\nradius_arcsec = 2\n'
    )
    return plan


def start(plan: Path) -> subprocess.Popen:
    """Start the command as a user does; its progress is thrown away."""
    command = [sys.executable, "-c", "from galsearch.cli import main; main()", "watch", str(plan)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)


def run(plan: Path, count: int, kills: int, rng: random.Random, seconds_each: float) -> dict:
    """Carry out the plan with kills spread over the work; return what happened."""
    began, killed, decisions, lost, verdicts = time.monotonic(), 0, Counter(), [], 0
    judged: set[str] = set()
    while True:
        process = start(plan)
        if killed < kills:
            try:
                process.wait(rng.uniform(0.5, 1.5) * seconds_each)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
                before, decisions = decisions, decided(plan)
                lost += [key for key in before if key not in decisions]
                verdicts += add_verdict(plan, decisions, judged)
                continue
        _, error = process.communicate()
        if process.returncode:
            raise SystemExit(f"the watch ended with {process.returncode}: {error.decode()[-2000:]}")
        break
    seconds = time.monotonic() - began
    lost += [key for key in decisions if key not in decided(plan)]
    return {"seconds": seconds, "killed": killed, "decisions_lost": len(lost), "verdicts_written": verdicts}


def decided(plan: Path) -> Counter:
    """Return the decisions that are kept: what was listed, and what was said of its identity."""
    path = plan.with_suffix(".watch") / "watch.duckdb"
    if not path.exists():
        return Counter()
    with duckdb.connect(str(path)) as connection:
        tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
        if not {"queue", "identifications"} <= tables:
            return Counter()
        rows = connection.execute("SELECT 'listed', object_id, run FROM queue").fetchall()
        rows += connection.execute("SELECT 'identified', object_id, against FROM identifications").fetchall()
    return Counter(rows)


def add_verdict(plan: Path, decisions: Counter, judged: set[str]) -> int:
    """Let a person judge one of what is listed and was not judged yet; return how many verdicts that is."""
    name = min((name for kind, name, _ in decisions if kind == "listed" and name not in judged), default=None)
    if name is None:
        return 0
    judged.add(name)
    number = len(judged)
    kept = galsearch.Verdicts(plan.parent / "mine.verdicts")
    kept.add(name, "yes" if number % 2 else "no", kind="odd", by="somebody")
    return 1


def checked(plan: Path, pictures: list[bytes]) -> dict:
    """Return whether every picture is in the atlas once, under its id, and what the records say."""
    workspace = plan.with_suffix(".watch")
    with galsearch.open(workspace / "sky.atlas") as atlas:
        ids = atlas.sql("SELECT object_id FROM galaxies ORDER BY object_id")["object_id"].to_pylist()
        vectors = atlas.sql("SELECT count(*) AS n FROM embedding_image")["n"].to_pylist()[0]
        bad = [finding.what for finding in atlas.check() if not finding.ok] if len(ids) < 20_000 else []
    expected = [f"list:g{number:05d}" for number in range(len(pictures))]
    with duckdb.connect(str(workspace / "watch.duckdb")) as connection:
        states = dict(connection.execute("SELECT state, count(*) FROM items GROUP BY ALL").fetchall())
        digests = dict(connection.execute("SELECT object_id, digest FROM items").fetchall())
        requests = connection.execute("SELECT sum(requests)::BIGINT FROM items").fetchone()[0]
        recovered = connection.execute("SELECT count(*) FROM events WHERE kind = 'recovered'").fetchone()[0]
        report = json.loads(connection.execute("SELECT numbers FROM reports ORDER BY number DESC").fetchone()[0])
        queued = connection.execute("SELECT count(*), count(DISTINCT (object_id, run)) FROM queue").fetchone()
        unscored = connection.execute("SELECT count(*) FROM items WHERE state <> 'scored'").fetchone()[0]
    right = all(digests[f"list:g{number:05d}"] == sha256(one).hexdigest() for number, one in enumerate(pictures))
    return {
        "exactly_once": ids == expected and vectors == len(expected) and right,
        "check_found": bad,
        "states": states,
        "requests_recorded": requests,
        "recovered": recovered,
        "listed": queued[0],
        "listed_twice": queued[0] - queued[1],
        "unscored": unscored,
        "verdicts_counted": sum(report["judged"].values()),
    }


def main() -> None:
    """Run it and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--cycle", type=int, default=5_000)
    parser.add_argument("--measure", default="basic")
    parser.add_argument(
        "--seconds-each", type=float, default=None, help="Mean time to a kill; spread over the work unless said."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawn", action="store_true", help="Serve drawn pictures, not those of GALSEARCH_DATA.")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    if options.serve:
        serve(options.images, drawn=options.drawn)
        return
    pictures = served(options.images, drawn=options.drawn)
    command = [sys.executable, "-m", "benchmarks.watch", "--serve", "--images", str(len(pictures))]
    server = subprocess.Popen([*command, *(["--drawn"] if options.drawn else [])], stdout=subprocess.PIPE, cwd=ROOT)
    loads: list[float] = []
    over = threading.Event()
    threading.Thread(target=_watch_load, args=(loads, over), daemon=True).start()
    try:
        port = int(server.stdout.readline())
        with tempfile.TemporaryDirectory() as home:
            plan = write_plan(Path(home), port, len(pictures), options)
            each = options.seconds_each or 4 + len(pictures) / 60 / (options.kills + 1)
            result = run(plan, len(pictures), options.kills, random.Random(options.seed), each)
            result |= checked(plan, pictures)
    finally:
        over.set()
        server.kill()
    result |= {
        "images": len(pictures),
        "images_per_s": round(len(pictures) / result["seconds"], 1),
        "load": round(sum(loads) / max(len(loads), 1), 1),
        "machine": f"{os.cpu_count()} cores, python {platform.python_version()}",
        "measure": options.measure,
        "pictures": "drawn" if options.drawn else "Galaxy10 SDSS, 69 px",
    }
    print(json.dumps(result, indent=1))
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def _watch_load(loads: list[float], over: threading.Event) -> None:
    """Note how many processes wanted the processors meanwhile."""
    while not over.wait(5):
        loads.append(os.getloadavg()[0])


if __name__ == "__main__":
    main()
