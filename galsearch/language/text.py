"""Sentences as positions: words with their places, replacements that keep the places, and the mending afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SAME = str.maketrans("‐‑‒–−—―’‘ʼ′“”″×\xa0\u2009\u202f", "-----,,''''\"\"\"x   ")
_FORBIDDEN_LINE = r"\[[a-z]{1,2} ?[ivx]+\](?: ?[0-9]{4}(?![\w.]))?"  # [o iii] 5007 is one word
_TOKEN = re.compile(_FORBIDDEN_LINE + r"|[0-9]+\.[0-9]+|w/o\b|[^\W_](?:\w|[-'](?=[^\W_]))*|[^\w\s]|_")
_LOOSE_ENDS = re.compile(
    r"(?:[\s,;:]|(?<![\w-])(?:and|or|but|with|without|that|which|who|is|are|was|were|has|have|having|at|in|of|from|the|"
    r"a|an)(?![\w-]))+$",
    re.IGNORECASE,
)
_LOOSE_START = re.compile(r"^(?:[\s,;:.]|(?:and|or|but)(?![\w-]))+", re.IGNORECASE)


@dataclass(frozen=True)
class Token:
    """A word or a sign of punctuation, in lower case, and where it stands: `start` to `end`, not inclusive."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Edit:
    """A piece of a text to be replaced."""

    start: int
    end: int
    by: str = ""


def plain(text: str) -> str:
    """Return the text in lower case with plain hyphens, quotes and blanks, letter for letter: places stay the same."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text.translate(_SAME))


def tokens(text: str) -> list[Token]:
    """Return the words and signs of a text that `plain` gave; a hyphenated word is one, and so is "[o iii] 5007"."""
    return [Token(result[0], result.start(), result.end()) for result in _TOKEN.finditer(text)]


def edited(text: str, edits: Iterable[Edit], *, start: int = 0, end: int | None = None) -> str:
    """Return a piece of a text with replacements, loose ends tidied away; of overlapping edits the first and longest.

    >>> edited("spiral with no bar, z < 0.1", [Edit(7, 18), Edit(20, 27)])
    'spiral'
    """
    end = len(text) if end is None else end
    parts, index = [], start
    for edit in sorted(edits, key=lambda edit: (edit.start, -edit.end)):
        if index <= edit.start and edit.end <= end:
            parts += [text[index : edit.start], edit.by]
            index = edit.end
    return tidy("".join([*parts, text[index:end]])) if parts else text[start:end].strip()


def tidy(text: str) -> str:
    """Return a text from which pieces were taken without empty brackets, double blanks and words that link nothing."""
    text = re.sub(r"[(\[]\s*[)\]]", " ", text)
    text = re.sub(r"(?:\s*,)+", ",", re.sub(r"\s+", " ", text))
    return _LOOSE_ENDS.sub("", _LOOSE_START.sub("", text)).strip()
