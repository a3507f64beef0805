"""One run at a time: who holds a state, when it is taken over, and that a run that lost it stops."""

import errno
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

import nudge_vdb
from nudge_vdb.contract import Ability, guarded, request_guard
from nudge_vdb.errors import BadOption, Locked, Unfinished
from nudge_vdb.hold import SILENCE, Hold
from nudge_vdb.phases import Phases
from nudge_vdb.standing import open_state
from nudge_vdb.testing import Faulty

ELSEWHERE = {"token": "theirs", "process": 4711, "host": "elsewhere", "machine": "another", "started": "1", "since": 0}


DYING_HOLDER = """
import os, sys
from pathlib import Path
from nudge_vdb.hold import Hold

Hold(Path(sys.argv[1])).take()
os._exit(1)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def watched(monkeypatch):
    """Let a watched file be looked at again at once; call what is given between two looks."""
    between = []
    monkeypatch.setattr(
        "nudge_vdb.hold.time",
        SimpleNamespace(
            sleep=lambda _: [act() for act in between], time=time.time, strftime=time.strftime, localtime=time.localtime
        ),
    )
    return between


def say(folder, age, **facts):
    """Let somebody have shown a sign of life *age* seconds ago."""
    path = folder / "holder.json"
    whole = path.with_suffix(".new")  # a run that reads it meanwhile sees the one or the other
    whole.write_text(json.dumps({**ELSEWHERE, **facts}))
    os.utime(whole, (time.time() - age,) * 2)
    whole.replace(path)


def take(folder):
    hold = Hold(folder)
    hold.take()
    return hold


def test_a_holder_elsewhere_that_gave_a_sign_of_life_keeps_others_out_by_name(folder):
    say(folder, SILENCE / 2)
    with pytest.raises(Locked, match=r"process 4711 on elsewhere \(since "):
        take(folder)


def test_a_holder_elsewhere_that_has_been_silent_is_taken_over(folder, watched):
    say(folder, SILENCE + 1)
    hold = take(folder)
    hold.check()
    hold.release()
    assert not (folder / "holder.json").exists()


def test_a_holder_elsewhere_that_changes_its_file_while_it_is_watched_keeps_others_out(folder, watched):
    """Its clock is behind by an hour: by its time it has been silent, by what it does it lives."""
    say(folder, 3600)
    beats = iter(range(100))
    watched.append(lambda: os.utime(folder / "holder.json", (time.time() - 3600 + next(beats),) * 2))
    with pytest.raises(Locked, match="elsewhere"):
        take(folder)


def test_a_clock_of_ours_that_is_ahead_takes_nothing_from_a_holder_at_work(folder, watched, monkeypatch):
    say(folder, 0)
    monkeypatch.setattr("nudge_vdb.hold.time.time", lambda: time.time() + 7200)
    with pytest.raises(Locked, match="elsewhere"):
        take(folder)


def test_a_dead_holder_whose_clock_was_ahead_keeps_nobody_out(folder, watched):
    say(folder, -86400)
    take(folder).release()


def test_looking_at_the_clock_of_the_file_system_leaves_nothing_behind(folder, watched):
    say(folder, SILENCE + 1)
    take(folder).release()
    assert {path.name for path in folder.iterdir()} <= {"lock"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock here")])
def test_a_file_system_without_locks_is_refused_in_words(folder, failure, monkeypatch):
    def refuse(*_, **__):
        raise failure

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(BadOption, match="keeps no locks"):
        take(folder)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_system_that_cannot_lock_is_refused_in_words_and_nothing_else_is_taken_for_a_lock(
    number, world, tmp_path, monkeypatch
):
    def cannot(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", cannot)
    with pytest.raises(BadOption, match=r"keeps no locks, so two runs could write at once; .*--state"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    assert not list(tmp_path.glob("*/holder.json"))
    monkeypatch.undo()
    assert nudge_vdb.plan(world.collection, world.train, state=tmp_path).version.number == 1


@pytest.mark.parametrize(
    "failure", [TimeoutError("timed out"), ConnectionError("reset"), OSError(errno.ECONNRESET, "")]
)
def test_a_failure_of_a_client_is_not_taken_for_one_of_the_state_folder(failure, world, tmp_path):
    def fail():
        raise failure

    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    with pytest.raises(type(failure)):
        nudge_vdb.plan(Faulty(world.collection, before={("scan", 1): fail}), world.train, state=tmp_path)
    with pytest.raises(Unfinished, match=r"the move of .* is unfinished") as told:
        nudge_vdb.apply(replace(plan, collection=Faulty(world.collection, before={("write", 1): fail})), force=True)
    assert "the state folder" not in str(told.value)
    assert told.value.__cause__ is failure


def test_a_dead_holder_of_this_machine_is_taken_over_at_once(folder):
    assert subprocess.run([sys.executable, "-c", DYING_HOLDER, folder], check=False).returncode == 1
    assert (folder / "holder.json").exists()
    take(folder).release()


def test_another_process_with_the_number_of_a_dead_holder_is_not_taken_for_it(folder):
    hold = take(folder)
    mine = json.loads((folder / "holder.json").read_text())
    hold.release()
    say(folder, 0, **{**mine, "started": "1"})
    take(folder).release()


def test_a_holder_tells_who_it_is_and_leaves_nothing_behind(folder):
    hold = take(folder)
    told = json.loads((folder / "holder.json").read_text())
    assert told["process"] == os.getpid()
    assert {"host", "machine", "started", "since", "token"} <= told.keys()
    hold.release()
    assert not (folder / "holder.json").exists()


def test_a_taking_that_failed_halfway_keeps_nobody_out(folder, monkeypatch):
    def fail(folder):
        raise OSError("the disk is gone")

    monkeypatch.setattr("nudge_vdb.durable.sync_folder", fail)
    with pytest.raises(OSError, match="gone"):
        take(folder)
    monkeypatch.undo()
    take(folder).release()


def test_signs_of_life_are_given_while_it_is_held_and_only_for_oneself(folder, monkeypatch):
    monkeypatch.setattr("nudge_vdb.hold.BEAT", 0.01)
    path = folder / "holder.json"
    hold = take(folder)
    os.utime(path, (0, 0))
    while path.stat().st_mtime == 0:
        time.sleep(0.01)  # until the sign is given; the test hangs if it never is
    say(folder, 1000)
    before = path.stat().st_mtime
    hold._thread.join()
    assert path.stat().st_mtime == before
    with pytest.raises(Locked, match=r"elsewhere .* has taken over"):
        hold.check()
    hold.release()
    assert path.exists()


def taken_over(state):
    """Let a run elsewhere take over, as it may once this one has been silent."""
    return lambda: say(state.folder, 0)


def events(state):
    """Return what the journal has noted so far."""
    return [json.loads(line[9:])["event"] for line in (state.folder / "journal").read_text().splitlines()]


def leave_half_done(world, folder):
    """Begin a move and die at its second write: one that goes on with it reads each batch first."""

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nudge_vdb.apply(nudge_vdb.prepared(Faulty(world.collection, before={("write", 2): die}), state=folder))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("call", ["fetch", "write"])
def test_a_run_that_lost_its_hold_stops_before_its_next_write_to_database_and_state(
    call, moment, world, tmp_path, monkeypatch
):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 20)
    state = open_state(world.collection, tmp_path)
    nudge_vdb.plan(world.collection, world.train, state=tmp_path)
    if call == "fetch":
        leave_half_done(world, tmp_path)
    known = events(state)
    slept = Faulty(world.collection, **{moment: {(call, 2): taken_over(state)}})
    with pytest.raises(Locked, match=r"process 4711 on elsewhere .* has taken over memory:memory.*stopped before"):
        nudge_vdb.apply(nudge_vdb.prepared(slept, state=tmp_path))
    assert slept.calls["write"] == (0 if call == "fetch" else 2)  # what the first batch wrote is there already
    assert events(state) == [*known, "begin", "batch"]
    assert json.loads((state.folder / "holder.json").read_text())["token"] == "theirs"


def test_a_roll_back_that_lost_its_hold_while_it_read_back_leaves_the_note_to_who_took_over(world, tmp_path):
    state = open_state(world.collection, tmp_path)
    nudge_vdb.apply(nudge_vdb.plan(world.collection, world.train, state=tmp_path))
    left = world.collection.notes()
    assert left
    slept = Faulty(world.collection, after={("fetch", 1): taken_over(state)})
    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.rollback(slept, to=0, state=tmp_path)
    assert world.collection.notes() == left


def test_a_plan_that_lost_its_hold_keeps_no_version(world, tmp_path):
    state = open_state(world.collection, tmp_path)
    slept = Faulty(world.collection, after={("scan", 1): taken_over(state)})
    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.plan(slept, world.train, state=tmp_path)
    assert not list(state.folder.glob("versions/*"))


def test_a_plan_that_lost_its_hold_reads_no_further_into_the_folder_of_another(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.pages.PAGE_BYTES", 4 * world.collection.width * 20)
    state = open_state(world.collection, tmp_path)
    slept = Faulty(world.collection, after={("scan", 2): taken_over(state)})
    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.plan(slept, world.train, state=tmp_path)
    assert slept.calls["scan"] == 2


def test_a_plan_that_lost_its_hold_leaves_the_copy_of_the_vectors_to_who_took_over(world, tmp_path):
    state = open_state(world.collection, tmp_path)

    class Asleep(Phases):
        @contextmanager
        def shown(self, name, total):
            if name == "snapshot":
                taken_over(state)()
            with super().shown(name, total) as step:
                yield step

    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.plan(world.collection, world.train, state=tmp_path, phases=Asleep())
    assert (state.pages / "progress.json").exists()


def test_a_state_that_was_never_held_takes_nothing(world, tmp_path):
    """Neither a version, nor a line of the journal, nor the end of a version."""
    version = nudge_vdb.plan(world.collection, world.train, state=tmp_path).version
    second = open_state(world.collection, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for act in (
        lambda: second.add_version(version.content, dict(version.manifest)),
        lambda: second.journal.add("begin", **{"to": 1, "from": 0}),
        lambda: second.drop(1),
    ):
        with pytest.raises(Locked, match="written only by a run that holds it"):
            act()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_who_is_refused_does_not_take_the_hold_from_who_has_it(world, tmp_path, monkeypatch):
    """Two threads use one plan; the second is refused, and the first still notices that it was taken over."""
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * world.collection.width * 20)
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path)

    def second_thread():
        with pytest.raises(Locked):
            nudge_vdb.apply(plan, force=True)
        taken_over(plan.state)()

    slept = Faulty(world.collection, before={("write", 2): second_thread})
    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.apply(replace(plan, collection=slept), force=True)
    assert slept.calls["write"] == 2


class Requests(Faulty):
    """A collection whose writes are requests of ten rows each; *asking* before each, or not."""

    def __init__(self, inner, asking, before_request):
        super().__init__(inner)
        self.asking, self.before_request, self.sent = asking, before_request, []

    @property
    def traits(self):
        known = super().traits
        return replace(known, abilities=known.abilities - (set() if self.asking else {Ability.GUARDED}))

    def write(self, keys, vectors, expected):
        guard, outcomes = request_guard() if self.asking else lambda: None, []
        for first in range(0, len(keys), 10):
            part = slice(first, first + 10)
            self.before_request(len(self.sent))
            guard()
            self.sent += keys[part]
            with guarded(lambda: None):  # the collection inside would ask as well
                outcomes += super().write(keys[part], vectors[part], expected[part])
        return outcomes


def test_a_run_that_lost_its_hold_sends_no_further_request_of_its_batch(world, tmp_path):
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, step=0.3, max_queries=30)
    act = taken_over(plan.state)
    slept = Requests(world.collection, True, lambda sent: sent == 30 and act())
    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.apply(replace(plan, collection=slept), force=True)
    assert len(slept.sent) == 30


def test_a_backend_that_does_not_ask_is_sent_few_rows_at_once(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.UNGUARDED_ROWS", 20)
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, step=0.3, max_queries=30)
    act = taken_over(plan.state)
    slept = Requests(world.collection, False, lambda sent: sent == 30 and act())
    with pytest.raises(Locked, match="has taken over"):
        nudge_vdb.apply(replace(plan, collection=slept), force=True)
    assert len(slept.sent) == 40  # the two requests of the portion that was on its way


def test_a_backend_that_asks_is_sent_whole_batches(world, tmp_path, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.UNGUARDED_ROWS", 20)
    plan = nudge_vdb.plan(world.collection, world.train, state=tmp_path, step=0.3, max_queries=30)
    whole = Faulty(world.collection)
    nudge_vdb.apply(replace(plan, collection=whole), force=True)
    assert whole.calls["write"] == 1
