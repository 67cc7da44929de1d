"""Queries as data: what is refused and how, JSON there and back, sums of terms against numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galsearch.errors import QueryError
from galsearch.query import MAX_K, Plan, Query, Term


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
    with pytest.raises(QueryError, match="text, object, image, spectrum, embedding"):
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


def test_formula_reads_like_a_sum():
    query = Query((Term("text", "spiral"), Term("text", "bar", -0.5), Term("embedding", (1.0,), 2.0)))
    assert query.formula() == "text 'spiral' - 0.5 text 'bar' + 2 embedding"
    assert Query((Term("text", "bar", -1.0),)).formula() == "- text 'bar'"
    assert Query().formula() == ""


def test_plan_says_in_a_line_how_it_was_answered():
    plan = Plan("ivf", 50_000, 1_200, exact=False, cells_probed=8, cells=64, milliseconds={"search": 1.25})
    assert str(plan) == "ivf: 50000 matches, 8 of 64 cells, 1200 rows scanned, approximate; search 1.2 ms"
    assert "cells" not in str(Plan("exact", 3, 3, exact=True))


def test_a_term_says_in_which_embedding_it_is_compared_and_older_queries_still_read():
    query = Query((Term("text", "ring"), Term("object", "a", 2.0, by="spectrum")))
    assert Query.from_json(query.to_json()) == query
    assert [set(term) for term in json.loads(query.to_json())["terms"]] == [
        {"kind", "value", "weight"},
        {"kind", "value", "weight", "by"},
    ]
    assert query.formula() == "text 'ring' + 2 object 'a' by spectrum"
    with pytest.raises(QueryError, match="by of the text term is 5, expected the name of an embedding"):
        Term("text", "a", by=5)
