"""Vectors read in place: runs that cut vectors in two, files that were changed, and what stands in when a map fails."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import galsearch
from galsearch.science.ranking import Scorer
from galsearch.store.index import cells, kernel, vectors
from galsearch.store.index.vectors import Chain, Fetched, Held, MapError, Mapped, Reordered, Trusted, runs_table

DIM = 7


def test_what_compares_rows_is_told(monkeypatch):
    monkeypatch.setattr(kernel, "threads", lambda: 1)
    monkeypatch.setattr(kernel, "LIBRARY", object())
    assert kernel.description() == "compiled, 1 thread"
    monkeypatch.setattr(kernel, "LIBRARY", None)
    assert kernel.description().startswith("numpy, because no C compiler")


def laid_out(path, array: np.ndarray, cuts: list[int], gap: int = 3) -> pa.Table:
    """Write the numbers of `array` to a file in runs that end at `cuts`, with other numbers between them."""
    flat, written, places, values = array.ravel(), [np.full(5, np.nan, np.float32)], [], []
    for start, stop in zip([0, *cuts], [*cuts, len(flat)], strict=True):
        if stop > start:
            places.append(4 * sum(map(len, written)))
            values.append(stop - start)
            written += [flat[start:stop], np.full(gap, np.inf, np.float32)]
    path.write_bytes(np.concatenate(written).tobytes())
    return runs_table(None, path, np.array(places, np.int64), np.array(values, np.int64), 0)


@given(
    rows=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40 * DIM), max_size=12),
    span=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    seed=st.integers(0, 9),
)
def test_runs_that_end_anywhere_give_every_vector_whole(tmp_path_factory, rows, cuts, span, seed):
    array = tiny.random_units(rows, DIM, seed=seed)
    path = tmp_path_factory.mktemp("runs") / "numbers"
    found = Mapped(laid_out(path, array, sorted(min(cut, array.size) for cut in cuts)), DIM, path)
    assert found.rows == rows
    order = np.random.default_rng(seed).permutation(rows)
    assert np.array_equal(found.take(order), array[order])
    start, stop = min(*span, rows), min(max(span), rows)
    asked = np.concatenate([np.arange(start, stop), order])
    assert np.allclose(found.scores(Scorer(array[0]), asked), array[asked] @ array[0], atol=1e-6)
    found.done(start, stop)
    assert np.array_equal(found.take(order), array[order])  # pages that were handed back are read again
    assert found.damaged_runs() == 0


@given(
    rows=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 40 * DIM), max_size=12),
    spans=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8),
    seed=st.integers(0, 9),
)
def test_spans_give_the_scores_of_their_rows_one_after_another(tmp_path_factory, rows, cuts, spans, seed):
    array, query = tiny.random_units(rows, DIM, seed=seed), tiny.random_units(2, DIM, seed=seed + 1)
    path = tmp_path_factory.mktemp("runs") / "numbers"
    mapped = Mapped(laid_out(path, array, sorted(min(cut, array.size) for cut in cuts)), DIM, path)
    starts = np.array([min(*span, rows) for span in spans], np.int64)
    stops = np.array([min(max(span), rows) for span in spans], np.int64)
    numbers = vectors.rows_of_spans(starts, stops)
    scorer = Scorer(query[0], either=query)
    for each in (mapped, Held(array), Trusted(mapped, lambda: Held(array)), Reordered(Held(array), np.arange(rows))):
        scores = each.span_scores(scorer, starts, stops)
        assert np.allclose(scores, each.scores(scorer, numbers), atol=1e-6)
        assert np.allclose(scores, scorer.of(array[numbers]), atol=1e-6)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (2, 12), (11, 12), (2**62, 2**62 + 1)])
def test_a_span_that_leads_outside_is_an_error_and_reads_nothing(tmp_path, start, stop):
    if kernel.LIBRARY is None:
        pytest.skip("galsearch was installed without a C compiler")
    array = tiny.random_units(11, DIM, seed=0)
    path = tmp_path / "numbers"
    for each in (Held(array), Mapped(laid_out(path, array, [20]), DIM, path)):
        with pytest.raises(IndexError, match="among the 11"):
            each.span_scores(Scorer(array[0]), np.array([0, start]), np.array([2, stop]))


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.5 - 4e-6, 0.75, -1.0]) | st.floats(-1, 1, width=32), max_size=60),
    st.integers(0, 70),
)
def test_what_may_be_among_the_largest_is_what_sorting_says(values, wanted):
    scores = np.array(values, np.float32)
    found = kernel.select(scores, wanted, error=1e-5)
    order = np.sort(scores)[::-1][: min(wanted, len(scores))]
    least = order[-1] - np.float32(1e-5) if len(order) else np.inf
    assert found.tolist() == np.flatnonzero(scores >= least).tolist()


def test_more_ties_than_there_is_room_for_are_all_kept(monkeypatch):
    monkeypatch.setattr(kernel, "SPARE", 3)
    scores = np.repeat(np.array([0.1, 0.9], np.float32), 50)
    assert kernel.select(scores, 5, error=1e-5).tolist() == list(range(50, 100))


def test_the_library_was_compiled():
    if kernel.LIBRARY is None and not os.environ.get("GALSEARCH_CI"):
        pytest.skip("galsearch was installed without a C compiler")
    assert kernel.LIBRARY is not None


@pytest.mark.parametrize("compiled", [True, False])
def test_scores_are_those_of_numpy_with_and_without_the_library(tmp_path, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(kernel, "LIBRARY", None)
    monkeypatch.setattr(kernel, "WORTH", 1_000)
    monkeypatch.setattr(kernel, "threads", lambda: 3)
    array = tiny.random_units(9_000, 70, seed=1)
    path = tmp_path / "numbers"
    mapped = Mapped(laid_out(path, array, [100, 20_001, 20_030, 20_040, 400_000]), 70, path)
    scorer = Scorer(array[0], either=array[1:3])
    rows = np.random.default_rng(2).integers(len(array), size=20_000)
    true = array[rows] @ array[0] + np.max(array[rows] @ array[1:3].T, axis=1)
    for kind in (mapped, Held(array)):
        for _ in range(20 if compiled else 1):  # as often as threads may get in each other's way
            with kernel.crew(array.size):
                np.testing.assert_allclose(kind.scores(scorer, rows), true, atol=1e-5)
                np.testing.assert_allclose(kind.scores(scorer, rows[::-1]), true[::-1], atol=1e-5)
        for outside in (-1, 9_000) if compiled else ():
            with pytest.raises(IndexError):
                kind.scores(scorer, np.array([0, outside]))


def test_many_threads_may_ask_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "WORTH", 1_000)
    array = tiny.random_units(4_000, 64, seed=1)
    path = tmp_path / "numbers"
    mapped = Mapped(laid_out(path, array, [64_000, 128_001]), 64, path)
    rows = np.arange(4_000)

    def asked(place: int) -> np.ndarray:
        with kernel.crew(array.size):
            return mapped.scores(Scorer(array[place]), rows)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(asked, range(200)))
    for place, scores in enumerate(found):
        np.testing.assert_allclose(scores, array @ array[place], atol=1e-5)


def everything(array: np.ndarray):
    """Return the kinds of vectors that hold the same rows in other ways."""
    half = len(array) // 2
    back = np.arange(len(array))[::-1]
    fetched = Fetched(*array.shape, lambda rows: array[rows])
    return [
        Held(array),
        fetched,
        Chain([Held(array[:half]), Fetched(len(array) - half, array.shape[1], lambda rows: array[half + rows])], DIM),
        Reordered(Held(array[::-1]), back),
        Trusted(Broken(*array.shape), lambda: fetched),
    ]


class Broken:
    """Vectors whose map does not fit."""

    def __init__(self, rows: int, dim: int) -> None:
        self.rows, self.dim = rows, dim

    def take(self, rows):
        raise MapError("a run does not begin as noted")

    def scores(self, scorer, rows):
        raise MapError("a run does not begin as noted")


@pytest.mark.parametrize("kind", range(5))
def test_every_kind_of_vectors_gives_the_same_rows_and_scores(kind):
    array = tiny.random_units(50, DIM, seed=1)
    found = everything(array)[kind]
    rows = np.array([49, 3, 3, 27, 0])
    assert (found.rows, found.dim) == (50, DIM)
    assert np.array_equal(found.take(rows), array[rows])
    assert found.take(np.empty(0, np.int64)).shape == (0, DIM)
    for asked in (rows, np.arange(10, 41), np.empty(0, np.int64)):
        assert np.allclose(found.scores(Scorer(array[2]), asked), array[asked] @ array[2], atol=1e-6)
    found.done(0, 50)


def test_a_map_that_leads_outside_the_file_or_to_other_numbers_is_refused(tmp_path):
    array = tiny.random_units(10, DIM, seed=2)
    path = tmp_path / "numbers"
    runs = laid_out(path, array, [33])
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(MapError, match="inside"):
        Mapped(runs, DIM, path)
    path.write_bytes(b"\0" * 8 + content)  # somebody moved everything by two numbers
    with pytest.raises(MapError, match="begin as noted"):
        Mapped(runs, DIM, path).take(np.array([9]))
    path.write_bytes(content)
    with pytest.raises(MapError, match="follow"):
        Mapped(runs.slice(1), DIM, path)


def test_a_flipped_bit_changes_the_digest_of_its_run(tmp_path):
    path = tmp_path / "numbers"
    runs = laid_out(path, tiny.random_units(10, DIM, seed=2), [33])
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    assert Mapped(runs, DIM, path).damaged_runs() == 1


# ---- in atlases


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A folder and a bundle of vectors long enough for Lance to store them plainly, with an index."""
    home = tmp_path_factory.mktemp("wide")
    array = tiny.random_units(3_000, 96, seed=3, groups=30)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), 96)
    ids = [f"w{row:04d}" for row in range(len(array))]
    table = pa.table({"id": ids, "z": np.linspace(0, 1, len(ids)), "vector": flat})
    pq.write_table(table, home / "all.parquet")
    pq.write_table(table.slice(0, 2_500), home / "most.parquet")
    pq.write_table(table.slice(2_500, 200), home / "more.parquet")
    pq.write_table(table.slice(2_700), home / "rest.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "LEAST_ROWS", 500)
        galsearch.build(home / "wide.atlas", table=home / "all.parquet", vectors="vector", model="theirs")
    galsearch.bundle(home / "wide.atlas", home / "wide.duckdb")
    return home, ids, array


def inside(atlas) -> object:
    return atlas._store.vectors("image")


@pytest.mark.parametrize("name", ["wide.atlas", "wide.duckdb"])
def test_both_forms_are_read_in_place_and_agree_with_the_input(wide, name):
    home, ids, array = wide
    with galsearch.open(home / name) as atlas:
        assert isinstance(inside(atlas).now, Mapped)
        found = inside(atlas).take(np.arange(len(ids)))
        order = [ids.index(one) for one in atlas._store.ids(np.arange(len(ids)))]
        assert np.array_equal(found, array[order])
        assert {finding.message for finding in atlas.check() if finding.name == "image map"} == {
            "the map of the vectors fits the file"
        }


def test_a_bundle_that_somebody_changed_is_read_by_its_engine(wide, tmp_path):
    home, ids, array = wide
    path = tmp_path / "changed.duckdb"
    path.write_bytes((home / "wide.duckdb").read_bytes())
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE embedding_image SET embedding = list_transform(embedding, lambda x: -x)::FLOAT[96]")
    with galsearch.open(path) as atlas:
        assert isinstance(inside(atlas), Held)
        assert atlas.search(-array[5], k=1).ids == [ids[5]]
        assert any("changed since" in finding.message for finding in atlas.check())


def test_a_bundle_copied_by_duckdb_is_read_by_its_engine(wide, tmp_path):
    home, ids, array = wide
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{home / 'wide.duckdb'}' AS one (READ_ONLY)")
        connection.execute(f"ATTACH '{tmp_path / 'two.duckdb'}' AS two")
        connection.execute("COPY FROM DATABASE one TO two")
    with galsearch.open(tmp_path / "two.duckdb") as atlas:
        assert atlas.search(array[5], k=1).ids == [ids[5]]
        assert all(finding.ok for finding in atlas.check())


@pytest.mark.slow
def test_rows_that_are_added_are_found_at_once_and_indexed_by_optimize(wide, tmp_path, monkeypatch):
    home, ids, array = wide
    monkeypatch.setattr(cells, "LEAST_ROWS", 500)
    path = tmp_path / "grown.atlas"
    galsearch.build(path, table=home / "most.parquet", vectors="vector", model="theirs")
    galsearch.add(path, table=home / "more.parquet", vectors="vector", model="theirs")
    with galsearch.open(path) as atlas:
        assert atlas._store.unindexed("image") == 200
        assert atlas.search(array[2_600], k=1).ids == [ids[2_600]]
        assert all(finding.ok for finding in atlas.check())
        old = atlas.search(array[2_600], k=20, exact=True)
        assert galsearch.optimize(path).added == 200
        assert atlas.search(array[2_600], k=20, exact=True).ids == old.ids  # who is reading goes on
    with galsearch.open(path) as atlas:
        assert atlas._store.unindexed("image") == 0
        assert atlas.search(array[2_600], k=20, exact=True).ids == old.ids
        assert all(finding.ok for finding in atlas.check())
    assert galsearch.optimize(path).added == 0


@pytest.mark.slow
def test_an_addition_that_is_large_is_indexed_at_once(wide, tmp_path, monkeypatch):
    home, ids, array = wide
    monkeypatch.setattr(cells, "LEAST_ROWS", 500)
    path = tmp_path / "grown.atlas"
    galsearch.build(path, table=home / "rest.parquet", vectors="vector", model="theirs")
    galsearch.add(path, table=home / "most.parquet", vectors="vector", model="theirs")
    with galsearch.open(path) as atlas:
        assert atlas._store.unindexed("image") == 0
        assert [record["action"] for record in atlas.manifest.provenance] == ["build", "add", "optimize"]
        assert atlas.search(array[7], k=1).ids == [ids[7]]


def test_a_bundle_is_never_optimized(wide):
    home, _, _ = wide
    with pytest.raises(galsearch.GalsearchError, match="bundle"):
        galsearch.optimize(home / "wide.duckdb")


# ---- how many cells


def test_recall_is_reached_on_queries_that_it_was_not_measured_on(wide):
    home, _, array = wide
    queries = array[np.random.default_rng(8).integers(len(array), size=(30, 3))].sum(axis=1)
    with galsearch.open(home / "wide.duckdb") as atlas:
        for wished in (0.8, 0.95):
            shares = []
            for query in queries:
                cells_used = atlas._store.cells("image").curves.probes(
                    recall=wished, depth=10, kinds=["words"], cells=10_000
                )
                quick, true = atlas.search(query, k=10, probes=cells_used), atlas.search(query, k=10, exact=True)
                shares.append(len(set(quick.ids) & set(true.ids)) / 10)
            assert np.mean(shares) >= wished - 0.05


def test_deeper_questions_and_higher_recall_visit_more_cells(wide):
    home, _, _ = wide
    with galsearch.open(home / "wide.duckdb") as atlas:
        curves = atlas._store.cells("image").curves
    by_recall = [curves.probes(recall=r, depth=10, kinds=["like"], cells=10_000) for r in (0.5, 0.8, 0.9, 0.99)]
    by_depth = [curves.probes(recall=0.9, depth=d, kinds=["like"], cells=10_000) for d in (1, 10, 100, 1_000, 5_000)]
    assert by_recall == sorted(by_recall) and by_depth == sorted(by_depth)
    assert curves.probes(recall=1.0, depth=10**6, kinds=["like"], cells=37) <= 37


def test_the_wished_recall_decides_how_many_cells_are_visited(wide):
    home, _, array = wide
    with tiny.tuned(home / "wide.duckdb", exact_matches=10) as atlas:
        visited = [atlas.search(array[0], k=5, recall=wished).plan.cells_probed for wished in (0.5, 0.95)]
        assert visited[0] < visited[1]
    with pytest.raises(galsearch.QueryError, match="recall"):
        galsearch.Query(recall=1.5)


def test_vectors_module_reads_numbers_without_pandas():
    table = pa.table({"n": pa.chunked_array([[1, 2], [], [3]], pa.int64())})
    assert vectors.numbers(table.slice(1), "n").tolist() == [2, 3]


def test_the_state_of_a_file_is_the_larger_count_of_its_headers_and_grows_with_each_change(tmp_path):
    for first, second in ((5, 7), (258, 7)):
        headers = np.zeros(3 * 512, "<u8")
        headers[[513, 1025]] = first, second
        (tmp_path / "made").write_bytes(headers.tobytes())
        assert vectors.file_state(tmp_path / "made") == max(first, second)
    (tmp_path / "made").write_bytes(headers.tobytes()[:-1])
    with pytest.raises(MapError, match="cut"):
        vectors.file_state(tmp_path / "made")
    states = []
    for name in "abc":
        with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
            connection.execute(f"CREATE TABLE {name} AS SELECT 1 AS n")
        states.append(vectors.file_state(tmp_path / "a.duckdb"))
    assert states == sorted(set(states))


class Counted:
    """A file of this machine that counts what is read, by length."""

    def __init__(self, file):
        self._file, self.lengths = file, []

    def __getattr__(self, name):
        return getattr(self._file, name)

    def read(self, at: int, length: int) -> bytes:
        self.lengths.append(length)
        return self._file.read(at, length)


def test_the_beginning_of_a_run_is_compared_once_and_again_where_it_was_handed_back(tmp_path, monkeypatch):
    array = tiny.random_units(600, DIM, seed=1)
    runs = laid_out(tmp_path / "numbers", array, [3 * DIM, 200 * DIM, 450 * DIM])
    monkeypatch.setattr(kernel, "LIBRARY", None)
    plain = Mapped(runs, DIM, tmp_path / "numbers")
    plain.file = Counted(plain.file)
    for _ in range(3):
        plain.take(np.array([0, 100, 300, 599]))
    assert plain.file.lengths.count(vectors.HEAD_BYTES) == 4


@pytest.mark.skipif(kernel.LIBRARY is None, reason="what is mapped is handed back, and nothing was compiled")
def test_rows_that_are_done_with_are_handed_back_to_the_system(tmp_path):
    """Whole pages between the first and the last run of the rows; what was looked at before is looked at again."""
    array = tiny.random_units(5_000, DIM, seed=1)
    cuts = [step * DIM for step in (1_000, 2_000, 3_000, 4_000)]
    found = Mapped(laid_out(tmp_path / "numbers", array, cuts), DIM, tmp_path / "numbers")
    found.take(np.arange(5_000))
    seen = np.asarray(found._pieces.seen)
    assert seen[:5].all()
    found.done(1_000, 3_000)
    assert seen[:5].astype(bool).tolist() == [True, False, False, True, True]
