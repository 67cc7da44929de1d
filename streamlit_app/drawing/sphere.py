"""The whole sky on a page: equal-area cells that objects are counted in, and the ellipse they are drawn in.

Cells are HEALPix in its nested order (Górski et al. 2005, ApJ 622, 759): an order o has 12 · 4^o. The ellipse is the
Mollweide projection; places in it are parts of the rectangle around it, from 0 to 1, y from above, and right ascension
grows to the left. Both are done by astropy and its packages.
"""

from __future__ import annotations

import numpy as np
from astropy import units
from astropy.wcs import WCS
from astropy_healpix import lonlat_to_healpix, nside_to_pixel_area
from mocpy import MOC

from drawing.density import Window

WIDTH_DEG, HEIGHT_DEG = np.degrees(4 * np.sqrt(2)), np.degrees(2 * np.sqrt(2))  # of the ellipse in the plane of FITS
SAMPLES = 33  # of a rectangle's sides, when it is looked up on the sky


# ---- cells


def width_deg(order: int) -> float:
    """Return the square root of the area of a cell."""
    return float(np.sqrt(nside_to_pixel_area(2**order).to_value(units.deg**2)))


def cell_of(ra: np.ndarray, dec: np.ndarray, *, order: int) -> np.ndarray:
    """Return the nested number of the cell of positions in degrees, `(n,) int64`."""
    return lonlat_to_healpix(ra * units.deg, dec * units.deg, 2**order, order="nested")


def moc(cells: np.ndarray, *, order: int) -> str:
    """Return the coverage map (IVOA MOC, JSON) of nested cells."""
    return MOC.from_healpix_cells(cells.astype(np.uint64), np.uint8(order), order).to_string("json")


# ---- the ellipse


def project(ra: np.ndarray, dec: np.ndarray, *, center: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y `(n,)` of positions in degrees."""
    x, y = _plane(center).wcs_world2pix(np.asarray(ra, float), np.asarray(dec, float), 0)
    return x, 1 - y


def unproject(x: np.ndarray, y: np.ndarray, *, center: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ra, dec in degrees of places, and which of them lie in the ellipse; those outside are NaN."""
    ra, dec = _plane(center).wcs_pix2world(np.asarray(x, float), 1 - np.asarray(y, float), 0)
    return ra, dec, np.isfinite(ra)


def _plane(center: float) -> WCS:
    plane = WCS(naxis=2)
    plane.wcs.ctype = "RA---MOL", "DEC--MOL"
    plane.wcs.crval = center, 0.0
    plane.wcs.crpix = 1.5, 1.5  # the center is (0.5, 0.5) where the first pixel is 0
    plane.wcs.cdelt = -WIDTH_DEG, HEIGHT_DEG
    return plane


def place(ra: float, dec: float, *, center: float) -> tuple[float, float]:
    """Return where one position lies."""
    x, y = project(np.array([ra]), np.array([dec]), center=center)
    return float(x[0]), float(y[0])


def sky_of_pixels(width: int, height: int, *, center: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ra and dec of the pixels of a picture that lie in the ellipse, and which do, `(height, width) bool`."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    ra, dec, inside = unproject(x, y, center=center)
    return ra[inside], dec[inside], inside


def graticule() -> list[list[list[float]]]:
    """Return lines every 60 degrees of right ascension and 30 of declination, the rim with them."""
    heights, turns = np.linspace(-90, 90, 61), np.linspace(-180, 180, 61)
    rims = [(np.full(61, turn), heights) for turn in (-179.999, -120, -60, 0, 60, 120, 179.999)]
    circles = [(np.clip(turns, -179.999, 179.999), np.full(61, dec)) for dec in (-60, -30, 0, 30, 60)]
    found = []
    for ra, dec in rims + circles:
        x, y = project(ra, dec, center=0.0)
        found.append([[round(float(a), 4), round(float(b), 4)] for a, b in zip(x, y, strict=True)])
    return found


def window_of(box: dict[str, float], *, center: float, about: float) -> Window | None:
    """Return the smallest rectangle in ra and dec around a part of the picture; None where that is off the sky.

    Right ascensions are those within 180 degrees of `about`.
    """
    x, y = np.meshgrid(np.linspace(box["x0"], box["x1"], SAMPLES), np.linspace(box["y0"], box["y1"], SAMPLES))
    ra, dec, inside = unproject(x, y, center=center)
    if inside.sum() < 2:
        return None
    near = np.mod(ra[inside] - about + 180, 360) - 180 + about
    return Window(float(near.min()), float(near.max()), float(dec[inside].min()), float(dec[inside].max()))
