"""Spectra: one of the atlas or of a file of one's own, and the objects whose spectra are most like it, beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import bpt_panel
import limits
import panel
import saving
import sketches
import spectrum_panel
import streamlit as st
import widgets
from drawing import spectrum as drawing
from links import FIRST_K
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Spectra", ":material/ssid_chart:", 2.5
SHOWN = 12  # hits with their spectra
MOST_PIXELS = 20_000  # of an uploaded spectrum that is kept to be drawn
UPLOADS = [".fits", ".fit", ".gz", ".bz2", ".csv", ".tsv", ".txt", ".dat", ".ecsv", ".vot", ".xml", ".parquet"]
AS_IN_FILE = "as the file says"
CHOICES = {  # keyword of galsearch.read_spectrum -> (its label, what can be chosen)
    "wavelength_unit": ("Unit of wavelength", (AS_IN_FILE, "Angstrom", "nm", "um", "log10(Angstrom)")),
    "medium": ("Medium", (AS_IN_FILE, "vacuum", "air")),
    "frame": ("Frame", (AS_IN_FILE, "observed", "rest")),
}
TEXTS = {  # keyword -> (its label, its help)
    "flux_unit": ("Unit of flux", "Such as 1e-17 erg/s/cm2/Angstrom or Jy; relative where it is not calibrated."),
    "wavelength": ("Column of wavelength", None),
    "flux": ("Column of flux", None),
    "error": ("Column of error", None),
    "row": ("Which spectrum", "Of a file of several: its number from 0, or its id."),
    "hdu": ("HDU", "Of a FITS file of several tables: its name, or its number from 0."),
}
COLUMNS = ("z", "mag_r", "ra", "dec")  # of the catalog beside a hit, first
POSITION = ("ra", "dec")
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Upload:
    """A spectrum that somebody sent: `term` searches by it, `problem` says why that or reading it is not possible."""

    key: tuple[Any, ...]
    name: str
    spectrum: galsearch.Spectrum | None = None
    term: galsearch.Term | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Subject:
    """What others are compared with: the spectrum of an object, or an uploaded one, whose `object_id` is None."""

    name: str
    spectrum: galsearch.Spectrum
    term: galsearch.Term | None
    object_id: str | None = None


def needs(atlas: galsearch.Atlas) -> bool:
    """There must be spectra."""
    return sketches.embedding(atlas) is not None


def show(state: State) -> None:
    """Draw the page."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="spectra_choice"):
        upload = upload_menu(state)
        object_id = (state.selected or first(state)) if upload is None else None
        if upload is None:
            choose_box(object_id or "")
    subject = of_object(state, object_id) if upload is None else of_upload(state, upload)
    if subject is None:
        return
    st.header(widgets.plain(subject.name), anchor=False)
    plot = st.container()
    hits = similar(state, subject)
    beside = choose_beside(state, hits)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", key="spectra_actions"):
        actions(state, subject)
    with plot:
        spectrum_panel.show(state, subject.name, subject.spectrum, beside)
    if hits is not None:
        show_bpt(state, subject, hits, list(beside))
        show_hits(state, subject, hits)


# ---- an object


def choose_box(object_id: str) -> None:
    """Draw the box for an id or a name."""
    if st.session_state.get("spectra_shown") != object_id or "spectra_id" not in st.session_state:
        st.session_state.spectra_id = st.session_state.spectra_shown = object_id
    st.text_input("object_id", key="spectra_id", width=260, on_change=take_id)


def take_id() -> None:
    """Look at the object of an id or a name."""
    state, text = current(), st.session_state.spectra_id.strip()
    named = state.atlas.lookup(text)
    state.select(named.ids[0] if len(named.ids) == 1 else text or None)


def first(state: State) -> str | None:
    """Return the first of the results that has a spectrum; of a query that is refused, of the one before."""
    try:
        hits = state.hits()
    except galsearch.GalsearchError:
        hits = state.earlier()
    ids = [] if hits is None else hits.ids[:SHOWN]
    held = state.atlas.spectra(ids)
    return next((name for name in ids if name in held), None)


def of_object(state: State, object_id: str | None) -> Subject | None:
    """Return the object that is looked at, or say that there is none, or none of its spectrum."""
    if object_id is None:
        st.info("None of the first results has a spectrum: enter an object_id, or upload a spectrum.")
        return None
    spectrum = spectrum_panel.of(state, state.atlas[object_id].object_id)
    if spectrum is None:
        st.info(
            f"{widgets.plain(object_id)} has no spectrum in this atlas. Enter another object_id, or upload a spectrum.",
            icon=":material/hide_image:",
        )
        return None
    term = state.like_term(object_id, by=sketches.embedding(state.atlas))
    return Subject(object_id, spectrum, term, object_id)


# ---- an upload


def upload_menu(state: State) -> Upload | None:
    """Draw the upload and what to state of it; return what was made of the file, None without one."""
    with st.popover("Upload a spectrum", icon=":material/upload:", key="spectra_menu"):
        upload = st.file_uploader(
            f"FITS, CSV, ECSV, VOTable, Parquet, plain or in gzip, up to {limits.UPLOAD_BYTES // 10**6} MB",
            type=UPLOADS,
            key="spectra_upload",
            on_change=state.acted,
        )
    if upload is None:
        st.session_state.pop("spectra_read", None)
        return None
    content, stated = upload.getvalue(), statements()
    key = (state.hash, hashlib.sha256(content).hexdigest(), upload.name, tuple(stated.items()))
    kept = st.session_state.get("spectra_read")
    if kept is None or kept.key != key:
        with st.spinner("Reading the spectrum"):
            st.session_state.spectra_read = kept = read(state, key, content, stated)
    return kept


def statements() -> dict[str, Any]:
    """Return what is stated of the file, as `galsearch.read_spectrum` takes it; `form` draws where."""
    values = {name: st.session_state.get(f"state_{name}") for name in ("z", *CHOICES, *TEXTS)}
    values = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
    return {name: value for name, value in values.items() if value not in (None, "", AS_IN_FILE)}


def form(state: State, upload: Upload) -> None:
    """Draw what a file may leave open; opened where something is missing."""
    missing = upload.problem is not None
    with (
        st.expander("What the file does not say", icon=":material/edit:", expanded=missing, key=f"stated_{missing}"),
        st.container(horizontal=True, gap="small", key="spectra_stated"),
    ):
        st.number_input(
            "Redshift", -0.99, 20.0, None, 0.01, "%.5f", key="state_z", width=170, on_change=state.acted,
            placeholder=AS_IN_FILE,
        )  # fmt: skip
        for name, (label, options) in CHOICES.items():
            st.selectbox(label, options, key=f"state_{name}", width=170, on_change=state.acted)
        for name, (label, about) in TEXTS.items():
            st.text_input(label, key=f"state_{name}", width=170, max_chars=80, help=about, on_change=state.acted)


def read(state: State, key: tuple[Any, ...], content: bytes, stated: dict[str, Any]) -> Upload:
    """Return what an uploaded file holds, and the term that searches by it; nothing of its name is a path."""
    name = widgets.clean(key[2])
    if len(content) > limits.UPLOAD_BYTES:
        problem = f"{name} has {len(content):,} bytes, at most {limits.UPLOAD_BYTES:,} are taken; cut it out"
        return Upload(key, name, problem=problem)
    try:
        with limits.turn():
            whole = state.atlas.read_spectrum(content, name=name, **stated)
    except galsearch.GalsearchError as error:
        return Upload(key, name, problem=str(error))
    shown = drawing.fewer(whole, MOST_PIXELS)
    embedding = sketches.embedding(state.atlas)
    try:
        with limits.turn():
            vector = state.atlas.embed(whole, by=embedding)
    except galsearch.GalsearchError as error:
        return Upload(key, name, shown, problem=str(error))
    term = galsearch.Term("embedding", tuple(round(float(value), 5) for value in vector), by=embedding)
    return Upload(key, name, shown, term)


def of_upload(state: State, upload: Upload) -> Subject | None:
    """Say what is wrong with an upload, and draw where to state what is missing; return its spectrum."""
    if upload.problem is not None:
        widgets.failure(upload.problem)
    form(state, upload)
    if upload.spectrum is None:
        return None
    for note in upload.spectrum.notes[: spectrum_panel.MOST_NOTES]:
        st.caption(f":material/info: {widgets.plain(note)}")
    return Subject(upload.name, upload.spectrum, upload.term)


# ---- what is like it


def similar(state: State, subject: Subject) -> galsearch.Hits | None:
    """Return the objects whose spectra are most like one, under the filters of the search; None where it has no vector.

    They are kept while the subject, the filters and the atlas stay as they are.
    """
    if subject.term is None:
        return None
    asked = state.query
    # not distinct: two objects without positions may have spectra that are one to an encoder
    query = replace(asked, terms=(subject.term,), k=SHOWN, hybrid=None, combine="mean", distinct=False)
    held = st.session_state.get("spectra_hits")
    if held is None or held[0] != (state.hash, query):
        try:
            st.session_state.spectra_hits = held = ((state.hash, query), state.search(query))
        except galsearch.GalsearchError as error:
            widgets.failure(error)
            return None
    return held[1]


def choose_beside(state: State, hits: galsearch.Hits | None) -> dict[str, galsearch.Spectrum]:
    """Draw which of the hits to draw over the spectrum; return their spectra."""
    if hits is None or not len(hits):
        return {}
    return spectrum_panel.choose_beside(state, hits.ids, key="spectra_beside")


def actions(state: State, subject: Subject) -> None:
    """Draw what may be done with the spectrum."""
    if subject.term is not None and st.button(
        "Show in Search", type="primary", icon=":material/search:", key="spectra_search"
    ):
        state.change(terms=(subject.term,), k=FIRST_K)
        state.goto("search")
    if subject.object_id is not None and st.button(
        "Open the object", icon=":material/open_in_full:", key="spectra_open"
    ):
        state.select(subject.object_id)
        state.goto("object")
    if subject.object_id is not None:
        spectrum_panel.files(subject.name, subject.spectrum)


def show_bpt(state: State, subject: Subject, hits: galsearch.Hits, beside: list[str]) -> None:
    """Draw where the subject and its hits lie on the BPT diagram, where their lines allow."""
    marked = bpt_panel.points(state, [*([] if subject.object_id is None else [subject.object_id]), *hits.ids])
    if not marked:
        return
    with st.expander("BPT diagram", icon=":material/bubble_chart:", key="spectra_bpt"):
        without = len(hits) + (subject.object_id is not None) - len(marked)
        with st.container(width=720):
            bpt_panel.show(state, marked, name=subject.object_id or "", beside=beside, without=without)


def show_hits(state: State, subject: Subject, hits: galsearch.Hits) -> None:
    """Draw the hits, each with its spectrum before that of the subject, and the files of all of them."""
    st.header("Most alike", anchor=False)
    cut = f" that pass {widgets.code(state.query.where)}" if state.query.where else ""
    cone = " within the cone of the search" if state.query.near else ""
    if not len(hits):
        st.info(f"No other object{cut}{cone} has a spectrum to compare.")
        return
    frame = "as observed" if compared_in(state.atlas) == drawing.OBSERVED else "at rest"
    st.caption(
        f"{len(hits)} best of {hits.plan.matches:,} objects{cut}{cone}, compared {frame}. Gray is the spectrum above, "
        "and both are divided by their medians. The score is a cosine: 1 where the encoder sees no difference."
    )
    held = state.atlas.spectra(hits.ids)
    pictures = state.atlas.thumbnails(hits.ids)
    columns = listed(hits)
    for number, hit in enumerate(hits, start=1):
        with st.container(key=f"spectra_hit_{number}"):
            drawn, about = st.columns([7, 3], gap="small", vertical_alignment="center")
            with drawn:
                spectrum_panel.sketch(hit.object_id, held.get(hit.object_id), subject.name, subject.spectrum)
            with about:
                show_about(state, hit, pictures.get(hit.object_id), columns)
    saving.show(hits)


def compared_in(atlas: galsearch.Atlas) -> str:
    """Return the frame that spectra are compared in."""
    return atlas.manifest.embeddings[sketches.embedding(atlas)].get("frame") or drawing.REST


def listed(hits: galsearch.Hits) -> list[str]:
    """Return the columns to write beside a hit: the usual ones first, of those that hold anything."""
    left_out = ("object_id", "score", "copies", "file", "spectrum_file")
    names = [one for one in hits.table.column_names if one not in left_out and hits.table[one].null_count < len(hits)]
    return sorted(names, key=lambda name: (*COLUMNS, name).index(name))[:MOST_COLUMNS]


def show_about(state: State, hit: galsearch.Hit, picture: bytes | None, columns: list[str]) -> None:
    """Draw the way to the page of a hit, its image where there is one, its score and columns."""
    with st.container(horizontal=True, gap="small", vertical_alignment="center", wrap=False):
        if picture is not None:
            widgets.image(picture, width_px=72, alt=widgets.describe(hit))
        with st.container(gap="xxsmall"):
            panel.link(state, hit.object_id)
            values = [
                f"{one} {widgets.shown(value, place=one in POSITION)}"
                for one in columns
                if (value := hit.columns[one]) is not None
            ]
            score = "" if hit.score is None else f"score {hit.score:.4f}"
            copies = hit.columns.get("copies") or 1
            values += [f"{copies} copies"] if copies > 1 else []
            st.caption(widgets.plain(" · ".join(filter(None, [score, *values]))))
