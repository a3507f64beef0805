"""Moving a live collection from one version to another, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np

from nudge_vdb.contract import Collection, Mask, Outcome, RowKey, Vectors, agree
from nudge_vdb.errors import Stopped
from nudge_vdb.interruption import held_back
from nudge_vdb.keys import KeyTable
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import sign
from nudge_vdb.retry import chosen_patience, until_none_is_left
from nudge_vdb.state import State

BATCH_BYTES = 4 << 20


@dataclass
class Tally:
    """What became of the rows of a move."""

    written: int = 0
    already: int = 0
    """Rows that were where they should be."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Row ids by the outcome that kept them from being written."""

    rebased: list[str] = field(default_factory=list)
    """Ids of rows that their owner re-embedded since the version was made: they stay at the owner's vector."""

    def skip(self, outcome: Outcome, texts: list[str]) -> None:
        """Note rows that were not written."""
        if texts:
            self.skipped.setdefault(outcome.value, []).extend(texts)

    def add(self, other: Tally) -> None:
        """Add up two tallies."""
        self.written += other.written
        self.already += other.already
        self.rebased += other.rebased
        for outcome, texts in other.skipped.items():
            self.skip(Outcome(outcome), texts)


@dataclass(frozen=True)
class _Move:
    """Where rows come from and where they go."""

    collection: Collection
    lineage: Lineage
    start: int
    goal: int
    resumed: bool
    """Whether some of the rows may have been sent before without an answer.

    Such a row is sent even if it reads as there: of its replicas, a read sees one, and a write that failed may have
    reached that one only.
    """

    @property
    def open(self) -> frozenset[Outcome]:
        """The outcomes after which to look again.

        Between replicas that differ, a row seems changed when one was read before the write and another by it; if it
        is its owner's, the next look tells.
        """
        return frozenset({Outcome.UNKNOWN, Outcome.CHANGED} if self.resumed else {Outcome.UNKNOWN})


def move_to(
    number: int, collection: Collection, state: State, lineage: Lineage, progress: Callable[[int], None]
) -> Tally:
    """Bring every row that is ours to version *number*, and note in the journal what the engine acknowledged.

    Rows are read just before they are written: one that is already there is not sent, one whose vector is its
    owner's or that is gone is left alone and reported. Repeating an interrupted move is therefore harmless. While rows
    are left of which nobody knows what they hold, the move stays unfinished.

    Raises:
        Stopped: by Ctrl-C, between two batches.
        Locked: another run has taken over; nothing was written since.
    """
    start, keys = state.journal.live, lineage.keys()
    move = _Move(collection, lineage, start, number, resumed=state.journal.unfinished is not None)
    state.journal.add("begin", **{"to": number, "from": start, "rows": len(keys)})
    sign(collection, state)
    tally, done, patience = Tally(), 0, chosen_patience()
    with held_back() as asked_to_stop:
        for part in batches(keys, state.traits.width):
            if asked_to_stop():
                raise Stopped(f"stopped with {done:,} of {len(keys):,} rows done; {way_on(start)}")
            state.require_hold()
            batch = _bring(move, part, 0.0 if Outcome.UNKNOWN.value in tally.skipped else patience)
            state.journal.add("batch", rows=len(part), written=batch.written, skipped=batch.skipped)
            tally.add(batch)
            done += len(part)
            progress(done)
    if Outcome.UNKNOWN.value not in tally.skipped:
        state.journal.add("end", **{"to": number, "from": start})
    return tally


def way_on(start: int) -> str:
    """Return what can be done about an interrupted move from version *start*, in words."""
    return f"go on with 'nudge-vdb resume ADDRESS', or undo it with 'nudge-vdb rollback ADDRESS --to {start}'"


def batches(keys: KeyTable, width: int) -> Iterator[list[RowKey]]:
    """Yield *keys* in portions whose vectors take a bounded number of bytes."""
    rows = max(1, BATCH_BYTES // (4 * width))
    for first in range(0, len(keys), rows):
        yield keys.at(range(first, min(first + rows, len(keys))))


def _bring(move: _Move, keys: list[RowKey], patience: float) -> Tally:
    """Bring one batch to its targets; rows whose outcome stays unknown are read and sent again, with *patience*."""
    tally = Tally()
    left = _write_once(move, keys, tally)
    again = replace(move, resumed=True)

    def send_again() -> list[RowKey]:
        nonlocal left
        seen = Tally()
        left = _write_once(again, left, seen)
        seen.written, seen.already = seen.written + seen.already, 0  # what is there now is what was sent unanswered
        tally.add(seen)
        return left

    if left:
        until_none_is_left(send_again, patience)
    tally.skip(Outcome.UNKNOWN, _texts(move.collection, left))
    return tally


def _write_once(move: _Move, keys: list[RowKey], tally: Tally) -> list[RowKey]:
    """Read *keys*, write those that are ours and not there yet; return those to look at again."""
    collection, lineage = move.collection, move.lineage
    live = np.zeros((len(keys), collection.traits.width), np.float32)
    found = collection.fetch(keys, live)
    base, ours = lineage.bases(keys, live)
    target = lineage.targets(move.goal, keys, base)
    left, wanted = lineage.holds(move.start, keys), lineage.holds(move.goal, keys)
    there = found & ours & agree(live, target, collection.traits.tolerance)
    due = found & ours if move.resumed else found & ours & ~there
    owners = (found & ~ours & left & ~wanted) | (found & ours & lineage.rebased(move.goal, keys, base))
    tally.already += int((there & ~due).sum())
    tally.rebased += _texts(collection, keys, owners)
    tally.skip(Outcome.MISSING, _texts(collection, keys, ~found & (left | wanted)))
    tally.skip(Outcome.CHANGED, _texts(collection, keys, found & ~ours & wanted))
    return _send(move, list(compress(keys, due)), target[due], live[due], there[due], tally)


def _send(move: _Move, keys: list[RowKey], target: Vectors, live: Vectors, there: Mask, tally: Tally) -> list[RowKey]:
    """Write *keys*, of which some read as *there*, and note the outcomes; return those that are open."""
    outcomes = move.collection.write(keys, target, live) if keys else []
    final = {Outcome.CHANGED, Outcome.MISSING, Outcome.REFUSED} - move.open
    for outcome in final:
        tally.skip(outcome, _texts(move.collection, keys, np.array([each is outcome for each in outcomes], bool)))
    written = np.array([outcome is Outcome.WRITTEN for outcome in outcomes], bool)
    tally.written += int((written & ~there).sum())
    tally.already += int((written & there).sum())
    return [key for key, outcome in zip(keys, outcomes, strict=True) if outcome in move.open]


def _texts(collection: Collection, keys: Sequence[RowKey], which: Mask | None = None) -> list[str]:
    return [collection.text_of(key) for place, key in enumerate(keys) if which is None or which[place]]
