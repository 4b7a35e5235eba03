"""Rows on servers before Milvus 2.5, which know neither empty fields nor patterns within a text.

There, filter tokens are numbers in a list, and so are the columns of numbers, of which a missing
one is the least number: a filter may then let too many rows through, which the reader checks
again, and never too few. No condition holds for a number beyond the end of a list.
"""

from __future__ import annotations

import re
from typing import Any

from simsearch.cluster.milvus.filters import MAX_DOUBLE, MAX_TOKENS, OVERFLOW_MARK
from simsearch.cluster.milvus.schema import FILTER_TOKENS, NUMBER_FIELDS

NUMBERS = "numbers"  # the list in the place of `NUMBER_FIELDS`
MISSING_NUMBER = -MAX_DOUBLE
FIRST_WITH_BOTH = (2, 5)
VERSION = re.compile(r"v?(\d+)\.(\d+)")
LIKE = re.compile(rf'{FILTER_TOKENS} like "%\|(\w+)\|%"')
NUMBER_FIELD = re.compile(rf"\b({'|'.join(NUMBER_FIELDS)})\b")


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
    lists = {
        FILTER_TOKENS: {"element_type": "INT64", "max_capacity": MAX_TOKENS},
        NUMBERS: {"element_type": "DOUBLE", "max_capacity": len(NUMBER_FIELDS)},
    }
    others = {name: fields[name] for name in fields if name not in {FILTER_TOKENS, *NUMBER_FIELDS}}
    return others | {name: {"dtype": "ARRAY", **options} for name, options in lists.items()}


def early_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in this form."""
    numbers = [row.pop(name) for name in NUMBER_FIELDS]
    while numbers and numbers[-1] is None:
        numbers.pop()
    row[NUMBERS] = [MISSING_NUMBER if number is None else number for number in numbers]
    row[FILTER_TOKENS] = [
        _number(token) for token in row[FILTER_TOKENS].strip("|").split("|") if token
    ]
    return row


def early_expression(expression: str) -> str:
    """Return an expression of `filter_expression` for rows in this form."""
    with_numbers = NUMBER_FIELD.sub(
        lambda found: f"{NUMBERS}[{NUMBER_FIELDS.index(found[1])}]", expression
    )
    return LIKE.sub(
        lambda found: f"array_contains({FILTER_TOKENS}, {_number(found[1])})", with_numbers
    )


def _number(token: str) -> int:
    """Return a token as a number that fits in a signed field."""
    return 0 if token == OVERFLOW_MARK else int(token, 16) >> 1
