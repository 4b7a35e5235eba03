"""Labels of rows: from folder names, a metadata column, a list or a mapping."""

from __future__ import annotations

import math
import posixpath
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.table import RowTable
    from simsearch.library.types import Labels


def folder_labels(folders: NDArray[np.str_]) -> NDArray[np.str_]:
    """Name the class of each image by its last folder; see `RowTable.labels`."""
    unique, which = np.unique(folders, return_inverse=True)
    depths = [folder.count("/") for folder in unique.tolist()]
    usual = statistics.median_high(depths)
    names = [
        "" if folder == "." or depth < usual else posixpath.basename(folder)
        for folder, depth in zip(unique.tolist(), depths, strict=True)
    ]
    return np.array(names, "U")[which]


def label_rows(library: RowTable, labels: Labels) -> NDArray[np.str_]:
    """Label each image; see `RowTable.label_rows`."""
    if isinstance(labels, str):
        if labels == "folder":
            return library.labels
        if library.metadata is None or labels not in library.metadata.columns:
            raise QueryError(
                f'labels={labels!r}: give "folder", a column of the attached metadata, or a '
                "label for each image"
            )
        column = library.metadata[labels]
        labels = column.astype(object).where(column.notna(), None).tolist()
    if isinstance(labels, Mapping):
        paths = zip(library.paths.tolist(), library.names, strict=True)
        labels = [labels.get(path, labels.get(name)) for path, name in paths]
        if all(label is None for label in labels):
            raise QueryError(f"no key of the labels is an image such as {library.names[0]!r}")
    if len(labels) != len(library.paths):
        raise QueryError(
            f"{len(labels)} labels for {len(library.paths)} images; give one per image"
        )
    return np.array(["" if _is_missing(label) else str(label) for label in labels], "U")


def _is_missing(label: object) -> bool:
    """Tell a label that is not there: pandas has NaN for it, Python None."""
    return label is None or (isinstance(label, float) and math.isnan(label))
