"""Prepare spectra for training once: real ones on the grid with their split, semi-synthetic ones as memory maps.

Real spectra are split by object: train 60 / test 40 by a digest of the object's name, all epochs of SDSS-RM017 to the
test; test objects are never trained on. Semi-synthetic sources come from the SDSS templates and the even sky fibers
alone; redrock's templates and the odd fibers are the test's. Every source is seen four times: other redshift, S/N,
instrument, noise. Run `python -m export.prepare_spectra --sources 3000`; writes spectra_*.npy and .npz into the cache
folder.
"""

import argparse
import hashlib
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from export.prepare import cache_folder
from export.spectra_synthetic import (
    CHUNK,
    GRID,
    KINDS,
    data_folder,
    load_templates,
    observe,
    on_grid,
    sources,
)

TRAIN_TEMPLATES, TEST_TEMPLATES = "sdss", "redrock"
VIEWS = 4
SEED = 11
VALIDATION_SEED = 5_000
LEAST_PIXELS = 50  # of the grid; with fewer a spectrum has nothing in the rest frame that is looked at
TEST_SHARE = 0.4
SAME_OBJECT_ARCSEC = 2.0  # a fiber of SDSS or BOSS has 2 or 3
RM017 = "PyQSOFit (SDSS-RM017)"


def real_spectra() -> dict[str, np.ndarray]:
    """Return all real spectra on GRID, in the rest frame (as observed where z is unknown), and what is known of them.

    `split` is "train", "test", "empty" (fewer than LEAST_PIXELS pixels on the grid) or "twin": of the test, but a
    training spectrum is of the same object under another name, as on the two nights of plate 10000; not used.
    """
    columns: dict[str, list] = {
        key: [] for key in ("flux", "ivar", "source", "name", "cls", "subclass", "z", "zwarning")
    }
    columns |= {"object": [], "sn_median": [], "ra": [], "dec": []}
    for stem in ("spectra", "spectra_more"):
        table = pq.read_table(data_folder() / f"{stem}.parquet").to_pylist()
        with np.load(data_folder() / f"{stem}.npz") as file:
            log, flux, ivar = file["loglam"], file["flux"], file["ivar"]
        for row, line in enumerate(table):
            z = line["z"]
            known = z is not None and np.isfinite(z) and z > -0.01
            values = on_grid(log, flux[row], ivar[row], z if known else 0.0)
            columns["flux"].append(values[0])
            columns["ivar"].append(values[1])
            columns["z"].append(z if known else np.nan)
            columns["object"].append(line.get("same_object") or line.get("in_shared_as") or line["name"])
            for key in ("source", "name", "cls", "subclass"):
                columns[key].append(line[key] or "")
            for key in ("zwarning", "sn_median", "ra", "dec"):
                columns[key].append(np.nan if line[key] is None else line[key])
    result = {key: np.array(values) for key, values in columns.items()}
    result["split"] = np.array([split_of(str(name)) for name in result["object"]], dtype="U8")
    result["split"][result["source"] == RM017] = "test"
    result["split"][(result["ivar"] > 0).sum(axis=1) < LEAST_PIXELS] = "empty"
    twins = has_twin(result["ra"], result["dec"], others=result["split"] == "train")
    result["split"][twins & (result["split"] == "test")] = "twin"
    return result


def has_twin(ra: np.ndarray, dec: np.ndarray, *, others: np.ndarray) -> np.ndarray:
    """Say of which positions (n,), in degrees, one of `others` (n,) lies within SAME_OBJECT_ARCSEC; NaN has no twin."""
    east = (ra[:, None] - ra[others]) * np.cos(np.radians(dec))[:, None]
    apart = np.hypot(east, dec[:, None] - dec[others]) * 3600
    return np.nan_to_num(apart, nan=np.inf).min(axis=1) < SAME_OBJECT_ARCSEC


def split_of(name: str) -> str:
    """Return "train" or "test" for an object, by a digest of its name.

    >>> split_of("spec-0266-51630-0003") in ("train", "test")
    True
    """
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return "test" if number < TEST_SHARE * 2**32 else "train"


def compact(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flux over its mean size and sqrt(ivar) times it, as float16: what fits, and no scale matters."""
    good = ivar > 0
    size = np.maximum((np.abs(flux) * good).sum(axis=1) / np.maximum(good.sum(axis=1), 1), 1e-30)[:, None]
    scaled, error = np.where(good, flux / size, 0), np.sqrt(ivar) * size
    return np.clip(scaled, -6e4, 6e4).astype(np.float16), np.clip(error, 0, 6e4).astype(np.float16)


def write_synthetic(folder: Path, name: str, *, count: int, seed: int, snr: tuple[float, float]) -> None:
    """Write `count` sources of every kind in VIEWS views: spectra_NAME_flux.npy, _error.npy (sqrt of ivar), .npz."""
    templates, total = load_templates(TRAIN_TEMPLATES), count * len(KINDS)
    arrays = [
        np.lib.format.open_memmap(folder / f"spectra_{name}_{what}.npy", "w+", np.float16, (total, VIEWS, GRID.count))
        for what in ("flux", "error")
    ]
    known: dict[str, list] = {key: [] for key in ("kind", "log_nii_ha", "log_oiii_hb", "ew_ha")}
    row, begun = 0, time.time()
    for number, kind in enumerate(KINDS):
        for start in range(0, count, CHUNK):
            given = sources(kind, min(CHUNK, count - start), templates=templates, seed=seed + start // CHUNK)
            for view in range(VIEWS):
                drawn = observe(given, seed=((seed + start // CHUNK) * VIEWS + view) * 16 + number, snr=snr)
                for array, values in zip(arrays, compact(drawn.flux, drawn.ivar), strict=True):
                    array[row : row + len(given), view] = values
            for key, values in known.items():
                values.append(getattr(given, key))
            row += len(given)
        print(f"{name}: {kind} {row} sources, {time.time() - begun:.0f} s", file=sys.stderr, flush=True)
    np.savez(folder / f"spectra_{name}.npz", **{key: np.concatenate(values) for key, values in known.items()})


def main() -> None:
    """Write all three sets."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sources", type=int, default=3000, help="of each kind, for training")
    options = arguments.parse_args()
    folder = cache_folder()
    real = real_spectra()
    np.savez(folder / "spectra_real.npz", **real)
    for split in ("train", "test", "twin", "empty"):
        print(f"real {split}: {(real['split'] == split).sum()}", file=sys.stderr)
    write_synthetic(folder, "validation", count=200, seed=VALIDATION_SEED, snr=(4, 25))
    write_synthetic(folder, "train", count=options.sources, seed=SEED, snr=(2, 30))


if __name__ == "__main__":
    main()
