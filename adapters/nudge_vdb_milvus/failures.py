"""What Milvus and its client raise, translated once into the errors of nudge-vdb."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc
from pymilvus import MilvusException

from nudge_vdb.errors import Busy, EngineError, Refused, TooLarge, Unknown, Unreachable
from nudge_vdb.foreign import number_in
from nudge_vdb.secret import scrub

_UNEXPECTED = 1
_CANNOT_CONNECT = 2
SLOWEST = 1e-3
"""Requests a second: a limit below is no limit to wait for."""
_RATE_LIMIT = 8
_NOT_LOADED = 101
_GAVE_UP = "TaskCondition context Done"
"""What a server says, under the code for anything, of a request that it gave up while it was starting or ending."""
_CLOSED = "closed channel"
"""What gRPC raises, as a ValueError, where a call is made after the channel was closed."""
_NO_SENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, StopIteration)
"""What the client and we raise over an answer that lacks what it must hold."""
_DISTRUST = ("CERTIFICATE_VERIFY_FAILED", "Peer name", "CERTIFICATE_REQUIRED", "CERTIFICATE_UNKNOWN")

_REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}


def reading(what: str) -> AbstractContextManager[None]:
    """Translate the failures of reading *what*: an answer that never came is ``Unreachable``."""
    return _translated(f"reading {what}", Unreachable)


def writing(what: str) -> AbstractContextManager[None]:
    """Translate the failures of writing *what*: an answer that never came is ``Unknown``."""
    return _translated(f"writing {what}", Unknown)


@contextmanager
def _translated(doing: str, lost: type[EngineError]) -> Iterator[None]:
    try:
        yield
    except (MilvusException, grpc.RpcError) as exc:
        scrub(exc)
        raise _failure(exc, doing, lost) from exc
    except _NO_SENSE as exc:
        if isinstance(exc, ValueError) and _CLOSED in str(exc):
            raise Refused(f"{doing}: the collection was closed; open it again") from exc
        kind = Refused if lost is Unreachable else lost  # what was sent may have been written all the same
        raise kind(
            f"{doing}: the answer makes no sense ({type(exc).__name__}: {exc}); look whether Milvus is at that address "
            "and no proxy before it answers in its place"
        ) from exc


def _failure(exc: Exception, doing: str, lost: type[EngineError]) -> EngineError:
    story = f"{doing}: {_details(exc)}"
    if grpc.StatusCode.UNAUTHENTICATED in map(status_of, _causes(exc)):
        return Refused(f"{doing}: Milvus did not accept the credentials; set MILVUS_TOKEN to user:password or a key")
    if any(sign in story for sign in _DISTRUST):
        return Refused(f"{story}; the certificate is not trusted: name the authority that signed it with tls_ca=FILE")
    if isinstance(exc, grpc.RpcError) or status_of(exc) is not None:
        return _of_transport(status_of(exc), story, lost)
    return _of_engine(exc, story, lost)


def _of_transport(status: grpc.StatusCode | None, story: str, lost: type[EngineError]) -> EngineError:
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return TooLarge(f"{story}; more than a message may hold")
    return Refused(story) if status in _REFUSALS else lost(f"{story}; no answer came")


def _of_engine(exc: Exception, story: str, lost: type[EngineError]) -> EngineError:
    code = getattr(exc, "code", None)
    # The write may have been on its way when the client lost its channel and then could not connect again.
    if code == _CANNOT_CONNECT:
        return lost(f"{story}; is Milvus running at that address, and does it speak TLS or not, as the address says?")
    if code == _NOT_LOADED:
        return Busy(f"{story}; load the collection with client.load_collection")
    if code == _RATE_LIMIT:
        return Busy(f"{story}; Milvus limits how often it is asked", _between(story))
    if _GAVE_UP in story:
        return lost(story)
    if code == _UNEXPECTED and not getattr(exc, "retriable", False):
        return Refused(f"{story}; that is a failure within Milvus: its log says more, or a file of it may be damaged")
    return Busy(story) if getattr(exc, "retriable", False) else Refused(story)


def _between(story: str) -> float | None:
    """Return how many seconds the rate that *story* names leaves between two requests, None where it names none."""
    found = re.search(r"\[rate=([0-9.e+-]+)\]", story)
    rate = number_in(found[1]) if found else None
    return 1 / rate if rate and rate > SLOWEST else None


def is_forbidden(exc: EngineError) -> bool:
    """Tell whether Milvus refused for want of a privilege."""
    return status_of(exc.__cause__) is grpc.StatusCode.PERMISSION_DENIED


def status_of(exc: BaseException | None) -> grpc.StatusCode | None:
    """Return the gRPC status of *exc*; the client also passes one on as the code of its own exception."""
    code = getattr(exc, "code", None)
    code = code() if callable(code) else code
    return code if isinstance(code, grpc.StatusCode) else None


def _causes(exc: BaseException) -> list[BaseException]:
    """Return *exc* and what it was raised from; the client raises exceptions from themselves, hence the check."""
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    return chain


def _details(exc: Exception) -> str:
    if isinstance(exc, MilvusException):
        hidden = [_details(cause) for cause in _causes(exc)[1:] if isinstance(cause, grpc.RpcError)][:1]
        return ": ".join([f"{exc.message} (code {exc.code})", *hidden])
    details = exc.details() if hasattr(exc, "details") else type(exc).__name__
    status = status_of(exc)
    return f"{details} ({status.name})" if status else str(details)
