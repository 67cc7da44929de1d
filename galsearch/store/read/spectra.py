"""Rows of the table `spectra` as a reader of a file that somebody else wrote may hand them on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from galsearch import schema
from galsearch.errors import FormatError

SPECTRA = "spectra"
SPECTRA_ROWS = 1_024  # read at a time, some 40 MB
MOST_PIXELS = 2_000_000  # of a spectrum
COLUMNS = pa.schema([("object_id", pa.string()), *schema.kept_columns(SPECTRA).items()])


def no_spectra() -> pa.Table:
    """Return the table without a row."""
    return COLUMNS.empty_table()


def checked_spectra(rows: pa.Table, path: Path) -> pa.Table:
    """Return the rows in our types. Raises FormatError where flux and ivar are no arrays of one length, or too long."""
    try:
        rows = rows.select(COLUMNS.names).cast(COLUMNS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
        raise FormatError(f"{path}: table {SPECTRA} is not as the format has it ({error}); rebuild the atlas") from None
    lengths = pc.list_value_length(rows["flux"])
    same = pc.all(pc.equal(lengths, pc.list_value_length(rows["ivar"])), skip_nulls=False).as_py()
    holes = sum(pc.list_flatten(rows[name]).null_count for name in ("flux", "ivar"))
    holes += sum(rows[name].null_count for name in ("log_wavelength_start", "log_wavelength_step", "frame"))
    some = rows.num_rows and pc.min(lengths).as_py() is not None
    if rows.num_rows and not (
        some and same and not holes and pc.min(lengths).as_py() >= 2 and pc.max(lengths).as_py() <= MOST_PIXELS
    ):
        raise FormatError(f"{path}: a spectrum has no flux and ivar of one length on a grid; rebuild the atlas")
    return rows


def each_row(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows, flux and ivar as numpy arrays."""
    about = rows.drop_columns(["flux", "ivar"]).to_pylist()
    for row, flux, ivar in zip(about, rows["flux"], rows["ivar"], strict=True):
        yield {**row, "flux": flux.values.to_numpy(), "ivar": ivar.values.to_numpy()}


def by_ids(rows: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Return the rows in the order of `ids`; those without a row are left out."""
    index = pc.index_in(pa.array(list(ids), pa.string()), value_set=rows["object_id"].combine_chunks())
    return rows.take(pc.drop_null(index))
