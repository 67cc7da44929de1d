"""Spectra in FITS images: one row of pixels a spectrum, whose wavelengths the header gives by a line or a logarithm.

The axis is that of the FITS standard (Greisen et al. 2006, A&A 446, 747: AWAV in air, WAVE in vacuum, -LOG) or of IRAF
(CTYPE1 LINEAR, WAT1 with the unit, DC-FLAG 1 for log10). Where the header says neither, the caller must.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from galsearch.science.bounded import bad
from galsearch.science.fits_units import Unit
from galsearch.science.spectra import Spectrum
from galsearch.sources.spectra.assembly import MOST_PIXELS, Options, SpectrumFile, Stated, assemble
from galsearch.sources.spectra.fits_file import Fits

KIND = "FITS image"
MOST_ROWS = 1000
SPECTRAL = ("AWAV", "WAVE", "LAMBDA", "WAVELENGTH", "LOGLAM", "LINEAR", "LOG-LINEAR", "LOGLINEAR")
OTHER_AXES = {"FREQ": "frequency", "ENER": "energy", "VELO": "velocity", "VOPT": "velocity", "VRAD": "velocity"}
NO_UNIT = ("", "pixel", "pix", "pixels", "none")
ERRORS = {
    **dict.fromkeys(("ERR", "ERROR", "ERRORS", "ERRS", "SIGMA", "SIG", "STD", "STDEV", "UNCERT", "NOISE"), "error"),
    **dict.fromkeys(("IVAR", "INVVAR"), "ivar"),
    **dict.fromkeys(("VAR", "VARIANCE", "STAT"), "variance"),
}


@dataclass(frozen=True)
class Axis:
    """What a header says of the first axis: wavelengths (n,) in `unit`, None where it does not say."""

    values: np.ndarray
    unit: str | None
    medium: str | None


def recognize(file: Fits, options: Options) -> Unit | None:
    """Return the first image whose first axis is one of wavelengths; also one that does not say, if it has one axis."""
    if options.hdu is not None:
        unit = file.chosen(options.hdu)
        return unit if file.shape(unit) else None
    images = [unit for unit in file.units if file.shape(unit)]
    named = [unit for unit in images if _is_spectral(file, unit)]
    plain = [unit for unit in images if len(_squeezed(file.shape(unit))) == 1 and not _ctype(unit)]
    return next(iter(named or plain), None)


def read(file: Fits, unit: Unit, options: Options, stem: str) -> SpectrumFile:
    """Return a spectrum for each row of the image; of several bands (IRAF) the first, and what is called sigma."""
    shape = _squeezed(file.shape(unit))
    kind = _ctype(unit)
    if kind[:4] in OTHER_AXES:
        raise bad(file.source, f"its axis is {OTHER_AXES[kind[:4]]} ({kind})", "convert it to wavelengths first")
    if _wat(unit, "wtype") == "multispec":
        remedy = "write it with a linear axis (IRAF dispcor), or as a table of wavelength and flux"
        raise bad(file.source, "its wavelengths are in IRAF's multispec form, which is not read", remedy)
    if len(shape) > 3 or (len(shape) > 1 and math.prod(shape[:-1]) > MOST_ROWS) or not 2 <= shape[-1] <= MOST_PIXELS:
        raise bad(
            file.source, f"its image has shape {shape}", "give one row a spectrum; cut spectra out of a cube first"
        )
    rows = shape[-2] if len(shape) > 1 else 1
    title = file.text(unit, "OBJNAME", "OBJECT") or stem
    ids = [title if rows == 1 else f"{title}-{row + 1}" for row in range(rows)]

    def one(row: int) -> Spectrum:
        return assemble(_stated(file, unit, row, ids[row], options), options, file.source)

    return SpectrumFile(KIND, ids, one, file.source)


def axis_of(file: Fits, unit: Unit) -> Axis:
    """Return the wavelengths of the first axis. Raises SchemaError where the header gives none."""
    header, count = unit.header, file.shape(unit)[-1]
    kind, unit_name = _ctype(unit), _axis_unit(unit)
    step = _number(header.get("CD1_1")) or _number(header.get("CDELT1")) or _number(header.get("COEFF1"))
    start = _number(header.get("CRVAL1"))
    start = _number(header.get("COEFF0")) if start is None else start
    if step is None or start is None:
        remedy = "mend CRVAL1 and CD1_1 or CDELT1, or give a table of wavelength and flux"
        raise bad(file.source, "its header gives no wavelengths (CRVAL1 and CD1_1 or CDELT1)", remedy)
    pixel = _number(header.get("CRPIX1"))
    index = np.arange(1, count + 1) - (1.0 if pixel is None else pixel)
    with np.errstate(all="ignore"):
        values = start + index * step
        if kind.endswith("-LOG"):  # the natural logarithm of the standard, equation 5
            values = start * np.exp(index * step / start)
        if header.get("DC-FLAG") == 1 or kind in ("LOGLAM", "LOG-LINEAR", "LOGLINEAR"):
            values = 10.0**values
    return Axis(values, unit_name, _medium(file, unit, kind))


def _stated(file: Fits, unit: Unit, row: int, name: str, options: Options) -> Stated:
    axis, cube = axis_of(file, unit), file.array(unit)
    shape = _squeezed(cube.shape)
    bands = cube.reshape(shape if len(shape) == 3 else (1, *shape) if len(shape) == 2 else (1, 1, *shape))
    error, ivar, notes = _errors(file, unit, bands, row, options)
    return Stated(
        axis.values,
        bands[0, row],
        error=error,
        ivar=ivar,
        wavelength_unit=axis.unit,
        flux_unit=file.text(unit, "BUNIT") or None,
        medium=axis.medium,
        name=name,
        kind=KIND,
        notes=notes,
    )


def _errors(
    file: Fits, unit: Unit, bands: np.ndarray, row: int, options: Options
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Return error or ivar, and what was taken: what the caller names, IRAF's band of sigma, an image ERR or IVAR."""
    named = options.error if options.error is not None else options.ivar
    if named is not None:
        values = _row(file, file.chosen(named), row)
        return (values, None, ()) if options.error is not None else (None, values, ())
    for band in range(1, len(bands)):
        if str(unit.header.get(f"BANDID{band + 1}", "")).strip().lower().startswith("sigma"):
            return bands[band, row], None, (f"band {band + 1} of {len(bands)} is its error; the others were left out",)
    for other in file.units:
        kind = ERRORS.get(str(other.header.get("EXTNAME", "")).strip().upper())
        if kind is not None and other is not unit and file.shape(other) == file.shape(unit):
            values = _row(file, other, row)
            notes = (f"the image {other.label} was taken as its {kind}",)
            if kind == "ivar":
                return None, values, notes
            with np.errstate(all="ignore"):
                return (np.sqrt(values) if kind == "variance" else values), None, notes
    return None, None, ()


def _row(file: Fits, unit: Unit, row: int) -> np.ndarray:
    values = file.array(unit)
    flat = values.reshape(-1, values.shape[-1]) if values.ndim else values
    if values.ndim == 0 or row >= len(flat):
        raise bad(file.source, f"{unit.label} has no row {row}", "name an image with as many rows as the flux")
    return flat[row]


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape without leading axes of one row.

    >>> _squeezed((1, 1, 500)), _squeezed((4, 1, 500))
    ((500,), (4, 1, 500))
    """
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _ctype(unit: Unit) -> str:
    return str(unit.header.get("CTYPE1") or "").strip().upper()


def _is_spectral(file: Fits, unit: Unit) -> bool:
    kind = _ctype(unit)
    known = kind.split("-")[0] in SPECTRAL or kind in SPECTRAL or kind[:4] in OTHER_AXES
    others = [str(unit.header.get(f"CTYPE{number}") or "").strip().upper() for number in (2, 3)]
    on_the_sky = any(re.match(r"RA-|DEC-|[GEHS]?L(ON|AT)|[A-Z]LON|[A-Z]LAT", other) for other in others)
    is_linear = kind in ("LINEAR", "LOG-LINEAR", "LOGLINEAR")
    rows = len(_squeezed(file.shape(unit))) == 1
    says_so = "wavelength" in _wat(unit, "label").lower() or _wat(unit, "wtype") == "multispec" or rows
    return known and not on_the_sky and (says_so or not is_linear)


def _wat(unit: Unit, key: str) -> str:
    """Return an attribute of IRAF's WAT1_nnn, "" where it has none.

    The keywords hold one text, cut into pieces of 68 characters: `wtype=linear label=Wavelength units=angstroms`.
    """
    pieces = [str(unit.header.get(f"WAT1_{number:03d}", "")) for number in range(1, 10)]
    system = str(unit.header.get("WAT0_001", ""))
    if key == "wtype" and "multispec" in system:
        return "multispec"
    result = re.search(rf'\b{key}=("[^"]*"|\S+)', "".join(piece.ljust(68) if piece else "" for piece in pieces))
    return result.group(1).strip('"') if result else ""


def _axis_unit(unit: Unit) -> str | None:
    """Return the unit of the axis: IRAF's own word, or else CUNIT1; IRAF writes "pixel" into that one."""
    for text in (_wat(unit, "units"), str(unit.header.get("CUNIT1") or "").strip()):
        if text.lower() not in NO_UNIT:
            return text
    return None


def _medium(file: Fits, unit: Unit, kind: str) -> str | None:
    """Return "air" or "vacuum" where the header says so: VACUUM, AIRORVAC, or a CTYPE1 of the standard."""
    vacuum = file.keyword(unit, "VACUUM")
    if vacuum in (True, False, 1, 0):
        return "vacuum" if vacuum else "air"
    stated = file.text(unit, "AIRORVAC").lower()
    if stated[:3] in ("air", "vac"):
        return "air" if stated.startswith("air") else "vacuum"
    return {"AWAV": "air", "WAVE": "vacuum"}.get(kind[:4]) if kind[:5] in ("AWAV", "WAVE", "AWAV-", "WAVE-") else None


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and isinstance(value, (int, float)) else None
