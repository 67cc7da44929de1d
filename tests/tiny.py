"""Tiny galaxies for tests: 300 seeded pictures around four known clusters, with a table beside them.

A cluster is a color and a shape that the words of `tiny_models` name, so "red edge" finds the first cluster. The
clusters also lie where cones go wrong: across RA 0, at either pole, and all over the sky. Every tenth galaxy has no
position, every seventh no redshift. The last galaxies of a cluster are exact copies of its first picture, so that
equal scores occur.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tiny_models import picture

import galsearch
from galsearch.store import Tuning, open_stores

CLUSTERS = (("red", "edge"), ("blue", "ring"), ("white", "round"), ("green", "face"))
ROWS = 300
COPIES = 4  # per cluster: the same picture, pixel by pixel
SIZE_PX = 32
SURVEYS = ("north", "south", "d'Or", None)


def cluster_of(row: int) -> int:
    """Return the cluster, 0 to 3, of a row."""
    return row % len(CLUSTERS)


def object_id(row: int) -> str:
    """Return the id of a row; they look like the 19-digit numbers of surveys."""
    return f"12376500{row:011d}"


def is_copy(row: int) -> bool:
    """Say whether a row's picture is the same as the first one of its cluster."""
    return row < len(CLUSTERS) or row >= ROWS - len(CLUSTERS) * (COPIES - 1)


def draw(row: int) -> np.ndarray:
    """Return the picture of a row, `(32, 32, 3) uint8`: that of its cluster, with noise of its own."""
    color, shape = CLUSTERS[cluster_of(row)]
    clean = picture(color=color, shape=shape, size_px=SIZE_PX).astype(np.float64)
    rng = np.random.default_rng([7, cluster_of(row) if is_copy(row) else row])
    tint = rng.normal(scale=25, size=(4, 4, 3)).repeat(SIZE_PX // 4, axis=0).repeat(SIZE_PX // 4, axis=1)
    return np.clip(np.rint(clean + tint + rng.normal(scale=6, size=clean.shape)), 0, 255).astype(np.uint8)


@cache
def table(rows: int = ROWS, *, seed: int = 11) -> pa.Table:
    """Return object_id, ra, dec, z, mag_r, mass (with a unit) and survey (text with a quote in it) of every galaxy."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(rows) % len(CLUSTERS)
    ra, dec = _positions(rng, cluster)
    z = np.round(rng.uniform(0.0, 0.2, rows), 4)
    columns = {
        "object_id": [object_id(row) for row in range(rows)],
        "ra": _without_every(10, ra),
        "dec": _without_every(10, dec),
        "z": _without_every(7, z),
        "mag_r": np.round(rng.uniform(13, 21, rows), 2),
        "mass": np.round(10 ** rng.uniform(9, 12, rows), -7),
        "survey": [SURVEYS[place] for place in rng.integers(0, len(SURVEYS), rows)],
    }
    found = pa.table(columns)
    place = found.column_names.index("mass")
    unit = {"unit": "solMass", "ucd": "phys.mass", "description": "Stellar mass"}
    return found.set_column(place, found.field(place).with_metadata(unit), found["mass"])


def write_source(folder: Path) -> tuple[Path, Path]:
    """Write the pictures as PNG files and the table as Parquet under `folder`; return (pictures, table)."""
    pictures = folder / "cutouts"
    pictures.mkdir(parents=True)
    for row in range(ROWS):
        Image.fromarray(draw(row)).save(pictures / f"{object_id(row)}.png")
    pq.write_table(table(), folder / "catalog.parquet")
    return pictures, folder / "catalog.parquet"


SPECTRUM_DIM = 8


def spectrum(row: int) -> np.ndarray | None:
    """Return the unit vector `(8,) float32` of a row's spectrum, near that of its cluster; every fifth has none."""
    if row % 5 == 4:
        return None
    center = np.random.default_rng([3, cluster_of(row)]).normal(size=SPECTRUM_DIM)
    vector = center + 0.3 * np.random.default_rng([5, row]).normal(size=SPECTRUM_DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def add_spectra(atlas: Path, out: Path) -> Path:
    """Write a tiny atlas again as a folder with a second embedding, "spectrum", which some of its galaxies have."""
    from galsearch.store import Staging, fixed_size_list, open_store, staged

    store = open_store(atlas)
    try:
        rows = np.arange(store.objects)
        known, ids = store.hits(rows, None).drop_columns(["score"]), store.ids(rows)
        pictures, numbers = store.thumbnails(ids), [int(name[8:]) for name in ids]
        known = known.append_column(staged("image"), fixed_size_list(store.vectors_of("image", rows)))
        known = known.append_column(staged("thumbnails"), pa.array([pictures[name] for name in ids], pa.binary()))
        vectors = [spectrum(number) for number in numbers]
        has = np.array([vector is not None for vector in vectors])
        space = {"dim": SPECTRUM_DIM, "model": "galspec-tiny-1", "sha256": "5" * 64, "space": "spectra-0"}
        spaces = {**store.manifest.embeddings, "spectrum": {**space, "metric": "cosine", "rows": int(has.sum())}}
        manifest, concepts = replace(store.manifest, embeddings=spaces, provenance=[]), store.table("concepts")
    finally:
        store.close()
    with_one = known.filter(pa.array(has))
    found = fixed_size_list(np.stack([vector for vector in vectors if vector is not None]))
    with Staging(out, {"spectra": True}) as staging:
        staging.put(0, with_one.append_column(staged("spectrum"), found), [])
        staging.put(1, known.filter(pa.array(~has)), [])
        models = {item.name: item for item in sorted((atlas / "models").iterdir())}
        staging.create(
            manifest,
            {"action": "build"},
            models=models,
            phrases={} if concepts is None else {"concepts": concepts},
            rejected=[],
        )
    return out


def random_units(rows: int, dim: int, *, seed: int, groups: int = 0) -> np.ndarray:
    """Return unit vectors `(rows, dim) float32`, around `groups` random centers when that is not 0."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dim))
    if groups:
        vectors = 0.5 * vectors + rng.normal(size=(groups, dim))[rng.integers(0, groups, rows)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _positions(rng: np.random.Generator, cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = len(cluster)
    around_zero = np.mod(rng.uniform(-0.2, 0.2, rows), 360), rng.uniform(9.8, 10.2, rows)
    north = rng.uniform(0, 360, rows), 90 - rng.uniform(0, 0.3, rows)
    anywhere = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    south = rng.uniform(0, 360, rows), rng.uniform(0, 0.3, rows) - 90
    places = (around_zero, north, anywhere, south)
    return tuple(np.choose(cluster, [place[axis] for place in places]) for axis in (0, 1))


def _without_every(step: int, values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=np.arange(len(values)) % step == step - 1)


def write(path: Path, text: str) -> Path:
    """Write a text file and return its path."""
    path.write_text(text)
    return path


def parquet(path: Path, **columns) -> Path:
    """Write columns as a Parquet table and return its path."""
    pq.write_table(pa.table(columns), path)
    return path


def tuned(path: Path, **sizes: int) -> galsearch.Atlas:
    """Return an atlas, open for reading, whose searches go another way from other sizes on."""
    return galsearch.Atlas(open_stores([path], tuning=Tuning(**sizes)), device="cpu")
