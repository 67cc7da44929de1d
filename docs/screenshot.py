"""Make the picture of the app in the README: start it on an atlas, search, take the picture.

    python docs/screenshot.py demo/xdf.duckdb --words "edge-on galaxy"

Needs Chromium (Debian: `apt-get install chromium`) and the packages streamlit and playwright. Nothing outside this
machine is reached.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images" / "search.png"
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
def running_app(atlas: Path) -> Iterator[str]:
    """Run the app on a free port of this machine; yield its address."""
    port = free_port()
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
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_up(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


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


def take(address: str, words: str, out: Path, *, pick: int, theme: str) -> None:
    """Search, open the hit number `pick` (0: none), and write what is seen as PNG."""
    with browser() as opened:
        page = opened.new_page(viewport=SIZE, color_scheme=theme)
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        page.get_by_label("Describe a galaxy").fill(words)
        page.keyboard.press("Enter")
        page.locator(".score").first.wait_for()
        if pick:
            page.locator(".tile").nth(pick - 1).click()
            page.locator(".st-key-panel table").wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)
        page.screenshot(path=out)


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
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with running_app(asked.atlas) as address:
        take(address, asked.words, asked.out, pick=asked.pick, theme=asked.theme)
    shrink(asked.out)
    size = asked.out.stat().st_size
    print(f"{asked.out}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(
            f"{asked.out} has {size} bytes, at most {MOST_BYTES} may be committed; make the window smaller"
        )


if __name__ == "__main__":
    main()
