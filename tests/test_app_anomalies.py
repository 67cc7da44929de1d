"""The page Anomalies without a browser: settings, what a list is worth, why, saved lists, texts of strangers."""

# ruff: noqa: F811  fixtures are those of other files
from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_anomalies import NORMALS, ODD, ODD_IDS, ROWS, home  # noqa: F401
from test_app_pages import finish, job_of
from test_app_spectra import _closed, app_path, opened, page, state_of, text_of  # noqa: F401
from tiny_spectra import write_models, write_spectra

import galsearch
from galsearch.science import novelty

NEVER = "discover"  # a list is a reason to look


@pytest.fixture(scope="module")
def planted(home) -> Path:
    """A bundle with twelve odd vectors among 600, without pictures."""
    return home / "planted.duckdb"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, home) -> tuple[Path, list[str]]:
    """A bundle with two saved lists, the first of them without known normals; and their names."""
    path = Path(shutil.copytree(home / "planted.atlas", tmp_path_factory.mktemp("saved") / "s.atlas"))
    with galsearch.open(path, device="cpu") as atlas:
        runs = [
            galsearch.save_anomalies(atlas.anomalies(5, detectors=["mahalanobis"])),
            galsearch.save_anomalies(atlas.anomalies(20, normals=NORMALS)),
        ]
    return galsearch.bundle(path, path.with_suffix(".duckdb")), runs


@pytest.fixture(scope="module")
def spectra(tmp_path_factory) -> Path:
    """A bundle of spectra alone: many of one kind, and another."""
    home = tmp_path_factory.mktemp("odd-spectra")
    objects = {f"s{number:02d}": ("passive", 0.02 + number / 1_000) for number in range(59)}
    files = write_spectra(home / "spectra", objects | {"strange": ("broad", 0.1)})
    galsearch.build(home / "s.atlas", spectra=files, models=write_models(home / "models"), measure="none")
    return galsearch.bundle(home / "s.atlas", home / "s.duckdb")


def look(app):
    """Press the button and wait."""
    app.button(key="anomalies_start").click().run()
    assert not app.exception, app.exception
    return finish(app, "anomalies") if job_of(app, "anomalies") is not None else app


def tiles(app) -> list[dict]:
    """Return what the gallery draws."""
    (drawn,) = galleries(app)
    return drawn["tiles"]


def galleries(app) -> list[dict]:
    assert not app.exception, app.exception
    every = [json.loads(one.proto.json) for one in app.get("bidi_component")]
    return [one for one in every if "tiles" in one]


def ids(app) -> list[str]:
    return [one["id"] for one in tiles(app)]


def curve_of(app) -> list[dict]:
    """Return the points of the operating curve."""
    return [
        row for _, row in sorted({row["place"]: row for row in plotted(app) if "q" in row and "place" in row}.items())
    ]


def plotted(app) -> list[dict]:
    """Return the rows of all plots."""
    specs = [json.loads(one.proto.spec) for one in app.get("vega_lite_chart") + app.get("arrow_vega_lite_chart")]
    rows = [row for spec in specs for data in spec.get("datasets", {}).values() for row in data]
    rows += [row for spec in specs for layer in spec["layer"] for row in layer.get("data", {}).get("values", [])]
    return rows + [row for spec in specs for row in spec.get("data", {}).get("values", [])]


def bars_of(app) -> list[int]:
    """Return the heights of the histogram of p-values."""
    bars = {row["from"]: row["objects"] for row in plotted(app) if "from" in row}
    return [many for _, many in sorted(bars.items())]


# ---- a list


def test_a_list_is_that_of_the_library_and_says_what_it_is_worth(page, planted):
    app = page("anomalies", planted, normals=NORMALS)
    assert not app.error and "objects pass" in text_of(app)
    assert "judged" not in text_of(app)  # nothing is done before somebody asks
    look(app)
    expected = opened(planted).anomalies(24, normals=NORMALS)
    assert ids(app) == expected.ids and set(ids(app)) >= set(ODD_IDS)
    text = text_of(app)
    assert f"{expected.tested} objects were judged beside {expected.normals} normals" in text
    assert f"{expected.candidates} are candidates at a false discovery rate of 0.1" in text
    assert NEVER not in text.lower().replace("false discovery", "")
    assert [one["score"] for one in tiles(app)] == expected.table["tier"].to_pylist()
    assert [one["rank"] for one in tiles(app)] == [f"q {value:.2g}" for value in expected.table["q_value"].to_pylist()]
    points = curve_of(app)
    everyone = opened(planted).anomalies(ROWS, normals=NORMALS)
    np.testing.assert_allclose([one["q"] for one in points], everyone.table["q_value"].to_numpy())
    assert points[9]["expected"] == pytest.approx(10 * points[9]["q"])
    assert all(one["src"] is None for one in tiles(app))  # an atlas of vectors alone has neither pictures nor spectra


@pytest.mark.slow
def test_the_histogram_is_that_of_all_p_values_beside_the_uniform_expectation(page, planted, saved):
    expected = opened(planted).anomalies(24, normals=NORMALS)
    heights, _ = np.histogram(expected.p_values, bins=20, range=(0, 1))
    app = look(page("anomalies", planted, normals=NORMALS))
    assert bars_of(app) == heights.tolist() and sum(heights) == expected.tested > len(expected)
    lines = [row["objects"] for row in plotted(app) if set(row) == {"objects"}]
    assert lines and lines[0] == pytest.approx(expected.tested / 20)
    path, runs = saved
    kept = opened(path).saved_anomalies(runs[0])["p_value"].to_numpy()
    again = page("anomalies", path, source="saved", run=runs[0])
    assert bars_of(again) == np.histogram(kept, bins=20, range=(0, 1))[0].tolist()


def test_how_many_and_the_rate_change_the_list_and_nothing_is_judged_again(page, planted):
    app = look(page("anomalies", planted, normals=NORMALS))
    first = job_of(app, "anomalies")
    app.slider(key=next(one.key for one in app.slider if one.label == "How many")).set_value(7).run()
    assert len(ids(app)) == 7 and state_of(app).param("n") == "7"
    next(one for one in app.select_slider if one.label == "False discovery rate").set_value(0.2).run()
    app.button_group(key="anomalies_list_first").set_value("candidates").run()
    expected = opened(planted).anomalies(1_000, normals=NORMALS, fdr=0.2)
    assert ids(app) == expected.ids and state_of(app).param("fdr") == "0.2"
    assert job_of(app, "anomalies") is first
    assert {"n", "fdr", "list", "normals"} <= set(state_of(app).link())


@pytest.mark.parametrize("fdr", [0.01, 0.1, 0.3])
def test_tiers_are_those_of_the_library(app_path, fdr):
    import anomaly_lists
    import anomaly_reasons

    q = np.array([0, 0.01, 0.0999, 0.1, 0.3, 0.5, 0.51, 1, np.nan])
    assert [anomaly_lists.tier(one, fdr) for one in q] == novelty.tiers(q, fdr=fdr).tolist()
    assert tuple(anomaly_reasons.DETECTORS) == novelty.NAMES
    assert (anomaly_reasons.OF_VECTORS, anomaly_reasons.OF_CLASSES) == (novelty.OF_VECTORS, novelty.OF_CLASSES)


@pytest.mark.slow
def test_where_nothing_can_be_convincing_the_least_rate_is_said(page, planted):
    app = look(page("anomalies", planted, query={"terms": [], "where": "object_id < 'g0300'"}, listed="search"))
    found = job_of(app, "anomalies").result
    expected = opened(planted).anomalies(200, where="object_id < 'g0300'")
    assert found.tested == expected.tested == 300 and found.q_values.tolist() == sorted(expected.q_values)
    app.button_group(key="anomalies_list_first").set_value("candidates").run()
    assert not app.exception and not galleries(app)
    assert "none is a candidate at a false discovery rate of 0.1" in text_of(app)
    few = look(page("anomalies", planted, normals="object_id < 'g0060'", query={"terms": [], "where": "ra = 10"}))
    least = job_of(few, "anomalies").result
    assert least.least_q == pytest.approx(least.tested / (least.normals + 1) / len(least.table))


@pytest.mark.slow
def test_the_result_stays_on_other_pages_and_says_when_settings_changed(page, planted):
    app = look(page("anomalies", planted, normals=NORMALS))
    before = ids(app)
    app.run()
    assert ids(app) == before and "settings before" not in text_of(app)
    app.text_input(key="anomalies_normals").set_value("object_id < 'g0500'").run()
    assert ids(app) == before and "settings before" in text_of(app)
    look(app)
    assert "settings before" not in text_of(app)
    assert set(ids(app)) >= set(ODD_IDS)


@pytest.mark.slow
def test_odd_among_a_part_with_classes_and_the_command_that_gives_the_same(page, planted, run):
    app = look(page("anomalies", planted, among="kind = 'barred'", labels="only"))
    assert job_of(app, "anomalies").result.about["among"] == "kind = 'barred'"
    rows = opened(planted).anomalies(24, among="kind = 'barred'")
    assert ids(app) == rows.ids and "labels" not in job_of(app, "anomalies").result.about  # "only" has a single value
    command = next(one.value for one in app.code if "galsearch anomalies" in one.value)
    code, out, _ = run(*shlex.split(command)[1:], "--format", "json")
    assert code == 0 and [row["object_id"] for row in json.loads(out)["rows"]] == rows.ids
    app = look(page("anomalies", planted, labels="kind", normals=NORMALS))
    assert ids(app) == opened(planted).anomalies(24, labels="kind", normals=NORMALS).ids


@pytest.mark.slow
def test_values_are_chosen_into_the_condition(page, planted):
    app = page("anomalies", planted)
    pills = next(one for one in app.get("button_group") if one.label == "kind")
    pills.set_value(["barred"]).run()
    assert state_of(app).param("among") == "kind IN ('barred')" or "barred" in state_of(app).param("among")
    assert app.text_input(key="anomalies_among").value == state_of(app).param("among")


# ---- why


def test_why_an_object_is_odd(page, planted):
    app = look(page("anomalies", planted, normals=NORMALS, selected=ODD_IDS[0]))
    one = next(one for one in opened(planted).anomalies(24, normals=NORMALS) if one.object_id == ODD_IDS[0])
    import anomaly_reasons

    drawn = " ".join(str(part.proto.body) for part in app.get("html"))
    order = [drawn.index(anomaly_reasons.DETECTORS[name]) for name in one.surprise]
    assert order == sorted(order) and f"{next(iter(one.surprise.values())):.1f}" in drawn
    text = text_of(app)
    assert all(name in text for name in one.nearest) and all(column in text for column in one.columns)
    app.button(key="close").click().run()
    assert state_of(app).selected is None and "Surprise by detector" not in text_of(app)


@pytest.mark.slow
def test_pictures_are_drawn_marked_added_and_saved(page, tiny_bundle, tmp_path):
    own = Path(shutil.copy(tiny_bundle, tmp_path / "own.duckdb"))
    app = look(page("anomalies", own, n="3", pixels="off"))
    expected = opened(own).anomalies(3, detectors=novelty.OF_VECTORS)
    assert ids(app) == expected.ids and all(one["src"].startswith("data:image/") for one in tiles(app))
    app.button(key="anomalies_add").click().run()
    assert list(state_of(app).sets.members("Marked")) == expected.ids
    from views import anomalies

    found = job_of(app, "anomalies").result
    rows = found.listed("first", 3, 0.1)
    assert rows.column_names == expected.table.column_names
    for suffix in anomalies.FILES:
        assert len(galsearch.table_bytes(rows, suffix, meta=found.about)) > 100
    where = anomalies.where_of(expected.ids)
    assert set(opened(own).search(where=where, k=10).ids) == set(expected.ids)
    assert anomalies.where_of([f"{number:030d}" for number in range(1_000)]) is None


@pytest.mark.slow
def test_of_spectra_alone_sketches_are_drawn(page, spectra):
    app = look(page("anomalies", spectra, n="3"))
    assert ids(app)[0] == "strange"
    assert all(one["src"].startswith("data:image/svg") and one["alt"].startswith("Spectrum") for one in tiles(app))
    assert not [one for one in app.toggle if one.label == "Image quality"]


@pytest.mark.slow
def test_the_embedding_is_chosen_where_there_are_several(page, two_bundle):
    app = look(page("anomalies", two_bundle, by="spectrum", n="5"))
    assert ids(app) == opened(two_bundle).anomalies(5, by="spectrum").ids
    assert page("anomalies", two_bundle, by="x").selectbox[0].value == "image"


# ---- lists that were kept


def test_a_saved_list_is_shown_for_another_rate_and_nothing_is_judged(page, saved):
    path, runs = saved
    app = page("anomalies", path, source="saved", run=runs[1], fdr="0.05", list="candidates")
    table = opened(path).saved_anomalies(runs[1], fdr=0.05)
    assert ids(app) == table.filter([one == "candidate" for one in table["tier"].to_pylist()])["object_id"].to_pylist()
    assert f"{len(table)} objects were judged beside" in text_of(app) and job_of(app, "anomalies") is None
    next(one for one in app.select_slider if one.label == "False discovery rate").set_value(0.3).run()
    more = opened(path).saved_anomalies(runs[1], fdr=0.3)["tier"].to_pylist().count("candidate")
    assert f"{more} are candidates at a false discovery rate of 0.3" in text_of(app) and len(ids(app)) == more
    box = next(one for one in app.selectbox if one.label == "List")
    box.set_value(runs[0]).run()
    last = opened(path).saved_anomalies(budget=1)["run"][0].as_py()  # which is not said, as it is the first choice
    assert state_of(app).param("run", last) == runs[0] and f"{ROWS} objects were judged" in text_of(app)
    assert "detectors: mahalanobis" in text_of(app)
    q = table["q_value"].to_pylist()
    app = page("anomalies", path, source="saved", run=runs[1], n="50")
    assert f"Of the 50 listed up to {50 * q[49]:.0f} (" in text_of(app) and "e+" not in text_of(app)


@pytest.mark.slow
def test_beyond_the_kept_reasons_a_saved_list_says_so(page, saved):
    path, runs = saved
    table = opened(path).saved_anomalies(runs[0])
    names = table["object_id"].to_pylist()
    app = page("anomalies", path, source="saved", run=runs[0], selected=names[0])
    assert "Oddest by mahalanobis" in text_of(app).replace("*", "") and "Normals most like it" in text_of(app)
    app = page("anomalies", path, source="saved", run=runs[0], selected=names[10])
    assert "Reasons were kept for the first" in text_of(app)


@pytest.mark.slow
def test_a_damaged_saved_list_is_one_message_and_new_ones_are_made(page, saved, tmp_path):
    import duckdb

    path = Path(shutil.copy(saved[0], tmp_path / "bent.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE anomalies DROP COLUMN detector")
    app = page("anomalies", path, source="saved")
    assert "has no column 'detector'" in text_of(app)
    assert look(page("anomalies", path, normals=NORMALS)).session_state["offered"]


# ---- no answer


def test_without_vectors_the_page_is_offered_for_saved_lists_alone(app_path, monkeypatch):
    from types import SimpleNamespace

    from views import anomalies

    for tables, expected in (({"galaxies"}, False), ({"galaxies", "anomalies"}, True)):
        monkeypatch.setattr(anomalies.inside, "tables", lambda _, held=tables: held)
        assert anomalies.needs(SimpleNamespace(manifest=SimpleNamespace(embeddings={}))) is expected


def test_too_few_objects_is_said_and_the_list_before_stays(page, planted):
    app = look(page("anomalies", planted, normals=NORMALS))
    before = ids(app)
    app.text_input(key="anomalies_normals").set_value("object_id < 'g0010'").run()
    look(app)
    assert "10 known normals have a vector in" in text_of(app) and "at least 40 are needed" in text_of(app)
    assert ids(app) == before


@pytest.mark.slow
def test_stopped_work_leaves_the_list(page, planted, monkeypatch):
    import time

    from views import anomalies

    app = look(page("anomalies", planted, normals=NORMALS))
    before = ids(app)

    def endless(*asked):
        while True:
            asked[-1](1, 5, "judging")
            time.sleep(0.05)

    monkeypatch.setattr(anomalies, "look", endless)
    app.button(key="anomalies_start").click().run()
    assert ids(app) == before and not [one for one in app.button if one.key == "anomalies_start"]
    app.button(key="stop_anomalies").click().run()
    finish(app, "anomalies")
    assert "Stopped" in text_of(app) and ids(app) == before


@pytest.mark.parametrize("condition", ["no_such = 1", "true) OR (true", "1; DROP TABLE galaxies", "'"])
@pytest.mark.slow
def test_a_bad_condition_keeps_the_answer_with_the_message(page, planted, condition):
    app = look(page("anomalies", planted, normals=NORMALS))
    before, found = ids(app), job_of(app, "anomalies")
    app.text_input(key="anomalies_normals").set_value(condition).run()
    assert not app.exception and app.error and ids(app) == before
    assert state_of(app).param("normals") == NORMALS
    app.button(key="anomalies_start").click().run()  # what counts is the last valid one
    assert job_of(app, "anomalies") is not found and not app.exception


@pytest.mark.slow
def test_a_bad_condition_in_a_link_is_said_and_nothing_starts(page, planted):
    app = page("anomalies", planted, among="no_such = 1")
    assert "Not counted" in text_of(app)
    app.button(key="anomalies_start").click().run()
    assert app.error and "no_such" in text_of(app) and job_of(app, "anomalies") is None


NONSENSE = ["<b>x</b>", "-1", "nan", "a\0b", "9" * 400]


@pytest.mark.slow
@pytest.mark.parametrize("said", NONSENSE)
def test_nonsense_in_the_url_is_passed_over(page, saved, said):
    names = ("by", "labels", "listed", "pixels", "n", "fdr", "list", "part", "run")
    for source in ("saved", said):
        app = page("anomalies", saved[0], **dict.fromkeys(names, said), source=source)
        assert not app.exception and not app.error
    app = page("anomalies", saved[0], **dict.fromkeys(names, said), source="saved")
    assert len(ids(app)) == 24


# ---- strangers


@pytest.mark.slow
def test_in_a_public_place_the_size_is_bounded_and_busy_is_said(page, planted, monkeypatch):
    import contextlib

    from views import anomalies

    monkeypatch.setattr(anomalies, "MOST_POPULATION", 500)
    app = page("anomalies", planted)
    app.button(key="anomalies_start").click().run()
    assert "the population has 600 objects, and at most 500 are compared here" in text_of(app)
    assert job_of(app, "anomalies") is None
    app.text_input(key="anomalies_among").set_value("object_id < 'g0400'").run()
    assert len(ids(look(app))) == 24

    @contextlib.contextmanager
    def refused(line="search"):
        raise galsearch.BusyError("this session asked 60 times within a minute")
        yield

    before = ids(app)
    monkeypatch.setattr(anomalies.limits, "turn", refused)
    app.button(key="anomalies_start").click().run()
    assert "asked 60 times" in text_of(app) and ids(app) == before


@pytest.mark.slow
def test_texts_of_a_hostile_atlas_are_text(page, hostile_path):
    app = look(page("anomalies", hostile_path, pixels="off"))
    app.session_state["state"].selected = ids(app)[0]
    app.run()
    assert not app.exception and not app.error
    drawn = " ".join(str(one.value) for one in [*app.markdown, *app.header, *app.caption])
    live = re.sub(r"\\.", "", drawn)  # without the signs that are escaped
    assert "](https" not in live and "<script" not in live and "[x](" not in live
    assert "<script" not in " ".join(str(part.proto.body) for part in app.get("html"))
    assert ODD and len(ids(app)) == 24
