"""Where DuckDB put the values of rows, as spans of bytes of its file: what to fetch at once before it is asked.

DuckDB reads one block after another, and of a file that lies elsewhere each is a wait. The catalog says in which blocks
a column is; only which of them are fetched follows from it, never what a value is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from galsearch.store.index.vectors import numbers
from galsearch.store.sql.sandbox import NAME, Sandbox

FILE_HEADER, BLOCK_HEADER = 3 * 4096, 8  # bytes before the first block of a DuckDB file, and at its beginning
VECTOR_ROWS = 2048  # of a row group, which DuckDB reads together
READ_ROWS = 2 * VECTOR_ROWS  # from where they begin: of the next ones it often reads the beginning
MOST_FETCHED = 64 << 20  # bytes; what takes more is left to DuckDB
_SEGMENTS = (
    "SELECT row_group_id::BIGINT AS row_group_id, column_name, contains(column_path, ',')::BIGINT AS below, "
    "start::BIGINT AS start, count::BIGINT AS count, block_id::BIGINT AS block, additional_block_ids::BIGINT[] AS more "
    "FROM pragma_storage_info($1) WHERE persistent ORDER BY row_group_id, column_id, column_path, segment_id"
)


class _Segments(NamedTuple):
    """The parts of the columns of a table, a row each: `row_group`, `start` in it, `rows`, `(n,) int64`.

    `column` is the name of each one's column, `below` says that it is a part of a list or marks what is NULL, `blocks`
    are those that it is in.
    """

    row_group: np.ndarray
    start: np.ndarray
    rows: np.ndarray
    column: list[str]
    below: np.ndarray
    blocks: list[list[int]]


class Blocks:
    """The blocks of the tables of a file; what a table has is asked once."""

    def __init__(self, sandbox: Sandbox, size: int) -> None:
        self._sandbox, self._size = sandbox, size
        self._known: dict[str, _Segments] = {}
        stated = sandbox.rows(f"SELECT block_size FROM pragma_database_size() WHERE database_name = '{NAME}'")
        self._block_size = int(stated[0][0])

    def of_tables(self, tables: Sequence[str]) -> list[tuple[int, int]]:
        """Return where everything of some tables is."""
        return self._spans(block for table in tables for blocks in self._read(table).blocks for block in blocks)

    def of_rows(self, table: str, rows: np.ndarray, columns: Sequence[str] | None = None) -> list[tuple[int, int]]:
        """Return where the values of some rows are, of all columns or of those named; whole blocks."""
        known = self._read(table)
        is_first = np.array([name == known.column[0] for name in known.column], bool) & ~known.below
        held = np.zeros(int(known.row_group.max(initial=-1)) + 1, np.int64)
        np.add.at(held, known.row_group[is_first], known.rows[is_first])
        begins = np.cumsum(held) - held  # of the row groups
        inside = rows[(rows >= 0) & (rows < held.sum())]
        begin = begins[np.searchsorted(begins, inside, side="right") - 1]
        low = np.unique(begin + (inside - begin) // VECTOR_ROWS * VECTOR_ROWS)
        start = known.start + begins[known.row_group]
        read = np.searchsorted(low, start + known.rows) > np.searchsorted(low + READ_ROWS, start, side="right")
        wanted = [index for index in np.flatnonzero(read) if columns is None or known.column[index] in columns]
        return self._spans(block for index in wanted for block in known.blocks[index])

    def _read(self, table: str) -> _Segments:
        if table not in self._known:
            result = self._sandbox.arrow(_SEGMENTS, [table])
            pairs = zip(result["block"].to_pylist(), result["more"].to_pylist(), strict=True)
            blocks = [[one for one in (first, *(more or ())) if one is not None and one >= 0] for first, more in pairs]
            self._known[table] = _Segments(
                numbers(result, "row_group_id"),
                numbers(result, "start"),
                numbers(result, "count"),
                result["column_name"].to_pylist(),
                numbers(result, "below").astype(bool),
                blocks,
            )
        return self._known[table]

    def _spans(self, blocks: Iterable[int]) -> list[tuple[int, int]]:
        """Return blocks as spans of bytes inside the file; none where they are too many."""
        known = sorted(set(blocks))
        if len(known) * self._block_size > MOST_FETCHED:
            return []
        starts = (FILE_HEADER + block * self._block_size for block in known)
        return [(at, min(at + self._block_size, self._size)) for at in starts if 0 <= at < self._size]
