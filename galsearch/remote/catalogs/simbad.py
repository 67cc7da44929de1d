"""SIMBAD: astronomical objects of the literature with their types, by TAP with uploaded positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from galsearch.remote.catalogs.service import CONTROLS, Reader, Source, columns_of, linked
from galsearch.remote.catalogs.tap import UPLOADED, run

if TYPE_CHECKING:
    from galsearch.remote.catalogs.client import Session

URL = "https://simbad.cds.unistra.fr/simbad/sim-tap"
RECORD = "https://simbad.cds.unistra.fr/simbad/sim-id?Ident="
QUERY = f"""SELECT DISTINCT b.main_id, b.ra, b.dec, b.otype, b.nbref FROM basic AS b JOIN {UPLOADED} AS p
ON 1 = CONTAINS(POINT('ICRS', b.ra, b.dec), CIRCLE('ICRS', p.ra, p.dec, p.reach))"""


@dataclass(frozen=True)
class Simbad:
    """SIMBAD at an address: its main one, or a mirror."""

    url: str = URL
    name: str = "simbad"
    batch: int = 1_000
    most_rows: int = 100_000
    one_reach: bool = False

    def controls(self, session: Session, read: Reader) -> Sequence[tuple[float, float]]:
        """Return positions at which it has an object."""
        return CONTROLS

    def near(self, session: Session, ra: np.ndarray, dec: np.ndarray, reach_arcsec: np.ndarray) -> bytes:
        """Return its answer to what lies near positions."""
        positions = np.stack([ra, dec, reach_arcsec / 3600], axis=1)
        return run(session, self.url, QUERY, most_rows=self.most_rows, positions=positions)

    def sources(self, table: pa.Table) -> list[Source]:
        """Return the sources of an answer. Raises RemoteError where it has not the columns that were asked for."""
        rows = columns_of(table, ("ra", "dec", "main_id", "otype", "nbref"))
        return [linked(row[:4], RECORD + quote(str(row[2] or "")), row[4]) for row in rows]
