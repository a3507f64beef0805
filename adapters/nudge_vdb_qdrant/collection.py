"""One vector field of a Qdrant collection."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.models import CollectionInfo

from nudge_vdb.address import require_sendable
from nudge_vdb.contract import (
    Ability,
    Accuracy,
    Mask,
    Metric,
    Outcome,
    Page,
    Precision,
    Remark,
    RowKey,
    Traits,
    Vectors,
    agree,
    request_guard,
    rounded,
)
from nudge_vdb.errors import BadOption, Refused, TooLarge, UnfitCollection
from nudge_vdb.secret import remember
from nudge_vdb_qdrant.access import key_of_client
from nudge_vdb_qdrant.diagnosis import Diagnosis
from nudge_vdb_qdrant.failures import reading
from nudge_vdb_qdrant.fields import Field, Limits, chosen_field, limits_of
from nudge_vdb_qdrant.keys import ShardKey
from nudge_vdb_qdrant.moving import advice
from nudge_vdb_qdrant.naming import engine_of, is_local, place_of, resolved
from nudge_vdb_qdrant.notes import keeps_notes, leave_note, notes_in
from nudge_vdb_qdrant.points import PointStore, Target
from nudge_vdb_qdrant.reading import speaks_grpc, store_of, suited
from nudge_vdb_qdrant.scope import EVERYTHING, Scope
from nudge_vdb_qdrant.searching import Effort, portions, refuse
from nudge_vdb_qdrant.shards import Shards, shard_keys_of, within
from nudge_vdb_qdrant.wires import Wires, compared

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 60.0
"""Seconds."""
LOCAL_ROUNDING = 1e-6
"""Local mode scales again what comes scaled; a server stores such vectors bit for bit."""
WRITING = 3.5
"""Rows fetched in the time that one takes to be written: 2.8 to 4.0, on a server and on a cluster."""
ROWS_AT_ONCE = 256
"""Rows that are looked at and then updated, in one thread of several."""
WRITERS = 4
LONGEST = 1e19
"""What is longer is stored as zeros where it is scaled."""


class QdrantCollection:
    """The vectors of one field, through a client of the caller's.

    *vector* names the field; without it, the only dense one is taken. *shard_key* keeps to the points under it, where
    the users of the collection shard it themselves. The client stays open when this is closed.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        vector: str | None = None,
        *,
        timeout: float | None = None,
        scope: Scope = EVERYTHING,
        shard_key: str | None = None,
    ) -> None:
        if not isinstance(client, QdrantClient):
            raise BadOption(
                f"a {type(client).__name__} was given; expected a QdrantClient, which is not asynchronous: "
                "QdrantCollection(QdrantClient(...), NAME)"
            )
        remember(key_of_client(client))
        require_sendable(key_of_client(client), "the api_key of the client")
        self._client, self._asked, self._scope = client, collection, scope
        self._name = resolved(client, collection)
        if speaks_grpc(client):
            self._settle(compared(client, self._name, timeout or DEFAULT_TIMEOUT))
        with reading(self._name):
            info = client.get_collection(self._name)
        self._field, self._limits = chosen_field(self._name, info, vector), limits_of(info)
        self.shard_keys = shard_keys_of(client, self._name, info, shard_key)
        self._traits = _traits(client, self._name, self._field, self._limits, within(scope, shard_key))
        stores = {key: self._store(info, key, timeout or DEFAULT_TIMEOUT) for key in (None, *self.shard_keys)}
        self._points, self._shards = stores[None], Shards({key: stores[key] for key in self.shard_keys}, shard_key)
        self._replicated = (info.config.params.replication_factor or 1) > 1
        whole = is_local(client) or self._limits.reads is not None  # neither gains by portions
        self._at_once = sys.maxsize if whole else ROWS_AT_ONCE
        self._refuse_shared_rows()

    @property
    def traits(self) -> Traits:
        """What this collection is."""
        return self._traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the points after *cursor*: integers ascending, then UUIDs ascending; shard key by shard key."""
        keys, found, following = self._shards.page(cursor, min(limit, self._limits.page))
        if found is None:
            return Page([], np.empty((0, self._field.width), np.float32), np.zeros(0, bool), following)
        return Page(keys, self._scaled(found.vectors), ~found.present, following)

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the keys of those ids that exist; a UUID may be spelled in any of its forms."""
        return self._shards.locate(texts)

    def text_of(self, key: RowKey) -> str:
        """Return the id: decimal, or a UUID in its canonical form, behind its shard key where there may be several."""
        return self._shards.text_of(key)

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Retrieve by id; the answer may lack points and is aligned by id, never by position."""
        mask, place = np.zeros(len(keys), bool), {key: number for number, key in enumerate(keys)}
        for present, found in self._shards.retrieve(keys):
            places = [place[key] for key in present]
            out[places], mask[places] = self._scaled(found.vectors), found.present
        return mask

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Compare just before writing, and update only the vector; an upsert would wipe payload and other vectors.

        Between the comparison and the update lies a window of a few milliseconds that Qdrant has no way to close; it is
        kept short by going through the rows in portions, each of which is updated as soon as it was looked at.
        """
        self._refuse_unstorable(keys, vectors)
        if len(keys) > self._limits.batch:
            raise TooLarge(f"{self._name} takes at most {self._limits.batch} points in one update (strict mode)")
        parts = [slice(first, first + self._at_once) for first in range(0, len(keys), self._at_once)]
        guard = request_guard()

        def replaced(part: slice) -> list[Outcome]:
            return self._replaced(keys[part], vectors[part], expected[part], guard)

        if len(parts) < 2:
            return replaced(slice(None))
        with ThreadPoolExecutor(WRITERS) as pool:
            return [outcome for some in pool.map(replaced, parts) for outcome in some]

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:
        """Search the index with more candidates in hand than an application's search has, or leave it aside."""
        refuse(self._name, k, accuracy, self._limits)
        if queries.shape[1:] != (self._field.width,):  # local mode would let numpy fail
            raise Refused(f"{self._name}: expected queries of {self._field.width} components")
        effort, metric = Effort.of(accuracy, k, self._limits), self._field.metric
        parts = (self._shards.nearest(part, k, effort, metric) for part in portions(queries, self._limits))
        return [hits for part in parts for hits in part]

    def count(self) -> int:
        """Return about how many points there are."""
        exact = self._scope.filter is not None
        with reading(self._name):
            counted = [
                self._client.count(self._name, self._scope.filter, exact=exact, shard_key_selector=shard_key).count
                for shard_key in self.shard_keys
            ]
        return sum(counted)

    def notes(self) -> Mapping[str, str]:
        """Return our notes among the collection's metadata."""
        with reading(self._name):
            return notes_in(self._client.get_collection(self._name))

    def leave_note(self, name: str, text: str) -> bool:
        """Keep a note in the collection's metadata; for that a key must manage the collection."""
        kept = Ability.NOTES in self._traits.abilities
        return kept and leave_note(self._client, self._name, name, text)

    def before_move(self, rows: int) -> list[Remark]:
        """Say what writing so many *rows* does to index and disk."""
        with reading(self._name):
            info = self._client.get_collection(self._name)
        return advice(info, self._traits, rows, local=is_local(self._client))

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

    def _settle(self, wires: Wires) -> None:
        """Refuse a client whose gRPC leads elsewhere: its rows would be another server's, under the name of this one.

        Raises:
            BadOption: it does.
        """
        if wires is Wires.OTHER:
            raise BadOption(
                f"gRPC and REST of the client of {self._name} lead to different servers; give QdrantClient the "
                "grpc_port that belongs to its port, or leave prefer_grpc out"
            )
        if wires is Wires.UNTOLD:
            log.warning(
                "%s: whether gRPC and REST of the client lead to one server is not told to this key, only to one that "
                "may read the collection whole (access r, rw or m); gRPC is used for all rows",
                self._name,
            )

    def _replaced(
        self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors, guard: Callable[[], None]
    ) -> list[Outcome]:
        """Look at *keys*, and update those that still are as expected, if *guard* lets."""
        live = np.zeros_like(vectors)
        found = self.fetch(keys, live)
        there = found & agree(live, vectors, self._traits.tolerance)
        due = found & (self._to_send(there) | agree(live, expected, self._traits.tolerance) & ~there)
        places = np.flatnonzero(due).tolist()
        guard()  # after the read: a run may have slept in it
        sent = dict(zip(places, self._shards.update([keys[place] for place in places], vectors[places]), strict=True))
        return [sent.get(place) or _unsent(found[place], there[place]) for place in range(len(keys))]

    def _store(self, info: CollectionInfo, shard_key: ShardKey | None, timeout: float) -> PointStore:
        target = Target(self._name, self._field, self._scope, shard_key)
        return suited(store_of(self._client, target, timeout), target, info, self._limits)

    def _refuse_unstorable(self, keys: Sequence[RowKey], vectors: Vectors) -> None:
        """Refuse what Qdrant would take and not hold: gRPC lets NaN in, and cosine makes zeros of what is too long."""
        finite = np.isfinite(rounded(vectors, self._traits.precision)).all()
        if vectors.shape != (len(keys), self._field.width) or not finite:
            raise Refused(
                f"{self._name}: expected {len(keys)} vectors of {self._field.width} components that are finite as "
                f"{self._traits.precision.value}"
            )
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if self._traits.rescales and not ((lengths > 0) & (lengths < LONGEST)).all():
            raise Refused(f"{self._name} scales vectors to length 1; expected some length, below {LONGEST:g}")

    def _to_send(self, there: Mask) -> Mask:
        """Return which rows to send although they are *there*: with replicas, a read has only seen one of them."""
        return there if self._replicated else np.zeros_like(there)

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


def _unsent(found: bool, there: bool) -> Outcome:
    """Return what became of a row that was not sent."""
    if there:
        return Outcome.WRITTEN
    return Outcome.CHANGED if found else Outcome.MISSING


def _traits(client: QdrantClient, name: str, field: Field, limits: Limits, scope: Mapping[str, str]) -> Traits:
    local = is_local(client)
    cosine = field.metric is Metric.COSINE
    engine = engine_of(client)
    abilities = {
        Ability.GAPS: True,
        Ability.GUARDED: True,
        Ability.NOTES: local or keeps_notes(engine),
        Ability.EXACT_SEARCH: limits.exact,
        Ability.SERVER: not local,
    }
    return Traits(
        collection=f"{place_of(client)}/{name}",
        vector=field.name,
        engine=engine,
        width=field.width,
        metric=field.metric,
        rescales=cosine,
        tolerance=LOCAL_ROUNDING if local and cosine else 0.0,
        scope=scope,
        abilities=frozenset(ability for ability, there in abilities.items() if there),
        precision=Precision.SINGLE if local else field.precision,  # local mode keeps what it is sent
        writing=WRITING,
    )
