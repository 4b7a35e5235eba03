"""What a search found, as pictures: matches beside their query, groups of duplicates, sheets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.duplicates import DuplicateGroup, Duplicates
from simsearch.errors import QueryError
from simsearch.explain import contributions, glow, spread
from simsearch.images import ImageSource, describe
from simsearch.library import ImageLibrary
from simsearch.matches import Match, Matches, also, percentile
from simsearch.viz.cells import (
    ACCENT,
    GAP,
    INK,
    Picture,
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_MATCHES_A_ROW = 6

_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue in a grey (ITU-R BT.601)


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
    return [query, *(_glowing(answer, found) if explain else found)]


def _glowing(answer: Matches, pictures: Sequence[Picture | str]) -> list[Picture | str]:
    """Turn pictures grey, and tint what carries their scores, on one scale."""
    library, embedding = answer.library, answer.embedding
    if library is None or embedding is None:
        raise QueryError(
            f"the matches for {answer.query} cannot be explained: they were not found with one "
            "embedding; give what simsearch.search returns, for one query or combined to a mean, "
            "or explain=False"
        )
    shares = contributions(library, answer.paths, embedding)
    top = max((share.max() * share.size for share in shares if share is not None), default=0)
    return [
        picture
        if isinstance(picture, str) or share is None
        else _tinted(picture, spread(library, share, picture.pixels.shape[1::-1]), top)
        for picture, share in zip(pictures, shares, strict=True)
    ]


def _tinted(picture: Picture, heat: NDArray[np.float32], top: float) -> Picture:
    """Lay colour over a grey picture, the more the hotter it is."""
    color = glow(heat, top)
    grey = (picture.pixels @ _LUMA)[..., None]
    tinted = grey + color[..., 3:] * (255 * color[..., :3] - grey)
    return picture._replace(pixels=tinted.round().astype(np.uint8))


def show_duplicates(
    duplicates: Duplicates, limit: int = 10, columns: int = 6, size: float = 1.6
) -> tuple[Figure, NDArray[Any]]:
    """Show near-duplicates, a row a group.

    On the left, in a blue frame, stands the image to keep; the others follow with their cosine to
    it, the most alike first. What a row has no room for is counted in its last cell.

    Parameters
    ----------
    duplicates
        What `simsearch.duplicates` returned.
    limit
        How many groups to show at most, the largest.
    columns
        Images a row, at least two.
    size
        Width of a picture in inches.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : numpy.ndarray of matplotlib.axes.Axes
        (groups, columns); one cell that says so if there are no duplicates.

    Raises
    ------
    QueryError
        If it is no result of `simsearch.duplicates`, or an argument is out of range.
    """
    if not isinstance(duplicates, Duplicates):
        raise QueryError(
            f"show_duplicates cannot show {briefly(duplicates)}; give what simsearch.duplicates "
            "returns"
        )
    check_positive(limit=limit, size=size)
    if columns < 2:
        raise QueryError(f"columns={columns}: give at least 2, one for a copy beside its original")
    shown = duplicates[:limit]
    if not shown:
        fig, axes = make_grid((1, 1), cell_size(size, []), lines=1)
        show_picture(axes[0, 0], "no duplicates")
        return fig, axes
    columns = min(columns, max(map(len, shown)))
    rows = [_group_pictures(group, columns, size) for group in shown]
    title = f"{len(shown):,} of {len(duplicates):,} groups" if len(shown) < len(duplicates) else ""
    cell = cell_size(size, [picture for row in rows for picture in row])
    fig, axes = make_grid((len(shown), columns), cell, lines=2, lead=GAP, title=title)
    for number, (group, row, line) in enumerate(zip(shown, rows, axes, strict=True), 1):
        show_picture(line[0], row[0], ACCENT, 2.5)
        heading = f"{number} · {len(group)} images"
        write_caption(line[0], heading, tail(group.paths[0]), color=ACCENT, weight="bold")
        for ax, picture in zip(line[1:], row[1:], strict=False):
            show_picture(ax, picture)
        described = columns - (len(group) > columns)
        for i in range(1, min(len(group), described)):
            write_caption(line[i], f"{group.scores[i]:.3f}", tail(group.paths[i]), color=INK)
    return fig, axes


def _group_pictures(group: DuplicateGroup, columns: int, size: float) -> list[Picture | str]:
    """Load as many of a group as there is room for; what is left over takes a cell."""
    shown = group.paths if len(group) <= columns else group.paths[: columns - 1]
    more = len(group) - len(shown)
    return [small_picture(path, size) for path in shown] + [f"{more:,} more"] * bool(more)


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
