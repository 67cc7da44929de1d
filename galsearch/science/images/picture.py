"""A picture and where its pixels lie on the sky.

The module hides FITS world coordinates: which keys of a header count, the frames they may name, distortions, and
what astropy prints and raises about them. astropy is imported when first needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from galsearch.errors import SchemaError
from galsearch.science.bounded import bad
from galsearch.science.fits_units import quiet

if TYPE_CHECKING:
    from astropy.wcs import WCS

RGB = ("R", "G", "B")
# wavelengths in nm, for ordering bands only
WAVELENGTHS = {
    "u": 355,
    "g": 475,
    "r": 622,
    "i": 763,
    "z": 905,
    "y": 1000,
    "j": 1250,
    "h": 1650,
    "k": 2200,
    "ks": 2200,
}
WAVELENGTHS |= {
    "nuv": 230,
    "fuv": 150,
    "b": 440,
    "v": 550,
    "vis": 715,
    "w1": 3400,
    "w2": 4600,
    "w3": 12000,
    "w4": 22000,
}
SIP_ORDER = 9  # the highest that the convention has; astropy makes a table of its square
# keys of the two axes of a picture: lookup tables, times and further axes would need more than a header
WCS_KEYS = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]|(CD|PC)[12]_[12]|(CD|PC)00[12]00[12]|PV[12]_\d\d?|LONPOLE|LATPOLE"
    r"|(A|B|AP|BP)_(ORDER|\d_\d)"
)
FRAMES = {
    "ICRS": "ICRS",
    "ICRF": "ICRS",
    "FK5": "FK5",
    "J2000": "FK5",
    "J2000.0": "FK5",
    "FK4": "FK4",
    "B1950": "FK4",
    "B1950.0": "FK4",
    "FK4-NO-E": "FK4NoETerms",
}
_REMEDY = "mend CTYPE, CRVAL, CRPIX and CD in the header, or give ra and dec in the table"


@dataclass(frozen=True)
class Picture:
    """What a file shows: `flux` (h, w, b) float32 with NaN for no data, and the name of each band.

    `stretched` is True for pictures that were made for the eye (8-bit JPEG, PNG, WebP): their flux is 0 to 1
    and `render` gives their bytes back. Bands are in the order of the file; `red_first` sorts them. `notes` are
    choices that the reader made and somebody might have made otherwise, in words.
    """

    flux: np.ndarray
    bands: tuple[str, ...]
    name: str = "picture"
    stretched: bool = False
    header: Any = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def planes(self) -> dict[str, np.ndarray]:
        """The bands (h, w) float32 by name, from red to blue: R, G, B as they stand, others by falling wavelength.

        Where a band's name is not known the file is taken to run from blue to red, as survey stacks do.
        """
        return {self.bands[index]: self.flux[:, :, index] for index in red_order(self.bands)}

    def celestial_wcs(self) -> WCS | None:
        """Return the astropy WCS of the two sky axes, None where the file has none.

        Raises SchemaError, with the key at fault where it is known, for a header that has one which does not
        work. Positions by it are in its own frame; `sky_position` gives ICRS.
        """
        return self._wcs

    @property
    def pixel_arcsec(self) -> float | None:
        """Side of a pixel on the sky, None without a working WCS: `celestial_wcs` says why."""
        try:
            wcs = self.celestial_wcs()
        except SchemaError:
            return None
        return None if wcs is None else float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)

    @property
    def position_problem(self) -> str | None:
        """Why there are no positions although the header has a WCS, in words; None where all is well or there is none.

        Raises SchemaError as `celestial_wcs` does.
        """
        wcs = self.celestial_wcs()
        return None if wcs is None or self._frame is not None else _unknown_frame(self.header, wcs)

    def sky_position(self, x_px: float, y_px: float) -> tuple[float, float] | None:
        """Return (ra, dec) in degrees ICRS of a pixel position counted from 0, None without a WCS of a known frame."""
        position = self.sky_positions(np.array([x_px], dtype=float), np.array([y_px], dtype=float))
        return None if position is None else (float(position[0][0]), float(position[1][0]))

    def sky_positions(self, x_px: np.ndarray, y_px: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return ra and dec, each (n,) in degrees ICRS, of pixel positions (n,); NaN for what lies off the projection.

        None without a WCS of a known frame.
        """
        wcs = self.celestial_wcs()
        if wcs is None or self._frame is None:
            return None
        from astropy.coordinates import ICRS, SkyCoord

        with quiet():
            lon, lat = _lon_lat(wcs, wcs.pixel_to_world_values(x_px, y_px))
            known = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90)
            ra, dec = np.full(len(lon), np.nan), np.full(len(lon), np.nan)
            if known.any():
                position = SkyCoord(lon[known], lat[known], unit="deg", frame=self._frame).transform_to(ICRS())
                ra[known], dec[known] = position.ra.deg, position.dec.deg
        return ra, dec

    def pixel_positions(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return x and y, each (n,) counted from 0, of positions (n,) in degrees ICRS.

        NaN where a position is not finite or has no place in the projection; None without a WCS of a known frame.
        """
        wcs = self.celestial_wcs()
        if wcs is None or self._frame is None:
            return None
        from astropy.coordinates import SkyCoord

        x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
        known = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
        if known.any():
            with quiet():
                position = SkyCoord(ra[known], dec[known], unit="deg", frame="icrs").transform_to(self._frame)
                world = _lon_lat(wcs, (position.spherical.lon.deg, position.spherical.lat.deg))
                x[known], y[known] = wcs.world_to_pixel_values(*world)
        return x, y

    @cached_property
    def _wcs(self) -> WCS | None:
        return None if self.header is None else _celestial_wcs(self.header, self.name)

    @cached_property
    def _frame(self) -> Any:
        return _frame(self.header, self._wcs)


def _celestial_wcs(header, name: str) -> WCS | None:
    from astropy.wcs import WCS

    if not all(str(header.get(f"CTYPE{axis}", "")).strip() for axis in (1, 2)):
        return None
    _check_numbers(header, name)
    try:
        with quiet():
            wcs = WCS(_wcs_header(header, name))
            celestial = wcs.celestial if wcs.has_celestial else None
    except (ValueError, TypeError, KeyError, AttributeError, MemoryError) as error:  # WcsError is a ValueError
        raise bad(name, f"its WCS does not work ({' '.join(str(error).split())})", _REMEDY) from error
    if celestial is not None and not _invertible(celestial):
        raise bad(name, "its WCS has no scale (CD or CDELT make a singular matrix)", _REMEDY)
    return celestial


def _check_numbers(header, name: str) -> None:
    keys = [f"{stem}{axis}" for stem in ("CRVAL", "CRPIX", "CDELT") for axis in (1, 2)]
    keys += [f"{stem}{row}_{column}" for stem in ("CD", "PC") for row in (1, 2) for column in (1, 2)]
    for key in keys:
        value = header.get(key, 0.0)
        if isinstance(value, (str, bool)) or not isinstance(value, (int, float)) or not np.isfinite(value):
            raise bad(name, f"its WCS key {key} is {value!r}, which is no number", _REMEDY)


def _wcs_header(header, name: str):
    """Return a new header with the keys of two celestial axes alone, and nothing that needs the rest of the file."""
    from astropy.io import fits

    kept = fits.Header()
    for key in header:
        if WCS_KEYS.fullmatch(key):
            kept[key] = header[key]
    orders = {key: kept[key] for key in ("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER") if key in kept}
    for key, order in orders.items():
        if not (isinstance(order, int) and 0 <= order <= SIP_ORDER):
            raise bad(name, f"its WCS key {key} is {order!r}, expected 0 to {SIP_ORDER}", _REMEDY)
    for axis in (1, 2) if "A_ORDER" in orders else ():  # many writers leave the suffix out, and mean the distortion
        kind = str(kept[f"CTYPE{axis}"]).strip()
        kept[f"CTYPE{axis}"] = kind if kind.endswith("-SIP") else f"{kind}-SIP"
    return kept


def _invertible(wcs: WCS) -> bool:
    size = np.linalg.det(wcs.pixel_scale_matrix)
    return bool(np.isfinite(size) and size != 0)


def _lon_lat(wcs: WCS, pair) -> tuple[np.ndarray, np.ndarray]:
    """Return a pair in the order longitude, latitude, or such a pair in that of the axes."""
    first, second = (np.atleast_1d(np.asarray(values, dtype=float)) for values in pair)
    return (first, second) if wcs.wcs.lng == 0 else (second, first)


def _frame(header, wcs: WCS | None):
    """Return the astropy frame of a WCS, None for one that is not known to be a place among the stars."""
    from astropy import coordinates

    kind = "" if wcs is None else wcs.wcs.lngtyp.strip()
    if kind == "GLON":
        return coordinates.Galactic()
    name, equinox = _system(header), _equinox(header)
    if kind != "RA" or equinox is False:
        return None
    if name == "":
        name = "ICRS" if equinox is None else "FK4" if equinox < 1984 else "FK5"  # as the FITS standard has it
    known = FRAMES.get(name)
    if known is None:
        return None
    if known == "ICRS":
        return coordinates.ICRS()
    epoch = 2000.0 if name.startswith("J") else 1950.0 if name.startswith("B") else equinox
    epoch = epoch or (2000.0 if known == "FK5" else 1950.0)
    return getattr(coordinates, known)(equinox=f"{'J' if known == 'FK5' else 'B'}{epoch:.6f}")


def _system(header) -> str:
    return str(header.get("RADESYS", header.get("RADECSYS", ""))).strip().upper()


def _equinox(header) -> float | bool | None:
    """Return the equinox in years, None where the header has none, False for one that cannot be."""
    value = header.get("EQUINOX", header.get("EPOCH"))
    if value is None or str(value).strip() == "":
        return None
    try:
        year = float(str(value).strip().upper().lstrip("JB"))
    except ValueError:
        return False
    return year if 1800 <= year <= 2200 else False


def _unknown_frame(header, wcs: WCS) -> str:
    kind = wcs.wcs.lngtyp.strip()
    if kind != "RA":
        return f"its coordinates ({kind}) are not a frame that is known here (RA, DEC or GLON, GLAT)"
    if _equinox(header) is False:
        return f"its EQUINOX is {header.get('EQUINOX', header.get('EPOCH'))!r}, which is no year"
    return f"its RADESYS is {_system(header)!r}, a frame that is not known here ({', '.join(sorted(FRAMES))})"


def red_order(bands: tuple[str, ...]) -> list[int]:
    """Return the places of bands from red to blue; nameless ones are taken to run from blue to red."""
    if bands == RGB:
        return [0, 1, 2]
    waves = [wave for band in bands if (wave := band_wavelength(band)) is not None]
    if len(waves) < len(bands):
        return list(range(len(bands)))[::-1]
    return sorted(range(len(bands)), key=lambda index: -waves[index])


def band_wavelength(band: str) -> float | None:
    """Return a band's rough wavelength in nm, for ordering; None where the name is not known."""
    short = band.strip().lower().split()[-1] if band.strip() else ""
    hubble = re.search(r"f(\d{3})(?:w|m|n|lp|x)", short)
    if hubble:
        number = float(hubble.group(1))
        return number * 10 if number < 200 else number  # F160W is 1.6 micrometers, F606W is 606 nm
    short = re.split(r"[._\-/]", short)[0 if short[:2] not in ("sd", "de", "ps", "hs") else -1]
    return WAVELENGTHS.get(short)
