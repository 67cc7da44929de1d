"""Which words ask for something that is measured, and how well an object's measures answer them.

The words are read by `galsearch.language` first: abbreviations are written out, and what is not wanted is apart.
A measure is compared with those of a sample of the atlas and becomes a normal score, so that blur, depth and stretch of
the pictures do not matter; what is NULL says nothing, for or against, and counts as the middle of the sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from galsearch.language.parser import Understanding
from galsearch.language.vocabulary import QUERY_ATTRIBUTES

ARC = "arc_contrast"  # measured when it is asked for, by galsearch.rerank.arcs; all others are columns


@dataclass(frozen=True)
class Attribute:
    """Something to ask for: a name, the words for it, and the measures that show it with their signs."""

    name: str
    words: str
    measures: tuple[tuple[str, int], ...]


MEASURES: dict[str, tuple[tuple[str, int], ...]] = {
    "spiral": (("arm_strength", 1), ("color_gradient", -1)),
    "elliptical": (("arm_strength", -1), ("color_gradient", 1), ("sersic_n", 1), ("m20", -1)),
    "edge-on": (("axis_ratio", -1),),
    "face-on": (("axis_ratio", 1),),
    "barred": (("bar_strength", 1),),
    "unbarred": (("bar_strength", -1), ("arm_strength", 1)),
    "ring": (("ring_contrast", 1),),
    "irregular": (("asymmetry", 1), ("smoothness", 1), ("concentration", -1)),
    "dusty": (("color_br", 1),),
    "flocculent": (("smoothness", 1),),
    "merging": (("asymmetry", 1), ("companions", 1)),
    "lens": ((ARC, 1),),
}
ATTRIBUTES = tuple(Attribute(name, QUERY_ATTRIBUTES[name], measures) for name, measures in MEASURES.items())
BY_NAME = {each.name: each for each in ATTRIBUTES}
KINDS, PARTS = {"spiral", "elliptical"}, {"barred", "unbarred", "ring", "flocculent", "lens"}
ABSENT = {"barred": "unbarred"}  # what is asked for where the attribute is not wanted
_PATTERNS = {each.name: re.compile(each.words) for each in ATTRIBUTES if each.words}


def requested(reading: Understanding) -> tuple[Attribute, ...]:
    """Return the attributes that a reading asks for, in the order of ATTRIBUTES.

    Of what is not wanted only that which ABSENT has a name for. A kind of galaxy is left out beside a part of it:
    "barred spiral" asks for the bar, "an arc around an elliptical" for the arc.
    """
    meanings = " ".join(one.meaning for one in reading.expansions)
    wanted = _named(f"{reading.wanted} {meanings}".casefold())
    unwanted = _named(" ".join(map(str, reading.unwanted)).casefold())
    names = (wanted - unwanted) | {ABSENT[name] for name in unwanted if name in ABSENT}
    if names & PARTS:
        names -= KINDS
    return tuple(each for each in ATTRIBUTES if each.name in names)


def _named(text: str) -> set[str]:
    return {name for name, pattern in _PATTERNS.items() if pattern.search(text)}


def match(attribute: Attribute, values: Mapping[str, np.ndarray], usual: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return how well objects answer to an attribute, `(n,) float64`: the mean normal score of its measures.

    `values` and `usual` have each measure, NaN where missing, of the objects and of a sample. Measures that are not
    there are left out; None where none is. The sum is scaled so that independent measures give deviation 1.
    """
    result = [
        sign * normal_scores(values[name], usual[name])
        for name, sign in attribute.measures
        if name in values and np.isfinite(usual[name]).any()
    ]
    return np.sum(result, axis=0) / np.sqrt(len(result)) if result else None


def normal_scores(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return the normal quantile of each value's place in a sample; 0, its middle, for NaN."""
    sample = np.sort(usual[np.isfinite(usual)])
    below, upto = (np.searchsorted(sample, values, side=side) for side in ("left", "right"))
    share = ((below + upto) / 2 + 0.5) / (len(sample) + 1)
    quantile = NormalDist().inv_cdf
    return np.array([quantile(one) if known else 0.0 for one, known in zip(share, np.isfinite(values), strict=True)])


def columns_of(attributes: Iterable[Attribute]) -> list[str]:
    """Return the columns that attributes are measured by, each once."""
    return list(dict.fromkeys(name for each in attributes for name, _ in each.measures if name != ARC))
