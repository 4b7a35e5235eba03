"""pandas frames of texts, some of which may hold names that are not UTF-8."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def make_frame(records: Iterable[Any], columns: Sequence[str]) -> pd.DataFrame:
    """Make a frame; columns of text are Python objects where one is not valid Unicode."""
    rows = list(records)
    try:
        return pd.DataFrame(rows, columns=columns)
    except UnicodeEncodeError:  # pandas' own type of text holds UTF-8 alone
        with pd.option_context("future.infer_string", False):
            return pd.DataFrame(rows, columns=columns)
