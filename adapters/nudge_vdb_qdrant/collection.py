"""One vector field of a Qdrant collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from qdrant_client import QdrantClient, models

from nudge_vdb.contract import Ability, Mask, Metric, Outcome, Page, Remark, RowKey, Traits, Vectors, agree
from nudge_vdb.errors import Refused, TooLarge, UnfitCollection
from nudge_vdb_qdrant.diagnosis import Diagnosis
from nudge_vdb_qdrant.failures import reading
from nudge_vdb_qdrant.fields import Field, chosen_field, limits_of
from nudge_vdb_qdrant.keys import PointId, id_of, key_of, parsed_id
from nudge_vdb_qdrant.naming import engine_of, is_local, place_of, resolved
from nudge_vdb_qdrant.notes import keeps_notes, leave_note, notes_in
from nudge_vdb_qdrant.points import ClientPoints, PointStore, Vanished
from nudge_vdb_qdrant.scope import EVERYTHING, Scope
from nudge_vdb_qdrant.stub_points import StubPoints

DEFAULT_TIMEOUT = 60.0
"""Seconds."""
LOCAL_ROUNDING = 1e-6
"""Local mode scales again what comes scaled; a server stores such vectors bit for bit."""


class QdrantCollection:
    """The vectors of one field, through a client of the caller's.

    *vector* names the field; without it, the only dense one is taken. The client stays open when this is closed.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        vector: str | None = None,
        *,
        timeout: float | None = None,
        scope: Scope = EVERYTHING,
    ) -> None:
        self._client, self._asked, self._scope = client, collection, scope
        self._name = resolved(client, collection)
        with reading(self._name):
            info = client.get_collection(self._name)
        self._field, self._limits = chosen_field(self._name, info, vector), limits_of(info)
        self._traits = _traits(client, self._name, self._field, scope)
        self._points = store_of(client, self._name, self._field, timeout or DEFAULT_TIMEOUT, scope)
        self._refuse_shared_rows()

    @property
    def traits(self) -> Traits:
        """What this collection is."""
        return self._traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the points after *cursor*: integers ascending, then UUIDs ascending."""
        start = None if cursor is None else parsed_id(cursor)
        found, following = self._points.scroll(start, min(limit, self._limits.page))
        keys = [key_of(point) for point in found.ids]
        return Page(keys, self._scaled(found.vectors), ~found.present, None if following is None else str(following))

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the keys of those ids that exist; a UUID may be spelled in any of its forms."""
        asked = [parsed_id(text) for text in texts]
        wanted = [point for point in asked if point is not None]
        existing = self._points.existing(wanted) if wanted else set()
        return [key_of(point) if point is not None and point in existing else None for point in asked]

    def text_of(self, key: RowKey) -> str:
        """Return the id: decimal, or a UUID in its canonical form."""
        return str(id_of(key))

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Retrieve by id; the answer may lack points and is aligned by id, never by position."""
        mask = np.zeros(len(keys), bool)
        if len(keys):
            found = self._points.retrieve([id_of(key) for key in keys])
            place = {key: number for number, key in enumerate(keys)}
            places = [place[key_of(point)] for point in found.ids]
            out[places], mask[places] = self._scaled(found.vectors), found.present
        return mask

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Compare just before writing, and update only the vector; an upsert would wipe payload and other vectors.

        Between the comparison and the update lies a window of a few milliseconds that Qdrant has no way to close.
        """
        if vectors.shape != (len(keys), self._field.width) or not np.isfinite(vectors).all():
            raise Refused(f"{self._name}: expected {len(keys)} finite vectors of {self._field.width} components")
        if len(keys) > self._limits.batch:
            raise TooLarge(f"{self._name} takes at most {self._limits.batch} points in one update (strict mode)")
        live = np.zeros_like(vectors)
        found = self.fetch(keys, live)
        there = found & agree(live, vectors, self._traits.tolerance)
        due = found & ~there & agree(live, expected, self._traits.tolerance)
        sent = self._update([key for key, wanted in zip(keys, due, strict=True) if wanted], vectors[due])
        return [_outcome(*row, sent) for row in zip(found, there, due, strict=True)]

    def search(self, queries: Vectors, k: int) -> list[list[RowKey]]:
        """Search as an application would, with the collection's own parameters."""
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                using=self._field.name or None,
                filter=self._scope.filter,
                limit=k,
                with_payload=False,
            )
            for query in queries
        ]
        with reading(self._name):
            answers = self._client.query_batch_points(self._name, requests) if requests else []
        return [[key_of(cast("PointId", point.id)) for point in answer.points] for answer in answers]

    def count(self) -> int:
        """Return about how many points there are."""
        with reading(self._name):
            counted = self._client.count(self._name, self._scope.filter, exact=self._scope.filter is not None)
        return int(counted.count)

    def notes(self) -> Mapping[str, str]:
        """Return our notes among the collection's metadata."""
        with reading(self._name):
            return notes_in(self._client.get_collection(self._name))

    def leave_note(self, name: str, text: str) -> bool:
        """Keep a note in the collection's metadata; for that a key must manage the collection."""
        kept = Ability.NOTES in self._traits.abilities
        return kept and leave_note(self._client, self._name, name, text)

    def diagnose(self) -> list[Remark]:
        """Say what the key may do, how the collection stands, and how it is read and written."""
        return Diagnosis(
            client=self._client,
            collection=self._name,
            asked=self._asked,
            traits=self._traits,
            points=self._points,
            limits=self._limits,
            scope=self._scope,
            local=is_local(self._client),
        ).remarks()

    def close(self) -> None:
        """Do nothing: the client is the caller's."""

    def _update(self, keys: list[RowKey], vectors: Vectors) -> Outcome:
        if not keys:
            return Outcome.WRITTEN
        try:
            self._points.update([id_of(key) for key in keys], vectors)
        except Vanished:
            return Outcome.UNKNOWN
        return Outcome.WRITTEN

    def _refuse_shared_rows(self) -> None:
        """Refuse rows that two scopes would both have: each would take the other's moves for the owner's."""
        several = self._scope.shared()
        if several is None:
            return
        with reading(self._name):
            found, _ = self._client.scroll(self._name, several, 1, with_payload=False, with_vectors=False)
        if found:
            raise UnfitCollection(
                f"{self._name}: point {found[0].id} holds several values in one of {', '.join(self._scope.values)}, so "
                "it would be in several scopes; leave where= away, or use filter=, and tune one such scope only"
            )

    def _scaled(self, vectors: Vectors) -> Vectors:
        """Return *vectors* of length 1, as cosine means them; restarted, local mode hands out what it was sent."""
        if not self._traits.tolerance:
            return vectors
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        unscaled = np.flatnonzero((lengths > 0) & (np.abs(lengths - 1) > LOCAL_ROUNDING))
        vectors[unscaled] = vectors[unscaled] / lengths[unscaled, None]
        return vectors


def store_of(
    client: QdrantClient, collection: str, field: Field, timeout: float, scope: Scope = EVERYTHING
) -> PointStore:
    """Return the fastest way to the points: stubs where the client talks gRPC, else its own methods."""
    if is_local(client) or not client.init_options["prefer_grpc"]:
        return ClientPoints(client, collection, field, scope)
    return StubPoints(client, collection, field, timeout, scope)


def _outcome(found: bool, there: bool, due: bool, sent: Outcome) -> Outcome:
    if due:
        return sent
    if there:
        return Outcome.WRITTEN
    return Outcome.CHANGED if found else Outcome.MISSING


def _traits(client: QdrantClient, name: str, field: Field, scope: Scope) -> Traits:
    local = is_local(client)
    cosine = field.metric is Metric.COSINE
    engine = engine_of(client)
    return Traits(
        collection=f"{place_of(client)}/{name}",
        vector=field.name,
        engine=engine,
        width=field.width,
        metric=field.metric,
        rescales=cosine,
        tolerance=LOCAL_ROUNDING if local and cosine else 0.0,
        scope=scope.conditions,
        abilities=frozenset({Ability.NOTES} if local or keeps_notes(engine) else ()),
    )
