"""Plots of spectra: put into a frame, smoothed, binned to what a screen can show, with lines marked; small sketches."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import altair as alt
import numpy as np
import pyarrow as pa

import galsearch

REST, OBSERVED = "rest", "observed"
MOST_POINTS = 2_000  # bins of a trace: two for each pixel of a plot, and about as many single peaks
PEAK = 5.0  # errors that a pixel stands out from its bin with to be drawn itself
GAP = 2.5  # times the smaller of the steps beside: pixels farther apart are not joined
WILD = 5.0  # times the median error: such points do not decide how high a plot is, unless they are
SURE = 10.0  # times their own error
ZERO = 0.4  # of the highest flux: where all lies above that, a plot does not begin at 0
HEIGHT = 400
LABEL_PX = 12  # between names of lines
NAMES_PX = 42  # that the names of lines are high
COLOR, MARK = "#3a8fd0", "#888888"  # on light and dark ground
BESIDE = ("#d55e00", "#009e73", "#cc79a7", "#b58900", "#7f6fd6", "#5f9ea0")
SKETCH_POINTS = 220
STEADY = 'vector-effect="non-scaling-stroke"'  # as wide on a phone
SKETCH_MARKS = tuple(line.wavelength_angstrom for line in galsearch.SPECTRAL_LINES[:9])


class Trace(NamedTuple):
    """What is drawn of a spectrum, arrays of one length: a gap lies between two points of different `run`."""

    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    run: np.ndarray


# ---- numbers


def frames(spectrum: galsearch.Spectrum) -> tuple[str, ...]:
    """Return the frames that a spectrum can be shown in: both where its redshift is known."""
    return (REST, OBSERVED) if spectrum.z is not None else (spectrum.frame,)


def in_frame(spectrum: galsearch.Spectrum, frame: str) -> galsearch.Spectrum:
    """Return a spectrum in a frame, flux per unit of its wavelength; as it is where its redshift is not known."""
    if spectrum.frame == frame or spectrum.z is None:
        return spectrum
    factor = 1 + spectrum.z if frame == REST else 1 / (1 + spectrum.z)
    return replace(
        spectrum,
        wavelength_angstrom=spectrum.wavelength_angstrom / factor,
        flux=spectrum.flux * factor,
        ivar=spectrum.ivar / factor**2,
        frame=frame,
    )


def smoothed(spectrum: galsearch.Spectrum, pixels: int) -> galsearch.Spectrum:
    """Return a spectrum averaged over `pixels` neighbors by their weights; pixels without data stay without."""
    if pixels <= 1:
        return spectrum
    box = np.ones(pixels)
    weight = np.convolve(spectrum.ivar, box, mode="same")[: len(spectrum)]
    total = np.convolve(spectrum.ivar * spectrum.flux, box, mode="same")[: len(spectrum)]
    good = (spectrum.ivar > 0) & (weight > 0)
    flux = np.divide(total, weight, out=np.zeros_like(total), where=good)
    return replace(spectrum, flux=flux, ivar=np.where(good, weight, 0.0))


def within(spectrum: galsearch.Spectrum, low: float, high: float) -> galsearch.Spectrum | None:
    """Return the part of a spectrum between two wavelengths; None where fewer than two pixels lie there."""
    first, last = np.searchsorted(spectrum.wavelength_angstrom, [low, high])
    part = slice(int(first), int(last))
    if part.stop - part.start < 2:
        return None
    arrays = {name: getattr(spectrum, name)[part] for name in ("wavelength_angstrom", "flux", "ivar")}
    return replace(spectrum, **arrays)


def thinned(spectrum: galsearch.Spectrum, most: int = MOST_POINTS) -> Trace:
    """Return at most twice `most` points: means over equal bins of pixels by their weights, and single peaks.

    A pixel that stands out from the mean of its bin by more than PEAK of its errors is a point of its own, the one of
    a bin that stands out most. Pixels without data count for nothing, and a bin of none but those is a gap.
    """
    size = -(-len(spectrum) // most)
    bins = -(-len(spectrum) // size)

    def cut(values: np.ndarray) -> np.ndarray:
        return np.pad(values, (0, bins * size - len(values))).reshape(bins, size)

    wavelength, flux, ivar = map(cut, (spectrum.wavelength_angstrom, spectrum.flux, spectrum.ivar))
    weight = ivar.sum(axis=1)
    known = np.flatnonzero((weight > 0) & np.isfinite(weight))
    share = ivar[known] / weight[known, None]
    middle, mean = (share * wavelength[known]).sum(axis=1), (share * flux[known]).sum(axis=1)
    points = [(middle, mean, weight[known] ** -0.5, known)]
    if size > 1:
        away = np.abs(flux[known] - mean[:, None]) * np.sqrt(ivar[known])
        best = away.argmax(axis=1)
        rows = np.flatnonzero(away[np.arange(len(known)), best] > PEAK)
        at = known[rows], best[rows]
        points.append((wavelength[at], flux[at], ivar[at] ** -0.5, known[rows]))
    wavelength, flux, error, number = (np.concatenate(parts) for parts in zip(*points, strict=True))
    order = np.argsort(wavelength, kind="stable")
    parts = _parts(spectrum.wavelength_angstrom)[::size]  # of the first pixel of each bin
    number = number[order]
    gaps = (np.diff(number) > 1) | (np.diff(parts[number]) > 0)
    run = np.concatenate([[0], np.cumsum(gaps)]) if len(number) else np.empty(0, np.int64)
    return Trace(wavelength[order], flux[order], error[order], run)


def fewer(spectrum: galsearch.Spectrum, most: int) -> galsearch.Spectrum:
    """Return a spectrum of at most twice `most` pixels, binned as it would be drawn; a smaller one as it is.

    The weight of a pixel that stands for its bin is that of the bin.
    """
    if len(spectrum) <= most:
        return spectrum
    one = thinned(spectrum, most)
    if len(one.flux) < 2:
        return spectrum
    rises = np.concatenate([[True], np.diff(one.wavelength) > 0])
    wavelength, flux, error = (values[rises] for values in (one.wavelength, one.flux, one.error))
    return replace(spectrum, wavelength_angstrom=wavelength, flux=flux, ivar=error**-2.0)


def _parts(wavelength: np.ndarray) -> np.ndarray:
    """Return which part of a spectrum each pixel is in, (n,): between two parts wavelengths are missing."""
    steps = np.diff(np.log(wavelength))
    before, after = np.pad(steps, (1, 0), mode="edge")[:-1], np.pad(steps, (0, 1), mode="edge")[1:]
    return np.concatenate([[0], np.cumsum(steps > GAP * np.minimum(before, after) * (1 + 1e-6))])


def scale(spectrum: galsearch.Spectrum) -> float:
    """Return the median of a spectrum's flux over its data, or of its size where that is not above 0."""
    good = spectrum.flux[spectrum.ivar > 0]
    if not len(good):
        return 1.0
    middle = float(np.median(good))
    return middle if middle > 0 else float(np.median(np.abs(good))) or 1.0


def span(traces: Sequence[Trace]) -> tuple[float, float]:
    """Return the flux that a plot reaches from and to; what is hardly measured does not decide."""
    low, high = [], []
    for one in traces:
        if len(one.flux):
            sure = (one.error <= WILD * np.median(one.error)) | (one.flux > SURE * one.error)
            low.append(float(np.quantile(one.flux[sure], 0.005)))
            high.append(float(one.flux[sure].max()))
    bottom, top = min(low, default=0.0), max(high, default=1.0)
    bottom = min(bottom, 0.0) if bottom < ZERO * top else bottom - 0.1 * (top - bottom)
    return (bottom, top) if top > bottom else (bottom - 1, top + 1)


# ---- the plot


def unit(spectrum: galsearch.Spectrum) -> str:
    """Return the unit of a spectrum's flux for the title of an axis."""
    return "10⁻¹⁷ erg s⁻¹ cm⁻² Å⁻¹" if spectrum.is_calibrated else "relative"


def chart(
    name: str, main: galsearch.Spectrum, beside: Mapping[str, galsearch.Spectrum], *, lines: bool, band: bool
) -> alt.LayerChart:
    """Return the plot of a spectrum and of others, all in one frame; the others are scaled to its median flux.

    Names are texts of an atlas; Vega shows them as text.
    """
    median = scale(main)
    traces = {name: thinned(main)}
    for other, spectrum in beside.items():
        factor = median / scale(spectrum)
        scaled = replace(spectrum, flux=spectrum.flux * factor, ivar=spectrum.ivar / factor**2)
        traces[other] = thinned(scaled, MOST_POINTS // 2)
    low, high = span(list(traces.values()))
    room = 0.02 * (high - low)
    ends = main.wavelength_angstrom[0], main.wavelength_angstrom[-1]
    x = alt.X(
        "wavelength:Q",
        title=f"{main.frame.capitalize()}-frame wavelength, vacuum [Å]",
        scale=alt.Scale(domain=[float(end) for end in ends], nice=False),
        axis=alt.Axis(format="d", grid=False, tickCount={"expr": "width / 80"}),
    )
    top = high + (0.21 if lines else 0.03) * (high - low)
    flux_title = f"Flux [{unit(main)}]"
    y = alt.Y("flux:Q", title=flux_title, scale=alt.Scale(domain=[low - room, top], nice=False))
    layers = [*(_marks(main, ends, x) if lines else [])]
    own = alt.Chart(_rows({name: traces[name]}, errors=True))
    if band:
        area = own.mark_area(opacity=0.25, color=COLOR, clip=True)
        layers.append(area.encode(x=x, y=alt.Y("low:Q", title=flux_title), y2="high:Q", detail="run:N"))
    names = list(traces)
    colors = alt.Color(
        "name:N",
        scale=alt.Scale(domain=names, range=[COLOR, *BESIDE][: len(names)]),
        legend=alt.Legend(title=None, orient="top", columns=4, labelLimit=220) if beside else None,
    )
    if beside:
        others = alt.Chart(_rows({other: traces[other] for other in beside}, errors=False))
        layers.append(_curve(others, opacity=0.85).encode(x=x, y=y, color=colors, detail="run:N"))
    layers.append(_curve(own).encode(x=x, y=y, color=colors, detail="run:N"))
    if (alone := _lone(traces[name])) is not None:
        layers.append(alt.Chart(alone).mark_point(filled=True, size=6, clip=True, color=COLOR).encode(x=x, y=y))
    layers.append(_hover(own, x, y))
    return alt.layer(*layers).properties(height=HEIGHT)


def _curve(base: alt.Chart, *, opacity: float = 1.0) -> alt.Chart:
    return base.mark_line(strokeWidth=1, strokeJoin="round", opacity=opacity, clip=True)


def _rows(traces: Mapping[str, Trace], *, errors: bool) -> pa.Table:
    """Return the points of traces as a table, their runs told apart."""
    parts = []
    for number, (name, one) in enumerate(traces.items()):
        columns = {
            "wavelength": np.round(one.wavelength, 3),
            "flux": one.flux.astype(np.float32),
            "run": one.run + 1_000_000 * number,
            "name": pa.array([name] * len(one.flux), pa.string()),
        }
        if errors:
            columns |= {
                end: (one.flux + sign * one.error).astype(np.float32) for end, sign in (("low", -1), ("high", 1))
            }
            columns["error"] = one.error.astype(np.float32)
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _lone(one: Trace) -> pa.Table | None:
    """Return the points with a gap on either side, which no line shows."""
    _, back, counts = np.unique(one.run, return_inverse=True, return_counts=True)
    alone = counts[back] == 1
    return pa.table({"wavelength": one.wavelength[alone], "flux": one.flux[alone]}) if alone.any() else None


def _hover(base: alt.Chart, x: alt.X, y: alt.Y) -> alt.Chart:
    """Return what shows wavelength, flux and error of the point that the pointer is closest to."""
    near = alt.selection_point(name="near", nearest=True, on="pointermove", encodings=["x"], empty=False)
    shown = [
        alt.Tooltip("wavelength:Q", title="wavelength [Å]", format=".1f"),
        alt.Tooltip("flux:Q", title="flux", format=".4g"),
        alt.Tooltip("error:Q", title="error", format=".2g"),
    ]
    points = base.mark_point(filled=True, size=50, color=COLOR, clip=True)
    return points.encode(
        x=x, y=y, opacity=alt.when(near).then(alt.value(1)).otherwise(alt.value(0)), tooltip=shown
    ).add_params(near)


def _marks(main: galsearch.Spectrum, ends: tuple[float, float], x: alt.X) -> list[alt.Chart]:
    """Return the lines that lie in a plot; of names that would lie over each other only the most telling is drawn."""
    factor = 1.0 if main.frame == REST or main.z is None else 1 + main.z
    if main.frame == OBSERVED and main.z is None:  # nobody knows where they are
        return []
    rows: list[dict] = []
    for line in galsearch.SPECTRAL_LINES:
        at = line.wavelength_angstrom * factor
        if ends[0] < at < ends[1]:
            room = min([abs(at - other["wavelength"]) for other in rows], default=ends[1] - ends[0])
            label = f"{line.name} {line.wavelength_angstrom:.1f} Å"
            rows.append({"wavelength": at, "line": line.name, "label": label, "room": room / (ends[1] - ends[0])})
    if not rows:
        return []
    base = alt.Chart(pa.Table.from_pylist(rows)).encode(x=x)
    shown = alt.Tooltip("label:N", title="line")
    rules = base.mark_rule(color=MARK, strokeDash=[3, 3], opacity=0.55)
    names = base.transform_filter(f"datum.room * width > {LABEL_PX}").mark_text(
        angle=270, align="left", baseline="middle", dx=3, fontSize=11, color=MARK
    )
    return [
        rules.encode(y=alt.value(NAMES_PX), y2=alt.value("height"), tooltip=shown),
        names.encode(text="line:N", y=alt.value(NAMES_PX), tooltip=shown),
    ]


def in_words(name: str, main: galsearch.Spectrum, beside: Mapping[str, galsearch.Spectrum]) -> str:
    """Return a plot as text."""
    low, high = main.wavelength_angstrom[[0, -1]]
    also = f", with {', '.join(beside)} scaled to its median" if beside else ""
    return f"Spectrum of {name}, {low:.0f} to {high:.0f} Å in the {main.frame} frame{also}"


# ---- sketches


def sketch(
    main: galsearch.Spectrum, other: galsearch.Spectrum | None = None, *, size: tuple[int, int] = (150, 150)
) -> str:
    """Return a small picture of a spectrum as a data URL of an SVG, at rest where its redshift is known.

    With `other` the picture spans the wavelengths of that one, which is drawn behind it, scaled to its median. All that
    goes into it are numbers.
    """
    width, height = size
    main = in_frame(main, REST)
    behind = None if other is None else in_frame(other, REST)
    whole = main if behind is None else behind
    ends = float(whole.wavelength_angstrom[0]), float(whole.wavelength_angstrom[-1])
    shown = within(main, ends[0], np.nextafter(ends[1], np.inf)) if behind is not None else main
    traces = [] if shown is None else [_scaled(shown)]
    if behind is not None:
        traces.append(_scaled(behind))
    bottom, top = span(traces)
    edge = 0.06 * (top - bottom)
    bottom, top = bottom - edge, top + edge

    def path(one: Trace) -> str:
        across = width * (one.wavelength - ends[0]) / (ends[1] - ends[0])
        up = height * np.clip((top - one.flux) / (top - bottom), -1, 2)
        starts = np.diff(one.run, prepend=-1) > 0
        return "".join(
            f"{'M' if start else 'L'}{a:.1f} {b:.1f}" for start, a, b in zip(starts, across, up, strict=True)
        )

    marks = "".join(
        f'<path d="M{width * (at - ends[0]) / (ends[1] - ends[0]):.1f} 0V{height}" stroke="#56616d" '
        f'stroke-width="1" stroke-dasharray="2 3" {STEADY}/>'
        for at in SKETCH_MARKS
        if main.frame == REST and ends[0] < at < ends[1]
    )
    colors = ["#8ec7f5", "#8a949e"]
    curves = [
        f'<path d="{path(one)}" fill="none" stroke="{color}" stroke-width="1.1" stroke-linejoin="round" {STEADY}/>'
        for one, color in zip(traces, colors if shown is not None else colors[1:], strict=False)
    ]
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    ground = '><rect width="100%" height="100%" fill="#0b0f14"/>'
    return _data_url(f"{drawn}{ground}{marks}{''.join(reversed(curves))}</svg>")


def _scaled(spectrum: galsearch.Spectrum) -> Trace:
    one = thinned(spectrum, SKETCH_POINTS)
    factor = scale(spectrum)
    return one._replace(flux=one.flux / factor, error=one.error / abs(factor))


def _data_url(drawn: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"
