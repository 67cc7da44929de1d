"""The benchmarks measure what they say: the made-up data, recall, times at equal recall, and one whole small run."""

import importlib.util
import json

import duckdb
import numpy as np
import pytest
from pyarrow import parquet

from benchmarks import measure, plots, scale, search, stages, vectors
from benchmarks.peers import ENGINES, FaissIvf, Numpy, Place
from benchmarks.vectors import KINDS, Spec

SPEC = Spec(rows=3_000, dim=16)


@pytest.fixture(scope="module")
def stored() -> np.ndarray:
    return np.concatenate(list(vectors.vector_blocks(SPEC)))


# ---- data


def test_vectors_and_queries_have_unit_length(stored):
    assert stored.shape == (SPEC.rows, SPEC.dim) and stored.dtype == np.float32
    asked = [vectors.queries(SPEC, stored, 40, kind=kind, purpose="tune") for kind in KINDS]
    for found in (stored, *asked):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_cuts_pass_the_share_they_name():
    columns = vectors.cut_columns(SPEC)
    for name in ("u", "c"):
        for share in stages.SHARES:
            assert abs((columns[name] < share).sum() - share * SPEC.rows) <= 1


def test_one_column_follows_the_vectors_and_the_other_does_not(stored):
    columns = vectors.cut_columns(SPEC)

    def pull(name: str) -> float:
        """Return how much closer to one another the rows of a tenth lie than any rows."""
        passing = stored[columns[name] < 0.1]
        return float(np.linalg.norm(passing.mean(axis=0)) - np.linalg.norm(stored.mean(axis=0)))

    assert pull("c") > 0.2
    assert abs(pull("u")) < 0.05


def test_queries_for_tuning_are_not_those_reported(stored):
    for kind in KINDS:
        tune, report, again = (
            vectors.queries(SPEC, stored, 50, kind=kind, purpose=purpose) for purpose in ("tune", "report", "report")
        )
        np.testing.assert_array_equal(report, again)
        assert np.abs(tune[:, None] - report[None]).max(axis=2).min() > 0.01


def test_words_lie_further_from_the_vectors_than_stored_ones(stored):
    like, words = (vectors.queries(SPEC, stored, 50, kind=kind, purpose="tune") for kind in KINDS)
    assert (like @ stored.T).max(axis=1).mean() > (words @ stored.T).max(axis=1).mean() + 0.1


def test_the_table_holds_the_vectors_of_the_array(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 1_000)
    place = Place(SPEC, tmp_path)
    vectors.write(SPEC, place.table, place.array)
    table, columns = parquet.read_table(place.table), vectors.cut_columns(SPEC)
    assert table.column_names == ["id", "ra", "dec", "z", "mag_r", "u", "c", "v"]
    assert vectors.row_numbers(table["id"].to_pylist()).tolist() == list(range(SPEC.rows))
    np.testing.assert_array_equal(np.array(table["v"].to_pylist(), np.float32), place.vectors())
    np.testing.assert_array_equal(table["c"].to_numpy(), columns["c"])


# ---- measuring


def test_nearest_agrees_with_sorting_everything(stored, monkeypatch):
    monkeypatch.setattr(measure, "BLOCK_ROWS", 700)
    asked = vectors.queries(SPEC, stored, 5, kind="words", purpose="report")
    truth = np.argsort(-(asked @ stored.T), axis=1)[:, :7]
    np.testing.assert_array_equal(measure.nearest(stored, asked, k=7), truth)


def test_nearest_under_a_cut_finds_only_what_passes(stored):
    asked = vectors.queries(SPEC, stored, 2, kind="like", purpose="report")
    passing = np.array([5, 2_000, 2_999])

    def passes(number: int, block: slice) -> np.ndarray:
        return np.isin(np.arange(block.start, block.stop), passing)

    found = measure.nearest(stored, asked, k=5, passing=passes)
    for query, rows in zip(asked, found, strict=True):
        assert rows.tolist() == [*passing[np.argsort(-(stored[passing] @ query))], -1, -1]


def test_recall_counts_the_share_of_the_true_rows_that_there_are():
    truth = np.array([[1, 2, 3, 4], [5, 6, -1, -1], [-1, -1, -1, -1]])
    found = [np.array([4, 3, 9, 8]), np.array([6]), np.array([], np.int64)]
    assert measure.recall(found, truth, k=4) == pytest.approx((0.5 + 0.5) / 2)
    assert measure.recall(found, truth, k=2) == pytest.approx((0.0 + 0.5) / 2)


def test_time_at_equal_recall_lies_between_the_points_around_it():
    points = [{"recall": r, "median_ms": t} for r, t in ((0.9, 1.0), (0.99, 10.0), (0.95, 30.0))]
    assert measure.time_at_recall(points, 1 - 10**-1.5) == pytest.approx(10**0.5)
    assert measure.time_at_recall(points, 0.5) == 1.0  # less effort was not measured
    assert measure.time_at_recall(points, 0.999) is None


def test_numbers_of_queries_end_with_the_time_but_not_too_early():
    assert list(measure.within(20, seconds=0.0, least=4)) == [0, 1, 2, 3]
    assert len(list(measure.within(20, seconds=60.0, least=4))) == 20


def test_memory_is_that_of_this_process():
    found = measure.memory_mib()
    assert 0 < found["anonymous_mib"] <= found["rss_mib"] <= found["peak_mib"]
    with measure.peak_anonymous() as seen:
        held = np.ones(8 << 20)
    assert seen["anonymous_mib"] > found["anonymous_mib"] + 32 and len(held)


def test_conditions_differ_from_query_to_query_and_pass_what_the_truth_says():
    columns, cut = vectors.cut_columns(SPEC), ("c", 0.1)
    texts = [stages.condition(cut, number, line) for number in range(20) for line in range(20)]
    assert len(set(texts)) == len(texts)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT unnest($1::DOUBLE[]) AS c", [columns["c"].tolist()])
        for number in (0, 7):
            (passing,) = connection.execute(f"SELECT count(*) FROM t WHERE {texts[20 * number + 3]}").fetchone()
            assert passing == (columns["c"] < stages.constant(0.1, number)).sum()


def test_efforts_end_with_every_cell():
    assert FaissIvf(Place(SPEC, None)).ladder(under_cut=True) == [32, 128, 219]
    assert Numpy(Place(SPEC, None)).ladder(under_cut=False) == [None]


# ---- whole runs


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> dict:
    """One run over 3,000 vectors with the peer that is always there, most of it in this process: that is quicker."""
    folder = tmp_path_factory.mktemp("bench")
    settings = stages.Settings(queries=6, queries_under_cut=4, seconds=1.0, shares=(0.5, 0.002))
    place = search.place_of(SPEC, folder)
    names = [name for name in search.stages(["numpy"]) if "first" not in name]
    search.stage_result(place, settings, names[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "PACE_ROWS", 64)
        patch.setattr(ENGINES["galsearch-macro"], "efforts", (64,))
        for name in names[1:-1]:
            search.keep_stage(place, settings, name)
    return search.measure_all(place, settings, names=names) | {"cache": folder, "place": place, "asked": settings}


@pytest.mark.slow
def test_a_whole_run_finds_everything_that_there_is(small_run):
    for name in ("galsearch-folder", "galsearch-bundle", "galsearch-macro", "numpy"):
        for line in small_run["stages"][f"unfiltered:{name}"]["lines"]:
            assert line["recall"] > 0.9 or isinstance(line["effort"], int), (name, line)
        cut = small_run["stages"][f"filtered:{name}"]["lines"]
        assert {(line["column"], line["share"]) for line in cut} == {(c, s) for c in "uc" for s in (0.5, 0.002)}
        assert sum(line["short"] for line in cut) == 0
    assert all(line["recall"] == 1 for line in small_run["stages"]["filtered:numpy"]["lines"])


@pytest.mark.slow
def test_a_whole_run_is_compared_bar_by_bar_and_kept(small_run, monkeypatch):
    bars = {bar["bar"]: bar for bar in small_run["summary"]["bars"]}
    assert bars["answers of fewer than min(k, matches) rows"]["met"]
    assert bars["cold open and first answer, bundle, ms"]["met"] is None  # not among the stages of this run
    assert len(small_run["summary"]["cuts"]) == 2 * 2 * 2 * 2
    assert all(row["ratio"] > 0 for row in small_run["summary"]["cuts"])
    kept = {name: small_run[name] for name in ("spec", "settings", "machine", "stages", "summary")}
    assert json.loads(search.as_json(kept)) == json.loads(json.dumps(kept))
    assert not any("MISSED" in line or "met" in line for line in search.report(small_run))  # too small for the bars
    monkeypatch.setattr(search, "BARS_FROM_ROWS", 1_000)
    assert any("MISSED" in line or "met" in line for line in search.report(small_run))


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(small_run, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a stage was run again")

    monkeypatch.setattr(search.subprocess, "run", refuse)
    names = list(small_run["stages"])
    again = search.measure_all(small_run["place"], small_run["asked"], names=names)
    assert again["stages"] == small_run["stages"]


def test_engines_have_names_of_their_own_and_styles_to_be_drawn_in():
    assert len(ENGINES) == len(set(ENGINES)) == len(plots.STYLES) and set(ENGINES) == set(plots.STYLES)


def test_growth_is_fitted_as_a_power_of_the_rows():
    sizes = (1e5, 1e6, 4e6)
    points = [{"rows": n, "dim": 256, "folder_build_s": 3e-5 * n, "bundle_words_ms": 2.0} for n in sizes]
    fits = {fit["figure"]: fit for fit in scale.fits([*points, {"rows": 5, "dim": 8, "folder_build_s": 1.0}])}
    assert fits["folder_build_s"]["exponent"] == fits["folder_build_s"]["exponent_all"] == 1
    assert fits["folder_build_s"]["value"] == pytest.approx(3e-5 * scale.TARGET["rows"])
    assert fits["bundle_words_ms"]["value"] == pytest.approx(2.0)


def test_a_document_without_its_figures_names_the_command_that_makes_them(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("generate", search.ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    for part, command in ((generate.bars, "benchmarks.search"), (generate.growth, "benchmarks.scale")):
        with pytest.raises(SystemExit, match=rf"missing.*python -m {command}"):
            part()
