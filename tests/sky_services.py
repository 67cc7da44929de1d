"""A server on loopback that speaks as cut-out services do: Legacy Survey, SDSS, Pan-STARRS, hips2fits; faults too.

    with SkyServices() as sky:
        sky.address("legacy"), sky.requests

A picture depends on the position alone, so that two requests for one position give the same bytes. `fault` takes a
request (`Sent`) and returns a `Fault`, or None for a good answer; `outside` says which positions lie off the footprint.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from PIL import Image

FILTERS = "grizy"


@dataclass(frozen=True)
class Sent:
    """A request: its number, from 1, the path, the parameters, the headers, and when it came."""

    number: int
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float

    @property
    def position(self) -> tuple[float, float]:
        """Right ascension and declination."""
        return float(self.query["ra"]), float(self.query["dec"])


@dataclass(frozen=True)
class Fault:
    """What is answered instead: a status, headers and content; `share` of it is sent, slowly, or after a wait."""

    status: int = 200
    content: bytes | None = None  # None: the good answer
    headers: dict[str, str] = field(default_factory=dict)
    share: float = 1.0  # of the content that is announced
    wait_seconds: float = 0.0
    drip_seconds: float = 0.0  # between its bytes


def picture(ra: float, dec: float, pixels: int) -> np.ndarray:
    """Return the picture of a position, `(n, n, 3) uint8`: a smooth galaxy with noise of its own."""
    rng = np.random.default_rng([int(ra * 1e6) % 2**32, int((dec + 90) * 1e6)])
    y, x = np.mgrid[:pixels, :pixels] / pixels - 0.5
    angle, ratio, size = rng.uniform(0, np.pi), rng.uniform(0.3, 1), rng.uniform(0.04, 0.12)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = 200 * np.exp(-np.hypot(along, across / ratio) / size)
    tint = rng.uniform(0.6, 1.0, 3)
    return np.clip(light[..., None] * tint + rng.normal(12, 4, (pixels, pixels, 3)), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    """Return an array as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def fits(values: np.ndarray) -> bytes:
    """Return an array as a FITS file of one image."""
    from astropy.io import fits as astropy_fits

    file = io.BytesIO()
    astropy_fits.PrimaryHDU(values.astype(np.float32)).writeto(file)
    return file.getvalue()


class SkyServices:
    """The server; `requests` is everything that was sent to it."""

    def __init__(
        self,
        fault: Callable[[Sent], Fault | None] = lambda _: None,
        *,
        outside: Callable[[float, float], bool] = lambda ra, dec: False,
    ) -> None:
        self.fault, self.outside = fault, outside
        self.requests: list[Sent] = []
        self.posted: list[dict] = []
        self.post_status = 200
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> SkyServices:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def address(self, service: str) -> str:
        """Return the base URL of a service."""
        paths = {"legacy": "/viewer", "sdss": "", "panstarrs": "/cgi-bin", "hips": "/hips-image-services/hips2fits"}
        return self.url + paths[service]

    def pictures(self) -> list[Sent]:
        """Return the requests for pictures."""
        return [one for one in self.requests if not one.path.endswith("ps1filenames.py")]

    def answer(self, sent: Sent) -> tuple[int, str, bytes]:
        """Return status, media type and content as the service would."""
        if sent.path in ("/viewer/cutout.jpg", "/viewer/cutout.fits"):
            return self._legacy(sent)
        if sent.path.endswith("/SkyServerWS/ImgCutout/getjpeg"):
            return self._sdss(sent)
        if sent.path == "/cgi-bin/ps1filenames.py":
            return self._filenames(sent)
        if sent.path == "/cgi-bin/fitscut.cgi":
            return self._fitscut(sent)
        if sent.path == "/hips-image-services/hips2fits":
            return self._hips(sent)
        return 404, "text/html", b"<html><body>no such page</body></html>"

    def _legacy(self, sent: Sent) -> tuple[int, str, bytes]:
        size = int(sent.query["size"])
        if sent.path.endswith(".fits"):
            if self.outside(*sent.position):
                return 404, "text/plain", b"No overlapping images found"
            values = picture(*sent.position, size).astype(np.float32).transpose(2, 0, 1)
            return 200, "image/fits", fits(values[: len(sent.query["bands"])] / 255)
        if self.outside(*sent.position):
            return 200, "image/jpeg", jpeg(np.full((size, size, 3), 32, np.uint8))
        return 200, "image/jpeg", jpeg(picture(*sent.position, size))

    def _sdss(self, sent: Sent) -> tuple[int, str, bytes]:
        width = int(sent.query["width"])
        if not 64 <= width <= 2048:
            return 400, "text/plain", b"width is limited to [64..2048]"
        if self.outside(*sent.position):
            return 404, "text/plain", b"Error: Requested (ra, dec) is outside the SDSS footprint. Continue..."
        return 200, "image/jpeg", jpeg(picture(*sent.position, width))

    def _filenames(self, sent: Sent) -> tuple[int, str, bytes]:
        lines = ["projcell subcell ra dec filter mjd type filename shortname badflag"]
        if not self.outside(*sent.position):
            ra, dec = sent.position
            lines += [
                f"1 2 {ra} {dec} {name} 0 stack /rings.v3.skycell/1/2/stk.{name}.unconv.fits stk.{name}.fits 0"
                for name in sent.query["filters"]
            ]
        return 200, "text/plain", ("\n".join(lines) + "\n").encode()

    def _fitscut(self, sent: Sent) -> tuple[int, str, bytes]:
        if not sent.query.get("red", "").startswith("/rings"):
            return 400, "text/html", b"<html>Error: no input file</html>"
        if sent.query["format"] == "fits":
            return 200, "image/fits", fits(picture(*sent.position, int(sent.query["size"]))[..., 0])
        return 200, "image/jpeg", jpeg(picture(*sent.position, int(sent.query["output_size"])))

    def _hips(self, sent: Sent) -> tuple[int, str, bytes]:
        if not sent.query["hips"].startswith("CDS/"):
            return 404, "application/json", b'{"title": "Bad Request", "description": "HiPS not found"}'
        size, away = int(sent.query["width"]), self.outside(*sent.position)
        if sent.query["format"] == "fits":
            values = np.full((size, size), np.nan) if away else picture(*sent.position, size)[..., 0]
            return 200, "image/fits", fits(values)
        return 200, "image/jpeg", jpeg(np.zeros((size, size, 3), np.uint8) if away else picture(*sent.position, size))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        services = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                with services._lock:
                    number = len(services.requests) + 1
                    sent = Sent(number, parts.path, dict(parse_qsl(parts.query)), dict(self.headers), time.monotonic())
                    services.requests.append(sent)
                fault = services.fault(sent)
                status, kind, content = services.answer(sent)
                if fault is not None:
                    time.sleep(fault.wait_seconds)
                    status, content = fault.status, content if fault.content is None else fault.content
                self.send_response(status)
                headers = {"Content-Type": kind, "Content-Length": str(len(content))}
                for name, value in {**headers, **(fault.headers if fault else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self._send(content, fault)

            def _send(self, content: bytes, fault: Fault | None) -> None:
                if fault is None:
                    self.wfile.write(content)
                    return
                part = content[: int(len(content) * fault.share)]
                try:
                    for start in range(0, len(part), 1 if fault.drip_seconds else len(part) or 1):
                        self.wfile.write(part[start : start + (1 if fault.drip_seconds else len(part))])
                        self.wfile.flush()
                        time.sleep(fault.drip_seconds)
                except OSError:
                    pass  # whoever asked has had enough
                self.close_connection = len(part) < len(content) or self.close_connection

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if services.post_status == 200:
                    services.posted.append(json.loads(content))
                self.send_response(services.post_status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
