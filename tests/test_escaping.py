"""Text from files and strangers is text everywhere it is printed: no terminal obeys it, files keep it as it is."""

from __future__ import annotations

import doctest
import json
import re
import sys
import unicodedata

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import galsearch
from galsearch import escaping
from galsearch.escaping import printable

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egpj\u2066x\r\x00\x7f\u2028b\ngalsearch: all is well"
SEEN = r"a\x1b[2J\x1b]0;owned\x07\x9b31m\u202egpj\u2066x\r\x00\x7f\u2028b\ngalsearch: all is well"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def test_what_a_terminal_obeys_stands_as_an_escape_and_all_else_as_it_is():
    assert printable(EVIL) == SEEN
    assert printable(EVIL, lines=True) == SEEN.replace(r"b\n", "b\n")
    assert printable("NGC 1300 – Sérsic α ≤ 5″ 银河 🌀 नमस्ते") == "NGC 1300 – Sérsic α ≤ 5″ 银河 🌀 नमस्ते"
    assert (printable(5), printable(None), printable("\ud800")) == ("5", "None", r"\ud800")


@given(st.text(st.characters()), st.booleans())
def test_nothing_printable_is_a_control_of_any_kind(text, has_lines):
    made = printable(text, lines=has_lines)
    kept = "\n\t" if has_lines else ""
    assert not [sign for sign in made if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign not in kept]
    assert not [
        sign
        for sign in made
        if unicodedata.bidirectional(sign) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    assert made == printable(made, lines=has_lines)


@pytest.fixture(scope="module")
def evil_path(tmp_path_factory, tiny_models):
    """An atlas whose title, ids, texts, credits and rejected files are all hostile."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "cutouts").mkdir()
    for place in range(4):
        Image.fromarray(tiny.draw(place)).save(folder / "cutouts" / f"{place}.png")
    (folder / "cutouts" / "bad\x1b[31m\u202e.png").write_bytes(b"no picture")
    table = tiny.parquet(
        folder / "t.parquet",
        object_id=[f"{place}{EVIL.replace(chr(0), '')}" for place in range(4)],
        file=[f"{place}.png" for place in range(4)],
        name=[EVIL.replace("\x00", "")] * 4,
    )
    credit = {"title": EVIL, "license": EVIL, "acknowledgement": EVIL, "bibtex": f"@misc{{key,\n note = {{{EVIL}}}}}"}
    path = folder / "evil.atlas"
    galsearch.build(path, images=folder / "cutouts", table=table, models=tiny_models, title=EVIL, credits=[credit])
    return path


@pytest.mark.slow
def test_nothing_of_an_atlas_reaches_the_terminal_unescaped(run, evil_path):
    with galsearch.open(evil_path) as atlas:
        name = atlas.search(k=1).ids[0]
        assert "\x1b[2J" in name  # Python has the text as it is
        assert atlas.manifest.title == EVIL
    hostile = 'SELECT 1 AS "\x1b[31m\u202ex", object_id FROM galaxies'
    for arguments in (
        ("info", evil_path),
        ("search", evil_path),
        ("search", evil_path, "red edge", "--explain"),
        ("search", evil_path, "inclination\x1b > 70 deg", "--explain"),
        ("search", evil_path, name),  # its id in the words
        ("search", evil_path, "--like", name, "--explain"),
        ("search", evil_path, "--like", name[:-2]),  # an error that offers it
        ("search", evil_path, "--where", "nope\x1b[31m < 1"),
        ("show", evil_path, name),
        ("check", evil_path),
        ("cite", evil_path),
        ("cite", evil_path, "--bibtex"),
        ("sql", evil_path, hostile),
        ("sql", evil_path, "SELECT * FROM rejected"),
        ("sql", evil_path, "SELECT \x1b[31m nope"),
        ("crossmatch", evil_path, evil_path, "--radius-arcsec", "1\x1b"),
    ):
        _, out, error = run(*arguments)
        assert not OBEYED.search(out + error), arguments
        fake = [line for line in error.splitlines() if line.startswith("galsearch: all is well")]
        assert not fake, arguments


def test_a_build_tells_rejected_files_without_their_escapes(run, tmp_path, tiny_models):
    (tmp_path / "cutouts").mkdir()
    Image.fromarray(tiny.draw(0)).save(tmp_path / "cutouts" / "good.png")
    (tmp_path / "cutouts" / "bad\x1b[31m\u202e.png").write_bytes(b"no picture")
    code, out, error = run("build", tmp_path / "x y.atlas", "--images", tmp_path / "cutouts", "--models", tiny_models)
    assert code == 0
    assert r"bad\x1b[31m\u202e.png" in error
    assert "\x1b[31m" not in out + error.replace("\x1b[0m", "")


def test_files_and_piped_data_keep_the_text(run, evil_path, tmp_path):
    code, out, _ = run("search", evil_path, "-k", 1, "--format", "json")
    assert code == 0
    assert json.loads(out)["rows"][0]["name"] == EVIL.replace("\x00", "")
    run("search", evil_path, "-k", 1, "-o", tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["rows"][0]["name"] == EVIL.replace("\x00", "")


@pytest.mark.slow
def test_data_printed_on_a_terminal_shows_its_escapes(run, evil_path, monkeypatch, capsys):
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    for form in ("csv", "json", "votable"):
        _, out, error = run("search", evil_path, "-k", 1, "--format", form)
        assert "all is well" in out
        assert not OBEYED.search(out + error)


@pytest.mark.slow
def test_commands_to_run_next_are_quoted_for_the_shell(run, tmp_path, tiny_models):
    import shlex

    (tmp_path / "cutouts").mkdir()
    Image.fromarray(tiny.draw(0)).save(tmp_path / "cutouts" / "it's $(touch x).png")
    path = tmp_path / "my atlas; $(id).atlas"
    _, _, error = run("build", path, "--images", tmp_path / "cutouts", "--models", tiny_models)
    following = next(line for line in error.splitlines() if line.startswith("next: "))
    assert shlex.split(following)[2:] == ["bundle", str(path), str(path.with_suffix(".duckdb"))]
    _, _, error = run("search", path, "it's $(touch x)")
    like = next(line for line in error.splitlines() if line.startswith("for objects like it: "))
    assert shlex.split(like.removeprefix("for objects like it: "))[1:] == [
        "search",
        str(path),
        "--like=it's $(touch x)",
    ]


def test_the_example_in_the_docstring_holds():
    found = doctest.testmod(escaping)
    assert found.attempted > 0 and found.failed == 0
