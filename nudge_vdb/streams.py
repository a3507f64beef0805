"""Standard streams that fail nobody: a report that cannot be printed is no failure of the run that it tells of."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class Unfailing:
    """A stream that notes its first failure, and passes over what is written after that.

    A full disk behind a redirection, a reader that has gone, or a terminal that hung up must not end a move halfway,
    nor give a run that was done the exit status of one that failed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Write *text*, if that is possible."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        self._try("flush")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)

    def _try(self, act: str, *given: str) -> None:
        try:
            if self.failure is None:
                getattr(self._stream, act)(*given)
        except (OSError, ValueError) as exc:
            self.failure = exc


@contextmanager
def unfailing_streams() -> Iterator[None]:
    """Let stdout and stderr fail nobody inside; at the end, say on stderr where the report could not be printed."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # of what the terminal lacks
    wrapped = [None if stream is None else Unfailing(stream) for stream in before]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in wrapped)
    try:
        yield
    finally:
        _end(wrapped[0])
        sys.stdout, sys.stderr = before


def _end(out: Unfailing | None) -> None:
    if out is None:
        return
    out.flush()
    if out.failure is None:
        return
    if not isinstance(out.failure, BrokenPipeError):  # then the reader has had enough
        print(
            f"the report could not be printed ({out.failure}); what was done stands: 'nudge-vdb status ADDRESS' and "
            "'nudge-vdb history ADDRESS' tell it",
            file=sys.stderr,
        )
