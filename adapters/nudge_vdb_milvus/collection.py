"""One vector field of a Milvus collection, as nudge-vdb sees it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from pymilvus import MilvusClient

from nudge_vdb.address import Address
from nudge_vdb.contract import Mask, Metric, Outcome, Page, RowKey, Traits, Vectors, agree
from nudge_vdb.errors import Refused, UnfitCollection
from nudge_vdb_milvus.connection import DEFAULT_TIMEOUT, connect, identity_of
from nudge_vdb_milvus.failures import reading
from nudge_vdb_milvus.fitness import Shape, metric_of, shape_of
from nudge_vdb_milvus.keys import Pk, key_of, pk_of, places_by_partition, row_of
from nudge_vdb_milvus.release import Release, release_of, require_partial_update
from nudge_vdb_milvus.table import Row, Table


class MilvusCollection:
    """A vector field of a collection, through a client that stays the caller's to close.

    Milvus has no compare-and-set: between the last look at a row and its update lie some milliseconds in which
    another writer's change would be overwritten, and a deletion undone.
    """

    def __init__(
        self, client: MilvusClient, collection: str, *, vector: str | None = None, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        release = release_of(client, timeout)
        require_partial_update(release)
        shape = _shape(client, collection, vector, timeout)
        _require_plain_partitions(shape, release)
        self._traits = _traits(client, shape, release, timeout)
        self._table = Table(client, shape, timeout)
        if release.lite:  # which releases every collection when its file is closed
            with reading(collection):
                client.load_collection(shape.collection, timeout=timeout)

    @property
    def traits(self) -> Traits:
        """What this collection is; Milvus keeps vectors bit for bit and never rescales them."""
        return self._traits

    def scan(self, cursor: str | None, limit: int) -> Page:
        """Return the rows after *cursor*, partition by partition, in the order of their primary keys."""
        partition, after = json.loads(cursor or _cursor(self._table.partitions()[0], None))
        rows = self._table.page(partition, after, limit)
        # A short page is not the end of a partition, only an empty one is.
        return self._page(partition, rows, _cursor(partition, rows[-1][0]) if rows else self._start_behind(partition))

    def locate(self, texts: Sequence[str]) -> list[RowKey | None]:
        """Return the key of each row id given as text, None where there is no such row."""
        wanted = {text: pk_of(text, self._table.shape.kind) for text in texts}
        pks = [pk for pk in wanted.values() if pk is not None]
        keys: dict[Pk | None, RowKey] = {}
        for partition in self._table.partitions() if pks else []:
            keys |= {pk: key_of(partition, pk) for pk in self._table.existing(partition, pks)}
        return [keys.get(wanted[text]) for text in texts]

    def text_of(self, key: RowKey) -> str:
        """Return the primary key as text."""
        return str(row_of(key)[1])

    def fetch(self, keys: Sequence[RowKey], out: Vectors) -> Mask:
        """Write the live vectors of *keys* into the rows of *out*; False in the mask where there is none."""
        found = np.zeros(len(keys), bool)
        for partition, places in places_by_partition(keys, self._table.shape.kind).items():
            for pk, vector in self._table.rows(partition, places).items():
                if vector is not None:
                    out[places[pk]] = vector
                    found[places[pk]] = True
        return found

    def write(self, keys: Sequence[RowKey], vectors: Vectors, expected: Vectors) -> list[Outcome]:
        """Replace the vectors of *keys* that still are *expected*.

        A row that holds the new vector already counts as written, so a write that failed half-way can be repeated.

        Raises:
            Refused: *vectors* are not finite or not as wide as the collection's.
        """
        self._require_storable(len(keys), vectors)
        live = np.zeros_like(vectors)
        found = self.fetch(keys, live)
        there = found & agree(live, vectors, self._traits.tolerance)
        due = found & ~there & agree(live, expected, self._traits.tolerance)
        self._replace(keys, vectors, due)
        return [_outcome(*row) for row in zip(found, there | due, strict=True)]

    def search(self, queries: Vectors, k: int) -> list[list[RowKey]]:
        """Return for each query the keys of its *k* best rows, best first, by the index on the field."""
        if not len(queries):
            return []
        hits: list[list[tuple[float, RowKey]]] = [[] for _ in queries]
        for partition in self._table.partitions():
            for query, found in zip(hits, self._table.nearest(partition, queries, k), strict=True):
                query += [(score, key_of(partition, pk)) for score, pk in found]
        larger_is_better = self._traits.metric is not Metric.EUCLID
        best = (sorted(query, key=lambda hit: hit[0], reverse=larger_is_better)[:k] for query in hits)
        return [[key for _, key in query] for query in best]

    def count(self) -> int:
        """Return how many rows there are, all partitions together."""
        return self._table.count()

    def close(self) -> None:
        """Do nothing: the client is the caller's."""

    def _start_behind(self, partition: str) -> str | None:
        return next((_cursor(name, None) for name in self._table.partitions() if name > partition), None)

    def _page(self, partition: str, rows: Sequence[Row], follows: str | None) -> Page:
        vectors = np.zeros((len(rows), self._traits.width), np.float32)
        absent = np.array([vector is None for _, vector in rows], bool)
        for place, (_, vector) in enumerate(rows):
            vectors[place] = 0.0 if vector is None else vector
        return Page([key_of(partition, pk) for pk, _ in rows], vectors, absent, follows)

    def _require_storable(self, count: int, vectors: Vectors) -> None:
        if vectors.shape != (count, self._traits.width) or not np.isfinite(vectors).all():
            raise Refused(f"expected {count} finite vectors of {self._traits.width} components")

    def _replace(self, keys: Sequence[RowKey], vectors: Vectors, due: Mask) -> None:
        for partition, places in places_by_partition(keys, self._table.shape.kind).items():
            rows = {pk: vectors[at[-1]] for pk, at in places.items() if due[at[-1]]}
            if rows:
                self._table.replace(partition, rows)


class OwnedCollection(MilvusCollection):
    """A collection whose client is its own."""

    def __init__(self, client: MilvusClient, address: Address) -> None:
        super().__init__(
            client,
            address.collection,
            vector=address.option("vector"),
            timeout=address.seconds("timeout", DEFAULT_TIMEOUT),
        )
        self._client = client

    def close(self) -> None:
        """Close the client; may be called again."""
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


def _shape(client: MilvusClient, collection: str, vector: str | None, timeout: float) -> Shape:
    with reading(collection):
        if not client.has_collection(collection, timeout=timeout):
            known = ", ".join(sorted(client.list_collections(timeout=timeout))) or "none"
            raise UnfitCollection(f"there is no collection {collection}; collections here: {known}")
        return shape_of(client.describe_collection(collection, timeout=timeout), vector)


def _traits(client: MilvusClient, shape: Shape, release: Release, timeout: float) -> Traits:
    with reading(shape.collection):
        names = client.list_indexes(shape.collection, shape.vector, timeout=timeout)
        index = client.describe_index(shape.collection, names[0], timeout=timeout) if names else None
    return Traits(
        identity=identity_of(client, shape.collection, shape.vector),
        engine=str(release),
        width=shape.width,
        metric=metric_of(shape, index),
        rescales=False,
        tolerance=0.0,
    )


def _require_plain_partitions(shape: Shape, release: Release) -> None:
    if shape.partition_key is not None and not release.lite:
        raise UnfitCollection(
            f"collection {shape.collection} is spread over partitions by the field {shape.partition_key}, and "
            f"tuning such collections on {release} is not supported yet"
        )


def _cursor(partition: str, after: Pk | None) -> str:
    return json.dumps([partition, after])


def _outcome(found: bool, written: bool) -> Outcome:
    if not found:
        return Outcome.MISSING
    return Outcome.WRITTEN if written else Outcome.CHANGED
