"""Prepare what words for spectra are learned from: vectors of galspec-1 beside measured lines and classes.

Semi-synthetic objects: the first sources of each kind of the prepared training and validation sets, drawn again without
noise and measured, beside the vectors of their noisy views; a line counts where the view covers it. Real objects:
spectra of `prepare_spectra`, measured on their own pixels, beside their vectors.
Run `python -m export.prepare_spectra_words`; writes spectra_words_{train,validation,real}.npz into the cache folder.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from export.prepare import cache_folder
from export.prepare_spectra import SEED, TRAIN_TEMPLATES, VALIDATION_SEED, VIEWS
from export.spectra_synthetic import CHUNK, FINE_ANGSTROM, GRID, KINDS, Sources, data_folder, load_templates, sources
from export.spectra_to_onnx import SPECTRUM_ID
from export.to_onnx import SHIPPED
from export.train_align import say
from galsearch.encode import Encoder
from galsearch.errors import SchemaError
from galsearch.science.lines import Lines, measure
from galsearch.science.spectra import Spectrum

NOISE_FREE_SNR = 100.0  # per fine pixel, stated for what has no noise, so that the fit has weights
LINE_CENTERS = {  # rest wavelengths in Angstrom (vacuum) that must have data for a statement about a line to count
    "oii": 3728.5, "hdelta": 4102.9, "hbeta": 4862.7, "oiii": 5008.2, "oi": 6302.0, "halpha": 6564.6,
    "nii": 6585.3, "sii": 6725.5, "mgii": 2799.9, "d4000": 4000.0, "mgb": 5176.0, "cahk": 3951.0,
}  # fmt: skip
MEASURES = (
    *("ew_oii", "ew_hbeta", "ew_oiii", "ew_oi", "ew_halpha", "ew_nii", "ew_sii"),
    *("log_oiii_hbeta", "log_nii_halpha", "d4000", "hdelta_a", "ca_hk", "mg_b", "balmer_fwhm_kms", "mgii_fwhm_kms"),
)
ERRORS = {  # name of an error -> the row of the table of lines that has it
    "ew_oii": "[O II] 3727", "ew_hbeta": "H beta", "ew_oiii": "[O III] 5007", "ew_oi": "[O I] 6300",
    "ew_halpha": "H alpha", "ew_nii": "[N II] 6583", "ew_sii": "[S II] 6716", "hdelta_a": "H delta A",
}  # fmt: skip
BROAD = {"ew_hbeta_broad": "H beta broad", "ew_halpha_broad": "H alpha broad"}


def encoder() -> Encoder:
    """Return the shipped spectrum encoder on one thread."""
    return Encoder.from_folder(SHIPPED / SPECTRUM_ID, device="cpu", threads=1)


def vectors(model: Encoder, flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Return unit vectors (n, d) of flux and ivar (n, GRID.count)."""
    return model.encode(np.stack([flux, ivar], axis=1).astype(np.float32))


def covered(ivar: np.ndarray) -> dict[str, np.ndarray]:
    """Say of which spectra (n, GRID.count) each line is covered: most of the seven pixels at its center have data."""
    pixels = {name: int(np.argmin(np.abs(GRID.wavelength_angstrom - at))) for name, at in LINE_CENTERS.items()}
    return {f"covers_{name}": (ivar[:, at - 3 : at + 4] > 0).mean(axis=1) > 0.6 for name, at in pixels.items()}


def row_of(lines: Lines) -> dict[str, float]:
    """Return the measures of one spectrum as numbers, NaN where unknown, with errors of the equivalent widths."""
    columns, at = lines.columns(), {name: row for row, name in enumerate(lines.line)}
    result = {name: np.nan if columns[name] is None else float(columns[name]) for name in MEASURES}
    result |= {f"error_{name}": float(lines.values["ew_error"][at[row]]) for name, row in ERRORS.items()}
    return result | {name: float(lines.values["ew_angstrom"][at[row]]) for name, row in BROAD.items()}


def stacked(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Return rows as columns."""
    return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}


def measured_sources(given: Sources) -> dict[str, np.ndarray]:
    """Return the measures of noiseless sources, and what is known of them by drawing."""
    rows = []
    for flux in given.flux.astype(float):
        ivar = np.full(len(flux), (NOISE_FREE_SNR / np.median(flux)) ** 2)
        rows.append(row_of(measure(Spectrum(FINE_ANGSTROM, flux, ivar, z=0.0, frame="rest"))))
    known = {"kind": given.kind, "outlier": given.outlier, "star_type": given.star_type}
    return stacked(rows) | known


def synthetic(name: str, *, seed: int, per_kind: int, model: Encoder) -> dict[str, np.ndarray]:
    """Return vectors (n * VIEWS, d), measures and coverage of the first `per_kind` sources of each kind of a set."""
    folder, templates = cache_folder(), load_templates(TRAIN_TEMPLATES)
    flux, error = (np.load(folder / f"spectra_{name}_{what}.npy", mmap_mode="r") for what in ("flux", "error"))
    with np.load(folder / f"spectra_{name}.npz") as file:
        kinds, width = file["kind"], file["ew_ha"]
    parts: dict[str, list[np.ndarray]] = {}
    for kind in KINDS:
        begin = int(np.flatnonzero(kinds == kind)[0])
        for start in range(0, per_kind, CHUNK):
            count = min(CHUNK, per_kind - start)
            given = sources(kind, CHUNK, templates=templates, seed=seed + start // CHUNK)
            rows = slice(begin + start, begin + start + count)
            if not np.allclose(given.ew_ha[:count], width[rows], equal_nan=True):
                raise SystemExit(f"{name}: {kind} is not what the seed draws now; run export.prepare_spectra again")
            some = Sources(**{key: value[:count] for key, value in vars(given).items()})
            columns = {key: np.repeat(value, VIEWS, axis=0) for key, value in measured_sources(some).items()}
            seen = [np.asarray(part[rows], np.float32).reshape(-1, GRID.count) for part in (flux, error)]
            columns |= {"vectors": vectors(model, seen[0], seen[1] ** 2), **covered(seen[1])}
            columns["source"] = np.repeat(np.arange(rows.start, rows.stop), VIEWS)
            for key, value in columns.items():
                parts.setdefault(key, []).append(value)
        say(f"{name}: {kind}")
    return {key: np.concatenate(values) for key, values in parts.items()}


def real(model: Encoder) -> dict[str, np.ndarray]:
    """Return vectors, measures, class and the surveys' own lines of all real spectra, in the order of spectra_real."""
    with np.load(cache_folder() / "spectra_real.npz") as file:
        known = {key: file[key] for key in file.files}
    result = {"vectors": vectors(model, known["flux"], known["ivar"]), **covered(known["ivar"])}
    rows, own = [], []
    for stem in ("spectra", "spectra_more"):
        table = pq.read_table(data_folder() / f"{stem}.parquet").to_pylist()
        with np.load(data_folder() / f"{stem}.npz") as file:
            wavelength, flux, ivar = 10.0 ** file["loglam"], file["flux"], file["ivar"]
        own += table
        for line, values, weight in zip(table, flux, ivar, strict=True):
            rows.append(_measured(wavelength, values.astype(float), weight.astype(float), line["z"]))
    every = {name: np.nan for row in rows for name in row}
    result |= stacked([every | row for row in rows])
    columns = [f"{what}_{line}" for what in ("f", "e", "ew") for line in ("oii", "hb", "oiii", "ha", "nii")]
    result |= {f"sdss_{key}": np.array([row[key] for row in own], float) for key in columns}
    result["fors2_lines"] = np.array([row["lines"] or "" for row in own])
    for key in ("source", "name", "cls", "subclass", "object", "split", "z", "zwarning", "sn_median", "ra", "dec"):
        result[key] = known[key]
    return result


def _measured(wavelength: np.ndarray, flux: np.ndarray, ivar: np.ndarray, z: float | None) -> dict[str, float]:
    """Return the measures of a real spectrum, none where its redshift is unknown or nothing can be measured."""
    if z is None or not np.isfinite(z) or z < -0.01 or not (ivar > 0).any():
        return {}
    try:
        return row_of(measure(Spectrum(wavelength, np.where(ivar > 0, flux, 0.0), ivar, z=float(z))))
    except SchemaError as error:
        say(f"not measured: {error}")
        return {}


def load(name: str, folder: Path | None = None) -> dict[str, np.ndarray]:
    """Return a prepared set."""
    with np.load((folder or cache_folder()) / f"spectra_words_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def main() -> None:
    """Write all three sets."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sources", type=int, default=600, help="of each kind, for training")
    options = arguments.parse_args()
    folder, model = cache_folder(), encoder()
    sets = {
        "real": lambda: real(model),
        "validation": lambda: synthetic("validation", seed=VALIDATION_SEED, per_kind=200, model=model),
        "train": lambda: synthetic("train", seed=SEED, per_kind=options.sources, model=model),
    }
    for name, make in sets.items():
        made = make()
        np.savez(folder / f"spectra_words_{name}.npz", **made)
        say(f"{name}: {json.dumps({'rows': len(made['vectors'])})}")


if __name__ == "__main__":
    main()
