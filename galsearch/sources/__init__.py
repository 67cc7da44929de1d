"""Where galaxies come from: cutouts in a folder, a mosaic with a catalog, or a table that already holds vectors.

Each source is a table of columns, one row an object, and a way to get the picture of a row. What cannot be taken is
rejected row by row with its reason; what makes the whole input doubtful (repeated ids) is refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from galsearch import formats
from galsearch.errors import SchemaError
from galsearch.science import images
from galsearch.sources.cutouts import CutoutSource, cutout_source, stem
from galsearch.sources.embedded import embedded_source
from galsearch.sources.files import is_archive
from galsearch.sources.known_embeddings import Publication
from galsearch.sources.mosaic import MosaicSource, demo_source, mosaic_source
from galsearch.sources.pictures import LEVELS, MEASURED, Taken, Workshop
from galsearch.sources.tables import MEASURES, Catalog, Reading, Source, digest, normalize, read_rows
from galsearch.sources.vectors import VectorSource, position_name, vector_source

__all__ = [
    "LEVELS",
    "MEASURED",
    "MEASURES",
    "Catalog",
    "CutoutSource",
    "MosaicSource",
    "Reading",
    "Source",
    "Taken",
    "VectorSource",
    "Workshop",
    "cutout_source",
    "demo_source",
    "mosaic_source",
    "normalize",
    "open_source",
    "position_name",
    "stem",
    "vector_source",
]


def open_source(
    source: Path | None,
    table: Path | None,
    *,
    vectors: str | None,
    id_column: str | None = None,
    publication: Publication | None = None,
    reading: Reading | None = None,
    ext: str | int | None = None,
    bands: Sequence[str] | None = None,
    id_from: str = "name",
) -> Source:
    """Return the source that the arguments describe: a folder or an archive is cutouts, another file is a mosaic,
    `vectors` a column.

    A `publication` says whose vectors the column has, and names it where `vectors` does not. `reading` says how the
    table is read, `ext` and `bands` which images of a FITS file are (`images.read_picture`), `id_from` what the ids of
    cutouts without a table are: the file's "name" or its "path".

    Raises SchemaError when the input as a whole cannot be taken.
    """
    reading = reading or Reading()
    if id_column is not None:
        reading = replace(reading, roles={**reading.roles, "object_id": id_column})
    if vectors is not None:
        if table is None or source is not None:
            raise SchemaError("vectors names a column of a table: give the table, and no pictures")
        return vector_source(table, vectors, reading, publication)
    if publication is not None and table is not None:
        return vector_source(table, publication.column, reading, publication)
    bands = None if bands is None else tuple(bands)
    if source is None and table is not None and (column := formats.picture_column(table)):
        return embedded_source(table, column, reading, ext=ext, bands=bands)
    rows = None if table is None else read_rows(table, reading)
    inputs = {} if table is None else {str(table): digest(table)}
    if source is None:
        raise SchemaError("nothing to take in: give a folder of cutouts, a mosaic, or a table with a column of vectors")
    if id_from not in ("name", "path"):
        raise SchemaError(f"id_from {id_from!r} is not known; give name or path")
    if source.is_dir() or is_archive(source):
        return cutout_source(source, rows, inputs, ext=ext, bands=bands, id_from=id_from, table=table)
    picture = images.read_picture(source, ext=ext, bands=bands, limits=images.MOSAIC)
    return mosaic_source(picture, rows, inputs={**inputs, str(source): digest(source)}, name=source.stem)
