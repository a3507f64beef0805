"""The state: versions that are what was written, and one writer at a time."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nudge_vdb.contract import Metric, Traits
from nudge_vdb.durable import read_json, write_json
from nudge_vdb.errors import BadOption, Locked, NudgeError, StateConflict, StateDamaged
from nudge_vdb.journal import Journal
from nudge_vdb.keys import KeyTable
from nudge_vdb.seen import Seen
from nudge_vdb.snapshot import Content
from nudge_vdb.state import State, folder_name

TRAITS = Traits("engine:host/articles", "", "engine 1.0", 5, Metric.COSINE, True, 1e-6)
FACTS = {"proven": True, "parent": 0, "step": 0.25, "method": "nudge-n"}
ARRAYS = ("key_offsets", "key_bytes", "base", "tuned", "seen", "queries")


def traits(**changes):
    return replace(TRAITS, **changes)


KEYS = (b"", b"a", b"longer \0 key", "日本".encode())


def content(keys=KEYS, seed=0):
    """Return rows with every kind of float there is."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 2**32, size=(2, len(keys), 5), dtype=np.uint32).view(np.float32)
    vectors[0].flat[:5] = [np.nan, -np.inf, -0.0, 1e-45, 3.4e38][: vectors[0].size]
    digests = np.sort(rng.integers(0, 2**64, size=3, dtype=np.uint64))
    seen = Seen(digests, rng.normal(size=(3, 5)).astype(np.float16))
    return Content(KeyTable.of(sorted(keys)), vectors[0], vectors[1], seen)


def bits(held):
    """Return all that a content holds, as bytes and shapes."""
    arrays = held.arrays()
    return list(held.keys), {name: (each.dtype.str, each.shape, each.tobytes()) for name, each in arrays.items()}


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state", TRAITS)


def add(state, kept, facts):
    """Keep a version, as a run does."""
    with state.locked():
        return state.add_version(kept, facts)


@pytest.fixture
def version(state):
    return add(state, content(), FACTS)


def reopened(state):
    return State(state.folder.parent, state.traits)


@pytest.mark.parametrize("keys", [[], [b""], [b"a", b"b" * 1000], [bytes([byte]) for byte in range(256)]])
def test_a_version_comes_back_bit_for_bit(keys, state):
    kept = content(keys, seed=len(keys))
    add(state, kept, FACTS)
    found = reopened(state).version(1)
    assert bits(found.content) == bits(kept)
    assert {name: found.manifest[name] for name in FACTS} == FACTS
    found.check()


def test_versions_are_numbered_from_one_and_listed_oldest_first(state):
    kept = [content(seed=seed) for seed in range(12)]
    numbers = [add(state, each, FACTS).number for each in kept]
    assert numbers == list(range(1, 13))
    assert [found.number for found in reopened(state).versions()] == numbers
    assert [bits(found.content) for found in reopened(state).versions()] == [bits(each) for each in kept]


def test_a_new_state_has_no_version_and_makes_nothing(state):
    assert state.versions() == []
    assert not state.folder.exists()


def test_a_version_that_is_not_there_lists_those_there_are(state):
    with pytest.raises(BadOption, match=r"engine:host/articles\?vector= has no version 1; there are: none"):
        state.version(1)
    add(state, content(), FACTS)
    add(state, content(), FACTS)
    with pytest.raises(BadOption, match="has no version 3; there are: 1, 2"):
        state.version(3)


def test_a_version_without_a_manifest_was_never_finished_and_its_number_is_free(state, version):
    unfinished = add(state, content(seed=1), FACTS)
    (unfinished.folder / "manifest.json").rename(unfinished.folder / "manifest.json.tmp")
    forget_last_event(state)
    assert [found.number for found in reopened(state).versions()] == [1]
    kept = content([b"other"], seed=2)
    assert add(reopened(state), kept, FACTS).number == 2
    assert bits(reopened(state).version(2).content) == bits(kept)


def forget_last_event(state):
    """Put the journal back to where it was one event ago, as if the run had died before it."""
    journal = state.folder / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    (state.folder / "journal.head").unlink()
    journal.write_bytes(b"".join(lines[:-1]))
    Journal(journal).seal()


def test_a_version_that_the_journal_knows_and_that_is_gone_is_damage(state, version):
    (version.folder / "manifest.json").unlink()
    with pytest.raises(StateDamaged, match=r"000001/manifest\.json is missing"):
        reopened(state).versions()


def test_a_version_put_in_the_place_of_another_is_damage(state, version):
    other = add(state, content(seed=1), FACTS)
    for file in version.folder.iterdir():
        shutil.copy(file, other.folder / file.name)
    with pytest.raises(StateDamaged, match=r"000002/manifest\.json is missing or of another version"):
        reopened(state).versions()


def flipped(path, place):
    changed = bytearray(path.read_bytes())
    changed[place] ^= 1
    path.write_bytes(changed)


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


DAMAGE = {
    "its first byte flipped": lambda path: flipped(path, 0),
    "a byte flipped in the middle": lambda path: flipped(path, path.stat().st_size // 2),
    "its last byte flipped": lambda path: flipped(path, -1),
    "nothing left": lambda path: cut(path, 0),
    "half of it left": lambda path: cut(path, path.stat().st_size // 2),
    "its end cut off": lambda path: cut(path, -2),
    "a byte too many": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a folder in its place": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in ARRAYS), "manifest.json"])
def test_a_damaged_file_of_a_version_is_noticed_and_named_when_the_version_is_opened(name, damage, state, version):
    DAMAGE[damage](version.folder / name)
    with pytest.raises(StateDamaged) as refusal:
        reopened(state).version(1).content  # noqa: B018 - opening it is what is tested
    assert str(version.folder / name) in str(refusal.value)


@pytest.mark.parametrize("array", ARRAYS)
def test_a_missing_file_of_a_version_is_noticed_and_named_when_the_version_is_opened(array, state, version):
    (version.folder / f"{array}.npy").unlink()
    with pytest.raises(StateDamaged) as refusal:
        reopened(state).version(1).content  # noqa: B018 - opening it is what is tested
    assert str(version.folder / f"{array}.npy") in str(refusal.value)


def test_no_byte_of_a_manifest_can_change_unnoticed(state, version):
    manifest = version.folder / "manifest.json"
    whole = manifest.read_bytes()
    for place in range(len(whole) - 1):
        manifest.write_bytes(whole)
        flipped(manifest, place)
        with pytest.raises(StateDamaged):
            reopened(state).version(1).content  # noqa: B018 - opening it is what is tested


def test_a_version_of_a_newer_format_is_refused(state, version):
    write_json(version.folder / "manifest.json", {**version.manifest, "format": 3})
    with pytest.raises(StateDamaged, match="has format 3 and this nudge-vdb reads 1 and 2; update it"):
        reopened(state).versions()


def test_a_state_of_a_newer_format_is_refused(state):
    with state.locked():
        pass
    path = state.folder / "collection.json"
    write_json(path, {**read_json(path), "format": 3})
    with pytest.raises(NudgeError, match=r"format.* 3\b"):
        reopened(state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 6}, "has width 6, but the state in .* was made with 5"),
        ({"metric": Metric.DOT}, "has metric 'dot', but the state in .* was made with 'cosine'"),
    ],
)
def test_a_collection_that_was_rebuilt_otherwise_does_not_get_the_old_state(change, words, state):
    with state.locked():
        pass
    with pytest.raises(StateConflict, match=f"{words}; if the collection was rebuilt, name a new state folder"):
        State(state.folder.parent, traits(**change))
    assert State(state.folder.parent, traits(engine="engine 2.0")).folder == state.folder


def test_a_state_whose_facts_cannot_be_read_is_damaged(state):
    with state.locked():
        pass
    (state.folder / "collection.json").write_text("{")
    with pytest.raises(StateDamaged, match=r"collection\.json cannot be read"):
        reopened(state)


identities = st.text(st.sampled_from("ab/:-?=&日AB"), min_size=1, max_size=8) | st.text(min_size=1, max_size=200)


@example(["x" * 300, "x" * 301, f"{'x' * 300}/"])
@given(st.lists(identities, unique=True, min_size=2, max_size=20))
def test_two_identities_never_share_a_folder(names):
    folders = [State(Path("/r"), traits(collection=name)).folder for name in names]
    assert len({str(folder).lower() for folder in folders}) == len(names)
    assert {str(folder.parent) for folder in folders} == {"/r"}
    assert max(len(os.fsencode(folder.name)) for folder in folders) <= 100


@pytest.mark.parametrize(("left", "right"), [("a/b", "a-b"), ("a", "A"), ("a?x=1&y=2", "a?x=1/y=2")])
def test_identities_that_look_alike_do_not_share_a_folder(left, right, tmp_path):
    one, other = (State(tmp_path, traits(collection=name)) for name in (left, right))
    add(one, content(), FACTS)
    assert other.versions() == []


def test_a_folder_may_be_named_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert State(Path("~/kept"), TRAITS).folder.parent == tmp_path / "kept"


HOLDER = """
import sys
from pathlib import Path
from pathlib import Path
from nudge_vdb.contract import Metric, Traits
from nudge_vdb.state import State

with State(Path(sys.argv[1]), Traits(sys.argv[2], "", "engine 1.0", 5, Metric.COSINE, True, 1e-6)).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(state):
    """Another process that holds the state until its input is closed."""
    command = [sys.executable, "-c", HOLDER, str(state.folder.parent), TRAITS.collection]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("end", ["killed", "done"])
def test_a_state_that_another_process_holds_is_refused_by_name_until_that_process_is_gone(end, holder, state):
    with pytest.raises(Locked) as refusal, state.locked():
        pytest.fail("two hold the state")
    assert f"process {holder.pid} on {socket.gethostname()} (since " in str(refusal.value)
    assert "is working on engine:host/articles?vector=; wait until it is done" in str(refusal.value)
    if end == "killed":
        holder.kill()
    holder.communicate()
    with state.locked():
        assert read_json(state.folder / "holder.json")["process"] == os.getpid()


def test_a_state_that_this_process_holds_is_not_given_out_again(state):
    with state.locked():
        with pytest.raises(Locked, match=f"process {os.getpid()} on "), reopened(state).locked():
            pytest.fail("two hold the state")
        with pytest.raises(Locked), state.locked():
            pytest.fail("two hold the state")


def test_a_holder_that_cannot_be_named_holds_all_the_same(state):
    with state.locked():
        (state.folder / "holder.json").write_text("{")
        with pytest.raises(Locked, match="another run is working on"), reopened(state).locked():
            pytest.fail("two hold the state")


def test_a_run_that_fails_lets_go_of_the_state(state):
    with pytest.raises(ZeroDivisionError), state.locked():
        1 / 0  # noqa: B018 - any failure
    with reopened(state).locked():
        pass


def test_states_of_two_collections_are_held_apart(state, tmp_path):
    with state.locked(), State(state.folder.parent, traits(collection="engine:host/others")).locked():
        pass


def test_a_run_that_waited_sees_what_the_one_before_it_noted(state):
    assert state.journal.live == 0
    earlier = reopened(state)
    with earlier.locked():
        earlier.journal.add("begin", **{"to": 3, "from": 0})
    with state.locked():
        assert state.journal.unfinished == 3


@pytest.mark.parametrize("obstacle", ["", "lock", "holder.json", "collection.json.tmp"])
def test_a_folder_that_cannot_be_written_is_refused_with_what_to_do(obstacle, tmp_path):
    """Permissions do not stop every user, so something else is in the way: a file for a folder, or the reverse."""
    state = State(tmp_path / "state", TRAITS)
    if obstacle:
        (state.folder / obstacle).mkdir(parents=True)
    else:
        (tmp_path / "state").write_text("a file, not a folder")
    refused = pytest.raises(
        BadOption,
        match=r"the state folder .* cannot be written: .*; make room or give permission|is no folder; name one",
    )
    with refused, state.locked():
        pytest.fail("what cannot be written cannot be held")


class Asleep(Mapping):
    """Facts of a version, during whose first reading the run that adds it sleeps, and others *act*."""

    def __init__(self, facts, act):
        self._facts, self._act = facts, act

    def __iter__(self):
        act, self._act = self._act, lambda: None
        act()
        return iter(self._facts)

    def __getitem__(self, name):
        return self._facts[name]

    def __len__(self):
        return len(self._facts)


@pytest.fixture
def two_hosts(monkeypatch):
    """Let the kernel's lock reach one process only, as between hosts that share a folder."""
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: None)


def test_a_run_that_slept_while_it_added_a_version_changes_none_of_the_run_that_took_over(state, two_hosts):
    theirs = content(seed=9)

    def other_host():
        (state.folder / "holder.json").unlink()
        other = reopened(state)
        with other.locked():
            assert other.add_version(theirs, {**FACTS, "step": 0.5}).number == 1

    with pytest.raises(Locked, match="has taken over"), state.locked():
        state.add_version(content(), Asleep(FACTS, other_host))
    assert [found.manifest["step"] for found in reopened(state).versions()] == [0.5]
    assert bits(reopened(state).version(1).content) == bits(theirs)
    assert not list((state.folder / "unfinished").glob("*"))


def test_what_a_run_left_that_died_while_it_added_a_version_is_removed_by_the_next(state):
    left = state.folder / "unfinished" / "0123"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{}")
    with state.locked():
        assert not left.exists()


BEGIN, END = "begin", "end"
STORIES = {
    "waiting": ([], ["prepared", "unproven"]),
    "being applied": ([(BEGIN, 0, 1)], ["applying", "unproven"]),
    "applied": ([(BEGIN, 0, 1), (END, 0, 1)], ["applied", "unproven"]),
    "rolled back": ([(BEGIN, 0, 1), (END, 0, 1), (BEGIN, 1, 0), (END, 1, 0)], ["rolled-back", "unproven"]),
    "forced": ([(BEGIN, 0, 2), (END, 0, 2)], ["prepared", "applied"]),
    "back by one": (
        [(BEGIN, 0, 1), (END, 0, 1), (BEGIN, 1, 2), (END, 1, 2), (BEGIN, 2, 1), (END, 2, 1)],
        ["applied", "rolled-back"],
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_the_journal_tells_what_became_of_each_version(story, state):
    moves, told = STORIES[story]
    add(state, content(), FACTS)
    add(state, content(), {**FACTS, "proven": False})
    with state.locked():
        for event, start, to in moves:
            state.journal.add(event, **{"from": start, "to": to})
    assert [reopened(state).status_of(found) for found in state.versions()] == told


def test_the_folder_of_a_long_name_begins_with_the_engine_and_ends_with_the_collection():
    identity = "postgresql:db.example.internal.company:5432/warehouse/public/articles_of_last_year?vector=embedding"
    name = folder_name(identity)
    assert name.startswith("postgresql-db-example")
    assert name.rpartition("-")[0].endswith("articles-of-last-year-vector-embedding"[-20:])
    assert len(name) <= 60 + 13
    assert folder_name(identity.replace("articles", "orders")) != name
    assert folder_name("qdrant:h:6333/a?vector=").startswith("qdrant-h-6333-a-vector-")


def test_a_folder_that_was_named_when_names_were_cut_in_front_is_still_found(tmp_path):
    long = "a-very-long-name-of-a-collection-that-nobody-would-want-to-type-twice"
    traits = Traits(f"memory:{long}", "", "memory", 4, Metric.DOT, False, 0.0)
    digest = hashlib.sha256(traits.identity.encode()).hexdigest()[:12]
    readable = f"memory-{long}-vector"[-60:]
    former = tmp_path / f"{readable}-{digest}"
    assert State(tmp_path, traits).folder == tmp_path / folder_name(traits.identity) != former
    former.mkdir()
    assert State(tmp_path, traits).folder == former


def test_a_long_list_of_ids_is_cut_in_the_manifest_and_whole_in_the_version(state):
    """Of a version of few rows in a collection that was embedded again, say."""
    ids = [f"row {number} é\ud800" for number in range(100_000)]
    facts = {**FACTS, "re_embedded": ids, "rows_not_finite": ids[:20], "judged_missing": ids[:21]}
    with state.locked():
        version = state.add_version(content(), facts)
    assert (version.folder / "manifest.json").stat().st_size < 8000
    found = State(state.root, state.traits).version(version.number)
    assert found.manifest["re_embedded"] == ids[:20]
    assert (found.manifest["re_embedded_count"], found.manifest["judged_missing_count"]) == (100_000, 21)
    assert "rows_not_finite_count" not in found.manifest
    assert {name: found.facts()[name] for name in facts} == facts
    assert found.facts().keys() == found.manifest.keys() - {"re_embedded_count", "judged_missing_count"}
    assert found.content.keys.same(content().keys)
