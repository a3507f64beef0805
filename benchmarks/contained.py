"""A process that may hold so many bytes and no more, the page cache of what it reads and writes included."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
LIMITS = ((GROUPS / "memory", "memory.limit_in_bytes"), (GROUPS, "memory.max"))
"""Where control groups of version 1 are, and of version 2, and what holds their limit."""
ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@contextmanager
def contained(command: Sequence[str], limit: int) -> Iterator[list[str]]:
    """Yield what runs *command* in a control group of *limit* bytes, whose kernel kills it if it holds more.

    Raises:
        OSError: this user may not make one here.
    """
    parent, name = LIMITS[0] if LIMITS[0][0].is_dir() else LIMITS[1]
    group = parent / f"nudge_vdb_{os.getpid()}"
    group.mkdir()
    try:
        (group / name).write_text(str(limit))
        yield ["sh", "-c", ENTER, str(group), *command]
    finally:
        group.rmdir()


def out_of_cache(folder: Path) -> None:
    """Let the kernel forget the files in *folder*, so that whoever reads them next is charged for it."""
    for path in folder.glob("*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
