"""Files that are either there and whole, or not there: the one place that knows about fsync, rename and digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.errors import Locked, StateDamaged
from nudge_vdb.foreign import mapped_array, parsed
from nudge_vdb.mapped import release
from nudge_vdb.paths import is_shared

BLOCK = 1 << 20
PRIVATE, SHARED = 0o600, 0o060
PRIVATE_FOLDER, SHARED_FOLDER = 0o700, 0o2070
"""The group's bit lets new files belong to the group of the folder."""
UNCHANGEABLE = (PermissionError, NotImplementedError)
"""What a file system says that keeps no rights, or a file that another of the group left behind."""


def write_bytes(path: Path, content: bytes) -> None:
    """Make *path* hold *content*, or leave it as it was if anything dies on the way."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        keep_private(temporary)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Make *path* hold *content* as JSON that people can read."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return *content* as the JSON that :func:`write_json` writes, the same for the same content."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in *path*.

    Raises:
        StateDamaged: it is missing or is no JSON object.
    """
    return _parsed(path, _read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StateDamaged(f"{path} cannot be read: {exc}; restore it from a backup of the state") from exc


def _parsed(path: Path, held: bytes) -> dict[str, Any]:
    try:
        content = parsed(held)
    except ValueError as exc:
        raise StateDamaged(f"{path} cannot be read: {exc}; restore it from a backup of the state") from exc
    if not isinstance(content, dict):
        raise StateDamaged(f"{path} does not hold a JSON object; restore it from a backup of the state")
    return content


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return *facts* with a digest of themselves."""
    return {**facts, "digest": hashlib.sha256(json_bytes(facts)).hexdigest()}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the facts in *path*, their digest included.

    Raises:
        StateDamaged: it is missing, or no byte for byte what :func:`sealed` facts look like.
    """
    held = _read(path)
    content = _parsed(path, held)
    facts = {name: value for name, value in content.items() if name != "digest"}
    if held != _sealed_bytes(facts):
        raise StateDamaged(f"{path} is not what was written; restore it from a backup of the state")
    return content


def _sealed_bytes(facts: Mapping[str, Any]) -> bytes:
    try:
        return json_bytes(sealed(facts))
    except RecursionError:  # less depth can be written than read, and none of ours is so deep
        return b""


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Make *path* a .npy file of *array*; durable when it returns. What was mapped of *array* is let go of."""
    with path.open("wb") as file:
        keep_private(path)
        header = np.lib.format.header_data_from_array_1_0(array) | {"fortran_order": False}
        np.lib.format.write_array_header_1_0(file, header)
        rows = max(1, BLOCK // max(1, array[:1].nbytes))
        for first in range(0, len(array), rows):
            file.write(array[first : first + rows].tobytes())
            release(array)
        file.flush()
        os.fsync(file.fileno())


def put_array(path: Path, array: NDArray[Any]) -> None:
    """Make *path* a .npy file of *array*, or leave it as it was if anything dies on the way."""
    content = BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
    write_bytes(path, content.getvalue())


def read_array(path: Path) -> NDArray[Any]:
    """Return the array in *path*, mapped, read-only.

    Raises:
        StateDamaged: it is missing or no .npy file.
    """
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        return mapped_array(path)
    except (OSError, ValueError) as exc:
        raise StateDamaged(f"{path} cannot be read: {exc}; restore it from a backup of the state") from exc


def append_line(path: Path, offset: int, line: bytes) -> None:
    """Write *line* at *offset* of *path*, dropping the torn line that a dying run left there; durable when it returns.

    Raises:
        Locked: a whole line stands there, or the file is shorter: another run has written to it.
    """
    if not path.exists():
        write_bytes(path, b"")
    with path.open("r+b") as file:
        # A run that slept after it had looked whether it still holds the state would cut off what another has added.
        if file.seek(0, os.SEEK_END) < offset or b"\n" in _rest(file, offset):
            raise Locked(f"another run has written to {path}, which this run no longer holds; it has stopped")
        file.truncate(offset)
        file.seek(offset)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _rest(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    return file.read()


def make_folder(folder: Path) -> None:
    """Make *folder* exist, durably, with all folders above it; nobody but this user may look into those it makes.

    Where people gave the group of the folder above the right to write, the group has it in the new one, too.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(PRIVATE_FOLDER, exist_ok=True)
        if is_shared(folder.parent):
            with suppress(*UNCHANGEABLE):
                folder.chmod(PRIVATE_FOLDER | SHARED_FOLDER)
        sync_folder(folder.parent)


def keep_private(path: Path) -> None:
    """Let nobody but this user read *path*, and its group where that may write into the folder.

    A state holds vectors, from which texts can be told, and row ids. Where the file system keeps no rights of its own,
    such as CIFS or FAT, those of its mount stay, and doctor tells of them.
    """
    with suppress(*UNCHANGEABLE):
        path.chmod(PRIVATE | SHARED if is_shared(path.parent) else PRIVATE)


def take_room(file: BinaryIO, size: int) -> None:
    """Make *file*, which is empty, *size* bytes long, and fail now if the disk has no room for them.

    A file that is only said to be so long would end the process where it is mapped and the disk is full. macOS has no
    call for it, so zeros are written there.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for first in range(0, size, BLOCK):
        file.write(bytes(min(BLOCK, size - first)))
    file.flush()


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of *path*.

    Raises:
        StateDamaged: it is missing.
    """
    content = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                content.update(block)
    except OSError as exc:
        raise StateDamaged(f"{path} cannot be read: {exc}; restore it from a backup of the state") from exc
    return content.hexdigest()
