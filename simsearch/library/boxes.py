"""Boxes of one's own: a table with path, left, top, right, bottom and perhaps label."""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.errors import QueryError
from simsearch.library.alignment import TableReport, match_lines
from simsearch.library.delimited import named, read_delimited

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

    BoxTable: TypeAlias = str | os.PathLike[str] | pd.DataFrame

KEY, EDGES, LABEL = "path", ("left", "top", "right", "bottom"), "label"


class PictureBoxes(NamedTuple):
    """The boxes of one picture.

    Attributes
    ----------
    boxes : (n, 4) float64
        Left, top, right, bottom: pixels, or fractions where all are at most 1.
    labels : list of str
        "" where a box has none.
    """

    boxes: NDArray[np.float64]
    labels: list[str]

    @property
    def checksum(self) -> int:
        """A number that is another one for other boxes or labels; never 0."""
        data = self.boxes.tobytes() + "\n".join(self.labels).encode("utf-8", "surrogatepass")
        return zlib.crc32(data) or 1

    def in_pixels(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the boxes in pixels of a picture of (width, height), cut off at its edges.

        One of which nothing is left has no width or no height.
        """
        scale = np.array([*size, *size], np.float64)
        fractions = self.boxes.max(axis=1, keepdims=True) <= 1
        pixels = np.where(fractions, self.boxes * scale, self.boxes).clip(0, scale)
        return pixels.round()


class _Lines(NamedTuple):
    """A table of boxes as it is written."""

    name: str
    header: list[str]
    rows: list[list[str]]
    numbers: list[int]  # of the lines, as messages name them


def read_boxes(table: BoxTable, library: ImageLibrary) -> dict[int, PictureBoxes]:
    """Read boxes, any number of each picture, by row of the library.

    A line that belongs to no picture is counted in a warning.

    Parameters
    ----------
    table
        A file of delimited text, or a frame, with the columns path, left, top, right and bottom,
        and perhaps label. Paths are as the library has them, whole or relative to its root.
    library
        Whose pictures are meant.

    Raises
    ------
    QueryError
        If the table cannot be read, lacks a column, holds a box that is none, or names no
        picture of the library.
    """
    lines = _read_file(table) if isinstance(table, (str, os.PathLike)) else _read_frame(table)
    for column in (KEY, *EDGES):
        if column not in lines.header:
            columns = ", ".join((KEY, *EDGES))
            raise QueryError(f"{lines.name} has no column {column!r}: boxes have {columns}")
    by_path: dict[str, list[int]] = {}
    for i, path in enumerate(_column(lines, KEY)):
        by_path.setdefault(path, []).append(i)
    boxes = _read_edges(lines)
    labels = _column(lines, LABEL) if LABEL in lines.header else [""] * len(boxes)
    return {
        row: PictureBoxes(boxes[some], [labels[i] for i in some])
        for row, some in _lines_of_rows(by_path, lines, library).items()
    }


def _lines_of_rows(
    by_path: dict[str, list[int]], lines: _Lines, library: ImageLibrary
) -> dict[int, list[int]]:
    """Find the lines of each row of the library."""
    paths = list(by_path)
    places = match_lines(paths, library, lines.name, [lines.numbers[by_path[p][0]] for p in paths])
    met = set(places.tolist()) - {-1}
    if not met:
        example = f", such as {paths[0]!r}" if paths else ""
        raise QueryError(
            f"{lines.name} names no picture of this library{example}: give paths as in "
            "library.paths, or relative to the dataset's folder"
        )
    unmet = tuple(path for i, path in enumerate(paths) if i not in met)
    without = tuple(np.asarray(library.names)[places < 0].tolist()) if unmet else ()
    if unmet:
        TableReport(lines.name, len(lines.rows), len(library), unmet, without, "box").log()
    return {row: by_path[paths[i]] for row, i in enumerate(places.tolist()) if i >= 0}


def _read_file(file: str | os.PathLike[str]) -> _Lines:
    text = read_delimited(file, KEY)
    return _Lines(os.fspath(file), _named(text.header), text.rows, text.lines)


def _read_frame(frame: pd.DataFrame) -> _Lines:
    header = _named([str(column) for column in frame.columns])
    cells = frame.astype(object).where(frame.notna(), "").to_numpy(object)
    rows = [list(map(str, row)) for row in cells]
    return _Lines("the table of boxes", header, rows, list(range(len(rows))))


def _named(header: list[str]) -> list[str]:
    """Take "Left" for "left", where no other column is."""
    for name in (KEY, *EDGES, LABEL):
        header = named(header, name)
    return header


def _column(lines: _Lines, name: str) -> list[str]:
    place = lines.header.index(name)
    return [row[place] for row in lines.rows]


def _read_edges(lines: _Lines) -> NDArray[np.float64]:
    """Read the boxes: (n, 4), each with a width and a height."""
    columns = [_column(lines, edge) for edge in EDGES]
    boxes = np.empty((len(lines.rows), 4))
    for i, cells in enumerate(zip(*columns, strict=True)):
        edges = _numbers(cells)
        if edges is None or not (edges[0] < edges[2] and edges[1] < edges[3]):
            raise QueryError(
                f"{lines.name}, line {lines.numbers[i]}: {' '.join(cells)} is no box: left and "
                "top are less than right and bottom, in pixels of the upright picture or in "
                "fractions from 0 to 1"
            )
        boxes[i] = edges
    return boxes


def _numbers(cells: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
