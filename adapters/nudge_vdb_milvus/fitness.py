"""Whether a collection can be tuned, and what its rows look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymilvus import DataType

from nudge_vdb.contract import Metric
from nudge_vdb.errors import UnfitCollection
from nudge_vdb_milvus.columns import CARRIED
from nudge_vdb_milvus.keys import Pk

Description = Mapping[str, Any]
"""What ``describe_collection`` returns."""

_DYNAMIC = "$meta"
_METRICS = {"COSINE": Metric.COSINE, "IP": Metric.DOT, "L2": Metric.EUCLID}
_WHY_NOT = {
    DataType.FLOAT16_VECTOR: ", which rounds away most of what a step moves",
    DataType.BFLOAT16_VECTOR: ", which rounds away most of what a step moves",
    DataType.INT8_VECTOR: ", which rounds away most of what a step moves",
    DataType.BINARY_VECTOR: ", whose bits cannot be moved by a step",
    DataType.SPARSE_FLOAT_VECTOR: ", whose terms a step would fill in",
}
_KINDS: dict[DataType, type[Pk]] = {DataType.INT64: int, DataType.VARCHAR: str}


@dataclass(frozen=True, slots=True)
class Shape:
    """The primary key and the vector field of a collection that can be tuned."""

    collection: str
    """Its own name, never an alias."""
    pk: str
    kind: type[Pk]
    vector: str
    width: int
    nullable: bool
    """Whether rows may lack the vector."""
    partition_key: str | None
    """The field that Milvus spreads rows over partitions by; None where partitions are named by people."""
    undivided: bool
    """Whether there is only the default partition."""
    elements: Mapping[str, int | None]
    """The fields that a row read whole must hold, each with the type of its elements, None for all but ARRAYs."""


def shape_of(description: Description, vector: str | None) -> Shape:
    """Return the shape of the collection described, with *vector* or else its only dense field as the vector.

    Raises:
        UnfitCollection: no such field, several, or one that holds something else.
    """
    name, fields = description["collection_name"], description["fields"]
    pk = next(field for field in fields if field.get("is_primary"))
    chosen = _vector_field(name, fields, vector)
    return Shape(
        collection=name,
        pk=pk["name"],
        kind=_KINDS[pk["type"]],
        vector=chosen["name"],
        width=int(chosen["params"]["dim"]),
        nullable=bool(chosen.get("nullable")),
        partition_key=next((field["name"] for field in fields if field.get("is_partition_key")), None),
        undivided=description.get("num_partitions") == 1,
        elements=_elements(description),
    )


def require_ids_of_its_own(description: Description) -> None:
    """Refuse a collection whose ids Milvus makes.

    Raises:
        UnfitCollection: it does.
    """
    pk = next(field for field in description["fields"] if field.get("is_primary"))
    if description.get("auto_id") or pk.get("auto_id"):
        raise UnfitCollection(
            f"collection {description['collection_name']} lets Milvus make its ids, and then an update gives a row a "
            "new id; copy it into a collection with ids of your own"
        )


def require_rewritable(description: Description) -> None:
    """Refuse a collection whose rows cannot be sent back whole just as they were read.

    Raises:
        UnfitCollection: a field of a type that is not carried, or one that may be empty or is filled by Milvus.
    """
    for field in [*description["fields"], *description.get("struct_array_fields", ())]:
        # From 2.4 on, these are read in one form and written in another, and no such server was at hand.
        uncertain = field.get("nullable") or field.get("is_function_output")
        if field.get("type") not in CARRIED or uncertain:
            raise UnfitCollection(
                f"field {field['name']} ({_type(field)}) of collection {description['collection_name']} cannot be "
                "written back as it was read, which this Milvus needs; upgrade to Milvus 2.6.2 or later"
            )


def metric_of(shape: Shape, index: Mapping[str, Any] | None) -> Metric:
    """Return the metric of *index*, what ``describe_index`` says of the index on the vector field.

    Raises:
        UnfitCollection: there is no index, or its metric has no meaning for dense vectors.
    """
    field = f"field {shape.vector} of collection {shape.collection}"
    if index is None:
        raise UnfitCollection(f"{field} has no index, so its metric is not known; create one with client.create_index")
    metric = _METRICS.get(index["metric_type"].upper())
    if metric is None:
        raise UnfitCollection(f"{field} is compared by {index['metric_type']}; expected one of {', '.join(_METRICS)}")
    return metric


def _vector_field(collection: str, fields: Sequence[Description], name: str | None) -> Description:
    if name is not None:
        return _named_field(collection, fields, name)
    dense = [field for field in fields if field["type"] == DataType.FLOAT_VECTOR]
    if len(dense) != 1:
        raise UnfitCollection(
            f"collection {collection} has {len(dense)} dense vector fields; name the one to tune with vector=; "
            f"its fields: {_listed(fields)}"
        )
    return _writable(collection, dense[0])


def _named_field(collection: str, fields: Sequence[Description], name: str) -> Description:
    field = next((field for field in fields if field["name"] == name), None)
    if field is None:
        raise UnfitCollection(f"collection {collection} has no field {name}; its fields: {_listed(fields)}")
    if field["type"] != DataType.FLOAT_VECTOR:
        raise UnfitCollection(
            f"field {name} of collection {collection} is {_type(field)}{_WHY_NOT.get(field['type'], '')}; "
            f"expected FLOAT_VECTOR; its fields: {_listed(fields)}"
        )
    return _writable(collection, field)


def _writable(collection: str, field: Description) -> Description:
    if field.get("is_function_output"):
        raise UnfitCollection(
            f"field {field['name']} of collection {collection} is computed by Milvus and cannot be written; "
            "name a field that is filled by its writers"
        )
    return field


def _elements(description: Description) -> dict[str, int | None]:
    stored = [field for field in description["fields"] if not field.get("is_function_output")]
    dynamic = {_DYNAMIC: None} if description.get("enable_dynamic_field") else {}
    return {field["name"]: field.get("element_type") or None for field in stored} | dynamic


def _listed(fields: Sequence[Description]) -> str:
    return ", ".join(f"{field['name']} ({_type(field)})" for field in fields)


def _type(field: Description) -> str:
    return str(DataType(field["type"]).name) if "type" in field else "struct"
