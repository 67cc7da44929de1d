"""VOTables as protocols want them: where an answer ends before its end, errors, old names of UCDs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa

from galsearch import formats

MEDIA = "application/x-votable+xml"
OLD_UCDS = {"object_id": "ID_MAIN", "ra": "POS_EQ_RA_MAIN", "dec": "POS_EQ_DEC_MAIN"}
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32)], " ")
_HEAD = "<?xml version='1.0' encoding='UTF-8'?>\n"
_ROOT = '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'


def document(table: pa.Table, meta: dict[str, Any], *, overflow: bool = False) -> bytes:
    """Return a table as VOTable; of one that was cut short its end says so."""
    content = formats.table_bytes(table, ".vot", meta=meta)
    if not overflow:
        return content
    head, end, tail = content.rpartition(b"</RESOURCE>")
    return head + b'<INFO name="QUERY_STATUS" value="OVERFLOW"/>\n' + end + tail


def table(
    columns: Iterable[tuple[str, pa.DataType, str, str, str]], rows: Sequence[dict[str, Any]], *, model: str
) -> pa.Table:
    """Return rows as a table with these columns: name, type, unit, UCD, and utype in a data model such as "ssa"."""
    fields, arrays = [], []
    for name, kind, unit, ucd, utype in columns:
        field = formats.describe(pa.field(name, kind), unit=unit, ucd=ucd)
        fields.append(formats.with_vo_facts(field, utype=f"{model}:{utype}"))
        arrays.append(pa.array([row.get(name) for row in rows], kind))
    return pa.table(arrays, schema=pa.schema(fields))


def error(message: str) -> bytes:
    """Return the VOTable of an error."""
    text = xml_text(message)
    info = f'<INFO name="QUERY_STATUS" value="ERROR">{text}</INFO>'
    return f'{_HEAD}{_ROOT}\n<RESOURCE type="results">\n{info}\n</RESOURCE>\n</VOTABLE>\n'.encode()


def cone_error(message: str) -> bytes:
    """Return the VOTable of an error of a cone search, as version 1.03 has it."""
    info = f'<INFO ID="Error" name="Error" value={attribute(message)}/>'
    return f'{_HEAD}{_ROOT}\n{info}\n<RESOURCE type="results"></RESOURCE>\n</VOTABLE>\n'.encode()


def xml_text(text: str) -> str:
    """Return text as XML holds it."""
    return escape(text.translate(_CONTROL).encode(errors="replace").decode())


def attribute(text: str) -> str:
    """Return text as the quoted value of an attribute."""
    return quoteattr(text.translate(_CONTROL).encode(errors="replace").decode())


def with_ucds(table: pa.Table, ucds: dict[str, str]) -> pa.Table:
    """Return the table with other UCDs for some columns."""
    fields = []
    for field in table.schema:
        facts = formats.facts_of(field)
        facts["ucd"] = ucds.get(field.name, facts["ucd"])
        fields.append(formats.describe(field, **facts))
    return table.cast(pa.schema(fields))
