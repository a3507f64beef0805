"""Collections in memory: Milvus answers only for those that are loaded."""

from __future__ import annotations

from pymilvus import MilvusClient
from pymilvus.client.types import LoadState

from nudge_vdb.errors import Refused, UnfitCollection
from nudge_vdb_milvus.failures import is_forbidden, reading

_TIME_TO_LOAD = 600.0


class Loaded:
    """A collection that is in memory for as long as we need it."""

    def __init__(self, client: MilvusClient, collection: str, timeout: float) -> None:
        self._client = client
        self._collection = collection
        self._timeout = timeout
        self._ours = False

    def ensure(self, allowed: bool) -> None:
        """See that the collection is loaded, or load it if that is *allowed*.

        Raises:
            UnfitCollection: it is not loaded, and loading is not allowed.
        """
        if self._is_loaded():
            return
        if not allowed:
            raise UnfitCollection(
                f"collection {self._collection} is not loaded, so its rows cannot be read; load it with "
                "client.load_collection, or add load=true to the address to have it loaded and released again"
            )
        self.once_and_for_all()
        self._ours = True

    def _is_loaded(self) -> bool:
        try:
            with reading(self._collection):
                state = self._client.get_load_state(self._collection, timeout=self._timeout)["state"]
        except Refused as exc:
            if is_forbidden(exc):  # on 2.3 that takes the privilege to load; the first read will tell
                return True
            raise
        return bool(state != LoadState.NotLoad)

    def once_and_for_all(self) -> None:
        """Load the collection, not to be released."""
        with reading(self._collection):
            self._client.load_collection(self._collection, timeout=_TIME_TO_LOAD)

    def undo(self) -> None:
        """Release the collection if it was not loaded before; may be called again."""
        if self._ours:
            self._ours = False
            with reading(self._collection):
                self._client.release_collection(self._collection, timeout=self._timeout)
