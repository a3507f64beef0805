"""Requests in the protocol that the client ships.

The client's own rows are slower to read by an order of magnitude, do not give JSON back byte for byte, and are sent
again, unasked, when an answer is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from pymilvus import MilvusClient, MilvusException
from pymilvus.grpc_gen import milvus_pb2

from nudge_vdb_milvus.failures import reading, writing

FieldData = Any  # schema_pb2.FieldData: one column of a reply
LATEST = 0
"""In place of a time: whatever is acknowledged when the request arrives."""

MOST_ROWS = 16_384  # a server refuses more
_STRONG, _CUSTOMIZED = 0, 4  # common_pb2.ConsistencyLevel
_WITHOUT_TIME = {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED}


class Wire:
    """One collection of the client's database."""

    def __init__(self, client: MilvusClient, collection: str, timeout: float) -> None:
        self.collection = collection
        self._timeout = timeout
        # Neither is public. The stub carries the client's credentials; it knows nothing of its database.
        self._stub = client._get_connection()._stub
        self._database = client._config.db_name

    def now(self) -> int:
        """Return the engine's time: reads at it see all that is acknowledged by now, and do not wait for more."""
        with reading(self.collection):
            try:
                answer = self._stub.AllocTimestamp(milvus_pb2.AllocTimestampRequest(), timeout=self._timeout)
            except grpc.RpcError as exc:
                if exc.code() in _WITHOUT_TIME:
                    return LATEST
                raise
            _check(answer.status)
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
        with reading(self.collection):
            answer = self._stub.Query(request, timeout=self._timeout)
            _check(answer.status)
        return {column.field_name: column for column in answer.fields_data}

    def upsert(self, columns: Sequence[FieldData], count: int, partition: str) -> None:
        """Replace *count* whole rows; whatever *columns* do not hold is lost."""
        request = milvus_pb2.UpsertRequest(
            db_name=self._database,
            collection_name=self.collection,
            partition_name=partition,
            fields_data=columns,
            num_rows=count,
        )
        with writing(self.collection):
            _check(self._stub.Upsert(request, timeout=self._timeout).status)


def _check(status: Any) -> None:  # noqa: ANN401 - common_pb2.Status
    if status.code or status.error_code:
        raise MilvusException(status.code or status.error_code, status.reason)
