"""Parts of a picture embedded whole: a window becomes the network's input, with nothing cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone


def prepare_window(
    backbone: Backbone, image: Image.Image, box: Sequence[float]
) -> NDArray[Any]:
    """Turn a window of an upright RGB image into a network's input, without a margin.

    Unlike `Backbone.prepare`, which resizes more and keeps the centre, nothing of it is lost; what
    is not square is squeezed. A transform of the user's own gets the window as a picture.
    """
    transform = backbone.transform
    if not isinstance(transform, Preprocessing):
        return backbone.prepare(image.crop(tuple(map(round, box))))  # type: ignore[arg-type]
    return resize_window(transform, image, box, (transform.crop, transform.crop))


def resize_window(
    transform: Preprocessing, image: Image.Image, box: Sequence[float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resize a window to (width, height) as the network's own preprocessing resizes: (H, W, 3)."""
    resample = Image.Resampling[transform.interpolation]
    return np.array(image.resize(size, resample, box=tuple(box)))  # type: ignore[arg-type]


def embed_windows(
    backbone: Backbone, image: Image.Image, boxes: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Embed windows of an upright RGB image, (n, 4) in its pixels: (n, D) float32, unit norm.

    A row is NaN where the network gave no finite direction.
    """
    rows = np.empty((len(boxes), backbone.dim), np.float32)
    for block in iter_blocks(len(boxes), backbone.batch_size):
        inputs = [prepare_window(backbone, image, box) for box in boxes[block].tolist()]
        rows[block] = backbone.embed(np.stack(inputs))
    return rows
