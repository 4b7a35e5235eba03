"""The cells of a column as numbers that are compared exactly: integers in steps, or floats."""

from __future__ import annotations

import datetime as dt
import math
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.errors import QueryError
from simsearch.library.columns import DATE, NUMBER, ColumnReading, exact_number
from simsearch.library.dates import DAY, ISO, Span, span_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

INT64 = np.iinfo(np.int64)
UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}  # of numpy, in nanoseconds
AS_NUMBERS = ColumnReading(NUMBER, (".",))


class Values(NamedTuple):
    """The cells of a column that are compared.

    Attributes
    ----------
    known : numpy.ndarray
        (N,) bool, which cells are not missing.
    cells : numpy.ndarray
        (n,) of those: int64, or Python's integers, or floats.
    steps : int or None
        How many integers there are to 1, or to a nanosecond; None for floats.
    per_step : int
        How many nanoseconds an integer stands for.
    zone : object
        Of pandas' own times.
    """

    known: NDArray[np.bool_]
    cells: NDArray[Any]
    reading: ColumnReading
    steps: int | None = 1
    per_step: int = 1
    zone: Any = None

    def limits(self, value: object) -> tuple[Any, Any]:
        """Return the first and the last number that a limit stands for.

        Raises
        ------
        QueryError
            If it is not of the kind that the column holds.
        """
        if self.reading.kind == DATE:
            return self._span(value)[:2]
        if isinstance(value, (float, np.floating)) and not math.isfinite(value):
            return float(value), float(value)
        number = self.reading.number_limit(value)
        if number is None:
            infinite = float(str(value))
            return infinite, infinite
        return (number, number) if self.steps else (self._float(value, number),) * 2

    def _float(self, value: object, number: Fraction) -> float | Fraction:
        """Return the float that a number is written for; an integer is compared as it is."""
        try:
            nearest = float(number)
        except OverflowError:
            return number
        exact = isinstance(value, (int, np.integer)) and Fraction(nearest) != number
        return number if exact else nearest

    def _span(self, value: object) -> Span:
        if self.zone is None:
            return self.reading.date_limit(value)
        import pandas as pd

        span = span_of(value) if not isinstance(value, str) else None
        if span is None or span.offset is None:
            naive = ColumnReading(DATE, (ISO,), example=self.reading.example)
            try:
                span = naive.date_limit(value)
            except QueryError:
                return self.reading.date_limit(value)
            low, high = pd.Timestamp.min.value + 2 * DAY, pd.Timestamp.max.value - 2 * DAY
            ends = [pd.Timestamp(min(max(each, low), high)) for each in span[:2]]
            first, last = (
                end.tz_localize(self.zone, ambiguous=True, nonexistent="shift_forward").value
                for end in ends
            )
            return Span(first, last)
        return span

    def at_least(self, limit: Any) -> NDArray[np.bool_]:  # noqa: ANN401
        """Tell which known cells are no less than a number, exactly: (n,) bool."""
        return self._compare(limit, math.ceil, at_least=True)

    def at_most(self, limit: Any) -> NDArray[np.bool_]:  # noqa: ANN401
        """Tell which known cells are no more than a number, exactly: (n,) bool."""
        return self._compare(limit, math.floor, at_least=False)

    def _compare(self, limit: Any, rounded: Any, *, at_least: bool) -> NDArray[np.bool_]:  # noqa: ANN401
        cells = self.cells
        if isinstance(limit, float) and not (math.isfinite(limit) and self.steps):
            if self.steps:  # an infinity or NaN, beside integers
                met = limit == (-math.inf if at_least else math.inf)
                return np.full(len(cells), met)
            return np.asarray(cells >= limit if at_least else cells <= limit, bool)
        if self.steps is None:
            exact = [(cell >= limit if at_least else cell <= limit) for cell in map(_exact, cells)]
            return np.array(exact, bool)
        bound = rounded(Fraction(limit) * self.steps / self.per_step)
        if cells.dtype == np.int64 and not INT64.min <= bound <= INT64.max:
            return np.full(len(cells), (bound < 0) == at_least)
        return np.asarray(cells >= bound if at_least else cells <= bound, bool)

    def spread(self, met: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell of every cell what is told of the known ones; a missing one meets nothing."""
        found = np.zeros(len(self.known), bool)
        found[self.known] = met
        return found

    def plain(self) -> list[int | float]:
        """Return the finite cells as plain numbers, for a menu."""
        if self.steps is None:
            return [cell for cell in self.cells.tolist() if math.isfinite(cell)]
        if self.steps == 1:
            return [int(cell) for cell in self.cells.tolist()]
        return [
            int(cell // self.steps) if cell % self.steps == 0 else float(Fraction(cell, self.steps))
            for cell in map(int, self.cells.tolist())
        ]


def _exact(cell: float) -> float | Fraction:
    return Fraction(cell) if math.isfinite(cell) else cell


def text_values(column: pd.Series[Any], reading: ColumnReading) -> Values | None:
    """Read a column of text; None where its reading is text, too."""
    known = column.notna().to_numpy(bool)
    cells = [str(cell) for cell in column[known].tolist()]
    read: dict[str, Any] = {}
    if reading.kind == DATE:
        read = {cell: reading.span(cell) for cell in set(cells)}
        return Values(known, _integers([_start(read[cell]) for cell in cells]), reading)
    if reading.kind == NUMBER:
        steps, read = _in_steps({cell: reading.number(cell) for cell in set(cells)})
        return Values(known, _integers([read[cell] for cell in cells]), reading, steps)
    return None


def _start(span: Span | None) -> int:
    if span is None:
        raise QueryError("a cell is no date, unlike those that the table was attached with")
    return span.start


def _in_steps(numbers: dict[str, Decimal | None]) -> tuple[int, dict[str, int]]:
    """Count decimals, by their cells, in steps of the finest one."""
    found = {cell: number for cell, number in numbers.items() if number is not None}
    if len(found) < len(numbers):
        raise QueryError("a cell is no number, unlike those that the table was attached with")
    places = max((-int(number.as_tuple().exponent) for number in found.values()), default=0)
    steps = 10 ** max(places, 0)
    with localcontext(Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)):  # exact
        return steps, {cell: int(number * steps) for cell, number in found.items()}


def _integers(cells: list[int]) -> NDArray[Any]:
    fits = all(INT64.min <= cell <= INT64.max for cell in cells)
    return np.array(cells, np.int64 if fits else object)


def typed_values(column: pd.Series[Any]) -> Values | None:
    """Return numbers, dates and times that pandas or Python hold as such; None for others."""
    known = column.notna().to_numpy(bool)
    cells = column[known]
    kind = column.dtype.kind
    if kind in "iu":
        return Values(known, _small(cells), AS_NUMBERS)
    if kind == "f":
        width = np.float32 if "32" in str(column.dtype) else np.float64
        return Values(known, cells.to_numpy(width), AS_NUMBERS, None)
    if kind == "M":
        return _times(known, cells)
    return _objects(known, cells.tolist()) if column.dtype == object else None


def _small(cells: pd.Series[Any]) -> NDArray[Any]:
    unsigned = cells.to_numpy(np.uint64 if cells.dtype.kind == "u" else np.int64)
    return _integers(unsigned.tolist()) if unsigned.dtype == np.uint64 else unsigned


def _times(known: NDArray[np.bool_], cells: pd.Series[Any]) -> Values:
    zone = getattr(cells.dtype, "tz", None)
    plain = cells.dt.tz_convert("UTC").dt.tz_localize(None) if zone is not None else cells
    moments = plain.to_numpy()
    unit = np.datetime_data(moments.dtype)[0]
    example = "" if cells.empty else str(cells.iloc[0])
    reading = ColumnReading(DATE, (ISO,), zoned=zone is not None, example=example)
    return Values(known, moments.view(np.int64), reading, per_step=UNITS[unit], zone=zone)


def _objects(known: NDArray[np.bool_], cells: list[Any]) -> Values | None:
    """Read Python's own decimals, large integers and dates."""
    if cells and all(isinstance(cell, dt.date) for cell in cells):
        spans = [span_of(cell) for cell in cells]
        zones = {span.offset is not None for span in spans if span}
        if len(zones) == 1:
            reading = ColumnReading(DATE, (ISO,), zoned=zones.pop(), example=str(cells[0]))
            return Values(known, _integers([_start(span) for span in spans]), reading)
    if cells and all(_is_number(cell) for cell in cells):
        numbers = [exact_number(cell) for cell in cells]
        if None not in numbers:
            steps = math.lcm(*(number.denominator for number in numbers if number is not None))
            scaled = [int(number * steps) for number in numbers if number is not None]
            return Values(known, _integers(scaled), AS_NUMBERS, steps)
    return None


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float, Decimal, np.number)) and not isinstance(cell, bool)
