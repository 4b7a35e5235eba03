"""Names that may not be valid Unicode, in text and in pandas frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    import pandas as pd


def valid_unicode(text: str) -> str:
    """Return text that every UTF-8 stream takes; a byte that is not UTF-8 is written in hex."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def make_frame(
    records: Iterable[Any], columns: Sequence[str], index: str | list[str] | None = None
) -> pd.DataFrame:
    """Make a frame of records, indexed by columns."""
    import pandas as pd

    rows = list(records)

    def make() -> pd.DataFrame:
        frame = pd.DataFrame(rows, columns=list(columns))
        return frame if index is None else frame.set_index(index)

    return frame_of_names(make)


def frame_of_names(make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Make a frame; its texts are Python objects where one is not valid Unicode."""
    import pandas as pd

    try:
        return make()
    except UnicodeEncodeError:  # pandas' own type of text holds UTF-8 alone
        with pd.option_context("future.infer_string", False):
            return make()
