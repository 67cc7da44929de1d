"""Spectra of DESI: coadds with one camera an arm (B, R, Z) and one target a row, and stacks of many targets.

Wavelengths are in vacuum and heliocentric, flux is in 1e-17 erg / (s cm2 Angstrom) by the data model. Redshifts are
in a file of their own (redrock), joined by TARGETID.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np

from galsearch.science import spectra
from galsearch.science.bounded import bad
from galsearch.science.fits_units import Unit
from galsearch.science.spectra import Spectrum
from galsearch.sources.spectra.assembly import (
    Options,
    SpectrumFile,
    Stated,
    assemble,
    redshift_notes,
)
from galsearch.sources.spectra.fits_file import Fits
from galsearch.sources.spectra.units import FLUX

KIND, STACK = "DESI coadd", "DESI stack"
ARM = re.compile(r"([A-Z]{1,8})_WAVELENGTH")
MOST_ROWS = 100_000


def arms_of(file: Fits) -> list[str]:
    """Return the names of the arms, those with X_WAVELENGTH, X_FLUX and X_IVAR, from blue to red."""
    names = {str(unit.header.get("EXTNAME", "")).strip().upper() for unit in file.units}
    arms = [result.group(1) for name in names if (result := ARM.fullmatch(name))]
    complete = [arm for arm in arms if {f"{arm}_FLUX", f"{arm}_IVAR"} <= names]
    return sorted(complete, key=lambda arm: ("BRZ".find(arm[0]), arm))


def is_stack(file: Fits) -> bool:
    """Tell whether the file has images FLUX, IVAR and WAVE and a table STACKINFO."""
    return all(file.named(name) is not None for name in ("FLUX", "IVAR", "WAVE", "STACKINFO"))


def is_redrock(file: Fits) -> bool:
    """Tell whether the file has redshifts by TARGETID and no spectra."""
    return _redshift_table(file) is not None and not arms_of(file)


def read(file: Fits, options: Options, redshifts: Fits | None) -> SpectrumFile:
    """Return the spectra of a coadd: the arms of each target joined by inverse variance."""
    arms = arms_of(file)
    rows = {len(_unit(file, f"{arm}_FLUX").shape) and _unit(file, f"{arm}_FLUX").shape[0] for arm in arms}
    if len(rows) != 1 or not 0 < max(rows) <= MOST_ROWS:
        raise bad(file.source, f"its arms {', '.join(arms)} have {sorted(rows)} targets", "fetch it again")
    targets = _targets(file, max(rows))
    known = {} if redshifts is None else _redshifts(redshifts)
    waves = {arm: file.array(_unit(file, f"{arm}_WAVELENGTH")) for arm in arms}

    def one(row: int) -> Spectrum:
        parts = [assemble(_stated(file, arm, waves[arm], row, targets[row]), options, file.source) for arm in arms]
        joined = spectra.join(parts)
        z, notes = _redshift(file, targets[row], known, redshifts, row)
        return replace(joined, z=joined.z if joined.z is not None else z, notes=(*joined.notes, *notes))

    return SpectrumFile(KIND, _unlike(targets, file), one, file.source)


def _unit(file: Fits, name: str) -> Unit:
    unit = file.named(name)
    if unit is None:
        raise bad(file.source, f"it has no HDU {name}", "fetch it again")
    return unit


def _targets(file: Fits, rows: int) -> list[str]:
    """Return the TARGETID of each row as text; SchemaError where FIBERMAP has other rows. Without it row numbers."""
    unit = file.named("FIBERMAP")
    column = None if unit is None else file.columns(unit).get("targetid")
    if unit is None or column is None:
        return [str(row) for row in range(rows)]
    values = file.values(unit, column)
    if len(values) != rows:
        raise bad(file.source, f"FIBERMAP has {len(values)} rows for {rows} spectra", "fetch it again")
    return [str(value) for value in values]


def _unlike(targets: list[str], file: Fits) -> list[str]:
    """Return an id for each row: TARGETID, with EXPID or else the row where a target has several exposures."""
    counts = Counter(targets)
    if max(counts.values()) == 1:
        return targets
    unit = file.named("FIBERMAP")
    column = None if unit is None else file.columns(unit).get("expid")
    exposures = range(len(targets)) if unit is None or column is None else file.values(unit, column)
    return [
        f"{target}-{exposure}" if counts[target] > 1 else target
        for target, exposure in zip(targets, exposures, strict=True)
    ]


def _stated(file: Fits, arm: str, wavelength: np.ndarray, row: int, target: str) -> Stated:
    flux, mask = _unit(file, f"{arm}_FLUX"), file.named(f"{arm}_MASK")
    masked = None
    if mask is not None and file.shape(mask) == file.shape(flux):
        masked = np.nan_to_num(file.array(mask, row=row), nan=1.0) != 0
    about = file.named("FIBERMAP")
    columns = {} if about is None else file.columns(about)
    ra, dec = (None if about is None else file.number(about, columns, f"target_{axis}", row) for axis in ("ra", "dec"))
    return Stated(
        wavelength,
        file.array(flux, row=row),
        ivar=file.array(_unit(file, f"{arm}_IVAR"), row=row),
        masked=masked,
        wavelength_unit=file.text(_unit(file, f"{arm}_WAVELENGTH"), "BUNIT") or "Angstrom",
        flux_unit=file.text(flux, "BUNIT") or FLUX,
        medium="vacuum",
        frame="observed",
        name=target,
        ra=ra,
        dec=dec,
        kind=KIND,
    )


# ---- redshifts


def _redshift_table(file: Fits) -> Unit | None:
    for unit in file.units:
        columns = file.columns(unit)
        if {"targetid", "z"} <= columns.keys() and columns["targetid"].is_number and columns["z"].repeat == 1:
            return unit
    return None


def _redshifts(file: Fits) -> dict[str, tuple[float, int]]:
    """Return redshift and ZWARN by TARGETID. Raises SchemaError for a file without them."""
    unit = _redshift_table(file)
    if unit is None:
        raise bad(file.source, "it has no table with TARGETID and Z", "give the redrock file of the coadd as redshifts")
    columns = file.columns(unit)
    warn = columns.get("zwarn") or columns.get("zwarning")
    targets, z = file.values(unit, columns["targetid"]), file.values(unit, columns["z"])
    warnings = np.zeros(len(z), np.int64) if warn is None else file.values(unit, warn)
    facts = zip(z, warnings, strict=True)
    return {str(target): (float(value), int(flag)) for target, (value, flag) in zip(targets, facts, strict=True)}


def _redshift(
    file: Fits, target: str, known: dict[str, tuple[float, int]], redshifts: Fits | None, row: int
) -> tuple[float | None, tuple[str, ...]]:
    """Return the redshift of a target and notes on it and on its fiber."""
    notes: tuple[str, ...] = ()
    about = file.named("FIBERMAP")
    status = None if about is None else file.number(about, file.columns(about), "coadd_fiberstatus", row)
    if status:
        notes = (f"COADD_FIBERSTATUS is {int(status)}: something was wrong with its fiber",)
    if redshifts is None:
        return None, (*notes, "it has no redshift; give the redrock file with redshifts")
    if target not in known:
        raise bad(
            file.source,
            f"{redshifts.source} has no redshift of target {target}",
            "give the redrock file of the same tile",
        )
    z, warning = known[target]
    return (z if np.isfinite(z) else None), (*notes, *redshift_notes(warning, "ZWARN"))


# ---- stacks


def read_stack(file: Fits, options: Options, stem: str) -> SpectrumFile:
    """Return the spectra of a stack; one that STACKINFO gives the redshift 0 is in the rest frame."""
    flux, info = _unit(file, "FLUX"), _unit(file, "STACKINFO")
    shape, columns = file.shape(flux), file.columns(info)
    if len(shape) != 2 or shape[0] > MOST_ROWS or file.rows(info) != shape[0]:
        reason = f"FLUX has shape {shape} and STACKINFO {file.rows(info)} rows"
        raise bad(file.source, reason, "fetch it again")
    identifier = columns.get("stackid")
    numbers = range(shape[0]) if identifier is None else file.values(info, identifier)
    ids = [stem if shape[0] == 1 else f"{stem}-{number}" for number in numbers]

    def one(row: int) -> Spectrum:
        return assemble(_stated_stack(file, row, ids[row]), options, file.source)

    return SpectrumFile(STACK, ids, one, file.source)


def _stated_stack(file: Fits, row: int, name: str) -> Stated:
    flux, wave, info = _unit(file, "FLUX"), _unit(file, "WAVE"), _unit(file, "STACKINFO")
    z, median = (file.number(info, file.columns(info), key, row) for key in ("z", "zmed"))
    is_rest = z == 0
    about = f" (of objects at redshift {median:.3g} in the median)" if median else ""
    notes: tuple[str, ...] = (f"a stack in the rest frame{about}",) if is_rest else ()
    unit = file.text(flux, "BUNIT")
    if not unit:
        notes += ("its flux has no unit, as stacks of scaled spectra have; taken as relative",)
    stated = file.text(wave, "AIRORVAC").lower()
    return Stated(
        file.array(wave),
        file.array(flux, row=row),
        ivar=file.array(_unit(file, "IVAR"), row=row),
        wavelength_unit=file.text(wave, "BUNIT") or None,
        flux_unit=unit or "relative",
        medium={"vac": "vacuum", "air": "air"}.get(stated[:3]),
        frame="rest" if is_rest else "observed",
        z=None if is_rest else z,
        name=name,
        kind=STACK,
        notes=notes,
    )
