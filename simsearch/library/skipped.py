"""skipped.csv: the files that are not in a library, each with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.csv_file import read_csv, write_csv
from simsearch.images.find import Skipped
from simsearch.library.files import SKIPPED

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def write_reasons(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Write skipped.csv; see `write_skipped`."""
    write_csv(folder / SKIPPED, ("path", "reason"), skipped)


def read_skipped(outputs: str | os.PathLike[str]) -> list[Skipped]:
    """Read skipped.csv; an empty list where there is none."""
    file = Path(outputs) / SKIPPED
    if not file.is_file() or file.is_symlink():
        return []
    return [Skipped(*row[:2]) for row in read_csv(file) if len(row) > 1][1:]
