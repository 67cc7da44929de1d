"""Spectra in the app without a browser: what is drawn of them, uploads, links, and pages of atlases without images."""

from __future__ import annotations

import base64
import functools
import io
import json
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image
from tiny_models import picture
from tiny_spectra import OBJECTS, WAVELENGTH, flux_of, write_models, write_spectra, write_tiny_words

import galsearch
from galsearch.science.spectra import to_rest_frame

pytest.importorskip("streamlit", reason="the app needs streamlit")
from streamlit.testing.v1 import AppTest

APP = Path(__file__).parent.parent / "streamlit_app"
SLOW_MACHINE = 60  # seconds that one run may take
PAGES = sorted(path.stem for path in (APP / "views").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    return write_spectra(tmp_path_factory.mktemp("spectra"), OBJECTS)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    rows = [f"{name},{150 + n},{n},{z},{15 + n}" for n, (name, (_, z)) in enumerate(OBJECTS.items())]
    path.write_text("\n".join(["object_id,ra,dec,z,mag_r", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def spectra_only(tmp_path_factory, models, files, table) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "s.atlas"
    galsearch.build(path, spectra=files, table=table, models=models)
    return galsearch.bundle(path, path.with_suffix(".duckdb"))


@pytest.fixture(scope="module")
def both(tmp_path_factory, models, files, table) -> Path:
    """An atlas whose objects all have spectra, and only two of them an image."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "images").mkdir()
    for name in ("quasar", "old-near"):
        Image.fromarray(picture(color="red")).resize((24, 24)).save(folder / "images" / f"{name}.png")
    galsearch.build(folder / "b.atlas", images=folder / "images", spectra=files, table=table, models=models)
    return galsearch.bundle(folder / "b.atlas", folder / "b.duckdb")


@pytest.fixture(scope="module")
def worded(tmp_path_factory, models, files) -> dict[str, Path]:
    """Bundles whose words are compared with spectra: of spectra alone, and of both kinds."""
    folder = tmp_path_factory.mktemp("worded")
    with_words = shutil.copytree(models, folder / "models")
    write_tiny_words(with_words)
    (folder / "images").mkdir()
    for name, color in {"quasar": "red", "old-near": "blue"}.items():
        Image.fromarray(picture(color=color)).resize((24, 24)).save(folder / "images" / f"{name}.png")
    galsearch.build(folder / "s.atlas", spectra=files, models=with_words)
    galsearch.build(folder / "b.atlas", images=folder / "images", spectra=files, models=with_words)
    forms = {"alone": "s", "both": "b"}
    return {name: galsearch.bundle(folder / f"{one}.atlas", folder / f"{one}.duckdb") for name, one in forms.items()}


@functools.cache
def opened(path: Path) -> galsearch.Atlas:
    """Return the one handle of an atlas that all tests here share, as the sessions of an app do."""
    return galsearch.open(path, visitors=galsearch.Limits(processes=1, spare=0, seconds=60))


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    opened.cache_clear()


@pytest.fixture
def app_path(monkeypatch, packages_read_once):
    monkeypatch.syspath_prepend(str(APP))


@pytest.fixture
def page(app_path):
    """Draw one page alone as a visitor gets it; `url` is what only this page says, `query` what is asked."""

    def run(name: str, path: Path, *, query: dict | None = None, selected: str | None = None, **url: str) -> AppTest:
        def script(name, path, said, url):
            from importlib import import_module

            import streamlit as st
            from state import of_session
            from test_app_spectra import opened

            state = of_session(opened(path))
            if state._at != name:
                state._at = name
                state._take(said)
                state._params[name] = dict(url)
            view = import_module(f"views.{name}")
            st.session_state.offered = view.needs(state.atlas)
            if st.session_state.offered:
                view.show(state)

        said = {} if query is None else {"query": json.dumps(query)}
        said |= {} if selected is None else {"object": selected}
        arguments = {"name": name, "path": path, "said": said, "url": url}
        app = AppTest.from_function(script, kwargs=arguments, default_timeout=SLOW_MACHINE).run()
        assert not app.exception, app.exception
        return app

    import streamlit

    streamlit.cache_data.clear()
    return run


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.info, *app.warning, *app.error, *app.caption, *app.header]
    return " ".join(str(element.value) for element in parts).replace("\\", "")


def charts(app: AppTest) -> list[dict]:
    """Return what Vega draws."""
    return [json.loads(one.proto.spec) for one in app.get("vega_lite_chart") + app.get("arrow_vega_lite_chart")]


def axis_titles(spec: dict) -> set[str]:
    axes = [layer["encoding"].get(name) for layer in spec["layer"] for name in "xy" if "encoding" in layer]
    return {axis["title"] for axis in axes if axis and axis.get("title")}


def upload(app: AppTest, name: str, content: bytes) -> AppTest:
    app.file_uploader(key="spectra_upload").set_value((name, content, "application/octet-stream")).run()
    assert not app.exception, app.exception
    return app


def state_of(app: AppTest):
    return app.session_state["state"]


# ---- numbers


@pytest.fixture
def drawing(app_path):
    from drawing import spectrum

    return spectrum


def noisy(count: int = 9000, seed: int = 0) -> galsearch.Spectrum:
    rng = np.random.default_rng(seed)
    ivar = rng.uniform(50, 150, count)
    return galsearch.Spectrum(np.linspace(4000, 9000, count), rng.normal(10, ivar**-0.5), ivar, z=0.1)


def test_bins_are_weighted_means_and_their_errors(drawing):
    whole = noisy(9000)
    one = drawing.thinned(whole, 1000)
    weights = whole.ivar.reshape(1000, 9)
    means = (weights * whole.flux.reshape(1000, 9)).sum(axis=1) / weights.sum(axis=1)
    alone = np.isin(one.wavelength, whole.wavelength_angstrom)
    np.testing.assert_allclose(one.flux[~alone], means, rtol=1e-12)
    np.testing.assert_allclose(one.error[~alone], weights.sum(axis=1) ** -0.5, rtol=1e-12)


def test_a_single_pixel_that_stands_out_of_millions_is_drawn(drawing):
    flux = np.ones(2_000_000)
    flux[1_234_567] = 50
    whole = galsearch.Spectrum(np.linspace(3000, 10000, len(flux)), flux, np.full(len(flux), 100.0))
    one = drawing.thinned(whole)
    assert len(one.flux) <= 2 * drawing.MOST_POINTS
    assert one.flux.max() == 50 and one.wavelength[one.flux.argmax()] == whole.wavelength_angstrom[1_234_567]
    assert (np.diff(one.wavelength) >= 0).all() and (one.run == 0).all()


def test_gaps_stay_gaps(drawing):
    wavelength = np.concatenate([np.arange(4000.0, 4005), np.arange(4100.0, 4105)])  # pixels that are not there
    ivar = np.ones(10)
    ivar[7] = 0  # one without data
    one = drawing.thinned(galsearch.Spectrum(wavelength, np.ones(10), ivar))
    assert one.run.tolist() == [0] * 5 + [1] * 2 + [2] * 2
    assert 4102.0 not in one.wavelength


def test_smoothing_is_the_mean_of_neighbors_by_their_weights(drawing):
    whole = noisy(50)
    ivar = np.where(np.arange(50) == 20, 0.0, whole.ivar)
    whole = galsearch.Spectrum(whole.wavelength_angstrom, np.where(ivar > 0, whole.flux, 0.0), ivar)
    smooth = drawing.smoothed(whole, 5)
    for at in (2, 10, 21, 47):
        part = slice(at - 2, at + 3)
        assert smooth.flux[at] == pytest.approx(np.average(whole.flux[part], weights=ivar[part]))
        assert smooth.ivar[at] == pytest.approx(ivar[part].sum())
    assert smooth.ivar[20] == 0
    assert drawing.smoothed(whole, 1) is whole


@pytest.mark.parametrize("count", [2, 3, 20])
def test_few_pixels_can_be_smoothed(drawing, count):
    assert len(drawing.smoothed(noisy(count), 31)) == count


def test_the_rest_frame_is_that_of_the_library_and_the_way_back_leads_back(drawing):
    whole = noisy(100)
    shown, expected = drawing.in_frame(whole, "rest"), to_rest_frame(whole)
    back = drawing.in_frame(shown, "observed")
    for name in ("wavelength_angstrom", "flux", "ivar"):
        np.testing.assert_allclose(getattr(shown, name), getattr(expected, name), rtol=1e-12)
        np.testing.assert_allclose(getattr(back, name), getattr(whole, name), rtol=1e-12)


def test_lines_are_marked_where_the_redshift_puts_them(drawing):
    whole = noisy(2000)
    for frame, factor in (("rest", 1.0), ("observed", 1.1)):
        spec = drawing.chart("a", drawing.in_frame(whole, frame), {}, lines=True, band=True).to_dict()
        rows = [row for part in spec["datasets"].values() for row in part if row.get("line") == "Hα"]
        assert rows[0]["wavelength"] == pytest.approx(6564.61 * factor)
        assert f"{frame.capitalize()}-frame wavelength, vacuum [Å]" in axis_titles(spec)


def test_without_a_redshift_no_line_is_marked(drawing):
    unknown = galsearch.Spectrum(np.linspace(4000, 9000, 50), np.ones(50), np.ones(50))
    spec = drawing.chart("a", unknown, {}, lines=True, band=True).to_dict()
    assert not [row for part in spec["datasets"].values() for row in part if "line" in row]
    assert drawing.frames(unknown) == ("observed",)


def test_others_are_scaled_to_the_median(drawing):
    whole = noisy(500)
    other = galsearch.Spectrum(whole.wavelength_angstrom, 7 * whole.flux, whole.ivar / 49, z=0.1)
    spec = drawing.chart("a", whole, {"b": other}, lines=False, band=False).to_dict()
    rows = [row for part in spec["datasets"].values() for row in part if row.get("name") == "b"]
    assert np.median([row["flux"] for row in rows]) == pytest.approx(np.median(whole.flux), rel=1e-3)


@pytest.mark.parametrize("ivar", [0.0, 1.0])
def test_a_sketch_is_an_svg_of_nothing_but_shapes(drawing, ivar):
    flat = galsearch.Spectrum(np.linspace(4000, 9000, 50), np.zeros(50), np.full(50, ivar), z=0.0)
    for source in (drawing.sketch(flat), drawing.sketch(noisy(), flat), drawing.sketch(flat, noisy())):
        head, _, content = source.partition(",")
        assert head == "data:image/svg+xml;base64"
        root = ElementTree.fromstring(base64.b64decode(content))
        assert {part.tag.rpartition("}")[2] for part in root} <= {"rect", "path"}
        assert b"nan" not in base64.b64decode(content)


def test_nothing_can_be_drawn_of_a_spectrum_without_data_and_it_fails_nowhere(drawing):
    empty = galsearch.Spectrum(np.linspace(4000, 9000, 50), np.zeros(50), np.zeros(50), z=0.0)
    drawing.chart("a", empty, {"b": noisy()}, lines=True, band=True).to_dict()
    assert len(drawing.thinned(empty).flux) == 0


# ---- in a worker


def test_a_file_of_a_visitor_is_read_as_the_library_reads_it(spectra_only, files):
    expected = galsearch.read_spectrum(files / "quasar.fits", z=0.12)
    with galsearch.open(spectra_only, visitors=galsearch.Limits(processes=1)) as atlas:
        for source in (files / "quasar.fits", (files / "quasar.fits").read_bytes()):
            one = atlas.read_spectrum(source, name="quasar.fits", z=0.12)
            for name in ("wavelength_angstrom", "flux", "ivar"):
                np.testing.assert_array_equal(getattr(one, name), getattr(expected, name))
            assert (one.z, one.frame, one.kind, one.notes) == (0.12, "observed", expected.kind, expected.notes)
        with pytest.raises(galsearch.SchemaError, match=r"x\.fits"):
            atlas.read_spectrum(b"SIMPLE  = garbage" * 300, name="x.fits")
        with pytest.raises(galsearch.QueryError, match="one at a time"):
            atlas.read_spectrum(files / "quasar.fits", redshifts="/etc/hostname")


# ---- pages


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_drawn_of_an_atlas_of_spectra_alone(page, spectra_only, name):
    for selected in (None, "quasar"):
        app = page(name, spectra_only, selected=selected)
        assert not app.error, text_of(app)
        assert app.session_state["offered"] == (name not in ("evaluate", "captions", "rerank"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_drawn_of_an_atlas_of_images_and_spectra(page, both, name):
    query = {"terms": [{"kind": "object", "value": "quasar", "weight": 1, "by": "spectrum"}]}
    for selected in ("quasar", "lines-near"):  # the second has no image
        app = page(name, both, selected=selected, query=query)
        assert not app.error, text_of(app)
        assert app.session_state["offered"]


@pytest.mark.slow
def test_the_page_of_an_object_draws_its_spectrum_in_the_frame_of_the_url(page, spectra_only):
    app = page("object", spectra_only, selected="lines-far")
    (spec,) = charts(app)
    assert axis_titles(spec) == {"Rest-frame wavelength, vacuum [Å]", "Flux [10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹]"}
    assert "z = 0.3" in text_of(app) and "no image" not in text_of(app)
    app = page("object", spectra_only, selected="lines-far", frame="observed", range="5000,6000", smooth="5")
    (spec,) = charts(app)
    assert "Observed-frame wavelength, vacuum [Å]" in axis_titles(spec)
    ends = next(layer["encoding"]["x"]["scale"]["domain"] for layer in spec["layer"])
    assert 4999 < ends[0] < 5003 and 5997 < ends[1] < 6001


@pytest.mark.slow
@pytest.mark.parametrize("said", ["<b>", "1e9", "9999999999,1", "5,4", "a,b", "٣,٤", "-1,99999", "0,1", "," * 9000])
def test_nonsense_in_the_url_shows_the_spectrum_as_at_first(page, spectra_only, said):
    app = page("object", spectra_only, selected="quasar", frame=said, smooth=said, range=said, lines=said, overlay=said)
    assert len(charts(app)) == 1 and not app.error


@pytest.mark.slow
def test_neighbors_by_spectrum_are_laid_over_on_demand(page, both):
    app = page("object", both, selected="old-near")
    assert not [one for one in app.get("button_group") if "Most alike by spectrum" in str(one.proto)]
    app.toggle(key="overlay_False").set_value(True).run()
    (spec,) = charts(app)
    names = next(
        layer["encoding"]["color"]["scale"]["domain"] for layer in spec["layer"] if "color" in layer["encoding"]
    )
    assert names == ["old-near", "old-far"]
    assert state_of(app).param("overlay") == "on"


def test_no_spectrum_is_looked_for_in_an_atlas_of_images(page, tiny_bundle, monkeypatch):
    monkeypatch.setattr(galsearch.Atlas, "spectra", lambda *_: pytest.fail("it read spectra"))
    app = page("object", tiny_bundle)
    assert charts(app) == [] and "Most like it" in text_of(app)
    assert not page("spectra", tiny_bundle).session_state["offered"]


@pytest.mark.slow
def test_words_that_name_nothing_are_explained_where_there_are_only_spectra(page, spectra_only):
    app = page("search", spectra_only)
    assert "words cannot be compared" in text_of(app)
    assert not app.get("file_uploader")
    app.text_input(key="words").set_value("spiral galaxy").run()
    assert "“spiral galaxy” is no ID, name or position in this atlas" in text_of(app)
    assert not app.error and not app.exception
    app.text_input(key="words").set_value("quasar").run()
    assert state_of(app).selected == "quasar"


@pytest.mark.slow
def test_words_search_the_spectra_of_an_atlas_of_spectra_alone(page, worded):
    app = page("search", worded["alone"])
    assert "strong [O III] emission" in app.text_input(key="words").placeholder
    assert not [one for one in app.get("button_group") if "Words describe" in str(one.proto)]
    app.text_input(key="words").set_value("green").run()
    assert not app.exception
    assert state_of(app).hits().ids[0] == "quasar"


@pytest.mark.slow
def test_words_are_for_pictures_or_for_spectra_as_is_chosen(page, worded):
    asked = {"terms": [{"kind": "text", "value": "red", "weight": 1.0}]}
    app = page("search", worded["both"], query=asked)
    assert state_of(app).hits().ids[0] == "quasar"  # its picture is red
    app.button_group(key="words_by").set_value("spectrum").run()
    assert not app.exception
    assert state_of(app).hits().ids[0].startswith("old")  # red means passive
    assert state_of(app).query.terms[0].by == "spectrum"
    app.button_group(key="words_by").set_value("image").run()
    assert state_of(app).hits().ids[0] == "quasar"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["alone", "both"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_drawn_where_words_are_compared_with_spectra(page, worded, form, name):
    asked = {"terms": [{"kind": "text", "value": "broad Balmer lines", "weight": 1.0, "by": "spectrum"}]}
    app = page(name, worded[form], query=asked, selected="quasar")
    offered = form == "both" or name not in ("evaluate", "captions", "rerank")
    assert app.session_state["offered"] == offered


@pytest.mark.slow
def test_more_like_an_object_without_an_image_goes_by_its_spectrum(page, both):
    app = page("search", both)
    state = state_of(app)
    assert state.embeddings_of("lines-near") == ["spectrum"]
    assert state.embeddings_of("quasar") == ["image", "spectrum"]
    state.like("lines-near")
    assert state.query.terms == (galsearch.Term("object", "lines-near", by="spectrum"),)
    assert state.hits().ids[0] == "lines-far"
    state.like("quasar")
    assert state.query.terms == (galsearch.Term("object", "quasar"),)


@pytest.mark.slow
def test_the_map_is_that_of_the_main_vectors(page, spectra_only):
    app = page("map", spectra_only)
    assert "has no similarity map" not in text_of(app)
    assert not [one for one in app.toggle if one.label == "Images"]


# ---- the page Spectra


@pytest.mark.slow
def test_the_spectra_most_like_one_are_listed_with_scores_and_columns(page, spectra_only):
    app = page("spectra", spectra_only, selected="lines-near", query={"terms": [], "where": "z > 0.05"})
    with galsearch.open(spectra_only) as atlas:
        expected = atlas.search(atlas["lines-near"], where="z > 0.05")
    text = text_of(app)
    assert app.session_state["spectra_hits"][1].ids == expected.ids
    assert "3 best of 3 objects that pass `z > 0.05`" in text
    assert f"score {expected.scores[0]:.4f} · z 0.3 · mag_r 16" in text


@pytest.mark.slow
def test_an_uploaded_file_finds_itself_and_its_search_is_in_the_link(page, spectra_only, files):
    app = upload(page("spectra", spectra_only), "mine.fits", (files / "quasar.fits").read_bytes())
    hits = app.session_state["spectra_hits"][1]
    assert hits.ids[0] == "quasar" and hits.scores[0] == pytest.approx(1, abs=1e-4)
    (term,) = hits.query.terms
    assert (term.kind, term.by) == ("embedding", "spectrum")
    assert "mine.fits" in text_of(app) and not app.error
    state = state_of(app)
    state.change(terms=hits.query.terms)
    from links import from_text, to_text

    assert from_text(to_text(state.query)) == state.query
    import phrasing

    assert phrasing.formula(state.query) == "your spectrum"


@pytest.mark.slow
def test_what_a_file_does_not_say_is_asked_for_and_then_taken(page, spectra_only):
    rows = zip(WAVELENGTH / 10, flux_of("broad", 0.1), strict=True)
    text = "lam,f\n" + "\n".join(f"{nm:.4f},{flux:.5f}" for nm, flux in rows)
    app = upload(page("spectra", spectra_only), "mine.csv", text.encode())
    assert "flux" in text_of(app) and len(app.error) == 1 and charts(app) == []
    for name, value in {"wavelength": "lam", "flux": "f", "flux_unit": "relative"}.items():
        app.text_input(key=f"state_{name}").set_value(value)
    app.selectbox(key="state_wavelength_unit").set_value("nm")
    app.selectbox(key="state_medium").set_value("vacuum").run()
    assert "no redshift is known" in text_of(app) and len(charts(app)) == 1  # drawn as observed, and not searched
    app.number_input(key="state_z").set_value(0.1).run()
    assert not app.error and not app.exception
    assert app.session_state["spectra_hits"][1].ids[0] == "quasar"


GARBAGE = {
    "empty.fits": b"",
    "noise.fits": np.random.default_rng(0).bytes(30_000),
    "half.fits": b"SIMPLE  =                    T" + b" " * 2850,
    "picture.gz": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
    "bomb.gz": b"\x1f\x8b\x08" + b"\xff" * 500,
    "<img src=x onerror=alert(1)>.csv": b"=cmd,flux\n1,2\n",
    "../../etc/passwd.txt": b"root:x:0:0\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_in_words(page, spectra_only, name):
    app = upload(page("spectra", spectra_only), name, GARBAGE[name])
    assert len(app.error) == 1 and charts(app) == []
    assert "mistake in galsearch" not in text_of(app)


@pytest.mark.slow
def test_two_million_pixels_are_read_and_drawn_by_a_few_thousand_points(page, spectra_only):
    flux = np.interp(np.linspace(3800, 9196, 2_000_000), WAVELENGTH, flux_of("broad", 0.1))
    table = Table({"wavelength": np.linspace(3800, 9196, len(flux)), "flux": flux.astype(np.float32)})
    table["wavelength"].unit, table["flux"].unit = "Angstrom", "1e-17 erg / (s cm2 Angstrom)"
    table.meta["AIRORVAC"] = "vac"
    file = io.BytesIO()
    table.write(file, format="fits")
    app = page("spectra", spectra_only)
    app.file_uploader(key="spectra_upload").set_value(("big.fits", file.getvalue(), "application/fits")).run()
    app.number_input(key="state_z").set_value(0.1).run()
    assert not app.exception and not app.error, text_of(app)
    assert len(app.session_state["spectra_read"].spectrum) <= 2 * sys.modules["views.spectra"].MOST_PIXELS
    (chart,) = app.get("vega_lite_chart") + app.get("arrow_vega_lite_chart")
    assert len(chart.proto.SerializeToString()) < 1_500_000
    assert app.session_state["spectra_hits"][1].ids[0] == "quasar"


@pytest.mark.slow
def test_a_link_that_names_a_file_reads_none(page, spectra_only, files, monkeypatch):
    monkeypatch.setattr(galsearch.Atlas, "read_spectrum", lambda *_: pytest.fail("it read a file of ours"))
    query = {"terms": [{"kind": "spectrum", "value": str(files / "quasar.fits"), "weight": 1}]}
    for name in ("search", "spectra", "object"):
        app = page(name, spectra_only, query=query)
        state = state_of(app)
        assert state.query.terms == () and state.link_problem == "The link names a file; upload it here instead."


@pytest.mark.slow
def test_a_damaged_spectrum_leaves_the_others_their_sketches(page, spectra_only, tmp_path):
    import shutil

    import duckdb

    path = Path(shutil.copy(spectra_only, tmp_path / "damaged.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE spectra SET log_wavelength_step = 0 WHERE object_id = 'quasar'")
    import sketches

    with galsearch.open(path) as atlas:
        drawn = sketches.faces(atlas, list(OBJECTS))
    assert set(drawn) == set(OBJECTS) - {"quasar"}
    assert not page("search", path).exception
    app = page("object", path, selected="quasar")
    assert "its wavelengths begin" in text_of(app)
    assert {"Most like it", "Columns"} <= {head.value for head in app.header}  # all else is there
