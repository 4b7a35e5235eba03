"""CSV files that hold names as they are, and that no spreadsheet runs as formulas."""

from __future__ import annotations

import csv
import io
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.errors import QueryError
from simsearch.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
GUARD = "'"


@contextmanager
def saving(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Name the file that the body writes; what goes wrong is said in the caller's terms.

    Raises
    ------
    QueryError
        If it cannot be written.
    """
    try:
        yield Path(file).expanduser()
    except OSError as error:
        raise QueryError(
            f"cannot write {os.fspath(file)!r}: {error.strerror or error}; give a file in a folder "
            "that exists, on a disk with free space"
        ) from error


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as UTF-8, atomically; names that are not UTF-8 keep their bytes.

    A text that a spreadsheet would run, as one that starts with ``=``, gets an apostrophe before
    it (https://owasp.org/www-community/attacks/CSV_Injection). `read_csv` takes it off again.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    text = io.StringIO()  # not by pandas, whose strings hold no name that is not UTF-8
    csv.writer(text).writerows([header, *([*map(guarded, row)] for row in rows)])
    write_text(file, text.getvalue())


def read_csv(file: Path) -> list[list[str]]:
    """Read the rows of a table that `write_csv` wrote, its header first."""
    with file.open(encoding="utf-8", errors=sys.getfilesystemencodeerrors(), newline="") as stream:
        return [[*map(_bare, row)] for row in csv.reader(stream)]


def guarded(cell: object) -> object:
    """Return a cell that no spreadsheet runs."""
    if isinstance(cell, str) and cell.startswith(FORMULA_STARTS):
        return GUARD + cell
    return cell


def _bare(cell: str) -> str:
    return cell[1:] if cell.startswith(GUARD) and cell[1:].startswith(FORMULA_STARTS) else cell
