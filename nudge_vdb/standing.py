"""Where a collection stands: which version is live, what waits, and whether the database agrees."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from nudge_vdb.contract import Ability, Collection
from nudge_vdb.errors import StateConflict, StateDamaged
from nudge_vdb.given import taking_addresses
from nudge_vdb.journal import Journal
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import own_note, require_own
from nudge_vdb.pace import Pace
from nudge_vdb.paths import default_folder, local_path, open_to_others, why_ephemeral
from nudge_vdb.phases import Phases
from nudge_vdb.report import Report, plan_report
from nudge_vdb.retry import Patient
from nudge_vdb.state import State, existing_folder
from nudge_vdb.verify import PLAN_ANEW, Findings, glance, of_another_model, verify_live
from nudge_vdb.writeback import way_on

Read = TypeVar("Read", bound=Callable[..., Any])
Folder = str | Path | None

LOOKS = 5
"""How often a state is read at most that other runs change meanwhile."""

MADE_ANEW = (
    "the note of this state with the collection is gone, so the collection was dropped and made anew, or restored, "
    "since then (or the note could never be left): no row that was embedded otherwise meanwhile will be written"
)


def open_state(collection: Collection, folder: Folder = None) -> State:
    """Return the state of *collection* in *folder*, by default $NUDGE_VDB_STATE or a per-user folder."""
    return State(_root(folder), collection.traits)


def _root(folder: Folder) -> Path:
    if folder is not None:
        return local_path(folder, "the state folder")
    named = os.environ.get("NUDGE_VDB_STATE")
    return local_path(named, "$NUDGE_VDB_STATE") if named else default_folder()


def state_warnings(root: Path) -> list[str]:
    """Say what may become of a state in *root* that nobody wants: that it vanishes, or that others read it."""
    why = why_ephemeral(root)
    found = []
    if why:
        found.append(
            f"the state in {root} may vanish, since {why}, and without it nothing can be undone: name a folder that "
            "lasts with --state or $NUDGE_VDB_STATE"
        )
    if open_to_others(root):
        found.append(
            f"every user of this machine may look into {root}; what nudge-vdb makes in it is private, what was there "
            "before may not be (chmod -R o-rwx)"
        )
    return found


class _Overtaken(StateConflict):
    """A move began or ended while the rows were read."""


def steady(read: Read) -> Read:
    """Let *read*, which does not hold the state, look again where another run changed the state meanwhile.

    A run that adds or drops a version makes files appear and vanish between two reads. Every such change is in the
    journal: where that stayed as it was, a missing file is damage.
    """

    @wraps(read)
    def looks_again(collection: Collection, *args: Any, **named: Any) -> Any:  # noqa: ANN401 - as those of *read*
        folder = named.get("state")
        for _ in range(LOOKS - 1):
            before = _marks(collection, folder)
            try:
                return read(collection, *args, **named)
            except (StateDamaged, FileNotFoundError, _Overtaken):
                if _marks(collection, folder) == before:
                    raise
        return read(collection, *args, **named)

    return cast(Read, looks_again)


def _marks(collection: Collection, folder: Folder) -> list[tuple[int, int] | None]:
    """Return what changes with every change of the state in *folder*: the journal grows, the facts are replaced."""
    home = existing_folder(_root(folder), collection.traits.identity)
    return [_mark(home / name) for name in ("journal", "collection.json")]


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _require_unmoved(home: State, found: Findings | None) -> None:
    """Refuse to call rows astray that a move, begun or ended since *home* was opened, has put where they are."""
    if found is None or found.clean:
        return
    now, then = Journal(home.journal.path), home.journal
    if (now.live, now.unfinished) != (then.live, then.unfinished):
        raise _Overtaken(f"another run moves {home.traits.identity}; look again when it is done")


def known_state(collection: Collection, folder: Folder = None) -> State:
    """Return the state of a collection that has one.

    Raises:
        StateConflict: there is none in this folder, so nothing is known of what is live.
    """
    home = open_state(collection, folder)
    if not home.exists():
        conflict = _conflict(collection, home)
        elsewhere = conflict or "name that with --state or $NUDGE_VDB_STATE"
        never = "" if conflict else ". If it never was, that is what 'nudge-vdb tune ADDRESS --judgements PATH' does"
        raise StateConflict(
            f"{home.root} holds no state of {home.traits.identity}; if it was tuned before, its state is in another "
            f"folder: {elsewhere}{never}"
        )
    return home


@taking_addresses
@steady
def verify(
    collection: Collection,
    *,
    state: Folder = None,
    deep: bool = False,
    throttle: float | None = None,
    phases: Phases | None = None,
) -> Findings:
    """Compare every row that was ever moved with what the live version says of it; writes nothing.

    *deep* first compares every file of the state with its digest, those of versions that no row holds included. No more
    than *throttle* rows are read in a second.

    Raises:
        BadOption: *throttle* is no number of rows per second.
        StateConflict: vectors of the collection belong to another state.
        StateDamaged: a file of the state is missing or is not what was written.
    """
    home, phases, pace = known_state(collection, state), phases or Phases(), Pace(throttle)
    require_own(Patient(collection), home)
    if deep:
        with phases("check"):
            home.check()
    lineage = Lineage(home)
    with phases("verify", len(lineage.keys())) as step:
        findings = verify_live(home.journal.live, Patient(collection), lineage, step, pace)
    _require_unmoved(home, findings)
    findings.next = _next(home, findings)
    return findings


@taking_addresses
@steady
def history(collection: Collection, *, state: Folder = None) -> list[Report]:
    """Return every version with its figures and its status, oldest first."""
    home = open_state(collection, state)
    return [
        {**plan_report(version.manifest, home.status_of(version), {}), "live": version.number == home.journal.live}
        for version in home.versions()
    ]


@taking_addresses
@steady
def status(collection: Collection, *, state: Folder = None, deep: bool = False) -> Report:
    """Return which version is live, which can be applied, whether a write was interrupted, and what to do next.

    Up to 1,000 of the rows that were ever moved, or with *deep* all of them, are compared with what the live version
    says; "rows" holds what was found, None where there is nothing to compare or a write was interrupted. "note_gone"
    tells whether the collection was made anew, as it seems. Where vectors of the collection belong to another state,
    the message says to which.
    """
    home = open_state(collection, state)
    live, unfinished = home.journal.live, home.journal.unfinished
    waiting = [
        each.number
        for each in home.versions()
        if home.status_of(each) == "prepared" and each.manifest["parent"] == live
    ]
    conflict = _conflict(collection, home)
    found = None if conflict or unfinished is not None else _rows(collection, home, deep=deep)
    gone = not conflict and _note_is_gone(collection, home)
    said = [_situation(home, live, unfinished, waiting), *([MADE_ANEW] if gone else []), *_remarks(live, found)]
    return {
        "collection": home.traits.identity,
        "engine": home.traits.engine,
        "state": str(home.folder),
        "live": live,
        "unfinished": unfinished,
        "prepared": waiting,
        "note_gone": bool(gone),
        "rows": found and found.counts(),
        "next": None if conflict else _next(home, found),
        "message": conflict or "; ".join(said),
    }


def _rows(collection: Collection, home: State, *, deep: bool) -> Findings | None:
    """Return what the rows that were ever moved hold, or some of them; None where there are none."""
    lineage = Lineage(home, checked=deep) if home.exists() else None
    if lineage is None or not len(lineage.keys()):
        return None
    patient, number = Patient(collection), home.journal.live
    if deep:
        found = verify_live(number, patient, lineage, lambda _: None, Pace(None))
    else:
        found = glance(number, patient, lineage, lineage.keys())
    _require_unmoved(home, found)
    return found


def _remarks(live: int, found: Findings | None) -> Iterator[str]:
    """Say what is wrong with the rows, if anything is."""
    if found is None:
        return
    if found.astray:
        again, others = found.at_base_again, len(found.astray) - found.at_base_again
        parts = [f"{again:,} of {found.looked_at:,} rows looked at are at their base again (written by another)"]
        parts += [f"{others:,} of {found.looked_at:,} rows looked at hold what another version put there"]
        kinds = [part for part, count in zip(parts, (again, others), strict=True) if count]
        yield f"{' and '.join(kinds)}: '{way_to(live)}' puts them back"
    if found.of_another_model:
        yield f"{of_another_model(live, found)}; {PLAN_ANEW}"


def _next(home: State, found: Findings | None) -> str | None:
    """Return the command that brings the rows to where they should be, None where they are there or nobody knows."""
    if home.journal.unfinished is not None:
        return "nudge-vdb resume ADDRESS"
    if found is None or not (found.astray or found.of_another_model):
        return None
    return "nudge-vdb tune ADDRESS --judgements PATH" if found.of_another_model else way_to(home.journal.live)


def way_to(version: int) -> str:
    """Return the command that writes the rows of the live *version* again."""
    return f"nudge-vdb apply ADDRESS {version}" if version else "nudge-vdb rollback ADDRESS --to 0"


def _note_is_gone(collection: Collection, home: State) -> bool:
    """Tell whether some row may be moved, and no note says so, though the engine keeps notes."""
    moved = home.journal.live or home.journal.unfinished
    return bool(moved) and Ability.NOTES in home.traits.abilities and own_note(Patient(collection), home.traits) is None


def _conflict(collection: Collection, home: State) -> str | None:
    """Say to which other state vectors of *collection* belong, None where they belong to none."""
    try:
        require_own(Patient(collection), home)
    except StateConflict as exc:
        return str(exc)
    return None


def _situation(home: State, live: int, unfinished: int | None, waiting: list[int]) -> str:
    if not home.exists():
        return f"{home.root} holds no state of this collection: it was never tuned, or its state is in another folder"
    if unfinished is not None:
        done, total = home.journal.progress()
        return f"a move to version {unfinished} was interrupted with {done:,} of {total:,} rows done; {way_on(live)}"
    held = f"version {live} is live" if live else "the collection is at its base"
    if not waiting:
        return held
    return f"{held}; version {waiting[-1]} waits for 'nudge-vdb apply ADDRESS {waiting[-1]}'"
