"""What the URL of a page says beside its query; the query is read by `galsearch.from_permalink`."""

from __future__ import annotations

import galsearch

FIRST_K = galsearch.LINK_QUERY.k
NOTHING = galsearch.LINK_QUERY
MOST_TEXT = 2_000  # characters of one text, such as an object_id
MOST_WHERE = 20_000  # characters of a filter; a list of 1,000 object_ids has that many
MOST_PAGE = 100_000
to_text, from_text = galsearch.to_permalink, galsearch.from_permalink


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
