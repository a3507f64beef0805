"""What a failure of the client means: told once, here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from json import JSONDecodeError
from typing import Any

import grpc
from httpx import TimeoutException
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from nudge_vdb.errors import Busy, EngineError, Refused, TooLarge, Unknown, Unreachable
from nudge_vdb.foreign import parsed
from nudge_vdb.secret import scrub

FAILURES = (
    ResponseHandlingException,
    UnexpectedResponse,
    ResourceExhaustedResponse,
    grpc.RpcError,
    JSONDecodeError,  # how the client finds out that what answers is no Qdrant,
    UnicodeDecodeError,
    RecursionError,
    AssertionError,  # or none that it knows
    sqlite3.Error,  # what local mode keeps its points in
)
AWAY = (408, 502, 503, 504)
LOST = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)
"""No answer, or a shard that gave none: a write may have reached some of the replicas."""
KEY = (
    "set QDRANT_API_KEY to a key that may read and write this collection; "
    "one for a single collection knows it by its own name only, not by an alias"
)
OTHER = (
    "check host and port: Qdrant has REST at 6333 and gRPC at 6334, unless it was told otherwise (?grpc_port=); "
    "if it speaks TLS, write qdrant+https://"
)
HINTS = {
    "Hostname mismatch": "use the name that the certificate was made for",
    "IP address mismatch": "use the name that the certificate was made for",
    "CERTIFICATE_VERIFY_FAILED": "if its certificate is signed by an authority of your own, name that with tls_ca=FILE",
    "CERTIFICATE_REQUIRED": "it asks for a certificate: give tls_cert=FILE and tls_key=FILE",
    "WRONG_VERSION_NUMBER": "it does not speak TLS there; write qdrant:// instead of qdrant+https://",
    "illegal request line": OTHER,
    "ExpiredSignature": "the key in QDRANT_API_KEY has expired; set a new one and run the same again",
}
"""What to do about failures that will not go away by themselves, by words that tell them."""
TOO_LARGE = ("larger than", "split your request", "Condition size limit reached", 'for "limit"')


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
        scrub(exc)
        raise _meaning(what, exc, lost) from exc


def _meaning(what: str, failure: Exception, lost: type[EngineError]) -> EngineError:
    hint = _hint(failure)
    if hint:
        return Refused(f"{what}: {_told(failure)}; {hint}")
    if isinstance(failure, sqlite3.Error):
        return _meaning_of_file(what, failure)
    if isinstance(failure, ResourceExhaustedResponse):
        return Busy(f"{what}: Qdrant limits the rate of requests", float(failure.retry_after_s))
    if _strange(failure):
        return Refused(f"{what}: what answers is no Qdrant ({_told(failure)}); {OTHER}")
    if isinstance(failure, ResponseHandlingException):
        story = f"{what}: no answer from Qdrant ({_told(failure)}); is it running at this address?"
        waited = isinstance(failure.source, TimeoutException)  # as long as the address allows
        return Unreachable(story, passes=not waited) if lost is Unreachable else lost(story)
    if isinstance(failure, UnexpectedResponse):
        return _meaning_of_status(what, failure, lost)
    return _meaning_of_code(what, failure, lost)


def _meaning_of_file(what: str, failure: sqlite3.Error) -> EngineError:
    if "locked" in str(failure):
        return Busy(f"{what}: another process has the file of local mode ({failure})")
    return Refused(
        f"{what}: the file of local mode, storage.sqlite, cannot be used: {failure}; look at its permissions and at "
        "the disk, or restore the folder from a backup"
    )


def _hint(failure: Exception) -> str:
    return next((hint for words, hint in HINTS.items() if words in _told(failure)), "")


def _told(failure: Any) -> str:  # noqa: ANN401 - each kind keeps its words somewhere else
    """Return what the engine, or what is in its place, has to say."""
    if isinstance(failure, UnexpectedResponse):
        return _in_words((failure.content or b"").decode(errors="replace"))
    if isinstance(failure, grpc.RpcError):
        return str(failure.details())[:300]
    return str(failure.source if isinstance(failure, ResponseHandlingException) else failure)[:300]


def _in_words(answer: str) -> str:
    try:
        told: Any = parsed(answer)
        return str(told["status"]["error"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer[:300]


def _strange(failure: Exception) -> bool:
    """Tell whether *failure* is the answer of something else than Qdrant, whose 404 is in JSON."""
    if isinstance(failure, ResponseHandlingException):
        return isinstance(failure.source, ValidationError)
    if isinstance(failure, UnexpectedResponse):
        return failure.status_code in (404, 405) and not (failure.content or b"").startswith(b"{")
    return isinstance(failure, JSONDecodeError | UnicodeDecodeError | RecursionError | AssertionError)


def _meaning_of_code(what: str, failure: Any, lost: type[EngineError]) -> EngineError:  # noqa: ANN401 - grpc is untyped
    code, said = failure.code(), _told(failure)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Refused(f"{what}: Qdrant refuses access ({said}); {KEY}")
    if _too_large(said):
        return TooLarge(f"{what}: {said}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Busy(f"{what}: {said}")
    if code in LOST:
        return lost(f"{what}: Qdrant answers {code.name}: {said}")
    return Refused(f"{what}: Qdrant answers {code.name}: {said}")


def _too_large(said: str) -> bool:
    return any(words in said for words in TOO_LARGE)


def _meaning_of_status(what: str, failure: UnexpectedResponse, lost: type[EngineError]) -> EngineError:
    said, status = _told(failure), failure.status_code or 0
    if status in (401, 403):
        return Refused(f"{what}: Qdrant refuses access ({said}); {KEY}")
    if status == 413 or _too_large(said):
        return TooLarge(f"{what}: {said}")
    if status == 429:
        return Busy(f"{what}: {said}")
    if status in AWAY or status >= 500:
        return lost(f"{what}: Qdrant answers {status}: {said}")
    return Refused(f"{what}: Qdrant answers {status}: {said}")
