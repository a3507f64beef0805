"""Which points an address means: all of a collection, or those that meet its conditions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite

from pydantic import ValidationError
from qdrant_client import grpc as messages
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from nudge_vdb.address import Address
from nudge_vdb.errors import BadAddress
from nudge_vdb_qdrant.keys import PointId

Scalar = str | int | float | bool

_PAIR = re.compile(r'(?P<key>[^:,]+):(?P<value>"(?:[^"\\]|\\.)*"|[^,"]*)(?:,|$)')
_WHERE = "expected where=key:value[,key:value…], a value with a comma in quotes"
_INTEGERS = range(-(2**63), 2**63)


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
        """The conditions in their one spelling, by name.

        Two scopes that want different values of one key have no point in common, and the name of such a condition
        says the key; of two filters that is not known, so each has a name of its own.
        """
        named = {f"where:{key}": json.dumps(value, ensure_ascii=False) for key, value in self.values.items()}
        if self.given is not None:
            text = json.dumps(self.given.model_dump(mode="json", exclude_none=True), sort_keys=True)
            named[f"filter:{hashlib.sha256(text.encode()).hexdigest()[:8]}"] = text
        return named

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


def scope_of(address: Address) -> Scope:
    """Return the scope that the options ``where`` and ``filter`` of *address* set.

    Raises:
        BadAddress: one of them cannot be read; the message says how it is written.
    """
    where, filter_ = address.option("where"), address.option("filter")
    return Scope({} if where is None else _values(where), None if filter_ is None else _filter(filter_))


def _values(text: str) -> dict[str, Scalar]:
    pairs = list(_pairs(text))
    values = dict(pairs)
    if not pairs or len(values) < len(pairs):
        raise BadAddress(f"option where={text}: a key stands there twice, or none does; {_WHERE}")
    return values


def _pairs(text: str) -> Iterator[tuple[str, Scalar]]:
    place = 0
    while place < len(text):
        found = _PAIR.match(text, place)
        if not found:
            raise BadAddress(f"option where={text}: {text[place:]!r} is not understood; {_WHERE}")
        if "[" in found["key"]:
            raise BadAddress(f"option where={text}: a row may hold several {found['key']}; use filter=JSON for lists")
        yield found["key"], _value(found["value"], f"where={text}")
        place = found.end()


def _value(text: str, where: str) -> Scalar:
    """Return the JSON scalar that *text* is, else *text* itself."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | bool) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, int) and value in _INTEGERS:
        return value
    raise BadAddress(f"option {where}: {text} can be no payload value to look for; use filter=JSON")


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are texts here


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
    if not any(found.model_dump(exclude_none=True).values()):
        raise BadAddress(f"option filter={text}: it holds no condition; leave the option away to mean all rows")
    return found
