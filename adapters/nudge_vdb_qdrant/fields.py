"""Which vector field of a collection is meant, and whether it can be tuned."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from qdrant_client import models
from qdrant_client.http.models import CollectionInfo

from nudge_vdb.contract import Metric, Precision
from nudge_vdb.errors import UnfitCollection

METRICS = {
    models.Distance.COSINE: Metric.COSINE,
    models.Distance.DOT: Metric.DOT,
    models.Distance.EUCLID: Metric.EUCLID,
}
PRECISIONS = {models.Datatype.FLOAT32: Precision.SINGLE, models.Datatype.FLOAT16: Precision.HALF}


@dataclass(frozen=True, slots=True)
class Field:
    """A dense vector field; the unnamed one has the name ''."""

    name: str
    width: int
    metric: Metric
    precision: Precision = Precision.SINGLE


@dataclass(frozen=True, slots=True)
class Limits:
    """What the collection's strict mode allows in one request."""

    page: int
    """Points of a scroll."""
    batch: int
    """Points of an update."""
    reads: int | None
    """Reads a minute, None where they are not limited."""
    searches: int = sys.maxsize
    """Searches in one request."""
    ef: int = sys.maxsize
    """Candidates that a search may have in hand."""
    exact: bool = True
    """Whether a search may compare with every point."""


def limits_of(info: CollectionInfo) -> Limits:
    """Return the limits of a collection in strict mode, no limits where it is in none."""
    strict = info.config.strict_mode_config
    if strict is None or not strict.enabled:
        return Limits(sys.maxsize, sys.maxsize, None)
    # A write of more points than the rate allows in a minute would never pass, however long it waits.
    batch = min(strict.upsert_max_batchsize or sys.maxsize, strict.write_rate_limit or sys.maxsize)
    return Limits(
        strict.max_query_limit or sys.maxsize,
        batch,
        strict.read_rate_limit,
        strict.search_max_batchsize or sys.maxsize,
        strict.search_max_hnsw_ef or sys.maxsize,
        strict.search_allow_exact is not False,
    )


def chosen_field(collection: str, info: CollectionInfo, name: str | None) -> Field:
    """Return the field called *name*, or the only dense one if *name* is None.

    Raises:
        UnfitCollection: there is no such field, there are several to choose from, or it cannot be tuned.
    """
    dense = _dense(info)
    sparse = sorted(info.config.params.sparse_vectors or {})
    if name is None and len(dense) == 1:
        name = next(iter(dense))
    if name is None:
        raise UnfitCollection(_choice(collection, sorted(dense), sparse))
    if name in sparse:
        raise UnfitCollection(f"{collection}: {name!r} is a sparse vector; NUDGE moves dense ones")
    if name not in dense:
        have = ", ".join(map(_spoken, sorted(dense))) or "none"
        raise UnfitCollection(f"{collection} has no vector {name!r}; its dense vectors: {have}")
    return _tunable(collection, name, dense[name])


def _dense(info: CollectionInfo) -> dict[str, models.VectorParams]:
    vectors = info.config.params.vectors
    if isinstance(vectors, models.VectorParams):
        return {"": vectors}
    return dict(vectors or {})


def _choice(collection: str, dense: list[str], sparse: list[str]) -> str:
    if dense:
        return f"{collection} has several vectors; choose one with ?vector=NAME: {', '.join(map(_spoken, dense))}"
    held = f"only sparse vectors ({', '.join(sparse)})" if sparse else "no vectors"
    return f"{collection} holds {held}; NUDGE moves dense ones"


def _spoken(name: str) -> str:
    return name or "'' (the unnamed one)"


def _tunable(collection: str, name: str, params: models.VectorParams) -> Field:
    where = f"{collection}, vector {_spoken(name)}"
    if params.multivector_config is not None:
        raise UnfitCollection(f"{where} holds several vectors per row; NUDGE moves single ones")
    datatype = params.datatype or models.Datatype.FLOAT32
    if datatype not in PRECISIONS:
        raise UnfitCollection(f"{where} is stored as {datatype.value}; only float32 and float16 can be tuned")
    if params.distance not in METRICS:
        known = ", ".join(distance.value for distance in METRICS)
        raise UnfitCollection(f"{where} compares by {params.distance.value}; expected one of {known}")
    return Field(name, params.size, METRICS[params.distance], PRECISIONS[datatype])
