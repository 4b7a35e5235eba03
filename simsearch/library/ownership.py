"""Whether this user has written what a library's files record, or anybody else may have."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from simsearch.library.user_key import MAC, signed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def is_signed(record: Mapping[str, Any], name: str) -> bool:
    """Tell whether a record of the file `name` bears this user's mark, and is as it was then."""
    try:
        expected = str(signed(record, name).get(MAC, "")).encode()
        return bool(expected) and hmac.compare_digest(str(record[MAC]).encode(), expected)
    except (ValueError, KeyError, RecursionError):  # crafted, or without a mark
        return False
