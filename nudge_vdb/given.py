"""What callers give to the verbs: a collection or its address, and judgements; else words say what is wanted."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar, cast

from nudge_vdb.backends import connect, fault_of
from nudge_vdb.contract import Collection
from nudge_vdb.errors import BackendUnavailable, BadJudgements, BadOption
from nudge_vdb.judgements import Judgements

P = ParamSpec("P")
R = TypeVar("R")

WANTED = "a collection, such as nudge_vdb.connect(ADDRESS) returns, or its address as text: backend://host/collection"
FOREIGN = 3
"""A class that lacks more members of a collection than this is no collection at all, not an old one."""


def taking_addresses(verb: Callable[Concatenate[Collection, P], R]) -> Callable[Concatenate[Collection | str, P], R]:
    """Let *verb* take an address in place of its collection.

    What is opened so is closed again, unless the answer holds it.

    Raises:
        BadOption: what was given is neither.
        BackendUnavailable: it keeps another contract than this.
    """

    @wraps(verb)
    def taking(collection: Collection | str, *args: P.args, **kwargs: P.kwargs) -> R:
        opened = required_collection(collection)
        answer = None
        try:
            answer = verb(opened, *args, **kwargs)
        finally:
            if opened is not collection and getattr(answer, "collection", None) is not opened:
                opened.close()
        return answer

    return cast(Callable[Concatenate[Collection | str, P], R], taking)  # which may be named, too


def required_collection(given: Collection | str) -> Collection:
    """Return the collection that was *given*, or is at that address."""
    if isinstance(given, str):
        return connect(given)
    fault = fault_of(given)
    if fault is None and not isinstance(given, type):
        return given
    if _is_foreign(given):
        raise BadOption(f"{told(given)} was given; expected {WANTED}")
    raise BackendUnavailable(f"{type(given).__module__}.{type(given).__qualname__} {fault}")


def require_judgements(**given: object) -> None:
    """Return if all that is *given* are judgements, or None.

    Raises:
        BadJudgements: one is something else; the message says what.
    """
    for name, each in given.items():
        if each is not None and not isinstance(each, Judgements):
            raise BadJudgements(
                f"{name}: {told(each)} was given; expected judgements, such as nudge_vdb.Judgements.load(FILE) or "
                "Judgements.from_arrays(vectors, relevant) returns"
            )


def told(given: object) -> str:
    """Return what *given* is, in words, without what it holds."""
    if isinstance(given, type):
        return f"the class {given.__name__}, not an object of it,"
    if inspect.isawaitable(given):
        return f"a {type(given).__name__} that nobody awaited (asynchronous clients cannot be used)"
    return f"a {type(given).__name__}"


def _is_foreign(given: object) -> bool:
    members = [name for name in vars(Collection) if not name.startswith("_")]
    return isinstance(given, type) or len([name for name in members if not hasattr(type(given), name)]) > FOREIGN
