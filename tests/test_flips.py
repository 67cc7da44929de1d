"""Bits that flip and files that are cut, at random places in every region: found, or without any meaning.

Each damaged copy is looked at in another process, so that a crash is noticed. `check` has to report the damage, unless
everything that the atlas holds is still the same. Whatever is asked gets the true answer or a galsearch error.
"""

import contextlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import crash
import duckdb
import numpy as np
import pytest

import galsearch
from galsearch.store.index import cells

PLACES_IN_A_BUNDLE, PLACES_IN_A_FOLDER = 500, 100
CUT_SHARE = 0.2  # of the places the file ends there, at the others one bit flips
HEADER, BLOCK = 4096, 262_144  # bytes of a DuckDB file: three headers, then blocks
DIM = 16
QUERY = np.linspace(-1, 1, DIM)
PROBES = 3
ERROR = "a galsearch error"
OF_VECTORS = {"index", "exact", "cut", "sql"}  # questions whose scores are those of the stored vectors

pytestmark = [pytest.mark.slow, pytest.mark.durability]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, tiny_folder):
    """The tiny atlas with an index that is used, in both forms; the bundle has free blocks too."""
    home = tmp_path_factory.mktemp("indexed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "LEAST_ROWS", 1, raising=False)
        bundle = galsearch.bundle(tiny_folder, home / "x.duckdb")
    with duckdb.connect(bundle) as connection:
        connection.execute("CREATE TABLE left_behind AS SELECT random() AS number FROM range(100_000)")
        connection.execute("CHECKPOINT")
        connection.execute("CREATE OR REPLACE TABLE galsearch_manifest AS SELECT * FROM galsearch_manifest")
        connection.execute("CHECKPOINT")
        connection.execute("DROP TABLE left_behind")
    return {"bundle": bundle, "folder": Path(shutil.copytree(tiny_folder, home / "x.atlas"))}


def regions(bundle: Path) -> dict[str, tuple[int, int]]:
    """Return where each part of a bundle begins and ends: headers, blocks by the table that uses them, other blocks."""
    found = {f"header {number}": (HEADER * number, HEADER * (number + 1)) for number in range(3)}
    holders = {}
    with duckdb.connect(bundle, read_only=True) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            used = f"SELECT block_id, additional_block_ids FROM pragma_storage_info('{table}')"
            for block, more in connection.execute(used).fetchall():
                holders |= dict.fromkeys([block, *(more or [])], table)
        metadata = connection.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()
        holders |= {block: "metadata" for (block,) in metadata}
    for block in range((bundle.stat().st_size - 3 * HEADER) // BLOCK):
        start = 3 * HEADER + block * BLOCK
        found[f"{holders.get(block, 'free')} in block {block}"] = (start, start + BLOCK)
    return found


def draw_places(data: bytes, parts: dict[str, tuple[int, int]], count: int, rng: random.Random) -> list[dict]:
    """Return places to damage, as many in each part; half of the bits are where something other than 0 stands."""
    names, places = list(parts), []
    for number in range(count):
        name = names[number % len(names)]
        place = rng.randrange(*parts[name])
        if rng.random() < 0.5:
            start, end = parts[name]
            written = np.flatnonzero(np.frombuffer(data[start:end], np.uint8))
            place = start + int(rng.choice(written)) if len(written) else place
        bit = None if rng.random() < CUT_SHARE else rng.randrange(8)
        places.append({"part": name, "place": place, "bit": bit})
    return places


# ---- in the other process


def judge(path: str, places: list[dict], scratch: str) -> None:
    """Say of each of the places what comes of the damage."""
    cells.LEAST_ROWS = 1
    true = ask(Path(path))
    whole = contents(Path(path))
    for number, one in enumerate(places):
        copy = damaged(Path(path), one, Path(scratch) / f"{number}{Path(path).suffix}")
        crash.say({**one, **verdict(copy, true, whole)})
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()


def damaged(path: Path, one: dict, copy: Path) -> Path:
    """Make a copy with one bit flipped, or cut."""
    file = Path(one.get("file", ""))
    if path.is_dir():
        shutil.copytree(path, copy, copy_function=os.link)
        (copy / file).unlink()
    data = bytearray((path / file).read_bytes() if path.is_dir() else path.read_bytes())
    if one["bit"] is None:
        del data[one["place"] :]
    else:
        data[one["place"]] ^= 1 << one["bit"]
    (copy / file if path.is_dir() else copy).write_bytes(data)
    return copy


def verdict(copy: Path, true: dict[str, str], whole: str) -> dict:
    """Return what comes of the damage.

    `reported` is what check finds, `wrong` which answers are neither true nor galsearch errors, and `same` whether all
    that the atlas holds is still what it was, which is only looked at when check finds nothing.
    """
    found = ask(copy)
    wrong = {name: value for name, value in found.items() if value not in (true[name], ERROR)}
    reported = check(copy)
    return {"reported": reported, "wrong": wrong, "same": None if reported else contents(copy) == whole}


def check(path: Path) -> list[str]:
    """Return the names of what check finds wrong; any error but ours is raised, and ends the test."""
    try:
        with galsearch.open(path, device="cpu") as atlas:
            return [finding.name for finding in atlas.check() if not finding.ok]
    except galsearch.GalsearchError:
        return [ERROR]


def ask(path: Path) -> dict[str, str]:
    """Return a short name for the answer to each of a few questions, ERROR where it is a galsearch error."""
    questions = {
        "manifest": lambda atlas: vars(atlas.manifest),
        "models": lambda atlas: atlas.models(),
        "words": lambda atlas: atlas.embed("red edge").tolist(),
        "index": lambda atlas: ranked(atlas.search(QUERY, k=20, probes=PROBES)),
        "exact": lambda atlas: ranked(atlas.search(QUERY, k=20, exact=True)),
        "cut": lambda atlas: ranked(atlas.search(QUERY, k=20, where="z < 0.1 AND mag_r < 19")),
        "facts": lambda atlas: atlas.search(k=300).table.to_pylist(),
        "pictures": lambda atlas: {name: data.hex() for name, data in atlas.search(k=9).thumbnails().items()},
        "sql": lambda atlas: atlas.sql("FROM nearest(concept('spiral galaxy'), k := 5)").to_pylist(),
    }
    with answering() as said, galsearch.open(path, device="cpu") as atlas:
        return {name: answer(atlas, question) for name, question in questions.items()}
    return dict.fromkeys(questions, said[0])


def answer(atlas, question) -> str:
    with answering() as said:
        said.append(crash.digest(question(atlas)))
    return said[0]


@contextlib.contextmanager
def answering() -> Iterator[list[str]]:
    """Give a list to which ERROR comes in place of a galsearch error, and what it says in place of any other."""
    said = []
    with crash.Caught() as caught:
        yield said
    if isinstance(caught.error, galsearch.GalsearchError):
        said.append(ERROR)
    elif caught.error is not None:
        said.append(caught.told[:200])


def ranked(hits) -> list:
    return [hits.ids, np.round(hits.table["score"].to_pylist(), 5).tolist()]


def contents(path: Path) -> str:
    """Return a short name for everything that an atlas holds, read without galsearch."""
    return crash.digest(folder_contents(path) if path.is_dir() else database_contents(path))


def database_contents(path: Path) -> dict:
    with duckdb.connect(path, read_only=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        macros = (
            "SELECT function_name, parameters, macro_definition FROM duckdb_functions() WHERE NOT internal ORDER BY ALL"
        )
        found = {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in sorted(tables)}
        return {"tables": found, "macros": connection.execute(macros).fetchall()}


def folder_contents(path: Path) -> dict:
    import lance

    facts = database_contents(path / "galaxies.duckdb")
    versions = json.loads(dict(facts["tables"]["galsearch_manifest"])["lance_versions"])
    tables = {
        name: lance.dataset(str(path / "vectors.lance" / f"{name}.lance"), version=version).to_table().to_pylist()
        for name, version in versions.items()
    }
    return {"facts": facts, "vectors": tables, "models": crash.files(path / "models")}


# ---- in this one


def judged(path: Path, places: list[dict], scratch: Path) -> list[dict]:
    """Return what two processes say of the places; a place at which a process dies has `crashed`."""
    with crash.Crew() as crew:
        halves = [places[0::2], places[1::2]]
        running = [begin(crew, path, half, scratch / f"half {number}") for number, half in enumerate(halves)]
        return [
            one
            for worker, half in zip(running, halves, strict=True)
            for one in heard(crew, worker, path, half, scratch)
        ]


def begin(crew: crash.Crew, path: Path, places: list[dict], scratch: Path) -> crash.Worker:
    scratch.mkdir(parents=True)
    return crew.start("test_flips:judge", {"path": path, "places": places, "scratch": scratch})


def heard(crew: crash.Crew, worker: crash.Worker, path: Path, places: list[dict], scratch: Path) -> list[dict]:
    """Return what a worker says of its places; when it dies, another one goes on behind that place."""
    found = []
    for number, one in enumerate(places):
        said = worker.read(seconds=crash.WAIT_SECONDS)
        if said is None:
            said = {**one, "crashed": worker.died(), "wrong": [], "reported": [], "same": None}
            worker = begin(crew, path, places[number + 1 :], scratch / f"behind {one['place']}")
        assert "error" not in said, f"at {one}: {said}"
        found.append(said)
    return found


def test_damage_anywhere_in_a_bundle_is_reported_or_without_meaning(indexed, tmp_path):
    data, parts = indexed["bundle"].read_bytes(), regions(indexed["bundle"])
    assert {name.partition(" in ")[0] for name in parts} >= {"header 0", "metadata", "free", "models", "galaxies"}
    look_at(judged(indexed["bundle"], draw_places(data, parts, PLACES_IN_A_BUNDLE, random.Random(1)), tmp_path))


@pytest.mark.parametrize(
    "part",
    [
        "galaxies.duckdb",
        "vectors.lance/image.lance",
        "vectors.lance/thumbnails.lance",
        "models",
    ],
)
def test_damage_anywhere_in_a_folder_is_reported_or_without_meaning(indexed, tmp_path, part):
    rng, home = random.Random(part), indexed["folder"]
    files = sorted(file for file in home.rglob("*") if file.is_file() and str(file.relative_to(home)).startswith(part))
    places = []
    for number in range(PLACES_IN_A_FOLDER // 4):
        data, name = files[number % len(files)].read_bytes(), str(files[number % len(files)].relative_to(home))
        places += [{**one, "file": name} for one in draw_places(data, {name: (0, len(data))}, 1, rng)]
    look_at(judged(home, places, tmp_path))


def look_at(found: list[dict]) -> None:
    """Make sure that nothing crashed, was missed or misled; only what a reader sees of a vector may be wrong."""
    assert [one for one in found if "crashed" in one] == []
    assert [one for one in found if not one["reported"] and not one["same"]] == []
    for one in found:
        in_a_vector = bool(one["reported"]) and any(
            name in one["part"] for name in ("embedding_image", "image.lance/data")
        )
        assert one["wrong"].keys() <= (OF_VECTORS if in_a_vector else set()), one
