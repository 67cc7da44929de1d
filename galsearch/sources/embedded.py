"""A Parquet table that holds the pictures themselves, as on a hub: a column of bytes, or of {bytes, path}."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from galsearch import formats
from galsearch.errors import SchemaError
from galsearch.sources.cutouts import CutoutSource, with_ids_of_files
from galsearch.sources.tables import Reading, digest, off_the_sky, read_rows, without


@dataclass(frozen=True)
class PictureColumn:
    """The pictures in a column, by names such as `image[3]` that count rows from 1; read a few rows at a time."""

    cells: formats.ByteColumn
    rows: dict[str, int]

    def read(self, name: str) -> bytes:
        """Return the content of a picture, as `images.read_picture` takes it; SchemaError where the cell is empty."""
        content = self.cells[self.rows[name]]
        if not content:
            raise SchemaError(f"row {self.rows[name] + 1} has no picture in column {self.cells.column}")
        return content


def embedded_source(
    table: Path, column: str, reading: Reading, *, ext: str | int | None, bands: tuple[str, ...] | None
) -> CutoutSource:
    """Take the pictures of a column, a few in memory at a time; rows without one are rejected when they are reached.

    Without a column of ids, what the table calls each picture (`path` of {bytes, path}) is the id, without its suffix.
    """
    cells = formats.ByteColumn(table, column)
    rows = read_rows(table, reading, without=[column])
    rows = with_ids_of_files(replace(rows, files=cells.names if any(cells.names) else None))
    taken, rejected, kept = without(rows, {**rows.bad, **off_the_sky(rows.table)})
    names = {f"{column}[{row + 1}]": row for row in kept}
    home = PictureColumn(cells, names)
    inputs = {str(table): digest(table)}
    return CutoutSource(
        taken, inputs, rejected, list(names), ext, bands, home=home, measures=rows.measures, summary=rows.summary
    )
