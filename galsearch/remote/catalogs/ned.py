"""NED: extragalactic objects with their preferred types, by TAP; it takes no upload, so cones are in the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from galsearch.remote.catalogs.service import CONTROLS, Reader, Source, columns_of, linked
from galsearch.remote.catalogs.tap import run

if TYPE_CHECKING:
    from galsearch.remote.catalogs.client import Session

URL = "https://ned.ipac.caltech.edu/tap"
RECORD = "https://ned.ipac.caltech.edu/byname?objname="
QUERY = "SELECT prefname, ra, dec, prefphytype FROM NEDTAP.objdir WHERE {cones}"
CONE = "CONTAINS(POINT('J2000', ra, dec), CIRCLE('J2000', {:.8f}, {:.8f}, {:.8f})) = 1"


@dataclass(frozen=True)
class Ned:
    """NED at an address; it ends a question after 60 seconds, so a batch is small."""

    url: str = URL
    name: str = "ned"
    batch: int = 100
    most_rows: int = 100_000
    one_reach: bool = False

    def controls(self, session: Session, read: Reader) -> Sequence[tuple[float, float]]:
        """Return positions at which it has an object."""
        return CONTROLS

    def near(self, session: Session, ra: np.ndarray, dec: np.ndarray, reach_arcsec: np.ndarray) -> bytes:
        """Return its answer to what lies near positions."""
        cones = (CONE.format(*row) for row in zip(ra, dec, reach_arcsec / 3600, strict=True))
        return run(session, self.url, QUERY.format(cones=" OR ".join(cones)), most_rows=self.most_rows)

    def sources(self, table: pa.Table) -> list[Source]:
        """Return the sources of an answer. Raises RemoteError where it has not the columns that were asked for."""
        rows = columns_of(table, ("ra", "dec", "prefname", "prefphytype"))
        return [linked(row, RECORD + quote(str(row[2] or ""))) for row in rows]
