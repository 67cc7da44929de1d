"""How quickly spectra become an atlas: `python -m benchmarks.spectra`, with GALSEARCH_DATA set.

The spec files of SDSS among the data are copied under other names until there are as many as wished. The build runs in
a process of its own, with lines and without, model and index included; the encoder alone is timed on what it sees of
the same files, and reading them with astropy into arrays, without any check, is what they are compared with. Figures go
to docs/spectra_build.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from benchmarks.build import one_build, processor
from galsearch.encode import Encoder, read_card, shipped
from galsearch.errors import GalsearchError
from galsearch.science.spectra import LogGrid, model_input
from galsearch.sources.spectra import read_spectrum

OUT = Path(__file__).parents[1] / "docs" / "spectra_build.json"


def main() -> None:
    """Build at both levels, time the encoder and the peer alone, print the rates, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GALSEARCH_DATA"), help="folder of the sets")
    parser.add_argument("--files", type=int, default=1000, help="spectra to build from")
    parser.add_argument("--runs", type=int, default=3, help="of each build; medians count")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("the spectra are needed: set GALSEARCH_DATA or give --data")
    with tempfile.TemporaryDirectory() as folder:
        files = copied(args.data / "spectra" / "fits", Path(folder) / "spectra", args.files)
        rows = [built(Path(folder), files[0].parent, level, args.runs) for level in ("none", "full")]
        rows += alone(files[: args.files // 4])
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, python {platform.python_version()}"
    args.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(machine)


def copied(data: Path, home: Path, count: int) -> list[Path]:
    """Copy the spec files that are no empty fiber, each under many names, until there are `count`."""
    home.mkdir()
    usable = [path for path in sorted(data.glob("spec-*.fits")) if is_seen(path)]
    result = []
    for number in range(count):
        source = usable[number % len(usable)]
        result.append(Path(shutil.copyfile(source, home / f"{source.stem}-{number:05d}.fits")))
    return result


def is_seen(path: Path) -> bool:
    """Say whether a spectrum can be taken in: it has data where the encoder looks."""
    try:
        model_input(read_spectrum(path), grid(), frame="rest")
    except GalsearchError:
        return False
    return True


def grid() -> LogGrid:
    """Return the pixels of the encoder that ships."""
    return LogGrid.of_input(read_card(shipped("spectrum"))["input"])


def built(home: Path, spectra: Path, level: str, runs: int) -> dict:
    """Return the median rate of whole builds, and the peak of memory."""
    done = [one_build(home / "x.atlas", spectra, level, kind="spectra") for _ in range(runs)]
    rate = statistics.median(each["rows"] / each["seconds"] for each in done)
    row = {"what": f"build, measure {level}", "spectra": done[0]["rows"], "per_s": rate}
    return told(row | {"mib": max(each["peak_mib"] for each in done)})


def alone(files: list[Path]) -> list[dict]:
    """Return the rates of the encoder alone and of reading alone, ours and astropy's, in this process."""
    spectra, ours = timed(lambda: [read_spectrum(path) for path in files])
    _, theirs = timed(lambda: [arrays_of(path) for path in files])
    seen = [model_input(each, grid(), frame="rest") for each in spectra]
    encoder = Encoder.from_folder(shipped("spectrum"), device="cpu")
    encoder.encode(seen[:8])
    _, encoding = timed(lambda: encoder.encode(seen))
    seconds = {"encoder alone": encoding, "reading alone": ours, "astropy's FITS into arrays alone": theirs}
    return [told({"what": what, "spectra": len(files), "per_s": len(files) / each}) for what, each in seconds.items()]


def arrays_of(path: Path) -> list[np.ndarray]:
    """Read the arrays of a spec file by astropy, and no more."""
    with fits.open(path, memmap=False) as units:
        return [np.array(units[1].data[name]) for name in ("loglam", "flux", "ivar", "and_mask")]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function gives, and its seconds."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def told(row: dict) -> dict:
    """Print a row, and return it."""
    print(json.dumps(row), flush=True)
    return row


if __name__ == "__main__":
    main()
