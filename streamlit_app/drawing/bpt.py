"""The BPT diagram (Baldwin et al. 1981): objects by two line ratios, demarcation curves, some objects marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import altair as alt
import numpy as np
import pyarrow as pa

import galsearch
from drawing.spectrum import MARK

ACROSS, UP = (-1.7, 0.7), (-1.2, 1.5)  # log [N II]/Hα and log [O III]/Hβ, in which nearly all galaxies lie
EDGE = 0.08  # between a marked object that lies outside of that and the edge of the plot
HEIGHT = 420
MOST_DOTS = 3_000  # objects of the atlas that are drawn one by one; more are counted in squares
SQUARE = 0.04  # dex, a side of such a square
DASHES = {"Kauffmann": [6, 4], "Kewley": [1, 0], "Schawinski": [2, 3]}  # by the first word of the source
CLASSES = {  # where its name stands
    "star-forming": (-1.15, -0.75),
    "composite": (0.0, -1.08),
    "Seyfert": (-0.6, 1.2),
    "LINER": (0.45, -0.3),
}
OTHER = "#5d6d7e"  # of marked objects that have no color of their own
X_TITLE, Y_TITLE = "log [N II] 6583 / Hα", "log [O III] 5007 / Hβ"


class Point(NamedTuple):
    """An object on the diagram: the logarithms of its two ratios, and what is known of it, such as its class."""

    name: str
    log_nii_halpha: float
    log_oiii_hbeta: float
    about: str = ""


def chart(crowd: pa.Table, marked: Sequence[Point], colors: Mapping[str, str]) -> alt.LayerChart:
    """Return the diagram of a crowd (columns x, y, n: how many objects lie there) with some objects marked.

    `colors` are those of names that have one; the first of them is the one that is looked at, drawn larger. Names are
    texts of an atlas, shown as text.
    """
    x, y = _axes(marked)
    layers = [*_crowd(crowd, x, y), _curves(x, y), _classes(x, y)]
    if marked:
        layers.append(_marked(marked, colors, x, y))
    return alt.layer(*layers).properties(height=HEIGHT)


def sources() -> str:
    """Return in words which curve is drawn how."""
    drawn = {"Kauffmann": "dashed", "Kewley": "solid", "Schawinski": "dotted"}
    parts = [f"{drawn[one.source.split()[0]]} {one.source}" for one in galsearch.demarcation_curves()]
    return f"Curves: {', '.join(parts)}"


def in_words(name: str, marked: Sequence[Point]) -> str:
    """Return the diagram as text."""
    parts = [f"{one.name} at {one.log_nii_halpha:.2f}, {one.log_oiii_hbeta:.2f}" for one in marked[:12]]
    return f"BPT diagram of {name}: {'; '.join(parts)}"


def _axes(marked: Sequence[Point]) -> tuple[alt.X, alt.Y]:
    """Return the axes, wide enough for all that is marked."""
    values = np.array([(one.log_nii_halpha, one.log_oiii_hbeta) for one in marked]).reshape(-1, 2)
    low = np.minimum([ACROSS[0], UP[0]], values.min(axis=0, initial=np.inf) - EDGE).round(2).tolist()
    high = np.maximum([ACROSS[1], UP[1]], values.max(axis=0, initial=-np.inf) + EDGE).round(2).tolist()
    scales = [alt.Scale(domain=list(ends), nice=False) for ends in zip(low, high, strict=True)]
    axis = alt.Axis(tickCount=6)
    return alt.X("x:Q", title=X_TITLE, scale=scales[0], axis=axis), alt.Y(
        "y:Q", title=Y_TITLE, scale=scales[1], axis=axis
    )


def _crowd(crowd: pa.Table, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the objects of the atlas: dots, or squares that are the darker the more lie there."""
    if not crowd.num_rows:
        return []
    if crowd.num_rows <= MOST_DOTS:
        dots = alt.Chart(crowd.select(["x", "y"])).mark_point(filled=True, size=14, color=MARK, opacity=0.6, clip=True)
        return [dots.encode(x=x, y=y)]
    squares = alt.Chart(squared(crowd)).mark_rect(color=MARK, clip=True)
    shade = alt.Opacity("n:Q", scale=alt.Scale(type="log", range=[0.15, 0.9]), legend=None)
    return [squares.encode(x=x, x2="x2:Q", y=y, y2="y2:Q", opacity=shade)]


def squared(crowd: pa.Table) -> pa.Table:
    """Return a crowd counted in squares: x, y, x2, y2 of their corners and n, the objects in each."""
    column, row = (np.floor(crowd[name].to_numpy() / SQUARE + 1e-6).astype(np.int64) for name in "xy")
    cells, where = np.unique(np.stack([column, row]), axis=1, return_inverse=True)
    count = np.bincount(where.ravel(), weights=crowd["n"].to_numpy())
    left, low = cells * SQUARE
    return pa.table({"x": left, "y": low, "x2": left + SQUARE, "y2": low + SQUARE, "n": count})


def _curves(x: alt.X, y: alt.Y) -> alt.LayerChart:
    """Return the demarcation curves, told apart by their dashes."""
    layers = []
    for curve in galsearch.demarcation_curves():
        rows = pa.table(
            {"x": curve.log_nii_halpha, "y": curve.log_oiii_hbeta, "source": [curve.source] * len(curve[3])}
        )
        line = alt.Chart(rows).mark_line(
            color=MARK, strokeWidth=1.5, strokeDash=DASHES[curve.source.split()[0]], clip=True
        )
        layers.append(line.encode(x=x, y=y, tooltip=alt.Tooltip("source:N")))
    return alt.layer(*layers)


def _classes(x: alt.X, y: alt.Y) -> alt.Chart:
    rows = [{"x": across, "y": up, "class": name} for name, (across, up) in CLASSES.items()]
    return alt.Chart(pa.Table.from_pylist(rows)).mark_text(color=MARK, fontSize=11).encode(x=x, y=y, text="class:N")


def _marked(marked: Sequence[Point], colors: Mapping[str, str], x: alt.X, y: alt.Y) -> alt.Chart:
    """Return the marked objects, those that have a color over the others, the one that is looked at larger."""
    fields = ("name", "x", "y", "about")
    main = next(iter(colors), None)
    over = sorted(marked, key=lambda one: (one.name == main, one.name in colors))
    rows = [dict(zip(fields, one, strict=True)) | {"first": one.name == main} for one in over]
    names = [one.name for one in marked]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=200, symbolStrokeWidth=0)
    shades = alt.Scale(domain=names, range=[colors.get(name, OTHER) for name in names])
    legend.values = [name for name in colors if name in names]
    shown = [
        alt.Tooltip("name:N", title="object"),
        *([alt.Tooltip("about:N", title="label")] if any(one.about for one in marked) else []),
        alt.Tooltip("x:Q", title="log [N II]/Hα", format=".2f"),
        alt.Tooltip("y:Q", title="log [O III]/Hβ", format=".2f"),
    ]
    return (
        alt.Chart(pa.Table.from_pylist(rows))
        .mark_point(filled=True, opacity=1, stroke="white", strokeWidth=1)
        .encode(
            x=x,
            y=y,
            color=alt.Color("name:N", scale=shades, legend=legend if set(legend.values) - {main} else None),
            shape=alt.Shape("first:N", scale=alt.Scale(domain=[True, False], range=["diamond", "circle"]), legend=None),
            size=alt.Size("first:N", scale=alt.Scale(domain=[True, False], range=[220, 80]), legend=None),
            tooltip=shown,
        )
    )
