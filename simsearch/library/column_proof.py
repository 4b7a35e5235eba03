"""What the cells of a column prove of how they are read; the reason where they prove nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simsearch.library.columns import DATE, NUMBER, ColumnReading, TableOptions
from simsearch.library.dates import DAY_FIRST, ISO, MONTH_FIRST, SLASHES, parse_date, parse_iso
from simsearch.library.number_formats import CONVENTIONS, Money, parse_number, split_money

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal

WORDS = {".": "a decimal point", ",": "a decimal comma"}


def read_column(name: str, cells: Mapping[str, int], options: TableOptions) -> ColumnReading:
    """Find out what a column holds.

    Parameters
    ----------
    name
        Of the column.
    cells
        Each different cell that is not missing, with the line that it stands in first.
    options
        What the caller says of the table.
    """
    example = next(iter(cells), "")
    if not cells:
        return ColumnReading()
    reading = (
        _given_dates(name, cells, options)
        or _dates(cells, (ISO,))
        or _numbers(name, cells, options)
        or _slashed_dates(cells)
        or ColumnReading(reason=_why_text(name, cells, options), doubt=_doubt(cells))
    )
    return replace(reading, example=example)


# Dates


def _given_dates(
    name: str, cells: Mapping[str, int], options: TableOptions
) -> ColumnReading | None:
    form, named = options.of("dates", name)
    if form is None:
        return None
    found = _dates(cells, (form,))
    if found or not named:
        return found
    odd = next(cell for cell in cells if parse_date(cell, form) is None)
    return ColumnReading(reason=f"{_at(odd, cells)} is no date of the format {form!r}")


def _dates(cells: Mapping[str, int], formats: tuple[str, ...]) -> ColumnReading | None:
    spans = []
    for cell in cells:
        spans.append(parse_date(cell, formats[0]))
        if spans[-1] is None:
            return None
    offsets = {span.offset for span in spans if span}
    if len(offsets) > 1 and None in offsets:
        naive = next(c for c, s in zip(cells, spans, strict=True) if s and s.offset is None)
        zoned = next(c for c, s in zip(cells, spans, strict=True) if s and s.offset is not None)
        return ColumnReading(
            reason=f"{_at(naive, cells)} has no zone, and {_at(zoned, cells)} has one; "
            "write all in one way"
        )
    offset = offsets.pop() if len(offsets) == 1 else None
    return ColumnReading(DATE, formats, offset=offset, zoned=bool(offsets) or offset is not None)


def _slashed_dates(cells: Mapping[str, int]) -> ColumnReading | None:
    """Read days and months in the order that the cells prove."""
    slash = next((c for c in SLASHES if c in next(iter(cells))), None)
    if slash is None:
        return None
    forms = [each.format(slash) for each in (DAY_FIRST, MONTH_FIRST)]
    odd = [next((c for c in cells if parse_date(c, form) is None), None) for form in forms]
    if None not in odd:
        return None
    if odd == [None, None]:
        unlike = (c for c in cells if parse_date(c, forms[0]) != parse_date(c, forms[1]))
        if (cell := next(unlike, None)) is not None:
            return ColumnReading(
                reason=f"{_at(cell, cells)} has the day first or the month first: "
                f"{_decides('dates', *forms)}"
            )
    return _dates(cells, (forms[odd.index(None)],))


# Numbers


def _numbers(name: str, cells: Mapping[str, int], options: TableOptions) -> ColumnReading | None:
    """Read numbers or money under the conventions in which every cell is one."""
    if (money := _split_all(cells)) is None:
        return None
    decimal, padded = options.of("decimal", name)
    texts = [each.number for each in money]
    fitting = {
        form: read
        for form in CONVENTIONS
        if decimal in (None, form[0]) and (read := _read_all(texts, form, padded=padded))
    }
    if not fitting:
        return None
    marks = {(each.currency, each.side) for each in money}
    if len(marks) > 1:
        return ColumnReading(reason=_two_currencies(cells))
    first = next(iter(fitting.values()))
    unlike = [form for form, read in fitting.items() if read != first]
    if unlike:
        other = fitting[unlike[0]]
        place = next(i for i, each in enumerate(first) if each != other[i])
        signs = next(iter(fitting))[0], unlike[0][0]
        reason = (
            f"{_at(list(cells)[place], cells)} may be {first[place]} or {other[place]}: "
            f"{_decides('decimal', *signs)}"
        )
        return ColumnReading(reason=reason, doubt=reason)
    ((currency, side),) = marks
    doubt = "" if decimal or currency else _tags_doubt(cells, tuple(fitting))
    return ColumnReading(NUMBER, tuple(fitting), currency, side, padded, doubt=doubt)


def _split_all(cells: Iterable[str]) -> list[Money] | None:
    found = []
    for cell in cells:
        if (money := split_money(cell)) is None:
            return None
        found.append(money)
    return found


def _read_all(texts: list[str], form: str, *, padded: bool) -> list[Decimal] | None:
    found = []
    for text in texts:
        number = parse_number(text, form, padded=padded)
        if number is None:
            return None
        found.append(number)
    return found


def _tags_doubt(cells: Mapping[str, int], formats: tuple[str, ...]) -> str:
    """Say if a comma may part two tags, such as sizes, where it is the only sign of a column."""
    if any(form[0] != "," for form in formats) or any(set(cell) & set(". '") for cell in cells):
        return ""
    cell = next((each for each in cells if "," in each), None)
    if cell is None:
        return ""
    return f"{_at(cell, cells)} may be one number or two tags: {_decides('decimal', *',.')}"


def _two_currencies(cells: Mapping[str, int]) -> str:
    seen: dict[tuple[str, str], str] = {}
    for cell in cells:
        money = split_money(cell)
        if money:
            seen.setdefault(money[1:], cell)
    first, second = list(seen.values())[:2]
    return (
        f"{_at(first, cells)} and {_at(second, cells)} have not the same currency in the same "
        "place; write all in one way"
    )


def _doubt(cells: Mapping[str, int]) -> str:
    """Say which cell of a column of text has two readings as a number."""
    for cell in cells:
        money = split_money(cell)
        read = {parse_number(money.number, form) for form in CONVENTIONS} if money else set()
        if len(read - {None}) > 1:
            first, second = sorted(number for number in read if number is not None)
            return f"{_at(cell, cells)} may be {first} or {second}"
    return ""


# Reasons


def _why_text(name: str, cells: Mapping[str, int], options: TableOptions) -> str:
    """Say which cells keep a column from being compared, and what would mend it."""
    number_like = {cell for cell in cells if _is_number_like(cell)}
    others = [cell for cell in cells if cell not in number_like]
    dates = [cell for cell in cells if _is_date_like(cell)]
    if len(dates) > len(number_like):
        return _why_no_dates(cells, dates)
    if not number_like and not _is_code(others[0]):
        return (
            f"{_at(others[0], cells)} is neither a number nor an ISO date, so only its text can be "
            "asked for: by a value, a list or a glob"
        )
    if others:
        return _why_no_number(name, others[0], cells)
    decimal, padded = options.of("decimal", name)
    signs = (decimal,) if decimal else (".", ",")
    odd = {sign: _first_unlike(cells, sign, padded=padded) for sign in signs}
    unread = " and ".join(
        f"{_at(cell, cells)} is no number with {WORDS[sign]}" for sign, cell in odd.items() if cell
    )
    return f"{unread or 'the thousands are separated in several ways'}; write all in one way"


def _why_no_number(name: str, cell: str, cells: Mapping[str, int]) -> str:
    if _is_code(cell):
        return (
            f"{_at(cell, cells)} has the look of a code, not of a number: decimal="
            f"{{{name!r}: '.'}} or --decimal '{name}=.' says that it is one"
        )
    return f"{_at(cell, cells)} is no number: {_as_missing(cell)}"


def _is_code(cell: str) -> bool:
    """Tell whether a cell would be a number but for leading zeros, or an exponent as in "1e5"."""
    money = split_money(cell)
    forms = CONVENTIONS if money else ()
    texts = [money.number] if money else []
    return any(parse_number(t, form, padded=True) is not None for t in texts for form in forms)


def _why_no_dates(cells: Mapping[str, int], dates: list[str]) -> str:
    odd = next((cell for cell in cells if cell not in set(dates)), None)
    if odd is not None:
        return f"{_at(odd, cells)} is no date: {_as_missing(odd)}"
    cell = next((c for c in cells if parse_iso(c) is None), dates[0])
    return (
        f"{_at(cell, cells)} is no ISO date such as 2024-12-31, nor are all cells dates in one "
        f"way: {_decides('dates', '%d/%m/%Y')}, or another format"
    )


def _first_unlike(cells: Mapping[str, int], sign: str, *, padded: bool) -> str | None:
    """Return the first cell that is no number with this decimal sign, however it is grouped."""
    forms = [form for form in CONVENTIONS if form[0] == sign]
    for cell in cells:
        money = split_money(cell)
        if money and not any(
            parse_number(money.number, form, padded=padded) is not None for form in forms
        ):
            return cell
    return None


def _is_number_like(cell: str) -> bool:
    money = split_money(cell)
    return bool(money) and any(
        parse_number(money.number, form) is not None  # type: ignore[union-attr]
        for form in CONVENTIONS
    )


def _is_date_like(cell: str) -> bool:
    digits = sum(letter.isdigit() for letter in cell)
    return digits >= len("1/1/24") - 2 and len(cell.strip(" 0123456789")) >= 1 and _parted(cell)


def _parted(cell: str) -> bool:
    return any(cell.count(sign) > 1 for sign in SLASHES)


def _at(cell: str, cells: Mapping[str, int]) -> str:
    return f"{cell!r:.60} (line {cells[cell]})"


def _decides(name: str, *values: str) -> str:
    options = " or ".join(f"{name}={value!r}" for value in values)
    return f"{options} decides (--{name} on the command line)"


def _as_missing(cell: str) -> str:
    return f"missing=[{cell!r:.60}] counts it as empty (--missing on the command line)"
