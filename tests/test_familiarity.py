"""How far an atlas is from what its model learned from."""

import base64
import json
import shutil

import numpy as np
import pytest

import galsearch
from galsearch.encode import check_card, shipped
from galsearch.errors import ModelMismatchError, QueryError
from galsearch.science.familiarity import Reference


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reference(*, seed: int = 0, dim: int = 8) -> tuple[Reference, np.ndarray]:
    """Return a reference of vectors around four directions, and the held-out ones that it was measured with."""
    random = np.random.default_rng(seed)
    centers = unit(random.normal(size=(4, dim))).astype("<f2").astype(np.float32)
    held = unit(centers[random.integers(4, size=2_000)] + 0.2 * random.normal(size=(2_000, dim))).astype(np.float32)
    return Reference(centers, np.quantile((held @ centers.T).max(axis=1), np.linspace(0, 1, 101)), len(held)), held


def test_held_out_training_data_are_at_the_middle_and_others_below():
    made, held = reference()
    same = made.compared(made.scorer.of(held), model="m")
    assert same.median == pytest.approx(50, abs=1)
    assert same.rare == pytest.approx(0.05, abs=0.005)
    assert not same.is_far
    assert same.hints == ()
    others = made.compared(made.scorer.of(-held), model="m")
    assert others.is_far
    assert others.rare > 0.98
    assert "m learned from" in others.hints[0]
    assert "percentile 0 of" in str(others)


def test_a_card_keeps_it():
    made, _ = reference()
    read = Reference.of_card({"dim": 8, "familiar": json.loads(json.dumps(made.entry()))})
    np.testing.assert_array_equal(read.centers, made.centers)
    np.testing.assert_allclose(read.quantiles, made.quantiles, atol=1e-4)
    assert Reference.of_card({"dim": 8}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"centers": "no base64!"},
        {"centers": base64.b64encode(b"\0" * 15).decode()},  # no whole vectors
        {"centers": ""},
        {"centers": base64.b64encode(np.full(8, np.nan, "<f2").tobytes()).decode()},
        {"centers": base64.b64encode(np.zeros(8 * 4_097, "<f2").tobytes()).decode()},
        {"centers": 5},
        {"quantiles": [0.5]},
        {"quantiles": [0.5, 0.1]},
        {"quantiles": [[0.1, 0.5]]},
        {"quantiles": [0.1, float("nan")]},
        {"quantiles": "abc"},
        {"held_out": None},
        {"held_out": float("inf")},
    ],
)
def test_a_card_that_lies_is_refused(change, tiny_models):
    path = next(path for path in tiny_models.glob("*/card.json") if json.loads(path.read_text())["kind"] == "image")
    card = json.loads(path.read_text()) | {"dim": 8, "familiar": reference()[0].entry() | change}
    with pytest.raises(ModelMismatchError, match="card's familiar is not what it must be"):
        check_card(card)


@pytest.fixture(scope="module")
def atlases(tiny_models, tiny_source, tmp_path_factory):
    """Two atlases of the same pictures: by a model that learned from such, and by one that learned from others."""
    home = tmp_path_factory.mktemp("familiar")
    pictures, table = tiny_source
    galsearch.build(home / "plain.atlas", images=pictures, table=table, models=tiny_models)
    with galsearch.open(home / "plain.atlas") as atlas:
        vectors = atlas._store.vectors("image").take(np.arange(atlas.manifest.embeddings["image"]["rows"]))
    paths = [home / "plain.atlas"]
    for name, sign in (("same", 1), ("other", -1)):
        models = shutil.copytree(tiny_models, home / f"models-{name}")
        path = next(path for path in models.glob("*/card.json") if json.loads(path.read_text())["kind"] == "image")
        centers = (sign * vectors[:10]).astype("<f2").astype(np.float32)
        closest = (sign * vectors @ centers.T).max(axis=1)
        made = Reference(centers, np.quantile(closest, np.linspace(0, 1, 101)), len(vectors))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"familiar": made.entry()}))
        galsearch.build(home / f"{name}.atlas", images=pictures, table=table, models=models)
        paths.append(home / f"{name}.atlas")
    return paths


@pytest.mark.slow
def test_an_atlas_says_how_far_it_is(atlases, run):
    plain, same, other = atlases
    with galsearch.open(plain) as atlas:
        assert atlas.familiarity() is None  # its card does not say
        with pytest.raises(QueryError, match="no embedding 'x'"):
            atlas.familiarity(by="x")
    with galsearch.open(same) as atlas:
        told = atlas.familiarity()
        assert told.median == pytest.approx(50, abs=3)
        assert told.objects == atlas.manifest.embeddings["image"]["rows"]
    for path, is_far in ((same, False), (other, True)):
        assert ("look at hits before you believe" in run("info", path)[2]) is is_far
        assert ("look at hits before you believe" in run("search", path, "red edge")[2]) is is_far
    with galsearch.open([same, plain]) as both:
        assert both.familiarity() is not None


def test_the_shipped_image_model_knows_its_training():
    card = json.loads((shipped("image") / "card.json").read_text())
    made = Reference.of_card(card)
    assert made.centers.shape == (64, card["dim"])
    np.testing.assert_allclose(np.linalg.norm(made.centers, axis=1), 1, atol=2e-3)
    assert made.held_out > 2_000
