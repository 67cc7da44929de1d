"""The schema: units that astropy knows, one meaning a name, and a manifest that comes back as it was written."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import astropy.units as u
import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_format import KEYS, NO_VERSIONS, WRONG_KINDS

from galsearch import schema
from galsearch.errors import FormatError

SPACE = {"dim": 16, "model": "m-1", "sha256": "0" * 64, "space": "s", "metric": "cosine", "rows": 3}
EVERY = [
    *schema.GALAXIES.values(),
    *schema.LINE_MEASURES.values(),
    schema.SCORE,
    *(c for columns in schema.TABLES.values() for c in columns),
]


def manifest(**changes) -> schema.Manifest:
    return replace(schema.Manifest(title="t", rows=3, embeddings={"image": SPACE}), **changes)


@pytest.mark.parametrize("column", EVERY, ids=lambda column: column.name)
def test_every_column_has_a_known_unit_and_a_meaning(column):
    assert u.Unit(column.unit, format="vounit") is not None
    assert re.fullmatch(r"[a-z]+(\.[a-zA-Z]+)*(;[a-z]+(\.[a-zA-Z]+)*)*", column.ucd)
    assert len(column.description.split()) >= 1
    assert not column.description.endswith(".")


def test_names_say_their_unit_unless_it_goes_without_saying():
    for column in schema.GALAXIES.values():
        suffix = {"pixel": "_px", "arcsec": "_arcsec"}.get(column.unit, "")
        assert column.name.endswith(suffix)


@pytest.mark.parametrize("name", schema.GALAXIES)
def test_arrow_fields_carry_unit_ucd_and_meaning(name):
    field = schema.arrow_field(name)
    column = schema.GALAXIES[name]
    assert field.metadata == {
        b"unit": column.unit.encode(),
        b"ucd": column.ucd.encode(),
        b"description": column.description.encode(),
    }
    with duckdb.connect() as connection:
        connection.register("t", pa.table([pa.nulls(1, field.type)], schema=pa.schema([field])))
        assert str(connection.sql(f'SELECT "{name}" FROM t').types[0]) == column.type


def test_every_table_of_every_embedding_is_described():
    rows = schema.table_columns(["image", "spectrum"])
    assert {"embedding_image", "cells_spectrum", "galsearch_manifest", "models"} <= {row[0] for row in rows}
    assert not any("{" in row[0] for row in rows)
    assert len({row[:2] for row in rows}) == len(rows)


text = st.text(max_size=20)
extras = st.dictionaries(st.text("abc_", min_size=9, max_size=12), st.none() | st.integers() | text, max_size=3)


@given(title=text, rows=st.integers(0, 10**12), sources=st.lists(st.dictionaries(text, text), max_size=2), extra=extras)
def test_a_manifest_comes_back_as_it_was_written(title, rows, sources, extra):
    written = manifest(title=title, rows=rows, sources=sources, extra=extra)
    assert schema.Manifest.from_rows(written.to_rows(), path="x") == written


def test_a_damaged_entry_is_named_with_the_atlas():
    rows = dict(manifest().to_rows())
    with pytest.raises(FormatError, match=r"here\.duckdb: manifest entry 'title' is not valid JSON"):
        schema.Manifest.from_rows(list({**rows, "title": "{"}.items()), path="here.duckdb")


@pytest.mark.parametrize(("key", "value"), [*WRONG_KINDS, *(("version", value) for value in NO_VERSIONS)])
def test_an_entry_of_another_kind_is_damage(key, value):
    """The same as in test_format.py without a file, where the fast tests try a few only."""
    rows = {**dict(manifest().to_rows()), key: json.dumps(value)}
    with pytest.raises(FormatError, match=key):
        schema.Manifest.from_rows(list(rows.items()), path="x")


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_that_is_missing_or_no_json_is_damage(key):
    rows = dict(manifest().to_rows())
    for changed in ({name: value for name, value in rows.items() if name != key}, {**rows, key: "{"}):
        with pytest.raises(FormatError, match=key):
            schema.Manifest.from_rows(list(changed.items()), path="x")


@pytest.mark.parametrize("name", ["Image", "image space", "x;y", "", "1st", "a" * 40])
def test_an_embedding_needs_a_name_that_can_be_part_of_a_table_name(name):
    with pytest.raises(FormatError, match="embedding"):
        schema.Manifest.from_rows(manifest(embeddings={name: SPACE}).to_rows(), path="x")


@pytest.mark.parametrize("key", ["sha256", "space", "words", "model"])
def test_what_is_said_of_an_embedding_is_text(key):
    with pytest.raises(FormatError, match=rf"embeddings\.image\.{key}' is 5"):
        schema.Manifest.from_rows(manifest(embeddings={"image": {**SPACE, key: 5}}).to_rows(), path="x")


def test_provenance_says_what_when_and_with_which_versions():
    record = schema.provenance("build", parameters={"seed": 3}, inputs={"a.csv": "0" * 64}, seconds=1.23456)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["time"])
    assert record["software"].startswith("galsearch ")
    assert record["parameters"] == {"seed": 3}
    assert record["seconds"] == 1.235
    assert {"python", "system", "duckdb", "numpy"} <= set(record["environment"])


def test_a_finding_says_the_good_or_the_bad_and_the_remedy_only_then():
    good = schema.Finding.of("rows", "all there", "some gone", "rebuild", ok=True)
    bad = schema.Finding.of("rows", "all there", "some gone", "rebuild", ok=False)
    assert (good.ok, good.message, good.remedy) == (True, "all there", "")
    assert (bad.ok, bad.message, bad.remedy) == (False, "some gone", "rebuild")
