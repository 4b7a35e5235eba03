"""Figures of matches beside their query, and sheets of images."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch import registry
from simsearch.errors import QueryError
from simsearch.images.decode import describe
from simsearch.library.library import ImageLibrary
from simsearch.plotting.grid import (
    ACCENT,
    GAP,
    INK,
    briefly,
    cell_size,
    check_positive,
    in_turns,
    make_grid,
    show_picture,
    small_picture,
    tail,
    write_caption,
)
from simsearch.retrieval.matches import Matches, also, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource
    from simsearch.plotting.grid import Picture
    from simsearch.retrieval.matches import Match


_MATCHES_A_ROW = 6


def show_matches(
    matches: Matches | Sequence[Matches],
    columns: int | None = None,
    size: float = 1.8,
    explain: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """Show queries and what was found for them.

    Each query stands on the left, in a blue frame, with its matches on its right: rank, score,
    how few random pairs of the library are as alike, the end of the path, and what a table says
    of it. "+2 alike" counts the near-duplicates that a match stands for. A file that cannot be
    read leaves a grey cell with the reason.

    Parameters
    ----------
    matches
        What `search` returned: the matches of one query, or a list of them.
    columns
        Matches a row; what does not fit goes on below. By default up to 6, evenly filled.
    size
        Width of a picture in inches.
    explain
        Show each match in grey, and let those parts glow that carry its likeness to the query:
        the brighter, the more they add to the score. All matches of a query share one scale. See
        `heat_map` for what is measured; the margins, which the network does not see, stay grey.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, 1 + columns); queries are in the first column.

    Raises
    ------
    QueryError
        If there is nothing to show, an argument is out of range, or matches that no search
        returned are to be explained.
    BackboneError
        With `explain`, if the library's backbone cannot be loaded, or pools no map.
    """
    answers: Sequence[Any] = matches if isinstance(matches, (list, tuple)) else [matches]
    if not answers or not all(isinstance(answer, Matches) for answer in answers):
        raise QueryError(
            f"show_matches cannot show {briefly(matches)}; give what simsearch.search returns: "
            "Matches, or a list with at least one"
        )
    check_positive(columns=columns, size=size)
    headings = ["query"] * len(answers)
    return show_answers(answers, headings, _in_words, columns, size, explain=explain)


def show_answers(
    answers: Sequence[Matches],
    headings: Sequence[str],
    in_words: Callable[[Match], str],
    columns: int | None,
    size: float,
    *,
    explain: bool = False,
) -> tuple[Figure, NDArray[Any]]:
    """Draw queries, each with its heading, and what was found for them."""
    most = max(1, *map(len, answers))
    columns = min(columns or math.ceil(most / math.ceil(most / _MATCHES_A_ROW)), most)

    pictures = [_pictures(answer, size, explain=explain) for answer in answers]
    told = any(match.caption for answer in answers for match in answer)
    heights = [max(1, math.ceil(len(answer) / columns)) for answer in answers]
    cell = cell_size(size, [picture for row in pictures for picture in row])
    fig, axes = make_grid((sum(heights), 1 + columns), cell, lines=2 + told, lead=GAP)
    tops = np.cumsum(heights) - heights
    for top, answer, heading, (query, *found) in zip(
        tops, answers, headings, pictures, strict=True
    ):
        show_picture(axes[top, 0], query, ACCENT, 2.5)
        write_caption(axes[top, 0], heading, tail(answer.query), color=ACCENT, weight="bold")
        cells = axes[top:, 1:].ravel()
        if not answer:
            show_picture(cells[0], "no match")
        for ax, match, picture in zip(cells, answer, found, strict=False):
            show_picture(ax, picture)
            lines = [tail(match.path), match.caption] if match.caption else [tail(match.path)]
            write_caption(ax, in_words(match), *lines, color=INK)
    return fig, axes


def _pictures(answer: Matches, size: float, *, explain: bool) -> list[Picture | str]:
    """Load a query and its matches, which may glow where they are like it."""
    query, *found = [small_picture(source, size) for source in (answer.image, *answer.paths)]
    if explain:
        found = registry.resolve("explainer", "heat_maps")(answer, found)
    return [query, *found]


def show_images(
    images: Sequence[ImageSource] | ImageLibrary,
    captions: Sequence[str] | None = None,
    columns: int = 6,
    limit: int = 30,
    *,
    title: str | None = None,
    size: float = 1.6,
) -> tuple[Figure, NDArray[Any]]:
    """Show a contact sheet.

    Parameters
    ----------
    images
        A list of anything that `load_image` takes; or a library, whose folders then take turns
        until the sheet is full, each with images drawn at random (the same ones every time).
    captions
        A line for each image. By default the end of its path; for a library its folder.
    columns
        Images a row.
    limit
        How many images to show at most.
    title
        By default says what was left out, if anything was.
    size
        Width of an image in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (rows, columns)

    Raises
    ------
    QueryError
        If there is nothing to show, or an argument is out of range.
    """
    check_positive(columns=columns, limit=limit, size=size)
    sources, names, order = _sheet(images)
    names = names if captions is None else captions
    if not len(sources):
        raise QueryError("show_images got no images; give a list with at least one")
    if len(names) != len(sources):
        raise QueryError(f"{len(names)} captions for {len(sources)} images; give one an image")
    rows = np.sort(order[:limit])
    if title is None:
        title = f"{len(rows):,} of {len(sources):,} images" if len(rows) < len(sources) else ""

    pictures = [small_picture(sources[row], size) for row in rows]
    columns = min(columns, len(pictures))
    shape = (math.ceil(len(pictures) / columns), columns)
    fig, axes = make_grid(shape, cell_size(size, pictures), lines=1, title=title)
    for ax, picture, row in zip(axes.flat, pictures, rows, strict=False):
        show_picture(ax, picture)
        write_caption(ax, names[row])
    return fig, axes


def _sheet(
    images: Sequence[ImageSource] | ImageLibrary,
) -> tuple[Sequence[Any], Sequence[str], NDArray[np.intp]]:
    """Return the images of a contact sheet, their names, and in which order to take them."""
    if isinstance(images, ImageLibrary):
        return images.paths.tolist(), images.folders.tolist(), in_turns(images.folders)
    if isinstance(images, (str, bytes, os.PathLike, Image.Image)):
        raise QueryError(f"show_images takes a list; for one image, give [{briefly(images)}]")
    sources = list(images)
    return sources, [tail(describe(source)) for source in sources], np.arange(len(sources))


def _in_words(match: Match) -> str:
    share = percentile(match.percentile)
    words = (str(match.rank), f"{match.score:.3f}", share.strip("–"), also(match))
    return " · ".join(filter(None, words))
