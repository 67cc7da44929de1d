"""The app in a real browser: what a person sees, types, clicks, uploads, downloads, marks and links to."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
from browsing import MARKS, WAIT_MS, WIDTHS, expect, screenshot
from PIL import Image

import galsearch

pytestmark = MARKS
PAGES = sorted(path.stem for path in (Path(__file__).parent.parent / "streamlit_app" / "views").glob("[!_]*.py"))
SERIOUS = ("serious", "critical")
ALSO = {"heading-order", "page-has-heading-one"}  # of less impact, and kept all the same
NOT_OURS = {  # what Streamlit draws itself, and no page can change
    "nested-interactive",  # its file uploader is a button within a section that is one
    "scrollable-region-focusable",  # its tables are canvases that take the keyboard by themselves
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    """A copy of the tiny bundle, in a folder where collections may be written beside it."""
    return Path(shutil.copy(tiny_bundle, tmp_path_factory.mktemp("app")))


@pytest.fixture(scope="module")
def address(bundle):
    """The app, running on the tiny bundle."""
    with screenshot.running_app(bundle) as where:
        yield where


@pytest.fixture
def page(new_page, address):
    """A fresh page with the first answer drawn."""
    page = new_page(address)
    page.goto(address)
    page.locator(".tile img").first.wait_for()
    return page


@pytest.fixture(scope="module")
def tiny_atlas(tiny_bundle):
    """The tiny bundle, opened by the test itself."""
    with galsearch.open(tiny_bundle) as opened:
        yield opened


def found(atlas, what=None, **options) -> list[str]:
    """Return what the library finds when asked as the app asks."""
    return atlas.search(what, k=24, distinct=True, **options).ids


def search(page, words: str) -> None:
    page.get_by_label("Describe a galaxy").fill(words)
    page.keyboard.press("Enter")


SHOWN = """() => {
    const hosts = [...document.querySelectorAll('*')].filter((element) => element.shadowRoot);
    const tiles = hosts.flatMap((host) => [...host.shadowRoot.querySelectorAll('.tile')]);
    return tiles.map((tile) => tile.dataset.id);
}"""


def expect_ids(page, ids: list[str]) -> None:
    """Wait until the gallery shows these objects, in this order."""
    page.wait_for_function(f"(ids) => JSON.stringify(({SHOWN})()) === JSON.stringify(ids)", arg=ids)


def go(page, name: str) -> None:
    """Follow the link to a page."""
    page.locator(".st-key-pages").get_by_role("link", name=name, exact=True).click()
    screenshot.settle(page)


# ---- searching


def test_words_show_pictures_with_a_description(page, tiny_atlas):
    search(page, "red edge-on galaxy")
    expect_ids(page, found(tiny_atlas, "red edge-on galaxy"))
    first = page.locator(".tile img").first
    expect(first).to_have_attribute("alt", re.compile("^Image of "))
    assert first.evaluate("image => image.naturalWidth") > 0


def test_a_click_opens_the_object_and_more_like_it(page, tiny_atlas):
    search(page, "blue ring galaxy")
    ids = found(tiny_atlas, "blue ring galaxy")
    expect_ids(page, ids)
    page.locator(".tile").nth(1).click()
    page.locator(".st-key-panel table").wait_for()
    expect(page.locator(".st-key-panel")).to_contain_text("solMass")
    page.get_by_role("button", name="More like this", exact=True).click()
    expect_ids(page, found(tiny_atlas, tiny_atlas[ids[1]]))


def test_the_button_on_a_tile_finds_more_like_it(page, tiny_atlas):
    page.locator(".tile").nth(2).hover()
    page.get_by_role("button", name=f"More like {tiny.object_id(2)}").click()
    expect_ids(page, found(tiny_atlas, tiny_atlas[tiny.object_id(2)]))


def test_arrow_keys_and_enter_reach_an_object(page):
    page.locator(".tile").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator(".st-key-panel table").wait_for()
    expect(page.locator(".st-key-panel")).to_contain_text(tiny.object_id(1))


def test_a_cut_is_checked_while_it_is_typed(page, tiny_atlas):
    box = page.get_by_label("Filter (SQL)")
    box.press_sequentially("zz < 0.05")
    page.get_by_text("zz").filter(has_text="not found").wait_for()
    box.fill("z < 0.05")
    page.get_by_text("of 300 objects pass").wait_for()
    expect_ids(page, found(tiny_atlas, where="z < 0.05"))


def test_a_slider_moved_with_the_keyboard_cuts(page, tiny_atlas):
    screenshot.settle(page)  # until all sliders are there
    low = page.get_by_role("slider").first
    low.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.get_by_text("of 300 objects pass").wait_for()
    box = page.get_by_label("Filter (SQL)")
    expect(box).to_have_value(re.compile("^z >= "))
    for _ in range(60):  # on the way to the last position it may ask for others, and one may be under way even now
        screenshot.settle(page)
        if page.evaluate(SHOWN) == found(tiny_atlas, where=box.input_value()):
            break
    else:
        pytest.fail(f"the gallery never shows what passes {box.input_value()!r}")


def test_minus_words(page, tiny_atlas):
    search(page, "galaxy red")
    expect_ids(page, found(tiny_atlas, "galaxy red"))
    page.get_by_role("button", name="Plus / minus").click()
    page.get_by_label("Words, or the ID or name of an object").fill("edge")
    page.get_by_role("button", name="Minus", exact=True).click()
    terms = (galsearch.Term("text", "galaxy red"), galsearch.Term("text", "edge", -0.5))
    expect_ids(page, tiny_atlas.search(galsearch.Query(terms, k=24, distinct=True)).ids)


def test_an_uploaded_picture_is_searched(page, tiny_atlas, tmp_path):
    file = tmp_path / "mine.png"
    Image.fromarray(tiny.draw(3)).save(file)
    page.get_by_role("button", name="Image", exact=True).click()
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("your image").first.wait_for()
    expect_ids(page, found(tiny_atlas, file))


def test_a_fits_file_is_searched(page, tiny_atlas, tmp_path):
    from astropy.io import fits

    file = tmp_path / "mine.fits"
    fits.PrimaryHDU(tiny.draw(5).astype("float32").transpose(2, 0, 1)).writeto(file)
    page.get_by_role("button", name="Image", exact=True).click()
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("your image").first.wait_for()
    expect_ids(page, found(tiny_atlas, file))


def test_an_upload_that_is_no_picture_is_explained(page, tmp_path):
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"not a picture")
    page.get_by_role("button", name="Image", exact=True).click()
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("alert").filter(has_text="broken.jpg").wait_for()


def test_reload_and_back_restore_the_search(page, tiny_atlas):
    for words in ("red galaxy", "blue ring galaxy"):
        search(page, words)
        expect_ids(page, found(tiny_atlas, words))
    page.wait_for_url("**query=*blue*")
    page.reload()
    expect_ids(page, found(tiny_atlas, "blue ring galaxy"))
    expect(page.get_by_label("Describe a galaxy")).to_have_value("blue ring galaxy")
    page.go_back()
    expect_ids(page, found(tiny_atlas, "red galaxy"))


def test_a_link_opened_elsewhere_shows_the_same(page, new_page, address, tiny_atlas):
    search(page, "white round galaxy")
    page.get_by_label("Filter (SQL)").fill("mag_r < 18")
    ids = found(tiny_atlas, "white round galaxy", where="mag_r < 18")
    expect_ids(page, ids)
    page.wait_for_url("**mag_r*")
    other = new_page(address)
    other.goto(page.url)
    expect_ids(other, ids)
    expect(other.get_by_label("Filter (SQL)")).to_have_value("mag_r < 18")
    other.goto(page.url.replace("atlas=", "atlas=0"))
    other.get_by_text("made with another atlas").wait_for()


def test_the_table_view_survives_a_quick_click(page, tiny_atlas):
    search(page, "red galaxy")
    expect_ids(page, found(tiny_atlas, "red galaxy"))
    page.get_by_role("radio", name="Table").click()
    page.locator(".st-key-results [data-testid=stDataFrame]").first.wait_for()
    page.get_by_text("24 of 300").first.wait_for()
    expect(page.get_by_label("Describe a galaxy")).to_have_value("red galaxy")


def test_show_more_adds_pictures(page):
    page.get_by_role("button", name="Show more").click()
    page.wait_for_function(
        """() => [...document.querySelectorAll('*')].filter((one) => one.shadowRoot)
        .flatMap((one) => [...one.shadowRoot.querySelectorAll('.tile')]).length === 60"""
    )


def test_chosen_objects_make_a_question(page, tiny_atlas):
    for row in (1, 3):
        page.locator(".tile").nth(row).hover()
        page.get_by_label(f"Choose {tiny.object_id(row)}").check()
    page.get_by_text("2 chosen").wait_for()
    page.get_by_role("button", name="More like these").click()
    terms = tuple(galsearch.Term("object", tiny.object_id(row)) for row in (1, 3))
    expect_ids(page, tiny_atlas.search(galsearch.Query(terms, k=24, distinct=True)).ids)


# ---- taking along


def download(page, name: str) -> bytes:
    """Return what the button of this name gives, once the answer is drawn."""
    screenshot.settle(page)
    with page.expect_download() as arriving:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(arriving.value.path()).read_bytes()


def test_a_votable_is_downloaded_with_its_units(page, tiny_atlas):
    from astropy.io.votable import parse_single_table

    search(page, "white round galaxy")
    expect_ids(page, found(tiny_atlas, "white round galaxy"))
    table = parse_single_table(io.BytesIO(download(page, "VOTable"))).to_table(use_names_over_ids=True)
    assert [str(name) for name in table["object_id"]] == found(tiny_atlas, "white round galaxy")
    assert str(table["ra"].unit) == "deg"


def test_a_fits_table_is_downloaded(page, tiny_atlas):
    from astropy.table import Table

    search(page, "white round galaxy")
    expect_ids(page, found(tiny_atlas, "white round galaxy"))
    table = Table.read(io.BytesIO(download(page, "FITS")), format="fits")
    assert [str(name).strip() for name in table["object_id"]] == found(tiny_atlas, "white round galaxy")


# ---- other pages


def test_the_search_is_still_there_after_a_look_at_the_sql_page(page, tiny_atlas):
    search(page, "red galaxy")
    expect_ids(page, found(tiny_atlas, "red galaxy"))
    go(page, "SQL")
    page.get_by_text("20 rows", exact=True).wait_for()
    go(page, "Search")
    expect_ids(page, found(tiny_atlas, "red galaxy"))
    expect(page.get_by_label("Describe a galaxy")).to_have_value("red galaxy")


def test_wrong_sql_is_told_and_right_sql_answers(page):
    go(page, "SQL")
    box = page.get_by_label("One SELECT, FROM, WITH or SUMMARIZE")
    box.fill("SELECT nope FROM galaxies")
    page.get_by_role("button", name="Run").click()
    page.get_by_role("alert").filter(has_text="nope").wait_for()
    box.fill("SELECT object_id FROM galaxies ORDER BY object_id LIMIT 7")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("7 rows", exact=True).wait_for()
    page.get_by_role("tab", name="Plot").click()
    page.get_by_test_id("stVegaLiteChart").wait_for()
    assert "sql=" in page.url


def test_a_mark_made_with_a_key_is_in_the_collection_and_beside_the_atlas(page, bundle):
    page.locator(".tile").nth(4).focus()
    page.keyboard.press("y")
    page.keyboard.press("n")  # the focus has gone on to the next
    page.get_by_role("img", name="marked yes").first.wait_for()
    page.get_by_role("img", name="marked no").first.wait_for()
    go(page, "Collections")
    expect_ids(page, [tiny.object_id(4), tiny.object_id(5)])
    kept = json.loads(bundle.with_suffix(".collections.json").read_text())["sets"]["Marked"]["members"]
    assert {name: one["mark"] for name, one in kept.items()} == {tiny.object_id(4): "true", tiny.object_id(5): "false"}
    page.get_by_role("button", name="Search in these").click()
    page.get_by_label("Describe a galaxy").wait_for()
    expect_ids(page, [tiny.object_id(4), tiny.object_id(5)])


def test_the_object_page_answers_to_its_controls(page):
    page.locator(".tile").nth(2).click()
    page.get_by_role("button", name="Open its page").click()
    picture = page.locator(".st-key-picture img")
    picture.wait_for()
    before = picture.get_attribute("src")
    page.get_by_role("radio", name="asinh").click()
    page.wait_for_function(
        "(src) => document.querySelector('.st-key-picture img').getAttribute('src') !== src", arg=before
    )
    expect(page.get_by_label("object_id", exact=True)).to_have_value(tiny.object_id(2))
    page.get_by_role("button", name="Next", exact=True).click()
    page.wait_for_url(f"**object={tiny.object_id(3)}*")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_is_accessible(new_page, address, name, theme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="browser tests need axe-playwright-python"
    )
    page = new_page(address, color_scheme=theme)
    screenshot.open_page(page, address, "" if name == "search" else name)
    violations = axe.Axe().run(page).response["violations"]
    told = [
        f"{one['id']}: {node['html'][:150]} {node.get('failureSummary', '')[:200]}"
        for one in violations
        if (one["impact"] in SERIOUS or one["id"] in ALSO) and one["id"] not in NOT_OURS
        for node in one["nodes"]
    ]
    assert told == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_every_width(new_page, address, name):
    page = new_page(address)
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 860})
        screenshot.open_page(page, address, "" if name == "search" else name)
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0, width
        assert page.get_by_role("alert").filter(has_text="Traceback").count() == 0


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_panel_fits(page, width, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 860})
    page.locator(".tile").first.click()
    page.locator(".st-key-panel table").wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0
    panel = page.locator(".st-key-panel").bounding_box()
    assert panel["x"] >= 0 and panel["x"] + panel["width"] <= width
    assert panel["y"] < 860


# ---- what goes wrong


def test_a_damaged_atlas_is_told_in_the_browser(browser, bundle_path):
    bundle_path.write_bytes(bundle_path.read_bytes()[:5000])
    with screenshot.running_app(bundle_path) as address:
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        expect(page.get_by_role("alert").first).to_contain_text(bundle_path.name)
        assert "Traceback" not in page.content()
        page.close()


def test_a_missing_model_is_told_and_the_rest_works(new_page, bundle_path):
    import duckdb

    with duckdb.connect(str(bundle_path)) as connection:
        connection.execute("DELETE FROM models WHERE name = 'text'")
    with screenshot.running_app(bundle_path, variables={"GALSEARCH_PUBLIC": "1"}) as address:
        page = new_page(address)
        page.goto(address)
        page.locator(".tile img").first.wait_for()
        search(page, "red galaxy")
        page.get_by_role("alert").filter(has_text="model").wait_for()
        page.get_by_label("Describe a galaxy").fill("")
        page.keyboard.press("Enter")
        page.locator(".tile").nth(2).hover()
        page.get_by_role("button", name=f"More like {tiny.object_id(2)}").click()
        page.locator(".score").first.wait_for()
        go(page, "Collections")
        page.get_by_text("This place is read-only").wait_for()
        assert not bundle_path.with_suffix(".collections.json").exists()
