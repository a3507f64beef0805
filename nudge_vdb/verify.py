"""Reading back: does the database hold what the state says it holds?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from nudge_vdb.contract import agree
from nudge_vdb.lineage import Lineage
from nudge_vdb.pace import Pace
from nudge_vdb.retry import Patient
from nudge_vdb.writeback import batches


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

    @property
    def clean(self) -> bool:
        """Whether every row holds what the live version says."""
        return not (self.re_embedded or self.missing or self.astray)


def verify_live(
    number: int, collection: Patient, lineage: Lineage, progress: Callable[[int], None], pace: Pace
) -> Findings:
    """Compare every row that was ever moved with what version *number* says of it; writes nothing."""
    traits, findings, done = collection.traits, Findings(), 0
    ours_ever = lineage.keys()
    for part in batches(len(ours_ever), traits.width, pace.most):
        keys = ours_ever.at(part)
        live = np.zeros((len(keys), traits.width), np.float32)
        pace.turn(len(keys))
        found = pace.timed(collection, partial(collection.fetch, keys, live), len)
        base, ours = lineage.bases(keys, live)
        target, held = lineage.targets(number, keys, base), lineage.holds(number, keys)
        there = agree(live, target, traits.tolerance) & found & ours
        near = lineage.nearly(number, keys, live)
        at_base = agree(target, base, 0.0)  # also where its owner has embedded the row again since that version
        findings.tuned += int((there & ~at_base).sum())
        findings.base += int((there & at_base).sum())
        for names, which in (
            (findings.re_embedded, found & ~ours & held & ~near),
            (findings.missing, ~found & held),
            (findings.astray, found & ((ours & ~there) | (~ours & near))),
        ):
            names += [collection.text_of(keys[place]) for place in np.flatnonzero(which)]
        done += len(keys)
        progress(done)
    return findings
