"""Read the training sets once: pixels to two memory maps, labels and measurements to one table.

Run `python -m export.prepare` (env GALSEARCH_DATA names the folder of the sets, GALSEARCH_CACHE where to write).
"""

import csv
import io
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sep
from PIL import Image

from galsearch.science import images

STORE_PX = 96  # training samples its 64 px views from this, so that a zoom of 1.5 still has real pixels
MODEL_PX = 64  # what the encoder sees; morphology down to a bar survives, and it is 2.3x cheaper than 96
SETS = ("efigi", "gz1", "phys449", "spacewarps", "esahubble")
KEYS = {"efigi": "PGC", "gz1": "dr7objid", "phys449": "dr7objid", "spacewarps": "name", "esahubble": "esa_id"}


def data_folder() -> Path:
    """Return the folder of the training sets, named by the environment variable GALSEARCH_DATA."""
    folder = os.environ.get("GALSEARCH_DATA")
    if not folder:
        raise SystemExit("GALSEARCH_DATA is not set: point it at the folder that holds galaxies/ and catalogs/")
    return Path(folder)


def cache_folder() -> Path:
    """Return (and make) the folder for caches and checkpoints: GALSEARCH_CACHE, or one in the user's cache."""
    folder = Path(os.environ.get("GALSEARCH_CACHE", Path.home() / ".cache" / "galsearch-training"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def border_pixels(image: np.ndarray) -> np.ndarray:
    """Return the outermost three rows and columns of (s, s, b) as (n, b)."""
    sides = [image[:3], image[-3:], image[:, :3].swapaxes(0, 1), image[:, -3:].swapaxes(0, 1)]
    return np.concatenate(sides).reshape(-1, image.shape[2])


def measure(image: np.ndarray) -> dict[str, float | None]:
    """Measure the central object of a square cutout (s, s, 3) uint8.

    Shape comes from second moments of the segment under the center (sep); None where the object
    is not found or runs over the edge. `red` is log2 of the red over the blue flux above background
    and is a property of this rendering, not a calibrated color.
    """
    pixels = image.astype(np.float32)
    border = border_pixels(pixels)
    background = np.minimum(np.median(border, axis=0), np.percentile(pixels, 10, axis=(0, 1)))
    light = np.ascontiguousarray((pixels - background).mean(axis=2))
    noise = max(1.4826 * float(np.median(np.abs(light - np.median(light)))) if light.std() > 0 else 1.0, 1.5)
    noise = min(noise, max(1.5, float(light.max()) / 12))
    objects, segments = sep.extract(light, 2.0, err=noise, minarea=12, segmentation_map=True, deblend_cont=0.02)
    result = dict.fromkeys(("axis_ratio", "half_light", "concentration", "red", "peak", "surface", "area", "noise"))
    result["noise"] = noise
    index = _central(objects, image.shape[0])
    if index is None:
        return result
    mine = segments == index + 1
    return result | _measure_segment(objects[index], mine, pixels - background, light)


def _central(objects: np.ndarray, size_px: int) -> int | None:
    """Return the index of the detection nearest the center, None where none is within a fifth of the frame."""
    if len(objects) == 0:
        return None
    middle = (size_px - 1) / 2
    distance = np.hypot(objects["x"] - middle, objects["y"] - middle)
    reach = distance - np.minimum(objects["b"], size_px / 8)
    index = int(np.argmin(reach))
    return index if distance[index] < size_px / 5 + objects["b"][index] else None


def _measure_segment(found: np.void, mine: np.ndarray, flux: np.ndarray, light: np.ndarray) -> dict[str, float | None]:
    """Measure one segment: colors, surface brightness, and shape where the segment is inside the frame."""
    size_px = mine.shape[0]
    sums = np.maximum(flux[mine].sum(axis=0), 1e-3)
    touching = mine[0].sum() + mine[-1].sum() + mine[:, 0].sum() + mine[:, -1].sum()
    inside = touching < 0.1 * size_px
    reach = max(4.0, 3.0 * float(found["a"]))
    radii, _ = sep.flux_radius(light, [found["x"]], [found["y"]], [reach], [0.5, 0.9], subpix=3)
    half, ninety = (float(value) for value in radii[0])
    return {
        "axis_ratio": float(found["b"] / max(found["a"], 1e-6)) if inside else None,
        "half_light": half / size_px if inside and half > 0 else None,
        "concentration": half / ninety if inside and ninety > 0 else None,
        "red": float(np.clip(np.log2(sums[0] / sums[2]), -4, 4)),
        "peak": float(light[mine].max()) / 255,
        "surface": float(light[mine].mean()) / 255,
        "area": float(mine.mean()),
    }


def read_one(source: bytes | str) -> tuple[np.ndarray, np.ndarray, dict[str, float | None]]:
    """Decode one picture: (STORE_PX store, MODEL_PX model input, measurements)."""
    picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB")
    rgb = np.asarray(picture)
    store = images.model_input([rgb], STORE_PX)[0]  # the very function that galsearch prepares pictures with
    return store, images.model_input([rgb], MODEL_PX)[0], measure(store)


def labeled_rows(folder: Path) -> Iterator[dict]:
    """Yield one dict per labeled picture: set, key, path and the manifest's own columns as strings."""
    for name in SETS:
        with (folder / "galaxies" / f"{name}.csv").open(newline="") as handle:
            for row in csv.DictReader(handle):
                filled = {column: value or None for column, value in row.items()}
                yield {
                    "set": name,
                    "key": row[KEYS[name]],
                    "path": str(folder / "galaxies" / name / row["file"]),
                    **filled,
                }


def all_rows(folder: Path) -> list[dict]:
    """Return every picture of every set, labeled first; galaxy10 rows carry their JPEG bytes."""
    rows = list(labeled_rows(folder))
    table = pq.read_table(folder / "galaxies" / "galaxy10_sdss.parquet", columns=["name", "image"])
    names, images = table["name"].to_pylist(), table["image"].to_pylist()
    rows += [
        {"set": "galaxy10", "key": f"galaxy10-{name}", "bytes": image}
        for name, image in zip(names, images, strict=True)
    ]
    return rows


def main() -> None:
    """Write images96.npy, images64.npy and objects.parquet into the cache folder."""
    out = cache_folder()
    rows = all_rows(data_folder())
    store = np.lib.format.open_memmap(out / "images96.npy", "w+", np.uint8, (len(rows), STORE_PX, STORE_PX, 3))
    model = np.lib.format.open_memmap(out / "images64.npy", "w+", np.uint8, (len(rows), MODEL_PX, MODEL_PX, 3))
    sources = [row.pop("bytes", None) or row["path"] for row in rows]
    with ProcessPoolExecutor(2) as pool:
        for index, result in enumerate(pool.map(read_one, sources, chunksize=256)):
            store[index], model[index] = result[:2]
            rows[index] |= {f"m_{name}": value for name, value in result[2].items()}
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
    columns["object_id"] = [f"{row['set']}:{row['key']}" for row in rows]
    pq.write_table(pa.table(columns), out / "objects.parquet")
    store.flush(), model.flush()
    print(f"{len(rows)} pictures in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
