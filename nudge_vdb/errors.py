"""Everything that can go wrong, as one tree; the class decides the exit status and whether a retry makes sense.

    NudgeError                     1  anything else
    ├── BadInput                   2  the caller can mend it; nothing was written
    │   ├── BadAddress
    │   ├── BadJudgements
    │   ├── BadOption
    │   ├── BackendUnavailable        no such backend, two of one name, or its client is missing
    │   ├── UnfitCollection           the collection cannot be tuned as it is
    │   └── StateConflict             what the state holds does not fit what was asked
    ├── Unfinished                 1  rows were written and the move is not over: resume it, or roll it back
    ├── NotProven                  3  the plan's gain is not proven; nothing was written
    ├── Stopped                  130  the run was asked to stop, and can be resumed
    ├── Locked                     5  another run holds the state of this collection
    ├── EngineError                6  the database said no, or nothing
    │   ├── Busy                      try again, later
    │   ├── TooLarge                  try again, with less
    │   ├── Unreachable               nothing was sent; try again
    │   ├── Unknown                   sent, and no answer: read back before anything else
    │   ├── CursorExpired             the scan has to be started again
    │   ├── ContractBroken            a backend returned what the contract does not allow
    │   └── Refused                   will never work
    └── StateDamaged               7  a file of the state is not what was written

Exit status 0 is success and 4 is success with rows skipped; neither is an error.
"""

from __future__ import annotations

from typing import ClassVar

from nudge_vdb.secret import hidden

DONE = 0
ROWS_SKIPPED = 4


class NudgeError(Exception):
    """Any failure that nudge-vdb reports; its words hold no key, token or password that is known."""

    exit_status: ClassVar[int] = 1

    def __init__(self, *words: object) -> None:
        super().__init__(*(hidden(each) if isinstance(each, str) else each for each in words))


class BadInput(NudgeError):
    """The caller gave something unusable; nothing was written."""

    exit_status = 2


class BadAddress(BadInput):
    """The address of a collection cannot be read or has an option nobody knows."""


class BadJudgements(BadInput):
    """The judgements cannot be used; the message names the line or the query."""


class BadOption(BadInput):
    """An option has a value outside its range."""


class BackendUnavailable(BadInput):
    """No installed package can open this kind of address."""


class UnfitCollection(BadInput):
    """The collection cannot be tuned as it is."""


class StateConflict(BadInput):
    """What the state holds does not fit what was asked."""


class Unfinished(NudgeError):
    """A move stopped after it had begun to write; the message says how to go on. Exit status 1."""


class NotProven(NudgeError):
    """The plan's gain is not proven, so it is not applied."""

    exit_status = 3


class Stopped(NudgeError):
    """The run was asked to stop, and did so between two batches."""

    exit_status = 130


class Locked(NudgeError):
    """Another run holds the state of this collection."""

    exit_status = 5


class EngineError(NudgeError):
    """The database could not be reached, or refused."""

    exit_status = 6


class Busy(EngineError):
    """The engine asks for patience; *retry_after* is in seconds, None where it did not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(EngineError):
    """The request was too large for the engine; a smaller one may pass."""


class Unreachable(EngineError):
    """The engine cannot be reached; nothing was sent. *passes* is False where somebody has to do something first."""

    def __init__(self, message: str, *, passes: bool = True) -> None:
        super().__init__(message)
        self.passes = passes


class Unknown(EngineError):
    """The request was sent and its answer never came: it may or may not have been carried out."""


class Refused(EngineError):
    """The engine refused, and would refuse again."""


class CursorExpired(EngineError):
    """The engine no longer knows the cursor of a scan, which has to be started again."""


class ContractBroken(EngineError):
    """A backend returned what the contract does not allow: a fault of its package; the message names it."""


class StateDamaged(NudgeError):
    """A file of the state is missing or is not what was written."""

    exit_status = 7
