"""Units of wavelength and flux as files write them: to angstrom, and to 1e-17 erg / (s cm2 Angstrom).

The module hides the spellings of FITS headers ("10**-17 erg/(s cm2 Angstrom)", "1E-17 erg/cm^2/s/Ang", "erg/cm2/s/A")
and what astropy raises about them. In a flux a lone A is an angstrom, never an ampere.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science.fits_units import quiet

if TYPE_CHECKING:
    from astropy.units import UnitBase

RELATIVE = ("relative", "arbitrary", "normalized")
FLUX = "1e-17 erg / (s cm2 Angstrom)"
LONGEST = 200  # characters of a unit
_LOG = re.compile(r"(?:log10|log|dex)\s*[(\[ ]\s*(.+?)\s*[)\]]?")
_PER_FIBER = re.compile(r"\s*/\s*(spaxel|fiber|fibre|spectrum|resolution element)s?\b", re.IGNORECASE)
_SPELLINGS = (
    (re.compile(r"angstroms?|angstroem|ång?str[oö]m|\bangs?\b|\bAA\b|Å", re.IGNORECASE), "Angstrom"),
    (re.compile(r"\bmicrons?\b|\bmicrometers?\b|\bum\b|µm|μm", re.IGNORECASE), "um"),
    (re.compile(r"\bnanometers?\b|\bnm\b", re.IGNORECASE), "nm"),
    (re.compile(r"\bergs\b", re.IGNORECASE), "erg"),
    (re.compile(r"\bjansky\b", re.IGNORECASE), "Jy"),
)


@cache
def wavelength_scale(text: str) -> tuple[float, bool] | None:
    """Return what to multiply wavelengths by to have angstrom, and whether they are logarithms to base 10.

    None for what is no unit of length.

    >>> wavelength_scale("um"), wavelength_scale("log10(Angstrom)")
    ((10000.0, False), (1.0, True))
    """
    written = _spelled(text)
    result = _LOG.fullmatch(written)
    scale = _convertible(result.group(1) if result else written, "Angstrom")
    return None if scale is None else (scale, result is not None)


def flux_scale(text: str, wavelength_angstrom: np.ndarray) -> tuple[Any, bool] | None:
    """Return what to multiply a flux by, (n,) or one number, and whether 1e-17 erg / (s cm2 Angstrom) comes of it.

    A flux by frequency becomes one by wavelength; what counts electrons or means nothing stays as it is, with the
    factor 1. None for what is no unit.
    """
    written = _PER_FIBER.sub("", text)
    if written.strip().casefold() in RELATIVE or _is_count(_spelled(written)):
        return 1.0, False
    unit = _unit(_angstrom_for_ampere(_spelled(written)))
    if unit is None:
        return None
    if (factor := _factor(unit)) is not None:
        return factor, True
    from astropy import units

    with quiet():
        for candidate in (unit, unit * units.sr):  # surface brightness: of that solid angle
            try:
                at = units.spectral_density(wavelength_angstrom * units.AA)
                return candidate.to(units.Unit(FLUX), np.ones(len(wavelength_angstrom)), at), True
            except units.UnitConversionError:
                continue
    return None


@cache
def _factor(unit: UnitBase) -> float | None:
    """Return the factor of a flux by wavelength, which is one number; None for any other unit."""
    from astropy import units

    try:
        return float(f"{unit.to(units.Unit(FLUX)):.12g}")
    except units.UnitConversionError:
        return None


def _spelled(text: str) -> str:
    written = text.strip().strip("'\"")
    for pattern, replacement in _SPELLINGS:
        written = pattern.sub(replacement, written)
    written = re.sub(r"10\s*\*\*\s*\(?([+-]?\d+)\)?", lambda hit: f"1e{int(hit.group(1))}", written)
    written = re.sub(r"10\s*\^\s*\(?([+-]?\d+)\)?", lambda hit: f"1e{int(hit.group(1))}", written)
    return written.replace("^", "**").replace("·", " ")


def _angstrom_for_ampere(written: str) -> str:
    return re.sub(r"(?<![A-Za-z])A(?![A-Za-z])", "Angstrom", written)


def _is_count(written: str) -> bool:
    return re.match(
        r"(1e\d+ )?(counts?|ct|electrons?|e-|adu|dn|photons?)\b", written, re.IGNORECASE
    ) is not None and not ("cm" in written or "m2" in written)


@cache
def _unit(written: str) -> UnitBase | None:
    """Return the unit of a text in this notation, read as one division where it has several ("erg/cm2/s/Angstrom")."""
    from astropy import units

    if not written or len(written) > LONGEST:
        return None
    scale, rest = 1.0, written
    if result := re.match(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*\*?\s*(?=[A-Za-z(])", written):
        scale, rest = float(result.group(1)), written[result.end() :]
    with quiet():
        for form in (None, "vounit", "fits"):
            try:
                return units.Unit(scale * units.Unit(rest, format=form))
            except (ValueError, TypeError, ArithmeticError, RecursionError, LookupError):
                continue
    return None


def _convertible(written: str, target: str) -> float | None:
    unit = _unit("Angstrom" if written == "A" else written)
    if unit is None:
        return None
    from astropy import units

    try:
        return float(f"{unit.to(units.Unit(target)):.12g}")
    except units.UnitConversionError:
        return None


def check_medium(medium: str | None) -> None:
    """Raise SchemaError for a medium that is none."""
    if medium not in (None, "air", "vacuum"):
        raise SchemaError(f"medium is {medium!r}; give 'air' or 'vacuum'")
