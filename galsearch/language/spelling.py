"""What stands for what: abbreviations, type notation, and words that look like slips of known ones.

Nothing is replaced here: a `Rewording` says what could be put in the place of which words.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from galsearch.language.text import plain, tokens

ABBREVIATIONS = {
    "ETG": "early-type galaxy",
    "LTG": "late-type galaxy",
    "LSB": "low surface brightness",
    "LSBG": "low surface brightness galaxy",
    "HSB": "high surface brightness",
    "BCG": "brightest cluster galaxy",
    "BGG": "brightest group galaxy",
    "BCD": "blue compact dwarf galaxy",
    "UDG": "ultra-diffuse galaxy",
    "UCD": "ultra-compact dwarf galaxy",
    "TDG": "tidal dwarf galaxy",
    "dE": "dwarf elliptical galaxy",
    "dS0": "dwarf lenticular galaxy",
    "dSph": "dwarf spheroidal galaxy",
    "dIrr": "dwarf irregular galaxy",
    "cE": "compact elliptical galaxy",
    "cD": "giant elliptical galaxy with an extended halo",
    "Irr": "irregular galaxy",
    "LRG": "luminous red galaxy",
    "ELG": "emission-line galaxy",
    "SFG": "star-forming galaxy",
    "LIRG": "luminous infrared galaxy",
    "ULIRG": "ultraluminous infrared galaxy",
    "SMG": "submillimeter galaxy",
    "PSB": "post-starburst galaxy",
    "E+A": "post-starburst galaxy",
    "K+A": "post-starburst galaxy",
    "PRG": "polar-ring galaxy",
    "CRG": "collisional ring galaxy",
    "HCG": "Hickson compact group of galaxies",
    "AGN": "active galactic nucleus",
    "BLAGN": "active galactic nucleus with broad lines",
    "QSO": "quasar",
    "LINER": "galaxy with a low-ionization nuclear emission region",
    "Sy1": "Seyfert 1 galaxy with an active nucleus",
    "Sy2": "Seyfert 2 galaxy with an active nucleus",
    "SGL": "strong gravitational lens",
    "ICL": "intracluster light",
    "SF": "star formation",
    "SN": "supernova",
    "HII": "ionized hydrogen",
    "B/T": "bulge-to-total ratio",
    "S/N": "signal-to-noise ratio",
    "XUV": "extended ultraviolet",
}
FAMILIES = {"A": "unbarred", "AB": "weakly barred", "X": "weakly barred", "B": "barred", "": ""}
VARIETIES = {  # de Vaucouleurs 1959 (Handbuch der Physik 53, 275)
    "r": "an inner ring",
    "rs": "a partial inner ring",
    "sr": "a partial inner ring",
    "s": "arms starting at the center",
    "l": "an inner lens",
    "rl": "an inner ring and lens",
    "": "",
}
OUTER = {"(R)": "an outer ring", "(R')": "an outer pseudoring", "(L)": "an outer lens", "": ""}
ARMS = {
    "0/a": "faint, very tightly wound arms and a very large bulge",
    "a": "tightly wound arms and a large bulge",
    "ab": "rather tightly wound arms and a large bulge",
    "b": "moderately wound arms and a medium bulge",
    "bc": "fairly open arms and a fairly small bulge",
    "c": "open, clumpy arms and a small bulge",
    "cd": "open, patchy arms and a very small bulge",
    "d": "loose, broken arms and a tiny bulge",
    "dm": "loose, irregular arms and a tiny bulge",
    "m": "one irregular arm, like the Magellanic clouds",
}
T_TYPES = {  # RC3 (de Vaucouleurs et al. 1991), table 2; 11 as in EFIGI (Baillard et al. 2011)
    **{-6: "cE", -5: "E", -4: "E+", -3: "S0-", -2: "S0", -1: "S0+", 0: "S0/a", 1: "Sa", 2: "Sab", 3: "Sb", 4: "Sbc"},
    **{5: "Sc", 6: "Scd", 7: "Sd", 8: "Sdm", 9: "Sm", 10: "Im", 11: "dE"},
}
_TYPE = re.compile(
    r"(?P<outer>\((?:R'?|L)\))?(?P<disk>S|I)(?P<family>AB|A|B|X)?(?:\((?P<variety>rs|sr|rl|r|s|l)\))?"
    r"(?P<stage>0/a|0[-+°^]?|ab|a|bc|b|cd|c|dm|d|m)?(?P<more>\s?(?:pec\b|\?))?"
)
_ELLIPTICAL = re.compile(r"E(?P<flat>[0-7])?(?P<more>\+|/S0)?")
_STARTS_TYPE = re.compile(r"(?<![\w('/-])(?:\((?:R['’′]?|L)\))?[SIE][\w(/+]")
_T_TYPE = re.compile(
    r"(?<![\w-])t[- ]?(?:type)?\s*(?:=|is|of|:)\s*([+-]?1?[0-9])(?![\w.])|t-type\s+([+-]?1?[0-9])(?![\w.])"
)
_LETTERS = re.compile(r"[a-z]{4,24}")

CUTOFF = 0.83  # one slip in six letters: difflib's ratio of "sprial" and "spiral" is 5/6
LOW_CUTOFF = 0.8  # one in five, where the first two letters are right
MOST_CHECKED = 40  # unknown words of one text
ENDINGS = ("s", "es", "ed", "d", "ish", "like", "ly", "er", "est", "y")
BRITISH = re.compile("our|re$|is(e|ed|ing)$")  # another spelling is no slip


@dataclass(frozen=True)
class Rewording:
    """What could stand in place of some words: `words` as typed, `meaning`, and the `span` in the text."""

    words: str
    meaning: str
    span: tuple[int, int]


# ---- abbreviations and types


def expansions(text: str) -> tuple[Rewording, ...]:
    """Return the abbreviations and type notations of a text with what they mean, in order; none overlap.

    Short ones are read in their own case only ("Sa", "Im", "SN"), longer ones in any ("etg").
    """
    result = [*_abbreviated(text), *_typed(text), *_numbered(text)]
    kept: list[Rewording] = []
    for one in sorted(result, key=lambda one: (one.span[0], -one.span[1])):
        if not kept or one.span[0] >= kept[-1].span[1]:
            kept.append(one)
    return tuple(kept)


@functools.cache
def _abbreviation_pattern() -> re.Pattern:
    exact = "|".join(re.escape(key) for key in sorted(ABBREVIATIONS, key=len, reverse=True))
    loose = "|".join(re.escape(key) for key in sorted(ABBREVIATIONS, key=len, reverse=True) if _is_loose(key))
    return re.compile(rf"(?<![\w+/-])(?:(?P<exact>{exact})|(?i:(?P<loose>{loose})))(?P<plural>s)?(?![\w+/-])")


def _is_loose(key: str) -> bool:
    return len(key) > 2 and (key.isupper() or key == "Irr")


def _abbreviated(text: str) -> Iterable[Rewording]:
    by_case = {key.casefold(): meaning for key, meaning in ABBREVIATIONS.items()}
    for result in _abbreviation_pattern().finditer(text):
        meaning = ABBREVIATIONS.get(result["exact"] or "") or by_case[(result["exact"] or result["loose"]).casefold()]
        yield Rewording(result[0], _plural(meaning) if result["plural"] else meaning, result.span())


def _plural(meaning: str) -> str:
    return re.sub(r"galaxy\b", "galaxies", meaning, count=1) if "galaxy" in meaning else meaning


def _typed(text: str) -> Iterable[Rewording]:
    for start in _STARTS_TYPE.finditer(text):
        for pattern, explain in ((_TYPE, _disk_type), (_ELLIPTICAL, _elliptical_type)):
            result = pattern.match(text.replace("’", "'").replace("′", "'"), start.start())
            if (
                result
                and (meaning := explain(result))
                and not re.match(r"[\w(+/-]", text[result.end() : result.end() + 1])
            ):
                yield Rewording(text[start.start() : result.end()], meaning, (start.start(), result.end()))
                break


def _disk_type(result: re.Match) -> str | None:
    family, stage = result["family"] or "", result["stage"] or ""
    if not (stage or family in ("B", "AB", "X") or result["variety"]):
        return None
    kind = {"S": "spiral", "I": "irregular"}[result["disk"]]
    if result["disk"] == "I" and stage not in ("m", "0", ""):  # "Ia" and "Ic" are supernovae
        return None
    if stage.startswith("0") and stage != "0/a":
        kind = "lenticular"
    elif stage == "m" and result["disk"] == "I":
        kind = "Magellanic irregular"
    arms = ARMS.get(stage, "") if result["disk"] == "S" else ""
    parts = [VARIETIES[result["variety"] or ""], arms, OUTER[result["outer"] or ""]]
    told = " and ".join(part for part in parts if part)
    peculiar = "peculiar " if "pec" in (result["more"] or "") else ""
    return f"{peculiar}{FAMILIES[family]} {kind} galaxy".strip().replace("  ", " ") + (f" with {told}" if told else "")


def _elliptical_type(result: re.Match) -> str | None:
    if result["more"] == "/S0":
        return "galaxy between elliptical and lenticular"
    if result["more"] == "+":
        return "late elliptical galaxy with a faint envelope"
    if result["flat"] is None:
        return None
    flat = int(result["flat"])
    shape = "round" if flat < 2 else "slightly elongated" if flat < 5 else "strongly elongated"
    return f"{shape} elliptical galaxy"


def type_in_words(code: str) -> str | None:
    """Return what a type such as "SB(r)b" or "E3" means, None when it is no type.

    >>> type_in_words("SB(r)b")
    'barred spiral galaxy with an inner ring and moderately wound arms and a medium bulge'
    """
    result = expansions(code)
    return result[0].meaning if len(result) == 1 and result[0].words == code else None


def _numbered(text: str) -> Iterable[Rewording]:
    for result in _T_TYPE.finditer(plain(text)):
        stage = T_TYPES.get(int(result[1] or result[2]))
        if stage:
            words = "elliptical galaxy" if stage == "E" else type_in_words(stage)
            yield Rewording(text[result.start() : result.end()], f"{stage}: {words}", result.span())


# ---- spelling


def slips(text: str, vocabulary: Iterable[str], taken: Iterable[tuple[int, int]] = ()) -> tuple[Rewording, ...]:
    """Return words that are likely slips of words known here or in the phrases of `vocabulary`, with what was meant.

    Words of four letters and more; not names, which are those with a capital inside a sentence, nor what lies in
    `taken`. The closest known word by difflib's ratio is suggested, of equally close ones the last by alphabet.
    """
    known = _known(tuple(sorted(set(vocabulary))))
    low, taken = plain(text), list(taken)
    result, checked = [], 0
    for token in tokens(low):
        if any(start < token.end and token.start < end for start, end in taken) or _is_name(text, token.start):
            continue
        for piece in _LETTERS.finditer(token.text):
            if (piece.span() != (0, len(token.text)) and "-" not in token.text) or _is_known(piece[0], known):
                continue
            checked += 1
            meant = _meant(piece[0], known) if checked <= MOST_CHECKED else None
            if meant:
                span = (token.start + piece.start(), token.start + piece.end())
                result.append(Rewording(text[span[0] : span[1]], meant, span))
    return tuple(result)


def _meant(word: str, known: dict[str, None]) -> str | None:
    if BRITISH.search(word):
        return None
    close = difflib.get_close_matches(word, known, n=1, cutoff=LOW_CUTOFF)
    sure = close and (close[0][:2] == word[:2] or difflib.SequenceMatcher(None, close[0], word).ratio() >= CUTOFF)
    return close[0] if sure else None


@functools.cache
def _listed(part: str) -> frozenset[str]:
    """Return the words of a part of known_words.txt: "astronomy", or "everyday" ones that are near to those."""
    parts = resources.files("galsearch.language").joinpath("known_words.txt").read_text().split("\n[")
    return frozenset(next(text for text in parts if text.startswith(f"{part}]")).partition("]")[2].split())


@functools.lru_cache(8)
def _known(vocabulary: tuple[str, ...]) -> dict[str, None]:
    """Return the words that slips are compared with, in alphabetical order; a dictionary is quick to ask."""
    words = {
        piece
        for phrase in (*vocabulary, *_listed("astronomy"), *ABBREVIATIONS.values())
        for piece in _LETTERS.findall(plain(phrase))
    }
    return dict.fromkeys(sorted(words))


def is_known(word: str) -> bool:
    """Say whether a word is one of astronomy or of every day, with or without an ending; a number is none."""
    low = plain(word)
    return low.isalpha() and (len(low) < 3 or _is_known(low, _known(())))


def _is_known(word: str, known: dict[str, None]) -> bool:
    """Say whether a word, or what is left of it without an ending, is known."""
    everyday = _listed("everyday")
    stems = [word, *(word.removesuffix(end) for end in ENDINGS)]
    if word.endswith("ing") and not word.endswith("eing"):
        stems += [word.removesuffix("ing"), word.removesuffix("ing") + "e"]
    return any(stem in known or stem in everyday for stem in stems if len(stem) > 2)


def _is_name(text: str, start: int) -> bool:
    """Say whether a word has a capital that does not begin the text or a sentence."""
    before = text[:start].rstrip()[-1:]
    return text[start].isupper() and before not in ("", ".", "!", "?", ":", ";")
