"""How the version that is live scores, to hold a plan against it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nudge_vdb.contract import Collection
from nudge_vdb.ground import Ground
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import Floats
from nudge_vdb.options import Options
from nudge_vdb.ranking import scores
from nudge_vdb.selection import FEWEST_QUERIES, change
from nudge_vdb.snapshot import Version

Figures = dict[str, Any]

ROUNDING = 1e-9
"""A difference of two means that says nothing."""


@dataclass(frozen=True)
class Live:
    """The rows as they are now, and the version that put them there."""

    collection: Collection
    ground: Ground
    version: Version
    options: Options
    known: dict[bytes, Floats] = field(default_factory=dict)
    """What queries score that were asked for before, by the digest of their judgements."""

    def compared(self, judgements: Judgements, planned: Floats) -> Figures:
        """Compare with a plan that scores *planned* (nq,), on the queries that the live version was not trained on.

        The plan's scores leave each query out, or never saw it; the live version's cannot, so queries that it was
        trained on do not count. Of fewer than 20 others, only the number is given. The plan is worse where its mean
        over the others is lower.
        """
        unseen = np.flatnonzero(~self.version.content.seen.has(judgements))
        figures: Figures = {"version": self.version.number, "queries": len(unseen)}
        obstacle = self._obstacle()
        if obstacle is not None:
            return {**figures, "reason": obstacle}
        if len(unseen) < FEWEST_QUERIES:
            return figures
        live, after = self._scores(judgements)[unseen], planned[unseen]
        found = change(live, after, self.options.confidence, self.options.seed)
        told = {"live": found.before, "after": found.after, "gain": found.gain}
        ends = {"gain_low": found.gain_low, "gain_high": found.gain_high}
        return {**figures, **told, **ends, "worse": found.gain < -ROUNDING}

    def better(self, judgements: Judgements, planned: Floats) -> bool:
        """Tell whether the live version is better than a plan that scores *planned* (nq,) on *judgements*."""
        return bool(self.compared(judgements, planned).get("worse", False))

    def _obstacle(self) -> str | None:
        """Return why the scores of a query-side form, which searches multiply their queries for, cannot be told."""
        if "query_side_of" not in self.version.manifest:
            return None
        if self.version.content.query_map is None:
            return "it is a query-side form whose matrix is not in the state"
        if not self.ground.pages.whole:
            return "it is a query-side form, and rows were searched for by other queries; --rivals scan reads all rows"
        return None

    def _scores(self, judgements: Judgements) -> Floats:
        digest = hashlib.blake2b(np.ascontiguousarray(judgements.vectors).data, digest_size=16)
        digest.update(repr((judgements.rows, judgements.grades.tobytes())).encode())
        if digest.digest() not in self.known:
            self.known[digest.digest()] = self._scored(judgements)
        return self.known[digest.digest()]

    def _scored(self, judgements: Judgements) -> Floats:
        metric, measure = self.collection.traits.metric, self.options.measure
        sent = as_sent(judgements, self.version.content.query_map)
        ground = self.ground
        return np.asarray(scores(sent, ground.live_parts, ground.texts, metric, [measure], ground.pages.budget)[0])


def as_sent(judgements: Judgements, matrix: Floats | None) -> Judgements:
    """Return *judgements* with the queries that searches send: multiplied by *matrix* (width, width), if any."""
    if matrix is None:
        return judgements
    return replace(judgements, vectors=(judgements.vectors @ matrix.T).astype(np.float32))


def warnings(comparisons: Mapping[str, Figures]) -> list[str]:
    """Say where the live version is better than the plan, or that nothing can be said."""
    known = {name: found for name, found in comparisons.items() if "live" in found}
    if comparisons and not known:
        found = next(iter(comparisons.values()))
        return [
            f"version {found['version']}, which is live, cannot be compared with this plan: {found['reason']}"
            if "reason" in found
            else f"version {found['version']}, which is live, was trained on these queries, so it cannot be compared "
            "with this plan; give other queries with --test to compare them"
        ]
    return [_better(name, found) for name, found in known.items() if found["worse"]]


def obstacle(comparisons: Mapping[str, Figures]) -> str | None:
    """Return why a plan is not proven that is worse than the live version by one of *comparisons*, None if by none."""
    return next((_better(name, found) for name, found in comparisons.items() if found.get("worse")), None)


def _better(name: str, found: Figures) -> str:
    return (
        f"version {found['version']}, which is live, is better than this plan on the {found['queries']} {name} queries "
        f"that it was not trained on: {found['live']:.4f} against {found['after']:.4f}"
    )
