"""Moving a live collection from one version to another, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nudge_vdb.contract import Collection, Mask, Outcome, RowKey, Vectors, agree
from nudge_vdb.errors import Stopped
from nudge_vdb.interruption import held_back
from nudge_vdb.keys import KeyTable
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import sign
from nudge_vdb.state import State

BATCH_BYTES = 4 << 20
READ_BACKS = 5
"""How often rows with an unknown outcome are read back and sent again before they are reported as unknown."""


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
    state.journal.add("begin", **{"to": number, "from": start, "rows": len(keys)})
    sign(collection, state)
    tally, done = Tally(), 0
    with held_back() as asked_to_stop:
        for part in batches(keys, state.traits.width):
            if asked_to_stop():
                raise Stopped(f"stopped with {done:,} of {len(keys):,} rows done; {way_on(start)}")
            state.require_hold()
            batch = _move(collection, lineage, part, (start, number))
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


def _move(collection: Collection, lineage: Lineage, keys: list[RowKey], versions: tuple[int, int]) -> Tally:
    """Bring one batch to its targets, reading back what stays unknown."""
    tally = Tally()
    keys = _write_once(collection, lineage, keys, versions, tally)
    for _ in range(READ_BACKS):
        if not keys:
            return tally
        seen = Tally()
        keys = _write_once(collection, lineage, keys, versions, seen)
        seen.written, seen.already = seen.written + seen.already, 0  # what is there now is what was sent unanswered
        tally.add(seen)
    tally.skip(Outcome.UNKNOWN, _texts(collection, keys))
    return tally


def _write_once(
    collection: Collection, lineage: Lineage, keys: list[RowKey], versions: tuple[int, int], tally: Tally
) -> list[RowKey]:
    """Read *keys*, write those that are ours and not there yet; return those whose outcome is unknown."""
    live = np.zeros((len(keys), collection.traits.width), np.float32)
    found = collection.fetch(keys, live)
    base, ours = lineage.bases(keys, live)
    target = lineage.targets(versions[1], keys, base)
    left, wanted = lineage.holds(versions[0], keys), lineage.holds(versions[1], keys)
    there = found & ours & agree(live, target, collection.traits.tolerance)
    due = np.flatnonzero(found & ours & ~there)
    owners = (found & ~ours & left & ~wanted) | (found & ours & lineage.rebased(versions[1], keys, base))
    tally.already += int(there.sum())
    tally.rebased += _texts(collection, keys, owners)
    tally.skip(Outcome.MISSING, _texts(collection, keys, ~found & (left | wanted)))
    tally.skip(Outcome.CHANGED, _texts(collection, keys, found & ~ours & wanted))
    return _send(collection, [keys[place] for place in due], target[due], live[due], tally)


def _send(collection: Collection, keys: list[RowKey], target: Vectors, live: Vectors, tally: Tally) -> list[RowKey]:
    """Write *keys* and note the outcomes; return those that are unknown."""
    outcomes = collection.write(keys, target, live) if keys else []
    for outcome in (Outcome.CHANGED, Outcome.MISSING, Outcome.REFUSED):
        tally.skip(outcome, _texts(collection, keys, np.array([each is outcome for each in outcomes], bool)))
    tally.written += sum(outcome is Outcome.WRITTEN for outcome in outcomes)
    return [key for key, outcome in zip(keys, outcomes, strict=True) if outcome is Outcome.UNKNOWN]


def _texts(collection: Collection, keys: Sequence[RowKey], which: Mask | None = None) -> list[str]:
    return [collection.text_of(key) for place, key in enumerate(keys) if which is None or which[place]]
