"""Rows on servers before Milvus 2.5, which know neither empty fields nor patterns within a text.

There, filter tokens are numbers in a list, and a missing number is the least one: a filter may then
let too many rows through, which the reader checks again, and never too few.
"""

from __future__ import annotations

import re
from typing import Any

from simsearch.cluster.milvus.filters import MAX_DOUBLE, MAX_TOKENS, OVERFLOW_MARK
from simsearch.cluster.milvus.schema import FILTER_TOKENS, NUMBER_FIELDS

MISSING_NUMBER = -MAX_DOUBLE
FIRST_WITH_BOTH = (2, 5)
VERSION = re.compile(r"v?(\d+)\.(\d+)")
LIKE = re.compile(rf'{FILTER_TOKENS} like "%\|(\w+)\|%"')


def is_early(version: str) -> bool:
    """Tell whether a server of a version needs this form of rows.

    Examples
    --------
    >>> [is_early(version) for version in ("v2.3.5-lite", "2.6.2", "milvus_lite-3.2.2")]
    [True, False, False]
    """
    numbers = VERSION.match(version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < FIRST_WITH_BOTH


def early_fields(fields: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the fields of a collection of rows in this form."""
    tokens = {"dtype": "ARRAY", "element_type": "INT64", "max_capacity": MAX_TOKENS}
    return {
        name: tokens if name == FILTER_TOKENS else {**options, "nullable": False}
        for name, options in fields.items()
    }


def early_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in this form."""
    numbers = {name: MISSING_NUMBER for name in NUMBER_FIELDS if row[name] is None}
    tokens = [_number(token) for token in row[FILTER_TOKENS].strip("|").split("|") if token]
    return {**row, **numbers, FILTER_TOKENS: tokens}


def early_expression(expression: str) -> str:
    """Return an expression of `filter_expression` for rows in this form."""
    return LIKE.sub(
        lambda found: f"array_contains({FILTER_TOKENS}, {_number(found[1])})", expression
    )


def _number(token: str) -> int:
    """Return a token as a number that fits in a signed field."""
    return 0 if token == OVERFLOW_MARK else int(token, 16) >> 1
