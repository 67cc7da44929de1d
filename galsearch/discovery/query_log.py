"""A local log of queries, for those who switch it on: what was asked, when, and what came back. Nothing is sent.

It is an append-only file as that of verdicts, so that several programs may write it and a kill costs one row at most.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from galsearch import schema
from galsearch.discovery.journal import Journal, Row
from galsearch.errors import FormatError
from galsearch.query import Query

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "galsearch.queries"
KEPT_IDS = 10  # of the first hits
MOST_QUERY = 20_000  # characters of a query that is kept whole; sums of vectors may have more
_COLUMNS = {
    "time": ("VARCHAR", "When, ISO 8601 in UTC"),
    "atlas": ("VARCHAR", "Fingerprint of the atlas"),
    "formula": ("VARCHAR", "The query as a sum"),
    "where": ("VARCHAR", "Its condition in SQL; NULL for none"),
    "query": ("VARCHAR", "The query as JSON, to be asked again; NULL where it is too long"),
    "hits": ("BIGINT", "How many came back"),
    "first": ("VARCHAR[]", "The first of them"),
    "milliseconds": ("DOUBLE", "How long the store took"),
}
_ARROW = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "VARCHAR[]": pa.list_(pa.string()), "DOUBLE": pa.float64()}


class QueryLog:
    """The log in the file `path`, which is made with the first query. Raises FormatError for another kind of file."""

    def __init__(self, path: str | Path) -> None:
        self._journal = Journal(path, kind=FORMAT)
        self._journal.rows()

    def add(self, query: Query, ids: Sequence[str], *, atlas: str, milliseconds: float) -> None:
        """Keep a query with the ids that came back; on the disk when this returns."""
        text = query.to_json()
        row: Row = {
            "time": schema.now(),
            "atlas": atlas,
            "formula": query.formula()[:MOST_QUERY],
            "where": None if query.where is None else query.where[:MOST_QUERY],
            "query": text if len(text) <= MOST_QUERY else None,
            "hits": len(ids),
            "first": list(ids[:KEPT_IDS]),
            "milliseconds": round(milliseconds, 3),
        }
        self._journal.append(lambda _: [row])

    def table(self) -> pa.Table:
        """Return the rows, the oldest first: time, atlas, formula, where, query, hits, first, milliseconds."""
        fields = [
            pa.field(name, _ARROW[kind], metadata={"description": about}) for name, (kind, about) in _COLUMNS.items()
        ]
        rows = self._journal.rows()
        try:
            return pa.Table.from_pylist([{name: row.get(name) for name in _COLUMNS} for row in rows], pa.schema(fields))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise FormatError(f"{self._journal.name} has a row that is no query ({error!s:.80}); remove it") from None
