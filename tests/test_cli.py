"""The command line: what goes to stdout, what to stderr, and with which exit code it ends."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import tiny
from astropy.io import fits, votable
from astropy.table import Table
from PIL import Image
from pyarrow import parquet
from tiny_models import picture
from typer.testing import CliRunner

import galsearch
from galsearch import cli
from galsearch.store.write.disk import disk_errors

IMPORTED = """
import sys, galsearch.cli
sys.argv = ["galsearch", *{arguments!r}]
try:
    galsearch.cli.main()
finally:
    print(" ".join(sorted(name for name in {watched!r} if name in sys.modules)), file=sys.stderr)
"""
MAIN = "from galsearch.cli import main; main()"
HEAVY = ("astropy", "PIL", "lance", "pandas", "sep", "scipy", "torch", "streamlit", "matplotlib")


def process(*arguments, cwd=None):
    """Run the command line as the user's shell does."""
    call = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder, so that what is written by mistake is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(answer, message, *, code=1):
    """Make sure that a command failed with one clear line, printed nothing as data and showed no traceback."""
    found, out, error = answer
    assert found == code, error
    assert out == ""
    assert "Traceback" not in error
    assert message in error
    if code == 1:
        assert len([line for line in error.splitlines() if line.startswith("galsearch: ")]) == 1


def ids(out):
    """Return the ids of printed JSON."""
    return [row["object_id"] for row in json.loads(out)["rows"]]


# ---- search


def test_words_print_a_table_with_units_and_nothing_else_on_stdout(run, tiny_path):
    code, out, error = run("search", tiny_path, "red edge", "-k", "3")
    with galsearch.open(tiny_path) as atlas:
        expected = atlas.search("red edge", k=3).ids
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.strip().startswith("12376")] == expected
    assert "[deg]" in out
    assert error == ""


@pytest.mark.slow
def test_every_way_to_ask_gives_what_python_gives(run, tiny_path, tmp_path):
    first, second = tiny.object_id(0), tiny.object_id(1)
    Image.fromarray(tiny.draw(2)).save(tmp_path / "x.png")
    term = galsearch.Term
    asked = {
        ("red edge",): (term("text", "red edge"),),
        ("--like", first): (term("object", first),),
        ("--like", first, "--like", second): (term("object", first), term("object", second)),
        ("--image", tmp_path / "x.png"): (term("image", str(tmp_path / "x.png")),),
        ("red", "--plus", "0.5:ring", "--minus", "2:edge"): (
            term("text", "red"),
            term("text", "ring", 0.5),
            term("text", "edge", -2.0),
        ),
        ("red", "--minus", "edge"): (term("text", "red"), term("text", "edge", -1.0)),
        ("--plus", "ring: the round kind"): (term("text", "ring: the round kind"),),
        (): (),
    }
    with galsearch.open(tiny_path) as atlas:
        for arguments, terms in asked.items():
            code, out, _ = run("search", tiny_path, *arguments, "-k", 5, "--format", "json")
            assert code == 0
            assert ids(out) == atlas.search(galsearch.Query(terms, k=5)).ids, arguments


def test_cuts_and_cones_work_together(run, tiny_path):
    where = "z < 0.1 AND survey = 'd''Or'"
    code, out, _ = run("search", tiny_path, "blue", "--where", where, "-k", "100", "--format", "json", "--exact")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert rows
    assert all(row["z"] < 0.1 and row["survey"] == "d'Or" for row in rows)


@pytest.mark.parametrize("center", [("0.0", "10.0"), ("00:00:00", "+10:00:00"), ("0h0m0s", "+10d0m0s")])
def test_a_cone_takes_degrees_and_sexagesimal_and_crosses_ra_zero(run, tiny_path, center):
    _, out, _ = run("search", tiny_path, "--near", *center, "--radius-arcsec", "3600", "-k", "500", "--format", "json")
    rows = json.loads(out)["rows"]
    assert {row["ra"] > 180 for row in rows} == {True, False}


@pytest.mark.slow
def test_a_cone_takes_a_right_ascension_below_zero(run, tiny_path):
    found = [
        ids(run("search", tiny_path, "--near", ra, "10", "--radius-arcsec", "900", "-k", "500", "--format", "json")[1])
        for ra in ("-0.05", "359.95")
    ]
    assert found[0] == found[1] != []


@pytest.mark.slow
def test_a_cone_takes_southern_declinations(run, tiny_path):
    arguments = ("--near", "12:30:00", "-90:00:00", "--radius-arcsec", "3600", "-k", "500", "--format", "json")
    code, out, _ = run("search", tiny_path, *arguments)
    assert code == 0
    assert all(row["dec"] < -89 for row in json.loads(out)["rows"])


def test_explain_tells_the_plan_on_stderr(run, tiny_path):
    code, out, error = run("search", tiny_path, "red", "--explain", "--format", "csv")
    assert code == 0
    assert "exact: 300 matches" in error
    assert "CPUExecutionProvider" in error
    assert "matches" not in out


def test_a_number_without_a_column_is_told_with_and_without_explain(run, tiny_path):
    for more in ((), ("--explain",)):
        code, out, error = run("search", tiny_path, "red edge, inclination > 70 deg", *more, "--format", "json")
        assert code == 0
        assert len(ids(out)) == 12
        assert "'inclination > 70 deg' is not understood here: this atlas has no numeric column 'inclination'" in error


@pytest.mark.slow
def test_words_in_another_language_get_a_hint_and_english_ones_none(run, tiny_path):
    code, _, error = run("search", tiny_path, "Spiralgalaxie ohne Balken", "-k", "1")
    assert code == 0
    assert "the words look German, and only English is understood; ask in English" in error
    assert "English" not in run("search", tiny_path, "red edge", "-k", "1")[2]


@pytest.mark.slow
def test_printed_formats_are_read_by_others(run, tiny_path):
    formats = {
        name: run("search", tiny_path, "red", "-k", "4", "--format", name)[1] for name in ("json", "csv", "votable")
    }
    expected = ids(formats["json"])
    rows = list(csv.DictReader(io.StringIO(formats["csv"])))
    assert [row["object_id"] for row in rows] == expected
    assert not formats["csv"].endswith("\n\n")
    table = votable.parse(io.BytesIO(formats["votable"].encode())).get_first_table().to_table(use_names_over_ids=True)
    assert [str(name) for name in table["object_id"]] == expected
    assert str(table["mass"].unit) == "solMass"


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".vot", ".parquet", ".json", ".reg"])
def test_output_is_written_in_the_format_of_the_suffix(run, tiny_path, tmp_path, suffix):
    out = tmp_path / f"hits{suffix}"
    code, printed, error = run("search", tiny_path, "--where", "ra IS NOT NULL", "-k", "4", "-o", out)
    assert (code, printed) == (0, "")
    assert f"wrote {out} (4 rows)" in error
    if suffix == ".reg":
        assert out.read_text().count("circle(") == 4
    elif suffix == ".json":
        assert len(json.loads(out.read_text())["rows"]) == 4
    elif suffix == ".parquet":
        assert parquet.read_table(out).num_rows == 4
    else:
        known = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable"}
        assert len(Table.read(out, format=known[suffix])) == 4


@pytest.mark.slow
def test_a_contact_sheet_is_a_picture(run, tiny_path, tmp_path):
    code, _, error = run("search", tiny_path, "red", "-k", "4", "--sheet", tmp_path / "sheet.png")
    assert code == 0
    assert "wrote" in error
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 100


def test_an_empty_answer_is_no_failure_and_says_so(run, tiny_path):
    code, out, error = run("search", tiny_path, "red", "--where", "z > 99", "--format", "json")
    assert code == 0
    assert ids(out) == []
    assert "nothing passes the cuts" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("red", "-k", "0"), "k is 0"),
        (("  ",), "the text is empty"),
        (("--like", "nobody"), "no object 'nobody'"),
        (("--where", "nope < 1"), "nope"),
        (("--where", "z < 1; DROP TABLE galaxies"), "where"),
        (("--where", "z IN (SELECT 1 FROM read_csv('/etc/passwd'))"), "where"),
        (("--where", " "), "where is ' '"),
        (("--image", "nowhere.png"), "nowhere.png"),
        (("--near", "10", "95", "--radius-arcsec", "1"), "95"),
        (("--near", "10", "5"), "radius_arcsec"),
        (("--radius-arcsec", "5"), "near"),
        (("red", "--minus", "red"), "cancel"),
        (("red", "--plus", "0:ring"), "weight"),
        (("red", "-o", "hits.docx"), ".docx"),
        (("red", "-o", "nowhere/hits.csv"), "nowhere"),
        (("red", "--sheet", "nowhere/sheet.png"), "nowhere"),
        (("red", "--device", "abacus"), "abacus"),
    ],
    ids=str,
)
def test_a_wrong_question_is_one_line_and_exit_1(run, tiny_path, here, arguments, message):
    fails(run("search", tiny_path, *arguments), message)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "ATLAS", "red", "--format", "xml"), "'xml' is not one of table, json, csv, votable"),
        (("info", "ATLAS", "--format", "xml"), "'xml' is not one of"),
        (("show", "ATLAS", tiny.object_id(0), "--format", "xml"), "'xml' is not one of"),
        (("sql", "ATLAS", "SELECT 1", "--format", "xml"), "'xml' is not one of"),
        (("search", "ATLAS", "red", "-k", "many"), "-k"),
        (("search", "ATLAS", "--near", "10"), "--near"),
        (("search", "ATLAS", "--nearly"), "--nearly"),
        (("search",), "Missing argument"),
        (("find", "ATLAS"), "find"),
        (("build", "x.atlas", "--images", "a", "--mosaic", "b"), "not both"),
    ],
    ids=str,
)
def test_wrong_usage_is_exit_2(run, tiny_bundle, here, arguments, message):
    fails(run(*(tiny_bundle if part == "ATLAS" else part for part in arguments)), message, code=2)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("verb", ["search", "info", "check", "sql", "show", "bundle", "add"])
def test_every_verb_names_an_atlas_that_is_not_there(run, tmp_path, verb):
    more = {"sql": ("SELECT 1",), "show": ("x",), "bundle": (tmp_path / "y.duckdb",)}
    fails(run(verb, tmp_path / "nowhere.atlas", *more.get(verb, ())), "nowhere.atlas")
    assert list(tmp_path.iterdir()) == []


# ---- the other readers


def test_show_prints_every_column_with_its_unit(run, tiny_path):
    code, out, error = run("show", tiny_path, tiny.object_id(0))
    assert (code, error) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert lines["object_id"] == [tiny.object_id(0)]
    assert lines["mass"][1:] == ["solMass"]
    _, out, _ = run("show", tiny_path, tiny.object_id(0), "--format", "json")
    assert ids(out) == [tiny.object_id(0)]
    fails(run("show", tiny_path, "nobody"), "no object 'nobody'")


def test_sql_prints_and_writes_rows(run, tiny_path, tmp_path):
    statement = "SELECT object_id, score, mass FROM nearest(embed('red edge'), k := 3) JOIN galaxies USING (object_id)"
    code, out, error = run("sql", tiny_path, statement, "--format", "csv")
    assert (code, error) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    with galsearch.open(tiny_path) as atlas:
        assert {row["object_id"] for row in rows} == set(atlas.search("red edge", k=3).ids)
    code, out, _ = run("sql", tiny_path, statement, "-o", tmp_path / "rows.vot")
    assert (code, out) == (0, "")
    assert len(Table.read(tmp_path / "rows.vot", format="votable")) == 3


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE galaxies",
        "COPY galaxies TO 'x.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT nope FROM galaxies",
        "",
        "SELEC 1",
    ],
)
def test_sql_refuses_what_is_no_question(run, tiny_path, here, statement):
    fails(run("sql", tiny_path, statement), "sql")
    assert list(here.iterdir()) == []


def test_info_tells_what_is_inside(run, tiny_path):
    code, out, error = run("info", tiny_path, "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert (found["title"], found["rows"]) == ("Tiny", 300)
    assert {"mass", "axis_ratio"} <= {column["column"] for column in found["columns"]}
    code, out, error = run("info", tiny_path)
    assert code == 0
    assert "Tiny: 300 galaxies" in error
    assert "solMass" in out


def test_check_ends_with_0_on_a_good_atlas_and_1_on_damage(run, tiny_path, bundle_path):
    code, out, _ = run("check", tiny_path)
    assert code == 0
    assert all(line.startswith("ok") for line in out.splitlines())
    with duckdb.connect(bundle_path) as damaged:
        damaged.execute("DELETE FROM galaxies WHERE object_id = (SELECT min(object_id) FROM galaxies)")
    code, out, error = run("check", bundle_path)
    assert code == 1
    bad = [line for line in out.splitlines() if line.startswith("BAD")]
    assert any("299 objects, the manifest says 300; rebuild" in line for line in bad)
    assert "Traceback" not in error


def test_a_truncated_bundle_is_one_line(run, bundle_path):
    content = bundle_path.read_bytes()
    bundle_path.write_bytes(content[: len(content) // 2])
    for verb in ("check", "info"):
        fails(run(verb, bundle_path), "tiny.duckdb")


# ---- the writers


@pytest.fixture
def cutouts(tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for color in ("red", "blue", "green"):
        Image.fromarray(picture(color=color, shape="round", size_px=32)).save(folder / f"{color}.png")
    (folder / "broken.jpg").write_bytes(b"")
    return folder


@pytest.mark.slow
def test_build_bundle_add_search_is_the_whole_way(run, cutouts, tmp_path, tiny_models):
    path, file = tmp_path / "x.atlas", tmp_path / "x.duckdb"
    table = tmp_path / "t.csv"
    table.write_text("tile,z\nred,0.1\nblue,0.2\ngreen,0.3\nbroken,0.4\n")
    options = ("--images", cutouts, "--table", table, "--id-column", "tile", "--models", tiny_models)
    code, out, error = run("build", path, *options, "--title", "Three")
    assert (code, out) == (0, "")
    assert "3 galaxies added, 3 in all" in error
    assert "broken.jpg: the file is empty (0 bytes)" in error
    more = tmp_path / "more"
    more.mkdir()
    Image.fromarray(picture(color="yellow", shape="edge", size_px=32)).save(more / "yellow.png")
    code, out, error = run("add", path, "--images", more, "--models", tiny_models)
    assert (code, out) == (0, "")
    assert "1 galaxies added, 4 in all" in error
    code, out, error = run("bundle", path, file)
    assert (code, out) == (0, "")
    assert f"wrote {file}" in error
    for place in (path, file):
        assert ids(run("search", place, "yellow edge", "-k", "1", "--format", "json")[1]) == ["yellow"]
    assert run("bundle", path, tmp_path / "small.duckdb", "--no-models")[0] == 0
    assert galsearch.open(tmp_path / "small.duckdb").models() == {}
    fails(run("build", path, *options), "exists")
    assert run("build", path, *options, "--overwrite")[0] == 0


@pytest.mark.slow
def test_one_broken_picture_is_told_before_many_rows_without_one(run, cutouts, tmp_path, tiny_models):
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["tile,z", "red,0.1", *(f"absent{n},{n}" for n in range(30)), "broken,0.4"]))
    options = ("--images", cutouts, "--table", table, "--id-column", "tile", "--models", tiny_models)
    code, _, error = run("build", tmp_path / "x.atlas", *options)
    told = error.partition("33 left out")[2].splitlines()
    assert code == 0
    assert "33 left out" in error
    assert [line.split(":")[0].strip() for line in told[1:4]] == ["broken.jpg", "blue.png", "green.png"]
    assert sum("no picture named" in line for line in told) == 7


@pytest.mark.slow
def test_credits_of_the_data_travel_with_the_atlas(run, cutouts, tmp_path, tiny_models):
    known = [{"title": "A survey", "license": "CC BY 4.0", "acknowledgement": "Thanks to A", "bibtex": "@article{a}"}]
    credits = tmp_path / "credits.json"
    credits.write_text(json.dumps(known))
    options = ("--images", cutouts, "--models", tiny_models, "--credits", credits)
    assert run("build", tmp_path / "x.atlas", *options)[0] == 0
    with galsearch.open(tmp_path / "x.atlas") as atlas:
        assert atlas.manifest.sources == known
    credits.write_text("{}")
    fails(run("build", tmp_path / "y.atlas", *options), "expected a JSON list")
    credits.write_text("[")
    fails(run("build", tmp_path / "y.atlas", *options), "cannot be read as JSON")


@pytest.mark.slow
def test_what_is_said_of_a_table_is_taken_over_what_is_found(run, cutouts, tmp_path, tiny_models):
    tables = [
        Table({"tile": ["x"], "ra": [1.0]}),
        Table(
            {
                "tile": ["red", "blue"],
                "alpha": [10.0, 11.0],
                "delta": [-5.0, 6.0],
                "ra": [0.5, 0.5],
                "zz": [0.25, 99.0],
            }
        ),
    ]
    hdus = [fits.PrimaryHDU(), *(fits.BinTableHDU(table, name=name) for table, name in zip(tables, "AB", strict=True))]
    fits.HDUList(hdus).writeto(tmp_path / "t.fits")
    said = ("--table-name", "B", "--id-column", "tile", "--ra", "alpha", "--dec", "delta")
    source = ("--images", cutouts, "--table", tmp_path / "t.fits", "--models", tiny_models)
    options = (*source, *said, "--columns", "z=zz", "--missing", "99,-99")
    code, _, error = run("build", tmp_path / "x.atlas", *options)
    assert code == 0, error
    with galsearch.open(tmp_path / "x.atlas") as atlas:
        assert (atlas["red"].ra, atlas["red"].dec, atlas["red"].z) == (10.0, -5.0, 0.25)
        assert atlas["blue"].z is None
    fails(run("build", tmp_path / "y.atlas", *source, "--columns", "zz"), "ROLE=COLUMN")
    fails(run("build", tmp_path / "y.atlas", *source, "--columns", "depth=zz"), "depth")
    fails(run("build", tmp_path / "y.atlas", *source, "--ra", "nowhere"), "nowhere")
    fails(run("build", tmp_path / "y.atlas", *source, "--table-name", "C"), "C")
    fails(run("build", tmp_path / "y.atlas", *source, "--missing", "many"), "many", code=2)
    assert not (tmp_path / "y.atlas").exists()


@pytest.mark.slow
def test_what_is_said_of_pictures_is_taken_over_what_is_found(run, tmp_path, tiny_models):
    drawn = {color: picture(color=color, shape="edge", size_px=32) for color in ("red", "blue")}
    for place, first in (("a", "red"), ("b", "blue")):
        (tmp_path / "cutouts" / place).mkdir(parents=True)
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((32, 32), np.float32), name="SCI")]
        hdus += [
            fits.ImageHDU(drawn[first][..., plane].astype(np.float32), name=band)
            for plane, band in enumerate(("I", "R", "G"))
        ]
        fits.HDUList(hdus).writeto(tmp_path / "cutouts" / place / "one.fits")
    source = ("--images", tmp_path / "cutouts", "--models", tiny_models)
    fails(run("build", tmp_path / "x.atlas", *source, "--bands", "I,R,G"), "--id-from path")
    code, _, error = run("build", tmp_path / "x.atlas", *source, "--bands", "I,R,G", "--id-from", "path")
    assert code == 0, error
    with galsearch.open(tmp_path / "x.atlas") as atlas:
        assert sorted(atlas.search(k=5).ids) == ["a/one.fits", "b/one.fits"]
        assert atlas.search("red edge", k=1).ids == ["a/one.fits"]
    code, _, error = run("build", tmp_path / "y.atlas", *source, "--ext", "I", "--id-from", "path")
    assert code == 0, error
    assert "b/one.fits: every pixel has" in error  # in that band nothing of the other is seen
    fails(run("build", tmp_path / "z.atlas", *source, "--ext", "SCI", "--id-from", "path"), "nothing was built")
    fails(run("build", tmp_path / "z.atlas", *source, "--id-from", "place"), "place")


@pytest.mark.slow
def test_a_mosaic_and_a_table_of_vectors_are_built_too(run, tmp_path, tiny_models):
    field = np.random.default_rng(0).normal(8, 2, (96, 96, 3))
    y, x = np.mgrid[:96, :96]
    field += 200 * np.exp(-((x - 40) ** 2 + (y - 50) ** 2) / 30)[:, :, None]
    Image.fromarray(np.clip(field, 0, 255).astype(np.uint8)).save(tmp_path / "m.png")
    assert run("build", tmp_path / "m.atlas", "--mosaic", tmp_path / "m.png", "--models", tiny_models)[0] == 0
    Table({"id": ["a", "b"], "v": np.eye(2, 8)}).write(tmp_path / "v.fits")
    options = ("--table", tmp_path / "v.fits", "--vectors", "v", "--model", "mine")
    assert run("build", tmp_path / "v.atlas", *options)[0] == 0
    assert ids(run("search", tmp_path / "v.atlas", "--like", "a", "--format", "json")[1]) == ["b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to take in"),
        (("--images", "nowhere"), "nowhere: no such folder"),
        (("--images", "file.png"), "images takes a folder"),
        (("--mosaic", "cutouts"), "mosaic takes one picture"),
        (("--images", "cutouts", "--table", "nowhere.csv"), "nowhere.csv"),
        (("--images", "cutouts", "--table", "twice.csv"), "'red'"),
        (("--images", "cutouts", "--models", "cutouts"), "no image model found"),
        (("--images", "cutouts", "--vectors", "v"), "vectors names a column of a table"),
    ],
    ids=str,
)
def test_a_build_that_cannot_begin_is_one_line_and_leaves_nothing(run, cutouts, here, arguments, message):
    shutil.copy(cutouts / "red.png", "file.png")
    Path("twice.csv").write_text("id\nred\nred\n")
    before = set(here.iterdir())
    fails(run("build", "x.atlas", *arguments), message)
    assert set(here.iterdir()) == before


@pytest.mark.slow
def test_the_demo_finds_galaxies_in_a_real_picture(run, tmp_path):
    pytest.importorskip("skimage", reason="scikit-image carries the demo's picture")
    if not list((Path(galsearch.__file__).parent.parent / "onnx_models").glob("*/card.json")):
        pytest.skip("no shipped onnx models")
    code, out, error = run("demo", tmp_path)
    assert code == 0, error
    assert out.count("xdf-") == 24
    assert (tmp_path / "contact_sheet.png").stat().st_size > 10_000
    with galsearch.open(tmp_path / "xdf.duckdb") as atlas:
        assert 500 <= len(atlas) <= 1500


# ---- as the shell sees it


def test_help_and_version_end_with_0():
    runner = CliRunner()
    told = runner.invoke(cli.app, ["--help"])
    assert told.exit_code == 0
    for verb in ("demo", "build", "add", "bundle", "info", "search", "show", "sql", "check", "app"):
        assert verb in told.stdout
        assert runner.invoke(cli.app, [verb, "-h"]).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("red", "-k", "2"), 0), (("red", "-k", "0"), 1), (("red", "--format", "xml"), 2)],
    ids=["well", "error", "usage"],
)
def test_a_process_ends_with_the_exit_code_of_its_kind(tiny_bundle, tmp_path, arguments, code):
    done = process("search", tiny_bundle, *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert bool(done.stdout) == (code == 0)
    assert bool(done.stderr) == (code != 0)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "told",
    [
        None,
        RuntimeError("Query interrupted"),
        duckdb.InvalidInputException("exporting a stream failed: KeyboardInterrupt"),
        galsearch.GalsearchError("some file could not be read"),
    ],
    ids=["python", "duckdb", "arrow", "ours"],
)
def test_ctrl_c_anywhere_is_one_line_and_exit_130(run, tiny_bundle, monkeypatch, told):
    def stopping(*_, **__):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise (told or KeyboardInterrupt) from None

    monkeypatch.setattr(galsearch.Atlas, "search", stopping)
    fails(run("search", tiny_bundle, "red"), "galsearch: stopped", code=130)


@pytest.mark.slow
def test_a_reader_that_leaves_early_sees_no_traceback(tiny_bundle):
    call = [sys.executable, "-c", MAIN, "sql", str(tiny_bundle), "SELECT * FROM galaxies", "--format", "json"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.close()
        error = running.stderr.read()
    assert "Traceback" not in error
    assert "BrokenPipe" not in error


@pytest.mark.slow
def test_writing_a_votable_does_not_write_beyond_its_memory(tiny_bundle):
    """The C writer of astropy 8.0 does, by a byte, and the process dies at some later moment."""
    call = [sys.executable, "-c", MAIN, "search", str(tiny_bundle), "-k", "40", "--format", "votable"]
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[:500]


@pytest.mark.slow
def test_a_search_of_a_bundle_loads_no_library_that_it_does_not_need(tiny_bundle):
    code = IMPORTED.format(arguments=["search", str(tiny_bundle), "red", "-k", "2"], watched=HEAVY)
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr.strip() == ""


def test_the_app_is_started_on_this_machine_only(run, tiny_path, monkeypatch):
    pytest.importorskip("streamlit", reason="the app needs streamlit")
    started = []
    monkeypatch.setattr(subprocess, "call", lambda command: started.append(command) or 0)
    assert run("app", tiny_path, "--port", "8600") == (0, "", "")
    command = started[0]
    assert Path(command[command.index("run") + 1]).is_file()
    assert command[command.index("--server.address") + 1] == "localhost"
    assert command[command.index("--server.port") + 1] == "8600"
    assert command[-1] == str(tiny_path)


# ---- crossmatch


@pytest.fixture
def positions(tmp_path):
    """Three rows beside galaxies of the tiny atlas, a pole and RA 0 among them, and one far from all."""
    source = tiny.table().take([4, 1, 3])
    columns = {
        "name": ["zero", "north", "south", "nowhere"],
        "RAJ2000": [*source["ra"].to_pylist(), 100.0],
        "DEJ2000": [*(dec - 1e-4 if dec > 0 else dec + 1e-4 for dec in source["dec"].to_pylist()), 3.0],
    }
    return tiny.parquet(tmp_path / "positions.parquet", **columns)


def test_crossmatch_prints_rows_with_their_objects_and_counts_on_stderr(run, tiny_path, positions):
    code, out, error = run("crossmatch", tiny_path, positions, "--radius-arcsec", "1")
    assert code == 0
    lines = [line.split()[:4] for line in out.splitlines() if "1237650" in line]
    assert [(line[0], line[3]) for line in lines] == [
        ("zero", tiny.object_id(4)),
        ("north", tiny.object_id(1)),
        ("south", tiny.object_id(3)),
    ]
    assert "[arcsec]" in out
    assert error == "3 matches within 1 arcsec\n"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("--mode", "all"), {"mode": "all"}),
        (("--where", "z < 0.1"), {"where": "z < 0.1"}),
        (("--keep-unmatched",), {"keep_unmatched": True}),
        (("--ra", "RAJ2000", "--dec", "DEJ2000"), {"ra": "RAJ2000", "dec": "DEJ2000"}),
    ],
    ids=["best", "all", "where", "unmatched", "columns"],
)
def test_crossmatch_gives_what_python_gives(run, tiny_path, positions, arguments, options):
    code, out, error = run("crossmatch", tiny_path, positions, "--radius-arcsec", 600, "--format", "json", *arguments)
    with galsearch.open(tiny_path) as atlas:
        expected = atlas.crossmatch(positions, radius_arcsec=600, **options)
    assert code == 0
    assert json.loads(out)["rows"] == json.loads(galsearch.format_table(expected, "json"))["rows"]
    assert error.startswith(f"{expected.num_rows - expected['object_id'].null_count} matches")


def test_crossmatch_writes_a_file_with_units_and_says_so(run, tiny_path, positions, tmp_path):
    code, out, error = run("crossmatch", tiny_path, positions, "--radius-arcsec", 1, "-o", tmp_path / "found.vot")
    assert (code, out) == (0, "")
    assert error.startswith(f"wrote {tmp_path / 'found.vot'} (3 rows)\n")
    table = votable.parse_single_table(tmp_path / "found.vot").to_table()
    assert table["separation_arcsec"].unit == "arcsec"
    assert table["separation_arcsec"].tolist() == pytest.approx([0.36] * 3, abs=1e-6)
    assert table["object_id"].tolist() == [tiny.object_id(row) for row in (4, 1, 3)]


@pytest.mark.slow
def test_crossmatch_writes_without_formulas_where_that_is_asked(run, tiny_path, tmp_path):
    there = tiny.table().take([4])
    (tmp_path / "p.csv").write_text(f"name,ra,dec\n=1+1,{there['ra'][0].as_py()},{there['dec'][0].as_py()}\n")
    options = ("--radius-arcsec", 1, "-o", tmp_path / "found.csv")
    assert run("crossmatch", tiny_path, tmp_path / "p.csv", *options, "--quote-formulas")[0] == 0
    assert "'=1+1" in (tmp_path / "found.csv").read_text()


def test_crossmatch_without_a_match_is_an_answer(run, tiny_path, positions):
    code, out, error = run("crossmatch", tiny_path, positions, "--radius-arcsec", 0, "--format", "csv")
    assert (code, len(out.splitlines())) == (0, 1)
    assert error == "0 matches within 0 arcsec; check the columns and units\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,ra,dec\na,26h42m,+41d16m\n", "no positions found; columns ra, dec hold text that is no position"),
        ("name,ra,dec\na,10,91\n", "row 1 has ra 10.0 and dec 91.0, expected -180 to 360 and -90 to 90 degrees"),
        ("name,ra,dec\na,10,\nb,10,1\n", "1 of 2 rows have no position, the first is row 1; remove them"),
        ("name,lon,dec\na,10,1\n", "with ra and dec (--ra, --dec). There are: name, lon, dec"),
    ],
)
def test_crossmatch_refuses_a_table_without_positions_in_one_line(run, tiny_bundle, tmp_path, text, message):
    path = tiny.write(tmp_path / "positions.csv", text)
    fails(run("crossmatch", tiny_bundle, path, "--radius-arcsec", "1"), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ra", "RA"), "no column 'RA' for ra; there are: name, RAJ2000, DEJ2000"),
        (("--radius-arcsec", "-1"), "radius_arcsec is -1.0, expected 0 to 648000"),
        (("--mode", "any"), "mode is 'any', expected 'best'"),
        (("--where", "magnitude < 3"), "magnitude"),
        (("-o", "found.doc"), "cannot write a table to .doc"),
    ],
)
def test_crossmatch_refuses_options_that_make_no_sense_in_one_line(run, tiny_bundle, positions, arguments, message):
    fails(run("crossmatch", tiny_bundle, positions, "--radius-arcsec", "1", *arguments), message)


def test_crossmatch_needs_a_radius(run, tiny_path, positions):
    code, out, error = run("crossmatch", tiny_path, positions)
    assert (code, out) == (2, "")
    assert "--radius-arcsec" in error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_drops_is_not_lost():
    class Falls:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
            assert True  # the signal is seen here at the latest, and what is raised here goes nowhere

    with cli.output.progress_bar() as report:
        report(0, 2, "working")
        Falls()
        with pytest.raises(KeyboardInterrupt):
            report(1, 2, "working")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_csv_for_a_spreadsheet_has_no_formulas_where_that_is_asked(run, tiny_bundle, tmp_path):
    path, out = tmp_path / "a.csv", ["-o", tmp_path / "a.csv"]
    statement = "SELECT '=1+1' AS note, -1.5 AS n"
    assert run("sql", tiny_bundle, statement, *out)[0] == 0
    assert path.read_text().splitlines()[1] == '"=1+1",-1.5'
    assert run("sql", tiny_bundle, statement, *out, "--quote-formulas")[0] == 0
    assert path.read_text().splitlines()[1] == '"\'=1+1",-1.5'
    assert run("search", tiny_bundle, "red", "-k", "3", *out, "--quote-formulas")[0] == 0
    assert len(path.read_text().splitlines()) == 4


def test_hits_are_saved_without_formulas_where_that_is_asked(tiny_bundle, tmp_path, monkeypatch):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        hits = atlas.search("red", k=3)
        names = pa.array(["=1+1", "+a", "b"])
        monkeypatch.setattr(hits, "table", hits.table.append_column("note", names))
        hits.save(tmp_path / "plain.csv")
        hits.save(tmp_path / "quoted.csv", quote_formulas=True)
    rows = {name: csv.DictReader(io.StringIO((tmp_path / f"{name}.csv").read_text())) for name in ("plain", "quoted")}
    told = {name: [row["note"] for row in found] for name, found in rows.items()}
    assert told == {"plain": ["=1+1", "+a", "b"], "quoted": ["'=1+1", "'+a", "b"]}


def test_what_duckdb_makes_of_ctrl_c_is_one_of_python_where_the_engine_reads_and_writes(tiny_bundle, tmp_path):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        sandbox = atlas._store.sandbox
        for block in (sandbox.running("sql"), sandbox._running(), disk_errors(tmp_path, "free some space")):
            with pytest.raises(KeyboardInterrupt), block:
                raise RuntimeError("Query interrupted")
        with pytest.raises(RuntimeError, match="another"), sandbox.running("sql"):
            raise RuntimeError("another")
        assert atlas.sql("SELECT 7 AS n")["n"].to_pylist() == [7]


@pytest.mark.slow
def test_bytes_that_are_not_utf8_are_one_clear_error(run, tiny_path, tiny_folder, here):
    fails(run("search", tiny_path, "x\udcfe"), "not valid Unicode")
    fails(run("search", tiny_path, "--like", "x\udcfe"), "not valid Unicode")
    fails(run("search", tiny_path, "--where", "object_id = 'x\udcfe'"), "where")
    fails(run("sql", tiny_path, "SELECT 'x\udcfe'"), "not valid Unicode")
    fails(run("bundle", tiny_folder, here / "x\udcfe.duckdb"), "not UTF-8")
    fails(run("info", here / "x\udcfe.atlas"), "not UTF-8")
    assert list(here.iterdir()) == []
    (here / "x\udcfe").mkdir()
    fails(run("build", here / "new.atlas", "--images", here / "x\udcfe"), "not UTF-8")


@pytest.mark.slow
def test_a_picture_whose_name_is_not_utf8_is_left_out_by_name_and_a_title_is_mended(run, tiny_models, here):
    (here / "pictures").mkdir()
    for name in (b"good.png", b"bad\xe9.png"):
        Image.fromarray(picture(color="red", shape="edge")).save(here / "pictures" / os.fsdecode(name))
    code, _, error = run(
        "build", here / "a.atlas", "--images", here / "pictures", "--title", "x\udcff", "--models", tiny_models
    )
    assert code == 0, error
    assert "bad\\udce9.png: a name that is not UTF-8" in error
    with galsearch.open(here / "a.atlas") as atlas:
        assert (atlas.manifest.title, atlas.manifest.rows) == ("x?", 1)


# ---- names of before, and how help is grouped


def test_commands_and_options_by_their_old_names_still_work_and_say_the_new_one(run, tiny_bundle, tmp_path):
    code, _, error = run(
        "classify", tiny_bundle, tmp_path / "labels.yaml", "-k", 3
    )  # the name means something else now
    assert code == 2 and "a file of labels is for `galsearch label`" in error
    code, _, error = run("rerank", tiny_bundle, "red", "--estimate", "--api-key-env=MINE")
    assert code == 0 and "--api-key-env is now called --key-env" in error


@pytest.mark.slow
def test_hybrid_takes_a_way_of_fusing_or_stands_alone(run, tiny_bundle):
    import galsearch

    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        expected = {how: atlas.search("red edge", hybrid=how, k=5).ids for how in ("rank", "sum")}
    for arguments, how in (
        (("--hybrid", "rank"), "rank"),
        (("--hybrid", "sum"), "sum"),
        (("--hybrid=rank",), "rank"),
        (("--hybrid",), "sum"),
        (("--hybrid", "--exact"), "sum"),
    ):
        code, out, error = run("search", tiny_bundle, "red edge", "-k", 5, *arguments, "--format", "csv")
        assert code == 0, error
        assert [line.split(",")[0].strip('"') for line in out.splitlines()[1:]] == expected[how]
    code, _, error = run("search", tiny_bundle, "red edge", "--hybrid=product")
    assert (code, error.splitlines()[0]) == (
        1,
        "galsearch: hybrid is 'product', expected nothing or one of rank, sum",
    )


def test_help_lists_the_commands_by_what_they_are_for(run):
    code, out, _ = run("--help")
    assert code == 0
    heads = ["Make, keep and look into an atlas", "Search", "Label, caption and evaluate", "Classify", "Open the app"]
    places = [out.index(f"\n{head}") for head in heads]
    assert places == sorted(places)
    assert places[1] < out.index("crossmatch") < places[2] < out.index("evaluate  ") < places[3]
    assert places[3] < out.index("  classify  ") < out.index("  kb  ") < places[4]


def test_help_cuts_no_sentence_off(run):
    for command in ([], ["kb"], ["review"]):
        code, out, _ = run(*command, "--help")
        assert code == 0
        assert "..." not in out.replace("[ARGS]...", "").replace("...]", "")
