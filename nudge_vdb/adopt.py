"""Making a state the one that a collection's vectors belong to: after a move, or when the old one is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from nudge_vdb.contract import Ability, Collection
from nudge_vdb.durable import sealed, sync_folder, write_json
from nudge_vdb.errors import Locked, NudgeError, StateConflict
from nudge_vdb.given import taking_addresses
from nudge_vdb.hold import Hold
from nudge_vdb.journal import Journal
from nudge_vdb.notes import Note, drop_claims, leave, older_copy, option, own_note
from nudge_vdb.retry import Patient
from nudge_vdb.standing import Folder, open_state
from nudge_vdb.state import State, facts_of, folder_name, read_facts


@taking_addresses
def adopt(collection: Collection, *, state: Folder = None, as_base: bool = False, force: bool = False) -> str:
    """Make a state in the folder the one that *collection*'s vectors belong to; say what was done.

    A state goes by the name of its collection, which changes with the name of the host: then the state that the
    collection's note names is bound to the name of now. A state that has the right name gets the collection if the note
    names one that has written nothing. With *as_base* the old state is given up: a new one begins, whose base are the
    vectors as they are now. What they were before is then lost. With *force* it does not matter that the note names a
    state that is still there, or has written something, or that there is no note.

    Raises:
        StateConflict: no state here can be taken; the message says what can be done.
    """
    home, patient = open_state(collection, state), Patient(collection)
    note = own_note(patient, home.traits)
    if note is not None and note.state == home.id:
        return _keep(patient, home, note, force=force)
    if as_base:
        return _begin_anew(patient, home, note, force=force)
    found = _candidates(home, note)
    if home.exists() and home.journal.newest() and not (note and found):
        return _take_over(patient, home, note, force=force)
    if len(found) != 1:
        raise StateConflict(_undecided(home, note, found))
    return _rebind(patient, home, found[0], note, force=force)


def _keep(collection: Collection, home: State, note: Note, *, force: bool) -> str:
    """Go on with the state that the note names, also, by force, if it is a copy from before."""
    if note.version <= home.journal.farthest():
        return f"the state in {home.folder} is the collection's already"
    if not force:
        raise StateConflict(older_copy(note, home))
    with home.locked():
        home.become_another()  # the newer copy must not be taken for this one, should it turn up
        drop_claims(collection, home.traits)
        leave(collection, home)
    return f"the state in {home.folder} is the collection's now; version {note.version} is not known to it"


def _begin_anew(collection: Collection, home: State, note: Note | None, *, force: bool) -> str:
    if home.exists() and home.journal.newest():
        raise StateConflict(
            f"{home.folder} holds versions of its own. 'nudge-vdb adopt ADDRESS {option(home.root)}' makes it the "
            "collection's state, or says how; to take the vectors as they are now for the base all the same, name an "
            "empty folder with --state"
        )
    if note is not None and note.root is not None and note.version and not force:
        raise StateConflict(
            f"{note.origin} is there, and knows the base of these vectors: 'nudge-vdb adopt ADDRESS "
            f"{option(note.root)}' makes it the collection's. To give it up all the same: 'nudge-vdb adopt ADDRESS "
            f"--as-base --force {option(home.root)}'"
        )
    with home.locked():
        drop_claims(collection, home.traits)
        leave(collection, home)
    return f"a new state begins in {home.folder}; the vectors as they are now are its base"


def _take_over(collection: Collection, home: State, note: Note | None, *, force: bool) -> str:
    """Give the collection to *home*, which has its name and versions of it, from the state that *note* names."""
    if note is None:
        with home.locked():
            dropped = drop_claims(collection, home.traits)  # whoever claims has written nothing yet
        also = "; the claim of another, which had written nothing, is taken back" if dropped else ""
        return f"the state in {home.folder} is the collection's already{also}"
    if note.version and not force:
        where = option(note.root) if note.root else f"in {note.folder} on {note.host}"
        by_force = (
            f"'nudge-vdb adopt ADDRESS --force {option(home.root)}' takes the rows that it wrote for their owner's"
        )
        undo = f"'nudge-vdb rollback ADDRESS --to 0 {where}'" if note.root else f"a roll-back to 0 {where}"
        raise StateConflict(
            f"{note.origin} has written to the collection since: first {undo}, then adopt again. If that state is lost "
            f"for good, {by_force}"
        )
    with home.locked():
        drop_claims(collection, home.traits)
        leave(collection, home)
    return f"the state in {home.folder} is the collection's now, instead of {note.origin}"


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


def _rebind(collection: Collection, home: State, folder: Path, note: Note | None, *, force: bool) -> str:
    """Give the state in *folder* the collection's name of now."""
    if home.exists() and home.journal.newest():
        raise StateConflict(
            f"{home.folder} holds versions too, made under the name that the collection has now; if {folder} is the "
            f"right one, move {home.folder} out of {home.root} and give the same command again"
        )
    facts = read_facts(folder)
    for name in ("width", "metric", "vector"):
        if facts.get(name, facts_of(home.traits)[name]) != facts_of(home.traits)[name]:
            raise StateConflict(f"{folder} was made with {name} {facts[name]!r}: it is of another collection")
    live = _require_idle(folder)
    if live and note is None and Ability.NOTES in home.traits.abilities and not force:
        raise StateConflict(
            f"{folder} has version {live} live, and would have left a note with its collection, but "
            f"{home.traits.identity} has none: it is another collection, was made anew, or was restored without notes. "
            f"If it is the same: 'nudge-vdb adopt ADDRESS --force {option(home.root)}'"
        )
    write_json(folder / "collection.json", sealed({**_unsealed(facts), **facts_of(home.traits)}))
    _make_room(home)
    folder.rename(folder.with_name(folder_name(home.traits.identity)))
    sync_folder(home.root)
    if live and note is None:
        bound = State(home.root, home.traits)
        with bound.locked():
            leave(collection, bound)
    return f"the state of {facts['identity']} is that of {home.traits.identity} now"


def _require_idle(folder: Path) -> int:
    """Return the newest version that some row of the idle state in *folder* may hold, 0 if all are at their base."""
    hold = Hold(folder)
    try:
        hold.take()
        journal = Journal(folder / "journal")
    except Locked as exc:
        raise Locked(f"{exc} is working with {folder}; wait until it is done") from exc
    else:
        return journal.live or journal.unfinished or 0
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
    if note is not None and note.root is not None:
        return (
            f"looked in {home.root} for {wanted}, which is where it was: 'nudge-vdb adopt ADDRESS {option(note.root)}' "
            "makes it the collection's"
        )
    others = "; move those of other collections away" if len(found) > 1 else ""
    return (
        f"looked in {home.root} for {wanted}, and found {there}{others}; name the right folder with --state. If it is "
        f"lost for good, 'nudge-vdb adopt ADDRESS --as-base {option(home.root)}' takes the vectors as they are now for "
        "the base: they can then no longer be brought back to what they were before"
    )
