"""Re-ranking: what is looked at again, what examples teach, when the old order stays, and what a model is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from fake_vlm import Said, Server
from PIL import Image

import galsearch
from galsearch.errors import GalsearchError, QueryError
from galsearch.language.parser import understand
from galsearch.rerank import attributes, probe, validated
from galsearch.rerank.arcs import arc_contrast
from galsearch.rerank.judge import Board, panels
from galsearch.rerank.observe import Observer
from galsearch.rerank.views import SCALES, crop, look
from galsearch.science import images

POINTS = 0.5  # standard deviations a point: what the documents say


def ids_of(cluster: int, count: int, *, start: int = 2) -> list[str]:
    """Return ids of one cluster of the tiny atlas, no exact copies."""
    return [tiny.object_id(4 * number + cluster) for number in range(start, start + count)]


@pytest.fixture
def weighed(monkeypatch, tiny_models):
    """Let 'ring' and all other questions have these weights, as if they had been validated with the tiny models."""
    cards = [json.loads(path.read_text()) for path in tiny_models.glob("*/card.json")]
    model = next(card for card in cards if card["kind"] == "image")

    def weighing(*, looks: dict | None = None, measures: float = 0.0, name: str = "any") -> None:
        worth = {"n": 100, "relevant": 10, "before": 0.4, "after": 0.5}
        entry = {"looks": looks or {}, "measures": measures, **worth}
        chosen = {"models": {"image": model}, "questions": {name: entry}}
        monkeypatch.setattr(validated, "read", lambda: chosen)

    return weighing


# ---- looking again


def test_crops_are_where_they_say():
    picture = np.arange(100).reshape(10, 10)
    np.testing.assert_array_equal(crop(picture, 1.0, 0, 0), picture)
    np.testing.assert_array_equal(crop(picture, 0.8, 0, 0), picture[1:9, 1:9])
    np.testing.assert_array_equal(crop(picture, 0.8, 1, -1), picture[:8, 2:])
    np.testing.assert_array_equal(crop(picture, 0.8, -1, 1), picture[2:, :8])


@pytest.mark.parametrize("scale", SCALES)
def test_a_look_is_the_mean_over_crops_and_their_mirror_images(atlas, scale):
    encoder, picture = atlas._encoder("image"), tiny.draw(5)
    parts = [crop(picture, *place) for place in SCALES[scale]]
    every = [np.ascontiguousarray(one) for part in parts for one in (part, part[:, ::-1])]
    mean = encoder.encode(every).mean(axis=0)
    np.testing.assert_allclose(look(encoder, [picture], scale)[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(look(encoder, [picture[:, ::-1]], scale)[0], mean / np.linalg.norm(mean), atol=1e-5)


def galaxy_with_arc(angle: float, *, light: float = 0.4) -> np.ndarray:
    """Draw a round red galaxy with a blue arc of 60 degrees around an angle."""
    y, x = np.mgrid[-47.5:48, -47.5:48] / 96
    radius, turn = np.hypot(x, y), np.angle(np.exp(1j * (np.arctan2(y, x) - angle)))
    planes = np.exp(-radius / 0.08)[..., None] * np.array([0.9, 0.6, 0.4])
    arc = light * np.exp(-(((radius - 0.2) / 0.015) ** 2)) * (np.abs(turn) < np.pi / 6)
    planes = planes + arc[..., None] * np.array([0.4, 0.7, 1.0])
    return (255 * np.clip(planes, 0, 1)).astype(np.uint8)


def test_an_arc_stands_out_wherever_it_lies_and_by_how_bright_it_is():
    plain = arc_contrast(galaxy_with_arc(0, light=0))
    found = [arc_contrast(galaxy_with_arc(angle)) for angle in np.radians([0, 70, 135, 250])]
    assert plain < 0.02 and min(found) > 0.2 and np.ptp(found) < 0.05
    assert arc_contrast(galaxy_with_arc(1, light=0.2)) == pytest.approx(arc_contrast(galaxy_with_arc(1)) / 2, abs=0.03)


# ---- what words ask for


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("barred spiral", ["barred"]),
        ("spiral without a bar", ["unbarred"]),
        ("unbarred galaxy", ["unbarred"]),
        ("face-on spiral galaxy", ["spiral", "face-on"]),
        ("ring galaxy", ["ring"]),
        ("Einstein ring", ["lens"]),
        ("an arc around a red elliptical galaxy", ["lens"]),
        ("SB galaxy", ["barred"]),
        ("spheroidal galaxy with no spiral structure", ["elliptical"]),
        ("galaxy without a ring", []),
        ("starburst", []),
    ],
)
def test_the_attributes_that_words_ask_for(words, names):
    assert [each.name for each in attributes.requested(understand(words, {}))] == names


def test_normal_scores_are_quantiles_of_the_sample_and_missing_ones_are_its_middle():
    from scipy import stats  # which takes seconds

    rng = np.random.default_rng(0)
    usual = rng.gamma(2.0, size=4001)
    found = attributes.normal_scores(np.array([np.median(usual), np.quantile(usual, 0.9), np.nan, 1e9]), usual)
    np.testing.assert_allclose(found[:2], stats.norm.ppf([0.5, 0.9]), atol=0.002)
    assert found[2] == 0 and 3 < found[3] < 4


def test_an_attribute_adds_its_measures_with_their_signs_and_leaves_out_those_not_there():
    usual = {"asymmetry": np.arange(101.0), "companions": np.full(101, np.nan)}
    merging = attributes.BY_NAME["merging"]
    low, high = attributes.match(merging, {"asymmetry": np.array([5.0, 95.0]), "companions": np.full(2, np.nan)}, usual)
    assert low == pytest.approx(-high) and high > 1.5
    assert attributes.match(merging, {}, usual) is None


# ---- weights


def test_weights_of_several_attributes_are_the_mean_of_theirs(monkeypatch):
    worth = {"n": 1, "relevant": 1, "before": 0.1, "after": 0.2}
    questions = {
        "ring": {"looks": {"close": 2.0}, "measures": 1.0, **worth},
        "barred": {"looks": {"close": 1.0, "core": 4.0}, "measures": 0.5, **worth},
    }
    chosen = {"models": {"image": {"id": "tiny", "sha256": "x"}}, "questions": questions}
    monkeypatch.setattr(validated, "read", lambda: chosen)
    found = validated.weights(["ring", "barred"], model="x")
    assert found.looks == {"whole": 0, "close": 1.5, "core": 2.0, "corners": 0}
    assert found.measures == {"ring": 0.5, "barred": 0.25}
    assert [part.split(":")[0] for part in found.statements] == ["'ring'", "'barred'"]
    other = validated.weights(["ring"], model="y")
    assert other.shown == {} and "not the model of this atlas" in other.statements[0]


def test_what_was_not_validated_has_no_weight(weighed):
    weighed(looks={"close": 1.0}, name="ring")
    found = validated.weights(["merging"], model=validated.read()["models"]["image"]["sha256"])
    assert found.shown == {} and "no weights were validated" in found.statements[0]


def test_the_shipped_weights_were_never_worse_than_no_re_ranking():
    questions = validated.read()["questions"]
    assert {each.name for each in attributes.ATTRIBUTES} | {validated.ANY} == set(questions)
    for name, entry in questions.items():
        assert entry["after"] >= entry["before"], name
        assert set(entry["looks"]) <= set(SCALES)


# ---- a probe


def clouds(count: int, *, seed: int = 0, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Return points `(2 count, 8)` of two clouds that differ in the first direction, and which are of the first."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2 * count, 8))
    points[:count, 0] += apart
    return points, np.arange(2 * count) < count


def test_a_probe_tells_marks_apart_that_the_query_does_not():
    marks, good = clouds(6)
    ordinary = np.random.default_rng(9).normal(size=(200, 8))
    query = np.eye(8)[1]
    learned = probe.Probe(marks, good, ordinary, query)
    others, theirs = clouds(50, seed=1)
    found = learned.scores(others)
    above = found[theirs][:, None] > found[~theirs][None, :]
    plain = others[theirs, 1][:, None] > others[~theirs, 1][None, :]
    assert above.mean() > plain.mean() + 0.1


def test_a_probe_is_the_query_where_marks_count_for_nothing(monkeypatch):
    monkeypatch.setattr(probe, "PULL", 1e9)
    marks, good = clouds(6)
    ordinary = np.random.default_rng(9).normal(size=(200, 8))
    query = np.random.default_rng(3).normal(size=8)
    found = probe.Probe(marks, good, ordinary, query).scores(marks)
    assert np.corrcoef(found, marks @ query)[0, 1] == pytest.approx(1, abs=1e-6)


def test_marks_left_out_have_no_part_in_the_scores():
    marks, good = clouds(4)
    ordinary = np.random.default_rng(9).normal(size=(100, 8))
    moved = marks.copy()
    moved[[1, 6]] = 0
    ways = [probe.Probe(rows, good, ordinary, np.eye(8)[0]) for rows in (marks, moved)]
    whole, without = ([way.scores(ordinary[:5], without=left_out) for way in ways] for left_out in ([], [1, 6]))
    assert np.abs(np.subtract(*whole)).max() > 0.01
    np.testing.assert_allclose(*without, rtol=1e-5, atol=1e-6)


def test_pairs_are_all_or_forty_and_equal_scores_count_half():
    assert len(list(probe.pairs(np.arange(7) < 3))) == 12
    drawn = list(probe.pairs(np.arange(60) < 20))
    assert len(set(drawn)) == len(drawn) == probe.MOST_PAIRS
    values = np.array([2.0, 1.0, 1.0, 3.0])
    assert probe.right(np.array([True, True, False, False]), lambda *pair: values[list(pair)]) == (1 + 0.5) / 4


# ---- hits.rerank


def test_the_parts_add_up_to_the_score_and_the_rank_before_is_told(atlas, weighed):
    weighed(looks={"close": 1.0, "core": 0.5})
    hits = atlas.search("red galaxy", k=10)
    found = hits.rerank(n=60)
    assert isinstance(found, galsearch.Hits) and len(found) == 10 and not found.reranked.kept
    table = found.table
    total = np.array(table["score_before"]) + np.array(table["score_crops"])
    np.testing.assert_allclose(table["score"], total, rtol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    wider = atlas.search("red galaxy", k=60)
    assert [wider.ids[rank - 1] for rank in table["rank_before"].to_pylist()] == found.ids
    np.testing.assert_allclose(
        table["score_vector"],
        atlas.search("red galaxy", k=300).scores[
            [atlas.search("red galaxy", k=300).ids.index(name) for name in found.ids]
        ],
    )
    assert found.reranked.weights == {"picture, close": 1.0, "picture, core": 0.5}
    assert "nDCG@10 0.400 before, 0.500 after" in str(found.reranked)


def test_crops_are_compared_with_the_query_as_the_whole_is(atlas, weighed):
    weighed(looks={"close": 1.0})
    hits = atlas.search("blue face", k=300)
    found = hits.rerank(n=300)
    query, usual = atlas.embed("blue face"), atlas._store.reference_scores("image", hits._result.scorer)
    row = found.table.slice(3, 1).to_pylist()[0]
    picture = images.decode_thumbnail(atlas.thumbnails([row["object_id"]])[row["object_id"]])
    cosine = float(look(atlas._encoder("image"), [picture], "close")[0] @ query)
    assert row["score_crops"] == pytest.approx((cosine - usual.mean()) / usual.std(), rel=1e-4)


def test_equal_scores_are_ordered_by_cosine_and_then_by_object_id(atlas, weighed):
    weighed(looks={"close": 1.0})
    found = atlas.search("red edge", k=300).rerank(n=300)
    rows = found.table.select(["score", "score_vector", "object_id"]).to_pylist()
    keys = [(-row["score"], -row["score_vector"], row["object_id"]) for row in rows]
    assert keys == sorted(keys) and len({row["score"] for row in rows}) < len(rows)  # copies give equal scores


def test_without_weights_the_order_stays_and_that_is_said(atlas, weighed):
    weighed(name="ring")
    hits = atlas.search("red galaxy", k=10)
    found = hits.rerank()
    assert found.reranked.kept and found.ids == hits.ids and (found.scores == hits.scores).all()
    assert "nothing is changed" in str(found.reranked)


def test_marks_bring_forward_what_the_words_do_not_say(atlas, weighed):
    weighed()
    hits = atlas.search("galaxy", k=12)
    positives, negatives = ids_of(3, 4), ids_of(1, 4)  # green faces, blue rings
    found = hits.rerank(n=300, positives=positives, negatives=negatives)
    assert not found.reranked.kept and found.reranked.right_after > found.reranked.right_before
    share = np.mean([int(name) % 4 == 3 for name in found.ids])
    assert share > np.mean([int(name) % 4 == 3 for name in hits.ids]) and share > 0.8
    assert found.table["score_probe"].null_count == 0


def test_the_order_stays_where_marks_are_in_order_already(atlas, weighed):
    weighed(looks={"close": 1.0})
    hits = atlas.search("red edge", k=12)
    found = hits.rerank(n=300, positives=ids_of(0, 3), negatives=ids_of(1, 3))
    assert found.reranked.kept and found.ids == hits.ids and (found.scores == hits.scores).all()
    assert found.reranked.right_before == found.reranked.right_after == 1
    assert "so the order is that of the search" in str(found.reranked)


def test_one_mark_is_too_few_and_that_is_said(atlas, weighed):
    weighed(looks={"close": 1.0})
    hits = atlas.search("red edge", k=12)
    found = hits.rerank(positives=ids_of(0, 1), negatives=ids_of(1, 3))
    assert "too few to learn from" in str(found.reranked) and found.ids == hits.rerank().ids


def test_marks_may_be_galaxies_pictures_and_embeddings(atlas, weighed, tmp_path):
    weighed()
    hits = atlas.search("galaxy", k=12)
    for place, row in enumerate((11, 15)):
        Image.fromarray(tiny.draw(row)).save(tmp_path / f"{place}.png")
    positives = [tmp_path / "0.png", tmp_path / "1.png", atlas[ids_of(3, 1)[0]]]
    negatives = [atlas.embed(atlas[name]) for name in ids_of(1, 3)]
    found = hits.rerank(n=300, positives=positives, negatives=negatives)
    assert np.mean([int(name) % 4 == 3 for name in found.ids]) > 0.8


@pytest.mark.slow
def test_folder_and_bundle_give_the_same_order(tiny_folder, tiny_bundle, weighed):
    weighed(looks={"close": 1.0})
    orders = []
    for path in (tiny_folder, tiny_bundle):
        with galsearch.open(path, device="cpu") as atlas:
            hits = atlas.search("round", k=20)
            marks = {"positives": ids_of(3, 3), "negatives": ids_of(1, 3)}
            orders.append((hits.rerank().ids, hits.rerank(**marks).ids))
    assert orders[0] == orders[1]


def test_words_may_match_too(atlas, weighed):
    weighed(looks={"close": 1.0})
    hits = atlas.search(atlas.query("red galaxy", k=5, hybrid="sum"))
    found = hits.rerank(n=50)
    assert {"score_vector", "score_words", "score_before", "score_crops"} <= set(found.table.column_names)
    assert len(found) == 5


@pytest.fixture(scope="module")
def without_pictures(tmp_path_factory) -> galsearch.Atlas:
    """An atlas made of a table of vectors."""
    folder = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8))
    vectors[:20, 0] += 4
    table = tiny.table(60).append_column("v", [vectors.tolist()])
    pq.write_table(table, folder / "t.parquet")
    galsearch.build(folder / "v.atlas", table=folder / "t.parquet", vectors="v", model="other")
    with galsearch.open(folder / "v.atlas", device="cpu") as atlas:
        yield atlas


def test_without_pictures_there_is_one_clear_error(without_pictures):
    hits = without_pictures.search(np.ones(8), k=5)
    with pytest.raises(QueryError, match=r"has no pictures.*mark 2 or more"):
        hits.rerank()


def test_without_pictures_marks_are_learned_from_all_the_same(without_pictures):
    hits = without_pictures.search(np.eye(8)[1], k=10)
    near, far = [tiny.object_id(row) for row in range(4)], [tiny.object_id(row) for row in range(30, 34)]
    found = hits.rerank(n=60, positives=near, negatives=far)
    before, after = (np.mean([int(name[-3:]) < 20 for name in each.ids if name not in near]) for each in (hits, found))
    assert after >= before + 0.2
    assert "score_probe" in found.table.column_names and "score_crops" not in found.table.column_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "magic"}, "no way to re-rank"),
        ({"samples": 3}, "samples is an option of 'vlm'"),
        ({"positives": ["nobody"] * 2, "negatives": ["nobody"] * 2}, "no object 'nobody'"),
        ({"positives": [np.ones(3)] * 2, "negatives": [np.ones(3)] * 2}, "a marked vector has 3 numbers"),
    ],
)
def test_what_cannot_be_done_is_said(atlas, options, message):
    with pytest.raises(QueryError, match=message):
        atlas.search("red", k=3).rerank(**options)


def test_a_list_has_no_order_to_improve(atlas):
    with pytest.raises(QueryError, match="only listed"):
        atlas.search(where="z > 0", k=3).rerank()


def test_the_sample_is_looked_at_once(atlas):
    observer = Observer(atlas._store, lambda: atlas._encoder("image"))
    assert observer.sample is observer.sample and observer.sample.look("close") is observer.sample.look("close")
    assert len(observer.sample) == 256


# ---- a vision model


@pytest.fixture(scope="module")
def shown(tiny_folder) -> Callable[[bytes], str]:
    """Tell the first object_id that a picture that is sent shows; only as many are drawn as it takes to find it."""
    with galsearch.open(tiny_folder, device="cpu") as atlas:
        ids = atlas.search("red galaxy", k=300).ids  # what most tests ask about comes first
        pictures = atlas.thumbnails(ids)
    found: dict[bytes, str] = {}
    left, alone = iter(ids), threading.Lock()  # several are asked about at once

    def showing(picture: bytes) -> str:
        with alone:
            while picture not in found:
                name = next(left)
                found.setdefault(panels(images.decode_thumbnail(pictures[name])), name)
            return found[picture]

    return showing


@pytest.fixture
def judged_atlas(folder_path, shown):
    """The tiny atlas, a copy beside which answers may lie, and what a picture that is sent shows: its object_id."""
    with galsearch.open(folder_path, device="cpu") as atlas:
        yield atlas, lambda asked: shown(asked.picture)


def say(score: object, explanation: str = "seen") -> Said:
    """Return an answer."""
    return Said(json.dumps({"explanation": explanation, "score": score}))


def options(server: Server, **more: object) -> dict:
    """Return what a test asks with: no retries, a known price."""
    price = {"price_in": 1.0, "price_out": 1.0}
    return {"model": "judge", "base_url": server.url, "retries": 0, "concurrency": 4, **price, **more}


@pytest.mark.slow
def test_answers_are_added_to_the_score_and_explained(judged_atlas):
    atlas, shows = judged_atlas
    hits = atlas.search("galaxy", k=6)
    liked = atlas.search("galaxy", k=20).ids[14]
    with Server(lambda asked: say(10 if shows(asked) == liked else 2, f"it is {shows(asked)}")) as server:
        found = hits.rerank("vlm", n=20, samples=1, **options(server))
    assert not found.reranked.kept and found.ids[0] == liked and len(found) == 6
    first = found.table.slice(0, 1).to_pylist()[0]
    assert (first["judged"], first["answers"], first["explanation"]) == (10, 1, f"it is {liked}")
    assert first["score"] == pytest.approx(first["score_before"] + POINTS * (10 - 5.5), abs=1e-5)
    assert first["rank_before"] == 15


@pytest.mark.slow
def test_the_model_is_shown_the_whole_and_its_middle_and_told_the_question(judged_atlas):
    atlas, shows = judged_atlas
    with Server(lambda asked: say(5)) as server:
        atlas.search("a red galaxy", k=1).rerank("vlm", n=1, samples=1, **options(server))
        asked = server.asked[0]
    rgb = images.render(images.read_picture(asked.picture))
    assert rgb.shape == (256, 512, 3)
    whole = images.decode_thumbnail(atlas.thumbnails([shows(asked)])[shows(asked)])
    side = len(whole)
    middle = whole[side // 4 : side - side // 4, side // 4 : side - side // 4]
    np.testing.assert_array_equal(rgb, np.concatenate(list(images.model_input([whole, middle], 256)), axis=1))
    assert "a red galaxy" in asked.body["messages"][0]["content"][0]["text"]


@pytest.mark.slow
def test_equal_answers_leave_the_order_of_the_search(judged_atlas):
    atlas, _ = judged_atlas
    hits = atlas.search("red galaxy", k=8)
    with Server(lambda asked: say(7)) as server:
        found = hits.rerank("vlm", n=20, samples=1, **options(server))
    assert found.ids == hits.ids


@pytest.mark.parametrize(
    "bad",
    [
        Said(status=500),
        Said(refusal="I will not"),
        Said("no JSON"),
        say(0),
        say(11),
        say("8"),
    ],
    ids=["failed", "refused", "malformed", "below", "above", "text"],
)
def test_no_score_is_no_middling_score_but_keeps_its_place(judged_atlas, bad):
    atlas, shows = judged_atlas
    hits = atlas.search("red galaxy", k=6)
    silent = hits.ids[2]
    with Server(lambda asked: bad if shows(asked) == silent else say(9)) as server:
        found = hits.rerank("vlm", n=6, samples=1, **options(server, concurrency=4))
    row = found.table.slice(2, 1).to_pylist()[0]
    assert row["object_id"] == silent and row["judged"] is None and row["explanation"] is None
    assert "no scores: 1" in str(found.reranked)
    assert sorted(found.ids) == sorted(hits.ids)


def test_answers_about_one_picture_are_averaged(judged_atlas):
    atlas, _ = judged_atlas
    hits = atlas.search("red galaxy", k=3)
    noisy = {0: 2, 1: 9, 2: 4}
    with Server(lambda asked: say(noisy[asked.body["seed"]], f"sample {asked.body['seed']}")) as server:
        found = hits.rerank("vlm", n=3, samples=3, **options(server))
    row = found.table.slice(0, 1).to_pylist()[0]
    assert row["judged"] == 5 and row["answers"] == 3 and row["explanation"] == "sample 2"  # 4 is nearest to 5


@pytest.mark.slow
def test_asking_stops_when_no_answer_can_change_the_first_hits(judged_atlas):
    atlas, shows = judged_atlas
    hits = atlas.search("red edge", k=3)
    best = hits.ids
    with Server(lambda asked: say(10 if shows(asked) in best else 1)) as server:
        found = hits.rerank("vlm", n=200, samples=5, **options(server))
        assert len(server.asked) < 200
    assert sorted(found.ids) == sorted(best)
    assert "at most it would have been 1000" in str(found.reranked)


@pytest.mark.slow
def test_the_same_question_is_not_asked_twice(judged_atlas):
    atlas, _ = judged_atlas
    hits = atlas.search("red galaxy", k=4)
    with Server(lambda asked: say(asked.number % 10 + 1)) as server:
        first = hits.rerank("vlm", n=8, samples=2, **options(server))
        asked = len(server.asked)
        again = hits.rerank("vlm", n=8, samples=2, **options(server))
        assert len(server.asked) == asked
        hits.rerank("vlm", n=8, samples=2, **options(server, question="something else"))
        assert len(server.asked) > asked
    assert again.ids == first.ids and again.reranked.cost["cost_usd"] == pytest.approx(first.reranked.cost["cost_usd"])


def test_the_limit_of_cost_is_held_and_what_was_answered_counts(judged_atlas):
    atlas, _ = judged_atlas
    hits = atlas.search("red galaxy", k=4)
    with Server(lambda asked: say(8)) as server:
        found = hits.rerank("vlm", n=50, samples=3, **options(server, max_cost=0.01, concurrency=1))
        spent = len(server.asked) * 1100e-6
    assert 0 < spent <= 0.01 and found.reranked.cost["cost_usd"] == pytest.approx(spent)
    assert "raise max_cost" in str(found.reranked)


def test_marks_judge_the_model_too(judged_atlas):
    atlas, shows = judged_atlas
    hits = atlas.search("red edge", k=6)
    good, bad = hits.ids[:2], hits.ids[4:6]
    with Server(lambda asked: say(1 if shows(asked) in good else 10)) as server:
        found = hits.rerank("vlm", n=6, samples=1, positives=good, negatives=bad, **options(server))
    assert found.reranked.kept and found.ids == hits.ids
    assert found.reranked.right_before == 1 and found.reranked.right_after == 0


def test_a_service_that_answers_nothing_is_an_error_and_no_order(judged_atlas):
    atlas, _ = judged_atlas
    with Server(lambda asked: Said(status=500)) as server, pytest.raises(galsearch.RemoteError, match="in a row"):
        atlas.search("red galaxy", k=6).rerank("vlm", n=20, **options(server))


def test_an_estimate_sends_nothing_and_bounds_what_is_asked(judged_atlas):
    atlas, _ = judged_atlas
    hits = atlas.search("red galaxy", k=6)
    with Server() as server:
        table = hits.estimate_rerank(n=40, **options(server, samples=3))
        assert server.sent == []
    row = table.to_pylist()[0]
    assert row["answers"] == 120 and row["usd"] == pytest.approx((row["tokens_in"] + row["tokens_out"]) * 1e-6)
    every = hits.estimate_rerank(n=40)
    assert every.num_rows > 5 and every["usd"].to_pylist() == sorted(every["usd"].to_pylist())


@pytest.mark.slow
def test_local_re_ranking_sends_nothing(judged_atlas, weighed):
    atlas, _ = judged_atlas
    weighed(looks={"close": 1.0})
    with Server() as server:
        atlas.search("red galaxy", k=6).rerank(positives=ids_of(0, 2), negatives=ids_of(1, 2))
        assert server.sent == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs to be named"),
        ({"model": "m", "temprature": 1}, "no option of 'vlm'"),
        ({"model": "m", "samples": 0}, "samples is 0"),
        ({"model": "m", "max_cost": 1.0, "base_url": "http://127.0.0.1:9/v1"}, "price of 'm' is not known"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_sent(judged_atlas, given, message):
    atlas, _ = judged_atlas
    with pytest.raises(GalsearchError, match=message):
        atlas.search("red", k=3).rerank("vlm", **given)


def test_a_search_without_words_needs_a_question(judged_atlas):
    atlas, _ = judged_atlas
    hits = atlas.search(atlas[ids_of(0, 1)[0]], k=3)
    with pytest.raises(QueryError, match="no words to ask"):
        hits.rerank("vlm", model="m", base_url="http://127.0.0.1:9/v1")


def test_a_prompt_of_ones_own_must_have_a_place_for_the_question(judged_atlas, tmp_path):
    (tmp_path / "p.md").write_text("How good is it?")
    with pytest.raises(GalsearchError, match=r"has no \{question\}"):
        galsearch.rerank_prompt(tmp_path / "p.md")
    assert "{question}" in galsearch.rerank_prompt()


# ---- the board


def played(base: np.ndarray, truth: np.ndarray, *, k: int, samples: int, seed: int) -> Board:
    """Play a board to its end with answers that scatter by a point around the truth."""
    rng = np.random.default_rng(seed)
    board = Board(base, np.ones(len(base), bool), k=k, samples=samples)
    while places := board.next(8):
        for place in places:
            board.put(place, int(np.clip(np.rint(truth[place] + rng.normal()), 1, 10)))
    return board


@pytest.mark.parametrize("seed", range(5))
def test_whoever_was_not_asked_about_could_not_have_come_among_the_first(seed):
    rng = np.random.default_rng(seed)
    base = np.sort(rng.normal(scale=2, size=100))[::-1]
    board = played(base, rng.uniform(1, 10, 100), k=10, samples=3, seed=seed)
    assert board.tries.max() <= 3 and 10 <= (board.tries > 0).sum() < 100
    final = board.final
    tenth = np.sort(final[np.isfinite(final)])[-10]
    assert (base[board.tries == 0] + POINTS * (10 - 5.5) < tenth).all()


def test_clear_cases_are_asked_about_once_and_close_ones_as_often_as_allowed():
    base = np.array([9.0, 6.0, 3.0, 0.02, 0.01, 0.0])
    board = played(base, np.full(6, 5.0), k=4, samples=6, seed=0)
    assert board.tries[:2].tolist() == [1, 1] and board.tries[3:].max() == 6


# ---- the command


def test_the_command_shows_the_parts_and_says_what_was_done(run, tiny_bundle, weighed):
    weighed(looks={"close": 1.0})
    code, out, err = run("rerank", tiny_bundle, "red galaxy", "-k", 4, "--explain", "--device", "cpu")
    assert code == 0 and "rank_before" in out and "score_crops" in out
    assert "weights: picture, close 1" in err and "exact:" in err and "read as" in err


@pytest.mark.slow
def test_the_command_takes_marks(run, tiny_bundle, weighed):
    weighed()
    marks = [part for name in ids_of(3, 3) for part in ("--positive", name)]
    marks += [part for name in ids_of(1, 3) for part in ("--negative", name)]
    code, out, err = run("rerank", tiny_bundle, "galaxy", "-n", 300, "--format", "json", *marks)
    assert code == 0 and "pairs of marks" in err
    assert np.mean([int(row["object_id"]) % 4 == 3 for row in json.loads(out)["rows"]]) > 0.8


@pytest.mark.slow
def test_the_command_asks_a_model_only_where_told(run, folder_path):
    with Server(lambda asked: say(6)) as server:
        where = ("--by", "vlm", "--model", "judge", "--base-url", server.url)
        code, out, err = run("rerank", folder_path, "red galaxy", "-n", 5, "-k", 3, "--estimate", *where[2:])
        assert code == 0 and server.sent == [] and "judge" in out and "Nothing was sent" in err
        code, out, err = run("rerank", folder_path, "red galaxy", "-n", 5, "-k", 3, "--samples", 1, *where)
        assert code == 0 and len(server.asked) == 5 and "explanation" in out and "cost of this question" in err


def test_the_command_shows_its_prompt(run):
    code, out, _ = run("rerank", "--show-prompt")
    assert code == 0 and out.strip() == galsearch.rerank_prompt().strip()
