"""Tables of objects as they come in: names, ids, positions, what is missing; rows left out with their reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import columns, formats, schema
from galsearch.columns import MISSING, Pixels, Summary
from galsearch.errors import SchemaError
from galsearch.sources.pictures import MEASURED, Taken, craft, take
from galsearch.sources.workshop import Craft, Job, Prepared, Workshop, prepare_all

MEASURES = (
    *MEASURED,
    "radius_arcsec",
    "is_star",
    "is_artifact",
    "is_edge",
    *schema.LINE_MEASURES,
)  # what galsearch measures, by its own names
LEAST_SIZE_PX = 64  # of the squares that pictures are shrunk to where no encoder takes them
TOLD_ROWS = 4  # of an id that is repeated
MAGNITUDES = ("mag_g", "mag_r", "mag_i", "mag_z")


@dataclass(frozen=True)
class Reading:
    """What a user says of a table: its columns by role, which table of a file, numbers that stand for no value.

    For rows that are added, `measures` says where the atlas has its measures, and `z_was` what a column called z was
    when it was built, "band" or "other" (None: it was not renamed).
    """

    roles: Mapping[str, str] = field(default_factory=dict)
    table_name: str | int | None = None
    missing: tuple[float, ...] = ()
    measures: Mapping[str, str] | None = None
    z_was: str | None = None


@dataclass(frozen=True)
class Catalog:
    """A table ready to be taken in: object_id where it has ids, ra and dec in degrees or NULL, z, the user's columns.

    `files` is what the table says of the file of each row, `bad` the rows that cannot be taken with the reason,
    `measures` the name that each measure of ours gets beside these columns.
    """

    table: pa.Table
    name: str
    files: list[str | None] | None = None
    bad: dict[int, str] = field(default_factory=dict)
    pixels: Pixels | None = None
    measures: Mapping[str, str] = field(default_factory=lambda: {name: name for name in MEASURES})
    summary: Summary = field(default_factory=Summary)


@dataclass(frozen=True)
class Batch:
    """Some rows of a source that were taken, and what of them was left out, as {object_id, file, reason}.

    `content` is what an encoder takes, an array for each row, or vectors `(n, d) float32`. `stored` is what else an
    atlas keeps of the rows, by the table that it goes to (`schema.KEPT`): small pictures as WebP bytes, spectra.
    """

    table: pa.Table
    content: Sequence[np.ndarray] | np.ndarray
    rejected: list[dict[str, Any]]
    stored: dict[str, pa.Array] = field(default_factory=dict)


@dataclass
class Source:
    """Objects to take in: `table` has object_id, ra, dec and any other columns; `rejected` what is left out already.

    `measures` says what each measure of ours is called beside them, `summary` what was found in the user's table,
    `picture_notes` what was noted of pictures that were taken in this run.
    """

    table: pa.Table
    inputs: dict[str, str]
    rejected: list[dict] = field(default_factory=list)
    measures: Mapping[str, str] = field(default_factory=lambda: {name: name for name in MEASURES}, kw_only=True)
    summary: Summary = field(default_factory=Summary, kw_only=True)
    picture_notes: Counter[str] = field(default_factory=Counter, kw_only=True)

    modality: ClassVar[str] = schema.MAIN
    measured: ClassVar[tuple[str, ...]] = (*MEASURED, "radius_arcsec")
    completed: ClassVar[tuple[str, ...]] = ("ra", "dec")  # columns in which what files say fills what is NULL
    file_column: ClassVar[str] = "file"
    doing: ClassVar[str] = "measuring and embedding"  # what progress calls it

    @property
    def dim(self) -> int | None:
        """How long the vectors are that it brings along; None where an encoder makes them."""
        return None

    @property
    def has_pictures(self) -> bool:
        """Whether it is pictures that an encoder reads."""
        return self.modality == schema.MAIN and self.dim is None

    def _rejection(self, row: int, reason: str) -> dict[str, Any]:
        there = self.file_column in self.table.column_names
        file = self.table[self.file_column][row].as_py() if there else None
        name = self.table["object_id"][row].as_py()
        for prefix in (Path(file or "").name, name):
            reason = reason.removeprefix(f"{prefix}: ")
        return {"object_id": name, "file": file, "reason": reason}

    def told(self) -> Summary:
        """Return the summary with what was noted of the pictures that were taken, and of how many."""
        what = {schema.MAIN: "pictures"}.get(self.modality, "spectra")
        notes = [f"{count} {what}: {note}" for note, count in self.picture_notes.most_common()]
        beside = [self.measures[name] for name in self.measured if self.measures.get(name, name) != name]
        if beside:
            notes.append(f"measures beside columns of the table that are called like them: {', '.join(beside)}")
        return replace(self.summary, notes=(*self.summary.notes, *notes))

    def job(self, row: int) -> Job:
        """Return the picture of a row, not read yet; SchemaError when it cannot be had."""
        raise NotImplementedError

    def craft(self, measure: str, model_input: Mapping[str, Any] | None) -> Craft:
        """Return what is done with the jobs, for an encoder of that input where there is one."""
        return craft(size_px=int((model_input or {}).get("size_px", LEAST_SIZE_PX)), measure=measure)

    def take(self, row: int) -> Taken:
        """Return the picture of a row, read, rendered and measured; SchemaError when it cannot be used."""
        taken = take(self.job(row))
        self.picture_notes.update(taken.notes)
        return taken

    def batches(
        self,
        ranges: Sequence[range],
        workshop: Workshop,
        *,
        model_input: Mapping[str, Any] | None = None,
        seen: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Batch]:
        """Yield each range of rows with what was read and measured of them, in order; what fails is rejected.

        `model_input` is what the encoder's card says of its input; `seen` is told the row that was reached.
        """
        rows = [row for each in ranges for row in each]
        done_by = self.craft(workshop.measure, model_input)
        made = prepare_all((partial(self.job, row) for row in rows), done_by, workshop, rows=len(rows))
        with closing(made):
            for each in ranges:
                done = []
                for row in each:
                    done.append(next(made))
                    seen(row + 1)
                yield self._batch(each, done)

    def _batch(self, rows: range, done: Sequence[Prepared]) -> Batch:
        pairs = list(zip(rows, done, strict=True))
        accepted = [(row, item) for row, item in pairs if item.problem is None]
        rejected = [self._rejection(row, item.problem) for row, item in pairs if item.problem is not None]
        self.picture_notes.update(note for _, item in accepted for note in item.notes)
        known = self.table.take(pa.array([row for row, _ in accepted], pa.int64()))
        table = self._with_measured(known, [item.columns for _, item in accepted])
        content = [item.content for _, item in accepted if item.content is not None]
        names = dict.fromkeys(name for _, item in accepted for name in item.stored)
        kinds = {**schema.KEPT, **schema.LISTED}
        stored = {name: pa.array([item.stored.get(name) for _, item in accepted], kinds[name]) for name in names}
        return Batch(table, content, rejected, stored)

    def _with_measured(self, table: pa.Table, measured: list[dict[str, Any]]) -> pa.Table:
        """Add what was measured, by the names of its columns, and what files say; what the source says of it wins."""
        for name in (*self.measured, *self.completed):
            values = pa.chunked_array([pa.array([row.get(name) for row in measured], schema.arrow_field(name).type)])
            column = self.measures.get(name, name)
            if name in self.completed and name in table.column_names:
                item = table.field(name)
                if pa.types.is_floating(item.type):
                    filled = pc.coalesce(table[name], values.cast(item.type))
                    table = table.set_column(table.column_names.index(name), item, filled)
            elif column not in table.column_names and any(name in row for row in measured):
                table = table.append_column(schema.arrow_field(name).with_name(column), values)
        return table


def read_rows(table: Path, reading: Reading, *, without: Sequence[str] = ()) -> Catalog:
    """Read a table, all but the columns `without`; ids and file names stay digit for digit, whatever their names."""
    known = {spelled for name in (*columns.ID_NAMES, *columns.FILE_NAMES) for spelled in (name, name.upper())}
    text = {*known, *(reading.roles[role] for role in ("object_id", "file") if role in reading.roles)}
    result = formats.read_table(
        table, text=text, without=without, table_name=reading.table_name, missing=reading.missing
    )
    if result.num_rows == 0:
        raise SchemaError(f"{table}: the table has no rows; give one with at least one object")
    return normalize(result, name=str(table), reading=reading)


def digest(path: Path) -> str:
    """Return the sha256 of a file as hex; of a HATS catalog that of the names and digests of its files."""
    root = formats.hats_root(path)
    if root is not None:
        stated = [f"{file.relative_to(root)} {digest(file)}" for file in formats.all_files(root)]
        return hashlib.sha256("\n".join(stated).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def normalize(table: pa.Table, *, name: str, reading: Reading | None = None) -> Catalog:
    """Return a user's table as an atlas takes it: object_id as text first, then ra and dec, then everything else.

    A column whose name means something else in an atlas gets another (`columns.free_names`). A row without an id is
    `bad`. Raises SchemaError for repeated ids.
    """
    reading = reading or Reading()
    given = columns.check_roles(reading.roles)
    positions = columns.positions(table, given, name=name)
    redshift = columns.redshift(table, given, name=name, z_was=reading.z_was)
    ids = columns.identifier(table, given, name=name)
    files = columns.picture_file(table, given, name=name)
    pixels = columns.pixels(table, given, name=name)
    ours = {} if ids is None else {"object_id": (schema.arrow_field("object_id"), _as_text(table[ids]))}
    ours |= _position_columns(positions, table.num_rows)
    ours |= _redshift_column(table, redshift)
    moved = {ids} | {
        each for each in (*(positions.columns if positions else ()), redshift.column) if each and _same(each, positions)
    }
    kept, measures, renamed, reasons = _names_beside(table, ours, moved, redshift, reading)
    fields = [_known_facts(table.field(old).with_name(new)) for old, new in kept.items()]
    notes = (*formats.notes_of(table), *(positions.notes if positions else ()))
    made = pa.table(
        [values for _, values in ours.values()] + [table[old] for old in kept],
        schema=pa.schema([item for item, _ in ours.values()] + fields),
    )
    bad = dict(positions.unreadable) if positions else {}
    if ids is not None:
        bad |= _without_id(made["object_id"].to_pylist(), ids)
        check_ids(made["object_id"].to_pylist(), name)
    summary = Summary(
        ids=ids,
        positions=positions.columns if positions else None,
        redshift=f"{redshift.column} ({redshift.why})" if redshift.column else None,
        files=files,
        renamed=renamed,
        reasons=reasons,
        notes=notes,
        columns=tuple(table.column_names),
    )
    names = None if files is None else _as_text(table[files]).to_pylist()
    return Catalog(_missing_to_null(made), name, names, bad, pixels, measures, summary)


def _same(column: str, index: columns.Positions | None) -> bool:
    """Say whether a column of a role is our own by its name, so that it needs no copy beside it."""
    return column.casefold() == "z" or (column.casefold() in ("ra", "dec") and not (index and index.converted))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(column, pa.string())


def _position_columns(index: columns.Positions | None, rows: int) -> dict[str, tuple[pa.Field, pa.ChunkedArray]]:
    none = pa.chunked_array([pa.nulls(rows, pa.float64())])
    result = {axis: none if index is None else _nullable(getattr(index, axis)) for axis in ("ra", "dec")}
    return {axis: (schema.arrow_field(axis), values) for axis, values in result.items()}


def _nullable(values: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.float64(), from_pandas=True)])  # NaN becomes NULL


def _redshift_column(table: pa.Table, redshift: columns.Redshift) -> dict[str, tuple[pa.Field, pa.ChunkedArray]]:
    if redshift.column is None:
        return {}
    item, known = table.field(redshift.column), schema.GALAXIES["z"]
    stated = formats.facts_of(item)
    if redshift.column.casefold() != "z":
        stated["description"] = f"{known.description}, a copy of column {redshift.column}"
    facts = {"unit": "", "ucd": stated["ucd"] or known.ucd, "description": stated["description"] or known.description}
    return {"z": (formats.describe(pa.field("z", item.type), **facts), table[redshift.column])}


def _names_beside(
    table: pa.Table, ours: Mapping[str, object], moved: set[str | None], redshift: columns.Redshift, reading: Reading
) -> tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]:
    """Return the names that the user's columns keep or get, those of our measures, and what is renamed and why."""
    kept = [each for each in table.column_names if each not in moved]
    wished = [
        "mag_z" if each == redshift.band else columns.clean_name(each, table.column_names.index(each) + 1)
        for each in kept
    ]
    theirs = {each.casefold() for each in wished}
    if reading.measures is None:
        measures = {each: f"{each}{schema.MEASURED}" if each in theirs else each for each in MEASURES}
        taken = {each for each in measures.values() if each.endswith(schema.MEASURED)}
    else:
        measures = {each: reading.measures.get(each, f"{each}{schema.MEASURED}") for each in MEASURES}
        taken = set(reading.measures.values())
    taken |= {*ours, "object_id", "z", *schema.ENGINE_NAMES}
    names = dict(zip(kept, columns.free_names(wished, taken), strict=True))
    renamed = {old: new for old, new in names.items() if old != new}
    return names, measures, renamed, {old: _why(old, redshift) for old in renamed}


def _why(column: str, redshift: columns.Redshift) -> str:
    if column == redshift.band:
        return "it is the magnitude in the z band, and z is the redshift"
    if schema.is_engine_name(column):
        return f"{column.casefold()} is {schema.ENGINE_NAMES[column.casefold()]}"
    if column.casefold() in schema.GALAXIES:
        return f"an atlas has another column {column.casefold()}"
    return "names must be plain, and different in more than upper and lower case"


def _known_facts(item: pa.Field) -> pa.Field:
    """Return a magnitude of a well-known name with what is known of it, where the table does not say otherwise."""
    stated = formats.facts_of(item)
    magnitude = not stated["unit"] or stated["unit"].startswith("mag")
    if item.name not in MAGNITUDES or not columns.is_number(item.type) or not magnitude:
        return item
    known = formats.facts_of(schema.arrow_field(item.name))
    return formats.describe(item, **{key: value or known[key] for key, value in stated.items()})


def _without_id(ids: list[str | None], column: str) -> dict[int, str]:
    """Return the rows that have no id, with the reason."""
    return {
        row: f"row {row + 1} has no id in column {column}; every object needs its own"
        for row, each in enumerate(ids)
        if each is None or not each.strip()
    }


def check_ids(ids: Sequence[str | None], name: str, *, sources: Sequence[str] | None = None) -> None:
    """Raise SchemaError when an id is repeated; the error names the rows, or what `sources` calls them."""
    count = Counter(each for each in ids if each is not None and each.strip())
    twice = [each for each, times in count.items() if times > 1]
    if not twice:
        return
    rows = [row for row, each in enumerate(ids) if each == twice[0]][:TOLD_ROWS]
    where = ", ".join(sources[row] for row in rows) if sources else f"rows {', '.join(str(row + 1) for row in rows)}"
    raise SchemaError(
        f"{name}: {len(twice)} ids stand more than once, such as '{twice[0]}' in {where}; an object_id is unique: "
        "remove the repeated rows, or name another column with --id-column"
    )


def own_table(table: pa.Table) -> pa.Table:
    """Return a table of our own columns with ra and dec, NULL where it has none, after object_id."""
    for axis in ("ra", "dec"):
        table = as_double(table, axis, "positions")
    return _missing_to_null(_ordered(table))


def as_double(table: pa.Table, column: str, name: str) -> pa.Table:
    """Return the table with ra, dec, x_px or y_px as float64 in the unit that the schema gives it."""
    kind = schema.arrow_field(column)
    if column not in table.column_names:
        return table.append_column(kind, pa.nulls(table.num_rows, pa.float64()))
    unit = (table.field(column).metadata or {}).get(b"unit", b"").decode()
    expected = schema.GALAXIES[column].unit
    if unit.removesuffix("s") not in ("", expected, "pix"):
        raise SchemaError(f"{name}: column {column} is in {unit}, expected {expected}; convert it first")
    try:
        values = pc.cast(table[column], pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        meant = "decimal degrees (ICRS)" if expected == "deg" else "numbers"
        raise SchemaError(f"{name}: column {column} is {table[column].type}, expected {meant}; convert it") from None
    return table.set_column(table.column_names.index(column), kind, values)


def _ordered(table: pa.Table) -> pa.Table:
    first = [name for name in ("object_id", "ra", "dec") if name in table.column_names]
    return table.select(first + [name for name in table.column_names if name not in first])


def _missing_to_null(table: pa.Table) -> pa.Table:
    for index, item in enumerate(table.schema):
        column = table[item.name]
        if pa.types.is_float16(item.type):  # which neither Arrow nor DuckDB compares
            item, column = item.with_type(pa.float32()), pc.cast(column, pa.float32())
        if pa.types.is_floating(item.type):
            absent = pc.or_(pc.invert(pc.is_finite(column)), pc.equal(column, MISSING))
        elif pa.types.is_signed_integer(item.type):
            absent = pc.equal(pc.cast(column, pa.int64()), int(MISSING))
        else:
            continue
        table = table.set_column(index, item, pc.if_else(absent, pa.scalar(None, item.type), column))
    return table


def off_the_sky(table: pa.Table) -> dict[int, str]:
    """Return the rows whose position is no position, with the reason."""
    bad = {}
    for row, (ra, dec) in enumerate(zip(table["ra"].to_pylist(), table["dec"].to_pylist(), strict=True)):
        if (ra is None) != (dec is None):
            bad[row] = f"row {row + 1}: ra is {ra} and dec is {dec}; give both or neither"
        elif ra is not None and not (0 <= ra <= 360 and -90 <= dec <= 90):
            bad[row] = (
                f"row {row + 1}: ra {ra} dec {dec} is not on the sky (degrees ICRS, 0 <= ra < 360, -90 <= dec <= 90)"
            )
    return bad


def without(catalog: Catalog, bad: Mapping[int, str]) -> tuple[pa.Table, list[dict], list[int]]:
    """Return the rows that are not `bad`, the rejections, and the row numbers kept."""
    table, bad = catalog.table, {**bad, **catalog.bad}
    ids = table["object_id"].to_pylist()
    files = catalog.files or [None] * len(ids)
    rejected = [{"object_id": ids[row], "file": files[row], "reason": reason} for row, reason in sorted(bad.items())]
    kept = [row for row in range(len(ids)) if row not in bad]
    return table.take(pa.array(kept, pa.int64())), rejected, kept


def must_have_ids(catalog: Catalog) -> None:
    """Raise SchemaError for a table without a column of ids."""
    if "object_id" not in catalog.table.column_names:
        raise SchemaError(
            f"{catalog.name}: no column of ids; name it with --id-column. There are: "
            f"{', '.join(catalog.summary.columns)}"
        )
