"""One vector field of a Qdrant collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.local.qdrant_local import QdrantLocal

from nudge_vdb.contract import Mask, Metric, Outcome, Page, RowKey, Traits, Vectors, agree
from nudge_vdb.errors import Refused, UnfitCollection
from nudge_vdb_qdrant.failures import reading, writing
from nudge_vdb_qdrant.fields import Field, chosen_field
from nudge_vdb_qdrant.keys import PointId, id_of, key_of, parsed_id

LOCAL_ROUNDING = 1e-6
"""Local mode scales again what comes scaled; a server stores such vectors bit for bit."""


class QdrantCollection:
    """The vectors of one field, through a client of the caller's.

    *vector* names the field; without it, the only dense one is taken. The client stays open when this is closed.
    """

    def __init__(self, client: QdrantClient, collection: str, vector: str | None = None) -> None:
        self._client = client
        self._name = _resolved(client, collection)
        with reading(self._name):
            info = client.get_collection(self._name)
        self._field = chosen_field(self._name, info, vector)
        self._traits = _traits(client, self._name, self._field)

    @property
    def traits(self) -> Traits:
        """What this collection is."""
        return self._traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the points after *cursor*: integers ascending, then UUIDs ascending."""
        with reading(self._name):
            records, following = self._client.scroll(
                self._name,
                limit=limit,
                offset=None if cursor is None else parsed_id(cursor),
                with_payload=False,
                with_vectors=self._selector(),
            )
        vectors = np.zeros((len(records), self._field.width), np.float32)
        absent = ~self._decode(records, vectors, range(len(records)))
        keys = [key_of(cast("PointId", record.id)) for record in records]
        return Page(keys, vectors, absent, None if following is None else str(following))

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the keys of those ids that exist; a UUID may be spelled in any of its forms."""
        asked = [parsed_id(text) for text in texts]
        with reading(self._name):
            records = self._client.retrieve(
                self._name, [point for point in asked if point is not None], with_payload=False, with_vectors=False
            )
        existing = {record.id for record in records}
        return [key_of(point) if point is not None and point in existing else None for point in asked]

    def text_of(self, key: RowKey) -> str:
        """Return the id: decimal, or a UUID in its canonical form."""
        return str(id_of(key))

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Retrieve by id; the answer may lack points and is aligned by id, never by position."""
        found = np.zeros(len(keys), bool)
        if not len(keys):
            return found
        with reading(self._name):
            records = self._client.retrieve(
                self._name, [id_of(key) for key in keys], with_payload=False, with_vectors=self._selector()
            )
        place = {key: number for number, key in enumerate(keys)}
        places = [place[key_of(cast("PointId", record.id))] for record in records]
        found[places] = self._decode(records, out, places)
        return found

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Compare just before writing, and update only the vector; an upsert would wipe payload and other vectors.

        Between the comparison and the update lies a window of a few milliseconds that Qdrant has no way to close.
        """
        if vectors.shape != (len(keys), self._field.width) or not np.isfinite(vectors).all():
            raise Refused(f"{self._name}: expected {len(keys)} finite vectors of {self._field.width} components")
        live = np.zeros_like(vectors)
        found = self.fetch(keys, live)
        there = found & agree(live, vectors, self._traits.tolerance)
        due = found & ~there & agree(live, expected, self._traits.tolerance)
        sent = self._update([key for key, wanted in zip(keys, due, strict=True) if wanted], vectors[due])
        return [_outcome(*row, sent) for row in zip(found, there, due, strict=True)]

    def search(self, queries: Vectors, k: int) -> list[list[RowKey]]:
        """Search as an application would, with the collection's own parameters."""
        requests = [
            models.QueryRequest(query=query.tolist(), using=self._field.name or None, limit=k, with_payload=False)
            for query in queries
        ]
        with reading(self._name):
            answers = self._client.query_batch_points(self._name, requests) if requests else []
        return [[key_of(cast("PointId", point.id)) for point in answer.points] for answer in answers]

    def count(self) -> int:
        """Return about how many points there are."""
        with reading(self._name):
            return int(self._client.count(self._name, exact=False).count)

    def close(self) -> None:
        """Do nothing: the client is the caller's."""

    def _update(self, keys: list[RowKey], vectors: Vectors) -> Outcome:
        """Send the update. If a point vanished since it was read, some of the others may not have been written."""
        if not keys:
            return Outcome.WRITTEN
        points = [
            models.PointVectors(id=id_of(key), vector=self._named(vector.tolist()))
            for key, vector in zip(keys, vectors, strict=True)
        ]
        try:
            with writing(self._name):
                self._client.update_vectors(self._name, points, wait=True)
        except Refused as exc:
            if _names_a_missing_point(exc.__cause__):
                return Outcome.UNKNOWN
            raise
        except KeyError:  # how local mode says that a point is missing
            return Outcome.UNKNOWN
        return Outcome.WRITTEN

    def _named(self, vector: list[float]) -> Any:  # noqa: ANN401 - the client's union of vector types
        return {self._field.name: vector} if self._field.name else vector

    def _selector(self) -> bool | list[str]:
        return [self._field.name] if self._field.name else True

    def _decode(self, records: Sequence[models.Record], out: Vectors, places: Sequence[int]) -> Mask:
        """Copy the vectors of *records* into the rows *places* of *out*; tell which of them hold one."""
        present = np.zeros(len(records), bool)
        for number, (record, place) in enumerate(zip(records, places, strict=True)):
            held: Any = record.vector
            vector = held.get(self._field.name) if isinstance(held, Mapping) else held
            if vector:
                out[place] = self._scaled(np.array(vector, np.float32))
                present[number] = True
        return present

    def _scaled(self, vector: Vectors) -> Vectors:
        """Return *vector* as a cosine collection means it: local mode hands out what it was sent after a restart."""
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not self._traits.rescales or length == 0 or abs(length - 1) <= LOCAL_ROUNDING:
            return vector
        return np.asarray((vector / length).astype(np.float32))


def _outcome(found: bool, there: bool, due: bool, sent: Outcome) -> Outcome:
    if due:
        return sent
    if there:
        return Outcome.WRITTEN
    return Outcome.CHANGED if found else Outcome.MISSING


def _names_a_missing_point(failure: BaseException | None) -> bool:
    return isinstance(failure, UnexpectedResponse) and failure.status_code == 404


def _resolved(client: QdrantClient, name: str) -> str:
    """Return the collection's own name where *name* is an alias."""
    with reading(name):
        names = sorted(each.name for each in client.get_collections().collections)
        if name in names:
            return name
        aliases = {each.alias_name: each.collection_name for each in client.get_aliases().aliases}
    if name not in aliases:
        raise UnfitCollection(f"there is no collection {name!r}; there are: {', '.join([*names, *aliases]) or 'none'}")
    return aliases[name]


def _traits(client: QdrantClient, name: str, field: Field) -> Traits:
    local = isinstance(client._client, QdrantLocal)
    cosine = field.metric is Metric.COSINE
    return Traits(
        identity=f"{_place(client)}/{name}?vector={field.name}",
        engine=_engine(client, local=local),
        width=field.width,
        metric=field.metric,
        rescales=cosine,
        tolerance=LOCAL_ROUNDING if local and cosine else 0.0,
    )


def _engine(client: QdrantClient, *, local: bool) -> str:
    if local:
        return "Qdrant local mode"
    with reading("version"):
        return f"Qdrant {client.info().version}"


def _place(client: QdrantClient) -> str:
    """Return where the collection lives, spelled in one way."""
    options = client.init_options
    if options["path"]:
        return f"qdrant+local:{Path(options['path']).resolve()}"
    if options["location"] == ":memory:":
        return f"qdrant+memory:{id(client)}"
    remote: Any = client._client
    return f"qdrant:{remote._host}:{remote._port}".lower()
