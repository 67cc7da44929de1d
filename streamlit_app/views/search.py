"""Search: words, plus and minus, images; the results as images or as a table, with the filters beside them."""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import filters
import limits
import panel
import phrasing
import reading
import rendering
import saving
import sketches
import streamlit as st
import widgets
from links import FIRST_K, NOTHING
from state import PAGE_ROWS, VIEWS, State, current

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
OF_SPECTRA = (
    "strong [O III] emission",
    "broad-line quasar",
    "passive galaxy",
    "post-starburst galaxy",
    "star-forming galaxy",
    "double-peaked lines",
)
DESCRIBE = "Describe a galaxy (edge-on disk with a dust lane), or give an ID, name or position"
DESCRIBE_SPECTRUM = "Describe a spectrum (strong [O III] emission), or give an ID, name or position"
WORDLESS = (
    "This atlas compares spectra, and words cannot be compared with them. Name an object and look for more like it, "
    "filter by the columns, or compare a spectrum of your own on the page Spectra."
)
PLURALS = {"image": "pictures", "spectrum": "spectra"}  # what words describe, by the embedding
MOST_SHOWN_TERMS = 20  # of a sum, in the menu; a collection makes up to 100
MOST_ECHO_BYTES = 2_000_000  # of an uploaded image that is shown again


def needs(atlas: galsearch.Atlas) -> bool:
    """Every atlas can be searched."""
    return True


def show(state: State) -> None:
    """Draw the page."""
    fill(state)
    words_box(state)
    with st.container(horizontal=True, gap="xsmall", key="menus"):
        terms_menu(state)
        if sketches.has_images(state.atlas) or sketches.embedding(state.atlas) is None:
            picture_menu(state)
        if "spectra" in state.pages and st.button("Spectrum", icon=":material/ssid_chart:", key="to_spectra"):
            state.goto("spectra")
        options_menu(state)
        link_menu(state)
        if state.query != NOTHING:
            st.button("Start over", type="tertiary", key="over", on_click=state.ask, args=(NOTHING,))
    if state.problem:
        widgets.failure(state.problem)
    show_answer(state)
    with st.sidebar:
        filters.show(state)


def fill(state: State) -> None:
    """Put what is asked into the widgets, where the question changed or another page was drawn in between."""
    if "words" in st.session_state and getattr(state, "filled", None) == state.revision:
        return
    query = state.query
    st.session_state.words = reading.words_of(query)[0]
    kinds = sketches.worded(state.atlas)
    stated = reading.words_by(query) or (st.session_state.get("words_by") if not st.session_state.words else None)
    st.session_state.words_by = stated if stated in kinds else next(iter(kinds), None)
    st.session_state.k, st.session_state.exact = min(query.k, limits.MOST_K), query.exact
    st.session_state.distinct, st.session_state.hybrid = query.distinct, query.hybrid is not None
    st.session_state.uploaded = st.session_state.get("uploaded")
    filters.fill(state)
    state.filled = state.revision


# ---- asking


def words_box(state: State) -> None:
    """Draw the box for words, the examples, and how the words were read."""
    worded = sketches.knows_words(state.atlas)
    spectra = sketches.of_spectra(state.atlas, chosen_by(state))
    describe = DESCRIBE_SPECTRUM if spectra else DESCRIBE
    with st.container(width=900, gap="xsmall"):
        st.text_input(
            "Describe a galaxy" if worded else "Find an object",
            key="words",
            type="search",
            placeholder=describe if worded else "Give an ID, name or position",
            label_visibility="collapsed",
            icon=":material/search:",
            on_change=take_words,
        )
        if not worded:
            if not state.query.terms:
                st.caption(WORDLESS)
            return
        kinds = sketches.worded(state.atlas)
        if len(kinds) > 1:
            st.segmented_control(
                "Words describe",
                kinds,
                key="words_by",
                format_func=lambda name: f"Words for {PLURALS.get(name, name)}",
                label_visibility="collapsed",
                on_change=take_words_by,
            )
        if not state.query.terms:
            examples = OF_SPECTRA if spectra else EXAMPLES
            st.pills(
                "Examples", examples, key="example", label_visibility="collapsed", on_change=take_example, wrap=False
            )
        reading.show_understanding(state)


def chosen_by(state: State) -> str | None:
    """Return the embedding that words of the box are compared in; None for the main one."""
    chosen = st.session_state.get("words_by")
    return None if chosen == state.atlas.manifest.main_embedding else chosen


def take_words_by() -> None:
    """Compare the words in another embedding; what is unchosen is the main one."""
    state = current()
    by, (words, _) = chosen_by(state), reading.words_of(state.query)
    if words:
        state.ask(reading.with_words(state.query, words, by=by))


def take_words() -> None:
    state = current()
    state.ask(reading.with_words(state.query, st.session_state.words, by=chosen_by(state)))
    state.set_param(reading.AS, None)
    named = reading.named(state)
    if named is not None and len(named.candidates) == 1:
        state.select(named.candidates[0].object_id)


def take_example() -> None:
    state = current()
    if st.session_state.example:
        state.ask(reading.with_words(state.query, st.session_state.example, by=chosen_by(state)))
        st.session_state.example = None


def terms_menu(state: State) -> None:
    """Draw the other terms of the sum, each with its weight, and a row to add one."""
    _, terms = reading.words_of(state.query)
    with st.popover("Plus / minus", icon=":material/exposure:", key="terms_menu"):
        st.caption("More of this, less of that. A negative weight means unlike; 0 removes the term.")
        if len(terms) > MOST_SHOWN_TERMS:
            st.caption(f"The first {MOST_SHOWN_TERMS} of {len(terms)} terms are shown.")
        for place, term in enumerate(terms[:MOST_SHOWN_TERMS]):
            key = f"weight_{place}_{hash((term, place))}"
            st.number_input(
                widgets.plain(phrasing.name(term)),
                value=float(term.weight),
                min_value=-5.0,
                max_value=5.0,
                step=0.25,
                key=key,
                on_change=take_weight,
                args=(place, key),
            )
        worded = sketches.knows_words(state.atlas)
        label = "Words, or the ID or name of an object" if worded else "ID or name of an object"
        st.text_input(label, key="extra", placeholder="such as: bar" if worded else None)
        with st.container(horizontal=True):
            st.button("Plus", icon=":material/add:", key="plus", on_click=take_extra, args=(1.0,))
            st.button("Minus", icon=":material/remove:", key="minus", on_click=take_extra, args=(panel.MINUS,))
        if state.query.terms:
            st.markdown(f"**{widgets.plain(phrasing.formula(state.query))}**")


def take_extra(weight: float) -> None:
    state, text = current(), st.session_state.extra.strip()
    state.acted()
    if text:
        named = state.atlas.lookup(text).ids
        one = named[0] if len(named) == 1 else None
        words = galsearch.Term("text", text, weight, chosen_by(state))
        state.add_term(words if one is None else state.like_term(one, weight))
        st.session_state.extra = ""


def take_weight(place: int, key: str) -> None:
    state = current()
    words, terms = reading.words_of(state.query)
    weight = st.session_state[key]
    changed = () if weight == 0 else (replace(terms[place], weight=weight),)
    lead = state.query.terms[: 1 if words else 0]
    state.change(terms=(*lead, *terms[:place], *changed, *terms[place + 1 :]))


def picture_menu(state: State) -> None:
    """Draw the upload; a picture becomes its vector, so that nothing is kept and a link to the search is complete."""
    with st.popover("Image", icon=":material/image_search:", key="picture_menu"):
        upload = st.file_uploader(
            f"Find galaxies like this image ({galsearch.PICTURE_FORMATS}, up to {limits.UPLOAD_BYTES // 10**6} MB)",
            type=rendering.UPLOADS,
            key="upload",
            on_change=state.acted,
        )
        if upload is None:
            st.session_state.uploaded = None
            return
        digest = hashlib.sha256(upload.getvalue()).hexdigest()
        if st.session_state.uploaded != digest:
            take_picture(state, upload.name, upload.getvalue(), digest)
        elif widgets.image_kind(upload.getvalue()[:16]):  # one that a browser can show
            shown = upload.getvalue() if upload.size <= MOST_ECHO_BYTES else None
            widgets.image(shown, width_px=128, alt=f"The uploaded image {upload.name}")


def take_picture(state: State, name: str, content: bytes, digest: str) -> None:
    """Ask for galaxies like an uploaded picture; what cannot be read is said in the menu."""
    if len(content) > limits.UPLOAD_BYTES:
        widgets.failure(f"{name} has {len(content):,} bytes, at most {limits.UPLOAD_BYTES:,} are taken; cut it out")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / digest  # nothing of the name is used: the content says what it is
        path.write_bytes(content)
        try:
            with limits.turn():
                vector = state.atlas.embed(path)
        except galsearch.GalsearchError as error:
            widgets.failure(str(error).replace(str(path), name).replace(path.name, name))
            return
    term = galsearch.Term("embedding", tuple(round(float(value), 5) for value in vector))
    st.session_state.uploaded = digest
    state.change(terms=(term,), k=FIRST_K)
    st.rerun()


def options_menu(state: State) -> None:
    """Draw how many to find, how hard to look, and what counts."""
    with st.popover("Options", icon=":material/tune:", key="options_menu"):
        st.number_input("How many", key="k", min_value=1, max_value=limits.MOST_K, step=12, on_change=take_options)
        st.toggle(
            "Collapse duplicates",
            key="distinct",
            help="Objects within 2 arcsec of each other, or with one and the same vector, are shown once.",
            on_change=take_options,
        )
        if sketches.knows_words(state.atlas):
            st.toggle(
                "Match names and captions too",
                key="hybrid",
                help="The ranking by vectors is fused with one by the words of names and captions.",
                on_change=take_options,
            )
        st.toggle(
            "Exact search",
            key="exact",
            help="Compares every vector: slower in a large atlas, and misses nothing.",
            on_change=take_options,
        )


def take_options() -> None:
    said = st.session_state
    current().change(k=said.k, exact=said.exact, distinct=said.distinct, hybrid="rank" if said.get("hybrid") else None)


def link_menu(state: State) -> None:
    """Draw the link that brings back all of this."""
    with st.popover("Link", icon=":material/link:", key="link_menu"):
        st.caption(f"Copy link. It holds the whole state, and the atlas's hash {state.hash}.")
        link = state.permalink()
        if link:
            st.code(link, language=None, wrap_lines=True)
        else:
            st.caption("Nothing is searched yet: the address of the app is the link.")


# ---- the answer


def show_answer(state: State) -> None:
    """Draw the results; where the query is refused, those of the query before it, marked as such."""
    named = reading.named(state)
    if named is not None:
        show_named(state, named)
        return
    try:
        with st.spinner("Searching", show_time=True):
            hits = state.hits()
    except galsearch.GalsearchError as error:
        if sketches.knows_words(state.atlas) or not any(term.kind == "text" for term in state.query.terms):
            widgets.failure(error)
        else:
            st.info(wordless(state), icon=":material/help:")
        hits = state.earlier()
        if hits is None:
            return
        st.warning(f"Results of the previous query: {asked_text(hits.query)}", icon=":material/history:")
    show_results(state, hits, summary(hits))


def wordless(state: State) -> str:
    """Say why words have no results where vectors are of spectra."""
    words = ", ".join(f"“{widgets.plain(term.value)}”" for term in state.query.terms if term.kind == "text")
    return f"{words} is no ID, name or position in this atlas. {WORDLESS}"


def show_named(state: State, named: galsearch.Lookup) -> None:
    """Draw the objects that the words name, before any image is compared, and the ways to go on from them."""
    query, first = state.query, named.candidates[0].object_id if len(named.candidates) == 1 else None
    st.info(widgets.plain(str(named)), icon=":material/my_location:")
    with st.container(horizontal=True, gap="xsmall", key="named"):
        if first is not None:
            st.button("More like this", key="named_like", type="primary", on_click=state.like, args=(first,))
        if named.position is not None and named.has_positions:
            cone = {
                "terms": (),
                "near": named.position,
                "radius_arcsec": max(named.radius_arcsec, filters.RADIUS_ARCSEC),
            }
            st.button("Filter to this position", key="named_cone", on_click=state.change, kwargs=cone)
        if named.nearest is not None and not named.candidates:
            st.button("Open the nearest", key="named_near", on_click=state.select, args=(named.nearest.object_id,))
        st.button("Search it as words", key="named_words", on_click=state.set_param, args=(reading.AS, reading.WORDS))
    try:
        with limits.turn():
            cone = {"near": query.near, "radius_arcsec": query.radius_arcsec}
            hits = state.atlas.candidates(named, where=query.where, k=query.k, **cone)
    except galsearch.GalsearchError as error:
        widgets.failure(error)
        return
    left = len(named.candidates) - len(hits)
    also = f" · {left:,} more do not pass the filters" if left else ""
    objects = "object" if len(hits) == 1 else "objects"
    show_results(state, hits, f"{len(hits):,} {objects} named **{widgets.plain(named.text)}**{also}")


def show_results(state: State, hits: galsearch.Hits, head: str) -> None:
    """Draw the hits, and the selected object beside them."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="summary"):
        st.markdown(head, width="content")
        st.session_state.view = state.view
        st.segmented_control(
            "Show as", VIEWS, key="view", required=True, label_visibility="collapsed", on_change=take_view
        )
    if not len(hits):
        if state.answered:
            show_nothing(state)
        return
    if state.answered:
        reading.show_refinements(state, hits)
    with st.container(key="results"):
        left, right = st.columns([7, 3], gap="medium") if state.selected else (st.container(), None)
    with left:
        pictures_ms = show_hits(state, hits)
    if right is not None:
        with right, st.container(key="panel"):
            panel.show_beside(state, state.selected)
    st.caption(f"{phrasing.plan(hits)} · {phrasing.stages(hits, pictures_ms=pictures_ms)}")
    saving.show(hits)
    with st.expander("This search as Python, command or SQL", icon=":material/code:", key="copies"):
        saving.copies(state, hits.query)


def take_view() -> None:
    current().show_as(st.session_state.view)


def summary(hits: galsearch.Hits) -> str:
    """Return one line of Markdown: how many, of what, under which cuts."""
    query = hits.query
    if not query.terms:
        return f"First {len(hits):,} of {hits.plan.matches:,}, sorted by ID{where_text(query)}"
    return f"{len(hits):,} of {hits.plan.matches:,} · {asked_text(query)}"


def asked_text(query: galsearch.Query) -> str:
    """Return a query as one line of Markdown."""
    formula = f"**{widgets.plain(phrasing.formula(query))}**" if query.terms else "all objects, sorted by ID"
    return f"{formula}{where_text(query)}"


def where_text(query: galsearch.Query) -> str:
    """Return the filters of a query as the end of a line of Markdown."""
    cuts = [widgets.code(query.where)] if query.where else []
    if query.near:
        cuts.append(f"within {query.radius_arcsec:g}″ of {widgets.position(*query.near)}")
    return f" where {' and '.join(cuts)}" if cuts else ""


def show_hits(state: State, hits: galsearch.Hits) -> float:
    """Draw one page of hits, and the way to the others; return how long its pictures took, in milliseconds."""
    last = (len(hits) - 1) // PAGE_ROWS
    page = min(state.page, last)
    rows = hits[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]
    selection_bar(state)
    started = time.perf_counter()
    pictures = sketches.faces(state.atlas, rows.ids)
    took = (time.perf_counter() - started) * 1e3
    if state.view == "Table":
        show_table(state, rows, pictures)
    else:
        show_gallery(state, hits, rows, pictures, first=page * PAGE_ROWS)
    more_row(state, hits, page, last)
    return took


def show_gallery(
    state: State, hits: galsearch.Hits, rows: galsearch.Hits, pictures: dict[str, bytes | str], *, first: int
) -> None:
    """Draw hits as tiles with score, percentile, copies and mark, and the line under which matches are weaker."""
    ranks, marked = rows.percentiles, state.sets.members(state.collection)
    captions = panel.captions(state, rows.ids)
    reasons = rows.reasons()
    tiles = []
    for place, hit in enumerate(rows):
        copies = hit.columns.get("copies") or 1
        tiles.append(
            widgets.tile(
                hit,
                pictures.get(hit.object_id),
                score=None if hit.score is None else f"{hit.score:.3f}",
                rank=None if ranks is None else widgets.rank(float(ranks[place])),
                copies=f"{copies} copies" if copies > 1 else None,
                why=" · ".join(reasons[place]) or None,
                alt=captions.get(hit.object_id),
                mark=marked.get(hit.object_id, {}).get("mark"),
            )
        )
    line = weaker_from(hits)
    line = None if line is None else line - first
    on = {"picked": take_picked, "alike": take_alike, "chosen": take_chosen, "marked": take_marked}
    widgets.gallery(
        tiles,
        on,
        label=f"{len(tiles)} galaxies, best first",
        selected=state.selected,
        chosen=state.chosen,
        line=line if line is not None and 0 <= line < len(tiles) else None,
    )


def weaker_from(hits: galsearch.Hits) -> int | None:
    """Return the place of the first hit from which on all are below the threshold; None where no line is drawn.

    There is none above the first hit, where it would call the best that there is weak, and none in an order that is
    not that of the scores the threshold is for: names and captions count there too.
    """
    convincing = hits.convincing
    if not convincing or hits.query.hybrid is not None or hits.reranked is not None:
        return None
    return convincing if (hits.scores[:-1] >= hits.scores[1:]).all() else None


def take_picked() -> None:
    state, picked = current(), widgets.sent("picked")
    state.select(None if picked == state.selected else picked)


def take_alike() -> None:
    current().like(widgets.sent("alike"))


def take_chosen() -> None:
    current().choose(widgets.sent("chosen"))


def take_marked() -> None:
    current().mark_all(widgets.sent("marked"))


def selection_bar(state: State) -> None:
    """Draw what may be done with the objects that are chosen."""
    if not state.chosen:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="selection"):
        st.markdown(f"**{len(state.chosen)} chosen**", width="content")
        st.button("More like these", key="like_chosen", on_click=take_like_chosen)
        name = widgets.plain(state.collection)
        st.button(f"Add to “{name}”", key="add_chosen", on_click=take_add_chosen)
        st.button("Only these", key="only_chosen", on_click=take_only_chosen)
        st.button("Clear", key="clear_chosen", type="tertiary", on_click=take_clear_chosen)


def take_like_chosen() -> None:
    state = current()
    state.change(terms=tuple(map(state.like_term, state.chosen)), k=FIRST_K)


def take_add_chosen() -> None:
    state = current()
    state.acted()
    if not state.attempt(state.sets.add, state.collection, list(state.chosen)):
        return
    state.chosen = ()
    st.toast(f"Added to “{widgets.plain(state.collection)}”", icon=":material/bookmark_added:")


def take_only_chosen() -> None:
    state = current()
    state.add_cut(f"object_id IN ({', '.join(panel.literal(one) for one in state.chosen)})")


def take_clear_chosen() -> None:
    state = current()
    state.acted()
    state.chosen = ()


def show_table(state: State, rows: galsearch.Hits, pictures: dict[str, bytes | str]) -> None:
    """Draw hits as a table of the columns that hold anything; selecting a row opens the object."""
    filled = [name for name in rows.table.column_names if rows.table[name].null_count < len(rows)]
    select = {"on_select": partial(take_row, rows.ids), "selection_mode": "single-row", "key": "table"}
    widgets.table(rows.table.select(filled), [pictures.get(name) for name in rows.ids], **select)


def take_row(ids: list[str]) -> None:
    rows = st.session_state.table.selection.rows
    current().select(ids[rows[0]] if rows else None)


def more_row(state: State, hits: galsearch.Hits, page: int, last: int) -> None:
    """Draw the way to the next hits and, where there are several pages, to the others."""
    full, room = len(hits) == state.query.k and state.answered, state.query.k < limits.MOST_K
    if not last and not (full and room):
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="center", key="more_row"):
        if last:
            st.button("Previous", key="previous", disabled=page == 0, on_click=state.turn_to, args=(page - 1,))
            st.caption(f"page {page + 1} of {last + 1}", width="content")
        if page < last:
            st.button("Next", key="next_page", on_click=state.turn_to, args=(page + 1,))
        elif full and room:
            st.button("Show more", key="load_more", icon=":material/expand_more:", on_click=take_more)


def take_more() -> None:
    """Fill the page, then go on to the next."""
    state = current()
    chosen, k = state.chosen, state.query.k
    state.change(k=min((k // PAGE_ROWS + 1) * PAGE_ROWS, limits.MOST_K))
    state.chosen = chosen
    state.page = k // PAGE_ROWS


def none_pass(state: State) -> bool:
    """Say whether it is known that no object passes the filter; in a busy place that is not known."""
    try:
        return state.passing() == 0
    except limits.Busy:
        return False


def show_nothing(state: State) -> None:
    """Say why nothing was found, and offer the way out."""
    query = state.query
    if query.where and none_pass(state):
        st.info(
            f"No object passes the filter {widgets.code(query.where)}. Relax or remove it.",
            icon=":material/filter_alt_off:",
        )
        st.button("Remove filter", key="uncut", on_click=state.change, kwargs={"where": None})
    elif query.near:
        also = " and passes the filter" if query.where else ""
        st.info(
            f"No object lies within {query.radius_arcsec:g} arcsec of the center{also}. Widen the radius, or remove "
            "the cone.",
            icon=":material/location_off:",
        )
        st.button("Remove cone", key="uncone", on_click=state.change, kwargs={"near": None, "radius_arcsec": None})
    else:
        st.info("No object that passes has a vector to compare. Relax the filter, or remove terms.")
