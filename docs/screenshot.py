"""Make the pictures of the app: start it on an atlas, go to a page, take the picture.

    python docs/screenshot.py demo/xdf.duckdb                               # docs/images/: those of the README
    python docs/screenshot.py demo/xdf.duckdb --every /tmp/pages            # every page, three widths, light and dark

Needs Chromium (Debian: `apt-get install chromium`) and the packages streamlit and playwright. Nothing outside this
machine is reached.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import IO
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images"
BESIDE = ("map", "object")  # pages with a picture in the README, after the search
WIDTHS = {"phone": (400, 860), "laptop": (1280, 860), "wall": (2000, 1200)}
THEMES = ("light", "dark")
SIZE = {"width": 1280, "height": 860}
START_SECONDS, WAIT_MS = 60, 30_000
MOST_BYTES = 400_000  # the picture is committed: git keeps every version
BROWSER_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def running_app(atlas: Path, *, variables: dict[str, str] | None = None, log: IO[bytes] | None = None) -> Iterator[str]:
    """Run the app on a free port of this machine; yield its address. `variables` are added to the environment."""
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
    options = {
        "server.port": port,
        "server.address": "127.0.0.1",
        "server.headless": "true",
        "server.fileWatcherType": "none",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(ROOT / "streamlit_app" / "app.py"),
        *flags,
        "--",
        str(atlas),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log or subprocess.DEVNULL, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def private_app(atlas: Path) -> Iterator[str]:
    """Run the app on a copy of a bundle, since marks are written beside it; yield its address."""
    with tempfile.TemporaryDirectory() as folder, running_app(Path(shutil.copy(atlas, folder))) as address:
        yield address


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_up(address: str, process: subprocess.Popen) -> None:
    """Return when the app answers; RuntimeError when it ends or takes longer than START_SECONDS."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), direct.open(f"{address}/_stcore/health", timeout=2):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the app did not answer at {address} within {START_SECONDS} s (exit {process.poll()})")


def chromium() -> str | None:
    """Return the browser to use: CHROMIUM, or the one on the path."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator:
    """Run a headless Chromium that talks to this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(BROWSER_ARGUMENTS))
        yield opened
        opened.close()


def take_search(page: object, address: str, words: str, *, pick: int) -> None:
    """Search, and open the hit number `pick` (0: none)."""
    page.goto(address)
    page.get_by_label("Describe a galaxy").fill(words)
    page.keyboard.press("Enter")
    page.locator(".score").first.wait_for()
    if pick:
        page.locator(".tile").nth(pick - 1).click()
        page.locator(".st-key-panel table").wait_for()
    page.mouse.move(0, 0)


def take(address: str, out: Path, *, words: str, pick: int, object_id: str, theme: str) -> list[Path]:
    """Write the pictures of the README as PNG; return them."""
    known, paths = views(words, object_id), []
    with browser() as opened:
        page = opened.new_page(viewport=SIZE, color_scheme=theme)
        page.set_default_timeout(WAIT_MS)
        for name in ("search", *BESIDE):
            if name == "search":
                take_search(page, address, words, pick=pick)
            else:
                open_page(page, address, known[name][0], **known[name][1])
            page.wait_for_timeout(1500)
            paths.append(out / f"{name}.png")
            page.screenshot(path=paths[-1])
    return paths


def open_page(page: object, address: str, name: str = "", **said: str) -> None:
    """Go to a page of the app, and wait until it is drawn."""
    page.goto(f"{address}/{name}?{urlencode(said)}" if said else f"{address}/{name}")
    page.locator(".galsearch-title").wait_for()
    settle(page)


def settle(page: object) -> None:
    """Return when the app has drawn all of its answer."""
    for _ in range(2):  # it also says so before it begins
        page.wait_for_timeout(500)
        page.locator('[data-test-script-state="notRunning"]').wait_for()


def views(words: str, object_id: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Return what is worth a picture: name -> (page, what its URL says)."""
    asked = {"query": json.dumps({"terms": [{"kind": "text", "value": words, "weight": 1.0}]})}
    long = {"kind": "text", "value": f"nearby {words} without a bar", "weight": 1.0}
    cut = {"query": json.dumps({"terms": [long], "where": "axis_ratio < 0.5"})}
    return {
        "start": ("", {}),
        "search": ("", asked),
        "understood": ("", cut),
        "beside": ("", asked | {"object": object_id}),
        "table": ("", asked | {"view": "Table"}),
        "empty": ("", {"query": json.dumps({"terms": [], "where": "axis_ratio > 9"})}),
        "object": ("object", asked | {"object": object_id}),
        "sql": ("sql", asked),
        "sql-error": ("sql", {"sql": "SELECT nope FROM galaxies"}),
        "map": ("map", asked),
        "evaluate": ("evaluate", {}),
        "captions": ("captions", {}),
        "rerank": ("rerank", asked),
        "build": ("build", {}),
        "collections": ("collections", {}),
        "about": ("about", {}),
    }


def take_every(address: str, folder: Path, *, words: str, object_id: str, names: list[str]) -> None:
    """Write each page at three widths, light and dark, as PNG; `names` chooses some, pages without a view by name."""
    known = views(words, object_id)
    known |= {name: (name, {}) for name in names if name not in known}
    with browser() as opened:
        for theme, (width, (across, down)) in product(THEMES, WIDTHS.items()):
            page = opened.new_page(viewport={"width": across, "height": down}, color_scheme=theme)
            page.set_default_timeout(WAIT_MS)
            for name in names or known:
                open_page(page, address, known[name][0], **known[name][1])
                page.wait_for_timeout(800)
                page.screenshot(path=folder / f"{name}-{width}-{theme}.png")
            page.close()


def shrink(path: Path) -> None:
    """Store the picture with a palette of 256 colors, dithered so that no steps show in the galaxies."""
    from PIL import Image

    with Image.open(path) as picture:
        full = picture.convert("RGB")
    palette = full.quantize(256, kmeans=2)
    full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def main() -> None:
    """Take the picture that the arguments describe."""
    parser = argparse.ArgumentParser(description="Make the picture of the app in the README.")
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--words", default="edge-on galaxy")
    parser.add_argument("--pick", type=int, default=1, help="hit to open beside the gallery, from 1; 0 for none")
    parser.add_argument("--theme", choices=THEMES, default="light")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the pictures of the README")
    parser.add_argument("--object", default="xdf-0015", help="the object whose page is shown")
    parser.add_argument("--every", type=Path, help="write every page at three widths in both themes into this folder")
    parser.add_argument("--only", nargs="*", default=[], help="of --every: names of views or pages")
    asked = parser.parse_args()
    folder = asked.every or asked.out
    folder.mkdir(parents=True, exist_ok=True)
    with private_app(asked.atlas) as address:
        if asked.every:
            take_every(address, folder, words=asked.words, object_id=asked.object, names=asked.only)
            return
        chosen = {"words": asked.words, "pick": asked.pick, "object_id": asked.object, "theme": asked.theme}
        paths = take(address, folder, **chosen)
    for path in paths:
        shrink(path)
        size = path.stat().st_size
        print(f"{path}: {size / 1000:.0f} kB")
        if size > MOST_BYTES:
            raise SystemExit(f"{path} has {size} bytes, at most {MOST_BYTES} may be committed; make the window smaller")


if __name__ == "__main__":
    main()
