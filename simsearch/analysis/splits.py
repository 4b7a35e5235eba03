"""Splits of a dataset, such as train and test: from the names of folders, or from a column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Labels


SPLIT_WORDS = {
    "train": "train", "training": "train", "trn": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test", "eval": "test",
}  # fmt: skip
ORDER = ("train", "validation", "test")
COLUMNS = ("split", "subset", "partition")


def split_of_folder(name: str) -> str:
    """Tell the split that a folder names, as in "seg_train", "Test" or "val2017"; "" if none."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def split_rows(library: ImageLibrary, split: Labels | None = None) -> NDArray[np.str_]:
    """Tell the split of each row: (N,), "" where it has none.

    Parameters
    ----------
    library
        With a table attached, perhaps.
    split
        A column of it, one name per row, or a mapping, as `ImageLibrary.label_rows` takes them;
        "folder", or None for a column named as in `COLUMNS`, else the folders.

    Raises
    ------
    QueryError
        If there is no such column, or the names do not fit.
    """
    if split is None and library.metadata is not None:
        columns = {str(name).lower(): str(name) for name in library.metadata.columns}
        split = next((columns[name] for name in COLUMNS if name in columns), None)
    if split is not None and not (isinstance(split, str) and split == "folder"):
        return library.label_rows(split)
    unique, which = np.unique(library.folders, return_inverse=True)
    return np.array([_split_of_path(folder) for folder in unique.tolist()], "U")[which]


def names_splits(labels: NDArray[np.str_]) -> bool:
    """Tell whether labels taken from folders are the splits themselves, as in train/1.jpg."""
    given = np.unique(labels[labels != ""]).tolist()
    return bool(given) and all(split_of_folder(name) for name in given)


def split_rank(name: str) -> tuple[int, str]:
    """Sort splits: train first, then validation, then test, then other names."""
    usual = SPLIT_WORDS.get(name.lower(), "")
    return (ORDER.index(usual) if usual else len(ORDER), name)


def _split_of_path(folder: str) -> str:
    """Take the first folder that names a split."""
    return next(filter(None, map(split_of_folder, folder.split("/"))), "")
