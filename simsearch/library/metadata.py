"""A table of facts about images, row by row beside them, and the conditions that choose by it.

Nothing here knows an embedding, or opens an image. pandas is imported when a table is read.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray


KEY = "path"
_MENU = 100  # values of a column that a menu offers
_SEPARATORS = re.compile(r"\s*[;,|]\s*")  # between the tags of one cell


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
    table.index = pd.Index([str(path).replace("\\", "/") for path in table.index], name=KEY)
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise QueryError(f"{name} has two lines for {twice!r}; keep one line an image")
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
        If no line is an image's.
    """
    import pandas as pd

    places = np.full(len(paths[0]), -1)
    for names in paths:
        found = table.index.get_indexer(pd.Index(names))
        places = np.where(places < 0, found, places)
    if (places < 0).all():
        raise QueryError(
            f"no line of the table is an image of the library: it has such as "
            f"{next(iter(table.index), 'nothing')!r}, and the library {paths[-1][0]!r}"
        )
    # Its own types have a mark for what is missing: a price of 20 stays 20, and not 20.0.
    lines = table.convert_dtypes().reset_index(drop=True)
    return lines.reindex(places).reset_index(drop=True)


def matching(column: pd.Series[Any], condition: object) -> NDArray[np.bool_]:
    """Tell which cells of a column meet a condition: (N,) bool; an empty cell meets none.

    Parameters
    ----------
    column
        Any values.
    condition
        A tuple `(low, high)`, both included and either None, for a range; a list or a set for any
        of its members; else one value. Text is compared without regard to case, may be a glob,
        and is met by the whole of a cell or by one of its tags, separated by ``;``, ``,`` or ``|``.

    Raises
    ------
    QueryError
        If the two cannot be compared.
    """
    if isinstance(condition, tuple):
        return _between(column, condition)
    if isinstance(condition, Collection) and not isinstance(condition, (str, bytes, Mapping)):
        each = [matching(column, member) for member in condition]
        return np.any(each, axis=0) if each else np.zeros(len(column), bool)
    if not isinstance(condition, str) or column.dtype.kind in "iuf":
        return _met(column == _number(column, condition))
    pattern = re.compile(translate(condition.casefold()))
    cells = column.astype(object).where(column.notna(), None)
    return np.array([_has(cell, pattern) for cell in cells.tolist()], bool)


def _between(column: pd.Series[Any], limits: tuple[Any, ...]) -> NDArray[np.bool_]:
    if len(limits) != 2:
        raise QueryError(f"{limits!r} is no range for {column.name!r}: give (low, high)")
    met = column.notna().to_numpy(bool)
    try:
        for limit, compare in zip(limits, (column.ge, column.le), strict=True):
            if limit is not None:
                met = met & _met(compare(_number(column, limit)))
    except TypeError as error:
        raise QueryError(
            f"{limits!r} is no range for {column.name!r}, which holds such as "
            f"{column.dropna().iloc[0]!r}"
        ) from error
    return met


def _met(answers: pd.Series[Any]) -> NDArray[np.bool_]:
    """Take what is unknown for unmet."""
    return answers.fillna(value=False).to_numpy(bool)


def _number(column: pd.Series[Any], value: object) -> Any:  # noqa: ANN401
    """Read text as a number where the column holds such: a command line has only text."""
    if not isinstance(value, str) or column.dtype.kind not in "iuf":
        return value
    try:
        return float(value)
    except ValueError:
        raise QueryError(f"{column.name!r} holds numbers, and {value!r} is none") from None


def _has(cell: object, pattern: re.Pattern[str]) -> bool:
    return any(pattern.match(part) for part in folded_parts(cell))


def folded_parts(cell: object) -> list[str]:
    """Return what text may be met by: the whole of a cell and each of its tags, in lower case."""
    if isinstance(cell, (list, tuple, set)):
        return [part for tag in cell for part in folded_parts(tag)]
    if cell is None:
        return []
    text = str(cell).casefold().strip()
    return [text, *_SEPARATORS.split(text)]


def summary(column: pd.Series[Any]) -> dict[str, Any]:
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
    counts = Counter(tag for cell in cells for tag in tags(cell) if tag)
    least = 1 if len(counts) <= _MENU else 2
    values = [tag for tag, count in counts.most_common(_MENU) if count >= least]
    return found | {"kind": "text", "values": values}


def tags(cell: object) -> list[str]:
    """Cut a cell into its tags, as they are written."""
    if isinstance(cell, (list, tuple, set)):
        return [tag for each in cell for tag in tags(each)]
    return _SEPARATORS.split(str(cell).strip())


def caption(line: Mapping[str, object], columns: Sequence[str]) -> str:
    """Put cells of a line in words, with a dot between them; a missing one is left out."""
    return " · ".join(str(line[column]) for column in columns if column in line)
