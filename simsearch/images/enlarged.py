"""Enlarged copies told by the detail that they lack above the size that they were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_ENLARGED = 1.15  # times the smaller side: with less, nothing is said
MOST_DETAIL = 0.42  # of an enlarged picture: measured 0.28 to 0.41
LEAST_DETAIL = 0.6  # of the one that it was made from: a soft picture has less in any size


def is_enlarged(image: Image.Image, smaller: Image.Image) -> bool:
    """Tell whether a picture holds no more detail than the smaller one, which is sharp.

    Said of sharp pictures only: a soft photo and its reduced copy look like a photo and its
    enlarged copy. Measured on 50 photos and 60 scenes, enlarged by 1.25 to 3 times and saved as
    JPEGs of quality 90, and on photos that were larger from the start.
    """
    sizes = zip(image.size, smaller.size, strict=True)
    if min(large / small for large, small in sizes) < LEAST_ENLARGED:
        return False
    if detail_beyond(image, smaller.size) >= MOST_DETAIL:
        return False
    half = max(4, smaller.width // 2), max(4, smaller.height // 2)
    return detail_beyond(smaller, half) >= LEAST_DETAIL


def detail_beyond(image: Image.Image, size: tuple[int, int]) -> float:
    """Detail that is lost at a smaller size, to that which is lost from there to half of it."""
    grey = image.convert("L")
    half = max(4, size[0] // 2), max(4, size[1] // 2)
    whole, once, twice = np.asarray(grey, np.float32), _through(grey, size), _through(grey, half)
    finest, finer = (float(np.sqrt((each**2).mean())) for each in (whole - once, once - twice))
    return finest / (finer + 0.1)


def _through(image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    """Reduce an image to a size, and enlarge it again."""
    small = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC), np.float32)
