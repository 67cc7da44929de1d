"""Reads measured columns into what can be said of a galaxy: the thresholds, and what they are relative to.

No person has looked at the galaxy. A column that an atlas does not have, or that is NULL, says nothing. Thresholds are
absolute where physics gives them, else shares of the atlas's own galaxies (stars and artifacts left out), because blur,
depth and stretch shift what is measured from one set of pictures to the next; of fewer than `ENOUGH` galaxies no share
is taken. They were set by hand, looking at one half of EFIGI and of Galaxy Zoo 1 (benchmarks/captioners.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ENOUGH = 20  # galaxies of an atlas with a value, below which no share of them is taken
FLATTEST_ELLIPTICAL = 0.3  # axis ratio of E7: what is flatter is a disk from the side
EDGE_ON = 0.4  # with the thickness of a disk and some blur
FACE_ON = 0.8  # cos(37 deg)
ROUND, CIGAR = 0.85, 0.5  # axis ratios between which a smooth galaxy is oval
MANY_VOTES = 2.0
COLUMNS = (
    *("axis_ratio", "concentration", "gini", "m20", "asymmetry", "arm_strength", "arm_pitch", "bar_strength"),
    *("ring_contrast", "color_gradient", "color_gr", "color_br", "companions", "snr", "brightness", "radius_px"),
    *("radius_arcsec", "sersic_n", "smoothness", "is_star", "is_artifact"),
)
# What speaks for a disk and what for a smooth spheroid: column, value up to which, value from which, weight of the vote
# for a disk (negative: for a spheroid) on the low side. None: the share of the atlas in `_SHARES`.
_VOTES = (
    ("m20", -1.66, -1.56, -1.0),  # light in bright clumps away from the center
    ("gini", 0.39, 0.44, 1.0),  # light in few pixels
    ("color_gradient", -0.15, -0.08, 1.0),  # disks are bluer outside
    ("axis_ratio", 0.45, 0.75, 1.0),
)
_SHARES = (  # column, share of the atlas up to which, from which, weight on the low side
    ("arm_strength", 0.4, 0.65, -1.5),
    ("asymmetry", 0.35, 0.7, -0.5),
    ("color_gr", 0.5, 0.8, 1.0),
)


class Shares:
    """Where a value stands among the galaxies of an atlas."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take columns of numbers, `(n,)` with NaN where missing."""
        known = {name: np.sort(values[np.isfinite(values)]) for name, values in columns.items()}
        self._values = {name: values for name, values in known.items() if len(values) >= ENOUGH and np.ptp(values) > 0}

    def of(self, name: str, value: float | None) -> float | None:
        """Return the share of the atlas below a value, ties counted half; None where it is not known."""
        values = self._values.get(name)
        if value is None or values is None:
            return None
        low, high = np.searchsorted(values, value, side="left"), np.searchsorted(values, value, side="right")
        return float(low + high) / 2 / len(values)


def say(row: Mapping[str, Any], shares: Shares) -> dict[str, str]:
    """Return what the measures of a row say: aspects and their values."""
    value = {name: _number(row.get(name)) for name in COLUMNS}
    if row.get("is_artifact"):
        return {"kind": "artifact"}
    if row.get("is_star"):
        return {"kind": "star"}
    if all(value[name] is None for name in COLUMNS):
        return {}
    share = {name: shares.of(name, value[name]) for name in COLUMNS}
    lean = _lean(value, share)
    stated = _form(value, share, lean) | _light(value, share) | _surroundings(value, share)
    return {aspect: what for aspect, what in stated.items() if what is not None}


def _lean(value: Mapping[str, float | None], share: Mapping[str, float | None]) -> float | None:
    """Return how far votes lean to a disk (above 0) or a spheroid; None where none is cast."""
    cast = []
    for kind, votes in ((value, _VOTES), (share, _SHARES)):
        for name, low, high, weight in votes:
            if (result := kind[name]) is not None:
                cast.append(weight if result <= low else -weight if result >= high else 0.0)
    ratio = value["axis_ratio"]
    if ratio is not None and ratio < FLATTEST_ELLIPTICAL:
        return MANY_VOTES
    return sum(cast) if len(cast) >= 2 else None


def _form(value: Mapping[str, float | None], share: Mapping[str, float | None], lean: float | None) -> dict:
    ratio = value["axis_ratio"]
    if ratio is not None and ratio < EDGE_ON and (lean is None or lean > -MANY_VOTES):
        return {"kind": "disk", "view": "edge-on", "edge_bulge": _edge_bulge(value)}
    if lean is None:
        return {"roundness": _roundness(ratio)}
    if lean <= 0:
        return {
            "kind": "elliptical" if lean <= -1 else "lenticular",
            "roundness": _roundness(ratio),
            "arms": "none" if lean <= -MANY_VOTES else None,
        }
    arms = _arms(share["arm_strength"], value["arm_strength"])
    return {
        "kind": "spiral" if arms not in (None, "none") else "disk",
        "view": None if ratio is None else "face-on" if ratio >= FACE_ON else "inclined",
        "arms": arms,
        "winding": _winding(value["arm_pitch"]) if arms in ("present", "strong") else None,
        "bar": _bar(value["bar_strength"], share["bar_strength"]),
        "bulge": _bulge(value["concentration"], share["concentration"]),
        "ring": _above(share["ring_contrast"], value["ring_contrast"], 0.93, 0.2, "present"),
    }


def _roundness(ratio: float | None) -> str | None:
    return None if ratio is None else "round" if ratio >= ROUND else "oval" if ratio >= CIGAR else "cigar"


def _edge_bulge(value: Mapping[str, float | None]) -> str | None:
    """Return whether a bulge sticks out: light from the side is concentrated by one, and by the disk's own shape."""
    gini = value["gini"]
    return None if gini is None else "rounded" if gini >= 0.42 else None


def _arms(share: float | None, strength: float | None) -> str | None:
    if strength is None:
        return None
    if share is None:  # the contrast of noise stays below a tenth
        return "strong" if strength >= 0.2 else "present" if strength >= 0.12 else "none" if strength < 0.05 else None
    return "strong" if share >= 0.85 else "present" if share >= 0.4 else "none"


def _winding(pitch: float | None) -> str | None:
    if pitch is None:
        return None
    return "tight" if abs(pitch) < 15 else "loose" if abs(pitch) > 25 else "medium"


def _bar(strength: float | None, share: float | None) -> str | None:
    """Return how strong a bar is: the two-fold part of the inner light that keeps its angle, 0 to 1."""
    if strength is None:
        return None
    rare = share is None or share >= 0.6
    return "strong" if strength >= 0.15 and rare else "weak" if strength >= 0.11 and rare else "none"


def _bulge(concentration: float | None, share: float | None) -> str | None:
    if concentration is None:
        return None
    if share is None:
        return "large" if concentration >= 2.7 else "small" if concentration < 2.2 else None
    return "large" if share >= 0.8 else "moderate" if share >= 0.4 else "small"


def _light(value: Mapping[str, float | None], share: Mapping[str, float | None]) -> dict:
    color = share["color_gr"] if share["color_gr"] is not None else share["color_br"]
    size = share["radius_arcsec"] if share["radius_arcsec"] is not None else share["radius_px"]
    ends = {
        "color": (color, "blue", "red"),
        "size": (size, "small", "large"),
        "brightness": (share["brightness"], "faint", "bright"),
    }
    return {
        aspect: None if rank is None else low if rank < 0.12 else high if rank > 0.88 else None
        for aspect, (rank, low, high) in ends.items()
    }


def _surroundings(value: Mapping[str, float | None], share: Mapping[str, float | None]) -> dict:
    asymmetry, rank, count = value["asymmetry"], share["asymmetry"], value["companions"]
    shape = None
    if asymmetry is not None and rank is not None:
        strong = rank >= 0.97 and asymmetry >= 0.25
        shape = "strong" if strong else "mild" if rank >= 0.93 and asymmetry >= 0.12 else "regular"
    return {
        "disturbance": shape,
        "companions": None if not count else "one" if count == 1 else "several",
    }


def _above(share: float | None, value: float | None, rank: float, least: float, stated: str) -> str | None:
    """Return `said` where a value is both rare in the atlas and large."""
    return stated if share is not None and value is not None and share >= rank and value >= least else None


def _number(value: float | str | None) -> float | None:
    if value is None or isinstance(value, str):
        return None
    number = float(value)
    return number if np.isfinite(number) else None
