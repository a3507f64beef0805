"""Where a collection stands: which version is live, what waits, and whether the database agrees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from nudge_vdb.contract import Collection
from nudge_vdb.errors import StateConflict
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import require_own
from nudge_vdb.pace import Pace
from nudge_vdb.phases import Phases
from nudge_vdb.report import Report, plan_report
from nudge_vdb.retry import Patient
from nudge_vdb.state import State
from nudge_vdb.verify import PLAN_ANEW, Findings, glance, of_another_model, verify_live
from nudge_vdb.writeback import way_on

Folder = str | Path | None


def open_state(collection: Collection, folder: Folder = None) -> State:
    """Return the state of *collection* in *folder*, by default $NUDGE_VDB_STATE or a per-user folder."""
    default = os.environ.get("NUDGE_VDB_STATE") or platformdirs.user_state_dir("nudge-vdb")
    return State(Path(folder or default), collection.traits)


def known_state(collection: Collection, folder: Folder = None) -> State:
    """Return the state of a collection that has one.

    Raises:
        StateConflict: there is none in this folder, so nothing is known of what is live.
    """
    home = open_state(collection, folder)
    if not home.exists():
        raise StateConflict(
            f"{home.root} holds no state of {home.traits.identity}; if it was tuned before, its state is in another "
            "folder: name that with --state or $NUDGE_VDB_STATE"
        )
    return home


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
    findings.next = _next(home, findings)
    return findings


def history(collection: Collection, *, state: Folder = None) -> list[Report]:
    """Return every version with its figures and its status, oldest first."""
    home = open_state(collection, state)
    return [
        {**plan_report(version.manifest, home.status_of(version), {}), "live": version.number == home.journal.live}
        for version in home.versions()
    ]


def status(collection: Collection, *, state: Folder = None, deep: bool = False) -> Report:
    """Return which version is live, which can be applied, whether a write was interrupted, and what to do next.

    Up to 1,000 of the rows that were ever moved, or with *deep* all of them, are compared with what the live version
    says; "rows" holds what was found, None where there is nothing to compare or a write was interrupted. Where
    vectors of the collection belong to another state, the message says to which.
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
    said = [_situation(home, live, unfinished, waiting), *_remarks(live, found)]
    return {
        "collection": home.traits.identity,
        "engine": home.traits.engine,
        "state": str(home.folder),
        "live": live,
        "unfinished": unfinished,
        "prepared": waiting,
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
        return verify_live(number, patient, lineage, lambda _: None, Pace(None))
    return glance(number, patient, lineage, lineage.keys())


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
    return "nudge-vdb tune ADDRESS JUDGEMENTS" if found.of_another_model else way_to(home.journal.live)


def way_to(version: int) -> str:
    """Return the command that writes the rows of the live *version* again."""
    return f"nudge-vdb apply ADDRESS {version}" if version else "nudge-vdb rollback ADDRESS --to 0"


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
