"""Sums of vectors, and the fusion of several rankings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galsearch.errors import QueryError
from galsearch.query import Term
from galsearch.retrieval import scorer_of
from galsearch.science import ranking
from galsearch.science.ranking import FULL_MATCH, FUSE, Similarities, WordScores, combine, unit


def test_combine_is_the_weighted_sum_at_unit_length():
    rng = np.random.default_rng(3)
    vectors = {name: unit(rng.normal(size=16)) for name in "abc"}
    weights = {"a": 1.0, "b": -0.5, "c": 2.25}
    found = combine([vectors[name] for name in weights], list(weights.values()))
    total = sum(w * vectors[n].astype(np.float64) for n, w in weights.items())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, total / np.linalg.norm(total), atol=1e-7)


def test_terms_that_cancel_are_refused():
    with pytest.raises(QueryError, match="cancel out"):
        combine([unit(np.ones(4))] * 2, [1.0, -1.0])


def test_terms_of_different_lengths_are_refused():
    for how in ("mean", "max"):
        with pytest.raises(QueryError, match="different lengths \\(text 'a' has 4, text 'b' has 5\\)"):
            scorer_of(how, [Term("text", "a"), Term("text", "b")], [unit(np.ones(4)), unit(np.ones(5))])


@pytest.mark.parametrize("vector", [np.zeros(4), np.array([np.nan, 1.0]), np.array([np.inf, 1.0]), np.zeros(0)])
def test_unit_refuses_what_has_no_direction(vector):
    with pytest.raises(QueryError, match="length"):
        unit(vector)


# ---- fusion

BACKGROUND = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
scores_of_vectors = st.floats(-1, 1, width=32) | st.just(float("nan"))
scores_of_words = st.floats(0, 30, width=32) | st.just(float("nan"))
candidates = st.lists(st.tuples(scores_of_vectors, scores_of_words), max_size=12)
methods = st.sampled_from(FUSE)
backgrounds = st.sampled_from([None, BACKGROUND, np.full(3, 0.5), np.empty(0)])
attainables = st.sampled_from([0.0, 5.0, 40.0])


def rankings(vector, word, *, reference=None, attainable=0.0):
    return [Similarities(vector, reference), WordScores(word, attainable)]


def fuse(vector, word, *, method, **options):
    return ranking.fuse(rankings(vector, word, **options), method=method)


def fusion_parts(vector, word, *, method, **options):
    return ranking.fusion_parts(rankings(vector, word, **options), method=method)


def lists(pairs):
    """Return (vector, word) of candidates; NaN where one is not in that list."""
    return tuple(np.array(column, np.float32) for column in zip(*pairs, strict=True)) if pairs else (np.empty(0),) * 2


def no_worse(scores, one, other):
    """Say whether `one` is at least as good as `other`; not being in the list is worse than being the last there."""
    return np.isnan(scores[other]) or scores[one] >= scores[other]


def test_reciprocal_ranks_add_up():
    vector, word = np.array([0.9, 0.5, 0.7, np.nan]), np.array([np.nan, 3.0, 3.0, 8.0])
    order, scores = fuse(vector, word, method="rank")
    written_out = np.array([1 / 61, 1 / 63 + 1 / 62, 1 / 62 + 1 / 62, 1 / 61])
    np.testing.assert_allclose(scores, 61 / 2 * written_out)
    assert order.tolist() == [2, 1, 0, 3]


def test_a_word_that_says_next_to_nothing_has_no_rank():
    _, by_word = fusion_parts(np.zeros(3), np.array([13.0, 4.9, 5.0]), method="rank", attainable=20.0)
    np.testing.assert_allclose(by_word, [0.5, 0, 0.5 * 61 / 62])


def test_the_first_of_both_lists_has_a_reciprocal_rank_score_of_1():
    assert fuse(np.array([0.2, 0.1]), np.array([5.0, 4.0]), method="rank")[1][0] == pytest.approx(1)


def test_calibrated_scores_add_up():
    vector, word = np.array([0.9, 0.1, np.nan]), np.array([np.nan, 5.0, 20.0])
    order, scores = fuse(vector, word, method="sum", reference=BACKGROUND, attainable=20.0)
    low = (0.1 - BACKGROUND.mean()) / BACKGROUND.std()
    high = (0.9 - BACKGROUND.mean()) / BACKGROUND.std()
    np.testing.assert_allclose(scores, [high, low + FULL_MATCH / 16, low + FULL_MATCH])
    assert order.tolist() == [2, 0, 1]


def test_an_object_without_a_vector_counts_as_an_ordinary_one():
    by_vector, _ = fusion_parts(np.array([0.9, np.nan]), np.full(2, np.nan), method="sum", reference=BACKGROUND)
    assert by_vector[1] == 0


def test_an_unknown_method_is_refused_with_those_there_are():
    with pytest.raises(QueryError, match="'product', expected one of rank, sum"):
        fuse(np.zeros(1), np.zeros(1), method="product")


@given(candidates, methods, backgrounds, attainables)
def test_fusion_never_inverts_what_both_lists_agree_on(pairs, method, reference, attainable):
    vector, word = lists(pairs)
    order, scores = fuse(vector, word, method=method, reference=reference, attainable=attainable)
    place = np.argsort(order)
    for one in range(len(pairs)):
        for other in range(len(pairs)):
            if no_worse(vector, one, other) and no_worse(word, one, other):
                assert scores[one] >= scores[other]
                same = one == other or (no_worse(vector, other, one) and no_worse(word, other, one))
                assert place[one] < place[other] or same


@given(candidates.filter(bool), methods, st.data())
def test_a_better_part_never_lowers_a_place(pairs, method, data):
    which = data.draw(st.integers(0, len(pairs) - 1))
    part, better = data.draw(st.tuples(st.just(0), st.floats(-1, 1)) | st.tuples(st.just(1), st.floats(0, 30)))
    before, after = lists(pairs), lists(pairs)
    raised = (np.maximum, np.fmax)[part]  # a word may come to be matched; what is known of a vector is not made up
    after[part][which] = raised(before[part][which], np.float32(better))
    orders = [fuse(*both, method=method, reference=BACKGROUND, attainable=30.0)[0] for both in (before, after)]
    old, new = (np.flatnonzero(order == which)[0] for order in orders)
    assert new <= old


def lost(pair, score):
    """Return what decides the order of a candidate, smallest first."""
    return -score, *(np.inf if np.isnan(part) else -part for part in pair)


@given(candidates, methods, backgrounds, attainables, st.randoms())
def test_the_order_of_candidates_decides_ties_and_nothing_else(pairs, method, reference, attainable, random):
    vector, word = lists(pairs)
    shuffled = np.array(random.sample(range(len(pairs)), len(pairs)), int)
    options = {"method": method, "reference": reference, "attainable": attainable}
    order, scores = fuse(vector, word, **options)
    again, mixed = fuse(vector[shuffled], word[shuffled], **options)
    assert mixed.tolist() == scores[shuffled].tolist()
    assert sorted(order.tolist()) == list(range(len(pairs)))
    assert order.tolist() == sorted(range(len(pairs)), key=lambda place: (*lost(pairs[place], scores[place]), place))
    assert again.tolist() == sorted(
        range(len(pairs)), key=lambda place: (*lost(pairs[shuffled[place]], mixed[place]), place)
    )


@given(st.lists(st.floats(0, 30, width=32), max_size=12), methods, backgrounds, st.booleans())
def test_an_empty_list_leaves_the_order_of_the_other(scores, method, reference, words_empty):
    there, nothing = np.array(scores, np.float32), np.full(len(scores), np.nan)
    pair = (there, nothing) if words_empty else (nothing, there)
    order, _ = fuse(*pair, method=method, reference=reference, attainable=30.0)
    assert order.tolist() == np.argsort(-there, kind="stable").tolist()


@given(candidates, methods, backgrounds, attainables)
def test_objects_without_a_word_keep_the_order_of_their_vectors(pairs, method, reference, attainable):
    vector, word = lists(pairs)
    order, _ = fuse(vector, word, method=method, reference=reference, attainable=attainable)
    silent = [place for place in order if np.isnan(word[place]) and not np.isnan(vector[place])]
    assert (np.diff(vector[silent]) <= 0).all()


@given(candidates, methods, backgrounds, attainables)
def test_the_parts_add_up_to_the_score_and_are_numbers(pairs, method, reference, attainable):
    options = {"method": method, "reference": reference, "attainable": attainable}
    vector, word = lists(pairs)
    by_vector, by_word = fusion_parts(vector, word, **options)
    assert np.isfinite(by_vector).all() and np.isfinite(by_word).all()
    assert (by_vector + by_word).tolist() == fuse(vector, word, **options)[1].tolist()


def test_three_rankings_weigh_the_same_and_the_first_of_all_has_1():
    values = [np.array([0.9, 0.5, np.nan]), np.array([0.2, 0.3, 0.1]), np.array([7.0, np.nan, 9.0])]
    three = [Similarities(values[0]), Similarities(values[1]), WordScores(values[2])]
    order, scores = ranking.fuse(three, method="rank")
    parts = [1 / 61 + 1 / 62 + 1 / 62, 1 / 62 + 1 / 61, 1 / 63 + 1 / 61]
    np.testing.assert_allclose(scores, 61 / 3 * np.array(parts))
    assert order.tolist() == [0, 1, 2]
