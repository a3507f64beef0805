"""Whatever happens between client and server, a run ends well or is finished by a resume, and nothing else changes."""

import os
import signal
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

import nudge_vdb
from integration.proxy import Fault, Kind, Way, proxy_to
from integration.topics import CHOICES, topics
from integration.witness import MilvusWitness, QdrantWitness, damage, differences
from nudge_vdb import writeback
from nudge_vdb.errors import EngineError
from tests.figures import noted

POSITIONS = os.environ.get("NUDGE_VDB_WIRE_POSITIONS")
"""At how many places a connection breaks, of each direction and on each line; without, a few that take little time."""
LINES = {"grpc": 3, "rest": 1, "milvus": 1}
MARKS = {"milvus": [pytest.mark.milvus_server]}
TOPICS, WIDTH, BATCHES = 12, 64, 4
TOO_LONG = 120
"""Seconds after which a run is taken to hang."""
SHORT, SLOW, NARROW = 0.7, 0.005, 2_000_000


class Line:
    """A collection, behind a proxy."""

    def __init__(self, witness, proxy, address, state, world):
        self.witness, self.proxy, self.address, self.state = witness, proxy, address, state
        self.count = Counter()
        witness.fill(world.rows)
        self.held = {0: witness.read()}
        with closing(nudge_vdb.connect(address)) as collection:
            nudge_vdb.plan(collection, world.judgements(), state=state, **CHOICES)
        self.bytes = {to: self._measured(to) for to in (1, 0)}

    def _measured(self, to):
        """Go to a version, and return how many bytes pass on the way."""
        self.move(to)
        self.held.setdefault(to, self.witness.read())
        return dict(self.passed)

    def move(self, to, *faults):
        """Go to a version while *faults* happen; where that fails, heal what is wrong and resume."""
        with closing(nudge_vdb.connect(self.address)) as collection:
            self.proxy.plan(*faults)
            applied = moved(collection, to, self.state)
            self.passed = dict(self.proxy.counted)
            self.proxy.heal()
        if applied is None or applied.skipped:
            self.resume()
        self.count["resumed" if applied is None or applied.skipped else "ended well"] += 1

    def resume(self):
        with closing(nudge_vdb.connect(self.address)) as collection:
            resumed = nudge_vdb.resume(collection, state=self.state)
        assert resumed is None or not resumed.skipped

    def must_hold(self, version):
        found = differences(self.held[version], self.witness.read())
        self.count.update({"comparisons": 1, **found})
        assert not found.total(), found

    def told(self):
        """Return what was done and found, in a line."""
        faults = ", ".join(f"{times} × {kind}" for kind, times in sorted(self.proxy.faults.items()))
        ends = f"{self.count['ended well']} moves ended well, {self.count['resumed']} were resumed"
        return f"{faults}; {ends}; {damage(self.count)}"

    def there_and_back(self, fault, places=(0.5, 0.5)):
        """Let *fault* happen on the way to version 1 and on the way back."""
        for to, place in zip((1, 0), places, strict=True):
            self.move(to, replace(fault, after=round(place * self.bytes[to][fault.way])))
            self.must_hold(to)


def moved(collection, to, state):
    """Go to a version; return what became of it, None where the engine failed (exit status 6)."""
    try:
        if to == 0:
            return nudge_vdb.rollback(collection, to=0, state=state)
        return nudge_vdb.apply(nudge_vdb.prepared(collection, to, state=state), force=True)
    except EngineError:
        return None


@contextmanager
def line_to(name, witness, port, address, request):
    world = topics(TOPICS, 50, WIDTH)
    with pytest.MonkeyPatch.context() as patch, proxy_to(port) as proxy, closing(witness):
        patch.setattr(writeback, "BATCH_BYTES", 4 * WIDTH * len(world.rows) // BATCHES)
        patch.setenv("NUDGE_VDB_PATIENCE", "4")
        state = request.getfixturevalue("tmp_path_factory").mktemp("state")
        line = Line(witness, proxy, address(proxy.port), state, world)
        yield line
        noted(request)(f"{name}: {line.told()}")


@pytest.fixture(scope="module")
def grpc(qdrant, request):
    witness = QdrantWitness(qdrant, "wire_grpc")

    def address(port):
        return replace(qdrant, grpc_port=port).address("wire_grpc", vector="text", timeout="2")

    with line_to("Qdrant over gRPC", witness, qdrant.grpc_port, address, request) as line:
        yield line


@pytest.fixture(scope="module")
def rest(qdrant, request):
    witness = QdrantWitness(qdrant, "wire_rest")

    def address(port):
        return replace(qdrant, port=port, grpc_port=1).address("wire_rest", vector="text", timeout="2")

    with line_to("Qdrant over REST", witness, qdrant.port, address, request) as line:
        yield line


@pytest.fixture(scope="module")
def milvus(milvus_server, request):
    witness = MilvusWitness(milvus_server, "wire")

    def address(port):
        return replace(milvus_server, port=port).address("wire", vector="text", timeout="4")

    with line_to("Milvus 2.3.5", witness, milvus_server.port, address, request) as line:
        yield line


@pytest.fixture(params=[pytest.param(line, marks=MARKS.get(line, [])) for line in LINES])
def line(request):
    return request.getfixturevalue(request.param)


def places_of(line):
    count = int(POSITIONS or LINES[line])
    return [(place + 1) / (count + 1) for place in range(count)]


at_places = pytest.mark.parametrize(
    ("line", "place"),
    [pytest.param(line, place, marks=MARKS.get(line, [])) for line in LINES for place in places_of(line)],
    indirect=["line"],
)


@pytest.fixture(autouse=True)
def nothing_hangs():
    """Fail a test that takes far longer than all its time-outs together."""

    def hangs(number, frame):
        raise AssertionError(f"still at it after {TOO_LONG} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(TOO_LONG)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@at_places
@pytest.mark.parametrize("way", list(Way))
def test_a_connection_that_breaks_anywhere_costs_nothing(line, way, place):
    line.there_and_back(Fault(Kind.CUT, way), (place, 1 - place))


@at_places
def test_a_write_whose_answer_is_lost_is_read_back(line, place):
    line.there_and_back(Fault(Kind.LOSE_ANSWER), (place, 1 - place))


def test_connections_that_break_again_and_again_cost_nothing(line):
    for to in (1, 0):
        cuts = [Fault(Kind.CUT, way, round(share * line.bytes[to][way])) for way in Way for share in (0.2, 0.4, 0.6)]
        line.move(to, *cuts)
        line.must_hold(to)


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.SWALLOW])
def test_an_outage_that_is_short_is_waited_for(line, kind):
    line.there_and_back(Fault(kind, lasting=SHORT))


@pytest.mark.parametrize(("kind", "to"), [(Kind.REFUSE, 1), (Kind.SWALLOW, 1), (Kind.SWALLOW, 0)])
def test_a_run_is_resumed_after_an_outage_that_is_longer_than_patience(line, kind, to):
    line.move(1 - to)
    resumed = line.count["resumed"]
    line.move(to, Fault(kind, after=line.bytes[to][Way.REQUEST] // 2))
    assert line.count["resumed"] == resumed + 1
    line.must_hold(to)


@pytest.mark.parametrize(("kind", "pace"), [(Kind.DELAY, SLOW), (Kind.THROTTLE, NARROW)])
def test_a_slow_line_is_only_slow(line, kind, pace):
    line.there_and_back(Fault(kind, pace=pace), (0, 0))
