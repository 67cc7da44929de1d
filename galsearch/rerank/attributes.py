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

from galsearch.language import Understanding

ARC = "arc_contrast"  # measured when it is asked for, by galsearch.rerank.arcs; all others are columns


@dataclass(frozen=True)
class Attribute:
    """Something to ask for: a name, the words for it, and the measures that show it with their signs."""

    name: str
    words: str
    measures: tuple[tuple[str, int], ...]


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "spiral",
        r"\bspirals?\b|\b(?:spiral|winding) arms?\b|\bpinwheel|\bgrand design|\barms\b",
        (("arm_strength", 1), ("color_gradient", -1)),
    ),
    Attribute(
        "elliptical",
        r"\bellipticals?\b|\bspheroid|\bearly[- ]type\b|\be-type\b|\bfeatureless\b|\bred and dead\b|"
        r"\bsmooth (?:round|ball)",
        (("arm_strength", -1), ("color_gradient", 1), ("sersic_n", 1), ("m20", -1)),
    ),
    Attribute(
        "edge-on",
        r"\bedge[- ]?on\b|\bfrom (?:the|its) (?:side|edge)\b|\bneedle|\bspindle|\bhighly inclined\b|\bvery flat\b|"
        r"\binclination of 90\b",
        (("axis_ratio", -1),),
    ),
    Attribute(
        "face-on",
        r"\bface[- ]?on\b|\bfrom above\b|\bpole[- ]on\b|\bnot tilted\b|\bfaces? the observer\b",
        (("axis_ratio", 1),),
    ),
    Attribute("barred", r"\bbar(?:red|s)?\b", (("bar_strength", 1),)),
    Attribute("unbarred", r"", (("bar_strength", -1), ("arm_strength", 1))),
    Attribute("ring", r"(?<!einstein )\bring(?:s|ed)?\b|\bring-shaped\b|\bencircled\b", (("ring_contrast", 1),)),
    Attribute(
        "irregular",
        r"\birregulars?\b|\bshapeless\b|\bmagellanic\b|\bchaotic\b|\bragged\b",
        (("asymmetry", 1), ("smoothness", 1), ("concentration", -1)),
    ),
    Attribute("dusty", r"\bdust(?:y|s)?\b", (("color_br", 1),)),
    Attribute("flocculent", r"\bfloccul|\bpatchy\b|\bfluffy\b|\bwoolly\b|\bfragmented\b", (("smoothness", 1),)),
    Attribute(
        "merging",
        r"\bmerg(?:er|ers|ing|ed)\b|\binteract|\bcollid|\bcollision|\btidal\b|\btorn apart\b|\btwo nuclei\b",
        (("asymmetry", 1), ("companions", 1)),
    ),
    Attribute("lens", r"\blens(?:es|ed|ing)?\b|\barcs?\b|\beinstein\b", ((ARC, 1),)),
)
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
