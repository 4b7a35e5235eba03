"""Which line of a table belongs to which picture of a library, and what is left over."""

from __future__ import annotations

import logging
import os
import posixpath
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simsearch.errors import QueryError
from simsearch.images.address import is_uri
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from simsearch.library.table import RowTable

logger = logging.getLogger("simsearch")

NAMED = 3  # of those that a message counts


@dataclass(frozen=True)
class TableReport:
    """What of a table, or of labels, met what of a library.

    Attributes
    ----------
    table : str
        The file, or what stands for it.
    lines : int
        Lines of the table.
    pictures : int
        Pictures of the library.
    lines_without_picture : tuple of str
        Paths of the lines that belong to no picture.
    pictures_without_line : tuple of str
        Names of the pictures, relative to the dataset's root, that have no line.
    """

    table: str
    lines: int
    pictures: int
    lines_without_picture: tuple[str, ...]
    pictures_without_line: tuple[str, ...]
    noun: str = "line"  # what a picture has of it

    def __bool__(self) -> bool:
        """Tell whether anything is left over."""
        return bool(self.lines_without_picture or self.pictures_without_line)

    def __str__(self) -> str:
        met = self.pictures - len(self.pictures_without_line)
        text = f"{self.table}: {met:,} of {self.pictures:,} pictures have a {self.noun}"
        for one, missing, names in (
            ("line", "picture", self.lines_without_picture),
            ("picture", self.noun, self.pictures_without_line),
        ):
            if names:
                more = ", ..." if len(names) > NAMED else ""
                ending = "s" * (len(names) > 1)
                text += f"; {len(names):,} {one}{ending} without a {missing}: "
                text += ", ".join(names[:NAMED]) + more
        return valid_unicode(text)

    def log(self) -> None:
        """Log a warning, if anything is left over."""
        if self:
            logger.warning("%s", self)


def match_lines(
    keys: Sequence[str], library: RowTable, table: str, numbers: Sequence[int]
) -> NDArray[np.intp]:
    """Find the line of each picture, known by its path, whole or relative to the root.

    A line that is no picture as it stands is tried in another spelling: with ``/`` for a
    backslash, without ``./``, composed as Unicode's NFC, relative to the root's full path.

    Parameters
    ----------
    keys
        M paths, "" for a line without one.
    library
        Whose N pictures are looked for.
    table
        What messages call it.
    numbers
        M numbers of lines, as messages name them.

    Returns
    -------
    numpy.ndarray
        (N,) place of a line in `keys`, -1 for none.

    Raises
    ------
    QueryError
        If two lines are of the same picture, or one line could be of two.
    """
    match = _Match(library, keys, table, numbers)
    match.look_up(str, [library.paths.tolist(), library.names])
    if match.is_incomplete():
        match.look_up(plain_spelling, [library.paths.tolist(), library.names, *_full_paths(match)])
    return match.places


class _Match:
    """Lines that are looked up, spelling by spelling."""

    def __init__(
        self, library: RowTable, keys: Sequence[str], table: str, numbers: Sequence[int]
    ) -> None:
        self.library, self.keys, self.table, self.numbers = library, keys, table, numbers
        self.places = np.full(len(library.paths), -1)
        self.unused: Collection[int] = [i for i, key in enumerate(keys) if key]

    def is_incomplete(self) -> bool:
        return bool(self.unused) and bool((self.places < 0).any())

    def look_up(self, spell: Callable[[str], str], forms: Sequence[Sequence[str]]) -> None:
        """Look up the pictures without a line among the lines without a picture."""
        known: dict[str, list[int]] = {}
        for i in self.unused:
            known.setdefault(spell(self.keys[i]), []).append(i)
        if spell is str:
            for same in known.values():
                self._check_one(same)
        rows = np.flatnonzero(self.places < 0).tolist()
        found = [
            {row: known[name] for row in rows if (name := spell(form[row])) in known}
            for form in forms
        ]
        for hits in self._without_conflict(found):
            for row, lines in hits.items():
                self._check_one([*({int(self.places[row])} - {-1, *lines}), *lines])
                self.places[row] = lines[0]
        if spell is not str:
            self._check_apart(rows)
        self.unused = set(self.unused).difference(self.places.tolist())

    def _check_one(self, lines: Sequence[int]) -> None:
        if len(lines) > 1:
            first, second = sorted(lines)[:2]
            raise QueryError(
                f"{self.table} has two lines for {self.keys[second]!r}; keep one line per image "
                f"(lines {self.numbers[first]} and {self.numbers[second]})"
            )

    def _check_apart(self, rows: Iterable[int]) -> None:
        """Check that no line has gone to two files whose names are spelled nearly alike."""
        seen: dict[int, str] = {}
        for row in rows:
            line, path = int(self.places[row]), str(self.library.paths[row])
            if line >= 0 and seen.setdefault(line, path) != path:
                raise QueryError(
                    f"{self.table}: {self.keys[line]!r} (line {self.numbers[line]}) may be "
                    f"{seen[line]!r} or {path!r}; write its path as the library has it"
                )

    def _without_conflict(
        self, found: list[dict[int, list[int]]]
    ) -> Sequence[Mapping[int, list[int]]]:
        """Leave out whole paths, or relative ones, where the same line is of two pictures."""
        whole, relative = found[:2]
        if self.library.root is None:
            return found
        by_line = {line[0]: row for row, line in relative.items()}
        both = [(line[0], row) for row, line in whole.items() if by_line.get(line[0], row) != row]
        if not both:
            return found
        whole_lines = {line[0] for line in whole.values()}
        if whole_lines <= set(by_line):
            return [relative, *found[2:]]
        if set(by_line) <= whole_lines:
            return [whole, *found[2:]]
        line, row = both[0]
        raise QueryError(
            f"{self.table}: {self.keys[line]!r} (line {self.numbers[line]}) is the whole path of "
            f"{self.library.paths[row]!r} and, below {self.library.root!r}, "
            f"{self.library.paths[by_line[line]]!r}; write all paths whole, or none"
        )


def _full_paths(match: _Match) -> list[list[str]]:
    """Return the pictures' absolute paths, if a line that is left has one."""
    root = match.library.root
    left = (match.keys[i].strip() for i in match.unused)
    if is_uri(root or "") or not any(key[:1] in "/\\" or key[1:2] == ":" for key in left):
        return []
    if root is None:
        return [[os.path.abspath(path) for path in match.library.paths.tolist()]]  # noqa: PTH100
    folder = os.path.abspath(os.path.expanduser(root))  # noqa: PTH100, PTH111
    return [[f"{folder}/{name}" for name in match.library.names]]


def plain_spelling(path: str) -> str:
    """Write a path in the one way in which its spellings agree.

    Examples
    --------
    >>> plain_spelling("./shoes//red.jpg ")
    'shoes/red.jpg'
    """
    text = unicodedata.normalize("NFC", path.strip())
    if "://" in text:
        return text
    return posixpath.normpath(text.replace("\\", "/"))
