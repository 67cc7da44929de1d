"""How a picture is looked at again: the parts that are cut out of it, each encoded as it is and mirrored.

One vector of the whole frame says little of what fills a tenth of it. Here a picture gives a unit vector at a scale of
`SCALES`: the mean over its crops and their mirror images, so that neither the side nor the place decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from galsearch.encode import Encoder

CLOSE, CORE, CORNER = 0.7, 0.5, 0.6  # sides of the crops, as shares of the frame's
SCALES: dict[str, tuple[tuple[float, float, float], ...]] = {  # name -> (side, x, y), x and y from -1 to 1
    "whole": ((1.0, 0, 0),),
    "close": ((CLOSE, 0, 0),),
    "core": ((CORE, 0, 0),),
    "corners": ((CORNER, -1, -1), (CORNER, 1, -1), (CORNER, -1, 1), (CORNER, 1, 1)),
}
SMALLEST_PX = 8  # of a crop's side


def look(encoder: Encoder, pictures: Sequence[np.ndarray], scale: str) -> np.ndarray:
    """Return the unit vectors `(n, d) float32` of square pictures `(s, s, 3) uint8` at one scale."""
    crops = 2 * len(SCALES[scale])
    means = encoder.encode(_crops(pictures, scale)).reshape(len(pictures), crops, encoder.dim).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def crop(rgb: np.ndarray, side: float, x: float, y: float) -> np.ndarray:
    """Return a square part of a square picture, a view; (0, 0) is the center, (-1, -1) the first row and column."""
    whole = len(rgb)
    size = min(whole, max(SMALLEST_PX, round(side * whole)))
    left, top = (round((whole - size) * (1 + offset) / 2) for offset in (x, y))
    return rgb[top : top + size, left : left + size]


def _crops(pictures: Iterable[np.ndarray], scale: str) -> Iterator[np.ndarray]:
    for rgb in pictures:
        for offset in SCALES[scale]:
            part = crop(rgb, *offset)
            yield np.ascontiguousarray(part)
            yield np.ascontiguousarray(part[:, ::-1])
