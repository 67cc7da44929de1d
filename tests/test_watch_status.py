"""The status of a watch: as its report says, also while it runs; nothing is written, and nobody is kept out."""

# ruff: noqa: F811  fixtures are those of test_watch
from __future__ import annotations

import threading
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
from sky_services import jpeg, picture
from test_watch import cone, home, sky, watched, workspace, write  # noqa: F401

import galsearch
from galsearch.errors import GalsearchError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("httpx2") is None, reason="needs the package httpx2, which openai brings"),
]


def digests(folder: Path) -> dict[str, str]:
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_it_says_what_the_report_says_by_plan_or_workspace_and_writes_nothing(watched):
    plan, result = watched
    before = digests(plan.parent)
    for path in (plan, workspace(plan)):
        status = galsearch.watch_status(path)
        assert (status.plan, status.workspace, status.unended) == (plan, workspace(plan), False)
        assert status.numbers["sources"] == result.numbers["sources"]
        assert [one["object_id"] for one in status.queue] == [one["object_id"] for one in result.numbers["queue"]]
        assert status.report == workspace(plan) / "reports" / "latest.html"
        counts = status.tables["Counts"]
        assert counts["source"].to_pylist() == [*result.numbers["sources"], "all"]
        assert counts["added"].to_pylist()[-1] == "130"
    assert digests(plan.parent) == before


def test_a_workspace_without_its_plan_is_read_all_the_same(watched, tmp_path):
    import shutil

    plan, result = watched
    alone = Path(shutil.copytree(workspace(plan), tmp_path / "alone.watch"))
    status = galsearch.watch_status(alone)
    assert status.plan is None and status.numbers["total"] == result.numbers["total"]
    assert {one["kind"] for one in status.numbers["sources"].values()} == {None}


def test_while_it_runs_it_is_told_and_the_run_is_not_disturbed(home):
    """The pictures of the first source are held back until the status was read."""
    seen, goes_on = threading.Event(), threading.Event()
    for number in range(6):
        (home / "files").mkdir(exist_ok=True)
        (home / "files" / f"f{number}.jpg").write_bytes(jpeg(picture(number, 5, 64)))
    plan = write(home, 'name = "folder"\nkind = "folder"\npath = "files"')

    def progress(done: int, total: int, what: str) -> None:
        if not seen.is_set():
            seen.set()
            assert goes_on.wait(60)

    results = []
    worker = threading.Thread(
        target=lambda: results.append(galsearch.watch(plan, processes=0, progress=progress)), daemon=True
    )
    worker.start()
    try:
        assert seen.wait(60)
        status = galsearch.watch_status(plan)
        assert status.unended and status.numbers["total"]["items"] >= 0 and status.report is None
    finally:
        goes_on.set()
        worker.join(120)
    assert results and results[0].numbers["total"]["added"] == 6
    assert not galsearch.watch_status(plan).unended


def test_what_is_no_watch_is_one_sentence(home, sky, tmp_path):
    plan = write(home, cone(sky))
    with pytest.raises(GalsearchError, match="nothing was watched there yet"):
        galsearch.watch_status(plan)
    with pytest.raises(GalsearchError, match="nothing was watched there yet"):
        galsearch.watch_status(home)
    with pytest.raises(GalsearchError, match=r"absent\.toml"):
        galsearch.watch_status(tmp_path / "absent.toml")
    workspace(plan).mkdir()
    for content in (b"x" * 5000, b""):
        (workspace(plan) / "watch.duckdb").write_bytes(content)
        with pytest.raises(GalsearchError, match="is damaged, or no file of a watch") as told:
            galsearch.watch_status(plan)
        assert "\n" not in str(told.value) and "galsearch-status-" not in str(told.value)


def test_records_of_something_else_or_bent_are_one_sentence(watched, tmp_path):
    import shutil

    import duckdb

    plan, _ = watched
    for number, statement in enumerate(
        ("DROP TABLE items", "UPDATE hosts SET counts = '{'", "ALTER TABLE runs DROP COLUMN ended", "DROP TABLE about")
    ):
        copy = Path(shutil.copytree(workspace(plan), tmp_path / f"{number}.watch"))
        with duckdb.connect(str(copy / "watch.duckdb")) as connection:
            connection.execute(statement)
        with pytest.raises(GalsearchError, match="is damaged, or no file of a watch"):
            galsearch.watch_status(copy)
