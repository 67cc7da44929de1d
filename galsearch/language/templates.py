"""Puts what is known of a galaxy into words: which words say what, and how sentences are varied.

What is known is a mapping of aspects to values of `PHRASES` and `KINDS`, such as {"kind": "spiral", "bar": "strong",
"ring": "none"}. "none" is only ever said in the last sentences of a caption and in its negatives; the summary has none
of it. Which of several wordings is used follows from the object's id and a seed alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from galsearch.errors import SchemaError
from galsearch.language.negation import negator

T = TypeVar("T")
NONE = "none"  # the value of an aspect that is absent
MOST_ADJECTIVES, MOST_THINGS = 3, 5  # in the summary


class Phrase(NamedTuple):
    """Ways to say one thing: before the noun, after "with", as a sentence of its own."""

    adjectives: tuple[str, ...] = ()
    things: tuple[str, ...] = ()
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caption:
    """What is said of one galaxy: all of it, one sentence without negations, and the attributes said to be absent."""

    text: str
    summary: str
    negatives: tuple[str, ...]


KINDS: dict[str, tuple[str, ...]] = {
    "elliptical": ("elliptical galaxy", "smooth elliptical galaxy", "early-type elliptical galaxy"),
    "lenticular": ("lenticular galaxy", "lenticular disk galaxy", "lenticular (S0) galaxy"),
    "spiral": ("spiral galaxy", "spiral disk galaxy", "late-type spiral galaxy"),
    "early spiral": ("spiral galaxy", "early-type spiral galaxy", "spiral disk galaxy"),
    "disk": ("disk galaxy", "galaxy with a disk"),
    "irregular": ("irregular galaxy", "clumpy irregular galaxy"),
    "dwarf": ("dwarf galaxy", "faint dwarf galaxy"),
    "merger": ("merging system", "pair of merging galaxies", "galaxy merger"),
    "lens": ("gravitational lens", "galaxy that acts as a gravitational lens"),
    "star": ("star", "stellar point source"),
    "artifact": ("image artifact", "instrumental artifact"),
    "galaxy": ("galaxy",),
}

# In the order in which a caption speaks of them.
PHRASES: dict[str, dict[str, Phrase]] = {
    "color": {
        "red": Phrase(("red", "reddish"), (), ("Its light is red.", "The overall color is red.")),
        "blue": Phrase(("blue", "bluish"), (), ("Its light is blue.", "The overall color is blue.")),
    },
    "brightness": {
        "bright": Phrase(("bright", "luminous"), (), ("It is among the brightest here.",)),
        "faint": Phrase(("faint",), (), ("It is among the faintest here.",)),
    },
    "size": {
        "large": Phrase(("large", "extended"), (), ("It covers much of the picture.", "It is large on the sky.")),
        "small": Phrase(("small", "compact"), (), ("It is compact.", "It is small on the sky.")),
    },
    "roundness": {
        "round": Phrase(("round", "circular"), (), ("Its outline is round.", "The shape is nearly circular.")),
        "oval": Phrase(
            ("oval", "slightly elongated"), (), ("Its outline is oval.", "The shape is slightly elongated.")
        ),
        "cigar": Phrase(
            ("cigar-shaped", "highly elongated"),
            (),
            ("Its outline is cigar-shaped.", "The shape is highly elongated."),
        ),
    },
    "view": {
        "edge-on": Phrase(("edge-on",), (), ("The disk is seen edge-on.", "The view is edge-on.")),
        "inclined": Phrase(
            ("moderately inclined",), (), ("The disk is moderately inclined.", "It is seen at an intermediate angle.")
        ),
        "face-on": Phrase(("face-on",), (), ("The disk is seen face-on.", "The view is nearly face-on.")),
    },
    "bar": {
        "strong": Phrase(
            ("strongly barred",),
            ("a strong bar", "a strong central bar", "a prominent bar"),
            ("A strong bar crosses the center.", "The bar is long and prominent."),
        ),
        "weak": Phrase(
            ("weakly barred",),
            ("a weak bar", "a short weak bar"),
            ("A weak bar crosses the center.", "The bar is short and weak."),
        ),
        "present": Phrase(("barred",), ("a bar", "a central bar"), ("A bar crosses the center.",)),
    },
    "arms": {
        "strong": Phrase(
            (),
            ("strong spiral arms", "prominent spiral arms", "well-defined spiral arms"),
            ("The spiral arms are prominent.", "Strong spiral arms wind around the center."),
        ),
        "weak": Phrase(
            (), ("weak spiral arms", "soft spiral arms"), ("The spiral arms are weak.", "The spiral structure is soft.")
        ),
        "present": Phrase(
            (), ("spiral arms", "spiral structure"), ("Spiral arms wind around the center.", "It has spiral arms.")
        ),
    },
    "winding": {
        "tight": Phrase(("tightly wound",), ("tightly wound arms",), ("The arms are tightly wound.",)),
        "medium": Phrase((), ("moderately wound arms",), ("The arms are moderately wound.",)),
        "loose": Phrase(("loosely wound",), ("loosely wound arms",), ("The arms are loosely wound and open.",)),
    },
    "arm_count": {
        "1": Phrase((), ("one spiral arm",), ("A single spiral arm dominates.",)),
        "2": Phrase((), ("two spiral arms",), ("It has two spiral arms.", "Two arms dominate.")),
        "3": Phrase((), ("three spiral arms",), ("It has three spiral arms.",)),
        "4": Phrase((), ("four spiral arms",), ("It has four spiral arms.",)),
        "many": Phrase((), ("multiple spiral arms", "many spiral arms"), ("It has multiple spiral arms.",)),
    },
    "flocculence": {
        "strong": Phrase(
            ("flocculent",), ("flocculent arms",), ("The arms are flocculent.", "The spiral pattern is patchy.")
        ),
    },
    "bulge": {
        "dominant": Phrase(
            ("bulge-dominated",), ("a dominant bulge",), ("The galaxy is bulge-dominated.", "It has a dominant bulge.")
        ),
        "large": Phrase(
            (), ("a large bulge", "a prominent bulge"), ("It has a large bulge.", "A large bulge fills the center.")
        ),
        "moderate": Phrase(
            (), ("a moderate bulge", "a medium bulge"), ("It has a moderate bulge.", "A medium bulge fills the center.")
        ),
        "small": Phrase(
            (), ("a small bulge", "a compact small bulge"), ("It has a small bulge.", "A small bulge marks the center.")
        ),
    },
    "edge_bulge": {
        "rounded": Phrase(
            (), ("a rounded central bulge",), ("It has a rounded bulge.", "A round bulge stands out of the disk.")
        ),
        "boxy": Phrase((), ("a boxy bulge",), ("It has a boxy bulge.", "The bulge is boxy.")),
    },
    "inner_ring": {
        "present": Phrase((), ("an inner ring",), ("An inner ring surrounds the center.",)),
    },
    "outer_ring": {
        "present": Phrase((), ("an outer ring",), ("An outer ring surrounds the disk.",)),
    },
    "ring": {
        "present": Phrase(("ringed",), ("a ring", "a bright ring"), ("A ring surrounds the center.",)),
    },
    "dust": {
        "strong": Phrase(
            ("dusty",),
            ("a prominent dust lane", "much dust"),
            ("Dust lanes are prominent.", "Dust obscures part of the light."),
        ),
        "weak": Phrase((), ("faint dust lanes", "some dust"), ("Some dust is visible.",)),
        "present": Phrase(("dusty",), ("dust", "dust lanes"), ("Dust is visible.",)),
    },
    "knots": {
        "present": Phrase(
            ("clumpy",),
            ("bright star-forming knots", "star-forming regions"),
            ("Bright star-forming knots are visible.", "Star-forming regions stand out."),
        ),
    },
    "light": {
        "concentrated": Phrase(
            (), ("a bright concentrated center",), ("The light is concentrated toward the center.",)
        ),
        "diffuse": Phrase(("diffuse",), ("a diffuse light profile",), ("The light is spread out and diffuse.",)),
    },
    "disturbance": {
        "merger": Phrase(
            ("merging",),
            ("tidal features of a merger",),
            ("It is merging with another galaxy.", "Tidal features show a merger."),
        ),
        "strong": Phrase(
            ("severely disturbed",),
            ("a severely disturbed shape", "a strongly asymmetric, distorted shape"),
            ("It is severely disturbed.",),
        ),
        "mild": Phrase(
            ("asymmetric",), ("an asymmetric outline", "a slightly disturbed outline"), ("It is slightly disturbed.",)
        ),
        "regular": Phrase(
            ("symmetric", "regular"), ("a regular, symmetric shape",), ("Its shape is regular and symmetric.",)
        ),
    },
    "companions": {
        "one": Phrase((), ("a close companion",), ("A companion lies close by.",)),
        "several": Phrase((), ("several close companions",), ("Several companions lie close by.",)),
    },
}

# What is said of an aspect that is absent: the attribute, as it is stored, and how it is called in a sentence.
ABSENT: dict[str, tuple[str, str]] = {
    "arms": ("spiral arms", "spiral arms"),
    "bar": ("bar", "bar"),
    "bulge": ("bulge", "bulge"),
    "edge_bulge": ("bulge", "central bulge"),
    "inner_ring": ("inner ring", "inner ring"),
    "outer_ring": ("outer ring", "outer ring"),
    "ring": ("ring", "ring"),
    "dust": ("dust", "dust lane"),
    "knots": ("star-forming knots", "star-forming knots"),
    "disturbance": ("merger", "merger"),
    "companions": ("companion", "close companion"),
}
_OPENINGS = ("{A} {what}.", "This is {a} {what}.", "The picture shows {a} {what}.", "The central object is {a} {what}.")
_ABSENCES = ("No {one} is visible.", "There is no {one}.", "It shows no {one}.")
_ABSENCES_OF_MANY = ("No {many} are visible.", "There are no {many}.", "It shows no {many}.")
_VOWELS = "aeiou"
ARMS = ("arms", "winding", "arm_count", "flocculence")  # one phrase of the summary; without the first, none
_STRENGTHS = {"strong": ("strong", "prominent", "well-defined"), "weak": ("weak", "soft"), "present": ("",)}
_COUNTS = {"1": "one", "2": "two", "3": "three", "4": "four", "many": "multiple"}
_WINDINGS = {"tight": "tightly wound", "medium": "moderately wound", "loose": "loosely wound"}


def write(stated: Mapping[str, str], *, object_id: str, seed: int) -> Caption | None:
    """Return the caption of what is stated; None where it says nothing.

    Raises SchemaError for an aspect or a value that has no words.
    """
    check_statements(stated)
    if not stated:
        return None
    dice = _Dice(object_id, seed)
    what = _what(stated, dice)
    summary = _opening(what, dice)
    sentences = [_opening(_noun(stated, dice), dice), *_clauses(stated, dice)]
    absent = [aspect for aspect, value in stated.items() if value == NONE]
    sentences += [_absence(ABSENT[aspect][1], dice) for aspect in sorted(absent, key=list(PHRASES).index)]
    if "kind" not in stated and len(stated) == len(absent):
        summary = _opening("galaxy", dice)
    assert negator(summary) is None  # the words above hold none
    return Caption(" ".join(sentences), summary, tuple(sorted({ABSENT[aspect][0] for aspect in absent})))


def check_statements(stated: Mapping[str, str]) -> None:
    """Raise SchemaError for an aspect or a value that has no words."""
    for aspect, value in stated.items():
        if aspect == "kind":
            known: Sequence[str] = list(KINDS)
        else:
            known = [*PHRASES.get(aspect, ()), *([NONE] if aspect in ABSENT else [])]
        if value not in known:
            raise SchemaError(
                f"'{aspect}: {value}' has no words; "
                + (f"of '{aspect}' there are {', '.join(known)}" if known else f"say kind, {', '.join(PHRASES)}")
            )


def _what(stated: Mapping[str, str], dice: _Dice) -> str:
    """Return the words of the summary after its article."""
    adjectives, things, open_aspects = [], [], []
    for aspect, phrase in _phrases(stated):
        if aspect in ARMS:
            things += [_arms(stated)] if aspect == ARMS[0] else []
        elif phrase.adjectives and phrase.things:
            open_aspects.append((aspect, phrase))
        elif phrase.adjectives:
            adjectives.append(phrase.adjectives)
        elif phrase.things:
            things.append(phrase.things)
    for _, phrase in open_aspects:  # what can stand on either side stands where there is room
        before = len(adjectives) < MOST_ADJECTIVES and dice.pick((True, False))
        (adjectives if before else things).append(phrase.adjectives if before else phrase.things)
    chosen = [dice.pick(options) for options in dice.some(adjectives, MOST_ADJECTIVES)]
    noun = dice.pick(KINDS[stated.get("kind", "galaxy")])
    noun = noun if not set(noun.split()) & {word for one in chosen for word in one.split()} else _plain(stated)
    after = dice.shuffled([dice.pick(options) for options in dice.some(things, MOST_THINGS)])
    words = " ".join([*chosen, noun])
    if not after:
        return words
    return f"{words} {'and' if ' with ' in noun else 'with'} {_listed(after)}"


def _arms(stated: Mapping[str, str]) -> tuple[str, ...]:
    """Return ways to speak of the arms: how many, how strong and how tightly wound they are."""
    count, winding = _COUNTS.get(stated.get("arm_count", ""), ""), _WINDINGS.get(stated.get("winding", ""), "")
    noun = "spiral arm" if count == "one" else "spiral arms"
    patchy = "flocculent" if stated.get("flocculence") == "strong" else ""
    return tuple(
        " ".join(filter(None, (count, strength, patchy, winding, noun))) for strength in _STRENGTHS[stated["arms"]]
    )


def _plain(stated: Mapping[str, str]) -> str:
    return KINDS[stated.get("kind", "galaxy")][0]


def _noun(stated: Mapping[str, str], dice: _Dice) -> str:
    return dice.pick(KINDS[stated.get("kind", "galaxy")])


def _phrases(stated: Mapping[str, str]) -> Iterator[tuple[str, Phrase]]:
    for aspect, phrases in PHRASES.items():
        value = stated.get(aspect, NONE)
        if value != NONE:
            yield aspect, phrases[value]


def _clauses(stated: Mapping[str, str], dice: _Dice) -> list[str]:
    return dice.shuffled([dice.pick(phrase.clauses) for _, phrase in _phrases(stated)])


def _absence(thing: str, dice: _Dice) -> str:
    many = thing.endswith(("arms", "knots"))
    return dice.pick(_ABSENCES_OF_MANY if many else _ABSENCES).format(one=thing, many=thing)


def _opening(what: str, dice: _Dice) -> str:
    a = "an" if what[0].lower() in _VOWELS else "a"
    return dice.pick(_OPENINGS).format(A=a.capitalize(), a=a, what=what)


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


class _Dice:
    """Choices that follow from an id and a seed: a stream of SHA-256, the same on every machine and version."""

    def __init__(self, object_id: str, seed: int) -> None:
        self._key = f"{seed}\0{object_id}"
        self._thrown = 0

    def _number(self, below: int) -> int:
        digest = hashlib.sha256(f"{self._key}\0{self._thrown}".encode()).digest()
        self._thrown += 1
        return int.from_bytes(digest[:8], "big") % below

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self._number(len(options))]

    def some(self, items: Sequence[T], most: int) -> list[T]:
        """Return at most so many of the items, in their order."""
        kept = sorted(self.shuffled(list(range(len(items))))[:most])
        return [items[index] for index in kept]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in another order."""
        rest, result = list(items), []
        while rest:
            result.append(rest.pop(self._number(len(rest))))
        return result
