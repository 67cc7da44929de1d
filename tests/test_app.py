"""The app's logic without a browser: what is asked, what the URL holds, and what is said when something is wrong."""

import contextlib
import io
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import hostile_app
import numpy as np
import pytest
import tiny
from PIL import Image
from test_query_code import QUERIES

import galsearch
from galsearch import schema

pytest.importorskip("streamlit", reason="the app needs streamlit")
import streamlit as st
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parent.parent / "streamlit_app"
SLOW_MACHINE = 30  # seconds that one run may take


@pytest.fixture
def start(monkeypatch, tiny_bundle, packages_read_once):
    """Start the app on an atlas, at a URL; the tiny bundle, which stays open meanwhile, unless told otherwise."""
    monkeypatch.syspath_prepend(str(APP))
    import jobs
    import limits
    import state

    for cache in (st.cache_data, jobs.kept, limits._turns, state._kept_sets):
        cache.clear()

    def run(path: Path | None = tiny_bundle, **url: str) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["app.py", *([str(path)] if path else [])])
        app = AppTest.from_file(str(APP / "app.py"), default_timeout=SLOW_MACHINE)
        app.query_params.update(url)
        return app.run()

    return run


@pytest.fixture(scope="module")
def tiny_atlas(tiny_bundle):
    """The tiny bundle, opened by the test itself."""
    with galsearch.open(tiny_bundle) as opened:
        yield opened


def asked(app: AppTest) -> galsearch.Query:
    assert not app.exception
    return app.session_state["state"].query


def ids(app: AppTest) -> list[str]:
    """Return what the app's answer holds."""
    assert not app.exception
    return app.session_state["state"].hits().ids


def found(atlas, what=None, **options) -> list[str]:
    """Return what the library finds when asked as the app asks."""
    return atlas.search(what, k=24, distinct=True, **options).ids


def text_of(elements) -> str:
    return " ".join(str(element.value) for element in elements).replace("\\", "")


def test_the_first_page_lists_galaxies(start):
    app = start()
    assert ids(app) == [tiny.object_id(row) for row in range(24)]
    assert "First 24 of 300, sorted by ID" in text_of(app.markdown)
    assert dict(app.query_params) == {}


@pytest.mark.slow
def test_words_find_what_the_library_finds(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value("red edge-on galaxy").run()
    assert ids(app) == found(tiny_atlas, "red edge-on galaxy")
    app.text_input(key="words").set_value("").run()
    assert ids(app) == tiny_atlas.search(k=24).ids


def test_an_example_fills_the_box_and_searches(start, tiny_atlas):
    app = start()
    app.pills(key="example").select("ring galaxy").run()
    assert app.text_input(key="words").value == "ring galaxy"
    assert ids(app) == found(tiny_atlas, "ring galaxy")


@pytest.mark.slow
def test_minus_words_and_their_weight(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    app.text_input(key="extra").set_value("edge")
    app.button(key="minus").click().run()
    weight = next(box for box in app.number_input if box.label == "edge")
    assert weight.value == -0.5
    weight.set_value(-2.0).run()
    terms = (galsearch.Term("text", "red galaxy"), galsearch.Term("text", "edge", -2.0))
    assert ids(app) == tiny_atlas.search(galsearch.Query(terms, k=24, distinct=True)).ids
    assert "red galaxy − 2 × edge" in text_of(app.markdown)
    next(box for box in app.number_input if box.label == "edge").set_value(0.0).run()
    assert ids(app) == found(tiny_atlas, "red galaxy")


@pytest.mark.slow
def test_an_id_among_the_terms_is_an_object(start):
    app = start()
    app.text_input(key="extra").set_value(tiny.object_id(5))
    app.button(key="plus").click().run()
    assert asked(app).terms == (galsearch.Term("object", tiny.object_id(5)),)
    assert tiny.object_id(5) not in ids(app)


@pytest.mark.slow
def test_terms_that_cancel_out_are_an_error_in_words(start):
    app = start()
    app.text_input(key="words").set_value("red").run()
    app.text_input(key="extra").set_value("red")
    app.button(key="minus").click().run()
    next(box for box in app.number_input if box.label == "red").set_value(-1.0).run()
    assert not app.exception
    assert "cancel out" in text_of(app.error)


@pytest.mark.slow
def test_a_cut_keeps_what_passes(start, tiny_atlas):
    app = start()
    app.text_input(key="where").set_value("z < 0.05").run()
    assert ids(app) == tiny_atlas.search(where="z < 0.05", k=24).ids
    assert f"{tiny_atlas.count('z < 0.05')} of 300 objects pass" in text_of(app.caption)


@pytest.mark.parametrize(
    "where", ["nope < 1", "z <", "1=1; DROP TABLE galaxies", "z IN (SELECT a FROM read_csv('/x'))"]
)
def test_a_bad_cut_is_explained_and_changes_nothing(start, where):
    app = start()
    before = ids(app)
    app.text_input(key="where").set_value(where).run()
    assert len(app.error) == 1
    assert app.text_input(key="where").value == where
    assert ids(app) == before
    assert asked(app).where is None


@pytest.mark.slow
def test_an_empty_answer_says_why_and_offers_the_way_out(start):
    app = start()
    app.text_input(key="where").set_value("z > 9").run()
    assert ids(app) == []
    assert "No object passes the filter" in text_of(app.info)
    app.button(key="uncut").click().run()
    assert len(ids(app)) == 24


@pytest.mark.slow
def test_a_cone_across_ra_zero(start, tiny_atlas):
    app = start()
    app.number_input(key="radius_arcsec").set_value(600.0)
    app.text_input(key="near").set_value("00:00:00 +10:00:00").run()
    assert ids(app) == tiny_atlas.search(near=(0.0, 10.0), radius_arcsec=600.0, k=24).ids != []
    app.text_input(key="near").set_value("somewhere").run()
    assert "somewhere" in text_of(app.error)


@pytest.mark.slow
def test_an_empty_cone_says_so(start):
    app = start()
    app.number_input(key="radius_arcsec").set_value(0.01)
    app.text_input(key="near").set_value("200 45").run()
    assert "No object lies within" in text_of(app.info)
    app.button(key="uncone").click().run()
    assert len(ids(app)) == 24


@pytest.mark.slow
def test_a_link_restores_everything(start):
    app = start()
    app.text_input(key="words").set_value("blue ring").run()
    app.text_input(key="where").set_value("mag_r < 20").run()
    app.number_input(key="k").set_value(100).run()
    app.button(key="next_page").click().run()
    assert app.session_state["state"].page == 1
    again = start(**app.query_params)
    assert ids(again) == ids(app)
    assert again.text_input(key="words").value == "blue ring"
    assert again.text_input(key="where").value == "mag_r < 20"
    assert again.session_state["state"].page == 1


@pytest.mark.slow
def test_a_link_to_another_atlas_is_announced(start):
    assert "another atlas" in text_of(start(atlas="00000000").warning)


@pytest.mark.parametrize("query", ["", "{", "[1]", '{"terms": [], "near": null, "k": 0}', '{"terms": 3, "near": null}'])
def test_a_broken_link_is_announced_and_lists(start, query):
    app = start(query=query, page="x", view="?")
    assert "could not be read" in text_of(app.warning)
    assert len(ids(app)) == 24


def test_a_link_cannot_make_the_server_read_a_file(start):
    app = start(query=galsearch.Query((galsearch.Term("image", "/etc/hostname"),)).to_json())
    assert "names a file" in text_of(app.warning)
    assert asked(app).terms == ()


def test_an_object_shows_all_its_columns_with_units(start):
    app = start(object=tiny.object_id(3))
    facts = " ".join(element.proto.body for element in app.get("html"))
    for part in ("mass", "solMass", "Stellar mass", tiny.object_id(3)):
        assert part in facts
    app.button(key="close").click().run()
    assert app.session_state["state"].selected is None


@pytest.mark.slow
def test_an_unknown_object_in_the_link_is_an_error_in_words(start):
    app = start(object="nobody")
    assert "no object 'nobody'" in text_of(app.error)
    assert len(ids(app)) == 24


@pytest.mark.slow
def test_more_like_this_and_minus_this(start, tiny_atlas):
    app = start(object=tiny.object_id(1))
    app.button(key="like").click().run()
    assert ids(app) == found(tiny_atlas, tiny_atlas[tiny.object_id(1)])
    app.session_state["state"].selected = tiny.object_id(2)
    app.run()
    app.button(key="Minus this").click().run()
    assert [term.weight for term in asked(app).terms] == [1.0, -0.5]


@pytest.mark.slow
def test_an_uploaded_picture_becomes_a_vector(start, tiny_atlas, tmp_path):
    file = io.BytesIO()
    Image.fromarray(tiny.draw(1)).save(file, format="PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    app = start()
    app.file_uploader(key="upload").set_value(("a.png", file.getvalue(), "image/png")).run()
    assert ids(app)[:4] == found(tiny_atlas, tmp_path / "a.png")[:4]
    assert ids(start(**app.query_params)) == ids(app)


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_explained(start):
    app = start()
    app.file_uploader(key="upload").set_value(("empty.jpg", b"", "image/jpeg")).run()
    assert not app.exception
    assert text_of(app.error).startswith("empty.jpg")


@pytest.mark.slow
def test_a_page_holds_sixty(start):
    app = start()
    app.number_input(key="k").set_value(130).run()
    assert "page 1 of 3" in text_of(app.caption)
    assert json.loads(app.get("bidi_component")[0].proto.json)["tiles"][-1]["id"] == tiny.object_id(59)


@pytest.mark.slow
def test_the_table_shows_units(start):
    app = start(view="Table")
    assert not app.exception
    shown = [list(element.value.columns) for element in app.dataframe]
    assert any({"object_id", "mass", "(image)"} <= set(names) for names in shown)


def test_without_an_atlas_it_says_how_to_start(start):
    assert "make demo" in text_of(start(None).info)


def test_a_damaged_atlas_is_an_error_in_words(start, bundle_path):
    bundle_path.write_bytes(bundle_path.read_bytes()[:5000])
    app = start(bundle_path)
    assert not app.exception
    assert f"{bundle_path.name}: cannot be read as a galsearch atlas" in text_of(app.error)
    assert str(bundle_path.parent) not in text_of(app.error)  # whoever looks at a page need not know the folder


@pytest.mark.slow
def test_the_atlas_may_stand_in_the_environment(start, monkeypatch, tiny_bundle):
    monkeypatch.setenv("GALSEARCH_ATLAS", str(tiny_bundle))
    assert len(ids(start(None))) == 24


@pytest.fixture
def page(monkeypatch, tiny_bundle, tmp_path):
    """Draw one page alone, on a copy of the tiny bundle: a test can only switch between pages that are scripts."""
    monkeypatch.syspath_prepend(str(APP))
    copy = tmp_path / "alone" / "tiny.duckdb"
    copy.parent.mkdir()
    copy.write_bytes(tiny_bundle.read_bytes())
    atlas = galsearch.open(copy)

    def script(atlas, name, selected):
        from importlib import import_module

        import streamlit as st
        from state import of_session

        state = of_session(atlas)
        if "chosen_once" not in st.session_state:
            st.session_state.chosen_once = True
            state.selected = selected
        import_module(f"views.{name}").show(state)

    def draw(name: str, *, selected: str | None = None) -> AppTest:
        arguments = {"atlas": atlas, "name": name, "selected": selected}
        return AppTest.from_function(script, kwargs=arguments, default_timeout=SLOW_MACHINE).run()

    yield draw
    atlas.close()


@pytest.fixture
def sql_page(page):
    """The SQL page."""
    return page("sql")


def test_every_page_is_offered(start):
    offered = [link.proto.label for link in start().get("page_link")]
    assert offered[:2] == ["Search", "Object"]
    assert {"SQL", "Collections"} <= set(offered)


def test_the_sql_page_answers_with_pictures(sql_page):
    assert not sql_page.exception
    sql_page.text_area(key="sql").set_value("SELECT object_id, z FROM galaxies ORDER BY object_id LIMIT 3").run()
    shown = sql_page.dataframe[-1].value
    assert list(shown["object_id"]) == [tiny.object_id(row) for row in range(3)]
    assert all(picture.startswith("data:image/webp;base64,") for picture in shown["(image)"])


@pytest.mark.parametrize("statement", ["SELECT nope FROM galaxies", "DROP TABLE galaxies", "", "SELECT 1; SELECT 2"])
def test_bad_sql_is_an_error_in_words(sql_page, statement):
    sql_page.text_area(key="sql").set_value(statement).run()
    assert not sql_page.exception
    assert len(sql_page.error) == 1


@pytest.mark.slow
def test_sql_with_a_column_twice_or_no_rows_is_shown(sql_page):
    sql_page.text_area(key="sql").set_value("SELECT a.*, b.* FROM galaxies a JOIN galaxies b USING (object_id)").run()
    assert not sql_page.exception
    sql_page.text_area(key="sql").set_value("FROM galaxies WHERE z > 9").run()
    assert "returned no rows" in text_of(sql_page.info)


@pytest.mark.parametrize("place", range(5))
def test_every_example_statement_runs(sql_page, place):
    sql_page.pills(key="sql_example").set_value(sql_page.pills(key="sql_example").options[place]).run()
    assert not sql_page.exception and not sql_page.error


@pytest.mark.slow
def test_a_statement_that_gives_too_many_rows_is_cut_off_and_says_so(sql_page, monkeypatch):
    import limits

    monkeypatch.setattr(limits, "SQL_ROWS", 100)
    sql_page.text_area(key="sql").set_value("SELECT object_id FROM galaxies;").run()
    assert "more than 100 rows" in text_of(sql_page.warning)
    assert "100 rows" in text_of(sql_page.caption)


def test_what_leaves_the_brackets_of_the_row_limit_is_refused(sql_page):
    sql_page.text_area(key="sql").set_value("SELECT 1) UNION ALL SELECT z FROM (FROM galaxies").run()
    assert not sql_page.exception
    assert len(sql_page.error) == 1


@pytest.mark.slow
def test_the_tables_and_their_columns_are_listed(sql_page):
    options = sql_page.selectbox(key="sql_table").options
    assert options[0] == "galaxies (300 rows)"
    listed = sql_page.dataframe[0].value
    assert dict(zip(listed["column"], listed["unit"], strict=True))["mass"] == "solMass"


@pytest.mark.parametrize("form", ["Points", "Histogram", "Bars"])
def test_every_quick_plot_draws(sql_page, form):
    sql_page.text_area(key="sql").set_value("SELECT z, mag_r, survey FROM galaxies").run()
    sql_page.selectbox(key="plot_form").set_value(form).run()
    assert not sql_page.exception
    drawn = json.loads(sql_page.get("vega_lite_chart")[0].proto.spec)
    mark = drawn["mark"]
    assert (mark["type"] if isinstance(mark, dict) else mark) == ("circle" if form == "Points" else "bar")


# ---- cuts beside the answer


@pytest.fixture
def cuts(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import cuts

    return cuts


def test_a_column_whose_name_is_a_word_of_sql_can_be_asked(cuts):
    import duckdb

    with duckdb.connect() as connection:
        for (word,) in connection.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall():
            name = cuts.name(word)
            asked = (
                f'SELECT {name} AS v, approx_count_distinct({name}) FROM (SELECT 1 AS "{word}") '
                f"WHERE {name} < 2 AND NOT {name} IS NULL GROUP BY ALL"
            )
            assert connection.execute(asked).fetchall() == [(1, 1)], word
            assert cuts.range_of(cuts.with_range(None, word, 1, 2), word) == (1, 2)


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        (None, []),
        ("  ", []),
        ("z < 0.1", ["z < 0.1"]),
        ("z < 0.1 AND mag_r > 3", ["z < 0.1", "mag_r > 3"]),
        ("z BETWEEN 1 AND 2 and x=1", ["z BETWEEN 1 AND 2", "x=1"]),
        ("(a OR b) AND c", ["(a OR b)", "c"]),
        ("a OR b AND c", ["a OR b AND c"]),
        ("survey = ' AND ' AND z < 1", ["survey = ' AND '", "z < 1"]),
        ("CASE WHEN a AND b THEN c END AND d", ["CASE WHEN a AND b THEN c END", "d"]),
        ("a -- AND b", ["a -- AND b"]),
    ],
)
def test_a_condition_is_split_only_where_and_joins_it(cuts, where, parts):
    assert cuts.clauses(where) == parts


@pytest.mark.parametrize("where", [None, "survey = 'north'", "z < 0.1 OR mag_r < 15", "mag_r < 16 -- bright"])
@pytest.mark.parametrize(("low", "high"), [(0.05, 0.15), (0.05, None), (None, 0.15)])
def test_a_slider_keeps_what_it_says_and_what_was_typed(cuts, tiny_atlas, where, low, high):
    made = cuts.with_range(where, "z", low, high)
    table = tiny_atlas.sql(f"SELECT z FROM galaxies WHERE {where or 'true'}\n")
    kept = [z for z in table["z"].to_pylist() if z is not None and (low or 0) <= z <= (high or 9)]
    assert tiny_atlas.count(made) == len(kept)
    assert cuts.range_of(made, "z") == (low, high)
    moved = cuts.with_range(made, "z", None, None)
    assert tiny_atlas.count(moved) == tiny_atlas.count(where)


@pytest.mark.parametrize("values", [["north"], ["d'Or", "south"], []])
def test_choices_keep_their_values_whatever_their_signs(cuts, tiny_atlas, values):
    made = cuts.with_values("z < 0.15", "survey", values)
    surveys = tiny_atlas.sql("SELECT survey FROM galaxies WHERE z < 0.15")["survey"].to_pylist()
    assert tiny_atlas.count(made) == sum(not values or one in values for one in surveys)
    assert cuts.values_of(made, "survey") == values


def test_truths_are_written_plainly(cuts):
    assert cuts.with_values(None, "is_star", [False]) == "NOT is_star"
    assert cuts.values_of("NOT is_star", "is_star") == [False]
    assert cuts.with_values("NOT is_star", "is_star", [True, False]) is None
    assert cuts.with_range(None, "Mag R", 1, None) == '"Mag R" >= 1'


def test_a_slider_cuts_and_the_box_shows_it(start, tiny_atlas):
    app = start()
    slider = app.slider(key="range_mag_r")
    slider.set_range(15.0, slider.value[1]).run()
    assert asked(app).where == app.text_input(key="where").value
    low = float(asked(app).where.split(">=")[1])
    assert abs(low - 15) < 0.1
    assert ids(app) == found(tiny_atlas, where=f"mag_r >= {low}")


@pytest.mark.slow
def test_a_typed_cut_moves_the_slider(start):
    app = start()
    app.text_input(key="where").set_value("mag_r < 16").run()
    assert app.slider(key="range_mag_r").value[1] == 16


@pytest.mark.slow
def test_choices_count_what_is_left_under_the_other_cuts(start, tiny_atlas):
    app = start()
    app.text_input(key="where").set_value("z < 0.1").run()
    app.pills(key="choice_survey").select("north").run()
    assert asked(app).where == "z < 0.1 AND survey IN ('north')"
    options = app.pills(key="choice_survey").options
    for survey in ("north", "south"):
        many = tiny_atlas.count(f"z < 0.1 AND survey = '{survey}'")
        assert f"{survey} · {many}" in options
    app.pills(key="choice_survey").unselect("north").run()
    assert asked(app).where == "z < 0.1"


@pytest.mark.slow
def test_a_column_that_is_not_shown_can_be_added_and_stays_in_the_link(start):
    app = start()
    more = app.selectbox(key="more_columns").options[0]
    app.selectbox(key="more_columns").set_value(more).run()
    assert app.slider(key=f"range_{more}")
    assert start(**app.query_params).slider(key=f"range_{more}")


def test_histograms_count_every_row_in_its_span(start, tiny_atlas, monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import columns
    from state import State

    state = State(tiny_atlas)
    z = next(one for one in columns.numbers(state.hash, state) if one.name == "z")
    drawn = columns.histogram(state.hash, "z", z.low, z.high, "mag_r < 17", state)
    assert sum(drawn) == tiny_atlas.count(f"mag_r < 17 AND z BETWEEN {z.low!r} AND {z.high!r}")


# ---- understanding, refining


@pytest.mark.slow
def test_words_that_mean_a_cut_offer_it_and_taking_it_moves_them_into_the_box(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value("red galaxy with z < 0.1 without a ring").run()
    reading = tiny_atlas.understand("red galaxy with z < 0.1 without a ring")
    assert ids(app) == found(tiny_atlas, "red galaxy with z < 0.1 without a ring")  # nothing is applied by itself
    app.pills(key="meaning").select("o0").run()
    assert asked(app).where == app.text_input(key="where").value == reading.offers[0].sql
    assert asked(app).terms == reading.query(reading.offers[0]).terms
    app.pills(key="meaning").select("away").run()
    assert asked(app).terms[-1] == galsearch.Term("text", "ring", -0.5)
    assert asked(app).where == reading.offers[0].sql


@pytest.mark.slow
def test_a_refinement_is_added_with_its_weight(start):
    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    chip = app.session_state["state"].hits().refinements()[0]
    app.pills(key="refine").select(0).run()
    assert asked(app).terms[-1] == chip.term()


# ---- the answer


@pytest.mark.slow
def test_show_more_fills_the_page_and_goes_on_to_the_next(start):
    app = start()
    app.button(key="load_more").click().run()
    assert (len(ids(app)), app.session_state["state"].page) == (60, 0)
    app.button(key="load_more").click().run()
    assert (len(ids(app)), app.session_state["state"].page) == (120, 1)
    assert "page 2 of 2" in text_of(app.caption)


def tiles(app: AppTest, place: int = 0) -> dict:
    return json.loads(app.get("bidi_component")[place].proto.json)


@pytest.mark.slow
def test_copies_are_collapsed_and_counted(start):
    app = start()
    app.text_input(key="words").set_value("green face").run()
    assert any(tile.get("copies") == "2 copies" for tile in tiles(app)["tiles"])
    app.toggle(key="distinct").set_value(False).run()
    assert not any("copies" in tile for tile in tiles(app)["tiles"])


@pytest.mark.slow
def test_tiles_say_how_unusual_a_score_is(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value("red edge-on galaxy").run()
    hits = tiny_atlas.search("red edge-on galaxy", k=24, distinct=True)
    top = 100 - float(hits.percentiles[0])
    assert tiles(app)["tiles"][0]["rank"] == f"best {max(top, 0.1):.2g} % of this atlas"
    assert tiles(app)["tiles"][0]["score"] == f"{hits[0].score:.3f}"
    assert tiles(app)["tiles"][0]["why"] == " · ".join(hits.reasons()[0])


@pytest.mark.slow
def test_the_line_stands_where_the_library_says(start, tiny_atlas):
    example = tiny_atlas[tiny.object_id(1)]
    convincing = tiny_atlas.search(example, k=100, distinct=True).convincing
    app = start()
    app.session_state["state"].change(terms=(galsearch.Term("object", tiny.object_id(1)),), k=100)
    app.run()
    expected = convincing if convincing is not None and convincing < 60 else None
    assert tiles(app)["line"] == expected


@pytest.mark.slow
def test_chosen_objects_become_a_question_or_a_cut(start):
    app = start()
    state = app.session_state["state"]
    for row in (3, 5):
        state.choose(tiny.object_id(row))
    app.run()
    assert "2 chosen" in text_of(app.markdown)
    app.button(key="only_chosen").click().run()
    assert ids(app) == [tiny.object_id(3), tiny.object_id(5)]
    state.choose(tiny.object_id(3))
    app.run()
    app.button(key="like_chosen").click().run()
    assert asked(app).terms == (galsearch.Term("object", tiny.object_id(3)),)


@pytest.mark.slow
def test_the_stages_of_an_answer_are_timed(start):
    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    said = text_of(app.caption)
    assert all(f"{stage} " in said for stage in ("embed", "search", "pictures"))


# ---- an object's page


def test_the_object_page_shows_neighbors_columns_and_reasons(page, tiny_atlas):
    app = page("object", selected=tiny.object_id(7))
    assert not app.exception
    facts = " ".join(element.proto.body for element in app.get("html"))
    assert "solMass" in facts and tiny.object_id(7) in facts
    near = tiny_atlas.search(tiny_atlas[tiny.object_id(7)], k=12).ids
    assert [tile["id"] for tile in tiles(app)["tiles"]] == near
    assert "legacysurvey.org" in text_of(app.markdown) and "simbad" in text_of(app.markdown)


def test_why_an_object_matched_adds_up_to_its_score(page, tiny_atlas, monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    from state import State
    from views import object as view

    state = State(tiny_atlas)
    state.query = galsearch.Query((galsearch.Term("text", "red"), galsearch.Term("text", "ring", -0.5)), k=5)
    hit = state.hits()[0]
    total = sum(part for _, part in view.contributions(state, hit))
    length = float(np.linalg.norm(tiny_atlas.embed("red") - 0.5 * tiny_atlas.embed("ring")))
    assert total / length == pytest.approx(hit.score, abs=1e-5)


@pytest.mark.slow
def test_an_object_says_which_others_are_the_same(page, tiny_atlas, monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    app = page("object", selected=tiny.object_id(0))
    copies = [row for row in range(1, tiny.ROWS) if tiny.is_copy(row) and tiny.cluster_of(row) == 0]
    assert all(tiny.object_id(row) in text_of(app.markdown) for row in copies)


@pytest.mark.slow
def test_an_unknown_object_on_its_page_is_an_error_in_words(page):
    app = page("object")
    app.text_input(key="object_id").set_value("nobody").run()
    assert [str(one.value) for one in app.exception] == [] or "nobody" in str(app.exception[0].value)


@pytest.fixture
def rendering(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import rendering

    return rendering


@pytest.mark.parametrize("stretch", ["linear", "square root", "asinh", "logarithm"])
def test_every_stretch_goes_from_black_to_white_in_order(rendering, stretch):
    ramp = np.arange(100.0).reshape(10, 10)
    ramp[3, 3] = np.nan
    shown = rendering.stretched(ramp, stretch=stretch, low=0, high=100)
    assert (shown[0, 0], shown[9, 9], shown[3, 3]) == (0, 255, 0)
    kept = np.delete(shown.ravel(), 33)
    assert (np.diff(kept.astype(int)) >= 0).all()


def test_colors_go_from_blue_over_white_to_red_and_missing_ones_are_gray(rendering):
    ramp = np.linspace(-1.0, 1.0, 400).reshape(20, 20)
    ramp[10, 10] = np.nan
    shown, low, high = rendering.in_colors(ramp)
    assert (low, high) == (pytest.approx(-0.96, abs=0.01), pytest.approx(0.96, abs=0.01))
    red, _, blue = (shown[..., band].astype(int) for band in range(3))
    assert blue[0, 0] > 200 > red[0, 0] and red[-1, -1] > 200 > blue[-1, -1] and min(shown[9, 19]) > 230
    assert set(shown[10, 10].tolist()) == {50}
    assert (rendering.in_colors(np.full((4, 4), np.nan))[0] == 50).all()


@pytest.mark.slow
def test_the_color_map_of_a_galaxy_is_drawn_with_its_legend(page):
    app = page("object", selected=tiny.object_id(7))
    app.button_group(key="band_red-green-blue").set_value("color map").run()
    assert not app.exception and any("mag (red), uncalibrated" in one.value for one in app.caption)


def test_bands_of_a_fits_file_come_by_their_names_red_first_north_up(rendering, tmp_path, monkeypatch):
    from astropy.io import fits

    cube = np.zeros((3, 4, 5), np.float32)
    cube[1, 0, 2] = 7.0  # the bottom row of a FITS picture is its first
    light = fits.PrimaryHDU(cube, fits.Header({"BANDS": "grz"}))
    fits.HDUList([light, fits.ImageHDU(np.ones((4, 5)), name="WHT")]).writeto(tmp_path / "a.fits.gz")
    monkeypatch.setenv("GALSEARCH_PICTURES", str(tmp_path))
    bands, for_the_eye = rendering.original_bands(rendering.original_file("a.fits.gz"))
    assert (list(bands), for_the_eye) == (["z", "r", "g"], False)  # a weight is no light
    assert bands["r"][3, 2] == 7.0


def test_a_picture_for_the_eye_stands_as_it_lies_in_its_file(rendering, tmp_path):
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[0, 2] = (255, 51, 0)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    bands, for_the_eye = rendering.original_bands(tmp_path / "a.tif")
    assert (list(bands), for_the_eye) == (["R", "G", "B"], True)
    assert [float(band[0, 2]) for band in bands.values()] == pytest.approx([1.0, 0.2, 0.0])


@pytest.mark.slow
def test_an_original_that_cannot_be_read_is_said_beside_the_thumbnail(page, tiny_atlas, tmp_path, monkeypatch):
    object_id = tiny.object_id(2)
    name = tiny_atlas[object_id].columns["file"]
    (tmp_path / name).write_bytes(b"no picture")
    monkeypatch.setenv("GALSEARCH_PICTURES", str(tmp_path))
    app = page("object", selected=object_id)
    assert text_of(app.error).startswith(f"{name}: it is not a picture that can be read")
    assert "stored thumbnail" in text_of(app.caption) and not app.exception
    Image.fromarray(tiny.draw(2)[:7, :9]).save(tmp_path / name, format="PNG")  # told by its content
    app.run()
    assert f"9 × 7 pixels, {name}" in text_of(app.caption) and not app.error


def test_a_large_picture_is_shrunk_to_what_a_page_shows(rendering):
    shown = Image.open(io.BytesIO(rendering.enlarged(np.zeros((40, 5000), np.uint8), 12, smooth=True)))
    assert shown.size == (rendering.MOST_PIXELS, 8)


def test_every_readable_picture_may_be_picked(rendering):
    assert {".jpg", ".tif", ".npy", ".fits", ".fts", ".bz2", ".fz", ".gz"} <= set(rendering.UPLOADS)
    assert all(suffix.endswith(tuple(rendering.UPLOADS)) for suffix in galsearch.PICTURE_SUFFIXES)


@pytest.mark.parametrize("name", ["../secret.fits", "/etc/passwd", "missing.fits", None, "a.txt", "\0.fits"])
def test_a_name_in_a_bundle_reads_nothing_outside_the_folder(rendering, tmp_path, monkeypatch, name):
    (tmp_path / "secret.fits").write_bytes(b"")
    (tmp_path / "in").mkdir()
    monkeypatch.setenv("GALSEARCH_PICTURES", str(tmp_path / "in"))
    assert rendering.original_file(name) is None


@pytest.mark.parametrize(
    ("high", "shown"), [(1.0, "%.4f"), (4e4, "%.0f"), (9e12, "%.0f"), (1e-12, "%.4g"), (2e3, "%.1f")]
)
def test_a_slider_writes_its_values_with_decimals_that_a_page_can_write(monkeypatch, high, shown):
    monkeypatch.syspath_prepend(str(APP))
    import columns

    assert columns.Number("a", "", "", 0.0, high, whole=False).format == shown


def test_example_filters_read_measures_where_the_manifest_says(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import filters

    held = {"is_star": "is_star_measured", "is_artifact": "is_artifact", "axis_ratio": 'a "b"'}
    manifest = schema.Manifest("t", 1, {}, extra={schema.MEASURES_KEY: held})
    there = {"is_star", "is_artifact", "is_star_measured", "axis_ratio", 'a "b"', "color_gr", "z"}
    assert filters.example_cuts(SimpleNamespace(manifest=manifest), there) == [
        "NOT is_star_measured AND NOT is_artifact",
        '"a ""b""" < 0.4',
        "z < 0.05",  # color_gr is a column of the user's: nothing was measured
    ]


# ---- collections


@pytest.fixture
def sets(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import sets

    return sets


def test_marks_and_notes_lie_beside_the_atlas_and_come_back(page, tiny_atlas):
    app = page("object", selected=tiny.object_id(2))
    app.pills(key=f"mark_{tiny.object_id(2)}").select("uncertain").run()
    app.text_input(key=f"note_{tiny.object_id(2)}").set_value("a bar? <b>maybe</b>").run()
    assert not app.exception and not app.error
    state = app.session_state["state"]
    file = state.atlas.path.with_name("tiny.collections.json")
    member = json.loads(file.read_text())["sets"]["Marked"]["members"][tiny.object_id(2)]
    assert (member["mark"], member["note"]) == ("uncertain", "a bar? <b>maybe</b>")
    again = page("collections")
    assert [tile["mark"] for tile in tiles(again)["tiles"]] == ["uncertain"]


def test_a_set_is_made_renamed_filtered_and_deleted(page):
    app = page("collections")
    assert "is empty" in text_of(app.info)
    app.text_input(key="new_name").set_value("Rings")
    app.button(key="make").click().run()
    state = app.session_state["state"]
    state.sets.mark("Rings", [tiny.object_id(1)], "true")
    state.sets.mark("Rings", [tiny.object_id(2), "gone-1"], "false")
    app.text_input(key="rename_to").set_value("Real rings").run()
    assert list(state.sets.all()) == ["Real rings"]
    assert "gone-1" in text_of(app.warning).replace("\\", "")
    app.button_group(key="mark_filter").set_value("true").run()
    assert [tile["id"] for tile in tiles(app)["tiles"]] == [tiny.object_id(1)]
    app.button(key="search_like").click().run()
    terms = {term.value: term.weight for term in state.query.terms}
    assert terms == {tiny.object_id(1): 1.0, tiny.object_id(2): -0.5}
    app.checkbox(key="sure").check().run()
    app.button(key="delete").click().run()
    assert list(state.sets.all()) == []


TABLE_FILES = (".csv", ".vot", ".fits", ".ecsv", ".parquet", ".json")


def read_table(content: bytes, suffix: str, folder: Path):
    """Return a table file as astropy reads it, or pyarrow and json where those do."""
    import pyarrow.parquet
    from astropy.table import Table

    file = folder / f"t{suffix}"
    file.write_bytes(content)
    if suffix == ".parquet":
        return Table(pyarrow.parquet.read_table(file).to_pydict())
    if suffix == ".json":
        return Table(json.loads(content)["rows"] if isinstance(json.loads(content), dict) else json.loads(content))
    kinds = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".fits": "fits"}
    return Table.read(file, format=kinds[suffix], **({"use_names_over_ids": True} if suffix == ".vot" else {}))


@pytest.mark.parametrize("suffix", TABLE_FILES)
def test_what_is_shown_of_a_collection_is_what_is_exported(page, tiny_atlas, tmp_path, suffix):
    from views import collections as view

    app = page("collections")
    state = app.session_state["state"]
    state.sets.mark("Marked", [tiny.object_id(4), tiny.object_id(6)], "true")
    state.sets.mark("Marked", [tiny.object_id(5)], "false")
    state.sets.note("Marked", tiny.object_id(4), 'with "quotes", and a comma')
    app.run()
    app.button_group(key="mark_filter").set_value("true").run()
    assert not app.exception
    assert "Export of the 2 objects shown" in text_of(app.caption)
    members = state.sets.members("Marked")
    shown = [name for name in members if members[name]["mark"] == "true"]
    table = read_table(view.as_file(state, members, shown, suffix), suffix, tmp_path)
    assert [str(name).strip() for name in table["object_id"]] == [tiny.object_id(4), tiny.object_id(6)]
    assert [str(mark).strip() for mark in table["mark"]] == ["yes", "yes"]
    assert str(table["note"][0]).strip() == 'with "quotes", and a comma'
    assert float(table["mass"][0]) == pytest.approx(tiny_atlas[tiny.object_id(4)].mass)


@pytest.mark.slow
def test_a_collection_keeps_members_that_the_atlas_has_not_and_columns_of_its_names(page, bundle_path):
    import duckdb
    from state import State
    from views import collections as view

    with duckdb.connect(str(bundle_path)) as connection:
        connection.execute("ALTER TABLE galaxies ADD COLUMN Mark VARCHAR DEFAULT 'theirs'")
    with galsearch.open(bundle_path) as atlas:
        state = State(atlas)
        state.sets.mark("Marked", ["gone", tiny.object_id(1)], "uncertain")
        table = view.as_table(state, state.sets.members("Marked"), ["gone", tiny.object_id(1)])
    assert table["my_mark"].to_pylist() == ["unsure", "unsure"]
    assert table["Mark"].to_pylist() == [None, "theirs"]
    assert table["object_id"].to_pylist() == ["gone", tiny.object_id(1)]


def test_two_apps_lose_nothing_of_each_other(sets, tmp_path):
    file = tmp_path / "x.collections.json"
    one, two = sets.Sets(file, "a"), sets.Sets(file, "a")
    one.mark("Marked", ["g1"], "true")
    two.mark("Marked", ["g2"], "false")
    one.note("Marked", "g2", "seen by one")
    assert {name: member["mark"] for name, member in two.members("Marked").items()} == {"g1": "true", "g2": "false"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.collections.json"]


def test_many_threads_marking_at_once_lose_nothing(sets, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    file = tmp_path / "x.collections.json"

    def mark(number: int) -> None:
        sets.Sets(file, "a").mark("Marked", [f"g{number}"], "true")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(mark, range(40)))
    assert len(sets.Sets(file, "a").members("Marked")) == 40


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other", "version": 1, "sets": {}}', '{"format": 3}'])
def test_a_file_that_holds_no_collections_is_refused_and_kept(sets, tmp_path, text):
    file = tmp_path / "x.collections.json"
    file.write_text(text)
    with pytest.raises(galsearch.FormatError, match="collections"):
        sets.Sets(file, "a").mark("Marked", ["g"], "true")
    assert file.read_text() == text


def test_collections_of_a_session_travel_as_a_file(sets):
    mine, other = sets.Sets(None, "a"), sets.Sets(None, "a")
    mine.mark("Rings", ["g1"], "true")
    mine.create("Rings", "those with a hole")
    assert other.merge(mine.to_json()) == 1
    assert other.all()["Rings"]["note"] == "those with a hole"
    assert other.members("Rings")["g1"]["mark"] == "true"


@pytest.mark.parametrize("name", ["", "   ", "x" * 61])
def test_a_set_needs_a_name_that_can_be_read(sets, name):
    with pytest.raises(galsearch.QueryError, match="1 to 60"):
        sets.Sets(None, "a").create(name)


# ---- a public place


@pytest.fixture
def public(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import limits

    monkeypatch.setattr(limits, "PUBLIC", True)
    return limits


def test_a_public_place_writes_nothing(public, page):
    app = page("object", selected=tiny.object_id(2))
    app.pills(key=f"mark_{tiny.object_id(2)}").select("true").run()
    state = app.session_state["state"]
    assert not state.sets.kept
    assert state.sets.members("Marked")[tiny.object_id(2)]["mark"] == "true"
    assert [path.name for path in state.atlas.path.parent.iterdir()] == ["tiny.duckdb"]
    assert "read-only" in text_of(page("collections").info)


def test_a_public_place_shows_no_path_of_the_server(public, start, tiny_bundle):
    app = start()
    assert str(tiny_bundle.parent) not in text_of(app.code)
    assert tiny_bundle.name in text_of(app.code)


@pytest.mark.slow
def test_a_session_that_asks_too_much_waits(public, start, monkeypatch):
    monkeypatch.setattr(public, "QUOTA", galsearch.Quota(per_minute=3, action_seconds=0.0))
    app = start()
    for number in range(4):
        app.text_input(key="words").set_value(f"red galaxy {number}").run()
    assert not app.exception
    assert "within a minute" in text_of(app.error)


@pytest.fixture
def full_line(public, monkeypatch):
    """Let the line of searches hold one, and be held by another visitor inside the block."""
    monkeypatch.setattr(public, "QUOTA", galsearch.Quota(wait_seconds=0.05, lines={"search": 1, "sql": 8}))

    @contextlib.contextmanager
    def held():
        holding, done = threading.Event(), threading.Event()

        def hold() -> None:
            with public._turns().turn(galsearch.Client("another")):
                holding.set()
                done.wait(SLOW_MACHINE)

        thread = threading.Thread(target=hold)
        thread.start()
        assert holding.wait(SLOW_MACHINE)
        try:
            yield
        finally:
            done.set()
            thread.join()

    return held


def test_a_full_line_says_so(full_line, start):
    app = start()
    with full_line():
        app.text_input(key="words").set_value("red galaxy").run()
    assert not app.exception
    assert "in line behind others" in text_of(app.error)


def test_a_link_cannot_ask_for_more_rows_than_are_allowed(start, monkeypatch):
    import limits

    monkeypatch.setattr(limits, "MOST_K", 40)
    assert asked(start(query='{"terms":[],"k":90000}')).k == 40


# ---- an atlas without words


@pytest.mark.slow
def test_an_atlas_without_its_text_model_says_so_and_still_lists(start, bundle_path):
    import duckdb

    with duckdb.connect(str(bundle_path)) as connection:
        connection.execute("DELETE FROM models WHERE name = 'text'")
    app = start(bundle_path)
    assert len(ids(app)) == 24
    app.text_input(key="words").set_value("red galaxy").run()
    assert not app.exception
    assert "model" in text_of(app.error)


# ---- texts of a stranger


@pytest.fixture
def widgets(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import widgets

    return widgets


@pytest.mark.parametrize("text", hostile_app.TEXTS, ids=range(len(hostile_app.TEXTS)))
def test_a_text_is_never_markup(widgets, text):
    from html import unescape

    from markdown_it import MarkdownIt

    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(widgets.plain(text))
    assert rendered.startswith("<p>") and rendered.endswith("</p>\n")
    inside = rendered[3:-5]
    assert "<" not in inside
    assert unescape(inside).replace(widgets.JOINER, "") == widgets.clean(text)
    coded = MarkdownIt("commonmark").render(f"see {widgets.code(text)} there")
    inside = coded.removeprefix("<p>see <code>").removesuffix("</code> there</p>\n")
    assert unescape(inside) == widgets.clean(text)


@pytest.mark.parametrize(
    ("text", "live"), [(":smile: :a-b:", r":[\w+-]+:"), ("https://e.x www.e.x", r"https?:|www\."), ("a@b.c", r"@\w")]
)
def test_nothing_is_left_that_becomes_something_else_after_escapes(widgets, text, live):
    import re

    assert re.search(live, text) and not re.search(live, widgets.plain(text).replace("\\", ""))


def test_a_text_is_short_on_one_line_and_can_be_sent(widgets):
    assert widgets.clean("a\n b\t\u202ec\x07\ud800") == "a b c?"
    assert len(widgets.clean("x" * 10_000)) == widgets.MOST_SHOWN + 1


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/srv/atlases/xdf.duckdb: not an atlas", "xdf.duckdb: not an atlas"),
        ("no object 'a' in /srv/x/y.duckdb (3 objects)", "no object 'a' in y.duckdb (3 objects)"),
        ("cannot open '~/secret/key.pem'", "cannot open 'key.pem'"),
        ("C:\\Users\\me\\a.fits is no image", "a.fits is no image"),
        ("z / 2 < 1 is text/plain at 3/4", "z / 2 < 1 is text/plain at 3/4"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_a_public_message_has_no_path(public, widgets, message, shown):
    assert widgets.public(message) == shown


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"RIFF0000WEBP", "webp"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"GIF89a", None),
        (b"", None),
    ],
)
def test_only_three_kinds_of_images_reach_the_browser(widgets, content, kind):
    url = widgets.data_url(content)
    assert (url is None) == (kind is None) and (kind is None or url.startswith(f"data:image/{kind};base64,"))


@pytest.fixture
def hostile_bundle(hostile_path, tmp_path):
    """An atlas whose every text is hostile, in a folder of its own."""
    copy = tmp_path / "hostile.duckdb"
    copy.write_bytes(hostile_path.read_bytes())
    return copy


@pytest.mark.slow
def test_an_atlas_of_hostile_texts_is_shown(start, hostile_bundle):
    app = start(hostile_bundle)
    assert len(ids(app)) == 24
    shown = tiles(app)["tiles"]
    assert [tile["id"] for tile in shown] == ids(app)
    app.session_state["state"].selected = ids(app)[3]
    app.session_state["state"].choose(ids(app)[5])
    app.run()
    assert not app.exception and not app.error
    app.button(key="like").click().run()
    assert not app.exception and not app.error
    labels = [box.label for box in (*app.slider, *app.button, *app.number_input)]
    assert not any(f"](https://{hostile_app.EVIL}" in label for label in labels)


# ---- links


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (page, _) in hostile_app.LINKS.items() if page == ""])
def test_a_hostile_link_to_the_search_is_answered(start, name):
    app = start(**hostile_app.LINKS[name][1])
    assert not app.exception
    state = app.session_state["state"]
    assert len(state.query.terms) <= 200 and state.query.k <= 1000
    assert app.error or app.warning or app.info or tiles(app)["tiles"]


def test_a_query_survives_its_link(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import links

    for query in QUERIES.values():
        assert links.from_text(links.to_text(query)) == query


# ---- what a place that is busy, or a query that is refused, shows


@pytest.mark.slow
def test_a_busy_place_is_no_count(full_line, start):
    app = start()
    app.text_input(key="where").set_value("z < 0.05").run()
    before = ids(app)
    with full_line():
        app.session_state["state"].change(where="z < 0.06")
        app.run()
    said = text_of(app.caption)
    assert "0 of 300" not in said and "Not counted" in said
    assert "Results of the previous query" in text_of(app.warning)
    assert [tile["id"] for tile in tiles(app)["tiles"]] == before
    app.run()
    assert "Results of the previous query" not in text_of(app.warning)


@pytest.mark.slow
def test_a_refused_query_keeps_the_results_of_the_one_before(start):
    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    before = ids(app)
    state = app.session_state["state"]
    state.change(terms=(galsearch.Term("object", "nobody"),))
    app.run()
    assert "nobody" in text_of(app.error)
    assert "Results of the previous query: red galaxy" in text_of(app.warning).replace("*", "")
    assert [tile["id"] for tile in tiles(app)["tiles"]] == before
    assert not [box for box in app.pills if box.key == "refine"]


@pytest.mark.slow
def test_a_bad_filter_says_whose_results_are_shown(start):
    app = start()
    app.text_input(key="where").set_value("z < 0.05").run()
    app.text_input(key="where").set_value("z <").run()
    assert "Results shown are for the last valid filter" in text_of(app.caption)
    assert asked(app).where == "z < 0.05"


@pytest.mark.parametrize(
    ("convincing", "scores", "line"), [(0, [3, 2, 1], None), (2, [3, 2, 1], 2), (2, [1, 2, 3], None)]
)
def test_the_line_of_weaker_matches_is_never_above_good_ones(monkeypatch, convincing, scores, line):
    monkeypatch.syspath_prepend(str(APP))
    from types import SimpleNamespace

    from views import search

    hits = SimpleNamespace(
        convincing=convincing, scores=np.array(scores), reranked=None, query=SimpleNamespace(hybrid=None)
    )
    assert search.weaker_from(hits) == line
    hits.query.hybrid = "rank"
    assert search.weaker_from(hits) is None


@pytest.mark.slow
def test_a_position_keeps_a_hundredth_of_an_arcsecond(start, widgets, tiny_atlas):
    app = start()
    app.text_input(key="near").set_value("189.204167 +62.216111").run()
    assert app.text_input(key="near").value == "189.204167 +62.216111"
    again = start(**app.query_params)
    assert again.text_input(key="near").value == "189.204167 +62.216111"
    assert asked(again).near == asked(app).near == (189.204167, 62.216111)
    assert "189.204167 +62.216111" in text_of(again.markdown)
    galaxy = tiny_atlas[tiny.object_id(3)]
    drawn = " ".join(element.proto.body for element in start(object=galaxy.object_id).get("html"))
    assert f"{galaxy.ra:.6f}" in drawn and f"{galaxy.dec:.6f}" in drawn


@pytest.mark.slow
def test_the_current_collection_is_in_the_link(page, start):
    app = start(collection="Rings")
    assert app.session_state["state"].collection == "Rings"
    app.session_state["state"].attempt(app.session_state["state"].sets.create, "Rings")
    app.text_input(key="words").set_value("red").run()
    assert app.query_params["collection"] == ["Rings"] or app.query_params["collection"] == "Rings"


@pytest.mark.slow
def test_a_link_is_whole_and_leaves_out_what_belongs_to_the_session(start):
    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    state = app.session_state["state"]
    state.jobs = "secret"
    assert state.link()["jobs"] == "secret" and "secret" not in state.permalink()
    assert "query=" in state.permalink()


@pytest.mark.slow
def test_the_tab_says_what_is_searched(start, monkeypatch):
    from importlib import import_module

    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    state = app.session_state["state"]
    monkeypatch.setattr(sys, "argv", ["app.py"])
    source = (APP / "app.py").read_text().rpartition("\nmain()")[0]
    names: dict = {"__file__": str(APP / "app.py"), "__name__": "app"}
    import_module("phrasing")
    exec(compile(source, "app.py", "exec"), names)
    assert names["tab_title"](state, "Search") == "red galaxy · Search · Tiny · galsearch"


# ---- names


def test_an_id_in_the_box_opens_the_object_before_any_search(start, monkeypatch):
    app = start()
    monkeypatch.setattr(galsearch.Atlas, "embed", lambda *_: pytest.fail("a vector was made"))
    app.text_input(key="words").set_value(tiny.object_id(7)).run()
    assert not app.exception
    assert app.session_state["state"].selected == tiny.object_id(7)
    assert "is object" in text_of(app.info)
    assert [tile["id"] for tile in tiles(app)["tiles"]] == [tiny.object_id(7)]
    assert not [box for box in app.pills if box.key == "refine"]


@pytest.mark.slow
def test_a_name_can_still_be_searched_as_words(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value(tiny.object_id(7)).run()
    app.button(key="named_words").click().run()
    assert [tile["id"] for tile in tiles(app)["tiles"]] == found(tiny_atlas, tiny.object_id(7))
    assert "is object" not in text_of(start(**app.query_params).info)


@pytest.mark.slow
def test_a_position_in_the_box_offers_what_lies_there(start, tiny_atlas):
    galaxy = tiny_atlas[tiny.object_id(6)]
    app = start()
    app.text_input(key="words").set_value(f"{galaxy.ra:.6f} {galaxy.dec:+.6f}").run()
    assert galaxy.object_id in [tile["id"] for tile in tiles(app)["tiles"]]
    app.button(key="named_cone").click().run()
    assert asked(app).terms == () and asked(app).near == pytest.approx((galaxy.ra, galaxy.dec), abs=1e-6)
    assert galaxy.object_id in ids(app)


@pytest.mark.slow
def test_numbers_that_no_filter_holds_are_named(start):
    app = start()
    app.text_input(key="words").set_value("red galaxy with M_u < -21").run()
    assert "M_u < -21" in text_of(app.caption) and "not understood" in text_of(app.caption)


@pytest.mark.slow
def test_words_of_another_language_get_a_hint(start):
    app = start()
    app.text_input(key="words").set_value("Spiralgalaxie mit Balken und ohne Ring").run()
    assert "look German" in text_of(app.caption)
