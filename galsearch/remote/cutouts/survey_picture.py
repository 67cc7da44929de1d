"""One picture of a place on the sky from a survey's cut-out service, for who looks at an object that has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galsearch.errors import RemoteError
from galsearch.remote.cutouts import PICTURE, Client, Wanted, host_of, service


@dataclass(frozen=True)
class SurveyPicture:
    """A picture of a survey: the file as it came, its suffix, and where it comes from."""

    content: bytes
    suffix: str
    service: str
    host: str
    size_arcsec: float

    def save(self, path: str | Path) -> Path:
        """Write the file; return its path. A path without a suffix gets that of the format."""
        path = Path(path)
        path = path if path.suffix else path.with_suffix(self.suffix)
        path.write_bytes(self.content)
        return path


def fetch_picture(
    position: tuple[float, float],
    *,
    survey: str,
    size_arcsec: float,
    pixels: int,
    options: Mapping[str, Any],
    timeout_seconds: float,
) -> SurveyPicture:
    """Return the picture of a square of `size_arcsec` around a position, ICRS degrees; only the position is sent.

    Raises RemoteError where the service has none or does not answer, GalsearchError for a service that there is not.
    """
    source = service(survey, options)
    wanted = Wanted(*position, pixels, size_arcsec / pixels).check()
    with Client(timeout_seconds=timeout_seconds, retries=1) as client:
        answer = source.cut(client, wanted)
    host = host_of(source.base_url)
    if answer.status != PICTURE:
        raise RemoteError(
            f"{host} gave no picture of {wanted.ra:.5f} {wanted.dec:+.5f}: {answer.status}"
            f"{f' ({answer.reason})' if answer.reason else ''}; try another survey, or later"
        )
    return SurveyPicture(answer.content, answer.suffix, survey, host, size_arcsec)
