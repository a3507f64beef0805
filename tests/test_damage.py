"""A damaged state is noticed, named, and never written from; what is not truth may be damaged at will."""

import os
import shutil

import pytest

import nudge_vdb
from nudge_vdb.diff import diff
from nudge_vdb.errors import StateDamaged
from nudge_vdb.hold import _machine
from nudge_vdb.prune import prune
from nudge_vdb.standing import open_state
from nudge_vdb.testing import Faulty
from tests.conftest import make_world

CHEAP = {"step": 0.3, "max_queries": 30}
ARRAYS = ("base", "tuned", "seen", "queries", "key_bytes", "key_offsets")
VERSIONS = [
    f"versions/{number:06}/{name}" for number in (1, 2) for name in ("manifest.json", *map("{}.npy".format, ARRAYS))
]
FILES = ["collection.json", "journal", "journal.head", *VERSIONS]


def die(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A world, and a state of two versions whose way back was interrupted."""
    world, folder = make_world(width=8), tmp_path_factory.mktemp("scene") / "state"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nudge_vdb.writeback.BATCH_BYTES", 4 * 8 * 30)
        for judgements in (world.train, world.fewer):
            nudge_vdb.apply(nudge_vdb.plan(world.collection, judgements, state=folder, **CHEAP), force=True)
        with pytest.raises(KeyboardInterrupt):
            nudge_vdb.rollback(Faulty(world.collection, before={("write", 2): die}), to=1, state=folder)
    return world, folder


@pytest.fixture
def state(scene, tmp_path):
    """The folder of a state to be damaged, and a copy of its collection's vectors to compare with."""
    return shutil.copytree(scene[1], tmp_path / "state")


@pytest.fixture
def world(scene):
    collection = scene[0].collection
    rows, notes = dict(collection.rows), dict(collection.kept)
    yield scene[0]
    collection.rows, collection.kept = rows, notes


def folder_in(state):
    return next(path for path in state.iterdir() if path.is_dir())


WRITING = {
    "plan": lambda world, state: nudge_vdb.plan(world.collection, world.test, state=state, **CHEAP),
    "apply": lambda world, state: nudge_vdb.apply(nudge_vdb.prepared(world.collection, 2, state=state)),
    "rollback": lambda world, state: nudge_vdb.rollback(world.collection, to=0, state=state),
    "resume": lambda world, state: nudge_vdb.resume(world.collection, state=state),
    "prune": lambda world, state: prune(world.collection, keep=0, state=state),
}
READING = {
    "verify": lambda world, state: nudge_vdb.verify(world.collection, state=state),
    "verify --deep": lambda world, state: nudge_vdb.verify(world.collection, state=state, deep=True),
    "diff": lambda world, state: diff(world.collection, 1, 2, state=state),
}
TELLING = {
    "status": lambda world, state: nudge_vdb.status(world.collection, state=state),
    "history": lambda world, state: nudge_vdb.history(world.collection, state=state),
}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path):
    path.unlink()


def extend(path):
    path.write_bytes(path.read_bytes() + b"00000000 {}\n")


def take_anothers(path):
    """Put the like of it from the other version in its place."""
    number = path.parent.name
    other = path.parent.with_name("000001" if number == "000002" else "000002") / path.name
    path.write_bytes(other.read_bytes() if number.isdigit() else b"{}\n")


DAMAGE = [flip, truncate, delete, extend, take_anothers]


def truth(state):
    """Return every file that counts."""
    names = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    return {path: content for path, content in names.items() if path.name not in ("lock", "holder.json")}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_stops_every_command_that_needs_the_file_names_it_and_nothing_is_written(
    name, damage, world, state, figure
):
    path = folder_in(state) / name
    damage(path)
    vectors, files = world.vectors(), truth(state)
    commands = WRITING | READING | ({} if name.endswith(".npy") else TELLING)
    for verb, command in commands.items():
        if verb == "prune" and name.endswith(".npy"):
            continue  # refused already, since the move must be finished first
        with pytest.raises(StateDamaged) as refusal:
            command(world, state)
        assert str(path) in str(refusal.value), verb
        assert refusal.value.exit_status == 7
    assert all(world.vectors()[text] is vector for text, vector in vectors.items())
    assert truth(state) == files


@pytest.mark.parametrize("bits", [0x01, 0x03, 0x80])
@pytest.mark.parametrize("name", FILES)
def test_no_byte_of_a_state_can_change_unnoticed(name, bits, world, state, figure):
    path = folder_in(state) / name
    whole = path.read_bytes()
    places = range(len(whole)) if name.endswith((".json", ".head")) else range(0, len(whole), 1 + len(whole) // 40)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
        with pytest.raises(StateDamaged) as refusal:
            open_state(world.collection, state).check()
        assert path.name in str(refusal.value), place
    path.write_bytes(whole)
    open_state(world.collection, state).check()
    if bits == 1:
        figure(f"damage: {len(places)} bytes of {name} flipped in three ways, all noticed")


@pytest.mark.parametrize("lost", [["collection.json", "journal"], ["collection.json", "journal", "journal.head"]])
def test_a_state_that_lost_all_but_its_versions_is_not_taken_for_a_new_one(lost, world, state):
    for name in lost:
        (folder_in(state) / name).unlink()
    for verb in (*WRITING, *TELLING):
        with pytest.raises(StateDamaged, match=r"collection\.json is missing"):
            (WRITING | TELLING)[verb](world, state)


def test_a_damaged_version_that_no_row_needs_is_found_by_a_deep_look_only(world, state):
    nudge_vdb.resume(world.collection, state=state)
    waiting = nudge_vdb.plan(world.collection, world.test, state=state, **CHEAP)
    flip(waiting.version.folder / "base.npy")
    assert nudge_vdb.verify(world.collection, state=state).clean
    with pytest.raises(StateDamaged, match=r"000003/base\.npy"):
        nudge_vdb.verify(world.collection, state=state, deep=True)
    with pytest.raises(StateDamaged, match=r"000003/base\.npy"):
        nudge_vdb.apply(nudge_vdb.prepared(world.collection, 3, state=state), force=True)


HOLDERS = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"machine": 1, "process": [], "started": {}}',
    b'{"token": "x", "host": "elsewhere", "process": "\\u0000", "since": 1e400}',
    b'{"token": "x", "machine": "HERE", "process": "\\u0000", "started": "1"}',
    b'{"token": "x", "machine": "HERE", "proces": 1, "started": "1"}',
]


@pytest.mark.parametrize("content", HOLDERS)
def test_a_damaged_name_of_a_dead_holder_keeps_nobody_out(content, world, state):
    path = folder_in(state) / "holder.json"
    path.write_bytes(content.replace(b"HERE", _machine().encode()))
    os.utime(path, (0, 0))
    nudge_vdb.resume(world.collection, state=state)


@pytest.mark.parametrize("name", ["progress.json", "vectors.f32", "keys.bin", "lengths.i64"])
def test_a_damaged_copy_of_the_vectors_is_made_again(name, worlds, tmp_path, monkeypatch):
    world = worlds(width=8)
    monkeypatch.setattr("nudge_vdb.pages.PAGE_BYTES", 4 * 8 * 50)
    wanted = nudge_vdb.plan(world.collection, world.test, state=tmp_path / "whole", **CHEAP).version.content
    for share in (0.01, 0.3, 0.6, 0.99):
        state = tmp_path / f"{share}"
        with pytest.raises(KeyboardInterrupt):
            nudge_vdb.plan(Faulty(world.collection, before={("scan", 3): die}), world.test, state=state, **CHEAP)
        pages = open_state(world.collection, state).pages / name
        content = bytearray(pages.read_bytes())
        content[int(share * len(content))] ^= 4
        pages.write_bytes(content)
        found = nudge_vdb.plan(world.collection, world.test, state=state, **CHEAP).version.content
        assert (found.base.tobytes(), found.tuned.tobytes()) == (wanted.base.tobytes(), wanted.tuned.tobytes())
        assert list(found.keys) == list(wanted.keys)
