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
import re
import tempfile
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
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
NO_TIME = "1970-01-01T00:00:00.000000Z"  # of a row that does not say when
MOST_NAMED = 3
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?( ?(Z|[+-]\d\d(:?\d\d)?))?)?", re.IGNORECASE)
_OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_BREAKS = re.compile("\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_QUOTED_FORMULA = re.compile(r"^'+(?=[=+\-@])")  # what `quote_formulas` puts before a text
FLAGS = {**dict.fromkeys(("true", "1", "t", "yes", "y"), True), **dict.fromkeys(("false", "0", "f", "no", "n"), False)}


def utc(text: str) -> str | None:
    """Return a time of ISO 8601 as all of ours are written, in UTC to the microsecond; None for what is no time.

    One without a zone is taken for UTC, a day for its first moment.

    >>> utc("2026-05-01 12:00+02:00")
    '2026-05-01T10:00:00.000000Z'
    """
    if _OURS.fullmatch(text) is None and _TIME.fullmatch(text) is None:
        return None
    try:
        read = datetime.fromisoformat(text.upper().replace(",", ".").replace(" Z", "Z").replace(" +", "+"))
        read = read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return read.isoformat(timespec="microseconds").replace("+00:00", "Z")


def tidy(text: str, *, lines: bool = False) -> str:
    """Return a text as every format of tables keeps it, so that what is written and read again is the same verdict.

    White space at the edges goes, control characters become spaces, an accent is one character, and the apostrophe
    that `quote_formulas` puts before a formula is taken off. `lines` keeps the lines of a text that are not empty;
    without it each run of white space is one space.
    """
    text = unicodedata.normalize("NFC", _CONTROLS.sub(" ", _BREAKS.sub("\n", text)))
    text = "\n".join(filter(None, map(str.strip, text.split("\n")))) if lines else " ".join(text.split())
    return _QUOTED_FORMULA.sub("", text.strip()).strip()


@dataclass(frozen=True)
class Verdict:
    """What one person says of one object: yes, no, unsure, or a label of one's own words.

    A `label` beside yes, no or unsure says what else it is. `id` is unique, `time` ISO 8601 in UTC, `blind` whether
    name, scores and verdicts of others were hidden; `replaces` is the id of the verdict of the same person that this
    one corrects. `undoes` is that of one taken back: such a row says nothing else.
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

    def tidied(self) -> Verdict:
        """Return it with its texts as every format keeps them, and its time in UTC; NO_TIME where that is none."""
        kind, by = (tidy(one) if isinstance(one, str) else one for one in (self.kind, self.by))
        label = tidy(self.label) if isinstance(self.label, str) else self.label
        note = tidy(self.note, lines=True) if isinstance(self.note, str) else self.note
        time = utc(self.time) or NO_TIME if isinstance(self.time, str) else self.time
        return replace(self, kind=kind, by=by, label=label or None, note=note or None, time=time)

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
    return Verdict(**known).tidied().check()


@dataclass(frozen=True)
class Agreement:
    """How far people agree on what two or more of them judged, of one kind.

    `share` is the share of pairs of people who judged the same object and say the same of it, of all such pairs: an
    object that three judged has three of them. `kappa` is Cohen's of two, Fleiss' of more
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
        among = f"{len(self.people)} people, {self.objects} object{'s' * (self.objects != 1)} judged by two or more"
        return f"{self.kind}: {among}, {100 * self.share:.0f} % of pairs agree" + "".join(f", {one}" for one in values)


@dataclass(frozen=True)
class Merged:
    """What a merge did: rows that were new, rows that were there already, and of the new those on unknown objects."""

    new: int
    known: int
    unknown: int = 0


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
        return standing(self.all(), kind=None if kind is None else tidy(kind), by=None if by is None else tidy(by))

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
        """Return what stands, a row for each; with `history` every row, also those corrected and taken back.

        Raises QueryError for a kind of which there is no row.
        """
        return self._table(self._shown(kind, history=history))

    def _shown(self, kind: str | None, *, history: bool) -> list[Verdict]:
        kind = None if kind is None else self.check_kind(kind)
        return [one for one in self.all() if kind in (None, one.kind)] if history else self.current(kind)

    def _table(self, shown: Sequence[Verdict]) -> pa.Table:
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
        """Write the table in the format of the suffix, .csv, .vot, … as `Hits.save` does; return the path.

        `merge` reads it as the same verdicts, which is tried before the file is there. Raises SchemaError for a format
        that does not keep them, such as CSV for an object_id that ends with a space.
        """
        shown, path = self._shown(kind, history=history), Path(path)
        _check_comes_back(shown, self._bytes(shown, path.suffix, quote_formulas=quote_formulas), path.suffix)
        formats.write_table(self._table(shown), path, meta=self._meta(), quote_formulas=quote_formulas)
        return path

    def to_bytes(self, suffix: str, *, kind: str | None = None, history: bool = False) -> bytes:
        """Return what `save` would write to a file of that suffix."""
        shown = self._shown(kind, history=history)
        content = self._bytes(shown, suffix)
        _check_comes_back(shown, content, suffix)
        return content

    def _bytes(self, shown: Sequence[Verdict], suffix: str, *, quote_formulas: bool = False) -> bytes:
        if suffix.lower() in (".reg", ".ajs"):
            raise SchemaError(f"{suffix} draws positions, and verdicts have none; write .csv, .vot, .fits or .parquet")
        table, meta = self._table(shown), self._meta()
        return formats.table_bytes(table, suffix, meta=meta, quote_formulas=quote_formulas)

    def _meta(self) -> dict[str, Any]:
        return {"title": "verdicts", "atlas": _title(self._journal.head.get("atlas"))}

    def agreement(self, kind: str | None = None, *, blind: bool = False) -> Agreement:
        """Return how far people agree, of the only kind unless one is named; with `blind` by blind verdicts alone."""
        kind = self.check_kind(self.only_kind(kind))
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

        `label` is yes, no or the label in words of one's own, in its most usual spelling. It is NULL where as many say
        one thing as another, and where the most are unsure, which is no class. `share` is the part of the people who
        say it, or of those who say the most usual things. It is a table that `galsearch.create_base` takes.
        """
        kind = self.check_kind(self.only_kind(kind))
        by_object: dict[str, Counter[str]] = {}
        spelled: dict[str, Counter[str]] = {}
        for one in self.current(kind):
            label = class_of(one)
            by_object.setdefault(one.object_id, Counter())[label] += 1
            written = one.label if one.verdict == LABEL and one.label else one.verdict
            spelled.setdefault(label, Counter())[written] += 1
        names_of = {label: min(counts, key=lambda one: (-counts[one], one)) for label, counts in spelled.items()}
        rows: list[tuple[str, str | None, int, float]] = []
        for name, counts in sorted(by_object.items()):
            (label, most), *others = counts.most_common(2)
            none = label == UNSURE or (bool(others) and others[0][1] == most)
            rows.append((name, None if none else names_of[label], counts.total(), most / counts.total()))
        types = (pa.string(), pa.string(), pa.int64(), pa.float64())
        names = ("object_id", "label", "people", "share")
        return pa.table({name: pa.array([row[at] for row in rows], types[at]) for at, name in enumerate(names)})

    def only_kind(self, kind: str | None) -> str:
        """Return the kind that is meant: the one named, else the only one there is. Raises QueryError otherwise."""
        if kind is not None:
            return tidy(kind)
        kinds = list(self.kinds())
        if len(kinds) != 1:
            there = f"they are of {', '.join(map(repr, kinds[:10]))}" if kinds else "there are none yet"
            raise QueryError(f"which kind of verdicts is meant is not named, and {there}; give kind")
        return kinds[0]

    def check_kind(self, kind: str) -> str:
        """Return a kind as it is kept. Raises QueryError where no row is of it, as after a typing error."""
        kind, held = tidy(kind), {one.kind for one in self.all()}
        if kind not in held:
            there = f"they are of {', '.join(map(repr, sorted(held)[:10]))}" if held else "there are none yet"
            raise QueryError(f"no verdict is of kind {kind!r:.60}, {there}; name one of these, or leave kind out")
        return kind

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
        one = Verdict(object_id, verdict, kind, by, label or None, note or None, blind, NO_TIME, uuid.uuid4().hex)
        one = one.tidied().check()
        return self._append(lambda there: self._corrected(one, there))

    def undo(self, *, by: str | None = None, kind: str | None = None) -> Verdict | None:
        """Take back the last verdict of a person that stands, of a kind or of any; return it, None where none does.

        What it had corrected stands again. Doing it again goes further back.
        """
        by, kind = reviewer(by), None if kind is None else tidy(kind)
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

    def merge(self, other: Verdicts | str | Path, *, foreign: bool = False) -> Merged:
        """Take in the verdicts of another file of verdicts, or of a table that `save` wrote (.csv, .vot, …).

        Rows are known by their ids, so nothing is lost or counted twice, whatever the order. A row of a table without
        ids gets one that depends on what it says. Times are read as UTC where they have no zone; of rows without a time
        the later ones in the table count. With `foreign` also verdicts that were given on another atlas, or on objects
        that this one does not have, are taken; they count where their object is there.

        Raises QueryError for such verdicts otherwise, FormatError where one id stands for two different rows, and
        SchemaError for a table that has no verdicts, or a time or flag that is none; nothing is then taken in.
        """
        theirs, about = _opened(other)
        counted: list[Merged] = []

        def rows(_: list[Row]) -> list[Row]:
            held = {one.id: one for one in self.all()}
            before = set(held)
            _unite(held, theirs, name="what is merged")
            new = [one for name, one in held.items() if name not in before]
            unknown = self._unknown(new)
            if not foreign:
                self._check_native(new, unknown, about)
            counted.append(Merged(len(new), len({one.id for one in theirs}) - len(new), len(unknown)))
            return [one.to_row() for one in new]

        self._journal.append(rows)
        return counted[0]

    def _unknown(self, rows: Iterable[Verdict]) -> list[Verdict]:
        """Return the verdicts on objects that the atlas does not have; none where no atlas is open."""
        if self._atlas is None:
            return []
        rows = list(rows)
        there = {name for name in {one.object_id for one in rows} if name in self._atlas}
        return [one for one in rows if one.object_id not in there]

    def _check_native(self, new: Sequence[Verdict], unknown: Sequence[Verdict], about: object) -> None:
        """Raise QueryError for verdicts that were given on another atlas, or on objects that this one does not have."""
        begun = self._journal.head.get("atlas")
        ours = [begun if self._atlas is None else identity(self._atlas.manifest), begun]
        if new and about is not None and ours[0] is not None and about not in ours:
            raise QueryError(
                f"these {len(new)} verdicts were given on {_title(about)}, and this is {_title(ours[0])}: equal ids "
                "may be other objects; if they are the same, take them with --foreign (foreign=True)"
            )
        if unknown:
            objects = len({one.object_id for one in unknown})
            raise QueryError(
                f"{len(unknown)} of {len(new)} new verdicts are on {objects} objects that are not in "
                f"{self._atlas.path}, such as {unknown[0].object_id!r:.60}; nothing was taken: name another file, or "
                "take them all the same with --foreign (foreign=True)"
            )


def _opened(other: Verdicts | str | Path) -> tuple[list[Verdict], object]:
    """Return the rows of verdicts or of a file, and the atlas that they were begun with, None where none is named."""
    if not isinstance(other, Verdicts) and not (Path(other).is_file() and _is_journal(Path(other))):
        return read_verdicts(other), None
    held = other if isinstance(other, Verdicts) else Verdicts(other)
    return held.all(), held._journal.head.get("atlas")


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
    time = one.time if _OURS.fullmatch(one.time) else utc(one.time) or ""
    return time, one.id


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
    now = datetime.now(UTC)
    last = max((_order(one)[0] for one in there if one.by == by), default="") or NO_TIME
    try:
        latest = datetime.fromisoformat(last) + timedelta(microseconds=1)
    except OverflowError:
        latest = now  # the last moment that a date can have; what corrects it stands all the same
    return max(now, latest).isoformat(timespec="microseconds").replace("+00:00", "Z")


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
        _check_text("by", by := tidy(by))
        return by
    named = tidy(os.environ.get(REVIEWER, ""))
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


def _check_comes_back(shown: Sequence[Verdict], content: bytes, suffix: str) -> None:
    """Raise SchemaError unless a table that was written is read as the same verdicts, where that format is read."""
    if not shown or suffix.lower() not in formats.SUFFIXES:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"verdicts{suffix}"
        path.write_bytes(content)
        try:
            back: list[Verdict] = read_verdicts(path)
        except GalsearchError:
            back = []
    changed = next(
        (one for one, again in zip(shown, [*back, *[None] * len(shown)], strict=False) if one != again), None
    )
    if changed is not None:
        raise SchemaError(
            f"{suffix} does not keep the verdict on {changed.object_id!r:.60} as it is, such as the spaces or control "
            "characters of its object_id, and it could not be merged again; write .parquet"
        )


def read_verdicts(path: str | Path) -> list[Verdict]:
    """Return the rows of a file of verdicts, or of a table with object_id, verdict, kind and by.

    Raises SchemaError for a table that has none, FormatError for a damaged file.
    """
    path = Path(path)
    if not path.exists():
        raise GalsearchError(f"{path} is not there; name a file of verdicts, or a table of them")
    if _is_journal(path):
        return Verdicts(path).all()
    ids = ("object_id", "replaces", "undoes")
    table = formats.read_table(path, text=ids, verbatim=set(schema.VERDICTS) - set(ids))
    missing = [name for name in ("object_id", "verdict", "kind", "by") if name not in table.column_names]
    if missing:
        raise SchemaError(f"{path} has no column '{missing[0]}'; a table of verdicts has object_id, verdict, kind, by")
    rows: list[Verdict] = []
    last: dict[tuple[str, str, str], str] = {}  # of each person, object and kind the id of the row before
    for number, row in enumerate(table.to_pylist(), start=1):
        one = _of_table(row, f"{path}, row {number}", last)
        last[(one.kind, one.object_id, one.by)] = one.id
        rows.append(one)
    return rows


def _is_journal(path: Path) -> bool:
    if not path.is_file():
        raise FormatError(f"{path} is no file; name a file of verdicts, or a table of them")
    with path.open("rb") as file:
        return file.read(64).startswith(b'{"format": ')


def _of_table(row: dict[str, Any], where: str, last: Mapping[tuple[str, str, str], str]) -> Verdict:
    """Return the verdict of a row of a table; one without time corrects what the same person says further up.

    A row without an id gets one of what it says, and of what it corrects: the same table gives the same ids.
    """
    known: dict[str, Any] = {name: row.get(name) for name in schema.VERDICTS}
    known = {name: _unquoted(value) for name, value in known.items()}
    stated = known["time"]
    try:
        known |= {"blind": _flag(known["blind"]), "time": _time(stated), "id": known["id"] or "0"}
        one = Verdict(**known).tidied().check()
    except QueryError as error:
        raise SchemaError(f"{where}: {error}") from None
    before = last.get((one.kind, one.object_id, one.by))
    if stated is None and one.replaces is None and one.verdict != UNDO:
        one = replace(one, replaces=before)
    if not row.get("id"):
        told = {name: getattr(one, name) for name in schema.VERDICTS if name != "id"}
        one = replace(one, id=hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32])
    return one


def _unquoted(value: Any) -> Any:
    """Return a cell without the apostrophe that `quote_formulas` puts before it; what is empty is nothing."""
    return (_QUOTED_FORMULA.sub("", value) or None) if isinstance(value, str) else value


def _flag(value: Any) -> bool:
    """Return whether a cell says yes; empty is no. Raises QueryError for one that says neither."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if (known := FLAGS.get(str(value).strip().lower())) is None:
        raise QueryError(f"blind is {value!r:.40}, expected true or false, or nothing; mend it in the table")
    return known


def _time(value: Any) -> str:
    """Return the time of a cell in UTC, NO_TIME of an empty one. Raises QueryError for what is no time."""
    text = value.isoformat() if isinstance(value, (date, datetime)) else value
    if text is None:
        return NO_TIME
    if not isinstance(text, str) or (moment := utc(text.strip())) is None:
        raise QueryError(
            f"time is {value!r:.40}, expected ISO 8601 such as 2026-05-01T12:00:00Z, in UTC where it has no zone; mend "
            "it in the table, or empty it: of rows without time the later ones count"
        )
    return moment
