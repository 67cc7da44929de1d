"""Knowledge bases as an atlas holds them: what each is, and the labeled objects that vote."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from galsearch import formats, schema
from galsearch.errors import FormatError, QueryError
from galsearch.store import Store

BASES, LABELS, PROBES = "knowledge_bases", "knowledge_labels", "probes"
CLASS, NUMBER = "class", "number"
KINDS = (CLASS, NUMBER)
MOST_CLASSES = 1_000  # of labels; more are names of objects, not classes
MOST_CHARACTERS = 200  # of a label; more is a text about one object, and fills a screen


@dataclass(frozen=True)
class KnowledgeBase:
    """A knowledge base: labeled objects of an atlas that vote on others, and where they come from.

    `kind` is "class" (labels are texts) or "number". `target` is the class that was drawn to `share`; None where all
    were taken. `sql` is the SELECT that the members come from, `columns` are those of the catalog that are shown of
    voters, `calibration` what held-out members gave (see docs/knowledge.md). `version` is 0 for one that was made of a
    column and is not stored. `left_out` counts, after creation, objects without a vector; `counts` the members of each
    class.
    """

    name: str
    version: int
    embedding: str
    kind: str
    rows: int
    label_column: str
    target: str | None = None
    share: float | None = None
    sql: str = ""
    columns: tuple[str, ...] = ()
    seed: int = 0
    created: str = ""
    calibration: Mapping | None = field(default=None, repr=False)
    left_out: int = field(default=0, compare=False)
    counts: Mapping[str, int] = field(default_factory=dict, compare=False)

    def to_row(self) -> dict:
        """Return it as a row of the table `knowledge_bases`."""
        return {
            "base": self.name,
            **{key: getattr(self, key) for key in ("version", "embedding", "kind", "label_column", "target", "share")},
            **{key: getattr(self, key) for key in ("sql", "seed", "rows", "created")},
            "shown": list(self.columns),
            "calibration": None if self.calibration is None else json.dumps(self.calibration),
            "software": schema.software(),
        }

    @classmethod
    def from_row(cls, row: Mapping, *, path: str) -> KnowledgeBase:
        """Return the base that a row of `knowledge_bases` is; FormatError, naming `path`, where it is none."""
        needed = ("version", "embedding", "kind", "rows", "label_column", "seed")
        known: dict[str, Any] = {key: row.get(key) for key in needed}
        if row.get("base") is None or row.get("shown") is None or None in known.values() or known["kind"] not in KINDS:
            raise FormatError(
                f"{path}: table {BASES} has a row that describes no base ({row.get('base')!r:.40}); create it again"
            )
        calibration = row.get("calibration")
        if calibration is not None:
            try:
                calibration = schema.read_json(calibration)
            except ValueError:
                calibration = False
            if not isinstance(calibration, dict):
                raise FormatError(f"{path}: the calibration of base '{row['base']}' is no JSON object; create it again")
        return cls(
            name=row["base"],
            **known,
            target=row.get("target"),
            share=row.get("share"),
            sql=row.get("sql") or "",
            columns=tuple(str(name) for name in row["shown"]),
            created=row.get("created") or "",
            calibration=calibration,
        )


@dataclass(frozen=True)
class Members:
    """The objects that vote: their row indices, ascending, `(m,) int64`, and the label of each.

    In a base of classes `codes (m,) int64` are numbers of `classes`, in order of their text; in one of numbers `values`
    are `(m,) float64`.
    """

    rows: np.ndarray
    classes: tuple[str, ...] = ()
    codes: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    values: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def counts(self) -> dict[str, int]:
        """How many members each class has."""
        held = np.bincount(self.codes, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, held, strict=True))

    @functools.cached_property
    def priors(self) -> np.ndarray:
        """Shares of the classes among the members, `(c,)`."""
        return np.bincount(self.codes, minlength=len(self.classes)) / max(len(self.codes), 1)

    def at(self, kept: np.ndarray) -> Members:
        """Return some of the members, by their numbers; classes of which none is left are gone."""
        if not self.classes:
            return Members(self.rows[kept], values=self.values[kept])
        labels = [self.classes[code] for code in self.codes[kept].tolist()]
        return of_classes(self.rows[kept], pa.array(labels, pa.string()))

    def label_of(self, member: int) -> str | float:
        """Return the label of a member."""
        return self.classes[int(self.codes[member])] if self.classes else float(self.values[member])


def of_classes(rows: np.ndarray, labels: pa.Array | pa.ChunkedArray) -> Members:
    """Return members with texts as labels, none of them NULL."""
    encoded = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
    encoded = encoded.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    codes = np.array(encoded.indices.to_pylist(), np.int64)
    return Members(rows, tuple(names[index] for index in order), rank[codes] if len(names) else codes)


def list_bases(store: Store) -> list[KnowledgeBase]:
    """Return every base that an atlas holds, each version, by name and version."""
    table = store.table(BASES)
    rows = [] if table is None else table.to_pylist()
    bases = [KnowledgeBase.from_row(row, path=f"{store.path}") for row in rows]
    return sorted(bases, key=lambda base: (base.name, base.version))


def find_base(store: Store, name: str, *, version: int | None) -> KnowledgeBase | None:
    """Return a version of a base, the last unless given; None where there is no base of that name.

    Raises QueryError for a version that there is not.
    """
    known = [base for base in list_bases(store) if base.name == name]
    if version is None or not known:
        return known[-1] if known else None
    result = next((base for base in known if base.version == version), None)
    if result is None:
        there = ", ".join(str(base.version) for base in known)
        raise QueryError(f"{store.path} has no version {version!r:.20} of base '{name}', it has {there}")
    return result


def read_members(store: Store, base: KnowledgeBase) -> Members:
    """Return who votes in a stored base. Raises FormatError where its labels are not of its kind."""
    table = store.labeled_rows(base.name, base.version)
    column = table["label" if base.kind == CLASS else "value"]
    values = column.to_numpy() if base.kind == NUMBER else np.empty(0)
    if column.null_count or not np.isfinite(values).all():
        raise FormatError(f"{store.path}: base '{base.name}' has members without a {base.kind}; create it again")
    rows = table["row"].to_numpy()
    members = of_classes(rows, column) if base.kind == CLASS else Members(rows, values=values)
    return with_vector(store, base.embedding, members)


def with_vector(store: Store, embedding: str, members: Members) -> Members:
    """Return the members that have a vector in an embedding."""
    there = store.has_vector(embedding, members.rows)
    return members if there.all() else members.at(np.flatnonzero(there))


def base_of_column(store: Store, column: str, *, by: str | None) -> tuple[KnowledgeBase, Members]:
    """Return a base made of all objects that have a column of `galaxies`: of classes for text, else of numbers.

    Blank texts, infinite numbers and NaN are no labels. Raises QueryError for a column that there is not, that has
    neither texts nor numbers, or whose texts are no classes (too long, too many).
    """
    known = [base.name for base in list_bases(store)]
    if column not in store.describe()["column"].to_pylist():
        there = f"its bases are {', '.join(dict.fromkeys(known))}" if known else "it has no base yet"
        raise QueryError(
            f"{store.path} has neither a knowledge base nor a column '{column}'; {there}, make one with "
            "`galsearch kb create`, and list the columns with `galsearch info`"
        )
    embedding = store.manifest.embedding_named(by, path=store.path)
    values = store.by_row(column)
    kind = kind_of(values.type, column)
    there = are_labels(values)
    rows = np.flatnonzero(np.array(there.to_pylist(), bool))
    members = members_of(rows, values.filter(there), kind)
    members = with_vector(store, embedding, members)
    check_classes(members.classes, column)
    if not len(members.rows):
        raise QueryError(f"no object of {store.path} has both '{column}' and a vector in '{embedding}'")
    base = KnowledgeBase(column, 0, embedding, kind, len(members.rows), column)
    return base, members


def members_of(rows: np.ndarray, labels: pa.Array | pa.ChunkedArray, kind: str) -> Members:
    """Return members whose labels, none of them NULL, are classes or numbers."""
    if kind == NUMBER:
        return Members(rows, values=np.array(pc.cast(labels, pa.float64(), safe=False).to_pylist(), np.float64))
    return of_classes(rows, pc.cast(labels, pa.string()))


def are_labels(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return which values are labels: not NULL, of texts those that are not blank, of numbers the finite ones."""
    if pa.types.is_floating(values.type):
        return pc.fill_null(pc.is_finite(values), False)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return pc.fill_null(pc.match_substring_regex(values, r"\S"), False)
    return values.is_valid()


def check_classes(classes: tuple[str, ...], column: str) -> None:
    """Raise QueryError unless texts of a column are classes: not too many, and none too long."""
    longest = max(classes, key=len, default="")
    if len(longest) > MOST_CHARACTERS:
        raise QueryError(
            f"'{column}' has a label of {len(longest)} characters, {longest!r:.40}…, at most {MOST_CHARACTERS} are a "
            f"class; shorten it in the SELECT of a base: left({column}, {MOST_CHARACTERS})"
        )
    if len(classes) > MOST_CLASSES:
        raise QueryError(
            f"'{column}' has {len(classes)} classes, at most {MOST_CLASSES} can be voted on; group them in the SELECT "
            "of a base, with CASE"
        )


def kind_of(values: pa.DataType, column: str) -> str:
    """Return whether labels of an Arrow type are classes or numbers. Raises QueryError where they are neither."""
    if pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_boolean(values):
        return CLASS
    if pa.types.is_integer(values) or pa.types.is_floating(values) or pa.types.is_decimal(values):
        return NUMBER
    raise QueryError(f"'{column}' is {values}, and labels are text or numbers; CAST it to one of them")


def bases_table(bases: list[KnowledgeBase]) -> pa.Table:
    """Return bases as a table: what the table `knowledge_bases` has, of the calibration whether there is one."""
    columns = [one for one in schema.TABLES[BASES] if one.name != "calibration"]
    fields = [schema.described(column) for column in columns]
    about = "Whether held-out members say how votes become probabilities"
    fields.append(formats.describe(pa.field("calibrated", pa.bool_()), ucd="meta.code", description=about))
    rows = [{**base.to_row(), "calibrated": base.calibration is not None} for base in bases]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
