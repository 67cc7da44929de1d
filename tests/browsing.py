"""What tests in a real browser share; importing it skips a module where browser or app are missing."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("streamlit", reason="the app needs streamlit")
_playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")

_spec = importlib.util.spec_from_file_location("screenshot", Path(__file__).parent.parent / "docs" / "screenshot.py")
screenshot = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(screenshot)

MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(screenshot.chromium() is None, reason="browser tests need chromium"),
]
WIDTHS = {"phone": 390, "tablet": 800, "laptop": 1280, "wall": 2000}
WAIT_MS = 60_000  # another process may have the machine
expect = _playwright.expect  # waits until it holds: a page is drawn in parts
expect.set_options(timeout=WAIT_MS)


def is_ours(message) -> bool:
    """Say whether a line of the console is an error, and not Streamlit looking for its server below a page's URL."""
    return message.type == "error" and "/_stcore/" not in message.location.get("url", "")


def watch(page, address: str, wrong: list[str]) -> None:
    """Note in `wrong` what goes wrong in a page, and every request for another place than the app's."""
    page.on("console", lambda message: wrong.append(message.text) if is_ours(message) else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else wrong.append(r.url))
