"""Spectra of space telescopes: x1d tables of JWST (one pixel a row) and of HST (one detector segment or order a row).

Wavelengths are in vacuum, as both pipelines give them; units stand in the columns. Of JWST's DQ the bit DO_NOT_USE
counts, of HST's those that its own header calls serious (SDQFLAGS).
"""

from __future__ import annotations

import numpy as np

from galsearch.science import spectra
from galsearch.science.fits_units import Column, Unit
from galsearch.science.spectra import Spectrum
from galsearch.sources.spectra.assembly import Options, SpectrumFile, Stated, assemble, only_one
from galsearch.sources.spectra.fits_file import Fits

JWST, HST = "JWST x1d", "HST x1d"
DO_NOT_USE = 1
ERRORS = ("flux_error", "error")  # the name of today, and that of before 2021


def recognize(file: Fits) -> tuple[str, list[Unit]]:
    """Return which telescope it is and its tables of wavelength, flux and error; ("", []) for neither."""
    kind = {"JWST": JWST, "HST": HST}.get(str(file.primary.get("TELESCOP", "")).strip().upper(), "")
    tables = []
    for unit in file.units if kind else []:
        columns = file.columns(unit)
        if {"wavelength", "flux"} <= columns.keys() and any(name in columns for name in ERRORS):
            tables.append(unit)
    return (kind, tables) if tables else ("", [])


def read(file: Fits, kind: str, tables: list[Unit], options: Options, stem: str) -> SpectrumFile:
    """Return one spectrum for each table: the segments and orders of one HST table joined, JWST's as they stand."""
    if options.hdu is not None:
        tables = [file.chosen(options.hdu)]
    names = [_name(file, unit) for unit in tables]
    if len(set(names)) < len(names) or not all(names):
        names = [stem] if len(tables) == 1 else [f"{stem}-{unit.number}" for unit in tables]

    def one(row: int) -> Spectrum:
        unit = tables[row]
        parts = [
            assemble(_stated(file, kind, unit, segment, names[row]), options, file.source)
            for segment in range(file.rows(unit) if _is_nested(file, unit) else 1)
        ]
        with_data = [part for part in parts if part.ivar.any()]
        return spectra.join(with_data or parts[:1])

    if len(tables) == 1:
        return only_one(kind, names[0], lambda: one(0), file.source)
    return SpectrumFile(kind, names, one, file.source)


def _is_nested(file: Fits, unit: Unit) -> bool:
    column = file.columns(unit)["wavelength"]
    return column.repeat != 1 or bool(column.heap_kind)


def _name(file: Fits, unit: Unit) -> str:
    parts = [file.text(unit, "TARGNAME"), file.text(unit, "SRCNAME")]
    return "-".join(part for part in parts if part and part.upper() not in ("NONE", "UNKNOWN", "N/A"))


def _stated(file: Fits, kind: str, unit: Unit, segment: int, name: str) -> Stated:
    columns = file.columns(unit)
    error = columns[next(each for each in ERRORS if each in columns)]

    def values(column: Column) -> np.ndarray:
        return file.row_values(unit, column, segment) if _is_nested(file, unit) else file.values(unit, column)

    masked = np.zeros(values(columns["flux"]).shape, bool)
    if "dq" in columns:
        masked |= _quality(values(columns["dq"])) & _serious(file, kind, unit) != 0
    if kind == HST and "dq_wgt" in columns:
        masked |= values(columns["dq_wgt"]) == 0
    return Stated(
        values(columns["wavelength"]),
        values(columns["flux"]),
        error=values(error),
        masked=masked,
        wavelength_unit=columns["wavelength"].unit or None,
        flux_unit=columns["flux"].unit or None,
        medium="vacuum",
        frame="observed",
        name=name,
        ra=_degrees(file, unit, "RA_TARG", "TARG_RA"),
        dec=_degrees(file, unit, "DEC_TARG", "TARG_DEC"),
        kind=kind,
    )


def _quality(values: np.ndarray) -> np.ndarray:
    """Return flags as integers; NaN, which products that were masked by hand have, is none."""
    whole = np.where(np.isfinite(values), values, 0)
    return np.clip(whole, -(2**62), 2**62).astype(np.int64)


def _serious(file: Fits, kind: str, unit: Unit) -> int:
    flags = file.keyword(unit, "SDQFLAGS") if kind == HST else DO_NOT_USE
    return flags if isinstance(flags, int) and not isinstance(flags, bool) and 0 <= flags < 2**62 else 2**62 - 1


def _degrees(file: Fits, unit: Unit, *keys: str) -> float | None:
    values = (file.keyword(unit, key) for key in keys)
    return next((float(value) for value in values if isinstance(value, (int, float))), None)
