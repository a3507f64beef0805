"""A proposal: what a version would hold, and every figure that speaks for it or against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nudge_vdb import hubs
from nudge_vdb import live as live_version
from nudge_vdb.choice import Choice, choose_step
from nudge_vdb.contract import Collection, RowKey
from nudge_vdb.foreign import shown
from nudge_vdb.ground import Ground
from nudge_vdb.judgements import Judgements
from nudge_vdb.live import Live
from nudge_vdb.matching import Judged, match
from nudge_vdb.nudge import Floats
from nudge_vdb.options import Options
from nudge_vdb.placing import Placement, moved, placed, refuse_vanishing
from nudge_vdb.planning import Course, set_course, sit_exam, unlike
from nudge_vdb.ranking import QUERIES_AT_ONCE
from nudge_vdb.ridge import held_bytes
from nudge_vdb.seen import Seen
from nudge_vdb.snapshot import Content, Version
from nudge_vdb.survey import TIED
from nudge_vdb.ties import tied_queries

NO_STEP = "no step is better than the base"
STRANGE = "the judged rows are no nearer to their queries than others are, so a gain on these queries says nothing"
COLD_FALL = 0.005
"""A fall of the cold score that is worth a word."""


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
    now = None if live is None else Live(collection, ground, live, options)
    choice = choose_step(course, train, options, now)
    placement = placed(choice)
    content = moved(choice, placement, Seen.of(judgements))
    refuse_vanishing(content, choice.step, ground.text_of)
    strange = unlike(choice.course, choice.exam, options.seed)
    apart_figures = {name: _held_out(course, judged, choice, placement, now) for name, judged in held_out.items()}
    scored_now = now.compared(choice.scored.judgements, choice.warm) if now else None
    comparisons = {"scored": scored_now, **{name: found.get("against_live") for name, found in apart_figures.items()}}
    known = {name: found for name, found in comparisons.items() if found}
    worse = [name for name, found in known.items() if found.get("worse")]
    if strange or set(worse) & set(held_out):
        choice = replace(choice, alternatives=[])  # they were not held against these queries
    beaten, moves = live_version.obstacle(known), len(content.keys) > 0
    obstacles = [each for each in (beaten, strange and STRANGE, None if moves else NO_STEP) if each]
    return Proposal(
        content,
        {
            **_gain(choice, options, obstacles),
            "rows": ground.pages.rows,
            "queries": len(train.judgements),
            "scored_queries": len(choice.exam.units),
            "moved": len(content.keys),
            "carried": 0 if placement is None else len(content.keys) - len(choice.course.wanted),
            "judged_missing": train.missing,
            "unanswered": len(judgements.unanswered),
            **_left_aside(ground),
            "against_live": scored_now,
            **apart_figures,
            "warnings": [
                *(
                    warning
                    for warning in (strange, _cold_fall(choice, options), _tied(choice, options), _too_wide(choice))
                    if warning
                ),
                *_overlaps(judgements, held_out),
                *_unanswered({"judgements": judgements, **apart}),
                *hubs.warnings(judgements),
                *_at_base_again(ground, live),
                *live_version.warnings(known),
            ],
        },
    )


def _gain(choice: Choice, options: Options, obstacles: list[str]) -> dict[str, Any]:
    found = choice.verdict.figures
    if obstacles:
        found |= {"proven": False, "reason": obstacles[-1]}
    carry = choice.carry
    return {
        "method": options.method,
        "step": choice.step,
        **choice.carrying,
        "reach": None if carry is None else carry.reach,
        "ridge": None if carry is None else carry.ridge,
        "metric": options.metric,
        "grades": options.grades,
        "min_gain": options.min_gain,
        "confidence": options.confidence,
        "cold_share": choice.share.value,
        "cold_share_reason": choice.share.reason,
        "cold_rows": choice.share.exists,
        "max_cold_loss": options.max_cold_loss,
        **found,
        "alternatives": choice.alternatives,
        "alternatives_left_out": choice.left_out,
    }


def _left_aside(ground: Ground) -> dict[str, Any]:
    """List the rows that take no part, or a new one; None where not every row was looked at."""
    pages = ground.pages
    return {
        "rows_without_vector": pages.absent if pages.whole else None,
        "rows_not_finite": ground.texts(pages.unfit) if pages.whole else None,
        "re_embedded": ground.re_embedded,
        "at_base_again": ground.at_base_again,
    }


def _held_out(
    course: Course, judged: Judged, choice: Choice, placement: Placement | None, now: Live | None
) -> dict[str, Any]:
    """Score queries that did not train: at the base, where the plan puts the rows, and as they are now."""
    before, after = _plain_scores(course, judged, choice) if placement is None else placement.scores(judged.judgements)
    figures: dict[str, Any] = {
        "queries": len(judged.judgements),
        "before": float(before.mean()),
        "after": float(after.mean()),
        "missing": judged.missing,
    }
    return {**figures, "against_live": now.compared(judged.judgements, after)} if now else figures


def _plain_scores(course: Course, judged: Judged, choice: Choice) -> tuple[Floats, Floats]:
    """Return what each query scores at the base, and where the plan puts the rows that it moves."""
    steps, queries = np.array([0.0, choice.step]), np.arange(len(judged.judgements))
    parts = np.split(queries, range(QUERIES_AT_ONCE, len(queries), QUERIES_AT_ONCE))
    tables = [course.table(sit_exam(course, judged, part, pull=0), steps).warm for part in parts]
    before, after = np.concatenate(tables, axis=1)
    return before, after


def _overlaps(train: Judgements, held_out: Mapping[str, Judged]) -> list[str]:
    """Say where queries that should be held out train as well."""
    if not held_out:
        return []
    known = Seen.of(train)
    doubled = {name: int(known.has(each.judgements).sum()) for name, each in held_out.items()}
    return [
        f"{count} of the {name} queries train as well, so the {name} score says little about new queries"
        for name, count in doubled.items()
        if count
    ]


def _unanswered(given: Mapping[str, Judgements]) -> list[str]:
    """Say which queries have no part in anything, since all that was judged for them is not relevant."""
    return [
        f"{len(each.unanswered):,} queries of the {name} have no grade above 0, such as {shown(each.unanswered[0])}: "
        "all their rows were judged not relevant, so they train nothing and are not scored"
        for name, each in given.items()
        if each.unanswered
    ]


def _at_base_again(ground: Ground, live: Version | None) -> list[str]:
    """Say that rows of the live version have fallen back, which no plan changes unless it is applied."""
    if live is None or not ground.at_base_again:
        return []
    return [
        f"{ground.at_base_again:,} rows of version {live.number}, which is live, are at their base again (written by "
        f"another): applying a plan, or 'nudge-vdb apply ADDRESS {live.number}', puts them back"
    ]


def _tied(choice: Choice, options: Options) -> str | None:
    """Say where equal rows may not all have been found; where all rows were read, they were."""
    if choice.course.ground.pages.whole:
        return None
    tied = len(tied_queries(choice.course.rivals(choice.exam), options.measure.k + TIED))
    if not tied:
        return None
    return (
        f"{tied} of the scored queries have more equal rows around the last place that counts than were searched for, "
        "so their scores may differ from those of evaluate and trec_eval; --rivals scan reads all rows"
    )


def _too_wide(choice: Choice) -> str | None:
    """Say where carrying, which was asked for, holds more than it should."""
    held = held_bytes(choice.course.traits.width, int(np.bincount(choice.exam.query).max()))
    most = choice.course.ground.pages.budget.bytes
    if choice.carry is None or held <= most:
        return None
    return f"carrying holds about {held >> 20:,} MB at once, more than --memory, which is {most >> 20:,} MB"


def _cold_fall(choice: Choice, options: Options) -> str | None:
    cold = choice.verdict.cold
    if cold.gain >= -COLD_FALL or not choice.share.exists or not choice.step:
        return None
    return (
        "rows that nobody judged will be harder to find: a query whose answers were never judged would fall from "
        f"{cold.before:.4f} to {cold.after:.4f} ({options.metric}), since the judged rows move in front of them; this "
        "is an estimate from judged rows as if nobody had judged them, and rows unlike those may lose much less"
    )
