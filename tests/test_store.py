"""The store: the index against brute force, the bundle read by plain DuckDB, `check`, and reading without a trace."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import galsearch
from galsearch import schema
from galsearch.errors import EngineError, GalsearchError, QueryError
from galsearch.science.ranking import Scorer
from galsearch.store import check, open_store
from galsearch.store.index import cells, search
from galsearch.store.index.vectors import Held
from galsearch.store.sql import macros, sandbox

ROWS, DIM, GROUPS = 6_000, 32, 40
TWINS = 60  # rows with one and the same vector
FEW = 200  # below this many matches the planner compares them all, in these tests


@pytest.fixture(scope="module")
def large_rows() -> tuple[list[str], np.ndarray, np.ndarray]:
    """ids, vectors `(n, d)` around 40 centers with 60 equal ones among them, and their component along one axis."""
    vectors = tiny.random_units(ROWS, DIM, seed=5, groups=GROUPS)
    vectors[np.arange(TWINS) * 97 + 11] = vectors[11]
    return [f"g{row:05d}" for row in range(ROWS)], vectors, vectors[:, 0].astype(np.float64)


@pytest.fixture(scope="module")
def large_paths(large_rows, tmp_path_factory) -> dict[str, Path]:
    """A folder and a bundle of vectors made elsewhere, large enough for an index where FEW is small."""
    ids, vectors, along = large_rows
    home = tmp_path_factory.mktemp("large")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    number = pa.array(range(ROWS), pa.int64())
    pq.write_table(pa.table({"id": ids, "along": along, "number": number, "vector": flat}), home / "vectors.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(macros, "EXACT_ROWS", FEW)
        patch.setattr(cells, "LEAST_ROWS", FEW)
        galsearch.build(home / "large.atlas", table=home / "vectors.parquet", vectors="vector", model="theirs")
        galsearch.bundle(home / "large.atlas", home / "large.duckdb")
    return {"folder": home / "large.atlas", "bundle": home / "large.duckdb"}


@pytest.fixture(scope="module")
def large(large_paths, form) -> Iterator[galsearch.Atlas]:
    """The large atlas, open for reading, where more than FEW matches are asked for from the index."""
    with tiny.tuned(large_paths[form], exact_matches=FEW) as atlas:
        yield atlas


def best(rows, query: np.ndarray, k: int, kept: np.ndarray | None = None) -> list[str]:
    """Return the ids of the k largest cosines by brute force, equal ones by id."""
    ids, vectors, _ = rows
    cosine = (vectors.astype(np.longdouble) * query).sum(axis=1).astype(np.float32)
    cosine[~kept if kept is not None else []] = -2
    order = np.lexsort((ids, -cosine))[: k if kept is None else min(k, kept.sum())]
    return [ids[row] for row in order]


def queries(count: int, *, seed: int) -> np.ndarray:
    return tiny.random_units(count, DIM, seed=seed)


def recall(atlas, rows, *, where: str | None = None, kept: np.ndarray | None = None) -> float:
    shares = []
    for query in queries(24, seed=9):
        hits = atlas.search(query, where=where, k=10)
        assert hits.plan.path == "ivf"
        assert len(hits) == 10
        shares.append(len(set(hits.ids) & set(best(rows, query, 10, kept))) / 10)
    return float(np.mean(shares))


# ---- the planner and the index


def test_the_index_finds_nine_of_the_ten_nearest(large, large_rows):
    assert recall(large, large_rows) >= 0.9


def test_the_index_finds_them_under_a_cut_that_has_nothing_to_do_with_the_vectors(large, large_rows):
    kept = np.arange(ROWS) % 4 == 0
    assert recall(large, large_rows, where="number % 4 = 0", kept=kept) >= 0.95


def test_the_index_finds_them_under_a_cut_that_follows_the_vectors(large, large_rows):
    least = float(np.quantile(large_rows[2], 0.9))
    kept = large_rows[2] > least
    assert recall(large, large_rows, where=f"along > {least!r}", kept=kept) >= 0.9


def test_all_probes_or_exact_give_the_brute_force_answer(large, large_rows):
    for query in queries(5, seed=3):
        every = large.search(query, k=40, probes=100_000)
        exact = large.search(query, k=40, exact=True)
        assert every.ids == exact.ids == best(large_rows, query, 40)
        assert every.table["score"].equals(exact.table["score"])
        assert (every.plan.path, every.plan.exact) == ("ivf", True)
        assert (exact.plan.path, exact.plan.exact) == ("exact", True)


def test_the_plan_tells_an_approximate_answer_from_an_exact_one(large):
    query = queries(1, seed=1)[0]
    plan = large.search(query, k=10).plan
    assert (plan.path, plan.exact, plan.matches) == ("ivf", False, ROWS)
    assert plan.cells == cells.cell_count(ROWS)
    assert 0 < plan.cells_probed < plan.cells
    assert 0 < plan.rows_scanned < ROWS
    few = large.search(query, where=f"number < {FEW}", k=10).plan
    assert (few.path, few.exact, few.matches, few.rows_scanned) == ("exact", True, FEW, FEW)
    many = f"number <= {FEW}"
    assert large.search(query, where=many, k=10).plan.path in ("ivf", "exact")


def test_few_probes_become_more_rather_than_return_too_little(large, large_rows):
    least = float(np.quantile(large_rows[2], 0.9))
    query = -np.eye(DIM, dtype=np.float32)[0]  # the other way: the cells visited first hold nothing that passes
    hits = large.search(query, where=f"along > {least!r}", k=50, probes=1)
    assert len(hits) == 50
    assert (hits.plan.path, hits.plan.exact) == ("ivf", False)
    assert hits.plan.cells_probed > 1


searches = st.fixed_dictionaries({"k": st.integers(1, 400), "probes": st.none() | st.integers(1, 400)})


@given(share=st.floats(0, 1), options=searches, seed=st.integers(0, 20))
def test_a_search_with_an_index_never_returns_too_little(large, large_rows, share, options, seed):
    least = float(np.quantile(large_rows[2], share))
    matches = int((large_rows[2] > least).sum())
    hits = large.search(queries(1, seed=seed)[0], where=f"along > {least!r}", **options)
    assert len(set(hits.ids)) == len(hits) == min(options["k"], matches)
    assert all(hit.along > least for hit in hits)


def test_probes_with_a_cut_that_nothing_passes_give_nothing(large):
    hits = large.search(queries(1, seed=0)[0], where="number < 0", probes=3)
    assert (len(hits), hits.plan.matches) == (0, 0)


def test_rows_are_found_by_id_whether_remembered_held_or_read(large_paths, form, large_rows):
    ids, vectors, _ = large_rows
    asked = [ids[70], "nobody", ids[3], ids[70], *ids[200:210], ids[3]]
    with tiny.tuned(large_paths[form], known_rows=8) as atlas:
        store = atlas._store
        for held in (False, True, True):
            if held:
                store.ids(np.arange(3))  # from now on ids are in memory
            for some in (asked, asked[:3], ["nobody"], []):
                there = [name for name in some if name != "nobody"]
                assert store.ids(store.rows_of(some)) == there
        assert len(store._known_rows) <= 8
        assert "nobody" not in atlas
        assert np.allclose(atlas.embed(atlas[ids[70]]), vectors[70])


def test_an_id_given_as_a_number_is_the_text_of_it(atlas):
    name = atlas.search(k=1).ids[0]
    assert atlas[int(name)].object_id == name
    assert atlas.search(atlas[int(name)], k=1).ids != [name]


def test_an_object_just_shown_is_found_again_without_reading_the_file(large, monkeypatch):
    shown = large.search(queries(1, seed=4)[0], k=5)
    monkeypatch.setattr(sandbox.Sandbox, "rows", None)
    assert [len(large._store.rows_of([name])) for name in shown.ids] == [1] * 5


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"where": "number >= 0"}, {"where": "number < 2000"}])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_many_equal_scores_are_ordered_by_object_id(large, large_rows, options, k):
    ids, vectors, _ = large_rows
    hits = large.search(vectors[11], k=k, **options)
    assert hits.ids == [ids[row] for row in np.arange(TWINS) * 97 + 11][:k]


def test_folder_and_bundle_agree_to_the_last_bit_where_both_are_exact(large_paths):
    both = (tiny.tuned(large_paths[form], exact_matches=FEW) for form in ("folder", "bundle"))
    with next(both) as folder, next(both) as bundle:
        for query in queries(8, seed=8):
            for options in ({"exact": True}, {"where": "number % 50 = 0"}, {"where": "along > 0", "exact": True}):
                one, other = (atlas.search(query, k=30, **options) for atlas in (folder, bundle))
                assert one.ids == other.ids
                assert one.table["score"].equals(other.table["score"])


def test_check_measures_the_recall_of_the_index(large):
    findings = {finding.name: finding for finding in large.check()}
    assert all(finding.ok for finding in findings.values())
    assert "recall@10 of the index is" in findings["image recall"].message


def test_vectors_made_elsewhere_cannot_be_asked_in_words(large):
    with pytest.raises(GalsearchError):
        large.search("ring galaxy")


@pytest.mark.slow  # test_atlas.py reads all vectors by LanceDB, which takes seconds to import
def test_lancedb_opens_the_vectors_of_a_folder(large_paths, large_rows):
    import lancedb

    table = lancedb.connect(large_paths["folder"] / "vectors.lance").open_table("image")
    query = queries(1, seed=2)[0]
    found = table.search(query).distance_type("cosine").nprobes(1000).limit(10).to_list()
    assert [row["object_id"] for row in found] == best(large_rows, query, 10)


def test_cells_hold_every_vector_once(large_paths, large_rows):
    ids, vectors, _ = large_rows
    with duckdb.connect(large_paths["bundle"], read_only=True) as connection:
        found = connection.sql("SELECT object_id, cell, embedding FROM embedding_image").fetchall()
        summary = connection.sql("SELECT cell, centroid, rows FROM cells_image ORDER BY cell").fetchall()
    stored = {object_id: embedding for object_id, _, embedding in found}
    np.testing.assert_array_equal(np.array([stored[i] for i in ids], dtype=np.float32), vectors)
    counts = np.bincount([cell for _, cell, _ in found], minlength=len(summary))
    assert [rows for *_, rows in summary] == counts.tolist()
    assert [cell for _, cell, _ in found] == sorted(cell for _, cell, _ in found)
    centroids = np.array([centroid for _, centroid, _ in summary])
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    own = (np.array([embedding for *_, embedding in found]) * centroids[[cell for _, cell, _ in found]]).sum(axis=1)
    best_cell = (np.array([embedding for *_, embedding in found]) @ centroids.T).max(axis=1)
    np.testing.assert_allclose(own, best_cell, atol=1e-5)


# ---- cells by themselves


def test_cells_find_the_groups_that_were_drawn():
    centers = np.eye(8, dtype=np.float32)
    group = np.random.default_rng(0).integers(0, 8, 800)
    vectors = centers[group] + np.random.default_rng(1).normal(scale=0.05, size=(800, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centroids = cells.fit_centroids(vectors, 16, seed=0)
    assert centroids.shape == (16, 8)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    cell = cells.assign(vectors, centroids)
    np.testing.assert_array_equal(cell, np.argmax(vectors @ centroids.T, axis=1))
    for one in np.unique(cell):
        assert len(set(group[cell == one])) == 1


def test_cells_are_the_same_for_the_same_seed():
    vectors = tiny.random_units(500, 8, seed=4)
    one, other, third = (cells.fit_centroids(vectors, 12, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (7, 1), (16, 2), (300, 37), (6_000, 310), (1_000_000, 4_000)])
def test_the_number_of_cells_grows_with_the_root_of_the_rows(rows, count):
    assert cells.cell_count(rows) == count


@pytest.mark.parametrize(("recall", "at"), [(0.3, 0.0), (0.5, 0.0), (0.7, 0.5), (0.9, 1.0), (0.945, 1.5), (0.995, 2.0)])
def test_the_cells_for_a_recall_lie_between_those_measured(recall, at):
    assert cells._crossing(np.arange(3.0), np.array([0.5, 0.9, 0.99]), recall) == pytest.approx(at)


def test_equal_vectors_make_cells_without_failing():
    vectors = np.tile(tiny.random_units(1, 8, seed=0), (100, 1))
    assert np.isfinite(cells.fit_centroids(vectors, 12, seed=0)).all()


# ---- the bundle read by plain DuckDB

PLAIN = """
import json, sys, duckdb
assert not any(name.split(".")[0] in ("galsearch", "numpy", "pyarrow", "lance") for name in sys.modules)
connection = duckdb.connect(sys.argv[1], read_only=True)
for text in json.load(sys.stdin):
    try:
        answer = {"rows": connection.execute(text).fetchall()}
    except duckdb.Error as error:
        answer = {"error": str(error)}
    print(json.dumps(answer, default=str))
"""


def ask_plain_duckdb(path: Path, texts: list[str]) -> list[dict]:
    """Run SQL on a bundle in a Python that has imported nothing but duckdb."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", PLAIN, str(path)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def plain(tiny_bundle) -> Callable[[str], dict]:
    asked = {
        "concept": "FROM nearest(concept('edge-on galaxy'), k := 5, cut := axis_ratio < 0.4)",
        "default": "FROM nearest(concept('ring galaxy'))",
        "exact": "FROM nearest_exact(concept('ring galaxy'), k := 7, cut := z < 0.1 AND survey = 'north')",
        "join": "SELECT object_id, z FROM nearest(concept('ring galaxy'), k := 3, cut := mag_r < 18) "
        "JOIN galaxies USING (object_id) ORDER BY score DESC, object_id",
        "like": f"FROM nearest(like_object('{tiny.object_id(6)}'), k := 4, probes := 2)",
        "list": "FROM nearest((SELECT list(i::FLOAT) FROM range(1, 17) r(i)), k := 2)",
        "cone": "SELECT object_id FROM cone(0.0, 90.0, 900)",
        "separation": "SELECT separation_arcsec(10, 0, 11, 0)",
        "units": "SELECT unit FROM galsearch_columns WHERE \"table\" = 'galaxies' AND \"column\" = 'ra'",
        "format": "SELECT value FROM galsearch_manifest WHERE key = 'version'",
        "none": "FROM nearest(concept('ring galaxy'), cut := z < 0)",
        "no phrase": "FROM nearest(concept('no such phrase'))",
        "no id": "FROM nearest(like_object('nobody'))",
        "null": "FROM nearest(NULL)",
        "null phrase": "FROM nearest(concept(NULL))",
        "null exact": "FROM nearest_exact(NULL)",
        "short": "FROM nearest([1.0, 0.0])",
        "column": "FROM nearest(concept('ring galaxy'), cut := magnitude < 3)",
    }
    answers = dict(zip(asked, ask_plain_duckdb(tiny_bundle, list(asked.values())), strict=True))
    return answers.__getitem__


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("concept", "edge-on galaxy", {"k": 5, "where": "axis_ratio < 0.4"}),
        ("default", "ring galaxy", {"k": 10}),
        ("exact", "ring galaxy", {"k": 7, "where": "z < 0.1 AND survey = 'north'"}),
    ],
)
def test_plain_duckdb_gets_the_answers_of_search(plain, tiny_bundle, name, words, options):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        hits = atlas.search(words, **options)
    assert [object_id for object_id, _ in plain(name)["rows"]] == hits.ids
    np.testing.assert_allclose([score for _, score in plain(name)["rows"]], hits.table["score"], atol=1e-6)
    assert len(hits) == options["k"]


def test_plain_duckdb_joins_compares_and_measures(plain, tiny_bundle):
    assert len(plain("join")["rows"]) == 3
    assert plain("like")["rows"][0][1] == pytest.approx(1, abs=1e-5)
    assert len(plain("list")["rows"]) == 2
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        near = atlas.search(near=(0.0, 90.0), radius_arcsec=900, k=300).ids
    assert sorted(object_id for (object_id,) in plain("cone")["rows"]) == near
    assert plain("separation")["rows"][0][0] == pytest.approx(3600)
    assert plain("units")["rows"] == [["deg"]]
    assert plain("format")["rows"] == [['"1.1"']]
    assert plain("none")["rows"] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no phrase", "no concept 'no such phrase'"),
        ("no id", "no object 'nobody'"),
        ("null", "query vector is NULL"),
        ("null phrase", "query vector is NULL"),
        ("null exact", "query vector is NULL"),
        ("short", "Cannot cast list with length 2"),
        ("column", "magnitude"),
    ],
)
def test_plain_duckdb_gets_an_error_rather_than_a_ranking_by_null(plain, name, said):
    assert said in plain(name)["error"]


def test_the_bundle_is_written_in_a_storage_version_that_old_readers_know(tiny_bundle):
    with duckdb.connect(tiny_bundle, read_only=True) as connection:
        tags = connection.sql("SELECT tags FROM duckdb_databases() WHERE NOT internal").fetchall()[0][0]
    assert str(tags["storage_version"]).startswith("v1.2")


# ---- reading leaves no trace


def listing(folder: Path) -> dict[str, tuple[int, str]]:
    """Return time of change and digest of every file under a folder."""
    return {
        str(item.relative_to(folder)): (item.stat().st_mtime_ns, hashlib.sha256(item.read_bytes()).hexdigest())
        for item in sorted(folder.rglob("*"))
        if item.is_file()
    }


def test_reading_creates_and_changes_nothing(atlas_path, tmp_path):
    before = listing(tmp_path)
    with galsearch.open(atlas_path, device="cpu") as atlas:
        atlas.search("red", where="z < 0.1", k=5).thumbnails()
        atlas.search(atlas[tiny.object_id(3)], k=300)
        atlas.sql("SELECT object_id, max(score) OVER () FROM nearest(embed('ring'), k := 9) ORDER BY 1")
        assert all(finding.ok for finding in atlas.check())
        assert listing(tmp_path) == before
    assert listing(tmp_path) == before


def test_a_read_only_place_can_be_read(atlas_path):
    for item in [*atlas_path.rglob("*"), atlas_path]:
        item.chmod(0o555 if item.is_dir() else 0o444)
    try:
        with galsearch.open(atlas_path, device="cpu") as atlas:
            assert len(atlas.search("red", k=4)) == 4
    finally:
        for item in [atlas_path, *atlas_path.rglob("*")]:
            item.chmod(0o755)


LEAVES_OPEN = """
import sys, galsearch
atlas = galsearch.open(sys.argv[1], device="cpu")
assert atlas.sql("FROM nearest(embed('ring'), k := 3)").num_rows == 3
assert len(atlas.search("ring", k=2)) == 2
"""


@pytest.mark.slow
def test_an_atlas_that_nobody_closes_ends_quietly(tiny_path):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_OPEN, str(tiny_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_an_atlas_that_nobody_holds_is_let_go(tiny_path):
    opened = galsearch.open(tiny_path, device="cpu")
    opened.sql("FROM nearest(embed('ring'), k := 3)")
    alive = weakref.ref(opened)
    del opened
    gc.collect()
    assert alive() is None


# ---- the time limit

ENDLESS = "SELECT sum(sin(a.range * b.range)) FROM range(100000000) a, range(100000000) b"


@pytest.mark.parametrize("ask", [lambda a: a.sql(ENDLESS), lambda a: a.search("red", where=f"({ENDLESS}) > 0")])
def test_an_endless_question_is_stopped(atlas, monkeypatch, ask):
    monkeypatch.setattr(sandbox, "TIME_LIMIT_SECONDS", 0.1)
    clock = time.perf_counter()
    with pytest.raises(QueryError, match=r"stopped after 0\.1 s"):
        ask(atlas)
    assert time.perf_counter() - clock < 10
    assert len(atlas.search("red", k=3)) == 3


# ---- check


def edit(path: Path, *statements: str) -> None:
    """Change the facts of a folder, or a bundle, behind galsearch's back."""
    with duckdb.connect(path / "galaxies.duckdb" if path.is_dir() else path) as connection:
        for statement in statements:
            connection.execute(statement)


def findings(path: Path) -> dict[str, galsearch.Finding]:
    with galsearch.open(path, device="cpu") as atlas, pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "SAMPLE_QUERIES", 4)
        return {finding.name: finding for finding in atlas.check()}


def failed(path: Path) -> set[str]:
    """Return the names of what `check` finds wrong; each must say how to mend it."""
    bad = [finding for finding in findings(path).values() if not finding.ok]
    assert all(finding.message and finding.remedy for finding in bad)
    return {finding.name for finding in bad}


def test_check_finds_nothing_wrong_with_a_good_atlas(tiny_path):
    found = findings(tiny_path)
    assert all(finding.ok and finding.message and not finding.remedy for finding in found.values())
    assert {"blocks", "rows", "object_id", "positions", "image vectors", "image norms", "image recall"} <= set(found)
    assert {"model text", "model image"} <= set(found)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("DELETE FROM galaxies WHERE object_id = '{one}'", "rows"),
        ("DELETE FROM galaxies WHERE object_id = '{one}'", "image ids"),
        ("UPDATE galaxies SET object_id = '{two}' WHERE object_id = '{one}'", "object_id"),
        ("UPDATE galaxies SET object_id = NULL WHERE object_id = '{one}'", "object_id"),
        ("UPDATE galaxies SET ra = 400 WHERE object_id = '{one}'", "positions"),
        ("UPDATE galaxies SET \"dec\" = NULL WHERE object_id = '{one}'", "positions"),
        ("UPDATE galsearch_manifest SET value = '299' WHERE key = 'rows'", "rows"),
        (
            "UPDATE galsearch_manifest SET value = replace(value, '\"rows\": 300', '\"rows\": 301') "
            "WHERE key = 'embeddings'",
            "image vectors",
        ),
    ],
)
def test_check_finds_what_is_wrong_with_the_rows(atlas_path, statement, name):
    edit(atlas_path, statement.format(one=tiny.object_id(1), two=tiny.object_id(2)))
    assert name in failed(atlas_path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM cells_image WHERE cell = 0",
        "UPDATE cells_image SET rows = 0",
        "UPDATE embedding_image SET cell = 999",
        "UPDATE cells_image SET centroid = [c + 'nan'::FLOAT FOR c IN centroid::FLOAT[]] WHERE cell = 0",
    ],
)
def test_check_finds_an_index_that_misses_rows(bundle_path, statement):
    edit(bundle_path, statement)
    assert "image cells" in failed(bundle_path)


def test_a_bundle_has_galaxies_and_vectors_in_one_order_and_check_sees_when_not(bundle_path):
    with galsearch.open(bundle_path, device="cpu") as atlas:
        assert atlas.manifest.embeddings["image"]["row_aligned"] is True
        cut = "z < 0.1 AND axis_ratio IS NOT NULL"
        macro = atlas.sql(f"FROM nearest(embed('red edge'), k := 20, cut := {cut}) ORDER BY score DESC, object_id")
        assert macro["object_id"].to_pylist() == atlas.search("red edge", where=cut, k=20).ids
    edit(bundle_path, "CREATE OR REPLACE TABLE galaxies AS FROM galaxies ORDER BY object_id DESC")
    assert failed(bundle_path) == {"image order", "image pairs"}


def replace_vectors(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """Write other vectors into a folder or bundle."""
    if path.is_file():
        with duckdb.connect(path) as connection:
            rows = connection.sql("SELECT object_id, cell, embedding FROM embedding_image").to_arrow_table()
            connection.register("changed", changed(rows, change))
            connection.execute("CREATE OR REPLACE TABLE embedding_image AS FROM changed")
        return
    uri = str(path / "vectors.lance" / "image.lance")
    table = changed(lance.dataset(uri).to_table(), change)
    version = lance.write_dataset(table, uri, mode="overwrite").version
    edit(path, f"UPDATE galsearch_manifest SET value = json_merge_patch(value, '{{\"image\": {version}}}')::VARCHAR "
               "WHERE key = 'lance_versions'")  # fmt: skip


def changed(table: pa.Table, change: Callable[[np.ndarray], None]) -> pa.Table:
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    change(vectors)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return table.set_column(table.column_names.index("embedding"), "embedding", column)


@pytest.mark.parametrize("value", [0.5, np.nan, 2.0])
def test_check_finds_a_vector_that_is_not_of_unit_length(atlas_path, value):
    def change(vectors: np.ndarray) -> None:
        vectors[17] *= value

    replace_vectors(atlas_path, change)
    assert failed(atlas_path) == {"image norms"}


def change_model(path: Path, kind: str, column: str, change: Callable[[bytes], bytes]) -> None:
    """Change the card, onnx or tokenizer of a model."""
    if path.is_dir():
        name = {"card": "card.json", "onnx": "model.onnx", "tokenizer": "tokenizer.json"}[column]
        file = path / "models" / kind / name
        file.write_bytes(change(file.read_bytes()))
        return
    with duckdb.connect(path) as connection:
        old = connection.execute(f"SELECT {column} FROM models WHERE name = $1", [kind]).fetchall()[0][0]
        new = change(old.encode() if isinstance(old, str) else old)
        connection.execute(
            f"UPDATE models SET {column} = $1 WHERE name = $2", [new.decode() if column == "card" else new, kind]
        )


def _other_self_test(card: bytes) -> bytes:
    values = json.loads(card)
    values["self_test"]["outputs"].reverse()
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("kind", "column", "change"),
    [
        ("image", "onnx", lambda old: old[:-1] + bytes([old[-1] ^ 1])),
        ("text", "onnx", lambda old: old[: len(old) // 2]),
        ("text", "onnx", lambda old: b""),
        ("text", "tokenizer", lambda old: old.replace(b"galaxies", b"galaxied")),
        ("text", "card", _other_self_test),
        ("image", "card", _other_self_test),
        ("text", "card", lambda old: old[:-5]),
        ("text", "card", lambda old: b"[]"),
        ("image", "card", lambda old: b"{}"),
        ("image", "card", lambda old: old.replace(b'"dim": 16', b'"dim": 17')),
    ],
)
def test_check_finds_a_model_that_is_not_what_its_card_says(atlas_path, kind, column, change):
    change_model(atlas_path, kind, column, change)
    assert failed(atlas_path) == {f"model {kind}"}


def test_a_damaged_model_is_refused_when_it_is_needed_and_not_before(atlas_path):
    change_model(atlas_path, "text", "onnx", lambda old: old[:-1] + bytes([old[-1] ^ 1]))
    with galsearch.open(atlas_path, device="cpu") as atlas:
        assert len(atlas.search(atlas[tiny.object_id(0)], k=3)) == 3
        with pytest.raises(GalsearchError, match="galtext-tiny-1"):
            atlas.search("red")


def blocks_of(path: Path, tables: set[str]) -> set[int]:
    """Return the numbers of the blocks of a DuckDB file in which the columns of some tables lie."""
    statement = "SELECT DISTINCT block_id FROM pragma_storage_info($1) WHERE block_id >= 0"
    with duckdb.connect(path, read_only=True) as connection:
        return {block for table in tables for (block,) in connection.execute(statement, [table]).fetchall()}


def test_check_finds_a_flipped_byte_in_the_pictures_or_vectors(bundle_path):
    with duckdb.connect(bundle_path, read_only=True) as connection:
        every = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    large = {"thumbnails", "embedding_image"}
    block = max(blocks_of(bundle_path, large) - blocks_of(bundle_path, every - large))
    data = bytearray(bundle_path.read_bytes())
    data[3 * 4096 + block * 262_144 + 20_000] ^= 0x10  # three headers, then blocks of 256 kB
    bundle_path.write_bytes(data)
    found = findings(bundle_path)
    assert not found["blocks"].ok
    assert any(table in found["blocks"].message for table in large)
    assert "copy it again" in found["blocks"].remedy


@pytest.mark.parametrize("table", ["image", "thumbnails"])
@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied"])
def test_check_finds_a_lance_file_that_is_gone_or_cut(folder_path, table, damage):
    file = next((folder_path / "vectors.lance" / f"{table}.lance" / "data").glob("*.lance"))
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "emptied" else file.stat().st_size // 2])
    bad = [finding for finding in findings(folder_path).values() if not finding.ok]
    assert [finding.name for finding in bad] == ["blocks"]
    assert table in bad[0].message and bad[0].remedy


def test_check_finds_a_flipped_exponent_in_a_folder(folder_path, tiny_folder):
    file = next((folder_path / "vectors.lance" / "image.lance" / "data").glob("*.lance"))
    vector = lance.dataset(str(tiny_folder / "vectors.lance" / "image.lance")).take([50])["embedding"][0].as_py()
    data = bytearray(file.read_bytes())
    place = data.index(np.array(vector, dtype=np.float32).tobytes())
    data[place + 3] ^= 0x40
    file.write_bytes(data)
    assert failed(folder_path) & {"blocks", "image norms"}


@pytest.mark.parametrize(
    ("where", "enclosed"),
    [
        *((one, True) for one in ("a < 1", "(a < 1) AND (b > 2)", "name = ')' OR f(a)", '"a)" > 1', "((a))")),
        *((one, False) for one in ("a )or(b", " a )or(b", "a) OR (b", ")(", "(a", "a)", "a; b", "E'x' = a", "a -- b")),
    ],
)
def test_what_could_end_the_brackets_around_it_is_left_to_the_parser(where, enclosed):
    assert sandbox._is_enclosed(where) is enclosed


def test_a_file_of_a_folder_that_is_another_than_the_manifest_says_is_found(folder_path):
    with galsearch.open(folder_path, device="cpu") as atlas:
        store, card = atlas._store, folder_path / "models" / "text" / "card.json"
        (noted,) = [name for name in store.manifest.extra[schema.FILE_DIGESTS] if name.endswith("text/model.onnx")]
        model = folder_path / noted
        assert store._changed(model) is None
        assert store._changed(card.with_name("none")) == f"{card.with_name('none')}: missing"
        content = model.read_bytes()
        model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert store._changed(model) == f"{model}: its digest is not that of the manifest"
    assert "model text" in failed(folder_path)


def test_beyond_the_depths_that_were_measured_the_cells_grow_as_between_the_last_two():
    measured = ((1, 0.5), (4, 0.98), (9, 1.0))
    rows = [("words", depth, depth * probes, recall) for depth in (1, 10, 100) for probes, recall in measured]
    curves = cells.Curves(rows)
    for depth, needed in ((0.5, 4), (1, 4), (10, 40), (31.6, 126.4), (100, 400), (1000, 4000)):
        assert curves._needed("words", 0.98, depth) == pytest.approx(needed, rel=0.01)


# ---- the measured curves, against all rows compared with all


def indexed(rows=260, dim=5, count=12, seed=3):
    """Return vectors in the order of their cells, in `Held`, the cells, and the vectors as an array."""
    array = tiny.random_units(rows, dim, seed=seed)
    centroids = cells.fit_centroids(array, count, seed=0)
    cell = cells.assign(array, centroids)
    order = np.argsort(cell, kind="stable")
    starts = np.append(0, np.cumsum(np.bincount(cell, minlength=count)))
    return Held(array[order]), cells.Cells(centroids, starts, cells.Curves([])), array[order]


def places_of_best(array, found, queries, depth):
    """Return for each query the places, among the cells by falling score, of the homes of its best rows."""
    cell = np.searchsorted(found.starts, np.arange(len(array)), side="right") - 1
    for query in queries:
        place = np.argsort(np.argsort(-(found.centroids @ query), kind="stable"))
        yield place[cell[np.argsort(-(array @ query), kind="stable")[:depth]]]


@pytest.mark.parametrize("rows", [20, 260])
def test_measured_curves_are_the_recall_at_every_number_of_cells_up_to_all(rows, monkeypatch):
    monkeypatch.setattr(cells, "BLOCK_ROWS", 32)
    monkeypatch.setattr(cells, "QUERIES", rows)  # then every stored vector asks
    held, found, array = indexed(rows)
    words = tiny.random_units(7, 5, seed=9)
    curves = cells.measure(held, found, words, seed=1)
    kinds = {kind: {row[1] for row in curves.rows if row[0] == kind} for kind in (cells.LIKE, cells.WORDS)}
    assert kinds[cells.LIKE] == kinds[cells.WORDS] == ({10} if rows < 200 else {10, 100})
    probed = {row[2] for row in curves.rows}
    assert {1, 2, 3, 4, 6, 8, 11, 12} == probed  # powers of the root of two, and all
    for kind, depth, probes, recall in curves.rows:
        if kind == cells.LIKE:
            places = [each[1:] for each in places_of_best(array, found, array, depth + 1)]  # itself comes first
        elif kind == cells.WORDS:
            places = list(places_of_best(array, found, words, depth))
        else:
            continue
        assert recall == pytest.approx(np.mean([each < probes for each in places])), (kind, depth, probes)


def test_far_from_a_query_recall_is_that_among_a_random_tenth_of_the_cells_without_the_closest():
    held, found, array = indexed(3_000, 6, 120)
    curves = cells.measure(held, found, None, seed=1)
    far = {row[2]: row[3] for row in curves.rows if row[:2] == (cells.FAR, 10)}
    rng = np.random.default_rng(77)  # another draw than the one measured with
    cell = np.searchsorted(found.starts, np.arange(3_000), side="right") - 1
    ranks = []
    for query in [*array[rng.choice(3_000, 128)], *array[rng.choice(3_000, (128, 3))].sum(axis=1)]:
        order = np.argsort(-(found.centroids @ query))
        there = [one for one in order[12:] if rng.random() < 0.1]
        rows = np.flatnonzero(np.isin(cell, there))
        best = cell[rows[np.argsort(-(array[rows] @ query))[:10]]]
        ranks.append([there.index(one) for one in best] + [0] * (10 - len(best)))
    assert max(far) == 120 and far[120] == 1
    for probes, recall in far.items():
        assert recall == pytest.approx(np.mean(np.array(ranks) < probes), abs=0.05), probes


def test_the_line_of_what_convinces_is_where_all_but_a_few_queries_have_a_better_answer():
    held, _, array = indexed()
    words = tiny.random_units(30, 5, seed=2)
    found = cells.thresholds(held, words, seed=0)
    chosen = np.sort(np.random.default_rng(0).choice(260, size=128, replace=False))
    others = array[chosen] @ array.T
    others[np.arange(128), chosen] = -1
    assert found[cells.LIKE] == pytest.approx(np.quantile(others.max(axis=1), 0.05), abs=1e-6)
    assert found[cells.WORDS] == pytest.approx(np.quantile((words @ array.T).max(axis=1), 0.05), abs=1e-6)
    assert cells.thresholds(Held(array[:1]), words, seed=0) == {}


def test_a_cut_asks_for_as_many_more_cells_as_rows_are_missing():
    held, found, array = indexed(2_000, 8, 60)
    found = cells.Cells(found.centroids, found.starts, cells.measure(held, found, None, seed=0))
    there = np.arange(60)

    def asked(step, wanted=10):
        """The cells for a cut that every so-many-th row passes."""
        matching = np.arange(0, 2_000, step)
        request = search.Request(Scorer(array[0]), wanted, matching, query_kind=cells.LIKE)
        return search._probes(found, request, len(matching), there)

    whole = {
        depth: found.curves.probes(recall=0.98, depth=depth, kinds=[cells.LIKE], cells=60) for depth in (10, 20, 50)
    }
    assert whole[10] < whole[20] < whole[50]
    assert {1: asked(1), 2: asked(2), 5: asked(5)} == {1: whole[10], 2: whole[20], 5: whole[50]}


@pytest.mark.parametrize("way", ["some rows", "all rows"])
def test_text_that_is_no_unicode_in_a_lance_table_is_one_clear_error(folder_path, monkeypatch, way):
    """Lance hands on what the file has."""
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))
    with galsearch.open(folder_path, device="cpu") as atlas:
        store = atlas._store
        assert store._counts["image"] > 1
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(2 * DIM, np.float32)), DIM)
        table = pa.table({"object_id": bad, "embedding": vectors})
        monkeypatch.setitem(store._lance, "image", SimpleNamespace(take=lambda rows, columns=None: table))
        with pytest.raises(galsearch.FormatError, match="cannot be read"):
            _ = list(store._scan("image")) if way == "all rows" else store.lance_table("image", [0, 1])


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["CREATE TYPE parquet_variant AS VARCHAR", "CREATE TYPE json AS VARCHAR"], "it has a type 'json'"),
        (["CREATE MACRO lower(a) AS 'x'", "CREATE MACRO hash(a) AS 0"], "it has a macro 'hash'"),
        (["ALTER TABLE galaxies ADD COLUMN w DOUBLE DEFAULT random()"], "column 'w' of galaxies has a default"),
        (["ALTER TABLE galaxies ALTER COLUMN ra TYPE VARCHAR"], "column 'ra' of galaxies is VARCHAR, expected DOUBLE"),
        (["ALTER TABLE galaxies DROP COLUMN dec"], "table galaxies has no column 'dec'"),
    ],
)
def test_what_a_file_of_others_must_not_have_is_named_the_first_of_several(tiny_bundle, tmp_path, statements, named):
    path = Path(shutil.copy(tiny_bundle, tmp_path / "other.duckdb"))
    with duckdb.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    with pytest.raises(galsearch.FormatError, match=named):
        galsearch.open(path)


def test_a_file_of_others_may_have_columns_with_constant_defaults(tiny_bundle, tmp_path):
    path = Path(shutil.copy(tiny_bundle, tmp_path / "other.duckdb"))
    with duckdb.connect(path) as connection:
        connection.execute("ALTER TABLE galaxies ADD COLUMN w DOUBLE DEFAULT 1.5")
        connection.execute("ALTER TABLE galaxies ADD COLUMN u DOUBLE")
    with galsearch.open(path) as atlas:
        assert atlas.search(where="w = 1.5 AND u IS NULL", k=1).plan.matches == tiny.ROWS


def test_an_error_of_the_engine_itself_is_not_called_a_damaged_file(tiny_bundle):
    store = open_store(tiny_bundle)
    with (
        contextlib.closing(store),
        pytest.raises(EngineError, match="sql: the SQL engine failed"),
        store.sandbox.running("sql"),
    ):
        raise duckdb.InternalException("INTERNAL Error: unexpected type")


def test_a_cone_alone_is_counted_and_listed_like_one_with_a_condition(tiny_bundle):
    with contextlib.closing(open_store(tiny_bundle)) as store:
        for k in (1, 1000):
            alone = store.listed(store.condition(None, (180.0, 0.0), 648_000.0), k=k)
            beside = store.listed(store.condition("true", (180.0, 0.0), 648_000.0), k=k)
            assert alone[0].tolist() == beside[0].tolist() and alone[1] == beside[1] > 0
