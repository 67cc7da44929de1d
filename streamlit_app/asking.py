"""What this session asks: one galsearch.Query and how its answer is looked at, kept equal in three places.

The Query in the session is the truth. Widgets change it in their callbacks and are filled from it; the URL is written
from it after each run and read when it differs, so that links, reloads and the back button restore everything.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import streamlit as st

import galsearch

FIRST_K, MOST_K = 24, 1000
PAGE_ROWS = 60
NOTHING = galsearch.Query(k=FIRST_K)
VIEWS = ("Gallery", "Table")
RADIUS_ARCSEC = 60.0


def current() -> galsearch.Query:
    """Return what is asked now."""
    return st.session_state.get("asked", NOTHING)


def acted() -> None:
    """Note that this run was caused by a widget; every callback does.

    The browser may have sent it with the URL of a moment ago, which then must not be read as a visit to that URL.
    """
    st.session_state.acted = True


def ask(query: galsearch.Query) -> None:
    """Make `query` the current one: fill the widgets from it and go back to the first page of rows.

    Only before the widgets are drawn, or in a callback: Streamlit refuses to change a drawn widget.
    """
    acted()
    state = st.session_state
    state.asked, state.page, state.answer_problem = query, 0, None
    words, _ = split(query)
    state.words, state.where, state.k, state.exact = words, query.where or "", query.k, query.exact
    state.where_problem = state.near_problem = None
    state.near = "" if query.near is None else f"{query.near[0]:g} {query.near[1]:g}"
    state.radius_arcsec = query.radius_arcsec or RADIUS_ARCSEC


def change(**parts) -> None:
    """Ask the same with some parts replaced; a part that cannot be asked changes nothing."""
    try:
        ask(replace(current(), **parts))
    except galsearch.GalsearchError as error:
        st.session_state.answer_problem = str(error)


def split(query: galsearch.Query) -> tuple[str, tuple[galsearch.Term, ...]]:
    """Return the words of the main box, which are a leading text of weight 1, and the other terms."""
    first = query.terms[0] if query.terms else None
    if first and first.kind == "text" and first.weight == 1:
        return first.value, query.terms[1:]
    return "", query.terms


def with_words(query: galsearch.Query, words: str) -> galsearch.Query:
    """Return `query` with `words` in the main box; blank words take them out."""
    lead = (galsearch.Term("text", words.strip()),) if words.strip() else ()
    return replace(query, terms=lead + split(query)[1])


def fingerprint(atlas: galsearch.Atlas) -> str:
    """Return eight hex digits that tell one atlas from another."""
    manifest = atlas.manifest
    known = f"{manifest.title}|{manifest.rows}|{manifest.created}|{sorted(manifest.embeddings)}"
    return hashlib.sha256(known.encode()).hexdigest()[:8]


# ---- the URL


def restore(url: Any, atlas: galsearch.Atlas) -> None:
    """Take the state from the URL when it is not the one this session wrote."""
    state = st.session_state
    if "asked" not in state:
        ask(NOTHING)
        state.selected, state.view, state.link_problem, state.acted = None, VIEWS[0], None, False
    elif "words" not in state:  # back from another page, which took away the widgets' values and the URL
        ask(current())
        state.view = VIEWS[0]
    if "next" in state:  # asked while the last run was drawing
        ask(state.pop("next"))
    if state.pop("acted", False) or dict(url) == state.get("written", {}):
        return
    state.link_problem = _take_query(url.get("query"))
    state.acted = False
    state.selected = url.get("object")
    state.view = url.get("view", VIEWS[0]) if url.get("view") in VIEWS else VIEWS[0]
    state.page = max(int(url.get("page", "1")) - 1, 0) if url.get("page", "1").isdecimal() else 0
    if url.get("atlas", fingerprint(atlas)) != fingerprint(atlas):
        state.link_problem = (
            f"This link was made with another atlas ({url['atlas']}; this one is {fingerprint(atlas)}, "
            f"{atlas.manifest.title}), so the answer may differ."
        )


def _take_query(text: str | None) -> str | None:
    """Ask what the URL says; return what is wrong with it, or None."""
    ask(NOTHING)
    if text is None:
        return None
    try:
        query = galsearch.Query.from_json(text)
    except galsearch.GalsearchError as error:
        return f"The link could not be read: {error}"
    kept = tuple(term for term in query.terms if term.kind != "image")  # a URL must not make us read our own files
    ask(replace(query, terms=kept, k=min(query.k, MOST_K)))
    return None if kept == query.terms else "The link names a picture file; upload the picture here instead."


def publish(url: Any, atlas: galsearch.Atlas) -> None:
    """Write the state into the URL; the state at the start leaves it empty."""
    state = st.session_state
    parts = {"query": current().to_json()} if current() != NOTHING else {}
    if state.get("selected"):
        parts["object"] = state.selected
    if state.get("view") == VIEWS[1]:
        parts["view"] = state.view
    if state.get("page"):
        parts["page"] = str(state.page + 1)
    if parts:
        parts["atlas"] = fingerprint(atlas)
    if parts != dict(url):
        url.from_dict(parts)
    state.written = parts


# ---- the answer


def answer(atlas: galsearch.Atlas) -> galsearch.Hits:
    """Return the hits of the current query; asked again only when the query or the atlas changes."""
    key = (fingerprint(atlas), current())
    kept = st.session_state.get("answered")
    if kept is None or kept[0] != key:
        kept = (key, atlas.search(current()))
        st.session_state.answered = kept
    return kept[1]
