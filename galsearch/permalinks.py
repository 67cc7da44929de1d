"""A query as the text of a permalink, and back: whatever a link says is checked before anything is done with it."""

from __future__ import annotations

import json
import math
from typing import Any

from galsearch.errors import QueryError
from galsearch.escaping import is_text
from galsearch.query import Query

LINK_K = 24  # results of a link that does not say how many
LINK_QUERY = Query(k=LINK_K, distinct=True)  # what a link says that says nothing
MOST_LINK = 40_000  # characters of a query in a URL; a sum of ten image vectors has half of that
MOST_TERMS = 200  # a collection's examples are 100
MOST_TEXT = 2_000  # characters of one text in a query: a description, an object_id
MOST_WHERE = 20_000  # characters of a filter; a list of 1,000 object_ids has that many
MOST_DEPTH = 50  # of brackets in the JSON of a query, which has 4; thousands overflow the stack of the parser


def to_permalink(query: Query) -> str:
    """Return a query as JSON without what every link says; `from_permalink` reads it."""
    whole, plain = json.loads(query.to_json()), json.loads(LINK_QUERY.to_json())
    stated = {name: value for name, value in whole.items() if name == "terms" or value != plain[name]}
    return json.dumps(stated, ensure_ascii=False, separators=(",", ":"))


def from_permalink(text: str) -> Query:
    """Return the query that a link says, 24 results without duplicates where it does not say otherwise.

    Raises QueryError where it says none, or more than a link may.
    """
    if len(text) > MOST_LINK:
        raise QueryError(f"the query of the link has {len(text):,} characters, at most {MOST_LINK:,} are read")
    if nested(text) > MOST_DEPTH:
        raise QueryError(f"{text!r:.80} is nested too deeply for a query; make the link anew")
    try:
        stated = json.loads(text)
    except ValueError:
        stated = None
    if not isinstance(stated, dict):
        raise QueryError(f"{text!r:.80} is not a query in JSON; make the link anew")
    _check(stated)
    plain = json.loads(LINK_QUERY.to_json())
    query = Query.from_json(json.dumps(plain | stated))
    _check_sizes(query)
    return query


def nested(text: str) -> int:
    """Return how deep brackets are nested, those within strings counted too; reading deep JSON overflows the stack."""
    deep = most = 0
    for sign in text:
        deep += (sign in "[{") - (sign in "]}")
        most = max(most, deep)
    return most


def _check(value: Any) -> None:
    """Refuse what JSON allows and no query has: numbers that are not finite, signs that are no text."""
    if isinstance(value, dict):
        for name, part in value.items():
            _check(name)
            _check(part)
    elif isinstance(value, list):
        for part in value:
            _check(part)
    elif isinstance(value, str) and (not is_text(value) or "\0" in value):
        raise QueryError(f"{value!r:.80} in the link is not text; make the link anew")
    elif isinstance(value, int | float) and not (abs(value) < 1e18 and math.isfinite(value)):
        raise QueryError(f"a number in the link is {value!r:.40}, expected one below 1e18; make the link anew")


def _check_sizes(query: Query) -> None:
    if len(query.terms) > MOST_TERMS:
        raise QueryError(f"the link has {len(query.terms):,} terms, at most {MOST_TERMS} are read")
    texts = dict.fromkeys(("text", "object", "image", "spectrum"), MOST_TEXT)
    for term in query.terms:
        if len(term.value) > texts.get(term.kind, MOST_LINK):
            raise QueryError(f"a {term.kind} of the link has {len(term.value):,} characters; {MOST_TEXT:,} at most")
    if query.where and len(query.where) > MOST_WHERE:
        raise QueryError(f"the filter of the link has {len(query.where):,} characters, at most {MOST_WHERE:,} are read")
