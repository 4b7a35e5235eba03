"""Albums of a library at several grains: printed, as HTML, as a table and as CSV."""

from __future__ import annotations

import html
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, overload

from simsearch.csv_file import saving, write_csv
from simsearch.errors import QueryError
from simsearch.printable import one_line, valid_unicode

if TYPE_CHECKING:
    import pandas as pd

PRINTED_ALBUMS = 10  # of each grain
COLUMNS = ("grain", "album", "name", "path", "typical")


@dataclass(frozen=True)
class Album(Sequence[str]):
    """Images that are alike, the most typical one first; a sequence of their paths.

    Attributes
    ----------
    name : str
        Of the nearest word, or the label that most of the images have, or of the typical one.
    rows : tuple of int
        Row numbers in the library, by falling mean cosine to all of the album.
    paths : tuple of str
        As in the library's `paths`, in the same order.
    """

    name: str
    rows: tuple[int, ...] = field(repr=False)
    paths: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.paths[index]

    @property
    def typical(self) -> str:
        """Path of the most typical image, the medoid: its mean cosine to all others is largest."""
        return self.paths[0]


@dataclass(frozen=True)
class AlbumLevel(Sequence[Album]):
    """The albums of one grain, the largest first; a sequence of `Album`.

    Attributes
    ----------
    grain : str
        "coarse", "medium" or "fine".
    albums : tuple of Album
        No image is in two of them.
    min_size : int
        How many images an album of this grain has at least.
    unassigned_rows : tuple of int
        Rows of images that are in no album, in the order of their paths.
    unassigned : tuple of str
        Paths of these.
    """

    grain: str
    albums: tuple[Album, ...] = field(repr=False)
    min_size: int
    unassigned_rows: tuple[int, ...] = field(default=(), repr=False)
    unassigned: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.albums)

    @overload
    def __getitem__(self, index: int) -> Album: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Album, ...]: ...
    def __getitem__(self, index: int | slice) -> Album | tuple[Album, ...]:
        return self.albums[index]

    def __str__(self) -> str:
        lines = [f"{self.grain}: {self.summary}"]
        lines += [
            f"{len(each):>7,}  {one_line(each.name)}  {one_line(each.typical)}"
            for each in self.albums[:PRINTED_ALBUMS]
        ]
        hidden = len(self) - PRINTED_ALBUMS
        lines += [f"    ... and {hidden:,} more: to_frame()"] if hidden > 0 else []
        return valid_unicode("\n".join(lines))

    @property
    def summary(self) -> str:
        """How many albums, of how many images, and how many are in none."""
        if not self.albums:
            return f"no albums of {self.min_size:,} images or more"
        inside = sum(map(len, self.albums))
        text = f"{len(self):,} album{'s' * (len(self) > 1)} of {inside:,} images"
        rest = len(self.unassigned)
        return f"{text}; {rest:,} {'is' if rest == 1 else 'are'} in none" if rest else text


class _Line(NamedTuple):
    """One image of a grain, as a line of the table; album 0 and no name for one in no album."""

    grain: str
    album: int
    name: str
    path: str
    typical: bool | int


@dataclass(frozen=True)
class Albums(Sequence[AlbumLevel]):
    """The albums of a library, from the coarsest grain to the finest; prints as a table.

    Attributes
    ----------
    levels : tuple of AlbumLevel
        "coarse", "medium" and "fine". Those of a finer grain need not lie in one of a coarser.
    images : int
        How many images the library holds.
    notes : tuple of str
        What to know of how they were made; printed, too.
    """

    levels: tuple[AlbumLevel, ...]
    images: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.levels)

    @overload
    def __getitem__(self, index: int) -> AlbumLevel: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[AlbumLevel, ...]: ...
    def __getitem__(self, index: int | slice) -> AlbumLevel | tuple[AlbumLevel, ...]:
        return self.levels[index]

    def level(self, grain: str) -> AlbumLevel:
        """Return the albums of one grain: "coarse", "medium" or "fine".

        Raises
        ------
        QueryError
            If there is no such grain.
        """
        for each in self.levels:
            if each.grain == grain:
                return each
        known = ", ".join(repr(each.grain) for each in self.levels)
        raise QueryError(f"grain={grain!r}: give one of {known}")

    def to_frame(self, grain: str | None = None) -> pd.DataFrame:
        """Return a pandas frame, one row per grain and image: grain, album, name, path, typical.

        Albums are numbered from 1; an image in none has number 0 and no name. `grain` keeps one.

        Raises
        ------
        QueryError
            If there is no such grain.
        """
        from simsearch.library.odd_names import make_frame

        return make_frame(self._lines(grain), COLUMNS)

    def to_csv(self, file: str | os.PathLike[str] = "albums.csv", grain: str | None = None) -> None:
        """Write what `to_frame` returns as a CSV file, in which `typical` is 1 or 0.

        Raises
        ------
        QueryError
            If there is no such grain, or the file cannot be written.
        """
        lines = [line._replace(typical=int(line.typical)) for line in self._lines(grain)]
        with saving(file) as target:
            write_csv(target, COLUMNS, lines)

    def _lines(self, grain: str | None) -> list[_Line]:
        levels = self.levels if grain is None else (self.level(grain),)
        lines = []
        for level in levels:
            for number, album in enumerate(level, 1):
                lines += [
                    _Line(level.grain, number, album.name, path, typical=place == 0)
                    for place, path in enumerate(album)
                ]
            lines += [_Line(level.grain, 0, "", path, typical=False) for path in level.unassigned]
        return lines

    def __str__(self) -> str:
        lines = [f"albums of {self.images:,} images", *map(str, self.levels)]
        return "\n".join([*lines, *map(valid_unicode, self.notes)])

    def _repr_html_(self) -> str:
        """Show the typical image of each album as a card."""
        from simsearch.retrieval.html import picture_card

        parts = []
        for level in self.levels:
            cards = [
                picture_card(each.typical, f"{each.name} ({len(each):,})", each.typical)
                for each in level[:PRINTED_ALBUMS]
            ]
            parts.append(f"<h4>{html.escape(level.grain)}: {html.escape(level.summary)}</h4>")
            parts.append(
                f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(cards)}</div>'
            )
        notes = [f"<p>Note: {html.escape(valid_unicode(note))}</p>" for note in self.notes]
        return "".join([*parts, *notes])


def name_of_file(path: str) -> str:
    """Name an album by its typical image."""
    return f"like {posixpath.basename(path)}"


def distinct(names: Sequence[str]) -> list[str]:
    """Add a number to names that are there already: "sea", "sea 2", "sea 3".

    Examples
    --------
    >>> distinct(["sea", "sea", "sea 2"])
    ['sea', 'sea 3', 'sea 2']
    """
    given, used, answer = set(names), set[str](), []
    for name in names:
        number, text = 1, name
        while text in used or (number > 1 and text in given):
            number += 1
            text = f"{name} {number}"
        used.add(text)
        answer.append(text)
    return answer
