"""Make the pictures of the pages Identify and Status, of drawn galaxies alone.

    python docs/screenshot_discovery.py            # docs/images/identify.png, docs/images/status.png

Needs what `docs/screenshot.py` needs, and the extra watch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import screenshot
from PIL import Image

import galsearch

SIDE, GALAXIES, LISTED = 128, 72, 24
PLAN = """title = "Drawn galaxies"
workspace = "drawn.watch"
budget = 12
free_gb = 0
[[source]]
name = "incoming"
kind = "folder"
path = "cutouts"
"""


def draw(seed: int) -> np.ndarray:
    """Return a made-up galaxy, `(128, 128, 3) uint8`: a disk with a bulge, arms or a ring, among stars."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    turn = rng.uniform(0, np.pi)
    y, x = np.cos(turn) * rows + np.sin(turn) * columns, np.cos(turn) * columns - np.sin(turn) * rows
    ratio, size = rng.uniform(0.25, 1.0), rng.uniform(7, 15)
    radius = np.hypot(x, y / ratio)
    disk = 170 * np.exp(-radius / size)
    if seed % 4 in (1, 2):
        winding = np.arctan2(y / ratio, x) - np.log(radius + 3) * rng.uniform(2, 3)
        disk = disk * (1 + 0.7 * np.cos(2 * winding) * (radius > 5))
    if seed % 4 == 3:
        disk = 0.35 * disk + 130 * np.exp(-(((radius - 22) / 3.5) ** 2))
    inner = np.exp(-radius / 24)[..., None]
    color = inner * rng.uniform((0.8, 0.8, 0.6), (1, 0.95, 1)) + (1 - inner) * np.array([0.7, 0.85, 1.15])
    light = (disk + 120 * np.exp(-((radius / 3) ** 2)))[..., None] * color
    for _ in range(rng.integers(1, 6)):
        at, width = rng.uniform(-SIDE / 2, SIDE / 2, 2), rng.uniform(4, 12)
        star = np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / width)
        light = light + rng.uniform(60, 230) * star[..., None] * rng.uniform(0.7, 1, 3)
    return np.clip(light + 12 + rng.normal(0, 5, light.shape), 0, 255).astype(np.uint8)


def build(folder: Path) -> Path:
    """Write cutouts, a table with positions and a catalog of some of them; return their atlas."""
    (folder / "cutouts").mkdir()
    rng = np.random.default_rng(5)
    rows, known = ["object_id,ra,dec,mag_r"], ["name,ra,dec,type"]
    for number in range(GALAXIES):
        name = f"drawn-{number:03d}"
        Image.fromarray(draw(number)).save(folder / "cutouts" / f"{name}.png")
        ra, dec = 150 + rng.uniform(0, 0.5), 2 + rng.uniform(0, 0.5)
        rows.append(f"{name},{ra:.6f},{dec:.6f},{rng.uniform(14, 20):.2f}")
        if number % 3 == 0:
            known.append(f"RING {number},{ra + 0.0001:.6f},{dec:.6f},{'ring' if number % 2 else 'galaxy'}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "rings.csv").write_text("\n".join(known) + "\n")
    (folder / "plan.toml").write_text(PLAN)
    galsearch.build(
        folder / "drawn.atlas", images=folder / "cutouts", table=folder / "table.csv", title="Drawn galaxies"
    )
    return folder / "drawn.atlas"


def take_identify(page: object, address: str) -> None:
    """Look the first objects up in the catalog, and select one that is known."""
    screenshot.open_page(page, address, "identify", kind="ring")
    page.locator(".st-key-identify_catalogs input").click()
    page.get_by_role("option", name="rings.csv").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Look up {LISTED} objects").click()
    tile = page.locator(".st-key-identify_gallery .tile").nth(3)
    tile.click()
    screenshot.settle(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)


def main() -> None:
    """Take both pictures."""
    with tempfile.TemporaryDirectory() as home, screenshot.browser() as opened:
        folder = Path(home)
        atlas = build(folder)
        galsearch.watch(folder / "plan.toml")
        page = opened.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(screenshot.WAIT_MS)
        with screenshot.running_app(atlas) as address:
            take_identify(page, address)
            page.screenshot(path=screenshot.OUT / "identify.png")
        with screenshot.running_app(folder / "drawn.watch" / "sky.atlas") as address:
            screenshot.open_page(page, address, "status")
            page.wait_for_timeout(1500)
            box = page.get_by_label("Plan or workspace")
            box.evaluate("box => { box.value = 'drawn.watch' }")  # not the folder of this run of the script
            page.screenshot(path=screenshot.OUT / "status.png")
    for name in ("identify", "status"):
        path = screenshot.OUT / f"{name}.png"
        screenshot.shrink(path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
