"""Positions and ranges as the parameters of DALI, SIA and SSA write them, as conditions on the galaxies."""

from __future__ import annotations

import math
from collections.abc import Callable

from galsearch.adql import geometry
from galsearch.errors import QueryError

GALAXY = geometry.Point("ra", "dec")


def numbers(text: str, name: str, *, count: int | None = None) -> list[float]:
    """Return finite numbers that stand in a text. Raises QueryError for anything else."""
    try:
        result = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        result = [math.nan]
    if not all(map(math.isfinite, result)) or (count is not None and len(result) != count):
        raise QueryError(f"{name} is {text!r:.80}, expected {count or 'some'} numbers")
    return result


def within(text: str) -> str:
    """Return the condition of a POS of SIA 2: CIRCLE ra dec r, RANGE ra1 ra2 dec1 dec2 or POLYGON ra1 dec1 …"""
    kind, _, rest = text.strip().partition(" ")
    if kind.upper() not in _KINDS:
        raise QueryError(f"POS is {text!r:.80}, expected CIRCLE ra dec radius, RANGE ra1 ra2 dec1 dec2 or POLYGON …")
    return _KINDS[kind.upper()](rest)


def _circle(text: str) -> str:
    ra, dec, radius = numbers(text, "POS=CIRCLE", count=3)
    return cone(ra, dec, radius)


def cone(ra: float, dec: float, radius: float) -> str:
    """Return the condition of a cone in degrees."""
    if not (-90 <= dec <= 90 and 0 <= radius <= 180):
        raise QueryError(f"the cone has declination {dec:g} and radius {radius:g}, expected -90 to 90 and 0 to 180")
    circle = geometry.Circle(geometry.Point(repr(ra), repr(dec)), repr(radius))
    return geometry.contains(GALAXY, circle)


def _range(text: str) -> str:
    parts = text.split()
    limits = {"-INF": -1e9, "+INF": 1e9, "INF": 1e9}
    plain = " ".join(str(limits.get(part.upper(), part)) for part in parts)
    west, east, south, north = numbers(plain, "POS=RANGE", count=4)
    return f"(ra BETWEEN {west!r} AND {east!r} AND dec BETWEEN {south!r} AND {north!r})"


def _polygon(text: str) -> str:
    given = numbers(text, "POS=POLYGON")
    if len(given) < 6 or len(given) % 2 or len(given) > 200:
        raise QueryError(f"POS=POLYGON has {len(given)} numbers, expected 3 to 100 pairs")
    corners = tuple(geometry.Point(repr(given[i]), repr(given[i + 1])) for i in range(0, len(given), 2))
    return geometry.contains(GALAXY, geometry.Polygon(corners))


_KINDS: dict[str, Callable[[str], str]] = {"CIRCLE": _circle, "RANGE": _range, "POLYGON": _polygon}
