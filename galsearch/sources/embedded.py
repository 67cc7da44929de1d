"""A Parquet table that holds the pictures themselves, as on a hub: a column of bytes, or of {bytes, path}."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from galsearch import exchange
from galsearch.sources.cutouts import CutoutSource
from galsearch.sources.tables import Reading, digest, must_have_ids, off_the_sky, read_rows, without

NAMES = ("image", "image.bytes", "image_bytes", "picture", "cutout", "jpeg", "jpg", "png")


@dataclass(frozen=True)
class PictureColumn:
    """The pictures in a column, by names such as `image[3]` that count rows from 1."""

    contents: dict[str, bytes]

    def read(self, name: str) -> bytes:
        """Return the content of a picture, as `images.read_picture` takes it."""
        return self.contents[name]


def picture_column(table: Path) -> str | None:
    """Return the column of a Parquet file that holds pictures; None for another file or without one."""
    if table.suffix.lower() not in (".parquet", ".pq"):
        return None
    from pyarrow import parquet

    fields = [item for item in parquet.read_schema(table) if _holds_bytes(item.type)]
    named = [item.name for item in fields if item.name.casefold() in NAMES]
    return (named or [item.name for item in fields if pa.types.is_struct(item.type)] or [None])[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def embedded_source(
    table: Path, column: str, reading: Reading, *, ext: str | int | None, bands: tuple[str, ...] | None
) -> CutoutSource:
    """Take the pictures of a column; all are in memory. Rows without one are rejected."""
    rows = read_rows(table, reading, without=[column])
    must_have_ids(rows)
    found = [one for part in exchange.column_parts(table, column) for one in part.to_pylist()]
    found = [one.get("bytes") if isinstance(one, dict) else one for one in found]
    bad = {row: f"row {row + 1} has no picture in column {column}" for row, one in enumerate(found) if not one}
    taken, rejected, kept = without(rows, bad | off_the_sky(rows.table))
    names = [f"{column}[{row + 1}]" for row in kept]
    home = PictureColumn({name: found[row] for name, row in zip(names, kept, strict=True)})
    inputs = {str(table): digest(table)}
    return CutoutSource(taken, inputs, rejected, names, home, ext, bands, measures=rows.measures, summary=rows.summary)
