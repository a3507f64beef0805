"""Ctrl-C and SIGTERM, sent to a real run between two batches: it stops where that costs nothing, and can be resumed."""

import signal
import subprocess
import sys
import threading

import pytest

from nudge_vdb.interruption import held_back

RUN = """
import os, signal, sys
import nudge_vdb
from nudge_vdb import writeback
from nudge_vdb.testing import Faulty
from tests.conftest import make_world

def send():
    for name in sys.argv[2:]:
        os.kill(os.getpid(), getattr(signal, name))

world = make_world(width=8)
writeback.BATCH_BYTES = 4 * 8 * 20
before = world.vectors()
collection = Faulty(world.collection, before={("write", 2): send})
plan = nudge_vdb.plan(collection, world.train, state=sys.argv[1], step=0.3)
try:
    nudge_vdb.apply(plan, force=True)
except nudge_vdb.errors.Stopped as exc:
    print(type(exc).exit_status, exc)
except KeyboardInterrupt:
    print("at once")
told = nudge_vdb.status(world.collection, state=sys.argv[1])
print(collection.calls["write"], told["unfinished"], told["message"])
nudge_vdb.resume(world.collection, state=sys.argv[1])
print(nudge_vdb.verify(world.collection, state=sys.argv[1], deep=True).tuned)
nudge_vdb.rollback(world.collection, to=0, state=sys.argv[1])
print(max(abs(world.vectors()[text] - vector).max() for text, vector in before.items()) < 1e-6)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_that_is_asked_to_stop_finishes_its_batch_and_says_how_to_go_on(name, tmp_path):
    said, status, *after = lines_of(tmp_path, name)
    assert said.startswith("130 stopped with 40 of 78 rows done; go on with 'nudge-vdb resume ADDRESS'")
    assert said.endswith("undo it with 'nudge-vdb rollback ADDRESS --to 0'")
    assert status.startswith("2 1 a move to version 1 was interrupted with 40 of 78 rows done")
    assert after == ["78", "True"]


def test_a_run_that_is_asked_twice_stops_at_once_and_can_be_resumed_all_the_same(tmp_path):
    said, status, *after = lines_of(tmp_path, "SIGINT", "SIGINT")
    assert said == "at once"
    assert status.startswith("2 1 a move to version 1 was interrupted with 20 of 78 rows done")
    assert after == ["78", "True"]


def lines_of(folder, *signals):
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(folder / "state"), *signals], capture_output=True, text=True, check=True
    )
    return ended.stdout.splitlines()


def test_what_signals_did_before_they_do_again_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with held_back() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_nothing_is_held_back():
    told = []

    def look():
        with held_back() as asked:
            told.append(asked())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert told == [False]
