"""VizieR: one table of a published catalog, by its list of positions; astroquery writes the question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np
import pyarrow as pa

from galsearch.errors import QueryError, RemoteError
from galsearch.remote.catalogs.service import Reader, Source, columns_of, linked
from galsearch.remote.catalogs.tap import missing_package

if TYPE_CHECKING:
    from galsearch.remote.catalogs.client import Session

URL = "https://vizier.cds.unistra.fr/viz-bin/votable"
RECORD = "https://vizier.cds.unistra.fr/viz-bin/VizieR?-source="
POSITION = ("_RAJ2000", "_DEJ2000")  # which VizieR computes for every table
CONTROL_ROWS = 20
NAMES = ("meta.id;meta.main", "meta.id", "meta.record")  # UCDs of what a source is called, the best first
_CATALOG = re.compile(r"[A-Za-z]+/[\w+\-./]{1,60}")
_TABLE = re.compile(rb"<TABLE\b[^>]*\bname=\"([^\"]{1,80})\"")


@dataclass(frozen=True)
class Vizier:
    """One table of VizieR, such as "V/147/sdss12"; a catalog with one table is enough.

    `type_column` is the column that says what a source is. Without it sources have no type: that a catalog lists an
    object does not say that it is a galaxy.
    """

    catalog: str
    url: str = URL
    type_column: str | None = None
    batch: int = 200
    most_rows: int = 50_000
    one_reach: bool = True

    def __post_init__(self) -> None:
        if not _CATALOG.fullmatch(self.catalog):
            raise QueryError(f"{self.catalog!r:.60} is no catalog of VizieR; write one as vizier:V/147/sdss12")

    @property
    def name(self) -> str:
        """What the source is called."""
        return f"vizier:{self.catalog}"

    def controls(self, session: Session, read: Reader) -> Sequence[tuple[float, float]]:
        """Return the positions of the first sources of the table, which answers around them must have too."""
        payload = _client(CONTROL_ROWS, self.type_column).query_constraints_async(
            catalog=self.catalog, get_query_payload=True
        )
        content = self._post(session, payload)
        tables = [name.decode("utf-8", "replace") for name in _TABLE.findall(content)]
        if len(tables) > 1:
            raise RemoteError(
                f"{self.catalog} has several tables ({', '.join(tables[:6])}): name one, vizier:{tables[0]}"
            )
        first = self.sources(read(content, False))
        if not first:
            raise RemoteError(f"{self.catalog} has no source with a position, so it says nothing")
        return [source[:2] for source in first]

    def near(self, session: Session, ra: np.ndarray, dec: np.ndarray, reach_arcsec: np.ndarray) -> bytes:
        """Return its answer to what lies near positions; the widest reach is that of all."""
        from astropy import units
        from astropy.coordinates import SkyCoord

        payload = _client(self.most_rows, self.type_column).query_region_async(
            SkyCoord(np.atleast_1d(ra), np.atleast_1d(dec), unit="deg"),
            radius=float(reach_arcsec.max()) * units.arcsec,
            catalog=self.catalog,
            frame="icrs",
            get_query_payload=True,
        )
        return self._post(session, payload)

    def sources(self, table: pa.Table) -> list[Source]:
        """Return the sources of an answer. Raises RemoteError where it has not the columns that were asked for."""
        ucds = {(item.metadata or {}).get(b"ucd", b"").decode(): item.name for item in reversed(list(table.schema))}
        name = next((ucds[ucd] for ucd in NAMES if ucd in ucds), None)
        rows = columns_of(table, (*POSITION, name, self.type_column))
        link = RECORD + quote(self.catalog) + "&-c.rs=5&-c="
        return [linked(row, link + quote(f"{row[0]:.6f}{row[1]:+.6f}")) for row in rows]

    def _post(self, session: Session, payload: Any) -> bytes:
        from galsearch.remote.catalogs.client import content_of

        return content_of(session.post(self.url, data=payload), str(urlsplit(self.url).netloc))


@cache
def _client(most_rows: int, type_column: str | None) -> Any:
    try:
        from astroquery.vizier import VizierClass
    except ImportError:
        raise missing_package() from None
    return VizierClass(columns=[*filter(None, ["*", type_column]), *POSITION], row_limit=most_rows)
