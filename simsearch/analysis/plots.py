"""Figures of the analysis: groups of duplicates, and heat maps over matches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.analysis.duplicates import Duplicates
from simsearch.analysis.explain import contributions, heat_colors, resize_heat
from simsearch.errors import QueryError
from simsearch.plotting.grid import (
    Cell,
    check_positive,
    draw_grid,
    load_thumbnail,
    short_path,
    short_repr,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.analysis.duplicates import DuplicateGroup
    from simsearch.plotting.grid import Picture
    from simsearch.retrieval.matches import Matches


LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])  # of red, green and blue in a grey (ITU-R BT.601)


def overlay_heat_maps(answer: Matches, pictures: Sequence[Picture | str]) -> list[Picture | str]:
    """Turn the thumbnails of matches grey, and overlay their heat maps on one scale.

    Raises
    ------
    QueryError
        If the matches do not say which embedding they were found with.
    BackboneError
        If the library's backbone cannot be loaded, or pools no map.
    """
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
        else _blend(picture, resize_heat(library, share, picture.pixels.shape[1::-1]), top)
        for picture, share in zip(pictures, shares, strict=True)
    ]


def _blend(picture: Picture, heat: NDArray[np.float32], top: float) -> Picture:
    """Blend heat colours over a grey picture."""
    color = heat_colors(heat, top)
    grey = (picture.pixels @ LUMA_WEIGHTS)[..., None]
    tinted = grey + color[..., 3:] * (255 * color[..., :3] - grey)
    return picture._replace(pixels=tinted.round().astype(np.uint8))


def show_duplicates(
    duplicates: Duplicates, limit: int = 10, columns: int = 6, size: float = 1.6
) -> tuple[Figure, NDArray[Any]]:
    """Show near-duplicates, one row per group.

    The image to keep is on the left, in a blue frame; the others follow with their cosine to it,
    the most similar first. The last cell of a full row counts those that are not shown.

    Parameters
    ----------
    duplicates
        What `simsearch.duplicates` returned.
    limit
        How many groups to show at most, the largest.
    columns
        Images per row, at least two.
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
            f"show_duplicates cannot show {short_repr(duplicates)}; give what simsearch.duplicates "
            "returns"
        )
    check_positive(limit=limit, size=size)
    if columns < 2:
        raise QueryError(f"columns={columns}: give at least 2, one for a copy beside its original")
    shown = duplicates[:limit]
    rows = [_group_cells(i, group, columns, size) for i, group in enumerate(shown, 1)]
    title = f"{len(shown):,} of {len(duplicates):,} groups" if len(shown) < len(duplicates) else ""
    return draw_grid(rows or [[Cell("no duplicates")]], size, title)


def _group_cells(number: int, group: DuplicateGroup, columns: int, size: float) -> list[Cell]:
    """Make the cells of a group that fit into a row; the last one counts the others."""
    shown = len(group) if len(group) <= columns else columns - 1
    headings = [f"{number} · {len(group)} images", *(f"{x:.3f}" for x in group.scores[1:shown])]
    cells = [
        Cell(load_thumbnail(path, size), (headings[i], short_path(path)), accent=i == 0)
        for i, path in enumerate(group.paths[:shown])
    ]
    return cells if shown == len(group) else [*cells, Cell(f"{len(group) - shown:,} more")]
