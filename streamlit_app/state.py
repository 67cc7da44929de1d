"""What one visitor asks and looks at, and how all of it stands in the URL.

One `State` lives in each session. It is the truth: pages read it and change it, in callbacks; widgets are filled from
it; the URL is written from it and read when it differs, so that links, reloads and the back button restore everything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import cuts
import limits
import links
import pyarrow as pa
import streamlit as st
from links import FIRST_K, NOTHING, from_text, to_text
from sets import FIRST_NAME, MOST_NAME, Sets, beside

import galsearch

PAGE_ROWS = 60
VIEWS = ("Gallery", "Table")
SHARED = ("query", "object", "view", "page", "collection", "jobs", "atlas")  # what a URL says on every page
MOST_PARAM = 20_000  # characters of what one page says in its URL under one name, such as a SQL statement
MOST_PARAMS = 40
STALE_SECONDS = 1.0  # for so long a browser may still send the URL from before the last change


class State:
    """The question of this session, its answer, and what is looked at; every page gets it.

    Read anything at any time. Change it with the methods below, in a widget's callback: Streamlit refuses to change a
    widget that is drawn, and the URL is written before the page is.
    """

    def __init__(self, atlas: galsearch.Atlas) -> None:
        self.atlas = atlas
        self.query = NOTHING
        self.selected: str | None = None  # the object that is looked at
        self.chosen: tuple[str, ...] = ()  # objects picked for an action, in the order of picking
        self.view = VIEWS[0]
        self.page = 0  # of the answer, in pages of PAGE_ROWS
        self.problem: str | None = None  # why the last change was not made
        self.link_problem: str | None = None  # what is wrong with the URL that was opened
        self.collection = FIRST_NAME  # the set that marks go into
        self.jobs: str | None = None  # under which name the long work of this session is kept, see `jobs`
        self.pages: dict[str, Any] = {}  # name -> st.Page, of those that are offered
        self.revision = 0  # grows with every change of the question, so that widgets know to fill themselves anew
        self._own_sets = Sets(None, fingerprint(atlas))
        self._params: dict[str, dict[str, str]] = {}  # page -> what only that page says in its URL
        self._at = ""  # name of the page
        self._acted = False
        self._written: tuple[str, dict[str, str]] | None = None
        self._before: tuple[str, dict[str, str]] | None = None
        self._changed = 0.0
        self._answer: tuple[Any, galsearch.Hits] | None = None
        self._passing: tuple[Any, int] | None = None

    @property
    def hash(self) -> str:
        """Eight hex digits that tell this atlas from another."""
        return fingerprint(self.atlas)

    @property
    def at(self) -> str:
        """The name of the page that is drawn."""
        return self._at

    # ---- the question

    def ask(self, query: galsearch.Query) -> None:
        """Make `query` the current one, from its first row on."""
        self.acted()
        self.query = replace(query, k=min(query.k, limits.MOST_K))
        self.page, self.problem, self.chosen = 0, None, ()
        self.link_problem = None
        self.revision += 1

    def change(self, **parts: Any) -> None:
        """Ask the same with some parts replaced (of galsearch.Query); what cannot be asked changes nothing."""
        self.acted()
        try:
            self.ask(replace(self.query, **parts))
        except galsearch.GalsearchError as error:
            self.problem = str(error)

    def add_term(self, term: galsearch.Term) -> None:
        """Ask for more of something, or less where its weight is negative."""
        self.change(terms=(*self.query.terms, term))

    def add_cut(self, sql: str) -> None:
        """Keep only what passes one more condition, such as "ra BETWEEN 10 AND 20"."""
        self.change(where=cuts.added(self.query.where, sql))

    def like(self, object_id: str, by: str | None = None) -> None:
        """Ask for more like one object, under the same cuts; `by` is an embedding, unless the usual one is meant."""
        self.change(terms=(self.like_term(object_id, by=by),), k=FIRST_K)

    def like_term(self, object_id: str, weight: float = 1.0, *, by: str | None = None) -> galsearch.Term:
        """Return the term for an object, in the embedding `by`, else in the first one that it has a vector in.

        The main one is not named, as in every atlas with one alone.
        """
        held = self.embeddings_of(object_id)
        name = by or (held[0] if held else None)
        return galsearch.Term("object", object_id, weight, None if name == self.atlas.manifest.main_embedding else name)

    def embeddings_of(self, object_id: str) -> list[str]:
        """Return the embeddings that an object has a vector in, the main one first; not looked up where there is one.

        An id that the atlas does not have is in none, and the search by it says so.
        """
        names = sorted(self.atlas.manifest.embeddings, key=lambda name: name != self.atlas.manifest.main_embedding)
        return names if len(names) < 2 else [name for name in names if self._has_vector(object_id, name)]

    def _has_vector(self, object_id: str, embedding: str) -> bool:
        try:
            self.atlas.embed(self.atlas[object_id], by=embedding)
        except galsearch.QueryError:
            return False
        return True

    # ---- the answer

    def hits(self) -> galsearch.Hits:
        """Return the answer to the question; asked again only when the question or the atlas changes.

        Raises GalsearchError; show it with `widgets.failure`.
        """
        if not self.answered:
            self._answer = (self._question, self.search(self.query))
        return self._answer[1]

    @property
    def _question(self) -> tuple[str, galsearch.Query]:
        return self.hash, self.query

    @property
    def answered(self) -> bool:
        """Whether the results that are kept are those of the current query."""
        return self._answer is not None and self._answer[0] == self._question

    def earlier(self) -> galsearch.Hits | None:
        """Return the results of the last query of this atlas that was answered; None where there are none."""
        kept = self._answer
        return kept[1] if kept is not None and kept[0][0] == self.hash else None

    def search(self, query: galsearch.Query) -> galsearch.Hits:
        """Answer another question in its turn among all visitors."""
        with limits.turn():
            return self.atlas.search(query)

    def sql(self, text: str, *, most_rows: int | None = None) -> pa.Table:
        """Run one SELECT in its turn among all visitors; with `most_rows`, no more than so many come back."""
        with limits.turn("sql"):
            if most_rows is None:
                return self.atlas.sql(text)
            self.atlas.sql(f"EXPLAIN {text}")  # so that what goes into the brackets is one statement
            return self.atlas.sql(f"SELECT * FROM (\n{text}\n) LIMIT {most_rows}")

    def passing(self) -> int:
        """Return how many objects pass the filter, without the cone.

        Raises QueryError for a filter that is not valid and limits.Busy where there was no turn to count: neither is
        a number of objects.
        """
        key = (self.hash, self.query.where)
        if self._passing is None or self._passing[0] != key:
            with limits.turn():
                self._passing = (key, self.atlas.count(self.query.where))
        return self._passing[1]

    def condition(self) -> str:
        """Return the cut and the cone as one SQL condition on `galaxies`, "true" without either.

        It is safe to put into a statement of one's own: a cut that is not one condition raises QueryError here.
        """
        parts = []
        if self.query.where:
            self.atlas.count(self.query.where)
            parts.append(f"({self.query.where}\n)")
        if self.query.near:
            ra, dec = self.query.near
            parts.append(f"separation_arcsec(ra, dec, {ra!r}, {dec!r}) <= {self.query.radius_arcsec!r}")
        return " AND ".join(parts) or "true"

    # ---- what is looked at

    def select(self, object_id: str | None) -> None:
        """Look at an object, or at none."""
        self.acted()
        self.selected = object_id

    def choose(self, object_id: str) -> None:
        """Pick an object for an action, or drop it when it is picked already."""
        self.acted()
        kept = tuple(one for one in self.chosen if one != object_id)
        self.chosen = kept if len(kept) < len(self.chosen) else (*kept, object_id)

    def show_as(self, view: str) -> None:
        """Show the answer as one of VIEWS."""
        self.acted()
        self.view = view

    def turn_to(self, page: int) -> None:
        """Show another page of the answer."""
        self.acted()
        self.page = page

    # ---- what only one page says in its URL

    def param(self, name: str, default: str = "") -> str:
        """Return what this page's URL says under `name`."""
        return self._params.get(self._at, {}).get(name, default)

    def set_param(self, name: str, value: str | None, *, page: str | None = None) -> None:
        """Let the URL of this page, or of another, say `value` under `name`; None or "" takes it out."""
        self.acted()
        own = self._params.setdefault(self._at if page is None else page, {})
        own.pop(name, None)
        if value:
            own[name] = value

    # ---- collections

    @property
    def sets(self) -> Sets:
        """The named sets of this atlas: beside it where that may be written, else of this session."""
        if limits.PUBLIC or not os.access(self.atlas.path.parent, os.W_OK):
            return self._own_sets
        return _kept_sets(str(beside(self.atlas.path)), self.hash)

    def mark(self, object_ids: list[str], mark: str | None) -> None:
        """Mark objects in the collection that is current, or take their mark away."""
        self.attempt(self.sets.mark, self.collection, object_ids, mark)

    def mark_all(self, marks: list[dict[str, str | None]]) -> None:
        """Give objects the marks that a gallery sent: {id, mark} each."""
        by_mark: dict[str | None, list[str]] = {}
        for one in marks:
            by_mark.setdefault(one["mark"], []).append(one["id"])
        for mark, object_ids in by_mark.items():
            self.mark(object_ids, mark)

    def attempt(self, act: Callable[..., Any], *args: Any) -> bool:
        """Change the collections; what cannot be done is said on the page. Return whether it was done."""
        self.acted()
        self.problem = None
        try:
            act(*args)
        except (galsearch.GalsearchError, OSError) as error:
            self.problem = str(error)
        return self.problem is None

    def goto(self, page: str) -> None:
        """Go to another page with all that is asked; in a run, not in a callback."""
        if page in self.pages:
            st.switch_page(self.pages[page], query_params=self.link(page))

    def acted(self) -> None:
        """Note that a widget caused this run: its URL may be that of a moment ago, and is not to be read."""
        self._acted = True
        self._changed = time.monotonic()

    # ---- the URL

    def link(self, page: str | None = None) -> dict[str, str]:
        """Return what the URL of a page (this one unless named) says; nothing for the state at the start."""
        page = self._at if page is None else page
        said = {"query": to_text(self.query)} if self.query != NOTHING else {}
        if self.selected:
            said["object"] = self.selected
        if self.view != VIEWS[0]:
            said["view"] = self.view
        if self.page:
            said["page"] = str(self.page + 1)
        if self.collection != FIRST_NAME:
            said["collection"] = self.collection
        said |= self._params.get(page, {})
        said |= {"atlas": self.hash} if said else {}
        return said | ({"jobs": self.jobs} if self.jobs else {})

    def permalink(self, page: str | None = None) -> str:
        """Return the whole URL to give to somebody, without what belongs to this session; "?…" where it is not known.

        The state at the start has none: "".
        """
        said = {name: value for name, value in self.link(page).items() if name != "jobs"}
        if not said:
            return ""
        here = urlsplit(st.context.url or "")
        address = f"{here.scheme}://{here.netloc}{here.path}" if here.scheme in ("http", "https") else ""
        return f"{address}?{urlencode(said)}"

    def restore(self, url: Any, page: str) -> None:
        """Take everything from the URL of `page` where it is not the one that this session wrote."""
        came = (page, dict(url))
        moved = page != self._at
        self._at = page
        acted, self._acted = self._acted, False
        if came == self._written or (acted and not moved):
            return
        if not came[1] and moved and self._written:  # a plain link to the page
            return
        if came == self._before and time.monotonic() - self._changed < STALE_SECONDS:
            return
        self._take(came[1])
        self._acted = False

    def publish(self, url: Any) -> None:
        """Write the URL of this page."""
        said = self.link()
        if said != dict(url):
            url.from_dict(said)
        if (self._at, said) != self._written:
            self._before, self._written = self._written, (self._at, said)

    def _take(self, url: dict[str, str]) -> None:
        problem = self._take_query(url.get("query"))
        self.selected = links.short_text(url.get("object"))
        self.view = url["view"] if url.get("view") in VIEWS else VIEWS[0]
        self.page = max(links.whole(url.get("page"), default=1) - 1, 0)
        self.collection = _name_of(url.get("collection"))
        self.jobs = links.short_text(url.get("jobs"))
        self._params[self._at] = _own_params(url)
        if url.get("atlas", self.hash) != self.hash:
            problem = (
                f"This link was made with another atlas ({url['atlas'][:40]}; this one is {self.hash}, "
                f"{self.atlas.manifest.title}), so the results may differ."
            )
        self.link_problem = problem

    def _take_query(self, text: str | None) -> str | None:
        """Ask what the URL says; return what is wrong with it, or None."""
        if text is None:
            self.ask(NOTHING)
            return None
        try:
            query = from_text(text)
        except galsearch.GalsearchError as error:
            self.ask(NOTHING)
            return f"The link could not be read: {error}"
        kept = tuple(term for term in query.terms if not term.is_file)  # a URL must not make us read our own files
        self.ask(replace(query, terms=kept))
        return None if kept == query.terms else "The link names a file; upload it here instead."


def _name_of(text: str | None) -> str:
    """Return the collection that a URL names; the first one where that is no name of one."""
    tidy = " ".join((links.short_text(text) or "").split())
    return tidy if 1 <= len(tidy) <= MOST_NAME else FIRST_NAME


def _own_params(url: dict[str, str]) -> dict[str, str]:
    """Return what a URL says for one page alone; what is too long or no text is left out."""
    own = {name: value for name, value in url.items() if name not in SHARED}
    fits = {
        name: value
        for name, value in own.items()
        if len(name) <= 60 and len(value) <= MOST_PARAM and links.is_text(name + value)
    }
    return dict(list(fits.items())[:MOST_PARAMS])


@st.cache_resource(max_entries=4, show_spinner=False)
def _kept_sets(path: str, atlas: str) -> Sets:
    return Sets(Path(path), atlas)


def fingerprint(atlas: galsearch.Atlas) -> str:
    """Return what tells one atlas from another, in links and caches."""
    return atlas.fingerprint


def of_session(atlas: galsearch.Atlas) -> State:
    """Return the one State of this session, on `atlas` as it is open now."""
    if "state" not in st.session_state:
        st.session_state.state = State(atlas)
    st.session_state.state.atlas = atlas
    return st.session_state.state


def current() -> State:
    """Return the State of this session, in a callback."""
    return st.session_state.state
