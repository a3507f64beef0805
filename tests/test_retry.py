"""Patience: what is tried again, what is halved, and what is never sent twice."""

import numpy as np
import pytest

from nudge_vdb.contract import Accuracy, Metric, Outcome
from nudge_vdb.errors import BadOption, Busy, Refused, TooLarge, Unknown, Unreachable
from nudge_vdb.retry import PATIENCE, Patient, until_none_is_left
from nudge_vdb.testing import Faulty, example_rows, memory_fixture
from nudge_vdb.testing.kit import turned

ROWS = example_rows([f"{number:02}" for number in range(11)])
KEYS = [name.encode() for name in ROWS.ids]
TARGET = turned(ROWS.vectors)


pytestmark = pytest.mark.usefixtures("waits")


@pytest.fixture
def inner():
    return memory_fixture(ROWS, Metric.DOT).collection


def fetched(collection):
    out = np.zeros_like(ROWS.vectors)
    return collection.fetch(KEYS, out).tolist(), out.tolist()


def scanned(collection):
    page = collection.scan(None, 100)
    return list(page.keys), page.vectors.tolist(), page.next


CALLS = {
    "scan": scanned,
    "locate": lambda collection: collection.locate(["03", "no such row", "01"]),
    "fetch": fetched,
    "write": lambda collection: collection.write(KEYS, TARGET, ROWS.vectors),
    "search": lambda collection: collection.search(TARGET, 3),
    "count": lambda collection: collection.count(),
}


def fault(error):
    def fail():
        raise error

    return fail


def always(error, name):
    """Faults for every call of *name*."""
    return {(name, number): fault(error) for number in range(1, 10_000)}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("error", [Busy("try later"), Unreachable("nobody there")])
def test_an_engine_that_is_busy_or_away_is_asked_again(error, name, inner, waits):
    plain = CALLS[name](memory_fixture(ROWS, Metric.DOT).collection)
    faulty = Faulty(inner, before={(name, 1): fault(error), (name, 2): fault(error)})
    assert CALLS[name](Patient(faulty)) == plain
    assert faulty.calls[name] == 3
    assert len(waits) == 2


@pytest.mark.parametrize("name", CALLS)
def test_what_the_engine_refuses_is_not_asked_again(name, inner, waits):
    faulty = Faulty(inner, before={(name, 1): fault(Refused("never"))})
    with pytest.raises(Refused, match="never"):
        CALLS[name](Patient(faulty))
    assert faulty.calls[name] == 1
    assert waits == []


def test_an_engine_that_says_how_long_to_wait_is_given_that_long(inner, waits):
    faulty = Faulty(inner, before={("count", 1): fault(Busy("a", 7.5)), ("count", 2): fault(Busy("b", 0.0))})
    assert Patient(faulty).count() == len(KEYS)
    assert waits == [7.5, 0.0]


@pytest.mark.parametrize("error", [Busy("try later"), Unreachable("nobody there")])
def test_an_engine_that_keeps_failing_is_given_up_with_its_own_words(error, inner, waits):
    faulty = Faulty(inner, before=always(error, "count"))
    with pytest.raises(type(error), match=str(error)):
        Patient(faulty).count()
    assert sum(waits) <= PATIENCE
    assert faulty.calls["count"] == len(waits) + 1 > 10
    assert max(waits) <= 10


def test_an_engine_that_asks_for_more_patience_than_there_is_is_given_up_at_once(inner, waits):
    faulty = Faulty(inner, before=always(Busy("come back tomorrow", 86_400.0), "count"))
    with pytest.raises(Busy, match="come back tomorrow"):
        Patient(faulty).count()
    assert waits == []


class Narrow(Faulty):
    """A collection that finds every request of more than *most* rows too large."""

    def __init__(self, inner, most):
        super().__init__(inner)
        self.most = most
        self.carried = 0

    def check(self, rows):
        if rows > self.most:
            raise TooLarge(f"{rows} rows are too many")
        self.carried += 1

    def scan(self, cursor, limit):
        self.check(limit)
        return super().scan(cursor, limit)

    def locate(self, texts):
        self.check(len(texts))
        return super().locate(texts)

    def fetch(self, keys, out):
        self.check(len(keys))
        return super().fetch(keys, out)

    def write(self, keys, vectors, expected):
        self.check(len(keys))
        return super().write(keys, vectors, expected)

    def search(self, queries, k, accuracy=Accuracy.INDEX):
        self.check(len(queries))
        return super().search(queries, k, accuracy)


@pytest.mark.parametrize("most", [1, 2, 4, 10])
@pytest.mark.parametrize("name", ["locate", "fetch", "write", "search"])
def test_a_request_that_was_too_large_is_halved_until_it_fits(name, most, inner, waits):
    plain = CALLS[name](memory_fixture(ROWS, Metric.DOT).collection)
    assert CALLS[name](Patient(Narrow(inner, most))) == plain
    assert waits == []


@pytest.mark.parametrize("most", [1, 2, 4, 10])
def test_a_scan_takes_smaller_pages_and_still_meets_every_row(most, inner):
    patient, keys, cursor = Patient(Narrow(inner, most)), [], ""
    while cursor is not None:
        page = patient.scan(cursor or None, 100)
        keys += page.keys
        cursor = page.next
    assert keys == KEYS


@pytest.mark.parametrize("name", ["scan", "locate", "fetch", "write", "search"])
def test_a_single_row_that_is_too_large_is_given_up_and_said_so(name, inner):
    narrow = Narrow(inner, 0)
    with pytest.raises(TooLarge, match=f"a single {'query' if name == 'search' else 'row'} too large"):
        CALLS[name](Patient(narrow))
    assert narrow.carried == 0


def test_outcomes_keep_their_rows_when_a_write_is_halved(inner):
    del inner.rows["04"]
    expected = ROWS.vectors.copy()
    expected[8] += 1
    outcomes = Patient(Narrow(inner, 2)).write(KEYS, TARGET, expected)
    wanted = {4: Outcome.MISSING, 8: Outcome.CHANGED}
    assert outcomes == [wanted.get(place, Outcome.WRITTEN) for place in range(len(KEYS))]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_write_whose_answer_was_lost_is_unknown_and_not_sent_twice(when, inner, waits):
    faulty = Faulty(inner, **{when: always(Unknown("connection lost"), "write")})
    assert Patient(faulty).write(KEYS, TARGET, ROWS.vectors) == [Outcome.UNKNOWN] * len(KEYS)
    assert faulty.calls["write"] == 1
    assert waits == []


def test_only_the_half_whose_answer_was_lost_is_unknown(inner):
    faulty = Faulty(Narrow(inner, 6), after={("write", 2): fault(Unknown("connection lost"))})
    outcomes = Patient(faulty).write(KEYS, TARGET, ROWS.vectors)
    assert outcomes == [Outcome.UNKNOWN] * 5 + [Outcome.WRITTEN] * 6
    assert faulty.calls["write"] == 3


def test_what_is_left_is_tried_again_with_ever_longer_waits_until_nothing_is(waits):
    left = [3, 2, 1, 0]
    assert until_none_is_left(lambda: [b"row"] * left.pop(0)) == []
    assert left == []
    assert len(waits) == 3


@pytest.mark.parametrize("patience", [0.0, PATIENCE])
def test_what_is_left_when_patience_ends_is_told(patience, waits):
    tries = []
    assert until_none_is_left(lambda: tries.append(1) or [b"row"], patience) == [b"row"]
    assert sum(waits) <= patience
    assert len(tries) == len(waits) + 1
    assert (len(tries) > 10) == (patience > 0)


def test_everything_else_is_asked_of_the_collection_inside(inner):
    patient = Patient(Faulty(inner))
    assert patient.traits == inner.traits
    assert patient.text_of(b"03") == "03"
    patient.close()
    patient.close()


def test_patience_is_as_long_as_the_environment_says(inner, waits, monkeypatch):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", "3")
    with pytest.raises(Unreachable):
        Patient(Faulty(inner, before=always(Unreachable("nobody there"), "count"))).count()
    assert sum(waits) <= 3


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_patience_that_is_no_number_of_seconds_is_refused(inner, monkeypatch, text):
    monkeypatch.setenv("NUDGE_VDB_PATIENCE", text)
    with pytest.raises(BadOption, match=f"NUDGE_VDB_PATIENCE={text}: give a number of seconds"):
        Patient(inner)
