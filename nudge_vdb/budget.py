"""One bound for everything that a run holds at once, and what each buffer may take of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from nudge_vdb.errors import BadOption

USUAL = 512 * 10**6
LEAST = 64 * 10**6
"""With less, a few thousand queries and their scores leave no room for rows."""
SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
LARGEST_BLOCK = 8 << 20
"""A block that is gone over more than once is no larger than this, whatever the budget: beyond, caches are left."""


class Share(Enum):
    """The part of the budget that a buffer may take. Not all of them are there at once; together they leave a reserve.

    The judgements themselves are the caller's and are not counted.
    """

    CHUNK = 1 / 32
    """Raw vectors of a chunk of rows; working on them takes up to twelve times as much."""
    SCORES = 1 / 32
    """Scores of queries and a block of rows."""
    RAYS = 1 / 8
    """Paths of some judged rows, and how each query sees them."""
    CONTENDERS = 1 / 4
    """Pairs of a query and a moving row that may reach the first places."""
    PAIRS = 1 / 16
    """Vectors of pairs that are compared one by one."""
    STEPS = 1 / 16
    """Scores of some pairs at every step."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many bytes a run may hold at once, above what the interpreter and the judgements take."""

    bytes: int = USUAL

    def count(self, share: Share, each: int, least: int = 1) -> int:
        """Return how many things of so many bytes *each* fit into *share*, but at least *least*."""
        return max(least, int(self.bytes * share.value) // max(1, each))

    def block(self, share: Share, each: int, least: int = 1) -> int:
        """Return the same for things that are gone over more than once, which should stay in the caches."""
        return min(self.count(share, each, least), max(least, LARGEST_BLOCK // max(1, each)))


USUAL_BUDGET = Budget()


def budget_of(memory: int) -> Budget:
    """Return a budget of so many bytes.

    Raises:
        BadOption: they are too few.
    """
    if memory < LEAST:
        raise BadOption(f"memory {memory!r}: expected {LEAST // 10**6}MB and above")
    return Budget(memory)


def parse_size(text: str) -> int:
    """Read a number of bytes such as ``512MB`` or ``1GiB``.

    Raises:
        BadOption: it is none.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMG]I?)?B?", text.strip().upper())
    if not match:
        raise BadOption(f"memory {text!r}: expected a size such as 512MB or 1GiB")
    return int(float(match[1]) * SIZES[match[2] or ""])
