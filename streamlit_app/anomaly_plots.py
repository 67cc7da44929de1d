"""Plots of a list of odd objects: the false discovery rate by its length, the p-values of all that were judged."""

from __future__ import annotations

import math
from functools import partial

import altair as alt
import numpy as np
import streamlit as st
from anomaly_lists import HALF, TIERS, Found, tier
from state import State, current

CURVE_PX, HISTOGRAM_PX = 260, 260
BAR = "#3a8fd0"


def show(state: State, found: Found, n: int, fdr: float) -> None:
    """Draw both plots, beside each other where there is room."""
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show_curve(found, n, fdr)
    with right:
        show_histogram(found)


def show_histogram(found: Found) -> None:
    """Draw how many of all that were judged have which p-value, and how many would if all of them were ordinary."""
    counts = found.histogram
    if not counts.sum():
        return
    st.altair_chart(histogram(counts), width="stretch", alt=f"Histogram of p-values: {histogram_in_words(counts)}")
    st.caption(
        f"p-values of all {counts.sum():,} that were judged. If all were ordinary, each bar would be about as high as "
        "the dashed line. What is odd makes the first bar higher."
    )


def histogram(counts: np.ndarray) -> alt.LayerChart:
    """Return the histogram of p-values with the uniform expectation."""
    expected = counts.sum() / len(counts)
    ends = np.linspace(0, 1, len(counts) + 1).tolist()
    rows = [
        {"from": low, "to": high, "objects": count, "expected": expected}
        for low, high, count in zip(ends, ends[1:], counts.tolist(), strict=False)
    ]
    x = alt.X("from:Q", title="p-value", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("from:Q", format=".2f"),
        alt.Tooltip("to:Q", format=".2f"),
        alt.Tooltip("objects:Q", format=","),
        alt.Tooltip("expected:Q", title="if all were ordinary", format=",.1f"),
    ]
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect(color=BAR, opacity=0.85)
        .encode(x=x, x2="to:Q", y=alt.Y("objects:Q", title="Objects"), y2=alt.datum(0), tooltip=tooltip)
    )
    line = alt.Chart(alt.Data(values=[{"objects": expected}])).mark_rule(color="#d55e00", strokeDash=[6, 4], size=2)
    return alt.layer(bars, line.encode(y="objects:Q")).properties(height=HISTOGRAM_PX)


def histogram_in_words(counts: np.ndarray) -> str:
    """Return the histogram as text."""
    expected = counts.sum() / len(counts)
    below = f"{counts[0]:,} of {counts.sum():,} below {1 / len(counts):g}"
    return f"{below}, where {expected:,.1f} would be if all were ordinary"


def show_curve(found: Found, n: int, fdr: float) -> None:
    """Draw the false discovery rate down to each place of the list; a click ends the list there."""
    q = found.table["q_value"].to_numpy()
    key = f"anomalies_curve_{abs(hash(found.key))}_{fdr:g}"
    st.altair_chart(
        curve(q, n, fdr),
        width="stretch",
        key=key,
        on_select=partial(take_place, key),
        selection_mode="place",
        alt=f"False discovery rate by length of the list: {in_words(q)}",
    )
    st.caption(
        "False discovery rate of the list down to each place: the share of it that is expected to be ordinary. Click "
        "on a place to end the list there."
    )


def take_place(key: str) -> None:
    """End the list at the place that was clicked."""
    picked = st.session_state[key].selection.get("place") or []
    if picked and "place" in picked[0]:
        state = current()
        state.set_param("n", str(int(picked[0]["place"])))
        state.set_param("list", None)
        state.set_param("part", None)


def curve(q: np.ndarray, n: int, fdr: float) -> alt.LayerChart:
    """Return the operating curve of a list, its end and the two rates marked."""
    place = np.arange(1, len(q) + 1)
    rows = [
        {"place": int(at), "q": float(value), "expected": float(at * value), "tier": tier(value, fdr)}
        for at, value in zip(place, q, strict=True)
        if math.isfinite(value)
    ]
    log = len(q) > 50
    x = alt.X(
        "place:Q",
        title="Length of the list",
        scale=alt.Scale(type="log" if log else "linear", domain=[1, max(len(q), 2)], nice=False),
        axis=alt.Axis(format="d", tickCount=6),
    )
    y = alt.Y("q:Q", title="False discovery rate", scale=alt.Scale(domain=[0, 1]))
    click = alt.selection_point(name="place", fields=["place"], on="click", nearest=True, empty=False)
    base = alt.Chart(alt.Data(values=rows))
    line = base.mark_line(interpolate="step-before", color="#888888", opacity=0.6).encode(x=x, y=y)
    dots = (
        base.mark_point(filled=True, size=46, opacity=0.9)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "tier:N",
                scale=alt.Scale(domain=list(TIERS), range=list(TIERS.values())),
                legend=alt.Legend(title=None, orient="top"),
            ),
            tooltip=[
                alt.Tooltip("place:Q", title="first"),
                alt.Tooltip("q:Q", title="false discovery rate", format=".3g"),
                alt.Tooltip("expected:Q", title="expected to be ordinary", format=".2g"),
            ],
        )
        .add_params(click)
    )
    ends = alt.Chart(alt.Data(values=[{"q": fdr}, {"q": HALF}])).mark_rule(strokeDash=[4, 4], color="#888888")
    here = alt.Chart(alt.Data(values=[{"place": max(n, 1)}] if n else [])).mark_rule(color="#d55e00", strokeWidth=1.5)
    return alt.layer(line, ends.encode(y=y), here.encode(x=x), dots).properties(height=CURVE_PX)


def in_words(q: np.ndarray) -> str:
    """Return the operating curve as text."""
    places = [at for at in (1, 10, 24, 100, 1_000) if at <= len(q)]
    return "; ".join(f"{q[at - 1]:.2g} for the first {at:,}" for at in places)
