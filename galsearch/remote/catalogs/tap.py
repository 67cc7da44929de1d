"""Table Access Protocol: one synchronous ADQL question, by pyvo, and what comes back of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from galsearch.errors import GalsearchError

if TYPE_CHECKING:
    from galsearch.remote.catalogs.client import Session

UPLOADED = "TAP_UPLOAD.positions"  # with ra, dec, reach in degrees


def run(session: Session, url: str, query: str, *, most_rows: int, positions: np.ndarray | None = None) -> bytes:
    """Return the VOTable that answers a question; `positions (n, 3)` are sent along as the table UPLOADED.

    Raises RemoteError where there is no answer. The table may hold an error or be cut short: whoever reads it looks.
    """
    try:
        from astropy.table import Table
        from pyvo.dal.tap import TAPQuery

        from galsearch.remote.catalogs.client import content_of
    except ImportError:
        raise missing_package() from None
    uploads = {} if positions is None else {"positions": Table(positions, names=("ra", "dec", "reach"))}
    question = TAPQuery(url, query, maxrec=most_rows, uploads=uploads, session=session)
    return content_of(question.submit(), str(urlsplit(url).netloc))


def missing_package() -> GalsearchError:
    """Return the error for a package of the extra that is not installed."""
    return GalsearchError("asking catalog services needs pyvo and astroquery: pip install 'galsearch[catalogs]'")
