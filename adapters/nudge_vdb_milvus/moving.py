"""What a move does to index and disk of a collection."""

from __future__ import annotations

from nudge_vdb.contract import Remark
from nudge_vdb_milvus.release import Release


def advice(release: Release, rows: int) -> list[Remark]:
    """Say what writing the vectors of *rows* rows does: Milvus keeps every row that is written as a new one."""
    if release.lite:
        return [Remark("index", "Milvus Lite keeps rows and index in one file, which is ready when a write is")]
    return [
        Remark(
            "index",
            f"the {rows:,} rows that are written come into new segments, where every row is compared until Milvus has "
            "sealed and indexed them",
        ),
        Remark("disk", f"{rows:,} rows take their room twice, all fields included, until Milvus has compacted"),
    ]
