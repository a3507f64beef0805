"""The note that a state leaves with its collection, so that no other state takes tuned vectors for a base."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nudge_vdb.contract import Ability, Collection, Traits
from nudge_vdb.errors import NudgeError, StateConflict
from nudge_vdb.foreign import parsed, shown
from nudge_vdb.journal import Journal
from nudge_vdb.printable import printable
from nudge_vdb.state import State, read_facts

log = logging.getLogger(__name__)

PREFIX = "nudge_vdb/"
SHOWN = 300
"""Characters of a folder's name that go into a note, which must stay short."""


@dataclass(frozen=True)
class Note:
    """What a state says of itself to the others."""

    state: str
    """The id of the state."""
    version: int
    """The newest version that some row may hold."""
    vector: str
    scope: Mapping[str, str]
    host: str
    folder: str

    @property
    def origin(self) -> str:
        """Where the state was when the note was left, in words."""
        whose = f"the state {self.state[:8]} (in {self.folder} on {self.host}, version {self.version})"
        return printable(whose)  # whoever may change the collection may leave any note

    @property
    def root(self) -> Path | None:
        """What --state has to name, if that state still lies where it was when the note was left; else None."""
        folder = Path(self.folder)
        try:
            there = self.host == socket.gethostname() and read_facts(folder).get("id") == self.state
        except (NudgeError, OSError, ValueError):
            return None
        return folder.parent if there else None


def sign(collection: Collection, state: State) -> bool:
    """Leave a note that vectors of *collection* belong to *state*, before the first of them is written.

    Where no note stands yet, two states may look at the same moment. So each first leaves a claim of its own beside the
    note and looks again: of two, one at least sees the other, and who sees another gives way. Return whether the note
    stands; it cannot where the engine keeps none, or the permissions do not allow it.

    Raises:
        StateConflict: another state has left one.
    """
    found = own_note(collection, state.traits)
    if found is not None:
        _require_this(found, state)
    if found is None:
        state.require_hold()
        collection.leave_note(_claim(state), _text(_note_of(state)))
        _give_way_to_others(collection, state)
    stands = found == _note_of(state) or leave(collection, state)
    _drop_claim(collection, state)  # also one that a run left which died just here
    return stands


def require_standing(collection: Collection, state: State) -> None:
    """Return if the note of *state* still stands with *collection*; where it is gone, leave it again and refuse.

    Raises:
        StateConflict: another state's note stands there, or there was none: the collection is not what it was.
    """
    found = own_note(collection, state.traits)
    if found is not None and found.state == state.id:
        return
    if found is not None:
        raise StateConflict(
            f"{found.origin} has begun to move vectors of {state.traits.identity} as well, so this run has stopped; "
            "see to it that one of the two is used, and bring the collection to its base with the other"
        )
    leave(collection, state)
    raise StateConflict(
        f"the note of this state with {state.traits.identity} was gone: the collection was restored, emptied or made "
        "anew during the move; the note was left again"
    )


def leave(collection: Collection, state: State) -> bool:
    """Leave the note of *state*, whatever stands there; tell whether it stands.

    Raises:
        StateConflict: another state's note stands there, which was left at the same moment.
    """
    state.require_hold()
    kept = collection.leave_note(_name(state.traits), _text(_note_of(state)))
    found = None if kept else own_note(collection, state.traits)
    if found is not None:
        _require_this(found, state)
    if not kept and Ability.NOTES in state.traits.abilities:
        log.warning(
            "no note could be left with %s (a key that may change the collection could): a run with another state "
            "folder would take these vectors for their base",
            state.traits.identity,
        )
    return kept


def _give_way_to_others(collection: Collection, state: State) -> None:
    """Take back the claim of *state* where another state has left a note or a claim as well.

    Raises:
        StateConflict: another state has.
    """
    try:
        require_own(collection, state)
    except StateConflict:
        _drop_claim(collection, state)
        raise


def _drop_claim(collection: Collection, state: State) -> None:
    if _claim(state) in collection.notes():
        collection.leave_note(_claim(state), "")


def drop_claims(collection: Collection, traits: Traits) -> int:
    """Take back what states that are lost have claimed and never begun; return how many had."""
    claims = [name for name in collection.notes() if _is_claim(name, traits)]
    for name in claims:
        collection.leave_note(name, "")
    return len(claims)


def withdraw(collection: Collection, state: State) -> None:
    """Take the note back: every row is at its base.

    Raises:
        Locked: another run has taken over, and may have left it anew.
    """
    found = own_note(collection, state.traits)
    state.require_hold()
    if found and found.state == state.id:
        collection.leave_note(_name(state.traits), "")
    _drop_claim(collection, state)


def require_own(collection: Collection, state: State) -> None:
    """Refuse to go on where live vectors belong to another state, which alone knows their base.

    Raises:
        StateConflict: they do; the message says whose they are and what to do.
    """
    for name, note in _found(collection):
        if name == _name(state.traits) or _is_claim(name, state.traits):
            _require_this(note, state)
        elif note.vector == state.traits.vector and overlap(note.scope, _short(state.traits.scope)):
            raise StateConflict(_overlapping(state, note.scope, note.origin))
    for facts in _tuned_siblings(state):
        if overlap(facts["scope"], state.traits.scope):
            raise StateConflict(_overlapping(state, facts["scope"], f"the state of {facts['identity']}"))


def overlap(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Tell whether a row may be in both scopes: unless some condition has different values in them, it may."""
    return all(other.get(name, value) == value for name, value in one.items())


def _require_this(note: Note, state: State) -> None:
    if note.state != state.id:
        raise StateConflict(
            f"vectors of {state.traits.identity} belong to {note.origin}, and only that knows their base; "
            f"{_ways(note, state)}"
        )
    if note.version > state.journal.farthest():
        raise StateConflict(older_copy(note, state))


def _ways(note: Note, state: State) -> str:
    """Say how to go on where the vectors belong to a state that is not *state*."""
    adopt = f"'nudge-vdb adopt ADDRESS {option(state.root)}'"
    if note.root in (None, state.root):  # in the same root, it goes by an earlier name of the collection
        return f"name its folder with --state; if it was moved or is lost, {adopt} finds it or says what to do"
    has_versions = state.exists() and state.journal.newest()
    instead = f"; {adopt} says how the state in {state.folder} can have them instead" if has_versions else ""
    return f"give the same command with {option(Path(note.root or state.root))}{instead}"


def older_copy(note: Note, state: State) -> str:
    """Say that *state* is a copy from before, and how to go on."""
    return (
        f"the state in {state.folder} is older than the collection, which holds version {note.version} of it: it is a "
        "copy from before. Bring the newer one back; if that is lost for good, 'nudge-vdb adopt ADDRESS --force "
        f"{option(state.root)}' goes on with this copy: rows that later versions wrote are then taken for their owner's"
    )


def option(root: Path) -> str:
    """Return the option that names *root*, as a shell takes it."""
    return f"--state {shlex.quote(str(root))}"


def _overlapping(state: State, scope: Mapping[str, str], origin: str) -> str:
    words = ", ".join(f"{name}={value}" for name, value in sorted(scope.items())) or "the whole collection"
    return (
        f"rows of {state.traits.identity} may also belong to {origin}, whose scope is {words}; scopes that overlap "
        "cannot be tuned apart: use that scope, or roll it back to version 0 first with 'nudge-vdb rollback ADDRESS "
        "--to 0' and its address; if its state is lost, 'nudge-vdb adopt ADDRESS --as-base' does so before"
    )


def _found(collection: Collection) -> Iterator[tuple[str, Note]]:
    for name, text in collection.notes().items():
        yield name, _read_note(collection, name, text)


def _read_note(collection: Collection, name: str, text: str) -> Note:
    try:
        return Note(**_checked(parsed(text)))
    except (ValueError, TypeError) as exc:
        raise StateConflict(
            f"the note {name} with {collection.traits.identity} cannot be read: {shown(text)}; if a newer "
            "nudge-vdb left it, update; if nobody needs it, remove it from the collection"
        ) from exc


def _checked(told: object) -> dict[str, Any]:
    """Return what a note says if it is what :func:`_text` writes, else raise ValueError."""
    if not isinstance(told, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - as for what is no JSON
    texts = [told.get(name) for name in ("state", "vector", "host", "folder")]
    scope, version = told.get("scope"), told.get("version")
    right = all(isinstance(text, str) for text in texts) and type(version) is int and isinstance(scope, dict)
    if not right or not all(isinstance(value, str) for value in (scope or {}).values()):
        raise ValueError("it is no note of ours")
    return told


def own_note(collection: Collection, traits: Traits) -> Note | None:
    """Return the note that stands for exactly this vector field and scope, None where there is none."""
    text = collection.notes().get(_name(traits))
    return None if text is None else _read_note(collection, _name(traits), text)


def _note_of(state: State) -> Note:
    traits = state.traits
    return Note(
        state.id,
        state.journal.farthest(),
        traits.vector,
        _short(traits.scope),
        socket.gethostname(),
        _cut(str(state.folder)),
    )


def _text(note: Note) -> str:
    return json.dumps({**vars(note), "scope": dict(note.scope)}, sort_keys=True)


def _name(traits: Traits) -> str:
    """Return the name of the note: the same from wherever the collection is reached."""
    place = json.dumps([traits.vector, sorted(traits.scope.items())])
    return PREFIX + hashlib.sha256(place.encode()).hexdigest()[:16]


def _claim(state: State) -> str:
    """Return the name of the note by which *state* claims what no note stands for yet."""
    return f"{_name(state.traits)}/{state.id[:8]}"


def _is_claim(name: str, traits: Traits) -> bool:
    return name.startswith(f"{_name(traits)}/")


def _short(scope: Mapping[str, str]) -> dict[str, str]:
    """Return *scope* with long values replaced by their digests, which differ where the values do."""
    return {name: _digested(value) for name, value in scope.items()}


def _digested(value: str) -> str:
    return value if len(value) <= 40 else hashlib.sha256(value.encode()).hexdigest()[:16]


def _cut(text: str) -> str:
    return ascii(text)[1:-1][-SHOWN:]


def _tuned_siblings(state: State) -> Iterator[dict[str, Any]]:
    """Yield the facts of states in the same root that hold rows of the same vectors, or did so when last heard of."""
    for path in sorted(state.root.glob("*/collection.json")):
        if path.parent == state.folder:
            continue
        try:
            facts, journal = read_facts(path.parent), Journal(path.parent / "journal")
        except NudgeError:
            continue  # whoever uses that state is told
        same = (facts.get("collection"), facts.get("vector")) == (state.traits.collection, state.traits.vector)
        if same and (journal.live or journal.unfinished is not None):
            yield facts
