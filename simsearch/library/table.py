"""The rows of a library as a table: names, folders, labels, metadata, and conditions on them."""

from __future__ import annotations

import posixpath
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simsearch.library.paths import in_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any, Self

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.alignment import TableReport
    from simsearch.library.metadata import AttachedTable
    from simsearch.library.types import Labels, Overview, Rows


class RowTable:
    """What is known of each row besides its embedding; `ImageLibrary` documents the attributes."""

    paths: NDArray[np.str_]
    root: str | None
    metadata: pd.DataFrame | None = None
    attached: AttachedTable | None = None  # how `metadata` is read
    table_report: TableReport | None = None
    label_report: TableReport | None = None
    captions: Sequence[str] = ()  # columns that stand under a match

    @cached_property
    def names(self) -> list[str]:
        """Path of each image relative to the dataset's root."""
        if self.root is None:
            return list(self.paths.tolist())
        before, after = map(len, in_folder(self.root, "\0").split("\0"))
        return [path[before : len(path) - after] for path in self.paths.tolist()]

    @cached_property
    def folders(self) -> NDArray[np.str_]:
        """Folder of each image relative to the dataset's root: (N,) unicode, "." for the root."""
        return np.array([posixpath.dirname(name) or "." for name in self.names], "U")

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        """Name of the last folder of each image: (N,) unicode, "" where that names no class.

        Beside `seg_train/forest` and its like, the images right in `seg_pred` have no class: a
        folder less deep than is usual names none.
        """
        from simsearch.library.labels import folder_labels

        return folder_labels(self.folders)

    def label_rows(self, labels: Labels = "folder") -> NDArray[np.str_]:
        """Label each image.

        Parameters
        ----------
        labels
            "folder" for `labels`; the name of a column of the metadata; one label per row, such as
            a column of a frame; or a mapping of path, whole or relative to the dataset's root, to
            label. None, NaN and "" are no label.

        Returns
        -------
        numpy.ndarray
            (N,) unicode, "" where there is no label.

        Raises
        ------
        QueryError
            If the labels do not fit this library.
        """
        from simsearch.library.labels import label_rows

        return label_rows(self, labels)

    def attach(
        self,
        table: pd.DataFrame | str | os.PathLike[str],
        caption: str | Sequence[str] | None = None,
        *,
        decimal: str | Mapping[str, str] | None = None,
        dates: str | Mapping[str, str] | None = None,
        missing: Collection[str] = (),
    ) -> Self:
        """Attach a table of facts about the images, to filter by (`where`) and to show.

        Cells of a file stay the text that they are. Where every cell of a column is a number, an
        amount of money or a date, written in one way, ranges compare them as such, exactly.

        Parameters
        ----------
        table
            A CSV file (with commas, semicolons, tabs or bars) or a pandas frame, with one line per
            image: a `path` column (or index), whole or relative to the dataset's root, and others.
        caption
            The column or columns that stand under a match; by default the first two.
        decimal
            "," or "." in numbers, where the column does not prove it; or one of them by column.
        dates
            The `strptime` format of dates that are not ISO's, such as "%d/%m/%Y"; or by column.
        missing
            Cells that count as empty, such as ["n/a"].

        Returns
        -------
        ImageLibrary
            This library, with a `table_report` of what met nothing. The table is not stored.

        Raises
        ------
        QueryError
            If the table cannot be read, or no line is an image of this library.
        """
        from simsearch.library.metadata import attach_table

        attach_table(self, table, caption, decimal=decimal, dates=dates, missing=missing)
        return self

    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""
        if self.metadata is None:
            return {}
        from simsearch.library.metadata import facts_of

        return facts_of(self.metadata, row)

    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""
        if self.metadata is None:
            return ""
        from simsearch.library.metadata import join_caption

        return join_caption(self.facts(row), self.captions)

    def where(self, rows: Rows = None) -> NDArray[np.bool_]:
        """Tell which images meet a condition.

        Parameters
        ----------
        rows
            A glob over paths relative to the dataset's root, whose ``*`` also crosses folders
            (``"seg_train/*"``); or conditions on columns of the metadata, all to be met, such as
            ``{"price": (None, 50), "tags": ["red", "blue"], "path": "shoes/*"}``: a tuple is a
            range, a list any of its members, text a glob for a whole cell or one of its tags; or a
            mask of N booleans; or row numbers; or None for all.

        Returns
        -------
        numpy.ndarray
            (N,) bool.

        Raises
        ------
        QueryError
            If there is no such column, or the mask does not fit.
        """
        from simsearch.library.filters import where

        return where(self, rows)

    def select(self, rows: Rows = None) -> NDArray[np.bool_]:
        """Choose images as `where` does; a `QueryError` if that is none."""
        from simsearch.library.filters import select

        return select(self, rows)

    def row_filter(
        self, where: Rows = None, exclude: Collection[int] = ()
    ) -> NDArray[np.bool_] | None:
        """Return the mask of rows that may be found, (N,) bool; None for all rows."""
        if where is None and not exclude:
            return None
        mask = self.where(where).copy()
        mask[list(exclude)] = False
        return mask

    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""
        return 0 <= row < len(self.paths)

    @cached_property
    def _by_path(self) -> NDArray[np.intp]:
        """Rows in the order of their paths: quick, since they mostly are in it already."""
        return np.argsort(self.paths, kind="stable")

    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Return rows that meet a condition (`where`) by path: `limit` after the first `offset`."""
        chosen = self._by_path[self.where(where)[self._by_path]]
        return [int(row) for row in chosen[offset : offset + limit]]

    def count(self, where: Rows = None) -> int:
        """Count the images that meet a condition."""
        return len(self.paths) if where is None else int(np.count_nonzero(self.where(where)))

    def overview(self) -> Overview:
        """Summarise folders and metadata, for a menu of filters."""
        from simsearch.library.metadata import summarise

        return summarise(self)
