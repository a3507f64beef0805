"""Judgements: what is taken in, what is refused, and which queries are one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudge_vdb.errors import BadJudgements
from nudge_vdb.judgements import Judgements, binary
from nudge_vdb.merging import merged

TWO = np.array([[1.0, 0.0], [0.0, 2.0]])


def relevant(judgements):
    """Return {query id: {row id: grade}}."""
    return {name: dict(judgements.relevant(place)) for place, name in enumerate(judgements.query_ids)}


@pytest.mark.parametrize(
    ("given_rows", "taken"),
    [
        ([["a", "b"], ["c"]], {"0": {"a": 1, "b": 1}, "1": {"c": 1}}),
        ([[1, 2], (2**64 - 1,)], {"0": {"1": 1, "2": 1}, "1": {str(2**64 - 1): 1}}),
        ([{"a": 2, "b": 0.5}, {7: 3}], {"0": {"a": 2, "b": 0.5}, "1": {"7": 3}}),
        ([{"a": 1, "b": 0, "c": -1}, ["", "a b"]], {"0": {"a": 1}, "1": {"": 1, "a b": 1}}),
        ([[np.int64(4)], {np.uint64(5): np.float32(0.5)}], {"0": {"4": 1}, "1": {"5": 0.5}}),
    ],
)
def test_rows_may_be_text_or_numbers_with_or_without_grades_and_grades_up_to_zero_are_no_judgement(given_rows, taken):
    judgements = Judgements.from_arrays(TWO, given_rows)
    assert relevant(judgements) == taken
    assert judgements.weights.tolist() == judgements.grades.tolist()


def test_vectors_are_kept_as_the_application_sends_them():
    judgements = Judgements.from_arrays([[3, 4], [0, -2]], [["a"], ["a"]], ["x", "y"])
    assert judgements.vectors.tolist() == [[3, 4], [0, -2]]
    assert judgements.vectors.dtype == np.float32
    assert judgements.query_ids == ("x", "y")
    assert len(judgements) == 2


def test_query_ids_may_be_numbers_like_row_ids():
    judgements = Judgements.from_arrays(TWO, [["a"], ["b"]], [7, 8])
    assert judgements.digest() == Judgements.from_arrays(TWO, [["a"], ["b"]], ["7", "8"]).digest()


REFUSED = {
    "no query": ([], [], None, ["shape (0,)"]),
    "no query of some width": (np.empty((0, 2)), [], None, ["there are no judgements"]),
    "one vector": ([1.0, 2.0], [["a"]], None, ["shape (2,)", "(queries, width)"]),
    "three dimensions": (np.ones((1, 2, 3)), [["a"]], None, ["shape (1, 2, 3)"]),
    "widths that differ": ([[1.0], [1.0, 2.0]], [["a"], ["a"]], None, ["one width"]),
    "words": ([["one", "two"]], [["a"]], None, ["no array of numbers"]),
    "numbers beyond any float": ([[10**400, 1]], [["a"]], None, ["no array of numbers"]),
    "numbers beyond float32": ([[1, 1], [1e300, 1]], [["a"], ["a"]], None, ["query '1'", "NaN or infinity"]),
    "fewer lists than queries": (TWO, [["a"]], None, ["2 query vectors", "1 lists"]),
    "fewer ids than queries": (TWO, [["a"], ["b"]], ["x"], ["2 query vectors", "1 query ids"]),
    "NaN": ([[1.0, 0.0], [np.nan, 1.0]], [["a"], ["b"]], None, ["query '1'", "NaN or infinity"]),
    "infinity": ([[1.0, 0.0], [np.inf, 1.0]], [["a"], ["b"]], None, ["query '1'", "NaN or infinity"]),
    "a zero vector": ([[1.0, 0.0], [0.0, 0.0]], [["a"], ["b"]], ["x", "y"], ["query 'y'", "zero"]),
    "no relevant row": (TWO, [["a"], []], None, ["query '1'", "no relevant row"]),
    "no grade above 0 at all": (TWO, [{"a": 0}, {"b": 0, "c": -2}], None, ["none of the 2 queries has a relevant row"]),
    "a query id twice": (TWO, [["a"], ["b"]], ["x", "x"], ["query id 'x' is given twice"]),
    "a row twice": (TWO, [["a"], ["b", "c", "b"]], None, ["query '1'", "names row 'b' twice"]),
    "a row twice, as number and text": (TWO, [["a"], {7: 1, "7": 2}], None, ["query '1'", "names row '7' twice"]),
    "a row twice, once as no judgement": (TWO, [["a"], {7: 1, "7": 0}], None, ["query '1'", "names row '7' twice"]),
    "a row id that is a fraction": (TWO, [["a"], [1.5]], None, ["query '1'", "1.5 is no row id"]),
    "a row id that is a truth": (TWO, [["a"], [True]], None, ["query '1'", "True is no row id"]),
    "a row id that is nothing": (TWO, [["a"], [None]], None, ["query '1'", "None is no row id"]),
    "one text for a list": (TWO, [["a"], "b"], None, ["query '1'", "'b'", 'expected ["row id", …]']),
    "one number for a list": (TWO, [["a"], 7], None, ["query '1'", "7", 'expected ["row id", …]']),
    "a grade that is text": (TWO, [["a"], {"b": "1"}], None, ["query '1'", "'1' is no grade"]),
    "a grade that is NaN": (TWO, [["a"], {"b": np.nan}], None, ["query '1'", "nan is no grade"]),
    "an endless grade": (TWO, [["a"], {"b": np.inf}], None, ["query '1'", "inf is no grade"]),
    "a grade beyond any float": (TWO, [["a"], {"b": 10**400}], None, ["query '1'", "is no grade"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_judgements_that_cannot_be_used_are_refused_and_the_query_is_named(case):
    vectors, rows, names, words = REFUSED[case]
    with pytest.raises(BadJudgements) as refusal:
        Judgements.from_arrays(vectors, rows, names)
    for word in words:
        assert word in str(refusal.value)


def test_the_digest_is_the_same_for_the_same_judgements():
    first, second = (Judgements.from_arrays(TWO, [{"a": 1}, {"b": 2, "c": 1}]) for _ in range(2))
    assert first.digest() == second.digest()


CHANGES = {
    "a vector": lambda one: replace(one, vectors=one.vectors * np.float32(2)),
    "a query id": lambda one: replace(one, query_ids=("0", "2")),
    "a row": lambda one: replace(one, rows=("a", "b", "d")),
    "a grade": lambda one: replace(one, grades=one.grades + 1),
    "a weight": lambda one: replace(one, weights=one.weights + 1),
    "whose row it is": lambda one: replace(one, query=np.array([0, 0, 1])),
    "where one query id ends": lambda one: replace(one, query_ids=("0\n1", "")),
    "where one row id ends": lambda one: replace(one, rows=("a\nb", "", "c")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_changes_with_all_that_counts(what):
    judgements = Judgements.from_arrays(TWO, [{"a": 1}, {"b": 2, "c": 1}])
    assert CHANGES[what](judgements).digest() != judgements.digest()


def test_the_digest_tells_apart_ids_that_read_the_same_when_joined():
    left, right = (Judgements.from_arrays(TWO, [["r"], ["r"]], names) for names in (["a", "b\nc"], ["a\nb", "c"]))
    assert left.digest() != right.digest()


def test_equal_queries_become_one_with_weights_added_and_the_best_grade_kept():
    judgements = Judgements.from_arrays(
        [[1, 0], [0, 1], [1, 0], [1, 0]], [{"a": 1, "b": 2}, {"a": 1}, {"a": 3}, {"a": 2, "c": 1}], list("wxyz")
    )
    one = merged(judgements)
    assert relevant(one) == {"w": {"a": 3, "b": 2, "c": 1}, "x": {"a": 1}}
    assert dict(zip(one.rows[:3], one.weights[:3], strict=True)) == {"a": 6, "b": 2, "c": 1}
    assert one.weights[3] == 1


def test_queries_of_one_direction_and_two_lengths_are_one():
    assert len(merged(Judgements.from_arrays([[1, 2], [2, 4], [2, 1]], [["a"], ["b"], ["c"]]))) == 2


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(2, 40))
def test_queries_equal_to_rounding_are_one_and_others_stay_apart(seed, distinct, count):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(distinct, 24))
    asked = rng.permutation(np.concatenate([np.arange(distinct), rng.integers(distinct, size=count)]))
    units = queries[asked] / np.linalg.norm(queries[asked], axis=1, keepdims=True)
    embedded = (units + 1e-6 * rng.normal(size=units.shape)) * rng.uniform(0.5, 2, size=(len(asked), 1))
    one = merged(Judgements.from_arrays(embedded, [["r"]] * len(asked), [f"{place}" for place in range(len(asked))]))
    firsts = [int(np.flatnonzero(asked == query)[0]) for query in range(distinct)]
    assert [int(name) for name in one.query_ids] == sorted(firsts)
    times = [int((asked == asked[int(name)]).sum()) for name in one.query_ids]
    assert one.weights.tolist() == times


def test_queries_that_differ_by_more_than_rounding_stay_apart():
    near = np.array([[1.0, 0.0], [1.0, 3e-3]])
    assert len(merged(Judgements.from_arrays(near, [["a"], ["a"]]))) == 2


def test_merging_twice_is_merging_once():
    judgements = Judgements.from_arrays([[1, 0], [1, 0], [0, 1]], [["a"], ["b"], ["a"]])
    assert merged(merged(judgements)).digest() == merged(judgements).digest()


def test_without_grades_every_pair_counts_the_same():
    judgements = Judgements.from_arrays(TWO, [{"a": 3, "b": 0.5}, {"a": 2}])
    assert relevant(binary(judgements)) == {"0": {"a": 1, "b": 1}, "1": {"a": 1}}


def test_a_query_and_its_copy_in_float16_are_one_query():
    queries = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    halves = queries.astype(np.float16).astype(np.float32)
    judgements = Judgements.from_arrays(np.concatenate([queries, halves]), [["a"]] * 400)
    one = merged(judgements)
    assert one.query_ids == judgements.query_ids[:200]
    assert one.weights.tolist() == [2] * 200
