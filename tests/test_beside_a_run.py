"""What reads a state while another run changes it: files vanish and appear between two reads, and none is damaged."""

import shutil
import sys
from contextlib import suppress
from copy import copy

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.contract import Rows
from nudge_vdb.diff import diff
from nudge_vdb.errors import BadOption, StateDamaged
from nudge_vdb.prune import prune
from nudge_vdb.standing import LOOKS, open_state
from nudge_vdb.testing import Faulty
from tests.conftest import make_world

CHEAP = {"step": 0.3, "max_queries": 30}
TOUCHING = ("open", "os.listdir", "os.scandir")
"""What Python says of a process that is about to look at a file or a folder."""


class Between:
    """Calls *act* just before the *at*-th time that a file or folder below *root* is looked at, and counts."""

    def __init__(self):
        self.root, self.at, self.act, self.seen = None, 0, None, 0
        sys.addaudithook(self._hear)

    def watch(self, root, at=0, act=None):
        self.root, self.at, self.act, self.seen = str(root), at, act, 0

    def _hear(self, event, facts):
        if self.root is None or event not in TOUCHING or not str(facts[0]).startswith(self.root):
            return
        self.seen += 1
        if self.seen == self.at:
            root, self.root = self.root, None  # what the other run looks at does not count
            self.act()
            self.root = root


@pytest.fixture(scope="module")
def between():
    between = Between()  # such a hook stays for good, so there is one, and it sleeps
    yield between
    between.root = None


@pytest.fixture
def still(between):
    yield between
    between.root = None


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A world and its state: versions 1 to 3, of which the last is live."""
    world, folder = make_world(width=8), tmp_path_factory.mktemp("scene") / "state"
    for judgements, carry in ((world.train, "off"), (world.fewer, "off"), (world.test, "on")):
        plan = nudge_vdb.plan(world.collection, judgements, state=folder, carry=carry, **CHEAP)
        nudge_vdb.apply(plan, force=True)
    return world, folder


@pytest.fixture
def stage(scene, tmp_path):
    """Return a function that sets the stage anew: the collection, and where its state is."""
    world, kept = scene
    rows, notes = dict(world.collection.rows), dict(world.collection.kept)

    def set_anew():
        world.collection.rows, world.collection.kept = dict(rows), dict(notes)
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        return world, shutil.copytree(kept, tmp_path / "state")

    yield set_anew
    world.collection.rows, world.collection.kept = rows, notes


READING = {
    "status": lambda collection, state: nudge_vdb.status(collection, state=state),
    "status --deep": lambda collection, state: nudge_vdb.status(collection, state=state, deep=True),
    "history": lambda collection, state: nudge_vdb.history(collection, state=state),
    "verify --deep": lambda collection, state: nudge_vdb.verify(collection, state=state, deep=True),
    "diff": lambda collection, state: diff(collection, 1, 3, state=state),
    "prepared": lambda collection, state: nudge_vdb.prepared(collection, 3, state=state),
}


def carry_a_new_row(world, state):
    rng = np.random.default_rng(1)
    world.fixture.insert(Rows(["new"], rng.normal(size=(1, 8)).astype(np.float32), [{}], rng.normal(size=(1, 3))))
    nudge_vdb.carry(world.collection, state=state)


CHANGING = {
    "prune": lambda world, state: prune(world.collection, keep=0, state=state),
    "tune": lambda world, state: nudge_vdb.apply(
        nudge_vdb.plan(world.collection, world.fewer, state=state, step=0.1), force=True
    ),
    "carry": lambda world, state: carry_a_new_row(world, state),
    "rollback": lambda world, state: nudge_vdb.rollback(world.collection, to=1, state=state),
}


@pytest.mark.parametrize("changing", CHANGING)
@pytest.mark.parametrize("reading", READING)
def test_who_reads_beside_a_run_that_changes_the_state_finds_no_damage(reading, changing, stage, still, figure):
    world, state = stage()
    still.watch(state)
    READING[reading](world.collection, state)
    moments = range(1, still.seen + 1, 1 + still.seen // 20)
    for moment in moments:
        world, state = stage()
        still.watch(state, moment, lambda world=world, state=state: CHANGING[changing](world, state))
        found = outcome_of(reading, world, state, dropped=(reading, changing) == ("diff", "prune"))
        still.root = None
        require_calm(reading, found, moment)
    figure(f"{reading} beside {changing}: {len(moments)} moments, no damage and no row astray")


def outcome_of(reading, world, state, *, dropped):
    """Return what the reader says; where the version it asks for may be *dropped* meanwhile, it may say so."""
    if not dropped:
        return READING[reading](world.collection, state)
    with suppress(BadOption):
        return READING[reading](world.collection, state)


def require_calm(reading, found, moment):
    """Rows that the other run moved are not astray."""
    if reading.startswith("status"):
        assert (found["next"], found["unfinished"]) == (None, None), moment
    if reading.startswith("verify"):
        assert found.clean, moment


@pytest.mark.parametrize("reading", ["status", "history", "verify --deep", "diff"])
def test_a_file_that_is_gone_is_damage_where_no_run_changed_the_state(reading, stage):
    world, state = stage()
    lost = next(state.glob("*/versions/000001/manifest.json"))
    lost.unlink()
    with pytest.raises(StateDamaged, match="000001"):
        READING[reading](world.collection, state)


def test_a_state_that_changes_all_the_time_does_not_hold_its_reader_up_for_ever(stage):
    world, state = stage()
    next(state.glob("*/versions/000001/manifest.json")).unlink()
    collection, asked = copy(world.collection), []

    def grow(*_):
        asked.append(len(asked))
        journal = next(state.glob("*/journal"))
        journal.touch()

    with pytest.raises(StateDamaged):
        nudge_vdb.history(_Asked(collection, grow), state=state)
    assert len(asked) <= 10 * LOOKS


class _Asked(Faulty):
    """A collection that calls *act* whenever it is asked what it is."""

    def __init__(self, inner, act):
        super().__init__(inner)
        self._act = act

    @property
    def traits(self):
        self._act()
        return super().traits


def test_a_state_that_another_run_is_just_making_is_not_taken_for_one_that_lost_its_facts(world, tmp_path, still):
    """The other run has made its folder so far, and does all the rest between two looks of ours."""

    def make():
        nudge_vdb.plan(world.collection, world.train, state=tmp_path, **CHEAP)

    folder = open_state(world.collection, tmp_path).folder
    (folder / "versions").mkdir(parents=True)
    still.watch(tmp_path)
    open_state(world.collection, tmp_path)
    moments = still.seen
    assert moments
    for moment in range(1, moments + 1):
        shutil.rmtree(folder)
        (folder / "versions").mkdir(parents=True)
        still.watch(tmp_path, moment, make)
        open_state(world.collection, tmp_path)
        assert still.seen >= moment
        still.root = None
