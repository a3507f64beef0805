"""For authors of backends: the contract as tests, a collection in memory that keeps it, and faults on demand.

Subclass :class:`CollectionContract`, say how a collection of yours is made, and run pytest. The tests read rows
round the adapter, through the :class:`~nudge_vdb.contract.Fixture` that you supply.
"""

import pytest

for _name in ("asking", "kit", "reads", "searches", "terms", "writes"):
    pytest.register_assert_rewrite(f"nudge_vdb.testing.{_name}")  # before it is imported, so that failures show values

from nudge_vdb.testing.examples import example_rows  # noqa: E402
from nudge_vdb.testing.faults import Faulty  # noqa: E402
from nudge_vdb.testing.kit import CollectionContract  # noqa: E402
from nudge_vdb.testing.memory import MemoryCollection, MemoryFixture, memory_fixture  # noqa: E402

__all__ = [
    "CollectionContract",
    "Faulty",
    "MemoryCollection",
    "MemoryFixture",
    "example_rows",
    "memory_fixture",
]
