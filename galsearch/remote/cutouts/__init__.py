"""Cut-out services of sky surveys: one client that is polite and suspicious, and a file for each service.

What comes back is one of four: a picture, out of the footprint, empty, or failed; see `answers`. Nothing here decides
which positions are requested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from galsearch.errors import GalsearchError
from galsearch.remote.cutouts.answers import EMPTY, FAILED, OUTSIDE, PICTURE, Answer, judged
from galsearch.remote.cutouts.client import PER_SECOND, Client, check_address, host_of, is_loopback
from galsearch.remote.cutouts.hips import Hips
from galsearch.remote.cutouts.legacy import LegacySurvey
from galsearch.remote.cutouts.panstarrs import PanStarrs
from galsearch.remote.cutouts.sdss import Sdss
from galsearch.remote.cutouts.wanted import Wanted

__all__ = [
    "EMPTY",
    "FAILED",
    "OUTSIDE",
    "PER_SECOND",
    "PICTURE",
    "Answer",
    "Client",
    "Hips",
    "LegacySurvey",
    "PanStarrs",
    "Sdss",
    "Service",
    "Wanted",
    "check_address",
    "host_of",
    "is_loopback",
    "judged",
    "service",
]


class Service(Protocol):
    """A survey's cut-out service at an address."""

    base_url: str
    requests_each: int  # for one cut-out

    def cut(self, client: Client, wanted: Wanted) -> Answer:
        """Return what the service answers for one position; never raises for what a service does."""

    def bytes_each(self, wanted: Wanted) -> int:
        """Return about how many bytes one cut-out takes, for a forecast."""


SERVICES: dict[str, Any] = {"legacy": LegacySurvey, "sdss": Sdss, "panstarrs": PanStarrs, "hips": Hips}


def service(name: str, options: Mapping[str, Any]) -> Service:
    """Return a service by its name: legacy, sdss, panstarrs or hips. Raises GalsearchError for another or its options.

    `base_url` is another address of the same protocol; the rest is the service's own (layer, format, hips, …).
    """
    if name not in SERVICES:
        raise GalsearchError(f"service is '{name}', which is not one of {', '.join(SERVICES)}")
    made = SERVICES[name]
    known = set(made.__dataclass_fields__) - {"requests_each"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise GalsearchError(f"service {name} has no option '{unknown[0]}', it has {', '.join(sorted(known))}")
    result = made(**options)
    check_address(result.base_url)
    return result
