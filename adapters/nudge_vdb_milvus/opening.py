"""What has to be known and true of a collection before it can be worked on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymilvus import MilvusClient, MilvusException

from nudge_vdb.contract import Ability, Traits
from nudge_vdb.errors import BadAddress, Refused, UnfitCollection
from nudge_vdb_milvus.endpoint import Endpoint
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.fitness import Description, Shape, metric_of, require_ids_of_its_own, require_rewritable
from nudge_vdb_milvus.merging import LITE_PRICE, TOLERANCE, rows_fetched_while_one_is_written
from nudge_vdb_milvus.release import Release, require_upsert
from nudge_vdb_milvus.scope import Bounds
from nudge_vdb_milvus.searching import Index
from nudge_vdb_milvus.sources import Source
from nudge_vdb_milvus.wire import LATEST


def described(client: MilvusClient, collection: str, release: Release, timeout: float) -> Description:
    """Return what Milvus says of *collection*, which may be an alias.

    Raises:
        UnfitCollection: there is no such collection.
        Refused: the engine is too old to replace a row.
    """
    require_upsert(release)
    with reading(collection):
        if not client.has_collection(collection, timeout=timeout):
            known = ", ".join(sorted(client.list_collections(timeout=timeout))) or "none"
            raise UnfitCollection(f"there is no collection {collection}; collections here: {known}")
        description: Description = client.describe_collection(collection, timeout=timeout)
    return description


def index_of(client: MilvusClient, shape: Shape, timeout: float) -> Mapping[str, Any] | None:
    """Return what Milvus says of the index on the vector field, None where there is none."""
    with reading(shape.collection):
        names = client.list_indexes(shape.collection, shape.vector, timeout=timeout)
        return client.describe_index(shape.collection, names[0], timeout=timeout) if names else None


def traits_of(endpoint: Endpoint, shape: Shape, bounds: Bounds, release: Release, index: Any) -> Traits:  # noqa: ANN401
    """Return the traits of a collection whose vectors are compared as *index* says.

    Raises:
        UnfitCollection: there is no index, or its metric has no meaning for dense vectors.
    """
    # Milvus Lite stores zeros where a vector was left out, and keeps no note of it.
    gaps = {Ability.GAPS} if shape.nullable and not release.lite else set()
    away = set() if release.lite else {Ability.SERVER}
    exact = {Ability.EXACT_SEARCH} if Index.of(index or {}).exact else set()
    return Traits(
        collection=endpoint.name_of(shape.collection),
        vector=shape.vector,
        engine=str(release),
        width=shape.width,
        metric=metric_of(shape, index),
        rescales=False,
        tolerance=TOLERANCE,
        scope=bounds.conditions,
        abilities=frozenset({Ability.NOTES, Ability.GUARDED} | gaps | exact | away),
        writing=LITE_PRICE if release.lite else rows_fetched_while_one_is_written(shape.width),
    )


def require_kept(shape: Shape, description: Description, release: Release) -> None:
    """Refuse a collection of which this engine would lose something when rows are written.

    Raises:
        UnfitCollection: rows would go to wrong partitions, or fields could not be sent back as they were read.
    """
    if shape.partition_key is not None and release.scatters_by_key:
        raise UnfitCollection(
            f"collection {shape.collection} is spread over partitions by the field {shape.partition_key}, and "
            f"{release} moves such rows to wrong partitions when they are written (milvus#30607), where searches "
            f"by {shape.partition_key} do not find them; upgrade to Milvus 2.4 or later"
        )
    if not release.lite:  # which keeps the id of a row that is updated
        require_ids_of_its_own(description)
    if not release.merges:
        require_rewritable(description)


def require_partition(client: MilvusClient, shape: Shape, partition: str, timeout: float) -> None:
    """Refuse the name of a *partition* that there is not; an empty name is all of them."""
    if not partition:
        return
    with reading(shape.collection):
        known = sorted(client.list_partitions(shape.collection, timeout=timeout))
    if partition not in known:
        raise BadAddress(
            f"option partition={partition}: collection {shape.collection} has no such partition; "
            f"its partitions: {', '.join(known)}"
        )


def require_filter(source: Source, bounds: Bounds) -> None:
    """Refuse conditions that Milvus does not understand, now and not in the middle of a run."""
    # By itself, too: in parentheses with others, one that closes them too early would mean other rows.
    for expression in dict.fromkeys((bounds.given, bounds.expression)):
        if expression:
            _require_understood(source, expression, bounds.partition)


def _require_understood(source: Source, expression: str, partition: str) -> None:
    try:
        source.pks(expression, partition, LATEST, {"limit": "1"})
    except Refused as exc:
        if isinstance(exc.__cause__, MilvusException):
            raise BadAddress(f"Milvus does not understand the condition {expression}: {exc.__cause__.message}") from exc
        raise
