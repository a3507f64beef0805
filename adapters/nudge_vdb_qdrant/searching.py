"""How a search in the index is to look, and how one that leaves it aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qdrant_client import grpc as messages
from qdrant_client import models

from nudge_vdb.contract import Accuracy, Vectors
from nudge_vdb.errors import Refused
from nudge_vdb_qdrant.fields import Limits
from nudge_vdb_qdrant.keys import PointId

Hits = list[tuple[float, PointId]]
"""Points with the engine's scores, best first."""
LEAST_EF = 64
"""An index is walked with at least so many candidates in hand, and with more where more is asked for."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a search is told; with quantized vectors, the original ones have the last word."""

    ef: int | None
    """How many candidates are in hand while the index is walked; None to compare with every point."""

    @classmethod
    def of(cls, accuracy: Accuracy, k: int, limits: Limits) -> Effort:
        """Return what to tell a search for *k* points."""
        return cls(None if accuracy is Accuracy.EXACT else min(max(LEAST_EF, 2 * k), limits.ef))

    @property
    def message(self) -> messages.SearchParams:
        """As gRPC takes it."""
        if self.ef is None:
            return messages.SearchParams(exact=True)
        return messages.SearchParams(hnsw_ef=self.ef, quantization=messages.QuantizationSearchParams(rescore=True))

    @property
    def params(self) -> models.SearchParams:
        """As the client takes it."""
        if self.ef is None:
            return models.SearchParams(exact=True)
        return models.SearchParams(hnsw_ef=self.ef, quantization=models.QuantizationSearchParams(rescore=True))


def portions(queries: Vectors, limits: Limits) -> Iterator[Vectors]:
    """Yield *queries* in as many requests as strict mode wants them in."""
    for first in range(0, len(queries), limits.searches):
        yield queries[first : first + limits.searches]


def refuse(collection: str, k: int, accuracy: Accuracy, limits: Limits) -> None:
    """Refuse a search that strict mode would not let through."""
    if k > limits.page:
        raise Refused(
            f"{collection}: a search for {k} points is more than strict mode allows (max_query_limit={limits.page}); "
            "raise that limit"
        )
    if accuracy is Accuracy.EXACT and not limits.exact:
        raise Refused(f"{collection}: strict mode forbids exact searches; set its search_allow_exact to true")
