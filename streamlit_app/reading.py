"""How the words were read, and ways to go on from the answer: chips that change the question, nothing by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cuts
import streamlit as st
import widgets
from links import FIRST_K
from state import State, current

import galsearch

plain = widgets.plain
UNLIKE = 0.5  # weight of what is not wanted
AWAY = "away"
AS, WORDS = "as", "words"  # what the URL says where a name is to be searched as words


def words_of(query: galsearch.Query) -> tuple[str, tuple[galsearch.Term, ...]]:
    """Return the words of the main box, which are a leading text of weight 1, and the other terms."""
    first = query.terms[0] if query.terms else None
    if first and first.kind == "text" and first.weight == 1:
        return first.value, query.terms[1:]
    return "", query.terms


def words_by(query: galsearch.Query) -> str | None:
    """Return the embedding that the words of the main box are compared in; None for the main one."""
    words, _ = words_of(query)
    return query.terms[0].by if words else None


def compared(terms: tuple[galsearch.Term, ...], by: str | None) -> tuple[galsearch.Term, ...]:
    """Return terms of which words are compared in the embedding `by`."""
    return tuple(replace(term, by=by) if term.kind == "text" else term for term in terms)


def with_words(query: galsearch.Query, words: str, *, by: str | None = None) -> galsearch.Query:
    """Return `query` with `words` in the main box, from the first rows on; blank words take them out."""
    lead = (galsearch.Term("text", words.strip(), by=by),) if words.strip() else ()
    return replace(query, terms=lead + words_of(query)[1], k=FIRST_K)


def named(state: State) -> galsearch.Lookup | None:
    """Return what the words name, where they are all that is asked and nobody wants them searched as words."""
    words, rest = words_of(state.query)
    if not words or rest or state.param(AS) == WORDS:
        return None
    found = state.atlas.lookup(words)
    return found if found else None


def show_understanding(state: State) -> None:
    """Draw what the words may mean: cuts, abbreviations, spelling, and what is not wanted."""
    words, _ = words_of(state.query)
    if not words:
        return
    told_hints(state, words)
    options = offered(state, words)
    if not options:
        return
    with st.container(key="understanding", gap="xsmall"):
        st.pills(
            "Suggested filters",
            list(options),
            key="meaning",
            format_func=options.get,
            wrap=False,
            on_change=take_meaning,
            args=(words,),
        )


def told_hints(state: State, words: str) -> None:
    """Say what a person should know of the words: numbers that are in no filter, another language, rare kinds."""
    for hint in state.atlas.hints(words, by=words_by(state.query)):
        st.caption(f":material/help: {plain(hint)}")


def offered(state: State, words: str) -> dict[str, str]:
    """Return what may be accepted of a reading of `words`: key -> Markdown."""
    reading = state.atlas.understand(words)
    taken = cuts.clauses(state.query.where)
    found = {f"o{place}": offer_text(one) for place, one in enumerate(reading.offers) if one.sql not in taken}
    found |= {f"e{place}": f"{plain(one.words)} → {plain(one.meaning)}" for place, one in enumerate(reading.expansions)}
    found |= {f"s{place}": f"did you mean **{plain(one.meaning)}**?" for place, one in enumerate(reading.spelling)}
    if reading.unwanted and reading.wanted.text:
        found[AWAY] = f"search away from **{plain(', '.join(map(str, reading.unwanted)))}**"
    return found


def offer_text(offer: galsearch.Offer) -> str:
    """Return an offered cut with the words that it came from."""
    return f"filter {widgets.code(offer.sql)} for “{plain(offer.words)}”"


def take_meaning(words: str) -> None:
    """Change the question by what was chosen; the words that a cut replaces leave the box."""
    state, chosen = current(), st.session_state.meaning
    st.session_state.meaning = None
    if not chosen:
        return
    reading = state.atlas.understand(words)
    if chosen == AWAY:
        made, where = reading.query(unlike=UNLIKE), state.query.where
    else:
        one = {"o": reading.offers, "e": reading.expansions, "s": reading.spelling}[chosen[0]][int(chosen[1:])]
        made = reading.query(one)
        where = cuts.added(state.query.where, made.where) if made.where else state.query.where
    terms = compared(made.terms, words_by(state.query))
    state.change(terms=(*terms, *words_of(state.query)[1]), where=where)


def show_refinements(state: State, hits: galsearch.Hits) -> None:
    """Draw phrases to have more or less of."""
    found = refinements(state, hits)
    if found:
        labels = {place: f"{'+' if one.sign == 'more' else '−'} {plain(one.phrase)}" for place, one in enumerate(found)}
        st.pills(
            "Refine: more or less of",
            list(labels),
            key="refine",
            format_func=labels.get,
            wrap=False,
            on_change=take_refinement,
            args=(found,),
        )


def refinements(state: State, hits: galsearch.Hits) -> list[Any]:
    """Return the refinements of an answer that the question does not have yet."""
    asked = {term.value for term in state.query.terms if term.kind == "text"}
    return [one for one in hits.refinements() if one.phrase not in asked]


def take_refinement(found: list[Any]) -> None:
    chosen = st.session_state.refine
    st.session_state.refine = None
    if chosen is not None:
        current().add_term(found[chosen].term())
