"""For authors of backends: the contract as tests, a collection in memory that keeps it, and faults on demand.

Subclass :class:`CollectionContract`, say how a collection of yours is made, and run pytest. The tests read rows
round the adapter, through the :class:`~nudge_vdb.contract.Fixture` that you supply.
"""

from nudge_vdb.testing.examples import example_rows
from nudge_vdb.testing.faults import Faulty
from nudge_vdb.testing.kit import CollectionContract
from nudge_vdb.testing.memory import MemoryCollection, MemoryFixture, memory_fixture

__all__ = [
    "CollectionContract",
    "Faulty",
    "MemoryCollection",
    "MemoryFixture",
    "example_rows",
    "memory_fixture",
]
