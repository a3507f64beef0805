"""The table of scores against brute force: every row rebuilt for every query and every step."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nudge_vdb import contenders, scoring, tracing
from nudge_vdb.budget import USUAL_BUDGET, Budget
from nudge_vdb.contract import Metric
from nudge_vdb.exam import Exam, Field
from nudge_vdb.metrics import Measure
from nudge_vdb.nudge import RAYS, STEPS, Method, Pulls, unit
from nudge_vdb.rivals import best_rows
from nudge_vdb.scoring import score_table

WAYS = [*((Method.NUDGE_N, metric) for metric in Metric), (Method.NUDGE_M, Metric.DOT)]
STEPS_TRIED = STEPS[Method.NUDGE_N][::10]


@dataclass
class Problem:
    """Queries that pull on some rows, and rows that nobody wants."""

    queries: np.ndarray
    wanted: np.ndarray
    rivals: np.ndarray
    query: np.ndarray
    row: np.ndarray
    weight: np.ndarray
    grade: np.ndarray
    metric: Metric
    method: Method

    def table(self, rule, budget=USUAL_BUDGET):
        units, lengths = unit(self.queries)
        by_row = np.argsort(self.row, kind="stable")
        pulls = Pulls(units, self.query[by_row], self.row[by_row], self.weight[by_row], len(self.wanted))
        exam = Exam(units, lengths, self.query, self.row, self.grade, self.weight)
        parts = [(np.arange(len(self.rivals)), self.rivals)] if len(self.rivals) else []
        rivals = best_rows(parts, units, lengths, rule.k, self.metric, budget).scores.astype(np.float64)
        order = np.zeros(len(self.wanted))
        field = Field(self.method, self.metric, pulls, lambda part: self.wanted[part], order, rivals, budget)
        return score_table(field, exam, rule, STEPS_TRIED)

    def brute_force(self, rule, cold):
        """Return the table; NaN where rows are so near to a tie that rounding may put them either way."""
        units, _ = unit(self.queries)
        rows, lengths = unit(self.wanted)
        table = np.empty((len(STEPS_TRIED), len(self.queries)))
        for query in range(len(self.queries)):
            own = self.row[self.query == query]
            weight = np.where(self.query == query, 0.0, self.weight)
            pulls = np.zeros_like(self.wanted, dtype=np.float64)
            np.add.at(pulls, self.row, weight[:, None] * units[self.query])
            for place, step in enumerate(STEPS_TRIED):
                moved = RAYS[self.method](rows, pulls, None).at(step)
                if cold:
                    moved[own] = rows[own]
                scores = self.engine_scores(query, np.concatenate([moved * lengths[:, None], self.rivals]))
                ranks = np.array([1 + (scores > scores[row]).sum() for row in own])
                near = max((np.abs(scores - scores[row]) < 1e-5).sum() for row in own)
                table[place, query] = rule.score(ranks, self.grade[self.query == query]) if near == 1 else np.nan
        return table

    def engine_scores(self, query, rows):
        wide, one = rows.astype(np.float64), self.queries[query].astype(np.float64)
        if self.metric is Metric.EUCLID:
            return -np.linalg.norm(wide - one, axis=1)
        scores = wide @ one
        return scores / np.linalg.norm(wide, axis=1) if self.metric is Metric.COSINE else scores


def random_problem(seed: int, method: Method, metric: Metric) -> Problem:
    """Rows around a few centres, so that moves change ranks; lengths other than 1; several judgements per row."""
    rng = np.random.default_rng(seed)
    queries, wanted, rivals, width = 12, 30, int(rng.integers(0, 60)), 6
    centres = rng.normal(size=(5, width))
    rows = centres[rng.integers(0, 5, wanted + rivals)] + 0.4 * rng.normal(size=(wanted + rivals, width))
    rows = (rows * rng.uniform(0.5, 2, (len(rows), 1))).astype(np.float32)
    asked = (centres[rng.integers(0, 5, queries)] + 0.4 * rng.normal(size=(queries, width))).astype(np.float32)
    pairs = sorted({(q, int(r)) for q in range(queries) for r in rng.integers(0, wanted, rng.integers(1, 5))})
    query, row = np.array(pairs).T
    weight, grade = rng.integers(1, 4, len(pairs)) * 1.0, rng.integers(1, 4, len(pairs)) * 1.0
    return Problem(asked, rows[:wanted], rows[wanted:], query, row, weight, grade, metric, method)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    way=st.sampled_from(WAYS),
    rule=st.sampled_from([Measure("ndcg", 10), Measure("ndcg", 3), Measure("recall", 5), Measure("mrr", 1)]),
)
def test_leaving_a_query_out_equals_training_without_it(seed, way, rule):
    problem = random_problem(seed, *way)
    table = problem.table(rule)
    for found, cold in ((table.warm, False), (table.cold, True)):
        expected = problem.brute_force(rule, cold)
        clear = ~np.isnan(expected)
        assert clear.mean() > 0.5
        np.testing.assert_allclose(found[clear], expected[clear], atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000), way=st.sampled_from(WAYS), size=st.sampled_from([1, 1000, 20_000, 100_000]))
def test_the_budget_changes_nothing(seed, way, size):
    """Down to one query, one pair, and sixteen rows at a time."""
    problem, rule = random_problem(seed, *way), Measure("ndcg", 10)
    whole, parts = problem.table(rule), problem.table(rule, Budget(size))
    assert (parts.warm == whole.warm).all()
    assert (parts.cold == whole.cold).all()


def test_where_too_many_pairs_can_win_fewer_queries_are_looked_at_together(monkeypatch):
    """Else the test above would show less than it says."""
    runs, traced = [], tracing.traced
    monkeypatch.setattr(scoring, "traced", lambda *given: (runs.append(run) or run for run in traced(*given)))
    random_problem(7, Method.NUDGE_N, Metric.COSINE).table(Measure("ndcg", 10), Budget(1))
    assert [(some.start, some.stop) for some, _, _ in runs] == [(query, query + 1) for query in range(12)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), way=st.sampled_from(WAYS))
def test_pruning_never_changes_the_answer(seed, way):
    problem, rule = random_problem(seed, *way), Measure("ndcg", 2)
    pruned = problem.table(rule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "certain_scores", lambda rivals, k: np.full((len(rivals), k), -np.inf, np.float32))
        patch.setattr(contenders.Pool, "_make_certain", lambda self, low: None)
        whole = problem.table(rule)
    assert (pruned.warm == whole.warm).all()
    assert (pruned.cold == whole.cold).all()


def test_pruning_leaves_most_pairs_unlooked_at(monkeypatch):
    """Else the test above would show nothing."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 24)).astype(np.float32)
    queries = rows[:50] + 0.3 * rng.normal(size=(50, 24)).astype(np.float32)
    row = rng.integers(0, 2000, 2000)
    query = np.sort(np.arange(2000) % 50)
    ones = np.ones(2000)
    problem = Problem(queries, rows[:2000], rows[2000:], query, row, ones, ones, Metric.COSINE, Method.NUDGE_N)
    looked_at = []
    whole = contenders.Pool.contenders
    monkeypatch.setattr(contenders.Pool, "contenders", recorded(whole, looked_at))
    problem.table(Measure("ndcg", 10))
    assert 0 < looked_at[0] < 0.5 * 50 * 2000


def recorded(method, counts):
    def call(pool):
        found = method(pool)
        counts.append(len(found.query))
        return found

    return call


def test_the_first_row_of_the_table_is_the_base():
    problem, rule = random_problem(11, Method.NUDGE_N, Metric.COSINE), Measure("ndcg", 10)
    table = problem.table(rule)
    assert (table.warm[0] == table.cold[0]).all()


@given(seed=st.integers(0, 100_000), farthest=st.floats(0.01, 1.5), method=st.sampled_from(list(Method)))
def test_no_step_on_the_way_leads_outside_the_bounds(seed, farthest, method):
    """With queries all around, some behind both the row and its direction."""
    rng = np.random.default_rng(seed)
    rays = RAYS[method](unit(rng.normal(size=(20, 3)))[0], rng.normal(size=(20, 3)), None)
    queries = unit(rng.normal(size=(30, 3)))[0].astype(np.float64)
    along, across = queries @ rays.units.T, queries @ rays.directions.T
    low, high = contenders.bounds(rays, along, across, farthest)
    for step in np.linspace(0, farthest, 40):
        cosines = queries @ rays.at(step).T.astype(np.float64)
        assert (cosines >= low - 1e-6).all()
        assert (cosines <= high + 1e-6).all()


def test_rows_that_tie_take_places_one_behind_the_other():
    own, crowd = np.array([[0.5], [0.9], [0.5]]), np.array([[0.5], [0.1]])
    assert scoring._ranks(own, crowd).tolist() == [[3], [1], [4]]
