"""The page Status without a browser: numbers of the watch, its queue and report, errors in a sentence, no writing."""

# ruff: noqa: F811  fixtures are those of other files
from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_app_anomalies import ids
from test_app_spectra import _closed, app_path, opened, page, state_of, text_of  # noqa: F401
from test_watch import HOSTILE, watched, workspace  # noqa: F401
from test_watch_status import digests

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("httpx2") is None, reason="needs the package httpx2, which openai brings"),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("GALSEARCH_WATCH", raising=False)


def name(app, path: Path):
    app.text_input(key="status_path").set_value(str(path)).run()
    assert not app.exception, app.exception
    return app


def test_it_shows_the_numbers_of_the_watch_and_writes_nothing(page, tiny_bundle, watched):
    plan, result = watched
    before = digests(plan.parent)
    app = page("status", tiny_bundle)
    assert "galsearch watch plan.toml" in text_of(app)
    name(app, plan)
    text = text_of(app)
    assert "Run 1 ended" in text and "nothing is left to do" in text
    counts = app.dataframe[1].value
    total = counts[counts["source"] == "all"].iloc[0]
    assert (total["items"], total["added"], total["listed"]) == (str(result.numbers["total"]["items"]), "130", "130")
    assert "130 objects are odd beside the others" in text and "another atlas than this one" in text
    assert len(app.dataframe[0].value) == 130
    headings = [one.value for one in app.header]
    assert {"Items by state", "Yields", "Shares", "Hosts", "Runs", "The last report"} <= set(headings)
    assert digests(plan.parent) == before


def test_of_its_own_atlas_the_queue_has_pictures_and_a_way_to_review(page, watched):
    plan, result = watched
    app = page("status", workspace(plan) / "sky.atlas")  # found without being named: the atlas lies in its workspace
    assert ids(app) == [one["object_id"] for one in result.numbers["queue"]][:60]
    assert not [row for row in app.dataframe if "detector" in row.value.columns]


def test_the_report_is_drawn_in_a_frame_that_runs_nothing(page, tiny_bundle, watched):
    plan, _ = watched
    app = name(page("status", tiny_bundle), plan)
    assert HOSTILE[:10] not in " ".join(str(one.proto.body) for one in app.get("html"))
    app.toggle(key="status_report").set_value(True).run()
    assert not app.exception, app.exception
    drawn = [one for one in app.get("bidi_component") if "<!doctype html>" in one.proto.json]
    assert len(drawn) == 1
    source = (Path(__file__).parent.parent / "streamlit_app" / "report.js").read_text()
    assert 'setAttribute("sandbox", "")' in source and "default-src 'none'" in source


@pytest.mark.parametrize("kind", ["absent", "empty folder", "no TOML", "damaged"])
def test_what_is_no_watch_is_one_sentence(page, tiny_bundle, tmp_path, kind):
    path = tmp_path / "here"
    if kind == "no TOML":
        path.write_text("= =")
    elif kind != "absent":
        path.mkdir()
    if kind == "damaged":
        (path / "watch.duckdb").write_bytes(b"x" * 5000)
    app = name(page("status", tiny_bundle), path)
    (error,) = app.error
    assert "\n" not in error.value and len(app.dataframe) == 0


def test_records_that_change_are_read_again(page, tiny_bundle, watched, tmp_path):
    import duckdb

    copy = Path(shutil.copytree(workspace(watched[0]), tmp_path / "c.watch"))
    app = name(page("status", tiny_bundle), copy)
    assert "130 objects are odd" in text_of(app)
    with duckdb.connect(str(copy / "watch.duckdb")) as connection:
        connection.execute("DELETE FROM queue; UPDATE runs SET ended = NULL, how = NULL")
    app.run()
    text = text_of(app)
    assert "Nothing is listed" in text and "it is under way, or was killed" in text and "No plan beside" in text


def test_a_visitor_sees_only_the_watch_that_is_named_and_no_path(page, tiny_bundle, watched, monkeypatch):
    import limits
    from views import status

    plan, _ = watched
    monkeypatch.setattr(limits, "PUBLIC", True)
    assert not status.needs(opened(tiny_bundle))
    monkeypatch.setenv("GALSEARCH_WATCH", str(plan))
    assert status.needs(opened(tiny_bundle))
    app = page("status", tiny_bundle)
    assert not app.text_input and not app.toggle
    drawn = text_of(app) + " ".join(table.value.to_string() for table in app.dataframe)
    assert "Run 1 ended" in drawn and str(plan.parent) not in drawn
    monkeypatch.setenv("GALSEARCH_WATCH", str(plan.with_name("gone.toml")))
    gone = page("status", tiny_bundle)
    assert gone.error and str(plan.parent) not in text_of(gone)


def test_times_are_told_by_the_largest_unit(app_path):
    from views.status import ago

    told = ["40 s ago", "3 min ago", "2 h ago", "2 days ago"]
    assert [ago(seconds) for seconds in (40, 200, 7300, 200_000)] == told
