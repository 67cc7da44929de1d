"""Files from strangers: every kind of lie ends in an answer or an error of ours, in bounded time and memory.

Each file is tried in a worker process under a limit of memory; one that dies, hangs or raises anything but a
GalsearchError is a failure, and so is an answer that is wrong and that `check` takes for right.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import hostile_files as hostile
import numpy as np
import pyarrow as pa
import pytest
import tiny

import galsearch
from galsearch.errors import FormatError, GalsearchError, LimitError
from galsearch.store.write.bundle import _write_facts
from galsearch.workers import Limits, Pool

HERE = Path(__file__).parent
SECONDS = 60  # the longest that one file may keep the worker
MEMORY_GB = 6  # of address space, most of which its libraries and threads reserve


class Worker:
    """A process that tries atlases one after another; it is replaced when it dies or takes too long."""

    def __init__(self, truth: Path) -> None:
        self._truth, self._process = truth, None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "hostile_worker.py"), str(self._truth), str(MEMORY_GB)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def tried(self, path: Path, *options: str) -> dict:
        """Return what came of a file: `bad`, a list of what must not be, and `opened`."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        self._process.stdin.write("\t".join([str(path), *options]) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        said = f"the process died of {-self._process.wait(10)}" if ready else "took too long"
        self.stop()
        return {"bad": [said], "opened": False}


@pytest.fixture(scope="module")
def worker(tiny_folder, tiny_bundle):
    """The process that files are tried in, which knows the right answers of the tiny atlas."""
    found = Worker(tiny_bundle)
    yield found
    found.stop()


@pytest.mark.hostile
@pytest.mark.parametrize("name", sorted(hostile.BUNDLES))
def test_a_bundle_with_a_lie_answers_or_is_refused(worker, tiny_bundle, tmp_path, name):
    path = Path(shutil.copyfile(tiny_bundle, tmp_path / "evil.duckdb"))
    hostile.BUNDLES[name](path)
    assert worker.tried(path)["bad"] == []


@pytest.mark.hostile
@pytest.mark.parametrize("name", sorted(hostile.FOLDERS))
def test_a_folder_with_a_lie_answers_or_is_refused(worker, tiny_folder, tmp_path, name):
    path = Path(shutil.copytree(tiny_folder, tmp_path / "evil.atlas"))
    hostile.FOLDERS[name](path)
    assert worker.tried(path)["bad"] == []


@pytest.mark.hostile
def test_the_worker_sees_wrong_answers_and_crashes(worker, tiny_bundle, tmp_path):
    assert worker.tried(tiny_bundle) == {"bad": [], "opened": True}
    path = Path(shutil.copyfile(tiny_bundle, tmp_path / "evil.duckdb"))
    hostile.sql("UPDATE galaxies SET z = z + 1")(path)  # content, which only its sender knows
    assert worker.tried(path)["opened"]
    assert worker.tried(Path("exit"))["bad"] == ["the process died of 9"]
    assert worker.tried(tiny_bundle)["bad"] == []


ENDS_THE_ENGINE = {  # mutations at which an engine ends its process, which only `check` survives (docs/security.md)
    2985: "DuckDB 2.0.1 reads outside its memory in a block of text whose checksum is right",
    9707: "Lance 14 asks for as much memory as a file says whose digest is right, and aborts where there is less",
}
MUTATIONS = int(os.environ.get("GALSEARCH_MUTATIONS", "2000"))
PART = 100  # mutations of one test
WORKERS = 2  # that work at once
WHOLE = 20  # every so many mutations, one is asked everything; the others a few questions each, and `check`


@pytest.fixture(scope="module")
def workers(tiny_bundle):
    """Several such processes."""
    found = [Worker(tiny_bundle) for _ in range(WORKERS)]
    yield found
    for one in found:
        one.stop()


@pytest.mark.hostile
@pytest.mark.parametrize("part", range(-(-MUTATIONS // PART)))
def test_mutations_are_answered_or_refused(workers, tiny_folder, tiny_bundle, tmp_path, part):
    seeds = range(part * PART, min((part + 1) * PART, MUTATIONS))

    def tried(worker: Worker, first: int) -> dict[int, list[str]]:
        forms = (tiny_folder, tmp_path / f"{first}.atlas"), (tiny_bundle, tmp_path / f"{first}.duckdb")
        return {seed: said for seed in seeds[first::WORKERS] if (said := mutated(worker, seed, *forms[seed % 4 != 3]))}

    with ThreadPoolExecutor(WORKERS) as threads:
        bad = list(threads.map(tried, workers, range(WORKERS)))
    assert [found for found in bad if found] == []


def mutated(worker: Worker, seed: int, truth: Path, path: Path) -> list[str]:
    """Return what must not be of one mutation, which is made at `path`."""
    folder = truth.is_dir()
    (shutil.copytree if folder else shutil.copyfile)(truth, path)
    content = hostile.mutate(path, seed)
    options = [*(["content"] if content else []), *([str(seed)] if seed % WHOLE else [])]
    said = worker.tried(path, *options)["bad"]
    if seed in ENDS_THE_ENGINE and said and said[0].startswith("the process died"):
        said = [] if any(not finding.ok for finding in galsearch.check(path, device="cpu")) else said
    shutil.rmtree(path) if folder else path.unlink()
    return said


def test_there_are_two_hundred_kinds():
    assert len(hostile.BUNDLES) + len(hostile.FOLDERS) >= 200


@pytest.mark.parametrize("seed", sorted(ENDS_THE_ENGINE))
def test_a_file_that_ends_its_reader_does_not_end_who_checks_it(tiny_bundle, tiny_folder, tmp_path, seed):
    truth = tiny_folder if seed % 4 == 3 else tiny_bundle
    path = Path((shutil.copytree if truth.is_dir() else shutil.copyfile)(truth, tmp_path / truth.name))
    hostile.mutate(path, seed)
    assert not all(finding.ok for finding in galsearch.check(path, device="cpu"))
    assert all(finding.ok for finding in galsearch.check(tiny_bundle, device="cpu"))


def test_vectors_of_rows_that_are_not_there_are_no_error_of_the_engine():
    none = SimpleNamespace(arrow=lambda _: pa.table({"object_id": pa.array([], pa.string())}))
    store = SimpleNamespace(fact_tables=lambda: ["galaxies"], sandbox=none, path=Path("evil.duckdb"))
    with pytest.raises(FormatError, match="do not belong together"):
        _write_facts(None, store, np.array([0, 1, 2]))


def test_a_damaged_data_file_is_told_before_lance_reads_it(tiny_folder, tmp_path):
    path = Path(shutil.copytree(tiny_folder, tmp_path / "damaged.atlas"))
    (data,) = (path / "vectors.lance" / "thumbnails.lance" / "data").glob("*.lance")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with galsearch.open(path, device="cpu") as atlas, pytest.raises(FormatError, match=r"its digest.*copy the whole"):
        atlas.thumbnails(atlas.search(k=3).ids)


def test_a_path_is_checked_from_where_one_stands(tiny_bundle, tmp_path, monkeypatch):
    shutil.copyfile(tiny_bundle, tmp_path / "here.duckdb")
    monkeypatch.chdir(tmp_path)
    assert all(finding.ok for finding in galsearch.check("here.duckdb", device="cpu"))


def test_a_reader_that_was_lost_is_a_finding_of_check(tiny_bundle, monkeypatch):
    def lost(*_: object, **__: object) -> None:
        raise LimitError("it ended the process that worked on it")

    monkeypatch.setattr(Pool, "run", lost)
    (finding,) = galsearch.check(tiny_bundle, limits=Limits(memory_bytes=1 << 30, processes=1, spare=0))
    assert not finding.ok
    assert finding.message == f"{tiny_bundle} ended the process that read it, or takes more than 1024 MB and 10 s"
    assert finding.remedy.startswith("do not open it")


# ---- names that the engine gives a meaning to


@pytest.mark.parametrize("name", ["rowid", "RowID"])
def test_a_file_whose_column_hides_the_row_number_is_refused(atlas_path, name):
    hostile.sql(f'ALTER TABLE galaxies ADD COLUMN "{name}" BIGINT')(atlas_path)
    with pytest.raises(FormatError, match=f"'{name}'.*galsearch build"):
        galsearch.open(atlas_path)


PERMUTED = {
    "objects": "CREATE OR REPLACE TABLE galaxies AS FROM galaxies ORDER BY object_id DESC",
    "vectors": "CREATE OR REPLACE TABLE embedding_image AS FROM embedding_image ORDER BY object_id DESC",
    "numbers of vectors": "UPDATE rows_image SET row = 299 - row",
}


@pytest.mark.parametrize(
    ("kind", "table"),
    [("bundle", "objects"), ("bundle", "vectors"), ("folder", "objects"), ("folder", "numbers of vectors")],
)
def test_check_sees_rows_that_are_permuted_in_one_table_only(tiny_folder, tiny_bundle, tmp_path, kind, table):
    path = tmp_path / "permuted"
    (shutil.copytree if kind == "folder" else shutil.copyfile)(tiny_folder if kind == "folder" else tiny_bundle, path)
    hostile.sql(PERMUTED[table])(path)
    with galsearch.open(path, device="cpu") as atlas:
        bad = {finding.name for finding in atlas.check() if not finding.ok}
    assert bad & {"image pairs", "image order"}, bad


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE concepts SET embedding = [f * 'nan'::FLOAT FOR f IN embedding] WHERE rowid = 1",
            "1 phrases",
        ),
        ("UPDATE concepts SET embedding = NULL WHERE rowid < 2", "2 phrases"),
        ("UPDATE concepts SET embedding = [2 * f FOR f IN embedding] WHERE rowid = 0", "1 phrases"),
        ("INSERT INTO concepts FROM concepts LIMIT 1", "1 are there twice"),
    ],
)
def test_check_sees_phrases_that_search_for_nothing(bundle_path, change, said):
    hostile.sql(change)(bundle_path)
    with galsearch.open(bundle_path, device="cpu") as atlas:
        found = {finding.name: finding for finding in atlas.check()}
    assert not found["concepts"].ok
    assert said in found["concepts"].message


def test_check_sees_pictures_that_are_not_there(bundle_path):
    hostile.sql("UPDATE thumbnails SET image = NULL WHERE rowid < 3")(bundle_path)
    with galsearch.open(bundle_path, device="cpu") as atlas:
        found = {finding.name: finding for finding in atlas.check()}
    assert not found["thumbnails"].ok
    assert found["thumbnails"].message.startswith("3 rows")


def test_a_part_of_objects_without_ids_is_refused(bundle_path, tmp_path):
    hostile.sql("UPDATE galaxies SET object_id = NULL")(bundle_path)
    with galsearch.open(bundle_path, device="cpu") as atlas, pytest.raises(FormatError, match="have no object_id"):
        atlas.search(k=3).bundle(tmp_path / "part.duckdb", models=False)


# ---- a file that changes under its reader


def _cut(path: Path) -> None:
    os.truncate(path, 300_000)


def _written_over(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-200_000:] = bytes(200_000)
    with path.open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize("change", [_cut, _written_over])
@pytest.mark.parametrize("warm", [True, False])
def test_a_file_that_is_changed_under_its_reader_is_one_clear_error(bundle_path, change, warm):
    with galsearch.open(bundle_path, device="cpu") as atlas:
        query = tiny.random_units(1, 16, seed=5)[0]
        if warm:
            atlas.search(query, exact=True)
        change(bundle_path)
        for ask in (
            lambda: atlas.search(query, exact=True),
            lambda: atlas.search(where="z < 0.1"),
            lambda: atlas.sql("SELECT count(*) FROM galaxies"),
            lambda: atlas.thumbnails([tiny.object_id(0)]),
        ):
            with pytest.raises(FormatError, match="was changed while it was open"):
                ask()


@pytest.mark.parametrize("compiled", [True, False])
def test_vectors_that_are_cut_under_their_reader_do_not_end_the_process(tmp_path, monkeypatch, compiled):
    from galsearch.science.ranking import Scorer
    from galsearch.store.index import kernel
    from galsearch.store.index.vectors import Mapped, runs_table

    if not compiled:
        monkeypatch.setattr(kernel, "LIBRARY", None)
    array = tiny.random_units(9_000, 64, seed=1)
    path = tmp_path / "numbers"
    path.write_bytes(array.tobytes())
    runs = runs_table(None, path, np.array([0]), np.array([array.size]), 0)
    found = Mapped(runs, 64, path)
    os.truncate(path, 8_192)
    for ask in (lambda: found.take(np.arange(9_000)), lambda: found.scores(Scorer(array[0]), np.arange(9_000))):
        with pytest.raises(FormatError, match="was changed"):
            ask()


def test_a_file_that_is_replaced_by_another_is_read_on(bundle_path, tiny_bundle):
    with galsearch.open(bundle_path, device="cpu") as atlas:
        before = atlas.search("red", k=5).ids
        other = Path(shutil.copyfile(tiny_bundle, bundle_path.with_name("next")))
        other.replace(bundle_path)
        assert atlas.search("red", k=5).ids == before


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(bundle_path, tiny_bundle, monkeypatch):
    from galsearch.store.read import base

    real, times = base.Sandbox, iter(range(3))

    def replaced_first(path: Path):
        if next(times, None) is not None:
            other = Path(shutil.copyfile(tiny_bundle, bundle_path.with_name("next")))
            other.replace(bundle_path)
        return real(path)

    monkeypatch.setattr(base, "Sandbox", replaced_first)
    with galsearch.open(bundle_path, device="cpu") as atlas:
        assert len(atlas.search("red", k=5)) == 5
    times = iter(range(1_000))
    with pytest.raises(FormatError, match="was changed while it was open"):
        galsearch.open(bundle_path, device="cpu")


def test_a_closed_atlas_says_so(tiny_path):
    atlas = galsearch.open(tiny_path, device="cpu")
    query = tiny.random_units(1, 16, seed=5)[0]
    atlas.search(query)
    atlas.close()
    atlas.close()
    for ask in (
        lambda: atlas.search(query),
        lambda: atlas.search(k=2),
        lambda: atlas.search(where="z < 0.1"),
        lambda: atlas.sql("SELECT 1"),
        lambda: atlas.thumbnails([tiny.object_id(0)]),
        lambda: list(atlas.check()),
    ):
        with pytest.raises(GalsearchError, match="closed"):
            ask()
