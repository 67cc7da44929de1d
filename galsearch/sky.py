"""Positions on the sky: separations, unit vectors, and positions written as text.

Degrees in, ICRS; arcseconds out for separations. Vectorized numpy, right at the poles, across right ascension
0 and for antipodes. Nothing here converts between frames.
"""

from __future__ import annotations

import re

import numpy as np

from galsearch.errors import QueryError

ARCSEC = np.degrees(1.0) * 3600  # arcseconds in a radian


def separation_arcsec(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Return the angle between positions in arcseconds; arguments in degrees broadcast, NaN stays NaN.

    Vincenty's (1975, Survey Review 23, 88) formula with equal axes: the arc tangent keeps full precision from
    microarcseconds to 180 degrees, where the cosine and haversine forms lose theirs.

    >>> float(separation_arcsec(359.9999, 0, 0.0001, 0).round(6))
    0.72
    """
    step = np.radians(np.asarray(ra2, dtype=float) - np.asarray(ra1, dtype=float))
    first, second = np.radians(np.asarray(dec1, dtype=float)), np.radians(np.asarray(dec2, dtype=float))
    across = np.cos(second) * np.sin(step)
    # cos d1 sin d2 - sin d1 cos d2 cos step, written so that nearly equal terms are not subtracted
    along = np.sin(second - first) + 2 * np.sin(first) * np.cos(second) * np.sin(step / 2) ** 2
    inner = np.sin(first) * np.sin(second) + np.cos(first) * np.cos(second) * np.cos(step)
    return np.arctan2(np.hypot(across, along), inner) * ARCSEC


def unit_vectors(ra, dec) -> np.ndarray:
    """Return (n, 3) float64 unit vectors of degrees: x to (0, 0), y to (90, 0), z to the north pole."""
    ra, dec = np.broadcast_arrays(np.radians(np.atleast_1d(ra)), np.radians(np.atleast_1d(dec)))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def check_position(ra: float, dec: float) -> tuple[float, float]:
    """Return the position with a right ascension of 360 taken as 0; QueryError outside 0..360 and -90..90."""
    if not 0 <= ra <= 360:
        raise QueryError(f"right ascension {ra} is not within 0 to 360 degrees; hours are written 00h42m44s")
    if not -90 <= dec <= 90:
        raise QueryError(f"declination {dec} is not within -90 to 90 degrees; right ascension comes first")
    return float(ra % 360), float(dec)


def parse_position(text: str) -> tuple[float, float]:
    """Return (ra, dec) in degrees of a position written in decimal degrees or sexagesimal.

    Taken are "10.68 41.27", "10.68, +41.27", "10.68d 41.27d", "00h42m44s +41d16m09s", "00:42:44 +41:16:09"
    and "00 42 44 +41 16 09". A right ascension in two or three parts is in hours unless it is marked with d
    or °. Raises QueryError for anything else; names are not looked up.

    >>> parse_position("12h30m00s -45d30m")
    (187.5, -45.5)
    """
    first, second = _halves(text)
    ra_marks_degrees = re.search(r"[d°]", first)
    hours = "h" in first or (len(_parts(first)) > 1 and not ra_marks_degrees)
    if "h" in second:
        raise _unreadable(text)
    ra, dec = _angle(first, text), _angle(second, text)
    return check_position(ra * 15 if hours else ra, dec)


def _halves(text: str) -> tuple[str, str]:
    plain = text.strip().lower().translate(str.maketrans({"−": "-", "′": "'", "″": '"'}))
    if plain.count(",") == 1:
        first, second = plain.split(",")
        return first.strip(), second.strip()
    words = plain.split()
    if len(words) == 2:
        return words[0], words[1]
    signed = re.split(r"(?<=[\dhmsd°'\".])\s*(?=[+-])", plain)
    if len(signed) == 2:
        return signed[0], signed[1]
    if len(words) in (4, 6):
        half = len(words) // 2
        return " ".join(words[:half]), " ".join(words[half:])
    raise _unreadable(text)


def _parts(angle: str) -> list[str]:
    return re.sub(r"[hdms:°'\"]", " ", angle).split()


def _angle(angle: str, text: str) -> float:
    """Return the value of one to three parts, each in sixtieths of the one before."""
    parts = _parts(angle)
    number = r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?" if len(parts) == 1 else r"[+-]?\d+"
    tail_is_number = all(re.fullmatch(r"\d+" if part is not parts[-1] else r"\d+\.?\d*", part) for part in parts[1:])
    if not 1 <= len(parts) <= 3 or not re.fullmatch(number, parts[0]) or not tail_is_number:
        raise _unreadable(text)
    if any(float(part) >= 60 for part in parts[1:]):
        raise QueryError(f"position {text!r}: minutes and seconds must be below 60")
    size = sum(abs(float(part)) / 60**power for power, part in enumerate(parts))
    return -size if parts[0].startswith("-") else size


def _unreadable(text: str) -> QueryError:
    return QueryError(
        f"position {text!r} is not readable; write degrees as '10.68 41.27' or sexagesimal as '00h42m44s +41d16m09s'"
    )
