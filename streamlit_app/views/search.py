"""Search: words, plus and minus, pictures, cuts and a cone; the answer as pictures or as a table."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import asking
import phrasing
import streamlit as st
import widgets

import galsearch

TITLE, ICON, ORDER = "Search", ":material/search:", 1
EXAMPLES = (
    "spiral galaxy",
    "edge-on galaxy",
    "elliptical galaxy",
    "barred spiral galaxy",
    "merging galaxies",
    "ring galaxy",
    "blue irregular galaxy",
)
EXAMPLE_CUTS = {  # offered where the atlas has all the columns that are named
    "NOT is_star AND NOT is_artifact": ("is_star", "is_artifact"),
    "axis_ratio < 0.4": ("axis_ratio",),
    "color_gr > 0.5": ("color_gr",),
    "z < 0.05": ("z",),
    "mag_r < 17": ("mag_r",),
}
PICTURES = ["jpg", "jpeg", "png", "webp", "fits", "fit", "fz", "gz"]
SAVED = {"CSV": ("csv", "csv", "text/csv"), "VOTable": ("votable", "vot", "application/x-votable+xml")}


def show(atlas: galsearch.Atlas) -> None:
    """Draw the page."""
    asking.restore(st.query_params, atlas)
    asking.publish(st.query_params, atlas)
    if st.session_state.link_problem:
        st.warning(widgets.plain(st.session_state.link_problem), icon=":material/link_off:")
    words_box()
    with st.container(horizontal=True, gap="xsmall", key="menus"):
        terms_menu(atlas)
        picture_menu(atlas)
        cut_menu(atlas)
        cone_menu(atlas)
        options_menu()
        if asking.current() != asking.NOTHING:
            st.button("Start over", type="tertiary", key="over", on_click=asking.ask, args=(asking.NOTHING,))
    try:
        show_answer(atlas)
    except galsearch.GalsearchError as error:
        widgets.failure(error)


# ---- asking


def words_box() -> None:
    """Draw the box for words and the examples."""
    with st.container(width=900, gap="xsmall"):
        st.text_input(
            "Describe a galaxy",
            key="words",
            type="search",
            placeholder="Describe a galaxy, such as: edge-on disk with a dust lane",
            label_visibility="collapsed",
            icon=":material/search:",
            on_change=take_words,
        )
        st.pills(
            "Examples",
            EXAMPLES,
            key="example",
            label_visibility="collapsed",
            on_change=take_example,
            wrap=False,
        )


def take_words() -> None:
    asking.ask(asking.with_words(asking.current(), st.session_state.words))


def take_example() -> None:
    asking.acted()
    if st.session_state.example:
        asking.ask(asking.with_words(asking.current(), st.session_state.example))
        st.session_state.example = None


def terms_menu(atlas: galsearch.Atlas) -> None:
    """Draw the other terms of the sum, each with its weight, and a row to add one."""
    _, terms = asking.split(asking.current())
    with st.popover("Terms", icon=":material/exposure:", key="terms_menu"):
        st.caption("More of this, less of that. A negative weight means unlike; 0 takes the row out.")
        for place, term in enumerate(terms):
            st.number_input(
                widgets.plain(phrasing.name(term)),
                value=float(term.weight),
                min_value=-5.0,
                max_value=5.0,
                step=0.25,
                key=f"weight_{place}_{hash((term, place))}",
                on_change=take_weight,
                args=(place, f"weight_{place}_{hash((term, place))}"),
            )
        st.text_input("Words or an object_id", key="extra", placeholder="such as: bar")
        with st.container(horizontal=True):
            st.button("Plus", icon=":material/add:", key="plus", on_click=take_extra, args=(atlas, 1.0))
            st.button("Minus", icon=":material/remove:", key="minus", on_click=take_extra, args=(atlas, -0.5))


def take_extra(atlas: galsearch.Atlas, weight: float) -> None:
    asking.acted()
    text = st.session_state.extra.strip()
    if text:
        add_term(galsearch.Term("object" if text in atlas else "text", text, weight))
        st.session_state.extra = ""


def add_term(term: galsearch.Term) -> None:
    asking.change(terms=(*asking.current().terms, term))


def take_weight(place: int, key: str) -> None:
    words, terms = asking.split(asking.current())
    weight = st.session_state[key]
    changed = () if weight == 0 else (replace(terms[place], weight=weight),)
    lead = asking.current().terms[: 1 if words else 0]
    asking.change(terms=(*lead, *terms[:place], *changed, *terms[place + 1 :]))


def picture_menu(atlas: galsearch.Atlas) -> None:
    """Draw the upload; a picture becomes its vector, so that nothing is kept and a link to the search is complete."""
    with st.popover("Picture", icon=":material/image_search:", key="picture_menu"):
        upload = st.file_uploader(
            "Find galaxies like this picture (JPEG, PNG, WebP or FITS)",
            type=PICTURES,
            key="upload",
            on_change=asking.acted,
        )
        if upload is None:
            st.session_state.uploaded = None
            return
        digest = hashlib.sha256(upload.getvalue()).hexdigest()
        if st.session_state.uploaded != digest:
            take_picture(atlas, upload.name, upload.getvalue(), digest)
        elif not upload.name.lower().endswith((".fits", ".fit", ".fz", ".gz")):
            st.image(upload.getvalue(), width=128, alt=f"The uploaded picture {upload.name}")


def take_picture(atlas: galsearch.Atlas, name: str, content: bytes, digest: str) -> None:
    """Ask for galaxies like an uploaded picture; what cannot be read is said in the menu."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"picture{''.join(Path(name).suffixes[-2:])}"
        path.write_bytes(content)
        try:
            vector = atlas.embed(path)
        except galsearch.GalsearchError as error:
            widgets.failure(str(error).replace(str(path), name).replace(path.name, name))
            return
    term = galsearch.Term("embedding", tuple(round(float(value), 5) for value in vector))
    st.session_state.uploaded = digest
    st.session_state.next = replace(asking.current(), terms=(term,))
    st.rerun()


def cut_menu(atlas: galsearch.Atlas) -> None:
    """Draw the SQL condition, how many objects pass it, and the columns it may use."""
    columns = atlas.columns()
    there = set(columns["column"].to_pylist())
    examples = [cut for cut, needed in EXAMPLE_CUTS.items() if there.issuperset(needed)]
    with st.popover("Cut", icon=":material/filter_alt:", key="cut_menu"):
        st.text_input(
            "SQL condition",
            key="where",
            live="400ms",
            placeholder=examples[0] if examples else None,
            on_change=take_where,
            args=(atlas,),
        )
        problem = st.session_state.where_problem
        if problem:
            widgets.failure(problem)
        elif asking.current().where:
            st.caption(f"{passing(atlas):,} of {len(atlas):,} objects pass")
        chosen = {"on_change": take_example_cut, "args": (atlas,)}
        st.pills("Examples", examples, key="example_cut", label_visibility="collapsed", format_func=code, **chosen)
        widgets.column_list(columns)


def code(text: str) -> str:
    """Return `text` as Markdown code."""
    return f"`{text}`"


def take_example_cut(atlas: galsearch.Atlas) -> None:
    if st.session_state.example_cut:
        st.session_state.where, st.session_state.example_cut = st.session_state.example_cut, None
        take_where(atlas)


def take_where(atlas: galsearch.Atlas) -> None:
    """Ask with the condition in the box; one that is not valid (yet) leaves the answer as it is."""
    asking.acted()
    text = st.session_state.where
    try:
        where = text.strip() or None
        atlas.count(where)
    except galsearch.GalsearchError as error:
        st.session_state.where_problem = str(error)
        return
    asking.change(where=where)
    st.session_state.where = text


def passing(atlas: galsearch.Atlas) -> int:
    """Return how many objects pass the cut alone, without the cone; 0 when it is not valid."""
    try:
        return atlas.count(asking.current().where)
    except galsearch.GalsearchError:
        return 0


def cone_menu(atlas: galsearch.Atlas) -> None:
    """Draw the cone on the sky, where the atlas has positions."""
    if not has_positions(asking.fingerprint(atlas), atlas):
        return
    with st.popover("Sky", icon=":material/my_location:", key="cone_menu"):
        st.text_input("Center (ICRS)", key="near", placeholder="189.2 62.2 or 12:36:49 +62:12:58", on_change=take_cone)
        st.number_input("Radius (arcsec)", key="radius_arcsec", min_value=0.0, max_value=648000.0, on_change=take_cone)
        if st.session_state.near_problem:
            widgets.failure(st.session_state.near_problem)


@st.cache_data(max_entries=8, show_spinner=False)
def has_positions(fingerprint: str, _atlas: galsearch.Atlas) -> bool:
    """Say whether any object has a position."""
    return _atlas.count("ra IS NOT NULL") > 0


def take_cone() -> None:
    asking.acted()
    text, radius = st.session_state.near.strip(), st.session_state.radius_arcsec
    try:
        near = galsearch.parse_position(text) if text else None
    except galsearch.GalsearchError as error:
        st.session_state.near_problem = str(error)
        return
    asking.change(near=near, radius_arcsec=radius if near else None)
    st.session_state.near, st.session_state.radius_arcsec = text, radius


def options_menu() -> None:
    """Draw how many to find and how hard to look."""
    with st.popover("Options", icon=":material/tune:", key="options_menu"):
        st.number_input("How many", key="k", min_value=1, max_value=asking.MOST_K, step=12, on_change=take_options)
        st.toggle(
            "Compare every vector",
            key="exact",
            help="Slower in a large atlas, and certain to miss nothing.",
            on_change=take_options,
        )


def take_options() -> None:
    asking.change(k=st.session_state.k, exact=st.session_state.exact)


# ---- the answer


def show_answer(atlas: galsearch.Atlas) -> None:
    """Draw the hits, and the selected object beside them."""
    if st.session_state.answer_problem:
        widgets.failure(st.session_state.answer_problem)
    with st.spinner("Searching", show_time=True):
        hits = asking.answer(atlas)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="summary"):
        st.markdown(summary(hits), width="content")
        st.segmented_control(
            "Show as", asking.VIEWS, key="view", required=True, label_visibility="collapsed", on_change=asking.acted
        )
    if not len(hits):
        show_nothing(atlas)
        return
    selected = st.session_state.selected
    with st.container(key="results"):
        left, right = st.columns([7, 3], gap="medium") if selected else (st.container(), None)
    with left:
        show_hits(hits)
    if right is not None:
        with right, st.container(key="panel"):
            show_object(atlas, selected)
    show_copies(hits, atlas)


def summary(hits: galsearch.Hits) -> str:
    """Return one line of Markdown: how many, of what, under which cuts."""
    query = hits.query
    asked = f"**{widgets.plain(phrasing.formula(query))}**" if query.terms else "by object_id"
    cuts = [f"`{query.where}`"] if query.where else []
    if query.near:
        cuts.append(f"within {query.radius_arcsec:g}″ of {query.near[0]:.5f} {query.near[1]:+.5f}")
    where = f" where {' and '.join(cuts)}" if cuts else ""
    return f"{len(hits):,} of {hits.plan.matches:,} · {asked}{where}"


def show_hits(hits: galsearch.Hits) -> None:
    """Draw one page of hits, and the way to the others."""
    last = (len(hits) - 1) // asking.PAGE_ROWS
    page = min(st.session_state.page, last)
    rows = hits[page * asking.PAGE_ROWS : (page + 1) * asking.PAGE_ROWS]
    if st.session_state.view == "Table":
        show_table(rows)
    else:
        widgets.gallery(rows, selected=st.session_state.selected, picked=take_picked, alike=take_alike)
    if last:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="center"):
            st.button("Previous", key="previous", disabled=page == 0, on_click=turn_to, args=(page - 1,))
            st.caption(f"page {page + 1} of {last + 1}", width="content")
            st.button("Next", key="next_page", disabled=page == last, on_click=turn_to, args=(page + 1,))


def show_table(rows: galsearch.Hits) -> None:
    """Draw hits as a table of the columns that hold anything; selecting a row opens the object."""
    pictures = rows.thumbnails()
    filled = [name for name in rows.table.column_names if rows.table[name].null_count < len(rows)]
    select = {"on_select": partial(take_row, rows.ids), "selection_mode": "single-row", "key": "table"}
    widgets.table(rows.table.select(filled), [pictures.get(name) for name in rows.ids], **select)


def turn_to(page: int) -> None:
    asking.acted()
    st.session_state.page = page


def take_picked() -> None:
    picked = widgets.sent("picked")
    select(None if picked == st.session_state.selected else picked)


def take_alike() -> None:
    take_like(widgets.sent("alike"))


def take_like(object_id: str) -> None:
    """Ask for more like one object, under the same cuts."""
    asking.change(terms=(galsearch.Term("object", object_id),))


def take_row(ids: list[str]) -> None:
    rows = st.session_state.table.selection.rows
    select(ids[rows[0]] if rows else None)


def select(object_id: str | None) -> None:
    """Open the panel of an object, or close it."""
    asking.acted()
    st.session_state.selected = object_id


def show_object(atlas: galsearch.Atlas, object_id: str) -> None:
    """Draw an object's picture, what can be asked of it, and all its columns."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header(widgets.plain(object_id), anchor=False, width="content")
        st.button("Close", icon=":material/close:", type="tertiary", key="close", on_click=select, args=(None,))
    try:
        galaxy = atlas[object_id]
        picture = atlas.thumbnails([object_id]).get(object_id)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    with st.container(horizontal=True, key="portrait"):
        if picture:
            st.image(picture, width="stretch", alt=widgets.describe(galaxy))
        with st.container(gap="xsmall"):
            st.button(
                "More like this", type="primary", key="like", on_click=take_like, args=(object_id,), width="stretch"
            )
            with st.container(horizontal=True, gap="xsmall"):
                for label, weight in (("Plus this", 1.0), ("Minus this", -0.5)):
                    term = galsearch.Term("object", object_id, weight)
                    st.button(label, key=label, on_click=add_term, args=(term,), width="stretch")
    widgets.facts(galaxy, atlas.columns())


def show_nothing(atlas: galsearch.Atlas) -> None:
    """Say why nothing was found, and offer the way out."""
    query = asking.current()
    if query.where and not passing(atlas):
        st.info(
            f"No object passes the cut `{query.where}`. Loosen it, or take it out.", icon=":material/filter_alt_off:"
        )
        st.button("Take the cut out", key="uncut", on_click=asking.change, kwargs={"where": None})
    elif query.near:
        also = " and passes the cut" if query.where else ""
        st.info(
            f"No object lies within {query.radius_arcsec:g} arcsec of the center{also}. Widen the radius, or take the "
            "cone out.",
            icon=":material/location_off:",
        )
        st.button(
            "Take the cone out", key="uncone", on_click=asking.change, kwargs={"near": None, "radius_arcsec": None}
        )
    else:
        st.info("The objects that are left have no vectors to compare; ask for fewer terms.")


def show_copies(hits: galsearch.Hits, atlas: galsearch.Atlas) -> None:
    """Draw how the answer was found, and the ways to take it along."""
    st.caption(phrasing.plan(hits))
    with st.container(horizontal=True):
        for name, (kind, suffix, mime) in SAVED.items():
            st.download_button(
                f"{name}, {len(hits):,} rows",
                data=lambda kind=kind: hits.format(kind),
                file_name=f"galsearch.{suffix}",
                mime=mime,
                icon=":material/download:",
                key=f"save_{kind}",
                on_click="ignore",
            )
    with st.expander("This search as Python, command or SQL", icon=":material/code:", key="copies"):
        python, shell, sql = st.tabs(["Python", "Command", "SQL"])
        python.code(phrasing.as_python(hits.query, atlas.path), language="python")
        shell.code(phrasing.as_shell(hits.query, atlas.path), language="bash", wrap_lines=True)
        sql.code(phrasing.as_sql(hits.query, atlas), language="sql")
        sql.caption("Run it with `atlas.sql(…)` or `galsearch sql`.")
