"""What a text names: an object by its id or a name, a position on the sky, or nothing. No vector is compared.

Ids are exact. Names are compared without case, accents, blanks, hyphens and leading zeros, so that "NGC5194",
"ngc 5194" and "NGC 05194" are one, with "M" for "Messier"; a column of several names ("M 51, NGC 5194") holds each.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from galsearch.errors import QueryError
from galsearch.language.spelling import expansions, is_known
from galsearch.science.sky import parse_position, separation_arcsec
from galsearch.store import Store

if TYPE_CHECKING:
    from galsearch.remote.catalogs.sesame import Resolved

OBJECT, POSITION, NOTHING = "object", "position", "nothing"
MOST_LETTERS = 80  # of a name; what is longer is a sentence
MOST_READ = 2_000  # objects with all words of a text whose names are compared with it
MOST_CANDIDATES = 20
LEAST_RADIUS, MOST_RADIUS = 5.0, 60.0  # arcsec around a position
NAME_RADIUS = 10.0  # arcsec around where a name service has an object, by which catalogs of galaxies differ
WIDENING = (1, 10, 100, 1_000)  # how far the nearest object is sought, in radii
_NAMES = re.compile(
    r"(?:^|_)(?:\w*names?|id|ids|\w*_?id|ident\w*|desig\w*|alias\w*|object|source|target|catalog|iau|ned|simbad|other|main)"
    r"(?:_|$)|^(?:ngc|ic|ugc|pgc|messier|sdss|2mass\w*|wise\w*|eso|mcg|vcc|hcg|arp)$",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"\s*[,;|=()\[\]/]\s*")
_POSITION = re.compile(r"[+\-−]?[0-9.][0-9.]*[hmsd°:'\"′″\s,.0-9+−\-]*")
_IAU = re.compile(
    r"(?:[\w.+-]{1,20}\s+)?j(?P<ra>[0-9]{4,})(?P<ra_more>\.[0-9]+)?(?P<sign>[+−\-])(?P<dec>[0-9]{4,})(?P<dec_more>\.[0-9]+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Candidate:
    """An object that a text may mean: where its id or name stands, or how far it lies from the position."""

    object_id: str
    column: str | None = None
    value: str | None = None
    separation_arcsec: float | None = None


@dataclass(frozen=True)
class Lookup:
    """What a text names. False where it is nothing.

    `kind` is "object", "position" or "nothing". `candidates` are the objects, at most 20: of an id the one, of a name
    by object_id, of a position those within `radius_arcsec` of `position` (ra, dec in degrees ICRS), the nearest first.
    `nearest` is the nearest object, within the radius or up to a thousand times as far; None where there is none.
    `has_positions` is False where the atlas has no position of any object. `resolved` is what a name service calls the
    object, None where none was asked or it knows no such name.
    """

    text: str
    kind: str
    candidates: tuple[Candidate, ...] = ()
    position: tuple[float, float] | None = None
    radius_arcsec: float | None = None
    nearest: Candidate | None = None
    has_positions: bool = True
    resolved: str | None = None

    def __bool__(self) -> bool:
        return self.kind != NOTHING

    @property
    def ids(self) -> list[str]:
        """The object_ids of the candidates."""
        return [one.object_id for one in self.candidates]

    def __str__(self) -> str:
        if self.kind == OBJECT:
            first = self.candidates[0]
            if len(self.candidates) > 1:
                return f"{self.text!r} names {len(self.candidates)} objects"
            where = "its id" if first.column == "object_id" else f"{first.value!r} in column {first.column}"
            where += f"; Sesame: {self.resolved}" if self.resolved else ""
            return f"{self.text!r} is object {first.object_id!r} ({where})"
        if self.position is not None:
            return self._around(*self.position)
        return f"{self.text!r} is no id, name or position here"

    def _around(self, ra: float, dec: float) -> str:
        count = len(self.candidates)
        stated = f"{self.text!r} is the position {ra:.6f} {dec:+.6f}"
        stated += f" by Sesame ({self.resolved})" if self.resolved else ""
        if not self.has_positions:
            return f"{stated}, and no object of this atlas has one"
        stated += f": {count or 'no'} object{'' if count == 1 else 's'} within {self.radius_arcsec:.3g} arcsec"
        if not count and self.nearest is not None:
            stated += f"; the nearest, {self.nearest.object_id!r}, is {self.nearest.separation_arcsec:.4g} arcsec away"
        return stated


def look_up(store: Store, text: str) -> Lookup:
    """Return what a text names in an atlas: an id first, then a name, then a position."""
    if not isinstance(text, str):
        raise QueryError(f"the text is {text!r:.40}, expected an id, a name or a position")
    stated = text.strip()
    if not stated or len(stated) > MOST_LETTERS or re.search(r"[\ud800-\udfff]", stated):
        return Lookup(stated, NOTHING)
    if store.has(stated):
        return Lookup(stated, OBJECT, (Candidate(stated, "object_id", stated),))
    named = _named(store, stated)
    if named:
        return Lookup(stated, OBJECT, named)
    position = position_of(stated)
    return Lookup(stated, NOTHING) if position is None else _at(store, stated, *position)


def resolve(store: Store, text: str, known: Lookup, ask: Callable[[str], Resolved | None]) -> Lookup:
    """Return what a text names in an atlas, by a name service where the atlas itself knows nothing of that name.

    Where objects of the atlas lie at the place of the name, these; else those that bear another of its names.
    """
    if known or not known.text or len(known.text) > MOST_LETTERS:
        return known
    answer = ask(known.text)
    if answer is None:
        return known
    called = answer.names[0] if answer.names else known.text
    there = replace(_at(store, known.text, answer.ra, answer.dec, NAME_RADIUS), resolved=called)
    if there.candidates:
        return there
    named = next((each for name in answer.names if (each := _named(store, name))), ())
    return Lookup(known.text, OBJECT, named, resolved=called) if named else there


def similar_ids(store: Store, object_id: str, *, n: int = 3) -> list[str]:
    """Return up to `n` ids that an unknown one may have been meant for: those of that name, else the most alike."""
    stated = str(object_id).strip()[:MOST_LETTERS]
    named = [one.object_id for one in _named(store, stated)] if stated else []
    return named[:n] or store.similar_ids(stated, n=n)


# ---- names

_CATALOGED = re.compile(  # a catalog of galaxies or of sources, and a number or a position in it
    r"(?:ngc|ic|m|messier|ugca?|pgc|leda|eso|arp|mrk|markarian|mcg|cgcg|vv|hcg|ddo|kug|vcc|fcc|abell|aco|[34]cr?|pks"
    r"|iras|sdss|2mas[sx]|wisea?|galex|nvss|first|vla|rxc?|xmmu?|allwise|gaia|des|ls|hsc)\s*-?\s*j?[+-]?\d[\d\s.:+-]*[a-z]?",
    re.IGNORECASE,
)


def looks_like_name(text: str) -> bool:
    """Return whether a whole text is written like a name in a catalog, whatever the atlas holds.

    >>> looks_like_name("ngc 1300"), looks_like_name("SDSS J1430+1339"), looks_like_name("ring galaxy z 0.1")
    (True, True, False)
    """
    return len(text) <= MOST_LETTERS and _CATALOGED.fullmatch(text.strip()) is not None


def name_key(text: str) -> str:
    """Return what two spellings of one name have in common.

    >>> name_key("NGC 05194") == name_key("ngc-5194"), name_key("ESO 12-3") == name_key("ESO 1-23")
    (True, False)
    """
    low = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    low = re.sub(r"[‐‑‒–—―−]", "-", low.casefold()).strip()
    low = re.sub(r"^name\s+", "", low)  # as SIMBAD writes "NAME Sombrero Galaxy"
    low = re.sub(r"^messier(?=[\s_-]*[0-9])", "m", low)
    low = re.sub(r"(?<=[0-9])[\s_-]+(?=[0-9])", "-", low)
    low = re.sub(r"(?<![0-9])[\s_-]+|[\s_-]+(?![0-9])", "", low)
    return re.sub(r"(?<![0-9.])0+(?=[0-9])", "", low)


def _named(store: Store, stated: str) -> tuple[Candidate, ...]:
    """Return the objects that are called so, by object_id; none where more than MOST_CANDIDATES are, as of a class."""
    key = name_key(stated)
    if not key:
        return ()
    rows = {int(row) for one in _spellings(stated) for row in store.rows_named(one, most=MOST_READ)}
    if not rows:
        return ()
    table = store.hits(np.array(sorted(rows), np.int64), None)
    names_in = _names_in(store, stated)
    columns = [item.name for item in table.schema if _is_text(item.type) and item.name not in ("file", "atlas")]
    result = []
    for row in table.select(columns).to_pylist():
        column = next((name for name in columns if row[name] and key in map(name_key, names_in(name, row[name]))), None)
        if column is not None:
            result.append(Candidate(row["object_id"], column, row[column]))
    return tuple(sorted(result, key=lambda one: one.object_id)) if len(result) <= MOST_CANDIDATES else ()


def _is_text(kind: object) -> bool:
    return str(kind) in ("string", "large_string") or str(kind).startswith("dictionary<values=string")


def _spellings(stated: str) -> Iterator[str]:
    """Yield the text as typed, and as a catalog may spell its beginning."""
    yield stated
    number = re.fullmatch(r"(?:messier|m)[\s_-]*([0-9]{1,3})", stated, re.IGNORECASE)
    if number:
        yield from (f"M {number[1]}", f"Messier {number[1]}")


def _names_in(store: Store, stated: str) -> Callable[[str, str], list[str]]:
    """Return what gives the names that a value of a column may be: the value and its parts, the value, or none.

    In a column of classes or remarks, words that describe galaxies name none of them: a text must have a digit that is
    no type ("E3"), or a word that nobody knows.
    """
    ucds = {row["column"]: row["ucd"] for row in store.describe().to_pylist()}
    describes = bool(expansions(stated)) or all(is_known(word) for word in re.findall(r"\w+", stated))

    def names_in(column: str, value: str) -> list[str]:
        if ucds.get(column, "").startswith("meta.id") or _NAMES.search(column):
            return [value, *_SEVERAL.split(value)]
        return [] if describes else [value]

    return names_in


# ---- positions


def position_of(text: str) -> tuple[float, float, float] | None:
    """Return (ra, dec) in degrees ICRS and the radius in arcsec around it, of a text that is a position, else None.

    Taken are what `parse_position` takes, and names of the form J132952+471143 with or without a survey before them.
    The radius is one unit of the last digit, 5 to 60 arcsec.

    >>> position_of("J1330+4712")
    (202.5, 47.2, 60.0)
    """
    named = _IAU.fullmatch(text.strip())
    if named:
        return _of_name(named)
    if not _POSITION.fullmatch(text.strip()):
        return None
    try:
        ra, dec = parse_position(text)
    except QueryError:
        return None
    parts = re.findall(r"[0-9]+(?:\.[0-9]*)?", text)
    steps = {2: (3600.0, 3600.0), 4: (900.0, 60.0), 6: (15.0, 1.0)}.get(len(parts), (LEAST_RADIUS, LEAST_RADIUS))
    last = (parts[len(parts) // 2 - 1], parts[-1])
    units = [step / 10 ** len(part.partition(".")[2]) for step, part in zip(steps, last, strict=True)]
    return ra, dec, _radius(units[0] * np.cos(np.radians(dec)), units[1])


def _of_name(named: re.Match) -> tuple[float, float, float] | None:
    """Return the position of J132952.7+471142, or of 2MASX J13295269+4711429, whose points are left out."""
    ra, ra_step = _sixties(named["ra"], named["ra_more"])
    dec, dec_step = _sixties(named["dec"], named["dec_more"])
    if ra is None or dec is None or not ra < 24 or dec > 90:
        return None
    dec = -dec if named["sign"] != "+" else dec
    return ra * 15, dec, _radius(ra_step * 15 * np.cos(np.radians(dec)), dec_step)


def _sixties(digits: str, more: str | None) -> tuple[float | None, float]:
    """Return digits such as 132952 in units of the first two, and the step of the last digit in its 3600ths."""
    if more is not None and len(digits) % 2:
        return None, 0.0
    minutes, rest = float(digits[2:4]), digits[4:]
    if len(digits) <= 5 and len(rest) <= 1:  # 1329, 1329.9, 13299: minutes are the last
        tail = (more or "")[1:] or rest
        minutes += float(f"0.{tail}") if tail else 0
        seconds, step = 0.0, 60.0 / 10 ** len(tail)
    else:
        tail = (more or "")[1:] or rest[2:]
        seconds, step = float(f"{rest[:2]}.{tail or 0}"), 1.0 / 10 ** len(tail)
    if minutes >= 60 or seconds >= 60:
        return None, 0.0
    return float(digits[:2]) + minutes / 60 + seconds / 3600, step


def _radius(*units: float) -> float:
    return float(np.clip(max(units), LEAST_RADIUS, MOST_RADIUS))


def _at(store: Store, stated: str, ra: float, dec: float, radius: float) -> Lookup:
    """Return the objects around a position, the nearest first; equally near ones by object_id."""
    if not {"ra", "dec"} <= set(store.describe()["column"].to_pylist()):
        return Lookup(stated, POSITION, (), (ra, dec), radius, has_positions=False)
    for widening in WIDENING:
        near = _around(store, ra, dec, radius * widening)
        if near:
            within = [one for one in near if one.separation_arcsec is not None and one.separation_arcsec <= radius]
            return Lookup(stated, POSITION, tuple(within[:MOST_CANDIDATES]), (ra, dec), radius, near[0])
    placed = store.count(store.condition("ra IS NOT NULL AND dec IS NOT NULL", None, None))
    return Lookup(stated, POSITION, (), (ra, dec), radius, has_positions=placed > 0)


def _around(store: Store, ra: float, dec: float, radius: float) -> list[Candidate]:
    rows, _ = store.listed(store.condition(None, (ra, dec), radius), k=MOST_READ)
    if not len(rows):
        return []
    separations = separation_arcsec(ra, dec, *store.positions(rows).T).tolist()
    result = zip(separations, store.ids(rows), strict=True)
    return [Candidate(name, separation_arcsec=apart) for apart, name in sorted(result)]
