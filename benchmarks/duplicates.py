"""How many copies of real pictures are found, how many others are taken for copies, and how long a million take.

`python -m benchmarks.duplicates FOLDER` makes copies of pictures of the sets that GALSEARCH_DATA names (smaller, JPEG,
shifted, turned, mirrored, stretched anew, all of it), builds an atlas for each kind of copy, and asks it for duplicates
by picture alone, with two cutouts of each of many pairs of neighbors in the sky among them. `--fit` fits the judge of
`science.fingerprints` on the training part and prints what goes there; its threshold was chosen on the validation part;
what is written is the test part. Parts are drawn by object. `--rows 1000000` times synthetic positions, vectors and
hashes. Peers: imagehash, at the threshold that gives it the precision that is asked for here.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import gaussian_filter, maximum_filter

import galsearch
from benchmarks import measure
from export.prepare import data_folder
from export.split import split_of
from galsearch.discovery.duplicates import LEAST_LIKE, NEAREST
from galsearch.science import duplicates, fingerprints
from galsearch.science.images import decode_thumbnail, encode_thumbnail, model_input

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "duplicates.json"
SETS = ("efigi", "gz1", "gz2")
OF_SET = {"train": 250, "validation": 100, "test": 250}
NEIGHBORS = {"train": 150, "validation": 75, "test": 150}
FIELD, NEIGHBOR_FIELD = 0.88, 0.56  # of the side that a cutout takes, so that shifted ones need no filling
MOST_SHIFT = 0.05  # of the side, in each direction
PRECISION = 0.999
HARD = 6  # nearest others that each picture is compared with when the judge is fitted
FIT_PENALTY = 10.0
HASH_NOISE = 1.2  # steps that a synthetic copy's hash differs by; half of the real copies by more
COPIES = 0.01  # of synthetic objects
PEER_PAIRS = 200_000


# ---- copies


def cut(pixels: np.ndarray, *, down: int = 0, right: int = 0, field: float = FIELD) -> np.ndarray:
    """Return the middle of a picture, or what lies some pixels off it."""
    side = min(pixels.shape[:2])
    width = round(side * field)
    top, left = (pixels.shape[0] - width) // 2 + down, (pixels.shape[1] - width) // 2 + right
    return pixels[max(top, 0) : max(top, 0) + width, max(left, 0) : max(left, 0) + width]


def shifted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a cutout that is off by up to MOST_SHIFT of the side in each direction."""
    most = int(min(pixels.shape[:2]) * MOST_SHIFT)
    down, right = rng.integers(-most, most + 1, 2)
    return cut(pixels, down=int(down), right=int(right))


def smaller(pixels: np.ndarray, share: float) -> np.ndarray:
    """Return a picture of fewer pixels."""
    side = max(16, round(len(pixels) * share))
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return a picture that went through JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Return a picture turned by any angle, black where nothing is known."""
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC))


def stretched(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture with another stretch: a power, an arcsinh, a hyperbolic sine, or a gain and an offset."""
    values, kind = pixels / 255.0, rng.integers(4)
    strength = rng.uniform(1, 3) if kind == 2 else rng.uniform(2, 8)
    if kind == 0:
        values = values ** rng.uniform(0.6, 1.6)
    elif kind == 1:
        values = np.arcsinh(strength * values) / np.arcsinh(strength)
    elif kind == 2:
        values = np.sinh(strength * values) / np.sinh(strength)
    else:
        values = np.clip(values * rng.uniform(0.7, 1.4) + rng.uniform(-0.05, 0.05), 0, 1)
    return np.rint(255 * values).astype(np.uint8)


def everything(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture mirrored or not, turned, shifted, smaller, stretched and through JPEG of 50 to 89."""
    mirrored = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    copy = smaller(shifted(turned(np.ascontiguousarray(mirrored), rng.uniform(0, 360)), rng), rng.uniform(0.6, 0.9))
    return jpeg(stretched(copy, rng), int(rng.integers(50, 90)))


Copy = Callable[[np.ndarray, np.random.Generator], np.ndarray]
COPIES_OF: dict[str, Copy] = {
    "same file": lambda pixels, rng: cut(pixels),
    "40 to 80 % of the size": lambda pixels, rng: smaller(cut(pixels), rng.uniform(0.4, 0.8)),
    "JPEG 30": lambda pixels, rng: jpeg(cut(pixels), 30),
    "JPEG 60": lambda pixels, rng: jpeg(cut(pixels), 60),
    "JPEG 95": lambda pixels, rng: jpeg(cut(pixels), 95),
    "shifted by up to 5 %": shifted,
    "turned by 90, 180, 270°": lambda pixels, rng: np.rot90(cut(pixels), rng.integers(1, 4)),
    "mirrored": lambda pixels, rng: cut(pixels)[:, ::-1],
    "turned by any angle": lambda pixels, rng: cut(turned(pixels, rng.uniform(10, 350))),
    "another stretch": lambda pixels, rng: stretched(cut(pixels), rng),
    "all of these": everything,
}
COMBINED = "all of these"  # no bar was set for it


# ---- pictures


def sources(part: str, *, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and pixels of pictures of a part."""
    rng = np.random.default_rng(seed)
    for name in SETS:
        files = sorted((data_folder() / "galaxies" / name).glob("*"))
        files = [file for file in files if split_of(f"{name}-{file.stem}") == part]
        for index in np.sort(rng.permutation(len(files))[: OF_SET[part]]):
            yield f"{name}-{files[index].stem}", np.asarray(Image.open(files[index]).convert("RGB"))


def neighbors(part: str, *, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield two cutouts, around the middle and around another source, of pictures that show one; they overlap."""
    rng, count = np.random.default_rng(seed + 1), 0
    for name in ("gz1", "gz2", "gz2_mergers"):
        files = sorted((data_folder() / "galaxies" / name).glob("*"))
        files = [file for file in files if split_of(f"{name}-{file.stem}") == part]
        for index in rng.permutation(len(files)):
            pixels = np.asarray(Image.open(files[index]).convert("RGB"))
            other = _second_source(pixels)
            if other is not None and count < NEIGHBORS[part]:
                count += 1
                yield f"neighbor-{name}-{files[index].stem}-a", cut(pixels, field=NEIGHBOR_FIELD)
                down, right = other
                yield (
                    f"neighbor-{name}-{files[index].stem}-b",
                    cut(pixels, down=down, right=right, field=NEIGHBOR_FIELD),
                )


def _second_source(pixels: np.ndarray) -> tuple[int, int] | None:
    """Return where from the middle the brightest other source lies that is a third as bright, 9 to 20 % of the side."""
    smooth = gaussian_filter(pixels.mean(axis=2), 2)
    smooth -= np.median(smooth)
    side = min(smooth.shape)
    y, x = np.mgrid[: smooth.shape[0], : smooth.shape[1]]
    apart = np.hypot(y - smooth.shape[0] / 2, x - smooth.shape[1] / 2) / side
    peak = (smooth == maximum_filter(smooth, size=9)) & (apart > 0.09) & (apart < 0.20)
    peak &= smooth > smooth[apart < 0.05].max() / 3
    if not peak.any():
        return None
    best = np.argmax(np.where(peak, smooth, -np.inf))
    return int(y.flat[best] - smooth.shape[0] // 2), int(x.flat[best] - smooth.shape[1] // 2)


def lay_out(folder: Path, part: str, kind: str, *, seed: int) -> Path:
    """Build an atlas of originals, one copy of each, and neighbors; return its path."""
    path = folder / part / f"{list(COPIES_OF).index(kind):02d}.atlas"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as pictures:
        for name, pixels in _originals_and_copies(part, kind, seed=seed):
            Image.fromarray(np.ascontiguousarray(pixels)).save(Path(pictures) / f"{name}.png", compress_level=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        galsearch.build(path, images=Path(pictures), measure="none", processes=1, device="cpu")
    return path


def _originals_and_copies(part: str, kind: str, *, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for name, pixels in sources(part, seed=seed):
        yield f"{name}_original", cut(pixels)
        yield f"{name}_copy", COPIES_OF[kind](pixels, rng)
    yield from neighbors(part, seed=seed)


# ---- figures


def measured(folder: Path, part: str, *, seed: int) -> dict:
    """Return what is found of each kind of copy, and what else is taken for one."""
    kinds, wrong = [], []
    for kind in COPIES_OF:
        with galsearch.open(lay_out(folder, part, kind, seed=seed), device="cpu") as atlas:
            started = time.perf_counter()
            result = atlas.duplicates("picture", seed=seed)
            seconds = time.perf_counter() - started
            one = _counted(result, atlas, kind) | {"seconds": round(seconds, 1), "candidates": result.candidates}
        wrong += one.pop("wrong")
        print(json.dumps(one), file=sys.stderr)
        kinds.append(one)
    single = [one for one in kinds if one["kind"] != COMBINED]
    return {
        "part": part,
        "objects": kinds[0]["copies"],
        "neighbors": kinds[0]["neighbors"],
        "kinds": kinds,
        "all_single": _summed(single),
        "all": _summed(kinds),
        "wrong": sorted(set(map(tuple, wrong))),
    }


def _counted(result: galsearch.Duplicates, atlas: galsearch.Atlas, kind: str) -> dict:
    """Return how many copies are in the group of their original, and which other pairs are in one group."""
    ids = [galaxy.object_id for galaxy in atlas]
    found, wrong, pairs = 0, [], 0
    for group in result:
        for at, one in enumerate(group.ids):
            for other in group.ids[at + 1 :]:
                beside = [name.startswith("neighbor-") for name in (one, other)]
                if any(beside) and not all(beside) and _galaxy(one) == _galaxy(other):
                    continue  # the middle galaxy of a field that was drawn among the originals too
                pairs += 1
                same = _galaxy(one) == _galaxy(other) and not any(beside)
                found += same
                wrong += [] if same else [[one, other]]
    copies = sum(name.endswith("_copy") for name in ids)
    around = sum(name.startswith("neighbor-") for name in ids) // 2
    peers = _peers(atlas, ids)
    return {
        "kind": kind,
        "copies": copies,
        "neighbors": around,
        "found": found,
        "recall": wilson(found, copies),
        "pairs": pairs,
        "precision": wilson(found, pairs),
        "imagehash": peers,
        "wrong": wrong,
    }


def _galaxy(name: str) -> str:
    """Return which picture an object of the atlas was cut from."""
    return (
        name.removeprefix("neighbor-")
        .removesuffix("_copy")
        .removesuffix("_original")
        .removesuffix("-a")
        .removesuffix("-b")
    )


def _summed(kinds: list[dict]) -> dict:
    found, copies, pairs = (sum(one[name] for one in kinds) for name in ("found", "copies", "pairs"))
    return {"recall": wilson(found, copies), "precision": wilson(found, pairs)}


def _peers(atlas: galsearch.Atlas, ids: list[str]) -> dict[str, float]:
    """Return the recall of hashes of imagehash on the same stored pictures, at PRECISION, its best threshold known."""
    import imagehash  # of the extra "bench"

    stored = atlas.thumbnails(ids)
    images = [Image.fromarray(decode_thumbnail(stored[name])) for name in ids]
    objects = np.array([name.rsplit("_", 1)[0] if "neighbor" not in name else name for name in ids])
    first, second = np.triu_indices(len(ids), 1)
    same = objects[first] == objects[second]
    recalls = {}
    for name, make in {"phash": imagehash.phash, "dhash": imagehash.dhash}.items():
        bits = np.packbits(np.stack([make(image, hash_size=16).hash.ravel() for image in images]), axis=1)
        words = bits.view(np.uint64)
        distance = np.zeros(len(first), np.int16)
        for column in words.T:
            distance += np.bitwise_count(column[first] ^ column[second]).astype(np.int16)
        right, every = (np.cumsum(np.bincount(each, minlength=257)) for each in (distance[same], distance))
        good = (every > 0) & (right >= PRECISION * every)
        recalls[name] = float(right[good].max(initial=0) / same.sum())
    return recalls


def wilson(count: int, total: int) -> dict[str, float]:
    """Return a share with its Wilson 95 % interval."""
    z, share = 1.959964, count / max(total, 1)
    center = (share + z**2 / (2 * total)) / (1 + z**2 / total) if total else 0.5
    half = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) if total else 0.5
    return {"value": share, "low": float(center - half), "high": float(min(center + half, 1))}


# ---- the judge


def pairs_of(part: str, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Fisher's z `(n, 5)`, offsets and whether they are one, of copies, of nearest others, and of neighbors."""
    rng = np.random.default_rng(seed)
    originals, beside = ([pixels for _, pixels in source(part, seed=seed)] for source in (sources, neighbors))
    kinds = {kind: _as_stored([make(pixels, rng) for pixels in originals]) for kind, make in COPIES_OF.items()}
    around = fingerprints.Views.of(_as_stored(beside))
    views = {kind: fingerprints.Views.of(pictures) for kind, pictures in kinds.items()}
    hashed = {kind: fingerprints.hashes(pictures) for kind, pictures in kinds.items()}
    first, *others = COPIES_OF
    whitening = fingerprints.Whitening.fit(hashed[first])
    parts = [(fingerprints.align(around.take(np.s_[::2]), around.take(np.s_[1::2])), 0)]
    for kind in others:
        parts.append((fingerprints.align(views[first], views[kind]), 1))
        like = whitening.of(hashed[first]) @ whitening.of(hashed[kind]).T
        np.fill_diagonal(like, -np.inf)
        for near in np.argsort(-like, axis=1)[:, :HARD].T:
            parts.append((fingerprints.align(views[first], views[kind].take(near)), 0))
    z = np.concatenate([np.arctanh(np.clip(one.correlations, -0.5, 0.995)) for one, _ in parts])
    offset = np.concatenate([one.offset for one, _ in parts])
    return z, offset, np.concatenate([np.full(len(one.angle), label) for one, label in parts])


def _as_stored(pictures: list[np.ndarray]) -> np.ndarray:
    stored = [decode_thumbnail(encode_thumbnail(np.ascontiguousarray(pixels))) for pixels in pictures]
    return model_input(stored, fingerprints.SIDE)


def fit(*, seed: int) -> None:
    """Print the judge that the training part gives, and recall and false links of thresholds on the validation part."""
    from sklearn.linear_model import LogisticRegression

    z, offset, one = pairs_of("train", seed=seed)
    near = offset <= fingerprints.MOST_OFFSET
    model = LogisticRegression(C=FIT_PENALTY, max_iter=10_000).fit(z[near], one[near])
    weights, intercept = tuple(model.coef_[0].astype(float).round(3).tolist()), round(float(model.intercept_[0]), 3)
    print(f"weights {weights}, intercept {intercept}, of {int(one.sum())} copies and {int((1 - one).sum())} others")
    z, offset, one = pairs_of("validation", seed=seed)
    chance = 1 / (1 + np.exp(-(z @ np.array(weights) + intercept))) * (offset <= fingerprints.MOST_OFFSET)
    for least in (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95):
        linked = chance >= least
        print(f"{least}: recall {linked[one == 1].mean():.4f}, {linked[one == 0].sum()} of {(one == 0).sum()} linked")


# ---- a million


def speed(rows: int, dim: int, *, seed: int) -> dict:
    """Return how long synthetic objects take: an atlas of positions and vectors, and hashes beside it."""
    rng = np.random.default_rng(seed)
    copies = round(COPIES * rows)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-1, 1, rows)))
    dec[-copies:] = dec[:copies] + rng.normal(size=copies) * 0.3 / 3600
    ra[-copies:] = ra[:copies]
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    vectors[-copies:] = vectors[:copies]
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "random.parquet", Path(folder) / "random.atlas"
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
        ids = [f"r{row:08d}" for row in range(rows)]
        pq.write_table(pa.table({"object_id": ids, "ra": ra, "dec": dec, "vector": column}), source)
        del vectors, column, ids
        galsearch.build(path, table=source, vectors="vector", model="random")
        call = [sys.executable, "-m", "benchmarks.duplicates", "--seed", str(seed), "--timed"]
        atlas, hashes = (
            json.loads(subprocess.run([*call, what], capture_output=True, check=True, text=True).stdout)
            for what in (str(path), str(rows))
        )
    seconds = round(atlas["seconds"] + hashes["seconds"], 1)
    result = {
        **{"rows": rows, "dim": dim, "copies": copies, "seconds": seconds, "atlas": atlas, "hashes": hashes},
        **_costs(seed=seed),
        "cores": os.cpu_count(),
        "pace_ms": round(measure.pace(), 1),
        "load": round(os.getloadavg()[0], 1),
    }
    pairs = rows * (rows - 1) / 2
    result["imagehash_pairs_hours"] = pairs * result["imagehash_pair_us"] / 3.6e9
    result["numpy_pairs_hours"] = pairs * result["numpy_pair_ns"] / 3.6e12
    print(json.dumps(result), file=sys.stderr)
    return result


def timed(what: str, *, seed: int) -> dict:
    """Return seconds and memory of an atlas, or of as many synthetic hashes; in a process of its own."""
    if not what.isdigit():
        with galsearch.open(Path(what), device="cpu") as atlas:
            atlas.search(where="true", k=1)
            return _timed(lambda: {"groups": len(atlas.duplicates())})
    rows = int(what)
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(24, fingerprints.HASH_BYTES)).astype(np.float32)
    values = rng.normal(size=(rows, 24)).astype(np.float32) @ mixed * 3
    copies = round(COPIES * rows)
    values[-copies:] = values[:copies] + HASH_NOISE * rng.normal(size=(copies, fingerprints.HASH_BYTES))
    hashed = np.rint(np.clip(values, -128, 127)).astype(np.int8)
    del values

    def compare() -> dict:
        whitened = fingerprints.Whitening.fit(hashed[: duplicates.SAMPLE_ROWS]).of(hashed)
        pairs = duplicates.nearest_pairs(whitened, k=NEAREST, least=LEAST_LIKE, seed=seed)
        wanted = np.arange(copies) * rows + np.arange(rows - copies, rows)
        return {"recall": float(np.isin(wanted, pairs.first * rows + pairs.second).mean()), "pairs": len(pairs.first)}

    return _timed(compare)


def _timed(task: Callable[[], dict]) -> dict:
    before = measure.memory_mib()["anonymous_mib"]
    with measure.peak_anonymous() as most:
        started = time.perf_counter()
        result = task()
        seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "memory_mb": round(most["anonymous_mib"] - before), **result}


def _costs(*, seed: int) -> dict:
    """Return what one real picture and one pair cost, here and with imagehash."""
    import imagehash

    stored = [encode_thumbnail(cut(pixels)) for _, pixels in zip(range(200), _pixels(seed), strict=False)]
    started = time.perf_counter()
    pictures = model_input([decode_thumbnail(one) for one in stored], fingerprints.SIDE)
    fingerprints.hashes(pictures)
    hashing = time.perf_counter() - started
    started = time.perf_counter()
    views = fingerprints.Views.of(pictures)
    fingerprints.align(views.take(np.s_[:-1]), views.take(np.s_[1:]))
    aligning = time.perf_counter() - started
    peers = [imagehash.phash(Image.fromarray(decode_thumbnail(one))) for one in stored]
    started = time.perf_counter()
    for number in range(PEER_PAIRS):
        _ = peers[number % 199] - peers[number % 200]
    looping = time.perf_counter() - started
    words = np.random.default_rng(seed).integers(0, 2**63, 20_000, np.uint64)
    started = time.perf_counter()
    for word in words[:500]:
        np.flatnonzero(np.bitwise_count(words ^ word) <= 8)
    return {
        "hash_ms": hashing / len(stored) * 1e3,
        "align_ms": aligning / (len(stored) - 1) * 1e3,
        "imagehash_pair_us": looping / PEER_PAIRS * 1e6,
        "numpy_pair_ns": (time.perf_counter() - started) / (500 * len(words)) * 1e9,
    }


def _pixels(seed: int) -> Iterator[np.ndarray]:
    return (pixels for _, pixels in sources("test", seed=seed))


def main() -> None:
    """Measure what is asked for, print and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where the atlases are, or come")
    parser.add_argument("--part", default="test", choices=list(OF_SET))
    parser.add_argument("--fit", action="store_true", help="fit the judge, print it and thresholds, write nothing")
    parser.add_argument("--rows", type=int, help="of synthetic objects, which are timed")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    parser.add_argument("--timed", help="an atlas, or a number of hashes; what --rows runs")
    args = parser.parse_args()
    if args.timed is not None:
        print(json.dumps(timed(args.timed, seed=args.seed)))
        return
    if args.fit:
        fit(seed=args.seed)
        return
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    found["machine"] = {"processor": platform.machine(), "cores": os.cpu_count()}
    if args.folder is not None:
        found[args.part] = measured(args.folder, args.part, seed=args.seed)
    if args.rows is not None:
        others = [row for row in found.get("speed", []) if (row["rows"], row["dim"]) != (args.rows, args.dim)]
        found["speed"] = [*others, speed(args.rows, args.dim, seed=args.seed)]
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
