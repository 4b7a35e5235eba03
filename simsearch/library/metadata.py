"""Metadata: a table with one line per image, read as text, aligned with the rows and summarised.

pandas is imported when a table is read.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from simsearch.errors import QueryError
from simsearch.files import iter_blocks
from simsearch.library.alignment import TableReport, match_lines
from simsearch.library.column_proof import read_column
from simsearch.library.columns import NUMBER, ColumnReading, TableOptions
from simsearch.library.delimited import named, read_delimited
from simsearch.library.filters import FilterColumn, split_tags
from simsearch.library.paths import in_folder
from simsearch.library.types import Overview

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.library.table import RowTable


KEY = "path"
MENU_VALUES = 100  # of a column that a menu of filters offers
NAME_BLOCK_ROWS = 1024
SHORT_MENU = 20  # which is offered even if each value has one image


class SourceTable(NamedTuple):
    """A table as it was given: M lines, with their paths and numbers."""

    name: str
    paths: list[str]
    numbers: list[int]
    frame: pd.DataFrame  # without the paths


class AttachedTable:
    """The metadata of a library, and how its columns are read.

    Parameters
    ----------
    metadata
        N lines, one per image.
    source
        All lines of the table, which prove how a column is read; by default those of `metadata`.
    options
        What the caller says of it.
    readings
        How columns are read, where it is known already.
    """

    def __init__(
        self,
        metadata: pd.DataFrame,
        source: SourceTable | None = None,
        options: TableOptions | None = None,
        readings: Mapping[str, ColumnReading] | None = None,
    ) -> None:
        self.metadata, self._source = metadata, source
        self._options = options or TableOptions()
        self._readings: dict[str, ColumnReading | None] = dict(readings or {})
        self._columns: dict[str, FilterColumn] = {}

    def reading(self, name: str) -> ColumnReading | None:
        """Tell how a column of text is read; None for one of another type."""
        if name not in self._readings:
            cells = self._source.frame[name] if self._source else self.metadata[name]
            numbers = self._source.numbers if self._source else None
            self._readings[name] = reading_of(cells, numbers, self._options)
        return self._readings[name]

    def column(self, name: str) -> FilterColumn:
        """Return a column that conditions are put to."""
        if name not in self._columns:
            self._columns[name] = FilterColumn(self.metadata[name], self.reading(name))
        return self._columns[name]


def attach_table(
    library: RowTable,
    table: pd.DataFrame | str | os.PathLike[str],
    caption: str | Sequence[str] | None,
    *,
    decimal: str | Mapping[str, str] | None,
    dates: str | Mapping[str, str] | None,
    missing: Collection[str],
) -> None:
    """Attach a table to a library; see `RowTable.attach`.

    Examples
    --------
    >>> import pandas as pd
    >>> from simsearch import ImageLibrary
    >>> library = ImageLibrary([[3.0, 4.0], [0.0, 1.0]], ["a.jpg", "b.jpg"])
    >>> table = pd.DataFrame({"path": ["b.jpg", "a.jpg"], "price": [20, 30]})
    >>> library.attach(table).where({"price": (None, 25)})
    array([False,  True])
    """
    from simsearch.library.table_options import caption_columns, read_table_options

    options = read_table_options(decimal, dates, missing)
    source = read_table(table, options.missing)
    places = match_lines(source.paths, library, source.name, source.numbers)
    if not source.paths:
        raise QueryError(f"{source.name} has no lines below its header")
    if (places < 0).all():
        raise QueryError(
            f"no line of the table is an image of the library: it has such as "
            f"{next(filter(None, source.paths), 'nothing')!r}, and the library "
            f"{library.names[0]!r}"
        )
    frame = source.frame.reset_index(drop=True)
    metadata = frame.reindex(places).reset_index(drop=True)
    columns = caption_columns(caption)
    for option in (options.decimal, options.dates):
        _check_columns(option if not isinstance(option, str) else (), metadata, "decimal or dates")
    _check_columns(columns, metadata, "the caption")
    library.captions = list(metadata.columns[:2] if columns is None else columns)
    library.metadata, library.attached = metadata, AttachedTable(metadata, source, options)
    library.table_report = _report(source, library, places)
    library.table_report.log()


def _check_columns(columns: object, metadata: pd.DataFrame, what: str) -> None:
    if unknown := set(columns or ()).difference(metadata.columns):  # type: ignore[call-overload]
        raise QueryError(
            f"no column {min(unknown)!r} for {what}; there are {', '.join(metadata.columns)}"
        )


def _report(source: SourceTable, library: RowTable, places: NDArray[np.intp]) -> TableReport:
    used = set(places.tolist())
    left = [i for i in range(len(source.paths)) if i not in used]
    names = library.names
    return TableReport(
        source.name,
        len(source.paths),
        len(places),
        tuple(source.paths[i] or f"line {source.numbers[i]}, which has no path" for i in left),
        tuple(names[row] for row in np.flatnonzero(places < 0).tolist()),
    )


# Reading


def read_table(
    table: pd.DataFrame | str | os.PathLike[str], missing: frozenset[str] = frozenset()
) -> SourceTable:
    """Read a table that has a path column, or a frame with paths as its index.

    Raises
    ------
    QueryError
        If it cannot be read, has no paths, or a column twice.
    """
    if not isinstance(table, (pd.DataFrame, str, os.PathLike)):
        raise QueryError(
            f"a table of type {type(table).__name__} is not read: give a CSV file or a pandas "
            "frame, such as pd.DataFrame(table)"
        )
    source = _read_frame(table) if isinstance(table, pd.DataFrame) else _read_file(table)
    frame = source.frame.copy()
    for column in frame.columns:
        if is_text(frame[column]):
            cells = frame[column]
            frame[column] = cells.mask(cells.str.strip().isin({"", *missing}))
    return source._replace(frame=frame)


def _read_file(file: str | os.PathLike[str]) -> SourceTable:
    name = os.fspath(file)
    text = read_delimited(name, KEY)
    by_column = list(zip(*text.rows, strict=True)) or [()] * len(text.header)
    cells = dict(zip(text.header, by_column, strict=True))
    paths = [path if path.strip() else "" for path in cells.pop(KEY)]
    columns = {column: pd.array(list(values), dtype="string") for column, values in cells.items()}
    return SourceTable(name, paths, text.lines, pd.DataFrame(columns, index=range(len(paths))))


def _read_frame(table: pd.DataFrame) -> SourceTable:
    """Read a frame, whose own types are kept; text is read as that of a file."""
    columns = named([str(column) for column in table.columns], KEY)
    for column, count in Counter(columns).items():
        if count > 1:
            raise QueryError(f"the table has two columns {column!r}; rename or remove one")
    table = table.set_axis(columns, axis=1)
    if KEY in columns:
        table = table.set_index(KEY)
    elif isinstance(table.index, (pd.RangeIndex, pd.MultiIndex)):
        raise QueryError(
            f"the table has no {KEY!r} column, only {', '.join(columns)}; rename the one with paths"
        )
    paths = [
        "" if missing else str(path)
        for path, missing in zip(table.index, table.index.isna(), strict=True)
    ]
    table = table.reset_index(drop=True)
    for column in columns:
        if column != KEY and isinstance(table[column].dtype, pd.CategoricalDtype):
            table[column] = table[column].astype(object)
    # Types with a mark for what is missing: a price of 20 stays 20, and not 20.0
    return SourceTable("the table", paths, list(range(1, len(paths) + 1)), table.convert_dtypes())


def is_text(column: pd.Series[Any]) -> bool:
    """Tell whether a column holds text alone."""
    return isinstance(column.dtype, pd.StringDtype)


def reading_of(
    column: pd.Series[Any],
    numbers: Sequence[int] | None = None,
    options: TableOptions | None = None,
) -> ColumnReading | None:
    """Find out how a column of text is read; None for one of another type."""
    if not is_text(column):
        return None
    known = column.notna().to_numpy(bool)
    lines = np.arange(1, len(column) + 1) if numbers is None else np.asarray(numbers)
    cells: dict[str, int] = {}
    for cell, line in zip(column[known].tolist(), lines[known].tolist(), strict=True):
        cells.setdefault(cell, line)
    return read_column(str(column.name), cells, options or TableOptions())


# Asking


def find_column(library: RowTable, name: str) -> FilterColumn:
    """Return a column of a library; `path` and `folder` are always there.

    Raises
    ------
    QueryError
        If there is no such column.
    """
    attached = attached_table(library)
    if attached is not None and name in attached.metadata.columns:
        return attached.column(name)
    own: dict[str, Any] = {"path": library.names, "folder": library.folders}
    if name in own:
        cells = pd.Series(own[name], name=name, dtype=object)
        return FilterColumn(cells, ColumnReading(reason="it holds paths"))
    known = [*own, *(attached.metadata.columns if attached else ())]
    folded = {each.casefold(): each for each in known}
    if near := get_close_matches(str(name).casefold(), folded, 1, 0.7):
        raise QueryError(f"no column {name!r}; did you mean {folded[near[0]]!r}?")
    raise QueryError(
        f"no column {name!r}; there are {', '.join(known)}"
        + ("" if attached else ": library.attach(table) adds others")
    )


def attached_table(library: RowTable) -> AttachedTable | None:
    """Return how the metadata is read, of a library whose `metadata` may have been set itself."""
    if library.metadata is None:
        return None
    if library.attached is None or library.attached.metadata is not library.metadata:
        library.attached = AttachedTable(library.metadata)
    return library.attached


def summarise(library: RowTable) -> Overview:
    """Summarise folders and metadata; see `RowTable.overview`."""
    folders = sorted(_folder_counts(library).items())
    attached = attached_table(library)
    names = attached.metadata.columns if attached else ()
    return Overview(folders, [summarise_column(attached.column(name)) for name in names])  # type: ignore[union-attr]


def _folder_counts(library: RowTable) -> Counter[str]:
    """Count the images of each folder, block by block: a large library's names take much memory."""
    heads: Counter[str] = Counter()  # folders with the slash at their end
    inside = name_slice(library.root)
    for block in iter_blocks(len(library.paths), NAME_BLOCK_ROWS):
        names = (path[inside] for path in library.paths[block].tolist())
        heads.update(name[: name.rfind("/") + 1] for name in names)
    counts: Counter[str] = Counter()
    for head, count in heads.items():
        counts[posixpath.dirname(head) or "."] += count
    return counts


def name_slice(root: str | None) -> slice:
    """Return where in a path the name relative to the dataset's root stands."""
    before, _, after = ("\0" if root is None else in_folder(root, "\0")).partition("\0")
    return slice(len(before), -len(after) or None)


def summarise_column(column: FilterColumn) -> dict[str, Any]:
    """Sum up a column for a menu of filters.

    Returns
    -------
    dict
        `name`, `kind` ("number" or "text"), and `min` and `max` of what is finite, None where
        nothing is; or `values`, its up to 100 most frequent tags, as they are written, and
        `counts`, how many cells have each. Of more, or more than 20 and half of the cells, those of
        one image are left out, and all are unless most cells consist of others: titles are no tags.
    """
    found: dict[str, Any] = {"name": str(column.name)}
    if column.values and column.kind == NUMBER:
        finite = column.values.plain()
        limits = {"min": min(finite, default=None), "max": max(finite, default=None)}
        return found | {"kind": "number", **limits}
    cells = column.cells.dropna().tolist()
    tags = [[*filter(None, split_tags(cell))] for cell in cells]
    counts = Counter(tag for each in tags for tag in dict.fromkeys(each))
    few = len(counts) <= min(MENU_VALUES, max(SHORT_MENU, len(cells) // 2))
    least = 1 if few else 2
    common = {tag: count for tag, count in counts.most_common(MENU_VALUES) if count >= least}
    if 2 * sum(common.keys() >= set(each) for each in tags) < len(tags):
        common = {}
    return found | {"kind": "text", "values": [*common], "counts": [*common.values()]}


def facts_of(metadata: pd.DataFrame, row: int) -> dict[str, Any]:
    """Return a line as plain values by column, without what is missing."""
    line = metadata.iloc[row].dropna().to_dict()
    return {str(name): _plain_cell(cell) for name, cell in line.items()}


def _plain_cell(cell: Any) -> Any:  # noqa: ANN401
    return cell.tolist() if isinstance(cell, (np.generic, np.ndarray)) else cell


def join_caption(line: Mapping[str, object], columns: Sequence[str]) -> str:
    """Put cells of a line in words, with a dot between them; a missing one is left out."""
    return " · ".join(str(line[column]) for column in columns if column in line)
