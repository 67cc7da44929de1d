"""The pages Map, Evaluate, Captions, Build and About without a browser: what is counted, selected, written, refused."""

import base64
import io
import json
import os
import shutil
import sys
import threading
from functools import partial
from pathlib import Path

import duckdb
import hostile_app
import numpy as np
import pytest
import tiny
from fake_vlm import Server
from PIL import Image

import galsearch
from galsearch.science.familiarity import Familiarity

pytest.importorskip("streamlit", reason="the app needs streamlit")
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parent.parent / "streamlit_app"
SLOW_MACHINE = 60  # seconds that one run may take
TARGETS = """
version = "1"
title = "tiny"
prevalences = [0.1]
[[target]]
name = "near"
queries = ["red edge", "green face"]
candidates = "z IS NOT NULL"
relevant = "z < 0.05"
"""


@pytest.fixture
def app_path(monkeypatch, packages_read_once):
    monkeypatch.syspath_prepend(str(APP))


@pytest.fixture
def page(app_path):
    """Draw one page alone; a test can only switch between pages that are scripts."""

    def run(name: str, path: Path, *, public: bool = False, where: str | None = None, words: str | None = None, **url):
        def script(name, path, asked, url, *, public):
            from importlib import import_module

            import limits
            import streamlit as st
            from state import of_session

            import galsearch

            limits.PUBLIC = public
            if "atlas" not in st.session_state:
                st.session_state.atlas = galsearch.open(path)
            state = of_session(st.session_state.atlas)
            if state._at != name:
                state._at = name
                state._params[name] = dict(url)
                terms = (galsearch.Term("text", asked["words"]),) if asked["words"] else ()
                state.change(where=asked["where"], terms=terms)
            import_module(f"views.{name}").show(state)

        asked = {"words": words, "where": where}
        arguments = {"name": name, "path": path, "asked": asked, "url": url, "public": public}
        app = AppTest.from_function(script, kwargs=arguments, default_timeout=SLOW_MACHINE).run()
        assert not app.exception, app.exception
        return app

    import streamlit

    streamlit.cache_data.clear()  # tests change atlases behind the app's back
    yield run
    sys.modules.get("limits", type("", (), {})).PUBLIC = False


HOSTILE = {
    name: link
    for name, link in hostile_app.LINKS.items()
    if link[0] in ("map", "captions", "evaluate", "rerank", "sql")
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_link_to_a_page_is_answered(page, tiny_bundle, name):
    view, url = HOSTILE[name]
    query = url.get("query")
    app = page(view, tiny_bundle, **({} if query else url))
    assert not app.exception
    if query:
        state_of(app)._take(url)
        app.run()
        # the page alone is drawn here: what `app.draw` says in words is what it raises
        assert all(one.proto.type.endswith("QueryError") for one in app.exception)


@pytest.fixture(scope="module")
def tiny_atlas(tiny_bundle):
    """The tiny bundle, opened by the test itself."""
    with galsearch.open(tiny_bundle) as opened:
        yield opened


def said(app: AppTest) -> str:
    parts = [*app.markdown, *app.info, *app.warning, *app.error, *app.success, *app.caption]
    return " ".join(str(element.value) for element in parts).replace("\\", "")


def state_of(app: AppTest):
    return app.session_state["state"]


# ---- counting


@pytest.fixture
def density(app_path):
    from drawing import density

    return density


def shades(url: str) -> np.ndarray:
    """Return the opacity of a data URL's picture."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))[:, :, 1]


def test_bins_hold_what_numpy_counts(density, tiny_atlas):
    axes = density.Axes("columns", '"z"', '"mag_r"', "z", "mag_r")
    window, bins = density.Window(0.02003, 0.18007, 14.003, 20.007), (8, 5)
    found = tiny_atlas.sql(axes.counts_sql(window, bins, "mass > 1e10"))
    counts = density.grid(*(found[name].to_numpy() for name in "ijn"), bins)
    rows = tiny_atlas.sql("SELECT z, mag_r FROM galaxies WHERE mass > 1e10 AND z IS NOT NULL").to_pydict()
    truth, _, _ = np.histogram2d(rows["mag_r"], rows["z"], bins=(5, 8), range=((14.003, 20.007), (0.02003, 0.18007)))
    assert (counts == truth[::-1]).all() and counts.sum() > 50


def test_the_picture_is_clear_where_nothing_is_and_darker_where_more_is(density):
    found = shades(density.picture(np.array([[0, 1], [10, 100]])))
    assert found[0, 0] == 0 < found[0, 1] < found[1, 0] < found[1, 1] == 255
    assert (shades(density.picture(np.array([[0, 5]]), flip_x=True)) == [[255, 0]]).all()
    assert (shades(density.picture(np.zeros((2, 3), int))) == 0).all()


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "2,1,0,1", "a,b,c,d", "nan,1,0,1", "0,inf,0,1", "1); DROP TABLE x,1,1,1"]
)
def test_a_window_that_is_none_is_refused(density, text):
    assert density.Window.of_text(text) is None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.5, 0.5), (13.2, 21.9), (1e9, 3e12), (189.10, 189.14), (5, 5)])
def test_ticks_are_few_round_and_inside(density, low, high):
    found = density.ticks(low, high)
    assert (len(found) == 0) == (low == high) and len(found) <= 8
    for value, text in found:
        assert low - 1e-9 <= value <= high + 1e-9 and float(text) == pytest.approx(value)
    assert len({text for _, text in found}) == len(found)


def test_a_box_drawn_and_its_window_are_the_same_rectangle(app_path, density):
    from drawing import plot

    for flipped in (False, True):
        frame = plot.Frame(density.Window(10.0, 20.0, -5.0, 5.0), flipped)
        window = density.Window(12.0, 13.0, -1.0, 4.0)
        assert vars(frame.window_of(frame.box(window))) == pytest.approx(vars(window))
        assert frame.at(20.0, 5.0) == ((0.0, 0.0) if flipped else (1.0, 0.0))


# ---- the sphere


def positions(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    dec[:50] = 90 - rng.uniform(0, 1e-3, 50)
    dec[50:100] = -dec[:50]
    return ra, dec


def test_cells_count_what_lies_in_them(app_path):
    from drawing import sphere

    ra, dec = positions(20_000)
    cells = sphere.cell_of(ra, dec, order=2)
    assert set(cells) == set(range(12 * 4**2))
    assert len(set(sphere.cell_of(np.array([10.0, 370.0]), np.array([41.0, 41.0]), order=9))) == 1
    assert sphere.width_deg(0) == pytest.approx(np.degrees(np.sqrt(4 * np.pi / 12)))
    assert np.bincount(cells).std() < 3 * np.sqrt(np.bincount(cells).mean())  # equal areas


def test_a_coverage_map_is_read_by_mocpy(app_path):
    from drawing import sphere
    from mocpy import MOC

    cells = np.unique(np.concatenate([np.arange(64, 144), [5, 7, 12 * 4**4 - 1]]))
    written = sphere.moc(cells, order=4)
    assert set(json.loads(written)) >= {"1", "2", "4"}
    assert (np.sort(MOC.from_string(written, "json").flatten()) == cells).all()


def test_the_projection_is_undone_and_keeps_areas(app_path):
    from drawing import sphere

    ra, dec = positions(2_000)
    x, y = sphere.project(ra, dec, center=180.0)
    back_ra, back_dec, inside = sphere.unproject(x, y, center=180.0)
    far = np.abs(dec) < 89.5
    assert inside[far].all()
    np.testing.assert_allclose(back_ra[far], ra[far], atol=1e-4)
    np.testing.assert_allclose(back_dec[far], dec[far], atol=1e-4)
    _, sky_dec, shown = sphere.sky_of_pixels(400, 200, center=0.0)
    assert shown.mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert np.mean(sky_dec > 30) == pytest.approx(0.25, abs=0.01)  # a cap above 30 degrees is a quarter of the sphere


def test_a_box_on_the_sky_finds_its_window(app_path):
    from drawing import sphere

    x, y = sphere.project(np.array([170.0, 190.0]), np.array([-10.0, 10.0]), center=180.0)
    box = {"x0": min(x), "x1": max(x), "y0": min(y), "y1": max(y)}
    window = sphere.window_of(box, center=180.0, about=180.0)
    assert (window.y0, window.y1) == pytest.approx((-10.0, 10.0), abs=0.01)
    assert window.x0 <= 170.0 and window.x1 >= 190.0
    assert sphere.window_of({"x0": 0.0, "x1": 0.01, "y0": 0.0, "y1": 0.01}, center=180.0, about=180.0) is None


# ---- Map


def brush(app: AppTest, name: str, window) -> None:
    """Select as the plot's callback does."""
    state_of(app).set_param("brush", f"{name}:{window.text()}")
    app.run()
    assert not app.exception


def test_the_map_shows_every_plot_that_the_atlas_has_something_for(page, tiny_path):
    app = page("map", tiny_path)
    assert [head.value for head in app.header] == ["Similarity map", "Scatter plot", "Whole sky", "Sky"]
    assert "300 galaxies" in said(app).replace("*", "")


@pytest.mark.slow
def test_a_part_of_the_map_becomes_a_cut(page, tiny_bundle, tiny_atlas, density):
    app = page("map", tiny_bundle)
    brush(app, "plane", density.Window(0.0, 0.5, -0.6, 0.6))
    inside = tiny_atlas.sql("SELECT count(*) AS n FROM map_image WHERE x BETWEEN 0 AND 0.5 AND y BETWEEN -0.6 AND 0.6")
    count = inside["n"][0].as_py()
    assert 0 < count < 300 and f"**{count}** galaxies in the selection" in said(app)
    app.button(key="map_keep").click().run()
    assert tiny_atlas.count(state_of(app).query.where) == count
    assert state_of(app).param("brush") == ""
    assert f"**{count}** galaxies" in said(app)


@pytest.mark.slow
def test_a_selection_joins_the_cut_that_is_there(page, tiny_bundle, tiny_atlas, density):
    app = page("map", tiny_bundle, where="survey = 'd''Or' OR z < 0.1", x="z", y="mag_r", log="-")
    brush(app, "columns", density.Window(0.0, 0.15, 15.0, 19.0))
    app.button(key="map_keep").click().run()
    where = state_of(app).query.where
    names = state_of(app).atlas.search(where=where, k=300).ids
    rows = tiny_atlas.rows(names).to_pylist()
    assert rows and all(row["survey"] == "d'Or" or row["z"] < 0.1 for row in rows)
    assert all(row["z"] <= 0.15 and 15 <= row["mag_r"] <= 19 for row in rows)


@pytest.mark.slow
def test_the_sql_of_a_selection_gives_the_selection(page, tiny_bundle, tiny_atlas, density):
    app = page("map", tiny_bundle, brush="sky:-0.3,0.3,9,11")
    found = tiny_atlas.sql(app.code[0].value)
    truth = tiny_atlas.sql("SELECT object_id FROM galaxies WHERE dec BETWEEN 9 AND 11 AND (ra < 0.3 OR ra > 359.7)")
    assert set(found["object_id"].to_pylist()) == set(truth["object_id"].to_pylist())
    assert len(found) == len(truth) > 30


@pytest.mark.slow
def test_another_column_is_plotted_and_kept_in_the_link(page, tiny_bundle):
    app = page("map", tiny_bundle, x="z", y="mass", log="y")
    boxes = {box.label: box for box in app.selectbox}
    assert boxes["x axis"].value == "z" and boxes["y axis"].value == "mass"
    boxes["x axis"].select("mag_r").run()
    assert not app.exception
    assert state_of(app).param("x") == "mag_r"


def test_a_line_is_drawn_where_it_crosses_the_window(app_path, density):
    from drawing.plot import Frame
    from views.map import straight_line

    ((left, right),) = straight_line(Frame(density.Window(0.0, 1.0, 0.0, 1.0)), -0.5, 0.75)
    assert np.allclose([left, right], [[0, 0.25], [1, 0.75]])  # y counts from above
    ((left, right),) = straight_line(Frame(density.Window(0.0, 1.0, 0.0, 0.5)), -0.5, 0.75)
    assert np.allclose([left, right], [[0.5, 0], [1, 0.5]])
    assert straight_line(Frame(density.Window(0.0, 1.0, 5.0, 6.0)), -0.5, 0.75) is None


@pytest.mark.slow
def test_gini_against_m20_has_the_line_between_mergers_and_others(page, tmp_path):
    columns = {"object_id": ["a", "b", "c"], "m20": [-2.5, -1.5, -0.5], "gini": [0.4, 0.5, 0.7]}
    table = tiny.parquet(tmp_path / "rows.parquet", **columns, vec=[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    galsearch.build(tmp_path / "g.atlas", table=table, vectors="vec", model="mine")
    bundle = galsearch.bundle(tmp_path / "g.atlas", tmp_path / "g.duckdb")
    app = page("map", bundle, x="m20", y="gini")
    assert not app.exception and any("0.14" in one.value for one in app.caption)
    other = page("map", bundle, x="gini", y="m20")
    assert not other.exception and not any("0.14" in one.value for one in other.caption)


def test_a_selection_is_written_in_numbers_that_sliders_read_back(app_path, density):
    import cuts

    window = density.Window(0.0123456789, 0.15, 15.004, 19.0)
    where = density.Axes("columns", "z", "mag_r", "z", "mag_r").cut(window)
    assert where == "z BETWEEN 0.01235 AND 0.15 AND mag_r BETWEEN 15.004 AND 19"
    joined = cuts.added("survey = 'north'", where)
    assert joined == f"survey = 'north' AND {where}"
    assert cuts.range_of(joined, "z") == (0.01235, 0.15) and cuts.range_of(joined, "mag_r") == (15.004, 19.0)
    logarithm = density.Axes("columns", "z", "log10(mass)", "z", "log mass", logs=(None, "mass")).cut(
        density.Window(0, 0.1, 9.5, 11.0)
    )
    assert cuts.range_of(logarithm, "mass") == (pytest.approx(10**9.5, rel=0.01), 1e11)


@pytest.mark.parametrize(
    ("low", "high", "where"),
    [
        (189.1, 189.2, "ra BETWEEN 189.1 AND 189.2"),
        (-0.3, 0.3, "(ra >= 359.7 OR ra <= 0.3)"),
        (359.9, 360.2, "(ra >= 359.9 OR ra <= 0.2)"),
        (-180.0, 180.0, "dec BETWEEN 9 AND 11"),
    ],
)
def test_a_selection_on_the_sky_is_a_range_of_right_ascension(density, low, high, where):
    axes = density.Axes("sky", "x", "dec", "ra", "dec", flip_x=True, turned=True)
    cut = axes.cut(density.Window(low, high, 9.0, 11.0))
    assert cut.startswith(where) and cut.endswith("dec BETWEEN 9 AND 11")


@pytest.mark.slow
def test_axes_are_linear_until_somebody_wants_logarithms(page, tiny_bundle):
    app = page("map", tiny_bundle)
    assert {box.label: box.value for box in app.selectbox}["x axis"] == "brightness"
    assert [toggle.value for toggle in app.toggle if toggle.label == "log"] == [False, False]


@pytest.mark.parametrize(
    "url",
    [
        {"x": "nope"},
        {"brush": "plane:1"},
        {"brush": "x:0,1,0,1"},
        {"zoom_plane": "?"},
        {"zoom_plane": "-1e308,1e308,0,1"},
    ],
)
def test_what_a_link_gets_wrong_is_passed_over(page, tiny_bundle, url):
    assert "300" in said(page("map", tiny_bundle, **url))


@pytest.mark.slow
def test_hits_are_points_of_every_plot(page, tiny_bundle, tiny_atlas):
    import json

    app = page("map", tiny_bundle, words="red edge")
    drawn = [json.loads(part.proto.json) for part in app.get("bidi_component")]
    best = tiny_atlas.search("red edge", k=24, distinct=True).ids[0]
    plane = next(one for one in drawn if one["label"].startswith("Similarity map"))
    assert plane["points"][-1]["id"] == best  # drawn last, on top
    assert all(0 <= point["x"] <= 1 and 0 <= point["y"] <= 1 for one in drawn for point in one["points"])
    assert plane["points"][-1]["src"].startswith("data:image/")


@pytest.mark.slow
def test_an_atlas_without_a_map_says_how_to_get_one(page, bundle_path):
    with duckdb.connect(bundle_path) as connection:
        connection.execute("DROP TABLE map_image")
    assert "galsearch bundle" in said(page("map", bundle_path))


@pytest.mark.slow
def test_an_atlas_without_positions_has_no_sky(page, bundle_path):
    with duckdb.connect(bundle_path) as connection:
        connection.execute("UPDATE galaxies SET ra = NULL, dec = NULL")
    app = page("map", bundle_path)
    assert [head.value for head in app.header] == ["Similarity map", "Scatter plot"]


@pytest.mark.slow
def test_an_empty_selection_says_so(page, tiny_bundle):
    assert "Nothing lies in the selection" in said(page("map", tiny_bundle, brush="plane:50,51,50,51"))


@pytest.mark.slow
def test_the_coverage_counts_the_cells_that_hold_something(page, tiny_bundle):
    app = page("map", tiny_bundle)
    app.selectbox(key="map_moc_order").select(4).run()
    assert not app.exception
    assert "square degrees" in said(app)


# ---- Evaluate


@pytest.fixture(scope="module")
def judged_folder(tiny_folder, tmp_path_factory):
    """A folder with two runs of one configuration and one of another."""
    home = tmp_path_factory.mktemp("judged")
    path = Path(shutil.copytree(tiny_folder, home / "tiny.atlas"))
    targets = tiny.write(home / "targets.toml", TARGETS)
    galsearch.evaluate(path, targets=targets, store=True)
    galsearch.evaluate(path, targets=targets, where="mag_r < 19", store=True)
    return path


def test_without_a_run_the_page_says_how_to_make_one(page, tiny_bundle):
    assert "galsearch evaluate ATLAS --store" in said(page("evaluate", tiny_bundle))


@pytest.mark.slow
def test_a_kept_run_is_shown_with_its_figures(page, judged_folder):
    app = page("evaluate", judged_folder)
    assert len(app.selectbox(key=next(b.key for b in app.selectbox if b.label == "Run")).options) == 2
    table = app.dataframe[-1].value if "ndcg_exp_10" in app.dataframe[-1].value else app.dataframe[0].value
    with galsearch.open(judged_folder) as atlas:
        rows = atlas.sql("SELECT ndcg_exp_10 FROM evaluations WHERE asked_prevalence IS NULL AND system = 'text'")
    assert any(np.isclose(table["ndcg_exp_10"], value).any() for value in rows["ndcg_exp_10"].to_pylist())


@pytest.mark.slow
def test_the_plot_has_the_ends_of_the_intervals(app_path, judged_folder):
    from views import evaluate

    with galsearch.open(judged_folder) as atlas:
        rows = evaluate.at_prevalence(atlas.sql("FROM evaluations"), "10 %")
        points = evaluate.points_of(rows, ["text", "random"], "ndcg_exp_10", interval=True)
    assert {point["system"] for point in points} == {"text", "random"}
    text = [point for point in points if point["system"] == "text"]
    assert all(point["low"] <= point["value"] <= point["high"] for point in text)
    drawn = evaluate.chart(points, "nDCG@10").to_dict()
    assert len(drawn["layer"]) == 2 and "near by text" in evaluate.in_words(text, "nDCG@10")


@pytest.mark.slow
def test_two_runs_are_compared_and_differing_ones_are_said_to_differ(page, judged_folder):
    with galsearch.open(judged_folder) as atlas:
        runs = atlas.sql("SELECT DISTINCT run FROM evaluations ORDER BY run")["run"].to_pylist()
    app = page("evaluate", judged_folder, run=runs[0], beside=runs[1])
    assert "may not be of the same sets" in said(app)


def job_of(app: AppTest, name: str):
    """Return the job of a page, which is kept beside the session."""
    import jobs

    return jobs.kept().get(state_of(app).jobs, name)


def finish(app: AppTest, name: str) -> AppTest:
    """Wait for a job, then draw the page again."""
    job = job_of(app, name)
    job.wait(SLOW_MACHINE)
    assert job.state != "running"
    app.run()
    assert not app.exception
    return app


@pytest.mark.slow
def test_a_run_of_ones_own_gives_the_figures_of_the_library(page, tiny_bundle, tmp_path):
    app = page("evaluate", tiny_bundle)
    app.file_uploader(key="evaluate_targets").set_value(("t.toml", TARGETS.encode(), "application/toml")).run()
    app.button(key="evaluate_start").click().run()
    finish(app, "evaluate")
    expected = galsearch.evaluate(tiny_bundle, targets=tiny.write(tmp_path / "t.toml", TARGETS))
    got = job_of(app, "evaluate").result.evaluation
    assert got.table.drop(["run", "created"]).equals(expected.table.drop(["run", "created"]))
    assert set(job_of(app, "evaluate").result.sheets) == {"near"}
    assert "Results of this run" in " ".join(head.value for head in app.header)


def test_targets_that_are_none_are_an_error_in_words(page, tiny_bundle):
    app = page("evaluate", tiny_bundle)
    app.file_uploader(key="evaluate_targets").set_value(("t.toml", b"version = 1", "application/toml")).run()
    app.button(key="evaluate_start").click().run()
    finish(app, "evaluate")
    assert "[[target]]" in said(app)


def test_a_public_place_measures_nothing(page, tiny_bundle):
    app = page("evaluate", tiny_bundle, public=True)
    assert not app.button


# ---- Captions


def test_a_bundle_is_not_written_to(page, tiny_bundle):
    app = page("captions", tiny_bundle)
    assert "a bundle is never changed" in said(app) and not app.button


def test_a_public_place_takes_no_key(page, folder_path):
    app = page("captions", folder_path, public=True)
    assert "takes no keys" in said(app) and not app.text_input and not app.button


@pytest.mark.slow
def test_captions_by_rules_land_in_the_folder(page, folder_path):
    app = page("captions", folder_path, where="z < 0.1")
    app.button(key="captions_write").click().run()
    finish(app, "captions")
    with galsearch.open(folder_path) as atlas:
        written = atlas.sql("SELECT count(*) AS n FROM captions")["n"][0].as_py()
        outside = atlas.sql("SELECT count(*) AS n FROM captions JOIN galaxies USING (object_id) WHERE NOT z < 0.1")
    assert 0 < written == job_of(app, "captions").result.captions
    assert outside["n"][0].as_py() == 0
    assert f"{written} captions by measurements" in said(app)


@pytest.mark.slow
def test_what_there_is_says_who_wrote_it(page, folder_path):
    done = galsearch.caption(folder_path)
    app = page("captions", folder_path)
    shown = app.dataframe[0].value
    assert list(shown["model"]) == ["measurements-1"] and list(shown["captions"]) == [done.captions]
    before = said(app)
    app.button(key="captions_more").click().run()
    assert said(app) != before


KEY = "sk-not-a-key-5f2c"


@pytest.fixture
def asked_model(page, folder_path):
    """The page, filled in for a fake vision model, before anything is sent; and the model."""
    with Server() as fake:
        app = page("captions", folder_path, where="object_id < '1237650000000000008'")
        app.segmented_control(key="captions_writer").set_value("vlm").run()
        app.text_input(key="captions_model").set_value("llava")
        app.text_input(key="captions_address").set_value(fake.url)
        app.text_input(key="captions_key").set_value(KEY)
        app.number_input(key="captions_price_in").set_value(1.0)
        app.number_input(key="captions_price_out").set_value(2.0).run()
        assert not app.exception
        yield app, fake, folder_path


@pytest.mark.slow
def test_the_cost_is_told_before_anything_is_sent(asked_model):
    app, fake, path = asked_model
    row = galsearch.estimate_captions(
        path, where="object_id < '1237650000000000008'", model="llava", price_in=1.0, price_out=2.0
    ).to_pylist()[0]
    assert f"{row['usd']:.2f} US dollars" in app.checkbox[0].label
    assert app.button(key="captions_start").disabled and not fake.asked


@pytest.mark.slow
def test_a_vision_model_writes_captions_and_the_key_stays_nowhere(asked_model):
    app, fake, path = asked_model
    app.checkbox[0].check().run()
    app.button(key="captions_start").click().run()
    finish(app, "captions")
    assert job_of(app, "captions").state == "done", job_of(app, "captions").error
    assert fake.asked and all(asked.key.endswith(KEY) for asked in fake.asked)
    with galsearch.open(path) as atlas:
        assert set(atlas.sql("SELECT model FROM captions")["model"].to_pylist()) == {"llava"}
    assert KEY not in str(dict(os.environ))
    assert KEY not in said(app) and KEY not in str(state_of(app).permalink())
    for file in path.parent.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


@pytest.mark.slow
def test_a_model_without_a_price_cannot_be_held_to_a_limit(page, folder_path):
    app = page("captions", folder_path)
    app.segmented_control(key="captions_writer").set_value("vlm").run()
    app.text_input(key="captions_model").set_value("nobody-knows-1").run()
    assert "no limit can be held" in said(app)


# ---- jobs


@pytest.fixture
def jobs(app_path):
    import jobs

    return jobs


def test_a_job_stops_at_its_next_step_and_may_put_things_away(jobs):
    steps, put_away, begun = [], [], threading.Event()

    def work(progress):
        try:
            for number in range(1_000_000):
                steps.append(number)
                begun.set()
                progress(number, 1_000_000, "counting")
        except BaseException:
            progress(0, 0, "putting away")  # which must not raise again
            put_away.append(True)
            raise

    job = jobs.Job("counting", work)
    begun.wait(SLOW_MACHINE)
    job.stop()
    job.wait(SLOW_MACHINE)
    assert job.state == "stopped" and put_away == [True] and len(steps) < 1_000_000


def test_a_job_says_what_went_wrong(jobs):
    def work(progress):
        raise galsearch.QueryError("value, rule, remedy")

    job = jobs.Job("failing", work)
    job.wait(SLOW_MACHINE)
    assert (job.state, job.error) == ("failed", "value, rule, remedy")


def test_jobs_wait_in_line_and_stop_while_they_wait(jobs):
    line, go = threading.Semaphore(1), threading.Event()
    first = jobs.Job("first", lambda progress: go.wait(SLOW_MACHINE), line=line)
    second = jobs.Job("second", lambda progress: "done", line=line)
    third = jobs.Job("third", lambda progress: "done", line=line)
    assert second.what.startswith("waiting")
    third.stop()
    third.wait(SLOW_MACHINE)
    assert (third.state, second.state) == ("stopped", "running")
    go.set()
    for job in (first, second):
        job.wait(SLOW_MACHINE)
    assert (first.state, second.state, second.result) == ("done", "done", "done")


def test_jobs_are_dropped_after_their_time_and_no_more_are_taken_than_fit(jobs, monkeypatch):
    import limits

    kept = jobs.Kept()
    kept.start("a", "build", "one", lambda progress: 1).wait(SLOW_MACHINE)
    assert kept.get("a", "build").result == 1 and kept.get("b", "build") is None and kept.get(None, "build") is None
    monkeypatch.setattr(jobs, "KEPT_SECONDS", 0.0)
    kept.start("b", "build", "two", lambda progress: 2)
    assert kept.get("a", "build") is None
    monkeypatch.setattr(jobs, "KEPT_SECONDS", 1e9)
    monkeypatch.setattr(jobs, "MOST_KEPT", 1)
    with pytest.raises(limits.Busy):
        kept.start("c", "build", "three", lambda progress: 3)


@pytest.mark.slow
def test_an_evaluation_tells_how_far_it_is_stops_and_survives_a_reload(page, tiny_bundle, monkeypatch):
    steps, go = [], threading.Event()

    def evaluate(path, *, progress, **asked):
        steps.append("begun")
        progress(3, 10, "near: intervals")
        go.wait(SLOW_MACHINE)
        progress(4, 10, "near: baselines")
        steps.append("not stopped")

    monkeypatch.setattr(galsearch, "evaluate", evaluate, raising=False)
    app = page("evaluate", tiny_bundle)
    app.button(key="evaluate_start").click().run()
    session = state_of(app).jobs
    again = page("evaluate", tiny_bundle, jobs=session)
    state_of(again).jobs = session
    again.run()
    job = job_of(again, "evaluate")
    assert job is job_of(app, "evaluate") and job.state == "running"
    again.button(key="stop_evaluate").click().run()
    go.set()
    job.wait(SLOW_MACHINE)
    again.run()
    assert job.state == "stopped" and steps == ["begun"]
    assert "Stopped" in said(again)


@pytest.mark.slow
def test_evaluate_tells_each_target_and_stores_nothing_when_stopped(judged_folder, tmp_path):
    told = []

    def progress(done, total, what):
        told.append((done, total, what))
        if "intervals" in what:
            raise KeyboardInterrupt

    targets = tiny.write(tmp_path / "t.toml", TARGETS)
    with galsearch.open(judged_folder) as atlas:
        before = atlas.sql("SELECT count(DISTINCT run) AS n FROM evaluations")["n"][0].as_py()
    with pytest.raises(KeyboardInterrupt):
        galsearch.evaluate(judged_folder, targets=targets, store=True, progress=progress)
    assert told[0] == (0, 1, "near: candidates")
    with galsearch.open(judged_folder) as atlas:
        assert atlas.sql("SELECT count(DISTINCT run) AS n FROM evaluations")["n"][0].as_py() == before


# ---- Build


def picture_files(rows: range) -> list[tuple[str, bytes, str]]:
    found = []
    for row in rows:
        file = io.BytesIO()
        Image.fromarray(tiny.draw(row)).save(file, format="PNG")
        found.append((f"g{row}.png", file.getvalue(), "image/png"))
    return found


@pytest.fixture
def models(monkeypatch, tiny_models):
    """Let builds use the tiny models, as if they shipped."""
    monkeypatch.setattr(galsearch, "build", partial(galsearch.build, models=tiny_models), raising=False)


@pytest.mark.slow
def test_dropped_pictures_and_a_table_become_a_bundle(page, tiny_bundle, models):
    app = page("build", tiny_bundle)
    app.file_uploader(key="build_pictures").set_value(
        [*picture_files(range(8)), ("bad.png", b"no picture", "image/png")]
    )
    table = b"object_id,z\n" + b"".join(b"g%d,0.0%d\n" % (row, row) for row in range(8))
    app.file_uploader(key="build_table").set_value(("t.csv", table, "text/csv"))
    app.text_input(key="build_title").set_value("Eight").run()
    app.button(key="build_start").click().run()
    finish(app, "build")
    job = job_of(app, "build")
    assert job.state == "done", job.error
    with galsearch.open(job.result.bundle) as atlas:
        assert len(atlas) == 8 and atlas.manifest.title == "Eight"
        assert atlas["g3"].z == pytest.approx(0.03)
        assert not [found for found in atlas.check() if not found.ok]
    assert "8 galaxies" in said(app) and app.header[-1].value == "1 left out"
    app.button(key="build_open").click().run()
    assert app.session_state["opened"] == str(job.result.bundle)


def test_a_folder_that_is_not_there_is_an_error_in_words(page, tiny_bundle, tmp_path):
    app = page("build", tiny_bundle)
    app.segmented_control(key="build_way").set_value("A folder on this machine").run()
    app.text_input(key="build_folder").set_value(str(tmp_path / "nowhere")).run()
    app.button(key="build_start").click().run()
    finish(app, "build")
    assert "no such folder" in said(app)


@pytest.mark.slow
def test_a_folder_is_built_where_it_is_to_be_kept(page, tiny_bundle, tiny_source, tmp_path, models):
    app = page("build", tiny_bundle)
    app.segmented_control(key="build_way").set_value("A folder on this machine").run()
    app.text_input(key="build_folder").set_value(str(tiny_source[0]))
    app.text_input(key="build_keep").set_value(str(tmp_path / "kept.atlas")).run()
    app.button(key="build_start").click().run()
    finish(app, "build")
    assert (tmp_path / "kept.atlas").is_dir() and (tmp_path / "kept.duckdb").is_file()


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\x.png", "/a/b.png", ".hidden", ""])
def test_the_name_of_an_upload_leads_nowhere_else(app_path, name, tmp_path):
    from views import build

    found = build.put([type("Upload", (), {"name": name, "getvalue": lambda self: b"x"})()] * 2, tmp_path / "in")
    files = sorted(found.iterdir())
    assert len(files) == 2 and all(file.resolve().parent == found.resolve() for file in files)


def test_a_public_place_builds_nothing(page, tiny_bundle):
    app = page("build", tiny_bundle, public=True)
    assert "Nothing is built here" in said(app) and not app.button and not app.get("file_uploader")


# ---- About


def test_about_tells_whom_to_credit_and_what_the_models_are(page, tiny_path):
    app = page("about", tiny_path)
    told = said(app)
    assert "drawn by tests/tiny.py" in told and "MIT" in told
    assert {expander.label.replace("\\", "").partition(":")[0] for expander in app.expander} >= {"image", "text"}
    assert "galsearch.atlas" in told and state_of(app).hash in told


def test_about_tells_how_far_the_objects_are_from_what_the_model_learned_from(page, tiny_path, monkeypatch):
    assert "learned from" not in said(page("about", tiny_path))  # its card does not say
    far = Familiarity("some-model", median=7.4, rare=0.31, objects=300, held_out=2_000)
    monkeypatch.setattr(galsearch.Atlas, "familiarity", lambda self, by=None: far)
    told = said(page("about", tiny_path))
    assert "the median object is at percentile 7" in told and "look at hits before you believe their scores" in told


def test_about_tells_no_path_of_the_maker(page, tiny_bundle, tiny_source):
    app = page("about", tiny_bundle)
    tables = " ".join(frame.value.to_csv() for frame in app.dataframe)
    assert str(tiny_source[0]) not in tables and str(tiny_source[0].parent) not in said(app)


@pytest.mark.slow
def test_an_atlas_without_sources_says_so(page, tmp_path, tiny_models):
    folder = tmp_path / "p"
    folder.mkdir()
    Image.fromarray(tiny.draw(0)).save(folder / "a.png")
    galsearch.build(tmp_path / "a.atlas", images=folder, models=tiny_models)
    assert "does not say where" in said(page("about", tmp_path / "a.atlas"))


# ---- Re-rank


def test_a_second_look_needs_a_question(page, tiny_bundle):
    assert "Search for something first" in said(page("rerank", tiny_bundle))


@pytest.mark.slow
def test_a_second_look_gives_what_the_library_gives(page, tiny_bundle, tiny_atlas):
    app = page("rerank", tiny_bundle, words="red edge-on galaxy")
    app.button(key="rerank_start").click().run()
    finish(app, "rerank")
    job = job_of(app, "rerank")
    assert job.state == "done", job.error
    query = galsearch.Query((galsearch.Term("text", "red edge-on galaxy"),), k=24, distinct=True)
    expected = tiny_atlas.search(query).rerank("local", n=50)
    assert job.result.ids == expected.ids
    assert "hits again" in said(app)
    state_of(app).change(terms=(galsearch.Term("text", "blue ring"),))
    app.run()
    assert "hits again" not in said(app)  # that was another question


@pytest.mark.slow
def test_marks_of_a_collection_are_examples(page, tiny_bundle, tiny_atlas):
    app = page("rerank", tiny_bundle, public=True, words="galaxy")
    good, bad = ([tiny.object_id(row) for row in range(first, 40, 4)] for first in (0, 1))
    state = state_of(app)
    for ids, mark in ((good, "true"), (bad, "false")):
        state.sets.mark("mine", ids, mark)
    app.run()
    app.selectbox(key="rerank_set").select("mine").run()
    app.button(key="rerank_start").click().run()
    finish(app, "rerank")
    report = job_of(app, "rerank").result.reranked
    assert report.right_after >= report.right_before
    assert "pairs of marks" in said(app)


def test_a_public_place_asks_no_model_to_rerank(page, tiny_bundle):
    app = page("rerank", tiny_bundle, public=True, words="galaxy")
    assert app.segmented_control(key="rerank_way").options == ["local"] and not app.text_input


# ---- an object without a picture


@pytest.mark.slow
def test_the_picture_of_a_survey_is_fetched_when_asked_for_and_in_public_never(page, tmp_path, monkeypatch):
    columns = {"object_id": ["a", "b", "c"], "ra": [10.0, 20.0, 30.0], "dec": [2.0, 3.0, 4.0]}
    table = tiny.parquet(tmp_path / "rows.parquet", **columns, vec=[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    galsearch.build(tmp_path / "g.atlas", table=table, vectors="vec", model="mine")
    bundle = galsearch.bundle(tmp_path / "g.atlas", tmp_path / "g.duckdb")
    fetched = []

    def answer(self, object_id):
        fetched.append(object_id)
        return galsearch.SurveyPicture(b"\xff\xd8\xff", ".jpg", "hips", "survey.example", 40.0)

    monkeypatch.setattr(galsearch.Atlas, "survey_picture", answer)
    app = page("object", bundle, where="object_id = 'b'")
    (button,) = [one for one in app.button if "Legacy Surveys" in one.label]
    assert fetched == []
    button.click().run()
    assert fetched == ["b"] and "survey.example" in " ".join(str(one.value) for one in app.caption)
    public = page("object", bundle, public=True, where="object_id = 'b'")
    assert not [one for one in public.button if "Legacy Surveys" in one.label]
