"""The rows that a plan is made on: all of a collection, paged out, or those that a search in it finds, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nudge_vdb.contract import Ability, Accuracy, Collection, RowKey, Traits, Vectors
from nudge_vdb.errors import BadOption, Refused, TooLarge
from nudge_vdb.gather import SPARES, Gathering, tried
from nudge_vdb.judgements import Judgements
from nudge_vdb.lineage import Lineage
from nudge_vdb.matching import evaluated, usable
from nudge_vdb.options import Options
from nudge_vdb.pages import Filling, Pages, forget, page_out
from nudge_vdb.phases import Phases

TIED = 10
"""How many rows beyond the cutoff are had of each query, so that equal ones can be put in order: a search takes longer
the more it is asked for."""
FEW_ROWS = 200_000
"""Up to so many rows, a scan takes seconds, and auto takes the scan."""
MUCH = 0.5
"""Where a search would touch more than this share of the rows, auto takes the scan."""
NEARLY_ALL = 0.9
"""Where more than this share of the rows may move, there is nothing to search for."""
GOOD_RECALL = 0.95
"""An index that finds less of the best rows makes rivals weaker than they are."""
ACCURACIES = {"search": Accuracy.INDEX, "exact": Accuracy.EXACT}


@dataclass(frozen=True, slots=True)
class Manner:
    """How rivals are found."""

    name: str
    """scan, search or exact."""
    reason: str
    """Why so, in words."""
    recall: float | None = None
    """Share of the best rows that the index finds, where it is used and that can be told."""
    spare: float = SPARES[0]
    """How many times as many rows as are needed are asked for."""


@dataclass(frozen=True)
class Survey:
    """The rows that a plan is made on."""

    pages: Pages
    facts: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Extent:
    """How many rows a search would touch, and of how many."""

    rows: int
    """In the scope, about."""
    named: int
    """That are judged or were ever moved."""
    best: int
    """That would be searched for, at most."""


@dataclass(frozen=True)
class Surveyor:
    """What finds the rows of a collection for a plan."""

    collection: Collection
    folder: Path
    """Where rows are copied to."""
    lineage: Lineage
    keys: Mapping[str, RowKey]
    """Of the judged rows, by id."""
    options: Options
    phases: Phases

    def survey(self, train: Judgements, apart: Mapping[str, Judgements]) -> Survey:
        """Return the rows for a plan that trains on *train*, and scores those in *apart*.

        Raises:
            BadOption: a search was asked for where nearly all rows may move.
            Refused: a search was asked for, and the engine does not let it through.
        """
        extent = self._extent(train, apart)
        manner = chosen(self.options, self.collection.traits, extent)
        if manner.name == "scan":
            return self._scanned(manner)
        try:
            return self._searched(manner, extent, train, apart)
        except (Refused, TooLarge) as exc:
            if self.options.rivals != "auto":
                raise Refused(f"{exc}; --rivals scan finds rivals without a search") from exc
            return self._scanned(Manner("scan", f"a search was given up: {exc}"))

    def _extent(self, train: Judgements, apart: Mapping[str, Judgements]) -> Extent:
        queries = min(len(train), self.options.max_queries) + sum(map(len, apart.values()))
        moved, judged = self.lineage.keys(), set(self.keys.values())
        named = len(moved) + int((moved.find(judged) < 0).sum())
        return Extent(self.collection.count(), named, queries * self._depth)

    @property
    def _depth(self) -> int:
        """How many rows that are not named are needed of each query."""
        return self.options.measure.k + TIED

    def _scanned(self, manner: Manner) -> Survey:
        with self.phases("page out", self.collection.count()) as step:
            pages = page_out(self.collection, self.folder, step, self.options.budget)
        return Survey(pages, _facts(manner, pages))

    def _searched(self, manner: Manner, extent: Extent, train: Judgements, apart: Mapping[str, Judgements]) -> Survey:
        filling, named = Filling(self.folder, self.collection.traits), {*self.lineage.keys(), *self.keys.values()}
        most = extent.rows if self.options.rivals == "auto" else math.inf
        gathering = Gathering(self.collection, named, self._depth, filling, most)
        try:
            with self.phases("fetch", len(named)):
                there = gathering.fetch(sorted(named))
            queries = self._queries(dict.fromkeys(there, 0), train, apart)
            with self.phases("search", len(queries)) as step:
                manner = self._tried(manner, queries)
                gathering.add_best(queries, ACCURACIES[manner.name], manner.spare, step)
        except BaseException:
            forget(self.folder)
            raise
        pages = filling.pages(extent.rows, self.options.budget)
        return Survey(pages, _facts(manner, pages), _doubts(manner, self._depth))

    def _queries(self, there: Mapping[RowKey, int], train: Judgements, apart: Mapping[str, Judgements]) -> Vectors:
        """Return the vectors of all queries that will be scored, given the judged rows that are *there*."""
        scored = usable(train, self.keys, there, self.options)
        others = [usable(each, self.keys, there, self.options).judgements.vectors for each in apart.values()]
        return np.concatenate([scored.judgements.vectors[evaluated(scored, self.options)], *others])

    def _tried(self, manner: Manner, queries: Vectors) -> Manner:
        """Return *manner* with the recall of the index; where nobody asked for the index and it is poor, without it."""
        if manner.name == "exact":
            return manner
        spare, recall = tried(self.collection, queries, self._depth)
        if self.options.rivals == "auto" and recall is not None and recall < GOOD_RECALL:
            return Manner("exact", f"the index finds only {recall:.3f} of the best {self._depth} rows of a query")
        return replace(manner, recall=recall, spare=spare)


def chosen(options: Options, traits: Traits, extent: Extent) -> Manner:
    """Return how rivals are to be found.

    Raises:
        BadOption: by search, and nearly all rows may move, as after they were carried.
    """
    share = extent.named / max(1, extent.rows)
    if options.rivals == "scan":
        return Manner("scan", "asked for")
    if options.rivals in ACCURACIES:
        if share > NEARLY_ALL:
            raise BadOption(
                f"rivals {options.rivals}: {extent.named:,} of about {extent.rows:,} rows are judged or were moved "
                "before, so there is next to nothing to search for; use --rivals scan"
            )
        return Manner(options.rivals, "asked for")
    if options.carry != "off":
        return Manner("scan", f"carry {options.carry} needs all rows")
    if Ability.SERVER not in traits.abilities:
        return Manner("scan", "the rows are in this process")
    if extent.rows <= FEW_ROWS:
        return Manner("scan", f"{extent.rows:,} rows are few")
    if extent.named + extent.best > MUCH * extent.rows:
        touched = f"{extent.named:,} rows that are judged or were moved, and up to {extent.best:,} others"
        return Manner("scan", f"a search would read {touched}, of {extent.rows:,}")
    return Manner("search", f"{extent.rows:,} rows are many")


def _facts(manner: Manner, pages: Pages) -> dict[str, Any]:
    return {
        "rivals": manner.name,
        "rivals_reason": manner.reason,
        "rivals_recall": manner.recall,
        "rows_read": len(pages),
    }


def _doubts(manner: Manner, depth: int) -> list[str]:
    """Say where a search may have missed rivals, so that the figures are too good."""
    if manner.name != "search" or (manner.recall is not None and manner.recall >= GOOD_RECALL):
        return []
    if manner.recall is None:
        return [
            "how many of the best rows the engine's index finds cannot be measured here; what it misses makes the "
            "gain look larger than it is, and --rivals scan misses nothing"
        ]
    return [
        f"the engine's index finds only {manner.recall:.3f} of the best {depth} rows of a query, which makes the gain "
        "look larger than it is; use --rivals exact or --rivals scan"
    ]
