"""Contact sheets: figures of many images."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.errors import QueryError
from simsearch.images.decode import describe
from simsearch.library.library import ImageLibrary
from simsearch.plotting.grid import (
    briefly,
    cell_size,
    check_positive,
    load_thumbnail,
    make_grid,
    round_robin,
    short_path,
    show_picture,
    write_caption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource


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

    pictures = [load_thumbnail(sources[row], size) for row in rows]
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
        return images.paths.tolist(), images.folders.tolist(), round_robin(images.folders)
    if isinstance(images, (str, bytes, os.PathLike, Image.Image)):
        raise QueryError(f"show_images takes a list; for one image, give [{briefly(images)}]")
    sources = list(images)
    return sources, [short_path(describe(source)) for source in sources], np.arange(len(sources))
