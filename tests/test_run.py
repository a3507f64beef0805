"""The life of a collection: plan, apply, tune again, roll back, and what others do meanwhile."""

import errno
import itertools
import shutil

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Metric, Outcome, Page, Rows, agree
from nudge_vdb.errors import (
    BadJudgements,
    BadOption,
    Locked,
    NotProven,
    StateConflict,
    StateDamaged,
    UnfitCollection,
    Unknown,
)
from nudge_vdb.judgements import Judgements
from nudge_vdb.run import open_state
from nudge_vdb.testing import Faulty, memory_fixture


def tune(world, tmp_path, judgements=None, **choices):
    plan = nudge_vdb.plan(world.collection, judgements or world.train, state=tmp_path, **choices)
    return plan, nudge_vdb.apply(plan)


def same(left, right, tolerance=1e-6):
    return left.keys() == right.keys() and all(
        agree(left[text][None], right[text][None], tolerance)[0] for text in left
    )


def noise_judgements(world, seed=0, queries=60):
    """Judgements that carry no signal: rows drawn independently for each query."""
    rng = np.random.default_rng(seed)
    texts = sorted(world.fixture.read())
    vectors = rng.normal(size=(queries, world.collection.width))
    return Judgements.from_arrays(vectors, [[texts[rng.integers(0, len(texts))]] for _ in range(queries)])


@pytest.mark.parametrize("metric", list(Metric))
def test_a_proven_plan_moves_the_judged_rows_and_nothing_else(worlds, metric, tmp_path):
    world = worlds(metric)
    before = world.fixture.read()
    plan, applied = tune(world, tmp_path, test=world.test)
    assert plan.proven
    assert plan.gain > 0.05
    assert applied.written == plan.report["moved"] == 80
    after = world.fixture.read()
    for text, row in before.items():
        assert after[text].payload == row.payload
        assert after[text].others == row.others
        length, new_length = np.linalg.norm(row.vector), np.linalg.norm(after[text].vector)
        assert new_length == pytest.approx(length, rel=1e-5)
    moved = {text for text in before if (after[text].vector != before[text].vector).any()}
    assert moved == set(world.train.rows)


@pytest.mark.parametrize("rivals", ["scan", "exact"])
@pytest.mark.parametrize("metric", ["mrr@1", "ndcg@3"])
def test_a_plan_orders_rows_of_equal_vectors_as_evaluate_does(metric, rivals, tmp_path):
    """Every vector stands twelve times, under ids of any order, and one of the twelve is judged."""
    rng, copies = np.random.default_rng(1), 12
    vectors = rng.normal(size=(40, 16)).astype(np.float32)
    ids = [f"{number:05}" for number in rng.permutation(40 * copies)]
    collection = memory_fixture(Rows(ids, np.repeat(vectors, copies, 0), [{} for _ in ids])).collection
    answers = [[ids[place * copies + copies // 2]] for place in range(40)]
    train, test = (
        Judgements.from_arrays(
            vectors + 0.5 * rng.normal(size=vectors.shape), answers, [f"{name}{n}" for n in range(40)]
        )
        for name in ("a", "b")
    )
    plan = nudge_vdb.plan(collection, train, test=test, metric=metric, rivals=rivals, cold_share=0, state=tmp_path)
    before = nudge_vdb.evaluate(collection, test, metric=metric).scores[metric]
    assert plan.report["test"]["before"] == pytest.approx(before, abs=1e-9)


def test_queries_of_another_model_prove_nothing_however_much_they_gain(world, tmp_path):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(world.collection.width,) * 2))[0]
    turned = [vector @ turn for vector in world.train.vectors]
    relevant = [[text] for text in world.train.rows]
    plan = nudge_vdb.plan(world.collection, Judgements.from_arrays(turned, relevant), state=tmp_path, cold_share=0)
    assert plan.report["gain_low"] > 0
    assert not plan.proven
    assert "no nearer to their queries" in plan.report["reason"]
    assert plan.report["alternatives"] == []
    with pytest.raises(NotProven, match="no nearer to their queries"):
        nudge_vdb.apply(plan)


@pytest.mark.parametrize("metric", list(Metric))
def test_what_the_plan_foretells_is_what_evaluate_measures_afterwards(worlds, metric, tmp_path):
    world = worlds(metric)
    before = nudge_vdb.evaluate(world.collection, world.test).scores["ndcg@10"]
    plan, _ = tune(world, tmp_path, test=world.test)
    after = nudge_vdb.evaluate(world.collection, world.test).scores["ndcg@10"]
    assert plan.report["test"]["before"] == pytest.approx(before, abs=1e-9)
    assert plan.report["test"]["after"] == pytest.approx(after, abs=1e-9)
    assert after > before + 0.05


def test_a_plan_writes_nothing(world, tmp_path):
    before = world.vectors()
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert plan.report["status"] == "prepared"
    assert same(before, world.vectors(), 0.0)


def test_an_unproven_plan_is_applied_only_by_force(world, tmp_path):
    before = world.vectors()
    plan = nudge_vdb.plan(world.collection, noise_judgements(world), state=tmp_path, step=0.5)
    assert not plan.proven
    assert plan.report["status"] == "unproven"
    with pytest.raises(NotProven, match="force"):
        nudge_vdb.apply(plan)
    assert same(before, world.vectors(), 0.0)
    assert nudge_vdb.apply(plan, force=True).written > 0
    assert not same(before, world.vectors())


def test_a_gain_below_the_one_asked_for_is_not_proven(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, min_gain=0.9)
    assert not plan.proven


@pytest.mark.parametrize("metric", list(Metric))
def test_rolling_back_to_0_brings_every_vector_back(worlds, metric, tmp_path):
    world = worlds(metric)
    before = world.vectors()
    tune(world, tmp_path)
    undone = nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert undone.written == 80
    assert same(before, world.vectors(), world.collection.traits.tolerance)


def test_a_second_run_with_the_same_judgements_finds_nothing_to_do(world, tmp_path):
    tune(world, tmp_path)
    counted = Faulty(world.collection)
    plan = nudge_vdb.plan(counted, world.train, state=tmp_path)
    assert plan.version.number == 1
    assert plan.report["status"] == "applied"
    assert nudge_vdb.apply(plan).written == 0
    assert counted.calls["write"] == 0
    assert len(nudge_vdb.history(world.collection, state=tmp_path)) == 1


def test_tuning_again_starts_from_the_base(worlds, tmp_path):
    """The second version is the same whether or not a first one was live when it was made."""
    again, fresh = worlds(Metric.DOT), worlds(Metric.DOT)
    tune(again, tmp_path / "again", again.fewer)
    tune(again, tmp_path / "again")
    tune(fresh, tmp_path / "fresh")
    assert same(again.vectors(), fresh.vectors(), 0.0)


def test_a_row_that_lost_its_judgements_returns_to_its_base(world, tmp_path):
    before = world.vectors()
    tune(world, tmp_path, cold_share=0)
    half = Judgements.from_arrays(
        world.train.vectors[:120], [[text] for text in world.train.rows[:120]], world.train.query_ids[:120]
    )
    plan, applied = tune(world, tmp_path, half, cold_share=0)
    returned = set(world.train.rows) - set(half.rows)
    assert plan.report["moved"] == 40
    assert applied.written == 80
    now = world.vectors()
    assert same({text: before[text] for text in returned}, {text: now[text] for text in returned})


def test_any_version_can_be_reached_from_any_other(worlds, tmp_path):
    world = worlds(Metric.DOT)
    held = {0: world.vectors()}
    for number, judgements in enumerate((world.fewer, world.train, world.test), start=1):
        plan = nudge_vdb.plan(world.collection, judgements, state=tmp_path)
        nudge_vdb.apply(plan, force=True)
        held[number] = world.vectors()
    for start, end in itertools.permutations(held, 2):
        nudge_vdb.rollback(world.collection, to=start, state=tmp_path)
        nudge_vdb.rollback(world.collection, to=end, state=tmp_path)
        assert same(world.vectors(), held[end], 0.0)


def test_history_tells_what_became_of_every_version(world, tmp_path):
    tune(world, tmp_path, world.fewer)
    tune(world, tmp_path)
    nudge_vdb.plan(world.collection, world.train, state=tmp_path, max_queries=100, step=0.2)
    nudge_vdb.plan(world.collection, noise_judgements(world), state=tmp_path)
    nudge_vdb.rollback(world.collection, to=1, state=tmp_path)
    told = [(each["status"], each["live"]) for each in nudge_vdb.history(world.collection, state=tmp_path)]
    assert told == [("applied", True), ("rolled-back", False), ("prepared", False), ("unproven", False)]


def test_a_row_that_its_owner_embedded_again_is_a_new_base_and_is_listed(world, tmp_path):
    tune(world, tmp_path)
    text = world.train.rows[0]
    theirs = embedded_again(world, text, share=0.5)
    plan, applied = tune(world, tmp_path)
    assert plan.report["re_embedded"] == [text]
    assert (applied.written, applied.skipped) == (1, {})
    for version in (0, 1):
        undone = nudge_vdb.rollback(world.collection, to=version, state=tmp_path)
        assert undone.report["rebased"] == [text]
        assert agree(world.vectors()[text][None], theirs[None], 1e-6)[0]


def test_a_row_that_its_owner_embedded_away_from_its_queries_stays_there(world, tmp_path):
    tune(world, tmp_path)
    text = world.train.rows[0]
    theirs = embedded_again(world, text, share=-2.0)
    plan, applied = tune(world, tmp_path)
    assert plan.report["re_embedded"] == applied.report["rebased"] == [text]
    assert applied.skipped == {}
    assert agree(world.vectors()[text][None], theirs[None], 1e-6)[0]


def embedded_again(world, text, share):
    """Let the owner move the vector of a row towards its first query, by a *share* of it."""
    query = world.train.vectors[world.train.rows.index(text)]
    world.fixture.re_embed([text], (world.vectors()[text] + share * query)[None])
    return world.vectors()[text]


def test_a_row_that_changed_after_the_plan_is_left_alone_and_listed(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    text = world.train.rows[0]
    world.fixture.re_embed([text], -world.vectors()[text][None])
    theirs = world.vectors()[text]
    applied = nudge_vdb.apply(plan)
    assert applied.skipped == {"changed": [text]}
    assert (applied.changed, applied.missing, applied.written) == (1, 0, 79)
    assert (world.vectors()[text] == theirs).all()


def test_a_row_deleted_after_the_plan_is_listed_and_stays_deleted(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    text = world.train.rows[0]
    world.fixture.delete([text])
    applied = nudge_vdb.apply(plan)
    assert applied.skipped == {"missing": [text]}
    assert text not in world.fixture.read()


def test_a_row_deleted_long_ago_is_no_longer_worth_a_word(world, tmp_path):
    tune(world, tmp_path)
    world.fixture.delete([world.train.rows[0]])
    _, applied = tune(world, tmp_path)
    assert applied.skipped == {"missing": [world.train.rows[0]]}
    _, applied = tune(world, tmp_path, world.fewer)
    assert applied.skipped == {}


def test_a_plan_made_before_another_version_went_live_is_refused(world, tmp_path):
    older = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path)
    tune(world, tmp_path)
    with pytest.raises(StateConflict, match="plan again"):
        nudge_vdb.apply(older)


def test_the_newest_waiting_version_is_the_one_prepared_returns(world, tmp_path):
    nudge_vdb.plan(world.collection, world.fewer, state=tmp_path)
    nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert nudge_vdb.prepared(world.collection, state=tmp_path).version.number == 2
    assert nudge_vdb.prepared(world.collection, 1, state=tmp_path).version.number == 1
    with pytest.raises(BadOption, match="there are: 1, 2"):
        nudge_vdb.prepared(world.collection, 7, state=tmp_path)


def test_a_version_that_was_never_applied_cannot_be_rolled_back_to(world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    with pytest.raises(StateConflict, match="never applied"):
        nudge_vdb.rollback(world.collection, to=1, state=tmp_path)


def test_a_lost_answer_is_read_back_and_ends_as_if_nothing_had_happened(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 10)

    def lose():
        raise Unknown("connection lost")

    faulty = Faulty(world.collection, after={("write", 2): lose}, before={("write", 4): lose})
    plan = nudge_vdb.plan(faulty, world.train, state=tmp_path)
    applied = nudge_vdb.apply(plan)
    assert (applied.written, applied.skipped) == (80, {})
    assert nudge_vdb.verify(world.collection, state=tmp_path).tuned == 80


def test_rows_whose_outcome_stays_unknown_are_listed(world, tmp_path, waits):
    def lose():
        raise Unknown("connection lost")

    faulty = Faulty(world.collection, before={("write", number): lose for number in range(1, 100)})
    applied = nudge_vdb.apply(nudge_vdb.plan(faulty, world.train, state=tmp_path))
    assert applied.written == 0
    assert sorted(applied.skipped["unknown"]) == sorted(set(world.train.rows))


class HalfApplied(Faulty):
    """The first writes reach one replica, which is the one that is read, and fail at the other."""

    def __init__(self, inner, failing):
        super().__init__(inner)
        self.failing = failing
        self.replica = {}

    def write(self, keys, vectors, expected):
        outcomes = super().write(keys, vectors, expected)
        if self.calls["write"] <= self.failing:
            raise Unknown("4 out of 6 shards failed to apply operation")
        self.replica |= dict(zip(keys, vectors, strict=True))
        return outcomes


@pytest.mark.parametrize("failing", [1, 3])
def test_rows_of_a_failed_write_are_sent_again_even_if_they_read_as_written(world, tmp_path, waits, failing):
    halved = HalfApplied(world.collection, failing)
    applied = nudge_vdb.apply(nudge_vdb.plan(halved, world.train, state=tmp_path))
    assert (applied.written, applied.skipped) == (80, {})
    assert len(halved.replica) == 80
    assert len(waits) == failing - 1


class Flickering(HalfApplied):
    """After the failed writes, the next fetch sees the one replica and the write that follows the other."""

    def write(self, keys, vectors, expected):
        if self.calls["write"] == self.failing:
            self.calls["write"] += 1
            return [Outcome.CHANGED] * len(keys)
        return super().write(keys, vectors, expected)


def test_a_row_whose_replicas_differ_is_not_taken_for_its_owners(world, tmp_path, waits):
    flickering = Flickering(world.collection, 1)
    applied = nudge_vdb.apply(nudge_vdb.plan(flickering, world.train, state=tmp_path))
    assert (applied.report["status"], applied.written, applied.skipped) == ("applied", 80, {})
    assert len(flickering.replica) == 80


def test_an_interrupted_move_is_sent_again_as_a_whole(world, tmp_path, waits):
    nudge_vdb.apply(nudge_vdb.plan(HalfApplied(world.collection, 1000), world.train, state=tmp_path))
    halved = HalfApplied(world.collection, 0)
    applied = nudge_vdb.apply(nudge_vdb.prepared(halved, state=tmp_path))
    assert (applied.written, applied.report["already"], len(halved.replica)) == (0, 80, 80)


BATCHES = 8


@pytest.mark.parametrize("call", ["fetch", "write"])
@pytest.mark.parametrize("number", range(1, BATCHES + 1))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_apply_interrupted_anywhere_can_be_repeated_or_undone(call, number, moment, world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 80 // BATCHES)
    before = world.vectors()
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)

    def die():
        raise KeyboardInterrupt

    deaths = [{moment: {(call, number): die}}]
    if call == "fetch":  # rows are read by a move that goes on with an interrupted one
        deaths.insert(0, {"before": {("write", 2): die}})
    for death in deaths:
        with pytest.raises(KeyboardInterrupt):
            nudge_vdb.apply(nudge_vdb.prepared(Faulty(world.collection, **death), state=tmp_path))
    told = nudge_vdb.status(world.collection, state=tmp_path)
    assert told["unfinished"] == 1
    assert "resume ADDRESS" in told["message"]
    assert "rollback ADDRESS --to 0" in told["message"]
    if number % 2:
        nudge_vdb.resume(world.collection, state=tmp_path)
        assert nudge_vdb.verify(world.collection, state=tmp_path).tuned == plan.report["moved"]
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert same(before, world.vectors())


def test_what_went_away_or_changed_meanwhile_is_listed_when_an_interrupted_move_is_undone(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 10)

    def die():
        raise KeyboardInterrupt

    plan = nudge_vdb.plan(Faulty(world.collection, before={("write", 5): die}), world.train, state=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(plan)
    world.fixture.delete(["row 000"])
    world.fixture.re_embed(["row 001"], np.ones((1, world.collection.width), np.float32))
    undone = nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert undone.skipped == {"missing": ["row 000"]}
    assert undone.report["rebased"] == ["row 001"]


def test_a_vector_that_the_engine_changed_is_unverified_and_not_its_owners(world, tmp_path):
    class Blurs(type(world.collection)):
        def stored(self, vector):
            return super().stored(vector) * np.float32(1.0001)

    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    world.collection.__class__ = Blurs
    applied = nudge_vdb.apply(plan)
    assert sorted(applied.skipped["unverified"]) == sorted(set(world.train.rows))


def test_planning_over_an_interrupted_apply_still_starts_from_the_base(worlds, tmp_path, monkeypatch):
    world, fresh = worlds(Metric.DOT), worlds(Metric.DOT)
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 10)

    def die():
        raise KeyboardInterrupt

    plan = nudge_vdb.plan(Faulty(world.collection, after={("write", 3): die}), world.fewer, state=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(plan)
    tune(world, tmp_path)
    tune(fresh, tmp_path / "fresh")
    assert same(world.vectors(), fresh.vectors(), 0.0)


def test_nan_in_a_row_that_nobody_wants_is_skipped_and_listed(world, tmp_path):
    world.collection.rows["row 199"].vector[0] = np.nan
    plan, applied = tune(world, tmp_path)
    assert plan.report["rows_not_finite"] == ["row 199"]
    assert applied.written == 80


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (0.0, "zero")])
def test_a_judged_row_that_cannot_be_scored_is_refused_by_name(world, tmp_path, value, word):
    text = world.train.rows[0]
    world.collection.rows[text].vector[:] = value
    with pytest.raises(UnfitCollection, match=f"{text}.*{word}"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)


def test_judged_rows_that_do_not_exist_are_reported(world, tmp_path):
    world.fixture.delete(["row 003", "row 004"])
    plan, _ = tune(world, tmp_path)
    assert plan.report["judged_missing"] == ["row 003", "row 004"]
    assert plan.report["moved"] == 78


def test_judgements_of_another_collection_are_refused_before_a_row_is_read(world, tmp_path):
    strange = Judgements.from_arrays(world.train.vectors[:30], [[f"of another {number}"] for number in range(30)])
    counted = Faulty(world.collection)
    with pytest.raises(BadJudgements, match="30 of 30 judged rows are not in the collection"):
        nudge_vdb.plan(counted, strange, state=tmp_path)
    with pytest.raises(BadJudgements, match="30 of 30 judged rows are not in the collection"):
        nudge_vdb.evaluate(counted, strange)
    assert (counted.calls["scan"], counted.calls["fetch"]) == (0, 0)


def test_a_plan_that_fails_after_all_rows_were_read_leaves_no_copy_of_them(world, tmp_path):
    world.collection.rows["row 003"].vector[0] = np.nan
    with pytest.raises(UnfitCollection, match="row 003"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert not list(tmp_path.rglob("vectors.f32"))


def test_judgements_most_of_whose_rows_are_gone_are_refused(world, tmp_path):
    world.fixture.delete([f"row {number:03}" for number in range(41)])
    with pytest.raises(BadJudgements, match="41 of 80 judged rows are not in the collection"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)


def test_queries_of_another_width_are_refused(world, tmp_path):
    narrow = Judgements.from_arrays(np.ones((1, 5)), [["row 000"]])
    with pytest.raises(BadJudgements, match=r"5 components .* 24"):
        nudge_vdb.plan(world.collection, narrow, state=tmp_path)


def test_queries_of_another_model_raise_a_warning(world, tmp_path):
    rng = np.random.default_rng(0)
    strangers = Judgements.from_arrays(
        rng.normal(size=world.train.vectors.shape), [[text] for text in world.train.rows]
    )
    plan = nudge_vdb.plan(world.collection, strangers, state=tmp_path)
    assert any("model of this collection" in warning for warning in plan.report["warnings"])
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert not any("model of this collection" in warning for warning in plan.report["warnings"])


def test_an_empty_collection_is_refused(world, tmp_path):
    world.collection.rows.clear()
    with pytest.raises(UnfitCollection, match="no row"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.EUCLID])
def test_nudge_m_is_refused_where_length_would_be_undone_or_misread(worlds, metric, tmp_path):
    with pytest.raises(BadOption, match="nudge-n"):
        nudge_vdb.plan(worlds(metric).collection, worlds(metric).train, state=tmp_path, method="nudge-m")


def test_nudge_m_helps_where_the_engine_compares_by_inner_product(worlds, tmp_path):
    world = worlds(Metric.DOT)
    plan, _ = tune(world, tmp_path, method="nudge-m", test=world.test)
    assert plan.proven
    assert plan.report["test"]["after"] > plan.report["test"]["before"] + 0.05


def test_a_fixed_step_is_used_as_given(world, tmp_path):
    before = world.vectors()
    plan, _ = tune(world, tmp_path, step=0.1)
    assert plan.step == 0.1
    after = world.vectors()
    distances = [((after[text] - before[text]) ** 2).sum() for text in set(world.train.rows)]
    assert max(distances) == pytest.approx(0.1, abs=1e-4)


def test_all_queries_train_though_only_some_are_scored(world, tmp_path):
    plan, _ = tune(world, tmp_path, max_queries=30, step=0.3)
    assert plan.report["scored_queries"] == 30
    assert plan.report["queries"] == 240
    assert plan.report["moved"] == 80


def test_a_query_given_twice_counts_once(world, tmp_path):
    train = world.train
    doubled = Judgements.from_arrays(
        np.concatenate([train.vectors, train.vectors]), [[text] for text in train.rows * 2]
    )
    plan = nudge_vdb.plan(world.collection, doubled, state=tmp_path)
    once = nudge_vdb.plan(world.collection, train, state=tmp_path / "once")
    assert plan.report["queries"] == 240
    assert plan.report["after"] == pytest.approx(once.report["after"])


def test_a_fall_of_the_cold_score_is_said_in_words(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, cold_share=0)
    assert plan.report["cold_before"] == pytest.approx(plan.report["before"])
    assert plan.report["cold_after"] < plan.report["cold_before"]
    assert any("nobody judged" in warning for warning in plan.report["warnings"])


def test_a_plan_that_is_worse_than_what_is_live_says_so(world, tmp_path):
    tune(world, tmp_path, test=world.test)
    worse = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path, test=world.test, step=0.01)
    assert worse.report["test"]["against_live"]["live"] > worse.report["test"]["after"]
    assert any("version 1, which is live, is better" in warning for warning in worse.report["warnings"])


def with_test(world):
    """The judgements that trained a version, and as many others that did not."""
    vectors = np.concatenate([world.train.vectors, world.test.vectors])
    return Judgements.from_arrays(vectors, [[text] for text in world.train.rows + world.test.rows])


def test_a_plan_that_is_worse_than_what_is_live_is_not_applied_without_force(world, tmp_path):
    small = {"step": 0.1, "carry": "off", "cold_share": 0}
    assert nudge_vdb.plan(world.collection, with_test(world), state=tmp_path / "other", **small).proven
    tune(world, tmp_path)
    worse = nudge_vdb.plan(world.collection, with_test(world), state=tmp_path, **small)
    told = worse.report["against_live"]
    assert told["queries"] == 80
    assert told["worse"]
    assert told["live"] > told["after"]
    assert told["gain"] == pytest.approx(told["after"] - told["live"])
    assert told["gain_low"] <= told["gain"] <= told["gain_high"]
    assert not worse.proven
    assert "version 1, which is live, is better" in worse.report["reason"]
    with pytest.raises(NotProven, match="version 1, which is live, is better"):
        nudge_vdb.apply(worse)
    assert open_state(world.collection, tmp_path).journal.live == 1
    nudge_vdb.apply(worse, force=True)
    assert open_state(world.collection, tmp_path).journal.live == worse.version.number


def test_nothing_is_said_to_pass_that_is_worse_than_what_is_live(world, tmp_path):
    stopped = {"step": 0.1, "carry": "off", "cold_share": 1.0}
    fresh = nudge_vdb.plan(world.collection, with_test(world), state=tmp_path / "fresh", **stopped).report
    tune(world, tmp_path / "live")
    beaten = nudge_vdb.plan(world.collection, with_test(world), state=tmp_path / "live", **stopped).report
    assert fresh["alternatives"]
    assert beaten["against_live"]["worse"]
    assert beaten["alternatives"] == []


def test_a_live_version_is_compared_only_on_queries_it_was_not_trained_on(world, tmp_path):
    tune(world, tmp_path)
    seen = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path).report
    assert seen["against_live"] == {"version": 1, "queries": 0}
    assert any("--test" in warning for warning in seen["warnings"])
    unseen = nudge_vdb.plan(world.collection, world.test, state=tmp_path).report
    assert unseen["against_live"]["queries"] == 80
    assert unseen["against_live"]["live"] == pytest.approx(
        nudge_vdb.evaluate(world.collection, world.test).scores["ndcg@10"], abs=1e-9
    )


def test_two_runs_at_once_are_kept_apart(world, tmp_path):
    with open_state(world.collection, tmp_path).locked(), pytest.raises(Locked, match="process"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)


def test_verify_tells_ours_base_re_embedded_and_missing_apart(world, tmp_path):
    before = world.vectors()
    tune(world, tmp_path)
    first, second, third = list(dict.fromkeys(world.train.rows))[:3]
    world.fixture.re_embed([first], -before[first][None])
    world.fixture.delete([second])
    world.fixture.re_embed([third], before[third][None])
    found = nudge_vdb.verify(world.collection, state=tmp_path)
    assert (found.tuned, found.re_embedded, found.missing, found.astray) == (77, [first], [second], [third])
    assert not found.clean


def test_a_plan_leaves_no_pages_behind(world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert not open_state(world.collection, tmp_path).pages.exists()


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ({"metric": "map@10"}, "ndcg@K"),
        ({"metric": "ndcg@0"}, "1 to 1000"),
        ({"method": "nudge-x"}, "nudge-n, nudge-m"),
        ({"step": 0.0}, "above 0"),
        ({"step": 2.5}, "up to 2"),
        ({"step": float("nan")}, "above 0"),
        ({"min_gain": -0.1}, "min_gain"),
        ({"confidence": 1.0}, "confidence"),
        ({"max_queries": 0}, "max_queries"),
        ({"seed": -1}, "seed"),
    ],
)
def test_an_option_outside_its_range_is_refused_before_anything_is_read(world, tmp_path, choice, word):
    counted = Faulty(world.collection)
    with pytest.raises(BadOption, match=word):
        nudge_vdb.plan(counted, world.train, state=tmp_path, **choice)
    assert not counted.calls


@pytest.mark.parametrize("metric", list(Metric))
def test_where_every_row_stands_twice_the_plan_and_evaluate_still_agree(worlds, metric, tmp_path):
    """Ties are broken by row id in both, and rounding breaks none."""
    world = worlds(metric)
    for text, row in list(world.fixture.read().items()):
        world.collection.rows[f"{'a' if int(text[-1]) % 2 else 'z'} copy of {text}"] = row
    for measure in ("mrr@1", "ndcg@10"):
        plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path / measure, metric=measure, test=world.test)
        train, test = (nudge_vdb.evaluate(world.collection, each, metric=measure) for each in (world.train, world.test))
        assert plan.report["before"] == pytest.approx(train.scores[measure], abs=1e-9)
        assert plan.report["test"]["before"] == pytest.approx(test.scores[measure], abs=1e-9)


VERBS = {
    "rollback": lambda world, folder: nudge_vdb.rollback(world.collection, to=0, state=folder),
    "verify": lambda world, folder: nudge_vdb.verify(world.collection, state=folder),
    "plan": lambda world, folder: nudge_vdb.plan(world.collection, world.train, state=folder),
}


@pytest.mark.parametrize("verb", ["rollback", "verify"])
def test_a_state_folder_that_knows_nothing_of_the_collection_is_an_error_and_not_a_success(world, tmp_path, verb):
    tune(world, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(StateConflict, match="in another folder"):
        VERBS[verb](world, elsewhere)
    assert "belong to the state" in nudge_vdb.status(world.collection, state=elsewhere)["message"]
    assert nudge_vdb.verify(world.collection, state=tmp_path).tuned == 80


@pytest.mark.parametrize("lost", ["journal", "versions/000001/manifest.json", "versions/000001"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_state_that_lost_a_part_of_itself_is_damaged_and_nothing_is_written(world, tmp_path, lost, verb):
    tune(world, tmp_path)
    held = world.vectors()
    gone = open_state(world.collection, tmp_path).folder / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(StateDamaged):
        VERBS[verb](world, tmp_path)
    assert same(held, world.vectors(), 0.0)


def test_an_interrupted_write_that_was_forced_is_finished_without_force(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 10)

    def die():
        raise KeyboardInterrupt

    faulty = Faulty(world.collection, before={("write", 2): die})
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(nudge_vdb.plan(faulty, noise_judgements(world), state=tmp_path, step=0.3), force=True)
    nudge_vdb.plan(world.collection, noise_judgements(world, seed=1), state=tmp_path, step=0.3)
    plan = nudge_vdb.prepared(world.collection, state=tmp_path)
    assert plan.version.number == 1
    assert nudge_vdb.apply(plan).report["status"] == "applied"


def test_a_move_with_rows_of_unknown_outcome_stays_unfinished(world, tmp_path, waits):
    def lose():
        raise Unknown("connection lost")

    faulty = Faulty(world.collection, before={("write", number): lose for number in range(1, 100)})
    applied = nudge_vdb.apply(nudge_vdb.plan(faulty, world.train, state=tmp_path))
    assert applied.report["status"] == "applying"
    assert nudge_vdb.status(world.collection, state=tmp_path)["unfinished"] == 1
    assert nudge_vdb.apply(nudge_vdb.prepared(world.collection, state=tmp_path)).written == 80


def test_the_newest_proven_version_is_applied_before_an_unproven_one(world, tmp_path):
    nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    nudge_vdb.plan(world.collection, noise_judgements(world), state=tmp_path)
    assert nudge_vdb.prepared(world.collection, state=tmp_path).version.number == 1
    assert nudge_vdb.status(world.collection, state=tmp_path)["prepared"] == [1]


def test_planning_the_same_again_keeps_no_second_version(world, tmp_path):
    for _ in range(3):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert [each["version"] for each in nudge_vdb.history(world.collection, state=tmp_path)] == [1]


def test_grades_pull_and_count_only_when_asked(world, tmp_path):
    train = world.train
    rows = [{text: float(1 + place % 3)} for place, text in enumerate(train.rows)]
    graded = Judgements.from_arrays(train.vectors, rows, train.query_ids)
    plain, asked = (
        nudge_vdb.plan(world.collection, graded, state=tmp_path / str(grades), grades=grades, step=0.3)
        for grades in (False, True)
    )
    without = nudge_vdb.plan(world.collection, train, state=tmp_path / "without", step=0.3)
    assert (plain.version.content.tuned == without.version.content.tuned).all()
    assert not (asked.version.content.tuned == plain.version.content.tuned).all()


def test_held_out_queries_that_train_as_well_are_pointed_out(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, test=world.fewer)
    assert any(f"{len(world.fewer)} of the test queries train as well" in each for each in plan.report["warnings"])
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, test=world.test)
    assert not any("train as well" in each for each in plan.report["warnings"])


def test_a_page_out_from_before_a_write_is_not_continued_after_it(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.pages.PAGE_BYTES", 4 * world.collection.width * 50)

    def die():
        raise KeyboardInterrupt

    waiting = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.plan(Faulty(world.collection, before={("scan", 3): die}), world.fewer, state=tmp_path)
    nudge_vdb.apply(waiting)
    counted = Faulty(world.collection)
    nudge_vdb.plan(counted, world.test, state=tmp_path)
    assert counted.calls["scan"] == 4


def test_a_disk_that_is_full_is_said_and_leaves_no_rest(world, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nudge_vdb.pages._append", full)
    with pytest.raises(BadOption, match=r"cannot be written: .*No space left on device.*; make room"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert not open_state(world.collection, tmp_path).pages.exists()
    monkeypatch.undo()
    monkeypatch.setattr("nudge_vdb.snapshot.write_array", full)
    with pytest.raises(BadOption, match="make room"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert not list(tmp_path.glob("*/versions/*/*"))


def test_a_row_that_does_not_hold_what_was_written_is_listed_as_unverified(world, tmp_path, monkeypatch):
    """An engine that says written and keeps the old vector."""
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    text = world.train.rows[0]
    write_one = type(world.collection)._write_one

    def forgetful(collection, key, vector, expected):
        return Outcome.WRITTEN if key.decode() == text else write_one(collection, key, vector, expected)

    monkeypatch.setattr(type(world.collection), "_write_one", forgetful)
    assert nudge_vdb.apply(plan).skipped == {"unverified": [text]}


def test_a_plan_from_a_new_base_is_a_new_version_even_if_it_leads_to_the_same_vectors(worlds, tmp_path):
    """A step so large that rows end at their pull, wherever they started."""
    world = worlds(Metric.DOT)
    tune(world, tmp_path, step=2.0)
    text = world.train.rows[0]
    embedded_again(world, text, share=0.5)
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, step=2.0)
    assert plan.version.number == 2
    assert plan.report["re_embedded"] == [text]


def test_a_row_embedded_again_is_listed_once_and_not_for_ever(world, tmp_path):
    tune(world, tmp_path)
    text = world.train.rows[0]
    embedded_again(world, text, share=-2.0)
    told = [tune(world, tmp_path)[0].report["re_embedded"] for _ in range(3)]
    assert told == [[text], [], []]
    assert nudge_vdb.verify(world.collection, state=tmp_path).clean


def test_a_judged_row_that_a_scan_meets_twice_is_refused(world, tmp_path):
    class Twice(type(world.collection)):
        def scan(self, cursor, limit):
            page = super().scan(cursor, limit)
            return Page(
                [*page.keys, page.keys[0]],
                np.concatenate([page.vectors, page.vectors[:1]]),
                np.append(page.absent, False),
                page.next,
            )

    collection = Twice(world.collection.metric, world.collection.width, rows=world.collection.rows)
    with pytest.raises(UnfitCollection, match="met twice"):
        nudge_vdb.plan(collection, world.train, state=tmp_path)


def test_a_collection_whose_every_row_is_judged_is_tuned_like_any_other(world, tmp_path):
    world.fixture.delete([f"row {number:03}" for number in range(80, 200)])
    plan, applied = tune(world, tmp_path, test=world.test)
    assert plan.proven
    assert applied.written == plan.report["rows"] == 80


def test_a_collection_smaller_than_the_cutoff_is_scored(world, tmp_path):
    world.fixture.delete([f"row {number:03}" for number in range(4, 200)])
    few = Judgements.from_arrays(world.train.vectors[:12], [[text] for text in world.train.rows[:12]])
    plan = nudge_vdb.plan(world.collection, few, state=tmp_path)
    assert plan.report["before"] == pytest.approx(nudge_vdb.evaluate(world.collection, few).scores["ndcg@10"])
    assert "too few" in plan.report["reason"]
