"""Where Lance put the floats: a wide column without NULLs lies in its data files as plain pages, to be mapped."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader

from galsearch import schema
from galsearch.store.index.vectors import MapError, by_file, mapped, runs_table
from galsearch.store.read.base import vectors as as_array
from galsearch.store.read.folder import LANCE, MODELS, file_digest
from galsearch.store.write.index_tables import write_runs

SAMPLE = 64  # rows compared before a map is trusted
COLUMN = "embedding"


def write_pages(connection, folder: Path, name: str, version: int, dim: int) -> None:
    """Bring the part of `vector_map` for an embedding up to a version of its Lance table.

    Runs already noted stay: Lance never changes a data file. Where Lance packed the numbers otherwise (vectors of few
    dimensions), nothing is noted, and it is asked instead.
    """
    table = f"embedding_{name}"
    dataset = lance.dataset(str(folder / LANCE / f"{name}.lance"), version=version)
    known = _known(connection, table)
    runs, first = [], 0
    for fragment in dataset.get_fragments():
        file = _only_file(fragment)
        if file is not None:
            path, values = f"{LANCE}/{name}.lance/data/{file}", fragment.count_rows() * dim
            part = known[path] if path in known else _runs(folder, path, values, first)
            runs += [part] if part is not None else []
        first += fragment.count_rows() * dim
    write_runs(connection, table, None)
    every = pa.concat_tables(runs) if runs else None
    if every is not None and _holds(every, folder, dataset, dim):
        write_runs(connection, table, every)


def file_digests(folder: Path, versions: dict[str, int], known: dict[str, int]) -> dict[str, int]:
    """Return the CRC-32 of the files of the models and of these versions of the Lance tables, by path in the folder.

    Those that are known are not read again: Lance never changes a file, and models come with the first build.
    """
    paths = [path for path in (folder / MODELS).rglob("*") if path.is_file()]
    for name, version in versions.items():
        table = folder / LANCE / f"{name}.lance"
        files = [
            file.path
            for part in lance.dataset(str(table), version=version).get_fragments()
            for file in part.data_files()
        ]
        paths += [table / "data" / file for file in files]
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
    """Return the one data file of a fragment from which no row was deleted; None for any other."""
    files = fragment.data_files()
    return files[0].path if len(files) == 1 and fragment.physical_rows == fragment.count_rows() else None


def _runs(folder: Path, file: str, values: int, first: int) -> pa.Table | None:
    """Return the runs of a data file that holds so many values, the first of them number `first`, or None."""
    metadata = LanceFileReader(str(folder / file)).metadata()
    pages = metadata.columns[metadata.schema.get_field_index(COLUMN)].pages
    if any(len(page.buffers) != 1 for page in pages):
        return None
    indices = np.array([page.buffers[0].position for page in pages], np.int64)
    sizes = np.array([page.buffers[0].size for page in pages], np.int64) // 4
    return runs_table(file, folder / file, indices, sizes, first) if sizes.sum() == values else None


def _holds(runs: pa.Table, folder: Path, dataset: lance.LanceDataset, dim: int) -> bool:
    """Compare what the map finds with what Lance says, at the beginning, the end and between."""
    indices = np.unique(np.linspace(0, dataset.count_rows() - 1, SAMPLE).astype(np.int64))
    stated = as_array(dataset.take(indices.tolist(), columns=[COLUMN])[COLUMN])
    try:
        result = mapped(runs, dim, lambda file: folder / str(file))
        return result.rows == dataset.count_rows() and np.array_equal(result.take(indices), stated)
    except MapError:
        return False
