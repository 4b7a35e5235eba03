"""Parts of a picture that are worth a search of their own, where its last feature map is strong.

As in selective convolutional descriptor aggregation (Wei et al., 2017): no training, no labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.windows import resize_window
from simsearch.embedding.part_regions import map_size
from simsearch.errors import BackboneError
from simsearch.images.decode import load_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.images.decode import ImageSource
    from simsearch.retrieval.query import Box

MOST_PARTS = 4
SIDES = (0.3, 0.4, 0.55, 0.75)  # of windows, in sides of the picture
MAX_OVERLAP = 0.35  # of two suggestions: their intersection over the smaller one
MIN_CONTRAST = 0.35  # of a suggestion, in those of the first


def suggest_parts(backbone: Backbone, image: ImageSource, count: int = MOST_PARTS) -> list[Box]:
    """Suggest parts of a picture to search with.

    Parameters
    ----------
    backbone
        That of the library that is searched.
    image
        Anything that `load_image` takes.
    count
        Parts, at most.

    Returns
    -------
    list of (left, top, right, bottom)
        Fractions of the upright picture, the most striking first. Empty if nothing stands out, or
        if the network pools no feature map.

    Raises
    ------
    ImageError
        If the picture cannot be read.
    """
    try:
        cells = _map_of(backbone, image)
    except BackboneError:
        return []
    return pick_windows(np.linalg.norm(cells, axis=2), count)


def _map_of(backbone: Backbone, image: ImageSource) -> NDArray[np.float32]:
    """Return the cells (h, w, D) of a whole picture, at twice the usual side where that goes."""
    opened, transform = load_image(image), backbone.transform
    cells: NDArray[np.float32]  # (h, w, D)
    if not isinstance(transform, Preprocessing):
        (cells,) = backbone.feature_map(backbone.prepare(opened)[None])
        return cells
    sizes = [map_size(opened.width / opened.height, transform.crop), (transform.crop,) * 2]
    whole = (0, 0, *opened.size)
    larger, usual = (resize_window(transform, opened, whole, size)[None] for size in sizes)
    try:
        (cells,) = backbone.feature_map(larger)
    except (RuntimeError, ValueError, AssertionError):  # of networks that take one size
        (cells,) = backbone.feature_map(usual)
    return cells


def pick_windows(strength: NDArray[np.floating], count: int = MOST_PARTS) -> list[Box]:
    """Pick the windows of a map (h, w) that stand out most from what is around them.

    Returns
    -------
    list of (left, top, right, bottom)
        Fractions of the map, which overlap little.
    """
    boxes, contrast = _windows(strength)
    picked: list[int] = []
    for i in np.argsort(-contrast, kind="stable").tolist():
        if len(picked) == count or contrast[i] <= MIN_CONTRAST * max(contrast.max(), 1e-6):
            break
        if all(overlap(boxes[i], boxes[j]) <= MAX_OVERLAP for j in picked):
            picked.append(i)
    shape = np.array(strength.shape[::-1] * 2)
    return [tuple((boxes[i] / shape).round(4).tolist()) for i in picked]


def _windows(strength: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return all windows of some sizes, (n, 4) in cells, and how far each stands out."""
    height, width = strength.shape
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = strength.astype(np.float64).cumsum(axis=0).cumsum(axis=1)
    found = {
        (x, y, x + across, y + down)
        for wide in SIDES
        for high in SIDES
        for across, down in [(max(1, round(wide * width)), max(1, round(high * height)))]
        for x in range(width - across + 1)
        for y in range(height - down + 1)
        if across * down < width * height
    }
    boxes = np.array(sorted(found), np.int64).reshape(-1, 4)
    left, top, right, bottom = boxes.T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    area, every = (right - left) * (bottom - top), height * width
    share = area / every
    outside = (sums[-1, -1] - inside) / np.maximum(every - area, 1)
    spread = strength.std() or 1.0
    return boxes, (inside / area - outside) / spread * np.sqrt(share * (1 - share))


def overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the intersection of two windows over the smaller one."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    return both / min(float(np.prod(each[2:] - each[:2])) for each in (one, other))
