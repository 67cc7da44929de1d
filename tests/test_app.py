"""The app's logic without a browser: what is asked, what the URL holds, and what is said when something is wrong."""

import io
import json
import shlex
import sys
from pathlib import Path

import pytest
import tiny
from PIL import Image
from typer.testing import CliRunner

import galsearch

pytest.importorskip("streamlit", reason="the app needs streamlit")
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parent.parent / "streamlit_app"
SLOW_MACHINE = 30  # seconds that one run may take


@pytest.fixture
def start(monkeypatch, tiny_bundle):
    """Start the app on an atlas, at a URL; the tiny bundle unless told otherwise."""
    monkeypatch.syspath_prepend(str(APP))

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


def ids(app: AppTest) -> list[str]:
    assert not app.exception
    return app.session_state["answered"][1].ids


def text_of(elements) -> str:
    return " ".join(str(element.value) for element in elements).replace("\\", "")


def test_the_first_page_lists_galaxies(start):
    app = start()
    assert ids(app) == [tiny.object_id(row) for row in range(24)]
    assert "300" in text_of(app.markdown)
    assert dict(app.query_params) == {}


def test_words_find_what_the_library_finds(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value("red edge-on galaxy").run()
    assert ids(app) == tiny_atlas.search("red edge-on galaxy", k=24).ids
    app.text_input(key="words").set_value("").run()
    assert ids(app) == tiny_atlas.search(k=24).ids


def test_an_example_fills_the_box_and_searches(start, tiny_atlas):
    app = start()
    app.pills[0].select("ring galaxy").run()
    assert app.text_input(key="words").value == "ring galaxy"
    assert ids(app) == tiny_atlas.search("ring galaxy", k=24).ids


def test_minus_words_and_their_weight(start, tiny_atlas):
    app = start()
    app.text_input(key="words").set_value("red galaxy").run()
    app.text_input(key="extra").set_value("edge")
    app.button(key="minus").click().run()
    weight = next(box for box in app.number_input if box.label == "edge")
    assert weight.value == -0.5
    weight.set_value(-2.0).run()
    terms = (galsearch.Term("text", "red galaxy"), galsearch.Term("text", "edge", -2.0))
    assert ids(app) == tiny_atlas.search(galsearch.Query(terms, k=24)).ids
    assert "red galaxy − 2 × edge" in text_of(app.markdown)
    next(box for box in app.number_input if box.label == "edge").set_value(0.0).run()
    assert ids(app) == tiny_atlas.search("red galaxy", k=24).ids


def test_an_id_among_the_terms_is_an_object(start):
    app = start()
    app.text_input(key="extra").set_value(tiny.object_id(5))
    app.button(key="plus").click().run()
    assert app.session_state["asked"].terms == (galsearch.Term("object", tiny.object_id(5)),)
    assert tiny.object_id(5) not in ids(app)


def test_terms_that_cancel_out_are_an_error_in_words(start):
    app = start()
    app.text_input(key="words").set_value("red").run()
    app.text_input(key="extra").set_value("red")
    app.button(key="minus").click().run()
    next(box for box in app.number_input if box.label == "red").set_value(-1.0).run()
    assert not app.exception
    assert "cancel out" in text_of(app.error)


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
    assert app.session_state["asked"].where is None


def test_an_empty_answer_says_why_and_offers_the_way_out(start):
    app = start()
    app.text_input(key="where").set_value("z > 9").run()
    assert ids(app) == []
    assert "No object passes the cut" in text_of(app.info)
    app.button(key="uncut").click().run()
    assert len(ids(app)) == 24


def test_a_cone_across_ra_zero(start, tiny_atlas):
    app = start()
    app.number_input(key="radius_arcsec").set_value(600.0)
    app.text_input(key="near").set_value("00:00:00 +10:00:00").run()
    assert ids(app) == tiny_atlas.search(near=(0.0, 10.0), radius_arcsec=600.0, k=24).ids != []
    app.text_input(key="near").set_value("somewhere").run()
    assert "somewhere" in text_of(app.error)


def test_an_empty_cone_says_so(start):
    app = start()
    app.number_input(key="radius_arcsec").set_value(0.01)
    app.text_input(key="near").set_value("200 45").run()
    assert "No object lies within" in text_of(app.info)
    app.button(key="uncone").click().run()
    assert len(ids(app)) == 24


def test_a_link_restores_everything(start):
    app = start()
    app.text_input(key="words").set_value("blue ring").run()
    app.text_input(key="where").set_value("mag_r < 20").run()
    app.number_input(key="k").set_value(100).run()
    app.button(key="next_page").click().run()
    again = start(**app.query_params)
    assert ids(again) == ids(app)
    assert again.text_input(key="words").value == "blue ring"
    assert again.text_input(key="where").value == "mag_r < 20"
    assert again.session_state["page"] == 1


def test_a_link_to_another_atlas_is_announced(start):
    assert "another atlas" in text_of(start(atlas="00000000").warning)


@pytest.mark.parametrize("query", ["", "{", "[1]", '{"terms": [], "near": null, "k": 0}', '{"terms": 3, "near": null}'])
def test_a_broken_link_is_announced_and_lists(start, query):
    app = start(query=query, page="x", view="?")
    assert "could not be read" in text_of(app.warning)
    assert len(ids(app)) == 24


def test_a_link_cannot_make_the_server_read_a_file(start):
    app = start(query=galsearch.Query((galsearch.Term("image", "/etc/hostname"),)).to_json())
    assert "picture file" in text_of(app.warning)
    assert app.session_state["asked"].terms == ()


def test_an_object_shows_all_its_columns_with_units(start):
    app = start(object=tiny.object_id(3))
    facts = " ".join(element.proto.body for element in app.get("html"))
    for part in ("mass", "solMass", "Stellar mass", tiny.object_id(3)):
        assert part in facts
    app.button(key="close").click().run()
    assert app.session_state["selected"] is None


def test_an_unknown_object_in_the_link_is_an_error_in_words(start):
    app = start(object="nobody")
    assert "no object 'nobody'" in text_of(app.error)
    assert len(ids(app)) == 24


def test_more_like_this_and_minus_this(start, tiny_atlas):
    app = start(object=tiny.object_id(1))
    app.button(key="like").click().run()
    assert ids(app) == tiny_atlas.search(tiny_atlas[tiny.object_id(1)], k=24).ids
    app.session_state["selected"] = tiny.object_id(2)
    app.run()
    app.button(key="Minus this").click().run()
    assert [term.weight for term in app.session_state["asked"].terms] == [1.0, -0.5]


def test_an_uploaded_picture_becomes_a_vector(start, tiny_atlas, tmp_path):
    file = io.BytesIO()
    Image.fromarray(tiny.draw(1)).save(file, format="PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    app = start()
    app.file_uploader(key="upload").set_value(("a.png", file.getvalue(), "image/png")).run()
    assert ids(app)[:4] == tiny_atlas.search(tmp_path / "a.png", k=24).ids[:4]
    assert ids(start(**app.query_params)) == ids(app)


def test_a_picture_that_cannot_be_read_is_explained(start):
    app = start()
    app.file_uploader(key="upload").set_value(("empty.jpg", b"", "image/jpeg")).run()
    assert not app.exception
    assert text_of(app.error).startswith("empty.jpg")


def test_a_page_holds_sixty(start):
    app = start()
    app.number_input(key="k").set_value(130).run()
    assert "page 1 of 3" in text_of(app.caption)
    assert json.loads(app.get("bidi_component")[0].proto.json)["tiles"][-1]["id"] == tiny.object_id(59)


def test_the_table_shows_units(start):
    app = start(view="Table")
    assert not app.exception
    assert "object_id" in app.dataframe[-1].value.columns


def test_without_an_atlas_it_says_how_to_start(start):
    assert "make demo" in text_of(start(None).info)


def test_a_damaged_atlas_is_an_error_in_words(start, bundle_path):
    bundle_path.write_bytes(bundle_path.read_bytes()[:5000])
    app = start(bundle_path)
    assert not app.exception
    assert str(bundle_path) in text_of(app.error)


def test_the_atlas_may_stand_in_the_environment(start, monkeypatch, tiny_bundle):
    monkeypatch.setenv("GALSEARCH_ATLAS", str(tiny_bundle))
    assert len(ids(start(None))) == 24


@pytest.fixture
def sql_page(monkeypatch, tiny_atlas):
    """The SQL page alone: a test can only switch between pages that are scripts."""
    monkeypatch.syspath_prepend(str(APP))

    def script(atlas):
        from views import sql

        sql.show(atlas)

    return AppTest.from_function(script, kwargs={"atlas": tiny_atlas}, default_timeout=SLOW_MACHINE).run()


def test_every_page_is_offered(start):
    assert [link.proto.label for link in start().get("page_link")] == ["Search", "SQL"]


def test_the_sql_page_answers_with_pictures(sql_page):
    assert not sql_page.exception
    sql_page.text_area(key="sql").set_value("SELECT object_id, z FROM galaxies ORDER BY object_id LIMIT 3").run()
    shown = sql_page.dataframe[-1].value
    assert list(shown["object_id"]) == [tiny.object_id(row) for row in range(3)]
    assert all(picture.startswith("data:image/webp;base64,") for picture in shown["(picture)"])


@pytest.mark.parametrize("statement", ["SELECT nope FROM galaxies", "DROP TABLE galaxies", "", "SELECT 1; SELECT 2"])
def test_bad_sql_is_an_error_in_words(sql_page, statement):
    sql_page.text_area(key="sql").set_value(statement).run()
    assert not sql_page.exception
    assert len(sql_page.error) == 1


def test_sql_with_a_column_twice_or_no_rows_is_shown(sql_page):
    sql_page.text_area(key="sql").set_value("SELECT a.*, b.* FROM galaxies a JOIN galaxies b USING (object_id)").run()
    assert not sql_page.exception
    sql_page.text_area(key="sql").set_value("FROM galaxies WHERE z > 9").run()
    assert "no row answers" in text_of(sql_page.info)


@pytest.mark.parametrize("place", range(4))
def test_every_example_statement_runs(sql_page, place):
    sql_page.pills(key="sql_example").set_value(sql_page.pills(key="sql_example").options[place]).run()
    assert not sql_page.exception and not sql_page.error


QUERIES = {
    "words": galsearch.Query((galsearch.Term("text", "red edge-on galaxy"),), k=7),
    "sum": galsearch.Query((galsearch.Term("text", "red"), galsearch.Term("text", "it's a ring", -0.5)), k=5),
    "object": galsearch.Query((galsearch.Term("object", tiny.object_id(4)),), k=6, exact=True),
    "cut and cone": galsearch.Query(
        (galsearch.Term("text", "blue"),), where="survey <> 'd''Or'", near=(0.0, 10.0), radius_arcsec=800.0, k=5
    ),
    "list": galsearch.Query(where="z < 0.1", k=4),
    "vector": galsearch.Query((galsearch.Term("embedding", tuple(range(1, 17))),), k=3),
}


@pytest.fixture
def phrasing(monkeypatch):
    monkeypatch.syspath_prepend(str(APP))
    import phrasing

    return phrasing


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_the_python_to_copy_finds_the_same(phrasing, tiny_bundle, tiny_atlas, query):
    names: dict = {}
    exec(phrasing.as_python(query, tiny_bundle), names)
    names["atlas"].close()
    assert names["hits"].ids == tiny_atlas.search(query).ids


@pytest.mark.parametrize("query", [q for name, q in QUERIES.items() if name != "vector"])
def test_the_command_to_copy_finds_the_same(phrasing, tiny_bundle, tiny_atlas, query):
    from galsearch.cli import app

    words = shlex.split(phrasing.as_shell(query, tiny_bundle))
    result = CliRunner().invoke(app, [*words[1:], "--format", "json"])
    assert result.exit_code == 0, result.output
    assert all(f'"{name}"' in result.stdout for name in tiny_atlas.search(query).ids)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_the_sql_to_copy_finds_the_same(phrasing, tiny_atlas, query):
    found = tiny_atlas.sql(phrasing.as_sql(query, tiny_atlas))
    assert found["object_id"].to_pylist() == tiny_atlas.search(query).ids


def test_what_cannot_be_a_command_says_so(phrasing, tiny_bundle):
    assert phrasing.as_shell(QUERIES["vector"], tiny_bundle).startswith("#")
