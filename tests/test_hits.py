"""An answer taken along: every format of `Hits.save`, a bundle of just these rows, what to cite, and SAMP."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import warnings
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet
import pytest
from astropy.table import Table

import galsearch
from galsearch import GalsearchError, QueryError, RemoteError, citations, schema
from galsearch.remote import samp

FORMATS = (".csv", ".ecsv", ".fits", ".vot", ".xml", ".parquet", ".json", ".reg", ".ajs", ".bib", ".duckdb")


@pytest.fixture(scope="module")
def found(atlas):
    return atlas.search("red", where="z < 0.15", k=12)


# ---- files


@pytest.mark.parametrize("suffix", FORMATS)
def test_bytes_for_a_download_are_those_of_the_file(found, tmp_path, suffix):
    path = found.save(tmp_path / f"hits{suffix}")
    content = found.to_bytes(suffix.upper())
    if suffix == ".duckdb":  # which notes when it was made
        assert content[:4096][8:12] == path.read_bytes()[:4096][8:12] == b"DUCK"
    else:
        assert content == path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_unknown_suffix_names_the_known_ones(found, tmp_path):
    with pytest.raises(galsearch.SchemaError, match=r"hits\.xls: cannot write a table to \.xls; known are \.csv"):
        found.save(tmp_path / "hits.xls")
    with pytest.raises(galsearch.SchemaError, match="no suffix"):
        found.to_bytes("")


def test_astropy_reads_the_same_objects_from_every_table(found, tmp_path):
    for suffix in (".ecsv", ".fits", ".vot"):
        table = Table.read(found.save(tmp_path / f"hits{suffix}"))
        assert [str(name) for name in table["object_id"]] == found.ids
        assert np.allclose(np.ma.filled(table["score"], np.nan), found.scores)
        assert str(table["ra"].unit) == "deg"
    assert pyarrow.parquet.read_table(found.save(tmp_path / "a.parquet"))["object_id"].to_pylist() == found.ids


def test_a_list_that_is_cut_short_says_so_and_a_ranking_does_not(atlas):
    def status(hits):
        return re.search(r'name="QUERY_STATUS" value="(\w+)"', hits.format("votable"))[1]

    assert status(atlas.search(where="z < 0.15", k=5)) == "OVERFLOW"
    assert status(atlas.search(where="z < 0.15", k=300)) == "OK"
    assert status(atlas.search("red", where="z < 0.15", k=5)) == "OK"


def test_rows_of_sql_say_where_they_come_from(run, tiny_bundle, tmp_path):
    statement = "SELECT object_id, z FROM galaxies LIMIT 3"
    code, _, error = run("sql", tiny_bundle, statement, "-o", tmp_path / "rows.ecsv")
    assert code == 0, error
    meta = Table.read(tmp_path / "rows.ecsv").meta
    assert (meta["query"], meta["atlas"], meta["sources"][0]["title"]) == (statement, "Tiny", "Tiny")


# ---- a bundle of the answer


@pytest.fixture(scope="module")
def part(found, tmp_path_factory) -> Path:
    return found.save(tmp_path_factory.mktemp("part") / "rings.duckdb")


def test_a_bundle_of_an_answer_opens_and_finds_the_same_again(found, part):
    with galsearch.open(part, device="cpu") as alone:
        assert len(alone) == 12
        again = alone.search("red", k=12)
        assert again.ids == found.ids
        assert np.allclose(again.scores, found.scores, atol=1e-6)
        ours = f"object_id IN ({', '.join(map(repr, found.ids))})"
        assert alone.search(again[0], k=3).ids == found._atlas.search(found[0], where=ours, k=3).ids
        assert [finding for finding in alone.check() if not finding.ok] == []


def test_it_has_the_rows_the_pictures_and_the_sources(found, part):
    with galsearch.open(part) as alone:
        assert alone.rows(found.ids).drop_columns([]).to_pylist() == found._atlas.rows(found.ids).to_pylist()
        assert alone.thumbnails(found.ids) == found.thumbnails()
        assert alone.manifest.sources == found._atlas.manifest.sources
        assert set(alone.models()) == {"text", "image"}
        record = alone.manifest.provenance[-1]
        assert (record["action"], json.loads(record["parameters"]["query"])["where"]) == ("select", "z < 0.15")
        assert alone.manifest.title == "Tiny: text 'red'"
        units = {row["column"]: row["unit"] for row in alone.columns().to_pylist()}
        assert units["mass"] == "solMass"


def test_plain_duckdb_asks_it_in_words(found, part):
    with duckdb.connect(part, read_only=True) as plain:
        rows = plain.execute("FROM nearest(like_object($1), k := 3)", [found.ids[0]]).fetchall()
        assert rows[0][0] == found.ids[0] or rows[0][1] == pytest.approx(1)  # itself, or a copy of it
        assert plain.execute("SELECT count(*) FROM galaxies").fetchall() == [(12,)]


@pytest.mark.slow
def test_captions_and_labels_of_its_rows_travel_along(folder_path, tmp_path):
    galsearch.caption(folder_path, by="measurements")
    with galsearch.open(folder_path, device="cpu") as atlas:
        hits = atlas.search("blue", k=5)
        everything = atlas.sql("SELECT object_id, caption FROM captions ORDER BY object_id")
        part = hits.bundle(tmp_path / "part.duckdb", title="Blue")
    with galsearch.open(part) as alone:
        kept = alone.sql("SELECT object_id, caption FROM captions ORDER BY object_id").to_pylist()
        assert alone.manifest.title == "Blue"
    assert kept == [row for row in everything.to_pylist() if row["object_id"] in hits.ids]
    assert kept


def test_one_row_is_enough_and_none_is_refused(atlas, tmp_path):
    path = atlas.search("red", k=1).bundle(tmp_path / "one.duckdb")
    with galsearch.open(path, device="cpu") as alone:
        assert len(alone.search("red", k=5)) == 1
    with pytest.raises(QueryError, match="nothing was found"):
        atlas.search("red", where="z > 100").bundle(tmp_path / "none.duckdb")
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.duckdb"]


@pytest.mark.slow
def test_without_models_it_is_smaller_and_asked_by_example(found, part, tmp_path):
    small = found.bundle(tmp_path / "small.duckdb", models=False)
    assert small.stat().st_size < part.stat().st_size
    with galsearch.open(small) as alone:
        assert alone.models() == {}
        assert len(alone.search(alone[found.ids[0]], k=3)) == 3


@pytest.mark.slow
def test_the_scores_of_a_compact_bundle_stay_what_they_are(tiny_folder, tmp_path):
    compact = galsearch.bundle(tiny_folder, tmp_path / "compact.duckdb", compact=True)
    with galsearch.open(compact, device="cpu") as atlas:
        hits = atlas.search("red", k=9)
        part = hits.bundle(tmp_path / "part.duckdb")
    with galsearch.open(part, device="cpu") as alone:
        again = alone.search("red", k=9)
        assert np.allclose(again.scores, hits.scores, atol=1e-6)
        assert set(again.ids) == set(hits.ids)


def test_neither_the_atlas_itself_nor_another_file_is_replaced(tiny_bundle, tmp_path):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        hits, before = atlas.search("red", k=2), tiny_bundle.read_bytes()
        with pytest.raises(GalsearchError, match="is the atlas that was asked"):
            hits.bundle(tiny_bundle)
        assert tiny_bundle.read_bytes() == before
        (tmp_path / "mine.duckdb").write_text("a letter")
        with pytest.raises(GalsearchError, match=r"mine\.duckdb"):
            hits.bundle(tmp_path / "mine.duckdb")
        assert (tmp_path / "mine.duckdb").read_text() == "a letter"
        with pytest.raises(GalsearchError, match="no such folder"):
            hits.bundle(tmp_path / "no" / "part.duckdb")


def test_of_several_atlases_a_bundle_is_refused(tiny_bundle, tmp_path):
    with galsearch.open([tiny_bundle, tiny_bundle], device="cpu") as both, pytest.raises(QueryError, match="ask one"):
        both.search("red", k=2).bundle(tmp_path / "part.duckdb")


@pytest.mark.slow
def test_the_command_line_writes_one_too(run, tiny_bundle, tmp_path):
    code, _, error = run("search", tiny_bundle, "red", "-k", "4", "-o", tmp_path / "four.duckdb")
    assert code == 0, error
    assert "(4 rows)" in error
    with galsearch.open(tmp_path / "four.duckdb") as alone:
        assert len(alone) == 4


# ---- what to cite


def entries(text: str) -> dict[str, dict[str, str]]:
    """Read BibTeX without what wrote it: fields in balanced braces, numbers bare."""
    found, place = {}, 0
    while (head := re.compile(r"@(\w+)\{([^,]+),").search(text, place)) is not None:
        place, fields = head.end(), {}
        while (name := re.compile(r"\s*(\w+)\s*=\s*").match(text, place)) is not None:
            place, depth, start = name.end(), 0, name.end()
            while depth or text[place] not in ",}":
                depth += {"{": 1, "}": -1}.get(text[place], 0) * (text[place - 1] != "\\")
                place += 1
            fields[name[1]] = text[start:place].strip().removeprefix("{").removesuffix("}")
            place += text[place] == ","
        assert head[2] not in found, "a key occurs twice"
        assert re.match(r"\s*\}", text[place:]), text[place : place + 20]
        found[head[2]] = {"kind": head[1], **fields}
    return found


def test_bibtex_has_each_entry_once_and_no_key_twice():
    one = "@article{smith, title={Rings}, year={2001}}"
    sources = [
        {"bibtex": one},
        {"bibtex": f"  {one} "},
        {"bibtex": "@article{smith, title={Bars}}\n@misc{b, note={x}}"},
    ]
    found = entries(citations.bibtex(sources))
    assert found.pop("galsearch")["version"] == galsearch.__version__
    assert {key: fields.get("title") for key, fields in found.items()} == {
        "smith": "Rings",
        "smith-2": "Bars",
        "b": None,
    }


def test_a_source_without_bibtex_gets_an_entry_that_latex_can_read():
    found = entries(citations.bibtex([{"title": "Deep & wide_1 {50%}", "license": "CC0", "bibtex": "see the web"}]))
    entry = found["deep-wide-1-50"]
    assert entry["title"] == r"{Deep \& wide\_1 \{50\%\}}"
    assert entry["note"] == "License: CC0. see the web"
    assert len(entries(citations.bibtex([{}, {}, {"title": "★"}, {"bibtex": "@article{half, title={x}"}]))) == 4


def test_the_demo_is_cited_by_its_paper():
    from galsearch.ingest import DEMO_CREDIT

    found = entries(citations.bibtex([DEMO_CREDIT]))
    assert (found["Illingworth2013"]["journal"], found["Illingworth2013"]["year"]) == ("ApJS", "2013")
    assert DEMO_CREDIT["acknowledgement"] in citations.acknowledgements([DEMO_CREDIT])


def test_the_program_is_cited_as_its_citation_file_says():
    said = (Path(__file__).parent.parent / "CITATION.cff").read_text()
    assert f'title: "{citations.SOFTWARE_TITLE}"' in said
    assert f"name: {citations.SOFTWARE_AUTHOR}" in said


def test_models_are_acknowledged_with_what_they_were_trained_on(atlas):
    card = {"id": "m-1", "license": "MIT", "training": {"sets": [{"credit": "A"}, {"credit": "B"}]}, "notices": ["N."]}
    said = citations.acknowledgements([{"title": "S", "license": "L", "acknowledgement": "Thanks."}], [card])
    assert said.split("\n\n")[:2] == ["S (L)\nThanks.", "Model m-1 (MIT)\nTrained with: A; B\nN."]
    assert "drawn by tests/tiny.py" in atlas.search("red", k=1).acknowledgements()


@pytest.mark.slow
def test_the_command_line_prints_both(run, tiny_bundle):
    code, out, _ = run("cite", tiny_bundle)
    assert code == 0
    assert f"This work made use of {schema.software()}." in out
    code, out, _ = run("cite", tiny_bundle, "--bibtex")
    assert set(entries(out)) == {"tiny", "galsearch"}


# ---- SAMP, with a hub on this machine


def samp_module():
    """Return a SAMP hub and client that others wrote: pyvo's, or astropy's, which is older."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pyvo import samp as theirs
        except ImportError:
            theirs = pytest.importorskip(
                "astropy.samp", reason="no SAMP hub to test with: neither pyvo nor astropy.samp"
            )
    return theirs


@pytest.fixture
def samp_hub(tmp_path, monkeypatch):
    """A hub on loopback, known only to this test by its own lock file."""
    theirs = samp_module()
    lock = tmp_path / "hub.samp"
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{lock.as_uri()}")
    hub = theirs.SAMPHubServer(web_profile=False, lockfile=str(lock), addr="127.0.0.1")
    hub.start()
    yield theirs
    hub.stop()


class Taker:
    """A program at the hub that takes tables, and reads them while it is told of them."""

    def __init__(self, theirs, name: str, *, status: str = "samp.ok") -> None:
        self.tables, self.names, self.files, self.status = [], [], [], status
        self.client = theirs.SAMPIntegratedClient(name=name, metadata={"samp.name": name}, addr="127.0.0.1")
        self.client.connect()
        self.client.bind_receive_call("table.load.votable", self.take)

    def take(self, *told) -> None:
        _key, _sender, message_id, _mtype, parameters, _extra = told
        path = Path(parameters["url"].removeprefix("file://"))
        self.files.append(path)
        self.names.append(parameters["name"])
        self.tables.append(Table.read(path, format="votable"))
        answer = {"samp.status": self.status, "samp.result": {}}
        if self.status != "samp.ok":
            answer["samp.error"] = {"samp.errortxt": "out of memory"}
        self.client.reply(message_id, answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()


def test_a_table_is_sent_to_those_that_are_meant(found, samp_hub):
    with Taker(samp_hub, "topcat") as topcat, Taker(samp_hub, "Aladin") as aladin:
        assert found.send("TOPCAT") == ["topcat"]
        assert found.send() == ["Aladin", "topcat"]
        with pytest.raises(RemoteError, match=r"named like 'ds9'.*there: Aladin, topcat"):
            found.send("ds9")
    assert [len(topcat.tables), len(aladin.tables)] == [2, 1]
    assert [str(name) for name in topcat.tables[0]["object_id"]] == found.ids
    assert topcat.names == ["galsearch: text 'red'"] * 2
    assert not any(path.exists() for path in topcat.files)


def test_a_program_that_cannot_load_it_is_told(found, samp_hub):
    with Taker(samp_hub, "topcat", status="samp.error"), pytest.raises(RemoteError, match=r"topcat could not.*memory"):
        found.send()


JSAMP = Path("/usr/share/java/jsamp.jar")


@contextlib.contextmanager
def java_samp(*arguments: str, log: Path):
    """Run a part of JSAMP, the hub and tools that TOPCAT brings; its output goes to `log`."""
    if shutil.which("java") is None or not JSAMP.exists():
        pytest.skip("jsamp is not installed; it comes with stilts (Debian: apt install stilts)")
    with log.open("wb") as out:
        call = ["java", "-Djsamp.localhost=127.0.0.1", "-jar", str(JSAMP), *arguments]
        process = subprocess.Popen(call, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.slow
def test_the_hub_of_topcat_passes_the_table_on(found, tmp_path, monkeypatch):
    lock, heard = tmp_path / "hub.samp", tmp_path / "heard"
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{lock.as_uri()}")
    snooper = ("snooper", "-clientname", "topcat", "-mtype", "table.load.votable")
    with java_samp("hub", "-mode", "no-gui", "-profiles", "std", log=tmp_path / "hub"):
        wait_for(lock.exists)
        with java_samp(*snooper, log=heard):
            wait_for(lambda: sent_to(found) == ["topcat"])
            wait_for(lambda: "samp.mtype" in heard.read_text())
    assert '"samp.mtype": "table.load.votable"' in heard.read_text()
    assert '"name": "galsearch: text \'red\'"' in heard.read_text()


def sent_to(hits) -> list[str]:
    try:
        return hits.send("topcat")
    except RemoteError:  # it is not there yet
        return []


def wait_for(happened) -> None:
    """Wait until something has happened, for a minute at most."""
    for _ in range(240):
        if happened():
            return
        time.sleep(0.25)
    pytest.fail("it did not happen within a minute")


def test_without_a_program_that_takes_tables_those_there_are_named(found, samp_hub):
    with pytest.raises(RemoteError, match=r"a program that takes tables is not at the SAMP hub \(there: none\)"):
        found.send()


def test_without_a_hub_the_remedy_is_said(found, tmp_path, monkeypatch, run, tiny_bundle):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'nowhere').as_uri()}")
    with pytest.raises(RemoteError, match=r"no SAMP hub is running.*start TOPCAT or Aladin"):
        found.send()
    code, _, error = run("search", tiny_bundle, "red", "--send-to", "topcat")
    assert (code, error.count("no SAMP hub is running")) == (1, 1)
    monkeypatch.setenv("SAMP_HUB", "web:something")
    with pytest.raises(RemoteError, match=r"only std-lockurl:file"):
        found.send()


def test_a_hub_that_says_nothing_is_not_waited_for_forever(tmp_path, monkeypatch):
    monkeypatch.setattr("galsearch.remote.samp.SPARE_SECONDS", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        lock = f"samp.secret=x\nsamp.hub.xmlrpc.url=http://127.0.0.1:{mute.getsockname()[1]}/\n"
        (tmp_path / "lock").write_text(lock)
        monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'lock').as_uri()}")
        with pytest.raises(RemoteError, match=r"did not answer \(timed out\)"):
            samp.send_votable(b"", name="x", software="y", wait_seconds=0)


@pytest.mark.parametrize(
    ("lock", "reason"),
    [
        ("nothing here", "does not say samp.secret"),
        ("samp.secret=x\nsamp.hub.xmlrpc.url=http://127.0.0.1:9/\n", "did not answer"),
        ("samp.secret=x\nsamp.hub.xmlrpc.url=gopher://x\n", "did not answer"),
    ],
)
def test_a_hub_that_has_gone_is_named(found, tmp_path, monkeypatch, lock, reason):
    (tmp_path / "lock").write_text(lock)
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'lock').as_uri()}")
    with pytest.raises(RemoteError, match=reason):
        found.send()


# ---- notebooks, data frames, lookups like a dict


def test_notebooks_show_pictures_ids_and_scores_as_text(atlas):
    hits = atlas.search("red edge", k=30)
    page = hits._repr_html_()
    assert page.count("<img") == 24 and page.count("data:image/webp;base64,") == 24
    assert all(name in page for name in hits.ids[:24]) and hits.ids[24] not in page
    assert f"{hits.scores[0]:.3f}" in page
    one = hits[0]._repr_html_()
    assert "<img" in one and "d&#x27;Or" in atlas.search(where="survey = 'd''Or'", k=1)[0]._repr_html_()
    assert "<td></td>" in atlas.search(where="z IS NULL", k=1)[0]._repr_html_()


def test_a_hostile_title_is_no_markup(atlas):
    assert "<script>" not in atlas.search("<script>alert(1)</script> ring", k=1)._repr_html_()


def test_a_data_frame_has_the_rows_and_their_units(atlas):
    pandas = pytest.importorskip("pandas")
    hits = atlas.search("red edge", k=5)
    frame = hits.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame["object_id"].tolist() == hits.ids
    assert frame.attrs["units"]["mass"] == "solMass"
    assert "z" not in frame.attrs["units"]


def test_an_unknown_id_is_an_error_of_both_kinds_with_a_plain_message(atlas):
    with pytest.raises(KeyError) as caught:
        atlas["1237650000000000000x"]
    assert isinstance(caught.value, galsearch.UnknownIdError) and isinstance(caught.value, galsearch.QueryError)
    assert str(caught.value).startswith("no object '1237650000000000000x' in ")


def test_all_galaxies_are_gone_through_by_id(atlas, monkeypatch):
    monkeypatch.setattr("galsearch.atlas.ITERATED_ROWS", 7)
    ids = [galaxy.object_id for galaxy in atlas]
    assert len(ids) == len(atlas) and ids == sorted(ids)


@pytest.mark.parametrize("option", [{"k": 5}, {"where": "z < 1"}, {"exact": False}, {"by": "image"}])
def test_options_beside_a_query_are_refused(atlas, option):
    with pytest.raises(galsearch.QueryError, match=f"{next(iter(option))} beside a Query"):
        atlas.search(galsearch.Query((galsearch.Term("text", "ring"),)), **option)


def test_hits_are_shown_after_their_atlas_was_closed(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as opened:
        hits = opened.search("red edge", k=2)
        one = hits[0]
        assert one in opened and one.object_id in opened and 3 not in opened
    assert hits.ids[0] in hits._repr_html_() and "no picture" in hits._repr_html_()
    assert one.object_id in one._repr_html_()


# ---- why


def test_hits_say_what_they_have_in_common_with_the_query(atlas):
    hits = atlas.search("red edge-on galaxy", k=30)
    reasons = hits.reasons()
    assert len(reasons) == 30 and reasons[0] and all(len(one) <= 2 for one in reasons)
    assert any("edge" in phrase or "red" in phrase for phrase in reasons[0])
    assert atlas.search(where="true", k=3).reasons() == [(), (), ()]
    assert atlas.search("red", k=3)[:2].reasons(n=1) == [one[:1] for one in atlas.search("red", k=3).reasons()][:2]
