"""A folder of cutouts: one picture file an object, joined to the rows of a table by file name or id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from galsearch import schema
from galsearch.columns import Summary, free_names
from galsearch.errors import SchemaError
from galsearch.escaping import printable
from galsearch.sources.files import PICTURES, Archive, FileKind, Files, Folder, open_files
from galsearch.sources.pictures import job_of_file
from galsearch.sources.tables import (
    Catalog,
    Source,
    check_ids,
    must_have_ids,
    off_the_sky,
    own_table,
    without,
)
from galsearch.sources.workshop import Job

FILE_REASON = "{name} is the {noun}'s file in the atlas"
NONE_NAMED = "no {noun} named"  # how the reason begins of a row that has no file
NOUNS = {"file": "picture", "spectrum_file": "spectrum"}


@dataclass
class CutoutSource(Source):
    """One picture file an object: `files` are names in `home`; `ext` and `bands` as `images.read_picture` has them."""

    files: list[str] = field(default_factory=list)
    home: Files = field(kw_only=True)
    ext: str | int | None = None
    bands: tuple[str, ...] | None = None

    def job(self, row: int) -> Job:
        """Return the picture file of a row; its content where it comes from an archive or a table."""
        file = self.files[row]
        return job_of_file(self.home.read(file), name=PurePosixPath(file).name, ext=self.ext, bands=self.bands)


def cutout_source(
    path: Path,
    rows: Catalog | None,
    inputs: dict[str, str],
    *,
    ext: str | int | None = None,
    bands: tuple[str, ...] | None = None,
    id_from: str = "name",
    table: Path | None = None,
) -> CutoutSource:
    """Join the picture files of a folder or an archive to the rows of a table by file name or by id.

    Without a table the file's name is the id, or its path below the folder (`id_from` "name" or "path"). Rows without
    a picture, pictures without a row and files that are passed over are rejected; `table` is not, where it lies in the
    folder.
    """
    home = open_files(path, leave_out=frozenset() if table is None else frozenset([table.resolve()]))
    inputs = {**inputs, str(path): home.digest()}
    joined = join_files(path, home, rows, id_from)
    return CutoutSource(
        joined.table, inputs, joined.rejected, joined.files, ext, bands, home=home, measures=joined.measures,
        summary=joined.summary,
    )  # fmt: skip


@dataclass(frozen=True)
class Joined:
    """Rows with the file of each, those left out, and what is to be told."""

    table: pa.Table
    files: list[str]
    rejected: list[dict[str, Any]]
    measures: Mapping[str, str]
    summary: Summary


def join_files(
    path: Path, home: Folder | Archive, rows: Catalog | None, id_from: str = "name", *, column: str = "file"
) -> Joined:
    """Join the files of a folder or an archive to the rows of a table, in whose `column` their names are written."""
    kind = home.kind
    rows = _of_files(path, home, id_from) if rows is None else with_ids_of_files(rows, id_from, kind)
    files, bad = _joined(path, home, rows)
    bad |= off_the_sky(rows.table)
    unused = sorted(set(home.names) - set(files.values()))
    taken, rejected, kept = without(rows, bad)
    left_out = [*((file, "no row in the table") for file in unused), *home.passed_over]
    rejected += [{"object_id": None, "file": printable(file), "reason": reason} for file, reason in left_out]
    chosen = [files[row] for row in kept]
    if isinstance(home, Archive):  # it is read from its start to its end
        index = {name: number for number, name in enumerate(home.names)}
        order = sorted(range(len(chosen)), key=lambda row: index[chosen[row]])
        taken, chosen = taken.take(pa.array(order, pa.int64())), [chosen[row] for row in order]
    taken, summary = with_files(taken, chosen, rows.summary, name=column)
    return Joined(taken, chosen, rejected, rows.measures, summary)


def with_files(table: pa.Table, files: list[str], summary: Summary, *, name: str = "file") -> tuple[pa.Table, Summary]:
    """Return the table with the files of its rows in column `name`, and what is to be told of it.

    A column of the table that is called so and says something else is `file_in_table` then.
    """
    values = pa.array(files, pa.string())
    column = next((n for n, each in enumerate(table.column_names) if each.casefold() == name), None)
    if column is not None and table.field(column).type == pa.string() and table.column(column).to_pylist() == files:
        table = table.remove_column(column)
    elif column is not None:
        old = table.column_names[column]
        others = [each for each in table.column_names if each != old]
        new = free_names([old], [*others, name])[0]
        table = table.rename_columns([new if each == old else each for each in table.column_names])
        reasons = {**summary.reasons, old: FILE_REASON.format(name=name, noun=NOUNS[name])}
        summary = replace(summary, renamed={**summary.renamed, old: new}, reasons=reasons)
    return table.append_column(schema.arrow_field(name), values), summary


def _of_files(path: Path, home: Folder | Archive, id_from: str) -> Catalog:
    """Return the rows of a folder without a table: the files' names without suffix are the ids, or their paths."""
    files = home.names
    ids = files if id_from == "path" else [home.kind.stem(PurePosixPath(file)) for file in files]
    _check_names(path, ids, files)
    table = own_table(pa.table([pa.array(ids, pa.string())], schema=pa.schema([schema.arrow_field("object_id")])))
    return Catalog(table, str(path))


def _check_names(path: Path, ids: list[str], files: list[str]) -> None:
    """Raise SchemaError where two files would give one id."""
    counts = Counter(ids)
    twice = [name for name in counts if counts[name] > 1]
    if twice:
        there = " and ".join(file for name, file in zip(ids, files, strict=True) if name == twice[0])
        raise SchemaError(
            f"{path}: {len(twice)} ids stand more than once, such as '{twice[0]}' for {there}; an object_id is unique: "
            "take the paths as ids (--id-from path), or name the files in a table. Bands of one galaxy belong into one "
            "FITS file"
        )


def with_ids_of_files(rows: Catalog, id_from: str = "name", kind: FileKind = PICTURES) -> Catalog:
    """Return rows with ids: where the table has file names alone, they are these without suffix, or as they are."""
    if "object_id" in rows.table.column_names or rows.files is None:
        must_have_ids(rows)
        return rows
    names = [name or None for name in rows.files]
    ids = names if id_from == "path" else [kind.stem(PurePosixPath(name)) if name else None for name in names]
    bad = {row: f"row {row + 1} has neither an id nor a file" for row, each in enumerate(ids) if each is None}
    check_ids(ids, f"{rows.name}: the file names")
    table = rows.table.add_column(0, schema.arrow_field("object_id"), pa.array(ids, pa.string()))
    return replace(rows, table=table, bad={**rows.bad, **bad})


def _joined(path: Path, home: Folder | Archive, rows: Catalog) -> tuple[dict[int, str], dict[int, str]]:
    """Return the rows' files, and why a row has none: found by path, else by name, else by name without suffix."""
    kind, called = home.kind, dict[str, list[str]]()
    for spelled in (str, lambda file: PurePosixPath(file).name, lambda file: kind.stem(PurePosixPath(file))):
        result: dict[str, list[str]] = {}
        for file in home.names:
            result.setdefault(spelled(file), []).append(file)
        called = {**result, **called}
    names = rows.files or [None] * rows.table.num_rows
    paths: dict[int, str] = {}
    bad = {}
    for row, (object_id, name) in enumerate(zip(rows.table["object_id"].to_pylist(), names, strict=True)):
        tried = ((name, PurePosixPath(name).name) if name else ()) + (object_id,)
        there = next((called[item] for item in tried if item in called), [])
        if not there:
            bad[row] = f"{NONE_NAMED.format(noun=kind.noun)} '{name or object_id}' in {path.name}"
        elif len(there) > 1:
            bad[row] = (
                f"{len(there)} {kind.plural} are called so, '{there[0]}' and '{there[1]}'; give the path as its file"
            )
        else:
            paths[row] = there[0]
    return paths, bad
