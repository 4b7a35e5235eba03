"""Filters: which rows meet a glob, conditions on columns, a mask or row numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from fnmatch import translate
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError
from simsearch.files import iter_blocks
from simsearch.library.columns import DATE, NUMBER, TEXT, ColumnReading, exact_number
from simsearch.library.dates import span_of
from simsearch.library.number_formats import parse_number
from simsearch.library.values import Values, text_values, typed_values
from simsearch.work import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.table import RowTable
    from simsearch.library.types import Rows

_SEPARATORS = re.compile(r"\s*[;,|]\s*")  # between the tags of one cell
MIXED = "its cells are of several types, or of one without an order"
_GLOB = re.compile(r"[*?\[]")
BLOCK_CELLS = 1024  # between looks whether anybody still waits


def where(library: RowTable, rows: Rows) -> NDArray[np.bool_]:
    """Tell which images meet a condition; see `RowTable.where`."""
    if rows is None:
        return np.ones(len(library.paths), bool)
    if isinstance(rows, str):
        return _met(library.names, _matcher([rows]))
    if isinstance(rows, Mapping):
        met = [_meets(library, name, condition) for name, condition in rows.items()]
        return np.all(met, axis=0) if met else np.ones(len(library.paths), bool)
    return mask_of(np.asarray(rows), len(library.paths))


def select(library: RowTable, rows: Rows) -> NDArray[np.bool_]:
    """Choose at least one image; see `RowTable.select`."""
    chosen = library.where(rows)
    if not chosen.any():
        raise QueryError(f"{rows!r} chooses no image; there are such as {library.names[0]!r}")
    return chosen


def _meets(library: RowTable, name: str, condition: object) -> NDArray[np.bool_]:
    from simsearch.library.metadata import find_column

    column = find_column(library, name)
    own = library.metadata is None or name not in library.metadata.columns
    if own and name in {"path", "folder"} and isinstance(condition, str):  # as a bare glob is met
        return _met(column.cells.tolist(), _matcher([condition]))
    return column.meets(condition)


def matching(column: pd.Series[Any], condition: object) -> NDArray[np.bool_]:
    """Tell which cells of a column meet a condition; see `FilterColumn.meets`."""
    from simsearch.library.metadata import reading_of

    return FilterColumn(column, reading_of(column)).meets(condition)


class FilterColumn:
    """A column that conditions are put to.

    Parameters
    ----------
    cells
        Any values.
    reading
        How it is read, if it holds text alone.
    """

    def __init__(self, cells: pd.Series[Any], reading: ColumnReading | None = None) -> None:
        self.cells, self.name = cells, cells.name
        self.is_text = reading is not None
        self.reading = reading or ColumnReading()

    @cached_property
    def values(self) -> Values | None:
        """The cells as numbers; None where they cannot be compared."""
        return text_values(self.cells, self.reading) if self.is_text else typed_values(self.cells)

    @property
    def kind(self) -> str:
        """What is compared: "number", "date" or "text"."""
        return self.values.reading.kind if self.values else TEXT

    def stored_reading(self) -> dict[str, Any] | None:
        """Return how the column is read, as JSON holds it; None where its dtype tells all."""
        mixed = not self.is_text and self.cells.dtype == object and self.values is None
        return (
            ColumnReading(reason=MIXED).to_record()
            if mixed
            else (self.reading.to_record() if self.is_text else None)
        )

    def meets(self, condition: object) -> NDArray[np.bool_]:
        """Tell which cells meet a condition: (N,) bool; a missing cell meets none.

        Parameters
        ----------
        condition
            A tuple `(low, high)`, both included and either None, for a range; a list or a set for
            any of its members; else one value. Numbers and dates are compared as such. Text is
            compared without regard to case, may be a glob, and is met by the whole of a cell or by
            one of its tags, separated by ``;``, ``,`` or ``|``.

        Raises
        ------
        QueryError
            If the two cannot be compared.
        """
        if isinstance(condition, np.ndarray) and not condition.ndim:
            condition = condition[()]
        if condition is None or isinstance(condition, (bytes, Mapping)):
            raise QueryError(
                f"{condition!r} is no condition for {self.name!r}: give a value, a list of them, "
                "or a range (low, high)"
            )
        if isinstance(condition, tuple):
            return self._in_range(condition)
        if isinstance(condition, Collection) and not isinstance(condition, str):
            globs = [member for member in condition if self._is_glob(member)]
            each = [self.meets(member) for member in condition if not self._is_glob(member)]
            each += [self._matches_text(globs)] if globs else []
            return np.any(each, axis=0) if each else np.zeros(len(self.cells), bool)
        if isinstance(condition, str) and self._is_glob(condition):
            return self._matches_text([condition])
        if self.values is not None:
            return self._equals(self.values, condition)
        return self._equals_parts(condition)

    def _in_range(self, limits: tuple[Any, ...]) -> NDArray[np.bool_]:
        if len(limits) != 2:
            raise QueryError(f"{limits!r} is no range for {self.name!r}: give (low, high)")
        known = self.cells.notna().to_numpy(bool)
        if not known.any() or limits == (None, None):
            return known
        if self.values is None:
            return self._in_own_order(limits)
        met = np.ones(len(self.values.cells), bool)
        low, high = (None if each is None else self._limits(self.values, each) for each in limits)
        if low is not None:
            met &= self.values.at_least(low[0])
        if high is not None:
            met &= self.values.at_most(high[1])
        return self.values.spread(met)

    def _in_own_order(self, limits: tuple[Any, ...]) -> NDArray[np.bool_]:
        """Compare as pandas does what is neither text nor number nor date, such as durations."""
        met = self.cells.notna().to_numpy(bool)
        try:
            if self.is_text or self.cells.dtype == object:
                raise TypeError
            for limit, compare in zip(limits, (self.cells.ge, self.cells.le), strict=True):
                if limit is not None:
                    met = met & _known(compare(limit))
        except (TypeError, ValueError) as error:
            example = self.cells.dropna().iloc[0]
            reason = self.reading.reason or MIXED
            raise QueryError(
                f"{limits!r} is no range for {self.name!r}, which holds such as {example!r}: "
                f"{reason}"
            ) from error
        return met

    def _limits(self, values: Values, value: object) -> tuple[Any, Any]:
        try:
            return values.limits(value)
        except QueryError as error:
            raise QueryError(f"{self.name!r} {error}") from None

    def _equals(self, values: Values, value: object) -> NDArray[np.bool_]:
        self._check_doubt(value)
        low, high = self._limits(values, value)
        return values.spread(values.at_least(low) & values.at_most(high))

    def _check_doubt(self, value: object) -> None:
        """Refuse a whole number where a cell may be it, or one of its tags, or another number."""
        if not self.reading.doubt or isinstance(value, bool):
            return
        if isinstance(value, str):
            whole = self.kind != DATE and re.fullmatch("[-+]?[0-9]+", value.strip())
            if not whole or (self.kind == TEXT and self.reading.reason != self.reading.doubt):
                return
        elif self.kind == NUMBER and (_number(value) or 0) % 1:
            return
        raise QueryError(f"{self.name!r} cannot be compared with {value!r}: {self.reading.doubt}")

    def _is_glob(self, value: object) -> bool:
        return isinstance(value, str) and (self.kind == TEXT or bool(_GLOB.search(value)))

    def _matches_text(self, globs: Collection[str]) -> NDArray[np.bool_]:
        """Tell which cells any of the globs matches, in one pass."""
        for glob in globs:
            self._check_doubt(glob)
        return self._any_part(_matcher({glob.casefold() for glob in globs}))

    def _equals_parts(self, value: object) -> NDArray[np.bool_]:
        """Look for a number, or a truth value, among cells of text and their tags."""
        if self.cells.dtype.kind == "b":
            return _known(self.cells == value)
        if isinstance(value, (bool, np.bool_)):
            return self._any_part(str(value).casefold().__eq__)
        number = _number(value)
        if number is not None:
            self._check_doubt(value)
            return self._any_part(lambda part: _reads_as(part, number))
        if span_of(value) is not None and self.is_text and self.reading.reason:
            raise QueryError(
                f"{self.name!r} cannot be compared with {value!r}: {self.reading.reason}"
            )
        return _known(self.cells == value)

    def _any_part(self, meets: Any) -> NDArray[np.bool_]:  # noqa: ANN401
        cells = self.cells.astype(object).where(self.cells.notna(), None)
        return _met(cells.tolist(), lambda cell: any(map(meets, folded_parts(cell))))


def _matcher(globs: Collection[str]) -> Callable[[str], bool]:
    """Return what tells whether any glob matches a text; `fnmatch` would keep what it compiles."""
    matches = [re.compile(translate(glob)).match for glob in globs]
    return lambda text: any(match(text) for match in matches)


def _met(cells: Sequence[Any], meets: Callable[[Any], bool]) -> NDArray[np.bool_]:
    """Tell which cells meet a condition; a request that nobody waits for is given up."""
    met = np.empty(len(cells), bool)
    for block in iter_blocks(len(cells), BLOCK_CELLS):
        checkpoint()
        met[block] = [meets(cell) for cell in cells[block]]
    return met


def _number(value: object) -> Fraction | None:
    """Return a number exactly; None for anything else."""
    if not isinstance(value, (int, float, Decimal, np.number)):
        return None
    return exact_number(value)


def _reads_as(text: str, number: Fraction) -> bool:
    read = parse_number(text)
    return read is not None and read == number


def _known(answers: pd.Series[Any]) -> NDArray[np.bool_]:
    """Treat what is unknown as unmet."""
    return answers.fillna(value=False).to_numpy(bool)


def folded_parts(cell: object) -> list[str]:
    """Return what text is compared with: a whole cell and each of its tags, in lower case."""
    if isinstance(cell, (list, tuple, set, np.ndarray)):
        return [part for tag in cell for part in folded_parts(tag)]
    if cell is None:
        return []
    text = str(cell).casefold().strip()
    return [text, *_SEPARATORS.split(text)]


def split_tags(cell: object) -> list[str]:
    """Split a cell into its tags, as they are written."""
    if isinstance(cell, (list, tuple, set, np.ndarray)):
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
            f"mask of {count} booleans, row numbers from 0 to {count - 1}, or several globs as "
            "{'path': [...]}"
        )
    chosen = np.zeros(count, bool)
    chosen[rows] = True
    return chosen
