"""Collections: named sets of objects with notes and marks, reviewed with the keyboard."""

from __future__ import annotations

from functools import partial

import pyarrow as pa
import saving
import sketches
import streamlit as st
import widgets
from links import FIRST_K
from panel import literal
from sets import FIRST_NAME, MARK_NAMES, MARKS, MOST_BYTES
from state import PAGE_ROWS, State, current

import galsearch

TITLE, ICON, ORDER = "Collections", ":material/bookmarks:", 5
ALL, UNMARKED = "all", "not marked"
UNLIKE = -0.5  # weight of the false ones together, where the true ones have 1
MOST_EXAMPLES = 50


def needs(atlas: galsearch.Atlas) -> bool:
    """Objects of every atlas can be collected."""
    return True


def show(state: State) -> None:
    """Draw the page."""
    sets = state.sets.all()
    where_kept(state)
    names = list(dict.fromkeys([*sets, state.collection]))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="which"):
        st.session_state.collection = state.collection
        st.selectbox("Collection", names, key="collection", on_change=take_collection, width=320)
        with st.popover("New", icon=":material/add:", key="new_menu"):
            st.text_input("Name", key="new_name", max_chars=60)
            st.button("Create", key="make", on_click=take_new)
        with st.popover("Edit", icon=":material/edit:", key="change_menu"):
            change_menu(state)
        with st.popover("Files", icon=":material/folder:", key="files_menu"):
            files_menu(state)
    if state.problem:
        widgets.failure(state.problem)
    members = sets.get(state.collection, {}).get("members", {})
    if members:
        show_members(state, members)
    else:
        show_nothing(state)


def where_kept(state: State) -> None:
    """Say where collections are kept."""
    if state.sets.kept:
        name = widgets.code(state.sets.path.name)
        st.caption(f"Kept in {name} beside the atlas; the atlas itself is never changed.")
    else:
        st.info(
            "This place is read-only: collections live in this session and are gone with it. Download them under "
            "Files, and import them there again.",
            icon=":material/lock:",
        )


def change_menu(state: State) -> None:
    """Draw how to rename, describe and delete the collection."""
    about = state.sets.all().get(state.collection, {})
    st.session_state.rename_to = state.collection
    st.session_state.set_note = about.get("note", "")
    st.text_input("Rename to", key="rename_to", max_chars=60, on_change=take_rename)
    st.text_area("Note on the collection", key="set_note", max_chars=2000, on_change=take_set_note)
    many = len(about.get("members", {}))
    sure = st.checkbox(f"Yes, delete this collection of {many}", key="sure")
    st.button("Delete", key="delete", disabled=not sure, on_click=take_delete)


def files_menu(state: State) -> None:
    """Draw the file to take collections along in, and to bring them."""
    st.download_button(
        "All collections (JSON)",
        data=state.sets.to_json,
        file_name="galsearch.collections.json",
        mime="application/json",
        icon=":material/download:",
        key="save_sets",
        on_click="ignore",
    )
    upload = st.file_uploader("Import", type=["json"], key="sets_upload", on_change=state.acted)
    if upload and st.session_state.get("sets_taken") != upload.file_id:
        st.session_state.sets_taken = upload.file_id
        take_file(state, upload.getvalue())


def take_file(state: State, content: bytes) -> None:
    """Add the collections of a file; what cannot be read is said."""
    try:
        if len(content) > MOST_BYTES:
            raise galsearch.FormatError(f"the file has {len(content):,} bytes, at most {MOST_BYTES:,} are taken")
        many = state.sets.merge(content.decode("utf-8", errors="replace"))
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    st.toast(f"{many} collections were added", icon=":material/check:")
    st.rerun()


# ---- changes


def take_collection() -> None:
    state = current()
    state.acted()
    state.collection = st.session_state.collection


def take_new() -> None:
    state, name = current(), " ".join(st.session_state.new_name.split())
    if state.attempt(state.sets.create, name):
        state.collection, st.session_state.new_name = name, ""


def take_rename() -> None:
    state, new = current(), " ".join(st.session_state.rename_to.split())
    if new != state.collection and state.attempt(state.sets.rename, state.collection, new):
        state.collection = new


def take_set_note() -> None:
    state = current()
    state.attempt(state.sets.create, state.collection, st.session_state.set_note)


def take_delete() -> None:
    state = current()
    if state.attempt(state.sets.delete, state.collection):
        state.collection, st.session_state.sure = next(iter(state.sets.all()), FIRST_NAME), False


# ---- the members


def show_members(state: State, members: dict[str, dict]) -> None:
    """Draw the members page by page, with their marks and notes."""
    note = state.sets.all()[state.collection]["note"]
    if note:
        st.markdown(widgets.plain(note))
    shown = filtered(members)
    start = page_of(len(shown))
    here = shown[start : start + PAGE_ROWS]
    there = present(state, here)
    st.caption("Focus an image (Tab, arrows) and press y for yes, n for no, u for unsure; again to remove the mark.")
    gone = [name for name in here if name not in there]
    if gone:
        st.warning(f"Not in this atlas: {widgets.plain(', '.join(gone[:20]))}", icon=":material/help:")
    pictures = sketches.faces(state.atlas, list(there))
    tiles = [
        widgets.tile(there[name], pictures.get(name), mark=members[name]["mark"], note=members[name]["note"] or None)
        for name in here
        if name in there
    ]
    on = {"picked": take_picked, "marked": take_marked, "alike": take_alike}
    widgets.gallery(tiles, on, key="members", label=f"{len(tiles)} objects", selected=state.selected)
    if state.selected in members:
        show_member(state, members)
    actions(state, members, shown)


def filtered(members: dict[str, dict]) -> list[str]:
    """Draw the choice of a mark, with counts; return the members that have it."""
    marks = [one["mark"] for one in members.values()]
    counts = {ALL: len(marks), **{mark: marks.count(mark) for mark in MARKS}, UNMARKED: marks.count(None)}
    wanted = st.segmented_control(
        "Show",
        list(counts),
        default=ALL,
        required=True,
        key="mark_filter",
        format_func=lambda name: f"{MARK_NAMES.get(name, name)} {counts[name]:,}",
    )
    mark = None if wanted == UNMARKED else wanted
    return [name for name, one in members.items() if wanted == ALL or one["mark"] == mark]


def page_of(many: int) -> int:
    """Draw the choice of a page where there are several; return its first row."""
    if many <= PAGE_ROWS:
        return 0
    return PAGE_ROWS * (int(st.number_input("Page", 1, -(-many // PAGE_ROWS), key="members_page", width=160)) - 1)


def present(state: State, ids: list[str]) -> dict[str, galsearch.Galaxy]:
    """Return those of the objects that this atlas has."""
    known = [name for name in ids if name in state.atlas]
    return {row["object_id"]: galsearch.Galaxy(row) for row in state.atlas.rows(known).to_pylist()} if known else {}


def take_picked() -> None:
    state, picked = current(), widgets.sent("picked", key="members")
    state.select(None if picked == state.selected else picked)


def take_alike() -> None:
    current().like(widgets.sent("alike", key="members"))
    st.session_state.go_to_search = True


def take_marked() -> None:
    current().mark_all(widgets.sent("marked", key="members"))


def show_member(state: State, members: dict[str, dict]) -> None:
    """Draw the note of the member that is looked at."""
    name = state.selected
    key = f"member_note_{name}"
    st.session_state[key] = members[name]["note"]
    with st.container(horizontal=True, vertical_alignment="bottom", key="member"):
        label = f"Note on {widgets.plain(name)}"
        st.text_input(label, key=key, max_chars=2000, width=480, on_change=take_member_note, args=(name, key))
        if st.button("Open its page", key="open_member"):
            state.goto("object")
        st.button("Remove", key="drop", on_click=take_drop, args=(name,))


def take_member_note(name: str, key: str) -> None:
    state = current()
    state.attempt(state.sets.note, state.collection, name, st.session_state[key])


def take_drop(name: str) -> None:
    state = current()
    if state.attempt(state.sets.drop, state.collection, name):
        state.selected = None


def actions(state: State, members: dict[str, dict], shown: list[str]) -> None:
    """Draw what may be done with the collection, and the files of what is shown of it."""
    if st.session_state.pop("go_to_search", False):
        state.goto("search")
    with st.container(horizontal=True, gap="xsmall", key="set_actions"):
        for label, key, query in searches(state, members, shown):
            if st.button(label, key=key, icon=":material/search:"):
                state.ask(query)
                state.goto("search")
    if not shown:
        return
    st.caption(f"Export of the {len(shown):,} objects shown, with marks and notes:")
    with st.container(horizontal=True, gap="xsmall", key="set_files"):
        for suffix in saving.FIRST:
            saving.file_button(suffix, partial(as_file, state, members, shown, suffix), key=f"set{suffix}")
        with st.popover("More", icon=":material/download:", key="set_formats"):
            for suffix in saving.MORE:
                if suffix != saving.BIBTEX:
                    saving.file_button(suffix, partial(as_file, state, members, shown, suffix), key=f"set{suffix}")
            st.caption("A subset atlas has the objects without marks and notes.")


def searches(state: State, members: dict[str, dict], shown: list[str]) -> list[tuple[str, str, galsearch.Query]]:
    """Return the searches that a collection offers: only the objects shown; more like its ✓, less like its ✗."""
    there = [name for name in list(members)[:1000] if name in state.atlas]
    if not there:
        return []
    here = [name for name in shown[:1000] if name in state.atlas]
    only = (
        galsearch.Query(where=f"object_id IN ({', '.join(map(literal, here))})", k=PAGE_ROWS, distinct=True)
        if here
        else None
    )
    found = [("Search in these", "search_in", only)] if only else []
    true, false = ([one for one in there if members[one]["mark"] == mark][:MOST_EXAMPLES] for mark in ("true", "false"))
    if true:
        terms = [state.like_term(name, round(1 / len(true), 4)) for name in true]
        terms += [state.like_term(name, round(UNLIKE / len(false), 4)) for name in false]
        label = "Find more like my ✓, less like my ✗" if false else "Find more like my ✓"
        found.append((label, "search_like", galsearch.Query(tuple(terms), k=FIRST_K, distinct=True)))
    return found


def as_file(state: State, members: dict[str, dict], shown: list[str], suffix: str) -> bytes:
    """Return the members that are shown as a file of a format, with marks and notes where it holds a table."""
    if suffix == saving.SUBSET:
        known = [name for name in shown if name in state.atlas]
        where = f"object_id IN ({', '.join(map(literal, known))})"
        return state.search(galsearch.Query(where=where, k=max(len(known), 1))).to_bytes(suffix)
    meta = {"title": f"galsearch: collection {state.collection}", "atlas": state.atlas.manifest.title}
    return galsearch.table_bytes(as_table(state, members, shown), suffix, meta=meta)


def as_table(state: State, members: dict[str, dict], shown: list[str]) -> pa.Table:
    """Return object_id, mark, note and marked_at of members, and all columns of those that this atlas has.

    A column of the atlas that has one of these names already keeps it; ours is then called my_mark, and so on.
    """
    known = [name for name in shown if name in state.atlas]
    rows = state.atlas.rows(known or state.atlas.search(k=1).ids)
    place = {name: number for number, name in enumerate(rows["object_id"].to_pylist())}
    rows = rows.take(pa.array([place.get(name) for name in shown], pa.int64())).drop_columns("object_id")
    taken = {name.casefold() for name in rows.column_names}
    own = {
        "mark": [MARK_NAMES.get(members[name]["mark"]) for name in shown],
        "note": [members[name]["note"] or None for name in shown],
        "marked_at": [members[name]["time"] for name in shown],
    }
    table = pa.table({"object_id": pa.array(shown, pa.string())})
    for name, values in own.items():
        table = table.append_column(f"my_{name}" if name in taken else name, pa.array(values, pa.string()))
    for field in rows.schema:
        table = table.append_column(field, rows[field.name])
    return table


def show_nothing(state: State) -> None:
    """Say how objects come in here."""
    st.info(
        f"“{widgets.plain(state.collection)}” is empty. On the page Search, focus a galaxy and press y, n or u, choose "
        "several and add them, or mark one in its panel. Or import a file of collections under Files.",
        icon=":material/bookmark_add:",
    )
