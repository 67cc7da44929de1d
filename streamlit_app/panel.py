"""One object: its picture, where it lies, what others know of it, what may be done with it."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import quote

import sketches
import streamlit as st
import widgets
from sets import MARKS
from state import State, current

import galsearch

MINUS = -0.5


def show_beside(state: State, object_id: str) -> None:
    """Draw an object beside the answer: its picture, what can be asked of it, its marks and all its columns."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(widgets.plain(object_id), anchor=False, width="content")
        st.button("Close", icon=":material/close:", type="tertiary", key="close", on_click=state.select, args=(None,))
    try:
        galaxy = state.atlas[object_id]
        picture = sketches.faces(state.atlas, [object_id]).get(object_id)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    with st.container(horizontal=True, key="portrait"):
        if picture:
            widgets.image(picture, alt=widgets.describe(galaxy, picture))
        with st.container(gap="xsmall"):
            actions(state, object_id)
            if "object" in state.pages and st.button(
                "Open its page", key="open", icon=":material/open_in_full:", width="stretch"
            ):
                state.goto("object")
            mark_buttons(state, object_id)
    widgets.facts(galaxy, state.atlas.columns())


def actions(state: State, object_id: str) -> None:
    """Draw the buttons that search by this object."""
    st.button(
        "More like this",
        type="primary",
        key="like",
        icon=":material/search:",
        on_click=take_like,
        args=(object_id,),
        width="stretch",
    )
    with st.container(horizontal=True, gap="xsmall"):
        for label, weight in (("Plus this", 1.0), ("Minus this", MINUS)):
            term = state.like_term(object_id, weight)
            st.button(label, key=label, on_click=state.add_term, args=(term,), width="stretch")
    for name in state.embeddings_of(object_id)[1:]:
        st.button(
            f"More by {widgets.plain(name)}",
            key=f"like_by_{name}",
            icon=":material/search:",
            on_click=take_like,
            args=(object_id, name),
            width="stretch",
        )


def take_like(object_id: str, by: str | None = None) -> None:
    current().like(object_id, by)


def mark_buttons(state: State, object_id: str) -> None:
    """Draw the marks of an object in the collection that is current."""
    held = state.sets.members(state.collection).get(object_id, {}).get("mark")
    key = f"mark_{object_id}"
    st.session_state[key] = held
    st.pills(
        f"Mark in “{widgets.plain(state.collection)}”",
        list(MARKS),
        key=key,
        format_func=widgets.MARK_SIGNS.get,
        on_change=take_mark,
        args=(object_id, key),
    )


def take_mark(object_id: str, key: str) -> None:
    current().mark([object_id], st.session_state[key])


def link(state: State, object_id: str) -> None:
    """Draw the way to the page of an object."""
    if "object" in state.pages:
        here = state.link("object") | {"object": object_id, "atlas": state.hash}
        st.page_link(state.pages["object"], label=widgets.plain(object_id), query_params=here, width="content")
    else:
        st.markdown(f"**{widgets.plain(object_id)}**")


# ---- elsewhere


def links(galaxy: galsearch.Galaxy) -> dict[str, str]:
    """Return pages about a position elsewhere, {} without one: nothing but numbers of an atlas gets into an address.

    Nothing is asked of them until somebody follows one.
    """
    ra, dec = galaxy.columns.get("ra"), galaxy.columns.get("dec")
    if not all(isinstance(one, float) and math.isfinite(one) for one in (ra, dec)):
        return {}
    place, around = f"{ra:.6f}%20{dec:+.6f}".replace("+", "%2B"), f"ra={ra:.6f}&dec={dec:.6f}"
    return {
        "Legacy Survey": f"https://www.legacysurvey.org/viewer?{around}&layer=ls-dr10&zoom=15&mark={ra:.6f},{dec:.6f}",
        "SDSS": f"https://skyserver.sdss.org/dr18/VisualTools/navi?{around}&scale=0.2",
        "SIMBAD": f"https://simbad.cds.unistra.fr/simbad/sim-coo?Coord={place}&Radius=10&Radius.unit=arcsec",
        "NED": f"https://ned.ipac.caltech.edu/conesearch?search_type=Near%20Position%20Search&"
        f"coordinates={quote(f'{ra:.6f}d {dec:+.6f}d')}&radius=0.2&in_csys=Equatorial&in_equinox=J2000",
        "Aladin Lite": f"https://aladin.cds.unistra.fr/AladinLite/?target={place}&fov=0.05&survey=CDS/P/DSS2/color",
    }


def caption(state: State, object_id: str) -> dict[str, Any] | None:
    """Return the latest caption of an object with its origin, None without one."""
    if not has_table(state.hash, "captions", state):
        return None
    found = state.sql(
        "SELECT caption, summary, negatives, model, created FROM captions WHERE object_id = "
        f"{literal(object_id)} AND caption IS NOT NULL ORDER BY created DESC, seed LIMIT 1"
    ).to_pylist()
    return found[0] if found else None


def captions(state: State, ids: list[str]) -> dict[str, str]:
    """Return the latest captions of the objects of one page; those without one are absent."""
    if not ids or not has_table(state.hash, "captions", state):
        return {}
    found = state.sql(
        "SELECT object_id, arg_max(caption, created) AS caption FROM captions WHERE caption IS NOT NULL "
        f"AND object_id IN ({', '.join(map(literal, ids))}) GROUP BY object_id"
    )
    return dict(zip(found["object_id"].to_pylist(), found["caption"].to_pylist(), strict=True))


@st.cache_data(max_entries=64, show_spinner=False)
def has_table(hash: str, name: str, _state: State) -> bool:
    """Say whether the atlas has a table."""
    return bool(len(_state.sql(f"SELECT 1 FROM duckdb_tables() WHERE table_name = {literal(name)} AND NOT internal")))


def literal(text: str) -> str:
    """Return a text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"
