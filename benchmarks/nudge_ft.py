"""The authors' package in an environment of its own, and arrays on which it and this project are held side by side."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import platformdirs

from benchmarks.clustered import Clustered
from nudge_vdb.contract import Vectors

PACKAGES = ("torch==2.13.0", "numpy==2.4.6")
PACKAGE = "nudge-ft==0.1.2"
"""Without what it depends on, which would be a torch for graphics cards."""
ENVIRONMENT = Path(platformdirs.user_cache_dir("nudge-vdb")) / "nudge-ft-0.1.2"
VALIDATION = 1000


def interpreter() -> Path:
    """Return the Python of an environment that holds the package; make it if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "installed"
    if not done.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *PACKAGES], check=True, stdout=sys.stderr)
        subprocess.run([*install, "--no-deps", PACKAGE], check=True, stdout=sys.stderr)
        done.touch()
    return python


def make_arrays(folder: Path, rows: int, width: int, training: int) -> None:
    """Fill *folder* with rows, and with queries that train and that validate; wanted rows and rivals apart as well."""
    data = Clustered(rows, width, training + VALIDATION)
    everything = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (rows, width))
    for places, vectors in data.parts():
        everything[places.start : places.stop] = vectors
    queries, answers = data.judged()
    wanted = np.unique(answers)
    np.save(folder / "wanted_places.npy", wanted)
    np.save(folder / "wanted.npy", everything[wanted])
    _save_rivals(folder / "rivals.npy", everything, wanted)
    validates = np.zeros(len(queries), bool)
    validates[np.random.default_rng(0).choice(len(queries), VALIDATION, replace=False)] = True
    for name, some in (("train", ~validates), ("validation", validates)):
        np.save(folder / f"{name}.npy", queries[some])
        np.save(folder / f"{name}_rows.npy", answers[some][:, None])
        np.save(folder / f"split_{name}_rows.npy", np.searchsorted(wanted, answers[some])[:, None])


def _save_rivals(path: Path, rows: Vectors, wanted: np.ndarray) -> None:
    """Keep all rows but the wanted ones."""
    apart = np.lib.format.open_memmap(path, "w+", np.float32, (len(rows) - len(wanted), rows.shape[1]))
    done = 0
    for first in range(0, len(rows), 1 << 14):
        last = min(first + (1 << 14), len(rows))
        some = np.setdiff1d(np.arange(first, last), wanted)
        apart[done : done + len(some)] = rows[some]
        done += len(some)
