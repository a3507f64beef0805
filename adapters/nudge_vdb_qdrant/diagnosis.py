"""What is worth knowing of a collection before it is tuned: read, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from google.protobuf.internal import api_implementation
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import CollectionInfo

from nudge_vdb.contract import Ability, Remark, Traits, Weight
from nudge_vdb.errors import Refused
from nudge_vdb_qdrant.access import key_of_client, manages, may_write, minutes_left
from nudge_vdb_qdrant.failures import reading
from nudge_vdb_qdrant.fields import Limits
from nudge_vdb_qdrant.notes import FIRST_TO_KEEP_NOTES, version_of
from nudge_vdb_qdrant.points import PointStore
from nudge_vdb_qdrant.reading import by_stubs, manner_of
from nudge_vdb_qdrant.replicas import replica_remarks
from nudge_vdb_qdrant.scope import Scope

LOCAL_COMFORT = 20_000
"""Points up to which local mode, which looks at every one of them, is meant to be used."""
SOON = 60.0
"""Minutes."""
SEEN_ON = (1, 16)


@dataclass(frozen=True)
class Diagnosis:
    """A look at one collection; every method returns what is worth saying of one topic."""

    client: QdrantClient
    collection: str
    asked: str
    """What the address calls it, perhaps an alias."""
    traits: Traits
    points: PointStore
    limits: Limits
    scope: Scope
    local: bool

    @cached_property
    def info(self) -> CollectionInfo:
        """What the engine says of the collection."""
        with reading(self.collection):
            return self.client.get_collection(self.collection)

    @cached_property
    def writable(self) -> bool:
        """Whether the key may write points."""
        return may_write(self.client, self.collection)

    def remarks(self) -> list[Remark]:
        """Return all there is to say."""
        both = [*self.engine(), *self.alias(), *self.conditions(), *self.reading(), *self.writing(), *self.notes()]
        if self.local:
            return [*both, *self.size()]
        return [*both, *self.permissions(), *self.index(), *self.strictness(), *self.replicas()]

    def engine(self) -> list[Remark]:
        """Versions of server and client."""
        told = f"{self.traits.engine}, client {version('qdrant-client')}."
        if not self.local and version_of(self.traits.engine) < SEEN_ON:
            told += f" This adapter was tried on {_dotted(SEEN_ON)}; try it on a copy first."
            return [Remark("engine", told, Weight.WARNING)]
        return [Remark("engine", f"{told} Updates on a condition and inserts are not used, whatever it offers.")]

    def alias(self) -> list[Remark]:
        """Whose other name the address uses."""
        if self.asked == self.collection:
            return []
        told = f"{self.asked} is an alias of {self.collection}; versions belong to {self.collection}, and stay with it."
        return [Remark("alias", told)]

    def conditions(self) -> list[Remark]:
        """Whether the payload keys of the scope have an index."""
        bare = sorted(set(self.scope.values) - set(self.info.payload_schema))
        if self.local or not bare:
            return []
        told = f"No payload index on {', '.join(bare)}: every page looks at the payload of every point; create one."
        return [Remark("scope", told, Weight.WARNING)]

    def reading(self) -> list[Remark]:
        """How rows are read."""
        if self.local:
            return [Remark("reading", "By scroll, in this process.")]
        if not by_stubs(self.points):
            told = "over REST, three to four times slower than gRPC; open its port, or name it with grpc_port=."
            return [Remark("reading", f"{manner_of(self.points)} {told}", Weight.WARNING)]
        if api_implementation.Type() == "python":
            told = "protobuf runs in pure Python here, at a hundredth of its speed; install one with its C extension."
            return [Remark("reading", told, Weight.WARNING)]
        return [Remark("reading", f"{manner_of(self.points)} over gRPC, uncompressed.")]

    def writing(self) -> list[Remark]:
        """How rows are written."""
        batch = f", at most {self.limits.batch:,} points at a time" if self.limits.batch < 2**31 else ""
        return [Remark("writing", f"With update_vectors, waited for{batch}; payload and other vectors stay.")]

    def notes(self) -> list[Remark]:
        """Whether notes stay with the collection."""
        if Ability.NOTES not in self.traits.abilities:
            return [Remark("notes", f"Not kept: that takes a server of {_dotted(FIRST_TO_KEEP_NOTES)} or newer.")]
        if not self.local and not (self.writable and manages(key_of_client(self.client))):
            return [Remark("notes", "Not kept: that takes a key that manages all collections.")]
        return [Remark("notes", "Kept in the collection's metadata.")]

    def size(self) -> list[Remark]:
        """Whether local mode is the place for so many points."""
        with reading(self.collection):
            points = self.client.count(self.collection).count
        if points <= LOCAL_COMFORT:
            return []
        told = f"{points:,} points in local mode, which is made for {LOCAL_COMFORT:,}: run a server for speed."
        return [Remark("size", told, Weight.WARNING)]

    def permissions(self) -> list[Remark]:
        """What the key may do, and how long."""
        if not self.writable:
            told = (
                f"The key reads {self.collection} and may not write it: plans can be made, not applied; "
                f'set QDRANT_API_KEY to one with access "prw" to {self.collection}.'
            )
            return [Remark("permissions", told, Weight.OBSTACLE)]
        left = minutes_left(key_of_client(self.client))
        if left is not None and left < SOON:
            told = f"The key expires in {left:.0f} minutes; a run that it ends is taken up again with a new one."
            return [Remark("permissions", told, Weight.WARNING)]
        return [Remark("permissions", f"Points of {self.collection} may be read and written.")]

    def index(self) -> list[Remark]:
        """How searching stands."""
        return [*self._status(), *self._quantization()]

    def _status(self) -> list[Remark]:
        info = self.info
        vectors, points = info.indexed_vectors_count or 0, info.points_count or 0
        held = f"{info.status.value.capitalize()}: {vectors:,} vectors of {points:,} points are indexed"
        if info.status is models.CollectionStatus.GREEN:
            told = f"{held}. Searches with indexed_only miss moved rows until they are indexed again."
            return [Remark("index", told)]
        return [Remark("index", f"{held}. {_STATES[info.status]}", Weight.WARNING)]

    def _quantization(self) -> list[Remark]:
        held = self.info.config.params.vectors
        field = held.get(self.traits.vector) if isinstance(held, dict) else held
        kind = (field and field.quantization_config) or self.info.config.quantization_config
        if kind is None:
            return []
        name = type(kind).__name__.removesuffix("Quantization").lower()
        told = f"Searches score by {name} quantization; the vectors that are read and written are the originals."
        return [Remark("index", told)]

    def strictness(self) -> list[Remark]:
        """What strict mode does not let through."""
        strict = self.info.config.strict_mode_config
        if strict is None or not strict.enabled:
            return [Remark("limits", "Strict mode is off.")]
        set_ = {name: value for name, value in strict.model_dump(exclude_none=True).items() if name != "enabled"}
        told = f"Strict mode is on: {', '.join(f'{name}={value}' for name, value in set_.items()) or 'no limits'}."
        if strict.read_rate_limit or strict.write_rate_limit:
            told += (
                " With limits on the rate, a run waits whenever it is told to; lift them for the time if it is long."
            )
            return [Remark("limits", told, Weight.WARNING)]
        return [Remark("limits", told)]

    def replicas(self) -> list[Remark]:
        """How the shards and their copies are."""
        try:
            with reading(self.collection):
                cluster = self.client.collection_cluster_info(self.collection)
        except Refused:
            return [Remark("replicas", "The key may not see how shards and replicas are.")]
        return replica_remarks(self.info.config.params, cluster)


_STATES = {
    models.CollectionStatus.YELLOW: (
        "It is being optimised: searches are slower, and those with indexed_only miss rows, until it is green."
    ),
    models.CollectionStatus.GREY: "Optimisation waits for the next write, as after a restart; any write starts it.",
    models.CollectionStatus.RED: "Optimisation failed: see optimizer_status, and mend that first.",
}


def _dotted(numbers: tuple[int, int]) -> str:
    return ".".join(map(str, numbers))
