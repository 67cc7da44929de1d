"""Text that came from a file or a stranger, made safe to print: terminal escapes and hidden characters are shown.

Files, JSON and Python keep the text as it is; only what is printed for a person goes through `printable`. Names of
files may be no text at all.
"""

from __future__ import annotations

import re
from pathlib import Path

from galsearch.errors import GalsearchError

# C0 and C1 controls and DEL, marks that turn the direction of writing, line separators, what is no character at all
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_LINES = re.compile(_UNPRINTABLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text in which control characters, bidi overrides and lone surrogates stand as escapes such as \x1b.

    So a title cannot move the cursor, recolor or rename a window, or turn what follows around. `lines` keeps line
    feeds and tabs, for text of several lines. What is not text is what `str` makes of it.

    >>> printable("NGC 1300\x1b[2J\u202egpj")
    'NGC 1300\\x1b[2J\\u202egpj'
    """
    pattern = _LINES if lines else _UNPRINTABLE
    return pattern.sub(lambda result: result[0].encode("unicode_escape").decode(), str(text))


def is_text(name: str) -> bool:
    """Say whether a name is text: one of a file whose bytes are not UTF-8 is none, and no table can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_path(path: Path) -> None:
    """Raise GalsearchError for a path that is not text: the engines cannot open it."""
    if not is_text(str(path)):
        raise GalsearchError(f"{path}: the name is not UTF-8, which the engines need; rename it")
