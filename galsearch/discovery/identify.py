"""Is it known? Objects of an atlas looked up in catalogs on disk and in services, with one of four states each.

"not found" is only said of an object that every source was able to answer for. A source that failed, was cut short or
did not finish leaves it "not checked" where no other source has it, and stands beside every answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import notebook, schema
from galsearch.discovery.catalogs import (
    ANY,
    Against,
    Kinds,
    Listing,
    Matches,
    Objects,
    against_of,
    listing_of,
    listing_of_service,
    matches_of,
    read_answer,
)
from galsearch.discovery.results import TableResult
from galsearch.errors import FormatError, GalsearchError, QueryError, UnknownIdError
from galsearch.progress import Progress, silent
from galsearch.remote.catalogs.ask import Options, ask_all, check_installed, service_of
from galsearch.science import sky
from galsearch.store import Rows, Store, put_rows

if TYPE_CHECKING:
    pass

TABLE = "identifications"
ACTION = "identify"  # what provenance calls it
KNOWN, OTHER, ABSENT, NOT_CHECKED = STATES = schema.STATES
ASTROMETRY_ARCSEC = 2.0  # how far catalogs put one galaxy apart: photographic positions, other centers
PIXELS = 2.0  # of its picture, by which an object's own position may be off
MOST_RADIUS_ARCSEC = 3_600.0
AROUND_ARCSEC = 60.0  # that services are asked for at least, to know how dense they are
AROUND_RADII = 4.0
NO_POSITION = "the object has no position"


@dataclass(frozen=True)
class Request:
    """What is looked up, where, as what; see `Atlas.identify`."""

    ids: tuple[str, ...] | None = None
    where: str | None = None
    kind: str = ANY
    against: tuple[Against, ...] = ()
    services: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    type_column: str | None = None
    radius_arcsec: float | None = None
    options: Options | None = None
    service_urls: dict[str, str] = field(default_factory=dict)

    def check(self) -> Request:
        """Return the request. Raises QueryError for what cannot be looked up."""
        if not self.against and not self.services:
            raise QueryError("nothing to look objects up in; name a catalog with against, or a service with services")
        if self.radius_arcsec is not None and not 0 < self.radius_arcsec <= MOST_RADIUS_ARCSEC:
            raise QueryError(
                f"radius_arcsec is {self.radius_arcsec}, expected above 0 and up to {MOST_RADIUS_ARCSEC:g}"
            )
        names = [*(one.title for one in self.against), *self.services]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise QueryError(f"source {twice[0]!r:.60} is named twice; give one of them another name, or leave it out")
        if self.ids is not None and self.where is not None:
            raise QueryError("ids and where are both given; objects are named by one of them")
        return self


def request_of(what: Any, against: Any, **parts: Any) -> Request:
    """Return a request whose objects and catalogs are given in any of the ways that `Atlas.identify` takes."""
    several = against if isinstance(against, (list, tuple)) else [against]
    type_column = parts.get("type_column")
    catalogs = tuple(_catalog(one, type_column) for one in several)
    return Request(None if what is None else _ids(what), against=catalogs, **parts).check()


def _catalog(one: Any, type_column: str | None) -> Against:
    if isinstance(one, str):
        one = against_of(one)
    elif isinstance(one, (Path, pa.Table)):
        one = Against(one)
    elif not isinstance(one, Against):
        raise QueryError(f"against is a {type(one).__name__}, expected a path, a pyarrow.Table or galsearch.Against")
    if one.kind is None and one.type_column is None and type_column is not None:
        return Against(one.catalog, None, type_column, one.name, one.ra, one.dec)
    return one


def _ids(what: Any) -> tuple[str, ...]:
    if isinstance(what, str):
        return (what,)
    several = getattr(what, "ids", None)
    single = getattr(what, "object_id", None) if several is None else None
    parts = several if several is not None else [what] if single is not None else what
    ids = [one if isinstance(one, str) else getattr(one, "object_id", None) for one in parts]
    if None in ids:
        raise QueryError("what to identify is no object_id, galaxy or hit, nor several of them")
    return tuple(dict.fromkeys(map(str, ids)))


@dataclass(frozen=True)
class Identification:
    """One object: its state, the best match where there is one, and who was asked.

    The best match is of the kind that is asked for where there is such a one, then the least likely by chance.
    `matches` counts all sources within `radius_arcsec`. `false_probability` is that of an unrelated source at least as
    close, `chance_probability` that of any within the radius, in all sources together. `checked` are the sources that
    answered, `failed` the others, each with its error.
    """

    object_id: str
    state: str
    kind: str
    radius_arcsec: float | None
    matches: int
    catalog: str | None
    name: str | None
    type: str | None
    separation_arcsec: float | None
    false_probability: float | None
    chance_probability: float | None
    reference: str | None
    reference_count: int | None
    checked: tuple[str, ...]
    failed: tuple[str, ...]
    answered: str | None


class Identifications(TableResult, Sequence[Identification]):
    """What is known of objects, in their order: by object_id, or as they were named.

    `table` has a row for each, `matches` one for every source within the radius, best first; `sources` says of each
    source its version, how many objects it did not answer for and why, and how many answers were kept ones. `notes` are
    sentences on what the catalogs had. Proper motion is ignored.
    """

    title = "identifications"

    def __init__(self, store: Store, request: Request, rows: np.ndarray, listings: list[Listing], work: _Work) -> None:
        self.request, self.kind, self.path = request, request.kind, store.path
        self.ids = store.ids(rows)
        self.notes = tuple(note for one in listings for note in one.notes)
        self._store, self._listings, self._work = store, listings, work
        self.table = self._table()
        self.matches = self._matches()
        self.sources = self._sources()

    @property
    def counts(self) -> dict[str, int]:
        """How many objects are in each state."""
        there = Counter(self.table["state"].to_pylist())
        return {state: there[state] for state in STATES}

    @property
    def expected_by_chance(self) -> float:
        """How many objects would have a match if none were related to any source, from the densities around them."""
        return float(np.nansum(self._work.chance))

    def _table(self) -> pa.Table:
        work, listings, count = self._work, self._listings, len(self.ids)
        best, there = work.best(count)
        columns: dict[str, Any] = {
            "object_id": pa.array(self.ids, pa.string()),
            "state": pa.array(work.states(listings, count), pa.string()),
            "kind": pa.array([self.kind] * count, pa.string()),
            "radius_arcsec": pa.array(work.radius, mask=~work.placed),
            "matches": pa.array(np.bincount(work.matches.object, minlength=count)),
            "catalog": pa.array(work.names(listings, best, there), pa.string()),
            **work.about(listings, best, there),
            "separation_arcsec": pa.array(_taken(work.matches.separation_arcsec, best), mask=~there),
            "false_probability": pa.array(_taken(work.matches.false_probability, best), mask=~there),
            "chance_probability": pa.array(work.chance, mask=~work.placed),
            **_told(listings, work.placed),
        }
        names = [column.name for column in schema.TABLES[TABLE] if column.name in columns]
        fields = [schema.described(column) for column in schema.TABLES[TABLE] if column.name in columns]
        return pa.table([columns[name] for name in names], schema=pa.schema(fields))

    def _matches(self) -> pa.Table:
        """Return all matches: object_id, catalog, name, type, of_kind, separation, probability, reference, position."""
        listings, matches = self._listings, self._work.matches
        every = np.ones(len(matches.object), bool)
        rows = np.arange(len(matches.object))
        ra, dec = (
            np.concatenate([*(getattr(one, axis) for one in listings), np.empty(0)])[
                matches.source + _starts(listings)[matches.listing]
            ]
            for axis in ("ra", "dec")
        )
        columns = {
            "object_id": pa.array(self.ids, pa.string()).take(pa.array(matches.object)),
            "catalog": pa.array(self._work.names(listings, rows, every), pa.string()),
            **self._work.about(listings, rows, every),
            "of_kind": pa.array(matches.of_kind),
            "separation_arcsec": pa.array(matches.separation_arcsec),
            "false_probability": pa.array(matches.false_probability),
            "ra": pa.array(ra),
            "dec": pa.array(dec),
        }
        known = {column.name: schema.described(column) for column in schema.TABLES[TABLE]}
        known |= {axis: schema.arrow_field(axis) for axis in ("ra", "dec")}
        fields = [known.get(name, pa.field(name, values.type)) for name, values in columns.items()]
        return pa.table(list(columns.values()), schema=pa.schema(fields))

    def _sources(self) -> pa.Table:
        rows = []
        for one in self._listings:
            errors = [error for error in one.unchecked if error is not None]
            days = sorted(day for day in one.answered if day is not None)
            rows.append(
                {
                    "source": one.name,
                    "version": one.version,
                    "unchecked": len(errors),
                    "error": Counter(errors).most_common(1)[0][0] if errors else None,
                    "kept_answers": one.kept,
                    "oldest_answer": days[0] if days else None,
                }
            )
        texts, numbers = pa.string(), pa.int64()
        kinds = (texts, texts, numbers, texts, numbers, texts)
        names = ("source", "version", "unchecked", "error", "kept_answers", "oldest_answer")
        return pa.Table.from_pylist(rows, schema=pa.schema(list(zip(names, kinds, strict=True))))

    def of_state(self, state: str) -> pa.Table:
        """Return the rows of one state. Raises QueryError for a word that is no state."""
        if state not in STATES:
            raise QueryError(f"state {state!r:.40} is none of: {', '.join(STATES)}")
        return self.table.filter(pc.equal(self.table["state"], state))

    def parameters(self) -> dict[str, Any]:
        """Return everything that decides the states, as provenance keeps it."""
        request = self.request
        given: dict[str, Any] = {"kind": self.kind, "where": request.where, "kinds": list(request.kinds) or None}
        given |= {"radius_arcsec": request.radius_arcsec, "type_column": request.type_column}
        kept = {name: value for name, value in given.items() if value is not None}
        against = {one.title: one.kind for one in request.against}
        return {**kept, "against": against, "services": list(request.services), "objects": len(self)}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Identification: ...

    @overload
    def __getitem__(self, index: slice) -> list[Identification]: ...

    def __getitem__(self, index: int | slice) -> Identification | list[Identification]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"identification {index} of {len(self)}")
        row = self.table.slice(index % len(self), 1).to_pylist()[0]
        return Identification(**row | {"checked": tuple(row["checked"]), "failed": tuple(row["failed"])})

    def __repr__(self) -> str:
        told = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        return f"<Identifications of {len(self)} objects as {self.kind}: {told}>"

    def _repr_html_(self) -> str:
        """Return the pictures of the first objects with their ids as HTML, as notebooks show them."""
        ids = self.ids[: notebook.MOST_SHOWN]
        try:
            pictures = self._store.thumbnails(ids)
        except GalsearchError:
            pictures = {}  # of an atlas that was closed meanwhile
        return notebook.gallery_html(repr(self), ids, [None] * len(ids), pictures)


@dataclass(frozen=True)
class _Work:
    """What looking up came to, an entry an object but in `matches`."""

    radius: np.ndarray
    placed: np.ndarray  # has a position
    chance: np.ndarray
    matches: Matches

    def best(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the row of each object's best match, and whether there is one."""
        first = np.flatnonzero(np.diff(self.matches.object, prepend=-1) > 0)
        rows, there = np.zeros(count, np.int64), np.zeros(count, bool)
        rows[self.matches.object[first]], there[self.matches.object[first]] = first, True
        return rows, there

    def states(self, listings: Sequence[Listing], count: int) -> np.ndarray:
        """Return the state of each object: not found only where every source answered for it."""
        best, there = self.best(count)
        of_kind = _taken(self.matches.of_kind, best) & there
        whole = self.placed.copy()
        for one in listings:
            whole &= np.array([error is None for error in one.unchecked], bool)
        return np.select([of_kind, there, whole], [KNOWN, OTHER, ABSENT], NOT_CHECKED)

    def names(self, listings: Sequence[Listing], rows: np.ndarray, there: np.ndarray) -> list[str | None]:
        """Return the catalogs of some matches, None where there is none."""
        numbers = _taken(self.matches.listing, rows).tolist()
        return [listings[number].name if known else None for number, known in zip(numbers, there.tolist(), strict=True)]

    def about(self, listings: Sequence[Listing], rows: np.ndarray, there: np.ndarray) -> dict[str, pa.ChunkedArray]:
        """Return name, type, reference, reference_count of some matches, NULL where there is none."""
        every = pa.concat_tables([one.about for one in listings])
        index = _taken(self.matches.source, rows) + _starts(listings)[_taken(self.matches.listing, rows)]
        part = every.take(pa.array(index, mask=~there))
        return dict(zip(part.column_names, part.columns, strict=True))


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return values by row; zeros where there are none at all."""
    return values[rows] if len(values) else np.zeros(len(rows), values.dtype)


def _starts(listings: Sequence[Listing]) -> np.ndarray:
    """Return where the rows of each listing begin, when they stand one after the other."""
    return np.cumsum([0, *(len(one.ra) for one in listings)])


def _told(listings: Sequence[Listing], placed: np.ndarray) -> dict[str, pa.Array]:
    """Return which sources answered for each object, which did not and why, and the day of the oldest answer."""
    checked: list[list[str]] = []
    failed: list[list[str]] = []
    answered: list[str | None] = []
    days = [one.answered or [None] * len(placed) for one in listings]
    for index, known in enumerate(placed.tolist()):
        if not known:
            checked.append([])
            failed.append([NO_POSITION])
            answered.append(None)
            continue
        checked.append([one.name for one in listings if one.unchecked[index] is None])
        failed.append([f"{one.name}: {one.unchecked[index]}" for one in listings if one.unchecked[index] is not None])
        answered.append(min((day for each in days if (day := each[index]) is not None), default=None))
    texts = pa.list_(pa.string())
    return {
        "checked": pa.array(checked, texts),
        "failed": pa.array(failed, texts),
        "answered": pa.array(answered, pa.string()),
    }


# ---- looking them up


def identify(store: Store, request: Request, progress: Progress = silent) -> Identifications:
    """Return what is known of objects.

    Raises QueryError for ids and conditions that are none, a kind without types, services that there are not, and
    more than 10,000,000 matches; SchemaError for a catalog that cannot be read; GalsearchError where packages lack.
    """
    kinds = Kinds(request.kind, request.kinds)
    kinds.check(services=[one.partition(":")[0] for one in request.services])
    services = [service_of(one, urls=request.service_urls, type_column=request.type_column) for one in request.services]
    if services:
        check_installed()
    rows = _rows(store, request)
    ra, dec = store.positions(rows).T if len(rows) else np.empty((2, 0))
    placed = np.isfinite(ra) & np.isfinite(dec)
    radius = _radii(store, rows, request)
    reach = max(AROUND_ARCSEC, AROUND_RADII * float(radius.max(initial=0.0)))
    objects = Objects(ra, dec, min(reach, float(sky.HALF_TURN)))
    listings = []
    for number, one in enumerate(request.against, start=1):
        progress(number - 1, len(request.against), f"reading {one.title}")
        listings.append(listing_of(one, objects, kinds))
        progress(number, len(request.against), f"reading {one.title}")
    if services:
        at = np.flatnonzero(placed)
        options = request.options or _default_options()
        around = np.full(len(at), objects.reach_arcsec)
        results = ask_all(
            services, ra[at], dec[at], reach_arcsec=around, read=read_answer, options=options, progress=progress
        )
        listings += [listing_of_service(one, objects.reach_arcsec, kinds, at, len(rows)) for one in results]
    matches, chance = matches_of(listings, objects, radius)
    return Identifications(store, request, rows, listings, _Work(radius, placed, chance, matches))


def _default_options() -> Options:
    from galsearch.remote.catalogs.cache import default_path

    return Options(default_path())


def _rows(store: Store, request: Request) -> np.ndarray:
    """Return the rows of the objects: those that are named, in that order, else those that pass, by object_id."""
    if request.ids is None:
        rows, _ = store.listed(store.condition(request.where, None, None), k=max(store.manifest.rows, 1))
        return rows
    lacking = next((one for one in request.ids if not store.has(one)), None)
    if lacking is not None:
        raise UnknownIdError(f"no object {lacking!r:.80} in {store.path}; ids are exact text, see `galsearch search`")
    return store.rows_of(list(request.ids))


def _radii(store: Store, rows: np.ndarray, request: Request) -> np.ndarray:
    """Return how far a match may lie from each object, in arcseconds: what is asked for, else by its picture.

    Unless said: positions of catalogs, 2", and two pixels of the object's picture, added in quadrature.
    """
    if request.radius_arcsec is not None:
        return np.full(len(rows), float(request.radius_arcsec))
    known = set(store.describe()["column"].to_pylist())
    scale = np.zeros(len(rows))
    if {"radius_arcsec", "radius_px"} <= known and len(rows):
        sky_size, pixels = (
            np.array(pc.cast(store.by_row(name), pa.float64(), safe=False).to_pylist(), np.float64)[rows]
            for name in ("radius_arcsec", "radius_px")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.nan_to_num(sky_size / pixels, nan=0.0, posinf=0.0, neginf=0.0).clip(0, AROUND_ARCSEC / PIXELS)
    return np.hypot(ASTROMETRY_ARCSEC, PIXELS * scale)


# ---- keeping them


def save_identifications(identifications: Identifications) -> str:
    """Keep what is known in the table `identifications` of the atlas folder; return the run.

    `Atlas.saved_identifications` reads it again; runs before it are kept. Raises GalsearchError for a bundle, for
    several atlases opened as one, and while another is writing the atlas.
    """
    store = identifications._store
    if not store.grows:
        raise GalsearchError(f"{store.path} is never changed: save what is known in the folder, then bundle it again")
    parameters, created = identifications.parameters(), schema.now()
    content = [parameters, identifications.ids[:1_000], created]
    run = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    count = len(identifications)
    table = identifications.table
    table = table.add_column(0, "run", pa.array([run] * count, pa.string()))
    table = table.append_column("created", pa.array([created] * count, pa.string()))
    sources = {row["source"]: row["version"] for row in identifications.sources.to_pylist()}
    record = schema.provenance(ACTION, parameters={**parameters, "run": run, "versions": sources})
    put_rows(store.path, {TABLE: Rows(table, ("run", "object_id"))}, record)
    return run


def saved_identifications(store: Store, *, run: str | None = None, state: str | None = None) -> pa.Table:
    """Return what was kept, the last run unless `run` says, by object_id; of one state where `state` says so."""
    if state is not None and state not in STATES:
        raise QueryError(f"state {state!r:.40} is none of: {', '.join(STATES)}")
    table = store.table(TABLE)
    _check_table(store, table)
    pairs = set() if table is None else set(zip(table["created"].to_pylist(), table["run"].to_pylist(), strict=True))
    runs = [each for _, each in sorted(pairs)]
    if table is None or not runs or run not in (None, *runs):
        known = (
            f"it has {', '.join(runs[-10:])}" if runs else "it has none yet; save one with `galsearch identify --save`"
        )
        wanted = "" if run is None else f" of run {run!r:.40}"
        raise QueryError(f"{store.path} has no saved identifications{wanted}, {known}")
    kept = table.filter(pc.equal(table["run"], run or runs[-1]))
    kept = kept if state is None else kept.filter(pc.equal(kept["state"], state))
    return kept.sort_by([("object_id", "ascending")])


def _check_table(store: Store, table: pa.Table | None) -> None:
    """Raise FormatError where the table of an atlas has not the columns that it must have, or NULL in its keys."""
    if table is None:
        return
    missing = [column.name for column in schema.TABLES[TABLE] if column.name not in table.column_names]
    what = f"has no column '{missing[0]}'" if missing else ""
    if not missing and any(table[name].null_count for name in ("run", "object_id", "created", "state")):
        what = "has rows without a run, an object, a time or a state"
    if what:
        raise FormatError(f"{store.path}: table {TABLE} {what}; save them again with `galsearch identify --save`")
