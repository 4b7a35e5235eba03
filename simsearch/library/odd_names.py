"""Names that may not be valid Unicode, in pandas frames."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    import pandas as pd


def make_frame(
    records: Iterable[Any], columns: Sequence[str], index: str | list[str] | None = None
) -> pd.DataFrame:
    """Make a frame of records, indexed by columns; texts that are not valid Unicode are objects."""
    import pandas as pd

    rows, names = list(records), list(columns)
    try:
        frame = pd.DataFrame(rows, columns=names)
    except UnicodeEncodeError:  # pandas' own type of text holds UTF-8 alone
        frame = pd.DataFrame(rows, columns=names, dtype=object)
        for name in names:
            with suppress(UnicodeEncodeError):
                frame[name] = frame[name].infer_objects()
    return frame if index is None else frame.set_index(index)


def make_index(names: Sequence[str]) -> pd.Index[str]:
    """Make an index of names, of objects where one is not valid Unicode."""
    import pandas as pd

    try:
        return pd.Index([str(name) for name in names])
    except UnicodeEncodeError:
        return pd.Index([str(name) for name in names], dtype=object)
