"""skipped.csv: the files that are not in a library, each with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.files import write_text
from simsearch.images.find import Skipped
from simsearch.library.files import SKIPPED

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def write_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Write skipped.csv: path and reason of each file that is not in the library."""
    if skipped:
        from simsearch.csv_file import write_csv

        write_csv(folder / SKIPPED, ("path", "reason"), skipped)
    else:
        write_text(folder / SKIPPED, "path,reason\r\n")


def read_skipped(outputs: str | os.PathLike[str]) -> list[Skipped]:
    """Read skipped.csv; an empty list where there is none."""
    from simsearch.csv_file import read_csv

    file = Path(outputs) / SKIPPED
    return [Skipped(*row) for row in read_csv(file)][1:] if file.exists() else []
