"""What a caller says of a table: decimal signs, formats of dates, cells that count as empty."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from simsearch.errors import QueryError
from simsearch.library.columns import TableOptions

if TYPE_CHECKING:
    from typing import Any

DECIMALS = (".", ",")


def read_table_options(decimal: Any, dates: Any, missing: Any) -> TableOptions:  # noqa: ANN401
    """Check the options of `ImageLibrary.attach`.

    Raises
    ------
    QueryError
        If one of them is of another type, or a format of dates is none.
    """
    for sign in _by_column(decimal):
        if sign not in DECIMALS:
            raise QueryError(f"decimal={sign!r}: give '.' or ',', or one of them by column")
    for form in _by_column(dates):
        _check_format(form)
    cells = [missing] if isinstance(missing, str) else missing
    is_list = isinstance(cells, Collection) and not isinstance(cells, (bytes, Mapping))
    if not is_list or not all(isinstance(cell, str) for cell in cells):
        raise QueryError(f"missing={missing!r:.80}: give a list of text, such as ['n/a']")
    return TableOptions(decimal, dates, frozenset(cell.strip() for cell in cells))


def caption_columns(caption: Any) -> list[str] | None:  # noqa: ANN401
    """Return the columns of a caption as a list; None where nothing is said.

    Raises
    ------
    QueryError
        If it is neither the name of a column nor a list of names.
    """
    columns = [caption] if isinstance(caption, str) else caption
    if columns is None:
        return None
    if not isinstance(columns, Collection) or not all(isinstance(each, str) for each in columns):
        raise QueryError(f"caption={caption!r:.80}: give a column, or a list of columns")
    return list(columns)


def _by_column(option: Any) -> list[Any]:  # noqa: ANN401
    """Return what an option says, of all columns or of each."""
    if option is None:
        return []
    return list(option.values()) if isinstance(option, Mapping) else [option]


def _check_format(form: Any) -> None:  # noqa: ANN401
    problem = ""
    try:
        dt.datetime.strptime("", form)  # which fits hardly any format, and tells of none
    except (TypeError, ValueError) as error:
        problem = "" if "does not match format" in str(error) else f" ({error})"
    if not isinstance(form, str) or "%" not in form or problem:
        raise QueryError(
            f"dates={form!r:.80}: give a format of strptime, such as '%d/%m/%Y', or one by "
            f"column{problem}"
        )
