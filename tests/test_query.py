"""Queries as data: what is refused and how, JSON there and back, sums of terms against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galsearch.errors import QueryError
from galsearch.query import FULL_MATCH, FUSE, MAX_K, Plan, Query, Term, combine, fuse, fusion_parts, unit


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1, True, 2.0, "3", None, float("nan")])
def test_k_must_be_a_whole_number_from_1(k):
    with pytest.raises(QueryError, match=r"k is .*expected a whole number from 1"):
        Query(k=k)


@pytest.mark.parametrize("probes", [0, -5, True, 1.5, "3"])
def test_probes_must_be_a_whole_number_from_1(probes):
    with pytest.raises(QueryError, match=r"probes is .*from 1"):
        Query(probes=probes)


@pytest.mark.parametrize("where", ["", "  \n\t ", 3, b"z < 1"])
def test_where_must_be_text_that_says_something(where):
    with pytest.raises(QueryError, match="where is"):
        Query(where=where)


@pytest.mark.parametrize("weight", [0, float("nan"), float("inf"), True, "2", None])
def test_weight_must_be_a_finite_number_other_than_0(weight):
    with pytest.raises(QueryError, match=r"weight of text 'ring' is .*finite number"):
        Term("text", "ring", weight)


@pytest.mark.parametrize(("kind", "value"), [("text", 3), ("text", None), ("object", 7), ("embedding", "red")])
def test_term_value_must_be_of_its_kind(kind, value):
    with pytest.raises(QueryError, match=f"{kind} term is"):
        Term(kind, value)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_empty_text_is_refused(text):
    with pytest.raises(QueryError, match="text is empty"):
        Term("text", text)


def test_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(QueryError, match="text, object, image, embedding"):
        Term("sound", "hum")


@pytest.mark.parametrize("near", [(1.0,), (1.0, 2.0, 3.0), "10 20", ("a", "b"), 5, (None, None), (True, False)])
def test_near_must_be_two_numbers(near):
    with pytest.raises(QueryError, match="near is"):
        Query(near=near, radius_arcsec=1.0)


@pytest.mark.parametrize("near", [(-181.0, 0.0), (361.0, 0.0), (0.0, 91.0), (float("nan"), 0.0), (0.0, float("inf"))])
def test_near_must_be_on_the_sky(near):
    with pytest.raises(QueryError, match="not within"):
        Query(near=near, radius_arcsec=1.0)


@pytest.mark.parametrize("radius", [-1.0, 648001.0, float("nan"), float("inf"), "5", True])
def test_radius_must_be_between_0_and_180_degrees(radius):
    with pytest.raises(QueryError, match="radius_arcsec is"):
        Query(near=(0.0, 0.0), radius_arcsec=radius)


@pytest.mark.parametrize(("given_", "absent"), [("near", "radius_arcsec"), ("radius_arcsec", "near")])
def test_a_cone_needs_both_center_and_radius(given_, absent):
    value = {"near": (1.0, 2.0), "radius_arcsec": 3.0}[given_]
    with pytest.raises(QueryError, match=f"{given_} needs {absent}"):
        Query(**{given_: value})


def test_right_ascension_360_is_0():
    assert Query(near=(360, 10), radius_arcsec=1).near == (0.0, 10.0)


terms = st.one_of(
    st.builds(
        Term,
        st.sampled_from(["text", "object", "image"]),
        st.text(min_size=1).filter(str.strip),
        st.floats(-5, 5).filter(bool),
    ),
    st.builds(Term, st.just("embedding"), st.lists(st.floats(-1, 1), min_size=1, max_size=8).map(tuple)),
)


cones = st.tuples(st.tuples(st.floats(0, 359.9), st.floats(-90, 90)), st.floats(0, 648000))
options = st.fixed_dictionaries(
    {"k": st.integers(1, MAX_K), "exact": st.booleans(), "probes": st.none() | st.integers(1, 4096)},
    optional={"where": st.just("z < 0.1 AND survey = 'd''Or'")},
)


@given(terms=st.lists(terms, max_size=3).map(tuple), cone=st.just((None, None)) | cones, options=options)
def test_json_gives_back_an_equal_query(terms, cone, options):
    query = Query(terms, near=cone[0], radius_arcsec=cone[1], **options)
    assert Query.from_json(query.to_json()) == query


def test_numpy_numbers_travel_as_json():
    near = np.array([10.5, -3.25], dtype=np.float32)
    query = Query((Term("text", "ring", np.float32(0.5)),), near=near, radius_arcsec=np.float64(2), k=np.int64(7))
    assert Query.from_json(query.to_json()) == query
    assert query.near == (10.5, -3.25)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "null",
        "{}",
        '{"terms": 3}',
        '{"terms": [{"kind": "text"}]}',
        '{"terms": [], "color": "red"}',
        '{"terms": [{"kind": "embedding", "value": ["a"], "weight": 1}]}',
        '{"terms": [], "near": []}',
        '{"terms": [], "k": 0}',
    ],
)
def test_what_is_no_saved_query_is_a_query_error(text):
    with pytest.raises(QueryError):
        Query.from_json(text)


def test_combine_is_the_weighted_sum_at_unit_length():
    rng = np.random.default_rng(3)
    vectors = {name: unit(rng.normal(size=16)) for name in "abc"}
    weights = {"a": 1.0, "b": -0.5, "c": 2.25}
    found = combine([Term("object", n, w) for n, w in weights.items()], lambda term: vectors[term.value])
    total = sum(w * vectors[n].astype(np.float64) for n, w in weights.items())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, total / np.linalg.norm(total), atol=1e-7)


def test_terms_that_cancel_are_refused():
    with pytest.raises(QueryError, match="cancel out"):
        combine([Term("text", "a"), Term("text", "a", -1.0)], lambda _: unit(np.ones(4)))


def test_terms_of_different_lengths_are_refused():
    lengths = {"a": 4, "b": 5}
    with pytest.raises(QueryError, match="different lengths"):
        combine([Term("text", "a"), Term("text", "b")], lambda term: unit(np.ones(lengths[term.value])))


@pytest.mark.parametrize("vector", [np.zeros(4), np.array([np.nan, 1.0]), np.array([np.inf, 1.0]), np.zeros(0)])
def test_unit_refuses_what_has_no_direction(vector):
    with pytest.raises(QueryError, match="length"):
        unit(vector)


def test_formula_reads_like_a_sum():
    query = Query((Term("text", "spiral"), Term("text", "bar", -0.5), Term("embedding", (1.0,), 2.0)))
    assert query.formula() == "text 'spiral' - 0.5 text 'bar' + 2 embedding"
    assert Query((Term("text", "bar", -1.0),)).formula() == "- text 'bar'"
    assert Query().formula() == ""


def test_plan_says_in_a_line_how_it_was_answered():
    plan = Plan("ivf", 50_000, 1_200, exact=False, cells_probed=8, cells=64, milliseconds={"search": 1.25})
    assert str(plan) == "ivf: 50000 matches, 8 of 64 cells, 1200 rows scanned, approximate; search 1.2 ms"
    assert "cells" not in str(Plan("exact", 3, 3, exact=True))


# ---- fusion

BACKGROUND = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
scores_of_vectors = st.floats(-1, 1, width=32) | st.just(float("nan"))
scores_of_words = st.floats(0, 30, width=32) | st.just(float("nan"))
candidates = st.lists(st.tuples(scores_of_vectors, scores_of_words), max_size=12)
methods = st.sampled_from(FUSE)
backgrounds = st.sampled_from([None, BACKGROUND, np.full(3, 0.5), np.empty(0)])
attainables = st.sampled_from([0.0, 5.0, 40.0])


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
    order, scores = fuse(vector, word, method="sum", background=BACKGROUND, attainable=20.0)
    low = (0.1 - BACKGROUND.mean()) / BACKGROUND.std()
    high = (0.9 - BACKGROUND.mean()) / BACKGROUND.std()
    np.testing.assert_allclose(scores, [high, low + FULL_MATCH / 16, low + FULL_MATCH])
    assert order.tolist() == [2, 0, 1]


def test_an_object_without_a_vector_counts_as_an_ordinary_one():
    by_vector, _ = fusion_parts(np.array([0.9, np.nan]), np.full(2, np.nan), method="sum", background=BACKGROUND)
    assert by_vector[1] == 0


def test_an_unknown_method_is_refused_with_those_there_are():
    with pytest.raises(QueryError, match="'product', expected one of rank, sum"):
        fuse(np.zeros(1), np.zeros(1), method="product")


@given(candidates, methods, backgrounds, attainables)
def test_fusion_never_inverts_what_both_lists_agree_on(pairs, method, background, attainable):
    vector, word = lists(pairs)
    order, scores = fuse(vector, word, method=method, background=background, attainable=attainable)
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
    orders = [fuse(*both, method=method, background=BACKGROUND, attainable=30.0)[0] for both in (before, after)]
    old, new = (np.flatnonzero(order == which)[0] for order in orders)
    assert new <= old


def lost(pair, score):
    """Return what decides the order of a candidate, smallest first."""
    return -score, *(np.inf if np.isnan(part) else -part for part in pair)


@given(candidates, methods, backgrounds, attainables, st.randoms())
def test_the_order_of_candidates_decides_ties_and_nothing_else(pairs, method, background, attainable, random):
    vector, word = lists(pairs)
    shuffled = np.array(random.sample(range(len(pairs)), len(pairs)), int)
    options = {"method": method, "background": background, "attainable": attainable}
    order, scores = fuse(vector, word, **options)
    again, mixed = fuse(vector[shuffled], word[shuffled], **options)
    assert mixed.tolist() == scores[shuffled].tolist()
    assert sorted(order.tolist()) == list(range(len(pairs)))
    assert order.tolist() == sorted(range(len(pairs)), key=lambda place: (*lost(pairs[place], scores[place]), place))
    assert again.tolist() == sorted(
        range(len(pairs)), key=lambda place: (*lost(pairs[shuffled[place]], mixed[place]), place)
    )


@given(st.lists(st.floats(0, 30, width=32), max_size=12), methods, backgrounds, st.booleans())
def test_an_empty_list_leaves_the_order_of_the_other(scores, method, background, words_empty):
    there, nothing = np.array(scores, np.float32), np.full(len(scores), np.nan)
    pair = (there, nothing) if words_empty else (nothing, there)
    order, _ = fuse(*pair, method=method, background=background, attainable=30.0)
    assert order.tolist() == np.argsort(-there, kind="stable").tolist()


@given(candidates, methods, backgrounds, attainables)
def test_objects_without_a_word_keep_the_order_of_their_vectors(pairs, method, background, attainable):
    vector, word = lists(pairs)
    order, _ = fuse(vector, word, method=method, background=background, attainable=attainable)
    silent = [place for place in order if np.isnan(word[place]) and not np.isnan(vector[place])]
    assert (np.diff(vector[silent]) <= 0).all()


@given(candidates, methods, backgrounds, attainables)
def test_the_parts_add_up_to_the_score_and_are_numbers(pairs, method, background, attainable):
    options = {"method": method, "background": background, "attainable": attainable}
    vector, word = lists(pairs)
    by_vector, by_word = fusion_parts(vector, word, **options)
    assert np.isfinite(by_vector).all() and np.isfinite(by_word).all()
    assert (by_vector + by_word).tolist() == fuse(vector, word, **options)[1].tolist()
