"""A server on loopback that speaks as SIMBAD and NED (TAP, synchronous) and VizieR do, well or badly.

    with Server(SOURCES) as server:
        server.urls, server.questions

It reads what it is asked: uploaded tables, cones in ADQL, lists of positions; and answers with what it has there.
`behavior` says how it misbehaves; it may be changed at any time.
"""

from __future__ import annotations

import email
import io
import re
import ssl
import threading
import time
from collections.abc import Callable
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from astropy.io import votable

from galsearch.remote.catalogs import service
from galsearch.science import sky

CONTROLS = [(ra, dec, f"well known {number}", "QSO", 5000) for number, (ra, dec) in enumerate(service.CONTROLS)]
TEXT = 'arraysize="*"'
COLUMNS = {
    "simbad": (("main_id", "char"), ("ra", "double"), ("dec", "double"), ("otype", "char"), ("nbref", "int")),
    "ned": (("prefname", "char"), ("ra", "double"), ("dec", "double"), ("prefphytype", "char")),
    "vizier": (("objID", "char"), ("_RAJ2000", "double"), ("_DEJ2000", "double"), ("class", "char")),
}
# how a service misbehaves when it answers at all; none of these may ever come to "not found"
BAD = (
    *("status 500", "status 404", "page", "json", "nothing", "cut", "cut stream", "overflow", "error", "elsewhere"),
    *("huge", "drip", "drip head", "silent", "lacks all", "lacks a column", "no position", "other table", "two tables"),
    *("cells", "entity", "hang up", "same"),
)


class Server:
    """The server: `questions` are (service, positions) of what was asked, `arrivals` when."""

    def __init__(
        self,
        sources: list[tuple],
        *,
        behavior: str = "good",
        slow_seconds: float = 4.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.sources, self.behavior, self.slow_seconds = list(sources), behavior, slow_seconds
        self.questions: list[tuple[str, list[tuple[float, float, float]]]] = []
        self.arrivals: list[float] = []
        self.agents: set[str] = set()
        self.most_rows: int | None = None
        self.before: Callable[[int], None] = lambda number: None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # a client that hangs up is what is tested
        if context is not None:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.root = f"http://127.0.0.1:{self._http.server_port}"
        self.urls = {
            "simbad": f"{self.root}/simbad",
            "ned": f"{self.root}/ned",
            "vizier": f"{self.root}/vizier",
        }

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def near(self, positions: list[tuple[float, float, float]]) -> list[tuple]:
        """Return the sources near any of the positions (ra, dec, radius in degrees)."""
        return [
            one
            for one in self.sources
            if any(sky.separation_arcsec(ra, dec, *one[:2]) <= reach * 3600 for ra, dec, reach in positions)
        ]

    def answer(self, service: str, rows: list[tuple], *, status: str = "OK") -> bytes:
        """Return rows as the service writes them."""
        columns = COLUMNS[service]
        if self.behavior == "lacks a column":
            columns = columns[:-1] if service != "vizier" else columns[:1] + columns[2:]
        fields = "".join(
            f'<FIELD name="{name}" datatype="{kind}" {TEXT if kind == "char" else ""}/>' for name, kind in columns
        )
        body = "".join(f"<TR>{self._cells(service, columns, row)}</TR>" for row in rows)
        name = "V/147/sdss12" if service == "vizier" else "result"
        table = f'<TABLE name="{name}">{fields}<DATA><TABLEDATA>{body}</TABLEDATA></DATA></TABLE>'
        if self.behavior == "two tables":
            table += table.replace(name, "another")
        if service == "vizier" and not rows:
            table = ""  # as VizieR does
        head = '<!DOCTYPE V [<!ENTITY e "x">]>' if self.behavior == "entity" else ""
        return (
            f'<?xml version="1.0"?>{head}<VOTABLE version="1.4">'
            '<INFO ID="VERSION" name="votable-version" value="1.99"/>'
            f'<RESOURCE type="results"><INFO name="QUERY_STATUS" value="{status}">made to</INFO>{table}'
            + "</RESOURCE></VOTABLE>"
        ).encode()

    def _cells(self, service: str, columns: tuple, row: tuple) -> str:
        ra, dec, name, kind, count = row
        if self.behavior == "no position":
            ra = 999.0
        known = dict(zip(("main_id", "prefname", "objID"), [name] * 3, strict=True))
        known |= {"ra": ra, "dec": dec, "_RAJ2000": ra, "_DEJ2000": dec, "otype": kind, "prefphytype": kind}
        known |= {"nbref": "many" if self.behavior == "cells" else count, "class": kind}
        if self.behavior == "cells" and service != "simbad":
            known |= dict.fromkeys(("dec", "_DEJ2000"), "north")
        return "".join(f"<TD>{escape(str(known[column]))}</TD>" for column, _ in columns)

    def reply(self, service: str, positions: list[tuple] | None, most: int) -> bytes:
        """Return the whole body of an answer; positions None asks for the first row."""
        rows = self.sources[: len(CONTROLS)] if positions is None or self.behavior == "same" else self.near(positions)
        if self.behavior == "lacks all":
            rows = []
        if self.behavior == "other table" and positions is not None:
            rows = [(10.0, 10.0, "elsewhere", "G", 1)] * bool(rows)
        most = min(most, self.most_rows or most)
        if self.behavior == "error":
            return self.answer(service, [], status="ERROR")
        if self.behavior == "overflow":
            return self.answer(service, rows[:1], status="OVERFLOW")
        if positions is not None and len(rows) > most:
            return self.answer(service, rows[:most], status="OVERFLOW")
        return self.answer(service, rows)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                service, positions, most = read_question(self.path, self.headers, content)
                server.arrivals.append(time.monotonic())
                server.agents.add(self.headers["User-Agent"])
                if positions is not None:
                    server.questions.append((service, positions))
                    server.before(len(server.questions))
                self._act(server.reply(service, positions, most))

            def do_GET(self) -> None:  # after a redirect on the same host
                self._send(moved.pop())

            def _act(self, good: bytes) -> None:
                act, half = server.behavior, good[: len(good) // 2]
                acts = {
                    "hang up": self.connection.close,
                    "silent": lambda: time.sleep(server.slow_seconds),
                    "elsewhere": lambda: self._send(b"", status=302, Location="http://localhost:9/tap"),
                    "same host": lambda: (moved.append(good), self._send(b"", status=303, Location="/result")),
                    "page": lambda: self._send(b"<html><body>Service down for maintenance</body></html>"),
                    "json": lambda: self._send(b'{"rows": []}'),
                    "nothing": lambda: self._send(b""),
                    "cut": lambda: self._send(half),
                    "cut stream": lambda: self._send(half, **{"Content-Length": str(len(good))}),
                    "huge": lambda: self._stream(good[:200] + b" " * (1 << 20), repeat=1024, pause=0),
                    "drip": lambda: self._stream(b" ", repeat=1000, pause=0.05, head=good[:100]),
                    "drip head": self._drip_head,
                }
                status = int(act.split()[1]) if act.startswith("status ") else 200
                acts.get(act, lambda: self._send(good, status=status))()

            def _send(self, body: bytes, *, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "Content-Type": "text/xml", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def _stream(self, part: bytes, *, repeat: int, pause: float, head: bytes = b"") -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(head) + len(part) * repeat))
                self.end_headers()
                try:
                    self.wfile.write(head)
                    for _ in range(repeat):
                        self.wfile.write(part)
                        time.sleep(pause)
                except OSError:
                    pass  # the client has had enough
                self.close_connection = True

            def _drip_head(self) -> None:
                try:
                    for letter in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500:
                        self.connection.send(bytes([letter]))
                        time.sleep(0.05)
                except OSError:
                    pass
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        moved: list[bytes] = []
        return Handler


def read_question(path: str, headers, content: bytes) -> tuple[str, list[tuple] | None, int]:
    """Return the service that is meant, the positions it is asked about, and how many rows may come back."""
    if path == "/vizier":
        return "vizier", *read_list(content.decode())
    if headers.get_content_type() == "multipart/form-data":
        text = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + content
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in email.message_from_bytes(text, policy=HTTP).iter_parts()
        }
        assert (
            "TAP_UPLOAD.positions" in parts["QUERY"].get_content()
            and parts["UPLOAD"].get_content().strip() == "positions,param:positions"
        )
        table = votable.parse_single_table(io.BytesIO(parts["positions"].get_payload(decode=True))).array
        return "simbad", [tuple(map(float, row)) for row in table], int(parts["MAXREC"].get_content())
    fields = {name: values[0] for name, values in parse_qs(content.decode()).items()}
    assert fields["REQUEST"] == "doQuery" and fields["LANG"] == "ADQL" and path == "/ned/sync"
    cones = re.findall(r"CIRCLE\('J2000', ([-\d.]+), ([-\d.]+), ([-\d.]+)\)", fields["QUERY"])
    return "ned", [tuple(map(float, cone)) for cone in cones], int(fields["MAXREC"])


def read_list(text: str) -> tuple[list[tuple] | None, int]:
    """Return the positions of a question to VizieR, None where there are none, and how many rows may come back."""
    fields = dict(re.findall(r"^(-[\w.]+)=(.*)$", text, re.MULTILINE))
    assert fields["-source"] == "V/147/sdss12" and "_RAJ2000,_DEJ2000" in fields["-out.add"]
    listed = re.search(r"^-c=<<====(\w+)\n(.*?)\n====\1", text, re.MULTILINE | re.DOTALL)
    if listed is None:
        return None, int(fields["-out.max"])
    reach = float(fields["-c.rs"]) / 3600
    rows = [re.fullmatch(r"([\d.]+)([+-][\d.]+)", line) for line in listed[2].splitlines()]
    return [(float(row[1]), float(row[2]), reach) for row in rows], int(fields["-out.max"])


__all__ = ["BAD", "CONTROLS", "Server"]
