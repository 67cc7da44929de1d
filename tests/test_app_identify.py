"""The page Identify without a browser: states as the library says them, services only when agreed, kept looks."""

# ruff: noqa: F811  fixtures are those of test_app_spectra
from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import tiny
from fake_catalogs import CONTROLS, Server
from test_app_anomalies import ids, look, tiles
from test_app_pages import finish, job_of
from test_app_spectra import _closed, app_path, opened, page, state_of, text_of  # noqa: F401

import galsearch

pytestmark = pytest.mark.slow

NEEDS = pytest.mark.skipif(
    find_spec("pyvo") is None or find_spec("astroquery") is None, reason="needs galsearch[catalogs]"
)
SECOND = 1 / 3600
FILTER = {"terms": [], "where": "mag_r < 16"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.delenv("GALSEARCH_CATALOGS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path, tiny_bundle) -> Path:
    (tmp_path / "own").mkdir()
    return Path(shutil.copy(tiny_bundle, tmp_path / "own" / "own.duckdb"))


@pytest.fixture
def catalog(own) -> Path:
    """A catalog beside the atlas: the first positions of it, half a second to the north, each second one a lens."""
    rows = [row for row in tiny.table().to_pylist() if row["ra"] is not None][:40]
    lines = [
        f"L{at},{row['ra']},{row['dec'] + SECOND / 2},{'lens' if at % 2 else 'galaxy'}" for at, row in enumerate(rows)
    ]
    path = own.with_name("known.csv")
    path.write_text("\n".join(["name,ra,dec,what", *lines]) + "\n")
    return path


def begin(app):
    """Press the button and wait."""
    app.button(key="identify_start").click().run()
    assert not app.exception, app.exception
    return finish(app, "identify") if job_of(app, "identify") is not None else app


def choose(app, *names: str):
    app.multiselect(key="identify_catalogs").set_value(list(names)).run()
    assert not app.exception, app.exception
    return app


def states(app) -> list[str]:
    """Return the states that are drawn, in the words of the library."""
    from identifications import SHORT

    words = {short: state for state, short in SHORT.items()}
    return [words[one["score"]] for one in tiles(app)]


# ---- catalogs on disk


def test_states_are_those_of_the_library_with_counts_and_chance(page, own, catalog):
    app = page("identify", own, query=FILTER, of="filter", kind="lens")
    assert app.button(key="identify_start").disabled and "Choose a catalog or a service" in text_of(app)
    choose(app, "known.csv")
    app.text_input(key="identify_type_column").set_value("what").run()
    begin(app)
    expected = opened(own).identify(where=FILTER["where"], kind="lens", against=catalog, type_column="what")
    assert ids(app) == expected.ids[:60] and states(app) == expected.table["state"].to_pylist()[:60]
    assert sum(bool(many) for many in expected.counts.values()) >= 3  # what is tested has differences
    (control,) = [one for one in app.button_group if one.key and one.key.startswith("identify_state_")]
    assert [f"{state} {many}" for state, many in expected.counts.items()] == [
        option.content for option in control.proto.options
    ][1:]
    text = text_of(app)
    matched = expected.counts["known of this kind"] + expected.counts["known of another kind"]
    assert f"{matched} have a match and {expected.expected_by_chance:.2g} would have one by chance" in text
    assert "Proper motion is ignored" in text and "Answered: known.csv" in text
    unplaced = sum(one.radius_arcsec is None for one in expected)
    assert unplaced and f"{unplaced} objects have no position" in text


def test_one_state_is_shown_alone_and_stands_in_the_url(page, own, catalog):
    app = begin(choose(page("identify", own, query=FILTER, of="filter"), "known.csv"))
    expected = opened(own).identify(where=FILTER["where"], against=catalog)
    app.button_group(key="identify_state_all").set_value("not found").run()
    assert ids(app) == expected.of_state("not found")["object_id"].to_pylist()[:60]
    assert state_of(app).param("state") == "not found" and "every source answered" in text_of(app)
    link = json.dumps(state_of(app).link())
    assert "known.csv" not in link and str(own.parent) not in link  # a link never names a file


def test_all_matches_of_an_object_are_beside_it_and_on_its_page(page, own, catalog):
    app = begin(choose(page("identify", own, query=FILTER, of="filter"), "known.csv"))
    expected = opened(own).identify(where=FILTER["where"], against=catalog)
    one = next(one for one in expected if one.state == "known of this kind")
    app.session_state["state"].selected = one.object_id
    app.run()
    text = text_of(app)
    assert f"{one.name} in known.csv; {one.separation_arcsec:.2f} arcsec away" in text
    assert f"by chance with a probability of {one.false_probability:.2g}" in text and "in known.csv." in text
    assert one.name in app.dataframe[0].value["name"].to_list()


@pytest.mark.parametrize(("of", "count"), [("results", 24), ("filter", None), ("marked", 3), ("object", 1)])
def test_objects_are_results_a_filter_a_collection_or_the_selected_one(page, own, catalog, of, count):
    first = tiny.object_id(1)
    app = page("identify", own, query=FILTER | {"k": 24}, selected=first, of=of)
    if of == "marked":
        state_of(app).sets.add("Marked", [tiny.object_id(row) for row in (1, 2, 3)])
        app.run()
    begin(choose(app, "known.csv"))
    known = job_of(app, "identify").result
    count = opened(own).count(FILTER["where"]) if count is None else count
    assert len(known.table) == count
    assert of != "object" or known.table["object_id"].to_pylist() == [first]


def test_a_cone_is_part_of_the_filter(page, own, catalog):
    row = next(row for row in tiny.table().to_pylist() if row["ra"] is not None)
    near = {"terms": [], "near": [row["ra"], row["dec"]], "radius_arcsec": 1800.0}
    app = begin(choose(page("identify", own, query=near, of="filter"), "known.csv"))
    expected = opened(own).search(near=(row["ra"], row["dec"]), radius_arcsec=1800.0, k=300)
    assert sorted(job_of(app, "identify").result.table["object_id"].to_pylist()) == sorted(expected.ids)
    assert 0 < len(expected) < tiny.ROWS


def test_the_list_of_the_page_anomalies_is_offered(page, own, catalog):
    odd = look(page("anomalies", own, pixels="off"))
    expected = ids(odd)[:5]
    found = odd.session_state["anomalies_found"]
    app = page("identify", own)
    app.session_state["anomalies_found"] = found
    app.run()
    app.button_group(key="identify_of_results").set_value("anomalies").run()
    app.number_input(key="identify_n_24_300").set_value(5).run()
    begin(choose(app, "known.csv"))
    assert job_of(app, "identify").result.table["object_id"].to_pylist() == expected


def test_a_path_that_is_typed_may_say_its_kind_and_a_wrong_one_is_told(page, own, catalog):
    app = page("identify", own, query=FILTER, of="filter", kind="star")
    app.text_area(key="identify_paths").set_value(f"{catalog}=star").run()
    begin(app)
    before = states(app)
    assert "known of this kind" in before
    app.text_area(key="identify_paths").set_value(f"{catalog.with_name('absent.csv')}").run()
    begin(app)
    assert app.error and "absent.csv" in text_of(app) and states(app) == before  # the look before stays


def test_the_command_looks_up_the_same(page, own, catalog):
    from typer.testing import CliRunner

    from galsearch.cli.program import app as program

    app = begin(choose(page("identify", own, query=FILTER, of="filter", kind="lens", radius="5"), "known.csv"))
    command = next(code.value for code in app.code if code.value.startswith("galsearch identify"))
    import galsearch.cli  # noqa: F401  registers the verbs

    result = CliRunner().invoke(program, [*shlex.split(command)[1:], "--format", "csv"])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    known = job_of(app, "identify").result
    assert [row["state"] for row in rows] == known.table["state"].to_pylist()
    assert {row["radius_arcsec"] for row in rows} == {"5", ""}


def test_files_have_the_columns_of_the_command_and_all_matches(page, own, catalog):
    from views import identify

    app = begin(choose(page("identify", own, query=FILTER, of="filter"), "known.csv"))
    known = job_of(app, "identify").result
    for suffix in identify.FILES:
        assert galsearch.table_bytes(known.table, suffix, meta=known.about)
    expected = opened(own).identify(where=FILTER["where"], against=catalog)
    assert known.table.equals(expected.table) and known.matches.equals(expected.matches)


def test_kinds_are_those_of_the_vocabulary(app_path):
    from views import identify

    from galsearch import discovery
    from galsearch.discovery.identify import STATES

    words = tomllib.loads((Path(discovery.__file__).parent / "kinds.toml").read_text("utf-8"))
    assert ("any", *words) == identify.KINDS
    assert tuple(identify.STATES) == STATES


def test_it_is_offered_where_there_are_positions(app_path, own, monkeypatch, tmp_path):
    import limits
    from views import identify

    assert identify.needs(opened(own))
    monkeypatch.setattr(limits, "PUBLIC", True)
    assert not identify.needs(opened(own))
    monkeypatch.setenv("GALSEARCH_CATALOGS", str(own))
    assert identify.needs(opened(own))
    monkeypatch.setattr(identify.inside, "has_positions", lambda _: False)
    assert not identify.needs(opened(own))


# ---- services


@NEEDS
def test_nothing_is_sent_before_it_is_agreed_to_and_each_time_anew(page, own, catalog):
    rows = [row for row in tiny.table().to_pylist() if row["mag_r"] < 16 and row["ra"] is not None]
    with Server([*CONTROLS, (rows[0]["ra"], rows[0]["dec"], "NGC 1", "G", 7)]) as server:
        app = page("identify", own, query=FILTER, of="filter", kind="galaxy")
        app.text_input(key="identify_urls").set_value(f"simbad={server.urls['simbad']}").run()
        app.button_group(key="identify_services").set_value(["simbad"]).run()
        assert app.button(key="identify_start").disabled and not server.questions
        many = opened(own).count(FILTER["where"])
        assert app.checkbox(key="identify_agreed").label.replace("\\", "") == (
            f"Send the positions of {many:,} objects to SIMBAD"
        )
        app.checkbox(key="identify_agreed").check().run()
        begin(app)
        known = job_of(app, "identify").result
        assert known.counts["known of this kind"] == 1 and known.counts["not checked"] > 0  # those without a position
        asked = len(server.questions)
        assert asked
        assert not app.checkbox(key="identify_agreed").value and app.button(key="identify_start").disabled
        app.run()
        assert len(server.questions) == asked


@NEEDS
@pytest.mark.parametrize("behavior", ["status 500", "cut", "lacks all", "overflow"])
def test_a_service_that_fails_stands_beside_every_answer_and_nothing_is_not_found(page, own, catalog, behavior):
    with Server(CONTROLS, behavior=behavior) as server:
        app = choose(page("identify", own, query=FILTER, of="filter"), "known.csv")
        app.text_input(key="identify_urls").set_value(f"simbad={server.urls['simbad']}").run()
        app.button_group(key="identify_services").set_value(["simbad"]).run()
        app.checkbox(key="identify_agreed").check().run()
        begin(app)
    known = job_of(app, "identify").result
    assert known.counts["not found"] == 0 and known.counts["known of this kind"] > 0
    warning = " ".join(str(one.value) for one in app.warning).replace("\\", "")
    assert "simbad did not answer for" in warning
    placed = [row for row in known.table.to_pylist() if row["radius_arcsec"] is not None]
    assert all(any(text.startswith("simbad: ") for text in row["failed"]) for row in placed)
    assert all("1 not checked" in one["note"] for one in tiles(app))


@NEEDS
def test_it_can_be_stopped_while_a_service_is_slow(page, own):
    with Server(CONTROLS, behavior="silent", slow_seconds=30.0) as server:
        app = page("identify", own, query=FILTER, of="filter")
        app.text_input(key="identify_urls").set_value(f"simbad={server.urls['simbad']}").run()
        app.button_group(key="identify_services").set_value(["simbad"]).run()
        app.checkbox(key="identify_agreed").check().run()
        app.button(key="identify_start").click().run()
        job = job_of(app, "identify")
        deadline = time.monotonic() + 20
        while not server.questions and not server.arrivals and time.monotonic() < deadline:
            time.sleep(0.05)
        assert job.state == "running"
        job.stop()
        job.wait(20)
        assert job.state == "stopped"
        app.run()
        assert "Stopped" in text_of(app)


# ---- in a public place


@pytest.fixture
def public(app_path, monkeypatch, catalog):
    import limits

    monkeypatch.setattr(limits, "PUBLIC", True)
    monkeypatch.setenv("GALSEARCH_CATALOGS", os.pathsep.join([str(catalog), f"{catalog}=star"][:1]))


def test_a_visitor_has_the_catalogs_of_the_owner_and_no_service_and_no_file(page, own, catalog, public):
    catalog.with_name("secret.csv").write_text("name,ra,dec\n")
    app = page("identify", own, query=FILTER, of="filter")
    assert list(app.multiselect(key="identify_catalogs").options) == ["known.csv"]
    assert not app.text_area and not [one for one in app.button_group if one.key == "identify_services"]
    assert {one.key for one in app.text_input} == {"identify_type_column", "identify_kinds"}
    begin(app)
    assert "known of this kind" in states(app)
    everything = text_of(app) + " ".join(code.value for code in app.code)
    assert str(catalog.parent) not in everything


def test_a_visitor_is_told_the_bound_and_no_path_of_a_catalog_that_is_gone(page, own, catalog, public, monkeypatch):
    from views import identify

    app = page("identify", own, query=FILTER, of="filter")
    monkeypatch.setattr(identify, "MOST_OBJECTS", 3)
    app.button(key="identify_start").click().run()
    assert "at most 3 are looked up here" in text_of(app) and job_of(app, "identify") is None
    monkeypatch.setattr(identify, "MOST_OBJECTS", None)
    catalog.unlink()
    begin(app)
    assert app.error and str(catalog.parent) not in text_of(app) and "known.csv" in text_of(app)


# ---- looks that are kept


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_folder) -> tuple[Path, list[str]]:
    """A bundle with two kept looks, the first as lens; and their names."""
    path = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("kept") / "k.atlas"))
    rows = [row for row in tiny.table().to_pylist() if row["ra"] is not None][:20]
    table = path.with_name("t.csv")
    lines = [f"K{at},{row['ra']},{row['dec']}" for at, row in enumerate(rows)]
    table.write_text("\n".join(["name,ra,dec", *lines]) + "\n")
    runs = []
    with galsearch.open(path, device="cpu") as atlas:
        for kind, where in (("lens", "mag_r < 15"), ("any", None)):
            result = atlas.identify(where=where, kind=kind, against=galsearch.Against(table, kind="galaxy"))
            runs.append(galsearch.save_identifications(result))
            time.sleep(1.1)  # their dates have whole seconds
    return galsearch.bundle(path, path.with_suffix(".duckdb")), runs


def test_a_look_that_is_kept_is_shown_again_with_its_date(page, kept):
    path, runs = kept
    app = page("identify", path, **{"from": "kept", "run": runs[0]})
    expected = opened(path).saved_identifications(runs[0])
    assert ids(app) == expected["object_id"].to_pylist()[:60]
    assert states(app) == expected["state"].to_pylist()[:60]
    text = text_of(app)
    assert (
        f"looked up on {expected['created'][0].as_py()[:10]} at " in text
        and "taken for lens: " in text
        and "Answered: t.csv" in text
    )
    latest = page("identify", path, **{"from": "kept"})
    assert "looked up" in text_of(latest) and "taken for" not in text_of(latest)


def test_the_page_of_an_object_has_the_looks_that_are_kept_the_last_first(page, kept):
    path, runs = kept
    first = opened(path).saved_identifications(runs[0])
    one = next(row for row in first.to_pylist() if row["state"] == "known of another kind")
    text = text_of(page("object", path, selected=one["object_id"]))
    assert "Is it known?" in text and f"{one['name']} in t.csv; 0.00 arcsec away; type galaxy" in text
    assert text.index("**known of this kind**") < text.index("**known of another kind** (lens)")


def test_a_table_that_somebody_bent_is_told_and_a_new_look_can_be_taken(page, kept, tmp_path):
    import duckdb

    path = Path(shutil.copy(kept[0], tmp_path / "bent.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE identifications DROP COLUMN state")
    app = page("identify", path, **{"from": "kept"})
    assert "has no column 'state'" in text_of(app) or "state" in " ".join(str(one.value) for one in app.error)
    app.button_group(key="identify_from_kept").set_value("new").run()
    assert app.button(key="identify_start")


def test_texts_of_a_hostile_atlas_and_catalog_are_text(page, hostile_path, tmp_path):
    from hostile_app import TEXTS

    catalog = tmp_path / "evil.csv"
    rows = [row for row in tiny.table().to_pylist() if row["ra"] is not None][: len(TEXTS)]
    quoted = ['"' + text.replace('"', '""').replace("\n", " ") + '"' for text in TEXTS]
    lines = [f"{text},{row['ra']},{row['dec']}" for text, row in zip(quoted, rows, strict=True)]
    catalog.write_text("\n".join(["name,ra,dec", *lines]) + "\n")
    app = page("identify", hostile_path, of="filter")
    app.text_area(key="identify_paths").set_value(str(catalog)).run()
    begin(app)
    known = job_of(app, "identify").result
    named = next(row for row in known.table.to_pylist() if row["name"] and "click" in row["name"])
    app.session_state["state"].selected = named["object_id"]
    app.run()
    assert not app.exception
    drawn = [str(one.value) for one in (*app.markdown, *app.caption, *app.warning)]
    assert not [one for one in drawn if "](http" in one and "evil.example" in one]
