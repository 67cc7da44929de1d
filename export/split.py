"""Divide the objects: train 70 %, validation 10 %, test 20 %, by a hash of the object, with nothing on two sides.

One object is one key, one DR7 objid, or one place on the sky. A training picture that shows a held-out
object under another name (the unlabeled set has no ids) is found by its pixels and dropped.
Run `python -m export.split` after `prepare`; it writes splits.parquet (object_id, set, group, split).
"""

import hashlib
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import gaussian_filter

from export.prepare import cache_folder

TRAIN, VALIDATION = 0.70, 0.10  # the rest, a fifth, is the test set: only evaluate.py reads it
SAME_SKY_ARCSEC = 10.0  # objects closer than this are one object and go to one side
FINGERPRINT_PX = 32
SAME_PICTURE = 0.86  # correlation of fingerprints: copies of one SDSS exposure give .9-1; below .86 mostly smooth cores
FIELDS = tuple(0.93**power for power in range(10))  # the sets cut the same galaxy at other scales


def position_of(row: dict) -> tuple[float, float] | None:
    """Return (ra, dec) in degrees ICRS where the manifest has them."""
    return (float(row["ra"]), float(row["dec"])) if row.get("ra") and row.get("dec") else None


def same_sky_pairs(rows: list[dict]) -> list[tuple[int, int]]:
    """Return pairs of rows whose positions lie within SAME_SKY_ARCSEC."""
    where = [(index, position_of(row)) for index, row in enumerate(rows)]
    where = [(index, position) for index, position in where if position]
    radians = np.radians([position for _, position in where])
    unit = np.stack(
        [
            np.cos(radians[:, 1]) * np.cos(radians[:, 0]),
            np.cos(radians[:, 1]) * np.sin(radians[:, 0]),
            np.sin(radians[:, 1]),
        ],
        1,
    )
    pairs = []
    for first in range(len(where)):
        chord = np.linalg.norm(unit[first + 1 :] - unit[first], axis=1)
        for offset in np.flatnonzero(chord < np.radians(SAME_SKY_ARCSEC / 3600)):
            pairs.append((where[first][0], where[first + 1 + int(offset)][0]))
    return pairs


def groups_of(rows: list[dict], pairs: list[tuple[int, int]]) -> list[str]:
    """Return a group name per row: rows joined by a pair or an equal key share the smallest key of the group."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    by_key: dict[str, int] = {}
    equal = [(by_key.setdefault(row["key"], index), index) for index, row in enumerate(rows)]
    for first, second in equal + pairs:
        parent[root(second)] = root(first)
    names: dict[int, str] = {}
    for index, row in enumerate(rows):
        names[root(index)] = min(names.get(root(index), row["key"]), row["key"])
    return [names[root(index)] for index in range(len(rows))]


def split_of(group: str) -> str:
    """Return 'train', 'validation' or 'test' from the sha256 of the group's name: stable whatever else is added."""
    fraction = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if fraction < TRAIN else "validation" if fraction < TRAIN + VALIDATION else "test"


def fingerprint(gray: np.ndarray, field: float) -> np.ndarray:
    """Return the fine structure of the middle `field` of a square gray picture, (FINGERPRINT_PX**2,) of unit length.

    A band-pass of the square root, divided by its local strength: the noise and the neighbors of an
    exposure, which two cutouts of it share, and not the smooth light that all ellipticals share.
    """
    side = gray.shape[0] * field
    low, high = (gray.shape[0] - side) / 2, (gray.shape[0] + side) / 2
    size = (FINGERPRINT_PX, FINGERPRINT_PX)
    small = Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC, box=(low, low, high, high))
    root = np.sqrt(np.maximum(np.asarray(small), 0))
    band = gaussian_filter(root, 0.7) - gaussian_filter(root, 2.5)
    band = band / (0.4 + np.sqrt(gaussian_filter(band**2, 4)))
    band = band - band.mean()
    return (band / max(float(np.linalg.norm(band)), 1e-6)).ravel()


def fingerprints(grays: np.ndarray, field: float) -> np.ndarray:
    """Return (n, FINGERPRINT_PX**2) float32."""
    return np.stack([fingerprint(gray, field) for gray in grays])


def copies(held: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of `others` (m, s, s) show the same exposure as one of `held` (n, s, s), as (m,) bool."""
    found = np.zeros(len(others), bool)
    held_full, others_full = fingerprints(held, 1.0), fingerprints(others, 1.0)
    for field in FIELDS:
        found |= (fingerprints(held, field) @ others_full.T > SAME_PICTURE).any(axis=0)
        if field > 0.7:  # a small crop of a coarse picture has no fine structure left to compare
            found |= (held_full @ fingerprints(others, field).T > SAME_PICTURE).any(axis=0)
    return found


def assign(rows: list[dict]) -> tuple[list[str], list[str]]:
    """Return group and split of every row; unlabeled rows (set galaxy10) are their own group and train."""
    known = [row for row in rows if row["set"] != "galaxy10"]
    named = groups_of(known, same_sky_pairs(known))
    groups = named + [row["key"] for row in rows[len(known) :]]
    return groups, [split_of(group) for group in named] + ["train"] * (len(rows) - len(known))


def main() -> None:
    """Write splits.parquet and print the number of objects per set and split."""
    out = cache_folder()
    rows = pq.read_table(out / "objects.parquet", columns=["object_id", "set", "key", "ra", "dec"]).to_pylist()
    groups, splits = assign(rows)
    grays = np.load(out / "images96.npy", mmap_mode="r")
    grays = np.stack([picture.mean(axis=2, dtype=np.float32) for picture in grays])
    train = np.flatnonzero(np.array(splits) == "train")
    held = np.flatnonzero(np.array(splits) != "train")
    for index in train[copies(grays[held], grays[train])]:
        splits[index] = "dropped"
    columns = {"object_id": [row["object_id"] for row in rows], "set": [row["set"] for row in rows]}
    pq.write_table(pa.table(columns | {"group": groups, "split": splits}), out / "splits.parquet")
    for (name, split), count in sorted(Counter(zip(columns["set"], splits, strict=True)).items()):
        print(f"{name:12s} {split:10s} {count:6d}", file=sys.stderr)


if __name__ == "__main__":
    main()
