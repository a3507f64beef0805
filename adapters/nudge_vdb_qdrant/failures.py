"""What a failure of the client means: told once, here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from nudge_vdb.errors import Busy, EngineError, Refused, TooLarge, Unknown, Unreachable

FAILURES = (ResponseHandlingException, UnexpectedResponse, ResourceExhaustedResponse, grpc.RpcError)
AWAY = (408, 502, 503, 504)
LOST = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
"""No answer, or a shard that gave none: a write may have reached some of the replicas."""
KEY = "set QDRANT_API_KEY to a key that may read and write this collection"


def reading(what: str) -> AbstractContextManager[None]:
    """Translate the failures of a read: whatever got lost, nothing has happened."""
    return _translated(what, Unreachable)


def writing(what: str) -> AbstractContextManager[None]:
    """Translate the failures of a write: where the answer got lost, it may have been carried out."""
    return _translated(what, Unknown)


@contextmanager
def _translated(what: str, lost: type[EngineError]) -> Iterator[None]:
    try:
        yield
    except FAILURES as exc:
        raise _meaning(what, exc, lost) from exc


def _meaning(what: str, failure: Exception, lost: type[EngineError]) -> EngineError:
    if isinstance(failure, ResourceExhaustedResponse):
        return Busy(f"{what}: Qdrant limits the rate of requests", float(failure.retry_after_s))
    if isinstance(failure, ResponseHandlingException):
        return lost(f"{what}: no answer from Qdrant ({failure.source}); is it running at this address?")
    if isinstance(failure, UnexpectedResponse):
        return _meaning_of_status(what, failure, lost)
    return _meaning_of_code(what, failure, lost)


def _meaning_of_code(what: str, failure: Any, lost: type[EngineError]) -> EngineError:  # noqa: ANN401 - grpc is untyped
    code, said = failure.code(), str(failure.details())[:300]
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Refused(f"{what}: Qdrant refuses access ({said}); {KEY}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return TooLarge(f"{what}: {said}") if _too_large(said) else Busy(f"{what}: {said}")
    if code in LOST:
        return lost(f"{what}: Qdrant answers {code.name}: {said}")
    return Refused(f"{what}: Qdrant answers {code.name}: {said}")


def _too_large(said: str) -> bool:
    return any(words in said for words in ("larger than", "split your request"))


def _meaning_of_status(what: str, failure: UnexpectedResponse, lost: type[EngineError]) -> EngineError:
    said = (failure.content or b"").decode(errors="replace")[:300]
    status = failure.status_code or 0
    if status in (401, 403):
        return Refused(f"{what}: Qdrant refuses access ({said}); {KEY}")
    if status == 413 or _too_large(said):
        return TooLarge(f"{what}: {said}")
    if status == 429:
        return Busy(f"{what}: {said}")
    if status in AWAY or status >= 500:
        return lost(f"{what}: Qdrant answers {status}: {said}")
    return Refused(f"{what}: Qdrant answers {status}: {said}")
