"""The log of queries is kept where somebody says so and nowhere else; searches that were saved know their atlas."""

import subprocess
import sys

import pytest

import galsearch


def test_a_search_is_kept_with_what_came_back_and_can_be_asked_again(tiny_folder, tmp_path):
    with galsearch.open(tiny_folder, device="cpu", log=tmp_path / "q.log") as atlas:
        hits = atlas.search("red edge", where="mag_r < 17", k=15)
        atlas.search(hits[0], k=3)
        (first, second) = galsearch.QueryLog(tmp_path / "q.log").table().to_pylist()
        assert (first["hits"], first["first"], first["where"]) == (15, hits.ids[:10], "mag_r < 17")
        assert first["atlas"] == atlas.fingerprint and first["milliseconds"] > 0 and "red edge" in first["formula"]
        assert atlas.search(galsearch.Query.from_json(first["query"])).ids == hits.ids
        assert hits.ids[0] in second["formula"] and second["hits"] == 3


def test_nothing_is_kept_unless_somebody_says_so(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with galsearch.open(tiny_folder, device="cpu") as atlas:
        atlas.search("red edge")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("GALSEARCH_QUERY_LOG", str(tmp_path / "env.log"))
    with galsearch.open(tiny_folder, device="cpu", visitors=galsearch.Limits()) as atlas:
        atlas.search("red edge")
    assert list(tmp_path.iterdir()) == []
    with galsearch.open(tiny_folder, device="cpu") as atlas:
        atlas.search("red edge")
    assert len(galsearch.QueryLog(tmp_path / "env.log").table()) == 1


def test_a_query_too_long_to_keep_is_told_by_its_formula(tiny_folder, tmp_path):
    terms = tuple(galsearch.Term("embedding", tuple(float(n + m) + 0.123456789 for m in range(16))) for n in range(200))
    with galsearch.open(tiny_folder, device="cpu", log=tmp_path / "q.log") as atlas:
        atlas.search(galsearch.Query(terms=terms, k=2))
    (row,) = galsearch.QueryLog(tmp_path / "q.log").table().to_pylist()
    assert row["query"] is None and row["hits"] == 2 and row["formula"]


def test_a_file_of_something_else_is_refused_and_stays(tiny_folder, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("mine\n")
    with galsearch.open(tiny_folder, device="cpu", log=other) as atlas, pytest.raises(galsearch.FormatError):
        atlas.search("red edge")
    assert other.read_text() == "mine\n"


@pytest.mark.slow
def test_several_programs_write_one_log(tiny_folder, tmp_path):
    code = (
        "import sys, galsearch\nwith galsearch.open(sys.argv[1], device='cpu', log=sys.argv[2]) as atlas:\n"
        "    for k in range(1, 6): atlas.search(k=k)\n"
    )
    call = [sys.executable, "-c", code, str(tiny_folder), str(tmp_path / "q.log")]
    for process in [subprocess.Popen(call) for _ in range(3)]:
        assert process.wait(120) == 0
    rows = galsearch.QueryLog(tmp_path / "q.log").table()["hits"].to_pylist()
    assert sorted(rows) == sorted([1, 2, 3, 4, 5] * 3)


@pytest.mark.slow
def test_a_saved_search_is_asked_again_and_says_when_the_atlas_is_another(run, tiny_folder, tiny_bundle, tmp_path):
    kept = tmp_path / "kept.searches"
    options = ("--where", "mag_r < 18", "-k", 7, "--minus", "0.5:blue", "--searches", kept, "--format", "csv")
    code, first, _ = run("search", tiny_folder, "red edge", *options, "--save-as", "reds", "--log", tmp_path / "q.log")
    code_again, again, error = run("search", tiny_folder, "--saved", "reds", "--searches", kept, "--format", "csv")
    assert (code, code_again) == (0, 0) and first == again and "is found may differ" not in error
    assert len(galsearch.QueryLog(tmp_path / "q.log").table()) == 2  # what passes is asked again as it is saved
    with galsearch.open(tiny_folder) as atlas:
        assert galsearch.Searches(kept).named("reds").atlas == atlas.fingerprint
        ids = atlas.search(k=5).ids
    part = tmp_path / "part.duckdb"
    with galsearch.open(tiny_folder, device="cpu") as atlas:
        atlas.search(where=f"object_id <> '{ids[0]}'", k=1000).bundle(part)
    code, _, error = run("search", part, "--saved", "reds", "--searches", kept)
    assert code == 0 and "what is found may differ" in error
    code, _, error = run("search", tiny_folder, "--saved", "blues", "--searches", kept)
    assert code == 1 and "'reds'" in error
    code, _, error = run("search", tiny_folder, "more words", "--saved", "reds", "--searches", kept)
    assert code == 2
    code, _, error = run("search", tiny_folder, "--saved", "reds", "--searches", tmp_path / "none.searches")
    assert code == 1 and "is not there" in error
