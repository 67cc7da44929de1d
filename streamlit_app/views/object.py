"""Object: one galaxy, with its image under control, all its columns, its neighbors, and why it was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import panel
import phrasing
import rendering
import streamlit as st
import widgets
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Object", ":material/center_focus_strong:", 2
NEIGHBORS = 12
PHRASES = 5
ORIGINAL = "original file"
SAMPLE = 1000  # objects that a phrase is compared on
SAME_ARCSEC, SAME_COSINE = 2.0, 0.9999  # as `distinct` has it


def needs(atlas: galsearch.Atlas) -> bool:
    """There must be an object."""
    return len(atlas) > 0


def show(state: State) -> None:
    """Draw the object that is looked at, or the first one of the answer."""
    choose_box(state)
    if not state.answered:
        told_refusal(state)
    object_id = state.selected or first(state)
    if object_id is None:
        st.info("No object is selected: enter an object_id above, or pick a galaxy on the page Search.")
        return
    galaxy = state.atlas[object_id]
    left, right = st.columns([5, 4], gap="large")
    with left:
        show_picture(state, galaxy)
        show_caption(state, object_id)
    with right:
        with st.container(gap="xsmall", key="actions"):
            panel.actions(state, object_id)
        panel.mark_buttons(state, object_id)
        show_note(state, object_id)
        show_links(galaxy)
        show_why(state, galaxy)
    show_neighbors(state, galaxy)
    show_duplicates(state, galaxy)
    st.header("Columns", anchor=False)
    widgets.facts(galaxy, state.atlas.columns(), form="wide")


def told_refusal(state: State) -> None:
    """Say why the query of this session has no results to step through."""
    try:
        state.hits()
    except galsearch.GalsearchError as error:
        widgets.failure(error)


def first(state: State) -> str | None:
    """Return the first object of the answer."""
    ids = answer_ids(state)
    return ids[0] if ids else None


def answer_ids(state: State) -> list[str]:
    """Return the objects of the results; those of the query before where this one is refused."""
    try:
        return state.hits().ids
    except galsearch.GalsearchError:
        earlier = state.earlier()
        return [] if earlier is None else earlier.ids


def choose_box(state: State) -> None:
    """Draw the box for an id, and the way to the one before and after in the answer."""
    object_id = state.selected or first(state) or ""
    if st.session_state.get("object_shown") != object_id or "object_id" not in st.session_state:
        st.session_state.object_id = st.session_state.object_shown = object_id
    ids = answer_ids(state)
    place = ids.index(object_id) if object_id in ids else None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", key="stepper"):
        st.text_input("object_id", key="object_id", width=260, on_change=take_id)
        step_button(state, "Previous", "previous_object", ids, None if place is None else place - 1)
        step_button(state, "Next", "next_object", ids, None if place is None else place + 1)
        if place is not None:
            st.caption(f"{place + 1} of {len(ids)} in the results", width="content")


def step_button(state: State, label: str, key: str, ids: list[str], place: int | None) -> None:
    """Draw a button to another object of the answer."""
    there = place is not None and 0 <= place < len(ids)
    st.button(label, key=key, disabled=not there, on_click=state.select, args=(ids[place] if there else None,))


def take_id() -> None:
    state, text = current(), st.session_state.object_id.strip()
    named = state.atlas.lookup(text)
    state.select(named.ids[0] if len(named.ids) == 1 else text or None)


# ---- the picture


def show_picture(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw the picture with its controls: source, bands, levels, stretch, scale."""
    picture = state.atlas.thumbnails([galaxy.object_id]).get(galaxy.object_id)
    file = rendering.original_file(galaxy.columns.get("file"))
    if picture is None and file is None:
        st.info("This atlas has no image of the object.", icon=":material/hide_image:")
        return
    sources = [*(["thumbnail"] if picture else []), *([ORIGINAL] if file else [])]
    frame = st.container(key="picture")
    with st.expander("Stretch and scale", icon=":material/contrast:", expanded=True, key="stretch"):
        if len(sources) > 1:
            st.segmented_control("From", sources, default=sources[-1], required=True, key="source")
        wanted = file if picture is None or st.session_state.get("source") == ORIGINAL else None
        bands, for_the_eye, origin = read_bands(picture, wanted)
        if not bands:
            return
        pixels = choose_bands(bands)
        shown = stretch_controls(pixels, default="linear" if for_the_eye else "asinh")
    height, width = pixels.shape[:2]
    with frame:
        st.image(shown, width="content", alt=widgets.describe(galaxy))
        st.caption(f"{width} × {height} pixels, {widgets.plain(origin)}")


def read_bands(picture: bytes | None, file: Path | None) -> tuple[dict[str, np.ndarray], bool, str]:
    """Return bands by name, red first, whether they are for the eye, and where they come from.

    A file that cannot be read is said, and the thumbnail is shown; no bands where there is none.
    """
    if file is not None:
        try:
            return *rendering.original_bands(file), file.name
        except galsearch.GalsearchError as error:
            widgets.failure(error)
    return ({} if picture is None else rendering.thumbnail_bands(picture)), True, "stored thumbnail"


def choose_bands(bands: dict[str, np.ndarray]) -> np.ndarray:
    """Draw the choice of bands, red first; return `(h, w, 3)` of three as red, green and blue, or `(h, w)` of one."""
    names = list(bands)
    choices = [*(["color"] if len(names) >= 3 else []), *names]
    band = st.segmented_control(
        "Band", choices, default=choices[0], required=True, key=f"band_{'-'.join(names)}", format_func=widgets.plain
    )
    if band in bands:
        return bands[band]
    return np.stack([bands[name] for name in (names[0], names[len(names) // 2], names[-1])], axis=2)


def stretch_controls(pixels: np.ndarray, *, default: str) -> bytes:
    """Draw stretch, levels and scale; return the picture made so, as PNG."""
    top = 100.0 if default == "linear" else 99.8
    stretch = st.segmented_control(
        "Stretch", rendering.STRETCHES, default=default, required=True, key=f"bend_{default}"
    )
    low, high = st.slider("Percentiles of black and white", 0.0, 100.0, (0.0, top), 0.1, key=f"levels_{default}")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        scale = st.select_slider("Scale", rendering.SCALES, 12, format_func=lambda one: f"{one} ×", width=220)
        smooth = st.toggle("Smooth", True, key="smooth")
        invert = st.toggle("Invert", key="invert")
    if low >= high:
        low, high = max(0.0, high - 0.1), max(high, 0.1)
    shown = rendering.stretched(pixels, stretch=stretch, low=low, high=high, invert=invert)
    return rendering.enlarged(shown, scale, smooth=smooth)


# ---- what is known of it


def show_caption(state: State, object_id: str) -> None:
    """Draw the caption, and who wrote it."""
    caption = panel.caption(state, object_id)
    if caption:
        st.markdown(f"“{widgets.plain(caption['caption'])}”")
        absent = f" · Absent: {', '.join(map(str, caption['negatives']))}" if caption["negatives"] else ""
        st.caption(widgets.plain(f"Source: {caption['model']}, {str(caption['created'])[:10]}{absent}"))


def show_note(state: State, object_id: str) -> None:
    """Draw the note of the object in the collection that is current."""
    key = f"note_{object_id}"
    st.session_state[key] = state.sets.members(state.collection).get(object_id, {}).get("note", "")
    st.text_input("Note", key=key, max_chars=2000, on_change=take_note, args=(object_id, key))


def take_note(object_id: str, key: str) -> None:
    state = current()
    state.attempt(state.sets.note, state.collection, object_id, st.session_state[key])


def show_links(galaxy: galsearch.Galaxy) -> None:
    """Draw the ways to the same place elsewhere."""
    found = panel.links(galaxy)
    if not found:
        st.caption("The atlas has no position on the sky of this object, so there is nothing to look up elsewhere.")
        return
    st.markdown(" · ".join(f"[{name}]({address})" for name, address in found.items()))


# ---- why it was found


def show_why(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw what each term adds to the score, and which phrases the object is most like."""
    parts = contributions(state, galaxy)
    if parts:
        st.header("Why it matched", anchor=False)
        bars(parts)
        st.caption("Of each term of the query: its weight times its cosine with the object.")
    found = phrases(state.hash, galaxy.object_id, state)
    if found:
        st.header("Phrases it is most like", anchor=False)
        bars(found)
        st.caption("In standard deviations above what the objects of this atlas score with the phrase.")


def contributions(state: State, galaxy: galsearch.Galaxy) -> list[tuple[str, float]]:
    """Return (term, weight times cosine) of the question for an object, [] where it has no vector."""
    terms = [term for term in state.query.terms if term.kind != "image"]
    try:
        own = state.atlas.embed(galaxy)
        return [(phrasing.name(term), term.weight * float(own @ embedded(state, term))) for term in terms]
    except galsearch.GalsearchError:
        return []


def embedded(state: State, term: galsearch.Term) -> np.ndarray:
    """Return the unit vector of a term."""
    if term.kind == "embedding":
        return state.atlas.embed(np.asarray(term.value))
    return state.atlas.embed(term.value if term.kind == "text" else state.atlas[term.value])


@st.cache_data(max_entries=64, show_spinner=False)
def phrases(hash: str, object_id: str, _state: State) -> list[tuple[str, float]]:
    """Return the phrases of the atlas that an object is most like, in deviations above a sample of the atlas."""
    if not (panel.has_table(hash, "concepts", _state) and panel.has_table(hash, "embedding_image", _state)):
        return []
    stride = max(len(_state.atlas) // SAMPLE, 1)
    found = _state.sql(
        f"""WITH sample AS (SELECT embedding FROM embedding_image WHERE hash(object_id) % {stride} = 0 LIMIT {SAMPLE}),
        usual AS (
            SELECT phrase, avg(array_inner_product(c.embedding, s.embedding)) AS mean,
                   stddev_samp(array_inner_product(c.embedding, s.embedding)) AS spread
            FROM concepts c, sample s GROUP BY phrase
        )
        SELECT phrase, (array_inner_product(c.embedding, e.embedding) - mean) / spread AS above
        FROM concepts c JOIN usual USING (phrase), embedding_image e
        WHERE e.object_id = {panel.literal(object_id)} AND spread > 0 ORDER BY above DESC, phrase LIMIT {PHRASES}"""
    )
    return [(row["phrase"], row["above"]) for row in found.to_pylist() if row["above"] > 0]


def bars(rows: list[tuple[str, float]]) -> None:
    """Draw (name, value) as a table with a bar for each value."""
    most = max((abs(value) for _, value in rows), default=0) or 1.0
    drawn = "".join(_bar(name, value, 100 * abs(value) / most) for name, value in rows)
    st.html(f'<table class="galsearch-bars"><tbody>{drawn}</tbody></table>')


def _bar(name: str, value: float, share: float) -> str:
    kind = "less" if value < 0 else "more"
    said = f"{value:+.3f}".replace("-", "−")
    return (
        f'<tr><th scope="row">{widgets.html(name)}</th><td class="bar"><span class="{kind}" style="width:{share:.0f}%">'
        f"</span></td><td>{said}</td></tr>"
    )


# ---- others


def show_neighbors(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw the objects that are most like this one."""
    near = neighbors(state, galaxy.object_id)
    if near is None or not len(near):
        return
    st.header("Most like it", anchor=False)
    pictures = near.thumbnails()
    tiles = [widgets.tile(hit, pictures.get(hit.object_id), score=f"{hit.score:.3f}") for hit in near]
    widgets.gallery(tiles, {"picked": take_neighbor}, key="neighbors", label=f"{len(tiles)} most alike, best first")


def neighbors(state: State, object_id: str) -> galsearch.Hits | None:
    """Return the objects most like one, kept while it is looked at; None where it has no vector."""
    kept: tuple[Any, galsearch.Hits | None] | None = st.session_state.get("near_object")
    if kept is None or kept[0] != (state.hash, object_id):
        query = galsearch.Query((galsearch.Term("object", object_id),), k=NEIGHBORS)
        try:
            found = state.search(query)
        except galsearch.QueryError:
            found = None
        st.session_state.near_object = kept = ((state.hash, object_id), found)
    return kept[1]


def take_neighbor() -> None:
    current().select(widgets.sent("picked", key="neighbors"))


def show_duplicates(state: State, galaxy: galsearch.Galaxy) -> None:
    """Say which other rows are the same object."""
    found = duplicates(state, galaxy)
    if found:
        st.header("The same object", anchor=False)
        st.markdown(", ".join(f"{widgets.code(name)} ({why})" for name, why in found.items()))


def duplicates(state: State, galaxy: galsearch.Galaxy) -> dict[str, str]:
    """Return other rows within SAME_ARCSEC or with the same vector, and which of the two it is."""
    found: dict[str, str] = {}
    ra, dec = galaxy.columns.get("ra"), galaxy.columns.get("dec")
    if panel.links(galaxy):
        rows = state.sql(f"FROM cone({ra!r}, {dec!r}, {SAME_ARCSEC})", most_rows=20).to_pylist()
        found = {row["object_id"]: f"{row['separation_arcsec']:.2f} arcsec away" for row in rows}
    for hit in neighbors(state, galaxy.object_id) or ():
        if hit.score >= SAME_COSINE:
            found.setdefault(hit.object_id, "the same vector")
    found.pop(galaxy.object_id, None)
    return found
