"""HEALPix pixels in the nested order: where they lie, how far they reach, which one holds a position; coverage maps.

Górski et al. (2005, ApJ 622, 759), sections 4 and 5. Only what finding pixels by positions needs.
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
    """Return the nested pixel of each position in degrees, `(n,) int64`; QueryError for an order outside 0 to 29.

    >>> pixels_of(0, np.array([45.0, 0.0]), np.array([80.0, 0.0])).tolist()
    [0, 4]
    """
    if not 0 <= order <= MAX_ORDER:
        raise QueryError(f"HEALPix order is {order}, expected 0 to {MAX_ORDER}")
    side = 1 << order
    height, polar = np.sin(np.radians(dec)), np.cos(np.radians(dec))
    quarter = np.asarray(ra, np.float64) % 360 / 90
    belt = np.abs(height) <= 2 / 3
    up = np.floor(side * (0.5 + quarter - height * 0.75)).astype(np.int64)
    down = np.floor(side * (0.5 + quarter + height * 0.75)).astype(np.int64)
    first, second = up >> order, down >> order
    face = np.where(first == second, first | 4, np.where(first < second, first, second + 8))
    x, y = down & (side - 1), side - (up & (side - 1)) - 1
    # near a pole 1 - |height| loses what the cosine of the declination keeps
    base = np.minimum(np.floor(quarter).astype(np.int64), 3)
    within = quarter - base
    across = side * polar * np.sqrt(3 / (1 + np.abs(height)))
    left = np.clip((within * across).astype(np.int64), 0, side - 1)
    right = np.clip(((1 - within) * across).astype(np.int64), 0, side - 1)
    north = height >= 0
    x = np.where(belt, x, np.where(north, side - right - 1, left))
    y = np.where(belt, y, np.where(north, side - left - 1, right))
    face = np.where(belt, face, np.where(north, base, base + 8))
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
