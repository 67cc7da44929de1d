"""How true and how fast lines of spectra are measured: `python -m benchmarks.lines`, with GALSEARCH_DATA set.

The peer is the pipeline of SDSS, whose fluxes come with its spectra. Its equivalent widths are in the observed frame,
flux over continuum, and are divided by 1 + z here. A line counts where SDSS has it at S/N above 5; objects with broad
lines, where SDSS fits one Gaussian to both parts of a line, are judged by their class and width alone. A second truth
needs no peer: recombination fixes H gamma over H beta once H alpha over H beta is known. Repeated spectra of one object
all count, and intervals are drawn over objects. The figures go to docs/lines.json, from which docs/spectra.md is
written. `--stars` prints how stars of known type absorb at the lines, from which `lines.STARS` was chosen.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from galsearch.science import lines
from galsearch.science.spectra import Spectrum, pixel_edges, to_rest_frame
from galsearch.sources.spectra import read_spectrum

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "lines.json"
SETS = ("spectra", "spectra_more")
COLUMNS = {  # of the tables -> our line
    "hb": "H beta",
    "oiii": "[O III] 5007",
    "oi": "[O I] 6300",
    "ha": "H alpha",
    "nii": "[N II] 6583",
    "sii1": "[S II] 6716",
    "sii2": "[S II] 6731",
}
FILES = {  # vacuum wavelength in SPZLINE -> our line; the two of [O II] are added
    3727.09: "[O II] 3727",
    3729.88: "[O II] 3727",
    4102.89: "H delta",
    4341.68: "H gamma",
    4862.68: "H beta",
    5008.24: "[O III] 5007",
    6302.05: "[O I] 6300",
    6564.61: "H alpha",
    6585.27: "[N II] 6583",
    6718.29: "[S II] 6716",
    6732.68: "[S II] 6731",
}
NARROW, BROAD = "no broad lines", "broad lines"


@dataclass
class Case:
    """A spectrum with what SDSS has of it: line -> flux, error, equivalent width at rest."""

    source: str
    object_id: str
    kind: str
    spectrum: Spectrum
    theirs: dict[str, tuple[float, float, float]]
    balmer_sigma: float = float("nan")


def main() -> None:
    """Measure truth and speed, print both, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("GALSEARCH_DATA"), help="folder of the sets")
    parser.add_argument("--stars", action="store_true", help="print how stars absorb at the lines, and nothing else")
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.data is None:
        raise SystemExit("the spectra are needed: set GALSEARCH_DATA or give --data")
    folder = args.data / "spectra"
    if args.stars:
        return stars(folder, seed=args.seed)
    cases = [*tables(folder), *files(folder)]
    measured = [lines.measure(case.spectrum) for case in cases]
    result = {
        "fluxes": fluxes(cases, measured, seed=args.seed),
        "classes": classes(cases, measured),
        "broad": broad(cases, measured),
        "decrement": decrement(cases, measured),
        "bright": bright(cases, measured),
        "repeats": repeats(cases, measured),
        "speed": speed(folder, cases),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
    }
    for part in ("fluxes", "classes", "broad", "decrement", "bright", "repeats", "speed"):
        for row in result[part]:
            print(part, json.dumps(row))
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return None


# ---- spectra and what SDSS says of them


def tables(folder: Path) -> Iterator[Case]:
    """Yield the spectra of the tables that SDSS has measured, of galaxies and quasars with a redshift."""
    for name in SETS:
        rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
        with np.load(folder / f"{name}.npz") as arrays:
            wavelength, flux, ivar = 10 ** arrays["loglam"], arrays["flux"], arrays["ivar"]
        for row, values, weight in zip(rows, flux, ivar, strict=True):
            theirs = _of_row(row)
            if row["cls"] not in ("GALAXY", "QSO") or row["zwarning"] or not row["z"] > 0.001 or not theirs:
                continue
            good = (weight > 0) & np.isfinite(values) & np.isfinite(weight)
            one = Spectrum(wavelength, np.where(good, values, 0), np.where(good, weight, 0), z=row["z"])
            kind = BROAD if row["cls"] == "QSO" or "BROADLINE" in row["subclass"] else NARROW
            yield Case(name, _object(row["ra"], row["dec"]), kind, one, theirs)


def _of_row(row: dict) -> dict[str, tuple[float, float, float]]:
    result = {}
    for short, line in COLUMNS.items():
        flux, error, width = (row[f"{part}_{short}"] for part in ("f", "e", "ew"))
        if error is not None and error > 0 and np.isfinite(error):
            result[line] = (flux, error, width / (1 + row["z"]))
    return result


def files(folder: Path) -> Iterator[Case]:
    """Yield the files of SDSS that hold a table of lines; the tables hold many of the same spectra."""
    from astropy.io import fits

    for path in sorted((folder / "fits").glob("spec-*.fits")):
        with warnings.catch_warnings(), fits.open(path) as units:
            warnings.simplefilter("ignore")
            if "SPZLINE" not in [unit.name for unit in units]:
                continue
            found = np.array(units["SPZLINE"].data)
            about = units[2].data[0]
            z, kind = float(about["Z"]), f"{about['CLASS']} {about['SUBCLASS']}"
            where = _object(float(about["PLUG_RA"]), float(about["PLUG_DEC"]))
            if about["ZWARNING"] or z < 0.001:
                continue
        theirs: dict[str, tuple[float, float, float]] = {}
        sigma = float("nan")
        for line in found:
            name = next((ours for at, ours in FILES.items() if abs(at - line["LINEWAVE"]) < 0.5), None)
            if name is None or not line["LINEAREA_ERR"] > 0:
                continue
            flux, error, width = theirs.get(name, (0.0, 0.0, 0.0))
            theirs[name] = (
                flux + float(line["LINEAREA"]),
                float(np.hypot(error, line["LINEAREA_ERR"])),
                width + float(line["LINEEW"]) / (1 + z),
            )
            if name in ("H beta", "H alpha"):
                sigma = float(line["LINESIGMA"])
        is_broad = "QSO" in kind or "BROADLINE" in kind
        yield Case("files", where, BROAD if is_broad else NARROW, read_spectrum(path), theirs, sigma)


def _object(ra: float, dec: float) -> str:
    return f"{ra:.3f} {dec:.3f}"


# ---- truth


def fluxes(cases: list[Case], measured: list[lines.Lines], *, seed: int) -> list[dict]:
    """Return, by source and line, ratios of fluxes and of equivalent widths, and differences in errors."""
    result = []
    for source in ("files", "tables"):
        for line in dict.fromkeys((*FILES.values(), *COLUMNS.values())):
            pairs = []
            for case, ours in zip(cases, measured, strict=True):
                theirs = case.theirs.get(line)
                if case.kind == BROAD or (case.source == "files") != (source == "files") or theirs is None:
                    continue
                row = ours.line.index(line)
                flux, error, width = (ours.values[name][row] for name in ("flux", "flux_error", "ew_angstrom"))
                if theirs[0] > 5 * theirs[1] and np.isfinite(flux):
                    pairs.append((case.object_id, flux, error, width, *theirs))
            if len(pairs) >= 3:
                result.append({"source": source, "line": line, **_agreement(pairs, seed=seed)})
    return result


def _agreement(pairs: list[tuple], *, seed: int) -> dict:
    owner = np.array([pair[0] for pair in pairs])
    flux, error, width, their_flux, their_error, their_width = np.array([pair[1:] for pair in pairs], float).T
    ratio = flux / their_flux
    pull = (flux - their_flux) / np.hypot(error, their_error)
    with np.errstate(all="ignore"):
        widths = width / their_width
    low, high = _interval(ratio, owner, seed=seed)
    return {
        "n": len(pairs),
        "objects": len(set(owner)),
        "flux ratio": float(np.median(ratio)),
        "low": low,
        "high": high,
        "ew ratio": float(np.nanmedian(widths)),
        "pull": float(np.median(pull)),
        "pull scatter": float(1.4826 * np.median(np.abs(pull - np.median(pull)))),
    }


def _interval(values: np.ndarray, owner: np.ndarray, *, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the median; objects are drawn, with all their spectra."""
    generator = np.random.default_rng(seed)
    names = np.unique(owner)
    groups = [values[owner == name] for name in names]
    drawn = [
        np.median(np.concatenate([groups[row] for row in generator.integers(0, len(groups), len(groups))]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def classes(cases: list[Case], measured: list[lines.Lines]) -> list[dict]:
    """Return how many spectra each pair of BPT classes has, theirs from the fluxes of SDSS by the same rules."""
    counts: dict[tuple[str, str], int] = {}
    for case, ours in zip(cases, measured, strict=True):
        if case.kind == BROAD or case.source == "files":
            continue
        theirs = _class_of(case.theirs)
        if theirs is not None:
            pair = theirs, str(ours.measures["bpt_class"])
            counts[pair] = counts.get(pair, 0) + 1
    return [{"SDSS": theirs, "ours": ours, "n": count} for (theirs, ours), count in sorted(counts.items())]


def _class_of(known: dict[str, tuple[float, float, float]]) -> str | None:
    needed = ("H alpha", "H beta", "[O III] 5007", "[N II] 6583")
    if any(name not in known or known[name][0] < 3 * known[name][1] for name in needed):
        return None

    def ratio(above: str, below: str) -> np.ndarray:
        is_known = above in known and known[above][0] >= 3 * known[above][1]
        return np.array([np.log10(known[above][0] / known[below][0]) if is_known else np.nan])

    both = [known.get(name, (np.nan, np.nan, np.nan)) for name in ("[S II] 6716", "[S II] 6731")]
    known = known | {"[S II]": (both[0][0] + both[1][0], float(np.hypot(both[0][1], both[1][1])), np.nan)}
    return lines.bpt_class(
        ratio("[N II] 6583", "H alpha"),
        ratio("[O III] 5007", "H beta"),
        log_sii_halpha=ratio("[S II]", "H alpha"),
        log_oi_halpha=ratio("[O I] 6300", "H alpha"),
    )[0]


def broad(cases: list[Case], measured: list[lines.Lines]) -> list[dict]:
    """Return how many spectra have broad Balmer lines or broad Mg II by our measure, by the class of SDSS."""
    result = []
    for kind in (NARROW, BROAD):
        for column, line in (("balmer_fwhm_kms", "H beta"), ("mgii_fwhm_kms", "Mg II 2799")):
            there = [
                (case, ours.measures[column])
                for case, ours in zip(cases, measured, strict=True)
                if case.source != "files" and case.kind == kind and _has(case.spectrum, column)
            ]
            wide = [value for _, value in there if value is not None and value > 1000]
            result.append(
                {
                    "SDSS": kind,
                    "line": line,
                    "n": len(there),
                    "objects": len({case.object_id for case, _ in there}),
                    "above 1000 km/s": len(wide),
                    "median FWHM, km/s": float(np.median(wide)) if wide else None,
                }
            )
    return result


def _has(spectrum: Spectrum, column: str) -> bool:
    at = 4862.7 if column == "balmer_fwhm_kms" else 2800.0
    good = spectrum.wavelength_angstrom[spectrum.ivar > 0] / (1 + spectrum.z)
    return bool(len(good) and good[0] < at - 100 and good[-1] > at + 100)


# Case B at 10,000 K and 100 per cm3 (Osterbrock and Ferland 2006, table 4.4), and A(lambda)/E(B-V) of Cardelli, Clayton
# and Mathis 1989 (ApJ 345, 245) with R_V = 3.1
CASE_B = {"H alpha": 2.863, "H gamma": 0.468, "H delta": 0.259}
DUST = {"H alpha": 2.53, "H beta": 3.61, "H gamma": 4.17, "H delta": 4.44}


def decrement(cases: list[Case], measured: list[lines.Lines]) -> list[dict]:
    """Return what H gamma and H delta over H beta are, in shares of what H alpha over H beta says they should be."""
    result = []
    for line in ("H gamma", "H delta"):
        pairs = []
        for case, ours in zip(cases, measured, strict=True):
            needed = ("H alpha", "H beta", line)
            if case.source != "files" or case.kind == BROAD or any(name not in case.theirs for name in needed):
                continue
            mine = {name: ours.values["flux"][ours.line.index(name)] for name in needed}
            error = ours.values["flux_error"][ours.line.index("H beta")]
            theirs = {name: case.theirs[name][0] for name in needed}
            if mine["H beta"] > 10 * error and all(np.isfinite([*mine.values(), *theirs.values()])):
                pairs.append((case.object_id, _excess(mine, line), _excess(theirs, line)))
        if pairs:
            ours_, theirs_ = np.array([pair[1:] for pair in pairs]).T
            result.append(
                {
                    "line": f"{line} / H beta",
                    "n": len(pairs),
                    "objects": len({pair[0] for pair in pairs}),
                    "ours / expected": float(np.median(ours_)),
                    "SDSS / expected": float(np.median(theirs_)),
                }
            )
    return result


def _excess(flux: dict[str, float], line: str) -> float:
    """Return a line's flux over what H alpha and H beta make expected."""
    reddening = (
        2.5 * np.log10(flux["H alpha"] / flux["H beta"] / CASE_B["H alpha"]) / (DUST["H beta"] - DUST["H alpha"])
    )
    expected = CASE_B[line] * 10 ** (-0.4 * max(reddening, 0.0) * (DUST[line] - DUST["H beta"]))
    return float(flux[line] / flux["H beta"] / expected)


def bright(cases: list[Case], measured: list[lines.Lines]) -> list[dict]:
    """Return [O III] 5007 by us and by SDSS over the plain sum of its pixels, where SDSS has it at S/N 50 and more.

    The continuum of the sum is the median beside the line; the line must have 20 Angstrom of it, so that this does
    not matter.
    """
    pairs = []
    for case, ours in zip(cases, measured, strict=True):
        flux, error, _ = case.theirs.get("[O III] 5007", (0.0, 1.0, 0.0))
        at = ours.line.index("[O III] 5007")
        width, mine, sigma = (ours.values[name][at] for name in ("ew_angstrom", "flux", "sigma_kms"))
        if case.kind == NARROW and flux > 50 * error and width > 20:
            pairs.append((case.object_id, mine / _sum(case.spectrum, sigma), flux / _sum(case.spectrum, sigma)))
    if not pairs:
        return []
    mine, theirs = np.array([pair[1:] for pair in pairs]).T
    return [
        {
            "line": "[O III] 5007",
            "n": len(pairs),
            "objects": len({pair[0] for pair in pairs}),
            "ours / sum": float(np.median(mine)),
            "ours, least and most": [float(mine.min()), float(mine.max())],
            "SDSS / sum": float(np.median(theirs)),
            "SDSS, least and most": [float(theirs.min()), float(theirs.max())],
        }
    ]


def _sum(spectrum: Spectrum, sigma: float) -> float:
    """Return the flux within six sigmas of [O III] 5007 above the median from there to twenty sigmas."""
    one = to_rest_frame(spectrum)
    low, high = pixel_edges(one.wavelength_angstrom)
    off = np.abs(one.wavelength_angstrom / 5008.24 - 1) * lines.LIGHT_KMS / sigma
    level = np.median(one.flux[(off > 7) & (off < 20) & (one.wavelength_angstrom > 4985) & (one.ivar > 0)])
    return float(((one.flux - level) * (high - low))[off < 6].sum())


def repeats(cases: list[Case], measured: list[lines.Lines], *, least: int = 20) -> list[dict]:
    """Return how narrow lines of an object with many epochs scatter, beside their errors; the lines do not vary."""
    owners = [case.object_id for case in cases if case.source != "files"]
    name = max(set(owners), key=owners.count)
    if owners.count(name) < least:
        return []
    both = [
        (case, ours)
        for case, ours in zip(cases, measured, strict=True)
        if case.object_id == name and case.source != "files"
    ]
    result = []
    for line in ("[O III] 5007", "H alpha", "[N II] 6583", "[S II] 6716"):
        values = np.array(
            [[ours.values[part][ours.line.index(line)] for part in ("flux", "flux_error")] for _, ours in both]
        )
        theirs = np.array([case.theirs.get(line, (np.nan, np.nan))[:2] for case, _ in both])
        result.append(
            {
                "line": line,
                "n": int(np.isfinite(values).all(axis=1).sum()),
                "scatter": _scatter(values[:, 0]),
                "error": float(np.nanmedian(values[:, 1] / values[:, 0])),
                "SDSS, scatter": _scatter(theirs[:, 0]),
                "SDSS, error": float(np.nanmedian(theirs[:, 1] / np.abs(theirs[:, 0]))),
            }
        )
    return result


def _scatter(values: np.ndarray) -> float:
    """Return the robust standard deviation over the median."""
    middle = np.nanmedian(values)
    return float(1.4826 * np.nanmedian(np.abs(values - middle)) / abs(middle))


# ---- speed


def speed(folder: Path, cases: list[Case]) -> list[dict]:
    """Return spectra a second of one core, by processor time: of arrays in memory, and of files with their reading."""
    began = time.process_time()
    for case in cases:
        lines.measure(case.spectrum)
    memory = len(cases) / (time.process_time() - began)
    paths = sorted((folder / "fits").glob("spec-*.fits"))
    done, began = 0, time.process_time()
    for path in paths:
        if path.name != "spec-0269-51581-0003.fits":  # an empty fiber, which the reader refuses
            lines.measure(read_spectrum(path))
            done += 1
    return [
        {"what": "in memory", "n": len(cases), "spectra/s": memory},
        {"what": "SDSS files, reading included", "n": done, "spectra/s": done / (time.process_time() - began)},
    ]


# ---- stars


def stars(folder: Path, *, seed: int, mixtures: int = 400) -> None:
    """Print, for each line, absorption in mixtures of stars as a straight line over that at H beta, and the scatter.

    A mixture is a hot star and two cool ones (D4000 above 1.45) of Indo-US, in random shares of the light at 5500
    Angstrom, blurred like a galaxy. Beside it: the same by D4000.
    """
    from scipy.ndimage import gaussian_filter1d

    rows = pq.read_table(folder / "spectra_more.parquet").to_pylist()
    chosen = [row for row, about in enumerate(rows) if about["source"].startswith("Indo-US")]
    with np.load(folder / "spectra_more.npz") as arrays:
        wavelength, flux, ivar = 10 ** arrays["loglam"], arrays["flux"][chosen], arrays["ivar"][chosen]
    good = (ivar > 0).all(axis=0)
    at = np.abs(wavelength - 5500) < 50
    blur = lines.STARS_KMS[1] / (lines.LIGHT_KMS * 1e-4 * np.log(10))
    flux = gaussian_filter1d(flux.astype(float), blur, axis=1)
    flux /= flux[:, at].mean(axis=1)[:, None]
    d4000 = np.array([_d4000(wavelength, one, good) for one in flux])
    hot, cool = np.flatnonzero(d4000 < 1.45), np.flatnonzero(d4000 >= 1.45)
    generator = np.random.default_rng(seed)
    names = [line.name for line in lines.EMISSION]
    widths, breaks = np.full((mixtures, len(names)), np.nan), np.zeros(mixtures)
    for row in range(mixtures):
        picked = [generator.choice(hot), *generator.choice(cool, 2)]
        share = generator.uniform(0, 1)
        mixture = np.array([share, (1 - share) / 2, (1 - share) / 2]) @ flux[picked]
        star = Spectrum(wavelength, np.where(good, mixture, 0), good * 1e4, z=0.0)
        measured = _absorption(star)
        widths[row] = [measured.get(name, np.nan) for name in names]
        breaks[row] = _d4000(wavelength, mixture, good)
    by = widths[:, names.index("H beta")]
    print(f"{len(hot)} hot and {len(cool)} cool stars, {mixtures} mixtures")
    for name, values in zip(names, widths.T, strict=True):
        slope, offset = np.polyfit(by, values, 1)
        scatter = float(np.std(values - offset - slope * by))
        print(f"{name:>14}  {offset:+.2f} {slope:+.2f} x  scatter {scatter:.2f}")
    for low, high in itertools.pairwise(D4000_EDGES):
        inside = by[(breaks >= low) & (breaks < high)]
        if len(inside) > 3:
            print(
                f"D4000 {low:.2f} to {high:.2f}: H beta {inside.mean():.2f}, scatter {inside.std():.2f}, {len(inside)}"
            )


D4000_EDGES = np.array([0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2.0, 2.2, 2.5])


def _d4000(wavelength: np.ndarray, flux: np.ndarray, good: np.ndarray) -> float:
    star = Spectrum(wavelength, np.where(good, flux, 0), good * 1e8, z=0.0)
    return lines._d4000(star, pixel_edges(wavelength))[0]


def _absorption(star: Spectrum) -> dict[str, float]:
    at_rest = to_rest_frame(star)
    pixels, known = lines._pixels(at_rest, pixel_edges(star.wavelength_angstrom), lines.WINDOWS, lines.EMISSION)
    model = replace(lines._model(pixels, known), group=tuple(line.group for line in known))
    shapes = np.array([[0.0, np.log(sigma)] for sigma in lines.STARS_KMS])
    solution = lines._solve(model, shapes, np.append(np.sqrt(pixels.ivar), 1.0))
    fluxes_ = solution.linear[model.fixed.shape[1] :]
    return {
        line.name: -flux / model.continuum(solution.linear, line.parts[0][0])[0]
        for line, flux in zip(known, fluxes_, strict=True)
    }


if __name__ == "__main__":
    main()
