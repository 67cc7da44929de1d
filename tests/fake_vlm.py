"""A server on loopback that speaks the protocol of OpenAI's API: answers, refuses, fails and counts what it is asked.

    with Server(answer=good) as server:
        server.url, server.asked

`answer` takes a question (`Asked`) and returns a `Said`. With `batches` there is a Batch API too, whose answers are
there at the second look; without, its addresses are 404, as with most local servers.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS_IN, TOKENS_OUT = 900, 200
GOOD = {
    "description": "A barred spiral galaxy seen face-on. No ring is visible.",
    "summary": "A face-on barred spiral galaxy with two arms.",
    "absent": ["Ring"],
}


@dataclass(frozen=True)
class Asked:
    """A question: which one it is, from 1, what was sent, the picture's bytes, and the key."""

    number: int
    body: dict
    picture: bytes
    key: str


@dataclass(frozen=True)
class Said:
    """An answer: the HTTP status, the message's content, a refusal, why it ended, how long it takes, its usage."""

    content: str = ""
    status: int = 200
    refusal: str | None = None
    finish: str = "stop"
    wait_seconds: float = 0.0
    usage: dict | None = field(
        default_factory=lambda: {
            "prompt_tokens": TOKENS_IN,
            "completion_tokens": TOKENS_OUT,
            "total_tokens": TOKENS_IN + TOKENS_OUT,
        }
    )
    headers: dict = field(default_factory=dict)
    raw: str | None = None
    tool: tuple[str, object] | None = None  # a tool that is called, and its arguments


def good(_: Asked) -> Said:
    """Answer as one should."""
    return Said(json.dumps(GOOD))


class Server:
    """The server; `asked` are the questions to the model, `sent` (method, path) of everything."""

    def __init__(self, answer: Callable[[Asked], Said] = good, *, batches: bool = False) -> None:
        self.answer, self.batches = answer, batches
        self.asked: list[Asked] = []
        self.sent: list[tuple[str, str]] = []
        self.most_at_once = self._at_once = 0
        self.files: dict[str, str] = {}
        self.jobs: dict[str, dict] = {}
        self.finishing = True
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def completion(self, body: dict, key: str) -> tuple[int, dict, str]:
        """Return the status, headers and text of the answer to one question."""
        url = body["messages"][0]["content"][1]["image_url"]["url"]
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            asked = Asked(len(self.asked) + 1, body, base64.b64decode(url.partition("base64,")[2]), key)
            self.asked.append(asked)
        said = self.answer(asked)
        time.sleep(said.wait_seconds)
        with self._lock:
            self._at_once -= 1
        if said.raw is not None:
            return said.status, said.headers, said.raw
        if said.status != 200:
            return said.status, said.headers, json.dumps({"error": {"message": "made to fail", "type": "test"}})
        message = {"role": "assistant", "content": said.content or None, "refusal": said.refusal}
        if said.tool is not None:
            stated = said.tool[1] if isinstance(said.tool[1], str) else json.dumps(said.tool[1])
            function = {"name": said.tool[0], "arguments": stated}
            message["tool_calls"] = [{"id": f"call-{asked.number}", "type": "function", "function": function}]
        whole = {
            "id": f"chatcmpl-{asked.number}",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
            "usage": said.usage,
        }
        return 200, said.headers, json.dumps(whole)

    def batch(self, method: str, path: str, content: bytes, key: str) -> dict | str | None:
        """Return what the Batch API answers; None for what it does not know."""
        if method == "POST" and path == "/v1/files":
            name = f"file-{len(self.files) + 1}"
            lines = [line for line in content.decode().splitlines() if line.startswith('{"custom_id"')]
            self.files[name] = "\n".join(lines)
            return {"id": name, "object": "file", "purpose": "batch", "bytes": 1, "created_at": 1, "filename": "x"}
        if method == "POST" and path == "/v1/batches":
            said = json.loads(content)
            name = f"batch-{len(self.jobs) + 1}"
            self.jobs[name] = {**said, "id": name, "looks": 0, "key": key}
            return self._job(name)
        if path.startswith("/v1/batches?") or path == "/v1/batches":
            return {"object": "list", "data": [self._job(name) for name in self.jobs], "has_more": False}
        if found := re.fullmatch(r"/v1/batches/([\w-]+)", path):
            self.jobs[found[1]]["looks"] += 1
            return self._job(found[1])
        if found := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return self.files[found[1]]
        return None

    def _job(self, name: str) -> dict:
        job = self.jobs[name]
        done = job["looks"] >= 2 and self.finishing
        if done and "output" not in job:
            job["output"] = f"file-{len(self.files) + 1}"
            self.files[job["output"]] = "\n".join(map(self._answered, self.files[job["input_file_id"]].splitlines()))
        return {
            "id": name,
            "object": "batch",
            "endpoint": job["endpoint"],
            "completion_window": "24h",
            "created_at": 1,
            "input_file_id": job["input_file_id"],
            "status": "completed" if done else "in_progress",
            "output_file_id": job.get("output"),
            "metadata": job["metadata"],
        }

    def _answered(self, line: str) -> str:
        asked = json.loads(line)
        status, _, text = self.completion(asked["body"], "")
        response = {"status_code": status, "request_id": "r", "body": json.loads(text)}
        return json.dumps({"id": "x", "custom_id": asked["custom_id"], "response": response, "error": None})

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer("GET", b"")

            def do_POST(self) -> None:
                self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, method: str, content: bytes) -> None:
                server.sent.append((method, self.path))
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                if self.path == "/v1/chat/completions":
                    self._send(*server.completion(json.loads(content), key))
                    return
                found = server.batch(method, self.path, content, key) if server.batches else None
                if found is None:
                    self._send(404, {}, json.dumps({"error": {"message": "no such address"}}))
                else:
                    self._send(200, {}, found if isinstance(found, str) else json.dumps(found))

            def _send(self, status: int, headers: dict, text: str) -> None:
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(text.encode())))
                    self.end_headers()
                    self.wfile.write(text.encode())
                except (BrokenPipeError, ConnectionResetError):
                    pass  # whoever asked was killed

            def log_message(self, *_: object) -> None:
                pass

        return Handler
