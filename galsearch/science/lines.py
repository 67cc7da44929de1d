"""Emission and absorption lines of galaxy spectra: fluxes, equivalent widths, widths, indices, BPT and WHAN classes.

Emission lines are Gaussians, integrated over each pixel, on a polynomial continuum in each of a few windows, all fitted
at once and weighted by ivar. Balmer lines share one velocity and one width, forbidden lines another; the Balmer
absorption of the stars shares one equivalent width. Errors are those of the covariance of all parameters together. No
pixel of a line is ever left out, however small or large its ivar is: only ivar 0 is no data. Wavelengths are in vacuum
and at rest. Nothing is freed from Galactic or internal dust, or from the resolution of the instrument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from galsearch.science.spectra import Spectrum, air_to_vacuum, pixel_edges, to_rest_frame

LIGHT_KMS = 299_792.458
ROOT_2PI = math.sqrt(2 * math.pi)
FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in sigmas

BALMER, FORBIDDEN, BROAD = 0, 1, 2  # lines of one group share velocity and width


class _Line(NamedTuple):
    name: str
    group: int
    parts: tuple[tuple[float, float], ...]  # wavelengths in vacuum (NIST), amplitudes in shares of the first


# Ratios of the levels' transition rates: Storey and Zeippen 2000 (MNRAS 312, 813)
OIII_RATIO, NII_RATIO = 2.98, 3.05
EMISSION = (
    _Line("[O II] 3726", FORBIDDEN, ((3727.092, 1.0),)),
    _Line("[O II] 3729", FORBIDDEN, ((3729.875, 1.0),)),
    _Line("H delta", BALMER, ((4102.892, 1.0),)),
    _Line("H gamma", BALMER, ((4341.684, 1.0),)),
    _Line("[O III] 4363", FORBIDDEN, ((4364.436, 1.0),)),
    _Line("H beta", BALMER, ((4862.683, 1.0),)),
    _Line("[O III] 5007", FORBIDDEN, ((5008.240, 1.0), (4960.295, 1 / OIII_RATIO))),
    _Line("[O I] 6300", FORBIDDEN, ((6302.046, 1.0),)),
    _Line("[O I] 6364", FORBIDDEN, ((6365.536, 1.0),)),
    _Line("H alpha", BALMER, ((6564.610, 1.0),)),
    _Line("[N II] 6583", FORBIDDEN, ((6585.270, 1.0), (6549.860, 1 / NII_RATIO))),
    _Line("[S II] 6716", FORBIDDEN, ((6718.290, 1.0),)),
    _Line("[S II] 6731", FORBIDDEN, ((6732.670, 1.0),)),
)
BROAD_BALMER = tuple(_Line(f"{line.name} broad", BROAD, line.parts) for line in EMISSION if line.group == BALMER)
MGII = _Line("Mg II 2799 broad", BROAD, ((2796.352, 1.0), (2803.531, 1.0)))


class _Window(NamedTuple):
    low: float
    high: float
    degree: int  # of the continuum, 2 at most


WINDOWS = (
    _Window(3690, 3765, 1),
    _Window(4045, 4165, 1),
    _Window(4275, 4415, 1),
    _Window(4760, 5075, 2),
    _Window(6210, 6850, 2),
)
MGII_WINDOW = _Window(2650, 2950, 1)

# What stars do to the fluxes: equivalent widths of absorption at the lines, in Angstrom, as offset + slope * that at
# H beta. Measured on mixtures of 25 stars from B0.5 to K4 (`python -m benchmarks.lines --stars`), so that they hold for
# these windows and widths only; the mixtures scatter around them by 0.3 Angstrom at Balmer lines, else by 0.07.
STARS = {
    "H delta": (-1.0, 1.24),
    "H gamma": (-1.6, 1.38),
    "[O III] 4363": (-1.2, 0.2),
    "H beta": (0.0, 1.0),
    "[O III] 5007": (0.55, -0.13),
    "[O I] 6300": (0.29, -0.02),
    "[O I] 6364": (0.20, -0.05),
    "H alpha": (0.35, 0.86),
    "[N II] 6583": (-0.28, 0.19),
    "[S II] 6716": (0.16, -0.01),
    "[S II] 6731": (-0.06, 0.03),
}
STARS_KMS = (200.0, 150.0)  # sigma of their Balmer lines, and of the blends at other lines
# D4000, and the equivalent width at H beta that such mixtures have, with its spread
STARS_BY_D4000 = np.array(
    [
        (0.90, 2.6, 1.2),
        (1.10, 3.2, 1.0),
        (1.25, 3.2, 0.6),
        (1.45, 2.9, 0.4),
        (1.55, 2.6, 0.35),
        (1.70, 2.3, 0.35),
        (1.90, 2.0, 0.3),
        (2.10, 1.75, 0.3),
        (2.40, 1.6, 0.3),
    ]
)
STARS_UNKNOWN = (2.5, 1.2)  # the same without D4000

START_KMS = 120.0  # sigma, also where no line is bright enough to tell
LEAST_SIGMA_PIXELS = 0.4
MOST_SIGMA_KMS = 420.0  # FWHM just below 1,000 km/s, where lines begin to be called broad
MOST_VELOCITY_KMS = 500.0
LEAST_SNR = 4.0  # of a line, for the velocity and width of its group to be fitted
BROAD_KMS = (800.0, 1700.0, 3500.0)  # sigmas that are tried
LEAST_BROAD_KMS = 425.0  # sigma, FWHM 1,000 km/s
MOST_BROAD_KMS = 5000.0
MOST_BROAD_VELOCITY_KMS = 1500.0
CORE = 8.0  # sigmas around a line where nothing is a flaw, wings included
FLAW = 5.0  # sigmas: what deviates by more, away from lines, is left out of the continuum
WHOLE_SNR = 30.0  # from here on what a line has beside its Gaussian is added, if it is more than 3 errors
WHOLE_EW = 1.0  # and more than this equivalent width, in Angstrom, which stars might be
WING_REACH, WING_WIDTH = 6.0, 2.5  # in sigmas of the Gaussian: where it is looked for, and what it may be as wide as
COVERED = 0.6  # of the width within 2.5 sigmas of a line that must have data
TAIL = 6.0  # sigmas, where a Gaussian ends: 2e-9 of it is beyond
ODD_KMS = 350.0  # sigma: narrow lines that are wider may be broad ones
LEAST_GAIN = 50.0  # of chi squared, in units of its mean, for broad lines
LEAST_BROAD_SNR = 7.0
LEAST_BROAD_EW = 5.0  # Angstrom: what stars leave over is less
LEAST_CONTINUUM = 3.0  # errors; below that a line has no equivalent width
SMALL_GAIN = 0.01  # of chi squared, for which no further step is made
SMALL = 1e-12  # of 1, added to the diagonal of a scaled normal matrix


# ---- pixels and model


@dataclass(frozen=True)
class _Pixels:
    """Pixels of some windows, one window after the other: limits, flux and ivar, each (n,); `rows` of each window."""

    low: np.ndarray
    high: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    windows: tuple[_Window, ...]
    rows: tuple[slice, ...]

    @property
    def center(self) -> np.ndarray:
        return (self.low + self.high) / 2


def _pixels(
    spectrum: Spectrum,
    edges: tuple[np.ndarray, np.ndarray],
    windows: Sequence[_Window],
    lines: Sequence[_Line],
) -> tuple[_Pixels, list[_Line]]:
    """Return the pixels with data of the windows that have a line with data, and those lines."""
    low, high = edges
    good = spectrum.ivar > 0
    kept_windows, kept_lines, indices = [], [], []
    for window in windows:
        first, last = np.searchsorted(spectrum.wavelength_angstrom, (window.low, window.high))
        inside = first + np.flatnonzero(good[first:last])
        if len(inside) < 3 * (window.degree + 2):
            continue
        here = [line for line in lines if window.low < line.parts[0][0] < window.high]
        here = [line for line in here if _covered(line.parts[0][0], low[inside], high[inside]) >= COVERED]
        if here:
            kept_windows.append(window)
            kept_lines += here
            indices.append(inside)
    ends = np.cumsum([0, *map(len, indices)])
    index = np.concatenate(indices) if indices else np.zeros(0, int)
    rows = tuple(slice(int(begin), int(end)) for begin, end in pairwise(ends))
    arrays = (low[index], high[index], spectrum.flux[index], spectrum.ivar[index])
    return _Pixels(*arrays, tuple(kept_windows), rows), kept_lines


def _covered(wavelength: float, low: np.ndarray, high: np.ndarray) -> float:
    """Return the share of what lies within 2.5 sigmas of a line that pixels with data cover."""
    near = np.abs((low + high) / 2 - wavelength).argmin()
    reach = 2.5 * max(wavelength * START_KMS / LIGHT_KMS, high[near] - low[near])
    inside = np.minimum(high, wavelength + reach) - np.maximum(low, wavelength - reach)
    return float(np.maximum(inside, 0).sum() / (2 * reach))


@dataclass(frozen=True)
class _Model:
    """What is fitted: polynomials, the absorption of stars where there is any, and lines.

    The design matrix has the columns of `fixed`, then one for each line. Its last row is no pixel: it holds what is
    known of the stars beforehand, or nothing. `group[k]` is the index of the velocity and width of line k.
    """

    pixels: _Pixels
    lines: tuple[_Line, ...]
    group: tuple[int, ...]
    data: np.ndarray  # (n + 1,)
    fixed: np.ndarray  # (n + 1, p)
    has_stars: bool = False

    def continuum(self, linear: np.ndarray, wavelength: float) -> tuple[float, np.ndarray]:
        """Return the continuum at a wavelength, and its derivatives by the linear parameters."""
        derivative, first = np.zeros(len(linear)), 0
        for window in self.pixels.windows:
            if window.low < wavelength < window.high:
                derivative[first : first + window.degree + 1] = _legendre(window, wavelength)
            first += window.degree + 1
        return float(derivative @ linear), derivative


def _model(pixels: _Pixels, lines: Sequence[_Line]) -> _Model:
    """Return the model without stars whose lines all share one velocity and width."""
    fixed = np.zeros((len(pixels.flux) + 1, sum(window.degree + 1 for window in pixels.windows)))
    first = 0
    for window, rows in zip(pixels.windows, pixels.rows, strict=True):
        fixed[rows, first : first + window.degree + 1] = _legendre(window, pixels.center[rows])
        first += window.degree + 1
    return _Model(pixels, tuple(lines), (0,) * len(lines), np.append(pixels.flux, 0.0), fixed)


def _with_stars(model: _Model, linear: np.ndarray, prior: tuple[float, float]) -> _Model:
    """Return the model with the absorption of stars on the continuum of `linear`; itself without a line to tell it.

    `prior` is the equivalent width at H beta that is expected, and its spread.
    """
    names = [line.name for line in model.lines]
    if not {"H beta", "H gamma", "H delta"} & set(names):
        return model
    lines = [line for line in model.lines if line.name in STARS]
    level = np.array([model.continuum(linear, line.parts[0][0])[0] for line in lines])
    offset, slope = np.array([STARS[line.name] for line in lines]).T * level
    group = tuple(int(line.group != BALMER) for line in lines)
    shapes = np.array([[0.0, math.log(sigma)] for sigma in STARS_KMS])
    bells = _bells(model.pixels, tuple(lines), group, shapes)
    columns = np.zeros((len(model.data), len(lines)))
    np.add.at(columns, (bells.rows, bells.line), bells.value)
    mean, spread = prior
    fixed = np.hstack([model.fixed, -(columns @ slope)[:, None]])
    fixed[-1, -1] = 1 / spread
    data = model.data + columns @ offset
    data[-1] = mean / spread
    return replace(model, data=data, fixed=fixed, has_stars=True)


def _legendre(window: _Window, wavelength: np.ndarray | float) -> np.ndarray:
    """Return the Legendre polynomials up to the second, or the degree of the window, (..., degree + 1)."""
    x = (2 * np.asarray(wavelength) - window.low - window.high) / (window.high - window.low)
    return np.stack([np.ones_like(x), x, 1.5 * x * x - 0.5][: window.degree + 1], axis=-1)


class _Bells(NamedTuple):
    """Lines on the pixels that they reach, one element for each pixel of each part of a line."""

    rows: np.ndarray
    line: np.ndarray
    value: np.ndarray  # mean in the pixel, for flux 1 of the line's first part
    by_velocity: np.ndarray
    by_width: np.ndarray  # by the log of sigma


@lru_cache(maxsize=256)  # combinations of lines that a spectrum covers are few
def _parts(lines: tuple[_Line, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return wavelength, share and row of the line of each part."""
    parts = [(wavelength, share, k) for k, line in enumerate(lines) for wavelength, share in line.parts]
    wavelength, share, owner = np.array(parts).T
    return wavelength, share, owner.astype(np.intp)


def _bells(pixels: _Pixels, lines: tuple[_Line, ...], group: Sequence[int], shapes: np.ndarray) -> _Bells:
    """Return lines as Gaussians integrated over pixels; `shapes` (s, 2) holds velocity and log of sigma, in km/s."""
    from scipy.special import ndtr

    wavelength, share, owner = _parts(lines)
    velocity, log_sigma = shapes[np.array(group)[owner]].T
    sigma = np.exp(log_sigma)
    center, scale = wavelength * (1 + velocity / LIGHT_KMS), wavelength * sigma / LIGHT_KMS
    begin = np.searchsorted(pixels.high, center - TAIL * scale)
    count = np.maximum(np.searchsorted(pixels.low, center + TAIL * scale) - begin, 0)
    part = np.repeat(np.arange(len(count)), count)
    rows = np.arange(len(part)) - (np.cumsum(count) - count - begin)[part]
    low, high = pixels.low[rows], pixels.high[rows]
    share = share[part] / (high - low)
    low, high = (low - center[part]) / scale[part], (high - center[part]) / scale[part]
    bell_low, bell_high = np.exp(-0.5 * low * low) / ROOT_2PI, np.exp(-0.5 * high * high) / ROOT_2PI
    return _Bells(
        rows,
        owner[part],
        share * (ndtr(high) - ndtr(low)),
        share * (bell_low - bell_high) / sigma[part],
        share * (low * bell_low - high * bell_high),
    )


# ---- fitting


@dataclass(frozen=True)
class _Solution:
    """The best linear parameters for given shapes, with the normal equations of all parameters at that point."""

    model: _Model
    shapes: np.ndarray  # (s, 2): velocity and log sigma
    linear: np.ndarray
    residual: np.ndarray  # weighted, (n + 1,)
    chi2: float
    normal: np.ndarray  # of linear parameters, then shapes
    slope: np.ndarray  # what the shapes would gain, (2 s,)
    weight: np.ndarray  # (n + 1,)
    matrix: np.ndarray  # weighted derivatives by the linear parameters, (n + 1, p)
    by_shape: np.ndarray  # and by the shapes, (n + 1, 2 s)


def _solve(model: _Model, shapes: np.ndarray, weight: np.ndarray) -> _Solution:
    """Return the best linear parameters for these shapes; `weight` (n + 1,) is the square root of ivar."""
    first, count = model.fixed.shape[1], model.fixed.shape[1] + len(model.lines)
    bells = _bells(model.pixels, model.lines, model.group, shapes)
    weights = weight[bells.rows]
    matrix = np.zeros((len(weight), count))
    np.multiply(model.fixed, weight[:, None], out=matrix[:, :first])
    np.add.at(matrix, (bells.rows, first + bells.line), bells.value * weights)
    data = model.data * weight
    normal = np.empty((count + 2 * len(shapes),) * 2)
    normal[:count, :count] = matrix.T @ matrix
    linear = _solved(normal[:count, :count], data @ matrix)
    residual = data - matrix @ linear
    weights = weights * linear[first + bells.line]
    column = 2 * np.array(model.group)[bells.line]
    by_shape = np.zeros((len(weight), 2 * len(shapes)))
    np.add.at(by_shape, (bells.rows, column), bells.by_velocity * weights)
    np.add.at(by_shape, (bells.rows, column + 1), bells.by_width * weights)
    normal[count:, :count] = by_shape.T @ matrix
    normal[:count, count:] = normal[count:, :count].T
    normal[count:, count:] = by_shape.T @ by_shape
    return _Solution(
        model,
        shapes,
        linear,
        residual,
        float(residual @ residual),
        normal,
        residual @ by_shape,
        weight,
        matrix,
        by_shape,
    )


def _solved(normal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the solution of normal equations, scaled to a diagonal of 1 before; `right` is (p,) or (p, q)."""
    scale = np.sqrt(normal.diagonal())
    scale[scale == 0] = 1.0
    scaled = normal / scale / scale[:, None]
    scaled.flat[:: len(scale) + 1] += SMALL
    return (np.linalg.solve(scaled, (right.T / scale).T).T / scale).T


def _descend(solution: _Solution, weight: np.ndarray, limits: np.ndarray, *, steps: int = 12) -> _Solution:
    """Return the solution at the shapes that fit best, by Gauss and Newton.

    `limits` (2, s, 2) holds least and most of each; where both are one number, it stays. The linear parameters are
    solved for at each step (variable projection; Golub and Pereyra 1973, SIAM J. Numer. Anal. 10, 413).
    """
    free = np.flatnonzero((limits[1] > limits[0]).ravel())
    count = len(solution.linear)
    most = np.tile([150.0, 0.5], len(solution.shapes))[free]
    for _ in range(steps if len(free) else 0):
        right = np.concatenate([np.zeros(count), solution.slope[free]])
        columns = np.concatenate([np.arange(count), count + free])
        step = np.clip(_solved(solution.normal[np.ix_(columns, columns)], right)[count:], -most, most)
        if step @ solution.slope[free] < SMALL_GAIN:
            break
        gain = 0.0
        for _ in range(4):
            shapes = solution.shapes.ravel().copy()
            shapes[free] += step
            trial = _solve(solution.model, np.clip(shapes.reshape(-1, 2), *limits), weight)
            gain = solution.chi2 - trial.chi2
            if gain >= 0:
                break
            step = step / 3
        if gain <= 0:
            break
        solution = trial
    return solution


@dataclass(frozen=True)
class _Fit:
    """A solution with the covariance of all its parameters, zero for those that were not fitted."""

    solution: _Solution
    covariance: np.ndarray

    def line(self, *names: str, at: float, share: float = 1.0) -> _Row:
        """Return the lines of these names together as a row, their continuum taken at one wavelength.

        `share` is the flux of a line over that of its first part.
        """
        model, linear = self.solution.model, self.solution.linear
        known = [line.name for line in model.lines]
        if not set(names) <= set(known):
            return _Row(*[math.nan] * 6)
        chosen = np.array([known.index(name) for name in names])
        weights = np.zeros(len(self.covariance))
        weights[model.fixed.shape[1] + chosen] = share
        flux, error = float(weights[: len(linear)] @ linear), self.error(weights)
        level, derivative = model.continuum(linear, at)
        derivative = np.append(derivative, np.zeros(len(weights) - len(linear)))
        ew = ew_error = math.nan
        if level > LEAST_CONTINUUM * self.error(derivative):
            ew, ew_error = flux / level, self.error((weights - flux / level * derivative) / level)
        if flux > WHOLE_SNR * error and model.lines[chosen[0]].group != BROAD:
            more, more_error = self._wings(chosen)
            if more > max(3 * more_error, WHOLE_EW * level):
                ew, ew_error = ew + more / level, math.hypot(ew_error, more_error / level)
                flux, error = flux + more, math.hypot(error, more_error)
        return _Row(flux, error, ew, ew_error, *self._sigma(model.group[chosen[0]]))

    @cached_property
    def _wide_light(self) -> np.ndarray:
        """How bright each line would be in each pixel if it were wider, (n, lines)."""
        model, shapes = self.solution.model, self.solution.shapes + np.array([0.0, math.log(WING_WIDTH)])
        bells = _bells(model.pixels, model.lines, model.group, shapes)
        light = np.zeros((len(model.pixels.flux), len(model.lines)))
        np.add.at(light, (bells.rows, bells.line), bells.value)
        return light * np.maximum(self.solution.linear[model.fixed.shape[1] :], 0)

    def _wings(self, chosen: np.ndarray) -> tuple[float, float]:
        """Return the flux near lines that Gaussians leave over, and its error; pixels are shared by `_wide_light`."""
        solution, model, light = self.solution, self.solution.model, self._wide_light
        pixels, weight = model.pixels, solution.weight[:-1]
        velocity, log_sigma = solution.shapes[model.group[chosen[0]]]
        off = np.stack([pixels.center / model.lines[k].parts[0][0] for k in chosen]) - 1 - velocity / LIGHT_KMS
        near = (np.abs(off) < WING_REACH * math.exp(log_sigma) / LIGHT_KMS).any(axis=0)
        near &= (light.sum(axis=1) > 0) & (weight > 0)
        share = light[near][:, chosen].sum(axis=1) / light[near].sum(axis=1)
        part = np.zeros(len(weight))  # of the weighted residuals
        part[near] = share * (pixels.high - pixels.low)[near] / weight[near]
        fitted = np.concatenate([part @ solution.matrix[:-1], part @ solution.by_shape[:-1]])
        variance = float(part @ part) - float(fitted @ self.covariance @ fitted)
        return float(part @ solution.residual[:-1]), math.sqrt(max(variance, 0.0))

    def error(self, weights: np.ndarray) -> float:
        """Return the error of a sum of parameters with these weights."""
        return math.sqrt(max(float(weights @ self.covariance @ weights), 0.0))

    def _sigma(self, group: int) -> tuple[float, float]:
        row = len(self.solution.linear) + 2 * group + 1
        if self.covariance[row, row] == 0:
            return math.nan, math.nan
        sigma = math.exp(self.solution.shapes[group, 1])
        return sigma, sigma * math.sqrt(self.covariance[row, row])


class _Row(NamedTuple):
    flux: float
    flux_error: float
    ew_angstrom: float
    ew_error: float
    sigma_kms: float
    sigma_error: float

    @property
    def snr(self) -> float:
        return self.flux / self.flux_error if self.flux_error > 0 else math.nan


NOTHING = _Row(*[math.nan] * 6)


def _finished(solution: _Solution, limits: np.ndarray) -> _Fit:
    """Return the fit with its covariance; shapes that stayed, or ran into their limits, have none."""
    shapes = solution.shapes
    free = ((shapes > limits[0] + 1e-9) & (shapes < limits[1] - 1e-9)).ravel()
    columns = np.concatenate([np.arange(len(solution.linear)), len(solution.linear) + np.flatnonzero(free)])
    covariance = np.zeros_like(solution.normal)
    used = np.ix_(columns, columns)
    covariance[used] = _solved(solution.normal[used], np.eye(len(columns)))
    return _Fit(solution, covariance)


def _step_kms(pixels: _Pixels) -> float:
    return LIGHT_KMS * float(np.median((pixels.high - pixels.low) / pixels.center))


def _limits(pixels: _Pixels, groups: int) -> np.ndarray:
    """Return least and most velocity and log sigma of narrow lines, (2, groups, 2)."""
    step = _step_kms(pixels)
    least, most = LEAST_SIGMA_PIXELS * step, max(MOST_SIGMA_KMS, 3 * step)
    limits = np.array([[-MOST_VELOCITY_KMS, math.log(least)], [MOST_VELOCITY_KMS, math.log(most)]])
    return np.repeat(limits[:, None, :], groups, axis=1)


def _narrow(pixels: _Pixels, lines: list[_Line], prior: tuple[float, float] = STARS_UNKNOWN) -> _Fit:
    """Return the fit of narrow lines and stars; flaws of the continuum, away from all lines, are left out."""
    weight = np.append(np.sqrt(pixels.ivar), 1.0)
    shapes = np.array([[0.0, math.log(max(START_KMS, _step_kms(pixels)))]])
    plain = _model(pixels, lines)
    model = _with_stars(plain, _solve(plain, shapes, weight).linear, prior)
    fluxes, variances = _fluxes(_solve(model, shapes, weight))
    is_bright = fluxes > LEAST_SNR * np.sqrt(variances)
    kinds = np.array([line.group for line in lines])
    bright = [bool(is_bright[kinds == kind].any()) for kind in (BALMER, FORBIDDEN)]
    if all(bright):
        group = tuple(int(kind) for kind in kinds)
        plain, model = replace(plain, group=group), replace(model, group=group)
        shapes = np.repeat(shapes, 2, axis=0)
    limits = _limits(pixels, len(shapes)) if any(bright) else np.stack([shapes, shapes])
    solution = _descend(_solve(model, shapes, weight), weight, limits, steps=4)
    weight[_flaws(solution)] = 0
    model = _with_stars(
        plain, _solve(plain, solution.shapes, weight).linear, prior
    )  # what stars absorb is better known
    solution = _solve(model, solution.shapes, weight)
    return _finished(_descend(solution, weight, limits), limits)


def _fluxes(solution: _Solution) -> tuple[np.ndarray, np.ndarray]:
    """Return the fluxes of the lines and their variances for shapes that are known."""
    count, first = len(solution.linear), solution.model.fixed.shape[1]
    variance = np.diag(_solved(solution.normal[:count, :count], np.eye(count)))
    return solution.linear[first:], variance[first:]


def _flaws(solution: _Solution) -> np.ndarray:
    """Return which pixels away from all lines deviate by more than 5 sigmas of their window, (n + 1,)."""
    pixels, model = solution.model.pixels, solution.model
    middle = pixels.center
    bad = np.zeros(len(solution.residual), bool)
    for rows in pixels.rows:
        residual = np.abs(solution.residual[rows])
        bad[rows] = residual > FLAW * max(1.0, 1.4826 * float(np.median(residual)))
    for line, group in zip(model.lines, model.group, strict=True):
        velocity, log_sigma = solution.shapes[group]
        for wavelength, _ in line.parts:
            reach = CORE * wavelength * math.exp(log_sigma) / LIGHT_KMS
            center = wavelength * (1 + velocity / LIGHT_KMS)
            bad[slice(*np.searchsorted(middle, (center - reach, center + reach)))] = False
    return bad


# ---- broad lines


def _broad(narrow: _Fit) -> _Fit | None:
    """Return the fit with broad Balmer lines and without stars, None where the spectrum does not ask for them.

    All narrow lines share one velocity and width here, since broad ones hide what the narrow Balmer lines have.
    """
    old = narrow.solution
    pixels, names = old.model.pixels, {line.name for line in old.model.lines}
    lines = [line for line in BROAD_BALMER if line.name.removesuffix(" broad") in names]
    strongest = next((line for line in lines[::-1] if line.name in ("H alpha broad", "H beta broad")), None)
    if strongest is None:
        return None
    model = _model(pixels, (*old.model.lines, *lines))
    model = replace(model, group=(0,) * len(old.model.lines) + (1,) * len(lines))
    weight = np.append(np.sqrt(pixels.ivar), 1.0)  # what no narrow line explains was taken for flaws
    before = _solve(old.model, old.shapes, weight).chi2
    shape, is_odd = old.shapes[-1], bool((np.exp(old.shapes[:, 1]) > ODD_KMS).any())
    if math.exp(shape[1]) > ODD_KMS:
        shape = np.array([0.0, math.log(START_KMS)])
    trials = [np.array([shape, [0.0, math.log(sigma)]]) for sigma in BROAD_KMS]
    best = min((_solve(model, trial, weight) for trial in trials), key=lambda one: one.chi2)
    least = LEAST_GAIN * max(1.0, best.chi2 / len(weight))
    if before - best.chi2 < least and not is_odd:
        return None
    limits = np.concatenate([_limits(pixels, 1), _wide_limits()], axis=1)
    fit = _finished(_descend(best, weight, limits, steps=20), limits)
    least = LEAST_GAIN * max(1.0, fit.solution.chi2 / len(weight))
    is_better = before - fit.solution.chi2 > least
    return fit if is_better and _is_broad(fit, strongest) else None


def _is_broad(fit: _Fit, line: _Line) -> bool:
    """Tell whether a broad line is bright, wide, and no bump beside an absorption line, which a narrow one would be."""
    narrow, broad = (fit.line(name, at=line.parts[0][0]) for name in (line.name.removesuffix(" broad"), line.name))
    is_bright = broad.snr > LEAST_BROAD_SNR and not broad.ew_angstrom < LEAST_BROAD_EW
    return is_bright and broad.sigma_kms > LEAST_BROAD_KMS and narrow.snr > -LEAST_SNR


def _mgii(spectrum: Spectrum, edges: tuple[np.ndarray, np.ndarray]) -> _Row:
    """Return broad Mg II as one Gaussian for each line of the doublet, nothing where it is not bright and broad."""
    pixels, lines = _pixels(spectrum, edges, [MGII_WINDOW], [MGII])
    if not lines:
        return NOTHING
    model = _model(pixels, lines)
    weight = np.append(np.sqrt(pixels.ivar), 1.0)
    best = min(
        (_solve(model, np.array([[0.0, math.log(sigma)]]), weight) for sigma in BROAD_KMS), key=lambda one: one.chi2
    )
    if best.linear[-1] <= 0:
        return NOTHING
    limits = _wide_limits()
    row = _finished(_descend(best, weight, limits, steps=20), limits).line(MGII.name, at=MGII.parts[0][0], share=2.0)
    return row if row.snr > LEAST_BROAD_SNR and row.sigma_kms > LEAST_BROAD_KMS else NOTHING


def _wide_limits() -> np.ndarray:
    """Return least and most velocity and log sigma of broad lines, (2, 1, 2)."""
    velocity, widths = MOST_BROAD_VELOCITY_KMS, (LEAST_BROAD_KMS, MOST_BROAD_KMS)
    return np.array([[[-velocity, math.log(widths[0])]], [[velocity, math.log(widths[1])]]])


# ---- indices of absorption


def _air(*values: float) -> tuple[float, ...]:
    return tuple(air_to_vacuum(np.array(values)).tolist())


# band, blue and red continuum; published in air
INDICES = {
    "Ca H+K": _air(3899.5, 4003.5, 3806.5, 3833.8, 4020.7, 4052.4),  # Serven et al. 2005 (ApJ 627, 754)
    "H delta A": _air(4083.5, 4122.25, 4041.6, 4079.75, 4128.5, 4161.0),  # Worthey and Ottaviani 1997 (ApJS 111, 377)
    "Mg b": _air(5160.125, 5192.625, 5142.625, 5161.375, 5191.375, 5206.375),  # Worthey et al. 1994 (ApJS 94, 687)
    "Na D": _air(5876.875, 5909.375, 5860.625, 5875.675, 5922.125, 5948.125),  # Trager et al. 1998 (ApJS 116, 1)
}
D4000 = _air(3850.0, 3950.0, 4000.0, 4100.0)  # Balogh et al. 1999 (ApJ 527, 54)
BAND_COVERED = 0.9  # of a band that must have data


def _near(spectrum: Spectrum, edges: tuple[np.ndarray, np.ndarray], bands: tuple[float, ...]) -> _Pixels:
    """Return the pixels that touch what lies between the first and the last of these bands."""
    low, high = edges
    part = slice(int(np.searchsorted(high, min(bands))), int(np.searchsorted(low, max(bands))))
    return _Pixels(low[part], high[part], spectrum.flux[part], spectrum.ivar[part], (), ())


def _weights(pixels: _Pixels, low: float, high: float) -> np.ndarray | None:
    """Return how much of each pixel with data lies in a band, scaled to the width of the band, None for too little."""
    inside = np.maximum(np.minimum(pixels.high, high) - np.maximum(pixels.low, low), 0) * (pixels.ivar > 0)
    covered = inside.sum()
    return inside * ((high - low) / covered) if covered >= BAND_COVERED * (high - low) else None


def _index(spectrum: Spectrum, edges: tuple[np.ndarray, np.ndarray], bands: tuple[float, ...]) -> tuple[float, float]:
    """Return an equivalent width below a straight continuum between two bands, positive in absorption, and its error.

    The continuum goes through the mean of each band at its middle (Worthey et al. 1994); the error is that of the sum
    over pixels, with what they do to the continuum.
    """
    pixels = _near(spectrum, edges, bands)
    line, blue, red = (_weights(pixels, *bands[first : first + 2]) for first in (0, 2, 4))
    if line is None or blue is None or red is None:
        return math.nan, math.nan
    blue, red = blue / blue.sum(), red / red.sum()
    middle = sum(bands[2:4]) / 2, sum(bands[4:]) / 2
    part = (pixels.center - middle[0]) / (middle[1] - middle[0])
    continuum = (1 - part) * (blue @ pixels.flux) + part * (red @ pixels.flux)
    inside = line > 0
    if not (continuum[inside] > 0).all():
        return math.nan, math.nan
    share = np.where(inside, line / np.where(inside, continuum, 1), 0)
    value = bands[1] - bands[0] - float(share @ pixels.flux)
    fallen = np.where(inside, share * pixels.flux / np.where(inside, continuum, 1), 0)
    slope = -share + float(fallen @ (1 - part)) * blue + float(fallen @ part) * red
    return value, _error_of_sum(pixels, slope)


def _d4000(spectrum: Spectrum, edges: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Return the mean flux per frequency from 4000 to 4100 over that from 3850 to 3950 Angstrom, and its error."""
    pixels = _near(spectrum, edges, D4000)
    blue, red = (_weights(pixels, *D4000[first : first + 2]) for first in (0, 2))
    if blue is None or red is None:
        return math.nan, math.nan
    blue, red = blue * pixels.center**2, red * pixels.center**2  # per frequency
    below, above = float(blue @ pixels.flux), float(red @ pixels.flux)
    if below <= LEAST_CONTINUUM * _error_of_sum(pixels, blue):
        return math.nan, math.nan
    return above / below, _error_of_sum(pixels, (red - above / below * blue) / below)


def _error_of_sum(pixels: _Pixels, weights: np.ndarray) -> float:
    used = weights != 0
    return math.sqrt(float((weights[used] ** 2 / pixels.ivar[used]).sum()))


# ---- classes


# log [O III]/H beta as functions of log [N II]/H alpha
KEWLEY_2001 = (0.61, 0.47, 1.19)  # a / (x - b) + c, the most that stars do: Kewley et al. 2001 (ApJ 556, 121), eq. 5
KAUFFMANN_2003 = (0.61, 0.05, 1.3)  # a / (x - b) + c, above it AGN take part: Kauffmann et al. 2003 (MNRAS 346, 1055)
SCHAWINSKI_2007 = (1.05, 0.45)  # a x + b, Seyferts above and LINERs below: Schawinski et al. 2007 (MNRAS 382, 1415)
# the same of log [S II]/H alpha and log [O I]/H alpha: Kewley et al. 2006 (MNRAS 372, 961), eq. 7 and 11, 12
KEWLEY_2006_SII = (1.89, 0.76)
KEWLEY_2006_OI = (1.18, 1.30)
# Cid Fernandes et al. 2011 (MNRAS 413, 1687)
WHAN_NII = -0.4  # log [N II]/H alpha, between star formation and AGN
WHAN_WEAK, WHAN_RETIRED, WHAN_PASSIVE = 6.0, 3.0, 0.5  # equivalent widths of H alpha in Angstrom
MIN_SNR = 3.0
LEAST_WIDTH_SNR = 5.0  # of a narrow Balmer line, for its width to be a column


def bpt_class(
    log_nii_halpha: np.ndarray,
    log_oiii_hbeta: np.ndarray,
    *,
    snr: np.ndarray | None = None,
    min_snr: float = MIN_SNR,
    log_sii_halpha: np.ndarray | None = None,
    log_oi_halpha: np.ndarray | None = None,
) -> np.ndarray:
    """Return star-forming, composite, Seyfert, LINER or AGN of each object, None where a ratio or the S/N is missing.

    Star-forming is below Kauffmann 2003, composite below Kewley 2001. Above, Schawinski 2007 parts Seyferts from
    LINERs; where [S II] or [O I] is given and known, Kewley 2006 does, and if the two disagree it is an AGN. `snr` is
    that of the faintest of the four lines, which must be `min_snr` at least; without it every ratio counts.

    >>> bpt_class(np.array([-0.6, 0.0, 0.1]), np.array([0.0, 0.9, 0.2])).tolist()
    ['star-forming', 'Seyfert', 'LINER']
    """
    x, y = np.broadcast_arrays(np.asarray(log_nii_halpha, float), np.asarray(log_oiii_hbeta, float))
    known = np.isfinite(x) & np.isfinite(y)
    if snr is not None:
        known &= np.asarray(snr, float) >= min_snr
    with np.errstate(all="ignore"):
        below = [y < _hyperbola(x, *curve) for curve in (KAUFFMANN_2003, KEWLEY_2001)]
        votes = []
        for ratio, (a, b) in ((log_sii_halpha, KEWLEY_2006_SII), (log_oi_halpha, KEWLEY_2006_OI)):
            value = np.full(x.shape, np.nan) if ratio is None else np.broadcast_to(np.asarray(ratio, float), x.shape)
            votes.append(np.where(np.isfinite(value), np.sign(y - a * value - b), 0))
        vote = np.sign(votes[0] + votes[1])
        is_split = votes[0] * votes[1] < 0
        a, b = SCHAWINSKI_2007
        vote = np.where((votes[0] == 0) & (votes[1] == 0), np.sign(y - a * x - b), vote)
    kinds = [~known, below[0], below[1], is_split, vote > 0]
    return _named(kinds, [None, "star-forming", "composite", "AGN", "Seyfert"], "LINER")


def _named(conditions: list[np.ndarray], names: list[str | None], otherwise: str | None) -> np.ndarray:
    """Return the name of the first condition that holds for each object."""
    return np.array([*names, otherwise], object)[np.argmax([*conditions, np.ones_like(conditions[0])], axis=0)]


def _hyperbola(x: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """Return a / (x - b) + c left of its pole, NaN from there on."""
    left = np.where(x < b, x - b, np.nan)
    return a / left + c


class DemarcationCurve(NamedTuple):
    """A published line of the BPT diagram of [N II]: what it is called, what it divides, points from left to right.

    `below` and `above` are the classes on its sides, `log_nii_halpha` and `log_oiii_hbeta` arrays `(n,)`.
    """

    source: str
    below: str
    above: str
    log_nii_halpha: np.ndarray
    log_oiii_hbeta: np.ndarray


CURVES_FROM, CURVES_TO = -2.0, 1.0  # log [N II]/H alpha, in which all galaxies lie
CURVES_LOW = -2.0  # log [O III]/H beta, to which the curves fall
CURVE_POINTS = 100


def demarcation_curves() -> tuple[DemarcationCurve, ...]:
    """Return the lines by which `bpt_class` divides the BPT diagram of [N II], to be drawn: Baldwin et al. 1981.

    They are those of Kauffmann et al. 2003 (MNRAS 346, 1055) and Kewley et al. 2001 (ApJ 556, 121), both to the left of
    their poles, and of Schawinski et al. 2007 (MNRAS 382, 1415), which begins on Kewley's. The first two cross at
    -1.28; left of that nothing is composite, and what lies below Kauffmann's is star-forming.

    >>> [curve.source for curve in demarcation_curves()]
    ['Kauffmann et al. 2003', 'Kewley et al. 2001', 'Schawinski et al. 2007']
    """
    slope, offset = SCHAWINSKI_2007
    a, b, c = KEWLEY_2001
    # slope x + offset = a / (x - b) + c, left of the pole
    start = float(np.roots([slope, offset - c - slope * b, -(offset - c) * b - a]).min())
    x = np.linspace(start, CURVES_TO, CURVE_POINTS)
    return (
        _drawn("Kauffmann et al. 2003", "star-forming", "composite", KAUFFMANN_2003),
        _drawn("Kewley et al. 2001", "composite", "AGN", KEWLEY_2001),
        DemarcationCurve("Schawinski et al. 2007", "LINER", "Seyfert", x, slope * x + offset),
    )


def _drawn(source: str, below: str, above: str, curve: tuple[float, float, float]) -> DemarcationCurve:
    """Return a hyperbola as points, closer to one another where it falls steeply."""
    a, b, c = curve
    x = b - np.geomspace(b - CURVES_FROM, a / (c - CURVES_LOW), CURVE_POINTS)
    return DemarcationCurve(source, below, above, x, _hyperbola(x, *curve))


def whan_class(
    log_nii_halpha: np.ndarray,
    ew_halpha: np.ndarray,
    *,
    ew_nii: np.ndarray | None = None,
    snr: np.ndarray | None = None,
    ew_error: np.ndarray | None = None,
    min_snr: float = MIN_SNR,
    max_ew_error: float = 1.0,
) -> np.ndarray:
    """Return star-forming, strong AGN, weak AGN, retired or passive of each object, None where it cannot be told.

    Equivalent widths are in Angstrom at rest, emission positive. From 3 Angstrom of H alpha on, `snr`, that of the
    fainter of H alpha and [N II], must be `min_snr` at least. Below it is retired, or passive if H alpha and [N II]
    are under 0.5 Angstrom, and `ew_error`, that of H alpha, at most `max_ew_error`. Cid Fernandes et al. 2011.

    >>> whan_class(np.array([-0.6, 0.0, np.nan]), np.array([20.0, 4.0, 1.0])).tolist()
    ['star-forming', 'weak AGN', 'retired']
    """
    x, width = np.broadcast_arrays(np.asarray(log_nii_halpha, float), np.asarray(ew_halpha, float))
    nii = np.full(x.shape, np.nan) if ew_nii is None else np.broadcast_to(np.asarray(ew_nii, float), x.shape)
    is_bright = np.isfinite(x) & (width >= WHAN_RETIRED)
    is_faint = width < WHAN_RETIRED
    if snr is not None:
        is_bright &= np.asarray(snr, float) >= min_snr
    if ew_error is not None:
        is_faint &= np.asarray(ew_error, float) <= max_ew_error
    is_passive = is_faint & (width < WHAN_PASSIVE) & (nii < WHAN_PASSIVE)
    kinds = [
        is_passive,
        is_faint,
        is_bright & (x < WHAN_NII),
        is_bright & (width > WHAN_WEAK),
        is_bright,
    ]
    names: list[str | None] = ["passive", "retired", "star-forming", "strong AGN", "weak AGN"]
    return _named(kinds, names, None)


# ---- what is measured


ROWS = {  # what a row is called: the lines that make it up, and its wavelength
    "[O II] 3727": (("[O II] 3726", "[O II] 3729"), 3728.48),
    "H delta": (("H delta",), 4102.892),
    "H gamma": (("H gamma",), 4341.684),
    "H beta": (("H beta",), 4862.683),
    "[O III] 5007": (("[O III] 5007",), 5008.240),
    "[O I] 6300": (("[O I] 6300",), 6302.046),
    "H alpha": (("H alpha",), 6564.610),
    "[N II] 6583": (("[N II] 6583",), 6585.270),
    "[S II] 6716": (("[S II] 6716",), 6718.290),
    "[S II] 6731": (("[S II] 6731",), 6732.670),
    "H beta broad": (("H beta broad",), 4862.683),
    "H alpha broad": (("H alpha broad",), 6564.610),
}
MGII_CENTER = 2799.94
SII = (("[S II] 6716", "[S II] 6731"), 6725.48)


class SpectralLine(NamedTuple):
    """A line that plots of spectra mark: its name, and its wavelength at rest in vacuum; of a blend the mean."""

    name: str
    wavelength_angstrom: float


def _part(line: str, number: int) -> float:
    """Return the wavelength of a part of a line that is fitted."""
    return next(one.parts[number][0] for one in EMISSION if one.name == line)


# The most telling first: of lines too close to name all, the first listed wins. What is measured lies where it is
# measured; the others are of the NIST Atomic Spectra Database, absorption of the stars in the middle of its band.
SPECTRAL_LINES = (
    SpectralLine("Hα", ROWS["H alpha"][1]),
    SpectralLine("[O III]", ROWS["[O III] 5007"][1]),
    SpectralLine("[O II]", ROWS["[O II] 3727"][1]),
    SpectralLine("Hβ", ROWS["H beta"][1]),
    SpectralLine("Lyα", 1215.67),
    SpectralLine("Mg II", MGII_CENTER),
    SpectralLine("C IV", 1549.48),
    SpectralLine("C III]", 1908.73),
    SpectralLine("Ca K", 3934.78),
    SpectralLine("Mg b", 5176.63),
    SpectralLine("Na D", 5894.57),
    SpectralLine("[S II]", SII[1]),
    SpectralLine("Hγ", ROWS["H gamma"][1]),
    SpectralLine("Hδ", ROWS["H delta"][1]),
    SpectralLine("Ca H", 3969.59),
    SpectralLine("[N II]", ROWS["[N II] 6583"][1]),
    SpectralLine("[S III]", 9533.20),
    SpectralLine("Ca II", 8544.44),
    SpectralLine("G band", 4305.60),
    SpectralLine("[Ne III]", 3869.86),
    SpectralLine("[O I]", ROWS["[O I] 6300"][1]),
    SpectralLine("He I", 5877.25),
    SpectralLine("He II", 4687.02),
    SpectralLine("He II", 1640.42),
    SpectralLine("[S III]", 9071.10),
    SpectralLine("Ca II", 8664.52),
    SpectralLine("Ca II", 8500.36),
    SpectralLine("[Ar III]", 7137.76),
    SpectralLine("[O III]", _part("[O III] 5007", 1)),
    SpectralLine("[N II]", _part("[N II] 6583", 1)),
    SpectralLine("[O III]", _part("[O III] 4363", 0)),
)


@dataclass(frozen=True, eq=False)
class Lines:
    """The lines of one spectrum, as rows and as one wide row of `schema.LINE_MEASURES`.

    Arrays have one element a line, those of `values` by the names of `table`. Fluxes are in units of the spectrum times
    Angstrom, 1e-17 erg / (s cm2) where it is calibrated; equivalent widths in Angstrom at rest, positive in emission;
    `sigma_kms` is that of the line as observed, the instrument included. What is not covered or not there is NaN in
    `values` and None in `measures`; `d4000_error` is the standard error of the break.
    """

    line: tuple[str, ...]
    wavelength_angstrom: np.ndarray
    values: dict[str, np.ndarray]
    measures: dict[str, float | str | None]
    d4000_error: float

    def table(self) -> dict[str, list[str] | np.ndarray]:
        """Return the columns of the table `lines`, without `object_id`: one row a line, not covered ones included.

        They are line, wavelength_angstrom, flux, flux_error, ew_angstrom, ew_error, sigma_kms and sigma_error.
        """
        return {"line": list(self.line), "wavelength_angstrom": self.wavelength_angstrom, **self.values}

    def columns(self) -> dict[str, float | str | None]:
        """Return the row of the table `galaxies`, by the names of `schema.LINE_MEASURES`."""
        return dict(self.measures)


def measure(spectrum: Spectrum, *, z: float | None = None) -> Lines:
    """Return the lines of a spectrum, whose redshift is `z` or else its own; SchemaError without any.

    Emission lines are fitted within 500 km/s of that redshift. Pixels with ivar 0 have no data; all others count.
    """
    at_rest = to_rest_frame(spectrum, z)
    edges = pixel_edges(at_rest.wavelength_angstrom)
    d4000, d4000_error = _d4000(at_rest, edges)
    fit = _fitted(at_rest, edges, _stars_of(d4000, d4000_error))
    rows = {name: (at, fit.line(*names, at=at) if fit else NOTHING) for name, (names, at) in ROWS.items()}
    rows["Mg II 2799 broad"] = (MGII_CENTER, _mgii(at_rest, edges))
    for name, bands in INDICES.items():
        value, error = _index(at_rest, edges, bands)
        rows[name] = (sum(bands[:2]) / 2, NOTHING._replace(ew_angstrom=-value, ew_error=error))
    sii = fit.line(*SII[0], at=SII[1]) if fit else NOTHING
    measures = _measures({name: row for name, (_, row) in rows.items()} | {"[S II]": sii})
    measures |= {"d4000": _known(d4000), "snr_spectrum": spectrum.median_snr}
    at, *values = np.array([(at, *row) for at, row in rows.values()]).T
    return Lines(tuple(rows), at, dict(zip(_Row._fields, values, strict=True)), measures, d4000_error)


def _fitted(spectrum: Spectrum, edges: tuple[np.ndarray, np.ndarray], prior: tuple[float, float]) -> _Fit | None:
    pixels, lines = _pixels(spectrum, edges, WINDOWS, EMISSION)
    if not lines:
        return None
    narrow = _narrow(pixels, lines, prior)
    return _broad(narrow) or narrow


def _stars_of(d4000: float, error: float) -> tuple[float, float]:
    """Return the equivalent width of stars at H beta that is expected for D4000, and its spread."""
    if not math.isfinite(d4000):
        return STARS_UNKNOWN
    by, *known = STARS_BY_D4000.T
    mean, spread = (float(np.interp(d4000, by, values)) for values in known)
    return mean, min(math.hypot(spread, 2 * error), STARS_UNKNOWN[1])


def _measures(rows: dict[str, _Row]) -> dict[str, float | str | None]:
    """Return the wide row of what the lines say, without what does not come from lines."""
    named = {"oii": "[O II] 3727", "hbeta": "H beta", "oiii": "[O III] 5007", "oi": "[O I] 6300", "halpha": "H alpha"}
    lines = {name: rows[row] for name, row in (named | {"nii": "[N II] 6583", "sii": "[S II]"}).items()}
    pairs = (("oiii", "hbeta"), ("nii", "halpha"), ("sii", "halpha"), ("oi", "halpha"))
    ratios = {f"log_{above}_{below}": _log_ratio(lines[above], lines[below]) for above, below in pairs}
    nii, oiii, sii, oi = (ratios[f"log_{above}_{below}"] for above, below in (pairs[1], pairs[0], *pairs[2:]))
    bpt = bpt_class(np.array([nii]), np.array([oiii]), log_sii_halpha=np.array([sii]), log_oi_halpha=np.array([oi]))
    halpha = lines["halpha"]
    whan = whan_class(
        np.array([nii]),
        np.array([halpha.ew_angstrom]),
        ew_nii=np.array([lines["nii"].ew_angstrom]),
        ew_error=np.array([halpha.ew_error]),
    )
    has_broad = any(math.isfinite(rows[name].flux) for name in ("H alpha broad", "H beta broad"))
    return {
        **{f"ew_{name}": _known(row.ew_angstrom) for name, row in lines.items()},
        **{f"snr_{name}": _known(row.snr) for name, row in lines.items() if name not in ("oi", "sii")},
        **{name: _known(value) for name, value in ratios.items()},
        "hdelta_a": _known(-rows["H delta A"].ew_angstrom),
        "ca_hk": _known(-rows["Ca H+K"].ew_angstrom),
        "mg_b": _known(-rows["Mg b"].ew_angstrom),
        "na_d": _known(-rows["Na D"].ew_angstrom),
        "balmer_fwhm_kms": _balmer_fwhm(rows),
        "mgii_fwhm_kms": _known(FWHM * rows["Mg II 2799 broad"].sigma_kms),
        "bpt_class": None if has_broad else bpt[0],
        "whan_class": None if has_broad else whan[0],
    }


def _log_ratio(above: _Row, below: _Row) -> float:
    """Return log10 of a ratio of fluxes, NaN unless both lines have the least S/N."""
    if above.snr >= MIN_SNR and below.snr >= MIN_SNR:
        return math.log10(above.flux / below.flux)
    return math.nan


def _balmer_fwhm(rows: dict[str, _Row]) -> float | None:
    """Return the width of broad H alpha or H beta, else that of the narrow line, whose S/N must be 5."""
    broad = [FWHM * rows[name].sigma_kms for name in ("H alpha broad", "H beta broad")]
    narrow = [FWHM * rows[name].sigma_kms for name in ("H alpha", "H beta") if rows[name].snr >= LEAST_WIDTH_SNR]
    return next((value for value in broad + narrow if math.isfinite(value)), None)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
