"""What a caller wants of a table file, what its reader notes on the way, and which of several tables is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from galsearch.errors import SchemaError

T = TypeVar("T")
CATALOG = "LDAC_OBJECTS"  # the EXTNAME of the catalog in SExtractor's FITS_LDAC
COLUMNS = 20_000  # of a table: what each costs is not in proportion to its bytes
TOLD = 6  # tables that are listed by name
_ID_NAME = re.compile(
    r"(id|id_str|name|designation|iau_?name|(\w*_)?(source|target|galaxy)_?id|\w*obj(ect)?_?id)", re.IGNORECASE
)


def is_id_name(name: str) -> bool:
    """Return whether a column of this name holds identifiers, which are text."""
    return _ID_NAME.fullmatch(name) is not None


def check_count(columns: int) -> None:
    """Raise SchemaError for more columns than a table may have."""
    if columns > COLUMNS:
        raise SchemaError(f"has {columns:,} columns, {COLUMNS:,} are the most; put vectors into one column of lists")


@dataclass(frozen=True)
class Request:
    """What a caller of `read_table` asked for; a reader adds its notes."""

    suffix: str = ""
    text: frozenset[str] = frozenset()
    verbatim: frozenset[str] = frozenset()  # text that is no identifier: "12.0" is no rounded 12 there
    table_name: str | int | None = None
    missing: tuple[float, ...] = ()
    complete: bool = False  # a table that lacks rows or cells is no answer
    notes: list[str] = field(default_factory=list)

    def lacks(self, what: str) -> None:
        """Note what a table lacks; SchemaError where it must be complete."""
        if self.complete:
            raise SchemaError(what)
        self.notes.append(what)

    def wants_text(self, name: str) -> bool:
        """Return whether the column is text whatever it looks like."""
        return name in self.text or name in self.verbatim or is_id_name(name)

    def must_be_the_only_table(self) -> None:
        """Raise SchemaError where a table was named, for a format that holds one."""
        if self.table_name is not None:
            raise SchemaError(
                f"a {self.suffix} file holds one table, '{self.table_name}' cannot be chosen; leave it out"
            )


@dataclass(frozen=True)
class Part(Generic[T]):
    """One table of a file that may hold several: its number as the format counts, its names, its columns and rows."""

    number: int
    names: tuple[str, ...]
    columns: list[str]
    rows: int
    content: T

    def __str__(self) -> str:
        return f"{self.number}{''.join(f' {name}' for name in self.names[:1])} ({self.rows} rows)"


def chosen(parts: list[Part[T]], request: Request) -> T:
    """Return the content of the part that was asked for by name or number, else of the one that looks like a catalog.

    That is LDAC_OBJECTS (SExtractor), else the first with rows and a column of ids, else the one with the most rows.
    """
    if request.table_name is not None:
        wanted = str(request.table_name).strip()
        named = [part for part in parts if wanted.casefold() in {name.casefold() for name in part.names}]
        result = named or [part for part in parts if wanted == str(part.number)]
        if not result:
            raise SchemaError(f"no table '{wanted}'; there are: {', '.join(map(str, parts[:100]))}")
        return result[0].content
    ldac = [part for part in parts if CATALOG in part.names]
    with_ids = [part for part in parts if part.rows and any(map(is_id_name, part.columns))]
    best = (ldac or with_ids or [max(parts, key=lambda part: part.rows)])[0]
    if len(parts) > 1:
        others = [str(part) for part in parts if part is not best]
        told = ", ".join(others if len(others) <= TOLD else [*others[:TOLD], f"{len(others) - TOLD} more"])
        note = request.lacks if any(part.rows for part in parts if part is not best) else request.notes.append
        note(f"table {best} was read and not {told}; choose with table_name (--table-name)")
    return best.content
