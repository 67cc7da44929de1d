"""Object: one galaxy, its image under control, its spectrum, its columns and neighbors, and why it was found."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import bpt_panel
import cuts
import identifications
import limits
import numpy as np
import panel
import phrasing
import rendering
import sketches
import spectrum_panel
import streamlit as st
import voting
import widgets
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Object", ":material/center_focus_strong:", 2
NEIGHBORS = 12
OVERLAID = 6  # of them, that may be drawn over its spectrum
PHRASES = 5
ORIGINAL = "original file"
COLOR_MAP = "color map"
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
    spectrum = spectrum_of(state, object_id)
    picture = state.atlas.thumbnails([object_id]).get(object_id)
    file = rendering.original_file(galaxy.columns.get("file"))
    with_picture = picture is not None or file is not None
    if spectrum is not None and not with_picture:
        show_spectrum(state, galaxy, spectrum)
    left, right = st.columns([5, 4], gap="large")
    with left:
        if with_picture or spectrum is None:
            show_picture(galaxy, picture, file)
        else:
            show_marks(state, galaxy)
        show_caption(state, object_id)
        show_bpt(state, galaxy)
    with right:
        with st.container(gap="xsmall", key="actions"):
            panel.actions(state, object_id)
        if with_picture or spectrum is None:
            show_marks(state, galaxy)
        show_why(state, galaxy)
        show_class(state, galaxy)
        show_known(state, galaxy)
    if spectrum is not None and with_picture:
        show_spectrum(state, galaxy, spectrum)
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


def offer_survey(galaxy: galsearch.Galaxy) -> None:
    """Offer the picture of a survey: nothing is sent before somebody presses the button, and never in public."""
    if limits.PUBLIC or galaxy.columns.get("ra") is None or galaxy.columns.get("dec") is None:
        return
    pressed = st.button(
        "Picture of the Legacy Surveys",
        icon=":material/public:",
        help="Sends the position of this object, and nothing else, to hips2fits at the CDS.",
    )
    if pressed:
        try:
            picture = current().atlas.survey_picture(galaxy.object_id)
        except galsearch.GalsearchError as error:
            widgets.failure(error)
            return
        widgets.image(picture.content, alt=f"{picture.size_arcsec:g} arcsec around {galaxy.object_id}")
        st.caption(f"{picture.size_arcsec:g} arcsec a side, north up, from {picture.host}.")


def show_picture(galaxy: galsearch.Galaxy, picture: bytes | None, file: Path | None) -> None:
    """Draw the picture with its controls: source, bands, levels, stretch, scale."""
    if picture is None and file is None:
        st.info("This atlas has no image of the object.", icon=":material/hide_image:")
        offer_survey(galaxy)
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
        legend = ""
        if pixels is None:
            shown, legend = color_map(bands)
        else:
            shown = stretch_controls(pixels, default="linear" if for_the_eye else "asinh")
    height, width = next(iter(bands.values())).shape[:2]
    with frame:
        st.image(shown, width="content", alt=widgets.describe(galaxy))
        st.caption(f"{width} × {height} pixels, {widgets.plain(origin)}{legend}")


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


def choose_bands(bands: dict[str, np.ndarray]) -> np.ndarray | None:
    """Draw the choice of bands, red first; return `(h, w, 3)` of three as red, green and blue, or `(h, w)` of one.

    None for the map of the color between the first band and the last.
    """
    names = list(bands)
    choices = [*(["color"] if len(names) >= 3 else []), *names, *([COLOR_MAP] if len(names) >= 2 else [])]
    band = st.segmented_control(
        "Band", choices, default=choices[0], required=True, key=f"band_{'-'.join(names)}", format_func=widgets.plain
    )
    if band in bands:
        return bands[band]
    if band == COLOR_MAP:
        return None
    return np.stack([bands[name] for name in (names[0], names[len(names) // 2], names[-1])], axis=2)


def color_map(bands: dict[str, np.ndarray]) -> tuple[bytes, str]:
    """Draw the scale; return the map of the color of a galaxy as PNG, and what its colors mean."""
    red, *_, blue = bands
    shown, low, high = rendering.in_colors(galsearch.color_map(bands[blue], bands[red]))
    scale = st.select_slider("Scale", rendering.SCALES, 12, format_func=lambda one: f"{one} ×", width=220)
    names = f"{widgets.plain(blue)} − {widgets.plain(red)}"
    legend = f"; {names} from {low:.2f} (blue) to {high:.2f} mag (red), uncalibrated"
    return rendering.enlarged(shown, scale, smooth=False), legend


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


# ---- the spectrum


def spectrum_of(state: State, object_id: str) -> galsearch.Spectrum | None:
    """Return the spectrum of an object; one that is damaged is told, and all else of the page is drawn."""
    try:
        return spectrum_panel.of(state, object_id)
    except galsearch.SchemaError as error:
        widgets.failure(error)
        return None


def show_spectrum(state: State, galaxy: galsearch.Galaxy, spectrum: galsearch.Spectrum) -> None:
    """Draw the spectrum and, where they are wanted, those of the objects whose spectra are most like it."""
    st.header("Spectrum", anchor=False)
    plot = st.container()
    beside: dict[str, galsearch.Spectrum] = {}
    with st.container(horizontal=True, vertical_alignment="bottom", key="spectrum_more"):
        wanted = state.param("overlay") == spectrum_panel.ON
        st.toggle("Overlay neighbors", wanted, key=f"overlay_{wanted}", on_change=take_overlay, args=(wanted,))
        spectrum_panel.files(galaxy.object_id, spectrum)
        if "spectra" in state.pages and st.button("Compare spectra", key="to_spectra", icon=":material/ssid_chart:"):
            state.goto("spectra")
    if wanted:
        beside = choose_beside(state, galaxy.object_id)
    with plot:
        spectrum_panel.show(state, galaxy.object_id, spectrum, beside)


def take_overlay(was: bool) -> None:  # noqa: FBT001  Streamlit passes positions
    """Draw the neighbors' spectra over this one, or do not."""
    current().set_param("overlay", None if was else spectrum_panel.ON)


def choose_beside(state: State, object_id: str) -> dict[str, galsearch.Spectrum]:
    """Draw which neighbors to draw over a spectrum; return their spectra."""
    near = neighbors(state, object_id, sketches.embedding(state.atlas))
    if near is None or not len(near):
        st.caption("Nothing else has a spectrum to compare.", width="content")
        return {}
    scores = dict(zip(near.ids, near.scores, strict=True))
    ids = near.ids[:OVERLAID]
    chosen = st.pills(
        "Most alike by spectrum, scaled to its median",
        ids,
        selection_mode="multi",
        default=ids[:1],
        key=f"overlaid_{object_id}",
        format_func=lambda name: widgets.plain(f"{name} · {scores[name]:.3f}"),
        on_change=state.acted,
    )
    return state.atlas.spectra(chosen) if chosen else {}


# ---- what is known of it


def show_marks(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw its marks and note, and the ways to it elsewhere."""
    panel.mark_buttons(state, galaxy.object_id)
    show_note(state, galaxy.object_id)
    show_links(galaxy)


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
        widgets.bars(parts)
        st.caption("Of each term of the query: its weight times its cosine with the object.")
    found = phrases(state.hash, galaxy.object_id, state)
    if found:
        st.header("Phrases it is most like", anchor=False)
        widgets.bars(found)
        st.caption("In standard deviations above what the objects of this atlas score with the phrase.")


def contributions(state: State, galaxy: galsearch.Galaxy) -> list[tuple[str, float]]:
    """Return (term, weight times cosine) of the question for an object, [] where it has no vector."""
    found = []
    for term in state.query.terms:
        if not term.is_file:
            with contextlib.suppress(galsearch.GalsearchError):  # it has no vector in the embedding of this term
                own = state.atlas.embed(galaxy, by=term.by)
                found.append((phrasing.name(term), term.weight * float(own @ embedded(state, term))))
    return found


def embedded(state: State, term: galsearch.Term) -> np.ndarray:
    """Return the unit vector of a term."""
    if term.kind == "embedding":
        return state.atlas.embed(np.asarray(term.value), by=term.by)
    return state.atlas.embed(term.value if term.kind == "text" else state.atlas[term.value], by=term.by)


@st.cache_data(max_entries=64, show_spinner=False)
def phrases(hash: str, object_id: str, _state: State) -> list[tuple[str, float]]:
    """Return the phrases of the atlas that an object is most like, in deviations above a sample of the atlas.

    None where words are not compared with its main vectors, such as those of spectra.
    """
    manifest = _state.atlas.manifest
    main = manifest.main_embedding
    vectors = f"embedding_{main}"
    if main is None or not manifest.knows_words(main):
        return []
    if not (panel.has_table(hash, "concepts", _state) and panel.has_table(hash, vectors, _state)):
        return []
    vectors = cuts.name(vectors)
    stride = max(len(_state.atlas) // SAMPLE, 1)
    found = _state.sql(
        f"""WITH sample AS (SELECT embedding FROM {vectors} WHERE hash(object_id) % {stride} = 0 LIMIT {SAMPLE}),
        usual AS (
            SELECT phrase, avg(array_inner_product(c.embedding, s.embedding)) AS mean,
                   stddev_samp(array_inner_product(c.embedding, s.embedding)) AS spread
            FROM concepts c, sample s GROUP BY phrase
        )
        SELECT phrase, (array_inner_product(c.embedding, e.embedding) - mean) / spread AS above
        FROM concepts c JOIN usual USING (phrase), {vectors} e
        WHERE e.object_id = {panel.literal(object_id)} AND spread > 0 ORDER BY above DESC, phrase LIMIT {PHRASES}"""
    )
    return [(row["phrase"], row["above"]) for row in found.to_pylist() if row["above"] > 0]


# ---- its class


def show_bpt(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw where the object lies on the BPT diagram, where its lines allow."""
    marked = bpt_panel.points(state, [galaxy.object_id])
    if marked:
        st.header("BPT diagram", anchor=False)
        bpt_panel.show(state, marked, name=galaxy.object_id)


def show_class(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw the choice of a knowledge base, what its members vote for, and the way to why."""
    rows = voting.bases(state)
    if not rows:
        return
    latest = {row["base"]: row for row in reversed(rows)}  # the last version of each name comes last here
    names = sorted(latest)
    base = state.param("base") if state.param("base") in latest else None
    st.header("What its neighbors say", anchor=False)
    key = f"classify_by_{None if base is None else names.index(base)}"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="classify"):
        st.selectbox(
            "Classify by",
            names,
            None if base is None else names.index(base),
            key=key,
            format_func=widgets.clean,
            placeholder="a knowledge base",
            width=240,
            on_change=take_base,
            args=(key,),
        )
        if base is not None and "knowledge" in state.pages and st.button("Why", icon=":material/how_to_vote:"):
            for name, value in {"base": base, "of": "ids", "ids": galaxy.object_id}.items():
                state.set_param(name, value, page="knowledge")
            state.select(galaxy.object_id)
            state.goto("knowledge")
    if base is not None:
        told_class(state, galaxy, latest[base])


def take_base(key: str) -> None:
    current().set_param("base", st.session_state[key])


def told_class(state: State, galaxy: galsearch.Galaxy, row: dict[str, Any]) -> None:
    """Say what the members of a base vote for."""
    way = voting.Way(base=row["base"], version=row["version"], k=voting.first_depth(row))
    try:
        votes = voting.classify(state, [galaxy.object_id], way)[0]
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    st.markdown(f"**{widgets.plain(voting.answer(votes))}**")
    if len(votes):
        st.caption(widgets.plain(voting.counted(votes)))


# ---- is it known?


def show_known(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw what catalogs have at its position: as looked up in this session, and as the atlas keeps it."""
    try:
        looks = identifications.looks_at(state, galaxy.object_id)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    may_look = "identify" in state.pages and bool(panel.links(galaxy))
    if not looks and not may_look:
        return
    st.header("Is it known?", anchor=False)
    for known in looks:
        identifications.show_object(known, galaxy.object_id)
    if may_look and st.button("Look it up", key="to_identify", icon=":material/travel_explore:"):
        state.select(galaxy.object_id)
        state.set_param("of", "object", page="identify")
        state.goto("identify")


# ---- others


def show_neighbors(state: State, galaxy: galsearch.Galaxy) -> None:
    """Draw the objects that are most like this one, by one of the embeddings that it has a vector in."""
    names = state.embeddings_of(galaxy.object_id)
    by = state.param("by") if state.param("by") in names else next(iter(names), None)
    near = None if by is None else neighbors(state, galaxy.object_id, by)
    if near is None or not len(near):
        return
    st.header("Most like it", anchor=False)
    if len(names) > 1:
        key = f"near_by_{by}"
        st.segmented_control(
            "Compared by",
            names,
            default=by,
            required=True,
            key=key,
            format_func=widgets.plain,
            on_change=spectrum_panel.take,
            args=("by", key),
        )
    pictures = sketches.faces(state.atlas, near.ids)
    tiles = [widgets.tile(hit, pictures.get(hit.object_id), score=f"{hit.score:.3f}") for hit in near]
    widgets.gallery(tiles, {"picked": take_neighbor}, key="neighbors", label=f"{len(tiles)} most alike, best first")


def neighbors(state: State, object_id: str, by: str | None) -> galsearch.Hits | None:
    """Return the objects most like one by an embedding, kept while it is looked at; None where it has no vector."""
    held: tuple[Any, dict[str | None, galsearch.Hits | None]] = st.session_state.get("near_object", (None, {}))
    if held[0] != (state.hash, object_id):
        st.session_state.near_object = held = ((state.hash, object_id), {})
    if by not in held[1]:
        query = galsearch.Query((state.like_term(object_id, by=by),), k=NEIGHBORS)
        try:
            held[1][by] = state.search(query)
        except galsearch.QueryError:
            held[1][by] = None
    return held[1][by]


def take_neighbor() -> None:
    current().select(widgets.sent("picked", key="neighbors"))


def show_duplicates(state: State, galaxy: galsearch.Galaxy) -> None:
    """Say which other rows are the same object."""
    found = duplicates(state, galaxy)
    if found:
        st.header("The same object", anchor=False)
        st.markdown(", ".join(f"{widgets.code(name)} ({why})" for name, why in found.items()))


def is_of_images(atlas: galsearch.Atlas, embedding: str) -> bool:
    """Say whether vectors are of images: two objects may well have spectra that are the same to an encoder."""
    return atlas.manifest.modality(embedding).name == "image"


def duplicates(state: State, galaxy: galsearch.Galaxy) -> dict[str, str]:
    """Return other rows within SAME_ARCSEC or with the same vector, and which of the two it is."""
    found: dict[str, str] = {}
    ra, dec = galaxy.columns.get("ra"), galaxy.columns.get("dec")
    if panel.links(galaxy):
        rows = state.sql(f"FROM cone({ra!r}, {dec!r}, {SAME_ARCSEC})", most_rows=20).to_pylist()
        found = {row["object_id"]: f"{row['separation_arcsec']:.2f} arcsec away" for row in rows}
    held = [name for name in state.embeddings_of(galaxy.object_id) if is_of_images(state.atlas, name)]
    for hit in (neighbors(state, galaxy.object_id, held[0]) if held else None) or ():
        if hit.score >= SAME_COSINE:
            found.setdefault(hit.object_id, "the same vector")
    found.pop(galaxy.object_id, None)
    return found
