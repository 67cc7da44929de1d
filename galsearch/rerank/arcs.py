"""Arcs around the center of a picture: how much a part of a circle stands out from what lies inside and outside of it.

What an atlas measures at build has no such column, because only few objects of any atlas are ever asked about arcs.
"""

from __future__ import annotations

import numpy as np

from galsearch.science import images

SIDE_PX = 64  # to which a picture is brought
REACH = 0.36  # of the side: circles up to this radius; the arcs of a group lie further out
GAP_PX = 3  # between an arc and what it is compared with, on either side
ANGLES = 72
ARC_ANGLES = 9  # 45 degrees, over which an arc is averaged


def arc_contrast(rgb: np.ndarray) -> float:
    """Return by how much of the full scale the best arc of a picture `(h, w, 3) uint8` stands out, in its last band.

    The last band is the bluest. An arc is an eighth of a circle about the center of the frame; what it must be brighter
    than is the brighter of both neighbors, inside and outside. Negative where the light falls everywhere.
    """
    blue = images.model_input([rgb], SIDE_PX)[0, :, :, 2] / 255.0
    circles = _circles(blue)
    inner, outer = circles[: -2 * GAP_PX], circles[2 * GAP_PX :]
    above = circles[GAP_PX:-GAP_PX] - np.maximum(inner, outer)
    around = np.concatenate([above, above[:, : ARC_ANGLES - 1]], axis=1)
    sums = np.cumsum(np.pad(around, ((0, 0), (1, 0))), axis=1)
    return float((sums[:, ARC_ANGLES:] - sums[:, :-ARC_ANGLES]).max() / ARC_ANGLES)


def _circles(plane: np.ndarray) -> np.ndarray:
    """Return `plane` along circles about its center, `(radii, ANGLES)`, radii from 1 in steps of a pixel."""
    center = (len(plane) - 1) / 2
    radius = np.arange(1.0, REACH * len(plane))[:, None]
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    y, x = center + radius * np.sin(angle), center + radius * np.cos(angle)
    row, column = y.astype(int), x.astype(int)
    down, right = y - row, x - column
    upper = plane[row, column] * (1 - right) + plane[row, column + 1] * right
    lower = plane[row + 1, column] * (1 - right) + plane[row + 1, column + 1] * right
    return upper * (1 - down) + lower * down
