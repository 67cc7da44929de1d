"""Cut-outs of Pan-STARRS1 stacks: `ps1filenames.py` lists the stacks at a position, `fitscut.cgi` cuts them.

A list without rows is out of the footprint. Colors are drawn with the reddest filter as red.
"""

from __future__ import annotations

from dataclasses import dataclass

from galsearch.errors import GalsearchError
from galsearch.remote.cutouts.answers import FAILED, OUTSIDE, Answer
from galsearch.remote.cutouts.client import Client, FailedError
from galsearch.remote.cutouts.single import one_picture
from galsearch.remote.cutouts.wanted import Wanted

NATIVE_ARCSEC = 0.25  # a pixel of the stacks
FROM_RED = "yzirg"
COLUMNS = ("filter", "filename")


@dataclass(frozen=True)
class PanStarrs:
    """The image server; `filters` are three for a color JPEG, or one for FITS (`format` "jpg" or "fits")."""

    base_url: str = "https://ps1images.stsci.edu/cgi-bin"
    filters: str = "gri"
    format: str = "jpg"
    requests_each: int = 2

    def __post_init__(self) -> None:
        wanted = 3 if self.format == "jpg" else 1
        if self.format not in ("jpg", "fits"):
            raise GalsearchError(f"format is '{self.format}', expected jpg or fits")
        if len(self.filters) != wanted or not set(self.filters) <= set(FROM_RED):
            raise GalsearchError(f"filters is '{self.filters}', expected {wanted} of grizy for {self.format}")

    def cut(self, client: Client, wanted: Wanted) -> Answer:
        """Return what the server answers for a position."""
        base = self.base_url.rstrip("/")
        position = {"ra": f"{wanted.ra:.7f}", "dec": f"{wanted.dec:.7f}"}
        listed = self._listed(client, f"{base}/ps1filenames.py", position)
        if isinstance(listed, Answer):
            return listed
        files, sent = listed
        native = max(1, round(wanted.pixels * wanted.arcsec_per_pixel / NATIVE_ARCSEC))
        parameters = {**position, "size": native, "format": self.format}
        if self.format == "jpg":
            parameters["output_size"] = wanted.pixels
        parameters |= dict(zip(("red", "green", "blue"), files, strict=False))
        answer = one_picture(client, f"{base}/fitscut.cgi", parameters, outside=())
        return answer.after(answer.requests + sent)

    def _listed(self, client: Client, url: str, position: dict[str, str]) -> Answer | tuple[list[str], int]:
        """Return the stacks' files, the reddest first, and how many requests that took; or why there are none."""
        try:
            body = client.get(url, {**position, "filters": self.filters, "type": "stack"})
        except FailedError as error:
            return Answer(FAILED, reason=str(error), passing=True, requests=error.requests)
        text = body.content.decode("utf-8", "replace")
        head, *rows = [line.split() for line in text.splitlines() if line.strip()] or [[]]
        if body.status != 200 or not set(COLUMNS) <= set(head) or any(len(row) != len(head) for row in rows):
            reason = f"status {body.status} and no list of stacks: {' '.join(text.split())[:120]}"
            client.wrong(url, reason)
            return Answer(FAILED, reason=reason, passing=True, requests=body.requests)
        client.fine(url)
        by_filter = {row[head.index("filter")]: row[head.index("filename")] for row in rows}
        missing = [name for name in self.filters if name not in by_filter]
        if missing:
            return Answer(OUTSIDE, reason=f"no stack in {', '.join(missing)} there", requests=body.requests)
        return [by_filter[name] for name in FROM_RED if name in by_filter], body.requests

    def bytes_each(self, wanted: Wanted) -> int:
        """Return about how many bytes one cut-out takes."""
        values = wanted.pixels**2
        return 4 * values + 5760 if self.format == "fits" else values // 2
