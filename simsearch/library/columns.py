"""How the text of a column is read: as numbers, money or dates under one convention, or as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import QueryError
from simsearch.library.dates import Span, parse_date, parse_iso, span_of
from simsearch.library.number_formats import parse_number, split_money

if TYPE_CHECKING:
    from typing import Any

TEXT, NUMBER, DATE = "text", "number", "date"


class TableOptions(NamedTuple):
    """How text is read where a column does not prove it; see `ImageLibrary.attach`."""

    decimal: str | Mapping[str, str] | None = None
    dates: str | Mapping[str, str] | None = None
    missing: frozenset[str] = frozenset()

    def of(self, option: str, column: str) -> tuple[str | None, bool]:
        """Return what an option says of a column, and whether it names the column."""
        given = getattr(self, option)
        if isinstance(given, Mapping):
            return given.get(column), column in given
        return given, False


@dataclass(frozen=True)
class ColumnReading:
    """How the cells of a column are read.

    Attributes
    ----------
    kind : str
        "number", "date" or "text".
    formats : tuple of str
        The conventions of `number_formats` under which every number is the same, or the formats
        of `dates`.
    currency, side : str
        What stands before or after every number.
    padded : bool
        Whether leading zeros are read, as the caller has said that these are numbers.
    offset : int or None
        Minutes east of UTC of every date-time, None where they differ or have no zone.
    zoned : bool
        Whether date-times have a zone.
    reason : str
        Why cells of a column of text cannot be compared, with the option that decides.
    example : str
        The first cell.
    doubt : str
        Why whole numbers cannot be looked for: cells may be lists of tags, or have two readings.
    """

    kind: str = TEXT
    formats: tuple[str, ...] = ()
    currency: str = ""
    side: str = ""
    padded: bool = False
    offset: int | None = None
    zoned: bool = False
    reason: str = ""
    example: str = ""
    doubt: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ColumnReading:
        """Read the stored form."""
        return cls(**{**record, "formats": tuple(record["formats"])})

    def to_record(self) -> dict[str, Any]:
        """Return the stored form, as JSON holds it."""
        return asdict(self)

    def number(self, cell: str) -> Decimal | None:
        """Read a cell of a column of numbers."""
        money = split_money(cell)
        return money and parse_number(money.number, self.formats[0], padded=self.padded)

    def span(self, cell: str) -> Span | None:
        """Read a cell of a column of dates."""
        return parse_date(cell, self.formats[0])

    def number_limit(self, value: object) -> Fraction | None:
        """Read what numbers are compared with, exactly; None for infinities and NaN.

        Raises
        ------
        QueryError
            If it is no number, has another currency, or two readings.
        """
        if not isinstance(value, str):
            return exact_number(value)
        money = split_money(value)
        texts = [] if money is None else [money.number]
        if money and money.currency not in ("", self.currency):
            raise QueryError(
                f"holds numbers with {self.currency or 'no currency'}, and {value!r} has "
                f"{money.currency}"
            )
        forms = {*self.formats, "."}
        read = [parse_number(text, form, padded=self.padded) for text in texts for form in forms]
        found = {number for number in read if number is not None}
        if len(found) > 1:
            first, second = sorted(found)
            raise QueryError(
                f"holds numbers, and {value!r} may be {first} or {second}; write it as one of these"
            )
        if not found and (re.match("[-+]?0[0-9]", value.strip()) or set("_,") & set(value)):
            raise QueryError(f"holds numbers, and {value!r} is none")
        return Fraction(found.pop()) if found else exact_number(value)

    def date_limit(self, value: object) -> Span:
        """Read what dates are compared with, in the format of the column or as ISO has it.

        Raises
        ------
        QueryError
            If it is no date, has two readings, or a zone where the cells have none, or the like.
        """
        if isinstance(value, str):
            found = {parse_date(value, form) for form in self.formats}
            found = (found | {parse_iso(value, years=True)}) - {None}
        else:
            found = {span_of(value)} - {None}
        if len(found) != 1:
            reason = "has two readings" if found else "is none"
            raise QueryError(f"holds dates such as {self.example!r}, and {value!r} {reason}")
        return self._in_zone(next(span for span in found if span), value)

    def _in_zone(self, span: Span, value: object) -> Span:
        if (span.offset is not None) == self.zoned:
            return span
        if self.offset is None:
            have = "with a zone" if self.zoned else "without a zone"
            raise QueryError(f"holds dates {have}, and {value!r} is not: give one {have}")
        shift = self.offset * 60 * 10**9
        return Span(span.start - shift, span.end - shift, self.offset)


def exact_number(value: object) -> Fraction | None:
    """Turn a number into a fraction, a float by the digits it is written with.

    Returns
    -------
    Fraction or None
        None for infinities and NaN.

    Raises
    ------
    QueryError
        If it is no number.
    """
    if isinstance(value, (bool, np.bool_)):
        return Fraction(bool(value))
    if isinstance(value, (int, Fraction)):
        return Fraction(value)
    with suppress(InvalidOperation):
        if isinstance(value, (str, float, Decimal, np.number)):
            number = Decimal(str(value).strip())
            return Fraction(number) if number.is_finite() else None
    raise QueryError(f"holds numbers, and {value!r} is none")
