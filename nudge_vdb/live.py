"""How the version that is live scores, to hold a plan against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nudge_vdb.contract import Collection
from nudge_vdb.ground import Ground
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import Floats
from nudge_vdb.options import Options
from nudge_vdb.ranking import scores
from nudge_vdb.selection import FEWEST_QUERIES
from nudge_vdb.snapshot import Version

Figures = dict[str, Any]


@dataclass(frozen=True)
class Live:
    """The rows as they are now, and the version that put them there."""

    collection: Collection
    ground: Ground
    version: Version
    options: Options

    def compared(self, judgements: Judgements, planned: Floats) -> Figures:
        """Compare with a plan that scores *planned* (nq,), on the queries that the live version was not trained on.

        The plan's scores leave each query out, or never saw it; the live version's cannot, so queries that it was
        trained on do not count. Of fewer than 20 others, only the number is given.
        """
        unseen = np.flatnonzero(~self.version.content.seen.has(judgements))
        figures: Figures = {"version": self.version.number, "queries": len(unseen)}
        obstacle = self._obstacle()
        if obstacle is not None:
            return {**figures, "reason": obstacle}
        if len(unseen) < FEWEST_QUERIES:
            return figures
        live = self._scores(judgements)[unseen]
        return {**figures, "live": float(live.mean()), "after": float(planned[unseen].mean())}

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
    return [
        f"version {found['version']}, which is live, is better than this plan on the {found['queries']} {name} queries "
        f"that it was not trained on: {found['live']:.4f} against {found['after']:.4f}"
        for name, found in known.items()
        if found["live"] > found["after"]
    ]
