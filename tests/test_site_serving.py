"""The preview of a static site answers as a good web server does, and this machine only."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import galsearch
from galsearch import FormatError, GalsearchError
from galsearch.site import serving


@pytest.fixture(scope="module")
def site(page, tiny_bundle, tmp_path_factory) -> Path:
    return galsearch.write_site(tiny_bundle, tmp_path_factory.mktemp("served") / "out")


@pytest.fixture(scope="module")
def port(site):
    """The port of a server of the site, which has a secret beside it and a link to that."""
    (site.parent / "secret.txt").write_text("secret")
    (site / "link.txt").symlink_to(site.parent / "secret.txt")
    with serving.site_server(site, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.title(): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_files_are_whole_with_their_types(port, site):
    for path, kind in {"/": "text/html; charset=utf-8", "/site.json": "application/json"}.items():
        status, headers, body = ask(port, path)
        assert (status, headers["Content-Type"], headers["Accept-Ranges"]) == (200, kind, "bytes")
        assert body == (site / (path.lstrip("/") or "index.html")).read_bytes()
        assert headers["Cache-Control"] == "no-cache"
    assert ask(port, "/assets/index-1.js?v=1#x")[1]["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    ("stated", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=10-19", 10, 20), ("bytes=100-", 100, None), ("bytes=-7", -7, None)],
)
def test_a_range_is_a_part(port, site, stated, start, stop):
    path = json.loads((site / "site.json").read_text())["cards"]["parts"][0]["path"]
    whole = (site / path).read_bytes()
    status, headers, body = ask(port, f"/{path}", range=stated)
    assert (status, body) == (206, whole[start:stop])
    first = start % len(whole)
    assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(whole)}"
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("stated", ["bytes=0-1,4-5", "lines=0-1", "bytes=5-2", "bytes=-", "bytes=x"])
def test_what_is_no_single_range_is_the_whole(port, site, stated):
    status, _, body = ask(port, "/site.json", range=stated)
    assert (status, body) == (200, (site / "site.json").read_bytes())


@pytest.mark.parametrize("stated", ["bytes=99999999-", "bytes=-0"])
def test_a_range_beyond_the_file_is_refused(port, site, stated):
    status, headers, body = ask(port, "/site.json", range=stated)
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{(site / 'site.json').stat().st_size}"


def test_head_has_the_headers_only(port, site):
    status, headers, body = ask(port, "/site.json", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str((site / "site.json").stat().st_size))


@pytest.mark.parametrize(
    "path",
    [
        *("/none", "/data", "/data/", "/../secret.txt", "/%2e%2e/secret.txt", "/assets/../../secret.txt"),
        *("//etc/passwd", "/link.txt", "/a%00b", "/" + "x" * 5_000, "/%ff%fe"),
    ],
)
def test_what_is_no_file_of_the_site_is_not_found(port, path):
    status, _, body = ask(port, path)
    assert (status, body) == (404, b"")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_name_that_leads_here_from_elsewhere_is_refused(port, host):
    assert ask(port, "/site.json", host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:5"])
def test_a_name_of_this_machine_is_taken(port, host):
    assert ask(port, "/site.json", host=host)[0] == 200


def test_only_reading_is_answered(port):
    assert ask(port, "/site.json", "POST")[0] == 501


def test_a_folder_that_is_no_site_and_a_port_that_is_none_are_told(site, tmp_path, port):
    with pytest.raises(FormatError, match="is no site of galsearch"):
        galsearch.serve_site(tmp_path)
    (tmp_path / "site.json").write_text("[1]")
    with pytest.raises(FormatError, match="is not of the format"):
        galsearch.serve_site(tmp_path)
    with pytest.raises(GalsearchError, match=r"port .* choose another with --port"):
        galsearch.serve_site(site, port=port)
    with pytest.raises(GalsearchError, match="port is 70000"):
        galsearch.serve_site(site, port=70_000)


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c(site, tmp_path):
    copy = shutil.copytree(site, tmp_path / "out", symlinks=True)
    command = [sys.executable, "-m", "galsearch.cli", "site", str(copy), "--serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        port = int(line.split(":")[2].split("/")[0])
        assert ask(port, "/")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
