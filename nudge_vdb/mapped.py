"""Arrays that are mapped from files: touched a little at a time, and let go of."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCATTERED = 64
"""Rows that are touched at once anywhere in a file: around each, the kernel may map two megabytes."""


def release(array: NDArray[Any]) -> None:
    """Let the kernel take back the pages of *array*, if it is mapped from a file; what was written to it stays.

    That holds for shared mappings, whose changes are the file's. A private one is left alone: its changes were lost.
    """
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and getattr(array, "mode", None) != "c":
        mapped.madvise(mmap.MADV_DONTNEED)


def picked(array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of the rows of *array* at *places*, anywhere in it; what was mapped of them is let go of."""
    found = np.empty((len(places), *array.shape[1:]), array.dtype)
    for first in range(0, len(places), SCATTERED):
        some = slice(first, first + SCATTERED)
        found[some] = array[places[some]]
        release(array)
    return found


def put(array: NDArray[Any], places: NDArray[np.int64], rows: NDArray[Any]) -> None:
    """Write *rows*, as many as there are *places*, into *array*; what was mapped of it is let go of."""
    if len(places) != len(rows):
        raise ValueError(f"{len(rows)} rows for {len(places)} places")
    for first in range(0, len(places), SCATTERED):
        some = slice(first, first + SCATTERED)
        array[places[some]] = rows[some]
        release(array)
