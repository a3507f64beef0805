"""A proposal: what a version would hold, and every figure that speaks for it or against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nudge_vdb.contract import Collection, RowKey
from nudge_vdb.judgements import Judgements
from nudge_vdb.nudge import Floats, Ints
from nudge_vdb.options import Options
from nudge_vdb.planning import (
    Course,
    Ground,
    Judged,
    match,
    moved_rows,
    query_digests,
    sample,
    set_course,
    sit_exam,
    some_queries,
    unlike,
)
from nudge_vdb.ranking import scores
from nudge_vdb.scoring import Table
from nudge_vdb.selection import FEWEST_QUERIES, Proof, choose, prove
from nudge_vdb.snapshot import Content, Version

NO_STEP = "no step is better than the base"


@dataclass(frozen=True)
class Proposal:
    """What a version would hold, and its report."""

    content: Content
    facts: dict[str, Any]


def propose(
    collection: Collection,
    ground: Ground,
    keys: Mapping[str, RowKey],
    judgements: Judgements,
    apart: Mapping[str, Judgements],
    options: Options,
    live: Version | None,
) -> Proposal:
    """Choose a step, prove it, and say what it is worth.

    All of *judgements* train. Those in *apart*, by name, do not: they are only scored. *live* is the version that
    the collection holds now, None where it is at its base.
    """
    train = match(judgements, keys, ground, options)
    held_out = {name: match(given, keys, ground, options) for name, given in apart.items()}
    course = set_course(train, list(held_out.values()), ground, options, collection.traits)
    scored = sample(len(train.judgements), options.max_queries, options.seed)
    exam = sit_exam(course, train, scored, pull=1)
    table = course.table(exam)
    best = choose(table.warm) if options.step is None else 1
    step = float(options.steps[best])
    proof = prove(table.warm, options.confidence, options.min_gain, options.seed)
    content = moved_rows(course, step, np.unique(np.concatenate(query_digests(train.judgements))))
    rivals = _against_live(collection, ground, train, scored, table.warm[best], live, options)
    apart_figures = {
        name: _held_out(collection, course, judged, best, live, options) for name, judged in held_out.items()
    }
    warnings = [
        unlike(course, exam, options.seed),
        _cold_warning(table, best, options),
        *_live_warnings({"scored": rivals, **apart_figures}, live),
    ]
    return Proposal(
        content,
        {
            **_choice(options, step, proof, moves=len(content.keys) > 0),
            "cold_before": float(table.cold[0].mean()),
            "cold_after": float(table.cold[best].mean()),
            "rows": len(ground.pages),
            "queries": len(train.judgements),
            "scored_queries": len(scored),
            "moved": len(content.keys),
            "judged_missing": train.missing,
            "rows_without_vector": ground.pages.absent,
            "rows_not_finite": [collection.text_of(key) for key in ground.pages.keys.at(ground.pages.unfit)],
            "re_embedded": ground.re_embedded,
            "live": rivals,
            **{name: _held_out(collection, course, judged, best, live, options) for name, judged in held_out.items()},
            "warnings": [warning for warning in warnings if warning],
        },
    )


def _choice(options: Options, step: float, proof: Proof, *, moves: bool) -> dict[str, Any]:
    figures = asdict(proof)
    if not moves:
        figures |= {"proven": False, "reason": NO_STEP}
    return {"method": options.method, "step": step, "metric": options.metric, **figures}


def _held_out(
    collection: Collection, course: Course, judged: Judged, best: int, live: Version | None, options: Options
) -> dict[str, Any]:
    """Score queries that did not train: at the base, where the plan puts the rows, and as it is live."""
    queries = np.arange(len(judged.judgements))
    warm = course.table(sit_exam(course, judged, queries, pull=0)).warm
    figures = {"queries": len(queries), "before": float(warm[0].mean()), "after": float(warm[best].mean())}
    if live is not None:
        figures["live"] = float(_live_scores(collection, course.ground, judged.judgements, options).mean())
    return figures


def _against_live(
    collection: Collection,
    ground: Ground,
    train: Judged,
    scored: Ints,
    planned: Floats,
    live: Version | None,
    options: Options,
) -> dict[str, Any]:
    """Compare with the live version, on the queries that neither was trained on when they are scored.

    The plan's scores leave each query out; the live version's cannot, so queries it was trained on do not count.
    """
    if live is None:
        return {"version": 0, "queries": 0}
    names, vectors = query_digests(train.judgements)
    seen = np.isin(names, live.content.seen) | np.isin(vectors, live.content.seen)
    unseen = np.flatnonzero(~seen[scored])
    figures: dict[str, Any] = {"version": live.number, "queries": len(unseen)}
    if len(unseen) >= FEWEST_QUERIES:
        fresh = some_queries(train, scored[unseen]).judgements
        figures["live"] = float(_live_scores(collection, ground, fresh, options).mean())
        figures["after"] = float(planned[unseen].mean())
    return figures


def _live_scores(collection: Collection, ground: Ground, judgements: Judgements, options: Options) -> Floats:
    def texts(places: Ints) -> list[str]:
        return [collection.text_of(key) for key in ground.pages.keys.at(places)]

    table = scores(judgements, ground.live_parts, texts, collection.traits.metric, [options.measure])
    return np.asarray(table[0])


def _cold_warning(table: Table, best: int, options: Options) -> str | None:
    before, after = table.cold[0].mean(), table.cold[best].mean()
    if after >= before - 0.005:
        return None
    return (
        f"rows that nobody judged will be harder to find: a query whose answers were never judged would fall from "
        f"{before:.4f} to {after:.4f} ({options.metric}), since the judged rows move in front of them"
    )


def _live_warnings(figures: Mapping[str, Mapping[str, Any]], live: Version | None) -> list[str]:
    """Say where the live version is better than the plan, and where nothing can be said."""
    if live is None:
        return []
    better = [
        f"version {live.number}, which is live, is better than this plan on the {found['queries']} {name} queries "
        f"that it was not trained on: {found['live']:.4f} against {found['after']:.4f}"
        for name, found in figures.items()
        if "live" in found and found["live"] > found["after"]
    ]
    if any("live" in found for found in figures.values()):
        return better
    return [
        f"version {live.number}, which is live, was trained on these queries, so it cannot be compared with this plan; "
        "give other queries with --test to compare them"
    ]
