"""Rows that are judged for an unusual share of the queries are named, and those of usual sets are not."""

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb import hubs
from nudge_vdb.judgements import Judgements
from tests.conftest import make_world


def judged(*counts):
    """Return judgements in which the rows have so many queries."""
    rows = [f"row {row}" for row, count in enumerate(counts) for _ in range(count)]
    vectors = np.random.default_rng(0).normal(size=(len(rows), 4))
    return Judgements.from_arrays(vectors, [[row] for row in rows])


def test_a_row_that_sixty_of_660_queries_name_is_named_with_its_share():
    (warning,) = hubs.warnings(judged(*[2] * 300, 60))
    assert "row 'row 300' (9.1%)" in warning
    assert "a judged row usually has 0.3%" in warning


def test_several_such_rows_are_named_up_to_five():
    (warning,) = hubs.warnings(judged(*[2] * 300, *[60] * 7))
    assert warning.count("row 30") == 5
    assert "and 2 more" in warning


USUAL = {
    "all alike": [2] * 300,
    "twenty queries a row, more or less": list(np.random.default_rng(0).poisson(20, 150)),
    "some have twice as many": [*[10] * 200, *[20] * 100],
    "log-normal": list(np.random.default_rng(0).lognormal(1, 1, 1000).astype(int) + 1),
    "a few rows": [100, 1, 1, 1],
    "one has five times as many": [*[4] * 300, 20],
    "few queries": [*[1] * 30, 9],
    "one query in 200 names it": [*[1] * 8000, 40],
}


@pytest.mark.parametrize("case", USUAL)
def test_rows_of_usual_sets_are_not_named(case):
    assert not hubs.warnings(judged(*USUAL[case]))


def test_by_chance_a_row_is_named_in_one_of_a_hundred_log_normal_sets():
    rng = np.random.default_rng(0)
    sets = [np.ceil(rng.lognormal(3, 0.8, 200)).astype(int) for _ in range(100)]
    assert sum(bool(hubs.warnings(judged(*counts))) for counts in sets) <= 5


def test_a_plan_names_them_and_counts_queries_without_an_answer(tmp_path):
    world = make_world()
    train = world.train
    rng = np.random.default_rng(0)
    near = train.vectors[rng.integers(len(train), size=40)] + 0.02 * rng.normal(size=(40, train.vectors.shape[1]))
    row = min(world.collection.rows.keys() - set(train.rows))
    judgements = Judgements.from_arrays(
        np.concatenate([train.vectors, near, near[:1] * 2 + 1]),
        [*([text] for text in train.rows), *[[row]] * 40, {row: 0}],
    )
    report = nudge_vdb.plan(world.collection, judgements, state=tmp_path, step=0.3, max_queries=30).report
    assert any(f"row {row!r} (14.3%)" in warning for warning in report["warnings"])
    words = "1 queries of the judgements have no grade above 0, such as '280'"
    assert any(words in warning for warning in report["warnings"])
    assert report["unanswered"] == 1
