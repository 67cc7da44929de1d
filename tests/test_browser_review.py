"""The page Review in a browser: keys judge and undo, not while somebody writes; the picture fills the height."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from browsing import MARKS, WIDTHS, expect, screenshot

import galsearch

pytestmark = MARKS
KIND = "ring galaxy"


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("review") / "tiny.atlas"))


@pytest.fixture(scope="module")
def address(folder):
    with screenshot.running_app(folder) as where:
        yield where


@pytest.fixture
def page(new_page, address):
    page = new_page(address, viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/review?kind={KIND.replace(' ', '+')}")
    page.locator(".st-key-review_picture img").wait_for()
    return page


def kept(folder: Path) -> galsearch.Verdicts:
    return galsearch.Verdicts(folder.with_suffix(".verdicts"))


def count(page, text: str) -> None:
    expect(page.get_by_text(text, exact=False).first).to_be_visible()


def test_keys_judge_and_undo_and_do_not_fire_in_a_text_box(page, folder):
    for number, key in enumerate("ynu", start=1):
        page.keyboard.press(key)
        count(page, f"{number} judged by you")
    assert [one.verdict for one in kept(folder).current()] == ["yes", "no", "unsure"]
    page.keyboard.press("z")
    count(page, "2 judged by you")
    note = page.get_by_label("Note")
    expect(note).to_have_count(1)  # that of the object before is gone
    note.click()
    note.press_sequentially("any nuyz")
    note.press("Enter")
    page.wait_for_timeout(1_000)
    assert [one.verdict for one in kept(folder).current()] == ["yes", "no"]
    page.locator(".galsearch-title").click()
    page.keyboard.press("y")
    count(page, "3 judged by you")
    assert kept(folder).current()[-1].note == "any nuyz"


def test_the_picture_is_as_high_as_the_window_and_the_page_fits_every_width(page):
    high = page.locator(".st-key-review_picture img").bounding_box()["height"]
    assert 600 < high <= 900
    for width in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0, width
    page.set_viewport_size({"width": 400, "height": 900})
    page.wait_for_timeout(500)
    button = page.get_by_role("button", name="Yes").bounding_box()
    assert button["y"] + button["height"] < 900  # on a phone the buttons stand below the picture, and are seen
    page.set_viewport_size({"width": 1280, "height": 900})


def test_blind_nothing_in_the_page_tells_the_name(page, folder):
    page.get_by_text("Blind", exact=True).click()
    expect(page.get_by_text("Why:")).to_have_count(0)
    content = page.locator(".st-key-review_picture").inner_html()
    with galsearch.open(folder) as atlas:
        ids = [galaxy.object_id for galaxy in atlas]
    assert not [name for name in ids if name in content]
