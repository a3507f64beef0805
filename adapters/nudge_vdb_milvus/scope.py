"""Which rows an address means: all of a collection, those of one partition, or those that meet its conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pymilvus import DataType

from nudge_vdb.address import Address, Scalar, named_conditions, scalar_of
from nudge_vdb.errors import BadAddress, UnfitCollection
from nudge_vdb_milvus.filters import literal
from nudge_vdb_milvus.fitness import Description
from nudge_vdb_milvus.saying import require_conditions

OPTIONS = ("partition", "where", "filter")
_PLAIN = {
    DataType.BOOL,
    DataType.INT8,
    DataType.INT16,
    DataType.INT32,
    DataType.INT64,
    DataType.FLOAT,
    DataType.DOUBLE,
    DataType.VARCHAR,
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What an address says of the rows it means, before the collection is known."""

    partition: str = ""
    """The only partition, empty for all of them."""
    values: Mapping[str, str] = field(default_factory=dict)
    """What a field, or a path such as "a.b" into JSON, must hold, as it was written."""
    given: str = ""
    """A filter expression of the user's own."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A scope within a collection whose fields are known."""

    partition: str = ""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    given: str = ""
    expression: str = ""
    """The filter that every row inside passes, empty where all do."""

    def within(self, where: str) -> str:
        """Return the filter for those of the rows that pass *where* which are inside."""
        return joined([part for part in (self.expression, where) if part])

    @property
    def conditions(self) -> dict[str, str]:
        """The conditions in their one spelling, by name; two partitions have no row in common either."""
        named = named_conditions(self.values, self.given)
        if self.partition:
            named["partition"] = self.partition
        return named


EVERYTHING = Bounds()


def scope_of(address: Address) -> Scope:
    """Return the scope that the options of *address* set.

    Raises:
        BadAddress: one of them cannot be read; the message says how it is written.
    """
    partition, where, given = (address.option(name) for name in OPTIONS)
    for name, text in zip(OPTIONS, (partition, where, given), strict=True):
        if text is not None and not text.strip():
            raise BadAddress(f"option {name}= is empty; leave it away to mean all rows")
    return Scope(partition or "", address.pairs("where"), (given or "").strip())


def bounds_of(scope: Scope, description: Description) -> Bounds:
    """Return *scope* within the collection described.

    Raises:
        BadAddress: a condition on a field that there is not, or on one that holds no single value, or one that says
            nothing.
        UnfitCollection: a partition of a collection whose partitions are Milvus's own.
    """
    require_conditions(scope.given)
    keyed = next((field["name"] for field in description["fields"] if field.get("is_partition_key")), None)
    if scope.partition and keyed is not None:
        raise UnfitCollection(
            f"collection {description['collection_name']} is spread over partitions by Milvus; instead of partition= "
            f"say which values of its key are meant, as in where={keyed}:value"
        )
    values = {key: _typed(key, text, description) for key, text in scope.values.items()}
    parts = [f"{_place(key, description)} == {_literal(value)}" for key, value in sorted(values.items())]
    parts += [scope.given] if scope.given else []
    return Bounds(scope.partition, values, scope.given, joined(parts))


def joined(parts: Sequence[str]) -> str:
    """Return the filter that is passed by what passes every one of *parts*."""
    return parts[0] if len(parts) == 1 else " and ".join(f"({part})" for part in parts)


def _typed(key: str, text: str, description: Description) -> Scalar:
    """Return the value that *text* spells: a text where the field holds texts, else the JSON scalar that it is."""
    value = scalar_of(text)
    if not text.strip():
        raise BadAddress(f'option where={key}: has no value; the empty text is written where={key}:""')
    if value is None:
        raise BadAddress(f"option where={key}:{text}: no single value to look for; use filter= with an expression")
    column = _column(key, description)
    if column is not None and column["type"] == DataType.VARCHAR and not isinstance(value, str):
        return text
    return value


def _place(key: str, description: Description) -> str:
    """Return how a filter names what *key* stands for: a field, or a path into JSON or the dynamic fields.

    Raises:
        BadAddress: there is no such field, or it holds no single values.
    """
    column, (head, *rest) = _column(key, description), key.split(".")
    if column is not None:
        _require_plain(key, column)
        return key
    holder = next((field for field in description["fields"] if field["name"] == head), None)
    if holder is not None and rest and holder["type"] == DataType.JSON:
        return head + _path(rest)
    if holder is None and description.get("enable_dynamic_field"):
        return "$meta" + _path([head, *rest])
    names = ", ".join(field["name"] for field in description["fields"])
    raise BadAddress(
        f"option where={key}:…: collection {description['collection_name']} has no such field; its fields: {names}"
    )


def _require_plain(key: str, column: Description) -> None:
    if column["type"] not in _PLAIN:
        raise BadAddress(
            f"option where={key}:…: that field is {DataType(column['type']).name} and holds no single value; "
            "use filter= with an expression"
        )


def _column(key: str, description: Description) -> Description | None:
    return next((field for field in description["fields"] if field["name"] == key), None)


def _path(names: list[str]) -> str:
    return "".join(f"[{literal(name)}]" for name in names)


def _literal(value: Scalar) -> str:
    return literal(value) if isinstance(value, str) else json.dumps(value)
