"""Tables through files and back, each file also read by something other than what wrote it."""

import bz2
import csv
import datetime
import doctest
import gzip
import io
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import warnings
from types import SimpleNamespace
from xml.etree import ElementTree

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits, votable
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from galsearch import formats
from galsearch.errors import GalsearchError, SchemaError
from galsearch.formats import (
    describe,
    facts_of,
    fields,
    format_table,
    notes_of,
    read_table,
    to_astropy,
    write_table,
    writing,
)
from galsearch.formats.fields import unit_of

ROUND = (".csv", ".ecsv", ".fits", ".vot", ".parquet")  # written and read
TYPED = (".ecsv", ".fits", ".vot", ".parquet")  # with units, types and vectors
NS = {"v": "http://www.ivoa.net/xml/VOTable/v1.3"}
META = {
    "title": "Rings",
    "query": 'edge-on < 3 & "ring"',
    "software": "galsearch 0",
    "sources": [
        {"title": "XDF", "license": "CC0", "acknowledgement": "Thanks to Müller", "bibtex": "@misc{xdf,\n year={2013}}"}
    ],
}


def field(name, kind, **facts):
    return describe(pa.field(name, kind), **facts)


def sample() -> pa.Table:
    """One column of each kind, each with a null, awkward ids and text, metadata on some."""
    columns = {
        field("object_id", pa.string(), ucd="meta.id;meta.main"): ["000123", "1237648720693755918", "NGC 1 <&>"],
        field("ra", pa.float64(), unit="deg", ucd="pos.eq.ra;meta.main"): [10.125, None, 359.9],
        field("dec", pa.float64(), unit="deg", ucd="pos.eq.dec;meta.main"): [-1.5, None, 90.0],
        field("count", pa.int64(), description="Rows, & more"): [1237648720693755918, None, -5],
        field("flux", pa.float32(), unit="erg.s**-1.cm**-2"): [0.1, None, math.inf],
        field("small", pa.uint8()): [0, None, 255],
        field("is_star", pa.bool_()): [True, None, False],
        field("note", pa.string()): ["a, \"b\"\n'c'", None, "Müller ★ </TD>"],
    }
    return pa.table(list(columns.values()), schema=pa.schema(list(columns)))


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(formats).failed == 0


@pytest.mark.parametrize("suffix", ROUND)
def test_values_nulls_and_ids_come_back(tmp_path, suffix):
    assert write_table(sample(), tmp_path / f"a{suffix}", meta=META) == 3
    found = read_table(tmp_path / f"a{suffix}")
    expected = sample().to_pydict() | {"flux": pytest.approx([0.1, None, math.inf])}
    assert found.to_pydict() == expected


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
@pytest.mark.parametrize("suffix", TYPED)
def test_types_units_ucds_and_descriptions_come_back(tmp_path, suffix):
    write_table(sample(), tmp_path / f"a{suffix}")
    found = read_table(tmp_path / f"a{suffix}").schema
    assert found.types == sample().schema.types
    for got, given_field in zip(found, sample().schema, strict=True):
        facts, expected = facts_of(got), facts_of(given_field)
        assert units.Unit(facts.pop("unit"), format="vounit") == units.Unit(expected.pop("unit"), format="vounit")
        assert facts == expected


@pytest.mark.parametrize("suffix", ROUND)
def test_a_table_without_rows_keeps_its_columns(tmp_path, suffix):
    write_table(sample().slice(0, 0), tmp_path / f"a{suffix}")
    found = read_table(tmp_path / f"a{suffix}")
    assert (found.num_rows, found.column_names) == (0, sample().column_names)


@pytest.mark.parametrize("suffix", TYPED)
def test_vectors_come_back_and_a_missing_one_is_null(tmp_path, suffix):
    kind = pa.list_(pa.float32(), 3)
    table = pa.table({"object_id": ["a", "b", "c"], "embedding": pa.array([[0.1, 2, -3], None, [4, 5, 6]], kind)})
    write_table(table, tmp_path / f"a{suffix}")
    found = read_table(tmp_path / f"a{suffix}")["embedding"]
    assert pa.types.is_fixed_size_list(found.type)
    assert (found.type.list_size, found.type.value_type) == (3, pa.float32())
    assert found.to_pylist() == table["embedding"].to_pylist()


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".parquet"])
def test_integer_vectors_come_back_without_rows_too(tmp_path, suffix):
    table = pa.table({"pair": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))})
    for rows in (table, table.slice(0, 0)):
        write_table(rows, tmp_path / f"a{suffix}")
        assert read_table(tmp_path / f"a{suffix}").to_pydict() == rows.to_pydict()


def test_an_all_null_column_stays_null(tmp_path):
    table = pa.table({"object_id": ["a", "b"], "z": pa.array([None, None], pa.float64()), "n": pa.nulls(2)})
    for suffix in ROUND:
        write_table(table, tmp_path / f"a{suffix}")
        assert read_table(tmp_path / f"a{suffix}").to_pydict() == table.to_pydict(), suffix


text = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=6)
table_rows = st.fixed_dictionaries(
    {
        "object_id": text.map(lambda word: "x" + word.strip() + "x"),
        "wide": st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
        "short": st.none() | st.integers(-(2**15), 2**15 - 1),
        "x": st.none() | st.floats(allow_nan=False),
        "e": st.none() | st.floats(width=32, allow_nan=False),
        "flag": st.none() | st.booleans(),
        "words": st.none() | text.map(lambda word: word.strip() or None),
    }
)
KINDS = {"object_id": pa.string(), "wide": pa.int64(), "short": pa.int16(), "x": pa.float64(), "e": pa.float32()}
SCHEMA = pa.schema([*KINDS.items(), ("flag", pa.bool_()), ("words", pa.string())])


@pytest.mark.parametrize("suffix", TYPED)
@settings(max_examples=10, deadline=None)
@given(rows=st.lists(table_rows, max_size=4))
def test_any_table_comes_back(tmp_path_factory, suffix, rows):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    table = pa.Table.from_pylist(rows, SCHEMA)
    write_table(table, path)
    assert read_table(path).to_pylist() == table.to_pylist()


# --- readers other than ours ----------------------------------------------------------------------------------


def test_votable_is_valid_and_says_frame_ucd_and_provenance(tmp_path):
    path = tmp_path / "a.vot"
    write_table(sample(), path, meta=META)
    report = io.StringIO()
    assert votable.validate(path, output=report), report.getvalue()
    root = ElementTree.parse(path).getroot()
    assert root.get("version") == "1.4"
    frame = root.find(".//v:COOSYS", NS)
    sky = [node for node in root.iterfind(".//v:FIELD", NS) if node.get("ref") == frame.get("ID")]
    assert frame.get("system") == "ICRS"
    assert [(node.get("name"), node.get("unit")) for node in sky] == [("ra", "deg"), ("dec", "deg")]
    infos = {node.get("name"): node.get("value") for node in root.iterfind(".//v:INFO", NS)}
    source = META["sources"][0]
    assert (infos["query"], infos["source"], infos["bibtex"]) == (META["query"], "XDF", source["bibtex"])
    cells = [[cell.text for cell in row] for row in root.iterfind(".//v:TR", NS)]
    assert cells[1][1:] == [None] * 7  # an empty TD is null
    assert cells[0][:6] == ["000123", "10.125", "-1.5", "1237648720693755918", "0.1", "0"]
    assert cells[0][6] in ("T", "true", "1")  # all of which the standard takes
    assert cells[0][7] == "a, \"b\"\n'c'"


def test_nulls_of_every_type_are_masked_for_other_readers(tmp_path):
    table = sample().append_column("pair", pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)))
    write_table(table, tmp_path / "a.vot")
    found = votable.parse_single_table(tmp_path / "a.vot").to_table(use_names_over_ids=True)
    assert found["is_star"].dtype == bool
    assert [bool(np.all(found[name].mask[1])) for name in found.colnames[1:-2]] == [True] * 6
    assert (found["note"][1], found["pair"].mask.tolist()) == ("", [[False] * 2, [True] * 2, [False] * 2])


def test_votable_with_awkward_names_and_two_sources_has_no_id_twice(tmp_path):
    table = pa.table({"a b": [1], "a_b": [2], "icrs": [3], "title": [4], "1\u2605": [5], "ra": [1.0], "dec": [2.0]})
    sources = [{"title": "A", "license": "CC0"}, {"title": "B", "license": "CC0"}]
    write_table(table, tmp_path / "a.vot", meta={"title": "x", "sources": sources})
    nodes = ElementTree.parse(tmp_path / "a.vot").iter()
    ids = [node.get("ID") for node in nodes if node.get("ID")]
    assert len(ids) == len(set(ids))
    assert read_table(tmp_path / "a.vot").column_names == table.column_names


def test_votable_without_positions_names_no_frame():
    assert "COOSYS" not in format_table(sample().drop_columns(["ra"]), "votable")


def test_control_characters_do_not_break_xml():
    document = format_table(pa.table({"a": ["x\x00\x1by\r"]}), "votable", meta={"query": "\x07"})
    assert ElementTree.fromstring(document).find(".//v:TD", NS).text == "x\ufffd\ufffdy\r"


def test_fits_marks_nulls_as_the_standard_says(tmp_path):
    path = tmp_path / "a.fits"
    write_table(sample(), path, meta=META)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header, names = hdus[1].header, hdus[1].columns.names
        raw = hdus[1].data.view(np.ndarray)[1]
        offset, width = hdus[1].fileinfo()["datLoc"], header["NAXIS1"]
        nulls = {name: hdus[1].columns[name].null for name in names}
    assert raw["count"] == nulls["count"] == -(2**63)
    assert raw["small"] == nulls["small"] == 254
    assert raw["is_star"].view(np.uint8) == 0
    assert np.isnan(raw["ra"])
    assert header["TUNIT2"] == "deg"
    assert "TUNIT1" not in header
    assert header["TUCD2"] == "pos.eq.ra;meta.main"
    assert header["TCOMM4"] == "Rows, & more"
    assert header["RADESYS"] == "ICRS"
    assert "acknowledgement: Thanks to Muller" in list(header["COMMENT"])
    first = path.read_bytes()[offset : offset + width]  # and with no FITS library at all
    assert struct.unpack_from(">d", first, first.index(struct.pack(">d", 10.125)))[0] == 10.125
    assert first.startswith(b"000123\0")


def test_a_full_byte_column_with_nulls_is_widened(tmp_path):
    table = pa.table({"b": pa.array([*range(256), None], pa.uint8())})
    write_table(table, tmp_path / "b.fits")
    assert read_table(tmp_path / "b.fits")["b"].to_pylist() == [*range(256), None]


def test_parquet_opens_in_duckdb_and_carries_a_votable_header(tmp_path):
    path = tmp_path / "a.parquet"
    table = sample().append_column("thumbnail", pa.array([b"x", None, b"z"]))
    write_table(table, path, meta=META)
    assert duckdb.sql(f"SELECT count(*), count(ra), max(object_id) FROM '{path}'").fetchall() == [(3, 2, "NGC 1 <&>")]
    assert duckdb.sql(f"SELECT thumbnail FROM '{path}'").fetchall() == [(b"x",), (None,), (b"z",)]
    keys = pa.parquet.read_schema(path).metadata
    assert json.loads(keys[b"galsearch"]) == META
    header = ElementTree.fromstring(keys[b"IVOA.VOTable-Parquet.content"])
    assert [node.get("name") for node in header.iterfind(".//v:FIELD", NS)] == sample().column_names
    assert header.find(".//v:DATA", NS) is None


def test_parquet_of_others_takes_units_from_its_votable_header(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(sample(), path)
    keys = pa.parquet.read_schema(path).metadata
    bare = pa.schema([pa.field("ra", pa.float64())], metadata={formats.VOPARQUET_KEY: keys[formats.VOPARQUET_KEY]})
    pa.parquet.write_table(pa.table([[1.0]], schema=bare), path)
    assert facts_of(read_table(path).schema.field("ra"))["unit"] == "deg"


def test_ecsv_opens_in_astropy_with_units_and_credits(tmp_path):
    write_table(sample(), tmp_path / "a.ecsv", meta=META)
    table = Table.read(tmp_path / "a.ecsv")
    assert (table["ra"].unit, table.meta["query"]) == (units.deg, META["query"])
    assert table.meta["sources"][0]["bibtex"] == META["sources"][0]["bibtex"]
    assert table["count"].mask.tolist() == [False, True, False]


def test_csv_opens_in_duckdb(tmp_path):
    write_table(sample(), tmp_path / "a.csv")
    rows = duckdb.sql(
        f"SELECT object_id, \"count\", note FROM read_csv('{tmp_path}/a.csv', all_varchar := true)"
    ).fetchall()
    assert rows[0] == ("000123", "1237648720693755918", "a, \"b\"\n'c'")
    assert rows[1][1:] == (None, None)


def test_json_is_strict_and_short(tmp_path):
    write_table(sample().append_column("blob", pa.array([b"", b"", b""])), tmp_path / "a.json", meta=META)
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert found["meta"] == META
    assert found["columns"][1] == {"name": "ra", "type": "double", **facts_of(sample().schema.field("ra"))}
    assert [row["flux"] for row in found["rows"]] == [0.1, None, None]  # JSON has no infinity
    assert found["rows"][0]["object_id"] == "000123"
    assert "blob" not in found["rows"][0]


def test_regions_leave_out_and_count_rows_without_a_position(tmp_path):
    table = sample().append_column("radius_arcsec", pa.array([2.5, 1.0, None]))
    assert write_table(table, tmp_path / "a.reg", meta=META) == 2
    lines = (tmp_path / "a.reg").read_text().splitlines()
    assert lines[0] == "# Region file format: DS9 version 4.1"
    assert lines[lines.index("icrs") + 1 :] == [
        'circle(10.125,-1.5,2.5") # text={000123}', 'circle(359.9,90.0,5") # text={NGC 1 <&>}'
    ]  # fmt: skip
    assert "# 1 of 3 rows have no position and are left out" in lines
    assert write_table(table.drop_columns(["ra"]), tmp_path / "b.reg") == 0


def test_region_labels_cannot_break_out_of_their_braces():
    table = pa.table({"object_id": ["a}b\ncircle(0,0,1)"], "ra": [1.0], "dec": [2.0]})
    assert writing._ds9(table, {}).decode().splitlines()[2:] == ['circle(1.0,2.0,5") # text={a b circle(0,0,1)}']


def test_a_script_for_aladin_draws_a_circle_and_a_label_for_each_position(tmp_path):
    table = sample().append_column("radius_arcsec", pa.array([2.5, 1.0, None]))
    assert write_table(table, tmp_path / "a.ajs", meta={"title": 'Rings; "all"'}) == 2
    lines = (tmp_path / "a.ajs").read_text().splitlines()
    assert lines[lines.index("setconf frame=ICRS") :] == [
        "setconf frame=ICRS",
        "draw mode(RADEC)",
        'draw newtool("Rings all")',
        "draw circle(10.125,-1.5,2.5arcsec)",
        'draw string(10.125,-1.5,"000123")',
        "draw circle(359.9,90.0,5arcsec)",
        'draw string(359.9,90.0,"NGC 1 <&>")',
    ]


@pytest.mark.parametrize("bad", ['a");rm -all', "a`b", "a\\", "a\nrm -all"])
def test_labels_cannot_end_an_aladin_command(bad):
    table = pa.table({"object_id": [bad], "ra": [1.0], "dec": [2.0]})
    last = formats.table_bytes(table, ".ajs").decode().splitlines()[-1]
    assert re.fullmatch(r'draw string\(1\.0,2\.0,"[^"`;\\]+"\)', last)


def test_the_regions_package_reads_the_circles(tmp_path):
    regions = pytest.importorskip("regions", reason="the regions package is not installed")
    write_table(sample(), tmp_path / "a.reg", meta=META)
    first, second = regions.Regions.read(tmp_path / "a.reg", format="ds9")
    assert (first.center.ra.deg, first.center.dec.deg, first.radius.to_value("arcsec")) == (10.125, -1.5, 5)
    assert (first.center.frame.name, second.meta["text"]) == ("icrs", "NGC 1 <&>")


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_astropy_reads_parquet_with_the_metadata_of_votable(tmp_path):
    written = sample().drop_columns(["is_star"])  # its reader cannot take a missing boolean
    write_table(written, tmp_path / "a.parquet", meta=META)
    table = Table.read(tmp_path / "a.parquet", format="parquet.votable")
    assert table.colnames == written.column_names
    assert (table["ra"].unit, table["ra"].info.meta["ucd"]) == (units.deg, "pos.eq.ra;meta.main")
    assert table["count"].description == "Rows, & more"
    assert list(table["object_id"]) == sample()["object_id"].to_pylist()
    assert (table["ra"][0], np.isnan(table["ra"][1]), table["note"][2]) == (10.125, True, "Müller ★ </TD>")


def test_infinities_and_long_numbers_are_spelled_as_votable_has_them():
    table = pa.table(
        {"x": [math.inf, -math.inf, 0.1, 1e300], "v": pa.array([[math.inf, 1.5]] * 4, pa.list_(pa.float32(), 2))}
    )
    cells = [node.text for node in ElementTree.fromstring(format_table(table, "votable")).iterfind(".//v:TD", NS)]
    assert cells[:4] == ["+Inf", "+Inf 1.5", "-Inf", "+Inf 1.5"]
    assert [float(cell) for cell in cells[4::2]] == [0.1, 1e300]


@pytest.mark.parametrize("suffix", [".vot", ".fits"])
def test_vectors_of_integers_with_a_missing_one_are_floats_and_too_long_ones_text(tmp_path, suffix):
    kind = pa.list_(pa.int64(), 2)
    table = pa.table({"pair": pa.array([[1, 2], None], kind), "long": pa.array([[2**62 + 1, 0], None], kind)})
    write_table(table, tmp_path / f"a{suffix}")
    found = read_table(tmp_path / f"a{suffix}")
    assert found["pair"].to_pylist() == [[1.0, 2.0], None]
    assert found["long"].to_pylist() == [f"[{2**62 + 1}, 0]", None]


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".vot"])
def test_arrays_of_two_dimensions_are_json_text(tmp_path, suffix):
    kind = pa.list_(pa.list_(pa.float64(), 2), 2)
    table = pa.table({"object_id": ["a", "b"], "matrix": pa.array([[[1, 2], [3, 4]], None], kind)})
    write_table(table, tmp_path / f"a{suffix}")
    assert read_table(tmp_path / f"a{suffix}")["matrix"].to_pylist() == ["[[1.0, 2.0], [3.0, 4.0]]", None]


# --- STILTS, which is what TOPCAT reads with --------------------------------------------------------------------


def stilts(*arguments: object) -> str:
    """Run a command of STILTS; return what it says."""
    if shutil.which("stilts") is None:
        pytest.skip("stilts is not installed (Debian: apt install stilts)")
    call = ["stilts", "-J-Dfile.encoding=UTF-8", *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def with_vectors() -> pa.Table:
    floats = pa.array([[0.5, math.inf], None, [3, 4]], pa.list_(pa.float32(), 2))
    integers = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))
    return sample().append_column("v", floats).append_column("pair", integers)


@pytest.mark.slow
def test_a_votable_links_each_row_by_its_position():
    table = pa.table({"object_id": ["a"], "ra": [10.5], "dec": [-1.25]})
    node = ElementTree.fromstring(formats.table_bytes(table, ".vot"))
    (name, ra, dec) = node.iter("{http://www.ivoa.net/xml/VOTable/v1.3}FIELD")
    links = {link.get("title"): link.get("href") for link in name}
    assert (ra.get("ID"), dec.get("ID")) == ("ra", "dec") and set(links) == {"Legacy Survey", "SIMBAD"}
    assert all("${ra}" in address and "${dec}" in address for address in links.values())
    alone = formats.table_bytes(table.select(["object_id"]), ".vot")
    assert b"<LINK" not in alone


def test_stilts_finds_nothing_wrong_with_a_votable(tmp_path, with_vectors):
    write_table(with_vectors, tmp_path / "a.vot", meta=META)
    assert stilts("votlint", tmp_path / "a.vot") == ""
    (tmp_path / "bad.vot").write_text((tmp_path / "a.vot").read_text().replace(">10.125<", ">ten<"))
    assert "ERROR" in stilts("votlint", tmp_path / "bad.vot")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".vot", ".fits", ".csv"])
def test_stilts_reads_the_values_and_the_nulls(tmp_path, with_vectors, suffix):
    write_table(with_vectors, tmp_path / f"a{suffix}", meta=META)
    form = {".vot": "votable", ".fits": "fits", ".csv": "csv"}[suffix]
    rows = list(csv.DictReader(io.StringIO(stilts("tpipe", f"in={tmp_path}/a{suffix}", f"ifmt={form}", "ofmt=csv"))))
    assert [row["object_id"] for row in rows] == sample()["object_id"].to_pylist()
    assert [row["count"] for row in rows] == ["1237648720693755918", "", "-5"]
    assert [row["flux"] for row in rows] == ["0.1", "", "Infinity"]
    assert [row["small"] for row in rows] == ["0", "", "255"]
    assert [row["is_star"] for row in rows] == ["true", "", "false"]
    assert [row["ra"] for row in rows] == ["10.125", "", "359.9"]
    assert rows[0]["note"] == "a, \"b\"\n'c'"
    if suffix != ".fits":  # whose text is ASCII by the standard: what is not is read by astropy alone
        text = rows[2]["note"] if suffix == ".vot" else rows[2]["note"].encode("latin-1").decode()  # so it reads CSV
        assert text == "Müller ★ </TD>"
    if suffix != ".csv":
        assert [row["v"] for row in rows] == ["(0.5, Infinity)", "(NaN, NaN)", "(3.0, 4.0)"]
        assert [row["pair"] for row in rows] == ["(1.0, 2.0)", "(NaN, NaN)", "(3.0, 4.0)"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".vot", ".fits"])
def test_stilts_reads_units_ucds_and_descriptions(tmp_path, suffix):
    write_table(sample(), tmp_path / f"a{suffix}", meta=META)
    told = stilts("tpipe", f"in={tmp_path}/a{suffix}", "cmd=meta name class units ucd description", "ofmt=csv")
    found = {row["Name"]: row for row in csv.DictReader(io.StringIO(told))}
    assert (found["ra"]["Units"], found["ra"]["UCD"]) == ("deg", "pos.eq.ra;meta.main")
    assert found["count"]["Description"] == "Rows, & more"
    assert (found["is_star"]["Class"], found["count"]["Class"]) == ("Boolean", "Long")
    written = {".vot": "erg.s**-1.cm**-2", ".fits": "erg s-1 cm-2"}  # a VOUnit, and what FITS makes of it
    assert found["flux"]["Units"] == written[suffix]


def test_to_astropy_masks_nulls_and_keeps_units():
    table = to_astropy(sample(), META)
    assert (table["flux"].unit, table["ra"].meta["ucd"]) == (units.Unit("erg / (s cm2)"), "pos.eq.ra;meta.main")
    assert [bool(table[name].mask[1]) for name in table.colnames[1:]] == [True] * 7
    assert table["object_id"][1] == "1237648720693755918"
    assert table.meta["title"] == "Rings"


def test_dates_lists_and_large_numbers_become_what_each_format_can_hold(tmp_path):
    table = pa.table(
        {
            "day": pa.array([datetime.date(2020, 1, 2), None]),
            "tags": pa.array([["a", "é"], None]),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "view": pa.array(["y", None], pa.string_view()),
        }
    )
    for suffix in (".vot", ".fits", ".ecsv"):
        write_table(table, tmp_path / f"a{suffix}")
        first, second = read_table(tmp_path / f"a{suffix}").to_pylist()
        assert first == {"day": "2020-01-02", "tags": '["a", "é"]', "big": str(2**64 - 1), "kind": "x", "view": "y"}, (
            suffix
        )
        assert set(second.values()) == {None}


@pytest.mark.parametrize(
    ("fmt", "start"), [("json", "{"), ("csv", '"object_id"'), ("votable", "<?xml"), ("ecsv", "# %ECSV")]
)
def test_text_for_the_terminal_is_that_of_the_files(tmp_path, fmt, start):
    suffix = {"votable": ".vot"}.get(fmt, f".{fmt}")
    write_table(sample(), tmp_path / f"a{suffix}", meta=META)
    found = format_table(sample(), fmt, meta=META)
    assert found.startswith(start)
    assert found == (tmp_path / f"a{suffix}").read_text()


# --- files of others -------------------------------------------------------------------------------------------


def read_text(tmp_path, content, name="a.csv", **options):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(tmp_path / name, **options)


def test_csv_ids_stay_text_and_empty_numbers_are_null(tmp_path):
    found = read_text(tmp_path, "objID,dr7objid,name,ra,n\n007,1237648720693755918,00,1.5,\n008,,NA,,2\n")
    assert found.to_pydict() == {
        "objID": ["007", "008"],
        "dr7objid": ["1237648720693755918", None],
        "name": ["00", "NA"],
        "ra": [1.5, None],
        "n": [None, 2],
    }


def test_columns_may_be_asked_for_as_text(tmp_path):
    assert read_text(tmp_path, "plate,z\n0266,1\n", text=["plate"])["plate"].to_pylist() == ["0266"]


def test_csv_with_nan_words_has_nulls(tmp_path):
    assert read_text(tmp_path, "z,m\nNaN,1\n0.5,null\n--,N/A\n").to_pydict() == {
        "z": [None, 0.5, None],
        "m": [1, None, None],
    }


@pytest.mark.parametrize(
    "content",
    ["#Table1\nid,z\n01,2\n", "#id,z\n01,2\n", "# a, comment\nid,z\n01,2\n", "\ufeffid,z\r\n01,2\r\n", "id , z\n01,2"],
)
def test_csv_headers_of_other_programs_are_found(tmp_path, content):
    assert read_text(tmp_path, content).to_pydict() == {"id": ["01"], "z": [2]}


def test_tab_separated_gzipped_and_ecsv_named_csv_are_read(tmp_path):
    expected = {"id": ["01"], "z": [2]}
    assert read_text(tmp_path, "id\tz\n01\t2\n", "a.tsv").to_pydict() == expected
    assert read_text(tmp_path, gzip.compress(b"id,z\n01,2\n"), "a.csv.gz").to_pydict() == expected
    ecsv = format_table(pa.table({"id": ["01"], "z": [2]}), "ecsv")
    assert read_text(tmp_path, ecsv).to_pydict() == expected


def test_fits_of_others_gives_text_units_nulls_and_vectors(tmp_path):
    columns = [
        fits.Column("OBJID", "K", array=[1237648720693755918, 2], null=2),
        fits.Column("NAME", "8A", array=["a ", ""]),
        fits.Column("FLUX", "5E", unit="nanomaggy", array=np.arange(10, dtype=">f4").reshape(2, 5)),
        fits.Column("MATRIX", "4D", dim="(2,2)", array=np.arange(8.0).reshape(2, 2, 2)),
        fits.Column("Z", "D", unit="km/s", array=[np.nan, 1.0]),
        fits.Column("U", "K", bzero=2**63, array=np.array([2**64 - 1, 0], dtype=np.uint64)),
        fits.Column("LIST", "PJ()", array=np.array([[1, 2], [3]], dtype=object)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    found = read_table(tmp_path / "a.fits")
    assert found.to_pydict() == {
        "OBJID": ["1237648720693755918", None],
        "NAME": ["a", None],
        "FLUX": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]],
        "MATRIX": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]],
        "Z": [None, 1.0],
        "U": [2**64 - 1, 0],
        "LIST": [[1, 2], [3]],
    }
    assert facts_of(found.schema.field("Z"))["unit"] == "km.s**-1"
    assert facts_of(found.schema.field("FLUX"))["unit"] == "nanomaggy"


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".ecsv"])
def test_tables_by_astropy_are_read(tmp_path, suffix):
    table = Table({"id": [1, 2], "v": [1.0, 2.0] * units.km, "s": ["a", "b"]}, masked=True)
    table["id"].mask[1] = table["s"].mask[0] = True
    table["v"].description = "Speed"
    table.write(tmp_path / f"a{suffix}", **({"format": "votable"} if suffix == ".vot" else {}))
    found = read_table(tmp_path / f"a{suffix}")
    assert found.to_pydict() == {"id": ["1", None], "v": [1.0, 2.0], "s": [None, "b"]}
    assert facts_of(found.schema.field("v")) == {"unit": "km", "ucd": "", "description": "Speed"}


def test_complex_columns_are_refused_by_name(tmp_path):
    fits.BinTableHDU.from_columns([fits.Column("C", "C", array=[1 + 2j])]).writeto(tmp_path / "a.fits")
    with pytest.raises(SchemaError, match=r"a\.fits: column C has type complex64.*remove or convert"):
        read_table(tmp_path / "a.fits")


def test_what_duckdb_returns_is_written_everywhere(tmp_path):
    table = duckdb.sql(
        "SELECT 'a' AS object_id, sum(x) AS total, avg(x) AS mean, [1.5, 2]::FLOAT[2] AS v, {'k': 1} AS s, now() AS t, "
        "uuid() AS u, TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS ns, 'b'::BLOB AS blob, 1.25::DECIMAL(5, 2) AS d "
        "FROM range(3) r(x)"
    ).to_arrow_table()
    for suffix in writing._WRITERS:
        write_table(table, tmp_path / f"a{suffix}")
    row = read_table(tmp_path / "a.vot").to_pylist()[0]
    assert (row["mean"], row["v"], row["s"], row["d"]) == (1.0, [1.5, 2.0], '{"k": 1}', 1.25)
    assert row["ns"] == "2020-01-01T00:00:00.123456"


@pytest.mark.parametrize("serialization", ["binary", "binary2"])
def test_binary_votables_are_read(tmp_path, serialization):
    table = Table({"id": ["a", "b"], "z": [0.5, 1.5]})
    table.write(tmp_path / "a.xml", format="votable", tabledata_format=serialization)
    assert read_table(tmp_path / "a.xml").to_pydict() == {"id": ["a", "b"], "z": [0.5, 1.5]}


# --- what cannot be read or written ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.parquet.gz"])
def test_another_suffix_is_refused_with_the_known_ones(tmp_path, name):
    with pytest.raises(SchemaError, match=r"known are \.csv"):
        read_text(tmp_path, "id\n1\n", name)
    with pytest.raises(SchemaError, match=r"known are \.csv"):
        write_table(sample(), tmp_path / "out.xlsx")
    with pytest.raises(SchemaError, match="known are json"):
        format_table(sample(), "yaml")


@pytest.mark.parametrize("suffix", ROUND)
@pytest.mark.parametrize("content", [b"", b"\n", b"\x00\x01junk" * 50, b"\xff\xfe\x00,\xf8"])
def test_a_file_that_is_no_table_is_named_with_its_reason(tmp_path, suffix, content):
    with pytest.raises(SchemaError, match=rf"bad\{suffix}: not readable as \{suffix} \(.+\); copy"):
        read_text(tmp_path, content, f"bad{suffix}")


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".parquet"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_cut_short_is_refused(tmp_path, suffix, share):
    table = pa.concat_tables([sample()] * 200)
    write_table(table, tmp_path / f"whole{suffix}")
    content = (tmp_path / f"whole{suffix}").read_bytes()
    with pytest.raises(SchemaError, match=rf"cut\{suffix}: not readable"):
        read_text(tmp_path, content[: int(share * len(content))], f"cut{suffix}")


@pytest.mark.parametrize("suffix", ROUND)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, suffix):
    write_table(sample(), tmp_path / f"whole{suffix}", meta=META)
    whole, rng = (tmp_path / f"whole{suffix}").read_bytes(), np.random.default_rng(2)
    refused = 0
    for place, letter in zip(rng.integers(len(whole), size=40), rng.integers(256, size=40), strict=True):
        try:
            read_text(tmp_path, whole[:place] + bytes([letter]) + whole[place + 1 :], f"bad{suffix}")
        except SchemaError:
            refused += 1
    assert refused > 0


def test_a_fits_picture_is_no_table(tmp_path):
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "a.fits")
    with pytest.raises(SchemaError, match="no table"):
        read_table(tmp_path / "a.fits")


def test_missing_files_ragged_rows_and_double_names_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="no such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(SchemaError, match="Expected 2 columns, got 3"):
        read_text(tmp_path, "id,z\n1,2\n1,2,3\n")
    with pytest.raises(SchemaError, match="column z occurs twice"):
        read_text(tmp_path, "id,z,z\n1,2,3\n")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    write_table(sample(), path)
    before = path.read_bytes()
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(GalsearchError, match="No space left"):
        write_table(sample().slice(0, 1), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("suffix", writing._WRITERS)
def test_where_the_system_refuses_to_write_more_the_old_file_stays(tmp_path, suffix):
    """A limit on the size of files is refused by the same call that a full disk refuses."""
    resource = pytest.importorskip("resource", reason="this system limits no files")
    path, limits = tmp_path / f"a{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_table(sample(), path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(GalsearchError, match=re.escape(f"{path}: cannot be written (File too large)")):
            write_table(sample(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_in_the_place_of_the_file_is_refused_and_stays(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(GalsearchError, match=re.escape(f"{tmp_path}/a.csv: cannot be written (Is a directory)")):
        write_table(sample(), tmp_path / "a.csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(GalsearchError, match=re.escape(f"{tmp_path}/no/a.csv: cannot be written")):
        write_table(sample(), tmp_path / "no" / "a.csv")


def test_plain_formats_load_no_astropy(tmp_path):
    code = (
        "import sys, pyarrow as pa; from galsearch.formats import describe, read_table, write_table;"
        "ra = describe(pa.field('ra', pa.float64()), unit='deg', ucd='pos.eq.ra', description='Right ascension');"
        "t = pa.table([[1.5, None], ['a', None]], schema=pa.schema([ra, ('id', pa.string())]));"
        f"paths = [r'{tmp_path}/a.' + suffix for suffix in ('csv', 'parquet', 'json', 'reg', 'ajs', 'vot')];"
        "[write_table(t, path, meta={'title': 'Rings'}) for path in paths]; [read_table(path) for path in paths[:2]];"
        "print({'astropy', 'duckdb'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- what is told of a reading ----------------------------------------------------------------------------------


def votable_text(before: str = "", after: str = "", *, rows: int = 1) -> str:
    """Return a VOTable with INFOs before and after its table, of no rows where there is none."""
    cells = "".join(f"<TR><TD>g{number}</TD><TD>{number}</TD></TR>" for number in range(1, rows + 1))
    fields = '<FIELD name="object_id" datatype="char" arraysize="*"/><FIELD name="ra" datatype="double" unit="deg"/>'
    found = f"<TABLE>{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE>" if rows else ""
    space = "xmlns='http://www.ivoa.net/xml/VOTable/v1.3'"
    return f"<VOTABLE version='1.4' {space}><RESOURCE type='results'>{before}{found}{after}</RESOURCE></VOTABLE>"


@pytest.mark.parametrize("place", ["before", "after"])  # TAP says it after the rows
def test_an_answer_that_was_cut_short_is_read_and_noted(tmp_path, place):
    info = "<INFO name='QUERY_STATUS' value='OVERFLOW'>the limit is 1 row</INFO>"
    found = read_text(tmp_path, votable_text(**{place: info}), "a.vot")
    assert found.to_pydict() == {"object_id": ["g1"], "ra": [1.0]}
    assert [note.partition(",")[0] for note in notes_of(found)] == [
        "the service cut its answer short (QUERY_STATUS OVERFLOW: the limit is 1 row)"
    ]
    assert notes_of(read_text(tmp_path, votable_text("<INFO name='QUERY_STATUS' value='OK'/>"), "b.vot")) == []


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize(
    "info",
    [
        "<INFO name='QUERY_STATUS' value='ERROR'>Query exceeded the time limit</INFO>",
        "<INFO name='Error' value='Query exceeded the time limit'/>",
        "<PARAM name='Error' datatype='char' arraysize='*' value='Query exceeded the time limit'/>",
    ],
)
def test_the_error_of_a_service_is_told_in_its_words(tmp_path, info, rows):
    with pytest.raises(SchemaError, match=r"a\.vot: the service answered with an error: Query exceeded the time limit"):
        read_text(tmp_path, votable_text(info, rows=rows), "a.vot")


def several(tmp_path):
    """Write a FITS file and a VOTable with a table of one cell and then one of two galaxies; return the paths."""
    head = fits.BinTableHDU.from_columns([fits.Column("Field Header Card", "80A", array=["SIMPLE = T"])], name="HEAD")
    columns = [fits.Column("NUMBER", "J", array=[1, 2]), fits.Column("ALPHA_J2000", "D", array=[1.0, 2.0])]
    fits.HDUList([fits.PrimaryHDU(), head, fits.BinTableHDU.from_columns(columns, name="LDAC_OBJECTS")]).writeto(
        tmp_path / "a.fits"
    )
    one, two = (Table({name: values}) for name, values in {"card": [b"SIMPLE"], "NUMBER": [1, 2]}.items())
    document = votable.from_table(one)
    document.get_first_table().name = "HEAD"
    second = votable.from_table(two).resources[0]
    second.tables[0].name = "LDAC_OBJECTS"
    document.resources.append(second)
    document.to_xml(str(tmp_path / "a.vot"))
    return tmp_path / "a.fits", tmp_path / "a.vot"


def test_of_several_tables_the_catalog_is_read_and_the_others_are_noted(tmp_path):
    for path in several(tmp_path):
        found = read_table(path)
        assert found["NUMBER"].to_pylist() == [1, 2], path
        assert notes_of(found) == [
            "table 2 LDAC_OBJECTS (2 rows) was read and not 1 HEAD (1 rows); choose with table_name (--table-name)"
        ]


@pytest.mark.parametrize("name", ["HEAD", "head", 1, "1"])
def test_a_table_is_chosen_by_name_or_number(tmp_path, name):
    for path in several(tmp_path):
        found = read_table(path, table_name=name)
        assert (found.num_rows, notes_of(found)) == (1, [])
        assert formats.column_names(path, table_name=name) == found.column_names
        with pytest.raises(SchemaError, match=r"no table '7'; there are: 1 HEAD \(1 rows\), 2 LDAC_OBJECTS \(2 rows\)"):
            read_table(path, table_name=7)


def test_numbers_that_stand_for_no_value_become_null(tmp_path):
    found = read_text(tmp_path, "id,g,n\n1,99,-99\n2,-99.0,3\n3,15.5,99\n99,1,1\n", missing=(99, -99))
    assert found.to_pydict() == {"id": ["1", "2", "3", "99"], "g": [None, None, 15.5, 1], "n": [None, 3, None, 1]}


# --- text tables as people write them -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("object_id, ra, z\ng1, 1, 0.1\ng2, 2, \n", {"object_id": ["g1", "g2"], "ra": [1, 2], "z": [0.1, None]}),
        ('object_id, "note"\n"g1", "B, c"\n', {"object_id": ["g1"], "note": ["B, c"]}),
        ("Name;RA;V-Mag\ng1;1;14.1\ng2;2;15\n", {"Name": ["g1", "g2"], "RA": [1, 2], "V-Mag": [14.1, 15.0]}),
        ("Name;RA;V\ng1;1,5;14,1\ng2;-2;15\n", {"Name": ["g1", "g2"], "RA": [1.5, -2.0], "V": [14.1, 15.0]}),
        ("Name|RA\na, b|1\n", {"Name": ["a, b"], "RA": [1]}),
        ("id\tnote\n1\ta, b\n", {"id": ["1"], "note": ["a, b"]}),
        ("id   ra\na    1.5\nb    -\n".replace("-", "nan"), {"id": ["a", "b"], "ra": [1.5, None]}),
        ("#x\n\n_RAJ;Name\ndeg;\n---;---\n1.0;a, b\n", {"_RAJ": [1.0], "Name": ["a, b"]}),  # VizieR
        ("id,ra\ng1,1\n# no, not this\ng2,2\n", {"id": ["g1", "g2"], "ra": [1, 2]}),
        ('id,note\ng1,"a\n#b"\n', {"id": ["g1"], "note": ["a\n#b"]}),
        ("id,ra,\ng1,1,\n", {"id": ["g1"], "ra": [1]}),
        (",ra\n5,1\n", {"column_1": [5], "ra": [1]}),
        ("id,ra\rg1,1\rg2,2\r", {"id": ["g1", "g2"], "ra": [1, 2]}),
        ("id,ra\ng1,00:42:44\n", {"id": ["g1"], "ra": ["00:42:44"]}),
        ("id,z,Z\n1,2,3\n", {"id": ["1"], "z": [2], "Z_also": [3]}),
        ("'id','note'\n'g1','a, b'\n'g2','c'\n", {"id": ["g1", "g2"], "note": ["a, b", "c"]}),
        (f"id,n\n1,{2**70}\n", {"id": ["1"], "n": [float(2**70)]}),
        ("a,b,c,d\nNone,-,...,…\n1,2.5,-3,4\n", {"a": [None, 1], "b": [None, 2.5], "c": [None, -3], "d": [None, 4]}),
        ("a,b\n-,-\nx,None\n", {"a": ["-", "x"], "b": ["-", "None"]}),
        ("id   ra  t\n-    1.5 -\nb    ... x\n", {"id": ["-", "b"], "ra": [1.5, None], "t": ["-", "x"]}),
        ('a,b\n1,5" disk\n2,"5"" ""x"", ""\n', {"a": [1, 2], "b": ['5" disk', '5" "x", "']}),
        ('# 5" x\na,b\n1,"c\nd"\n# 6", "\n2,"e"\n', {"a": [1, 2], "b": ["c\nd", "e"]}),
    ],
)
def test_dialects_of_csv_give_the_cells_that_are_meant(tmp_path, content, expected):
    assert read_text(tmp_path, content).to_pydict() == expected


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('a,b\n1,x\n2,"y\n3,z\n', 3),
        ('# 5" x\na,b\n1,"x"\n# no, "\n2,"y\n3,z\n', 5),
        ('a,b\n1,"x\n2,"y"\n3,z\n', 2),  # the next quote closes it
        ('a;b;c\n1;"x;2\n3;z;4\n', 2),
        ('a, b\n1, "x"\n2, "y""\n3, z\n', 3),
    ],
)
def test_a_quote_that_is_never_closed_is_refused_with_its_line(tmp_path, content, line):
    with pytest.raises(SchemaError, match=rf"a\.csv: a quote that opens in line {line} is not closed; close it"):
        read_text(tmp_path, content)


def test_an_empty_column_without_a_name_costs_no_other(tmp_path):
    found = read_text(tmp_path, "a,,b,,\n1,,2,5,\n3,,4,,\n")
    assert found.to_pydict() == {"a": [1, 3], "b": [2, 4], "column_4": [5, None]}


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("erg/s/cm2", units.erg / units.s / units.cm**2),  # which VOUnit forbids
        ("erg.s**-1.cm**-2", units.erg / units.s / units.cm**2),  # and this is VOUnit's alone
        ("mag", units.mag),
    ],
)
def test_a_unit_is_read_in_either_notation(text, unit):
    assert unit_of(text) == unit
    assert unit_of("") is None


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("a;b\n1;2\n", "separated by semicolons"),
        ("a;b\n1,5;2\n", "decimal commas"),
        ("a,b\n1,2\n#x\n3,4\n", r"comment lines \(#\).* 1 of them"),
        (",b\n1,2\n", "has no name"),
        ("z,Z\n1,2\n", "'Z' is called 'Z_also'"),
        ("id,g\n1,99\n2,99.0\n3,15\n", r"column g is 99 in 2 of 3 rows.*--missing 99"),
    ],
)
def test_what_was_found_out_is_noted(tmp_path, content, note):
    assert any(re.search(note, told) for told in notes_of(read_text(tmp_path, content)))
    assert notes_of(read_text(tmp_path, "id,x\n1,99\n2,99\n")) == []


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [
        ("id,note\n1,Böker\n", "latin-1", "cp1252, such as 'Böker'"),
        ("id,note\n1,Müller “x” – 5 µm\n", "cp1252", "cp1252"),
        ("имя,ra\nМ 31,10\nГалактика Андромеды,2\n", "cp1251", "cp1251"),
        ("id,note\n1,Böker\n", "utf-16", None),
        ("id,note\n1,Boeker\n", "utf-16-le", None),
        ("id,note\n1,Böker\n", "utf-8-sig", None),
    ],
)
def test_encodings_are_found_out_and_told(tmp_path, text, encoding, told):
    found = read_text(tmp_path, text.encode(encoding))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [{key: str(value) for key, value in row.items()} for row in found.to_pylist()] == rows
    assert all(told in note for note in notes_of(found)) if told else notes_of(found) == []


def test_a_column_that_turns_into_text_late_costs_nothing(tmp_path):
    rows = "1,2,3\n" * 300_000  # beyond the block by which pyarrow decides
    found = read_text(tmp_path, f"id,a,b\n{rows}2,2.5,x\n")
    assert found.schema.types == [pa.string(), pa.float64(), pa.string()]
    assert found.slice(299_999).to_pylist() == [{"id": "1", "a": 2.0, "b": "3"}, {"id": "2", "a": 2.5, "b": "x"}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("1,2\n3,4\n", "numbers and not the names"),
        ("<html><body>Not found</body></html>", "web page"),
        ('{"id": 1}', "JSON"),
        (",".join(f"c{n}" for n in range(20_001)) + "\n", "20,001 columns, 20,000 are the most"),
    ],
)
def test_what_is_no_table_is_told_by_what_it_is(tmp_path, content, reason):
    with pytest.raises(SchemaError, match=reason):
        read_text(tmp_path, content)


cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="#"), max_size=8)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells, st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=5))
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_quoted_text_comes_back_whatever_separates_it(tmp_path_factory, separator, rows):
    path, buffer = tmp_path_factory.getbasetemp() / "dialect.csv", io.StringIO()
    writer = csv.writer(buffer, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("object_id", "name", "x"), *(("i" + one, "n" + two, x) for one, two, x in rows)])
    path.write_text(buffer.getvalue())
    found = read_table(path)
    assert found["object_id"].to_pylist() == [("i" + one).strip() for one, _, _ in rows]
    assert found["name"].to_pylist() == [("n" + two).strip() for _, two, _ in rows]
    assert [float(x) for x in found["x"].to_pylist()] == [x for _, _, x in rows]


def test_formats_of_text_by_name_are_read(tmp_path):
    table = Table({"name": ["a", "b"], "ra": [1.5, 2.5] * units.deg})
    for name, form in {"a.tbl": "ascii.ipac", "a.mrt": "ascii.mrt"}.items():
        table.write(tmp_path / name, format=form)
        found = read_table(tmp_path / name)
        assert found.to_pydict() == {"name": ["a", "b"], "ra": [1.5, 2.5]}, name
        assert facts_of(found.field("ra"))["unit"] == "deg"
    content = "#   1 NUMBER  Running object number\n#   2 ALPHA_J2000  Right ascension  [deg]\n 1 1.5\n 2 2.5\n"
    assert read_text(tmp_path, content, "a.cat").to_pydict() == {"NUMBER": [1, 2], "ALPHA_J2000": [1.5, 2.5]}


@pytest.mark.parametrize("suffix", [".vot", ".fits", ".ecsv"])
def test_the_first_bytes_win_over_the_name(tmp_path, suffix):
    write_table(sample(), tmp_path / f"a{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    for name, stored in {"b.csv": content, "c.dat": gzip.compress(content)}.items():
        assert read_text(tmp_path, stored, name)["object_id"].to_pylist() == sample()["object_id"].to_pylist()


# --- mixins, ids and columns that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".fits", ".ecsv"])
@pytest.mark.parametrize("frame", ["icrs", "galactic", "fk5"])
def test_skycoord_columns_become_degrees_icrs(tmp_path, suffix, frame):
    place = SkyCoord([10.6847, 202.4696], [41.2687, 47.1952], unit="deg")
    table = QTable({"object_id": ["m31", "m51"], "sky_centroid": place.transform_to(frame)})
    table.write(tmp_path / f"a{suffix}")
    found = read_table(tmp_path / f"a{suffix}")
    assert found["ra"].to_pylist() == pytest.approx([10.6847, 202.4696], abs=1e-9)
    assert found["dec"].to_pylist() == pytest.approx([41.2687, 47.1952], abs=1e-9)
    assert [facts_of(found.field(name))["ucd"] for name in ("ra", "dec")] == [
        "pos.eq.ra;meta.main",
        "pos.eq.dec;meta.main",
    ]
    assert facts_of(found.field("ra"))["unit"] == facts_of(found.field("dec"))["unit"] == "deg"
    assert frame in facts_of(found.field("sky_centroid"))["description"]


def test_a_second_position_does_not_hide_the_first(tmp_path):
    one, two = SkyCoord([1.0], [2.0], unit="deg"), SkyCoord([3.0], [4.0], unit="deg")
    QTable({"id": ["a"], "peak": one, "center": two}).write(tmp_path / "a.ecsv")
    found = read_table(tmp_path / "a.ecsv").to_pylist()[0]
    assert [found[name] for name in ("ra", "dec", "center_ra", "center_dec")] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("suffix", [".fits", ".ecsv"])
def test_times_are_iso_text_and_quantities_keep_their_unit(tmp_path, suffix):
    table = QTable({"id": ["a"], "t": Time(["2020-01-02T03:04:05"]), "v": [3.0] * units.km / units.s})
    table.write(tmp_path / f"a{suffix}")
    found = read_table(tmp_path / f"a{suffix}")
    assert found.to_pylist() == [{"id": "a", "t": "2020-01-02T03:04:05.000", "v": 3.0}]
    assert facts_of(found.field("v"))["unit"] == "km.s**-1"


def test_strings_of_fits_end_at_nul(tmp_path):
    raw = np.array([b"abc\0xyz", b"\0hidden"], dtype="S8")
    fits.BinTableHDU.from_columns([fits.Column("NAME", "8A", array=raw)]).writeto(tmp_path / "a.fits")
    assert read_table(tmp_path / "a.fits").to_pydict() == {"NAME": ["abc", None]}


@pytest.mark.parametrize("suffix", [".fits", ".vot", ".parquet", ".ecsv"])
def test_ids_that_arrive_as_doubles_are_exact_or_refused(tmp_path, suffix):
    table = pa.table({"objID": [float(2**53 - 1), None, 7.0], "z": [0.5, 1.0, 2.0]})
    write_table(table, tmp_path / f"a{suffix}")
    assert read_table(tmp_path / f"a{suffix}")["objID"].to_pylist() == ["9007199254740991", None, "7"]
    table = pa.table({"objID": [1237648720693755918.0], "z": [0.5]})
    write_table(table, tmp_path / f"b{suffix}")
    with pytest.raises(SchemaError, match=r"objID holds 64-bit identifiers as floating.*2\*\*53.*integers or as text"):
        read_table(tmp_path / f"b{suffix}")
    write_table(table.append_column("name", pa.array(["a"])), tmp_path / f"c{suffix}")
    found = read_table(tmp_path / f"c{suffix}")
    assert (found.column_names, "left out" in notes_of(found)[0]) == (["z", "name"], True)


def test_ids_that_a_spreadsheet_rounded_are_refused_in_csv_too(tmp_path):
    assert read_text(tmp_path, "objid,n\n12.0,1\n")["objid"].to_pylist() == ["12"]
    with pytest.raises(SchemaError, match="identifiers as floating-point"):
        read_text(tmp_path, "objid,n\n1.23765E+18,1\n")


def test_a_column_that_cannot_be_held_costs_that_column(tmp_path):
    columns = [fits.Column("ID", "2A", array=["a"]), fits.Column("C", "C", array=[1 + 2j])]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    found = read_table(tmp_path / "a.fits")
    assert found.to_pydict() == {"ID": ["a"]}
    assert notes_of(found) == ["column C has type complex64, which an atlas cannot hold; it was left out"]


def test_fits_columns_that_differ_in_case_have_their_own_values(tmp_path):
    columns = [fits.Column(name, "D", array=[value]) for name, value in {"Z": 1.0, "z": 2.0, "x": 3.0}.items()]
    with warnings.catch_warnings(action="ignore"):
        fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    assert read_table(tmp_path / "a.fits").to_pydict() == {"Z": [1.0], "z_also": [2.0], "x": [3.0]}


# --- files that ask for too much -------------------------------------------------------------------------------------

ENTITIES = "<!DOCTYPE VOTABLE [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;'>]>"
STREAM = "<TABLE><FIELD name='x' datatype='int'/><DATA><BINARY><STREAM href='{}'/></BINARY></DATA></TABLE>"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (ENTITIES + votable_text(), "declares an entity"),
        (f"<VOTABLE><RESOURCE>{STREAM.format('file:///etc/passwd')}</RESOURCE></VOTABLE>", "data lies elsewhere"),
        (votable_text().replace("<TABLE>", "<TABLE nrows='1000000000000'>"), "declares 1,000,000,000,000 rows"),
        (votable_text().replace('arraysize="*"', 'arraysize="1000000000"'), "rows of 4,000,000,000 bytes"),
        (votable_text("<RESOURCE>" * 60, "</RESOURCE>" * 60), "nested more than 50 deep"),
    ],
)
def test_a_votable_that_asks_for_too_much_is_refused_before_it_is_read(tmp_path, document, reason):
    with pytest.raises(SchemaError, match=reason):
        read_text(tmp_path, document, "a.vot")


def test_an_old_document_type_is_not_fetched_and_no_fault(tmp_path):
    document = "<!DOCTYPE VOTABLE SYSTEM 'http://us-vo.org/xml/VOTable.dtd'>" + votable_text()
    assert read_text(tmp_path, document, "a.vot").num_rows == 1


def ecsv_text(*lines: str) -> str:
    head = ["%ECSV 1.0", "---", "datatype:", "- {name: id, datatype: string}", *lines]
    return "".join(f"# {line}\n" for line in head) + "id\na\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("meta: !!python/object/apply:os.system ['touch PWNED']", "yaml"),
        ("meta: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        ("b: [&z [1, 1], &y [" + ",".join(["*z"] * 99) + "], &x [" + ",".join(["*y"] * 99) + "], &w ["
         + ",".join(["*x"] * 99) + "]]", "header stands for"),
    ],
)  # fmt: skip
def test_the_header_of_ecsv_makes_nothing_and_stands_for_no_more_than_it_says(tmp_path, monkeypatch, line, reason):
    monkeypatch.chdir(tmp_path)
    assert read_text(tmp_path, ecsv_text("meta: {a: 1}"), "a.ecsv").num_rows == 1
    with pytest.raises(SchemaError, match=reason):
        read_text(tmp_path, ecsv_text(line), "a.ecsv")
    assert not (tmp_path / "PWNED").exists()


def with_card(content: bytes, key: str, value: object) -> bytes:
    place = content.index(f"{key:8}=".encode(), 2880)
    return content[:place] + f"{key:8}= {value:>20}".encode().ljust(80) + content[place + 80 :]


@pytest.mark.parametrize(
    ("key", "value"),
    [("NAXIS2", 10**15), ("NAXIS2", -5), ("NAXIS1", 0), ("TFIELDS", 99999), ("PCOUNT", -9), ("TFORM1", "'99999999A'"),
     ("TFORM1", "'Z'"), ("NAXIS", 999), ("BITPIX", "'x'")],
)  # fmt: skip
def test_headers_of_fits_that_lie_are_refused(tmp_path, key, value):
    write_table(pa.table({"object_id": ["a"], "n": [1]}), tmp_path / "a.fits")
    with pytest.raises(SchemaError, match=r"b\.fits: .+"):
        read_text(tmp_path, with_card((tmp_path / "a.fits").read_bytes(), key, value), "b.fits")


@pytest.mark.parametrize("descriptor", [(2**31 - 1, 0), (-3, -5)])
def test_lists_of_fits_that_reach_beyond_the_file_cost_their_column(tmp_path, descriptor):
    lists = fits.Column("L", "PD()", array=np.array([np.arange(3.0), np.arange(2.0)], dtype=object))
    fits.BinTableHDU.from_columns([fits.Column("ID", "1A", array=["a", "b"]), lists]).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    assert read_table(tmp_path / "a.fits")["L"].to_pylist() == [[0, 1, 2], [0, 1]]
    found = read_text(tmp_path, content.replace(struct.pack(">ii", 3, 0), struct.pack(">ii", *descriptor), 1), "b.fits")
    assert found.to_pydict() == {"ID": ["a", "b"]}
    assert notes_of(found) == ["column L cannot be read (its lists reach beyond the file); it was left out"]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_what_inflates_beyond_measure_is_refused(tmp_path, monkeypatch, suffix, pack):
    content = b"id,x\n" + b"a,1\n" * 200_000
    assert read_text(tmp_path, pack(content), f"a.csv{suffix}").num_rows == 200_000
    monkeypatch.setattr(formats.reading, "MANY", 2**16)
    monkeypatch.setattr(formats.reading, "INFLATION", 20)
    with pytest.raises(SchemaError, match="over 20 times its size; if you trust it, inflate it yourself"):
        read_text(tmp_path, pack(content), f"a.csv{suffix}")


def test_parquet_that_promises_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    pa.parquet.write_table(pa.table({"id": pa.array(["a"] * 100_000)}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").num_rows == 100_000
    monkeypatch.setattr(formats.reading, "MANY", 2**10)
    monkeypatch.setattr(formats.reading, "INFLATION", 1)
    with pytest.raises(SchemaError, match=r"promises 100,000 rows of 1 columns"):
        read_table(tmp_path / "a.parquet")


def by_astropy(tmp_path):
    table = QTable({"object_id": ["007", "008"], "ra": [1.5, 2.0] * units.hourangle, "dec": [0.1, -0.2] * units.rad})
    table["vel"] = [3.0, 4.0] * units.km / units.s
    table["n"] = MaskedColumn([2**62 + 1, 5], mask=[False, True], description="Stars")
    table["note"] = MaskedColumn(["a", "b"], mask=[True, False])
    table["t"] = Time(["2020-01-02T03:04:05", "2021-01-01T00:00:00"])
    table["feat"] = MaskedColumn([[1.0, 2.0], [3.0, 4.0]], mask=[[False, False], [True, True]], unit="mag")
    table["plain"] = np.array([[1, 2], [3, 4]], dtype=np.int16)
    table.write(tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_parquet_by_astropy_has_its_units_masks_and_times(tmp_path):
    found = read_table(by_astropy(tmp_path))
    assert found.to_pydict() == {
        "object_id": ["007", "008"],
        "ra": [1.5, 2.0],
        "dec": [0.1, -0.2],
        "vel": [3.0, 4.0],
        "n": [2**62 + 1, None],
        "note": [None, "b"],
        "t": ["2020-01-02T03:04:05.000", "2021-01-01T00:00:00.000"],
        "feat": [[1.0, 2.0], None],
        "plain": [[1, 2], [3, 4]],
    }
    told = {name: facts_of(found.field(name)) for name in found.column_names}
    assert [told[name]["unit"] for name in ("ra", "dec", "vel", "feat")] == ["hourangle", "rad", "km.s**-1", "mag"]
    assert told["n"]["description"] == "Stars"
    assert found.schema.field("plain").type == pa.list_(pa.int16(), 2)
    left = ["object_id", "dec", "vel", "note", "feat"]
    assert read_table(tmp_path / "a.parquet", without={"ra", "n", "t", "plain"}).column_names == left


@pytest.mark.parametrize("frame", ["icrs", "galactic"])
def test_positions_in_parquet_by_astropy_become_degrees_icrs(tmp_path, frame):
    place = SkyCoord([10.6847], [41.2687], unit="deg").transform_to(frame)
    QTable({"id": ["m31"], "place": place}).write(tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert found.column_names == ["id", "ra", "dec", "place"]
    assert [found["ra"][0].as_py(), found["dec"][0].as_py()] == pytest.approx([10.6847, 41.2687], abs=1e-9)


def with_header(path, header: str):
    table = pa.parquet.read_table(path)
    pa.parquet.write_table(table.replace_schema_metadata({"table_meta_yaml": header}), path)
    return path


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("datatype: [", "not YAML"),
        ("words", "does not list its columns"),
        ("datatype: []\nmeta: [1]", "does not list its columns"),
        ("datatype: []\nmeta: {__serialized_columns__: {x: 1}}", "does not list its columns"),
        ("datatype: []\nmeta: {__serialized_columns__: {x: {name: [1]}}}", "does not list its columns"),
        ("datatype: [{name: n, unit: [1]}]", "not readable"),
        ("datatype: []\nmeta: {__serialized_columns__: {x: {__class__: os.system, v: !astropy.table.SerializedColumn "
         "{name: n}}}}", "not readable"),
        ("datatype: []\nmeta: !!python/object/apply:os.system ['touch PWNED']", "not readable"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
    ],
)  # fmt: skip
def test_a_damaged_header_of_parquet_by_astropy_is_refused(tmp_path, monkeypatch, header, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SchemaError, match=rf"a\.parquet: .*{reason}"):
        read_table(with_header(by_astropy(tmp_path), header))
    assert not (tmp_path / "PWNED").exists()


def test_columns_that_the_header_by_astropy_does_not_name_and_nulls_among_parts_are_kept(tmp_path):
    table = pa.parquet.read_table(by_astropy(tmp_path))
    numbers = pa.array([2**62 + 1, None])
    table = table.set_column(table.column_names.index("n"), "n", numbers).append_column("more", pa.array([[1], None]))
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet")
    assert found.select(["n", "more"]).to_pydict() == {"n": [2**62 + 1, None], "more": [[1], None]}
    pa.parquet.write_table(table.slice(0, 0), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").column_names == found.column_names


def test_parquet_by_astropy_that_promises_too_much_is_refused(tmp_path, monkeypatch):
    QTable({"n": np.zeros(100_000) * units.m}).write(tmp_path / "a.parquet")
    monkeypatch.setattr(formats.reading, "MANY", 2**10)
    monkeypatch.setattr(formats.reading, "INFLATION", 1)
    with pytest.raises(SchemaError, match=r"promises 100,000 rows of 1 columns"):
        read_table(tmp_path / "a.parquet")


# --- single columns --------------------------------------------------------------------------------------------------


def wide(tmp_path, suffix):
    """Write vectors in twelve columns that stand in no order; return the path and the vectors."""
    vectors = np.arange(36, dtype=np.float32).reshape(3, 12)
    order = [10, 3, 0, 11, 2, 1, 4, 9, 5, 8, 6, 7]
    columns = {"id": ["a", "b", "c"], **{f"feat_{n}": vectors[:, n] for n in order}}
    write_table(pa.table(columns), tmp_path / f"wide{suffix}")
    return tmp_path / f"wide{suffix}", vectors


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".csv"])
@pytest.mark.parametrize("name", ["feat_*", "feat_", "feat"])
def test_vectors_in_many_columns_come_as_one_in_the_order_of_their_numbers(tmp_path, suffix, name):
    path, vectors = wide(tmp_path, suffix)
    found = pa.concat_arrays(list(formats.column_parts(path, name)))
    assert found.type.list_size == 12
    assert np.array_equal(np.array(found.to_pylist()), vectors)
    names = formats.vector_columns(formats.column_names(path), name)
    assert names == [f"feat_{n}" for n in range(12)]
    assert read_table(path, without=names).column_names == ["id"]


def test_a_gap_or_text_among_numbered_columns_is_refused(tmp_path):
    with pytest.raises(SchemaError, match="'feat_3' comes where number 2 should"):
        formats.vector_columns(["feat_0", "feat_1", "feat_3"], "feat_*")
    with pytest.raises(SchemaError, match=r"no column 'emb' and none numbered after it, such as 'emb_0'"):
        formats.vector_columns(["feat_0"], "emb")
    write_table(pa.table({"f_0": [1.0, None], "f_1": [2.0, 3.0]}), tmp_path / "a.parquet")
    (part,) = formats.column_parts(tmp_path / "a.parquet", "f")
    assert np.array_equal(np.array(part.to_pylist()), [[1, 2], [np.nan, 3]], equal_nan=True)
    write_table(pa.table({"f_0": ["x"], "f_1": [2.0]}), tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match="column f_0 of the vectors is string"):
        list(formats.column_parts(tmp_path / "b.parquet", "f"))


@pytest.mark.parametrize(
    ("kinds", "joined"),
    [
        ((pa.float32(), pa.float32()), pa.float32()),
        ((pa.float16(), pa.float32()), pa.float32()),
        ((pa.float32(), pa.float64()), pa.float64()),
        ((pa.float32(), pa.int64()), pa.float64()),
    ],
)
def test_numbered_columns_are_joined_without_losing_digits(tmp_path, kinds, joined):
    columns = {
        f"f_{n}": pa.array(np.array([1.5, 2.0]).astype(kind.to_pandas_dtype()), kind) for n, kind in enumerate(kinds)
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    (part,) = formats.column_parts(tmp_path / "a.parquet", "f")
    assert part.type.value_type == joined


@pytest.mark.parametrize("as_struct", [True, False])
def test_pictures_in_parquet_are_read_by_row(tmp_path, as_struct):
    blobs = [None if n == 70 else f"picture {n}".encode() for n in range(200)]
    cells = [{"bytes": blob, "path": f"{n}.png"} for n, blob in enumerate(blobs)] if as_struct else blobs
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"id": range(200), "image": cells}), path, row_group_size=90)
    assert formats.picture_column(path) == "image"
    column = formats.ByteColumn(path, "image")
    assert len(column) == 200
    assert column.names == ([f"{n}.png" for n in range(200)] if as_struct else [None] * 200)
    for row in [*range(200), 5, 199, 0, 89, 90, 150, 64]:
        assert column[row] == blobs[row]
    with pytest.raises(IndexError, match="row is 200"):
        column[200]
    with pytest.raises(SchemaError, match="expected pictures"):
        formats.ByteColumn(path, "id")
    column.close()


def test_a_file_with_fewer_pictures_than_it_says_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"image": [b"x", b"y"]}), path)
    column = formats.ByteColumn(path, "image")
    empty = pa.record_batch({"image": pa.array([], pa.binary())})
    for batches in ([], [empty]):
        fake = SimpleNamespace(iter_batches=lambda *_, batches=batches, **__: iter(batches), close=lambda: None)
        monkeypatch.setattr(column, "_file", fake)
        with pytest.raises(SchemaError, match="row 1 of column 'image' cannot be read"):
            column[1]


# --- text stays text in what is written -------------------------------------------------------------------------------


def test_formulas_are_quoted_on_request_and_numbers_are_not(tmp_path):
    table = pa.table({"object_id": ["=1+1", "+a", "-a", "@x", "\tx", "a=b"], "=n": [-1.0] * 6})
    plain = formats.table_bytes(table, ".csv").decode()
    assert list(csv.reader(io.StringIO(plain)))[1] == ["=1+1", "-1"]
    write_table(table, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == plain
    rows = list(csv.reader(io.StringIO(formats.table_bytes(table, ".csv", quote_formulas=True).decode())))
    assert rows[0] == ["object_id", "'=n"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+a", "'-a", "'@x", "'\tx", "a=b"]
    assert {row[1] for row in rows[1:]} == {"-1"}


@pytest.mark.slow
def test_more_columns_than_fits_holds_are_refused_with_a_remedy(tmp_path):
    table = pa.table({f"c{n}": [1] for n in range(1000)})
    with pytest.raises(SchemaError, match=r"a\.fits: the table has 1,000 columns, FITS holds 999; .*\.parquet"):
        write_table(table, tmp_path / "a.fits")
    write_table(table.select(range(999)), tmp_path / "a.fits")
    assert read_table(tmp_path / "a.fits").num_columns == 999


def test_control_characters_of_names_titles_and_credits_end_nothing(tmp_path):
    evil = "a\nEND\x1b]0;x\x07\tb"
    columns = [field(evil, pa.string(), description=evil, ucd=evil), field("A b", pa.int64()), field("a B", pa.int64())]
    table = pa.table([["x\x1b[31m"], [1], [2]], schema=pa.schema(columns))
    meta = {"title": evil, "sources": [{"title": evil, "license": evil}]}
    for suffix in writing._WRITERS:
        write_table(table.append_column("ra", pa.array([1.0])).append_column("dec", pa.array([2.0])),
                    tmp_path / f"a{suffix}", meta=meta)  # fmt: skip
    with fits.open(tmp_path / "a.fits") as hdus:
        assert all(character.isprintable() for character in str(hdus[1].header).replace("\n", ""))
    assert read_table(tmp_path / "a.fits").to_pylist()[0]["A b"] == 1
    for suffix in (".reg", ".ajs"):
        assert all(character.isprintable() or character == "\n" for character in (tmp_path / f"a{suffix}").read_text())


# ---- what no two files have in common


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_any_arrow_type_is_plain_text(kind):
    values = pa.chunked_array([pa.array(["a", None, "ü"], pa.string()).cast(kind)])
    found = fields.plain_types(values)
    assert (found.type, found.to_pylist()) == (pa.string(), ["a", None, "ü"])


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int16()])
@pytest.mark.parametrize("end", ["lowest", "second", "last but one", "highest"])
def test_the_only_number_that_is_free_stands_for_a_null(kind, end):
    """Bytes are taken from the top, other integers from the bottom; a type is widened only when it is full."""
    limits = np.iinfo(kind.to_pandas_dtype())
    every = list(range(limits.min, limits.max + 1))
    free = every.pop({"lowest": 0, "second": 1, "last but one": -2, "highest": -1}[end])
    data, null = np.array([*every, 0], kind.to_pandas_dtype()), np.arange(len(every) + 1) == len(every)
    found = writing._with_null_number(data.copy(), null)
    assert (found.dtype, found[-1]) == (data.dtype, free)
    full = np.array([*range(limits.min, limits.max + 1), 0], data.dtype)
    found = writing._with_null_number(full.copy(), np.arange(len(full)) == len(full) - 1)
    assert found[-1] not in full[:-1] and found[:-1].tolist() == full[:-1].tolist()


@pytest.mark.parametrize("suffix", sorted(writing._WRITERS))
def test_a_table_of_pictures_alone_is_written_without_columns_or_refused_in_words(tmp_path, suffix):
    table = pa.table({"thumbnail": pa.array([b"x", None], pa.binary())})
    try:
        write_table(table, tmp_path / f"a{suffix}", meta={})
    except GalsearchError as error:
        assert str(tmp_path) in str(error)
    else:
        assert (tmp_path / f"a{suffix}").is_file()


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4), (3, 2, 4, 5)])
def test_an_array_a_row_keeps_its_shape(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    Table({"v": values, "n": [1, 2, 3]}).write(tmp_path / "a.fits")
    assert np.array_equal(read_table(tmp_path / "a.fits")["v"].to_pylist(), values)


STAND_INS = (99.0, -99.0, 99.9, -99.9, 99.99, -99.99, 999.0, -999.0, 9999.0, -9999.0)  # of other catalogs


@pytest.mark.parametrize("number", STAND_INS)
def test_a_number_that_stands_for_no_value_elsewhere_is_told(tmp_path, number):
    rows = "\n".join(f"{row},{value}" for row, value in enumerate([14.5, number, 16.25, number, 15.0]))
    found = read_text(tmp_path, f"id,mag\n{rows}\n")
    assert any(f"{number:g}" in note for note in notes_of(found)), notes_of(found)
    other = read_text(tmp_path, f"id,mag\n{rows}\n".replace(str(number), str(number * 0.97)))
    assert not notes_of(other)


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".fits", ".fit", ".vot", ".votable", ".xml", ".parquet", ".pq"])
def test_a_file_that_is_what_its_name_says_has_no_notes(tmp_path, suffix):
    write_table(pa.table({"object_id": ["a", "b"], "ra": [1.0, 2.5]}), tmp_path / f"a{suffix}")
    assert not notes_of(read_table(tmp_path / f"a{suffix}"))


@pytest.mark.parametrize(("numbers", "is_read"), [(2**16 // 4, True), (2**16 // 4 + 1, False)])  # 4 bytes each
def test_a_votable_may_declare_rows_of_64_kib_and_no_wider_ones_than_the_file(tmp_path, numbers, is_read):
    text = (
        '<VOTABLE version="1.4"><RESOURCE><TABLE>'
        f'<FIELD name="a" datatype="float" arraysize="{numbers}"/><DATA><TABLEDATA></TABLEDATA></DATA>'
        "</TABLE></RESOURCE></VOTABLE>"
    )
    if is_read:
        assert read_text(tmp_path, text, "a.vot").column_names == ["a"]
    else:
        with pytest.raises(SchemaError, match="row"):
            read_text(tmp_path, text, "a.vot")


@pytest.mark.parametrize("width", [1, 4, 5, 9])
def test_columns_that_become_text_after_a_million_bytes_are_text_from_the_first(tmp_path, width):
    """One after another where they are few, else all of the table."""
    rows = 120_000 // width
    lines = [",".join(["object_id", *(f"c{number}" for number in range(width)), "n"])]
    lines += [",".join([f"o{row}", *["1234567890"] * width, "7"]) for row in range(rows)]
    lines += [",".join(["last", *["word"] * width, "8"])]
    found = read_text(tmp_path, "\n".join(lines) + "\n")
    assert found.num_rows == rows + 1
    for number in range(width):
        assert found[f"c{number}"].type == pa.string()
        assert {*found[f"c{number}"].to_pylist()[:-1]} == {"1234567890"} and found[f"c{number}"][-1].as_py() == "word"
    assert {*map(int, found["n"].to_pylist()[:-1])} == {7} and int(found["n"][-1].as_py()) == 8
