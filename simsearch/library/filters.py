"""Filters: which rows meet a glob, conditions on columns, a mask or row numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import translate
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

_SEPARATORS = re.compile(r"\s*[;,|]\s*")  # between the tags of one cell


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
        return _in_range(column, condition)
    if isinstance(condition, Collection) and not isinstance(condition, (str, bytes, Mapping)):
        each = [matching(column, member) for member in condition]
        return np.any(each, axis=0) if each else np.zeros(len(column), bool)
    if not isinstance(condition, str) or column.dtype.kind in "iuf":
        return _known(column == _as_number(column, condition))
    pattern = re.compile(translate(condition.casefold()))
    cells = column.astype(object).where(column.notna(), None)
    return np.array([any(map(pattern.match, folded_parts(cell))) for cell in cells.tolist()], bool)


def _in_range(column: pd.Series[Any], limits: tuple[Any, ...]) -> NDArray[np.bool_]:
    if len(limits) != 2:
        raise QueryError(f"{limits!r} is no range for {column.name!r}: give (low, high)")
    met = column.notna().to_numpy(bool)
    try:
        for limit, compare in zip(limits, (column.ge, column.le), strict=True):
            if limit is not None:
                met = met & _known(compare(_as_number(column, limit)))
    except TypeError as error:
        raise QueryError(
            f"{limits!r} is no range for {column.name!r}, which holds such as "
            f"{column.dropna().iloc[0]!r}"
        ) from error
    return met


def _known(answers: pd.Series[Any]) -> NDArray[np.bool_]:
    """Treat what is unknown as unmet."""
    return answers.fillna(value=False).to_numpy(bool)


def _as_number(column: pd.Series[Any], value: object) -> Any:  # noqa: ANN401
    """Read text as a number where the column holds such: a command line has only text."""
    if not isinstance(value, str) or column.dtype.kind not in "iuf":
        return value
    try:
        return float(value)
    except ValueError:
        raise QueryError(f"{column.name!r} holds numbers, and {value!r} is none") from None


def folded_parts(cell: object) -> list[str]:
    """Return what text is compared with: a whole cell and each of its tags, in lower case."""
    if isinstance(cell, (list, tuple, set)):
        return [part for tag in cell for part in folded_parts(tag)]
    if cell is None:
        return []
    text = str(cell).casefold().strip()
    return [text, *_SEPARATORS.split(text)]


def split_tags(cell: object) -> list[str]:
    """Split a cell into its tags, as they are written."""
    if isinstance(cell, (list, tuple, set)):
        return [tag for each in cell for tag in split_tags(each)]
    return _SEPARATORS.split(str(cell).strip())


def mask_of(rows: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Return a mask, (count,) bool, of a mask or of row numbers.

    Raises
    ------
    QueryError
        If it is neither.
    """
    if rows.dtype == bool and rows.shape == (count,):
        return rows
    numbers = rows.ndim == 1 and rows.dtype.kind in "iu"
    if not numbers or not ((rows >= 0) & (rows < count)).all():
        raise QueryError(
            f"an array of shape {rows.shape} and dtype {rows.dtype} chooses no rows: give a "
            f"mask of {count} booleans, or row numbers from 0 to {count - 1}"
        )
    chosen = np.zeros(count, bool)
    chosen[rows] = True
    return chosen
