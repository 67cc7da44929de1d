"""HEALPix pixels in the nested order: which one holds a position, where they lie, how far they reach; coverage maps.

Górski et al. (2005, ApJ 622, 759), sections 4 and 5. Only what catalogs in partitions and coverage maps need.
"""

from __future__ import annotations

import json

import numpy as np

from galsearch.errors import QueryError

MAX_ORDER = 29  # the deepest whose numbers fit in 62 bits
_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])  # of the southern corner of each base pixel, in sides
_LONGITUDE = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])  # of its center, in eighths of a circle


def pixel_centers(order: int, pixels: np.ndarray) -> np.ndarray:
    """Return ra, dec of the centers of nested pixels in degrees, `(2, n) float64`.

    Raises QueryError for an order outside 0 to 29 and for pixels that it does not have.

    >>> pixel_centers(0, [4]).tolist()
    [[0.0], [0.0]]
    """
    pixels = np.asarray(pixels, np.int64)
    if not 0 <= order <= MAX_ORDER or (pixels < 0).any() or (pixels >= 12 * 4**order).any():
        raise QueryError(
            f"HEALPix order {order} has no such pixel; orders are 0 to {MAX_ORDER}, pixels below 12 x 4^order"
        )
    side = 1 << order
    face, inside = pixels >> (2 * order), pixels & (side * side - 1)
    x, y = _every_second_bit(inside), _every_second_bit(inside >> 1)
    ring = _RING[face] * side - x - y - 1
    north, south = ring < side, ring > 3 * side
    in_ring = np.where(north, ring, np.where(south, 4 * side - ring, side))  # a quarter of the pixels of that ring
    cap = in_ring.astype(np.float64) ** 2 / (3.0 * side * side)
    height = np.where(north, 1 - cap, np.where(south, cap - 1, (2 * side - ring) * 2 / (3.0 * side)))
    shift = np.where(north | south, 0, (ring - side) & 1)
    step = (_LONGITUDE[face] * in_ring + x - y + 1 + shift) // 2
    step = np.where(step > 4 * in_ring, step - 4 * in_ring, np.where(step < 1, step + 4 * in_ring, step))
    ra = (step - (shift + 1) / 2) * 90.0 / in_ring
    # near a pole the arc sine loses what the cap keeps: cos of the declination is sqrt(cap (2 - cap))
    polar = np.degrees(np.arctan2(height, np.sqrt(np.maximum(cap * (2 - cap), 0))))
    dec = np.where(north | south, polar, np.degrees(np.arcsin(np.clip(height, -1, 1))))
    return np.stack([ra % 360, dec])


def pixels_of(order: int, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the nested pixels `(n,) int64` of an order that positions are in, degrees, right ascension in any turn.

    Raises QueryError for an order outside 0 to 29 and for what is no position.

    >>> pixels_of(1, [10.0], [5.0]).tolist()
    [17]
    """
    ra, dec = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
    if not 0 <= order <= MAX_ORDER or not np.isfinite(ra).all() or not (np.abs(dec) <= 90).all():
        raise QueryError(f"HEALPix order {order} or a position is none; orders are 0 to {MAX_ORDER}, dec -90 to 90")
    side = 1 << order
    quarter = np.mod(ra, 360) / 90 % 4  # a tiny negative angle comes out as a whole turn
    height = np.sin(np.radians(dec))
    up, down = side * (0.5 + quarter), side * height * 0.75
    rising, falling = np.floor(up - down).astype(np.int64), np.floor(up + down).astype(np.int64)
    high, low = rising // side, falling // side
    face = np.where(high == low, high % 4 + 4, np.where(high < low, high % 4, low % 4 + 8))
    x, y = falling % side, side - rising % side - 1
    # near a pole the cosine keeps what 1 - sin loses
    cap = side * np.cos(np.radians(dec)) * np.sqrt(3 / (1 + np.abs(height)))
    base = np.minimum(quarter.astype(np.int64), 3)
    first = np.minimum(((quarter - base) * cap).astype(np.int64), side - 1)
    second = np.minimum(((1 - (quarter - base)) * cap).astype(np.int64), side - 1)
    polar, north = np.abs(height) > 2 / 3, height > 0
    face = np.where(polar, np.where(north, base, base + 8), face)
    x = np.where(polar, np.where(north, side - second - 1, first), x)
    y = np.where(polar, np.where(north, side - first - 1, second), y)
    return (face << (2 * order)) + _spread(x) + (_spread(y) << 1)


def coverage(order: int, pixels: np.ndarray) -> str:
    """Return the coverage map (IVOA MOC 2, JSON) of nested pixels: four that fill a larger one are that one.

    >>> coverage(1, np.array([0, 1, 2, 3, 7]))
    '{"0": [0], "1": [7]}'
    """
    held, result = np.unique(np.asarray(pixels, np.int64)), {}
    for level in range(order, 0, -1):
        parents, counts = np.unique(held >> 2, return_counts=True)
        whole = parents[counts == 4]
        result[str(level)] = held[~np.isin(held >> 2, whole)].tolist()
        held = whole
    result["0"] = held.tolist()
    parts = {level: cells for level, cells in sorted(result.items(), key=lambda item: int(item[0])) if cells}
    parts.setdefault(str(order), [])  # a map states how fine it is
    return json.dumps(parts)


def pixel_reach(order: int) -> float:
    """Return the largest angle in degrees from the center of any pixel of an order to one of its corners."""
    side = 1 << order
    center = _vector(2 / 3, np.pi / (4 * side))
    corner = _vector(1 - (1 - 1 / side) ** 2 / 3, 0.0)
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(center, corner)), center @ corner)))


def _vector(height: float, longitude: float) -> np.ndarray:
    flat = np.sqrt(1 - height * height)
    return np.array([flat * np.cos(longitude), flat * np.sin(longitude), height])


def _spread(values: np.ndarray) -> np.ndarray:
    """Return numbers below 2^31 with a zero bit after each of theirs."""
    bits = np.asarray(values, np.int64)
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        bits = (bits | (bits << shift)) & mask
    return bits


def _every_second_bit(values: np.ndarray) -> np.ndarray:
    """Return the even bits of 62-bit numbers, put together."""
    bits = values & 0x5555555555555555
    for shift, mask in (
        (1, 0x3333333333333333),
        (2, 0x0F0F0F0F0F0F0F0F),
        (4, 0x00FF00FF00FF00FF),
        (8, 0x0000FFFF0000FFFF),
        (16, 0x00000000FFFFFFFF),
    ):
        bits = (bits | (bits >> shift)) & mask
    return bits
