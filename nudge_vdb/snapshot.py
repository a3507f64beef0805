"""A version: every row that is not at base in it, with its base and its tuned vector."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.contract import Vectors
from nudge_vdb.durable import (
    file_digest,
    make_folder,
    read_array,
    read_json,
    read_sealed,
    sealed,
    sync_folder,
    write_array,
    write_json,
)
from nudge_vdb.errors import StateDamaged
from nudge_vdb.keys import KeyTable
from nudge_vdb.mapped import release
from nudge_vdb.seen import Seen

FORMAT = 2
KNOWN_FORMATS = (1, 2)
UNFINISHED = "unfinished"
"""The folder, beside that of the versions, in which a version is made."""
ARRAYS = ("key_offsets", "key_bytes", "base", "tuned", "seen")
MORE = ("queries", "map", "query_map", "away")
"""There only where there is something to hold, and not in versions of early days; who knows none reads past them."""

LISTED = ("re_embedded", "rows_not_finite", "judged_missing")
"""Facts that are lists of row ids, perhaps of most rows of a collection."""
SHOWN_IDS = 20
"""Ids of a longer list that stand in the manifest, beside their number; all of them stand in an array."""


@dataclass(frozen=True)
class Content:
    """What a version holds of its m rows, ordered by key."""

    keys: KeyTable
    base: Vectors
    """(m, width), float32, as the engine held it before anything was tuned."""
    tuned: Vectors
    """(m, width), float32"""
    seen: Seen
    """The queries that it was trained on."""
    map: NDArray[np.float64] | None = None
    """(width + 1, width): what carried the unjudged rows, None where they were not carried."""
    query_map: NDArray[np.float64] | None = None
    """(width, width): M, if searches send M·q while this version is live; None where they send q."""
    away: NDArray[np.int64] | None = None
    """Places, ascending, of rows that were not there when this was made and may come back; None if there were none."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a version of this is kept in, by name."""
        held = (self.keys.offsets, self.keys.content, self.base, self.tuned, self.seen.digests)
        more = (self.seen.units, self.map, self.query_map, self.away)
        named: dict[str, NDArray[Any]] = dict(zip(ARRAYS, held, strict=True))
        return named | {name: each for name, each in zip(MORE, more, strict=True) if each is not None}

    def release(self) -> None:
        """Let go of what is mapped of the vectors."""
        release(self.base)
        release(self.tuned)


@dataclass(frozen=True)
class Version:
    """A version on disk; its arrays are mapped when they are first asked for."""

    number: int
    folder: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @cached_property
    def content(self) -> Content:
        """The rows; their files are checked against the manifest first."""
        self.check()
        return self.unchecked

    @cached_property
    def unchecked(self) -> Content:
        """The rows, of files that nobody has compared with the manifest: for a glance, and to write nothing from."""
        arrays = {name: read_array(self.folder / f"{name}.npy") for name in ARRAYS}
        keys = KeyTable(arrays["key_offsets"], arrays["key_bytes"])
        more = {name: self._held(name) for name in MORE}
        seen = Seen(arrays["seen"], more["queries"])
        return Content(keys, arrays["base"], arrays["tuned"], seen, more["map"], more["query_map"], more["away"])

    def _held(self, name: str) -> NDArray[Any] | None:
        """Return an array that not every version has."""
        file = f"{name}.npy"
        return read_array(self.folder / file) if file in self.manifest["files"] else None

    def facts(self) -> dict[str, Any]:
        """Return the manifest with every list whole."""
        known = dict(self.manifest)
        for name in LISTED:
            file = f"{name}_bytes"
            if f"{file}.npy" in self.manifest["files"]:
                offsets, content = (read_array(self.folder / f"{each}.npy") for each in (f"{name}_offsets", file))
                known[name] = [text.decode("utf-8", "surrogatepass") for text in KeyTable(offsets, content)]
                known.pop(f"{name}_count")
        return known

    def check(self) -> None:
        """Compare every file with the digest in the manifest.

        Raises:
            StateDamaged: a file is missing or is not what was written.
        """
        for name, digest in self.manifest["files"].items():
            if file_digest(self.folder / name) != digest:
                raise StateDamaged(
                    f"{self.folder / name} is not what was written; restore it from a backup of the state"
                )


def write_version(
    folder: Path, number: int, content: Content, facts: Mapping[str, Any], require_hold: Callable[[], None]
) -> Version:
    """Make *folder* hold version *number*, durably; until its manifest is there, there is no such version."""
    shortened, lists = _shortened(facts)
    return write_arrays(folder, number, content.arrays() | lists, shortened, require_hold)


def _shortened(facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return *facts* with long lists of ids cut, each beside its number, and arrays of all that was listed."""
    short = dict(facts)
    arrays: dict[str, NDArray[Any]] = {}
    for name in LISTED:
        ids = facts.get(name) or []
        if len(ids) > SHOWN_IDS:
            table = KeyTable.of(each.encode("utf-8", "surrogatepass") for each in ids)
            arrays |= {f"{name}_offsets": table.offsets, f"{name}_bytes": table.content}
            short |= {name: ids[:SHOWN_IDS], f"{name}_count": len(ids)}
    return short, arrays


def write_arrays(
    folder: Path,
    number: int,
    arrays: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
    require_hold: Callable[[], None],
) -> Version:
    """Make *folder* hold *arrays*, by name, and a manifest of version *number*, which is written last, durably.

    All of it is written under a name that no other run uses, and gets its own when it is whole and *require_hold*
    returns: a run that slept meanwhile, and lost the state, must not write into the version that another one made.
    """
    making = folder.parent.with_name(UNFINISHED) / uuid4().hex
    make_folder(making)
    try:
        manifest = _write_files(making, number, arrays, facts)
        make_folder(folder.parent)
        require_hold()
        making.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)  # half a version would only keep the disk full
        raise
    return Version(number, folder, manifest)


def _write_files(
    folder: Path, number: int, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    named = {f"{name}.npy": array for name, array in arrays.items()}
    for name, array in named.items():
        write_array(folder / name, array)
    files = {name: file_digest(folder / name) for name in named}
    # The manifest comes last, when every array is on the disk under its name: before that, a run that dies would leave
    # a version that claims files which are not there, or not whole.
    manifest = sealed({"format": FORMAT, "version": number, "files": files, **facts})
    sync_folder(folder)
    write_json(folder / "manifest.json", manifest)
    return manifest


def open_version(folder: Path) -> Version:
    """Return the version in *folder*.

    Raises:
        StateDamaged: its manifest cannot be read, or is of a newer format.
    """
    require_known_format(folder / "manifest.json", read_json(folder / "manifest.json"))
    manifest = read_sealed(folder / "manifest.json")
    return Version(int(manifest["version"]), folder, manifest)


def require_known_format(path: Path, facts: Mapping[str, Any]) -> None:
    """Refuse what a newer nudge-vdb has written.

    Raises:
        StateDamaged: the format is none that is read here.
    """
    if facts.get("format") not in KNOWN_FORMATS:
        known = " and ".join(map(str, KNOWN_FORMATS))
        raise StateDamaged(
            f"{path} has format {facts.get('format')!r} and this nudge-vdb reads {known}; update it, or, if no newer "
            "one was here, restore the file from a backup of the state"
        )
