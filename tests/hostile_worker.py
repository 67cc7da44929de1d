"""Tries atlases whose paths come on standard input, one a line, and answers with a line of JSON each.

Started by `test_hostile_files.py` with the path of a good atlas, whose answers are the right ones, and a limit of
memory in GB. What is not ours to raise, and an answer that is wrong where `check` finds no fault, is listed as bad.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import galsearch
from galsearch.errors import GalsearchError
from galsearch.store.sql import sandbox

FEW = 4  # of the questions, for one of many mutations
WHERE = "object_id > '123765000000000001'"


def questions(atlas: galsearch.Atlas) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is asked of every file, by name; what has no right answer to compare gives None."""
    dim = atlas.manifest.embeddings.get("image", {"dim": 16})["dim"]
    query = np.random.default_rng(3).normal(size=min(dim, 4096))

    def example() -> list[str]:
        first = atlas.search(k=1).ids
        return atlas.search(atlas[first[0]], k=5).ids if first else []

    def told() -> None:
        atlas.columns()
        atlas.bibtex()
        atlas.acknowledgements()
        atlas.search(k=3).to_bytes(".vot")
        atlas.search(query, probes=2, k=5)  # which cells are visited decides, so there is no right answer

    def ids(text: str) -> list[str]:
        return atlas.sql(text)["object_id"].to_pylist()

    yield "exact", lambda: atlas.search(query, exact=True, k=5).ids
    yield "cut", lambda: atlas.search(query, where=WHERE, k=5).ids
    yield "list", lambda: atlas.search(k=5).ids
    yield "cone", lambda: atlas.search(near=(0.05, 10.0), radius_arcsec=3_000, k=9).ids
    yield "example", example
    yield "words", lambda: atlas.search("red edge", k=5).ids
    yield "hybrid", lambda: atlas.search("red edge", k=5, hybrid="rank").ids
    yield "distinct", lambda: atlas.search(query, k=5, distinct=True).ids
    yield "thumbnails", lambda: sorted(atlas.thumbnails(atlas.search(k=3).ids))
    yield "sql", lambda: ids("FROM nearest(concept('edge-on galaxy'), k := 3)")
    yield "macros", lambda: ids("FROM cone(0.05, 10.0, 3000)")
    yield "told", told


def ours(name: str, do: Callable[[], object], bad: list[str]) -> object:
    """Return what `do` gives; None where that is an error of ours. Whatever else is raised is added to `bad`."""
    try:
        return do()
    except GalsearchError:
        return None
    except Exception as error:  # noqa: BLE001 the very thing that is looked for
        bad.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        return None


def asked(atlas: galsearch.Atlas, bad: list[str], *, seed: int | None = None) -> dict[str, object]:
    """Ask everything, or the few that a seed chooses; add to `bad` what must not be raised, and return the answers."""
    asking = list(questions(atlas))
    chosen = asking if seed is None else random.Random(seed).sample(asking, FEW)
    found = {name: ours(name, ask, bad) for name, ask in chosen}
    return {name: answer for name, answer in found.items() if answer is not None}


def part(atlas: galsearch.Atlas) -> None:
    """Write a bundle of a few objects and open it."""
    with tempfile.TemporaryDirectory() as folder:
        galsearch.open(atlas.search(k=3).bundle(Path(folder) / "part.duckdb", models=False)).close()


def tried(path: Path, truth: dict[str, object], *, seed: int | None = None) -> dict:
    """Return what came of an atlas; with a seed, of a few questions and of `check`, without a part that is written."""
    bad: list[str] = []
    atlas = ours("open", lambda: galsearch.open(path, device="cpu"), bad)
    if atlas is None:
        return {"bad": bad, "opened": False}
    with atlas:
        found = asked(atlas, bad, seed=seed)
        faults = ours("check", lambda: [finding.name for finding in atlas.check() if not finding.ok], bad)
        if seed is None:
            ours("part", lambda: part(atlas), bad)
    wrong = [name for name, answer in found.items() if name in truth and answer != truth[name]]
    if faults == [] and wrong:
        bad.append(f"wrong answers, and check finds no fault: {', '.join(wrong)}")
    return {"bad": bad, "opened": True}


def main() -> None:
    """Answer line by line."""
    limit = int(float(sys.argv[2]) * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sandbox.TIME_LIMIT_SECONDS = 20.0
    sandbox.OWN_LIMIT_SECONDS = 30.0
    with galsearch.open(sys.argv[1], device="cpu") as atlas:
        truth = asked(atlas, [])
    for line in sys.stdin:
        if line.strip() == "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        path, *options = line.rstrip("\n").split("\t")
        seeds = [int(option) for option in options if option.isdecimal()]
        found = tried(Path(path), {} if "content" in options else truth, seed=seeds[0] if seeds else None)
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
