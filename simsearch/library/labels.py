"""Labels of rows: from folder names, a metadata column, a list or a mapping."""

from __future__ import annotations

import math
import os
import posixpath
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError
from simsearch.library.alignment import TableReport, match_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        return _column_labels(library, labels)
    if isinstance(labels, Mapping):
        return _mapped_labels(library, labels)
    if len(labels) != len(library.paths):
        raise QueryError(
            f"{len(labels)} labels for {len(library.paths)} images; give one per image"
        )
    return _as_text(labels)


def _column_labels(library: RowTable, name: str) -> NDArray[np.str_]:
    """Take the labels from a column of the metadata, and tell which pictures have none."""
    column = library.metadata[name]  # type: ignore[index]
    found = _as_text(column.astype(object).where(column.notna(), None).tolist())
    _tell(library, f"column {name!r}", len(found), (), found)
    return found


def _mapped_labels(library: RowTable, labels: Mapping[str, object]) -> NDArray[np.str_]:
    """Look the labels up by path, and tell which met no picture and which pictures have none."""
    keys = [os.fspath(key) if isinstance(key, os.PathLike) else str(key) for key in labels]
    places = match_lines(keys, library, "the labels", range(1, len(keys) + 1))
    if (places < 0).all():
        raise QueryError(f"no key of the labels is an image such as {library.names[0]!r}")
    values = [*labels.values(), None]  # which place -1 finds
    found = _as_text([values[place] for place in places.tolist()])
    used = set(places.tolist())
    unmet = tuple(key for i, key in enumerate(keys) if i not in used)
    _tell(library, "the labels", len(keys), unmet, found)
    return found


def _tell(
    library: RowTable, name: str, lines: int, unmet: tuple[str, ...], found: NDArray[np.str_]
) -> None:
    names = library.names
    without = tuple(names[row] for row in np.flatnonzero(found == "").tolist())
    library.label_report = TableReport(name, lines, len(found), unmet, without, "label")
    library.label_report.log()


def _as_text(labels: Iterable[object]) -> NDArray[np.str_]:
    return np.array(["" if _is_missing(label) else str(label) for label in labels], "U")


def _is_missing(label: object) -> bool:
    """Tell a label that is not there: pandas has NaN for it, Python None."""
    return (
        label is None
        or type(label).__name__ == "NAType"
        or (isinstance(label, float) and math.isnan(label))
    )
