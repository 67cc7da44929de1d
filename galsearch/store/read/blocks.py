"""Where DuckDB put the values of rows, as spans of bytes of its file: what to fetch at once before it is asked.

DuckDB reads one block after another, and of a file that lies elsewhere each is a wait. The catalog says in which blocks
a column is; only which of them are fetched follows from it, never what a value is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from galsearch.store.index.vectors import numbers
from galsearch.store.sql.sandbox import NAME, Sandbox

FILE_HEADER, BLOCK_HEADER = 3 * 4096, 8  # bytes before the first block of a DuckDB file, and at its beginning
VECTOR_ROWS = 2048  # of a row group, which DuckDB reads together
MOST_FETCHED = 64 << 20  # bytes; what takes more is left to DuckDB
_SEGMENTS = (
    "SELECT row_group_id::BIGINT AS row_group_id, column_name, contains(column_path, ',')::BIGINT AS below, "
    "start::BIGINT AS start, count::BIGINT AS count, block_id::BIGINT AS block, additional_block_ids::BIGINT[] AS more "
    "FROM pragma_storage_info($1) WHERE persistent ORDER BY row_group_id, column_id, column_path, segment_id"
)


class Blocks:
    """The blocks of the tables of a file; what a table has is asked once."""

    def __init__(self, sandbox: Sandbox, size: int) -> None:
        self._sandbox, self._size = sandbox, size
        self._segments: dict[str, pa.Table] = {}
        stated = sandbox.rows(f"SELECT block_size FROM pragma_database_size() WHERE database_name = '{NAME}'")
        self._block_size = int(stated[0][0])

    def of_tables(self, tables: Sequence[str]) -> list[tuple[int, int]]:
        """Return where everything of some tables is."""
        return self._spans(block for table in tables for block in _listed(self._read(table)))

    def of_rows(self, table: str, rows: np.ndarray, columns: Sequence[str] | None = None) -> list[tuple[int, int]]:
        """Return where the values of some rows are, of all columns or of those named; whole blocks."""
        segments = self._read(table)
        group, start, count = (numbers(segments, name) for name in ("row_group_id", "start", "count"))
        column = segments["column_name"].to_pylist()
        is_first = np.array([name == column[0] for name in column], bool) & ~numbers(segments, "below").astype(bool)
        held = np.zeros(int(group.max(initial=-1)) + 1, np.int64)
        np.add.at(held, group[is_first], count[is_first])
        begins = np.cumsum(held) - held  # of the row groups
        inside = rows[(rows >= 0) & (rows < held.sum())]
        begin = begins[np.searchsorted(begins, inside, side="right") - 1]
        low = np.unique(begin + (inside - begin) // VECTOR_ROWS * VECTOR_ROWS)
        start = start + begins[group]
        read = np.searchsorted(low, start + count) > np.searchsorted(low + VECTOR_ROWS, start, side="right")
        wanted = read & np.array([columns is None or name in columns for name in column], bool)
        return self._spans(_listed(segments.filter(pa.array(wanted))))

    def _read(self, table: str) -> pa.Table:
        if table not in self._segments:
            self._segments[table] = self._sandbox.arrow(_SEGMENTS, [table])
        return self._segments[table]

    def _spans(self, blocks: Iterable[int]) -> list[tuple[int, int]]:
        """Return blocks as spans of bytes inside the file; none where they are too many."""
        known = sorted(set(blocks))
        if len(known) * self._block_size > MOST_FETCHED:
            return []
        starts = (FILE_HEADER + block * self._block_size for block in known)
        return [(at, min(at + self._block_size, self._size)) for at in starts if 0 <= at < self._size]


def _listed(segments: pa.Table) -> list[int]:
    """Return the blocks that segments are in, those of long texts too."""
    more = [block for blocks in segments["more"].to_pylist() for block in blocks or ()]
    return [block for block in [*segments["block"].to_pylist(), *more] if block is not None and block >= 0]
