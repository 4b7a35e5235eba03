"""What of a condition an engine can look at: words and numbers beside each row, and expressions.

An expression may let too much through, never too little: whoever gets the rows checks them with
`ImageLibrary.where` itself, so that no engine's idea of text or of what is missing counts. Words
are digests, so that nothing a user writes ever stands in an expression.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import LibraryError
from simsearch.library.filters import folded_parts
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.types import Rows


NUMBERS = 8  # columns of numbers that an engine looks at; more are only checked afterwards
_MOST_WORDS = 3_000  # of a row, in one text field of the engine
_CROWDED = "more"  # the word of a row that has yet more of them
_GLOB = re.compile(r"[*?\[]")
_NOTHING = "id < 0"
_WIDEST = float(np.finfo(np.float64).max)


def columns_of(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Describe the columns of a table: name, type, and which number of a row it is, if it is one.

    An example of each column is kept too: what makes no sense for it is refused with it.
    """
    columns: list[dict[str, Any]] = []
    for name in () if table is None else table.columns:
        column = table[name]  # type: ignore[index]
        taken = sum(each["number"] is not None for each in columns)
        number = taken if column.dtype.kind in "iuf" and taken < NUMBERS else None
        example = next(iter(cells(column.dropna().iloc[:1])), None)
        columns.append(
            {"name": name, "dtype": str(column.dtype), "number": number, "example": example}
        )
    return columns


def cells(column: pd.Series[Any]) -> list[Any]:
    """Turn a column into plain values, None where it is empty."""
    plain = column.astype(object).where(column.notna(), None).tolist()
    return [_plain(cell, str(column.name)) for cell in plain]


def _plain(cell: Any, name: str) -> Any:  # noqa: ANN401
    """Turn a cell into what JSON can hold."""
    if cell is None or isinstance(cell, (str, bool, int, float)):
        return cell
    if isinstance(cell, (list, tuple, set)):
        return [_plain(each, name) for each in cell]
    if isinstance(cell, np.generic):
        return _plain(cell.item(), name)
    if type(cell).__name__ == "Timestamp":
        return cell.isoformat()
    raise LibraryError(
        f"column {name!r} holds {cell!r}, a {type(cell).__name__}: numbers, text, truth values, "
        "dates as pandas has them, and lists of these can be published; turn it into text"
    )


def words_of(name: str, facts: Mapping[str, Any], columns: Iterable[Mapping[str, Any]]) -> str:
    """Put what a row may be found by in one text: ``|word|word|``.

    Parameters
    ----------
    name
        Path relative to the dataset's root.
    facts
        Its metadata, plain.
    columns
        From `columns_of`.
    """
    found = {_word("in", name[: slash.start()]) for slash in re.finditer("/", name)}
    for column in columns:
        if not _is_number(column):
            tag = f"tag {column['name']}"
            found.update(_word(tag, part) for part in folded_parts(facts.get(column["name"])))
    if len(found) > _MOST_WORDS:
        found = {_CROWDED}
    return "".join(f"|{word}" for word in sorted(found)) + "|"


def numbers_of(
    facts: Mapping[str, Any], columns: Iterable[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Return the numbers of a row by field; rounded, and never out of order."""
    found: dict[str, float | None] = dict.fromkeys(f"number_{i}" for i in range(NUMBERS))
    for column in columns:
        value = facts.get(column["name"])
        if column["number"] is not None and value is not None:
            found[f"number_{column['number']}"] = _double(value)
    return found


def _double(value: Any) -> float:  # noqa: ANN401
    return float(np.clip(float(value), -_WIDEST, _WIDEST))


def _word(kind: str, text: str) -> str:
    data = f"{kind}\x1f{text}".encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=8).hexdigest()


def _is_number(column: Mapping[str, Any]) -> bool:
    return str(column["dtype"]).lower().startswith(("int", "uint", "float"))


def expression(rows: Rows, columns: Sequence[Mapping[str, Any]]) -> str:
    """Put in an expression what an engine can tell of a condition; "" if that is nothing."""
    if rows is None:
        return ""
    if isinstance(rows, str):
        return _below(rows)
    if isinstance(rows, Mapping):
        known = {column["name"]: column for column in columns}
        parts = [_part(known, name, condition) for name, condition in rows.items()]
        return " and ".join(f"({part})" for part in parts if part)
    numbers = np.unique(np.asarray(rows)).tolist()
    return f"row in {numbers}" if numbers else _NOTHING


def _part(known: Mapping[str, Mapping[str, Any]], name: str, condition: object) -> str:
    if name not in known:
        own = name in {"path", "folder"} and isinstance(condition, str)
        return _below(condition) if own else ""  # type: ignore[arg-type]
    if name in {"path", "folder"}:
        return ""  # a column of that name, which is compared as paths are
    column = known[name]
    if _is_number(column):
        return _numeric(column, condition)
    return _textual(name, column, condition)


def _below(glob: str) -> str:
    """Look in the folder that the fixed beginning of a glob names."""
    found = _GLOB.search(glob)
    folder, slash, _ = glob[: found.start() if found else None].rpartition("/")
    return _has(_word("in", folder)) if slash else ""


def _has(word: str) -> str:
    return f'words like "%|{word}|%" or words like "%|{_CROWDED}|%"'


def _numeric(column: Mapping[str, Any], condition: object) -> str:
    if column["number"] is None:
        return ""
    field = f"number_{column['number']}"
    if isinstance(condition, tuple):
        limits = zip((">=", "<="), condition, strict=True)
        parts = [f"{field} {sign} {_literal(x)}" for sign, x in limits if _literal(x)]
        return " and ".join(parts) or f"{field} >= {-_WIDEST!r}"
    if isinstance(condition, Collection) and not isinstance(condition, (str, bytes, Mapping)):
        return _any(_numeric(column, member) for member in condition)
    value = _literal(condition)
    return f"{field} == {value}" if value else ""


def _literal(value: object) -> str:
    """Write a number; "" for what is none, or cannot be compared after rounding."""
    if not isinstance(value, (str, int, float, np.integer, np.floating, np.bool_)):
        return ""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return ""
    return repr(number) if math.isfinite(number) else ""


def _textual(name: str, column: Mapping[str, Any], condition: object) -> str:
    if isinstance(condition, tuple):
        return ""
    if isinstance(condition, Collection) and not isinstance(condition, (str, bytes, Mapping)):
        return _any(_textual(name, column, member) for member in condition)
    if isinstance(condition, bool) and column["dtype"].startswith("bool"):
        return _has(_word(f"tag {name}", str(condition).casefold()))
    if not isinstance(condition, str) or _GLOB.search(condition):
        return ""
    return _has(_word(f"tag {name}", condition.casefold()))


def _any(parts: Iterable[str]) -> str:
    found = list(parts)
    if not all(found):
        return ""
    return " or ".join(f"({part})" for part in found) or _NOTHING


def sample(
    paths: Sequence[str],
    facts: Sequence[Mapping[str, Any]],
    root: str | None,
    columns: Sequence[Mapping[str, Any]],
) -> ImageLibrary:
    """Make a small library of some rows, whose `where` and `facts` are those of the large one."""
    library = ImageLibrary(np.ones((len(paths), 1), np.float32), paths)
    library.root = root
    if columns:
        import pandas as pd

        table = {
            column["name"]: pd.Series(
                [line.get(column["name"]) for line in facts], dtype=column["dtype"]
            )
            for column in columns
        }
        library.metadata = pd.DataFrame(table)
    return library


def checked(rows: Rows, columns: Sequence[Mapping[str, Any]]) -> None:
    """Raise the error that a library of files would raise for a condition.

    Raises
    ------
    QueryError
        If there is no such column, or the condition does not fit it.
    """
    example = {column["name"]: column["example"] for column in columns}
    sample(["example"], [example], None, columns).where(rows)


def meets(
    rows: Rows,
    paths: Sequence[str],
    facts: Sequence[Mapping[str, Any]],
    root: str | None,
    columns: Sequence[Mapping[str, Any]],
) -> NDArray[np.bool_]:
    """Tell which of some images meet a condition by path or metadata, as `where` does: (n,)."""
    if not paths:
        return np.zeros(0, bool)
    return sample(paths, facts, root, columns).where(rows)


def to_text(value: Mapping[str, Any]) -> str:
    """Write a row's record in ASCII, which keeps also paths that are not Unicode."""
    return json.dumps(value, separators=(",", ":"))
