"""Catalogs that objects are looked up in: tables, other atlases and HATS catalogs on disk, and answers of services.

Each becomes a `Listing`: positions, what is there, and which objects it says nothing about, with the reason.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from galsearch import columns, formats
from galsearch.crossmatch import input_positions, read_input
from galsearch.errors import QueryError, RemoteError, SchemaError
from galsearch.formats.hats import hats_root, partitions_near, properties_of, title
from galsearch.remote.catalogs.ask import Answers
from galsearch.remote.catalogs.service import TooManyError
from galsearch.science import sky
from galsearch.store import open_store

ANY = "any"
SERVICES = ("simbad", "ned")  # whose types the vocabulary knows
REFERENCE_NAMES = ("reference", "references", "ref", "refcode", "bibcode", "bib", "link", "url", "source")
ATLAS_SUFFIXES = (".atlas", ".duckdb")
HATS_ROWS = 100_000  # read at a time


@dataclass(frozen=True)
class Against:
    """A catalog on disk or in memory to look objects up in; see `Atlas.identify`.

    `kind` is what all of its rows are; else `type_column` says what each is; else all are of the kind that is asked
    for. `ra` and `dec` name the columns of positions where they are not recognized.
    """

    catalog: pa.Table | Path | str
    kind: str | None = None
    type_column: str | None = None
    name: str | None = None
    ra: str | None = None
    dec: str | None = None

    @property
    def title(self) -> str:
        """What it is called in results."""
        if self.name is not None:
            return self.name
        return "table" if isinstance(self.catalog, pa.Table) else Path(self.catalog).name


def against_of(text: str) -> Against:
    """Return the catalog of a text FILE or FILE=KIND."""
    path, sign, kind = text.rpartition("=")
    return Against(Path(path), kind=kind.strip() or None) if sign and not Path(text).exists() else Against(Path(text))


@dataclass(frozen=True)
class Kinds:
    """Which types count as one kind: those of kinds.toml, and others that the user names."""

    kind: str = ANY
    more: tuple[str, ...] = ()

    def check(self, *, services: Sequence[str]) -> None:
        """Raise QueryError where no type of a service could ever be of the kind."""
        if not self.kind.strip():
            raise QueryError(f"kind is {self.kind!r}, expected what you take the objects for, such as lens, or any")
        if services and self.kind != ANY and self.kind not in _vocabulary() and not self.more:
            raise QueryError(
                f"kind {self.kind!r:.40} is none of {', '.join(_vocabulary())}; say which types of {services[0]} it is "
                "with kinds (--kinds)"
            )

    def of(self, types: pa.Array | pa.ChunkedArray, service: str | None) -> np.ndarray:
        """Say which types are of the kind, `(n,) bool`; those of a table where there is no service."""
        if self.kind == ANY:
            return np.ones(len(types), bool)
        exact = set(self.more)
        entry = _vocabulary().get(self.kind, {})
        exact.update(entry.get(service, ()) if service else ())
        words = set() if service in SERVICES else {self.kind.casefold(), *entry.get("words", ())}
        words.update(each.casefold() for each in self.more)
        coded = pc.dictionary_encode(pc.cast(types, pa.string()))
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        known = [one in exact or (one or "").strip().casefold() in words for one in coded.dictionary.to_pylist()]
        numbers = pc.fill_null(coded.indices, len(known)).to_numpy(zero_copy_only=False)
        return np.array([*known, False], bool)[numbers]


@cache
def _vocabulary() -> Mapping[str, Mapping[str, Sequence[str]]]:
    return tomllib.loads((Path(__file__).parent / "kinds.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Listing:
    """What a catalog has: positions `(m,) float64` in degrees ICRS and, a row each, what it says `about` them (ABOUT).

    `of_kind (m,) bool` says which are of the kind that is asked for. `within_arcsec` is how far around the objects it
    is known, None for everywhere. `unchecked` has, an entry an object, why it says nothing of that object.
    """

    name: str
    ra: np.ndarray
    dec: np.ndarray
    about: pa.Table
    of_kind: np.ndarray
    unchecked: Sequence[str | None]
    within_arcsec: float | None = None
    version: str | None = None
    answered: Sequence[str | None] = ()  # when a service answered, an entry an object
    kept: int = 0
    notes: tuple[str, ...] = ()


ABOUT = pa.schema(
    [("name", pa.string()), ("type", pa.string()), ("reference", pa.string()), ("reference_count", pa.int64())]
)


@dataclass(frozen=True)
class Objects:
    """Where the objects are, `(n,) float64` in degrees ICRS, NaN where unknown, and how far to look around them."""

    ra: np.ndarray
    dec: np.ndarray
    reach_arcsec: float


def listing_of(one: Against, objects: Objects, kinds: Kinds) -> Listing:
    """Return what a catalog on disk or in memory has. Raises SchemaError for one that cannot be read at all."""
    if not isinstance(one.catalog, pa.Table):
        path = Path(one.catalog)
        root = hats_root(path)
        if root is not None:
            return _hats_listing(root, one, objects, kinds)
        if path.suffix in ATLAS_SUFFIXES:
            return _table_listing(_atlas_table(path, one), one, objects, kinds, str(path))
    table, name = read_input(one.catalog)
    return _table_listing(table, one, objects, kinds, name)


def _atlas_table(path: Path, one: Against) -> pa.Table:
    store = open_store(path)
    try:
        return store.select([*("ra", "dec"), *filter(None, [one.type_column])], store.condition(None, None, None))
    finally:
        store.close()


def _table_listing(table: pa.Table, one: Against, objects: Objects, kinds: Kinds, name: str) -> Listing:
    positions = input_positions(table, _named(one), name)
    known = np.isfinite(positions.ra) & np.isfinite(positions.dec)
    notes = [f"{one.title}: {note}" for note in (*formats.notes_of(table), *positions.notes)]
    if not known.all():
        notes.append(f"{one.title}: {(~known).sum()} of {len(known)} rows have no position and match nothing")
    about, of_kind = _about(table, one, kinds, name)
    return Listing(one.title, positions.ra, positions.dec, about, of_kind, [None] * len(objects.ra), notes=tuple(notes))


def _named(one: Against) -> dict[str, str | None]:
    return {"ra": one.ra, "dec": one.dec}


def _about(table: pa.Table, one: Against, kinds: Kinds, name: str) -> tuple[pa.Table, np.ndarray]:
    """Return name, type, reference of each row of a table, and which are of the kind."""
    type_column = columns.named(table, {} if one.type_column is None else {"type": one.type_column}, "type", name)
    if one.kind is not None:
        types: pa.Array | pa.ChunkedArray = pa.array([one.kind] * len(table), pa.string())
        of_kind = np.full(len(table), kinds.kind in (ANY, one.kind) or one.kind in kinds.more)
    elif type_column is not None:
        types = pc.cast(table[type_column], pa.string())
        of_kind = kinds.of(types, None)
    else:
        types, of_kind = pa.nulls(len(table), pa.string()), np.ones(len(table), bool)
    texts = {"name": columns.identifier(table, {}, name=name), "reference": _reference(table)}
    filled = {
        role: pa.nulls(len(table), pa.string()) if column is None else pc.cast(table[column], pa.string())
        for role, column in texts.items()
    }
    counts = pa.nulls(len(table), pa.int64())
    return pa.table([filled["name"], types, filled["reference"], counts], schema=ABOUT), of_kind


def _reference(table: pa.Table) -> str | None:
    by_name = {column.casefold(): column for column in reversed(table.column_names)}
    tried = (by_name[name] for name in REFERENCE_NAMES if name in by_name)
    return next((name for name in tried if not pa.types.is_nested(table.field(name).type)), None)


# ---- HATS


def _hats_listing(root: Path, one: Against, objects: Objects, kinds: Kinds) -> Listing:
    """Return the rows of a HATS catalog near the objects, read from the partitions that may have any.

    Partitions beside the object's own are read too, so that no margin catalog is needed. One that is missing or
    damaged leaves the objects near it unchecked.
    """
    given = replace_missing(one, properties_of(root))
    unchecked: list[str | None] = [None] * len(objects.ra)
    parts: list[pa.Table] = []
    for pixel, files, near in partitions_near(root, objects.ra, objects.dec, objects.reach_arcsec):
        try:
            parts += [table for file in files for table in _rows_near(file, given, objects)]
            if not files:
                raise FileNotFoundError("it is listed and not there")
        except (OSError, pa.ArrowException, SchemaError) as error:
            reason = f"partition {title(pixel)} cannot be read ({_first_line(error)})"
            for index in near.tolist():
                unchecked[index] = reason
    table = pa.concat_tables(parts, promote_options="permissive") if parts else None
    if table is None:
        empty = np.empty(0)
        return Listing(one.title, empty, empty, ABOUT.empty_table(), np.empty(0, bool), unchecked, objects.reach_arcsec)
    positions = input_positions(table, _named(given), str(root))
    about, of_kind = _about(table, given, kinds, str(root))
    notes = tuple(f"{one.title}: {note}" for note in positions.notes)
    return Listing(one.title, positions.ra, positions.dec, about, of_kind, unchecked, objects.reach_arcsec, notes=notes)


def replace_missing(one: Against, stated: Mapping[str, str]) -> Against:
    """Return the catalog with the columns of positions that its properties name, where the user names none."""
    ra, dec = one.ra or stated.get("hats_col_ra"), one.dec or stated.get("hats_col_dec")
    return Against(one.catalog, one.kind, one.type_column, one.title, ra, dec)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rows_near(path: Path, one: Against, objects: Objects) -> Iterator[pa.Table]:
    """Yield the rows of a partition that lie within reach of an object, with the columns that are needed."""
    with pq.ParquetFile(path) as file:
        empty = file.schema_arrow.empty_table()
        wanted = _columns_needed(empty, one, str(path))
        for batch in file.iter_batches(HATS_ROWS, columns=wanted):
            table = pa.table(batch)
            where = input_positions(table, _named(one), str(path))
            pairs = sky.crossmatch(
                where.ra, where.dec, objects.ra, objects.dec, radius_arcsec=objects.reach_arcsec, mode="best"
            )
            yield table.take(pa.array(pairs.left))


def _columns_needed(table: pa.Table, one: Against, name: str) -> list[str]:
    """Return the columns of a partition that say where, what, by which name and by whom."""
    given = {"ra": one.ra, "dec": one.dec, "type": one.type_column}
    known = {role: column for role, column in given.items() if column is not None}
    roles = [columns.named(table, known, role, name) for role in given]
    if roles[0] is None or roles[1] is None:
        raise SchemaError(
            f"{name}: the properties of the catalog do not name hats_col_ra and hats_col_dec; give ra and dec"
        )
    texts = [_named_text(table), _reference(table)]
    return list(dict.fromkeys(filter(None, [*roles, *texts])))


def _named_text(table: pa.Table) -> str | None:
    """Return the column of ids by its name alone, since a schema has no values."""
    known = {column.casefold(): column for column in reversed(table.column_names)}
    return next((known[name] for name in columns.ID_NAMES if name in known), None)


# ---- services


def read_answer(content: bytes, complete: bool) -> pa.Table:  # noqa: FBT001  called by what asks services
    """Return the table of a service's answer. Raises RemoteError, TooManyError where the service cut it short."""
    try:
        return formats.read_table_content(content, "the answer", suffix=".vot", complete=complete)
    except SchemaError as error:
        text = str(error)
        raise (TooManyError if formats.CUT_SHORT in text else RemoteError)(text) from None


def listing_of_service(result: Answers, reach_arcsec: float, kinds: Kinds, rows: np.ndarray, count: int) -> Listing:
    """Return what a service has; `rows` are the objects that it was asked about, of `count`."""
    sources = list(dict.fromkeys(one for answer in result.answers if answer is not None for one in answer.sources))
    where = np.array([source[:2] for source in sources], np.float64).reshape(-1, 2)
    about = pa.Table.from_pylist([dict(zip(ABOUT.names, source[2:], strict=True)) for source in sources], schema=ABOUT)
    unchecked: list[str | None] = [None] * count
    answered: list[str | None] = [None] * count
    for row, answer, error in zip(rows.tolist(), result.answers, result.errors, strict=True):
        unchecked[row] = error if answer is None else None
        if answer is None and error is None:
            unchecked[row] = "it was not asked, since asking was ended before"
        answered[row] = None if answer is None else answer.answered
    versions = sorted({answer.version for answer in result.answers if answer is not None and answer.version})
    return Listing(
        result.service,
        where[:, 0],
        where[:, 1],
        about,
        kinds.of(about["type"], result.service if result.service in SERVICES else None),
        unchecked,
        reach_arcsec,
        version="; ".join(versions) or None,
        answered=answered,
        kept=result.kept,
        notes=() if result.trouble is None else (result.trouble,),
    )


@dataclass(frozen=True)
class Matches:
    """Which sources lie within the radius of which object, a row each: by object, then the best first.

    `object` and `listing` are numbers, `source` the row in the listing. `false_probability` is that of an unrelated
    source at least as close, `of_kind` says whether the source is of the kind that is asked for.
    """

    object: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    listing: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    source: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    separation_arcsec: np.ndarray = field(default_factory=lambda: np.empty(0))
    false_probability: np.ndarray = field(default_factory=lambda: np.empty(0))
    of_kind: np.ndarray = field(default_factory=lambda: np.empty(0, bool))


def matches_of(listings: Sequence[Listing], objects: Objects, radius_arcsec: np.ndarray) -> tuple[Matches, np.ndarray]:
    """Return all matches, and for each object the probability that any unrelated source lies within its radius."""
    parts = []
    empty = np.ones(len(objects.ra))
    for number, one in enumerate(listings):
        density = sky.surface_density(
            objects.ra, objects.dec, one.ra, one.dec, beyond_arcsec=radius_arcsec, within_arcsec=one.within_arcsec
        )
        answered = np.array([error is None for error in one.unchecked], bool)
        empty *= 1 - np.where(answered, np.nan_to_num(sky.chance_probability(density, radius_arcsec)), 0.0)
        pairs = sky.crossmatch(objects.ra, objects.dec, one.ra, one.dec, radius_arcsec=radius_arcsec, mode="all")
        chance = sky.chance_probability(density[pairs.left], pairs.separation_arcsec)
        parts.append(
            (
                pairs.left,
                np.full(len(pairs.left), number),
                pairs.right,
                pairs.separation_arcsec,
                chance,
                one.of_kind[pairs.right],
            )
        )
    if not parts:
        return Matches(), 1 - empty
    joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
    index, listing, source, separation, chance, of_kind = joined
    order = np.lexsort((source, listing, separation, chance, ~of_kind, index))
    return Matches(*(values[order] for values in joined)), 1 - empty
