"""Pages beside Search and Object in a real browser: what a person drags, picks, uploads, opens."""

import io
import re
import shutil
from pathlib import Path

import pytest
import tiny
from browsing import MARKS, WIDTHS, expect, screenshot
from conftest import SHAPE
from PIL import Image
from tiny_spectra import write_models, write_spectra

import galsearch

pytestmark = MARKS
PAGES = {
    "Knowledge": "h2",
    "Anomalies": ".st-key-anomalies_run",
    "Map": ".plot",
    "Evaluate": "h2, canvas",
    "Captions": "h2",
    "Build": "h2",
    "About": "h2",
}


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """A folder with captions, a kept evaluation and a base, so that every page has something to show."""
    home = tmp_path_factory.mktemp("full")
    path = Path(shutil.copytree(tiny_folder, home / "tiny.atlas"))
    galsearch.caption(path)
    targets = home / "targets.toml"
    targets.write_text(
        'version = "1"\n[[target]]\nname = "near"\nqueries = ["red edge", "green face"]\n'
        'candidates = "z IS NOT NULL"\nrelevant = "z < 0.05"\nprevalences = [0.1]\n'
    )
    galsearch.evaluate(path, targets=targets, store=True)
    galsearch.create_base(path, "shapes", f"SELECT object_id, {SHAPE} AS shape FROM galaxies WHERE z < 0.05")
    return path


@pytest.fixture(scope="module")
def spectra_address(tmp_path_factory):
    """The app, running on an atlas of spectra alone with the lines of a BPT diagram, and a base of them."""
    home = tmp_path_factory.mktemp("spectra")
    kinds = {f"{kind}-{number}": (kind, 0.02 + 0.01 * number) for kind in ("young", "nucleus") for number in range(3)}
    models, files = write_models(home / "models"), write_spectra(home / "spectra", kinds)
    galsearch.build(home / "s.atlas", spectra=files, models=models)
    select = "SELECT object_id, split_part(object_id, '-', 1) AS kind FROM galaxies"
    galsearch.create_base(home / "s.atlas", "kinds", select)
    with screenshot.running_app(home / "s.atlas") as where:
        yield where


@pytest.fixture(scope="module")
def address(folder):
    """The app, running on that folder."""
    with screenshot.running_app(folder) as where:
        yield where


@pytest.fixture
def page(new_page, address):
    """A fresh page with the first answer drawn."""
    page = new_page(address, viewport={"width": 1280, "height": 1000})
    page.goto(address)
    page.locator(".tile img").first.wait_for()
    return page


def go(page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    page.locator(PAGES[name]).first.wait_for()


def area(page, label: str):
    return page.get_by_role("group", name=label)


def drag(page, label: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over parts (0 to 1, y from above) of a plot."""
    plot = area(page, label)
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()


def test_a_base_votes_on_the_results_and_says_why(page, folder):
    go(page, "Knowledge")
    page.get_by_text("24 objects:").wait_for()
    first = tiny.object_id(0)
    with galsearch.open(folder) as atlas:
        votes = atlas.classify(first, "shapes", k=5)
    page.get_by_role("heading", name=f"{first}: {votes.label}").wait_for()
    page.get_by_label("Voters").click()
    page.get_by_role("option", name="5", exact=True).click()
    page.get_by_text(f"probability {votes.probability:.3f}").wait_for()
    expect(page.locator("[class*=st-key-voter_]")).to_have_count(5)
    expect(page.get_by_role("link", name=votes.neighbors["object_id"][0].as_py())).to_have_count(1)
    assert "k=5" in page.url


def test_an_object_is_classified_on_its_page_and_the_page_knowledge_says_why(new_page, spectra_address):
    page = new_page(spectra_address, viewport={"width": 1280, "height": 1600})  # a list closes when the page scrolls
    screenshot.open_page(page, spectra_address, "object", object="nucleus-1")
    page.get_by_role("heading", name="BPT diagram").wait_for()
    page.get_by_label("Classify by").click()
    page.get_by_role("option", name="kinds").click()
    page.get_by_role("button", name="Why", exact=True).click()
    page.get_by_role("heading", name="nucleus-1: nucleus").wait_for()
    page.wait_for_url("**/knowledge?*ids=nucleus-1*")
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(
        2
    )  # its spectrum over that of a voter, and the diagram


def test_votes_of_spectra_fit_every_width(new_page, spectra_address):
    page = new_page(spectra_address)
    screenshot.open_page(page, spectra_address, "knowledge")
    expect(page.get_by_test_id("stVegaLiteChart")).to_have_count(2)
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0, width
        widest = "Math.max(...[...document.querySelectorAll('[data-testid=stVegaLiteChart]')].map(e => e.clientWidth))"
        assert 250 < page.evaluate(widest) <= width, width


def test_a_drag_over_the_map_selects_and_becomes_the_cut_of_the_search(page, folder):
    go(page, "Map")
    drag(page, "Similarity map", (0.02, 0.02), (0.5, 0.98))
    summary = page.get_by_text("galaxies in the selection")
    summary.wait_for()
    count = int(summary.inner_text().split()[0])
    page.locator(".tile img").first.wait_for()
    page.get_by_role("button", name="Show in Search").click()
    page.get_by_label("Describe a galaxy").wait_for()
    page.get_by_text(f"of {count}").first.wait_for()
    assert 0 < count < 300


def test_the_keyboard_selects_too(page):
    go(page, "Map")
    area(page, "Similarity map").focus()
    for key in ("ArrowRight", "ArrowLeft", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("in the selection", exact=False).first.wait_for()
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("drag over a plot").wait_for()


def test_a_point_of_a_hit_opens_the_object(page, folder):
    page.get_by_label("Describe a galaxy").fill("red edge")
    page.keyboard.press("Enter")
    page.get_by_text("red edge").first.wait_for()
    page.wait_for_timeout(1000)
    go(page, "Map")
    with galsearch.open(folder) as atlas:
        best = atlas.search("red edge", k=24, distinct=True).ids[0]
    point = area(page, "Similarity map").get_by_role("button", name=best)
    point.wait_for()
    point.focus()
    page.locator(".tip img").first.wait_for()
    page.keyboard.press("Enter")
    point.dispatch_event("click")
    expect(page.locator(".st-key-map_object")).to_contain_text(best)


def test_a_drag_on_the_whole_sky_zooms_the_sky(page):
    go(page, "Map")
    drag(page, "Density of the objects on the sky", (0.3, 0.3), (0.6, 0.6))
    page.get_by_role("button", name="Zoom out").wait_for()
    page.get_by_role("button", name="Zoom out").click()
    page.get_by_role("button", name="Zoom out").wait_for(state="detached")


def test_the_selection_is_in_the_link(page, new_page, address):
    go(page, "Map")
    drag(page, "Similarity map", (0.1, 0.1), (0.6, 0.9))
    summary = page.get_by_text("galaxies in the selection")
    summary.wait_for()
    page.wait_for_function("location.search.includes('brush')")
    other = new_page(address)
    other.goto(page.url)
    expect(other.get_by_text("galaxies in the selection")).to_have_text(summary.inner_text())


def test_figures_are_drawn_with_words_for_those_who_do_not_see_them(page):
    go(page, "Evaluate")
    page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").first.wait_for()
    expect(page.get_by_text("Lines are bootstrap")).to_have_count(1)
    page.get_by_text("AUROC", exact=True).click()
    page.wait_for_function("location.search.includes('measure=AUROC')")


def test_captions_stand_beside_their_pictures(page):
    go(page, "Captions")
    page.get_by_role("img", name="Image of").first.wait_for()
    page.get_by_text("By a vision model").click()
    expect(page.get_by_label("Key", exact=True)).to_have_attribute("type", "password")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()


def test_dropped_pictures_become_an_atlas_that_is_downloaded_and_opened(page, tmp_path):
    go(page, "Build")
    files = []
    for row in range(6):
        content = io.BytesIO()
        Image.fromarray(tiny.draw(row)).save(content, format="PNG")
        files.append({"name": f"g{row}.png", "mimeType": "image/png", "buffer": content.getvalue()})
    page.locator("input[type=file]").first.set_input_files(files)
    page.get_by_text("6 images").wait_for()
    screenshot.settle(page)  # what is typed while the page is drawn anew is lost
    page.get_by_label("Title").fill("Six")
    page.keyboard.press("Enter")
    screenshot.settle(page)
    page.get_by_role("button", name="Build", exact=True).click()
    page.get_by_text("6 galaxies, in").wait_for(timeout=120_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Bundle").click()
    download.value.save_as(tmp_path / "got.duckdb")
    with galsearch.open(tmp_path / "got.duckdb") as atlas:
        assert len(atlas) == 6 and atlas.manifest.title == "Six"
    page.get_by_role("button", name="Open it here").click()
    page.get_by_text("Six · 6 galaxies").wait_for()


def test_odd_objects_are_found_and_a_click_on_the_plot_ends_the_list(page):
    go(page, "Anomalies")
    page.get_by_role("button", name="Find odd objects").click()
    tiles = page.locator(".tile")
    tiles.nth(23).wait_for()
    plot = page.locator("[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.click(box["x"] + 0.35 * box["width"], box["y"] + 0.5 * box["height"])
    page.wait_for_url(re.compile(r"[?&]n=\d+"))
    n = int(re.search(r"[?&]n=(\d+)", page.url)[1])
    assert 1 < n < 24
    expect(tiles).to_have_count(n)
    tiles.first.click()
    page.get_by_text("Surprise by detector").wait_for()
    here = page.url
    page.get_by_role("link", name="Open as a search").click()
    page.get_by_label("Describe a galaxy").wait_for()
    expect(tiles).to_have_count(n)
    page.wait_for_timeout(1_500)  # the address of before is not read within a second of a change
    page.go_back()
    page.get_by_text("Surprise by detector").wait_for()
    assert page.url == here
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0, width


def test_bibtex_and_acknowledgements_are_offered(page, tmp_path):
    go(page, "About")
    with page.expect_download() as download:
        page.get_by_role("button", name="Acknowledgements").click()
    download.value.save_as(tmp_path / "a.txt")
    assert "drawn by tests/tiny.py" in (tmp_path / "a.txt").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_with_something_to_show_fits_every_width(page, name):
    go(page, name)
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0, width
        expect(page.locator("h1")).to_have_count(1)
