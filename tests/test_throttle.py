"""A move with a throttle, and one on a server that slows down: what passes when, and what is read when."""

import math
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb import pace
from nudge_vdb.contract import Outcome, Rows
from nudge_vdb.errors import BadOption, Refused
from nudge_vdb.run import open_state
from nudge_vdb.testing import Faulty
from tests.test_newcomers import LATE, without

WIDTH = 24
MOVED = 80
LONGEST = 60


@pytest.fixture
def passed(monkeypatch):
    """Let time pass in no time where a pace waits; return what happened when: (what, at, rows)."""
    told = SimpleNamespace(at=0.0, events=[])

    def sleep(seconds):
        told.events.append(("wait", told.at, 0))
        told.at += seconds

    clock = pace.Clock(lambda: told.at, sleep)
    monkeypatch.setattr("nudge_vdb.pace.Clock", lambda: clock)
    return told


class Watched(Faulty):
    """A collection that notes when it is read and written, and takes its time for a write."""

    def __init__(self, inner, passed, seconds=lambda number: 0.0):
        super().__init__(inner)
        self._passed, self._seconds = passed, seconds

    def fetch(self, keys, out):
        self._passed.events.append(("fetch", self._passed.at, len(keys)))
        return super().fetch(keys, out)

    def write(self, keys, vectors, expected):
        self._passed.events.append(("write", self._passed.at, len(keys)))
        self._passed.at += self._seconds(self.calls["write"])
        return super().write(keys, vectors, expected)


def batches_of(rows, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * WIDTH * rows)


def planned(world, folder, collection=None, **choices):
    return nudge_vdb.plan(collection or world.collection, world.train, state=folder, step=0.3, **choices)


def events(passed, what):
    return [(at, rows) for name, at, rows in passed.events if name == what]


def require_even(happened, throttle):
    """Require that at no time more rows had passed than the throttle allows, but for the batch of that moment."""
    start, done = happened[0][0], 0
    for at, rows in happened:
        assert done <= throttle * (at - start) + 1e-6
        done += rows
    return done


VERBS = {
    "apply": lambda world, folder, **pace: nudge_vdb.apply(nudge_vdb.prepared(world, state=folder), force=True, **pace),
    "rollback": lambda world, folder, **pace: nudge_vdb.rollback(world, to=0, state=folder, **pace),
    "resume": lambda world, folder, **pace: nudge_vdb.resume(world, state=folder, **pace),
    "carry": lambda world, folder, **pace: nudge_vdb.carry(world, state=folder, **pace),
    "verify": lambda world, folder, **pace: nudge_vdb.verify(world, state=folder, **pace),
}


def ready_for(verb, world, folder, late):
    """Bring the collection to where *verb* has something to do."""
    plan = planned(world, folder, carry="on" if verb == "carry" else "off")
    if verb == "apply":
        return
    if verb != "resume":
        nudge_vdb.apply(plan, force=True)
        if verb == "carry":
            world.fixture.insert(late)
        return

    def refuse():
        raise Refused("no")

    dies = nudge_vdb.prepared(Faulty(world.collection, before={("write", 1): refuse}), state=folder)
    with pytest.raises(Refused):
        nudge_vdb.apply(dies, force=True)


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_writes_or_reads_back_more_rows_in_a_second_than_the_throttle(verb, worlds, tmp_path, passed):
    world = worlds(apart=1.0)
    late: Rows = without(world, LATE)
    ready_for(verb, world, tmp_path, late)
    passed.events.clear()
    VERBS[verb](Watched(world.collection, passed), tmp_path, throttle=7.5)
    written = {"carry": len(LATE), "verify": 0}.get(verb, MOVED)
    assert sum(rows for _, rows in events(passed, "write")) == written
    assert max(rows for _, rows in events(passed, "fetch")) == 7
    assert require_even(events(passed, "fetch"), 7.5) >= max(written, MOVED)
    if written == MOVED:
        assert require_even(events(passed, "write"), 7.5) == MOVED


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("throttle", [0, -5, math.nan, math.inf])
def test_a_throttle_that_is_no_rate_is_refused_by_every_verb_and_nothing_is_written(verb, throttle, world, tmp_path):
    counted = Faulty(world.collection)
    nudge_vdb.apply(planned(world, tmp_path, carry="on"), force=True)
    with pytest.raises(BadOption, match="rows per second, a number above 0"):
        VERBS[verb if verb != "apply" else "rollback"](counted, tmp_path, throttle=throttle)
    with pytest.raises(BadOption, match="rows per second, a number above 0"):
        planned(world, tmp_path, counted, throttle=throttle)
    assert counted.calls["write"] == 0


def test_the_report_and_the_journal_tell_what_was_waited(world, tmp_path, passed):
    plan = planned(world, tmp_path)
    applied = nudge_vdb.apply(plan, throttle=10)
    assert applied.report["waited"] == {
        "throttle": pytest.approx(15.0),
        "slow_server": 0.0,
    }  # two times 80 rows, the first ten at once
    lines = (plan.state.folder / "journal").read_text().splitlines()
    assert sum('"waited": 1.0' in line for line in lines) == 7
    assert not any("waited" in line for line in lines[:3])


def test_what_a_move_waited_is_no_part_of_the_price_of_the_next(world, tmp_path, monkeypatch):
    nudge_vdb.apply(planned(world, tmp_path))
    state = open_state(world.collection, tmp_path)
    with state.locked():
        journal = state.journal
        start = journal._events[-1]["time"]
        monkeypatch.setattr("time.time", lambda: start + len(journal._events))
        journal.add("begin", to=1, **{"from": 0}, rows=60, next=None)
        journal.add("batch", rows=30, written=30, skipped={}, next=None)
        journal.add("batch", rows=30, written=30, skipped={}, next=None, waited=0.75)
        journal.add("end", to=1, **{"from": 0})
    assert journal.large_move(50) == (pytest.approx(3 - 0.75), 60, 60)


def test_the_price_is_that_of_a_throttled_move_where_one_is_asked_for(world, tmp_path):
    assert planned(world, tmp_path, throttle=0.5).report["minutes"] == pytest.approx(2 * MOVED / 0.5 / 60, rel=0.01)
    assert planned(world, tmp_path, throttle=1e9).report["minutes"] < 1


def test_a_move_reads_no_row_that_is_where_the_live_version_put_it(world, tmp_path, passed, monkeypatch):
    batches_of(20, monkeypatch)
    planned(world, tmp_path)
    passed.events.clear()
    assert VERBS["apply"](Watched(world.collection, passed), tmp_path).written == MOVED
    names = [name for name, _, _ in passed.events]
    assert names == ["write"] * 4 + ["fetch"] * 4  # the last to verify


def test_a_resumed_move_reads_a_batch_just_before_it_is_written(world, tmp_path, passed):
    ready_for("resume", world, tmp_path, None)
    passed.events.clear()
    VERBS["resume"](Watched(world.collection, passed), tmp_path, throttle=10)
    names = [name for name, _, _ in passed.events if name != "wait"]
    assert names[: 2 * 8] == ["fetch", "write"] * 8


def slowed(world, folder, passed, monkeypatch):
    """Apply a plan on a server that takes ten times as long for the second half of the rows; return what became."""
    batches_of(2, monkeypatch)
    planned(world, folder)
    passed.events.clear()
    watched = Watched(world.collection, passed, lambda number: 0.1 if number < 20 else 1.0)
    return VERBS["apply"](watched, folder)


def test_a_server_that_slows_down_is_given_way_to_and_the_report_says_so(world, tmp_path, passed, monkeypatch, caplog):
    applied = slowed(world, tmp_path, passed, monkeypatch)
    assert applied.written == MOVED
    assert applied.report["waited"]["throttle"] == 0
    waits = [at for name, at, _ in passed.events if name == "wait"]
    assert applied.report["waited"]["slow_server"] == pytest.approx(len(waits) * pace.SLICE, rel=0.05)
    assert applied.report["waited"]["slow_server"] > 20
    assert sum("its users come first" in record.getMessage() for record in caplog.records) == 1


def test_rows_that_the_server_only_compares_say_nothing_of_how_fast_it_writes(world, tmp_path, passed, monkeypatch):
    batches_of(5, monkeypatch)
    planned(world, tmp_path)
    theirs = sorted(set(world.train.rows))[: MOVED // 2]
    world.fixture.re_embed(theirs, np.random.default_rng(1).normal(size=(len(theirs), WIDTH)).astype(np.float32))

    class Steady(Watched):
        """It takes ten times as long to write a row as to compare it."""

        def write(self, keys, vectors, expected):
            outcomes = super().write(keys, vectors, expected)
            passed.at += sum(0.1 if outcome is Outcome.WRITTEN else 0.01 for outcome in outcomes)
            return outcomes

    applied = VERBS["apply"](Steady(world.collection, passed), tmp_path)
    assert (applied.written, applied.changed) == (MOVED // 2, MOVED // 2)
    assert applied.report["waited"]["slow_server"] == 0


def test_a_row_that_changes_while_a_move_waits_is_its_owners(world, tmp_path, passed, monkeypatch):
    planned(world, tmp_path)
    rows = sorted(set(world.train.rows))
    theirs = np.eye(WIDTH, dtype=np.float32)[:1]

    class Changing(Watched):
        def write(self, keys, vectors, expected):
            outcomes = super().write(keys, vectors, expected)
            if self.calls["write"] == 1:
                world.fixture.re_embed(rows[-1:], theirs)
            return outcomes

    applied = VERBS["apply"](Changing(world.collection, passed), tmp_path, throttle=10)
    assert applied.skipped["changed"] == rows[-1:]
    assert (world.vectors()[rows[-1]] == theirs[0]).all()


def test_a_read_that_fails_stops_the_move_after_the_batch_before_it_is_in_the_journal(world, tmp_path, monkeypatch):
    def refuse():
        raise Refused("no more reading")

    batches_of(30, monkeypatch)
    ready_for("resume", world, tmp_path, None)
    with pytest.raises(Refused, match="no more reading"):
        VERBS["resume"](Faulty(world.collection, before={("fetch", 2): refuse}), tmp_path)
    assert open_state(world.collection, tmp_path).journal.progress() == (30, MOVED)
    assert nudge_vdb.resume(world.collection, state=tmp_path).report["verified"]["tuned"] == MOVED


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_wish_to_stop_is_heard_while_a_throttle_is_waited_for(name, tmp_path):
    said = said_by(tmp_path, name)
    assert said == ["130 stopped with 1 of 80 rows done", "3 sleeps", "resumed 80"]


WAITING = """
import os, signal, sys
import nudge_vdb
from nudge_vdb import pace
from nudge_vdb.interruption import take_termination_for_ctrl_c
from tests.conftest import make_world

take_termination_for_ctrl_c()
Clock, slept = pace.Clock, []

def sleep(seconds):
    slept.append(seconds)
    if len(slept) == 3:
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))

world = make_world()
plan = nudge_vdb.plan(world.collection, world.train, state=sys.argv[1], step=0.3)
pace.Clock = lambda: Clock(now=lambda: 0.0, sleep=sleep)
try:
    nudge_vdb.apply(plan, force=True, throttle=0.001)
except nudge_vdb.errors.Stopped as exc:
    print(exc.exit_status, str(exc).split(";")[0])
print(len(slept), "sleeps")
pace.Clock = Clock
print("resumed", nudge_vdb.resume(world.collection, state=sys.argv[1]).report["verified"]["tuned"])
"""


def said_by(folder, name):
    assert getattr(signal, name)
    ended = subprocess.run(
        [sys.executable, "-c", WAITING, str(folder / "state"), name], capture_output=True, text=True, check=True
    )
    return ended.stdout.splitlines()
