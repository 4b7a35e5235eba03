"""The field `where` of the API: conditions on rows in JSON, as `ImageLibrary.where` takes them."""

from __future__ import annotations

import json
import re
import reprlib
from typing import Any

from simsearch.errors import QueryError

MAX_WHERE_CHARACTERS = 2**16  # of the JSON text
MAX_ITEMS = 100  # columns, or items of one column's list
MAX_TEXT_CHARACTERS = 500  # `fnmatch` caches the patterns that it compiles
MAX_COMPARISONS, MIN_TEXTS = 20_000_000, 10  # of a text with a row; some seconds
NO_TEXT = re.compile("[\x00-\x1f\x7f\ufffd]")  # control characters, and bytes that are not UTF-8
MAX_NUMBER = 2**53  # floats are no longer exact from here on


def read_where(text: str) -> Any:  # noqa: ANN401
    """Read what `ImageLibrary.where` takes: a glob, or JSON with ranges as {"min": 1, "max": 2}.

    Raises
    ------
    QueryError
        If it is something else, or longer than a person would write.
    """
    if len(text) > MAX_WHERE_CHARACTERS:
        raise QueryError(f"where has {len(text):,} characters; give up to {MAX_WHERE_CHARACTERS:,}")
    try:
        parsed = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if text.strip() and not text.lstrip().startswith(("{", '"')) and not NO_TEXT.search(text):
            return _read_value("path", text)  # a glob as it is
        raise QueryError(
            f"where={text!r:.80} is not JSON: {error}; give a glob as it is, such as sea/*, or "
            'conditions on columns, such as {"price": {"max": 50}}'
        ) from None
    if isinstance(parsed, str):
        return _read_value("path", parsed)
    if not isinstance(parsed, dict) or len(parsed) > MAX_ITEMS:
        raise QueryError(f"where={text!r:.80}: give a glob, or up to {MAX_ITEMS} columns")
    return {name: _read_condition(name, value) for name, value in parsed.items()}


def check_cost(conditions: Any, rows: int) -> None:  # noqa: ANN401
    """Refuse conditions that a server would compare with a library's rows for minutes.

    Raises
    ------
    QueryError
        If there are too many texts, or globs, for so many rows.
    """
    values = list(conditions.values()) if isinstance(conditions, dict) else [conditions]
    texts = [
        text
        for value in values
        for text in (value if isinstance(value, list) else [value])
        if isinstance(text, str)
    ]
    allowed = max(MIN_TEXTS, MAX_COMPARISONS // max(1, rows))
    if len(texts) > allowed:
        raise QueryError(
            f"where compares {len(texts):,} texts with {rows:,} images; this server compares "
            f"up to {allowed:,} at once: ask for fewer, or for one glob that matches several"
        )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its pairs; of a name that stands twice, JSON would keep the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise QueryError(f"where: {twice!r:.80} stands twice; give its values as one list")
    return found


def _read_condition(name: str, value: object) -> object:
    if isinstance(value, dict) and value.keys() <= {"min", "max"}:
        limits = value.get("min"), value.get("max")
        return tuple(None if limit is None else _read_value(name, limit) for limit in limits)
    if isinstance(value, list) and len(value) <= MAX_ITEMS:
        return [_read_value(name, member) for member in value]
    return _read_value(name, value)


def _read_value(name: str, value: object) -> str | int | float:
    """Return a text or number that a column may hold; raise for anything else."""
    if isinstance(value, str) and len(value) <= MAX_TEXT_CHARACTERS:
        return value
    if isinstance(value, (int, float)) and abs(value) < MAX_NUMBER:
        return value  # which neither None nor NaN is
    raise QueryError(
        f"where: {name!r:.80} cannot be compared with {reprlib.repr(value)}; give text of up to "
        f"{MAX_TEXT_CHARACTERS} characters, a number, a list of up to {MAX_ITEMS}, or "
        '{"min": 1, "max": 2}'
    )
