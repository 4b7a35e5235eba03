"""Figures of the analysis: groups of duplicates, and heat maps over matches."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.duplicates import Duplicates
from simsearch.analysis.explain import contributions, heat_colors, resize_heat
from simsearch.errors import QueryError
from simsearch.plotting.grid import (
    GAP_INCHES,
    check_positive,
    fill_cell,
    load_thumbnail,
    make_grid,
    short_path,
    short_repr,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

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

    On the left, in a blue frame, stands the image to keep; the others follow with their cosine to
    it, the most similar first. What a row has no room for is counted in its last cell.

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
    if not shown:
        fig, axes = make_grid((1, 1), size, [], lines=1)
        fill_cell(axes[0, 0], "no duplicates")
        return fig, axes
    columns = min(columns, max(map(len, shown)))
    rows = [_load_group(group, columns, size) for group in shown]
    title = f"{len(shown):,} of {len(duplicates):,} groups" if len(shown) < len(duplicates) else ""
    shape = len(shown), columns
    fig, axes = make_grid(shape, size, chain(*rows), lines=2, title=title, lead=GAP_INCHES)
    for number, (group, row, cells) in enumerate(zip(shown, rows, axes, strict=True), 1):
        headings = [f"{number} · {len(group)} images", *(f"{x:.3f}" for x in group.scores[1:])]
        for i, (ax, picture) in enumerate(zip(cells, row, strict=False)):
            counts_others = i == columns - 1 and len(group) > columns
            caption = () if counts_others else (headings[i], short_path(group.paths[i]))
            fill_cell(ax, picture, *caption, accent=i == 0)
    return fig, axes


def _load_group(group: DuplicateGroup, columns: int, size: float) -> list[Picture | str]:
    """Load the thumbnails of a group that fit into a row; the last cell counts the others."""
    shown = group.paths if len(group) <= columns else group.paths[: columns - 1]
    more = len(group) - len(shown)
    return [load_thumbnail(path, size) for path in shown] + [f"{more:,} more"] * bool(more)
