"""Review: one object at a time, full height, judged with keys; the next one is the one that teaches most."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cuts
import limits
import numpy as np
import panel
import rendering
import saving
import sketches
import streamlit as st
import widgets
from state import State, current

import galsearch

TITLE, ICON, ORDER = "Review", ":material/gavel:", 5.5
KEYS = {"yes": ("Yes", "y"), "no": ("No", "n"), "unsure": ("Unsure", "u")}
UNDO_KEY, SKIP_KEY = "z", "s"
SUGGESTED = ("merging galaxies", "ring galaxy", "gravitational lens", "artifact")
QUEUED = 10  # objects chosen at once; then the probe learns from what was judged meanwhile
SECOND = 0.1  # of them judged by others before, so that agreement can be told
ZOOMS = (1, 2, 3, 4)  # times, about the center
SHOWN = 60  # verdicts of the list below
MOST_KIND = 100
MOST_VERDICTS = 5_000  # of a visitor's session, which nothing but memory keeps
SUFFIXES = (".csv", ".vot")


def needs(atlas: galsearch.Atlas) -> bool:
    """There must be vectors to learn from, and something to look at."""
    return atlas.manifest.main_embedding is not None


def show(state: State) -> None:
    """Draw the page."""
    verdicts = of_session(state)
    kinds = list(verdicts.kinds())
    kind = state.param("kind") or (kinds[0] if kinds else "")
    head(state, verdicts, kind, kinds)
    if state.problem:
        widgets.failure(state.problem)
    if not kind:
        ask_kind(state)
        return
    try:
        row = next_row(state, verdicts, kind)
    except galsearch.QueryError as error:
        widgets.failure(error)
        row = None
    if row is None:
        st.info("Nothing is left to judge within the filter of the search.", icon=":material/check:")
    else:
        judge(state, verdicts, kind, row)
    below(state, verdicts, kind)


# ---- where verdicts are kept


def is_kept(state: State) -> bool:
    """Say whether verdicts are written to a file: not in a public place, where strangers would write on the server."""
    return not limits.PUBLIC and os.access(file_of(state).absolute().parent, os.W_OK)


def file_of(state: State) -> Path:
    """Return the file of the verdicts: the one that `galsearch review start` names, else the one beside the atlas."""
    named = os.environ.get("GALSEARCH_VERDICTS")
    return Path(named) if named else state.atlas.path.with_suffix(".verdicts")


def of_session(state: State) -> galsearch.Verdicts:
    """Return the verdicts that this session sees; those of another atlas are refused in their own words."""
    key = (state.hash, str(file_of(state)) if is_kept(state) else None)
    if st.session_state.get("review_of", (None, None))[0] != key:
        st.session_state.review_of = (key, galsearch.Verdicts(key[1], atlas=state.atlas))
    return st.session_state.review_of[1]


def who(state: State) -> str:
    """Return who judges."""
    return st.session_state.get("review_by") or default_name()


def default_name() -> str:
    """Return the name that is offered: in a public place none of this machine's accounts."""
    return "visitor" if limits.PUBLIC else os.environ.get("GALSEARCH_REVIEWER", "").strip() or _account()


def _account() -> str:
    try:
        return galsearch.reviewer(None)
    except galsearch.GalsearchError:
        return "reviewer"


# ---- what is judged


def head(state: State, verdicts: galsearch.Verdicts, kind: str, kinds: list[str]) -> None:
    """Draw which kind is judged, by whom, and how."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="review_head"):
        every = list(dict.fromkeys([*kinds, *([kind] if kind else [])]))
        if every:
            st.session_state.review_kind = kind
            st.selectbox(
                "Judged for", every, key="review_kind", on_change=take_kind, width=240, format_func=widgets.clean
            )
        with st.popover("New kind", icon=":material/add:", key="review_new"):
            st.text_input("What is judged for", key="review_new_kind", max_chars=MOST_KIND, on_change=take_new_kind)
        if "review_by" not in st.session_state:
            st.session_state.review_by = default_name()
        st.text_input("Reviewer", key="review_by", max_chars=100, width=160, on_change=state.acted)
        st.toggle("Blind", key="review_blind", on_change=state.acted, help="Hides names, scores, reasons and verdicts.")
        if panel.has_table(state.hash, "anomalies", state):
            st.toggle(
                "Odd ones first", key="review_odd", on_change=refill, help="Times novelty of the saved anomalies."
            )
        with st.popover("Start", icon=":material/flag:", key="review_start"):
            st.text_input(
                "Words to start from",
                key="review_words",
                placeholder=kind,
                max_chars=500,
                on_change=refill,
                help="What the ranking begins with, before verdicts change it; the kind unless said.",
            )
    for note in verdicts.notes:
        st.caption(widgets.plain(widgets.public(note)))


def ask_kind(state: State) -> None:
    """Draw the choice of a first kind."""
    st.info("What do you judge objects for? Each kind has a page of its own.", icon=":material/gavel:")
    with st.container(horizontal=True):
        for name in SUGGESTED:
            st.button(name, key=f"review_first_{name}", on_click=set_kind, args=(name,))


def take_kind() -> None:
    set_kind(st.session_state.review_kind)


def take_new_kind() -> None:
    name = " ".join(st.session_state.review_new_kind.split())
    if name:
        st.session_state.review_new_kind = ""
        set_kind(name)


def set_kind(kind: str) -> None:
    """Judge for another kind."""
    current().set_param("kind", kind)
    current().problem = None


def refill() -> None:
    """Choose whom to judge anew."""
    current().acted()
    st.session_state.pop("review_queue", None)


def next_row(state: State, verdicts: galsearch.Verdicts, kind: str) -> dict[str, Any] | None:
    """Return the object to judge now; the queue is chosen anew once it is used up, or what it is made of changes."""
    query, by = state.query, who(state)
    key = (state.hash, kind, by, query.where, query.near, query.radius_arcsec)
    held = st.session_state.get("review_queue")
    if held is None or held[0] != key or not held[1]:
        skipped = st.session_state.setdefault("review_skipped", {}).setdefault(kind, [])
        with limits.turn():
            table = state.atlas.review_queue(
                verdicts,
                kind=kind,
                query=st.session_state.get("review_words") or None,
                novelty=bool(st.session_state.get("review_odd")) or None,
                where=without(query.where, skipped),
                near=query.near,
                radius_arcsec=query.radius_arcsec,
                k=QUEUED,
                reviewer=by,
                second_opinions=SECOND,
            )
        names = [name for name in ("object_id", "reason", "interest", "information") if name in table.column_names]
        held = st.session_state.review_queue = (key, table.select(names).to_pylist())
    mine = {one.object_id for one in verdicts.current(kind, by=by)}
    held[1][:] = [row for row in held[1] if row["object_id"] not in mine]
    return held[1][0] if held[1] else None


def without(where: str | None, skipped: list[str]) -> str | None:
    """Return a filter that leaves out what was skipped."""
    if not skipped:
        return where
    return cuts.added(where, f"object_id NOT IN ({', '.join(map(panel.literal, skipped))})")


# ---- judging


def judge(state: State, verdicts: galsearch.Verdicts, kind: str, row: dict[str, Any]) -> None:
    """Draw the object, the buttons with their keys, and why it is shown."""
    object_id, blind = row["object_id"], bool(st.session_state.get("review_blind"))
    picture, origin = pixels_of(state, object_id, blind=blind)
    left, right = st.columns([3, 1], gap="medium")
    with left, st.container(key="review_picture"):
        frame = st.container()
    with right:
        buttons(state, kind, object_id)
        st.text_input("Note", key=f"review_note_{object_id}", max_chars=2000, on_change=state.acted)
        label_box(state, kind, object_id)
        how = stretch_box(state, object_id)
        if picture is not None:
            st.caption(widgets.plain(f"{picture.shape[1]} × {picture.shape[0]} pixels, {origin}"))
        counts(verdicts, kind, who(state))
        if not blind:
            about(state, verdicts, kind, row)
    with frame:
        draw(state, object_id, picture, how, blind=blind)


def buttons(state: State, kind: str, object_id: str) -> None:
    """Draw what may be said of it; each button has its key."""
    with st.container(horizontal=True, gap="xsmall", key="review_buttons"):
        for verdict, (label, key) in KEYS.items():
            st.button(
                label,
                key=f"review_{verdict}",
                shortcut=key,
                type="primary" if verdict == "yes" else "secondary",
                on_click=take_verdict,
                args=(kind, object_id, verdict),
            )
        st.button(
            "Undo", key="review_undo", shortcut=UNDO_KEY, icon=":material/undo:", on_click=take_undo, args=(kind,)
        )
        st.button("Skip", key="review_skip", shortcut=SKIP_KEY, on_click=take_skip, args=(kind, object_id))


def label_box(state: State, kind: str, object_id: str) -> None:
    """Draw the box for a label in one's own words, which is a verdict too."""
    key = f"review_label_{object_id}"
    st.text_input(
        "Or a label of your own", key=key, max_chars=200, on_change=take_verdict, args=(kind, object_id, "label")
    )


def take_verdict(kind: str, object_id: str, verdict: str) -> None:
    """Keep a verdict and go on to the next; what cannot be kept is said, and the object stays."""
    state = current()
    label = (st.session_state.get(f"review_label_{object_id}") or "").strip() or None
    if verdict == "label" and label is None:
        return
    note = (st.session_state.get(f"review_note_{object_id}") or "").strip() or None
    blind = bool(st.session_state.get("review_blind"))
    verdicts = of_session(state)
    if not is_kept(state) and len(verdicts.all()) >= MOST_VERDICTS:
        state.problem = (
            f"This session holds {MOST_VERDICTS:,} verdicts, which is the most; download them and start anew."
        )
        return
    add = partial(verdicts.add, kind=kind, label=label, note=note, by=who(state), blind=blind)
    if state.attempt(add, object_id, verdict):
        drop(object_id)


def take_undo(kind: str) -> None:
    """Take back the last verdict of this person, and show its object again."""
    state, undone = current(), []
    if state.attempt(lambda: undone.append(of_session(state).undo(by=who(state), kind=kind))) and undone[0]:
        held = st.session_state.get("review_queue")
        if held is not None:
            held[1].insert(0, {"object_id": undone[0].object_id, "reason": "taken back a moment ago"})


def take_skip(kind: str, object_id: str) -> None:
    """Go on without a verdict; it does not come again in this session."""
    current().acted()
    st.session_state.setdefault("review_skipped", {}).setdefault(kind, []).append(object_id)
    drop(object_id)


def drop(object_id: str) -> None:
    """Take an object out of the queue."""
    held = st.session_state.get("review_queue")
    if held is not None:
        held[1][:] = [row for row in held[1] if row["object_id"] != object_id]


# ---- what is seen


def stretch_box(state: State, object_id: str) -> tuple[str, int, bool, bool]:
    """Draw stretch, zoom and inversion, which stay as they are from object to object."""
    with st.container(key="review_stretch"):
        stretch = st.segmented_control(
            "Stretch",
            rendering.STRETCHES,
            default=rendering.STRETCHES[0],
            required=True,
            key="review_bend",
            on_change=state.acted,
        )
        zoom = st.segmented_control(
            "Zoom",
            ZOOMS,
            default=1,
            required=True,
            key="review_zoom",
            format_func=lambda one: f"{one} ×",
            on_change=state.acted,
        )
        with st.container(horizontal=True):
            invert = st.toggle("Invert", key="review_invert", on_change=state.acted)
            smooth = st.toggle("Smooth", True, key="review_smooth", on_change=state.acted)
    return stretch, zoom, invert, smooth


def draw(
    state: State, object_id: str, pixels: np.ndarray | None, how: tuple[str, int, bool, bool], *, blind: bool
) -> None:
    """Draw the picture as high as the window, else the sketch of a spectrum; blind, nothing tells its name."""
    stretch, zoom, invert, smooth = how
    alt = "The object to judge" if blind else widgets.describe(state.atlas[object_id])
    if pixels is None:
        widgets.image(sketches.faces(state.atlas, [object_id]).get(object_id), alt=alt)
        return
    shown = rendering.stretched(zoomed(pixels, zoom), stretch=stretch, low=0.0, high=100.0, invert=invert)
    st.image(rendering.enlarged(shown, max(rendering.SCALES), smooth=smooth), alt=alt)


def pixels_of(state: State, object_id: str, *, blind: bool) -> tuple[np.ndarray | None, str]:
    """Return the picture of an object, `(h, w, 3) uint8`, and where it is from; None without one.

    It is that of its file where that can be read, else the stored one; blind, the file is not named.
    """
    file = rendering.source_file(state.atlas, state.atlas[object_id].columns.get("file"))
    origin = "stored thumbnail"
    if file is not None:
        name = "" if blind else f" {file.name}"
        try:
            return pixels_of_file(state, file), f"picture file{name}"
        except galsearch.GalsearchError as error:
            reason = "" if blind else f": {error}"
            origin += f"; the picture file cannot be read{reason}"
    picture = state.atlas.thumbnails([object_id]).get(object_id)
    return (None if picture is None else galsearch.decode_thumbnail(picture)), origin


def pixels_of_file(state: State, file: Path) -> np.ndarray:
    """Return the picture of a file, which a worker decodes as it does uploads; the last one is kept."""
    try:
        about = file.stat()
    except OSError as error:
        raise galsearch.SchemaError(f"{file.name}: {error.strerror}") from None
    if about.st_size > limits.UPLOAD_BYTES:
        raise galsearch.SchemaError(f"{file.name} has {about.st_size:,} bytes, more than {limits.UPLOAD_BYTES:,}")
    key = (str(file), about.st_mtime_ns, about.st_size)
    held = st.session_state.get("review_file")
    if held is None or held[0] != key:
        with limits.turn():
            held = st.session_state.review_file = (key, state.atlas.render(file))
    return held[1]


def zoomed(pixels: np.ndarray, times: int) -> np.ndarray:
    """Return the central part of a picture."""
    height, width = (max(side // times, 1) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def about(state: State, verdicts: galsearch.Verdicts, kind: str, row: dict[str, Any]) -> None:
    """Draw what it is, why it is shown, and what others say."""
    object_id = row["object_id"]
    panel.link(state, object_id)
    st.caption(f"Why: {widgets.plain(row['reason'])}")
    others = [one for one in verdicts.current(kind) if one.object_id == object_id]
    if others:
        st.caption("Others: " + widgets.plain(", ".join(f"{one.by} {one.verdict}" for one in others)))


def counts(verdicts: galsearch.Verdicts, kind: str, by: str) -> None:
    """Draw how many were judged."""
    mine = [one.verdict for one in verdicts.current(kind, by=by)]
    said = ", ".join(f"{mine.count(one)} {one}" for one in (*KEYS, "label") if one in mine)
    st.caption(f"{len(mine):,} judged by you{': ' + said if said else ''}")


# ---- what came of it


def below(state: State, verdicts: galsearch.Verdicts, kind: str) -> None:
    """Draw agreement, the ranking, the verdicts and their files."""
    files(state, verdicts)
    blind = bool(st.session_state.get("review_blind"))
    if blind or not verdicts.current(kind):
        return
    agreement = verdicts.agreement(kind)
    if agreement.objects:
        st.caption(widgets.plain(agreement))
    if st.toggle("Show the ranking", key="review_ranking", on_change=state.acted):
        ranking(state, verdicts, kind)
    if st.toggle("Show what is judged", key="review_judged", on_change=state.acted):
        table = verdicts.table(kind)
        shown = ["object_id", "verdict", "label", "note", "by", "time", "blind"]
        widgets.table(table.select(shown).slice(max(len(table) - SHOWN, 0)), None)


def ranking(state: State, verdicts: galsearch.Verdicts, kind: str) -> None:
    """Draw the objects of the highest predicted interest that nobody has judged."""
    try:
        with limits.turn():
            table = state.atlas.rank_by_verdicts(
                verdicts, kind=kind, query=st.session_state.get("review_words") or None, where=state.query.where, k=24
            )
    except galsearch.QueryError as error:
        widgets.failure(error)
        return
    pictures = sketches.faces(state.atlas, table["object_id"].to_pylist())
    tiles = [
        widgets.tile(galsearch.Galaxy(row), pictures.get(row["object_id"]), score=f"{row['interest']:.2f}")
        for row in table.to_pylist()
    ]
    widgets.gallery(tiles, {"picked": take_picked}, key="review_gallery", label="Highest predicted interest")


def take_picked() -> None:
    current().select(widgets.sent("picked", key="review_gallery"))


def files(state: State, verdicts: galsearch.Verdicts) -> None:
    """Draw where verdicts are kept, and the files to take along; on one's own machine also to merge."""
    if is_kept(state):
        st.caption(f"Kept in {widgets.code(file_of(state).name)}; the atlas itself is never changed.")
    else:
        st.info("This place keeps no verdicts: they are gone with this session. Download them.", icon=":material/lock:")
    with st.container(horizontal=True, gap="xsmall", key="review_files"):
        for suffix in SUFFIXES:
            content = partial(verdicts.to_bytes, suffix, history=True)
            saving.file_button(suffix, content, key=f"review{suffix}", name="verdicts")
        if not limits.PUBLIC:
            with st.popover("Merge", icon=":material/merge:", key="review_merge"):
                upload = st.file_uploader(
                    "Verdicts of others",
                    type=["verdicts", "csv", "vot", "ecsv"],
                    key="review_upload",
                    on_change=state.acted,
                )
                if upload and st.session_state.get("review_taken") != upload.file_id:
                    st.session_state.review_taken = upload.file_id
                    take_file(verdicts, upload.name, upload.getvalue())


def take_file(verdicts: galsearch.Verdicts, name: str, content: bytes) -> None:
    """Merge a file that was uploaded; what cannot be read is said."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{Path(name).suffix}"
        path.write_bytes(content)
        try:
            merged = verdicts.merge(path)
        except galsearch.GalsearchError as error:
            widgets.failure(str(error).replace(str(path), widgets.clean(name)))
            return
    st.toast(f"{merged.new} new, {merged.known} known already", icon=":material/check:")
