"""What a service outside may do to us: answers are bounded, it sends us nowhere, and an odd one costs one answer."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest
from fake_vlm import Said, Server

from galsearch.errors import RemoteError
from galsearch.remote import samp
from galsearch.remote.llm import endpoint
from galsearch.remote.llm.endpoint import FAILED, MALFORMED, OK, Endpoint, Request, Service

pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="needs the package openai")
ASKED = Request("one", "what is it?", b"picture")


def ask(url: str, **options):
    options = {"retries": 0, "timeout_seconds": 2.0, **options}
    asking = Endpoint(Service("model", base_url=url, **options), {"kind": str}).open()
    try:
        return asking.ask(ASKED)
    finally:
        asking.close()


def answers(text: str, **parts):
    return Server(lambda _: Said(raw=text, **parts))


def whole(message: object, **parts) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], **parts})


GOOD = {"role": "assistant", "content": '{"kind": "ring"}'}


def test_an_ordinary_answer_is_taken():
    with answers(whole(GOOD, usage={"prompt_tokens": 3, "completion_tokens": 4})) as server:
        reply = ask(server.url)
    assert (reply.status, reply.values, reply.tokens_in, reply.tokens_out) == (OK, {"kind": "ring"}, 3, 4)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with (
        answers(whole(GOOD)) as other,
        Server(lambda _: Said(raw="", status=status, headers={"Location": other.url + "/chat/completions"})) as server,
    ):
        with pytest.raises(RemoteError, match="not followed"):
            ask(server.url)
        assert other.sent == []


def test_an_answer_that_is_too_long_is_cut_and_costs_one(monkeypatch):
    monkeypatch.setattr(endpoint, "MOST_ANSWER_BYTES", 1000)
    with answers(whole({**GOOD, "more": "x" * 100_000})) as server:
        reply = ask(server.url)
        assert reply.status == FAILED and len(reply.said) < 500
        assert len(server.asked) == 1


def test_a_packed_answer_is_not_unpacked():
    with answers(whole(GOOD), headers={"Content-Encoding": "gzip"}) as server:
        assert ask(server.url).status == OK  # the bytes as they came


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[]", FAILED),
        ("null", FAILED),
        ("[" * 100_000, FAILED),
        ("<html>", FAILED),
        ('{"usage": [1]}', FAILED),
        ('{"usage": "x", "choices": []}', FAILED),
        ('{"choices": []}', MALFORMED),
        ('{"choices": {"0": 1}}', MALFORMED),
        ('{"choices": ["x"]}', MALFORMED),
        (whole("text"), MALFORMED),
        (whole(None), MALFORMED),
        (whole({"content": ["a"]}), MALFORMED),
        (whole({"content": "[" * 50_000}), MALFORMED),
        (whole({"content": '{"kind": 5}'}), MALFORMED),
    ],
)
def test_an_odd_answer_costs_one_answer(text, status):
    with answers(text) as server:
        assert ask(server.url).status == status


@pytest.mark.parametrize("count", ["many", -5, 10**30, True, 1.5, [3]])
def test_a_count_of_tokens_that_cannot_be_is_not_believed(count):
    with answers(whole(GOOD, usage={"prompt_tokens": count, "completion_tokens": 4})) as server:
        assert ask(server.url).tokens_in is None


class Dripping:
    """A server that sends a byte now and then, for ever."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                try:
                    for _ in range(600):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(0.05)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self._http.server_port}"

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def test_an_answer_that_never_ends_is_given_up():
    with Dripping() as url:
        before = time.monotonic()
        assert ask(f"{url}/v1", timeout_seconds=0.5).status == FAILED
        assert time.monotonic() - before < 5


def hub(monkeypatch, tmp_path, url: str) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"samp.secret=x\nsamp.hub.xmlrpc.url={url}\n")
    monkeypatch.setenv(samp.HUB_VARIABLE, f"{samp.LOCK_PREFIX}{lock.as_uri()}")


def test_a_hub_whose_answer_never_ends_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(samp, "SPARE_SECONDS", 0.2)
    with Dripping() as url:
        hub(monkeypatch, tmp_path, url)
        before = time.monotonic()
        with pytest.raises(RemoteError, match="not complete after"):
            samp.send_votable(b"", name="x", software="x", wait_seconds=0.3)
        assert time.monotonic() - before < 5


def test_a_hub_that_answers_something_else_is_a_remote_error(monkeypatch, tmp_path):
    import xmlrpc.server

    server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
    server.register_function(lambda *_: 5, "samp.hub.register")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_address[1]}")
    try:
        with pytest.raises(RemoteError, match="none of SAMP"):
            samp.send_votable(b"", name="x", software="x")
    finally:
        server.shutdown()
        server.server_close()
