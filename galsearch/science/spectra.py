"""Spectra: vacuum wavelengths, flux-conserving resampling with its variance, rest frame, arms joined.

A spectrum is four arrays of one length and what is known of them. Wavelengths are in angstrom and vacuum, flux is per
unit of wavelength, `ivar` is the inverse variance of the flux, 0 where there is no data. Nothing here reads a file; no
function modifies its input. Resampling weighs each old pixel by how much of it lies in the new one, as SpectRes does
(Carnall 2017, arXiv:1705.05165), so that the flux in a band stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from galsearch.errors import SchemaError

Medium = Literal["air", "vacuum"]
Frame = Literal["observed", "rest"]

AIR_FROM_ANGSTROM = 2000.0  # in vacuum; shorter wavelengths are always given in vacuum (IAU)
SDSS_STEP = 1e-4  # of log10 of the wavelength, 69 km/s
LEAST_COVERED = 0.5  # of the width of a pixel; with less of it there is no data
COARSER = 1.05  # times the step of SDSS: spectra whose pixels are wider are stored in pixels of their own width
GAP = 1.75  # times the usual distance of neighbors: what is farther apart has a gap between
ALIGNED = 0.01  # of a pixel: arms whose pixels differ by less are on one grid


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One spectrum; all arrays (n,) float64, n at least 2, and read-only.

    `wavelength_angstrom` rises strictly, in vacuum, in the frame that `frame` says; `flux` is finite, 0 where `ivar`
    is 0. Calibrated flux is in 1e-17 erg / (s cm2 Angstrom); otherwise its scale means nothing, its shape does. `z` is
    the redshift of the object, None where it is not known; `ra` and `dec` are degrees ICRS. `medium` and `flux_unit`
    say what the wavelengths and the flux were before they were converted, `kind` what the file was read as, `notes`
    what the reader chose and somebody might have chosen otherwise. `ivar_is_estimated`: there were no errors, and the
    scatter of neighbors stands for them.

    Raises SchemaError for arrays that break these rules.
    """

    wavelength_angstrom: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    z: float | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    medium: Medium = "vacuum"
    frame: Frame = "observed"
    flux_unit: str = ""
    is_calibrated: bool = False
    kind: str = ""
    ivar_is_estimated: bool = False
    ra: float | None = None
    dec: float | None = None

    def __post_init__(self) -> None:
        for name in ("wavelength_angstrom", "flux", "ivar"):
            values = np.array(getattr(self, name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        shapes = {self.wavelength_angstrom.shape, self.flux.shape, self.ivar.shape}
        if len(shapes) > 1 or len(self.wavelength_angstrom.shape) != 1 or len(self.wavelength_angstrom) < 2:
            raise self._bad(f"its arrays have shapes {sorted(shapes)}", "give three of one length, 2 pixels or more")
        if not (np.isfinite(self.flux).all() and np.isfinite(self.ivar).all() and (self.ivar >= 0).all()):
            raise self._bad("flux or ivar is not finite, or ivar is negative", "give flux 0 and ivar 0 for no data")
        low = self.wavelength_angstrom[0]
        if not (
            low > 0 and (np.diff(self.wavelength_angstrom) > 0).all() and np.isfinite(self.wavelength_angstrom[-1])
        ):
            raise self._bad("its wavelengths do not rise strictly", "sort them, and give each one once")
        if self.z is not None and not (math.isfinite(self.z) and self.z > -1):
            raise self._bad(f"its redshift is {self.z}", "give a number above -1, or None")

    def __len__(self) -> int:
        return len(self.wavelength_angstrom)

    @property
    def median_snr(self) -> float | None:
        """The median of flux / error over the pixels with data, None without any."""
        good = self.ivar > 0
        return float(np.median(self.flux[good] * np.sqrt(self.ivar[good]))) if good.any() else None

    def _bad(self, reason: str, remedy: str) -> SchemaError:
        return SchemaError(f"{self.name or 'spectrum'}: {reason}; {remedy}")


@dataclass(frozen=True)
class LogGrid:
    """Pixels of one width in log10 of the wavelength in angstrom: their centers are start + step * (0 … count - 1)."""

    start: float
    step: float
    count: int

    @property
    def wavelength_angstrom(self) -> np.ndarray:
        """The centers, (count,)."""
        return 10.0 ** (self.start + self.step * np.arange(self.count))

    @classmethod
    def of_input(cls, stated: Mapping[str, Any]) -> LogGrid:
        """Return the pixels that an encoder sees, by what its card says of its input."""
        return cls(stated["log_wavelength_start"], stated["log_wavelength_step"], stated["pixels"])

    @property
    def edges_angstrom(self) -> np.ndarray:
        """The limits of the pixels, (count + 1,)."""
        return 10.0 ** (self.start + self.step * (np.arange(self.count + 1) - 0.5))


def log_grid(low_angstrom: float, high_angstrom: float, *, step: float = SDSS_STEP) -> LogGrid:
    """Return the grid from `low` to `high` whose centers are whole multiples of `step`, as those of SDSS are.

    >>> log_grid(3548.2, 10471.2)
    LogGrid(start=3.55, step=0.0001, count=4701)
    """
    if not (0 < low_angstrom <= high_angstrom < math.inf and 0 < step < 1):
        raise SchemaError(
            f"a grid from {low_angstrom} to {high_angstrom} angstrom by steps of {step} in log10 cannot be; give "
            "0 < low <= high and a step between 0 and 1"
        )
    first, last = (round(math.log10(end) / step) for end in (low_angstrom, high_angstrom))
    return LogGrid(round(first * step, 12), step, last - first + 1)


# ---- air and vacuum


def refractive_index(vacuum_angstrom: np.ndarray) -> np.ndarray:
    """Return that of dry air at 15 °C, 101,325 Pa and 450 ppm CO2, for wavelengths in vacuum.

    Ciddor 1996 (Applied Optics 35, 1566), equation 1, as SDSS, DESI and specutils use it; it agrees with Morton 2000
    (ApJS 130, 403), which rests on Birch & Downs 1994, within 1e-8 from 2500 Å to 1 µm.
    """
    sigma2 = (1e4 / vacuum_angstrom) ** 2  # wave number in 1 / µm, squared
    return 1.0 + 0.05792105 / (238.0185 - sigma2) + 0.00167917 / (57.362 - sigma2)


def vacuum_to_air(vacuum_angstrom: np.ndarray) -> np.ndarray:
    """Return wavelengths (n,) in air. Raises SchemaError below 2000 Å, where air is not used.

    >>> float(vacuum_to_air(np.array([5008.240]))[0].round(2))
    5006.84
    """
    values = np.asarray(vacuum_angstrom, dtype=np.float64)
    _check_air(values, AIR_FROM_ANGSTROM)
    return values / refractive_index(values)


def air_to_vacuum(air_angstrom: np.ndarray) -> np.ndarray:
    """Return wavelengths (n,) in vacuum: the inverse of `vacuum_to_air` to the last digits.

    Raises SchemaError below the wavelength in air that is 2000 Å in vacuum.

    >>> float(air_to_vacuum(np.array([6562.80]))[0].round(2))
    6564.61
    """
    values = np.asarray(air_angstrom, dtype=np.float64)
    _check_air(values, AIR_FROM_ANGSTROM / float(refractive_index(np.array(AIR_FROM_ANGSTROM))))
    result = values * 1.0003
    for _ in range(4):  # each step is 1e-5 of the one before
        result = values * refractive_index(result)
    return result


def _check_air(values: np.ndarray, least: float) -> None:
    if values.size and not values.min() >= least * (1 - 1e-12):
        raise SchemaError(
            f"wavelengths from {values.min():g} angstrom have no value in air: below {AIR_FROM_ANGSTROM:g} vacuum is "
            "meant by all; say medium='vacuum', or cut them off"
        )


# ---- resampling


def pixel_edges(wavelength_angstrom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel begins and ends, each (n,), halfway to its neighbors in the logarithm.

    Where the next pixel is much farther than usual (`GAP`) there is a gap: the pixel ends at half the usual distance.
    """
    logs = np.log(wavelength_angstrom)
    steps = np.diff(logs)
    gaps, usual = _gaps(steps)
    half = steps / 2
    half[gaps] = usual / 2
    low = logs - np.concatenate([half[:1], half])
    high = logs + np.concatenate([half, half[-1:]])
    whole = np.exp(np.concatenate([low[:1], high]))
    begins = whole[:-1].copy()  # one number for the end of a pixel and the beginning of the next
    begins[gaps + 1] = np.exp(low[gaps + 1])
    return begins, whole[1:]


def _gaps(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which steps are gaps (g,), and what is usual there (g,): the median of the five around."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(steps, 2, mode="edge"), 5)
    least = np.minimum.reduce([around[:, column] for column in range(5)])
    likely = np.flatnonzero(steps > GAP * least)  # few, and the median costs more than all the rest
    usual = np.median(around[likely], axis=1)
    are_gaps = steps[likely] > GAP * usual
    return likely[are_gaps], usual[are_gaps]


def rebin(
    begins: np.ndarray, ends: np.ndarray, flux: np.ndarray, ivar: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return flux and ivar, each (m,), in the pixels between `edges` (m + 1,), from pixels `begins` to `ends` (n,).

    Old pixels do not overlap and rise, as the edges do. The new flux is the mean of the old over the part of the pixel
    that good data (ivar > 0) cover; its variance is that of this sum, exact for independent old pixels. New neighbors
    that share an old pixel are correlated, which is not kept. Both are 0 where good data cover less than half of a
    pixel.
    """
    good = ivar > 0
    begins, ends, flux = begins[good], ends[good], flux[good]
    with np.errstate(all="ignore"):
        variance = 1.0 / ivar[good]
    count = len(edges) - 1
    first = np.searchsorted(ends, edges[:-1], side="right")
    overlaps = np.maximum(np.searchsorted(begins, edges[1:], side="left") - first, 0)
    new = np.repeat(np.arange(count), overlaps)
    old = np.arange(len(new)) - np.repeat(np.cumsum(overlaps) - overlaps - first, overlaps)
    widths = np.minimum(ends[old], edges[new + 1]) - np.maximum(begins[old], edges[new])
    with np.errstate(all="ignore"):  # numbers at the ends of their range make a pixel without data
        covered, total, spread = (
            np.bincount(new, weights=values, minlength=count)
            for values in (widths, widths * flux[old], widths**2 * variance[old])
        )
        known = covered >= LEAST_COVERED * np.diff(edges) * (1 - 1e-9)
        new_flux, new_ivar = total / covered, covered**2 / spread
    known &= np.isfinite(new_flux) & np.isfinite(new_ivar) & (new_ivar > 0)
    return np.where(known, new_flux, 0.0), np.where(known, new_ivar, 0.0)


def resample(spectrum: Spectrum, grid: LogGrid) -> Spectrum:
    """Return the spectrum on a grid, its flux conserved and its variance carried (`rebin`), in the frame it has."""
    begins, ends = pixel_edges(spectrum.wavelength_angstrom)
    flux, ivar = rebin(begins, ends, spectrum.flux, spectrum.ivar, grid.edges_angstrom)
    return replace(spectrum, wavelength_angstrom=grid.wavelength_angstrom, flux=flux, ivar=ivar)


# ---- frames and arms


def to_rest_frame(spectrum: Spectrum, z: float | None = None) -> Spectrum:
    """Return the spectrum in the frame of the object, whose redshift is `z` or else its own.

    Wavelengths are divided by 1 + z and flux density is multiplied by it, so that the flux of a line stays what it was.
    One that is in the rest frame already comes back as it is. Raises SchemaError without a redshift.
    """
    if spectrum.frame == "rest":
        return spectrum
    z = spectrum.z if z is None else z
    if z is None or not (math.isfinite(z) and z > -1):
        raise SchemaError(f"{spectrum.name or 'spectrum'}: its redshift is {z}; give z, a number above -1")
    return replace(
        spectrum,
        wavelength_angstrom=spectrum.wavelength_angstrom / (1 + z),
        flux=spectrum.flux * (1 + z),
        ivar=spectrum.ivar / (1 + z) ** 2,
        z=z,
        frame="rest",
    )


def join(arms: Sequence[Spectrum], grid: LogGrid | None = None) -> Spectrum:
    """Return several arms of one object as one spectrum: the mean weighted by ivar where they overlap.

    Arms are independent exposures of different pixels, so that ivars add up, and none is counted twice. Without a
    `grid` arms whose pixels coincide where they overlap (within 1 % of a pixel, as those of DESI do) keep their pixels;
    others are resampled to a logarithmic grid with the coarsest step that one of them has. What is known of the object
    is taken from the first arm. Raises SchemaError for no arm, or arms in different frames or units.
    """
    if not arms:
        raise SchemaError("there is no arm to join; give at least one spectrum")
    first = arms[0]
    if any((arm.frame, arm.is_calibrated) != (first.frame, first.is_calibrated) for arm in arms):
        raise SchemaError(f"{first.name or 'spectrum'}: its arms are in different frames or units; convert them first")
    if grid is None and len(arms) == 1:
        return first
    notes = tuple(dict.fromkeys(note for arm in arms for note in arm.notes))
    estimated = any(arm.ivar_is_estimated for arm in arms)
    indices = None if grid is not None else _shared_pixels(arms)
    if indices is None:
        grid = grid or _own_grid(arms)
        arms = [resample(arm, grid) for arm in arms]
        wavelength, indices = grid.wavelength_angstrom, [np.arange(grid.count)] * len(arms)
    else:
        wavelength = np.empty(max(int(rows[-1]) for rows in indices) + 1)
        for arm, rows in zip(arms[::-1], indices[::-1], strict=True):
            wavelength[rows] = arm.wavelength_angstrom
    weight, total = np.zeros(len(wavelength)), np.zeros(len(wavelength))
    for arm, rows in zip(arms, indices, strict=True):
        with np.errstate(all="ignore"):
            weight[rows] += arm.ivar
            total[rows] += arm.ivar * arm.flux
    flux = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    first = replace(first, notes=notes, ivar_is_estimated=estimated)
    return replace(first, wavelength_angstrom=wavelength, flux=flux, ivar=weight)


def _shared_pixels(arms: Sequence[Spectrum]) -> list[np.ndarray] | None:
    """Return the rows of each arm's pixels among all, None where pixels overlap without coinciding."""
    sizes = np.cumsum([0, *map(len, arms)])
    values = np.concatenate([arm.wavelength_angstrom for arm in arms])
    owner = np.repeat(np.arange(len(arms)), np.diff(sizes))
    width = np.concatenate([np.gradient(arm.wavelength_angstrom) for arm in arms])
    order = np.argsort(values, kind="stable")
    steps, usual = np.diff(values[order]), np.minimum(width[order][1:], width[order][:-1])
    same = steps < ALIGNED * usual
    near = ~same & (owner[order][1:] != owner[order][:-1]) & (steps < (1 - ALIGNED) * usual)
    if near.any():
        return None
    rows = np.empty(len(values), np.int64)
    rows[order] = np.concatenate([[0], np.cumsum(~same)])
    parts = [rows[start:end] for start, end in pairwise(sizes)]
    return parts if all((np.diff(part) > 0).all() for part in parts) else None


def _own_grid(arms: Sequence[Spectrum]) -> LogGrid:
    step = max(float(np.median(np.diff(np.log10(arm.wavelength_angstrom)))) for arm in arms)
    low = min(arm.wavelength_angstrom[0] for arm in arms)
    return log_grid(float(low), float(max(arm.wavelength_angstrom[-1] for arm in arms)), step=step)


# ---- for an encoder

LEAST_SEEN = 0.05  # of the pixels of an encoder that must have data: with less it sees next to nothing


def model_input(spectrum: Spectrum, grid: LogGrid, *, frame: Frame) -> np.ndarray:
    """Return flux and ivar `(2, count) float32` on the grid of an encoder, in the frame that it compares.

    Both are divided by a scale, the median of |flux| over its data, so that no float32 overflows; encoders take any.
    Raises SchemaError for one without a redshift where `frame` is "rest", for one in the rest frame where it is
    "observed", and where less than a twentieth of the grid has data.
    """
    name = spectrum.name or "spectrum"
    if frame == "rest":
        if spectrum.z is None and spectrum.frame != "rest":
            raise SchemaError(
                f"{name}: no redshift is known, and spectra are compared in the rest frame; give z, in the table or "
                "for a file (--z), or compare them as observed (observed_frame, --observed-frame)"
            )
        spectrum = to_rest_frame(spectrum)
    elif spectrum.frame == "rest":
        raise SchemaError(f"{name}: it is in the rest frame, and spectra are compared as observed here; leave it out")
    begins, ends = pixel_edges(spectrum.wavelength_angstrom)
    flux, ivar = rebin(begins, ends, spectrum.flux, spectrum.ivar, grid.edges_angstrom)
    seen = ivar > 0
    if not seen.sum() >= LEAST_SEEN * grid.count:
        low, high = grid.wavelength_angstrom[[0, -1]]
        raise SchemaError(
            f"{name}: it has data in {seen.sum()} of the {grid.count} pixels from {low:.0f} to {high:.0f} angstrom "
            f"({frame} frame, z = {spectrum.z}) that are compared; leave it out, or mend its redshift"
        )
    scale = float(np.median(np.abs(flux[seen]))) or float(np.abs(flux[seen]).max()) or 1.0
    return np.stack([flux / scale, ivar * scale**2]).astype(np.float32)


# ---- as stored in an atlas


def to_stored(spectrum: Spectrum) -> dict[str, Any]:
    """Return a row of the table `spectra` without its id: on a logarithmic grid, in its frame, as far as it has data.

    The steps are those of SDSS, or the spectrum's own where they are coarser: finer pixels than there were would share
    light, and would pass for more than they are. Raises SchemaError for data of less than two pixels.
    """
    good = np.flatnonzero(spectrum.ivar > 0)
    low, high = spectrum.wavelength_angstrom[[good[0], good[-1]]]
    usual = float(np.median(np.diff(np.log10(spectrum.wavelength_angstrom))))
    step = SDSS_STEP if usual < COARSER * SDSS_STEP else float(f"{usual:.3g}")
    grid = log_grid(float(low), float(high), step=step)
    if grid.count < 2:
        raise SchemaError(f"{spectrum.name}: its data span {low:.2f} to {high:.2f} angstrom, less than two pixels")
    result = resample(spectrum, grid)
    return {
        "log_wavelength_start": grid.start,
        "log_wavelength_step": grid.step,
        "flux": result.flux.astype(np.float32),
        "ivar": result.ivar.astype(np.float32),
        "medium": "vacuum",
        "frame": spectrum.frame,
        "z": spectrum.z,
        "is_calibrated": spectrum.is_calibrated,
        "flux_unit": spectrum.flux_unit,
        "kind": spectrum.kind,
    }


def from_stored(row: Mapping[str, Any]) -> Spectrum:
    """Return the spectrum of a row of the table `spectra`. Raises SchemaError for a row that is none."""
    start, step = row["log_wavelength_start"], row["log_wavelength_step"]
    if not (0 < start < 10 and 0 < step < 1):
        raise SchemaError(f"{row['object_id']}: its wavelengths begin at 10^{start} by steps of {step}; rebuild it")
    grid = LogGrid(row["log_wavelength_start"], row["log_wavelength_step"], len(row["flux"]))
    flux, ivar = (np.asarray(row[name], np.float64) for name in ("flux", "ivar"))
    return Spectrum(
        grid.wavelength_angstrom, flux, ivar, z=row["z"], name=row["object_id"], frame=row["frame"],
        flux_unit=row["flux_unit"] or "", is_calibrated=bool(row["is_calibrated"]), kind=row["kind"] or "",
    )  # fmt: skip
