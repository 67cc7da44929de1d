"""Fitting words to an atlas by verdicts: what is learned, what stays where it was, what is kept, undone and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import galsearch
from galsearch.cli.program import app
from galsearch.errors import FormatError, GalsearchError, ModelMismatchError, QueryError
from galsearch.science.adaptation import Correction, Marks, chosen_strength, fit, judge
from galsearch.store import Rows, open_store, put_rows

DIM, RNG = 12, np.random.default_rng(5)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def marked(text: np.ndarray, toward: np.ndarray, count: int, *, seed: int) -> Marks:
    """Return marks whose positives lie along the text and `toward`, and negatives along the text alone."""
    rng = np.random.default_rng(seed)
    wanted = np.arange(count) % 2 == 0
    vectors = 2 * text + rng.normal(scale=0.6, size=(count, DIM)) + np.where(wanted, 1.2, 0.0)[:, None] * toward
    return Marks(text.astype(np.float32), unit_rows(vectors), wanted)


FIRST, SECOND, TOWARD = np.eye(DIM)[:3]


# ---- the correction


def test_a_correction_brings_its_text_to_what_tells_the_marks_apart_and_leaves_others():
    marks, guards = marked(FIRST, TOWARD, 80, seed=1), np.eye(DIM)[4:]
    correction = fit([marks], guards, strength=3e-3)
    text = correction(FIRST[None])[0]
    assert np.linalg.norm(text) == pytest.approx(1, abs=1e-6)
    assert text[2] > 2 * np.abs(text[4:]).max()  # where the positives lie
    np.testing.assert_allclose(correction(guards), guards, atol=1e-6)
    unseen = marked(FIRST, TOWARD, 400, seed=2)
    before, after = (roc_auc_score(unseen.wanted, unseen.vectors @ one) for one in (FIRST, text))
    assert after > before + 0.1


def test_two_texts_are_each_brought_to_their_own_direction():
    both = [marked(FIRST, TOWARD, 60, seed=3), marked((FIRST + SECOND) / np.sqrt(2), np.eye(DIM)[3], 60, seed=4)]
    together = fit(both, np.eye(DIM)[4:], strength=1e-3)
    for one in both:
        alone = fit([one], np.eye(DIM)[4:], strength=1e-3)
        np.testing.assert_allclose(together(one.text[None]), alone(one.text[None]), atol=1e-5)


def test_the_stronger_the_penalty_the_less_a_text_moves():
    marks = marked(FIRST, TOWARD, 60, seed=5)
    cosines = [fit([marks], np.eye(DIM)[4:], strength=s)(FIRST[None])[0] @ FIRST for s in (1e-4, 1e-2, 1, 100)]
    assert cosines == sorted(cosines) and cosines[-1] == pytest.approx(1, abs=1e-4)


def test_the_gain_is_that_of_the_areas_with_an_interval_around_it():
    marks = marked(FIRST, TOWARD, 120, seed=6)
    other = (FIRST + 0.5 * TOWARD).astype(np.float32)
    gain = judge([marks], [FIRST], [other], seed=0)
    areas = [roc_auc_score(marks.wanted, marks.vectors @ one) for one in (FIRST, other)]
    assert (gain.before, gain.after) == pytest.approx(areas)
    assert gain.gain == pytest.approx(areas[1] - areas[0])
    assert gain.low < gain.gain < gain.high
    same = judge([marks], [FIRST], [FIRST], seed=0)
    assert (same.gain, same.low, same.high) == (0, 0, 0)


def test_equal_scores_count_half():
    marks = Marks(FIRST.astype(np.float32), unit_rows(np.ones((6, DIM))), np.arange(6) < 3)
    assert judge([marks], [FIRST], [FIRST], seed=0).before == 0.5


def test_nothing_is_learned_where_the_words_rank_perfectly():
    wanted = np.arange(40) < 20
    vectors = unit_rows(np.where(wanted, 1.0, -1.0)[:, None] * FIRST + RNG.normal(scale=0.05, size=(40, DIM)))
    assert chosen_strength([Marks(FIRST.astype(np.float32), vectors, wanted)], seed=0) is None


# ---- in an atlas


def judged(atlas: galsearch.Atlas, *, kind: str = "wanted", yes: int = 1, no: int = 2, count: int = 300):
    """Return verdicts that want the galaxies of one cluster and not those of another."""
    verdicts = galsearch.Verdicts(atlas=atlas)
    for row in range(count):
        if tiny.cluster_of(row) in (yes, no):
            verdicts.add(tiny.object_id(row), "yes" if tiny.cluster_of(row) == yes else "no", kind=kind, by="ann")
    return verdicts


@pytest.fixture(scope="module")
def adapted_once(made_once, tiny_folder: Path) -> Path:
    """An atlas that has learned to call "round" what is blue and ringed."""

    def fill(home: Path) -> None:
        path = Path(shutil.copytree(tiny_folder, home / "tiny.atlas"))
        with galsearch.open(path, device="cpu") as atlas:
            made = atlas.adapt(judged(atlas), texts={"wanted": "round"})
        galsearch.save_adaptation(path, made)

    return made_once("adapted", fill) / "tiny.atlas"


@pytest.fixture
def adapted(adapted_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapted_once, tmp_path / "adapted.atlas"))


def clusters(path: Path, words: str, *, k: int = 20) -> set[int]:
    with galsearch.open(path, device="cpu") as atlas:
        return {int(hit.object_id[-11:]) % 4 for hit in atlas.search(words, k=k)}


def test_words_then_find_what_people_meant_and_other_words_what_they_did(adapted, tiny_folder):
    assert (clusters(tiny_folder, "round"), clusters(adapted, "round")) == ({2}, {1})
    assert clusters(adapted, "green face") == clusters(tiny_folder, "green face") == {3}


def test_what_is_kept_says_what_was_learned_and_what_it_gained(adapted):
    with galsearch.open(adapted, device="cpu") as atlas:
        (one,) = atlas.adaptations()
        assert atlas.manifest.provenance[-1]["action"] == "adapt"
    assert (one.adaptation, one.kinds, one.texts, one.promoted) == (1, ("wanted",), ("round",), 1)
    assert one.trained + one.tested == 150 and one.auroc > 0.95 and one.auroc_before < 0.2
    assert 0 < one.gain_low < one.gain <= one.gain_high and one.sha256 == one.correction.sha256


def test_half_of_the_judged_objects_judges_and_the_same_half_ever_after(folder_path):
    with galsearch.open(folder_path, device="cpu") as atlas:
        few, all_ = (atlas.adapt(judged(atlas, count=n), texts={"wanted": "round"}) for n in (200, 300))
    assert few.tested < all_.tested and few.trained < all_.trained


def test_sql_and_labels_heed_it_too(adapted):
    with galsearch.open(adapted, device="cpu") as atlas:
        ids = atlas.sql("SELECT object_id FROM nearest(embed('round'), k := 10)")["object_id"].to_pylist()
    assert {int(name[-11:]) % 4 for name in ids} == {1}


def test_a_bundle_of_it_and_a_part_of_that_search_as_it_does(adapted, tmp_path):
    whole = galsearch.bundle(adapted, tmp_path / "whole.duckdb")
    assert clusters(whole, "round") == {1}
    with galsearch.open(whole, device="cpu") as atlas:
        atlas.search(where="true", k=250).save(tmp_path / "part.duckdb")
    assert clusters(tmp_path / "part.duckdb", "round") == {1}
    assert all(finding.ok for finding in galsearch.check(whole))


def test_it_is_undone_and_brought_back(adapted):
    galsearch.use_adaptation(adapted, None)
    assert clusters(adapted, "round") == {2}
    galsearch.use_adaptation(adapted, 1)
    assert clusters(adapted, "round") == {1}
    with pytest.raises(QueryError, match="no adaptation 7, it has 1"):
        galsearch.use_adaptation(adapted, 7)


def test_one_that_gains_nothing_over_the_one_in_use_stays_out_of_use(adapted):
    with galsearch.open(adapted, device="cpu") as atlas:
        again = atlas.adapt(judged(atlas), texts={"wanted": "round"})
    assert (again.adaptation, again.against, again.is_better, again.promoted) == (2, "adaptation 1", False, None)
    galsearch.save_adaptation(adapted, again)
    with galsearch.open(adapted, device="cpu") as atlas:
        assert [one.promoted for one in atlas.adaptations()] == [1, None]


def test_several_atlases_use_only_what_they_share(adapted, tiny_folder, tmp_path):
    with galsearch.open([adapted, tiny_folder], device="cpu") as both:
        assert {int(hit.object_id[-11:]) % 4 for hit in both.search("round", k=10)} == {2}


# ---- what is refused


def test_too_few_verdicts_are_counted_and_nothing_is_written(folder_path):
    with galsearch.open(folder_path, device="cpu") as atlas:
        with pytest.raises(QueryError, match=r"too few verdicts \('wanted': yes \d and \d, no \d and \d\)"):
            atlas.adapt(judged(atlas, count=24))
        with pytest.raises(QueryError, match="there are no verdicts"):
            atlas.adapt(galsearch.Verdicts(atlas=atlas))
        with pytest.raises(QueryError, match="no verdict is of kind 'wnated'"):
            atlas.adapt(judged(atlas, count=24), texts={"wnated": "round"})
        assert atlas.adaptations() == []


def test_words_that_rank_rightly_already_have_nothing_to_learn(folder_path):
    with (
        galsearch.open(folder_path, device="cpu") as atlas,
        pytest.raises(QueryError, match="there is nothing to adapt"),
    ):
        atlas.adapt(judged(atlas, kind="blue ring"))


def test_a_bundle_is_never_adapted(tiny_bundle):
    with galsearch.open(tiny_bundle, device="cpu") as atlas:
        made = atlas.adapt(judged(atlas), texts={"wanted": "round"})
    with pytest.raises(GalsearchError, match="adapt the folder, then bundle it again"):
        galsearch.save_adaptation(tiny_bundle, made)


def changed(path: Path, **values) -> None:
    store = open_store(path)
    table = store.table("adaptations")
    store.close()
    rows = [{**row, **values} for row in table.to_pylist()]
    put_rows(
        path, {"adaptations": Rows(table.from_pylist(rows, schema=table.schema), ("adaptation",))}, {"action": "t"}
    )


def test_numbers_that_were_changed_are_refused_and_checked(adapted):
    changed(adapted, shifts=[0.5] * 4)
    with (
        galsearch.open(adapted, device="cpu") as atlas,
        pytest.raises(FormatError, match="no adaptation; undo it"),
    ):
        atlas.search("round")
    assert any(not finding.ok and "do not fit their kinds" in str(finding) for finding in galsearch.check(adapted))


def test_a_digest_of_other_numbers_is_refused(adapted):
    changed(adapted, sha256="0" * 64)
    with galsearch.open(adapted, device="cpu") as atlas, pytest.raises(FormatError, match="not those of its digest"):
        atlas.search("round")


def test_one_of_another_text_model_is_refused(adapted):
    changed(adapted, words_sha256="0" * 64)
    with galsearch.open(adapted, device="cpu") as atlas:
        with pytest.raises(ModelMismatchError, match="learned with other models; `galsearch adapt --undo`"):
            atlas.search("round")
        assert len(atlas.search(atlas[tiny.object_id(0)], k=3)) == 3  # by example no words are needed
    galsearch.use_adaptation(adapted, None)
    assert clusters(adapted, "round") == {2}


def test_a_correction_is_its_numbers_and_nothing_else():
    gates, shifts = RNG.normal(size=(2, 2, DIM))
    assert Correction(gates, shifts).sha256 == Correction(gates.copy(), shifts.copy()).sha256
    assert Correction(gates, shifts).sha256 != Correction(shifts, gates).sha256


# ---- from the command line


def test_the_command_learns_says_what_it_gained_lists_and_undoes(folder_path):
    with galsearch.open(folder_path, device="cpu") as atlas:
        kept = galsearch.Verdicts(folder_path.with_suffix(".verdicts"), atlas=atlas)
        for one in judged(atlas).current():
            kept.add(one.object_id, one.verdict, kind=one.kind, by=one.by)
    run = CliRunner().invoke
    result = run(app, ["adapt", str(folder_path), "--query", "wanted=round"])
    assert result.exit_code == 0 and "adaptation 1 to 'round'" in result.stderr and "it is in use" in result.stderr
    assert "(in use)" in run(app, ["adapt", str(folder_path), "--list"]).stderr
    assert "words are fitted to these objects" in run(app, ["info", str(folder_path)]).stderr
    facts = run(app, ["search", str(folder_path), "round", "-k", "1", "--format", "json"]).stdout
    assert int(json.loads(facts)["rows"][0]["object_id"][-11:]) % 4 == 1
    assert run(app, ["adapt", str(folder_path), "--undo"]).exit_code == 0
    assert "(in use)" not in run(app, ["adapt", str(folder_path), "--list"]).stderr
    assert run(app, ["adapt", str(folder_path), "--query", "round"]).exit_code == 2
