"""Numbers in a sentence that no column can answer: which words, and why. Nothing is dropped without a word.

A number counts where something compares with it ("z ~ 0.3", "fainter than 17"), or where a unit follows. Those of names
("NGC 1300", "T-type 5") and of counts ("3 arms") do not.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from galsearch.language.cuts import (
    ALL_OPERATORS,
    ANY_UNIT,
    BANDS,
    COLORS,
    COMPARATIVES,
    PARTS,
    QUANTITIES,
    UNITS,
    Columns,
    Quantity,
    number,
)
from galsearch.language.text import plain, tokens

ELSEWHERE = (  # quantities that people name and no atlas has by a name of ours -> words for them
    r"absolute\s(?:[ugrizyjhkbv][\s-]?(?:band\s)?)?magnitudes?",
    r"(?:specific\s)?star[\s-]formation\srates?",
    r"metallicit(?:y|ies)",
    r"luminosit(?:y|ies)",
    r"(?:mean\s|central\s)?surface\sbrightness(?:es)?",
    r"velocity\sdispersions?",
    r"s[eé]rsic\s(?:index|indices|n)",
    r"bulge[\s-]to[\s-]total(?:\sratio)?",
    r"position\sangles?",
    r"signal[\s-]to[\s-]noise",
    r"photometric\sredshifts?",
)
MOST_UNREAD, MOST_NUMBERS = 10, 200
_LOOSE = r"[+-]?(?:10\^[+-]?[0-9]+|[0-9](?:[0-9]|[.,](?=[0-9]))*(?:\s?[x*]\s?10\^[+-]?[0-9]+|e[+-]?[0-9]+)?|\.[0-9]+)"
_NUMBERS = rf"(?<![\w.^/]){_LOOSE}(?:\s{{0,2}}(?P<unit>{ANY_UNIT})(?![\w/]))?(?P<glued>\w*)"
_WORD = r"[^\W\d_](?:[\w*/]|[-'(](?=\w)|(?<=\w)\))*"
_THAN = "|".join(sorted(COMPARATIVES, key=len, reverse=True))
_KNOWN = "|".join(f"(?:{words})" for words in (*ELSEWHERE, *(one.words for one in QUANTITIES)))
_KNOWN += "|" + "|".join(f"(?:{color.replace('-', ' ?- ?')})" for color in COLORS)
_IS = r"(?:\s+(?:is|are|be|being|value|values|range|in|lies|lying|ranging|a|an|the|of))*"
_BEFORE = (
    rf"(?:(?:(?<![\w-])(?P<known>{_KNOWN})|(?<![\w-])(?P<word>{_WORD})(?=\s*(?:[<>=~≈≃≤≥⩽⩾]|of\s)|\s+[a-z])){_IS})?\s*"
    rf"(?P<operator>(?P<symbol>[<>=~≈≃≤≥⩽⩾]{{1,2}})|(?:(?<![\w-])(?:no\s|not\s)?(?P<than>{_THAN})\sthan(?:\sabout)?)"
    rf"|(?<![\w-])(?:{ALL_OPERATORS}|between|from|within)(?!\w))?\s*(?:(?<![\w-])(?P<late>{_KNOWN}|{_WORD}(?=\s?=))\s*=?\s*)?(?P<bracket>[\[(]\s?)?$"
)
_AFTER = rf"\s?(?P<symbol>[<>≤≥⩽⩾]=?)\s?(?P<name>{_KNOWN}|{_WORD})?"
_UNIT_AFTER = rf"(?:\s{{0,2}}(?P<unit>{ANY_UNIT})(?![\w/]))?(?![\w.])"
_RANGE = rf"\s?(?:-|to|and|,|\.\.+)\s?{_LOOSE}{_UNIT_AFTER}\]?"
_BOUND = rf"\s?(?:,|and|but|or|,\s?and)\s(?:{ALL_OPERATORS})\s?{_LOOSE}{_UNIT_AFTER}"
_FAR = rf"\s?[<>≤≥⩽⩾]=?\s?{_LOOSE}"
_BAND = rf"\s?(?:mag(?:nitudes?)?\s)?in\s(?:the\s)?(?P<band>[{BANDS}])(?:[\s-]band)?(?![\w-])"
_compiled = functools.cache(re.compile)  # when they are needed: it takes longer than reading a sentence
_STOPS = frozenset(
    (
        *("with", "without", "and", "or", "but", "that", "which", "in", "at", "near", "no", "not", "of", "on", "a"),
        *("an", "the", "for", "galaxy", "galaxies"),
    )
)


@dataclass(frozen=True)
class Unread:
    """Words with a number that no condition was made of: where they stand, and the `reason`."""

    words: str
    reason: str
    span: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.words!r} is not understood here: {self.reason}"


def unread(text: str, columns: Columns, taken: Iterable[tuple[int, int]]) -> tuple[Unread, ...]:
    """Return the numbers of a text outside the spans `taken`, with why each is not a condition, in order.

    Overlapping ones are told once; of many the first MOST_UNREAD.
    """
    low, spans = plain(text), sorted(taken)
    result: list[Unread] = []
    for span, reason in _candidates(text, low, columns):
        if any(start < span[1] and span[0] < end for start, end in [*spans, *(one.span for one in result)]):
            continue
        result.append(Unread(text[slice(*span)], reason, span))
        if len(result) == MOST_UNREAD:
            break
    return tuple(result)


def _candidates(text: str, low: str, columns: Columns) -> Iterator[tuple[tuple[int, int], str]]:
    for result in itertools.islice(_compiled(_NUMBERS).finditer(low), MOST_NUMBERS):
        one = _Number(low, result)
        if one.is_compared():
            start, end, name = one.extent()
            shown = name or ""
            if name and (at := low.find(name, start, end)) >= 0:
                shown = text[at : at + len(name)]
            yield (start, end), _reason(one, name, shown, columns)


class _Number:
    """A number in a plain text, with what stands before and after it."""

    def __init__(self, low: str, result: re.Match) -> None:
        self.low, self.start, self.glued = low, result.start(), result["glued"]
        self.window = max(0, self.start - 60)
        # There is a match, of nothing at least: all of the pattern is optional.
        self.before = next(_compiled(_BEFORE).finditer(low[self.window : self.start]))
        self.after = _compiled(_AFTER).match(low, result.end())
        self.end = result.end()
        bare = result.end("unit") if result["unit"] else result.start("glued")
        another = (_compiled(pattern).match(low, bare) for pattern in (_RANGE, _BOUND))
        self.more = next(filter(None, another), None)  # "-5 arcsec", "and < 0.03"
        self.unit = result["unit"] or (self.more["unit"] if self.more else None)
        self.stated = result[0].removesuffix(self.glued).removesuffix(result["unit"] or "").strip()

    def is_compared(self) -> bool:
        """Say whether the number is meant as one: compared with something, or of a quantity, or in a unit."""
        before = self.before
        if before["symbol"]:
            return True
        if self.glued:
            return False  # "2MASX", "10th"
        if before["than"] or self.unit or self.after:
            return not self._counts()
        named = before["known"] or before["late"]
        is_range = self.more is not None or before["bracket"] is not None
        return bool(named) and (bool(before["operator"]) or is_range or _is_redshift(named))

    def _counts(self) -> bool:
        """Say whether it counts parts of the galaxy: "more than 3 arms"."""
        following = tokens(self.low[self.end : self.end + 30])[:1]
        return not self.unit and bool(following) and _is_part(following[0].text)

    def extent(self) -> tuple[int, int, str | None]:
        """Return where its words begin and end, and the name of what is compared."""
        start, name, is_before = self._named()
        end = self.end
        if self.more and is_before:
            end = self.more.end()
        elif not is_before and self.after:
            end = (_compiled(_FAR).match(self.low, self.after.end()) or self.after).end()  # "0.1 < z < 0.2"
        band = _compiled(_BAND).match(self.low, end)
        if band and name is None:
            end, name = band.end(), f"mag_{band['band']}"
        return start, len(self.low[:end].rstrip(" .,")), name

    def _named(self) -> tuple[int, str | None, bool]:
        """Return where the words begin, what they compare, and whether that stands before the number."""
        before = self.before
        if before["late"] or before["known"]:
            first = "known" if before["known"] else "operator" if before["operator"] else "late"
            return self.window + before.start(first), (before["late"] or before["known"]).strip(), True
        if before["word"] and before["word"] not in _STOPS and before["symbol"]:
            return self.window + before.start("word"), before["word"], True
        if before["operator"]:
            return self.window + before.start("operator"), None, True
        return self.start, self.after["name"] if self.after else None, self.after is None

    def is_of_a_part(self) -> bool:
        """Say whether the words around the comparison are of a part: "companions brighter than 17"."""
        before = self.before
        if before["known"] or before["late"] or before["symbol"]:
            return False
        start = self.start - len(before[0].lstrip()) if before["operator"] else self.start
        lead = tokens(self.low[max(0, start - 30) : start])[-1:] if before["word"] is None else []
        tail = re.match(r"\s(?:of|from|to)\s(?:an?\s|the\s)?([a-z]+)", self.low[self.end :])
        return _is_part(lead[0].text if lead else before["word"] or "") or (tail is not None and _is_part(tail[1]))


def _is_part(word: str) -> bool:
    return word in PARTS or word.removesuffix("s") in PARTS


def _is_redshift(name: str) -> bool:
    return re.fullmatch(rf"(?:{QUANTITIES[0].words})(?:\s?=)?", name.strip()) is not None


# ---- why


def _reason(one: _Number, name: str | None, shown: str, columns: Columns) -> str:
    grouped = re.fullmatch(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+", one.stated)
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", one.stated) and not grouped:
        return f"a decimal comma is not read; write {one.stated.replace(',', '.')}"
    if one.low[one.end :].lstrip().startswith("%"):
        return "percent are not read; write a fraction, such as 0.05"
    if one.is_of_a_part():
        return "it is said of a part or a neighbor, and columns are of the galaxy"
    quantity = _quantity_named(name, one.unit) if name else _quantity_compared(one.before["than"], one.unit)
    if quantity is None:
        return _no_column_called(name, shown, columns)
    if isinstance(quantity, str):
        return _of_magnitude(quantity, one.stated, columns)
    return _of_quantity(quantity, one.stated, one.unit, columns)


def _no_column_called(name: str | None, shown: str, columns: Columns) -> str:
    if name is None:
        return "it does not say which quantity is meant; name a column"
    called = next((one for one in columns.units if plain(one) == name), None)
    return f"this atlas has no numeric column {shown!r}" if called is None else _does_not_fit(called, columns)


def _does_not_fit(column: str, columns: Columns) -> str:
    held = columns.units[column]
    return f"the number does not fit column {column}{f' [{held}]' if held else ''}"


def _of_magnitude(band: str, stated: str, columns: Columns) -> str:
    if stated.startswith("-"):
        return "a number below 0 is an absolute magnitude; name its column, if the atlas has one"
    there = columns.magnitude(band or None)
    return (
        f"this atlas has no column of magnitudes in {band or 'r'}" if there is None else _does_not_fit(there, columns)
    )


def _of_quantity(quantity: Quantity, stated: str, unit: str | None, columns: Columns) -> str:
    """Return why a known quantity cannot be compared: no column, another unit, or a number that says too little."""
    there = columns.of(quantity) or next(iter(columns.named(quantity)), None)
    if there is None:
        return f"this atlas has no column of {PLURALS.get(quantity.name, quantity.name)}"
    held = columns.units[there]
    if unit and quantity.name not in ("distance", "velocity"):
        held = f"in {held}" if held else "without a unit"
        return f"column {there} is {held}, which {_unit_name(unit)} does not convert to"
    try:
        fits = number(stated) is not None
    except ValueError:
        fits = False
    if not fits:
        return f"{stated!r} is no number that a column can hold"
    return NEEDS.get(quantity.name) or _does_not_fit(there, columns)


PLURALS = {
    "redshift": "redshifts",
    "distance": "redshifts, which distances are taken from",
    "velocity": "redshifts, which velocities are taken from",
    "size": "sizes on the sky",
    "physical size": "sizes in kpc",
    "diameter": "sizes on the sky",
    "mass": "masses",
    "log mass": "masses",
    "axis ratio": "axis ratios",
}
NEEDS = {
    "size": "a size needs its unit, such as arcsec",
    "distance": "a distance is read up to 400 Mpc; beyond, name a redshift",
    "velocity": "a velocity is read in km/s, up to 30,000; beyond, name a redshift",
    "redshift": "no redshift is so high",
}


def _unit_name(unit: str) -> str:
    return next((name for pattern, name in UNITS.items() if re.fullmatch(pattern, unit)), unit)


def _quantity_named(name: str, unit: str | None) -> Quantity | str | None:
    """Return which quantity a name means, a band for a magnitude ("" for any), or None where it is not known."""
    name = name.rstrip(" =")
    result = next((one for one in QUANTITIES if re.fullmatch(one.words, name)), None)
    if result and result.name == "size" and unit and _unit_name(unit) == "kpc":
        return _by_name("physical size")
    band = re.fullmatch(rf"(?:mag[\s_])?([{BANDS.replace('z', '')}])(?:[\s-]?(?:band|mag(?:nitude)?s?))?", name)
    if result is None and (band or name == "mag_z" or re.fullmatch(r"(?:apparent\s)?mag(?:nitude)?s?", name)):
        return band[1] if band else "z" if name == "mag_z" else ""
    return result


def _quantity_compared(than: str | None, unit: str | None) -> Quantity | str | None:
    """Return which quantity a comparative or a unit means, "" for a magnitude, or None where neither says."""
    kind = _unit_name(unit) if unit else ""
    meant = BY_UNIT.get(kind) or (COMPARATIVES[than][0] if than else None)
    if meant is None:
        return _by_name("size") if kind in ("arcsec", "arcmin", "pixel") else None
    return "" if meant == "magnitude" else _by_name(meant)


BY_UNIT = {"Mpc": "distance", "km/s": "velocity", "solMass": "mass", "kpc": "physical size", "mag": "magnitude"}


def _by_name(name: str) -> Quantity:
    return next(one for one in QUANTITIES if one.name == name)
