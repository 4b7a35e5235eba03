"""Metadata: a table with one line per image, read, aligned with the rows and summarised.

pandas is imported when a table is read.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError
from simsearch.library.filters import split_tags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd


KEY = "path"
MENU_VALUES = 100  # of a column that a menu of filters offers


def read_table(table: pd.DataFrame | str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that has a path column, or paths as its index; return it indexed by path.

    Raises
    ------
    QueryError
        If it cannot be read, has no paths, or has one twice.
    """
    import pandas as pd

    name = "the table" if isinstance(table, pd.DataFrame) else os.fspath(table)
    if not isinstance(table, pd.DataFrame):
        try:
            file = Path(table).expanduser()
            table = pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",")
        except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
            raise QueryError(f"{name} cannot be read as a table: {error}") from error
    if KEY in table.columns:
        table = table.set_index(KEY)
    elif isinstance(table.index, pd.RangeIndex):
        columns = ", ".join(map(str, table.columns))
        raise QueryError(f"{name} has no {KEY!r} column, only {columns}; rename the one with paths")
    table = table.set_axis([str(column) for column in table.columns], axis=1)
    table.index = pd.Index(
        [str(path).replace("\\", "/") for path in table.index], name=KEY, dtype=object
    )
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise QueryError(f"{name} has two lines for {twice!r}; keep one line per image")
    return table


def align(table: pd.DataFrame, *paths: Sequence[str]) -> pd.DataFrame:
    """Put a table's lines in the order of N images, each known by any of several paths.

    Returns
    -------
    pandas.DataFrame
        N lines, numbered; those of images that the table lacks are empty.

    Raises
    ------
    QueryError
        If no line belongs to an image.
    """
    import pandas as pd

    places = np.full(len(paths[0]), -1)
    for names in paths:
        found = table.index.get_indexer(pd.Index(names, dtype=object))
        places = np.where(places < 0, found, places)
    if (places < 0).all():
        raise QueryError(
            f"no line of the table is an image of the library: it has such as "
            f"{next(iter(table.index), 'nothing')!r}, and the library {paths[-1][0]!r}"
        )
    # Its own types have a mark for what is missing: a price of 20 stays 20, and not 20.0.
    lines = table.convert_dtypes().reset_index(drop=True)
    return lines.reindex(places).reset_index(drop=True)


def summarise_column(column: pd.Series[Any]) -> dict[str, Any]:
    """Sum up a column for a menu of filters.

    Returns
    -------
    dict
        `name`, `kind` ("number" or "text"), and `min` and `max` of what is finite, None where
        nothing is; or `values`, its up to 100 most frequent tags, as they are written. Where there
        are more, those of one image alone, such as titles, are left out.
    """
    found: dict[str, Any] = {"name": str(column.name)}
    cells = column.dropna().tolist()
    if column.dtype.kind in "iuf":
        finite = [cell for cell in cells if math.isfinite(cell)]
        limits = {"min": min(finite, default=None), "max": max(finite, default=None)}
        return found | {"kind": "number", **limits}
    counts = Counter(tag for cell in cells for tag in split_tags(cell) if tag)
    least = 1 if len(counts) <= MENU_VALUES else 2
    values = [tag for tag, count in counts.most_common(MENU_VALUES) if count >= least]
    return found | {"kind": "text", "values": values}


def join_caption(line: Mapping[str, object], columns: Sequence[str]) -> str:
    """Put cells of a line in words, with a dot between them; a missing one is left out."""
    return " · ".join(str(line[column]) for column in columns if column in line)
