"""A quick look at a table: points of two columns, a histogram of one, or counts of its values."""

from __future__ import annotations

import altair as alt
import pyarrow as pa
import streamlit as st

PLOTS = ("Points", "Histogram", "Bars")
MOST_ROWS = 5000
NUMBER, NAME = "quantitative", "nominal"


def show(table: pa.Table) -> None:
    """Draw the choices, and the plot of them."""
    plain = [field.name for field in table.schema if kind(field.type)]
    numbers = [field.name for field in table.schema if kind(field.type) == NUMBER]
    if not plain:
        st.info("No column of the answer can be drawn.")
        return
    y = color = None
    with st.container(horizontal=True, gap="xsmall"):
        form = st.selectbox("Plot", PLOTS if numbers else PLOTS[2:], key="plot_form", width=150)
        x = st.selectbox("x", plain if form == "Bars" else numbers, key="plot_x", width=200)
        if form == "Points":
            y = st.selectbox("y", numbers, index=min(1, len(numbers) - 1), key="plot_y", width=200)
            color = st.selectbox("Color", plain, index=None, key="plot_color", width=200, placeholder="none")
    shown = table.select(list(dict.fromkeys(filter(None, [x, y, color])))).slice(0, MOST_ROWS)
    st.altair_chart(chart(shown, form, x, y, color), width="stretch")
    if len(table) > MOST_ROWS:
        st.caption(f"The first {MOST_ROWS:,} of {len(table):,} rows are drawn.")


def kind(of: pa.DataType) -> str | None:
    """Return how a column can be drawn, None for not at all."""
    if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of):
        return NUMBER
    return NAME if pa.types.is_string(of) or pa.types.is_boolean(of) else None


def chart(table: pa.Table, form: str, x: str, y: str | None, color: str | None) -> alt.Chart:
    """Return the drawing; magnitudes run so that bright is up or left, as astronomers have it."""
    names = {name: f"c{place}" for place, name in enumerate(table.column_names)}  # Vega reads dots in names as paths
    rows = [dict(zip(names.values(), row.values(), strict=True)) for row in table.to_pylist()]
    base = alt.Chart(alt.Data(values=rows)).properties(height=380)

    def axis(name: str) -> dict:
        return {"field": names[name], "type": kind(table.schema.field(name).type), "title": name}

    many = alt.Y("count()", title="rows")
    if form == "Histogram":
        return base.mark_bar().encode(x=alt.X(**axis(x), bin=alt.Bin(maxbins=40)), y=many)
    if form == "Bars":
        return base.mark_bar().encode(x=alt.X(**{**axis(x), "type": NAME}, sort="-y"), y=many)
    ends = {name: alt.Scale(zero=False, reverse=name.startswith("mag_")) for name in (x, y)}
    encoded = {"x": alt.X(**axis(x), scale=ends[x]), "y": alt.Y(**axis(y), scale=ends[y])}
    if color:
        encoded["color"] = alt.Color(**axis(color))
    return base.mark_circle(size=45, opacity=0.75).encode(**encoded)
