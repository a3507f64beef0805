"""Moving a live collection from one version to another, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import compress

import numpy as np

from nudge_vdb.contract import Ability, Collection, Mask, Outcome, RowKey, Vectors, agree, guarded
from nudge_vdb.errors import BadInput, EngineError, Refused, StateConflict, Stopped, Unfinished
from nudge_vdb.interruption import held_back
from nudge_vdb.lineage import Lineage
from nudge_vdb.notes import require_standing, sign
from nudge_vdb.pace import Pace
from nudge_vdb.retry import Patient, chosen_patience, until_none_is_left
from nudge_vdb.state import State

BATCH_BYTES = 4 << 20
UNGUARDED_ROWS = 256
"""How many rows a backend is sent at once that does not ask before each request whether it may write."""
SECONDS_BETWEEN_LOOKS = 5.0
"""How often a move looks whether its note still stands with the collection."""


@dataclass
class Tally:
    """What became of the rows of a move."""

    written: int = 0
    """Rows that were sent and hold their target now, even where somebody had put them there just before."""
    already: int = 0
    """Rows that were read and were where they should be, so that nothing was sent."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Row ids by the outcome that kept them from being written."""

    at_base_again: int = 0
    """Rows that were to be moved and held their base where the live version had moved them: another has written it."""
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
        self.at_base_again += other.at_base_again
        for outcome, texts in other.skipped.items():
            self.skip(Outcome(outcome), texts)


@dataclass(frozen=True)
class _Move:
    """Where rows come from and where they go."""

    collection: Patient
    lineage: Lineage
    pace: Pace
    require_hold: Callable[[], None]
    """Raises where another run has taken over."""
    start: int
    """The version that was live."""
    interrupted: int | None
    """The version that an interrupted move was on its way to."""
    goal: int
    doubted: Sequence[tuple[RowKey, RowKey]]
    """First and last keys of rows that may have been sent before without an answer.

    Such a row is sent even if it reads as there: of its replicas, a read sees one, and a write that failed may have
    reached that one only.
    """

    def in_doubt(self, keys: Sequence[RowKey]) -> Mask:
        """Tell which of *keys* may have been sent before without an answer."""
        return np.array([any(first <= key <= last for first, last in self.doubted) for key in keys], bool)


def move_to(
    number: int, collection: Patient, state: State, lineage: Lineage, progress: Callable[[int], None], pace: Pace
) -> Tally:
    """Bring every row that is ours to version *number*, and note in the journal what the engine acknowledged.

    Rows are sent as what the live version made of them; the adapter looks at each just before, and leaves one that is
    not so alone. Such rows are read here, and after an interrupted move all are: one that is already there is not sent,
    one whose vector is its owner's or that is gone is left alone and reported. Repeating an interrupted move is
    therefore harmless. While rows are left of which nobody knows what they hold, the move stays unfinished.

    Raises:
        Stopped: by Ctrl-C, between two batches.
        Locked: another run has taken over; nothing was written since.
        Unfinished: the system failed, such as the disk of the state, or the collection is no longer what it was.
    """
    start, keys = state.journal.live, lineage.keys()
    interrupted, doubted = state.journal.unfinished, state.journal.in_doubt()
    move = _Move(collection, lineage, pace, state.require_hold, start, interrupted, number, doubted)
    parts = list(batches(len(keys), state.traits.width, pace.most))
    spans = [(keys[part.start].hex(), keys[part.stop - 1].hex()) for part in parts]
    # The journal knows of the move before the note, and the note stands before the first row is sent: a run that dies
    # in between leaves a move to go on with, and never a tuned vector that nobody knows.
    state.journal.add("begin", **{"to": number, "from": start, "rows": len(keys), "next": next(iter(spans), None)})
    noted = sign(collection, state)
    tally, patience, looked = Tally(), chosen_patience(), -SECONDS_BETWEEN_LOOKS
    look: Callable[[], None] = partial(require_standing, collection, state) if noted else _nothing
    with held_back() as asked_to_stop, _unfinished_on_failure(state, start, look):
        for part, following in zip(parts, [*spans[1:], None], strict=False):  # of no rows, no part
            # Rows are read after the wait, never before: in it their owner may embed them again, and what was read
            # earlier would be sent over that as if it still were expected.
            waited = pace.turn(len(part), asked_to_stop)
            if asked_to_stop():
                raise Stopped(f"stopped with {part.start:,} of {len(keys):,} rows done; {way_on(start)}")
            batch = _bring(move, keys.at(part), 0.0 if Outcome.UNKNOWN.value in tally.skipped else patience)
            # A batch is in the journal only when the engine has acknowledged it: the other order would pass over it for
            # ever after a crash in between, this one sends it again, which is harmless.
            done = {"rows": len(part), "written": batch.written, "skipped": batch.skipped, "next": following}
            state.journal.add("batch", **done, **({"waited": round(waited, 3)} if waited else {}))
            tally.add(batch)
            progress(part.stop)
            if time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
                look()
                looked = time.monotonic()
        look()
        if Outcome.UNKNOWN.value not in tally.skipped:
            state.journal.add("end", **{"to": number, "from": start})
    return tally


def _nothing() -> None:
    """Look at nothing: no note could be left."""


@contextmanager
def _unfinished_on_failure(state: State, start: int, look: Callable[[], None]) -> Iterator[None]:
    """Say of a failure that rows were written before it, and how to go on: bad input means that nothing was.

    Where the engine refuses, *look* tells whether the collection still is what it was: that is then the reason.
    """
    try:
        yield
    except Refused as exc:
        with suppress(EngineError):
            _look_for_the_reason(state, start, look, exc)
        raise Refused(f"{exc}; {_unfinished(state, start)}") from exc
    except (BadInput, OSError) as exc:  # passed on as it is, an OSError would be said to have written nothing
        ours = isinstance(exc, OSError) and state.is_unwritable(exc)
        what = f"the state folder {state.folder} cannot be written: " if ours else ""
        raise Unfinished(f"{what}{said(exc)}; {_unfinished(state, start)}") from exc


def said(failure: Exception) -> str:
    """Return what *failure* says, or its name where it says nothing."""
    return str(failure) or type(failure).__name__


def _look_for_the_reason(state: State, start: int, look: Callable[[], None], failure: Refused) -> None:
    try:
        look()
    except StateConflict as exc:
        raise Unfinished(f"{exc}; {_unfinished(state, start)}; the engine says: {failure}") from failure


def _unfinished(state: State, start: int) -> str:
    done, total = state.journal.progress()
    return (
        f"the move of {state.traits.identity} is unfinished, and at least {done:,} of {total:,} rows were looked at "
        f"and written where needed; {way_on(start)}"
    )


def way_on(start: int) -> str:
    """Return what can be done about an interrupted move from version *start*, in words."""
    return f"go on with 'nudge-vdb resume ADDRESS', or undo it with 'nudge-vdb rollback ADDRESS --to {start}'"


def batches(rows: int, width: int, most: int | None = None) -> Iterator[range]:
    """Yield the places of *rows* rows in portions of *most*, and whose vectors take a bounded number of bytes."""
    size = max(1, min(BATCH_BYTES // (4 * width), most or rows))
    for first in range(0, rows, size):
        yield range(first, min(first + size, rows))


def _bring(move: _Move, keys: list[RowKey], patience: float) -> Tally:
    """Bring one batch to its targets; rows whose outcome stays unknown are read and sent again, with *patience*."""
    tally = Tally()
    others, left = _sent_unread(move, keys, tally) if move.interrupted is None else (keys, [])
    left += _sent_as_read(move, others, move.in_doubt(others), tally) if others else []

    def send_again() -> list[RowKey]:
        nonlocal left
        seen = Tally()
        left = _sent_as_read(move, left, np.ones(len(left), bool), seen)
        seen.written, seen.already = seen.written + seen.already, 0  # what is there now is what was sent unanswered
        tally.add(seen)
        return left

    if left:
        until_none_is_left(send_again, patience)
    tally.skip(Outcome.UNKNOWN, _texts(move.collection, left))
    return tally


def _sent_unread(move: _Move, keys: list[RowKey], tally: Tally) -> tuple[list[RowKey], list[RowKey]]:
    """Send *keys* as what the live version made of them; return those to read, and those without an answer.

    To be read is what stays where it is or was embedded again, and what turns out to be something else or gone.
    """
    collection, lineage = move.collection, move.lineage
    base = lineage.newest_bases(keys)
    live, target = (lineage.targets(number, keys, base) for number in (move.start, move.goal))
    plain = ~(agree(live, target, collection.traits.tolerance) | lineage.rebased(move.goal, keys, base))
    sent = list(compress(keys, plain))
    was = _by_outcome(_written(move, sent, target[plain], live[plain]))
    tally.written += int(was[Outcome.WRITTEN].sum())
    tally.skip(Outcome.REFUSED, _texts(collection, sent, was[Outcome.REFUSED]))
    others = [*compress(keys, ~plain), *compress(sent, was[Outcome.CHANGED] | was[Outcome.MISSING])]
    return sorted(others), list(compress(sent, was[Outcome.UNKNOWN]))


def _sent_as_read(move: _Move, keys: list[RowKey], doubtful: Mask, tally: Tally) -> list[RowKey]:
    """Read *keys*, and send those that are ours and not certainly there; return those to look at again."""
    collection, lineage = move.collection, move.lineage
    live = np.zeros((len(keys), collection.traits.width), np.float32)
    found = collection.fetch(keys, live)
    base, ours = lineage.bases(keys, live)
    target = lineage.targets(move.goal, keys, base)
    left = lineage.holds(move.start, keys) | lineage.holds(move.interrupted or 0, keys)
    wanted = lineage.holds(move.goal, keys)
    there = found & ours & agree(live, target, collection.traits.tolerance)
    due = found & ours & (doubtful | ~there)
    owners = (found & ~ours & left & ~wanted) | (found & ours & lineage.rebased(move.goal, keys, base))
    if move.interrupted is None:
        fallen = due & ~there & agree(live, base, collection.traits.tolerance)
        tally.at_base_again += int((fallen & ~agree(live, lineage.targets(move.start, keys, base), 0.0)).sum())
    tally.already += int((there & ~due).sum())
    tally.rebased += _texts(collection, keys, owners)
    tally.skip(Outcome.MISSING, _texts(collection, keys, ~found & (left | wanted)))
    tally.skip(Outcome.CHANGED, _texts(collection, keys, found & ~ours & wanted))
    sent = list(compress(keys, due))
    outcomes = _written(move, sent, target[due], live[due])
    return _noted(collection, sent, outcomes, (there[due], doubtful[due]), tally)


def _written(move: _Move, keys: list[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
    """Write *keys* in the pace of the move, which goes by the rows that the engine wrote."""
    if not keys:
        return []
    write = partial(_written_while_held, move, keys, vectors, expected)
    return move.pace.timed(move.collection, write, lambda became: became.count(Outcome.WRITTEN))


def _written_while_held(move: _Move, keys: list[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
    """Write *keys*, looking before every request whether this run still holds the state.

    To look earlier would decide nothing: a run may sleep between the look and the request.
    """
    knows = Ability.GUARDED in move.collection.traits.abilities
    size, outcomes = len(keys) if knows else UNGUARDED_ROWS, list[Outcome]()
    with guarded(move.require_hold):
        for first in range(0, len(keys), size):
            part = slice(first, first + size)
            move.require_hold()
            outcomes += move.collection.write(keys[part], vectors[part], expected[part])
    return outcomes


def _by_outcome(outcomes: Sequence[Outcome]) -> dict[Outcome, Mask]:
    """Tell, for every outcome, which rows had it."""
    return {outcome: np.array([each is outcome for each in outcomes], bool) for outcome in Outcome}


def _noted(
    collection: Collection, keys: list[RowKey], outcomes: list[Outcome], known: tuple[Mask, Mask], tally: Tally
) -> list[RowKey]:
    """Note the *outcomes* of a write of *keys*, of which some were *known* as there or doubtful; return the open ones.

    Between replicas that differ, a doubtful row seems changed when one was read before the write and another by it;
    if it is its owner's, the next look tells.
    """
    there, doubtful = known
    was = _by_outcome(outcomes)
    tally.written += int((was[Outcome.WRITTEN] & ~there).sum())
    tally.already += int((was[Outcome.WRITTEN] & there).sum())
    for outcome, settled in ((Outcome.CHANGED, ~doubtful), (Outcome.MISSING, True), (Outcome.REFUSED, True)):
        tally.skip(outcome, _texts(collection, keys, was[outcome] & settled))
    return list(compress(keys, was[Outcome.UNKNOWN] | (was[Outcome.CHANGED] & doubtful)))


def _texts(collection: Collection, keys: Sequence[RowKey], which: Mask | None = None) -> list[str]:
    return [collection.text_of(key) for place, key in enumerate(keys) if which is None or which[place]]
