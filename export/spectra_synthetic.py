"""Semi-synthetic spectra of known kind: eigentemplates, emission lines over the BPT plane, real sky residuals.

Two steps. `sources` makes galaxies, quasars and stars without noise in the rest frame: continua from templates (stars
and early-type galaxies mixed, reddened, broadened; quasar eigenspectra), lines by the ratios of their kind. `observe`
puts them at a redshift before an instrument: coverage, resolution, calibration, telluric bands, gaps, what cameras do,
and noise with the level and the residuals of real SDSS sky fibers. `draw` does both. There are two independent sets of
templates, "sdss" (idlspec2d) and "redrock" (DESI), so that what is trained on one can be judged on the other.

Everything drawn is semi-synthetic: say so wherever a number rests on it. Needs GALSEARCH_DATA; numpy alone computes.

    >>> drawn = draw("liner", 100, templates=load_templates("redrock"), seed=1, z=(0.0, 0.35))  # doctest: +SKIP
    >>> drawn.flux.shape, drawn.kind[0]                                                         # doctest: +SKIP
    ((100, 1050), 'liner')
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from galsearch.science.spectra import LogGrid, Spectrum, rebin

GRID = LogGrid(3.15, 8e-4, 1050)  # 1413 to 9753 Angstrom; [N II] and H alpha are 1.7 pixels apart
FINE = 8  # pixels of 1e-4, as SDSS has them, in one of the grid
FINE_STEP = 1e-4
KINDS = (
    *("star-forming", "composite", "seyfert", "liner", "passive"),
    *("post-starburst", "qso", "star", "lens", "outlier"),
)
BPT_KINDS = KINDS[:4]
OUTLIERS = ("broken", "wrong-z", "double-peak", "glitch")
INSTRUMENTS = {"sdss": (3800, 9200), "boss": (3600, 10350), "desi": (3600, 9824), "fors2": (4450, 9250)}  # Angstrom
INSTRUMENT_SHARE = {"sdss": 0.35, "boss": 0.3, "desi": 0.2, "fors2": 0.15}
CAMERA_JOIN = {"sdss": (6000,), "boss": (6100,), "desi": (5800, 7600), "fors2": ()}  # Angstrom, about
SETS = {"sdss": "idlspec2d eigentemplates", "redrock": "redrock-templates"}
LIGHT = 299_792.458  # km/s

LINES = {  # vacuum, Angstrom (NIST values as SDSS lists them); doublets with fixed ratios are split below
    "oii": (3727.09, 3729.88),
    "neiii": (3869.86,),
    "hd": (4102.89,),
    "hg": (4341.68,),
    "hb": (4862.68,),
    "oiii": (4960.30, 5008.24),
    "hei": (5877.25,),
    "oi": (6302.05, 6365.54),
    "nii": (6549.86, 6585.27),
    "ha": (6564.61,),
    "sii": (6718.29, 6732.67),
}
SHARES = {"oii": (0.42, 0.58), "oiii": (0.251, 0.749), "oi": (0.757, 0.243), "nii": (0.254, 0.746), "sii": (0.56, 0.44)}


@dataclass(frozen=True, eq=False)
class Templates:
    """Noiseless continua on the fine rest grid, each (m, GRID.count * FINE), all with a mean of 1 about 5500 Å."""

    name: str
    old: np.ndarray  # K and G stars and an early-type galaxy
    young: np.ndarray  # F and late A stars
    hot: np.ndarray  # A and B stars
    star: np.ndarray  # every spectral type
    star_type: np.ndarray  # of each: B, A, F, G, K, M or WD
    qso: np.ndarray  # eigenspectra, the mean first


@dataclass(frozen=True, eq=False)
class Sources:
    """Noiseless spectra in the rest frame: flux (n, GRID.count * FINE) float32 and what is known of each."""

    flux: np.ndarray
    kind: np.ndarray  # of KINDS
    outlier: np.ndarray  # of OUTLIERS, else ""
    log_nii_ha: np.ndarray  # NaN where there are no lines
    log_oiii_hb: np.ndarray
    ew_ha: np.ndarray  # Angstrom, of emission
    source_ratio: np.ndarray  # (1 + z of the lensed source) / (1 + z of the lens), NaN without
    star_type: np.ndarray  # of Templates, "" unless it is a star

    def __len__(self) -> int:
        return len(self.flux)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Observed spectra on GRID in the rest frame: flux and ivar (n, GRID.count) float32, ivar 0 without data."""

    flux: np.ndarray
    ivar: np.ndarray
    kind: np.ndarray
    outlier: np.ndarray
    z: np.ndarray
    snr: np.ndarray  # median per SDSS pixel (69 km/s), as asked for
    instrument: np.ndarray
    log_nii_ha: np.ndarray
    log_oiii_hb: np.ndarray
    ew_ha: np.ndarray
    star_type: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    def take(self, rows: np.ndarray) -> Drawn:
        """Return some rows."""
        return Drawn(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def spectrum(self, row: int) -> Spectrum:
        """Return one as galsearch has spectra, in the rest frame, with its kind as its name."""
        return Spectrum(
            GRID.wavelength_angstrom,
            np.where(self.ivar[row] > 0, self.flux[row], 0.0),
            self.ivar[row],
            z=float(self.z[row]),
            name=str(self.kind[row]),
            frame="rest",
        )


def joined(parts: list[Drawn]) -> Drawn:
    """Return several sets as one, in their order."""
    return Drawn(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Drawn)})


def fine_log_wavelength() -> np.ndarray:
    """Return log10 of the wavelengths of the fine rest grid, FINE pixels in one of GRID."""
    first = GRID.start + FINE_STEP * (0.5 - FINE / 2)
    return first + FINE_STEP * np.arange(GRID.count * FINE)


FINE_LOG = fine_log_wavelength()
FINE_ANGSTROM = 10.0**FINE_LOG


# ---- templates and sky


def data_folder() -> Path:
    """Return GALSEARCH_DATA/spectra; raise where it is not set."""
    home = os.environ.get("GALSEARCH_DATA")
    if not home:
        raise SystemExit("GALSEARCH_DATA is not set; it names the folder with spectra/")
    return Path(home) / "spectra"


@cache
def load_templates(name: str) -> Templates:
    """Return a set of templates by its name, "sdss" or "redrock"."""
    if name not in SETS:
        raise ValueError(f"templates {name!r} are not known; take one of {', '.join(SETS)}")
    galaxy, stars, qso = _sdss() if name == "sdss" else _redrock()
    every = {kind: np.stack(rows) for kind, rows in stars.items()}
    return Templates(
        name,
        old=np.concatenate([np.repeat(galaxy[None], 4, axis=0), every["K"], every["G"]]),
        young=every["F"],
        hot=np.concatenate([every["A"], every["B"]]),
        star=np.concatenate(list(every.values())),
        star_type=np.repeat(list(every), [len(rows) for rows in every.values()]),
        qso=qso,
    )


def _sdss() -> tuple[np.ndarray, dict[str, list[np.ndarray]], np.ndarray]:
    from astropy.io import fits

    folder = data_folder() / "sdss-eigentemplates"
    with fits.open(folder / "spEigenGal-56436.fits") as file:
        galaxy = _on_grid(file[0].data[0], 3.073)
    with fits.open(folder / "spEigenStar-55734.fits") as file:
        names = [file[0].header[f"NAME{row}"] for row in range(len(file[0].data))]
        rows = [_on_grid(row, 3.4842) for row in file[0].data]
    stars: dict[str, list[np.ndarray]] = {kind: [] for kind in ("B", "A", "F", "G", "K", "M", "WD")}
    for label, row in zip(names, rows, strict=True):
        kind = "WD" if label.startswith("WD") else label[0]
        has_emission = kind != "WD" and "e" in label.split("(")[0]
        if kind in stars and not has_emission:
            stars[kind].append(row)
    with fits.open(folder / "spEigenQSO-EMPCA-cleaned.fits") as file:
        qso = _components(file[0].data[:5], 2.6534)
    return _without_lines(galaxy), stars, qso


def _redrock() -> tuple[np.ndarray, dict[str, list[np.ndarray]], np.ndarray]:
    with np.load(data_folder() / "redrock-templates" / "redrock_templates.npz") as file:
        galaxy = _on_grid(file["GALAXY-first"][1], float(file["GALAXY-first_loglam0"]))
        stars = {}
        for kind in ("B", "A", "F", "G", "K", "M", "WD"):
            rows, start = file[f"STAR-{kind}-v0.1"], float(file[f"STAR-{kind}-v0.1_loglam0"])
            stars[kind] = _archetypes(rows, start, seed=len(kind) + ord(kind[0]))
        qso = _components(file["QSO-LOZ-v1.1"], float(file["QSO-LOZ-v1.1_loglam0"]))
    return _without_lines(galaxy), stars, qso


def _archetypes(rows: np.ndarray, start: float, *, seed: int, count: int = 12) -> list[np.ndarray]:
    """Return the mean star of eigenspectra with a little of the others: up to 12 % of its light in the scatter."""
    random = np.random.default_rng(seed)
    mean = rows[0] * np.sign(rows[0].mean())
    others = rows[1:] / rows[1:].std(axis=1, keepdims=True) * np.abs(mean).mean()
    mixed = [mean + 0.12 * random.uniform(-1, 1, len(others)) @ others / len(others) ** 0.5 for _ in range(count)]
    return [_on_grid(np.maximum(row, 0.02 * np.abs(mean).mean()), start) for row in mixed]


def _on_grid(values: np.ndarray, start: float) -> np.ndarray:
    """Return a template on the fine grid, its ends continued as power laws, with a mean of 1 about 5500 Å."""
    log = start + FINE_STEP * np.arange(len(values))
    good = np.flatnonzero(values != 0)
    values, log = np.asarray(values, np.float64)[good[0] : good[-1] + 1], log[good[0] : good[-1] + 1]
    result = np.interp(FINE_LOG, log, values)
    for end, outside in ((slice(0, 400), log[0] > FINE_LOG), (slice(-400, None), log[-1] < FINE_LOG)):
        level = max(float(np.mean(values[end])), 1e-6)
        slope = np.polyfit(log[end] - log[end].mean(), values[end] / level, 1)[0]
        edge = log[0] if end.start == 0 else log[-1]
        result[outside] = level * 10 ** np.clip(slope / 2.3 * (FINE_LOG[outside] - edge), -1.5, 0.7)
    return (result / _level(result)).astype(np.float32)


def _components(rows: np.ndarray, start: float) -> np.ndarray:
    """Return eigenspectra of quasars: a mean of 1 in the geometric sense, the others as their share of the mean."""
    log = start + FINE_STEP * np.arange(rows.shape[1])
    mean = np.interp(FINE_LOG, log, rows[0] * np.sign(rows[0].mean()))
    others = np.stack([np.interp(FINE_LOG, log, row) for row in rows[1:]])
    shares = others / np.maximum(mean, 1e-3 * np.abs(mean).mean())
    shares /= np.maximum(np.percentile(np.abs(shares), 90, axis=1, keepdims=True), 1e-9)
    return np.concatenate([(mean / _level(mean))[None], np.clip(shares, -2, 2)]).astype(np.float32)


def _level(values: np.ndarray) -> float:
    near = np.abs(FINE_ANGSTROM - 5500) < 100
    return float(values[near].mean())


def _without_lines(values: np.ndarray) -> np.ndarray:
    """Return a continuum with straight lines across what emission there is, from 12 Å before to 12 Å after."""
    result = values.copy()
    for centers in LINES.values():
        for center in centers:
            inside = np.abs(FINE_ANGSTROM - center) < 12
            first, last = np.flatnonzero(inside)[[0, -1]]
            ends = [values[first - 20 : first].mean(), values[last : last + 20].mean()]
            result[inside] = np.minimum(result[inside], np.linspace(*ends, inside.sum()) * 1.003)
    return result


@cache
def load_sky(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the residuals of sky fibers in units of their errors, and the errors, each (m, 7400) from 3.48 in log10.

    `part` is "train" (even fibers) or "test" (odd ones); fibers with light of an object in them are left out. What a
    fiber does not cover is filled with noise of the level at its end.
    """
    with np.load(data_folder() / "sky_residuals.npz") as file:
        log, flux, ivar = file["loglam"], file["flux"], file["ivar"]
    significance = flux * np.sqrt(ivar)
    spread = np.array([row[good].std() for row, good in zip(significance, ivar > 0, strict=True)])
    middle = np.array([np.median(row[good]) for row, good in zip(significance, ivar > 0, strict=True)])
    kept = np.flatnonzero((spread < 1.4) & (spread > 0.6) & (np.abs(middle) < 0.25))
    kept = kept[(0 if part == "train" else 1) :: 2]
    random = np.random.default_rng(7)
    residuals, errors = [], []
    for row in kept:
        good = ivar[row] > 0
        sigma = np.interp(SKY_LOG, log[good], 1 / np.sqrt(ivar[row][good]))
        inside = np.interp(SKY_LOG, log, good.astype(float)) > 0.99
        drawn = np.where(
            inside, np.interp(SKY_LOG, log, significance[row]), random.normal(0, spread[row], len(SKY_LOG))
        )
        residuals.append(np.clip(drawn, -12, 12))
        errors.append(sigma / np.median(sigma))
    return np.array(residuals, np.float32), np.clip(np.array(errors, np.float32), 0.2, 20)


SKY_LOG = 3.54 + FINE_STEP * np.arange(4800)  # 3467 to 10471 Angstrom


# ---- sources


def sources(kind: str, n: int, *, templates: Templates, seed: int) -> Sources:
    """Return n sources of one kind, noiseless and in the rest frame."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not known; take one of {', '.join(KINDS)}")
    random = np.random.default_rng([seed, KINDS.index(kind)])
    nothing = np.full(n, np.nan, np.float32)
    known = {"log_nii_ha": nothing, "log_oiii_hb": nothing, "ew_ha": nothing, "source_ratio": nothing}
    outlier, star_type = np.full(n, "", "U12"), np.full(n, "", "U2")
    if kind == "qso":
        return Sources(_quasars(n, templates, random), np.full(n, kind, "U16"), outlier, **known, star_type=star_type)
    if kind == "star":
        flux, star_type = _stars(n, templates, random)
        return Sources(flux, np.full(n, kind, "U16"), outlier, **known, star_type=star_type)
    if kind == "outlier":
        outlier = random.choice(OUTLIERS, n).astype("U12")
        looks = random.choice(["passive", *BPT_KINDS, "post-starburst"], n)
        looks = np.where(outlier == "double-peak", random.choice(["star-forming", "seyfert"], n), looks)
    else:
        looks = np.full(n, "passive" if kind == "lens" else kind)
    flux = _continua(looks, templates, random)
    known |= _add_lines(flux, looks, random, split=outlier == "double-peak")
    if kind == "lens":
        known["source_ratio"] = _add_source(flux, random)
    return Sources(flux, np.full(n, kind, "U16"), outlier, **known, star_type=star_type)


def _mixed(rows: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Return n mixtures of three rows each."""
    weights = random.dirichlet(np.ones(3), n).astype(np.float32)
    picks = random.integers(len(rows), size=(n, 3))
    return sum(weights[:, [column]] * rows[picks[:, column]] for column in range(3))


SHARE_OF_OLD = {  # and of hot stars in the rest of the light at 5500 Å, from least to most
    "star-forming": ((0.1, 0.6), (0.3, 0.9)),
    "composite": ((0.4, 0.85), (0.1, 0.6)),
    "seyfert": ((0.5, 0.95), (0.1, 0.6)),
    "liner": ((0.75, 1.0), (0.0, 0.3)),
    "passive": ((0.88, 1.0), (0.0, 0.1)),
    "post-starburst": ((0.15, 0.5), (0.8, 1.0)),
}


def _continua(looks: np.ndarray, templates: Templates, random: np.random.Generator) -> np.ndarray:
    """Return the light of stars for each look, (n, fine) float32."""
    n = len(looks)
    bounds = np.array([[*SHARE_OF_OLD[look][0], *SHARE_OF_OLD[look][1]] for look in looks])
    old = random.uniform(bounds[:, 0], bounds[:, 1])[:, None].astype(np.float32)
    hot = random.uniform(bounds[:, 2], bounds[:, 3])[:, None].astype(np.float32)
    young = hot * _mixed(templates.hot, n, random) + (1 - hot) * _mixed(templates.young, n, random)
    flux = old * _mixed(templates.old, n, random) + (1 - old) * young
    dust = np.where(np.isin(looks, ["passive", "post-starburst"]), 0.1, 0.35) * random.random(n)
    tilt = random.normal(0, 0.15, n)
    flux *= _reddening(dust)
    flux *= np.exp(np.outer(tilt, np.log(FINE_ANGSTROM / 5500))).astype(np.float32)
    flux = _blurred(flux, random.uniform(1.2, 3.6))  # 80 to 250 km/s
    return np.maximum(flux, 1e-3)


def _reddening(e_bv: np.ndarray) -> np.ndarray:
    """Return the transmission of a starburst's dust, (n, fine); Calzetti et al. 2000 (ApJ 533, 682), equation 4."""
    x = 1e4 / FINE_ANGSTROM
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    curve = np.where(FINE_ANGSTROM < 6300, blue, 2.659 * (-1.857 + 1.04 * x) + 4.05)
    return 10 ** (-0.4 * np.outer(e_bv, curve - 4.05)).astype(np.float32)


def _blurred(flux: np.ndarray, sigma_px: float) -> np.ndarray:
    """Return the rows convolved with a Gaussian whose sigma is in fine pixels."""
    reach = int(np.ceil(4 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    padded = np.pad(flux, ((0, 0), (reach, reach)), mode="edge")
    result = np.zeros_like(flux)
    for shift, weight in enumerate(kernel):
        result += weight * padded[:, shift : shift + flux.shape[1]]
    return result


def bpt_point(kind: str, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return log [N II]/Halpha and log [O III]/Hbeta, each (n,), inside the region of a kind.

    Regions by Kauffmann et al. 2003 (MNRAS 346, 1055, equation 1), Kewley et al. 2001 (ApJ 556, 121, equation 5) and,
    between Seyferts and LINERs, Schawinski et al. 2007 (MNRAS 382, 1415): y = 1.05 x + 0.45.
    """
    xs, ys = np.empty(0), np.empty(0)
    while len(xs) < n:
        x = random.uniform(*{"star-forming": (-1.5, -0.3), "composite": (-0.5, 0.1)}.get(kind, (-0.35, 0.4)), 4 * n)
        if kind == "star-forming":  # along the sequence of metallicity, Kewley et al. 2013 (ApJ 774, 100), equation 3
            y = 0.61 / (x + 0.08) + 1.1 + random.normal(0, 0.1, len(x))
        else:
            y = random.uniform(-0.6, 1.2, len(x))
        inside = bpt_kind(x, y) == kind
        xs, ys = np.concatenate([xs, x[inside]]), np.concatenate([ys, y[inside]])
    return xs[:n], ys[:n]


def bpt_kind(log_nii_ha: np.ndarray, log_oiii_hb: np.ndarray) -> np.ndarray:
    """Return the kind, of BPT_KINDS, that the two ratios mean (see bpt_point)."""
    x, y = np.asarray(log_nii_ha, float), np.asarray(log_oiii_hb, float)
    with np.errstate(all="ignore"):
        below_kauffmann = (x < 0.05) & (y < 0.61 / (x - 0.05) + 1.3)
        below_kewley = (x < 0.47) & (y < 0.61 / (x - 0.47) + 1.19)
    is_seyfert = y > 1.05 * x + 0.45
    return np.select([below_kauffmann, below_kewley, is_seyfert], ["star-forming", "composite", "seyfert"], "liner")


EQUIVALENT_WIDTH = {  # of H alpha, Angstrom: median, scatter in dex, least, most
    "star-forming": (30, 0.35, 6, 200),
    "composite": (14, 0.25, 5, 60),
    "seyfert": (20, 0.3, 5, 100),
    "liner": (
        6,
        0.2,
        3,
        15,
    ),  # with less than 3 Å stars explain it: retired (Cid Fernandes et al. 2011, MNRAS 413, 1687)
    "passive": (0.15, 0.2, 0, 0.4),
    "post-starburst": (0.8, 0.3, 0, 2.5),
}
RATIOS = {  # log of [S II]/Halpha, [O I]/Halpha, [O II]/[O III]
    "star-forming": (-0.5, -1.6, 0.2),
    "composite": (-0.4, -1.3, 0.3),
    "seyfert": (-0.25, -0.95, -0.4),
    "liner": (-0.02, -0.65, 0.3),
}


def _add_lines(
    flux: np.ndarray, looks: np.ndarray, random: np.random.Generator, *, split: np.ndarray
) -> dict[str, np.ndarray]:
    """Add the emission lines of each look to `flux`; return the two ratios of the BPT plane and the width of Halpha.

    Where `split` is true each line is two, 600 to 1,200 km/s apart.
    """
    n = len(looks)
    kinds = np.where(np.isin(looks, BPT_KINDS), looks, np.where(looks == "passive", "liner", "star-forming"))
    x, y = np.empty(n), np.empty(n)
    for kind in np.unique(kinds):
        rows = kinds == kind
        x[rows], y[rows] = bpt_point(str(kind), int(rows.sum()), random)
    middle, scatter, least, most = np.array([EQUIVALENT_WIDTH[look] for look in looks]).T
    width = np.clip(middle * 10 ** random.normal(0, scatter), least, most)
    near = np.abs(FINE_ANGSTROM - 6564.6) < 80
    ha = width * flux[:, near].mean(axis=1)
    sii, oi, oii = (np.array([RATIOS[kind] for kind in kinds]) + random.normal(0, 0.12, (n, 3))).T
    hb = ha / 2.86 * 10 ** (-0.4 * 1.2 * random.uniform(0, 0.5, n))
    oiii = hb * 10**y
    strengths = {"ha": ha, "hb": hb, "hg": 0.469 * hb * 0.95, "hd": 0.26 * hb * 0.9, "oiii": oiii * 1.335}
    strengths |= {"nii": ha * 10**x * 1.34, "sii": ha * 10**sii, "oi": ha * 10**oi * 1.32}
    strengths |= {"oii": oiii * 1.335 * 10**oii * 0.9, "neiii": 0.1 * oiii, "hei": 0.12 * hb}
    strengths["oii"] = np.where(kinds == "star-forming", hb * 10 ** random.normal(0.35, 0.15, n), strengths["oii"])
    sigma = np.where(kinds == "star-forming", random.uniform(70, 170, n), random.uniform(120, 320, n))
    apart = np.where(split, random.uniform(300, 600, n), 0.0)
    share = np.where(split, random.uniform(0.35, 0.65, n), 0.5)
    sigma = np.where(split, random.uniform(60, 110, n), sigma)
    for part, sign in ((share, 1), (1 - share, -1)):
        _add_system(flux, {name: value * part for name, value in strengths.items()}, sigma, 1 + sign * apart / LIGHT)
    has = np.isin(looks, BPT_KINDS)
    return {
        "log_nii_ha": np.where(has, x, np.nan).astype(np.float32),
        "log_oiii_hb": np.where(has, y, np.nan).astype(np.float32),
        "ew_ha": width.astype(np.float32),
    }


def _add_system(flux: np.ndarray, strengths: dict[str, np.ndarray], sigma_kms: np.ndarray, ratio: np.ndarray) -> None:
    """Add Gaussians of flux (n,) at the wavelengths of LINES times `ratio` (n,), sigma with the instrument's 70."""
    rows = np.arange(len(flux))[:, None]
    sigma = np.sqrt(sigma_kms**2 + 70**2) / LIGHT  # of the wavelength
    reach = np.arange(-80, 81)
    for name, strength in strengths.items():
        for center, share in zip(LINES[name], SHARES.get(name, (1.0,)), strict=True):
            at = center * ratio
            middle = np.rint((np.log10(at) - FINE_LOG[0]) / FINE_STEP).astype(int)
            columns = middle[:, None] + reach
            inside = (columns >= 0) & (columns < flux.shape[1])
            columns = np.clip(columns, 0, flux.shape[1] - 1)
            width = (at * sigma)[:, None]
            profile = np.exp(-0.5 * ((FINE_ANGSTROM[columns] - at[:, None]) / width) ** 2) / (
                width * np.sqrt(2 * np.pi)
            )
            np.add.at(
                flux, (rows, columns), np.where(inside, profile * strength[:, None] * share, 0).astype(np.float32)
            )


def _add_source(flux: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add the lines of a star-forming galaxy behind each; return (1 + z_source) / (1 + z_lens), (n,).

    Its brightest line has 6 to 30 Å against the lens's light; its [O III] stays below 9000 Å (`observe`).
    """
    n = len(flux)
    ratio = 10 ** random.uniform(0.035, 0.2, n)
    brightest = 10 ** random.uniform(np.log10(6), np.log10(30), n)
    oiii, oii = random.uniform(0.4, 1, n), random.uniform(0.4, 1, n)
    scale = np.maximum(oiii * 0.75, oii)
    at = np.where(oiii * 0.75 > oii, 5008.24, 3728.5) * ratio
    columns = np.clip(np.rint((np.log10(at) - FINE_LOG[0]) / FINE_STEP).astype(int), 40, flux.shape[1] - 41)
    level = flux[np.arange(n)[:, None], columns[:, None] + np.arange(-40, 41)].mean(axis=1)
    unit = brightest * level / scale
    hb = np.maximum(oiii, oii) * random.uniform(0.25, 0.5, n)
    ha, nii = 3.1 * hb, 3.1 * hb * random.uniform(0.05, 0.3, n)
    parts = {"oiii": oiii, "oii": oii, "hb": hb, "ha": ha, "nii": nii, "hg": 0.45 * hb}
    _add_system(flux, {name: unit * value for name, value in parts.items()}, random.uniform(50, 120, n), ratio)
    return ratio.astype(np.float32)


def _quasars(n: int, templates: Templates, random: np.random.Generator) -> np.ndarray:
    """Return quasars: the mean with shares of the other eigenspectra and another slope."""
    mean, shares = templates.qso[0], templates.qso[1:4]
    weights = random.normal(0, 0.18, (n, len(shares))).astype(np.float32)
    flux = mean * np.exp(np.clip(weights @ shares, -1, 1))
    smooth = _blurred(mean[None], 300.0)
    flux = flux + np.outer(10 ** random.uniform(-1.5, 0.3, n), smooth).astype(np.float32)  # lines weak and strong
    slope = random.normal(0, 0.5, n)
    flux *= np.exp(np.outer(slope, np.log(FINE_ANGSTROM / 3000))).astype(np.float32)
    return np.maximum(flux, 1e-3).astype(np.float32)


def _stars(n: int, templates: Templates, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return stars of every type, each with a little of another and reddened, and their types."""
    picks = [random.integers(len(templates.star), size=n) for _ in range(2)]
    first, second = (templates.star[rows] for rows in picks)
    flux = first + np.minimum(0.05, random.exponential(0.02, n))[:, None].astype(np.float32) * second
    flux = np.maximum(flux * _reddening(random.exponential(0.08, n)), 1e-3).astype(np.float32)
    return flux, templates.star_type[picks[0]]


# ---- observation


def observe(
    given: Sources,
    *,
    seed: int,
    snr: tuple[float, float] = (2, 30),
    z: tuple[float, float] = (0.0, 0.7),
    sky: str = "train",
    instruments: tuple[str, ...] = tuple(INSTRUMENTS),
    z_error: float = 3e-4,
) -> Drawn:
    """Return the sources as instruments see them, back in the rest frame on GRID.

    `snr` is drawn evenly in the logarithm and means the median per SDSS pixel; `z` evenly. Quasars reach three times
    the redshift plus 0.3, stars have none. `z_error` is the scatter of the redshift that takes them back, over 1 + z.
    """
    random, n = np.random.default_rng([seed, 1]), len(given)
    ratio = np.exp(random.uniform(np.log(snr[0]), np.log(snr[1]), n))
    redshift = np.maximum(random.uniform(*z, n), 0.003)
    redshift = np.where((given.kind == "qso") & (z[1] >= 0.7), redshift * 3 + 0.3, redshift)
    redshift = np.where(given.kind == "star", random.normal(0, 3e-4, n), redshift)
    farthest = 9000 / 5008.24 / np.nan_to_num(given.source_ratio, nan=0.1) - 1  # the source's [O III] stays in sight
    redshift = np.minimum(redshift, np.maximum(farthest, 0.02))
    weights = np.array([INSTRUMENT_SHARE[name] for name in instruments])
    tool = random.choice(instruments, n, p=weights / weights.sum())
    shift = np.rint(np.log10(1 + redshift) / FINE_STEP).astype(int)
    flux = given.flux.copy()
    blunt = tool == "fors2"
    if blunt.any():
        flux[blunt] = _blurred(flux[blunt], random.uniform(3, 6))
    observed = np.empty((n, len(SKY_LOG)), np.float32)
    offset = round((SKY_LOG[0] - FINE_LOG[0]) / FINE_STEP)
    columns = np.clip(np.arange(len(SKY_LOG)) + offset - shift[:, None], 0, flux.shape[1] - 1)
    observed[:] = np.take_along_axis(flux, columns, axis=1)
    good = _coverage(tool, random)
    good &= (np.arange(len(SKY_LOG)) + offset - shift[:, None] >= 0) & (columns < flux.shape[1] - 1)
    observed *= _calibration(tool, random)
    _artifacts(observed, tool, given.outlier, random)
    residuals, errors = load_sky(sky)
    first, second = random.integers(len(residuals), size=(2, n))
    angle = random.uniform(0, 2 * np.pi, (n, 1)).astype(np.float32)
    noise = np.cos(angle) * residuals[first] + np.sin(angle) * residuals[second]
    noise = 0.9 * noise + 0.45 * random.standard_normal(noise.shape, np.float32)
    level = np.array([np.median(row[mask]) if mask.any() else 1.0 for row, mask in zip(observed, good, strict=True)])
    sigma = errors[first] * (np.maximum(level, 1e-3) / ratio)[:, None].astype(np.float32)
    observed += noise * sigma
    error = np.rint(random.normal(0, z_error, n) / np.log(10) / FINE_STEP).astype(int)
    wrong = given.outlier == "wrong-z"
    error += np.where(wrong, random.choice([-1, 1], n) * random.integers(300, 1500, n), 0)
    rest_flux, rest_ivar = _to_rest(observed, np.where(good, sigma, np.inf), offset - shift - error)
    return Drawn(
        rest_flux,
        rest_ivar,
        given.kind,
        given.outlier,
        redshift.astype(np.float32),
        ratio.astype(np.float32),
        tool.astype("U8"),
        given.log_nii_ha,
        given.log_oiii_hb,
        given.ew_ha,
        given.star_type,
    )


def _coverage(tool: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return which pixels of SKY_LOG an instrument sees: its range, less gaps of 10 to 200 pixels in half of all."""
    n = len(tool)
    ends = np.log10(np.array([INSTRUMENTS[name] for name in tool], float))
    ends[:, 0] += np.where(tool == "fors2", random.uniform(0, 0.06, n), random.uniform(0, 0.004, n))
    ends[:, 1] -= np.where(tool == "fors2", random.uniform(0, 0.035, n), random.uniform(0, 0.004, n))
    good = (ends[:, [0]] < SKY_LOG) & (ends[:, [1]] > SKY_LOG)
    for row in np.flatnonzero(random.random(n) < 0.5):
        for _ in range(random.integers(1, 4)):
            start = random.integers(len(SKY_LOG))
            good[row, start : start + int(np.exp(random.uniform(np.log(10), np.log(200))))] = False
    return good


def _calibration(tool: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return how an instrument scales the flux: a smooth curve, steps where cameras join, and telluric bands."""
    n = len(tool)
    x = np.linspace(-1, 1, len(SKY_LOG))
    amount = np.where(tool == "fors2", 0.12, 0.04)[:, None]
    curve = 1 + amount * (random.normal(size=(n, 3)) @ np.stack([x, x**2 - 1 / 3, x**3 - 0.6 * x]))
    for name, joins in CAMERA_JOIN.items():
        for join in joins:
            rows = np.flatnonzero((tool == name) & (random.random(n) < 0.5))
            edge = np.log10(join) + random.normal(0, 0.002, len(rows))
            step = random.normal(0, 0.02, len(rows))
            curve[rows] *= 1 + step[:, None] * (edge[:, None] < SKY_LOG)
    deep = np.where(tool == "fors2", 0.5, 0.1) * random.random(n)
    bands = sum(
        weight * np.exp(-0.5 * ((SKY_LOG - np.log10(center)) / width) ** 2)
        for center, width, weight in (
            (7615, 0.0012, 1.0),
            (6880, 0.0008, 0.5),
            (7200, 0.003, 0.15),
            (8230, 0.003, 0.12),
        )
    )
    return (np.clip(curve, 0.3, 3) * (1 - deep[:, None] * bands)).astype(np.float32)


def _artifacts(observed: np.ndarray, tool: np.ndarray, outlier: np.ndarray, random: np.random.Generator) -> None:
    """Change `observed` as instruments do: a little in a tenth of all, much in the outliers "glitch" and "broken".

    The false absorption at 8600 Å and the false line near 8000 Å are those that DESI's users report.
    """
    n = len(observed)
    mild = (random.random(n) < 0.1) & (outlier == "")
    for row in np.flatnonzero(mild | (outlier == "glitch")):
        strong = outlier[row] == "glitch"
        level = np.median(observed[row])
        which = random.integers(3)
        depth = random.uniform(0.35, 0.8) if strong else random.uniform(0.03, 0.1)
        if which == 0:
            width = random.uniform(0.003, 0.01)
            observed[row] *= 1 - depth * np.exp(-0.5 * ((SKY_LOG - np.log10(8600)) / width) ** 2)
        elif which == 1:
            center, width = np.log10(8000) + random.normal(0, 0.002), random.uniform(0.0015, 0.004)
            observed[row] += level * 2.5 * depth * np.exp(-0.5 * ((SKY_LOG - center) / width) ** 2)
        else:
            center, width = random.uniform(3.65, 3.93), random.uniform(0.004, 0.015)
            sign = random.choice([-1, 1.5])
            observed[row] += sign * level * depth * (np.abs(SKY_LOG - center) < width)
    for row in np.flatnonzero(outlier == "broken"):
        edge = np.log10(random.choice([5800.0, 6050.0, 7600.0])) + random.normal(0, 0.004)
        factor = random.choice([1 / random.uniform(1.6, 4), random.uniform(1.6, 4)])
        observed[row] *= np.where(edge < SKY_LOG, factor, 1)


def _to_rest(observed: np.ndarray, sigma: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flux and ivar on GRID: the fine pixels that fall in each, at least half of them good."""
    n, count = len(observed), GRID.count * FINE
    columns = np.arange(count) - offset[:, None]
    inside = (columns >= 0) & (columns < observed.shape[1])
    columns = np.clip(columns, 0, observed.shape[1] - 1)
    flux = np.take_along_axis(observed, columns, axis=1).reshape(n, GRID.count, FINE)
    error = np.where(inside, np.take_along_axis(sigma, columns, axis=1), np.inf).reshape(n, GRID.count, FINE)
    good = np.isfinite(error)
    number = good.sum(axis=2)
    known = number >= FINE / 2
    total = np.where(good, flux, 0).sum(axis=2)
    variance = np.where(good, error, 0).astype(np.float64) ** 2
    with np.errstate(all="ignore"):
        mean, ivar = total / number, number**2 / variance.sum(axis=2)
    return np.where(known, mean, 0).astype(np.float32), np.where(known, ivar, 0).astype(np.float32)


def draw(
    kind: str,
    n: int,
    *,
    templates: Templates,
    seed: int,
    snr: tuple[float, float] = (2, 30),
    z: tuple[float, float] = (0.0, 0.7),
    sky: str = "train",
    instruments: tuple[str, ...] = tuple(INSTRUMENTS),
) -> Drawn:
    """Return n semi-synthetic spectra of one kind as they would be observed (see `sources` and `observe`)."""
    parts = []
    for start in range(0, n, CHUNK):
        number = seed * 1000 + start // CHUNK
        given = sources(kind, min(CHUNK, n - start), templates=templates, seed=number)
        number = number * len(KINDS) + KINDS.index(kind)
        parts.append(observe(given, seed=number, snr=snr, z=z, sky=sky, instruments=instruments))
    return joined(parts)


CHUNK = 200  # sources that share a velocity dispersion; 200 need some 60 MB


def on_grid(spectrum_log: np.ndarray, flux: np.ndarray, ivar: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a real spectrum on GRID in the rest frame: flux, ivar (GRID.count,), from pixels of one width in log."""
    half = (spectrum_log[1] - spectrum_log[0]) / 2
    begins, ends = 10 ** (spectrum_log - half) / (1 + z), 10 ** (spectrum_log + half) / (1 + z)
    return rebin(begins, ends, np.asarray(flux, float), np.asarray(ivar, float), GRID.edges_angstrom)
