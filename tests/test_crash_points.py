"""Dying at any write to the state or to the database ends, when the command is given again, as if nothing had been."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.adopt import adopt
from nudge_vdb.errors import NudgeError
from nudge_vdb.prune import prune
from nudge_vdb.standing import open_state
from tests.conftest import make_world
from tests.dying import DIED, AtOnce, Death, SharedCollection, haunt, in_a_child, steps_of

WIDTH, ROWS_A_BATCH = 8, 30
CHEAP = {"step": 0.3, "max_queries": 30}
FROZEN = Path(__file__).parent / "data" / "state_format_1"


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * WIDTH * ROWS_A_BATCH)
    monkeypatch.setattr("nudge_vdb.pages.PAGE_BYTES", 4 * WIDTH * 100)
    monkeypatch.setattr("nudge_vdb.state.uuid4", lambda: UUID(int=7))
    monkeypatch.setattr("os.fsync", lambda handle: None)  # a process that dies loses nothing; power is feigned
    monkeypatch.setattr("nudge_vdb.scanning.Ahead", AtOnce)  # so that the steps are the same every time


@pytest.fixture
def stage(tmp_path):
    world = make_world(width=WIDTH)
    collection = SharedCollection(world.collection.metric, WIDTH, rows=dict(world.collection.rows)).share()
    return Stage(world, collection, tmp_path)


@dataclass
class Stage:
    """A collection and its state, put back to the same scene as often as it takes."""

    world: object
    collection: SharedCollection
    folder: Path

    @property
    def state(self):
        return self.folder / "state"

    def plan(self, judgements):
        return nudge_vdb.plan(self.collection, judgements, state=self.state, **CHEAP)

    def tune(self, judgements):
        nudge_vdb.apply(self.plan(judgements), force=True)

    def apply(self, number):
        return nudge_vdb.apply(nudge_vdb.prepared(self.collection, number, state=self.state), force=True)

    def rollback(self, number):
        return nudge_vdb.rollback(self.collection, to=number, state=self.state)

    def freeze(self):
        self.scene, self.start = self.collection.held(), open_state(self.collection, self.state).journal.live
        if self.state.exists():
            shutil.copytree(self.state, self.folder / "scene")

    def restore(self):
        shutil.rmtree(self.state, ignore_errors=True)
        self.collection.restore(self.scene)
        if (self.folder / "scene").exists():
            shutil.copytree(self.folder / "scene", self.state)

    def truth(self):
        """Return all that must not depend on what happened on the way."""
        home = open_state(self.collection, self.state)
        versions = {version.number: told(version) for version in home.versions()}
        vectors, notes = self.collection.held()
        journal = home.journal
        return (
            vectors.tobytes(),
            notes,
            versions,
            set(journal.kept()),
            journal.pruned(),
            journal.live,
            journal.unfinished,
        )


def told(version):
    content, manifest = version.content, dict(version.manifest)
    return {name: array.tobytes() for name, array in content.arrays().items()}, {
        name: manifest[name] for name in manifest.keys() - {"created", "digest", "minutes"}
    }


def nothing(stage):
    """A collection that was never tuned."""


def planned(stage):
    stage.plan(stage.world.train)


def tuned(stage):
    stage.tune(stage.world.train)


def planned_again(stage):
    stage.tune(stage.world.train)
    stage.plan(stage.world.fewer)


def tuned_twice(stage):
    stage.tune(stage.world.train)
    stage.tune(stage.world.test)


def tuned_thrice(stage):
    tuned_twice(stage)
    stage.tune(stage.world.fewer)


def moved_to_another_host(stage):
    stage.tune(stage.world.train)
    stage.collection.name = "another"


def carried_for_nights(stage):
    """A version that carries, two carries since, and a row that was embedded again after each."""
    plan = nudge_vdb.plan(stage.collection, stage.world.train, state=stage.state, carry="on", **CHEAP)
    nudge_vdb.apply(plan, force=True)
    for place in (100, 101, 102):
        stage.collection.shared[place] = np.roll(stage.collection.shared[place], 1)
        if place < 102:
            nudge_vdb.carry(stage.collection, state=stage.state)


def of_format_1(stage):
    """A state that the first nudge-vdb left, with version 1 live."""
    shutil.copytree(FROZEN, open_state(stage.collection, stage.state).folder)
    content = open_state(stage.collection, stage.state).version(1).content
    for key, vector in zip(content.keys, content.tuned, strict=True):
        stage.collection.shared[sorted(stage.collection.rows).index(key.decode())] = stage.collection.stored(vector)


STORIES = {
    "plan": (nothing, lambda stage: stage.plan(stage.world.train), ["again"]),
    "tune": (nothing, lambda stage: stage.tune(stage.world.train), ["again"]),
    "apply": (planned, lambda stage: stage.apply(1), ["again", "resume", "rollback"]),
    "apply another": (planned_again, lambda stage: stage.apply(2), ["again", "resume", "rollback"]),
    "roll back to the base": (tuned_twice, lambda stage: stage.rollback(0), ["again", "resume", "rollback"]),
    "roll back": (tuned_twice, lambda stage: stage.rollback(1), ["again", "resume", "rollback"]),
    "prune": (tuned_thrice, lambda stage: prune(stage.collection, keep=1, state=stage.state), ["again"]),
    "carry": (
        carried_for_nights,
        lambda stage: nudge_vdb.carry(stage.collection, state=stage.state),
        ["again", "resume"],
    ),
    "adopt": (moved_to_another_host, lambda stage: adopt(stage.collection, state=stage.state), ["again"]),
    "upgrade": (of_format_1, lambda stage: stage.rollback(2), ["again", "resume", "rollback"]),
}


def again(stage, command):
    command(stage)


def resume(stage, command):
    nudge_vdb.resume(stage.collection, state=stage.state)
    command(stage)


def rollback(stage, command):
    """Undo it, see that it is undone, and do it after all."""
    stage.rollback(stage.start)
    assert (stage.collection.held()[0] == stage.scene[0]).all()
    command(stage)


WAYS = {"again": again, "resume": resume, "rollback": rollback}


def deaths_of(steps, since):
    """Yield every way to die of these steps, from the first called *since*; after one is before the next."""
    first = next(place for place, (name, *_) in enumerate(steps) if name.startswith(since))
    for number, (name, halves, loses) in enumerate(steps[first:], start=first + 1):
        if not name.startswith("fsync"):  # which only matters to the power
            yield number, "before"
        if halves:
            yield number, "half"
        if loses:
            yield number, "power" if number % 2 else "power, names kept"
    yield len(steps), "after"


@pytest.mark.parametrize("story", STORIES)
def test_a_command_that_dies_anywhere_ends_when_given_again_as_if_it_had_not_died(story, stage, figure):
    setting, command, ways = STORIES[story]
    setting(stage)
    stage.freeze()
    undisturbed = end_of(stage, command)
    stage.restore()
    steps = steps_of(lambda death: live_through(stage, command, death), Death())
    deaths = list(deaths_of(steps, "fetch" if story == "tune" else ""))  # what comes before is that of "plan"
    for place, (number, moment) in enumerate(deaths):
        stage.restore()
        assert in_a_child(lambda: live_through(stage, command, Death(number, moment))) == DIED  # noqa: B023
        way = ways[place % len(ways)]
        where = f"died {moment} step {number} ({steps[number - 1][0]}), then {way}"
        require_plain_words(stage, where)
        WAYS[way](stage, command)
        assert stage.truth() == undisturbed, where
        if way != "rollback":
            assert (stage.collection.sent > 1).sum() <= ROWS_A_BATCH, where
    figure(f"{story}: {len(deaths)} deaths at {len(steps)} steps, 0 base vectors lost")


def end_of(stage, command):
    command(stage)
    command(stage)
    assert nudge_vdb.verify(stage.collection, state=stage.state, deep=True).clean
    return stage.truth()


def live_through(stage, command, death):
    stage.collection.death = death
    haunt(death)
    command(stage)


def require_plain_words(stage, where):
    """Require that status works whatever happened, and names what finishes a move."""
    try:
        found = nudge_vdb.status(stage.collection, state=stage.state)
    except NudgeError as exc:
        pytest.fail(f"{where}: status said {exc}")
    if found["unfinished"] is not None:
        assert "interrupted" in found["message"], where
        assert "resume ADDRESS" in found["message"], where
        assert f"rollback ADDRESS --to {found['live']}" in found["message"], where
