"""Positions on the sky: separations, unit vectors, and positions written as text.

Degrees in, ICRS; arcseconds out for separations. Vectorized numpy, right at the poles, across right ascension
0 and for antipodes. Nothing here converts between frames. Also the cross-match of two catalogs, by zones, and
how likely a match is by chance.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from galsearch.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from scipy.spatial import cKDTree

ARCSEC = np.degrees(1.0) * 3600  # arcseconds in a radian
HALF_TURN = 180 * 3600  # arcseconds

# Cross-match. Memory: about 100 bytes a pair that is looked at, 24 a pair that is returned.
MODES = ("best", "all")
MAX_PAIRS = 10_000_000
BLOCK_ROWS = 1 << 16
BLOCK_PAIRS = 1 << 18
CROWDED = 32  # right places in reach, above which a tree finds the closest sooner than comparing them
HEIGHT_IN_RADII = 3  # of a zone: most cones then lie in one or two, and few places in it are out of reach
LEAST_HEIGHT = 1 / 3600  # degrees
ZONE_STEP = 512.0  # from zone to zone in the sorting key: a power of two above 360, so that zones cannot touch

NEIGHBORS = 10  # beyond the excluded cone, of which the last says how dense a catalog is: good to a third
CROWD = 64  # positions in the excluded cone, from which on they say it themselves

# What is looked at is wider than the radius by more than the rounding of what is compared (degrees, but the last).
DEC_SLACK = 1e-6 / 3600
RA_SLACK = 1e-6  # a key is at most 648,000 x 512, where doubles are 6e-8 apart
CHORD_ERROR = 4e-15  # of unit vectors, whose coordinates are good to 1e-16


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
    """Return the position with 360 added to a right ascension below 0, and 360 taken as 0.

    Raises QueryError outside -180..360 and -90..90.
    """
    if not -180 <= ra <= 360:
        raise QueryError(f"right ascension {ra} is not within -180 to 360 degrees; hours are written 00h42m44s")
    if not -90 <= dec <= 90:
        raise QueryError(f"declination {dec} is not within -90 to 90 degrees; right ascension comes first")
    return float(ra % 360) % 360.0, float(dec)  # twice: -1e-20 % 360 is 360


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
    plain = text.strip().lower().translate(str.maketrans("−′″", "-'\""))
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


# ---- cross-match


class Pairs(NamedTuple):
    """Matched positions: row numbers of both sides `(n,) int64` and their separations `(n,) float64`."""

    left: np.ndarray
    right: np.ndarray
    separation_arcsec: np.ndarray


_NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def crossmatch(
    ra: ArrayLike,
    dec: ArrayLike,
    other_ra: ArrayLike,
    other_dec: ArrayLike,
    *,
    radius_arcsec: ArrayLike,
    mode: str = "best",
    max_pairs: int = MAX_PAIRS,
) -> Pairs:
    """Return the pairs of positions that lie within a radius of each other, ordered by left, separation, right.

    Positions are degrees of one frame, `(n,)` on the left and `(m,)` on the right; any right ascension is taken modulo
    360. `radius_arcsec` is inclusive: one number, or one for each row of the left side. "best" keeps the closest right
    row of each left row, of equally close ones the lowest; "all" keeps every pair. NaN and masked positions match
    nothing. Separations are those of `separation_arcsec`.

    Raises QueryError for positions off the sphere, a radius outside 0 to 648000, and more than `max_pairs` pairs:
    `crossmatch_blocks` gives any number of them piece by piece.

    >>> crossmatch([0.0, 90.0], [0.0, 0.0], [359.9999, 10.0], [0.0, 0.0], radius_arcsec=1).separation_arcsec.round(6)
    array([0.36])
    """
    parts, total = [], 0
    blocks = crossmatch_blocks(ra, dec, other_ra, other_dec, radius_arcsec=radius_arcsec, mode=mode)
    for part in blocks:
        total += len(part.left)
        if mode == "all" and total > max_pairs:
            raise QueryError(
                f"more than {max_pairs} pairs lie within the radius, which is the most that are held in memory; "
                "take a smaller radius, fewer rows, or mode 'best'"
            )
        parts.append(part)
    return Pairs(*map(np.concatenate, zip(_NO_PAIRS, *parts, strict=True)))


def crossmatch_blocks(
    ra: ArrayLike,
    dec: ArrayLike,
    other_ra: ArrayLike,
    other_dec: ArrayLike,
    *,
    radius_arcsec: ArrayLike,
    mode: str = "best",
) -> Iterator[Pairs]:
    """Return an iterator over what `crossmatch` returns, in the same order, in pieces of bounded size.

    A left row is never split: a piece holds at most 262,144 pairs (BLOCK_PAIRS) and those of one row more. What is
    wrong with the arguments is raised at once.
    """
    if mode not in MODES:
        raise QueryError(f"mode is {mode!r}, expected 'best' (the closest of each row) or 'all' (every pair)")
    left, right = _positions(ra, dec, "left"), _positions(other_ra, other_dec, "right")
    radius = check_radii(radius_arcsec, rows=np.size(ra))[left.rows]
    return _matched(left, right, radius, best=mode == "best")


class _Positions(NamedTuple):
    """The positions that are finite, in degrees with 0 <= ra <= 360, and the rows that they stand in."""

    ra: np.ndarray
    dec: np.ndarray
    rows: np.ndarray

    def take(self, kept: np.ndarray | slice) -> _Positions:
        return _Positions(*(values[kept] for values in self))


def _positions(ra: ArrayLike, dec: ArrayLike, side: str) -> _Positions:
    ra, dec = _floats(ra, f"ra of the {side} side"), _floats(dec, f"dec of the {side} side")
    if ra.shape != dec.shape:
        raise QueryError(f"the {side} side has {ra.size} ra and {dec.size} dec; every position needs both")
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    result = _Positions(np.mod(ra[rows], 360), dec[rows], rows)
    if len(rows) and np.abs(result.dec).max() > 90:
        row = np.abs(result.dec).argmax()
        raise QueryError(
            f"dec of the {side} side is {result.dec[row]} in row {rows[row]}, expected -90 to 90 degrees; "
            "right ascension comes first"
        )
    return result


def _floats(values: ArrayLike, name: str) -> np.ndarray:
    """Return numbers as `(n,) float64`, masked ones as NaN."""
    try:
        result = np.ma.filled(np.ma.asarray(values).astype(np.float64), np.nan)
    except (TypeError, ValueError):
        raise QueryError(f"{name} is not made of numbers; positions are decimal degrees, see parse_position") from None
    if result.ndim != 1:
        raise QueryError(f"{name} has shape {result.shape}, expected one dimension")
    return result


def check_radii(radius_arcsec: ArrayLike, *, rows: int) -> np.ndarray:
    """Return one radius for each row, `(rows,) float64`; QueryError outside 0 to 648000 arcseconds."""
    given = _floats(np.atleast_1d(radius_arcsec), "radius_arcsec")
    if given.shape not in ((1,), (rows,)):
        raise QueryError(f"radius_arcsec has shape {given.shape}, expected one number or {rows}, one for each left row")
    if not np.all((given >= 0) & (given <= HALF_TURN)):  # false for NaN too
        wrong = given[~((given >= 0) & (given <= HALF_TURN))][0]
        raise QueryError(f"radius_arcsec is {wrong}, expected 0 to {HALF_TURN} (180 degrees)")
    return np.broadcast_to(given, rows)


def _matched(left: _Positions, right: _Positions, radius: np.ndarray, *, best: bool) -> Iterator[Pairs]:
    if not len(left.rows) or not len(right.rows):
        return
    zones = _Zones(right, height=HEIGHT_IN_RADII * radius.mean() / 3600)
    for start in range(0, len(left.rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        yield from (_best if best else _all)(zones, left.take(part), radius[part])


def _all(zones: _Zones, left: _Positions, radius: np.ndarray) -> Iterator[Pairs]:
    """Yield every pair, whole left rows at a time, few enough of them to bound the pairs to look at."""
    runs = zones.runs(left, radius)
    sizes = np.bincount(runs.left, runs.size, len(left.rows)).astype(np.int64)
    group = _groups(sizes)[runs.left]
    for kept in _equal(group):
        yield _sorted(zones.within(runs.take(kept), left, radius))


def _groups(sizes: np.ndarray) -> np.ndarray:
    """Return a group number for each item, not falling, so that a group has about BLOCK_PAIRS in all, or one item."""
    return (np.cumsum(sizes) - sizes) // BLOCK_PAIRS


def _equal(numbers: np.ndarray) -> list[np.ndarray]:
    """Return the places of each run of equal numbers."""
    return np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers)) + 1)


def _best(zones: _Zones, left: _Positions, radius: np.ndarray) -> Iterator[Pairs]:
    """Yield the closest pair of each left row; where the radius takes in many, a tree finds it."""
    runs = zones.runs(left, radius)
    crowded = np.bincount(runs.left, runs.size, len(left.rows)) > CROWDED
    result = zones.within(runs.take(~crowded[runs.left]), left, radius)
    if crowded.any():
        result += zones.closest(left.take(crowded), radius[crowded])
    pairs = _sorted(result)
    first = np.diff(pairs.left, prepend=-1) > 0
    yield Pairs(*(values[first] for values in pairs))


def _sorted(parts: list[Pairs]) -> Pairs:
    pairs = Pairs(*map(np.concatenate, zip(_NO_PAIRS, *parts, strict=True)))
    order = np.lexsort((pairs.right, pairs.separation_arcsec, pairs.left))
    return Pairs(*(values[order] for values in pairs))


class _Runs(NamedTuple):
    """For a left place, by its number, a run of sorted right places that may lie within its radius."""

    left: np.ndarray
    first: np.ndarray
    size: np.ndarray

    def take(self, kept: np.ndarray) -> _Runs:
        return _Runs(*(values[kept] for values in self))

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the pairs (left, sorted right) of all runs, at most BLOCK_PAIRS at a time; runs may be cut."""
        ends = np.cumsum(self.size)
        starts = ends - self.size
        for begin in range(0, int(self.size.sum()), BLOCK_PAIRS):
            end = min(begin + BLOCK_PAIRS, int(ends[-1]))
            among = slice(np.searchsorted(ends, begin, side="right"), np.searchsorted(starts, end))
            sizes = np.minimum(ends[among], end) - np.maximum(starts[among], begin)
            shift = np.repeat(self.first[among] - starts[among], sizes)
            yield np.repeat(self.left[among], sizes), np.arange(begin, end) + shift


class _Zones:
    """Places in bands of declination, and by right ascension within each, so that a cone is a few runs of them.

    Zones as in Gray, Nieto-Santisteban & Szalay (2006, Microsoft Research MSR-TR-2006-52). What is cut out of them is
    a little wider than the cone; the separation decides.
    """

    def __init__(self, indices: _Positions, *, height: float) -> None:
        self._height = min(max(height, LEAST_HEIGHT), 180.0)
        key = self._key(self._zone(indices.dec), indices.ra)
        order = np.argsort(key, kind="stable")
        self._keys = key[order]
        self._positions = indices.take(order)
        self._vectors = unit_vectors(self._positions.ra, self._positions.dec)
        self._zone_range = self._zone(indices.dec.min()), self._zone(indices.dec.max())

    def _zone(self, dec: np.ndarray) -> np.ndarray:
        return np.floor((dec + 90) / self._height)

    @staticmethod
    def _key(zone: np.ndarray, ra: np.ndarray) -> np.ndarray:
        return zone * ZONE_STEP + ra

    def runs(self, left: _Positions, radius: np.ndarray) -> _Runs:
        """Return where to look for what lies within `radius` (arcseconds) of each place, ordered by left."""
        reach = radius / 3600 + DEC_SLACK
        span, low, high = _ra_spans(left.ra, _ra_reach(left.dec, reach) + RA_SLACK)
        bottom = np.maximum(self._zone(left.dec - reach), self._zone_range[0])[span]
        top = np.minimum(self._zone(left.dec + reach), self._zone_range[1])[span]
        count = np.maximum(top - bottom + 1, 0).astype(np.int64)
        zone = np.repeat(bottom - (np.cumsum(count) - count), count) + np.arange(count.sum())
        first = np.searchsorted(self._keys, self._key(zone, np.repeat(low, count)))
        last_key = self._key(zone, np.repeat(high, count))
        some = np.flatnonzero(self._keys[np.minimum(first, len(self._keys) - 1)] <= last_key)
        some = some[first[some] < len(self._keys)]
        size = np.searchsorted(self._keys, last_key[some], side="right") - first[some]
        runs = _Runs(np.repeat(span, count)[some], first[some], size)
        return runs.take(np.argsort(runs.left, kind="stable"))

    def within(self, runs: _Runs, left: _Positions, radius: np.ndarray) -> list[Pairs]:
        """Return the pairs of `runs` that do lie within `radius`, in no order."""
        vectors, chord = unit_vectors(left.ra, left.dec), _chord(radius)
        result = []
        for row, index in runs.pairs():
            step = vectors[row] - self._vectors[index]
            near = np.einsum("ij,ij->i", step, step) <= chord[row] ** 2
            result.append(self._measured(row[near], index[near], left, radius))
        return result

    def _measured(self, row: np.ndarray, index: np.ndarray, left: _Positions, radius: np.ndarray) -> Pairs:
        """Return those of the pairs that lie within `radius`, by their separation."""
        right = self._positions
        separation = separation_arcsec(left.ra[row], left.dec[row], right.ra[index], right.dec[index])
        kept = separation <= radius[row]
        return Pairs(left.rows[row[kept]], right.rows[index[kept]], separation[kept])

    @functools.cached_property
    def _tree(self) -> tuple[cKDTree, np.ndarray]:
        """A tree of the places, of coinciding ones the first row, and their numbers."""
        from scipy.spatial import cKDTree

        ra, dec, rows = self._positions
        order = np.lexsort((rows, dec, ra))
        new = np.append(True, (np.diff(ra[order]) != 0) | (np.diff(dec[order]) != 0))
        return cKDTree(self._vectors[order[new]]), order[new]

    def closest(self, left: _Positions, radius: np.ndarray) -> list[Pairs]:
        """Return, in no order, the closest pair of each left place, and those that may be as close as that one."""
        tree, numbers = self._tree
        vectors, chord = unit_vectors(left.ra, left.dec), _chord(radius)
        bound = chord.max() * (1 + 1e-9) + CHORD_ERROR  # which the tree excludes
        distance, node = tree.query(vectors, k=[1, 2], distance_upper_bound=bound)
        some = np.isfinite(distance[:, 0])
        tied = some & (distance[:, 1] <= distance[:, 0] + CHORD_ERROR)
        alone = np.flatnonzero(some & ~tied)
        result = [self._measured(alone, numbers[node[alone, 0]], left, radius)]
        tied, reach = np.flatnonzero(tied), distance[tied, 0] + CHORD_ERROR
        sizes = tree.query_ball_point(vectors[tied], reach, return_length=True)
        for part in _equal(_groups(sizes)) if len(tied) else ():
            nodes = np.concatenate(tree.query_ball_point(vectors[tied[part]], reach[part])).astype(np.int64)
            result.append(self._measured(np.repeat(tied[part], sizes[part]), numbers[nodes], left, radius))
        return result


# ---- chance


def surface_density(
    ra: ArrayLike,
    dec: ArrayLike,
    other_ra: ArrayLike,
    other_dec: ArrayLike,
    *,
    beyond_arcsec: ArrayLike,
    within_arcsec: float | None = None,
) -> np.ndarray:
    """Return how many other positions there are per square arcsecond around each position, `(n,) float64`.

    What lies within `beyond_arcsec` (one number, or one for each) is left out: it may be what the position is matched
    with. (k - 1) / area is the unbiased estimate where the k-th of the others, the 10th, bounds the area (for a
    Poisson process). Where others are known only `within_arcsec` and there are fewer, it is (their number
    + 1) / area, so never 0. Equal positions count once. NaN for a position that is NaN.
    """
    left, right = _positions(ra, dec, "left"), _positions(other_ra, other_dec, "right")
    beyond = _cap(check_radii(beyond_arcsec, rows=np.size(ra))[left.rows])
    result = np.full(np.size(ra), np.nan)
    reach = 4 * np.pi if within_arcsec is None else float(_cap(np.array([within_arcsec]))[0])
    if not len(right.rows):
        result[left.rows] = 1 / np.maximum(reach - beyond, 1e-18)
    elif len(left.rows):
        result[left.rows] = _density(left, right, beyond, reach)
    return result / ARCSEC**2


def _density(left: _Positions, right: _Positions, beyond: np.ndarray, reach: float) -> np.ndarray:
    """Return how many other positions there are per steradian; caps are areas in steradians."""
    from scipy.spatial import cKDTree

    vectors = unit_vectors(left.ra, left.dec)
    tree = cKDTree(np.unique(unit_vectors(right.ra, right.dec), axis=0))
    radius = np.sqrt(beyond / np.pi)
    inside = tree.query_ball_point(vectors, radius + CHORD_ERROR, return_length=True)
    result = inside / np.maximum(beyond, 1e-18)
    for number in np.unique(inside[inside < CROWD]).tolist():
        rows = np.flatnonzero(inside == number)
        last = np.minimum(np.pi * tree.query(vectors[rows], k=[number + NEIGHBORS])[0][:, 0] ** 2, 4 * np.pi + 1)
        few = last > reach
        area = np.where(few, reach, last) - beyond[rows]
        around = tree.query_ball_point(vectors[rows], np.sqrt(reach / np.pi), return_length=True) if few.any() else 0
        count = np.where(few, around - number + 1, NEIGHBORS - 1)
        result[rows] = count / np.maximum(area, 1e-18)
    return result


def _cap(radius_arcsec: np.ndarray) -> np.ndarray:
    """Return the area on the sphere within a radius, in steradians."""
    return 4 * np.pi * np.sin(np.radians(radius_arcsec / 3600) / 2) ** 2


def chance_probability(density: ArrayLike, radius_arcsec: ArrayLike) -> np.ndarray:
    """Return the probability that any of unrelated positions lies within a radius: 1 - exp(-density x area).

    `density` is per square arcsecond; the area is that of the cap on the sphere, pi r^2 for small r.

    >>> chance_probability(1 / 3600, 10.0).round(4).item()
    0.0836
    """
    area = _cap(np.asarray(radius_arcsec, np.float64)) * ARCSEC**2
    return -np.expm1(-np.asarray(density, np.float64) * area)


def _chord(radius_arcsec: np.ndarray) -> np.ndarray:
    """Return the distance of unit vectors that far apart, with room for the rounding of the vectors."""
    return 2 * np.sin(np.radians(radius_arcsec / 3600) / 2) + CHORD_ERROR


def _ra_reach(dec: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return how far from its center in right ascension a cone reaches, in degrees; 180 where a pole is in it.

    Gray et al. (2006), section 3: sin r / cos d as a tangent, which keeps its precision for a reach near 90 degrees.
    """
    cosines = np.cos(np.radians(dec - reach)) * np.cos(np.radians(dec + reach))
    width = np.degrees(np.arctan2(np.sin(np.radians(reach)), np.sqrt(np.maximum(cosines, 0))))
    return np.where(np.abs(dec) + reach >= 90, 180.0, width)


def _ra_spans(ra: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (row, low, high): the right ascensions within `reach`, in two spans where they pass through 0."""
    whole = reach >= 180
    low, high = np.where(whole, 0, ra - reach), np.where(whole, 360, ra + reach)
    below, above = np.flatnonzero(low < 0), np.flatnonzero(high > 360)
    row = np.concatenate([np.arange(len(ra)), below, above])
    return (
        row,
        np.concatenate([low, low[below] + 360, np.zeros(len(above))]),
        np.concatenate([high, np.full(len(below), 360.0), high[above] - 360]),
    )
