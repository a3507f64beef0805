"""How fast rows are written and read back: never faster than asked, slower when the server is, and never for ever."""

import logging
import math

import pytest

from nudge_vdb.errors import BadOption, Busy
from nudge_vdb.pace import LAST, SLICE, Clock, Pace, Slowness
from nudge_vdb.retry import Patient
from nudge_vdb.testing import Faulty

ROWS = 100


class Time:
    """Time that passes when it is told to, and notes how long each sleep was."""

    def __init__(self):
        self.at, self.slept = 50.0, []
        self.clock = Clock(lambda: self.at, self.sleep)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.at += seconds

    def pass_by(self, seconds):
        self.at += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def patient(world):
    return Patient(world.collection)


def run(pace, time, patient, seconds, rows=ROWS):
    """Go through a batch for each of *seconds*, which is how long the server takes; return what was waited for each."""
    waits = []
    for each in seconds:
        waits.append(pace.turn(rows))
        pace.timed(patient, lambda each=each: time.pass_by(each), lambda _: rows)
    return waits


@pytest.mark.parametrize("throttle", [0, -1, math.nan, math.inf])
def test_a_throttle_that_is_no_rate_is_refused(throttle):
    with pytest.raises(BadOption, match="rows per second, a number above 0"):
        Pace(throttle)


@pytest.mark.parametrize("throttle", [0.5, 7, 250.0])
@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_no_more_rows_pass_in_a_second_than_the_throttle_allows(throttle, seconds, time, patient):
    pace, start = Pace(throttle, time.clock), time.at
    run(pace, time, patient, [seconds] * 20, rows=pace.most)
    pace.turn(pace.most)
    assert time.at - start == pytest.approx(20 * pace.most / throttle)
    assert pace.throttled == pytest.approx(time.at - start - 20 * seconds)


def test_a_batch_is_no_more_than_a_second_of_the_throttle_and_at_least_a_row():
    assert [Pace(throttle).most for throttle in (0.2, 1, 99.5, None)] == [1, 1, 99, None]


def test_time_that_was_not_used_is_not_made_up_for(time, patient):
    pace = Pace(100, time.clock)
    run(pace, time, patient, [30.0])
    assert run(pace, time, patient, [0.0] * 3) == pytest.approx([0.0, 1.0, 1.0])


def test_without_a_throttle_a_server_that_is_always_as_fast_is_never_waited_for(time, patient):
    pace = Pace(None, time.clock)
    assert run(pace, time, patient, [0.2] * 100) == [0.0] * 100
    assert (time.slept, pace.throttled, pace.gave_way) == ([], 0.0, 0.0)


def test_batches_that_take_unusually_long_by_chance_change_nothing(time, patient):
    pace = Pace(None, time.clock)
    assert not any(run(pace, time, patient, [0.2, 0.2, 0.3, 0.2, 2.0] * 10))
    assert not any(run(pace, time, patient, [0.2, 0.2, 0.2, 1.0, 1.0] * 10))


def test_a_server_that_slows_down_gets_its_time_back_in_proportion(time, patient):
    pace = Pace(None, time.clock)
    run(pace, time, patient, [0.2] * 10)
    waits = run(pace, time, patient, [0.8] * 10)
    assert waits[:3] == [0.0] * 3
    assert waits[3] == pytest.approx(0.8, rel=0.1)  # four times as slow: a half of the time is ours
    assert pace.gave_way == pytest.approx(sum(waits))


def test_a_server_that_is_fast_again_is_used_as_before(time, patient):
    pace = Pace(None, time.clock)
    run(pace, time, patient, [0.2] * 10 + [2.0] * 10)
    waits = run(pace, time, patient, [0.2] * 10)
    assert waits[0] > 1
    assert waits[LAST:] == [0.0] * (10 - LAST)


def test_a_share_of_the_time_is_always_ours_and_no_wait_is_long(time, patient):
    pace = Pace(None, time.clock)
    run(pace, time, patient, [0.01] * 10)
    waits = run(pace, time, patient, [1.0] * 10)
    assert max(waits) == pytest.approx(9.0)  # a tenth of the time
    assert max(run(pace, time, patient, [100.0] * 10)) == pytest.approx(10.0)


def test_a_server_that_is_slower_for_good_is_taken_as_it_is_in_the_end(time, patient):
    pace = Pace(None, time.clock)
    run(pace, time, patient, [0.2] * 10)
    waits = run(pace, time, patient, [2.0] * 400)
    assert waits[10] > 0
    assert waits[-1] == 0.0


def test_what_the_server_is_waited_for_is_said_once(time, patient, caplog):
    pace = Pace(None, time.clock)
    with caplog.at_level(logging.WARNING, "nudge_vdb"):
        run(pace, time, patient, [0.2] * 10 + [1.0] * 10 + [0.2] * 10 + [1.0] * 10)
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        " waiting between batches, since its users come first"
    ]


def test_the_longer_of_the_two_waits_holds(time, patient):
    pace = Pace(100, time.clock)
    run(pace, time, patient, [0.2] * 10)
    waits = run(pace, time, patient, [0.6] * 10)
    assert waits == pytest.approx([0.8] + [0.4] * 9)  # the throttle's second less the batch: at 3 times, 0.3 would do
    assert pace.gave_way == 0
    slower = run(pace, time, patient, [1.6] * 10)
    assert slower[-1] > 1.6 * 2
    assert pace.gave_way > 0


def test_short_batches_say_nothing_of_the_server(time, patient):
    slowness = Slowness()
    for _ in range(10):
        slowness.note(100, 0.1)
        slowness.note(49, 1.0)
        slowness.note(0, 5.0)
    assert slowness.factor == pytest.approx(1.0, rel=0.05)


def test_a_wish_to_stop_ends_a_wait_within_a_slice(time, patient):
    pace = Pace(0.01, time.clock)
    pace.turn(1)
    start = time.at
    pace.turn(1, lambda: time.at > start + 1)
    assert time.at - start <= 1 + 2 * SLICE
    assert pace.throttled == pytest.approx(time.at - start)


def test_an_engine_that_asked_for_patience_was_given_way_already(world, time, waits):
    def busy():
        raise Busy("later", retry_after=30.0)

    pace, faulty = (
        Pace(None, time.clock),
        Faulty(world.collection, before={("count", 11 + 2 * at): busy for at in range(10)}),
    )
    patient = Patient(faulty)
    for at in range(20):
        pace.turn(ROWS)
        pace.timed(patient, lambda at=at: (patient.count(), time.pass_by(0.2 if at < 10 else 30.2)), lambda _: ROWS)
    assert patient.idle == sum(waits) == 300
    assert pace.gave_way == 0
