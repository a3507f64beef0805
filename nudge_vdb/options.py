"""What a user may choose, with ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from nudge_vdb.budget import USUAL, Budget, budget_of
from nudge_vdb.contract import Ability, Metric, Traits
from nudge_vdb.errors import BadOption
from nudge_vdb.metrics import Measure, parse_measure
from nudge_vdb.nudge import STEPS, Floats, Method

SEARCHES = ("search", "exact")
"""The ways of finding rivals that leave the rows where they are."""

USUAL_MAX_ROWS = 1_000_000


class Choices(TypedDict, total=False):
    """The fields of :class:`Options`, as keyword arguments."""

    metric: str
    method: str
    step: float | None
    grades: bool
    cold_share: float | None
    max_cold_loss: float | None
    carry: str
    max_rows: int | None
    rivals: str
    min_gain: float
    confidence: float
    max_queries: int
    seed: int
    memory: int


@dataclass(frozen=True, slots=True)
class Options:
    """How to tune.

    Raises:
        BadOption: a value outside its range; the message names it and the range.
    """

    metric: str = "ndcg@10"
    """What scores are measured by: ndcg@K, recall@K, mrr@K or precision@K."""
    method: str = "nudge-n"
    step: float | None = None
    """A fixed γ instead of the best one; above 0, up to 2 for nudge-n and 100 for nudge-m."""
    grades: bool = False
    """Whether grades weigh the pulls and the metric; without, every grade above 0 is 1."""
    cold_share: float | None = None
    """ρ, the share of searches for rows that nobody judged; None is 0.3, or the share of the rows in scope that nobody
    judged where that is less.

    The plan maximises (1 − ρ)·warm + ρ·cold, and is proven by it.
    """
    max_cold_loss: float | None = None
    """A plan that takes more than this from the cold score, in the metric's units, is not proven."""
    carry: str = "off"
    """Whether rows that nobody judged are carried along: off, on, or auto: if that is provably better."""
    max_rows: int | None = None
    """With carry auto, rows are carried only if no more rows than this are written; None is 1,000,000."""
    rivals: str = "auto"
    """How rivals are found: scan, search (by the engine's index), exact (by the engine, row by row), or auto."""
    min_gain: float = 0.0
    """The lower end of the interval of the gain must be above this, in the metric's units."""
    confidence: float = 0.95
    max_queries: int = 2000
    """How many queries are scored, drawn at random where there are more; all of them train."""
    seed: int = 0
    memory: int = USUAL
    """Bytes that planning may hold at once beside the interpreter and the judgements; it does not change the plan."""

    def __post_init__(self) -> None:
        parse_measure(self.metric)
        if self.method not in set(Method):
            raise BadOption(f"method {self.method!r}: expected one of {', '.join(Method)}")
        _within("min_gain", self.min_gain, 0 <= self.min_gain < 1, "0 up to, but not, 1")
        if self.carry not in ("off", "on", "auto"):
            raise BadOption(f"carry {self.carry!r}: expected off, on or auto")
        if self.carry != "off" and self.method != Method.NUDGE_N:
            raise BadOption(f"carry {self.carry} needs method nudge-n, since {self.method} changes lengths")
        if self.rivals not in ("auto", "scan", *SEARCHES):
            raise BadOption(f"rivals {self.rivals!r}: expected auto, scan, search or exact")
        if self.carry != "off" and self.rivals in SEARCHES:
            raise BadOption(f"rivals {self.rivals} finds some of the rows and carry {self.carry} needs all: use scan")
        if self.max_rows is not None:
            _within("max_rows", self.max_rows, self.max_rows >= 0, "0 and above")
            if self.carry != "auto":
                raise BadOption(
                    f"max_rows {self.max_rows:,} limits carry auto and nothing else, and carry is {self.carry}; "
                    "give --carry auto, or leave --max-rows out"
                )
        _within("cold_share", self.cold_share, self.cold_share is None or 0 <= self.cold_share <= 1, "0 to 1")
        most = self.max_cold_loss
        _within("max_cold_loss", most, most is None or 0 <= most <= 1, "0 to 1")
        _within("confidence", self.confidence, 0.5 <= self.confidence < 1, "0.5 up to, but not, 1")
        _within("max_queries", self.max_queries, self.max_queries >= 1, "1 and above")
        _within("seed", self.seed, self.seed >= 0, "0 and above")
        budget_of(self.memory)
        if self.step is not None:
            farthest = 2.0 if self.method == Method.NUDGE_N else 100.0
            _within("step", self.step, 0 < self.step <= farthest, f"above 0 up to {farthest:g} for {self.method}")

    @property
    def budget(self) -> Budget:
        """What may be held at once."""
        return budget_of(self.memory)

    @property
    def measure(self) -> Measure:
        """The metric, read."""
        return parse_measure(self.metric)

    @property
    def steps(self) -> Floats:
        """The steps to try, the first of which is 0."""
        return STEPS[Method(self.method)] if self.step is None else np.array([0.0, self.step])

    @property
    def most_rows(self) -> int:
        """How many rows may be written where carry is auto."""
        return USUAL_MAX_ROWS if self.max_rows is None else self.max_rows

    @property
    def first(self) -> int:
        """The place of the first candidate that may be chosen: 0, which is the base, or 1 where the step is given."""
        return 0 if self.step is None else 1

    def fit(self, traits: Traits) -> None:
        """Refuse what makes no sense on a collection with these *traits*."""
        if self.method == Method.NUDGE_M and (traits.rescales or traits.metric is not Metric.DOT):
            raise BadOption(
                f"nudge-m changes the length of vectors, and {traits.identity} compares by {traits.metric.value}, "
                "which would undo or misread that; use --method nudge-n, or a collection that compares by inner product"
            )
        if self.rivals == "exact" and Ability.EXACT_SEARCH not in traits.abilities:
            raise BadOption(
                f"rivals exact: {traits.engine} cannot be made to compare a query with every row of {traits.identity}; "
                "use --rivals scan, or --rivals search"
            )


def _within(name: str, value: object, inside: bool, expected: str) -> None:
    if not inside:
        raise BadOption(f"{name} {value!r}: expected {expected}")
