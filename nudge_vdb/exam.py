"""What is scored, and what the scores depend on, except the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import USUAL_BUDGET, Budget
from nudge_vdb.contract import Metric, Vectors
from nudge_vdb.nudge import Floats, Ints, Method, Pulls


@dataclass(frozen=True, slots=True)
class Exam:
    """nq queries to score, and p pairs of a query and a row that answers it, ordered by query."""

    units: Vectors
    """(nq, d), length 1."""
    lengths: Floats
    """(nq,): the queries' own lengths."""
    query: Ints
    """(p,), ascending."""
    row: Ints
    """(p,): the place among the wanted rows."""
    grades: Floats
    """(p,)"""
    left_out: Floats
    """(p,): the query's weight in the row's pull, taken out before the pair is scored; 0 if it has none."""

    def part(self, first: int, last: int) -> Exam:
        """Return the exam of the queries *first* … *last* − 1 alone."""
        pairs = slice(*np.searchsorted(self.query, [first, last]))
        asked, query = slice(first, last), self.query[pairs] - first
        return Exam(
            self.units[asked], self.lengths[asked], query, self.row[pairs], self.grades[pairs], self.left_out[pairs]
        )


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that the scores depend on, except the step."""

    method: Method
    metric: Metric
    pulls: Pulls
    """On the m wanted rows; a row that answers only queries of an exam has no pull and stays."""
    base: Callable[[slice], Vectors]
    """The raw base vectors of a slice of the wanted rows."""
    order: Floats
    """(m,), in 0 … 1: of two rows with the same score, the one with the larger order stands first."""
    rivals: Floats
    """(nq, K): the scores of the best rows that nobody wants, in order, −inf where there are fewer."""
    budget: Budget = USUAL_BUDGET

    def part(self, first: int, last: int) -> Field:
        """Return the field as the queries *first* … *last* − 1 see it."""
        return replace(self, rivals=self.rivals[first:last])


@dataclass(frozen=True, slots=True)
class Traces:
    """What gives the score of c pairs of a query and a row at any step, each (c,)."""

    query: Ints
    along: Floats
    """q·v"""
    across: Floats
    """q·u"""
    floor: Floats
    length: Floats
    """The row's own length."""
    order: Floats

    def select(self, chosen: slice | NDArray[Any]) -> Traces:
        """Return the pairs *chosen*."""
        return Traces(*(getattr(self, field.name)[chosen] for field in fields(self)))


def joined(parts: list[Traces]) -> Traces:
    """Return *parts* one behind the other."""
    nothing = Traces(np.empty(0, np.int64), *(np.empty(0) for _ in range(5)))
    columns = ([getattr(part, field.name) for part in [nothing, *parts]] for field in fields(Traces))
    return Traces(*(np.concatenate(column) for column in columns))
