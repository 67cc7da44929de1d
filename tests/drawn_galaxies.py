"""Galaxies that tests draw to be told apart and found again: a tilted disk with clumps and field stars."""

from __future__ import annotations

import numpy as np

SIDE = 64
MIDDLE = (SIDE - 1) / 2


def galaxy(seed: int, *, turn: float = 0.0, shift: tuple[float, float] = (0, 0), flip: bool = False) -> np.ndarray:
    """Draw a tilted disk with clumps and field stars, `(64, 64, 3) uint8`, turned about the middle, then shifted."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - MIDDLE
    y, x = y - shift[0], x - shift[1]
    y, x = np.cos(turn) * y + np.sin(turn) * x, np.cos(turn) * x - np.sin(turn) * y
    x = -x if flip else x
    ratio, size = rng.uniform(0.4, 0.9), rng.uniform(4, 8)
    light = 200 * np.exp(-np.hypot(x, y / ratio) / size)
    for _ in range(12):
        at, bright = rng.uniform(-22, 22, 2), rng.uniform(20, 90)
        light += bright * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / rng.uniform(2, 8))
    return np.repeat(np.clip(light + 20, 0, 255)[..., None], 3, axis=2).astype(np.uint8)
