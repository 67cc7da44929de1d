"""An atlas behind an address: what is read, what is kept, and what becomes of servers that are wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from range_server import Line, Served, answer, serving

import galsearch
from galsearch.errors import FormatError, GalsearchError, RemoteError
from galsearch.remote.ranges import cache, client
from galsearch.remote.ranges.file import Address, RemoteFile
from galsearch.store.sql import served as sandbox_file

pytestmark = pytest.mark.slow

SECONDS = 1.5  # that a request may take in these tests


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "galsearch" / "remote"


@pytest.fixture
def served(tiny_bundle: Path, home: Path):
    """The tiny bundle behind an address of this machine."""
    with serving(Served({"tiny.duckdb": tiny_bundle})) as server:
        yield server


@pytest.fixture
def bytes_path(tmp_path: Path) -> Path:
    """A file of a million random bytes with the beginning of a DuckDB file."""
    content = np.random.default_rng(0).bytes(1_000_003)
    path = tmp_path / "random.duckdb"
    path.write_bytes(content[:8] + b"DUCK" + content[12:])
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon."""
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", SECONDS)
    monkeypatch.setattr(
        RemoteFile.__init__, "__kwdefaults__", {**RemoteFile.__init__.__kwdefaults__, "timeout_seconds": SECONDS}
    )
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.05)


def address(served: Served) -> str:
    return f"{served.address}/tiny.duckdb"


# ---- what is read and kept


def test_any_part_of_a_file_is_what_the_file_has(bytes_path, home):
    content, random = bytes_path.read_bytes(), np.random.default_rng(1)
    with (
        serving(Served({"tiny.duckdb": bytes_path})) as served,
        contextlib.closing(RemoteFile(address(served))) as file,
    ):
        for _ in range(200):
            start = int(random.integers(len(content)))
            count = int(min(random.integers(1 << random.integers(1, 19)), len(content) - start))
            assert file.read(start, count) == content[start : start + count]
        assert served.sent <= 1.2 * len(content)  # nothing comes twice but what joins two requests
        with pytest.raises(FormatError, match="was changed"):
            file.read(len(content) - 3, 4)


def test_threads_that_want_the_same_get_it_once(bytes_path, home):
    content = bytes_path.read_bytes()
    line = Line(delay_seconds=0.05)
    with (
        serving(Served({"tiny.duckdb": bytes_path}, line)) as served,
        contextlib.closing(RemoteFile(address(served))) as file,
    ):
        served.forget()
        results: list[bytes] = []
        threads = [threading.Thread(target=lambda: results.append(file.read(300_000, 50_000))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [content[300_000:350_000]] * 8
        assert len(served.requests) == 1


def test_parts_come_several_at_a_time(bytes_path, home):
    line = Line(delay_seconds=0.2)
    with (
        serving(Served({"tiny.duckdb": bytes_path}, line)) as served,
        contextlib.closing(RemoteFile(address(served))) as file,
    ):
        start = time.perf_counter()
        file.fetch([(at, at + 100) for at in range(50_000, 550_000, 50_000)])
        assert time.perf_counter() - start < 1.5  # ten after another take two seconds
        served.forget()
        assert file.read(100_000, 100) == bytes_path.read_bytes()[100_000:100_100]
        assert served.requests == []


def test_what_was_read_once_is_on_disk_for_the_next_time(served, home):
    with galsearch.open(address(served)) as atlas:
        first = atlas.search("spiral", k=5).table
    served.forget()
    with galsearch.open(address(served)) as atlas:
        again = atlas.search("spiral", k=5).table
    assert again.equals(first)
    assert len(served.requests) == 1  # which asks whether it is still the same file
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.iterdir())


@pytest.mark.parametrize("damage", ["flipped", "cut", "index", "gone"])
def test_a_damaged_cache_costs_another_request_and_no_wrong_byte(bytes_path, home, damage):
    content = bytes_path.read_bytes()
    with serving(Served({"tiny.duckdb": bytes_path})) as served:
        with contextlib.closing(RemoteFile(address(served))) as file:
            assert file.read(0, 400_000) == content[:400_000]
        data = next(home.glob("*.data"))
        if damage == "flipped":
            kept = bytearray(data.read_bytes())
            kept[200_000] ^= 4
            data.write_bytes(kept)
        elif damage == "cut":
            os.truncate(data, 100_001)
        elif damage == "index":
            index = data.with_suffix(".index")
            index.write_bytes(np.random.default_rng(2).bytes(index.stat().st_size))
        else:
            shutil.rmtree(home)
        with contextlib.closing(RemoteFile(address(served))) as file:
            assert file.read(0, 400_000) == content[:400_000]


def test_the_cache_stays_within_its_bound(bytes_path, home, monkeypatch):
    monkeypatch.setattr(cache, "CHECKED_EVERY", 100_000)
    content, most = bytes_path.read_bytes(), 600_000
    for name in ("a", "b", "c"):
        with serving(Served({f"{name}.duckdb": bytes_path})) as served:
            file = RemoteFile(f"{served.address}/{name}.duckdb", most_bytes=most)
            for start in range(0, 1_000_000, 50_000):
                assert file.read(start, 50_000) == content[start : start + 50_000]
            file.close()
        assert sum(path.stat().st_blocks * 512 for path in home.glob("*.data")) <= most + 2 * 4096


def test_a_folder_that_cannot_be_written_costs_only_the_cache(served, home):
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    file = RemoteFile(address(served))
    assert file.trouble
    file.close()
    with galsearch.open(address(served)) as atlas:
        assert len(atlas.search("spiral", k=5)) == 5


def test_without_a_validator_nothing_is_kept(served, home):
    served.etag = lambda content: None
    with contextlib.closing(RemoteFile(address(served))) as file:
        assert "ETag" in file.trouble
    assert not home.exists()


def test_a_search_reads_a_part_of_the_file(tmp_path, home):
    """Of a bundle with pictures and models only what the answer needs."""
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(0)
    vectors = random.normal(size=(60_000, 32)).astype(np.float32)
    columns = {"id": [f"g{i:06d}" for i in range(60_000)], "ra": random.uniform(0, 360, 60_000)}
    columns |= {"dec": random.uniform(-90, 90, 60_000), **{f"c{i}": random.uniform(size=60_000) for i in range(8)}}
    table = pa.table({**columns, "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 32)})
    parquet.write_table(table, tmp_path / "t.parquet")
    galsearch.build(tmp_path / "t.atlas", table=tmp_path / "t.parquet", vectors="v", model="random")
    path = galsearch.bundle(tmp_path / "t.atlas", tmp_path / "t.duckdb", compact=True, block_bytes=16_384)
    with serving(Served({"t.duckdb": path})) as served, galsearch.open(path) as here:
        with galsearch.open(f"{served.address}/t.duckdb") as there:
            for query in vectors[:3] + random.normal(size=(3, 32)).astype(np.float32) / 8:
                assert there.search(query, k=5, probes=8).table.equals(here.search(query, k=5, probes=8).table)
            assert there.search(where="c1 < 0.001").table.equals(here.search(where="c1 < 0.001").table)
        assert served.sent < path.stat().st_size / 2


@pytest.mark.parametrize("block_bytes", [16_384, 65_536])
def test_a_bundle_of_small_blocks_is_read_in_place_and_passes_its_check(tiny_folder, tmp_path, block_bytes):
    path = galsearch.bundle(tiny_folder, tmp_path / "small.duckdb", block_bytes=block_bytes)
    with galsearch.open(path) as atlas:
        assert all(finding.ok for finding in atlas.check())


def test_blocks_of_another_size_are_refused(tiny_folder, tmp_path):
    with pytest.raises(galsearch.QueryError, match="block_bytes is 1000, expected one of 16384"):
        galsearch.bundle(tiny_folder, tmp_path / "small.duckdb", block_bytes=1000)
    assert not (tmp_path / "small.duckdb").exists()


def test_the_check_of_an_atlas_reads_it_from_anywhere(served):
    with galsearch.open(address(served)) as atlas:
        assert all(finding.ok for finding in atlas.check())


def test_several_atlases_may_lie_in_several_places(served, tiny_folder):
    with galsearch.open([address(served), tiny_folder]) as atlas:
        assert len(atlas.search("spiral", k=20)) == 20


# ---- one file, and nothing else


def test_no_statement_reads_another_file_or_the_file_itself_as_bytes(served, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with galsearch.open(address(served)) as atlas:
        for text in (
            f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')",
            "SELECT * FROM read_blob('galsearch://atlas/atlas.duckdb')",
            "SELECT * FROM read_text('galsearch://other/file')",
            f"SELECT * FROM read_text('{served.address}/tiny.duckdb')",
            "SELECT * FROM glob('galsearch://atlas/*')",
        ):
            with contextlib.suppress(galsearch.QueryError):
                assert atlas.sql(text).num_rows == 0
        with pytest.raises(galsearch.QueryError):
            atlas.sql(f"ATTACH '{served.address}/tiny.duckdb' AS other")


def test_a_hostile_file_is_refused_as_on_disk(bundle_path, home):
    import duckdb

    with duckdb.connect(str(bundle_path)) as connection:
        connection.execute("ALTER TABLE galaxies RENAME TO objects")
        connection.execute("CREATE VIEW galaxies AS SELECT * FROM objects")
    with serving(Served({"tiny.duckdb": bundle_path})) as served, pytest.raises(FormatError, match="is a view"):
        galsearch.open(address(served))


def test_what_follows_the_question_mark_is_shown_nowhere(served):
    with galsearch.open(f"{address(served)}?key=secret") as atlas:
        assert "secret" not in f"{atlas!r} {atlas.path} {atlas.path!r}"
        assert str(atlas.path) == address(served)
        with pytest.raises(galsearch.UnknownIdError) as raised:
            atlas["nobody"]
        assert "secret" not in str(raised.value)


def test_an_address_is_a_path_that_leads_nowhere():
    path = Address("https://host.example/folder/xdf.duckdb?key=1")
    assert (str(path), path.name, path.suffix) == ("https://host.example/folder/xdf.duckdb", "xdf.duckdb", ".duckdb")
    assert not path.with_suffix(".searches").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("https://a.b/x.duckdb", "https://a.b/x.duckdb"),
        (Path("https://a.b/x.duckdb"), "https://a.b/x.duckdb"),
        ("HTTP://a.b/x.duckdb", "http://a.b/x.duckdb"),
        ("http/x.duckdb", None),
        ("https:", None),
        ("s3://a/x.duckdb", None),
        (Path("x.duckdb"), None),
    ],
)
def test_an_address_is_told_from_a_path(name, expected):
    assert client.address_of(name) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https://host",
        "https://host/",
        "https://user:word@host/x.duckdb",
        "http://host:port/x",
        "https://h/a b",
    ],
)
def test_an_address_that_is_none_is_one_error(url):
    with pytest.raises(GalsearchError, match="address"):
        client.checked_address(url)


def test_verbs_that_write_take_no_address(served, tmp_path):
    for verb in (
        lambda: galsearch.add(address(served), images=tmp_path),
        lambda: galsearch.bundle(address(served), "x"),
    ):
        with pytest.raises(GalsearchError, match="download"):
            verb()
    with pytest.raises(GalsearchError, match="download"):
        galsearch.open(address(served), visitors=galsearch.Limits())
    with pytest.raises(GalsearchError, match="download"):
        galsearch.check(address(served))


# ---- servers that are wrong


def whole(served: Served):
    """Answer with the whole file, as a server does that knows no ranges."""

    def wrong(handler, size, start, stop):
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.wfile.write(next(iter(served.files.values())).read_bytes())
        return True

    return wrong


def says(served: Served, **given):
    """Answer with something else in one of the headers."""

    def wrong(handler, size, start, stop):
        answer(handler, served, next(iter(served.files.values())), start, stop, **given)
        return True

    return wrong


def status(number: int, **headers: str):
    def wrong(handler, size, start, stop):
        handler.send_response(number)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        return True

    return wrong


def dies(handler, size, start, stop):
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
    handler.send_header("Content-Length", str(stop - start))
    handler.end_headers()
    handler.wfile.write(b"only this")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
    return True


def sleeps(handler, size, start, stop):
    time.sleep(SECONDS + 1)
    return True


def drips(handler, size, start, stop):
    """Send headers a byte at a time, so that each read brings something."""
    with contextlib.suppress(OSError):
        for letter in b"HTTP/1.1 206 Partial Content\r\nX: " + b"x" * 100:
            handler.connection.sendall(bytes([letter]))
            time.sleep(0.1)
    return True


def longer(handler, size, start, stop):
    """Send more than was asked for, without saying how much."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
    handler.send_header("Connection", "close")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b"x" * 100_000)
    handler.close_connection = True
    return True


WRONG = {
    "no ranges": (whole, "serves no byte ranges"),
    "another part": (lambda served: says(served, content_range="bytes 5-9/100000000"), "answers with bytes 5 to 9"),
    "no part": (lambda served: says(served, content_range="bytes */5"), "Content-Range"),
    "no number": (lambda served: says(served, content_range="bytes 0-99999999999999999999/1"), "Content-Range"),
    "beyond": (lambda served: says(served, content_range="bytes 0-9/5"), "Content-Range"),
    "huge": (lambda served: says(served, content_range="bytes 0-16383/999999999999999"), "Content-Range"),
    "longer": (lambda served: longer, "more than the"),
    "dies": (lambda served: dies, "did not give bytes"),
    "sleeps": (lambda served: sleeps, "within 1.5 s"),
    "drips": (lambda served: drips, "within 1.5 s"),
    "missing": (lambda served: status(404), "HTTP status 404"),
    "forbidden": (lambda served: status(403), "HTTP status 403"),
    "busy": (lambda served: status(503), "503"),
    "elsewhere": (lambda served: status(302, Location="https://other.example/x.duckdb"), "another host"),
    "downgraded": (lambda served: status(301, Location="ftp://localhost/x"), "another host"),
    "in a circle": (lambda served: status(307, Location="/tiny.duckdb"), "redirects more than"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", WRONG)
def test_a_server_that_is_wrong_from_the_start_is_one_clear_error(served, kind):
    make, message = WRONG[kind]
    served.wrong = make(served)
    start = time.perf_counter()
    with pytest.raises(RemoteError, match=message):
        galsearch.open(address(served))
    assert time.perf_counter() - start < 4 * SECONDS


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [name for name in WRONG if name not in ("missing", "huge")])
def test_a_server_that_goes_wrong_is_one_clear_error_and_may_come_back(served, kind):
    make, _ = WRONG[kind]
    with galsearch.open(address(served)) as atlas:
        expected = atlas.sql("SELECT count(*) AS n FROM galaxies")
        store = atlas._store
        _forget(store)
        served.wrong = make(served)
        with pytest.raises((RemoteError, FormatError)) as raised:
            atlas.thumbnails(store.ids(np.arange(5)))
        assert "Traceback" not in str(raised.value) and served.address.partition("//")[2] in str(raised.value)
        served.wrong = None
        if isinstance(raised.value, RemoteError):
            assert len(atlas.thumbnails(store.ids(np.arange(5)))) == 5
            assert atlas.sql("SELECT count(*) AS n FROM galaxies").equals(expected)


def _forget(store) -> None:
    """Let a store have nothing at hand, in memory or on disk."""
    store._file._held.clear()
    store._file._cache.close()


@pytest.mark.parametrize("how", ["etag", "length", "gone"])
def test_a_file_that_changes_is_an_error_from_then_on(bundle_path, home, how):
    with serving(Served({"tiny.duckdb": bundle_path})) as served, galsearch.open(address(served)) as atlas:
        ids = atlas._store.ids(np.arange(5))
        _forget(atlas._store)
        if how == "etag":
            served.etag = lambda content: '"another"'
        elif how == "length":
            with bundle_path.open("ab") as file:
                file.write(b"\0" * 4096)
        else:
            bundle_path.unlink()
        with pytest.raises(FormatError, match="was changed while it was open"):
            atlas.thumbnails(ids)
        with pytest.raises(FormatError, match="was changed while it was open"):
            atlas.search("spiral")


def test_a_page_in_the_place_of_a_file_is_told_as_such(tmp_path, home):
    (tmp_path / "x.html").write_text("<html>" + "x" * 30_000)
    with (
        serving(Served({"tiny.duckdb": tmp_path / "x.html"})) as served,
        pytest.raises(FormatError, match="no DuckDB file"),
    ):
        galsearch.open(address(served))


def test_nobody_there_is_one_clear_error(home, impatient):
    with serving(Served({})) as served:
        gone = address(served)
    with pytest.raises(RemoteError, match="did not give bytes"):
        galsearch.open(gone)


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_that_is_trusted_serves(
    tiny_bundle, home, monkeypatch, tmp_path
):
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(Served({"tiny.duckdb": tiny_bundle}), certificate=context) as served:
        with pytest.raises(RemoteError, match="certificate"):
            galsearch.open(address(served))
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        library = client._library()
        real = library.Client
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        monkeypatch.setattr(library, "Client", lambda **given: real(**given, verify=trusted))
        with galsearch.open(address(served)) as atlas:
            assert len(atlas.search("spiral", k=3)) == 3


# ---- the command line


def test_the_command_line_takes_an_address(served, run):
    local = run("search", str(next(iter(served.files.values()))), "spiral", "-k", "3", "--format", "csv")
    result = run("search", address(served), "spiral", "-k", "3", "--format", "csv")
    assert result == local
    code, out, _ = run("info", address(served), "--format", "json")
    assert code == 0 and '"title": "Tiny"' in out


def test_a_question_can_be_stopped_while_a_server_is_slow(served, home):
    served.line.delay_seconds = 20.0
    code = f"import galsearch; galsearch.open({address(served)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    time.sleep(2.5)
    process.send_signal(2)
    _, told = process.communicate(timeout=15)
    assert b"KeyboardInterrupt" in told


def test_an_installed_model_does_not_come_over_the_network(tmp_path, tiny_models, tiny_source, home, monkeypatch):
    pictures, table = tiny_source
    folder = tmp_path / "models"
    shutil.copytree(tiny_models, folder)
    galsearch.build(tmp_path / "t.atlas", images=pictures, table=table, models=folder, title="Tiny")
    path = galsearch.bundle(tmp_path / "t.atlas", tmp_path / "t.duckdb", block_bytes=16_384)
    sent = {}
    with serving(Served({"t.duckdb": path})) as served:
        for where in (tmp_path, folder):
            shutil.rmtree(home, ignore_errors=True)
            monkeypatch.setattr(
                "galsearch.encode._roots", lambda root, where=where: (where,) if root is None else (root,)
            )
            asked = []
            with galsearch.open(f"{served.address}/t.duckdb", device="cpu") as atlas:
                store = atlas._store
                real = store.model
                monkeypatch.setattr(
                    store, "model", lambda name, real=real, asked=asked: (asked.append(name), real(name))[1]
                )
                sent[where] = atlas.search("spiral", k=5).table, asked
    assert sent[tmp_path][0].equals(sent[folder][0])
    assert (sent[tmp_path][1], sent[folder][1]) == (["text"], [])


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(GalsearchError, match=r"galsearch\[remote\]"):
        galsearch.open("https://host.example/x.duckdb")


def test_paid_answers_are_not_kept_beside_an_address(tmp_path, monkeypatch):
    from galsearch.remote import journal_path

    monkeypatch.chdir(tmp_path)
    with pytest.raises(GalsearchError, match="give a folder"):
        journal_path(Address("https://host.example/x.duckdb"), ["a"])
    assert journal_path(Address("https://host.example/x.duckdb"), ["a"], folder=tmp_path / "kept").parent.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


class Fetching:
    """Bytes that note which spans are fetched at once."""

    def __init__(self, size: int) -> None:
        self.size, self.fetched = size, []

    def fetch(self, spans: list[tuple[int, int]]) -> None:
        self.fetched += spans

    def read(self, start: int, count: int) -> bytes:
        return bytes(count)


@pytest.mark.parametrize(("length", "is_a_block"), [(16 * 1024, True), (16 * 1024 - 1, False)])
def test_what_is_read_from_front_to_back_is_fetched_ahead_from_the_third_block_on(length, is_a_block):
    content = Fetching(40 * length)
    handle = sandbox_file._Handle(content, None)
    for _ in range(5):
        assert len(handle.read(length)) == length
    ahead = [(start, stop - start) for start, stop in content.fetched]
    expected = [(2 * length, 2 * length), (3 * length, 3 * length), (4 * length, 5 * length)]  # 1, 2, 4 blocks more
    assert ahead == (expected if is_a_block else [])
