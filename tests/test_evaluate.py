"""Scoring a version without making it live."""

import ir_measures
import numpy as np
import pytest
from ir_measures import Qrel, ScoredDoc

import nudge_vdb
from nudge_vdb.contract import Metric, StoredRow
from nudge_vdb.errors import BadOption, StateConflict
from nudge_vdb.judgements import Judgements
from nudge_vdb.testing import Faulty, MemoryCollection


@pytest.fixture
def score(world, tmp_path):
    """Score the test queries at a version of the state in tmp_path."""

    def act(version=None):
        found = nudge_vdb.evaluate(world.collection, world.test, version=version, state=tmp_path)
        assert found.version == version
        return found.scores["ndcg@10"]

    return act


@pytest.fixture
def planned(world, tmp_path):
    def act(judgements, step):
        return nudge_vdb.plan(world.collection, judgements, state=tmp_path, step=step, max_queries=30)

    return act


def test_every_version_scores_without_being_live_what_it_scores_when_it_is(world, score, planned, tmp_path):
    waiting = planned(world.fewer, 0.1)
    ahead = score(1)
    nudge_vdb.apply(waiting, force=True)
    assert score() == ahead
    nudge_vdb.apply(planned(world.train, 0.3), force=True)
    told = {version: score(version) for version in (0, 1, 2)}
    assert len(set(told.values())) == 3
    for version in (1, 0, 2):
        nudge_vdb.rollback(world.collection, to=version, state=tmp_path)
        assert score() == told[version]


def test_a_row_that_its_owner_embedded_again_is_scored_where_the_owner_put_it(world, score, planned, tmp_path):
    nudge_vdb.apply(planned(world.train, 0.3), force=True)
    world.fixture.re_embed(["row 000", "row 001"], -np.stack([world.vectors()[f"row {n:03}"] for n in (0, 1)]))
    told = {version: score(version) for version in (0, 1)}
    for version in (0, 1):
        nudge_vdb.rollback(world.collection, to=version, state=tmp_path)
        assert score() == told[version]


def test_scoring_a_version_writes_nothing(world, planned, tmp_path):
    nudge_vdb.apply(planned(world.train, 0.3), force=True)
    counted = Faulty(world.collection)
    nudge_vdb.evaluate(counted, world.test, version=0, state=tmp_path)
    assert counted.calls["write"] == counted.calls["leave_note"] == 0
    assert counted.calls["scan"] > 0


def test_a_version_that_there_is_not_is_refused_before_a_row_is_read(world, planned, tmp_path):
    planned(world.train, 0.3)
    counted = Faulty(world.collection)
    with pytest.raises(BadOption, match="no version 7; there are: 1"):
        nudge_vdb.evaluate(counted, world.test, version=7, state=tmp_path)
    with pytest.raises(StateConflict, match="holds no state"):
        nudge_vdb.evaluate(counted, world.test, version=0, state=tmp_path / "elsewhere")
    assert counted.calls["scan"] == 0


def test_queries_that_trained_what_is_scored_are_counted_and_the_others_scored_apart(world, planned, tmp_path):
    assert nudge_vdb.evaluate(world.collection, world.test, state=tmp_path).trained is None
    nudge_vdb.apply(planned(world.train, 0.02), force=True)
    both = Judgements.from_arrays(
        np.concatenate([world.train.vectors, world.test.vectors]),
        [[text] for text in world.train.rows + world.test.rows],
    )
    alone = nudge_vdb.evaluate(world.collection, world.test, state=tmp_path)
    assert (alone.trained, alone.unseen_scores) == (0, None)
    for version in (None, 1):
        mixed = nudge_vdb.evaluate(world.collection, both, version=version, state=tmp_path)
        assert mixed.trained == len(world.train)
        assert mixed.unseen_scores == pytest.approx(alone.scores, abs=1e-9)
        assert mixed.scores != pytest.approx(alone.scores, abs=1e-3)
    assert nudge_vdb.evaluate(world.collection, both, version=0, state=tmp_path).trained is None


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("copies", [5, 60])
def test_plan_and_evaluate_agree_with_trec_eval_however_many_rows_are_equal(metric, copies, tmp_path):
    rng = np.random.default_rng(0)
    pages = rng.normal(size=(40, 8)).astype(np.float32)
    queries = pages + 0.3 * rng.normal(size=(40, 8)).astype(np.float32)
    wanted = [str(place * copies + int(rng.integers(copies))) for place in range(40)]
    rows = {str(place): StoredRow(row, {}, {}) for place, row in enumerate(np.repeat(pages, copies, axis=0))}
    collection = MemoryCollection(metric, 8, rows=rows)
    judged = Judgements.from_arrays(queries, [[name] for name in wanted])
    told = nudge_vdb.plan(collection, judged, state=tmp_path, cold_share=0).report["before"]
    units, near = queries.astype(np.float64), pages.astype(np.float64)
    if metric is Metric.COSINE:
        near /= np.linalg.norm(near, axis=1, keepdims=True)
    scores = units @ near.T - ((near**2).sum(axis=1) / 2 if metric is Metric.EUCLID else 0)
    run = [ScoredDoc(str(q), name, scores[q, int(name) // copies]) for q in range(40) for name in rows]
    qrels = [Qrel(str(q), name, 1) for q, name in enumerate(wanted)]
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
    assert nudge_vdb.evaluate(collection, judged).scores["ndcg@10"] == pytest.approx(expected, abs=1e-9)
    assert told == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("copies", "warned"), [(5, False), (60, True)])
def test_a_plan_by_search_says_where_more_rows_are_equal_than_were_searched_for(copies, warned, tmp_path):
    rng = np.random.default_rng(0)
    pages = rng.normal(size=(40, 8)).astype(np.float32)
    queries = pages + 0.3 * rng.normal(size=(40, 8)).astype(np.float32)
    wanted = [[str(place * copies)] for place in range(40)]
    rows = {str(place): StoredRow(row, {}, {}) for place, row in enumerate(np.repeat(pages, copies, axis=0))}
    collection = MemoryCollection(Metric.COSINE, 8, rows=rows)
    judged = Judgements.from_arrays(queries, wanted)
    told = nudge_vdb.plan(collection, judged, state=tmp_path, rivals="exact", carry="off").report
    assert any("more equal rows" in warning for warning in told["warnings"]) == warned


@pytest.mark.parametrize("grades", [False, True])
def test_judged_rows_that_are_not_there_count_as_in_trec_eval_if_one_says_so(grades):
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(30, 8)).astype(np.float32)
    stored = {str(place): StoredRow(row, {}, {}) for place, row in enumerate(rows)}
    collection = MemoryCollection(Metric.DOT, 8, rows=stored)
    near = queries.astype(np.float64) @ rows.T.astype(np.float64)
    relevant = [{str(place): 2.0 for place in np.argsort(-row)[:3]} | {f"gone {n}": 1.0} for n, row in enumerate(near)]
    relevant[:5] = [{f"gone {query}": 1.0} for query in range(5)]
    judged = Judgements.from_arrays(queries, relevant)
    run = [ScoredDoc(str(q), str(place), near[q, place]) for q in range(30) for place in range(50)]
    pairs = [(str(q), name, int(grade)) for q, given in enumerate(relevant) for name, grade in given.items()]
    qrels = [Qrel(query, name, grade if grades else 1) for query, name, grade in pairs]
    asked = {"ndcg@10": ir_measures.nDCG @ 10, "recall@5": ir_measures.R @ 5}
    told = ir_measures.calc_aggregate(list(asked.values()), qrels, run)
    zero = nudge_vdb.evaluate(collection, judged, metric="ndcg@10,recall@5", grades=grades, missing="zero")
    assert zero.scores == pytest.approx({name: told[measure] for name, measure in asked.items()}, abs=1e-9)
    assert (zero.queries, zero.queries_missing, len(zero.missing)) == (30, 5, 30)
    skipped = nudge_vdb.evaluate(collection, judged, grades=grades)
    assert (skipped.queries, skipped.queries_missing, len(skipped.missing)) == (25, 5, 30)
    assert skipped.scores["ndcg@10"] == pytest.approx(1.0)
    with pytest.raises(BadOption, match="skip or zero"):
        nudge_vdb.evaluate(collection, judged, missing="none")
