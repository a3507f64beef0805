"""Whatever has become of a state and its collection: every refusal names a way, and that way works."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import nudge_vdb
from nudge_vdb.adopt import adopt
from nudge_vdb.cli import main
from nudge_vdb.errors import StateConflict
from nudge_vdb.testing import Faulty
from tests.conftest import World, make_world

CHEAP = {"step": 0.3, "max_queries": 30}
ADDRESS = "memory://here"
WORKED = {0, 3, 4}
STEPS = 6
"""More refusals in a row, and people give up."""


@dataclass
class Scene:
    """A collection, the folders that states are in, and the one that is named."""

    world: World
    folder: Path
    root: Path

    def plan(self, root="one", judgements=None):
        return nudge_vdb.plan(
            self.world.collection, judgements or self.world.train, state=self.folder / root, carry="on", **CHEAP
        )

    def tune(self, root="one", judgements=None):
        nudge_vdb.apply(self.plan(root, judgements), force=True)

    def interrupt(self, act, after=("write", 1)):
        """Let *act* die, by default after its second batch."""

        def die():
            raise KeyboardInterrupt

        self.world.fixture.collection, whole = (
            Faulty(self.world.collection, after={after: die}),
            self.world.collection,
        )
        with pytest.raises(KeyboardInterrupt):
            act()
        self.world.fixture.collection = whole

    def keep_a_copy(self):
        shutil.copytree(self.folder / "one", self.folder / "copy")

    def go_back_to_the_copy(self):
        shutil.rmtree(self.folder / "one")
        (self.folder / "copy").rename(self.folder / "one")

    def lose(self, root="one"):
        (self.folder / root).rename(self.folder / "away")

    def come_back(self, root="two"):
        (self.folder / "away").rename(self.folder / root)

    def save(self):
        rows, notes, name = self.world.collection.rows, self.world.collection.kept, self.world.collection.name
        copied = self.folder.with_name(f"saved {len(list(self.folder.parent.iterdir()))}")
        shutil.copytree(self.folder, copied)
        return dict(rows), dict(notes), name, copied, self.root

    def restore(self, saved):
        rows, notes, name, copied, self.root = saved
        self.world.collection.rows, self.world.collection.kept, self.world.collection.name = (
            dict(rows),
            dict(notes),
            name,
        )
        shutil.rmtree(self.folder)
        shutil.copytree(copied, self.folder)


def nothing(scene):
    pass


def fresh(scene):
    nudge_vdb.adopt(scene.world.collection, state=scene.root, as_base=True)


def planned(scene):
    scene.plan()


def live(scene):
    scene.tune()


def undone(scene):
    scene.tune()
    nudge_vdb.rollback(scene.world.collection, to=0, state=scene.root)


def interrupted_forth(scene):
    scene.interrupt(scene.tune)


def interrupted_back(scene):
    scene.tune()
    scene.interrupt(lambda: nudge_vdb.rollback(scene.world.collection, to=0, state=scene.root))


def lost(scene):
    scene.tune()
    scene.lose()


def lost_amid_a_move(scene):
    interrupted_forth(scene)
    scene.lose()


def given_up(scene):
    lost(scene)
    fresh(scene)


def given_up_and_turned_up(scene):
    given_up(scene)
    scene.come_back()
    scene.root = scene.folder / "two"


def given_up_tuned_and_turned_up(scene):
    given_up(scene)
    scene.tune(judgements=scene.world.fewer)
    scene.come_back()
    scene.root = scene.folder / "two"


def given_up_tuned_lost_and_turned_up(scene):
    given_up(scene)
    scene.tune(judgements=scene.world.fewer)
    shutil.rmtree(scene.folder / "one")
    scene.come_back()
    scene.root = scene.folder / "two"


def given_up_and_the_new_one_is_named(scene):
    given_up_tuned_and_turned_up(scene)
    scene.root = scene.folder / "one"


def an_older_copy(scene):
    scene.tune()
    scene.keep_a_copy()
    scene.tune(judgements=scene.world.fewer)
    scene.go_back_to_the_copy()


def a_copy_from_before_the_first_write(scene):
    scene.plan()
    scene.keep_a_copy()
    scene.tune()
    scene.go_back_to_the_copy()


def two_states(scene):
    scene.plan("two")
    scene.tune()
    scene.root = scene.folder / "two"


def another_claimed_and_died(scene):
    scene.plan("two")
    scene.interrupt(scene.tune, ("leave_note", 1))
    scene.root = scene.folder / "two"


def a_lost_state_claimed_and_died(scene):
    scene.interrupt(scene.tune, ("leave_note", 1))
    scene.lose()


def an_empty_folder_is_named(scene):
    scene.tune()
    scene.root = scene.folder / "two"


def moved(scene):
    scene.tune()
    scene.world.collection.name = "elsewhere/memory"


def moved_where_another_was(scene):
    scene.world.collection.name = "elsewhere/memory"
    undone(scene)
    scene.world.collection.name = "here/memory"
    moved(scene)


def moved_and_its_note_is_gone(scene):
    moved(scene)
    scene.world.collection.kept.clear()


def made_anew(scene):
    rows = dict(scene.world.collection.rows)
    scene.tune()
    scene.world.collection.rows, scene.world.collection.kept = rows, {}


def made_anew_by_another_model(scene):
    scene.tune()
    scene.world.collection.rows, scene.world.collection.kept = make_world(seed=1, apart=1.0).collection.rows, {}


def made_anew_of_another_width(scene):
    scene.tune()
    other = make_world(width=12, apart=1.0)
    scene.world.collection.rows, scene.world.collection.kept = other.collection.rows, {}
    scene.world.collection.width, scene.world.train = 12, other.train


SITUATIONS = [
    *(nothing, fresh, planned, live, undone, interrupted_forth, interrupted_back, lost, lost_amid_a_move, given_up),
    *(given_up_and_turned_up, given_up_tuned_and_turned_up, given_up_tuned_lost_and_turned_up),
    *(given_up_and_the_new_one_is_named, an_older_copy, a_copy_from_before_the_first_write, two_states),
    *(
        another_claimed_and_died,
        a_lost_state_claimed_and_died,
        an_empty_folder_is_named,
        moved,
        moved_where_another_was,
        moved_and_its_note_is_gone,
    ),
    *(made_anew, made_anew_by_another_model, made_anew_of_another_width),
]
VERBS = (
    *("status ADDRESS", "verify ADDRESS", "resume ADDRESS", "history ADDRESS", "plan ADDRESS JUDGEMENTS"),
    *(
        "tune ADDRESS JUDGEMENTS",
        "apply ADDRESS",
        "apply ADDRESS 1",
        "rollback ADDRESS --to 0",
        "rollback ADDRESS --to 1",
    ),
    *("carry ADDRESS", "prune ADDRESS --keep 1", "adopt ADDRESS", "adopt ADDRESS --as-base", "adopt ADDRESS --force"),
    "adopt ADDRESS --as-base --force",
)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run words on a scene; return exit status and what was said."""

    def act(scene, words):
        words = [ADDRESS if word == "ADDRESS" else word for word in words]
        if "JUDGEMENTS" in words:
            place = words.index("JUDGEMENTS")
            words[place : place + 1] = ["--judgements", str(scene.folder / "judgements")]
        if "PATH" in words or "--judgements" in words:
            words += ["--step", "0.3", "--max-queries", "30", *(["--force"] if words[0] == "tune" else [])]
            words += [] if "--carry" in words else ["--carry", "on"]
        if "--state" not in words:
            words += ["--state", str(scene.root)]
        monkeypatch.setattr("nudge_vdb.connect", lambda *_, **__: scene.world.collection)
        monkeypatch.setattr("nudge_vdb.arguments.load", lambda *_, **__: scene.world.train)
        monkeypatch.setattr("sys.argv", ["nudge-vdb", *words, "--json"])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, json.loads(capsys.readouterr().out)

    return act


def ways_in(message, scene):
    """The acts that a message names, each as a function of nothing that returns the next words and root."""
    named = re.findall(r"'nudge-vdb ((?:[^']|'[^ ]*')+?)'(?=[\s.,;:)]|$)", message)
    found = [("command", shlex.split(each)) for each in named if "--help" not in each]
    found += [("state", [each]) for each in re.findall(r"(?:use it|the same command) with --state ([^\s;.]+)", message)]
    found += [
        ("move", list(each)) for each in re.findall(r"move (\S+) out of (\S+) and give the same command", message)
    ]
    if "name a new state folder with --state" in message:
        found.append(("state", [str(scene.folder / "new")]))
    return found


def follow(scene, words, command, then=lambda: None, trail=()):
    """Give a command; where it is refused, go every way that is named, and each time give it again; then *then*."""
    code, told = command(scene, list(words))
    if code in WORKED:
        return then()
    message, here = told["message"], (*trail, f"{' '.join(words)} [{scene.root.name}]")
    where = "\n".join([*here, f"exit {code}: {message}"])
    assert code in (2, 3), where
    assert len(here) <= STEPS, where
    ways = ways_in(message, scene)
    assert ways, where
    saved = scene.save()
    for kind, given in ways:
        scene.restore(saved)
        again = partial(follow, scene, words, command, then, here)
        if kind == "state":
            scene.root = Path(given[0])
            again()
        elif kind == "move":
            shutil.move(given[0], scene.folder / f"aside {len(trail)}")
            again()
        else:
            assert f"{' '.join(given)} [{scene.root.name}]" not in here, where
            follow(scene, given, command, then if replaces(given, words) else partial(named, scene, given, again), here)
    return None


def named(scene, given, again):
    """Go on with the folder that *given*, which has worked, was given for."""
    if given[0] == "adopt" and "--state" in given:
        scene.root = Path(given[given.index("--state") + 1])
    return again()


def replaces(given, words):
    """Whether one command does what the other was to do, so that the other needs no repeating."""
    instead = words[0] in ("apply", "rollback", "carry", "adopt") and given[0] in ("tune", "plan", "resume")
    return given[0] == words[0] or instead


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    world = make_world(apart=1.0)
    world.collection.name = "here/memory"
    return Scene(world, folder, folder / "one")


def off(scene, before):
    """How many rows are not where they were."""
    return sum(np.abs(vector - before[text]).max() > 1e-6 for text, vector in scene.world.vectors().items())


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_every_refusal_names_ways_that_work(situation, scene, command, monkeypatch):
    monkeypatch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * 24 * 60)
    situation(scene)
    saved = scene.save()
    for verb in VERBS:
        scene.restore(saved)
        follow(scene, verb.split(), command)


def test_a_state_that_turns_up_after_it_was_given_up_brings_every_base_back(scene):
    before = scene.world.vectors()
    given_up_and_turned_up(scene)
    with pytest.raises(StateConflict, match="belong to the state"):
        nudge_vdb.rollback(scene.world.collection, to=0, state=scene.root)
    assert "instead of the state" in adopt(scene.world.collection, state=scene.root)
    nudge_vdb.rollback(scene.world.collection, to=0, state=scene.root)
    assert not off(scene, before)


def test_a_state_that_turns_up_after_another_has_written_waits_until_that_is_rolled_back(scene):
    before = scene.world.vectors()
    given_up_tuned_and_turned_up(scene)
    with pytest.raises(StateConflict, match="has written to the collection since: first 'nudge-vdb rollback"):
        adopt(scene.world.collection, state=scene.root)
    nudge_vdb.rollback(scene.world.collection, to=0, state=scene.folder / "one")
    adopt(scene.world.collection, state=scene.root)
    nudge_vdb.rollback(scene.world.collection, to=0, state=scene.root)
    assert not off(scene, before)


def test_a_state_that_lies_where_its_note_says_is_not_given_up_unless_forced(scene):
    an_empty_folder_is_named(scene)
    notes = dict(scene.world.collection.kept)
    with pytest.raises(StateConflict, match=r"is there, and knows the base .* --as-base --force"):
        adopt(scene.world.collection, state=scene.root, as_base=True)
    assert scene.world.collection.kept == notes
    assert "a new state begins" in adopt(scene.world.collection, state=scene.root, as_base=True, force=True)
    assert nudge_vdb.status(scene.world.collection, state=scene.root)["message"] == "the collection is at its base"


def test_a_live_state_is_not_bound_to_a_collection_that_keeps_notes_and_has_none_of_it_unless_forced(scene):
    """Another collection of that name on another server, say."""
    moved_and_its_note_is_gone(scene)
    with pytest.raises(StateConflict, match=r"has version 1 live, .* has none: it is another collection"):
        adopt(scene.world.collection, state=scene.root)
    assert "is that of memory:elsewhere/memory" in adopt(scene.world.collection, state=scene.root, force=True)
    assert len(scene.world.collection.kept) == 1
    with pytest.raises(StateConflict, match="belong to the state"):
        scene.plan("two")


def test_a_state_that_was_rolled_back_is_bound_to_a_collection_without_notes(scene):
    undone(scene)
    scene.world.collection.name = "elsewhere/memory"
    assert "is that of memory:elsewhere/memory" in adopt(scene.world.collection, state=scene.root)
    assert scene.world.collection.kept == {}


def test_an_older_copy_goes_on_by_force_and_the_newer_one_is_refused_when_it_turns_up(scene):
    scene.tune()
    scene.keep_a_copy()
    scene.tune(judgements=scene.world.fewer)
    scene.lose()
    (scene.folder / "copy").rename(scene.root)
    with pytest.raises(StateConflict, match="is older than the collection, which holds version 2"):
        adopt(scene.world.collection, state=scene.root)
    assert "version 2 is not known to it" in adopt(scene.world.collection, state=scene.root, force=True)
    nudge_vdb.rollback(scene.world.collection, to=1, state=scene.root)
    scene.come_back()
    with pytest.raises(StateConflict, match="belong to the state"):
        nudge_vdb.rollback(scene.world.collection, to=0, state=scene.folder / "two")
