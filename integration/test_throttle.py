"""A throttled tune on a real server: what passes when is told by the pace's own clock, which need not be waited for."""

import time

import pytest

from integration.engines import own_name
from integration.judged import ASKED, beside, judged, vectors_of
from nudge_vdb import pace

RATE = 25.0


class Skewed:
    """A clock that goes on while the server works, and jumps where a pace waits."""

    def __init__(self):
        self.jumped = 0.0

    def now(self):
        return time.monotonic() + self.jumped

    def sleep(self, seconds):
        self.jumped += seconds


@pytest.fixture
def passed(monkeypatch) -> list[tuple[float, float, int]]:
    """Return of each batch when it asked for its turn, when it got it, and of how many rows it is."""
    skewed, told = Skewed(), []
    clock = pace.Clock(skewed.now, skewed.sleep)
    monkeypatch.setattr("nudge_vdb.pace.Clock", lambda: clock)
    real = pace.Pace.turn

    def turn(self, rows, *asked):
        since = skewed.now()
        waited = real(self, rows, *asked)
        told.append((since, skewed.now(), rows))
        return waited

    monkeypatch.setattr(pace.Pace, "turn", turn)
    return told


@pytest.mark.parametrize("engine", ["qdrant", pytest.param("milvus_server", marks=pytest.mark.milvus_server)])
def test_a_throttled_tune_of_a_server_passes_no_more_rows_in_a_second_than_asked_for(
    engine, request, nudge_vdb, passed, tmp_path
):
    address = request.getfixturevalue(engine).address(own_name(f"{tmp_path.name}_{engine}"))
    fixture, judgements = judged(address, tmp_path)
    before, rest = vectors_of(fixture), beside(fixture)

    status, report = nudge_vdb("tune", address, "--judgements", judgements, "--cold-share", 0, "--throttle", RATE)
    assert (status, report["written"], report["verified"]["tuned"]) == (0, ASKED, ASKED)
    require_even(passed)
    assert report["waited"]["throttle"] + sum(report["seconds"].values()) > (2 * ASKED - RATE) / RATE

    status, report = nudge_vdb("rollback", address, "--to", 0, "--throttle", RATE)
    assert (status, report["written"]) == (0, ASKED)
    assert (vectors_of(fixture), beside(fixture)) == (before, rest)
    fixture.close()


def require_even(batches):
    """Require that each batch waited until those before it had used up their time."""
    # Looked at for another model's vectors, written, read back; a turn of no rows ends a look.
    assert [rows for _, _, rows in batches if rows] == [25, 25, 10] * 3
    start, done = batches[0][0], 0
    for _, at, rows in batches:
        assert at - start >= done / RATE - 1e-6
        done += rows
