"""TAP_SCHEMA: the tables, columns and keys of an atlas as tables, and as the document of VOSI."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pyarrow as pa

from galsearch import formats
from galsearch.adql.translate import GALAXIES, KEY, SCHEMA
from galsearch.service.vo.votable import attribute, xml_text

TAP_SCHEMA = "tap_schema"
_TYPES = {
    "BOOLEAN": "boolean", "UTINYINT": "unsignedByte", "TINYINT": "short", "SMALLINT": "short", "USMALLINT": "int",
    "INTEGER": "int", "UINTEGER": "long", "BIGINT": "long", "UBIGINT": "long", "HUGEINT": "double", "FLOAT": "float",
    "DOUBLE": "double",
}  # fmt: skip
_VECTOR = re.compile(r"(\w+)\[(\d+)\]")
PRINCIPAL = ("object_id", "ra", "dec", "z", "mag_r")
TABLES = {
    "galaxies": "One row for each galaxy",
    "captions": "What was written of galaxies",
    "labels": "Labels of galaxies",
    "lines": "Lines of spectra",
    "spectra": "Spectra on a grid of log wavelength",
    "rejected": "Rows that were not taken into the atlas, with the reason",
    "anomalies": "Kept lists of odd objects",
    "duplicates": "Groups of objects that are one",
    "identifications": "What catalogs know of objects",
    "evaluations": "How well searches did",
    "knowledge_bases": "Knowledge bases",
    "knowledge_labels": "Members of knowledge bases",
}
OWN = {  # of TAP_SCHEMA itself: (column, type, description) by table
    "schemas": (
        ("schema_name", "VARCHAR", "Name of the schema"),
        ("utype", "VARCHAR", "Its utype"),
        ("description", "VARCHAR", "What it holds"),
        ("schema_index", "INTEGER", "Its rank"),
    ),
    "tables": (
        ("schema_name", "VARCHAR", "Schema"),
        ("table_name", "VARCHAR", "Name in queries"),
        ("table_type", "VARCHAR", "table or view"),
        ("utype", "VARCHAR", "Its utype"),
        ("description", "VARCHAR", "What it holds"),
        ("table_index", "INTEGER", "Its rank"),
    ),
    "columns": (
        ("table_name", "VARCHAR", "Table"),
        ("column_name", "VARCHAR", "Name in queries"),
        ("datatype", "VARCHAR", "Type as in VOTable"),
        ("arraysize", "VARCHAR", "Shape as in VOTable"),
        ("xtype", "VARCHAR", "Extended type"),
        ('"size"', "INTEGER", "Length; deprecated"),
        ("description", "VARCHAR", "Meaning in a sentence"),
        ("utype", "VARCHAR", "Its utype"),
        ("unit", "VARCHAR", "VOUnit"),
        ("ucd", "VARCHAR", "UCD1+"),
        ("indexed", "INTEGER", "1 where an index makes it quick"),
        ("principal", "INTEGER", "1 for the most important ones"),
        ("std", "INTEGER", "1 where a standard defines it"),
        ("column_index", "INTEGER", "Its rank"),
    ),
    "keys": (
        ("key_id", "VARCHAR", "Name of the key"),
        ("from_table", "VARCHAR", "Table that refers"),
        ("target_table", "VARCHAR", "Table that is referred to"),
        ("description", "VARCHAR", "Meaning"),
        ("utype", "VARCHAR", "Its utype"),
    ),
    "key_columns": (
        ("key_id", "VARCHAR", "Name of the key"),
        ("from_column", "VARCHAR", "Column that refers"),
        ("target_column", "VARCHAR", "Column that is referred to"),
    ),
}
OWN_KEYS = (
    ("tables", "schema_name", "schemas", "schema_name"),
    ("columns", "table_name", "tables", "table_name"),
    ("keys", "from_table", "tables", "table_name"),
    ("keys", "target_table", "tables", "table_name"),
    ("key_columns", "key_id", "keys", "key_id"),
)
_ARROW = {"VARCHAR": pa.string(), "INTEGER": pa.int32()}


class Column(NamedTuple):
    """A column as TAP_SCHEMA has it; `table` is the full name."""

    table: str
    name: str
    datatype: str
    arraysize: str | None
    unit: str
    ucd: str
    description: str
    std: bool


def columns_of(published: pa.Table) -> list[Column]:
    """Return the columns of an atlas and of TAP_SCHEMA itself."""
    result = []
    for row in published.to_pylist():
        datatype, arraysize = vo_type(row["type"])
        about = (row["unit"], row["ucd"], row["description"])
        result.append(Column(f"{SCHEMA}.{row['table']}", row["column"], datatype, arraysize, *about, False))
    for table, columns in OWN.items():
        for name, kind, description in columns:
            datatype, arraysize = vo_type(kind)
            result.append(Column(f"{TAP_SCHEMA}.{table}", name, datatype, arraysize, "", "", description, True))
    return result


def vo_type(kind: str) -> tuple[str, str | None]:
    """Return datatype and arraysize of a type of DuckDB as answers have them; what VOTable lacks is text."""
    vector = _VECTOR.fullmatch(kind)
    if vector and vector[1] in _TYPES:
        return _TYPES[vector[1]], vector[2]
    if kind.startswith("DECIMAL"):
        return "double", None
    return (_TYPES[kind], None) if kind in _TYPES else ("char", "*")


def keys_of(columns: list[Column]) -> list[tuple[str, str, str, str]]:
    """Return the keys: (table, column) that refers, (table, column) that is referred to."""
    main = f"{SCHEMA}.{GALAXIES}"
    about = [one.table for one in columns if one.name == KEY and one.table.startswith(f"{SCHEMA}.")]
    return [(name, KEY, main, KEY) for name in about if name != main] + [
        (f"{TAP_SCHEMA}.{table}", column, f"{TAP_SCHEMA}.{target}", other) for table, column, target, other in OWN_KEYS
    ]


def tables(published: pa.Table) -> dict[str, pa.Table]:
    """Return the tables of TAP_SCHEMA by their full names."""
    columns = columns_of(published)
    names = list(dict.fromkeys(column.table for column in columns))
    keys = keys_of(columns)
    rows: dict[str, list[tuple]] = {
        "schemas": [
            (SCHEMA, None, "The tables of the atlas", 0),
            (TAP_SCHEMA, None, "What tables and columns there are", 1),
        ],
        "tables": [
            (name.partition(".")[0], name, "table", None, _about(name), index) for index, name in enumerate(names)
        ],
        "columns": [_row(column, index) for index, column in enumerate(columns)],
        "keys": [(f"key{number}", table, target, None, None) for number, (table, _, target, _) in enumerate(keys)],
        "key_columns": [(f"key{number}", column, other) for number, (_, column, _, other) in enumerate(keys)],
    }
    return {f"{TAP_SCHEMA}.{name}": _table(name, each) for name, each in rows.items()}


def _row(column: Column, index: int) -> tuple[Any, ...]:
    plain = column.table == f"{SCHEMA}.{GALAXIES}"
    principal = int(column.name in PRINCIPAL or not plain)
    indexed = int(_is_indexed(column))
    about = (column.description or None, None, column.unit or None, column.ucd or None)
    return (column.table, column.name, column.datatype, column.arraysize, None, None, *about, indexed, principal,
            int(column.std), index)  # fmt: skip


def _is_indexed(column: Column) -> bool:
    return column.table == f"{SCHEMA}.{GALAXIES}" and column.name in (KEY, "dec")


def _table(name: str, rows: list[tuple]) -> pa.Table:
    fields = [
        formats.describe(pa.field(one.strip('"'), _ARROW[kind]), description=text) for one, kind, text in OWN[name]
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


def _about(name: str) -> str:
    group, _, table = name.partition(".")
    if group == TAP_SCHEMA:
        return f"The {table.replace('_', ' ')} of this service"
    return TABLES.get(table, "Places of objects in a plane" if table.startswith("map_") else "Rows about objects")


def document_of_esa(published: pa.Table) -> bytes:
    """Return the tables with the flags of ESA's archives, without which astroquery reads no column."""
    told = document(published).replace(b"<column", b'<column esatapplus:flags="0"')
    return told.replace(b"<vosi:tableset", b'<vosi:tableset xmlns:esatapplus="http://esa.int/xml/EsaTapPlus"', 1)


def document(published: pa.Table) -> bytes:
    """Return the tables as VOSI has them."""
    by_table: dict[str, list[Column]] = {}
    columns = columns_of(published)
    keys = keys_of(columns)
    for column in columns:
        by_table.setdefault(column.table, []).append(column)
    parts = []
    for group, about in ((SCHEMA, "The tables of the atlas"), (TAP_SCHEMA, "What tables and columns there are")):
        inside = "".join(
            _table_xml(name, each, keys) for name, each in by_table.items() if name.startswith(f"{group}.")
        )
        parts.append(f"<schema><name>{group}</name><description>{about}</description>{inside}</schema>")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" '
        'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"{''.join(parts)}</vosi:tableset>\n"
    ).encode()


def _table_xml(name: str, columns: list[Column], keys: list[tuple[str, str, str, str]]) -> str:
    inside = "".join(map(_column_xml, columns))
    for table, column, target, other in keys:
        if table == name:
            pair = f"<fromColumn>{column}</fromColumn><targetColumn>{other}</targetColumn>"
            inside += f"<foreignKey><targetTable>{target}</targetTable><fkColumn>{pair}</fkColumn></foreignKey>"
    about = xml_text(_about(name))
    return f'<table type="table"><name>{xml_text(name)}</name><description>{about}</description>{inside}</table>'


def _column_xml(column: Column) -> str:
    size = f" arraysize={attribute(column.arraysize)}" if column.arraysize else ""
    facts = "".join(
        f"<{tag}>{xml_text(text)}</{tag}>"
        for tag, text in (("description", column.description), ("unit", column.unit), ("ucd", column.ucd))
        if text
    )
    kind = f'<dataType xsi:type="vs:VOTableType"{size}>{column.datatype}</dataType>'
    std = ' std="true"' if column.std else ""
    flag = "<flag>indexed</flag>" if _is_indexed(column) else ""
    return f"<column{std}><name>{xml_text(column.name)}</name>{facts}{kind}{flag}</column>"
