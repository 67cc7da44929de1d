"""The page Knowledge and the BPT diagram without a browser: bases, answers, why, links, texts of strangers."""

# ruff: noqa: F811  fixtures are those of test_app_spectra
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
from conftest import SHAPE
from test_app_spectra import (  # noqa: F401
    _closed,
    app_path,
    axis_titles,
    both,
    charts,
    files,
    models,
    opened,
    page,
    state_of,
    table,
    text_of,
)
from tiny_spectra import write_models, write_spectra

import galsearch

SOME = f"object_id < '{tiny.object_id(130)}'"
FEW = f"object_id < '{tiny.object_id(28)}'"  # too few to calibrate
SELECT = f"SELECT object_id, {SHAPE} AS shape FROM galaxies WHERE {SOME} AND right(object_id, 1)::INT < 7"
ODD = f"SELECT object_id, 'label ' || (right(object_id, 3)::INT * 7 % 9) AS odd FROM galaxies WHERE {FEW}"
EDGE_OR_RING = f"SELECT object_id, {SHAPE} AS shape FROM galaxies WHERE {SOME} AND right(object_id, 2)::INT % 4 < 2"
KINDS = {f"young-{n}": ("young", 0.02 + 0.01 * n) for n in range(4)}
KINDS |= {f"nucleus-{n}": ("nucleus", 0.02 + 0.01 * n) for n in range(4)} | {"old": ("passive", 0.05)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, tiny_folder) -> Path:
    """A bundle of pictures alone with bases: of shapes, of two of the shapes, of odd labels, of numbers."""
    path = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("kb") / "kb.atlas"))
    galsearch.create_base(path, "shapes", SELECT, target="ring", share=0.3, columns=["z", "mag_r"])
    galsearch.create_base(path, "two", EDGE_OR_RING)
    galsearch.create_base(path, "odd", ODD)
    galsearch.create_base(path, "odd", ODD)
    galsearch.create_base(path, "numbers", f"SELECT object_id, mag_r FROM galaxies WHERE {FEW}")
    return galsearch.bundle(path, path.with_suffix(".duckdb"))


@pytest.fixture(scope="module")
def spectra(tmp_path_factory) -> Path:
    """A bundle of spectra alone, of galaxies with and without the lines of a BPT diagram, and a base of them."""
    home = tmp_path_factory.mktemp("lines")
    models, files = write_models(home / "models"), write_spectra(home / "spectra", KINDS)
    galsearch.build(home / "s.atlas", spectra=files, models=models)
    select = "SELECT object_id, split_part(object_id, '-', 1) AS kind FROM galaxies WHERE object_id NOT LIKE '%-0'"
    galsearch.create_base(home / "s.atlas", "kinds", select)
    return galsearch.bundle(home / "s.atlas", home / "s.duckdb")


def result(app) -> galsearch.Classification:
    assert not app.exception, app.exception
    return app.session_state["classified"][1]


def listed(app) -> dict[str, list]:
    """Return the columns of the answers as they are drawn, NaN as None."""
    (frame,) = [one for one in app.dataframe if "label" in one.value.columns or "value" in one.value.columns][:1]
    return {name: [None if one != one else one for one in frame.value[name]] for name in frame.value.columns}  # noqa: PLR0124


def base_column(app) -> list[str]:
    return next(one.value for one in app.dataframe if "members" in one.value.columns)["base"].tolist()


# ---- states of the page


def test_without_a_base_the_page_says_how_to_make_one(page, tiny_bundle):
    app = page("knowledge", tiny_bundle)
    assert "galsearch kb create" in text_of(app) and not app.dataframe and not app.error


def test_in_a_public_place_the_page_is_there_for_atlases_with_bases_alone(page, tiny_bundle, pictures, monkeypatch):
    import limits

    monkeypatch.setattr(limits, "PUBLIC", True)
    assert not page("knowledge", tiny_bundle).session_state["offered"]
    app = page("knowledge", pictures)
    assert app.session_state["offered"]
    assert {one.label for one in app.button} == set()  # nothing is made, changed or dropped here
    assert "on the command line" in text_of(app)


def test_bases_are_listed_and_the_results_of_the_search_are_classified_as_the_library_does(page, pictures):
    app = page("knowledge", pictures, query={"terms": [], "where": "z < 0.05"}, base="shapes")
    assert base_column(app) == ["numbers", "odd", "odd", "shapes", "two"]
    atlas = opened(pictures)
    ids = atlas.search(where="z < 0.05", k=24, distinct=True).ids
    expected = atlas.classify(ids, "shapes")
    assert result(app).to_arrow().equals(expected.to_arrow())
    assert listed(app)["object_id"] == ids
    assert listed(app)["label"] == expected.table["label"].to_pylist()
    assert f"{len(ids)} objects:" in text_of(app)


def test_the_way_of_voting_is_that_of_the_url(page, pictures):
    ids = [tiny.object_id(row) for row in (7, 18)]
    said = {"of": "ids", "ids": "\n".join(ids), "k": "10", "weight": "rank", "prevalence": "0.02"}
    app = page("knowledge", pictures, base="shapes", **said)
    expected = opened(pictures).classify(ids, "shapes", k=10, weight="rank", prevalence=0.02)
    assert result(app).to_arrow().equals(expected.to_arrow())
    assert app.number_input[0].label == "Prevalence of ring"
    app.number_input[0].set_value(0.5).run()
    assert state_of(app).param("prevalence") == "0.5"
    assert result(app).table["probability"].to_pylist() != expected.table["probability"].to_pylist()


@pytest.fixture(scope="module")
def probed(tmp_path_factory, tiny_folder) -> Path:
    """A bundle with two bases, a probe of one of them in use, and one of the other that is not."""
    path = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("probed") / "p.atlas"))
    for name in ("shapes", "unused"):
        galsearch.create_base(path, name, f"SELECT object_id, {SHAPE} AS shape FROM galaxies")
        galsearch.train_probe(path, name)
    galsearch.promote_probe(path, "shapes", 1)
    galsearch.promote_probe(path, "unused", None)
    return galsearch.bundle(path, path.with_suffix(".duckdb"))


def method_of(app) -> list:
    return [one for one in app.get("button_group") if "Decided by" in str(one.proto)]


@pytest.mark.slow
def test_a_probe_is_offered_where_one_is_in_use_and_stands_in_the_link(page, probed):
    ids = [tiny.object_id(row) for row in (5, 6, 9)]
    said = {"of": "ids", "ids": "\n".join(ids), "base": "shapes"}
    app = page("knowledge", probed, **said)
    assert result(app).method == "votes" and len(method_of(app)) == 1
    app.button_group(key="method_votes").set_value("probe").run()
    expected = opened(probed).classify(ids, "shapes", method="probe")
    assert result(app).to_arrow().equals(expected.to_arrow()) and result(app).method == "probe 1"
    assert state_of(app).link()["method"] == "probe" and "by probe 1, trained on members" in text_of(app)
    assert "Weight of a vote" not in [one.label for one in app.selectbox]
    app = page("knowledge", probed, **{**said, "base": "unused", "method": "probe"})
    assert result(app).method == "votes" and not method_of(app)


@pytest.mark.slow
def test_a_base_is_chosen_with_its_version_and_stands_in_the_link(page, pictures):
    app = page("knowledge", pictures, of="ids", ids=tiny.object_id(40), base="shapes")
    box = next(one for one in app.selectbox if one.label == "Knowledge base")
    assert box.options == ["numbers", "odd, version 2", "odd, version 1", "shapes", "two"]
    box.set_value(2).run()
    assert (result(app).base.name, result(app).base.version) == ("odd", 1)
    link = state_of(app).link()
    assert (link["base"], link["version"], link["ids"]) == ("odd", "1", tiny.object_id(40))
    again = page("knowledge", pictures, **{name: link[name] for name in ("base", "version", "of", "ids")})
    assert result(again).to_arrow().equals(result(app).to_arrow())


@pytest.mark.slow
def test_typed_ids_are_taken_a_line_or_a_comma_each_and_others_are_named(page, pictures):
    ids = [tiny.object_id(row) for row in (5, 6, 9)]
    app = page(
        "knowledge", pictures, of="ids", ids=f"{ids[0]}, {ids[1]}\n\n{ids[2]}\n{ids[0]}\nnobody here", base="two"
    )
    assert sorted(result(app).ids) == ids
    assert "1 of the lines name no object of this atlas: `nobody here`" in text_of(app)
    app.text_area(key="knowledge_text").set_value(ids[1]).run()
    assert result(app).ids == [ids[1]] and state_of(app).param("ids") == ids[1]


@pytest.mark.slow
def test_a_collection_is_classified(page, pictures, tmp_path):
    own = Path(shutil.copy(pictures, tmp_path / "own.duckdb"))
    app = page("knowledge", own, of="collection", base="two")
    assert "has no object of this atlas" in text_of(app) and not app.dataframe[1:]
    marked = [tiny.object_id(3), tiny.object_id(1)]
    state_of(app).mark([*marked, "of another atlas"], "true")
    app.run()
    assert result(app).ids == marked


# ---- no answer


def test_no_answer_where_the_neighbors_are_far_says_so(page, pictures):
    # white and round galaxies, of which the base knows none
    app = page("knowledge", pictures, of="ids", ids=tiny.object_id(42), base="two")
    (votes,) = result(app)
    assert (votes.label, votes.reason) == (None, "far")
    assert listed(app)["reason"] == ["far"]
    assert "no label: the nearest voter" in text_of(app) and "1 without an answer (far)" in text_of(app)


def test_no_answer_where_the_voters_are_split_says_so(page, pictures):
    app = page("knowledge", pictures, of="ids", ids=tiny.object_id(42), base="odd", k="5")
    (votes,) = result(app)
    assert (votes.label, votes.reason) == (None, "split")
    assert "no label: no class is probable enough, " in text_of(app)
    assert "a share of the votes, not calibrated" in text_of(app)


@pytest.mark.slow
def test_an_object_without_a_vector_has_no_voters(page, both, tmp_path):
    path = Path(shutil.copytree(both.with_suffix(".atlas"), tmp_path / "both.atlas"))
    select = "SELECT object_id, object_id AS name FROM galaxies WHERE object_id IN ('quasar', 'old-near')"
    galsearch.create_base(path, "names", select, by="image")
    app = page("knowledge", path, of="ids", ids="lines-near\nquasar")
    assert listed(app)["reason"] == ["without a vector", None]
    assert "no label: it has no image to compare" in text_of(app)


@pytest.mark.slow
def test_a_base_of_numbers_gives_a_value(page, pictures):
    votes = opened(pictures).classify(tiny.object_id(42), "numbers")
    app = page("knowledge", pictures, of="ids", ids=tiny.object_id(42), base="numbers")
    assert f"mag_r {votes.value:.4g}" in text_of(app)
    assert listed(app)["value"] == [votes.value]


@pytest.mark.slow
@pytest.mark.parametrize("k", ["50", "0", "-3", "x", "9" * 400])
def test_a_number_of_voters_that_the_base_has_not_is_passed_over(page, pictures, k):
    app = page("knowledge", pictures, of="ids", ids=tiny.object_id(42), base="odd", k=k)
    assert not app.error and result(app).neighbors.distance.shape[1] == 3


@pytest.mark.slow
def test_who_asks_too_often_is_told_and_keeps_the_page(page, pictures, monkeypatch):
    import contextlib

    import voting

    @contextlib.contextmanager
    def refused(line="search"):
        raise galsearch.BusyError("this session asked 60 times within a minute")
        yield

    monkeypatch.setattr(voting.limits, "turn", refused)
    import state

    monkeypatch.setattr(state.State, "hits", lambda self: opened(pictures).search(k=3))
    monkeypatch.setattr("inside._tables", lambda *_: {"knowledge_bases"})
    app = page("knowledge", pictures, base="two")
    assert "asked 60 times" in text_of(app) and base_column(app)


# ---- why


def test_every_voter_is_named_with_its_vote_and_its_columns(page, pictures):
    app = page("knowledge", pictures, of="ids", ids=tiny.object_id(46), base="shapes", k="5")
    votes = opened(pictures).classify(tiny.object_id(46), "shapes", k=5)
    text = text_of(app)
    for voter, row in zip(votes, votes.neighbors.to_pylist(), strict=True):
        assert f"**{voter.label}** · distance {voter.distance:.3f} · weight {voter.weight:.3f}" in text
        assert f"mag_r {row['mag_r']:.5g}" in text
        assert f"**{voter.object_id}**" in text
    assert f"probability {votes.probability:.3f}, calibrated" in text
    assert not charts(app)  # pictures have no spectra, and lines of theirs were not measured


@pytest.mark.slow
def test_a_row_that_is_chosen_says_why(page, pictures):
    ids = [tiny.object_id(row) for row in (5, 6, 9)]
    app = page("knowledge", pictures, of="ids", ids="\n".join(ids), base="two")
    next(one for one in app.selectbox if one.label == "Why").set_value(ids[2]).run()
    assert state_of(app).selected == ids[2] and state_of(app).link()["object"] == ids[2]
    assert any(ids[2] in head.value.replace("\\", "") for head in app.header)


def rows_of(app) -> list[dict]:
    """Return the rows of all tables that the BPT diagram draws."""
    tables = [pa.ipc.open_stream(one.data.data).read_all() for one in diagram(app).datasets]
    return [row for table in tables for row in table.to_pylist()]


def points_of(app) -> dict[str, dict]:
    """Return the objects that are marked on the BPT diagram, by name."""
    return {row["name"]: row for row in rows_of(app) if "name" in row}


def diagram(app):
    """Return the BPT diagram as it is sent to the browser."""
    (chart,) = [
        one for one in app.get("vega_lite_chart") + app.get("arrow_vega_lite_chart") if "N II" in one.proto.spec
    ]
    return chart.proto


@pytest.mark.slow
def test_of_spectra_alone_the_object_is_drawn_over_its_voters_and_on_the_bpt_diagram(page, spectra):
    app = page("knowledge", spectra, of="ids", ids="young-0")
    (votes,) = result(app)
    assert votes.label == "young" and {voter.label for voter in votes} == {"young"}
    lines = next(one for one in charts(app) if one is not None and "Rest-frame" in json.dumps(one))
    assert "Rest-frame wavelength, vacuum [Å]" in axis_titles(lines)
    rows = opened(spectra).rows(["young-0", *(voter.object_id for voter in votes)]).to_pylist()
    marked = points_of(app)
    assert set(marked) == {row["object_id"] for row in rows}
    for row in rows:
        at = marked[row["object_id"]]
        assert (at["x"], at["y"]) == pytest.approx((row["log_nii_halpha"], row["log_oiii_hbeta"]))
        # what was drawn into the files
        assert at["x"] == pytest.approx(np.log10(1.5 * 6585.27 / (4.5 * 6564.61)), abs=0.03)
        assert at["y"] == pytest.approx(np.log10(0.9 * 5008.24 / (1.5 * 4862.683)), abs=0.06)
    assert "the 8 galaxies of this atlas that have all four lines" in text_of(app)
    assert f"log_nii_halpha {rows[1]['log_nii_halpha']:.5g}" in text_of(app)


@pytest.mark.slow
def test_an_object_without_lines_is_not_on_the_diagram_and_its_voters_are(page, spectra):
    app = page("knowledge", spectra, of="ids", ids="old", k="5")
    voters = {voter.object_id for voter in result(app)[0]}
    assert set(points_of(app)) == voters
    assert "1 object without them is not marked" in text_of(app)


@pytest.mark.slow
def test_the_curves_are_those_of_the_science(page, spectra):
    app = page("knowledge", spectra, of="ids", ids="young-0")
    drawn = {}
    for row in rows_of(app):
        if "source" in row:
            drawn.setdefault(row["source"], []).append((row["x"], row["y"]))
    for curve in galsearch.demarcation_curves():
        np.testing.assert_allclose(drawn[curve.source], np.stack([curve.log_nii_halpha, curve.log_oiii_hbeta], axis=1))
        assert curve.source in text_of(app)


@pytest.mark.slow
def test_the_page_of_an_object_shows_its_point_and_what_a_base_says(page, spectra):
    app = page("object", spectra, selected="nucleus-1")
    assert set(points_of(app)) == {"nucleus-1"} and "What its neighbors say" in text_of(app)
    box = next(one for one in app.selectbox if one.label == "Classify by")
    assert box.value is None
    box.set_value("kinds").run()
    assert not app.exception and state_of(app).param("base") == "kinds"
    assert "**nucleus**" in text_of(app) and "2 of 3 voters" in text_of(app)  # it is one of three
    assert len(charts(page("object", spectra, selected="old"))) == 1  # its spectrum alone


@pytest.mark.slow
def test_the_page_spectra_marks_the_spectrum_and_those_like_it(page, spectra):
    app = page("spectra", spectra, selected="young-1")
    held = {name for name in KINDS if name != "old"}
    assert set(points_of(app)) == held & {"young-1", *app.session_state["spectra_hits"][1].ids}


def test_many_galaxies_are_counted_in_squares(app_path):
    from drawing import bpt

    rng = np.random.default_rng(3)
    x, y = rng.normal(-0.4, 0.2, 5000).round(2), rng.normal(0, 0.3, 5000).round(2)
    crowd = pa.table({"x": x, "y": y, "n": np.full(5000, 3)})
    squares = bpt.squared(crowd)
    across, up = (np.floor(values / bpt.SQUARE + 1e-6).astype(int) for values in (x, y))
    expected = {}
    for cell in zip(across.tolist(), up.tolist(), strict=True):
        expected[cell] = expected.get(cell, 0) + 3
    found = zip(*(squares[name].to_pylist() for name in ("x", "y", "n")), strict=True)
    assert {(round(a / bpt.SQUARE), round(b / bpt.SQUARE)): n for a, b, n in found} == expected
    spec = bpt.chart(crowd, [bpt.Point("far off", 2.5, -3.0)], {}).to_dict()
    assert any(layer.get("mark", {}).get("type") == "rect" for layer in spec["layer"])
    ends = spec["layer"][0]["encoding"]["x"]["scale"]["domain"] + spec["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert ends[1] > 2.5 and ends[2] < -3.0  # what is marked lies within the axes


# ---- texts of strangers


@pytest.mark.slow
def test_texts_of_a_hostile_base_are_text(page, hostile_path):
    app = page("knowledge", hostile_path)
    assert not app.exception and not app.error
    drawn = " ".join(str(one.value) for one in [*app.markdown, *app.header, *app.caption])
    assert "](https" not in drawn and "<script" not in drawn and "[x](" not in drawn
    assert len(result(app)) == 24


NONSENSE = ["<b>x</b>", "-1", "nan", "') --", "a\0b", "9" * 3_000, "x\n" * 3_000]


@pytest.mark.slow
@pytest.mark.parametrize("said", NONSENSE)
def test_nonsense_in_the_url_classifies_as_at_first(page, pictures, said):
    names = ("base", "version", "k", "weight", "prevalence", "of")
    app = page("knowledge", pictures, **dict.fromkeys(names, said))
    assert not app.exception and result(app).base.name == "numbers" and len(result(app)) == 24
    app = page("knowledge", pictures, of="ids", ids=said)
    assert not app.exception and not app.dataframe[1:]


@pytest.mark.slow
def test_a_base_that_a_stranger_has_bent_is_one_message(page, pictures, tmp_path):
    import duckdb

    path = Path(shutil.copy(pictures, tmp_path / "bent.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE knowledge_bases SET calibration = '[1]' WHERE base = 'two'")
    with pytest.raises(AssertionError, match="FormatError"):  # which `app.draw` tells in its words
        page("knowledge", path)
