"""Which points an address means: all of a collection, or those that meet its conditions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from nudge_vdb.address import Address, Scalar, named_conditions, scalar_of
from nudge_vdb.errors import BadAddress
from nudge_vdb_qdrant.keys import PointId


@dataclass(frozen=True)
class Scope:
    """The points that meet every one of some conditions; without any, all points."""

    values: Mapping[str, Scalar] = field(default_factory=dict)
    """What a payload key, perhaps a path such as "a.b", must hold."""
    given: models.Filter | None = None
    """A filter of the user's own."""

    @cached_property
    def filter(self) -> models.Filter | None:
        """The conditions as the client takes them, None where there are none."""
        conditions: list[models.Condition] = [_equals(key, value) for key, value in sorted(self.values.items())]
        if self.given is not None:
            conditions.append(self.given)
        return models.Filter(must=conditions) if conditions else None

    @cached_property
    def message(self) -> messages.Filter | None:
        """The conditions as gRPC takes them, None where there are none."""
        return None if self.filter is None else RestToGrpc.convert_filter(self.filter)

    @cached_property
    def conditions(self) -> dict[str, str]:
        """The conditions in their one spelling, by name."""
        given = self.given and json.dumps(self.given.model_dump(mode="json", exclude_none=True), sort_keys=True)
        return named_conditions(self.values, given or "")

    def among(self, ids: Sequence[PointId]) -> models.Filter:
        """Return the filter for those of *ids* that are inside."""
        inside: list[models.Condition] = [] if self.filter is None else [self.filter]
        return models.Filter(must=[models.HasIdCondition(has_id=list(ids)), *inside])

    def message_among(self, ids: Iterable[messages.PointId]) -> messages.Filter:
        """Return the same filter as gRPC takes it."""
        inside = [] if self.message is None else [messages.Condition(filter=self.message)]
        return messages.Filter(must=[messages.Condition(has_id=messages.HasIdCondition(has_id=ids)), *inside])

    def shared(self) -> models.Filter | None:
        """Return the filter for points that hold several values in a key, and so may be in several scopes."""
        if not self.values:
            return None
        several = models.ValuesCount(gt=1)
        lists: list[models.Condition] = [models.FieldCondition(key=key, values_count=several) for key in self.values]
        return models.Filter(must=[models.Filter(should=lists), *([self.filter] if self.filter else [])])


EVERYTHING = Scope()
WORDS = ("text", "text_any", "phrase")
"""Where a filter holds words to look for; every text holds none of them."""


def scope_of(address: Address) -> Scope:
    """Return the scope that the options ``where`` and ``filter`` of *address* set.

    Raises:
        BadAddress: one of them cannot be read; the message says how it is written.
    """
    filter_ = address.option("filter")
    values = {key: _value(key, text) for key, text in address.pairs("where").items()}
    return Scope(values, None if filter_ is None else _filter(filter_))


def _value(key: str, text: str) -> Scalar:
    if "[" in key:
        raise BadAddress(f"option where={key}:{text}: a row may hold several {key}; use filter=JSON for lists")
    value = scalar_of(text)
    if value is None:
        raise BadAddress(f"option where={key}:{text}: {text} can be no payload value to look for; use filter=JSON")
    return value


def _equals(key: str, value: Scalar) -> models.FieldCondition:
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _filter(text: str) -> models.Filter:
    try:
        found = models.Filter.model_validate_json(text)
        RestToGrpc.convert_filter(found)
    except ValidationError as exc:
        why = exc.errors()[0]["msg"]
        raise BadAddress(f"option filter={text}: no filter of Qdrant's in JSON ({why})") from exc
    except ValueError as exc:
        raise BadAddress(f"option filter={text}: no filter of Qdrant's in JSON (a condition says nothing)") from exc
    said = found.model_dump(exclude_none=True)
    if not any(said.values()):
        raise BadAddress(f"option filter={text}: it holds no condition; leave the option away to mean all rows")
    silent = next(_silent(said, ""), None)
    if silent is not None:
        raise BadAddress(
            f"option filter={text}: {silent} says nothing, so that more rows would be meant than seems; fill it, or "
            "leave it away"
        )
    return found


def _silent(said: Any, place: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield the places of *said*, at any depth, that are empty: lists, bounds, texts to look for, no fewest of some."""
    name = place.rpartition(".")[2]
    blank = name in WORDS and isinstance(said, str) and not said.strip()
    if blank or (isinstance(said, dict | list) and not said) or (name == "min_count" and said == 0):
        yield place.replace("except_", "except")
    if isinstance(said, dict):
        for key, value in said.items():
            yield from _silent(value, f"{place}.{key}" if place else key)
    if isinstance(said, list):
        for number, value in enumerate(said):
            yield from _silent(value, f"{place}[{number}]")
