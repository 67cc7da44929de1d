"""The BPT diagram on a page: where the galaxies of the atlas lie, and some of them marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cuts
import inside
import pyarrow as pa
import streamlit as st
import widgets
from drawing import bpt
from drawing.spectrum import BESIDE, COLOR
from state import State

RATIOS = ("log_nii_halpha", "log_oiii_hbeta")  # NULL below S/N 3 of either line
FLOATING = ("DOUBLE", "FLOAT")
DIGITS = 2  # of the ratios of the crowd


def columns(state: State) -> tuple[str, str] | None:
    """Return the columns that hold the two ratios; None where lines were not measured."""
    types = {row["column"]: row["type"] for row in state.atlas.columns().to_pylist()}
    names = [state.atlas.manifest.measure_column(measure) for measure in RATIOS]
    first, second = (name if types.get(name) in FLOATING else None for name in names)
    return None if first is None or second is None else (first, second)


def points(state: State, ids: Sequence[str], about: Mapping[str, str] | None = None) -> list[bpt.Point]:
    """Return those of the objects whose ratios are both known, with what is told of them."""
    names = columns(state)
    if names is None or not ids:
        return []
    rows = state.atlas.rows(list(ids))
    found = zip(ids, *(rows[name].to_pylist() for name in names), strict=True)
    return [
        bpt.Point(widgets.clean(one), x, y, widgets.clean((about or {}).get(one, "")))
        for one, x, y in found
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]


def show(
    state: State, marked: Sequence[bpt.Point], *, name: str = "", beside: Sequence[str] = (), without: int = 0
) -> None:
    """Draw the diagram with objects marked: `name` is looked at, and those `beside` have the colors of their spectra.

    `without` says how many others have no ratios that are known.
    """
    colors = dict(zip(map(widgets.clean, (name, *beside)), (COLOR, *BESIDE), strict=False))
    crowd = _crowd(inside.written(state.atlas), *(columns(state) or ("", "")), state)
    st.altair_chart(
        bpt.chart(crowd, marked, colors), width="stretch", alt=bpt.in_words(state.atlas.manifest.title, marked)
    )
    many = int(sum(crowd["n"].to_pylist()))
    several = "objects without them are" if without > 1 else "object without them is"
    left_out = f" {without} {several} not marked." if without else ""
    st.caption(
        f"Gray: the {many:,} galaxies of this atlas that have all four lines with S/N 3 at least.{left_out} "
        f"{bpt.sources()}."
    )


@st.cache_data(max_entries=8, show_spinner=False)
def _crowd(written: str, x: str, y: str, _state: State) -> pa.Table:
    """Return where galaxies lie, to DIGITS, and how many."""
    x, y = cuts.name(x), cuts.name(y)
    return _state.sql(
        f"SELECT round({x}, {DIGITS})::DOUBLE AS x, round({y}, {DIGITS})::DOUBLE AS y, count(*) AS n FROM galaxies "
        f"WHERE abs({x}) < 10 AND abs({y}) < 10 GROUP BY ALL ORDER BY ALL"
    )
