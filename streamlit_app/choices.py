"""Choices of a page that stand in its URL: a few beside each other, names in a list, whole numbers."""

from __future__ import annotations

from typing import Any

import streamlit as st
import widgets
from state import State, current


def segmented(state: State, name: str, options: dict[str, str], said: str, *, label: str, **more: Any) -> None:
    """Draw a choice of a few that stands in the URL."""
    key = f"{state.at}_{name}_{said}"
    st.segmented_control(
        label,
        list(options),
        default=said,
        required=True,
        format_func=options.get,
        key=key,
        on_change=take,
        args=(name, key, next(iter(options))),
        **more,
    )


def selected(
    state: State, name: str, options: list[str], said: str | None, *, label: str, width: int, **more: Any
) -> None:
    """Draw a choice of names that stands in the URL."""
    place = None if said is None else options.index(said)
    key = f"{state.at}_{name}_{place}"
    first = options[0] if "placeholder" not in more else ""
    st.selectbox(
        label,
        options,
        place,
        format_func=widgets.clean,
        key=key,
        width=width,
        on_change=take,
        args=(name, key, first),
        **more,
    )


def take(name: str, key: str, first: str) -> None:
    """Take what was chosen into the URL; what is so at the start is not said. The list begins at its first page."""
    value, state = st.session_state[key], current()
    state.set_param(name, None if value is None or str(value) == first else str(value))
    state.set_param("part", None)
    st.session_state[f"{state.at}_problem"] = state.problem = None


def number_of(text: str, default: int) -> int:
    """Return a whole number from 1 of a URL."""
    known = text.isascii() and text.isdecimal() and len(text) < 7 and int(text) > 0
    return int(text) if known else default


def turn_pages(page: str, part: int, last: int) -> None:
    """Draw the way to the parts of a list, from 0 to `last`; which one is shown stands in the URL."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="center"):
        st.button("Previous", key=f"{page}_previous", disabled=part == 0, on_click=turn_to, args=(part,))
        st.caption(f"page {part + 1} of {last + 1}", width="content")
        st.button("Next", key=f"{page}_next", disabled=part == last, on_click=turn_to, args=(part + 2,))


def turn_to(part: int) -> None:
    """Show a part of a list, from 1 on."""
    current().set_param("part", None if part == 1 else str(part))
