"""Parts of a picture embedded whole: a window becomes the network's input, with nothing cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import ImageError
from simsearch.files import iter_blocks
from simsearch.images.decode import describe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

STRIDE = 32  # pixels of the input for a cell of the last map, in most networks
SMALL_SHARE = 5 / 7  # of the input's side, for the smaller view of a query: 160 of 224 pixels


def prepare_window(backbone: Backbone, image: Image.Image, box: Sequence[float]) -> NDArray[Any]:
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


def encode_views(backbone: Backbone, images: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Embed queries that are compared with parts: each by the mean of two views of all of it.

    One is squeezed into the network's input, the other into a smaller one, which shows it at the
    scale that it has in a larger picture.

    Parameters
    ----------
    images
        Upright RGB images.

    Returns
    -------
    numpy.ndarray
        (Q, D) float32, rows of unit L2 norm.

    Raises
    ------
    ImageError
        For the first image that has no finite embedding.
    """
    rows = np.empty((len(images), backbone.dim), np.float32)
    for i, image in enumerate(images):
        whole = (0, 0, *image.size)
        views = backbone.embed(prepare_window(backbone, image, whole)[None])
        if side := small_side(backbone):
            small = resize_window(backbone.transform, image, whole, (side, side))  # type: ignore[arg-type]
            views = np.concatenate([views, backbone.embed(small[None])])
        mean = views.sum(axis=0)
        norm = np.linalg.norm(mean)
        if not norm > 0:  # NaN, too
            raise ImageError(backbone.non_finite_reason, describe(image))
        rows[i] = mean / norm
    return rows


_small_sides: WeakKeyDictionary[Backbone, int] = WeakKeyDictionary()


def small_side(backbone: Backbone) -> int:
    """Return the side of the smaller view in pixels; 0 for a network of one size of input."""
    if backbone not in _small_sides:
        _small_sides[backbone] = _try_small_side(backbone)
    return _small_sides[backbone]


def _try_small_side(backbone: Backbone) -> int:
    if not isinstance(backbone.transform, Preprocessing):
        return 0
    side = max(STRIDE, round(backbone.transform.crop * SMALL_SHARE / STRIDE) * STRIDE)
    try:
        backbone.embed(np.zeros((1, side, side, 3), np.uint8))
    except Exception:  # as vision transformers raise, each in its own way
        return 0
    return side
