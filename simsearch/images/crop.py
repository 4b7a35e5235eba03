"""Crops of upright images, by pixels or by fractions."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from simsearch.errors import QueryError
from simsearch.images.decode import DECODER, load_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image

    from simsearch.images.decode import ImageSource

LARGE_PART_PIXELS = 8_000_000  # from here on, a part is averaged down
REDUCED_SIDE = 1024  # pixels that its shorter side keeps, at least


def load_parts(source: ImageSource, boxes: Iterable[Sequence[float]]) -> list[Image.Image]:
    """Decode an image and cut parts of it, each of at most 8 megapixels or 1024 pixels wide.

    Parameters
    ----------
    source
        What `load_image` takes.
    boxes
        As `crop` takes them.

    Raises
    ------
    ImageError
        If the image cannot be read.
    QueryError
        If a box is out of range.
    """
    boxes = list(boxes)  # crop() refuses what is no box
    if (decoder := DECODER.get()) and isinstance(source, (str, os.PathLike, bytes)):
        return decoder.parts(source, boxes)
    image = load_image(source)
    return [_reduced(crop(image, box)) for box in boxes]


def _reduced(part: Image.Image) -> Image.Image:
    """Average a large part down; it remembers its `full_size`."""
    factor = min(part.size) // REDUCED_SIDE
    if part.width * part.height <= LARGE_PART_PIXELS or factor < 2:
        return part
    reduced = part.reduce(factor)
    reduced.full_size = part.size  # type: ignore[attr-defined]
    return reduced


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
