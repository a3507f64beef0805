"""Rivals found by a search in the database: the same plan as by a scan, of far fewer rows."""

import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial
from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.backends import fill
from nudge_vdb.contract import Ability, Accuracy, Metric, Rows
from nudge_vdb.errors import BadOption, Refused, TooLarge, Unreachable
from nudge_vdb.gather import paced
from nudge_vdb.judgements import Judgements
from nudge_vdb.survey import TIED, Manner
from nudge_vdb.testing import Faulty, MemoryCollection, memory_fixture
from tests.crowd import ASKED, ROWS, arrays, figures, make_crowd, planned

DEPTH = 3 + TIED
METRICS = pytest.mark.parametrize("metric", list(Metric))


def memory(folder, rows, metric):
    return memory_fixture(replace(rows, ids=[f"{name:05}".lstrip("0") for name in rows.ids]), metric)


def qdrant(folder, rows, metric):
    return fill(f"qdrant+local://{folder}/db/rows", rows, metric)


def milvus(folder, rows, metric):
    return fill(f"milvus+lite://{folder}/rows.db/rows", rows, metric)


def of_kind(kind, tmp_path, rows, metric=Metric.DOT):
    inner = memory(tmp_path, rows, metric).collection
    return kind(inner.metric, inner.width, rows=inner.rows)


ENGINES = pytest.mark.parametrize("engine", [memory, qdrant, milvus])


def same_by_search_and_by_scan(collection, judgements, state, **choices):
    """Plan in both ways from copies of one state; return the plan by search when it is the same, bit for bit."""
    plans = {}
    for rivals in ("scan", "exact"):
        copy = state.with_name(f"{state.name}-{rivals}")
        shutil.rmtree(copy, ignore_errors=True)
        if state.exists():
            shutil.copytree(state, copy)
        plans[rivals] = planned(collection, judgements, copy, rivals=rivals, **choices)
    assert figures(plans["exact"]) == figures(plans["scan"])
    assert arrays(plans["exact"]) == arrays(plans["scan"])
    assert plans["exact"].report["rows_read"] < 0.75 * plans["scan"].report["rows_read"]
    return plans["exact"]


@ENGINES
@METRICS
def test_rivals_found_by_an_exact_search_make_the_plan_that_a_scan_makes(engine, metric, tmp_path):
    crowd, state = make_crowd(), tmp_path / "state"
    fixture = engine(tmp_path, crowd.rows, metric)
    collection = fixture.collection
    plan = same_by_search_and_by_scan(collection, crowd.train, state, test=crowd.test, step=0.3)
    assert plan.report["rivals"] == "exact"
    assert plan.report["rows"] == ROWS

    plan = planned(collection, crowd.train, state, rivals="exact", step=0.3)
    nudge_vdb.apply(plan, force=True)
    same_by_search_and_by_scan(collection, crowd.train, state, test=crowd.test)
    again = same_by_search_and_by_scan(collection, crowd.fewer, state, test=crowd.test)
    assert again.report["test"]["against_live"]

    judged, once_judged, bystander = 4, 1, 700
    theirs = np.random.default_rng(1).normal(size=(3, crowd.rows.vectors.shape[1])).astype(np.float32)
    ids = [crowd.rows.ids[place] for place in (judged, once_judged, bystander)]
    fixture.re_embed(list(map(str, ids)) if engine is memory else ids, theirs)
    moved = same_by_search_and_by_scan(collection, crowd.fewer, state)
    assert moved.report["re_embedded"] == sorted(map(str, ids[:2]))
    fixture.close()


@METRICS
def test_a_search_says_the_same_of_a_step_that_it_chose_and_proved_itself(metric, tmp_path):
    crowd = make_crowd(seed=1)
    collection = memory(tmp_path, crowd.rows, metric).collection
    plan = same_by_search_and_by_scan(collection, crowd.train, tmp_path / "state", validation=crowd.test)
    assert plan.step > 0


@pytest.mark.parametrize("spare", [1, 2])
def test_a_search_goes_deeper_where_rows_that_may_move_stand_before_the_others(spare, monkeypatch, tmp_path):
    monkeypatch.setattr("nudge_vdb.survey.Manner", partial(Manner, spare=spare))
    crowd, asked = make_crowd(seed=2), []

    class Watched(MemoryCollection):
        def search(self, queries, k, accuracy=Accuracy.INDEX):
            asked.append(k)
            return super().search(queries, k, accuracy)

    collection = of_kind(Watched, tmp_path, crowd.rows)
    same_by_search_and_by_scan(collection, crowd.train, tmp_path / "state")
    assert (len(set(asked)) > 1) == (spare == 1)


def test_where_there_are_fewer_rows_than_count_all_of_them_are_found(world, tmp_path):
    plans = [
        nudge_vdb.plan(world.collection, world.train, state=tmp_path / rivals, rivals=rivals, metric="ndcg@150")
        for rivals in ("scan", "exact")
    ]
    assert figures(plans[0]) == figures(plans[1])
    assert arrays(plans[0]) == arrays(plans[1])


@pytest.mark.parametrize("engine", [qdrant, milvus])
def test_within_a_scope_nothing_else_is_a_rival(engine, tmp_path):
    """Half of the rows are of the other team, and so are the answers of half of the queries."""
    crowd = make_crowd(seed=3)
    engine(tmp_path, crowd.rows, Metric.COSINE).close()
    address = {qdrant: f"qdrant+local://{tmp_path}/db/rows", milvus: f"milvus+lite://{tmp_path}/rows.db/rows"}[engine]
    with closing(nudge_vdb.connect(f"{address}?where=team:a")) as collection:
        plan = same_by_search_and_by_scan(collection, crowd.train, tmp_path / "state", test=crowd.test)
    assert plan.report["rows"] == ROWS // 2
    assert len(plan.report["judged_missing"]) == ASKED


PORTIONS = {
    "each takes as long as the others": (lambda asked: 0.3 * asked, [1, 2, 2, 2, 2, 2]),
    "each takes very long": (lambda asked: 4.0 * asked, [1, 2, 2, 2, 2, 2]),
    "each takes longer than is good": (lambda asked: 19.0 * asked, [1, 1, 1, 1, 1, 1]),
    "a request takes long, whatever is in it": (lambda asked: 6.0, [1, 2, 4, 8, 16, 32, 64, 128]),
    "all are quick": (lambda asked: 0.001 * asked, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]),
}


@pytest.mark.parametrize(("lasting", "sizes"), PORTIONS.values(), ids=PORTIONS)
def test_as_many_queries_go_out_at_once_as_are_answered_in_good_time(lasting, sizes, monkeypatch):
    clock, asked = [0.0], []
    monkeypatch.setattr("nudge_vdb.gather.time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def ask(queries):
        clock[0] += lasting(len(queries))
        asked.append(len(queries))
        return [[b"row"]] * len(queries)

    total = sum(sizes)
    assert sum(map(len, paced(ask, np.zeros((total, 3), np.float32)))) == total
    assert asked == sizes


def test_only_the_queries_that_are_drawn_to_be_scored_are_searched_for(tmp_path):
    crowd, searched = make_crowd(), []

    class Watched(MemoryCollection):
        def search(self, queries, k, accuracy=Accuracy.INDEX):
            searched.extend(queries.tolist())
            return super().search(queries, k, accuracy)

    inner = memory(tmp_path, crowd.rows, Metric.DOT).collection
    collection = Watched(inner.metric, inner.width, rows=inner.rows)
    plan = same_by_search_and_by_scan(collection, crowd.train, tmp_path / "state", max_queries=12, seed=3)
    assert plan.report["scored_queries"] == 12
    asked = {tuple(query) for query in searched}
    assert len(asked) == 12
    assert asked <= {tuple(query) for query in crowd.train.vectors.tolist()}


@pytest.mark.parametrize("engine", [memory, qdrant])
def test_rows_without_the_vector_and_with_nan_change_nothing_and_were_not_looked_for(engine, tmp_path):
    crowd = make_crowd(gaps=True)
    rows = crowd.rows
    if engine is memory:
        rows.vectors[[60, 61, 700], 0] = np.nan
    fixture = engine(tmp_path, rows, Metric.EUCLID)
    plan = same_by_search_and_by_scan(fixture.collection, crowd.train, tmp_path / "state", test=crowd.test)
    assert (plan.report["rows_without_vector"], plan.report["rows_not_finite"]) == (None, None)
    fixture.close()


@pytest.mark.parametrize("rivals", ["scan", "exact"])
def test_queries_of_another_model_are_warned_of_however_rivals_are_found(rivals, tmp_path):
    crowd, rng = make_crowd(), np.random.default_rng(0)
    collection = memory(tmp_path, crowd.rows, Metric.COSINE).collection
    strange = rng.normal(size=(60, crowd.rows.vectors.shape[1]))
    judgements = Judgements.from_arrays(strange, [[str(row + 1)] for row in rng.choice(ROWS, 60)])
    warned = planned(collection, judgements, tmp_path / "state", rivals=rivals).report["warnings"]
    assert any("embedded with the model of this collection" in warning for warning in warned)
    fine = planned(collection, crowd.train, tmp_path / "other", rivals=rivals).report["warnings"]
    assert not any("embedded with the model" in warning for warning in fine)


class NearsightedIndex(MemoryCollection):
    """Its index misses every third of the best rows."""

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        if accuracy is Accuracy.EXACT:
            return super().search(queries, k)
        return [
            [key for place, key in enumerate(hits) if place % 3 != 2][:k] for hits in super().search(queries, 2 * k)
        ]


class RowsWithNaNFirst(MemoryCollection):
    """Rows that cannot be compared with anything stand before all others."""

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        odd = [text.encode() for text, row in self.rows.items() if not np.isfinite(row.vector).all()]
        return [[*odd, *(key for key in hits if key not in odd)][:k] for hits in super().search(queries, k)]


def test_rows_that_cannot_be_scored_take_no_place_among_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.gather.FIRST_ASKED", 100)
    crowd = make_crowd()
    crowd.rows.vectors[300:360, 2] = np.inf
    collection = of_kind(RowsWithNaNFirst, tmp_path, crowd.rows)
    same_by_search_and_by_scan(collection, crowd.train, tmp_path / "state")


def test_an_index_that_misses_rows_is_measured_and_warned_of(tmp_path):
    crowd = make_crowd()
    collection = of_kind(NearsightedIndex, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state", rivals="search").report
    assert report["rivals_recall"] == pytest.approx(2 / 3, abs=0.03)
    assert any("--rivals exact" in warning for warning in report["warnings"])


class HastyIndex(NearsightedIndex):
    """It misses rows unless it is asked for *enough*, and refuses to be asked for more than *most*."""

    enough, most = 3 * DEPTH, 1000

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.asked = []

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        if k > self.most:
            raise Refused(f"no more than {self.most}")
        if accuracy is Accuracy.INDEX:
            self.asked.append(k)
        return super().search(queries, k, Accuracy.EXACT if k >= self.enough else accuracy)


class Approximate(HastyIndex):
    """Nobody can tell how much it misses."""

    @property
    def traits(self):
        return replace(super().traits, abilities=super().traits.abilities - {Ability.EXACT_SEARCH})


def searched(tmp_path, kind, **limits):
    """Plan by a search in an index of *kind*; return what it was asked for, and the report."""
    crowd = make_crowd()
    collection = of_kind(type("Limited", (kind,), limits), tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state", rivals="search").report
    return collection.asked, report


@pytest.mark.parametrize("times", [1.5, 3, 6])
def test_an_index_is_asked_for_as_many_rows_as_it_takes_to_find_the_best(times, tmp_path):
    enough = ceil(times * DEPTH)
    asked, report = searched(tmp_path, HastyIndex, enough=enough)
    assert report["rivals_recall"] == 1.0
    assert list(dict.fromkeys(asked[: asked.index(enough) + 1])) == [
        ceil(each * DEPTH) for each in (1.5, 3, 6) if each <= times
    ]
    assert min(asked[asked.index(enough) :]) == enough
    assert not any("--rivals exact" in warning for warning in report["warnings"])


@pytest.mark.parametrize(("most", "kind"), [(3 * DEPTH, HastyIndex), (2 * DEPTH, HastyIndex), (2 * DEPTH, Approximate)])
def test_an_index_that_refuses_to_be_asked_for_more_is_asked_for_less(most, kind, tmp_path):
    asked, report = searched(tmp_path, kind, enough=6 * DEPTH, most=most)
    assert asked[-1] == ceil(1.5 * DEPTH)
    assert report["rivals"] == "search"
    assert report["warnings"]


def test_an_index_whose_misses_cannot_be_counted_is_asked_for_more_and_warned_of(tmp_path):
    crowd = make_crowd()
    collection = of_kind(Approximate, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state", rivals="search").report
    assert report["rivals_recall"] is None
    assert min(collection.asked) == 3 * DEPTH
    assert any("cannot be measured" in warning for warning in report["warnings"])
    with pytest.raises(BadOption, match="--rivals scan"):
        planned(collection, crowd.train, tmp_path / "other", rivals="exact")


class Served(MemoryCollection):
    """As if it were on a server."""

    @property
    def traits(self):
        return replace(super().traits, abilities=frozenset(Ability))


class NearsightedServer(Served, NearsightedIndex):
    pass


@pytest.fixture
def many(monkeypatch):
    """Let a few hundred rows be many."""
    monkeypatch.setattr("nudge_vdb.survey.FEW_ROWS", 100)
    monkeypatch.setattr("nudge_vdb.survey.MUCH", 2.0)


def test_few_rows_are_scanned_unless_somebody_wants_otherwise(tmp_path):
    crowd = make_crowd()
    collection = of_kind(Served, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state").report
    assert (report["rivals"], report["rivals_reason"]) == ("scan", "1,200 rows are few")


def test_many_rows_are_searched(many, tmp_path):
    crowd = make_crowd()
    collection = of_kind(Served, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state").report
    assert (report["rivals"], report["rivals_recall"]) == ("search", 1.0)


def test_many_rows_are_scanned_where_a_search_would_read_much_of_them(many, monkeypatch, tmp_path):
    monkeypatch.setattr("nudge_vdb.survey.MUCH", 0.2)
    crowd = make_crowd()
    collection = of_kind(Served, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state").report
    assert report["rivals"] == "scan"
    assert "a search would read" in report["rivals_reason"]


def test_many_rows_are_searched_exactly_where_the_index_is_poor(many, tmp_path):
    crowd = make_crowd()
    collection = of_kind(NearsightedServer, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state").report
    assert report["rivals"] == "exact"
    assert "finds only 0.6" in report["rivals_reason"]
    assert report["warnings"] == planned(collection, crowd.train, tmp_path / "other", rivals="scan").report["warnings"]


@ENGINES
def test_rows_that_an_engine_holds_in_this_process_are_scanned_however_many_there_are(engine, many, tmp_path):
    crowd = make_crowd()
    with closing(engine(tmp_path, crowd.rows, Metric.COSINE)) as fixture:
        report = planned(fixture.collection, crowd.train, tmp_path / "state").report
    assert (report["rivals"], report["rivals_reason"]) == ("scan", "the rows are in this process")


def refusing(collection):
    def refuse():
        raise Refused("no privilege to search")

    return Faulty(collection, before={("search", number): refuse for number in range(1, 100)})


def test_many_rows_are_scanned_where_the_engine_refuses_to_search(many, tmp_path):
    crowd = make_crowd()
    collection = refusing(of_kind(Served, tmp_path, crowd.rows))
    report = planned(collection, crowd.train, tmp_path / "state").report
    assert report["rivals"] == "scan"
    assert "no privilege to search" in report["rivals_reason"]
    with pytest.raises(Refused, match="--rivals scan"):
        planned(collection, crowd.train, tmp_path / "state", rivals="search")


def test_many_rows_are_scanned_where_an_answer_to_one_query_is_too_large(many, tmp_path):
    crowd = make_crowd()

    class Terse(Served):
        def search(self, queries, k, accuracy=Accuracy.INDEX):
            raise TooLarge("the reply would be too large")

    collection = of_kind(Terse, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state").report
    assert report["rivals"] == "scan"
    assert "a single query too large" in report["rivals_reason"]


def one_topic():
    """Rows of which all those of one topic are judged, by queries of that topic: they stand before all others."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 8)).astype(np.float32)
    vectors[:1500] = 0.3 * vectors[:1500] + 3 * np.eye(8, dtype=np.float32)[0]
    queries = 3 * np.eye(8)[0] + 0.3 * rng.normal(size=(60, 8))
    relevant = [(1 + part).astype(str).tolist() for part in np.array_split(rng.permutation(1500), 60)]
    return Rows(list(range(1, 4001)), vectors, [{} for _ in vectors]), Judgements.from_arrays(queries, relevant)


class Counting(Served):
    named = most = 0

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        hits = super().search(queries, k, accuracy)
        self.named += sum(map(len, hits))
        self.most = max(self.most, len(queries) * k)
        return hits


def test_a_search_that_would_name_most_rows_before_it_finds_others_becomes_a_scan(many, tmp_path):
    rows, judgements = one_topic()
    collection = of_kind(Counting, tmp_path, rows)
    report = planned(collection, judgements, tmp_path / "state").report
    assert report["rivals"] == "scan"
    assert "stand before all others" in report["rivals_reason"]
    assert collection.named < 2 * len(rows.ids)


def test_where_a_deep_search_is_asked_for_no_answer_is_larger_than_the_first(tmp_path):
    rows, judgements = one_topic()
    collection = of_kind(Counting, tmp_path, rows)
    report = planned(collection, judgements, tmp_path / "state", rivals="exact").report
    assert report["rivals"] == "exact"
    assert collection.most <= max(64 * ceil(1.5 * DEPTH), 2 * 1500 + 2 * DEPTH)


def test_an_exact_search_that_is_not_answered_in_time_leaves_the_recall_unknown(tmp_path, monkeypatch, waits):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "0")
    crowd = make_crowd()

    class Slow(MemoryCollection):
        def search(self, queries, k, accuracy=Accuracy.INDEX):
            if accuracy is Accuracy.EXACT:
                raise Unreachable("the deadline is exceeded")
            return super().search(queries, k, accuracy)

    report = planned(of_kind(Slow, tmp_path, crowd.rows), crowd.train, tmp_path / "state", rivals="search").report
    assert report["rivals_recall"] is None
    assert any("cannot be measured" in warning for warning in report["warnings"])


def test_carrying_takes_all_rows(many, tmp_path):
    crowd = make_crowd()
    collection = of_kind(Served, tmp_path, crowd.rows)
    report = planned(collection, crowd.train, tmp_path / "state", carry="on").report
    assert (report["rivals"], report["rivals_reason"]) == ("scan", "carry on needs all rows")
    for rivals in ("search", "exact"):
        with pytest.raises(BadOption, match="use scan"):
            planned(collection, crowd.train, tmp_path / "state", carry="auto", rivals=rivals)


def test_after_rows_were_carried_there_is_nothing_to_search_for(many, tmp_path):
    crowd, state = make_crowd(), tmp_path / "state"
    collection = of_kind(Served, tmp_path, crowd.rows)
    nudge_vdb.apply(planned(collection, crowd.train, state, carry="on", step=0.2), force=True)
    with pytest.raises(BadOption, match="use --rivals scan"):
        planned(collection, crowd.train, state, rivals="search")


def test_a_way_of_finding_rivals_that_there_is_not_is_refused(tmp_path):
    crowd = make_crowd()
    collection = of_kind(Served, tmp_path, crowd.rows)
    with pytest.raises(BadOption, match="expected auto, scan, search or exact"):
        planned(collection, crowd.train, tmp_path / "state", rivals="guess")


@pytest.mark.parametrize("call", [("search", 1), ("search", 3), ("fetch", 1), ("fetch", 4)])
def test_a_search_that_fails_leaves_no_copies_behind_and_the_next_plan_is_whole(call, tmp_path, monkeypatch, waits):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "0")

    def away():
        raise Unreachable("nobody there")

    crowd, state = make_crowd(), tmp_path / "state"
    inner = of_kind(Served, tmp_path, crowd.rows)
    with pytest.raises(Unreachable):
        planned(Faulty(inner, before={call: away}), crowd.train, state, rivals="exact")
    assert not list(tmp_path.rglob("vectors.f32"))
    plan = planned(inner, crowd.train, state, rivals="scan")
    assert figures(plan) == figures(planned(inner, crowd.train, tmp_path / "other", rivals="scan"))


def test_a_scan_does_not_go_on_from_what_a_search_that_died_had_gathered(tmp_path, monkeypatch):
    crowd, state = make_crowd(), tmp_path / "state"
    collection = of_kind(Served, tmp_path, crowd.rows)
    monkeypatch.setattr("nudge_vdb.survey.forget", lambda _: None)  # as if it had been killed
    monkeypatch.setattr("nudge_vdb.run.forget_unless_interrupted", lambda _: None)

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned(Faulty(collection, before={("search", 2): killed}), crowd.train, state, rivals="exact")
    assert list(tmp_path.rglob("vectors.f32"))
    assert planned(collection, crowd.train, state, rivals="scan").report["rows_read"] == ROWS
