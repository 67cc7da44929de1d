"""Random positions, uniform on the sphere: on the whole sky, in a cone, or between right ascensions and declinations.

Uniform in degrees is not uniform on the sky: the poles would get most of it. Here the sine of the declination is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from galsearch.errors import QueryError
from galsearch.science.sky import check_position

BLOCK = 4096  # positions drawn at a time, so that the n-th is the same whatever was drawn before


@dataclass(frozen=True)
class Region:
    """A part of the sky: `cone` (ra, dec, radius in degrees), `box` (ra from, ra to, dec from, dec to), or all of it.

    A box whose right ascensions fall goes across 0.
    """

    cone: tuple[float, float, float] | None = None
    box: tuple[float, float, float, float] | None = None

    def check(self) -> Region:
        """Return the region; QueryError for one that is not on the sky, or for two at once."""
        if self.cone is not None and self.box is not None:
            raise QueryError("a cone and a box are given; a region is one of them")
        if self.cone is not None:
            check_position(*self.cone[:2])
            if not 0 < self.cone[2] <= 180:
                raise QueryError(f"the radius of the cone is {self.cone[2]} degrees, expected above 0 and up to 180")
        if self.box is not None:
            for ra, dec in (self.box[::2], self.box[1::2]):
                check_position(ra, dec)
            if not self.box[2] < self.box[3] or self.box[0] == self.box[1]:
                raise QueryError(f"box {list(self.box)} is empty; write [ra from, ra to, dec from, dec to]")
        return self

    def draw(self, start: int, stop: int, *, seed: int) -> np.ndarray:
        """Return the positions numbered `start` to `stop`, `(n, 2)` degrees ICRS: uniform on the sphere.

        Position number i depends on the region, the seed and i alone.
        """
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        if not blocks:
            return np.empty((0, 2))
        drawn = np.concatenate([self._of(np.random.default_rng([seed, block]).random((BLOCK, 2))) for block in blocks])
        return drawn[start - blocks.start * BLOCK : stop - blocks.start * BLOCK]

    def _of(self, uniform: np.ndarray) -> np.ndarray:
        """Return positions of numbers that are uniform in a unit square."""
        if self.cone is not None:
            return _in_cone(uniform, *self.cone)
        west, east, south, north = self.box or (0.0, 360.0, -90.0, 90.0)
        width = (east - west) % 360.0 or 360.0
        low, high = np.sin(np.radians([south, north]))
        dec = np.degrees(np.arcsin(np.clip(low + (high - low) * uniform[:, 1], -1, 1)))
        return np.stack([(west + width * uniform[:, 0]) % 360.0, dec], axis=1)


def _in_cone(uniform: np.ndarray, ra: float, dec: float, radius: float) -> np.ndarray:
    """Return positions in a cone: the cosine of the distance is uniform, as is the angle around the center."""
    distance = 2 * np.arcsin(np.sqrt(uniform[:, 1]) * np.sin(np.radians(radius) / 2))
    around = 2 * np.pi * uniform[:, 0]
    center = np.radians(dec)
    sine = np.sin(center) * np.cos(distance) + np.cos(center) * np.sin(distance) * np.cos(around)
    lat = np.arcsin(np.clip(sine, -1, 1))
    step = np.arctan2(
        np.sin(around) * np.sin(distance) * np.cos(center), np.cos(distance) - np.sin(center) * np.sin(lat)
    )
    return np.stack([(ra + np.degrees(step)) % 360.0, np.degrees(lat)], axis=1)
