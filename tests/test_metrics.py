"""Measures: the numbers that trec_eval gives, read out of the ranks of the relevant rows alone."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nudge_vdb.errors import BadOption
from nudge_vdb.metrics import Measure, parse_measure
from nudge_vdb.ranking import ranked, score_ranking
from nudge_vdb.rivals import Best

CUTOFFS = (1, 3, 10, 100)
TREC_EVAL = ir_measures.providers.PytrecEvalProvider()
OURS = [parse_measure(f"{name}@{k}") for k in CUTOFFS for name in ("ndcg", "recall", "precision", "mrr")]


@st.composite
def searches(draw):
    """A run {id: score}, with ties wherever *levels* are few, and its qrels {id: grade}, some of them not found."""
    count, levels, judged = draw(st.integers(1, 130)), draw(st.sampled_from([1, 3, 10**6])), draw(st.integers(1, 15))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    names = [str(number) for number in rng.permutation(count + 5)]
    run = {name: float(rng.integers(levels)) for name in names[:count]}
    qrels = {name: int(rng.integers(-1, 4)) for name in rng.permutation(names)[:judged].tolist()}
    qrels[draw(st.sampled_from(names))] = 2
    return run, qrels


def by_trec_eval(run, qrels):
    """Return what trec_eval says, in the order of OURS.

    Its reciprocal rank has no cutoff, and the reciprocal rank of ir_measures that has one orders ties as they
    come, so trec_eval's is cut here: a first relevant row beyond K counts nothing.
    """
    asked = [measure for k in CUTOFFS for measure in (ir_measures.nDCG @ k, ir_measures.R @ k, ir_measures.P @ k)]
    said = TREC_EVAL.calc_aggregate([*asked, ir_measures.RR], {"q": qrels}, {"q": run})
    reciprocal = said[ir_measures.RR]
    return [
        score
        for k in CUTOFFS
        for score in (
            said[ir_measures.nDCG @ k],
            said[ir_measures.R @ k],
            said[ir_measures.P @ k],
            reciprocal if reciprocal * k >= 1 - 1e-9 else 0.0,
        )
    ]


@given(searches())
def test_every_measure_is_what_trec_eval_says_ties_included(search):
    run, qrels = search
    names = list(run)
    best = Best(np.array([list(run.values())], np.float32), np.arange(len(names))[None])
    ranking = ranked(best, 0, lambda places: [names[place] for place in places])
    relevant = {name: float(grade) for name, grade in qrels.items() if grade > 0}
    assert score_ranking(ranking, relevant, OURS) == pytest.approx(by_trec_eval(run, qrels), abs=1e-9)


def test_a_ranking_scored_by_hand():
    scores = score_ranking(list("axbyc"), {"a": 1.0, "b": 3.0, "z": 2.0}, [Measure(n, 3) for n in ("ndcg", "recall")])
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    assert scores == pytest.approx([(1 + 3 / 2) / ideal, 2 / 3])


def test_many_rankings_are_scored_at_once_one_a_column():
    ranks, grades = np.array([[1, 2, 9], [4, 1, 8]]), np.array([2.0, 1.0])
    for measure in OURS:
        apart = [float(measure.score(column, grades)) for column in ranks.T]
        assert measure.score(ranks, grades).tolist() == pytest.approx(apart)


def test_equal_scores_are_ordered_by_id_descending():
    best = Best(np.array([[1, 2, 1, 2, -np.inf]], np.float32), np.array([[0, 1, 2, 3, -1]]))
    assert ranked(best, 0, lambda places: ["abcd"[place] for place in places]) == ["d", "b", "c", "a"]


@pytest.mark.parametrize(("text", "measure"), [("ndcg@10", Measure("ndcg", 10)), (" MRR@1000 ", Measure("mrr", 1000))])
def test_a_measure_is_read_however_it_is_spelled(text, measure):
    assert parse_measure(text) == measure
    assert parse_measure(str(measure)) == measure


@pytest.mark.parametrize("text", ["", "ndcg", "ndcg@", "ndcg@0", "ndcg@1001", "ndcg@-1", "ndcg@ten", "map@10", "@10"])
def test_a_measure_nobody_knows_is_refused_with_those_there_are(text):
    with pytest.raises(BadOption) as refusal:
        parse_measure(text)
    assert f"metric {text!r}: expected one of ndcg@K, recall@K, precision@K, mrr@K" in str(refusal.value)
