"""What `galsearch check` finds in the tables of results: rows of nothing, wrong lengths, counts and digests."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest
from test_knowledge import SHAPE

import galsearch


@pytest.fixture(scope="module")
def judged(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a saved list of each kind and a probe; never change it."""
    home = tmp_path_factory.mktemp("results")
    folder = Path(shutil.copytree(tiny_folder, home / "a.atlas"))
    galsearch.create_base(folder, "shapes", f"SELECT object_id, {SHAPE} AS shape FROM galaxies")
    galsearch.train_probe(folder, "shapes")
    with galsearch.open(folder) as atlas:
        galsearch.save_anomalies(atlas.anomalies(5, detectors=["knn"]))
        galsearch.save_duplicates(atlas.duplicates())
        rows = atlas.sql("SELECT object_id, ra, dec FROM galaxies WHERE ra IS NOT NULL ORDER BY object_id LIMIT 5")
        galsearch.save_identifications(atlas.identify(against=galsearch.Against(rows, name="known")))
    return galsearch.bundle(folder, home / "a.duckdb")


def found(path: Path) -> dict[str, str]:
    with galsearch.open(path) as atlas:
        return {one.name: one.message for one in atlas.check() if not one.ok}


@pytest.mark.slow
def test_results_as_they_are_saved_are_in_order(judged):
    with galsearch.open(judged) as atlas:
        findings = {one.name: one for one in atlas.check()}
    for table in ("anomalies", "duplicates", "picture_hashes", "identifications", "probes", "knowledge bases"):
        assert findings[table].ok, findings[table]


CHANGED = [
    (
        "anomalies",
        "UPDATE anomalies SET object_id = 'nobody' WHERE p_value = (SELECT min(p_value) FROM anomalies)",
        "not in galaxies",
    ),
    ("anomalies", "UPDATE anomalies SET p_value = 0", "300 p-values"),
    ("anomalies", "UPDATE anomalies SET embedding = 'radio'", "300 embeddings"),
    ("anomalies", "INSERT INTO anomalies SELECT * FROM anomalies LIMIT 2", "2 rows of one run and object_id"),
    ("duplicates", "UPDATE duplicates SET object_id = 'nobody' WHERE NOT is_kept", "not in galaxies"),
    ("duplicates", "DELETE FROM duplicates WHERE is_kept", "groups without"),
    ("duplicates", "UPDATE duplicates SET is_kept = true", "groups without"),
    ("duplicates", "UPDATE duplicates SET linked_to = object_id WHERE NOT is_kept", "links to no member"),
    ("duplicates", "UPDATE duplicates SET confidence = 1.5", "confidences"),
    ("picture_hashes", "UPDATE picture_hashes SET hash = hash[1:70]", "300 hashes of another length"),
    (
        "picture_hashes",
        "UPDATE picture_hashes SET object_id = 'x' || object_id",
        "300 objects that are not in galaxies",
    ),
    ("identifications", "UPDATE identifications SET state = 'new'", "states that are none"),
    ("identifications", "UPDATE identifications SET state = 'not found' WHERE matches > 0", "states that differ"),
    ("identifications", "UPDATE identifications SET false_probability = 2 WHERE matches > 0", "probabilities"),
    ("identifications", "UPDATE identifications SET object_id = NULL", "not in galaxies"),
    ("probes", "UPDATE probes SET model_sha256 = repeat('0', 64)", "another embedding, model or length"),
    ("probes", "UPDATE probes SET weights = weights[1:len(weights) - 4]", "another embedding, model or length"),
    ("probes", "UPDATE probes SET embedding = 'radio'", "another embedding, model or length"),
    ("probes", "UPDATE probes SET tested = tested + 1", "do not fit their classes"),
    (
        "probes",
        "UPDATE probes SET intercept = ['nan'::DOUBLE FOR x IN intercept]",
        "do not fit their classes",
    ),
    ("probes", "UPDATE probes SET classes = ['a']", "do not fit their classes"),
    ("probes", "UPDATE probes SET base = 'gone'", "1 probes of no base"),
    ("probes", "INSERT INTO probes SELECT * FROM probes", "1 rows of one base and probe"),
    ("knowledge bases", "UPDATE knowledge_bases SET embedding = 'radio'", "shapes"),
    ("knowledge bases", "UPDATE knowledge_labels SET object_id = 'x' || object_id", "shapes"),
]


@pytest.mark.parametrize(("table", "statement", "message"), CHANGED)
def test_a_changed_table_of_results_is_a_finding(judged, tmp_path, table, statement, message):
    path = Path(shutil.copy(judged, tmp_path / "a.duckdb"))
    with duckdb.connect(str(path)) as connection:
        connection.execute(statement)
    assert message in found(path).get(table, "nothing")


def test_the_length_of_a_hash_is_that_of_the_method_that_makes_it():
    from galsearch import schema
    from galsearch.science import fingerprints

    assert schema.HASH_BYTES[fingerprints.METHOD] == fingerprints.HASH_BYTES


def test_a_part_of_an_atlas_with_results_is_in_order(judged, tmp_path):
    with galsearch.open(judged) as atlas:
        atlas.search(k=50).bundle(tmp_path / "part.duckdb")
    assert found(tmp_path / "part.duckdb") == {}
