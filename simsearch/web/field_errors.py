"""What is wrong with a field of a request, in plain English."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

EXPECTED = {  # by the kind of error that pydantic tells
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not text",
    "list_type": "is not a list",
    "dict_type": "is not an object",
    "greater_than_equal": "is too small: give at least {ge}",
    "greater_than": "is too small: give more than {gt}",
    "less_than_equal": "is too large: give at most {le}",
    "less_than": "is too large: give less than {lt}",
    "literal_error": "is none of {expected}",
}
SKIPPED = {"body", "query", "path"}  # where a field stands; its name says enough


def describe_errors(errors: Sequence[Any], names: Collection[str]) -> str:
    """Describe pydantic's errors of a request in one line; `names` are the fields it may have."""
    seen: dict[str, list[str]] = {}
    for error in errors:
        place = [each for i, each in enumerate(error["loc"]) if i or each not in SKIPPED]
        field = f"{place[0]!s:.80}" if place else "request"
        seen.setdefault(field, []).append(_describe(field, error, names))
    return "; ".join(_joined(texts) for texts in seen.values())


def _describe(field: str, error: Any, names: Collection[str]) -> str:  # noqa: ANN401
    kind, value = error["type"], error.get("input")
    if kind == "missing":
        return f"{field}: this field is required"
    if kind == "extra_forbidden":
        return f"there is no field {field!r}{suggest(field, names)}"
    given = f" {value!r:.80}" if isinstance(value, (str, int, float)) else ""
    if kind not in EXPECTED:
        return f"{field}{f' ({given[1:]})' if given else ''}: {error['msg']}"
    text = EXPECTED[kind].format(**error.get("ctx", {}))
    if kind == "literal_error" and isinstance(value, str):
        text += suggest(value, re.findall(r"'([^']+)'", text))
    return f"{field}:{given or ' the value'} {text}"


def suggest(word: str, known: Collection[str]) -> str:
    """Return "; did you mean 'threshold'?" for a word that is almost one of those known.

    Examples
    --------
    >>> suggest("treshold", ["k", "threshold"]), suggest("x", ["k"])
    ("; did you mean 'threshold'?", '')
    """
    close = difflib.get_close_matches(word.lower(), list(known), 1, 0.7)
    return f"; did you mean {close[0]!r}?" if close else ""


def _joined(texts: list[str]) -> str:
    """Return one text for a field that may be of several kinds: "is not a number, and ..."."""
    first, *others = dict.fromkeys(texts)
    ends = [text[text.index(" is ") + 1 :] for text in others if " is " in text]
    return ", and ".join([first, *ends])
