"""A static site has the spectra, lines and knowledge bases of its atlas, so that a page votes as Python does."""

import contextlib
import shutil
from importlib import resources

import numpy as np
import pytest
import tiny
from site_reader import Site
from tiny_spectra import OBJECTS, write_models, write_spectra, write_tiny_words

import galsearch
from galsearch.encode import Encoder, run_graph, shipped
from galsearch.site.folder import Staging
from galsearch.site.vectors import write_chips

pytestmark = pytest.mark.usefixtures("page")
SHAPES = "SELECT object_id, CASE WHEN right(object_id, 2)::INT % 4 = 0 THEN 'edge' ELSE 'other' END FROM galaxies"


@pytest.fixture(scope="module")
def spectra_path(tmp_path_factory):
    """An atlas of five spectra, in which words are compared by a projector."""
    home = tmp_path_factory.mktemp("spectra")
    (home / "models").mkdir()
    folder = write_models(home / "models")
    write_tiny_words(folder)
    galsearch.build(home / "s.atlas", spectra=write_spectra(home / "spectra", OBJECTS), models=folder)
    return home / "s.atlas"


@pytest.fixture(scope="module")
def known_path(tiny_folder, tmp_path_factory):
    """The tiny atlas with a base of classes and one of numbers."""
    path = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("known") / "k.atlas")
    galsearch.create_base(path, "shapes", SHAPES, columns=["z"])
    galsearch.create_base(path, "redshift", "SELECT object_id, z FROM galaxies WHERE z IS NOT NULL")
    return path


def test_spectra_are_those_of_the_atlas(page, spectra_path, tmp_path):
    site = Site(galsearch.write_site(spectra_path, tmp_path / "out"))
    with galsearch.open(spectra_path, device="cpu") as atlas:
        for row in range(len(OBJECTS)):
            name = site.card(row)[0]["object_id"]
            expected = atlas.spectra([name])[name]
            about, flux, error = site.spectrum(row)
            wavelength = 10 ** (about["log_wavelength_start"] + about["log_wavelength_step"] * np.arange(about["n"]))
            there = expected.ivar > 0
            assert np.allclose(wavelength, expected.wavelength_angstrom)
            assert np.array_equal(np.isfinite(flux), there) and np.array_equal(np.isfinite(error), there)
            assert np.allclose(flux[there], expected.flux[there])
            assert np.allclose(error[there] ** -2.0, expected.ivar[there], rtol=1e-5)
            assert (about["frame"], about["z"]) == ("observed", pytest.approx(expected.z))
    assert {"name": "Hβ", "wavelength_angstrom": pytest.approx(4862.68, abs=0.01)} in site.manifest["lines"]


def test_words_for_spectra_have_their_projector(page, spectra_path, tmp_path):
    site = Site(galsearch.write_site(spectra_path, tmp_path / "out"))
    projector = site.manifest["text_encoder"]["projectors"]["spectrum"]
    text = Encoder.from_folder(shipped("text", root=spectra_path.with_name("models")), device="cpu")
    feed = {projector["input"]: text.encode(["red galaxy"])}
    got = run_graph(site.inflated(projector["body"]), feed, output=projector["output"], name=projector["model"])[0]
    with galsearch.open(spectra_path, device="cpu") as atlas:
        assert got @ atlas.embed("red galaxy", by="spectrum") > 0.9999
    assert site.space("spectrum")["frame"] == "rest" and site.space("spectrum")["modality"] == "spectrum"


@pytest.mark.slow
def test_an_object_without_a_spectrum_has_no_bytes(page, tmp_path):
    home = tmp_path
    (home / "models").mkdir()
    folder = write_models(home / "models")
    pictures, _ = tiny.write_source(home / "source")
    for file in sorted(pictures.iterdir())[4:]:
        file.unlink()
    galsearch.build(home / "p.atlas", images=pictures, models=folder, measure="none")
    galsearch.add(home / "p.atlas", spectra=write_spectra(home / "spectra", OBJECTS))
    site = Site(galsearch.write_site(home / "p.atlas", home / "out"))
    there = {site.card(row)[0]["object_id"]: site.spectrum(row) is not None for row in range(site.manifest["rows"])}
    assert len(there) == 9 and {name for name, has in there.items() if has} == set(OBJECTS)
    images, spectra = site.rows_of("image"), site.rows_of("spectrum")
    assert sorted([*images, *spectra]) == list(range(9))


def test_an_atlas_without_spectra_says_so(page, tiny_bundle, tmp_path):
    manifest = Site(galsearch.write_site(tiny_bundle, tmp_path / "out")).manifest
    assert (manifest["spectra"], manifest["knowledge"]) == (None, [])


@pytest.mark.slow
def test_votes_by_the_files_of_a_site_are_those_of_python(page, known_path, tmp_path):
    site = Site(galsearch.write_site(known_path, tmp_path / "out"))
    base = next(one for one in site.manifest["knowledge"] if one["name"] == "shapes")
    members = site.array(base["members"], "<u4").astype(int)
    codes = site.array(base["label_codes"], "<i2")
    priors = np.bincount(codes) / len(codes)
    fit = next(one for one in base["calibration"]["fits"] if (one["k"], one["weight"]) == (base["k"], base["weight"]))
    at = np.argsort(site.rows_of())
    every = site.vectors()
    with galsearch.open(known_path, device="cpu") as atlas:
        for row in range(0, site.manifest["rows"], 23):
            others = members != row
            cosines = every[at[members[others]]] @ every[at[row]]
            best = np.argsort(-cosines, kind="stable")[: base["k"]]
            weights = np.exp(-np.sqrt(np.clip(2 - 2 * cosines[best], 0, 4)) / base["tau"])
            shares = np.bincount(codes[others][best], weights, minlength=len(base["labels"])) / weights.sum()
            odds = ((shares + fit["pseudo"] * priors) / (1 + fit["pseudo"])) ** fit["power"]
            votes = atlas.classify(site.card(row)[0]["object_id"], "shapes")
            winner = int(odds.argmax())
            assert base["labels"][winner] == votes.best
            assert odds[winner] / odds.sum() == pytest.approx(votes.probability, abs=2e-3)


def test_a_base_of_numbers_has_its_numbers(page, known_path, tmp_path):
    site = Site(galsearch.write_site(known_path, tmp_path / "out"))
    base = next(one for one in site.manifest["knowledge"] if one["name"] == "redshift")
    values = site.array(base["values"], "<f8")
    members = site.array(base["members"], "<u4")
    assert values.tolist() == [site.card(row)[0]["z"] for row in members] and len(values) == base["rows"] > 200


def test_credits_name_the_sources_and_nothing_of_the_machine(page, known_path, tmp_path):
    manifest = Site(galsearch.write_site(known_path, tmp_path / "out")).manifest
    assert manifest["sources"][0]["title"] == "Tiny" and "galsearch" in manifest["citation"]["bibtex"]
    assert {"build", "kb"} & {one["action"] for one in manifest["provenance"]}
    assert all(set(one) == {"action", "time", "software"} for one in manifest["provenance"])


def test_phrases_that_say_much_are_shown_first(tmp_path):
    held = resources.files("galsearch").joinpath("concepts_spectrum.txt").read_text().splitlines()
    phrases = sorted(line for line in held if line and not line.startswith("#"))
    with contextlib.closing(Staging(tmp_path / "aside", 10**6)) as staging:
        chips = write_chips(staging, "spectrum", phrases, np.zeros((len(phrases), 4), np.float32))
        others = write_chips(staging, "image", [f"phrase {number}" for number in range(40)], np.zeros((40, 4)))
    assert [phrases[index] for index in chips["examples"]][:3] == [
        "broad-line quasar",
        "star-forming galaxy",
        "passive galaxy",
    ]
    assert len(chips["examples"]) == 10 and others["examples"] == list(range(12))


def test_a_map_has_a_place_for_every_row(page, tiny_bundle, tmp_path):
    site = Site(galsearch.write_site(tiny_bundle, tmp_path / "out"))
    points = site.array(site.manifest["maps"]["image"], "<f4", -1, 2)
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        stored = atlas.sql("SELECT object_id, x, y FROM map_image").to_pylist()
    expected = {row["object_id"]: (row["x"], row["y"]) for row in stored}
    assert [tuple(point) for point in points.tolist()] == [
        expected[site.card(row)[0]["object_id"]] for row in range(tiny.ROWS)
    ]
