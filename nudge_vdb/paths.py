"""Paths as people give them: on this machine, and never a place that only looks like one."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from nudge_vdb.errors import BadOption

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
"""Two characters at least: C:/ is a drive. pathlib makes one slash of two, so one is looked for."""
_MOUNTS = Path("/proc/self/mountinfo")
_EPHEMERAL = {"tmpfs": "memory (tmpfs)", "ramfs": "memory (ramfs)", "overlay": "the layer of a container (overlay)"}


def local_path(given: str | Path, what: str) -> Path:
    """Return *given* as an absolute path on this machine; *what* names it in the message, such as "--state".

    Raises:
        BadOption: it is empty, has a scheme such as s3://, is of a user without a home, or cannot be resolved.
    """
    text = str(given)
    if not text.strip():
        raise BadOption(f"{what} is empty; give a path (a variable that is not set leaves it so)")
    scheme = _SCHEME.match(text)
    if scheme:
        raise BadOption(
            f"{what} {text}: {scheme[1]}:// is not supported, only paths on this machine; give a folder or file that "
            "is mounted here"
        )
    if "\0" in text:
        raise BadOption(f"{what} {text!r} holds a zero byte; give a path")
    try:
        path = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - as it is named, links not followed
    except RuntimeError as exc:
        raise BadOption(f"{what} {text}: {exc}; give a path that begins with /") from exc
    except FileNotFoundError as exc:
        raise BadOption(f"{what} {text}: the working folder is gone; give a path that begins with /") from exc
    _require_reachable(path, f"{what} {text}")
    return path


def _require_reachable(path: Path, named: str) -> None:
    """Refuse a path that the system will not even look for, such as one that is too long."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise BadOption(f"{named} cannot be used: {exc.strerror}; give another path") from exc


def require_posix(system: str = os.name) -> None:
    """Return on Linux and macOS.

    Raises:
        BadOption: elsewhere, where neither a rename nor a folder can be made durable.
    """
    if system != "posix":
        raise BadOption(
            f"nudge-vdb runs on Linux and macOS; {system!r} has no way to make a rename durable, which undo rests on: "
            "on Windows, run it in WSL 2"
        )


def default_folder() -> Path:
    """Return the per-user folder for states.

    Raises:
        BadOption: nobody knows the home of this user.
    """
    try:
        folder = platformdirs.user_state_dir("nudge-vdb")
    except RuntimeError:
        folder = "~"
    if folder.startswith("~"):
        raise BadOption(
            "this user has no home folder, so there is no default place for the state; name one with --state or "
            "$NUDGE_VDB_STATE"
        )
    return Path(folder)


def is_shared(folder: Path) -> bool:
    """Tell whether people gave the group of *folder* the right to write into it, and nobody else."""
    return folder.stat().st_mode & 0o1022 == 0o0020


def open_to_others(folder: Path) -> bool:
    """Tell whether any user of this machine may look into *folder*."""
    return folder.is_dir() and bool(folder.stat().st_mode & 0o005)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    place: Path
    kind: str


def mounts(table: str) -> list[Mount]:
    """Return the file systems that *table*, in the form of /proc/self/mountinfo, lists."""
    found = []
    for line in table.splitlines():
        before, separator, behind = line.partition(" - ")
        fields = before.split()
        if separator and len(fields) > 4 and behind:
            place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
            found.append(Mount(Path(place), behind.split()[0]))
    return found


def why_ephemeral(folder: Path, table: str | None = None) -> str | None:
    """Return why what is in *folder* may vanish with the machine or the container, None where nothing says so.

    *table* is read from /proc/self/mountinfo unless it is given.
    """
    place = folder.resolve()
    if table is None:
        table = _MOUNTS.read_text(errors="replace") if _MOUNTS.exists() else ""
    around = [mount for mount in mounts(table) if place.is_relative_to(mount.place)]
    kind = max(around, key=lambda mount: len(mount.place.parts)).kind if around else ""
    if kind in _EPHEMERAL:
        return f"it lies in {_EPHEMERAL[kind]}"
    temporary = {Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm")}
    return "it lies in a temporary folder" if any(place.is_relative_to(each) for each in temporary) else None
