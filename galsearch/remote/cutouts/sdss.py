"""Cut-outs of the SDSS by SkyServer's ImgCutout, as color JPEG.

SkyServer limits a side to 64 to 2,048 pixels. Outside the footprint it answers an error that says so, or a picture of
one value.
"""

from __future__ import annotations

from dataclasses import dataclass

from galsearch.remote.cutouts.answers import OUTSIDE, Answer
from galsearch.remote.cutouts.client import Client
from galsearch.remote.cutouts.single import one_picture
from galsearch.remote.cutouts.wanted import Wanted

LEAST_PIXELS = 64


@dataclass(frozen=True)
class Sdss:
    """SkyServer; `release` such as dr18."""

    base_url: str = "https://skyserver.sdss.org"
    release: str = "dr18"
    requests_each: int = 1

    def cut(self, client: Client, wanted: Wanted) -> Answer:
        """Return what SkyServer answers for a position; fewer pixels than it cuts are made more, of the same scale."""
        pixels = max(wanted.pixels, LEAST_PIXELS)
        parameters = {
            "ra": f"{wanted.ra:.7f}",
            "dec": f"{wanted.dec:.7f}",
            "scale": f"{wanted.arcsec_per_pixel:g}",
            "width": pixels,
            "height": pixels,
        }
        url = f"{self.base_url.rstrip('/')}/{self.release}/SkyServerWS/ImgCutout/getjpeg"
        return one_picture(client, url, parameters, outside_words=("footprint", "outside the sdss"), blank=OUTSIDE)

    def bytes_each(self, wanted: Wanted) -> int:
        """Return about how many bytes one cut-out takes."""
        return max(wanted.pixels, LEAST_PIXELS) ** 2 // 2
