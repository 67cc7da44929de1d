"""What the columns of an atlas hold: spans, counts. Small tables, kept for all sessions; the rows stay in the file."""

from __future__ import annotations

from dataclasses import dataclass

import cuts
import pyarrow as pa
import streamlit as st
from state import State

BINS = 28
SAMPLE_ROWS = 20_000  # that the span of a column is taken from
MOST_VALUES = 12  # that are offered of one column
FIRST = (
    "z",
    "photo_z",
    "mag_r",
    "mag_i",
    "mag_g",
    "mag_z",
    "mass",
    "axis_ratio",
    "radius_arcsec",
    "radius_px",
    "color_gr",
)
LAST = ("ra", "dec", "x_px", "y_px", "position_angle", "morphology_flag")
NUMBERS = ("DOUBLE", "FLOAT", "INTEGER", "BIGINT", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UINTEGER", "DECIMAL")


@dataclass(frozen=True)
class Number:
    """A column of numbers: what it is, and the span that nearly all of its values lie in."""

    name: str
    unit: str
    description: str
    low: float
    high: float
    whole: bool

    @property
    def digits(self) -> int:
        """How many decimals a step of the slider needs."""
        return cuts.digits_of(self.step)

    @property
    def format(self) -> str:
        """How a slider writes a value, for the sprintf of the page, which fails on decimals below 0."""
        return "%.0f" if self.whole else f"%.{max(self.digits, 0)}f" if self.digits < 10 else "%.4g"

    @property
    def step(self) -> float:
        """The step of a slider: a two-hundredth of the span, or 1 for whole numbers.

        A little less than that, so that rounding does not leave the last step out.
        """
        return 1.0 if self.whole else (self.high - self.low) / 200 * (1 - 1e-9)


@dataclass(frozen=True)
class Choice:
    """A column with few values: each with how many rows have it, most first."""

    name: str
    description: str
    values: tuple[tuple[str | bool, int], ...]


@st.cache_data(max_entries=8, show_spinner=False)
def every(hash: str, _state: State) -> pa.Table:
    """Return what `Atlas.columns` says."""
    return _state.atlas.columns()


@st.cache_data(max_entries=8, show_spinner=False)
def numbers(hash: str, _state: State) -> list[Number]:
    """Return the columns of numbers that differ between rows, those that people cut on first."""
    about = [row for row in every(hash, _state).to_pylist() if row["type"].split("(")[0] in NUMBERS]
    about.sort(key=lambda row: (row["column"] in LAST, (*FIRST, row["column"]).index(row["column"])))
    if not about:
        return []
    names = [cuts.name(row["column"]) for row in about]
    parts = [f"approx_quantile({name}::DOUBLE, [0.002, 0.998]) FILTER (isfinite({name}))" for name in names]
    stride = max(len(_state.atlas) // SAMPLE_ROWS, 1)
    said = ", ".join(f"{part} AS c{place}" for place, part in enumerate(parts))
    spans = _state.sql(f"SELECT {said} FROM galaxies WHERE hash(object_id) % {stride} = 0").to_pylist()[0]
    found = zip(about, spans.values(), strict=True)
    return [_number(row, *span) for row, span in found if span and None not in span and span[0] < span[1]]


def _number(row: dict, low: float, high: float) -> Number:
    whole = "INT" in row["type"]
    return Number(row["column"], row["unit"] or "", row["description"] or "", float(low), float(high), whole)


@st.cache_data(max_entries=8, show_spinner=False)
def choices(hash: str, _state: State) -> list[Choice]:
    """Return the columns of truths and of texts with 2 to MOST_VALUES values."""
    about = [row for row in every(hash, _state).to_pylist() if row["type"] in ("BOOLEAN", "VARCHAR")]
    about = [row for row in about if row["column"] not in ("object_id", "file", "caption")]
    if not about:
        return []
    said = ", ".join(f"approx_count_distinct({cuts.name(row['column'])})" for row in about)
    distinct = _state.sql(f"SELECT {said} FROM galaxies")
    few = [
        row for row, column in zip(about, distinct.columns, strict=True) if 2 <= column[0].as_py() <= 2 * MOST_VALUES
    ]
    made = [Choice(row["column"], row["description"] or "", counts(hash, row["column"], "true", _state)) for row in few]
    return [one for one in made if 2 <= len(one.values) <= MOST_VALUES]


@st.cache_data(max_entries=256, show_spinner=False)
def counts(hash: str, column: str, condition: str, _state: State) -> tuple[tuple[str | bool, int], ...]:
    """Return (value, rows) of one column for the rows that pass `condition`, most first; NULL is left out."""
    name = cuts.name(column)
    found = _state.sql(
        f"SELECT {name} AS value, count(*) AS rows FROM galaxies WHERE ({condition}\n) AND {name} IS NOT NULL "
        "GROUP BY ALL ORDER BY rows DESC, value",
        most_rows=MOST_VALUES + 1,
    )
    return tuple(zip(found["value"].to_pylist(), found["rows"].to_pylist(), strict=True))


@st.cache_data(max_entries=512, show_spinner=False)
def histogram(hash: str, column: str, low: float, high: float, condition: str, _state: State) -> list[int]:
    """Return how many of the rows that pass `condition` lie in each of BINS equal parts of a span."""
    name, width = cuts.name(column), (high - low) / BINS
    found = _state.sql(
        f"SELECT least(floor(({name} - {low!r}) / {width!r}), {BINS - 1})::INTEGER AS bin, count(*) AS rows "
        f"FROM galaxies WHERE ({condition}\n) AND {name} BETWEEN {low!r} AND {high!r} GROUP BY bin"
    )
    rows = [0] * BINS
    for place, many in zip(found["bin"].to_pylist(), found["rows"].to_pylist(), strict=True):
        rows[place] = many
    return rows
