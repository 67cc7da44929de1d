"""A static site says what its atlas says: its files are read back with numpy and compared with Atlas."""

import contextlib
import errno
import hashlib
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
import pyarrow.parquet as pq
import pytest
import tiny
from site_reader import Site, entries, faults

import galsearch
from galsearch import GalsearchError
from galsearch.site import cards, folder, vectors, writing
from galsearch.store import open_store
from galsearch.store.write import site_tables

K = 10
MOST = 24_000_000
QUERIES = 50
ROWS, DIM = 20_500, 32
CUTS = (None, "mag_r < 16", "mag_r BETWEEN 14 AND 14.2", "z > 0.1 AND mag_r < 15")


pytestmark = pytest.mark.usefixtures("page")


@pytest.fixture(scope="module")
def tiny_site(page, tiny_bundle, tmp_path_factory) -> Path:
    """A site of the tiny bundle; never change it."""
    return galsearch.write_site(tiny_bundle, tmp_path_factory.mktemp("site") / "out")


@pytest.fixture
def site(tiny_site, tmp_path) -> Path:
    """A copy of the site, to change."""
    return Path(shutil.copytree(tiny_site, tmp_path / "out"))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """An atlas of 20,500 vectors around 300 centers, with a few columns."""
    home = tmp_path_factory.mktemp("large")
    given = tiny.table(ROWS).append_column("vector", _listed(tiny.random_units(ROWS, DIM, seed=3, groups=300)))
    pq.write_table(given, home / "source.parquet")
    galsearch.build(home / "large.atlas", table=home / "source.parquet", vectors="vector", model="random")
    return home / "large.atlas"


@pytest.fixture(scope="module")
def large_site(page, large, tmp_path_factory) -> Path:
    """A site of it, in files of half a megabyte."""
    return galsearch.write_site(large, tmp_path_factory.mktemp("large-site") / "out", max_file_mb=0.6)


def _listed(vectors_: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_.ravel()), vectors_.shape[1])


def agreement(atlas: galsearch.Atlas, site: Site, queries: np.ndarray, where: str | None, kind: str) -> float:
    """Return the mean share of Atlas's exact top ten that the site finds."""
    ids = [name for (name,) in site.facts("SELECT object_id FROM galaxies ORDER BY site_row")]
    allowed = np.ones(len(ids), bool)
    if where:
        allowed = np.isin(np.arange(len(ids)), site.facts(f"SELECT site_row FROM galaxies WHERE {where}"))
    shares = []
    for query in queries.astype(np.float32):
        expected = atlas.search(query, where=where, k=K, exact=True).ids
        found = {ids[row] for row in site.search(query, K, allowed=allowed if where else None, kind=kind)}
        shares.append(len(found & set(expected)) / len(expected))
    return float(np.mean(shares))


def queries_of(atlas: galsearch.Atlas, kind: str, *, count: int = QUERIES) -> np.ndarray:
    """Return unit vectors like stored ones, or between several of them as words are."""
    rng = np.random.default_rng(5)
    ids = [galaxy.object_id for galaxy, _ in zip(atlas, range(3 * count), strict=False)]
    stored = np.stack([atlas.embed(atlas[name]) for name in ids])
    stored += rng.normal(scale=0.02, size=stored.shape)
    found = stored[:count] if kind == "like" else stored.reshape(count, 3, -1).sum(axis=1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


# ---- vectors


@pytest.mark.parametrize("where", CUTS)
def test_a_small_site_answers_as_the_atlas_does(tiny_bundle, tiny_site, where):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        rng = np.random.default_rng(2)
        queries = atlas.embed("red edge") + rng.normal(scale=0.2, size=(QUERIES, 16))
        assert agreement(atlas, Site(tiny_site), queries, where, "like") >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["like", "words"])
@pytest.mark.parametrize("where", CUTS)
def test_a_large_site_answers_from_its_cells_as_the_atlas_does_from_all(large, large_site, where, kind):
    site = Site(large_site)
    with galsearch.open(large, device="cpu") as atlas:
        assert agreement(atlas, site, queries_of(atlas, kind), where, kind) >= 0.95
    assert site.space()["cells"]["probes"] < site.space()["cells"]["count"] / 4


def test_cells_of_a_small_site_answer_too(tiny_bundle, tmp_path):
    site = Site(galsearch.write_site(tiny_bundle, tmp_path / "out", cells_from=100))
    cells = site.space()["cells"]
    starts = site.array(cells["starts"], "<u4")
    assert cells["count"] == len(starts) - 1 == len(site.array(cells["centroids"], "<f4", -1, 16)) > 1
    assert starts[-1] == site.manifest["rows"] == tiny.ROWS
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        assert agreement(atlas, site, queries_of(atlas, "like"), None, "like") >= 0.95


def test_codes_with_their_residuals_are_the_vectors(tiny_bundle, tiny_site):
    site = Site(tiny_site)
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        stored = np.stack([atlas.embed(atlas[site.card(row)[0]["object_id"]]) for row in range(tiny.ROWS)])
    codes, scales = site.codes()
    assert np.abs(codes).max(axis=1).tolist() == [127] * tiny.ROWS
    assert np.abs(scales[:, None] * codes - stored).max() < 0.01
    assert np.abs(site.vectors() - stored).max() < 1e-4


def test_a_vector_of_zeros_has_codes_of_zero():
    codes, scales = vectors.coded(np.array([[0, 0], [1, -0.5]], np.float32))
    assert codes.tolist() == [[0, 0], [127, -64]] and scales[0] == 0


def test_a_second_embedding_has_the_rows_that_it_belongs_to(two_bundle, tmp_path):
    site = Site(galsearch.write_site(two_bundle, tmp_path / "out"))
    space = site.space("spectrum")
    rows = site.rows_of("spectrum")
    assert [one["name"] for one in site.manifest["spaces"]] == ["image", "spectrum"]
    assert space["rows"] == len(rows) < site.manifest["rows"] and space["site_rows"] is not None
    ids = [site.card(row)[0]["object_id"] for row in rows[:20]]
    expected = [tiny.spectrum(int(name[8:])) for name in ids]
    assert np.abs(site.vectors("spectrum")[:20] - expected).max() < 1e-4


def test_an_atlas_folder_gives_the_site_that_its_bundle_gives(tiny_folder, tiny_site, tmp_path):
    site, other = Site(galsearch.write_site(tiny_folder, tmp_path / "out")), Site(tiny_site)
    known = {other.card(row)[0]["object_id"]: other.card(row) for row in range(tiny.ROWS)}
    assert {site.card(row)[0]["object_id"]: site.card(row) for row in range(tiny.ROWS)} == known


# ---- cards, columns, facts, ids


def test_a_card_has_the_columns_and_the_picture_of_its_galaxy(tiny_bundle, tiny_site):
    site = Site(tiny_site)
    shown = {one["name"] for one in site.manifest["columns"] if one["shown"]}
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        for row in (0, 7, 150, tiny.ROWS - 1):
            values, picture = site.card(row)
            expected = atlas.rows([values["object_id"]]).to_pylist()[0]
            assert {*values} == {*shown, "caption"}
            assert {name: expected[name] for name in shown} == {name: values[name] for name in shown}
            assert picture == atlas.thumbnails([values["object_id"]])[values["object_id"]]


def test_facts_are_the_columns_of_the_atlas_in_the_order_of_the_site(tiny_bundle, tiny_site):
    site = Site(tiny_site)
    rows = site.facts("SELECT site_row, object_id, z, survey, mass FROM galaxies ORDER BY site_row")
    assert [row[0] for row in rows] == list(range(tiny.ROWS))
    assert [row[1] for row in rows] == [site.card(row)[0]["object_id"] for row in range(tiny.ROWS)]
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        expected = atlas.rows([row[1] for row in rows]).select(["z", "survey", "mass"]).to_pylist()
    assert [tuple(row.values()) for row in expected] == [row[2:] for row in rows]
    assert site.facts("SELECT unit FROM galsearch_columns WHERE \"column\" = 'mass'") == [("solMass",)]


def test_a_facts_file_is_for_old_readers_and_has_a_cone(tiny_site):
    file = Site(tiny_site).manifest["facts"]["files"][0]["file"]["parts"][0]["path"]
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{tiny_site / file}' AS g (READ_ONLY)")
        connection.execute("USE g")
        stated = connection.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'g'").fetchall()[0][0]
        assert stated["storage_version"] == "v1.2.0+"
        inside = connection.execute("SELECT count(*) FROM cone(0.0, 10.0, 3600)").fetchall()[0][0]
        assert 10 < inside < tiny.ROWS / 2


def test_what_a_browser_would_need_an_extension_for_is_stored_plainly():
    given = pa.table(
        {
            "json": pa.array(['{"a": 1}', None], pa.json_()),
            "when": pa.array([0, None], pa.timestamp("us", tz="Europe/Berlin")),
            "kind": pa.array(["a", "b"]).dictionary_encode(),
            "plain": [1.5, 2.5],
        }
    )
    table = site_tables._plain(given)
    assert table.schema.types == [pa.string(), pa.timestamp("us"), pa.string(), pa.float64()]
    assert table["json"].to_pylist() == ['{"a": 1}', None]


def test_sliders_have_the_values_of_their_columns(tiny_site):
    site = Site(tiny_site)
    columns = {one["name"]: one for one in site.manifest["columns"]}
    sliders = [name for name, one in columns.items() if one["histogram"]]
    assert {"z", "mag_r"} <= set(sliders) and len(sliders) <= cards.MOST_SLIDERS
    for name, dtype in {"z": "<f4", "mag_r": "<f4", "ra": "<f8", "dec": "<f8"}.items():
        stored = [value for (value,) in site.facts(f"SELECT {name} FROM galaxies ORDER BY site_row")]
        values = site.array(columns[name]["values"], dtype)
        expected = np.array([np.nan if value is None else value for value in stored])
        assert np.array_equal(values, expected.astype(dtype), equal_nan=True), name
        assert (columns[name]["min"], columns[name]["max"]) == (np.nanmin(expected), np.nanmax(expected))
    assert sum(columns["z"]["histogram"]) == np.isfinite(site.array(columns["z"]["values"], "<f4")).sum()
    assert columns["survey"]["values"] is None and columns["object_id"]["histogram"] is None


def test_columns_that_are_odd_are_all_there(tmp_path):
    odd = {
        "object_id": ["a", "b"],
        "numbers": [[1, 2], None],
        "Site_Row": [7, 8],
        "caption": ["a caption of the table", None],
        "when": pa.array([0, None], pa.timestamp("us", tz="UTC")),
        "huge": [2**60, -1],
        "infinite": [float("inf"), 1.0],
        "vector": _listed(np.eye(2, dtype=np.float32)),
    }
    pq.write_table(pa.table(odd), tmp_path / "source.parquet")
    galsearch.build(tmp_path / "a.atlas", table=tmp_path / "source.parquet", vectors="vector", model="none")
    site = Site(galsearch.write_site(tmp_path / "a.atlas", tmp_path / "out"))
    card = site.card(site.row_of("a"))[0]
    assert (card["numbers"], card["Site_Row"], card["huge"]) == ("[1, 2]", 7, str(2**60))
    assert card["caption"] == "a caption of the table" and card["when"].startswith("1970-01-01T00:00:00")
    stored = site.facts("SELECT site_row, Site_Row_in_table, numbers, huge FROM galaxies WHERE object_id = 'a'")
    assert stored == [(site.row_of("a"), 7, [1, 2], 2**60)]


@pytest.mark.parametrize("score", ["'NaN'", "'inf'"])
def test_a_number_that_json_has_not_is_none(bundle_path, tmp_path, score):
    with duckdb.connect(str(bundle_path)) as connection:
        connection.execute(f"UPDATE line_image SET score = {score}::DOUBLE WHERE asked = 'like'")
    thresholds = Site(galsearch.write_site(bundle_path, tmp_path / "out")).space()["thresholds"]
    assert thresholds["like"] is None and thresholds["words"] > 0


def test_a_picture_that_is_none_or_too_long_is_left_out_and_counted(run, bundle_path, tmp_path):
    with duckdb.connect(str(bundle_path)) as connection:
        first, second = [row[0] for row in connection.execute("SELECT object_id FROM galaxies LIMIT 2").fetchall()]
        for name, content in {first: b"<svg onload=alert(1)>", second: b"RIFF" + bytes(cards.MOST_PICTURE)}.items():
            connection.execute("UPDATE thumbnails SET image = $1::BLOB WHERE object_id = $2", [content, name])
    code, _, stderr = run("site", bundle_path, tmp_path / "out")
    site = Site(tmp_path / "out")
    assert code == 0 and "2 pictures are left out" in stderr and site.manifest["cards_without_picture"] == 2
    assert site.card(site.row_of(first))[1] == b"" == site.card(site.row_of(second))[1]


def test_every_id_is_found_and_no_other(tiny_site):
    site = Site(tiny_site)
    for row in range(tiny.ROWS):
        assert site.row_of(site.card(row)[0]["object_id"]) == row
    assert [site.row_of(name) for name in ("", "x", "0", "￿", "12376500")] == [None] * 5


def test_values_of_a_card_are_bounded_and_what_json_has():
    given = [None, True, 1.5, float("nan"), 2**60, -3, "x" * 5_000, b"ab", [1, {"a": "b"}], "\u202e<b>"]
    made = [cards.plain(value) for value in given]
    assert made[:6] == [None, True, 1.5, None, str(2**60), -3]
    assert len(made[6]) == cards.MOST_TEXT and made[6].endswith("…")
    assert made[7:] == ["2 bytes", '[1, {"a": "b"}]', "\u202e<b>"]


def test_hostile_texts_arrive_as_they_are_and_stay_within_bounds(hostile_path, tmp_path):
    site = Site(galsearch.write_site(hostile_path, tmp_path / "out"))
    assert faults(tmp_path / "out", MOST) == []
    ids = [name for (name,) in site.facts("SELECT object_id FROM galaxies ORDER BY site_row")]
    for row in range(0, tiny.ROWS, 7):
        values, _ = site.card(row)
        assert values["object_id"] == ids[row] and site.row_of(ids[row]) == row
        assert all(len(str(value)) <= cards.MOST_CAPTION for name, value in values.items() if name != "object_id")
    assert not set(site.manifest["title"]) & set("\x1b\u202e")
    assert len(json.dumps(site.manifest)) < 200_000
    named = {part["path"] for entry in entries(site.manifest) for part in entry["parts"]}
    assert all(folder.OUR_DATA.fullmatch(name.removeprefix("data/")) for name in named)


# ---- files


def test_every_file_is_listed_with_its_digest(tiny_site, page):
    assert faults(tiny_site, MOST) == []
    assert (tiny_site / "site.json").stat().st_size < 100_000
    assert (tiny_site / "index.html").read_bytes() == (page / "index.html").read_bytes() and (
        tiny_site / ".nojekyll"
    ).is_file()


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 350])
def test_a_file_that_is_longer_than_the_limit_is_parts(tmp_path, size):
    content = os.urandom(size)
    with contextlib.closing(folder.Staging(tmp_path / "aside", 100)) as staging:
        writer = staging.file("one")
        for start in range(0, size, 70):
            writer.write(content[start : start + 70])
        entry = writer.entry()
    parts = [(tmp_path / "aside" / part["path"]).read_bytes() for part in entry["parts"]]
    assert b"".join(parts) == content and entry["bytes"] == size
    assert [len(part) for part in parts] == [100] * (size // 100) + [size % 100] * bool(size % 100)
    assert [part["sha256"] for part in entry["parts"]] == [hashlib.sha256(part).hexdigest() for part in parts]


def test_rows_about_objects_lie_in_the_file_of_their_object(hostile_path, tmp_path):
    store = open_store(hostile_path)
    try:
        rows = np.arange(store.objects)[::-1]
        one = site_tables.write_facts(store, tmp_path, rows, most=MOST)[0].path
        whole = one.stat().st_size
        one.unlink()
        files = site_tables.write_facts(store, tmp_path, rows, most=whole * 3 // 4)
        captioned = len(store.table("captions"))
    finally:
        store.close()
    assert len(files) > 1 and [file.first_row for file in files] == [0, *np.cumsum([file.rows for file in files])[:-1]]
    count = 0
    for file in files:
        assert file.path.stat().st_size < whole and {"galaxies", "captions"} <= set(file.tables)
        assert ("galsearch_columns" in file.tables) == (file.first_row == 0)
        with duckdb.connect(str(file.path), read_only=True) as connection:
            away = "SELECT count(*) FROM captions WHERE object_id NOT IN (SELECT object_id FROM galaxies)"
            assert connection.execute(away).fetchall() == [(0,)]
            count += connection.execute("SELECT count(*) FROM captions").fetchall()[0][0]
            first = connection.execute("SELECT min(site_row), max(site_row) FROM galaxies").fetchall()
            assert first == [(file.first_row, file.first_row + file.rows - 1)]
    assert count == captioned > 0


@pytest.mark.slow
def test_what_is_over_the_limit_is_split_and_reads_as_one(large, large_site, tmp_path):
    assert faults(large_site, 600_000) == []
    split, whole = Site(large_site), Site(galsearch.write_site(large, tmp_path / "out"))
    assert len(split.manifest["cards"]["parts"]) > 1 == len(whole.manifest["cards"]["parts"])
    assert split.read(split.manifest["cards"]) == whole.read(whole.manifest["cards"])
    files = split.manifest["facts"]["files"]
    assert len(files) > 1 and files[0]["first_row"] == 0 and sum(one["rows"] for one in files) == ROWS
    wanted = "SELECT sum(site_row), count(DISTINCT object_id), sum(z) FROM galaxies"
    (rows, ids, total), (_, _, expected) = split.facts(wanted)[0], whole.facts(wanted)[0]
    assert (rows, ids) == (ROWS * (ROWS - 1) // 2, ROWS) and total == pytest.approx(expected)


def test_an_object_whose_facts_are_too_long_for_a_file_is_told(tmp_path):
    text = os.urandom(2_000_000).hex()
    pq.write_table(
        pa.table({"object_id": ["a", "b"], "note": ["short", text], "vector": _listed(np.eye(2, dtype=np.float32))}),
        tmp_path / "source.parquet",
    )
    galsearch.build(tmp_path / "a.atlas", table=tmp_path / "source.parquet", vectors="vector", model="none")
    with pytest.raises(GalsearchError, match=r"facts of one object take .* --max-file-mb"):
        galsearch.write_site(tmp_path / "a.atlas", tmp_path / "out", max_file_mb=1)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.partial*"))


def test_the_same_atlas_gives_the_same_files(tiny_bundle, tiny_site, tmp_path):
    galsearch.write_site(tiny_bundle, tmp_path / "out")
    names = {file.name for file in (tiny_site / "data").iterdir() if file.suffix == ".bin"}
    assert names == {file.name for file in (tmp_path / "out" / "data").iterdir() if file.suffix == ".bin"}


def test_another_site_takes_the_place_of_one_and_leaves_what_is_not_its_own(site, two_bundle):
    for name in ("CNAME", "README.md", "data/notes.txt"):
        (site / name).write_text("mine")
    (site / ".git").mkdir()
    (site / ".git" / "HEAD").write_text("ref")
    (site / "assets" / "index-0.js").write_text("of an older page")
    galsearch.write_site(two_bundle, site, title="Two")
    assert Site(site).manifest["title"] == "Two" and len(Site(site).manifest["spaces"]) == 2
    assert [(site / name).read_text() for name in ("CNAME", "README.md", "data/notes.txt")] == ["mine"] * 3
    assert (site / ".git" / "HEAD").read_text() == "ref" and not (site / "assets" / "index-0.js").exists()
    assert faults(site, MOST) == ["data/notes.txt is listed nowhere"]


@pytest.mark.parametrize("there", ["file", "files", "manifest", "link", "no parent"])
def test_what_is_no_site_is_not_written_over(tiny_bundle, tmp_path, there):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    elif there in ("files", "manifest"):
        out.mkdir()
        (out / ("site.json" if there == "manifest" else "thesis.tex")).write_text('{"format": "theirs"}')
    elif there == "link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out = tmp_path / "none" / "out"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(GalsearchError, match="choose another"):
        galsearch.write_site(tiny_bundle, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_site_is_not_written_into_its_atlas(folder_path):
    with pytest.raises(GalsearchError, match="lies in the atlas"):
        galsearch.write_site(folder_path, folder_path / "site")
    assert not (folder_path / "site").exists()


@pytest.mark.parametrize("limit", [0, 0.1, float("nan"), 1e9, True])
def test_a_limit_that_no_host_has_is_refused(tiny_bundle, tmp_path, limit):
    with pytest.raises(GalsearchError, match="max_file_mb is"):
        galsearch.write_site(tiny_bundle, tmp_path / "out", max_file_mb=limit)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "//evil.example/a", "/etc/a", "a b", "http:x"]
)
def test_an_address_that_a_page_must_not_link_to_is_refused(tiny_bundle, tmp_path, url):
    with pytest.raises(GalsearchError, match="bundle_url is"):
        galsearch.write_site(tiny_bundle, tmp_path / "out", bundle_url=url)


def test_the_atlas_itself_is_described_with_its_address(tiny_bundle, tmp_path):
    url = "https://example.org/tiny.duckdb"
    about = Site(galsearch.write_site(tiny_bundle, tmp_path / "out", bundle_url=url)).manifest["bundle"]
    assert (about["name"], about["url"], about["bytes"]) == ("tiny.duckdb", url, tiny_bundle.stat().st_size)


# ---- what goes wrong meanwhile


def test_a_full_disk_is_told_and_the_site_is_as_it_was(site, two_bundle, monkeypatch):
    before = _contents(site)
    written = folder.FileWriter.write

    def full(self, content):
        if self.bytes + len(memoryview(content)) > 2_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, content)

    monkeypatch.setattr(folder.FileWriter, "write", full)
    with pytest.raises(GalsearchError, match=r"No space left on device.*free some space.*Nothing that was there"):
        galsearch.write_site(two_bundle, site)
    assert _contents(site) == before and [path.name for path in site.parent.iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from galsearch.site import folder, writing, write_site
writing.FRONT_END = Path(sys.argv[3])
moments = int(sys.argv[4])
def told(done, total, what):
    if moments < 0 and what == sys.argv[5]:
        os.kill(os.getpid(), signal.SIGKILL)
real, count = Path.replace, [0]
def replace(self, target):
    if self.name in ("site.json", "index.html") or "out.partial" in str(self) and "out.partial" not in str(target):
        count[0] += 1
        if count[0] == moments:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
write_site(sys.argv[1], sys.argv[2], progress=told)
"""


def killed(atlas: Path, out: Path, page: Path, moment: int, what: str = "") -> int:
    """Write a site in a process that is killed: before it moves its file number `moment`, or at a word of progress."""
    command = [sys.executable, "-c", KILLED, str(atlas), str(out), str(page), str(moment), what]
    return subprocess.run(command, check=False, timeout=120, env=os.environ).returncode


@pytest.mark.durability
@pytest.mark.slow
@pytest.mark.parametrize("what", ["coding image vectors", "writing cards", "writing facts"])
def test_an_export_that_is_killed_leaves_the_site_as_it_was(site, two_bundle, page, what):
    before = _contents(site)
    assert killed(two_bundle, site, page, -1, what) == -signal.SIGKILL
    assert _contents(site) == before
    galsearch.write_site(two_bundle, site)
    assert faults(site, MOST) == [] and [path.name for path in site.parent.iterdir()] == ["out"]


@pytest.mark.durability
@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 5, 20])
def test_a_site_that_is_killed_while_it_is_put_in_place_is_the_old_one_or_the_new_one(site, two_bundle, page, moment):
    old = Site(site).manifest
    assert killed(two_bundle, site, page, moment) == -signal.SIGKILL
    now = Site(site).manifest
    assert now == old
    assert [fault for fault in faults(site, MOST) if "nowhere" not in fault] == []
    galsearch.write_site(two_bundle, site)
    assert faults(site, MOST) == [] and len(Site(site).manifest["spaces"]) == 2


@pytest.mark.durability
@pytest.mark.slow
def test_a_first_export_that_is_killed_leaves_nothing_by_that_name(tiny_bundle, page, tmp_path):
    assert killed(tiny_bundle, tmp_path / "out", page, -1, "writing facts") == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert faults(galsearch.write_site(tiny_bundle, tmp_path / "out"), MOST) == []


def _contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


def test_a_page_that_is_not_built_is_told_with_what_builds_it(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "FRONT_END", tmp_path / "assets")
    with pytest.raises(GalsearchError, match="make web"):
        galsearch.write_site(tiny_bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---- the command


def test_the_command_writes_a_site_and_says_how_to_see_it(run, tiny_bundle, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = run("site", tiny_bundle, out, "--title", "Mine", "--bundle-url", "../tiny.duckdb")
    assert (code, stdout) == (0, "")
    assert "files" in stderr and "--serve" in stderr
    manifest = Site(out).manifest
    assert (manifest["title"], manifest["bundle"]["url"]) == ("Mine", "../tiny.duckdb")


def test_without_encoders_no_model_goes_along(run, tiny_bundle, tmp_path):
    assert run("site", tiny_bundle, tmp_path / "out", "--no-encoders")[0] == 0
    manifest = Site(tmp_path / "out").manifest
    assert (manifest["text_encoder"], manifest["image_encoder"], manifest["encoders_left_out"]) == (None, None, {})
    assert manifest["chips"]["image"]["phrases"] and not list((tmp_path / "out" / "data").glob("*model*"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["tiny.duckdb"], 2, "name the folder to write"),
        (["none.duckdb", "out"], 1, "no such file"),
        (["tiny.duckdb", "none/out"], 1, "no such folder"),
        (["tiny.duckdb", "out", "--max-file-mb", "0"], 1, "max_file_mb is"),
        (["here", "--serve"], 1, "is no site of galsearch"),
    ],
)
def test_what_cannot_be_written_or_shown_is_one_line(run, bundle_path, arguments, code, words):
    (bundle_path.parent / "here").mkdir()
    with contextlib.chdir(bundle_path.parent):
        got, stdout, stderr = run("site", *arguments)
    assert (got, stdout) == (code, "") and words in " ".join(stderr.split())
    assert not (bundle_path.parent / "out").exists()
