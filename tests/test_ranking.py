"""Ranking by streaming rows past: the same rows and the same scores as looking at all of them at once."""

from itertools import pairwise

import ir_measures
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ir_measures import Qrel, ScoredDoc

from nudge_vdb import ranking
from nudge_vdb.contract import Metric
from nudge_vdb.judgements import Judgements
from nudge_vdb.metrics import parse_measure
from nudge_vdb.nudge import unit
from nudge_vdb.ranking import score_ranking, scores
from nudge_vdb.rivals import best_rows, engine_score

MEASURES = [parse_measure(text) for text in ("ndcg@5", "recall@3", "precision@10", "mrr@100")]
METRICS = list(Metric)


def brute(metric, queries, vectors):
    """Return every score in float64 by the textbook: cosine, inner product, or the negative squared distance."""
    queries, vectors = queries.astype(np.float64), vectors.astype(np.float64)
    if metric is Metric.EUCLID:
        return -((queries[:, None] - vectors[None]) ** 2).sum(axis=2)
    products = queries @ vectors.T
    if metric is Metric.DOT:
        return products
    return products / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)


def streamed(vectors, cuts):
    """Return the rows in parts that end at *cuts*, some of them empty."""
    edges = [0, *sorted(cuts), len(vectors)]
    places = np.arange(len(vectors))
    return [(places[first:last], vectors[first:last]) for first, last in pairwise(edges)]


@st.composite
def collections(draw):
    """Queries, rows of several lengths, and where the stream of rows is cut."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, width = draw(st.integers(1, 60)), draw(st.integers(2, 9))
    vectors = rng.normal(size=(count, width)) * rng.uniform(0.2, 3, size=(count, 1))
    queries = rng.normal(size=(draw(st.integers(1, 6)), width)) * 1.7
    return queries.astype(np.float32), vectors.astype(np.float32), draw(st.lists(st.integers(0, count), max_size=6))


def judged(queries, count, seed=0):
    """Return up to four relevant rows of *count* for each query, with grades; one of them is nowhere."""
    rng = np.random.default_rng(seed)
    relevant = [
        {str(place): float(rng.integers(1, 4)) for place in rng.integers(count, size=3)} | {"nowhere": 1.0}
        for _ in queries
    ]
    return Judgements.from_arrays(queries, relevant)


def texts(places):
    return [str(place) for place in places]


def by_hand(judgements, found, measures=MEASURES):
    """Score the rows in the order of *found* (nq, n), best first, equal ones by id descending."""
    columns = []
    for query, row in enumerate(found):
        order = sorted(range(len(row)), key=lambda place: (row[place], str(place)), reverse=True)
        columns.append(score_ranking(texts(order), dict(judgements.relevant(query)), measures))
    return np.array(columns).T


@pytest.mark.parametrize("metric", METRICS)
@given(collections(), st.integers(1, 70))
def test_the_best_rows_are_those_of_brute_force_however_the_rows_are_streamed(metric, collection, k):
    queries, vectors, cuts = collection
    units, lengths = unit(queries)
    best = best_rows(streamed(vectors, cuts), units, lengths, k, metric)
    expected = brute(metric, queries, vectors)
    if metric is Metric.EUCLID:
        expected += (queries.astype(np.float64) ** 2).sum(axis=1)[:, None]
    if metric is Metric.DOT:
        expected /= np.linalg.norm(queries.astype(np.float64), axis=1)[:, None]
    tolerance = 1e-5 * (1 + np.abs(expected).max())
    for query, places in enumerate(best.places):
        held = places[places >= 0]
        assert len(set(held.tolist())) == len(held) == min(k, len(vectors))
        assert best.scores[query][places >= 0] == pytest.approx(expected[query][held], abs=tolerance)
        assert (best.scores[query][places < 0] == -np.inf).all()
        assert expected[query][held].min() >= np.sort(expected[query])[::-1][len(held) - 1] - tolerance


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("equal", [0.0, 0.9])
def test_the_best_rows_are_exact_where_float32_cannot_tell_them_apart(metric, equal, monkeypatch):
    monkeypatch.setattr("nudge_vdb.budget.LARGEST_BLOCK", 64 * 20)
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(20, 384)).astype(np.float32)
    vectors = (queries[rng.integers(0, 20, 3000)] + 1e-3 * rng.normal(size=(3000, 384))).astype(np.float32)
    vectors[rng.random(3000) < equal] = vectors[0]
    units, lengths = unit(queries)
    best = best_rows(streamed(vectors, [1000, 1001]), units, lengths, 10, metric)
    rows, own = unit(vectors)
    exact = engine_score(metric, units.astype(np.float64) @ rows.T, own, lengths[:, None]).astype(np.float32)
    assert (np.sort(best.scores) == np.sort(exact)[:, -10:]).all()
    assert (np.take_along_axis(exact, best.places, 1) == best.scores).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("equal", [0.0, 0.9])
def test_rows_without_a_place_take_no_part_and_others_no_notice_of_them(metric, equal):
    rng = np.random.default_rng(0)
    queries, vectors = (rng.normal(size=(count, 16)).astype(np.float32) for count in (20, 3000))
    vectors[rng.random(3000) < equal] = vectors[0]
    taking_part = rng.random(3000) < 0.5
    places = np.where(taking_part, np.arange(3000), -1)
    vectors[~taking_part] *= 100
    some = [(places[first : first + 700], vectors[first : first + 700]) for first in range(0, 3000, 700)]
    others = [(np.flatnonzero(taking_part), vectors[taking_part])]
    found, expected = (best_rows(parts, *unit(queries), 10, metric) for parts in (some, others))
    assert (np.sort(found.scores) == np.sort(expected.scores)).all()
    assert taking_part[found.places].all()


@pytest.mark.parametrize("metric", METRICS)
@given(collections(), st.integers(0, 100))
def test_scores_are_those_of_brute_force_however_the_rows_are_streamed(metric, collection, seed):
    queries, vectors, cuts = collection
    expected = brute(metric, queries, vectors)
    gaps = np.diff(np.sort(expected, axis=1), axis=1)
    assume(gaps.size == 0 or gaps.min() > 1e-5 * (1 + np.abs(expected).max()))
    judgements = judged(queries, len(vectors), seed)
    found = scores(judgements, lambda: streamed(vectors, cuts), texts, metric, MEASURES)
    assert found == pytest.approx(by_hand(judgements, expected), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 36), max_size=6))
def test_rows_that_are_the_same_vector_are_ordered_by_id_however_they_are_streamed(metric, seed, cuts):
    rng = np.random.default_rng(seed)
    queries, distinct = rng.normal(size=(5, 384)).astype(np.float32), rng.normal(size=(6, 384)).astype(np.float32)
    vectors = distinct[rng.permutation(np.arange(36) % 6)]
    judgements = judged(queries, 36, seed)
    expected = by_hand(judgements, brute(metric, queries, vectors).round(9))
    assert scores(judgements, lambda: streamed(vectors, cuts), texts, metric, MEASURES) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("metric", METRICS)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 400), max_size=6), distinct=st.integers(1, 4))
def test_however_many_rows_are_equal_the_scores_are_those_of_trec_eval(kind, metric, seed, cuts, distinct):
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(5, 24)).astype(np.float32)
    vectors = rng.normal(size=(distinct, 24)).astype(kind).astype(np.float32)[rng.integers(0, distinct, 400)]
    judgements = judged(queries, 400, seed)
    found = scores(judgements, lambda: streamed(vectors, cuts), texts, metric, MEASURES[:3])
    run = [
        ScoredDoc(str(query), str(place), score)
        for query, row in enumerate(brute(metric, queries, vectors).round(9))
        for place, score in enumerate(row.tolist())
    ]
    relevant = [Qrel(str(query), name, int(grade)) for query in range(5) for name, grade in judgements.relevant(query)]
    asked = [ir_measures.nDCG @ 5, ir_measures.R @ 3, ir_measures.P @ 10]
    told = ir_measures.providers.PytrecEvalProvider().calc_aggregate(asked, relevant, run)
    assert found.mean(axis=1) == pytest.approx([told[measure] for measure in asked])


@pytest.mark.parametrize("metric", METRICS)
def test_many_queries_are_scored_in_portions_with_the_same_result(metric, monkeypatch):
    rng = np.random.default_rng(3)
    queries, vectors = rng.normal(size=(11, 8)).astype(np.float32), rng.normal(size=(50, 8)).astype(np.float32)
    judgements, streams = judged(queries, 50), []

    def parts():
        streams.append(1)
        return iter(streamed(vectors, [7, 31]))

    at_once = scores(judgements, parts, texts, metric, MEASURES)
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 4)
    assert scores(judgements, parts, texts, metric, MEASURES).tolist() == at_once.tolist()
    assert at_once.shape == (len(MEASURES), 11)
    assert len(streams) == 1 + 3


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_take_no_part_even_where_a_query_wants_them(broken, metric):
    vectors = np.array([[1, 0], [0, broken], [1, 1]], np.float32)
    judgements = Judgements.from_arrays([[1.0, 0.2]], [["1"]])
    for cuts in ([], [1], [1, 2]):
        found = scores(judgements, lambda cuts=cuts: streamed(vectors, cuts), texts, metric, MEASURES)
        assert found.tolist() == [[0.0]] * len(MEASURES)


@pytest.mark.parametrize("metric", METRICS)
def test_without_rows_every_score_is_zero(metric):
    judgements = Judgements.from_arrays([[1.0, 0.2]], [["1"]])
    assert scores(judgements, lambda: [], texts, metric, MEASURES).tolist() == [[0.0]] * len(MEASURES)


def test_a_row_that_is_tied_at_the_cutoff_is_kept_or_dropped_by_its_id():
    vectors = np.tile(np.array([[1, 0]], np.float32), (40, 1))
    measure = parse_measure("recall@8")
    by_id = sorted(map(str, range(40)), reverse=True)
    for name in by_id:
        judgements = Judgements.from_arrays([[1.0, 0.0]], [[name]])
        found = scores(judgements, lambda: streamed(vectors, [9]), texts, Metric.COSINE, [measure])
        assert found.tolist() == [[float(name in by_id[:8])]]
