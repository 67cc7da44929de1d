"""The filters of a search, beside the results: sliders and choices with counts, a SQL box, a cone on the sky.

All of them edit one SQL condition, which stands in the box; `cuts` reads it and changes it.
"""

from __future__ import annotations

import columns
import cuts
import limits
import streamlit as st
import widgets
from columns import Choice, Number
from state import State, current

import galsearch

SHOWN = 4  # sliders that are there without asking
RADIUS_ARCSEC = 60.0
EXAMPLES = (  # condition, the measures of galsearch and the columns of a user's table that it needs
    ("NOT {is_star} AND NOT {is_artifact}", ("is_star", "is_artifact"), ()),
    ("{axis_ratio} < 0.4", ("axis_ratio",), ()),
    ("{color_gr} > 0.5", ("color_gr",), ()),
    ("z < 0.05", (), ("z",)),
    ("mag_r < 17", (), ("mag_r",)),
)


def fill(state: State) -> None:
    """Put what is asked into the boxes; before they are drawn."""
    st.session_state.where = state.query.where or ""
    st.session_state.where_problem = st.session_state.near_problem = None
    near = state.query.near
    st.session_state.near = "" if near is None else widgets.position(*near)
    st.session_state.radius_arcsec = state.query.radius_arcsec or RADIUS_ARCSEC


def show(state: State) -> None:
    """Draw all of it."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.header("Filters", anchor=False, width="content")
        if state.query.where or state.query.near:
            none = {"where": None, "near": None, "radius_arcsec": None}
            st.button("Clear", key="clear", type="tertiary", on_click=state.change, kwargs=none)
    cut_box(state)
    for choice in columns.choices(state.hash, state):
        draw_choice(state, choice)
    draw_numbers(state)
    cone_box(state)


# ---- the condition


def cut_box(state: State) -> None:
    """Draw the SQL condition, how many objects pass it, and the columns it may use."""
    about = columns.every(state.hash, state)
    examples = example_cuts(state.atlas, set(about["column"].to_pylist()))
    st.text_input(
        "Filter (SQL)",
        key="where",
        live="400ms",
        placeholder=examples[0] if examples else None,
        on_change=take_where,
    )
    problem = st.session_state.where_problem
    if problem:
        widgets.failure(problem)
        earlier("the last valid filter" if state.query.where else "no filter")
    elif state.query.where:
        st.caption(passing_text(state))
    with st.container(horizontal=True, gap="xsmall"):
        with st.popover("Columns", key="cut_columns"):
            widgets.column_list(about)
        with st.popover("Examples", key="cut_examples"):
            st.pills(
                "Example filters",
                examples,
                key="example_cut",
                label_visibility="collapsed",
                format_func=widgets.code,
                on_change=take_example_cut,
            )


def example_cuts(atlas: galsearch.Atlas, there: set[str]) -> list[str]:
    """Return the EXAMPLES for an atlas with the columns `there`.

    A measure of galsearch is read where the manifest says: a user's column may have its name.
    """
    found = []
    for cut, measures, columns_needed in EXAMPLES:
        held = {measure: atlas.manifest.measure_column(measure) for measure in measures}
        if there.issuperset([*held.values(), *columns_needed]):
            found.append(cut.format_map({measure: cuts.name(column) for measure, column in held.items()}))
    return found


def passing_text(state: State) -> str:
    """Return how many objects pass the filter; that they were not counted, where they were not."""
    try:
        return f"{state.passing():,} of {len(state.atlas):,} objects pass"
    except galsearch.GalsearchError as error:
        return f"Not counted: {widgets.plain(widgets.public(str(error)))}"


def earlier(asked: str) -> None:
    """Say that the results are not those of what stands in a box."""
    st.caption(f"Results shown are for {asked}.")


def take_example_cut() -> None:
    if st.session_state.example_cut:
        current().add_cut(st.session_state.example_cut)
        st.session_state.example_cut = None


def take_where() -> None:
    """Ask with the condition in the box; one that is not valid (yet) leaves the answer as it is."""
    state, text = current(), st.session_state.where
    state.acted()
    where = text.strip() or None
    try:
        with limits.turn():
            state.atlas.count(where)
    except galsearch.GalsearchError as error:
        st.session_state.where_problem = str(error)
        return
    state.change(where=where)
    state.filled = state.revision  # the box keeps the very text: somebody is typing in it
    st.session_state.where_problem = None


# ---- one column each


def draw_choice(state: State, choice: Choice) -> None:
    """Draw the values of a column with how many rows have each, under everything else that is asked."""
    known = dict(choice.values)
    rest = dict(columns.counts(state.hash, choice.name, condition_without(state, choice.name), state))
    taken = cuts.values_of(state.query.where, choice.name)
    key = f"choice_{choice.name}"
    st.session_state[key] = [value for value in known if value in taken]
    with st.container(key=f"column_{choice.name}"):
        st.pills(
            widgets.plain(choice.name),
            list(known),
            selection_mode="multi",
            key=key,
            help=widgets.plain(choice.description) or None,
            format_func=lambda value: f"{widgets.plain(value_text(value))} · {rest.get(value, 0):,}",
            on_change=take_choice,
            args=(choice.name, key),
        )


def value_text(value: object) -> str:
    """Return a value as it stands on a choice."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def take_choice(column: str, key: str) -> None:
    state = current()
    state.change(where=cuts.with_values(state.query.where, column, list(st.session_state[key])))


def draw_numbers(state: State) -> None:
    """Draw sliders of the columns that are cut on, of the usual ones, and of those that were asked for."""
    every = columns.numbers(state.hash, state)
    more = [name for name in state.param("columns").split(",") if name]
    cut_on = [one.name for one in every if cuts.range_of(state.query.where, one.name) != (None, None)]
    shown = {one.name for one in every[:SHOWN]} | set(more) | set(cut_on)
    condition = condition_without(state, None)
    for one in every:
        if one.name in shown:
            draw_number(state, one, condition)
    rest = [one.name for one in every if one.name not in shown]
    if rest:
        st.session_state.more_columns = None
        st.selectbox(
            "More columns",
            rest,
            index=None,
            key="more_columns",
            label_visibility="collapsed",
            placeholder=f"Add one of {len(rest)} more columns",
            on_change=take_more,
        )


def take_more() -> None:
    state = current()
    state.set_param("columns", ",".join(filter(None, [state.param("columns"), st.session_state.more_columns])))


def draw_number(state: State, one: Number, condition: str) -> None:
    """Draw a slider below a histogram of all rows and, in front, of those that pass."""
    every = columns.histogram(state.hash, one.name, one.low, one.high, "true", state)
    passing = (
        None if condition == "true" else columns.histogram(state.hash, one.name, one.low, one.high, condition, state)
    )
    low, high = cuts.range_of(state.query.where, one.name)
    inside = [
        min(max(value, one.low), one.high)
        for value in (one.low if low is None else low, one.high if high is None else high)
    ]
    key = f"range_{one.name}"
    st.session_state[key] = tuple(sorted(inside))
    with st.container(key=f"column_{one.name}"):
        widgets.histogram(f"Histogram of {one.name}: {sum(every):,} objects", every, passing)
        st.slider(
            widgets.plain(f"{one.name} ({one.unit})" if one.unit else one.name),
            one.low,
            one.high,
            key=key,
            step=one.step,
            format=one.format,
            help=widgets.plain(one.description) or None,
            on_change=take_range,
            args=(one, key),
        )


def take_range(one: Number, key: str) -> None:
    """Cut at the ends of the slider that were moved; an end that stands at the edge of the span cuts nothing."""
    state, (low, high) = current(), st.session_state[key]
    low_cut = None if low <= one.low + one.step / 2 else low
    high_cut = None if high >= one.high - one.step / 2 else high
    state.change(where=cuts.with_range(state.query.where, one.name, low_cut, high_cut, step=one.step))


def condition_without(state: State, column: str | None) -> str:
    """Return what is asked as SQL, without what it says of one column, so that its other values can be counted."""
    if column is None or not cuts.values_of(state.query.where, column):
        return state.condition()
    other = State(state.atlas)
    other.query = galsearch.Query(
        where=cuts.without(state.query.where, column),
        near=state.query.near,
        radius_arcsec=state.query.radius_arcsec,
    )
    return other.condition()


# ---- the cone


@st.cache_data(max_entries=8, show_spinner=False)
def has_positions(hash: str, _atlas: galsearch.Atlas) -> bool:
    """Say whether any object has a position."""
    return _atlas.count("ra IS NOT NULL") > 0


def cone_box(state: State) -> None:
    """Draw the cone on the sky, where the atlas has positions."""
    if not has_positions(state.hash, state.atlas):
        return
    st.text_input(
        "Center on the sky (ICRS)",
        key="near",
        placeholder="189.204167 +62.216111 or 12:36:49 +62:12:58",
        on_change=take_cone,
    )
    st.number_input("Radius (arcsec)", key="radius_arcsec", min_value=0.0, max_value=648000.0, on_change=take_cone)
    if st.session_state.near_problem:
        widgets.failure(st.session_state.near_problem)
        earlier("the last valid position" if state.query.near else "no position")


def take_cone() -> None:
    state = current()
    state.acted()
    text, radius = st.session_state.near.strip(), st.session_state.radius_arcsec
    try:
        near = galsearch.parse_position(text) if text else None
    except galsearch.GalsearchError as error:
        st.session_state.near_problem = str(error)
        return
    state.change(near=near, radius_arcsec=radius if near else None)
    state.filled = state.revision
    st.session_state.near_problem = None
