"""A box for a SQL condition of a page: how many objects pass it, what it may use, what is wrong with it."""

from __future__ import annotations

import columns
import cuts
import inside
import limits
import streamlit as st
import widgets
from links import MOST_WHERE
from state import State, current

import galsearch


def condition_box(state: State, name: str, label: str, *, empty: str, help: str) -> str | None:
    """Draw a box for a condition, how many objects pass it, and what it may use; return the last valid one."""
    said, key = state.param(name), f"{state.at}_{name}"
    if st.session_state.get(f"{key}_shown") != said or key not in st.session_state:
        st.session_state[key] = st.session_state[f"{key}_shown"] = said
        st.session_state[f"{key}_problem"] = None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", key=f"{key}_box"):
        st.text_input(
            label,
            key=key,
            max_chars=MOST_WHERE,
            help=help,
            placeholder=empty,
            on_change=take_condition,
            args=(name, key),
        )
        with st.popover("Columns", key=f"{key}_columns"):
            widgets.column_list(columns.every(state.hash, state))
        choices = columns.choices(state.hash, state)
        if choices:
            with st.popover("Values", key=f"{key}_values"):
                for number, choice in enumerate(choices):
                    value_pills(name, f"{key}_{number}", choice, said or None)
    problem = st.session_state[f"{key}_problem"]
    if problem:
        widgets.failure(problem)
        st.caption(f"What counts is {widgets.code(said)}." if said else "What counts is the box empty.")
    elif said:
        st.caption(passing_text(state, said))
    return said or None


def value_pills(name: str, key: str, choice: columns.Choice, condition: str | None) -> None:
    """Draw the values of a column, those that the condition keeps chosen."""
    values, taken = dict(choice.values), cuts.values_of(condition, choice.name)
    st.session_state[key] = [value for value in values if value in taken]
    st.pills(
        widgets.plain(choice.name),
        list(values),
        selection_mode="multi",
        key=key,
        format_func=lambda value: widgets.plain(f"{value} · {values[value]:,}"),
        on_change=take_values,
        args=(name, key, choice.name),
    )


def take_values(name: str, key: str, column: str) -> None:
    """Keep only these values of a column; the box is filled anew."""
    state = current()
    state.set_param(name, cuts.with_values(state.param(name) or None, column, list(st.session_state[key])))
    st.session_state[f"{state.at}_problem"] = None


def take_condition(name: str, key: str) -> None:
    """Take a condition into the URL; one that is not valid leaves the one before."""
    state, text = current(), st.session_state[key].strip()
    state.acted()
    try:
        count(state, text)
    except galsearch.GalsearchError as error:
        st.session_state[f"{key}_problem"] = str(error)
        return
    state.set_param(name, text)
    st.session_state[f"{key}_shown"], st.session_state[f"{key}_problem"] = text, None
    st.session_state[f"{state.at}_problem"] = None


def count(state: State, condition: str | None) -> int:
    """Return how many objects pass a condition, in this session's turn; counted once while it stays."""
    if not condition:
        return len(state.atlas)
    held, key = st.session_state.setdefault("condition_counts", {}), (inside.written(state.atlas), condition)
    if key not in held:
        with limits.turn():
            many = state.atlas.count(condition)
        if len(held) > 20:
            held.clear()
        held[key] = many
    return held[key]


def passing_text(state: State, condition: str) -> str:
    """Return how many objects pass; why they were not counted, where they were not."""
    try:
        return f"{count(state, condition):,} of {len(state.atlas):,} objects pass"
    except galsearch.GalsearchError as error:
        return f"Not counted: {widgets.plain(widgets.public(str(error)))}"
