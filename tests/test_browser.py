"""The app in a real browser: what a person sees, types, clicks, uploads, downloads and links to."""

import importlib.util
import io
from pathlib import Path

import pytest
import tiny
from PIL import Image

import galsearch

pytest.importorskip("streamlit", reason="the app needs streamlit")
pytest.importorskip("playwright", reason="browser tests need playwright")
_spec = importlib.util.spec_from_file_location("screenshot", Path(__file__).parent.parent / "docs" / "screenshot.py")
screenshot = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(screenshot)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(screenshot.chromium() is None, reason="browser tests need chromium"),
]
WIDTHS = {"phone": 400, "laptop": 1280, "wall": 2000}


@pytest.fixture(scope="module")
def address(tiny_bundle):
    """The app, running on the tiny bundle."""
    with screenshot.running_app(tiny_bundle) as where:
        yield where


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests of this file."""
    with screenshot.browser() as opened:
        yield opened


@pytest.fixture
def page(browser, address):
    """A fresh page with the first answer drawn; afterwards, nothing may have gone wrong in the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url))
    page.goto(address)
    page.locator(".tile img").first.wait_for()
    yield page
    context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def tiny_atlas(tiny_bundle):
    """The tiny bundle, opened by the test itself."""
    with galsearch.open(tiny_bundle) as opened:
        yield opened


def search(page, words: str) -> None:
    page.get_by_label("Describe a galaxy").fill(words)
    page.keyboard.press("Enter")


def expect_ids(page, ids: list[str]) -> None:
    """Wait until the gallery shows these objects, in this order."""
    script = """(ids) => {
        const hosts = [...document.querySelectorAll('*')].filter((element) => element.shadowRoot);
        const tiles = hosts.flatMap((host) => [...host.shadowRoot.querySelectorAll('.tile')]);
        return JSON.stringify(tiles.map((tile) => tile.dataset.id)) === JSON.stringify(ids);
    }"""
    page.wait_for_function(script, arg=ids)


def test_words_show_pictures_with_a_description(page, tiny_atlas):
    search(page, "red edge-on galaxy")
    expect_ids(page, tiny_atlas.search("red edge-on galaxy", k=24).ids)
    first = page.locator(".tile img").first
    assert first.get_attribute("alt").startswith("Picture of ")
    assert first.evaluate("image => image.naturalWidth") > 0


def test_a_click_opens_the_object_and_more_like_it(page, tiny_atlas):
    search(page, "blue ring galaxy")
    ids = tiny_atlas.search("blue ring galaxy", k=24).ids
    expect_ids(page, ids)
    page.locator(".tile").nth(1).click()
    page.locator(".st-key-panel table").wait_for()
    assert "solMass" in page.locator(".st-key-panel").inner_text()
    page.get_by_role("button", name="More like this", exact=True).click()
    expect_ids(page, tiny_atlas.search(tiny_atlas[ids[1]], k=24).ids)


def test_the_button_on_a_tile_finds_more_like_it(page, tiny_atlas):
    page.locator(".tile").nth(2).hover()
    page.get_by_role("button", name=f"More like {tiny.object_id(2)}").click()
    expect_ids(page, tiny_atlas.search(tiny_atlas[tiny.object_id(2)], k=24).ids)


def test_arrow_keys_and_enter_reach_an_object(page):
    page.locator(".tile").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator(".st-key-panel table").wait_for()
    assert tiny.object_id(1) in page.locator(".st-key-panel").inner_text()


def test_a_cut_is_checked_while_it_is_typed(page, tiny_atlas):
    page.get_by_role("button", name="Cut", exact=True).click()
    box = page.get_by_label("SQL condition")
    box.press_sequentially("zz < 0.05")
    page.get_by_text("zz").filter(has_text="not found").wait_for()
    box.fill("z < 0.05")
    page.get_by_text("of 300 objects pass").wait_for()
    expect_ids(page, tiny_atlas.search(where="z < 0.05", k=24).ids)


def test_minus_words(page, tiny_atlas):
    search(page, "galaxy red")
    expect_ids(page, tiny_atlas.search("galaxy red", k=24).ids)
    page.get_by_role("button", name="Terms", exact=True).click()
    page.get_by_label("Words or an object_id").fill("edge")
    page.get_by_role("button", name="Minus", exact=True).click()
    terms = (galsearch.Term("text", "galaxy red"), galsearch.Term("text", "edge", -0.5))
    expect_ids(page, tiny_atlas.search(galsearch.Query(terms, k=24)).ids)


def test_an_uploaded_picture_is_searched(page, tiny_atlas, tmp_path):
    file = tmp_path / "mine.png"
    Image.fromarray(tiny.draw(3)).save(file)
    page.get_by_role("button", name="Picture", exact=True).click()
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("your picture").wait_for()
    expect_ids(page, tiny_atlas.search(file, k=24).ids)


def test_reload_and_back_restore_the_search(page, tiny_atlas):
    for words in ("red galaxy", "blue ring galaxy"):
        search(page, words)
        expect_ids(page, tiny_atlas.search(words, k=24).ids)
    page.wait_for_url("**query=*blue*")
    page.reload()
    expect_ids(page, tiny_atlas.search("blue ring galaxy", k=24).ids)
    assert page.get_by_label("Describe a galaxy").input_value() == "blue ring galaxy"
    page.go_back()
    expect_ids(page, tiny_atlas.search("red galaxy", k=24).ids)


def test_a_votable_is_downloaded_with_its_units(page, tiny_atlas):
    from astropy.io.votable import parse_single_table

    search(page, "white round galaxy")
    expect_ids(page, tiny_atlas.search("white round galaxy", k=24).ids)
    page.locator('[data-test-script-state="notRunning"]').wait_for()  # the button of this answer, not of the last
    with page.expect_download() as download:
        page.get_by_role("button", name="VOTable").click()
    table = parse_single_table(io.BytesIO(Path(download.value.path()).read_bytes())).to_table(use_names_over_ids=True)
    assert [str(name) for name in table["object_id"]] == tiny_atlas.search("white round galaxy", k=24).ids
    assert str(table["ra"].unit) == "deg"


def test_the_table_view_survives_a_quick_click(page, tiny_atlas):
    search(page, "red galaxy")
    expect_ids(page, tiny_atlas.search("red galaxy", k=24).ids)
    page.get_by_role("radio", name="Table").click()
    page.locator("[data-testid=stDataFrame]").first.wait_for()
    page.get_by_text("24 of 300").wait_for()
    assert page.get_by_label("Describe a galaxy").input_value() == "red galaxy"


def test_the_search_is_still_there_after_a_look_at_the_sql_page(page, tiny_atlas):
    search(page, "red galaxy")
    expect_ids(page, tiny_atlas.search("red galaxy", k=24).ids)
    page.get_by_role("link", name="SQL").click()
    page.get_by_text("20 rows", exact=True).wait_for()
    page.get_by_role("link", name="Search").click()
    expect_ids(page, tiny_atlas.search("red galaxy", k=24).ids)
    assert page.get_by_label("Describe a galaxy").input_value() == "red galaxy"


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits(page, width, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 860})
    page.locator(".tile").first.click()
    page.locator(".st-key-panel table").wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0
    panel = page.locator(".st-key-panel").bounding_box()
    assert panel["x"] >= 0 and panel["x"] + panel["width"] <= width


def test_a_damaged_atlas_is_told_in_the_browser(browser, bundle_path):
    bundle_path.write_bytes(bundle_path.read_bytes()[:5000])
    with screenshot.running_app(bundle_path) as address:
        page = browser.new_page()
        page.goto(address)
        alert = page.get_by_role("alert").first
        alert.wait_for()
        assert bundle_path.name in alert.inner_text()
        assert "Traceback" not in page.content()
        page.close()
