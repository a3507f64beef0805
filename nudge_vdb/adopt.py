"""Making a state the one that a collection's vectors belong to: after a move, or when the old one is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from nudge_vdb.contract import Collection
from nudge_vdb.durable import sealed, sync_folder, write_json
from nudge_vdb.errors import Locked, NudgeError, StateConflict
from nudge_vdb.hold import Hold
from nudge_vdb.notes import Note, drop_claims, leave, own_note
from nudge_vdb.retry import Patient
from nudge_vdb.standing import Folder, open_state
from nudge_vdb.state import State, facts_of, folder_name, read_facts


def adopt(collection: Collection, *, state: Folder = None, as_base: bool = False) -> str:
    """Bind the state that *collection*'s note names to the name that the collection has now; say what was done.

    A state goes by the name of its collection, which changes with the name of the host. With *as_base* the old state
    is given up: a new one begins, whose base are the vectors as they are now. What they were before is then lost.

    Raises:
        StateConflict: no state here is the one that the note names.
    """
    home, patient = open_state(collection, state), Patient(collection)
    note = own_note(patient, home.traits)
    if note is not None and note.state == home.id:
        return f"the state in {home.folder} is the collection's already"
    if as_base:
        return _begin_anew(patient, home)
    found = _candidates(home, note)
    if len(found) != 1:
        raise StateConflict(_undecided(home, note, found))
    return _rebind(home, found[0])


def _begin_anew(collection: Collection, home: State) -> str:
    if home.exists() and home.journal.newest():
        raise StateConflict(
            f"{home.folder} holds versions of its own, which would no longer fit; name an empty folder with --state"
        )
    with home.locked():
        drop_claims(collection, home.traits)
        leave(collection, home)
    return f"a new state begins in {home.folder}; the vectors as they are now are its base"


def _candidates(home: State, note: Note | None) -> list[Path]:
    """Return the folders of states that may be the one meant: by the note's id, or without a note by the name."""
    found = []
    for path in sorted(home.root.glob("*/collection.json")):
        try:
            facts = read_facts(path.parent)
        except NudgeError:
            continue
        meant = facts.get("id") == note.state if note else _alike(facts["identity"], home.traits.identity)
        if meant and path.parent != home.folder:
            found.append(path.parent)
    return found


def _alike(one: str, other: str) -> bool:
    """Tell whether two identities differ by the place of the collection only."""
    return one.rpartition("/")[2] == other.rpartition("/")[2]


def _rebind(home: State, folder: Path) -> str:
    """Give the state in *folder* the collection's name of now."""
    if home.exists() and home.journal.newest():
        raise StateConflict(
            f"{home.folder} holds versions too, made under the name that the collection has now; move that folder away "
            f"if {folder} is the right one"
        )
    facts = read_facts(folder)
    for name in ("width", "metric", "vector"):
        if facts.get(name, facts_of(home.traits)[name]) != facts_of(home.traits)[name]:
            raise StateConflict(f"{folder} was made with {name} {facts[name]!r}: it is of another collection")
    _require_idle(folder)
    write_json(folder / "collection.json", sealed({**_unsealed(facts), **facts_of(home.traits)}))
    _make_room(home)
    folder.rename(folder.with_name(folder_name(home.traits.identity)))
    sync_folder(home.root)
    return f"the state of {facts['identity']} is that of {home.traits.identity} now"


def _require_idle(folder: Path) -> None:
    hold = Hold(folder)
    try:
        hold.take()
    except Locked as exc:
        raise Locked(f"{exc} is working with {folder}; wait until it is done") from exc
    finally:
        hold.release()


def _unsealed(facts: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in facts.items() if name != "digest"}


def _make_room(home: State) -> None:
    """Remove an empty state, which nobody needs and which must not be taken for the one that is looked for."""
    if home.folder.exists():
        _require_idle(home.folder)
        shutil.rmtree(home.folder)


def _undecided(home: State, note: Note | None, found: list[Path]) -> str:
    wanted = note.origin if note else f"a state of a collection called {home.traits.collection.rpartition('/')[2]}"
    there = ", ".join(map(str, found)) or "nothing like it"
    return (
        f"looked in {home.root} for {wanted}, and found {there}; name the right folder with --state. If it is lost for "
        "good, 'nudge-vdb adopt ADDRESS --as-base' takes the vectors as they are now for the base: they can then no "
        "longer be brought back to what they were before"
    )
