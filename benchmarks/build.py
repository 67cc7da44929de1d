"""How quickly pictures become an atlas: `python -m benchmarks.build`, with GALSEARCH_DATA set.

Two sets of JPEGs: EFIGI's cutouts of 88 pixels, and cutouts of Galaxy Zoo 2 enlarged to the 424 pixels that such
pictures usually have. Each is built whole, with all measures, with basic ones and with none, by a process of its own
that counts from the call to the return of `galsearch.build`, model and index included; the encoder alone is timed on
the same pictures. `--before TREE` times the sources of another version in turn, so that both meet the same machine.
Memory is the peak of what this process and its helpers hold together, shared pages counted once. Figures go to
docs/build.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import MIB, peak
from galsearch.science import images
from galsearch.sources import LEVELS

OUT = Path(__file__).parents[1] / "docs" / "build.json"
HERE = Path(__file__).parents[1]
ENLARGED = 424
LOOK_SECONDS = 0.5  # to look costs milliseconds, of large processes
# What another version is told, too: its build may know neither a level nor images by that name.
ONE_BUILD = """
import json, sys, time
import galsearch
path, source, level, kind = sys.argv[1:]
options = {} if level == "full" else {"measure": level}
known = galsearch.build.__annotations__
options[kind if kind in known else "source"] = source
started = time.perf_counter()
report = galsearch.build(path, device="cpu", **options)
print(json.dumps({"rows": report.rows, "seconds": time.perf_counter() - started}))
"""


def main() -> None:
    """Build every set at every level, print the rates, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GALSEARCH_DATA"), help="folder of the sets")
    parser.add_argument("--before", type=Path, help="root of another version's sources, built in turn with this one")
    parser.add_argument("--small", type=int, default=3616, help="pictures of 88 pixels")
    parser.add_argument("--large", type=int, default=480, help="pictures of 424 pixels")
    parser.add_argument("--runs", type=int, default=3, help="of each build; medians count")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("the pictures are needed: set GALSEARCH_DATA or give --data")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sets = {88: small(args.data, home, args.small), ENLARGED: large(args.data, home, args.large)}
        rows = [compared(home, pixels, path, level, args) for pixels, path in sets.items() for level in LEVELS[::-1]]
        alone = encoder_alone(sets[88])
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, python {platform.python_version()}"
    args.out.write_text(json.dumps({"machine": machine, "encoder_per_s": alone, "rows": rows}, indent=1) + "\n")
    print(f"{machine}; the encoder alone: {alone:.0f}/s")


def small(data: Path, home: Path, count: int) -> Path:
    """Put so many of EFIGI's cutouts into a folder."""
    (home / "small").mkdir()
    for row in table(data, "efigi")[:count]:
        shutil.copyfile(data / "galaxies" / "efigi" / row["file"], home / "small" / Path(row["file"]).name)
    return home / "small"


def large(data: Path, home: Path, count: int) -> Path:
    """Put so many cutouts of Galaxy Zoo 2 into a folder, enlarged."""
    from PIL import Image

    (home / "large").mkdir()
    for row in table(data, "gz2")[:count]:
        with Image.open(data / "galaxies" / "gz2" / row["file"]) as picture:
            grown = picture.convert("RGB").resize((ENLARGED, ENLARGED), Image.Resampling.BICUBIC)
        grown.save(home / "large" / Path(row["file"]).name, quality=90)
    return home / "large"


def table(data: Path, name: str) -> list[dict[str, str]]:
    """Return the manifest of a set."""
    with (data / "galaxies" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def compared(home: Path, pixels: int, pictures: Path, level: str, args: argparse.Namespace) -> dict:
    """Return the medians of a build at a level, and where there is another version those of its full build."""
    trees = {"now": HERE} | ({"before": args.before.resolve()} if args.before and level == "full" else {})
    done: dict[str, list[dict]] = {name: [] for name in trees}
    for _ in range(args.runs):
        for name, tree in trees.items():
            done[name].append(one_build(home / "x.atlas", pictures, level, tree))
    row = {"pixels": pixels, "pictures": done["now"][0]["rows"], "measure": level}
    for name, runs in done.items():
        rates = [each["rows"] / each["seconds"] for each in runs]
        row |= {f"{name}_per_s": statistics.median(rates), f"{name}_mib": max(each["peak_mib"] for each in runs)}
    if "before_per_s" in row:
        row["ratio"] = row["now_per_s"] / row["before_per_s"]
    print(json.dumps(row), flush=True)
    return row


def one_build(path: Path, source: Path, level: str, tree: Path = HERE, *, kind: str = "images") -> dict:
    """Build in a process of its own with the sources of a tree; return rows, seconds and the peak of memory in MiB."""
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, "-c", ONE_BUILD, str(path), str(source), level, kind]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True) as process:
        with peak(lambda: sum(map(held, family(process.pid))), LOOK_SECONDS) as most:
            answer, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"the build of {source} with {tree} failed")
    return {**json.loads(answer), "peak_mib": most[0] / MIB}


def family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found = [pid]
    for each in found:
        for thread in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, thread.read_text().split())
    return found


def held(pid: int) -> int:
    """Return the bytes of memory of a process, its part of what it shares with others included."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def encoder_alone(pictures: Path) -> float:
    """Return how many pictures a second the image encoder takes that are decoded and shrunk already."""
    from galsearch.encode import Encoder, shipped

    encoder = Encoder.from_folder(shipped("image"), device="cpu")
    files = sorted(pictures.iterdir())[:1024]
    decoded = [images.render(images.read_picture(path)) for path in files]
    ready = images.model_input(decoded, encoder.card["input"]["size_px"])
    rates = []
    for _ in range(4):  # the first one warms up
        started = time.perf_counter()
        encoder.encode(list(ready))
        rates.append(len(ready) / (time.perf_counter() - started))
    return float(np.median(rates[1:]))


def processor() -> str:
    """Return what the processor is called."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
