"""Make the pictures of the pages Spectra and Knowledge, of drawn spectra alone, and the tiny encoder of the tests.

    python docs/screenshot_spectra.py            # docs/images/spectra.png, docs/images/knowledge.png

Needs what `docs/screenshot.py` needs, and onnx.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import screenshot

import galsearch

sys.path.insert(0, str(screenshot.ROOT / "tests"))
from spectrum_files import sdss
from tiny_spectra import write_tiny_spectrum_model

WAVELENGTH = 10 ** np.arange(np.log10(3800), np.log10(9200), 1e-4)  # observed, vacuum
EMISSION = {3728.5: 1.2, 3869.9: 0.2, 4341.7: 0.35, 4862.7: 0.8, 6564.6: 2.4, 6718.3: 0.5, 6732.7: 0.4}
ABSORPTION = {3934.8: 0.5, 3969.6: 0.5, 4102.9: 0.2, 4305.6: 0.25, 5176.6: 0.3, 5894.6: 0.2}
OBJECTS = 80
SHOWN, OTHERS = "drawn-030", ("drawn-007", "drawn-011")
VOTES = {"of": "ids", "ids": "\n".join((SHOWN, *OTHERS)), "k": "5"}  # what the URL of the page Knowledge says


def ratios(rng: np.random.Generator) -> tuple[float, float]:
    """Return log [N II]/Hα and log [O III]/Hβ of young stars, or of an active nucleus."""
    if rng.random() < 0.35:
        return float(rng.uniform(-0.15, 0.2)), float(rng.uniform(0.4, 1.0))
    nii = float(rng.uniform(-1.0, -0.35))
    return nii, 0.61 / (nii - 0.05) + 1.3 - float(rng.uniform(0.1, 0.4))


def flux_of(rng: np.random.Generator, z: float, young: float) -> np.ndarray:
    """Return a made-up galaxy: a continuum with a break at 4000 Å, lines by how `young` it is (0 to 1), and noise."""
    nii, oiii = (10**ratio for ratio in ratios(rng))
    forbidden = {6585.3: 2.4 * nii, 6549.9: 2.4 * nii / 3.05, 5008.2: 0.8 * oiii, 4960.3: 0.8 * oiii / 2.98}
    rest = WAVELENGTH / (1 + z)
    level = (rest / 5500) ** (0.9 - 1.8 * young) * (1 - (0.5 - 0.4 * young) / (1 + np.exp((rest - 4000) / 25)))
    for line, depth in ABSORPTION.items():
        level = level * (1 - (1 - 0.7 * young) * depth * np.exp(-0.5 * ((rest - line) / 9) ** 2))
    for line, height in (EMISSION | forbidden).items():
        level = level + 2 * young**2 * height * np.exp(-0.5 * ((rest - line) / 4) ** 2)
    return 20 * level + rng.normal(scale=0.9, size=len(rest))


def build(folder: Path) -> Path:
    """Write spectra as SDSS has them, some pixels without data; return the bundle of an atlas of them with a base."""
    rng = np.random.default_rng(7)
    (folder / "spectra").mkdir()
    rows = ["object_id,ra,dec,z,mag_r"]
    for number in range(OBJECTS):
        z, young = float(rng.uniform(0.01, 0.25)), float(rng.beta(0.8, 0.8))
        ivar = np.full(len(WAVELENGTH), 0.9**-2)
        ivar[2100 + number : 2125 + number] = 0
        content = sdss(loglam=np.log10(WAVELENGTH), flux=flux_of(rng, z, young), ivar=ivar, z=z)
        (folder / "spectra" / f"drawn-{number:03d}.fits").write_bytes(content)
        ra, dec, mag = rng.uniform(149, 151), rng.uniform(1, 3), rng.uniform(15, 18)
        rows.append(f"drawn-{number:03d},{ra:.5f},{dec:.5f},{z:.5f},{mag:.2f}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    models = write_tiny_spectrum_model(folder / "models").parent
    atlas, table = folder / "drawn.atlas", folder / "table.csv"
    galsearch.build(atlas, spectra=folder / "spectra", table=table, models=models, title="Drawn spectra")
    select = "SELECT object_id, bpt_class FROM galaxies WHERE bpt_class IS NOT NULL"
    galsearch.create_base(atlas, "activity", select, columns=["z", "bpt_class"])
    return galsearch.bundle(atlas, folder / "drawn.duckdb")


def main() -> None:
    """Write the pictures."""
    paths = {name: screenshot.OUT / f"{name}.png" for name in ("spectra", "knowledge")}
    with (
        tempfile.TemporaryDirectory() as folder,
        screenshot.running_app(build(Path(folder))) as address,
        screenshot.browser() as opened,
    ):
        page = opened.new_page(viewport={"width": 1280, "height": 1180}, color_scheme="light")
        page.set_default_timeout(screenshot.WAIT_MS)
        for name, path in paths.items():
            screenshot.open_page(page, address, name, object=SHOWN, **(VOTES if name == "knowledge" else {}))
            page.wait_for_timeout(2500)
            page.screenshot(path=path)
    for path in paths.values():
        screenshot.shrink(path)
        size = path.stat().st_size
        print(f"{path}: {size / 1000:.0f} kB")
        if size > screenshot.MOST_BYTES:
            raise SystemExit(f"{path} has {size} bytes, at most {screenshot.MOST_BYTES} may be committed")


if __name__ == "__main__":
    main()
