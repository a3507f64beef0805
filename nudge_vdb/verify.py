"""Reading back: does the database hold what the state says it holds?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from nudge_vdb.contract import agree
from nudge_vdb.errors import StateConflict, Unfinished
from nudge_vdb.keys import KeyTable
from nudge_vdb.lineage import Lineage
from nudge_vdb.matching import sample
from nudge_vdb.pace import Pace
from nudge_vdb.retry import Patient
from nudge_vdb.state import State
from nudge_vdb.writeback import batches, said

FEWEST_ROWS = 10
"""Of fewer rows of a version, nothing is concluded about the model that embeds them."""
SAMPLED = 1000
"""Rows that are enough to tell in what state a collection is: a share is met within three points."""


@dataclass
class Findings:
    """What the rows that were ever moved hold now."""

    tuned: int = 0
    """Rows that hold the tuned vector of the live version."""
    base: int = 0
    """Rows that hold their base vector, as the live version wants them to."""
    re_embedded: list[str] = field(default_factory=list)
    """Ids of rows of the live version that hold a vector of their owner's."""
    missing: list[str] = field(default_factory=list)
    """Ids of rows of the live version that are gone."""
    astray: list[str] = field(default_factory=list)
    """Ids of rows that hold a vector of ours, but not the one that the live version wants: write again."""
    looked_at: int = 0
    """Rows that were looked at."""
    at_base_again: int = 0
    """Of the rows astray, those at a base of theirs which the live version had moved: another has written it."""
    held: int = 0
    """Rows of the live version that are there."""
    embedded_otherwise: int = 0
    """Of those, the rows whose vector is their owner's and not nearly the base that the version was made from."""

    next: str | None = None
    """The command that brings rows that are astray to where they should be, None where there are none."""

    def counts(self) -> dict[str, int]:
        """Return how many rows there are of each kind."""
        return {
            name: len(held) if isinstance(held, list) else held for name, held in vars(self).items() if name != "next"
        }

    @property
    def clean(self) -> bool:
        """Whether every row holds what the live version says."""
        return not (self.re_embedded or self.missing or self.astray)

    @property
    def of_another_model(self) -> bool:
        """Whether most rows of the live version were embedded otherwise, so that it says nothing of them any more."""
        return self.held >= FEWEST_ROWS and 2 * self.embedded_otherwise > self.held


@contextmanager
def unread_is_unfinished(number: int) -> Iterator[None]:
    """Say of whatever the system refuses inside that the rows of version *number* are written by then.

    Raises:
        Unfinished: in place of an OSError.
    """
    try:
        yield
    except OSError as exc:
        raise Unfinished(
            f"the rows of version {number} are written, but could not be read back: {said(exc)}; "
            "'nudge-vdb verify ADDRESS' reads them, 'nudge-vdb status ADDRESS' says what is live"
        ) from exc


def verify_live(
    number: int,
    collection: Patient,
    lineage: Lineage,
    progress: Callable[[int], None],
    pace: Pace,
    rows: KeyTable | None = None,
) -> Findings:
    """Compare *rows*, by default every row that was ever moved, with what version *number* says; writes nothing."""
    traits, findings = collection.traits, Findings()
    asked = lineage.keys() if rows is None else rows
    for part in batches(len(asked), traits.width, pace.most):
        keys = asked.at(part)
        live = np.zeros((len(keys), traits.width), np.float32)
        pace.turn(len(keys))
        found = pace.timed(collection, partial(collection.fetch, keys, live), len)
        base, ours = lineage.bases(keys, live)
        target, held = lineage.targets(number, keys, base), lineage.holds(number, keys)
        there = agree(live, target, traits.tolerance) & found & ours
        near = lineage.nearly(number, keys, live)
        at_base = agree(target, base, 0.0)  # also where its owner has embedded the row again since that version
        strange, astray = found & ~ours & held & ~near, found & ((ours & ~there) | (~ours & near))
        findings.tuned += int((there & ~at_base).sum())
        findings.base += int((there & at_base).sum())
        findings.held += int((found & held).sum())
        findings.at_base_again += int((astray & agree(live, base, traits.tolerance) & ours).sum())
        findings.embedded_otherwise += int((strange & lineage.embedded_otherwise(number, keys, live)).sum())
        for names, which in (
            (findings.re_embedded, strange),
            (findings.missing, ~found & held),
            (findings.astray, astray),
        ):
            names += [collection.text_of(keys[place]) for place in np.flatnonzero(which)]
        findings.looked_at += len(keys)
        progress(findings.looked_at)
    return findings


def glance(
    number: int, collection: Patient, lineage: Lineage, rows: KeyTable, throttle: float | None = None
) -> Findings:
    """Compare no more than :data:`SAMPLED` of *rows*, drawn at random and always the same, with version *number*."""
    some, pace = sample(len(rows), SAMPLED, seed=0), Pace(throttle)
    found = verify_live(number, collection, lineage, lambda _: None, pace, rows.select(some))
    pace.turn(0)  # the rows that were read have had their time before whatever comes next
    return found


def refuse_another_model(number: int, collection: Patient, home: State, throttle: float | None = None) -> None:
    """Refuse to go on where most rows of version *number* were embedded otherwise since it was made.

    No more than *throttle* rows are read in a second.

    Raises:
        StateConflict: its map, its step and its figures hold for the vectors that it was made from alone.
    """
    lineage = Lineage(home, number)
    found = glance(number, collection, lineage, home.version(number).content.keys, throttle)
    if found.of_another_model:
        raise StateConflict(f"{of_another_model(number, found)}. Nothing was written; {PLAN_ANEW}")


PLAN_ANEW = "plan anew for the vectors of now with 'nudge-vdb tune ADDRESS --judgements PATH'"


def of_another_model(number: int, found: Findings) -> str:
    """Say that version *number* says nothing of the rows any more."""
    return (
        f"{found.embedded_otherwise:,} of {found.held:,} rows looked at of version {number} hold other vectors than "
        "those that it was made from: they were embedded again, by another model as it seems, so the version no longer "
        "holds for them"
    )
