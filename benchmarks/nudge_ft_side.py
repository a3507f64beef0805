"""One run of the authors' package, in an environment of its own: ``python nudge_ft_side.py FOLDER published|split``.

Reads the arrays in FOLDER, writes what it makes of the rows that training or validation queries want, prints figures.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from nudge import NUDGEN
from peak import Watch


def pairs(folder: Path, name: str) -> dict:
    """Return queries with the places of the rows that answer them, as the package wants them."""
    queries = np.load(folder / f"{name.removeprefix('split_')}.npy")
    return {"q_embs": queries, "q_ans_indx": np.load(folder / f"{name}_rows.npy").tolist()}


def published(folder: Path) -> np.ndarray:
    """Tune all rows, as its documentation shows."""
    given = (np.load(folder / "rows.npy"), pairs(folder, "train"), pairs(folder, "validation"))
    return NUDGEN(torch.device("cpu")).finetune_embeddings(*given)


def split(folder: Path) -> np.ndarray:
    """Tune the wanted rows alone, the others being told apart beforehand."""
    rivals = np.load(folder / "rivals.npy")
    given = (np.load(folder / "wanted.npy"), pairs(folder, "split_train"), pairs(folder, "split_validation"))
    return NUDGEN(torch.device("cpu")).finetune_embeddings(*given, nontrain_embeddings=rivals)


def main() -> None:
    """Run, and print one line of JSON."""
    folder, way = Path(sys.argv[1]), {"published": published, "split": split}[sys.argv[2]]
    with contextlib.redirect_stdout(sys.stderr), Watch() as watch:
        tuned = way(folder)
    figures = watch.figures()
    places = np.load(folder / "wanted_places.npy")
    np.save(folder / f"{sys.argv[2]}_tuned.npy", tuned[places] if way is published else tuned)
    print(json.dumps({**figures, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
