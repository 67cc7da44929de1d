"""Several embeddings in one atlas, or one by another name: which is compared, how they are fused, what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tiny
from tiny_models import write_tiny_models

import galsearch
from galsearch import schema
from galsearch.errors import QueryError
from galsearch.query import Query, Term
from galsearch.science.ranking import Similarities, fuse

FIRST = tiny.object_id(0)
WITHOUT = tiny.object_id(4)  # has no spectrum


@pytest.fixture(scope="module")
def two(two_bundle):
    with galsearch.open(two_bundle, device="cpu") as atlas:
        yield atlas


@pytest.fixture(scope="module")
def spectra() -> dict[str, np.ndarray]:
    """The spectrum vectors by object_id."""
    made = ((tiny.object_id(row), tiny.spectrum(row)) for row in range(tiny.ROWS))
    return {name: vector for name, vector in made if vector is not None}


def best(vectors: dict[str, np.ndarray], query: np.ndarray, k: int) -> list[str]:
    return sorted(vectors, key=lambda name: (-np.float32(vectors[name].astype(float) @ query), name))[:k]


@pytest.mark.parametrize("kept_as", ["folder", "bundle"])
def test_one_object_is_compared_in_either_of_its_embeddings(two_bundle, spectra, kept_as):
    path = two_bundle if kept_as == "bundle" else two_bundle.with_name("tiny.atlas")
    with galsearch.open(path, device="cpu") as atlas:
        found = atlas.search(atlas[FIRST], by="spectrum", k=20)
        assert found.ids == best({**spectra, FIRST: -spectra[FIRST]}, spectra[FIRST], 20)
        np.testing.assert_allclose(found.scores, [spectra[name] @ spectra[FIRST] for name in found.ids], atol=1e-6)
        assert found.plan.matches == len(spectra) - 1
        assert atlas.search(atlas[FIRST], k=20).ids != found.ids
        assert np.array_equal(atlas.embed(atlas[FIRST], by="spectrum"), spectra[FIRST])
        assert len(atlas.embed(atlas[FIRST])) == 16
        assert not [finding for finding in atlas.check() if not finding.ok]


def test_a_filter_a_list_and_sql_reach_the_second_embedding(two, spectra):
    kept = two.search(where="mag_r < 17", k=300).ids
    among = {name: spectra[name] for name in kept if name in spectra and name != FIRST}
    assert two.search(two[FIRST], by="spectrum", where="mag_r < 17", k=9).ids == best(among, spectra[FIRST], 9)
    text = f"SELECT object_id FROM nearest_spectrum(like_object_spectrum('{FIRST}'), k := 10, cut := mag_r < 17)"
    assert [name for name in two.sql(text)["object_id"].to_pylist() if name != FIRST][:9] == best(
        among, spectra[FIRST], 9
    )


def test_terms_of_two_embeddings_are_ranked_in_each_and_fused(two, spectra):
    query = Query((Term("text", "red edge"), Term("object", FIRST, by="spectrum")), k=300)
    found = two.search(query)
    names = [name for name in (tiny.object_id(row) for row in range(tiny.ROWS)) if name != FIRST]
    words = {hit.object_id: hit.score for hit in two.search("red edge", k=300)}
    cosines = np.array([words[name] for name in names], np.float32)
    others = np.array([spectra[name] @ spectra[FIRST] if name in spectra else np.nan for name in names], np.float32)
    _, scores = fuse([Similarities(cosines), Similarities(others)], method="rank")
    expected = dict(zip(names, scores, strict=True))
    assert set(found.ids) == set(names)
    np.testing.assert_allclose(found.scores, [expected[name] for name in found.ids], rtol=1e-5)
    assert np.all(np.diff(found.scores) <= 0)
    column = found.table["score_by_spectrum"].to_pylist()
    assert [value is None for value in column] == [name not in spectra for name in found.ids]
    assert found.table["score_vector"].to_pylist() == pytest.approx([words[name] for name in found.ids], abs=1e-6)
    summed = two.search(Query(query.terms, hybrid="sum", k=10))
    assert {"score_vector", "score_words", "score_by_spectrum"} <= set(summed.table.column_names)


def test_duplicates_are_left_out_in_the_second_embedding_too(two):
    found = two.search(Query((Term("object", FIRST, by="spectrum"),), distinct=True, k=400))
    assert sum(found.table["copies"].to_pylist()) == two.search(two[FIRST], by="spectrum", k=400).plan.matches


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((Term("object", WITHOUT, by="spectrum"),), f"object '{WITHOUT}' has no vector"),
        ((Term("object", FIRST, by="radio"),), "has no embedding 'radio', it has: image, spectrum"),
        ((Term("text", "ring", by="spectrum"),), "words cannot be compared in 'spectrum'"),
        ((Term("image", "a.png", by="spectrum"),), "'spectrum' of .* is made of a spectrum"),
        ((Term("object", FIRST), Term("object", FIRST, -1.0)), "cancel out"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(two, terms, message):
    with pytest.raises(QueryError, match=message):
        two.search(Query(terms))


def test_a_spectrum_that_is_not_there_is_told_by_name(two):
    with pytest.raises(galsearch.SchemaError, match=r"a\.fits: cannot be read"):
        two.search(Query((Term("spectrum", "a.fits"),)))


def test_an_atlas_without_spectra_says_so(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as atlas, pytest.raises(QueryError, match="no embedding 'spectrum'"):
        atlas.search(Query((Term("spectrum", "a.fits"),)))


@pytest.fixture
def radio_bundle(tmp_path, tiny_source):
    """The first 24 of the tiny galaxies, whose only embedding is called "radio"; of all 300 it takes seconds."""
    write_tiny_models(tmp_path / "models", embedding="radio")
    (tmp_path / "cutouts").mkdir()
    for row in range(24):
        shutil.copy(tiny_source[0] / f"{tiny.object_id(row)}.png", tmp_path / "cutouts")
    galsearch.build(tmp_path / "tiny.atlas", images=tmp_path / "cutouts", models=tmp_path / "models")
    return galsearch.bundle(tmp_path / "tiny.atlas", tmp_path / "tiny.duckdb")


def test_the_only_embedding_is_the_main_one_whatever_its_name(radio_bundle, tiny_bundle):
    with galsearch.open(radio_bundle, device="cpu") as renamed, galsearch.open(tiny_bundle, device="cpu") as plain:
        assert list(renamed.manifest.embeddings) == ["radio"]
        assert renamed.manifest.modality("radio") is schema.MODALITIES["image"]
        expected = plain.search("red edge", where=f"object_id < '{tiny.object_id(24)}'", k=9).ids
        assert renamed.search("red edge", k=9).ids == expected
        assert renamed.search("red edge", k=9, by="radio").ids == expected
        for text in ("nearest", "nearest_radio"):
            rows = renamed.sql(f"SELECT object_id FROM {text}(embed('red edge'), k := 9)")
            assert rows["object_id"].to_pylist() == expected
        assert not [finding for finding in renamed.check() if not finding.ok]


def test_words_lie_in_the_space_of_the_main_embedding_whatever_the_lengths():
    space = {"dim": 4, "model": "m", "sha256": None, "space": "a", "metric": "cosine", "rows": 1}
    manifest = schema.Manifest("t", 1, {"spectrum": {**space, "space": "b"}, "image": space, "radio": space})
    assert manifest.main_embedding == "image"
    assert [manifest.knows_words(name) for name in ("image", "radio", "spectrum")] == [True, True, False]
    assert manifest.embedding_of("spectrum") == "spectrum"
    assert manifest.embedding_of("image") == "image"
    nameless = schema.Manifest("t", 1, {"radio": {**space, "space": None}, "other": {**space, "space": None}})
    assert [nameless.knows_words(name) for name in ("radio", "other")] == [True, False]
    assert schema.Manifest("t", 1, {}).main_embedding is None


def test_who_has_a_vector_is_told_row_by_row_and_who_has_none_by_name(two, spectra):
    store = two._store
    names = store.ids(np.arange(tiny.ROWS))
    assert store.has_vector("spectrum", np.arange(tiny.ROWS)).tolist() == [name in spectra for name in names]
    assert store.has_vector("image", np.arange(tiny.ROWS)).all()
    places = store.vector_rows("spectrum", store.rows_of(sorted(spectra)))
    first = sorted(spectra)[int(np.argmin(places))]  # its vector is the first that is stored
    assert places.min() == 0
    np.testing.assert_array_equal(store.embeddings("spectrum", [first])[0], spectra[first])
    with pytest.raises(QueryError, match=f"object '{WITHOUT}' has no vector"):
        store.embeddings("spectrum", [first, WITHOUT])
