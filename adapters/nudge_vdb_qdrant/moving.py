"""What a move does to index and disk of a collection."""

from __future__ import annotations

from qdrant_client.http.models import CollectionInfo

from nudge_vdb.contract import Remark, Traits

BYTES = 4


def advice(info: CollectionInfo, traits: Traits, rows: int, *, local: bool) -> list[Remark]:
    """Say what writing the vectors of *rows* points does."""
    if local:
        return [Remark("index", "local mode has none, so nothing is built anew")]
    megabytes = rows * traits.width * BYTES / 1e6
    disk = Remark("disk", f"about {megabytes:,.1f} MB more until Qdrant has cleared the segments of what was replaced")
    indexed = info.indexed_vectors_count or 0
    if not indexed:
        return [Remark("index", "no vector is indexed now, so nothing is built anew"), disk]
    told = (
        f"{indexed:,} vectors are indexed; the {rows:,} that are written leave the index until Qdrant has built it "
        "anew, which shows as yellow. Searches find them meanwhile, but for those with indexed_only"
    )
    return [Remark("index", told), disk]
