"""Milvus and Milvus Lite for nudge-vdb."""

from nudge_vdb_milvus.collection import MilvusCollection, open_collection

__all__ = ["MilvusCollection", "open_collection"]
