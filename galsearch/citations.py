"""What to cite for data that was used: BibTeX entries and acknowledgements. Only this module knows BibTeX.

A source is what an atlas says of where its data come from: {title, license, acknowledgement, bibtex}, each optional.
It is a stranger's text: control characters stand in the result as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from galsearch import schema
from galsearch.escaping import printable

SOFTWARE_TITLE = "galsearch: an embedded search engine for galaxies"  # as CITATION.cff has it
SOFTWARE_AUTHOR = "The galsearch developers"
_ENTRY = re.compile(r"@\s*(?P<kind>[A-Za-z]+)\s*\{\s*(?P<key>[^\s,{}]+)\s*,")
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {sign: "\\" + sign for sign in "&%$#_{}"}


def bibtex(sources: Iterable[dict]) -> str:
    """Return a BibTeX file of the sources and of galsearch, each entry once and no key twice.

    Entries that a source gives are taken as they are; of two that differ under one key the second gets another key.
    For a source without a readable entry there is a @misc with its title, license and acknowledgement.

        >>> print(bibtex([{"title": "Deep & wide", "license": "CC0"}]).split("\\n\\n")[0])
        @misc{deep-wide,
          title = {{Deep \\& wide}},
          note = {License: CC0}
        }
    """
    taken: dict[str, str] = {}  # key -> entry
    for source in sources:
        for key, entry in _entries(source):
            if _same(entry) not in map(_same, taken.values()):
                free = _free(key, taken)
                taken[free] = _renamed(entry, free)
    key, entry = _software()
    taken[_free(key, taken)] = entry
    return "\n\n".join(taken.values()) + "\n"


def acknowledgements(sources: Iterable[dict], cards: Iterable[dict] = ()) -> str:
    """Return a paragraph for each source, each model (by its card) and galsearch, for the end of a paper."""
    parts: list[str] = []
    for source in sources:
        head = _text(source, "title") or "unnamed source"
        head += f" ({_text(source, 'license')})" if _text(source, "license") else ""
        parts.append("\n".join(filter(None, [head, _text(source, "acknowledgement")])))
    parts += [_of_model(card) for card in cards]
    parts.append(f"This work made use of {schema.software()}.")
    return "\n\n".join(dict.fromkeys(parts)) + "\n"


def _of_model(card: dict) -> str:
    """Return what a model asks for: its license, what it was trained with, its notices."""
    license = f" ({_text(card, 'license')})" if card.get("license") else ""
    sets = (card.get("training") or {}).get("sets") or []
    credit = "; ".join(_text(one, "credit") for one in sets if one.get("credit"))
    name = _text(card, "id") or "without a name"
    lines = [f"Model {name}{license}", f"Trained with: {credit}" if credit else ""]
    notices = (printable(one, lines=True) for one in card.get("notices") or [])
    return "\n".join(filter(None, [*lines, *notices]))


def _entries(source: dict) -> Iterator[tuple[str, str]]:
    """Yield (key, entry) of a source: what it gives, or one made of what it says."""
    given = _text(source, "bibtex")
    result = list(_split(given))
    if result:
        yield from result
        return
    title = _text(source, "title") or "unnamed source"
    license = f"License: {_text(source, 'license')}" if _text(source, "license") else ""
    note = ". ".join(filter(None, [license, _text(source, "acknowledgement"), given]))
    fields = [f"  title = {{{{{_latex(title)}}}}}", f"  note = {{{_latex(note)}}}" if note else ""]
    key = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "source"
    yield key, f"@misc{{{key},\n" + ",\n".join(filter(None, fields)) + "\n}"


def _split(text: str) -> Iterator[tuple[str, str]]:
    """Yield (key, entry) of BibTeX text; an entry whose braces do not close is left out."""
    for result in _ENTRY.finditer(text):
        depth = 0
        for index in range(result.start(), len(text)):
            escaped = index and text[index - 1] == "\\"
            depth += 0 if escaped else (text[index] == "{") - (text[index] == "}")
            if text[index] == "}" and not depth:
                yield result["key"], text[result.start() : index + 1]
                break


def _software() -> tuple[str, str]:
    version = schema.software().split()[-1]
    fields = (f"author = {{{{{SOFTWARE_AUTHOR}}}}}", f"title = {{{{{SOFTWARE_TITLE}}}}}", f"version = {{{version}}}")
    return "galsearch", "@misc{galsearch,\n  " + ",\n  ".join(fields) + "\n}"


def _free(key: str, taken: dict[str, str]) -> str:
    """Return the key, with a number behind it where it is taken; BibTeX takes upper and lower case for the same."""
    known = {name.lower() for name in taken}
    names = [key, *(f"{key}-{number}" for number in range(2, len(known) + 3))]
    return next(name for name in names if name.lower() not in known)


def _renamed(entry: str, key: str) -> str:
    """Return an entry under another key."""
    return _ENTRY.sub(lambda result: f"@{result['kind']}{{{key},", entry, count=1)


def _same(entry: str) -> str:
    """Return what two copies of an entry have in common."""
    return re.sub(r"\s+", " ", entry).strip()


def _text(source: dict, key: str) -> str:
    return printable(source.get(key) or "", lines=True).strip()


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in " ".join(text.split()))
