"""Small files of spectra in the layouts of real surveys, written by astropy, which the readers do not use for them."""

from __future__ import annotations

import io
import warnings

import numpy as np
from astropy.io import fits

COUNT = 120
LOGLAM = 3.58 + 1e-4 * np.arange(COUNT)
TARGETS = np.array([39633345008634465, 39089837499744649])


def flux_of(count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Flux with noise, float32 as surveys store it."""
    return np.random.default_rng(seed).normal(5, 1, count).astype("f4")


def ivar_of(count: int = COUNT) -> np.ndarray:
    """Inverse variance, the first three pixels without data."""
    return np.where(np.arange(count) < 3, 0, np.linspace(0.5, 2, count)).astype("f4")


def as_bytes(*units) -> bytes:
    """Return a FITS file of these units."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList(list(units)).writeto(file)
    return file.getvalue()


def table(name: str, **columns) -> fits.BinTableHDU:
    """Return a table; a value may be (array, unit), a text is one cell."""
    made = []
    for key, given in columns.items():
        values, unit = given if isinstance(given, tuple) else (given, None)
        values = np.asarray(values)
        kinds = {"f": {4: "E", 8: "D"}, "i": {2: "I", 4: "J", 8: "K"}}
        form = f"{values.dtype.itemsize // 4}A" if values.dtype.kind == "U" else None
        form = form or kinds[values.dtype.kind][values.dtype.itemsize]
        size = "" if values.ndim == 1 else str(values.shape[1])
        made.append(fits.Column(key, f"{size}{form}", unit=unit, array=values))
    return fits.BinTableHDU.from_columns(made, name=name)


def sdss(*, upper: bool = False, loglam=None, flux=None, ivar=None, mask=None, z=0.12, zwarning=0, **header) -> bytes:
    """Return a spec-lite file of SDSS; `upper` is the layout of SDSS-V."""
    primary = fits.PrimaryHDU()
    known = {"VACUUM": True, "BUNIT": "1E-17 erg/cm^2/s/Ang", "COEFF0": 3.58, "COEFF1": 1e-4}
    primary.header.update({} if upper else {**known, "PLATEID": 266, "MJD": 51602, "FIBERID": 13, **header})
    loglam = LOGLAM if loglam is None else loglam
    mask = np.zeros(len(loglam), "i4") if mask is None else mask
    columns = {
        "flux": flux_of(len(loglam)) if flux is None else flux,
        "loglam": np.asarray(loglam, "f4"),
        "ivar": ivar_of(len(loglam)) if ivar is None else ivar,
        "andmask" if upper else "and_mask": mask,
        "ormask" if upper else "or_mask": np.full(len(loglam), 1 << 23, "i4"),
    }
    about = {"Z": np.array([z], "f4"), "ZWARNING": np.array([zwarning], "i4")}
    if upper:
        about |= {
            "FIELD": np.array([16170]),
            "MJD": np.array([59187], "i4"),
            "CATALOGID": np.array([27021597918432357]),
        }
        columns = {key.upper(): values for key, values in columns.items()}
    else:
        about |= {"PLATE": np.array([266], "i4"), "MJD": np.array([51602], "i4"), "FIBERID": np.array([13], "i4")}
        about |= {"PLUG_RA": np.array([146.93]), "PLUG_DEC": np.array([-0.67])}
    return as_bytes(primary, table("COADD", **columns), table("SPALL" if upper else "SPECOBJ", **about))


def desi(*, targets=TARGETS, compressed_masks: bool = False) -> bytes:
    """Return a coadd of DESI with three arms, which overlap by five pixels each."""
    units = [fits.PrimaryHDU(), table("FIBERMAP", TARGETID=targets, TARGET_RA=np.array([10.0, 20.0])[: len(targets)])]
    for number, arm in enumerate("BRZ"):
        wave = fits.ImageHDU(3600 + 0.8 * (np.arange(40) + 35 * number), name=f"{arm}_WAVELENGTH")
        wave.header["BUNIT"] = "Angstrom"
        flux = fits.ImageHDU(np.stack([flux_of(40, seed) for seed in range(len(targets))]) + number, name=f"{arm}_FLUX")
        flux.header["BUNIT"] = "10**-17 erg/(s cm2 Angstrom)"
        ivar = fits.ImageHDU(np.full((len(targets), 40), number + 1.0, "f4"), name=f"{arm}_IVAR")
        mask = np.zeros((len(targets), 40), "i4")
        mask[:, 20] = 2
        made = fits.CompImageHDU if compressed_masks else fits.ImageHDU
        units += [wave, flux, ivar, made(mask, name=f"{arm}_MASK")]
    return as_bytes(*units)


def redrock() -> bytes:
    """Return redshifts for the targets of `desi`, in another order."""
    columns = {"TARGETID": TARGETS[::-1].copy(), "Z": np.array([0.5, 0.25]), "ZWARN": np.array([4, 0])}
    return as_bytes(fits.PrimaryHDU(), table("REDSHIFTS", **columns))


def stack() -> bytes:
    """Return a stack of DESI spectra in the rest frame."""
    wave = fits.ImageHDU(3000 + 0.4 * np.arange(COUNT), name="WAVE")
    wave.header.update({"BUNIT": "Angstrom", "AIRORVAC": "vac"})
    images = [fits.ImageHDU(values[None], name=name) for name, values in (("FLUX", flux_of()), ("IVAR", ivar_of()))]
    info = table("STACKINFO", STACKID=np.array([0], "i4"), Z=np.array([0.0]), ZMED=np.array([0.43], "f4"))
    return as_bytes(fits.PrimaryHDU(), *images, wave, info)


def jwst() -> bytes:
    """Return an x1d product of JWST; DO_NOT_USE is set in the sixth pixel, another flag in the seventh."""
    primary = fits.PrimaryHDU()
    primary.header.update({"TELESCOP": "JWST", "TARG_RA": 214.9, "TARG_DEC": 52.9})
    flags = np.zeros(COUNT, "i4")
    flags[5], flags[6] = 1, 4
    flux = flux_of().astype("f8") * 1e-6
    flux[:2] = np.nan
    columns = {"WAVELENGTH": (np.linspace(1, 2, COUNT), "um"), "FLUX": (flux, "Jy")}
    columns |= {"FLUX_ERROR": (np.full(COUNT, 1e-6), "Jy"), "DQ": flags}
    return as_bytes(primary, table("EXTRACT1D", **columns))


def hst() -> bytes:
    """Return an x1d product of COS: the red segment first; of its flags 8 is serious, 4 is not."""
    primary = fits.PrimaryHDU()
    primary.header.update({"TELESCOP": "HST", "INSTRUME": "COS", "TARGNAME": "MRK-209"})
    wave = np.stack([1300 + 0.01 * np.arange(COUNT), 1100 + 0.01 * np.arange(COUNT)])
    flags = np.zeros((2, COUNT), "i2")
    flags[0, 4], flags[0, 5] = 8, 4
    unit = "erg /s /cm**2 /angstrom"
    flux = np.stack([flux_of(seed=1), flux_of(seed=2)]) * np.float32(1e-15)
    columns = {"SEGMENT": np.array(["FUVA", "FUVB"]), "WAVELENGTH": (wave, "angstrom"), "FLUX": (flux, unit)}
    made = table("SCI", **columns, ERROR=(np.full((2, COUNT), 1e-16, "f4"), unit), DQ=flags)
    made.header["SDQFLAGS"] = 8346
    return as_bytes(primary, made)


IRAF = {"CTYPE1": "LINEAR", "CRVAL1": 4000.0, "CRPIX1": 1.0, "CD1_1": 0.8, "DC-FLAG": 0, "WAT0_001": "system=equispec"}
IRAF |= {"WAT1_001": "wtype=linear label=Wavelength units=angstroms", "BUNIT": "erg/cm2/s/A", "CUNIT1": "pixel"}


def image(array=None, *others, **header) -> bytes:
    """Return a FITS image of one row a spectrum with this header."""
    primary = fits.PrimaryHDU(flux_of() if array is None else array)
    primary.header.update({key.replace("_FLAG", "-FLAG"): value for key, value in header.items()})
    return as_bytes(primary, *others)


def ssap(*, air: bool = False) -> bytes:
    """Return a table of one row with arrays, as ESO and others serve spectra, its columns told by utype and UCD."""
    columns = {"A": (10 ** LOGLAM[None], "angstrom"), "B": (flux_of()[None], "erg cm**(-2) s**(-1) angstrom**(-1)")}
    columns |= {"C": (np.full((1, COUNT), 0.5, "f4"), "erg cm**(-2) s**(-1) angstrom**(-1)")}
    columns |= {"D": (flux_of(seed=9)[None], "erg cm**(-2) s**(-1) angstrom**(-1)")}
    made = table("SPECTRUM", **columns)
    model = "spec:Data.SpectralAxis.Value", "spec:Data.FluxAxis.Value", "spec:Data.FluxAxis.Accuracy.StatError"
    for number, utype in enumerate(model, start=1):
        made.header[f"TUTYP{number}"] = utype
    made.header["TUCD1"] = "em.wl;obs.atmos" if air else "em.wl"
    made.header["TUCD4"] = "phot.flux.density;em.wl;src.sky"
    return as_bytes(fits.PrimaryHDU(), made)
