"""Ctrl-C and SIGTERM, sent to a real run between two batches: it stops where that costs nothing, and can be resumed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from nudge_vdb.interruption import held_back, take_termination_for_ctrl_c

RUN = """
import os, signal, sys
import nudge_vdb
from nudge_vdb import writeback
from nudge_vdb.interruption import take_termination_for_ctrl_c
from nudge_vdb.testing import Faulty
from tests.conftest import make_world

def send():
    for name in sys.argv[2:]:
        os.kill(os.getpid(), getattr(signal, name))

if "SIGTERM" in sys.argv:
    take_termination_for_ctrl_c()  # as the command line does
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


@pytest.fixture
def own_handlers():
    """Put back what the tests set."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def theirs(number, frame):
    """Stand for how a program around deals with a signal."""
    raise ZeroDivisionError


def test_what_signals_did_before_they_do_again_afterwards(own_handlers):
    take_termination_for_ctrl_c()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for number in (signal.SIGINT, signal.SIGTERM):
        with held_back() as asked:
            assert not asked()
            signal.raise_signal(number)
            assert asked()
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, theirs])
def test_a_signal_that_the_program_around_deals_with_is_left_to_it(number, handler, own_handlers):
    signal.signal(number, handler)
    with held_back():
        assert signal.getsignal(number) is handler


def test_a_program_that_is_told_to_terminate_in_a_move_does_what_it_does_elsewhere(tmp_path):
    """From Python, nobody asked for the signal to be held back: it ends the process, and the move can be resumed."""
    run = RUN.replace('if "SIGTERM" in sys.argv', "if False")
    command = [sys.executable, "-c", run, str(tmp_path / "state"), "SIGTERM"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGTERM


def test_the_command_line_takes_a_wish_to_terminate_for_ctrl_c_and_an_ignored_one_for_none(own_handlers):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    take_termination_for_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    take_termination_for_ctrl_c()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_held_back():
    told = []

    def look():
        with held_back() as asked:
            told.append(asked())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert told == [False]


HUNG = """
import sys, threading, time
from contextlib import suppress
from nudge_vdb import cli

def connect(address):
    threading.Thread(target=time.sleep, args=(600,)).start()  # as those of adapters, while a server does not answer
    print("waiting", flush=True)
    with suppress(KeyboardInterrupt):
        time.sleep(600)
    time.sleep(600)  # as whoever closes a pool waits for its threads

cli.nudge_vdb.connect = connect
sys.argv = ["nudge-vdb", "status", "somewhere"]
cli.main()
"""


@pytest.mark.parametrize("names", [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_the_second_signal_ends_the_command_line_whatever_its_threads_wait_for(names):
    with subprocess.Popen([sys.executable, "-c", HUNG], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout.readline() == b"waiting\n"
        for name in names:
            run.send_signal(getattr(signal, name))
            time.sleep(0.5)  # two at the same instant are one
        try:
            assert run.wait(30) == 130  # ten minutes, if it waited
        finally:
            run.kill()


STALLED = """
import os, sys, time
from nudge_vdb.interruption import take_termination_for_ctrl_c

take_termination_for_ctrl_c()
os.set_blocking(1, False)
try:
    while True:
        os.write(1, bytes(4096))
except BlockingIOError:
    os.set_blocking(1, True)
sys.stdout.write("what nobody reads")
try:
    os.write(2, b"1")
    time.sleep(60)
except KeyboardInterrupt:
    os.write(2, b"2")
time.sleep(60)
"""


def test_a_pipe_that_nobody_reads_holds_back_no_second_signal():
    reader, writer = os.pipe()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    run = subprocess.Popen([sys.executable, "-c", STALLED], stdout=writer, stderr=subprocess.PIPE, env=environment)
    try:
        for step in (b"1", b"2"):
            assert os.read(run.stderr.fileno(), 1) == step
            run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 130
    finally:
        run.kill()
        run.wait()
        run.stderr.close()
        os.close(reader)
        os.close(writer)
