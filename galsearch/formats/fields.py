"""What the fields of a table say: unit, UCD, description; names that no other column has; notes of a reading."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from astropy.units import UnitBase

FIELD_KEYS = ("unit", "ucd", "description")
VO_KEYS = ("xtype", "utype")  # what VOTable alone says of a column
NOTES_KEY = b"galsearch.notes"
ASTROPY_KEY = b"table_meta_yaml"  # in Parquet by astropy
VOPARQUET_KEY = b"IVOA.VOTable-Parquet.content"
UNIT_LENGTH = 200  # what is longer is no unit, and parsing it may take for ever


def notes_of(table: pa.Table) -> list[str]:
    """Return what `read_table` noted of a table, one sentence each; [] for any other table.

    They are metadata of the schema: `select`, `take`, `slice`, `set_column` and `append_column` keep them,
    `pa.table(columns)` does not.

        >>> notes_of(with_notes(pa.table({"z": [0.1]}), ["the second of 2 tables was read"]))
        ['the second of 2 tables was read']
    """
    return json.loads((table.schema.metadata or {}).get(NOTES_KEY, b"[]"))


def with_notes(table: pa.Table, notes: Iterable[str]) -> pa.Table:
    """Return the table with more notes after those it has."""
    metadata = dict(table.schema.metadata or {})
    if result := [*notes_of(table), *notes]:
        metadata[NOTES_KEY] = json.dumps(result).encode()
    return table.replace_schema_metadata(metadata or None)


def free_names(names: Collection[str], taken: Collection[str] = (), *, suffix: str) -> list[str]:
    """Return a name for each of `names`, no two alike nor like one of `taken`, where upper and lower case are one.

    The first to come keeps its name; another gets the suffix, and a number where that is there as well.

        >>> free_names(["z", "Z", "ra"], ["RA"], suffix="_also")
        ['z', 'Z_also', 'ra_also']
    """
    used = {name.casefold() for name in taken}
    later, result = {name.casefold() for name in names}, []
    for name in names:
        new, count = name, 1
        while new.casefold() in (used if new == name else used | later):
            new, count = f"{name}{suffix}{count if count > 1 else ''}", count + 1
        used.add(new.casefold())
        result.append(new)
    return result


def describe(
    field: pa.Field, *, unit: str | None = None, ucd: str | None = None, description: str | None = None
) -> pa.Field:
    """Return the field with these facts as its metadata; empty ones are left out."""
    given = {"unit": unit, "ucd": ucd, "description": description}
    facts = {key.encode(): value.encode() for key, value in given.items() if value}
    return field.with_metadata(facts or None)


def with_vo_facts(field: pa.Field, **facts: str) -> pa.Field:
    """Return the field with what VOTable says beside unit and UCD: `xtype`, such as "timestamp", and `utype`."""
    told = {name.encode(): text.encode() for name, text in facts.items() if text and name in VO_KEYS}
    return field.with_metadata({**(field.metadata or {}), **told}) if told else field


def vo_facts_of(field: pa.Field) -> dict[str, str]:
    """Return xtype and utype of a field, "" for none."""
    metadata = field.metadata or {}
    return {name: metadata.get(name.encode(), b"").decode() for name in VO_KEYS}


def facts_of(field: pa.Field) -> dict[str, str]:
    """Return `unit`, `ucd` and `description` of a field, each "" where it has none."""
    metadata = field.metadata or {}
    return {key: metadata.get(key.encode(), b"").decode() for key in FIELD_KEYS}


@cache
def unit_of(text: str) -> UnitBase | None:
    """Return the unit that VOUnit or, failing that, astropy's own notation names."""
    from astropy import units

    with quiet():
        known = units.Unit(text, format="vounit", parse_strict="silent")
        result = units.Unit(text, parse_strict="silent") if isinstance(known, units.UnrecognizedUnit) else known
    return result if text else None


@cache
def spelled(text: str, notation: str) -> str:
    """Return a unit in another notation ("vounit", "fits"), or as it is where that or astropy does not know it."""
    if not text or len(text) > UNIT_LENGTH:
        return text[:UNIT_LENGTH]
    try:
        with quiet():
            unit = unit_of(text)
            return text if unit is None else unit.to_string(notation)
    except (ValueError, TypeError, ArithmeticError, RecursionError):  # what its parser raises on what is no unit
        return text


@contextmanager
def quiet(*foreign: type[Exception]) -> Iterator[None]:
    """Silence astropy's warnings on units and headers that are off standard but readable.

    Errors of the `foreign` types, astropy's own that derive from no ordinary one, become ValueErrors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except foreign as error:
            raise ValueError(str(error)) from error


def plain_types(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return text as `string`, a dictionary as its values, and times without the nanoseconds Python lacks."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain_types(values.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        kind = pa.string()  # nulls only: text, which every comparison in SQL takes
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", kind.tz)
    return values.cast(kind, safe=False)
