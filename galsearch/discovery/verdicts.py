"""Verdicts: what people say of objects, in a file of its own beside the atlas, append-only, of any number of people.

A verdict is about one kind of thing ("merger", "artifact"). The same person judging an object again corrects what was
said, and an undo takes back a verdict; both are further rows, and nothing is rewritten. Rows have unique ids, so that
merging files is a union, whatever the order and however often.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from galsearch import formats, schema
from galsearch.discovery.journal import Journal, Row
from galsearch.errors import FormatError, GalsearchError, QueryError, SchemaError
from galsearch.escaping import is_text
from galsearch.science import agreement

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

FORMAT = "galsearch.verdicts"
VERDICTS = YES, NO, UNSURE, LABEL = ("yes", "no", "unsure", "label")
UNDO = "undo"
REVIEWER = "GALSEARCH_REVIEWER"  # environment variable: who judges, where nobody is named
MOST_TEXT = {"kind": 200, "object_id": 1_000, "label": 200, "note": 2_000, "by": 200, "id": 64, "time": 40}
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
MOST_NAMED = 3


@dataclass(frozen=True)
class Verdict:
    """What one person says of one object: yes, no, unsure, or a label of one's own words.

    `id` is unique, `time` ISO 8601 in UTC, `blind` whether name, scores and verdicts of others were hidden; `replaces`
    is the id of the verdict of the same person that this one corrects. `undoes` is that of one taken back: such a row
    says nothing else.
    """

    object_id: str
    verdict: str
    kind: str
    by: str
    label: str | None = None
    note: str | None = None
    blind: bool = False
    time: str = ""
    id: str = ""
    replaces: str | None = None
    undoes: str | None = None

    def check(self) -> Verdict:
        """Return it. Raises QueryError for a verdict that is none, for missing, too long or unprintable texts."""
        if self.verdict not in (*VERDICTS, UNDO) or (self.verdict == UNDO) != (self.undoes is not None):
            raise QueryError(f"verdict is {self.verdict!r:.40}, expected one of {', '.join(VERDICTS)}")
        for name in ("object_id", "kind", "by", "id", "time"):
            _check_text(name, getattr(self, name))
        for name in ("label", "note"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        if self.verdict == LABEL and self.label is None:
            raise QueryError("a verdict of a label needs one; give label, such as 'tidal tail'")
        if not isinstance(self.blind, bool):
            raise QueryError(f"blind is {self.blind!r:.40}, expected True or False")
        return self

    def to_row(self) -> Row:
        """Return it as the file keeps it: without what it does not say."""
        names = ("id", "time", "kind", "object_id", "verdict", "label", "note", "by", "blind", "replaces", "undoes")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False)}


def _check_text(name: str, value: object) -> None:
    most = MOST_TEXT[name]
    if not isinstance(value, str) or not value.strip() or len(value) > most or not is_text(value):
        raise QueryError(f"{name} is {value!r:.40}, expected a text of 1 to {most} characters")


def of_row(row: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a row of a file. Raises QueryError for one that is none."""
    known = {name: row[name] for name in Verdict.__dataclass_fields__ if name in row}
    missing = [name for name in ("id", "time", "kind", "object_id", "verdict", "by") if name not in known]
    if missing:
        raise QueryError(f"a verdict without {missing[0]}")
    return Verdict(**known).check()


@dataclass(frozen=True)
class Agreement:
    """How far people agree on what two or more of them judged, of one kind.

    `share` is the share of pairs of people who say the same of an object. `kappa` is Cohen's of two, Fleiss' of more
    where all judged all of these objects; `alpha` is Krippendorff's, which takes missing verdicts. Each is None where
    there is nothing to tell apart. `pairs` has a row for each two people: first, second, objects, share, kappa.
    """

    kind: str
    people: tuple[str, ...]
    objects: int
    share: float | None
    kappa: float | None
    alpha: float | None
    pairs: pa.Table

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.kind}: no object was judged by two people"
        values = [f"{name} {value:.2f}" for name in ("kappa", "alpha") if (value := getattr(self, name)) is not None]
        among = f"{len(self.people)} people, {self.objects} objects judged by two or more"
        return f"{self.kind}: {among}, {100 * self.share:.0f} % of pairs agree" + "".join(f", {one}" for one in values)


@dataclass(frozen=True)
class Merged:
    """What a merge did: rows that were new, and rows that were there already."""

    new: int
    known: int


class Verdicts:
    """The verdicts of a file, or with `path` None of this object alone; a file that is not there is made by `add`.

    `atlas` is the one that is judged: a new file names it, `add` takes only its objects, and a file that was made with
    another one is refused unless they have objects in common, see `notes`. Every call sees what others have appended
    meanwhile. Raises FormatError for a file that is none of verdicts, or damaged.
    """

    def __init__(self, path: str | Path | None = None, *, atlas: Any = None) -> None:
        self._atlas = atlas
        about = {} if atlas is None else {"atlas": identity(atlas.manifest)}
        self._journal = Journal(path, kind=FORMAT, about=about)
        self._seen: list[Row] | None = None
        self._rows: dict[str, Verdict] = {}
        self.all()
        if atlas is not None:
            self._check_atlas()

    @property
    def path(self) -> Path | None:
        """Where they are kept; None for nowhere."""
        return self._journal.path

    @property
    def unfinished(self) -> int:
        """How many lines a killed program left unfinished; none of them was acknowledged."""
        return self._journal.unfinished

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing and no error, a sentence each: objects of another atlas, unfinished lines."""
        result = []
        if self.unfinished:
            result.append(f"{self.unfinished} unfinished lines of a program that was ended are passed over")
        named = self._journal.head.get("atlas")
        if self._atlas is not None and self._rows and named != identity(self._atlas.manifest):
            ids = {one.object_id for one in self.current()}
            there = sum(name in self._atlas for name in ids)
            result.append(
                f"these verdicts were begun with {_title(named)}; {there} of their {len(ids)} objects are in "
                f"{self._atlas.path} by object_id, and the others are left out"
            )
        return tuple(result)

    def _check_atlas(self) -> None:
        named = self._journal.head.get("atlas")
        ids = {one.object_id for one in self.current()}
        if named != identity(self._atlas.manifest) and ids and not any(name in self._atlas for name in ids):
            raise QueryError(
                f"{self._journal.name} has verdicts on objects of {_title(named)}, and none of them is in "
                f"{self._atlas.path}; open them with their atlas, or name another file"
            )

    # ---- reading

    def all(self) -> list[Verdict]:
        """Return every row, also those corrected, undone, and the undoing ones, by time, then id."""
        rows = self._journal.rows()
        if rows is not self._seen:
            start = 0 if self._seen is None or rows[: len(self._seen)] != self._seen else len(self._seen)
            held = dict(self._rows) if start else {}
            _unite(held, map(self._of_row, rows[start:]), name=self._journal.name)
            self._rows, self._seen = held, rows
        return sorted(self._rows.values(), key=_order)

    def _of_row(self, row: Row) -> Verdict:
        try:
            return of_row(row)
        except (QueryError, TypeError) as error:
            raise FormatError(
                f"{self._journal.name} has a row that is no verdict ({error!s:.160}); restore it from a copy, or "
                "remove that row with an editor"
            ) from None

    def current(self, kind: str | None = None, *, by: str | None = None) -> list[Verdict]:
        """Return what stands: of each person, object and kind the last verdict that was not taken back, by time."""
        return standing(self.all(), kind=kind, by=by)

    def kinds(self) -> dict[str, int]:
        """Return how many verdicts of each kind stand, the most first."""
        counts = Counter(one.kind for one in self.current())
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def __len__(self) -> int:
        return len(self.current())

    def __repr__(self) -> str:
        kinds = ", ".join(f"{kind!r} {count}" for kind, count in self.kinds().items())
        return f"<Verdicts {self._journal.name}: {len(self)} stand{f'; {kinds}' if kinds else ''}>"

    def table(self, kind: str | None = None, *, history: bool = False) -> pa.Table:
        """Return what stands, a row for each; with `history` every row, also those corrected and taken back."""
        shown = [one for one in self.all() if kind in (None, one.kind)] if history else self.current(kind)
        columns = schema.VERDICTS.values()
        names = [column.name for column in columns]
        values = [[getattr(one, name) for one in shown] for name in names]
        fields = pa.schema([schema.described(column) for column in columns])
        return pa.Table.from_arrays(
            [pa.array(v, field.type) for v, field in zip(values, fields, strict=True)], schema=fields
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return what stands as a pandas DataFrame; needs pandas."""
        return formats.to_pandas(self.table())

    def to_astropy(self) -> Table:
        """Return what stands as an astropy Table."""
        return formats.to_astropy(self.table(), meta=self._meta())

    def save(
        self, path: str | Path, *, kind: str | None = None, history: bool = False, quote_formulas: bool = False
    ) -> Path:
        """Write the table in the format of the suffix, .csv, .vot, … as `Hits.save` does; return the path."""
        table = self.table(kind, history=history)
        formats.write_table(table, Path(path), meta=self._meta(), quote_formulas=quote_formulas)
        return Path(path)

    def to_bytes(self, suffix: str, *, kind: str | None = None, history: bool = False) -> bytes:
        """Return what `save` would write to a file of that suffix."""
        return formats.table_bytes(self.table(kind, history=history), suffix, meta=self._meta())

    def _meta(self) -> dict[str, Any]:
        return {"title": "verdicts", "atlas": _title(self._journal.head.get("atlas"))}

    def agreement(self, kind: str | None = None, *, blind: bool = False) -> Agreement:
        """Return how far people agree, of the only kind unless one is named; with `blind` by blind verdicts alone."""
        kind = self.only_kind(kind)
        standing_ones = [one for one in self.current(kind) if one.blind or not blind]
        people = tuple(sorted({one.by for one in standing_ones}))
        opinions: dict[str, dict[str, str]] = {}
        for one in standing_ones:
            opinions.setdefault(one.object_id, {})[one.by] = class_of(one)
        shared = [by_person for _, by_person in sorted(opinions.items()) if len(by_person) > 1]
        ratings = [[by_person.get(person) for person in people] for by_person in shared]
        full = bool(ratings) and all(None not in row for row in ratings)
        pairs = _pairs(people, list(opinions.values()))
        kappa = pairs["kappa"][0].as_py() if len(people) == 2 else agreement.fleiss_kappa(ratings) if full else None
        return Agreement(
            kind,
            people,
            len(shared),
            agreement.agreed_share(ratings),
            kappa,
            agreement.krippendorff_alpha(ratings),
            pairs,
        )

    def consensus(self, kind: str | None = None) -> pa.Table:
        """Return what most people say of each object of one kind: object_id, label, people, share, by object_id.

        `label` is yes, no, unsure or the label in words of one's own, NULL where as many say one thing as another;
        `share` is the part of the people who say it. It is a table that `galsearch.create_base` takes.
        """
        kind = self.only_kind(kind)
        by_object: dict[str, Counter[str]] = {}
        for one in self.current(kind):
            label = one.label if one.verdict == LABEL and one.label else one.verdict
            by_object.setdefault(one.object_id, Counter())[label] += 1
        rows = []
        for name, counts in sorted(by_object.items()):
            (label, most), *others = counts.most_common(2)
            tied = bool(others) and others[0][1] == most
            rows.append((name, None if tied else label, counts.total(), most / counts.total()))
        types = (pa.string(), pa.string(), pa.int64(), pa.float64())
        names = ("object_id", "label", "people", "share")
        return pa.table({name: pa.array([row[at] for row in rows], types[at]) for at, name in enumerate(names)})

    def only_kind(self, kind: str | None) -> str:
        """Return the kind that is meant: the one named, else the only one there is. Raises QueryError otherwise."""
        kinds = list(self.kinds())
        if kind is not None:
            return kind
        if len(kinds) != 1:
            there = f"they are of {', '.join(map(repr, kinds[:10]))}" if kinds else "there are none yet"
            raise QueryError(f"which kind of verdicts is meant is not named, and {there}; give kind")
        return kinds[0]

    # ---- writing

    def add(
        self,
        object_id: str,
        verdict: str,
        *,
        kind: str,
        label: str | None = None,
        note: str | None = None,
        by: str | None = None,
        blind: bool = False,
    ) -> Verdict:
        """Keep a verdict and return it, once it is on the disk; of an object judged before it corrects what was said.

        `by` is who judges: unless given the environment variable GALSEARCH_REVIEWER, else the login name. Raises
        QueryError for an object that the atlas does not have, GalsearchError where the file cannot be written.
        """
        if self._atlas is not None:
            self._atlas[object_id]  # raises for one that is not there, with those it may be
        by = reviewer(by)
        one = Verdict(object_id, verdict, kind, by, label or None, note or None, blind, "0", uuid.uuid4().hex).check()
        return self._append(lambda there: self._corrected(one, there))

    def undo(self, *, by: str | None = None, kind: str | None = None) -> Verdict | None:
        """Take back the last verdict of a person that stands, of a kind or of any; return it, None where none does.

        What it had corrected stands again. Doing it again goes further back.
        """
        by = reviewer(by)
        undone: list[Verdict] = []

        def make(there: list[Verdict]) -> Verdict | None:
            last = standing(there, kind=kind, by=by)
            if not last:
                return None
            undone.append(last[-1])
            row = Verdict(last[-1].object_id, UNDO, last[-1].kind, by, id=uuid.uuid4().hex, undoes=last[-1].id)
            return replace(row, time=_next_time(there, by))

        self._append(make)
        return undone[0] if undone else None

    def _corrected(self, one: Verdict, there: list[Verdict]) -> Verdict:
        before = [b for b in standing(there, kind=one.kind, by=one.by) if b.object_id == one.object_id]
        replaces = before[0].id if before else None
        return replace(one, time=_next_time(there, one.by), replaces=replaces)

    def _append(self, make: Any) -> Any:
        made: list[Verdict] = []

        def rows(_: list[Row]) -> Iterable[Row]:
            one = make(self.all())
            made.extend([] if one is None else [one])
            return [each.to_row() for each in made]

        self._journal.append(rows)
        return made[0] if made else None

    def merge(self, other: Verdicts | str | Path) -> Merged:
        """Take in the verdicts of another file of verdicts, or of a table that `save` wrote (.csv, .vot, …).

        Rows are known by their ids, so nothing is lost or counted twice, whatever the order. A row of a table without
        ids gets one that depends on what it says. Raises FormatError where one id stands for two different rows, and
        SchemaError for a table that has no verdicts; nothing is then taken in.
        """
        theirs = other.all() if isinstance(other, Verdicts) else read_verdicts(other)
        counted: list[Merged] = []

        def rows(_: list[Row]) -> list[Row]:
            held = {one.id: one for one in self.all()}
            before = set(held)
            _unite(held, theirs, name="what is merged")
            new = [held[name].to_row() for name in held if name not in before]
            counted.append(Merged(len(new), len({one.id for one in theirs}) - len(new)))
            return new

        self._journal.append(rows)
        return counted[0]


def standing(rows: Iterable[Verdict], *, kind: str | None = None, by: str | None = None) -> list[Verdict]:
    """Return of each person, object and kind the last verdict that the same person has not taken back, by time.

    One that the same person has corrected does not stand, whatever the clocks say that wrote the two.
    """
    rows = sorted(rows, key=_order)
    undone = {(one.by, one.undoes) for one in rows if one.verdict == UNDO}
    valid = [one for one in rows if one.verdict != UNDO and (one.by, one.id) not in undone]
    corrected = {(one.by, one.replaces) for one in valid if one.replaces is not None}
    last: dict[tuple[str, str, str], Verdict] = {}
    for one in valid:
        if (one.by, one.id) not in corrected and kind in (None, one.kind) and by in (None, one.by):
            last[(one.kind, one.object_id, one.by)] = one
    return sorted(last.values(), key=_order)


def _order(one: Verdict) -> tuple[str, str]:
    return one.time, one.id


def _unite(held: dict[str, Verdict], rows: Iterable[Verdict], *, name: str) -> None:
    """Add rows by their ids. Raises FormatError where one id stands for two."""
    for one in rows:
        if held.setdefault(one.id, one) != one:
            raise FormatError(
                f"{name}: the id {one.id} stands for two different verdicts, on {held[one.id].object_id!r:.60} and on "
                f"{one.object_id!r:.60}; one of the files was changed by hand, restore it from a copy"
            )


def _next_time(there: Iterable[Verdict], by: str) -> str:
    """Return the time now, or just after the last row of a person, whose clock may have gone back since."""
    now = datetime.now(UTC).strftime(TIME)
    last = max((one.time for one in there if one.by == by), default="")
    if last < now:
        return now
    try:
        return (datetime.strptime(last, TIME) + timedelta(microseconds=1)).strftime(TIME)
    except (ValueError, OverflowError):
        return now  # of a table that writes time otherwise


def class_of(one: Verdict) -> str:
    """Return what agreement compares: yes, no, unsure or the label, without regard to case."""
    return f"label {one.label.casefold()}" if one.verdict == LABEL and one.label else one.verdict


def _pairs(people: Sequence[str], opinions: list[dict[str, str]]) -> pa.Table:
    rows = []
    for first, second in combinations(people, 2):
        both = [(one[first], one[second]) for one in opinions if first in one and second in one]
        sides = [pair[0] for pair in both], [pair[1] for pair in both]
        share = agreement.agreed_share(both)
        rows.append((first, second, len(both), share, agreement.cohen_kappa(*sides)))
    kinds = (pa.string(), pa.string(), pa.int64(), pa.float64(), pa.float64())
    names = ("first", "second", "objects", "share", "kappa")
    columns = [pa.array([row[at] for row in rows], kind) for at, kind in enumerate(kinds)]
    return pa.table(dict(zip(names, columns, strict=True)))


def reviewer(by: str | None) -> str:
    """Return who judges: `by`, the environment variable GALSEARCH_REVIEWER, or the login name."""
    if by is not None:
        _check_text("by", by)
        return by
    named = os.environ.get(REVIEWER, "").strip()
    try:
        return named or getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise GalsearchError(
            f"nobody is named who judges, and this account has no name; give by, or set {REVIEWER}"
        ) from None


def identity(manifest: schema.Manifest) -> Row:
    """Return what tells an atlas from others while it grows, as a folder or a bundle: title and time of creation."""
    return {"title": manifest.title, "created": manifest.created}


def _title(named: object) -> str:
    title = named.get("title") if isinstance(named, dict) else None
    return f"the atlas {title!r:.80}" if title else "an atlas that is not named"


# ---- tables


def read_verdicts(path: str | Path) -> list[Verdict]:
    """Return the rows of a file of verdicts, or of a table with object_id, verdict, kind and by.

    Raises SchemaError for a table that has none, FormatError for a damaged file.
    """
    path = Path(path)
    if not path.exists():
        raise GalsearchError(f"{path} is not there; name a file of verdicts, or a table of them")
    if _is_journal(path):
        return Verdicts(path).all()
    table = formats.read_table(path, text=tuple(schema.VERDICTS))
    missing = [name for name in ("object_id", "verdict", "kind", "by") if name not in table.column_names]
    if missing:
        raise SchemaError(f"{path} has no column '{missing[0]}'; a table of verdicts has object_id, verdict, kind, by")
    return [_of_table(row, f"{path}, row {number}") for number, row in enumerate(table.to_pylist(), start=1)]


def _is_journal(path: Path) -> bool:
    if not path.is_file():
        raise FormatError(f"{path} is no file; name a file of verdicts, or a table of them")
    with path.open("rb") as file:
        return file.read(64).startswith(b'{"format": ')


def _of_table(row: dict[str, Any], where: str) -> Verdict:
    known: dict[str, Any] = {name: row.get(name) for name in schema.VERDICTS}
    known["blind"] = str(known["blind"]).lower() in ("true", "1", "t", "yes")
    known["time"] = known["time"] or "1970-01-01T00:00:00.000000Z"
    told = {name: value for name, value in known.items() if name != "id"}
    known["id"] = known["id"] or hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
    try:
        return Verdict(**known).check()
    except QueryError as error:
        raise SchemaError(f"{where}: {error}") from None
