"""Semi-synthetic training pictures: lensing arcs and close pairs, drawn into and out of training galaxies only.

No labeled set has enough lenses or mergers to learn them from: 50 likely lenses, all of one survey, and 76 mergers.
So arcs are injected into early-type training galaxies by the physics of lenses.py, with parameters drawn wider than
those it judges with and from other seeds; the host as it is stays in the training set as what is no lens. A pair is
two training galaxies whose lights overlap, each bent by a tide that grows with the square of the distance. What was
learned from them is semi-synthetic, and cards and tables say so.

Run `python -m export.synthetic` after `split`; it writes synthetic96.npy, synthetic.parquet and
held_arcs64.npy into the cache folder.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import map_coordinates

from export import lenses
from export.lenses import STRETCH, Arc, inject, is_host
from export.prepare import MODEL_PX, STORE_PX, cache_folder
from galsearch.science import images

SEED = 104_729  # far from those that lenses.py draws what it judges with
PER_HOST, PAIRS = 3, 3000
WIDER = {  # than the ranges of lenses.py, whose names these are
    "EINSTEIN": (0.05, 0.21),
    "AXIS_RATIO": (0.5, 0.98),
    "OFFSET": (0.0, 0.8),
    "SOURCE_RADIUS": (0.07, 0.45),
    "SOURCE_RATIO": (0.3, 1.0),
    "FLUX": (0.06, 0.80),
    "GREEN": (0.9, 1.8),
    "BLUE": (0.9, 3.0),
    "FWHM": (0.008, 0.040),
}
PAIR_SETS = ("gz1",)  # of one survey, one stretch and one scale
SEPARATION = (0.06, 0.20)  # of the two centers, as a share of the frame's side
SHRINK = (0.6, 1.0)  # of each galaxy, so that both are in the frame
SHARE = (0.35, 1.0)  # light of the second over the first, each at its own brightness before
TIDE = (0.0, 0.5)  # bend in radians at a quarter of the frame from the center
REACH = 0.30  # of a galaxy, as a share of the side: what is farther out is left away, lest the tide draw it out


def draw_wider(random: np.random.Generator) -> Arc:
    """Return a lens drawn evenly from the wider ranges."""
    kept = {name: getattr(lenses, name) for name in WIDER}
    try:
        vars(lenses).update(WIDER)
        return lenses.draw_arc(random)
    finally:
        vars(lenses).update(kept)


def linear(rgb: np.ndarray) -> np.ndarray:
    """Return light above the sky, `(s, s, 3)` float, of a picture in an asinh stretch."""
    light = np.sinh(rgb / 255 * np.arcsinh(STRETCH)) / STRETCH
    border = np.concatenate([light[:3].reshape(-1, 3), light[-3:].reshape(-1, 3)])
    return light - np.median(border, axis=0)


def stretched(light: np.ndarray) -> np.ndarray:
    """Return uint8 of light, the inverse of `linear` but for the sky."""
    return np.rint(255 * np.clip(np.arcsinh(STRETCH * light) / np.arcsinh(STRETCH), 0, 1)).astype(np.uint8)


def moved(light: np.ndarray, center: np.ndarray, *, shrink: float, angle: float, tide: float) -> np.ndarray:
    """Return light turned, shrunk, put at `center` (shares of the side from the middle) and wound up by a tide.

    The bend is by `tide` radians at a quarter of the side and grows with the square of the distance.
    """
    size = len(light)
    axis = (np.arange(size) + 0.5) / size - 0.5
    x, y = np.meshgrid(axis, axis)
    x, y = (x - center[0]) / shrink, (y - center[1]) / shrink
    radius = np.hypot(x, y)
    u, v = lenses.turned(x, y, angle + tide * (radius / 0.25) ** 2)
    places = [(v + 0.5) * size - 0.5, (u + 0.5) * size - 0.5]
    near = 1 / (1 + np.exp((radius - REACH) / 0.02))
    return near[..., None] * np.stack([map_coordinates(light[..., band], places, order=1) for band in range(3)], axis=2)


def pair(first: np.ndarray, second: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a picture `(s, s, 3) uint8` of two galaxies that touch; the sky is that of the first."""
    separation, way = random.uniform(*SEPARATION), random.uniform(0, 2 * np.pi)
    step = separation * np.array([np.cos(way), np.sin(way)])
    tide = random.uniform(*TIDE) * random.choice([-1, 1])
    parts = [
        moved(linear(rgb), place, shrink=random.uniform(*SHRINK), angle=random.uniform(0, 2 * np.pi), tide=bend)
        for rgb, place, bend in ((first, -step / 2, tide), (second, step / 2, tide * random.uniform(0, 1)))
    ]
    light = parts[0] + random.uniform(*SHARE) * np.maximum(parts[1], 0)
    sky = np.sinh(first / 255 * np.arcsinh(STRETCH)) / STRETCH
    level = np.median(np.concatenate([sky[:3].reshape(-1, 3), sky[-3:].reshape(-1, 3)]), axis=0)
    grain = random.normal(0, 0.006, light.shape)  # what shrinking took from the noise of the sky
    return stretched(light + level + grain)


def one_lens(task: tuple[int, int], *, path: Path) -> tuple[np.ndarray, dict]:
    """Return a host with arcs and what was drawn."""
    host, seed = task
    arc = draw_wider(np.random.default_rng(seed))
    return inject(np.array(np.load(path, mmap_mode="r")[host]), arc), asdict(arc)


def one_pair(task: tuple[int, int, int], *, path: Path) -> np.ndarray:
    """Return a pair of two stored pictures."""
    first, second, seed = task
    pixels = np.load(path, mmap_mode="r")
    return pair(np.array(pixels[first]), np.array(pixels[second]), np.random.default_rng(seed))


def split_rows(folder: Path) -> tuple[list[dict], np.ndarray]:
    """Return every object and the names of their splits, (n,)."""
    splits = pq.read_table(folder / "splits.parquet", columns=["split"])["split"].to_pylist()
    return pq.read_table(folder / "objects.parquet").to_pylist(), np.array(splits)


def may_pair(row: dict) -> bool:
    """Say whether a galaxy may be one of a pair: alone as far as its labels say."""
    lone = float(row.get("Multiplicity") or 0) == 0 and row.get("gz1_class") not in ("merger", "dont_know")
    return row["set"] in PAIR_SETS and lone and row["m_axis_ratio"] is not None


def held_arcs(rows: list[dict], splits: np.ndarray) -> np.ndarray:
    """Return validation hosts with arcs, `(n, MODEL_PX, MODEL_PX, 3)`, drawn and made as lenses.py does.

    Training stops and chooses by them; those of the test part are of other hosts and other seeds.
    """
    random, found = np.random.default_rng(SEED + 1), []
    for place in np.flatnonzero(splits == "validation").tolist():
        if is_host(rows[place]):
            rgb = images.square(np.asarray(Image.open(rows[place]["path"]).convert("RGB")))
            found.append(images.model_input([inject(rgb, lenses.draw_arc(random))], MODEL_PX)[0])
    return np.stack(found)


def main() -> None:
    """Write the pictures and, row for row, what they were made of."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sheet", type=Path, help="write the first 60 of either kind as a picture")
    sheet = arguments.parse_args().sheet
    folder, random = cache_folder(), np.random.default_rng(SEED)
    rows, splits = split_rows(folder)
    train = splits == "train"
    hosts = [place for place in np.flatnonzero(train).tolist() if is_host(rows[place])]
    singles = [place for place in np.flatnonzero(train).tolist() if may_pair(rows[place])]
    lens_tasks = [(host, SEED + PER_HOST * host + turn) for host in hosts for turn in range(PER_HOST)]
    pairs = random.choice(singles, (PAIRS, 2))
    pair_tasks = [(int(first), int(second), SEED * 7 + number) for number, (first, second) in enumerate(pairs)]
    path = folder / "images96.npy"
    with ProcessPoolExecutor(2) as pool:
        arcs = list(pool.map(partial(one_lens, path=path), lens_tasks, chunksize=64))
        close = list(pool.map(partial(one_pair, path=path), pair_tasks, chunksize=64))
    table = [
        {"kind": "lens", "of": host, "with": None, **drawn}
        for (host, _), (_, drawn) in zip(lens_tasks, arcs, strict=True)
    ]
    table += [{"kind": "pair", "of": first, "with": second} for first, second, _ in pair_tasks]
    pictures = np.stack([picture for picture, _ in arcs] + close)
    np.save(folder / "synthetic96.npy", pictures)
    np.save(folder / "held_arcs64.npy", held_arcs(rows, splits))
    columns = {name: [row.get(name) for row in table] for name in table[0]}
    pq.write_table(pa.table(columns), folder / "synthetic.parquet")
    if sheet:
        shown = [pictures[:: len(arcs) // 60][:60], pictures[len(arcs) :][:60]]
        tiles = np.concatenate(shown).reshape(10, 12, STORE_PX, STORE_PX, 3).swapaxes(1, 2)
        Image.fromarray(tiles.reshape(10 * STORE_PX, 12 * STORE_PX, 3)).save(sheet)
    print(f"{len(arcs)} lenses of {len(hosts)} hosts, {len(close)} pairs of {len(singles)} galaxies", file=sys.stderr)


if __name__ == "__main__":
    main()
