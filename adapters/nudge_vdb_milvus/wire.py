"""Requests in the protocol that the client ships, over a channel of our own.

The client's own rows are slower to read by an order of magnitude, do not give JSON back byte for byte, and are sent
again, unasked, when an answer is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from pymilvus import MilvusException
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from nudge_vdb.errors import Busy
from nudge_vdb_milvus.endpoint import Endpoint
from nudge_vdb_milvus.failures import reading, writing
from nudge_vdb_milvus.pacing import Pacing

FieldData = Any  # schema_pb2.FieldData: one column of a reply
LATEST = 0
"""In place of a time: whatever is acknowledged when the request arrives."""

MOST_ROWS = 16_384  # a server refuses more
CAN_MERGE = "partial_update" in milvus_pb2.UpsertRequest.DESCRIPTOR.fields_by_name
"""Whether the client's requests have a place for the flag without which servers take a part of a row for all of it."""

_STRONG, _CUSTOMIZED = 0, 4  # common_pb2.ConsistencyLevel
_WITHOUT_TIME = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}
_MERGE = {"partial_update": True} if CAN_MERGE else {}  # Milvus Lite merges whatever it is sent


class Wire:
    """One collection of one database."""

    def __init__(self, endpoint: Endpoint, collection: str, timeout: float) -> None:
        self.collection = collection
        self._timeout = timeout
        self._database = endpoint.database
        self._channel = endpoint.channel()
        self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
        self._metadata = endpoint.metadata
        self._pacing = Pacing(most=timeout)

    def now(self) -> int:
        """Return the engine's time: reads at it see all that is acknowledged by now, and do not wait for more."""
        with reading(self.collection):
            try:
                answer = self._call(self._stub.AllocTimestamp, milvus_pb2.AllocTimestampRequest())
            except grpc.RpcError as exc:
                if exc.code() in _WITHOUT_TIME:
                    return LATEST
                raise
            return int(answer.timestamp)

    def query(
        self, where: str, fields: Sequence[str], partition: str, at: int, options: Mapping[str, str] | None = None
    ) -> dict[str, FieldData]:
        """Return the columns *fields* of the rows of *partition* (empty: of all) that pass *where*, by name."""
        request = milvus_pb2.QueryRequest(
            db_name=self._database,
            collection_name=self.collection,
            expr=where,
            output_fields=fields,
            partition_names=[partition] if partition else [],
            guarantee_timestamp=at,
            consistency_level=_CUSTOMIZED if at else _STRONG,
            use_default_consistency=False,
        )
        for name, value in (options or {}).items():
            request.query_params.add(key=name, value=value)
        self._pacing.turn()
        try:
            with reading(self.collection):
                answer = self._call(self._stub.Query, request)
        except Busy as exc:
            self._pacing.slow_down(exc.retry_after)
            raise
        return {column.field_name: column for column in answer.fields_data}

    def upsert(self, columns: Sequence[FieldData], count: int, partition: str) -> None:
        """Replace *count* whole rows; whatever *columns* do not hold is lost."""
        self._upsert(columns, count, partition, {})

    def merge(self, columns: Sequence[FieldData], count: int, partition: str) -> None:
        """Replace the *columns* of *count* rows and nothing else, on an engine that merges."""
        self._upsert(columns, count, partition, _MERGE)

    def delete(self, where: str, partition: str) -> None:
        """Delete the rows of *partition* (empty: of all) that pass *where*."""
        request = milvus_pb2.DeleteRequest(
            db_name=self._database, collection_name=self.collection, partition_name=partition, expr=where
        )
        with writing(self.collection):
            self._call(self._stub.Delete, request)

    def close(self) -> None:
        """Close the channel; may be called again."""
        self._channel.close()

    def _upsert(self, columns: Sequence[FieldData], count: int, partition: str, flags: Mapping[str, bool]) -> None:
        request = milvus_pb2.UpsertRequest(
            db_name=self._database,
            collection_name=self.collection,
            partition_name=partition,
            fields_data=columns,
            num_rows=count,
            **flags,
        )
        with writing(self.collection):
            self._call(self._stub.Upsert, request)

    def _call(self, method: Any, request: Any) -> Any:  # noqa: ANN401 - a method of the stub and its messages
        answer = method(request, timeout=self._timeout, metadata=self._metadata)
        if answer.status.code or answer.status.error_code:
            raise MilvusException(answer.status.code or answer.status.error_code, answer.status.reason)
        return answer
