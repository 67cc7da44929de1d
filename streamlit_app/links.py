"""A query as the text of a URL, and back: whatever a link says is checked before anything is done with it."""

from __future__ import annotations

import json
import math
from typing import Any

import galsearch

FIRST_K = 24
NOTHING = galsearch.Query(k=FIRST_K, distinct=True)
MOST_LINK = 40_000  # characters of a query in a URL; a sum of ten image vectors has half of that
MOST_TERMS = 200  # a collection's examples are 100
MOST_TEXT = 2_000  # characters of one text in a query: a description, an object_id
MOST_WHERE = 20_000  # characters of a filter; a list of 1,000 object_ids has that many
MOST_DEPTH = 50  # of brackets in the JSON of a query, which has 4; thousands overflow the stack of the parser
MOST_PAGE = 100_000


def to_text(query: galsearch.Query) -> str:
    """Return a query as JSON without what is as at the start; `from_text` reads it."""
    whole, plain = json.loads(query.to_json()), json.loads(NOTHING.to_json())
    said = {name: value for name, value in whole.items() if name == "terms" or value != plain[name]}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str) -> galsearch.Query:
    """Return the query that a URL says; QueryError where it says none, or more than a link may."""
    if len(text) > MOST_LINK:
        raise galsearch.QueryError(
            f"the query of the link has {len(text):,} characters, at most {MOST_LINK:,} are read"
        )
    if _depth(text) > MOST_DEPTH:
        raise galsearch.QueryError(f"{text!r:.80} is nested too deeply for a query; make the link anew")
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise galsearch.QueryError(f"{text!r:.80} is not a query in JSON; make the link anew")
    _check(said)
    plain = json.loads(NOTHING.to_json())
    query = galsearch.Query.from_json(json.dumps(plain | said))
    _check_sizes(query)
    return query


def _depth(text: str) -> int:
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
    elif isinstance(value, str) and not is_text(value):
        raise galsearch.QueryError(f"{value!r:.80} in the link is not text; make the link anew")
    elif isinstance(value, int | float) and not (abs(value) < 1e18 and math.isfinite(value)):
        raise galsearch.QueryError(
            f"a number in the link is {value!r:.40}, expected one below 1e18; make the link anew"
        )


def _check_sizes(query: galsearch.Query) -> None:
    if len(query.terms) > MOST_TERMS:
        raise galsearch.QueryError(f"the link has {len(query.terms):,} terms, at most {MOST_TERMS} are read")
    texts = dict.fromkeys(("text", "object", "image", "spectrum"), MOST_TEXT)
    for term in query.terms:
        if len(term.value) > texts.get(term.kind, MOST_LINK):
            raise galsearch.QueryError(
                f"a {term.kind} of the link has {len(term.value):,} characters; {MOST_TEXT:,} at most"
            )
    if query.where and len(query.where) > MOST_WHERE:
        raise galsearch.QueryError(
            f"the filter of the link has {len(query.where):,} characters, at most {MOST_WHERE:,} are read"
        )


def is_text(value: str) -> bool:
    """Say whether a string can be sent and stored: no half surrogate pairs, no NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def short_text(value: str | None) -> str | None:
    """Return a short text of a URL, such as an object_id; None where it is none or longer than MOST_TEXT."""
    return value if value and len(value) <= MOST_TEXT and is_text(value) else None


def whole(value: str | None, *, default: int, most: int = MOST_PAGE) -> int:
    """Return a whole number from 0 of a URL, `default` where there is none or it is above `most`."""
    if not value or len(value) > 9 or not (value.isascii() and value.isdecimal()):
        return default
    return int(value) if int(value) <= most else default
