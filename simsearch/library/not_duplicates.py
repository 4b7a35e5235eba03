"""Pairs of pictures that were looked at, and are no duplicates: remembered beside a library.

They are kept by name, in `not_duplicates.csv`; pictures that are renamed, or replaced by others,
have to be told again, or taken out of the file.
"""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING

from simsearch.csv_file import read_csv, write_csv
from simsearch.errors import LibraryError, QueryError
from simsearch.files import check_plain
from simsearch.library.files import writing
from simsearch.library.paths import in_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from simsearch.library.library import ImageLibrary

FILE = "not_duplicates.csv"


def mark_not_duplicates(
    library: ImageLibrary, pictures: Iterable[Sequence[str | os.PathLike[str] | int]]
) -> int:
    """Remember that pictures are no copies of each other; `duplicates` heeds it from now on.

    Parameters
    ----------
    library
        One that lies in a folder, which has to be writable.
    pictures
        Sequences of two or more pictures, no two of which are copies: paths as the library has
        them or relative to the dataset's root, or row numbers.

    Returns
    -------
    int
        How many pairs are remembered now.

    Raises
    ------
    QueryError
        If a picture is not in the library.
    LibraryError
        If the library was not loaded from a folder, or that cannot be written.
    """
    if not library.stored:
        raise LibraryError("only a library that lies in a folder remembers pairs; save it first")
    rows_of = {library.paths[row]: row for row in range(len(library))}
    rows_of |= {name: row for row, name in enumerate(library.names)}
    pairs: set[tuple[str, ...]] = set()
    for each in pictures:
        rows = sorted({_row(library, rows_of, picture) for picture in each})
        if len(rows) < 2:
            raise QueryError(f"{list(each)!r}: give two pictures or more")
        pairs |= _pairs(library.names[row] for row in rows)
    with writing(library.stored[0]) as folder:
        pairs |= _read(folder / FILE)
        write_csv(folder / FILE, ("picture", "other"), sorted(pairs))
    return len(pairs)


def pairs_apart(library: ImageLibrary) -> set[frozenset[int]]:
    """Return the pairs of rows that are remembered to be no duplicates."""
    if not library.stored:
        return set()
    pairs = _read(library.stored[0] / FILE)
    row_of = {name: row for row, name in enumerate(library.names)} if pairs else {}
    return {frozenset((row_of[a], row_of[b])) for a, b in pairs if a in row_of and b in row_of}


def _pairs(names: Iterable[str]) -> set[tuple[str, ...]]:
    """Return all pairs of some names, each in order."""
    return set(combinations(sorted(names), 2))


def _row(
    library: ImageLibrary,
    rows_of: dict[str, int],
    picture: str | os.PathLike[str] | int,
) -> int:
    if isinstance(picture, int):
        if 0 <= picture < len(library):
            return picture
        raise QueryError(f"row {picture}: this library has {len(library):,} rows")
    row = rows_of.get(str(picture), rows_of.get(in_folder(library.root or ".", str(picture))))
    if row is None:
        raise QueryError(f"{str(picture)!r} is not in this library; give a path as it has them")
    return row


def _read(file: Path) -> set[tuple[str, ...]]:
    """Read the pairs; those of a file that was edited by hand and makes no sense are an error."""
    try:
        if os.path.lexists(file):
            check_plain(file)
        rows = read_csv(file)[1:] if file.exists() else []
    except (OSError, ValueError) as error:
        raise LibraryError(f"{file} cannot be read ({error}); mend or delete it") from error
    if any(len(row) != 2 for row in rows):
        raise LibraryError(f"{file}: each line has two pictures; mend or delete the file")
    return {tuple(sorted(row)) for row in rows}
