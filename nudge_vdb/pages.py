"""Paging a collection out into files that are mapped, not held."""

from __future__ import annotations

import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nudge_vdb.budget import USUAL_BUDGET, Budget, Share
from nudge_vdb.contract import Collection, Mask, Page, Traits, Vectors
from nudge_vdb.durable import BLOCK, keep_private, make_folder, read_sealed, sealed, take_room, write_json
from nudge_vdb.errors import CursorExpired, StateDamaged
from nudge_vdb.keys import KeyTable
from nudge_vdb.mapped import picked, release
from nudge_vdb.phases import counted
from nudge_vdb.scanning import scanned

log = logging.getLogger(__name__)

PAGE_BYTES = 8 << 20
"""What the vectors of one request take at most."""
OFFSETS_AT_ONCE = 1 << 16
STALE_AFTER = 6 * 3600.0
"""Seconds after which an interrupted page-out is begun again instead of continued."""

RESTARTS = 3
"""How often a scan whose cursor has expired is begun again."""

FILES = ("vectors.f32", "keys.bin", "lengths.i64")

Progress = Callable[[int], None]
"""Told how many rows are done so far."""


@dataclass(frozen=True)
class Pages:
    """The n rows of a scope that hold a vector, or some of them."""

    keys: KeyTable
    vectors: Vectors
    """(n, width), float32, mapped from a private copy: it may be written to."""
    unfit: NDArray[np.int64]
    """Places of rows with NaN or infinity, ascending: never scored, never moved."""
    absent: int
    """How many rows of the scope hold no vector."""
    folder: Path
    """Where they were paged out to."""
    budget: Budget = USUAL_BUDGET
    """What may be held of them at once."""
    among: int | None = None
    """About how many rows the scope has, where these are some that were gathered; None where they are all of them."""

    @property
    def whole(self) -> bool:
        """Whether these are all rows of the scope."""
        return self.among is None

    @property
    def rows(self) -> int:
        """How many rows there are in the scope, about, where not all of them are here."""
        return len(self) if self.among is None else self.among

    def scratch(self, name: str, rows: int) -> Vectors:
        """Return room for as many *rows*, mapped from a file that goes with the pages."""
        shape = (rows, self.vectors.shape[1])
        if not rows:
            return np.empty(shape, np.float32)
        path = self.folder / f"{name}.f32"
        with path.open("wb") as file:  # to write into a mapped file that the disk has no room for would be fatal
            keep_private(path)
            take_room(file, 4 * rows * shape[1])
        return np.memmap(path, np.float32, "r+", shape=shape)

    def __len__(self) -> int:
        return len(self.vectors)

    def chunks(self) -> Iterator[slice]:
        """Yield consecutive slices of places, each of a bounded number of bytes; then let go of what was mapped."""
        rows = self.budget.count(Share.CHUNK, 4 * self.vectors.shape[1])
        for first in range(0, len(self), rows):
            yield slice(first, min(first + rows, len(self)))
            release(self.vectors)

    def counted_chunks(self) -> Iterator[slice]:
        """Yield the slices of :meth:`chunks`, and tell the phase around how many rows are done."""
        return counted(self.chunks(), len(self), "rows", lambda part: int(part.stop - part.start))

    def at(self, places: NDArray[np.int64]) -> Vectors:
        """Return a copy of the vectors at *places*; what was mapped of them is let go of."""
        return picked(self.vectors, places)


@dataclass
class _Done:
    """How far a page-out has come."""

    identity: str
    width: int
    started: float
    rows: int = 0
    key_bytes: int = 0
    absent: int = 0
    cursor: str | None = None
    complete: bool = False
    checksums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))
    """Of what the files hold, so that a copy that was damaged since is not gone on with."""


def page_out(
    collection: Collection, folder: Path, progress: Progress = lambda _: None, budget: Budget = USUAL_BUDGET
) -> Pages:
    """Copy every vector of *collection* into *folder*, going on where an interrupted page-out stopped.

    Where the engine no longer knows the cursor, the copy is begun again: no row is then lost or there twice.

    Raises:
        CursorExpired: again and again.
    """
    for _ in range(RESTARTS):
        with suppress(CursorExpired):
            return _copied(collection, folder, progress, budget)
        log.warning("%s no longer knows where its scan was; it is scanned again", collection.traits.identity)
        forget(folder)
    return _copied(collection, folder, progress, budget)


def _copied(collection: Collection, folder: Path, progress: Progress, budget: Budget) -> Pages:
    done = _continued(folder, collection.traits) or _begun(folder, collection.traits)
    width = 4 * collection.traits.width
    limit = max(16, min(PAGE_BYTES // width, budget.count(Share.CHUNK, 2 * width)))
    for page in scanned(collection, done.cursor, limit):
        _add_page(folder, page, done)
        progress(done.rows)
    return _opened(folder, done, budget)


def _add_page(folder: Path, page: Page, done: _Done) -> None:
    try:
        _append(folder, page, done)
        write_json(folder / "progress.json", sealed(asdict(done)))
    except OSError:
        forget(folder)  # half a copy would only keep the disk full
        raise


class Filling:
    """Pages that are filled with rows one chooses; nothing of them outlives the run."""

    def __init__(self, folder: Path, traits: Traits) -> None:
        """Begin with no rows, whatever an interrupted page-out left in *folder*."""
        self._folder, self._done = folder, _begun(folder, traits)

    def add(self, page: Page) -> None:
        """Add the rows of *page* that hold a vector."""
        _append(self._folder, page, self._done)  # and no note of how far it came: there is nothing to go on from

    def pages(self, among: int, budget: Budget = USUAL_BUDGET) -> Pages:
        """Return what was added, of a scope of about so many rows."""
        return replace(_opened(self._folder, self._done, budget), among=among)


def forget(folder: Path) -> None:
    """Remove a page-out that is no longer needed."""
    shutil.rmtree(folder, ignore_errors=True)


def forget_unless_interrupted(folder: Path) -> None:
    """Remove a page-out, unless it is one that the next can go on with."""
    try:
        interrupted = not read_sealed(folder / "progress.json")["complete"]
    except StateDamaged:
        interrupted = False
    if not interrupted:
        forget(folder)


def _begun(folder: Path, traits: Traits) -> _Done:
    forget(folder)
    make_folder(folder)
    for name in FILES:
        (folder / name).touch()
        keep_private(folder / name)
    return _Done(traits.identity, traits.width, time.time())


def _continued(folder: Path, traits: Traits) -> _Done | None:
    """Return how far an interrupted page-out of the same collection had come, its files cut to that point."""
    try:
        facts = read_sealed(folder / "progress.json")
        done = _Done(**{name: value for name, value in facts.items() if name != "digest"})
    except (StateDamaged, TypeError):
        return None
    same = (done.identity, done.width) == (traits.identity, traits.width)
    fresh = 0 <= time.time() - done.started < STALE_AFTER
    return done if same and fresh and not done.complete and _holds(folder, done) else None


def _holds(folder: Path, done: _Done) -> bool:
    """Tell whether the files hold what *done* says; a machine that lost its power may have lost their ends."""
    sizes = dict(zip(FILES, (4 * done.width * done.rows, done.key_bytes, 8 * done.rows), strict=True))
    return all(_checksum(folder / name, size) == done.checksums[name] for name, size in sizes.items())


def _checksum(path: Path, size: int) -> int | None:
    """Return the CRC-32 of the first *size* bytes of *path*, None where there are fewer."""
    if not path.is_file() or path.stat().st_size < size:
        return None
    checksum = 0
    with path.open("rb") as file:
        for first in range(0, size, BLOCK):
            checksum = zlib.crc32(file.read(min(BLOCK, size - first)), checksum)
    return checksum


def _append(folder: Path, page: Page, done: _Done) -> None:
    """Add *page* behind what *done* says is there; anything beyond it is the torn end of a run that died."""
    present = ~page.absent
    keys = [key for key, here in zip(page.keys, present, strict=True) if here]
    vectors = np.ascontiguousarray(page.vectors[present], dtype=np.float32)
    lengths = np.array([len(key) for key in keys], np.int64)
    ends = (4 * done.width * done.rows, done.key_bytes, 8 * done.rows)
    for name, end, content in zip(FILES, ends, (vectors.tobytes(), b"".join(keys), lengths.tobytes()), strict=True):
        _put(folder / name, end, content)
        done.checksums[name] = zlib.crc32(content, done.checksums[name])
    done.rows += len(keys)
    done.key_bytes += sum(map(len, keys))
    done.absent += int(page.absent.sum())
    done.cursor = page.next
    done.complete = page.next is None


def _put(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.truncate()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _opened(folder: Path, done: _Done, budget: Budget) -> Pages:
    content = _mapped(folder / "keys.bin", np.uint8, (done.key_bytes,))
    vectors = _mapped(folder / "vectors.f32", np.float32, (done.rows, done.width))
    keys = KeyTable(_offsets(folder, done.rows), content)
    pages = Pages(keys, vectors, np.empty(0, np.int64), done.absent, folder, budget)
    return replace(pages, unfit=_not_finite(pages))


def _offsets(folder: Path, rows: int) -> NDArray[np.int64]:
    """Add up the lengths of the keys of so many *rows*; return the sums (rows + 1,), mapped from a file."""
    total, path = 0, folder / "offsets.i64"
    with (folder / "lengths.i64").open("rb") as lengths, path.open("wb") as offsets:
        keep_private(path)
        offsets.write(np.zeros(1, np.int64).tobytes())
        for first in range(0, rows, OFFSETS_AT_ONCE):
            some = np.frombuffer(lengths.read(8 * min(OFFSETS_AT_ONCE, rows - first)), np.int64)
            ends = total + np.cumsum(some)
            offsets.write(ends.tobytes())
            total = int(ends[-1])
    return _mapped(path, np.int64, (rows + 1,))


def _mapped(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map *path*; an empty file, which cannot be mapped, becomes an empty array."""
    return np.empty(shape, dtype) if 0 in shape else np.memmap(path, dtype, "r+", shape=shape)


def _not_finite(pages: Pages) -> NDArray[np.int64]:
    found = [part.start + np.flatnonzero(~finite(pages.vectors[part])) for part in pages.chunks()]
    return np.concatenate([np.empty(0, np.int64), *found])


def finite(vectors: Vectors) -> Mask:
    """Tell which rows of *vectors* (n, width) hold neither NaN nor infinity."""
    return np.asarray(np.isfinite(vectors).all(axis=1))
