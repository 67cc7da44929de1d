"""Sesame, the name resolver of the CDS: what SIMBAD, NED and VizieR call an object, and where it lies.

Its plain answers are read here, and asked for through the bounded client: astropy's and astroquery's own functions for
it take answers of any size and follow redirects to any host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from galsearch.errors import RemoteError
from galsearch.remote.catalogs.service import check_url
from galsearch.remote.catalogs.tap import missing_package

URL = "https://cds.unistra.fr/cgi-bin/nph-sesame/"
MOST_NAMES = 100  # of an object that are kept
_POSITION = re.compile(r"^%J\s+([0-9.]+)\s+([+-]?[0-9.]+)", re.MULTILINE)
_NAME = re.compile(r"^%I(?:\.0)?\s+(?:NAME\s+)?(\S.*?)\s*$", re.MULTILINE)
_NOTHING = re.compile(r"^#!.*nothing found", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Resolved:
    """What a name stands for: ra and dec in degrees ICRS, and what else the object is called."""

    ra: float
    dec: float
    names: tuple[str, ...]


def resolve(name: str, *, url: str = URL, timeout_seconds: float = 30.0) -> Resolved | None:
    """Return what Sesame knows by a name; None where it says that nobody knows it.

    The name is all that is sent. Raises RemoteError where there is no answer.
    """
    check_url(url)
    host = str(urlsplit(url).netloc)
    try:
        from galsearch.remote.catalogs.client import Session, content_of
    except ImportError:
        raise missing_package() from None
    with Session(timeout_seconds=timeout_seconds) as session:
        text = content_of(session.request("GET", f"{url}-oI/A?{quote(name, safe='')}"), host).decode("utf-8", "replace")
    answer = _POSITION.search(text)
    if answer is None:
        if _NOTHING.search(text):
            return None
        raise RemoteError(f"{host} did not answer as Sesame does, so the name was not looked up: {text[:80]!r}")
    try:
        ra, dec = float(answer[1]), float(answer[2])
    except ValueError:
        ra = dec = float("nan")
    if not (0 <= ra <= 360 and -90 <= dec <= 90):
        raise RemoteError(f"{host} gives the position {answer[0]!r:.60}, which is none")
    return Resolved(ra, dec, tuple(dict.fromkeys(_NAME.findall(text)))[:MOST_NAMES])
