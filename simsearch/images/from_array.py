"""Arrays of pixels as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images.depth import find_levels, scale

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray


def from_array(array: NDArray[Any]) -> Image.Image:
    """Turn (H, W[, C]) pixels into an image; 16 bits are scaled as `depth` describes.

    Raises
    ------
    ImageError
        If shape, type or values are not those of pixels.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_image or not array.size:
        raise ImageError("the shape must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.newbyteorder("=") == np.uint16:
        array = scale(array, find_levels(array))
    elif array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError("float values must lie in [0, 1]; give uint8 for [0, 255]")
        array = (array * 255).round()
    elif array.dtype != np.uint8:
        raise ImageError(f"dtype {array.dtype} is not bool, uint8, uint16 or float")
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))
