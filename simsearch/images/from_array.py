"""Arrays of pixels as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images.arrays import pixel_fault
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
    if reason := pixel_fault(array):
        raise ImageError(reason)
    array = array[:, :, 0] if array.shape[2:] == (1,) else array
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        array = (array * 255).round()
    elif array.dtype != np.uint8:
        array = scale(array, find_levels(array))
    return Image.fromarray(np.ascontiguousarray(array, dtype=np.uint8))
