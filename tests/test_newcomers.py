"""Rows that come after a plan, or are embedded again, are carried by the map of the version that is live."""

from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Metric, Rows
from nudge_vdb.errors import StateConflict
from nudge_vdb.testing import Faulty


def tuned(world, folder, **choices):
    return nudge_vdb.apply(nudge_vdb.plan(world.collection, world.train, state=folder, **{"carry": "on", **choices}))


def without(world, texts):
    """Delete rows, and return them for later."""
    rows = world.fixture.read()
    world.fixture.delete(texts)
    vectors, payloads = np.stack([rows[text].vector for text in texts]), [dict(rows[text].payload) for text in texts]
    return Rows(
        texts, vectors, payloads, np.stack([np.asarray(next(iter(rows[text].others.values()))) for text in texts])
    )


LATE = [f"row {number}" for number in range(190, 200)]


@pytest.mark.parametrize("metric", list(Metric))
def test_a_row_that_comes_later_ends_where_it_would_have_been_carried_at_once(worlds, metric, tmp_path):
    early, late = worlds(metric, apart=1.0), worlds(metric, apart=1.0)
    rows = without(late, LATE)
    tuned(late, tmp_path / "late", step=0.3)
    late.fixture.insert(rows)
    applied = nudge_vdb.carry(late.collection, state=tmp_path / "late")
    assert (applied.written, applied.report["newly_carried"], applied.report["status"]) == (10, 10, "applied")
    told = nudge_vdb.history(late.collection, state=tmp_path / "late")[0]
    tuned(early, tmp_path / "early", step=0.3)
    same = nudge_vdb.history(early.collection, state=tmp_path / "early")[0]
    assert (told["reach"], told["ridge"]) == (same["reach"], same["ridge"])
    for text, vector in early.vectors().items():
        np.testing.assert_allclose(late.vectors()[text], vector, atol=1e-6)


def test_a_judged_row_that_stays_at_its_base_is_no_newcomer(worlds, tmp_path):
    """Its queries point away from it, so NUDGE leaves it alone, and so must the map."""
    world = worlds(apart=1.0)
    away = world.train.query_ids.index("q1")
    vectors = world.train.vectors.copy()
    row = world.train.rows[list(world.train.query).index(away)]
    mine = [query for query, text in zip(world.train.query, world.train.rows, strict=True) if text == row]
    vectors[mine] = -world.vectors()[row]
    judgements = replace(world.train, vectors=vectors)
    nudge_vdb.apply(nudge_vdb.plan(world.collection, judgements, state=tmp_path, carry="on"), force=True)
    counted = Faulty(world.collection)
    assert nudge_vdb.carry(counted, state=tmp_path).report["version"] == 1
    assert counted.calls["write"] == 0


def test_a_carry_that_died_is_finished_by_the_next(worlds, tmp_path):
    world = worlds(apart=1.0)
    rows = without(world, LATE)
    tuned(world, tmp_path)
    world.fixture.insert(rows)

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.carry(Faulty(world.collection, after={("write", 1): die}), state=tmp_path)
    assert nudge_vdb.carry(world.collection, state=tmp_path).report["status"] == "applied"
    assert nudge_vdb.verify(world.collection, state=tmp_path).tuned == 200


def test_what_was_carried_later_can_be_undone(worlds, tmp_path):
    world = worlds(apart=1.0)
    before, rows = world.vectors(), without(world, LATE)
    tuned(world, tmp_path)
    first = world.vectors()
    world.fixture.insert(rows)
    nudge_vdb.carry(world.collection, state=tmp_path)
    assert nudge_vdb.verify(world.collection, state=tmp_path).tuned == 200
    nudge_vdb.rollback(world.collection, to=1, state=tmp_path)
    for text, vector in world.vectors().items():
        np.testing.assert_allclose(vector, first.get(text, before[text]), atol=1e-6)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    for text, vector in world.vectors().items():
        np.testing.assert_allclose(vector, before[text], atol=1e-6)


@pytest.mark.parametrize("text", ["row 150", "row 003"])
def test_a_row_that_its_owner_embedded_again_is_carried_from_there(worlds, tmp_path, text):
    world = worlds(apart=1.0)
    tuned(world, tmp_path)
    held = world.vectors()
    world.fixture.re_embed([text], -world.vectors()[text][None])
    theirs = world.vectors()[text]
    applied = nudge_vdb.carry(world.collection, state=tmp_path)
    assert (applied.written, applied.report["re_embedded"]) == (1, [text])
    now = world.vectors()
    assert 0.3 < now[text] @ theirs / np.linalg.norm(theirs) ** 2 < 0.9999
    assert all((now[other] == held[other]).all() for other in held if other != text)


def test_where_nothing_is_new_nothing_is_written_and_no_version_is_made(worlds, tmp_path):
    world = worlds(apart=1.0)
    tuned(world, tmp_path)
    assert nudge_vdb.carry(world.collection, state=tmp_path).written == 0
    assert len(nudge_vdb.history(world.collection, state=tmp_path)) == 1


def test_a_row_that_is_gone_is_not_missed(worlds, tmp_path):
    world = worlds(apart=1.0)
    rows = without(world, LATE)
    tuned(world, tmp_path)
    world.fixture.insert(rows)
    world.fixture.delete(["row 005"])
    nudge_vdb.carry(world.collection, state=tmp_path)
    assert nudge_vdb.carry(world.collection, state=tmp_path).skipped == {}
    assert "row 005" not in world.fixture.read()


def test_without_a_version_that_carries_nothing_is_carried(world, tmp_path):
    with pytest.raises(StateConflict, match="in another folder"):
        nudge_vdb.carry(world.collection, state=tmp_path)
    tuned(world, tmp_path, carry="off")
    with pytest.raises(StateConflict, match="tune again with --carry on"):
        nudge_vdb.carry(world.collection, state=tmp_path)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    with pytest.raises(StateConflict, match="at its base"):
        nudge_vdb.carry(world.collection, state=tmp_path)
