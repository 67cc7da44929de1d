"""What a text names: ids, names in any spelling, positions, near misses; from Python and the command line."""

from __future__ import annotations

import doctest
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from PIL import Image

import galsearch
from galsearch import lookup as module
from galsearch.errors import QueryError
from galsearch.lookup import name_key, position_of
from galsearch.store.read import base

NAMES = (  # object_id, ra, dec, name_ned, aliases, morph, remark
    ("m51a", 202.469575, 47.1952583, "NGC 5194", "M 51a | Whirlpool Galaxy | MESSIER 051", "spiral", "companion 5195"),
    ("m51b", 202.498279, 47.2661056, "NGC 5195", "M 51b", "E3", "see NGC 5194"),
    ("virgo-0001", 187.7059308, 12.3911231, "MESSIER 087", "NGC 4486, Virgo A", "ring", "the jet of Virgo"),
    ("007", 10.0, -5.0, "UGC 00123", "PGC 0012345", "Sb", "xqzzt"),
    ("7", 359.9999, 0.0, "NGC 7808", "ESO 12-3", "edge-on", None),
    ("with, comma", 0.0001, 0.0, "ESO 1-23", None, None, "NGC 7808"),
    ("-5", None, None, "2MASX J13295269+4711429", "Sérsic 159", None, None),
    ("x" * 30, 10.01, -5.0, "NGC 1300A", None, None, None),
)


@pytest.fixture(scope="module")
def named_path(tmp_path_factory, tiny_models):
    """An atlas of eight objects with names as catalogs write them, as a folder."""
    folder = tmp_path_factory.mktemp("named")
    rows = list(zip(*NAMES, strict=True))
    files = [f"{place}.png" for place in range(len(NAMES))]
    (folder / "cutouts").mkdir()
    for place, name in enumerate(files):
        Image.fromarray(tiny.draw(place)).save(folder / "cutouts" / name)
    columns = dict(
        zip(("object_id", "ra", "dec", "name_ned", "aliases", "morph", "remark"), map(list, rows), strict=True)
    )
    table = tiny.parquet(folder / "names.parquet", **columns, file=files)
    path = folder / "named.atlas"
    galsearch.build(path, images=folder / "cutouts", table=table, models=tiny_models)
    return path


@pytest.fixture(scope="module")
def named(named_path):
    with galsearch.open(named_path, device="cpu") as atlas:
        yield atlas


@pytest.mark.parametrize(
    ("text", "ids", "column"),
    [
        ("m51a", ["m51a"], "object_id"),
        (" m51a ", ["m51a"], "object_id"),
        ("NGC 5194", ["m51a"], "name_ned"),
        ("ngc5194", ["m51a"], "name_ned"),
        ("NGC-05194", ["m51a"], "name_ned"),
        ("M 51A", ["m51a"], "object_id"),
        ("whirlpool galaxy", ["m51a"], "aliases"),
        ("M51", ["m51a"], "aliases"),
        ("m 87", ["virgo-0001"], "name_ned"),
        ("M87", ["virgo-0001"], "name_ned"),
        ("Messier 87", ["virgo-0001"], "name_ned"),
        ("NGC 4486", ["virgo-0001"], "aliases"),
        ("Virgo A", ["virgo-0001"], "aliases"),
        ("VIRGO 1", ["virgo-0001"], "object_id"),
        ("ugc 123", ["007"], "name_ned"),
        ("UGC00123", ["007"], "name_ned"),
        ("PGC 12345", ["007"], "aliases"),
        ("7", ["7"], "object_id"),
        ("007", ["007"], "object_id"),
        ("NGC 7808", ["7", "with, comma"], "name_ned"),
        ("ESO 12-3", ["7"], "aliases"),
        ("ESO 012-03", ["7"], "aliases"),
        ("ESO 1-23", ["with, comma"], "name_ned"),
        ("2MASX J13295269+4711429", ["-5"], "name_ned"),
        ("Sersic 159", ["-5"], "aliases"),
        ("NGC 1300A", ["x" * 30], "name_ned"),
        ("xqzzt", ["007"], "remark"),
        ("with, comma", ["with, comma"], "object_id"),
        ("-5", ["-5"], "object_id"),
    ],
)
def test_an_object_is_known_by_its_id_and_by_every_spelling_of_its_names(named, text, ids, column):
    found = named.lookup(text)
    assert (found.kind, found.ids, found.candidates[0].column) == ("object", ids, column)
    assert found.candidates[0].object_id in ids


@pytest.mark.parametrize(
    "text",
    [
        *("spiral", "ring", "E3", "Sb", "edge-on", "spiral galaxy", "galaxy"),  # classes, remarks
        *("NGC 5196", "NGC 51", "NGC 1300", "NGC 1300B", "5194", "NGC", "M 8", "M 510", "Virgo", "ESO 123", ""),
        *("NGC 5194 and its companion", "x" * 200, "'; DROP TABLE galaxies; --", "%", "\x00", "\ud800", "🌀"),
    ],
    ids=lambda text: f"{text[:20]!a}",
)
def test_what_describes_galaxies_or_is_another_name_names_nothing(named, text):
    found = named.lookup(text)
    assert (found.kind, found.candidates, bool(found)) == ("nothing", (), False)


def test_a_name_is_found_without_an_index_of_words_too(named, monkeypatch):
    used = []
    for name in ("holders_of", "likely_holders"):
        way = getattr(base, name)
        monkeypatch.setattr(base, name, lambda *a, name=name, way=way, **o: used.append(name) or way(*a, **o))
    named._store.rows_named("NGC 5194", most=5)
    monkeypatch.setattr(named._store, "tables", named._store.tables - {"word_postings"})
    named._store.rows_named("NGC 5194", most=5)
    assert used == ["holders_of", "likely_holders"]
    named._look_up.cache_clear()
    for text, name in (("ngc5194", "m51a"), ("M 87", "virgo-0001"), ("UGC 123", "007"), ("Sersic 159", "-5")):
        assert named.lookup(text).ids[:1] == [name]
    assert not named.lookup("spiral galaxy")
    named._look_up.cache_clear()


def test_a_class_of_many_objects_is_no_name(named, monkeypatch):
    monkeypatch.setattr(module, "MOST_CANDIDATES", 1)
    named._look_up.cache_clear()
    assert not named.lookup("NGC 7808")  # two have it
    assert named.lookup("NGC 5194")
    named._look_up.cache_clear()


def test_what_was_looked_up_is_not_looked_up_again(named, monkeypatch):
    named.lookup("NGC 5194")
    monkeypatch.setattr(named._store, "rows_named", None)
    assert named.lookup("NGC 5194").ids == ["m51a"]
    with pytest.raises(QueryError, match="expected an id, a name or a position"):
        named.lookup(5)


@pytest.mark.parametrize(
    ("text", "position", "radius"),
    [
        ("13:29:52.7 +47:11:43", (202.4695833, 47.1952778), 5),
        ("13 29 52.7 +47 11 43", (202.4695833, 47.1952778), 5),
        ("13h29m52.7s +47d11m43s", (202.4695833, 47.1952778), 5),
        ("202.47 47.195", (202.47, 47.195), 36 * np.cos(np.radians(47.195))),
        ("202.469575, +47.1952583", (202.469575, 47.1952583), 5),
        ("10 -5", (10, -5), 60),
        ("J132952+471143", (202.4666667, 47.1952778), 15 * np.cos(np.radians(47.1952778))),
        ("SDSS J132952.70+471142.9", (202.4695833, 47.19525), 5),
        ("2MASX J13295269+4711429", (202.4695417, 47.19525), 5),
        ("j1330.5-0012", (202.625, -0.2), 60),
        ("WISEA J000000.00−000001.0", (0, -1 / 3600), 5),
    ],
)
def test_a_position_is_read_with_the_precision_that_it_is_written_in(text, position, radius):
    ra, dec, found = position_of(text)
    assert (ra, dec) == pytest.approx(position, abs=1e-6)
    assert found == pytest.approx(radius, rel=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        *("M31 5", "S0 5", "m 33", "10 arcsec", "z < 0.1", "3", "J9999+1234", "J1360+1234", "J1234+9934", "10 95"),
        *("13:29:52.7", "spiral", "NGC 5194", "", "+", "J12+34", "J123+456", "10 5 spirals"),
    ],
)
def test_what_is_no_position_is_none(text):
    assert position_of(text) is None


def test_a_position_gives_the_objects_there_nearest_first(named):
    found = named.lookup("13:29:52.7 +47:11:43")
    assert (found.kind, found.ids) == ("position", ["m51a"])
    assert found.candidates[0].separation_arcsec == pytest.approx(0.07, abs=0.03)
    across = named.lookup("0.00001 0.00000")  # on the other side of RA 0 too
    assert across.ids == ["with, comma", "7"]
    assert [one.separation_arcsec for one in across.candidates] == pytest.approx([0.324, 0.396], abs=1e-3)


def test_where_no_object_lies_the_nearest_is_told(named):
    found = named.lookup("202.4700 47.1900")
    assert (found.kind, found.ids, found.nearest.object_id) == ("position", [], "m51a")
    assert "no objects within 5 arcsec; the nearest, 'm51a', is 18.96 arcsec away" in str(found)
    assert named.lookup("100.00 80.00").nearest is None


def test_an_atlas_without_positions_says_so(run, tmp_path, tiny_models):
    (tmp_path / "cutouts").mkdir()
    Image.fromarray(tiny.draw(0)).save(tmp_path / "cutouts" / "a.png")
    galsearch.build(tmp_path / "x.atlas", images=tmp_path / "cutouts", models=tiny_models)
    with galsearch.open(tmp_path / "x.atlas") as atlas:
        found = atlas.lookup("10.5 20.5")
        assert (found.kind, found.has_positions) == ("position", False)
        assert "no object of this atlas has one" in str(found)
    cone = ("--near", "10", "20", "--radius-arcsec", "60", "--format", "json")
    code, out, error = run("search", tmp_path / "x.atlas", *cone)
    assert (code, json.loads(out)["rows"]) == (0, [])
    assert "no object of this atlas has a position" in error


def test_several_atlases_are_looked_up_as_one(named_path, tiny_folder):
    with galsearch.open([tiny_folder, named_path]) as both:
        assert both.lookup("NGC 5194").ids == ["m51a"]
        assert both.lookup(tiny.object_id(5)).ids == [tiny.object_id(5)]
        assert both.lookup("13:29:52.7 +47:11:43").ids == ["m51a"]
        with pytest.raises(QueryError, match="did you mean 'm51a' or 'm51b'"):
            both["m51c"]


def test_candidates_are_hits_in_the_order_of_the_look_up_and_heed_cuts(named):
    hits = named.candidates(named.lookup("0.00001 0.00000"))
    assert (hits.ids, hits.scores) == (["with, comma", "7"], None)
    assert named.candidates(named.lookup("NGC 7808"), where="dec < -1").ids == []
    assert named.candidates(named.lookup("NGC 7808"), where="ra < 1 -- a comment").ids == ["with, comma"]
    assert named.candidates(named.lookup("NGC 7808"), k=1).ids == ["7"]
    assert named.candidates(named.lookup("nothing of it")).ids == []


def test_nothing_is_called_unconvincing_or_refined_where_a_name_was_asked_for(named):
    for text in ("NGC 5194", "13:29:52.7 +47:11:43", "m51a"):
        hits = named.search(text, k=5)
        assert (hits.convincing, hits.refinements()) == (None, [])
    assert named.search("red edge", k=5).convincing is not None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("m51c", "'m51a' or 'm51b'"),
        ("NGC 5194", "'m51a'"),
        ("virgo-1", "'virgo-0001'"),
        ("VIRGO-0001", "'virgo-0001'"),
        ("virgo-0010", "'virgo-0001'"),
    ],
)
def test_an_unknown_id_offers_near_misses(named, given, meant):
    for ask in (
        lambda: named[given],
        lambda: named.rows(["7", given]),
        lambda: named.search(galsearch.Query((galsearch.Term("object", given),))),
    ):
        with pytest.raises(QueryError, match=f"no object '{given}' .*; did you mean {meant}"):
            ask()
    with pytest.raises(QueryError, match="ids are exact text"):
        named["nobody at all"]


def test_spellings_of_a_name_have_one_key_and_other_names_another():
    same = ("NGC 5194", "ngc5194", "NGC05194", "NGC-5194", "NGC_5194", "NGC  5194", "NAME NGC 5194")
    assert len(set(map(name_key, same))) == 1
    other = ("NGC 5194A", "NGC 519", "ESO 12-3", "ESO 1-23", "J1+2", "J1-2", "J12", "M 1.05", "M 1.5")
    assert len(set(map(name_key, other))) == len(other)


# ---- the command line


def test_a_name_in_the_words_prints_its_object_and_no_search(run, named_path):
    for more in ((), ("--hybrid",), ("--explain",)):
        code, out, error = run("search", named_path, "NGC 5194", "-k", 3, "--format", "json", *more)
        assert code == 0
        assert [row["object_id"] for row in json.loads(out)["rows"]] == ["m51a"]
        assert "'NGC 5194' is object 'm51a' ('NGC 5194' in column name_ned)" in error
        assert "convincing" not in error
        assert "refine with" not in error
        assert "--like=m51a" in error


def test_a_position_in_the_words_prints_what_is_there(run, named_path):
    code, out, error = run("search", named_path, "13:29:52.7 +47:11:43", "--format", "json")
    assert code == 0
    assert [row["object_id"] for row in json.loads(out)["rows"]] == ["m51a"]
    assert "is the position 202.469583 +47.195278: 1 object within 5 arcsec" in error
    code, out, error = run("search", named_path, "202.4700 47.1900", "--format", "json")
    assert (code, json.loads(out)["rows"]) == (0, [])
    assert "the nearest, 'm51a', is 18.96 arcsec away" in error


@pytest.mark.slow
def test_words_are_searched_for_all_the_same_with_other_terms(run, named_path):
    for arguments in (("--plus", "NGC 5194"), ("NGC 5194", "--like", "m51b")):
        code, out, error = run("search", named_path, *arguments, "-k", 3, "--format", "json")
        assert code == 0
        assert len(json.loads(out)["rows"]) == 3
        assert "is object" not in error


def test_a_name_that_a_cut_leaves_out_is_told(run, named_path):
    code, out, error = run("search", named_path, "NGC 5194", "--where", "dec < 0", "--format", "json")
    assert (code, json.loads(out)["rows"]) == (0, [])
    assert "0 of them pass the cuts" in error


@pytest.mark.parametrize("name", ["-5", "with, comma"])
def test_ids_that_begin_with_a_hyphen_or_have_a_comma_are_taken(run, named_path, name):
    code, out, _ = run("search", named_path, "--like", name, "-k", 2, "--format", "json")
    assert (code, len(json.loads(out)["rows"])) == (0, 2)
    code, out, _ = run("show", named_path, "--format", "json", "--", name)
    assert (code, json.loads(out)["rows"][0]["object_id"]) == (0, name)
    code, out, _ = run("search", named_path, "--format", "json", "--", name)
    assert (code, json.loads(out)["rows"][0]["object_id"]) == (0, name)


def test_an_unknown_id_is_one_line_with_near_misses(run, named_path):
    code, out, error = run("search", named_path, "--like", "m51c")
    assert (code, out) == (1, "")
    assert "did you mean 'm51a' or 'm51b'?" in error


def test_the_examples_in_the_docstrings_hold():
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


# ---- a name service


SESAME = """# M 51\t#Q22523669
#=S=Simbad (via url):    1
%@ 1811387
%J 202.4695750 +47.1952583 = 13:29:52.69 +47:11:42.9
%I.0 M  51
%I NAME Whirlpool Galaxy
%I NGC  5194
"""
NOTHING_FOUND = "# xyzzy\n#!SIMBAD: No known catalog could be found\n#! *** Nothing found ***\n"


class Sesame(ThreadingHTTPServer):
    """A name service on loopback that gives one answer and keeps what it was asked."""

    def __init__(self, answer, *, status=200):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.server.asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.asked = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


@pytest.fixture
def field(tmp_path):
    """An atlas where one galaxy lies at the place of M 51, and another bears one of its names and has no place."""
    table = pa.table(
        {
            "object_id": ["here", "named", "far"],
            "name": [None, "NGC 5194", "Sombrero"],
            "ra": [202.4700, None, 10.0],
            "dec": [47.1950, None, 10.0],
            "vec": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    galsearch.build(tmp_path / "f.atlas", table=tmp_path / "rows.parquet", vectors="vec", model="mine")
    return tmp_path / "f.atlas"


def test_a_name_that_the_atlas_has_not_is_looked_up_where_it_lies(field):
    with Sesame(SESAME.encode()) as service, galsearch.open(field) as atlas:
        assert not atlas.lookup("Whirlpool") and service.asked == []
        found = atlas.resolve("Whirlpool", service_url=service.url)
        assert (found.kind, found.ids, found.resolved) == ("position", ["here"], "M  51")
        assert found.candidates[0].separation_arcsec == pytest.approx(1.4, abs=0.2) and "by Sesame (M  51)" in str(
            found
        )
        assert service.asked == ["/-oI/A?Whirlpool"]
        assert atlas.candidates(found).ids == ["here"]


def test_what_the_atlas_knows_is_never_sent(field):
    with Sesame(SESAME.encode()) as service, galsearch.open(field) as atlas:
        for text, ids in (("NGC5194", ["named"]), ("here", ["here"]), ("10.0 10.0", ["far"])):
            assert atlas.resolve(text, service_url=service.url).ids == ids
        assert service.asked == []


def test_another_name_of_what_is_meant_is_found_where_nothing_lies_there(field):
    elsewhere = SESAME.replace("202.4695750 +47.1952583", "150.0 -20.0").encode()
    with Sesame(elsewhere) as service, galsearch.open(field) as atlas:
        found = atlas.resolve("Whirlpool", service_url=service.url)
        assert (found.kind, found.ids) == ("object", ["named"]) and "Sesame: M  51" in str(found)


def test_an_unknown_name_is_nothing_and_a_service_that_fails_is_an_error(field):
    with galsearch.open(field) as atlas:
        with Sesame(NOTHING_FOUND.encode()) as service:
            assert not atlas.resolve("xyzzy", service_url=service.url)
        for answer, status in ((b"<html>maintenance</html>", 200), (b"", 200), (b"gone", 404), (b"%J 999 +99", 200)):
            with Sesame(answer, status=status) as service, pytest.raises(galsearch.RemoteError):
                atlas.resolve("xyzzy", service_url=service.url)
        with pytest.raises(galsearch.GalsearchError, match="https"):
            atlas.resolve("xyzzy", service_url="http://example.org/")


def test_a_visitor_has_no_name_sent_anywhere(field):
    with (
        Sesame(SESAME.encode()) as service,
        galsearch.open(field, visitors=galsearch.Limits()) as atlas,
        pytest.raises(galsearch.QueryError, match="not sent"),
    ):
        atlas.resolve("Whirlpool", service_url=service.url)
    assert service.asked == []


def test_the_command_asks_for_a_name_only_where_told(run, field):
    with Sesame(SESAME.encode()) as service:
        code, out, error = run(
            "search", field, "Whirlpool", "--resolve", "--service-url", service.url, "--format", "csv"
        )
        assert code == 0 and "here" in out.splitlines()[1] and "by Sesame" in error
    with Sesame(NOTHING_FOUND.encode()) as service:
        code, out, error = run("search", field, "xyzzy", "--resolve", "--service-url", service.url)
        assert (code, out) == (1, "") and "Sesame knows no such name" in error
    code, _, error = run("search", field, "--resolve")
    assert code == 2 and "--resolve" in error


@pytest.mark.parametrize("text", ["NGC 1300", "m 110", "Mrk 231", "arp220", "4C 12.50"])
def test_a_name_that_no_object_bears_is_said_to_be_one(named, text):
    assert named.hints(text) == (
        f"no object of this atlas is called '{text}'; --resolve (atlas.resolve) asks where it is",
    )


@pytest.mark.parametrize("text", ["spiral like NGC 1300", "m = 3 arms", "sb 2", "3 arms", "S0 galaxy"])
def test_what_only_has_a_name_in_it_is_searched_for(named, text):
    assert not any("is called" in hint for hint in named.hints(text))
