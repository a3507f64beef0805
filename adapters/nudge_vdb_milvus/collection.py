"""One vector field of a Milvus collection, as nudge-vdb sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pymilvus import MilvusClient

from nudge_vdb.address import Address
from nudge_vdb.contract import Accuracy, Mask, Metric, Outcome, Page, Remark, RowKey, Traits, Vectors
from nudge_vdb.errors import BadAddress, BadOption, Refused
from nudge_vdb_milvus.connection import DEFAULT_TIMEOUT, connect, endpoint_behind
from nudge_vdb_milvus.copies import Copies
from nudge_vdb_milvus.diagnosis import Diagnosis
from nudge_vdb_milvus.endpoint import Endpoint, bound, endpoint_of
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.fitness import shape_of
from nudge_vdb_milvus.keys import Pk, key_of, pk_of, places_by_partition, row_of
from nudge_vdb_milvus.loading import Loaded
from nudge_vdb_milvus.merging import Merging, Writing, portions_of
from nudge_vdb_milvus.moving import advice
from nudge_vdb_milvus.notes import Notes
from nudge_vdb_milvus.opening import described, index_of, require_filter, require_kept, require_partition, traits_of
from nudge_vdb_milvus.release import release_of
from nudge_vdb_milvus.revived import Revived
from nudge_vdb_milvus.rewriting import Rewriting
from nudge_vdb_milvus.scope import Scope, bounds_of, scope_of
from nudge_vdb_milvus.searching import Index
from nudge_vdb_milvus.sources import Checked, OwnChannel, PublicClient
from nudge_vdb_milvus.table import Table
from nudge_vdb_milvus.wire import LATEST, Wire


class MilvusCollection:
    """A vector field of a collection, through a client that stays the caller's to close.

    Milvus has no compare-and-set: between the last look at a row and its update lie some 50 to 250 ms in which another
    writer's change would be overwritten, before Milvus 2.6.2 that of any field, and a deletion undone. *load* says
    that a collection which a server does not hold in memory is to be loaded, and released again by :meth:`close`;
    *release*, what a server is whose version tells nothing.
    """

    def __init__(
        self,
        client: MilvusClient,
        collection: str,
        *,
        vector: str | None = None,
        scope: Scope | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        load: bool = False,
        endpoint: Endpoint | None = None,
        release: str | None = None,
    ) -> None:
        if not isinstance(client, MilvusClient):
            raise BadOption(
                f"a {type(client).__name__} was given; expected a MilvusClient, which is not asynchronous: "
                "MilvusCollection(MilvusClient(...), NAME)"
            )
        client = bound(client)  # the caller may go on to another database with it
        endpoint, self._release = endpoint or endpoint_of(client), release_of(client, timeout, release)
        description = described(client, collection, self._release, timeout)
        with reading(collection):
            shape, bounds = shape_of(description, vector), bounds_of(scope or Scope(), description)
        require_kept(shape, description, self._release)
        require_partition(client, shape, bounds.partition, timeout)
        index = index_of(client, shape, timeout)
        with reading(collection):
            self._index = Index.of(index or {})
            self._traits = traits_of(endpoint, shape, bounds, self._release, index)
        self._wire = Wire(endpoint, shape.collection, timeout)
        source = Checked(OwnChannel(self._wire, shape), PublicClient(client, shape, timeout), shape.pk)
        self._table = Table(client, source, shape, self._release, bounds, timeout)
        if self._release.merges:
            revived = Revived(self._wire, shape, description)
            self._writing: Writing = Merging(
                self._table, revived, *portions_of(self._release, bounds, self._table.pace)
            )
        else:
            self._writing = Rewriting(self._wire, shape, bounds)
        # Milvus Lite keeps one row of a key, however often it is inserted.
        self._copies = None if self._release.lite else Copies(self._wire, shape)
        self._notes = Notes(client, shape.collection, timeout)
        self._diagnosis = Diagnosis(client, endpoint, self._wire, self._table, self._release, timeout)
        self._loaded = Loaded(client, shape.collection, timeout)
        if self._release.lite:  # which releases every collection when its file is closed
            self._loaded.once_and_for_all()
        else:
            self._loaded.ensure(load)
        require_filter(source, bounds)

    @property
    def traits(self) -> Traits:
        """What this collection is; Milvus keeps vectors bit for bit and never rescales them."""
        return self._traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the rows after *cursor*, partition by partition, in the order of their primary keys.

        All pages are read at the time of the first, which the cursor tells: a server then need not wait for what
        happened since.
        """
        partition, after, at = json.loads(cursor) if cursor else (self._table.partitions()[0], None, self._table.now())
        rows = self._table.page(partition, after, limit, at)
        # A short page is not the end of a partition, only an empty one is.
        follows = (partition, rows.pks[-1]) if rows.pks else self._start_behind(partition)
        keys = [key_of(partition, pk) for pk in rows.pks]
        return Page(keys, rows.vectors, rows.absent, json.dumps([*follows, at]) if follows else None)

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the key of each row id given as text, None where there is no such row."""
        wanted = {text: pk_of(text, self._table.shape.kind) for text in texts}
        missing = {pk for pk in wanted.values() if pk is not None}
        keys: dict[Pk | None, RowKey] = {}
        for _ in range(self._table.looks):
            at = self._table.now() if missing else LATEST
            for partition in self._table.partitions() if missing else []:
                keys |= {pk: key_of(partition, pk) for pk in self._table.existing(partition, sorted(missing), at)}
            missing -= keys.keys()
        return [keys.get(wanted[text]) for text in texts]

    def text_of(self, key: RowKey) -> str:
        """Return the primary key as text."""
        return str(row_of(key)[1])

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Write the live vectors of *keys* into the rows of *out*; False in the mask where there is none."""
        mask = np.zeros(len(keys), bool)
        at = self._table.now()  # once: each time that is asked for is waited for
        for partition, places in self._places(keys):
            found = self._table.rows(partition, list(places), at)
            for pk, vector, none in zip(found.pks, found.vectors, found.absent, strict=True):
                out[places[pk]] = vector
                mask[places[pk]] = not none
        return mask

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Replace the vectors of *keys* that still are *expected*.

        A row that holds the new vector already counts as written, so a write that failed half-way can be repeated. A
        row that is there more than once is refused: an update would leave one copy of it.

        Raises:
            Refused: *vectors* are not finite or not as wide as the collection's.
        """
        self._require_storable(len(keys), vectors)
        outcomes = [Outcome.MISSING] * len(keys)
        for partition, places in self._places(keys):
            copied = self._copies.among(partition, list(places)) if self._copies else set()
            pks = [pk for pk in places if pk not in copied]
            last = [places[pk][-1] for pk in pks]
            met = self._writing.move(partition, pks, vectors[last], expected[last]) if pks else {}
            for pk, outcome in (met | dict.fromkeys(copied, Outcome.REFUSED)).items():
                for place in places[pk]:
                    outcomes[place] = outcome
        return outcomes

    def search(self, queries: Vectors, k: int, accuracy: Accuracy = Accuracy.INDEX) -> list[list[RowKey]]:
        """Return for each query the keys of its *k* best rows, best first, by the index on the field."""
        self._index.refuse(self._table.shape.collection, k, accuracy)
        if not len(queries):
            return []
        hits: list[list[tuple[float, RowKey]]] = [[] for _ in queries]
        effort, at = self._index.effort(k), self._table.now()
        for partition in self._table.partitions():
            for query, found in zip(hits, self._table.nearest(partition, queries, k, effort, at), strict=True):
                query += [(score, key_of(partition, pk)) for score, pk in found]
        larger_is_better = self._traits.metric is not Metric.EUCLID
        best = (sorted(query, key=lambda hit: hit[0], reverse=larger_is_better)[:k] for query in hits)
        return [[key for _, key in query] for query in best]

    def count(self) -> int:
        """Return how many rows there are, all partitions together."""
        return self._table.count()

    def notes(self) -> Mapping[str, str]:
        """Return the notes that were left with the collection, which keeps them among its properties."""
        return self._notes.all()

    def leave_note(self, name: str, text: str) -> bool:
        """Keep *text* under *name* among the collection's properties; False where the permissions do not allow it."""
        return self._notes.leave(name, text)

    def before_move(self, rows: int) -> list[Remark]:
        """Say what writing so many *rows* does to index and disk."""
        return advice(self._release, rows)

    def diagnose(self) -> list[Remark]:
        """Say how the collection is, how it will be read and written, and what is in the way."""
        return self._diagnosis.remarks()

    def close(self) -> None:
        """Release the collection if it was loaded for us, and close our channel; the client is the caller's."""
        try:
            self._loaded.undo()
        finally:
            self._wire.close()

    def _places(self, keys: Sequence[RowKey]) -> Iterator[tuple[str, dict[Pk, list[int]]]]:
        """Yield each partition inside with its primary keys and where in *keys* each stands."""
        only = self._table.bounds.partition
        for partition, places in places_by_partition(keys, self._table.shape.kind).items():
            if not only or partition == only:
                yield partition, places

    def _start_behind(self, partition: str) -> tuple[str, None] | None:
        return next(((name, None) for name in self._table.partitions() if name > partition), None)

    def _require_storable(self, count: int, vectors: Vectors) -> None:
        if vectors.shape != (count, self._traits.width) or not np.isfinite(vectors).all():
            raise Refused(f"expected {count} finite vectors of {self._traits.width} components")


class OwnedCollection(MilvusCollection):
    """A collection whose client is its own."""

    def __init__(self, client: MilvusClient, address: Address) -> None:
        super().__init__(
            client,
            address.collection,
            vector=address.option("vector"),
            scope=scope_of(address),
            endpoint=endpoint_behind(address, client),
            timeout=address.seconds("timeout", DEFAULT_TIMEOUT),
            load=_wants_loading(address),
            release=address.option("release"),
        )
        self._client = client

    def close(self) -> None:
        """Release the collection if it was loaded for us, and close the client; may be called again."""
        try:
            super().close()
        finally:
            self._client.close()


def open_collection(address: Address) -> OwnedCollection:
    """Open the collection that *address* names.

    Raises:
        BadAddress: the address names no engine.
        UnfitCollection: there is no such collection, or it cannot be tuned as it is.
        EngineError: Milvus cannot be reached, refuses, or is too old to update a single field.
    """
    client = connect(address)
    try:
        return OwnedCollection(client, address)
    except BaseException:
        client.close()
        raise


def _wants_loading(address: Address) -> bool:
    wish = address.option("load") or "false"
    if wish not in ("true", "false"):
        raise BadAddress(f"option load={wish}: give true to load the collection and release it again")
    return wish == "true"
