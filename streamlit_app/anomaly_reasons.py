"""Why an object is odd: which detectors are surprised, which measures are far off, the normals most like it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import panel
import pyarrow as pa
import sketches
import streamlit as st
import widgets
from anomaly_lists import Found
from links import FIRST_K, to_text
from state import State

import galsearch

OF_VECTORS = ("knn", "mahalanobis", "isolation_forest", "reconstruction")
OF_CLASSES = ("mahalanobis_classes", "mahalanobis_relative", "softmax", "energy")
DETECTORS = {  # name -> what it sees
    "knn": "far from all neighbors",
    "mahalanobis": "far from the mean",
    "isolation_forest": "few cuts set it apart",
    "reconstruction": "not made of usual parts",
    "mahalanobis_classes": "far from every class",
    "mahalanobis_relative": "farther from classes than from the mean",
    "softmax": "no class is probable",
    "energy": "little evidence of any class",
    "columns": "unusual measures",
    "pixels": "image quality",
}
NEAR_PX, PORTRAIT_PX = 76, 120  # pictures of a normal and of the object


def show_why(state: State, found: Found, row: pa.Table) -> None:
    """Draw what is odd about an object: who is surprised, measures, and the normals most like it."""
    said = row.to_pylist()[0]
    object_id = said["object_id"]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(widgets.plain(object_id), anchor=False, width="content")
        st.button("Close", icon=":material/close:", type="tertiary", key="close", on_click=state.select, args=(None,))
    galaxy = galaxies_of(state.atlas, [object_id]).get(object_id)
    if galaxy is None:
        st.info("This object is not in the atlas any more.")
        return
    nearest = [name for name in said["nearest"] or [] if isinstance(name, str) and name in state.atlas]
    pictures = sketches.faces(state.atlas, [object_id, *nearest])
    with st.container(horizontal=True, gap="small", key="anomalies_portrait"):
        picture = pictures.get(object_id)
        widgets.image(picture, width_px=PORTRAIT_PX, alt=widgets.describe(galaxy, picture))
        with st.container(gap="xsmall"):
            ways_on(state, object_id, found.about.get("embedding"))
    panel.mark_buttons(state, object_id)
    st.caption(f"{said['tier']} · q {said['q_value']:.2g} · p {said['p_value']:.2g}")
    show_surprise(said)
    if said["odd_columns"]:
        st.markdown("**Measures furthest from those of normals**")
        st.markdown("\n".join(f"- {widgets.plain(text)}" for text in said["odd_columns"]))
    if nearest:
        st.markdown("**Normals most like it**")
        show_nearest(state, nearest, pictures)
    elif said["nearest"] is None:
        st.caption("Reasons were kept for the first objects of the list alone.")


def ways_on(state: State, object_id: str, by: str | None) -> None:
    """Draw the ways on from an object: its page, a search by it."""
    way(state, "object", "Open its page", icon=":material/open_in_full:", object=object_id)
    term = state.like_term(object_id, by=by)
    query = replace(state.query, terms=(term,), k=FIRST_K)
    way(state, "search", "More like this", icon=":material/search:", query=to_text(query))


def way(state: State, page: str, label: str, *, icon: str, **said: str) -> None:
    """Draw a link to another page that says something else there; this page stays as it is, for the way back."""
    if page in state.pages:
        link = state.link(page) | said | {"atlas": state.hash}
        link.pop("page", None)
        st.page_link(state.pages[page], label=label, icon=icon, query_params=link, width="content")


def show_surprise(said: dict[str, Any]) -> None:
    """Draw how surprised each detector is, the most surprised first."""
    nats = [
        (name.removeprefix("nats_"), value)
        for name, value in said.items()
        if name.startswith("nats_") and name.removeprefix("nats_") in DETECTORS and value is not None
    ]
    if not nats:
        meaning = DETECTORS.get(said["detector"])
        st.markdown(f"Oddest by **{widgets.plain(said['detector'])}**" + (f": {meaning}" if meaning else ""))
        return
    st.markdown("**Surprise by detector**")
    nats.sort(key=lambda pair: -pair[1])
    widgets.bars([(DETECTORS[name], value) for name, value in nats], form=".1f")
    st.caption("In nats: −log of the share of normals that are as odd. 3 is one in twenty, 7 one in a thousand.")


def show_nearest(state: State, nearest: list[str], pictures: dict[str, bytes | str]) -> None:
    """Draw the normals that are most like an object, each with the way to its page."""
    with st.container(horizontal=True, gap="small", key="anomalies_nearest"):
        for number, name in enumerate(nearest):
            with st.container(width=110, gap="xxsmall", key=f"anomalies_normal_{number}"):
                widgets.image(pictures.get(name), width_px=NEAR_PX, alt=f"Normal: {widgets.clean(name)}")
                panel.link(state, name)


def galaxies_of(atlas: galsearch.Atlas, ids: list[str]) -> dict[str, galsearch.Galaxy]:
    """Return objects by id; those of a list that was kept may be gone."""
    there = [name for name in ids if name in atlas]
    return {row["object_id"]: galsearch.Galaxy(row, atlas) for row in atlas.rows(there).to_pylist()} if there else {}
