"""Spectra of SDSS: `spec` and `spec-lite` files of SDSS, BOSS, eBOSS and SDSS-V.

They have a table with loglam, flux and ivar for the sum of all exposures, one pixel a row, and one of a single row with
the redshift. Wavelengths are in vacuum and heliocentric, flux is in 1e-17 erg / (s cm2 Angstrom) by definition of the
data model; the header may say otherwise.
"""

from __future__ import annotations

import numpy as np

from galsearch.science.bounded import bad
from galsearch.science.fits_units import Unit
from galsearch.science.spectra import SDSS_STEP
from galsearch.sources.spectra.assembly import Options, SpectrumFile, Stated, assemble, only_one, redshift_notes
from galsearch.sources.spectra.fits_file import Fits
from galsearch.sources.spectra.units import FLUX

KIND = "SDSS spec"
# of SPPIXMASK, in the AND mask: what holds in every exposure. The OR mask is not used, since what was bad in one
# exposure was left out of the sum; bits of a whole fiber (NOPLUG to WHOPPER) would empty spectra that are fine.
BAD_BITS = {18: "FULLREJECT", 22: "NOSKY", 23: "BRIGHTSKY", 24: "NODATA", 26: "BADFLUXFACTOR"}
BAD_MASK = sum(1 << bit for bit in BAD_BITS)
COARSE = 2e-6  # how far float32 is from the grid of log wavelengths that it stands for


def recognize(file: Fits) -> Unit | None:
    """Return the table of the summed spectrum, None where there is none."""
    for unit in file.units:
        columns = file.columns(unit)
        if {"loglam", "flux", "ivar"} <= columns.keys() and columns["flux"].repeat == 1:
            return unit
    return None


def read(file: Fits, unit: Unit, options: Options, stem: str) -> SpectrumFile:
    """Return the one spectrum of the file."""
    about = _redshift_unit(file)
    name = _name(file, about) or stem
    return only_one(KIND, name, lambda: assemble(_stated(file, unit, about, name), options, file.source), file.source)


def _stated(file: Fits, unit: Unit, about: Unit | None, name: str) -> Stated:
    columns = file.columns(unit)
    if any(columns[key].repeat != 1 or not columns[key].is_number for key in ("loglam", "flux", "ivar")):
        raise bad(file.source, "loglam, flux and ivar are not one number a row", "fetch it again")
    notes: tuple[str, ...] = ()
    masked = None
    mask = columns.get("and_mask") or columns.get("andmask")
    if mask is not None and mask.is_number and mask.repeat == 1:
        masked = file.values(unit, mask).astype(np.int64) & BAD_MASK != 0
    z, warning, ra, dec = None, None, None, None
    if about is not None:
        facts = file.columns(about)
        z, warning = file.number(about, facts, "z"), file.number(about, facts, "zwarning")
        ra = _first(file, about, "plug_ra", "fiber_ra", "racat", "ra")
        dec = _first(file, about, "plug_dec", "fiber_dec", "deccat", "dec")
        notes += redshift_notes(None if warning is None else int(warning))
    if z is None:
        notes += ("it has no redshift",)
    vacuum = file.keyword(unit, "VACUUM")
    return Stated(
        _on_grid(file.values(unit, columns["loglam"]), file),
        file.values(unit, columns["flux"]),
        ivar=file.values(unit, columns["ivar"]),
        masked=masked,
        wavelength_unit="log10(Angstrom)",
        flux_unit=file.text(unit, "BUNIT") or FLUX,
        medium="air" if vacuum is False or vacuum == 0 else "vacuum",
        frame="observed",
        z=z,
        name=name,
        ra=ra,
        dec=dec,
        kind=KIND,
        notes=notes,
    )


def _on_grid(loglam: np.ndarray, file: Fits) -> np.ndarray:
    """Return log wavelengths as exact steps of the file's grid, where float32 has rounded them.

    The rounding is up to a fiftieth of a pixel, and one way or the other from pixel to pixel.
    """
    start, step = file.primary.get("COEFF0"), file.primary.get("COEFF1")
    if not (isinstance(start, float) and isinstance(step, float) and step > 0):
        start, step = 0.0, SDSS_STEP
    exact = start + step * np.rint((loglam - start) / step)
    fits = np.isfinite(loglam).all() and np.abs(exact - loglam).max() < COARSE and (np.diff(exact) > 0).all()
    return exact if len(loglam) and fits else loglam


def _redshift_unit(file: Fits) -> Unit | None:
    """Return the table of one row with Z and ZWARNING: SPECOBJ or SPALL by name, else the first."""
    tables = [unit for unit in file.units if unit.header.get("XTENSION") == "BINTABLE"]
    tables = [unit for unit in tables if {"z", "zwarning"} <= file.columns(unit).keys() and file.rows(unit) >= 1]
    named = [unit for unit in tables if unit.header.get("EXTNAME") in ("SPECOBJ", "SPALL")]
    return next(iter(named or tables), None)


def _first(file: Fits, unit: Unit, *names: str) -> float | None:
    columns = file.columns(unit)
    return next((value for name in names if (value := file.number(unit, columns, name)) is not None), None)


def _name(file: Fits, about: Unit | None) -> str:
    """Return plate-mjd-fiber, or field-mjd-catalogid for SDSS-V; "" where the file does not say."""
    if about is not None:
        columns = file.columns(about)
        for keys, form in (
            (("plate", "mjd", "fiberid"), "{:04d}-{:d}-{:04d}"),
            (("field", "mjd", "catalogid"), "{:06d}-{:d}-{:d}"),
        ):
            numbers = [file.number(about, columns, key) for key in keys]
            if keys[2] == "catalogid" and "catalogid" in columns and columns["catalogid"].repeat == 1:
                numbers[2] = _exact(file, about, "catalogid")
            known = [int(number) for number in numbers if number is not None and number >= 0]
            if len(known) == 3:
                return form.format(*known)
    keywords = [file.primary.get(key) for key in ("PLATEID", "MJD", "FIBERID")]
    whole = [value for value in keywords if isinstance(value, int) and not isinstance(value, bool)]
    return "{:04d}-{:d}-{:04d}".format(*whole) if len(whole) == 3 else ""


def _exact(file: Fits, unit: Unit, name: str) -> int | None:
    """Return an integer of 64 bits, of which a float keeps 53; text of digits counts."""
    text = str(file.values(unit, file.columns(unit)[name])[0])
    return int(text) if text.isdecimal() else None
