"""Words for spectra: a projector takes what the text encoder gives into the space of spectra, in every form."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image
from tiny_models import picture, write_tiny_models
from tiny_spectra import OBJECTS, WORDS, write_models, write_spectra, write_tiny_words
from typer.testing import CliRunner

import galsearch
from galsearch import FormatError, ModelMismatchError, QueryError
from galsearch.cli.program import app
from galsearch.encode import Encoder, shipped, shipped_words
from galsearch.query_code import as_command, as_sql

KINDS = {"red": "old", "blue": "lines", "green": "quasar"}  # words, and how the ids of what they mean begin


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_tiny_words(folder)
    return folder


@pytest.fixture(scope="module")
def spectra(tmp_path_factory) -> Path:
    return write_spectra(tmp_path_factory.mktemp("spectra"), OBJECTS)


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cutouts")
    for name, color in {"quasar": "red", "old-near": "blue", "lines-far": "green"}.items():
        Image.fromarray(picture(color=color)).resize((24, 24)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, models, spectra) -> Path:
    path = tmp_path_factory.mktemp("alone") / "s.atlas"
    galsearch.build(path, spectra=spectra, models=models)
    galsearch.bundle(path, path.with_name("s.duckdb"))
    return path


@pytest.fixture(scope="module")
def both(tmp_path_factory, models, spectra, cutouts) -> Path:
    path = tmp_path_factory.mktemp("both") / "b.atlas"
    galsearch.build(path, images=cutouts, spectra=spectra, models=models)
    galsearch.bundle(path, path.with_name("b.duckdb"))
    return path


def forms(path: Path) -> list[Path]:
    return [path, path.with_suffix(".duckdb")]


@pytest.mark.parametrize("form", [0, 1])
def test_words_rank_the_spectra_that_they_mean_first(alone, form):
    with galsearch.open(forms(alone)[form], device="cpu") as atlas:
        for words, begins in KINDS.items():
            hits = atlas.search(words, k=5)
            count = sum(name.startswith(begins) for name in OBJECTS)
            assert all(name.startswith(begins) for name in hits.ids[:count])
        assert atlas.manifest.phrases_of("spectrum") == "concepts"
        assert all(finding.ok for finding in atlas.check())


@pytest.mark.parametrize("form", [0, 1])
def test_beside_pictures_words_mean_pictures_unless_by_says_spectra(both, form):
    with galsearch.open(forms(both)[form], device="cpu") as atlas:
        assert atlas.search("red", k=1).ids == ["quasar"]  # its picture is red
        assert atlas.search("red", by="spectrum", k=2).ids[0].startswith("old")
        assert atlas.manifest.phrases_of("image") == "concepts"
        assert atlas.manifest.phrases_of("spectrum") == "concepts_spectrum"
        assert all(finding.ok for finding in atlas.check())
        assert sorted(atlas.models()) == ["image", "spectrum", "text", "words_spectrum"]


def test_a_vector_of_words_is_what_the_projector_makes_of_the_text_vector(both, models):
    text = Encoder.from_folder(shipped("text", root=models), device="cpu")
    projector = Encoder.from_folder(shipped_words("tiny-spectra-0", root=models), device="cpu")
    with galsearch.open(both, device="cpu") as atlas:
        for words in ("red", "face-on blue galaxy"):
            expected = projector.encode(text.encode([words]))[0]
            assert np.allclose(atlas.embed(words, by="spectrum"), expected, atol=1e-6)
            assert np.allclose(atlas.embed(words), text.encode([words])[0], atol=1e-6)


def test_words_for_both_kinds_are_fused(both):
    query = galsearch.Query(terms=(galsearch.Term("text", "red"), galsearch.Term("text", "green", by="spectrum")), k=3)
    with galsearch.open(both, device="cpu") as atlas:
        assert atlas.search(query).ids[0] == "quasar"  # a red picture, and lines as broad as "green" means


@pytest.mark.parametrize("form", [0, 1])
def test_sql_embeds_words_for_spectra(both, form):
    with galsearch.open(forms(both)[form], device="cpu") as atlas:
        rows = atlas.sql("SELECT object_id FROM nearest_spectrum(embed_spectrum('green'), k := 1)")
        assert rows["object_id"].to_pylist() == ["quasar"]
        vector = atlas.sql("SELECT embed_spectrum('green') AS v, embed('green') AS w").to_pylist()[0]
        assert np.allclose(vector["v"], atlas.embed("green", by="spectrum"), atol=1e-6)
        assert np.allclose(vector["w"], atlas.embed("green"), atol=1e-6)


def test_a_bundle_knows_its_phrases_for_spectra_in_any_duckdb(both, alone):
    phrase = "broad-line quasar"
    for path, macro in ((both, "concept_spectrum"), (alone, "concept"), (alone, "concept_spectrum")):
        with galsearch.open(path, device="cpu") as atlas:
            expected = atlas.search(phrase, by="spectrum", k=1).ids
        with duckdb.connect(str(path.with_suffix(".duckdb")), read_only=True) as plain:
            rows = plain.sql(f"SELECT object_id FROM nearest_spectrum({macro}('{phrase}'), k := 1)").fetchall()
            assert [name for (name,) in rows] == expected
            with pytest.raises(duckdb.Error, match="no concept 'nonsense'"):
                plain.sql(f"SELECT {macro}('nonsense')").fetchall()


def test_a_visitor_embeds_words_for_spectra_too(both):
    with galsearch.open(both.with_suffix(".duckdb"), device="cpu", visitors=galsearch.Limits()) as atlas:
        rows = atlas.sql("SELECT object_id FROM nearest_spectrum(embed_spectrum('green'), k := 1)")
        assert rows["object_id"].to_pylist() == ["quasar"]
        with pytest.raises(QueryError, match="takes one text that is written out"):
            atlas.sql("SELECT embed_spectrum(object_id) FROM galaxies")


def test_the_code_of_a_query_in_words_for_spectra_finds_the_same(both):
    with galsearch.open(both, device="cpu") as atlas:
        hits = atlas.search("green", by="spectrum", k=2)
        text = as_sql(hits.query, atlas)
        assert "embed_spectrum('green')" in text
        assert atlas.sql(text)["object_id"].to_pylist() == hits.ids
        assert "--by spectrum" in as_command(hits.query, both)


def test_added_spectra_bring_their_words(tmp_path, models, spectra, cutouts):
    path = tmp_path / "x.atlas"
    galsearch.build(path, images=cutouts, models=models)
    with galsearch.open(path, device="cpu") as atlas, pytest.raises(QueryError, match="no embedding"):
        atlas.search("red", by="spectrum")
    galsearch.add(path, spectra=spectra, models=models)
    with galsearch.open(path, device="cpu") as atlas:
        assert atlas.search("green", by="spectrum", k=1).ids == ["quasar"]
        assert all(finding.ok for finding in atlas.check())
    galsearch.optimize(path)
    galsearch.bundle(path, tmp_path / "x.duckdb")
    with galsearch.open(tmp_path / "x.duckdb", device="cpu") as atlas:
        assert atlas.search("green", by="spectrum", k=1).ids == ["quasar"]
        part = atlas.search(where="object_id <> 'old-far'").save(tmp_path / "part.duckdb")
    with galsearch.open(part, device="cpu") as atlas:
        assert atlas.search("green", by="spectrum", k=1).ids == ["quasar"]
        assert all(finding.ok for finding in atlas.check())


def test_labels_are_judged_by_words_for_spectra(both, tmp_path):
    labels = tmp_path / "labels.yaml"
    labels.write_text("passive: red\nemission: blue\nquasar: green\n")
    with galsearch.open(both, device="cpu") as atlas:
        table = atlas.label(labels, by="spectrum").to_pylist()
    best = {row["object_id"]: row["best"] for row in table}
    assert best == {name: {"broad": "quasar"}.get(kind, kind) for name, (kind, _) in OBJECTS.items()}


def test_without_a_projector_words_for_spectra_name_the_way_out(tmp_path, spectra, cutouts):
    models = write_models(tmp_path / "models")
    galsearch.build(tmp_path / "x.atlas", images=cutouts, spectra=spectra, models=models)
    with galsearch.open(tmp_path / "x.atlas", device="cpu") as atlas:
        assert atlas.manifest.phrases_of("spectrum") is None
        with pytest.raises(QueryError, match=r"give by='image' \(--by image\), or ask by an object"):
            atlas.search("red", by="spectrum")
        with pytest.raises(QueryError, match="words cannot be compared in 'spectrum'"):
            atlas.sql("SELECT embed_spectrum('red')")


def test_a_projector_of_another_text_model_is_refused_before_anything_is_written(tmp_path, spectra):
    models = write_models(tmp_path / "models")
    home = write_tiny_words(models)
    for folder in models.glob("galtext*"):
        shutil.rmtree(folder)
    write_tiny_models(tmp_path / "others", seed=3)
    shutil.copytree(shipped("text", root=tmp_path / "others"), models / "galtext-other")
    with pytest.raises(ModelMismatchError, match="takes the vectors of galtext-tiny-1"):
        galsearch.build(tmp_path / "x.atlas", spectra=spectra, models=models)
    assert not (tmp_path / "x.atlas").exists()
    assert home.is_dir()


def test_a_changed_projector_is_reported_by_check_and_refused_by_search(tmp_path, alone):
    path = tmp_path / "x.atlas"
    shutil.copytree(alone, path)
    with galsearch.open(path, device="cpu") as atlas:
        assert len(atlas.manifest.embeddings["spectrum"]["words_sha256"]) == 64
    with duckdb.connect(str(path / "galaxies.duckdb")) as facts:
        (text,) = facts.execute("SELECT value FROM galsearch_manifest WHERE key = 'embeddings'").fetchone()
        changed = json.loads(text)
        changed["spectrum"]["words_sha256"] = "0" * 64
        facts.execute("UPDATE galsearch_manifest SET value = $1 WHERE key = 'embeddings'", [json.dumps(changed)])
    with galsearch.open(path, device="cpu") as atlas:
        with pytest.raises(ModelMismatchError, match="its words for 'spectrum' are made with"):
            atlas.search("red")
        assert [f.name for f in atlas.check() if not f.ok] == ["model words_spectrum"]


def test_the_command_searches_spectra_in_words(both, alone):
    for path, by in ((both, ["--by", "spectrum"]), (alone, [])):
        result = CliRunner().invoke(app, ["search", str(path), "green", *by, "-k", "1", "--format", "csv"])
        assert result.exit_code == 0, result.output
        assert "quasar" in result.stdout


def test_words_of_pictures_and_an_example_by_spectrum_are_fused_by_the_command(both):
    words = ["red", "--words-by", "image", "--like", "old-near", "--by", "spectrum"]
    result = CliRunner().invoke(app, ["search", str(both), *words, "-k", "2", "--format", "csv"])
    assert result.exit_code == 0, result.output
    query = galsearch.Query(
        (galsearch.Term("text", "red", by="image"), galsearch.Term("object", "old-near", by="spectrum")), k=2
    )
    with galsearch.open(both, device="cpu") as atlas:
        expected = atlas.search(query).ids
    assert [line.split(",")[0].strip('"') for line in result.stdout.splitlines()[1:]] == expected
    command = as_command(query, "x.atlas")
    assert "--by spectrum --words-by image" in command
    mixed = galsearch.Query((galsearch.Term("text", "red"), galsearch.Term("object", "old-near", by="spectrum")))
    assert as_command(mixed, "x.atlas").startswith("# A command cannot hold")


def test_info_names_the_frame_and_what_compares_words(both):
    result = CliRunner().invoke(app, ["info", str(both)])
    assert "spectrum vectors: 5 of 16 numbers by galspec-tiny-1, the rest frame, words by galspec-words-tiny-1" in (
        result.output
    )


def test_refinements_are_phrases_for_spectra(alone):
    with galsearch.open(alone, device="cpu") as atlas:
        known = set(atlas.sql("SELECT phrase FROM concepts")["phrase"].to_pylist())
        hits = atlas.search("red", k=3)
        assert "broad-line quasar" in known
        assert {one.phrase for one in hits.refinements()} <= known
        assert set(WORDS) & known == set()


def test_words_of_spectra_beside_pictures_say_how_to_compare_spectra(both, alone):
    with galsearch.open(both, device="cpu") as atlas:
        (told,) = atlas.hints("red galaxies with strong Balmer absorption")
        assert "'Balmer' speaks of spectra" in told
        assert "search by 'spectrum'" in told
        assert atlas.hints("red galaxies with strong Balmer absorption", by="spectrum") == ()
        assert atlas.hints("passive red spiral") == ()
    with galsearch.open(alone, device="cpu") as atlas:
        assert atlas.hints("red galaxies with strong Balmer absorption") == ()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE MACRO embed_spectrum(words) AS 'mine'",
        "ALTER TABLE concepts_spectrum RENAME TO kept; CREATE VIEW concepts_spectrum AS FROM kept",
    ],
)
def test_a_file_that_hides_the_words_of_spectra_is_refused(both, tmp_path, statement):
    path = shutil.copy(both.with_suffix(".duckdb"), tmp_path / "x.duckdb")
    with duckdb.connect(str(path)) as changed:
        changed.execute(statement)
    with pytest.raises(FormatError, match=r"embed_spectrum|concepts_spectrum"):
        galsearch.open(path, device="cpu")
