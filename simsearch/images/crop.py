"""Crops of upright images, by pixels or by fractions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image


def crop(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """Crop an upright image to a box.

    Parameters
    ----------
    image
        As `load_image` gives it.
    box
        (left, top, right, bottom), from the upper left corner: fractions of width and height if
        all are at most 1, otherwise pixels.

    Raises
    ------
    QueryError
        If the box is not four numbers, is empty, or reaches beyond the image.
    """
    left, top, right, bottom = (round(edge) for edge in _box_in_pixels(image, box))
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise QueryError(
            f"box={tuple(box)} is not inside an image of {image.width}×{image.height} pixels: give "
            "(left, top, right, bottom) in pixels, or in fractions from 0 to 1"
        )
    return image.crop((left, top, right, bottom))


def _box_in_pixels(image: Image.Image, box: Sequence[float]) -> list[float]:
    try:
        edges = [float(edge) for edge in box]
    except (TypeError, ValueError):
        edges = []
    if len(edges) != 4 or not all(map(math.isfinite, edges)):
        raise QueryError(f"box={box!r} is not (left, top, right, bottom)")
    if max(edges) > 1:
        return edges
    return [edge * side for edge, side in zip(edges, 2 * image.size, strict=True)]
