"""Files of delimited text (CSV and its like) as rows of text: encoding and separator are proven."""

from __future__ import annotations

import codecs
import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from simsearch.errors import QueryError

if TYPE_CHECKING:
    import os

SEPARATORS = ",;\t|"
MARKS = (  # that a file begins with; of UTF-32 first, whose mark begins as that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TextTable(NamedTuple):
    """The cells of a file as they are written.

    Attributes
    ----------
    header : list of str
        Names of the columns.
    rows : list of list of str
        As many cells in each as the header has.
    lines : list of int
        Line of the file in which each row ends, from 1.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]


def read_delimited(file: str | os.PathLike[str], key: str) -> TextTable:
    """Read a file whose header names a column `key`.

    The separator is the one that parts this name from its neighbours. Blank lines are passed over.

    Raises
    ------
    QueryError
        If it cannot be read, or a line does not fit the header.
    """
    text, given = _given_separator(read_text(file))
    headers = {mark: _header(text, mark) for mark in given or SEPARATORS}
    headers = {mark: named(header, key) for mark, header in headers.items()}
    proven = [mark for mark, header in headers.items() if key in header]
    if not proven:
        widest = max(headers.values(), key=len)
        raise QueryError(
            f"{file} has no {key!r} column, only {', '.join(widest)}; rename the one with paths"
        )
    parsed = _parse(file, text, max(proven, key=lambda mark: len(headers[mark])))
    return _checked(file, parsed._replace(header=named(parsed.header, key)))


def named(header: list[str], key: str) -> list[str]:
    """Return a header in which a column such as `Path` is called `path`, if it alone is."""
    alike = [place for place, name in enumerate(header) if name.strip().casefold() == key]
    if key in header or len(alike) != 1:
        return header
    return [key if place == alike[0] else name for place, name in enumerate(header)]


def read_pairs(file: str | os.PathLike[str], key: str, value: str) -> dict[str, str]:
    """Read lines of a path and a label, with or without a header; of more columns, with one.

    Raises
    ------
    QueryError
        If it cannot be read, a line has not two cells, or a path has two labels.
    """
    text, given = _given_separator(read_text(file))
    seen = {mark: _header(text, mark) for mark in given or SEPARATORS}
    parsed = [_parse(file, text, mark) for mark, first in seen.items() if len(first) > 1]
    if len(parsed) > 1:  # a path or a label may hold the sign of another separator
        parsed = [each for each in parsed if {len(row) for row in each.rows} <= {len(each.header)}]
    if len(parsed) != 1:
        problem = "several separators" if parsed else "no separator"
        raise QueryError(f"{file} does not hold lines of {key},{value}: it has {problem}")
    (table,) = parsed
    rows, lines = [table.header, *table.rows], [table.first, *table.lines]
    names = [name.casefold() for name in table.header]
    places = (names.index(key), names.index(value)) if {key, value} <= set(names) else None
    if places is None and any(names[2:]):
        raise QueryError(
            f"{file} has {len(names)} columns: name the one with paths {key!r} and the one with "
            f"labels {value!r} in a header"
        )
    if places or names[0] == key:
        rows, lines = rows[1:], lines[1:]
    first, second = places or (0, 1)
    found: dict[str, str] = {}
    for row, line in zip(rows, lines, strict=True):
        if len(row) <= max(first, second):
            raise QueryError(f"{file} does not hold lines of {key},{value}: line {line} has one")
        if found.setdefault(row[first], row[second]) != row[second]:
            raise QueryError(f"{file} has two labels for {row[first]!r}, the second on line {line}")
    return found


def read_text(file: str | os.PathLike[str]) -> str:
    """Read a text: UTF-8, with or without its mark, or UTF-16 or UTF-32 with theirs.

    Raises
    ------
    QueryError
        If it is not there, empty, or in another encoding.
    """
    try:
        data = Path(file).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        raise QueryError(f"{file} cannot be read as a table: {error}") from error
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise QueryError(
            f"{file} cannot be read as a table: byte {data[error.start]:#04x} on line {line} is "
            f"not in {encoding.removesuffix('-sig').upper()}; save it as CSV in UTF-8"
        ) from None
    if "\0" in text:
        raise QueryError(
            f"{file} cannot be read as a table: it has null characters, as UTF-16 without a mark "
            "or a workbook has; save it as CSV in UTF-8"
        )
    if not text.strip():
        raise QueryError(f"{file} cannot be read as a table: it is empty")
    return text


def _given_separator(text: str) -> tuple[str, str]:
    """Take off a first line that says what the separator is, as Excel writes it."""
    found = re.match(r'"?sep=(.)"?\r?\n', text)
    # The line stays, empty, so that lines are counted as an editor does
    return (text[found.end() - 1 :], found[1]) if found else (text, "")


def _header(text: str, separator: str) -> list[str]:
    """Return the cells of the first line with text, without the blanks around them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = ([cell.strip() for cell in row] for row in reader)
    try:
        return next((row for row in rows if any(row)), [])
    except csv.Error:
        return []


class _Parsed(NamedTuple):
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    first: int


def _parse(file: str | os.PathLike[str], text: str, separator: str) -> _Parsed:
    """Part the cells; a cell in quotes may hold separators and ends of lines."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise QueryError(
            f"{file} cannot be read as a table: line {reader.line_num}: {error}; a cell in quotes "
            'ends with one, and a quote in it is written twice ("")'
        ) from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    return _Parsed(header, rows[1:], lines[1:], lines[0] if lines else 1)


def _checked(file: str | os.PathLike[str], table: _Parsed) -> TextTable:
    """Check that columns have different names, and lines as many cells as there are columns."""
    header, rows = table.header, table.rows
    while len(header) > 1 and not header[-1] and all(_ends_blank(row, len(header)) for row in rows):
        header = header[:-1]  # a separator at the end of each line
        rows = [row[: len(header)] for row in rows]
    rows = [_without_blank_end(row, len(header)) for row in rows]
    for place, name in enumerate(header, 1):
        if name in header[: place - 1]:
            raise QueryError(
                f"{file} has two columns {name!r}, the {header.index(name) + 1}. and the {place}.; "
                "rename or remove one"
            )
    for row, line in zip(rows, table.lines, strict=True):
        if len(row) != len(header):
            raise QueryError(
                f"{file}: line {line} has {len(row)} cell{'s' * (len(row) > 1)}, and the header "
                f"{len(header)}; a cell "
                "that holds the separator or an end of line is put in quotes"
            )
    if "" in header:
        raise QueryError(f"{file}: column {header.index('') + 1} has no name; give it one")
    return TextTable(header, rows, table.lines)


def _without_blank_end(row: list[str], width: int) -> list[str]:
    """Leave out separators at the end of a line that has more of them than the header."""
    return row if "".join(row[width:]).strip() else row[:width]


def _ends_blank(row: list[str], width: int) -> bool:
    return len(row) <= width and not "".join(row[width - 1 :]).strip()
