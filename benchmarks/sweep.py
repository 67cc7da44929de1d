"""Try to read every table and picture that packages of the field ship as test data: each is read or refused.

    python -m benchmarks.sweep                      # writes docs/sweep.json
    python -m benchmarks.sweep --folder DOWNLOADS   # files of yours, printed only

A file is read as a table by its name (FITS as a picture where it has no table), or refused with one sentence: any other
exception is a bug of galsearch, is printed with its place, and makes the exit status 1. So is more than a minute.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from galsearch.errors import GalsearchError, SchemaError
from galsearch.formats import read_table
from galsearch.science import images

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("astropy", "astroquery", "photutils", "pyvo", "regions", "reproject")
FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fits.bz2", ".fits.fz", ".fit.gz", ".fz")
TABLES = (".vot", ".votable", ".xml", ".vot.gz", ".xml.gz", ".csv", ".tsv", ".ecsv", ".dat", ".txt", ".parquet")
TEST_FOLDERS = {"data", "test", "tests", "datasets"}
SECONDS = 60
OUTCOMES = ("table", "picture", "refused", "failed")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: read as a "table" or a "picture", "refused" with a reason, or "failed" (a bug)."""

    path: Path
    kind: str
    reason: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Sweep, print the counts and reasons, and write them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a folder of files to try in place of those of the packages")
    parser.add_argument("--out", type=Path, help="where to write the counts as JSON; of packages docs/sweep.json")
    given = parser.parse_args(arguments)
    folders = {given.folder.name: given.folder} if given.folder else dict(installed())
    found = {name: [tried(path) for path in files_of(folder)] for name, folder in folders.items()}
    report = summary(found)
    print(told(report))
    out = given.out or (None if given.folder else ROOT / "docs" / "sweep.json")
    if out is not None:
        out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return int(any(outcome.kind == "failed" for outcomes in found.values() for outcome in outcomes))


def installed() -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each package of the field that is there; say which is not."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            print(f"{name} is not installed, and is left out", file=sys.stderr)
        else:
            yield name, Path(spec.origin).parent


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder of test data that a table or a picture may be in, at any depth."""
    found = (path for path in folder.rglob("*") if path.name.lower().endswith((*FITS, *TABLES)) and path.is_file())
    inside = importlib.util.find_spec(folder.name) is not None  # of a package the test data, not its licenses
    return sorted(path for path in found if not inside or TEST_FOLDERS & set(path.relative_to(folder).parts[:-1]))


def tried(path: Path) -> Outcome:
    """Return what becomes of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with limited(SECONDS):
                return _read(path)
        except GalsearchError as error:
            return Outcome(path, "refused", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(
                path, "failed", f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
            )


def _read(path: Path) -> Outcome:
    try:
        read_table(path)
    except SchemaError:
        if not path.name.lower().endswith(FITS):
            raise
        try:
            images.read_picture(path)
        except SchemaError as error:
            if "no picture" in str(error):
                return Outcome(path, "refused", _table_reason(path))
            raise
        return Outcome(path, "picture")
    return Outcome(path, "table")


def _table_reason(path: Path) -> str:
    try:
        read_table(path)
    except SchemaError as error:
        return str(error)
    return ""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- what is told


def summary(found: dict[str, list[Outcome]]) -> dict:
    """Return the counts by package and by outcome, and how often each reason was given, without the files' names."""
    packages = [
        {"package": name, "version": _version(name), "files": len(outcomes), **_counted(outcomes)}
        for name, outcomes in found.items()
    ]
    reasons = Counter(sentence(outcome) for outcomes in found.values() for outcome in outcomes if outcome.reason)
    failed = [
        {"file": outcome.path.name, "reason": outcome.reason}
        for outcomes in found.values()
        for outcome in outcomes
        if outcome.kind == "failed"
    ]
    ordered = [{"reason": reason, "files": count} for reason, count in reasons.most_common()]
    return {"packages": packages, "reasons": ordered, "failed": failed}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    counts = Counter(outcome.kind for outcome in outcomes)
    return {kind: counts[kind] for kind in OUTCOMES}


def sentence(outcome: Outcome) -> str:
    """Return the reason without what is of one file only: its path, its numbers and names in quotes."""
    text = outcome.reason.replace(str(outcome.path), "").replace(outcome.path.name, "").lstrip(": ")
    text = re.sub(r"; there are: .*", "", text, flags=re.DOTALL)
    text = re.sub(r"'[^']*'", "'…'", text)
    return re.sub(r"\b\d[\d,.]*\b", "N", re.sub(r"\s+", " ", text))[:160]


def told(report: dict) -> str:
    """Return the report as lines for the terminal."""
    lines = [f"{'package':<12}{'files':>7}" + "".join(f"{kind:>9}" for kind in OUTCOMES)]
    lines += [
        f"{row['package']:<12}{row['files']:>7}" + "".join(f"{row[kind]:>9}" for kind in OUTCOMES)
        for row in report["packages"]
    ]
    lines += ["", *(f"{row['files']:>5}  {row['reason']}" for row in report["reasons"])]
    lines += [f"FAILED {row['file']}: {row['reason']}" for row in report["failed"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
