"""A folder of cutouts: one picture file an object, joined to the rows of a table by file name or id."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from galsearch import images, morphology, schema
from galsearch.columns import Summary, free_names
from galsearch.errors import SchemaError
from galsearch.sources.tables import (
    MEASURED,
    Catalog,
    Source,
    Taken,
    check_ids,
    must_have_ids,
    off_the_sky,
    own_table,
    without,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".fits", ".fit", ".fits.gz", ".fits.fz")
FILE_REASON = "file is the picture's file in the atlas"


@dataclass
class CutoutSource(Source):
    """One picture file an object."""

    files: list[Path] = field(default_factory=list)

    def take(self, row: int) -> Taken:
        """Read, render and measure the picture of a row."""
        picture = images.read_picture(self.files[row])
        rgb = images.render(picture)
        light = rgb if picture.stretched else images.red_first(picture)
        measured = {name: value for name, value in morphology.measure(light).items() if name in MEASURED}
        return Taken(rgb, {**measured, **_on_the_sky(picture, measured["radius_px"])})


def _on_the_sky(picture: images.Picture, radius_px: float | None) -> dict[str, float]:
    """Return the position of the picture's center and the radius in arcsec, where the picture has a WCS."""
    height, width = picture.flux.shape[:2]
    place = picture.sky_position((width - 1) / 2, (height - 1) / 2)
    if place is None:
        return {}
    if not np.isfinite(place).all():
        raise SchemaError(f"{picture.name}: its WCS puts its center nowhere on the sky; mend it or remove its CTYPE")
    known = {"ra": place[0], "dec": place[1]}
    return known if radius_px is None else {**known, "radius_arcsec": radius_px * picture.pixel_arcsec}


def cutout_source(folder: Path, rows: Catalog | None, inputs: dict[str, str]) -> CutoutSource:
    """Join the picture files of a folder to the rows of a table by file name or by id; without a table, the file's
    name is the id. Rows without a picture and pictures without a row are rejected."""
    files = sorted(item for item in folder.rglob("*") if item.is_file() and item.name.lower().endswith(SUFFIXES))
    if not files:
        raise SchemaError(f"{folder}: no pictures inside; galsearch reads {', '.join(SUFFIXES)}")
    inputs = {**inputs, str(folder): _listing_digest(folder, files)}
    rows = _of_files(folder, files) if rows is None else _with_ids(rows)
    paths, bad = _joined(folder, files, rows)
    bad |= off_the_sky(rows.table)
    unused = sorted(set(files) - {path for path in paths if path})
    table, rejected, kept = without(rows, bad)
    rejected += [
        {"object_id": None, "file": str(f.relative_to(folder)), "reason": "no row in the table"} for f in unused
    ]
    chosen = [paths[row] for row in kept]
    table, summary = with_files(table, [str(path.relative_to(folder)) for path in chosen], rows.summary)
    return CutoutSource(table, inputs, rejected, chosen, measures=rows.measures, summary=summary)


def with_files(table: pa.Table, files: list[str], summary: Summary) -> tuple[pa.Table, Summary]:
    """Return the table with the files of the pictures, and what is to be told of it.

    A column of the table that is called `file` and says something else is `file_in_table` then.
    """
    values = pa.array(files, pa.string())
    place = next((n for n, each in enumerate(table.column_names) if each.casefold() == "file"), None)
    if place is not None and table.field(place).type == pa.string() and table.column(place).to_pylist() == files:
        table = table.remove_column(place)
    elif place is not None:
        old = table.column_names[place]
        others = [each for each in table.column_names if each != old]
        new = free_names([old], [*others, "file"])[0]
        table = table.rename_columns([new if each == old else each for each in table.column_names])
        told = {"renamed": {**summary.renamed, old: new}, "reasons": {**summary.reasons, old: FILE_REASON}}
        summary = replace(summary, **told)
    return table.append_column(schema.arrow_field("file"), values), summary


def _of_files(folder: Path, files: list[Path]) -> Catalog:
    """Return the rows of a folder without a table: the files' names without suffix are the ids."""
    ids = [stem(item) for item in files]
    check_ids(ids, str(folder), sources=[str(item.relative_to(folder)) for item in files])
    table = own_table(pa.table([pa.array(ids, pa.string())], schema=pa.schema([schema.arrow_field("object_id")])))
    return Catalog(table, str(folder))


def _with_ids(rows: Catalog) -> Catalog:
    """Return rows with ids: where the table has file names alone, they are the files' names without suffix."""
    if "object_id" in rows.table.column_names or rows.files is None:
        must_have_ids(rows)
        return rows
    ids = [stem(Path(name)) if name else None for name in rows.files]
    bad = {row: f"row {row + 1} has neither an id nor a file" for row, each in enumerate(ids) if each is None}
    check_ids(ids, f"{rows.name}: the file names")
    table = rows.table.add_column(0, schema.arrow_field("object_id"), pa.array(ids, pa.string()))
    return replace(rows, table=table, bad={**rows.bad, **bad})


def stem(path: Path) -> str:
    """Return the file's name without its picture suffix."""
    name = path.name
    return name[: -max((len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix)), default=-len(name))]


def _joined(folder: Path, files: list[Path], rows: Catalog) -> tuple[list[Path | None], dict[int, str]]:
    by_name = {stem(item): item for item in files} | {item.name: item for item in files}
    by_name |= {str(item.relative_to(folder)): item for item in files}
    names = rows.files or [None] * rows.table.num_rows
    paths: list[Path | None] = []
    bad = {}
    for row, (object_id, name) in enumerate(zip(rows.table["object_id"].to_pylist(), names, strict=True)):
        tried = ((name, Path(name).name) if name else ()) + (object_id,)
        found = next((by_name[item] for item in tried if item in by_name), None)
        if found is None:
            bad[row] = f"no picture named '{name or object_id}' in {folder.name}"
        paths.append(found)
    return paths, bad


def _listing_digest(folder: Path, files: list[Path]) -> str:
    """Return a digest of names, sizes and times: enough to see that a folder changed, without reading it twice."""
    lines = [f"{item.relative_to(folder)} {item.stat().st_size} {item.stat().st_mtime_ns}" for item in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
