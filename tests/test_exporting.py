"""Carrying on the query side: a matrix for the queries instead of new vectors for the rows that nobody judged."""

from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Metric
from nudge_vdb.errors import BadOption, NotProven
from nudge_vdb.judgements import Judgements
from nudge_vdb.snapshot import Content
from nudge_vdb.testing import Faulty


def exported(world, folder, test=True, terms=None, **choices):
    nudge_vdb.plan(world.collection, world.train, state=folder, carry="on", **choices)
    return nudge_vdb.export_map(
        world.collection, folder / "map.npy", version=1, test=world.test if test else None, state=folder, **terms or {}
    )


def multiplied(world, folder):
    matrix = np.load(folder / "map.npy")
    return replace(world.test, vectors=(world.test.vectors @ matrix.T).astype(np.float32))


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT])
def test_only_judged_rows_are_written_and_multiplied_queries_find_more(worlds, metric, tmp_path):
    world = worlds(metric, apart=1.0)
    plan = exported(world, tmp_path)
    assert plan.proven
    before = world.vectors()
    assert nudge_vdb.apply(plan).written == 80
    now = world.vectors()
    assert {text for text in before if (before[text] != now[text]).any()} == set(world.train.rows)
    after = nudge_vdb.evaluate(world.collection, multiplied(world, tmp_path)).scores["ndcg@10"]
    assert after == pytest.approx(plan.report["after"], abs=1e-6)
    assert after > plan.report["before"] + 0.05


def test_with_inner_products_scores_are_those_of_the_carried_version_but_for_lengths(worlds, tmp_path):
    world = worlds(Metric.DOT, apart=1.0)
    plan = exported(world, tmp_path)
    whole = nudge_vdb.plan(world.collection, world.train, state=tmp_path / "whole", carry="on", test=world.test)
    assert plan.report["after"] == pytest.approx(whole.report["test"]["after"], abs=0.05)


def test_a_form_that_was_not_measured_is_not_proven(worlds, tmp_path):
    world = worlds(apart=1.0)
    plan = exported(world, tmp_path, test=False)
    assert "not measured" in plan.report["reason"]
    with pytest.raises(NotProven):
        nudge_vdb.apply(plan)
    assert any("M·q" in warning for warning in plan.report["warnings"])


def test_queries_that_trained_measure_nothing(worlds, tmp_path):
    world = worlds(apart=1.0)
    world.test = world.train
    assert "0 test queries did not train" in exported(world, tmp_path).report["reason"]


def test_the_report_counts_the_queries_that_measured_the_form_and_nothing_of_the_plan_it_comes_from(worlds, tmp_path):
    world = worlds(apart=1.0)
    report = exported(world, tmp_path).report
    assert (report["queries"], report["scored_queries"]) == (len(world.test), len(world.test))
    assert not {"rivals", "carry_reason", "warm_gain", "cold_gain"} & report.keys()
    unmeasured = exported(worlds(apart=1.0), tmp_path / "unmeasured", test=False).report
    assert (unmeasured["queries"], unmeasured["scored_queries"]) == (0, 0)


def test_it_can_be_undone(worlds, tmp_path):
    world = worlds(Metric.DOT, apart=1.0)
    before = world.vectors()
    nudge_vdb.apply(exported(world, tmp_path))
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert all((world.vectors()[text] == before[text]).all() for text in before)


def test_distances_and_versions_that_carry_nothing_have_no_such_form(worlds, tmp_path):
    with pytest.raises(BadOption, match="compares by distance"):
        exported(worlds(Metric.EUCLID, apart=1.0), tmp_path / "euclid")
    world = worlds()
    nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    with pytest.raises(BadOption, match="--carry on"):
        nudge_vdb.export_map(world.collection, tmp_path / "map.npy", version=1, state=tmp_path)


def test_the_form_is_proven_by_what_the_version_was_proven_by(worlds, tmp_path):
    world = worlds(apart=1.0)
    gain = exported(world, tmp_path / "usual").report["gain"]
    chosen = exported(world, tmp_path / "chosen", metric="recall@5", min_gain=0.001, confidence=0.99).report
    assert (chosen["metric"], chosen["min_gain"], chosen["confidence"]) == ("recall@5", 0.001, 0.99)
    assert chosen["gain"] != gain
    assert "99 %" in chosen["reason"]
    strict = exported(world, tmp_path / "strict", min_gain=0.9)
    assert not strict.proven
    assert "not above 0.9" in strict.report["reason"]


def test_grades_count_for_the_form_where_they_counted_for_the_version(worlds, tmp_path):
    world = worlds(apart=1.0)
    world.test = Judgements.from_arrays(
        world.test.vectors,
        [{text: 1.0 + place % 3, f"row {(place + 100) % 200:03}": 1} for place, text in enumerate(world.test.rows)],
    )
    plain, graded = (exported(world, tmp_path / str(each), grades=each).report["after"] for each in (False, True))
    assert plain != graded


def test_other_terms_may_be_asked_for(worlds, tmp_path):
    world = worlds(apart=1.0)
    plan = exported(world, tmp_path, min_gain=0.9, terms={"min_gain": 0.0, "confidence": 0.9})
    assert plan.proven
    assert (plan.report["min_gain"], plan.report["confidence"]) == (0.0, 0.9)
    with pytest.raises(BadOption, match="confidence"):
        nudge_vdb.export_map(
            world.collection, tmp_path / "map 2.npy", version=1, test=world.test, confidence=2.0, state=tmp_path
        )


def test_a_live_form_is_compared_with_a_plan_by_the_queries_that_searches_send(worlds, tmp_path):
    world = worlds(apart=1.0)
    nudge_vdb.apply(exported(world, tmp_path))
    sent = nudge_vdb.evaluate(world.collection, multiplied(world, tmp_path)).scores["ndcg@10"]
    unsent = nudge_vdb.evaluate(world.collection, world.test).scores["ndcg@10"]
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, test=world.test, step=0.2)
    assert plan.report["test"]["against_live"]["live"] == pytest.approx(sent, abs=1e-9)
    assert sent > unsent + 0.02


def test_a_live_form_whose_matrix_nobody_kept_is_not_compared_and_that_is_said(worlds, tmp_path, monkeypatch):
    world = worlds(apart=1.0)
    with monkeypatch.context() as early:
        early.setattr(Content, "arrays", without_matrix(Content.arrays))
        nudge_vdb.apply(exported(world, tmp_path))
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, test=world.test, step=0.2)
    assert "live" not in plan.report["test"]["against_live"]
    assert any("matrix is not in the state" in warning for warning in plan.report["warnings"])


def test_a_live_form_is_not_compared_on_rows_that_were_found_by_other_queries(worlds, tmp_path):
    world = worlds(apart=1.0)
    nudge_vdb.apply(exported(world, tmp_path))
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, test=world.test, step=0.2, rivals="exact")
    assert "live" not in plan.report["test"]["against_live"]
    assert any("--rivals scan" in warning for warning in plan.report["warnings"])


def without_matrix(arrays):
    return lambda content: {name: array for name, array in arrays(content).items() if name != "query_map"}


@pytest.mark.parametrize("place", ["taken.npy", "a folder", "no folder/map.npy", "taken.npy/map.npy"])
def test_a_place_where_no_matrix_can_go_is_refused_before_anything_is_done(place, worlds, tmp_path):
    world = worlds(apart=1.0)
    nudge_vdb.plan(world.collection, world.train, state=tmp_path / "state", carry="on")
    (tmp_path / "taken.npy").write_bytes(b"in use")
    (tmp_path / "a folder").mkdir()
    counted = Faulty(world.collection)
    with pytest.raises(BadOption, match=r"there already|no file can be made"):
        nudge_vdb.export_map(counted, tmp_path / place, version=1, test=world.test, state=tmp_path / "state")
    assert counted.calls["scan"] == 0
    assert len(nudge_vdb.history(world.collection, state=tmp_path / "state")) == 1
    assert (tmp_path / "taken.npy").read_bytes() == b"in use"


def test_a_matrix_that_can_no_longer_be_written_is_in_the_version(worlds, tmp_path):
    world, place = worlds(apart=1.0), tmp_path / "sometimes"
    nudge_vdb.plan(world.collection, world.train, state=tmp_path / "state", carry="on")
    place.mkdir()
    gone = Faulty(world.collection, before={("scan", 1): place.rmdir})
    with pytest.raises(BadOption, match=r"version 2 is in .*query_map\.npy") as refusal:
        nudge_vdb.export_map(gone, place / "map.npy", version=1, test=world.test, state=tmp_path / "state")
    named = str(refusal.value).rpartition(" in ")[2]
    matrix = np.load(named)
    assert matrix.shape == (24, 24)
    nudge_vdb.export_map(world.collection, tmp_path / "map.npy", version=1, test=world.test, state=tmp_path / "state")
    assert (np.load(tmp_path / "map.npy") == matrix).all()
    assert not list(tmp_path.glob("*.tmp"))
