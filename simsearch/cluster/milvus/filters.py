"""Filters as the engine evaluates them: tokens and numbers beside each row, and expressions.

An expression may let too many rows through, never too few: the reader checks them again with
`ImageLibrary.where`, so that the engine's idea of text or of missing values does not count. Tokens
are digests, so that nothing a user writes ever stands in an expression.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from simsearch.cluster.milvus.schema import FILTER_TOKENS, NUMBER_FIELDS
from simsearch.errors import LibraryError, QueryError
from simsearch.library.columns import DATE, NUMBER, TEXT, ColumnReading
from simsearch.library.filters import folded_parts
from simsearch.library.library import ImageLibrary
from simsearch.library.values import AS_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeGuard

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.metadata import AttachedTable
    from simsearch.library.types import Rows


Column: TypeAlias = "Mapping[str, Any]"
"""Of the metadata: its name, dtype, number (which of `NUMBER_FIELDS` holds it), an example, kind
("number", "date" or "text") and, unless its dtype tells all, how it is read."""

UNKNOWN = ColumnReading(reason="an earlier simsearch has published it: publish it again")

MAX_TOKENS = 3_000  # per row, in one text field of the engine
OVERFLOW_MARK = "more"  # in place of the tokens of a row that has more of them
GLOB = re.compile(r"[*?\[]")
MATCH_NONE = "id < 0"
NUMERIC_DTYPES = ("int", "uint", "float")
MAX_DOUBLE = float(np.finfo(np.float64).max)


def describe_columns(
    table: pd.DataFrame | None, attached: AttachedTable | None = None
) -> list[dict[str, Any]]:
    """Describe the columns of a table, as it was attached.

    The example is there so that a condition that does not fit the column is refused without data.
    """
    if table is None:
        return []
    from simsearch.library.metadata import AttachedTable

    attached = attached or AttachedTable(table)
    columns: list[dict[str, Any]] = []
    numeric = 0
    for name in table.columns:
        cells, column = table[name], attached.column(name)
        compared = column.kind == NUMBER and cells.dtype != object and numeric < len(NUMBER_FIELDS)
        columns.append(
            {
                "name": name,
                "dtype": str(cells.dtype),
                "number": numeric if compared else None,
                "example": next(iter(plain_cells(cells.dropna().iloc[:1])), None),
                "kind": column.kind,
                "reading": column.stored_reading(),
            }
        )
        numeric += compared
    return columns


def plain_cells(column: pd.Series[Any]) -> list[Any]:
    """Turn a column into values that JSON can hold, None where it is empty.

    Raises
    ------
    LibraryError
        If it has a value of another type.
    """
    cells = column.astype(object).where(column.notna(), None).tolist()
    return [_plain_cell(cell, str(column.name)) for cell in cells]


def _plain_cell(cell: Any, name: str) -> Any:  # noqa: ANN401
    if cell is None or isinstance(cell, (str, bool, int, float)):
        return cell
    if isinstance(cell, (list, tuple, set)):
        return [_plain_cell(each, name) for each in cell]
    if isinstance(cell, np.generic):
        return _plain_cell(cell.item(), name)
    if type(cell).__name__ == "Timestamp":
        return cell.isoformat()
    raise LibraryError(
        f"column {name!r} holds {cell!r}, a {type(cell).__name__}: numbers, text, truth values, "
        "dates as pandas has them, and lists of these can be published; turn it into text"
    )


# What is stored beside a row


def filter_tokens(name: str, facts: Mapping[str, Any], columns: Iterable[Column]) -> str:
    """Return the tokens of a row in one text: ``|token|token|``.

    Parameters
    ----------
    name
        Path relative to the dataset's root; each folder above the file makes a token.
    facts
        Metadata as plain values; each text, truth value or date makes one or more tokens.
    columns
        From `describe_columns`.
    """
    found = {_token("in", name[: slash.start()]) for slash in re.finditer("/", name)}
    for column in columns:
        if not str(column["dtype"]).lower().startswith(NUMERIC_DTYPES):
            tag = f"tag {column['name']}"
            found.update(_token(tag, part) for part in folded_parts(facts.get(column["name"])))
    if len(found) > MAX_TOKENS:
        found = {OVERFLOW_MARK}
    return "".join(f"|{token}" for token in sorted(found)) + "|"


def number_fields(facts: Mapping[str, Any], columns: Iterable[Column]) -> dict[str, float | None]:
    """Return the numbers of a row by field, as doubles: rounding keeps their order."""
    found: dict[str, float | None] = dict.fromkeys(NUMBER_FIELDS)
    for column in columns:
        value = facts.get(column["name"])
        if column["number"] is not None and value is not None:
            reading = _reading(column)
            number = reading.number(value) if reading and isinstance(value, str) else value
            clipped = np.clip(float(number), -MAX_DOUBLE, MAX_DOUBLE)  # type: ignore[arg-type]
            found[NUMBER_FIELDS[column["number"]]] = float(clipped)
    return found


def _token(kind: str, text: str) -> str:
    data = f"{kind}\x1f{text}".encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=8).hexdigest()


def _kind(column: Column) -> str:
    """Tell what is compared in a column; of earlier versions, its dtype tells."""
    if "kind" in column:
        return str(column["kind"])
    dtype = str(column["dtype"]).lower()
    return NUMBER if dtype.startswith(NUMERIC_DTYPES) else DATE if "date" in dtype else TEXT


def _reading(column: Column) -> ColumnReading | None:
    """Return how a column is read; None where its dtype tells all."""
    if "reading" not in column:
        return UNKNOWN if column["dtype"] in {"string", "object", "str"} else None
    return ColumnReading.from_record(column["reading"]) if column["reading"] else None


# Expressions of the engine


def filter_expression(where: Rows, columns: Sequence[Column]) -> str:
    """Return the expression of a condition, as far as the engine can evaluate it; else ""."""
    if where is None:
        return ""
    if isinstance(where, str):
        return _folder_expression(where)
    if isinstance(where, Mapping):
        known = {column["name"]: column for column in columns}
        parts = [_condition_expression(known, name, each) for name, each in where.items()]
        return " and ".join(f"({part})" for part in parts if part)
    numbers = np.unique(np.asarray(where)).tolist()
    return f"row in {numbers}" if numbers else MATCH_NONE


def _condition_expression(known: Mapping[str, Column], name: str, condition: object) -> str:
    if name in {"path", "folder"}:  # a column of that name is compared as paths are
        own = name not in known and isinstance(condition, str)
        return _folder_expression(condition) if own else ""  # type: ignore[arg-type]
    if name not in known:
        return ""
    evaluate = {NUMBER: _number_expression, TEXT: _text_expression}.get(_kind(known[name]))
    return evaluate(known[name], condition) if evaluate else ""


def _folder_expression(glob: str) -> str:
    """Match the folder that the literal beginning of a glob names."""
    found = GLOB.search(glob)
    folder, slash, _ = glob[: found.start() if found else None].rpartition("/")
    return _token_expression("in", folder) if slash else ""


def _token_expression(kind: str, text: str) -> str:
    tokens = (_token(kind, text), OVERFLOW_MARK)
    return " or ".join(f'{FILTER_TOKENS} like "%|{token}|%"' for token in tokens)


def _number_expression(column: Column, condition: object) -> str:
    if column["number"] is None:
        return ""
    field = NUMBER_FIELDS[column["number"]]
    if isinstance(condition, tuple):
        limits = zip((">=", "<="), (_literal(column, each) for each in condition), strict=True)
        parts = [f"{field} {sign} {literal}" for sign, literal in limits if literal]
        return " and ".join(parts) or f"{field} >= {-MAX_DOUBLE!r}"
    if _is_alternatives(condition):
        return _any_expression(_number_expression(column, member) for member in condition)
    literal = _literal(column, condition)
    return f"{field} == {literal}" if literal else ""


def _literal(column: Column, value: object) -> str:
    """Write a finite number; "" for any other value."""
    if not isinstance(value, (str, int, float, Decimal, np.integer, np.floating, np.bool_)):
        return ""
    try:
        exact = (_reading(column) or AS_NUMBERS).number_limit(value)
        number = math.inf if exact is None else float(exact)
    except (QueryError, OverflowError):
        return ""
    return repr(number) if math.isfinite(number) else ""


def _text_expression(column: Column, condition: object) -> str:
    if isinstance(condition, tuple):
        return ""
    if _is_alternatives(condition):
        return _any_expression(_text_expression(column, member) for member in condition)
    truth = isinstance(condition, bool) and column["dtype"].startswith("bool")
    literal = isinstance(condition, str) and not GLOB.search(condition)
    if not truth and not literal:
        return ""
    return _token_expression(f"tag {column['name']}", str(condition).casefold())


def _is_alternatives(condition: object) -> TypeGuard[Collection[object]]:
    """Tell whether a condition is met by any of its members."""
    return isinstance(condition, Collection) and not isinstance(condition, (str, bytes, Mapping))


def _any_expression(parts: Iterable[str]) -> str:
    found = list(parts)
    if not all(found):
        return ""
    return " or ".join(f"({part})" for part in found) or MATCH_NONE


# The conditions themselves, as `ImageLibrary.where` understands them


def check_filter(where: Rows, columns: Sequence[Column]) -> None:
    """Raise the error that a library of files would raise for a condition.

    Raises
    ------
    QueryError
        If there is no such column, or the condition does not fit it.
    """
    example = {column["name"]: column["example"] for column in columns}
    _small_library(["example"], [example], None, columns).where(where)


def filter_mask(
    where: Rows,
    paths: Sequence[str],
    facts: Sequence[Mapping[str, Any]],
    root: str | None,
    columns: Sequence[Column],
) -> NDArray[np.bool_]:
    """Tell which of some images meet a condition by path or metadata, as `where` does: (n,)."""
    if not paths:
        return np.zeros(0, bool)
    return _small_library(paths, facts, root, columns).where(where)


def _small_library(
    paths: Sequence[str],
    facts: Sequence[Mapping[str, Any]],
    root: str | None,
    columns: Sequence[Column],
) -> ImageLibrary:
    """Make a library of some rows, with the metadata columns of the published one."""
    library = ImageLibrary(np.ones((len(paths), 1), np.float32), paths)
    library.root = root
    if columns:
        import pandas as pd

        from simsearch.library.metadata import AttachedTable

        table = {
            column["name"]: pd.Series(
                [line.get(column["name"]) for line in facts], dtype=column["dtype"]
            )
            for column in columns
        }
        readings = {column["name"]: reading for column in columns if (reading := _reading(column))}
        library.attached = AttachedTable(pd.DataFrame(table), readings=readings)
        library.metadata = library.attached.metadata
    return library
