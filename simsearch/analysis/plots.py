"""Figures of the analysis: groups of duplicates, heat maps over matches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.duplicates import Duplicates
from simsearch.analysis.explain import contributions, heat_colors, resize_heat
from simsearch.errors import QueryError
from simsearch.plotting.grid import (
    ACCENT,
    GAP_INCHES,
    INK,
    briefly,
    cell_size,
    check_positive,
    load_thumbnail,
    make_grid,
    short_path,
    show_picture,
    write_caption,
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
    """Turn thumbnails grey, and overlay heat maps on one scale."""
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
    rows = [_load_group(group, columns, size) for group in shown]
    title = f"{len(shown):,} of {len(duplicates):,} groups" if len(shown) < len(duplicates) else ""
    cell = cell_size(size, [picture for row in rows for picture in row])
    fig, axes = make_grid((len(shown), columns), cell, lines=2, lead=GAP_INCHES, title=title)
    for number, (group, row, line) in enumerate(zip(shown, rows, axes, strict=True), 1):
        show_picture(line[0], row[0], ACCENT, 2.5)
        heading = f"{number} · {len(group)} images"
        write_caption(line[0], heading, short_path(group.paths[0]), color=ACCENT, weight="bold")
        for ax, picture in zip(line[1:], row[1:], strict=False):
            show_picture(ax, picture)
        described = columns - (len(group) > columns)
        for i in range(1, min(len(group), described)):
            write_caption(line[i], f"{group.scores[i]:.3f}", short_path(group.paths[i]), color=INK)
    return fig, axes


def _load_group(group: DuplicateGroup, columns: int, size: float) -> list[Picture | str]:
    """Load the thumbnails of a group that fit into a row; the last cell counts the others."""
    shown = group.paths if len(group) <= columns else group.paths[: columns - 1]
    more = len(group) - len(shown)
    return [load_thumbnail(path, size) for path in shown] + [f"{more:,} more"] * bool(more)
