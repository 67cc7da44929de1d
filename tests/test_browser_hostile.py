"""The app in a real browser before strangers: an atlas whose every text is hostile, links that would break a page."""

import shutil
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from browsing import MARKS, expect, screenshot
from hostile_app import EVIL, LINKS

pytestmark = MARKS
PAGES = sorted(path.stem for path in (Path(__file__).parent.parent / "streamlit_app" / "views").glob("[!_]*.py"))
MARKUP = """() => {
    const roots = [document, ...[...document.querySelectorAll('*')].map((one) => one.shadowRoot).filter(Boolean)];
    const all = (what) => roots.flatMap((root) => [...root.querySelectorAll(what)]);
    return {
        owned: window.owned ?? null,
        links: all('a').map((one) => new URL(one.href)).map((one) => [one.protocol, one.hostname]),
        images: all('img').map((one) => one.getAttribute('src')),
        markup: all('.katex, .stMarkdownBadge').length
            + all('[data-testid=stMarkdownContainer] :is(h1, blockquote, table, pre, hr)').length,
        faces: document.body.innerText.includes('😄'),
    };
}"""


@pytest.fixture(scope="module")
def address(hostile_path, tmp_path_factory):
    """A public app, running on the hostile atlas."""
    copy = Path(shutil.copy(hostile_path, tmp_path_factory.mktemp("app")))
    with screenshot.running_app(copy, variables={"GALSEARCH_PUBLIC": "1"}) as where:
        yield where


@pytest.fixture
def page(new_page, address):
    """A fresh page, in which nothing may open a dialog."""
    page = new_page(address)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    return page


def check_is_text(page) -> None:
    """Fail where anything of the atlas has become a link, an image, a script or another kind of markup."""
    found = page.evaluate(MARKUP)
    assert found["owned"] is None and not found["faces"]
    assert not [(kind, host) for kind, host in found["links"] if not kind.startswith("http") or EVIL in host]
    assert not [one for one in found["images"] if one and EVIL in one]
    assert found["markup"] == 0


@pytest.mark.parametrize("name", PAGES)
def test_texts_of_an_atlas_are_text_on_every_page(page, address, name):
    screenshot.open_page(page, address, "" if name == "search" else name)
    check_is_text(page)
    if name == "search":
        page.locator(".tile").first.click()
        page.locator(".st-key-panel table").wait_for()
        screenshot.settle(page)
        check_is_text(page)


@pytest.mark.hostile
def test_hostile_links_are_answered_one_after_the_other(page, address):
    told = []
    for name, (where, said) in LINKS.items():
        url = f"{address}/{where}?{urlencode(said, quote_via=quote, errors='surrogatepass')}"
        if len(url) > 60_000:  # no server takes a longer line; what is longer is tried without one, in test_app.py
            continue
        if "/" in where:  # Streamlit looks for its scripts below such an address and shows an empty page
            continue
        page.goto(url)
        page.locator(".galsearch-title").wait_for()
        screenshot.settle(page)
        body = page.locator("body").inner_text()
        if any(sign in body for sign in ("Traceback", "Page not found", f"{Path.home()}/", "/tmp/", "root:x:")):
            told.append(f"{name}: {body[:300]}")
        assert page.evaluate("window.owned ?? null") is None, name
    assert told == []
    page.goto(address)  # and the place still serves
    page.locator(".tile").first.wait_for()


@pytest.mark.parametrize("name", ["search", "no-such-page", "evaluate"])
def test_no_address_of_a_public_place_is_covered_by_a_dialog(page, address, name):
    screenshot.open_page(page, address, name)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("h1")).to_have_count(1)
