"""Where galaxies come from: cutouts in a folder, a mosaic with a catalog, or a table that already holds vectors.

Each source is a table of columns, one row an object, and a way to get the picture of a row. What cannot be taken is
rejected row by row with its reason; what makes the whole input doubtful (repeated ids) is refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from galsearch import formats
from galsearch.errors import SchemaError
from galsearch.science import images
from galsearch.sources.cutouts import CutoutSource, cutout_source
from galsearch.sources.embedded import embedded_source
from galsearch.sources.files import is_archive
from galsearch.sources.known_embeddings import Publication
from galsearch.sources.mosaic import MosaicSource, demo_source, mosaic_source
from galsearch.sources.pictures import MEASURED, Taken
from galsearch.sources.spectra.assembly import Statements
from galsearch.sources.spectra.source import FILE, SpectrumSource, spectrum_source, stored_spectra
from galsearch.sources.tables import MEASURES, Catalog, Reading, Source, digest, normalize, read_rows
from galsearch.sources.vectors import VectorSource, position_name, vector_source
from galsearch.sources.workshop import LEVELS, Workshop

AnySource = TypeVar("AnySource", bound=Source)

__all__ = [
    "LEVELS",
    "MEASURED",
    "MEASURES",
    "Catalog",
    "CutoutSource",
    "MosaicSource",
    "Reading",
    "Source",
    "SpectrumSource",
    "Statements",
    "Taken",
    "VectorSource",
    "Workshop",
    "cutout_source",
    "demo_source",
    "mosaic_source",
    "normalize",
    "open_source",
    "open_spectra",
    "position_name",
    "stored_spectra",
    "vector_source",
]


def open_spectra(
    path: Path,
    table: Path | None,
    *,
    reading: Reading,
    frame: str,
    stated: Statements,
    id_from: str = "name",
    beside_pictures: bool = False,
) -> SpectrumSource:
    """Return the spectra of a folder, an archive or a file, joined to the rows of a table where there is one.

    `frame` is the one that they are compared in, `stated` what files do not say of themselves (`read_spectra`). The
    files' names are in the column of the role "spectrum_file"; `beside_pictures`, a column of files that was not named
    is theirs.
    """
    roles = {role: column for role, column in reading.roles.items() if role not in ("file", FILE)}
    there = [] if table is None else formats.column_names(table, table_name=reading.table_name)
    named = reading.roles.get(FILE) or next((name for name in there if name.casefold() == FILE), None)
    if named is not None:
        roles["file"] = named
    rows = None if table is None else read_rows(table, replace(reading, roles=roles))
    if rows is not None and beside_pictures and named is None:
        rows = replace(rows, files=None)
    if rows is not None and rows.summary.files is not None:
        notes = (*rows.summary.notes, f"spectra are named in: {rows.summary.files}")
        rows = replace(
            rows, summary=replace(rows.summary, files=None, notes=notes if rows.files else rows.summary.notes)
        )
    inputs = {} if table is None else {str(table): digest(table)}
    taken = spectrum_source(path, rows, inputs, frame=frame, stated=stated, id_from=id_from, table=table)
    return taken if rows is not None else _with_measures_of(taken, reading)


def _with_measures_of(taken: AnySource, reading: Reading) -> AnySource:
    """Return a source without a table whose measures are called as in the atlas that it is added to."""
    if reading.measures is not None:
        named = {name: reading.measures.get(name, name) for name in MEASURES}
        taken.table = taken.table.rename_columns([named.get(name, name) for name in taken.table.column_names])
        taken.measures = named
    return taken


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
    reading = replace(reading, roles={role: column for role, column in reading.roles.items() if role != FILE})
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
    taken: Source
    if source.is_dir() or is_archive(source):
        taken = cutout_source(source, rows, inputs, ext=ext, bands=bands, id_from=id_from, table=table)
    else:
        picture = images.read_picture(source, ext=ext, bands=bands, limits=images.MOSAIC)
        taken = mosaic_source(picture, rows, inputs={**inputs, str(source): digest(source)}, name=source.stem)
    return taken if rows is not None else _with_measures_of(taken, reading)
