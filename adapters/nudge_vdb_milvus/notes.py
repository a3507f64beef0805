"""Notes that stay with a collection, among the properties that Milvus keeps for it."""

from __future__ import annotations

from pymilvus import MilvusClient

from nudge_vdb.errors import Refused
from nudge_vdb_milvus.failures import reading

PREFIX = "nudge_vdb"
"""What the names of all notes begin with, and those of no other property."""


class Notes:
    """The notes of one collection."""

    def __init__(self, client: MilvusClient, collection: str, timeout: float) -> None:
        self._client = client
        self._collection = collection
        self._timeout = timeout

    def all(self) -> dict[str, str]:
        """Return every note by its name."""
        with reading(self._collection):
            held = self._client.describe_collection(self._collection, timeout=self._timeout).get("properties") or {}
        return {name: text for name, text in held.items() if name.startswith(PREFIX) and text}

    def leave(self, name: str, text: str) -> bool:
        """Keep *text* under *name*, "" for no longer anything; False where Milvus does not allow it."""
        if not text and name not in self.all():
            return True
        # A server before 2.5 cannot remove a property, so an empty one counts as none.
        try:
            with reading(self._collection):
                self._client.alter_collection_properties(self._collection, {name: text}, timeout=self._timeout)
        except Refused:
            return False
        return self.all().get(name, "") == text
