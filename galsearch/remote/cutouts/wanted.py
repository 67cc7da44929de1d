"""What is requested of a cut-out service: a position and a size."""

from __future__ import annotations

from dataclasses import dataclass

from galsearch.errors import GalsearchError
from galsearch.science.sky import check_position

MOST_PIXELS = 1024


@dataclass(frozen=True)
class Wanted:
    """A square around a position, ICRS degrees: `pixels` a side of `arcsec_per_pixel`, north up."""

    ra: float
    dec: float
    pixels: int = 128
    arcsec_per_pixel: float = 0.262

    def check(self) -> Wanted:
        """Return it with the right ascension in 0 to 360; GalsearchError for what no service cuts."""
        ra, dec = check_position(self.ra, self.dec)
        check_size(self.pixels, self.arcsec_per_pixel)
        return Wanted(ra, dec, self.pixels, self.arcsec_per_pixel)


def check_size(pixels: object, arcsec_per_pixel: object) -> None:
    """Raise GalsearchError for a size that no service cuts."""
    if not isinstance(pixels, int) or isinstance(pixels, bool) or not 16 <= pixels <= MOST_PIXELS:
        raise GalsearchError(f"pixels is {pixels!r:.40}, expected a whole number from 16 to {MOST_PIXELS}")
    if not isinstance(arcsec_per_pixel, (int, float)) or not 0.01 <= arcsec_per_pixel <= 60:
        raise GalsearchError(f"arcsec_per_pixel is {arcsec_per_pixel!r:.40}, expected 0.01 to 60")
