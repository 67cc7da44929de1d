"""Where Lance put the floats: a wide column without NULLs lies in its data files as plain pages, to be mapped."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader

from galsearch import schema
from galsearch.store.files import file_digest
from galsearch.store.index.vectors import MapError, by_file, mapped, runs_table
from galsearch.store.read.base import vectors as as_array
from galsearch.store.read.folder import LANCE, MODELS
from galsearch.store.write.index_tables import write_runs

SAMPLE = 64  # rows compared before a map is trusted
MOST_RUNS = 10_000  # of all files together
COLUMN = "embedding"


def write_pages(connection, folder: Path, name: str, version: int, dim: int) -> None:
    """Bring the part of `vector_map` for an embedding up to a version of its Lance table.

    Runs already noted stay: Lance never changes a data file. Rows that were deleted lie between runs. Where Lance
    packed the numbers otherwise (vectors of few dimensions), or deletions leave more than MOST_RUNS, nothing is noted,
    and it is asked instead.
    """
    table = f"embedding_{name}"
    dataset = lance.dataset(str(folder / LANCE / f"{name}.lance"), version=version)
    known = _known(connection, table)
    runs, first = [], 0
    for fragment in dataset.get_fragments():
        file, values = _only_file(fragment), fragment.count_rows() * dim
        if file is not None:
            path = f"{LANCE}/{name}.lance/data/{file}"
            part = _renumbered(known[path], first, values) if path in known else None
            part = _runs(folder, path, fragment, dim, first) if part is None else part
            runs += [part] if part is not None else []
        first += values
    write_runs(connection, table, None)
    every = pa.concat_tables(runs) if runs else None
    if every is not None and every.num_rows <= MOST_RUNS and _holds(every, folder, dataset, dim):
        write_runs(connection, table, every)


def file_digests(folder: Path, versions: dict[str, int], known: dict[str, int]) -> dict[str, int]:
    """Return the CRC-32 of the files of the models and of these versions of the Lance tables, by path in the folder.

    Those that are known are not read again: Lance never changes a file, and models come with the first build.
    """
    paths = [path for path in (folder / MODELS).rglob("*") if path.is_file()]
    for name, version in versions.items():
        table = folder / LANCE / f"{name}.lance"
        for part in lance.dataset(str(table), version=version).get_fragments():
            paths += [table / "data" / file.path for file in part.data_files()]
            paths += [table / deleted] if (deleted := part.deletion_file()) else []
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    return {name: known[name] if name in known else file_digest(folder / name) for name in names}


def _known(connection, table: str) -> dict[str, pa.Table]:
    """Return the runs noted before, by file."""
    there = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = $1", [schema.MAP_TABLE]).fetchall()
    if not there:
        return {}
    columns = "file, first_value, run_values, byte_offset, head, crc32"
    result = connection.sql(
        f"SELECT {columns} FROM {schema.MAP_TABLE} WHERE name = $1 ORDER BY first_value", params=[table]
    ).to_arrow_table()
    return {file: runs for file, runs in by_file(result) if file is not None}


def _only_file(fragment: lance.LanceFragment) -> str | None:
    """Return the one data file of a fragment; None where there are several."""
    files = fragment.data_files()
    return files[0].path if len(files) == 1 else None


def _renumbered(runs: pa.Table, first: int, values: int) -> pa.Table | None:
    """Return known runs of a file as they are where its first value is number `first`; None where rows were deleted."""
    sizes = np.array(runs["run_values"].to_pylist(), np.int64)
    if sizes.sum() != values:
        return None
    index = runs.column_names.index("first_value")
    return runs.set_column(index, runs.field(index), pa.array(first + np.cumsum(sizes) - sizes))


def _runs(folder: Path, file: str, fragment: lance.LanceFragment, dim: int, first: int) -> pa.Table | None:
    """Return the runs of the data file of a fragment, its first value being number `first`, or None."""
    metadata = LanceFileReader(str(folder / file)).metadata()
    pages = metadata.columns[metadata.schema.get_field_index(COLUMN)].pages
    if any(len(page.buffers) != 1 for page in pages):
        return None
    indices = np.array([page.buffers[0].position for page in pages], np.int64)
    sizes = np.array([page.buffers[0].size for page in pages], np.int64) // 4
    if sizes.sum() != fragment.physical_rows * dim:
        return None
    if fragment.num_deletions:
        if (sizes % dim).any():
            return None
        indices, sizes = _without_deleted(fragment, indices, sizes, dim)
    return runs_table(file, folder / file, indices, sizes, first)


def _without_deleted(
    fragment: lance.LanceFragment, indices: np.ndarray, sizes: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return byte offsets and sizes of the runs between the deleted rows of a fragment, given those of its pages."""
    addresses = fragment.scanner(columns=[], with_row_address=True).to_table()["_rowaddr"].to_pylist()
    rows = np.array(addresses, np.uint64).astype(np.int64) & 0xFFFFFFFF
    starts = np.cumsum(sizes // dim) - sizes // dim
    page = np.searchsorted(starts, rows, side="right") - 1
    begins = np.flatnonzero((np.diff(rows, prepend=-2) != 1) | (np.diff(page, prepend=-1) != 0))
    held = np.diff(begins, append=len(rows))
    width = dim * np.dtype(np.float32).itemsize
    return indices[page[begins]] + (rows[begins] - starts[page[begins]]) * width, held * dim


def _holds(runs: pa.Table, folder: Path, dataset: lance.LanceDataset, dim: int) -> bool:
    """Compare what the map finds with what Lance says, at the beginning, the end and between."""
    indices = np.unique(np.linspace(0, dataset.count_rows() - 1, SAMPLE).astype(np.int64))
    stated = as_array(dataset.take(indices.tolist(), columns=[COLUMN])[COLUMN])
    try:
        result = mapped(runs, dim, lambda file: folder / str(file))
        return result.rows == dataset.count_rows() and np.array_equal(result.take(indices), stated)
    except MapError:
        return False
