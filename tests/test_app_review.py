"""The page Review without a browser: judging, undo, blind, kinds, keeping and downloading."""

# ruff: noqa: F811  fixtures are those of test_app_spectra
from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_app_spectra import _closed, app_path, opened, page, state_of, text_of  # noqa: F401

import galsearch

pytestmark = pytest.mark.slow

KIND = "ring galaxy"


@pytest.fixture
def own(tmp_path, tiny_bundle, monkeypatch) -> Path:
    monkeypatch.setenv("GALSEARCH_REVIEWER", "ann")
    monkeypatch.delenv("GALSEARCH_VERDICTS", raising=False)
    return Path(shutil.copy(tiny_bundle, tmp_path / "own.duckdb"))


def shown(app) -> str:
    return app.session_state["review_queue"][1][0]["object_id"]


def press(app, name: str):
    app.button(key=f"review_{name}").click().run()
    assert not app.exception, app.exception
    return app


def kept(path: Path) -> galsearch.Verdicts:
    return galsearch.Verdicts(path.with_suffix(".verdicts"))


def test_the_first_visit_asks_what_is_judged_for_and_that_stands_in_the_url(page, own):
    app = page("review", own)
    assert "What do you judge objects for" in text_of(app)
    app.button(key="review_first_ring galaxy").click().run()
    assert state_of(app).param("kind") == KIND and shown(app)


def test_a_verdict_is_on_the_disk_and_the_next_object_is_shown(page, own):
    app = page("review", own, kind=KIND)
    first = shown(app)
    app.text_input(key=f"review_note_{first}").set_value("faint").run()
    press(app, "yes")
    (one,) = kept(own).current()
    assert (one.object_id, one.verdict, one.by, one.kind, one.note, one.blind) == (
        first,
        "yes",
        "ann",
        KIND,
        "faint",
        False,
    )
    assert shown(app) != first
    second = shown(app)
    press(app, "no")
    assert {one.object_id: one.verdict for one in kept(own).current()} == {first: "yes", second: "no"}
    assert "2 judged by you: 1 yes, 1 no" in text_of(app)


def test_undo_takes_back_the_last_verdict_and_shows_its_object_again(page, own):
    app = page("review", own, kind=KIND)
    first = shown(app)
    press(app, "unsure")
    press(app, "undo")
    assert kept(own).current() == [] and shown(app) == first
    assert len(kept(own).all()) == 2  # nothing was rewritten


def test_what_was_judged_or_skipped_does_not_come_again_though_the_queue_is_chosen_anew(page, own):
    app = page("review", own, kind=KIND)
    seen = []
    for number in range(14):
        seen.append(shown(app))
        press(app, "skip" if number % 3 == 0 else "no")
    assert len(set(seen)) == 14


def test_blind_hides_name_reason_and_verdicts_of_others_and_is_kept_with_the_verdict(page, own):
    app = page("review", own, kind=KIND)
    first = shown(app)
    assert first in text_of(app) and "Why: " in text_of(app)
    app.toggle(key="review_blind").set_value(True).run()
    assert first not in text_of(app) and "Why: " not in text_of(app)
    assert all(first not in str(image) for image in app.get("imgs"))
    press(app, "yes")
    assert kept(own).current()[0].blind


def test_others_verdicts_are_shown_unless_blind_and_second_opinions_come(page, own):
    with galsearch.open(own) as atlas:
        verdicts = galsearch.Verdicts(own.with_suffix(".verdicts"), atlas=atlas)
        for galaxy in atlas.search("ring", k=8):
            verdicts.add(galaxy.object_id, "yes", kind=KIND, by="bob")
    app = page("review", own, kind=KIND)
    assert shown(app) in {one.object_id for one in kept(own).current()}  # the first is a second opinion
    assert "Others: bob yes" in text_of(app)
    press(app, "yes")
    assert kept(own).agreement(KIND).objects == 1 and "2 people, 1 object judged" in text_of(app)


def test_a_label_of_ones_own_is_a_verdict(page, own):
    app = page("review", own, kind=KIND)
    first = shown(app)
    app.text_input(key=f"review_label_{first}").set_value("polar ring").run()
    (one,) = kept(own).current()
    assert (one.object_id, one.verdict, one.label) == (first, "label", "polar ring")


def test_each_kind_has_a_page_of_its_own(page, own):
    app = page("review", own, kind=KIND)
    press(app, "yes")
    first = kept(own).current()[0].object_id
    other = page("review", own, kind="artifact")
    assert "0 judged by you" in text_of(other)
    assert other.selectbox(key="review_kind").options == [KIND, "artifact"]
    other.selectbox(key="review_kind").set_value(KIND).run()
    assert state_of(other).param("kind") == KIND and shown(other) != first


def test_in_a_public_place_nothing_is_written_and_everything_can_be_downloaded(page, own, monkeypatch):
    import limits

    monkeypatch.setattr(limits, "PUBLIC", True)
    app = page("review", own, kind=KIND)
    first = shown(app)
    press(app, "yes")
    assert not own.with_suffix(".verdicts").exists() and "keeps no verdicts" in text_of(app)
    held = app.session_state["review_of"][1]
    assert first.encode() in held.to_bytes(".csv", history=True) and held.current()[0].by == "visitor"
    assert not app.get("file_uploader")


def test_a_file_that_is_none_of_verdicts_is_refused_and_stays_as_it_was(page, own):
    own.with_suffix(".verdicts").write_text("my own notes\n")
    with pytest.raises(AssertionError, match=r"FormatError|no file of galsearch"):
        page("review", own, kind=KIND)
    assert own.with_suffix(".verdicts").read_text() == "my own notes\n"


def test_the_picture_is_stretched_and_zoomed_while_judging(page, own):
    import numpy as np
    from views import review

    pixels = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(12, 8, 3)
    assert review.zoomed(pixels, 2).shape == (6, 4, 3) and (review.zoomed(pixels, 2) == pixels[3:9, 2:6]).all()
    assert review.zoomed(pixels, 1).shape == pixels.shape
    app = page("review", own, kind=KIND)
    first = shown(app)
    for control in app.get("button_group"):
        if control.label == "Zoom":
            control.set_value(2).run()
            break
    assert shown(app) == first and not app.exception


# ---- what is seen


@pytest.fixture
def filed(tmp_path, tiny_folder, tiny_source, monkeypatch):
    """A copy of the tiny atlas whose provenance names a folder of its own, with larger pictures in other colors."""
    import json

    import duckdb
    from PIL import Image

    monkeypatch.delenv("GALSEARCH_PICTURES", raising=False)
    path = Path(shutil.copytree(tiny_folder, tmp_path / "tiny.atlas"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for one in sorted(tiny_source[0].iterdir()):
        Image.new("RGB", (90, 120), (200, 10, 10)).save(pictures / one.name)
    with duckdb.connect(str(path / "galaxies.duckdb")) as connection:
        (text,) = connection.execute("SELECT value FROM galsearch_manifest WHERE key = 'provenance'").fetchone()
        steps = json.loads(text)
        steps[0]["parameters"]["source"] = str(pictures)
        connection.execute("UPDATE galsearch_manifest SET value = $1 WHERE key = 'provenance'", [json.dumps(steps)])
    return path, pictures


def test_the_picture_is_that_of_the_file_and_says_so(page, filed):
    path, _ = filed
    app = page("review", path, kind=KIND)
    file = Path(opened(path)[shown(app)].columns["file"])
    assert f"90 × 120 pixels, picture file {file.name}" in text_of(app)
    held = app.session_state["review_file"][1]
    assert held.shape == (120, 90, 3) and tuple(held[0, 0]) == (200, 10, 10)
    app.toggle(key="review_blind").set_value(True).run()
    text = text_of(app)
    assert "90 × 120 pixels, picture file" in text and file.stem not in text


def test_without_a_file_or_with_a_damaged_one_the_thumbnail_is_shown_and_it_is_said(page, filed):
    path, pictures = filed
    app = page("review", path, kind=KIND)
    name = opened(path)[shown(app)].columns["file"]
    (pictures / name).write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 500)
    app.run()
    assert "stored thumbnail; the picture file cannot be read" in text_of(app) and str(pictures) not in text_of(app)
    (pictures / name).unlink()
    app.run()
    assert "pixels, stored thumbnail" in text_of(app) and "cannot be read" not in text_of(app)


def test_no_name_leads_out_of_the_folder_and_a_public_place_reads_no_file(page, filed, app_path, monkeypatch):
    import limits
    import rendering

    path, pictures = filed
    atlas = opened(path)
    inside = sorted(pictures.iterdir())[0]
    outside = pictures.with_name("outside.png")
    shutil.copy(inside, outside)
    (pictures / "link.png").symlink_to(outside)
    assert rendering.source_file(atlas, inside.name) == inside
    for name in ("../outside.png", str(outside), "link.png", "", None, "a\0.png", "x" * 5000 + ".png", "."):
        assert rendering.source_file(atlas, name) is None
    monkeypatch.setenv("GALSEARCH_PICTURES", str(pictures))
    assert rendering.source_file(atlas, inside.name) == inside  # the same folder twice is no doubt
    monkeypatch.setenv("GALSEARCH_PICTURES", str(pictures.parent))
    shutil.copy(inside, pictures.parent / inside.name)
    assert rendering.source_file(atlas, inside.name) is None  # which of the two it was is not known
    monkeypatch.setattr(limits, "PUBLIC", True)
    monkeypatch.delenv("GALSEARCH_PICTURES")
    assert rendering.source_file(atlas, inside.name) is None
