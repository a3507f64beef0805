"""The Qdrant backend of nudge-vdb."""

from nudge_vdb_qdrant.collection import QdrantCollection
from nudge_vdb_qdrant.opening import open_collection

__all__ = ["QdrantCollection", "open_collection"]
