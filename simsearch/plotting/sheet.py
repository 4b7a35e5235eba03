"""Contact sheets: figures of many images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.errors import QueryError
from simsearch.files import iter_blocks
from simsearch.images.decode import describe
from simsearch.library.library import ImageLibrary
from simsearch.plotting.grid import (
    Cell,
    check_positive,
    draw_grid,
    load_thumbnail,
    short_path,
)
from simsearch.plotting.refusals import short_repr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource


def round_robin(labels: NDArray[Any], seed: int = 0) -> NDArray[np.intp]:
    """Order rows at random, but so that the labels take turns, as long as they have rows."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, which, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    turn = np.empty(len(labels), np.intp)
    turn[np.argsort(which, kind="stable")] = np.concatenate([np.arange(n) for n in counts])
    return shuffled[np.argsort(turn, kind="stable")]


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
        One line per image. By default the end of its path; for a library its folder.
    columns
        Images per row.
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

    cells = [Cell(load_thumbnail(sources[row], size), [names[row]]) for row in rows]
    return draw_grid([cells[block] for block in iter_blocks(len(cells), columns)], size, title)


def _sheet(
    images: Sequence[ImageSource] | ImageLibrary,
) -> tuple[Sequence[Any], Sequence[str], NDArray[np.intp]]:
    """Return the images of a contact sheet, their names, and in which order to take them."""
    if isinstance(images, ImageLibrary):
        return images.paths.tolist(), images.folders.tolist(), round_robin(images.folders)
    if isinstance(images, (str, bytes, os.PathLike, Image.Image)):
        raise QueryError(f"show_images takes a list; for one image, give [{short_repr(images)}]")
    sources = list(images)
    return sources, [short_path(describe(source)) for source in sources], np.arange(len(sources))
