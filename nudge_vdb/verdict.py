"""What the evaluated queries say of a choice, and what would pass where they say no."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nudge_vdb.candidates import Family, Sitting, affordable
from nudge_vdb.matching import Judged
from nudge_vdb.nudge import Method
from nudge_vdb.options import Options
from nudge_vdb.ridge import held_bytes
from nudge_vdb.scoring import Table
from nudge_vdb.selection import Change, Proof, candidates_for, change, mixed, prove, scored_at

Figures = dict[str, Any]
Passing = tuple[Figures, Family, int]
"""The figures of what would pass, and the candidate that it would choose."""

OTHER_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Cold shares that are tried when a plan is stopped."""

ADVICE_SHARE = 0.6
"""What advice may hold of the budget: the plan is there beside it."""
CHEAP = 2e10
"""Products that advice may cost whatever the plan costs: a few seconds."""
FITTED, CARRIED = 8, 60
"""Products of width × width for each row that a fit is without, and rows that are carried for a query."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evaluated queries say of choosing the best candidate; all is cross-fitted."""

    proof: Proof
    """Of the mix."""
    warm: Change
    cold: Change

    @property
    def figures(self) -> Figures:
        """All of it, flat."""
        parts = {"warm": self.warm, "cold": self.cold}
        named = {f"{name}_{key}": value for name, part in parts.items() for key, value in asdict(part).items()}
        return {**asdict(self.proof), **named}


def judge(table: Table, share: float, options: Options) -> Verdict:
    """Return what *table* says of choosing its best candidate for the mix at the cold *share*."""
    mix, confidence, seed = mixed(table, share), options.confidence, options.seed
    chosen = candidates_for(mix, seed, options.first)
    warm, cold = (change(scores[0], scored_at(scores, chosen), confidence, seed) for scores in (table.warm, table.cold))
    proof = prove(mix, confidence, options.min_gain, seed, options.first)
    return Verdict(_stopped(proof, cold, options.max_cold_loss), warm, cold)


def _stopped(proof: Proof, cold: Change, most: float | None) -> Proof:
    """Return *proof*, no longer proven if the cold score falls by more than *most*."""
    if most is None or -cold.gain <= most:
        return proof
    reason = f"the score of rows that nobody judged would fall by {-cold.gain:.4f}, and {most:g} is the most allowed"
    return replace(proof, proven=False, reason=reason)


def alternatives(sitting: Sitting, family: Family, share: float, options: Options) -> Iterator[Passing]:
    """Yield what would pass instead of a plan that was stopped: a smaller step, carrying or not, other cold shares.

    Each is judged by the candidates that are left with the options that it names, and those of the plan.
    """
    same = f" --carry {'on' if family.carrying else 'off'}" if options.carry == "auto" else ""
    yield from _smaller_step(family, share, options, same)
    yield from _other_carry(sitting, family, share, options)
    yield from _other_shares(family, share, options, same)


def _smaller_step(family: Family, share: float, options: Options, same: str) -> Iterator[Passing]:
    """Yield the best smaller step among those that cost rows nobody judged no more than is allowed."""
    cold, most = family.table.cold.mean(axis=1), options.max_cold_loss or 0.0
    kept = family.select(np.flatnonzero(cold >= cold[0] - most))
    step = float(kept.steps[kept.best(share, replace(options, step=None))])
    if 0 < step < family.steps[family.best(share, options)]:
        yield from _passing(
            family.among(np.array([step])), share, replace(options, step=step), f"--step {step:g}{same}"
        )


def _other_carry(sitting: Sitting, family: Family, share: float, options: Options) -> Iterator[Passing]:
    """Yield whether unjudged rows should be carried instead of left, or left instead of carried."""
    if family.carrying:
        yield from _passing(sitting.plain, share, options, "--carry off")
    elif _may_carry(sitting) and left_out(sitting, family) is None:
        other = (
            sitting
            if options.carry == "auto"
            else Sitting.of(sitting.course, sitting.train, replace(options, carry="on"))
        )
        found = list(_passing(other.carried, share, options, "--carry on"))
        yield from found or _first_share(other.carried, _above(share), options, "--carry on ", "")


def _may_carry(sitting: Sitting) -> bool:
    """Tell whether carrying can be chosen: it takes all rows, and keeps lengths."""
    return sitting.course.ground.pages.whole and sitting.options.method == Method.NUDGE_N


def left_out(sitting: Sitting, family: Family) -> str | None:
    """Say why nobody tried whether carrying would pass instead of *family*, None if it was tried or cannot be chosen.

    It holds matrices of width × width, and fits them anew for every query, which may take far more than the plan did.
    """
    if family.carrying or sitting.options.carry == "auto" or not _may_carry(sitting):
        return None
    width, pages = sitting.course.traits.width, sitting.course.ground.pages
    held = held_bytes(width, most_answers(sitting.train))
    if held > ADVICE_SHARE * pages.budget.bytes:
        return f"whether --carry on would pass was not tried: it would hold about {held >> 20:,} MB at once"
    if _products_to_fit(sitting) > max(CHEAP, 2 * len(pages) * len(sitting.places) * width):
        return "whether --carry on would pass was not tried: that would take longer than the plan"
    return None


def _products_to_fit(sitting: Sitting) -> float:
    """Return about how many products it takes to fit the maps without each query that would be scored."""
    width, given = sitting.course.traits.width, len(sitting.train.judgements)
    scored = min(given, sitting.options.max_queries, affordable(len(sitting.course.ground.pages)))
    rows = len(sitting.train.places) / given + CARRIED
    return FITTED * width**2 * (width + scored * rows)


def most_answers(train: Judged) -> int:
    """Return the number of answers of the query that has most."""
    return int(np.bincount(train.judgements.query).max())


def _other_shares(family: Family, share: float, options: Options, same: str) -> Iterator[Passing]:
    """Yield the nearest cold shares below and above *share*."""
    for shares in (_below(share), _above(share)):
        yield from _first_share(family, shares, options, "", same)


def _below(share: float) -> list[float]:
    return [each for each in reversed(OTHER_SHARES) if each < share]


def _above(share: float) -> list[float]:
    return [each for each in OTHER_SHARES if each > share]


def _first_share(family: Family, shares: list[float], options: Options, before: str, behind: str) -> Iterator[Passing]:
    """Yield the first of *shares* that passes."""
    for each in shares:
        if found := list(_passing(family, each, options, f"{before}--cold-share {each:g}{behind}")):
            yield from found
            return


def _passing(family: Family, share: float, options: Options, option: str) -> Iterator[Passing]:
    """Yield the choice from *family*, if it is proven to be better than the base."""
    place = family.best(share, options)
    if place == 0:
        return
    verdict = judge(family.table, share, options)
    if verdict.proof.proven:
        yield {"option": option, **verdict.figures}, family, place
