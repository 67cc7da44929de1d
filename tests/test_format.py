"""The format: what another version may hold, and what becomes of every kind of damage.

One rule throughout: a clear FormatError or the right answer; never a crash, another error, or a wrong manifest.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import sqlite3
from pathlib import Path

import duckdb
import pytest
import tiny
from tiny_models import write_tiny_models

import galsearch
from galsearch import schema
from galsearch.errors import (
    FormatError,
    GalsearchError,
    ModelMismatchError,
    VersionTooNewError,
    VersionTooOldError,
)
from galsearch.store.read import admission
from galsearch.store.sql import sandbox

KEYS = ("format", "version", "title", "rows", "created", "software", "embeddings", "sources", "provenance")
WRONG_KINDS = [
    ("format", "galsearch.catalog"),
    ("title", 3),
    ("rows", "300"),
    ("rows", -1),
    ("rows", True),
    ("rows", 2.5),
    ("created", None),
    ("software", []),
    ("sources", {}),
    ("provenance", "build"),
    ("embeddings", []),
    ("embeddings", {"image": 16}),
    ("embeddings", {"image": {}}),
    ("embeddings", {"image": {"dim": "16", "rows": 300, "model": "m", "metric": "cosine"}}),
    ("embeddings", {"image; DROP TABLE x": {"dim": 16, "rows": 300, "model": "m", "metric": "cosine"}}),
]
NO_VERSIONS = ("1.0.0", [1, 0, 0], ["1", "x"], "one", "", "-1.0", None, {}, True, [True, 0])


def facts(path: Path) -> Path:
    """Return the DuckDB file of an atlas."""
    return path / "galaxies.duckdb" if path.is_dir() else path


def edit(path: Path, *statements: str) -> None:
    """Change an atlas behind galsearch's back."""
    with duckdb.connect(facts(path)) as connection:
        for statement in statements:
            connection.execute(statement)


def say(path: Path, key: str, value: object) -> None:
    """Let the manifest say something else."""
    with duckdb.connect(facts(path)) as connection:
        connection.execute("DELETE FROM galsearch_manifest WHERE key = $1", [key])
        connection.execute("INSERT INTO galsearch_manifest VALUES ($1, $2)", [key, json.dumps(value)])


# ---- versions


def test_the_version_is_the_one_that_the_document_describes():
    assert (schema.FORMAT, schema.FORMAT_VERSION) == ("galsearch.atlas", (1, 1))


@pytest.mark.parametrize("version", ["2.0", "17.3", [2, 0], 3])
def test_a_newer_major_version_is_refused_with_the_way_to_upgrade(atlas_path, version):
    say(atlas_path, "version", version)
    with pytest.raises(VersionTooNewError, match=r"format \d+(\.\d)? is newer .*pip install --upgrade"):
        galsearch.open(atlas_path)


def test_an_older_major_version_is_refused_with_the_way_to_rebuild(atlas_path):
    say(atlas_path, "version", "0.9")
    with pytest.raises(VersionTooOldError, match=r"format 0\.9 .*galsearch build"):
        galsearch.open(atlas_path)


def test_a_newer_major_version_is_refused_even_when_its_other_entries_are_strange(atlas_path):
    edit(atlas_path, "DELETE FROM galsearch_manifest WHERE key NOT IN ('format', 'version')")
    say(atlas_path, "version", "2.0")
    with pytest.raises(VersionTooNewError):
        galsearch.open(atlas_path)


def test_a_newer_minor_version_is_read_and_what_it_adds_is_kept(atlas_path, tmp_path):
    say(atlas_path, "version", "1.7")
    say(atlas_path, "colormap", {"name": "viridis"})
    edit(atlas_path, "CREATE TABLE spectra_of_tomorrow AS SELECT 1 AS a")
    with galsearch.open(atlas_path, device="cpu") as atlas:
        assert atlas.manifest.version == "1.7"
        assert atlas.manifest.extra["colormap"] == {"name": "viridis"}
        assert len(atlas.search("red", k=5)) == 5
    galsearch.bundle(atlas_path, tmp_path / "again.duckdb")
    with galsearch.open(tmp_path / "again.duckdb") as again:
        assert again.manifest.extra["colormap"] == {"name": "viridis"}
        assert again.sql("FROM spectra_of_tomorrow").num_rows == 1


def test_a_file_of_version_1_0_opens_answers_and_is_copied_as_such(atlas_path, tmp_path):
    with galsearch.open(atlas_path, device="cpu") as now:
        assert now.manifest.version == "1.1"
        assert now.manifest.measure_column("snr") == "snr"
        expected = now.search("red galaxy below redshift 0.1", k=5).table
    say(atlas_path, "version", "1.0")
    edit(atlas_path, "DELETE FROM galsearch_manifest WHERE key = 'measures'")
    galsearch.bundle(atlas_path, tmp_path / "again.duckdb")
    for path in (atlas_path, tmp_path / "again.duckdb"):
        with galsearch.open(path, device="cpu") as before:
            assert before.manifest.version == "1.0"
            assert "measures" not in before.manifest.extra
            assert before.manifest.measure_column("snr") == "snr"
            assert before.search("red galaxy below redshift 0.1", k=5).table.equals(expected)
            assert all(finding.ok for finding in before.check())


@pytest.mark.parametrize("version", NO_VERSIONS)
def test_a_version_that_is_none_is_damage(bundle_path, version):
    say(bundle_path, "version", version)
    with pytest.raises(FormatError, match="version"):
        galsearch.open(bundle_path)


# ---- the manifest


def test_every_entry_of_the_manifest_is_there(atlas):
    rows = dict(atlas.sql("SELECT key, value FROM galsearch_manifest").to_pydict().items())
    assert set(KEYS) <= set(rows["key"])
    assert set(KEYS) == set(schema.REQUIRED_KEYS)
    space = atlas.manifest.embeddings["image"]
    assert (space["dim"], space["rows"], space["metric"], space["model"]) == (16, 300, "cosine", "galimage-tiny-1")
    assert len(space["sha256"]) == 64


def test_provenance_grows_by_a_record_for_each_write(tiny_folder, tiny_bundle):
    with galsearch.open(tiny_folder) as folder, galsearch.open(tiny_bundle) as bundle:
        assert [record["action"] for record in folder.manifest.provenance] == ["build"]
        assert [record["action"] for record in bundle.manifest.provenance] == ["build", "bundle"]
        record = folder.manifest.provenance[0]
    assert {"time", "software", "parameters", "inputs", "environment", "seconds"} <= set(record)
    assert all(len(digest) == 64 for digest in record["inputs"].values())


@pytest.mark.parametrize("key", KEYS)
def test_each_entry_of_the_manifest_is_missed(atlas_path, key):
    edit(atlas_path, f"DELETE FROM galsearch_manifest WHERE key = '{key}'")
    with pytest.raises(FormatError, match=key):
        galsearch.open(atlas_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [*((key, "'{'") for key in KEYS), *(("title", bad) for bad in ("NULL", "''", "'nonsense'", "'{\"a\": 3'"))],
)
def test_each_entry_must_be_json(bundle_path, key, value):
    edit(bundle_path, f"UPDATE galsearch_manifest SET value = {value} WHERE key = '{key}'")
    with pytest.raises(FormatError, match=f"'{key}' is not valid JSON"):
        galsearch.open(bundle_path)


@pytest.mark.parametrize(("key", "value"), WRONG_KINDS)
def test_each_entry_must_be_of_its_kind(atlas_path, key, value):
    say(atlas_path, key, value)
    with pytest.raises(FormatError, match=key):
        galsearch.open(atlas_path)


def test_a_manifest_without_its_columns_is_damage(bundle_path):
    edit(bundle_path, "CREATE OR REPLACE TABLE galsearch_manifest AS SELECT 1 AS a")
    with pytest.raises(FormatError):
        galsearch.open(bundle_path)


# ---- tables


@pytest.mark.parametrize(
    "table", ["galsearch_manifest", "galsearch_columns", "galaxies", "embedding_image", "cells_image", "models"]
)
def test_each_table_of_a_bundle_is_missed(bundle_path, table):
    edit(bundle_path, f"DROP TABLE {table}")
    with pytest.raises(FormatError, match=table):
        galsearch.open(bundle_path)


@pytest.mark.parametrize("table", ["galsearch_manifest", "galsearch_columns", "galaxies", "rows_image"])
def test_each_table_of_a_folder_is_missed(folder_path, table):
    edit(folder_path, f"DROP TABLE {table}")
    with pytest.raises(FormatError, match=table):
        galsearch.open(folder_path)


def test_tables_that_may_be_absent_may_be_absent(bundle_path):
    edit(bundle_path, "DROP TABLE thumbnails", "DROP TABLE rejected")
    with galsearch.open(bundle_path, device="cpu") as atlas:
        assert atlas.search("red", k=3).thumbnails() == {}
        assert all(finding.ok for finding in atlas.check())


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE galaxies RENAME object_id TO id",
        "ALTER TABLE galaxies DROP dec",
        "ALTER TABLE galaxies RENAME ra TO right_ascension",
        "ALTER TABLE embedding_image RENAME embedding TO vector",
        "ALTER TABLE cells_image RENAME centroid TO center",
        "ALTER TABLE models RENAME onnx TO graph",
        "UPDATE embedding_image SET embedding = NULL",
    ],
)
def test_a_table_of_another_shape_is_damage_wherever_it_is_met(bundle_path, statement):
    edit(bundle_path, "DROP VIEW IF EXISTS nothing", statement)
    with pytest.raises(FormatError), galsearch.open(bundle_path, device="cpu") as atlas:
        atlas.search("red", k=3)
        atlas.search("red", k=3, probes=1)  # a small atlas asks its cells only when told to


@pytest.mark.parametrize("column", ["object_id", "ra", "dec"])
def test_an_atlas_without_a_column_that_every_one_has_is_refused_by_name(bundle_path, column):
    edit(bundle_path, "DROP VIEW IF EXISTS nothing", f"ALTER TABLE galaxies RENAME {column} TO other")
    with pytest.raises(FormatError, match=f"table galaxies has no column '{column}'"):
        galsearch.open(bundle_path, device="cpu")


def test_a_complaint_of_the_engine_that_is_no_text_is_damage(bundle_path, monkeypatch):
    class Connection:
        def execute(self, statement: str):
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

        def close(self) -> None:
            pass

    monkeypatch.setattr(sandbox.duckdb, "connect", lambda *_, **__: Connection())
    with pytest.raises(FormatError, match=r"tiny\.duckdb: cannot be read as a galsearch atlas"):
        galsearch.open(bundle_path, device="cpu")


@pytest.mark.parametrize("value", [None, 3, {}, {"image": 999}, {"image": "x"}, {"thumbnails": 1}])
def test_a_folder_must_name_the_lance_versions_that_belong_to_it(folder_path, value):
    say(folder_path, "lance_versions", value)
    with pytest.raises(FormatError, match="version"):
        galsearch.open(folder_path)


@pytest.mark.parametrize("part", ["vectors.lance", "vectors.lance/image.lance", "vectors.lance/image.lance/_versions"])
def test_a_folder_without_its_vectors_is_refused(folder_path, part):
    shutil.rmtree(folder_path / part)
    with pytest.raises(FormatError, match="image"):
        galsearch.open(folder_path)


def test_a_folder_without_its_graph_is_refused_when_it_is_needed(folder_path):
    (folder_path / "models" / "text" / "model.onnx").unlink()
    with galsearch.open(folder_path, device="cpu") as atlas:
        assert len(atlas.search(atlas[tiny.object_id(0)], k=2)) == 2
        with pytest.raises(FormatError, match=r"model\.onnx is missing"):
            atlas.search("red")


# ---- what is no atlas


@pytest.mark.parametrize("suffix", [".duckdb", ".atlas"])
def test_nothing_there_is_said(tmp_path, suffix):
    with pytest.raises(FormatError, match=f"nothing{suffix}.*no such file or folder"):
        galsearch.open(tmp_path / f"nothing{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "empty.duckdb").touch()
    with pytest.raises(FormatError, match="empty"):
        galsearch.open(tmp_path / "empty.duckdb")


@pytest.mark.parametrize("length", [1, 7, 12, 4096, 12_288, 300_000])
@pytest.mark.parametrize("kind", ["text", "noise", "zeros"])
def test_a_file_that_is_something_else_is_refused(tmp_path, kind, length):
    path = tmp_path / "other.duckdb"
    content = {"text": b"ra,dec,z\n" * length, "noise": random.Random(length).randbytes(length), "zeros": bytes(length)}
    path.write_bytes(content[kind][:length])
    with pytest.raises(FormatError, match=r"other\.duckdb"):
        galsearch.open(path)
    assert path.read_bytes() == content[kind][:length]


def test_another_database_is_no_atlas(tmp_path):
    with duckdb.connect(tmp_path / "other.duckdb") as connection:
        connection.execute("CREATE TABLE galaxies AS SELECT 1 AS object_id")
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE galaxies (object_id TEXT)")
    connection.close()
    with pytest.raises(FormatError, match="not an atlas"):
        galsearch.open(tmp_path / "other.duckdb")
    with pytest.raises(FormatError, match="not a valid DuckDB database"):  # and no extension is fetched for it
        galsearch.open(tmp_path / "other.sqlite")


def test_a_folder_without_facts_is_no_atlas(tmp_path):
    with pytest.raises(FormatError, match=r"no galaxies\.duckdb inside"):
        galsearch.open(tmp_path)
    (tmp_path / "galaxies.duckdb").mkdir()
    with pytest.raises(FormatError):
        galsearch.open(tmp_path)


# ---- damage


def outcome(path: Path) -> schema.Manifest | None:
    """Open, ask and close; return the manifest, or None where that is a FormatError."""
    try:
        with galsearch.open(path, device="cpu") as atlas:
            with contextlib.suppress(GalsearchError):
                atlas.search(tiny.random_units(1, 16, seed=0)[0], k=3)
            return atlas.manifest
    except FormatError as error:
        assert str(path) in str(error)
        return None


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_bundle_is_refused_or_found_by_check(bundle_path, share):
    data = bundle_path.read_bytes()
    bundle_path.write_bytes(data[: int(len(data) * share)])
    try:
        with galsearch.open(bundle_path, device="cpu") as atlas:
            assert not all(finding.ok for finding in atlas.check())
    except FormatError as error:
        assert "copy it again" in str(error)


@pytest.mark.parametrize("length", [1, 4095, 4096, 8192, 12_287, 12_288, 12_289])
def test_a_bundle_cut_in_its_header_is_refused(bundle_path, length):
    bundle_path.write_bytes(bundle_path.read_bytes()[:length])
    with pytest.raises(FormatError):
        galsearch.open(bundle_path)


@pytest.mark.slow
def test_a_flipped_byte_in_the_manifest_is_never_read_as_truth(bundle_path):
    data = bundle_path.read_bytes()
    good = outcome(bundle_path)
    assert good is not None
    words = (b"embeddings", b"galimage-tiny-1", b'"rows": 300')
    places = [found.start() + step for word in words for found in re.finditer(word, data) for step in (0, 5)]
    caught = 0
    for place in places:
        bundle_path.write_bytes(data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :])
        found = outcome(bundle_path)
        assert found in (None, good)
        caught += found is None
    assert caught >= 2  # the words stand in other tables too, which are read when needed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_a_flipped_byte_anywhere_is_a_format_error_or_harmless(bundle_path, seed):
    data, good, rng = bundle_path.read_bytes(), outcome(bundle_path), random.Random(seed)
    for place in [rng.randrange(12_288) for _ in range(6)] + [rng.randrange(len(data)) for _ in range(6)]:
        bundle_path.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :])
        assert outcome(bundle_path) in (None, good)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_a_flipped_byte_in_a_folder_is_a_galsearch_error_or_harmless(folder_path, seed):
    rng = random.Random(seed)
    for file in sorted(item for item in folder_path.rglob("*") if item.is_file()):
        data = file.read_bytes()
        place = rng.randrange(len(data))
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :])
        with contextlib.suppress(GalsearchError), galsearch.open(folder_path, device="cpu") as atlas:
            atlas.search("red", k=3).thumbnails()
        file.write_bytes(data)
    assert outcome(folder_path) is not None


@pytest.mark.parametrize("part", ["image", "thumbnails"])
def test_a_lance_file_that_is_gone_is_a_format_error_when_it_is_needed(folder_path, part):
    next((folder_path / "vectors.lance" / f"{part}.lance" / "data").glob("*.lance")).unlink()
    with galsearch.open(folder_path, device="cpu") as atlas, pytest.raises(FormatError, match=f"{part}.lance"):
        atlas.search("red", where="z < 0.1", k=3).thumbnails()


# ---- models


def with_models(path: Path, models: Path) -> None:
    """Give a bundle the models of another folder."""
    with duckdb.connect(path) as connection:
        connection.execute("DELETE FROM models")
        for folder in sorted(models.iterdir()):
            card = json.loads((folder / "card.json").read_text())
            tokenizer = folder / "tokenizer.json"
            words = tokenizer.read_bytes() if tokenizer.exists() else None
            row = [card["kind"], json.dumps(card), (folder / "model.onnx").read_bytes(), words]
            connection.execute("INSERT INTO models VALUES ($1, $2, $3, $4)", row)


def test_a_bundle_with_the_models_of_another_space_is_refused(bundle_path, tmp_path, tiny_source):
    write_tiny_models(tmp_path / "others", seed=1, names="other")
    with_models(bundle_path, tmp_path / "others")
    with galsearch.open(bundle_path, device="cpu") as atlas:
        with pytest.raises(ModelMismatchError, match="galtext-other-1"):
            atlas.search("red")
        with pytest.raises(ModelMismatchError, match="galimage-other-1"):
            atlas.search(tiny_source[0] / f"{tiny.object_id(0)}.png")
        with pytest.raises(ModelMismatchError):
            atlas.sql("FROM nearest(embed('red'))")
        assert len(atlas.search(atlas[tiny.object_id(0)], k=3)) == 3
        assert {finding.name for finding in atlas.check() if not finding.ok} == {"model text", "model image"}


@pytest.mark.slow
def test_a_bundle_without_models_answers_all_but_words(tiny_folder, tmp_path, monkeypatch):
    path = galsearch.bundle(tiny_folder, tmp_path / "bare.duckdb", models=False)
    with galsearch.open(path, device="cpu") as atlas:
        assert atlas.models() == {}
        assert len(atlas.search(atlas[tiny.object_id(0)], k=3)) == 3
        assert atlas.sql("FROM nearest(concept('edge-on galaxy'), k := 5)").num_rows == 5
        assert all(finding.ok for finding in atlas.check())
        with pytest.raises(GalsearchError):  # no model of this space is installed
            atlas.search("red")


def test_a_bundle_without_models_is_asked_in_words_where_the_same_are_installed(
    tiny_folder, tiny_models, tmp_path, monkeypatch
):
    from galsearch import atlas as module
    from galsearch.encode import shipped

    monkeypatch.setattr(module, "shipped", lambda kind: shipped(kind, root=tiny_models))
    path = galsearch.bundle(tiny_folder, tmp_path / "bare.duckdb", models=False)
    with galsearch.open(path, device="cpu") as bare, galsearch.open(tiny_folder, device="cpu") as whole:
        assert bare.search("red ring", k=9).ids == whole.search("red ring", k=9).ids


def test_every_column_that_is_read_has_the_type_that_it_must_have():
    expected = admission._expected({"image": {"dim": 4}, "other": {"dim": 7}})
    kinds = {(table, column): kind for table, column, kind in expected}
    assert kinds["galaxies", "object_id"] == ("VARCHAR",)
    assert kinds["captions", "caption"] == ("VARCHAR",)
    assert (kinds["embedding_image", "embedding"], kinds["embedding_other", "embedding"]) == (
        ("FLOAT[4]",),
        ("FLOAT[7]",),
    )
    assert kinds["rows_other", "row"] == ("BIGINT",)
    named = {table.format(name=name) for table in schema.TABLES for name in ("image", "other")}
    assert named <= {table for table, _ in kinds}
