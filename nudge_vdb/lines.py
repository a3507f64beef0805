"""Lines of text that others wrote: from files, pipes and standard input, plain or compressed."""

from __future__ import annotations

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from types import ModuleType
from typing import IO, cast

from nudge_vdb.errors import BadJudgements
from nudge_vdb.foreign import Unreadable, decoded

STDIN = Path("-")
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
COMPRESSED = (".gz", ".zst")


def name_of(path: Path) -> str:
    """Return what messages call *path*."""
    return "standard input" if path == STDIN else str(path)


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every line of *path* that is not blank, with the words that name its place; read once, from its start.

    Raises:
        BadJudgements: it cannot be read, or is no UTF-8 text.
    """
    with _unpacked(path) as held:
        number = 0
        for number, line in enumerate(_whole(held, path), start=1):
            where = f"{name_of(path)} line {number}"
            try:
                text = decoded(line).rstrip("\r\n")
            except Unreadable as exc:
                raise BadJudgements(f"{where} {exc}") from exc
            if text.strip():
                yield where, text


def _whole(held: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        yield from held
    except _broken() as exc:
        raise BadJudgements(f"{name_of(path)} cannot be read to its end: {exc}; it may be cut off") from exc


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open *path*, and what is packed in it: the first bytes tell, since a pipe has no ending to its name."""
    with _opened(path) as held:
        begin = held.peek(4)
        if begin.startswith(GZIP):
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=held))
        elif begin.startswith(ZSTD):
            yield cast("IO[bytes]", _zstd(path).open(held))
        else:
            yield held


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    if path == STDIN:
        held = sys.stdin.buffer
        yield held if isinstance(held, BufferedReader) else BufferedReader(cast(RawIOBase, held))
        return
    try:
        require_readable(path)
        opened = path.open("rb")
    except OSError as exc:
        raise BadJudgements(f"{path} cannot be read: {exc.strerror or exc}") from exc
    with opened as held:
        yield held


def require_readable(path: Path) -> None:
    """Return if *path* is a file or a pipe, which ends; an OSError says what else is wrong.

    Raises:
        BadJudgements: it is a folder, a socket or a device.
    """
    mode = path.stat().st_mode
    is_open_ended = stat.S_ISCHR(mode) and path != Path(os.devnull) and not _is_terminal(path)
    if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode) or stat.S_ISBLK(mode) or is_open_ended:
        raise BadJudgements(f"{path} is no regular file and no pipe; give a file of judgements")


def _is_terminal(path: Path) -> bool:
    with path.open("rb", buffering=0) as device:
        return device.isatty()


def _zstd(path: Path) -> ModuleType:
    try:
        return _zstd_module()
    except ImportError as exc:
        raise BadJudgements(
            f"{name_of(path)} is packed by zstd, which Python reads from 3.14 on; until then, "
            "pip install 'nudge-vdb[zstd]', or unpack it with 'zstd -d'"
        ) from exc


def _zstd_module() -> ModuleType:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _broken() -> tuple[type[Exception], ...]:
    """Return what reading a file may raise, packed or not."""
    try:
        return (OSError, EOFError, zlib.error, _zstd_module().ZstdError)
    except ImportError:
        return (OSError, EOFError, zlib.error)
