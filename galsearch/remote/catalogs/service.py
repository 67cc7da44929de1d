"""What a catalog service must offer, and what all of them share: the control position, sources of an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from galsearch.errors import GalsearchError, RemoteError

if TYPE_CHECKING:
    from galsearch.remote.catalogs.client import Session  # which needs the packages of the extra

CONTROLS = (  # objects that SIMBAD and NED have: an answer without the one that was asked for lacks others too
    *((187.277916, 2.052388), (187.705931, 12.391123), (24.422081, 33.159759)),  # 3C 273, M 87, 3C 48
    *((166.113808, 38.208833), (194.046527, -5.789312), (330.680381, 42.277772)),  # Mrk 421, 3C 279, BL Lac
    *((250.745042, 39.810276), (49.950667, 41.511696)),  # 3C 345, NGC 1275
)
CONTROL_REACH_ARCSEC = 5.0
SLACK_ARCSEC = 60.0  # by which a source may lie outside of what was asked for: proper motion, FK5 for ICRS
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_TEXT = 200  # characters of a name or a type that are kept
# ra, dec, name, type, reference, how many references
Source = tuple[float, float, str | None, str | None, str | None, int | None]
Reader = Callable[[bytes, bool], pa.Table]  # of an answer, which must be complete or may be cut short


def check_url(url: str) -> str:
    """Return the address of a service; GalsearchError for one that is not encrypted, or none at all."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname in LOOPBACK:
        return url
    raise GalsearchError(
        f"the address of a service is {url!r:.100}, expected https://…; http is taken on this machine only"
    )


class TooManyError(RemoteError):
    """A service cut its answer short."""


class Service(Protocol):
    """A catalog behind an address that answers what lies near positions.

    `batch` is how many positions go into one question, `most_rows` how many sources may come back.
    """

    @property
    def name(self) -> str:
        """What the source is called."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def batch(self) -> int:
        """How many positions go into one question."""

    @property
    def one_reach(self) -> bool:
        """Whether all positions of a question have the widest reach of any."""

    @property
    def most_rows(self) -> int:
        """How many sources an answer may hold."""

    def controls(self, session: Session, read: Reader) -> Sequence[tuple[float, float]]:
        """Return positions at which it has a source; RemoteError where it does not say."""

    def near(self, session: Session, ra: np.ndarray, dec: np.ndarray, reach_arcsec: np.ndarray) -> bytes:
        """Return its answer, a VOTable; RemoteError where there is none."""

    def sources(self, table: pa.Table) -> list[Source]:
        """Return the sources of an answer; RemoteError for a table that is none."""


def columns_of(table: pa.Table, names: Sequence[str | None]) -> Iterator[tuple[Any, ...]]:
    """Return the rows of some columns, whatever the case of their names; a name that is None gives None.

    The first two are a position in degrees. Raises RemoteError for a missing column and a position that is none.
    """
    known = {name.casefold(): name for name in reversed(table.column_names)}
    lacking = [name for name in names if name is not None and name.casefold() not in known]
    if lacking:
        raise RemoteError(f"the answer has no column {lacking[0]}")
    values = [[None] * len(table) if name is None else table[known[name.casefold()]].to_pylist() for name in names]
    for ra, dec in zip(values[0], values[1], strict=True):
        numbers = isinstance(ra, (int, float)) and isinstance(dec, (int, float))
        if not (numbers and 0 <= ra <= 360 and -90 <= dec <= 90):
            raise RemoteError(f"the answer has a source at ra {ra!r:.30}, dec {dec!r:.30}, which is no position")
    return zip(*values, strict=True)


def linked(row: Sequence[Any], reference: str | None, count: Any = None) -> Source:
    """Return a source of (ra, dec, name, type) as it is kept; blank text is none."""
    ra, dec, name, kind = row
    return float(ra), float(dec), _text(name), _text(kind), reference, count if isinstance(count, int) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip()[:MOST_TEXT] or None
