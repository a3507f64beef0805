"""Rows that others wrote since a version went live: as they were before, or by another model; what is said and done."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.cli import main
from nudge_vdb.contract import Metric
from nudge_vdb.errors import StateConflict
from nudge_vdb.testing import Faulty

CHEAP = {"step": 0.3, "max_queries": 60}


@pytest.fixture
def world(worlds):
    return worlds(apart=1.0)


@pytest.fixture
def command(world, tmp_path, monkeypatch, capsys):
    """Run a command on the world; return exit status and report."""
    monkeypatch.setattr("nudge_vdb.connect", lambda *_, **__: world.collection)

    def act(*words):
        monkeypatch.setattr("sys.argv", ["nudge-vdb", *words, "--state", str(tmp_path), "--json"])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, json.loads(capsys.readouterr().out)

    return act


def tuned(world, folder, **options):
    plan = nudge_vdb.plan(world.collection, world.train, state=folder, **CHEAP | options)
    nudge_vdb.apply(plan, force=True)
    return world.vectors()


def upserted(world, vectors, texts=None):
    """Write rows as another does who embedded them before."""
    texts = texts or list(vectors)
    world.fixture.re_embed(texts, np.array([vectors[text] for text in texts]))


def of_another_model(world, texts=None):
    """Embed rows again by a model with the same distances and other axes."""
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))
    vectors = {text: (vector @ turned).astype(np.float32) for text, vector in world.vectors().items()}
    upserted(world, vectors, texts)


def same(left, right):
    return all(np.abs(left[text] - right[text]).max() <= 1e-6 for text in right)


def test_status_resume_and_verify_name_the_command_that_puts_fallen_rows_back_and_it_does(world, tmp_path, command):
    before, wanted = world.vectors(), tuned(world, tmp_path)
    assert command("status", "memory://x")[0] == 0
    moved = [text for text in wanted if not (wanted[text] == before[text]).all()]
    upserted(world, before)
    for words in (("status",), ("resume",), ("status", "--deep")):
        code, told = command(words[0], "memory://x", *words[1:])
        assert (code, told["next"]) == (4, "nudge-vdb apply ADDRESS 1")
        assert f"{len(moved)} of {told['rows']['looked_at']} rows looked at are at their base again" in told["message"]
        assert "'nudge-vdb apply ADDRESS 1' puts them back" in told["message"]
        assert told["rows"]["at_base_again"] == told["rows"]["astray"] == len(moved)
    code, told = command("verify", "memory://x")
    assert (code, told["next"], told["at_base_again"]) == (4, "nudge-vdb apply ADDRESS 1", len(moved))
    code, told = command("apply", "memory://x", "1")
    assert (code, told["written"], told["at_base_again"]) == (0, len(moved), len(moved))
    assert same(world.vectors(), wanted)
    code, told = command("status", "memory://x")
    assert (code, told["next"], told["rows"]["astray"]) == (0, None, 0)


def test_rows_that_hold_what_an_undone_version_put_there_are_told_of_and_rolled_back(world, tmp_path, command):
    before, was = world.vectors(), tuned(world, tmp_path)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    upserted(world, was)
    code, told = command("status", "memory://x")
    assert (code, told["next"]) == (4, "nudge-vdb rollback ADDRESS --to 0")
    assert "hold what another version put there" in told["message"]
    assert command("rollback", "memory://x", "--to", "0")[0] == 0
    assert same(world.vectors(), before)


@pytest.mark.parametrize("again", ["train", "fewer"])
def test_a_nightly_tune_puts_fallen_rows_back_and_says_so(world, tmp_path, again):
    """Whether it finds nothing new, or a new version."""
    before = world.vectors()
    tuned(world, tmp_path)
    upserted(world, before)
    plan = nudge_vdb.plan(world.collection, getattr(world, again), state=tmp_path, **CHEAP)
    fallen = plan.report["at_base_again"]
    assert fallen >= 60
    assert any("'nudge-vdb apply ADDRESS 1', puts them back" in warning for warning in plan.report["warnings"])
    applied = nudge_vdb.apply(plan, force=True)
    assert (applied.skipped, applied.report["at_base_again"]) == ({}, fallen)
    assert applied.report["version"] == {"train": 1, "fewer": 2}[again]
    assert nudge_vdb.verify(world.collection, state=tmp_path).clean


def test_a_carry_puts_fallen_rows_back_and_says_so(world, tmp_path):
    before, wanted = world.vectors(), tuned(world, tmp_path, carry="on")
    upserted(world, before)
    applied = nudge_vdb.carry(world.collection, state=tmp_path)
    assert (applied.report["version"], applied.report["at_base_again"]) == (1, 200)
    assert same(world.vectors(), wanted)


def test_a_glance_at_a_thousand_rows_of_many_tells_of_those_that_fell_back(world, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["nudge_vdb.verify"], "SAMPLED", 40)
    before, _ = world.vectors(), tuned(world, tmp_path, carry="on")
    upserted(world, before, [text for text in before if text < "row 100"])
    told = nudge_vdb.status(world.collection, state=tmp_path)["rows"]
    assert told["looked_at"] == 40
    assert 10 <= told["at_base_again"] <= 30
    assert nudge_vdb.status(world.collection, state=tmp_path, deep=True)["rows"]["at_base_again"] == 100


def test_most_rows_embedded_again_by_another_model_carry_nothing_and_status_says_so(world, tmp_path, command):
    tuned(world, tmp_path, carry="on")
    of_another_model(world, [f"row {number:03}" for number in range(120)])
    counted, before = Faulty(world.collection), world.vectors()
    with pytest.raises(StateConflict, match=r"120 of 200 rows .* another model .* 'nudge-vdb tune ADDRESS"):
        nudge_vdb.carry(counted, state=tmp_path)
    assert counted.calls["write"] == 0
    assert same(world.vectors(), before)
    code, told = command("status", "memory://x")
    assert (code, told["next"]) == (4, "nudge-vdb tune ADDRESS --judgements PATH")
    assert "120 of 200 rows looked at of version 1" in told["message"]
    code, told = command("carry", "memory://x")
    assert code == 2


def test_fewer_rows_embedded_again_and_all_rows_embedded_again_by_the_same_model_are_carried(world, tmp_path):
    tuned(world, tmp_path, carry="on")
    of_another_model(world, [f"row {number:03}" for number in range(80)])
    assert nudge_vdb.carry(world.collection, state=tmp_path).report["newly_carried"] == 80
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    noise = 1e-3 * np.random.default_rng(7).normal(size=(200, 24))
    bases = world.vectors()
    nudge_vdb.rollback(world.collection, to=2, state=tmp_path)
    upserted(world, {text: (bases[text] + noise[place]).astype(np.float32) for place, text in enumerate(bases)})
    assert nudge_vdb.carry(world.collection, state=tmp_path).report["newly_carried"] == 200


def test_a_prepared_version_is_not_applied_to_vectors_of_another_model_unless_forced(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, carry="on")
    assert plan.proven
    of_another_model(world)
    before = world.vectors()
    with pytest.raises(StateConflict, match=r"200 of 200 rows .* another model"):
        nudge_vdb.apply(plan)
    assert world.collection.kept == {}
    applied = nudge_vdb.apply(plan, force=True)
    assert len(applied.skipped["changed"]) == 200
    assert same(world.vectors(), before)


def test_no_matrix_is_exported_of_a_version_whose_rows_are_of_another_model_now(world, tmp_path):
    tuned(world, tmp_path, carry="on")
    of_another_model(world)
    with pytest.raises(StateConflict, match="another model"):
        nudge_vdb.export_map(world.collection, tmp_path / "m.npy", version=1, state=tmp_path)
    assert not (tmp_path / "m.npy").exists()


@pytest.mark.parametrize("verb", ["resume", "apply"])
def test_a_move_that_was_interrupted_is_finished_and_says_that_the_rows_are_of_another_model(world, tmp_path, verb):
    def die():
        raise KeyboardInterrupt

    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP)
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(replace(plan, collection=Faulty(world.collection, before={("write", 1): die})), force=True)
    of_another_model(world)
    ways = {
        "resume": lambda: nudge_vdb.resume(world.collection, state=tmp_path),
        "apply": lambda: nudge_vdb.apply(nudge_vdb.prepared(world.collection, state=tmp_path)),
    }
    report = ways[verb]().report
    assert report["written"] == 0
    assert "another model" in report["move_warnings"][0]
    assert len(report["skipped"]["changed"]) == plan.report["moved"]


@pytest.mark.parametrize("metric", list(Metric))
def test_a_version_planned_anew_after_the_change_of_model_moves_the_new_vectors(worlds, metric, tmp_path):
    world = worlds(metric, apart=1.0)
    tuned(world, tmp_path)
    of_another_model(world)
    bases = world.vectors()
    tuned(world, tmp_path)
    assert nudge_vdb.verify(world.collection, state=tmp_path).clean
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert same(world.vectors(), bases)


def test_a_collection_that_was_dropped_and_made_anew_is_told_of_and_no_row_embedded_otherwise_is_written(
    world, tmp_path, command
):
    before, wanted = world.vectors(), tuned(world, tmp_path, carry="on")
    assert not command("status", "memory://x")[1]["note_gone"]
    upserted(world, before)
    of_another_model(world, [f"row {number:03}" for number in range(90)])
    new = world.vectors()
    world.collection.kept.clear()
    code, told = command("status", "memory://x")
    assert (code, told["note_gone"], told["next"]) == (4, True, "nudge-vdb apply ADDRESS 1")
    assert "was dropped and made anew, or restored" in told["message"]
    assert "110 of 200 rows looked at are at their base again" in told["message"]
    code, told = command("apply", "memory://x", "1")
    assert (code, told["at_base_again"], told["changed"]) == (4, 110, 90)
    kept = {text: vector for text, vector in wanted.items() if text >= "row 090"}
    assert same(world.vectors(), {**{text: new[text] for text in new if text < "row 090"}, **kept})
    assert not command("status", "memory://x")[1]["note_gone"]


def test_a_collection_that_is_at_its_base_needs_no_note(world, tmp_path, command):
    tuned(world, tmp_path)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    code, told = command("status", "memory://x")
    assert (code, told["note_gone"], world.collection.kept) == (0, False, {})


def test_a_carry_that_died_before_a_change_of_model_is_not_finished_by_the_next_and_the_named_way_works(
    world, tmp_path
):
    def die():
        raise KeyboardInterrupt

    tuned(world, tmp_path, carry="on")
    world.fixture.re_embed(["row 190"], world.train.vectors[:1])
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.carry(Faulty(world.collection, before={("write", 1): die}), state=tmp_path)
    of_another_model(world, [f"row {number:03}" for number in range(150)])
    counted, bases = Faulty(world.collection), world.vectors()
    with pytest.raises(StateConflict, match="another model"):
        nudge_vdb.carry(counted, state=tmp_path)
    assert counted.calls["write"] == 0
    tuned(world, tmp_path, carry="on")
    assert nudge_vdb.verify(world.collection, state=tmp_path).clean
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert all(np.abs(world.vectors()[text] - bases[text]).max() <= 1e-6 for text in bases if text < "row 150")
