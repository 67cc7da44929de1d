"""Identify, Status, Anomalies and Review's picture in a real browser: what a person picks, reads, and takes along."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from browsing import MARKS, WAIT_MS, WIDTHS, expect, screenshot, watch

import galsearch

pytestmark = MARKS
EVIL = '<script>window.owned = 1</script><meta http-equiv="refresh" content="0;url=http://evil.example/">'


@pytest.fixture(scope="module")
def watched(tmp_path_factory, tiny_models, tiny_source):
    """A plan that was carried out on a folder of pictures, with a report that somebody bent."""
    pytest.importorskip("httpx2", reason="watching needs the package httpx2, which openai brings")
    home = tmp_path_factory.mktemp("watched")
    (home / "files").mkdir()
    for row in range(60):
        name = f"{tiny.object_id(row)}.png"
        shutil.copy(tiny_source[0] / name, home / "files" / name)
    (home / "plan.toml").write_text(
        f'title = "Watched"\nmodels = "{tiny_models}"\nfree_gb = 0\nbudget = 6\n'
        '[[source]]\nname = "incoming"\nkind = "folder"\npath = "files"\n'
    )
    galsearch.watch(home / "plan.toml", processes=0)
    report = home / "plan.watch" / "reports" / "latest.html"
    report.write_text(report.read_text().replace("<main>", f"<main>{EVIL}"))
    return home / "plan.toml"


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny atlas with a catalog beside it."""
    path = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("known") / "tiny.atlas"))
    rows = [row for row in tiny.table().to_pylist() if row["ra"] is not None][:60]
    lines = [f"L{at},{row['ra']},{row['dec']}" for at, row in enumerate(rows)]
    path.with_name("lenses.csv").write_text("\n".join(["name,ra,dec", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def address(folder):
    with screenshot.running_app(folder) as where:
        yield where


@pytest.fixture
def page(new_page, address):
    return new_page(address, viewport={"width": 1280, "height": 1000})


def fits(page) -> None:
    """At no width anything lies beside the page."""
    for width in (360, *WIDTHS.values()):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(400)
        assert page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth") <= 0, width
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_objects_are_looked_up_and_one_of_them_says_where_it_is_known(page, address, folder):
    page.goto(f"{address}/identify")
    page.locator(".st-key-identify_catalogs input").click()
    page.get_by_role("option", name="lenses.csv").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Look up 24 objects").click()
    page.locator(".st-key-identify_gallery .tile").first.wait_for()
    with galsearch.open(folder) as atlas:
        known = atlas.identify(atlas.search(k=24, distinct=True), against=folder.with_name("lenses.csv"))
    one = next(one for one in known if one.state == "known of this kind")
    expect(page.get_by_text(f"known of this kind {known.counts['known of this kind']}", exact=True)).to_be_visible()
    page.locator(".st-key-identify_gallery .tile", has_text=one.name).first.click()
    expect(page.locator(".st-key-panel").get_by_text(f"{one.name} in lenses.csv; 0.00 arcsec away")).to_be_visible()
    fits(page)
    page.locator(".st-key-panel").get_by_role("link", name="Open its page").click()
    expect(page.get_by_role("heading", name="Is it known?")).to_be_visible()
    expect(page.get_by_text(f"{one.name} in lenses.csv", exact=False).first).to_be_visible()


def test_a_watch_is_looked_at_and_its_bent_report_runs_and_loads_nothing(browser, address, watched):
    wrong: list[str] = []
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.set_default_timeout(WAIT_MS)
    watch(page, address, wrong)
    page.goto(f"{address}/status")
    page.get_by_label("Plan or workspace").fill(str(watched))
    page.keyboard.press("Enter")
    expect(page.get_by_text("Run 1 ended", exact=False)).to_be_visible()
    expect(page.locator(".galsearch-totals")).to_contain_text("To look at")
    page.get_by_text("Show it here").click()
    frame = page.frame_locator(".st-key-status_frame iframe, iframe[title='The last report']")
    expect(frame.get_by_role("heading", name="Watched")).to_be_visible()
    page.wait_for_timeout(1_000)
    assert page.evaluate("window.owned") is None
    fits(page)
    page.context.close()
    told = ("Blocked script execution in 'about:srcdoc'", "Refused to execute the redirect")
    assert wrong and all(text.startswith(told) for text in wrong), wrong  # and no other place was asked for anything


def test_a_list_of_odd_objects_has_its_curve_and_histogram(page, address):
    page.goto(f"{address}/anomalies")
    page.locator(".st-key-anomalies_start button").click()
    page.locator(".st-key-anomalies_gallery .tile").first.wait_for()
    expect(page.get_by_text("p-values of all 300 that were judged", exact=False)).to_be_visible()
    expect(page.locator("[data-testid='stVegaLiteChart'] svg, [data-testid='stVegaLiteChart'] canvas")).to_have_count(2)
    fits(page)


def test_review_says_which_picture_it_shows(page, address):
    page.goto(f"{address}/review?kind=ring+galaxy")
    page.locator(".st-key-review_picture img").wait_for()
    expect(page.get_by_text("32 × 32 pixels, picture file", exact=False)).to_be_visible()
