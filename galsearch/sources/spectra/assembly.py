"""From what a file says of a spectrum to a Spectrum: what is missing, units, medium, masks, the order of pixels.

Every reader of a layout hands over what the file states, None for what it does not; what the caller states comes before
it. Here is decided, once for all layouts, what may be left out and what must be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science import spectra
from galsearch.science.bounded import bad
from galsearch.science.spectra import Spectrum
from galsearch.sources.spectra.units import FLUX, check_medium, flux_scale, wavelength_scale

MOST_PIXELS = 2_000_000
SHORTEST, LONGEST = 10.0, 1e8  # angstrom: extreme ultraviolet to a centimeter; beyond it a unit is wrong
SCATTER_PIXELS = 200  # in which the scatter of neighbors is taken for the error
LEAST_SCATTER = 1e-3  # of the typical flux: a model has no scatter at all
FLAGS = ("wavelength-unit", "medium", "flux-unit")
ZWARNING = (
    *("SKY", "LITTLE_COVERAGE", "SMALL_DELTA_CHI2", "NEGATIVE_MODEL", "MANY_OUTLIERS", "Z_FITLIMIT"),
    *("NEGATIVE_EMISSION", "UNPLUGGED", "BAD_TARGET", "NODATA", "BAD_MINFIT", "POORDATA"),
)


class Statements(TypedDict, total=False):
    """The keywords of `read_spectra`: the fields of `Options`."""

    hdu: str | int | None
    row: str | int | None
    wavelength: str | None
    flux: str | None
    error: str | None
    ivar: str | None
    mask: str | None
    wavelength_unit: str | None
    flux_unit: str | None
    medium: str | None
    z: float | None
    frame: str | None
    redshifts: str | Path | bytes | None


@dataclass(frozen=True)
class Options:
    """What the caller states of a file, as `read_spectrum` has it; None leaves it to the file."""

    hdu: str | int | None = None
    row: str | int | None = None
    wavelength: str | None = None
    flux: str | None = None
    error: str | None = None
    ivar: str | None = None
    mask: str | None = None
    wavelength_unit: str | None = None
    flux_unit: str | None = None
    medium: str | None = None
    z: float | None = None
    frame: str | None = None
    redshifts: str | Path | bytes | None = None

    def __post_init__(self) -> None:
        check_medium(self.medium)
        if self.frame not in (None, "observed", "rest"):
            raise SchemaError(f"frame is {self.frame!r}; give 'observed' or 'rest'")
        if self.error is not None and self.ivar is not None:
            raise SchemaError("error and ivar are both given; give the one that the file has")
        if (self.wavelength is None) != (self.flux is None) and self.wavelength is not None:
            raise SchemaError(f"wavelength is {self.wavelength!r} and flux is not given; name both columns")

    @property
    def names_columns(self) -> bool:
        return any(value is not None for value in (self.wavelength, self.flux, self.error, self.ivar, self.mask))


@dataclass(frozen=True)
class Stated:
    """What a file says of one spectrum, before it is checked; arrays (n,), one of `error` and `ivar` or none.

    `masked` is True where a pixel is bad. `wavelength_unit`, `flux_unit`, `medium` and `frame` are None where it does
    not say.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray | None = None
    ivar: np.ndarray | None = None
    masked: np.ndarray | None = None
    wavelength_unit: str | None = None
    flux_unit: str | None = None
    medium: str | None = None
    frame: str | None = None
    z: float | None = None
    name: str = ""
    ra: float | None = None
    dec: float | None = None
    kind: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpectrumFile:
    """The spectra of one file: what it was recognized as, an id for each, and how to read one; `len`, `for` work.

    `read` raises SchemaError for a spectrum that cannot be taken; the others can be read all the same.
    """

    kind: str
    ids: Sequence[str]
    reader: Callable[[int], Spectrum] = field(repr=False)
    source: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Spectrum]:
        return (self.read(row) for row in range(len(self)))

    def read(self, row: int) -> Spectrum:
        """Return one spectrum by its number from 0."""
        return with_data(self.reader(row), self.source)


def only_one(kind: str, name: str, reader: Callable[[], Spectrum], source: str) -> SpectrumFile:
    """Return a file with one spectrum."""
    return SpectrumFile(kind, [name], lambda _: reader(), source)


# ---- one spectrum


def assemble(stated: Stated, options: Options, source: str) -> Spectrum:
    """Return the spectrum; one without any good pixel too, since another arm may have some.

    Raises SchemaError for what is missing, and for arrays that are no spectrum.
    """
    unit, medium, flux_unit = _decided(stated, options, source)
    pixels, notes = _pixels(stated, source), list(stated.notes)
    with np.errstate(all="ignore"):
        pixels = replace(pixels, wavelength=_in_angstrom(pixels.wavelength, unit, source))
        pixels = _with_wavelengths(pixels, notes, source)
        if pixels.wavelength[0] > pixels.wavelength[-1]:
            pixels = pixels.take(slice(None, None, -1))
            notes.append("its wavelengths fall; they were turned around")
        _check_axis(pixels.wavelength, unit, source)
        wavelength = _to_vacuum(pixels.wavelength, source) if medium == "air" else pixels.wavelength
        scale = flux_scale(flux_unit, wavelength)
        if scale is None:
            raise bad(source, f"{flux_unit!r} is no unit of flux", f"say flux_unit={FLUX!r}, or 'relative'")
        factor, is_calibrated = scale
        flux = pixels.flux * factor
        known = np.isfinite(flux) & ~pixels.masked
        if pixels.ivar is None:
            ivar = estimated_ivar(flux, known)
            notes.append("it has no errors; they were estimated from the scatter of neighboring pixels (DER_SNR)")
        else:
            ivar = pixels.ivar / factor**2
        known &= np.isfinite(ivar) & (ivar > 0)
    frame = options.frame or stated.frame
    if frame is None:
        notes.append("it does not say its frame; taken as observed (frame='rest' if it is not)")
    return Spectrum(
        wavelength,
        np.where(known, flux, 0.0),
        np.where(known, ivar, 0.0),
        z=options.z if options.z is not None else stated.z,
        name=stated.name,
        notes=tuple(notes),
        medium="air" if medium == "air" else "vacuum",
        frame="rest" if frame == "rest" else "observed",
        flux_unit=flux_unit,
        is_calibrated=is_calibrated,
        kind=stated.kind,
        ivar_is_estimated=pixels.ivar is None,
        ra=stated.ra,
        dec=stated.dec,
    )


def with_data(spectrum: Spectrum, source: str) -> Spectrum:
    """Return the spectrum; SchemaError for one whose every pixel is without data."""
    if not spectrum.ivar.any():
        which = f" {spectrum.name}" if spectrum.name and spectrum.name not in source else ""
        raise bad(source, f"every pixel{which} is masked, NaN or without error", "leave it out; it shows nothing")
    if not spectrum.flux.any():
        raise bad(source, "its flux is zero throughout", "leave it out; it shows nothing")
    return spectrum


def _decided(stated: Stated, options: Options, source: str) -> tuple[str, str, str]:
    """Return the unit of the wavelengths, the medium and the unit of the flux; SchemaError with all that is missing."""
    unit = options.wavelength_unit or stated.wavelength_unit
    medium = options.medium or stated.medium
    flux_unit = options.flux_unit or stated.flux_unit
    missing = [
        (unit, "the unit of its wavelengths", "wavelength_unit='Angstrom' (or what it is)"),
        (medium, "whether they are in air or in vacuum", "medium='air' or medium='vacuum'"),
        (flux_unit, "the unit of its flux", f"flux_unit='{FLUX}' (or what it is, or 'relative')"),
    ]
    if not (unit and medium and flux_unit):
        what, how = ([row[column] for row in missing if not row[0]] for column in (1, 2))
        flags = ", ".join(f"--{flag}" for flag, row in zip(FLAGS, missing, strict=True) if not row[0])
        raise bad(source, f"it does not say {_listed(what)}", f"say {_listed(how)}; on the command line {flags}")
    return unit, medium, flux_unit


def _listed(texts: Sequence[str | None]) -> str:
    """Return texts as a sentence lists them: a, b and c."""
    words = [str(text) for text in texts]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


@dataclass(frozen=True)
class _Pixels:
    """Arrays of one length: wavelength, flux, inverse variance or None, and True where a pixel is bad."""

    wavelength: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray | None
    masked: np.ndarray

    def take(self, rows: np.ndarray | slice) -> _Pixels:
        ivar = None if self.ivar is None else self.ivar[rows]
        return _Pixels(self.wavelength[rows], self.flux[rows], ivar, self.masked[rows])


def _pixels(stated: Stated, source: str) -> _Pixels:
    """Return the arrays as float64. Raises SchemaError for unlike lengths, and for errors that are none."""
    given = {"wavelength": stated.wavelength, "flux": stated.flux, "error": stated.error, "ivar": stated.ivar}
    arrays = {key: np.asarray(values, np.float64) for key, values in given.items() if values is not None}
    shapes = {key: values.shape for key, values in arrays.items()}
    count = arrays["wavelength"].size
    masked = np.zeros(count, bool) if stated.masked is None else np.asarray(stated.masked, bool)
    if any(shape != (count,) for shape in (*shapes.values(), masked.shape)):
        listed = ", ".join(f"{key} {shape}" for key, shape in {**shapes, "mask": masked.shape}.items())
        raise bad(source, f"its arrays have different shapes ({listed})", "give columns of one length")
    if not 2 <= count <= MOST_PIXELS:
        raise bad(source, f"it has {count:,} pixels", f"give a spectrum of 2 to {MOST_PIXELS:,} pixels")
    for key in {"ivar", "error"} & arrays.keys():
        if (arrays[key] < 0).any():
            worst = float(np.nanmin(arrays[key]))
            raise bad(source, f"its {key} goes down to {worst:g}", f"0 stands for no data; check that it is {key}")
    ivar = arrays.get("ivar")
    if "error" in arrays:
        with np.errstate(all="ignore"):
            ivar = np.where(arrays["error"] > 0, 1.0 / arrays["error"] ** 2, 0.0)
    return _Pixels(arrays["wavelength"], arrays["flux"], ivar, masked)


def _in_angstrom(values: np.ndarray, unit: str, source: str) -> np.ndarray:
    scale = wavelength_scale(unit)
    if scale is None:
        reason = f"{unit!r} is no unit of wavelength"
        raise bad(source, reason, "say wavelength_unit='Angstrom', 'nm', 'um' or 'log10(Angstrom)'")
    factor, is_log = scale
    return (10.0**values if is_log else values) * factor


def _with_wavelengths(pixels: _Pixels, notes: list[str], source: str) -> _Pixels:
    """Return the pixels without those that have neither wavelength nor data, as detectors have at their ends."""
    lost = ~(np.isfinite(pixels.wavelength) & (pixels.wavelength > 0))
    if not lost.any():
        return pixels
    weightless = pixels.masked | ~np.isfinite(pixels.flux)
    weightless |= pixels.flux == 0 if pixels.ivar is None else ~(pixels.ivar > 0)
    if (lost & ~weightless).any():
        reason = f"{int((lost & ~weightless).sum()):,} pixels have flux and no wavelength (NaN, zero, negative)"
        raise bad(source, reason, "mend the wavelengths, or check the columns and the unit")
    if (~lost).sum() < 2:
        raise bad(source, f"it has {int((~lost).sum())} pixels with a wavelength", "check the columns and the unit")
    notes.append(f"{int(lost.sum()):,} pixels without wavelength and data were left out")
    return pixels.take(~lost)


def _check_axis(wavelength: np.ndarray, unit: str, source: str) -> None:
    steps = np.diff(wavelength)
    if (steps == 0).any():
        at = wavelength[:-1][steps == 0][0]
        reason = f"{int((steps == 0).sum()):,} wavelengths stand twice, such as {at:.6g} angstrom"
        raise bad(source, reason, "give each once; arms or orders that overlap must be joined first")
    if (steps < 0).any():
        at = wavelength[1:][steps < 0][0]
        reason = f"its wavelengths are not in order ({at:.6g} angstrom comes after a longer one)"
        raise bad(source, reason, "sort the rows; arms or orders that overlap must be joined first")
    low, high = float(wavelength[0]), float(wavelength[-1])
    if not (low >= SHORTEST and high <= LONGEST):
        reason = f"its wavelengths would run from {low:.4g} to {high:.4g} angstrom with the unit {unit}"
        raise bad(source, reason, "say the true one with wavelength_unit, such as 'um' or 'log10(Angstrom)'")


def _to_vacuum(wavelength: np.ndarray, source: str) -> np.ndarray:
    try:
        return spectra.air_to_vacuum(wavelength)
    except SchemaError as error:
        raise SchemaError(f"{source}: {error}") from None


def estimated_ivar(flux: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return ivar (n,) from the scatter of neighbors in stretches of `SCATTER_PIXELS`, 0 where nothing is known.

    The noise is 1.482602 / sqrt(6) times the median of |2 f(i) - f(i-2) - f(i+2)|, DER_SNR of Stoehr et al. 2008
    (ST-ECF Newsletter 42). It is right for independent errors and too small where neighbors share light. Of a model,
    which has none, it is a thousandth of the typical flux.
    """
    ivar = np.zeros(len(flux))
    index = np.flatnonzero(known)
    if not len(index):
        return ivar
    values = flux[index]
    least = LEAST_SCATTER * float(np.median(np.abs(values))) or LEAST_SCATTER * float(np.abs(values).max())
    if len(values) < 5:
        ivar[index] = 1.0 / np.var(values) if np.var(values) > 0 else 1.0
        return ivar
    scatter = np.abs(2.0 * values[2:-2] - values[:-4] - values[4:])
    parts = np.array_split(scatter, max(1, len(scatter) // SCATTER_PIXELS))
    noise = np.concatenate([np.full(len(part), 1.482602 / np.sqrt(6.0) * np.median(part)) for part in parts])
    noise = np.maximum(np.pad(noise, 2, mode="edge"), least)
    ivar[index] = np.divide(1.0, noise**2, out=np.zeros(len(noise)), where=noise > 0)
    return ivar


def redshift_notes(warning: int | None, key: str = "ZWARNING") -> tuple[str, ...]:
    """Return the note on a redshift whose fit warned, () for one that did not.

    >>> redshift_notes(6)
    ('ZWARNING is 6 (LITTLE_COVERAGE, SMALL_DELTA_CHI2): its redshift is doubtful',)
    """
    if not warning or warning < 0:
        return ()
    names = [name for bit, name in enumerate(ZWARNING) if warning >> bit & 1]
    listed = f" ({', '.join(names)})" if names else ""
    return (f"{key} is {warning}{listed}: its redshift is doubtful",)
