"""One state a collection: no other state ever takes its tuned vectors for a base."""

import errno
import json
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.adopt import adopt
from nudge_vdb.contract import Ability, agree
from nudge_vdb.errors import Locked, NudgeError, Refused, StateConflict, StateDamaged, Unfinished
from nudge_vdb.notes import sign
from nudge_vdb.prune import prune
from nudge_vdb.standing import open_state
from nudge_vdb.testing import Faulty, MemoryCollection

CHEAP = {"step": 0.3, "max_queries": 30}


class Scoped(MemoryCollection):
    """A collection seen through a condition, or by an engine that keeps no notes."""

    def __init__(self, inner, scope=(), abilities=frozenset(Ability), name="memory"):
        super().__init__(inner.metric, inner.width, name, inner.rows, inner.kept)
        self.scope, self.able = dict(scope), abilities

    @property
    def traits(self):
        return replace(super().traits, scope=self.scope, abilities=self.able)

    def leave_note(self, name, text):
        return Ability.NOTES in self.able and super().leave_note(name, text)


def tune(collection, judgements, state):
    return nudge_vdb.apply(nudge_vdb.plan(collection, judgements, state=state, **CHEAP), force=True)


VERBS = {
    "plan": lambda world, state: nudge_vdb.plan(world.collection, world.fewer, state=state, **CHEAP),
    "apply": lambda world, state: nudge_vdb.apply(nudge_vdb.prepared(world.collection, state=state), force=True),
    "rollback": lambda world, state: nudge_vdb.rollback(world.collection, to=0, state=state),
    "prune": lambda world, state: prune(world.collection, keep=0, state=state),
    "resume": lambda world, state: nudge_vdb.resume(world.collection, state=state),
}


def test_another_state_folder_is_refused_with_the_place_of_the_right_one(world, tmp_path):
    tune(world.collection, world.train, tmp_path / "right")
    right = open_state(world.collection, tmp_path / "right")
    held = world.vectors()
    with pytest.raises(StateConflict, match="belong to the state") as refusal:
        nudge_vdb.plan(world.collection, world.train, state=tmp_path / "wrong", **CHEAP)
    assert right.id[:8] in str(refusal.value)
    assert str(right.folder) in str(refusal.value)
    assert "version 1" in str(refusal.value)
    assert world.vectors().keys() == held.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_writes_with_a_state_that_is_not_the_collections(verb, world, tmp_path):
    other = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path / "other", **CHEAP)
    tune(world.collection, world.train, tmp_path / "right")
    held = world.vectors()
    with pytest.raises(StateConflict, match="belong to the state"):
        VERBS[verb](world, tmp_path / "other")
    assert all(world.vectors()[text] is vector for text, vector in held.items())
    assert other.state.journal.begun() == set()


@pytest.mark.parametrize("verb", VERBS)
def test_a_copy_of_the_state_from_before_the_live_version_was_written_is_refused(verb, world, tmp_path):
    """Even if the version itself is in the copy, which has it waiting."""
    tune(world.collection, world.train, tmp_path / "state")
    plan = nudge_vdb.plan(world.collection, world.fewer, state=tmp_path / "state", **CHEAP)
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    nudge_vdb.apply(plan, force=True)
    held = world.vectors()
    with pytest.raises(StateConflict, match="is older than the collection"):
        VERBS[verb](world, tmp_path / "copy")
    assert all(world.vectors()[text] is vector for text, vector in held.items())


def test_a_copy_of_the_state_from_before_the_live_version_was_made_is_refused(world, tmp_path):
    tune(world.collection, world.train, tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    tune(world.collection, world.fewer, tmp_path / "state")
    with pytest.raises(StateConflict, match="is older than the collection"):
        tune(world.collection, world.test, tmp_path / "copy")


def test_a_copy_from_before_a_prune_may_go_on(world, tmp_path):
    for judgements in (world.train, world.fewer):
        tune(world.collection, judgements, tmp_path / "state")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    assert prune(world.collection, keep=1, state=tmp_path / "state").dropped == [1]
    assert nudge_vdb.rollback(world.collection, to=1, state=tmp_path / "copy").written > 0


def test_at_the_base_the_note_is_withdrawn_and_any_state_may_begin(world, tmp_path):
    tune(world.collection, world.train, tmp_path / "one")
    assert len(world.collection.kept) == 1
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path / "one")
    assert world.collection.kept == {}
    tune(world.collection, world.train, tmp_path / "two")
    with pytest.raises(StateConflict, match=str(tmp_path / "two")):
        tune(world.collection, world.train, tmp_path / "one")


def test_pruning_the_newest_version_does_not_make_an_older_copy_good_again(world, tmp_path):
    state, copy = tmp_path / "state", tmp_path / "copy"
    tune(world.collection, world.train, state)
    shutil.copytree(state, copy)
    tune(world.collection, world.fewer, state)
    nudge_vdb.rollback(world.collection, to=1, state=state)
    nudge_vdb.prune(world.collection, keep=0, state=state)
    nudge_vdb.rollback(world.collection, to=1, state=state)
    with pytest.raises(StateConflict, match="older than the collection"):
        nudge_vdb.rollback(world.collection, to=0, state=copy)


def test_a_note_left_by_a_roll_back_that_died_at_its_end_is_withdrawn_by_resume(world, tmp_path, monkeypatch):
    tune(world.collection, world.train, tmp_path)
    monkeypatch.setattr("nudge_vdb.run.withdraw", lambda *_: None)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert world.collection.notes()
    monkeypatch.undo()
    nudge_vdb.resume(world.collection, state=tmp_path)
    assert not world.collection.notes()
    assert nudge_vdb.resume(world.collection, state=tmp_path) is None


def test_a_note_that_cannot_be_read_stops_every_write(world, tmp_path):
    world.collection.kept["nudge_vdb/x"] = "{"
    with pytest.raises(StateConflict, match=r"the note nudge_vdb/x .* cannot be read"):
        tune(world.collection, world.train, tmp_path)


def test_notes_of_others_are_none_of_ours(world, tmp_path):
    """The adapter returns notes of ours only; the name tells."""
    tune(world.collection, world.train, tmp_path)
    (name,) = world.collection.kept
    told = json.loads(world.collection.kept[name])
    assert name.startswith("nudge_vdb/")
    assert len(world.collection.kept[name]) <= 1000
    assert told.keys() == {"state", "version", "vector", "scope", "host", "folder"}


# A collection that is reached by another name


def test_a_state_follows_a_collection_to_another_host(world, tmp_path):
    before = world.vectors()
    tune(world.collection, world.train, tmp_path)
    moved = Scoped(world.collection, name="elsewhere/memory")
    with pytest.raises(StateConflict, match="'nudge-vdb adopt ADDRESS"):
        nudge_vdb.plan(moved, world.fewer, state=tmp_path, **CHEAP)
    assert "that of memory:elsewhere/memory" in adopt(moved, state=tmp_path)
    nudge_vdb.rollback(moved, to=0, state=tmp_path)
    assert all(agree(moved.rows[text].vector[None], vector[None], 1e-6)[0] for text, vector in before.items())
    assert "already" in adopt_again(world, moved, tmp_path)


def adopt_again(world, moved, folder):
    tune(moved, world.train, folder)
    return adopt(moved, state=folder)


def test_a_state_follows_its_collection_there_and_back_without_notes(world, tmp_path):
    here, there = (Scoped(world.collection, abilities=frozenset(), name=f"{host}/docs") for host in ("a", "b"))
    tune(here, world.train, tmp_path)
    for collection in (there, here, there):
        assert "is that of" in adopt(collection, state=tmp_path)
        nudge_vdb.verify(collection, state=tmp_path)
        other = here if collection is there else there
        with open_state(other, tmp_path).locked():
            pass  # an empty state is in the way of the way back
    assert nudge_vdb.verify(there, state=tmp_path).tuned == 80


def test_adopting_from_a_run_at_work_is_refused(world, tmp_path):
    tune(world.collection, world.train, tmp_path)
    moved = Scoped(world.collection, name="elsewhere/memory")
    with open_state(world.collection, tmp_path).locked(), pytest.raises(Locked, match="is working with"):
        adopt(moved, state=tmp_path)


def test_a_lost_state_is_given_up_only_when_asked_in_so_many_words(world, tmp_path):
    tune(world.collection, world.train, tmp_path)
    shutil.rmtree(open_state(world.collection, tmp_path).folder)
    with pytest.raises(StateConflict, match="belong to the state"):
        tune(world.collection, world.train, tmp_path)
    with pytest.raises(StateConflict, match=r"nothing like it; name the right folder.*--as-base"):
        adopt(world.collection, state=tmp_path)
    given_up = world.vectors()
    assert "base" in adopt(world.collection, state=tmp_path, as_base=True)
    tune(world.collection, world.fewer, tmp_path)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path)
    assert all(agree(world.vectors()[text][None], vector[None], 1e-6)[0] for text, vector in given_up.items())


def test_a_state_with_versions_of_its_own_is_not_made_anothers_base(world, tmp_path):
    nudge_vdb.plan(world.collection, world.fewer, state=tmp_path / "other", **CHEAP)
    tune(world.collection, world.train, tmp_path / "right")
    with pytest.raises(StateConflict, match="versions of its own"):
        adopt(world.collection, state=tmp_path / "other", as_base=True)


def test_a_state_of_another_width_is_not_adopted(world, worlds, tmp_path):
    tune(world.collection, world.train, tmp_path)
    narrow = Scoped(worlds(width=8).collection, name="elsewhere/memory")
    narrow.kept = world.collection.kept
    with pytest.raises(StateConflict, match="made with width 24"):
        adopt(narrow, state=tmp_path)


# Scopes

WHOLE, A, B, AX = {}, {"tenant": "a"}, {"tenant": "b"}, {"tenant": "a", "part": "x"}


@pytest.mark.parametrize("abilities", [frozenset(Ability), frozenset()], ids=["by notes", "by sibling states"])
@pytest.mark.parametrize(("first", "second"), [(WHOLE, A), (A, WHOLE), (A, AX), (AX, A), (AX, {"part": "x"})])
def test_scopes_that_overlap_are_not_tuned_apart(first, second, abilities, world, tmp_path):
    one, two = (Scoped(world.collection, scope, abilities) for scope in (first, second))
    tune(one, world.train, tmp_path)
    with pytest.raises(StateConflict, match=r"may also belong to .* roll it back to version 0 first"):
        tune(two, world.train, tmp_path)
    nudge_vdb.rollback(one, to=0, state=tmp_path)
    tune(two, world.train, tmp_path)


@pytest.mark.parametrize("abilities", [frozenset(Ability), frozenset()], ids=["by notes", "by sibling states"])
def test_scopes_that_share_no_row_are_tuned_apart(abilities, world, tmp_path):
    one, two = (Scoped(world.collection, scope, abilities) for scope in (A, B))
    tune(one, world.train, tmp_path)
    nudge_vdb.plan(two, world.train, state=tmp_path, **CHEAP)


def test_a_long_condition_is_told_by_its_digest_and_overlaps_only_with_itself(world, tmp_path):
    one, same, other = (Scoped(world.collection, {"where": text * 200}) for text in "aab")
    tune(one, world.train, tmp_path / "state")
    nudge_vdb.plan(other, world.train, state=tmp_path / "state", **CHEAP)
    with pytest.raises(StateConflict, match="belong to the state"):
        nudge_vdb.plan(same, world.train, state=tmp_path / "elsewhere", **CHEAP)


# Engines without notes


def test_without_notes_the_state_folder_still_knows_its_own(world, tmp_path, caplog):
    before = world.vectors()
    mute = Scoped(world.collection, abilities=frozenset())
    tune(mute, world.train, tmp_path)
    tune(mute, world.fewer, tmp_path)
    nudge_vdb.rollback(mute, to=0, state=tmp_path)
    assert all(agree(mute.rows[text].vector[None], vector[None], 1e-6)[0] for text, vector in before.items())
    assert not caplog.messages


def test_a_key_that_may_not_leave_notes_is_warned_about_it(world, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Scoped, "leave_note", lambda *_: False)
    tune(Scoped(world.collection), world.train, tmp_path)
    assert "no note could be left" in caplog.text


def test_a_collection_made_again_under_its_name_is_a_new_base(world, worlds, tmp_path):
    tune(world.collection, world.train, tmp_path)
    again = worlds(seed=1)
    theirs = again.vectors()
    assert len(nudge_vdb.verify(again.collection, state=tmp_path).re_embedded) == 80
    tune(again.collection, again.train, tmp_path)
    nudge_vdb.rollback(again.collection, to=0, state=tmp_path)
    assert all(agree(again.vectors()[text][None], vector[None], 1e-6)[0] for text, vector in theirs.items())
    assert np.isfinite([*theirs.values()]).all()


def test_a_sibling_state_that_is_damaged_stops_nobody_else(world, worlds, tmp_path):
    tune(Scoped(world.collection, A), world.train, tmp_path)
    other = Scoped(worlds().collection, name="other")
    (open_state(Scoped(world.collection, A), tmp_path).folder / "collection.json").write_text("{")
    tune(other, world.train, tmp_path)
    with pytest.raises(StateDamaged):
        nudge_vdb.status(Scoped(world.collection, A), state=tmp_path)


class Between(MemoryCollection):
    """A collection in whose requests others act: *before* or *after* a note is left, or before a write."""

    def __init__(self, inner):
        super().__init__(inner.metric, inner.width, inner.name, inner.rows, inner.kept)
        self.before_note = self.after_note = self.before_write = None

    def leave_note(self, name, text):
        self._act("before_note")
        kept = super().leave_note(name, text)
        self._act("after_note")
        return kept

    def write(self, keys, vectors, expected):
        self._act("before_write")
        return super().write(keys, vectors, expected)

    def _act(self, moment):
        act = getattr(self, moment)
        setattr(self, moment, None)  # once
        if act:
            act()


def prepared_twice(world, tmp_path):
    """Return plans of two states, which no note stands in the way of yet; the first one's collection is hooked."""
    mine, theirs = (
        nudge_vdb.plan(world.collection, judged, state=tmp_path / name, **CHEAP)
        for judged, name in ((world.train, "mine"), (world.fewer, "theirs"))
    )
    hooked = Between(world.collection)
    return hooked, replace(mine, collection=hooked), theirs


@pytest.mark.parametrize("moment", ["before_note", "after_note"])
def test_of_two_states_that_begin_at_once_one_at_most_writes(world, tmp_path, moment):
    """Each has looked and found no note; the other one runs to its end just before, or after, the first leaves one."""
    before = world.vectors()
    hooked, mine, theirs = prepared_twice(world, tmp_path)
    wrote = []

    def other_host():
        with suppress(StateConflict):
            wrote.append(nudge_vdb.apply(theirs, force=True).written)

    setattr(hooked, moment, other_host)
    with suppress(StateConflict):
        wrote.append(nudge_vdb.apply(mine, force=True).written)
    assert len(wrote) <= 1
    moved = {text for text, vector in world.vectors().items() if (vector != before[text]).any()}
    assert len(moved) == sum(wrote)


def test_a_state_that_gives_way_takes_its_claim_back(world, tmp_path):
    """The other one claims the collection just before it leaves its own claim."""
    hooked, mine, theirs = prepared_twice(world, tmp_path)

    def die():
        raise KeyboardInterrupt

    def they_claim():
        (begun := Between(world.collection)).after_note = die
        with pytest.raises(KeyboardInterrupt):
            nudge_vdb.apply(replace(theirs, collection=begun), force=True)

    hooked.before_note = they_claim
    with pytest.raises(StateConflict, match="theirs"):
        nudge_vdb.apply(mine, force=True)
    assert [json.loads(note)["state"] for note in world.collection.kept.values()] == [theirs.state.id]
    assert nudge_vdb.resume(world.collection, state=tmp_path / "theirs").skipped == {}


def test_a_claim_that_a_dead_run_left_keeps_others_out_and_itself_not(world, tmp_path):
    hooked, mine, theirs = prepared_twice(world, tmp_path)

    def die():
        raise KeyboardInterrupt

    hooked.after_note = die
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(mine, force=True)
    with pytest.raises(StateConflict, match="mine"):
        nudge_vdb.apply(theirs, force=True)
    assert nudge_vdb.resume(world.collection, state=tmp_path / "mine").written == len(mine.version.content.keys)
    assert len(world.collection.kept) == 1


def test_a_move_whose_note_vanishes_stops_and_leaves_it_again(world, tmp_path):
    """The collection was restored from a backup in the middle of the move, its note with it."""
    hooked, mine, _ = prepared_twice(world, tmp_path)
    base = world.vectors()

    def restored():
        for text, vector in base.items():
            world.fixture.re_embed([text], vector[None])
        world.collection.kept.clear()

    hooked.before_write = restored
    with pytest.raises(
        Unfinished, match=r"restored, emptied or made anew .* unfinished, and at least .*'nudge-vdb resume"
    ):
        nudge_vdb.apply(mine, force=True)
    assert open_state(world.collection, tmp_path / "mine").journal.unfinished == 1
    with pytest.raises(StateConflict, match="belong to the state"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path / "stranger", **CHEAP)
    nudge_vdb.rollback(world.collection, to=0, state=tmp_path / "mine")
    assert all((vector == base[text]).all() for text, vector in world.vectors().items())


def test_a_move_that_meets_another_states_note_stops_before_its_next_batch(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 20)
    hooked, mine, theirs = prepared_twice(world, tmp_path)

    def taken():
        world.collection.kept.clear()
        with theirs.state.locked():
            theirs.state.journal.add("begin", **{"to": 1, "from": 0})
            sign(world.collection, theirs.state)

    hooked.before_write = taken
    with pytest.raises(Unfinished, match=r"theirs.* has begun to move"):
        nudge_vdb.apply(mine, force=True)
    assert open_state(world.collection, tmp_path / "mine").journal.progress()[0] == 20


def refused_at_the_second_batch(world, tmp_path, monkeypatch, before):
    """Apply a plan of which the engine refuses the second batch, after *before* was done; return the failure."""
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 20)
    monkeypatch.setattr("nudge_vdb.writeback.SECONDS_BETWEEN_LOOKS", 3600.0)
    _, mine, _ = prepared_twice(world, tmp_path)

    def refuse():
        before()
        raise Refused("expected dim: 24, got 8")

    hooked = Faulty(world.collection, before={("write", 2): refuse})
    with pytest.raises(NudgeError) as failure:
        nudge_vdb.apply(replace(mine, collection=hooked), force=True)
    return failure.value


def test_a_batch_that_is_refused_since_the_collection_was_made_anew_is_told_so(world, tmp_path, monkeypatch):
    failure = refused_at_the_second_batch(world, tmp_path, monkeypatch, world.collection.kept.clear)
    assert isinstance(failure, Unfinished)
    assert "restored, emptied or made anew during the move" in str(failure)
    assert "at least 20 of" in str(failure)
    assert str(failure).endswith("the engine says: expected dim: 24, got 8")


def test_a_batch_that_is_refused_for_another_reason_says_so_and_how_to_go_on(world, tmp_path, monkeypatch):
    failure = refused_at_the_second_batch(world, tmp_path, monkeypatch, lambda: None)
    assert type(failure) is Refused
    assert str(failure).startswith("expected dim: 24, got 8; the move of memory:")
    assert "at least 20 of" in str(failure)
    assert "rollback ADDRESS --to 0" in str(failure)


def test_a_disk_that_fills_up_in_a_move_is_said_with_the_rows_written_and_the_way_on(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 20)
    hooked, mine, _ = prepared_twice(world, tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    hooked.before_write = lambda: monkeypatch.setattr("nudge_vdb.journal.append_line", full)
    with pytest.raises(Unfinished, match=r"cannot be written.*No space left.*rollback ADDRESS --to 0") as failure:
        nudge_vdb.apply(mine, force=True)
    assert failure.value.exit_status == 1
    monkeypatch.undo()
    assert nudge_vdb.rollback(world.collection, to=0, state=tmp_path / "mine").skipped == {}


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT, errno.EFBIG])
def test_whatever_the_system_refuses_in_a_move_is_not_said_to_have_written_nothing(code, world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 20)
    hooked, mine, _ = prepared_twice(world, tmp_path)

    def refused(*_):
        raise OSError(code, "refused by the system")

    hooked.before_write = lambda: monkeypatch.setattr("nudge_vdb.journal.append_line", refused)
    with pytest.raises(Unfinished, match=r"refused by the system.*rollback ADDRESS --to 0") as failure:
        nudge_vdb.apply(mine, force=True)
    assert failure.value.exit_status == 1
    monkeypatch.undo()
    assert nudge_vdb.rollback(world.collection, to=0, state=tmp_path / "mine").skipped == {}


def test_what_the_system_refuses_after_a_move_is_told_with_the_rows_written(world, tmp_path, monkeypatch):
    _, mine, _ = prepared_twice(world, tmp_path)

    def refused(*_):
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("nudge_vdb.run.verify_live", refused)
    with pytest.raises(Unfinished, match=r"the rows of version 1 are written.*too many open files.*nudge-vdb verify"):
        nudge_vdb.apply(mine, force=True)


def test_a_state_that_begins_anew_drops_the_claims_of_lost_ones(world, tmp_path):
    hooked, mine, _ = prepared_twice(world, tmp_path)

    def die():
        raise KeyboardInterrupt

    hooked.after_note = die
    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(mine, force=True)
    shutil.rmtree(tmp_path / "mine")
    adopt(world.collection, state=tmp_path / "new", as_base=True)
    assert nudge_vdb.plan(world.collection, world.train, state=tmp_path / "new", **CHEAP).version.number == 1
