"""A backup of the database that is restored after its version was dropped: every vector is known, and can be undone."""

import copy

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.backends import fill
from nudge_vdb.contract import Metric, Rows
from nudge_vdb.errors import StateDamaged
from nudge_vdb.lineage import Lineage
from nudge_vdb.prune import prune
from nudge_vdb.standing import open_state

CHEAP = {"max_queries": 30}


@pytest.fixture(params=[Metric.DOT, Metric.COSINE])
def world(worlds, request):
    return worlds(request.param, width=12)


@pytest.fixture
def tune(world, tmp_path):
    """Plan and apply a version, by force; return a backup of the database that was taken after it."""

    def act(judgements, step=0.3, **options):
        plan = nudge_vdb.plan(world.collection, judgements, state=tmp_path, step=step, **CHEAP, **options)
        nudge_vdb.apply(plan, force=True)
        return copy.deepcopy((world.collection.rows, world.collection.kept))

    return act


def part_of(world, ends):
    """The judgements of the rows whose number ends with one of some digits."""
    pairs = [pair for pair in zip(world.train.vectors, world.train.rows, strict=True) if pair[1][-1] in ends]
    return nudge_vdb.Judgements.from_arrays([vector for vector, _ in pairs], [[text] for _, text in pairs])


def restore(world, backup):
    world.collection.rows, world.collection.kept = copy.deepcopy(backup)


def off(world, before):
    """The rows that are not where they were, but for what a collection that rescales rounds."""
    return [text for text, vector in world.vectors().items() if np.abs(vector - before[text]).max() > 1e-6]


def test_what_a_dropped_version_put_into_rows_is_known_when_a_backup_brings_it_back(world, tune, tmp_path):
    before = world.vectors()
    backup = tune(part_of(world, "012"))
    only_there = {
        text for text, vector in world.vectors().items() if text[-1] in "01" and (vector != before[text]).any()
    }
    tune(part_of(world, "2345"))
    pruned = prune(world.collection, keep=1, state=tmp_path)
    assert pruned.dropped == [1]
    assert pruned.remembered >= len(only_there) > 0
    assert pruned.remembered_bytes > 4 * 12 * len(only_there)
    restore(world, backup)
    findings = nudge_vdb.verify(world.collection, state=tmp_path)
    assert only_there <= set(findings.astray)
    assert not findings.re_embedded
    applied = nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert not off(world, before)
    assert (applied.skipped, applied.report["rebased"], world.collection.kept) == ({}, [], {})


def test_a_dropped_version_is_remembered_without_bases_that_others_hold_and_through_every_later_prune(
    world, tune, tmp_path
):
    """The base that the first version shared with the second goes on with the remains of the second."""
    before = world.vectors()
    backups = [tune(world.train, step) for step in (0.2, 0.3, 0.4)]
    tune(part_of(world, "0"), 0.5)
    home = open_state(world.collection, tmp_path)
    assert prune(world.collection, keep=3, state=tmp_path).dropped == [1]
    assert not list(Lineage(home)._dropped[1].base)
    assert prune(world.collection, keep=1, state=tmp_path).dropped == [2, 3]
    for backup in backups:
        restore(world, backup)
        plan = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path, step=0.3, **CHEAP)
        texts = [key.decode() for key in plan.version.content.keys]
        assert np.abs(plan.version.content.base - np.array([before[text] for text in texts])).max() < 1e-6
        nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
        assert not off(world, before)
    assert prune(world.collection, keep=0, state=tmp_path).kept == []
    restore(world, backups[1])
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert not off(world, before)


def test_a_row_that_its_owner_embedded_again_gets_the_base_of_the_backup(world, tune, tmp_path):
    """The old base of a row comes back with the backup, the new one stays with the rows of today."""
    before = world.vectors()
    backup, texts = tune(world.train), [world.train.rows[0]]
    world.fixture.re_embed(texts, world.train.vectors[:1])
    today = {**before, texts[0]: world.vectors()[texts[0]]}
    kept = tune(world.train)
    assert prune(world.collection, keep=1, state=tmp_path).dropped == [1]
    for held, bases, rebased in ((backup, before, []), (kept, today, texts)):
        restore(world, held)
        assert nudge_vdb.rollback(world.collection, to=0, state=tmp_path).report["rebased"] == rebased
        assert not off(world, bases)


def test_rows_that_an_application_writes_back_as_it_read_them_long_ago_are_put_where_the_live_version_wants_them(
    world, tune, tmp_path
):
    tune(part_of(world, "012"))
    old = world.vectors()
    tune(part_of(world, "2345"))
    wanted = world.vectors()
    prune(world.collection, keep=1, state=tmp_path)
    texts = [text for text in wanted if text[-1] == "0"]
    world.fixture.re_embed(texts, np.array([old[text] for text in texts]))
    nudge_vdb.apply(nudge_vdb.prepared(world.collection, 2, state=tmp_path))
    assert not off(world, wanted)


def test_a_carry_that_drops_an_earlier_one_remembers_what_only_that_one_knew(world, tune, tmp_path):
    before, text = world.vectors(), "row 199"
    tune(world.train, carry="on")
    world.fixture.re_embed([text], world.train.vectors[:1])
    bases = {**before, text: world.vectors()[text]}
    nudge_vdb.carry(world.collection, state=tmp_path)
    backup = copy.deepcopy((world.collection.rows, world.collection.kept))
    for vector in world.train.vectors[1:3]:
        world.fixture.re_embed([text], vector[None])
        dropped = nudge_vdb.carry(world.collection, state=tmp_path).report["dropped"]
    assert dropped == [2]
    restore(world, backup)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert not off(world, bases)


def test_damage_to_what_is_kept_of_a_dropped_version_is_noticed(world, tune, tmp_path):
    for ends in ("012", "2345"):
        tune(part_of(world, ends))
    prune(world.collection, keep=1, state=tmp_path)
    files = sorted(tmp_path.glob("*/dropped/000001/*"))
    assert len(files) == 8
    for file in files:
        held = file.read_bytes()
        for damaged in (held[:-1] + bytes([held[-1] ^ 1]), None):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            for deep in (False, True):
                with pytest.raises(StateDamaged, match=file.name):
                    nudge_vdb.verify(world.collection, state=tmp_path, deep=deep)
            with pytest.raises(StateDamaged, match=file.name):
                nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
        file.write_bytes(held)
    assert nudge_vdb.verify(world.collection, state=tmp_path, deep=True).clean


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.COSINE])
@pytest.mark.parametrize(
    "address", ["qdrant+local://{}/store/rows?vector=v", "milvus+lite://{}/store.db/rows?vector=v"]
)
def test_embedded_engines_give_every_base_back_of_rows_that_come_back_from_a_dropped_version(
    worlds, address, metric, tmp_path
):
    """Also where the engine scales vectors to length 1, and rounds."""
    world = worlds(metric, width=12)
    vectors = np.stack([row.vector for row in world.fixture.read().values()])
    fixture = fill(address.format(tmp_path), Rows(list(range(200)), vectors, [{}] * 200), metric)
    before = {text: np.asarray(row.vector, np.float32) for text, row in fixture.read().items()}

    def tuned(ends):
        judged = part_of(world, ends)
        texts = [[str(int(text.removeprefix("row ")))] for text in judged.rows]
        judgements = nudge_vdb.Judgements.from_arrays(judged.vectors, texts)
        plan = nudge_vdb.plan(fixture.collection, judgements, state=tmp_path / "state", step=0.3, **CHEAP)
        nudge_vdb.apply(plan, force=True)
        return {text: np.asarray(row.vector, np.float32) for text, row in fixture.read().items()}

    first = tuned("012")
    tuned("2345")
    assert prune(fixture.collection, keep=1, state=tmp_path / "state").dropped == [1]
    texts = list(first)
    fixture.re_embed([int(text) for text in texts], np.array([first[text] for text in texts]))
    assert len(nudge_vdb.verify(fixture.collection, state=tmp_path / "state").astray) > 30
    nudge_vdb.rollback(fixture.collection, to=0, state=tmp_path / "state")
    now = fixture.read()
    fixture.close()
    assert max(np.abs(np.asarray(now[text].vector, np.float32) - before[text]).max() for text in texts) < 1e-6
