"""Cut-outs of the DESI Legacy Imaging Surveys by the viewer's `cutout.jpg` and `cutout.fits`.

Outside its footprint the viewer gives a picture of one value, or 404 for FITS.
"""

from __future__ import annotations

from dataclasses import dataclass

from galsearch.errors import GalsearchError
from galsearch.remote.cutouts.answers import OUTSIDE, Answer
from galsearch.remote.cutouts.client import Client
from galsearch.remote.cutouts.single import one_picture
from galsearch.remote.cutouts.wanted import Wanted


@dataclass(frozen=True)
class LegacySurvey:
    """The viewer; `layer` such as ls-dr10, `bands` of FITS such as grz, `format` "jpg" or "fits"."""

    base_url: str = "https://www.legacysurvey.org/viewer"
    layer: str = "ls-dr10"
    bands: str = "grz"
    format: str = "jpg"
    requests_each: int = 1

    def __post_init__(self) -> None:
        if self.format not in ("jpg", "fits"):
            raise GalsearchError(f"format is '{self.format}', expected jpg or fits")

    def cut(self, client: Client, wanted: Wanted) -> Answer:
        """Return what the viewer answers for a position."""
        parameters = {
            "ra": f"{wanted.ra:.7f}",
            "dec": f"{wanted.dec:.7f}",
            "layer": self.layer,
            "pixscale": f"{wanted.arcsec_per_pixel:g}",
            "size": wanted.pixels,
        }
        if self.format == "fits":
            parameters["bands"] = self.bands
        return one_picture(client, f"{self.base_url.rstrip('/')}/cutout.{self.format}", parameters, blank=OUTSIDE)

    def bytes_each(self, wanted: Wanted) -> int:
        """Return about how many bytes one cut-out takes."""
        values = wanted.pixels**2 * len(self.bands)
        return 2880 * (4 * values // 2880 + 2) if self.format == "fits" else values // 6
