"""Carrying against brute force: every map fitted anew for every query, every row placed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_vdb import carrying
from nudge_vdb.carrying import CARRIES, Unjudged, carried_table
from nudge_vdb.contract import Metric
from nudge_vdb.exam import Exam, Field
from nudge_vdb.metrics import Measure
from nudge_vdb.nudge import RAYS, Method, Pulls, rays_n, unit
from nudge_vdb.ridge import Fit, Map, Neighbours, turned

RULE = Measure("ndcg", 5)
STEPS = np.array([0.1, 0.6])


class Problem:
    """Judged rows, unjudged rows, and queries with one or two answers each."""

    def __init__(self, seed, metric):
        rng = np.random.default_rng(seed)
        width, self.metric = 5, metric
        rows = rng.normal(size=(40, width)) * rng.uniform(0.5, 2, (40, 1))
        self.judged, self.others = rows[:15].astype(np.float32), rows[15:].astype(np.float32)
        pairs = sorted({(q, int(r)) for q in range(12) for r in rng.integers(0, 15, rng.integers(1, 3))})
        self.query, self.row = np.array(pairs).T
        kept, self.row = np.unique(self.row, return_inverse=True)
        self.judged = self.judged[kept]
        near = self.judged[self.row[np.searchsorted(self.query, np.arange(12))]]
        self.queries = (near + rng.normal(size=near.shape) + 1.0).astype(np.float32)

    def field(self):
        units, _ = unit(self.queries)
        order = np.argsort(self.row, kind="stable")
        ones = np.ones(len(order))
        pulls = Pulls(units, self.query[order], self.row[order], ones, len(self.judged))
        nobody, places = np.empty((12, 0)), np.zeros(len(self.judged))
        return Field(Method.NUDGE_N, self.metric, pulls, lambda part: self.judged[part], places, nobody)

    def exam(self):
        ones = np.ones(len(self.query))
        return Exam(*unit(self.queries), self.query, self.row, ones, ones)

    def table(self):
        unjudged = Unjudged([(np.arange(len(self.others)), self.others)], self.others.__getitem__)
        return carried_table(self.field(), self.exam(), RULE, STEPS, unjudged)

    def brute_force(self, step, carry, query, *, cold):
        units, _ = unit(self.judged)
        queries, _ = unit(self.queries)
        pulls = np.zeros(units.shape)
        np.add.at(pulls, self.row, queries[self.query].astype(float))
        rays = RAYS[Method.NUDGE_N](units, pulls, None)
        own = self.row[self.query == query]
        alone = [row for row in own if (self.row == row).sum() == 1]
        placed, directions, left_out = rays.at(step), rays.directions.copy(), np.array(alone, int)
        if cold:
            sharing = np.unique(self.query[np.isin(self.row, own)])
            left_out = np.unique(self.row[np.isin(self.query, sharing)])
        for row in own if not cold else ():
            without = rays_n(units[[row]], pulls[[row]] - queries[[query]])
            placed[row], directions[row] = without.at(step)[0], without.directions[0]
        taught = np.setdiff1d(np.arange(len(units)), left_out)
        carried = own if cold else alone
        placed[carried] = carried_by(units, directions, taught, carry, units)[carried]
        others = carried_by(units, directions, taught, carry, unit(self.others)[0])
        cosines = np.concatenate([placed, others]) @ queries[query].astype(float)
        scores = engine_scores(self.metric, cosines, np.concatenate([self.judged, self.others]), self.queries[query])
        ranks = np.array([1 + (scores > scores[row]).sum() for row in own])
        near = max((np.abs(scores - scores[row]) < 1e-5).sum() for row in own)
        return RULE.score(ranks, np.ones(len(own))) if near == 1 else np.nan


def carried_by(units, directions, taught, carry, rows):
    """Turn *rows* by a map fitted on the rows *taught*, by the textbook."""
    known, asked = (np.hstack([each, np.ones((len(each), 1))]) for each in (units[taught], rows))
    matrix = np.linalg.solve(known.T @ known + carry.ridge * np.eye(known.shape[1]), known.T @ directions[taught])
    moved = rows + carry.reach * asked @ matrix
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def engine_scores(metric, cosines, raw, query):
    """Return the scores of rows with these *cosines* and the lengths of *raw*."""
    lengths, asked = np.linalg.norm(raw.astype(float), axis=1), np.linalg.norm(query)
    if metric is Metric.EUCLID:
        return -(lengths**2) + 2 * lengths * asked * cosines
    return cosines if metric is Metric.COSINE else cosines * lengths


@settings(max_examples=12)
@given(seed=st.integers(0, 100_000), metric=st.sampled_from(list(Metric)))
def test_the_table_equals_fitting_anew_without_each_query_and_without_its_rows_and_their_neighbours(seed, metric):
    problem = Problem(seed, metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrying, "CONTENDERS", 10)  # all 25 unjudged rows, in a world so small that any may be first
        table = problem.table()
    for place in range(0, len(STEPS) * len(CARRIES), 7):
        step, carry = STEPS[place // len(CARRIES)], CARRIES[place % len(CARRIES)]
        for found, cold in ((table.warm[place], False), (table.cold[place], True)):
            expected = np.array([problem.brute_force(step, carry, query, cold=cold) for query in range(12)])
            clear = ~np.isnan(expected)
            np.testing.assert_allclose(found[clear], expected[clear], atol=1e-9)


def test_the_size_of_the_parts_changes_nothing(monkeypatch):
    problem = Problem(3, Metric.DOT)
    whole = problem.table()
    monkeypatch.setattr(carrying, "ROWS_AT_ONCE", 4)
    parts = problem.table()
    np.testing.assert_allclose(parts.warm, whole.warm, atol=1e-12)
    np.testing.assert_allclose(parts.cold, whole.cold, atol=1e-12)


@pytest.mark.parametrize("group", [3, 9, 50])
def test_a_fit_without_a_group_is_the_fit_of_the_others_also_of_more_rows_than_components(group):
    rng = np.random.default_rng(0)
    units, directions = unit(rng.normal(size=(60, 6)))[0], rng.normal(size=(60, 6)).astype(np.float32)
    (fit,) = Fit.of(iter([(units, directions)]), 6, [0.7])
    (others,) = Fit.of(iter([(units[group:], directions[group:])]), 6, [0.7])
    np.testing.assert_allclose(fit.without(units[:group], directions[:group]).matrix, others.map.matrix, atol=1e-9)


def test_neighbours_are_the_rows_that_share_a_query():
    graph = Neighbours.of(np.array([0, 0, 1, 1, 2]), np.array([3, 5, 5, 7, 9]))
    assert graph.around(np.array([3])).tolist() == [3, 5]
    assert sorted(graph.around(np.array([5])).tolist()) == [3, 5, 7]
    assert graph.around(np.array([9])).tolist() == [9]


def test_of_many_neighbours_a_bounded_number_is_left_out(monkeypatch):
    monkeypatch.setattr("nudge_vdb.ridge.MOST_NEIGHBOURS", 3)
    graph = Neighbours.of(np.zeros(50, np.int64), np.arange(50))
    around = graph.around(np.array([10, 20]))
    assert around[:2].tolist() == [10, 20]
    assert len(set(around.tolist())) == 5


def test_a_reach_is_the_tangent_of_the_angle_of_a_row_that_the_map_is_certain_of():
    units, across = np.eye(3, dtype=np.float32)[:1], np.eye(3)[1:2]
    assert turned(units, across, 0.75)[0] == pytest.approx([0.8, 0.6, 0])


def test_a_row_without_a_direction_is_not_carried():
    nowhere = np.zeros((1, 3), np.float32)
    assert not Map(np.ones((4, 3))).directions(nowhere).any()
