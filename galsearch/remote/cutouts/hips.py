"""Cut-outs of any HiPS survey by the CDS service hips2fits.

Where a survey has no tile its pixels are NaN in FITS and one value in JPEG and PNG; an unknown survey is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from galsearch.errors import GalsearchError
from galsearch.remote.cutouts.answers import Answer
from galsearch.remote.cutouts.client import Client
from galsearch.remote.cutouts.single import one_picture
from galsearch.remote.cutouts.wanted import Wanted


@dataclass(frozen=True)
class Hips:
    """hips2fits; `hips` is the survey's identifier, `format` "jpg", "png" or "fits"."""

    base_url: str = "https://alasky.cds.unistra.fr/hips-image-services/hips2fits"
    hips: str = "CDS/P/DESI-Legacy-Surveys/DR10/color"
    format: str = "jpg"
    requests_each: int = 1

    def __post_init__(self) -> None:
        if self.format not in ("jpg", "png", "fits"):
            raise GalsearchError(f"format is '{self.format}', expected jpg, png or fits")

    def cut(self, client: Client, wanted: Wanted) -> Answer:
        """Return what hips2fits answers for a position; a survey that it does not know is failed, never outside."""
        parameters = {
            "hips": self.hips,
            "ra": f"{wanted.ra:.7f}",
            "dec": f"{wanted.dec:.7f}",
            "fov": f"{wanted.pixels * wanted.arcsec_per_pixel / 3600:.8f}",
            "width": wanted.pixels,
            "height": wanted.pixels,
            "projection": "TAN",
            "coordsys": "icrs",
            "format": self.format,
        }
        return one_picture(client, self.base_url, parameters, outside=())

    def bytes_each(self, wanted: Wanted) -> int:
        """Return about how many bytes one cut-out takes."""
        values = wanted.pixels**2
        return 4 * values + 5760 if self.format == "fits" else values * (2 if self.format == "png" else 1) // 2
