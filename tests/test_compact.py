"""The compact bundle: 8-bit codes against the floats they stand for, in place, by the engine, and in plain SQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import galsearch
from galsearch.errors import FormatError, GalsearchError
from galsearch.science.ranking import Scorer
from galsearch.store import check, open_store
from galsearch.store.index import cells
from galsearch.store.index.vectors import Coded, Fetched, decoded, encoded
from galsearch.store.sql import macros

ROWS, GROUPS = 6_000, 40
DIMS = (32, 256)
TWINS = 60  # rows with one and the same vector
FEW = 200  # below this many matches all of them are compared, in these tests


def build(home: Path, vectors: np.ndarray) -> tuple[Path, Path]:
    """Build an atlas of these vectors; return it as a bundle of floats and as a compact one."""
    rows, dim = vectors.shape
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), dim)
    table = pa.table({"id": [f"g{row:05d}" for row in range(rows)], "number": range(rows), "vector": flat})
    pq.write_table(table, home / "vectors.parquet")
    galsearch.build(home / "a.atlas", table=home / "vectors.parquet", vectors="vector", model="theirs")
    floats = galsearch.bundle(home / "a.atlas", home / "floats.duckdb")
    return floats, galsearch.bundle(home / "a.atlas", home / "compact.duckdb", compact=True)


@pytest.fixture(scope="module", params=[DIMS[0], *(pytest.param(dim, marks=pytest.mark.slow) for dim in DIMS[1:])])
def pair(request, tmp_path_factory) -> tuple[Path, Path]:
    """A bundle of floats and a compact one of the same vectors, large enough for an index where FEW is small."""
    vectors = tiny.random_units(ROWS, request.param, seed=5, groups=GROUPS)
    vectors[np.arange(TWINS) * 97 + 11] = vectors[11]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(macros, "EXACT_ROWS", FEW)
        patch.setattr(cells, "LEAST_ROWS", FEW)
        return build(tmp_path_factory.mktemp("pair"), vectors)


@pytest.fixture(scope="module")
def opened(pair) -> Iterator[tuple[galsearch.Atlas, galsearch.Atlas]]:
    with tiny.tuned(pair[0], exact_matches=FEW) as floats, tiny.tuned(pair[1], exact_matches=FEW) as compact:
        yield floats, compact


@pytest.fixture
def floats(opened) -> galsearch.Atlas:
    return opened[0]


@pytest.fixture
def compact(opened) -> galsearch.Atlas:
    return opened[1]


@pytest.fixture
def small(pair, tmp_path) -> Path:
    """A copy of the compact bundle, to damage."""
    return Path(shutil.copyfile(pair[1], tmp_path / "copy.duckdb"))


@cache
def stored(path: Path) -> tuple[list[str], np.ndarray]:
    """Return ids and vectors `(n, d) float64` as format.md says that codes are read, in the order of the file."""
    columns = "object_id, code, weights, centroid"
    with duckdb.connect(path, read_only=True) as connection:
        asked = f"SELECT {columns} FROM codes_image c JOIN cells_image USING (cell) ORDER BY c.rowid"
        ids, codes, weights, centroids = connection.execute(asked).fetchnumpy().values()
    codes, weights, centroids = (np.stack(part).astype(np.float64) for part in (codes, weights, centroids))
    return ids.tolist(), weights[:, :1] * centroids + weights[:, 1:] * codes


@cache
def sampled(path: Path) -> np.ndarray:
    """Return 600 of the stored vectors."""
    with duckdb.connect(path, read_only=True) as connection:
        asked = connection.execute("SELECT embedding FROM embedding_image USING SAMPLE reservoir(600) REPEATABLE (7)")
        return np.array([row[0] for row in asked.fetchall()])


def questions(path: Path, count: int, *, seed: int) -> np.ndarray:
    """Return unit vectors: stored ones disturbed, sums of three of them, and random ones."""
    rng, vectors = np.random.default_rng(seed), sampled(path)
    near = vectors[:count] + 0.5 / np.sqrt(vectors.shape[1]) * rng.normal(size=vectors[:count].shape)
    sums = vectors[: 3 * count].reshape(count, 3, -1).sum(axis=1)
    found = np.concatenate([near, sums, rng.normal(size=near.shape)])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def best(ids: list[str], vectors: np.ndarray, query: np.ndarray, k: int) -> tuple[list[str], np.ndarray]:
    """Return the ids and scores of the k largest inner products by brute force, equal ones by id."""
    scores = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((ids, -scores))[:k]
    return [ids[row] for row in order], scores[order]


# ---- what is found


@pytest.mark.slow
def test_the_ten_nearest_are_those_of_the_floats(floats, compact):
    shares = []
    for query in questions(floats.path, 40, seed=1):
        true, found = (set(atlas.search(query, k=10, exact=True).ids) for atlas in (floats, compact))
        shares.append(len(true & found) / 10)
    assert np.mean(shares) >= 0.98


@pytest.mark.slow
def test_the_index_visits_the_same_cells_as_with_floats(floats, compact):
    for query in questions(floats.path, 5, seed=2):
        one, other = (atlas.search(query, k=10).plan for atlas in (floats, compact))
        assert one.path == other.path == "ivf"
        assert (one.cells_probed, one.rows_scanned, one.exact) == (other.cells_probed, other.rows_scanned, other.exact)


@pytest.mark.parametrize("options", [{"exact": True}, {"probes": 100_000}, {}])
def test_scores_are_those_of_the_vectors_that_the_codes_stand_for(compact, options):
    ids, vectors = stored(compact.path)
    for query in questions(compact.path, 5, seed=3):
        hits = compact.search(query, k=40, **options)
        of = dict(zip(*best(ids, vectors, query, ROWS), strict=True))
        np.testing.assert_allclose(hits.scores, [of[name] for name in hits.ids], atol=2e-6)
        if options:
            np.testing.assert_allclose(hits.scores, best(ids, vectors, query, 40)[1], atol=2e-6)
        assert (np.diff(hits.scores) <= 0).all()


def test_a_cut_is_answered_exactly_where_few_pass(compact):
    ids, vectors = stored(compact.path)
    query = questions(compact.path, 1, seed=4)[0]
    for share, kept in ((7, 1_000), (1, 150)):
        rows = [row for row, name in enumerate(ids) if int(name[1:]) % share == 0 and int(name[1:]) < kept]
        hits = compact.search(query, where=f"number % {share} = 0 AND number < {kept}", k=30)
        assert hits.ids == best([ids[row] for row in rows], vectors[rows], query, 30)[0]


def test_the_closest_of_several_is_found_among_codes(compact):
    ids, vectors = stored(compact.path)
    asked = questions(compact.path, 2, seed=6)[:2]
    terms = tuple(galsearch.Term("embedding", tuple(map(float, query))) for query in asked)
    hits = compact.search(galsearch.Query(terms, combine="max", k=10, exact=True))
    scores = (vectors @ asked.T.astype(np.float64)).max(axis=1)
    np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][:10], atol=2e-6)
    assert len(ids) == ROWS


def test_equal_vectors_score_the_same_and_come_by_object_id(compact):
    hits = compact.search(compact["g00011"], k=TWINS - 1)
    assert len(set(hits.scores.tolist())) == 1
    assert hits.ids == [f"g{row:05d}" for row in np.arange(1, TWINS) * 97 + 11]
    assert hits.scores[0] == pytest.approx(1, abs=1e-6)


# ---- plain SQL


@pytest.mark.parametrize("options", [{}, {"where": "number % 3 = 0"}, {"where": "number < 150"}, {"exact": True}])
def test_plain_sql_gives_the_answers_of_search(compact, options):
    cut = f", cut := {options['where']}" if "where" in options else ""
    macro = "nearest_exact" if options.get("exact") else "nearest"
    probes = "" if options.get("exact") else ", probes := 1000"
    options = options if options.get("exact") else {**options, "probes": 1_000}
    with duckdb.connect(compact.path, read_only=True) as connection:
        for query in questions(compact.path, 3, seed=8):
            rows = connection.execute(f"FROM {macro}($1, k := 25{probes}{cut})", [query.tolist()]).fetchall()
            hits = compact.search(query, k=25, **options)
            assert [name for name, _ in rows] == hits.ids
            np.testing.assert_allclose([score for _, score in rows], hits.scores, atol=1e-6)


def test_an_object_is_asked_for_by_sql_as_by_search(compact):
    rows = compact.sql("FROM nearest(like_object('g00123'), k := 9, probes := 1000)")
    hits = compact.search(compact["g00123"], k=8, probes=1_000)
    assert rows["object_id"].to_pylist() == ["g00123", *hits.ids]
    np.testing.assert_allclose(rows["score"].to_numpy()[1:], hits.scores, atol=1e-6)
    with pytest.raises(GalsearchError, match="no object 'nobody'"):
        compact.sql("FROM nearest(like_object('nobody'))")


def test_sql_that_reads_embeddings_finds_unit_vectors(compact, floats):
    text = "SELECT object_id, embedding FROM embedding_image WHERE cell < 3 ORDER BY object_id"
    codes, true = compact.sql(text), floats.sql(text)
    assert codes["object_id"].equals(true["object_id"])
    found, wanted = (np.array(table["embedding"].to_pylist()) for table in (codes, true))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, wanted, atol=0.01)
    with closing(open_store(compact.path)) as store:
        rows = store.rows_of(codes["object_id"].to_pylist())
        np.testing.assert_allclose(store.vectors_of("image", rows), found, atol=1e-7)


# ---- the file


def test_vectors_take_less_than_two_sevenths_of_the_floats(pair):
    with duckdb.connect(pair[0], read_only=True) as one, duckdb.connect(pair[1], read_only=True) as other:
        sizes = [bytes_of(one, "embedding_image"), bytes_of(other, "codes_image")]
        dim = len(one.execute("SELECT centroid FROM cells_image LIMIT 1").fetchall()[0][0])
    assert sizes == [4 * dim * ROWS, (dim + 8) * ROWS]
    if dim >= 64:
        assert sizes[0] / sizes[1] >= 3.5


def bytes_of(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Return what the vectors of a table take, each number as wide as its type."""
    found = connection.execute(
        "SELECT compression, sum(count * CASE segment_type WHEN 'FLOAT' THEN 4 ELSE 1 END)::BIGINT "
        f"FROM pragma_storage_info('{table}') WHERE segment_type IN ('FLOAT', 'TINYINT') GROUP BY compression"
    ).fetchall()
    assert [kind for kind, _ in found] == ["Uncompressed"]
    return found[0][1]


def test_vectors_are_read_in_place(pair):
    with closing(open_store(pair[1])) as store:
        assert isinstance(store.vectors("image").now, Coded)
        assert store.map_faults("image") == (0, [])


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE notes AS SELECT 1 AS a",
        "CREATE OR REPLACE TABLE codes_image AS FROM codes_image ORDER BY object_id",
        "DROP TABLE vector_map",
    ],
)
def test_a_file_that_was_rewritten_is_asked_by_sql_and_answers_the_same(pair, small, change):
    with duckdb.connect(small) as connection:
        connection.execute(change)
        connection.execute("UPDATE galsearch_manifest SET value = replace(value, '\"row_aligned\": true', "
                           "'\"row_aligned\": false')")  # fmt: skip
    with tiny.tuned(pair[1], held_rows=FEW) as good, tiny.tuned(small, held_rows=FEW) as atlas:
        for query in questions(pair[1], 2, seed=9):
            one, other = (part.search(query, k=20, exact=True) for part in (good, atlas))
            assert one.ids == other.ids
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        assert isinstance(atlas._store.vectors("image"), Fetched)


def test_a_run_that_does_not_begin_as_noted_is_not_read(pair, small):
    data = bytearray(small.read_bytes())
    with duckdb.connect(small, read_only=True) as connection:
        rows = connection.execute("SELECT byte_offset FROM vector_map WHERE name = 'codes_image'").fetchall()
    data[rows[0][0] + 3] ^= 0x40
    small.write_bytes(data)
    with galsearch.open(small) as atlas:
        with pytest.raises(FormatError):  # DuckDB sees by its checksums that the block is damaged
            atlas.search(questions(pair[1], 1, seed=1)[0], k=5, exact=True)
        assert not all(finding.ok for finding in atlas.check())


def findings(path: Path) -> dict[str, galsearch.Finding]:
    with galsearch.open(path) as atlas, pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "SAMPLE_QUERIES", 4)
        return {finding.name: finding for finding in atlas.check()}


def test_check_finds_nothing_wrong_with_a_compact_bundle(pair):
    found = findings(pair[1])
    assert all(finding.ok for finding in found.values())
    assert "fits the file" in found["image map"].message
    assert {"image norms", "image cells", "image recall"} <= set(found)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("* REPLACE (CASE rowid WHEN 17 THEN [2, 0]::FLOAT[2] ELSE weights END AS weights)", "image norms"),
        ("* REPLACE (CASE rowid WHEN 17 THEN cell + 1 ELSE cell END AS cell)", "image cells"),
        ("* REPLACE (CASE rowid WHEN 17 THEN 'nobody' ELSE object_id END AS object_id)", "image ids"),
    ],
)
def test_check_finds_codes_that_are_wrong(small, change, name):
    with duckdb.connect(small) as connection:
        connection.execute(f"CREATE OR REPLACE TABLE codes_image AS SELECT {change} FROM codes_image ORDER BY rowid")
    assert name in {finding.name for finding in findings(small).values() if not finding.ok}


def test_rows_that_were_changed_one_by_one_are_a_format_error(small):
    with duckdb.connect(small) as connection:
        connection.execute("UPDATE codes_image SET weights = [1, 0]::FLOAT[2] WHERE object_id = 'g00017'")
    with galsearch.open(small) as atlas, pytest.raises(FormatError, match="bundle the atlas again"):
        atlas.search(np.ones(atlas.manifest.embeddings["image"]["dim"]), k=5, exact=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("replace(value, 'int8-residual', 'int4-of-tomorrow')", "int4-of-tomorrow.*upgrade"),
        ("replace(value, '\"codes\"', '\"codes_\"')", "embedding_image is missing"),  # what other readers see
    ],
)
def test_codes_that_are_not_known_are_refused(small, change, said):
    with duckdb.connect(small) as connection:
        connection.execute(f"UPDATE galsearch_manifest SET value = {change} WHERE key = 'embeddings'")
    with pytest.raises(FormatError, match=said):
        galsearch.open(small)


def test_a_bundle_without_its_codes_is_refused(small):
    with duckdb.connect(small) as connection:
        connection.execute("DROP TABLE codes_image")
    with pytest.raises(FormatError, match="'embedding_image' is a view, and it must be a table"):
        galsearch.open(small)


def test_a_vector_in_a_cell_that_is_not_listed_is_a_format_error(small):
    with duckdb.connect(small) as connection:
        connection.execute("DELETE FROM cells_image WHERE cell = 1")
    with galsearch.open(small) as atlas, pytest.raises(FormatError, match="damaged"):
        atlas.search(np.ones(atlas.manifest.embeddings["image"]["dim"]), k=5, exact=True)


# ---- bundles of bundles


def test_a_bundle_of_a_compact_bundle_is_compact_and_has_the_same_codes(pair, tmp_path):
    with pytest.raises(GalsearchError, match="--compact"):
        galsearch.bundle(pair[1], tmp_path / "again.duckdb")
    assert not list(tmp_path.iterdir())
    again = galsearch.bundle(pair[1], tmp_path / "again.duckdb", compact=True)
    columns = "SELECT object_id, cell, code, weights FROM codes_image ORDER BY rowid"
    with duckdb.connect(pair[1], read_only=True) as one, duckdb.connect(again, read_only=True) as other:
        first, second = (connection.execute(columns).fetchnumpy() for connection in (one, other))
        assert one.execute("FROM duckdb_tables() SELECT table_name ORDER BY 1").fetchall() == \
            other.execute("FROM duckdb_tables() SELECT table_name ORDER BY 1").fetchall()  # fmt: skip
    assert all(np.array_equal(np.stack(first[key]), np.stack(second[key])) for key in first)


@pytest.mark.parametrize("value", ["0", "'nan'"])
def test_vectors_that_are_not_of_unit_length_are_refused(pair, tmp_path, value):
    bad = Path(shutil.copyfile(pair[0], tmp_path / "bad.duckdb"))
    with duckdb.connect(bad) as connection:
        dim = len(connection.execute("SELECT centroid FROM cells_image").fetchall()[0][0])
        numbers = f"list_resize([]::FLOAT[], {dim}, {value}::FLOAT)::FLOAT[{dim}]"
        changed = f"* REPLACE (CASE rowid WHEN 5 THEN {numbers} ELSE embedding END AS embedding)"
        connection.execute(f"CREATE OR REPLACE TABLE embedding_image AS SELECT {changed} FROM embedding_image")
    with pytest.raises(GalsearchError, match="galsearch check"):
        galsearch.bundle(bad, tmp_path / "out.duckdb", compact=True)
    assert not (tmp_path / "out.duckdb").exists()


# ---- the least of atlases


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_an_atlas_of_equal_vectors_answers(tmp_path, rows):
    vectors = np.tile(tiny.random_units(1, 8, seed=2), (rows, 1))
    _, path = build(tmp_path, vectors)
    with galsearch.open(path) as atlas:
        hits = atlas.search(vectors[0], k=200)
        assert hits.ids == [f"g{row:05d}" for row in range(rows)]
        np.testing.assert_allclose(hits.scores, 1, atol=1e-6)
        found = atlas.sql("SELECT embedding FROM embedding_image")["embedding"].to_pylist()
        np.testing.assert_allclose(found, vectors, atol=1e-6)
        sql = atlas.sql("FROM nearest(like_object('g00000'), k := 200)")
        assert sql["object_id"].to_pylist() == hits.ids
    assert all(finding.ok for finding in findings(path).values())


@pytest.mark.slow
def test_vectors_that_are_centroids_have_no_code(tmp_path):
    vectors = np.eye(8, dtype=np.float32)[np.arange(64) % 8]
    _, path = build(tmp_path, vectors)
    with duckdb.connect(path, read_only=True) as connection:
        rows = connection.execute(
            "SELECT code, weights FROM codes_image JOIN cells_image USING (cell) "
            "WHERE list_max(centroid::FLOAT[]) > 0.999"
        ).fetchall()
    assert rows
    assert all(set(code) == {0} for code, _ in rows)
    np.testing.assert_allclose([weights for _, weights in rows], [[1, 0]] * len(rows), atol=1e-6)
    with galsearch.open(path) as atlas:
        assert atlas.search(vectors[3], k=8).ids == [f"g{row:05d}" for row in range(3, 64, 8)]


@pytest.mark.slow
def test_the_tiny_atlas_is_asked_in_words(tiny_folder, tiny_bundle, tmp_path):
    path = galsearch.bundle(tiny_folder, tmp_path / "tiny.duckdb", compact=True)
    bare = galsearch.bundle(path, tmp_path / "bare.duckdb", compact=True, models=False)
    with galsearch.open(path, device="cpu") as atlas, galsearch.open(tiny_bundle, device="cpu") as true:
        found, wanted = (set(part.search("red edge", k=50).ids) for part in (atlas, true))
        assert len(found & wanted) >= 45
        assert all(finding.ok for finding in atlas.check())
        assert atlas.sql("FROM nearest(embed('red edge'), k := 7)")["object_id"].to_pylist() == \
            atlas.search("red edge", k=7).ids  # fmt: skip
    with galsearch.open(bare, device="cpu") as atlas:
        assert atlas.models() == {}
        assert len(atlas.search(atlas[tiny.object_id(0)], k=3)) == 3
    with duckdb.connect(path, read_only=True) as connection:
        tags = connection.execute("SELECT tags FROM duckdb_databases() WHERE NOT internal").fetchall()[0][0]
        assert str(tags["storage_version"]).startswith("v1.2")


@pytest.mark.slow
def test_the_command_line_writes_and_tells(tiny_folder, tmp_path, monkeypatch, capsys):
    from galsearch import cli

    for arguments in (["bundle", str(tiny_folder), str(tmp_path / "c.duckdb"), "--compact", "--no-models"],
                      ["info", str(tmp_path / "c.duckdb")]):  # fmt: skip
        monkeypatch.setattr("sys.argv", ["galsearch", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
    assert "300 of 16 8-bit codes" in capsys.readouterr().err


# ---- the codes themselves


@given(rows=st.integers(1, 40), dim=st.integers(1, 80), spread=st.floats(0, 3), seed=st.integers(0, 1_000))
def test_codes_stand_for_unit_vectors_close_by(rows, dim, spread, seed):
    centroids = tiny.random_units(rows, dim, seed=seed)
    noise = np.random.default_rng(seed + 1).normal(size=(rows, dim))
    vectors = centroids + spread * noise / np.sqrt(dim)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    codes, weights = encoded(vectors, centroids)
    again = decoded(codes, weights, centroids)
    np.testing.assert_allclose(np.linalg.norm(again.astype(np.float64), axis=1), 1, atol=1e-6)
    assert np.linalg.norm(again - vectors, axis=1).max() <= np.sqrt(dim) / 254 + 1e-5


def test_a_vector_on_its_centroid_or_opposite_to_it_is_finite():
    centroids = tiny.random_units(3, 16, seed=1)
    for vectors in (centroids, -centroids, tiny.random_units(3, 16, seed=2)):
        codes, weights = encoded(vectors, centroids)
        np.testing.assert_allclose(decoded(codes, weights, centroids), vectors, atol=0.01)
        assert weights.dtype == np.float32
        assert codes.dtype == np.int8


def test_a_scan_over_several_cells_and_one_inside_a_cell_agree(pair):
    query = questions(pair[1], 1, seed=5)[0]
    with closing(open_store(pair[1])) as store:
        vectors, scorer = store.vectors("image"), Scorer(query)
        every = np.arange(vectors.rows)
        true = vectors.take(every) @ query
        np.testing.assert_allclose(vectors.scores(scorer, every), true, atol=2e-6)
        for start, stop in ((0, 1), (17, 18), (100, 3_000), (5_990, 6_000)):
            rows = np.arange(start, stop)
            np.testing.assert_allclose(vectors.scores(scorer, rows), true[rows], atol=2e-6)
